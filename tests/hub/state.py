"""What the Hub keeps: users, repos with their commits, refs and pull requests, and collections.

Nothing depends on a clock or on chance: two equal sequences of calls leave equal states. Leaves out what git has and
no client here asks for: merges, file modes, descriptions of commits, tag messages.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

# A new repo's .gitattributes, as the Hub writes it.
LFS_PATTERNS = """*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack *.npy
*.npz *.onnx *.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors saved_model/**/* *.tar.* *.tar *.tflite
*.tgz *.wasm *.xz *.zip *.zst *tfevents*""".split()


@dataclass(frozen=True)
class User:
    """Who a token belongs to; `role` is the token's, `orgs` gives the role in each organization."""

    name: str
    role: str = "write"
    orgs: Mapping[str, str] = field(default_factory=dict)

    def belongs(self, namespace: str) -> bool:
        return namespace == self.name or namespace in self.orgs

    def may_write(self, namespace: str) -> bool:
        role = "write" if namespace == self.name else self.orgs.get(namespace)
        return self.role == "write" and role in ("write", "admin")


@dataclass(frozen=True)
class File:
    """A file of a commit. Of one in LFS, git itself keeps only a pointer."""

    content: bytes = field(repr=False)
    lfs: bool = False

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def in_git(self) -> bytes:
        lines = ("version https://git-lfs.github.com/spec/v1", f"oid sha256:{self.sha256}", f"size {len(self.content)}")
        return "".join(f"{line}\n" for line in lines).encode() if self.lfs else self.content

    @cached_property
    def git_oid(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.in_git) + self.in_git).hexdigest()

    @property
    def oid(self) -> str:
        """The sum by which clients know the content."""
        return self.sha256 if self.lfs else self.git_oid


@dataclass(frozen=True)
class Commit:
    id: str
    parent: str | None
    title: str
    files: Mapping[str, File]
    author: str


@dataclass(frozen=True)
class PullRequest:
    """An open one; its newest commit is at `ref`."""

    num: int
    title: str
    author: str

    @property
    def ref(self) -> str:
        return f"refs/pr/{self.num}"


@dataclass
class Repo:
    """A model, dataset or Space. `refs` holds full names: refs/heads/, refs/tags/ and refs/pr/."""

    kind: str
    name: str
    private: bool
    gated: str | bool = False
    granted: set[str] = field(default_factory=set)  # names of users let past the gate
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    pulls: list[PullRequest] = field(default_factory=list)
    uploads: dict[str, bytes] = field(default_factory=dict, repr=False)  # LFS objects by sha256

    def __post_init__(self) -> None:
        attributes = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS)
        self.commit("refs/heads/main", "initial commit", {".gitattributes": File(attributes.encode())}, parent=None)

    @property
    def namespace(self) -> str:
        return self.name.split("/")[0]

    def commit(
        self, ref: str, title: str, files: Mapping[str, File], parent: str | None, author: str = "hub"
    ) -> Commit:
        """Add a commit and move `ref` to it."""
        tree = sorted((path, file.sha256, file.lfs) for path, file in files.items())
        # A first commit has the repo's name in place of a parent, so that ids of different repos never agree by chance.
        identity = json.dumps([parent or f"{self.kind} {self.name}", tree, title])
        id = hashlib.sha1(identity.encode()).hexdigest()
        self.commits[id] = Commit(id, parent, title, dict(sorted(files.items())), author)
        self.refs[ref] = id
        return self.commits[id]

    def history(self, commit: Commit) -> list[Commit]:
        """A commit and those before it, newest first."""
        found = [commit]
        while found[-1].parent:
            found.append(self.commits[found[-1].parent])
        return found

    def last_commit(self, commit: Commit, path: str) -> Commit:
        """The last one up to `commit` that touched a file."""
        history = self.history(commit)
        for made, before in pairwise(history):
            if before.files.get(path) != made.files.get(path):
                return made
        return history[-1]

    def refs_in(self, folder: str) -> dict[str, str]:
        """Commits by name without the folder, such as "refs/tags/"."""
        return {ref.removeprefix(folder): id for ref, id in sorted(self.refs.items()) if ref.startswith(folder)}

    def export(self) -> dict:
        commits = [
            {**vars(commit), "files": {path: file.sha256 for path, file in commit.files.items()}}
            for commit in self.commits.values()
        ]
        pulls = [{**vars(pull), "head": self.refs[pull.ref]} for pull in self.pulls]
        refs = {"branches": self.refs_in("refs/heads/"), "tags": self.refs_in("refs/tags/")}
        return {"private": self.private, "gated": self.gated, "commits": commits, **refs, "pull_requests": pulls}


@dataclass
class Collection:
    """A titled list of items {type, id, note}."""

    namespace: str
    title: str
    description: str | None
    private: bool
    items: list[dict] = field(default_factory=list)

    @property
    def slug(self) -> str:
        words = re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")
        key = hashlib.sha256(f"{self.namespace}/{self.title}".encode()).hexdigest()[:24]
        return f"{self.namespace}/{words}-{key}"

    def export(self) -> dict:
        return {**vars(self), "items": [dict(item) for item in self.items]}


@dataclass
class State:
    repos: dict[str, Repo] = field(default_factory=dict)  # by names such as "dataset ORG/name"
    collections: dict[str, Collection] = field(default_factory=dict)  # by slug

    def export(self) -> dict:
        """A copy that later calls do not change."""
        repos = {name: repo.export() for name, repo in sorted(self.repos.items())}
        return {"repos": repos, "collections": {slug: one.export() for slug, one in self.collections.items()}}
