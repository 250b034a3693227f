import json
import shutil

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from tests import tiny
from trsr.assets import paths
from trsr.assets.paths import base_path
from trsr.core.prompts import Encoder, RankingPrompt
from trsr.errors import EngineError
from trsr.pretrain import scratch
from trsr.pretrain.nano import summarizer as nano_summarizer
from trsr.pretrain.nano.base import pretrain, world_tokenizer
from trsr.pretrain.nano.curriculum import Curriculum, collate, forward
from trsr.pretrain.nano.summarizer import AnswerTrainer, Copies, train_summarizer, write_change
from trsr.pretrain.scratch import RankingTrainer
from trsr.summaries.engines import nano as nano_engine
from trsr.summaries.engines.make import engine


def test_a_much_smaller_one_trains_and_the_loss_falls(tmp_path):
    made = pretrain(tmp_path / "base", steps=30, users=4, negatives=2, vocab_size=500, hidden=32, layers=1, heads=1)
    state = json.loads((tmp_path / "base-checkpoints" / "checkpoint-30" / "trainer_state.json").read_text())
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    assert losses[-1] < losses[0] - 1
    assert made["parameters"] < 50_000
    card = (tmp_path / "base" / "README.md").read_text()
    assert "trsr pretrain nano --seed 0 --steps 30" in card
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert model.dtype == torch.float32
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert tokenizer("x").input_ids[0] == tokenizer.bos_token_id


SMALL = {"users": 2, "negatives": 2, "vocab_size": 400, "hidden": 32, "layers": 1, "heads": 1}


def interrupted(*args, **kwargs):
    raise KeyboardInterrupt


