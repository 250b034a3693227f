"""Sums of systems: weights from validation alone, the same whatever the order, and nothing that is not of one run."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from scipy.optimize import minimize
from scipy.special import logsumexp

from bench import fill_tables
from tests.test_compare import constant, evaluation, rows
from trsr.cli import main
from trsr.dataset import contract
from trsr.dataset.candidates import Candidates
from trsr.errors import CompareError
from trsr.metrics.fusion import fit_weights, normalise, top_overlap, uncertainty
from trsr.recommender import scores
from trsr.recommender.compare.report import document, fusions
from trsr.recommender.compare.run import compare

NEGATIVES = [f"n{number:02}" for number in range(20)]


def test_z_scores_are_over_the_candidates_of_a_user():
    table = np.array([[1.0, 3.0, 5.0, 99.0], [0.1, 0.1, 0.1, 0.1], [7.0, -1.0, np.nan, np.nan]])
    mask = np.array([[True, True, True, False], [True] * 4, [True, True, False, False]])
    third = np.sqrt(3 / 2)
    np.testing.assert_allclose(normalise(table, mask), [[-third, 0, third, 0], [0, 0, 0, 0], [1, -1, 0, 0]])


def test_weights_are_those_of_a_general_minimiser():
    random = np.random.default_rng(0)
    mask = np.arange(6) < random.integers(2, 7, 50)[:, None]
    features = np.stack([normalise(random.normal(size=mask.shape), mask) for _ in range(3)])
    labels = np.zeros(mask.shape, bool)
    labels[:, 0] = labels[:5, 1] = True
    target = labels / labels.sum(1, keepdims=True)

    def loss(weights):
        total = np.tensordot(weights, features, 1)
        return logsumexp(np.where(mask, total, -np.inf), axis=1).sum() - (target * total).sum() + weights @ weights / 2

    expected = minimize(loss, np.zeros(3), tol=1e-10).x
    np.testing.assert_allclose(fit_weights(features, labels, mask), expected, atol=1e-5)


def test_a_system_that_tells_all_targets_has_a_finite_weight():
    labels = np.tile([True, False, False], (30, 1))
    leak = normalise(labels.astype(float), np.ones_like(labels))
    [weight, none] = fit_weights(np.stack([leak, 0 * leak]), labels, np.ones_like(labels))
    assert 0 < weight < 10
    assert none == 0


def test_entropy_goes_from_sure_to_unsure():
    mask = np.array([[True, True, True], [True, True, False], [True, True, True]])
    unsure = uncertainty(np.array([[2.0, 2.0, 2.0], [1.0, 1.0, 5.0], [0.0, 800.0, 0.0]]), mask)
    np.testing.assert_allclose(unsure, [1, 1, 0], atol=1e-12)


def test_common_items_count_ties_by_half():
    mask = np.ones((1, 4), bool)
    one, other, tied = np.array([[4.0, 3, 2, 1]]), np.array([[4.0, 1, 3, 2]]), np.zeros((1, 4))
    assert top_overlap(one, other, mask, 2) == [0.5]
    assert top_overlap(one, other, mask, 9) == [1]
    assert top_overlap(one, tied, mask, 2) == [0.5]
    short = np.array([[True, True, False, False]])
    assert top_overlap(one, other, short, 1) == [1]


def noisy(strength, seed):
    """Scores that are the higher for the target, drowned in noise that hangs on seed, user and item alone."""

    def score(user, item):
        key = [seed, *map(ord, user + item)]
        return strength * (item == "t") + float(np.random.default_rng(key).normal())

    return score


def system(folder, score, *, users=200, target="t", costs=1.0, beside=None, **about):
    """A run with its evaluations on validation and test, of other users."""
    systems = {folder.name: score, **(beside or {})}
    for split, first in (("validation", "v"), ("test", "u")):
        asked = rows([f"{first}{number:03}" for number in range(users)], NEGATIVES)
        cost = {"cpu_seconds": costs, "train_seconds": 5.0, "peak_mib": 100.0}
        evaluation(folder / split, systems, asked, split=split, cost=cost, weights=folder.name, **about)
    return str(folder / "test")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two systems that know something each, the second one ten times as expensive."""
    folder = tmp_path_factory.mktemp("pair")
    return system(folder / "quick", noisy(1.5, 1)), system(folder / "slow", noisy(1.5, 2), costs=10.0)


