"""Cards: what a run's records say, in typed form, and the templates of model_cards/ that show it.

Strict: a missing value fails the render, and a figure comes from a results file or a run's record. Values are data: they
can neither close the header nor become markup or template code.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import DatasetCardData, EvalResult, ModelCard, ModelCardData, SpaceCardData
from huggingface_hub.errors import EntryNotFoundError
from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

from trsr import data, results, spaces
from trsr.core.history import clean
from trsr.core.prompts import RankingPrompt
from trsr.data import Terms
from trsr.embedded import base_path
from trsr.recipe import Recipe
from trsr.repos import Names, ReleaseError
from trsr.results import Results, metric_name

ARXIV = "2403.13325"
GRADIO = "6.31.0"
_HERE = Path(__file__).parent
# Beside the package in a wheel; at the top of the tree in a checkout.
_FOLDERS = [_HERE / "model_cards", _HERE.parent.parent / "model_cards"]
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


class Markdown(str):
    """Text that we made ourselves and that a template shows as it is. Every other string becomes one plain line."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that cards tell of a release.

    Attributes:
        record: The run's `run.json`.
        test: Results on the test split.
        fitted: The temperature fitted on validation, as `calibration.Temperature`.
        terms: Under which terms the source data may be used.
        license: Of the weights.
        base_revision: Commit of a base that is on the Hub already; None for one that the release brings.
        decides: Whether the repos hold decision files.
        rows: Config -> split -> rows of the published dataset.
        configs: The `configs` of the dataset card's header.
    """

    names: Names
    recipe: Recipe
    prompt: RankingPrompt
    record: Mapping
    test: Results
    fitted: Mapping
    provenance: Mapping
    terms: Terms
    license: str
    base_revision: str | None
    dataset_revision: str | None
    decides: bool = False
    rows: Mapping[str, Mapping[str, int]] | None = None
    configs: Sequence[Mapping] = ()


def gather(run: Path, recipe: Recipe, prompt: RankingPrompt, names: Names, terms: Terms, license: str | None) -> Facts:
    """Read what the run, its results and its dataset say.

    Raises:
        ReleaseError: With all that is missing.
        ResultsError: If results are missing.
    """
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    test = results.read(run / "test" / results.FILE)
    validation = results.read(run / "validation" / results.FILE)
    found = license or _license_of(recipe)
    problems = []
    if not found:
        problems.append(f"The base {recipe.base} states no licence in its card. Give --license.")
    if terms.license == "other" and not terms.license_name:
        problems.append("The licence of the data is not known. Give --data-license, and --data-license-name for other.")
    if not terms.language:
        problems.append("The language of the items is not known. Give --language, such as --language en.")
    if not validation.temperature:
        problems.append(f"No temperature was fitted. Run: trsr evaluate {run} --split validation")
    if problems and not names.local:
        raise ReleaseError("\n".join(problems))
    return Facts(
        names,
        recipe,
        prompt,
        record,
        test,
        validation.temperature or {"value": 1.0},
        data.provenance(recipe.dataset, recipe.dataset_revision),
        terms,
        found or "other",
        None if "base" in names.own else record.get("base_revision"),
        None if "dataset" in names.own else recipe.dataset_revision,
    )


def complete(facts: Facts, **found) -> Facts:
    """Add what is known once the folders are written."""
    return replace(facts, **found)


def card(kind: str, facts: Facts, commits: Mapping[str, str | None]) -> str:
    """The whole README.md of a repo.

    Args:
        kind: Of `repos.TYPES`, but for `base`, whose card is made when it is trained.
        commits: Kind of repo -> commit, where known.
    """
    values = {
        "facts": facts,
        "names": facts.names,
        "header": Markdown(_header(kind, facts, commits).to_yaml()),
        "table": Markdown(results.table(facts.test.systems)),
        "recipe": Markdown(_fence(_reproducible(facts, commits))),
        "base_revision": commits.get("base") or "main",
        "dataset_revision": commits.get("dataset") or "main",
        "adapter_revision": commits.get("adapter") or "main",
        "method": "none" if facts.recipe.summary == "none" else facts.recipe.summary,
        "metric": kind,
    }
    return render("metric" if kind in spaces.METRICS else kind, values)


def render(template: str, values: Mapping[str, object]) -> str:
    """Fill model_cards/`template`.md.

    Raises:
        jinja2.UndefinedError: If the template names a value that is not given.
    """
    environment = SandboxedEnvironment(
        loader=FileSystemLoader(_FOLDERS),
        undefined=StrictUndefined,
        finalize=_plain,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,
    )
    return environment.get_template(f"{template}.md").render(values)


def _plain(value: object) -> object:
    """A value as text that Markdown shows as it is."""
    if value is None:
        raise ReleaseError("A card has a value that is not known. Evaluate or train the run anew.")
    if isinstance(value, (Markdown, StrictUndefined)) or not isinstance(value, str):
        return value
    text = clean(value).replace("`", "'")
    for char, entity in (("<", "&lt;"), ("|", "&#124;"), ("[", "&#91;"), ("{", "&#123;")):
        text = text.replace(char, entity)
    return text


def _reproducible(facts: Facts, commits: Mapping[str, str | None]) -> dict[str, object]:
    """The recipe with base and data as the Hub has them, not as this machine had."""
    where = {
        "base": facts.names.base,
        "base_revision": commits.get("base"),
        "dataset": facts.names.dataset,
        "dataset_revision": commits.get("dataset"),
    }
    return facts.recipe.to_dict() | where


def _fence(values: Mapping) -> str:
    """JSON in a block of code, which no value can close."""
    shown = json.dumps(values, indent=2, ensure_ascii=False).replace("`", "'")
    return f"```json\n{shown}\n```"


def _license_of(recipe: Recipe) -> str | None:
    """What the card of the base says."""
    source = base_path(recipe.base)
    try:
        if Path(source).is_dir():
            path = Path(source) / "README.md"
            return ModelCard(path.read_text(encoding="utf-8")).data.license if path.is_file() else None
        return ModelCard.load(source).data.license
    except EntryNotFoundError:
        return None


def _header(kind: str, facts: Facts, commits: Mapping[str, str | None]):
    names, terms = facts.names, facts.terms
    tags = ["llm-trsr", "recommendation", f"arxiv:{ARXIV}"]
    if kind in ("adapter", "pipeline"):
        return ModelCardData(
            base_model=names.base,
            base_model_relation="adapter",
            library_name="peft" if kind == "adapter" else "transformers",
            pipeline_tag="text-ranking",
            tags=[*tags, "lora", *(["decision-model"] if facts.decides else [])],
            datasets=[names.dataset],
            language=list(terms.language),
            license=facts.license,
            model_name=names.repo(kind),
            eval_results=_model_index(facts, commits.get("dataset")),
        )
    if kind == "dataset":
        users = sum((facts.rows or {}).get("histories", {}).values())
        return DatasetCardData(
            pretty_name=re.sub(r"\W+", " ", names.dataset.split("/")[-1]).strip(),
            task_categories=["text-ranking"],
            tags=tags,
            size_categories=[next((name for most, name in _SIZES if users < most), "n>1M")],
            configs=[dict(config) for config in facts.configs],
            **terms.header(),
        )
    shown = {"emoji": "📚", "colorFrom": "indigo", "colorTo": "green", "sdk": "gradio", "sdk_version": GRADIO}
    if kind == "space":
        return SpaceCardData(
            title=names.space.split("/")[-1],
            app_file="app.py",
            models=[names.pipeline, names.adapter, names.base],
            datasets=[names.dataset],
            license="apache-2.0",
            short_description="Text-rich recommendation with LLM summaries",
            tags=tags,
            **shown,
        )
    return SpaceCardData(
        title=kind, app_file="app.py", license="apache-2.0", tags=["evaluate", "metric", *tags[:2]], **shown
    )


def _model_index(facts: Facts, dataset_revision: str | None) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="text-ranking",
            task_name="Sequential recommendation",
            dataset_type=facts.names.dataset,
            dataset_name=facts.terms.name,
            dataset_config="histories" if facts.recipe.summary == "none" else facts.recipe.summary,
            dataset_split=facts.test.split,
            dataset_revision=dataset_revision,
            metric_type=name,
            metric_name=metric_name(name),
            metric_value=round(own["value"], 4),
            metric_args={"low": round(own["low"], 4), "high": round(own["high"], 4), "confidence": 0.95},
        )
        for name in results.REPORTED
        for own in [facts.test.systems[facts.test.system][name]]
    ]
