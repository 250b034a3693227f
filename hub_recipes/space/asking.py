"""Ask the recommender: summaries as they are written, a ranking, what it rests on, and what sharing a prefix saves.

The published methods of `Recommender` are the API: plain values in and out. Knows nothing of pages.
"""

import importlib.util
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from copy import deepcopy
from threading import Lock
from typing import Any

import reading

TASK = "text-rich-recommendation"
METHODS = ("recurrent", "hierarchical")
ROUNDS = 3  # of each way that is timed; the fastest counts


def load(release: dict[str, Any]) -> Callable:
    """The published pipeline, on a GPU where there is one."""
    if importlib.util.find_spec("spaces"):
        import spaces  # noqa: F401  ZeroGPU: before torch is imported
    import torch
    from transformers import pipeline

    # Loaded on the CPU: on ZeroGPU a model may be moved to the GPU here, and run there only inside of `gpu`.
    named = {"model": release["model"], "revision": release.get("revision")}
    pipe = pipeline(TASK, **named, trust_remote_code=True, device="cpu")  # type: ignore[call-overload]
    if torch.cuda.is_available():
        pipe.device = torch.device("cuda")
        pipe.model.to(pipe.device)
    return pipe


def gpu(function: Callable) -> Callable:
    """Lend a GPU to `function` while it runs, on ZeroGPU; elsewhere the function as it is."""
    if importlib.util.find_spec("spaces"):
        import spaces

        return spaces.GPU(function)
    return function


