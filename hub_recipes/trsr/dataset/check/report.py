"""The report of a check, as text for a terminal and as plain values for programs."""

from dataclasses import asdict
from typing import Any

from trsr.dataset.check.findings import CODES, SEVERITIES, Example, Finding, show
from trsr.dataset.check.run import Report


def as_text(report: Report) -> str:
    """The report for a terminal."""
    lines = [line for finding in report.findings for line in (_title(finding), *map(_example, finding.examples))]
    rows = [
        f"  {config}: " + ", ".join(f"{split} {count:,}" for split, count in splits.items())
        for config, splits in report.rows.items()
    ]
    width = max(map(len, report.spreads), default=0)
    spreads = [
        f"  {name:{width}}  median {spread.median:>6,}   p90 {spread.p90:>6,}   max {spread.max:>6,}"
        for name, spread in report.spreads.items()
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
        "findings": [{**asdict(finding), "meaning": CODES[finding.code][1]} for finding in report.findings],
        "rows": report.rows,
        "lengths": {name: spread.to_dict() for name, spread in report.spreads.items()},
    }


def _title(finding: Finding) -> str:
    location = " ".join(filter(None, (finding.config, finding.split)))
    has_rows = any(example.row is not None for example in finding.examples)
    count = f" ({finding.count:,})" if has_rows or finding.count > 1 else ""
    return f"{finding.severity:7}  {finding.code}{f'  {location}' if location else ''}{count}: {CODES[finding.code][1]}"


def _example(example: Example) -> str:
    if example.row is None:
        return f"         {example.shown}"
    return f"         row {example.row}, {example.id}" + (f": {example.shown}" if example.shown else "")


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
