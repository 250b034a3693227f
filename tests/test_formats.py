"""The forms in which people have their tables: each gives the same dataset, or an error that names the option which reads it."""

import csv
import gzip
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_scripts import tables
from tests.test_tables import EVENTS, ITEMS, LISTS, histories, parquet, run, save
from trsr.dataset import contract
from trsr.dataset.build import column_types, id_lists
from trsr.dataset.build.scan import Faults
from trsr.dataset.build.table_files import text_table
from trsr.dataset.build.tables import read
from trsr.errors import UsageError

ACCENTED = [{**item, "title": item["title"].replace("Book", "Élan Öre")} for item in ITEMS]
TYPES = {"item_id": "token", "user_id": "token", "title": "token_seq", "author": "token_seq", "pages": "float",
         "timestamp": "float", "items": "token_seq"}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[str, bytes]:
    """What every form of the accented tables gives."""
    folder = tmp_path_factory.mktemp("expected")
    assert run(folder, items=save(folder / "items.csv", ACCENTED)) == 0
    return parquet(folder / "out")


def separated(path: Path, rows: list[dict], sep: str, *, encoding="utf-8", header=True, names=None) -> Path:
    """Rows with a separator; quoted as CSV where it is one byte."""
    cells = [names or list(rows[0])] * header + [list(row.values()) for row in rows]
    if len(sep.encode()) == 1:
        text = io.StringIO()
        csv.writer(text, delimiter=sep, lineterminator="\n").writerows(cells)
        path.write_bytes(text.getvalue().encode(encoding))
    else:
        path.write_bytes("".join(sep.join(row) + "\n" for row in cells).encode(encoding))
    return path


