"""The catalogue that a recommender carries, and the first stage over it: the items nearest to a user's vector.

Knows nothing of language models, nor of how the retriever was trained.
"""

import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from numbers import Real
from typing import Any

import torch
from safetensors.torch import load_file

from .errors import InputError, LoadError
from .history import Item, clean, sentence
from .modeling import CATALOGUE, optional_file, read_json
from .scoring import rank
from .user_model import UserModel, UserModels, user_model_of, user_vectors

WEIGHTS, ITEMS, RECORD = FILES = ("retriever.safetensors", "items.parquet", "catalogue.json")
STAGE_ONE = 100  # items that the first stage passes on


@dataclass(frozen=True, slots=True)
class Query:
    """What one user is recommended from, by rows of the catalogue.

    Attributes:
        history: What the user met and the catalogue holds, oldest first.
        excluded: What must not be recommended: the history, and what was asked to be left out.
        unknown: Items of the history that the catalogue does not hold.
        not_excluded: Items to be left out that the catalogue does not hold.
        allowed: (items,) bool: the items to choose from; None = all.
        count: Items to retrieve.
    """

    history: Sequence[int]
    excluded: Sequence[int] = ()
    unknown: int = 0
    allowed: torch.Tensor | None = None
    count: int = STAGE_ONE
    not_excluded: int = 0


