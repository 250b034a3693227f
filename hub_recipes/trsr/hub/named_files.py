"""Copy a base or an adapter into a release by the names of its files: what else lies in a user's folder stays there."""

import re
from pathlib import Path

from trsr.core.modeling import PROMPT_FILE
from trsr.core.saving import DEQUANTIZED, LOADED, TRAINING, copy_file
from trsr.errors import ReleaseError

DOCUMENTS = re.compile(r"(LICEN[CS]E|NOTICE|COPYING|USE_POLICY)[\w-]*(\.(md|txt))?", re.I)
_PROCESSORS = re.compile(r"(pre|video_pre)?processor_config\.json")
_TEMPLATES = "additional_chat_templates"


def copy_base(source: Path, folder: Path) -> None:
    """Copy weights, config, tokenizer, chat templates, card, licence and the record of a training.

    Raises:
        ReleaseError: If there are no safetensors, or no tokenizer that is plain text.
    """
    names = {path.name for path in source.iterdir() if path.is_file()}
    if not any(name.startswith("model") and name.endswith(".safetensors") for name in names):
        raise ReleaseError(
            f"The base {source} holds no model.safetensors, and a release holds no weights of another kind. Load it, and save it "
            "with save_pretrained."
        )
    if not names & {"tokenizer.json", "vocab.json", "vocab.txt"}:
        raise ReleaseError(
            f"The base {source} holds no tokenizer.json, and a release holds no tokenizer of another kind. Load its tokenizer, and "
            "save it there with save_pretrained."
        )
    plain = {name for name in names if LOADED.fullmatch(name) and not name.endswith(".model")}
    plain -= {name for name in plain if name.startswith("adapter_")}
    others = {name for name in names if DOCUMENTS.fullmatch(name) or _PROCESSORS.fullmatch(name)}
    _copy(source, folder, plain | others | (names & {"README.md", TRAINING, DEQUANTIZED}))
    if templates := sorted((source / _TEMPLATES).glob("*.jinja")):
        _copy(source / _TEMPLATES, folder / _TEMPLATES, {path.name for path in templates})


def copy_adapter(source: Path, folder: Path) -> None:
    """Copy an adapter, the wording of its prompts and licence; and the record of a training with its card."""
    names = {path.name for path in source.iterdir() if path.is_file()}
    files = {name for name in names if LOADED.fullmatch(name) and name.startswith("adapter_")}
    files |= {name for name in names if DOCUMENTS.fullmatch(name)} | (names & {PROMPT_FILE})
    # A card that peft has written names the base by its path.
    _copy(source, folder, files | (names & {TRAINING, "README.md"} if TRAINING in names else set()))


def _copy(source: Path, folder: Path, names: set[str]) -> None:
    folder.mkdir(parents=True)
    for name in sorted(names):
        copy_file(source / name, folder / name)
