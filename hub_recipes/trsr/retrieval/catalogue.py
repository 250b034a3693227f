"""Measure systems on the whole catalogue: where the target stands among all items that the user has not met.

Streams over users: beside the figures of each user, no more scores than CELLS are in memory. Ties share their places, as in
`trsr.metrics.ranking`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from tqdm.auto import tqdm

from trsr.dataset.candidates import Candidates
from trsr.metrics import significance
from trsr.metrics.fusion import moments
from trsr.recommender.baselines import Scorer
from trsr.retrieval.ranked import CUTOFFS, Ranked, measured
from trsr.retrieval.search import largest_columns

CELLS = 2_000_000
RARE = 5  # interactions in training
GROUPS = ("cold", "rare", "others")
COLUMNS = ("recall@10", "ndcg@10", "recall@100")  # of a table

# From some rows of `histories`, as columns, to scores (rows, items) of the whole catalogue.
CatalogueScorer = Callable[[Mapping[str, Any]], np.ndarray]


@dataclass(frozen=True, slots=True)
class Measured:
    """One system on the catalogue.

    Attributes:
        per_user: Metric -> (rows,): `recall@k` and `ndcg@k` of each row; of its first 10 items, `novelty@10`, their mean
            self-information in bits, and `popularity@10`, how often each was met in training on average.
        in_top_k: k -> (items,) bool: items that are among the first k of some row.
        ranked: The first items of each row.
    """

    per_user: dict[str, np.ndarray]
    in_top_k: dict[int, np.ndarray]
    ranked: Ranked


def measure(
    scorers: Mapping[str, CatalogueScorer], rows: Dataset, numbers: Mapping[str, int], counts: np.ndarray
) -> dict[str, Measured]:
    """Measure systems on the same users.

    Args:
        rows: A split of `histories`; a column `also_met` holds further items that a user met.
        numbers: Item id -> column of the scores.
        counts: (items,) interactions of each item in training.
    """
    metrics: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in scorers}
    lists: dict[str, list[Ranked]] = {name: [] for name in scorers}
    bar = tqdm(total=len(rows), desc="catalogue", unit="user", mininterval=1)
    for part in rows.iter(max(1, CELLS // len(numbers))):
        labels, mask = _unmet(part, numbers)
        for name, scorer in scorers.items():
            scores = np.asarray(scorer(part), np.float64)  # (rows, items)
            metrics[name].append(measured(scores, labels, mask))
            top, values = largest_columns(np.where(mask, scores, -np.inf), max(CUTOFFS))
            lists[name].append(Ranked(top.astype(np.int32), values.astype(np.float32), *moments(scores, mask)))
        bar.update(len(labels))
    bar.close()
    return {
        name: of_lists(
            Ranked(*(np.concatenate([getattr(batch, part) for batch in lists[name]]) for part in Ranked.__slots__)),
            {metric: np.concatenate([batch[metric] for batch in batches]) for metric in batches[0]},
            counts,
        )
        for name, batches in metrics.items()
    }


def of_lists(ranked: Ranked, metrics: Mapping[str, np.ndarray], counts: np.ndarray) -> Measured:
    """What lists say of a system, and where the target stands in them.

    Args:
        metrics: As `ranked.measured` gives them.
        counts: As `measure` takes them.
    """
    information = -np.log2((counts + 1) / (counts.sum() + len(counts)))  # bits; an item nobody met has some too
    real = np.isfinite(ranked.scores)
    in_top_k = {k: np.zeros(len(counts), bool) for k in CUTOFFS}
    for k in CUTOFFS:
        in_top_k[k][ranked.items[:, :k][real[:, :k]]] = True
    ten, some = ranked.items[:, : CUTOFFS[0]], real[:, : CUTOFFS[0]]
    listed = np.maximum(some.sum(1), 1)  # an empty list has 0 of both
    per_user = {
        **metrics,
        f"novelty@{CUTOFFS[0]}": (information[ten] * some).sum(1) / listed,
        f"popularity@{CUTOFFS[0]}": (counts[ten] * some).sum(1) / listed,
    }
    return Measured(per_user, in_top_k, ranked)


def _unmet(part: Mapping[str, Any], numbers: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and mask (rows, items): the target, and all items that a user has not met, the target among them."""
    labels = np.zeros((len(part["target"]), len(numbers)), bool)
    mask = np.ones(labels.shape, bool)
    for row, (history, target) in enumerate(zip(part["history"], part["target"], strict=True)):
        also = part["also_met"][row] if "also_met" in part else ()
        mask[row, [numbers[item_id] for item_id in (*history, *(also or ())) if item_id in numbers]] = False
        labels[row, numbers[target]] = mask[row, numbers[target]] = True
    return labels, mask


def on_candidates(scorer: CatalogueScorer, candidates: Candidates, numbers: Mapping[str, int]) -> np.ndarray:
    """Scores (rows, candidates) of the released candidates, out of those of the whole catalogue."""
    parts = candidates.rows.iter(max(1, CELLS // len(numbers)))
    rows = (scores for part in parts for scores in scorer(part))
    return candidates.score(lambda row, ids: next(rows)[[numbers[item_id] for item_id in ids]])


def row_by_row(scorer: Scorer, item_ids: list[str]) -> CatalogueScorer:
    """A scorer of any items over the whole catalogue."""
    return lambda part: np.stack(
        [scorer({name: part[name][row] for name in part}, item_ids) for row in range(len(part["target"]))]
    )


def target_groups(rows: Dataset, numbers: Mapping[str, int], counts: np.ndarray) -> np.ndarray:
    """The group of each row in GROUPS, by how often its target was met in training: never, less than RARE times, or more."""
    met = counts[[numbers[target] for target in rows["target"]]]
    return np.where(met == 0, 0, np.where(met < RARE, 1, 2))


def summarise(
    measured: Mapping[str, Measured], groups: np.ndarray, users: list[str], seed: int, own: str
) -> dict[str, Any]:
    """Figures of each system with intervals, of each group of targets too, and paired tests of `own` against the others.

    Args:
        groups: As `target_groups` gives them.
        users: User id of each row.
        seed: Of the bootstrap.
    """
    systems = {
        name: significance.summary(result.per_user, seed, users=users)
        | {f"coverage@{k}": float(items.mean()) for k, items in result.in_top_k.items()}
        for name, result in measured.items()
    }
    by_target: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(GROUPS):
        chosen = groups == number
        by_target[name] = {"rows": int(chosen.sum())}
        if chosen.any():
            own_users = [user for user, inside in zip(users, chosen, strict=True) if inside]
            by_target[name]["systems"] = {
                system: significance.summary(
                    {
                        metric: result.per_user[metric][chosen]
                        for metric in (f"recall@{CUTOFFS[0]}", f"ndcg@{CUTOFFS[0]}")
                    },
                    seed,
                    users=own_users,
                )
                for system, result in measured.items()
            }
    metric = f"recall@{CUTOFFS[0]}"
    values = {system: result.per_user[metric] for system, result in measured.items()}
    paired = significance.paired_tests(
        values, [(own, other) for other in measured if other != own], metric, seed, users
    )
    return {"systems": systems, "by_target": by_target, "paired": paired}
