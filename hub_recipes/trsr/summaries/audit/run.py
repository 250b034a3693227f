"""Audit the summaries of a dataset, a method at a time and batch by batch.

Memory holds the texts of the items, the words of those read last, a batch, and about 90 bytes a summary.
"""

import functools
import json
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Features, IterableDataset
from datasets.exceptions import DatasetsError
from huggingface_hub.errors import HTTPError
from tqdm.auto import tqdm

from trsr.core.answer import Answer
from trsr.core.summarize import METHODS
from trsr.core.summary_prompts import SummaryPrompts
from trsr.dataset import contract
from trsr.dataset.check.catalogue import hashes
from trsr.dataset.check.findings import show
from trsr.errors import DataError
from trsr.records.files import write_text
from trsr.records.provenance import SummaryProvenance
from trsr.summaries.accept import reject_reason
from trsr.summaries.audit.catalogue import Catalogue
from trsr.summaries.audit.figures import COPIED, UNSUPPORTED, figures, warnings
from trsr.summaries.audit.instructions import instructions
from trsr.summaries.audit.measure import copied_share, coverage, names, unsupported
from trsr.summaries.audit.words import Words

ROWS = 1000  # a batch; summaries are paired with another user's history within it
EXAMPLES = 3  # of each kind
# What the extractive summarizer says of itself.
_EXTRACTIVE = "topics words no clear preference"
_COLUMNS = (
    "words",
    "history_words",
    "coverage",
    "coverage_of_another",
    "unsupported",
    "unsupported_of_another",
    "target_named",
    "negative_named",
    "copied",
)


def audit(source: str, *, revision: str | None = None, limit: int = 0, seed: int = 0) -> dict[str, Any]:
    """Measure what summaries say.

    Args:
        source: Folder, Hub id, or the name of a dataset in the package, with items and a config of summaries.
        limit: Rows of each split to read, 0 = all.
        seed: Of the negative that is held against the target, and of whose history stands in for a user's own.

    Returns:
        The figures of each method, with examples of summaries to look at, and the warnings: what `audit.json` holds.

    Raises:
        DataError: If there are no summaries or no item texts, or they do not keep the contract.
    """
    if limit < 0 or seed < 0:
        raise DataError(f"--limit and --seed must not be negative, got {limit} and {seed}.")
    try:
        present = contract.configs(source, revision)
        methods = [method for method in METHODS if method in present]
        if not methods:
            raise DataError(f"Dataset {source!r} has no summaries. Run: trsr summarize {source} --out DIR")
        if "items" not in present:
            raise DataError(f"Dataset {source!r} has no config 'items'.")
        stream = functools.partial(contract.stream, source, revision=revision, batch=ROWS)
        items = _split(stream("items"), "items", "train")
        catalogue = Catalogue(_tables(items, contract.ITEM_COLUMNS, "items", 0))
        made = contract.provenance(source, revision).summaries
        found: dict[str, Any] = {
            "engine": made.engine if made.values else "unknown",
            "limit": limit,
            "seed": seed,
            "items": {"count": len(catalogue), "with_instructions": catalogue.ordering},
            "calls": sum(made.calls.get(method, 0) for method in methods) if made.values else 0,
            "fallen_back": made.fallen_back,
            "methods": {},
        }
        for method in methods:
            tally = _Tally(catalogue, _wording(made), seed)
            splits = stream(method)
            for split in contract.SPLITS:
                for table in _tables(_split(splits, method, split), contract.SUMMARIES, f"{method} {split}", limit):
                    tally.add(table, split)
            found["methods"][method] = tally.figures()
    except (HTTPError, pa.ArrowException, DatasetsError, UnicodeDecodeError) as error:
        raise DataError(f"Dataset {source!r} cannot be read: {error}") from error
    return {**found, "warnings": list(warnings(found))}


def write(found: Mapping[str, Any], folder: Path) -> Path:
    """Put an audit into the dataset folder that it is of, whole or not at all. Returns where it is."""
    path = folder / contract.AUDIT
    write_text(path, json.dumps(found, indent=2) + "\n")
    return path


