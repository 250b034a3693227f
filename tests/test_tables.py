"""Your own tables: every form gives the same dataset, and every fault is named with its place."""

import csv
import gzip
import hashlib
import io
import json
import re
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_scripts import tables
from trsr.core.history import clean
from trsr.core.prompts import RankingPrompt
from trsr.dataset import contract
from trsr.dataset.build import column_types, jsonl
from trsr.dataset.build.interactions import build_sequences
from trsr.dataset.build.item_text import clean_column
from trsr.dataset.build.scan import Faults
from trsr.dataset.time_units import count_units
from trsr.recommender.examples import ranking_prompt
from trsr.recommender.recipe import build_recipe

AUTHORS = ("Ada Moss", "Ben Reed", "Cleo Hart")
ITEMS = [
    {"item_id": f"b{number}", "title": f"Book {number}", "author": AUTHORS[number % 3], "pages": str(100 + number)}
    for number in range(20)
]
# User number n reads n + 1 books, from book n on: u2 to u5 have 3 to 6.
READ = {f"u{number}": [f"b{number + step}" for step in range(number + 1)] for number in range(9)}
EVENTS = [
    {"user_id": user, "item_id": item_id, "timestamp": str(1000 * number + step)}
    for number, (user, items) in enumerate(READ.items())
    for step, item_id in enumerate(items)
]
LISTS = [{"user_id": user, "items": items} for user, items in READ.items()]
BOUNDS = ["--min-history", "3", "--max-history", "6", "--negatives", "4"]
FORMS = ("csv", "tsv", "jsonl", "parquet")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def save(path: Path, rows: list[dict]) -> Path:
    """Write rows in the format that the name tells; lists in CSV and TSV as JSON."""
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[1]
    if kind == "parquet":
        raw = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), raw)
        content = raw.getvalue()
    elif kind == "jsonl":
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    else:
        style = (
            {"delimiter": ","} if kind == "csv" else {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None}
        )
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n", **style)
        writer.writerow(rows[0])
        for row in rows:
            writer.writerow(json.dumps(cell) if isinstance(cell, list) else cell for cell in row.values())
        content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def run(folder: Path, *options: str, items: Path | None = None, interactions: Path | None = None, out="out") -> int:
    """Run the script on tables in `folder`."""
    items = items or save(folder / "items.csv", ITEMS)
    interactions = interactions or save(folder / "events.csv", EVENTS)
    given = ["--items", str(items), "--interactions", str(interactions), "--out", str(folder / out)]
    return tables.main([*given, *BOUNDS, *options])


def contents(folder: Path, but: tuple[str, ...] = ()) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: content for name, content in found.items() if name not in but}


def parquet(folder: Path) -> dict[str, bytes]:
    return contents(folder, ("README.md", contract.PROVENANCE_FILE))


def histories(folder: Path) -> list[dict]:
    return [row for split in contract.SPLITS for row in contract.read(str(folder), "histories", split)]


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[str, bytes]:
    """What every form of the tables gives."""
    folder = tmp_path_factory.mktemp("expected")
    assert run(folder) == 0
    return parquet(folder / "out")


def test_a_small_example_by_hand(tmp_path, capsys):
    assert run(tmp_path, "--test", "1", "--validation", "1", "--text-fields", "author,title") == 0
    out = tmp_path / "out"
    rows = {row["user_id"]: row for row in histories(out)}
    assert sorted(rows) == ["u2", "u3", "u4", "u5"]
    assert rows["u2"]["history"] == ["b2", "b3"]
    assert rows["u2"]["target"] == "b4"
    assert rows["u5"]["history"] == ["b5", "b6", "b7", "b8", "b9"]
    assert rows["u5"]["target"] == "b10"
    assert contract.read(str(out), "items", "train")[1] == {
        "item_id": "b1",
        "title": "Book 1",
        "text": "author: Ben Reed; title: Book 1",
        "author": "Ben Reed",
    }
    counts = contract.provenance(str(out)).counts
    assert counts == {
        "items_rows_read": 20,
        "items_rows_broken": 0,
        "items_cells_unescaped": 0,
        "items_read": 20,
        "items_without_text": 0,
        "items_repeated": 0,
        "items": 20,
        "log_rows_read": 45,
        "log_rows_broken": 0,
        "interactions_read": 45,
        "interactions_dropped": 0,
        "users_read": 9,
        "users_dropped_short": 2,
        "users_dropped_long": 3,
        "users_cut_to_newest": 0,
        "users_in_no_split": 0,
        "users_kept": 4,
        "targets_in_own_history": 0,
    }
    said = capsys.readouterr().out
    assert "users dropped long" in said
    assert f"Written to {out}" in said


@pytest.mark.parametrize("ending", [*FORMS, *(f"{form}.gz" for form in FORMS)])
def test_every_format_gives_the_same(tmp_path, ending, expected):
    items = save(tmp_path / f"items.{ending}", ITEMS)
    assert run(tmp_path, items=items, interactions=save(tmp_path / f"events.{ending}", EVENTS)) == 0
    assert parquet(tmp_path / "out") == expected
    lists = save(tmp_path / f"lists.{ending}", LISTS)
    assert run(tmp_path, "--list-column", "items", items=items, interactions=lists, out="other") == 0
    assert parquet(tmp_path / "other") == expected


def test_ids_between_spaces_are_a_list(tmp_path, expected):
    lists = save(tmp_path / "lists.csv", [{**row, "items": " ".join(row["items"])} for row in LISTS])
    assert run(tmp_path, "--list-column", "items", interactions=lists) == 0
    assert parquet(tmp_path / "out") == expected


def test_the_format_can_be_said(tmp_path, expected):
    items = save(tmp_path / "items.jsonl", ITEMS).rename(tmp_path / "items.txt")
    events = save(tmp_path / "events.tsv.gz", EVENTS).rename(tmp_path / "events.gz")
    said = ["--items-format", "jsonl", "--interactions-format", "tsv"]
    assert run(tmp_path, *said, items=items, interactions=events) == 0
    assert parquet(tmp_path / "out") == expected