class Catalogue:
    """Items with their vectors, and the model of a user over them.

    Args:
        fields: Column -> values of all items; `item_id` and `text` are among them.
        vectors: (items, width) fp32, in the same order.
        record: Content of RECORD; `weight` is that of the first stage when both scores are added.

    Raises:
        LoadError: If there is not a vector for each item, or one is not finite.
    """

    def __init__(
        self,
        fields: Mapping[str, list],
        vectors: torch.Tensor,
        user_model: UserModel | UserModels,
        record: Mapping[str, Any],
    ) -> None:
        self.fields, self.vectors, self.user_model, self.record = fields, vectors, user_model, record
        self.item_ids, self.texts = fields["item_id"], fields["text"]
        if len(self.item_ids) != len(vectors):
            raise LoadError(
                f"A catalogue has {len(self.item_ids)} items, but {len(vectors)} vectors: publish the repo again."
            )
        if not vectors.isfinite().all():
            raise LoadError(
                "Vectors of the catalogue are not finite: train its retriever again, and publish the repo again."
            )
        self.rows = {item_id: row for row, item_id in enumerate(self.item_ids)}
        self._by_text: dict[str, list[int]] = {}
        for row, text in enumerate(self.texts):
            self._by_text.setdefault(clean(text), []).append(row)

    @property
    def stage_one(self) -> int:
        """Items that the first stage passes on by default: as many as its weight was fitted with."""
        return fitted_stage_one(self.record)

    @classmethod
    def load(cls, repo: str, repo_options: Mapping[str, Any]) -> "Catalogue":
        """Read the catalogue of a pipeline repo.

        Args:
            repo: Folder or Hub id.
            repo_options: As `modeling.optional_file` takes them.

        Raises:
            LoadError: If a file is missing or out of reach, or pyarrow is not installed.
        """
        files = catalogue_files(repo, repo_options)
        # In a `try` also because transformers asks all users of a repo for what its code imports anywhere else.
        try:
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise LoadError("The items of a catalogue are a Parquet file: pip install pyarrow") from error
        record = read_json(files[RECORD])
        weights = load_file(files[WEIGHTS])
        vectors = weights.pop("items")
        user_model = user_model_of(record["shape"]).to(vectors.dtype)
        user_model.load_state_dict(weights)
        fields = parquet.read_table(files[ITEMS]).to_pydict()
        return cls(fields, vectors, user_model.eval(), record)

    def text_of(self, entry: object) -> object:
        """The text of an item that is named by its `item_id` alone; any other entry as it is.

        Raises:
            InputError: If the catalogue holds no item of that id.
        """
        if not is_id_alone(entry):
            return entry
        row = self._row(entry)
        if row is None:
            raise InputError(
                f"The catalogue holds no item {entry['item_id']!r}: give its text beside the id."  # type: ignore[index]
            )
        return self.texts[row]

    def lacks(self, entry: object) -> bool:
        """Whether an item is named by its `item_id` alone, and the catalogue holds none of that id."""
        return is_id_alone(entry) and self._row(entry) is None

    def query(
        self,
        history: Sequence[tuple[object, Item]],
        exclude: Sequence[tuple[object, Item]] = (),
        where: Mapping[str, Any] | None = None,
        count: int | None = None,
    ) -> Query:
        """What to retrieve for a user.

        An entry is the item of its `item_id`, else the first with its text; all items of that text are excluded then.

        Args:
            history, exclude: Entries as they were given, and as prompts show them.
            where: Field -> value that an item must have, or hold in a list.
            count: Items to retrieve; default `stage_one`.

        Raises:
            InputError: If `where` names a field that there is not, or a value of another kind or that stands there in another
                case alone.
        """
        met = [self._rows_of(*entry) for entry in history]
        left_out = [self._rows_of(*entry) for entry in exclude]
        history_rows = [rows[0] for rows in met if rows]
        excluded = [row for rows in (*met, *left_out) for row in rows]
        matching = [self._matching(name, value) for name, value in (where or {}).items()]
        allowed = torch.stack(matching).all(0) if matching else None
        return Query(
            history_rows,
            excluded,
            unknown=len(met) - len(history_rows),
            allowed=allowed,
            count=count or self.stage_one,
            not_excluded=sum(not rows for rows in left_out),
        )

    def entry(self, value: object) -> object:
        """What is to be left out: an id as an entry with that id; any other item as it is."""
        return {"item_id": value} if isinstance(value, str) and value in self.rows else value

    def _row(self, entry: object) -> int | None:
        if not isinstance(entry, Mapping) or entry.get("item_id") is None:
            return None
        return self.rows.get(str(entry["item_id"]))

    def _rows_of(self, entry: object, item: Item) -> list[int]:
        row = self._row(entry)
        return self._by_text.get(item.text, []) if row is None else [row]

    @torch.no_grad()
    def retrieve(self, queries: Sequence[Query]) -> list[list[tuple[int, float]]]:
        """For each user, rows and scores of the nearest items, best first; of equal ones, the earlier rows.

        Raises:
            InputError: If a user's vector is not finite.
        """
        users = user_vectors(self.user_model, self.vectors, [query.history for query in queries])
        scores = users @ self.vectors.T  # (users, items)
        results = []
        for query, row in zip(queries, scores, strict=True):
            row[list(query.excluded)] = -torch.inf
            if query.allowed is not None:
                row.masked_fill_(~query.allowed, -torch.inf)
            bound = row.topk(min(query.count, len(row))).values.min()
            chosen = torch.nonzero((row >= bound) & row.isfinite())[:, 0]
            values, order = row[chosen].sort(descending=True, stable=True)
            results.append(list(zip(chosen[order].tolist(), values.tolist(), strict=True))[: query.count])
        return results

    def ranked(self, retrieved: Sequence[tuple[int, float]], log_odds: Sequence[float] | None) -> list[dict[str, Any]]:
        """Items with their scores, best first; of equal ones, those that the first stage put first.

        Args:
            retrieved: As `retrieve` gives them.
            log_odds: Of a language model, for each; None ranks by the first stage alone.
        """
        stage_one = [score for _, score in retrieved]
        scores = stage_one if log_odds is None else add_scores(log_odds, stage_one, self.record["weight"])
        return [
            {
                "item_id": self.item_ids[retrieved[index][0]],
                "item": self.texts[retrieved[index][0]],
                "score": scores[index],
                "log_odds": None if log_odds is None else log_odds[index],
                "stage_one": stage_one[index],
                "rank": position,
            }
            for position, index in enumerate(rank(scores), 1)
        ]

    def _matching(self, name: str, value: object) -> torch.Tensor:
        """(items,) bool: which items have a value in a field, or hold it in a list there."""
        if name not in self.fields:
            raise InputError(f"Items have no field {name!r} to choose by; they have {', '.join(self.fields)}.")
        column = self.fields[name]
        example = next((element for element in _held(column) if _kind(element) is not None), None)
        if example is None:
            example = next((element for element in _held(column) if element is not None), value)
        if _kind(value) is None or _kind(example) != _kind(value):
            raise InputError(f"The field {name!r} holds values such as {example!r}, so none can be {value!r}.")
        matching = torch.tensor([value in cell if isinstance(cell, list) else value == cell for cell in column])
        if isinstance(value, str) and not matching.any():
            near = next((element for element in _held(column) if element and _folded(element) == _folded(value)), None)
            if near is not None:
                raise InputError(f"No item has {value!r} in the field {name!r}, but items have {near!r} there.")
        return matching


