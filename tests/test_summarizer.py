"""A summariser that is trained for ranking: what is sampled, what is kept, and an adapter that serves as it was trained."""

import json
import math
import shutil
import subprocess

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import tiny
from trsr.assets.paths import NANO_SUMMARIZER, base_path
from trsr.cli import main
from trsr.core.generation import ModelSummarizer
from trsr.core.history import Item, blocks_by_count
from trsr.core.prompts import Encoder
from trsr.core.summarize import SummaryRequest, summarize
from trsr.core.summary_prompts import SETS
from trsr.dataset import contract
from trsr.dataset.candidates import Candidates
from trsr.errors import DataError, TrainError, UsageError
from trsr.hub.inputs import ReleaseInputs
from trsr.hub.release import assemble
from trsr.hub.repos import LOCAL
from trsr.recommender.evaluate import evaluate_run
from trsr.recommender.recipe import build_recipe
from trsr.recommender.run import Run, data_checksums
from trsr.recommender.serving import load_recommender, pipeline_settings
from trsr.recommender.summarizer import run as path
from trsr.recommender.summarizer.fine_tune import Tuning, answer_row
from trsr.recommender.summarizer.run import train_summarizer
from trsr.recommender.summarizer.sample import last_question, sample, sampling_engine
from trsr.recommender.summarizer.select import keep_best, log_probabilities, with_samples, without_held_out
from trsr.recommender.summarizer.trained_on import RECORD, warn_of_other_users
from trsr.recommender.train import train
from trsr.summaries.engines.base import Sampling, key_of
from trsr.summaries.engines.make import engine
from trsr.summaries.run import ParsedItems, summarize_dataset
from trsr.summaries.store import Store

