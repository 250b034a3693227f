"""The versions a run used, for its records."""

from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("llm-trsr", "torch", "transformers", "trl", "peft", "datasets", "accelerate", "tokenizers", "numpy")


def versions(*more: str) -> dict[str, str]:
    """Package to installed version, of PACKAGES and `more`; packages that are not installed are left out."""
    found = {}
    for package in (*PACKAGES, *more):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
