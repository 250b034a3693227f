"""Compare a release with the Hub: the plan of a push. Changes nothing on the Hub.

Checksums show which files differ. Commit titles show who wrote them: a file whose last commit is not ours was added or
edited by somebody else. An added file is kept, an edited one stops the push, see `preflight.check`.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import GitCommitInfo, RepoFile

from trsr.hub.release import Release, pin
from trsr.hub.repos import TYPES
from trsr.hub.retry import TRIES, with_retries

GIT_ATTRIBUTES = ".gitattributes"  # the Hub adds it to every repo
RELEASE_TITLE, DATASET_TITLE = "Release with LLM-TRSR", "Dataset for LLM-TRSR"
# A merged pull request has its number behind the title.
_OURS = re.compile(rf"({re.escape(RELEASE_TITLE)}|{re.escape(DATASET_TITLE)})( \(#\d+\))?")
_CREATED = "initial commit"  # of the Hub itself, the oldest of a repo


@dataclass(frozen=True, slots=True)
class ForeignCommit:
    """A commit of somebody else. Its texts are untrusted, so they are reduced to one line without control characters."""

    id: str
    authors: str
    date: str
    title: str

    def __str__(self) -> str:
        return f"{self.id[:12]} of {self.date} by {self.authors}: {self.title}"


@dataclass(frozen=True, slots=True)
class Change:
    """Differences between a folder and its repo.

    Attributes:
        head: The repo's newest commit on the branch; None if there is no such repo or branch.
        exists: Whether the repo is there.
        private, gated: Settings of the repo on the Hub.
        sizes: Path -> bytes of each file of the folder.
        added, changed, removed: Paths that a push would commit.
        foreign: Paths that somebody else added to the repo. They are kept.
        edited: Paths among `added` and `changed` that somebody else changed or deleted since our last commit.
        commits: Commits of others since our last one, newest first.
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
        """The operations of a commit after which the repo holds the files of the folder."""
        written = [CommitOperationAdd(name, folder / name) for name in (*self.added, *self.changed)]
        return [*written, *(CommitOperationDelete(name) for name in self.removed)]

    @property
    def same(self) -> bool:
        return not (self.added or self.changed or self.removed)


def plan(release: Release, hub: HfApi, branch: str = "main") -> list[Change]:
    """What a push would change, repo by repo. Reads the Hub; writes known commits into the release folder, see `pin`."""
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
    """Compare the release folder of a kind with a revision of its repo."""
    return compare(release.folder / kind, hub, release.names.repo(kind), kind, revision)


def look_at(hub: HfApi, repo: str, kind: str, revision: str | None = None, tries: int = TRIES) -> tuple[Any, bool]:
    """What the Hub says of a repo, and whether it has the revision: if not, of its main branch; None if there is no such repo.

    Args:
        kind: Of `repos.TYPES`.
    """

    def fetch() -> Any:
        try:
            return hub.repo_info(repo, repo_type=TYPES[kind], revision=revision), True
        except RevisionNotFoundError:  # the repo has no such branch yet
            return hub.repo_info(repo, repo_type=TYPES[kind]), False
        except RepositoryNotFoundError:
            return None, False

    return with_retries(f"Look at {repo}", fetch, tries=tries)