def test_a_sum_is_a_system_like_any_other(pair, tmp_path):
    results = compare(pair, tmp_path / "out", fuse=[[]], plots=False)
    name = "fused: quick + slow"
    assert list(results["systems"]) == ["quick", "slow", name]
    fused = results["systems"][name]
    assert fused["seeds"] == 1
    assert fused["cost"] == {"train_seconds": 10, "cpu_seconds": 11, "peak_mib": 100}
    assert all(fused["recall@3"]["value"] > results["systems"][one]["recall@3"]["low"] for one in ("quick", "slow"))
    tested = {(test["system"], test["against"]): test for test in results["paired"]}
    assert tested["quick", name]["difference"] < 0
    assert tested["quick", name]["p_holm"] < 0.05
    assert results["verdict"].startswith(f"Verdict: {name}, Recall@3")
    record = results["fusions"][name]
    assert record["fitted_on"]["n_users"] == 200
    assert record["fitted_on"]["checksum"].startswith("sha256:")
    assert record["weights"]["quick"][0] == pytest.approx(record["weights"]["slow"][0], abs=0.4)
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == results
    assert (tmp_path / "out" / "comparison.md").read_text() == document(results)


def test_the_order_of_arguments_changes_nothing(pair, tmp_path):
    one, other = (compare(given, tmp_path / "out", fuse=[[]], plots=False) for given in (pair, pair[::-1]))
    assert one["fusions"] == other["fusions"]
    name = "fused: quick + slow"
    assert one["systems"][name] == other["systems"][name]


def move_targets(folder):
    """Another candidate becomes the target of each user."""
    table = pd.read_parquet(folder / scores.SCORES_FILE)
    table["label"] = table.groupby("row")["label"].transform(lambda labels: np.roll(labels, 1))
    table.to_parquet(folder / scores.SCORES_FILE)


def test_no_label_of_the_test_split_is_read_for_the_fit(pair, tmp_path):
    runs = [tmp_path / "moved" / name for name in ("quick", "slow")]
    for source, run in zip(pair, runs, strict=True):
        shutil.copytree(source.removesuffix("/test"), run)

    def fused():
        folders = [str(run / "test") for run in runs]
        return compare(folders, tmp_path / "out", fuse=[[]], plots=False)["fusions"]["fused: quick + slow"]

    true = fused()
    for run in runs:
        move_targets(run / "test")
    moved = fused()
    for name in ("weights", "fitted_on", "overlap", "seconds_a_user"):
        assert moved[name] == true[name]
    assert moved["curve"]["points"][0]["value"] < true["curve"]["points"][0]["value"]
    for run in runs:
        move_targets(run / "validation")
    assert fused()["weights"] != true["weights"]


def test_a_useless_system_gets_no_weight_and_does_no_harm(pair, tmp_path):
    useless = system(tmp_path / "useless", noisy(0, 3))
    results = compare([*pair, useless], tmp_path / "out", fuse=[["quick", "slow"], []], plots=False)
    three = "fused: quick + slow + useless"
    assert abs(results["fusions"][three]["weights"]["useless"][0]) < 0.2
    alone, with_it = (results["systems"][one]["recall@3"]["value"] for one in ("fused: quick + slow", three))
    assert with_it == pytest.approx(alone, abs=0.02)
    same = system(tmp_path / "same", constant)
    fused = compare([pair[0], same], tmp_path / "out", fuse=[[]], plots=False)
    assert fused["fusions"]["fused: quick + same"]["weights"]["same"] == [0]
    assert (
        fused["systems"]["fused: quick + same"]["recall@3"]["value"] == fused["systems"]["quick"]["recall@3"]["value"]
    )


def test_the_curve_begins_without_the_expensive_part_and_ends_with_it(pair, tmp_path):
    results = compare(pair, tmp_path / "out", fuse=[[]], plots=False)
    curve = results["fusions"]["fused: quick + slow"]["curve"]
    assert (curve["first"], curve["added"], curve["not_recorded"]) == (["quick"], "slow", [])
    points = curve["points"]
    assert [point["share"] for point in points] == [0, 0.1, 0.25, 0.5, 0.75, 1]
    assert [point["seconds_a_user"] for point in points] == pytest.approx(
        [(1 + 10 * share) / 200 for share in (0, 0.1, 0.25, 0.5, 0.75, 1)]
    )
    means = {name: system["recall@3"]["value"] for name, system in results["systems"].items()}
    assert points[0]["value"] == means["quick"]
    assert points[-1]["value"] == means["fused: quick + slow"]
    assert points[3]["random"] == pytest.approx((points[0]["value"] + points[-1]["value"]) / 2)
    # Where the first stage is unsure there is more to gain than for users at random.
    assert points[3]["value"] > points[3]["random"]


