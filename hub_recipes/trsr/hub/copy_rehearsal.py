"""Load the copies of an assembled release in fresh processes: their log-odds have to be those of its `expected.json`."""

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trsr.assets.paths import base_path
from trsr.errors import ReleaseError
from trsr.hub import cross_encoder, expected, fresh_copy
from trsr.hub.cards import Example, Facts, complete
from trsr.hub.diagnosis import EXACT, HALF, tolerance_of
from trsr.hub.inputs import ReleaseInputs
from trsr.hub.processes import cause_of
from trsr.hub.release import Release
from trsr.hub.repos import COPIES
from trsr.records.adapters import write_adapter_config
from trsr.records.files import read_json

# Largest difference in log-odds that rounding makes in a GGUF file of a type; another means another model.
_ROUNDING = {"f32": EXACT, "f16": HALF, "bf16": HALF, "q8_0": 2 * HALF}


def rehearse_copies(release: Release, inputs: ReleaseInputs, example: Example | None) -> Facts:
    """Load each copy in a fresh process, and ask it the requests of `expected.json`. A GGUF file is read by transformers.

    Args:
        example: For cards; a CrossEncoder is asked it too.

    Returns:
        The release's facts with the example and with `copies` complete: `differences`, kind of copy or name of a GGUF file
        -> largest difference of its log-odds from those of base and adapter, over `candidates`.

    Raises:
        ReleaseError: If one cannot be loaded, or its log-odds differ by more than rounding makes.
    """
    kinds = [kind for kind in COPIES if kind in release.names.own]
    if not kinds:
        return complete(release.facts, example=example)
    wanted = read_json(release.folder / "pipeline" / expected.FILE)
    allowed = tolerance_of(wanted["made_from"]["dtype"])
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        questions = Path(temporary) / "questions.json"
        questions.write_text(json.dumps(_questions(wanted, inputs, example)), encoding="utf-8", newline="\n")
        for kind in kinds:
            folder = (release.folder / kind).resolve()
            if kind == "cross-encoder":
                folder = _beside_its_base(folder, Path(temporary) / kind, release, inputs)
            for source in sorted(folder.glob("*.gguf")) if kind == "gguf" else [folder]:
                name = source.name if kind == "gguf" else kind
                limit = allowed if kind != "gguf" else max(_ROUNDING[source.stem.rsplit("-", 1)[1]], allowed)
                answers = _answers(kind, source, questions, name)
                if kind == "cross-encoder" and example:
                    example = replace(example, log_odds=tuple(answers.pop()))
                found[name] = _difference(answers, wanted)
                if not found[name] <= limit:
                    raise ReleaseError(
                        f"{name}, loaded in a fresh process, scores otherwise than the adapter: log-odds differ by "
                        f"{found[name]:.3g}, and rounding makes {limit:g} at most. Leave it out."
                    )
    counted = sum(len(one["log_odds"]) for one in wanted["requests"])
    copies = {**(release.facts.copies or {}), "differences": found, "candidates": counted}
    return complete(release.facts, example=example, copies=copies)


def check_library() -> None:
    """Raise ReleaseError if the library that reads a CrossEncoder is missing, or older than what it is written for."""
    try:
        found = version(cross_encoder.LIBRARY)
    except PackageNotFoundError:
        found = "none"
    if found == "none" or tuple(map(int, found.split(".")[:2])) < tuple(map(int, cross_encoder.LOWEST.split("."))):
        raise ReleaseError(
            f"A CrossEncoder is loaded by {cross_encoder.LIBRARY} {cross_encoder.LOWEST} before it is published, and {found} is "
            "installed: pip install 'llm-trsr[cross-encoder]'"
        )


def _questions(wanted: dict[str, Any], inputs: ReleaseInputs, example: Example | None) -> dict[str, Any]:
    """What `fresh_copy` reads. The example, last, is asked as text alone."""
    prompt = inputs.encoder.prompt
    requests = []
    asked = [(one["request"], one["request"].get("summary"), one) for one in wanted["requests"]]
    for request, summary, ids in [*asked, *([(example.request, example.summary, {})] if example else [])]:
        recent = [prompt.item(text) for text in request["history"]][len(request["history"]) - prompt.recent_items :]
        text = cross_encoder.query(prompt, summary, recent if prompt.recent_items else [])
        requests.append(
            {
                "query": text,
                "documents": request["candidates"],
                "prefix": ids.get("prefix", []),
                "suffixes": ids.get("suffixes", []),
            }
        )
    return {"answers": [wanted["answers"][name]["id"] for name in ("yes", "no")], "requests": requests}


def _beside_its_base(folder: Path, copy: Path, release: Release, inputs: ReleaseInputs) -> Path:
    """A copy of a CrossEncoder's folder that names a base which is there, before the base is on the Hub."""
    shutil.copytree(folder, copy)
    base = Path(base_path(inputs.run.recipe.base))
    write_adapter_config(copy, str(base.resolve()) if base.is_dir() else release.names.base, None)
    return copy


def _answers(kind: str, source: Path, questions: Path, name: str) -> list[list[float]]:
    # Where the library was found, it is found again; this package is left out.
    kept = [
        path
        for path in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if path and not (Path(path) / "trsr").is_dir()
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(kept), "PYTHONSAFEPATH": "1"}
    process = subprocess.run(
        [sys.executable, fresh_copy.__file__, kind, str(source), str(questions)],
        env=environment,
        cwd=questions.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        raise ReleaseError(
            f"{name} cannot be loaded as it is installed here, so nothing is pushed: {cause_of(process)}"
        )
    return json.loads(process.stdout.splitlines()[-1])


def _difference(found: list[list[float]], wanted: dict[str, Any]) -> float:
    pairs = [
        (value, right)
        for given, one in zip(found, wanted["requests"], strict=False)  # the example is not among them
        for value, right in zip(given, one["log_odds"], strict=True)
    ]
    if not all(math.isfinite(value) for value, _ in pairs):
        return math.inf
    return max(abs(value - right) for value, right in pairs)
