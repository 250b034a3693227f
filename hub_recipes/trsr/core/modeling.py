"""Load a recommender: base, adapter and ranking prompt, from a pipeline repo, an adapter repo or a plain model."""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import validate_repo_id
from transformers import AutoConfig, AutoModelForCausalLM
from transformers import __version__ as transformers_version

from .compat import TRANSFORMERS, attention_of, use_adapter
from .errors import LoadError

logger = logging.getLogger(__name__)

PROMPT_FILE = "ranking_prompt.json"
ADAPTER_FILE = "adapter_config.json"
RANKER = "default"  # name in memory of the adapter that ranks: the default of peft
SUMMARIZER = "summarizer"  # name in memory of the adapter that summarises
RELEASE_FILE = "release.json"  # in a release folder: kind of repo (the name of its folder) -> repo id
DECISION_FILES = ("decision.json", "decision_template.jinja")
CATALOGUE = "catalogue"  # folder of a pipeline repo; under this name config.json says whether there is one

# Options of every request to the Hub.
_HUB_OPTIONS = ("token", "cache_dir", "local_files_only", "force_download", "proxies")
# Options that `pipeline` and the Auto classes pass on, but that a base does not take.
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
    """Loads the base with its adapter, as a model of the base's own class. The Auto classes take it for a model class.

    A pipeline repo's config.json says under `trsr`: `base_model`, `base_revision`, `adapter`, `adapter_revision`,
    `ranking_prompt`, `temperature`, `bias`, `summarizer`, `method`, `block_size`, `max_blocks`; `summary_prompts` and
    `summary_sampling`, where a model wrote the training summaries with other than the default ones; `summarizer_adapter`: a second
    adapter, which summarises, in a subfolder of the adapter's repo; and `catalogue`: whether the repo holds one. Base and adapters are repo ids, or paths that begin with
    `./` and lie in the pipeline repo itself; in a local folder also `../`, so that a release can be moved as a whole. Repos
    that a release folder holds beside the pipeline are taken from there, also before they are on the Hub.
    """

    @classmethod
    def register_for_auto_class(cls, auto_class="AutoModel"):
        """Does nothing; the Auto classes require it."""

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
        check_name(name)
        hub = {option: kwargs[option] for option in _HUB_OPTIONS if kwargs.get(option) is not None}
        repo_options = {**hub, "revision": kwargs.get("revision"), "subfolder": kwargs.get("subfolder") or ""}
        config = kwargs.get("config")
        # For an adapter repo, `revision` is that of the base, as in transformers.
        adapter_options = {**hub, "revision": (kwargs.get("adapter_kwargs") or {}).get("revision")}
        adapted = None
        # Out of reach: loading the config fails as well, or the repo is cached and holds no adapter.
        with suppress(LoadError):
            adapted = None if config else optional_file(name, ADAPTER_FILE, adapter_options)
        if adapted:
            settings = _of_adapter(name, Path(adapted), adapter_options, kwargs.get("revision"))
            options, repo_options = dict(kwargs), adapter_options
        else:
            with _loading(name):
                config = config or AutoConfig.from_pretrained(name, **repo_options)
            settings = getattr(config, "trsr", None) or {}
            if "base_model" not in settings:
                return _plain(name, kwargs, repo_options)
            options = {**_set_in_config(config, name, repo_options), **kwargs}
        options = {option: value for option, value in options.items() if option not in _OWN_OPTIONS}
        parts = _parts(settings, name, repo_options)
        base, part_options = parts["base_model"]
        with _loading(f"The base {base}"):
            model: Any = AutoModelForCausalLM.from_pretrained(base, **{**options, **part_options})
        for part, memory_name in (("adapter", RANKER), ("summarizer_adapter", SUMMARIZER)):
            if part in parts:
                adapter, part_options = parts[part]
                load_adapter(model, memory_name, adapter, {**hub, **part_options})
        if "summarizer_adapter" in parts:
            use_adapter(model, RANKER)
        model.config.trsr = settings
        model.trsr_parts, model.trsr_cache_dir = parts, hub.get("cache_dir")  # the origin of each, for saving
        # Read when it is first needed, at the commit of this config.
        commit = getattr(config, "_commit_hash", None) or repo_options["revision"]
        model.trsr_catalogue = (name, {**repo_options, "revision": commit}) if settings.get(CATALOGUE) else None
        # `pipeline("decision")` looks for its files under the model's name, without a revision. So the name must be the folder
        # with this revision of the pipeline repo, not the name of the base.
        decision = [path for file in DECISION_FILES if (path := optional_file(name, file, repo_options))]
        model.name_or_path = str(Path(decision[0]).parent) if len(decision) == len(DECISION_FILES) else name
        return model


