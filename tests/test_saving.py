"""Saving a recommender into a folder that holds something already."""

import errno
import json

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests import tiny
from trsr.core import saving
from trsr.core.errors import InputError
from trsr.core.modeling import TextRichRecommender
from trsr.core.saving import save_recommender


def adapted(folder, seed, **saving):
    """A tiny base of a folder, with an adapter."""
    tiny.model("llama", seed).save_pretrained(folder, **saving)
    base = AutoModelForCausalLM.from_pretrained(folder)
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    return peft.get_peft_model(base, lora)


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_the_last_one_saved_is_the_one_that_is_loaded(tmp_path):
    """Also where the first had one file of weights, and the second has shards; and whatever else lies there stays."""
    saved, tokenizer = tmp_path / "saved", tiny.chatml()
    first = adapted(tmp_path / "one", 0)
    save_recommender(saved, first, tokenizer, {})
    (saved / "catalogue").mkdir()
    (saved / "catalogue" / "items.parquet").write_text("texts of an earlier save")
    assert "chat_template.jinja" in names(saved)
    mine = [
        saved / "README.md",
        saved / "base" / "notes.txt",
        saved / "adapter" / "mine.json",
        saved / "own" / "model.safetensors",
        saved / "model.safetensors",
    ]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    second, tokenizer.chat_template = adapted(tmp_path / "two", 1, max_shard_size="50KB"), None
    save_recommender(saved, second, tokenizer, {})
    assert "model.safetensors" not in names(saved / "base")
    assert "model.safetensors.index.json" in names(saved / "base")
    assert "chat_template.jinja" not in names(saved)
    assert not names(saved / "catalogue")
    assert [path.read_text() for path in mine] == ["mine"] * 5
    found = TextRichRecommender.from_pretrained(str(saved)).get_output_embeddings().weight
    assert torch.equal(found, second.get_output_embeddings().weight)
    assert not torch.equal(found, first.get_output_embeddings().weight)


def test_an_earlier_save_stays_loadable_where_a_later_one_stops(tmp_path, monkeypatch):
    saved = tmp_path / "saved"
    save_recommender(saved, adapted(tmp_path / "one", 0), tiny.chatml(), {})
    before = {path.relative_to(saved) for path in saved.rglob("*") if path.is_file()}
    second, move, moved, stops = adapted(tmp_path / "two", 1), saving.os.replace, [], []

    def full(source, to):
        if len(moved) == stops[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        moved.append(to.name)
        move(source, to)

    monkeypatch.setattr(saving.os, "replace", full)
    for number in (0, 3):
        moved.clear()
        stops[:] = [number]
        with pytest.raises(OSError, match="No space left"):
            save_recommender(saved, second, tiny.chatml(), {})
        assert before <= {path.relative_to(saved) for path in saved.rglob("*") if path.is_file()}
        TextRichRecommender.from_pretrained(str(saved))
        assert names(tmp_path) == {"one", "two", "saved"}
    stops[:] = [-1]
    moved.clear()
    save_recommender(saved, second, tiny.chatml(), {})
    assert [name.endswith(".safetensors") for name in moved[:3]] == [True, True, False]
    assert moved[-1] == "config.json"


def test_a_folder_of_another_file_system_is_written_too(tmp_path, monkeypatch):
    def other(source, to):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(saving.os, "replace", other)
    save_recommender(tmp_path / "saved", adapted(tmp_path / "one", 0), tiny.chatml(), {})
    TextRichRecommender.from_pretrained(str(tmp_path / "saved"))


def test_of_a_users_folder_only_the_base_is_saved(tmp_path):
    model = adapted(tmp_path / "secret-place", 0)
    source = tmp_path / "secret-place"
    for name in ("trainer_state.json", "notes.txt"):
        (source / name).write_text("mine")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"_name_or_path": str(source)}))
    (source / "training.json").write_text("{}")
    save_recommender(tmp_path / "saved", model, tiny.chatml(), {})
    found = names(tmp_path / "saved" / "base")
    assert {"config.json", "model.safetensors", "training.json"} <= found
    assert not {"trainer_state.json", "notes.txt"} & found
    for path in (tmp_path / "saved" / "base").iterdir():
        assert b"secret-place" not in path.read_bytes(), path


@pytest.mark.parametrize("name", ["default", "second"])
def test_the_adapter_that_ranks_is_saved_whatever_its_name(tmp_path, name):
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    model = adapted(tmp_path / "one", 0)
    model.add_adapter("second", lora)
    model.set_adapter(name)
    save_recommender(tmp_path / "saved", model, tiny.byte_level(), {})
    assert names(tmp_path / "saved" / "adapter") == {"adapter_config.json", "adapter_model.safetensors"}
    written = [path.read_text() for path in (tmp_path / "saved").rglob("*.json")]
    assert not any(str(tmp_path) in text for text in written)
    ids = torch.arange(1, 9)[None]
    found = TextRichRecommender.from_pretrained(str(tmp_path / "saved"))(input_ids=ids).logits
    torch.testing.assert_close(found, model.eval()(input_ids=ids).logits)
    model.base_model.set_adapter(["default", "second"])
    with pytest.raises(InputError, match="2 adapters of the PeftModel are active"):
        save_recommender(tmp_path / "other", model, tiny.byte_level(), {})


def test_a_recommender_is_saved_over_itself(tmp_path):
    saved = tmp_path / "saved"
    save_recommender(saved, adapted(tmp_path / "one", 0), tiny.byte_level(), {})
    before = {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()}
    save_recommender(saved, TextRichRecommender.from_pretrained(str(saved)), tiny.byte_level(), {})
    assert {path for path in saved.rglob("*") if path.is_file()} == set(before)
    for path in saved.glob("*/*.safetensors"):
        assert path.read_bytes() == before[path]


@pytest.mark.parametrize("name", ["config.json", "base/weights.bin", "tokenizer.json"])
def test_a_folder_of_something_else_is_left_as_it_is(tmp_path, name):
    folder = tmp_path / "theirs"
    path = folder / name
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(
        InputError, match=r"holds (config\.json|base|tokenizer\.json) and no recommender, so it is left"
    ):
        save_recommender(folder, adapted(tmp_path / "one", 0), tiny.byte_level(), {})
    assert [one for one in folder.rglob("*") if one.is_file()] == [path]


def test_a_folder_with_other_files_is_written_to(tmp_path):
    folder = tmp_path / "clone"
    (folder / ".git").mkdir(parents=True)
    (folder / "README.md").write_text("mine")
    save_recommender(folder, adapted(tmp_path / "one", 0), tiny.byte_level(), {})
    assert {".git", "README.md", "base", "adapter", "config.json"} <= names(folder)
