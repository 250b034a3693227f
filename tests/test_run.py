"""What a run's folder says of it: on which data it was trained, what is measured of it, and that it is used as it is."""

import asyncio
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, load_dataset

from tests import strangers, tiny
from tests.test_train import BASES, make_recipe
from trsr.cli import main
from trsr.core.history import Item
from trsr.core.modeling import TextRichRecommender
from trsr.core.scoring import Scorer
from trsr.core.summarize import SummaryRequest
from trsr.core.summary_prompts import SETS, SummaryPrompts
from trsr.dataset import contract
from trsr.errors import CompareError, DataError, RecipeError, RunError, TrainError
from trsr.hub.inputs import ReleaseInputs
from trsr.hub.preflight import Options
from trsr.hub.publish import publish
from trsr.hub.release import assemble
from trsr.hub.repos import name_repos
from trsr.recommender import train
from trsr.recommender.compare.run import compare
from trsr.recommender.evaluate import evaluate_run
from trsr.recommender.recipe import build_recipe
from trsr.recommender.run import Run
from trsr.recommender.serving import load_recommender, pipeline_settings
from trsr.summaries.engines.base import Sampling
from trsr.summaries.engines.make import engine
from trsr.summaries.run import summarize_dataset


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one step, and its dataset: users u0 to u11 were trained on, u16 to u19 are those of the test split."""
    folder = tmp_path_factory.mktemp("trained")
    base, data = tiny.save_base(BASES["plain"], folder / "base"), tiny.dataset(folder / "data")
    train.train(make_recipe(base, data, optim={"max_steps": 1}), folder / "run")
    return folder / "run", data


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run, and of its dataset where the run's recipe names it."""
    folder = shutil.copytree(trained[0], tmp_path / "run")
    data = shutil.copytree(trained[1], tmp_path / "data")
    recipe = (folder / "recipe.yaml").read_text(encoding="utf-8").replace(str(trained[1]), str(data))
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    return folder


@pytest.fixture
def data(run, tmp_path):
    return tmp_path / "data"


def replaced(folder, **changes):
    """The dataset folder, holding another dataset."""
    shutil.rmtree(folder)
    return tiny.dataset(folder, **changes)


def test_a_run_is_read_once(run, data):
    found = Run.read(run)
    assert (found.recipe.dataset, found.recipe.seed, found.record["precision"]) == (str(data), 0, "fp32")
    assert found.recipe.config == "recurrent"
    assert set(found.checksums) == {"items", "histories", "recurrent"}
    assert found.checksums == found.data_checksums() == found.record["dataset_checksums"]
    assert found.fitted is None
    evaluate_run(run, run / "validation", split="validation")
    assert found.fitted == found.results("validation").temperature
    assert found.results("validation").weights == found.weights
    assert found.results("validation").checksums == found.checksums


@pytest.mark.parametrize("gone", ["run.json", "recipe.yaml", "trained_on.json", "adapter/adapter_model.safetensors"])
def test_a_folder_that_lacks_something_is_no_run(run, gone):
    (run / gone).unlink()
    with pytest.raises(RunError, match="No finished run" if gone == "run.json" else f"lacks {gone}. Train it again"):
        Run.read(run)


@pytest.mark.parametrize("gone", ["dataset_checksums", "base_checksum"])
def test_a_run_says_what_it_was_trained_on(run, gone):
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    del record[gone]
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(RunError, match=rf"run\.json lacks {gone}\. Train it again\.") as error:
        Run.read(run)
    assert "\n" not in str(error.value)


# Which data


def test_a_recipe_that_was_broken_by_hand_is_told(run):
    (run / "recipe.yaml").write_text("base: [nano")
    with pytest.raises(RecipeError, match=r"recipe\.yaml is not readable YAML"):
        Run.read(run)


def test_another_dataset_in_the_place_of_the_runs_is_refused(run, data):
    replaced(data, items=36)
    with pytest.raises(RunError, match=r"is not the dataset that .* its config items is sha256:.*--dataset") as error:
        evaluate_run(run, run / "test")
    assert "\n" not in str(error.value)
    assert not (run / "test").exists()
    with pytest.raises(RunError, match="is not the dataset"):
        load_recommender(str(run))
    # Asked for, it is measured, and says on what.
    found = evaluate_run(run, run / "other", dataset=str(data))
    assert found["dataset_checksums"] != Run.read(run).checksums