def test_a_base_is_written_whole_and_its_costs_are_those_of_all_processes(tmp_path, monkeypatch):
    out, work = tmp_path / "base", tmp_path / "base-checkpoints"

    def train():
        return pretrain(out, steps=3, **SMALL)

    with monkeypatch.context() as killed:
        killed.setattr(PreTrainedTokenizerFast, "save_vocabulary", interrupted)
        killed.setattr(PreTrainedTokenizerFast, "_save_pretrained", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train()
        assert not out.exists()
    with monkeypatch.context() as killed:
        killed.setattr(scratch, "describe", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train()
        assert not out.exists()
    spent = work / "spent.json"
    before = json.loads(spent.read_text())
    assert before["cpu_seconds"] > 0
    spent.write_text(json.dumps({"seconds": before["seconds"] + 1000, "cpu_seconds": before["cpu_seconds"] + 500}))
    made = train()
    assert 1000 <= made["seconds"] < 1100
    assert 500 <= made["cpu_seconds"] < 600
    # A run that is finished is not run again; one without its model is.
    with monkeypatch.context() as again:
        again.setattr(RankingTrainer, "train", interrupted)
        assert train() == made == json.loads((out / "training.json").read_text())
    shutil.rmtree(out)
    assert train()["seconds"] >= 1000
    assert (out / "model.safetensors").is_file()


def test_batched_rows_equal_plain_prompts(llama):
    tokenizer = world_tokenizer(worlds=1, vocab_size=400)
    encoder = Encoder(tokenizer, RankingPrompt(recent_items=10))
    rows = [Curriculum(encoder, 1000, 2)[row] for row in (3, 400, 999)]
    llama.config.pad_token_id = 2
    answers, sizes, _ = forward(llama, collate(rows, 2))
    odds = (answers[:, encoder.yes_id] - answers[:, encoder.no_id]).view(len(rows), -1)
    assert sizes.tolist() == [odds.shape[1]] * len(rows)
    for place, row in enumerate(rows):
        for branch, suffix in enumerate(row["suffixes"]):
            logits = llama(input_ids=torch.tensor([row["prefix"] + suffix])).logits[0, -1]
            expected = logits[encoder.yes_id] - logits[encoder.no_id]
            torch.testing.assert_close(odds[place, branch], expected, atol=1e-4, rtol=0)


def test_rows_follow_from_their_number():
    tokenizer = world_tokenizer(worlds=1, vocab_size=400)
    encoder = Encoder(tokenizer, RankingPrompt(recent_items=10))
    rows = Curriculum(encoder, 1000, 2)
    forwards = [rows[row] for row in range(0, 1000, 97)]
    assert forwards == [rows[row] for row in range(0, 1000, 97)][::1]
    assert [Curriculum(encoder, 1000, 2)[row] for row in (970, 0, 485)] == [forwards[10], forwards[0], forwards[5]]


def test_what_is_copied_was_there_before():
    encoder = Encoder(world_tokenizer(worlds=1, vocab_size=400), RankingPrompt())
    copies = Copies(encoder, steps=400, size=2)
    periods = set()
    for number in (0, 1, 500, 799):
        row = copies[number]
        ids, period = row["input_ids"], len(row["input_ids"]) - row["answered"] - 1
        assert ids[0] == encoder.tokenizer.bos_token_id
        assert ids[1 + period :] == ids[1:-period]
        periods.add(period)
    assert min(periods) == 3 < max(periods)
    assert copies[500] == Copies(encoder, steps=400, size=2)[500]
    with pytest.raises(IndexError):
        copies[800]


def test_a_change_of_weights_is_written_as_an_adapter(tmp_path):
    """Of embeddings, which are the head too, and of norms, which no adapter holds."""
    model, prompt = tiny.model("llama", tie_word_embeddings=True), torch.tensor([[1, 5, 9, 4]])
    model.save_pretrained(tmp_path / "base")
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    plain = model(prompt).logits
    torch.manual_seed(0)
    for weight in model.parameters():
        weight.data *= 1 + 0.1 * torch.randn_like(weight)
    wanted = model(prompt).logits
    parameters = write_change(model, before, tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    torch.testing.assert_close(base(prompt).logits, plain)
    adapted = PeftModel.from_pretrained(base, tmp_path / "adapter")
    off = (adapted(prompt).logits - wanted).abs().max()
    assert off < 0.01 * (wanted - plain).abs().max()
    assert parameters == sum(weight.numel() for name, weight in adapted.named_parameters() if "lora_" in name)


def summarizer(folder, steps=6, **options):
    return train_summarizer(folder / "adapter", steps=steps, copying=8, size=2, save_steps=3, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What the training of a summariser says, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return summarizer(folder), folder


def test_a_summariser_is_a_plain_adapter_and_goes_on_after_a_kill(whole, tmp_path, monkeypatch):
    made, folder = whole
    assert [(name, stage["rows"]) for name, stage in made["stages"].items()] == [("copying", 16), ("lessons", 12)]
    assert "trsr pretrain nano-summarizer --seed 0 --steps 6" in (folder / "adapter/README.md").read_text()
    assert json.loads((folder / "adapter/training.json").read_text()) == made
    base = AutoModelForCausalLM.from_pretrained(base_path("nano"))
    assert PeftModel.from_pretrained(base, folder / "adapter").active_adapter == "default"

    ordinary = AnswerTrainer.compute_loss
    for killed_at in (5, 10):  # in either stage
        calls, broken = [], tmp_path / f"broken{killed_at}"

        def killed(self, *args, calls=calls, killed_at=killed_at, **kwargs):
            calls.append(1)
            if len(calls) == killed_at:
                raise KeyboardInterrupt
            return ordinary(self, *args, **kwargs)

        monkeypatch.setattr(AnswerTrainer, "compute_loss", killed)
        with pytest.raises(KeyboardInterrupt):
            summarizer(broken)
        monkeypatch.setattr(AnswerTrainer, "compute_loss", ordinary)
        summarizer(broken)
        weights = "adapter/adapter_model.safetensors"
        assert (broken / weights).read_bytes() == (folder / weights).read_bytes()


def test_a_summariser_is_written_whole_and_once(tmp_path, monkeypatch):
    with monkeypatch.context() as killed:
        killed.setattr(nano_summarizer, "write_adapter_config", interrupted)
        with pytest.raises(KeyboardInterrupt):
            summarizer(tmp_path)
        assert not (tmp_path / "adapter").exists()
    made = summarizer(tmp_path)
    monkeypatch.setattr(AnswerTrainer, "train", interrupted)
    assert summarizer(tmp_path) == made


def test_the_engine_says_where_its_adapter_belongs(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "NANO_SUMMARIZER", tmp_path / "summarizer")
    with pytest.raises(EngineError, match="trsr pretrain nano-summarizer --out"):
        engine("nano")
    shutil.copytree(whole[1] / "adapter", tmp_path / "summarizer")
    monkeypatch.setattr(nano_engine, "NANO_SUMMARIZER", tmp_path / "summarizer")
    identity = engine("nano").identity
    assert (identity["engine"], identity["model"]) == ("nano", "nano-summarizer")
    assert identity["revision"].startswith("sha256:")
