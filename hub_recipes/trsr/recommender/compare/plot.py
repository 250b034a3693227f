"""Draw the results of a comparison. Needs matplotlib."""

from collections.abc import Mapping
from pathlib import Path

from trsr.recommender.results import metric_name
from trsr.report import plots

PICTURES = ("systems.png", "slices.png", "reliability.png", "fusion.png")


def draw(results: Mapping, folder: Path) -> list[Path]:
    """Write systems.png, and slices.png, reliability.png and fusion.png where there is something to show. Returns the paths written."""
    pictures = dict(zip(PICTURES, (_systems, _slices, _reliability, _fusion), strict=True))
    paths = []
    for name, picture in pictures.items():
        if figure := picture(results):
            paths.append(folder / name)
            figure.savefig(paths[-1], dpi=120)
    return paths


def _systems(results: Mapping):
    metric, systems = results["metric"], results["systems"]
    figure = plots.figure(7, 1.2 + 0.35 * len(systems))
    axes = figure.add_subplot()
    _points(axes, [system[metric] for system in systems.values()], range(len(systems)))
    axes.set_yticks(range(len(systems)), list(systems))
    axes.invert_yaxis()
    axes.set(xlabel=f"{metric_name(metric)}, 95% interval", title=f"{results['n_users']} users")
    return figure


def _slices(results: Mapping):
    if not results["slices"]:
        return None
    names = list(results["systems"])
    figure = plots.figure(5 * len(results["slices"]), 3.4 + 0.1 * len(names))
    for panel, (slicing, parts) in enumerate(results["slices"].items(), 1):
        axes = figure.add_subplot(1, len(results["slices"]), panel)
        for number, name in enumerate(names):
            values = [part_results["systems"][name] for part_results in parts.values()]
            shift = 0.6 * (number / max(1, len(names) - 1) - 0.5)
            _points(axes, values, [position + shift for position in range(len(parts))], upright=True, label=name)
        axes.set_xticks(range(len(parts)), list(parts))
        axes.set(title=slicing, ylabel=metric_name(results["metric"]))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=min(len(names), 5))
    return figure


def _reliability(results: Mapping):
    systems = results["calibration"]
    if not systems:
        return None
    figure = plots.figure(4.5 * len(systems), 4)
    for panel, (name, system) in enumerate(systems.items(), 1):
        axes = figure.add_subplot(1, len(systems), panel)
        axes.plot([0, 1], [0, 1], "--", color="grey")
        for step in ("before", "after"):
            if step in system:
                bins = system[step]["bins"]
                share = [bucket["positives"] for bucket in bins]
                axes.plot(
                    [bucket["probability"] for bucket in bins],
                    share,
                    "o-",
                    label=f"{step}: ECE {system[step]['ece']:.3f}",
                )
        axes.set(title=name, xlabel="P(yes)", ylabel="share of positives, balanced")
        axes.legend()
    return figure


def _fusion(results: Mapping):
    curves = {name: curve for name, fused in results.get("fusions", {}).items() if (curve := fused["curve"])}
    if not curves:
        return None
    figure = plots.figure(7, 4)
    axes = figure.add_subplot()
    for name, curve in curves.items():
        points = curve["points"]
        milliseconds = [1000 * point["seconds_a_user"] for point in points]
        _points(axes, points, milliseconds, upright=True, label=f"{name}, {curve['added']} where the others are unsure")
        axes.plot(milliseconds, [point["random"] for point in points], "--", color="grey")
    axes.set(xlabel="CPU ms a user", ylabel=metric_name(results["metric"]), title="dashed: for users at random")
    axes.legend()
    return figure


def _points(axes, values, positions, *, upright: bool = False, label: str | None = None) -> None:
    middle = [interval["value"] for interval in values]
    error = [
        [interval["value"] - interval["low"] for interval in values],
        [interval["high"] - interval["value"] for interval in values],
    ]
    if upright:
        axes.errorbar(positions, middle, yerr=error, fmt="o", markersize=4, capsize=2, label=label)
    else:
        axes.errorbar(middle, positions, xerr=error, fmt="o", capsize=3, label=label)
