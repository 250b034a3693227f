"""Read a finished run from its folder: recipe, data checksums, adapter checksum and results.

Loads no model; `score_split.load_run` and `serving` do.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset

from trsr.assets.paths import base_path, dataset_path
from trsr.dataset import contract
from trsr.errors import RunError
from trsr.recommender import results
from trsr.recommender.recipe import Recipe, build_recipe, read_yaml
from trsr.recommender.results import Results
from trsr.records.checksums import PREFIX, base_checksum, dataset_checksum
from trsr.records.files import read_json

RUN_FILE = "run.json"
RECIPE = "recipe.yaml"
TRAINED_ON = "trained_on.json"
ADAPTER = "adapter"


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run.

    Attributes:
        folder: Path of the run.
        recipe: As trained; its `dataset` may have moved since, see `with_dataset`.
        record: Content of `run.json`: counts, costs, versions.
        weights: SHA-256 of the adapter's weights.
        checksums: Of each config that training read, as `data_checksums` gives them.
    """

    folder: Path
    recipe: Recipe
    record: Mapping[str, Any]
    weights: str
    checksums: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """Read a run's folder. Raises RunError if it holds no finished run."""
        if not is_finished(folder):
            raise RunError(f"No finished run at {folder}. Train one, or finish it: trsr train RECIPE --out {folder}")
        record = read_json(folder / RUN_FILE)
        weights = folder / ADAPTER / "adapter_model.safetensors"
        if missing := [path for path in (folder / RECIPE, folder / TRAINED_ON, weights) if not path.is_file()]:
            raise RunError(f"The run at {folder} lacks {missing[0].relative_to(folder)}. Train it again.")
        if unrecorded := [name for name in ("dataset_checksums", "base_checksum") if not record.get(name)]:
            raise RunError(f"{folder / RUN_FILE} lacks {', '.join(unrecorded)}. Train it again.")
        recipe = build_recipe(read_yaml(folder / RECIPE))
        with weights.open("rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
        data = record["dataset_checksums"]
        if not recipe.dataset_revision and not data["items"].startswith(PREFIX):
            recipe = replace(recipe, dataset_revision=data["items"])  # the commit that its branch was at
        if not recipe.base_revision and record.get("base_revision"):
            recipe = replace(recipe, base_revision=record["base_revision"])  # likewise
        return cls(folder, recipe, record, checksum, data)

    @property
    def adapter(self) -> Path:
        """The folder of the trained adapter."""
        return self.folder / ADAPTER

    @property
    def fitted(self) -> Mapping[str, Any] | None:
        """Temperature and bias of P(yes), from the results on validation; None before that split was evaluated."""
        folder = self.folder / "validation"
        return results.read(folder).temperature if (folder / results.RESULTS_FILE).is_file() else None

    def results(self, split: str) -> Results:
        """Results on a whole split of the run's own dataset. Raises ResultsError if it was not evaluated."""
        return results.read(self.folder / split)

    def with_dataset(self, source: str | None) -> "Run":
        """The same run, with the dataset at `source` in its recipe; None changes nothing."""
        if source is None:
            return self
        return replace(self, recipe=replace(self.recipe, dataset=source, dataset_revision=None))

    def data_checksums(self) -> dict[str, str]:
        """Current checksums of the dataset that the recipe names."""
        return data_checksums(self.recipe.dataset, self.recipe.config, self.recipe.dataset_revision)

    def changed_data(self) -> list[str]:
        """Configs of the recipe's dataset that differ from those the run was trained on.

        Raises:
            DataError: If there is no such dataset.
        """
        return changed_configs(self.checksums, self.data_checksums())

    def check_data(self, remedy: str) -> None:
        """Raise RunError if the dataset in the recipe differs from the one that the run was trained on.

        Args:
            remedy: What to do instead; ends the message.
        """
        if changed := self.changed_data():
            checksums = [by_config.get(changed[0]) for by_config in (self.data_checksums(), self.checksums)]
            raise RunError(
                f"{self.recipe.dataset} is not the dataset that {self.folder} was trained on: its config {changed[0]} is "
                f"{checksums[0]}, the run's was {checksums[1]}. {remedy}"
            )

    def check_base(self) -> None:
        """Raise RunError if the base in the recipe is not the one that the run was trained on."""
        base, checksum = self.recipe.base, self.record["base_checksum"]
        if checksum.startswith(PREFIX) and not Path(base_path(base)).is_dir():
            raise RunError(f"There is no folder {base}, the base of {self.folder}. Put it back, or train again.")
        if checksum != (now := base_checksum(base)):
            raise RunError(
                f"{base} is not the base that {self.folder} was trained on: it is {now}, the run's was {checksum}. Put that base back, or "
                "train again."
            )

    def check_users(self, rows: Dataset, description: str, in_several_splits: bool) -> None:
        """Raise RunError if the run was trained on users of `rows`: an evaluation on them would be invalid.

        Args:
            description: Dataset and split of `rows`, for the message.
            in_several_splits: Whether a user occurs in several splits, see `Provenance.users_in_several_splits`. Then pairs
                of user and target are compared instead of users, without targets that the user had met before.
        """
        width = 2 if in_several_splits else 1
        trained = {tuple(pair[:width]) for pair in read_json(self.folder / TRAINED_ON)["rows"]}
        columns = zip(rows["user_id"], rows["target"], rows["history"], strict=True)
        evaluated = {(user, target)[:width] for user, target, history in columns if width == 1 or target not in history}
        if overlap := evaluated & trained:
            raise RunError(
                f"{self.folder} was trained on {len(overlap)} of the {len(evaluated)} {'choices' if in_several_splits else 'users'} of "
                f"{description}, such as user {min(overlap)[0]!r}: they cannot measure it. Train again on that dataset, or give one "
                "whose users were not trained on."
            )


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a finished run."""
    return (folder / RUN_FILE).is_file()


def data_checksums(source: str, config: str, revision: str | None = None) -> dict[str, str]:
    """Config -> checksum, for the configs of a dataset that a run reads: items, histories, and one kind of summaries."""
    present, folder = contract.configs(source, revision), Path(dataset_path(source))
    return {
        # A folder that we did not write may have other subfolders: then all its files count.
        name: dataset_checksum(source, revision, (name,) if (folder / name).is_dir() else ())
        for name in dict.fromkeys(("items", "histories", config))
        if name in present
    }


def changed_configs(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Configs that differ between two `data_checksums`, or occur in only one of them."""
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]
