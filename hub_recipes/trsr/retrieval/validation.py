"""How well a retriever in training ranks the next item of validation users in the whole catalogue."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trsr.errors import TrainError
from trsr.retrieval.network import Ensemble, Network
from trsr.retrieval.users import user_vectors

CELLS = 4_000_000  # scores in memory at once


@dataclass(frozen=True, slots=True)
class Validation:
    """Users whose next item is known but not trained on.

    Attributes:
        histories: Numbers of items, oldest first.
        targets: (users,) the item that came next.
        also_met: Numbers of the further items that each user met, which are in no history; None where there are none.
    """

    histories: Sequence[np.ndarray]
    targets: np.ndarray
    also_met: Sequence[np.ndarray] | None = None


def measure(network: Network | Ensemble, vectors: np.ndarray, validation: Validation) -> dict[str, float]:
    """How high the next item of validation users stands among all items that they have not met; equal scores share their ranks.

    Returns:
        `recall@10`, and `ndcg` without a cut: the mean of 1 / log2(1 + rank).

    Raises:
        TrainError: If a score is not finite.
    """
    ranks = np.empty(len(validation.targets))
    rows = max(1, CELLS // len(vectors))
    for start in range(0, len(ranks), rows):
        histories, targets = validation.histories[start : start + rows], validation.targets[start : start + rows]
        scores = user_vectors(network, vectors, histories) @ vectors.T  # (users, items)
        if not np.isfinite(scores).all():
            raise TrainError(
                "The retriever's scores are no longer finite numbers: its training diverged. Give a lower --learning-rate, and train "
                "into another folder."
            )
        own = scores[np.arange(len(targets)), targets]
        for row, history in enumerate(histories):
            scores[row, history] = -np.inf
            if validation.also_met is not None:
                scores[row, validation.also_met[start + row]] = -np.inf
        scores[np.arange(len(targets)), targets] = own  # the target stays a candidate even if the user already had it
        better, tied = (scores > own[:, None]).sum(axis=1), (scores == own[:, None]).sum(axis=1)
        ranks[start : start + rows] = better + (tied + 1) / 2
    return {"recall@10": float((ranks <= 10).mean()), "ndcg": float((1 / np.log2(1 + ranks)).mean())}
