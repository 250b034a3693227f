"""Write a recommender as a pipeline repo: config, code, tokenizer, and the weights that no other repo holds."""

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from .catalogue import FILES, catalogue_files
from .compat import adapter_layers, without_peft
from .errors import InputError
from .modeling import CATALOGUE, DECISION_FILES, PROMPT_FILE, read_json

CODE = Path(__file__).parent
TRAINING, DEQUANTIZED = "training.json", "gguf.json"  # what a base or an adapter was made from
# Copied with a base or an adapter, beside what is loaded. Weights are safetensors: other formats can run code where they are loaded.
_RECORDS = {PROMPT_FILE, TRAINING, DEQUANTIZED}
# Files that transformers and peft look for: left from an earlier save, they would be loaded in place of, or with, the new ones.
LOADED = re.compile(
    r"(adapter_)?model[\w.-]*\.safetensors(\.index\.json)?|(chat|decision)_template\.jinja|(merges|vocab)\.txt|"
    r"(tokenizer|spiece|sentencepiece[\w.-]*)\.model|"
    r"((adapter_|generation_|tokenizer_)?config|tokenizer|special_tokens_map|added_tokens|vocab|decision|chat_template)\.json"
)
_CONFIGS = {"config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"}
_PATHS = ("_name_or_path", "name_or_path", "tokenizer_file")  # where a part lay when it was saved
# The setting that names a part -> the folder it is copied into, and the setting that names its revision.
_FOLDERS = {
    "base_model": ("base", "base_revision"),
    "adapter": ("adapter", "adapter_revision"),
    "summarizer_adapter": ("summarizer", None),
}


def save_recommender(folder: Path, model, tokenizer, settings: Mapping[str, Any]) -> None:
    """Write a folder from which `pipeline` loads this recommender again; it can be pushed to a model repo unchanged.

    A base or adapter that has a repo on the Hub is named there, with its revision; one from a local folder is copied, and
    a model that was made in memory is saved. Where the folder holds a recommender, it is replaced; other files there stay.

    Args:
        model: As `TextRichRecommender` loads it, a `PeftModel`, or a model without adapters.
        settings: What config.json says under `trsr`, see `TextRichRecommender`.

    Raises:
        ValueError: If the model holds adapters of unknown origin, a part has no safetensors, or the folder holds files of
            these names and no recommender. Nothing is written then.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        draft = Path(temporary) / "draft"
        draft.mkdir()
        all_settings = {**settings, **_write_parts(draft, model)}
        write_config(draft, without_peft(model).config.to_dict(), all_settings)
        save_tokenizer(draft, tokenizer)
        copy_code(draft)
        source = Path(str(getattr(without_peft(model), "name_or_path", "")))
        for name in DECISION_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, draft / name)
        if origin := getattr(without_peft(model), "trsr_catalogue", None):
            (draft / CATALOGUE).mkdir()
            for name, path in catalogue_files(*origin).items():
                shutil.copyfile(path, draft / CATALOGUE / name)
        _check_replaceable(folder, draft)
        written = {path.relative_to(draft) for path in draft.rglob("*") if path.is_file()}
        # Where this stops halfway, weights and configs are there all the same.
        for inside in sorted(written, key=_order):
            _move(draft / inside, folder / inside)
        _remove_stale(folder, written)


def _order(path: Path) -> tuple[bool, bool, Path]:
    """Weights first, the config of the repo last."""
    return path.suffix != ".safetensors", path == Path("config.json"), path


def _move(source: Path, to: Path) -> None:
    """Put a file in its place at once, in place of one of that name."""
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(source, to)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copyfile(source, to)  # the folder is of another file system than the one that it lies in


def _check_replaceable(folder: Path, draft: Path) -> None:
    """Raise InputError if `folder` holds files of these names, and no recommender."""
    taken = sorted(path.name for path in draft.iterdir() if (folder / path.name).exists())
    if not taken:
        return
    try:
        ours = "trsr" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        ours = False
    if not ours:
        raise InputError(
            f"{folder} holds {', '.join(taken[:3])} and no recommender, so it is left as it is. Choose another folder, or empty it."
        )


def _remove_stale(folder: Path, written: Collection[Path]) -> None:
    """Remove from `folder` what would be loaded of an earlier save, beside what was written now."""
    for name in FILES:
        if Path(CATALOGUE, name) not in written:
            (folder / CATALOGUE / name).unlink(missing_ok=True)
    for part in (folder, *(folder / subfolder for subfolder, _ in _FOLDERS.values())):
        for path in part.iterdir() if part.is_dir() else ():
            ours = part != folder or ".safetensors" not in path.name  # beside the parts no weights are saved
            if ours and path.is_file() and LOADED.fullmatch(path.name) and path.relative_to(folder) not in written:
                path.unlink()


def write_config(folder: Path, base: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Write the config.json of a pipeline repo.

    Args:
        base: The base's config.
        settings: What it says under `trsr`.
    """
    config = {
        **base,
        # `transformers serve` loads through the second.
        "auto_map": dict.fromkeys(("AutoModelForCausalLM", "AutoModelForDecision"), "modeling.TextRichRecommender"),
        "custom_pipelines": {
            "text-rich-recommendation": {
                "impl": "pipeline.TextRichRecommendationPipeline",
                "pt": ["AutoModelForCausalLM"],
                "type": "text",
            }
        },
        "trsr": dict(settings),
    }
    # If loading fails, `pipeline` would try these architectures, and report missing weights, which a pipeline repo never has.
    config.pop("architectures", None)
    for key in ("_name_or_path", "_commit_hash", "transformers_version"):
        config.pop(key, None)
    write_json(folder / "config.json", config)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")


