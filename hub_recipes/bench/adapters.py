"""Adapters that a bench trains and evaluates once: what is finished is kept, so that a killed bench goes on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trsr.errors import DataError
from trsr.recommender.evaluate import evaluate_run
from trsr.recommender.recipe import Recipe
from trsr.recommender.results import RESULTS_FILE
from trsr.recommender.run import is_finished
from trsr.recommender.train import train
from trsr.records.checksums import base_checksum, dataset_checksum


def made_from(recipe: Recipe, datasets: Sequence[str], base: str | None) -> dict[str, Any]:
    """What a bench is bound to: the recipe, and checksums of its datasets in their order and of its base.

    Raises:
        DataError: If two datasets have one name, by which their figures are called.
    """
    names = [Path(source).name for source in datasets]
    if len(set(names)) < len(names):
        raise DataError(f"Two of {', '.join(datasets)} have one name, and would be written to one folder. Rename one.")
    settings = {name: value for name, value in recipe.to_dict().items() if name != "dataset"}  # wherever it lies
    return {
        **settings,
        "datasets": [[name, dataset_checksum(source)] for name, source in zip(names, datasets, strict=True)],
        "base": base_checksum(base) if base else None,
    }


def trained(recipe: Recipe, run: Path) -> Path:
    """The folder of a run, which is trained unless it is finished."""
    if not is_finished(run):
        train(recipe, run)
    return run


def evaluated(run: Path, folder: Path, **options: Any) -> Path:
    """The folder with the figures of a run, which is evaluated unless they are there.

    Args:
        options: As `evaluate_run` takes them.
    """
    if not (folder / RESULTS_FILE).exists():
        evaluate_run(run, folder, **options)
    return folder
