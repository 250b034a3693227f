"""What ships inside the package: the nano recommender and the sample dataset, by the names that recipes and pipelines use."""

from importlib.resources import files
from pathlib import Path

TASK = "text-rich-recommendation"
ASSETS = Path(str(files("trsr"))) / "assets"
NANO = ASSETS / "nano"


def base_path(base: str) -> str:
    """Where a base named in a recipe is: `nano` is the one in the package."""
    return str(NANO / "base") if base == "nano" else base


def dataset_path(source: str) -> str:
    """Where a dataset named in a recipe is: `sample` is the one in the package."""
    return str(ASSETS / "sample") if source == "sample" else source