class Recommender:
    """One pipeline, asked by one visitor at a time: it switches its adapter off and on.

    Args:
        pipe: The pipeline; text that is passed to it is text alone.
        texts: Of known items. They may be longer than what a visitor writes.
    """

    def __init__(self, pipe: Any, texts: Iterable[str] = ()) -> None:
        self.pipe = pipe
        self._lock = Lock()
        self._known = {item.text for item in _long_items(pipe, texts)}

    def summarize(self, history: str) -> Iterator[dict]:
        """Write the summaries of a history step by step, recurrently and hierarchically.

        Args:
            history: Items, oldest first: one a line, a JSON list, or a table with a header.

        Returns:
            After every step, `blocks` (each with its `items`, the `recurrent` summary up to it and the `hierarchical`
            summary of it alone), the finished summary of each method, and how many items were too old to be read.
            What is not written yet is null.
        """
        given = self._items(history, "history")
        if not given:
            raise ValueError("Write at least one item into the history, one a line.")
        blocks = self.pipe.blocks(given)
        shown: list[dict[str, Any]] = [
            {"items": [item.text for item in block], "recurrent": None, "hierarchical": None} for block in blocks
        ]
        made: dict[str, Any] = {"blocks": shown, "recurrent": None, "hierarchical": None}
        made["too_old"] = len(given) - sum(map(len, blocks))
        last = ""
        for block, one in zip(blocks, shown, strict=True):
            one["hierarchical"] = self._alone(self.pipe.update, "", block)
            if last:
                yield deepcopy(made)
            # Both methods begin with the summary of the first block.
            last = one["recurrent"] = self._alone(self.pipe.update, last, block) if last else one["hierarchical"]
            yield deepcopy(made)
        made["recurrent"] = last
        made["hierarchical"] = self._alone(self.pipe.merge, [one["hierarchical"] for one in shown])
        yield made

    def rank(self, history: str, candidates: str, summary: str = "", method: str = "recurrent") -> dict:
        """Rank candidates for a user by the probability that the model answers yes.

        Args:
            history: Items, oldest first: one a line, a JSON list, or a table with a header.
            candidates: Items, as in the history.
            summary: Of the user's preferences; written from the history if left out.
            method: How it is written then: recurrent or hierarchical.

        Returns:
            `candidates`, best first (`rank`, `index` in the order given, `text`, `p_yes`), the `summary` that was read,
            what was `shortened` to fit the model's context, and the `seconds` it took.
        """
        request = self._request(history, candidates, summary, method)
        started = time.perf_counter()
        answer = self._alone(self.pipe, request)
        return {
            "candidates": [
                {
                    "rank": one["rank"],
                    "index": one["index"],
                    "text": request["candidates"][one["index"]].text,
                    "p_yes": round(one["score"], 4),
                }
                for one in answer["candidates"]
            ],
            "summary": request["summary"],
            "shortened": answer.get("shortened", {}),
            "seconds": round(time.perf_counter() - started, 4),
        }

    def explain(
        self, history: str, candidates: str, summary: str = "", candidate: int = 0, method: str = "recurrent"
    ) -> dict:
        """Leave out the summary and each recent item in turn, and see what becomes of one candidate.

        Args:
            history: Items, oldest first: one a line, a JSON list, or a table with a header.
            candidates: Items, as in the history. All are ranked each time; they share the rest of the prompt.
            summary: Of the user's preferences; written from the history if left out.
            candidate: Which one is explained: its place among the candidates given, from 0.
            method: How a summary is written if it is left out: recurrent or hierarchical.

        Returns:
            The candidate's `text`, `p_yes` and `rank`; and `without`, a list: the `part` left out, its `text`, and the
            candidate's `p_yes`, `change` and `rank` then.
        """
        candidate = reading.whole(candidate, "candidate")
        request = self._request(history, candidates, summary, method)
        if not 0 <= candidate < len(request["candidates"]):
            raise ValueError(f"There is no candidate {candidate}: there are {len(request['candidates'])}, from 0.")
        whole = self._alone(self.pipe, request)
        dropped = whole.get("shortened", {}).get("recent_items_dropped", 0)
        # The items that the prompt shows and no older ones, which would else take the place of what is left out.
        most = self.pipe.encoder.prompt.recent_items
        recent = request["history"][-most:][dropped:] if most else []
        given = request["summary"]
        parts = [("summary", given)] if given else []
        asked = [{**request, "history": recent, "summary": ""}] if given else []
        for place, item in enumerate(recent):
            parts.append((f"recent item {place + 1} of {len(recent)}", item.text))
            asked.append({**request, "history": recent[:place] + recent[place + 1 :]})
        before = _of(whole, candidate)
        without = []
        for (part, text), answer in zip(parts, self._alone(self.pipe, asked), strict=True):
            now = _of(answer, candidate)
            change = round(now["score"] - before["score"], 4)
            found = {"part": part, "text": text, "p_yes": round(now["score"], 4), "change": change, "rank": now["rank"]}
            without.append(found)
        return {
            "text": request["candidates"][candidate].text,
            "p_yes": round(before["score"], 4),
            "rank": before["rank"],
            "without": without,
        }

    def compare_speed(self, history: str, candidates: str, summary: str = "", method: str = "recurrent") -> dict:
        """Time a ranking whose candidates share the user's prompt, and one that reads a whole prompt a candidate.

        Args:
            history: Items, oldest first: one a line, a JSON list, or a table with a header.
            candidates: Items, as in the history.
            summary: Of the user's preferences; written from the history, untimed, if left out.
            method: How it is written then: recurrent or hierarchical.

        Returns:
            For `shared` and `separate`: `seconds` (the fastest of a few) and `tokens` sent through the model; and the
            largest difference in probability between the two.
        """
        request = self._request(history, candidates, summary, method)
        apart = [{**request, "candidates": [one]} for one in request["candidates"]]
        shared, answer = self._timed(lambda: self.pipe(request))
        separate, answers = self._timed(lambda: [self.pipe(one) for one in apart])
        differences = [abs(_of(answer, place)["score"] - _of(one, 0)["score"]) for place, one in enumerate(answers)]
        return {"shared": shared, "separate": separate, "difference": max(differences)}

    def _timed(self, ask: Callable) -> tuple[dict, Any]:
        seconds = []
        with self._lock:
            before = self.pipe.scorer.forwarded_tokens
            for _ in range(ROUNDS):
                started = time.perf_counter()
                answer = ask()
                seconds.append(time.perf_counter() - started)
            tokens = (self.pipe.scorer.forwarded_tokens - before) // ROUNDS
        return {"seconds": round(min(seconds), 4), "tokens": tokens}, answer

    def _alone(self, ask: Callable, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return ask(*args, **kwargs)

    def _items(self, text: str, name: str) -> list:
        """Items as the prompt shows them."""
        given = reading.items(text, name)
        found = self.pipe.preprocess({"history": [], "candidates": [], name: given})[name]
        self._check(enumerate(found, 1), name)
        return found

    def shown(self, given: Iterable[reading.Given]) -> list[str]:
        """Texts of items as the prompt shows them, without those that have none."""
        texts = []
        for one in given:
            with suppress(ValueError, TypeError):
                texts += [item.text for item in self.pipe.preprocess({"history": [one], "candidates": []})["history"]]
        return texts

    def _check(self, found: Iterable[tuple[int, Any]], name: str) -> None:
        """Raise ValueError if one of these items, each with its place, is too long and none that is known."""
        for place, item in found:
            if len(item.text) > reading.LONGEST and item.text not in self._known:
                raise ValueError(
                    f"{name}, item {place}: {len(item.text)} characters, at most {reading.LONGEST} are taken here."
                )

    def _request(self, history: str, candidates: str, summary: str, method: str) -> dict[str, Any]:
        """A request for the pipeline, with a summary, which is written where none is given."""
        request: dict[str, Any] = {
            "history": self._items(history, "history"),
            "candidates": self._items(candidates, "candidates"),
        }
        if not request["candidates"]:
            raise ValueError("Write at least one candidate, one a line.")
        return {**request, "summary": self._summary(request["history"], summary, method)}

    def _summary(self, history: list, summary: str, method: str) -> str:
        """The summary as it was typed; written from the history, if there is none."""
        if method not in METHODS:
            raise ValueError(f"Unknown method {method!r}, expected {' or '.join(METHODS)}.")
        given = reading.summary(summary)
        if not given and history:
            asked = {"history": history, "candidates": []}
            given = self._alone(self.pipe, asked, method=method, return_summary=True)["summary"] or ""
        return given


def _long_items(pipe: Any, texts: Iterable[str]) -> Iterator[Any]:
    """The items past the limit, as the prompt shows them."""
    for text in texts:
        if len(text) > reading.LONGEST:
            # One that has no visible character is no item.
            with suppress(ValueError):
                yield pipe.encoder.prompt.item(text)


def _of(answer: dict, index: int) -> dict:
    """What an answer says of the candidate at a place of the request."""
    return next(one for one in answer["candidates"] if one["index"] == index)
