"""The catalogue that a recommender carries: made from a retriever and its dataset, and written as a pipeline repo holds it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from trsr.core.catalogue import ITEMS, RECORD, WEIGHTS, Catalogue
from trsr.core.compat import without_peft
from trsr.core.modeling import CATALOGUE, optional_file
from trsr.dataset import contract
from trsr.errors import DataError, RunError
from trsr.recommender.run import Run, data_checksums
from trsr.records.files import read_json
from trsr.retrieval.retriever import Retriever, retriever_checksum

DEFAULT_WEIGHT = 1.0  # weight of the first stage where none was fitted


def catalogue_of(folder: Path, source: str, revision: str | None = None) -> Catalogue:
    """The catalogue of a retriever, with the items' texts and fields of the dataset that it was trained on.

    Its weight is not fitted; `fusion.fit` does that.

    Args:
        folder: Of the retriever.
        source: Folder or Hub id of the dataset.

    Raises:
        RunError: If there is no retriever, or it was trained on another dataset.
        DataError: As `trsr.dataset.contract` does.
    """
    retriever = Retriever.load(folder)
    retriever.check_data(source, revision)
    items = contract.read(source, "items", "train", revision)
    if list(contract.texts_of(items, source)) != items["item_id"][:]:
        raise DataError(f"The items of {source} hold an id twice. See: trsr check {source}")
    record = {
        "items": len(retriever.item_ids),
        "shape": retriever.network.describe(),
        "dataset": retriever.record["dataset"],
        "dataset_checksums": retriever.record["dataset_checksums"],
        "retriever": retriever_checksum(folder),
        "weight": DEFAULT_WEIGHT,
        "fitted": None,
    }
    vectors = torch.from_numpy(retriever.vectors)
    return Catalogue(items.to_dict(), vectors, retriever.network.user, record)


def check_items(catalogue: Catalogue, source: str, revision: str | None = None) -> None:
    """Raise RunError if a dataset has other items than a catalogue: other ids, or another text under an id.

    Where checksums differ, the items themselves are compared: of one dataset, a folder has other checksums than its copy on the
    Hub. Items without texts, as of a release that may not share them, are compared by their ids.

    Args:
        catalogue: That a recommender carries.
        source: Folder or Hub id of the dataset.
    """
    before = (catalogue.record.get("dataset_checksums") or {}).get("items")
    now = data_checksums(source, "histories", revision).get("items")
    if now is None or now == before:
        return
    items = contract.read_items(source, revision)
    item_ids = items["item_id"][:]
    texts = items["text"] if "text" in items.column_names else [None] * len(item_ids)
    catalogue_texts = dict(zip(catalogue.item_ids, catalogue.texts, strict=True))
    new = [item_id for item_id in item_ids if item_id not in catalogue_texts]
    others = [
        item_id
        for item_id, text in zip(item_ids, texts, strict=True)
        if text != catalogue_texts.get(item_id, text) and text
    ]
    gone = catalogue_texts.keys() - set(item_ids)
    if others or gone:
        which = f"{others[0]!r} has another text" if others else f"{min(gone)!r} is not among them"
        raise RunError(
            f"{source} is not the dataset of the catalogue that the model carries: its items are {now}, the catalogue's {before}, "
            f"and item {which}. Give --retriever, trained on {source}, or a model that was published with its items."
        )
    if new:
        raise RunError(
            f"{source} has {len(item_ids):,} items, and the catalogue that the model carries {len(catalogue_texts):,}: it lacks item {new[0]!r}. "
            f"Publish the model with a newer catalogue, or give --retriever, trained on {source}."
        )


def catalogue_of_run(run: Run, retriever: Path) -> Catalogue:
    """The catalogue of a run's release; its weight is the one that `fusion.fuse_run` fitted for this run and this retriever,
    if it did.

    Raises:
        RunError, DataError: As `catalogue_of`.
    """
    catalogue = catalogue_of(retriever, run.recipe.dataset, run.recipe.dataset_revision)
    record = record_of_run(run.folder)
    of_this_run = (record.get("fitted") or {}).get("run") == run.weights
    return keep_weight_if_same_retriever(catalogue, record) if of_this_run else catalogue


def with_fitted_weight(catalogue: Catalogue, weight: float, fitted: Mapping[str, Any]) -> Catalogue:
    """The same catalogue with a fitted weight, and how it was fitted."""
    record = {**catalogue.record, "weight": weight, "fitted": dict(fitted)}
    return Catalogue(catalogue.fields, catalogue.vectors, catalogue.user_model, record)


def record_of_run(folder: Path) -> Mapping[str, Any]:
    """The record of the catalogue that `fusion.fuse_run` gave a run; empty where there is none."""
    path = folder / CATALOGUE / RECORD
    return read_json(path) if path.is_file() else {}


def record_of(recommender: Any) -> Mapping[str, Any]:
    """The record of the catalogue that a recommender carries, without reading its items; empty where there is none."""
    if loaded := vars(recommender).get("catalogue"):
        return loaded.record
    origin = getattr(without_peft(recommender.model), "trsr_catalogue", None)
    path = optional_file(origin[0], f"{CATALOGUE}/{RECORD}", origin[1]) if origin else None
    return read_json(Path(path)) if path else {}


def keep_weight_if_same_retriever(catalogue: Catalogue, record: Mapping[str, Any]) -> Catalogue:
    """The same catalogue with the weight that was fitted for another one, if that is of the same retriever.

    Args:
        record: Of the other one; empty where there is none.
    """
    if record.get("fitted") and record.get("retriever") == catalogue.record["retriever"]:
        return with_fitted_weight(catalogue, record["weight"], record["fitted"])
    return catalogue


def write_catalogue(catalogue: Catalogue, folder: Path) -> None:
    """Write the files of a catalogue into an empty folder. Same catalogue, same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {"items": catalogue.vectors, **catalogue.user_model.state_dict()}
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / WEIGHTS)
    pq.write_table(pa.table(dict(catalogue.fields)), folder / ITEMS)
    text = json.dumps(catalogue.record, indent=2) + "\n"
    (folder / RECORD).write_text(text, encoding="utf-8", newline="\n")
