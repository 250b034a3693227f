"""Summaries written by a causal language model: the prompts of `prompts`, greedy, in length-sorted batches."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from .history import Block, clean
from .prompts import Encoder, SummaryPrompts


class ModelSummarizer:
    """A Summarizer over a model in memory.

    Args:
        model: A causal language model with `generate`.
        encoder: Its prompt encoder; the chat template is used when there is one.
        prompts: What it is asked.
        max_new_tokens: Longest summary in tokens.
        batch_tokens: Most prompt and answer tokens in one batch.
        generation: More arguments of `generate`, such as `do_sample=True, temperature=0.7`.
    """

    def __init__(
        self,
        model,
        encoder: Encoder,
        prompts: SummaryPrompts | None = None,
        max_new_tokens: int = 160,
        batch_tokens: int = 8192,
        **generation,
    ) -> None:
        self.model = model
        self.encoder = encoder
        self.prompts = prompts or SummaryPrompts()
        self.max_new_tokens = max_new_tokens
        self.batch_tokens = batch_tokens
        self.generation = {"do_sample": False, **generation}

    def block(self, blocks: Sequence[Block]) -> list[str]:
        return self._ask([self.prompts.block_text(block) for block in blocks])

    def merge(self, summaries: Sequence[Sequence[str]]) -> list[str]:
        return self._ask([self.prompts.merge_text(group) for group in summaries])

    def update(self, pairs: Sequence[tuple[str, Block]]) -> list[str]:
        return self._ask([self.prompts.update_text(summary, block) for summary, block in pairs])

    @torch.no_grad()
    def _ask(self, texts: Sequence[str]) -> list[str]:
        prompts = [self.encoder.request_ids(text) for text in texts]
        limit = self.encoder.limit
        for text, ids in zip(texts, prompts, strict=True):
            if limit and len(ids) + self.max_new_tokens > limit:
                raise ValueError(
                    f"A summary prompt has {len(ids)} tokens, and with {self.max_new_tokens} for the answer exceeds the "
                    f"model's context of {limit}. Use smaller blocks or shorter item texts. It begins: {text[-80:]!r}"
                )
        answers = [""] * len(prompts)
        for places in self._batches(prompts):
            width = max(len(prompts[place]) for place in places)
            pad = self._pad()
            # Left padding: generation continues from the last position of every row.
            ids = [[pad] * (width - len(prompts[place])) + prompts[place] for place in places]
            mask = [[0] * (width - len(prompts[place])) + [1] * len(prompts[place]) for place in places]
            made = self.model.generate(
                input_ids=torch.tensor(ids, device=self.model.device),
                attention_mask=torch.tensor(mask, device=self.model.device),
                max_new_tokens=self.max_new_tokens,
                pad_token_id=pad,
                **self.generation,
            )[:, width:]
            for place, row in zip(places, made, strict=True):
                answers[place] = clean(self.encoder.tokenizer.decode(row, skip_special_tokens=True))
        return answers

    def _batches(self, prompts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
        while order:
            longest = len(prompts[order[0]]) + self.max_new_tokens
            size = max(1, self.batch_tokens // longest)
            yield order[:size]
            order = order[size:]

    def _pad(self) -> int:
        tokenizer = self.encoder.tokenizer
        return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (tokenizer.eos_token_id or 0)


@contextmanager
def without_adapter(model) -> Iterator[None]:
    """Run the base alone; the adapter is on again afterwards, also after an error."""
    if hasattr(model, "disable_adapter"):  # a PeftModel
        with model.disable_adapter():
            yield
    elif getattr(model, "_hf_peft_config_loaded", False):  # transformers' own integration
        model.disable_adapters()
        try:
            yield
        finally:
            model.enable_adapters()
    else:
        yield
