"""Columns and sizes in a dataset's card are those that `datasets` finds when it reads the files of a card without them."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import get_dataset_config_names, load_dataset, load_dataset_builder
from huggingface_hub import DatasetCard

from tests import tiny
from trsr.dataset import contract
from trsr.errors import DataError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def bare(folder, copy):
    """A copy of a dataset folder whose card says nothing of columns and sizes."""
    shutil.copytree(folder, copy)
    card = DatasetCard((copy / "README.md").read_text(encoding="utf-8"))
    told = card.data.to_dict().pop("dataset_info")
    card.data.__dict__.pop("dataset_info")
    card.save(copy / "README.md")
    return told if isinstance(told, list) else [told]


def check_told(folder, copy):
    told = bare(folder, copy)
    configs = get_dataset_config_names(str(folder))
    assert {one["config_name"] for one in told} == set(configs)
    for config in configs:
        read = load_dataset(str(copy), config)
        before = load_dataset_builder(str(folder), config).info  # nothing is read for it
        assert before.features is not None
        for split, rows in read.items():
            found = rows.info
            assert before.features == found.features == rows.features
            assert before.splits[split].num_examples == found.splits[split].num_examples == len(rows)
            assert before.splits[split].num_bytes == found.splits[split].num_bytes
        assert set(before.splits) == set(read)
        assert (before.download_size, before.dataset_size) == (found.download_size, found.dataset_size)
        load_dataset(str(folder), config)  # the sizes are verified


def test_of_a_dataset_with_summaries(tmp_path):
    folder = tiny.dataset(tmp_path / "data", summary="likes x", users=30)
    check_told(folder, tmp_path / "bare")


def test_of_a_release(release, tmp_path):
    check_told(release.folder / "dataset", tmp_path / "bare")


def test_a_file_that_was_cut_is_an_error_of_the_data(tmp_path):
    folder = tiny.dataset(tmp_path / "data", users=30)
    [path] = (folder / "histories").glob("test-*.parquet")
    pq.write_table(pq.read_table(path).slice(0, 2), path)
    with pytest.raises(DataError, match=r"config 'histories', do not hold the rows that its README\.md counts"):
        contract.read(str(folder), "histories", "test")


def test_a_stream_has_the_columns_of_the_files(tmp_path):
    folder = tiny.dataset(tmp_path / "data", users=30)
    for path in (folder / "histories").glob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.append_column("new", pa.array(["x"] * len(table))).replace_schema_metadata(None), path)
    assert next(iter(contract.stream(str(folder), "histories")["test"]))["new"] == "x"
