"""Summarise a whole dataset with a strategy, an engine and a store. Rows are read and written in parts."""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from tqdm.auto import tqdm

from trsr.assets.paths import dataset_path
from trsr.core.history import Block, Item, blocks_by_count, count_blocks
from trsr.core.summarize import METHODS, Steps, calls, steps
from trsr.dataset import contract
from trsr.errors import DataError, UsageError
from trsr.records.checksums import dataset_checksum
from trsr.records.files import one_writer
from trsr.records.versions import versions
from trsr.summaries.caches import export_cache, import_cache
from trsr.summaries.continuation import PreviousSummaries
from trsr.summaries.engines.base import ATTEMPTS, RETRY_TEMPERATURE, Engine
from trsr.summaries.scheduler import Scheduler
from trsr.summaries.store import Store, default_store
from trsr.summaries.writer import PART, SummaryWriter

MADE_FROM = ("items", "histories")  # the configs that summaries depend on


class OpenQuestions(Exception):
    """Nothing was written, because another program answers the engine's questions; the message says what to do."""


class ParsedItems:
    """Items by id; each text is parsed once, when it is first used."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts
        self._items: dict[str, Item] = {}

    def blocks(self, history: Sequence[str], size: int) -> list[Block]:
        """All blocks of a history of ids."""
        for item_id in history:
            if item_id not in self._items:
                self._items[item_id] = Item.parse(self._texts[item_id])
        return blocks_by_count([self._items[item_id] for item_id in history], size, max_blocks=len(history) or 1)


def users(splits: Mapping[str, Dataset]) -> Iterator[tuple[str, list[str]]]:
    """User id and history of every row, in the order of the splits; only a part is in memory."""
    for rows in splits.values():
        for table in rows.select_columns(["user_id", "history"]).with_format("arrow").iter(PART):
            yield from zip(table["user_id"].to_pylist(), table["history"].to_pylist(), strict=True)


def strategies(
    splits: Mapping[str, Dataset],
    texts: Mapping[str, str],
    methods: Sequence[str],
    block_size: int,
    max_blocks: int,
    since: PreviousSummaries | None = None,
) -> Iterator[Steps]:
    """The strategies of all users, in the order of the splits: for each user, one for each method."""
    items = ParsedItems(texts)
    for user_id, history in users(splits):
        if not history:
            raise DataError(f"User {user_id!r} has no history: there is nothing to summarise.")
        blocks = items.blocks(history, block_size)
        for method in methods:
            if since is None:
                yield steps(blocks[-max_blocks:], method)
            else:
                yield since.continued(method, user_id, history, blocks, max_blocks)


def add_summaries(
    splits: Mapping[str, Dataset],
    texts: Mapping[str, str],
    scheduler: Scheduler,
    folder: Path,
    *,
    methods: Sequence[str] = METHODS,
    block_size: int = 5,
    max_blocks: int = 5,
    since: PreviousSummaries | None = None,
) -> dict[str, DatasetDict]:
    """Rows of `histories` with the columns `block_summaries` and `summary`, for each method.

    Args:
        splits: Rows of `histories`, of a whole dataset or a part of it.
        folder: For the Arrow files that hold the returned tables.

    Raises:
        OpenQuestions: If the engine leaves questions for a later run.
    """
    writer = SummaryWriter(splits, methods, folder)
    scheduler.run(strategies(splits, texts, methods, block_size, max_blocks, since), writer.add)
    if scheduler.left_open:
        raise OpenQuestions(
            f"{scheduler.left_open} summaries wait for answers that come from elsewhere, so nothing was written. "
            f"{scheduler.engine.offline_instructions}"
        )
    return writer.tables()


@one_writer
def summarize_dataset(
    source: str,
    out: Path,
    engine: Engine,
    *,
    methods: tuple[str, ...] = METHODS,
    block_size: int = 5,
    max_blocks: int = 5,
    revision: str | None = None,
    store: Path | None = None,
    since: str | None = None,
    caches: Sequence[str] = (),
    export: Path | None = None,
    limit: int = 0,
    keep_going: bool = False,
) -> dict[str, Any]:
    """Write the dataset `source` to `out` with one config of summaries for each method.

    Args:
        source: Folder or Hub id with the configs `items` and `histories`.
        out: Dataset folder to write; it is written when all summaries are done.
        store: File for generations, from which a killed run continues; default beside `out`, for engines whose answers cost
            something.
        since: Dataset of earlier summaries to continue: unchanged blocks are not summarised again.
        caches: Sources of more generations, see `caches.import_cache`.
        export: Folder to write a dataset of the used generations to.
        limit: First users of each split to summarise; 0 = all. The dataset then holds those users alone, and its provenance
            says so.
        keep_going: Do not end the run if most answers are rejected.

    Returns:
        The provenance that was written.

    Raises:
        EngineError: If the engine cannot go on, or most of its answers are rejected. All answers so far are stored.
        UsageError: If a number is out of its range; if the store cannot be used, or has answers of another server, see
            `Store.bind_server`; or if a file that is written lies in a folder that is replaced, see `check_files`.
    """
    before = contract.provenance(source, revision)
    check_numbers(block_size, max_blocks, limit)
    store = store or (default_store(out) if engine.cacheable else None)
    check_files(source, out, store=store, questions=engine.questions, export=export)
    block_options = {"block_size": block_size, "max_blocks": max_blocks}
    settings = {**identity(engine), **block_options}
    made_from = check_out(source, out, methods, revision, since, limit, settings)
    if export:
        contract.check_replaceable(export, ["generations"], before.with_summaries({"methods": list(methods)}))
    # A source that holds some users of another one alone stays a part of it.
    partial = min(filter(None, (limit, before.summaries.limit)), default=0)
    texts, splits = read(source, revision, limit)
    if not engine.cacheable and (caches or export):
        raise DataError(f"The engine {engine.identity['engine']!r} keeps no generations: there is no cache to use.")
    earlier = PreviousSummaries(since, texts, methods, settings) if since else None
    lengths = [count_blocks(len(history), block_size, max_blocks) for _, history in users(splits)]
    calls_of = {method: calls(lengths, method) for method in methods}
    with tempfile.TemporaryDirectory() as folder, closing(Store(store)) if store else nullcontext() as opened_store:
        if opened_store is not None:
            prepare(opened_store, engine, caches, texts)
        with tqdm(total=sum(calls_of.values()), desc="summaries", unit="summary", mininterval=1) as bar:
            scheduler = Scheduler(engine, opened_store, bar.update, turns=methods, keep_going=keep_going)
            tables_with_summaries = add_summaries(
                splits, texts, scheduler, Path(folder), methods=methods, since=earlier, **block_options
            )
        items = DatasetDict(train=contract.read(source, "items", "train", revision))
        provenance = {
            **before.values,
            "summaries": {
                **settings,
                "methods": list(methods),
                "calls": calls_of,
                **({"since": earlier.record()} if earlier else {}),
                "source": made_from,
                **({"limit": partial} if partial else {}),
                **(
                    opened_store.counts()
                    | {
                        "reasoning_removed": scheduler.reasoning_removed,
                        "fallen_back": dict(sorted(scheduler.fallen_back.items())),
                        "fallen_back_by_method": {method: scheduler.fallen_back_in[method] for method in methods},
                    }
                    if opened_store is not None and engine.cacheable
                    else {}
                ),
                "versions": versions(),
            },
        }
        tables = {"items": items, "histories": DatasetDict(splits), **tables_with_summaries}
        body = f"# {out.name or out.resolve().name}\n\nHistories with summaries: {', '.join(methods)}."
        contract.write(out, tables, provenance=provenance, body=body)
        if opened_store is not None and export:
            export_cache(opened_store, export, provenance, Path(folder))
    return provenance


def prepare(store: Store, engine: Engine, caches: Sequence[str], texts: Mapping[str, str]) -> None:
    """Make a store ready for a run: bind it to the engine's server, and import caches into it.

    Raises:
        UsageError: If it has answers of another server.
        DataError: If a cache cannot be imported.
    """
    if engine.bound_server:
        store.bind_server(engine.identity, engine.bound_server, engine.same_model)
    for cache in caches:
        import_cache(store, cache, engine, texts)


def check_numbers(block_size: int, max_blocks: int, limit: int) -> None:
    """Raise UsageError for a number of a run that is out of its range."""
    if block_size < 1 or max_blocks < 1:
        raise UsageError(f"--block-size and --max-blocks must be at least 1, got {block_size} and {max_blocks}.")
    if limit < 0:
        raise UsageError(f"--limit must not be negative, got {limit}.")


def check_files(source: str, out: Path, *, store: Path | None, questions: Path | None, export: Path | None) -> None:
    """Make sure that no file of a run lies in a folder that it replaces, and neither of the folders in the other or in `source`.

    Args:
        out, export: The folders: of the dataset, and of its generations.

    Raises:
        UsageError: If one does.
    """
    source_folder = Path(dataset_path(source)).resolve()
    if source_folder.is_dir() and source_folder in out.resolve().parents:
        raise UsageError(f"--out {out} lies in the dataset {source}. Choose a folder outside, or {source} itself.")
    folders = {"--out": out, "--export-cache": export}
    for name, path in {"--store": store, "--questions": questions, **folders}.items():
        for folder_name, folder in folders.items():
            if path and folder and name != folder_name and path.resolve().is_relative_to(folder.resolve()):
                raise UsageError(
                    f"{name} {path} lies in the folder of {folder_name}, which is replaced as a whole. Choose a place outside {folder}."
                )


def check_out(
    source: str,
    out: Path,
    methods: Sequence[str],
    revision: str | None = None,
    since: str | None = None,
    limit: int = 0,
    settings: Mapping[str, Any] = {},
) -> str:
    """Make sure that `out` is free, or holds summaries of the same histories and items that were made in the same way, before the
    engine is asked.

    If `out` is also the source, or the dataset that is continued, both may differ. Summaries of a part of the users may
    replace only those of another part; those of a part may be replaced whatever made them.

    Args:
        settings: Of the new summaries, as `SummaryProvenance.differences` takes them; empty = not compared.

    Returns:
        The checksum of the summarised histories and items.

    Raises:
        DataError: If `out` holds something else.
    """
    checksum = dataset_checksum(source, revision, MADE_FROM)
    out = out.resolve()  # so that its name is not taken for a dataset in the package
    before = contract.provenance(str(out)) if out.is_dir() else None
    after = contract.provenance(source, revision).with_summaries({"methods": list(methods)})
    contract.check_replaceable(out, MADE_FROM, after)
    if before and limit and not before.summaries.limit:
        raise DataError(f"{out} holds all users, which --limit would cut to {limit} a split. Choose another --out.")
    in_place = [Path(path).resolve() for path in (source, since) if path and Path(path).is_dir()]
    if not before or out in in_place:
        return checksum
    if before.summaries.summarised != checksum and not _same_rows(source, revision, str(out)):
        raise DataError(
            f"{out} holds a dataset of other histories or items than {source!r}. Choose another --out, or remove it."
        )
    finished = before.has_summaries and not before.summaries.limit
    if settings and finished and (differ := before.summaries.differences(settings)):
        raise DataError(
            f"{out} holds summaries that were made in another way, which would be lost: {'; '.join(differ)}. Choose another --out, or "
            "remove it."
        )
    return checksum


def _same_rows(source: str, revision: str | None, other: str) -> bool:
    """Whether two datasets have the same histories and items."""
    parts = [("items", "train"), *(("histories", split) for split in contract.SPLITS)]
    return all(
        contract.read(source, config, split, revision).data.table.equals(contract.read(other, config, split).data.table)
        for config, split in parts
    )


def read(source: str, revision: str | None = None, limit: int = 0) -> tuple[dict[str, str], dict[str, Dataset]]:
    """Item id -> text, and split -> rows of `histories`, the first `limit` of each if given. All ids are in the catalogue."""
    texts = contract.texts(source, revision)
    splits = {split: contract.read(source, "histories", split, revision) for split in contract.SPLITS}
    if limit:
        splits = {split: rows.select(range(min(limit, len(rows)))) for split, rows in splits.items()}
    for split, rows in splits.items():
        contract.check_ids(rows, texts, f"{source}, split {split}")
    return texts, splits


def identity(engine: Engine) -> dict[str, Any]:
    """Everything that summaries depend on besides the histories, for the provenance."""
    if not engine.cacheable:
        return dict(engine.identity)
    wording = engine.prompts.to_dict()
    checksum = hashlib.sha256(json.dumps(wording, sort_keys=True).encode()).hexdigest()
    retries = {"attempts": ATTEMPTS, "temperature": RETRY_TEMPERATURE}
    return {**engine.identity, "retries": retries, "prompts": wording, "prompts_sha256": checksum}