@contextmanager
def _loading(part: str) -> Iterator[None]:
    """Turn an error within the context into a LoadError of one line: `part` cannot be loaded."""
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        raise LoadError(f"{part} cannot be loaded: {' '.join(str(error).split())}") from error


def _set_in_config(config, name: str, repo_options: Mapping[str, Any]) -> dict[str, Any]:
    """Options for the base that a caller gave to an Auto class, which put them into the config of the pipeline repo."""
    written = AutoConfig.from_pretrained(name, **repo_options).to_dict()
    changed = {key: value for key, value in config.to_dict().items() if key not in written or value != written[key]}
    if attention := attention_of(config):
        changed["attn_implementation"] = attention
    return {key: value for key, value in changed.items() if not key.startswith("_") and key != "dtype"}


def _parts(
    settings: Mapping[str, Any], name: str, repo_options: Mapping[str, Any]
) -> dict[str, tuple[str, dict[str, Any]]]:
    """Locate base and adapters of the pipeline repo `name`: setting -> repo or folder, and the revision and subfolder in it."""
    parts = {"base_model": _locate(settings["base_model"], settings.get("base_revision"), name, repo_options)}
    if settings.get("adapter"):
        adapter, options = parts["adapter"] = _locate(
            settings["adapter"], settings.get("adapter_revision"), name, repo_options
        )
        if second := settings.get("summarizer_adapter"):
            inside = adapter, {**options, "subfolder": _join(options.get("subfolder"), second)}
            parts["summarizer_adapter"] = (
                _locate(second, None, name, repo_options) if second.startswith(".") else inside
            )
    return parts