@pytest.mark.parametrize("sampling", ["uniform", "popularity"])
def test_the_order_of_rows_does_not_matter(tmp_path, sampling):
    # b9 to b15 are what the training users may share, so that popularity has enough to draw from.
    options = ("--time", "timestamp", "--negative-sampling", sampling, "--keep-last", "--negatives", "2")
    for folder, items, events in (("one", ITEMS, EVENTS), ("two", ITEMS[::-1], EVENTS[20:][::-1] + EVENTS[:20])):
        (tmp_path / folder).mkdir()
        paths = {
            "items": save(tmp_path / folder / "items.csv", items),
            "interactions": save(tmp_path / folder / "events.csv", events),
        }
        assert run(tmp_path / folder, *options, **paths) == 0
    one, two = (contents(tmp_path / folder / "out", (contract.PROVENANCE_FILE,)) for folder in ("one", "two"))
    assert one == two
    assert "README.md" in one


def test_dates_and_numbers_sort_and_ties_keep_their_order(tmp_path):
    def sequence(times):
        log = {
            "user": ["x"] * len(times),
            "item": list("0123")[: len(times)],
            "time": [column_types.timestamp_of(time) for time in times],
        }
        found, _ = build_sequences(pa.table(log), pa.array(list("0123")))
        return "".join(map(str, found.items[0].as_py()))

    assert sequence(["10", "9", "9", "1e1"]) == "1203"
    assert sequence(["2024-01-02", "2024-01-01T23:00:00Z", "2024-01-02T00:30:00+01:00"]) == "120"
    assert sequence([4, 3.5, 4, 1]) == "3102"


@pytest.mark.parametrize(
    "times",
    [
        pa.array([1.6e9 + number for number in range(len(EVENTS))], pa.float32()),
        [f"{1.6e9 + number:.2E}" for number in range(len(EVENTS))],
        [f"{1.6e12 + 1e3 * number:.5E}" for number in range(len(EVENTS))],
        [f"{1.6e9 + number:g}" for number in range(len(EVENTS))],
    ],
    ids=["float32", "a spreadsheet", "milliseconds", "%g"],
)
def test_times_that_lost_digits_are_refused(tmp_path, capsys, times):
    log = pa.Table.from_pylist([{name: row[name] for name in ("user_id", "item_id")} for row in EVENTS])
    log = log.append_column("timestamp", times if isinstance(times, pa.Array) else pa.array(times))
    path = tmp_path / ("events.parquet" if isinstance(times, pa.Array) else "events.csv")
    pq.write_table(log, path) if isinstance(times, pa.Array) else save(path, log.to_pylist())
    assert run(tmp_path, "--time", "timestamp", interactions=path) == 2
    assert "a time that lost digits as a float in column 'timestamp'" in capsys.readouterr().err


def test_what_was_met_at_a_time_that_cannot_be_read_is_no_negative(tmp_path, capsys):
    events = [{**event, "timestamp": "soon" if event["user_id"] == "u8" and number % 2 else event["timestamp"]}
              for number, event in enumerate(EVENTS)]  # fmt: skip
    interactions = save(tmp_path / "events.csv", events)
    given = ["--time", "timestamp", "--min-history", "3", "--negatives", "11"]  # nearly all that are left
    assert run(tmp_path, *given, interactions=interactions) == 0
    lost = sum(event["timestamp"] == "soon" for event in events)
    counts = contract.provenance(str(tmp_path / "out")).counts
    assert (counts["log_rows_broken"], counts["interactions_without_time"]) == (lost, lost)
    assert counts["interactions_read"] == len(EVENTS) - lost
    assert "neither a number nor an ISO 8601 date in column 'timestamp'" in capsys.readouterr().out
    rows = [row for split in contract.SPLITS for row in contract.read(str(tmp_path / "out"), "histories", split)]
    [row] = [row for row in rows if row["user_id"] == "u8"]
    read = [event["item_id"] for event in events if event["user_id"] == "u8" and event["timestamp"] != "soon"]
    assert [*row["history"], row["target"]] == read
    assert not {*row["negatives"]} & {*READ["u8"]}


def test_a_row_of_no_time_no_user_and_no_item_is_left_out_alone(tmp_path):
    """A header or a footer within the log."""
    again = {"user_id": "user_id", "item_id": "item_id", "timestamp": "timestamp"}
    stranger = {"user_id": "u8", "item_id": "b99", "timestamp": ""}
    interactions = save(tmp_path / "events.csv", [*EVENTS[:20], again, *EVENTS[20:], stranger])
    assert run(tmp_path, "--time", "timestamp", interactions=interactions) == 0
    assert run(tmp_path, "--time", "timestamp", out="plain") == 0
    counts, plain = (contract.provenance(str(tmp_path / name)).counts for name in ("out", "plain"))
    assert counts["log_rows_broken"] == counts["interactions_without_time"] == 2
    for name in ("users_read", "interactions_read", "interactions_dropped", "users_kept"):
        assert counts[name] == plain[name]


def test_a_date_that_is_none_is_neither_in_another_unit_nor_without_a_zone(tmp_path, capsys):
    for name, at in (("zoned", "2024-05-01T00:00:{:02}Z"), ("milliseconds", "16000000{:02}000")):
        events = [{**event, "timestamp": at.format(number)} for number, event in enumerate(EVENTS)]
        events[7] = {**events[7], "timestamp": "0000-00-00 00:00:00"}
        interactions = save(tmp_path / f"{name}.csv", events)
        assert run(tmp_path, "--time", "timestamp", interactions=interactions, out=name) == 0
        said = capsys.readouterr().out
        assert "time zone" not in said
        assert "holds times in" not in said


def test_times_as_java_writes_them_have_all_their_digits(tmp_path):
    events = [{**event, "timestamp": f"1.6{number:07}".rstrip("0") + "E9"} for number, event in enumerate(EVENTS)]
    assert events[0]["timestamp"] == "1.6E9"
    assert run(tmp_path, "--time", "timestamp", interactions=save(tmp_path / "events.csv", events)) == 0
    assert contract.provenance(str(tmp_path / "out")).counts["log_rows_broken"] == 0


@pytest.mark.parametrize(
    "type_", [pa.timestamp("us"), pa.timestamp("ns", "Europe/Paris"), pa.date32(), pa.int64(), pa.float64()]
)
def test_columns_of_times_are_read_as_each_cell_is(type_):
    cells = pa.array([datetime(2024, 5, 1), None], pa.timestamp("us")).cast(type_) if pa.types.is_temporal(type_) else (
        pa.array([1, None], type_)
    )  # fmt: skip
    for kind in (column_types.DATED, column_types.ZONED):
        assert [bool(one) for one in kind.read(cells).to_pylist()] == [kind.read_one(one) for one in cells.to_pylist()]


