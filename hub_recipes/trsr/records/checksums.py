"""Checksums of models and datasets: they identify the content, wherever it lies."""

import contextlib
import hashlib
import re
from collections.abc import Collection
from pathlib import Path

from huggingface_hub.constants import HF_HOME

from trsr.assets.paths import base_path, dataset_path
from trsr.errors import DataError, UsageError
from trsr.records.datasets import hub_file, locate
from trsr.records.files import write_text

PREFIX = "sha256:"
SUFFIXES = {".safetensors", ".json", ".jinja"}  # weights, configs, tokenizer, templates
VOCABULARIES = {".model", ".txt"}  # what a tokenizer is made from where there is no tokenizer.json


def digest(*folders: Path) -> str:
    """Checksum of the weights, configs and tokenizers in folders, as `sha256:` and hex digits.

    Checksums of files are cached in the home folder of Hugging Face, and computed again when size or time of a file changes.

    Raises:
        ValueError: If a folder holds no safetensors.
    """
    lines = []
    for folder in folders:
        suffixes = SUFFIXES if (folder / "tokenizer.json").exists() else SUFFIXES | VOCABULARIES
        files = sorted(path for path in folder.iterdir() if path.suffix in suffixes and path.is_file())
        if not any(path.suffix == ".safetensors" for path in files):
            raise UsageError(f"No safetensors in {folder}: save the model with save_pretrained.")
        lines += [f"{path.name} {file_checksum(path)}" for path in files]
    return PREFIX + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def files_checksum(folder: Path, names: Collection[Path]) -> str:
    """Checksum of files of a folder and their names, as `sha256:` and hex digits; it does not depend on their order.

    Args:
        names: Within the folder.

    Raises:
        UsageError: If none of them holds weights as safetensors.
    """
    if not any(name.suffix == ".safetensors" for name in names):
        raise UsageError(f"No safetensors in {folder}: save the model with save_pretrained.")
    lines = sorted(f"{name.as_posix()} {file_checksum(folder / name)}" for name in names)
    return PREFIX + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def base_checksum(base: str) -> str:
    """Identify a base: its `digest` if it is a folder or in the package, its id if it is on the Hub."""
    folder = Path(base_path(base))
    return digest(folder) if folder.is_dir() else base


def dataset_checksum(source: str, revision: str | None = None, configs: Collection[str] = ()) -> str:
    """Identify the content of a dataset: `sha256:` and a checksum for a folder, the commit for a Hub dataset.

    The checksum is over the names and contents of the folder's Parquet files. Cards and records do not count.

    Args:
        source: Folder, Hub id, or the name of a dataset in the package.
        configs: Configs to include, such as `items` and `histories`; default all. Adding summaries later changes the
            checksum of all configs, but not that of `items` and `histories`. Ignored for a Hub dataset.

    Raises:
        DataError: If the folder holds no such Parquet file, or the Hub dataset cannot be read.
    """
    if revision and re.fullmatch("[0-9a-f]{40}", revision) and not Path(dataset_path(source)).is_dir():
        return revision
    folder = Path(locate(source, revision))
    if not folder.is_dir():
        return _commit(source, revision)
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.parquet")}
    lines = [
        f"{name} {file_checksum(path)}"
        for name, path in sorted(files.items())
        if not configs or name.partition("/")[0] in configs
    ]
    if not lines:
        of_configs = f" of {', '.join(configs)}" if configs else ""
        raise DataError(
            f"No Parquet files{of_configs} in the dataset folder {source!r}. Make one with dataset_scripts/."
        )
    return PREFIX + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _commit(repo: str, revision: str | None) -> str:
    """The commit of a revision of a Hub dataset; offline, the commit of the cached copy."""
    card = hub_file(repo, "README.md", revision)
    if card is None:
        raise DataError(f"No dataset {repo!r}: no such folder here, and that on the Hub has no README.md.")
    return card.parent.name  # the cache holds a file in a folder named after its commit


def file_checksum(path: Path) -> str:
    """SHA-256 of a file, cached as `digest` says."""
    state = path.stat()
    # `cp -p` and `rsync -t` keep the size and the time of modification of other content; nothing sets the time of change.
    version = f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns} {state.st_ino}"
    key = hashlib.sha256(f"{path.resolve()} {version}".encode()).hexdigest()
    cache_file = Path(HF_HOME) / "trsr" / "checksums" / key
    with contextlib.suppress(OSError):  # not cached yet, or not for us to read
        return cache_file.read_text(encoding="utf-8")
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    with contextlib.suppress(OSError):  # where the cache cannot be written, it is computed each time
        write_text(cache_file, checksum)
    return checksum
