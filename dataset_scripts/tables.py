# /// script
# requires-python = ">=3.11"
# dependencies = ["llm-trsr"]
# ///
"""Your own tables -> a dataset folder with the configs `items` and `histories`.

    python dataset_scripts/tables.py --items books.csv --interactions ratings.csv --out my-books \\
        --text-fields title,author,genres --time timestamp

Reads CSV, TSV, JSON (an object a line, an array, an object of objects), Parquet and RecBole's atomic files, plain or .gz:
one row an item, and one row an interaction or, with --list-column, one row a user. TSV cells, and those between separators
of several characters, are taken as they are, without quoting. A broken row, or one in which an id, a time or a list is
none, is left out, counted and named; what was met at a time that cannot be read is no negative. --strict stops at it. HTML entities are unescaped once, objects are read as
`name: value`, and of items with one id, one stays. What is kept, divided and drawn is `trsr.dataset.build.protocol`'s: by
default as in the paper, by option leave-one-out in time, by a date or as given.

A list of ids may be a real one, or text: JSON, as Python or numpy print it, or ids between spaces, commas, bars or
semicolons. With --item beside --list-column, that column holds what comes after the list.

Amazon Reviews 2023, one category:

    python dataset_scripts/tables.py --items meta_Books.jsonl.gz --interactions Books.jsonl.gz --out data/books \\
        --item-id parent_asin --item parent_asin --text-fields title,store,categories,description --time timestamp \\
        --keep-last --drop-unknown

Goodreads, one genre:

    python dataset_scripts/tables.py --items goodreads_books_poetry.json.gz --items-format jsonl \\
        --interactions goodreads_interactions_poetry.csv --item-id book_id --item book_id --out data/poetry \\
        --text-fields title,publisher,publication_year,description --keep-last --drop-unknown

MovieLens, with a column of plots joined to movies.csv:

    python dataset_scripts/tables.py --items movies-with-plots.csv --interactions ratings.csv --out data/movies \\
        --item-id movieId --user userId --item movieId --text-fields title,genres,plot --time timestamp --keep-last \\
        --drop-unknown

MovieLens 1M as it is, in Latin-1 and without headers:

    python dataset_scripts/tables.py --items movies.dat --interactions ratings.dat --sep :: --encoding latin-1 \\
        --items-columns item_id,title,genres --interactions-columns user_id,item_id,rating,timestamp \\
        --time timestamp --keep-last --out data/ml-1m

RecBole's atomic files:

    python dataset_scripts/tables.py --items ml-1m.item --interactions ml-1m.inter --title movie_title \\
        --time timestamp --keep-last --out data/ml-1m

The same as RecBole and SASRec have it, ratings of 4 and 5 only:

    python dataset_scripts/tables.py --items movies-with-plots.csv --interactions ratings.csv --out data/movies-loo \\
        --item-id movieId --user userId --item movieId --text-fields title,genres,plot --time timestamp --drop-unknown \\
        --min-rating 4 --k-core 5 --split leave-one-out

A shop's own export, a row a purchase:

    python dataset_scripts/tables.py --items products.parquet --interactions orders.parquet --out data/shop \\
        --item-id sku --title name --text-fields name,brand,category --user customer --item sku --time ordered_at
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trsr.core.field_values import ID_FIELDS
from trsr.dataset import contract
from trsr.dataset.build import column_types, id_lists, protocol, protocol_options
from trsr.dataset.build import command as building
from trsr.dataset.build import tables as tabular
from trsr.dataset.build.interactions import build_sequences, with_days_as_dates
from trsr.dataset.build.item_text import sentences
from trsr.dataset.build.scan import Faults, Reading
from trsr.dataset.build.sequences import Sequences, lengths
from trsr.dataset.build.splits import Division
from trsr.dataset.build.table_files import FORMATS, Table, format_of, text_table
from trsr.dataset.build.text_files import differs
from trsr.dataset.check.lengths import words
from trsr.errors import DataError
from trsr.hub import push_dataset, push_options

ITEM = "item_id"  # what --item is by default; whether it was given matters beside --list-column
FIRST = 1000  # rows of a log by which its form is found out
# An index that pandas wrote, with a name and without.
ROW_NUMBERS = re.compile(r"|Unnamed: \d+(\.\d+)?|__index_.*")
TIMES = re.compile(
    r"(.*_)?(timestamp|datetime|ts)|timestamp_.*|time|date|unixreviewtime|.+_at"
    r"|(event|review|rating|order|purchase|click|view|visit|added|created?|updated?)(_?(time|date|on)|at)"
    r"|date_?(added|created|read|rated)",
    re.IGNORECASE,
)
MISSING = r"^(?:nan|NaN|None|NULL|null|<NA>|\\N)$"  # how missing values look that were made texts
CARD = """\
# Histories for text-rich sequential recommendation

