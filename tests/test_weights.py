import os

import pytest

from tests import tiny
from trsr.records import checksums
from trsr.records.checksums import digest
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


def test_a_folder_without_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="No safetensors"):
        digest(tmp_path)
