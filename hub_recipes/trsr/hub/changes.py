"""How a release differs from what the Hub holds: the plan of a push, read only.

Checksums tell what differs. Titles of commits tell who wrote it: a file that no commit of ours touched last is somebody
else's, or was edited by somebody else. The first kind is kept, the second stops a push, see `preflight.check`.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from trsr.hub.release import Release, pin
from trsr.hub.repos import TYPES
from trsr.hub.retry import with_retries

KEPT = ".gitattributes"  # the Hub's own
RELEASE_TITLE, DATASET_TITLE = "Release with LLM-TRSR", "Dataset for LLM-TRSR"
# Titles of our commits begin so; a merged pull request adds its number. The last is the Hub's, of a new repo.
_OURS = (RELEASE_TITLE, DATASET_TITLE, "initial commit")


@dataclass(frozen=True, slots=True)
class ForeignCommit:
    """A commit of somebody else. Its texts are theirs: one line, without control characters."""

    id: str
    authors: str
    date: str
    title: str

    def __str__(self) -> str:
        return f"{self.id[:12]} of {self.date} by {self.authors}: {self.title}"


@dataclass(frozen=True, slots=True)
class Change:
    """How a folder differs from its repo.

    Attributes:
        head: The repo's newest commit on the branch; None if there is no such repo or branch.
        exists: Whether the repo is there.
        private, gated: As the Hub has it.
        sizes: Path -> bytes of each file of the folder.
        added, changed, removed: Paths that a push would commit.
        foreign: Paths that somebody else put there. They are kept.
        edited: Paths among `added` and `changed` that somebody else changed or deleted since our last commit.
        commits: Of others since then, newest first.
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
    foreign: tuple[str, ...] = ()
    edited: tuple[str, ...] = ()
    commits: tuple[ForeignCommit, ...] = ()

    def operations(self, folder: Path) -> list[CommitOperationAdd | CommitOperationDelete]:
        """What makes the repo hold what the folder holds."""
        written = [CommitOperationAdd(name, folder / name) for name in (*self.added, *self.changed)]
        return [*written, *(CommitOperationDelete(name) for name in self.removed)]

    @property
    def same(self) -> bool:
        return not (self.added or self.changed or self.removed)


def plan(release: Release, hub: HfApi, branch: str = "main") -> list[Change]:
    """What a push would change, repo by repo. Reads the Hub, writes to the release folder alone."""
    commits: dict[str, str] = {}
    changes = []
    for kind in release.names.own:
        pin(release, commits, kind)
        change = compare_release(release, hub, kind, branch)
        if change.same and change.head:
            commits[kind] = change.head
        changes.append(change)
    return changes


def compare_release(release: Release, hub: HfApi, kind: str, revision: str) -> Change:
    """How the folder of a kind differs from a revision of its repo."""
    return compare(release.folder / kind, hub, release.names.repo(kind), kind, revision)


def compare(folder: Path, hub: HfApi, repo: str, kind: str, revision: str) -> Change:
    """How a folder differs from a revision of a repo.

    Args:
        kind: Of `repos.TYPES`.
    """
    local = _files(folder)

    def look():
        try:
            return hub.repo_info(repo, repo_type=TYPES[kind], revision=revision), True
        except RevisionNotFoundError:  # there is no such branch yet
            return hub.repo_info(repo, repo_type=TYPES[kind]), False
        except RepositoryNotFoundError:
            return None, False

    def tree(commit: str, expand: bool = False) -> dict[str, RepoFile]:
        def listed() -> dict[str, RepoFile]:
            entries = hub.list_repo_tree(repo, repo_type=TYPES[kind], revision=commit, recursive=True, expand=expand)
            return {entry.path: entry for entry in entries if isinstance(entry, RepoFile) and entry.path != KEPT}

        return with_retries(f"List {repo}", listed)

    info, branched = with_retries(f"Look at {repo}", look)
    remote = tree(info.sha) if branched else {}
    added = {name for name in local if name not in remote}
    changed = {name for name, path in local.items() if name in remote and not _equal(path, remote[name])}
    left = {name for name in remote if name not in local}
    foreign, edited, commits = set[str](), set[str](), list[ForeignCommit]()
    if remote and (added or changed or left):
        # Asked only where something differs: the Hub looks up each file's last commit for it.
        theirs = {
            name
            for name, file in tree(info.sha, expand=True).items()
            if not (file.last_commit and _ours(file.last_commit.title))
        }
        foreign, edited = left & theirs, changed & theirs
        commits, last = _since_ours(hub, repo, TYPES[kind], info.sha)
        if commits and last and added:
            edited |= added & tree(last).keys()  # deleted on the Hub
    return Change(
        kind,
        repo,
        info.sha if branched else None,
        info is not None,
        bool(info and info.private),
        getattr(info, "gated", None) or False,
        {name: path.stat().st_size for name, path in local.items()},
        added=tuple(sorted(added)),
        changed=tuple(sorted(changed)),
        removed=tuple(sorted(left - foreign)),
        foreign=tuple(sorted(foreign)),
        edited=tuple(sorted(edited)),
        commits=tuple(commits),
    )


def _ours(title: str) -> bool:
    return title.startswith(_OURS)


def _since_ours(hub: HfApi, repo: str, repo_type: str, revision: str) -> tuple[list[ForeignCommit], str | None]:
    """The commits of others since our last one, newest first, and our last one."""
    listed = with_retries(
        f"List the commits of {repo}", lambda: hub.list_repo_commits(repo, repo_type=repo_type, revision=revision)
    )
    found: list[ForeignCommit] = []
    for one in listed:
        if _ours(one.title):
            return found, one.commit_id
        found.append(
            ForeignCommit(
                one.commit_id, _line(", ".join(one.authors)), one.created_at.date().isoformat(), _line(one.title)
            )
        )
    return found, None


def _line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


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
    """A plan as a Markdown table, and below it the files of each repo and what others did there."""
    changes = list(changes)
    lines = ["| repo | type | files | size | on the Hub |", "|---|---|---|---|---|"]
    for one in changes:
        counts = (("new", one.added), ("changed", one.changed), ("removed", one.removed))
        told = ", ".join(f"{len(paths)} {word}" for word, paths in counts if paths)
        state = told if one.exists else f"new repo, {told}"
        size = _size(sum(one.sizes.values()))
        lines.append(f"| {one.repo} | {TYPES[one.kind]} | {len(one.sizes)} | {size} | {state or 'up to date'} |")
    for one in changes:
        files = {
            "new": one.added,
            "changed": one.changed,
            "removed": one.removed,
            "kept, for it is not ours": one.foreign,
            "edited on the Hub since our last commit": one.edited,
        }
        named = [f"  {what}: {', '.join(map(_line, paths))}" for what, paths in files.items() if paths]
        named += [f"  commit of somebody else: {commit}" for commit in one.commits]
        lines += ["", f"{one.repo} ({TYPES[one.kind]})", *named] if named else []
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
