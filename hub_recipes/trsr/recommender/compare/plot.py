"""A comparison's results file as pictures. Needs matplotlib."""

from collections.abc import Mapping
from pathlib import Path

from trsr.recommender.results import metric_name
from trsr.report import plots


def draw(results: Mapping, folder: Path) -> list[Path]:
    """Write systems.png, and slices.png and reliability.png where there is something to show. Returns what was written."""
    wanted = {"systems.png": _systems, "slices.png": _slices, "reliability.png": _reliability}
    made = []
    for name, picture in wanted.items():
        if figure := picture(results):
            made.append(folder / name)
            figure.savefig(made[-1], dpi=120)
    return made


def _systems(results: Mapping):
    metric, each = results["metric"], results["systems"]
    figure = plots.figure(7, 1.2 + 0.35 * len(each))
    axes = figure.add_subplot()
    _points(axes, [one[metric] for one in each.values()], range(len(each)))
    axes.set_yticks(range(len(each)), list(each))
    axes.invert_yaxis()
    axes.set(xlabel=f"{metric_name(metric)}, 95% interval", title=f"{results['n_users']} users")
    return figure


def _slices(results: Mapping):
    if not results["slices"]:
        return None
    names = list(results["systems"])
    figure = plots.figure(5 * len(results["slices"]), 3.4 + 0.1 * len(names))
    for place, (slicing, parts) in enumerate(results["slices"].items(), 1):
        axes = figure.add_subplot(1, len(results["slices"]), place)
        for number, name in enumerate(names):
            values = [one["systems"][name] for one in parts.values()]
            shift = 0.6 * (number / max(1, len(names) - 1) - 0.5)
            _points(axes, values, [spot + shift for spot in range(len(parts))], upright=True, label=name)
        axes.set_xticks(range(len(parts)), list(parts))
        axes.set(title=slicing, ylabel=metric_name(results["metric"]))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=min(len(names), 5))
    return figure


def _reliability(results: Mapping):
    each = results["calibration"]
    if not each:
        return None
    figure = plots.figure(4.5 * len(each), 4)
    for place, (name, one) in enumerate(each.items(), 1):
        axes = figure.add_subplot(1, len(each), place)
        axes.plot([0, 1], [0, 1], "--", color="grey")
        for step in ("before", "after"):
            if step in one:
                bins = one[step]["bins"]
                share = [each["positives"] for each in bins]
                axes.plot(
                    [each["probability"] for each in bins], share, "o-", label=f"{step}: ECE {one[step]['ece']:.3f}"
                )
        axes.set(title=name, xlabel="P(yes)", ylabel="share of positives, balanced")
        axes.legend()
    return figure


def _points(axes, values, places, *, upright: bool = False, label: str | None = None) -> None:
    middle = [one["value"] for one in values]
    error = [[one["value"] - one["low"] for one in values], [one["high"] - one["value"] for one in values]]
    if upright:
        axes.errorbar(places, middle, yerr=error, fmt="o", markersize=4, capsize=2, label=label)
    else:
        axes.errorbar(middle, places, xerr=error, fmt="o", capsize=3, label=label)
