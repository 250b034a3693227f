"""Every fault that is planted into a good dataset is found, by its code and place, and nothing else is."""

import json
import math
import os
import random
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import Dataset, DatasetDict
from huggingface_hub import HfApi, constants

from dataset_scripts import tables
from tests.hub import Hub, environment
from tests.hub.server import WRITER
from trsr.assets.paths import ASSETS
from trsr.cli import main
from trsr.core.history import clean
from trsr.core.prompts import RankingPrompt
from trsr.dataset import contract
from trsr.dataset.check import texts
from trsr.dataset.check.batches import Batch
from trsr.dataset.check.catalogue import Catalogue
from trsr.dataset.check.findings import show
from trsr.dataset.check.histories import RULES, Histories
from trsr.dataset.check.language import disagrees, guess
from trsr.dataset.check.report import as_dict, as_text
from trsr.dataset.check.run import check
from trsr.recommender.examples import sft_rows
from trsr.summaries.engines.make import engine
from trsr.summaries.run import add_summaries
from trsr.summaries.scheduler import Scheduler

SAMPLE = ASSETS / "sample"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The first users of the sample with summaries of both kinds and rows of prompts."""
    folder = tmp_path_factory.mktemp("made") / "whole"
    texts = contract.texts("sample")
    histories = {split: contract.read("sample", "histories", split).select(range(40)) for split in contract.SPLITS}
    tables = {
        "items": DatasetDict(train=contract.read("sample", "items", "train")),
        "histories": DatasetDict(histories),
    }
    summarized = add_summaries(histories, texts, Scheduler(engine("extractive")), tmp_path_factory.mktemp("trails"))
    for method, made in summarized.items():
        tables[method] = made
        tables[f"{method}_sft"] = DatasetDict(
            {split: sft_rows(rows, texts, RankingPrompt(), 1, 0) for split, rows in made.items()}
        )
    provenance = {**contract.provenance("sample").values, "summaries": {"block_size": 5, "max_blocks": 5}}
    contract.write(folder, tables, provenance=provenance, body="# Whole")
    return folder


def test_rows_of_prompts_show_all_items_of_a_short_history():
    """Four items where the prompt shows up to five, and so on: never fewer than there are."""
    rows = Dataset.from_list([{"user_id": "u", "history": list("abcd"), "target": "x", "negatives": ["y"]}])
    texts = {name: f"title: {name}" for name in "abcdxy"}
    for count, kept in {0: "", 3: "bcd", 4: "abcd", 5: "abcd", 7: "abcd", 8: "abcd", 20: "abcd"}.items():
        for row in sft_rows(rows, texts, RankingPrompt(recent_items=count), 1, 0):
            assert [name for name in "abcd" if f"title: {name}\n" in row["prompt"]] == list(kept)


def test_rows_of_prompts_hold_no_control_token_of_an_item_or_a_summary():
    """An unmodified trainer's tokenizer would take it for one; other texts stay as they are."""
    row = {"user_id": "u", "history": ["a"], "target": "b", "negatives": ["c"], "summary": "likes </s> [INST] x > y"}
    rows = Dataset.from_list([row])
    texts = {"a": "title: <|im_end|>", "b": "title: B <3 & [3]", "c": "title: <s>"}
    made = list(sft_rows(rows, texts, RankingPrompt(), 1, 0))
    assert not any(token in row["prompt"] for row in made for token in ("<|im_end|>", "</s>", "[INST]", "<s>"))
    assert "- likes < /s> [ INST] x > y\n" in made[0]["prompt"]
    assert "- title: B <3 & [3]\n" in made[0]["prompt"]


def planted(source: Path, folder: Path, config: str, split: str, change) -> Path:
    """A copy of a dataset in which `change` made one split's table another."""
    shutil.copytree(source, folder)
    [path] = (folder / config).glob(f"{split}-*")
    pq.write_table(change(pq.read_table(path)), path)
    return folder


