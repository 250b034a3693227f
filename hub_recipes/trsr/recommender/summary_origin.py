"""Which model wrote the summaries that a recipe trains on, and how it was asked: what a pipeline has to do the same way."""

from pathlib import Path
from typing import Any

from trsr.assets.paths import base_path, summarizer_path
from trsr.core.summary_prompts import SummaryPrompts
from trsr.errors import UsageError
from trsr.recommender.recipe import Recipe
from trsr.records.checksums import digest
from trsr.records.provenance import SummaryProvenance
from trsr.summaries.engines.base import Sampling


def prompts_and_sampling(summaries: SummaryProvenance) -> dict[str, Any]:
    """Prompts and sampling of the model that wrote the training summaries, as far as they are not the default ones."""
    if not summaries.prompts:
        return {}
    default = {"max_new_tokens": Sampling().max_new_tokens}
    names = ("max_new_tokens", "repetition_penalty", "answer_penalty")
    sampling = {name: value for name in names if (value := summaries.sampling.get(name)) != default.get(name)}
    prompts = dict(summaries.prompts)
    return ({"summary_prompts": prompts} if prompts != SummaryPrompts().to_dict() else {}) | (
        {"summary_sampling": sampling} if sampling else {}
    )


def summarizer_kind(recipe: Recipe, summaries: SummaryProvenance) -> str:
    """What wrote the training summaries: `extractive`, `adapter` or `base-model`; or `other-model` or `server`, which a
    pipeline cannot run.

    Raises:
        UsageError: If the recipe names an adapter that did not write them.
    """
    if recipe.summarizer:
        _check_adapter(recipe, Path(recipe.summarizer), summaries)
        return "adapter"
    if summaries.engine == "extractive":
        return "extractive"
    if summaries.engine == "nano":
        return "adapter" if summarizer_path(recipe.base) else "other-model"
    if summaries.engine == "openai":
        return "server"
    folder = Path(recipe.base)
    own = summaries.revision == digest(folder) if folder.is_dir() else summaries.model == recipe.base
    return "base-model" if own and not summaries.adapter else "other-model"


def _check_adapter(recipe: Recipe, adapter: Path, summaries: SummaryProvenance) -> None:
    """Raise UsageError unless this adapter, on the base of the recipe, wrote the summaries."""
    if not (adapter / "adapter_config.json").is_file():
        raise UsageError(f"summarizer: there is no adapter in {adapter}. Say where it is: summarizer=DIR.")
    record = summaries.adapter
    if record is None or record["revision"] != digest(adapter):
        writer = f"the adapter {record['name']} at {record['revision']} did" if record else "no adapter did"
        raise UsageError(
            f"summarizer: {adapter} did not write the summaries of {summaries.source}; {writer}. Leave it out, or "
            f"summarise with it: trsr summarize {summaries.source} --engine transformers:{recipe.base} --adapter {adapter} --out DIR"
        )
    base = Path(base_path(recipe.base))
    own = summaries.revision == digest(base, adapter) if base.is_dir() else summaries.model == recipe.base
    if not own:
        raise UsageError(
            f"summarizer: {adapter} wrote the summaries of {summaries.source} on another base ({summaries.model}) than "
            f"{recipe.base}. Train on that base."
        )
