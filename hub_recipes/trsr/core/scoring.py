"""Log-odds of yes for every candidate of a user, with the shared prefix computed once.

Knows nothing of prompts or text: it takes token ids. Three plans, fastest first: `packed` lays suffixes end to end in
one row behind the prefix's cache, under a mask (`core.packed` says which models may); `fork` continues each suffix as a
row of its own from a copy of that cache (`core.fork`); `batch` sends whole prompts, which every causal model can do.

Tried on the CPU: fp32 and bf16, LoRA adapters, accelerate's hooks. Not tried: CUDA, several devices, quantised weights.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from transformers import Cache, DynamicCache
from transformers.utils import logging

from .errors import InputError
from .exactness import Reference
from .fork import same_rotation, why_not_forkable
from .forward import device, exclusive, fork_prefix, packed_logits, precise_logits, prefill, row_logits
from .groups import batch_by_length, hoist_common_prefix, split_evenly
from .packed import Row, why_not_packable

logger = logging.get_logger(__name__)

PLANS = ("packed", "fork", "batch")

# The next three constants were measured on one CPU thread, on models of 0.6 M and 23.6 M parameters without embeddings.
# Suffix tokens in a packed row. Longer rows spend attention on masked positions, shorter ones multiply small matrices:
# 256 to 512 was best behind 60 to 1,500 tokens.
ROW_TOKENS = 512
# Behind fewer tokens than this, copies are cheap: forking beat packing by 1% to 7% with 21 candidates and by up to 20%
# with 100 behind 60 to 200 tokens, and lost by 5% to 35% behind 500 to 4,000.
SHORT_PREFIX = 256
# Padding, in tokens, that costs as much as one more forward; the best of 16 to 5,000.
PADDING = 48
# Factor for accelerators, where a forward costs more and a token less. An estimate, not measured.
ON_ACCELERATORS = 8

LogitGroups = Iterator[tuple[list[int], torch.Tensor]]


class Scorer:
    """Scores candidates with one model. Threads may share it, and take turns.

    Args:
        model: A causal language model, with or without a PEFT adapter.
        yes_id: Token of the positive answer.
        no_id: Token of the negative answer.
        plan: One of `PLANS`; None takes the first that is allowed for the architecture and its attention, and
            that gives the same logits on a probe as separate prompts.
        group_tokens: Most tokens in one forward, copies of the prefix included; bounds memory, whatever the number of
            candidates. A prefix or a suffix is never split.

    Attributes:
        plan: The plan in use. If the Scorer chose `packed`, it forks short prefixes.
        stepped_down: Plans that share the prefix but cannot be used here -> reason.
        forwarded_tokens: Tokens sent through the model so far, padding included.

    Raises:
        ValueError: If `plan` is unknown, or cannot hold for this model.
    """

    def __init__(self, model, yes_id: int, no_id: int, plan: str | None = None, group_tokens: int = 16384) -> None:
        if plan is not None and plan not in PLANS:
            raise InputError(f"Unknown plan {plan!r}, expected one of {', '.join(PLANS)}.")
        self.model = model
        if plan and (reason := self._why_not_allowed(plan)):
            raise InputError(f"{type(model).__name__} cannot be scored by {plan}: {reason}. Leave `plan` out.")
        self.yes_id = yes_id
        self.no_id = no_id
        self.group_tokens = group_tokens
        self.forwarded_tokens = 0
        self.stepped_down: dict[str, str] = {}
        with exclusive(model):
            self.plan, self._short = (plan, plan) if plan else self._choose()
        self.forwarded_tokens = 0

    @torch.no_grad()
    def log_odds(self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return logit(yes) - logit(no) after each prefix + suffix. Equal suffixes get the very same score.

        Args:
            prefix: Token ids that all prompts share.
            suffixes: Token ids of each candidate, none empty.

        Returns:
            (candidates,) fp32 on the CPU, in the order given.

        Raises:
            ValueError: If a suffix or the prefix is empty, or a score is not finite.
        """
        if not prefix or not all(len(suffix) for suffix in suffixes):
            raise InputError("Prefix and suffixes must hold at least one token each.")
        indices = {suffix: index for index, suffix in enumerate(dict.fromkeys(map(tuple, suffixes)))}
        scores = torch.empty(len(indices))
        if indices:
            with exclusive(self.model), precise_logits(self.model, [self.yes_id, self.no_id]):
                for group, logits in self._logits(list(prefix), list(indices)):
                    answers = logits[:, [self.yes_id, self.no_id]].float()  # (group, 2)
                    scores[group] = (answers[:, 0] - answers[:, 1]).cpu()
        if broken := int((~scores.isfinite()).sum()):
            raise InputError(
                f"{broken} of {len(scores)} log-odds are not finite, and cannot be ranked. {self._remedy()}"
            )
        return scores[[indices[tuple(suffix)] for suffix in suffixes]]

    def _remedy(self) -> str:
        """What to do about log-odds that are not finite."""
        dtype = self.model.dtype
        if dtype != torch.float32:
            return f"{type(self.model).__name__} computes in {dtype}, where values may overflow: load it with dtype=torch.float32."
        return (
            f"{type(self.model).__name__} computes in {dtype} already: its weights are damaged, or its training diverged. Load "
            "them again, or train with a lower learning rate."
        )

    def _logits(self, prefix: list[int], suffixes: Sequence[Sequence[int]], plan: str | None = None) -> LogitGroups:
        """Logits (group, vocabulary) after each suffix, group by group."""
        if plan is None:
            plan = self._short if len(prefix) < SHORT_PREFIX else self.plan
        if not same_rotation(self.model.config, len(prefix), [len(prefix) + len(suffix) for suffix in suffixes]):
            return self._one_by_one(prefix, suffixes)
        if plan == "batch" or len(suffixes) == 1:  # a single candidate shares its prefix with no other
            return self._batched(prefix, suffixes)
        return (self._packed if plan == "packed" else self._forked)(*hoist_common_prefix(prefix, suffixes))

    def _packed(self, prefix: list[int], suffixes: Sequence[Sequence[int]]) -> LogitGroups:
        # Without a config every layer keeps the whole prefix, as the mask has it; the windows are in the mask.
        view = fork_prefix(self.model, self._prefill(prefix, DynamicCache()), 1)
        input_device = device(self.model)
        for group in split_evenly(list(map(len, suffixes)), min(ROW_TOKENS * self._scale, self.group_tokens)):
            parts = [torch.tensor(suffixes[index]) for index in group]
            row = Row.of(len(prefix), list(map(len, parts)), input_device)
            self.forwarded_tokens += len(row.positions)
            yield group, packed_logits(self.model, parts, row, view)

    def _forked(self, prefix: list[int], suffixes: Sequence[Sequence[int]]) -> LogitGroups:
        cache = self._prefill(prefix, None)
        for group in self._batches(prefix, suffixes):
            rows = [suffixes[index] for index in group]
            yield group, self._rows(rows, len(prefix), fork_prefix(self.model, cache, len(group)))

    def _batched(self, prefix: list[int], suffixes: Sequence[Sequence[int]]) -> LogitGroups:
        for group in self._batches(prefix, suffixes):
            yield group, self._rows([[*prefix, *suffixes[index]] for index in group])

    def _one_by_one(self, prefix: list[int], suffixes: Sequence[Sequence[int]]) -> LogitGroups:
        for index, suffix in enumerate(suffixes):
            yield [index], self._rows([[*prefix, *suffix]])

    def _batches(self, prefix: list[int], suffixes: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        return batch_by_length(
            [len(prefix) + len(suffix) for suffix in suffixes], self.group_tokens, PADDING * self._scale
        )

    def _prefill(self, prefix: list[int], cache: Cache | None) -> Cache:
        self.forwarded_tokens += len(prefix)
        return prefill(self.model, torch.tensor(prefix), cache)

    def _rows(self, rows: Sequence[Sequence[int]], start: int = 0, cache: Cache | None = None) -> torch.Tensor:
        self.forwarded_tokens += len(rows) * max(map(len, rows))
        return row_logits(self.model, [torch.tensor(row) for row in rows], start, cache)

    @property
    def _scale(self) -> int:
        return 1 if device(self.model).type == "cpu" else ON_ACCELERATORS

    def _why_not_allowed(self, plan: str) -> str | None:
        """Why a plan is ruled out before it is tried; None if it is not."""
        return {"packed": why_not_packable, "fork": why_not_forkable, "batch": lambda model: None}[plan](self.model)

    def _choose(self) -> tuple[str, str]:
        """The plans for long and short prefixes that hold on two short candidates. Logs the reasons against the others."""
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        ids = [(37 * step + 11) % vocabulary for step in range(27)]
        prefix, suffixes = ids[:16], [ids[16:19], ids[19:]]

        def logits(plan: str) -> torch.Tensor:
            groups = (
                self._one_by_one(prefix, suffixes) if plan == "one by one" else self._logits(prefix, suffixes, plan)
            )
            order, rows = zip(*((torch.tensor(group), logits) for group, logits in groups), strict=True)
            return torch.cat(rows)[torch.cat(order).argsort()]

        # Judged by all logits: two answer words may agree by chance.
        reference = Reference(partial(logits, "one by one"), partial(logits, "batch"))
        faults = {
            plan: self._why_not_allowed(plan) or reference.why_not_exact(partial(logits, plan))
            for plan in ("packed", "fork")
        }
        usable = [*(plan for plan, fault in faults.items() if fault is None), "batch"]
        self.stepped_down = {plan: fault for plan, fault in faults.items() if fault}
        if self.stepped_down:
            why = "; ".join(f"not {name}: {reason}" for name, reason in self.stepped_down.items())
            log = logger.info if usable[0] == "fork" else logger.warning_once
            log(f"{type(self.model).__name__} is scored by {usable[0]}, {why}.")
        return usable[0], "fork" if "fork" in usable else usable[0]


def rank(scores: Sequence[float]) -> list[int]:
    """Indices of `scores`, best first; equal scores keep their order. Raises ValueError if one is NaN, which has no order."""
    if any(map(math.isnan, scores)):
        raise InputError("Scores that are NaN cannot be ranked.")
    return sorted(range(len(scores)), key=lambda index: -scores[index])


def probability(log_odds: float) -> float:
    """The logistic function, without overflow."""
    if log_odds >= 0:
        return 1 / (1 + math.exp(-log_odds))
    return math.exp(log_odds) / (1 + math.exp(log_odds))
