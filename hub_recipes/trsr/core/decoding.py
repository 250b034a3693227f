"""Generate the answers to many prompts, in length-sorted batches, with the prefix that they share run once.

Knows nothing of text: token ids in, token ids out. The plan is `reuse` (batches start from the cache of the shared
prefix, and finished answers leave the batch) or `batch` (whole prompts), which every causal model can do.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch
from transformers import Cache, LogitsProcessor, LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper
from transformers.utils import logging

from .compat import cache_name
from .errors import InputError
from .exactness import Reference
from .forward import exclusive
from .groups import common_prefix
from .prefix_cache import PrefixCache

logger = logging.get_logger(__name__)

PLANS = ("reuse", "batch")

# Steps after which ended answers leave their batch. Leaving copies the cache, as each step does.
SEGMENT = 16

# Settings under which a greedy step depends on nothing but the tokens before it. Others take the plan `batch`.
_KEEPS_GREEDY = set(
    "bos_token_id eos_token_id pad_token_id do_sample temperature top_k top_p min_p max_length max_new_tokens "
    "repetition_penalty use_cache transformers_version _from_model_config".split()
)


# Tokens are sampled from so many of the likeliest, unless the model's own settings say otherwise; as in `generate`.
TOP_K = 50


@dataclass(slots=True)
class SamplingState:
    """How one answer is sampled: with random numbers of its own, so that it does not depend on its batch."""

    temperature: float
    seed: int
    random: Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)


@dataclass(frozen=True, slots=True)
class _SharedPrefix:
    """The prefix that the prompts of a call share.

    Attributes:
        cache: Of the prefix that all prompts of a kind share.
        length: How many of its tokens these prompts share.
    """

    cache: PrefixCache
    length: int


class _SampleRows(LogitsProcessor):
    """Samples the next token of the rows that have a `SamplingState`, and masks all others from the greedy search that follows."""

    def __init__(self, draws: Sequence[SamplingState | None], warpers: LogitsProcessorList) -> None:
        self._rows = [row for row, draw in enumerate(draws) if draw]
        self._draws = [draw for draw in draws if draw]
        self._warpers = warpers

    def __call__(self, input_ids, scores):
        """Scores (rows, vocabulary) -> the same, in which a drawn row has one token."""
        precise = torch.float32 if scores.device.type == "mps" else torch.float64
        tensor_options: dict[str, Any] = {"dtype": precise, "device": scores.device}
        temperatures = torch.tensor([[draw.temperature] for draw in self._draws], **tensor_options)
        warped = self._warpers(input_ids[self._rows], scores[self._rows].to(precise) / temperatures)
        cumulative = warped.softmax(-1).cumsum(-1)  # (drawn rows, vocabulary)
        drawn = torch.tensor([[draw.random.random()] for draw in self._draws], **tensor_options) * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, drawn, right=True).clamp(max=scores.shape[-1] - 1)
        rows = torch.tensor(self._rows, device=scores.device)
        scores = scores.clone()
        scores[rows] = -torch.inf
        scores[rows, tokens[:, 0]] = 0.0
        return scores


class _AnswerPenalty(LogitsProcessor):
    """A repetition penalty for the answer's own tokens only. That of `generate` also penalises tokens of the prompt, such as
    names that the answer needs.

    Args:
        start: Length of the prompts, padding included.
        penalty: What the log-probabilities' scores are divided or multiplied by (Keskar et al. 2019, arXiv 1909.05858).
    """

    def __init__(self, start: int, penalty: float) -> None:
        self._start, self._penalty = start, penalty

    def __call__(self, input_ids, scores):
        """Scores (rows, vocabulary) -> the same, of which those of tokens from `start` on are lower."""
        answer = input_ids[:, self._start :]
        answer_scores = scores.gather(1, answer)
        return scores.scatter(
            1, answer, torch.where(answer_scores < 0, answer_scores * self._penalty, answer_scores / self._penalty)
        )


class Decoder:
    """Continues prompts with one model.

    Args:
        model: A causal language model with `generate`.
        pad_id: What `generate` writes after an answer's end.
        plan: One of `PLANS`; None probes the model as soon as there is something to share, and takes `reuse` where it
            is exact.
        answer_penalty: Above 1, tokens that an answer has already are less likely, whatever its prompt has.
        extra_stop_ids: Tokens that end an answer beside the model's own.
        generation: More arguments of `generate`. With anything but greedy search the plan is `batch`.

    Attributes:
        plan: The plan in use, None before the probe.
    """

    def __init__(
        self,
        model,
        pad_id: int,
        plan: str | None = None,
        answer_penalty: float = 1.0,
        extra_stop_ids: Collection[int] = (),
        **generation,
    ) -> None:
        if plan is not None and plan not in PLANS:
            raise InputError(f"Unknown plan {plan!r}, expected one of {', '.join(PLANS)}.")
        self.model = model
        self.pad_id = pad_id
        self.answer_penalty = answer_penalty
        self.generation = {"do_sample": False, **generation}
        if extra_stop_ids:
            self.generation["eos_token_id"] = sorted(self.stop_ids() | set(extra_stop_ids))
        # Apart from the rest, because it counts from the prompt's end.
        self._min_new_tokens = self.generation.pop("min_new_tokens", None) or 0
        self.plan = plan if self._is_greedy() else "batch"
        self._prefix_caches: dict[str, PrefixCache] = {}

    @torch.no_grad()
    def answers(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        batch_tokens: int = 8192,
        kind: str = "",
        draws: Sequence[SamplingState | None] = (),
    ) -> list[list[int]]:
        """Return the tokens after each prompt, up to and with an end token, in the order given.

        Args:
            prompts: Token ids, none empty.
            max_new_tokens: Longest answer in tokens.
            batch_tokens: Most prompt and answer tokens in one batch.
            kind: Prompts of one kind share a prefix, whose cache is kept from call to call.
            draws: How each answer is sampled; None is greedy, which is the default for all.
        """
        with exclusive(self.model):
            return self._answers(prompts, max_new_tokens, batch_tokens, kind, draws or [None] * len(prompts))

    def _answers(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        batch_tokens: int,
        kind: str,
        draws: Sequence[SamplingState | None],
    ) -> list[list[int]]:
        all_answers: list[list[int]] = [[] for _ in prompts]
        stop_ids = self.stop_ids()
        prefix = self._shared_prefix(prompts, kind)
        for indices in _batches([len(prompt) + max_new_tokens for prompt in prompts], batch_tokens):
            rows, drawn = [prompts[index] for index in indices], [draws[index] for index in indices]
            if prefix:
                answers = self._continue(rows, drawn, prefix, max_new_tokens)
            else:
                ids, mask = _left_padded(rows)
                sequences = self._generate(
                    ids, mask, max_new_tokens, self._min_new_tokens, **self._processors(drawn, ids.shape[1])
                )
                answers = sequences[:, ids.shape[1] :].tolist()
            for index, answer in zip(indices, answers, strict=True):
                all_answers[index] = _until_end(answer, stop_ids)
        return all_answers

    def _continue(
        self,
        rows: Sequence[Sequence[int]],
        draws: Sequence[SamplingState | None],
        prefix: _SharedPrefix,
        max_new_tokens: int,
    ) -> list[list[int]]:
        """Answers of one batch, whose shared prefix is not run again."""
        ids, mask = _left_padded(rows)
        start = ids.shape[1]
        cache = prefix.cache.rows(prefix.length, (mask == 0).sum(1))
        stop_ids = self.stop_ids()
        answers: list[list[int]] = [[] for _ in rows]
        indices = list(range(len(rows)))
        for step in range(0, max_new_tokens, SEGMENT):
            min_new_tokens = max(0, self._min_new_tokens - step)
            processors = self._processors([draws[index] for index in indices], start)
            sequences = self._generate(
                ids, mask, min(SEGMENT, max_new_tokens - step), min_new_tokens, cache=cache, **processors
            )
            unfinished = []
            for row, tokens in enumerate(sequences[:, ids.shape[1] :].tolist()):
                answers[indices[row]] += _until_end(tokens, stop_ids)
                if stop_ids.isdisjoint(tokens):
                    unfinished.append(row)
            if not unfinished:
                break
            if len(unfinished) < len(indices):
                indices = [indices[row] for row in unfinished]
                cache.reorder_cache(torch.LongTensor(unfinished))
            mask = torch.nn.functional.pad(mask, (0, sequences.shape[1] - ids.shape[1]), value=1)[unfinished]
            ids = sequences[unfinished]
        return answers

    def _processors(self, draws: Sequence[SamplingState | None], start: int) -> dict[str, Any]:
        """Arguments of `generate` for rows of which some are sampled, and whose answers begin at column `start`."""
        processors = LogitsProcessorList()
        if self.answer_penalty != 1:
            processors.append(_AnswerPenalty(start, self.answer_penalty))
        if any(draws):
            processors.append(self._sampler(draws))
        return {"logits_processor": processors} if processors else {}

    def _sampler(self, draws: Sequence[SamplingState | None]) -> _SampleRows:
        own = self.model.generation_config
        top_k, top_p = getattr(own, "top_k", None), getattr(own, "top_p", None)
        warpers = LogitsProcessorList([TopKLogitsWarper(TOP_K if top_k is None else top_k)] if top_k != 0 else [])
        if top_p is not None and top_p < 1:
            warpers.append(TopPLogitsWarper(top_p))
        return _SampleRows(draws, warpers)

    def _generate(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        max_new_tokens: int,
        min_new_tokens: int = 0,
        cache: Cache | None = None,
        **options: Any,
    ):
        if cache is not None:
            options[cache_name(self.model)] = cache
        return self.model.generate(
            input_ids=ids.to(self.model.device),
            attention_mask=mask.to(self.model.device),
            max_new_tokens=max_new_tokens,
            pad_token_id=self.pad_id,
            **({"min_new_tokens": min(min_new_tokens, max_new_tokens)} if min_new_tokens else {}),
            **self.generation,
            **options,
        )

    def _shared_prefix(self, prompts: Sequence[Sequence[int]], kind: str) -> _SharedPrefix | None:
        """The prefix that the prompts share; None where whole prompts are run."""
        if self.plan == "batch" or not prompts:
            return None
        cache = self._prefix_caches.get(kind)
        if cache is None or not cache.is_current():
            self._prefix_caches.pop(kind, None)
            ids = common_prefix(prompts)
            if len(prompts) == 1 or not ids:
                return None
            self.plan = self.plan or self._probe(prompts[0])
            if self.plan == "batch":
                return None
            cache = self._prefix_caches[kind] = PrefixCache(self.model, ids)
        length = len(common_prefix([[*cache.ids, -1], *prompts]))
        return _SharedPrefix(cache, length) if length else None

    def _is_greedy(self) -> bool:
        own = self.model.generation_config.to_diff_dict()
        if own.get("cache_implementation") == "hybrid":  # an old default of windowed models, which transformers drops
            del own["cache_implementation"]
        settings = {
            name for name, value in {**own, **self.generation}.items() if value is not None and value is not False
        }
        return self.generation["do_sample"] is False and settings <= _KEEPS_GREEDY

    def stop_ids(self) -> set[int]:
        """Tokens that end an answer, as `generate` looks them up."""
        configs = (self.generation.get("generation_config"), self.model.generation_config)
        settings = (self.generation.get("eos_token_id"), *(getattr(config, "eos_token_id", None) for config in configs))
        end = next((setting for setting in settings if setting is not None), ())
        return {end} if isinstance(end, int) else set(end)

    def _probe(self, prompt: Sequence[int]) -> str:
        """`reuse` if it gives the logits of three short prompts run one by one; else `batch`, with one warning."""
        ids = (list(prompt) * 44)[:44]  # tokens of a real prompt: some others mean an image
        # Padding: none, less than the shared prefix of 16, and more than it.
        rows = [ids, ids[:36], ids[:19]]
        stop_ids = self.stop_ids()
        # The continuation is forced: where two tokens are equally likely, rounding would choose between them.
        forced_tokens = [next((token for token in ids if token not in stop_ids), ids[0])]

        def logits(rows: Sequence[Sequence[int]], cache: Cache | None = None) -> torch.Tensor:
            options: dict[str, Any] = {"output_logits": True, "return_dict_in_generate": True}
            options["prefix_allowed_tokens_fn"] = lambda row, sent: forced_tokens
            output = self._generate(*_left_padded(rows), 3, cache=cache, **options)
            return torch.stack(output.logits, 1)  # (rows, steps, vocabulary)

        def reused() -> torch.Tensor:
            padding = (_left_padded(rows)[1] == 0).sum(1)
            return logits(rows, cache=PrefixCache(self.model, ids[:16]).rows(16, padding))

        reference = Reference(lambda: torch.cat([logits([row]) for row in rows]), lambda: logits(rows))
        fault = reference.why_not_exact(reused)
        if fault is None:
            return "reuse"
        logger.warning_once(f"Prompts are run whole with {type(self.model).__name__}: {fault}.")
        return "batch"


def _batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Indices sorted by length, longest first, in batches of at most `most` tokens, padding included."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    while order:
        size = max(1, most // lengths[order[0]])
        yield order[:size]
        order = order[size:]


def _left_padded(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, (rows, width) each. Generation continues from the last position of every row."""
    width = max(map(len, rows))
    # Filled with the row's own first token: a repetition penalty sees padding too.
    ids = [[row[0]] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


def _until_end(answer: list[int], stop_ids: set[int]) -> list[int]:
    """Without what `generate` writes after the end."""
    return answer[: next((length for length, token in enumerate(answer, 1) if token in stop_ids), None)]
