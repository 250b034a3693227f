"""The section of the page that recommends from the catalogue, and shows how the lists move when the summary is edited."""

from collections.abc import Callable
from typing import Any

import gradio as gr
import showing
from asking import gpu
from events import told
from recommending import MOST_PASSED_ON, PASSED_ON, CatalogueRecommender
from widgets import MODEL, PRIVATE, answer

HINT = (
    "Press Recommend, edit the summary in step 2, and press again: arrows show how far each item moved. The first stage does not "
    "read the summary; what it does not pass on cannot come up (Options)."
)


def ask(recommender: CatalogueRecommender) -> Callable[..., dict]:
    """What recommends, as the page and the API call it."""
    return gpu(told(recommender.recommend))


def build(
    recommender: CatalogueRecommender,
    user: gr.Dropdown,
    history: gr.Textbox,
    summary: gr.Textbox,
    method: gr.Radio,
    chosen: gr.State,
) -> gr.State:
    """Lay out the section.

    Args:
        user, history, summary, method: Of the sections before.
        chosen: Text of the item that the sample user chose in fact.

    Returns:
        The texts of the best items, as they were last recommended.
    """
    recommend = ask(recommender)
    gr.Markdown(HINT)
    start = gr.Button("Recommend", variant="primary")
    most = min(MOST_PASSED_ON, recommender.items)
    with gr.Accordion("Options", open=False), gr.Row():
        with gr.Column(min_width=280):
            # gradio refuses a slider of one value alone.
            passed = gr.Slider(
                1, max(most, 2), min(PASSED_ON, most), step=1, label="Items that the first stage passes on"
            )
            alone = gr.Checkbox(False, label="First stage alone, without the language model")
            exclude = gr.Textbox("", label="Leave out", info="Ids or items, one a line.", lines=2, max_lines=6)
        with gr.Column(min_width=280):
            fields = [("All items", ""), *((name, name) for name in recommender.fields)]
            field = gr.Dropdown(fields, value="", label="Only items whose")
            value = gr.Dropdown([""], value="", label="is", allow_custom_value=True)
    lists = answer()
    before, best = gr.State({}), gr.State([])

    def on_recommend(
        history: str, summary: str, method: str, passed: int, exclude: str, field: str, value: str, alone: bool,
        chosen: str, before: dict,
    ) -> tuple:  # fmt: skip
        """The lists, the summary that was read, and what the next lists are compared with."""
        found = recommend(history, summary, method, int(passed), exclude, field or "", value or "", alone)
        asked = [history, passed, exclude, field, value, alone]
        same = before.get("asked") == asked
        shown = showing.lists(found, recommender.items, before["ranks"] if same else None, chosen)
        ranks = {one["item_id"]: one["ranks"] for one in found["items"]}
        texts = [one["text"] for one in found["items"][: showing.LISTED]]
        return shown, summary if alone else found["summary"], {"asked": asked, "ranks": ranks}, texts

    asked: list[Any] = [history, summary, method, passed, exclude, field, value, alone, chosen, before]
    start.click(on_recommend, asked, [lists, summary, before, best], **PRIVATE, **MODEL)
    field.change(
        lambda name: gr.Dropdown(["", *recommender.fields.get(name or "", [])], value=""), field, value, **PRIVATE
    )
    user.change(lambda: ("", {}, []), None, [lists, before, best], **PRIVATE)
    return best