def _locate(part: str, revision: str | None, name: str, repo_options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if not part.startswith("."):
        folder = _in_release(part, Path(name, repo_options.get("subfolder", "")))
        return (str(folder), {"revision": None}) if folder else (part, {"revision": revision})
    if Path(name).is_dir():
        return str((Path(name) / repo_options.get("subfolder", "") / part).resolve()), {"revision": None}
    if not part.startswith("./"):
        raise LoadError(f"{name} names {part!r}, a path outside it, which only a local folder may do.")
    return name, {"revision": repo_options["revision"], "subfolder": _join(repo_options.get("subfolder", ""), part[2:])}


def _in_release(repo: str, pipeline: Path) -> Path | None:
    """The folder of a base or an adapter beside a local pipeline; None where there is no release, or none with this repo.

    A folder that merely has the right name is never taken for the repo: release.json must name it.
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
        name: Of the adapter in memory.
        source: Its Hub id or folder.
        options: Its revision and subfolder, and options for the Hub.

    Raises:
        LoadError: If there is no such adapter, its weights are not exactly those that its config describes, or transformers
            is too old to say so.
    """
    adapter = f"The adapter {_join(source, options.get('subfolder'))}"
    # transformers treats an adapter that it may not read like a missing one, and raises no error.
    if optional_file(source, ADAPTER_FILE, options) is None:
        raise LoadError(f"{adapter} cannot be loaded: there is no {ADAPTER_FILE}.")
    # No warnings for what is intended: a second adapter, which may change tied embeddings. transformers also reports the
    # weights of the first adapter as missing from the file of the second.
    log = logging.getLogger("transformers.integrations.peft")
    level = log.level
    with warnings.catch_warnings(), _loading(adapter):
        warnings.filterwarnings("ignore", "Already found a `peft_config`")
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")
        try:
            log.setLevel(logging.ERROR)
            loaded = model.load_adapter(source, name, adapter_kwargs=dict(options))
        finally:
            log.setLevel(level)
    if loaded is None:
        raise LoadError(
            f"{adapter} cannot be loaded: transformers {transformers_version} does not report which of its weights it read. "
            f"Install a newer one: pip install 'transformers>={TRANSFORMERS}'"
        )
    _check_loaded(adapter, loaded.to_dict(), f".{name}")


def _check_loaded(part: str, loaded: Mapping[str, Any], marker: str = "") -> None:
    """Raise LoadError where weights of an adapter are missing, of another shape, or left over.

    Args:
        part: Name of the adapter, for the message.
        loaded: The loading report of transformers.
        marker: Part of the names of its weights; missing weights without it belong to other adapters.
    """
    missing = sorted(key for key in loaded.get("missing_keys", ()) if marker in key)
    unexpected = sorted(str(key) for kind in ("unexpected_keys", "mismatched_keys") for key in loaded.get(kind, ()))
    if missing or unexpected:
        raise LoadError(
            f"{part} does not fit its config: it lacks {len(missing)} weights and has {len(unexpected)} others, such as "
            f"{(missing + unexpected)[0]!r}. It is damaged, or made for another base: publish it again."
        )


def _of_adapter(name: str, config: Path, repo_options: Mapping[str, Any], revision: str | None) -> dict[str, Any]:
    """Settings as in a pipeline repo, from an adapter repo: its config names the base, and it holds its ranking prompt."""
    adapter_config = read_json(str(config))
    if not (base := adapter_config.get("base_model_name_or_path")):
        raise LoadError(
            f"{config} does not name the base of this adapter, under base_model_name_or_path: write it there, or publish the "
            "adapter again."
        )
    settings = {
        "base_model": base,
        "base_revision": adapter_config.get("revision") or revision,
        "adapter": name,
        "adapter_revision": repo_options["revision"],
    }
    if prompt := optional_file(name, PROMPT_FILE, repo_options):
        settings["ranking_prompt"] = read_json(prompt)
    if decision := optional_file(name, DECISION_FILES[0], repo_options):
        decided = read_json(decision)
        settings["temperature"] = decided.get("temperature", {}).get("noul", 1.0)
        settings["bias"] = decided.get("bias", {}).get("noul", 0.0)
    return settings


def _plain(name: str, kwargs: Mapping[str, Any], repo_options: Mapping[str, Any]):
    """Load a model that is no recommender of ours, as transformers does; its repo may hold a ranking prompt."""
    options = {key: value for key, value in kwargs.items() if key not in ("config", "_from_pipeline")}
    with _loading(name):
        model = AutoModelForCausalLM.from_pretrained(name, **options)
    try:
        prompt = optional_file(name, PROMPT_FILE, repo_options)
    except LoadError as error:
        logger.warning(f"{error} The default prompt is used.")
        return model
    if prompt:
        model.config.trsr = {"ranking_prompt": read_json(prompt)}
    return model


def read_json(file: str) -> dict[str, Any]:
    """The object in a JSON file. Raises LoadError if there is none."""
    try:
        values = json.loads(Path(file).read_bytes())
    except (ValueError, RecursionError) as error:
        raise LoadError(
            f"{file} is no JSON file, or not whole: {error}. Take a copy of it, or publish it again."
        ) from error
    if not isinstance(values, dict):
        raise LoadError(f"{file} holds no JSON object, but {values!r:.80}. Take a copy of it, or publish it again.")
    return values


def check_name(name: str) -> None:
    """Raise LoadError if `name` is no folder, nor can it be the id of a repo."""
    if Path(name).is_dir():
        return
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise LoadError(
            f"There is no folder {name!r}, nor can it be a repo id, which is ORG/NAME of letters, digits, '-', '_' and '.'. "
            "Check the path."
        ) from error


def optional_file(repo: str, file: str, repo_options: Mapping[str, Any]) -> str | None:
    """The local path of a file of a repo or folder, downloaded if needed; None if there is no such file.

    Args:
        repo_options: Revision and subfolder, and options for the Hub, such as `token`.

    Raises:
        LoadError: If `repo` is no folder, nor can it be the id of a repo; or if the Hub is out of reach and the file is not in
            the cache, so that nobody knows whether it exists.
    """
    check_name(repo)
    path = _join(repo_options.get("subfolder"), file)
    if Path(repo).is_dir():
        return str(Path(repo) / path) if (Path(repo) / path).is_file() else None
    options = {key: value for key, value in repo_options.items() if key not in ("subfolder", "proxies")}
    try:
        return hf_hub_download(repo, path, **options)
    except LocalEntryNotFoundError as error:
        cache_options = {key: options[key] for key in ("cache_dir", "revision") if options.get(key)}
        # Not None: the cache records that the file does not exist.
        if try_to_load_from_cache(repo, path, **cache_options) is not None:
            return None
        raise LoadError(
            f"Whether {repo} has a file {path} cannot be told: it is no folder here, the Hub is out of reach, and the file is not "
            "in the cache. Load it once while the Hub can be reached."
        ) from error
    except EntryNotFoundError:
        return None
    except OSError as error:
        raise LoadError(f"{path} of {repo} cannot be read: {' '.join(str(error).split())}") from error
