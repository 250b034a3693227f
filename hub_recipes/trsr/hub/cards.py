"""Cards of a release: collect the facts of a run in typed form, and render the templates of model_cards/ with them.

Strict: a missing value fails the render, and every figure comes from a results file or a run's record. Values are data: they
can neither close the header nor become markup or template code. In a template a value never opens a line, see `plain`.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import DatasetCardData, ModelCardData, SpaceCardData

from trsr.core.prompts import RankingPrompt
from trsr.dataset import contract
from trsr.errors import HubError, ReleaseError
from trsr.hub import copy_cards, eval_results, languages, licences, spaces
from trsr.hub.inputs import ReleaseInputs
from trsr.hub.repos import COPIES, Names
from trsr.metrics.calibration import HIGHEST, LOWEST
from trsr.recommender.recipe import Recipe
from trsr.recommender.results import Results, metric_name
from trsr.recommender.run import Run
from trsr.records.provenance import FILE as PROVENANCE
from trsr.records.provenance import Provenance, Terms
from trsr.records.requirements import ranges
from trsr.report.markdown import Markdown, code, fence
from trsr.report.templates import render

ARXIV = "2403.13325"
GRADIO = "6.31.0"
_GATE = "These are ids and summaries of data under: {}. Use them only as its terms allow."
_POWERS = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")

# Kind of repo -> relation to the base, library, and tags of its own.
_MODELS: Mapping[str, tuple[str, str, list[str]]] = {
    "adapter": ("adapter", "peft", ["lora"]),
    "pipeline": ("adapter", "transformers", ["lora"]),
    "cross-encoder": (
        "adapter",
        "sentence-transformers",
        ["lora", "sentence-transformers", "cross-encoder", "reranker"],
    ),
    "merged": ("merge", "transformers", []),
    "gguf": ("quantized", "gguf", ["gguf", "llama.cpp"]),
}


@dataclass(frozen=True, slots=True)
class Example:
    """A request from the test split, and the answer of the released recommender.

    Attributes:
        request: `history` and `candidates`, and `summary` where the release cannot write one itself.
        summary: The summary in the prompt; None where the recommender takes no summary.
        ranked: (index of the candidate, P(yes)), best first.
        decided: P(yes) of the second candidate, the chosen one, as decision files give it.
        log_odds: Of each candidate, as the CrossEncoder gives it; None where the release holds none.
    """

    request: Mapping[str, Any]
    summary: str | None
    ranked: tuple[tuple[int, float], ...]
    decided: float | None = None
    log_odds: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the cards of a release show.

    Attributes:
        record: The run's `run.json`.
        test: Results on the test split.
        fitted: Temperature and bias fitted on validation, as `calibration.Calibration`; None where none could be.
        terms: Under which terms the source data may be used.
        license, license_name, license_link: Of the weights, as the header of a card has them.
        base_revision: Commit of a base that is on the Hub already; None for one that the release brings.
        has_decision_files: Whether the repos hold decision files.
        summarises: Whether the adapter's repo holds a second adapter, which summarises.
        rows: Config -> split -> rows of the published dataset.
        header: `dataset_info` and `configs` of the dataset card's header.
        audit: Of the summaries, as `trsr audit --write` leaves it; None for data that was not audited.
        example: A request of the test split and its answer; None where there is none to show.
        branch: Branch that the repos are pushed to.
        max_length: Context of the base in tokens; None if its config does not state it.
        printed: Output of the code snippet on the dataset card, line by line.
        catalogue: Record of the catalogue that the pipeline carries, if it does.
        copies: Of the release's copies for other engines: `dtype` of the merged weights, `gguf` files, and, once they were
            rehearsed, `candidates`, `differences` and `shifts`, see `copy_rehearsal`.
        ranges: Package -> versions that this package allows, as `records.requirements.ranges`.
        files: Kind of repo -> its files but for the card, of base, adapter and pipeline.
        restricted: Whether the repos are private or gated, so that a Space can load none of them while it is built.
        gated: Whether data lies behind a gate.
    """

    names: Names
    recipe: Recipe
    prompt: RankingPrompt
    record: Mapping
    test: Results
    fitted: Mapping | None
    provenance: Provenance
    terms: Terms
    license: str
    base_revision: str | None
    dataset_revision: str | None
    has_decision_files: bool = False
    summarises: bool = False
    rows: Mapping[str, Mapping[str, int]] | None = None
    header: Mapping[str, Any] = field(default_factory=dict)
    license_name: str | None = None
    license_link: str | None = None
    audit: Mapping | None = None
    example: Example | None = None
    branch: str = "main"
    max_length: int | None = None
    printed: Sequence[str] = ()
    catalogue: Mapping | None = None
    copies: Mapping[str, Any] | None = None
    ranges: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)
    restricted: bool = False
    gated: bool = False

    @property
    def shows_users(self) -> bool:
        """Whether users of the data may be shown where no gate is: on cards, and in a pipeline repo."""
        return self.terms.share_text and not self.gated

    @property
    def negatives_from_impressions(self) -> bool:
        """Whether negatives are items shown beside the target in an impression, rather than sampled ones."""
        return self.provenance.by_impressions

    @property
    def on_nano(self) -> bool:
        """Whether the base is the one in the package, or a published copy of it. A folder may have its name."""
        return self.recipe.base == "nano" or ("base" not in self.names.own and self.names.base.endswith("/trsr-nano"))

    @staticmethod
    def requirement(package: str, versions: Mapping[str, str]) -> Markdown:
        """A requirement for pip: the package, pinned to the version in `versions` if there is one."""
        version = str(versions.get(package) or "")
        return Markdown(f"{package}=={version}" if re.fullmatch(r"[\w.]+", version) else package)

    def range(self, package: str) -> Markdown:
        """A package and the versions of it that are allowed: `peft>=0.21,<1`."""
        return Markdown(f"{package}{self.ranges[package]}")


