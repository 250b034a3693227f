"""Summaries by a language model: the plans of our ModelSummarizer beside `generate` on one prompt at a time.

Every answer has the same number of new tokens, so that all systems do the same work.
"""

from collections.abc import Sequence
from functools import partial

import torch

from bench.flops import Cost
from bench.measure import System, compare
from bench.workloads import blocks
from trsr.core.decoding import PLANS
from trsr.core.generation import ModelSummarizer
from trsr.core.groups import common_prefix
from trsr.core.history import clean
from trsr.core.prompts import Encoder
from trsr.core.summary_prompts import SummaryPrompts

CASES = ("16x32", "16x128")
UNIT = ("blocks", "new_tokens")


def prepare(model, seed: int):
    return model


@torch.no_grad()
def case(model, encoder: Encoder, count: int, new_tokens: int, rounds: int, seed: int) -> dict[str, object]:
    """Seconds for `count` blocks of five items, `new_tokens` answer tokens each, for every system."""
    some = blocks(encoder, count, seed)
    wording = SummaryPrompts()
    prompt_ids = [encoder.request_ids(wording.block_text(block)) for block in some]
    pad = encoder.no_id

    def one_by_one() -> list[str]:
        texts = []
        for ids in prompt_ids:
            row = torch.tensor([ids])
            output = model.generate(
                input_ids=row,
                attention_mask=torch.ones_like(row),
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
                do_sample=False,
                pad_token_id=pad,
            )
            texts.append(clean(encoder.tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True)))
        return texts

    def summarizer(plan: str | None) -> ModelSummarizer:
        return ModelSummarizer(model, encoder, wording, new_tokens, plan=plan, min_new_tokens=new_tokens)

    def summarize(plan: str) -> list[str]:
        return summarizer(plan).block(some)  # a new one: it keeps what it has run of the instruction

    probed = summarizer(None)
    probed.block(some[:2])
    best = probed.decoder.plan or "batch"
    truth = one_by_one()

    def difference(texts: Sequence[str]) -> float:
        """Part of the summaries that are not, word by word, what a prompt alone gives."""
        return sum(text != right for text, right in zip(texts, truth, strict=True)) / count

    cost = Cost.of(model)
    shared = len(common_prefix(prompt_ids))
    answers = [(len(row), new_tokens - 1) for row in prompt_ids]  # the last token is never read
    through_head = count * new_tokens
    least = cost.forward([(0, shared), *((shared, len(row) - shared) for row in prompt_ids), *answers], through_head)
    whole = cost.forward([*((0, len(row)) for row in prompt_ids), *answers], through_head)
    systems = [
        System(plan, partial(summarize, plan), ours=True)
        for plan in PLANS
        if plan in (best, "batch")  # a faster one was found not to hold for this architecture
    ]
    systems.append(System("one by one", one_by_one, flops=whole))
    return {
        "blocks": count,
        "new_tokens": new_tokens,
        "prompt_tokens": sum(map(len, prompt_ids)),
        "shared_tokens": shared,
        "least_gflop": round(least / 1e9, 3),
        "allowed_difference": 0.0,
        "best": best,
        "systems": compare(systems, best, rounds, difference, 0.0, least, model),
    }
