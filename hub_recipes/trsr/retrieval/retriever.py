"""A trained retriever: its folder, vectors of users and of new items, and the best items of a catalogue."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors

from trsr.dataset import contract
from trsr.dataset.sequences import interactions_checksum
from trsr.errors import InputError, RunError, UsageError
from trsr.recommender.run import changed_configs, data_checksums
from trsr.records.checksums import files_checksum
from trsr.records.files import read_json, write_json
from trsr.retrieval import text_vectors
from trsr.retrieval.approximate import ApproximateIndex
from trsr.retrieval.network import Ensemble, Network, network_of
from trsr.retrieval.search import top_k_items
from trsr.retrieval.text_vectors import TextVectors
from trsr.retrieval.users import user_vectors

RETRIEVER_FILE, NETWORK, VECTORS, ITEMS = "retriever.json", "model.safetensors", "vectors.safetensors", "items.parquet"
TEXT_VECTORS = "text_vectors"


def retriever_checksum(folder: Path) -> str:
    """Checksum of a retriever's own files, as `sha256:` and hex digits; others in its folder, such as results, do not count."""
    own = [folder / name for name in (RETRIEVER_FILE, NETWORK, VECTORS, ITEMS)]
    text = [path for path in (folder / TEXT_VECTORS).rglob("*") if path.suffix in (".json", ".safetensors")]
    return files_checksum(folder, [path.relative_to(folder) for path in (*own, *text) if path.is_file()])


