"""A benchmark's results file as tables. Reads no models and no clock."""

from collections.abc import Mapping, Sequence

from trsr.markdown import plain

TITLES = {
    "packed": "ours, packed",
    "fork": "ours, forked cache",
    "batch": "ours, sorted batches, nothing shared",
    "tree": "ours, tree mask",
    "rows": "rows in one batch, last logits",
    "reuse": "ours, the instruction run once",
    "paper": "the paper's: each padded to 2,048, all logits",
    "dynamic": "batches of 8, all logits",
    "dynamic-last": "batches of 8, last logits",
    "text-generation": 'pipeline("text-generation"), one token',
    "decision": 'pipeline("decision")',
    "sft": "SFTTrainer's: rows in batches of 8, all logits",
    "one by one": "generate, one by one",
}


def table(results: Mapping) -> str:
    """Systems by cases in Markdown: CPU seconds, and how many times the best of ours that is.

    Raises:
        KeyError: If the file lacks a figure.
    """
    if results.get("bench") == "data":
        return _logs(results["cases"])
    if results.get("bench") == "machinery":
        return _machinery(results)
    cases = results["cases"]
    names = list(dict.fromkeys(name for case in cases for name in case["systems"]))
    lines = ["| system | " + " | ".join(map(_label, cases)) + " |", "|---" * (1 + len(cases)) + "|"]
    for name in names:
        cells = [_cell(case["systems"].get(name), name == case["best"]) for case in cases]
        lines.append(f"| {plain(TITLES.get(name, name))} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _logs(cases: Sequence[Mapping]) -> str:
    """Datasets from logs: how much a second, beside row by row."""
    lines = [
        "| log, protocol | rows | seconds | rows a second | row by row | times | of CPU | memory |",
        "|---" * 8 + "|",
    ]
    for case in cases:
        ours, theirs = case["systems"]["ours"], case["systems"].get("row by row")
        rate = ours["rows"] / ours["seconds"]
        beside = "- | - | -"
        if theirs:
            slow = theirs["rows"] / theirs["seconds"]
            beside = f"{slow:,.0f} | **x{rate / slow:.3g}** | x{case['times']:.3g}"
        lines.append(
            f"| {plain(case['data'])} | {ours['rows']:,} | {ours['seconds']:.3g} | {rate:,.0f} | {beside} | "
            f"{ours['peak_mib'] / 1024:.2g} GiB |"
        )
    return "\n".join(lines)


def _machinery(results: Mapping) -> str:
    """Calls in flight by the order of questions, then what one core gets through beside a bare loop."""
    flight, through = results["in_flight"], results["throughput"]
    lines = [
        f"| order of {flight['calls']:,} calls, {flight['at_a_time']} at a time | seconds | in flight, on average |"
    ]
    lines += ["|---|---|---|"]
    for name, one in flight["systems"].items():
        lines.append(f"| {plain(name)} | {one['seconds']:.3g} | {one['mean_in_flight']:.3g} |")
    lines += [
        "",
        f"| {through['users']:,} users of {through['blocks']} blocks | users a CPU second | memory |",
        "|---|---|---|",
    ]
    whole = f"{through['peak_mib']['whole']} MiB, {through['peak_mib']['before']} of them before"
    lines.append(f"| read, asked, kept and written | {through['users_a_cpu_second']:,} | {whole} |")
    lines.append(f"| a bare loop that reads and keeps nothing | {through['loop_users_a_cpu_second']:,} | - |")
    return "\n".join(lines)


def details(results: Mapping) -> str:
    """A line for each system of each case, for the terminal."""
    unit = " x ".join(results["unit"])
    head = f"{unit:24} {'system':18} {'seconds':>9} {'times best (min to max)':>26} {'by FLOPs':>9} {'MiB':>9} {'tokens':>8} {'differs by':>11}"
    lines = [head]
    for case in results["cases"]:
        for name, one in case["systems"].items():
            ratio = "{median:.4g} ({low:.4g} to {high:.4g})".format(**one["ratio"])
            flops = "" if one["flops_ratio"] is None else f"{one['flops_ratio']:.4g}"
            differs = "" if one["difference"] is None else f"{one['difference']:.2g}"
            wrong = "  WRONG" if one["exact"] is False else ""
            lines.append(
                f"{_label(case):24} {name:18} {one['seconds']['median']:>9.4g} {ratio:>26} {flops:>9} "
                f"{one['peak_mib']:>9.4g} {one['tokens']:>8} {differs:>11}{wrong}"
            )
    return "\n".join(lines)


def wrong(results: Mapping) -> list[str]:
    """What is not exact although it is ours, in words."""
    return [
        f"{name} is off by {one['difference']:.3g} at {_label(case)}, allowed is {case['allowed_difference']:.3g}"
        for case in results["cases"]
        for name, one in case["systems"].items()
        if one["ours"] and one["exact"] is False
    ]


def _label(case: Mapping) -> str:
    return " x ".join(str(value) for value in list(case.values())[:2])


def _cell(one: Mapping | None, best: bool) -> str:
    if one is None:
        return "-"
    if one["exact"] is False:
        return "wrong"
    seconds = f"{one['seconds']['median']:.3g} s"
    if best:
        return f"**{seconds}**"
    limit = "" if one["flops_ratio"] is None else f" of {one['flops_ratio']:.3g}"
    return f"{seconds}, x{one['ratio']['median']:.3g}{limit}"
