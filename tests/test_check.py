"""Every fault that is planted into a good dataset is found, by its code and place, and nothing else is."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import DatasetDict
from huggingface_hub import HfApi

from tests.hub import Hub
from trsr import data
from trsr.check.findings import CODES, show
from trsr.check.language import disagrees, guess
from trsr.check.report import as_json, as_text
from trsr.check.run import check
from trsr.cli import main
from trsr.core.extractive import ExtractiveSummarizer
from trsr.core.prompts import RankingPrompt
from trsr.embedded import ASSETS
from trsr.release import sft_rows
from trsr.summaries import add_summaries

SAMPLE = ASSETS / "sample"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The first users of the sample with summaries of both kinds and rows of prompts."""
    folder = tmp_path_factory.mktemp("made") / "whole"
    texts = data.texts("sample")
    histories = {split: data.read("sample", "histories", split).select(range(40)) for split in data.SPLITS}
    tables = {"items": DatasetDict(train=data.read("sample", "items", "train")), "histories": DatasetDict(histories)}
    for method in ("recurrent", "hierarchical"):
        made = {
            split: add_summaries(rows, texts, ExtractiveSummarizer(), method, 5, 5, split)
            for split, rows in histories.items()
        }
        tables[method] = DatasetDict(made)
        tables[f"{method}_sft"] = DatasetDict(
            {split: sft_rows(rows, texts, RankingPrompt(), 1, 0) for split, rows in made.items()}
        )
    provenance = {**data.provenance("sample"), "summaries": {"block_size": 5, "max_blocks": 5}}
    data.write(folder, tables, provenance=provenance, body="# Whole")
    return folder


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
