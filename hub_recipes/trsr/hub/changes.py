"""How a release differs from what the Hub holds: the plan of a push, read only.

A repo of ours holds what its release folder holds, so that a difference is a matter of checksums.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from trsr.hub.release import Release, pin
from trsr.hub.repos import TYPES
from trsr.hub.retry import patiently

KEPT = ".gitattributes"  # the Hub's own; everything else in a repo is the release's


@dataclass(frozen=True, slots=True)
class Change:
    """How a folder differs from its repo.

    Attributes:
        head: The repo's newest commit on the branch; None if there is no such repo or branch.
        exists: Whether the repo is there.
        private, gated: As the Hub has it.
        sizes: Path -> bytes of each file of the folder.
        added, changed, removed: Paths that a push would commit.
    """

    kind: str
    repo: str
    head: str | None
    exists: bool
    private: bool
    gated: str | bool
    sizes: Mapping[str, int]
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    @property
    def same(self) -> bool:
        return not (self.added or self.changed or self.removed)


def plan(release: Release, hub: HfApi, branch: str = "main") -> list[Change]:
    """What a push would change, repo by repo. Reads the Hub, writes to the release folder alone."""
    commits: dict[str, str] = {}
    changes = []
    for kind in release.names.own:
        pin(release, commits, kind)
        change = compare(release, hub, kind, branch)
        if change.same and change.head:
            commits[kind] = change.head
        changes.append(change)
    return changes


def compare(release: Release, hub: HfApi, kind: str, revision: str) -> Change:
    """How the folder of a kind differs from a revision of its repo."""
    repo, folder = release.names.repo(kind), release.folder / kind
    local = _files(folder)

    def look():
        try:
            return hub.repo_info(repo, repo_type=TYPES[kind], revision=revision), True
        except RevisionNotFoundError:  # there is no such branch yet
            return hub.repo_info(repo, repo_type=TYPES[kind]), False
        except RepositoryNotFoundError:
            return None, False

    def tree() -> dict[str, RepoFile]:
        listed = hub.list_repo_tree(repo, repo_type=TYPES[kind], revision=info.sha, recursive=True)
        return {entry.path: entry for entry in listed if isinstance(entry, RepoFile)}

    info, branched = patiently(f"Look at {repo}", look)
    remote = patiently(f"List {repo}", tree) if branched else {}
    return Change(
        kind,
        repo,
        info.sha if branched else None,
        info is not None,
        bool(info and info.private),
        getattr(info, "gated", None) or False,
        {name: path.stat().st_size for name, path in local.items()},
        tuple(name for name in local if name not in remote),
        tuple(name for name, path in local.items() if name in remote and not _equal(path, remote[name])),
        tuple(sorted(name for name in remote if name not in local and name != KEPT)),
    )


def _equal(path: Path, remote: RepoFile) -> bool:
    """Whether a file is the remote one, by the checksum that the Hub keeps of it."""
    if path.stat().st_size != remote.size:
        return False
    if remote.lfs:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == remote.lfs.sha256
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == remote.blob_id


def show(changes: Iterable[Change]) -> str:
    """A plan as a Markdown table."""
    lines = ["| repo | type | files | size | on the Hub |", "|---|---|---|---|---|"]
    for one in changes:
        counts = (("new", one.added), ("changed", one.changed), ("removed", one.removed))
        told = ", ".join(f"{len(paths)} {word}" for word, paths in counts if paths)
        state = told if one.exists else f"new repo, {told}"
        size = _size(sum(one.sizes.values()))
        lines.append(f"| {one.repo} | {TYPES[one.kind]} | {len(one.sizes)} | {size} | {state or 'up to date'} |")
    return "\n".join(lines)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def unseen(release: Release) -> list[Change]:
    """The plan where there is no Hub to compare with: everything is new."""
    nowhere: dict[str, Any] = {
        "head": None,
        "exists": False,
        "private": False,
        "gated": False,
        "changed": (),
        "removed": (),
    }
    changes = []
    for kind in release.names.own:
        sizes = {name: path.stat().st_size for name, path in _files(release.folder / kind).items()}
        changes.append(Change(kind, release.names.repo(kind), sizes=sizes, added=tuple(sizes), **nowhere))
    return changes


def _files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