def test_a_slow_system_of_fewer_users_is_compared_on_those_that_all_hold(pair, tmp_path):
    slow = system(tmp_path / "slow", noisy(1.5, 2), users=120, costs=10.0, n_users=120)
    few = system(tmp_path / "quick", noisy(1.5, 1), users=120)
    with pytest.raises(CompareError, match=r"differ in their users: .* --shared-users"):
        compare([pair[0], slow], tmp_path / "out", fuse=[[]], plots=False)
    found, wanted = (
        compare([quick, slow], tmp_path / str(shared), fuse=[[]], shared_users=shared, plots=False)
        for quick, shared in ((pair[0], True), (few, False))
    )
    assert found["shared_users_of"] == {"quick": 200, "slow": 120}
    assert found["n_users"] == 120
    assert found["paired"] == wanted["paired"]
    [one], [other] = (list(results["fusions"].values()) for results in (found, wanted))
    assert one["fitted_on"] == other["fitted_on"]
    assert one["seconds_a_user"] == {"quick": 1 / 120, "slow": 10 / 120}
    assert "120 users that all hold (quick has 200), 1 and 2" in document(found)
    assert "users that all" not in document(wanted)
    slow = system(tmp_path / "others", noisy(1.5, 2), users=120)
    evaluation(tmp_path / "others" / "test", {"others": constant}, rows(["w1"], NEGATIVES))
    with pytest.raises(CompareError, match="No user is in all of"):
        compare([pair[0], slow], tmp_path / "none", shared_users=True, plots=False)
    assert not (tmp_path / "none").exists()


def test_baselines_beside_a_run_can_be_fused(pair, tmp_path):
    run = system(tmp_path / "run", noisy(1.5, 1), beside={"item-knn": noisy(1, 5), "chance": constant})
    names = ["run", "item-knn"]
    results = compare([run, pair[1]], tmp_path / "out", fuse=[names, [*names, "slow"]], plots=False)
    fused = results["fusions"]["fused: item-knn + run"]
    assert fused["weights"]["item-knn"][0] > 0.2
    assert fused["seconds_a_user"]["item-knn"] is None
    assert fused["curve"] is None
    assert results["fusions"]["fused: item-knn + run + slow"]["curve"]["not_recorded"] == ["item-knn"]
    with pytest.raises(CompareError, match="No system 'knn' to fuse; there are run, item-knn, chance"):
        compare([run], tmp_path / "out", fuse=[["run", "knn"]], plots=False)
    with pytest.raises(CompareError, match="takes two systems at least, got run"):
        compare([run], tmp_path / "out", fuse=[[]], plots=False)


def test_what_fitting_and_scoring_cost_together_is_no_cost_of_scoring(pair, tmp_path):
    together = system(tmp_path / "peer", noisy(1.5, 3))
    for split in ("validation", "test"):
        path = tmp_path / "peer" / split / "results.json"
        about = json.loads(path.read_text())
        path.write_text(json.dumps({**about, "cost": {"cpu_seconds": 300.0, "peak_mib": 100.0}}))
    results = compare([*pair, together], tmp_path / "out", fuse=[["quick", "peer"], ["quick", "slow"]], plots=False)
    fused = results["fusions"]["fused: peer + quick"]
    assert fused["seconds_a_user"] == {"peer": None, "quick": 1 / 200}
    assert fused["curve"] is None
    assert results["systems"]["fused: peer + quick"]["cost"] == {"cpu_seconds": 306, "peak_mib": 100}
    assert results["systems"]["fused: quick + slow"]["cost"]["train_seconds"] == 10


def test_seeds_are_fused_with_their_own(tmp_path):
    def seeds(name, numbers):
        return [
            f"{name}={system(tmp_path / str(number) / name, noisy(1.5, 10 * ord(name) + number), train_seed=number)}"
            for number in numbers
        ]

    a, b = seeds("a", (0, 1)), seeds("b", (0, 1))
    mixed = compare([*a, *b[::-1]], tmp_path / "out", fuse=[[]], plots=False)
    long = pd.read_parquet(tmp_path / "out" / "per_user.parquet")
    assert sorted(set(long[long["system"] == "fused: a + b"]["seed"])) == [0, 1]
    alone = compare([a[1], b[1]], tmp_path / "out", fuse=[[]], plots=False)
    name = "fused: a + b"
    assert mixed["systems"][name]["seeds"] == 2
    assert mixed["fusions"][name]["train_seeds"] == [0, 1]
    weights = {part: found[0] for part, found in alone["fusions"][name]["weights"].items()}
    assert {part: found[1] for part, found in mixed["fusions"][name]["weights"].items()} == weights
    one_each = compare([a[0], b[1]], tmp_path / "out", fuse=[[]], plots=False)
    assert one_each["fusions"][name]["train_seeds"] == [None]  # of other seeds
    with pytest.raises(CompareError, match=r"differ or are not recorded: a has 0, 1; b has 1\. Give"):
        compare([*a, b[1]], tmp_path / "out", fuse=[[]], plots=False)
    unknown = [f"c={system(tmp_path / n / 'c', noisy(1, number))}" for number, n in enumerate("xy")]
    with pytest.raises(CompareError, match="c has None, None"):
        compare([*a, *unknown], tmp_path / "out", fuse=[[]], plots=False)


