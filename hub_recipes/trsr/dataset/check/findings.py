"""The findings of a check: codes, severities, numbers of rows, and a few examples.

Knows nothing of datasets. Text from data is escaped, put on one line, and cut.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

# Code -> (severity, what is wrong and what to do).
CODES: dict[str, tuple[Severity, str]] = {
    "config-missing": ("error", "the config is missing. Make the dataset with dataset_scripts/"),
    "config-unknown": ("note", "the contract has no such config; it is not checked"),
    "split-missing": ("error", "the split is missing"),
    "split-unknown": ("warning", "the contract has no such split; it is not checked"),
    "split-empty": ("error", "the split has no rows"),
    "column-missing": ("error", "a column of the contract is missing; the split is not checked further"),
    "column-type": ("error", "a column has another type than in the contract; the split is not checked further"),
    "columns-differ": (
        "error",
        "the split has other columns or types than the first split of the config: it cannot be loaded",
    ),
    "value-missing": ("error", "a value of the contract is null; the row is not checked further"),
    "provenance-missing": ("error", "there is no provenance.json: how the data was made is not known"),
    "provenance-unreadable": ("error", "provenance.json does not follow the contract"),
    "item-repeated": ("error", "another row has the same item id: which of their texts is right is not known"),
    "item-without-text": ("error", "the item has no text to show in prompts. Fill `text`, or drop the item"),
    "item-without-title": ("warning", "the item has no title"),
    "item-id-in-text": ("error", "the text holds the item's own id, which tells the model which item it is"),
    "text-repeated": ("note", "another item has the same text: no model can tell them apart"),
    "item-long": (
        "note",
        "the text may be too long for a prompt. Build the dataset with --field-words, which cuts no column called text, or with "
        "other --text-fields",
    ),
    "text-withheld": ("note", "the terms of the data forbid to share texts: there are none to check"),
    "item-unknown": ("error", "an id that has no row in `items`"),
    "user-without-id": (
        "error",
        "the user id is empty: users without one cannot be told apart. Give each an id, or drop the row",
    ),
    "user-repeated": ("error", "the user has another row in this split"),
    "user-in-two-splits": ("error", "the user has a row in another split: what is learnt there leaks into evaluation"),
    "history-empty": ("error", "there is nothing to summarise"),
    "negatives-missing": ("error", "there is nothing to rank the target against"),
    "negative-repeated": ("error", "an item is among the negatives twice"),
    "target-in-negatives": ("error", "the target is also a negative"),
    "target-in-history": ("error", "the target is in the history: the prompt shows the answer"),
    "negative-in-history": (
        "error",
        "a negative is in the history: it is no true negative, or too easy to tell from the target",
    ),
    "negative-met": (
        "error",
        "the user interacted with the item at another time, in this split or another: it is no true negative",
    ),
    "target-in-earlier-split": (
        "error",
        "the target is in the user's row of an earlier split: training sees the answer",
    ),
    "target-time-tied": (
        "note",
        "the target and the last item of the history have the same time: their order is not known",
    ),
    "negative-like-target": ("warning", "a negative has exactly the text of the target: no model can tell them apart"),
    "timestamps-length": (
        "error",
        "there must be one timestamp for each item of the history, and optionally one for the target",
    ),
    "timestamps-order": ("error", "timestamps decrease: a history must be oldest first"),
    "timestamps-units": (
        "warning",
        "times are in several units, such as seconds and milliseconds: items are not in the order of time",
    ),
    "timestamps-zones": (
        "warning",
        "some dates have a time zone and some have none: if those are local times, items are not in the order of time",
    ),
    "timestamps-split": ("note", "a row is older than the newest of an earlier split"),
    "row-differs": ("error", "the row differs from that of the config `histories`. Run trsr summarize again"),
    "summary-empty": ("error", "the summary is empty"),
    "summary-long": ("warning", "the summary has more than 300 words"),
    "summary-not-last": (
        "warning",
        "the summary is not the last block summary, as it must be in the recurrent strategy",
    ),
    "summary-fallen-back": (
        "note",
        "the extractive summarizer wrote some summaries, because the model's answers were rejected",
    ),
    "summary-partial": ("warning", "only the first users of each split are here: run trsr summarize without --limit"),
    "blocks-empty": ("error", "there are no block summaries, or one of them is empty"),
    "blocks-count": ("error", "the history cannot be cut into this number of blocks"),
    "title-in-summary": ("warning", "the target's title is in the summary, but not in the history"),
    "prompt-empty": ("error", "the prompt is empty"),
    "item-id-in-prompt": ("error", "the prompt holds the id of its candidate"),
    "label-value": ("error", "a label must be 0 or 1"),
    "label-completion": ("error", "the completion is not the answer of the label"),
    "label-target": ("error", "the label must be 1 for the user's target and 0 for every other item"),
    "user-unknown": ("error", "the user has no row in this split of the histories"),
    "control-character": ("warning", "line breaks, control or invisible characters; our prompts remove them"),
    "control-token": ("warning", "the text holds a control token of a chat template; our prompts neutralise it"),
    "forged-heading": ("error", "a line of the text imitates a heading of our prompts"),
    "language-undeclared": ("note", "no language is declared in card or provenance"),
    "language-other": ("note", "titles look like another language than the declared ones"),
}


@dataclass(frozen=True, slots=True)
class Example:
    """One row with a finding: its number in the split, from 0, its id, and the value in question, escaped and cut."""

    row: int | None
    id: str
    shown: str


@dataclass(slots=True)
class Finding:
    """One code in one split of one config, and the number of rows that have it."""

    code: str
    severity: Severity
    config: str
    split: str
    count: int = 0
    examples: list[Example] = field(default_factory=list)


class MarkedRows(Protocol):
    """Rows with numbers and ids, such as a `Batch`."""

    @property
    def config(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def rows(self) -> np.ndarray: ...
    @property
    def ids(self) -> pa.Array: ...


class Findings:
    """Collects findings.

    Args:
        examples: Number of examples to keep for each finding.

    Attributes:
        severity_overrides: Severities of codes that are less or more serious under the dataset's protocol.
    """

    def __init__(self, examples: int = 3) -> None:
        self.examples = examples
        self.severity_overrides: dict[str, Severity] = {}
        self._found: dict[tuple[str, str, str], Finding] = {}

    def mark(self, code: str, batch: MarkedRows, positions: np.ndarray, shown: pa.Array | None = None) -> None:
        """Add rows of a batch to a finding.

        Args:
            positions: Positions in the batch, or a mask over it. A row that is named several times counts once.
            shown: The values in question, aligned with the positions.
        """
        if positions.dtype == bool:
            positions = np.flatnonzero(positions)
        if not len(positions):
            return
        rows, first = np.unique(positions, return_index=True)
        finding = self._finding(code, batch.config, batch.split)
        finding.count += len(rows)
        for row, position in list(zip(rows, first, strict=True))[: self.examples - len(finding.examples)]:
            value = "" if shown is None else show(shown[int(position)].as_py())
            finding.examples.append(Example(int(batch.rows[row]), show(batch.ids[int(row)].as_py()), value))

    def note(self, code: str, config: str = "", split: str = "", shown: str = "") -> None:
        """Add a finding that is not about a row. `shown` is a message of ours; data in it must be escaped."""
        finding = self._finding(code, config, split)
        finding.count += 1
        if shown and len(finding.examples) < self.examples:
            finding.examples.append(Example(None, "", shown))

    def sorted(self) -> list[Finding]:
        """All findings, sorted by severity, then in the order of `CODES`, then in that in which they were found."""
        order = {code: position for position, code in enumerate(CODES)}
        return sorted(
            self._found.values(), key=lambda finding: (SEVERITIES.index(finding.severity), order[finding.code])
        )

    def _finding(self, code: str, config: str, split: str) -> Finding:
        key = (code, config, split)
        if key not in self._found:
            self._found[key] = Finding(code, self.severity_overrides.get(code, CODES[code][0]), config, split)
        return self._found[key]


def show(value: object, longest: int = 80) -> str:
    """A value from data on one line: characters that cannot be printed are escaped, and long text is cut."""
    text = "" if value is None else str(value)
    cut = text[:longest]
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in cut) + ("…" if cut != text else "")


def names(values: Iterable[str]) -> str:
    """Names from data, separated by commas, for a message."""
    return ", ".join(show(value) for value in values) or "none"
