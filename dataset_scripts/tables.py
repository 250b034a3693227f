# /// script
# requires-python = ">=3.11"
# dependencies = ["llm-trsr"]
# ///
"""Your own tables -> a dataset folder with the configs `items` and `histories`.

    python dataset_scripts/tables.py --items books.csv --interactions ratings.csv --out my-books \\
        --text-fields title,author,genres --time timestamp

Reads CSV, TSV, JSONL and Parquet, plain or .gz: one row an item, and one row an interaction or, with --list-column, one
row a user. TSV cells are taken as they are, without quoting. What is kept, divided and drawn is `trsr.protocol`'s.

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

A shop's own export, a row a purchase:

    python dataset_scripts/tables.py --items products.parquet --interactions orders.parquet --out data/shop \\
        --item-id sku --title name --text-fields name,brand,category --user customer --item sku --time ordered_at
"""

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path

import datasets
import pyarrow as pa
from datasets import Dataset

from trsr import data, protocol, push_dataset
from trsr.core.history import ID_FIELDS, clean, sentence
from trsr.data import DataError
from trsr.interactions import read_columns
from trsr.rows import FORMATS, Row, cell, rows
from trsr.sequences import Sequences

CARD = """\
# Histories for text-rich sequential recommendation

Made from `{items}` and `{interactions}` by `dataset_scripts/tables.py` of LLM-TRSR; options, counts and checksums stand
in `provenance.json`.

{protocol}

The licence of the source data applies to everything here.
"""