@pytest.mark.parametrize("missing", [r"\N", "(null)", "<null>", "#N/A", "none", "NAN", "Null"])
def test_what_stands_for_a_missing_id_is_no_id(tmp_path, missing):
    events = [*EVENTS, *({**event, "user_id": missing} for event in EVENTS[-5:])]
    assert run(tmp_path, "--time", "timestamp", interactions=save(tmp_path / "events.csv", events)) == 0
    counts = contract.provenance(str(tmp_path / "out")).counts
    assert (counts["log_rows_broken"], counts["users_read"]) == (5, len(READ))


def test_missing_values_that_became_texts_are_told(tmp_path, capsys):
    rows = [{**row, "author": "nan"} if number < 3 else row for number, row in enumerate(ITEMS)]
    assert run(tmp_path, items=save(tmp_path / "items.csv", rows)) == 0
    assert "3 cells of column 'author' are the word nan, None or NULL, and stay as text" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["event_time", "ordered_at", "ts", "timestamp_created", "Date", "unixReviewTime", "createdAt"]
)
def test_a_column_of_times_that_was_not_named_is_told(tmp_path, capsys, name):
    events = [{name if key == "timestamp" else key: value for key, value in event.items()}
              for event in EVENTS]  # fmt: skip
    assert run(tmp_path, interactions=save(tmp_path / "events.csv", events)) == 0
    assert f"--time {name} would sort a user's rows" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["watch_time", "date_of_birth", "delivery_time_minutes", "rating"])
def test_another_column_is_not_taken_for_one_of_times(tmp_path, capsys, name):
    assert run(tmp_path, interactions=save(tmp_path / "events.csv", [
        {"user_id": event["user_id"], "item_id": event["item_id"], name: event["timestamp"]} for event in EVENTS
    ])) == 0  # fmt: skip
    assert "would sort a user's rows" not in capsys.readouterr().out


@pytest.mark.parametrize("text", ["INF", "Inf", "inf", "nan", "NAN", "i", "-inf", "N1", "none"])
def test_a_column_of_ids_is_read_as_each_id_is(text):
    assert column_types.ID.read(pa.array([text])).to_pylist() == [column_types.identifier(text)]


@pytest.mark.parametrize(
    ("cell", "separator", "ids"),
    [
        ("{8,26,4}", " ", ["8", "26", "4"]), ('{"a b",c}', " ", ["a b", "c"]), ("{}", " ", []), ("{b0},{b1}", ",", ["{b0}", "{b1}"]),
        ("{3F25}", " ", ["{3F25}"]), ("{A,NULL,B}", " ", None), ("{isbn:1,isbn:2}", " ", ["isbn:1", "isbn:2"]),
        ('{"a": 1, "b": 2}', " ", None), ("{'b1', 'b2'}", " ", ["b1", "b2"]),
    ],
)  # fmt: skip
def test_lists_in_braces(cell, separator, ids):
    assert column_types.identifiers(cell, separator) == ids


def test_lists_as_postgresql_writes_them(tmp_path):
    lists = [{**row, "items": "{" + ",".join(row["items"]) + "}"} for row in LISTS if row["items"]]
    assert run(tmp_path, "--list-column", "items", interactions=save(tmp_path / "lists.csv", lists)) == 0
    assert run(tmp_path, "--list-column", "items", interactions=save(tmp_path / "plain.jsonl", LISTS), out="plain") == 0
    one, other = (contract.tables(str(tmp_path / name))["histories"] for name in ("out", "plain"))
    assert {split: rows.to_list() for split, rows in one.items()} == {
        split: rows.to_list() for split, rows in other.items()
    }


def test_a_time_beyond_the_calendar_costs_its_row(tmp_path, capsys):
    times = pa.array([1000 + number for number in range(len(EVENTS) - 1)] + [2**63 - 1], pa.int64())
    log = pa.Table.from_pylist([{name: row[name] for name in ("user_id", "item_id")} for row in EVENTS])
    pq.write_table(log.append_column("timestamp", times.cast(pa.timestamp("us"))), tmp_path / "events.parquet")
    assert run(tmp_path, "--time", "timestamp", interactions=tmp_path / "events.parquet") == 0
    assert f"row {len(EVENTS)}" in capsys.readouterr().out


