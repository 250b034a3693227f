"""Recommend to every user of a dataset from its catalogue, and write the lists as a dataset, shard by shard.

What comes after everything that the dataset knows of a user is recommended: the history of the user's newest row and its target
are the history; these, and what else the user met in any row, are left out.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from trsr.core.catalogue import Catalogue, check_stage_one, is_fitted
from trsr.dataset import contract
from trsr.errors import UsageError
from trsr.recommender.run import data_checksums
from trsr.recommender.serving import commit_of, load_recommender
from trsr.records.costs import peak_mib
from trsr.records.files import bind, one_writer, whole_file
from trsr.records.versions import versions
from trsr.retrieval.carried import catalogue_of, check_items, keep_weight_if_same_retriever, record_of
from trsr.retrieval.identity import catalogue_checksum, model_checksum
from trsr.retrieval.lists import recommendations
from trsr.retrieval.recommendation_card import CONFIG, describe, sources
from trsr.retrieval.user_rows import UserRows
from trsr.retrieval.workers import shards_on_ray

logger = logging.getLogger(__name__)
SHARD = 500  # users a file: what a killed run loses


@one_writer
def recommend_to_all(
    source: str,
    out: Path,
    *,
    model: str | None = None,
    retriever: Path | None = None,
    revision: str | None = None,
    top_k: int = 10,
    stage_one: int | None = None,
    first_stage_only: bool = False,
    limit: int = 0,
    repo: str | None = None,
    ray: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write recommendations for all users of a dataset. A run that was killed goes on with the shard that it was at.

    A row a user: `user_id`; `item_ids`, best first, with their `scores`, the `log_odds` of the language model and the scores
    of `stage_one`; and the `summary` of the user that the language model read. With the first stage alone, `log_odds` and
    `summary` are null.

    Args:
        source: Folder or Hub id of the dataset.
        out: Folder to write.
        model: As `load_recommender` takes it; with `first_stage_only` and a retriever, none is loaded.
        retriever: Folder of a retriever on this dataset; default, the catalogue that the model carries. Where the model carries this
            very retriever, the weight that was fitted for both is kept; else both stages' scores count alike, which is said.
        top_k: Items a user.
        stage_one: Items that the first stage passes on to the language model, `top_k` at least; default, as many as the weight
            was fitted with (STAGE_ONE where it was not), or `top_k` where that is more.
        first_stage_only: Leave out the language model.
        limit: First users alone; 0 = all.
        repo: ORG/NAME that the folder is to be pushed to, for its card.
        ray: Make the shards on a cluster: `address`, `workers` and `gpus`, as `workers.shards_on_ray` takes them.

    Returns:
        `users`, `new_users` of this call, `items` in all lists, `seconds`, `users_a_second` and `items_a_second` of this
        call (items are those that were scored by the last stage), and `peak_mib` of this process.

    Raises:
        InputError: If `stage_one` is less than `top_k`.
        UsageError: If a model or `stage_one` is given and not used, `out` holds recommendations of other data, another model or other options,
            the model carries no catalogue and no retriever was given, or Ray is not there.
        RunError: If the retriever was trained on another dataset, the catalogue that the model carries holds other items, or a
            worker has another model.
        DataError: As `trsr.dataset.contract` does.
    """
    began = time.monotonic()
    if first_stage_only and stage_one is not None:
        raise UsageError(
            "stage_one is for the language model, which first_stage_only leaves out: leave out one of them."
        )
    check_stage_one(stage_one, top_k)
    stages = _load_stages(source, revision, model, retriever, first_stage_only)
    catalogue = stages.catalogue
    stage_one = stage_one or max(catalogue.stage_one, top_k)
    checksums = data_checksums(source, "histories", revision)
    made_from: dict[str, Any] = {
        "dataset_checksums": checksums,
        "catalogue": catalogue_checksum(catalogue),
        "model": None if first_stage_only else model_checksum(stages.recommender),
        "weight": None if first_stage_only else catalogue.record["weight"],
        "top_k": top_k,
        "stage_one": None if first_stage_only else stage_one,
        "limit": limit,
        "shard": SHARD,
    }
    # Before `out` is bound: it refuses times that it cannot compare.
    users = UserRows({split: contract.read(source, "histories", split, revision) for split in contract.SPLITS})
    bind(out, made_from)
    if users.guessed:
        logger.warning(
            f"{users.guessed:,} users of {source} have several rows in their last split, and no timestamps say which one is the "
            "newest: the one with the longest history is taken. Nothing of the other rows is recommended either."
        )
    shards = _Shards.of(out, min(limit or len(users), len(users)), made_from)
    new = sum(len(shards.users(number)) for number in shards.missing())
    started = time.monotonic()
    _write(shards, users, stages, made_from["model"], ray, {"top_k": top_k, "stage_one": stage_one})
    seconds = max(time.monotonic() - started, 1e-9)
    scored = len(catalogue.item_ids) if first_stage_only else min(stage_one, len(catalogue.item_ids))
    figures = {
        "users": shards.total,
        "new_users": new,
        "items": sum(_items(path) for path in shards.paths),
        "seconds": round(time.monotonic() - began, 1),
        "users_a_second": round(new / seconds, 2),
        "items_a_second": round(new * scored / seconds, 1),
        "peak_mib": round(peak_mib(), 1),
    }
    about = {
        **made_from,
        **sources(source, checksums["histories"], None if first_stage_only else model or "nano", stages.commit),
        "retriever": catalogue.record["retriever"],
        "items": len(catalogue.item_ids),
        "fitted": None if first_stage_only else catalogue.record["fitted"],
        "users": shards.total,
        "newest_row_guessed": users.guessed,
        "versions": versions(),
    }
    describe(out, [path.name for path in shards.paths], about, contract.provenance(source, revision), repo)
    return figures


