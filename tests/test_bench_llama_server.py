"""Ranking by a server beside our scorer, here behind a stub of llama.cpp's endpoint over the very model."""

import json
import os
import shutil
import time

import pytest

from bench import llama_server, report
from bench.measure import cpu_seconds_of
from bench.serving import llama_server_version
from tests.test_verify import Engine, known, recommender, served  # noqa: F401
from trsr.errors import UsageError


def test_requests_are_those_of_the_releases_users(quickstarted):
    release = quickstarted[0] / "release"
    requests = llama_server.of_users(release, "test", 2)
    assert [len(one["suffixes"]) for one in requests] == [21, 21]
    assert all(len(one["prefix"]) > 50 for one in requests)


def test_a_release_that_was_trained_without_summaries_is_asked_without_them(quickstarted, tmp_path):
    release = quickstarted[0] / "release"
    shutil.copytree(release / "pipeline", tmp_path / "pipeline")
    for part in ("adapter", "base", "dataset"):
        (tmp_path / part).symlink_to(release / part)
    config = json.loads((tmp_path / "pipeline" / "config.json").read_text(encoding="utf-8"))
    config["trsr"]["method"] = None
    (tmp_path / "pipeline" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    [with_summary], [without] = (llama_server.of_users(folder, "test", 1) for folder in (release, tmp_path))
    assert len(without["prefix"]) < len(with_summary["prefix"])
    assert without["suffixes"] == with_summary["suffixes"]


def test_what_is_no_llama_server_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere is no llama-server that runs here"):
        llama_server_version(str(tmp_path / "nowhere"))


def test_ways_take_turns_and_are_held_against_the_first(recommender, known):  # noqa: F811
    engine = Engine(recommender)
    requests = [{name: one[name] for name in ("prefix", "suffixes")} for one in known["requests"]]
    asked = []

    def ours(request):
        asked.append("ours")
        return recommender.scorer.log_odds(request["prefix"], request["suffixes"]).tolist()

    with served(engine, known) as url:

        def theirs(request):
            asked.append("theirs")
            return [one + 0.5 for one in llama_server._ask(url, known["answers"], request)]

        clock = time.process_time
        found = llama_server.take_turns({"ours": (ours, clock), "theirs": (theirs, clock)}, requests)
    assert asked == ["ours", "theirs", "ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert found["ours"]["difference"] == {"max": 0, "mean": 0}
    assert found["ours"]["ratio"] == {"median": 1, "low": 1, "high": 1}
    assert found["theirs"]["difference"]["mean"] == pytest.approx(0.5, abs=1e-3)
    assert found["theirs"]["candidates_a_cpu_second"]["low"] > 0
    table = report.table({"bench": "llama_server", "ways": found})
    assert table.splitlines()[3].startswith("| theirs | ")


def test_cpu_seconds_of_a_process_are_read():
    assert 0 < cpu_seconds_of(os.getpid()) < time.process_time() + 1
