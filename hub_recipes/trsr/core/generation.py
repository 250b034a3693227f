"""Summaries written by a causal language model: the prompts of `prompts`, continued by `decoding`."""

from collections.abc import Sequence

from .answer import Answer
from .control_tokens import has_reasoning
from .decoding import Decoder, SamplingState
from .errors import InputError
from .history import Block
from .prompts import Encoder
from .summary_prompts import SummaryPrompts


class ModelSummarizer:
    """A Summarizer over a model in memory.

    Args:
        model: A causal language model with `generate`.
        encoder: Its prompt encoder; the chat template is used when there is one.
        prompts: What it is asked. With a fixed form, an answer ends with its first line.
        max_new_tokens: Longest summary in tokens.
        batch_tokens: Most prompt and answer tokens in one batch.
        generation: More arguments of `Decoder` and of `generate`, such as `do_sample=True, temperature=0.7`.
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
        if self.prompts.form:
            generation["extra_stop_ids"] = encoder.line_ends
        self.decoder = Decoder(model, pad if pad is not None else end or 0, **generation)

    def block(self, blocks: Sequence[Block]) -> list[str]:
        return self._texts("block", [self.prompts.block_text(block) for block in blocks])

    def merge(self, summaries: Sequence[Sequence[str]]) -> list[str]:
        return self._texts("merge", [self.prompts.merge_text(group) for group in summaries])

    def update(self, pairs: Sequence[tuple[str, Block]]) -> list[str]:
        return self._texts("update", [self.prompts.update_text(summary, block) for summary, block in pairs])

    def answers(self, kind: str, texts: Sequence[str], draws: Sequence[SamplingState | None] = ()) -> list[Answer]:
        """Answer prompts of one kind: `block`, `merge` or `update`.

        A prompt that does not fit into the model's context beside its answer has the failure `prompt too long`.

        Args:
            draws: How each answer is drawn; None is greedy, as all are by default.
        """
        turns = self.prompts.turns(kind)
        prompts = [self.encoder.request_ids(text, turns) for text in texts]
        limit = self.encoder.limit
        fitting = [index for index, ids in enumerate(prompts) if not limit or len(ids) + self.max_new_tokens <= limit]
        answer_ids = self.decoder.answers(
            [prompts[index] for index in fitting],
            self.max_new_tokens,
            self.batch_tokens,
            kind,
            [draws[index] for index in fitting] if draws else (),
        )
        stop_ids = self.decoder.stop_ids()
        answers = [
            Answer(
                f"A summary prompt has {len(ids)} tokens, and with {self.max_new_tokens} for the answer exceeds the model's "
                f"context of {limit}. Use smaller blocks or shorter item texts. Its texts begin: {_texts_of(text)!r}",
                failure="prompt too long",
            )
            for text, ids in zip(texts, prompts, strict=True)
        ]
        for index, ids in zip(fitting, answer_ids, strict=True):
            finish = "stop" if ids and ids[-1] in stop_ids else "length"
            answers[index] = Answer(self._decode(ids), finish, len(prompts[index]), len(ids))
        return answers

    def _decode(self, ids: Sequence[int]) -> str:
        """The text of an answer; with its special tokens where they alone tell reasoning from the rest."""
        text = self.encoder.tokenizer.decode(ids, skip_special_tokens=True)
        whole = self.encoder.tokenizer.decode(ids, skip_special_tokens=False)
        return whole if has_reasoning(whole) and not has_reasoning(text) else text

    def _texts(self, kind: str, texts: Sequence[str]) -> list[str]:
        answers = self.answers(kind, texts)
        if failed := [answer.text for answer in answers if answer.failure]:
            raise InputError(failed[0])
        return [self.prompts.summary(answer.text) for answer in answers]


def _texts_of(prompt: str) -> str:
    """The beginning of what follows a prompt's instruction."""
    return prompt.partition("\n\n")[2][:80]
