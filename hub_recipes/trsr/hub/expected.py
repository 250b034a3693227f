"""`expected.json`: what a release answers to some requests, and what it would answer if it were loaded wrongly.

`trsr verify` holds any folder, repo or server against it. The requests are of the first test users or, where texts may not be
passed on, made up.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trsr.hub.inputs import ReleaseInputs
from trsr.records.files import write_text

FILE = "expected.json"
USERS = 3
CANDIDATES = 8

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


def requests(inputs: ReleaseInputs, share_text: bool) -> list[dict[str, Any]]:
    """The requests of a release: history, the chosen item among CANDIDATES of the user's, and the summary of the dataset."""
    shown = inputs.run.recipe.summary != "none"
    if not share_text:
        return [{name: value for name, value in one.items() if shown or name != "summary"} for one in MADE_UP]
    rows = inputs.tables[inputs.run.recipe.config][inputs.test.split]
    made = []
    for row in rows.select(range(min(USERS, len(rows)))):
        chosen = [row["target"], *row["negatives"]][:CANDIDATES]
        made.append(
            {
                "history": [inputs.texts[item_id] for item_id in row["history"]],
                "candidates": [inputs.texts[item_id] for item_id in sorted(chosen)],
                **({"summary": row["summary"]} if shown else {}),
            }
        )
    return made


def write(folder: Path, inputs: ReleaseInputs, asked: Sequence[Mapping[str, Any]], output: Mapping[str, Any]) -> None:
    """Write FILE.

    Args:
        asked: As `requests` gives them.
        output: What `fresh_process` measured of them.
    """
    encoder, run = inputs.encoder, inputs.run
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
        "recent_items": encoder.prompt.recent_items,
        "requests": [
            {"request": request, "summary": summary, **measured}
            for request, summary, measured in zip(asked, summarised, output["measured"], strict=True)
        ],
    }
    write_text(folder / FILE, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