def test_a_folder_that_is_taken_is_told_before_anything_is_read(tmp_path, capsys, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    monkeypatch.setattr(tables, "read_items", lambda *given: pytest.fail("it was read"))
    assert run(tmp_path) == 2
    assert "is not a dataset folder of ours" in capsys.readouterr().err


def test_invisible_variation_selectors_are_cleaned_as_in_requests(tmp_path):
    texts = ["葛\U000e0100\U000e0141x", "plain", "a\ufe0f b"]
    assert clean_column(pa.array(texts)).to_pylist() == [clean(text) for text in texts]


def test_units_and_ties_of_times_are_told(tmp_path, capsys):
    # u3 in milliseconds from its last book on; u4's last two and u5's first two at one time.
    times = {"u3": [1, 2, 3, 4_000], "u4": [1, 2, 3, 4, 4], "u5": [1, 1, 2, 3, 4, 5]}
    events = [
        {**event, "timestamp": str(time * 10**9)}
        for user, books in READ.items()
        for event, time in zip(
            (event for event in EVENTS if event["user_id"] == user),
            times.get(user, range(1, len(books) + 1)),
            strict=True,
        )
    ]
    assert run(tmp_path, "--time", "timestamp", interactions=save(tmp_path / "events.csv", events)) == 0
    counts = contract.provenance(str(tmp_path / "out")).counts
    assert counts["targets_tied_in_time"] == 1
    assert (counts["times_in_seconds"], counts["times_in_milliseconds"]) == (44, 1)
    said = capsys.readouterr().out
    assert "column 'timestamp' holds times in seconds and milliseconds: items are out of order." in said
    assert run(tmp_path, "--time", "timestamp", out="other") == 0
    assert not [name for name in contract.provenance(str(tmp_path / "other")).counts if name.startswith("times_in_")]


def as_days(number, kind):
    """The day of a number of 2001, as ISO 8601 with or without hyphens, as seconds since 1970, or as days since then."""
    day = datetime(2001, 1, 1, tzinfo=UTC) + timedelta(days=number)
    return {
        "date": f"{day:%Y-%m-%d}",
        "basic": f"{day:%Y%m%d}",
        "seconds": str(int(day.timestamp())),
        "days": str(int(day.timestamp()) // 86_400),
    }[kind]


def by_day(path, *kinds):
    """The log, a day for each item of a user; the second half of each user's items in the last of several forms."""
    places = Counter()
    events = []
    for event in EVENTS:
        place = places[event["user_id"]]
        places[event["user_id"]] += 1
        events.append({**event, "timestamp": as_days(place, kinds[0] if place < 4 else kinds[-1])})
    return save(path, events)


def test_days_without_hyphens_are_dates(tmp_path, capsys):
    options = ("--time", "timestamp", "--split-date", "2001-01-05,2001-01-07", "--min-history", "2")
    for kinds in (["date"], ["basic"], ["date", "basic"], ["seconds", "basic"]):
        log = by_day(tmp_path / "events.csv", *kinds)
        assert run(tmp_path, *options, interactions=log, out="-".join(kinds)) == 0
        assert "out of order" not in capsys.readouterr().out
    log = by_day(tmp_path / "events.csv", "basic")
    basic = [option.replace("2001-01-0", "2001010") for option in options]
    assert run(tmp_path, *basic, interactions=log, out="split") == 0
    first, *others = (parquet(tmp_path / out) for out in ("date", "basic", "date-basic", "seconds-basic", "split"))
    assert others == [first] * 4


def test_times_of_no_known_unit_beside_others_are_told(tmp_path, capsys):
    for first in ("seconds", "date"):
        log = by_day(tmp_path / "events.csv", first, "days")
        assert run(tmp_path, "--time", "timestamp", interactions=log, out=first) == 0
        said = capsys.readouterr().out
        assert "holds times in seconds and an unknown unit: items are out of order" in said
        assert "times_in_an_unknown_unit" in contract.provenance(str(tmp_path / first)).counts
    # Seconds since the beginning of a log have no gap.
    assert count_units(np.arange(0, 5e8, 1e6)) == {"seconds": 400}


@pytest.mark.parametrize("suffix", ["Z", " UTC", "+02:00", "-0530", "+02"])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_dates_with_and_without_a_time_zone_in_one_column_are_told(tmp_path, capsys, suffix, form):
    def at(number: int) -> str:
        return f"2024-05-{1 + number // 24:02} {number % 24:02}:00:00"

    events = [{**event, "timestamp": at(number) + suffix} for number, event in enumerate(EVENTS)]
    assert run(tmp_path, "--time", "timestamp", interactions=save(tmp_path / f"one.{form}", events), out="one") == 0
    counts = contract.provenance(str(tmp_path / "one")).counts
    assert "time zone" not in capsys.readouterr().out
    assert "dates_with_time_zone" not in counts
    assert counts["log_rows_broken"] == 0
    events[7:9] = [{**event, "timestamp": at(7)} for event in events[7:9]]
    assert run(tmp_path, "--time", "timestamp", interactions=save(tmp_path / f"two.{form}", events), out="two") == 0
    counts = contract.provenance(str(tmp_path / "two")).counts
    assert (counts["dates_with_time_zone"], counts["dates_without_time_zone"]) == (43, 2)
    said = capsys.readouterr().out
    assert "column 'timestamp' holds 43 dates with a time zone and 2 without one, which count as UTC" in said


@given(
    st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)),
    st.sampled_from(["", "Z", "z", " UTC", "+00:00", "-11:30", "+0530", "+05"]),
    st.sampled_from(["T", " "]),
    st.sampled_from(["auto", "hours", "minutes", "seconds", "milliseconds"]),
)
def test_a_column_of_dates_is_read_as_each_date_is(at, zone, separator, precision):
    text = at.isoformat(separator, precision) + zone
    for kind in (column_types.TIMESTAMP, column_types.DATED, column_types.ZONED):
        assert kind.read(pa.array([text])).to_pylist() == [kind.read_one(text)]
    assert column_types.ZONED.read_one(text) == bool(zone)


def test_cells_of_a_tsv_that_were_written_in_quotes_are_told(tmp_path, capsys):
    rows = [{**row, "title": 'The "best" of all'} if row["item_id"] == "b7" else row for row in ITEMS]
    items = tmp_path / "items.tsv"
    pd.DataFrame(rows).to_csv(items, sep="\t", index=False)
    assert run(tmp_path, items=items) == 0
    advice = "--items-sep tab --items-format csv"
    told = f'items.tsv: cells such as "The ""best"" of all" are taken as they are. Quotes around cells are read with {advice}'
    assert told in capsys.readouterr().out
    assert run(tmp_path, *advice.split(), items=items, out="read") == 0
    assert "cells such as" not in capsys.readouterr().out
    assert 'title: The "best" of all' in contract.texts(str(tmp_path / "read"), None)["b7"]
    items.write_text(
        items.read_text().replace('"The ""best"" of all"', '"Best" of "all"')
    )  # quotes that belong to the text
    assert run(tmp_path, items=items, out="plain") == 0
    assert "cells such as" not in capsys.readouterr().out


def test_rows_that_were_exported_twice_are_told(tmp_path, capsys):
    # u4 met b4 three times at one time, and b5 again later; u5's b5 at the time of u4's.
    again = [*EVENTS[10:12], EVENTS[10], {**EVENTS[11], "timestamp": "4009"}, {**EVENTS[10], "user_id": "u5"}]
    interactions = save(tmp_path / "events.csv", [*EVENTS, *again])
    assert run(tmp_path, "--time", "timestamp", "--keep-last", interactions=interactions) == 0
    assert contract.provenance(str(tmp_path / "out")).counts["interactions_repeated"] == 3
    assert "3 interactions have the user, item and time of another one, and stay" in capsys.readouterr().out


