import os
import shutil

import huggingface_hub
import pytest
from huggingface_hub import HfApi

from tests import tiny
from tests.hub import Hub
from tests.hub.server import WRITER
from trsr.errors import DataError
from trsr.records import checksums
from trsr.records.checksums import dataset_checksum, digest
from trsr.summaries.engines.base import key_of
from trsr.summaries.engines.make import engine


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setattr(checksums, "HF_HOME", str(tmp_path / "home"))
    tiny.model("llama").save_pretrained(tmp_path / "model")
    tiny.byte_level().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_model_is_known_by_its_content_and_not_by_its_place(model, tmp_path):
    before = engine(f"transformers:{model}")
    model.rename(tmp_path / "elsewhere")
    after = engine(f"transformers:{tmp_path / 'elsewhere'}")
    assert key_of(before.identity, "text") == key_of(after.identity, "text")
    assert str(tmp_path) not in str(after.identity)
    tiny.model("llama", seed=1).save_pretrained(tmp_path / "elsewhere")
    other = engine(f"transformers:{tmp_path / 'elsewhere'}")
    assert key_of(other.identity, "text") != key_of(after.identity, "text")


def test_a_tokenizer_counts_and_a_card_does_not(model):
    before = digest(model)
    (model / "README.md").write_text("# A card")
    assert digest(model) == before
    (model / "chat_template.jinja").write_text("{{ messages }}")
    assert digest(model) != before
    assert digest(model, model) not in (before, digest(model))


def test_a_vocabulary_counts_where_the_tokenizer_is_made_from_it(model):
    digests = []
    for text in ("a", "b"):
        (model / "vocab.txt").write_text(text)
        digests.append(digest(model))
    assert digests[0] == digests[1]  # tokenizer.json is read, and nothing beside it
    (model / "tokenizer.json").unlink()
    for text in ("a", "b"):
        (model / "vocab.txt").write_text(text)
        digests.append(digest(model))
    assert len(set(digests)) == 3


def test_a_file_is_read_again_only_when_it_has_changed(model, monkeypatch):
    known, read = digest(model), []
    real = checksums.hashlib.file_digest
    monkeypatch.setattr(checksums.hashlib, "file_digest", lambda file, how: read.append(file.name) or real(file, how))
    assert digest(model) == known
    assert read == []
    path = model / "model.safetensors"
    os.utime(path, ns=(0, 0))
    assert digest(model) == known
    assert read == [str(path)]


def test_where_a_checksum_cannot_be_kept_it_is_computed_each_time(model, tmp_path, monkeypatch):
    expected = digest(model)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(checksums, "HF_HOME", str(tmp_path / "file"))
    assert [digest(model), digest(model)] == [expected] * 2


def test_a_folder_without_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="No safetensors"):
        digest(tmp_path)


def test_a_dataset_is_known_by_its_tables_and_not_by_its_place_or_card(small_dataset, tmp_path):
    before = dataset_checksum(str(small_dataset))
    assert before.startswith("sha256:")
    assert len(before) == len("sha256:") + 64
    (small_dataset / "README.md").write_text("# Another card")
    (small_dataset / "notes.json").write_text("{}")
    small_dataset.rename(tmp_path / "moved")
    assert dataset_checksum(str(tmp_path / "moved")) == before
    table = next((tmp_path / "moved" / "histories").glob("test-*"))
    table.rename(table.with_name("validation-of-another-name.parquet"))
    assert dataset_checksum(str(tmp_path / "moved")) != before


def test_of_a_dataset_some_configs_may_count(small_dataset):
    whole, made_from = dataset_checksum(str(small_dataset)), dataset_checksum(str(small_dataset), configs=["items"])
    (small_dataset / "recurrent").mkdir()
    shutil.copy(next(small_dataset.glob("histories/train*")), small_dataset / "recurrent" / "train.parquet")
    assert dataset_checksum(str(small_dataset), configs=["items"]) == made_from
    assert dataset_checksum(str(small_dataset)) != whole
    with pytest.raises(DataError, match="No Parquet files of hierarchical"):
        dataset_checksum(str(small_dataset), configs=["hierarchical"])


def test_a_dataset_in_the_package_and_one_that_is_nowhere():
    assert dataset_checksum("sample").startswith("sha256:")
    with pytest.raises(DataError, match="No dataset 'ORG/nothing'"):
        dataset_checksum("ORG/nothing")
    assert dataset_checksum("ORG/nothing", "0123456789" * 4) == "0123456789" * 4


def test_a_dataset_on_the_hub_is_known_by_its_commit(small_dataset, tmp_path, monkeypatch):
    for name, value in (("HF_HUB_OFFLINE", False), ("HF_HUB_DISABLE_XET", True), ("HF_HUB_CACHE", str(tmp_path / "c"))):
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    with Hub() as hub:
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        api = HfApi(endpoint=hub.url, token=WRITER)
        api.create_repo("ORG/data", repo_type="dataset")
        commit = api.upload_folder(repo_id="ORG/data", folder_path=small_dataset, repo_type="dataset").oid
        assert dataset_checksum("ORG/data") == commit == dataset_checksum("ORG/data", "main")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert dataset_checksum("ORG/data") == commit  # the copy on this machine
