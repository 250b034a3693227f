"""Continue the summaries of a published dataset: what has not changed is kept, what is new is asked for."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from trsr.core.history import Block
from trsr.core.summarize import Steps, SummaryResult, steps
from trsr.dataset import contract
from trsr.errors import DataError


class PreviousSummaries:
    """Earlier summaries of a dataset, to be continued.

    Args:
        source: Folder or Hub id; `ORG/NAME@REVISION` names a revision.
        texts: Item id to text, as it is now; a block with an item whose text has changed is asked for again.
        wanted: Provenance of the summaries to be made; the earlier ones must agree in what they depend on.

    Raises:
        DataError: If they do not agree, or a config is missing.
    """

    def __init__(
        self, source: str, texts: Mapping[str, str], methods: Sequence[str], wanted: Mapping[str, Any]
    ) -> None:
        name, revision = split_revision(source)
        self._made = contract.provenance(name, revision).summaries
        if differ := self._made.differences(wanted):
            raise DataError(
                f"The summaries of {source!r} cannot be continued: {'; '.join(differ)}. Ask in the same way, or leave out --since."
            )
        self._source = source
        self._size = self._made.block_size
        self._rows = {
            method: [contract.read(name, method, split, revision) for split in contract.SPLITS] for method in methods
        }
        self._places = {method: _places(parts) for method, parts in self._rows.items()}
        self._changed = _changed(contract.read_items(name, revision), texts)
        self._kept = self._unchanged = 0

    def continued(
        self, method: str, user_id: str, history: Sequence[str], blocks: Sequence[Block], max_blocks: int
    ) -> Steps:
        """The strategy for a user, from where the earlier summaries end.

        A recurrent summary that is continued remembers blocks that have left the newest `max_blocks`; one made from
        nothing does not. A user with `max_blocks` new blocks or more begins anew.

        Args:
            history, blocks: The whole history as ids, and all its blocks.
        """
        newest = blocks[-max_blocks:]
        start = len(blocks) - len(newest)
        best: tuple[bool, int] = (False, -1)
        for part, place in self._rows_of(method, user_id, history):
            row = self._rows[method][part][place]
            made = row["block_summaries"]
            first_made = -(-len(row["history"]) // self._size) - len(made)  # the block that the first of them is of
            if first_made < 0:
                raise DataError(f"{self._source!r}, {method}, user {user_id!r}: more block summaries than blocks.")
            equal = self._same_blocks(row["history"], history)
            useful = equal > first_made and (method != "hierarchical" or first_made <= start < equal)
            if (useful, equal) >= best:
                best = useful, equal
                known, summary, first, same = made, row["summary"], first_made, equal
        if best[1] < 0:
            return steps(newest, method)
        if same == len(blocks) == first + len(known):
            self._unchanged += 1
            return _finished(SummaryResult(tuple(known), summary))
        if method == "hierarchical":
            known = known[start - first : same - first] if first <= start < same else []
            self._kept += len(known)
            return steps(newest, method, known)
        known = known[: max(0, same - first)]
        if not known or len(blocks) - same >= max_blocks:
            return steps(newest, method)
        self._kept += len(known)
        return _newest(steps(blocks[first:], method, known), max_blocks)

    def record(self) -> dict[str, Any]:
        """For the provenance: what was continued, and how much of it was kept."""
        kept = ("engine", "calls", "fallen_back", "since")
        earlier = {name: value for name, value in self._made.values.items() if name in kept}
        return {
            "dataset": label(self._source),
            "users_unchanged": self._unchanged,
            "block_summaries_kept": self._kept,
            "summaries": {name: earlier[name] for name in kept if name in earlier},
        }

    def _rows_of(self, method: str, user_id: str, history: Sequence[str]) -> Collection[tuple[int, int]]:
        """The user's earlier row of this history; if there is none, all rows of the user, for any may be the one that grew."""
        places = self._places[method].get(user_id, {})
        place = places.get(hash(tuple(history)))
        return places.values() if place is None else (place,)

    def _same_blocks(self, old: Sequence[str], new: Sequence[str]) -> int:
        """Number of first blocks that both histories have."""
        count = 0
        for start in range(0, len(old), self._size):
            block = old[start : start + self._size]
            if block != new[start : start + self._size] or not self._changed.isdisjoint(block):
                break
            count += 1
        return count


def _places(parts: Sequence[Dataset]) -> dict[str, dict[int, tuple[int, int]]]:
    """User id to hash of a history to split and row: a user may stand in several rows, each of another history."""
    places: dict[str, dict[int, tuple[int, int]]] = {}
    for part, rows in enumerate(parts):
        place = 0
        for table in rows.select_columns(["user_id", "history"]).with_format("arrow").iter(1000):
            for user, history in zip(table["user_id"].to_pylist(), table["history"].to_pylist(), strict=True):
                places.setdefault(user, {})[hash(tuple(history))] = (part, place)
                place += 1
    return places


def _changed(items: Dataset, texts: Mapping[str, str]) -> set[str]:
    """Items whose published text is not today's; none where texts were not published."""
    if "text" not in items.column_names:
        return set()
    pairs = zip(items["item_id"], items["text"], strict=True)
    return {item_id for item_id, text in pairs if item_id in texts and texts[item_id] != text}


def _finished(trail: SummaryResult) -> Steps:
    return trail
    yield


def _newest(strategy: Steps, max_blocks: int) -> Steps:
    trail = yield from strategy
    return SummaryResult(trail.block_summaries[-max_blocks:], trail.summary)


def label(source: str) -> str:
    """A name for the records: of a folder, the last part alone."""
    return Path(source).name if Path(source).exists() else source


def split_revision(source: str) -> tuple[str, str | None]:
    """Name and revision of a dataset that is written `ORG/NAME@REVISION`; a folder has none."""
    name, found, revision = source.partition("@")
    return (name, revision) if found and not Path(source).exists() else (source, None)