def test_users_that_were_trained_on_measure_nothing(run, data, tmp_path):
    """As where a dataset was rebuilt with a larger test split: its u8 to u11 stood in the run's training split."""
    other = tiny.dataset(tmp_path / "rebuilt", users=4)
    with pytest.raises(RunError, match=r"was trained on 4 of the 4 users of .*rebuilt, split test, such as user 'u10'"):
        evaluate_run(run, run / "test", dataset=str(other))


def test_where_splits_are_made_by_time_a_users_other_choice_may_be_measured(run, data, tmp_path):
    other = tiny.dataset(tmp_path / "rebuilt", users=4)
    rows = contract.read(str(other), "histories", "test")
    found = Run.read(run)
    with pytest.raises(RunError, match="4 of the 4 choices"):
        found.check_users(rows, "data", in_several_splits=True)
    targets = ["another"] * len(rows)
    found.check_users(rows.remove_columns("target").add_column("target", targets), "data", in_several_splits=True)


def test_a_user_in_all_splits_by_design_is_no_leak(run, tmp_path):
    """Leave-one-out: what was trained on is a user's choice of an item, and another choice of that user may be measured."""
    same, others = (tiny.dataset(tmp_path / name, users=4) for name in ("same", "others"))
    for folder in (same, others):
        record = {**contract.provenance(str(folder)).values, "protocol": {"split": "leave-one-out"}}
        (folder / contract.PROVENANCE_FILE).write_text(json.dumps(record), encoding="utf-8")
    [file] = (others / "recurrent").glob("test-*")
    table = pq.read_table(file)
    targets = pa.array([f"i{number}" for number in range(len(table))])
    pq.write_table(table.set_column(table.column_names.index("target"), "target", targets), file)
    with pytest.raises(RunError, match="4 of the 4 choices"):
        evaluate_run(run, run / "test", dataset=str(same))
    evaluate_run(run, run / "other", dataset=str(others))


def test_a_dataset_is_known_wherever_it_lies(run, data, tmp_path):
    data.rename(tmp_path / "moved")
    main(["evaluate", str(run), "--dataset", str(tmp_path / "moved")])
    assert Run.read(run).results("test").checksums == Run.read(run).checksums


def test_summaries_of_another_kind_may_come_and_go(run, data):
    shutil.rmtree(data / "hierarchical")
    assert Run.read(run).changed_data() == []


def test_a_run_does_not_go_on_with_another_dataset(trained, tmp_path, monkeypatch):
    data = tiny.dataset(tmp_path / "data")
    recipe = make_recipe(Run.read(trained[0]).recipe.base, data, optim={"max_steps": 4, "save_steps": 2})
    save = train.save_adapter
    monkeypatch.setattr(train, "save_adapter", lambda *parts: 1 / 0)  # killed when all is learnt
    with pytest.raises(ZeroDivisionError):
        train.train(recipe, tmp_path / "run")
    monkeypatch.setattr(train, "save_adapter", save)
    replaced(data, items=36)
    with pytest.raises(TrainError, match=r"has changed since this run began: its config items was sha256:"):
        train.train(recipe, tmp_path / "run")
    replaced(data)
    assert train.train(recipe, tmp_path / "run")["resumed_from_step"] == 4


def test_a_run_does_not_go_on_with_another_base_and_is_measured_on_none(trained, tmp_path, monkeypatch):
    base, data = tmp_path / "base", tiny.dataset(tmp_path / "data")
    shutil.copytree(Run.read(trained[0]).recipe.base, base)
    recipe = make_recipe(str(base), data, optim={"max_steps": 4, "save_steps": 2})
    save = train.save_adapter
    monkeypatch.setattr(train, "save_adapter", lambda *parts: 1 / 0)  # killed when all is learnt
    with pytest.raises(ZeroDivisionError):
        train.train(recipe, tmp_path / "run")
    monkeypatch.setattr(train, "save_adapter", save)
    weights = base / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with pytest.raises(TrainError, match=r"base has changed since this run began: it was sha256:"):
        train.train(recipe, tmp_path / "run")
    weights.write_bytes(kept)
    train.train(recipe, tmp_path / "run")
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    shutil.move(base, tmp_path / "moved")
    with pytest.raises(RunError, match="There is no folder"):
        evaluate_run(tmp_path / "run", tmp_path / "test")
    shutil.move(tmp_path / "moved", base)
    for measured in (
        lambda: evaluate_run(tmp_path / "run", tmp_path / "test"),
        lambda: load_recommender(str(tmp_path / "run")),
    ):
        with pytest.raises(RunError, match="is not the base that"):
            measured()