def identifier(value: object, name: str, place: str) -> str:
    """An id as text; 12.0, as a column with gaps has it, is 12."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = "" if value is None else str(value).strip()
    if not text or not text.isprintable():
        raise DataError(f"{place}: {value!r} in column {name!r} is no id.")
    return sys.intern(text)  # millions of interactions share few ids


def field_text(value: object, words: int = 40, values: int = 0) -> str:
    """A field as one clean line: of a list at most `values` values, of the line `words` words; 0 = all."""
    if isinstance(value, (list, tuple)):
        parts = [str(part) for part in value if part is not None]
        value = ", ".join(parts[:values] if values else parts)
    if value is None or value != value:
        return ""
    found = clean(str(value)).split(" ")
    return " ".join(found[:words]).rstrip(",") if words and len(found) > words else " ".join(found)


def moment(value: object, name: str, place: str) -> float:
    """A point in time as a number: numbers stay, ISO 8601 dates become seconds since 1970 (UTC unless they say)."""
    if not isinstance(value, datetime):
        for kind in (int, float):
            try:
                number = kind(str(value))
            except ValueError:
                continue
            if math.isfinite(number):
                return number
        try:
            value = datetime.fromisoformat(str(value).strip().replace("Z", "+00:00"))
        except ValueError as error:
            raise DataError(
                f"{place}: {value!r} in column {name!r} is neither a number nor an ISO 8601 date."
            ) from error
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()


def listed(value: object, name: str, place: str) -> list[object]:
    """A list, or text that holds one: JSON or ids between spaces."""
    if isinstance(value, str):
        if not value.lstrip().startswith("["):
            return value.split()
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise DataError(f"{place}: column {name!r} holds no JSON list: {error}.") from error
    if not isinstance(value, (list, tuple)):
        raise DataError(
            f"{place}: column {name!r} should hold a list, got {value!r}. Without --list-column, a row is one item."
        )
    return list(value)


def read_sequences(
    table: Iterable[tuple[str, Row]],
    catalogue: Collection[str],
    *,
    user: str = "user_id",
    item: str = "item_id",
    time: str | None = None,
    list_column: str | None = None,
    drop: bool = False,
) -> tuple[dict[str, list[str]], dict[str, int]]:
    """User id -> item ids, oldest first, and counts.

    Args:
        time: Column that sorts a user's rows; equal times, and all rows without it, keep their order.
        list_column: Column with all items of a user; then a row is a user, not an interaction.
        drop: Leave out items that are not in `catalogue` instead of raising.
    """
    timed: dict[str, list[tuple[float, str]]] = {}
    read = interactions = 0
    for place, row in table:
        user_id = identifier(cell(row, user, place), user, place)
        if list_column and user_id in timed:
            raise DataError(f"{place}: user {user_id!r} has a row already; with --list-column a user has one row.")
        values = listed(cell(row, list_column, place), list_column, place) if list_column else [cell(row, item, place)]
        when = moment(cell(row, time, place), time, place) if time else 0
        mine = timed.setdefault(user_id, [])
        for value in values:
            item_id = identifier(value, list_column or item, place)
            if item_id in catalogue:
                mine.append((when, item_id))
            elif not drop:
                raise DataError(f"{place}: item {item_id!r} is not in the items file. Add it, or give --drop-unknown.")
        read += 1
        interactions += len(values)
    if not timed:
        raise DataError("The interactions file has no rows.")
    sequences = {
        user_id: [item_id for _, item_id in sorted(mine, key=itemgetter(0))] for user_id, mine in timed.items()
    }
    dropped = interactions - sum(map(len, sequences.values()))
    counts = {"rows_read": read, "interactions_read": interactions, "interactions_dropped": dropped}
    return Sequences.of(sequences, catalogue), counts


def read_items(
    table: Iterable[tuple[str, Row]],
    *,
    item_id: str,
    title: str,
    fields: Sequence[str] | None,
    words: int = 40,
    values: int = 0,
    drop: bool = False,
) -> tuple[Dataset, dict[str, int]]:
    """The config `items`, sorted by id, and counts.

    Args:
        fields: Columns that make the text, in order; default all but ids.
        words: Words that a field keeps, 0 = all.
        values: Values that a list keeps, 0 = all.
        drop: Leave out items without text instead of raising.
    """
    found: dict[str, Row] = {}
    columns: Row = {}
    place = "The items file"
    for place, row in table:
        key = identifier(cell(row, item_id, place), item_id, place)
        if key in found:
            raise DataError(f"{place}: item {key!r} has a row already. Item ids must differ.")
        found[key] = row
        columns.update(dict.fromkeys(row))
    if not found:
        raise DataError(f"{place} has no rows.")
    ids = {item_id, *(name for name in columns if name.lower() in ID_FIELDS)}
    if fields is None:
        fields = [name for name in columns if name and name not in ids and not name.startswith("__index_level_")]
    if leaks := ids.intersection(fields):
        raise DataError(f"{', '.join(sorted(leaks))}: an id is no text, it would tell the model which item it is.")
    for name in (title, *fields):
        cell(columns, name, place.rsplit(", ", 1)[0])
    names = dict.fromkeys((*data.ITEM_COLUMNS, *fields))
    made = []
    for key in sorted(found):
        texts = {name: field_text(found[key].get(name), words, values) for name in fields}
        if text := sentence(texts):
            full = {**texts, "item_id": key, "title": field_text(found[key].get(title), words=0), "text": text}
            made.append({name: full[name] for name in names})
        elif not drop:
            raise DataError(f"Item {key!r} has no text in {', '.join(fields)}. Fill it, or give --drop-unknown.")
    if not made:
        raise DataError(f"No item has text in {', '.join(fields)}.")
    counts = {"items_read": len(found), "items_without_text_dropped": len(found) - len(made), "items": len(made)}
    return Dataset.from_list(made, features=data.items_features(names)), counts


def checksum(path: Path) -> dict[str, str]:
    """File name and SHA-256, for the provenance."""
    digest = hashlib.sha256()
    with path.open("rb") as raw:
        while piece := raw.read(1 << 20):
            digest.update(piece)
    return {"file": path.name, "sha256": digest.hexdigest()}


def make(options: argparse.Namespace) -> dict[str, int]:
    """Read, keep, divide, draw and write. Returns the counts."""
    items, counts = read_items(
        rows(options.items, options.items_format),
        item_id=options.item_id,
        title=options.title,
        fields=[name.strip() for name in options.text_fields.split(",")] if options.text_fields else None,
        words=options.field_words,
        values=options.field_values,
        drop=options.drop_unknown,
    )
    catalogue = frozenset(items["item_id"])
    columns = {"user": options.user, "item": options.item, "time": options.time}
    found = None
    if not options.list_column:
        form = options.interactions_format
        found = read_columns(options.interactions, catalogue, form=form, drop=options.drop_unknown, **columns)
    # Row by row where the columns hold something that has to be looked at, or named.
    sequences, read = found or read_sequences(
        rows(options.interactions, options.interactions_format),
        catalogue,
        list_column=options.list_column,
        drop=options.drop_unknown,
        **columns,
    )
    drawing = {"negatives": options.negatives, "sampling": options.negative_sampling, "seed": options.seed}
    histories, users = protocol.paper(
        sequences,
        shortest=options.min_history,
        longest=options.max_history,
        keep_last=options.keep_last,
        train=options.train,
        validation=options.validation,
        test=options.test,
        **drawing,
    )
    tables = {"items": {"train": items}, "histories": histories}
    counts = {**counts, **read, **users}
    terms = data.Terms(
        options.name or options.out.resolve().name,
        options.license,
        options.license_name,
        options.license_link,
        tuple(options.language),
    )
    provenance = {
        "dataset": terms.to_dict(),
        "script": "dataset_scripts/tables.py",
        "sources": {"items": checksum(options.items), "interactions": checksum(options.interactions)},
        "options": {
            name: value
            for name, value in vars(options).items()
            if not isinstance(value, Path) and name not in ("push_to_hub", "private", "accept_data_licence")
        },
        "seed": options.seed,
        "sampling": drawing,
        "counts": counts,
        "written_with": {"datasets": datasets.__version__, "pyarrow": pa.__version__},
    }
    body = CARD.format(
        items=options.items.name,
        interactions=options.interactions.name,
        protocol=protocol.describe(
            tables, users=protocol.in_words(options.min_history, options.max_history, options.keep_last), **drawing
        ),
    )
    data.write(options.out, tables, provenance=provenance, body=body, header={"tags": ["llm-trsr"]})
    return counts


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    kinds = sorted(set(FORMATS.values()))
    add("--items", type=Path, required=True, metavar="FILE", help="one row an item")
    add("--interactions", type=Path, required=True, metavar="FILE", help="one row an interaction, or a user")
    add("--out", type=Path, required=True, metavar="DIR", help="dataset folder to write")
    add("--items-format", choices=kinds, help="default: by the file's name")
    add("--interactions-format", choices=kinds, help="default: by the file's name")
    add("--item-id", default="item_id", help="column of the items (%(default)s)")
    add("--title", default="title", help="column of the items (%(default)s)")
    add("--text-fields", metavar="A,B,...", help="columns that make an item's text, in order; default: all but ids")
    add("--field-words", type=int, default=40, metavar="N", help="words a field keeps; 0 = all (%(default)s)")
    add("--field-values", type=int, default=0, metavar="N", help="values a list keeps; 0 = all (%(default)s)")
    add("--user", default="user_id", help="column of the interactions (%(default)s)")
    add("--item", default="item_id", help="column of the interactions (%(default)s)")
    order = parser.add_mutually_exclusive_group()
    order.add_argument("--time", help="column that sorts a user's rows; default: their order in the file")
    order.add_argument("--list-column", help="column with a user's items, oldest first: a row is then a user")
    add("--drop-unknown", action="store_true", help="drop interactions with items that have no row or text")
    add("--min-history", type=int, default=11, metavar="N", help="items of a user, the target counted (%(default)s)")
    add("--max-history", type=int, default=26, metavar="N", help="items of a user, the target counted (%(default)s)")
    add("--keep-last", action="store_true", help="keep the newest items of users with more, instead of no items")
    add("--negatives", type=int, default=20, metavar="N", help="a user (%(default)s)")
    add("--negative-sampling", choices=tuple(protocol.SAMPLINGS), default="uniform", help="(%(default)s)")
    add("--train", type=int, metavar="N", help="users; default: all others")
    add("--validation", type=int, metavar="N", help="users; default: a twelfth")
    add("--test", type=int, metavar="N", help="users; default: a twelfth")
    add("--seed", type=int, default=0, help="of splits and negatives (%(default)s)")
    add("--name", help="short name of the data, which releases are called after; default: the folder's")
    add("--license", default="other", help="of the data, an identifier that the Hub knows (%(default)s)")
    add("--license-name", help="with --license other: what it is called")
    add("--license-link", metavar="URL", help="with --license other: where it stands")
    add("--language", nargs="+", default=[], metavar="CODE", help="ISO 639 codes of the texts, such as: en de")
    push_dataset.add_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Make the dataset, report, and return the exit code."""
    options = arguments().parse_args(argv)
    try:
        counts = make(options)
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    width = max(map(len, counts))
    print("\n".join(f"{name.replace('_', ' '):{width}}  {count:>9,}" for name, count in counts.items()))
    print(f"Written to {options.out}")
    try:
        push_dataset.as_asked(options)
    except ValueError as error:  # the Hub's or ours: it says what to do
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