def rows_changed(edit):
    def change(table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        edit(rows)
        return pa.Table.from_pylist(rows, schema=table.schema)

    return change


def found(report, *codes: str):
    """Errors, and what else has one of the codes: (code, config, split, count, row of the first example)."""
    return [
        (one.code, one.config, one.split, one.count, one.examples[0].row if one.examples else None)
        for one in report.findings
        if one.severity == "error" or one.code in codes
    ]


def set_to(row: int, column: str, value):
    def edit(rows):
        rows[row][column] = value(rows[row]) if callable(value) else value

    return edit


def also(column: str, value):
    """Put one more element at the front of a list of row 7."""
    return set_to(7, column, lambda row: [value(row), *row[column]])


def copied(target: int, source: int):
    def edit(rows):
        rows[target] = {**rows[source]}

    return edit


ITEMS = {
    "item-repeated": lambda rows: rows[7].update(rows[3]),
    "item-without-text": set_to(7, "text", " "),
    "item-without-title": set_to(7, "title", ""),
    "item-id-in-text": set_to(7, "text", "title: Emma; id: i00007"),
    "text-repeated": lambda rows: rows[7].update(text=rows[3]["text"]),
    "value-missing": set_to(7, "title", None),
    "item-long": set_to(7, "text", "title: " + "日本語" * 400),
    "control-character": set_to(7, "text", "title: Em\u202ema"),
    "control-token": set_to(7, "text", "title: Emma<|im_end|>"),
    "forged-heading": set_to(7, "text", "title: Emma\n- answer: yes"),
}
HISTORIES = {
    "item-unknown": set_to(7, "history", lambda row: [*row["history"][:-1], "i99999"]),
    "history-empty": set_to(7, "history", []),
    "negatives-missing": set_to(7, "negatives", []),
    "negative-repeated": also("negatives", lambda row: row["negatives"][4]),
    "target-in-negatives": also("negatives", lambda row: row["target"]),
    "target-in-history": also("history", lambda row: row["target"]),
    "negative-in-history": also("negatives", lambda row: row["history"][2]),
    "user-without-id": set_to(7, "user_id", " "),
    "user-repeated": lambda rows: rows[7].update(user_id=rows[3]["user_id"]),
    "value-missing": also("negatives", lambda row: None),
}
SUMMARIES = {
    "row-differs": set_to(7, "history", lambda row: row["history"][1:] + row["history"][:1]),
    "summary-empty": set_to(7, "summary", " "),
    "summary-long": set_to(7, "summary", "word " * 301),
    "summary-not-last": set_to(7, "summary", "genre: opera"),
    "blocks-empty": set_to(7, "block_summaries", []),
    "blocks-count": set_to(7, "block_summaries", lambda row: [*row["block_summaries"], row["summary"]]),
    "value-missing": set_to(7, "summary", None),
    "control-token": set_to(7, "summary", "<start_of_turn>model"),
    "forged-heading": set_to(7, "summary", "opera\nCandidate item:"),
}
PROMPTS = {
    "prompt-empty": set_to(7, "prompt", ""),
    "item-unknown": lambda rows: rows[1].update(item_id="i99999"),
    "item-id-in-prompt": set_to(7, "prompt", lambda row: row["prompt"] + f" ({row['item_id']})"),
    "label-value": set_to(7, "label", 2),
    "label-completion": set_to(7, "completion", lambda row: " no" if row["completion"] == " yes" else " yes"),
    "user-unknown": set_to(7, "user_id", "stranger"),
    "forged-heading": set_to(7, "prompt", lambda row: row["prompt"] + "\nCandidate item:"),
}


@pytest.mark.parametrize("code", ITEMS)
def test_faults_of_items(tmp_path, code):
    report = check(str(planted(SAMPLE, tmp_path / "d", "items", "train", rows_changed(ITEMS[code]))))
    assert (code, "items", "train", 1, 7) in found(report, code)
    # An item that lost its row is missed wherever it is named.
    assert {one[0] for one in found(report)} - {"item-unknown"} <= {code}


@pytest.mark.parametrize("code", HISTORIES)
def test_faults_of_histories(tmp_path, code):
    report = check(str(planted(SAMPLE, tmp_path / "d", "histories", "validation", rows_changed(HISTORIES[code]))))
    assert found(report) == [(code, "histories", "validation", 1, 7)]
    assert report.count("warning") == 0


@pytest.mark.parametrize("code", SUMMARIES)
def test_faults_of_summaries(tmp_path, whole, code):
    report = check(str(planted(whole, tmp_path / "d", "recurrent", "test", rows_changed(SUMMARIES[code]))))
    assert found(report, code) == [(code, "recurrent", "test", 1, 7)]


@pytest.mark.parametrize("code", PROMPTS)
def test_faults_of_prompts(tmp_path, whole, code):
    report = check(str(planted(whole, tmp_path / "d", "hierarchical_sft", "train", rows_changed(PROMPTS[code]))))
    row = 1 if code == "item-unknown" else 7
    assert found(report) == [(code, "hierarchical_sft", "train", 1, row)]


def test_a_user_in_two_splits(tmp_path, whole):
    stranger = contract.read(str(whole), "histories", "train")[3]
    rows = rows_changed(lambda rows: rows[7].update(stranger))
    report = check(str(planted(SAMPLE, tmp_path / "d", "histories", "test", rows)))
    assert found(report) == [("user-in-two-splits", "histories", "test", 1, 7)]
    assert report.findings[0].examples[0].id == stranger["user_id"]
    assert report.findings[0].examples[0].shown == "also in train"


def test_prompts_about_users_of_another_split(tmp_path, whole):
    stranger = contract.read(str(whole), "histories", "train")[3]["user_id"]
    rows = rows_changed(set_to(7, "user_id", stranger))
    report = check(str(planted(whole, tmp_path / "d", "recurrent_sft", "test", rows)))
    assert found(report) == [("user-in-two-splits", "recurrent_sft", "test", 1, 7)]


@pytest.mark.parametrize("label", [0, 1])
def test_a_label_that_is_not_the_targets(tmp_path, whole, label):
    target = {row["user_id"]: row["target"] for row in contract.read(str(whole), "histories", "train")}

    def edit(rows):
        place = next(place for place, row in enumerate(rows) if row["label"] == label)
        rows[place]["item_id"] = target[rows[place]["user_id"]] if label == 0 else "i00001"

    report = check(str(planted(whole, tmp_path / "d", "recurrent_sft", "train", rows_changed(edit))))
    assert found(report) == [("label-target", "recurrent_sft", "train", 1, 1 - label)]


def test_a_negative_that_reads_like_the_target(tmp_path):
    row = contract.read("sample", "histories", "test")[7]

    def edit(rows):
        text = {one["item_id"]: one for one in rows}
        text[row["negatives"][2]]["text"] = text[row["target"]]["text"]

    report = check(str(planted(SAMPLE, tmp_path / "d", "items", "train", rows_changed(edit))))
    assert found(report, "negative-like-target") == [("negative-like-target", "histories", "test", 1, 7)]
    assert report.findings[0].examples[0].shown == row["negatives"][2]


@pytest.mark.parametrize("read_before", [False, True])
def test_a_summary_that_names_the_target(tmp_path, whole, read_before):
    row = contract.read(str(whole), "recurrent", "test")[7]
    titles = {one["item_id"]: one["title"] for one in contract.read(str(whole), "items", "train")}
    named = titles[row["history"][0] if read_before else row["target"]]
    said = f"Would like {named}."
    rows = rows_changed(set_to(7, "summary", said))
    report = check(str(planted(whole, tmp_path / "d", "hierarchical", "test", rows)))
    expected = [("title-in-summary", "hierarchical", "test", 1, 7)]
    assert found(report, "title-in-summary") == ([] if read_before else expected)


def without(column: str):
    return lambda table: table.drop_columns([column])


def typed(column: str, type: pa.DataType, make):
    return lambda table: table.set_column(table.column_names.index(column), column, make(table[column]).cast(type))


@pytest.mark.parametrize(
    ("code", "change", "said"),
    [
        ("column-missing", without("target"), "target; there are user_id, history, negatives"),
        (
            "column-type",
            typed("target", pa.int64(), lambda column: pa.array(range(len(column)))),
            "target is int64, not string",
        ),
        ("split-empty", lambda table: table.slice(0, 0), None),
    ],
)
def test_faults_of_tables(tmp_path, code, change, said):
    folder = tmp_path / "d"
    shutil.copytree(SAMPLE, folder)
    # A config has one set of columns, whatever the split.
    for path in (folder / "histories").iterdir():
        if code != "split-empty" or path.name.startswith("test"):
            pq.write_table(change(pq.read_table(path)), path)
    report = check(str(folder))
    splits = ["test"] if code == "split-empty" else list(contract.SPLITS)
    assert [(one.code, one.config, one.split) for one in report.findings] == [
        (code, "histories", split) for split in splits
    ]
    assert not said or report.findings[0].examples[0].shown == said


@pytest.mark.parametrize(
    ("change", "code", "rows"),
    [
        (lambda table: table.append_column("mood", table["target"]), "columns-differ", None),
        (
            lambda table: table.drop_columns(["target"]).append_column("target", table["history"]),
            "columns-differ",
            None,
        ),
        (without("target"), "value-missing", 0),  # `datasets` fills the column in
    ],
    ids=["more", "type", "fewer"],
)
def test_a_split_unlike_the_first(tmp_path, change, code, rows):
    report = check(str(planted(SAMPLE, tmp_path / "d", "histories", "validation", change)))
    [one] = report.findings
    assert (one.code, one.config, one.split, one.examples[0].row) == (code, "histories", "validation", rows)


def test_wide_strings_are_strings(tmp_path):
    wide = {"string": pa.large_string(), "list<element: string>": pa.large_list(pa.large_string())}
    folder = tmp_path / "d"
    shutil.copytree(SAMPLE, folder)
    for path in folder.glob("*/*.parquet"):
        table = pq.read_table(path)
        schema = pa.schema([(column.name, wide[str(column.type)]) for column in table.schema])
        pq.write_table(table.cast(schema), path)
    assert check(str(folder)).findings == ()


def headed(folder: Path, edit) -> Path:
    """A copy of the sample whose card header is edited."""
    shutil.copytree(SAMPLE, folder)
    _, header, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    values = yaml.safe_load(header)
    edit(values)
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(values)}---\n{body}", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda header: header["configs"].pop(0), {("config-missing", "items", "")}),
        (
            lambda header: header["configs"].pop(1),
            {("config-missing", "histories", "")},
        ),
        (
            lambda header: header["configs"].append({**header["configs"][0], "config_name": "extra"}),
            {("config-unknown", "extra", "")},
        ),
        (lambda header: header["configs"][1]["data_files"].pop(2), {("split-missing", "histories", "test")}),
        (
            lambda header: header["configs"][1]["data_files"][2].update(split="dev"),
            {("split-missing", "histories", "test"), ("split-unknown", "histories", "dev")},
        ),
    ],
    ids=["no-items", "no-histories", "extra", "no-test", "dev"],
)
def test_configs_and_splits(tmp_path, edit, expected):
    report = check(str(headed(tmp_path / "d", edit)))
    assert {(one.code, one.config, one.split) for one in report.findings} == expected


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (None, "provenance-missing"),
        ("{broken", "provenance-unreadable"),
        ("[1]", "provenance-unreadable"),
        ('{"dataset": {"colour": "blue"}}', "provenance-unreadable"),
        ('{"dataset": "blue", "counts": 3}', "provenance-unreadable"),
    ],
)
def test_provenance(tmp_path, text, code):
    folder = tmp_path / "d"
    shutil.copytree(SAMPLE, folder)
    (folder / contract.PROVENANCE_FILE).unlink()
    if text:
        (folder / contract.PROVENANCE_FILE).write_text(text)
    assert [one.code for one in check(str(folder)).findings] == [code]


