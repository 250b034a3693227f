"""The options of a log's protocol: which interactions count, and how users are divided."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from trsr.dataset.build import command, tables
from trsr.dataset.build.column_types import ID, NAME, NUMBER, Kind
from trsr.dataset.build.k_core import k_core
from trsr.dataset.build.scan import Faults
from trsr.dataset.build.sequences import Sequences
from trsr.dataset.build.splits import NAMES, Division, given_splits
from trsr.dataset.build.table_files import Table, format_of, text_table
from trsr.dataset.contract import one_chunk
from trsr.dataset.time_units import parts_of_second
from trsr.errors import DataError

_SHORTEST = {"users": 11, "leave-one-out": 4, "date": 2, "given": 2}  # items of a user


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add them to a script's options."""
    add = parser.add_argument_group("protocol").add_argument
    add("--min-rating", type=float, metavar="X", help="interactions rated lower do not count, nor are they negatives")
    add("--rating-column", default="rating", metavar="NAME", help="column of the interactions (%(default)s)")
    add("--k-core", type=int, default=0, metavar="N", help="users and items with at least N interactions, repeatedly")
    add(
        "--split",
        choices=("users", "leave-one-out"),
        default="users",
        help="users: each in one split; leave-one-out: a user's last item is test, the one before it validation, the one "
        "before that train (%(default)s)",
    )
    add(
        "--split-date",
        metavar="DATE[,DATE]",
        help="targets from that time on are test; from the first of two until the second, validation",
    )
    add("--splits", type=Path, metavar="FILE", help="a table that names each user's split")
    add("--split-column", metavar="NAME", help="column with the split: of --splits (split), or of the interactions")


def apply_defaults(options: argparse.Namespace) -> None:
    """Check the options, and put the protocol's defaults where one was not given.

    Splits other than by users leave nobody out for having many items: the newest are used.

    Raises:
        DataError: If options contradict one another or make no sense.
    """
    chosen = {
        "--split leave-one-out": options.split != "users",
        "--split-date": options.split_date,
        "--splits or --split-column": options.splits or options.split_column,
    }
    if sum(map(bool, chosen.values())) > 1:
        raise DataError(f"Users are divided in one way; got {', '.join(name for name in chosen if chosen[name])}.")
    if options.split_date:
        options.split = "date"
        if not options.time:
            raise DataError("--split-date needs the time of each interaction: give --time.")
    elif options.splits or options.split_column:
        options.split = "given"
    if options.min_rating is not None and options.list_column:
        raise DataError("--min-rating needs a row an interaction, with its rating; --list-column has a row a user.")
    if options.k_core < 0:
        raise DataError(f"--k-core is a number of interactions; got {options.k_core}.")
    options.keep_last |= options.split != "users"
    command.apply_defaults(options, _SHORTEST[options.split], 26, {})


def columns(options: argparse.Namespace) -> tables.Wanted:
    """What the protocol reads of the interactions."""
    wanted: dict[str, tuple[str, Kind]] = {}
    if options.min_rating is not None:
        wanted["rating"] = (options.rating_column, NUMBER)
    if options.split_column and not options.splits:
        wanted["split"] = (options.split_column, NAME)
    return wanted


def core(sequences: Sequences, options: argparse.Namespace) -> tuple[Sequences, dict[str, int]]:
    """What --k-core leaves, and counts; everything where it was not given."""
    return k_core(sequences, options.k_core) if options.k_core else (sequences, {})


def splits_file(options: argparse.Namespace) -> Table | None:
    """The file that names each user's split, if there is one: with a separator and a header as it has them, not as the log.

    Of two columns without a header, the second is the split. A column beside that of the split is the user, whatever it
    is called.

    Raises:
        DataError: If there is no such file, or it cannot be read.
    """
    if (path := options.splits) is None:
        return None
    user, split = options.user, options.split_column or "split"
    if (form := format_of(path, sep=",")) == "parquet":
        table = tables.parquet_table(path)
    else:
        table = text_table(path, form, encoding=options.encoding, key=user, data=NAMES)
    table = replace(table, hint=f"A header names {user!r}, or --user, and {split!r}, or --split-column.")
    known = dict(table.columns or {})
    unnamed = table.layout is not None and bool(table.layout.names)
    named = split if split in known or not unnamed else "2"
    if len(known) == 2 and named in known and (unnamed or user not in known):
        other = next(name for name in known if name != named)
        table = replace(table, columns={user: known[other], split: known[named]})
    return table


def division(
    options: argparse.Namespace, log: pa.Table, splits: Table | None, faults: Faults
) -> tuple[Division, dict[str, int], command.Sums]:
    """How users are divided, counts and checksums.

    Args:
        log: `user` and, where the interactions name the split, `split`; with --time, `time` and `dated`.
        splits: The file that names each user's split, if there is one; a user without one is in none.

    Raises:
        DataError: If splits are given, and one is none.
    """
    if options.split == "date":
        # Dates are in seconds, however far away one is; what numbers are in, most of them tell.
        numbers = log["time"].to_numpy()[~log["dated"].to_numpy()]
        return Division("date", tuple(options.split_date.split(",")), parts_of_second(numbers)), {}, {}
    if options.split != "given":
        return Division(options.split), {}, {}
    sums: command.Sums = {}
    if splits:
        wanted = {"user": (options.user, ID), "split": (options.split_column or "split", NAME)}
        log, reading = tables.read(splits, wanted, faults)
        sums[splits.name] = reading.sha256
    given = given_splits(one_chunk(log["user"]), one_chunk(log["split"]))
    return Division("given", given=given), {"users_given_a_split": len(given)}, sums


def record(options: argparse.Namespace) -> dict[str, Any]:
    """The protocol for the provenance: `split`, and what else was asked for."""
    return {
        "split": options.split,
        **({"dates": options.split_date.split(",")} if options.split_date else {}),
        **({"min_rating": options.min_rating} if options.min_rating is not None else {}),
        **({"k_core": options.k_core} if options.k_core else {}),
    }


def in_words(options: argparse.Namespace) -> str:
    """Which interactions count, to follow which users do; empty where all count."""
    rated = f"; an interaction is a rating of {options.min_rating:g} or more" if options.min_rating is not None else ""
    return rated + (f"; all of the {options.k_core}-core" if options.k_core else "")
