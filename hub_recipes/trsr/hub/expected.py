"""`expected.json`: what a release answers to some requests, and what it would answer if it were loaded wrongly.

`trsr verify` holds any folder, repo or server against it. The requests are of the first test users or, where users may not be
shown, made up.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trsr.core.catalogue import Catalogue
from trsr.core.history import Item
from trsr.core.modeling import DECISION_FILES
from trsr.hub.diagnosis import EXACT
from trsr.hub.inputs import ReleaseInputs
from trsr.records.files import write_text

EXPECTED_FILE = "expected.json"
USERS = 3
CANDIDATES = 8
HISTORY, RETRIEVED = 5, 20  # items of the request to a catalogue, and of its answer

_BOOKS = (
    ("The Salt Lantern", "sea stories"), ("Reef and Anchor", "sea stories"), ("The Long Tide", "sea stories"),
    ("The Quiet Oven", "baking"), ("Crust and Crumb", "baking"), ("The Glass Summit", "mountains"),
    ("A Ledger of Lies", "detectives"), ("The Last Witness", "detectives"), ("Orchard Weather", "gardens"),
    ("Comet Season", "astronomy"),
)  # fmt: skip
MADE_UP: tuple[Mapping[str, Any], ...] = tuple(
    {
        "history": [f"title: {title}; genre: {genre}" for title, genre in (*_BOOKS[start:], *_BOOKS[:start])[:4]],
        "candidates": [f"title: {title}; genre: {genre}" for title, genre in (*_BOOKS[start:], *_BOOKS[:start])[4:]],
        "summary": f"genre: {_BOOKS[start][1]} x3",
    }
    for start in (0, 3, 6)
)


def requests(inputs: ReleaseInputs, shows_users: bool) -> list[dict[str, Any]]:
    """The requests of a release: history, the chosen item among CANDIDATES of the user's, and the summary of the dataset.

    Args:
        shows_users: Whether they may be of users; else they are made up.
    """
    shown = inputs.run.recipe.summary != "none"
    if not shows_users:
        return [{name: value for name, value in request.items() if shown or name != "summary"} for request in MADE_UP]
    rows = inputs.tables[inputs.run.recipe.config][inputs.test.split]
    of_users = []
    for row in rows.select(range(min(USERS, len(rows)))):
        chosen = [row["target"], *row["negatives"]][:CANDIDATES]
        of_users.append(
            {
                "history": [inputs.texts[item_id] for item_id in row["history"]],
                "candidates": [inputs.texts[item_id] for item_id in sorted(chosen)],
                **({"summary": row["summary"]} if shown else {}),
            }
        )
    return of_users


def of_catalogue(catalogue: Catalogue, summary: str | None) -> dict[str, Any]:
    """A request without candidates, of nobody in particular, and what its first stage has to retrieve.

    Returns:
        The fitted `weight` of the first stage, the `request`, and the best RETRIEVED `candidates`: `item_id`, `stage_one`, and the
        beginning of the SHA-256 of its text.
    """
    history = catalogue.item_ids[: min(HISTORY, len(catalogue.item_ids) // 2)]
    [best] = catalogue.retrieve([catalogue.query([({"item_id": item_id}, Item(item_id)) for item_id in history])])
    return {
        "weight": catalogue.record["weight"],
        "request": {"history": [{"item_id": item_id} for item_id in history], "summary": summary},
        "candidates": [
            {
                "item_id": catalogue.item_ids[row],
                "stage_one": round(score, 6),
                "text_sha256": text_digest(catalogue.texts[row]),
            }
            for row, score in best[:RETRIEVED]
        ],
    }


def text_digest(text: str) -> str:
    """The beginning of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def catalogue_problem(wanted: Mapping[str, Any], answer: Mapping[str, Any] | None) -> str | None:
    """How an answer without candidates differs from what a catalogue has to retrieve; None if it does not.

    Args:
        wanted: As `of_catalogue` gives it.
        answer: Of the pipeline; None if it carries no catalogue.
    """
    if answer is None:
        return "it carries no catalogue"
    actual = {candidate["item_id"]: candidate["stage_one"] for candidate in answer["candidates"]}
    scores = {candidate["item_id"]: candidate["stage_one"] for candidate in wanted["candidates"]}
    for item_id, score in scores.items():
        if not math.isclose(actual.get(item_id, math.nan), score, abs_tol=EXACT):
            return f"the score of {item_id!r} is {actual.get(item_id)}, not {score}"
    texts = {candidate["item_id"]: candidate.get("item", "") for candidate in answer["candidates"]}
    for candidate in wanted["candidates"]:
        if text_digest(texts[candidate["item_id"]]) != candidate["text_sha256"]:
            return f"the text of {candidate['item_id']!r} differs: {texts[candidate['item_id']][:60]!r}"
    worst = min(scores.values(), default=-math.inf)
    others = (item_id for item_id, score in actual.items() if item_id not in scores and score > worst + EXACT)
    return next(
        (f"{item_id!r} has a score of {actual[item_id]}, and should not be among the first" for item_id in others), None
    )