def gather(inputs: ReleaseInputs, names: Names, terms: Terms, license: str | None, branch: str = "main") -> Facts:
    """Collect the facts for cards from a run, its results and its dataset.

    Raises:
        ReleaseError: If something is missing, or results are not of the whole split; lists all problems.
    """
    run, test, validation, provenance = inputs.run, inputs.test, inputs.validation, inputs.provenance
    recipe = run.recipe
    weights: Mapping[str, str | None] = {"license": license}
    problems = []
    try:
        weights = weights if license else licences.of_base(recipe.base)
        if not weights.get("license"):
            problems.append(f"The base {recipe.base} states no licence in its card. Give --license.")
        elif problem := licences.problem(str(weights["license"]), "--license", "the weights"):
            problems.append(problem)
    except HubError as error:
        problems.append(str(error))
    if problem := licences.problem(terms.license, "--data-license", "the data"):
        problems.append(problem)
    if terms.license == "other" and not terms.license_name:
        problems.append("The licence of the data is not known. Give --data-license, and --data-license-name for other.")
    if not terms.language:
        problems.append("The language of the items is not known. Give --language, such as --language en.")
    elif problem := languages.problem(terms.language, "--language", "the items"):
        problems.append(problem)
    if terms.license_link and not re.match(r"https?://|LICENSE", terms.license_link):
        problems.append(f"The link to the licence of the data is no web address: {terms.license_link!r}.")
    if recipe.summary != "none" and not provenance.has_summaries:
        problems.append(f"{PROVENANCE} of {recipe.dataset} does not say what wrote its summaries.")
    if run.checksums is None:
        problems.append(
            f"{run.folder} was trained by an earlier version, which did not record its dataset: what it was trained on is not "
            "known. Train it anew."
        )
    problems += [
        f"The results on {measured.split} are {fault}. Make them anew: trsr evaluate {run.folder} --split {measured.split}"
        for measured in (validation, test)
        if (fault := _not_the_runs_own(measured, run))
    ]
    if no_fit := _no_fit(validation, run):
        problems.append(no_fit)
    if problems and not names.local:
        raise ReleaseError("\n".join(problems))
    return Facts(
        names,
        recipe,
        inputs.encoder.prompt,
        run.record,
        test,
        {"bias": 0.0, **validation.temperature} if validation.temperature else None,
        provenance,
        terms,
        weights.get("license") or "other",
        None if "base" in names.own else run.record.get("base_revision"),
        None if "dataset" in names.own else recipe.dataset_revision,
        license_name=weights.get("license_name"),
        license_link=weights.get("license_link"),
        audit=inputs.audit,
        branch=branch,
        catalogue=inputs.catalogue.record if inputs.catalogue else None,
        ranges=ranges(),
    )


