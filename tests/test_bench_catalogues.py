"""Figures on one catalogue, joined from several evaluations."""

import json

import numpy as np
import pytest
from datasets import Dataset

from bench.catalogues import main
from trsr.errors import CompareError, ResultsError
from trsr.recommender.results import RESULTS_FILE
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
    (folder / RESULTS_FILE).write_text("{}")
    return folder


def trained(seed, **settings):
    """What results say of a retriever that was trained with a seed."""
    return {"retriever": {"settings": {"seed": seed, **settings}}}


def pair(folder, name, strength, seed, **about):
    """Evaluations of one run on test and on validation."""
    for split, end in (("validation", "-validation"), ("test", "")):
        table = scores(split, strength, seed)
        path = evaluation(folder.with_name(folder.name + end), {name: table}, split=split, **about)
    return path


def test_systems_are_joined_once_and_seeds_averaged(tmp_path, capsys):
    knn = scores("test", 1, 9)
    own = [
        evaluation(tmp_path / f"both-{n}", {"both": scores("test", 2, n), "item-knn": knn}, **trained(n))
        for n in range(2)
    ]
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
    with pytest.raises(CompareError, match="its n_items differs"):
        compare_catalogues([own, evaluation(tmp_path / "other", {"ease": scores("test", 1, 0)}, n_items=7)])
    with pytest.raises(CompareError, match=r"No catalogue\.json in"):
        compare_catalogues([tmp_path])
    alone = evaluation(tmp_path / "alone", {"ease": scores("validation", 1, 0)}, split="validation")
    with pytest.raises(CompareError, match="Nothing to compare"):
        compare_catalogues([alone])
    with pytest.raises(CompareError, match="no evaluation on it beside"):
        compare_catalogues([own], fuse=[["both"]])
    with pytest.raises(CompareError, match="No run 'ease' to fuse"):
        compare_catalogues([own], fuse=[["ease"]])
    with pytest.raises(CompareError, match="No metric 'recall@3'; there are ndcg@10"):
        compare_catalogues([own], metric="recall@3")
    (own / "catalogue.parquet").unlink()
    with pytest.raises(ResultsError, match=r"No catalogue\.parquet in .* Make it: trsr retrieve evaluate"):
        compare_catalogues([own])


def test_a_control_is_a_system_of_its_own(tmp_path):
    table = scores("test", 2, 0)
    own = evaluation(tmp_path / "test", {"both": table, "popularity": table}, **trained(0))
    shuffled = {"both": scores("test", 1, 0), "popularity": table, "tf-idf, history shuffled": table}
    control = evaluation(tmp_path / "test-history-shuffled", shuffled, history="shuffled", **trained(0))
    joined = compare_catalogues([control, own], against="both")
    assert {name: one["seeds"] for name, one in joined["systems"].items()} == dict.fromkeys(
        ("both", "both, history shuffled", "popularity", "tf-idf, history shuffled"), 1
    )
    hits = {name: one["recall@10"]["value"] for name, one in joined["systems"].items()}
    assert hits["both, history shuffled"] < hits["both"]
    assert "both, history shuffled" in joined["by_target"]["others"]["systems"]
    alone = compare_catalogues([control])
    assert alone["systems"].keys() == {"both, history shuffled", "popularity", "tf-idf, history shuffled"}


def test_two_of_one_name_are_seeds_or_refused(tmp_path):
    table = scores("test", 2, 0)
    own = evaluation(tmp_path / "0", {"both": table}, **trained(0, epochs=3))
    for other, why in ((trained(0, epochs=3), "seed of its training is 0 in both"), (trained(1), "settings differ")):
        folder = evaluation(tmp_path / why, {"both": table}, **other)
        with pytest.raises(CompareError, match=why):
            compare_catalogues([own, folder])
    with pytest.raises(CompareError, match="seed of its training is 0 in both"):
        compare_catalogues([own, own])
    unknown = [evaluation(tmp_path / f"ease-{n}", {"ease": table}, tuning={"chosen": {}}) for n in range(2)]
    with pytest.raises(CompareError, match="seed of its training is None in both"):
        compare_catalogues(unknown)
    beside = [
        evaluation(tmp_path / f"r{n}", {f"r{n}": table, "language model": scores("test", n, n)}) for n in range(2)
    ]
    with pytest.raises(CompareError, match="both hold 'language model', with other figures"):
        compare_catalogues(beside)


def test_sums_are_fitted_seed_by_seed(tmp_path):
    one = [pair(tmp_path / f"one-{n}", "one", 2, n, **trained(n)) for n in range(2)]
    two = [pair(tmp_path / f"two-{n}", "two", 2, 7 + n, **trained(n)) for n in range(3)]
    ease = pair(tmp_path / "ease-0", "ease", 1, 20, tuning={"chosen": {}, "seed_of_fit": None})
    groups = [["one", "two", "ease"]]
    name = "fused: one + two + ease"
    ordered, turned = (
        compare_catalogues([*seeds, ease], fuse=groups) for seeds in ((*one, *two[:2]), (*one, two[1], two[0]))
    )
    assert ordered["weights"] == turned["weights"]
    assert ordered["systems"][name]["seeds"] == 2
    assert ordered["systems"][name]["recall@10"] == turned["systems"][name]["recall@10"]
    assert len({weights["ease"] for weights in ordered["weights"][name]}) == 2  # one seed, beside each of the others
    with pytest.raises(CompareError, match="one has 0, 1; two has 0, 1, 2"):
        compare_catalogues([*one, *two], fuse=[["one", "two"]])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (trained(1), "retriever, the seed of training"),
        ({"history": "shuffled"}, "history"),
        ({"dataset_checksums": {"items": "other"}}, "dataset_checksums"),
    ],
)
def test_a_validation_of_something_else_is_refused(tmp_path, change, named):
    evaluation(tmp_path / "test", {"both": scores("test", 2, 0)}, **trained(0))
    about = {"split": "validation", **trained(0), **change}
    evaluation(tmp_path / "validation", {"both": scores("validation", 2, 0)}, **about)
    with pytest.raises(CompareError, match=f"differ in {named}"):
        compare_catalogues([tmp_path / "test"], fuse=[["both"]])


def test_weights_take_a_target_to_fit_on(tmp_path):
    for split in TARGETS:
        evaluation(tmp_path / split, {"both": scores(split, -20, 0)}, split=split)
    with pytest.raises(CompareError, match="no target of validation among their first 100 items"):
        compare_catalogues([tmp_path / "test"], fuse=[["both"]])
