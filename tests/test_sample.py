"""The shipped sample is what its script makes, and it shows what it is there to show."""

from pathlib import Path

import datasets
import pyarrow
import pytest

from dataset_scripts import sample
from trsr.assets.paths import ASSETS
from trsr.dataset import contract

SHIPPED = ASSETS / "sample"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "anything"
    assert sample.main(["--out", str(folder)]) == 0
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_shipped_rows_are_what_the_script_makes(made):
    for config, splits in {"items": ("train",), "histories": contract.SPLITS}.items():
        for split in splits:
            fresh, shipped = (contract.read(str(folder), config, split) for folder in (made, SHIPPED))
            assert fresh.to_list() == shipped.to_list()
            assert fresh.features == shipped.features


def test_the_shipped_bytes_are_what_the_script_makes(made):
    # Other versions write the same rows as other bytes.
    written_with = contract.provenance(str(SHIPPED)).values["written_with"]
    if written_with != {"datasets": datasets.__version__, "pyarrow": pyarrow.__version__}:
        pytest.skip(f"the sample was written with {written_with}")
    assert contents(made) == contents(SHIPPED)


def test_two_runs_are_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        sample.make(tmp_path / name, items=400, users=30)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    sample.make(tmp_path / "other", items=400, users=30, seed=1)
    assert contents(tmp_path / "one") != contents(tmp_path / "other")


def test_it_is_small(made):
    assert sum(map(len, contents(SHIPPED).values())) < 1_000_000


def test_sizes_scale_with_the_users(tmp_path):
    counts = sample.make(tmp_path / "d", items=400, users=30)
    assert counts["users_kept"] == 30
    sizes = {split: len(contract.read(str(tmp_path / "d"), "histories", split)) for split in contract.SPLITS}
    assert sizes == {"train": 20, "validation": 3, "test": 7}
    assert {split: len(contract.read("sample", "histories", split)) for split in contract.SPLITS} == {
        "train": 1000,
        "validation": 150,
        "test": 350,
    }


def test_texts_are_sentences_of_the_fields():
    items = contract.read("sample", "items", "train")
    assert items.column_names == ["item_id", "title", "text", "author", "genre", "about"]
    for row in items:
        fields = "; ".join(f"{name}: {row[name]}" for name in ("title", "author", "genre"))
        assert row["text"] == fields


def test_the_last_five_items_often_mislead():
    items = contract.read("sample", "items", "train")
    genre = dict(zip(items["item_id"], items["genre"], strict=True))
    rows = [row for split in contract.SPLITS for row in contract.read("sample", "histories", split)]
    earlier_only = 0
    for row in rows:
        genres = [genre[item_id] for item_id in row["history"]]
        earlier_only += genre[row["target"]] not in genres[-5:] and genre[row["target"]] in genres[:-5]
    assert earlier_only / len(rows) > 0.4


def test_negatives_are_new_to_the_user():
    for split in contract.SPLITS:
        for row in contract.read("sample", "histories", split):
            assert len({*row["negatives"]} - {*row["history"], row["target"]}) == 20


def test_a_world_that_is_too_small_is_refused(tmp_path, capsys):
    assert sample.main(["--out", str(tmp_path / "d"), "--items", "20"]) == 2
    assert capsys.readouterr().err.startswith("error: A world needs at least 400 items and 3 users, got 20 and 1500.")
    assert not list(tmp_path.iterdir())
