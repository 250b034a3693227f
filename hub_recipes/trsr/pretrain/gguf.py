"""A base from a GGUF file: its weights, de-quantised, as a plain transformers folder with a card that says so.

Nothing of the file is run: it holds tensors, a tokenizer and settings. Does not download: `packaged` does.
"""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCardData
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import is_gguf_available

from trsr.errors import LoadError, UsageError
from trsr.progress import without_bars
from trsr.records.files import one_writer, whole_folder, write_json
from trsr.records.versions import versions
from trsr.report.templates import render

RECORD = "gguf.json"
_MAGIC = b"GGUF"
# Values of tokenizer.ggml.pre that llama.cpp splits as GPT-2 does, and those of which it cuts off every digit first.
_AS_GPT2 = {
    "gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "roberta-bpe", "gigachat", "a.x-4.0", "mellum",
    "modern-bert", "jina-es", "jina-de", "jina-v1-en", "jina-v2-es", "jina-v2-de", "jina-v2-code",
}  # fmt: skip
_DIGITS_ALONE = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
logger = logging.getLogger(__name__)


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
        the written weights, what is not known of how the tokenizer splits texts (or None), versions.

    Raises:
        UsageError: As `check_before` does.
        LoadError: If the file is no whole GGUF file, its checksum differs, or transformers does not know its
            architecture, leaves out weights or a scaling of positions that the file has, or reads weights that are not finite.
    """
    check_before(out)
    checksum = _checksum(file)
    if sha256 and checksum != sha256:
        raise LoadError(
            f"{file.name} has the checksum {checksum}, expected {sha256}: it is damaged, or another file. Get it again."
        )
    network, tokenizer = _load(file)
    from gguf import GGUFReader

    opened = GGUFReader(file)
    settings = _settings(opened)
    _check_model(file.name, opened, network, settings)
    unknown_split = _set_split(tokenizer, settings)
    if unknown_split:
        logger.warning(
            f"{file.name}: {unknown_split}. Texts may become other tokens than those the model was trained on."
        )
    record = {
        "file": file.name,
        "sha256": checksum,
        "quantization": _quantization(opened),
        "model": model,
        "parameters": network.num_parameters(),
        "dtype": dtype,
        "unknown_split": unknown_split,
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
        write_json(draft / RECORD, record)
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
        raise LoadError(f"{file.name} lacks {len(missing)} weights of the model, such as {missing[0]}. Get it again.")
    # What transformers remembers of the quantisation keeps `save_pretrained` from writing a plain folder.
    for name in ("hf_quantizer", "quantization_method", "is_quantized"):
        network.__dict__.pop(name, None)
    if hasattr(network.config, "quantization_config"):
        del network.config.quantization_config
    return network, tokenizer


def _settings(opened: Any) -> dict[str, Any]:
    """Key -> value of what an opened file says of its model and its tokenizer; lists are left out."""
    from gguf import GGUFValueType

    settings = {}
    for field in opened.fields.values():
        if field.types and field.types[0] != GGUFValueType.ARRAY:
            value = field.parts[field.data[0]]
            settings[field.name] = bytes(value).decode() if field.types[0] == GGUFValueType.STRING else value[0].item()
    return settings


def _check_model(file: str, opened: Any, network: Any, settings: Mapping[str, Any]) -> None:
    """Raise LoadError if a model is not that of its file: it lacks weights or a setting, or has weights that are not finite."""
    if lost := _lost_tensors(opened, network, settings["general.architecture"]):
        raise LoadError(
            f"{file} holds weights that transformers does not read ({len(lost)}, such as {lost[0]}): the base would be another model. "
            "Take the model from where it is not a GGUF file."
        )
    if scaling := _lost_scaling(network, settings):
        raise LoadError(
            f"{file} scales positions ({scaling}), which transformers does not read: the base would be another model. Take the model "
            "from where it is not a GGUF file."
        )
    broken = [name for name, weight in network.named_parameters() if not torch.isfinite(weight).all()]
    if broken:
        raise LoadError(
            f"{file} holds weights with values that are not finite ({len(broken)}, such as {broken[0]}): it is damaged. Get it again."
        )


def _lost_tensors(opened: Any, network: Any, architecture: str) -> list[str]:
    """Names of tensors in an opened file that no weight of the model comes from."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    layers = network.config.get_text_config().num_hidden_layers
    tensors = {tensor.name: int(tensor.n_elements) for tensor in opened.tensors}
    # Blocks behind the last layer predict tokens beyond the next one.
    tensors = {name: count for name, count in tensors.items() if not (_block(name) or 0) >= layers}
    if sum(tensors.values()) == sum(weight.numel() for weight in network.parameters()):
        return []
    # A tied head has its weights from the embeddings, and may stand in the file as well.
    maps = [get_tensor_name_map(key, layers) for key, known_as in MODEL_ARCH_NAMES.items() if known_as == architecture]
    model_names = {_gguf_name(names, name) for names in maps for name in network.state_dict()}
    return sorted(name for name in tensors if name not in model_names)


def _block(name: str) -> int | None:
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "blk" else None


def _gguf_name(names: Any, name: str) -> str | None:
    """What a weight of transformers is called in a GGUF file: there, names may begin at a module within the model."""
    while name:
        if gguf_name := names.get_name(name, try_suffixes=(".weight", ".bias")):
            return gguf_name
        name = name.partition(".")[2]
    return None


def _lost_scaling(network: Any, settings: Mapping[str, Any]) -> str | None:
    """The scaling of positions that a file has and its model has not."""
    config, prefix = network.config.get_text_config(), f"{settings['general.architecture']}.rope."
    kind, factor = settings.get(f"{prefix}scaling.type", "none"), settings.get(f"{prefix}scaling.factor")
    if f"{prefix}scale_linear" in settings:  # of older files
        kind, factor = "linear", settings[f"{prefix}scale_linear"]
    values = (getattr(config, "rope_parameters", None) or {}).values()
    parts = [part for part in values if isinstance(part, Mapping)] or [getattr(config, "rope_parameters", None) or {}]
    scaled = any(part.get("rope_type", "default") != "default" for part in parts)
    return None if kind == "none" or factor == 1 or scaled else f"{kind}, factor {factor}"


def _set_split(tokenizer: Any, settings: Mapping[str, Any]) -> str | None:
    """Let a byte-level tokenizer split texts as its file says, where transformers does not.

    Returns:
        What is not known of it, or None.
    """
    from tokenizers import pre_tokenizers

    if settings.get("tokenizer.ggml.model") != "gpt2":
        return None
    kind, backend = settings.get("tokenizer.ggml.pre"), tokenizer.backend_tokenizer
    if not isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
        return None  # transformers knows the kind
    if kind in _DIGITS_ALONE:
        digits = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    elif kind is None:
        return "it does not say how its tokenizer splits texts (tokenizer.ggml.pre), which are split as GPT-2 does"
    elif kind not in _AS_GPT2:
        return f"its tokenizer splits texts in a way that is not known here (tokenizer.ggml.pre is {kind}), which are split as GPT-2 does"
    return None


def _quantization(opened: Any) -> str:
    """The type that most weights have in an opened file, such as Q4_1."""
    sizes: dict[str, int] = {}
    for tensor in opened.tensors:
        sizes[tensor.tensor_type.name] = sizes.get(tensor.tensor_type.name, 0) + int(tensor.n_elements)
    return max(sizes, key=lambda name: sizes[name])
