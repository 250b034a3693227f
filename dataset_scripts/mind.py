# /// script
# requires-python = ">=3.11"
# dependencies = ["llm-trsr"]
# ///
"""MIND, small or large -> a dataset folder with the configs `items` and `histories`.

    python dataset_scripts/mind.py MINDlarge_train.zip --out data/mind
    python dataset_scripts/mind.py MINDlarge_train.zip MINDlarge_dev.zip --protocol impressions --out data/mind-time

Give the training part, and for the protocol `impressions` the dev part too: folders or zip archives with behaviors.tsv
and news.tsv. They come from https://msnews.github.io under the Microsoft Research License: for research only.

Protocol `paper`: a user's history is that of the earliest impression which has one; 11 to 26 items as logged; the last is
the target; 20 negatives are drawn from the news that are neither the target nor in the history. News may be read again, so
that a history repeats items and may hold its target: both stay as logged, and such targets are counted.

Protocol `impressions`: the official split by time. `test` is the dev part, `validation` the last day of the training part,
`train` the days before. A row is one clicked news item of one impression: the target; its negatives are what was shown
beside it and not clicked, as many as there are, and the other clicked ones are not among them. A user has as many rows as
clicks, told apart by `impression_id`. Impressions without history, without a click or without anything else are left out.
Histories keep their newest 50 items. --train, --validation and --test take so many rows, by a seeded hash.

News without a title are in no catalogue, history or candidate list. Of rows that are repeated, one stays. TSV cells are
taken as they are: a quote is a character. Same seed, same Parquet files, whatever the order of rows.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trsr.dataset import contract
from trsr.dataset.build import command as building
from trsr.dataset.build import impressions, protocol
from trsr.dataset.build.column_types import are_ids
from trsr.dataset.build.csv_blocks import Layout
from trsr.dataset.build.impressions import ParquetSplit, Sorter
from trsr.dataset.build.scan import Faults, Masks, Reading, find, scan
from trsr.dataset.build.sequences import Sequences, encode, lengths, lists, newest
from trsr.errors import DataError
from trsr.hub import push_dataset, push_options

NEWS = ("item_id", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities")
FIELDS = NEWS[1:5]
BEHAVIORS = ("impression_id", "user_id", "time", "history", "impressions")
TERMS = contract.Terms(
    "mind",
    "other",
    "Microsoft Research License Terms",
    "https://github.com/msnews/MIND/blob/master/MSR%20License_Data.pdf",
    ("en",),
    share_text=False,
)
CARD = """\
# MIND for text-rich sequential recommendation

Made from the Microsoft News Dataset by `dataset_scripts/mind.py` of LLM-TRSR; options, counts and checksums stand in
`provenance.json`.

{protocol}

