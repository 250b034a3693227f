"""A finished run, read once from its folder: what was trained, on which data, and what was measured.

Loads no model; `evaluate.load_run` and `serving` do.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset

from trsr.assets.paths import dataset_path
from trsr.dataset import contract
from trsr.errors import RunError
from trsr.recommender import results
from trsr.recommender.recipe import Recipe, build_recipe
from trsr.recommender.results import Results
from trsr.records.checksums import PREFIX, dataset_checksum
from trsr.records.files import read_json

FILE = "run.json"
RECIPE = "recipe.yaml"
TRAINED_ON = "trained_on.json"
ADAPTER = "adapter"


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run.

    Attributes:
        folder: Where it lies.
        recipe: What was trained; its `dataset` may have been moved since, see `with_dataset`.
        record: `run.json` as it is: counts, costs, versions.
        weights: SHA-256 of the adapter's weights.
        checksums: Of each config of the dataset that was read, as `data_checksums` gives them; None where an earlier
            version trained the run and did not record them.
    """

    folder: Path
    recipe: Recipe
    record: Mapping[str, Any]
    weights: str
    checksums: Mapping[str, str] | None

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """Read a run's folder. Raises RunError if it holds no finished run."""
        if not is_finished(folder):
            raise RunError(f"No finished run at {folder}. Train one, or finish it: trsr train RECIPE --out {folder}")
        record = read_json(folder / FILE)
        weights = folder / ADAPTER / "adapter_model.safetensors"
        if missing := [path for path in (folder / RECIPE, weights) if not path.is_file()]:
            raise RunError(f"The run at {folder} lacks {missing[0].relative_to(folder)}. Train it again.")
        recipe = build_recipe(yaml.safe_load((folder / RECIPE).read_text(encoding="utf-8")))
        with weights.open("rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
        data = record.get("dataset_checksums")
        if data and not recipe.dataset_revision and not data["items"].startswith(PREFIX):
            recipe = replace(recipe, dataset_revision=data["items"])  # the commit that its branch was at
        return cls(folder, recipe, record, checksum, data)

    @property
    def seed(self) -> int:
        """The seed that training used, from the recipe."""
        return self.recipe.seed

    @property
    def precision(self) -> str:
        """The precision that it was trained in: `bf16` or `fp32`."""
        return self.record["precision"]

    @property
    def adapter(self) -> Path:
        """The folder of the trained adapter."""
        return self.folder / ADAPTER

    @property
    def fitted(self) -> Mapping[str, Any] | None:
        """The temperature of P(yes), as the validation split's results have it; None before that was evaluated."""
        path = self.folder / "validation" / results.FILE
        return results.read(path).temperature if path.is_file() else None

    def results(self, split: str) -> Results:
        """What was measured on a whole split of the run's own dataset. Raises ResultsError if nothing was."""
        return results.read(self.folder / split / results.FILE)

    def with_dataset(self, source: str | None) -> "Run":
        """The same run, its recipe naming the dataset at `source`; None leaves it where it is."""
        if source is None:
            return self
        return replace(self, recipe=replace(self.recipe, dataset=source, dataset_revision=None))

    def data_checksums(self) -> dict[str, str]:
        """Of the dataset that its recipe names, as it is now."""
        return data_checksums(self.recipe.dataset, self.recipe.config, self.recipe.dataset_revision)

    def changed_data(self) -> list[str]:
        """Configs in which the dataset that its recipe names is not what was trained on; none where that is unknown.

        Raises:
            DataError: If the dataset is not there.
        """
        return [] if self.checksums is None else changed_configs(self.checksums, self.data_checksums())

    def check_data(self, remedy: str) -> None:
        """Raise RunError where the dataset that the recipe names is not what was trained on.

        Args:
            remedy: What to do instead; ends the message.
        """
        if changed := self.changed_data():
            checksums = [found.get(changed[0]) for found in (self.data_checksums(), self.checksums or {})]
            raise RunError(
                f"{self.recipe.dataset} is not the dataset that {self.folder} was trained on: its config {changed[0]} is "
                f"{checksums[0]}, the run's was {checksums[1]}. {remedy}"
            )

    def check_users(self, rows: Dataset, where: str, in_several_splits: bool) -> None:
        """Raise RunError where the run was trained on users of `rows`: figures on them say nothing.

        Args:
            where: What they are users of, for the message.
            in_several_splits: Whether users stand in several splits, see `Provenance.users_in_several_splits`: then what was
                trained on is a user's choice of an item.
        """
        path = self.folder / TRAINED_ON
        if not path.is_file():
            return
        width = 2 if in_several_splits else 1
        trained = {tuple(pair[:width]) for pair in read_json(path)["rows"]}
        asked = set(zip(*(rows[name] for name in ("user_id", "target")[:width]), strict=True))
        if known := asked & trained:
            raise RunError(
                f"{self.folder} was trained on {len(known)} of the {len(asked)} {'choices' if in_several_splits else 'users'} of "
                f"{where}, such as user {min(known)[0]!r}: they cannot measure it. Train anew on that dataset, or give one "
                "whose users were not trained on."
            )


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a finished run."""
    return (folder / FILE).is_file()


def data_checksums(source: str, config: str, revision: str | None = None) -> dict[str, str]:
    """Config -> checksum, of what a run reads of a dataset: its items, its histories, and the summaries of one kind."""
    present, folder = contract.configs(source, revision), Path(dataset_path(source))
    return {
        # The files of a folder that we did not write may lie elsewhere: all of them count, then.
        name: dataset_checksum(source, revision, (name,) if (folder / name).is_dir() else ())
        for name in dict.fromkeys(("items", "histories", config))
        if name in present
    }


def changed_configs(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Configs that differ between two `data_checksums`, or are in one alone."""
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]
