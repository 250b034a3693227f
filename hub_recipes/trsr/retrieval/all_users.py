"""Recommend to every user of a dataset from its catalogue, and write the lists as a dataset, shard by shard.

What comes after everything that the dataset knows of a user is recommended: the history of the user's last row and its target
are the history; these, and what else the user met (`also_met`), are left out.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
import yaml
from datasets import Dataset, Features
from tqdm.auto import tqdm

from trsr.core.catalogue import STAGE_ONE, Catalogue, Query
from trsr.core.compat import plain
from trsr.dataset import card_info, contract
from trsr.errors import DataError, InputError, UsageError
from trsr.recommender.run import data_checksums
from trsr.recommender.serving import load_recommender
from trsr.records.checksums import PREFIX
from trsr.records.costs import peak_mib
from trsr.records.files import bind, one_writer, whole_file, write_text
from trsr.records.provenance import FILE as PROVENANCE
from trsr.records.versions import versions
from trsr.retrieval.carried import catalogue_of

SHARD = 500  # users a file: what a killed run loses
CELLS = 4_000_000  # scores of the first stage in memory at once
CONFIG = "recommendations"
SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_ids", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float64())),
        ("log_odds", pa.list_(pa.float64())),
        ("stage_one", pa.list_(pa.float64())),
        ("summary", pa.string()),
    ]
)


@one_writer
def recommend_to_all(
    source: str,
    out: Path,
    *,
    model: str | None = None,
    retriever: Path | None = None,
    revision: str | None = None,
    top_k: int = 10,
    stage_one: int = STAGE_ONE,
    first_stage_only: bool = False,
    limit: int = 0,
) -> dict[str, Any]:
    """Write recommendations for all users of a dataset. A run that was killed goes on with the shard that it was at.

    A row a user: `user_id`; `item_ids`, best first, with their `scores`, the `log_odds` of the language model and the scores
    of `stage_one`; and the `summary` of the user that the language model read. With the first stage alone, `log_odds` and
    `summary` are null.

    Args:
        source: Folder or Hub id of the dataset.
        out: Folder to write.
        model: As `load_recommender` takes it; with `first_stage_only` and a retriever, none is loaded.
        retriever: Folder of a retriever on this dataset; default, the catalogue that the model carries.
        top_k: Items a user.
        stage_one: Items that the first stage passes on to the language model.
        first_stage_only: Leave out the language model.
        limit: First users alone; 0 = all.

    Returns:
        `users`, `new_users` of this call, `items` in all lists, `seconds`, `users_a_second` and `items_a_second` of this
        call (items are those that were scored by the last stage), and `peak_mib`.

    Raises:
        UsageError: If `out` holds recommendations of other data, another model or other options, or the model carries no
            catalogue and no retriever was given.
        RunError: If the retriever was trained on another dataset.
        DataError: As `trsr.dataset.contract` does.
    """
    began = time.monotonic()
    recommender: Any = None if first_stage_only and retriever else load_recommender(model)
    catalogue = catalogue_of(retriever, source, revision) if retriever else recommender.catalogue
    if catalogue is None:
        raise UsageError(
            f"{model or 'The recommender in the package'} carries no catalogue. Give --retriever, or fuse one with the run: "
            "trsr retrieve fuse RETRIEVER --run RUN"
        )
    if recommender is not None:
        recommender.catalogue = catalogue
    checksums = data_checksums(source, "histories", revision)
    made_from = {
        "dataset_checksums": checksums,
        "catalogue": _checksum(catalogue.user_model.state_dict() | {"items": catalogue.vectors}, catalogue.record),
        "model": None if first_stage_only else _model_checksum(recommender),
        "weight": None if first_stage_only else catalogue.record["weight"],
        "top_k": top_k,
        "stage_one": None if first_stage_only else stage_one,
        "limit": limit,
        "shard": SHARD,
    }
    bind(out, made_from)
    for draft in (out / CONFIG).glob(".*.part"):
        draft.unlink()  # of a killed run
    splits = {split: contract.read(source, "histories", split, revision) for split in contract.SPLITS}
    users = last_rows(splits)
    total = sum(map(len, users.values()))
    total = min(limit, total) if limit else total
    count = -(-total // SHARD)
    # `datasets` caches a local folder by its name and header alone, so that names of files say what they were made from.
    key = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]
    names = [f"train-{number:05}-of-{count:05}-{key}.parquet" for number in range(count)]
    done = [(out / CONFIG / name).is_file() for name in names]
    sizes = [min(SHARD, total - number * SHARD) for number in range(len(names))]
    new = sum(size for size, there in zip(sizes, done, strict=True) if not there)
    bar = tqdm(total=total, initial=total - new, desc="recommendations", unit="user", mininterval=1)
    started = time.monotonic()
    for number, name in enumerate(names):
        if not done[number]:
            rows = _rows(splits, users, number * SHARD, min(total, (number + 1) * SHARD))
            with whole_file(out / CONFIG / name) as draft:
                parts = []
                for part in _recommended(rows, catalogue, recommender, top_k, stage_one, first_stage_only):
                    parts.append(part)
                    bar.update(len(part))
                pq.write_table(pa.concat_tables(parts).combine_chunks(), draft)
    bar.close()
    seconds = max(time.monotonic() - started, 1e-9)
    scored = len(catalogue.item_ids) if first_stage_only else min(stage_one, len(catalogue.item_ids))
    figures = {
        "users": total,
        "new_users": new,
        "items": sum(_items(out / CONFIG / name) for name in names),
        "seconds": round(time.monotonic() - began, 1),
        "users_a_second": round(new / seconds, 2),
        "items_a_second": round(new * scored / seconds, 1),
        "peak_mib": round(peak_mib(), 1),
    }
    _describe(out, source, revision, names, {**made_from, "users": total, "versions": versions()})
    return figures


def last_rows(splits: Mapping[str, Dataset]) -> dict[str, np.ndarray]:
    """For each split, the rows after which nothing more is known of a user: the last one of the user's last split."""
    found: dict[str, np.ndarray] = {}
    later = pa.array([], pa.string())
    for split in reversed(list(splits)):
        users = contract.one_chunk(splits[split].with_format("arrow")["user_id"]).cast(pa.string())
        encoded = users.dictionary_encode()
        last = np.zeros(len(encoded.dictionary), np.int64)
        last[encoded.indices.to_numpy()] = np.arange(len(users))  # of several, the last one stays
        fresh = ~pc.is_in(encoded.dictionary, value_set=later).to_numpy(zero_copy_only=False)
        found[split] = np.sort(last[fresh])
        later = pa.concat_arrays([later, encoded.dictionary])
    return {split: found[split] for split in splits}


