"""The benchmark of search over a large catalogue, on a small one."""

import json
import os

import numpy as np
import pytest

from bench import report, search

pytest.importorskip("faiss")


def threads(folder):
    from threadpoolctl import threadpool_info

    search.top_k_items(*(np.zeros((4, 4), np.float32),) * 2, 2)
    return {"exact": {one["num_threads"] for one in threadpool_info()}}, np.zeros((1, 1), int), (1, 1)


def test_processes_that_measure_have_one_thread_and_do_not_make_the_vectors(tmp_path, monkeypatch):
    pytest.importorskip("threadpoolctl")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(search, "exact", threads)
    monkeypatch.setattr(search, "approximate", nothing)
    monkeypatch.setattr(search, "write", lambda out, results: None)
    results = search.run(tmp_path / "search.json", search.Made(200, 2, 8, 0))
    assert results["systems"]["exact"]["exact"] == {1}
    assert os.environ["OMP_NUM_THREADS"] == "3"


def nothing(folder, shares, truth):
    return []


def test_searches_are_warmed_up_before_they_are_timed():
    sizes = []
    search._timed(lambda part: (sizes.append(len(part)), None), np.zeros((30, 4), np.float32))
    assert sizes == [20, 30, *[1] * 20]


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