def test_what_is_trained_on_holds_the_earlier_targets_too(trained, tmp_path):
    plain = tiny.dataset(tmp_path / "plain")
    data = tmp_path / "data"
    summarize_dataset(str(plain), data, engine("extractive"), methods=("recurrent",), block_size=2)
    recipe = make_recipe(Run.read(trained[0]).recipe.base, data, optim={"max_steps": 1}, targets=3)
    train.train(recipe, tmp_path / "run")
    rows = json.loads((tmp_path / "run" / "trained_on.json").read_text())["rows"]
    found = json.loads((tmp_path / "run" / "run.json").read_text())["data"]
    assert len(rows) == found["targets"] > found["users"]
    user, item = rows[0]
    asked = Dataset.from_list(
        [{"user_id": user, "target": item, "history": history} for history in (["x"], ["x", item])]
    )
    run = Run.read(tmp_path / "run")
    run.check_users(asked.select([1]), "a later split", True)  # met again: no leak
    with pytest.raises(RunError, match="was trained on 1 of the 1 choices"):
        run.check_users(asked.select([0]), "another cut", True)


def test_a_release_of_another_dataset_is_refused(quickstarted, tmp_path):
    """It differs in a user that was trained on: the scores on test users are the same."""
    source = str(quickstarted[0] / "dataset")
    tables = {
        name: {
            split: contract.read(source, name, split) for split in (contract.SPLITS if name != "items" else ("train",))
        }
        for name in contract.CONFIGS[:4]
    }
    for name in contract.ROW_CONFIGS:
        tables[name]["train"] = tables[name]["train"].select(range(1, 16))
    contract.write(tmp_path / "other", tables, provenance=contract.provenance(source).values, body="# Other")
    run = quickstarted[0] / "runs" / "recurrent"
    with pytest.raises(RunError, match=r"is not the dataset that .* its config histories is"):
        publish(run, "ORG", "x", Options(), folder=tmp_path / "release", dataset=str(tmp_path / "other"))
    assert not (tmp_path / "release").exists()


def test_a_comparison_takes_no_slices_from_another_dataset(run, data, tmp_path):
    """Same users and targets, another text: what a slice counts may be another's."""
    evaluate_run(run, run / "test")
    compare([str(run / "test")], tmp_path / "compared", dataset=str(data), plots=False)
    rows = contract.read(str(data), "items", "train").to_list()
    tables = {
        name: {split: contract.read(str(data), name, split) for split in contract.SPLITS} for name in ("histories",)
    }
    rows[0]["text"] = "title: Another"
    tables["items"] = {"train": Dataset.from_list(rows, features=contract.items_features(contract.ITEM_COLUMNS))}
    contract.write(tmp_path / "other", tables, provenance={}, body="# Other")
    with pytest.raises(CompareError, match=r"scored another dataset than .*other: its config items was sha256:"):
        compare([str(run / "test")], tmp_path / "compared", dataset=str(tmp_path / "other"), plots=False)


# What is measured


def test_what_is_limited_or_changed_has_a_folder_of_its_own(run, tmp_path):
    other = tiny.dataset(tmp_path / "popular", negatives=3)
    main(["evaluate", str(run)])
    whole = (run / "test" / "results.json").read_bytes()
    for words, name in (
        (["--limit", "2"], "test-limit-2"),
        (["--dataset", str(other)], "test-popular"),
        (["--no-adapter"], "test-no-adapter"),
        (["--shuffle-summaries", "--limit", "3"], "test-shuffled-limit-3"),
        (["--dataset", str(tmp_path / "data"), "--limit", "9"], "test-limit-9"),  # the run's own, named
    ):
        main(["evaluate", str(run), *words])
        assert (run / name / "results.json").is_file(), name
    assert (run / "test" / "results.json").read_bytes() == whole

    def limit(name):
        return json.loads((run / name / "results.json").read_text(encoding="utf-8"))["limit"]

    assert [limit(name) for name in ("test", "test-limit-2", "test-limit-9")] == [0, 2, 0]
    # Baselines are those of the whole split.
    every, first = (pq.read_table(run / name / "scores.parquet") for name in ("test", "test-limit-2"))
    assert first["item-knn"].to_pylist() == every["item-knn"].to_pylist()[: len(first)]


