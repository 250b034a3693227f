"""Figures on one catalogue, joined from several evaluations."""

import json

import numpy as np
import pytest
from datasets import Dataset

from bench.catalogues import main
from trsr.errors import ResultsError
from trsr.recommender.results import FILE as RESULTS
from trsr.retrieval import catalogue, ranked
from trsr.retrieval.compare import SAME, compare_catalogues

ITEMS = 200
NUMBERS = {f"i{number}": number for number in range(ITEMS)}
COUNTS = np.arange(ITEMS)
RANDOM = np.random.default_rng(0)
TARGETS = {split: RANDOM.integers(ITEMS, size=rows) for split, rows in (("validation", 40), ("test", 60))}


def scores(split, strength, seed):
    """Noise in which the target stands out by `strength`."""
    table = np.random.default_rng(seed).normal(size=(len(TARGETS[split]), ITEMS))
    table[np.arange(len(table)), TARGETS[split]] += strength
    return table


def evaluation(folder, systems, split="test", **changes):
    """Write what an evaluation leaves of the catalogue. `systems`: name -> scores (rows, items)."""
    rows = Dataset.from_dict(
        {
            "user_id": [f"{split}{row}" for row in range(len(TARGETS[split]))],
            "history": [[] for _ in TARGETS[split]],
            "target": [f"i{target}" for target in TARGETS[split]],
        }
    )
    scorers = {name: lambda part, table=table: table for name, table in systems.items()}
    measured = catalogue.measure(scorers, rows, NUMBERS, COUNTS)
    folder.mkdir(parents=True)
    lists, metrics = ({name: getattr(one, part) for name, one in measured.items()} for part in ("ranked", "per_user"))
    ranked.write(folder, lists, metrics, rows, list(NUMBERS))
    run = next(iter(systems))
    figures = catalogue.summarise(
        measured, catalogue.target_groups(rows, NUMBERS, COUNTS), list(rows["user_id"]), 0, run
    )
    same = dict.fromkeys(SAME, 1) | {"split": split, "protocol": "p", "popularity_of_targets": 2.0}
    (folder / "catalogue.json").write_text(json.dumps(same | {"run": run} | figures | changes))
    (folder / RESULTS).write_text("{}")
    return folder


def test_systems_are_joined_once_and_seeds_averaged(tmp_path, capsys):
    knn = scores("test", 1, 9)
    own = [evaluation(tmp_path / f"both-{n}", {"both": scores("test", 2, n), "item-knn": knn}) for n in range(2)]
    tried = {"chosen": {"regularization": 10}}
    peer = evaluation(tmp_path / "ease-0", {"ease": scores("test", 0, 5)}, tuning=tried)
    other = evaluation(tmp_path / "ease-0-validation", {"ease": scores("validation", 0, 5)}, split="validation")
    main([*map(str, [*own, peer, other]), "--against", "both", "--out", str(tmp_path / "joined.json")])
    assert "both, ease, item-knn" in capsys.readouterr().out
    joined = json.loads((tmp_path / "joined.json").read_text())
    assert {name: one["seeds"] for name, one in joined["systems"].items()} == {"both": 2, "ease": 1, "item-knn": 1}
    assert joined["tuning"] == {"ease": tried}
    for metric in ("recall@10", "ndcg@100", "coverage@20", "novelty@10"):
        seeds = [json.loads((folder / "catalogue.json").read_text())["systems"]["both"][metric] for folder in own]
        plain = [one["value"] if isinstance(one, dict) else one for one in seeds]
        found = joined["systems"]["both"][metric]
        assert (found["value"] if isinstance(found, dict) else found) == pytest.approx(np.mean(plain))
    assert [(test["system"], test["against"], test["metric"]) for test in joined["paired"]] == [
        (name, "both", "recall@10") for name in ("ease", "item-knn")
    ]
    assert all(test["p_holm"] >= test["p_value"] and test["p_value"] < 0.05 for test in joined["paired"])
    assert joined["by_target"]["others"]["systems"].keys() == {"both", "ease", "item-knn"}


def test_a_sum_of_two_that_know_different_things_is_better_than_either(tmp_path):
    for name, strength in (("one", 2), ("two", 2), ("noise", 0)):
        for split in TARGETS:
            end = "" if split == "test" else "-validation"
            table = scores(split, strength, len(name) + 10 * strength + 7 * (name == "two"))
            evaluation(tmp_path / f"{name}{end}", {name: 100 * table + 7}, split=split)
    folders = [tmp_path / name for name in ("one", "two", "noise")]
    joined = compare_catalogues(folders, fuse=[["one", "two", "noise"]])
    added = joined["systems"]["fused: one + two + noise"]
    for metric in ("recall@10", "ndcg@100"):
        best = max(joined["systems"][name][metric]["value"] for name in ("one", "two"))
        assert added[metric]["value"] > best + 0.05
    [weights] = joined["weights"]["fused: one + two + noise"]
    assert min(weights["one"], weights["two"]) > 0.5 > abs(weights["noise"])


def test_a_target_that_no_system_lists_is_found_by_none(tmp_path):
    for split in TARGETS:
        folder = tmp_path / ("own" if split == "test" else "own-validation")
        strengths = np.where(np.arange(len(TARGETS[split])) % 2, 9, -9)
        evaluation(folder, {"own": scores(split, strengths, 0)}, split=split)
    joined = compare_catalogues([tmp_path / "own"], fuse=[["own"]])
    assert joined["systems"]["fused: own"]["recall@100"]["value"] == 0.5


def test_other_data_is_refused(tmp_path):
    own = evaluation(tmp_path / "both", {"both": scores("test", 1, 0)})
    with pytest.raises(ResultsError, match="its n_items differs"):
        compare_catalogues([own, evaluation(tmp_path / "other", {"ease": scores("test", 1, 0)}, n_items=7)])
    with pytest.raises(ResultsError, match=r"No catalogue\.json in"):
        compare_catalogues([tmp_path])
    alone = evaluation(tmp_path / "alone", {"ease": scores("validation", 1, 0)}, split="validation")
    with pytest.raises(ResultsError, match="Nothing to compare"):
        compare_catalogues([alone])
    with pytest.raises(ResultsError, match="no evaluation on it beside"):
        compare_catalogues([own], fuse=[["both"]])
    with pytest.raises(ResultsError, match="No run 'ease' to fuse"):
        compare_catalogues([own], fuse=[["ease"]])
    (own / "catalogue.parquet").unlink()
    with pytest.raises(ResultsError, match="of an earlier version"):
        compare_catalogues([own])
