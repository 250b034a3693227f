"""What all sections of the page are made of."""

from typing import Any

import gradio as gr

# One at a time asks the model; all that wait for it stand in one queue.
MODEL: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}
PRIVATE: dict[str, Any] = {"api_visibility": "private"}


def answer(value: str = "") -> gr.HTML:
    """A place for an answer."""
    # Gradio's own template: see `showing`.
    return gr.HTML(value, js_on_load=None, elem_classes="answer")
