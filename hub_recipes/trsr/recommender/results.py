"""Read a results file. Cards and tables take their numbers from this record alone."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trsr.errors import ResultsError
from trsr.records.files import read_json
from trsr.report import markdown
from trsr.report.markdown import Markdown, plain

RESULTS_FILE = "results.json"
COLUMNS = ("recall@1", "recall@3", "recall@5", "mrr@10")
REPORTED = ("recall@1", "recall@3", "recall@5", "recall@10", "mrr@10", "ndcg@10", "auc")
_NAMES = {"recall": "Recall", "mrr": "MRR", "ndcg": "NDCG", "auc": "AUC", "ece": "ECE"}


@dataclass(frozen=True, slots=True)
class Results:
    """Results of one evaluation, as `trsr evaluate` wrote them.

    Attributes:
        values: Content of the file.
        system: Name of the run among `systems`.
        systems: Name -> metric -> `value`, `low`, `high`.
        paired: Tests of pairs of systems, as `significance.with_holm` gives them.
        weights: SHA-256 of the evaluated adapter, or a retriever's checksum; None for the base without an adapter.
        checksums: Of the dataset that was scored, as `run.data_checksums`.
        limit: That only the first `limit` rows were scored; 0 = all.
        shuffled_summaries: Whether each user was ranked with the summary of another user.
        history: The control in which histories were shown in another order, as `controls.with_history`; None for the true one.
        temperature: As `calibration.Calibration`, on validation only; None where none could be fitted.
        not_fitted: Why no temperature could be fitted.
    """

    values: Mapping[str, Any]
    split: str
    protocol: str
    seed: int
    n_users: int
    candidates_a_user: int
    system: str
    systems: Mapping[str, Mapping]
    paired: tuple[Mapping, ...]
    checksums: Mapping[str, str]
    temperature: Mapping | None = None
    not_fitted: str | None = None
    weights: str | None = None
    limit: int = 0
    shuffled_summaries: bool = False
    history: str | None = None

    @property
    def table(self) -> Markdown:
        """The systems as a Markdown table."""
        return Markdown(table(self.systems))


def load(folder: Path) -> dict[str, Any]:
    """Content of the results file in `folder`. Raises ResultsError if there is none."""
    path = folder / RESULTS_FILE
    if not path.is_file():
        raise ResultsError(f"No results at {path}. Make them: trsr evaluate RUN --split {folder.name}")
    return read_json(path)


def read(folder: Path) -> Results:
    """Read the results in `folder`. Raises ResultsError with all values that are missing or not finite, of all systems."""
    path, values = folder / RESULTS_FILE, load(folder)
    needed = (
        *("split", "protocol", "seed", "n_users", "candidates_a_user", "run", "systems", "paired"),
        "dataset_checksums",
    )
    if missing := [name for name in needed if values.get(name) is None]:
        raise ResultsError(f"{path} lacks {', '.join(missing)}. Make it again: trsr evaluate RUN")
    system, systems = values["run"], values["systems"]
    problems = [] if system in systems else [f"there is no system {system!r}"]
    for name, metrics in systems.items():
        required = REPORTED if name == system else COLUMNS
        if lacking := [metric for metric in required if not _measured((metrics or {}).get(metric))]:
            problems.append(f"the system {name!r} lacks {', '.join(lacking)}")
    if any("p_holm" not in test for test in values["paired"]):
        problems.append("a paired test lacks p_holm")
    if (fit := values.get("temperature")) and (lacking := [name for name in ("value", "bias") if name not in fit]):
        problems.append(f"the temperature lacks {', '.join(lacking)}")
    if problems:
        raise ResultsError(f"{path}: {'; '.join(problems)}. Make it again: trsr evaluate RUN")
    return Results(
        values,
        values["split"],
        values["protocol"],
        values["seed"],
        values["n_users"],
        values["candidates_a_user"],
        system,
        systems,
        tuple(values["paired"]),
        values["dataset_checksums"],
        fit,
        values.get("not_fitted"),
        values.get("weights"),
        values.get("limit", 0),
        values.get("shuffled_summaries", False),
        values.get("history"),
    )


def training_seed(about: Mapping) -> int | None:
    """Seed of a run's, a peer's or a retriever's training, as a results file records it; None if it does not."""
    if tuning := about.get("tuning"):
        return tuning.get("seed_of_fit")  # `seed` is that of the search
    return _retriever_settings(about).get("seed", about.get("train_seed"))


def _retriever_settings(about: Mapping) -> Mapping[str, Any]:
    """How a retriever was trained; empty where a results file is of something else."""
    return (about.get("retriever") or {}).get("settings") or {}


def same_settings(one: Mapping, other: Mapping) -> bool:
    """Whether two evaluations can be of two seeds of one system: of the same config of the data, and with the same settings of
    a recipe, of a retriever, or of those that a peer's search chose."""
    return _made_with(one) == _made_with(other)


def _made_with(about: Mapping) -> tuple:
    retriever = dict(about.get("retriever") or {})
    if retriever:
        retriever["settings"] = {name: value for name, value in _retriever_settings(about).items() if name != "seed"}
    return about.get("config"), about.get("recipe"), retriever, (about.get("tuning") or {}).get("chosen")


def _measured(metric: Mapping | None) -> bool:
    """Whether a metric has a value and an interval."""
    bounds = [(metric or {}).get(name) for name in ("value", "low", "high")]
    return all(isinstance(bound, (int, float)) and math.isfinite(bound) for bound in bounds)


def rounded_mean(mean: float) -> float:
    """A mean number of candidates: an int if it is whole, else two decimals."""
    return int(mean) if mean == int(mean) else round(float(mean), 2)


def metric_name(name: str) -> str:
    """A metric's name for display: `recall@3` becomes Recall@3."""
    kind, at, k = name.partition("@")
    return _NAMES.get(kind, kind) + at + k


def table(systems: Mapping[str, Mapping], columns: tuple[str, ...] = COLUMNS) -> str:
    """The systems as a Markdown table, values with 95% intervals."""
    rows = [
        [
            plain(name),
            *(
                f"{interval['value']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"
                for interval in (values[c] for c in columns)
            ),
        ]
        for name, values in systems.items()
    ]
    return markdown.table(["system", *map(metric_name, columns)], rows)