Made from `{items}` and `{interactions}` by `dataset_scripts/tables.py` of LLM-TRSR; options, counts and checksums stand
in `provenance.json`.

{protocol}

The licence of the source data applies to everything here.
"""


def file_names(options: argparse.Namespace) -> dict[Path, str]:
    """Path -> name of each file that is read; all names differ. Raises DataError if a log is given twice."""
    logs = [os.path.abspath(path) for path in options.interactions]
    if len(set(logs)) < len(logs):
        raise DataError(f"{max(logs, key=logs.count)} is given twice. Give each file of --interactions once.")
    groups = [options.items], options.interactions, [options.splits] if options.splits else []
    names = {path: name for group in groups for path, name in building.unique_names(group).items()}
    # Folders are added only to names that need them, so that the provenance of other datasets stays as it was.
    return names if len(set(names.values())) == len(set(map(os.path.abspath, names))) else building.unique_names(names)


def read_items(options: argparse.Namespace, faults: Faults) -> tuple[pa.Table, dict[str, int], building.Checksums]:
    """The config `items`, counts and the checksum."""
    file = _table(options.items, options, faults, items=True)
    if options.text_fields is not None:
        fields = building.shown_fields(options.text_fields)
    else:
        known = file.names()
        if numbers := [name for name in known if ROW_NUMBERS.fullmatch(name)]:
            said = ", ".join(map(repr, numbers))
            faults.notes.append(f"{file.name}: {said} is no part of texts: pandas' row numbers have such names")
        fields = [name for name in known if not _is_id(name, options) and name not in numbers]
        if known and not fields:
            raise DataError(f"{file.name}: ids are no text, and {', '.join(known)} are ids alone. Add a title.")
    if any(map(str.isdigit, fields)):
        faults.notes.append(f"{file.name}: texts call columns by their numbers; --items-columns gives them names")
    if leaks := [name for name in fields if _is_id(name, options)]:
        raise DataError(f"{', '.join(sorted(leaks))}: an id is no text, it would tell the model which item it is.")
    short = column_types.text(options.field_words, options.field_values)
    wanted = {f"field {name}": (name, column_types.WHOLE_TEXT if name == "text" else short) for name in fields}
    wanted |= {"item_id": (options.item_id, column_types.ID), "title": (options.title, column_types.text(words=0))}
    table, reading = tabular.read(file, wanted, faults, workers=options.workers)
    faults.counts_of_finished_steps |= _counted("items", reading)
    _note_encoding(faults)
    texts = {name: contract.one_chunk(table[f"field {name}"]) for name in fields}
    if "text" in texts and (long := int((words(texts["text"]) > (options.field_words or np.inf)).sum())):
        faults.notes.append(
            f"{file.name}: {long:,} texts have more than {options.field_words} words: --field-words cuts no column called 'text', but "
            "one of another name"
        )
    columns = {"item_id": table["item_id"], "title": table["title"], "text": sentences(texts)}
    found = pa.table(columns | {name: column for name, column in texts.items() if name not in columns})
    if not options.drop_unknown and len(empty := found.filter(pc.equal(found["text"], ""))):
        raise DataError(
            f"Item {empty['item_id'][0].as_py()!r} has no text in {', '.join(fields)}. Fill it, or give --drop-unknown."
        )
    for name, column in texts.items():
        if said := pc.sum(pc.match_substring_regex(column, MISSING)).as_py():
            faults.notes.append(
                f"{file.name}: {said:,} cells of column {name!r} are the word nan, None or NULL, and stay as text: if that stands for a "
                "missing value, leave them empty"
            )
    items, counts = building.deduplicate(found, ("text",))
    counts = _counted("items", reading) | {"items_cells_unescaped": reading.unescaped} | counts
    return items, counts, {file.name: reading.sha256}


def _is_id(name: str, options: argparse.Namespace) -> bool:
    return name == options.item_id or name.lower() in ID_FIELDS


def _counted(what: str, reading: Reading) -> dict[str, int]:
    lost = {f"{what}_lines_broken": reading.lines} if reading.lines > reading.broken else {}
    return {f"{what}_rows_read": reading.rows, f"{what}_rows_broken": reading.broken, **lost}


def read_log(
    options: argparse.Namespace, faults: Faults, ids: pa.Array
) -> tuple[Sequences, Division, dict[str, int], building.Checksums]:
    """What users met, how they are divided, counts and checksums.

    Several files are read as one, in the order in which they are given.
    """
    parts, total, sums, has_unbracketed_lists = [], Reading(), {}, False
    for path in options.interactions:
        if options.limit and total.rows >= options.limit:
            break
        file = _table(path, options, faults)
        wanted, unbracketed = _wanted_of_log(file, options, faults, ids)
        has_unbracketed_lists |= unbracketed
        limit = options.limit and options.limit - total.rows
        # What was met at a time that nobody can read was met: it is no negative.
        table, reading = tabular.read(file, wanted, faults, workers=options.workers, limit=limit, optional=("time",))
        if reading.sha256 and reading.sha256 in sums.values():
            raise DataError(f"{file.name} holds the same as another of --interactions. Give each file once.")
        parts.append(table)
        sums[file.name] = reading.sha256
        total.rows += reading.rows
        total.broken += reading.broken
        total.lines += reading.lines
    _note_encoding(faults)
    if len({tuple(part.column_names) for part in parts}) > 1:
        raise DataError("Of --interactions, some have an item after the list, and some have not. Read them one by one.")
    table = pa.concat_tables(parts)
    if options.list_column:
        if has_unbracketed_lists:
            table = sound_lists(table, ids, faults, options.list_column, total)
        table = after_lists(table)
    faults.counts_of_finished_steps |= _counted("log", total)
    if "dated" in table.column_names:
        table = with_days_as_dates(table)
    found, counts = build_sequences(table, ids, drop=options.drop_unknown, min_rating=options.min_rating)
    counts |= {"users_read": len(found)}
    found, outside = protocol_options.apply_k_core(found, options)
    if splits := protocol_options.splits_file(options):
        splits = _renamed(splits, options)
    division, given, more = protocol_options.division(options, table, splits, faults)
    if units := [name.removeprefix("times_in_").replace("_", " ") for name in counts if name.startswith("times_in_")]:
        faults.notes.append(
            f"column {options.time!r} holds times in {' and '.join(units)}: items are out of order. Write all in one unit."
        )
    if zoned := counts.get("dates_with_time_zone"):
        faults.notes.append(
            f"column {options.time!r} holds {zoned:,} dates with a time zone and {counts['dates_without_time_zone']:,} without one, "
            "which count as UTC: if they are local times, items are out of order. Write all with a zone."
        )
    if repeated := counts.get("interactions_repeated"):
        faults.notes.append(
            f"{repeated:,} interactions have the user, item and time of another one, and stay: if rows were exported twice, remove them"
        )
    building.suggest_min_history(lengths(found.items), options.min_history, faults, division)
    return found, division, _counted("log", total) | counts | outside | given, sums | more


def _note_encoding(faults: Faults) -> None:
    if faults.counts["not UTF-8"]:
        faults.notes.append("rows that are not UTF-8 are read where --encoding gives the encoding of the file")


def _renamed(table: Table, options: argparse.Namespace) -> Table:
    """The same table, with the name of its file in `file_names`."""
    return replace(table, source=replace(table.source, name=file_names(options)[table.source.path]))


def _table(path: Path, options: argparse.Namespace, faults: Faults, *, items: bool = False) -> Table:
    """A table's file, opened as the options say; what is not as usual is noted."""
    form = options.items_format if items else options.interactions_format
    sep = (options.items_sep if items else None) or options.sep
    names = options.items_columns if items else options.interactions_columns
    given = "--item-id, --title and --text-fields" if items else "--user, --item and --time"
    hint = f"{given} say what the columns are called."
    if (form := format_of(path, form, sep)) == "parquet":
        return _renamed(replace(tabular.parquet_table(path), hint=hint), options)
    file = text_table(
        path,
        form,
        sep=sep,
        encoding=options.encoding,
        header=not options.no_header,
        names=[name.strip() for name in names.split(",")] if names else [],
        key=options.item_id if items else options.user,
    )
    if differs(file.source.encoding, options.encoding):
        instead = f", not as {options.encoding}: its bytes leave no doubt" if options.encoding else ""
        faults.notes.append(f"{file.name} is read as {file.source.encoding}{instead}")
    if file.note:
        faults.notes.append(file.note)
    return _renamed(replace(file, hint=file.hint or hint), options)


