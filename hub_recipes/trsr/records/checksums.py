"""A model folder by its content: what it answers depends on that, not on where it lies."""

import hashlib
import os
from pathlib import Path

from huggingface_hub.constants import HF_HOME

from trsr.errors import UsageError

PREFIX = "sha256:"
_SUFFIXES = {".safetensors", ".json", ".jinja"}  # weights, configs, tokenizer, templates


def digest(*folders: Path) -> str:
    """`sha256:` and the checksum of the folders' weights, configs and tokenizers.

    That of a file is kept in Hugging Face's home, and made anew when the file's size or time has changed.

    Raises:
        ValueError: If a folder holds no safetensors.
    """
    lines = []
    for folder in folders:
        files = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file())
        if not any(path.suffix == ".safetensors" for path in files):
            raise UsageError(f"No safetensors in {folder}: save the model with save_pretrained.")
        lines += [f"{path.name} {_checksum(path)}" for path in files]
    return PREFIX + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _checksum(path: Path) -> str:
    state = path.stat()
    place = hashlib.sha256(f"{path.resolve()} {state.st_size} {state.st_mtime_ns}".encode()).hexdigest()
    kept = Path(HF_HOME) / "trsr" / "checksums" / place
    if kept.is_file():
        return kept.read_text(encoding="utf-8")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    draft = kept.with_name(f"{place}.{os.getpid()}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    draft.write_text(found, encoding="utf-8", newline="\n")
    draft.replace(kept)
    return found
