"""Amazon-M2's files -> histories: what numpy prints is read back, and whatever else is there is named."""

import csv
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.raw import PRODUCT_FIELDS, write_amazon_m2
from dataset_scripts import amazon_m2
from trsr.dataset import contract

PRODUCTS = [[f"B{n}", "UK", f"Thing {n}", "9.99", "Brand", "", "", "", "", "", "A; long\n\tway"] for n in range(60)]
SMALL = ("--train", "4", "--validation", "2", "--test", "2")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def session(items, after="B59", locale="UK") -> list[str]:
    return [str(np.array([f"B{n}" for n in items])), after, locale]


SESSIONS = [session(range(n, n + 10 + n % 3)) for n in range(9)]


def raw(folder: Path, sessions, products=PRODUCTS) -> Path:
    """A folder as the raw data has it: written as pandas does."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "products_train": [PRODUCT_FIELDS, *products],
        "sessions_train": [["prev_items", "next_item", "locale"], *sessions],
    }
    for name, lines in tables.items():
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(lines)
    return folder


def run(*arguments, out: Path) -> dict[str, int]:
    assert amazon_m2.main([*map(str, arguments), "--out", str(out)]) == 0
    return contract.provenance(str(out)).counts


def rows(out: Path) -> dict[str, dict]:
    return {row["user_id"]: row for split in contract.SPLITS for row in contract.read(str(out), "histories", split)}


@given(st.lists(st.lists(st.from_regex(r"[A-Z0-9]{10}", fullmatch=True), max_size=60), max_size=5))
@settings(deadline=None)
def test_what_numpy_prints_is_read_back(made):
    printed = [str(np.array(items)) for items in made]
    assert amazon_m2.printed_ids(pa.array(printed, pa.string())).to_pylist() == made


@pytest.mark.parametrize("spelled", [str, lambda ids: str(ids).replace("'", '"'), tuple, lambda ids: str(ids) + " "])
def test_lists_in_other_spellings_are_the_same_lists(tmp_path, spelled):
    run(raw(tmp_path / "numpy", SESSIONS), *SMALL, out=tmp_path / "one")
    lists = [[f"B{number}" for number in range(n, n + 10 + n % 3)] for n in range(9)]
    other = [[str(spelled(ids)), *session[1:]] for ids, session in zip(lists, SESSIONS, strict=True)]
    assert run(raw(tmp_path / "other", other), *SMALL, out=tmp_path / "two")["sessions_broken"] == 0
    assert rows(tmp_path / "two") == rows(tmp_path / "one")


def test_sessions_with_few_items_are_told_with_the_option_that_keeps_them(tmp_path, capsys):
    run(raw(tmp_path / "raw", [*SESSIONS, session(range(4)), session([1])]), *SMALL, out=tmp_path / "out")
    said = "2 users have fewer than 11 items: --min-history 5 keeps 1 of them, --min-history 2 keeps 2 of them\n"
    assert said in capsys.readouterr().out


def test_a_small_example_by_hand(tmp_path, capsys):
    odd = [
        session(range(9)),
        session(range(26)),
        session([n % 60 for n in range(400)]),
        SESSIONS[0],
        session(range(10), locale="DE"),
        session([7] * 10, "B7"),
        ["B1 B2", "B3", "UK"],
        session(range(10), ""),
    ]
    products = [
        [*PRODUCTS[0][:4], "Brand &amp; Sons", *PRODUCTS[0][5:]],
        *PRODUCTS[1:],
        PRODUCTS[4],
        ["B0", "DE", "Ding", *[""] * 8],
        ["B99", "UK", *[""] * 9],
    ]
    counts = run(raw(tmp_path / "raw", [*SESSIONS, *odd], products), *SMALL, "--train", "all", out=tmp_path / "out")
    found = rows(tmp_path / "out")
    assert len(found) == 10
    first = found[amazon_m2.name_session(" ".join([*(f"B{n}" for n in range(10)), "B59"]))]
    assert (first["history"], first["target"]) == ([f"B{n}" for n in range(10)], "B59")
    assert counts["targets_in_own_history"] == 1
    names = ("read", "broken", "of_other_locales", "repeated")
    assert [counts[f"sessions_{name}"] for name in names] == [17, 2, 1, 1]
    assert (counts["users_dropped_short"], counts["users_dropped_long"]) == (1, 2)
    assert (counts["products_of_other_locales"], counts["items_repeated"], counts["items_without_title_or_text"]) == (
        1,
        1,
        1,
    )
    assert contract.read(str(tmp_path / "out"), "items", "train")["text"][0] == (
        "title: Thing 0; price: 9.99; brand: Brand & Sons; description: A, long way"
    )
    assert counts["products_cells_unescaped"] == 1
    said = capsys.readouterr().out
    # Sessions of more than 9 items are printed over several lines.
    assert "left out, prev_items is no printed list: 1 (raw/sessions_train.csv, line " in said
    assert "left out, no next_item: 1" in said


def test_sessions_that_differ_in_unknown_items_alone_are_one(tmp_path):
    known = [session([*range(11), n]) for n in range(11, 20)]
    with_unknown = [
        session([*range(5), 70 + n, *range(5, 11), n]) for n in range(11, 20)
    ]  # items from 60 on have no product
    counts = run(raw(tmp_path / "raw", [*known, *with_unknown]), *SMALL, "--train", "all", out=tmp_path / "out")
    assert (counts["sessions_repeated"], counts["unknown_items_left_out"]) == (9, 9)
    found = rows(tmp_path / "out")
    assert len({(*row["history"], row["target"]) for row in found.values()}) == len(found) == 9


def test_the_order_of_rows_and_the_number_of_workers_change_no_byte(tmp_path, monkeypatch):
    monkeypatch.setattr("trsr.dataset.build.scan.BLOCK", 30_000)
    write_amazon_m2(tmp_path / "a", sessions=3000, products=400, seed=3)
    run(tmp_path / "a", *SMALL, "--workers", "1", out=tmp_path / "one")
    for name in ("sessions_train", "products_train"):
        with (tmp_path / "a" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            header, *lines = csv.reader(file)
        random.Random(0).shuffle(lines)
        with (tmp_path / "a" / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\r\n", quoting=csv.QUOTE_ALL).writerows([header, *lines])
    run(tmp_path / "a", *SMALL, "--workers", "3", out=tmp_path / "two")
    one, two = (
        {
            str(path.relative_to(out)): path.read_bytes()
            for path in out.rglob("*.*")
            if path.name != contract.PROVENANCE_FILE
        }
        for out in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two


CELL = st.sampled_from(["['B1' 'B2']", "['B1'\n 'B2']", "[]", "['B1", "B1", "", "UK", 'a"b', "é,"])


@given(st.lists(st.lists(CELL, min_size=1, max_size=4), max_size=8))
@settings(max_examples=30, deadline=None)
def test_whatever_the_rows_they_add_up(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("any")
    source = raw(folder / "a", [*SESSIONS, *lines])
    counts = run(source, *SMALL, "--min-history", "2", "--negatives", "3", out=folder / "out")
    places = ("users_dropped_short", "users_dropped_long", "users_in_no_split", "users_kept")
    used = ("sessions_broken", "sessions_of_other_locales", "sessions_repeated", *places)
    assert counts["sessions_read"] == sum(counts[name] for name in used)
    strict = amazon_m2.main([str(source), *SMALL, "--min-history", "2", "--strict", "--out", str(folder / "strict")])
    assert strict == (2 if counts["sessions_broken"] else 0)
