"""Exact search: the items with the largest products with a user's vector, in blocks, so that memory is bounded."""

from collections.abc import Sequence

import numpy as np

CELLS = 8_000_000  # scores in memory at once


def top_k_items(
    users: np.ndarray, items: np.ndarray, k: int, exclude: Sequence[np.ndarray] | None = None, cells: int = CELLS
) -> tuple[np.ndarray, np.ndarray]:
    """The k items with the largest inner products, best first; of equal ones, those with the smaller number.

    Args:
        users: (users, width) float32.
        items: (items, width) float32.
        exclude: Items of each user that are left out.
        cells: Most scores in memory at once.

    Returns:
        Numbers int64 and scores float32, (users, min(k, items)); past the last item that is left, number -1 and score -inf.
    """
    k = min(k, len(items))
    numbers = np.full((len(users), k), -1, np.int64)
    scores = np.full((len(users), k), -np.inf, np.float32)
    columns = max(1, min(len(items), cells // 64))
    rows = max(1, cells // columns)
    for top in range(0, len(users), rows):
        user_part = slice(top, top + rows)
        best_numbers, best_scores = numbers[user_part], scores[user_part]
        for left in range(0, len(items), columns):
            block = users[user_part] @ items[left : left + columns].T  # (users, items) of this block
            for row, met in enumerate(exclude[user_part] if exclude is not None else ()):
                inside = met[(met >= left) & (met < left + columns)]
                block[row, inside - left] = -np.inf
            here_numbers, here_scores = largest_columns(block, k)
            here_numbers = np.where(np.isneginf(here_scores), -1, here_numbers + left)
            merged_numbers = np.concatenate([best_numbers, here_numbers], axis=1)
            merged_scores = np.concatenate([best_scores, here_scores], axis=1)
            # Earlier blocks hold smaller numbers and stand first: a stable sort keeps their order.
            order = np.argsort(-merged_scores, axis=1, kind="stable")[:, :k]
            best_numbers = np.take_along_axis(merged_numbers, order, axis=1)
            best_scores = np.take_along_axis(merged_scores, order, axis=1)
        numbers[user_part], scores[user_part] = best_numbers, best_scores
    return numbers, scores


def largest_columns(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and values of the k largest scores of each row, best first; of equal ones, the earlier columns."""
    k = min(k, scores.shape[1])
    if k < scores.shape[1]:
        bound = -np.partition(-scores, k - 1, axis=1)[:, k - 1 : k]  # the k-th largest of each row
        # Of those equal to the bound, the first ones: argpartition would take any.
        above, equal = scores > bound, scores == bound
        chosen = above | (equal & (np.cumsum(equal, axis=1) <= k - above.sum(axis=1, keepdims=True)))
        columns = np.nonzero(chosen)[1].reshape(-1, k)
    else:
        columns = np.broadcast_to(np.arange(k), scores.shape)
    values = np.take_along_axis(scores, columns, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1)
