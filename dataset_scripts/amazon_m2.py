# /// script
# requires-python = ">=3.11"
# dependencies = ["llm-trsr"]
# ///
"""Amazon-M2 -> a dataset folder with the configs `items` and `histories`.

    python dataset_scripts/amazon_m2.py amazon-m2/ --out data/amazon-m2
    python dataset_scripts/amazon_m2.py amazon-m2.zip --locale DE --text-fields title,brand --out data/amazon-m2-de

Give the folder or the zip archive with sessions_train.csv and products_train.csv, from
https://www.aicrowd.com/challenges/amazon-kdd-cup-23-multilingual-recommendation-challenge.

Protocol `paper`: sessions of one locale with 10 to 25 items before the next one, which is the target; 20 negatives are
drawn from the products of the locale that are neither the target nor in the session. Sessions have no ids, so that a user
is a session, named by a hash of what is in it; sessions that are equal are one. Sessions repeat items, and may hold their
target: both stay as logged, and such targets are counted.

Products without a title are in no catalogue, session or candidate list. Of products that are repeated, one stays. Same
seed, same Parquet files, whatever the order of rows.
"""

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trsr.dataset import contract
from trsr.dataset.build import command as building
from trsr.dataset.build import id_lists, protocol
from trsr.dataset.build.column_types import are_ids
from trsr.dataset.build.csv_blocks import Layout
from trsr.dataset.build.scan import Faults, Masks, Reading, find, scan
from trsr.dataset.build.sequences import Sequences, decode, encode, lists
from trsr.hub import push_dataset, push_options

CSV = Layout(",", True)
# The paper calls the description by its full name.
FIELDS = ("title", "price", "brand", "color", "size", "model", "material", "author", "description")
NAME = "amazon-m2"
LANGUAGES = {"UK": "en", "DE": "de", "JP": "ja", "ES": "es", "FR": "fr", "IT": "it"}
# How numpy prints an array of strings, and Python a list; a quote within one would be a fault.
PRINTED = r"^\s*\[\s*('[^'\s]+'((\s+|\s*,\s*)'[^'\s]+')*)?\s*\]\s*$"
CARD = """\
# Amazon-M2 ({locale}) for text-rich sequential recommendation

Made from Amazon-M2 by `dataset_scripts/amazon_m2.py` of LLM-TRSR; options, counts and checksums stand in
`provenance.json`.

{protocol}

A user is a session, named by a hash of its items. The licence of the source data applies to everything here.
"""


def read_products(options: argparse.Namespace, faults: Faults) -> tuple[pa.Table, dict[str, int], building.Checksums]:
    """The config `items` of the locale, counts and checksums."""

    def work(table: pa.Table) -> tuple[tuple[pa.Table, int], Masks]:
        broken = ~are_ids(contract.one_chunk(table["id"]))
        here = pc.equal(table["locale"], options.locale)
        good = table.filter(pc.and_(here, pa.array(~broken))).rename_columns(columns)
        return building.items(good, FIELDS, shown), {"no product id": broken}

    shown = building.shown_fields(options.text_fields, FIELDS)
    source, reading = find(options.source, "products_train.csv"), Reading()
    wanted, columns = ["id", "locale", *FIELDS[:-1], "desc"], ["item_id", "locale", *FIELDS]
    parts = list(scan(source, CSV, wanted, work, faults, reading, workers=options.workers))
    table = building.concat((part for part, _ in parts), source.name, reading, f"not of the locale {options.locale}")
    items, counts = building.deduplicate(table, ("title", "text"))
    counts = {"products_cells_unescaped": sum(count for _, count in parts)} | counts
    elsewhere = reading.rows - reading.broken - len(table)
    before = {"products_read": reading.rows, "products_broken": reading.broken, "products_of_other_locales": elsewhere}
    return items, before | counts, {source.name: reading.sha256}


def _printed(texts: pa.Array) -> pa.Array:
    """Lists between brackets in other spellings as numpy prints them; any other text stays as it is."""
    made = []
    for text in texts.to_pylist():
        ids = id_lists.split(text) if id_lists.bracketed(text) else None
        made.append(text if ids is None else f"[{' '.join(map(repr, map(str, ids)))}]")
    return pa.array(made, pa.string())