def test_a_system_without_randomness_goes_with_every_seed(tmp_path):
    runs = [
        f"run={system(tmp_path / str(number) / 'run', noisy(1.5, number), beside={'item-knn': noisy(1, 9)}, train_seed=number)}"
        for number in (0, 1)
    ]
    tuned = system(tmp_path / "bm25", noisy(1, 7), tuning={"seed": 0, "seed_of_fit": None})
    results = compare([*runs, tuned], tmp_path / "out", fuse=[["run", "item-knn", "bm25"]], plots=False)
    assert results["systems"]["fused: bm25 + item-knn + run"]["seeds"] == 2


def validation_of(test):
    return test.removesuffix("test") + "validation"


def test_what_is_no_validation_of_the_run_is_refused(pair, tmp_path):
    quick, slow = pair
    shutil.copytree(quick, tmp_path / "lone" / "test")
    with pytest.raises(CompareError, match=r"no evaluation on it beside .*lone/test\. Make it: .* --split validation"):
        compare([f"lone={tmp_path / 'lone' / 'test'}", slow], tmp_path / "out", fuse=[[]], plots=False)
    validation = validation_of(quick)
    with pytest.raises(CompareError, match=r"differ in run, weights\. Give the right one: TEST,VALIDATION"):
        compare([quick, f"{slow},{validation}"], tmp_path / "out", fuse=[[]], plots=False)
    with pytest.raises(CompareError, match="differ in the split, which is test"):
        compare([f"{quick},{quick}", slow], tmp_path / "out", fuse=[[]], plots=False)
    with pytest.raises(CompareError, match="these are its evaluations"):
        compare([validation, validation_of(slow)], tmp_path / "out", fuse=[[]], plots=False)
    beside = tmp_path / "beside"
    evaluation(beside / "test", {"run": noisy(1, 1), "tf-idf": noisy(1, 2)}, rows())
    evaluation(beside / "validation", {"run": noisy(1, 1)}, rows(["v1", "v2"]), split="validation")
    with pytest.raises(CompareError, match=r"validation has no scores of tf-idf\. Make it again"):
        compare([str(beside / "test")], tmp_path / "out", fuse=[["run", "tf-idf"]], plots=False)
    fewer = system(tmp_path / "fewer", noisy(1, 8), users=150)
    shutil.rmtree(tmp_path / "fewer" / "test")
    evaluation(tmp_path / "fewer" / "test", {"fewer": noisy(1, 8)},
               rows([f"u{number:03}" for number in range(200)], NEGATIVES), weights="fewer")  # fmt: skip
    with pytest.raises(CompareError, match="differ in their users"):
        compare([quick, fewer], tmp_path / "out", fuse=[[]], plots=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("tested", "validated", "told"),
    [
        ({"dataset_checksums": {"histories": "a"}}, {"dataset_checksums": {"histories": "b"}}, "dataset_checksums"),
        ({"tuning": {"seed": 0, "chosen": {"k": 1}}}, {"tuning": {"seed": 0, "chosen": {"k": 2}}}, "the settings"),
        ({"recipe": {"base": "a"}}, {"recipe": {"base": "b"}}, "the settings"),
    ],
)
def test_weights_are_not_fitted_on_other_negatives_or_settings(pair, tmp_path, tested, validated, told):
    folder = tmp_path / "peer"
    system(folder, noisy(1.5, 3))
    for split, about in (("test", tested), ("validation", validated)):
        path = folder / split / "results.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **about}))
    with pytest.raises(CompareError, match=f"their results differ in {told}"):
        compare([pair[0], str(folder / "test")], tmp_path / "out", fuse=[[]], plots=False)
    path.write_text(json.dumps({**json.loads(path.read_text()), **tested}))
    compare([pair[0], str(folder / "test")], tmp_path / "out", fuse=[[]], plots=False)


