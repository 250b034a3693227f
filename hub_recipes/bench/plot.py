"""A benchmark's results file as one picture. Needs matplotlib."""

from collections.abc import Mapping
from pathlib import Path

from bench.report import TITLES
from trsr.report import plots


def draw(results: Mapping, path: Path) -> None:
    """Write a PNG: the sweep in two panels where there is one, else the ratios."""
    sweep = results.get("sweep")
    figure = plots.figure(10, 4)
    if sweep:
        for number, (over, label) in enumerate((("candidates", "candidates"), ("prefix", "prefix, tokens")), 1):
            points = [point for point in sweep if point["over"] == over]
            _panel(figure.add_subplot(1, 2, number), points, over, label)
        figure.suptitle(f"{results['model']['name']}, one thread")
    else:
        _bars(figure.add_subplot(), results)
    figure.savefig(path, dpi=120)


def _panel(axes, points: list[Mapping], over: str, label: str) -> None:
    rates = [point["candidates_per_second"] for point in points]
    places = [point[over] for point in points]
    middle = [rate["median"] for rate in rates]
    below = [rate["median"] - rate["low"] for rate in rates]
    above = [rate["high"] - rate["median"] for rate in rates]
    axes.errorbar(places, middle, yerr=[below, above], fmt="o", capsize=3, label="measured")
    # One speed for all points: the median of operations a second.
    speeds = sorted(point["gflop"] * rate / point["candidates"] for point, rate in zip(points, middle, strict=True))
    if speeds:
        speed = speeds[len(speeds) // 2]
        expected = [speed * point["candidates"] / point["gflop"] for point in points]
        axes.plot(places, expected, "--", color="grey", label=f"{speed:.3g} GFLOP a second")
    other = "prefix" if over == "candidates" else "candidates"
    fixed = f"{points[0][other]} {'tokens of prefix' if other == 'prefix' else other}" if points else ""
    axes.set(xscale="log", xlabel=f"{label} ({fixed})", ylabel="candidates a CPU second")
    axes.set_ylim(bottom=0)
    axes.legend()


def _bars(axes, results: Mapping) -> None:
    cases = results["cases"]
    names = list(dict.fromkeys(name for case in cases for name in case["systems"]))
    height = 0.8 / len(names)
    for number, name in enumerate(names):
        bars = [(row, case["systems"][name]) for row, case in enumerate(cases) if name in case["systems"]]
        axes.barh(
            [row + number * height for row, _ in bars],
            [system["ratio"]["median"] for _, system in bars],
            height,
            label=TITLES.get(name, name),
        )
        for row, system in bars:
            if system["flops_ratio"] is not None:
                axes.plot(system["flops_ratio"], row + number * height, "k|", markersize=12)
    middle = (len(names) - 1) * height / 2
    labels = [" x ".join(str(case[unit]) for unit in results["unit"]) for case in cases]
    axes.set_yticks([row + middle for row in range(len(cases))], labels)
    axes.invert_yaxis()
    axes.set(xlabel="times the CPU time of ours (stroke: by FLOPs alone)", ylabel=" x ".join(results["unit"]))
    axes.legend()
