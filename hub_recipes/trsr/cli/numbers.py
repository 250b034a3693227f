"""Numbers as options take them."""

import argparse
from collections.abc import Callable


def positive(kind: type) -> Callable[[str], float]:
    """Reads a number above 0."""

    def read(text: str) -> float:
        if (number := kind(text)) <= 0:
            raise argparse.ArgumentTypeError(f"must be more than 0, got {text}")
        return number

    read.__name__ = kind.__name__  # argparse names it in its message
    return read