def test_an_ending_tells_what_was_lost_before(tmp_path, capsys):
    rows = [{**row, "item_id": ""} if number % 2 else row for number, row in enumerate(ITEMS)]
    items = save(tmp_path / "items.csv", rows)
    assert run(tmp_path, items=items) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "error: Item 'b1' is not in the items file, where ids are as 'b0' is; 20 of 45 interactions are with such items."
    )
    assert "left out, no id in column 'item_id': 10 (items.csv, line 3; " in said
    assert re.search(r"items rows broken +10\n", said)
    assert run(tmp_path, "--drop-unknown", "--min-history", "20", "--max-history", "30", items=items) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: No user is left of 9")
    assert re.search(r"interactions dropped +20\n", said)
    assert "left out, no id in column 'item_id': 10" in said
    assert run(tmp_path, items=save(tmp_path / "items.csv", [{**row, "item_id": ""} for row in ITEMS])) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: items.csv has no rows that can be used.\n")
    assert "left out, no id in column 'item_id': 20 (items.csv, line 2; " in said


def test_without_times_the_file_is_in_order(tmp_path):
    turned = [event for user in READ for event in reversed([e for e in EVENTS if e["user_id"] == user])]
    assert run(tmp_path, interactions=save(tmp_path / "turned.csv", turned)) == 0
    rows = {row["user_id"]: row for row in histories(tmp_path / "out")}
    assert (*rows["u2"]["history"], rows["u2"]["target"]) == ("b4", "b3", "b2")


def test_long_users_can_keep_their_newest_items(tmp_path):
    assert run(tmp_path, "--keep-last") == 0
    rows = {row["user_id"]: row for row in histories(tmp_path / "out")}
    assert rows["u8"]["history"] == ["b11", "b12", "b13", "b14", "b15"]
    assert rows["u8"]["target"] == "b16"
    assert contract.provenance(str(tmp_path / "out")).counts["users_cut_to_newest"] == 3


def test_negatives_are_new_to_the_user(tmp_path):
    assert run(tmp_path) == 0
    for row in histories(tmp_path / "out"):
        assert len(set(row["negatives"]) - {*row["history"], row["target"]}) == 4


def test_popular_items_are_drawn_more_often(tmp_path):
    # Everybody reads two of three hits, and five books of their own.
    rows = [{"item_id": f"b{n}", "title": f"Book {n}"} for n in range(3 + 5 * 40)]
    lists = [
        {"user_id": f"u{n}", "items": [f"b{n % 3}", *(f"b{3 + 5 * n + k}" for k in range(5)), f"b{(n + 1) % 3}"]}
        for n in range(40)
    ]
    given = {"items": save(tmp_path / "items.jsonl", rows), "interactions": save(tmp_path / "lists.jsonl", lists)}
    shares = {}
    for sampling in ("uniform", "popularity"):
        options = ("--max-history", "7", "--list-column", "items", "--negative-sampling", sampling)
        assert run(tmp_path, *options, **given, out=sampling) == 0
        made = histories(tmp_path / sampling)
        shares[sampling] = sum(bool({"b0", "b1", "b2"} & set(row["negatives"])) for row in made) / len(made)
    # The one hit that a user has not read: 24 of about 170 + 24 in popularity, 1 of 196 in the catalogue.
    assert shares["uniform"] < 0.15
    assert 0.2 < shares["popularity"] < 0.7


def test_texts_are_cut_and_cleaned(tmp_path):
    rows = [
        {"item_id": 1, "title": "A; B\nC", "genres": ["x", None, "y", "z"], "blurb": "one two, three", "year": 1999.5},
        {"item_id": 2.0, "title": "D", "genres": [], "blurb": None},
    ]
    path = str(save(tmp_path / "items.jsonl", rows))
    given = ["--items", path, "--interactions", path, "--out", "out", "--field-words", "2", "--field-values", "2"]
    found, _, _ = tables.read_items(tables.arguments().parse_args(given), Faults())
    assert found.to_pylist() == [
        {
            "item_id": "1",
            "title": "A; B C",
            "text": "title: A, B; genres: x, y; blurb: one two; year: 1999.5",
            "genres": "x, y",
            "blurb": "one two",
            "year": "1999.5",
        },
        {"item_id": "2", "title": "D", "text": "title: D", "genres": "", "blurb": "", "year": ""},
    ]
    assert column_types.text().read(pa.array(["a " * 50])).to_pylist() == [" ".join("a" * 40)]
    assert column_types.text(words=0).read(pa.array(["a " * 50])).to_pylist() == [" ".join("a" * 50)]


def same_both_ways(path, rows, *, words=3, values=2):
    """Whether items are written for a dataset as a request with the same fields is read."""
    given = ["--items", str(path), "--interactions", str(path), "--out", "out", "--drop-unknown"]
    limits = ["--field-words", str(words), "--field-values", str(values)]
    found, _, _ = tables.read_items(tables.arguments().parse_args([*given, *limits]), Faults())
    built = dict(zip(found["item_id"].to_pylist(), found["text"].to_pylist(), strict=True))
    prompt = RankingPrompt(field_words=words, field_values=values)
    served = {}
    for row in rows:
        if row["item_id"] in built:
            served[row["item_id"]] = prompt.item(row).text
        else:
            with pytest.raises(ValueError, match="no text"):
                prompt.item(row)
    assert built == served
    return built


NAN = float("nan")
ODD = [
    {
        "item_id": "a",
        "title": "A; B\nC",
        "genres": ["x", None, "y", "z"],
        "blurb": "one two three, four",
        "year": 1999.5,
    },
    {"item_id": "b", "title": "B", "genres": [], "blurb": None, "year": NAN},
    {"item_id": "c", "title": "C", "genres": None, "blurb": " ", "year": 3.0},
    {"item_id": "d", "title": "D", "genres": ["", " ", "p;q"], "blurb": "x" * 5000 + " y" * 5000, "year": 0.1},
    {"item_id": "e", "title": " ", "genres": [None], "blurb": "\u200b", "year": NAN},
]


def test_requests_and_datasets_say_the_same_of_json(tmp_path):
    rows = [
        {**row, "seen": row["item_id"] < "c", "many": [["u", None], "v", NAN, ["w"]], "year": row["year"]}
        for row in ODD[:-1]
    ] + [{"item_id": "e", "title": None, "genres": [None, NAN]}]
    assert same_both_ways(save(tmp_path / "items.jsonl", rows), rows) == {
        "a": "title: A, B C; genres: x, y; blurb: one two three; year: 1999.5; seen: True; many: u, v",
        "b": "title: B; seen: True; many: u, v",
        "c": "title: C; year: 3.0; seen: False; many: u, v",
        "d": f"title: D; genres: p,q; blurb: {'x' * 5000} y y; year: 0.1; seen: False; many: u, v",
    }


