"""Training: what is learnt from, what a kill leaves behind, and what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice

import pytest
import torch
import yaml
from datasets import Dataset
from safetensors.torch import load, load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, TrainerState

from tests import tiny
from trsr.cli import main
from trsr.core.history import Item
from trsr.core.scoring import PLANS, Scorer
from trsr.dataset import contract
from trsr.dataset.candidates import Candidates
from trsr.errors import DataError
from trsr.recommender import train
from trsr.recommender.examples import encode_rows, labelled, make_encoder, ranking_prompt, with_earlier_targets
from trsr.recommender.precision import NOTABLE, warn_if_slow
from trsr.recommender.recipe import FORMS, Watch, build_recipe
from trsr.recommender.run import Run
from trsr.recommender.score_split import load_run, score

BASES = {"plain": "meta-llama/Llama-3.2-1B", "chat": "Qwen/Qwen3-0.6B"}


@pytest.fixture
def base(tmp_path):
    return tiny.save_base(BASES["plain"], tmp_path / "base")


@pytest.fixture
def dataset(tmp_path):
    return tiny.dataset(tmp_path / "data")


def make_recipe(base, dataset, **changes):
    """A recipe of a few fast steps; dropout stays on, so that the state of the random generators matters."""
    optim = {
        "device": "cpu",
        "bf16": False,
        "batch_size": 2,
        "accumulation": 1,
        "learning_rate": 1e-2,
        "max_steps": 6,
        "save_steps": 2,
    }
    return build_recipe(
        {"base": str(base), "dataset": str(dataset), **changes, "optim": optim | changes.get("optim", {})}
    )


def prompt_of(recipe):
    return ranking_prompt(recipe, contract.provenance(recipe.dataset))


def encoded(recipe, split="train", form="flat"):
    """What `train` makes of a recipe's rows, and what it makes them with."""
    tokenizer = AutoTokenizer.from_pretrained(recipe.base)
    encoder = make_encoder(recipe, prompt_of(recipe), tokenizer, AutoConfig.from_pretrained(recipe.base))
    texts = contract.texts(recipe.dataset)
    rows = contract.read(recipe.dataset, recipe.summary, split)
    examples, counts = encode_rows(rows, texts, encoder, recipe.negatives, recipe.seed, form)
    return rows, texts, encoder, examples, counts


def adapter_bytes(run):
    return (run / "adapter" / "adapter_model.safetensors").read_bytes()


