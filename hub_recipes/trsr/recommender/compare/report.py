"""Format the results of a comparison as Markdown tables. Computes nothing."""

from collections.abc import Mapping

from trsr.recommender.results import COLUMNS, metric_name
from trsr.report import markdown
from trsr.report.markdown import plain


def table(results: Mapping, columns: tuple[str, ...] = COLUMNS) -> str:
    """Table of systems: metrics with 95% intervals, seeds, time and memory."""
    head = ["system", *map(metric_name, columns), "seeds", "CPU s", "peak MiB"]
    rows = []
    for name, system in results["systems"].items():
        rows.append(
            [
                plain(name),
                *(interval(system[metric]) for metric in columns),
                str(system["seeds"]),
                *_cost(system["cost"]),
            ]
        )
    return markdown.table(head, rows)


def tests(results: Mapping) -> str:
    """Table of paired tests, with p-values corrected after Holm over all rows."""
    head = ["system", "against", f"difference of {metric_name(results['metric'])}", "p", "p (Holm)"]
    return markdown.table(
        head,
        [
            [plain(test["system"]), plain(test["against"]), interval(test | {"value": test["difference"]}, "+"),
             f"{test['p_value']:.4f}", f"{test['p_holm']:.4f}"]
            for test in results["paired"]
        ],
    )  # fmt: skip


def slices(results: Mapping) -> str:
    """Tables of the metric in each slice of the users, one table per slicing."""
    tables = []
    for slicing, parts in results["slices"].items():
        head = [
            plain(slicing),
            *(f"{plain(part)} ({part_results['n_users']} users)" for part, part_results in parts.items()),
        ]
        rows = [
            [plain(name), *(interval(part_results["systems"][name]) for part_results in parts.values())]
            for name in results["systems"]
        ]
        tables.append(markdown.table(head, rows))
    return "\n\n".join(tables)


def calibration(results: Mapping) -> str:
    """Table of calibration errors before and after temperature and bias; results of earlier releases have no bias."""
    systems = results["calibration"]
    columns = ["temperatures", *(["biases"] if any("biases" in system for system in systems.values()) else [])]
    rows = []
    for name, system in systems.items():
        parameters = [", ".join(f"{value:.3g}" for value in system.get(column, [])) or "-" for column in columns]
        after = f"{system['after']['ece']:.3f}" if "after" in system else "-"
        rows.append([plain(name), f"{system['before']['ece']:.3f}", *parameters, after])
    return markdown.table(["system", "ECE before", *["temperature", "bias"][: len(columns)], "ECE after"], rows)


def document(results: Mapping) -> str:
    """The whole comparison as one Markdown document."""
    metric = metric_name(results["metric"])
    parts = [
        f"# {plain(str(results['dataset']))}, {plain(results['split'])} split",
        *([plain(results["verdict"])] if "verdict" in results else []),
        f"{results['n_users']} users, {plain(results['protocol'])}. Means over users and seeds with 95% bootstrap "
        "intervals over users. Time is of fitting and scoring; `A + B` is training and scoring.",
        table(results),
    ]
    if results["paired"]:
        parts += [
            f"## Paired tests on {metric}",
            "Sign flips of the users' differences, two-sided; Holm's correction over all rows.",
            tests(results),
        ]
    if results["slices"]:
        parts += [f"## {metric} by kind of user", slices(results)]
    if results["calibration"]:
        parts += [
            "## Calibration",
            "Expected calibration error of P(yes), positives and negatives weighing the same, before and after the "
            "temperature and bias that were fitted on the validation split.",
            calibration(results),
        ]
    return "\n\n".join(parts) + "\n"


def interval(figures: Mapping, sign: str = "") -> str:
    """A value and its 95% interval, as tables show them."""
    return f"{figures['value']:{sign}.3f} ({figures['low']:{sign}.3f} to {figures['high']:{sign}.3f})"


def _cost(cost: Mapping | None) -> list[str]:
    if cost is None:
        return ["-", "-"]
    seconds = [f"{cost[key]:.0f}" for key in ("train_seconds", "cpu_seconds") if key in cost]
    return [" + ".join(seconds) or "-", f"{cost['peak_mib']:.0f}"]
