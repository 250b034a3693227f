"""Shared parts of the dataset scripts: the config `items`, the command-line options, and writing the dataset.

A script reads its own file format with `scan` and builds items and interaction sequences; `protocol` keeps users, divides
them and draws negatives. In a list of items, an item is its index in the sorted catalogue.
"""

import argparse
import functools
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from trsr.dataset import contract
from trsr.dataset.build import column_types, protocol
from trsr.dataset.build.item_text import sentences
from trsr.dataset.build.scan import Faults, Reading
from trsr.dataset.build.sequences import Sequences
from trsr.dataset.build.splits import Division
from trsr.errors import DataError, TrsrError

PAPER = {"train": 10_000, "validation": 1000, "test": 1000}  # users
# Defaults of the options that say how histories are cut and negatives drawn.
DRAWN: Mapping[str, Any] = {"negatives": 20, "negative_sampling": "uniform", "keep_last": False}
Checksums = dict[str, str | None]  # name of a file -> its SHA-256; None if it was not read to its end


def concat(parts: Iterable[pa.Table], name: str, reading: Reading, other: str) -> pa.Table:
    """Join the tables that were read from one file.

    Args:
        name: Of the file.
        other: Describes the valid rows that are in none of the tables, for the message.

    Raises:
        DataError: If there are no rows.
    """
    tables = list(parts)
    if not sum(map(len, tables)):
        raise DataError(
            f"No row is left of the {reading.rows:,} in {name}: {reading.broken:,} cannot be read, "
            f"{reading.rows - reading.broken:,} are {other}. Is this the right file?"
        )
    return pa.concat_tables(tables)


def unique_names(paths: Iterable[Path]) -> dict[Path, str]:
    """Path -> name for messages and provenance: the file name, preceded by folders if others have the same name."""
    files = {path: Path(os.path.abspath(path)) for path in paths}
    for depth in itertools.count(1):
        names = {path: "/".join(file.parts[-depth:]) for path, file in files.items()}
        if len(set(names.values())) == len(set(files.values())):
            return names
    raise AssertionError("unreachable")


def matches(values: pa.Array, pattern: str) -> np.ndarray:
    """Which values match a regular expression, bool."""
    return pc.match_substring_regex(values, pattern).to_numpy(zero_copy_only=False)


def items(table: pa.Table, fields: Sequence[str], shown: Sequence[str]) -> tuple[pa.Table, int]:
    """Rows of the config `items`, in the order of the table, and the number of cells with HTML entities.

    Args:
        table: `item_id` and the fields as they were read.
        fields: Names of the item's fields; one is `title`.
        shown: The fields that make up the text, in order.
    """
    cells = {name: contract.one_chunk(table[name]) for name in fields}
    texts = {name: column_types.text(words=0).read(cells[name]) for name in fields}
    text = sentences({name: texts[name] for name in shown})
    rows = pa.table({"item_id": table["item_id"], "title": texts["title"], "text": text, **texts})
    return rows, sum(map(column_types.count_escaped, cells.values()))


def deduplicate(items: pa.Table, needed: Sequence[str]) -> tuple[pa.Table, dict[str, int]]:
    """Items sorted by id, each id once, without those that lack a needed column; and counts.

    Of several rows with one id, the first in the order of their text is kept, so that the order of the files does not matter.
    """
    is_complete = functools.reduce(pc.and_, [pc.not_equal(items[name], "") for name in needed])
    complete = items if pc.all(is_complete).as_py() else items.filter(is_complete)
    if not len(complete):
        raise DataError(f"No item has a {' and a '.join(needed)}. Are these the right files?")
    repeated = len(complete) - pc.count_distinct(complete["item_id"]).as_py()
    # Where all ids differ, sorting by id alone gives the same order, and is faster.
    keys = complete.column_names if repeated else ["item_id"]
    rows = complete.take(pc.sort_indices(complete, sort_keys=[(name, "ascending") for name in keys]))
    if repeated:
        ids = contract.one_chunk(rows["item_id"])
        rows = rows.filter(pa.array(np.append(True, pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False))))
    counts = {
        "items_read": len(items),
        f"items_without_{'_or_'.join(needed)}": len(items) - len(complete),
        "items_repeated": repeated,
        "items": len(rows),
    }
    return rows, counts


