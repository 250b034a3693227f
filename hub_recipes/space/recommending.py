"""Recommend from the catalogue that the recommender's repo carries: both stages, and each alone. Knows nothing of pages."""

import time
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from typing import Any

import reading
from asking import Recommender

PASSED_ON, MOST_PASSED_ON = 50, 500  # items that the first stage passes on to the language model
SHOWN_FIELDS, SHOWN_VALUES = 20, 100  # that are offered to choose from
SYSTEMS = {"both": "score", "language_model": "log_odds", "first_stage": "stage_one"}  # and what each sorts by


class CatalogueRecommender(Recommender):
    """A recommender whose repo carries a catalogue.

    Attributes:
        items: How many there are.
        fields: Field -> its most frequent values; without ids, texts, and fields that are different for nearly all items.
    """

    def __init__(self, pipe: Any, texts: Iterable[str] = ()) -> None:
        super().__init__(pipe, chain(texts, pipe.catalogue.texts))
        self.items = len(pipe.catalogue.item_ids)
        self.fields = {name: values for name, values in _values(pipe.catalogue.fields).items() if values}

    def recommend(
        self,
        history: str,
        summary: str = "",
        method: str = "recurrent",
        stage_one: int = PASSED_ON,
        exclude: str = "",
        field: str = "",
        value: str = "",
        first_stage_only: bool = False,
    ) -> dict:
        """Recommend items of the catalogue that are not in the history.

        A small model of the user takes the best of the catalogue; the language model, which reads summary and recent items,
        ranks these; and both scores are added.

        Args:
            history: Items, oldest first: one a line, a JSON list, or a table with a header. Found by item_id or text.
            summary: Of the user's preferences, read by the language model alone; written from the history if left out.
            method: How it is written then: recurrent or hierarchical.
            stage_one: How many items the first stage passes on.
            exclude: Items to leave out: one a line, by id or text.
            field: Field that must have a value, such as genre; empty for all items.
            value: The value.
            first_stage_only: Leave out the language model.

        Returns:
            `items` that were passed on, best first: `item_id`, `text`, `score`, `log_odds`, `stage_one`, and `ranks`, the
            item's rank by `both`, the `language_model` and the `first_stage`; the `summary` that was read; how many items of
            the history are `not_in_catalogue`, and how many to leave out were not found there (`not_excluded`); what was
            `shortened` to fit the model's context; and the `seconds` it took.
        """
        stage_one = reading.whole(stage_one, "stage_one")
        if not 1 <= stage_one <= MOST_PASSED_ON:
            raise ValueError(f"stage_one: expected 1 to {MOST_PASSED_ON}, got {stage_one}.")
        if bool(value) != bool(field):
            missing, present = ("field", f"value {value!r}") if value else ("value", f"field {field!r}")
            raise ValueError(f"A filter needs a field and a value: choose the {missing} for the {present}.")
        given = reading.items(history, "history")
        known = self.pipe.preprocess({"history": given})["history"]
        places = (place for place, one in enumerate(given, 1) if not self.pipe.catalogue.lacks(one))
        self._check(zip(places, known, strict=True), "history")
        request: dict[str, Any] = {
            "history": given,
            "exclude": reading.items(exclude, "exclude"),
            "where": {field: value} if field else {},
            "summary": "" if first_stage_only else self._summary(known, summary, method),
        }
        started = time.perf_counter()
        answer = self._alone(self.pipe, request, stage_one=stage_one, rank=not first_stage_only)
        items = [
            {
                "item_id": one["item_id"],
                "text": " ".join(one["item"].split()),
                **{name: one[name] and round(one[name], 4) for name in SYSTEMS.values()},
                "ranks": {},
            }
            for one in answer["candidates"]
        ]
        for system, score in SYSTEMS.items():
            if system == "first_stage" or not first_stage_only:
                scores = [one[score] for one in answer["candidates"]]
                # Of equal scores, the order of the answer stays, which is that of `both`.
                order = sorted(range(len(items)), key=scores.__getitem__, reverse=True)
                for rank, place in enumerate(order, 1):
                    items[place]["ranks"][system] = rank
        return {
            "items": items,
            "summary": request["summary"],
            "not_in_catalogue": answer["not_in_catalogue"],
            "not_excluded": answer["not_excluded"],
            "shortened": answer.get("shortened", {}),
            "seconds": round(time.perf_counter() - started, 4),
        }


def _values(fields: dict[str, list]) -> dict[str, list[str]]:
    """Field -> its most frequent values, where one value in two at most is new."""
    found: dict[str, list[str]] = {}
    for name, column in fields.items():
        if name in ("item_id", "title", "text") or len(found) == SHOWN_FIELDS:
            continue
        parts = [part for one in column for part in (one if isinstance(one, list) else [one]) if part]
        if not all(isinstance(part, str) for part in parts):
            continue  # numbers, and objects
        counts = Counter(parts)
        if 2 * len(counts) <= counts.total():
            found[name] = [value for value, _ in counts.most_common(SHOWN_VALUES)]
    return found
