"""Locate the files of our Spaces: one Space for each metric in `METRICS`, and one for the recommender.

They lie in different places in a checkout and in an installed package. Cards and uploads are left to others.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from trsr.assets.paths import PACKAGE
from trsr.errors import UsageError

METRICS = ("recall_at_k", "mrr_at_k", "ndcg_at_k")
SPACE = (
    "app.py",
    "asking.py",
    "catalogue_section.py",
    "events.py",
    "page.css",
    "page.py",
    "reading.py",
    "recommending.py",
    "requirements.txt",
    "samples.py",
    "showing.py",
    "widgets.py",
)


def metric_files(name: str) -> dict[str, Path]:
    """Files of the Space of a metric in `METRICS`, without its README: path in the repo -> source file.

    `evaluate.load("ORG/NAME")` reads NAME.py, so the Space has to be called NAME.

    Raises:
        ValueError: If there is no such metric.
        FileNotFoundError: If the package was installed without them.
    """
    if name not in METRICS:
        raise UsageError(f"Unknown metric {name!r}, expected one of {', '.join(METRICS)}.")
    folder = _folder("metrics_spaces", "metrics")
    return {
        f"{name}.py": folder / name / f"{name}.py",
        "ranking_metrics.py": PACKAGE / "metrics" / "ranking.py",
        "app.py": folder / "app.py",
        "requirements.txt": folder / name / "requirements.txt",
    }


def space_files() -> dict[str, Path]:
    """Files of the recommender's Space, but for its README and `recommender.json`. Errors as `metric_files`."""
    folder = space_folder()
    return {name: folder / name for name in SPACE}


def preloaded(
    files: Mapping[str, Sequence[str]], repo: Callable[[str], str], commits: Mapping[str, str | None]
) -> list[str] | None:
    """`preload_from_hub` of a Space: what is downloaded while it is built, `REPO FILE,FILE COMMIT` each; None for nothing.

    Args:
        files: Kind of repo -> its files. A base of others is not among them: how its weights are cut is not known here.
        repo: Kind -> id of a repo.
    """
    lines = [
        " ".join(filter(None, (repo(kind), ",".join(sorted(names)), commits.get(kind))))
        for kind, names in files.items()
    ]
    return lines or None


def space_folder() -> Path:
    """The folder with the files of the recommender's Space. Raises FileNotFoundError if it was not installed."""
    return _folder("space", "space")


def _folder(installed: str, checkout: str) -> Path:
    """The folder of a Space: in the package of a wheel, or beside the package in a checkout."""
    for folder in (PACKAGE / installed, PACKAGE.parent / checkout):
        if (folder / "app.py").is_file():
            return folder
    raise FileNotFoundError(
        f"No {installed}/app.py in the package at {PACKAGE}. Install it again, from its wheel or its checkout."
    )