def make_histories(
    sequences: Sequences, options: argparse.Namespace, counts: Mapping[str, int], division: Division = protocol.PAPER
) -> tuple[dict[str, Dataset], dict[str, int], str]:
    """Build the config `histories` with the options of a script.

    Args:
        counts: Counts of the earlier steps; counts of users are added to them.

    Returns:
        The splits of `histories`, all counts, and a phrase that says which users are kept.
    """
    rows, users = protocol.make_histories(
        sequences,
        shortest=options.min_history,
        longest=options.max_history,
        keep_last=options.keep_last,
        division=division,
        train=options.train,
        validation=options.validation,
        test=options.test,
        negatives=options.negatives,
        sampling=options.negative_sampling,
        seed=options.seed,
    )
    del users["users_read"]
    all_counts = {**counts, **{name: counts.get(name, 0) + count for name, count in users.items()}}
    return rows, all_counts, protocol.in_words(options.min_history, options.max_history, options.keep_last, division)


def suggest_min_history(counts: np.ndarray, shortest: int, faults: Faults, division: Division = protocol.PAPER) -> None:
    """Note how many more users a lower --min-history would keep, if some have too few items.

    Args:
        counts: Items of each user, the target counted.
        division: Says how low --min-history may be.
    """
    if len(short := counts[counts < shortest]):
        minimum_of = {int((short >= least).sum()): least for least in (division.min_items, 5) if least < shortest}
        suggestion = ", ".join(
            f"--min-history {minimum_of[count]} keeps {count:,} of them" for count in sorted(minimum_of) if count
        )
        faults.notes.append(f"{len(short):,} users have fewer than {shortest} items{suggestion and ': '}{suggestion}")


def dataset(table: pa.Table) -> Dataset:
    """A table of text columns as the config `items`."""
    return contract.in_memory(table.cast(contract.items_features(table.column_names).arrow_schema))


def add_options(
    parser: argparse.ArgumentParser,
    fields: str | None,
    bounds: tuple[str, str] = ("11", "26"),
    sizes: tuple[str, str, str] = ("10000", "1000", "1000"),
) -> None:
    """Add the options that all dataset scripts have.

    Args:
        fields: The default of --text-fields; None for all.
        bounds: Defaults of --min-history and --max-history, as --help shows them.
        sizes: Defaults of --train, --validation and --test, as --help shows them.
    """
    add = parser.add_argument
    shown = fields or "all but ids"
    add("--out", type=Path, required=True, metavar="DIR", help="dataset folder to write")
    add("--text-fields", default=fields, metavar="A,B,...", help=f"fields of an item's text, in order ({shown})")
    add("--min-history", type=int, metavar="N", help=f"items of a user, the target counted ({bounds[0]})")
    add("--max-history", type=int, metavar="N", help=f"items of a user, the target counted ({bounds[1]})")
    add("--keep-last", action="store_true", help="keep the newest items of users with more, instead of no items")
    add("--negatives", type=int, default=DRAWN["negatives"], metavar="N", help="a user (%(default)s)")
    add(
        "--negative-sampling",
        choices=tuple(protocol.SAMPLINGS),
        default=DRAWN["negative_sampling"],
        help="(%(default)s)",
    )
    add("--train", metavar="N", help=f"users, or: all others ({sizes[0]})")
    add("--validation", type=int, metavar="N", help=f"users ({sizes[1]})")
    add("--test", type=int, metavar="N", help=f"users ({sizes[2]})")
    add("--seed", type=int, default=0, help="of splits and negatives (%(default)s)")
    add("--limit", type=int, default=0, metavar="N", help="read the first N rows of a log only, to try things out")
    add("--workers", type=int, default=2, metavar="N", help="threads that parse (%(default)s)")
    add("--strict", action="store_true", help="stop at a broken row, instead of leaving it out and counting it")


