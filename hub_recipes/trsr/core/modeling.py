"""Load a recommender: base, adapter and ranking prompt, from a pipeline repo, an adapter repo or a plain model."""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from transformers import AutoConfig, AutoModelForCausalLM

from .compat import attention_of, use_adapter
from .errors import LoadError

logger = logging.getLogger(__name__)

PROMPT_FILE = "ranking_prompt.json"
ADAPTER_FILE = "adapter_config.json"
RANKER = "default"  # what the adapter that ranks is called in memory: the name that peft gives
SUMMARIZER = "summarizer"  # and the one that summarises
RELEASE_FILE = "release.json"  # of a release folder: kind of repo, which is its folder's name -> repo id
DECISION_FILES = ("decision.json", "decision_template.jinja")

# How a repo is asked, whichever it is.
_HUB_OPTIONS = ("token", "cache_dir", "local_files_only", "force_download", "proxies")
# What `pipeline` and the Auto classes pass on, and what is the pipeline repo's own or a base does not take.
_OWN_OPTIONS = (
    "adapter_kwargs",
    "trust_remote_code",
    "_from_pipeline",
    "code_revision",
    "config",
    "revision",
    "subfolder",
    "_commit_hash",
)


class TextRichRecommender:
    """Loads the base with its adapter; what it returns is the base's own class. Stands where the Auto classes want a model.

    A pipeline repo's config.json says under `trsr`: `base_model`, `base_revision`, `adapter`, `adapter_revision`,
    `ranking_prompt`, `temperature`, `bias`, `summarizer`, `method`, `block_size`, `max_blocks`, and `summarizer_adapter`: a second
    adapter, which summarises, in a subfolder of the adapter's repo. Base and adapters are repo ids, or paths that begin with
    `./` and lie in the pipeline repo itself; in a local folder also `../`, so that a release can be moved as a whole. Repos
    that a release folder holds beside the pipeline are taken from there, also before they are on the Hub.
    """

    @classmethod
    def register_for_auto_class(cls, auto_class="AutoModel"):
        """Called by the Auto classes; nothing to do, for a base saves itself."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """Load a recommender. Takes what `from_pretrained` of the base takes, such as `dtype` and `attn_implementation`.

        Args:
            pretrained_model_name_or_path: Hub id or folder of a pipeline repo, an adapter repo or a model.
            revision: Of a pipeline repo, which pins its base and adapter; else of the base.

        Returns:
            The base, in evaluation mode, with the adapter that ranks switched on.

        Raises:
            LoadError: If a part is missing, out of reach or damaged.
        """
        name = str(pretrained_model_name_or_path)
        hub = {option: kwargs[option] for option in _HUB_OPTIONS if kwargs.get(option) is not None}
        asked = {**hub, "revision": kwargs.get("revision"), "subfolder": kwargs.get("subfolder") or ""}
        config = kwargs.get("config")
        # `revision` is the base's where an adapter repo is loaded, as transformers has it.
        adapter_at = {**hub, "revision": (kwargs.get("adapter_kwargs") or {}).get("revision")}
        adapted = None
        with suppress(LoadError):  # out of reach: then its config is as well, or it is cached and no adapter repo
            adapted = None if config else optional_file(name, ADAPTER_FILE, adapter_at)
        if adapted:
            settings = _of_adapter(name, Path(adapted), adapter_at, kwargs.get("revision"))
            options, asked = dict(kwargs), adapter_at
        else:
            with _loading(name):
                config = config or AutoConfig.from_pretrained(name, **asked)
            settings = getattr(config, "trsr", None) or {}
            if "base_model" not in settings:
                return _plain(name, kwargs, asked)
            options = {**_set_in_config(config, name, asked), **kwargs}
        options = {option: value for option, value in options.items() if option not in _OWN_OPTIONS}
        parts = _parts(settings, name, asked)
        base, at = parts["base_model"]
        with _loading(f"The base {base}"):
            model: Any = AutoModelForCausalLM.from_pretrained(base, **{**options, **at})
        for part, called in (("adapter", RANKER), ("summarizer_adapter", SUMMARIZER)):
            if part in parts:
                adapter, at = parts[part]
                load_adapter(model, called, adapter, {**hub, **at})
        if "summarizer_adapter" in parts:
            use_adapter(model, RANKER)
        model.config.trsr = settings
        model.trsr_parts = parts  # where each is from, for saving
        # `pipeline("decision")` looks its files up by the model's name, without a revision: not the base's name, then, but
        # the folder that holds this revision of the pipeline repo.
        decision = [path for file in DECISION_FILES if (path := optional_file(name, file, asked))]
        model.name_or_path = str(Path(decision[0]).parent) if len(decision) == len(DECISION_FILES) else name
        return model


@contextmanager
def _loading(what: str) -> Iterator[None]:
    """What fails inside is a LoadError of one line."""
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        raise LoadError(f"{what} cannot be loaded: {' '.join(str(error).split())}") from error


def _set_in_config(config, name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What a caller has set in the pipeline repo's config, to be passed on to the base: the Auto classes put it there."""
    stated = AutoConfig.from_pretrained(name, **asked).to_dict()
    changed = {key: value for key, value in config.to_dict().items() if key not in stated or value != stated[key]}
    if attention := attention_of(config):
        changed["attn_implementation"] = attention
    return {key: value for key, value in changed.items() if not key.startswith("_") and key != "dtype"}


