"""Ids, times and texts: whatever the format and its type, what was written is read, or counted and named."""

import csv
import json
import math
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_scripts import tables
from trsr.core.history import clean, field_text
from trsr.core.prompts import RankingPrompt
from trsr.dataset.build import column_types
from trsr.dataset.build.scan import Faults
from trsr.dataset.build.table_files import format_of, text_table
from trsr.dataset.build.tables import parquet_table, read

LOST = "an id that lost digits as a float in column 'id'"
FORMS = ("csv", "jsonl", "parquet")


def write(path: Path, column: str, values: list) -> Path:
    """One column, as pandas and Python write it."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table({column: pa.array(values, from_pandas=False)}), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({column: value}) + "\n" for value in values), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([[column, ""], *([value, "x"] for value in values)])
    return path


def table_of(path):
    return parquet_table(path) if path.suffix == ".parquet" else text_table(path, format_of(path))


def column(path: Path, kind: column_types.Kind, name: str = "id") -> tuple[list, Faults]:
    """What is read of a column of a file, and what was left out."""
    faults = Faults()
    table, reading = read(table_of(path), {"read": (name, kind)}, faults)
    assert reading.broken == sum(faults.counts.values())
    return table["read"].to_pylist(), faults


@pytest.mark.parametrize("form", FORMS)
def test_large_ids_that_came_as_floats_are_left_out_and_named(tmp_path, form):
    # The last digits of 10^18 + 1 and of all its neighbours are lost alike.
    values = [7.0, float(10**18 + 1), float(10**18 + 2), float(2**53), float(2**53 - 1)]
    ids, faults = column(write(tmp_path / f"t.{form}", "id", values), column_types.ID)
    assert ids == ["7", str(2**53 - 1)]
    assert dict(faults.counts) == {LOST: 3}
    place = {"csv": "line 3", "jsonl": "line 2", "parquet": "row 2"}[form]
    assert faults.named[LOST][0] == f"t.{form}, {place}"


@pytest.mark.parametrize("form", FORMS)
def test_large_ids_that_came_as_whole_numbers_or_text_stay(tmp_path, form):
    values = [10**18 + 1, 10**18 + 2, -(2**62), 0]
    for made in (values, list(map(str, values))):
        assert column(write(tmp_path / f"t.{form}", "id", made), column_types.ID)[0] == list(map(str, values))


@pytest.mark.parametrize("form", ["csv", "jsonl", "json"])
def test_a_number_with_more_digits_than_python_reads_is_its_digits(tmp_path, form):
    """Python reads no whole number of more than 4,300 digits, unless told to."""
    long, path = "9" * 5000, tmp_path / f"t.{form}"
    objects = [f'{{"id": {value}, "other": {long}}}' for value in (7, long, f'"{long}.0"', f'"{"0" * 5000}8.0"')]
    text = {
        "csv": f"id,other\n7,{long}\n{long},{long}\n{long}.0,{long}\n{'0' * 5000}8.0,{long}\n",
        "jsonl": "\n".join(objects),
        "json": f"[{', '.join(objects)}]",
    }
    path.write_text(text[form])
    ids, faults = column(path, column_types.ID)
    assert ids == ["7", long, "8"]
    assert dict(faults.counts) == {LOST: 1}


def test_an_id_list_may_hold_such_a_number(tmp_path):
    long = "9" * 5000
    (tmp_path / "t.csv").write_text(f'id\n"[7, {long}]"\n')
    assert column(tmp_path / "t.csv", column_types.IDS)[0] == [["7", long]]


def test_short_floats_lose_digits_earlier(tmp_path):
    for kind, exact in ((pa.float32(), 2**24), (pa.float16(), 2**11)):
        values = pa.array(np.array([exact - 1, exact], dtype=kind.to_pandas_dtype()))
        pq.write_table(pa.table({"id": values}), tmp_path / "t.parquet")
        ids, faults = column(tmp_path / "t.parquet", column_types.ID)
        assert ids == [str(exact - 1)]
        assert faults.counts == {LOST: 1}
    lists = pa.array([[1.0, 2.0], [float(2**24)]], pa.list_(pa.float32()))
    pq.write_table(pa.table({"id": lists}), tmp_path / "t.parquet")
    ids, faults = column(tmp_path / "t.parquet", column_types.IDS)
    assert ids == [["1", "2"]]
    assert faults.counts == {"a list with an id that lost digits as a float in column 'id'": 1}


@pytest.mark.parametrize("form", FORMS)
def test_missing_ids_are_no_user(tmp_path, form):
    frame = pd.DataFrame({"id": [1.0, math.nan, 2.0], "x": "x"})
    path = tmp_path / f"t.{form}"
    if form == "csv":
        frame.to_csv(path, index=False)
    elif form == "parquet":
        frame.to_parquet(path)
    else:
        path.write_text('{"id": 1.0}\n{"id": NaN}\n{"id": 2.0}\n', encoding="utf-8")
    ids, faults = column(path, column_types.ID)
    assert ids == ["1", "2"]
    assert faults.counts == {"no id in column 'id'": 1}


@pytest.mark.parametrize(
    "missing", [None, math.nan, "", " ", "nan", "NaN", "None", "NaT", "<NA>", "inf", pd.NA, pd.NaT, math.inf]
)
def test_what_stands_for_a_missing_id_is_none(missing):
    assert column_types.identifier(missing) is None
    if isinstance(missing, str):
        assert column_types.ID.read(pa.array([missing, "b"])).to_pylist() == [None, "b"]


def test_ids_of_other_types(tmp_path):
    cases = {
        "bytes": (pa.array([b"i0", "é".encode(), b"\xff"]), ["i0", "é"], {"an id that is not UTF-8": 1}),
        "decimals": (pa.array([Decimal("12.00"), Decimal("12.50"), None]), ["12", "12.5"], {"no id": 1}),
        "objects": (pa.array([{"a": "x"}, None]), [], {"an object or a list in place of an id": 1, "no id": 1}),
        "maps": (
            pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
            [],
            {"an object or a list in place of an id": 1},
        ),
        "categories": (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"], {}),
        "large": (pa.array(["a"], pa.large_string()), ["a"], {}),
        "views": (pa.array(["a"], pa.string_view()), ["a"], {}),
    }
    for name, (values, ids, faults) in cases.items():
        made = column_types.ID.read(values)
        assert made.drop_null().to_pylist() == ids, name
        found = column_types.ID.faults(values, made)
        assert {why: int(mask.sum()) for why, mask in found.items()} == faults, name


def test_what_mongodb_exports_is_read(tmp_path):
    (tmp_path / "t.jsonl").write_text(
        '{"id": {"$oid": "5f0"}, "t": {"$date": "2020-01-01T00:00:00Z"}}\n'
        '{"id": {"$numberLong": "1000000000000000001"}, "t": {"$date": {"$numberLong": "5"}}}\n',
        encoding="utf-8",
    )
    assert column(tmp_path / "t.jsonl", column_types.ID)[0] == ["5f0", "1000000000000000001"]
    assert column(tmp_path / "t.jsonl", column_types.TIMESTAMP, "t")[0] == [1577836800.0, 5.0]


def test_texts_of_other_types_read_as_in_a_request(tmp_path):
    columns = {
        "title": pa.array([b"A", "Ö".encode()]),
        "details": pa.array([{"Brand": "Acme", "asin": "B0", "Sizes": ["S", None, "L"]}, None]),
        "more": pa.array([[("Color", "red"), ("id", "7")], []], pa.map_(pa.string(), pa.string())),
        "price": pa.array([Decimal("1E+3"), Decimal("2.50")]),
    }
    for name, expected in {
        "title": ["A", "Ö"],
        "details": ["Brand: Acme, Sizes: S, L", ""],
        "more": ["Color: red", ""],
        "price": ["1000.00", "2.50"],
    }.items():
        values = columns[name].to_pylist(maps_as_pydicts="lossy")
        assert column_types.text().read(columns[name]).to_pylist() == expected
        assert [field_text(value) for value in values] == expected
    bad = pa.array([b"\xff", b"A"])
    made = column_types.text().read(bad)
    assert made.to_pylist() == [None, "A"]
    assert list(column_types.text().faults(bad, made)) == ["text that is not UTF-8"]


def items(folder: Path, rows: list[dict], *options: str):
    """The items of a JSONL file, counts, and what a recommender reads of the same rows."""
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    given = ["--items", str(path), "--interactions", str(path), "--out", "out", "--item-id", "item_id", *options]
    parsed = tables.arguments().parse_args(given)
    found, counts, _ = tables.read_items(parsed, Faults())
    prompt = RankingPrompt(field_words=parsed.field_words, field_values=parsed.field_values)
    assert found["text"].to_pylist() == [prompt.item(row).text for row in rows]
    return found.to_pylist(), counts


def test_html_entities_are_unescaped_once_and_counted(tmp_path):
    rows = [
        {"item_id": "a", "title": "Salt &amp; Pepper", "brand": "O&#39;Neill &amp;lt; &#x201C;x&#148; &bogus; AT&T"},
        {"item_id": "b", "title": "Plain & simple", "brand": ["R&amp;B", "&NBSP; &nbsp;"]},
    ]
    found, counts = items(tmp_path, rows)
    assert found[0]["text"] == "title: Salt & Pepper; brand: O'Neill &lt, “x” &bogus, AT&T"
    assert found[0]["title"] == "Salt & Pepper"
    assert found[1]["text"] == "title: Plain & simple; brand: R&B, &NBSP,"
    assert counts["items_cells_unescaped"] == 3


@pytest.mark.parametrize("form", FORMS)
def test_commas_and_spaces_at_a_cut_go(tmp_path, form):
    values = ["tea , cakes", "tea,, , , cakes", "tea, cakes", "tea ,", "tea,"]
    texts, _ = column(write(tmp_path / f"t.{form}", "x", values), column_types.text(2), "x")
    assert texts == [field_text(value, 2) for value in values] == ["tea", "tea", "tea, cakes", "tea ,", "tea,"]


def test_a_text_without_spaces_is_cut_by_characters(tmp_path):
    rows = [
        {"item_id": "a", "title": "書籍", "blurb": "日本語の文章です。" * 3000},
        {"item_id": "b", "title": "Sony WH-1000XM4 ワイヤレス", "blurb": "ภาษาไทย " * 50 + "x" * 5000},
        {"item_id": "c", "title": "Русский", "blurb": "слово " * 41 + "한국어 " * 3},
    ]
    found, _ = items(tmp_path, rows)
    assert found[0]["blurb"] == ("日本語の文章です。" * 5)[:40]
    assert found[1]["text"] == "title: Sony WH-1000XM4 ワイヤレス; blurb: " + "ภาษาไทย " * 5 + "ภาษาไ"
    assert found[2]["blurb"] == ("слово " * 40).strip()


IDS = (
    st.text(min_size=1, max_size=8)
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.sampled_from(["nan", "1.0", "1e+20"])
)


def written(value: str | int | float) -> str | None:
    """What an id reads as; None if it is one of several that may have become this float."""
    if isinstance(value, float):
        if value.is_integer():
            return str(int(value)) if abs(value) < 2**53 else None
        return str(value) if math.isfinite(value) else None
    text = str(value).strip()
    missing = dict.fromkeys(("nan", "NaN", "NaT", "None", "<NA>", "null", "NULL", "inf", "-inf"))
    return {**missing, "1.0": "1", "1e+20": None}.get(text, text if text.isprintable() else None) or None


@given(st.lists(IDS, min_size=1, max_size=8))
@settings(deadline=None, max_examples=25)
def test_an_id_is_the_same_text_in_every_format_or_counted(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("ids")
    for same in (str, int, float):
        some = [value for value in values if isinstance(value, same)]
        expected = [id_ for value in some if (id_ := written(value)) is not None]
        for form in FORMS if expected else ():
            ids, faults = column(write(folder / f"{same.__name__}.{form}", "id", some), column_types.ID)
            assert ids == expected
            assert sum(faults.counts.values()) == len(some) - len(expected)


TIMES = (
    st.integers(0, 2**53)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.datetimes().map(str)
    | st.sampled_from(["x", ""])
)


@given(st.lists(TIMES, min_size=1, max_size=8))
@settings(deadline=None, max_examples=25)
def test_a_time_is_the_same_number_in_every_format_or_counted(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("times")
    for same in (str, int, float):
        some = [value for value in values if isinstance(value, same)]
        expected = [column_types.timestamp_of(value) for value in some]
        if all(made is None for made in expected):
            continue
        for form in FORMS:
            times, faults = column(write(folder / f"{same.__name__}.{form}", "t", some), column_types.TIMESTAMP, "t")
            assert times == [made for made in expected if made is not None]
            assert sum(faults.counts.values()) == expected.count(None)
            if same is not str:
                assert times == [value for value in some if math.isfinite(value)]


PIECES = st.sampled_from(["&amp;", "&lt", ";", " ", "日本", "ไทย", "word", ",", "\n", "é", "&#233;", '"', "\u200b"])


@given(st.lists(st.lists(PIECES, max_size=12).map("".join), min_size=1, max_size=6), st.integers(0, 4))
@settings(deadline=None, max_examples=25)
def test_a_text_is_the_same_in_every_format_and_in_a_request(tmp_path_factory, values, words):
    folder = tmp_path_factory.mktemp("texts")
    for form in FORMS:
        if form == "parquet" or any(map(clean, values)):
            try:
                texts, faults = column(write(folder / f"t.{form}", "x", values), column_types.text(words), "x")
            except ValueError:
                assert not any(values)  # a column of nothing
                continue
            assert texts == [field_text(value, words) for value in values]
            assert not faults.counts
