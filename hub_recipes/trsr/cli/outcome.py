"""What a verb found: as text for people, as one JSON object for scripts."""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trsr.cli.exits import Exit


@dataclass(frozen=True, slots=True)
class Outcome:
    """Printed when the verb is through.

    Attributes:
        values: Plain values, for --json.
        text: Of the same, for a terminal.
    """

    values: Mapping[str, Any]
    text: str
    exit: Exit = Exit.DONE

    def json(self) -> str:
        return json.dumps(_strict(self.values), indent=2, allow_nan=False)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Let scripts ask for `Outcome.json`; all else then goes to stderr."""
    parser.add_argument("--json", action="store_true", help="print one JSON object, and nothing else, on stdout")


def _strict(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, Mapping):
        return {name: _strict(one) for name, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_strict(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
