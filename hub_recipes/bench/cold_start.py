"""Hold items out of a dataset, so that those who chose one as their target are asked for an item that nobody met.

python -m bench.cold_start data/scientific --share 0.1 --out data/scientific-cold

Items are drawn at random. They leave all histories; a user whose target is one of them is tested, all others are trained on, less the
validation users, who stay. Nor are they negatives of either, from which a recommender would learn to answer no. So item ids,
popularity and neighbours know nothing of the target, and its text alone speaks for it.
"""

import argparse
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict

from trsr.cli.exits import exit_codes_for_errors
from trsr.dataset import contract
from trsr.errors import DataError, UsageError


def hold_out(source: str, out: Path, share: float, seed: int) -> dict[str, int]:
    """Write a dataset folder in which some items stand in no history and are nobody's target but of test users.

    Args:
        share: Of the items.

    Returns:
        `items` held out, and rows by split.

    Raises:
        UsageError: If the share is not between 0 and 1.
        DataError: If a user has several rows, or a split would be empty.
    """
    if not 0 < share < 1:
        raise UsageError(f"--share is {share}, expected a number between 0 and 1.")
    item_ids = contract.read(source, "items", "train")["item_id"][:]
    random = np.random.default_rng(seed)
    held_out = {item_ids[number] for number in random.permutation(len(item_ids))[: round(share * len(item_ids))]}
    histories = {split: contract.read(source, "histories", split) for split in contract.SPLITS}
    users = Counter(user_id for rows in histories.values() for user_id in rows["user_id"])
    if several := [user_id for user_id, count in users.items() if count > 1]:
        raise DataError(
            f"{source}: {len(several):,} users have several rows, such as {several[0]!r}. The history of one would hold the target of "
            "another: give a dataset with one row a user, split by users (--split users, where it is built)."
        )
    splits: dict[str, list[dict[str, Any]]] = {split: [] for split in contract.SPLITS}
    for split, rows in histories.items():
        for row in rows:
            if row["target"] in held_out:
                splits["test"].append(_without_past(row, held_out))
            else:
                negatives = [item_id for item_id in row["negatives"] if item_id not in held_out]
                new_split = "validation" if split == "validation" else "train"
                splits[new_split].append({**_without_past(row, held_out), "negatives": negatives})
    usable = {split: [row for row in rows if row["history"] and row["negatives"]] for split, rows in splits.items()}
    tables = {
        "items": DatasetDict(train=contract.read(source, "items", "train")),
        "histories": DatasetDict(
            {split: Dataset.from_list(rows, features=histories["train"].features) for split, rows in usable.items()}
        ),
    }
    before = contract.provenance(source)
    about = {"script": "bench.cold_start", "held_out": {"share": share, "seed": seed, "items": len(held_out)}}
    dataset = {**before.values.get("dataset", {}), "name": out.resolve().name}
    body = f"# {dataset['name']}\n\n{len(held_out):,} items are nobody's but the targets of test users."
    contract.write(out, tables, provenance={**before.values, **about, "dataset": dataset}, body=body)
    return {"items": len(held_out), **{split: len(rows) for split, rows in usable.items()}}


def _without_past(row: Mapping[str, Any], held_out: Container[str]) -> dict[str, Any]:
    """The row without items in its history, and without their times."""
    history = row["history"]
    positions = [number for number, item_id in enumerate(history) if item_id not in held_out]
    changed = {"history": [history[number] for number in positions]}
    if times := row.get("timestamps"):  # there may be the target's as well
        changed["timestamps"] = [*(times[number] for number in positions), *times[len(history) :]]
    return {**row, **changed}


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="folder or Hub id with the configs items and histories")
    parser.add_argument("--share", type=float, default=0.1, help="of the items (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="dataset folder to write")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = arguments().parse_args(words)
    with exit_codes_for_errors():
        counts = hold_out(options.dataset, options.out, options.share, options.seed)
        summary = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        print(f"Wrote {options.out}: {summary}")


if __name__ == "__main__":
    main()
