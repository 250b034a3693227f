"""Figures of matplotlib, which is an optional package."""

from trsr.errors import UsageError


def check(leave_out: str) -> None:
    """Raises ValueError with the install line if matplotlib is missing; `leave_out` is the option that skips pictures."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError(f"Pictures need matplotlib: pip install 'llm-trsr[plots]', or pass {leave_out}.") from None


def figure(width: float, height: float):
    """An empty matplotlib Figure, width and height in inches. Raises ImportError without matplotlib."""
    from matplotlib.figure import Figure  # no pyplot: nothing global, no display

    return Figure(figsize=(width, height), layout="constrained")