def _wanted_of_log(
    file: Table, options: argparse.Namespace, faults: Faults, ids: pa.Array
) -> tuple[tabular.WantedColumns, bool]:
    """The columns of a log, how to read them, and whether it has lists without brackets: ids between separators."""
    item, unbracketed, known = options.item or ITEM, False, file.names(FIRST)
    wanted = {"user": (options.user, column_types.ID), **protocol_options.columns(options)}
    if not options.list_column:
        wanted["item"] = (item, column_types.ID)
    else:
        start, _ = tabular.read(file, {"cells": (options.list_column, column_types.RAW)}, Faults(), limit=FIRST)
        cells = [cell for cell in start["cells"].to_pylist() if cell.strip() and not id_lists.bracketed(cell)]
        unbracketed, separator = bool(cells), id_lists.separator_of(cells, set(ids.to_pylist()) if cells else ())
        wanted["items"] = (options.list_column, column_types.ids(separator))
        # RecBole calls a history after the item that follows it.
        follows = options.list_column == f"{item}_list" and item in known
        if options.item or follows:
            wanted["item"] = (item, column_types.ID)
            faults.notes.append(f"{file.name}: {item!r} is taken for what comes after the list {options.list_column!r}")
    if options.time:
        kinds = {"time": column_types.TIMESTAMP, "dated": column_types.DATED, "zoned": column_types.ZONED}
        wanted |= {name: (options.time, kind) for name, kind in kinds.items()}
    elif not options.list_column and (times := [name for name in known if TIMES.fullmatch(name)]):
        faults.notes.append(f"{file.name} is taken to be in order: --time {times[0]} would sort a user's rows")
    return wanted, unbracketed


