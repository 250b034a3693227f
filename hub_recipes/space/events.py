"""What the buttons of the page do: they ask, and turn answers into what the page shows."""

import html
import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import gradio as gr
import reading
import showing
from asking import Recommender, gpu
from samples import Samples

LONGEST_CHOICE = 100  # characters of a candidate in a list to choose from


def told(function: Callable) -> Callable:
    """`function`, whose complaints about its input reach the visitor."""

    def complaint(error: Exception) -> gr.Error:
        # gradio shows messages as HTML.
        return gr.Error(html.escape(str(error), quote=False), print_exception=False)

    @wraps(function)
    def answer(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (TypeError, ValueError) as error:
            raise complaint(error) from None

    @wraps(function)
    def stream(*args: Any, **kwargs: Any) -> Iterator:
        try:
            yield from function(*args, **kwargs)
        except (TypeError, ValueError) as error:
            raise complaint(error) from None

    return stream if inspect.isgeneratorfunction(function) else answer


class Events:
    """The handlers of the page, over plain values.

    Attributes:
        published: What is the API as well, by name.
    """

    def __init__(self, recommender: Recommender, samples: Samples) -> None:
        self.summarize, self.rank, self.explain, self.compare_speed = (
            gpu(told(ask))
            for ask in (recommender.summarize, recommender.rank, recommender.explain, recommender.compare_speed)
        )
        self.draw = told(samples.draw_candidates)
        self.samples = samples

    def on_user(self, name: str) -> list:
        """History, candidates, summary, what was chosen, and four empty answers."""
        if not name:
            return [gr.skip(), gr.skip(), gr.skip(), "", *[gr.skip()] * 4]
        user = self.samples.users[name]
        history, candidates = (reading.written(user[name], name) for name in ("history", "candidates"))
        return [history, candidates, "", user["chosen"], "", "", "", ""]

    def on_summarize(self, history: str, method: str) -> Iterator[tuple]:
        """Blocks, the summary as soon as it is written, and what was written from which history."""
        for made in self.summarize(history):
            text = gr.skip() if made[method] is None else made[method]
            yield showing.blocks(made), text, {**made, "history": history}

    def on_method(self, method: str, history: str, written: dict) -> Any:
        """The summary of the other method, if it was written from this history."""
        return written[method] if written.get("history") == history and written[method] else gr.skip()

    def on_draw(self, history: str, seed: int) -> tuple[str, int]:
        """Candidates, and the next seed."""
        return reading.written(self.draw(history, seed=seed), "candidates"), seed + 1

    def on_take(self, best: list[str]) -> Any:
        """The best recommendations as candidates, if there are any yet."""
        return reading.written(reading.fitting(best, "candidates"), "candidates") if best else gr.skip()

    def on_rank(self, history: str, candidates: str, summary: str, method: str, chosen: str) -> tuple:
        """The ranking, the summary it read, and the candidates to explain."""
        found = self.rank(history, candidates, summary, method)
        places = [(f"{one['rank']}. {one['text']}"[:LONGEST_CHOICE], one["index"]) for one in found["candidates"]]
        return showing.ranking(found, chosen), found["summary"], gr.Dropdown(places, value=places[0][1])

    def on_explain(self, history: str, candidates: str, summary: str, candidate: int, method: str) -> str:
        return showing.reasons(self.explain(history, candidates, summary, candidate, method))

    def on_compare(self, history: str, candidates: str, summary: str, method: str) -> str:
        return showing.speed(self.compare_speed(history, candidates, summary, method))