def _not_the_runs_own(measured: Results, run: Run) -> str | None:
    """Why results cannot represent the run; None if they are of its adapter, on the whole split of its dataset."""
    if measured.weights != run.weights:
        return "not of this adapter"
    if measured.limit:
        return f"of the first {measured.limit:,} rows alone"
    if measured.shuffled_summaries:
        return "those of shuffled summaries"
    if measured.history:
        return "those of histories in another order"
    if measured.checksums != run.checksums:
        return (
            "not of the dataset that the run was trained on"
            if measured.checksums
            else "of a dataset that they do not name"
        )
    return None


def _no_fit(validation: Results, run: Run) -> str | None:
    """Why P(yes) is not calibrated: no temperature was fitted, or the fit hit a bound. None if it is calibrated."""
    if not validation.temperature:
        return validation.not_fitted or f"No temperature was fitted. Run: trsr evaluate {run.folder} --split validation"
    value = validation.temperature["value"]
    if not 1.001 * LOWEST < value < 0.999 * HIGHEST:  # fitted by an earlier release, which accepted a bound
        return (
            f"The temperature of {run.folder}, {value}, is a bound of the fit: its scores do not tell one. Evaluate it again, "
            f"on more validation users: trsr evaluate {run.folder} --split validation"
        )
    return None


def card(kind: str, facts: Facts, commits: Mapping[str, str | None]) -> str:
    """The whole README.md of a repo.

    Args:
        kind: Of `repos.TYPES`, but for `base`, whose card is made when it is trained.
        commits: Kind of repo -> commit, where known.
    """
    template = "metric" if kind in spaces.METRICS else kind
    return render(template, _values(kind, facts, commits), _header(kind, facts, commits).to_dict())


def skill(facts: Facts, commits: Mapping[str, str | None]) -> str:
    """SKILL.md of the pipeline repo: what an agent has to know to use it. Made of what the card is made of."""
    name = facts.names.pipeline.split("/")[-1]
    choices = "candidates to order by preference" + (", or none: it has a catalogue" if facts.catalogue else "")
    description = (
        f"Rank items by their text for a person, given what the person chose before, with the recommender {name}. Use it when "
        f"there is a history of items with titles or descriptions, and {choices}."
    )
    header = {
        "name": re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:64],
        "description": description,
        "license": "apache-2.0",
    }
    return render("skill", _values("pipeline", facts, commits), header)


def _values(kind: str, facts: Facts, commits: Mapping[str, str | None]) -> dict[str, object]:
    """What the templates show."""
    methods = [name for name in contract.SUMMARY_CONFIGS if name in (facts.rows or {})]
    at = Markdown("" if facts.branch == "main" else f", revision={code(facts.branch)}")
    return {
        "at": at,
        "at_dataset": at if "dataset" in facts.names.own else Markdown(""),
        "branch": Markdown(shlex.quote(facts.branch)),
        "facts": facts,
        "names": facts.names,
        "recipe": Markdown(fence(code(_reproducible(facts, commits), 2), "json")),
        "base_revision": commits.get("base") or "main",
        "dataset_revision": commits.get("dataset") or "main",
        "method": facts.recipe.summary,
        "methods": methods,
        "request": Markdown(code(facts.example.request)) if facts.example else None,
        "history": Markdown(code(facts.example.request["history"])) if facts.example else None,
        "decision_request": Markdown(code(_decision_request(facts.example))) if facts.example else None,
        "rows_printed": Markdown(fence("\n".join(facts.printed), "text")),
        "printed": Markdown(fence(_printed(facts.example), "text")) if facts.example else None,
        "shown": methods[0] if methods else "histories",
        "metric": kind,
        "catalogue": facts.catalogue if kind == "pipeline" else None,
        "metric_name": metric_name,
        **(copy_cards.values(kind, facts) if kind in COPIES else {}),
    }