def sound_lists(table: pa.Table, ids: pa.Array, faults: Faults, column: str, reading: Reading) -> pa.Table:
    """The rows whose lists are separated as most are: of the others, what was taken for an id is several, and unknown."""
    items = contract.one_chunk(table["items"])
    unknown = pc.unique(items.flatten().filter(pc.invert(pc.is_in(items.flatten(), value_set=ids))))
    known = set(ids.to_pylist()) if len(unknown) else set()
    odd = [one for one in unknown.to_pylist() if id_lists.is_unsplit_list(one, known)]
    if odd:
        reason = f"ids in column {column!r} are separated in another way than most, or than known"
        owners = pc.list_parent_indices(items).filter(pc.is_in(items.flatten(), value_set=pa.array(odd, pa.string())))
        owners = pc.unique(owners)
        for user in table["user"].take(owners).to_pylist():
            faults.add(f"user {user!r}", reason)
        reading.broken += len(owners)
        reading.lines += len(owners)
        keep = np.ones(len(table), dtype=bool)
        keep[owners.to_numpy()] = False
        table = table.filter(pa.array(keep))
    return table


def after_lists(table: pa.Table) -> pa.Table:
    """Lists with the item that comes after them, where the table has one."""
    if "item" in table.column_names:
        items, after = contract.one_chunk(table["items"]), contract.one_chunk(table["item"])
        whole = [[*before, last] for before, last in zip(items.to_pylist(), after.to_pylist(), strict=True)]
        table = table.set_column(table.column_names.index("items"), "items", pa.array(whole, items.type))
    return table


