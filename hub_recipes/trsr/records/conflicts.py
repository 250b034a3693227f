"""Find installed packages with incompatible versions. Reads package metadata; imports none of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@dataclass(frozen=True, slots=True)
class Conflict:
    """A requirement of a package that the installed version of another package does not meet."""

    package: str
    needs: str  # as pip takes it: peft>=0.22
    installed: str | None

    @property
    def names(self) -> tuple[str, str]:
        """The two packages."""
        return self.package, Requirement(self.needs).name

    def __str__(self) -> str:
        package, needed = self.names
        state = f"{needed} {self.installed} is installed" if self.installed else f"{needed} is not installed"
        return f"{package} {_installed(package)} needs {self.needs}, and {state}."


def conflicts(root: str = "llm-trsr") -> list[Conflict]:
    """All conflicts of `root` and its direct and indirect requirements, those of `root` first.

    Requirements of extras count only if installed, and their own requirements are not checked. Empty if `root` is not
    installed.
    """
    if _installed(root) is None:
        return []
    extras = metadata(root).get_all("Provides-Extra") or []
    waiting, visited, results = [Requirement(f"{root}[{','.join(extras)}]")], set(), []
    while waiting:
        requirement = waiting.pop(0)
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if key in visited or _installed(requirement.name) is None:
            continue
        visited.add(key)
        for need, optional in _requirements(requirement):
            conflict = conflict_with(requirement.name, need)
            if conflict and (conflict.installed or not optional):
                results.append(conflict)
            if not optional:
                waiting.append(need)
    return list(dict.fromkeys(results))


def conflict_with(package: str, need: Requirement) -> Conflict | None:
    """The conflict if the requirement `need` of `package` is not met; None if it is."""
    installed = _installed(need.name)
    if installed is not None and need.specifier.contains(installed, prereleases=True):
        return None
    return Conflict(package, f"{need.name}{need.specifier}", installed)


def _requirements(requirement: Requirement) -> Iterator[tuple[Requirement, bool]]:
    """The requirements of a package, each with whether only an extra requires it."""
    for line in requires(requirement.name) or []:
        need = Requirement(line)
        extras = [
            extra for extra in ("", *requirement.extras) if not need.marker or need.marker.evaluate({"extra": extra})
        ]
        if extras:
            yield need, "" not in extras


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
