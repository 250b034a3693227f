"""Candidates of unequal number, and several rows of one user: each is ranked on its own."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from tests import tiny
from tests.test_train import BASES, make_recipe
from trsr.cli import main
from trsr.core.prompts import Encoder
from trsr.core.scoring import Scorer
from trsr.dataset import contract
from trsr.dataset.candidates import Candidates
from trsr.dataset.other_users import rows_of_others
from trsr.errors import CompareError, EvaluationError, UsageError
from trsr.metrics.calibration import fit_calibration
from trsr.metrics.significance import holm
from trsr.recommender import evaluate, results, train
from trsr.recommender.compare import verdict
from trsr.recommender.compare.run import compare
from trsr.recommender.controls import with_history, with_shuffled_summaries
from trsr.recommender.evaluate import evaluate_run, write_results
from trsr.recommender.results_folder import results_folder
from trsr.recommender.score_split import score
from trsr.summaries.engines.make import engine
from trsr.summaries.run import summarize_dataset

pytestmark = pytest.mark.compat

ROWS = Dataset.from_list(
    [
        {"user_id": "u", "history": ["a"], "target": "b", "negatives": ["c"]},
        {"user_id": "u", "history": ["a"], "target": "d", "negatives": ["a", "b", "c"]},
    ],
    features=contract.HISTORIES,
)
TEXTS = {name: f"title: {name}" for name in "abcd"}


def test_a_user_with_two_rows_is_scored_twice_and_goes_on(byte_tokenizer, llama, tmp_path):
    encoder = Encoder(byte_tokenizer)
    scorer = Scorer(llama.eval(), encoder.yes_id, encoder.no_id)
    partial = tmp_path / "partial.jsonl"
    scores = score(Candidates.of(ROWS, 0), TEXTS, encoder, scorer, partial=partial).log_odds
    assert np.isfinite(scores).tolist() == [[True, True, False, False], [True] * 4]
    for place in range(2):
        alone = score(Candidates.of(ROWS.select([place]), 0), TEXTS, encoder, scorer).log_odds[0]
        np.testing.assert_allclose(scores[place, : len(alone)], alone, atol=1e-5)
    lines = partial.read_text().splitlines()
    key, values, shortened, seconds = json.loads(lines[1])
    assert 0 < seconds < 60
    partial.write_text(f"{lines[0]}\n{json.dumps([key, [value + 1 for value in values], shortened, 100])}\n")
    again = score(Candidates.of(ROWS, 0), TEXTS, encoder, scorer, partial=partial)
    np.testing.assert_allclose(again.log_odds[1], scores[1] + 1)
    np.testing.assert_array_equal(again.log_odds[0, :2], scores[0, :2])
    assert again.seconds_before == 100 + json.loads(lines[0])[3]


def test_results_count_the_candidates_there_are(tmp_path):
    candidates = Candidates.of(ROWS, 0)
    labels, mask = candidates.labels, candidates.mask
    scores = np.where(mask, np.where(labels, 2.0, 1.0), np.nan)
    about = {"split": "validation", "run": "ours"}
    results = write_results(tmp_path, {"ours": scores, "chance": np.where(mask, 0.0, np.nan)}, candidates, about)
    assert results["candidates_a_user"] == 3
    assert results["systems"]["ours"]["recall@1"]["value"] == 1
    assert results["systems"]["chance"]["recall@1"]["value"] == pytest.approx((1 / 2 + 1 / 4) / 2)
    kept = Dataset.from_parquet(str(tmp_path / "scores.parquet"))
    assert kept["row"] == [0, 0, 1, 1, 1, 1]
    assert kept["label"] == [int(label) for label in labels[mask]]
    assert results["temperature"] is None
    assert "too few users" in results["not_fitted"]


def test_new_scores_never_stand_beside_old_results(tmp_path, monkeypatch):
    candidates = Candidates.of(ROWS, 0)
    scores = np.where(candidates.mask, 1.0, np.nan)
    about = {"split": "test", "run": "ours"}
    write_results(tmp_path, {"ours": scores}, candidates, about)

    def killed(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        write_results(tmp_path, {"ours": 2 * scores}, candidates, about)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.parquet"]
    assert set(Dataset.from_parquet(str(tmp_path / "scores.parquet"))["ours"]) == {2}


def test_a_missing_score_of_a_candidate_is_refused():
    labels = np.array([[True, False, False]])
    scores = np.array([[1.0, np.nan, np.nan]])
    with pytest.raises(ValueError, match="finite"):
        fit_calibration(scores, labels, np.array([[True, True, False]]))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    base, dataset = tiny.save_base(BASES["plain"], folder / "base"), tiny.dataset(folder / "data")
    train.train(make_recipe(base, dataset, summary="hierarchical"), folder / "run")
    return folder / "run"


@pytest.fixture
def evaluated(run, tmp_path):
    evaluate_run(run, tmp_path / "evaluated")
    return tmp_path / "evaluated"


def test_a_run_ranks_the_candidates_of_another_dataset(run, tmp_path):
    other = tiny.dataset(tmp_path / "other", negatives=3)
    found = evaluate_run(run, tmp_path / "there", dataset=str(other))
    assert (found["candidates_a_user"], evaluate_run(run, tmp_path / "here")["candidates_a_user"]) == (4, 7)
    assert not found["shuffled_summaries"]


def test_shuffled_summaries_are_those_of_others(run, tmp_path):
    rows = Dataset.from_list([{"user_id": f"u{n}", "summary": f"s{n}"} for n in range(20)])
    mixed = with_shuffled_summaries(rows, seed=0)
    assert all(one != other for one, other in zip(mixed["summary"], rows["summary"], strict=True))
    assert sorted(mixed["summary"]) == sorted(rows["summary"])
    assert mixed["user_id"] == rows["user_id"]
    assert with_shuffled_summaries(rows, seed=1)["summary"] != mixed["summary"]
    with pytest.raises(EvaluationError, match="at least 2"):
        with_shuffled_summaries(rows.select([0]), seed=0)
    found = evaluate_run(run, tmp_path / "mixed", shuffle_summaries=True)
    assert found["shuffled_summaries"]
    own = evaluate_run(run, tmp_path / "own")
    assert found["systems"]["run"] != own["systems"]["run"]


def test_shuffled_summaries_are_those_of_other_users_where_users_have_several_rows():
    users = list("uuvvvwxxxx")
    rows = Dataset.from_list([{"user_id": user, "summary": f"{user}{n}"} for n, user in enumerate(users)])
    for seed in range(20):
        mixed = with_shuffled_summaries(rows, seed)
        assert all(summary[0] != user for user, summary in zip(users, mixed["summary"], strict=True))
        owners = {(user, summary[0]) for user, summary in zip(users, mixed["summary"], strict=True)}
        assert len(owners) == len({owner for _, owner in owners}) == 4  # a circle: each user once
    with pytest.raises(EvaluationError, match="at least 2 users"):
        with_shuffled_summaries(rows.select([0, 1]), seed=0)


def test_the_donors_of_published_figures_are_the_same():
    """With a row a user: the circle through the permutation of rows, as it was drawn from the beginning."""
    order = np.random.default_rng(7).permutation(50)
    donors = np.empty(50, int)
    donors[order] = np.roll(order, 1)
    assert rows_of_others([f"u{n}" for n in range(50)], np.random.default_rng(7)).tolist() == donors.tolist()


def ordered_rows():
    return Dataset.from_list(
        [
            {"user_id": "a", "history": list("abcdef"), "target": "x", "negatives": ["y"], "timestamps": [1, 2, 3, 4, 5, 6],
             "also_met": ["m"], "summary": "likes a"},
            {"user_id": "b", "history": ["a"], "target": "x", "negatives": ["y"], "timestamps": [1], "also_met": [],
             "summary": "likes b"},
        ]
    )  # fmt: skip


def test_histories_are_shown_in_another_order_and_all_else_stays():
    rows = ordered_rows()
    assert with_history(rows, None, 0) is rows
    for order, expected in (("reversed", "fedcba"), ("last:2", "ef"), ("last:9", "abcdef")):
        changed = with_history(rows, order, 0)
        assert changed["history"][0] == list(expected)
        assert changed["history"][1] == ["a"]
        assert "timestamps" not in changed.column_names
        for column in ("user_id", "target", "negatives", "summary"):
            assert changed[column] == rows[column]
        # What a user met stays met.
        assert sorted(changed["history"][0] + changed["also_met"][0]) == list("abcdefm")
    one, again, other = (with_history(rows, "shuffled", seed)["history"][0] for seed in (0, 0, 1))
    assert one == again != other
    assert sorted(one) == list("abcdef")
    assert one not in (list("abcdef"), list("fedcba"))
    # The order of a row does not hang on how many there are.
    assert with_history(rows.select([0]), "shuffled", 0)["history"][0] == one
    without = with_history(rows.remove_columns(["also_met", "timestamps"]), "last:4", 0)
    assert without["also_met"][:] == [["a", "b"], []]


@pytest.mark.parametrize("order", ["", "last", "last:0", "last:-1", "last:x", "sorted", "last:3 "])
def test_an_unknown_order_is_refused_before_anything_is_read(order, run, tmp_path):
    with pytest.raises(UsageError, match="can be shuffled, reversed or last:N with N from 1, got"):
        evaluate_run(run, tmp_path / "out", history=order)
    with pytest.raises(UsageError, match="can be shuffled, reversed or last:N"):
        results_folder(run, "test", history=order)


def test_a_run_is_evaluated_with_histories_in_another_order(run, tmp_path):
    assert results_folder(run, "test", history="last:1") == run / "test-history-last-1"
    true, cut = tmp_path / "test", tmp_path / "cut"
    whole = evaluate_run(run, true)
    main(["evaluate", str(run), "--history", "last:1", "--out", str(cut), "--json"])
    found = results.read(cut)
    assert (found.history, found.shuffled_summaries, results.read(true).history) == ("last:1", False, None)
    assert "ece" in found.systems["run"]
    assert "ece" not in found.systems["tf-idf, history last:1"]
    assert found.systems["run"] != whole["systems"]["run"]
    assert found.systems["tf-idf"] == whole["systems"]["tf-idf"]
    assert {test["against"] for test in found.paired} == set(found.systems) - {"run"}
    assert [test["p_holm"] for test in found.paired] == holm([test["p_value"] for test in found.paired])
    compared = compare([str(true), str(cut)], tmp_path / "out", plots=False)
    names = ["chance", "popularity", "item-knn", "tf-idf", "run"]
    ordered = [f"{name}, history last:1" for name in ("item-knn", "tf-idf", "run")]
    assert list(compared["systems"]) == [*names, *ordered]
    assert compared["systems"]["run, history last:1"]["cost"]
    assert compared["systems"]["tf-idf, history last:1"]["cost"] is None
    assert "A control: histories were shown as last:1" in verdict.of_evaluation(dict(found.values), cut)
    with pytest.raises(CompareError, match="not two seeds of one run"):
        compare([f"run={true}", f"run={cut}"], tmp_path / "out", plots=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "validation"}, "its split was test, and is validation now"),
        ({"limit": 1}, "its limit was 0, and is 1 now"),
        ({"shuffle_summaries": True}, "its shuffling of summaries was off, and is on now"),
        ({"history": "reversed"}, "its order of histories was the true one, and is reversed now"),
        ({"adapter": False}, "its checksum of weights was [0-9a-f]{12}, and is none now"),
        ({"seed": 1}, "its seed was 0, and is 1 now"),
    ],
)
def test_an_evaluation_does_not_replace_another(run, evaluated, changes, message):
    before = (evaluated / "results.json").read_bytes()
    with pytest.raises(UsageError, match=f"holds results of another evaluation: {message}. Choose another --out"):
        evaluate_run(run, evaluated, **changes)
    assert (evaluated / "results.json").read_bytes() == before


def test_results_go_into_no_folder_of_something_else(run, tmp_path):
    data = tiny.dataset(tmp_path / "data")
    for folder, other in ((data, "README.md"), (run, "adapter")):
        with pytest.raises(UsageError, match=f"holds {other} and no results.json: no evaluation wrote it"):
            evaluate_run(run, folder)
    with pytest.raises(UsageError, match="lies in the dataset"):
        summarize_dataset(str(data), Path(data) / "inside", engine("extractive"))


def test_an_evaluation_made_again_may_be_replaced(run, evaluated):
    first = results.load(evaluated)
    assert evaluate_run(run, evaluated)["systems"] == first["systems"]
    first["run"] = "another"
    (evaluated / "results.json").write_text(json.dumps(first))
    with pytest.raises(UsageError, match="its run was another, and is run now"):
        evaluate_run(run, evaluated)
    with pytest.raises(UsageError, match="must not be negative"):
        evaluate_run(run, evaluated, limit=-3)


def test_without_summaries_there_is_nothing_to_shuffle(run, tmp_path):
    recipe = (run / "recipe.yaml").read_text(encoding="utf-8")
    plain = tmp_path / "plain"
    shutil.copytree(run, plain)
    (plain / "recipe.yaml").write_text(recipe.replace("summary: hierarchical", "summary: none"), encoding="utf-8")
    with pytest.raises(EvaluationError, match="nothing to shuffle"):
        evaluate_run(plain, tmp_path / "out", shuffle_summaries=True)
    assert not (tmp_path / "out").exists()
