"""Figures of matplotlib, which is an optional package."""

from trsr.errors import UsageError

INSTALL = "pip install 'llm-trsr[plots]'"


def available() -> bool:
    """Whether matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def check(leave_out: str) -> None:
    """Raises ValueError with the install line if matplotlib is missing; `leave_out` is the option that needs none."""
    if not available():
        raise UsageError(f"Pictures need matplotlib: {INSTALL}, or pass {leave_out}.")


def figure(width: float, height: float):
    """An empty matplotlib Figure, width and height in inches. Raises ImportError without matplotlib."""
    from matplotlib.figure import Figure  # no pyplot: nothing global, no display

    return Figure(figsize=(width, height), layout="constrained")