@pytest.mark.parametrize("changed", ["texts", "prompt"])
def test_a_killed_evaluation_starts_anew_where_texts_or_prompt_changed(run, data, tmp_path, monkeypatch, changed):
    asked = Scorer.log_odds
    left = [2]

    def killed(self, *given):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return asked(self, *given)

    monkeypatch.setattr(Scorer, "log_odds", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate_run(run, tmp_path / "out", dataset=str(data))
    monkeypatch.setattr(Scorer, "log_odds", asked)
    if changed == "texts":
        tables = {
            name: {split: contract.read(str(data), name, split) for split in contract.SPLITS}
            for name in contract.ROW_CONFIGS
        }
        items = contract.read(str(data), "items", "train").to_list()
        items = [{**item, "text": f"title: New {item['title']}"} for item in items]
        tables["items"] = {"train": Dataset.from_list(items, features=contract.items_features(contract.ITEM_COLUMNS))}
        contract.write(data, tables, provenance=contract.provenance(str(data)).values, body="# Changed")
    else:
        recipe = (run / "recipe.yaml").read_text(encoding="utf-8").replace("recent_items: 5", "recent_items: 2")
        (run / "recipe.yaml").write_text(recipe, encoding="utf-8")
    again = evaluate_run(run, tmp_path / "out", dataset=str(data))
    fresh = evaluate_run(run, tmp_path / "fresh", dataset=str(data))
    assert again["systems"] == fresh["systems"]
    scores = [(tmp_path / name / "scores.parquet").read_bytes() for name in ("out", "fresh")]
    assert scores[0] == scores[1]


# How summaries were cut


def test_earlier_targets_need_the_size_of_the_blocks(trained, tmp_path):
    """A guess would show a summary that holds the target."""
    recipe = Run.read(trained[0]).recipe
    assert contract.provenance(recipe.dataset).values == {"made_by": "tests"}
    with pytest.raises(DataError, match="does not say the block_size of its summaries"):
        train.train(build_recipe({**recipe.to_dict(), "targets": 2}), tmp_path / "run")
    made = train.train(build_recipe({**recipe.to_dict(), "targets": 2, "summary": "none"}), tmp_path / "none")
    assert made["data"]["targets"] == 2 * made["data"]["users"]


# Used as it is

OFFLINE = """
import json, sys
from transformers import pipeline
*folders, request = sys.argv[1:]
for folder in folders:
    recommender = pipeline("text-rich-recommendation", model=folder, trust_remote_code=True)
    answer = recommender(json.loads(request))
    print(json.dumps([one["log_odds"] for one in sorted(answer["candidates"], key=lambda one: one["index"])]))
"""


@pytest.fixture(scope="module")
def release(quickstarted, tmp_path_factory):
    """What `trsr publish` assembles before anything is on the Hub: its repos name one another as they will there."""
    inputs = ReleaseInputs.read(quickstarted[0] / "runs" / "recurrent")
    return assemble(inputs, tmp_path_factory.mktemp("assembled") / "release", name_repos("ORG", "unpublished")).folder


@pytest.fixture(scope="module")
def asked(quickstarted):
    """A request of a test user, and the run's own log-odds for its candidates."""
    dataset = str(quickstarted[0] / "dataset")
    texts, row = contract.texts(dataset), contract.read(dataset, "recurrent", "test")[0]
    scores = load_dataset(
        "parquet", data_files=str(quickstarted[0] / "runs" / "recurrent" / "test" / "scores.parquet"), split="train"
    )
    own = {one["item_id"]: one["recurrent"] for one in scores if one["row"] == 0}
    request = {"history": [texts[item] for item in row["history"]], "candidates": [texts[item] for item in own]}
    return request, list(own.values())


def log_odds(recommender, request):
    answer = recommender(request)
    return [one["log_odds"] for one in sorted(answer["candidates"], key=lambda one: one["index"])]


def test_a_release_loads_before_it_is_on_the_hub(stranger, release, asked, tmp_path):
    """By strangers' libraries alone, with no network and an empty cache, wherever the folder lies."""
    moved = shutil.copytree(release, tmp_path / "moved")
    given = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "CUDA_VISIBLE_DEVICES": ""}
    done = strangers.run(
        stranger, OFFLINE, given, str(release / "pipeline"), str(moved / "pipeline"), json.dumps(asked[0])
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for line in done.stdout.splitlines():
        assert json.loads(line) == pytest.approx(asked[1], abs=1e-4)


def test_runs_and_releases_are_asked_as_they_are(quickstarted, release, asked):
    for source in (quickstarted[0] / "runs" / "recurrent", release, release / "pipeline"):
        found = log_odds(load_recommender(str(source), device="cpu"), asked[0])
        assert found == pytest.approx(asked[1], abs=1e-4), source
    assert "default" in TextRichRecommender.from_pretrained(release / "adapter").peft_config


def test_only_what_the_release_names_is_taken_for_a_repo(release, asked, tmp_path):
    """Folders that merely lie beside a pipeline, and a release of other repos, are no copies of what it names."""
    for change in (lambda names: None, lambda names: names | {"adapter": "ORG/another"}, lambda names: [names]):
        folder = shutil.copytree(release, tmp_path / "release")
        names = change(json.loads((folder / "release.json").read_text(encoding="utf-8")))
        (folder / "release.json").unlink()
        if names:
            (folder / "release.json").write_text(json.dumps(names), encoding="utf-8")
        with pytest.raises(ValueError, match=r"cannot be loaded: .*ORG/"):
            load_recommender(str(folder), device="cpu")
        shutil.rmtree(folder)


def test_the_demo_shows_a_run(quickstarted, asked):
    pytest.importorskip("gradio")
    client = pytest.importorskip("gradio_client")
    from tests.test_demo import stated
    from trsr.cli.demo import demo

    run = quickstarted[0] / "runs" / "recurrent"
    page = demo(run, prevent_thread_lock=True, quiet=True)
    try:
        shown = stated(page)
        assert (shown["model"], shown["license"], shown["dataset license"]) == (
            "runs/recurrent",
            "apache-2.0",
            "apache-2.0",
        )
        history, candidates = ("\n".join(asked[0][name]) for name in ("history", "candidates"))
        answer = client.Client(page.local_url, verbose=False).predict(history, candidates, api_name="/rank")
        own = load_recommender(str(run), device="cpu")(asked[0])
        assert [one["text"] for one in answer["candidates"]] == [one["item"] for one in own["candidates"]]
    finally:
        page.close()


def test_who_ranks_summarises_as_the_training_data_was(tmp_path):
    """With the same prompts and sampling: in the run, in its release and in a copy of that."""
    base = tiny.save_base(BASES["chat"], tmp_path / "base")
    sampling = Sampling(max_new_tokens=12, answer_penalty=1.3)
    asked = engine(f"transformers:{base}", sampling=sampling, prompts="small")
    summarize_dataset(str(tiny.dataset(tmp_path / "plain")), tmp_path / "data", asked, keep_going=True)
    recipe = make_recipe(base, tmp_path / "data", optim={"max_steps": 1})
    run = train.train(recipe, tmp_path / "run") and Run.read(tmp_path / "run")
    for split in ("validation", "test"):
        evaluate_run(run.folder, run.folder / split, split=split)
    release = assemble(ReleaseInputs.read(run.folder), tmp_path / "release")
    settings = json.loads((release.folder / "pipeline" / "config.json").read_text(encoding="utf-8"))["trsr"]
    assert SummaryPrompts.from_dict(settings["summary_prompts"]) == asked.prompts == SETS["small"]
    assert settings["summary_sampling"] == {"max_new_tokens": 12, "answer_penalty": 1.3}
    assert settings["summarizer"] == "base-model"

    history = ["title: Book 1; genre: travel", "title: Book 4; genre: travel"]
    request = asked.request(SummaryRequest("block", block=tuple(map(Item, history))))
    (answer,) = asyncio.run(asked.answers([request]))
    expected = asked.prompts.summary(answer.text)
    of_run, of_release = load_recommender(str(run.folder)), load_recommender(str(release.folder))
    of_release.save_pretrained(tmp_path / "copy")
    for recommender in (of_run, of_release, load_recommender(str(tmp_path / "copy"))):
        assert recommender.update("", history) == expected
    of_run._summary_prompts = SETS["default"]
    assert of_run.update("", history) != expected

    provenance = json.loads((tmp_path / "data/provenance.json").read_text(encoding="utf-8"))
    provenance["summaries"] |= {"prompts": SETS["default"].to_dict(), "sampling": Sampling().to_dict()}
    (tmp_path / "data/provenance.json").write_text(json.dumps(provenance), encoding="utf-8")
    default = contract.provenance(recipe.dataset)
    assert not {"summary_prompts", "summary_sampling"} & set(pipeline_settings(recipe, None, default))
