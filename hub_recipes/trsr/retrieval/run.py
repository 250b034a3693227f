"""Train a retriever on a dataset folder, and write it."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets import Dataset

from trsr.dataset import contract
from trsr.dataset.sequences import also_met, histories, interactions_checksum, item_numbers, training_sequences
from trsr.errors import UsageError
from trsr.recommender.run import data_checksums
from trsr.recommender.scores import cost
from trsr.records.files import bind, one_writer, read_json, whole_folder
from trsr.records.versions import versions
from trsr.retrieval import text_vectors
from trsr.retrieval.checkpoint import Checkpoint
from trsr.retrieval.network import Shape
from trsr.retrieval.retriever import RETRIEVER_FILE, Retriever
from trsr.retrieval.training import Settings, fit
from trsr.retrieval.validation import Validation

NONE = "none"  # item vectors from ids alone


@one_writer
def train_retriever(
    source: str,
    out: Path,
    *,
    revision: str | None = None,
    vectors: str = "tf-idf",
    ids: bool = True,
    width: int = 128,
    layers: int = 2,
    dropout: float = 0.4,
    blocks: str = "relative",
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Train a retriever, and write its folder whole or not at all.

    It learns from the histories and targets of training users, and, where each user stands in one split, from the histories
    of the others; validation says when to stop. A finished one is kept, and one that was killed goes on after its last epoch.

    Args:
        source: Folder or Hub id with the configs `items` and `histories`.
        out: Folder to write.
        vectors: What makes text vectors, as `text_vectors.make` takes it; NONE for none.
        ids: Whether items have an id part.
        width, layers, dropout, blocks: As in `Shape`.

    Returns:
        The record, content of RETRIEVER_FILE.

    Raises:
        UsageError: If items would have neither part, `out` holds anything else, or training was begun for it otherwise.
        DataError: As `trsr.dataset.contract` does.
        LoadError: If the model of text vectors is neither here nor on the Hub.
        TrainError: As `training.fit` does.
    """
    if vectors == NONE and not ids:
        raise UsageError(
            "Items without text vectors and without ids have no vectors: leave out --no-ids, or --vectors none."
        )
    settings = settings or Settings()
    Shape(0, 0, width, layers=layers, dropout=dropout, blocks=blocks)  # refuses sizes that cannot be before any work
    provenance = contract.provenance(source, revision)
    checksums = data_checksums(source, "histories", revision)
    sizes: dict[str, Any] = {"width": width, "layers": layers, "dropout": dropout, "blocks": blocks}
    made_from = {"dataset_checksums": checksums, "vectors": vectors, "ids": ids, **sizes, **asdict(settings)}
    pretrained = text_vectors.pretrained(vectors)
    if pretrained:
        made_from["text_model"] = pretrained.describe()  # a folder may hold another model by now
    if out.exists() and any(out.iterdir()):
        bind(out, made_from)
        if (out / RETRIEVER_FILE).is_file():
            Checkpoint.remove_left(out, made_from)
            return read_json(out / RETRIEVER_FILE)
    began, started = time.process_time(), time.monotonic()
    texts = contract.texts(source, revision)
    splits = {split: contract.read(source, "histories", split, revision) for split in contract.SPLITS}
    numbers = {item_id: number for number, item_id in enumerate(texts)}
    sequences = training_sequences(splits, numbers)
    validation = validation_users(splits["validation"], numbers)
    checkpoint = Checkpoint.open(out, made_from, began, started)
    maker = pretrained
    if maker is None and vectors != NONE:
        maker = text_vectors.make(vectors, list(texts.values()), settings.seed)
    table = None if maker is None else checkpoint.text_vectors(lambda: maker.encode(list(texts.values())))
    shape = Shape(
        ids=len(texts) if ids else 0,
        text_width=0 if table is None else table.shape[1],
        **sizes,
    )
    fitted = fit(sequences, len(texts), table, shape, settings, validation, checkpoint)
    cpu_seconds, seconds = checkpoint.seconds
    record = {
        "dataset": provenance.terms.name,
        "dataset_checksums": checksums,
        "interactions": interactions_checksum(splits),
        "vectors": maker.describe() if maker else None,
        "ids": ids,
        "settings": asdict(settings),
        "counts": {
            "items": len(texts),
            "items_without_interactions": int((~fitted.known).sum()),
            "sequences": len(sequences),
            "validation_users": len(validation.targets),
        },
        "parameters": sum(value.numel() for value in fitted.network.parameters()),
        "validation": dict(fitted.best),
        "log": fitted.log,
        "seconds": round(seconds),
        "cost": {**cost(began), "cpu_seconds": round(cpu_seconds, 2)},
        "versions": versions(),
    }
    retriever = Retriever(fitted.network, list(texts), fitted.vectors, maker, record)
    with whole_folder(out) as draft:
        bind(draft, made_from)
        retriever.save(draft)
    checkpoint.remove()
    return read_json(out / RETRIEVER_FILE)


def validation_users(rows: Dataset, numbers: Mapping[str, int]) -> Validation:
    """The users of a validation split.

    Args:
        numbers: Item id -> row of its vector.
    """
    return Validation(
        list(histories(rows, numbers, "validation")),
        item_numbers(rows.with_format("arrow")["target"], numbers, "validation"),
        also_met(rows, numbers),
    )
