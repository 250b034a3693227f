"""A base from a GGUF file: its weights, de-quantised, as a plain transformers folder with a card that says so.

Nothing of the file is run: it holds tensors, a tokenizer and settings. Does not download: `packaged` does.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCardData
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import is_gguf_available

from trsr.errors import LoadError, UsageError
from trsr.progress import without_bars
from trsr.records.files import one_writer, whole_folder
from trsr.records.versions import versions
from trsr.report.templates import render

RECORD = "gguf.json"
_MAGIC = b"GGUF"


def check_before(out: Path) -> None:
    """Raise UsageError if `out` holds anything but a base that was made here, or the package gguf is missing."""
    if out.exists() and any(out.iterdir()) and not (out / RECORD).is_file():
        raise UsageError(f"{out} is not empty and holds no base made from a GGUF file. Choose another --out.")
    if not is_gguf_available():
        raise UsageError("Reading GGUF files takes one more package: pip install 'llm-trsr[gguf]'")


@one_writer
def convert(
    file: Path,
    out: Path,
    *,
    sha256: str | None = None,
    license: str = "other",
    model: str | None = None,
    dtype: str = "float32",
) -> dict[str, Any]:
    """Write the folder of a base, or nothing.

    Args:
        file: Ending in `.gguf`.
        out: Folder to write: free, or a base that was made here before.
        sha256: What the file's checksum has to be.
        license: Of the weights, as the Hub knows it.
        model: Hub id of the model that was quantised, where it is known.
        dtype: Of the weights that are written, `float32` or `bfloat16`.

    Returns:
        What RECORD in the folder says: the file, its checksum, its quantisation, the number of parameters, the precision of
        the written weights, versions.

    Raises:
        UsageError: As `check_before` does.
        LoadError: If the file is no whole GGUF file, its checksum is another, or transformers does not know its
            architecture.
    """
    check_before(out)
    found = _checksum(file)
    if sha256 and found != sha256:
        raise LoadError(
            f"{file.name} has the checksum {found}, expected {sha256}: it is damaged or another. Get it anew."
        )
    network, tokenizer = _load(file)
    record = {
        "file": file.name,
        "sha256": found,
        "quantization": _quantization(file),
        "model": model,
        "parameters": network.num_parameters(),
        "dtype": dtype,
        "versions": versions("gguf"),
    }
    header = ModelCardData(
        license=license,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["llm-trsr", "gguf"],
        base_model=model,
    )
    card = render("dequantized", {**record, "license": license}, header.to_dict())
    with whole_folder(out) as draft, without_bars():
        network.to(getattr(torch, dtype)).save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        (draft / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8", newline="\n")
        (draft / "README.md").write_text(card, encoding="utf-8", newline="\n")
    return record


def _checksum(file: Path) -> str:
    """SHA-256 of a GGUF file. Raises LoadError if it is none."""
    try:
        with file.open("rb") as opened:
            if opened.read(len(_MAGIC)) != _MAGIC:
                raise LoadError(f"{file} is no GGUF file: it does not begin with {_MAGIC.decode()}.")
            opened.seek(0)
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise LoadError(
            f"{file} cannot be read: {error.strerror}. Give a .gguf file, or a name that is known."
        ) from error


def _load(file: Path) -> tuple[Any, Any]:
    """The model in fp32, with every weight from the file, and its tokenizer."""
    try:
        with without_bars():
            pair: Any = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, dtype=torch.float32, output_loading_info=True
            )
            network, loaded = pair
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except Exception as error:  # the reader of a damaged file fails in any way
        raise LoadError(
            f"{file.name} cannot be read as a model: it is damaged, or of an architecture that transformers does not read from "
            f"GGUF ({type(error).__name__}: {' '.join(str(error).split())})."
        ) from error
    tied = set(getattr(network, "all_tied_weights_keys", None) or ())
    if missing := sorted(set(loaded["missing_keys"]) - tied):
        raise LoadError(f"{file.name} lacks {len(missing)} weights of the model, such as {missing[0]}. Get it anew.")
    # What transformers remembers of the quantisation keeps `save_pretrained` from writing a plain folder.
    for name in ("hf_quantizer", "quantization_method", "is_quantized"):
        network.__dict__.pop(name, None)
    if hasattr(network.config, "quantization_config"):
        del network.config.quantization_config
    return network, tokenizer


def _quantization(file: Path) -> str:
    """The type that most weights have in the file, such as Q4_1."""
    from gguf import GGUFReader

    sizes: dict[str, int] = {}
    for tensor in GGUFReader(file).tensors:
        sizes[tensor.tensor_type.name] = sizes.get(tensor.tensor_type.name, 0) + int(tensor.n_elements)
    return max(sizes, key=lambda name: sizes[name])
