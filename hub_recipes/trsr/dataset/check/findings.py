"""What a check finds: codes, severities, and findings that count rows and keep a few examples.

Knows nothing of datasets. Text from data is shown as data: escaped, on one line, cut.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

# Code -> (severity, what is the matter and what to do).
CODES: dict[str, tuple[Severity, str]] = {
    "config-missing": ("error", "the config is not there. Make the dataset with dataset_scripts/"),
    "config-unknown": ("note", "the contract has no such config; it is not examined"),
    "split-missing": ("error", "the split is not there"),
    "split-unknown": ("warning", "the contract has no such split; it is not examined"),
    "split-empty": ("error", "the split has no rows"),
    "column-missing": ("error", "a column of the contract is not there; the split is not examined further"),
    "column-type": ("error", "a column has another type than the contract's; the split is not examined further"),
    "columns-differ": (
        "error",
        "the split does not have the columns or types of the config's first one: nobody can load it",
    ),
    "value-missing": ("error", "a value of the contract is null; the row is not examined further"),
    "provenance-missing": ("error", "there is no provenance.json, so nobody can tell how the data was made"),
    "provenance-unreadable": ("error", "provenance.json is not what the contract says"),
    "item-repeated": ("error", "the item id has a row already: which of the two texts is meant?"),
    "item-without-text": ("error", "prompts have nothing to show of the item. Fill `text`, or drop the item"),
    "item-without-title": ("warning", "the item has no title"),
    "item-id-in-text": ("error", "the text holds the item's own id, which tells the model which item it is"),
    "text-repeated": ("note", "another item has the same text: no model can tell them apart"),
    "item-long": (
        "note",
        "a prompt may have no room for a text so long. Build the dataset with --field-words, or with other --text-fields",
    ),
    "text-withheld": ("note", "the terms of the data forbid to share texts, so none are there to examine"),
    "item-unknown": ("error", "an id that has no row in `items`"),
    "user-repeated": ("error", "the user has a row already in this split"),
    "user-in-two-splits": ("error", "the user has a row in another split: what is learnt there leaks into evaluation"),
    "history-empty": ("error", "there is nothing to summarise"),
    "negatives-missing": ("error", "there is nothing to rank the target against"),
    "negative-repeated": ("error", "an item is a negative twice"),
    "target-in-negatives": ("error", "the target is also a negative"),
    "target-in-history": ("error", "the target is in the history: the answer stands in the question"),
    "negative-in-history": (
        "error",
        "a negative is in the history, so it is easily told from the target, or no negative",
    ),
    "negative-met": ("error", "the user met the item at another time, in this split or another, so it is no negative"),
    "target-in-earlier-split": (
        "error",
        "the target stands in the user's row of an earlier split: training sees the answer",
    ),
    "target-time-tied": ("note", "the target and the last item of the history have one time: which came first?"),
    "negative-like-target": ("warning", "a negative has the target's very text: the question has no right answer"),
    "timestamps-length": ("error", "timestamps go with the history, one an item, and may add the target's"),
    "timestamps-order": ("error", "timestamps fall: a history is oldest first"),
    "timestamps-units": (
        "warning",
        "times in several units, such as seconds and milliseconds: the order is not that of time",
    ),
    "timestamps-split": ("note", "a row is older than the newest of an earlier split"),
    "row-differs": ("error", "the row is not that of the config with the histories. Run trsr summarize anew"),
    "summary-empty": ("error", "the summary is empty"),
    "summary-long": ("warning", "the summary is too long for a summary"),
    "summary-not-last": ("warning", "the summary is not the last block's, as it is in the recurrent strategy"),
    "summary-fallen-back": (
        "note",
        "the extractive summarizer wrote some summaries, for the model's answers were none",
    ),
    "summary-partial": ("warning", "only the first users of each split are here: run trsr summarize without --limit"),
    "blocks-empty": ("error", "there are no block summaries, or one of them is empty"),
    "blocks-count": ("error", "no cut of the history gives this number of blocks"),
    "title-in-summary": ("warning", "the target's title stands in the summary, and not in the history"),
    "prompt-empty": ("error", "the prompt is empty"),
    "item-id-in-prompt": ("error", "the prompt holds the id of its candidate"),
    "label-value": ("error", "a label is 0 or 1"),
    "label-completion": ("error", "the completion is not the answer of the label"),
    "label-target": ("error", "the label is 1 for the user's target and 0 for every other item"),
    "user-unknown": ("error", "the user has no row in this split of the histories"),
    "control-character": ("warning", "line breaks, control or invisible characters; our prompts leave them out"),
    "control-token": ("warning", "the text holds a control token of a chat template; our prompts defuse it"),
    "forged-heading": ("error", "a line of the text poses as a heading of our prompts"),
    "language-undeclared": ("note", "no language is declared in card or provenance"),
    "language-other": ("note", "titles look like another language than the declared ones"),
}


@dataclass(frozen=True, slots=True)
class Example:
    """One place. `row` counts from 0 in the split; `shown` is the offending value, escaped and cut."""

    row: int | None
    id: str
    shown: str


@dataclass(slots=True)
class Finding:
    """One code in one split of one config; `count` counts rows."""

    code: str
    severity: Severity
    config: str
    split: str
    count: int = 0
    examples: list[Example] = field(default_factory=list)


class Places(Protocol):
    """Rows that can be named."""

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
        examples: Examples kept of each finding.
        severity_overrides: Severities of codes that mean less, or more, under a dataset's protocol.
    """

    def __init__(self, examples: int = 3, severity_overrides: Mapping[str, Severity] | None = None) -> None:
        self.examples = examples
        self.severity_overrides = dict(severity_overrides or {})
        self._found: dict[tuple[str, str, str], Finding] = {}

    def mark(self, code: str, batch: Places, places: np.ndarray, shown: pa.Array | None = None) -> None:
        """Count rows of a batch.

        Args:
            places: Positions in the batch, or a mask over it; a row counts once however often it is named.
            shown: The offending values, aligned with the positions.
        """
        if places.dtype == bool:
            places = np.flatnonzero(places)
        if not len(places):
            return
        rows, first = np.unique(places, return_index=True)
        finding = self._finding(code, batch.config, batch.split)
        finding.count += len(rows)
        for row, place in list(zip(rows, first, strict=True))[: self.examples - len(finding.examples)]:
            value = "" if shown is None else show(shown[int(place)].as_py())
            finding.examples.append(Example(int(batch.rows[row]), show(batch.ids[int(row)].as_py()), value))

    def note(self, code: str, config: str = "", split: str = "", shown: str = "") -> None:
        """Count something that no row stands for; `shown` is our own words, with data in them escaped."""
        finding = self._finding(code, config, split)
        finding.count += 1
        if shown and len(finding.examples) < self.examples:
            finding.examples.append(Example(None, "", shown))

    def sorted(self) -> list[Finding]:
        """Errors first; in the order of `CODES`, then as they were found."""
        order = {code: place for place, code in enumerate(CODES)}
        return sorted(self._found.values(), key=lambda one: (SEVERITIES.index(one.severity), order[one.code]))

    def _finding(self, code: str, config: str, split: str) -> Finding:
        key = (code, config, split)
        if key not in self._found:
            self._found[key] = Finding(code, self.severity_overrides.get(code, CODES[code][0]), config, split)
        return self._found[key]


def show(value: object, longest: int = 80) -> str:
    """A value from data on one line: what cannot be printed is escaped, and what is too long is cut."""
    text = "" if value is None else str(value)
    cut = text[:longest]
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in cut) + ("…" if cut != text else "")


def names(values: Iterable[str]) -> str:
    """Names from data, for a sentence."""
    return ", ".join(show(value) for value in values) or "none"
