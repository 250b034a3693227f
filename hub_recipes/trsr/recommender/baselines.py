"""Simple baselines, scored on exactly the released candidates.

They use the same data as a recommender: training interactions, item texts, and histories. Knows nothing of metrics, nor
of where text vectors come from. Scores are (users, candidates) float64 in the order of `Candidates`, higher is better; cells
past the end of a shorter list are NaN, which `trsr.metrics.ranking` refuses unless they are masked.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from datasets import Dataset
from scipy.sparse import coo_array
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from trsr.dataset.candidates import Candidates
from trsr.dataset.contract import check_ids
from trsr.errors import InputError

# From a row of `histories` and item ids to a score each, whatever the ids: candidates, or the whole catalogue.
Scorer = Callable[[Mapping, Sequence[str]], np.ndarray]


def chance(candidates: Candidates) -> np.ndarray:
    """A baseline that gives every candidate the same score."""
    return candidates.score(lambda row, ids: np.zeros(len(ids)))


def popularity(train: Dataset, candidates: Candidates) -> np.ndarray:
    """A baseline by popularity: how often a candidate occurs in the histories and targets of the training users; 0 for one never seen.

    Args:
        train: The training split of `histories`.
        candidates: What to score.
    """
    return candidates.score(popularity_scorer(train))


def popularity_scorer(train: Dataset) -> Scorer:
    """The scorer of `popularity`."""
    counts = Counter(item_id for row in train for item_id in (*row["history"], row["target"]))
    return lambda row, ids: np.array([counts[item_id] for item_id in ids], dtype=float)


def item_knn(
    sequences: Iterable[Sequence[str]], candidates: Candidates, *, recent: int = 10, shrink: float = 10.0
) -> np.ndarray:
    """Item-based nearest neighbours: the similarity of a candidate to the user's last items, summed.

    The similarity of two items is n(both) / (sqrt(n(one) n(other)) + shrink), where n counts the sequences that contain them.

    Args:
        sequences: Item ids, one sequence a user.
        candidates: What to score.
        recent: Items of the history that count, from its end.
        shrink: Shrinks the similarity of rare items towards 0.

    Reference:
        Sarwar et al., Item-based collaborative filtering recommendation algorithms (WWW 2001), with a shrunk cosine.
    """
    return candidates.score(item_knn_scorer(sequences, recent=recent, shrink=shrink))


def item_knn_scorer(sequences: Iterable[Sequence[str]], *, recent: int = 10, shrink: float = 10.0) -> Scorer:
    """The scorer of `item_knn`."""
    _check_recent(recent)
    index_of: dict[str, int] = {}
    cells = [
        (user, index_of.setdefault(item_id, len(index_of)))
        for user, ids in enumerate(sequences)
        for item_id in set(ids)
    ]
    users, items = np.array(cells, dtype=int).reshape(-1, 2).T
    interactions = coo_array((np.ones(len(cells)), (users, items))).tocsr()  # (users, items)
    both = (interactions.T @ interactions).tocoo()
    counts = both.diagonal()
    value = both.data / (np.sqrt(counts[both.row] * counts[both.col]) + shrink)
    value[both.row == both.col] = 0  # an item is no neighbour of itself
    near = coo_array((value, (both.row, both.col)), both.shape).tocsr()  # (items, items)

    def summed(row: Mapping, ids: Sequence[str]) -> np.ndarray:
        scores = np.zeros(len(ids))
        past = [index_of[item_id] for item_id in row["history"][-recent:] if item_id in index_of]
        known_candidates = [(number, index_of[item_id]) for number, item_id in enumerate(ids) if item_id in index_of]
        if past and known_candidates:
            numbers, columns = map(list, zip(*known_candidates, strict=True))
            scores[numbers] = near[past][:, columns].sum(axis=0)
        return scores

    return summed


def tfidf(texts: Mapping[str, str], candidates: Candidates, recent: int = 10) -> np.ndarray:
    """Cosine of a candidate's TF-IDF vector with the mean vector of the user's last items; all 0 without a history.

    Args:
        texts: Item id to text; document frequencies are over all of them.
        candidates: What to score.
        recent: Items of the history that count, from its end.

    Raises:
        ValueError: If `recent` is below 1, or an id of `candidates` has no text.
    """
    _check_recent(recent)
    check_ids(candidates.rows, texts, "TF-IDF")
    return candidates.score(tfidf_scorer(texts, recent))


def tfidf_scorer(texts: Mapping[str, str], recent: int = 10) -> Scorer:
    """The scorer of `tfidf`."""
    _check_recent(recent)
    vectors = TfidfVectorizer(sublinear_tf=True, norm="l2").fit_transform(texts.values())  # (items, words)
    index_of = {item_id: index for index, item_id in enumerate(texts)}

    def cosine(row: Mapping, ids: Sequence[str]) -> np.ndarray:
        past = [index_of[item_id] for item_id in row["history"][-recent:]]
        if not past:
            return np.zeros(len(ids))
        profile = np.asarray(vectors[past].mean(axis=0)).ravel()  # (words,)
        # Candidates have length 1 already, or 0 if they share no word with the vocabulary.
        return vectors[[index_of[item_id] for item_id in ids]] @ profile / (np.linalg.norm(profile) or 1.0)

    return cosine


def bm25(
    texts: Mapping[str, str], candidates: Candidates, *, recent: int = 10, k1: float = 1.2, b: float = 0.75
) -> np.ndarray:
    """Okapi BM25 of a candidate's text for the query of all words of the user's last items, repeated words included.

    Args:
        texts: Item id to text; document frequencies and the mean length are over all of them.
        candidates: What to score.
        recent: Items of the history that count, from its end.
        k1: How slowly repeated words saturate.
        b: Strength of the length normalisation, from 0 to 1.

    Raises:
        ValueError: If `recent` is below 1, or an id of `candidates` has no text.

    Reference:
        Robertson and Zaragoza, The probabilistic relevance framework: BM25 and beyond (2009), with the inverse document
        frequency ln(1 + (N - n + 1/2) / (n + 1/2)), which is never negative.
    """
    check_ids(candidates.rows, texts, "BM25")
    return candidates.score(bm25_scorer(texts, recent=recent, k1=k1, b=b))


def bm25_scorer(texts: Mapping[str, str], *, recent: int = 10, k1: float = 1.2, b: float = 0.75) -> Scorer:
    """The scorer of `bm25`."""
    _check_recent(recent)
    counts = CountVectorizer().fit_transform(texts.values()).tocoo()  # (items, words)
    lengths = np.asarray(counts.sum(axis=1)).ravel()
    document_counts = np.bincount(counts.col, minlength=counts.shape[1])
    rarity = np.log1p((len(texts) - document_counts + 0.5) / (document_counts + 0.5))
    length_penalty = k1 * (1 - b + b * lengths / lengths.mean())
    value = rarity[counts.col] * counts.data * (k1 + 1) / (counts.data + length_penalty[counts.row])
    weights = coo_array((value, (counts.row, counts.col)), counts.shape).tocsr()
    words = counts.tocsr()
    index_of = {item_id: index for index, item_id in enumerate(texts)}

    def matched(row: Mapping, ids: Sequence[str]) -> np.ndarray:
        query_counts = np.asarray(
            words[[index_of[item_id] for item_id in row["history"][-recent:]]].sum(axis=0)
        ).ravel()
        return weights[[index_of[item_id] for item_id in ids]] @ query_counts

    return matched


def nearest(
    vectors: Mapping[str, np.ndarray], candidates: Candidates, *, recent: int = 25, count: int = 3
) -> np.ndarray:
    """Mean cosine of a candidate's vector with the `count` nearest of the user's last items; 0 without a history.

    Args:
        vectors: Item id to vector, all of one length, such as sentence embeddings.
        candidates: What to score.
        recent: Items of the history that count, from its end.
        count: Nearest items that are averaged.

    Raises:
        ValueError: If `recent` or `count` is below 1, or an id of `candidates` has no vector.
    """
    check_ids(candidates.rows, vectors, "Nearest items")
    return candidates.score(nearest_scorer(vectors, recent=recent, count=count))


def nearest_scorer(vectors: Mapping[str, np.ndarray], *, recent: int = 25, count: int = 3) -> Scorer:
    """The scorer of `nearest`."""
    _check_recent(recent)
    if count < 1:
        raise InputError(f"count is {count}, expected at least 1 nearest item.")
    index_of = {item_id: index for index, item_id in enumerate(vectors)}
    table = np.stack(list(vectors.values())).astype(np.float64)  # (items, width)
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)

    def near(row: Mapping, ids: Sequence[str]) -> np.ndarray:
        past = [index_of[item_id] for item_id in row["history"][-recent:]]
        if not past:
            return np.zeros(len(ids))
        cosines = table[[index_of[item_id] for item_id in ids]] @ table[past].T  # (candidates, items of the history)
        return np.sort(cosines, axis=1)[:, -count:].mean(axis=1)

    return near


def _check_recent(recent: int) -> None:
    if recent < 1:
        raise InputError(f"recent is {recent}, expected at least 1 item of the history.")
