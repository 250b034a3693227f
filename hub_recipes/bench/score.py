"""Scoring a user's candidates: the plans of our Scorer beside what others do."""

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from transformers import pipeline

from bench.flops import Cost
from bench.measure import System, compare, spread, take_turns
from bench.workloads import Prompts, prompts
from trsr.core.history import Item
from trsr.core.prompts import Encoder
from trsr.core.scoring import PLANS, Scorer
from trsr.hub.decision import decision_config

CASES = ("200x21", "500x21", "1500x21", "500x100")
UNIT = ("prefix", "candidates")
PADDED = 2048  # tokens, as the paper's code pads
BATCH = 8
# Where no prefix is shared, tokens cost the same in every forward: a few candidates stand for all.
FEW_PADDED, FEW_ALONE, FEW_BATCHED = 2, 4, BATCH

# Points of the sweep.
COUNTS, AT_PREFIX = (21, 50, 100, 200, 500, 1000, 2000), 500
PREFIXES, AT_COUNT = (100, 200, 500, 1000, 2000, 4000), 100


def prepare(model, seed: int):
    return model


@torch.no_grad()
def case(model, encoder: Encoder, prefix: int, candidates: int, rounds: int, seed: int) -> dict[str, object]:
    """Seconds a user for `candidates` prompts of `prefix` shared tokens, for every system."""
    load = prompts(encoder, prefix, candidates, seed)
    truth = one_by_one(model, encoder, load)
    # In fp32 the order of additions alone moves a score by about 1e-5 of the spread.
    allowed = 1e-3 * truth.std().item()
    cost = Cost.of(model)
    best = Scorer(model, encoder.yes_id, encoder.no_id).plan

    def difference(scores) -> float | None:
        return None if scores is None else (scores - truth[: len(scores)]).abs().max().item()

    systems = [*ours(model, encoder, load), *peers(model, encoder, load, cost)]
    shared = load.shared
    least = cost.forward([(0, shared), *((shared, len(suffix)) for suffix in load.own)], candidates)
    return {
        "prefix": prefix,
        "candidates": candidates,
        "suffix_tokens": sum(map(len, load.suffixes)),
        "shared_tokens": shared,
        "least_gflop": round(least / 1e9, 3),
        "score_spread": truth.std().item(),
        "allowed_difference": allowed,
        "best": best,
        "systems": compare(systems, best, rounds, difference, allowed, least, model),
    }


def one_by_one(model, encoder: Encoder, load: Prompts) -> torch.Tensor:
    """(candidates,) log-odds, each from a forward of its own."""
    rows = [torch.tensor([load.prefix + suffix], device=model.device) for suffix in load.suffixes]
    return torch.cat([_log_odds(model(input_ids=row, use_cache=False).logits, encoder) for row in rows])


def ours(model, encoder: Encoder, load: Prompts) -> list[System]:
    """Every plan that the model may be scored by."""
    systems = []
    for plan in PLANS:
        try:
            scorer = Scorer(model, encoder.yes_id, encoder.no_id, plan=plan)
        except ValueError:
            continue  # the plan refuses this architecture
        some = load.suffixes[:FEW_BATCHED] if plan == "batch" else load.suffixes
        run = partial(scorer.log_odds, load.prefix, some)
        share = _part(load, len(some)) if plan == "batch" else 1.0
        systems.append(System(plan, run, ours=True, share=share))
    return systems


