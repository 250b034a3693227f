"""Format the results of a comparison as Markdown tables. Computes nothing."""

from collections.abc import Mapping

from trsr.recommender.results import COLUMNS, metric_name
from trsr.recommender.system_names import HISTORY
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
    """Table of calibration errors before and after the fit; without the column of biases where no system has a fitted one, as
    where P(yes) was fitted by temperature alone."""
    systems = results["calibration"]
    columns = ["temperatures", *(["biases"] if any("biases" in system for system in systems.values()) else [])]
    rows = []
    for name, system in systems.items():
        parameters = [", ".join(f"{value:.3g}" for value in system.get(column, [])) or "-" for column in columns]
        after = f"{system['after']['ece']:.3f}" if "after" in system else "-"
        rows.append([plain(name), f"{system['before']['ece']:.3f}", *parameters, after])
    return markdown.table(["system", "ECE before", *["temperature", "bias"][: len(columns)], "ECE after"], rows)


def orders(results: Mapping) -> str:
    """Table of the metric by the order in which systems saw histories; paired tests against the true order, where there are any.

    Systems that were evaluated in one order alone are left out.
    """
    by_system: dict[str, dict[str, str]] = {}
    for name in results["systems"]:
        system, _, order = name.partition(HISTORY)
        by_system.setdefault(system, {})[order] = name
    columns = sorted({order for names in by_system.values() for order in names if order})
    tests_of = {frozenset((test["system"], test["against"])): test for test in results["paired"]}

    def cell(system: str, order: str) -> str:
        if (name := by_system[system].get(order)) is None:
            return "-"
        shown = interval(results["systems"][name][results["metric"]])
        if order and (test := tests_of.get(frozenset((system, name)))):
            difference = test["difference"] if test["system"] == name else -test["difference"]
            shown += f"; {difference:+.3f}, p (Holm) {test['p_holm']:.4f}"
        return shown

    head = [metric_name(results["metric"]), "true order", *map(plain, columns)]
    rows = [
        [plain(system), *(cell(system, order) for order in ("", *columns))]
        for system, names in by_system.items()
        if len(names) > 1
    ]
    return markdown.table(head, rows)


def fusions(results: Mapping) -> str:
    """Tables of each fused system: weights, common items of its parts, who gains, and cost against quality."""
    return "\n\n".join(
        part
        for name, fused in results["fusions"].items()
        for part in (_weights(name, fused), _overlap(fused), _gains(results, name, fused), _curve(fused))
        if part
    )


def _weights(name: str, fused: Mapping) -> str:
    """Weights and scoring time of the parts; what the weights were fitted on, in the head."""
    head = [plain(name), f"weight, fitted on {fused['fitted_on']['n_users']} users of validation", "CPU ms a user"]
    rows = [
        [
            plain(system),
            ", ".join(f"{weight:+.3f}" for weight in weights),
            _milliseconds(fused["seconds_a_user"][system]),
        ]
        for system, weights in fused["weights"].items()
    ]
    return markdown.table(head, rows)


def _overlap(fused: Mapping) -> str:
    pairs: dict[tuple[str, ...], list[str]] = {}
    chance: dict[int, str] = {}
    for entry in fused["overlap"]:
        pairs.setdefault(tuple(entry["systems"]), []).append(f"{entry['shared']:.2f}")
        chance[entry["top"]] = f"{entry['chance']:.2f}"
    rows = [[" and ".join(map(plain, systems)), *shares] for systems, shares in pairs.items()]
    head = ["share of common items", *(f"first {k}" for k in chance)]
    return markdown.table(head, [*rows, ["two random orders", *chance.values()]])


def _gains(results: Mapping, name: str, fused: Mapping) -> str:
    head = ["users", "best part there", f"{plain(name)} against it, {metric_name(results['metric'])}", "p (Holm)"]
    rows = [
        [
            f"{'' if row['slicing'] == row['part'] else plain(row['slicing']) + ': '}{plain(row['part'])} ({row['n_users']})",
            plain(row["best"]),
            interval(row | {"value": row["difference"]}, "+"),
            f"{row['p_holm']:.4f}",
        ]
        for row in fused["gains"]
    ]
    return markdown.table(head, rows)


def _curve(fused: Mapping) -> str | None:
    if (curve := fused["curve"]) is None:
        return None
    untimed = f" without {' and '.join(map(plain, curve['not_recorded']))}" if curve["not_recorded"] else ""
    metric = metric_name(curve["metric"])
    head = [f"{plain(curve['added'])} added for", f"CPU ms a user{untimed}", metric, "as many users at random"]
    rows = [
        [f"{point['share']:.0%}", _milliseconds(point["seconds_a_user"]), interval(point), f"{point['random']:.3f}"]
        for point in curve["points"]
    ]
    return markdown.table(head, rows)


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.3g}"


def document(results: Mapping) -> str:
    """The whole comparison as one Markdown document."""
    metric = metric_name(results["metric"])
    parts = [
        f"# {plain(str(results['dataset']))}, {plain(results['split'])} split",
        *([plain(results["verdict"])] if "verdict" in results else []),
        f"{results['n_users']} users{_shared(results)}, {plain(results['protocol'])}. Means over users and seeds with 95% bootstrap "
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
    if any(HISTORY in name for name in results["systems"]):
        parts += [f"## {metric} by the order of histories", orders(results)]
    if "fusions" in results:
        parts += [
            "## Fused systems",
            "Normalised scores, added with weights that maximise the likelihood of the validation split's targets. The best part "
            "is that of the same users, and Holm's correction is over the rows of its table. Users get the most expensive part "
            "in the order of how unsure the others are of their candidates.",
            fusions(results),
        ]
    if results["calibration"]:
        parts += [
            "## Calibration",
            "Expected calibration error of P(yes), positives and negatives weighing the same, before and after the "
            "temperature and bias that were fitted on the validation split.",
            calibration(results),
        ]
    return "\n\n".join(parts) + "\n"


def _shared(results: Mapping) -> str:
    """Of how many users those are that all evaluations hold, where a comparison left some out."""
    counts = {name: count for name, count in results.get("shared_users_of", {}).items() if count > results["n_users"]}
    return (
        f" that all hold ({', '.join(f'{plain(name)} has {count}' for name, count in counts.items())})"
        if counts
        else ""
    )


def interval(figures: Mapping, sign: str = "") -> str:
    """A value and its 95% interval, as tables show them."""
    return f"{figures['value']:{sign}.3f} ({figures['low']:{sign}.3f} to {figures['high']:{sign}.3f})"


def _cost(cost: Mapping | None) -> list[str]:
    if cost is None:
        return ["-", "-"]
    seconds = [f"{cost[key]:.0f}" for key in ("train_seconds", "cpu_seconds") if key in cost]
    return [" + ".join(seconds) or "-", f"{cost['peak_mib']:.0f}"]
