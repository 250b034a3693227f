"""What ships inside the package: the nano recommender and the sample dataset, by the names that recipes and pipelines use."""

from importlib.resources import files
from pathlib import Path

TASK = "text-rich-recommendation"
PACKAGE = Path(str(files("trsr")))
ASSETS = PACKAGE / "assets"
NANO = ASSETS / "nano"
NANO_SUMMARIZER = NANO / "adapter" / "summarizer"


def base_path(base: str) -> str:
    """Where a base named in a recipe is: `nano` is the one in the package."""
    return str(NANO / "base") if base == "nano" else base


def dataset_path(source: str) -> str:
    """Where a dataset named in a recipe is: `sample` is the one in the package."""
    return str(ASSETS / "sample") if source == "sample" else source


def summarizer_path(base: str, named: str | None = None) -> Path | None:
    """Where the adapter is that summarises with a base named in a recipe; None where there is none.

    Args:
        named: The adapter that the recipe names, if it names one.
    """
    if named:
        return Path(named)
    return NANO_SUMMARIZER if base == "nano" and NANO_SUMMARIZER.is_dir() else None