class _Tally:
    """What is measured of a method's summaries."""

    def __init__(self, catalogue: Catalogue, wording: frozenset[str], seed: int) -> None:
        self._catalogue = catalogue
        self._wording = wording
        self._seed = seed
        self._random = np.random.default_rng(seed)
        self._columns = {name: array("d") for name in _COLUMNS}
        self._digests: list[np.ndarray] = []
        self._problems: Counter[str] = Counter()
        self._orders: Counter[str] = Counter()
        self._repeated = 0
        self._examples: dict[str, list[dict[str, str]]] = {}

    def add(self, table: pa.Table, split: str) -> None:
        """Measure a batch."""
        rows = table.to_pylist()
        self._digests.append(hashes(table["summary"]))
        others = _another(len(rows), self._random)
        for row, other in zip(rows, others, strict=True):
            drawn = int(self._random.integers(len(row["negatives"]))) if row["negatives"] else None
            negative = None if drawn is None else row["negatives"][drawn]
            self._measure(row, split, rows[other]["history"] if len(rows) > 1 else None, negative)

    def figures(self) -> dict[str, Any]:
        return {
            **figures(self._columns, np.concatenate(self._digests), self._seed),
            "problems": dict(sorted(self._problems.items())),
            "instructions": {
                "summaries": self._orders["any"],
                "copied": self._repeated,
                "kinds": {kind: self._orders[kind] for kind in ("command", "role", "heading", "token")},
            },
            "examples": self._examples,
        }

    def _measure(self, row: Mapping[str, Any], split: str, other: Sequence[str] | None, negative: str | None) -> None:
        catalogue, text = self._catalogue, row["summary"]
        summary = Words.of(text)
        history = [catalogue.read(item_id) for item_id in row["history"]]
        invented = unsupported(summary, history, self._wording)
        values = {
            "words": len(text.split()),
            "history_words": sum(item.length for item in history),
            "coverage": coverage(summary, history),
            "unsupported": _share(len(invented), len(summary.content)),
            "target_named": names(summary, row["target"], history, catalogue),
            "copied": copied_share(summary, history),
        }
        if other is not None:
            read = [catalogue.read(item_id) for item_id in other]
            values["coverage_of_another"] = coverage(summary, read)
            invented_then = unsupported(summary, read, self._wording)
            values["unsupported_of_another"] = _share(len(invented_then), len(summary.content))
        if negative is not None:
            values["negative_named"] = names(summary, negative, history, catalogue)
        for name, column in self._columns.items():
            column.append(values.get(name, float("nan")))

        def note(kind: str, shown: str) -> None:
            kept = self._examples.setdefault(kind, [])
            if len(kept) < EXAMPLES:
                kept.append({"split": split, "user_id": show(row["user_id"]), "shown": show(shown)})

        if values["unsupported"] > UNSUPPORTED:
            note("unsupported", ", ".join(sorted(invented)))
        if values["target_named"]:
            note("target_named", text)
        if values["copied"] > COPIED:
            note("near_copies", text)
        if why := reject_reason(Answer(text), SummaryPrompts()):
            self._problems[why] += 1
            note("problems", text)
        if orders := dict.fromkeys(instructions(text)):
            self._orders.update({"any", *(kind for kind, _ in orders)})
            said = set().union(*(item.orders for item in history))
            copied = [wording for _, wording in orders if wording in said]
            self._repeated += bool(copied)
            note("instructions", (copied or [wording for _, wording in orders])[0])


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _another(rows: int, random: np.random.Generator) -> np.ndarray:
    """For each row of a batch another one, each once: (rows,)."""
    order = random.permutation(rows)
    others = np.empty(rows, int)
    others[order] = np.roll(order, 1)
    return others


def _wording(made: SummaryProvenance) -> frozenset[str]:
    """The content words that a summary may have from what was asked, not from the items."""
    if made.values and made.engine == "extractive":
        return Words.of(_EXTRACTIVE).content
    prompts = SummaryPrompts()
    ours = (prompts.block, prompts.merge, prompts.update, prompts.cue)
    theirs = (
        text for text in made.prompts.values() if isinstance(text, str)
    )  # not the examples: their words are no user's
    return Words.of(" ".join([*theirs, *ours, _EXTRACTIVE])).content


def _split(splits: Mapping[str, IterableDataset], config: str, split: str) -> IterableDataset:
    if split not in splits:
        raise DataError(f"Config {config!r} has no split {split!r}. Run trsr check.")
    return splits[split]


def _tables(rows: IterableDataset, columns: Sequence[str] | Features, place: str, limit: int) -> Iterator[pa.Table]:
    """Tables of at most `ROWS` rows with the columns, no value of which is missing."""
    start = 0
    with tqdm(desc=place, unit="row", disable=None, mininterval=1) as bar:
        for table in rows.with_format("arrow").iter(batch_size=ROWS):
            table = table.slice(0, limit - start if limit else None)
            missing = [name for name in columns if name not in table.column_names]
            if missing:
                told = " Its texts are withheld: audit the dataset they stand in." if place == "items" else ""
                raise DataError(f"{place} lacks the columns {', '.join(missing)}.{told} Run trsr check.")
            table = table.select(list(columns))
            if empty := [name for name in columns if table[name].null_count]:
                raise DataError(f"{place}: rows lack a value in {', '.join(empty)}. Run trsr check.")
            yield table
            start += table.num_rows
            bar.update(table.num_rows)
            if limit and start >= limit:
                return
    if not start:
        raise DataError(f"{place}: the split is empty. Run trsr check.")
