"""The result of a verb: text for a terminal, one JSON object for scripts."""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trsr.cli.exits import Exit


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a verb, printed at its end.

    Attributes:
        values: Plain values, for --json.
        text: The same result as text, for a terminal.
    """

    values: Mapping[str, Any]
    text: str
    exit: Exit = Exit.SUCCESS

    def json(self) -> str:
        return json.dumps(finite(self.values), indent=2, allow_nan=False)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json, which prints `Outcome.json`; all other output then goes to stderr."""
    parser.add_argument("--json", action="store_true", help="print one JSON object, and nothing else, on stdout")


def finite(value: Any) -> Any:
    """Replace NaN and infinity by None: JSON has neither."""
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