def _rows(splits: Mapping[str, Dataset], users: Mapping[str, np.ndarray], start: int, end: int) -> list[dict[str, Any]]:
    """The rows of the users `start` to `end`, in the order of the splits."""
    rows: list[dict[str, Any]] = []
    for split, numbers in users.items():
        rows += splits[split].select(numbers[max(0, start) : max(0, end)]).to_list()
        start, end = start - len(numbers), end - len(numbers)
    return rows


def _recommended(
    rows: Sequence[Mapping[str, Any]],
    catalogue: Catalogue,
    recommender: Any,
    top_k: int,
    stage_one: int,
    first_stage_only: bool,
) -> Iterator[pa.Table]:
    """Tables of recommendations for some users each."""
    step = max(1, CELLS // len(catalogue.item_ids)) if first_stage_only else 1
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        if first_stage_only:
            queries = [_query(row, catalogue, top_k) for row in part]
            lists = [catalogue.ranked(retrieved, None) for retrieved in catalogue.retrieve(queries)]
            summaries: list[str | None] = [None] * len(part)
        else:
            [row] = part
            request = {
                "history": [{"item_id": item_id} for item_id in (*row["history"], row["target"])],
                "exclude": list(row.get("also_met") or ()),
            }
            try:
                answer = recommender(request, stage_one=stage_one, top_k=top_k, return_summary=True)
            except InputError as error:
                raise DataError(f"User {row['user_id']!r}: {error}") from error
            lists, summaries = [answer["candidates"]], [answer["summary"]]
        columns = [[row["user_id"] for row in part], *([] for _ in range(4)), summaries]
        for chosen in lists:
            for column, name in zip(columns[1:], ("item_id", "score", "log_odds", "stage_one"), strict=False):
                column.append([item[name] for item in chosen])
        if first_stage_only:
            columns[3] = [None] * len(part)
        yield pa.Table.from_arrays(
            [pa.array(column, kind) for column, kind in zip(columns, SCHEMA.types, strict=True)], schema=SCHEMA
        )


def _query(row: Mapping[str, Any], catalogue: Catalogue, count: int) -> Query:
    """What to retrieve for the user of a row of `histories`. Raises DataError for an item that the catalogue lacks."""
    met = [*row["history"], row["target"]]
    if unknown := [item_id for item_id in met if item_id not in catalogue.rows]:
        raise DataError(f"User {row['user_id']!r}: the catalogue has no item {unknown[0]!r}.")
    also = [catalogue.rows[item_id] for item_id in row.get("also_met") or () if item_id in catalogue.rows]
    history = [catalogue.rows[item_id] for item_id in met]
    return Query(history, [*history, *also], count=count)


def _checksum(weights: Mapping[str, torch.Tensor], *about: Any) -> str:
    """Of weights in memory, and of plain values."""
    found = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, value in sorted(weights.items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return PREFIX + found.hexdigest()


def _model_checksum(recommender: Any) -> str:
    """Of everything that answers depend on: base, adapters, prompts and settings."""
    settings = getattr(plain(recommender.model).config, "trsr", None) or {}
    tokens = recommender.tokenizer.get_vocab()
    return _checksum(recommender.model.state_dict(), recommender.encoder.prompt.to_dict(), dict(settings), tokens)


def _describe(out: Path, source: str, revision: str | None, names: Sequence[str], made: Mapping[str, Any]) -> None:
    """Write card and provenance of finished recommendations: `load_dataset(out)` then reads them."""
    provenance = contract.provenance(source, revision)
    terms = provenance.terms.header() if provenance.name else {}
    files = {"split": "train", "path": [f"{CONFIG}/{name}" for name in names]}
    entry = {"config_name": CONFIG, "data_files": [files], "default": True}
    info = card_info.config_info(Features.from_arrow_schema(SCHEMA), {"train": [out / path for path in files["path"]]})
    known = {**terms, **card_info.header({CONFIG: info}), "configs": [entry]}
    header = yaml.safe_dump(known, sort_keys=False, allow_unicode=True)
    how = "the first stage alone" if made["model"] is None else "both stages"
    body = f"# {out.resolve().name}\n\nRecommendations from the catalogue for {made['users']:,} users, by {how} of LLM-TRSR."
    write_text(out / PROVENANCE, json.dumps({**provenance.values, CONFIG: made}, indent=2, ensure_ascii=False) + "\n")
    write_text(out / "README.md", f"---\n{header}---\n\n{body}\n")


def _items(path: Path) -> int:
    """Items in all lists of a shard."""
    return pc.sum(pc.list_value_length(pq.read_table(path, columns=["item_ids"])["item_ids"])).as_py() or 0
