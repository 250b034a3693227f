"""Pairs of installed packages whose versions do not fit together. Reads their metadata; imports none of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@dataclass(frozen=True, slots=True)
class Conflict:
    """A package that asks for versions of another, of which `installed` is none."""

    package: str
    needs: str  # as pip takes it: peft>=0.22
    installed: str | None

    @property
    def names(self) -> tuple[str, str]:
        """The two packages."""
        return self.package, Requirement(self.needs).name

    def __str__(self) -> str:
        package, other = self.names
        found = f"{other} {self.installed} is installed" if self.installed else f"{other} is not installed"
        return f"{package} {_installed(package)} needs {self.needs}, and {found}."


def conflicts(root: str = "llm-trsr") -> list[Conflict]:
    """Those among `root` and all that it requires, directly or through others, the root's own first.

    What only an extra asks for counts where it is installed, and is not followed further. Empty if `root` itself is not
    installed.
    """
    if _installed(root) is None:
        return []
    extras = metadata(root).get_all("Provides-Extra") or []
    waiting, seen, found = [Requirement(f"{root}[{','.join(extras)}]")], set(), []
    while waiting:
        asked = waiting.pop(0)
        key = canonicalize_name(asked.name), frozenset(asked.extras)
        if key in seen or _installed(asked.name) is None:
            continue
        seen.add(key)
        for need, optional in _requirements(asked):
            conflict = conflict_with(asked.name, need)
            if conflict and (conflict.installed or not optional):
                found.append(conflict)
            if not optional:
                waiting.append(need)
    return list(dict.fromkeys(found))


def conflict_with(package: str, need: Requirement) -> Conflict | None:
    """The conflict if what `package` needs is not installed; None if it is."""
    installed = _installed(need.name)
    if installed is not None and need.specifier.contains(installed, prereleases=True):
        return None
    return Conflict(package, f"{need.name}{need.specifier}", installed)


def _requirements(asked: Requirement) -> Iterator[tuple[Requirement, bool]]:
    """What a package requires, and whether only an extra does."""
    for line in requires(asked.name) or []:
        need = Requirement(line)
        by = [extra for extra in ("", *asked.extras) if not need.marker or need.marker.evaluate({"extra": extra})]
        if by:
            yield need, "" not in by


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
