"""Versions of installed packages, for the record of a run."""

from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("llm-trsr", "torch", "transformers", "trl", "peft", "datasets", "accelerate", "tokenizers", "numpy")


def versions(*packages: str) -> dict[str, str]:
    """Package -> installed version, of PACKAGES and `packages`; without those that are not installed."""
    installed = {}
    for package in (*PACKAGES, *packages):
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed
