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
from trsr.errors import DataError
from trsr.recommender.run import Run
from trsr.records.checksums import digest
from trsr.records.files import read_json
from trsr.retrieval.retriever import Retriever

UNFITTED = 1.0  # weight of the first stage where none was fitted


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
        "retriever": digest(folder),
        "weight": UNFITTED,
        "fitted": None,
    }
    vectors = torch.from_numpy(retriever.vectors)
    return Catalogue(items.to_dict(), vectors, retriever.network.user, record)


def catalogue_of_run(run: Run, retriever: Path) -> Catalogue:
    """The catalogue of a run's release; its weight is the one that `fusion.fuse_run` fitted for this run and this retriever,
    if it did.

    Raises:
        RunError, DataError: As `catalogue_of`.
    """
    catalogue = catalogue_of(retriever, run.recipe.dataset, run.recipe.dataset_revision)
    path = run.folder / CATALOGUE / RECORD
    record = read_json(path) if path.is_file() else {}
    of_this_run = (record.get("fitted") or {}).get("run") == run.weights
    return with_weight_of(catalogue, record) if of_this_run else catalogue


def with_weight(catalogue: Catalogue, weight: float, fitted: Mapping[str, Any]) -> Catalogue:
    """The same catalogue with a fitted weight, and how it was fitted."""
    record = {**catalogue.record, "weight": weight, "fitted": dict(fitted)}
    return Catalogue(catalogue.fields, catalogue.vectors, catalogue.user_model, record)


def record_of(recommender: Any) -> Mapping[str, Any]:
    """The record of the catalogue that a recommender carries, without reading its items; empty where there is none."""
    if loaded := vars(recommender).get("catalogue"):
        return loaded.record
    origin = getattr(without_peft(recommender.model), "trsr_catalogue", None)
    path = optional_file(origin[0], f"{CATALOGUE}/{RECORD}", origin[1]) if origin else None
    return read_json(Path(path)) if path else {}


def with_weight_of(catalogue: Catalogue, record: Mapping[str, Any]) -> Catalogue:
    """The same catalogue with the weight that was fitted for another one, if that is of the same retriever.

    Args:
        record: Of the other one; empty where there is none.
    """
    if record.get("fitted") and record.get("retriever") == catalogue.record["retriever"]:
        return with_weight(catalogue, record["weight"], record["fitted"])
    return catalogue


def write_catalogue(catalogue: Catalogue, folder: Path) -> None:
    """Write the files of a catalogue into an empty folder. Same catalogue, same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {"items": catalogue.vectors, **catalogue.user_model.state_dict()}
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / WEIGHTS)
    pq.write_table(pa.table(dict(catalogue.fields)), folder / ITEMS)
    text = json.dumps(catalogue.record, indent=2) + "\n"
    (folder / RECORD).write_text(text, encoding="utf-8", newline="\n")
