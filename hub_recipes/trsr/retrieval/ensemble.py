"""Make one retriever of several: the score of an item is the mean of theirs."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trsr.dataset import contract
from trsr.errors import UsageError
from trsr.recommender.scores import cost
from trsr.records.checksums import files_checksum
from trsr.records.files import bind, one_writer, read_json, whole_folder
from trsr.records.versions import versions
from trsr.retrieval.network import Ensemble
from trsr.retrieval.retriever import NETWORK, RETRIEVER_FILE, VECTORS, Retriever, retriever_checksum
from trsr.retrieval.run import validation_users
from trsr.retrieval.text_vectors import EnsembleVectors
from trsr.retrieval.validation import measure


@one_writer
def make_ensemble(folders: Sequence[Path], source: str, out: Path, *, revision: str | None = None) -> dict[str, Any]:
    """Make a retriever of trained ones, and write its folder whole or not at all; nothing is trained.

    Its vectors are theirs, one behind the other, so it is searched, evaluated, fused and published as any other. The members are
    copied: their folders are not needed any more.

    Args:
        folders: Of two retrievers or more, with other seeds, text vectors or sizes, trained on the same interactions.
        source: Folder or Hub id of the dataset that they were trained on; its validation users are measured.
        out: Folder to write.

    Returns:
        The record, content of `retriever.RETRIEVER_FILE`.

    Raises:
        UsageError: If there are fewer than two, one is given twice or is an ensemble, or `out` holds anything else.
        RunError: If one is no retriever, or was trained on other data.
        DataError: As `trsr.dataset.contract` does.
    """
    checksums = [_checksum(folder) for folder in folders]
    if len(set(map(_weights, folders))) < max(2, len(folders)):
        raise UsageError(
            f"An ensemble takes two different retrievers or more, got {', '.join(map(str, folders))}"
            + (": the weights of some are equal." if len(folders) > 1 else ".")
        )
    if out.exists() and any(out.iterdir()):
        bind(out, {"members": checksums})
    members = [Retriever.load(folder) for folder in folders]
    networks = []
    for folder, member in zip(folders, members, strict=True):
        if isinstance(member.network, Ensemble):
            raise UsageError(f"{folder} is an ensemble itself: give its members.")
        member.check_data(source, revision)
        networks.append(member.network)
    if (out / RETRIEVER_FILE).is_file():
        return read_json(out / RETRIEVER_FILE)
    began, started = time.process_time(), time.monotonic()
    network = Ensemble.of(networks)
    vectors = np.concatenate([member.vectors for member in members], axis=1)
    makers = [member.text for member in members if member.text is not None]
    text = EnsembleVectors(makers) if len(makers) == len(members) else None
    records = [member.record for member in members]
    validation = validation_users(contract.read(source, "histories", "validation", revision), members[0].numbers)
    record = {
        **{name: records[0][name] for name in ("dataset", "dataset_checksums", "interactions", "counts")},
        "vectors": text.describe() if text else None,
        "ids": any(entry["ids"] for entry in records),
        # Ensembles whose members differ in their seeds alone are seeds of one system.
        "settings": {
            "seed": records[0]["settings"]["seed"],
            "members": [
                {name: value for name, value in entry["settings"].items() if name != "seed"} for entry in records
            ],
        },
        "members": [
            {
                "weights": checksum,
                **{name: entry[name] for name in ("vectors", "ids", "settings", "parameters", "validation", "cost")},
            }
            for checksum, entry in zip(checksums, records, strict=True)
        ],
        "parameters": sum(entry["parameters"] for entry in records),
        "validation": {name: round(value, 4) for name, value in measure(network, vectors, validation).items()},
        "seconds": round(sum(entry["seconds"] for entry in records) + time.monotonic() - started),
        "cost": {**cost(began), "cpu_seconds": round(sum(entry["cost"]["cpu_seconds"] for entry in records), 2)},
        "versions": versions(),
    }
    with whole_folder(out) as draft:
        bind(draft, {"members": checksums})
        Retriever(network, members[0].item_ids, vectors, text, record).save(draft)
    return read_json(out / RETRIEVER_FILE)


def _weights(folder: Path) -> str:
    """The checksum of a retriever's weights alone: trained twice with one seed, they are equal and its costs are not."""
    files = [Path(name) for name in (NETWORK, VECTORS)]
    return files_checksum(folder, files) if all((folder / name).is_file() for name in files) else str(folder)


def _checksum(folder: Path) -> str:
    """The checksum of a retriever's folder; of one that is none, its path: `Retriever.load` says then what is missing."""
    return retriever_checksum(folder) if (folder / RETRIEVER_FILE).is_file() else str(folder)
