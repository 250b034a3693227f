"""Item vectors from a pretrained model: a sentence-transformers model, or the hidden states of a causal language model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, HTTPError
from tqdm.auto import tqdm
from transformers import AutoModel, AutoTokenizer

from trsr.assets.paths import base_path
from trsr.core.groups import batch_by_length
from trsr.errors import LoadError, UsageError
from trsr.progress import loading
from trsr.records.checksums import SUFFIXES, VOCABULARIES, files_checksum

INSTALL = 'pip install "sentence-transformers>=6.2,<7"'  # as in pyproject.toml
TOKENS = 128  # of a text that a language model reads, from its beginning
BATCH_TOKENS = 4096


class _Pretrained:
    """What both kinds share: a model that is named, not copied, and needed for new texts alone.

    Args:
        model: Folder or Hub id.
        checksum: Of the model that made a retriever's vectors; without one, the model's as it is now. Of a Hub id it is
            ID@COMMIT, and that commit is what is loaded.

    Raises:
        LoadError: If the commit of a Hub id is asked for, and the model is neither in the cache nor can the Hub be reached.
    """

    name: str

    def __init__(self, model: str, checksum: str | None = None) -> None:
        self.model, self.checksum = model, checksum or _checksum(model)

    @property
    def revision(self) -> str | None:
        """The commit of a Hub id; None of a folder."""
        return self.checksum.removeprefix(f"{self.model}@") if self.checksum.startswith(f"{self.model}@") else None

    def _check(self) -> None:
        """Raise LoadError if the model is another by now."""
        if self.revision and not _is_folder(self.model):
            return  # a commit does not change
        if self.checksum != (now := _checksum(self.model)):
            raise LoadError(
                f"{self.model} is not the model that made this retriever's item vectors: it is {now}, that was "
                f"{self.checksum}. Put it back, or train the retriever anew."
            )

    def describe(self) -> dict[str, Any]:
        """What the vectors depend on, for the retriever's record."""
        return {"name": self.name, "model": self.model, "checksum": self.checksum}

    def save(self, folder: Path) -> None:
        """Nothing: the record names the model."""


class SentenceVectors(_Pretrained):
    """Vectors of a sentence-transformers model, as it pools and scales them."""

    name = "sentence-transformers"

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors (texts, width) float32. Raises UsageError where the package is missing, LoadError where the model is."""
        self._check()
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise UsageError(f"Item vectors of {self.model} need sentence-transformers: {INSTALL}") from error
        with loading(self.model):
            encoder = SentenceTransformer(self.model, revision=self.revision)
        return np.asarray(encoder.encode(list(texts), show_progress_bar=False), np.float32)


class HiddenStateVectors(_Pretrained):
    """The mean over a text's tokens of a language model's last hidden states."""

    name = "transformers"

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors (texts, width) float32. Raises LoadError where transformers cannot load the model, or it is another."""
        self._check()
        source = base_path(self.model)
        with loading(self.model):
            tokenizer = AutoTokenizer.from_pretrained(source, revision=self.revision)
            model = AutoModel.from_pretrained(source, revision=self.revision, dtype="auto").eval()
        rows = tokenizer(list(texts), truncation=True, max_length=TOKENS)["input_ids"]
        vectors = np.zeros((len(rows), model.config.get_text_config().hidden_size), np.float32)
        bar = tqdm(total=len(rows), desc="item vectors", unit="item", mininterval=1)
        for group in batch_by_length([len(row) for row in rows], BATCH_TOKENS, BATCH_TOKENS // 8):
            longest = max(len(rows[number]) for number in group)
            # Padded behind: what comes after a token changes nothing in a causal model.
            ids = torch.zeros(len(group), longest, dtype=torch.long)
            mask = torch.zeros(len(group), longest, dtype=torch.long)
            for at, number in enumerate(group):
                ids[at, : len(rows[number])] = torch.tensor(rows[number])
                mask[at, : len(rows[number])] = 1
            with torch.inference_mode():
                states = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()  # (texts, tokens, width)
            vectors[group] = ((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)).numpy()
            bar.update(len(group))
        bar.close()
        return vectors


def _is_folder(model: str) -> bool:
    return Path(base_path(model)).is_dir()


def _checksum(model: str) -> str:
    """The checksum of all that determines a folder's vectors, modules in its subfolders included; ID@COMMIT of a Hub id."""
    if not _is_folder(model):
        return f"{model}@{_commit(model)}"
    folder = Path(base_path(model))
    names = [
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.suffix in SUFFIXES | VOCABULARIES and path.is_file()
    ]
    return files_checksum(folder, [name for name in names if not any(part.startswith(".") for part in name.parts)])


def _commit(model: str) -> str:
    """The commit that the default branch of a Hub model is at; offline, that of the copy in the cache."""
    problem: Exception | None = None
    for name in ("config.json", "modules.json"):  # the second where sentence-transformers needs no config
        try:
            # The cache holds a file in a folder named after its commit.
            return Path(hf_hub_download(model, name)).parent.name
        except (HTTPError, EntryNotFoundError, HFValidationError, OSError) as error:
            problem = error
    cause = " ".join(str(problem).split())
    raise LoadError(f"No model {model!r}: no such folder here, and not read from the Hub: {cause}") from problem
