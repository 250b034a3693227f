"""Bases of several sizes end in one comparison, named by what they are, and nothing is trained twice."""

import argparse
import json

import pytest

from bench import recommend, scaling
from tests import tiny
from trsr.errors import UsageError


def test_sizes_stand_in_one_table(tmp_path, monkeypatch):
    source = tiny.dataset(tmp_path / "data", users=40)
    provenance = source / "provenance.json"
    provenance.write_text(json.dumps(json.loads(provenance.read_text()) | {"summaries": {"block_size": 7}}))
    given = ([str(source)], tmp_path / "out", [(32, 1), (64, 2, 3)], 2, ("optim.max_steps=2",), 0)
    scaling.run(*given)
    found = json.loads((tmp_path / "out/comparison-data/comparison.json").read_text(encoding="utf-8"))
    sizes = [name.split(": ")[1].rsplit(", ", 1)[0] for name in found["systems"] if " wide" in name]
    assert sizes == ["32 wide, 1 layers, 2 steps", "64 wide, 2 layers, 3 steps"]
    assert {one["against"].split(": ")[1].rsplit(", ", 1)[0] for one in found["paired"]} == {sizes[0]}
    assert json.loads((tmp_path / "out/64x2x3/base/training.json").read_text())["cpu_seconds"] >= 0

    monkeypatch.setattr(recommend, "train_domain", lambda *args, **options: pytest.fail("trained twice"))
    scaling.run(*given)
    # What was begun goes on with the same recipe, seed and data alone.
    for number, other in ((0, [str(tiny.dataset(tmp_path / "other", users=9))]), (4, ("negatives=2",)), (5, 1)):
        with pytest.raises(UsageError, match=r"made from something else: (datasets|negatives|seed) was"):
            scaling.run(*given[:number], other, *given[number + 1 :])


@pytest.mark.parametrize("text", ["64", "64x0", "40x2", "64x2x3x4", "axb"])
def test_a_size_that_is_none_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is no WIDTHxLAYERS"):
        scaling.size(text)
