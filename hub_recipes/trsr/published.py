"""Use what was generated before: continue the summaries of a published dataset, and import generations into a store.

What comes from elsewhere is data: its form is checked, and its answers are judged here like any other.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset

from trsr import data
from trsr.core.answer import Answer
from trsr.core.history import Block, Item, blocks_by_count
from trsr.core.prompts import SummaryPrompts
from trsr.core.summarize import Steps, Trail, steps
from trsr.data import DataError
from trsr.embedded import dataset_path
from trsr.engines import ATTEMPTS, Engine, key_of
from trsr.judge import problem
from trsr.store import SCHEMA, Generation, Store

# What two kinds of summaries must agree in for one to continue the other. Who served the model is not among them.
_SAME = ("model", "revision", "sampling", "prompts", "block_size", "max_blocks")
_KEY = re.compile(r"[0-9a-f]{64}")


class Published:
    """Earlier summaries of a dataset, to be continued.

    Args:
        source: Folder or Hub id.
        texts: Item id to text, as it is now; a block with an item whose text has changed is asked for again.
        wanted: Provenance of the summaries to be made; the earlier ones must agree in what they depend on.

    Raises:
        DataError: If they do not agree, or a config is missing.
    """

    def __init__(
        self, source: str, texts: Mapping[str, str], methods: Sequence[str], wanted: Mapping[str, Any]
    ) -> None:
        provenance = data.provenance(source)
        self._made: dict[str, Any] = provenance.get("summaries", {})
        differ = [name for name in _SAME if self._made.get(name) != wanted.get(name)]
        engines = {self._made.get("engine"), wanted.get("engine")}
        if "extractive" in engines and len(engines) > 1:
            differ.append("engine")
        if differ:
            told = "; ".join(f"{name} was {self._made.get(name)!r}, is {wanted.get(name)!r}" for name in differ)
            raise DataError(
                f"The summaries of {source!r} cannot be continued: {told}. Ask in the same way, or leave out --since."
            )
        self._source = source
        self._size: int = self._made["block_size"]
        self._rows = {method: [data.read(source, method, split) for split in data.SPLITS] for method in methods}
        self._places = {
            method: {
                user: (part, place) for part, rows in enumerate(parts) for place, user in enumerate(rows["user_id"])
            }
            for method, parts in self._rows.items()
        }
        self._changed = _changed(source, texts)
        self._kept = self._unchanged = 0

    def continued(
        self, method: str, user_id: str, history: Sequence[str], blocks: Sequence[Block], max_blocks: int
    ) -> Steps:
        """The strategy for a user, from where the earlier summaries end.

        A recurrent summary that is continued remembers blocks that have left the newest `max_blocks`; one made from
        nothing does not. A user with `max_blocks` new blocks or more begins anew.

        Args:
            history, blocks: The whole history as ids, and all its blocks.
        """
        newest = blocks[-max_blocks:]
        place = self._places[method].get(user_id)
        if place is None:
            return steps(newest, method)
        row = self._rows[method][place[0]][place[1]]
        known, first = row["block_summaries"], -(-len(row["history"]) // self._size) - len(row["block_summaries"])
        same = self._same_blocks(row["history"], history)
        if same == len(blocks) == first + len(known):
            self._unchanged += 1
            return _finished(Trail(tuple(known), row["summary"]))
        if method == "hierarchical":
            start = len(blocks) - len(newest)
            known = known[start - first : same - first] if first <= start < same else []
            self._kept += len(known)
            return steps(newest, method, known)
        known = known[: max(0, same - first)]
        if not known or len(blocks) - same >= max_blocks:
            return steps(newest, method)
        self._kept += len(known)
        return _newest(steps(blocks[first:], method, known), max_blocks)

    def record(self) -> dict[str, Any]:
        """For the provenance: what was continued, and how much of it was kept."""
        told = {name: self._made[name] for name in ("engine", "calls", "fallen_back", "since") if name in self._made}
        return {
            "dataset": Path(self._source).name if Path(self._source).exists() else self._source,
            "users_unchanged": self._unchanged,
            "block_summaries_kept": self._kept,
            "summaries": told,
        }

    def _same_blocks(self, old: Sequence[str], new: Sequence[str]) -> int:
        """Number of first blocks that both histories have."""
        count = 0
        for start in range(0, len(old), self._size):
            block = old[start : start + self._size]
            if block != new[start : start + self._size] or not self._changed.isdisjoint(block):
                break
            count += 1
        return count


def _changed(source: str, texts: Mapping[str, str]) -> set[str]:
    """Items whose published text is not today's; none where texts were not published."""
    items = data.read_items(source)
    if "text" not in items.column_names:
        return set()
    pairs = zip(items["item_id"], items["text"], strict=True)
    return {item_id for item_id, text in pairs if item_id in texts and texts[item_id] != text}


def _finished(trail: Trail) -> Steps:
    return trail
    yield


def _newest(strategy: Steps, max_blocks: int) -> Steps:
    trail = yield from strategy
    return Trail(trail.block_summaries[-max_blocks:], trail.summary)


