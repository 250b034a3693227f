"""The versions of its requirements that the package allows, as pyproject.toml states them."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires

from trsr.assets.paths import PACKAGE

PROJECT = "llm-trsr"


def ranges() -> dict[str, str]:
    """Package -> range of versions, such as `>=5.23,<5.40`, of each requirement without which the package does not work.

    Of a checkout, its pyproject.toml; else what was installed. Empty where neither is there.
    """
    pyproject = PACKAGE.parent.parent / "pyproject.toml"
    if pyproject.is_file():
        stated = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["dependencies"]
    else:
        try:
            stated = [requirement for requirement in requires(PROJECT) or () if "extra ==" not in requirement]
        except PackageNotFoundError:
            stated = []
    package_ranges = {}
    for line in stated:
        if match := re.match(r"([\w.-]+)(?:\[.*?\])?\s*(.*)", line):
            # The lower bound first, as it is read; metadata sorts otherwise.
            bounds = sorted(match[2].replace(" ", "").split(","), key=lambda bound: not bound.startswith(">"))
            package_ranges[match[1]] = ",".join(bounds)
    return package_ranges
