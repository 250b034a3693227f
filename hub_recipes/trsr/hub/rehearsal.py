"""Load an assembled release in a fresh process, before anything is pushed, and compare its scores with the run's.

The process runs the code of the release, not this package. The release folder is loaded as it is: it says which repos it
holds, so that its pipeline takes base and adapter from there, before they are on the Hub.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from scipy.special import expit

from trsr.dataset import contract
from trsr.errors import ReleaseError
from trsr.hub.cards import Example
from trsr.hub.release import Release
from trsr.recommender import scores as scored
from trsr.recommender.recipe import Recipe
from trsr.records.files import read_json

USERS = 3  # of the test split, whose candidates are scored again
# Largest difference in log-odds. In half precision any two ways of computing differ by some hundredths.
EXACT, HALF = 1e-3, 0.25

_SCRIPT = """
import json, sys
from transformers import pipeline
asked = json.load(open(sys.argv[2], encoding="utf-8"))
recommender = pipeline("text-rich-recommendation", model=sys.argv[1], trust_remote_code=True)
scores = [[one["log_odds"] for one in sorted(answer["candidates"], key=lambda one: one["index"])] for answer in recommender(asked["compared"])]
shown = recommender(asked["shown"], return_summary=True)
print(json.dumps({"scores": scores, "shown": shown, "dtype": str(recommender.model.dtype)}))
"""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What came of it.

    Attributes:
        candidates: How many were scored again, of `users` users.
        difference: Largest difference in log-odds to the run's.
        example: For cards; None where texts may not be shown.
    """

    users: int
    candidates: int
    difference: float
    example: Example | None


def rehearse(release: Release, run: Path) -> Rehearsal:
    """Load the release's pipeline with its adapter in a fresh process and score some test users.

    Raises:
        ReleaseError: If it cannot be loaded, or scores otherwise than the run did.
    """
    facts = release.facts
    texts = contract.texts(facts.recipe.dataset, facts.recipe.dataset_revision)
    rows = _rows(facts.recipe, facts.test.split)
    wanted = _scores(run / facts.test.split / scored.FILE, facts.test.system)
    compared = [
        {
            "history": [texts[item] for item in row["history"]],
            "candidates": [texts[item] for item in found],
            **({"summary": row["summary"]} if "summary" in row else {}),
        }
        for row, found in zip(rows, wanted, strict=True)
    ]
    first = _short(release, rows[0], compared[0], texts)
    told = _run(release, {"compared": compared, "shown": first})
    pairs = [
        (mine, theirs)
        for found, scores in zip(wanted, told["scores"], strict=True)
        for mine, theirs in zip(found.values(), scores, strict=True)
    ]
    difference = max(abs(mine - theirs) for mine, theirs in pairs)
    if not difference <= (EXACT if told["dtype"] == "torch.float32" else HALF):
        raise ReleaseError(
            f"Loaded in a fresh process, the release scores otherwise than the run: log-odds differ by {difference:.3g} over "
            f"{len(rows)} users. The run's scores are of other weights, data or versions: evaluate it again, then publish."
        )
    answer = told["shown"]
    ranked = tuple((one["index"], round(one["score"], 3)) for one in answer["candidates"])
    chosen = next(one["log_odds"] for one in answer["candidates"] if one["index"] == 1)
    decided = round(float(expit(chosen / (facts.fitted or {"value": 1.0})["value"])), 3)
    example = Example(first, answer["summary"], ranked, decided) if facts.terms.share_text else None
    return Rehearsal(len(rows), len(pairs), difference, example)


def _short(release: Release, row: Mapping, whole: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """A request of a test user that is short enough for a card; the chosen item is the second candidate."""
    chosen = texts[row["target"]]
    others = [text for text in whole["candidates"] if text != chosen]
    short = {"history": whole["history"][-3:], "candidates": [*others[:1], chosen, *others[1:3]]}
    settings = read_json(release.folder / "pipeline" / "config.json")["trsr"]
    if settings["summarizer"] in ("server", "other-model"):
        short["summary"] = whole["summary"]
    return short


def _rows(recipe: Recipe, split: str) -> list[dict[str, Any]]:
    rows = contract.read(recipe.dataset, recipe.config, split, recipe.dataset_revision)
    return [rows[number] for number in range(min(USERS, len(rows)))]


def _scores(path: Path, system: str) -> list[dict[str, float]]:
    """Of each of the first USERS rows in turn: item -> log-odds, in the order of the file."""
    if not path.is_file():
        raise ReleaseError(f"No scores at {path}. Make them: trsr evaluate {path.parent.parent}")
    found: dict[int, dict[str, float]] = {}
    columns, first = [scored.ROW, "item_id", system], [(scored.ROW, "<", USERS)]
    for row in pq.read_table(path, columns=columns, filters=first).to_pylist():
        found.setdefault(row[scored.ROW], {})[row["item_id"]] = row[system]
    return [found[row] for row in sorted(found)]


def _run(release: Release, requests: Mapping[str, Sequence | Mapping]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        asked = Path(temporary) / "requests.json"
        asked.write_text(json.dumps(requests), encoding="utf-8", newline="\n")
        # The code of this very release, not one that an earlier one left in the cache.
        given = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        given |= {"HF_MODULES_CACHE": str(Path(temporary) / "modules"), "PYTHONSAFEPATH": "1"}
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, str((release.folder / "pipeline").resolve()), str(asked)],
            env=given,
            cwd=temporary,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        cause = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it ended without a word")
        raise ReleaseError(
            f"The release cannot be loaded by transformers and peft as they are installed here, so it is not pushed: {cause}"
        )
    return json.loads(done.stdout.splitlines()[-1])