def import_cache(store: Store, source: str, engine: Engine, texts: Mapping[str, str]) -> int:
    """Put generations that were made elsewhere into a store.

    Args:
        source: A Parquet file or a folder of them with the columns of `store.SCHEMA` (`problem` is not read); a dataset,
            on the Hub or in a folder, with the config `generations`; or one with summaries, whose questions are put
            together again from its histories.
        engine: The one that will be asked for the rest.
        texts: Item id to text, for a dataset that does not share its texts.

    Returns:
        Number of attempts read.

    Raises:
        DataError: If `source` is none of these, or not in form.
    """
    path = Path(dataset_path(source))
    files = [path] if path.is_file() else sorted(path.glob("*.parquet")) if path.is_dir() else []
    if files:
        rows = Dataset.from_parquet([str(file) for file in files])
    else:
        known = data.configs(source)
        if "generations" not in known:
            return _import_summaries(store, source, texts)
        rows = load_dataset(dataset_path(source), "generations", split="train")
    missing = [name for name in SCHEMA.names if name not in rows.column_names and name != "problem"]
    if missing:
        raise DataError(f"The cache {source!r} lacks the columns {', '.join(missing)}. Export one with --export-cache.")
    prompts = SummaryPrompts()
    for part in rows.iter(1000):
        made: dict[str, list[Generation]] = {}
        for values in zip(*(part[name] for name in SCHEMA.names if name != "problem"), strict=True):
            generation = _checked(values, source, prompts)
            made.setdefault(values[-1], []).append(generation)
        for about, generations in made.items():
            identity = _identity(about, source)
            own = engine.elsewhere and identity == dict(engine.identity)
            store.put(generations, identity, "" if own else _label(source))
    return len(rows)


def _checked(values: tuple, source: str, prompts: SummaryPrompts) -> Generation:
    key, attempt, text, finish_reason, prompt_tokens, completion_tokens, _ = values
    numbers = (attempt, prompt_tokens, completion_tokens)
    if (
        not (isinstance(key, str) and _KEY.fullmatch(key))
        or not all(isinstance(one, str) for one in (text, finish_reason))
        or not all(isinstance(one, int) and one >= 0 for one in numbers)
        or attempt >= ATTEMPTS
    ):
        raise DataError(f"The cache {source!r} is not in form: {values!r:.200}. Export one with --export-cache.")
    why = problem(Answer(text, finish_reason), prompts)
    return Generation(key, attempt, text, why, finish_reason, prompt_tokens, completion_tokens)


def _identity(about: object, source: str) -> dict[str, Any]:
    try:
        identity = json.loads(about) if isinstance(about, str) else None
    except ValueError:
        identity = None
    if not isinstance(identity, dict):
        raise DataError(f"The cache {source!r} names an engine that is no JSON object: {about!r:.200}.")
    return identity


def _import_summaries(store: Store, source: str, texts: Mapping[str, str]) -> int:
    """Generations of a dataset with summaries and nothing more."""
    made = data.provenance(source).get("summaries", {})
    methods = [name for name in made.get("methods", ()) if name in data.configs(source)]
    if not methods or "prompts" not in made:
        raise DataError(f"{source!r} holds no generations and no summaries of a language model: it is no cache.")
    if made.get("fallen_back") or "since" in made:
        # Which summaries a model wrote after a whole question cannot be told from the columns.
        raise DataError(
            f"The summaries of {source!r} were continued, or not all written by its model: their questions cannot be put "
            "together again. Take its exported generations as the cache, or continue it with --since."
        )
    items = data.read_items(source)
    if "text" in items.column_names:
        texts = dict(zip(items["item_id"], items["text"], strict=True))
    identity = {name: made.get(name) for name in ("engine", "model", "revision", "sampling")}
    count = 0
    for method in methods:
        for split in data.SPLITS:
            for generations in _generations(data.read(source, method, split), method, made, texts, identity):
                store.put(generations, identity, _label(source))
                count += len(generations)
    return count


def _generations(
    rows: Dataset, method: str, made: Mapping[str, Any], texts: Mapping[str, str], identity: Mapping[str, Any]
) -> Iterator[list[Generation]]:
    """What was asked for each user, with what was answered."""
    prompts = SummaryPrompts(**made["prompts"])
    for row in rows:
        items = [Item.parse(texts[item_id]) for item_id in row["history"]]
        strategy = steps(blocks_by_count(items, made["block_size"], made["max_blocks"]), method)
        left = [*row["block_summaries"], *([row["summary"]] if method == "hierarchical" else [])]
        questions, generations = next(strategy), []
        while True:
            answers, left = left[: len(questions)], left[len(questions) :]
            for question, text in zip(questions, answers, strict=True):
                why = problem(Answer(text), prompts)
                generations.append(Generation(key_of(identity, prompts.text(question)), 0, text, why))
            try:
                questions = strategy.send(answers)
            except StopIteration:
                break
        yield generations


def _label(source: str) -> str:
    """A name for the records: of a folder, the last part alone."""
    return Path(source).name if Path(source).exists() else source
