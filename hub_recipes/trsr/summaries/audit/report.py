"""An audit as text for a terminal, or as a table. Computes nothing."""

from collections.abc import Mapping
from typing import Any

from trsr.dataset.check.findings import show
from trsr.report import markdown


def as_text(audit: Mapping[str, Any], source: str) -> str:
    """A table with a column for each method, then examples of summaries, then warnings."""
    methods = audit["methods"]
    rows = _rows(audit)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    fallen = ", ".join(f"{show(reason)} {count:,}" for reason, count in audit["fallen_back"].items()) or "none"
    items = audit["items"]
    lines += [
        "",
        f"fallen back to the extractive summarizer: {fallen}",
        f"items with prompt injection: {items['with_instructions']:,} of {items['count']:,}",
    ]
    examples = [
        f"{method} {kind}: {example['split']} {example['user_id']}: {example['shown']}"
        for method, figures in methods.items()
        for kind, examples in figures["examples"].items()
        for example in examples
    ]
    warnings = [f"warning: {warning}" for warning in audit["warnings"]]
    limit = f", the first {audit['limit']:,} rows of each split" if audit["limit"] else ""
    blocks = [lines, examples, warnings, [f"{show(source, 200)}{limit}: {len(warnings)} warnings"]]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def table(audit: Mapping[str, Any]) -> str:
    """The table in Markdown. It holds no text of a summary."""
    (_, *methods), *rows = _rows(audit)
    return markdown.table([f"summaries by {markdown.plain(audit['engine'])}", *methods], rows)


def _rows(audit: Mapping[str, Any]) -> list[list[str]]:
    methods = audit["methods"]
    return [
        ["", *methods],
        *([label, *(cell(figures) for figures in methods.values())] for label, cell in _ROWS.items()),
    ]


def _spread(lengths: Mapping[str, Any], unit: str = "") -> str:
    if lengths["median"] is None:
        return "not measured"
    return f"{lengths['median']:,g}{unit}, {lengths['p90']:,g}{unit}, {lengths['max']:,g}{unit}"


def _controlled(figure: Mapping[str, Any]) -> str:
    if figure["mean"] is None:
        return "not measured"
    control = "" if figure["of_another"] is None else f" ({figure['of_another']:.3f})"
    return f"{figure['mean']:.3f}{control}"


_ROWS = {
    "summaries": lambda figures: f"{figures['summaries']:,}",
    "words: median, p90, max": lambda figures: _spread(figures["words"]),
    "compression: median, p90, max": lambda figures: _spread(figures["compression"], "x"),
    "frequent values named (another's history)": lambda figures: _controlled(figures["coverage"]),
    "words unsupported (another's history)": lambda figures: _controlled(figures["unsupported"]),
    "mostly unsupported": lambda figures: f"{figures['unsupported']['over']:,}",
    "name the target (a negative)": lambda figures: (
        f"{figures['target_named']['count']:,} ({figures['target_named']['of_a_negative']:,})"
    ),
    "near-copies of an item": lambda figures: f"{figures['near_copies']:,}",
    "identical for several users": lambda figures: f"{figures['identical']:,}",
    "no summary: refusals and the like": lambda figures: f"{sum(figures['problems'].values()):,}",
    "prompt injection (copied)": lambda figures: (
        f"{figures['instructions']['summaries']:,} ({figures['instructions']['copied']:,})"
    ),
}
