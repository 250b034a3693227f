"""What an evaluation comes to, in words: the figures are those of its files."""

import json

import pytest

from tests.test_compare import evaluation, rows
from trsr.metrics.significance import with_holm
from trsr.recommender.compare import verdict


def interval(value):
    return {"value": value, "low": value - 0.02, "high": value + 0.02}


def test_above_below_and_not_told_apart_with_their_intervals():
    systems = {
        name: {"recall@3": {"value": value}} for name, value in (("mine", 0.4), ("a", 0.3), ("b", 0.5), ("c", 0.41))
    }
    paired = [
        {"system": "mine", "against": "a", "difference": 0.1, "low": 0.05, "high": 0.15, "p_value": 0.001},
        {"system": "b", "against": "mine", "difference": 0.1, "low": 0.04, "high": 0.16, "p_value": 0.01},
        {"system": "mine", "against": "c", "difference": -0.01, "low": -0.05, "high": 0.03, "p_value": 0.5},
        {"system": "a", "against": "b", "difference": -0.2, "low": -0.3, "high": -0.1, "p_value": 0.001},
    ]
    assert verdict.standing("mine", systems, with_holm(paired)) == (
        "Verdict: mine, Recall@3 0.400, is above a (0.300; +0.100, +0.050 to +0.150); "
        "below b (0.500; -0.100, -0.160 to -0.040); not told apart from c (0.410; -0.010, -0.050 to +0.030)."
    )


def test_what_is_above_by_chance_among_many_baselines_is_not_told_apart():
    """By p values after Holm's correction over all tests of the file."""
    systems = {name: {"recall@3": {"value": 0.3}} for name in ("mine", *"abc")}
    paired = [
        {"system": "mine", "against": other, "difference": 0.1, "low": 0.01, "high": 0.19, "p_value": p}
        for other, p in (("a", 0.03), ("b", 0.001), ("c", 0.02))
    ]
    assert with_holm(paired)[0]["p_holm"] == pytest.approx(0.04)  # the largest of 0.003, 2 x 0.02 and 0.03
    assert [with_holm(paired * 2)[number]["p_holm"] for number in (0, 1)] == pytest.approx([0.08, 0.006])
    for tests, apart in ((paired, "abc"), (paired * 2, "b")):
        said = verdict.standing("mine", systems, with_holm(tests)).partition("; not told apart from")[0]
        assert [name for name in "abc" if f"{name} (0.300" in said] == list(apart)


def results(folder, difference, *, shortened=0, **about):
    """A results file in which the run differs from each simple peer by `difference`."""
    folder.mkdir(parents=True)
    paired = [
        {"system": "mine", "against": peer, "difference": difference, "low": difference - 0.01,
         "high": difference + 0.01, "p_value": 0.001, "p_holm": 0.003}
        for peer in verdict.SIMPLE
    ]  # fmt: skip
    systems = {name: {"recall@3": interval(0.3)} for name in (*verdict.SIMPLE, "mine")}
    found = {"run": "mine", "n_users": 300, "rows": 300, "shortened": shortened, "summary": "recurrent"}
    found |= {"systems": systems, "paired": paired, **about}
    (folder / "results.json").write_text(json.dumps(found))
    return found, folder


def test_what_is_below_the_simple_peers_says_so_and_what_to_do(tmp_path):
    said = verdict.of_evaluation(*results(tmp_path / "test", -0.2, shortened=288))
    assert "mine, Recall@3 0.300, is below popularity" in said
    assert "288 of 300 prompts were shortened" in said
    assert "larger max_tokens" in said
    assert "popularity and item-knn and tf-idf would serve these users better" in said
    assert "trsr pretrain domain" in said
    assert "not measured yet: the same command with --shuffle-summaries" in said


def test_what_is_above_them_gets_no_advice(tmp_path):
    said = verdict.of_evaluation(*results(tmp_path / "test", 0.2, shortened=3, summary="none")).splitlines()
    assert said[0].startswith("Verdict: mine, Recall@3 0.300, is above popularity")
    assert said[1:] == ["3 of 300 prompts were shortened: recent items or words of the summary left out."]


@pytest.mark.parametrize(
    ("own", "control", "said"),
    [
        (1.0, -1.0, "The summary helps: own summaries against those of other users, Recall@3 +1.000"),
        (-1.0, 1.0, "The summary harms"),
        (1.0, 1.0, "The summary did nothing that can be told from chance"),
    ],
)
def test_the_control_with_the_summaries_of_others_tells_what_the_summary_does(tmp_path, own, control, said):
    many = rows([f"u{n}" for n in range(20)], [f"n{n}" for n in range(20)])
    for name, value in (("test-limit-20", own), ("test-shuffled-limit-20", control)):
        evaluation(tmp_path / name, {"mine": lambda user, item, value=value: value * (item == "t")}, many,
                   summary="recurrent", shuffled_summaries="shuffled" in name, n_users=20, paired=[])  # fmt: skip
        about = json.loads((tmp_path / name / "results.json").read_text())
        about["systems"]["mine"] = {"recall@3": interval(0.5)}
        (tmp_path / name / "results.json").write_text(json.dumps(about))
    own_results = json.loads((tmp_path / "test-limit-20" / "results.json").read_text())
    assert said in verdict.of_evaluation(own_results, tmp_path / "test-limit-20")


@pytest.mark.parametrize("text", ["[1, 2]", "{", '"words"', '{"shuffled_summaries": true, "run": "mine"}', "\udcff"])
def test_what_others_left_beside_an_evaluation_is_passed_over(tmp_path, text):
    found, folder = results(tmp_path / "test", 0.1)
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "results.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "not measured yet" in verdict.of_evaluation(found, folder)


def test_a_control_of_other_weights_is_none(tmp_path):
    results(tmp_path / "test-shuffled", 0.1, weights="a", shuffled_summaries=True)
    assert "not measured yet" in verdict.of_evaluation(*results(tmp_path / "test", 0.1, weights="b"))


def test_a_control_is_called_so_and_gets_no_advice(tmp_path):
    said = verdict.of_evaluation(*results(tmp_path / "test-shuffled", -0.2, shuffled_summaries=True)).splitlines()
    assert said[1:] == ["A control: every user was ranked for by the summary of another one."]
