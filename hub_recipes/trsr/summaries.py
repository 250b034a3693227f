"""Summaries for a whole dataset: strategy x engine x store, level by level over all users."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from tqdm.auto import tqdm

from trsr import data
from trsr.core.history import Item, blocks_by_count
from trsr.core.summarize import METHODS, Summarizer, calls, summarize
from trsr.engines import Engine
from trsr.store import Store, Stored


def add_summaries(
    rows: Dataset,
    texts: Mapping[str, str],
    summarizer: Summarizer,
    method: str,
    block_size: int,
    max_blocks: int,
    label: str,
) -> Dataset:
    """Rows of `histories` with the columns `block_summaries` and `summary`. Shows a progress bar named `label`."""
    histories = [
        blocks_by_count([Item.parse(texts[item_id]) for item_id in row["history"]], block_size, max_blocks)
        for row in rows
    ]
    total = calls([len(blocks) for blocks in histories], method)
    with tqdm(total=total, desc=label, unit="summary", mininterval=1) as bar:
        trails = summarize(histories, summarizer, method, bar.update)
    made = rows.select_columns(list(data.HISTORIES)).to_dict()
    made["block_summaries"] = [list(trail.block_summaries) for trail in trails]
    made["summary"] = [trail.summary for trail in trails]
    return Dataset.from_dict(made, features=data.SUMMARIES)


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
) -> dict[str, Any]:
    """Write the dataset `source` to `out` with one config of summaries a method.

    Args:
        source: Folder or Hub id with the configs `items` and `histories`.
        out: Dataset folder to write; nothing is written before all summaries are there.
        store: Where generations are kept while the run goes on; default beside `out`. A killed run goes on from it.

    Returns:
        The provenance that was written.
    """
    texts = data.texts(source, revision)
    splits = {split: data.read(source, "histories", split, revision) for split in data.SPLITS}
    for split, rows in splits.items():
        data.check_ids(rows, texts, f"{source}, split {split}")
    summarizer = engine.summarizer
    if engine.generates:
        kept = Store(store or out.with_name(f"{out.name}.store.sqlite"))
        summarizer = Stored(summarizer, kept, engine.identity)
    tables: dict[str, DatasetDict] = {
        "items": DatasetDict(train=data.read(source, "items", "train", revision)),
        "histories": DatasetDict(splits),
    }
    for method in methods:
        tables[method] = DatasetDict(
            {
                split: add_summaries(rows, texts, summarizer, method, block_size, max_blocks, f"{method} {split}")
                for split, rows in splits.items()
            }
        )
    made = {
        **data.provenance(source, revision),
        "summaries": {
            **engine.identity,
            "methods": list(methods),
            "block_size": block_size,
            "max_blocks": max_blocks,
            "calls": {
                method: sum(
                    len(trail) + (method == "hierarchical")
                    for split in splits
                    for trail in tables[method][split]["block_summaries"]
                )
                for method in methods
            },
        },
    }
    data.write(out, tables, provenance=made, body=f"# {out.name}\n\nHistories with summaries: {', '.join(methods)}.")
    return made
