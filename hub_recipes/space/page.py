"""The page, four steps from a history to a ranking and what it depends on, and the same as an API."""

from typing import Any

import gradio as gr
import showing
from asking import METHODS, Recommender
from events import Events, told
from samples import Samples

HISTORY = """title: The Locked Study; genre: mystery
title: The Salt Lantern; genre: sea stories
title: Reef and Anchor; genre: sea stories
title: A Year of Tides; genre: sea stories
title: Night Ferry; genre: sea stories
title: The Last Lighthouse; genre: sea stories"""
CANDIDATES = """title: Harbor of the Storm; genre: sea stories
title: The Quiet Oven; genre: baking
title: A Field Guide to Mosses; genre: nature"""
INTRODUCTION = """# Rank what somebody might choose next

A language model summarises a history, and ranks candidates by how likely it is to answer *yes*
([LLM-TRSR](https://arxiv.org/abs/2403.13325)). What you write is not kept."""
FORMATS = "One item a line, such as title: Emma; author: Jane Austen. Or a JSON list, or a table with a title column."
# Gradio's own colours are too faint to read for many. Fonts of the system: its bold one was painted in two faces.
THEME = gr.themes.Default(
    primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
).set(
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_dark="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    button_primary_background_fill_hover_dark="*primary_700",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_300",
)
# One at a time asks the model; all that wait for it stand in one queue.
MODEL: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}


def build(recommender: Recommender, samples: Samples, facts: dict[str, object]) -> gr.Blocks:
    """Lay out the page and its API.

    Args:
        recommender: Who is asked.
        samples: May be empty; then there is nothing to choose or draw from.
        facts: About the recommender: model, revision, dataset, licence.
    """
    events = Events(recommender, samples)
    with gr.Blocks(title="LLM-TRSR", analytics_enabled=False) as page:
        gr.Markdown(INTRODUCTION)
        gr.Markdown("## 1. History")
        users = [("Your own", ""), *((f"Test user {name}", name) for name in samples.users)]
        user = gr.Dropdown(users, value="", label="Sample user", visible=bool(samples.users))
        history = gr.Textbox(HISTORY, label="History, oldest first", info=FORMATS, lines=6, max_lines=12)
        gr.Markdown("## 2. Summary")
        with gr.Row():
            with gr.Column(min_width=280):
                method = gr.Radio(list(METHODS), value=METHODS[0], label="How the summary is written")
                summarize = gr.Button("Summarise")
            with gr.Column(min_width=280):
                summary = gr.Textbox(
                    "", label="Summary (you can edit it; an empty one is written for you)", lines=4, max_lines=10
                )
        blocks = _answer()
        gr.Markdown("## 3. Ranking")
        with gr.Row():
            with gr.Column(min_width=280):
                candidates = gr.Textbox(CANDIDATES, label="Candidates", lines=5, max_lines=12)
                draw = gr.Button("Draw random candidates", visible=bool(samples.texts))
                rank = gr.Button("Rank", variant="primary")
            with gr.Column(min_width=280):
                ranking = _answer()
        gr.Markdown("## 4. What each part of the prompt changes")
        with gr.Row():
            with gr.Column(min_width=280):
                candidate = gr.Dropdown([("First candidate", 0)], value=0, label="Candidate")
                explain = gr.Button("Leave out one part at a time")
                compare = gr.Button("Compare speed with and without a shared prefix")
            with gr.Column(min_width=280):
                reasons, speed = _answer(), _answer()
        gr.Markdown("## About this recommender")
        _answer(showing.facts(facts))

        chosen, seed, written = gr.State(""), gr.State(0), gr.State({})
        asked = [history, candidates, summary]
        shown = [blocks, ranking, reasons, speed]
        private: dict[str, Any] = {"api_visibility": "private"}
        user.change(events.on_user, user, [history, candidates, summary, chosen, *shown], **private)
        summarize.click(events.on_summarize, [history, method], [blocks, summary, written], **private, **MODEL)
        method.change(events.on_method, [method, history, written], summary, **private)
        draw.click(events.on_draw, [history, seed], [candidates, seed], **private)
        rank.click(events.on_rank, [*asked, method, chosen], [ranking, summary, candidate], **private, **MODEL)
        explain.click(events.on_explain, [*asked, candidate, method], reasons, **private, **MODEL)
        compare.click(events.on_compare, [*asked, method], speed, **private, **MODEL)

        for ask in (events.summarize, events.rank, events.explain, events.compare_speed):
            gr.api(ask, api_name=ask.__name__, **MODEL)
        for look in (samples.sample_users, samples.sample_user, samples.draw_candidates):
            gr.api(told(look), api_name=look.__name__)
    return page


def _answer(value: str = "") -> gr.HTML:
    # Gradio's own template: see `showing`.
    return gr.HTML(value, js_on_load=None, elem_classes="answer")
