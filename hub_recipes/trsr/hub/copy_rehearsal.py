"""Load the copies of an assembled release in fresh processes: their log-odds have to be those of its `expected.json`."""

import json
import math
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from trsr.assets.paths import base_path
from trsr.core.history import newest
from trsr.core.prompts import RankingPrompt
from trsr.errors import ReleaseError
from trsr.hub import cross_encoder, endpoints, expected, fresh_copy
from trsr.hub.diagnosis import EXACT, is_rounding, tolerance_of
from trsr.hub.facts import Example, Facts
from trsr.hub.inputs import ReleaseInputs
from trsr.hub.processes import printed_by
from trsr.hub.release import Release
from trsr.hub.repos import COPIES
from trsr.records.adapters import write_adapter_config
from trsr.records.conflicts import conflict_with
from trsr.records.files import read_json


def rehearse_copies(release: Release, inputs: ReleaseInputs, example: Example | None) -> Facts:
    """Load each copy in a fresh process, and ask it the requests of `expected.json`. A GGUF file is read by transformers.

    Args:
        example: For cards; a CrossEncoder is asked it too.

    Returns:
        The release's facts with the example and with `copies` complete: `differences` and `shifts`, kind of copy or name of
        a GGUF file -> largest and mean difference of its log-odds from those of base and adapter, over `candidates`.

    Raises:
        ReleaseError: If one cannot be loaded, or its log-odds differ by more than rounding makes.
    """
    kinds = [kind for kind in COPIES if kind in release.names.own]
    if not kinds:
        return replace(release.facts, example=example)
    wanted = read_json(release.folder / "pipeline" / expected.EXPECTED_FILE)
    allowed = tolerance_of(wanted["made_from"]["dtype"])
    differences: dict[str, float] = {}
    shifts: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        questions = Path(temporary) / "questions.json"
        questions.write_text(
            json.dumps(questions_of(wanted, inputs.encoder.prompt, example)), encoding="utf-8", newline="\n"
        )
        for kind in kinds:
            folder = (release.folder / kind).resolve()
            if kind == "cross-encoder":
                here = Path(base_path(inputs.run.recipe.base))
                base = str(here.resolve()) if here.is_dir() else release.names.base
                folder = beside_its_base(folder, Path(temporary) / kind, base)
            for source in sorted(folder.glob("*.gguf")) if kind == "gguf" else [folder]:
                name = source.name if kind == "gguf" else kind
                log_odds = answers(kind, source, questions, name)
                if kind == "cross-encoder" and example:
                    example = replace(example, log_odds=tuple(log_odds.pop()))
                del log_odds[len(wanted["requests"]) :]  # those of the example
                off = gaps(log_odds, wanted)
                differences[name], shifts[name] = max(map(abs, off)), statistics.mean(off)
                # How far rounded weights shift all log-odds depends on the model.
                rounded = allowed > EXACT or (kind == "gguf" and not source.stem.endswith("-f32"))
                if not (differences[name] <= allowed or (rounded and is_rounding(wanted, log_odds))):
                    raise ReleaseError(
                        f"{name}, loaded in a fresh process, scores otherwise than the adapter: log-odds differ by "
                        f"{differences[name]:.3g}, which is more than rounding makes. Leave it out."
                    )
    counted = sum(len(request["log_odds"]) for request in wanted["requests"])
    copies = {**(release.facts.copies or {}), "differences": differences, "shifts": shifts, "candidates": counted}
    return replace(release.facts, example=example, copies=copies)


def check_library() -> None:
    """Raise ReleaseError if the library that reads a CrossEncoder is missing, or older than what it is written for."""
    need = Requirement(f"{cross_encoder.LIBRARY}>={cross_encoder.LOWEST}")
    if conflict := conflict_with("llm-trsr", need):
        raise ReleaseError(
            f"A CrossEncoder is loaded by {need} before it is published, and {conflict.installed or 'none'} is installed: "
            "pip install 'llm-trsr[cross-encoder]'"
        )


def questions_of(wanted: dict[str, Any], prompt: RankingPrompt, example: Example | None = None) -> dict[str, Any]:
    """What `fresh_copy` reads, of an `expected.json`. The example, last, is asked as text alone."""
    requests = []
    questions = [(entry["request"], entry["request"].get("summary"), entry) for entry in wanted["requests"]]
    for request, summary, ids in [*questions, *([(example.request, example.summary, {})] if example else [])]:
        recent = [prompt.item(text) for text in newest(request["history"], prompt.recent_items)]
        text = cross_encoder.query(prompt, summary, recent)
        requests.append(
            {
                "query": text,
                "documents": request["candidates"],
                "prefix": ids.get("prefix", []),
                "suffixes": ids.get("suffixes", []),
                "decision": endpoints.decision(wanted, request),
                "request": request,
            }
        )
    ids = [wanted["answers"][name]["id"] for name in ("yes", "no")]
    return {"answers": ids, "temperature": wanted["temperature"], "requests": requests}


def beside_its_base(folder: Path, copy: Path, base: str) -> Path:
    """A copy of a folder with an adapter, which names a base that is there, before the base is on the Hub."""
    shutil.copytree(folder, copy)
    write_adapter_config(copy, base, None)
    return copy


def answers(
    kind: str, source: Path, questions: Path, name: str, python: str | Path = sys.executable
) -> list[list[float]]:
    """Log-odds that a folder or file gives in a fresh process, see `fresh_copy`.

    Args:
        questions: File, as `questions_of` makes its content.
        name: For the message where it cannot be loaded.
        python: That runs it.

    Raises:
        ReleaseError: If it cannot be loaded.
    """
    failed = f"{name} cannot be loaded by the libraries as they are installed, so it is not published"
    return printed_by([python, fresh_copy.__file__, kind, source, questions], questions.parent, failed)


def gaps(found: Sequence[Sequence[float]], wanted: Mapping[str, Any]) -> list[float]:
    """Log-odds less those of `expected.json`; infinity where one is not finite."""
    return [
        value - right if math.isfinite(value) else math.inf
        for log_odds, request in zip(found, wanted["requests"], strict=True)
        for value, right in zip(log_odds, request["log_odds"], strict=True)
    ]