def test_requests_and_datasets_say_the_same_of_parquet(tmp_path):
    frame = pd.DataFrame(ODD)
    frame["price"] = np.array([3.1, NAN, 1e10, 0.1, NAN], dtype=np.float32)
    frame["count"] = np.arange(5)
    frame["seen"] = [True, False, None, pd.NA, None]
    frame["since"] = pd.to_datetime(["2020-01-02", None, "2020-01-02 03:04:05", None, None], format="ISO8601")
    frame.to_parquet(tmp_path / "items.parquet")
    # A request may hold a row as pandas gives it: with numpy's scalars and arrays, NaN and NaT.
    rows = [dict(row) for _, row in pd.read_parquet(tmp_path / "items.parquet").iterrows()]
    rows[0]["price"] = np.float32(3.1)
    built = same_both_ways(tmp_path / "items.parquet", rows)
    assert built["a"].endswith(
        "year: 1999.5; price: 3.0999999046325684; count: 0; seen: True; since: 2020-01-02 00:00:00"
    )
    assert built["e"] == "count: 4"


def test_a_recommender_reads_items_as_its_dataset_was_built(tmp_path):
    assert run(tmp_path, "--field-words", "2", "--field-values", "3") == 0
    recipe = build_recipe({"base": "nano", "dataset": str(tmp_path / "out")})
    assert ranking_prompt(recipe, contract.provenance(recipe.dataset)) == RankingPrompt(
        recent_items=recipe.recent_items, max_tokens=recipe.max_tokens, field_words=2, field_values=3
    )


def test_a_field_called_text_is_the_whole_text(tmp_path, capsys):
    rows = [{"item_id": "a", "title": "A", "text": "; ".join(["one two three four"] * 3)}]
    items = save(tmp_path / "items.jsonl", rows)
    given = ["--items", str(items), "--interactions", str(items), "--out", str(tmp_path / "out")]
    assert tables.main(given) == 2
    assert "a field named 'text' is an item's whole text" in capsys.readouterr().err.lower()
    options = tables.arguments().parse_args([*given, "--text-fields", "text", "--field-words", "2"])
    faults = Faults()
    found, _, _ = tables.read_items(options, faults)
    assert faults.notes == [
        "items.jsonl: 1 texts have more than 2 words: --field-words cuts no column called 'text', but one of another name"
    ]
    assert found["text"].to_pylist() == [RankingPrompt(field_words=2).item(rows[0]).text] == [rows[0]["text"]]


def test_unknown_items_can_be_dropped(tmp_path, capsys):
    rows = [{**row, "title": "", "author": "", "pages": ""} if row["item_id"] == "b8" else row for row in ITEMS[:-1]]
    items = save(tmp_path / "items.csv", rows)
    assert run(tmp_path, "--drop-unknown", "--min-history", "2", items=items) == 0
    counts = contract.provenance(str(tmp_path / "out")).counts
    # b8 is read by u4 to u8.
    assert counts["interactions_dropped"] == 5
    assert counts["items_without_text"] == 1
    rows = {row["user_id"]: row for row in histories(tmp_path / "out")}
    assert (*rows["u4"]["history"], rows["u4"]["target"]) == ("b4", "b5", "b6", "b7")


def test_the_folder_says_how_it_was_made(tmp_path):
    assert run(tmp_path, "--seed", "5", "--license", "cc-by-4.0") == 0
    made = contract.provenance(str(tmp_path / "out")).values
    assert made["script"] == "dataset_scripts/tables.py"
    assert made["seed"] == 5
    assert made["sampling"] == {"negatives": 4, "sampling": "uniform", "seed": 5}
    assert [source["file"] for source in made["sources"]] == ["items.csv", "events.csv"]
    for source in made["sources"]:
        assert source["sha256"] == hashlib.sha256((tmp_path / source["file"]).read_bytes()).hexdigest()
    assert str(tmp_path) not in json.dumps(made)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    for part in (
        "| `histories` | train | 2 |",
        "users with 3 to 6 items",
        "licence of the source data",
        "load_dataset(",
    ):
        assert part in card
    assert str(tmp_path) not in card


def broken(name: str, content: bytes | list[dict]):
    """A case that gives another file in place of the items (`items.*`) or the interactions."""

    def given(folder: Path) -> dict[str, Path]:
        path = folder / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            save(path, content)
        return {"items" if name.startswith("items") else "interactions": path}

    return given


def plain(folder: Path) -> dict[str, Path]:
    return {}


def unreadable(folder: Path) -> dict[str, Path]:
    """A case whose options are wrong, so that no file is looked at."""
    return {"items": folder / "none.csv"}


