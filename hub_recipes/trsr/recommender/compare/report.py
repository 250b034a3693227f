"""A comparison's results file as Markdown tables. Computes nothing."""

from collections.abc import Mapping

from trsr.recommender.results import COLUMNS, metric_name
from trsr.report import markdown
from trsr.report.markdown import plain


def table(results: Mapping, columns: tuple[str, ...] = COLUMNS) -> str:
    """Systems with 95% intervals, seeds, time and memory."""
    head = ["system", *map(metric_name, columns), "seeds", "CPU s", "peak MiB"]
    rows = []
    for name, one in results["systems"].items():
        rows.append(
            [plain(name), *(_interval(one[metric]) for metric in columns), str(one["seeds"]), *_cost(one["cost"])]
        )
    return markdown.table(head, rows)


def tests(results: Mapping) -> str:
    """Paired tests, p-values corrected after Holm over all of them."""
    head = ["system", "against", f"difference of {metric_name(results['metric'])}", "p", "p (Holm)"]
    return markdown.table(
        head,
        [
            [plain(one["system"]), plain(one["against"]), _interval(one | {"value": one["difference"]}, "+"),
             f"{one['p_value']:.4f}", f"{one['p_holm']:.4f}"]
            for one in results["paired"]
        ],
    )  # fmt: skip


def slices(results: Mapping) -> str:
    """The metric in each part of the users, a table a slicing."""
    tables = []
    for slicing, parts in results["slices"].items():
        head = [plain(slicing), *(f"{plain(part)} ({one['n_users']} users)" for part, one in parts.items())]
        rows = [
            [plain(name), *(_interval(one["systems"][name]) for one in parts.values())] for name in results["systems"]
        ]
        tables.append(markdown.table(head, rows))
    return "\n\n".join(tables)


def calibration(results: Mapping) -> str:
    """Calibration errors before and after temperature and bias; results of earlier releases have no bias."""
    found = results["calibration"]
    columns = ["temperatures", *(["biases"] if any("biases" in one for one in found.values()) else [])]
    rows = []
    for name, one in found.items():
        shown = [", ".join(f"{value:.3g}" for value in one.get(column, [])) or "-" for column in columns]
        after = f"{one['after']['ece']:.3f}" if "after" in one else "-"
        rows.append([plain(name), f"{one['before']['ece']:.3f}", *shown, after])
    return markdown.table(["system", "ECE before", *["temperature", "bias"][: len(columns)], "ECE after"], rows)


def document(results: Mapping) -> str:
    """Everything, as one Markdown file."""
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


def _interval(one: Mapping, sign: str = "") -> str:
    return f"{one['value']:{sign}.3f} ({one['low']:{sign}.3f} to {one['high']:{sign}.3f})"


def _cost(cost: Mapping | None) -> list[str]:
    if cost is None:
        return ["-", "-"]
    seconds = [f"{cost[key]:.0f}" for key in ("train_seconds", "cpu_seconds") if key in cost]
    return [" + ".join(seconds) or "-", f"{cost['peak_mib']:.0f}"]