def peers(model, encoder: Encoder, load: Prompts, cost: Cost) -> list[System]:
    rows = [load.prefix + suffix for suffix in load.suffixes]
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    shapes = [(0, max(map(len, batch))) for batch in batches for _ in batch]
    lengths = [(0, len(row)) for row in rows]
    wide = [(0, max(PADDED, len(row))) for row in rows]
    everywhere = sum(width for _, width in shapes)
    batched = sum(width for _, width in shapes[:FEW_BATCHED]) / everywhere
    some = batches[: FEW_BATCHED // BATCH]
    few, alone = min(FEW_PADDED, len(rows)), min(FEW_ALONE, len(rows))

    def padded(groups: Sequence, least: int, last_only: bool) -> Callable[[], torch.Tensor]:
        return lambda: torch.cat([left_padded(model, encoder, group, least, last_only) for group in groups])

    systems = [
        System(
            "paper",
            padded([[row] for row in rows[:few]], PADDED, False),
            share=sum(width for _, width in wide[:few]) / sum(width for _, width in wide),
            flops=cost.forward(wide, sum(width for _, width in wide), square=True),
        ),
        System("dynamic", padded(some, 0, False), share=batched, flops=cost.forward(shapes, everywhere, square=True)),
        System(
            "dynamic-last", padded(some, 0, True), share=batched, flops=cost.forward(shapes, len(rows), square=True)
        ),
        System(
            "text-generation",
            generation(model, encoder, load, alone),
            share=_part(load, alone),
            flops=cost.forward(lengths, len(rows)),
        ),
    ]
    if (decide := decision(model, encoder, load, alone)) is not None:
        flops = cost.forward(lengths, len(rows))
        systems.append(System("decision", decide, share=_part(load, alone), flops=flops))
    return systems


def left_padded(model, encoder: Encoder, rows: Sequence[list[int]], least: int, last_only: bool) -> torch.Tensor:
    """Log-odds of one batch, padded to its longest row or to `least` tokens."""
    width = max(least, *map(len, rows))
    ids = torch.tensor([[encoder.no_id] * (width - len(row)) + row for row in rows])  # (n, width)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    keep = {"logits_to_keep": 1} if last_only else {}
    logits = model(input_ids=ids, attention_mask=mask, position_ids=places, use_cache=False, **keep).logits
    return _log_odds(logits, encoder)


def generation(model, encoder: Encoder, load: Prompts, count: int) -> Callable[[], None]:
    """The pipeline gives text and no scores, so there is nothing to compare."""
    generate = pipeline("text-generation", model=model, tokenizer=copy.deepcopy(encoder.tokenizer), device=-1)
    head, tail = encoder.frame()
    prompt = encoder.prompt
    texts = [head + prompt.prefix(load.summary, []) + prompt.suffix(Item(item)) + tail for item in load.items[:count]]

    def run() -> None:
        generate(texts, max_new_tokens=1, do_sample=False, return_full_text=False, add_special_tokens=False)

    return run


def decision(model, encoder: Encoder, load: Prompts, count: int) -> Callable[[], torch.Tensor] | None:
    """transformers' decision pipeline on our decision files; None where the tokenizer allows none."""
    config = decision_config(encoder, 1.0)
    if config is None:
        return None
    tokenizer = copy.deepcopy(encoder.tokenizer)
    decide = pipeline("decision", model=model, tokenizer=tokenizer, decision_config=config, device=-1)
    questions = {str(n): {"type": "noul", "instructions": item} for n, item in enumerate(load.items[:count])}

    def run() -> torch.Tensor:
        answers = decide({"state": {"summary": load.summary, "recent_items": []}, "questions": questions})
        chances = [answers[name]["noul"] for name in questions]
        return torch.tensor([math.log(p) - math.log1p(-p) for p in chances])

    return run


def sweep(
    model, encoder: Encoder, rounds: int, seed: int, counts: Sequence[int] = COUNTS, prefixes: Sequence[int] = PREFIXES
) -> list[dict[str, object]]:
    """Candidates a second of the best plan, over the number of candidates and over the length of the prefix."""
    points = [("candidates", AT_PREFIX, count) for count in counts]
    points += [("prefix", prefix, AT_COUNT) for prefix in prefixes]
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or math.inf
    scorer = Scorer(model, encoder.yes_id, encoder.no_id)
    cost = Cost.of(model)
    results = []
    for over, prefix, candidates in points:
        load = prompts(encoder, prefix, candidates, seed)
        if prefix + max(map(len, load.suffixes)) > context:
            continue
        system = System(scorer.plan, partial(scorer.log_odds, load.prefix, load.suffixes))
        seconds = take_turns([system], rounds)[scorer.plan]
        shared = load.shared
        least = cost.forward([(0, shared), *((shared, len(suffix)) for suffix in load.own)], candidates)
        results.append(
            {
                "over": over,
                "prefix": prefix,
                "candidates": candidates,
                "tokens": shared + sum(map(len, load.own)),
                "gflop": round(least / 1e9, 3),
                "candidates_per_second": spread([candidates / elapsed for elapsed in seconds]),
            }
        )
    return results


def _part(load: Prompts, count: int) -> float:
    """The first `count` prompts' part of all tokens."""
    lengths = [len(load.prefix) + len(suffix) for suffix in load.suffixes]
    return sum(lengths[:count]) / sum(lengths)


def _log_odds(logits: torch.Tensor, encoder: Encoder) -> torch.Tensor:
    answers = logits[:, -1, [encoder.yes_id, encoder.no_id]].float()  # (n, 2)
    return answers[:, 0] - answers[:, 1]
