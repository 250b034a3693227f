"""Command-line options of the protocol: which interactions count, and how users are divided into splits."""

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
from trsr.dataset.time_units import parts_of_second, with_hyphens
from trsr.errors import DataError

_SHORTEST = {"users": 11, "leave-one-out": 4, "date": 2, "given": 2}  # default of --min-history: items of a user


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the protocol to those of a script."""
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
    """Check the options, and set those that were not given to the protocol's defaults.

    Only a split by users leaves out users with too many items; others use the newest items.

    Raises:
        DataError: If options contradict one another or are not valid.
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
    if options.min_rating is None and options.rating_column != "rating":
        raise DataError("--rating-column names the ratings that --min-rating compares: give that too, or leave it out.")
    if options.min_rating is not None and options.list_column:
        raise DataError("--min-rating needs a row an interaction, with its rating; --list-column has a row a user.")
    if options.k_core < 0:
        raise DataError(f"--k-core is a number of interactions; got {options.k_core}.")
    options.keep_last |= options.split != "users"
    command.apply_defaults(options, _SHORTEST[options.split], 26, {}, least=Division(options.split).min_items)


def columns(options: argparse.Namespace) -> tables.WantedColumns:
    """The columns of the interactions that the protocol needs."""
    wanted: dict[str, tuple[str, Kind]] = {}
    if options.min_rating is not None:
        wanted["rating"] = (options.rating_column, NUMBER)
    if options.split_column and not options.splits:
        wanted["split"] = (options.split_column, NAME)
    return wanted


def apply_k_core(sequences: Sequences, options: argparse.Namespace) -> tuple[Sequences, dict[str, int]]:
    """The sequences that remain after --k-core, and counts; all of them if it was not given."""
    return k_core(sequences, options.k_core) if options.k_core else (sequences, {})


def splits_file(options: argparse.Namespace) -> Table | None:
    """The table of --splits, which names each user's split, if given. Its separator and header need not be those of the log.

    Without a header, the second of two columns is the split. If there are two columns, the other one is the user, whatever its
    name.

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
    columns_of = dict(table.columns or {})
    unnamed = table.layout is not None and bool(table.layout.names)
    split_name = split if split in columns_of or not unnamed else "2"
    if len(columns_of) == 2 and split_name in columns_of and (unnamed or user not in columns_of):
        other = next(name for name in columns_of if name != split_name)
        table = replace(table, columns={user: columns_of[other], split: columns_of[split_name]})
    return table


def division(
    options: argparse.Namespace, log: pa.Table, splits: Table | None, faults: Faults
) -> tuple[Division, dict[str, int], command.Checksums]:
    """How users are divided, with counts and checksums of the files read for it.

    Args:
        log: `user`; `split` if the interactions name it; `time` and `dated` with --time.
        splits: The table that names each user's split, if given; users that it does not name are in no split.

    Raises:
        DataError: If a given split is not valid.
    """
    if options.split == "date":
        # Dates are always in seconds. The unit of numbers is guessed from the size of most of them.
        dated = log["dated"].to_numpy()
        dates = options.split_date.split(",")
        if dated.any():
            dates = map(with_hyphens, dates)
        return Division("date", tuple(dates), parts_of_second(log["time"].to_numpy()[~dated])), {}, {}
    if options.split != "given":
        return Division(options.split), {}, {}
    checksums: command.Checksums = {}
    if splits:
        wanted = {"user": (options.user, ID), "split": (options.split_column or "split", NAME)}
        log, reading = tables.read(splits, wanted, faults)
        checksums[splits.name] = reading.sha256
    user_splits = given_splits(one_chunk(log["user"]), one_chunk(log["split"]))
    return Division("given", given=user_splits), {"users_given_a_split": len(user_splits)}, checksums


def record(options: argparse.Namespace) -> dict[str, Any]:
    """The protocol for the provenance: `split`, and the filters that were given."""
    return {
        "split": options.split,
        **({"dates": options.split_date.split(",")} if options.split_date else {}),
        **({"min_rating": options.min_rating} if options.min_rating is not None else {}),
        **({"k_core": options.k_core} if options.k_core else {}),
    }


def in_words(options: argparse.Namespace) -> str:
    """A phrase that says which interactions count, to append to the one about users; empty if all count."""
    rated = f"; an interaction is a rating of {options.min_rating:g} or more" if options.min_rating is not None else ""
    return rated + (f"; all of the {options.k_core}-core" if options.k_core else "")
