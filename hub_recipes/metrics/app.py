"""A form for the metric beside it: two JSON lists in, the value out.

`evaluate`'s own widget does not start with gradio 6.
"""

import html
import json
from pathlib import Path

import evaluate
import gradio as gr

SCRIPT = next(Path(__file__).parent.glob("*_at_k.py"))
metric = evaluate.load(str(SCRIPT), keep_in_memory=True)
LONGEST = 20_000  # characters of one list
SCORES, LABELS = "[[0.9, 0.7, 0.1], [0.2, 0.5, 0.5, 0.1]]", "[[0, 1, 0], [0, 0, 1, 0]]"


def compute(predictions: str, references: str, k: float) -> float:
    try:
        if max(len(predictions), len(references)) > LONGEST:
            raise ValueError(f"At most {LONGEST} characters a list.")
        given = {"predictions": json.loads(predictions), "references": json.loads(references)}
        return metric.compute(**given, k=int(k))[SCRIPT.stem]
    except (TypeError, ValueError) as error:
        # gradio shows messages as HTML.
        raise gr.Error(html.escape(str(error), quote=False), print_exception=False) from None


demo = gr.Interface(
    compute,
    [
        gr.Textbox(SCORES, label="predictions: a list of scores a user", lines=4),
        gr.Textbox(LABELS, label="references: a list of 0 and 1 a user", lines=4),
        gr.Number(3, label="k", precision=0, minimum=1),
    ],
    gr.Number(label=SCRIPT.stem, precision=6),
    title=SCRIPT.stem,
    api_name="compute",
    flagging_mode="never",
)

if __name__ == "__main__":
    demo.launch()
