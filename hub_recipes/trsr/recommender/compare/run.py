"""Compare evaluations: read them, and write tables, data and pictures."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trsr.dataset import contract
from trsr.errors import CompareError
from trsr.recommender.compare import fuse as fusing
from trsr.recommender.compare import fused_figures, measure, plot, report, slices, verdict
from trsr.recommender.compare.align import Aligned, Evaluation, align, on_shared_users, read, read_folder, row_name
from trsr.recommender.results import rounded_mean, training_seed
from trsr.recommender.run import data_checksums
from trsr.records.checksums import PREFIX
from trsr.records.files import check_no_file, read_json, write_json
from trsr.records.versions import versions
from trsr.report import plots as pictures

COMPARISON_FILE = "comparison.json"
BESIDE = ("comparison.md", "per_user.parquet")


def compare(
    sources: Sequence[str],
    out: Path,
    *,
    dataset: str | None = None,
    category: str | None = None,
    metric: str = "recall@3",
    against: str | None = None,
    fuse: Sequence[Sequence[str]] = (),
    shared_users: bool = False,
    seed: int = 0,
    plots: bool = True,
) -> dict[str, Any]:
    """Compare evaluations of the same candidates and write `out`: COMPARISON_FILE, comparison.md, per_user.parquet and pictures.

    Args:
        sources: Folders as `align.read` takes them, of one split. Folders of the validation split may be
            among them: they give the temperatures of their runs.
        dataset: Folder or Hub id of the evaluated dataset; without it there are no slices.
        category: Column of the items that holds a category; default the first of `slices.CATEGORIES` that exists.
        metric: Of tests, slices and pictures.
        against: Test all others against this system alone; default all pairs.
        fuse: Groups of systems whose scores are added, as `fuse.fuse` takes them. Each sum is one more system.
        shared_users: Compare the users that all evaluations hold; else it is an error if they hold others.
        seed: Of bootstrap and tests.
        plots: Draw pictures, where matplotlib is installed.

    Raises:
        CompareError: If the evaluations are not of the same candidates, or not of `dataset`, or as `fuse.fuse` does. Nothing is
            written.
    """
    if category and not dataset:
        raise CompareError(
            f"The category {category!r} is a column of a dataset's items: give the dataset too (--dataset)."
        )
    all_evaluations = [read(source) for source in sources]
    all_evaluations += [
        read_folder(Path(loaded.validation), loaded.own) for loaded in all_evaluations if loaded.validation
    ]
    evaluations, validated = _by_split(all_evaluations)
    if shared_users:
        user_counts = {loaded.own: len(set(loaded.owners)) for loaded in evaluations}
        evaluations = on_shared_users(evaluations)
    aligned = align(evaluations)
    fusions = fusing.fuse(aligned, evaluations, fuse, shared=shared_users) if fuse else []
    aligned = fusing.with_fused(aligned, fusions)
    values = measure.each_user(aligned)
    means = measure.over_seeds(values)
    metrics = next(iter(means.values()))
    if metric not in metrics:
        raise CompareError(f"No metric {metric!r}; there are {', '.join(metrics)}.")
    if dataset:
        for evaluation in evaluations:
            _check_data(evaluation, dataset)
    parts = _parts(aligned, dataset, evaluations[0].about["split"], category) if dataset else {}
    about = evaluations[0].about
    _check_replaceable(out, about)
    results: dict[str, Any] = {
        **{name: about.get(name) for name in ("dataset", "split", "protocol")},
        "n_users": len(set(aligned.owners)),
        **({"shared_users_of": user_counts} if shared_users else {}),
        "candidates_a_user": rounded_mean(aligned.mask.sum(1).mean()),
        "seed": seed,
        "metric": metric,
        "systems": measure.systems(values, aligned.about, aligned.owners, seed),
        "paired": measure.paired(means, metric, aligned.owners, seed, against),
        "slices": measure.sliced(means, metric, parts, aligned.owners, seed),
        "calibration": measure.calibration(aligned, _fits(aligned, validated)),
        "versions": versions(),
    }
    if fusions:
        results["fusions"] = {
            fused.name: fused_figures.figures(fused, aligned, means, metric, parts, seed) for fused in fusions
        }
    judged = fusions[0].name if fusions else evaluations[0].own
    results["verdict"] = verdict.of_comparison(results, against or judged)
    _write(out, results, _long(aligned, values), plots and pictures.available())
    return results


def _check_replaceable(out: Path, about: Mapping[str, Any]) -> None:
    """Raise CompareError if a file to be written exists in `out` and is not of a comparison of this dataset and split, and
    UsageError if `out` is a file."""
    check_no_file(out)
    if not (out / COMPARISON_FILE).is_file():
        if existing := [name for name in BESIDE if (out / name).exists()]:
            raise CompareError(f"{out} holds a {existing[0]} that is of no comparison. Choose another --out.")
        return
    before = read_json(out / COMPARISON_FILE)
    if changed := [name for name in ("dataset", "split") if before.get(name) != about.get(name)]:
        differences = "; ".join(f"its {name} is {before.get(name)}, not {about.get(name)}" for name in changed)
        raise CompareError(f"{out} holds another comparison: {differences}. Choose another --out, or remove it.")


def _by_split(evaluations: list[Evaluation]) -> tuple[list[Evaluation], list[Evaluation]]:
    """The evaluations to compare, and those of the validation split, which hold the temperatures."""
    tested = [evaluation for evaluation in evaluations if evaluation.about["split"] != "validation"]
    return (
        (tested, [evaluation for evaluation in evaluations if evaluation not in tested])
        if tested
        else (evaluations, evaluations)
    )


def _check_data(evaluation: Evaluation, dataset: str) -> None:
    """Raise CompareError if the recorded checksums of an evaluation differ from those of `dataset`."""
    checksums = evaluation.about.get("dataset_checksums") or {}
    for config, now in data_checksums(dataset, "histories").items():
        before = checksums.get(config, now)
        # A commit of the Hub and the checksum of a folder are not comparable; users and targets are compared later.
        if now != before and now.startswith(PREFIX) and before.startswith(PREFIX):
            raise CompareError(
                f"{evaluation.folder} scored another dataset than {dataset}: its config {config} was {before}, and is {now} there. "
                "Give the dataset that the systems were evaluated on."
            )


def _fits(aligned: Aligned, validated: Sequence[Evaluation]) -> dict[str, list[Mapping | None]]:
    """System -> temperature and bias that were fitted for each seed: on the same data and weights, and of the largest evaluation.

    A control that has none of its own is measured with that of the true run, as its users would be told P(yes).
    """
    whole_first = sorted(
        (evaluation.about for evaluation in validated), key=lambda about: about.get("limit") or math.inf, reverse=True
    )

    def fitted(about: Mapping) -> Mapping | None:
        true_run = {**about, **dict.fromkeys(fusing.CONTROLS)}
        for wanted in (about, true_run):
            for other in whole_first:
                if not fusing.differences(wanted, other):
                    return other.get("temperature")
        return None

    return {name: [fitted(seed_results) for seed_results in about] for name, about in aligned.about.items()}


def _parts(aligned: Aligned, dataset: str, split: str, category: str | None) -> dict[str, list[str]]:
    """Slicing -> the slice of each user, in the order of `aligned`."""
    split_rows, items, train = (
        contract.read(dataset, config, part)
        for config, part in (("histories", split), ("items", "train"), ("histories", "train"))
    )
    contract.check_ids(split_rows, dict.fromkeys(items["item_id"]), f"{dataset}, split {split}")
    rows: dict[str, Any] = {}
    for number, row in enumerate(split_rows):
        rows[row_name(row["user_id"], number)] = row
        rows.setdefault(row["user_id"], row)
    for user, target in zip(aligned.users, aligned.targets, strict=True):
        if user not in rows or rows[user]["target"] != target:
            raise CompareError(
                f"User {user!r} with target {target!r} is not in the {split} split of {dataset!r}. Give the dataset that "
                "the systems were evaluated on."
            )
    ordered = [rows[user] for user in aligned.users]
    parts = {
        "items in the history": slices.by_length(ordered),
        "target's occurrences in training": slices.by_popularity(ordered, train),
    }
    if category and category not in items.column_names:
        raise CompareError(
            f"The items of {dataset!r} have no column {category!r}; they have {', '.join(items.column_names)}."
        )
    category = category or next((name for name in slices.CATEGORIES if name in items.column_names), None)
    if category:
        category_of = dict(zip(items["item_id"], items[category], strict=True))
        parts[f"target's {category} in the last {slices.LAST} items"] = slices.by_category(ordered, category_of)
    return parts


def _long(aligned: Aligned, values: measure.PerUser) -> pa.Table:
    """A table with one row per user, system and seed of its training, or a number of its own where not all are on record."""
    columns: dict[str, list] = {"user_id": [], "system": [], "seed": []}
    for name, seeds in values.items():
        numbers = [training_seed(about) if measure.is_own(name, about) else None for about in aligned.about[name]]
        if None in numbers or len(set(numbers)) < len(numbers):
            numbers = list(range(len(seeds)))
        for number, metrics in zip(numbers, seeds, strict=True):
            columns["user_id"] += aligned.users
            columns["system"] += [name] * len(aligned.users)
            columns["seed"] += [number] * len(aligned.users)
            for metric, column in metrics.items():
                columns.setdefault(metric, []).extend(column.tolist())
    return pa.table(columns)


def _write(out: Path, results: Mapping, long: pa.Table, plots: bool) -> None:
    """Write all files to a draft folder, then move them to `out`, where those of an earlier comparison go first.

    So COMPARISON_FILE never stands beside what it does not describe, and a comparison that was killed can be written again.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".") as folder:
        draft = Path(folder)
        write_json(draft / COMPARISON_FILE, results)
        (draft / "comparison.md").write_text(report.document(results), encoding="utf-8", newline="\n")
        pq.write_table(long, draft / "per_user.parquet")
        if plots:
            plot.draw(results, draft)
        if (out / COMPARISON_FILE).exists():
            for name in (*BESIDE, *plot.PICTURES):
                (out / name).unlink(missing_ok=True)
        (draft / COMPARISON_FILE).replace(out / COMPARISON_FILE)
        for path in draft.iterdir():
            path.replace(out / path.name)