def compare(folder: Path, hub: HfApi, repo: str, kind: str, revision: str) -> Change:
    """Compare a folder with a revision of a repo.

    Args:
        kind: Of `repos.TYPES`.
    """
    local = _files(folder)

    def tree(commit: str, expand: bool = False) -> dict[str, RepoFile]:
        def list_files() -> dict[str, RepoFile]:
            entries = hub.list_repo_tree(repo, repo_type=TYPES[kind], revision=commit, recursive=True, expand=expand)
            return {
                entry.path: entry for entry in entries if isinstance(entry, RepoFile) and entry.path != GIT_ATTRIBUTES
            }

        return with_retries(f"List {repo}", list_files)

    info, branched = look_at(hub, repo, kind, revision)
    remote = tree(info.sha) if info else {}  # a new branch begins as main is
    added = {name for name in local if name not in remote}
    changed = {name for name, path in local.items() if name in remote and not _equal(path, remote[name])}
    only_remote = {name for name in remote if name not in local}
    foreign, edited, commits = set[str](), set[str](), list[ForeignCommit]()
    if remote and (added or changed or only_remote):
        # Only where something differs, because `expand` is slow: the Hub looks up the last commit of each file.
        history = with_retries(
            f"List the commits of {repo}",
            lambda: hub.list_repo_commits(repo, repo_type=TYPES[kind], revision=info.sha),
        )
        created = history[-1].commit_id if history[-1].title == _CREATED else None
        theirs = {
            name
            for name, file in tree(info.sha, expand=True).items()
            if not (file.last_commit and _is_ours(file.last_commit.oid, file.last_commit.title, created))
        }
        foreign, edited = only_remote & theirs, changed & theirs
        commits, last = _commits_since_ours(history, created)
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
        removed=tuple(sorted(only_remote - foreign)),
        foreign=tuple(sorted(foreign)),
        edited=tuple(sorted(edited)),
        commits=tuple(commits),
    )


def _is_ours(commit: str, title: str, created: str | None) -> bool:
    """Whether a commit is one of our pushes, or the one that created the repo."""
    return commit == created or _OURS.fullmatch(title) is not None


def _commits_since_ours(
    history: Iterable[GitCommitInfo], created: str | None
) -> tuple[list[ForeignCommit], str | None]:
    """The commits of others since our last one, newest first, and our last one.

    Args:
        history: All commits, newest first.
        created: The commit that created the repo.
    """
    foreign: list[ForeignCommit] = []
    for commit in history:
        if _is_ours(commit.commit_id, commit.title, created):
            return foreign, commit.commit_id
        foreign.append(
            ForeignCommit(
                commit.commit_id,
                _line(", ".join(commit.authors)),
                commit.created_at.date().isoformat(),
                _line(commit.title),
            )
        )
    return foreign, None


def _line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _equal(path: Path, remote: RepoFile) -> bool:
    """Whether a file equals the remote one, by size and checksum."""
    if path.stat().st_size != remote.size:
        return False
    if remote.lfs:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == remote.lfs.sha256
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == remote.blob_id


def show(changes: Iterable[Change]) -> str:
    """Format a plan: a Markdown table, then for each repo its changed files and the commits of others."""
    changes = list(changes)
    lines = ["| repo | type | files | size | on the Hub |", "|---|---|---|---|---|"]
    for change in changes:
        counts = (("new", change.added), ("changed", change.changed), ("removed", change.removed))
        counts_text = ", ".join(f"{len(paths)} {word}" for word, paths in counts if paths)
        state = counts_text if change.exists else f"new repo, {counts_text}"
        size = _size(sum(change.sizes.values()))
        lines.append(
            f"| {change.repo} | {TYPES[change.kind]} | {len(change.sizes)} | {size} | {state or 'up to date'} |"
        )
    for change in changes:
        files = {
            "new": change.added,
            "changed": change.changed,
            "removed": change.removed,
            "kept, for it is not ours": change.foreign,
            "edited on the Hub since our last commit": change.edited,
        }
        details = [f"  {label}: {', '.join(map(_line, paths))}" for label, paths in files.items() if paths]
        details += [f"  commit of somebody else: {commit}" for commit in change.commits]
        lines += ["", f"{change.repo} ({TYPES[change.kind]})", *details] if details else []
    return "\n".join(lines)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def plan_without_hub(release: Release) -> list[Change]:
    """The plan where the Hub cannot be reached: every file counts as new."""
    absent: dict[str, Any] = {
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
        changes.append(Change(kind, release.names.repo(kind), sizes=sizes, added=tuple(sizes), **absent))
    return changes


def _files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