def write(
    folder: Path,
    inputs: ReleaseInputs,
    asked: Sequence[Mapping[str, Any]],
    output: Mapping[str, Any],
    catalogue: Mapping[str, Any] | None = None,
) -> None:
    """Write EXPECTED_FILE.

    Args:
        asked: As `requests` gives them.
        output: What `fresh_process` measured of them.
        catalogue: As `of_catalogue` gives it, if the release carries one.
    """
    encoder, run, template = inputs.encoder, inputs.run, folder / DECISION_FILES[1]
    summarised = output.get("summarised", [None] * len(asked))
    values = {
        "made_from": {
            "base": run.recipe.base if not Path(run.recipe.base).is_dir() else Path(run.recipe.base).name,
            "base_revision": run.recipe.base_revision,
            "weights": run.weights,
            "dtype": output["dtype"],
        },
        "answers": {
            name: {"id": token, "text": encoder.tokenizer.decode([token])}
            for name, token in (("yes", encoder.yes_id), ("no", encoder.no_id))
        },
        "temperature": inputs.settings["temperature"],
        "bias": inputs.settings["bias"],
        "recent_items": encoder.prompt.recent_items,
        "requests": [
            {"request": request, "summary": summary, **measured}
            for request, summary, measured in zip(asked, summarised, output["measured"], strict=True)
        ],
        **({"catalogue": dict(catalogue)} if catalogue else {}),
        **({"decision_template_sha256": text_digest(template.read_text("utf-8"))} if template.is_file() else {}),
    }
    write_text(folder / EXPECTED_FILE, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def problem(values: Any) -> str | None:
    """What is wrong with the content of an `expected.json`; None if answers can be compared with it."""
    fields = {**_FIELDS, **(_CATALOGUE if isinstance(values, Mapping) and "catalogue" in values else {})}
    if wrong := _wrong_field(values, fields):
        return wrong
    for number, request in enumerate(values["requests"]):
        wrong = _wrong_field(request, _REQUEST) or _wrong_length(request)
        if wrong:
            return f"in requests[{number}], {wrong}"
    return None


def _wrong_length(request: Mapping[str, Any]) -> str | None:
    """Which list of a request has not an entry for each of its candidates."""
    lists = {"suffixes": request["suffixes"], "log_odds": request["log_odds"]}
    lists |= {f"if_wrong[{name!r}]": log_odds for name, log_odds in request["if_wrong"].items()}
    if request["text"] is not None:
        lists["text.suffixes"] = request["text"]["suffixes"]
    count = len(request["request"]["candidates"])
    return next(
        (
            f"{name} has {len(some)} entries for {count} candidates"
            for name, some in lists.items()
            if len(some) != count
        ),
        None,
    )


def _wrong_field(values: Any, fields: Mapping[str, Callable[[Any], bool]]) -> str | None:
    """The first field that is missing or not what it must be. Names of fields are paths with dots; `?` ends an optional one."""
    for name, is_right in fields.items():
        value = values
        for key in name.removesuffix("?").split("."):
            value = value.get(key, _MISSING) if isinstance(value, Mapping) else _MISSING
        if not (name.endswith("?") if value is _MISSING else is_right(value)):
            return f"{name.removesuffix('?')} is {'missing' if value is _MISSING else 'not what it must be'}"
    return None


_MISSING = object()


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -1e30 < value < 1e30


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1e30


def _list_of(is_right: Callable[[Any], bool], shortest: int = 0) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) >= shortest and all(map(is_right, value))


def _or_none(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_right(value)


_TEXT = {"prefix": _is_text, "suffixes": _list_of(_is_text)}
_FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "made_from.dtype": _is_text,
    **{f"answers.{name}.id": _is_count for name in ("yes", "no")},
    **{f"answers.{name}.text": _is_text for name in ("yes", "no")},
    "temperature": lambda value: _is_number(value) and value > 0,
    "bias": _is_number,
    "recent_items": _is_count,
    "decision_template_sha256?": _is_text,
    "requests": _list_of(lambda value: True, shortest=1),
}
_RETRIEVED: Mapping[str, Callable[[Any], bool]] = {
    "item_id": _is_text,
    "stage_one": _is_number,
    "text_sha256": _is_text,
}
_CATALOGUE: Mapping[str, Callable[[Any], bool]] = {
    "catalogue.weight": _is_number,
    "catalogue.request.history": _list_of(lambda value: isinstance(value, dict)),
    "catalogue.candidates": _list_of(lambda value: _wrong_field(value, _RETRIEVED) is None),
}
_REQUEST: Mapping[str, Callable[[Any], bool]] = {
    "request.history": _list_of(_is_text),
    "request.candidates": _list_of(_is_text, shortest=1),
    "request.summary?": _or_none(_is_text),
    "summary": _or_none(_is_text),
    "prefix": _list_of(_is_count),
    "suffixes": _list_of(_list_of(_is_count)),
    "text": _or_none(lambda value: _wrong_field(value, _TEXT) is None),
    "log_odds": _list_of(_is_number),
    "if_wrong": lambda value: isinstance(value, dict) and all(map(_list_of(_is_number), value.values())),
}
