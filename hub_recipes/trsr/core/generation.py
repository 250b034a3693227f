"""Summaries written by a causal language model: the prompts of `prompts`, continued by `decoding`."""

from collections.abc import Sequence

from .answer import Answer
from .decoding import Decoder
from .errors import InputError
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
        self.encoder = encoder
        self.prompts = prompts or SummaryPrompts()
        self.max_new_tokens = max_new_tokens
        self.batch_tokens = batch_tokens
        pad, end = encoder.tokenizer.pad_token_id, encoder.tokenizer.eos_token_id
        self.decoder = Decoder(model, pad if pad is not None else end or 0, **generation)

    def block(self, blocks: Sequence[Block]) -> list[str]:
        return self._texts("block", [self.prompts.block_text(block) for block in blocks])

    def merge(self, summaries: Sequence[Sequence[str]]) -> list[str]:
        return self._texts("merge", [self.prompts.merge_text(group) for group in summaries])

    def update(self, pairs: Sequence[tuple[str, Block]]) -> list[str]:
        return self._texts("update", [self.prompts.update_text(summary, block) for summary, block in pairs])

    def answers(self, kind: str, texts: Sequence[str]) -> list[Answer]:
        """Answer prompts of one kind: `block`, `merge` or `update`.

        Raises:
            ValueError: If a prompt and its answer do not fit into the model's context.
        """
        prompts = [self.encoder.request_ids(text) for text in texts]
        limit = self.encoder.limit
        for text, ids in zip(texts, prompts, strict=True):
            if limit and len(ids) + self.max_new_tokens > limit:
                raise InputError(
                    f"A summary prompt has {len(ids)} tokens, and with {self.max_new_tokens} for the answer exceeds the "
                    f"model's context of {limit}. Use smaller blocks or shorter item texts. It begins: {text[-80:]!r}"
                )
        ends = self.decoder.ends()
        return [
            Answer(
                self.encoder.tokenizer.decode(ids, skip_special_tokens=True),
                "stop" if ids and ids[-1] in ends else "length",
                len(prompt),
                len(ids),
            )
            for prompt, ids in zip(
                prompts, self.decoder.answers(prompts, self.max_new_tokens, self.batch_tokens, kind), strict=True
            )
        ]

    def _texts(self, kind: str, texts: Sequence[str]) -> list[str]:
        return [clean(answer.text) for answer in self.answers(kind, texts)]