def snapshot(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("form", ["flat", "shared-prefix"])
def test_encoded_rows_are_the_same_however_few_become_columns_at_once(base, dataset, form, monkeypatch):
    recipe = make_recipe(base, dataset)
    *_, whole, counts = encoded(recipe, form=form)
    monkeypatch.setattr("trsr.recommender.examples.ROWS", 5)
    *_, joined, same = encoded(recipe, form=form)
    assert joined.data["input_ids"].num_chunks > 1 == whole.data["input_ids"].num_chunks
    assert (joined[:], joined.features, same) == (whole[:], whole.features, counts)


# What is computed in which precision


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("has", ["avx512_bf16", "amx_bf16", "avx2"])
def test_a_processor_with_bf16_trains_in_it_where_the_recipe_says_so(has, wanted, base, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {has: True}, raising=False)
    half = wanted and has != "avx2"
    seen = []
    learn = train.learn

    def look(trainer, checkpoints):
        made = learn(trainer, checkpoints)
        base = {weight.dtype for weight in trainer.model.parameters() if not weight.requires_grad}
        adapter = [weight for weight in trainer.model.parameters() if weight.requires_grad]
        moments = trainer.optimizer.state[adapter[0]]["exp_avg"]
        seen.append((base, {weight.dtype for weight in adapter}, moments.dtype, trainer.accelerator.mixed_precision))
        return made

    monkeypatch.setattr(train, "learn", look)
    optim = {"bf16": wanted, "max_steps": 2, "gradient_checkpointing": False}
    recipe = make_recipe(base, dataset, form="shared-prefix", optim=optim)
    record = train.train(recipe, tmp_path / "run")
    assert (record["precision"], record["plan"]) == ("bf16" if half else "fp32", "joint")
    in_use, full = (torch.bfloat16 if half else torch.float32), torch.float32
    assert seen == [({in_use}, {full}, full, "bf16" if half else "no")]
    assert {weight.dtype for weight in load_file(tmp_path / "run/adapter/adapter_model.safetensors").values()} == {full}


@pytest.mark.parametrize(
    ("capabilities", "dtype", "size", "said"),
    [
        ({"avx2": True}, torch.bfloat16, NOTABLE, True),
        ({"avx2": True}, torch.bfloat16, NOTABLE - 1, False),
        ({"avx2": True}, torch.float32, NOTABLE, False),
        ({"avx512_bf16": True}, torch.bfloat16, NOTABLE, False),
        ({}, torch.bfloat16, NOTABLE, False),  # torch cannot tell
        ({"architecture": "aarch64", "bf16": True}, torch.bfloat16, NOTABLE, False),
        ({"architecture": "aarch64", "neon": True}, torch.bfloat16, NOTABLE, False),
    ],
)
def test_a_base_in_bf16_on_a_processor_that_has_none_is_told(capabilities, dtype, size, said, monkeypatch, caplog):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    model = torch.nn.Module()
    model.weights = torch.nn.Parameter(torch.empty(1, dtype=dtype).expand(size))  # takes no memory
    warn_if_slow(model, "bases/smollm2")
    assert ("bases/smollm2 is in bf16, and this processor has no arithmetic in it" in caplog.text) == said


def test_torch_that_cannot_tell_trains_in_fp32(base, dataset, tmp_path, monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    record = train.train(make_recipe(base, dataset, optim={"bf16": True, "max_steps": 1}), tmp_path / "run")
    assert record["precision"] == "fp32"


@pytest.mark.parametrize("told", ["bf16", "fp16"])
def test_the_recipe_decides_the_precision_whatever_the_launcher_says(told, base, dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", told)
    seen, learn = [], train.learn
    monkeypatch.setattr(
        train, "learn", lambda trainer, *rest: seen.append(trainer.accelerator.mixed_precision) or learn(trainer, *rest)
    )
    record = train.train(make_recipe(base, dataset, optim={"max_steps": 1}), tmp_path / "run")
    assert (seen, record["precision"]) == (["no"], "fp32")
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == told
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert train.training_arguments(make_recipe(base, dataset), tmp_path, True, True).mixed_precision == "bf16"


# What is learnt from


@pytest.mark.compat
@pytest.mark.parametrize("kind", BASES)
def test_the_loss_is_on_the_answer_alone(kind, tmp_path, dataset):
    recipe = make_recipe(tiny.save_base(BASES[kind], tmp_path / "base"), dataset, negatives=2)
    rows, texts, encoder, examples, counts = encoded(recipe)

    assert encoder.chat is (kind == "chat")
    assert len(examples) == counts["rows"] == 3 * len(rows)
    assert counts["tokens"] == sum(map(len, examples["input_ids"]))
    assert counts["shortened"] == 0
    for example, (row, item_id, label) in zip(examples, labelled(rows, 2, recipe.seed), strict=True):
        *prompt, answer = example["input_ids"]
        assert example["labels"] == [-100] * len(prompt) + [answer]
        assert answer == (encoder.yes_id if label else encoder.no_id)
        assert label == (item_id == row["target"])
        history = [Item.parse(texts[one]) for one in row["history"]]
        suffix = encoder.suffix_ids(Item.parse(texts[item_id]))
        assert prompt == encoder.prefix_ids(row["summary"], history, len(suffix)).ids + suffix


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("recent_items", [0, 3, 50])
def test_training_and_evaluation_see_the_same_ids(kind, recent_items, tmp_path, dataset):
    recipe = make_recipe(tiny.save_base(BASES[kind], tmp_path / "base"), dataset, recent_items=recent_items)
    rows, texts, encoder, examples, _ = encoded(recipe, "test")

    scorer = Scorer(AutoModelForCausalLM.from_pretrained(recipe.base), encoder.yes_id, encoder.no_id, plan="batch")
    forwarded = []
    scorer.model.register_forward_pre_hook(
        lambda module, args, kwargs: forwarded.extend(kwargs["input_ids"].tolist()), with_kwargs=True
    )
    score(Candidates.of(rows, 0), texts, encoder, scorer)

    assert len(forwarded) == 7 * len(rows)
    for example in examples:
        prompt = example["input_ids"][:-1]
        # A row is padded on the right, with zeros.
        padded = [row for row in forwarded if row[: len(prompt)] == prompt]
        assert any(not any(row[len(prompt) :]) for row in padded)


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("max_tokens", [0, 150])
def test_both_forms_hold_the_same_prompts(kind, max_tokens, tmp_path):
    dataset = tiny.dataset(tmp_path / "data", summary="genre: sea stories x6, travel x2; " * 6)
    base = tiny.save_base(BASES[kind], tmp_path / "base")
    recipe = make_recipe(base, dataset, negatives=4, max_tokens=max_tokens)
    rows, _, _, flat, counts = encoded(recipe)
    _, _, _, users, same = encoded(recipe, form="shared-prefix")

    assert same == counts
    assert len(users) == len(rows)
    unfolded = []
    for user in users:
        start, *lengths = user["seq_lengths"]
        ids = iter(user["input_ids"])
        prefix = list(islice(ids, start))
        suffixes = [list(islice(ids, length)) for length in lengths]
        assert list(ids) == []
        assert len({suffix[0] for suffix in suffixes}) > 1  # what all begin with is in the prefix
        unfolded += [[*prefix, *suffix, answer] for suffix, answer in zip(suffixes, user["labels"], strict=True)]
    assert unfolded == flat["input_ids"]


@pytest.mark.compat
@pytest.mark.parametrize("plan", PLANS)
def test_what_is_scored_was_trained(plan, base, dataset):
    """One forward over a training row gives the log-odds that evaluation reports."""
    recipe = make_recipe(base, dataset)
    rows, texts, encoder, examples, _ = encoded(recipe, "test")

    model = AutoModelForCausalLM.from_pretrained(recipe.base).eval()
    scorer = Scorer(model, encoder.yes_id, encoder.no_id, plan=plan)
    candidates = Candidates.of(rows, 0)
    scores = score(candidates, texts, encoder, scorer).log_odds
    for place, (example, (row, item_id, _)) in enumerate(zip(examples, labelled(rows, 1, recipe.seed), strict=True)):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([example["input_ids"][:-1]])).logits[0, -1]  # (vocabulary,)
        user = place // 2
        assert row["user_id"] == rows["user_id"][user]
        found = scores[user, candidates.item_ids[user].index(item_id)]
        assert found == pytest.approx((logits[encoder.yes_id] - logits[encoder.no_id]).item(), abs=1e-4)


def test_negatives_hang_on_seed_and_user_alone(dataset):
    rows = contract.read(str(dataset), "recurrent", "train")

    def drawn(rows, negatives, seed):
        return {(row["user_id"], item_id) for row, item_id, label in labelled(rows, negatives, seed) if not label}

    assert drawn(rows, 2, 0) == drawn(rows.select(range(len(rows) - 1, -1, -1)), 2, 0)
    assert drawn(rows, 2, 0) != drawn(rows, 2, 1)
    assert len(drawn(rows, 6, 0)) == 6 * len(rows)
    assert not {(row["user_id"], row["target"]) for row in rows} & drawn(rows, 6, 0)


def test_too_few_negatives(base, dataset, tmp_path):
    recipe = make_recipe(base, dataset, negatives=7)
    with pytest.raises(DataError, match=r"User 'u0' has 6 negatives, the recipe asks for 7\. Lower `negatives`"):
        train.train(recipe, tmp_path / "run")
    # Nothing was started: the folder is free for the next try.
    assert list((tmp_path / "run").iterdir()) == []


def test_long_prompts_are_shortened_and_never_cut(base, tmp_path):
    dataset = tiny.dataset(tmp_path / "data", summary="genre: sea stories x6, travel x2; " * 6)
    recipe = make_recipe(base, dataset, max_tokens=150)
    rows, texts, encoder, examples, counts = encoded(recipe)

    _, _, _, whole, free = encoded(make_recipe(base, dataset, max_tokens=0))
    assert free["shortened"] == 0
    assert max(map(len, whole["input_ids"])) > 150
    assert max(map(len, examples["input_ids"])) > 140
    assert counts["shortened"] == counts["rows"] == len(examples) == free["rows"]
    starts = {}
    for example, (row, item_id, _) in zip(examples, labelled(rows, 1, recipe.seed), strict=True):
        ids = example["input_ids"]
        suffix = encoder.suffix_ids(Item.parse(texts[item_id]))
        assert len(ids) <= 150
        assert ids[-1] in (encoder.yes_id, encoder.no_id)
        assert ids[-1 - len(suffix) : -1] == suffix
        # A user's prompts are shortened alike, by the longest of them.
        start = starts.setdefault(row["user_id"], ids[: -1 - len(suffix)])
        assert start == ids[: -1 - len(suffix)]
        assert encoder.tokenizer.decode(ids).startswith(f"<s>{encoder.prompt.instruction}")

    # The item is named whose text is too long.
    with pytest.raises(
        DataError, match=r"^Item 'i\d+', a candidate of user '\w+': .* does not fit into 30 .* `trsr check`"
    ):
        encoded(make_recipe(base, dataset, max_tokens=30))


def test_the_trainer_gets_every_row_whole(base, tmp_path, monkeypatch):
    """TRL's own limit of 1,024 tokens would cut these answers off, and drop the rows without a word."""
    dataset = tiny.dataset(tmp_path / "data", summary="genre: sea stories x6, travel x2; " * 100)
    recipe = make_recipe(base, dataset, optim={"max_steps": 1})
    _, _, encoder, examples, counts = encoded(recipe)
    assert min(map(len, examples["input_ids"])) > 1024
    seen = []

    def look(trainer, **kwargs):
        seen.extend(batch for batch in trainer.get_train_dataloader())
        raise KeyboardInterrupt

    monkeypatch.setattr(train.AdapterTrainer, "train", look)
    with pytest.raises(KeyboardInterrupt):
        train.train(recipe, tmp_path / "run")

    found = []
    for batch in seen:
        for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
            kept = mask.bool()
            found.append(ids[kept].tolist())
            assert labels[labels != -100].tolist() == found[-1][-1:]
            assert found[-1][-1] in (encoder.yes_id, encoder.no_id)
    assert sorted(found) == sorted(examples["input_ids"])
    assert sum(map(len, found)) == counts["tokens"]


# What a run leaves


@pytest.mark.compat
def test_same_seed_same_bytes(base, dataset, tmp_path):
    first, second, other = (tmp_path / name for name in ("first", "second", "other"))
    record = train.train(make_recipe(base, dataset), first)
    again = train.train(make_recipe(base, dataset), second)
    train.train(make_recipe(base, dataset, seed=1), other)

    assert adapter_bytes(first) == adapter_bytes(second)
    assert adapter_bytes(first) != adapter_bytes(other)
    for name in ("adapter_config.json", "ranking_prompt.json"):
        assert (first / "adapter" / name).read_bytes() == (second / "adapter" / name).read_bytes()
    config = json.loads((first / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["target_modules"] == ["k_proj", "o_proj", "q_proj", "v_proj"]
    assert config["base_model_name_or_path"] == str(base)
    untimed = {"seconds": 0, "cpu_seconds": 0}
    assert record | untimed == again | untimed
    assert sorted(path.name for path in first.iterdir()) == ["adapter", "recipe.yaml", "run.json", "trained_on.json"]
    assert yaml.safe_load((first / "recipe.yaml").read_text(encoding="utf-8")) == record["recipe"]


@pytest.mark.compat
def test_the_adapter_learns(base, dataset, tmp_path):
    """And what load_run gives back is the adapter on its base, with the prompt it was trained on."""
    first = train.train(make_recipe(base, dataset, optim={"max_steps": 1}), tmp_path / "first")
    recipe = make_recipe(base, dataset, max_tokens=1000, optim={"max_steps": 30})
    record = train.train(recipe, tmp_path / "run")
    assert record["loss"] < 0.8 * first["loss"]

    loaded = Run.read(tmp_path / "run")
    encoder, scorer = load_run(loaded)
    assert loaded.recipe == recipe
    assert encoder.prompt == prompt_of(recipe)
    rows, texts = contract.read(str(dataset), "recurrent", "test"), contract.texts(str(dataset))
    candidates = Candidates.of(rows, 0)
    with_adapter = score(candidates, texts, encoder, scorer).log_odds
    without = score(candidates, texts, encoder, load_run(loaded, adapter=False)[1]).log_odds
    assert abs(with_adapter - without).max() > 0.1


# What a kill leaves


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("form", FORMS)
def test_a_killed_run_ends_as_if_it_had_not_been(form, base, dataset, tmp_path):
    recipe = make_recipe(base, dataset, form=form, optim={"max_steps": 40})
    train.train(recipe, tmp_path / "unbroken")

    run, mine = tmp_path / "broken", tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump(recipe.to_dict()), encoding="utf-8")
    words = ["train", str(mine), "--out", str(run)]
    process = subprocess.Popen(
        [sys.executable, "-m", "trsr", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (run / "checkpoints" / "checkpoint-4" / "trainer_state.json").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (run / "run.json").exists()
    assert not (run / "adapter").exists()
    spent = run / "checkpoints" / train.SPENT
    assert json.loads(spent.read_text())["cpu_seconds"] > 0
    spent.write_text(json.dumps({"seconds": 1000, "cpu_seconds": 2000}))

    main(words)

    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert 2 <= record["resumed_from_step"] < 40
    assert 1000 < record["seconds"] < 1900  # with what the killed one had spent
    assert 2000 < record["cpu_seconds"] < 2900
    assert record["steps"] == 40
    assert adapter_bytes(run) == adapter_bytes(tmp_path / "unbroken")


@pytest.fixture(scope="module")
def _stopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    recipe = make_recipe(tiny.save_base(BASES["plain"], folder / "base"), tiny.dataset(folder / "data"))
    train.train(recipe, folder / "runs" / "unbroken")

    def killed(*args):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "save_adapter", killed)
        with pytest.raises(KeyboardInterrupt):
            train.train(recipe, folder / "runs" / "run")
    checkpoints = folder / "runs" / "run" / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["checkpoint-4", "checkpoint-6", train.SPENT]
    return recipe, folder / "runs"


@pytest.fixture
def stopped(_stopped, tmp_path):
    """A run stopped between its last checkpoint and its adapter, and the same one unbroken: copies of the test's own."""
    recipe, runs = _stopped
    shutil.copytree(runs, tmp_path / "runs")
    return recipe, tmp_path / "runs" / "run", tmp_path / "runs" / "unbroken"


def test_a_run_killed_after_its_last_step(stopped):
    recipe, run, unbroken = stopped
    record = train.train(recipe, run)
    assert (record["steps"], record["resumed_from_step"], record["loss"]) == (6, 6, None)
    assert adapter_bytes(run) == adapter_bytes(unbroken)


def test_the_best_checkpoint_of_a_moved_run_is_where_it_lies_now(stopped, tmp_path):
    recipe, run, _ = stopped
    recipe = replace(recipe, watch=Watch(steps=2, keep="best"))
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe.to_dict()))
    path = run / "checkpoints" / "checkpoint-6" / "trainer_state.json"
    state = json.loads(path.read_text())
    state |= {"best_global_step": 4, "best_model_checkpoint": "elsewhere/checkpoint-4", "best_metric": 0.5}
    path.write_text(json.dumps(state))
    best = (run / "checkpoints" / "checkpoint-4" / "adapter_model.safetensors").read_bytes()
    moved = run.rename(tmp_path / "moved")
    train.train(recipe, moved)
    assert load(adapter_bytes(moved)).keys() == load(best).keys()
    assert all(torch.equal(load(adapter_bytes(moved))[name], weight) for name, weight in load(best).items())


@pytest.mark.parametrize("state", [None, "", '{"global_step": 6, "log_his'], ids=["none", "empty", "cut"])
def test_a_half_written_checkpoint_is_passed_over(stopped, state):
    """The Trainer writes into the checkpoint's own folder, file by file."""
    recipe, run, unbroken = stopped
    newest = run / "checkpoints" / "checkpoint-6"
    (newest / "trainer_state.json").unlink()
    (newest / "adapter_model.safetensors").write_bytes(b"cut")
    (newest / "optimizer.pt").unlink()
    if state is not None:
        (newest / "trainer_state.json").write_text(state, encoding="utf-8")

    record = train.train(recipe, run)

    assert record["resumed_from_step"] == 4
    assert adapter_bytes(run) == adapter_bytes(unbroken)


def test_no_whole_checkpoint_starts_anew(stopped):
    recipe, run, unbroken = stopped
    for path in (run / "checkpoints").glob("checkpoint-*"):
        (path / "trainer_state.json").unlink()
    assert train.train(recipe, run)["resumed_from_step"] == 0
    assert adapter_bytes(run) == adapter_bytes(unbroken)


def test_the_newest_checkpoint_is_the_one_with_most_steps(tmp_path):
    path, state = train.last_checkpoint(tmp_path / "none")
    assert (path, state.global_step) == (None, 0)
    for step in (8, 10, 200):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        TrainerState(global_step=step).save_to_json(str(folder / "trainer_state.json"))
    path, state = train.last_checkpoint(tmp_path)
    assert (path, state.global_step) == (tmp_path / "checkpoint-200", 200)


# What is refused


def refused(recipe, out, match):
    before = snapshot(out)
    with pytest.raises(train.TrainError, match=match):
        train.train(recipe, out)
    assert snapshot(out) == before


def test_a_folder_of_another_recipe(stopped):
    recipe, run, unbroken = stopped
    other = make_recipe(recipe.base, recipe.dataset, seed=3, optim={"epochs": 2})
    for folder in (run, unbroken):
        refused(other, folder, r"holds a run of another recipe \(differs in optim, seed\). Choose another --out.")


def test_a_run_goes_on_in_the_precision_in_which_it_began(stopped, monkeypatch):
    recipe, run, unbroken = stopped
    path = run / "trained_on.json"
    began = json.loads(path.read_text(encoding="utf-8"))
    assert began["precision"] == "fp32"
    path.write_text(json.dumps(began | {"precision": "bf16"}), encoding="utf-8")
    refused(recipe, run, "began in bf16, and would go on in fp32 on this machine. Finish it where it began")
    path.write_text(json.dumps({"rows": began["rows"]}), encoding="utf-8")
    refused(recipe, run, r"trained_on\.json lacks base, dataset_checksums, precision\. Train again")
    path.write_text(json.dumps(began), encoding="utf-8")
    train.train(recipe, run)
    assert adapter_bytes(run) == adapter_bytes(unbroken)


def test_a_start_that_failed_does_not_refuse_the_corrected_command(base, dataset, tmp_path, monkeypatch):
    def fails(*args, **more):
        raise RuntimeError("no account at this tracker")

    monkeypatch.setattr(train, "learn", fails)
    with pytest.raises(RuntimeError, match="no account"):
        train.train(make_recipe(base, dataset, seed=1), tmp_path / "run")
    monkeypatch.undo()
    recipe = make_recipe(base, dataset, optim={"max_steps": 1})
    train.train(recipe, tmp_path / "run")
    assert Run.read(tmp_path / "run").recipe == recipe


@pytest.mark.parametrize(
    ("tracker", "message"),
    [
        ("wandbb", "got 'wandbb', expected one of none, all, .*wandb"),
        ("wandb", "wandb is not installed. Run: pip install wandb, or leave it out"),
        ("comet_ml", "comet_ml is not installed. Run: pip install comet-ml"),
    ],
)
def test_what_it_cannot_report_to(tracker, message, base, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "get_available_reporting_integrations", list)
    recipe = make_recipe(base, dataset, watch={"report_to": tracker})
    refused(recipe, tmp_path / "run", f"watch.report_to: {message}")
    assert not (tmp_path / "run").exists()


def test_a_complete_run(stopped):
    recipe, _, unbroken = stopped
    refused(recipe, unbroken, "holds this run, complete. Choose another --out, or remove it.")


def test_a_folder_of_something_else(base, dataset, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work", encoding="utf-8")
    refused(make_recipe(base, dataset), tmp_path / "mine", "is not empty and holds no run. Choose another --out.")


def test_modules_that_the_base_has_not(base, dataset, tmp_path):
    recipe = make_recipe(base, dataset, lora={"target_modules": ["q_proj", "in_proj_qkv", "proj"]})
    with pytest.raises(train.TrainError) as caught:
        train.train(recipe, tmp_path / "run")
    assert str(caught.value) == (
        "lora.target_modules: this base has no module in_proj_qkv, proj. "
        "Its linear layers are down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj."
    )


def test_an_item_that_the_catalogue_lacks(base, dataset, tmp_path):
    rows = contract.read(str(dataset), "recurrent", "train").to_list()
    rows[1]["history"][0] = "gone"
    items = contract.read(str(dataset), "items", "train")
    tables = {"items": {"train": items}, "recurrent": {"train": Dataset.from_list(rows, features=contract.SUMMARIES)}}
    contract.write(dataset, tables, provenance={"made_by": "tests"}, body="# Tiny")
    with pytest.raises(DataError, match="split train, user 'u1': item 'gone' is not in the items config"):
        train.train(make_recipe(base, dataset), tmp_path / "run")


def user(history, **columns):
    return {"user_id": "u", "history": list(history), "target": "z", "negatives": ["x", "y"]} | columns


def test_earlier_targets_follow_full_blocks():
    rows = Dataset.from_list([user("abcdefg")], features=contract.HISTORIES)
    made = with_earlier_targets(rows, 5, 3, "none", 1)
    assert [("".join(row["history"]), row["target"]) for row in made] == [
        ("abcdefg", "z"),
        ("abcdef", "g"),
        ("abc", "d"),
    ]
    assert len(with_earlier_targets(rows, 2, 3, "none", 1)) == 2


@pytest.mark.parametrize(
    ("negatives", "expected"), [(1, {"z": "gxy", "g": "xy", "d": "gxy"}), (3, {"z": "gxy", "d": "gxy"})]
)
def test_an_earlier_target_is_none_of_its_negatives(negatives, expected):
    """In impressions it may be shown again later, and not clicked."""
    rows = Dataset.from_list([user("abcdefg", negatives=list("gxy"))], features=contract.HISTORIES)
    made = with_earlier_targets(rows, 5, 3, "none", negatives)
    assert {row["target"]: "".join(row["negatives"]) for row in made} == expected
    for row, item_id, label in labelled(made, negatives, 0):
        assert (item_id == row["target"]) is bool(label)


@pytest.mark.parametrize(
    ("history", "kept", "expected"),
    [
        ("abcdefg", ["s1", "s2", "s3"], [("abcdefg", "z", "s3"), ("abcdef", "g", "s2"), ("abc", "d", "s1")]),
        ("abcdef", ["s1", "s2"], [("abcdef", "z", "s2"), ("abc", "d", "s1")]),
        # The newest two of three blocks were summarised: of the time before them nothing is known.
        ("abcdefg", ["s2", "s3"], [("abcdefg", "z", "s3"), ("abcdef", "g", "s2")]),
        ("ab", ["s1"], [("ab", "z", "s1")]),
    ],
)
def test_earlier_targets_have_the_summary_of_their_time(history, kept, expected):
    rows = Dataset.from_list([user(history, block_summaries=kept, summary=kept[-1])], features=contract.SUMMARIES)
    made = with_earlier_targets(rows, 9, 3, "recurrent", 2)
    assert [("".join(row["history"]), row["target"], row["summary"]) for row in made] == expected
    assert all(row["block_summaries"][-1] == row["summary"] for row in made)