@dataclass(frozen=True)
class _Stages:
    """What recommends: a catalogue, and the language model of a recommender that carries it; None is the first stage alone.

    `load` loads the same recommender on a worker, and `commit` is the one of the Hub that it is read at.
    """

    catalogue: Catalogue
    recommender: Any = None
    load: Callable[[], Any] | None = None
    commit: str | None = None


def _load_stages(
    source: str, revision: str | None, model: str | None, retriever: Path | None, first_stage_only: bool
) -> _Stages:
    """Load what `recommend_to_all` was given, and check that it belongs to the dataset. Raises as that does."""
    if first_stage_only and retriever:
        if model:
            raise UsageError(
                f"The first stage alone, of the retriever {retriever}, uses no model, and got {model}: leave out --model, or --retriever."
            )
        return _Stages(catalogue_of(retriever, source, revision))
    commit = commit_of(model)
    # The same on all workers, and the one that the card names, whatever is pushed meanwhile.
    load = partial(load_recommender, model, **({"revision": commit} if commit else {}))
    recommender: Any = load()
    if retriever:
        catalogue = catalogue_of(retriever, source, revision)
        recommender.catalogue = catalogue = keep_weight_if_same_retriever(catalogue, record_of(recommender))
    else:
        catalogue = recommender.catalogue
        if catalogue is None:
            raise UsageError(
                f"{model or 'The recommender in the package'} carries no catalogue. Give --retriever, or fuse one with the run: "
                "trsr retrieve fuse RETRIEVER --run RUN"
            )
        check_items(catalogue, source, revision)
    if first_stage_only:
        return _Stages(catalogue, commit=commit)
    if not is_fitted(catalogue.record):
        why = (catalogue.record["fitted"] or {}).get("not_fitted")
        logger.warning(
            f"{model or 'The recommender in the package'} carries no weight that was fitted for {retriever or 'its catalogue'}"
            f"{f' ({why})' if why else ''}: the scores of both stages count alike. Fit one{', on more users' if why else ''}: "
            f"trsr retrieve fuse {retriever or 'RETRIEVER'} --run RUN{' --users N' if why else ''}"
        )
    return _Stages(catalogue, recommender, load, commit)


@dataclass(frozen=True)
class _Shards:
    """The files of the recommendations, SHARD users in each, of the first `total` users."""

    paths: list[Path]
    total: int

    @classmethod
    def of(cls, out: Path, total: int, made_from: Mapping[str, Any]) -> "_Shards":
        """Those of a folder; what a killed run left half-written is removed."""
        for draft in (out / CONFIG).glob(".*.part"):
            draft.unlink()
        # `datasets` caches a local folder by its name and header alone, so that names of files say what they were made from.
        key = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]
        count = -(-total // SHARD)
        return cls([out / CONFIG / f"train-{number:05}-of-{count:05}-{key}.parquet" for number in range(count)], total)

    def users(self, number: int) -> range:
        """Numbers of a shard's users."""
        return range(number * SHARD, min(self.total, (number + 1) * SHARD))

    def missing(self) -> list[int]:
        """Numbers of the shards that are not written yet."""
        return [number for number, path in enumerate(self.paths) if not path.is_file()]


def _write(
    shards: _Shards,
    users: UserRows,
    stages: _Stages,
    checksum: str | None,
    ray: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> None:
    """Make the shards that are missing, here or on Ray, and write them.

    Args:
        checksum: Of the model: what workers compare theirs with.
        ray, options: For `shards_on_ray`, and for `recommendations`.
    """
    missing = shards.missing()
    written = shards.total - sum(len(shards.users(number)) for number in missing)

    def rows_of(number: int) -> list[dict[str, Any]]:
        part = shards.users(number)
        return users.read(part.start, part.stop)

    with tqdm(total=shards.total, initial=written, desc="recommendations", unit="user", mininterval=1) as bar:
        if ray is None:
            tables = _tables(missing, rows_of, bar, stages, options)
        else:
            tables = shards_on_ray(missing, rows_of, stages.load, checksum, stages.catalogue, **ray, **options)
        for number, table in tables:
            with whole_file(shards.paths[number]) as draft:
                pq.write_table(table.combine_chunks(), draft)
            if ray is not None:
                bar.update(len(table))


def _tables(
    numbers: Sequence[int],
    rows_of: Callable[[int], list[dict[str, Any]]],
    bar: Any,
    stages: _Stages,
    options: Mapping[str, Any],
) -> Iterator[tuple[int, pa.Table]]:
    """Make shards in this process: (number, table) of each."""
    for number in numbers:
        parts = []
        for part in recommendations(rows_of(number), stages.catalogue, stages.recommender, **options):
            parts.append(part)
            bar.update(len(part))
        yield number, pa.concat_tables(parts)


def _items(path: Path) -> int:
    """Items in all lists of a shard."""
    return pc.sum(pc.list_value_length(pq.read_table(path, columns=["item_ids"])["item_ids"])).as_py() or 0