def printed_ids(texts: pa.Array) -> pa.ListArray:
    """Lists of ids as numpy prints them: `['B0A' 'B0B']`, over several lines when long; commas may stand between."""
    # Between quotes stands what is no id and an id in turn, the former first.
    pieces = pc.split_pattern(texts, "'")
    lengths = np.diff(pieces.offsets.to_numpy())
    position = np.arange(len(pieces.values)) - np.repeat(pieces.offsets.to_numpy()[:-1], lengths)
    return lists(lengths // 2, pieces.values.filter(pa.array(position % 2 == 1)))


def name_session(items: str) -> str:
    """What a session is called: S and a hash of its items, the target last, with spaces between them."""
    return f"S{hashlib.sha256(items.encode()).hexdigest()[:16]}"


def read_sessions(
    options: argparse.Namespace, faults: Faults, ids: pa.Array
) -> tuple[Sequences, dict[str, int], building.Checksums]:
    """The sessions that fit as logged, equal ones once; counts and checksums."""

    def work(table: pa.Table) -> tuple[pa.Table, Masks]:
        before, after = contract.one_chunk(table["prev_items"]), contract.one_chunk(table["next_item"])
        here = pc.equal(contract.one_chunk(table["locale"]), options.locale).to_numpy(zero_copy_only=False)
        unprinted = ~building.matches(before, PRINTED)
        if unprinted.any():
            before = pc.replace_with_mask(before, pa.array(unprinted), _printed(before.filter(pa.array(unprinted))))
            unprinted = ~building.matches(before, PRINTED)
        quotes = pc.count_substring(before, "'").to_numpy()
        unnamed = ~unprinted & ~are_ids(after)
        good = here & ~unprinted & ~unnamed
        logged = quotes // 2 + 1  # the target too
        short = good & (logged < options.min_history)
        long = good & ~short & ((logged > options.max_history) & (not options.keep_last))
        fits = pa.array(good & ~short & ~long)
        made = pa.table({"before": before.filter(fits), "after": after.filter(fits)})
        counts = np.array([good.sum(), short.sum(), long.sum()])
        return (made, counts, logged[short]), {
            "prev_items is no printed list": unprinted,
            "no next_item": ~unprinted & unnamed,
        }

    source, reading = find(options.source, "sessions_train.csv"), Reading()
    wanted = ["prev_items", "next_item", "locale"]
    tables, totals, few = [], np.zeros(3, dtype=int), [np.array([], int)]
    for table, counts, lengths in scan(
        source, CSV, wanted, work, faults, reading, workers=options.workers, limit=options.limit
    ):
        tables.append(table)
        totals += counts
        few.append(lengths)
    building.suggest_min_history(np.concatenate(few), options.min_history, faults)
    bounds = f"of {options.min_history} to {options.max_history} items"
    table = building.concat(tables, source.name, reading, f"not of the locale {options.locale}, or not {bounds}")
    before = pc.binary_join(printed_ids(contract.one_chunk(table["before"])), " ")
    texts = pc.unique(pc.binary_join_element_wise(before, contract.one_chunk(table["after"]), " "))
    logged = pc.split_pattern(texts, " ")
    left = encode(logged, ids)
    unknown = len(logged.values) - len(left.values)
    if unknown:  # without unknown items, others are equal
        texts = pc.unique(pc.binary_join(decode(left, ids), " "))
        left = encode(pc.split_pattern(texts, " "), ids)
    users = pa.array(map(name_session, texts.to_pylist()), pa.string())
    sessions = Sequences(users, left, ids)
    read, short, long = totals.tolist()
    return (
        sessions,
        {
            "sessions_read": reading.rows,
            "sessions_broken": reading.broken,
            "sessions_of_other_locales": reading.rows - reading.broken - read,
            "sessions_repeated": len(table) - len(sessions),
            "users_dropped_short": short,
            "users_dropped_long": long,
            "unknown_items_left_out": unknown,
        },
        {source.name: reading.sha256},
    )


def make(options: argparse.Namespace, faults: Faults) -> dict[str, int]:
    """Read, keep, divide and write. Returns the counts."""
    building.apply_defaults(options, 11, 26, building.PAPER)
    products, counts, sums = read_products(options, faults)
    faults.counts_of_finished_steps |= counts
    sessions, found, more = read_sessions(options, faults, contract.one_chunk(products["item_id"]))
    faults.counts_of_finished_steps |= found
    histories, found, users = building.make_histories(sessions, options, found)
    tables = {"items": {"train": building.dataset(products)}, "histories": histories}
    sampling = {"negatives": options.negatives, "sampling": options.negative_sampling, "seed": options.seed}
    counts |= found
    building.write(
        options,
        tables,
        script="amazon_m2.py",
        terms=contract.Terms(NAME, "apache-2.0", language=(LANGUAGES[options.locale],)),
        sources=sums | more,
        sampling=sampling,
        protocol={"split": "users"},
        counts=counts,
        body=CARD.format(
            locale=options.locale,
            protocol=protocol.describe(tables, users=users, **sampling),
        ),
    )
    return counts


def main(argv: Sequence[str] | None = None) -> int:
    """Make the dataset, report, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="DATA", help="folder or zip")
    parser.add_argument("--locale", choices=sorted(LANGUAGES), default="UK", help="(%(default)s)")
    building.add_options(parser, fields=",".join(FIELDS))
    push_options.add(parser)
    return building.command(parser, make, argv, then=push_dataset.push_if_requested, name=NAME)


if __name__ == "__main__":
    sys.exit(main())
