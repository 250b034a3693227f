"""The facts of a run that the cards of its release show, in typed form."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trsr.core.prompts import RankingPrompt
from trsr.errors import HubError, ReleaseError
from trsr.hub import languages, licences
from trsr.hub.inputs import ReleaseInputs
from trsr.hub.repos import Names
from trsr.recommender.recipe import Recipe
from trsr.recommender.results import Results
from trsr.recommender.run import Run
from trsr.records.provenance import PROVENANCE_FILE, Provenance, Terms
from trsr.records.requirements import ranges
from trsr.report.markdown import Markdown


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
        problems.append(f"{PROVENANCE_FILE} of {recipe.dataset} does not say what wrote its summaries.")
    problems += [
        f"The results on {measured.split} are {fault}. Make them again: trsr evaluate {run.folder} --split {measured.split}"
        for measured in (validation, test)
        if (fault := _not_the_runs_own(measured, run))
    ]
    if not validation.temperature:
        problems.append(
            validation.not_fitted or f"No temperature was fitted. Run: trsr evaluate {run.folder} --split validation"
        )
    if problems and not names.local:
        raise ReleaseError("\n".join(problems))
    return Facts(
        names,
        recipe,
        inputs.encoder.prompt,
        run.record,
        test,
        validation.temperature,
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
        return "not of the dataset that the run was trained on"
    return None
