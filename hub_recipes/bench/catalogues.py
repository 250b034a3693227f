"""Join figures on one catalogue, of retrievers and of peers, in one results file for a table.

python -m bench.catalogues runs/both/test peers/scientific/* --out hub_recipes/results/peers-scientific-catalogue.json
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trsr.cli.exits import ended
from trsr.errors import ResultsError
from trsr.records.files import read_json, write_text
from trsr.retrieval.evaluate import CATALOGUE

SAME = ("dataset", "split", "dataset_checksums", "n_users", "n_items", "limit")


def join(folders: Sequence[Path]) -> dict[str, Any]:
    """Systems of all evaluations of one split; of those that several hold, such as item-knn, the first. Validation is left out.

    Raises:
        ResultsError: If a folder has no figures on a catalogue, or they are of other users, items or data.
    """
    joined: dict[str, Any] = {}
    for folder in folders:
        if not (folder / CATALOGUE).is_file():
            raise ResultsError(
                f"No {CATALOGUE} in {folder}. Make it: trsr retrieve evaluate, or hub_recipes/baselines.py."
            )
        found = read_json(folder / CATALOGUE)
        if found["split"] == "validation":
            continue
        if not joined:
            joined = {name: found[name] for name in (*SAME, "protocol", "popularity_of_targets", "versions")}
            joined |= {"systems": {}, "tuning": {}}
        if changed := [name for name in SAME if found[name] != joined[name]]:
            raise ResultsError(
                f"{folder} is of another evaluation: its {changed[0]} differs from that of {folders[0]}."
            )
        joined["systems"] |= {name: one for name, one in found["systems"].items() if name not in joined["systems"]}
        if "tuning" in found:
            joined["tuning"][found["run"]] = found["tuning"]
    if not joined:
        raise ResultsError("Nothing to join: give folders of evaluations on the test split.")
    return joined


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="of evaluations")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="results file")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = arguments().parse_args(words)
    with ended():
        joined = join(options.folders)
        write_text(options.out, json.dumps(joined, indent=2) + "\n")
        print(f"Wrote {options.out}: {', '.join(joined['systems'])}")


if __name__ == "__main__":
    main()
