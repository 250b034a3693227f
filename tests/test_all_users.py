"""Recommendations for all users of a dataset: who is asked for, what is left out, and a run that is killed goes on."""

import json
import math
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import Dataset, load_dataset
from tokenizers import normalizers

from tests import tiny
from tests.hub import Hub, environment
from tests.test_pipeline import recommender
from trsr.cli import main
from trsr.core.catalogue import Catalogue
from trsr.dataset import contract
from trsr.errors import DataError, InputError, RunError, UsageError
from trsr.records.provenance import Provenance
from trsr.retrieval import all_users, lists, recommendation_card
from trsr.retrieval.all_users import recommend_to_all
from trsr.retrieval.carried import catalogue_of, with_fitted_weight
from trsr.retrieval.identity import catalogue_checksum, model_checksum
from trsr.retrieval.retriever import Retriever
from trsr.retrieval.run import train_retriever
from trsr.retrieval.training import Settings
from trsr.retrieval.user_rows import UserRows

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """12 users, 30 items."""
    return str(tiny.dataset(tmp_path_factory.mktemp("data") / "books"))


@pytest.fixture(scope="module")
def own(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("retrievers") / "own"
    train_retriever(data, folder, settings=Settings(epochs=1, batch=4))
    return folder


@pytest.fixture
def tiny_model(monkeypatch):
    """A random model takes the place of the one in the package: it answers at once."""
    monkeypatch.setattr(all_users, "load_recommender", lambda source: recommender(tiny.model("llama")))


def everybody(data):
    return [row for split in contract.SPLITS for row in contract.read(data, "histories", split)]


def test_the_first_stage_alone_gives_each_user_what_the_retriever_gives(data, own, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(all_users, "SHARD", 7)
    monkeypatch.setattr(lists, "CELLS", 90)  # three users at a time
    words = ["recommend", "--all-users", "--dataset", data, "--retriever", str(own), "--first-stage-only"]
    main([*words, "--top-k", "4", "--out", str(tmp_path / "recs"), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (told["users"], told["new_users"], told["items"]) == (20, 20, 80)
    found = load_dataset(str(tmp_path / "recs"), split="train")
    rows = everybody(data)
    assert found["user_id"][:] == [row["user_id"] for row in rows]
    expected = Retriever.load(own).recommend([[*row["history"], row["target"]] for row in rows], top_k=4)
    for one, wanted in zip(found, expected, strict=True):
        assert one["item_ids"] == [item_id for item_id, _ in wanted]
        assert one["scores"] == one["stage_one"] == pytest.approx([score for _, score in wanted], rel=1e-5)
        assert one["log_odds"] is None
    assert len(list((tmp_path / "recs" / "recommendations").iterdir())) == 3
    made = json.loads((tmp_path / "recs" / "provenance.json").read_text())["recommendations"]
    assert made["dataset_checksums"] == Retriever.load(own).record["dataset_checksums"]
    assert made["model"] is None


def test_both_stages_give_what_the_pipeline_gives(data, own, tiny_model, tmp_path):
    recommend_to_all(data, tmp_path / "recs", retriever=own, top_k=3, stage_one=6, limit=14)
    found = load_dataset(str(tmp_path / "recs"), split="train").to_list()
    assert len(found) == 14
    pipe = recommender(tiny.model("llama"))
    pipe.catalogue = catalogue_of(own, data)
    for number in (0, 13):
        row = everybody(data)[number]
        met = [*row["history"], row["target"]]
        answer = pipe({"history": [{"item_id": one} for one in met]}, stage_one=6, top_k=3, return_summary=True)
        for column, name in (("item_ids", "item_id"), ("scores", "score"), ("log_odds", "log_odds")):
            assert found[number][column] == [item[name] for item in answer["candidates"]]
        assert found[number]["summary"] == answer["summary"]
        assert not set(found[number]["item_ids"]) & set(met)


def test_the_weight_that_was_fitted_for_a_retriever_is_kept_with_it(data, own, tmp_path, monkeypatch, caplog):
    pipe = recommender(tiny.model("llama"))
    pipe.catalogue = with_fitted_weight(catalogue_of(own, data), 7.5, {"split": "validation", "users": 3})
    monkeypatch.setattr(all_users, "load_recommender", lambda source: pipe)
    found = {}
    for name, given in (("carried", {}), ("named", {"retriever": own})):
        recommend_to_all(data, tmp_path / name, top_k=3, stage_one=6, limit=4, **given)
        found[name] = load_dataset(str(tmp_path / name), split="train").to_list()
        made = json.loads((tmp_path / name / "provenance.json").read_text())["recommendations"]
        assert made["weight"] == 7.5
    assert found["named"] == found["carried"]
    assert "no weight" not in caplog.text
    train_retriever(data, tmp_path / "another", settings=Settings(epochs=1, batch=4, seed=1))
    recommend_to_all(data, tmp_path / "other", top_k=3, stage_one=6, limit=4, retriever=tmp_path / "another")
    assert "carries no weight that was fitted for" in caplog.text


def test_as_many_items_are_ranked_as_the_weight_was_fitted_with(data, own, tmp_path, monkeypatch):
    pipe = recommender(tiny.model("llama"))
    pipe.catalogue = with_fitted_weight(
        catalogue_of(own, data), 7.5, {"split": "validation", "users": 3, "stage_one": 5}
    )
    monkeypatch.setattr(all_users, "load_recommender", lambda source: pipe)
    for number, (options, count) in enumerate((({}, 5), ({"top_k": 6}, 6), ({"stage_one": 7}, 7))):
        recommend_to_all(data, tmp_path / str(number), limit=1, **{"top_k": 2, **options})
        made = json.loads((tmp_path / str(number) / "provenance.json").read_text())["recommendations"]
        assert made["stage_one"] == count


@pytest.mark.parametrize("named", [False, True])
def test_a_weight_that_could_not_be_fitted_is_told(data, own, tmp_path, monkeypatch, caplog, named):
    pipe = recommender(tiny.model("llama"))
    fitted = {"split": "validation", "users": 3, "stage_one": 5, "not_fitted": "nothing was passed on"}
    pipe.catalogue = with_fitted_weight(catalogue_of(own, data), 1.0, fitted)
    monkeypatch.setattr(all_users, "load_recommender", lambda source: pipe)
    recommend_to_all(data, tmp_path / "recs", top_k=2, limit=1, **({"retriever": own} if named else {}))
    assert "(nothing was passed on): the scores of both stages count alike" in caplog.text
    caplog.clear()
    recommend_to_all(data, tmp_path / "first", top_k=2, limit=1, first_stage_only=True)
    assert "count alike" not in caplog.text


def test_what_else_a_user_met_is_left_out(tmp_path, caplog):
    items = [{"item_id": f"i{n}", "title": f"T{n}", "text": f"title: T{n}"} for n in range(6)]
    user = {"history": ["i0", "i1"], "target": "i2", "negatives": ["i5"], "also_met": ["i3"]}
    splits = {split: Dataset.from_list([{"user_id": split, **user}]) for split in contract.SPLITS}
    splits["test"] = Dataset.from_list([{"user_id": "test", **user}, {"user_id": "test", **user, "target": "i4"}])
    tables = {"items": {"train": Dataset.from_list(items)}, "histories": splits}
    contract.write(tmp_path / "data", tables, provenance={"script": "test"}, body="# Small")
    source = str(tmp_path / "data")
    train_retriever(source, tmp_path / "own", vectors="none", settings=Settings(epochs=1))
    recommend_to_all(source, tmp_path / "recs", retriever=tmp_path / "own", first_stage_only=True)
    for row in load_dataset(str(tmp_path / "recs"), split="train"):
        assert set(row["item_ids"]) == ({"i5"} if row["user_id"] == "test" else {"i4", "i5"})
    assert "1 users of" in caplog.text
    assert "longest history is taken" in caplog.text
    assert "1 users have several rows" in (tmp_path / "recs" / "README.md").read_text()


def splits_of(**splits):
    """Splits of rows (user, history, target) or (user, history, target, also_met), with letters as items."""
    return {
        split: Dataset.from_list(
            [
                {"user_id": user, "history": list(history), "target": target, "also_met": list(*also)}
                for user, history, target, *also in rows
            ]
        )
        for split, rows in splits.items()
    }


def test_a_user_counts_once_with_the_last_row():
    splits = splits_of(
        train=[("a", "m", "n"), ("b", "m", "n"), ("a", "m", "o"), ("c", "m", "n")],
        validation=[("c", "mn", "o"), ("d", "m", "n"), ("d", "m", "o")],
        test=[("d", "m", "p"), ("e", "m", "n")],
    )
    users = UserRows(splits)
    found = users.read(0, len(users))
    assert [(row["user_id"], row["target"]) for row in found] == [
        ("b", "n"), ("a", "o"), ("c", "o"), ("d", "p"), ("e", "n")
    ]  # fmt: skip
    assert users.guessed == 1  # a; the others have one row in their last split
    assert [*users.read(0, 2), *users.read(2, 4), *users.read(4, 5)] == found


def test_what_a_user_met_in_any_row_is_left_out():
    splits = splits_of(
        train=[("a", "mn", "o", "p")], validation=[("b", "m", "n")], test=[("a", "xy", "z"), ("a", "x", "w", "v")]
    )
    users = UserRows(splits)
    _, found = users.read(0, 2)
    assert (found["history"], found["target"]) == (
        ["x", "y"],
        "z",
    )  # of the rows of the last split, the longest history
    assert sorted(found["also_met"]) == list("mnopvw")


@pytest.mark.parametrize("kind", [float, datetime.fromtimestamp])
def test_times_say_which_row_is_the_newest(kind):
    splits = splits_of(
        train=[("a", "mno", "x"), ("b", "m", "n")],
        validation=[("a", "m", "y"), ("a", "m", "z")],
        test=[("b", "mn", "o"), ("c", "", "m")],
    )
    times = {"train": [[1, 2, 3, 4], [1, 2]], "validation": [[1, 9], [1, 7]], "test": [[1, 2, 2], []]}
    for split, of_rows in times.items():
        splits[split] = splits[split].add_column("timestamps", [[kind(time) for time in row] for row in of_rows])
    users = UserRows(splits)
    assert [(row["user_id"], row["target"]) for row in users.read(0, 3)] == [("a", "y"), ("b", "o"), ("c", "m")]
    assert (users.by_time, users.guessed) == (True, 0)


@pytest.mark.parametrize("missing", [None, math.nan])
def test_a_missing_time_makes_no_row_the_newest(missing):
    splits = splits_of(
        train=[("a", "m", "x"), ("b", "m", "x"), ("c", "m", "x")],
        validation=[("a", "mn", "y")],
        test=[("b", "mn", "y")],
    )
    times = {
        "train": [[1.0, missing], [1.0, 9.0], [missing, missing]],
        "validation": [[3.0, 4.0]],
        "test": [[8.0, missing]],
    }
    for split, of_rows in times.items():
        splits[split] = splits[split].add_column("timestamps", of_rows)
    users = UserRows(splits)
    assert {row["user_id"]: row["target"] for row in users.read(0, len(users))} == {"a": "y", "b": "x", "c": "x"}


def test_times_that_are_texts_are_refused_before_anything_is_written(data, tmp_path):
    tables = contract.tables(data)
    histories = {
        split: rows.add_column("timestamps", [["2020-01-01"] * (len(row["history"]) + 1) for row in rows])
        for split, rows in tables["histories"].items()
    }
    source = str(tmp_path / "data")
    contract.write(tmp_path / "data", {**tables, "histories": histories}, provenance={"script": "test"}, body="# Texts")
    train_retriever(source, tmp_path / "own", vectors="none", settings=Settings(epochs=1))
    with pytest.raises(DataError, match="timestamps of histories are of the type string, expected numbers or Arrow"):
        recommend_to_all(source, tmp_path / "recs", retriever=tmp_path / "own", first_stage_only=True)
    assert not (tmp_path / "recs").exists()


def test_other_inputs_are_refused_and_the_same_go_on(data, own, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(all_users, "SHARD", 8)
    options = {"retriever": own, "top_k": 2, "stage_one": 3}
    recommend_to_all(data, tmp_path / "recs", **options)
    shards = sorted((tmp_path / "recs" / "recommendations").iterdir())
    whole = [path.read_bytes() for path in shards]
    shards[1].unlink()
    (shards[1].parent / f".{shards[1].name}.1-1.part").write_bytes(b"half")
    told = recommend_to_all(data, tmp_path / "recs", **options)
    assert (told["users"], told["new_users"]) == (20, 8)
    assert [path.read_bytes() for path in sorted(shards[1].parent.iterdir())] == whole
    with pytest.raises(UsageError, match="top_k was 2, is 3"):
        recommend_to_all(data, tmp_path / "recs", **{**options, "top_k": 3})
    with pytest.raises(UsageError, match="model was sha256:"):
        recommend_to_all(data, tmp_path / "recs", **{**options, "stage_one": None}, first_stage_only=True)
    monkeypatch.setattr(all_users, "load_recommender", lambda source: recommender(tiny.model("llama", seed=1)))
    with pytest.raises(UsageError, match="made from something else: model was sha256:"):
        recommend_to_all(data, tmp_path / "recs", **options)
    train_retriever(data, tmp_path / "another", settings=Settings(epochs=1, batch=4, seed=1))
    with pytest.raises(UsageError, match="catalogue was sha256:"):
        recommend_to_all(data, tmp_path / "recs", **{**options, "retriever": tmp_path / "another"})


def test_as_many_items_are_ranked_as_are_asked_for(data, own, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("trsr.core.catalogue.STAGE_ONE", 4)  # of 30 items
    for name, options, count in (("more", {"top_k": 6}, 6), ("fewer", {"top_k": 3}, 3)):
        recommend_to_all(data, tmp_path / name, retriever=own, limit=1, **options)
        [row] = load_dataset(str(tmp_path / name), split="train")
        assert len(row["item_ids"]) == count
    stated = json.loads((tmp_path / "fewer" / "provenance.json").read_text())["recommendations"]
    assert stated["stage_one"] == 4
    with pytest.raises(InputError, match="stage_one 5: the first stage must pass on 6 items or more"):
        recommend_to_all(data, tmp_path / "refused", retriever=own, top_k=6, stage_one=5)


def test_mistakes(data, tiny_model, tmp_path, capsys):
    with pytest.raises(UsageError, match=r"carries no catalogue\. Give --retriever, or fuse"):
        recommend_to_all(data, tmp_path / "recs")
    for words in (["recommend"], ["recommend", "--all-users", "--out", "x"], ["recommend", "r.json", "--all-users"]):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 2
    assert "--all-users takes --dataset and --out" in capsys.readouterr().err


ALL_USERS = ("--all-users", "--dataset", "d", "--out", "o", "--first-stage-only")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["r.json", "--limit", "3"], "--limit goes with --all-users"),
        (["r.json", "--first-stage-only"], "--first-stage-only goes with --all-users"),
        (["--all-users", "--dataset", "d", "--out", "o", "--summarizer", "none"], "go with a request"),
        (["--all-users", "--dataset", "d", "--out", "o", "--method", "hierarchical"], "go with a request"),
        (
            [*ALL_USERS, "--retriever", "r", "--model", "m"],
            "uses no model, and got m: leave out --model, or --retriever",
        ),
        ([*ALL_USERS, "--retriever", "r", "--stage-one", "5"], "stage_one is for the language model"),
    ],
)
def test_an_option_that_would_be_passed_over_is_refused(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(["recommend", *words])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_a_killed_run_leaves_whole_shards_and_goes_on(data, own, tmp_path):
    """`kill -9` while the third shard is being made."""
    code = """
import sys
from datetime import datetime
from pathlib import Path
from trsr.retrieval import all_users, lists
all_users.SHARD = 4
inner, asked = all_users.recommendations, []
def slow(*arguments, **options):
    asked.append(1)
    if len(asked) == 3:
        print("third", flush=True)
        import time; time.sleep(600)
    return inner(*arguments, **options)
if sys.argv[4] == "slow":
    all_users.recommendations = slow
print(all_users.recommend_to_all(sys.argv[1], Path(sys.argv[3]), retriever=Path(sys.argv[2]), first_stage_only=True)["new_users"])
"""
    words = [sys.executable, "-c", code, data, str(own), str(tmp_path / "recs")]
    given = {**os.environ, "PYTHONPATH": str(ROOT / "hub_recipes")}
    process = subprocess.Popen(
        [*words, "slow"], env=given, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout.readline() == "third\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "recs" / "README.md").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "recs" / "recommendations").glob("*.parquet")}
    assert len(kept) == 2
    done = subprocess.run([*words, "fast"], env=given, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "12"
    assert all((tmp_path / "recs" / "recommendations" / name).stat().st_mtime_ns == when for name, when in kept.items())
    assert len(pq.read_table(tmp_path / "recs" / "recommendations")) == 20


@pytest.mark.parametrize("model", [None, "both stages"])
def test_an_item_that_the_catalogue_lacks_is_named(data, own, model):
    catalogue = catalogue_of(own, data)
    pipe = recommender(tiny.model("llama")) if model else None
    if pipe:
        pipe.catalogue = catalogue
    for history, target in ((["gone"], catalogue.item_ids[0]), ([catalogue.item_ids[0]], "gone")):
        rows = [{"user_id": "u", "history": history, "target": target}]
        with pytest.raises(DataError, match="User 'u': the catalogue has no item 'gone'"):
            list(lists.recommendations(rows, catalogue, pipe, top_k=2, stage_one=3))


@pytest.fixture
def carrying(data, own, monkeypatch):
    """A random model that carries the catalogue of `data`."""
    pipe = recommender(tiny.model("llama"))
    pipe.catalogue = catalogue_of(own, data)
    monkeypatch.setattr(all_users, "load_recommender", lambda source: pipe)
    return pipe


def copied(data, folder, change):
    """A dataset with changed items: `change` takes their rows."""
    tables = contract.tables(data)
    items = Dataset.from_list(change(tables["items"]["train"].to_list()))
    contract.write(folder, {**tables, "items": {"train": items}}, provenance={"script": "test"}, body="# Changed")
    return str(folder)


@pytest.mark.parametrize("first_stage_only", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [{**row, "text": other["text"]} for row, other in zip(rows, rows[::-1], strict=True)], "has another text"),
        (lambda rows: rows[:-1], "is not among them"),
        (lambda rows: [*rows, {**rows[0], "item_id": "new"}], "has 31 items, and .* carries 30: it lacks item 'new'.*newer"),
    ],
)  # fmt: skip
def test_a_catalogue_of_other_items_is_refused(data, carrying, tmp_path, change, message, first_stage_only):
    other = copied(data, tmp_path / "other", change)
    with pytest.raises(RunError, match=message):
        recommend_to_all(other, tmp_path / "recs", first_stage_only=first_stage_only, limit=1)
    assert not (tmp_path / "recs").exists()


def test_the_card_names_the_commit_that_was_loaded(data, own, tmp_path, monkeypatch):
    loaded = []

    def load(source, revision=None):
        loaded.append((source, revision))
        return recommender(tiny.model("llama"))

    commits = iter(["a" * 40, "b" * 40])  # somebody pushes meanwhile
    monkeypatch.setattr(all_users, "commit_of", lambda source: next(commits))
    monkeypatch.setattr(all_users, "load_recommender", load)
    recommend_to_all(data, tmp_path / "recs", model="ORG/books", retriever=own, top_k=2, stage_one=3, limit=1)
    made = json.loads((tmp_path / "recs" / "provenance.json").read_text())["recommendations"]
    assert loaded == [("ORG/books", "a" * 40)]
    assert (made["recommender"], made["recommender_commit"]) == ("ORG/books", "a" * 40)


@pytest.mark.parametrize("change", [lambda rows: rows[::-1], lambda rows: [{**row, "genre": "new"} for row in rows]])
def test_a_catalogue_of_the_same_items_under_another_checksum_is_taken(data, carrying, tmp_path, change):
    other = copied(data, tmp_path / "other", change)
    told = recommend_to_all(other, tmp_path / "recs", first_stage_only=True, top_k=2, limit=3)
    assert told["items"] == 6


PUSHED = """
import json, sys
from datasets import get_dataset_config_info, load_dataset
from trsr.cli import main
from trsr.core.catalogue import Catalogue
main(sys.argv[1:])
config = get_dataset_config_info("ORG/recs", "recommendations")
print(json.dumps({"rows": load_dataset("ORG/recs", split="train").to_list(), "columns": list(config.features)}))
"""


def test_they_are_pushed_with_a_card_and_load_from_the_hub(data, own, tmp_path):
    words = ["recommend", "--all-users", "--dataset", data, "--retriever", str(own), "--first-stage-only"]
    words += ["--out", str(tmp_path / "recs"), "--push-to-hub", "ORG/recs", "--private"]
    with Hub() as hub:
        given = {**environment(hub, tmp_path), "PYTHONPATH": str(ROOT / "hub_recipes"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", PUSHED, *words], env=given, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert hub.repos["dataset ORG/recs"].private
    assert "hf_test_writer" not in done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["rows"] == load_dataset(str(tmp_path / "recs"), split="train").to_list()
    assert len(told["rows"]) == 20
    assert told["columns"] == lists.SCHEMA.names
    card = (tmp_path / "recs" / "README.md").read_text()
    assert 'load_dataset("ORG/recs", split="train")' in card
    assert "personal data" in card
    assert Retriever.load(own).record["dataset_checksums"]["histories"] in card
    assert str(tmp_path) not in card + (tmp_path / "recs" / "provenance.json").read_text()


def test_data_of_persons_are_told_from_made_up_data_by_their_script(tmp_path):
    made = {"users": 2, "top_k": 3, "items": 9, "model": None, "newest_row_guessed": 0, "fitted": None, "weight": 1.0}
    made |= {"dataset": "data", "dataset_commit": None, "dataset_checksums": {"histories": "sha256:ab"}}
    made |= {"retriever": "sha256:cd", "stage_one": None, "limit": None, "versions": {"llm-trsr": "0.1.0"}}
    for name, script, about_persons in (("sample", "tables", True), ("books", "sample", False)):
        terms = {"name": name, "license": "mit", "language": ["en"], "share_text": True}
        provenance = Provenance({"dataset": terms, "script": f"dataset_scripts/{script}.py"})
        recommendation_card.describe(tmp_path, ["0.parquet"], made, provenance)
        card = (tmp_path / "README.md").read_text()
        assert ("personal data" in card) is about_persons
        assert ("made up by rules" in card) is not about_persons


def test_recommendations_are_bound_to_the_tokenizer_and_to_the_items(data, own):
    made = recommender(tiny.model("llama"))
    before = model_checksum(made)
    made.tokenizer(["a", "some longer text"], padding=True, truncation=True, max_length=3)
    assert model_checksum(made) == before == model_checksum(recommender(tiny.model("llama")))
    made.tokenizer.chat_template = tiny.CHATML
    assert model_checksum(made) != before
    made = recommender(tiny.model("llama"))
    made.tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert model_checksum(made) != before
    catalogue = catalogue_of(own, data)
    checksum = catalogue_checksum(catalogue)
    assert checksum == catalogue_checksum(catalogue_of(own, data))
    for name in ("item_id", "text", "title"):
        others = {**catalogue.fields, name: catalogue.fields[name][::-1]}
        assert (
            catalogue_checksum(Catalogue(others, catalogue.vectors, catalogue.user_model, catalogue.record)) != checksum
        )
