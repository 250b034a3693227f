"""Controls: the rows of an evaluation with one thing changed, to see whether a system uses it.

Either users get the summaries of others, or their histories are shown in another order, or cut. Candidates stay as they are.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from datasets import Dataset, List, Value

from trsr.dataset.other_users import rows_of_others
from trsr.errors import EvaluationError, UsageError
from trsr.recommender.system_names import HISTORY, SHUFFLED


def with_shuffled_summaries(rows: Dataset, seed: int) -> Dataset:
    """The same rows, each with a summary of another user.

    Raises:
        EvaluationError: If there is only one user.
    """
    users = rows["user_id"][:]
    if len(set(users)) < 2:
        raise EvaluationError("Shuffling summaries takes at least 2 users.")
    donors = rows_of_others(users, np.random.default_rng(seed))
    return rows.remove_columns("summary").add_column("summary", [rows["summary"][int(index)] for index in donors])


def with_history(rows: Dataset, order: str | None, seed: int) -> Dataset:
    """The same rows with their histories in another order, or with the newest items alone.

    Summaries stay those of the true histories. What is cut off counts as met: it is added to the column `also_met`.
    Timestamps, which no longer fit, are dropped.

    Args:
        order: `shuffled`, by seed and number of the row; `reversed`; `last:N`, the newest N items; None changes nothing.

    Raises:
        UsageError: If `order` is none of them.
    """
    if order is None:
        return rows
    newest = _newest(order)
    histories, met = [], []
    also_met = rows["also_met"] if "also_met" in rows.column_names else [[]] * len(rows)
    for number, (history, also) in enumerate(zip(rows["history"], also_met, strict=True)):
        if order == "shuffled":
            changed = [history[index] for index in np.random.default_rng((seed, number)).permutation(len(history))]
        else:
            changed = history[-newest:] if newest else history[::-1]
        histories.append(changed)
        met.append([*(also or ()), *(history[:-newest] if newest else ())])
    ids = List(Value("string"))
    changed_rows = rows.remove_columns([name for name in ("also_met", "timestamps") if name in rows.column_names])
    changed_rows = changed_rows.remove_columns("history").add_column("history", histories, feature=ids)
    return changed_rows.add_column("also_met", met, feature=ids)


def system_name(about: Mapping[str, Any]) -> str:
    """The name of an evaluated run, and of the controls that it was evaluated with, if any.

    Args:
        about: Content of its results file.
    """
    shuffled = SHUFFLED if about.get("shuffled_summaries") else ""
    return f"{about['run']}{shuffled}" + (f"{HISTORY}{about['history']}" if about.get("history") else "")


def history_suffix(order: str | None) -> str:
    """What the folder of a control's results is called by: `-history-last-3`; empty for the true order.

    Raises:
        UsageError: As `with_history` does.
    """
    if order is None:
        return ""
    _newest(order)
    return f"-history-{order.replace(':', '-')}"


def _newest(order: str) -> int:
    """N of `last:N`; 0 for the other orders."""
    if order in ("shuffled", "reversed"):
        return 0
    match = re.fullmatch(r"last:([1-9]\d*)", order)
    if not match:
        raise UsageError(f"A history can be shuffled, reversed or last:N with N from 1, got {order!r}.")
    return int(match[1])
