"""Ask the recommender that `recommender.json` names: history and candidates in, summaries and a ranking out.

Talks to the Hub alone. What a visitor writes is shown as text, never as HTML or Markdown.
"""

import functools
import html
import json
from collections.abc import Callable
from pathlib import Path

TASK = "text-rich-recommendation"
RELEASE = json.loads((Path(__file__).parent / "recommender.json").read_text(encoding="utf-8"))
MOST = {"history": 100, "candidates": 50}  # lines
LONGEST = 1_000  # characters of a line
LONGEST_SUMMARY = 4_000
HEADERS = ("rank", "candidate", "P(yes)")
EXAMPLES = [
    (
        "title: The Locked Study; genre: mystery\ntitle: The Salt Lantern; genre: sea stories\n"
        "title: Reef and Anchor; genre: sea stories\ntitle: A Year of Tides; genre: sea stories\n"
        "title: Night Ferry; genre: sea stories\ntitle: The Last Lighthouse; genre: sea stories",
        "title: Harbor of the Storm; genre: sea stories\ntitle: The Quiet Oven; genre: baking\n"
        "title: A Field Guide to Mosses; genre: nature",
        "",
    ),
    (
        "title: Night Ferry; genre: sea stories",
        "title: Harbor of the Storm; genre: sea stories\ntitle: The Silent Witness; genre: mystery",
        "genre: sea stories x4, mystery x1",
    ),
]


@functools.cache
def recommender() -> Callable:
    """The pipeline, loaded when it is first asked."""
    from transformers import pipeline

    return pipeline(TASK, model=RELEASE["model"], revision=RELEASE.get("revision"), trust_remote_code=True)


def items(text: str, name: str) -> list[str]:
    """An item a line, empty lines left out. Raises ValueError past the limits."""
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if len(found) > MOST[name]:
        raise ValueError(f"{name}: {len(found)} lines, at most {MOST[name]} are taken here.")
    for place, line in enumerate(found, 1):
        if len(line) > LONGEST:
            raise ValueError(f"{name}, item {place}: {len(line)} characters, at most {LONGEST} are taken here.")
    return found


def recommend(history: str, candidates: str, summary: str = "", *, ask: Callable | None = None):
    """Rank `candidates` for a user.

    Args:
        history: An item a line, oldest first, such as `title: Emma; author: Jane Austen`.
        candidates: An item a line.
        summary: Of the user's preferences; written from the history if left out.
        ask: The pipeline; the published one if left out.

    Returns:
        The summary, the summaries of the blocks (oldest first, one a paragraph), the ranking (rank, candidate,
        P(yes)), and what was left out to fit the model's context.

    Raises:
        ValueError: If there is no candidate, or something is longer than the limits.
    """
    request = {"history": items(history, "history"), "candidates": items(candidates, "candidates")}
    if not request["candidates"]:
        raise ValueError("Write at least one candidate, one a line.")
    if len(summary) > LONGEST_SUMMARY:
        raise ValueError(f"summary: {len(summary)} characters, at most {LONGEST_SUMMARY} are taken here.")
    if summary.strip():
        request["summary"] = summary.strip()
    answer = (ask or recommender())(request, return_summary=True)
    ranking = [[one["rank"], one["item"], round(one["score"], 4)] for one in answer["candidates"]]
    blocks = "\n\n".join(f"{place}. {text}" for place, text in enumerate(answer["block_summaries"], 1))
    shortened = ", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in answer.get("shortened", {}).items())
    return answer["summary"] or "", blocks, ranking, shortened


def build(ask: Callable | None = None):
    """The page, over the pipeline `ask` or the published one."""
    import gradio as gr

    def answer(history: str, candidates: str, summary: str = ""):
        try:
            return recommend(history, candidates, summary, ask=ask)
        except ValueError as error:
            # gradio shows messages as HTML.
            raise gr.Error(html.escape(str(error), quote=False), print_exception=False) from None

    with gr.Blocks(title="LLM-TRSR") as page:
        gr.Markdown(
            "# Text-rich recommendation\n\nA language model summarises a history and ranks candidates by P(yes) "
            "([LLM-TRSR](https://arxiv.org/abs/2403.13325)). One item a line: `field: value; field: value`."
        )
        with gr.Row():
            with gr.Column():
                history = gr.Textbox(EXAMPLES[0][0], label="History, oldest first", lines=6)
                candidates = gr.Textbox(EXAMPLES[0][1], label="Candidates", lines=4)
                summary = gr.Textbox("", label="Summary (optional; else written from the history)", lines=2)
                button = gr.Button("Rank", variant="primary")
            with gr.Column():
                ranking = gr.Dataframe(headers=HEADERS, datatype=["number", "str", "number"], label="Ranking")
                written = gr.Textbox(label="Summary used", lines=3)
                blocks = gr.Textbox(label="Summaries of the blocks", lines=3)
                shortened = gr.Textbox(label="Left out to fit the context")
        asked = [history, candidates, summary]
        button.click(answer, asked, [written, blocks, ranking, shortened], api_name="recommend")
        gr.Examples([list(one) for one in EXAMPLES], asked, cache_examples=False)
        named = [f"{name}: {RELEASE[name]}" for name in RELEASE if RELEASE[name]]
        gr.Textbox("\n".join(named), label="What answers", lines=len(named), interactive=False)
    return page


if __name__ == "__main__":
    build().launch()