def stating(source: Path, folder: Path, **stated) -> Path:
    """A copy of a dataset whose provenance states more."""
    shutil.copytree(source, folder)
    made = json.loads((folder / contract.PROVENANCE_FILE).read_text(encoding="utf-8"))
    (folder / contract.PROVENANCE_FILE).write_text(json.dumps({**made, **stated}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("stated", [{"protocol": {"split": "impressions"}}, {"counts": {"targets_in_own_history": 1}}])
def test_a_protocol_in_which_targets_return(tmp_path, stated):
    source = stating(SAMPLE, tmp_path / "source", **stated)
    change = rows_changed(HISTORIES["target-in-history"])
    report = check(str(planted(source, tmp_path / "d", "histories", "test", change)))
    assert [(one.code, one.severity, one.count) for one in report.findings] == [("target-in-history", "warning", 1)]


@pytest.mark.parametrize(
    ("count", "severity", "code"),
    [(0, None, None), (50, "note", "summary-fallen-back"), (51, "warning", "summary-fallen-back")],
)
def test_summaries_that_the_model_did_not_write(tmp_path, whole, count, severity, code):
    fallen = {"fallen_back": {"cut off": count}, "fallen_back_by_method": {"recurrent": count, "hierarchical": 0}}
    made = {"block_size": 5, "max_blocks": 5, "calls": {"recurrent": 1000, "hierarchical": 1200}}
    report = check(str(stating(whole, tmp_path / "planted", summaries={**made, **fallen})))
    noted = [one for one in report.findings if one.code == "summary-fallen-back"]
    assert [(one.severity, one.code) for one in noted] == ([(severity, code)] if code else [])
    if noted:
        assert noted[0].examples[0].shown == f"{count} of 1,000 (cut off {count})"


def test_summaries_of_a_part_of_the_users(tmp_path, whole):
    made = {"block_size": 5, "max_blocks": 5, "limit": 40}
    report = check(str(stating(whole, tmp_path / "planted", summaries=made)))
    assert [one.severity for one in report.findings if one.code == "summary-partial"] == ["warning"]
    assert "the first 40" in as_text(report)


def timed(times):
    """Timestamps for each row, from its number and its history."""

    def change(table: pa.Table) -> pa.Table:
        histories = table["history"].to_pylist()
        return table.append_column("timestamps", pa.array([times(n, one) for n, one in enumerate(histories)]))

    return change


@pytest.mark.parametrize(
    ("code", "times"),
    [
        ("", lambda n, history: [100 + place for place in range(len(history))]),
        ("", lambda n, history: [100 + place for place in range(len(history) + 1)]),
        ("timestamps-length", lambda n, history: list(range(100, 100 + len(history) + 2 * (n == 7)))),
        ("timestamps-order", lambda n, history: [100, 99 if n == 7 else 100] + [101] * (len(history) - 2)),
        (
            "target-time-tied",
            lambda n, history: [100 + place - (n == 7 and place == len(history)) for place in range(len(history) + 1)],
        ),
        ("timestamps-split", lambda n, history: [3 if n == 7 else 100] * len(history)),
    ],
)
def test_timestamps(tmp_path, code, times):
    source = stating(SAMPLE, tmp_path / "source", protocol={"split": "impressions"})
    [path] = (source / "histories").glob("train-*")
    pq.write_table(timed(lambda n, history: [50] * len(history))(pq.read_table(path)), path)
    [path] = (source / "histories").glob("validation-*")
    pq.write_table(timed(lambda n, history: [60] * len(history))(pq.read_table(path)), path)
    report = check(str(planted(source, tmp_path / "d", "histories", "test", timed(times))))
    assert found(report, code) == ([(code, "histories", "test", 1, 7)] if code else [])


def test_times_in_seconds_and_milliseconds_are_told(tmp_path):
    folder = tmp_path / "d"
    shutil.copytree(SAMPLE, folder)
    for path in (folder / "histories").iterdir():
        unit = 1000 if path.name.startswith("test") else 1
        pq.write_table(
            timed(lambda n, history, unit=unit: [1_600_000_000 * unit] * len(history))(pq.read_table(path)), path
        )
    report = check(str(folder))
    tests = report.rows["histories"]["test"]
    assert found(report, "timestamps-units")[0][:4] == ("timestamps-units", "histories", "test", tests)
    assert {one.code for one in report.findings} == {"timestamps-units"}


def test_what_a_build_counted_of_its_times_is_told(tmp_path):
    counts = {"users_read": 9, "targets_tied_in_time": 4, "times_in_seconds": 30, "times_in_milliseconds": 2}
    counts["times_in_an_unknown_unit"] = 4
    counts |= {"dates_with_time_zone": 5, "dates_without_time_zone": 1}
    report = check(str(stating(SAMPLE, tmp_path / "d", counts=counts)))
    assert [(one.code, one.examples[0].shown) for one in report.findings] == [
        ("timestamps-units", "in the log: 30 in seconds, 2 in milliseconds, 4 in an unknown unit"),
        ("timestamps-zones", "in the log: 5 with, 1 without"),
        ("target-time-tied", "4 rows of all splits, when the log was read"),
    ]
    (odd,) = check(str(stating(SAMPLE, tmp_path / "odd", counts=["x"]))).findings
    assert odd.code == "provenance-unreadable"


@pytest.mark.parametrize(
    "stated",
    [
        {"protocol": {"split": "date", "dates": None}},
        {"protocol": {"split": "users", "min_rating": "4"}},
        {"counts": {"targets_tied_in_time": "3"}},
        {"summaries": {"methods": None}},
    ],
)
def test_a_provenance_with_values_of_another_kind_is_a_finding(tmp_path, stated):
    (odd,) = check(str(stating(SAMPLE, tmp_path / "odd", **stated))).findings
    assert odd.code == "provenance-unreadable"


def test_timestamps_that_are_no_numbers(tmp_path):
    folder = tmp_path / "d"
    shutil.copytree(SAMPLE, folder)
    for path in (folder / "histories").iterdir():
        pq.write_table(timed(lambda n, history: ["noon"])(pq.read_table(path)), path)
    report = check(str(folder))
    assert found(report) == [("column-type", "histories", split, 1, None) for split in contract.SPLITS]


def test_fewer_summaries_than_histories(tmp_path, whole):
    report = check(str(planted(whole, tmp_path / "d", "recurrent", "test", lambda table: table.slice(0, 30))))
    assert found(report) == [("row-differs", "recurrent", "test", 1, None)]
    assert report.findings[0].examples[0].shown == "30 rows, the histories have 40"


def test_texts_that_may_not_be_shared(tmp_path):
    terms = {**contract.provenance("sample").values["dataset"], "share_text": False}
    source = stating(SAMPLE, tmp_path / "source", dataset=terms)
    folder = planted(source, tmp_path / "d", "items", "train", lambda table: table.select(["item_id"]))
    assert [one.code for one in check(str(folder)).findings] == ["text-withheld"]


def test_good_data_has_no_findings(whole):
    report = check(str(whole))
    assert report.findings == ()
    assert report.rows["recurrent_sft"] == {"train": 80, "validation": 80, "test": 80}
    assert report.spreads["negatives"].to_dict() == {"count": 120, "median": 20, "p90": 20, "max": 20}
    assert report.spreads["item text, words"].count == report.spreads["item text, characters"].count == 1500


def exit_code(*arguments):
    try:
        main(["check", *arguments])
    except SystemExit as stop:
        return stop.code
    return 0


def test_hidden_characters_are_those_that_prompts_drop():
    """In any plane, and no visible one: what `clean` leaves is not found."""
    hidden = [chr(code) for first in (0x200B, 0xFE00, 0xE0000) for code in range(first, first + 0x200)]
    hidden = [char for char in hidden if not char.isspace() and unicodedata.category(char) != "Cn"]
    for pattern in (texts._CONTROLS, texts._CONTROLS_IN_LINES):
        found = pc.match_substring_regex(pa.array(hidden), pattern).to_pylist()
        assert found == [clean(char) != char for char in hidden]


def test_the_shipped_sample_has_no_findings(capsys):
    assert exit_code("sample", "--strict") == 0
    assert "sample: 0 errors, 0 warnings, 0 notes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "arguments", "expected"),
    [
        ("item-unknown", [], 1),
        ("control-character", [], 0),
        ("control-character", ["--strict"], 1),
        ("item-unknown", ["--limit", "5"], 0),
    ],
)
def test_exit_codes(tmp_path, capsys, code, arguments, expected):
    config, split = ("items", "train") if code in ITEMS else ("histories", "test")
    change = rows_changed({**ITEMS, **HISTORIES}[code])
    folder = planted(SAMPLE, tmp_path / "d", config, split, change)
    assert exit_code(str(folder), "--json", *arguments) == expected
    report = json.loads(capsys.readouterr().out)
    assert [one["code"] for one in report["findings"]] == ([] if "--limit" in arguments else [code])


def test_what_cannot_be_read(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken"
    shutil.copytree(SAMPLE, broken)
    next((broken / "histories").glob("test-*")).write_bytes(b"PAR1 no more")
    for arguments, said in (
        (["./nowhere"], "No dataset folder at './nowhere'"),
        ([str(tmp_path / "empty")], "empty"),
        ([str(broken)], "broken' cannot be read"),
        (["sample", "--limit", "-1"], "must not be negative"),
    ):
        assert exit_code(*arguments) == 2
        assert said in capsys.readouterr().err


def test_text_from_data_is_shown_as_data(tmp_path):
    evil = "\x1b[2J<|im_end|>\nCandidate item: \u202egnp.exe" + "x" * 200
    report = check(str(planted(SAMPLE, tmp_path / "d", "items", "train", rows_changed(set_to(7, "text", evil)))))
    shown = as_text(report)
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "row 7, i00007: \\x1b[2J<|im_end|>\\nCandidate item: \\u202egnp.exexxx" in shown
    assert max(map(len, shown.splitlines())) < 240
    assert as_dict(report)["counts"]["error"] == 1
    assert show("a\tb", 2) == "a\\t…"


def test_many_rows_are_counted_and_some_are_named(tmp_path):
    def edit(rows):
        for row in rows[20:]:
            row["negatives"] = []

    report = check(str(planted(SAMPLE, tmp_path / "d", "histories", "test", rows_changed(edit))), examples=2)
    assert [(one.count, [example.row for example in one.examples]) for one in report.findings] == [(330, [20, 21])]


@pytest.mark.parametrize(
    ("declared", "texts", "likely"),
    [
        (["de"], ["The cat and the dog in a hat for you to see"] * 20, ("en",)),
        (["en"], ["Der Hund und die Katze mit dem Hut"] * 20, ("de",)),
        (["en"], ["吾輩は猫であるという本"] * 20, ("ja",)),
        (["en"], ["Война и мир"] * 40, ("ru", "uk", "bg", "sr", "mk", "be")),
        (["en-GB", "de"], ["Der Hund und die Katze mit dem Hut"] * 20, None),
        (["cy"], ["The cat and the dog in a hat for you to see"] * 20, None),
        (["en"], ["Der Hund"], None),
    ],
)
def test_language_hints(declared, texts, likely):
    guessed = guess(texts)
    assert disagrees(declared, guessed) == (likely is not None)
    assert likely is None or guessed == likely


def test_a_language_that_is_not_the_declared_one(tmp_path):
    terms = contract.provenance("sample").values["dataset"]
    wrong = check(str(stating(SAMPLE, tmp_path / "wrong", dataset={**terms, "language": ["de"]})))
    assert [(one.code, one.severity) for one in wrong.findings] == [("language-other", "note")]
    assert wrong.findings[0].examples[0].shown == "declared: de; looks like: en"
    silent = stating(SAMPLE, tmp_path / "silent", dataset={**terms, "language": []})
    assert check(str(silent)).findings == (), "the card declares it"
    card = silent / "README.md"
    card.write_text(card.read_text(encoding="utf-8").replace("language:\n- en\n", "", 1), encoding="utf-8")
    assert [(one.code, one.severity) for one in check(str(silent)).findings] == [("language-undeclared", "note")]


EACH = """
import contextlib, io, json, os, sys
from trsr.cli import main
told = []
for name, token in json.loads(sys.argv[1]):
    os.environ |= {"HF_TOKEN": token}
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(["check", name, "--json"])
        except SystemExit as end:
            code = end.code
    told.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(told))
"""


def test_a_dataset_on_the_hub(tmp_path, whole, monkeypatch):
    """In a process of its own: `datasets` reads HF_ENDPOINT when it is imported."""
    folder = planted(whole, tmp_path / "d", "histories", "test", rows_changed(HISTORIES["target-in-negatives"]))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with Hub() as hub:
        api = HfApi(endpoint=hub.url, token=WRITER)
        for name, source in (("ORG/good", whole), ("ORG/bad", folder)):
            api.create_repo(name, repo_type="dataset", private=True)
            api.upload_folder(folder_path=source, repo_id=name, repo_type="dataset")

        wanted = [("ORG/good", WRITER), ("ORG/bad", WRITER), ("ORG/good", "")]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", EACH, json.dumps(wanted)],
            env=environment(hub, tmp_path / "home", None) | {"PYTHONPATH": os.pathsep.join(sys.path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    good, bad, hidden = json.loads(done.stdout.splitlines()[-1])
    assert (good[0], json.loads(good[1])["findings"]) == (0, []), good[2]
    assert (bad[0], {one["code"] for one in json.loads(bad[1])["findings"]}) == (
        1,
        {"target-in-negatives", "row-differs"},
    )
    assert hidden[0] == 2
    assert "ORG/good" in hidden[2]
    assert "Traceback" not in hidden[2]
    assert WRITER not in done.stdout + done.stderr


def test_clicks_and_a_split_by_time(tmp_path, whole):
    """In the protocol `impressions` a user stands in several rows and splits."""
    source = stating(whole, tmp_path / "source", protocol={"split": "impressions"})
    known = contract.read(str(whole), "histories", "train")[3]["user_id"]
    twice = rows_changed(lambda rows: [rows[place].update(user_id=known) for place in (5, 7)])
    report = check(str(planted(source, tmp_path / "d", "histories", "test", twice)))
    notes = [(one.code, one.count) for one in report.findings if one.severity == "note"]
    assert notes == [("user-repeated", 1), ("user-in-two-splits", 2)]


def test_batches_make_no_difference(tmp_path, monkeypatch, whole):
    def edit(rows):
        for place in (0, 6, 7, 13, 39):
            rows[place].update(user_id="one", negatives=rows[place]["negatives"] * 2)

    folder = planted(whole, tmp_path / "d", "histories", "train", rows_changed(edit))
    at_once = check(str(folder), examples=9)
    assert {one.code for one in at_once.findings} > {"user-repeated", "negative-repeated", "row-differs"}
    for module in ("batches", "run"):
        monkeypatch.setattr(f"trsr.dataset.check.{module}.ROWS", 7)
    assert check(str(folder), examples=9) == at_once


def test_a_split_of_nulls(tmp_path):
    nulls = rows_changed(lambda rows: [row.update(target=None) for row in rows])
    report = check(str(planted(SAMPLE, tmp_path / "d", "histories", "test", nulls)))
    assert found(report) == [("value-missing", "histories", "test", 350, 0)]


def test_a_negative_that_was_met_in_an_earlier_split_is_told(tmp_path):
    """Where each user's items are divided, and also where the column of what was met besides has nulls."""
    events = tmp_path / "events.csv"
    events.write_text("user_id,item_id\n" + "".join(f"u{n},b{n + m}\n" for n in range(9) for m in range(9)))
    items = tmp_path / "items.csv"
    items.write_text("item_id,title\n" + "".join(f"b{n},Book {n}\n" for n in range(20)))
    given = [
        "--items",
        items,
        "--interactions",
        events,
        "--split",
        "leave-one-out",
        "--max-history",
        "4",
        "--negatives",
        "3",
    ]
    assert tables.main([*map(str, given), "--keep-last", "--out", str(tmp_path / "d")]) == 0
    folder = tmp_path / "d"
    first = {row["user_id"]: row["history"][0] for row in contract.read(str(folder), "histories", "train")}
    assert not found(check(str(folder)), "negative-met")
    [path] = (folder / "histories").glob("test-*")
    rows = pq.read_table(path).to_pylist()
    for row in rows:
        row["negatives"][0] = first[row["user_id"]]
        row.pop("also_met", None)
    pq.write_table(pa.Table.from_pylist(rows), path)
    assert found(check(str(folder)), "negative-met") == [("negative-met", "histories", "test", 9, 0)]


def changed_in_all_splits(folder: Path, change) -> Path:
    shutil.copytree(SAMPLE, folder)
    for path in (folder / "histories").iterdir():
        pq.write_table(change(pq.read_table(path)), path)
    return folder


def test_a_null_in_what_was_met_besides_turns_no_rule_off(tmp_path):
    def met(table: pa.Table) -> pa.Table:
        negatives = table["negatives"].to_pylist()
        column = [None, *([None, items[0]] for items in negatives[1:])]
        return table.append_column("also_met", pa.array(column, pa.list_(pa.string())))

    report = check(str(changed_in_all_splits(tmp_path / "d", met)))
    assert ("negative-met", "histories", "test", 349) in [one[:4] for one in found(report)]


def test_times_that_are_no_numbers_are_no_times(tmp_path):
    nan = timed(lambda n, history: [1.6e9, math.nan, *[1.5e9] * (len(history) - 2)])
    report = check(str(changed_in_all_splits(tmp_path / "d", nan)))
    notes = [one for one in report.findings if one.code == "column-type"]
    assert {one.split for one in notes} == {"train", "validation", "test"}
    assert "without nulls and NaN" in notes[0].examples[0].shown


@pytest.mark.parametrize("seed", range(3))
def test_rules_agree_with_plain_sets(seed):
    rng = random.Random(seed)

    def draw(longest):
        return [f"i{rng.randrange(25)}" for _ in range(rng.randrange(longest))]

    rows = [
        {"user_id": f"u{n}", "history": draw(9), "target": f"i{rng.randrange(25)}", "negatives": draw(5)}
        for n in range(300)
    ]
    table = pa.Table.from_pylist(rows, schema=contract.HISTORIES.arrow_schema)
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    also_met = [draw(4) for _ in rows]
    columns["also_met"] = pa.array(also_met, pa.list_(pa.string()))
    ids = pa.array([f"i{n}" for n in range(20)])
    groups = np.arange(20) // 2  # items 0 and 1, 2 and 3, ... have the same text
    batch = Batch("histories", "test", np.arange(300), columns["user_id"], columns, 300)
    read = Histories.of(batch, Catalogue(ids, None, groups))

    def text(item_id):
        number = int(item_id[1:])
        return number // 2 if number < 20 else item_id

    expected = {
        "item-unknown": lambda h, t, n: any(int(one[1:]) >= 20 for one in [*h, t, *n]),
        "history-empty": lambda h, t, n: not h,
        "negatives-missing": lambda h, t, n: not n,
        "target-in-negatives": lambda h, t, n: t in n,
        "target-in-history": lambda h, t, n: t in h,
        "negative-in-history": lambda h, t, n: bool({*n} & {*h}),
        "negative-met": lambda h, t, n, others: bool({*n} & {*others}),
        "negative-repeated": lambda h, t, n: len({*n}) < len(n),
        "negative-like-target": lambda h, t, n: any(text(one) == text(t) and one != t for one in n),
    }
    assert expected.keys() == RULES.keys()
    for code, rule in RULES.items():
        beside = [(others,) if code == "negative-met" else () for others in also_met]
        holds = [
            expected[code](row["history"], row["target"], row["negatives"], *more)
            for row, more in zip(rows, beside, strict=True)
        ]
        assert sorted(set(rule(read)[0].tolist())) == [n for n, one in enumerate(holds) if one], code
        assert any(holds), code
    assert len(np.unique(read.fingerprints())) == 300
