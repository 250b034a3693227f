"""How far a ranking follows an edited summary: what is edited, what is ranked, and what is counted."""

import json

import numpy as np
import pytest

from bench import report, steerability
from bench.steerability import GROUPS, Case, FieldValues, choose, moves, named, values_of
from trsr.errors import DataError


def case(summary):
    pattern = named("sea (tales)", ["sea (tales)", "deep sea (tales)", "baking"])
    return Case("u", ["a"], summary, "sea (tales)", "baking", {}, pattern)


@pytest.mark.parametrize(
    ("summary", "replaced", "added"),
    [
        (
            "genre: sea (tales) x6, travel x2; author: A",
            "genre: baking x6, travel x2; author: A",
            "genre: baking x6, sea (tales) x6, travel x2; author: A",
        ),
        ("Likes sea (tales).", "Likes baking.", "Likes baking, sea (tales)."),
        ("undersea (tales)", "undersea (tales)", "undersea (tales)"),
        # Another value that holds it is another, in a list and in a sentence; so is a value of another field.
        (
            "genre: deep sea (tales) x3, sea (tales) x1",
            "genre: deep sea (tales) x3, baking x1",
            "genre: deep sea (tales) x3, baking x1, sea (tales) x1",
        ),
        ("Likes deep sea (tales) most.", "Likes deep sea (tales) most.", "Likes deep sea (tales) most."),
        *[("author: The sea (tales) Press x2; genre: travel x2",) * 3],
    ],
)
def test_a_preference_is_replaced_or_added_with_its_count(summary, replaced, added):
    edited = case(summary).summaries
    assert edited == {"as it is": summary, "replaced": replaced, "added": added}


def test_values_are_parts_between_commas():
    assert values_of("Fiction, Young Adult,, x ") == ["Fiction", "Young Adult", "x"]
    assert values_of(None) == []


@pytest.fixture
def values():
    """600 items, each of one of 20 genres; every third is fiction as well, which is too many."""
    return FieldValues.of({f"i{n}": [f"g{n % 20}", *(["fiction"] if n % 3 == 0 else [])] for n in range(600)})


def test_x_is_liked_and_named_and_y_neither(values):
    row = {"user_id": "u", "history": ["i0", "i20", "i3", "i21"], "target": "i40", "also_met": ["i60"]}
    found = choose(row, "genre: fiction x2, g0 x2, g3 x1", values, seed=0)
    assert found.x == "g0"
    assert found.y not in {"g0", "g1", "g3", "fiction"}
    for group, has in (("x", (True, False)), ("y", (False, True)), ("others", (False, False))):
        assert len(set(found.groups[group])) == GROUPS[group]
        assert {(found.x in values.of_item[one], found.y in values.of_item[one]) for one in found.groups[group]} == {
            has
        }
    assert not {"i0", "i20", "i40", "i60"} & {one for group in found.groups.values() for one in group}
    assert choose(row, "genre: fiction x2, g0 x2, g3 x1", values, seed=0) == found
    assert choose(row, "genre: fiction", values, seed=0) is None  # names no value that few enough items have
    kept = ("i0", "i20", "i40")
    few = {item_id: held for item_id, held in values.of_item.items() if held[0] != "g0" or item_id in kept}
    assert choose({**row, "also_met": []}, "g0", FieldValues.of(few), seed=0) is None


def test_moves_by_hand():
    """Before: X first, then the others, then Y. After: Y first, then the others, then X."""
    places = np.concatenate([np.arange(15), 45 + np.arange(15), 15 + np.arange(30)])
    after = np.concatenate([45 + np.arange(15), np.arange(15), 15 + np.arange(30)])
    found = moves(case(""), {"as it is": (-places).tolist(), "replaced": (-after).tolist()})
    assert (found["replaced up x"], found["replaced up y"], found["replaced up others"]) == (-45, 45, 0)
    assert (found["as it is top x"], found["as it is top y"]) == (1, 0)
    assert (found["replaced top x"], found["replaced top y"]) == (0, 1)
    assert found["as it is up x"] == 0


def test_the_recommender_in_the_package_follows_and_the_table_says_so(tmp_path):
    results = steerability.run(tmp_path / "steerability.json", users=3)
    assert json.loads((tmp_path / "steerability.json").read_text()) == results
    assert results["users"] == 3
    with pytest.raises(DataError, match=r"No summary of \d+ names a value of 'title' that can be replaced"):
        steerability.run(tmp_path / "none.json", field="title")
    figures = results["figures"]
    assert figures["replaced up y"]["value"] > 5 > -5 > figures["replaced up x"]["value"]
    lines = report.steerability(results).splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == ["as it is", "Y in the place of X", "Y beside X"]
    assert f"{figures['added up y']['value']:+.3f}" in lines[4]
