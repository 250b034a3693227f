"""What a recommender with a catalogue answers to rows of a dataset; each answer is kept, so that a killed measurement goes on."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from trsr.recommender.run import Run
from trsr.records.checksums import base_checksum
from trsr.records.files import append_lines, read_lines

KEPT = ("item_id", "log_odds", "stage_one", "score")  # of an item in an answer

Answer = list[dict[str, Any]]  # the ranked items, best first, with what KEPT names


@contextmanager
def resumable_answers_file(folder: Path, run: Run, recommender: Any, stage_one: int) -> Iterator[Path]:
    """A file for `answers`, whose name says what they are made from beside the rows; it is removed once all is done.

    Args:
        run: Which the recommender is of.
        recommender: With the catalogue that it is asked for.
        stage_one: Items that the first stage passes on.
    """
    made_from = {
        "run": run.weights,
        "base": base_checksum(run.recipe.base),
        "catalogue": recommender.catalogue.record,
        "stage_one": stage_one,
    }
    text = json.dumps(made_from, sort_keys=True, default=str)
    path = folder / f".answers-{hashlib.sha256(text.encode()).hexdigest()[:16]}.partial.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    yield path
    path.unlink(missing_ok=True)


def answers(
    recommender: Any, rows: Iterable[Mapping[str, Any]], stage_one: int, label: str, kept: Path | None = None
) -> Iterator[tuple[Mapping[str, Any], Answer]]:
    """Each row and the answer to it, as `retrieved_and_ranked` gives it.

    Args:
        stage_one: Items that the first stage passes on.
        label: Of the progress bar.
        kept: File of `resumable_answers_file`: answers in it are taken, the others are added.
    """
    cache: dict[str, Answer] = dict(read_lines(kept))
    with append_lines(kept) as append:
        for number, row in enumerate(tqdm(rows, desc=label, unit="user", mininterval=1)):
            key = f"{number} {hashlib.sha256(json.dumps(row, sort_keys=True, default=str).encode()).hexdigest()[:16]}"
            if key not in cache:
                candidates = retrieved_and_ranked(recommender, row, stage_one)
                cache[key] = [{name: item[name] for name in KEPT} for item in candidates]
                append([key, cache[key]])
            yield row, cache.pop(key)


def retrieved_and_ranked(recommender: Any, row: Mapping[str, Any], stage_one: int) -> Answer:
    """What a recommender with a catalogue makes of the items that the user of a row has not met, and of the target.

    A target counts also where the user had met it before, as `catalogue.measure` has it.
    """
    request = request_of(row)
    if row["target"] not in row["history"]:
        return recommender(request, stage_one=stage_one)["candidates"]
    read = recommender.preprocess(request, stage_one=stage_one)
    target = recommender.catalogue.rows.get(row["target"])
    excluded = [number for number in read["query"].excluded if number != target]
    read["query"] = replace(read["query"], excluded=excluded)
    return recommender.postprocess(recommender.forward(read))["candidates"]


def request_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What to ask a recommender with a catalogue, to find the target of a row: nothing that the user has met."""
    return {
        "history": [{"item_id": item_id} for item_id in row["history"]],
        "exclude": [item_id for item_id in row.get("also_met") or () if item_id != row["target"]],
        **({"summary": row["summary"]} if row.get("summary") else {}),
    }
