"""A trained recommender as a pipeline: of the package, of a run, of a release folder or of a repo.

What a pipeline repo says of a run is said here too, so that a run serves what its release will serve.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from trsr.assets.paths import NANO, TASK, base_path, summarizer_path
from trsr.core.modeling import RANKER, SUMMARIZER, load_adapter
from trsr.core.pipeline import TextRichRecommendationPipeline
from trsr.dataset import contract
from trsr.errors import UsageError
from trsr.progress import loading, without_bars
from trsr.recommender.examples import ranking_prompt
from trsr.recommender.recipe import Recipe
from trsr.recommender.run import Run, is_finished
from trsr.records.checksums import digest


def pipeline_settings(recipe: Recipe, fitted: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a pipeline must know of a run, as config.json says it under `trsr`, but for where base and adapter are.

    Args:
        fitted: As `calibration.Calibration`; without it, probabilities are those of the log-odds as they are.
    """
    writer = _summarizer(recipe)
    return {
        "ranking_prompt": ranking_prompt(recipe).to_dict(),
        "method": None if recipe.summary == "none" else recipe.summary,
        "summarizer": writer,
        "summarizer_adapter": SUMMARIZER if writer == "adapter" else None,
        "temperature": (fitted or {}).get("value", 1.0),
        "bias": (fitted or {}).get("bias", 0.0),
        **_block_sizes(recipe),
    }


def load_recommender(source: str | None = None, **options):
    """Load a recommender.

    Args:
        source: Folder of a run, of a release or of a pipeline repo, or a Hub id; None is the recommender in the package.
        options: For `transformers.pipeline`, such as `revision`.

    Returns:
        A `TextRichRecommendationPipeline`. Only a repo that was named may bring code along.

    Raises:
        UsageError: If it cannot be loaded, with the cause alone.
    """
    if source is None:
        with without_bars():
            return pipeline(TASK, model=str(NANO / "pipeline"), **options)  # type: ignore[call-overload]
    folder = Path(source)
    if is_finished(folder):
        return _of_run(Run.read(folder), **options)
    if (folder / "pipeline" / "config.json").is_file():
        source = str(folder / "pipeline")
    try:
        with without_bars():
            return pipeline(TASK, model=source, trust_remote_code=True, **options)  # type: ignore[call-overload]
    except Exception as error:  # the code is the repo's own
        raise UsageError(
            f"{source} cannot be loaded: {_first_cause(error)}. If it was published with an earlier release, its code may not "
            "fit the installed versions: publish it again, or install the versions that its card names."
        ) from error


def _of_run(run: Run, **options) -> TextRichRecommendationPipeline:
    """The recommender of a finished run, as its release would serve it."""
    recipe = run.recipe
    run.check_data("It was trained with that one's prompts and summaries: put it back, or train anew.")
    source = base_path(recipe.base)
    with loading(recipe.base):
        model: Any = AutoModelForCausalLM.from_pretrained(source, revision=recipe.base_revision, dtype="auto")
        tokenizer = AutoTokenizer.from_pretrained(source, revision=recipe.base_revision)
        settings = pipeline_settings(recipe, run.fitted)
        if settings["summarizer_adapter"]:
            load_adapter(model, SUMMARIZER, str(summarizer_path(recipe.base)), {})
        load_adapter(model, RANKER, str(run.adapter), {})
    if not recipe.chat:
        tokenizer.chat_template = None
    model.config.trsr = settings
    return TextRichRecommendationPipeline(model=model.eval(), tokenizer=tokenizer, **options)


def _first_cause(error: Exception) -> str:
    """The last line of the first traceback that transformers lists in an error; else the error in one line."""
    _, listed, rest = str(error).partition("an error is thrown:\n")
    first = rest.split("while loading with")[0].strip().splitlines()
    return (first[-1] if listed and first else " ".join(str(error).split())).rstrip(".")


def _block_sizes(recipe: Recipe) -> dict[str, int | None]:
    """How histories were cut for the summaries that the run was trained with, so that they are served cut alike."""
    if recipe.summary == "none":
        return {"block_size": None, "max_blocks": None}
    made = contract.provenance(recipe.dataset, recipe.dataset_revision).summaries
    return {"block_size": made.block_size, "max_blocks": made.max_blocks}


def _summarizer(recipe: Recipe) -> str:
    """What wrote the summaries: `none`, `extractive`, `adapter`, `base-model`, or `other-model` and `server`, which a
    pipeline does not have.
    """
    if recipe.summary == "none":
        return "none"
    made = contract.provenance(recipe.dataset, recipe.dataset_revision).summaries
    if made.engine == "extractive":
        return "extractive"
    if made.engine == "nano":
        return "adapter" if summarizer_path(recipe.base) else "other-model"
    if made.engine == "openai":
        return "server"
    folder = Path(recipe.base)
    own = made.revision == digest(folder) if folder.is_dir() else made.model == recipe.base
    return "base-model" if own else "other-model"
