# /// script
# requires-python = ">=3.11"
# dependencies = ["llm-trsr"]
# ///
"""Your own tables -> a dataset folder with the configs `items` and `histories`.

    python dataset_scripts/tables.py --items books.csv --interactions ratings.csv --out my-books \\
        --text-fields title,author,genres --time timestamp

Reads CSV, TSV, JSONL and Parquet, plain or .gz: one row an item, and one row an interaction or, with --list-column, one
row a user. TSV cells are taken as they are, without quoting. A broken row, or one in which an id, a time or a list is none,
is left out, counted and named; --strict stops at it. Of items with one id, one stays. What is kept, divided and drawn is
`trsr.dataset.build.protocol`'s: by default as in the paper, by option leave-one-out in time, by a date or as given.

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

The same as RecBole and SASRec have it, ratings of 4 and 5 only:

    python dataset_scripts/tables.py --items movies-with-plots.csv --interactions ratings.csv --out data/movies-loo \\
        --item-id movieId --user userId --item movieId --text-fields title,genres,plot --time timestamp --drop-unknown \\
        --min-rating 4 --k-core 5 --split leave-one-out

A shop's own export, a row a purchase:

    python dataset_scripts/tables.py --items products.parquet --interactions orders.parquet --out data/shop \\
        --item-id sku --title name --text-fields name,brand,category --user customer --item sku --time ordered_at
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from trsr.core.history import ID_FIELDS
from trsr.dataset import contract
from trsr.dataset.build import column_types, protocol, protocol_options
from trsr.dataset.build import command as building
from trsr.dataset.build import tables as tabular
from trsr.dataset.build.interactions import in_order
from trsr.dataset.build.item_text import sentences
from trsr.dataset.build.scan import Faults, Reading
from trsr.dataset.build.sequences import Sequences
from trsr.dataset.build.splits import Division
from trsr.errors import DataError
from trsr.hub import push_dataset

CARD = """\
# Histories for text-rich sequential recommendation

Made from `{items}` and `{interactions}` by `dataset_scripts/tables.py` of LLM-TRSR; options, counts and checksums stand
in `provenance.json`.

{protocol}