def test_a_folder_with_a_comma_has_a_validation_too(pair, tmp_path):
    folder = tmp_path / "base, zero-shot-0"
    shutil.copytree(pair[0], folder)
    shutil.copytree(validation_of(pair[0]), tmp_path / "base, zero-shot-0-validation")
    shutil.copytree(validation_of(pair[0]), tmp_path / "else, where")
    beside = compare([str(folder), pair[1]], tmp_path / "out", fuse=[[]], plots=False)
    named = compare([f"{folder},{tmp_path / 'else, where'}", pair[1]], tmp_path / "out", fuse=[[]], plots=False)
    assert beside["fusions"] == named["fusions"]


def test_slices_say_who_gains(tmp_path, small_dataset, capsys):
    splits = {name: contract.read(str(small_dataset), "histories", name) for name in ("validation", "test")}
    folders = []
    for name, good in (("odd", 1), ("even", 0)):
        for split, asked in splits.items():
            target = dict(zip(asked["user_id"], asked["target"], strict=True))

            def score(user, item, target=target, good=good):
                return float(item == target[user]) if int(user[1:]) % 2 == good else 0.0

            evaluation(tmp_path / name / split, {name: score}, asked, split=split)
        folders.append(str(tmp_path / name / "test"))
    main(["compare", *folders, "--dataset", str(small_dataset), "--out", str(tmp_path / "out"), "--fuse"])
    results = json.loads((tmp_path / "out" / "comparison.json").read_text())
    [everyone, length, *_] = results["fusions"]["fused: even + odd"]["gains"]
    # Users 9 and 11 are told by one of them, user 10 by the other; all three by the sum. Six tied: 3 of 6 in the first 3.
    assert (everyone["part"], everyone["best"], everyone["n_users"]) == ("all", "odd", 3)
    assert everyone["difference"] == pytest.approx(1 - (1 + 1 + 1 / 2) / 3)
    assert (length["slicing"], length["part"]) == ("items in the history", "6 items")
    assert results["fusions"]["fused: even + odd"]["curve"] is None  # no cost is recorded
    said = capsys.readouterr().out
    assert "## Fused systems" in said
    assert "| all (3) | odd | +0.167" in said


def test_tables_and_the_picture_come_from_the_file(pair, tmp_path):
    main(["compare", *pair, "--out", str(tmp_path / "out"), "--fuse"])
    assert (tmp_path / "out" / "fusion.png").is_file()
    results = json.loads((tmp_path / "out" / "comparison.json").read_text())
    shown = fusions(results)
    weights, overlap, gains, curve = shown.split("\n\n")
    assert (
        weights.splitlines()[0] == "| fused: quick + slow | weight, fitted on 200 users of validation | CPU ms a user |"
    )
    assert weights.splitlines()[3].endswith("| 50 |")
    assert overlap.splitlines()[-1] == "| two random orders | 0.14 | 0.48 |"
    assert gains.splitlines()[2].startswith("| all (200) | ")
    assert curve.splitlines()[0] == "| slow added for | CPU ms a user | Recall@3 | as many users at random |"
    text = "A\n<!-- fusions: out/comparison.json -->\nold\n<!-- end -->\nB"
    assert fill_tables.fill(text, tmp_path) == f"A\n<!-- fusions: out/comparison.json -->\n{shown}\n<!-- end -->\nB"


def test_several_rows_of_a_user_and_lists_of_unequal_length_are_fused(tmp_path):
    for split, first in (("validation", "v"), ("test", "u")):
        asked = Dataset.from_list(
            [row for n in range(30) for row in rows([f"{first}{n // 2}"], NEGATIVES[: 3 + n % 5])],
            features=contract.HISTORIES,
        )
        for name in ("a", "b"):
            candidates = Candidates.of(asked, 0)
            made = candidates.score(lambda row, ids, name=name: [noisy(1, ord(name))(row["user_id"], i) for i in ids])
            scores.write(tmp_path / name / split, {name: made}, candidates)
            about = {"dataset": "tales", "split": split, "protocol": "p", "run": name, "systems": {name: {}}}
            (tmp_path / name / split / "results.json").write_text(json.dumps(about))
    results = compare([str(tmp_path / n / "test") for n in "ab"], tmp_path / "out", fuse=[[]], plots=False)
    assert results["fusions"]["fused: a + b"]["fitted_on"]["n_users"] == 15