def make(options: argparse.Namespace, faults: Faults) -> dict[str, int]:
    """Read, keep, divide, draw and write. Returns the counts."""
    protocol_options.apply_defaults(options)
    names = file_names(options)
    items, counts, sums = read_items(options, faults)
    faults.counts_of_finished_steps |= counts
    found, division, more, sums_ = read_log(options, faults, contract.one_chunk(items["item_id"]))
    faults.counts_of_finished_steps |= more
    if options.k_core:
        items = items.filter(pc.is_in(items["item_id"], value_set=found.catalogue))
    histories, more, users = building.make_histories(found, options, more, division)
    users += protocol_options.in_words(options)
    tables = {"items": {"train": building.dataset(items)}, "histories": histories}
    options.item = options.item or ITEM
    sampling = {"negatives": options.negatives, "sampling": options.negative_sampling, "seed": options.seed}
    building.write(
        options,
        tables,
        script="tables.py",
        terms=contract.Terms(
            options.name or options.out.resolve().name,
            options.license,
            options.license_name,
            options.license_link,
            tuple(options.language),
        ),
        sources=sums | sums_,
        sampling=sampling,
        protocol=protocol_options.record(options),
        counts=counts | more,
        body=CARD.format(
            items=names[options.items],
            interactions="`, `".join(names[path] for path in options.interactions if names[path] in sums_),
            protocol=protocol.describe(tables, users=users, division=division, **sampling),
        ),
    )
    return counts | more


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    kinds = sorted(set(FORMATS.values()))
    add("--items", type=Path, required=True, metavar="FILE", help="one row an item")
    add("--interactions", type=Path, nargs="+", required=True, metavar="FILE", help="one row an interaction, or a user")
    bounds = ("11; leave-one-out: 4; other splits: 2", "26; of a row")
    building.add_options(parser, fields=None, bounds=bounds, sizes=("all others", "a twelfth", "a twelfth"))
    protocol_options.add_options(parser)
    add("--items-format", choices=kinds, help="default: by the file's name")
    add("--interactions-format", choices=kinds, help="default: by the file's name")
    add("--sep", help="between two cells, such as ';', '::' or tab; default: , in .csv and a tab in .tsv")
    add("--items-sep", metavar="SEP", help="that of the items, where it is another")
    add("--encoding", help="of files that are not plainly UTF-8 or UTF-16, such as latin-1")
    add("--no-header", action="store_true", help="the first row is one of the data: columns are called 1, 2, ...")
    add("--items-columns", metavar="A,B,...", help="names of the items' columns, where they have no header")
    add(
        "--interactions-columns",
        metavar="A,B,...",
        help="names of the interactions' columns, where they have no header",
    )
    add("--item-id", default="item_id", help="column of the items (%(default)s)")
    add("--title", default="title", help="column of the items (%(default)s)")
    add(
        "--field-words",
        type=int,
        default=40,
        metavar="N",
        help="words a field keeps, or characters where a script has no spaces; 0 = all (%(default)s)",
    )
    add("--field-values", type=int, default=0, metavar="N", help="values a list keeps; 0 = all (%(default)s)")
    add("--user", default="user_id", help="column of the interactions (%(default)s)")
    add("--item", help="column of the interactions (item_id); with --list-column: what comes after the list")
    order = parser.add_mutually_exclusive_group()
    order.add_argument("--time", help="column that sorts a user's rows; default: their order in the file")
    order.add_argument("--list-column", help="column with a user's items, oldest first: a row is then a user")
    add("--drop-unknown", action="store_true", help="drop interactions with items that have no row or text")
    add("--name", help="short name of the data, which releases are called after; default: the folder's")
    add("--license", default="other", help="of the data, an identifier that the Hub knows (%(default)s)")
    add("--license-name", help="with --license other: what it is called")
    add("--license-link", metavar="URL", help="with --license other: where it stands")
    add("--language", nargs="+", default=[], metavar="CODE", help="ISO 639 codes of the texts, such as: en de")
    push_options.add(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Make the dataset, report, and return the exit code."""
    return building.command(arguments(), make, argv, then=push_dataset.push_if_requested)


if __name__ == "__main__":
    sys.exit(main())
