"""Simple peers of a recommender, scored on exactly the released candidates.

They see what a recommender sees and no more: training interactions, item texts, and the user's history. Knows nothing
of metrics. Scores are (users, candidates) float64 in the order of `candidates.candidate_table`, higher is better; cells
past the end of a shorter list are NaN, which `trsr.metrics` refuses unless they are masked.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from datasets import Dataset
from sklearn.feature_extraction.text import TfidfVectorizer

from trsr.candidates import candidate_table
from trsr.data import check_ids


def chance(rows: Dataset, seed: int) -> np.ndarray:
    """The same score for every candidate."""
    return _score(rows, seed, lambda row, ids: np.zeros(len(ids)))


def popularity(train: Dataset, rows: Dataset, seed: int) -> np.ndarray:
    """How often a candidate occurs in the histories and targets of the training users; 0 for one never seen.

    Args:
        train: The training split of `histories`.
        rows: The split to score.
        seed: Of the candidates' order.
    """
    counts = Counter(item_id for row in train for item_id in (*row["history"], row["target"]))
    return _score(rows, seed, lambda row, ids: [counts[item_id] for item_id in ids])


def tfidf(texts: Mapping[str, str], rows: Dataset, seed: int, recent: int = 10) -> np.ndarray:
    """Cosine of a candidate's TF-IDF vector with the mean vector of the user's last items; all 0 without a history.

    Args:
        texts: Item id to text; document frequencies are over all of them.
        rows: The split to score.
        seed: Of the candidates' order.
        recent: Items of the history that count, from its end.

    Raises:
        ValueError: If `recent` is below 1, or an id of `rows` has no text.
    """
    if recent < 1:
        raise ValueError(f"recent is {recent}, expected at least 1 item of the history.")
    check_ids(rows, texts, "TF-IDF")
    vectors = TfidfVectorizer(sublinear_tf=True, norm="l2").fit_transform(texts.values())  # (items, words)
    place = {item_id: index for index, item_id in enumerate(texts)}

    def cosine(row: Mapping, ids: Sequence[str]) -> np.ndarray:
        past = [place[item_id] for item_id in row["history"][-recent:]]
        if not past:
            return np.zeros(len(ids))
        profile = np.asarray(vectors[past].mean(axis=0)).ravel()  # (words,)
        # Candidates have length 1 already, or 0 if they share no word with the vocabulary.
        return vectors[[place[item_id] for item_id in ids]] @ profile / (np.linalg.norm(profile) or 1.0)

    return _score(rows, seed, cosine)


def _score(
    rows: Dataset, seed: int, score: Callable[[Mapping, Sequence[str]], Sequence[float] | np.ndarray]
) -> np.ndarray:
    lists, labels = candidate_table(rows, seed)
    scores = np.full(labels.shape, np.nan)
    for user, (row, ids) in enumerate(zip(rows, lists, strict=True)):
        scores[user, : len(ids)] = score(row, ids)
    return scores
