"""The benchmark of search over a large catalogue, on a small one."""

import json

import pytest

from bench import report, search

pytest.importorskip("faiss")


def test_both_ways_are_measured_and_told(tmp_path):
    results = search.run(tmp_path / "search.json", search.Made(2000, 8, 16, 0), shares=(44, 1))
    assert json.loads((tmp_path / "search.json").read_text()) == results
    few, everything = (results["systems"][f"approximate, {probes} of 44 lists"] for probes in (1, 44))
    assert few["recall@100"] < everything["recall@100"] == 1
    lines = report.table(results).splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == [
        "exact",
        "approximate, 1 of 44 lists",
        "approximate, 44 of 44 lists",
    ]
