"""Simple baselines, scored on exactly the released candidates.

They use the same data as a recommender: training interactions, item texts, and histories. Knows nothing of metrics, nor
of where text vectors come from. A scorer gives float64, higher is better; `Candidates.score` makes a table of them.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from datasets import Dataset
from scipy.sparse import coo_array, csr_array
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from trsr.dataset.candidates import Candidates
from trsr.dataset.sequences import popularity
from trsr.errors import DataError, InputError
from trsr.recommender.system_names import HISTORY

ORDERED = ("item-knn", "tf-idf")  # baselines that look at the newest items, so that a history's order matters to them
NEIGHBOURS = 50_000  # training users that item-knn counts, so that its time and memory are bounded

# From a row of `histories` and item ids to a score each, whatever the ids: candidates, or the whole catalogue.
Scorer = Callable[[Mapping, Sequence[str]], np.ndarray]


def baseline_scorer(name: str, rows: Dataset, train: Dataset, texts: Mapping[str, str]) -> Scorer:
    """The scorer of a baseline in `system_names.BASELINES`.

    Args:
        rows: The evaluated split, whole, however few of its rows are evaluated: item-knn counts its histories too.
    """
    if name == "chance":
        return lambda row, ids: np.zeros(len(ids))
    if name == "popularity":
        return popularity_scorer(train)
    if name == "item-knn":
        return item_knn_scorer(_items_of_users(train, rows))
    return tfidf_scorer(texts)


def score_baselines(
    scorers: Mapping[str, Scorer], candidates: Candidates, shown: Candidates, history: str | None
) -> dict[str, np.ndarray]:
    """Scores of baselines, and of those in `ORDERED` with the histories of a control too, under names of their own.

    Args:
        scorers: Of all baselines, as `baseline_scorer` gives them.
        shown: The same candidates, with the histories of the control.
        history: The control, as `controls.with_history` takes it.
    """
    scores = {name: candidates.score(scorer) for name, scorer in scorers.items()}
    if history:
        scores |= {f"{name}{HISTORY}{history}": shown.score(scorers[name]) for name in ORDERED}
    return scores


def _items_of_users(train: Dataset, rows: Dataset) -> Iterator[list[str]]:
    """Item ids of each user, to count co-occurrences: the first training users, then evaluated users who are not in training.

    A user with training rows contributes only those: the history of a later split may contain the target of an earlier one. If
    a user has several evaluated rows, their targets are left out: the history of one may contain the target of another.
    """
    trained: dict[str, list[str]] = {user_id: [] for user_id in train["user_id"]}
    counted = set(islice(trained, NEIGHBOURS))
    numbers = [number for number, user_id in enumerate(train["user_id"]) if user_id in counted]
    for row in train.select(numbers).select_columns(["user_id", "history", "target"]):
        trained[row["user_id"]] += [*row["history"], row["target"]]
    yield from islice(trained.values(), NEIGHBOURS)
    evaluated = defaultdict(list)
    for row in rows.select_columns(["user_id", "history", "target"]):
        if row["user_id"] not in trained:
            evaluated[row["user_id"]].append(row)
    for own in evaluated.values():
        targets = {row["target"] for row in own} if len(own) > 1 else set()
        yield [item_id for row in own for item_id in row["history"] if item_id not in targets]


def popularity_scorer(train: Dataset) -> Scorer:
    """A baseline by popularity: how often an item occurs in the histories and targets of the training users.

    Args:
        train: The training split of `histories`.
    """
    counts = popularity(train)
    counts_of = _keep_last(lambda ids: np.array([counts[item_id] for item_id in ids], dtype=float))
    return lambda row, ids: counts_of(ids)


def item_knn_scorer(sequences: Iterable[Sequence[str]], *, recent: int = 10, shrink: float = 10.0) -> Scorer:
    """Item-based nearest neighbours: the similarity of a candidate to the user's last items, summed.

    The similarity of two items is n(both) / (sqrt(n(one) n(other)) + shrink), where n counts the sequences that contain them.

    Args:
        sequences: Item ids, one sequence a user.
        recent: Items of the history that count, from its end.
        shrink: Shrinks the similarity of rare items towards 0.

    Reference:
        Sarwar et al., Item-based collaborative filtering recommendation algorithms (WWW 2001), with a shrunk cosine.
    """
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
    columns_of = _keep_last(lambda ids: np.array([index_of.get(item_id, -1) for item_id in ids], dtype=int))

    def summed(row: Mapping, ids: Sequence[str]) -> np.ndarray:
        past = [index_of[item_id] for item_id in row["history"][-recent:] if item_id in index_of]
        if not past:
            return np.zeros(len(ids))
        columns = columns_of(ids)
        return np.where(columns < 0, 0.0, near[past].sum(axis=0)[columns])

    return summed


def tfidf_scorer(texts: Mapping[str, str], recent: int = 10) -> Scorer:
    """Cosine of an item's TF-IDF vector with the mean vector of the user's last items; all 0 without a history.

    Args:
        texts: Item id to text; document frequencies are over all of them.
        recent: Items of the history that count, from its end.

    Raises:
        InputError: If `recent` is below 1. The scorer raises DataError for an item without a text.
    """
    _check_recent(recent)
    vectors = _word_table(TfidfVectorizer(sublinear_tf=True, norm="l2"), texts)  # (items, words)
    index_of = {item_id: index for index, item_id in enumerate(texts)}
    rows_of = _keep_last(lambda ids: np.array(_indices(ids, index_of), dtype=int))

    def cosine(row: Mapping, ids: Sequence[str]) -> np.ndarray:
        past = _indices(row["history"][-recent:], index_of)
        if not past:
            return np.zeros(len(ids))
        profile = np.asarray(vectors[past].mean(axis=0)).ravel()  # (words,)
        # Candidates have length 1 already, or 0 if they share no word with the vocabulary.
        return _products(vectors, rows_of(ids), profile) / (np.linalg.norm(profile) or 1.0)

    return cosine


def _word_table(vectorizer: CountVectorizer, texts: Mapping[str, str]) -> csr_array:
    """(items, words) as a vectorizer of scikit-learn counts them; empty where no text has a word of two letters."""
    try:
        return csr_array(vectorizer.fit_transform(texts.values()))
    except ValueError as error:
        if "empty vocabulary" not in str(error):
            raise
        return csr_array((len(texts), 1))


def bm25_scorer(texts: Mapping[str, str], *, recent: int = 10, k1: float = 1.2, b: float = 0.75) -> Scorer:
    """Okapi BM25 of an item's text for the query of all words of the user's last items, repeated words included.

    Args:
        texts: Item id to text; document frequencies and the mean length are over all of them.
        recent: Items of the history that count, from its end.
        k1: How slowly repeated words saturate.
        b: Strength of the length normalisation, from 0 to 1.

    Raises:
        InputError: If `recent` is below 1. The scorer raises DataError for an item without a text.

    Reference:
        Robertson and Zaragoza, The probabilistic relevance framework: BM25 and beyond (2009), with the inverse document
        frequency ln(1 + (N - n + 1/2) / (n + 1/2)), which is never negative.
    """
    _check_recent(recent)
    counts = _word_table(CountVectorizer(), texts).tocoo()  # (items, words)
    lengths = np.asarray(counts.sum(axis=1)).ravel()
    document_counts = np.bincount(counts.col, minlength=counts.shape[1])
    rarity = np.log1p((len(texts) - document_counts + 0.5) / (document_counts + 0.5))
    length_penalty = k1 * (1 - b + b * lengths / (lengths.mean() or 1.0))
    value = rarity[counts.col] * counts.data * (k1 + 1) / (counts.data + length_penalty[counts.row])
    weights = coo_array((value, (counts.row, counts.col)), counts.shape).tocsr()
    words = counts.tocsr()
    index_of = {item_id: index for index, item_id in enumerate(texts)}
    rows_of = _keep_last(lambda ids: np.array(_indices(ids, index_of), dtype=int))

    def matched(row: Mapping, ids: Sequence[str]) -> np.ndarray:
        query_counts = np.asarray(words[_indices(row["history"][-recent:], index_of)].sum(axis=0)).ravel()
        return _products(weights, rows_of(ids), query_counts)

    return matched


def nearest_scorer(vectors: Mapping[str, np.ndarray], *, recent: int = 25, count: int = 3) -> Scorer:
    """Mean cosine of an item's vector with the `count` nearest of the user's last items; 0 without a history.

    Args:
        vectors: Item id to vector, all of one length, such as sentence embeddings.
        recent: Items of the history that count, from its end.
        count: Nearest items that are averaged.

    Raises:
        InputError: If `recent` or `count` is below 1. The scorer raises DataError for an item without a vector.
    """
    _check_recent(recent)
    if count < 1:
        raise InputError(f"count is {count}, expected at least 1 nearest item.")
    index_of = {item_id: index for index, item_id in enumerate(vectors)}
    table = np.stack(list(vectors.values())).astype(np.float64)  # (items, width)
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)

    def near(row: Mapping, ids: Sequence[str]) -> np.ndarray:
        past = _indices(row["history"][-recent:], index_of)
        if not past:
            return np.zeros(len(ids))
        cosines = table[_indices(ids, index_of)] @ table[past].T  # (candidates, items of the history)
        return np.sort(cosines, axis=1)[:, -count:].mean(axis=1)

    return near


def _keep_last(function: Callable[[Sequence[str]], np.ndarray]) -> Callable[[Sequence[str]], np.ndarray]:
    """`function`, which keeps its result for the last list: a catalogue is one list that is asked for again with each user."""
    last: list[Any] = [None, None]

    def kept(ids: Sequence[str]) -> np.ndarray:
        if ids is not last[0]:
            last[:] = ids, function(ids)
        return last[1]

    return kept


def _products(table: csr_array, rows: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """`table[rows] @ vector`, without a copy of most of the table."""
    return (table @ vector)[rows] if 2 * len(rows) > table.shape[0] else table[rows] @ vector


def _indices(ids: Sequence[str], index_of: Mapping[str, int]) -> list[int]:
    try:
        return [index_of[item_id] for item_id in ids]
    except KeyError as error:
        raise DataError(f"Item {error.args[0]!r} is not in the items config.") from None


def _check_recent(recent: int) -> None:
    if recent < 1:
        raise InputError(f"recent is {recent}, expected at least 1 item of the history.")
