"""Candidates of unequal number, and several rows of one user: each is ranked on its own."""

import json

import numpy as np
import pytest
from datasets import Dataset

from trsr import candidates, data
from trsr.calibration import fit_temperature
from trsr.core.prompts import Encoder
from trsr.core.scoring import Scorer
from trsr.evaluate import score, write_results

ROWS = Dataset.from_list(
    [
        {"user_id": "u", "history": ["a"], "target": "b", "negatives": ["c"]},
        {"user_id": "u", "history": ["a"], "target": "d", "negatives": ["a", "b", "c"]},
    ],
    features=data.HISTORIES,
)
TEXTS = {name: f"title: {name}" for name in "abcd"}


def test_a_user_with_two_rows_is_scored_twice_and_goes_on(byte_tokenizer, llama, tmp_path):
    encoder = Encoder(byte_tokenizer)
    scorer = Scorer(llama.eval(), encoder.yes_id, encoder.no_id)
    partial = tmp_path / "partial.jsonl"
    scores = score(ROWS, TEXTS, encoder, scorer, seed=0, partial=partial)
    assert np.isfinite(scores).tolist() == [[True, True, False, False], [True] * 4]
    for place in range(2):
        alone = score(ROWS.select([place]), TEXTS, encoder, scorer, seed=0)[0]
        np.testing.assert_allclose(scores[place, : len(alone)], alone, atol=1e-5)
    lines = partial.read_text().splitlines()
    key, values = json.loads(lines[1])
    partial.write_text(f"{lines[0]}\n{json.dumps([key, [value + 1 for value in values]])}\n")
    again = score(ROWS, TEXTS, encoder, scorer, seed=0, partial=partial)
    np.testing.assert_allclose(again[1], scores[1] + 1)
    np.testing.assert_array_equal(again[0, :2], scores[0, :2])


def test_results_count_the_candidates_there_are(tmp_path):
    lists, labels = candidates.candidate_table(ROWS, seed=0)
    mask = candidates.presence(lists)
    scores = np.where(mask, np.where(labels, 2.0, 1.0), np.nan)
    about = {"split": "validation", "run": "ours"}
    results = write_results(tmp_path, {"ours": scores, "chance": np.where(mask, 0.0, np.nan)}, ROWS, 0, about)
    assert results["candidates_a_user"] == 3
    assert results["systems"]["ours"]["recall@1"]["value"] == 1
    assert results["systems"]["chance"]["recall@1"]["value"] == pytest.approx((1 / 2 + 1 / 4) / 2)
    kept = Dataset.from_parquet(str(tmp_path / "scores.parquet"))
    assert kept["row"] == [0, 0, 1, 1, 1, 1]
    assert kept["label"] == [int(label) for label in labels[mask]]
    assert results["temperature"]["value"] == fit_temperature(scores, labels, mask).value


def test_a_missing_score_of_a_candidate_is_refused():
    labels = np.array([[True, False, False]])
    scores = np.array([[1.0, np.nan, np.nan]])
    with pytest.raises(ValueError, match="finite"):
        fit_temperature(scores, labels, np.array([[True, True, False]]))
