"""Where the results of an evaluation lie, and whether others lie there already."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trsr.errors import UsageError
from trsr.recommender.controls import history_suffix
from trsr.recommender.results import RESULTS_FILE
from trsr.recommender.run import Run
from trsr.records.files import read_json


def results_folder(
    run: Path,
    split: str,
    *,
    limit: int = 0,
    adapter: bool = True,
    dataset: str | None = None,
    shuffle: bool = False,
    history: str | None = None,
) -> Path:
    """The folder for the results of an evaluation: RUN/SPLIT for the standard one, else RUN/SPLIT with a suffix.

    Standard is the adapter on the whole split of the dataset that it was trained on, wherever that dataset lies now.
    """
    name = split + ("" if adapter else "-no-adapter") + ("-shuffled" if shuffle else "") + history_suffix(history)
    if limit:
        name += f"-limit-{limit}"
    if dataset:
        run_on_dataset = Run.read(run).with_dataset(dataset)
        if run_on_dataset.changed_data():
            name += f"-{Path(dataset).resolve().name}"
    return run / name


# What two evaluations have in common of which one may replace the other, and how a message calls it.
_SAME = {
    "run": "run",
    "weights": "checksum of weights",
    "dataset_checksums": "dataset",
    "split": "split",
    "limit": "limit",
    "seed": "seed",
    "shuffled_summaries": "shuffling of summaries",
    "history": "order of histories",
    "second_stage": "second stage",
}


def check_out(out: Path, about: Mapping[str, Any]) -> None:
    """Raise UsageError if a folder holds results of another evaluation than that which `about` describes, or something else."""
    if not (out / RESULTS_FILE).is_file():
        # A killed evaluation leaves hidden files, which the next one goes on from, and may leave some of its tables.
        names = [path.name for path in out.iterdir() if not path.name.startswith(".")] if out.is_dir() else []
        if other := sorted(name for name in names if not name.endswith((".parquet", ".json"))):
            raise UsageError(
                f"{out} holds {other[0]} and no {RESULTS_FILE}: no evaluation wrote it. Choose another --out."
            )
        return
    before = read_json(out / RESULTS_FILE)
    changed = [name for name in _SAME if before.get(name) != about.get(name)]
    if not changed:
        return
    name = changed[0]
    old, new = before.get(name), about.get(name)
    if isinstance(new or old, Mapping):
        change = "has changed"
    else:
        change = f"was {_shown(name, old)}, and is {_shown(name, new)} now"
    raise UsageError(
        f"{out} holds results of another evaluation: its {_SAME[name]} {change}. Choose another --out, or remove it."
    )


def _shown(name: str, value: Any) -> str:
    if name == "shuffled_summaries":
        return "on" if value else "off"
    if value is None:
        return "the true one" if name == "history" else "none"
    return str(value)[:12]
