"""Names of the systems that an evaluation scores, and what stands in them: a run or a retriever may not be called so.

Knows nothing of scores.
"""

from collections.abc import Iterable

BASELINES = ("chance", "popularity", "item-knn", "tf-idf")
HISTORY = ", history "  # between the name of a system and that of the order in which it saw histories
SHUFFLED = ", summaries shuffled"  # behind the name of a system that was shown the summaries of others
_FUSED, _PLUS = "fused: ", " + "
# Columns of a scores file that are no scores.
ROW = "row"  # of the data; a user may have several
KEYS = ("user_id", "item_id", "label")


def fused_name(names: Iterable[str]) -> str:
    """The name of the system that adds the scores of these."""
    return _FUSED + _PLUS.join(names)


def fused_parts(name: str) -> list[str]:
    """The systems whose scores a system adds; of any other system, itself alone."""
    return name.removeprefix(_FUSED).split(_PLUS) if name.startswith(_FUSED) else [name]


def why_taken(name: str) -> str:
    """What a system of this name would be taken for; empty where the name is free."""
    if name in BASELINES:
        return "the name of a baseline"
    if name in (ROW, *KEYS):
        return "a column of scores.parquet"
    if name.startswith(_FUSED) or _PLUS in name:
        return "a sum of systems"
    return "the name of a control" if HISTORY in name or SHUFFLED in name else ""