@dataclass(frozen=True, slots=True)
class Retriever:
    """A trained retriever and its catalogue.

    Attributes:
        item_ids: Of the catalogue, in the order of their vectors.
        vectors: (items, width) float32.
        text: Makes text vectors; None where items have no text part.
        record: Content of RETRIEVER_FILE: settings, dataset, costs, what validation said.
        index: What `recommend` searches in; None for an exact search.
    """

    network: Network | Ensemble
    item_ids: list[str]
    vectors: np.ndarray
    text: TextVectors | None
    record: Mapping[str, Any]
    index: ApproximateIndex | None = None

    def __post_init__(self) -> None:
        if not np.isfinite(self.vectors).all():
            raise RunError(
                "Vectors of the retriever are not finite: its training diverged, or its files are damaged. Train it again, with a "
                "lower --learning-rate."
            )

    @classmethod
    def load(cls, folder: Path) -> "Retriever":
        """Read a folder that `trsr retrieve train` wrote.

        Raises:
            RunError: If it holds no retriever, or lacks a file.
        """
        for name in (RETRIEVER_FILE, NETWORK, VECTORS, ITEMS):
            if not (folder / name).is_file():
                raise RunError(
                    f"No retriever at {folder}: it has no {name}. Make one: trsr retrieve train DATASET --out DIR"
                )
        record = read_json(folder / RETRIEVER_FILE)
        network = network_of(record["shape"])
        network.load_state_dict(load_tensors(folder / NETWORK))
        text = text_vectors.load(record["vectors"], folder / TEXT_VECTORS) if record["vectors"] else None
        item_ids, vectors = pq.read_table(folder / ITEMS)["item_id"].to_pylist(), load_file(folder / VECTORS)["items"]
        if len(item_ids) != len(vectors):
            raise RunError(
                f"{folder / ITEMS} names {len(item_ids)} items, and there are {len(vectors)} vectors: the files are not of one retriever. "
                "Train it again."
            )
        return cls(network.eval(), item_ids, vectors, text, record)

    def save(self, folder: Path) -> None:
        """Write the folder's files."""
        if self.text is not None:
            self.text.save(folder / TEXT_VECTORS)
        save_tensors(self.network.state_dict(), folder / NETWORK)
        save_file({"items": self.vectors}, folder / VECTORS)
        pq.write_table(pa.table({"item_id": self.item_ids}), folder / ITEMS)
        record = {**self.record, "shape": self.network.describe()}
        write_json(folder / RETRIEVER_FILE, record)

    def check_data(self, source: str, revision: str | None = None) -> None:
        """Raise RunError if a dataset differs from the one that this retriever was trained on in more than negatives."""
        before, now = self.record["dataset_checksums"], data_checksums(source, "histories", revision)
        changed = changed_configs(before, now)
        if changed == ["histories"] and self.record.get("interactions"):
            splits = {split: contract.read(source, "histories", split, revision) for split in contract.SPLITS}
            if interactions_checksum(splits) == self.record["interactions"]:
                return
        if changed:
            raise RunError(
                f"{source} is not the dataset that the retriever was trained on: its config {changed[0]} is "
                f"{now.get(changed[0])}, the retriever's was {before.get(changed[0])}. Train one on it: "
                f"trsr retrieve train {source} --out DIR"
            )

    @property
    def numbers(self) -> dict[str, int]:
        """Item id -> row of its vector."""
        return {item_id: number for number, item_id in enumerate(self.item_ids)}

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors (texts, width) float32 of new items, from their texts alone; nothing is trained.

        Raises:
            UsageError: If the retriever knows items by their ids alone.
            LoadError: If the model that made its text vectors is not there, or another by now.
        """
        if self.text is None:
            raise UsageError(
                "This retriever, or a member of it, knows items by their ids alone: a new item has no vector. Train one with texts."
            )
        with torch.no_grad():
            text = torch.from_numpy(self.text.encode(texts))
            return self.network.item(text, None, torch.zeros(len(texts), dtype=torch.bool)).numpy()

    def with_items(self, texts: Mapping[str, str]) -> "Retriever":
        """The same retriever with new items in its catalogue. Where it has an index, one is built anew over all items.

        Args:
            texts: Item id -> text. Items that it has keep their vectors.

        Raises:
            InputError: If the text of a new item is empty.
            UsageError: As `embed` does.
        """
        numbers = self.numbers
        new = {item_id: text for item_id, text in texts.items() if item_id not in numbers}
        if empty := [item_id for item_id, text in new.items() if not (text or "").strip()]:
            raise InputError(
                f"Item {empty[0]!r} has no text, from which its vector is made. Give one, or leave the item out."
            )
        if not new:
            return self
        vectors = np.concatenate([self.vectors, self.embed(list(new.values()))])
        index = ApproximateIndex.build(vectors, self.index.probes) if self.index else None
        return replace(self, item_ids=[*self.item_ids, *new], vectors=vectors, index=index)

    def approximate(self, probes: int = 0) -> "Retriever":
        """The same retriever, which finds most of the best items of a large catalogue in a fraction of the time.

        Args:
            probes: As `ApproximateIndex.build` takes it.

        Raises:
            UsageError: As `ApproximateIndex.build` does.
        """
        return replace(self, index=ApproximateIndex.build(self.vectors, probes))

    def users(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """Vectors (users, width) float32 from histories as rows of `vectors`, oldest first."""
        return user_vectors(self.network, self.vectors, histories)

    def recommend(
        self, histories: Sequence[Sequence[str]], top_k: int = 10, exclude_met: bool = True
    ) -> list[list[tuple[str, float]]]:
        """The best items of the catalogue for each history: ids and scores, best first.

        Args:
            histories: Item ids, oldest first.
            exclude_met: Leave out what a history holds.

        Raises:
            InputError: If a history is no list of ids, an item is not in the catalogue, or `top_k` is below 1.
        """
        if top_k < 1:
            raise InputError(f"top_k is {top_k}, expected at least 1.")
        if isinstance(histories, str) or any(isinstance(history, str) for history in histories):
            raise InputError(
                "Histories are lists of item ids, one a user; got a text in place of a list: for one user give [[id, ...]]."
            )
        numbers = self.numbers
        if unknown := {item_id for history in histories for item_id in history} - set(numbers):
            raise InputError(
                f"Item {min(unknown, key=str)!r} is not in the retriever's catalogue. Add it with its text: retriever.with_items(texts)"
            )
        met = [np.array([numbers[item_id] for item_id in history], np.int64) for history in histories]
        users, exclude = self.users(met), met if exclude_met else None
        if self.index is None:
            rows, scores = top_k_items(users, self.vectors, top_k, exclude)
        else:
            rows, scores = self.index.top_k_items(users, top_k, exclude)
        return [
            [(self.item_ids[row], float(score)) for row, score in zip(*best, strict=True) if row >= 0]
            for best in zip(rows.tolist(), scores.tolist(), strict=True)
        ]