def _kind(value: object) -> object:
    """What a value of a field is, to be compared with other values of that kind alone; None for what is no single value."""
    if isinstance(value, str):
        return "text"
    if type(value).__name__ in ("bool", "bool_"):  # numpy's too, before 2.0 and since
        return "truth value"
    if isinstance(value, Real):
        return "number" if math.isfinite(value) else None
    return type(value) if isinstance(value, (Decimal, date)) else None


def _folded(text: str) -> str:
    """A text without what people write in several ways: its case, spaces around it, letters composed or not."""
    return unicodedata.normalize("NFKC", text).strip().casefold()


def _held(column: Sequence[Any]) -> Iterator[Any]:
    """The values of a field, those in lists one by one."""
    for cell in column:
        yield from cell if isinstance(cell, list) else [cell]


def is_id_alone(entry: object) -> bool:
    """Whether an item of a request has an `item_id` and no text, so that only a catalogue knows what it is."""
    return isinstance(entry, Mapping) and entry.get("item_id") is not None and not sentence(entry)


def is_fitted(record: Mapping[str, Any]) -> bool:
    """Whether the weight in the record of a catalogue was fitted, and is not the default."""
    fitted = record.get("fitted") or {}
    return bool(fitted) and "not_fitted" not in fitted


def fitted_stage_one(record: Mapping[str, Any]) -> int:
    """Items that the first stage passed on when the weight in a record was fitted; STAGE_ONE where it was not."""
    return record["fitted"].get("stage_one", STAGE_ONE) if is_fitted(record) else STAGE_ONE


def check_stage_one(stage_one: int | None, top_k: int | None) -> None:
    """Raise InputError if the first stage passes on fewer items than are asked for."""
    if stage_one and top_k and stage_one < top_k:
        raise InputError(
            f"top_k is {top_k}, and stage_one {stage_one}: the first stage must pass on {top_k} items or more. Raise stage_one, "
            "or lower top_k."
        )


def catalogue_files(repo: str, repo_options: Mapping[str, Any]) -> dict[str, str]:
    """The local paths of a catalogue's files, by name. Raises LoadError if one is missing or out of reach."""
    files = {name: optional_file(repo, f"{CATALOGUE}/{name}", repo_options) for name in FILES}
    if missing := [name for name, path in files.items() if path is None]:
        raise LoadError(f"The catalogue of {repo} lacks {', '.join(missing)}: publish the repo again.")
    return {name: str(path) for name, path in files.items()}


def add_scores(log_odds: Sequence[float], stage_one: Sequence[float], weight: float) -> list[float]:
    """Scores of both stages for one user, added: z-scores over these items, `weight` times that of the first stage."""
    second, first = (_z_scores(torch.tensor(scores, dtype=torch.float64)) for scores in (log_odds, stage_one))
    return (second + weight * first).tolist()


def _z_scores(scores: torch.Tensor) -> torch.Tensor:
    if not len(scores) or scores.min() == scores.max():  # rounding would give some deviation
        return torch.zeros_like(scores)
    return (scores - scores.mean()) / scores.std(correction=0)
