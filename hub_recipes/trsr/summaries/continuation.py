"""Continue the summaries of a published dataset: summaries of unchanged blocks are kept, only new blocks are summarised."""

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
        texts: Item id to current text; blocks with an item whose text has changed are summarised again.
        wanted: Provenance of the new summaries. The earlier ones must have been made with the same model, sampling, prompts and
            blocks.

    Raises:
        DataError: If they were made in another way, or a config is missing.
    """

    def __init__(
        self, source: str, texts: Mapping[str, str], methods: Sequence[str], wanted: Mapping[str, Any]
    ) -> None:
        name, revision = split_revision(source)
        self._provenance = contract.provenance(name, revision).summaries
        if differ := self._provenance.differences(wanted):
            raise DataError(
                f"The summaries of {source!r} cannot be continued: {'; '.join(differ)}. Ask in the same way, or leave out --since."
            )
        self._source = source
        self._size = self._provenance.block_size
        self._rows = {
            method: [contract.read(name, method, split, revision) for split in contract.SPLITS] for method in methods
        }
        self._row_locations = {method: _row_locations(parts) for method, parts in self._rows.items()}
        self._changed = _changed(contract.read_items(name, revision), texts)
        self._kept = self._unchanged = 0

    def continued(
        self, method: str, user_id: str, history: Sequence[str], blocks: Sequence[Block], max_blocks: int
    ) -> Steps:
        """The strategy for a user, starting after the earlier summaries.

        A continued recurrent summary also covers blocks older than the newest `max_blocks`; a new one does not. A user with
        `max_blocks` or more new blocks is summarised from the start.

        Args:
            history, blocks: The whole history as ids, and all its blocks.
        """
        newest = blocks[-max_blocks:]
        start = len(blocks) - len(newest)
        best_match: tuple[bool, int] = (False, -1)
        for part, row_number in self._rows_of(method, user_id, history):
            row = self._rows[method][part][row_number]
            block_summaries = row["block_summaries"]
            # Index of the block that the first of these summaries is about.
            first_block = -(-len(row["history"]) // self._size) - len(block_summaries)
            if first_block < 0:
                raise DataError(f"{self._source!r}, {method}, user {user_id!r}: more block summaries than blocks.")
            equal = self._same_blocks(row["history"], history)
            useful = equal > first_block and (method != "hierarchical" or first_block <= start < equal)
            if (useful, equal) >= best_match:
                best_match = useful, equal
                summaries, summary, first, equal_blocks = block_summaries, row["summary"], first_block, equal
        if best_match[1] < 0:
            return steps(newest, method)
        if equal_blocks == len(blocks) == first + len(summaries):
            self._unchanged += 1
            return _finished(SummaryResult(tuple(summaries), summary))
        if method == "hierarchical":
            summaries = summaries[start - first : equal_blocks - first] if first <= start < equal_blocks else []
            self._kept += len(summaries)
            return steps(newest, method, summaries)
        summaries = summaries[: max(0, equal_blocks - first)]
        if not summaries or len(blocks) - equal_blocks >= max_blocks:
            return steps(newest, method)
        self._kept += len(summaries)
        return _newest(steps(blocks[first:], method, summaries), max_blocks)

    def record(self) -> dict[str, Any]:
        """A record for the provenance: what was continued, and how much of it was kept."""
        names = ("engine", "calls", "fallen_back", "fallen_back_by_method", "since")
        earlier = {name: value for name, value in self._provenance.values.items() if name in names}
        return {
            "dataset": label(self._source),
            "users_unchanged": self._unchanged,
            "block_summaries_kept": self._kept,
            "summaries": {name: earlier[name] for name in names if name in earlier},
        }

    def _rows_of(self, method: str, user_id: str, history: Sequence[str]) -> Collection[tuple[int, int]]:
        """Locations of the user's earlier row with this history; if there is none, of all rows of the user, which may have grown."""
        locations = self._row_locations[method].get(user_id, {})
        location = locations.get(hash(tuple(history)))
        return locations.values() if location is None else (location,)

    def _same_blocks(self, old: Sequence[str], new: Sequence[str]) -> int:
        """Number of leading blocks that are equal in both histories."""
        count = 0
        for start in range(0, len(old), self._size):
            block = old[start : start + self._size]
            if block != new[start : start + self._size] or not self._changed.isdisjoint(block):
                break
            count += 1
        return count


def _row_locations(parts: Sequence[Dataset]) -> dict[str, dict[int, tuple[int, int]]]:
    """User id -> hash of the history -> (number of the split, row). A user may have several rows with different histories."""
    locations: dict[str, dict[int, tuple[int, int]]] = {}
    for part, rows in enumerate(parts):
        row_number = 0
        for table in rows.select_columns(["user_id", "history"]).with_format("arrow").iter(1000):
            for user, history in zip(table["user_id"].to_pylist(), table["history"].to_pylist(), strict=True):
                locations.setdefault(user, {})[hash(tuple(history))] = (part, row_number)
                row_number += 1
    return locations


def _changed(items: Dataset, texts: Mapping[str, str]) -> set[str]:
    """Items whose published text differs from the current one; empty if texts were not published."""
    if "text" not in items.column_names:
        return set()
    pairs = zip(items["item_id"], items["text"], strict=True)
    return {item_id for item_id, text in pairs if item_id in texts and texts[item_id] != text}


def _finished(result: SummaryResult) -> Steps:
    return result
    yield


def _newest(strategy: Steps, max_blocks: int) -> Steps:
    result = yield from strategy
    return SummaryResult(result.block_summaries[-max_blocks:], result.summary)


def label(source: str) -> str:
    """A dataset's name for records: the id, or the last part of a folder's path."""
    return Path(source).name if Path(source).exists() else source


def split_revision(source: str) -> tuple[str, str | None]:
    """Split `ORG/NAME@REVISION` into name and revision; a folder has no revision."""
    name, separator, revision = source.partition("@")
    return (name, revision) if separator and not Path(source).exists() else (source, None)
