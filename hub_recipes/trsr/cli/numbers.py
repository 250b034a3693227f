"""Numbers as options take them."""

import argparse
import math
from collections.abc import Callable


def positive(kind: type) -> Callable[[str], float]:
    """Reads a number above 0."""

    def read(text: str) -> float:
        if not 0 < (number := kind(text)) < math.inf:
            raise argparse.ArgumentTypeError(f"must be {'finite and ' * (kind is float)}more than 0, got {text}")
        return number

    read.__name__ = kind.__name__  # argparse names it in its message
    return read


def count(text: str) -> int:
    """Reads a whole number, 0 or more."""
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {text}")
    return number


def seed(text: str) -> int:
    """Reads a seed of a random generator."""
    from trsr.recommender.recipe import LARGEST_SEED

    if not 0 <= (number := int(text)) <= LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"must be 0 to {LARGEST_SEED}, got {text}")
    return number


def port(text: str) -> int:
    """Reads a port to listen on."""
    if not 1 <= (number := int(text)) <= 65535:
        raise argparse.ArgumentTypeError(f"must be 1 to 65535, got {text}")
    return number


count.__name__ = seed.__name__ = port.__name__ = "int"  # argparse names it in its message
