"""Log-odds of yes for every candidate of a user, with the shared prefix computed once.

Knows nothing of prompts or text: it takes token ids. The plan is `fork` (continue all suffixes from copies of the
prefix's cache) or `batch` (whole prompts in length-sorted batches), which every causal model can do.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers.utils import logging

from .fork import fork

logger = logging.get_logger(__name__)

PLANS = ("fork", "batch")


class Scorer:
    """Scores candidates with one model.

    Args:
        model: A causal language model, with or without a PEFT adapter.
        yes_id: Token of the positive answer.
        no_id: Token of the negative answer.
        plan: One of `PLANS`; None probes the model and takes `fork` where it is exact.
        group_tokens: Most tokens in one forward, copies of the prefix included; bounds memory.

    Attributes:
        plan: The plan in use.
        forwarded_tokens: Tokens sent through the model so far, padding included.
    """

    def __init__(self, model, yes_id: int, no_id: int, plan: str | None = None, group_tokens: int = 16384) -> None:
        if plan is not None and plan not in PLANS:
            raise ValueError(f"Unknown plan {plan!r}, expected one of {', '.join(PLANS)}.")
        self.model = model
        self.yes_id = yes_id
        self.no_id = no_id
        self.group_tokens = group_tokens
        self.forwarded_tokens = 0
        self.plan = plan or self._probe()
        self.forwarded_tokens = 0

    @torch.no_grad()
    def log_odds(self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return logit(yes) - logit(no) after each prefix + suffix.

        Args:
            prefix: Token ids that all prompts share.
            suffixes: Token ids of each candidate, none empty.

        Returns:
            (candidates,) fp32 on the CPU, in the order given.

        Raises:
            ValueError: If a suffix or the prefix is empty.
        """
        if not prefix or not all(len(suffix) for suffix in suffixes):
            raise ValueError("Prefix and suffixes must hold at least one token each.")
        scores = torch.empty(len(suffixes))
        if not suffixes:
            return scores
        score = self._forked if self.plan == "fork" else self._batched
        for places, values in score(list(prefix), suffixes):
            scores[places] = values
        return scores

    def _forked(self, prefix: list[int], suffixes: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], torch.Tensor]]:
        ids = torch.tensor([prefix], device=self.model.device)
        self.forwarded_tokens += ids.numel()
        with _last_only(self.model, torch.tensor([len(prefix) - 1])):
            cache = self.model(input_ids=ids, use_cache=True).past_key_values
        for places in self._groups(suffixes, len(prefix)):
            branch = fork(cache, torch.zeros(len(places), dtype=torch.long, device=ids.device))
            yield places, self._answers([suffixes[place] for place in places], len(prefix), branch)

    def _batched(
        self, prefix: list[int], suffixes: Sequence[Sequence[int]]
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        for places in self._groups(suffixes, len(prefix)):
            yield places, self._answers([[*prefix, *suffixes[place]] for place in places], 0, None)

    def _groups(self, suffixes: Sequence[Sequence[int]], prefix: int) -> Iterator[list[int]]:
        """Candidates sorted by length, in groups that keep to `group_tokens`."""
        order = sorted(range(len(suffixes)), key=lambda place: len(suffixes[place]))
        group: list[int] = []
        for place in order:
            if group and (len(group) + 1) * (prefix + len(suffixes[place])) > self.group_tokens:
                yield group
                group = []
            group.append(place)
        yield group

    def _answers(self, rows: Sequence[Sequence[int]], start: int, cache) -> torch.Tensor:
        """Log-odds after the last token of each right-padded row. Nothing looks to the right, so padding is harmless."""
        width = max(map(len, rows))
        device = self.model.device
        ids = torch.tensor([[*row, *[self.no_id] * (width - len(row))] for row in rows], device=device)  # (n, width)
        # Explicit: some architectures restart their positions otherwise.
        places = torch.arange(start, start + width, device=device).expand(len(rows), -1)
        self.forwarded_tokens += ids.numel()
        last = torch.tensor([len(row) - 1 for row in rows])
        with _last_only(self.model, last):
            logits = self.model(
                input_ids=ids, position_ids=places, past_key_values=cache, use_cache=cache is not None
            ).logits  # (n, 1, vocabulary)
        answers = logits[:, -1, [self.yes_id, self.no_id]].float()  # (n, 2)
        return (answers[:, 0] - answers[:, 1]).cpu()

    @torch.no_grad()
    def _probe(self) -> str:
        """`fork` if it gives what whole prompts give on two short candidates, else `batch`, said once."""
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        ids = [(37 * step + 11) % vocabulary for step in range(24)]
        prefix, suffixes = ids[:16], [ids[16:19], ids[16:24]]
        naive = torch.cat([values for _, values in self._batched(prefix, suffixes)])
        try:
            shared = torch.cat([values for _, values in self._forked(prefix, suffixes)])
            difference = (shared - naive).abs().max().item()
        except (TypeError, AttributeError, RuntimeError, ValueError, IndexError, KeyError) as error:
            logger.warning(f"Prefix sharing is off for {type(self.model).__name__}: {type(error).__name__}: {error}")
            return "batch"
        # In half precision any two ways of computing differ by some hundredths.
        allowed = 1e-3 if self.model.dtype == torch.float32 else 0.15
        if math.isfinite(difference) and difference <= allowed * max(1.0, naive.abs().max().item()):
            return "fork"
        logger.warning(
            f"Prefix sharing is off for {type(self.model).__name__}: it would change scores by {difference:.3g}."
        )
        return "batch"


@contextmanager
def _last_only(model, last: torch.Tensor) -> Iterator[None]:
    """Let only position `last[i]` of row i through the language-model head."""

    def pick(module, arguments):
        hidden = arguments[0]  # (n, width, hidden)
        rows = torch.arange(len(hidden), device=hidden.device)
        return (hidden[rows, last.to(hidden.device)][:, None], *arguments[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(pick)
    try:
        yield
    finally:
        handle.remove()


def rank(scores: Sequence[float]) -> list[int]:
    """Places of `scores`, best first; equal scores keep their order."""
    return sorted(range(len(scores)), key=lambda place: -scores[place])
