"""The frontier: adapters for each room and form, their figures in pairs, nothing done twice."""

import json

import numpy as np
import pytest

from bench import adapters, fill_tables, frontier
from tests import tiny
from tests.test_train import BASES
from trsr.recommender import run as runs


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frontier")
    base = tiny.save_base(BASES["plain"], folder / "base")
    dataset = tiny.dataset(folder / "films", negatives=4)
    words = [
        str(dataset),
        "--recipe",
        "domain",
        "--set",
        f"base={base}",
        "optim.max_steps=2",
        "targets=1",
        "negatives=2",
    ]
    words += ["--rooms", "24", "200", "--seeds", "0", "1", "--out", str(folder / "out")]
    assert frontier.main(words) == 0
    return folder, words


def test_a_row_for_each_room_with_both_forms(measured):
    folder, _ = measured
    results = json.loads((folder / "out" / frontier.FRONTIER_FILE).read_text(encoding="utf-8"))
    assert [one["room"] for one in results["rooms"]] == [24, 200]
    for one in results["rooms"]:
        assert set(one["forms"]) == set(frontier.FORMS)
        for figures in one["forms"].values():
            assert figures["seeds"] == 2
            assert figures["recall@3"]["value"] == pytest.approx(np.mean(figures["recall@3 of seeds"]))
        recent, both = one["forms"].values()
        assert one["test"]["difference"] == pytest.approx(both["recall@3"]["value"] - recent["recall@3"]["value"])
        assert one["test"]["p_holm"] >= one["test"]["p_value"]
    small, large = (one["forms"]["recent items"] for one in results["rooms"])
    assert small["tokens"] < large["tokens"]
    assert small["items"] < large["items"]
    # The longest candidate may take less than is set aside for it, the instruction and the cue: never more.
    assert all(
        one["forms"][form]["tokens"] <= one["room"] + frontier.OTHERS
        for one in results["rooms"]
        for form in one["forms"]
    )
    assert results["rooms"][0]["forms"]["summary and recent items"]["items"] <= small["items"]


def test_what_is_finished_is_kept(measured, monkeypatch):
    folder, words = measured
    names = sorted(path.name for path in (folder / "out" / "runs").iterdir() if runs.is_finished(path))
    assert names == sorted(
        f"{form}-{room}-{seed}" for form in ("none", "recurrent") for room in (24, 200) for seed in (0, 1)
    )
    before = (folder / "out" / frontier.FRONTIER_FILE).read_bytes()

    def again(*args, **options):
        raise AssertionError("done twice")

    monkeypatch.setattr(adapters, "train", again)
    monkeypatch.setattr(adapters, "evaluate_run", again)
    assert frontier.main(words) == 0
    assert (folder / "out" / frontier.FRONTIER_FILE).read_bytes() == before


def test_another_dataset_is_refused(measured, capsys):
    folder, words = measured
    other = tiny.dataset(folder / "books", negatives=3)
    assert frontier.main([str(other), *words[1:]]) == 2
    assert "was made from something else: datasets was" in capsys.readouterr().err


def test_its_table(measured):
    folder, _ = measured
    text = "<!-- frontier: out/frontier.json -->\n<!-- end -->"
    filled = fill_tables.fill(text, folder)
    assert filled.count("\n| 24 |") == 1
    assert filled.count("\n| 200 |") == 1
