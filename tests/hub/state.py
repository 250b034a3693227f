"""What the Hub keeps: users, repos with their commits, refs and discussions, and collections.

Knows nothing of HTTP except the status of a refusal. Nothing depends on a clock or on chance: two equal sequences
of calls leave equal states. Leaves out what git has and no client here asks for: merge parents, file modes, authors'
addresses, tag messages.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

LFS_PATTERNS = """*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack *.npy
*.npz *.onnx *.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors saved_model/**/* *.tar.* *.tar *.tflite
*.tgz *.wasm *.xz *.zip *.zst *tfevents*""".split()
DATASET_PATTERNS = """*.lz4 *.mds *.pcm *.sam *.raw *.aac *.flac *.mp3 *.ogg *.wav *.bmp *.gif *.png *.tiff *.jpg
*.jpeg *.webp *.mp4 *.webm""".split()
REGULAR_LIMIT = 10 * 2**20  # bytes; larger files go to LFS whatever their name


class Refusal(Exception):
    """An error that the Hub answers with: status, X-Error-Code, and more fields for the body."""

    def __init__(self, status: int, message: str, code: str | None = None, headers: dict | None = None, **body):
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.headers, self.body = headers or {}, body


@dataclass(frozen=True)
class User:
    """Who a token belongs to; `role` is the token's, `orgs` gives the role in each organization."""

    name: str
    role: str = "write"
    orgs: Mapping[str, str] = field(default_factory=dict)

    def belongs(self, namespace: str) -> bool:
        return namespace == self.name or namespace in self.orgs

    def may_write(self, namespace: str) -> bool:
        return namespace == self.name or self.orgs.get(namespace) in ("write", "admin")


@dataclass(frozen=True)
class File:
    """A file of a commit; `oid` is git's: of the content, or of the pointer for LFS."""

    sha256: str
    size: int
    oid: str
    pointer_size: int | None = None

    @property
    def lfs(self) -> bool:
        return self.pointer_size is not None


@dataclass(frozen=True)
class Commit:
    id: str
    parent: str | None
    title: str
    description: str
    author: str
    files: Mapping[str, File]


@dataclass
class Discussion:
    """A discussion, or a pull request if it has a `base`: the commit that it started from."""

    num: int
    title: str
    author: str
    status: str
    base: str | None = None
    merged: str | None = None
    events: list[tuple[str, str, dict]] = field(default_factory=list)  # type, author, data

    @property
    def ref(self) -> str:
        return f"refs/pr/{self.num}"


@dataclass
class Repo:
    """A model, dataset or Space. `refs` holds full names: refs/heads/, refs/tags/ and refs/pr/."""

    kind: str
    name: str
    private: bool = False
    gated: str | bool = False
    sdk: str | None = None
    hardware: str = "cpu-basic"
    paused: bool = False
    granted: set[str] = field(default_factory=set)
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    discussions: list[Discussion] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def namespace(self) -> str:
        return self.name.split("/")[0]

    def store(self, content: bytes, lfs: bool) -> File:
        sha256 = hashlib.sha256(content).hexdigest()
        self.objects[sha256] = content
        if not lfs:
            return File(sha256, len(content), _git_oid(content))
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n".encode()
        return File(sha256, len(content), _git_oid(pointer), len(pointer))

    def find_ref(self, revision: str) -> str | None:
        names = (f"refs/heads/{revision}", f"refs/tags/{revision}", revision)
        return next((name for name in names if name in self.refs), None)

    def at(self, revision: str) -> Commit:
        """The commit of a branch, tag, full ref or (possibly shortened) id."""
        if ref := self.find_ref(revision):
            return self.commits[self.refs[ref]]
        if re.fullmatch("[0-9a-f]{7,40}", revision):
            for id, commit in self.commits.items():
                if id.startswith(revision):
                    return commit
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def commit(
        self, ref: str, title: str, description: str, files: Mapping[str, File], author: str, parent: str | None = None
    ) -> Commit:
        """Add a commit upon `parent` (default: where `ref` stands) and move `ref` to it."""
        parent = parent or self.refs.get(ref)
        tree = sorted((path, file.sha256, file.lfs) for path, file in files.items())
        # A first commit has the repo's name in place of a parent, so that ids of different repos never agree by chance.
        identity = json.dumps([parent or f"{self.kind} {self.name}", tree, title, description])
        id = hashlib.sha1(identity.encode()).hexdigest()
        commit = self.commits[id] = Commit(id, parent, title, description, author, dict(sorted(files.items())))
        self.refs[ref] = id
        return commit

    def history(self, commit: Commit | None) -> Iterator[Commit]:
        """Newest first."""
        while commit is not None:
            yield commit
            commit = self.commits.get(commit.parent or "")

    def last_change(self, commit: Commit, path: str) -> Commit:
        """The newest commit in which the file, or a file of the folder `path`, became what it is."""

        def below(commit: Commit) -> dict:
            return {p: f.sha256 for p, f in commit.files.items() if p == path or p.startswith(f"{path}/")}

        wanted = below(commit)
        for candidate in self.history(commit):
            if below(candidate) != wanted:
                break
            commit = candidate
        return commit

    def is_lfs(self, commit: Commit, path: str, size: int) -> bool:
        """Whether a new file goes to LFS, by .gitattributes and size."""
        attributes = commit.files.get(".gitattributes")
        lines = self.objects[attributes.sha256].decode().splitlines() if attributes else []
        patterns = [line.split()[0] for line in lines if "filter=lfs" in line]
        name = path.rsplit("/", 1)[-1]
        return size > REGULAR_LIMIT or any(fnmatchcase(path if "/" in p else name, p) for p in patterns)

    def open(self, title: str, author: str, status: str, base: str | None = None) -> Discussion:
        discussion = Discussion(len(self.discussions) + 1, title, author, status, base)
        self.discussions.append(discussion)
        if base:
            self.refs[discussion.ref] = base
        return discussion

    def merge(self, pull: Discussion, author: str) -> None:
        """Put what the pull request changed on top of main. Conflicts are not looked for: the pull request wins."""
        if pull.base is None or pull.status != "open":
            raise Refusal(409, f"This pull request is {pull.status} and cannot be merged.")
        base, head, main = self.commits[pull.base].files, self.at(pull.ref).files, self.at("main").files
        changed = {path for path in base.keys() | head.keys() if base.get(path) != head.get(path)}
        files = {path: file for path, file in main.items() if path not in changed}
        files |= {path: head[path] for path in changed & head.keys()}
        pull.merged = self.commit("refs/heads/main", f"{pull.title} (#{pull.num})", "", files, author).id
        pull.status = "merged"
        pull.events.append(("status-change", author, {"status": "merged"}))

    def export(self) -> dict:
        def refs(kind: str) -> dict[str, str]:
            start = f"refs/{kind}/"
            return {name.removeprefix(start): id for name, id in sorted(self.refs.items()) if name.startswith(start)}

        talk = [
            {"num": d.num, "title": d.title, "status": d.status, "author": d.author, "base": d.base}
            | {"comments": [data["content"] for kind, _, data in d.events if kind == "comment"]}
            for d in self.discussions
        ]
        pulls = [{**d, "head": self.refs[f"refs/pr/{d['num']}"]} for d in talk if d["base"]]
        commits = [
            {"id": c.id, "parent": c.parent, "title": c.title, "description": c.description}
            | {"files": {path: file.sha256 for path, file in c.files.items()}}
            for c in self.commits.values()
        ]
        known = {"private": self.private, "gated": self.gated, "sdk": self.sdk, "commits": commits}
        talk = [d for d in talk if not d["base"]]
        return {**known, "branches": refs("heads"), "tags": refs("tags"), "pull_requests": pulls, "discussions": talk}