MIND may be used for research only, and its texts may not be passed on.
"""
_DAY = 86_400


def read_news(options: argparse.Namespace, faults: Faults) -> tuple[pa.Table, dict[str, int], building.Checksums]:
    """The config `items` of all parts, counts and checksums."""

    def work(table: pa.Table) -> tuple[tuple[pa.Table, int], Masks]:
        broken = ~are_ids(contract.one_chunk(table["item_id"]))
        named = [pc.equal(pc.utf8_lower(table[name]), name) for name in ("category", "title")]
        header = ~broken & contract.one_chunk(pc.and_(*named)).to_numpy(zero_copy_only=False)
        good = table.filter(pa.array(~broken & ~header))
        return building.items(good, FIELDS, shown), {"no news id": broken, "a header, which MIND has none of": header}

    shown = building.shown_fields(options.text_fields, FIELDS)
    parts, sums, counts, total = [], {}, {"items_broken": 0}, Reading()
    for where, label in building.unique_names(options.sources).items():
        source, reading = find(where, "news.tsv", label), Reading()
        parts += scan(source, Layout("\t", False, NEWS), NEWS[:5], work, faults, reading, workers=options.workers)
        sums[source.name] = reading.sha256
        counts["items_broken"] += reading.broken
        total.rows, total.broken = total.rows + reading.rows, total.broken + reading.broken
    table = building.concat((part for part, _ in parts), "news.tsv", total, "nothing else")
    items, found = building.deduplicate(table, ("title", "text"))
    counts["items_cells_unescaped"] = sum(count for _, count in parts)
    return items, counts | found, sums


def checked(table: pa.Table) -> tuple[pa.Table, Masks]:
    """Behaviours with impressions and times as numbers, single spaces in lists, and which rows are broken.

    A time is seconds since 1970, its time zone as logged.
    """
    text = {name: contract.one_chunk(table[name]) for name in table.column_names}
    for name in ("history", "impressions"):
        if name in text:
            text[name] = pc.utf8_trim_whitespace(text[name])
            if pc.any(pc.match_substring(text[name], "  ")).as_py():
                text[name] = pc.replace_substring_regex(text[name], " +", " ")
    text["time"] = pc.strptime(text["time"], "%m/%d/%Y %I:%M:%S %p", "s", error_is_null=True).cast(pa.int64())
    numbered = building.matches(text["impression_id"], "^[0-9]{1,18}$")
    named = are_ids(text["user_id"])
    timed = text["time"].is_valid().to_numpy(zero_copy_only=False)
    good = numbered & named & timed
    made = pa.table(text).filter(pa.array(good))
    made = made.set_column(0, "impression_id", made["impression_id"].cast(pa.int64()))
    return made, {"no impression id": ~numbered, "no user id": numbered & ~named, "no time": numbered & named & ~timed}


def read_users(
    options: argparse.Namespace, faults: Faults, ids: pa.Array
) -> tuple[Sequences, dict[str, int], building.Checksums]:
    """What users met that fit as logged; counts and checksums."""

    def fits(logged: np.ndarray) -> np.ndarray:
        return (logged >= options.min_history) & (options.keep_last | (logged <= options.max_history))

    def work(table: pa.Table) -> tuple[pa.Table, Masks]:
        table, broken = checked(table)
        history = contract.one_chunk(table["history"])
        logged = np.where(building.matches(history, "^$"), 0, pc.count_substring(history, " ").to_numpy() + 1)
        made = table.select(["user_id", "time", "impression_id"]).append_column("logged", pa.array(logged))
        # Histories that do not fit are dropped: this is all that stays of a block.
        made = made.append_column("history", pc.if_else(pa.array(fits(logged)), history, ""))
        return made.filter(pa.array(logged > 0)), broken

    [(folder, label)] = building.unique_names(options.sources).items()
    source, reading = find(folder, "behaviors.tsv", label), Reading()
    layout = Layout("\t", False, BEHAVIORS)
    parts = scan(source, layout, BEHAVIORS[:4], work, faults, reading, workers=options.workers, limit=options.limit)
    table = building.concat(parts, source.name, reading, "without a history")
    first = earliest(table)
    logged = table["logged"].to_numpy()[first]
    building.suggest_min_history(logged, options.min_history, faults)
    mask = np.zeros(len(table), dtype=bool)
    mask[first[fits(logged)]] = True
    kept = table.select(["user_id", "history"]).filter(pa.array(mask)).combine_chunks()
    # Texts above 2 GB come in several chunks.
    items = [encode(pc.split_pattern(some, " "), ids) for some in kept["history"].chunks]
    indices = contract.one_chunk(pa.chunked_array(items, pa.list_(pa.int32())))
    found = Sequences(contract.one_chunk(kept["user_id"]), indices, ids)
    counts = {
        "behaviors_read": reading.rows,
        "behaviors_broken": reading.broken,
        "behaviors_without_history": reading.rows - reading.broken - len(table),
        "behaviors_of_users_met_before": len(table) - len(first),
        "users_read": len(first),
        "users_dropped_short": int((logged < options.min_history).sum()),
        "users_dropped_long": 0 if options.keep_last else int((logged > options.max_history).sum()),
        "unknown_items_left_out": int(logged[fits(logged)].sum()) - len(found.items.values),
    }
    return found, counts, {source.name: reading.sha256}


def earliest(table: pa.Table) -> np.ndarray:
    """The row of each user's first impression; where several are first, the one with the least history."""
    user = pc.dictionary_encode(contract.one_chunk(table["user_id"])).indices.to_numpy()
    keys = (user, table["time"].to_numpy(), table["impression_id"].to_numpy())
    order = np.lexsort(keys[::-1])
    mine = user[order]
    starts = np.flatnonzero(np.append(True, mine[1:] != mine[:-1])) if len(mine) else mine
    first = order[starts]
    tied = np.logical_and.reduce([key[order][1:] == key[order][:-1] for key in keys])
    for row_in_order in np.flatnonzero(tied):
        number = np.searchsorted(starts, row_in_order, "right") - 1
        if all(key[order[row_in_order]] == key[first[number]] for key in keys):
            rows = [first[number], order[row_in_order + 1]]
            first[number] = min(rows, key=lambda row: tuple(table.slice(row, 1).to_pylist()[0].values()))
    return first