def apply_defaults(
    options: argparse.Namespace, shortest: int, longest: int, sizes: Mapping[str, int], least: int = 2
) -> None:
    """Set options that were not given to a protocol's defaults, and `all` to None. Call it before any file is read.

    Args:
        least: The lowest --min-history of the protocol.

    Raises:
        DataError: If an option is not valid.
    """
    if options.min_history is None:
        options.min_history = shortest
    if options.max_history is None:
        options.max_history = longest
    protocol.check_bounds(options.min_history, options.max_history, least)
    protocol.check_negatives(options.negatives)
    for split in contract.SPLITS:
        size = getattr(options, split)
        if size is None:
            size = sizes.get(split)
        elif not re.fullmatch("all|0*[1-9][0-9]{0,17}", str(size)):
            raise DataError(f"--{split} takes a number of users, at least 1, or: all; got {size!r}.")
        setattr(options, split, None if size in (None, "all") else int(size))


def shown_fields(text: str, known: Sequence[str] | None = None) -> list[str]:
    """The names in --text-fields, each once.

    Args:
        known: The fields of the items; None where only the file that is read knows them.

    Raises:
        DataError: For no name, one that is given twice, or one that is not a field of the items.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or len(set(names)) < len(names) or not (known is None or set(names) <= set(known)):
        choice = "names of columns" if known is None else f"some of {', '.join(known)}"
        raise DataError(f"--text-fields takes {choice}, each once; got {text!r}.")
    return names


def write(
    options: argparse.Namespace,
    tables: contract.Tables,
    *,
    terms: contract.Terms,
    sources: Checksums,
    sampling: Mapping[str, Any],
    protocol: Mapping[str, Any],
    counts: Mapping[str, int],
    body: str,
    script: str,
) -> None:
    """Write the dataset folder with its provenance. Options that do not change the dataset are left out of it.

    Args:
        protocol: As in `Provenance.protocol_record`: how users are divided, and which interactions count.
    """
    unrecorded = {"sources", "interactions", "workers", "strict", "push_to_hub", "private", "accept_data_licence"}
    unrecorded |= {
        "overwrite",
        "sep",
        "items_sep",
        "encoding",
        "no_header",
        "items_columns",
        "interactions_columns",
    }  # forms of files
    provenance = {
        "dataset": terms.to_dict(),
        "script": f"dataset_scripts/{script}",
        "sources": [{"file": name, "sha256": digest} for name, digest in sources.items()],
        "options": {
            name: value
            for name, value in vars(options).items()
            if name not in unrecorded and not isinstance(value, Path)
        },
        "seed": options.seed,
        "sampling": dict(sampling),
        "protocol": dict(protocol),
        "counts": dict(counts),
        "written_with": {"datasets": datasets.__version__, "pyarrow": pa.__version__},
    }
    contract.write(options.out, tables, provenance=provenance, body=body, header={"tags": ["llm-trsr"]})


def _table(counts: Mapping[str, int]) -> str:
    width = max(map(len, counts), default=0)
    return "".join(f"{name.replace('_', ' '):{width}}  {count:>11,}\n" for name, count in counts.items())


def command(
    parser: argparse.ArgumentParser,
    make: Callable[[argparse.Namespace, Faults], Mapping[str, int]],
    argv: Sequence[str] | None,
    then: Callable[[argparse.Namespace], object],
    name: str = "",
) -> int:
    """Run a script: make the dataset, print a report, and call `then`.

    Args:
        name: Of the dataset; default, the option --name, or the name of the folder.

    Returns:
        The exit code: 0, or 2 after a user's mistake, whose message is printed.
    """
    options = parser.parse_args(argv)
    datasets.disable_progress_bars()  # a bar for each written file is of no use
    faults = Faults(options.strict)
    try:
        if options.workers < 1 or options.limit < 0:
            raise DataError(f"--workers is at least 1, --limit at least 0; got {options.workers} and {options.limit}.")
        # Now, and not after all is read; `contract.write` looks again.
        record = {"dataset": {"name": name or getattr(options, "name", None) or options.out.resolve().name}}
        contract.check_replaceable(options.out, ("items", "histories"), contract.Provenance(record, str(options.out)))
        counts = make(options, faults)
    except (TrsrError, OSError) as error:
        # Rows that were left out so far may be the cause of the error, whichever step raised it.
        print(f"error: {error}\n{_table(faults.counts_of_finished_steps)}{faults.report()}", end="", file=sys.stderr)
        return 2
    print(_table(counts) + faults.report(), end="")
    print(f"Written to {options.out}")
    try:
        then(options)
    except (TrsrError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
