"""Load a recommender: base, adapter and ranking prompt, from a pipeline repo, an adapter repo or a plain model."""

import json
import logging
import warnings
from pathlib import Path

from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import cached_file

PROMPT_FILE = "ranking_prompt.json"
SUMMARIZER = "summarizer"  # what the second adapter is called in memory
DECISION_FILES = ("decision.json", "decision_template.jinja")
# What `pipeline` and the Auto classes pass on, and what a base of its own does not take.
_DROPPED = (
    "adapter_kwargs",
    "trust_remote_code",
    "_from_pipeline",
    "code_revision",
    "config",
    "revision",
    "_commit_hash",
)


class TextRichRecommender:
    """Loads the base with its adapter; what it returns is the base's own class. Stands where the Auto classes want a model.

    A pipeline repo's config.json says under `trsr`: `base_model`, `base_revision`, `adapter`, `adapter_revision`,
    `ranking_prompt`, `temperature`, `summarizer`, and `summarizer_adapter`: the subfolder of the adapter's repo with a
    second adapter, which summarises. In a local folder, base and adapter may be relative paths, so that a release can be
    moved as a whole; from the Hub they are repo ids.
    """

    @classmethod
    def register_for_auto_class(cls, auto_class="AutoModel"):
        """Called by the Auto classes; nothing to do, for a base saves itself."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        name = str(pretrained_model_name_or_path)
        token = kwargs.get("token")
        config = kwargs.get("config") or AutoConfig.from_pretrained(name, revision=kwargs.get("revision"), token=token)
        trsr = getattr(config, "trsr", None)
        if not trsr:
            return _plain(name, kwargs, config)
        options = {key: value for key, value in kwargs.items() if key not in _DROPPED}
        base_at = _resolve(name, trsr["base_model"])
        model = AutoModelForCausalLM.from_pretrained(base_at, revision=trsr.get("base_revision"), **options)
        if trsr.get("adapter"):
            pinned = {"revision": trsr.get("adapter_revision"), "token": token}
            adapter = _resolve(name, trsr["adapter"])
            model.load_adapter(adapter, adapter_kwargs=pinned)
            if subfolder := trsr.get("summarizer_adapter"):
                ranking = model.active_adapters()[0]
                _load_second(model, adapter, {**pinned, "subfolder": subfolder})
                model.set_adapter(ranking)
        model.config.trsr = trsr
        # `pipeline("decision")` looks its files up by the model's name, without a revision: not the base's name, then, but
        # the folder that holds this revision of the pipeline repo.
        found = [path for file in DECISION_FILES if (path := _optional(name, file, kwargs))]
        model.name_or_path = str(Path(found[0]).parent) if len(found) == len(DECISION_FILES) else name
        return model


def _load_second(model, name: str, options: dict) -> None:
    """Load the adapter that summarises beside the one that ranks.

    Raises:
        ValueError: If weights of it are missing, or there are others.
    """
    # Two adapters are meant to be here, and the second one may change embeddings that are tied. Of the weights of the first,
    # transformers reports that they are missing in the second's file.
    log = logging.getLogger("transformers.integrations.peft")
    level = log.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")
        try:
            log.setLevel(logging.ERROR)
            loaded = model.load_adapter(name, SUMMARIZER, adapter_kwargs=options)
        finally:
            log.setLevel(level)
    missing = [key for key in loaded.missing_keys if f".{SUMMARIZER}" in key]
    if missing or loaded.unexpected_keys:
        raise ValueError(
            f"The adapter in {name}, {options['subfolder']}, does not fit its config: it lacks {len(missing)} weights and has "
            f"{len(loaded.unexpected_keys)} others, such as {min([*missing, *loaded.unexpected_keys])!r}. Publish it again."
        )


def _plain(name: str, kwargs: dict, config):
    """A model that transformers loads itself; an adapter repo brings its ranking prompt along."""
    options = {key: value for key, value in kwargs.items() if key not in ("config", "_from_pipeline")}
    model = AutoModelForCausalLM.from_pretrained(name, **options)
    # `revision` is the base's here, as transformers has it; the adapter's stands in `adapter_kwargs`.
    own = {"token": kwargs.get("token"), "revision": (kwargs.get("adapter_kwargs") or {}).get("revision")}
    if found := _optional(name, PROMPT_FILE, own):
        model.config.trsr = {"ranking_prompt": json.loads(Path(found).read_text(encoding="utf-8"))}
        if decides := _optional(name, DECISION_FILES[0], own):
            stated = json.loads(Path(decides).read_text(encoding="utf-8"))
            model.config.trsr["temperature"] = stated.get("temperature", {}).get("noul", 1.0)
    return model


def _optional(name: str, file: str, options: dict) -> str | None:
    """Where a file of a repo lies, None if the repo has none."""
    return cached_file(
        name,
        file,
        token=options.get("token"),
        revision=options.get("revision"),
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )


def _resolve(repo: str, name: str) -> str:
    """A path relative to a local pipeline folder, or a Hub id as it is."""
    if not name.startswith("."):
        return name
    if not Path(repo).is_dir():
        raise ValueError(f"{repo} names {name!r}, a relative path, which only a local folder may do.")
    return str((Path(repo) / name).resolve())
