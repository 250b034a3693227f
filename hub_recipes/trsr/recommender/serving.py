"""Load a trained recommender as a pipeline: from the package, a run, a release folder or a repo.

The settings of a pipeline repo are made here too, so that a run answers exactly as its release.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from trsr.assets.paths import NANO, TASK, base_path, summarizer_path
from trsr.core.modeling import (
    ADAPTER_FILE,
    CATALOGUE,
    RANKER,
    SUMMARIZER,
    check_name,
    load_adapter,
    optional_file,
)
from trsr.core.pipeline import TextRichRecommendationPipeline
from trsr.dataset import contract
from trsr.errors import LoadError, UsageError
from trsr.progress import loading, without_bars
from trsr.recommender.examples import ranking_prompt
from trsr.recommender.precision import warn_if_slow
from trsr.recommender.recipe import Recipe
from trsr.recommender.run import Run, is_finished
from trsr.recommender.summary_origin import prompts_and_sampling, summarizer_kind
from trsr.records.provenance import Provenance


def pipeline_settings(recipe: Recipe, fitted: Mapping[str, Any] | None, provenance: Provenance) -> dict[str, Any]:
    """The settings of a run that a pipeline needs, as under `trsr` in config.json, but without base and adapter.

    Args:
        fitted: As `calibration.Calibration`; without it, P(yes) is the logistic function of the log-odds.
        provenance: Of the recipe's dataset.
    """
    with_summaries = recipe.summary != "none"
    writer = summarizer_kind(recipe, provenance.summaries) if with_summaries else "none"
    return {
        "ranking_prompt": ranking_prompt(recipe, provenance).to_dict(),
        "method": recipe.summary if with_summaries else None,
        "summarizer": writer,
        "summarizer_adapter": SUMMARIZER if writer == "adapter" else None,
        "temperature": fitted["value"] if fitted else 1.0,
        "bias": fitted["bias"] if fitted else 0.0,
        # Of the training summaries, so that a pipeline cuts histories the same way.
        "block_size": provenance.summaries.block_size if with_summaries else None,
        "max_blocks": provenance.summaries.max_blocks if with_summaries else None,
        **(prompts_and_sampling(provenance.summaries) if with_summaries else {}),
    }


def pipeline_of(source: str) -> str:
    """The pipeline of a release folder; any other folder or Hub id as it is."""
    folder = Path(source) / "pipeline"
    return str(folder) if (folder / "config.json").is_file() else source


def commit_of(source: str | None) -> str | None:
    """The commit that a recommender on the Hub is at now; None for a folder, the package, or a repo that cannot be read."""
    if source is None or Path(pipeline_of(source)).is_dir():
        return None
    with suppress(LoadError):  # loading it says what is wrong
        for name in ("config.json", ADAPTER_FILE):
            if path := optional_file(source, name, {}):
                return Path(path).parent.name  # the cache holds a file in a folder named after its commit
    return None


def load_recommender(source: str | None = None, **options):
    """Load a recommender.

    Args:
        source: Folder of a run, of a release or of a pipeline repo, or a Hub id; None is the recommender in the package.
        options: For `transformers.pipeline`, such as `revision`.

    Returns:
        A `TextRichRecommendationPipeline`. Code from a repo or release runs only if `source` names it.

    Raises:
        UsageError, LoadError: If it cannot be loaded, with the first cause.
    """
    if source is None:
        with without_bars():
            return pipeline(TASK, model=str(NANO / "pipeline"), **options)  # type: ignore[call-overload]
    folder = Path(source)
    if is_finished(folder):
        return _of_run(Run.read(folder), **options)
    source = pipeline_of(source)
    check_name(source)
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
    run.check_base()
    run.check_data("It was trained with that one's prompts and summaries: put it back, or train again.")
    source = base_path(recipe.base)
    with loading(recipe.base):
        model: Any = AutoModelForCausalLM.from_pretrained(source, revision=recipe.base_revision, dtype="auto")
        tokenizer = AutoTokenizer.from_pretrained(source, revision=recipe.base_revision)
        provenance = contract.provenance(recipe.dataset, recipe.dataset_revision)
        settings = pipeline_settings(recipe, run.fitted, provenance)
        if settings["summarizer_adapter"]:
            load_adapter(model, SUMMARIZER, str(summarizer_path(recipe.base, recipe.summarizer)), {})
        load_adapter(model, RANKER, str(run.adapter), {})
    if not recipe.chat:
        tokenizer.chat_template = None
    if (run.folder / CATALOGUE).is_dir():
        settings[CATALOGUE] = True
        model.trsr_catalogue = (str(run.folder), {})
    model.config.trsr = settings
    recommender = TextRichRecommendationPipeline(model=model.eval(), tokenizer=tokenizer, **options)
    warn_if_slow(recommender.model, recipe.base)
    return recommender


def _first_cause(error: Exception) -> str:
    """The last line of the first traceback that transformers lists in an error; else the error in one line."""
    _, listed, after_marker = str(error).partition("an error is thrown:\n")
    first = after_marker.split("while loading with")[0].strip().splitlines()
    return (first[-1] if listed and first else " ".join(str(error).split())).rstrip(".")
