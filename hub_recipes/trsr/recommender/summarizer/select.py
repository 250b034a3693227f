"""Keep the summary under which a ranker gives a user's true next item the most. Knows nothing of how summaries are made.

The true next item is a label: no prompt says which of the candidates it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from scipy.special import logsumexp

from trsr.dataset.candidates import Candidates
from trsr.errors import DataError


@dataclass(frozen=True, slots=True)
class Kept:
    """The best summary of a user.

    Attributes:
        row: Number of the user's row.
        summary: The text.
        gain: By how many nats the log-probability of the true next item exceeds its mean over the user's samples.
    """

    row: int
    summary: str
    gain: float


def log_probabilities(scores: np.ndarray, candidates: Candidates) -> np.ndarray:
    """Log-probability of the true next item of each row, in the softmax over the log-odds of its candidates.

    Args:
        scores: (rows, candidates) log-odds; NaN past the end of a list.

    Returns:
        (rows,) float64, in nats.
    """
    odds = np.where(candidates.mask, scores, -np.inf)
    return odds[candidates.labels] - logsumexp(odds, axis=1)


def with_samples(rows: Dataset, samples: Sequence[Sequence[str]]) -> Dataset:
    """A row for each sample of each user, in order, whose `summary` is the sample."""
    numbers = [number for number, summaries in enumerate(samples) for _ in summaries]
    texts = [summary for summaries in samples for summary in summaries]
    return rows.select(numbers).remove_columns("summary").add_column("summary", texts)


def keep_best(samples: Sequence[Sequence[str]], values: np.ndarray, margin: float) -> list[Kept]:
    """The sample of each user with the largest value, where it exceeds the mean of the user's samples by more than `margin`.

    Of equal ones the first. A user with fewer than two different samples has none.

    Args:
        values: One for each sample, in the order of `with_samples`.
    """
    best, start = [], 0
    for row, summaries in enumerate(samples):
        own = values[start : start + len(summaries)]
        start += len(summaries)
        if len(summaries) > 1 and (gain := float(own.max() - own.mean())) > margin:
            best.append(Kept(row, summaries[int(own.argmax())], gain))
    return best


def without_held_out(rows: Dataset, held_out: Mapping[str, Dataset], by_target: bool) -> Dataset:
    """Training rows whose target may be looked at: none that is measured on.

    Args:
        rows: Of training users.
        held_out: Split -> rows of validation and test.
        by_target: Whether a user occurs in several splits. Then rows are left out whose item is the user's target there too, for a
            history may repeat items.

    Raises:
        DataError: If a user stands in one of them who should not; it is named.
    """
    columns = ("user_id", "target") if by_target else ("user_id",)
    used = list(zip(*(rows[name] for name in columns), strict=True))
    measured: set[tuple] = set()
    for split, others in held_out.items():
        keys = set(zip(*(others[name] for name in columns), strict=True))
        if not by_target and (both := keys & set(used)):
            raise DataError(
                f"{len(both)} training users stand in the split {split} too, such as {min(both)[0]!r}: a summariser that is "
                "trained on their next items could not be measured there. Build the dataset again."
            )
        measured |= keys
    return rows.select([number for number, key in enumerate(used) if key not in measured])
