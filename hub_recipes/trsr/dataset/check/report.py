"""What a check found, for people and for programs."""

from dataclasses import asdict
from typing import Any

from trsr.dataset.check.findings import CODES, SEVERITIES, Example, Finding, show
from trsr.dataset.check.run import Report


def as_text(report: Report) -> str:
    """The report for a terminal."""
    lines = [line for one in report.findings for line in (_title(one), *map(_example, one.examples))]
    rows = [
        f"  {config}: " + ", ".join(f"{split} {count:,}" for split, count in splits.items())
        for config, splits in report.rows.items()
    ]
    width = max(map(len, report.spreads), default=0)
    spreads = [
        f"  {name:{width}}  median {one.median:>6,}   p90 {one.p90:>6,}   max {one.max:>6,}"
        for name, one in report.spreads.items()
    ]
    counts = ", ".join(f"{_number(report.count(severity), severity)}" for severity in SEVERITIES)
    limit = f", the first {report.limit:,} rows of each split" if report.limit else ""
    protocol = report.protocol and ["protocol", f"  {show(report.protocol, 200)}"]
    blocks = [lines, protocol, rows and ["rows read", *rows], spreads and ["lengths", *spreads]]
    shown = ["\n".join(block) for block in blocks if block]
    return "\n\n".join([*shown, f"{show(report.source, 200)}{limit}: {counts}"])


def as_dict(report: Report) -> dict[str, Any]:
    """The report for a program, as plain values."""
    return {
        "dataset": report.source,
        "limit": report.limit,
        "protocol": report.protocol,
        "counts": {severity: report.count(severity) for severity in SEVERITIES},
        "findings": [{**asdict(one), "meaning": CODES[one.code][1]} for one in report.findings],
        "rows": report.rows,
        "lengths": {name: spread.to_dict() for name, spread in report.spreads.items()},
    }


def _title(one: Finding) -> str:
    place = " ".join(filter(None, (one.config, one.split)))
    counted = f" ({one.count:,})" if any(example.row is not None for example in one.examples) or one.count > 1 else ""
    return f"{one.severity:7}  {one.code}{f'  {place}' if place else ''}{counted}: {CODES[one.code][1]}"


def _example(one: Example) -> str:
    if one.row is None:
        return f"         {one.shown}"
    return f"         row {one.row}, {one.id}" + (f": {one.shown}" if one.shown else "")


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
