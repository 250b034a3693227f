"""The Space of the recommender that `recommender.json` names. Talks to the Hub alone."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr
import samples
from asking import Recommender, load
from page import THEME, build
from recommending import CatalogueRecommender

HERE = Path(__file__).parent
STATED = ("model", "revision", "license", "dataset", "dataset_revision", "dataset_license")
WAITING = 100  # requests in the queue; more are told to come back
SESSIONS = 500  # visitors whose page is remembered, about 0.1 MB each; gradio would keep 10,000
TOLD = 5  # seconds between two messages to each of them about its place


def launch(release: dict[str, Any], pipe: Any = None, **options: Any) -> gr.Blocks:
    """Serve the page until it is stopped, or at once return it, with gradio's `prevent_thread_lock`.

    Args:
        release: What `recommender.json` holds: model and dataset, with their revisions and licences.
        pipe: The pipeline; the release's if left out.
        options: For gradio, such as `server_port`.
    """
    pipe = pipe or load(release)
    asked = CatalogueRecommender if getattr(pipe, "catalogue", None) else Recommender
    offered = samples.load(release)
    recommender = asked(pipe, offered.texts)
    offered.shown = recommender.shown
    page = build(recommender, offered, facts(release, pipe))
    # As an MCP server where `gradio[mcp]` is installed, as it is on a Space.
    options = {"mcp_server": find_spec("mcp") is not None, "state_session_capacity": SESSIONS, **options}
    page.queue(max_size=WAITING, status_update_rate=TOLD).launch(theme=THEME, css_paths=HERE / "page.css", **options)
    return page


def facts(release: dict[str, Any], pipe: Any) -> dict[str, object]:
    """What the page says of the recommender: names, revisions and licences, device, scoring plan."""
    stated = {name.replace("_", " "): release.get(name) for name in STATED}
    for name in ("model", "dataset"):
        # A repo's id as it is; of a folder, the end of its path and not where it lies on this machine.
        stated[name] = "/".join(Path(stated[name] or "").parts[-2:])
    if catalogue := getattr(pipe, "catalogue", None):
        stated["catalogue"] = f"{len(catalogue.item_ids):,} items"
    return {**stated, "runs on": pipe.device, "scoring plan": pipe.scorer.plan}


if __name__ == "__main__":
    launch(json.loads((HERE / "recommender.json").read_text(encoding="utf-8")))
