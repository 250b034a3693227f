"""The page, from a history to a list and what it depends on, step by step, and the same as an API."""

import catalogue_section
import gradio as gr
import showing
from asking import METHODS, Recommender
from events import Events, told
from recommending import CatalogueRecommender
from samples import Samples
from widgets import MODEL, PRIVATE, answer

HISTORY = """title: The Locked Study; genre: mystery
title: The Salt Lantern; genre: sea stories
title: Reef and Anchor; genre: sea stories
title: A Year of Tides; genre: sea stories
title: Night Ferry; genre: sea stories
title: The Last Lighthouse; genre: sea stories"""
CANDIDATES = """title: Harbor of the Storm; genre: sea stories
title: The Quiet Oven; genre: baking
title: A Field Guide to Mosses; genre: nature"""
INTRODUCTION = """# {} what somebody might choose next

A language model summarises a history, and {}
([LLM-TRSR](https://arxiv.org/abs/2403.13325)). What you write is not kept."""
ONE_STAGE = "ranks candidates by how likely it is to answer *yes*"
BOTH_STAGES = (
    "ranks what a smaller model finds in the catalogue: the list adds the scores of both, how likely the language model is to answer "
    "*yes*, and how well the smaller one thinks an item fits"
)
NO_CATALOGUE = (
    "This recommender carries no catalogue to choose from: it ranks the candidates that you give. One that is published with a "
    "retriever recommends from its whole catalogue here."
)
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


def build(recommender: Recommender, samples: Samples, facts: dict[str, object]) -> gr.Blocks:
    """Lay out the page and its API.

    Args:
        recommender: Who is asked.
        samples: May be empty; then there is nothing to choose or draw from.
        facts: About the recommender: model, revision, dataset, licence.
    """
    events = Events(recommender, samples)
    catalogue = recommender if isinstance(recommender, CatalogueRecommender) else None
    said = ("Recommend", BOTH_STAGES) if catalogue else ("Rank", ONE_STAGE)
    with gr.Blocks(title="LLM-TRSR", analytics_enabled=False) as page:
        gr.Markdown(INTRODUCTION.format(*said))
        chosen, seed, written = gr.State(""), gr.State(0), gr.State({})
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
        blocks = answer()
        if catalogue:
            gr.Markdown("## 3. Recommendations")
            best = catalogue_section.build(catalogue, user, history, summary, method, chosen)
            gr.Markdown("## 4. A list of your own")
        else:
            gr.Markdown(f"## 3. Ranking\n\n{NO_CATALOGUE}")
        with gr.Row():
            with gr.Column(min_width=280):
                candidates = gr.Textbox(CANDIDATES, label="Candidates", lines=5, max_lines=12)
                draw = gr.Button("Draw random candidates", visible=bool(samples.texts))
                take = gr.Button("Take the recommendations", visible=bool(catalogue))
                rank = gr.Button("Rank", variant="secondary" if catalogue else "primary")
            with gr.Column(min_width=280):
                ranking = answer()
        gr.Markdown(f"## {5 if catalogue else 4}. What each part of the prompt changes")
        with gr.Row():
            with gr.Column(min_width=280):
                candidate = gr.Dropdown([("First candidate", 0)], value=0, label="Candidate")
                explain = gr.Button("Leave out one part at a time")
                compare = gr.Button("Compare speed with and without a shared prefix")
            with gr.Column(min_width=280):
                reasons, speed = answer(), answer()
        gr.Markdown("## About this recommender")
        answer(showing.facts(facts))

        asked = [history, candidates, summary]
        shown = [blocks, ranking, reasons, speed]
        user.change(events.on_user, user, [history, candidates, summary, chosen, *shown], **PRIVATE)
        summarize.click(events.on_summarize, [history, method], [blocks, summary, written], **PRIVATE, **MODEL)
        method.change(events.on_method, [method, history, written], summary, **PRIVATE)
        draw.click(events.on_draw, [history, seed], [candidates, seed], **PRIVATE)
        if catalogue:
            take.click(events.on_take, best, candidates, **PRIVATE)
            gr.api(catalogue_section.ask(catalogue), api_name="recommend", **MODEL)
        rank.click(events.on_rank, [*asked, method, chosen], [ranking, summary, candidate], **PRIVATE, **MODEL)
        explain.click(events.on_explain, [*asked, candidate, method], reasons, **PRIVATE, **MODEL)
        compare.click(events.on_compare, [*asked, method], speed, **PRIVATE, **MODEL)

        for ask in (events.summarize, events.rank, events.explain, events.compare_speed):
            gr.api(ask, api_name=ask.__name__, **MODEL)
        for look in (samples.sample_users, samples.sample_user, samples.draw_candidates):
            gr.api(told(look), api_name=look.__name__)
    return page