def _reproducible(facts: Facts, commits: Mapping[str, str | None]) -> dict[str, object]:
    """The recipe with base and dataset as Hub ids and commits, in place of local paths."""
    on_hub = {
        "base": facts.names.base,
        "base_revision": commits.get("base"),
        "dataset": facts.names.dataset,
        "dataset_revision": commits.get("dataset"),
    }
    # A folder of this machine. Training needs the summaries alone, which are in the dataset.
    recipe = {name: value for name, value in facts.recipe.to_dict().items() if name != "summarizer"}
    return recipe | on_hub


def _decision_request(example: Example) -> dict[str, object]:
    """The example's request in the form of decision models, about its second candidate alone."""
    state = {"summary": example.summary} if example.summary else {}
    chosen = {"type": "noul", "instructions": example.request["candidates"][1]}
    return {"state": {**state, "recent_items": example.request["history"]}, "questions": {"chosen": chosen}}


def _printed(example: Example) -> str:
    """Output of the code snippet in `parts/example.md`."""
    return "\n".join(([example.summary] if example.summary else []) + [str(list(example.ranked))])


def _header(kind: str, facts: Facts, commits: Mapping[str, str | None]):
    names, terms = facts.names, facts.terms
    tags = ["llm-trsr", "recommendation", f"arxiv:{ARXIV}"]
    if kind in _MODELS:
        relation, library, own_tags = _MODELS[kind]
        decides = facts.has_decision_files and kind not in ("cross-encoder", "gguf")
        return ModelCardData(
            base_model=names.base,
            base_model_relation=relation,
            library_name=library,
            pipeline_tag="text-ranking",
            tags=[*tags, *own_tags, *(["decision-model"] if decides else [])],
            datasets=[names.dataset],
            language=list(terms.language),
            license=facts.license,
            license_name=facts.license_name,
            license_link=facts.license_link,
            model_name=names.repo(kind),
            eval_results=eval_results.model_index(
                facts.test, names.dataset, facts.recipe.config, commits.get("dataset"), dataset_name=terms.name
            ),
        )
    if kind == "dataset":
        gate: dict[str, Any] = {}
        if not terms.share_text:
            gate["extra_gated_prompt"] = _GATE.format(terms.license_name or terms.license)
        return DatasetCardData(
            pretty_name=re.sub(r"\W+", " ", names.dataset.split("/")[-1]).strip(),
            task_categories=["text-ranking"],
            tags=tags,
            size_categories=[size_category(sum(sum(splits.values()) for splits in (facts.rows or {}).values()))],
            **terms.header(),
            **facts.header,
            **gate,
        )
    appearance: dict[str, Any] = {
        "emoji": "📚",
        "colorFrom": "indigo",
        "colorTo": "green",
        "sdk": "gradio",
        "sdk_version": GRADIO,
    }
    if kind == "space":
        # The bases that travel with a release are small; the hardware that another base needs is not known here.
        hardware: dict[str, Any] = {"suggested_hardware": "cpu-basic"} if "base" in names.own else {}
        return SpaceCardData(
            title=names.space.split("/")[-1],
            app_file="app.py",
            models=[names.pipeline, names.adapter, names.base],
            datasets=[names.dataset],
            preload_from_hub=spaces.preloaded(facts.files, names.repo, commits) if not facts.restricted else None,
            license="apache-2.0",
            short_description="Rank items by their text, after LLM-TRSR",
            tags=tags,
            **hardware,
            **appearance,
        )
    return SpaceCardData(
        title=kind, app_file="app.py", license="apache-2.0", tags=["evaluate", "metric", *tags[:2]], **appearance
    )


def size_category(rows: int) -> str:
    """Size category of the Hub for a number of rows, all configs and splits together: `10K<n<100K`."""
    for index, name in enumerate(_POWERS):
        if rows < 10 ** (index + 3):
            return f"{_POWERS[index - 1]}<n<{name}" if index else f"n<{name}"
    return f"n>{_POWERS[-1]}"