def _parts(settings: Mapping[str, Any], name: str, asked: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Where the parts of the pipeline repo `name` are: setting -> a repo or folder, and the revision and subfolder in it."""
    parts = {"base_model": _locate(settings["base_model"], settings.get("base_revision"), name, asked)}
    if settings.get("adapter"):
        adapter, at = parts["adapter"] = _locate(settings["adapter"], settings.get("adapter_revision"), name, asked)
        if second := settings.get("summarizer_adapter"):
            inside = adapter, {**at, "subfolder": _join(at.get("subfolder"), second)}
            parts["summarizer_adapter"] = _locate(second, None, name, asked) if second.startswith(".") else inside
    return parts


def _locate(part: str, revision: str | None, name: str, asked: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if not part.startswith("."):
        held = _in_release(part, Path(name, asked.get("subfolder", "")))
        return (str(held), {"revision": None}) if held else (part, {"revision": revision})
    if Path(name).is_dir():
        return str((Path(name) / asked.get("subfolder", "") / part).resolve()), {"revision": None}
    if not part.startswith("./"):
        raise LoadError(f"{name} names {part!r}, a path outside it, which only a local folder may do.")
    return name, {"revision": asked["revision"], "subfolder": _join(asked.get("subfolder", ""), part[2:])}


def _in_release(repo: str, pipeline: Path) -> Path | None:
    """The folder of a base or an adapter beside a local pipeline; None where there is no release, or none with this repo.

    What merely lies there under such a folder's name is never taken for the repo.
    """
    if not pipeline.is_dir():
        return None
    folder = pipeline.resolve().parent
    try:
        repos = json.loads((folder / RELEASE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    kinds = [kind for kind in ("base", "adapter") if isinstance(repos, dict) and repos.get(kind) == repo]
    return next((folder / kind for kind in kinds if (folder / kind).is_dir()), None)


def _join(*parts: str | None) -> str:
    """A path in a repo; empty parts are left out."""
    return "/".join(filter(None, parts))


def load_adapter(model, name: str, source: str, options: Mapping[str, Any]) -> None:
    """Load an adapter into a base, whole or not at all, and switch it on.

    Args:
        name: What it is called in memory.
        source: Its Hub id or folder.
        options: Its revision and subfolder, and how the Hub is asked.

    Raises:
        LoadError: If it is not there, if weights of it are missing, or if there are others.
    """
    what = f"The adapter {_join(source, options.get('subfolder'))}"
    # transformers takes an adapter that it may not read for none at all.
    if optional_file(source, ADAPTER_FILE, options) is None:
        raise LoadError(f"{what} cannot be loaded: there is no {ADAPTER_FILE}.")
    # Two adapters are meant to be here, and the second one may change embeddings that are tied. Of the weights of the first,
    # transformers reports that they are missing in the second's file.
    log = logging.getLogger("transformers.integrations.peft")
    level = log.level
    with warnings.catch_warnings(), _loading(what):
        warnings.filterwarnings("ignore", "Already found a `peft_config`")
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")
        try:
            log.setLevel(logging.ERROR)
            loaded = model.load_adapter(source, name, adapter_kwargs=dict(options))
        finally:
            log.setLevel(level)
    _check_loaded(what, loaded.to_dict(), f".{name}")


def _check_loaded(what: str, loaded: Mapping[str, Any], marker: str = "") -> None:
    """Raise LoadError where weights of an adapter are missing, of another shape, or left over.

    Args:
        what: What was loaded, for the message.
        loaded: What transformers reports of it.
        marker: What the names of its weights hold; missing ones without it belong to others.
    """
    lacks = sorted(key for key in loaded.get("missing_keys", ()) if marker in key)
    others = sorted(str(key) for kind in ("unexpected_keys", "mismatched_keys") for key in loaded.get(kind, ()))
    if lacks or others:
        raise LoadError(
            f"{what} does not fit its config: it lacks {len(lacks)} weights and has {len(others)} others, such as "
            f"{(lacks + others)[0]!r}. It is damaged, or made for another base: publish it again."
        )


def _of_adapter(name: str, config: Path, asked: Mapping[str, Any], revision: str | None) -> dict[str, Any]:
    """The settings of an adapter repo: it names its base, and brings its ranking prompt along."""
    stated = json.loads(config.read_text(encoding="utf-8"))
    settings = {
        "base_model": stated["base_model_name_or_path"],
        "base_revision": stated.get("revision") or revision,
        "adapter": name,
        "adapter_revision": asked["revision"],
    }
    if prompt := optional_file(name, PROMPT_FILE, asked):
        settings["ranking_prompt"] = json.loads(Path(prompt).read_text(encoding="utf-8"))
    if decision := optional_file(name, DECISION_FILES[0], asked):
        decided = json.loads(Path(decision).read_text(encoding="utf-8"))
        settings["temperature"] = decided.get("temperature", {}).get("noul", 1.0)
        settings["bias"] = decided.get("bias", {}).get("noul", 0.0)
    return settings


def _plain(name: str, kwargs: Mapping[str, Any], asked: Mapping[str, Any]):
    """A model without adapters of ours, which transformers loads itself; it may bring its ranking prompt along."""
    options = {key: value for key, value in kwargs.items() if key not in ("config", "_from_pipeline")}
    with _loading(name):
        model = AutoModelForCausalLM.from_pretrained(name, **options)
    try:
        prompt = optional_file(name, PROMPT_FILE, asked)
    except LoadError as error:
        logger.warning(f"{error} The default prompt is taken.")
        return model
    if prompt:
        model.config.trsr = {"ranking_prompt": json.loads(Path(prompt).read_text(encoding="utf-8"))}
    return model


def optional_file(repo: str, file: str, asked: Mapping[str, Any]) -> str | None:
    """Where a file of a repo or folder lies; None if it has none.

    Args:
        asked: Revision, subfolder, and how the Hub is asked.

    Raises:
        LoadError: If nobody can say whether there is one: the Hub is out of reach, and it is not in the cache.
    """
    path = _join(asked.get("subfolder"), file)
    if Path(repo).is_dir():
        return str(Path(repo) / path) if (Path(repo) / path).is_file() else None
    options = {key: value for key, value in asked.items() if key not in ("subfolder", "proxies")}
    try:
        return hf_hub_download(repo, path, **options)
    except LocalEntryNotFoundError as error:
        where = {key: options[key] for key in ("cache_dir", "revision") if options.get(key)}
        # Not None: known not to be there.
        if try_to_load_from_cache(repo, path, **where) is not None:
            return None
        raise LoadError(
            f"Whether {repo} has a file {path} cannot be told: the Hub is out of reach, and the file is not in the cache. "
            "Load it once while the Hub can be reached."
        ) from error
    except EntryNotFoundError:
        return None
    except OSError as error:
        raise LoadError(f"{path} of {repo} cannot be read: {' '.join(str(error).split())}") from error
