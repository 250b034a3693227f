# /// script
# requires-python = ">=3.11"
# dependencies = ["llm-trsr"]
# ///
"""The synthetic sample -> a dataset folder with the configs `items` and `histories`.

    python dataset_scripts/sample.py --out hub_recipes/trsr/assets/sample

That folder ships with the package as the dataset `sample`. The world it shows is `trsr.pretrain.nano.worlds`'.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import datasets
import pyarrow as pa
from datasets import Dataset

from trsr.core.history import sentence
from trsr.dataset import contract
from trsr.dataset.build import protocol
from trsr.dataset.build.sequences import Sequences
from trsr.errors import DataError
from trsr.pretrain.nano import worlds
from trsr.records.provenance import SAMPLE_SCRIPT

CARD = """\
# The LLM-TRSR sample

A made-up catalogue of books and made-up readers, for trying the method in minutes; no result on it says anything about
real readers. Most readers end with a short burst of something else, and their next book mostly returns to their
long-term interests, so the last five books alone often mislead. `text`, which prompts show, leaves the description
out. Made by `dataset_scripts/sample.py` of LLM-TRSR.

{protocol}
"""


def items_table(world: worlds.World) -> Dataset:
    """The config `items`: what prompts show of each item, then all of its fields.

    As the paper does with MIND's abstracts, descriptions stay out of the prompt: a tiny model reads few tokens.
    """
    columns = dict.fromkeys((*contract.ITEM_COLUMNS, *world.items[0].fields))
    rows = []
    for item in world.items:
        brief = {name: value for name, value in item.fields.items() if name not in worlds.PROSE}
        shown = {**item.fields, "item_id": item.item_id, "text": sentence(brief)}
        rows.append({name: shown[name] for name in columns})
    return Dataset.from_list(rows, features=contract.items_features(columns))


def make(out: Path, *, seed: int = 0, items: int = 1500, users: int = 1500) -> dict[str, int]:
    """Write the sample to `out`. Returns the counts."""
    if items < 400 or users < 3:
        raise DataError(f"A world needs at least 400 items and 3 users, got {items} and {users}.")
    world = worlds.sample_world(seed, items, users)
    catalogue = items_table(world)
    sequences = {user.user_id: [world.items[number].item_id for number in user.items] for user in world.users}
    drawing = {"negatives": 20, "sampling": "uniform", "seed": seed}
    histories, counts = protocol.make_histories(
        Sequences.of(sequences, catalogue["item_id"]),
        test=max(1, users * 350 // 1500),
        validation=max(1, users * 150 // 1500),
        **drawing,
    )
    tables = {"items": {"train": catalogue}, "histories": histories}
    counts = {"items": len(catalogue), **counts}
    provenance = {
        "dataset": contract.Terms("sample", "apache-2.0", language=("en",)).to_dict(),
        "script": SAMPLE_SCRIPT,
        "options": {"seed": seed, "items": items, "users": users},
        "seed": seed,
        "sampling": drawing,
        "counts": counts,
        "written_with": {"datasets": datasets.__version__, "pyarrow": pa.__version__},
    }
    body = CARD.format(protocol=protocol.describe(tables, users=protocol.in_words(11, 26, False), **drawing))
    contract.write(out, tables, provenance=provenance, body=body)
    return counts


def main(argv: Sequence[str] | None = None) -> int:
    """Make the sample, report, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="dataset folder to write")
    parser.add_argument("--seed", type=int, default=0, help="of the world, splits and negatives (%(default)s)")
    parser.add_argument("--items", type=int, default=1500, metavar="N", help="(%(default)s)")
    parser.add_argument("--users", type=int, default=1500, metavar="N", help="(%(default)s)")
    options = parser.parse_args(argv)
    try:
        counts = make(options.out, seed=options.seed, items=options.items, users=options.users)
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{counts['items']} items, {counts['users_kept']} users. Written to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