def read_impressions(
    options: argparse.Namespace, faults: Faults, ids: pa.Array, where: Path, label: str, part: str, sorter: Sorter
) -> tuple[dict[str, int], building.Checksums]:
    """Put the impressions of a part into `sorter`. Returns counts and checksums.

    Args:
        where: Folder or archive of the part.
        label: Its name for messages and provenance.
    """

    def work(table: pa.Table) -> tuple[pa.Table, Masks]:
        whole, masks = checked(table)
        clicked, others, unlabelled = labelled(contract.one_chunk(whole["impressions"]), ids)
        good = ~np.logical_or.reduce(list(masks.values()))
        masks["a candidate ends neither with -0 nor with -1"] = mask = np.zeros(len(table), dtype=bool)
        mask[np.flatnonzero(good)[unlabelled]] = True
        history = encode(pc.split_pattern(contract.one_chunk(whole["history"]), " "), ids)
        columns = {
            "key": impressions.keys(whole["impression_id"], whole["user_id"], options.seed),
            "impression_id": whole["impression_id"],
            "day": pa.array(whole["time"].to_numpy() // _DAY, pa.int32()),
            "user_id": whole["user_id"],
            "history": newest(history, options.max_history),
            "clicked": clicked,
            "others": others,
        }
        return pa.table(columns, schema=impressions.SCHEMA).filter(pa.array(~unlabelled)), masks

    source, reading = find(where, "behaviors.tsv", label), Reading()
    layout = Layout("\t", False, BEHAVIORS)
    least = {"history": options.min_history, "clicked": 1, "others": 1}
    without = dict.fromkeys(least, 0)
    parts = scan(source, layout, BEHAVIORS, work, faults, reading, workers=options.workers, limit=options.limit)
    for table in parts:
        for name, count in least.items():
            kept = table.filter(pc.greater_equal(pc.list_value_length(table[name]), count))
            without[name] += len(table) - len(kept)
            table = kept
        sorter.add(table)
    repeated = sorter.repeated()
    counts = {
        "read": reading.rows,
        "broken": reading.broken,
        "without_history": without["history"],
        "without_click": without["clicked"],
        "without_others": without["others"],
        "repeated": repeated,
        "kept": sorter.rows - repeated,
    }
    return {f"{part}_impressions_{name}": count for name, count in counts.items()}, {source.name: reading.sha256}


def labelled(texts: pa.Array, ids: pa.Array) -> tuple[pa.ListArray, pa.ListArray, np.ndarray]:
    """What each impression showed, as indices in `ids`, each item once.

    Returns:
        Items that were clicked, items that were not, and which impressions have an item that does not say.
    """
    shown = pc.split_pattern(texts, " ")
    flat = shown.values
    owner = np.repeat(np.arange(len(shown)), lengths(shown))
    click = pc.ends_with(flat, "-1").to_numpy(zero_copy_only=False)
    says = click | pc.ends_with(flat, "-0").to_numpy(zero_copy_only=False)
    unlabelled = np.zeros(len(shown), dtype=bool)
    unlabelled[owner[~says]] = True
    unlabelled &= ~building.matches(texts, "^$")
    indices = pc.index_in(pc.utf8_slice_codeunits(flat, 0, -2), value_set=ids)
    known = indices.is_valid().to_numpy(zero_copy_only=False)
    owner, click, indices = owner[known], click[known], pc.drop_null(indices).to_numpy()
    pairs = owner * np.int64(len(ids)) + indices
    found = np.sort(pairs)
    if (found[1:] == found[:-1]).any():
        # Clicks first: what was shown twice and clicked once was clicked.
        order = np.argsort(~click, kind="stable")
        stays = np.sort(order[np.unique(pairs[order], return_index=True)[1]])
        owner, indices, click = owner[stays], indices[stays], click[stays]
    clicked, others = (
        lists(np.bincount(owner[mask], minlength=len(shown)), pa.array(indices[mask])) for mask in (click, ~click)
    )
    return clicked, others, unlabelled


def by_time(
    options: argparse.Namespace, faults: Faults, ids: pa.Array, folder: Path
) -> tuple[Mapping[str, ParquetSplit], dict[str, int], building.Checksums]:
    """The splits of `histories` in the protocol `impressions`, counts and checksums.

    Args:
        folder: Takes what is too large for the memory, and the splits.
    """
    counts: dict[str, int] = {}
    sums: building.Checksums = {}
    sorters = {}
    labels = building.unique_names(options.sources)
    for part, where in zip(("train", "dev"), options.sources, strict=True):
        (folder / part).mkdir()
        sorters[part] = Sorter(folder / part)
        found, sum_ = read_impressions(options, faults, ids, where, labels[where], part, sorters[part])
        counts |= found
        faults.counts_of_finished_steps |= found
        sums |= sum_
    days = sorters["train"].days
    if len(days) < 2:
        raise DataError(
            f"The training part has impressions of {len(days)} days; expected 2 or more, the last to validate."
        )
    if sorters["dev"].rows == 0:
        raise DataError(
            "The dev part has no impression that can be used. MIND's test part has no clicks: give the dev part."
        )
    ordered = {
        "train": sorters["train"].read(days - {max(days)}),
        "validation": sorters["train"].read({max(days)}),
        "test": sorters["dev"].read(sorters["dev"].days),
    }
    made = {}
    for split, parts in ordered.items():
        rows = (impressions.histories(table, ids) for table in parts)
        made[split] = ParquetSplit(folder / f"{split}.parquet", impressions.first_rows(rows, getattr(options, split)))
        counts[f"rows_{split}"] = len(made[split])
    return made, counts, sums


def make(options: argparse.Namespace, faults: Faults) -> dict[str, int]:
    """Read, keep, divide and write. Returns the counts."""
    wanted = {"paper": 1, "impressions": 2}[options.protocol]
    if len(options.sources) != wanted:
        parts = "one part, the training part" if wanted == 1 else "two parts, the training part and the dev part"
        raise DataError(f"The protocol {options.protocol} takes {parts}; got {len(options.sources)}.")
    if len(set(map(os.path.abspath, options.sources))) < wanted:
        raise DataError(f"{options.sources[0]} is given twice; give the training part and the dev part.")
    if options.protocol == "paper":
        building.apply_defaults(options, 11, 26, building.PAPER)
    else:  # the target is no item of the history that is logged
        if any(getattr(options, name) != value for name, value in building.DRAWN.items()):
            raise DataError(
                "The protocol impressions takes negatives and histories as they were logged: leave out --negatives, --negative-sampling "
                "and --keep-last."
            )
        building.apply_defaults(options, 1, 50, {}, least=1)
        vars(options).update(dict.fromkeys(building.DRAWN))  # so that the provenance records none of them
    news, counts, sums = read_news(options, faults)
    faults.counts_of_finished_steps |= counts
    ids = contract.one_chunk(news["item_id"])
    items = {"train": building.dataset(news)}
    options.out.resolve().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".mind-", dir=options.out.resolve().parent) as folder:
        if options.protocol == "paper":
            found, more, sums_ = read_users(options, faults, ids)
            faults.counts_of_finished_steps |= more
            histories, more, text = building.make_histories(found, options, more)
            sampling = {"negatives": options.negatives, "sampling": options.negative_sampling, "seed": options.seed}
            text = protocol.describe({"items": items, "histories": histories}, users=text, **sampling)
        else:
            histories, more, sums_ = by_time(options, faults, ids, Path(folder))
            sampling = {"protocol": "impressions", "seed": options.seed}
            text = impressions.describe({"items": items, "histories": histories}, options.max_history, options.seed)
        building.write(
            options,
            {"items": items, "histories": histories},
            script="mind.py",
            terms=TERMS,
            sources=sums | sums_,
            sampling=sampling,
            protocol={"split": "users" if options.protocol == "paper" else "impressions"},
            counts=counts | more,
            body=CARD.format(protocol=text),
        )
    return counts | more


def main(argv: Sequence[str] | None = None) -> int:
    """Make the dataset, report, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path, metavar="PART", help="folder or zip: training part, dev part")
    parser.add_argument("--protocol", choices=("paper", "impressions"), default="paper", help="(%(default)s)")
    impressed = ("; impressions: 1 beside the target", "; impressions: newest 50", "; impressions: all")
    building.add_options(
        parser,
        fields="category,subcategory,title",
        bounds=(f"11{impressed[0]}", f"26{impressed[1]}"),
        sizes=(f"10000{impressed[2]}", f"1000{impressed[2]}", f"1000{impressed[2]}"),
    )
    push_options.add(parser)
    return building.command(parser, make, argv, then=push_dataset.push_if_requested, name=TERMS.name)


if __name__ == "__main__":
    sys.exit(main())