def atomic(path: Path, rows: list[dict]) -> Path:
    """A file as RecBole has them: tabs, and a type beside each column's name."""
    names = [f"{name}:{TYPES[name]}" for name in rows[0]]
    rows = [{name: " ".join(cell) if isinstance(cell, list) else cell for name, cell in row.items()} for row in rows]
    lines = ["\t".join(names), *("\t".join(row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    return path


def recoded(path: Path, encoding: str) -> Path:
    path.write_bytes(path.read_bytes().decode("unicode_escape").encode(encoding))
    return path


def ending_in_cr(path: Path) -> Path:
    """The file with CR for each LF, in UTF-16 too: the other byte of such a character is zero."""
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r"))
    return path


def document(path: Path, content, encoding="utf-8", **options) -> Path:
    path.write_text(json.dumps(content, ensure_ascii=False, **options), encoding=encoding, newline="\n")
    return path


def keyed(rows: list[dict], key: str) -> dict[str, dict]:
    return {row[key]: {name: cell for name, cell in row.items() if name != key} for row in rows}


FORMS = {
    "atomic": lambda f: ([], atomic(f / "x.item", ACCENTED), atomic(f / "x.inter", EVENTS)),
    "two colons": lambda f: (
        ["--sep", "::"],
        separated(f / "items.dat", ACCENTED, "::"),
        separated(f / "events.dat", EVENTS, "::"),
    ),
    "no header, named": lambda f: (
        ["--sep", "::", "--encoding", "latin-1", "--items-columns", "item_id,title,author,pages",
         "--interactions-columns", "user_id,item_id,timestamp"],
        separated(f / "items.dat", ACCENTED, "::", encoding="latin-1", header=False),
        separated(f / "events.dat", EVENTS, "::", header=False),
    ),
    "no header, by number": lambda f: (
        ["--no-header", "--items-columns", "item_id,title,author,pages", "--user", "1", "--item", "2", "--time", "3"],
        separated(f / "items.csv", ACCENTED, ",", header=False),
        separated(f / "events.csv", EVENTS, ",", header=False),
    ),
    "semicolons": lambda f: (
        ["--sep", ";"], separated(f / "items.csv", ACCENTED, ";"), separated(f / "events.csv", EVENTS, ";")
    ),
    "tabs in .csv": lambda f: (
        ["--sep", r"\t", "--items-sep", "|"],
        separated(f / "items.csv", ACCENTED, "|"),
        separated(f / "events.csv", EVENTS, "\t"),
    ),
    "Latin-1": lambda f: (
        ["--encoding", "latin-1"],
        separated(f / "items.csv", ACCENTED, ",", encoding="latin-1"),
        save(f / "events.csv", EVENTS),
    ),
    "UTF-16": lambda f: (
        [], separated(f / "items.csv", ACCENTED, ",", encoding="utf-16"),
        separated(f / "events.tsv", EVENTS, "\t", encoding="utf-16-le"),
    ),
    "UTF-8 with a mark": lambda f: (
        [], separated(f / "items.csv", ACCENTED, ",", encoding="utf-8-sig"),
        separated(f / "events.tsv", EVENTS, "\t", encoding="utf-8-sig"),
    ),
    "lines that end in CR alone": lambda f: (
        ["--encoding", "latin-1"],
        ending_in_cr(separated(f / "items.csv", ACCENTED, ",", encoding="latin-1")),
        ending_in_cr(separated(f / "events.tsv", EVENTS, "\t")),
    ),
    "JSON arrays": lambda f: (
        [], document(f / "items.json", ACCENTED), document(f / "events.json", EVENTS, "utf-8-sig", indent=2)
    ),
    "JSON objects": lambda f: (
        [], document(f / "items.json", keyed(ACCENTED, "item_id")),
        document(f / "events.jsonl", {f"e{n}": event for n, event in enumerate(EVENTS)}, "utf-16", indent=1),
    ),
    "JSON columns": lambda f: (
        [], document(f / "items.json", pd.DataFrame(ACCENTED).to_dict()),
        document(f / "events.json", pd.DataFrame(EVENTS).to_dict()),
    ),
    "JSON lines in UTF-16": lambda f: (
        [], recoded(save(f / "items.jsonl", ACCENTED), "utf-16"), recoded(save(f / "events.jsonl", EVENTS), "utf-8-sig")
    ),
    "JSON lines that end in CR alone": lambda f: (
        [], ending_in_cr(save(f / "items.jsonl", ACCENTED)), ending_in_cr(recoded(save(f / "events.jsonl", EVENTS), "utf-16"))
    ),
    "upper-case names": lambda f: (
        [], save(f / "items.csv.gz", ACCENTED).rename(f / "ITEMS.CSV.GZ"),
        save(f / "events.parquet.gz", EVENTS).rename(f / "EVENTS.PARQUET.GZ"),
    ),
    "JSON lines in .json": lambda f: (
        [], save(f / "items.jsonl", ACCENTED).rename(f / "items.json"), save(f / "events.jsonl", EVENTS)
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_dataset(tmp_path, form, expected):
    options, items, interactions = FORMS[form](tmp_path)
    assert run(tmp_path, *options, items=items, interactions=interactions) == 0
    assert parquet(tmp_path / "out") == expected


def test_forms_leave_no_trace_in_the_provenance_but_names_and_checksums(tmp_path):
    options, items, interactions = FORMS["two colons"](tmp_path)
    assert run(tmp_path, *options, items=items, interactions=interactions) == 0
    assert run(tmp_path, items=save(tmp_path / "items.csv", ACCENTED), out="plain") == 0
    made, plain = (dict(contract.provenance(str(tmp_path / out)).values) for out in ("out", "plain"))
    assert (made.pop("sources"), made["dataset"].pop("name")) != (plain.pop("sources"), plain["dataset"].pop("name"))
    assert made == plain


def test_several_logs_are_read_as_one(tmp_path, expected, capsys):
    (tmp_path / "more").mkdir()
    logs = [save(tmp_path / "events.csv", EVENTS[:20]), save(tmp_path / "more" / "events.csv", EVENTS[20:])]
    items = save(tmp_path / "items.csv", ACCENTED)
    paths = ["--items", str(items), "--interactions", *map(str, logs), "--out", str(tmp_path / "out")]
    bounds = ["--min-history", "3", "--max-history", "6", "--negatives", "4"]
    assert tables.main([*paths, *bounds]) == 0
    assert parquet(tmp_path / "out") == expected
    made = contract.provenance(str(tmp_path / "out")).values
    assert [one["file"] for one in made["sources"]] == ["items.csv", f"{tmp_path.name}/events.csv", "more/events.csv"]
    assert made["counts"]["log_rows_read"] == 45
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"Made from `items.csv` and `{tmp_path.name}/events.csv`, `more/events.csv` by" in card
    logs[1].write_bytes(logs[0].read_bytes())
    assert tables.main([*paths, *bounds]) == 2
    assert "more/events.csv holds the same as another of --interactions" in capsys.readouterr().err


SPELLINGS = {
    "Python": lambda ids: str(ids),
    "JSON": json.dumps,
    "numpy": lambda ids: str(np.array(ids)),
    "numpy 2": lambda ids: str(list(np.array(ids))),
    "array": lambda ids: repr(np.array(ids, dtype=object)),
    "bare": lambda ids: "[" + ", ".join(ids) + "]",
    "tuple": lambda ids: str(tuple(ids)),
    "spaces": " ".join,
    "commas": ",".join,
    "commas and spaces": ", ".join,
    "bars": "|".join,
    "semicolons": "; ".join,
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_lists_in_the_usual_spellings(tmp_path, spelling, expected):
    rows = [{**row, "items": SPELLINGS[spelling](row["items"])} for row in LISTS]
    log = separated(tmp_path / "lists.csv", rows, ",")
    items = save(tmp_path / "items.csv", ACCENTED)
    # Silent before: of "A, B, C" the ids "A," and "B," were unknown, and dropped.
    assert run(tmp_path, "--list-column", "items", "--drop-unknown", items=items, interactions=log) == 0
    assert parquet(tmp_path / "out") == expected
    assert contract.provenance(str(tmp_path / "out")).counts["interactions_dropped"] == 0


def test_a_list_that_is_separated_in_another_way_than_most_is_left_out_and_named(tmp_path, capsys):
    ways = [" ".join] * 5 + [", ".join, ",".join, "|".join, " ".join]
    rows = [{**row, "items": way(row["items"])} for row, way in zip(LISTS, ways, strict=True)]
    log = separated(tmp_path / "lists.csv", rows, ",")
    assert run(tmp_path, "--list-column", "items", "--drop-unknown", "--max-history", "9", interactions=log) == 0
    assert {row["user_id"] for row in histories(tmp_path / "out")} == {"u2", "u3", "u4", "u8"}
    said = capsys.readouterr().out
    assert (
        "ids in column 'items' are separated in another way than most, or than known: 3 (user 'u5'; user 'u6'" in said
    )


def test_what_comes_after_a_list_is_its_newest_item(tmp_path, expected, capsys):
    rows = [
        {"user_id": row["user_id"], "item_id_list": row["items"][:-1], "item_id": row["items"][-1]} for row in LISTS
    ]
    TYPES["item_id_list"] = "token_seq"
    items, log = atomic(tmp_path / "x.item", ACCENTED), atomic(tmp_path / "x.inter", rows)
    assert run(tmp_path, "--list-column", "item_id_list", items=items, interactions=log) == 0
    assert parquet(tmp_path / "out") == expected
    assert "'item_id' is taken for what comes after the list 'item_id_list'" in capsys.readouterr().out
    rows = [{"user_id": row["user_id"], "before": row["item_id_list"], "next": row["item_id"]} for row in rows]
    log = save(tmp_path / "lists.jsonl", rows)
    given = ["--list-column", "before", "--item", "next"]
    assert run(tmp_path, *given, items=items, interactions=log, out="other") == 0
    assert parquet(tmp_path / "other") == expected


def test_row_numbers_of_pandas_are_no_text(tmp_path, capsys):
    rows = [{"": str(n), "Unnamed: 0": str(n), **item} for n, item in enumerate(ACCENTED)]
    assert run(tmp_path, items=save(tmp_path / "items.csv", rows)) == 0
    items = contract.read(str(tmp_path / "out"), "items", "train")
    assert items["text"][0].startswith("title: Élan Öre 0; author: ")
    assert "Unnamed: 0" not in items.column_names
    assert "items.csv: '', 'Unnamed: 0' is no part of texts" in capsys.readouterr().out


ENDINGS = {
    "Latin-1": (
        lambda f: {"items": separated(f / "items.csv", ACCENTED, ",", encoding="latin-1")}, [],
        "items.csv is not UTF-8: 20 of its first lines are not, and none beyond ASCII is; the first is line 2, which reads "
        "'b0,Élan Öre 0,Ada Moss,' in latin-1. If that is right, give --encoding latin-1",
    ),
    "Latin-1 in the header": (
        lambda f: {"items": separated(f / "items.csv", [{**i, "Öre": "1"} for i in ITEMS], ",", encoding="latin-1")}, [],
        "items.csv is not UTF-8: 1 of its first lines is not, and none beyond ASCII is; the first is line 1"),
    "Windows": (
        lambda f: {"items": separated(f / "items.csv", [{**i, "title": f"“{i['title']}”"} for i in ACCENTED], ",",
                                      encoding="cp1252")}, [], "give --encoding cp1252"),
    "Windows read as Latin-1": (
        lambda f: {"items": separated(f / "items.csv", [{**i, "title": f"“{i['title']}”"} for i in ACCENTED], ",",
                                      encoding="cp1252")}, ["--encoding", "latin-1"],
        "items.csv has letters or quotes that latin-1 does not have. Give --encoding cp1252."),
    "ASCII read as UTF-16": (
        lambda f: {}, ["--encoding", "utf-16"], "items.csv is not utf-16: it has neither a byte order mark nor zero bytes"),
    "half UTF-16": (
        lambda f: {"items": separated(f / "items.csv", ACCENTED, ",", encoding="utf-16"),
                   "cut": (f / "items.csv").write_bytes((f / "items.csv").read_bytes()[:-1])}, [],
        "items.csv cannot be read as utf-16"),
    "Latin-1 read as Shift-JIS": (
        lambda f: {"items": separated(f / "items.csv", ACCENTED, ",", encoding="latin-1")}, ["--encoding", "ascii"],
        "items.csv cannot be read as ascii: 'ascii' codec can't decode byte 0xc9"),
    "no encoding": (lambda f: {}, ["--encoding", "utf-9"], "Unknown encoding 'utf-9'; --encoding takes utf-8, utf-16,"),
    "bytes, no encoding": (lambda f: {}, ["--encoding", "hex"], "Unknown encoding 'hex'"),
    "semicolons": (
        lambda f: {"items": separated(f / "items.csv", ITEMS, ";")}, [],
        "there is no column 'item_id'; the columns are item_id;title;author;pages. Its rows were cut at ',', and look "
        "separated by ';': give --sep ';' (for the items alone, --items-sep)."),
    "two colons": (
        lambda f: {"interactions": separated(f / "events.csv", EVENTS, "::")}, [], "give --sep '::' "),
    "tabs": (lambda f: {"interactions": separated(f / "events.csv", EVENTS, "\t")}, [], "give --sep tab "),
    "no semicolons": (lambda f: {}, ["--sep", ";"], "Its rows were cut at ';', and look separated by ',': give --sep ',' "),
    "no separator": (lambda f: {}, ["--sep", '"'], "--sep takes what stands between two cells"),
    "no header": (
        lambda f: {"interactions": separated(f / "events.csv", [{**e, "n": "1", "m": "1"} for e in EVENTS], ",", header=False)},
        [], "events.csv, line 1: two columns have the same name: 1. If its first row is one of the data, give "
        "--no-header, and columns by number: --user 1."),
    "many names twice": (
        lambda f: {"interactions": separated(f / "events.csv", [{str(n): f"{n // 2}" * 99 for n in range(2, 16)}], ",", header=False)},
        [], f"two columns have the same name: {', '.join(str(n) * 40 for n in range(1, 6))}. If its first row"),
    "gzip without .gz": (
        lambda f: {"items": save(f / "items.csv.gz", ACCENTED).rename(f / "items.csv")}, [],
        "items.csv is compressed with gzip; expected text. Decompress it, or give its name the ending .gz."),
    "gzip in gzip": (
        lambda f: {"items": save(f / "items.csv.gz", ACCENTED).rename(f / "x"),
                   "again": (f / "items.csv.gz").write_bytes(gzip.compress((f / "x").read_bytes()))} | {"items": f / "items.csv.gz"},
        [], "items.csv.gz is compressed with gzip; expected text. Decompress it.\n"),
    "Zstandard": (
        lambda f: {"interactions": (f / "log.zst", (f / "log.zst").write_bytes(b"\x28\xb5\x2f\xfd\x04\x00"))[0]},
        ["--interactions-format", "csv"], "log.zst is compressed with Zstandard; expected text. Decompress it.\n"),
    "numbers for a header": (
        lambda f: {"interactions": separated(f / "events.csv", [{"u": "1", "i": "2", "t": "3.5"}], ",", header=False)},
        [], "the columns are 1, 2, 3.5. If its first row is one of the data, give --no-header"),
    "a header with --no-header": (
        lambda f: {}, ["--no-header"], "items.csv: its first row is a header, with item_id, title: leave out --no-header"),
    "numbers": (
        lambda f: {"items": separated(f / "items.csv", ITEMS, ",", header=False)}, ["--no-header"],
        "there is no column 'item_id'; the columns are 1, 2, 3, 4. Columns without a header go by number, or by the names"),
    "too few names": (
        lambda f: {"items": separated(f / "items.csv", ITEMS, ";", header=False)}, ["--items-columns", "item_id,title,a,p"],
        "4 columns are named, and its first row has 1 cells. Its rows were cut at ',', and look separated by ';'"),
    "no document": (lambda f: {"items": document(f / "items.json", {"a": 1, "b": [2]}, indent=1)}, [],
                    "items.json is one JSON document, but neither an array of objects nor an object of objects"),
    "a cut document": (
        lambda f: {"items": (f / "items.json", (f / "items.json").write_text('[{"item_id": 1},\n{"item', "utf-8"))[0]}, [],
        "items.json begins as a JSON array, and is none: "),
    "lists that give nothing": (
        lambda f: {"interactions": separated(f / "lists.csv", [{"user_id": "u", "items": "x/y/z"}] * 2, ",")},
        ["--list-column", "items"], "User 'u' has several rows"),
    "other ids": (
        lambda f: {"interactions": separated(f / "e.csv", [{"user_id": "u", "item_id": "B1"}] * 2, ",")}, [],
        "Item 'B1' is not in the items file, where ids are as 'b0' is; 2 of 2 interactions are with such items."),
}  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_ending_names_the_cause_and_the_option(tmp_path, capsys, ending):
    made, options, message = ENDINGS[ending]
    paths = {name: path for name, path in made(tmp_path).items() if name in ("items", "interactions")}
    assert run(tmp_path, *options, **paths) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_rows_that_were_left_out_are_told_where_a_later_step_fails_too(tmp_path, capsys):
    content = (save(tmp_path / "items.csv", ITEMS)).read_bytes().replace(b"Book 7", b"B\xf6\xf6k 7")
    (tmp_path / "items.csv").write_bytes(content)
    assert run(tmp_path, items=tmp_path / "items.csv") == 2
    said = capsys.readouterr().err
    assert "error: Item 'b7' is not in the items file" in said
    assert "left out, not UTF-8: 1 (items.csv, line 9)" in said
    assert "rows that are not UTF-8 are read where --encoding gives the encoding of the file" in said


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("plain", ["items", "log"])
def test_one_of_two_files_may_be_in_latin_1(tmp_path, capsys, encoding, plain):
    users = [{**event, "user_id": f"{event['user_id']}é"} for event in EVENTS]
    encodings = {"items": "latin-1", "log": "latin-1", plain: encoding}
    items = separated(tmp_path / "items.csv", ACCENTED, ",", encoding=encodings["items"])
    log = separated(tmp_path / "log.csv", users, ",", encoding=encodings["log"])
    assert run(tmp_path, "--encoding", "latin-1", items=items, interactions=log) == 0
    made = contract.read(str(tmp_path / "out"), "items", "train")
    assert made["title"][0] == "Élan Öre 0"
    assert all(row["user_id"].endswith("é") for row in histories(tmp_path / "out"))
    found = encoding.replace("-sig", "")
    said = capsys.readouterr().out
    assert f"{plain}.csv is read as {found}, not as latin-1: its bytes leave no doubt" in said
    assert said.count("is read as") == 1


def test_rows_of_another_encoding_are_left_out_where_the_user_says_so(tmp_path, capsys):
    mixed = [ITEMS[n] if n % 5 else ACCENTED[n] for n in range(20)]
    items = separated(tmp_path / "items.csv", mixed, ",", encoding="latin-1")
    assert run(tmp_path, "--encoding", "utf-8", "--drop-unknown", items=items) == 0
    assert "left out, not UTF-8: 4 (items.csv, line 2; items.csv, line 7;" in capsys.readouterr().out


def test_a_list_of_its_own_may_hold_an_unknown_id_with_separators(tmp_path):
    rows = [{**row, "items": ["b0 b1", *row["items"]]} for row in LISTS]
    log = save(tmp_path / "lists.jsonl", rows)
    assert run(tmp_path, "--list-column", "items", "--drop-unknown", interactions=log) == 0
    counts = contract.provenance(str(tmp_path / "out")).counts
    assert (counts["log_rows_broken"], counts["interactions_dropped"], counts["users_kept"]) == (0, 9, 4)


def test_elements_of_a_document_that_are_no_objects_are_named(tmp_path, expected, capsys):
    items = document(tmp_path / "items.json", [*ACCENTED[:3], 5, *ACCENTED[3:]])
    assert run(tmp_path, items=items) == 0
    assert parquet(tmp_path / "out") == expected
    assert "left out, no JSON object: 1 (items.json, row 4)" in capsys.readouterr().out
    assert run(tmp_path, "--strict", items=items, out="strict") == 2
    assert "items.json, row 4: no JSON object. Mend the row" in capsys.readouterr().err


def test_users_with_few_items_are_told_with_the_option_that_keeps_them(tmp_path, capsys):
    assert run(tmp_path, "--min-history", "6", "--max-history", "9") == 0
    kept = "5 users have fewer than 6 items: --min-history 5 keeps 1 of them, --min-history 2 keeps 4 of them\n"
    assert kept in capsys.readouterr().out
    assert run(tmp_path, "--min-history", "20", "--max-history", "26") == 2
    assert "9 users have fewer than 20 items: --min-history 5 keeps 5 of them" in capsys.readouterr().err
    for least, more in (("5", 1), ("2", 4)):
        assert run(tmp_path, "--min-history", least, "--max-history", "9", out=least) == 0
        assert len(histories(tmp_path / least)) == len([n for n in range(9) if n + 1 >= 6]) + more


def test_columns_without_names_are_numbers_in_texts_and_that_is_said(tmp_path, capsys):
    items = separated(tmp_path / "items.csv", ITEMS, ",", header=False)
    events = separated(tmp_path / "events.csv", EVENTS, ",", header=False)
    given = ["--no-header", "--item-id", "1", "--title", "2", "--user", "1", "--item", "2", "--time", "3"]
    assert run(tmp_path, *given, items=items, interactions=events) == 0
    assert contract.read(str(tmp_path / "out"), "items", "train")["text"][0] == "2: Book 0; 3: Ada Moss; 4: 100"
    assert "items.csv: texts call columns by their numbers; --items-columns gives them names" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_log_whose_times_are_not_used_says_so(tmp_path, capsys, form):
    log = save(tmp_path / f"events.{form}", EVENTS)
    assert run(tmp_path, interactions=log) == 0
    assert (
        f"events.{form} is taken to be in order: --time timestamp would sort a user's rows" in capsys.readouterr().out
    )
    assert run(tmp_path, "--time", "timestamp", interactions=log) == 0
    assert "--time" not in capsys.readouterr().out


CELL = st.text(
    st.characters(codec="latin-1", categories=("L", "N", "P", "S")) | st.sampled_from(" \t,;|:"), min_size=1, max_size=9
)


@given(
    st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8),
    st.sampled_from([",", ";", "|", "\t", "::", "||", "¦"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"]),
    st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_what_is_read_is_what_was_written_or_is_named(tmp_path_factory, made, sep, encoding, packed):
    folder, made = tmp_path_factory.mktemp("any"), [*made, ("x", "y")]
    names = ["title", "name"]
    path = separated(folder / "t.csv", [dict(zip(names, row, strict=True)) for row in made], sep, encoding=encoding)
    if packed:
        path = path.rename(folder / "t.csv.gz")
        path.write_bytes(gzip.compress(path.read_bytes()))
    faults = Faults()
    if encoding == "latin-1" and _looks_like_utf8(path):
        assert text_table(path, "csv", sep=sep, encoding=encoding).source.encoding == "utf-8"
        return
    table = text_table(path, "csv", sep=sep, encoding=encoding)
    found, reading = read(table, {name: (name, column_types.RAW) for name in names}, faults)
    assert reading.rows == len(made) == len(found) + sum(faults.counts.values())
    if len(sep.encode()) == 1 or not {*sep} & {*"".join(map("".join, made))}:  # else a cell may hold a separator
        assert list(zip(*(found[name].to_pylist() for name in names), strict=True)) == made


def _looks_like_utf8(path):
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = [line for line in content.split(b"\n") if not line.isascii()]
    return len(lines) > 1 and not any("\ufffd" in line.decode("utf-8", "replace") for line in lines)


@given(st.lists(st.text("ab1'\" ,\\é", min_size=1, max_size=6).map(str.strip).filter(bool), max_size=6))
@settings(max_examples=25, deadline=None)
def test_a_printed_list_is_read_back_or_is_none(ids):
    for text in (
        json.dumps(ids),
        str(ids),
        repr(tuple(ids)),
        str(np.array(ids, dtype=object)),
        str(list(np.array(ids))),
    ):
        assert id_lists.split(text) in (ids, None)
    assert id_lists.split(json.dumps(ids)) == ids
    assert id_lists.split(str(ids)) == ids


def test_what_is_no_list_is_none():
    for text in (
        "[1, 2",
        "['a' 'b', 'c']",
        "['a', None]",
        "[nan 1]",
        "['a' ... 'b']",
        "[a, [b]]",
        "['a', 'b'] x",
        "[,a]",
    ):
        assert id_lists.split(text) is None, text
    assert id_lists.split(" A, B,", ",") == ["A", "B"]
    assert id_lists.split("(1) (2)") == ["(1)", "(2)"]
    assert id_lists.split("array(1) b") == ["array(1)", "b"]
    assert id_lists.split("", ",") == id_lists.split("[]") == []
    with pytest.raises(UsageError):
        text_table(Path(__file__), "csv", sep="\n")