STRICT = ["--strict"]
FAULTS = {
    "wrong key": (broken("items.jsonl", ITEMS), ["--text-fields", "title,auther"], "items.jsonl: there is no column 'auther'"),
    "wrong user column": (plain, ["--user", "user"], "events.csv: there is no column 'user'; the columns are "
                          "user_id, item_id, timestamp. Did you mean 'user_id'?"),
    "wrong time column": (plain, ["--time", "time"], "Did you mean 'timestamp'?"),
    "wrong list column": (plain, ["--list-column", "books"], "there is no column 'books'"),
    "wrong item column": (plain, ["--item-id", "id"], "items.csv: there is no column 'id'"),
    "wrong text field": (plain, ["--text-fields", "title,auther"], "items.csv: there is no column 'auther'; the "
                         "columns are item_id, title, author, pages. Did you mean 'author'?"),
    "an id as text": (plain, ["--text-fields", "title,item_id"], "item_id: an id is no text"),
    "ids alone": (broken("items.csv", b"item_id,isbn\nb0,1\n"), ["--title", "isbn"],
                  "items.csv: ids are no text, and item_id, isbn are ids alone. Add a title."),
    "no file": (lambda folder: {"items": folder / "none.csv"}, [], "none.csv'"),
    "no format": (broken("items.dat", b"x"), [], "items.dat: its name tells no format"),
    "too many cells": (broken("items.csv", b"item_id,title\nb0,A\nb1,B,C\n"), STRICT,
                       "items.csv, line 3: more than 2 cells. Mend the row"),
    "too few cells": (broken("events.tsv", b"user_id\titem_id\nu1\n"), STRICT, "events.tsv, line 2: fewer than 2 cells"),
    "a cell over two lines": (broken("items.csv", b'item_id,title\nb0,"A\nB"\nb1\n'), STRICT, "items.csv, line 4: fewer"),
    "an open quote": (broken("items.csv", b'item_id,title\nb0,"A\nb1,B\n'), STRICT, "items.csv, line 2: broken quotes"),
    "a header of many columns": (broken("items.csv", (",".join(f"c{n}" * 9 for n in range(999))).encode()), [],
                                 "the columns are c0c0c0c0c0c0c0c0c0, "),
    "ratings of no use": (plain, ["--rating-column", "stars"], "--rating-column names the ratings that --min-rating compares"),
    "no gz in capitals": (broken("ITEMS.CSV.GZ", b"item_id,title\n"), [], "ITEMS.CSV.GZ cannot be read as csv"),
    "one name for two columns": (broken("items.csv", b"item_id,title,title\n"), [], "two columns have the same name"),
    "broken JSON": (broken("events.jsonl", b'{"user_id": 1, "item_id": "b0"}\n\n{"user_id": \n'), STRICT,
                    "events.jsonl, line 3: no JSON"),
    "no JSON object": (broken("events.jsonl", b"[1]\n"), STRICT,
                       "events.jsonl, line 1: no JSON object"),
    "a key is missing": (broken("events.jsonl", b'{"user_id": 1, "item_id": "b0"}\n{"user_id": 1}\n'), STRICT,
                         "events.jsonl, line 2: no id in column 'item_id'"),
    "Latin-1 in CSV": (broken("items.csv", "item_id,title\nb0,A\nb1,Ö\n".encode("latin-1")), STRICT,
                       "items.csv, line 3: not UTF-8"),
    "Latin-1 in JSONL": (broken("events.jsonl", '\n{"user_id": "Ö"}'.encode("latin-1")), STRICT,
                         "events.jsonl, line 2: not UTF-8"),
    "Latin-1 in gz": (broken("items.csv.gz", gzip.compress("item_id,title\nb0,Ö\n".encode("latin-1"))), STRICT,
                      "items.csv.gz, line 2: not UTF-8"),
    "no gz": (broken("items.csv.gz", b"item_id,title\n"), [], "items.csv.gz cannot be read as csv"),
    "a cut gz": (broken("items.csv.gz", gzip.compress(b"item_id,title\nb0,A\n")[:-4]), [],
                 "items.csv.gz cannot be read as csv"),
    "no Parquet": (broken("items.parquet", b"item_id,title\n"), [], "items.parquet cannot be read as parquet"),
    "another title": (broken("items.csv", b"item_id,name\nb0,A\n"), [], "there is no column 'title'; the columns are item_id, "
                      "name. --item-id, --title and --text-fields say what the columns are called."),
    "another title in JSON": (broken("items.jsonl", [{"item_id": "b0", "name": "A"}]), [],
                              "item_id, name. --item-id, --title and --text-fields say"),
    "an empty file": (broken("items.jsonl", b""), [], "items.jsonl has no rows that can be used."),
    "an empty document": (broken("items.json", b"[]"), [], "items.json has no rows that can be used."),
    "a TSV in quotes": (broken("items.tsv", b'"item_id"\t"title"\n"b0"\t"A"\n'), [],
                        "Its cells stand in quotes, which are read with --items-sep tab --items-format csv"),
    "a line for Excel": (broken("items.csv", b"sep=;\r\nitem_id;title\r\nb0;A\r\n"), [],
                         "Its first line, 'sep=;', is for Excel alone: remove it, and give --sep"),
    "a line for Excel in CSV": (broken("items.csv", b"sep=,\nitem_id,title\nb0,A\n"), [], "is for Excel alone: remove it"),
    "an invisible character": (broken("events.csv", "user_id,item_id\nu\u200c1,b0\n".encode()), STRICT,
                               "line 2: an id with invisible characters in column 'user_id'"),
    "no items": (broken("items.csv", b"item_id,title\n"), [], "items.csv has no rows"),
    "no interactions": (broken("events.csv", b"user_id,item_id\n"), [], "events.csv has no rows"),
    "a user twice": (broken("lists.jsonl", [*LISTS, LISTS[2]]), ["--list-column", "items"],
                     "User 'u2' has several rows"),
    "an empty id": (broken("events.csv", b"user_id,item_id\nu1, \n"), STRICT, "line 2: no id in column 'item_id'"),
    "an unknown item": (broken("items.csv", ITEMS[:7]), [], "Item 'b7' is not in the items file"),
    "an item without text": (broken("items.jsonl", [*ITEMS, {"item_id": "b99", "title": "\u200b"}]), [],
                             "Item 'b99' has no text in title, author, pages"),
    "no list": (broken("lists.jsonl", [{"user_id": 1, "items": 5}]), ["--list-column", "items", "--strict"],
                "lists.jsonl, line 1: no list of ids in column 'items'"),
    "a broken list": (broken("lists.csv", b'user_id,items\nu1,"[1, 2"\n'), ["--list-column", "items", "--strict"],
                      "lists.csv, line 2: no list of ids in column 'items'"),
    "no time": (broken("events.csv", b"user_id,item_id,t\nu1,b1,5/6/2019\n"), ["--time", "t", "--strict"],
                "events.csv, line 2: neither a number nor an ISO 8601 date in column 't'"),
    "not a number": (broken("events.csv", b"user_id,item_id,t\nu1,b1,nan\n"), ["--time", "t", "--strict"], "neither a number"),
    "an empty split": (unreadable, ["--test", "0"], "--test takes a number of users, at least 1, or: all; got 0"),
    "no plain digit": (unreadable, ["--train", "²"], "--train takes a number of users, at least 1, or: all; got '²'"),
    "one item": (unreadable, ["--min-history", "1"], "This protocol needs at least 2 of each"),
    "three items": (unreadable, ["--split", "leave-one-out", "--min-history", "3"],
                    "This protocol needs at least 4 of each"),
    "a field twice": (plain, ["--text-fields", "title,title"], "--text-fields takes names of columns, each once"),
    "no field": (plain, ["--text-fields", ","], "--text-fields takes names of columns, each once"),
    "too few users": (plain, ["--test", "3", "--validation", "1"], "Cannot divide 4 users into train 0, validation 1"),
    "nobody left": (plain, ["--min-history", "30", "--max-history", "40"],
                    "No user is left of 9: 9 have fewer than 30 items, 0 more than 40"),
    "a small catalogue": (plain, ["--negatives", "18"], "the catalogue is too small"),
    "no negatives": (unreadable, ["--negatives", "0"], "at least 1 negative"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_nothing_is_written(tmp_path, capsys, fault):
    given, options, message = FAULTS[fault]
    paths = given(tmp_path)
    assert run(tmp_path, *options, **paths) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert not any(path.is_dir() for path in tmp_path.iterdir())


ROWS = [
    (b"b0,Book 0,A\n", ""),
    (b"b1,Book 1\n", "fewer than 3 cells"),
    (b",Book 2,A\n", "no id in column 'item_id'"),
    (b"b3,\xd6,A\n", "not UTF-8"),
    (b'"b4","Book\n4",A\n', ""),
    (b"b0,Book 0,A\n", ""),
]


def test_a_broken_row_is_counted_and_named(tmp_path, capsys):
    items = tmp_path / "items.csv"
    items.write_bytes(b"item_id,title,author\n" + b"".join(line for line, _ in ROWS))
    events = save(tmp_path / "events.csv", [*EVENTS, {"user_id": "", "item_id": "b0", "timestamp": "1"}])
    assert (
        run(tmp_path, "--drop-unknown", "--negatives", "1", "--min-history", "2", items=items, interactions=events) == 2
    )
    capsys.readouterr()  # two items are too few to rank
    more = [{"item_id": f"b{n}", "title": f"Book {n}", "author": "A"} for n in range(5, 20)]
    items.write_bytes(items.read_bytes() + b"".join(f"{row['item_id']},{row['title']},A\n".encode() for row in more))
    assert run(tmp_path, "--drop-unknown", items=items, interactions=events) == 0
    counts = contract.provenance(str(tmp_path / "out")).counts
    assert (counts["items_rows_read"], counts["items_rows_broken"]) == (21, 3)
    assert (counts["items_repeated"], counts["items"]) == (1, 17)
    assert (counts["log_rows_read"], counts["log_rows_broken"]) == (46, 1)
    said = capsys.readouterr().out
    for line, reason in ((3, "fewer than 3 cells"), (4, "no id in column 'item_id'"), (5, "not UTF-8")):
        assert f"left out, {reason}: 1 (items.csv, line {line})" in said
    assert "left out, no id in column 'user_id': 1 (events.csv, line 47)" in said


def test_a_limit_reads_the_first_rows_of_the_log(tmp_path):
    for form in ("csv", "jsonl", "parquet"):
        events = save(tmp_path / f"events.{form}", EVENTS)
        assert run(tmp_path, "--limit", "40", interactions=events, out=form) == 0
        counts = contract.provenance(str(tmp_path / form)).counts
        assert (counts["items_rows_read"], counts["log_rows_read"], counts["users_read"]) == (20, 40, 9)


VALUE = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
OBJECT = st.dictionaries(st.sampled_from("ab"), VALUE | st.lists(VALUE, max_size=3), max_size=2)


@given(st.lists(OBJECT, max_size=6), st.booleans())
@settings(deadline=None)
def test_json_lines_at_once_are_as_one_by_one(made, spaced):
    lines = [json.dumps(row).encode() for row in made]
    content = b"\n".join(([b""] if spaced else []) + lines) + b"\n"
    table, numbers, broken = jsonl.parse(content, 1, ["a", "b"])
    good = [n for n in range(len(made)) if int(spaced) + n + 1 in numbers]
    assert len(good) + len(broken) == len(made)
    assert {why for _, why in broken} <= {"not UTF-8"}
    kinds = (column_types.ID, column_types.TIMESTAMP, column_types.IDS, column_types.text(2, 2))
    for name in "ab":
        for kind in kinds:
            column = table[name].chunk(0) if table[name].num_chunks else table[name].combine_chunks()
            alone = pa.array([kind.read_one(json.loads(lines[n]).get(name)) for n in good], kind.type)
            assert contract.one_chunk(pa.chunked_array([kind.read(column)], kind.type)) == alone


@given(st.lists(st.text('ab01.-:TZ ,;\u00e9\u200b[]"', max_size=12) | st.none(), max_size=6), st.integers(0, 3))
@settings(deadline=None)
def test_a_column_of_cells_is_as_one_by_one(made, words):
    for kind in (column_types.ID, column_types.TIMESTAMP, column_types.IDS, column_types.text(words)):
        assert kind.read(pa.array(made, pa.string())).to_pylist() == [kind.read_one(value) for value in made]


def test_a_strangers_folder_is_left_alone(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("a")
    assert run(tmp_path) == 2
    assert "not a dataset folder of ours" in capsys.readouterr().err
    assert contents(tmp_path / "out") == {"thesis.tex": b"a"}


def test_bytes_that_are_no_text_in_parquet(tmp_path, capsys):
    title = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xd6")]
    )
    pq.write_table(pa.table({"item_id": pa.array(["b0"]), "title": title}), tmp_path / "items.parquet")
    assert run(tmp_path, items=tmp_path / "items.parquet") == 2
    assert "items.parquet cannot be read as parquet" in capsys.readouterr().err


def test_it_runs_as_a_script(tmp_path):
    script = Path(tables.__file__)
    source = str(script.parents[1] / "hub_recipes")
    paths = [
        *("--items", str(save(tmp_path / "items.csv", ITEMS))),
        *("--interactions", str(save(tmp_path / "events.csv", EVENTS))),
        *("--out", str(tmp_path / "out")),
    ]

    def script_run(*options):
        call = [sys.executable, "-c", f"import sys; sys.path.insert(0, {source!r}); import runpy; "
                f"runpy.run_path({str(script)!r}, run_name='__main__')", *paths, *BOUNDS, *options]  # fmt: skip
        return subprocess.run(call, capture_output=True, text=True, check=False)

    failed = script_run("--user", "user")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: ")
    assert "Traceback" not in failed.stderr
    made = script_run()
    assert made.returncode == 0
    assert (tmp_path / "out" / contract.PROVENANCE_FILE).exists()