@dataclass
class Collection:
    """A titled list of items {type, id, note}; the slug follows the title, all but its last part."""

    namespace: str
    title: str
    key: str
    description: str | None = None
    private: bool = False
    theme: str = "orange"
    items: list[dict] = field(default_factory=list)

    @property
    def slug(self) -> str:
        words = re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")
        return f"{self.namespace}/{words}-{self.key}"

    def export(self) -> dict:
        items = [{"type": item["type"], "id": item["id"], "note": item["note"]} for item in self.items]
        return {"title": self.title, "description": self.description, "private": self.private, "items": items}


@dataclass
class State:
    repos: dict[str, Repo] = field(default_factory=dict)  # "dataset ORG/name": Repo
    collections: list[Collection] = field(default_factory=list)

    def create_repo(self, kind: str, name: str, **settings) -> Repo:
        repo = self.repos[f"{kind} {name}"] = Repo(kind, name, **settings)
        patterns = LFS_PATTERNS + (DATASET_PATTERNS if kind == "dataset" else [])
        lines = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in patterns)
        files = {".gitattributes": repo.store(lines.encode(), lfs=False)}
        repo.commit("refs/heads/main", "initial commit", "", files, author="system")
        return repo

    def delete_repo(self, kind: str, name: str) -> None:
        del self.repos[f"{kind} {name}"]
        for collection in self.collections:
            collection.items = [item for item in collection.items if (item["type"], item["id"]) != (kind, name)]

    def create_collection(self, namespace: str, title: str, **settings) -> Collection:
        same = [c for c in self.collections if (c.namespace, c.title) == (namespace, title)]
        if same:
            raise Refusal(409, "You already have a collection with this title.", slug=same[0].slug)
        key = hashlib.sha256(f"{namespace}/{title}".encode()).hexdigest()[:24]
        while any(c.key == key for c in self.collections):  # a collection that had this title once
            key = hashlib.sha256(key.encode()).hexdigest()[:24]
        self.collections.append(Collection(namespace, title, key, **settings))
        return self.collections[-1]

    def collection(self, slug: str) -> Collection | None:
        """By namespace and the slug's last part, as old slugs stay valid after a new title."""
        namespace, _, words = slug.partition("/")
        wanted = (namespace, words.rsplit("-", 1)[-1])
        return next((c for c in self.collections if (c.namespace, c.key) == wanted), None)

    def export(self) -> dict:
        repos = {key: repo.export() for key, repo in sorted(self.repos.items())}
        return {"repos": repos, "collections": {c.slug: c.export() for c in self.collections}}


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
