"""--json: one object on stdout, and nothing else there, of every verb whose answer a script reads."""

import json

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _http

from trsr.cli import VERBS, command_line, main
from trsr.cli.outcome import Outcome
from trsr.hub import retry

FOR_SCRIPTS = {
    "check",
    "summarize",
    "audit",
    "base",
    "recipes",
    "evaluate",
    "compare",
    "publish",
    "verify",
    "recommend",
    "doctor",
}


def told(capsys, *words):
    capsys.readouterr()
    main([*map(str, words), "--json"])
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def run(quickstarted):
    return quickstarted[0] / "runs" / "recurrent"


def test_verbs_that_scripts_read_have_it(capsys):
    for verb in VERBS:
        with pytest.raises(SystemExit):
            command_line().parse_args([verb, "--help"])
        assert ("--json" in capsys.readouterr().out.split("options:")[-1]) == (verb in FOR_SCRIPTS), verb


def test_what_is_looked_at(capsys, quickstarted):
    dataset = quickstarted[0] / "dataset"
    assert told(capsys, "check", dataset, "--limit", "5")["counts"]["error"] == 0
    assert "methods" in told(capsys, "audit", dataset, "--limit", "5")
    assert "nano" in {one["base"] for one in told(capsys, "recipes")["recipes"]}
    assert told(capsys, "doctor", "--offline")["package"]["missing"] == []


def test_what_is_measured(capsys, run, tmp_path):
    measured = told(capsys, "evaluate", run, "--limit", "4", "--out", tmp_path / "test")
    assert measured["systems"]["recurrent"]["recall@3"]["value"] <= 1
    compared = told(capsys, "compare", tmp_path / "test", "--no-plots", "--out", tmp_path / "comparison")
    assert (
        compared["systems"]["recurrent"]["recall@3"]["value"] == measured["systems"]["recurrent"]["recall@3"]["value"]
    )


def test_what_is_made_and_what_it_would_cost(capsys, small_dataset, tmp_path):
    words = ["summarize", small_dataset, "--out", tmp_path / "out"]
    assert set(told(capsys, *words, "--estimate")) == {"recurrent", "hierarchical", "recurrent + hierarchical"}
    assert told(capsys, *words)["out"] == str(tmp_path / "out")


def test_the_plan_of_a_release_without_a_hub(capsys, run, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(retry.time, "sleep", lambda seconds: None)
    main(
        [*map(str, ("publish", run, "--namespace", "ORG", "--name", "books", "--out", tmp_path / "release", "--json"))]
    )
    out, err = capsys.readouterr()
    plan = json.loads(out)
    assert not plan["compared"]
    assert {one["repo"] for one in plan["repos"]} >= {"ORG/books", "ORG/books-lora"}
    assert all(one["added"] for one in plan["repos"])
    assert "could not be reached" in err
    assert "| ORG/books-lora |" in err


def test_what_json_does_not_know_is_null():
    assert json.loads(Outcome({"a": [float("nan"), 1.0], "b": (float("inf"), "x")}, "").json()) == {
        "a": [None, 1.0],
        "b": [None, "x"],
    }
