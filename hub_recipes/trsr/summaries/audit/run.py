"""Audit the summaries of a dataset, method by method and in batches.

Memory holds the texts of all items, the words of recently used ones, a batch, and about 90 bytes for each summary.
"""

import functools
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
from trsr.dataset.other_users import rows_of_others
from trsr.errors import DataError
from trsr.records.files import write_json
from trsr.records.provenance import SummaryProvenance
from trsr.summaries.accept import reject_reason
from trsr.summaries.audit.catalogue import Catalogue
from trsr.summaries.audit.figures import COPIED, UNSUPPORTED, figures, warnings
from trsr.summaries.audit.instructions import instructions
from trsr.summaries.audit.measure import copied_share, coverage, names, unsupported
from trsr.summaries.audit.words import Words

ROWS = 1000  # of a batch; the other user's history, the control, is from the same batch
EXAMPLES = 3  # of each kind
# Words of the extractive summarizer's own wording.
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
    """Measure the summaries of a dataset.

    Args:
        source: Folder, Hub id, or the name of a dataset in the package, with items and a config of summaries.
        limit: Rows of each split to read, 0 = all.
        seed: For the choice of the negative that is compared with the target, and of the other user for the control.

    Returns:
        The content of `audit.json`: the figures of each method, with examples of summaries, and warnings.

    Raises:
        DataError: If there are no summaries or no item texts, or they do not follow the contract.
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
        provenance = contract.provenance(source, revision).summaries
        report: dict[str, Any] = {
            "engine": provenance.engine if provenance.values else "unknown",
            "limit": limit,
            "seed": seed,
            "items": {"count": len(catalogue), "with_instructions": catalogue.with_injection},
            "calls": sum(provenance.calls.get(method, 0) for method in methods) if provenance.values else 0,
            "fallen_back": provenance.fallen_back,
            "methods": {},
        }
        for method in methods:
            measures = _MethodMeasures(catalogue, _wording(provenance), seed)
            splits = stream(method)
            for split in contract.SPLITS:
                for table in _tables(_split(splits, method, split), contract.SUMMARIES, f"{method} {split}", limit):
                    measures.add(table, split)
            report["methods"][method] = measures.figures()
    except (HTTPError, pa.ArrowException, DatasetsError, UnicodeDecodeError) as error:
        raise DataError(f"Dataset {source!r} cannot be read: {error}") from error
    return {**report, "warnings": list(warnings(report))}


def write(report: Mapping[str, Any], folder: Path) -> Path:
    """Write an audit into the folder of its dataset, atomically. Returns the path of the file."""
    path = folder / contract.AUDIT
    write_json(path, report)
    return path


class _MethodMeasures:
    """The measures of all summaries of a method."""

    def __init__(self, catalogue: Catalogue, wording: frozenset[str], seed: int) -> None:
        self._catalogue = catalogue
        self._wording = wording
        self._seed = seed
        self._random = np.random.default_rng(seed)
        self._columns = {name: array("d") for name in _COLUMNS}
        self._digests: list[np.ndarray] = []
        self._owners: list[np.ndarray] = []
        self._problems: Counter[str] = Counter()
        self._injections: Counter[str] = Counter()
        self._repeated = 0
        self._examples: dict[str, list[dict[str, str]]] = {}

    def add(self, table: pa.Table, split: str) -> None:
        """Measure a batch."""
        rows = table.to_pylist()
        self._digests.append(hashes(table["summary"]))
        self._owners.append(hashes(table["user_id"]))
        users = [row["user_id"] for row in rows]
        other_rows = rows_of_others(users, self._random)
        several = len(set(users)) > 1
        for row, other in zip(rows, other_rows, strict=True):
            drawn = int(self._random.integers(len(row["negatives"]))) if row["negatives"] else None
            negative = None if drawn is None else row["negatives"][drawn]
            self._measure(row, split, rows[other]["history"] if several else None, negative)

    def figures(self) -> dict[str, Any]:
        return {
            **figures(self._columns, np.concatenate(self._digests), np.concatenate(self._owners), self._seed),
            "problems": dict(sorted(self._problems.items())),
            "instructions": {
                "summaries": self._injections["any"],
                "copied": self._repeated,
                "kinds": {kind: self._injections[kind] for kind in ("command", "role", "heading", "token")},
            },
            "examples": self._examples,
        }

    def _measure(self, row: Mapping[str, Any], split: str, other: Sequence[str] | None, negative: str | None) -> None:
        catalogue, text = self._catalogue, row["summary"]
        summary = Words.of(text)
        history = [catalogue.read(item_id) for item_id in row["history"]]
        unsupported_words = unsupported(summary, history, self._wording)
        values = {
            "words": len(text.split()),
            "history_words": sum(item.length for item in history),
            "coverage": coverage(summary, history),
            "unsupported": _share(len(unsupported_words), len(summary.content)),
            "target_named": names(summary, row["target"], history, catalogue),
            "copied": copied_share(summary, history),
        }
        if other is not None:
            other_history = [catalogue.read(item_id) for item_id in other]
            values["coverage_of_another"] = coverage(summary, other_history)
            unsupported_by_other = unsupported(summary, other_history, self._wording)
            values["unsupported_of_another"] = _share(len(unsupported_by_other), len(summary.content))
        if negative is not None:
            values["negative_named"] = names(summary, negative, history, catalogue)
        for name, column in self._columns.items():
            column.append(values.get(name, float("nan")))

        def add_example(kind: str, shown: str) -> None:
            examples = self._examples.setdefault(kind, [])
            if len(examples) < EXAMPLES:
                examples.append({"split": split, "user_id": show(row["user_id"]), "shown": show(shown)})

        if values["unsupported"] > UNSUPPORTED:
            add_example("unsupported", ", ".join(sorted(unsupported_words)))
        if values["target_named"]:
            add_example("target_named", text)
        if values["copied"] > COPIED:
            add_example("near_copies", text)
        if reason := reject_reason(Answer(text), SummaryPrompts()):
            self._problems[reason] += 1
            add_example("problems", text)
        if injections := dict.fromkeys(instructions(text)):
            self._injections.update({"any", *(kind for kind, _ in injections)})
            injections_of_items = set().union(*(item.injections for item in history))
            copied = [wording for _, wording in injections if wording in injections_of_items]
            self._repeated += bool(copied)
            add_example("instructions", (copied or [wording for _, wording in injections])[0])


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _wording(provenance: SummaryProvenance) -> frozenset[str]:
    """The content words that a summary may take from the prompts instead of the items."""
    if provenance.values and provenance.engine == "extractive":
        return Words.of(_EXTRACTIVE).content
    prompts = SummaryPrompts()
    ours = (prompts.block, prompts.merge, prompts.update, prompts.cue)
    # Without the examples in prompts, whose words are about no user.
    theirs = (text for text in provenance.prompts.values() if isinstance(text, str))
    return Words.of(" ".join([*theirs, *ours, _EXTRACTIVE])).content


def _split(splits: Mapping[str, IterableDataset], config: str, split: str) -> IterableDataset:
    if split not in splits:
        raise DataError(f"Config {config!r} has no split {split!r}. Run trsr check.")
    return splits[split]


def _tables(rows: IterableDataset, columns: Sequence[str] | Features, location: str, limit: int) -> Iterator[pa.Table]:
    """Tables of at most `ROWS` rows with the given columns. Raises DataError if a column or a value is missing."""
    start = 0
    with tqdm(desc=location, unit="row", disable=None, mininterval=1) as bar:
        for table in rows.with_format("arrow").iter(batch_size=ROWS):
            table = table.slice(0, limit - start if limit else None)
            missing = [name for name in columns if name not in table.column_names]
            if missing:
                hint = " Its texts are withheld: audit the dataset they stand in." if location == "items" else ""
                raise DataError(f"{location} lacks the columns {', '.join(missing)}.{hint} Run trsr check.")
            table = table.select(list(columns))
            if empty := [name for name in columns if table[name].null_count]:
                raise DataError(f"{location}: rows lack a value in {', '.join(empty)}. Run trsr check.")
            yield table
            start += table.num_rows
            bar.update(table.num_rows)
            if limit and start >= limit:
                return
    if not start:
        raise DataError(f"{location}: the split is empty. Run trsr check.")
