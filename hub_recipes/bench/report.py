"""A benchmark's results file as tables. Reads no models and no clock."""

from collections.abc import Mapping, Sequence

from trsr.recommender.compare.report import interval
from trsr.recommender.compare.verdict import sign
from trsr.recommender.results import metric_name
from trsr.recommender.results import table as results_table
from trsr.recommender.system_names import fused_parts
from trsr.report import markdown
from trsr.report.markdown import plain

TITLES = {
    "packed": "ours, packed",
    "fork": "ours, forked cache",
    "batch": "ours, sorted batches, nothing shared",
    "joint": "ours, all users in one row",
    "tree": "ours, tree mask",  # in results of before `joint`
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
_VERDICTS = {1: "above", 0: "level", -1: "below"}


def table(results: Mapping) -> str:
    """Systems by cases in Markdown: CPU seconds, and how many times the best of ours that is.

    Raises:
        KeyError: If the file lacks a figure.
    """
    if results.get("bench") == "data":
        return _logs(results["cases"])
    if results.get("bench") == "machinery":
        return _machinery(results)
    if results.get("bench") == "precision":
        return _precision(results)
    if results.get("bench") == "gpu":
        return _gpu(results)
    if results.get("bench") == "server":
        return _server(results)
    if results.get("bench") == "search":
        return _search(results)
    if results.get("bench") == "loading":
        return _loading(results)
    if results.get("bench") == "llama_server":
        return _llama_server(results)
    cases = results["cases"]
    names = list(dict.fromkeys(name for case in cases for name in case["systems"]))
    rows = [
        [plain(TITLES.get(name, name)), *(_cell(case["systems"].get(name), name == case["best"]) for case in cases)]
        for name in names
    ]
    return markdown.table(["system", *map(_label, cases)], rows)


def _logs(cases: Sequence[Mapping]) -> str:
    """Datasets from logs: how much a second, beside row by row."""
    head = ["log, protocol", "rows", "seconds", "rows a second", "row by row", "times", "of CPU", "memory"]
    rows = []
    for case in cases:
        ours, theirs = case["systems"]["ours"], case["systems"].get("row by row")
        rate = ours["rows"] / ours["seconds"]
        beside = ["-"] * 3
        if theirs:
            slow = theirs["rows"] / theirs["seconds"]
            beside = [f"{slow:,.0f}", f"**x{rate / slow:.3g}**", f"x{case['times']:.3g}"]
        done = [f"{ours['rows']:,}", f"{ours['seconds']:.3g}", f"{rate:,.0f}"]
        rows.append([plain(case["data"]), *done, *beside, f"{ours['peak_mib'] / 1024:.2g} GiB"])
    return markdown.table(head, rows)


def _search(results: Mapping) -> str:
    """Ways to search a catalogue: what is found, time a user and memory."""
    head = ["search", "Recall@100", "CPU ms a user, all at once", "one by one", "CPU s to build", "memory"]
    rows = [
        [
            plain(name),
            f"{system.get('recall@100', 1):.3f}",
            *(f"{system['milliseconds'][mode]:.3g}" for mode in ("together", "one_by_one")),
            f"{system['build_seconds']:.3g}",
            f"{system['peak_mib'] / 1024:.2g} GiB",
        ]
        for name, system in results["systems"].items()
    ]
    return markdown.table(head, rows)


def _precision(results: Mapping) -> str:
    """Scoring, then a training step, in fp32 and bf16; the plan that the probe chooses in bold."""
    titles = {**TITLES, "batch": "in padded batches", "rows": "in padded batches", "separate": "one by one"}

    def rows(of: Mapping, cells) -> list[list[str]]:
        lines = []
        for precision, section in of.items():
            for plan, figures in section["ways"].items():
                name = plain(f"{precision}, {titles[plan]}")
                lines.append(
                    [f"**{name}**" if plan == section["chosen"] else name, f"{figures['seconds']:.3g}", *cells(figures)]
                )
        return lines

    def scored(figures: Mapping) -> list[str]:
        return [
            f"{apart['max']:.2g}, {apart['mean']:.2g}" for apart in (figures["from_separate"], figures["from_fp32"])
        ]

    def trained(figures: Mapping) -> list[str]:
        return [str(figures["peak_mib"]), *(f"{figures[key]['norm']:.2g}" for key in ("from_separate", "from_fp32"))]

    head = [
        f"scoring {results['candidates']} candidates",
        "CPU s a user",
        "log-odds off one by one: most, mean",
        "off fp32",
    ]
    scores = markdown.table(head, rows(results["score"], scored))
    head = [
        f"a step of {results['users']} x {1 + results['negatives']}",
        "CPU s",
        "MiB",
        "gradient off one by one",
        "off fp32",
    ]
    return f"{scores}\n\n{markdown.table(head, rows(results['train'], trained))}"


def _gpu(results: Mapping) -> str:
    """A row for each way of each section; the plan that the probe chooses in bold, engines on one row each."""
    titles = {**TITLES, "batch": "in padded batches", "rows": "in padded batches", "separate": "one by one"}
    rows = []
    for name, section in results["sections"].items():
        for plan, figures in section.get("ways", {"": section}).items():
            title = plain(f"{name}: {titles[plan]}" if plan else f"{name} ({section['version']})")
            shown = f"**{title}**" if plan and plan == section["chosen"] else title
            memory = str(figures.get("peak_mib", "-"))
            off = [_apart(figures[key]) if key in figures else "-" for key in ("from_separate", "from_fp32")]
            rows.append([shown, f"{1000 * figures['seconds']:.3g}", memory, *off])
    return markdown.table([plain(results["device"]["name"]), "ms", "MiB", "off one by one", "off fp32"], rows)


def _apart(off: Mapping[str, float]) -> str:
    """Log-odds: the most and the mean; a gradient relative to its norm."""
    return ", ".join(f"{value:.2g}" for value in off.values())


def _server(results: Mapping) -> str:
    """What answers cost in this process and at a server, then how far they agree."""
    rows = [
        [
            plain(name),
            str(figures["answers"]),
            f"{figures['tokens_a_second']:.3g}",
            f"{figures.get('tokens_a_cpu_second', '-')}",
        ]
        for name, figures in results["ways"].items()
    ]
    costs = markdown.table(["greedy answers", "number", "tokens a second", "a CPU second"], rows)
    margin = ["-" if value is None else f"{value:.2g}" for value in results["margin"].values()]
    agreed = [f"{results[name]:.0%}" for name in ("same_prompt", "equal", "opening")]
    head = ["prompts of the same length", "the same answer", "words before the first difference"]
    head += ["logits apart where they part", "everywhere"]
    return f"{costs}\n\n{markdown.table(head, [[*agreed, *margin]])}"


def _loading(results: Mapping) -> str:
    """Ways to load or serve a release: how far their log-odds are from the release's own."""
    rows = [
        [
            plain(way["way"]),
            plain(way["loads"]),
            way["weights"],
            *(f"{way['difference'][name]:.1e}" for name in ("max", "mean")),
            f"{way['shift']:+.1e}",
            f"{way['same_order']} of {results['requests']}",
        ]
        for way in results["ways"]
    ]
    head = ["way", "loads", "weights", "log-odds off: most", "mean", "mean with sign", "lists in the same order"]
    return markdown.table(head, rows)


def _llama_server(results: Mapping) -> str:
    """Candidates a CPU second of scorers and servers, and how far their log-odds are from those of the first."""
    rows = [
        [
            plain(name),
            f"{figures['candidates_a_cpu_second']['median']:.3g}",
            f"{figures['candidates_a_cpu_second']['low']:.3g} to {figures['candidates_a_cpu_second']['high']:.3g}",
            f"x{figures['ratio']['median']:.3g}",
            *(f"{figures['difference'][key]:.1e}" for key in ("max", "mean")),
        ]
        for name, figures in results["ways"].items()
    ]
    head = ["way", "candidates a CPU second", "over users", "times the first", "log-odds off: most", "mean"]
    return markdown.table(head, rows)


def _machinery(results: Mapping) -> str:
    """Calls in flight by the order of questions, then what one core gets through beside a bare loop."""
    flight, through = results["in_flight"], results["throughput"]
    orders = markdown.table(
        [f"order of {flight['calls']:,} calls, {flight['at_a_time']} at a time", "seconds", "in flight, on average"],
        [
            [plain(name), f"{system['seconds']:.3g}", f"{system['mean_in_flight']:.3g}"]
            for name, system in flight["systems"].items()
        ],
    )
    whole = f"{through['peak_mib']['whole']} MiB, {through['peak_mib']['before']} of them before"
    rates = markdown.table(
        [f"{through['users']:,} users of {through['blocks']} blocks", "users a CPU second", "memory"],
        [
            ["read, asked, kept and written", f"{through['users_a_cpu_second']:,}", whole],
            ["a bare loop that reads and keeps nothing", f"{through['loop_users_a_cpu_second']:,}", "-"],
        ],
    )
    return f"{orders}\n\n{rates}"


def details(results: Mapping) -> str:
    """A line for each system of each case, for the terminal."""
    unit = " x ".join(results["unit"])
    head = f"{unit:24} {'system':18} {'seconds':>9} {'times best (min to max)':>26} {'by FLOPs':>9} {'MiB':>9} {'tokens':>8} {'differs by':>11}"
    lines = [head]
    for case in results["cases"]:
        for name, system in case["systems"].items():
            ratio = "{median:.4g} ({low:.4g} to {high:.4g})".format(**system["ratio"])
            flops = "" if system["flops_ratio"] is None else f"{system['flops_ratio']:.4g}"
            differs = "" if system["difference"] is None else f"{system['difference']:.2g}"
            wrong = "  WRONG" if system["exact"] is False else ""
            lines.append(
                f"{_label(case):24} {name:18} {system['seconds']['median']:>9.4g} {ratio:>26} {flops:>9} "
                f"{system['peak_mib']:>9.4g} {system['tokens']:>8} {differs:>11}{wrong}"
            )
    return "\n".join(lines)


def wrong(results: Mapping) -> list[str]:
    """What is not exact although it is ours, in words."""
    return [
        f"{name} is off by {system['difference']:.3g} at {_label(case)}, allowed is {case['allowed_difference']:.3g}"
        for case in results["cases"]
        for name, system in case["systems"].items()
        if system["ours"] and system["exact"] is False
    ]


def _label(case: Mapping) -> str:
    return " x ".join(str(value) for value in list(case.values())[:2])


def _cell(system: Mapping | None, best: bool) -> str:
    if system is None:
        return "-"
    if system["exact"] is False:
        return "wrong"
    seconds = f"{system['seconds']['median']:.3g} s"
    if best:
        return f"**{seconds}**"
    limit = "" if system["flops_ratio"] is None else f" of {system['flops_ratio']:.3g}"
    return f"{seconds}, x{system['ratio']['median']:.3g}{limit}"


def frontier(results: Mapping) -> str:
    """What `bench.frontier` writes: a row a room; then the baselines on the same users."""
    forms = list(results["rooms"][0]["forms"])  # the newest items alone, and beside a summary
    head = ["room, tokens", "items shown alone", *(f"Recall@3, {form}" for form in forms)]
    head += ["difference", "p", "p (Holm)", "items shown beside the summary", "seeds"]
    rows = []
    for room in results["rooms"]:
        test, (recent, both) = room["test"], (room["forms"][form] for form in forms)
        rows.append(
            [
                str(room["room"]),
                f"{recent['items']:.1f}",
                *(interval(form["recall@3"]) for form in (recent, both)),
                interval(test | {"value": test["difference"]}, "+"),
                f"{test['p_value']:.4f}",
                f"{test['p_holm']:.4f}",
                f"{both['items']:.1f}",
                str(recent["seeds"]),
            ]
        )
    return f"{markdown.table(head, rows)}\n\n{results_table(results['baselines'], ('recall@3', 'mrr@10'))}"


def steerability(results: Mapping) -> str:
    """What `bench.steerability` writes: a row for each way of editing a summary."""
    figures = results["figures"]
    head = ["summary", "X rises by", "Y rises by", "others rise by", "X in the first 10", "Y in the first 10"]
    head.append("users for whom Y rises and X falls")
    rows = [
        [
            {"as it is": "as it is", "replaced": "Y in the place of X", "added": "Y beside X"}[edit],
            *(
                "-" if edit == "as it is" else interval(figures[f"{edit} up {group}"], "+")
                for group in ("x", "y", "others")
            ),
            *(interval(figures[f"{edit} top {group}"]) for group in ("x", "y")),
            interval(figures["replaced, both as asked"]) if edit == "replaced" else "-",
        ]
        for edit in ("as it is", "replaced", "added")
    ]
    return markdown.table(head, rows)


def overview(*comparisons: Mapping) -> str:
    """Comparisons with the best peer, a row each: the peer, the best of our retrievers, and sums of systems.

    A system is above or below the peer where its p value is below .05 after Holm's correction over all rows of its comparison, else
    level. Systems are ours where their names begin with `retriever`; of several of a kind, the one with the highest figure is shown.
    """
    kinds = ("ours", "ours added", "ours and peers added", "peers added")
    rows = []
    for results in comparisons:
        metric, peer = results["metric"], results["paired"][0]["against"]
        verdicts = {test["system"]: _VERDICTS[sign(test)] for test in results["paired"]}
        values = {name: system[metric]["value"] for name, system in results["systems"].items()}
        dataset = results["dataset"].removesuffix("-popularity")
        catalogue = "n_items" in results  # which results on candidates do not count
        drawn = "by popularity" if "popularity negatives" in results["protocol"] else "uniform"
        cells = [
            plain(f"{dataset}, {results['n_users']:,}"),
            "the whole catalogue" if catalogue else f"1 + 20 {drawn}",
            metric_name(metric),
            f"{values[peer]:.3f}, {plain(peer)}",
        ]
        for kind in kinds:
            best = max((name for name in verdicts if _kind(name) == kind), key=values.__getitem__, default=None)
            cells.append("-" if best is None else f"{values[best]:.3f}, {verdicts[best]}")
        rows.append(cells)
    return markdown.table(["dataset, users", "chosen from", "figure", "best peer", *kinds], rows)


def _kind(name: str) -> str:
    """Whose scores a system has: `ours`, `peers` or `ours and peers`, and `added` behind it for a sum."""
    parts = fused_parts(name)
    ours = sum(part.startswith("retriever") for part in parts)
    owner = "ours" if ours == len(parts) else "ours and peers" if ours else "peers"
    return f"{owner} added" if len(parts) > 1 else owner
