"""Import generations of other runs into a store, and export those of a run, as Parquet.

Imported generations are untrusted: their form is checked here, and their answers are judged like any other by the run that
puts their questions.
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from datasets.exceptions import DatasetGenerationError

from trsr.core.errors import InputError
from trsr.core.history import Block, Item, blocks_by_count
from trsr.core.summarize import steps
from trsr.core.summary_prompts import SummaryPrompts
from trsr.dataset import contract
from trsr.errors import DataError
from trsr.summaries.continuation import label, split_revision
from trsr.summaries.engines.base import ATTEMPTS, Engine, key_of
from trsr.summaries.store import SCHEMA, UNCHECKED, Generation, Store

_KEY = re.compile(r"[0-9a-f]{64}")


def import_cache(store: Store, source: str, engine: Engine, texts: Mapping[str, str]) -> int:
    """Import generations of another run into a store.

    Args:
        source: A Parquet file, or a folder of them, with the columns of `store.SCHEMA` (`problem` is not read); a dataset, on
            the Hub or in a folder, with the config `generations`; or a dataset with summaries, whose questions are rebuilt
            from its histories. `ORG/NAME@REVISION` names a revision.
        engine: The engine of this run.
        texts: Item id to text, for a dataset that does not share its texts.

    Returns:
        Number of attempts read.

    Raises:
        DataError: If `source` is none of these, or not in the right form.
    """
    path = Path(source)
    files = [path] if path.is_file() else sorted(path.glob("*.parquet")) if path.is_dir() else []
    if files:
        try:
            rows = Dataset.from_parquet([str(file) for file in files])
        except (ValueError, DatasetGenerationError) as error:
            raise DataError(f"The cache {source!r} cannot be read as Parquet: {error.__cause__ or error}") from None
    else:
        name, revision = split_revision(source)
        if "generations" not in contract.configs(name, revision):
            return _import_summaries(store, source, texts)
        rows = contract.load_split(name, "generations", "train", revision)
    missing = [name for name in SCHEMA.names if name not in rows.column_names and name != "problem"]
    if missing:
        raise DataError(f"The cache {source!r} lacks the columns {', '.join(missing)}. Export one with --export-cache.")
    for part in rows.iter(1000):
        by_engine: dict[str, list[Generation]] = {}
        for values in zip(*(part[name] for name in SCHEMA.names if name != "problem"), strict=True):
            generation = _checked(values, source)
            by_engine.setdefault(values[-1], []).append(generation)
        for engine_record, generations in by_engine.items():
            identity = _identity(engine_record, source)
            own = bool(engine.offline_instructions) and identity == dict(engine.identity)
            store.put(generations, identity, "" if own else label(source))
    return len(rows)


def _checked(values: tuple, source: str) -> Generation:
    key, attempt, text, finish_reason, prompt_tokens, completion_tokens, _ = values
    numbers = (attempt, prompt_tokens, completion_tokens)
    if (
        not (isinstance(key, str) and _KEY.fullmatch(key))
        or not all(isinstance(value, str) for value in (text, finish_reason))
        or not all(isinstance(value, int) and value >= 0 for value in numbers)
        or attempt >= ATTEMPTS
    ):
        raise DataError(f"The cache {source!r} is not in form: {values!r:.200}. Export one with --export-cache.")
    return Generation(key, attempt, text, UNCHECKED, finish_reason, prompt_tokens, completion_tokens)


def _identity(engine_record: object, source: str) -> dict[str, Any]:
    try:
        identity = json.loads(engine_record) if isinstance(engine_record, str) else None
    except ValueError:
        identity = None
    if not isinstance(identity, dict):
        raise DataError(f"The cache {source!r} names an engine that is no JSON object: {engine_record!r:.200}.")
    return identity


def _import_summaries(store: Store, source: str, texts: Mapping[str, str]) -> int:
    """Import from a dataset with summaries, but without generations."""
    name, revision = split_revision(source)
    provenance = contract.provenance(name, revision).summaries
    methods = [method for method in provenance.methods if method in contract.configs(name, revision)]
    if not methods or not provenance.prompts:
        raise DataError(f"{source!r} holds no generations and no summaries of a language model: it is no cache.")
    if provenance.fallen_back or provenance.continues_others:
        # The columns do not say which summaries the model wrote, and in answer to which question.
        raise DataError(
            f"The summaries of {source!r} were continued, or not all written by its model: their questions cannot be put "
            "together again. Take its exported generations as the cache, or continue it with --since."
        )
    items = contract.read_items(name, revision)
    if "text" in items.column_names:
        texts = contract.texts_of(items, source)
    identity = {part: provenance.values.get(part) for part in ("engine", "model", "revision", "sampling")}
    if provenance.adapter:
        identity["adapter"] = provenance.adapter
    try:
        prompts = SummaryPrompts.from_dict(provenance.prompts)
    except InputError as error:
        raise DataError(
            f"The prompts in the provenance are not ours, so its questions are not known: {error}"
        ) from None
    count = 0
    left_out = set()
    for method in methods:
        for split in contract.SPLITS:
            for row in contract.read(name, method, split, revision):
                if not texts.keys() >= {*row["history"]}:
                    left_out.add(row["user_id"])
                    continue
                history = [Item.parse(texts[item_id]) for item_id in row["history"]]
                blocks = blocks_by_count(history, provenance.block_size, provenance.max_blocks)
                if len(row["block_summaries"]) != len(blocks):
                    raise DataError(
                        f"{source!r}, {method}, user {row['user_id']!r}: {len(row['block_summaries'])} block summaries of "
                        f"{len(blocks)} blocks. It is no cache; take another, or make it again."
                    )
                generations = _generations(row, blocks, method, prompts, identity)
                store.put(generations, identity, label(source))
                count += len(generations)
    if left_out:
        print(
            f"The cache {source!r}: {len(left_out):,} users have items whose texts are neither in it nor in this dataset. "
            "Their summaries are not used.",
            file=sys.stderr,
        )
    return count


def _generations(
    row: Mapping[str, Any], blocks: Sequence[Block], method: str, prompts: SummaryPrompts, identity: Mapping[str, Any]
) -> list[Generation]:
    """The generations of a user: the rebuilt questions with the summaries as answers."""
    strategy = steps(blocks, method)
    remaining = [*row["block_summaries"], *([row["summary"]] if method == "hierarchical" else [])]
    questions, generations = next(strategy), []
    while True:
        answers, remaining = remaining[: len(questions)], remaining[len(questions) :]
        for question, text in zip(questions, answers, strict=True):
            answer = f"{prompts.form} {text}".strip()
            generations.append(Generation(key_of(identity, prompts.conversation(question)), 0, answer, UNCHECKED))
        try:
            questions = strategy.send(answers)
        except StopIteration:
            return generations


def export_cache(store: Store, folder: Path, provenance: Mapping[str, object], scratch: Path) -> None:
    """Write the generations that a run used as a dataset with the config `generations`."""
    path = scratch / "generations.parquet"
    if not store.export(path):
        raise DataError("No generation was used, so there is none to export.")
    rows = Dataset.from_parquet(str(path), cache_dir=str(scratch))
    body = (
        f"# {folder.name}\n\nWhat a language model was asked and answered when it wrote summaries, keyed by a checksum of "
        "the question and the model; the questions themselves are not here. `trsr summarize --cache` takes it."
    )
    contract.write(folder, {"generations": {"train": rows}}, provenance=provenance, body=body)