The licence of the source data applies to everything here.
"""


def read_items(options: argparse.Namespace, faults: Faults) -> tuple[pa.Table, dict[str, int], building.Sums]:
    """The config `items`, counts and the checksum."""
    form = tabular.format_of(options.items, options.items_format)
    if options.text_fields:
        fields = [name.strip() for name in options.text_fields.split(",")]
    else:
        known = tabular.columns(options.items, form)
        fields = [name for name in known if name and not _is_id(name, options) and not name.startswith("__index_")]
    if leaks := [name for name in fields if _is_id(name, options)]:
        raise DataError(f"{', '.join(sorted(leaks))}: an id is no text, it would tell the model which item it is.")
    whole, short = column_types.text(words=0), column_types.text(options.field_words, options.field_values)
    wanted = {f"field {name}": (name, whole if name == "text" else short) for name in fields}
    wanted |= {"item_id": (options.item_id, column_types.ID), "title": (options.title, whole)}
    table, reading = tabular.read(options.items, form, wanted, faults, workers=options.workers)
    texts = {name: contract.one_chunk(table[f"field {name}"]) for name in fields}
    columns = {"item_id": table["item_id"], "title": table["title"], "text": sentences(texts)}
    found = pa.table(columns | {name: column for name, column in texts.items() if name not in columns})
    if not options.drop_unknown and len(empty := found.filter(pc.equal(found["text"], ""))):
        raise DataError(
            f"Item {empty['item_id'][0].as_py()!r} has no text in {', '.join(fields)}. Fill it, or give --drop-unknown."
        )
    items, counts = building.deduplicate(found, ("text",))
    return items, _counted("items", reading) | counts, {options.items.name: reading.sha256}


def _is_id(name: str, options: argparse.Namespace) -> bool:
    return name == options.item_id or name.lower() in ID_FIELDS


def _counted(what: str, reading: Reading) -> dict[str, int]:
    return {f"{what}_rows_read": reading.rows, f"{what}_rows_broken": reading.broken}


def read_log(
    options: argparse.Namespace, faults: Faults, ids: pa.Array
) -> tuple[Sequences, Division, dict[str, int], building.Sums]:
    """What users met, how they are divided, counts and checksums."""
    form = tabular.format_of(options.interactions, options.interactions_format)
    wanted = {"user": (options.user, column_types.ID), **protocol_options.columns(options)}
    if options.list_column:
        wanted["items"] = (options.list_column, column_types.IDS)
    else:
        wanted["item"] = (options.item, column_types.ID)
    if options.time:
        wanted["time"] = (options.time, column_types.MOMENT)
    table, reading = tabular.read(
        options.interactions, form, wanted, faults, workers=options.workers, limit=options.limit
    )
    found, counts = in_order(table, ids, drop=options.drop_unknown, min_rating=options.min_rating)
    counts |= {"users_read": len(found)}
    found, outside = protocol_options.core(found, options)
    division, given, sums = protocol_options.division(options, table, faults)
    counts = _counted("log", reading) | counts | outside | given
    return found, division, counts, {options.interactions.name: reading.sha256, **sums}


def make(options: argparse.Namespace, faults: Faults) -> dict[str, int]:
    """Read, keep, divide, draw and write. Returns the counts."""
    protocol_options.apply_defaults(options)
    items, counts, sums = read_items(options, faults)
    found, division, more, sums_ = read_log(options, faults, contract.one_chunk(items["item_id"]))
    if options.k_core:
        items = items.filter(pc.is_in(items["item_id"], value_set=found.catalogue))
    histories, more, users = building.make_histories(found, options, more, division)
    users += protocol_options.in_words(options)
    tables = {"items": {"train": building.dataset(items)}, "histories": histories}
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
            items=options.items.name,
            interactions=options.interactions.name,
            protocol=protocol.describe(tables, users=users, division=division, **sampling),
        ),
    )
    return counts | more


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    kinds = sorted(set(tabular.FORMATS.values()))
    add("--items", type=Path, required=True, metavar="FILE", help="one row an item")
    add("--interactions", type=Path, required=True, metavar="FILE", help="one row an interaction, or a user")
    bounds = ("11; leave-one-out: 4; other splits: 2", "26; of a row")
    building.add_options(parser, fields=None, bounds=bounds, sizes=("all others", "a twelfth", "a twelfth"))
    protocol_options.add_options(parser)
    add("--items-format", choices=kinds, help="default: by the file's name")
    add("--interactions-format", choices=kinds, help="default: by the file's name")
    add("--item-id", default="item_id", help="column of the items (%(default)s)")
    add("--title", default="title", help="column of the items (%(default)s)")
    add("--field-words", type=int, default=40, metavar="N", help="words a field keeps; 0 = all (%(default)s)")
    add("--field-values", type=int, default=0, metavar="N", help="values a list keeps; 0 = all (%(default)s)")
    add("--user", default="user_id", help="column of the interactions (%(default)s)")
    add("--item", default="item_id", help="column of the interactions (%(default)s)")
    order = parser.add_mutually_exclusive_group()
    order.add_argument("--time", help="column that sorts a user's rows; default: their order in the file")
    order.add_argument("--list-column", help="column with a user's items, oldest first: a row is then a user")
    add("--drop-unknown", action="store_true", help="drop interactions with items that have no row or text")
    add("--name", help="short name of the data, which releases are called after; default: the folder's")
    add("--license", default="other", help="of the data, an identifier that the Hub knows (%(default)s)")
    add("--license-name", help="with --license other: what it is called")
    add("--license-link", metavar="URL", help="with --license other: where it stands")
    add("--language", nargs="+", default=[], metavar="CODE", help="ISO 639 codes of the texts, such as: en de")
    push_dataset.add_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Make the dataset, report, and return the exit code."""
    return building.command(arguments(), make, argv, then=push_dataset.push_if_requested)


if __name__ == "__main__":
    sys.exit(main())