TUNING = Tuning(epochs=8, learning_rate=3e-3, batch_size=2)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A base that summarises, a dataset that it summarised, and a ranker that was trained on six of its twelve users."""
    folder = tmp_path_factory.mktemp("summarizer")
    plain = AutoModelForCausalLM.from_pretrained(base_path("nano"), dtype=torch.float32, tie_word_embeddings=False)
    plain.lm_head.weight.data = plain.model.embed_tokens.weight.data.clone()  # the adapter changes both, differently
    merged = PeftModel.from_pretrained(plain, str(NANO_SUMMARIZER)).merge_and_unload()
    merged.save_pretrained(folder / "base")
    AutoTokenizer.from_pretrained(base_path("nano")).save_pretrained(folder / "base")
    tiny.sample(folder / "raw", train=12, validation=4, test=4)
    asked = engine(f"transformers:{folder / 'base'}", sampling=Sampling(48))
    summarize_dataset(str(folder / "raw"), folder / "data", asked, methods=("recurrent", "hierarchical"), max_blocks=3)
    train(recipe(folder, folder / "data", train_users=6), folder / "run")
    return folder


def recipe(home, data, **changes):
    optim = {"device": "cpu", "bf16": False, "batch_size": 2, "accumulation": 1, "learning_rate": 5e-3, "max_steps": 12}
    values = {
        "base": str(home / "base"),
        "dataset": str(data),
        "form": "shared-prefix",
        "negatives": 4,
        "name": "ranker",
    }
    return build_recipe({**values, "recent_items": 0, "optim": {**optim, "save_steps": 2}, **changes})


@pytest.fixture(scope="module")
def trained(home):
    """The record of a trained summariser, and its folder."""
    options = {"samples": 3, "margin": 0.0, "temperature": 1.0, "tuning": TUNING, "seed": 1, "users": 8}
    return train_summarizer(home / "run", home / "adapter", **options), home / "adapter"


def test_the_probability_of_the_next_item_is_a_softmax_over_the_candidates():
    rows = Dataset.from_list(
        [
            {"user_id": "a", "history": ["x"], "target": "t", "negatives": ["n", "m"]},
            {"user_id": "b", "history": ["x"], "target": "t", "negatives": ["n"]},
        ],
        features=contract.HISTORIES,
    )
    candidates = Candidates.of(rows, 0)
    odds = {"t": 2.0, "n": 1.0, "m": -1.0}
    values = log_probabilities(candidates.score(lambda row, ids: [odds[one] for one in ids]), candidates)
    assert values[0] == pytest.approx(2 - math.log(math.exp(2) + math.exp(1) + math.exp(-1)))
    assert values[1] == pytest.approx(2 - math.log(math.exp(2) + math.exp(1)))  # nothing past the end of a list counts


def test_the_best_is_kept_where_it_stands_out():
    samples = [["a", "b", "c"], ["d"], ["e", "f"], [], ["g", "h"]]
    values = np.array([-3.0, -1.0, -2.0, -0.1, -1.0, -1.02, -2.0, -2.0])
    kept = keep_best(samples, values, 0.05)
    assert [(one.row, one.summary, one.gain) for one in kept] == [(0, "b", 1.0)]
    # A single sample has nothing to stand out from, and of equal ones none does.
    assert [one.summary for one in keep_best(samples, values, 0.0)] == ["b", "e"]


def test_a_row_for_each_sample():
    features = contract.SUMMARIES
    rows = [
        {"user_id": user, "history": ["x"], "target": "t", "negatives": ["n"], "block_summaries": ["s"], "summary": "s"}
        for user in "abc"
    ]
    sampled = with_samples(Dataset.from_list(rows, features=features), [["1", "2"], [], ["3"]])
    assert list(zip(sampled["user_id"], sampled["summary"], strict=True)) == [("a", "1"), ("a", "2"), ("c", "3")]


def test_a_leak_is_caught():
    def rows(*pairs):
        known = {"history": ["x"], "negatives": ["n"]}
        return Dataset.from_list([{"user_id": user, "target": target, **known} for user, target in pairs])

    training = rows(("a", "t"), ("b", "t"))
    apart = {"validation": rows(("c", "t")), "test": rows(("d", "t"))}
    assert without_held_out(training, apart, by_target=False)["user_id"][:] == ["a", "b"]
    with pytest.raises(DataError, match="1 training users stand in the split test too, such as 'b'"):
        without_held_out(training, {"validation": rows(("c", "t")), "test": rows(("b", "u"))}, by_target=False)
    # Leave-one-out: a user is in all splits, each time with another target, or with the same one where histories repeat items.
    assert without_held_out(training, {"test": rows(("b", "u"))}, by_target=True)["user_id"][:] == ["a", "b"]
    assert without_held_out(training, {"test": rows(("b", "t"))}, by_target=True)["user_id"][:] == ["a"]


def test_a_summariser_of_other_users_is_told(home, tmp_path, caplog):
    data = str(home / "data")
    for histories, told in ((contract_checksum(data), 0), ("sha256:0", 1)):
        record = {"made_from": {"dataset": {"histories": histories}}}
        (tmp_path / RECORD).write_text(json.dumps(record))
        warn_of_other_users(tmp_path, data)
        assert caplog.text.count("was trained on next items of other histories") == told
    (tmp_path / RECORD).unlink()
    warn_of_other_users(tmp_path, data)


def contract_checksum(source):
    return data_checksums(source, "histories")["histories"]


def test_a_leak_in_the_dataset_stops_the_whole_path(home, tmp_path):
    tables = {config: dict(splits) for config, splits in contract.tables(str(home / "data")).items()}
    for config in ("histories", "recurrent", "hierarchical"):
        tables[config]["test"] = tables[config]["train"].select([7, 8])  # users that the ranker was not trained on
    provenance = contract.provenance(str(home / "data")).values
    contract.write(tmp_path / "data", tables, provenance=provenance, body="# Leaks")
    train(recipe(home, tmp_path / "data", train_users=6), tmp_path / "run")
    with pytest.raises(DataError, match="2 training users stand in the split test too"):
        train_summarizer(tmp_path / "run", tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("method", ["recurrent", "hierarchical"])
def test_the_last_question_is_that_of_the_dataset(home, method):
    """Asked without temperature, it is answered as it was: no other prompt is sampled than the one in use."""
    data = str(home / "data")
    rows = contract.read(data, method, "train").select(range(4))
    items = ParsedItems(contract.texts(data))
    questions = [last_question(row, items, method, 5) for row in rows]
    assert {one.kind for one in questions} == {"update" if method == "recurrent" else "merge"}
    asked = engine(f"transformers:{home / 'base'}", sampling=Sampling(48))
    keys = [asked.request(one).key for one in questions]
    held = Store(home / "data.store.sqlite").get(keys)
    for row, key in zip(rows, keys, strict=True):
        accepted = [one for one in held[key] if not one.problem]
        assert not accepted or asked.prompts.summary(accepted[0].text) == row["summary"]


def test_the_next_item_is_a_label_alone(home):
    data = str(home / "data")
    items = ParsedItems(contract.texts(data))
    for row in contract.read(data, "recurrent", "train"):
        other = {**row, "target": row["negatives"][0], "negatives": [row["target"], *row["negatives"][1:]]}
        assert last_question(row, items, "recurrent", 5) == last_question(other, items, "recurrent", 5)
    rows = contract.read(data, "recurrent", "train").select([0])
    swapped = rows.map(lambda row: {"target": row["negatives"][0], "negatives": [row["target"], *row["negatives"][1:]]})
    as_is, other = Candidates.of(rows, 0), Candidates.of(swapped, 0)
    assert as_is.item_ids == other.item_ids
    assert not np.array_equal(as_is.labels, other.labels)


def test_a_history_of_one_block_is_sampled_as_a_block():
    items = ParsedItems({"i": "title: A"})
    row = {"user_id": "u", "history": ["i", "i"], "block_summaries": ["s"]}
    assert last_question(row, items, "recurrent", 5).kind == "block"
    with pytest.raises(DataError, match="'u' has 2 block summaries for 1 blocks of 5"):
        last_question({**row, "block_summaries": ["s", "s"]}, items, "recurrent", 5)


def test_samples_differ_and_are_drawn_once(home, tmp_path):
    made = Run.read(home / "run")
    provenance = contract.provenance(made.recipe.dataset)
    items = ParsedItems(contract.texts(made.recipe.dataset))
    rows = contract.read(made.recipe.dataset, "recurrent", "train").select(range(3))
    questions = [last_question(row, items, "recurrent", 5) for row in rows]
    asked = sampling_engine(made.recipe, provenance.summaries, 1.0, 0)
    assert asked.sampling == Sampling(48, 1.0, 0)
    store = Store(tmp_path / "store.sqlite")
    first = sample(questions, asked, store, 3)
    assert max(map(len, first)) > 1
    assert all(len(set(summaries)) == len(summaries) <= 3 for summaries in first)
    count = len(store)
    # The model is gone: whatever is said now was kept.
    again = sampling_engine(made.recipe, provenance.summaries, 1.0, 0)
    again.__dict__["_loaded"] = None
    assert sample(questions, again, store, 3) == first
    assert len(store) == count
    other = sampling_engine(made.recipe, provenance.summaries, 1.0, 100)
    assert sample(questions, other, Store(tmp_path / "other.sqlite"), 3) != first


def test_what_is_trained_is_the_answer_in_its_form(home):
    tokenizer = AutoTokenizer.from_pretrained(home / "base")
    prompts, question = SETS["small"], SummaryRequest("merge", ("tea", "sea"))
    row = answer_row(Encoder(tokenizer), prompts, question, "tea and the sea.")
    asked = [label == -100 for label in row["labels"]]
    start = asked.index(False)
    assert not any(asked[start:])
    assert row["labels"][start:] == row["input_ids"][start:]
    assert row["input_ids"][-1] == tokenizer.eos_token_id
    assert tokenizer.decode(row["input_ids"][start:-1]) == "Likes: tea and the sea."
    assert row["input_ids"][:start] == Encoder(tokenizer).request_ids(prompts.text(question), prompts.turns("merge"))


def test_the_folder_says_what_it_was_made_from(home, trained):
    record, adapter = trained
    written = json.loads((adapter / "training.json").read_text())
    made = Run.read(home / "run")
    assert written == {name: value for name, value in record.items() if name != "seconds"}
    assert written["made_from"]["ranker"] == made.weights
    assert written["made_from"]["dataset"] == made.checksums
    assert (written["made_from"]["seed"], written["made_from"]["samples"]) == (1, 3)
    assert (written["users"], written["users_new_to_ranker"]) == (8, 6)
    assert 0 < written["kept"] <= 8
    assert written["mean_gain_of_kept"] > 0
    lines = [json.loads(line) for line in (home / "adapter-work/samples.jsonl").read_text().splitlines()]
    assert len(lines) == written["different_summaries"]
    training = set(contract.read(made.recipe.dataset, "recurrent", "train")["user_id"])
    assert {line["user_id"] for line in lines} <= training
    card = (adapter / "README.md").read_text()
    assert f"| ranker (SHA-256 of its adapter) | `{made.weights}` |" in card
    assert json.loads((adapter / "adapter_config.json").read_text())["peft_type"] == "LORA"


def test_it_goes_on_where_it_was_killed(home, trained, tmp_path, monkeypatch):
    """Killed when half is scored, and again in training: in the end the same bytes, and nothing is asked twice."""
    options = {"samples": 3, "margin": 0.0, "temperature": 1.0, "tuning": TUNING, "seed": 1, "users": 8}
    real, scored = path.score, []

    def killed_while_scoring(candidates, texts, encoder, scorer, label, partial):
        plain = scorer.log_odds

        def log_odds(prefix, suffixes):
            if len(scored) == 10:
                raise KeyboardInterrupt
            scored.append(prefix)
            return plain(prefix, suffixes)

        scorer.log_odds = log_odds
        return real(candidates, texts, encoder, scorer, label, partial)

    def whole():
        return train_summarizer(home / "run", tmp_path / "adapter", **options)

    monkeypatch.setattr(path, "score", killed_while_scoring)
    with pytest.raises(KeyboardInterrupt):
        whole()
    asked = len(Store(tmp_path / "adapter-work/generations.sqlite"))
    monkeypatch.setattr(path, "score", real)
    monkeypatch.setattr(path, "save_adapter", lambda *parts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        whole()
    assert len(Store(tmp_path / "adapter-work/generations.sqlite")) == asked
    monkeypatch.undo()
    whole()
    for name in ("adapter_model.safetensors", "training.json"):
        mine, theirs = (folder / name for folder in (tmp_path / "adapter", trained[1]))
        assert mine.read_bytes() == theirs.read_bytes(), name
    with pytest.raises(TrainError, match="is not empty"):
        whole()
    with pytest.raises(UsageError, match="seed was 1, is 2"):
        train_summarizer(home / "run", tmp_path / "other", **{**options, "seed": 2}, work=tmp_path / "adapter-work")


def test_the_advice_to_lower_the_margin_goes_with_the_same_folder(home, trained, tmp_path, monkeypatch):
    options = {"temperature": 1.0, "seed": 1, "users": 4, "tuning": TUNING}
    out = tmp_path / "adapter"
    with pytest.raises(TrainError, match="or lower --margin: what is answered is kept"):
        train_summarizer(home / "run", out, samples=2, margin=100.0, **options)
    asked = len(Store(tmp_path / "adapter-work/generations.sqlite"))
    monkeypatch.setattr(path, "save_adapter", lambda *parts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_summarizer(home / "run", out, samples=2, margin=0.0, **options)
    assert len(Store(tmp_path / "adapter-work/generations.sqlite")) == asked
    assert len(list((tmp_path / "adapter-work").glob("checkpoints-*"))) == 1
    monkeypatch.undo()
    record = train_summarizer(home / "run", out, samples=3, margin=0.0, **options)
    assert record["made_from"]["samples"] == 3
    assert not list((tmp_path / "adapter-work").glob("checkpoints*"))
    with pytest.raises(UsageError, match=r"made from something else: .*seed was 1, is 2"):
        train_summarizer(home / "run", tmp_path / "other", work=tmp_path / "adapter-work", **{**options, "seed": 2})


@pytest.mark.parametrize("values", [(0.0,), (3.0, -1e-4), (3.0, float("nan")), (3.0, 1e-4, 0), (float("inf"),)])
def test_what_is_no_tuning_is_said_at_once(values):
    with pytest.raises(UsageError, match="Fine-tuning takes epochs and a learning rate above 0, and at least 1 answer"):
        Tuning(*values)


def test_what_cannot_be_sampled_is_said(home, tmp_path, quickstarted):
    with pytest.raises(TrainError, match="are not those of its base"):
        train_summarizer(quickstarted[0] / "runs" / "recurrent", tmp_path / "a")  # extractive ones
    with pytest.raises(UsageError, match="at least 2 samples"):
        train_summarizer(home / "run", tmp_path / "a", samples=1)
    with pytest.raises(TrainError, match="none has a summary that exceeds"):
        train_summarizer(home / "run", tmp_path / "a", samples=2, users=2, margin=100.0)
    assert not (tmp_path / "a").exists()


def test_the_engine_takes_an_adapter(home, trained, tmp_path):
    adapter, name = trained[1], f"transformers:{home / 'base'}"
    with_it, plain = engine(name, adapter=adapter), engine(name)
    assert with_it.identity["adapter"]["name"] == "adapter"
    assert with_it.identity["revision"] != plain.identity["revision"]
    assert "adapter" not in plain.identity
    question = SummaryRequest("merge", ("tea", "sea"))
    assert with_it.request(question).key != plain.request(question).key
    # Of a base on the Hub the commit does not cover the adapter.
    hub = {"model": "ORG/base", "revision": "c" * 40, "sampling": {}}
    keys = {key_of(hub | {"adapter": {"name": "a", "revision": one}}, "text") for one in ("sha256:1", "sha256:2")}
    assert len(keys | {key_of(hub, "text")}) == 3
    with pytest.raises(UsageError, match="--adapter goes with --engine transformers:MODEL"):
        engine("extractive", adapter=adapter)
    with pytest.raises(UsageError, match="holds no adapter"):
        engine(name, adapter=tmp_path)


@pytest.fixture(scope="module")
def second(home, trained):
    """A dataset that the trained summariser wrote, by the command line, and a run on it."""
    words = ["--engine", f"transformers:{home / 'base'}", "--adapter", str(trained[1]), "--max-new-tokens", "48"]
    main(
        [
            "summarize",
            str(home / "raw"),
            "--out",
            str(home / "second"),
            *words,
            "--max-blocks",
            "3",
            "--method",
            "recurrent",
        ]
    )
    train(recipe(home, home / "second", summarizer=str(trained[1]), name="second"), home / "run-second")
    for split in ("validation", "test"):
        evaluate_run(home / "run-second", home / "run-second" / split, split=split)
    return home / "run-second"


def test_provenance_names_the_adapter(home, trained, second):
    record = contract.provenance(str(home / "second")).summaries
    assert record.adapter == engine(f"transformers:{home / 'base'}", adapter=trained[1]).identity["adapter"]
    first = contract.provenance(str(home / "data")).summaries
    assert "adapter was None" in " ".join(first.differences(record.values))


def test_it_writes_other_summaries_than_its_base(home, second):
    plain, adapted = (contract.read(str(home / name), "recurrent", "test")["summary"] for name in ("data", "second"))
    assert plain != adapted


REQUESTS = """
import json, sys
from transformers import pipeline
pipe = pipeline("text-rich-recommendation", model=sys.argv[1], trust_remote_code=True)
history = json.loads(sys.argv[2])
answer = pipe({"history": history, "candidates": ["genre: tea", "genre: war"]}, return_summary=True)
print(json.dumps([answer["summary"], [one["log_odds"] for one in answer["candidates"]]]))
"""


def test_run_release_and_strangers_write_the_same_summary(home, trained, second, stranger, tmp_path):
    settings = pipeline_settings(Run.read(second).recipe, None, contract.provenance(str(home / "second")))
    assert (settings["summarizer"], settings["summarizer_adapter"]) == ("adapter", "summarizer")
    assemble(ReleaseInputs.read(second), tmp_path / "release", LOCAL)
    shipped = tmp_path / "release" / "adapter" / "summarizer"
    weights = [load_file(folder / "adapter_model.safetensors") for folder in (shipped, trained[1])]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    texts = contract.texts(str(home / "second"))
    rows = contract.read(str(home / "second"), "recurrent", "test")
    history = [texts[item] for item in rows[0]["history"]]
    request = {"history": history, "candidates": ["genre: tea", "genre: war"]}
    of_run = load_recommender(str(second))
    mine = of_run(request, return_summary=True)
    theirs = load_recommender(str(tmp_path / "release"))(request, return_summary=True)
    assert mine == theirs
    assert mine["summary"] != of_run(request, return_summary=True, summarizer="base-model")["summary"]
    # Offline, through the engine: as in the dataset, where the first try was taken.
    base = AutoModelForCausalLM.from_pretrained(home / "base", dtype="auto")
    adapted = PeftModel.from_pretrained(base, str(shipped)).eval()
    tokenizer = AutoTokenizer.from_pretrained(home / "base")
    writer = ModelSummarizer(adapted, Encoder(tokenizer, context=2048), max_new_tokens=48)
    blocks = blocks_by_count([Item.parse(text) for text in history], 5, 3)
    assert summarize([blocks], writer, "recurrent")[0].summary == mine["summary"]
    command = [str(stranger), "-c", REQUESTS, str(tmp_path / "release" / "pipeline"), json.dumps(history)]
    told = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert told.returncode == 0, told.stderr[-2000:]
    assert json.loads(told.stdout.splitlines()[-1])[0] == mine["summary"]


def test_a_recipe_that_names_another_adapter_is_refused(home, trained, second, tmp_path):
    with pytest.raises(UsageError, match="no adapter did"):
        train(recipe(home, home / "data", summarizer=str(trained[1])), tmp_path / "run")
    other = shutil.copytree(trained[1], tmp_path / "other")
    (other / "adapter_model.safetensors").write_bytes((NANO_SUMMARIZER / "adapter_model.safetensors").read_bytes())
    with pytest.raises(UsageError, match=r"the adapter adapter at sha256:\w+ did"):
        train(recipe(home, home / "second", summarizer=str(other)), tmp_path / "run")
    with pytest.raises(UsageError, match="there is no adapter"):
        train(recipe(home, home / "second", summarizer=str(tmp_path)), tmp_path / "run")
    base = shutil.copytree(home / "base", tmp_path / "base")
    (base / "more.json").write_text("{}")
    with pytest.raises(UsageError, match="on another base"):
        train(recipe(home, home / "second", summarizer=str(trained[1]), base=str(base)), tmp_path / "run")
    # Without it the summaries are those of a model that a pipeline does not have.
    settings = pipeline_settings(recipe(home, home / "second"), None, contract.provenance(str(home / "second")))
    assert (settings["summarizer"], settings["summarizer_adapter"]) == ("other-model", None)
