"""Give each row a row of another user: the control that says what a user's own history or summary is worth."""

from collections.abc import Sequence

import numpy as np


def rows_of_others(users: Sequence[str], random: np.random.Generator) -> np.ndarray:
    """For each row, the number of a row of another user: (rows,).

    The rows of a user all get rows of one other user, in a circle through all users. A single user gets own ones.

    Args:
        users: User id of each row.
        random: Draws the order of the circle.
    """
    numbers: dict[str, list[int]] = {}
    for number, user_id in enumerate(users):
        numbers.setdefault(user_id, []).append(number)
    own = list(numbers.values())
    order = random.permutation(len(own))
    others = np.empty(len(users), int)
    for user, other in zip(order, np.roll(order, 1), strict=True):
        others[own[user]] = np.resize(own[other], len(own[user]))
    return others
