"""Load an assembled release in a fresh process, before anything is pushed: its scores have to be those of the run.

What it answers to some requests goes into the release, as `expected.json`.

The process runs the code of the release, not of this package. The folder is loaded as it is: its release.json names the
repos in it, so that the pipeline loads base and adapter from there, before they are on the Hub.
"""

import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.special import expit

from trsr.core.pipeline import SUMMARIZERS
from trsr.errors import ReleaseError
from trsr.hub import expected, fresh_process
from trsr.hub.diagnosis import tolerance_of
from trsr.hub.facts import Example
from trsr.hub.inputs import ReleaseInputs
from trsr.hub.processes import printed_by
from trsr.hub.release import Release


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The result of a rehearsal.

    Attributes:
        candidates: Number of candidates that were scored again, of `users` users.
        difference: Largest absolute difference of their log-odds from those of the run.
        example: For cards; None where users may not be shown.
    """

    users: int
    candidates: int
    difference: float
    example: Example | None


def rehearse(release: Release, inputs: ReleaseInputs) -> Rehearsal:
    """Load the release's pipeline with its adapter in a fresh process and score some test users.

    Raises:
        ReleaseError: If it cannot be loaded, or its scores differ from those of the run.
    """
    facts, texts, run_scores = release.facts, inputs.texts, inputs.log_odds
    rows = inputs.tables[facts.recipe.config][facts.test.split].select(range(len(run_scores))).to_list()
    compared = [
        {
            "history": [texts[item] for item in row["history"]],
            "candidates": [texts[item] for item in item_scores],
            **({"summary": row["summary"]} if "summary" in row else {}),
        }
        for row, item_scores in zip(rows, run_scores, strict=True)
    ]
    first = _short_request(inputs, rows[0], compared[0])
    expected_requests = expected.requests(inputs, facts.shows_users)
    writes = inputs.settings["summarizer"] in SUMMARIZERS  # the release brings its summariser along
    requests: dict[str, Any] = {
        "compared": compared,
        "shown": first,
        "measured": expected_requests,
        **({"summarised": expected_requests} if writes else {}),
    }
    catalogue = (
        expected.of_catalogue(inputs.catalogue, expected_requests[0].get("summary")) if inputs.catalogue else None
    )
    if catalogue:
        requests["chosen"] = catalogue["request"]
    output = answers(
        str((release.folder / "pipeline").resolve()),
        requests,
        "The release cannot be loaded by transformers and peft as they are installed here, so it is not pushed",
    )
    if catalogue and (problem := expected.catalogue_problem(catalogue, output["chosen"])):
        raise ReleaseError(
            f"Loaded in a fresh process, the release does not retrieve what its retriever does: {problem}. Publish it again with "
            "the versions that trained the retriever."
        )
    pairs = [
        (run_score, score)
        for item_scores, scores in zip(run_scores, output["compared"], strict=True)
        for run_score, score in zip(item_scores.values(), scores, strict=True)
    ]
    difference = max(abs(run_score - score) for run_score, score in pairs)
    if not difference <= tolerance_of(output["dtype"]):
        raise ReleaseError(
            f"Loaded in a fresh process, the release scores otherwise than the run: log-odds differ by {difference:.3g} over "
            f"{len(rows)} users. The run's scores are of other weights, data or versions: evaluate it again, then publish."
        )
    expected.write(release.folder / "pipeline", inputs, expected_requests, output, catalogue)
    answer = output["shown"]
    ranked = tuple((candidate["index"], round(candidate["score"], 3)) for candidate in answer["candidates"])
    chosen = next(candidate["log_odds"] for candidate in answer["candidates"] if candidate["index"] == 1)
    decided = round(float(expit(chosen / (facts.fitted or {"value": 1.0})["value"])), 3)
    example = Example(first, answer["summary"], ranked, decided) if facts.shows_users else None
    return Rehearsal(len(rows), len(pairs), difference, example)


def _short_request(inputs: ReleaseInputs, row: Mapping, request: Mapping[str, Any]) -> dict[str, Any]:
    """A request of a test user that is short enough for a card; the chosen item is the second candidate."""
    chosen = inputs.texts[row["target"]]
    other_texts = [text for text in request["candidates"] if text != chosen]
    short = {"history": request["history"][-3:], "candidates": [*other_texts[:1], chosen, *other_texts[1:3]]}
    if inputs.settings["summarizer"] in ("server", "other-model"):
        short["summary"] = request["summary"]
    return short


def answers(
    source: str, requests: Mapping[str, Any], failed: str, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a pipeline answers in a fresh process, as `fresh_process` gives it.

    Args:
        source: Folder or Hub id. Its code is executed.
        failed: Beginning of the message where it cannot be loaded.
        options: For `transformers.pipeline`, such as `revision`.

    Raises:
        ReleaseError: If it cannot be loaded.
    """
    with tempfile.TemporaryDirectory() as temporary:
        files = [Path(temporary) / "requests.json", Path(temporary) / "options.json"]
        for path, values in zip(files, (requests, options or {}), strict=True):
            path.write_text(json.dumps(values), encoding="utf-8", newline="\n")
        words = [sys.executable, fresh_process.__file__, source, *map(str, files)]
        return printed_by(words, Path(temporary), failed, PYTHONPATH="")