def core_modules() -> list[str]:
    """Names of the modules in this folder that a pipeline repo needs: its two entry points and all that they import."""
    modules: dict[str, None] = {}
    waiting = ["pipeline", "modeling"]
    while waiting:
        name = waiting.pop()
        if name not in modules:
            modules[name] = None
            waiting += re.findall(r"^from \.(\w+) import", (CODE / f"{name}.py").read_text(encoding="utf-8"), re.M)
    return sorted(modules)


def save_tokenizer(folder: Path, tokenizer, **settings: Any) -> None:
    """Write a tokenizer, without what is of this machine.

    Args:
        settings: More fields of its config, which the tokenizer itself would not write.
    """
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    saved = read_json(str(path))
    local = ("is_local", "local_files_only", "name_or_path")
    write_json(path, {key: value for key, value in saved.items() if key not in local} | settings)


def copy_code(folder: Path) -> None:
    """Copy the modules that a pipeline repo needs."""
    for name in core_modules():
        shutil.copyfile(CODE / f"{name}.py", folder / f"{name}.py")


def _write_parts(folder: Path, model) -> dict[str, Any]:
    """Copy or save the parts that have no repo of their own. Returns the settings that name all parts."""
    parts = getattr(model, "trsr_parts", None)
    if parts is None:
        return _save_in_memory(folder, model)
    settings: dict[str, Any] = dict.fromkeys(_FOLDERS)
    for key, (source, options) in parts.items():
        subfolder, revision = _FOLDERS[key]
        if Path(source).is_dir() or options.get("subfolder"):
            _copy(_local(source, options, getattr(model, "trsr_cache_dir", None)), folder / subfolder)
            settings[key] = f"./{subfolder}"
        else:
            settings[key] = source
        if revision:
            settings[revision] = None if settings[key].startswith("./") else options.get("revision")
    return settings


def _save_in_memory(folder: Path, model) -> dict[str, Any]:
    settings: dict[str, Any] = dict.fromkeys((*_FOLDERS, "base_revision", "adapter_revision"))
    base, adapted = without_peft(model), without_peft(model) is not model
    if not adapted:
        if adapter_layers(model):
            raise InputError(
                "The model holds adapters of unknown origin. Give the pipeline a PeftModel, or load it "
                'with pipeline("text-rich-recommendation", model=...).'
            )
        model.save_pretrained(folder / "base")
        return settings | {"base_model": "./base"}
    name = str(base.name_or_path)
    if not name:
        raise InputError("The base of the PeftModel has no name: save it first, and load it from there.")
    _save_active_adapter(folder / "adapter", model, "../base" if Path(name).is_dir() else name)
    if Path(name).is_dir():
        _copy(Path(name), folder / "base")
        return settings | {"base_model": "./base", "adapter": "./adapter"}
    return settings | {
        "base_model": name,
        "base_revision": getattr(base.config, "_commit_hash", None),
        "adapter": "./adapter",
    }


def _save_active_adapter(folder: Path, model, base: str) -> None:
    """Write the one adapter of a PeftModel that ranks.

    Args:
        base: What its config names as the base.
    """
    active = model.active_adapters
    if len(active) != 1:
        raise InputError(
            f"{len(active)} adapters of the PeftModel are active, and one ranks: choose it with set_adapter."
        )
    model.save_pretrained(folder, selected_adapters=list(active))
    (folder / "README.md").unlink(missing_ok=True)
    if (inner := folder / active[0]).is_dir():  # where peft puts any but the one called default
        for path in list(inner.iterdir()):
            path.rename(folder / path.name)
        inner.rmdir()
    config = folder / "adapter_config.json"
    write_json(config, {**read_json(str(config)), "base_model_name_or_path": base})


def _local(source: str, options: Mapping[str, Any], cache_dir: str | None) -> Path:
    """The folder of a base or adapter; one from the Hub is in the cache, for it was loaded from there."""
    if not Path(source).is_dir():
        try:
            source = snapshot_download(
                source, revision=options.get("revision"), cache_dir=cache_dir, local_files_only=True
            )
        except OSError as error:
            raise InputError(
                f"{source} is no longer in the cache that it was loaded from: load the pipeline again."
            ) from error
    return Path(source) / (options.get("subfolder") or "")


def _copy(source: Path, into: Path) -> None:
    files = [
        path
        for path in sorted(source.iterdir())
        if path.is_file() and (LOADED.fullmatch(path.name) or path.name in _RECORDS)
    ]
    if not any(path.suffix == ".safetensors" for path in files):
        raise InputError(f"{source} has no safetensors: save the model there with save_pretrained.")
    into.mkdir()
    for path in files:
        copy_file(path, into / path.name)


def copy_file(path: Path, to: Path) -> None:
    """Copy a file of a base or an adapter; a config without what says where it lay."""
    values = read_json(str(path)) if path.name in _CONFIGS else None
    if isinstance(values, dict) and (cleaned := _without_paths(values)) != values:
        write_json(to, cleaned)
    else:
        shutil.copyfile(path, to)


def _without_paths(values: Any) -> Any:
    if not isinstance(values, dict):
        return values
    return {key: _without_paths(value) for key, value in values.items() if key not in _PATHS}
