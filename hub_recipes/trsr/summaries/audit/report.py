"""An audit as text for a terminal, or as a table. Computes nothing."""

from collections.abc import Mapping
from typing import Any

from trsr.dataset.check.findings import show
from trsr.report import markdown


def as_text(audit: Mapping[str, Any], source: str) -> str:
    """Figures side by side, a column a method, then summaries to look at, then warnings."""
    methods = audit["methods"]
    rows = _rows(audit)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    fallen = ", ".join(f"{show(why)} {count:,}" for why, count in audit["fallen_back"].items()) or "none"
    items = audit["items"]
    lines += [
        "",
        f"fallen back to the extractive summarizer: {fallen}",
        f"items with prompt injection: {items['with_instructions']:,} of {items['count']:,}",
    ]
    examples = [
        f"{method} {kind}: {one['split']} {one['user_id']}: {one['shown']}"
        for method, found in methods.items()
        for kind, ones in found["examples"].items()
        for one in ones
    ]
    told = [f"warning: {one}" for one in audit["warnings"]]
    limit = f", the first {audit['limit']:,} rows of each split" if audit["limit"] else ""
    blocks = [lines, examples, told, [f"{show(source, 200)}{limit}: {len(told)} warnings"]]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def table(audit: Mapping[str, Any]) -> str:
    """Figures side by side in Markdown. No text of a summary stands in it."""
    (_, *methods), *rows = _rows(audit)
    return markdown.table([f"summaries by {markdown.plain(audit['engine'])}", *methods], rows)


def _rows(audit: Mapping[str, Any]) -> list[list[str]]:
    methods = audit["methods"]
    return [["", *methods], *([label, *(cell(found) for found in methods.values())] for label, cell in _ROWS.items())]


def _spread(one: Mapping[str, Any], unit: str = "") -> str:
    if one["median"] is None:
        return "not measured"
    return f"{one['median']:,g}{unit}, {one['p90']:,g}{unit}, {one['max']:,g}{unit}"


def _controlled(one: Mapping[str, Any]) -> str:
    if one["mean"] is None:
        return "not measured"
    another = "" if one["of_another"] is None else f" ({one['of_another']:.3f})"
    return f"{one['mean']:.3f}{another}"


_ROWS = {
    "summaries": lambda found: f"{found['summaries']:,}",
    "words: median, p90, max": lambda found: _spread(found["words"]),
    "compression: median, p90, max": lambda found: _spread(found["compression"], "x"),
    "frequent values named (another's history)": lambda found: _controlled(found["coverage"]),
    "words unsupported (another's history)": lambda found: _controlled(found["unsupported"]),
    "mostly unsupported": lambda found: f"{found['unsupported']['over']:,}",
    "name the target (a negative)": lambda found: (
        f"{found['target_named']['count']:,} ({found['target_named']['of_a_negative']:,})"
    ),
    "near-copies of an item": lambda found: f"{found['near_copies']:,}",
    "identical for several users": lambda found: f"{found['identical']:,}",
    "no summary: refusals and the like": lambda found: f"{sum(found['problems'].values()):,}",
    "prompt injection (copied)": lambda found: (
        f"{found['instructions']['summaries']:,} ({found['instructions']['copied']:,})"
    ),
}
