"""The Hub's HTTP protocol on the loopback, as far as the real clients need it.

Serves whoami, repos and their files, LFS uploads (basic transfer), commits, branches, tags, pull requests,
discussions and collections; each request is logged, and any of them can be made to fail. What is kept, and how ids
come about, is in `state`. What it does not serve it answers with 501. Leaves out: xet, multipart uploads, pages of long lists (all come whole), .gitignore,
moving and squashing repos, likes, webhooks, secrets and jobs, the dataset viewer, a Space that runs, the README that
the Hub writes for a new Space, and merge conflicts. Every date is the same.
"""

import base64
import hashlib
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.hub.state import Collection, Commit, Discussion, File, Refusal, Repo, State, User

WRITER = "hf_test_writer"  # the token of the default user
DATE = "2024-01-01T00:00:00.000Z"
PREFIXES = {"model": "", "dataset": "datasets/", "space": "spaces/"}
COLORS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
INVALID_TOKEN = "Invalid credentials in Authorization header"
STALE = "A commit has happened since. Please refresh and try again."
KINDS = ("drop", "lost", "429", "503", "500", "412", "expired", "forbidden")


@dataclass(frozen=True)
class Record:
    """One request of the log. `status` is the answer's, also if it was lost on the way; None: dropped."""

    number: int
    method: str
    path: str
    query: str
    status: int | None
    user: str | None
    faulted: bool


@dataclass(frozen=True)
class Fault:
    at: int
    kind: str
    forever: bool


@dataclass
class Answer:
    status: int = 200
    body: Any = b""  # bytes as they are, anything else as JSON
    headers: dict[str, str] = field(default_factory=dict)


class Hub:
    """A Hub to use as `with Hub() as hub`; requests are handled one at a time.

    Attributes:
        url: What clients take as their endpoint.
        users: User by token.
        log: Every request since the last reset.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._connections: set[socket.socket] = set()
        self.reset()

    def __enter__(self) -> "Hub":
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._connections):  # those kept alive, or a pooled client would still be answered
            _hang_up(connection)

    def reset(self) -> None:
        """Forget everything: state, log and faults; the default user is back, and alone."""
        with self._lock:
            self._state, self._faults = State(), []
            self.log: list[Record] = []
            self.users = {WRITER: User("tester", "write", {"ORG": "write"})}

    @property
    def repos(self) -> dict[str, Repo]:
        """The live repos, by names such as "dataset ORG/name"; `repos[...].granted` are users let past a gate."""
        return self._state.repos

    def state(self) -> dict:
        """All that persists, as a plain dict to compare; uploads that no commit has named are not in it."""
        with self._lock:
            return self._state.export()

    def fault(self, at: int, kind: str, forever: bool = False) -> None:
        """Make request number `at`, or all from it on until `heal`, fail.

        Args:
            at: Counted from 0 since the last reset.
            kind: "drop" closes the connection before acting, "lost" after it; "forbidden" refuses writes with 403
                and lets reads pass; "expired" is a 401; "412", "429", "500" and "503" are answered without acting.
            forever: Where several apply, a fault for one request goes first, then the one that began last.
        """
        if kind not in KINDS:
            raise ValueError(f"Unknown fault {kind!r}. Expected one of {', '.join(KINDS)}.")
        with self._lock:
            self._faults.append(Fault(at, kind, forever))

    def heal(self) -> None:
        """Take all faults back."""
        with self._lock:
            self._faults.clear()

    def _due(self, number: int, writes: bool) -> str | None:
        due = [f for f in self._faults if f.at == number or (f.forever and f.at < number)]
        due = [f for f in due if writes or f.kind != "forbidden"]
        return max(due, key=lambda f: (not f.forever, f.at)).kind if due else None

    def handle(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[Answer, str | None]:
        """Act on a request, log it, and say whether the connection fails: "drop", "lost" or None."""
        url = urlsplit(target)
        token = headers.get("Authorization", "").removeprefix("Bearer ").strip()
        with self._lock:
            user = self.users.get(token)
            call = Call(self, method, url.path, parse_qs(url.query), headers, body, bool(token), user)
            number = len(self.log)
            kind = self._due(number, call.writes)
            try:
                if kind not in (None, "drop", "lost"):
                    raise _failure(kind)
                answer = Answer() if kind == "drop" else _act(call)
            except Refusal as refusal:
                answer = _refuse(refusal)
            except Exception as error:  # a bug of this server, as a 501: no client repeats that
                answer = _refuse(Refusal(501, f"{type(error).__name__}: {error}"))
            answer.headers["X-Request-Id"] = f"request-{number}"
            status = None if kind == "drop" else answer.status
            name = user.name if user else None
            self.log.append(Record(number, method, url.path, url.query, status, name, kind is not None))
        return answer, kind if kind in ("drop", "lost") else None


def environment(hub: Hub, home: Path | str, token: str | None = WRITER) -> dict[str, str]:
    """The whole environment of a subprocess whose clients take `hub` for the Hub and keep their caches in `home`."""
    theirs = ("HF_", "HUGGING", "TRANSFORMERS_")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    ours |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    ours |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0", "DISABLE_SAFETENSORS_CONVERSION": "1"}
    ours |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    return ours | ({"HF_TOKEN": token} if token else {})


@dataclass
class Call:
    """A request, with what its sender may see and do."""

    hub: Hub
    method: str
    path: str
    query: dict[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    has_token: bool
    user: User | None

    @property
    def state(self) -> State:
        return self.hub._state

    @property
    def json(self) -> dict:
        return json.loads(self.body or b"{}") or {}

    @property
    def writes(self) -> bool:
        reads = self.method in ("GET", "HEAD") or "/paths-info/" in self.path or self.path == "/api/validate-yaml"
        return not reads

    def flag(self, name: str) -> bool:
        return self.query.get(name, [""])[0].lower() in ("1", "true")

    def belongs(self, namespace: str) -> bool:
        return self.user is not None and self.user.belongs(namespace)

    def repo(self, kind: str, name: str) -> Repo:
        repo = self.state.repos.get(f"{kind} {name}")
        if repo is None or (repo.private and not self.belongs(repo.namespace)):
            raise Refusal(404, "Repository not found", "RepoNotFound")
        return repo

    def open_repo(self, kind: str, name: str) -> Repo:
        """A repo whose files the sender may read."""
        repo = self.repo(kind, name)
        if repo.gated and not self.belongs(repo.namespace) and not (self.user and self.user.name in repo.granted):
            message = f"Access to {kind} {name} is restricted and you are not in the authorized list."
            raise Refusal(403, message, "GatedRepo")
        return repo

    def signed_in(self) -> User:
        if self.user is None:
            raise Refusal(401, "Invalid username or password.")
        return self.user

    def allow(self, namespace: str, message: str | None = None) -> User:
        """The sender, if allowed to write in `namespace`."""
        user = self.signed_in()
        rights = f"You don't have the required permissions to write in the namespace {namespace!r}."
        if not user.may_write(namespace):
            raise Refusal(403, message or rights)
        if user.role != "write":
            raise Refusal(403, message or "Forbidden: you must use a write token to upload to a repository.")
        return user

    def own_repo(self, kind: str, name: str, pull: bool = False) -> Repo:
        """A repo that the sender may write to, or, for `pull`, open a pull request on."""
        user, repo = self.signed_in(), self.repo(kind, name)
        self.allow(user.name if pull else repo.namespace)
        return repo

    def target(self, kind: str, name: str, rev: str | None) -> Repo:
        """A repo that the sender may commit to at `rev`: anyone may to his own pull request, or to a new one (None)."""
        user, repo = self.signed_in(), self.repo(kind, name)
        pulls = [None] + [d.ref for d in repo.discussions if d.base and d.author == user.name]
        return self.own_repo(kind, name, pull=rev in pulls)

    def collection(self, slug: str, own: bool = False) -> Collection:
        collection = self.state.collection(slug)
        if collection is None or (collection.private and not self.belongs(collection.namespace)):
            raise Refusal(404, "Collection not found")
        if own:
            self.allow(collection.namespace)
        return collection

    def link(self, kind: str, name: str) -> str:
        return f"{self.hub.url}/{PREFIXES[kind]}{name}"


# --- Routes: each answers with an Answer, or with what becomes JSON. A Refusal is an error. ---

ROUTES: list[tuple[str, re.Pattern, Callable]] = []
PLACES = {
    "api": r"/api/(?P<kind>model|dataset|space)s/(?P<name>[^/]+/[^/]+)",
    "files": r"/(?P<kind>datasets/|spaces/|)(?P<name>[^/]+/[^/]+?)",
    "slug": r"(?P<slug>[^/]+/[^/]+)",
    "path": r"(?P<path>.+)",
}


def route(method: str, pattern: str) -> Callable:
    """Register a handler; a name in braces stands for one quoted part of the path, unless PLACES knows it."""
    pattern = re.sub(r"\{(\w+)\}", lambda m: PLACES.get(m[1], rf"(?P<{m[1]}>[^/]+)"), pattern)

    def register(handler: Callable) -> Callable:
        ROUTES.append((method, re.compile(pattern), handler))
        return handler

    return register


def _act(call: Call) -> Answer:
    if call.has_token and call.user is None:
        raise Refusal(401, INVALID_TOKEN)
    method = "GET" if call.method == "HEAD" else call.method
    for known, pattern, handler in ROUTES:
        if known == method and (match := pattern.fullmatch(call.path)):
            parts = {name: unquote(value) for name, value in match.groupdict().items() if value is not None}
            if "kind" in parts:
                parts["kind"] = parts["kind"].rstrip("/").removesuffix("s") or "model"
            answer = handler(call, **parts)
            return answer if isinstance(answer, Answer) else Answer(body=answer)
    if re.match("/api/(models|datasets|spaces)/[^/]+/?", call.path) or "/resolve/" in call.path:
        call.repo(*_named(call.path))
    raise Refusal(501, f"This Hub does not serve {call.method} {call.path}")


def _named(path: str) -> tuple[str, str]:
    """Kind and name of the repo that an unknown path speaks of; a name without a namespace is never found."""
    match = re.match("/api/(model|dataset|space)s/([^/]+/[^/]+)", path)
    return (match[1], match[2]) if match else ("model", "")


def _refuse(refusal: Refusal) -> Answer:
    headers = {"X-Error-Message": refusal.message, **refusal.headers}
    if refusal.code:
        headers["X-Error-Code"] = refusal.code
    return Answer(refusal.status, {"error": refusal.message, **refusal.body}, headers)


def _failure(kind: str) -> Refusal:
    if kind == "expired":
        return Refusal(401, INVALID_TOKEN)
    if kind == "forbidden":
        return Refusal(403, "Forbidden: your rights were withdrawn.")
    headers = {"Retry-After": "0", "RateLimit": '"api";r=0;t=0'} if kind == "429" else {}
    return Refusal(int(kind), STALE if kind == "412" else HTTPStatus(int(kind)).phrase, headers=headers)


@route("GET", "/api/whoami-v2")
def whoami(call: Call) -> dict:
    user = call.signed_in()
    orgs = [{"type": "org", "name": name, "fullname": name, "roleInOrg": role} for name, role in user.orgs.items()]
    token = {"displayName": "test", "role": user.role}
    return {"type": "user", "name": user.name, "fullname": user.name, "orgs": orgs} | {
        "auth": {"type": "access_token", "accessToken": token}
    }


@route("GET", "/api/(agent-harnesses|telemetry/.*)")
def side_traffic(call: Call) -> dict:
    return {"standardEnvVars": [], "harnesses": {}}


@route("POST", "/api/validate-yaml")
def validate_card(call: Call) -> Answer | dict:
    content, kind = call.json["content"], call.json.get("repoType", "model")
    try:
        card = _card(content)
    except yaml.YAMLError as error:
        return Answer(400, {"errors": [{"message": f"Invalid YAML: {error}"}], "warnings": []})
    errors = [] if isinstance(card, dict) else ["The metadata must be a mapping"]
    if not errors and kind == "space":
        colors = {card.get("colorFrom"), card.get("colorTo")} - {None}
        errors += [f'"colorFrom" and "colorTo" must be one of {", ".join(COLORS)}'] if colors - {*COLORS} else []
        errors += ['"short_description" must be at most 60 long'] if len(card.get("short_description", "")) > 60 else []
    warnings = [] if card else [{"message": "empty or missing yaml metadata in repo card"}]
    return Answer(400 if errors else 200, {"errors": [{"message": e} for e in errors], "warnings": warnings})


# --- Repos ---


@route("POST", "/api/repos/create")
def create_repo(call: Call) -> dict:
    asked, user = call.json, call.signed_in()
    kind, namespace = asked.get("type") or "model", asked.get("organization") or user.name
    name, url = f"{namespace}/{asked['name']}", call.link(kind, f"{namespace}/{asked['name']}")
    call.allow(namespace, f'You don\'t have the rights to create a {kind} under the namespace "{namespace}"')
    if f"{kind} {name}" in call.state.repos:
        raise Refusal(409, f"You already created this {kind} repo", url=url)
    private = asked.get("visibility") == "private" or bool(asked.get("private"))
    hardware = asked.get("hardware") or "cpu-basic"
    repo = call.state.create_repo(kind, name, private=private, sdk=asked.get("sdk"), hardware=hardware)
    return {"url": url, "name": name, "id": f"{len(call.state.repos):024x}", "private": repo.private}


@route("DELETE", "/api/repos/delete")
def delete_repo(call: Call) -> dict:
    asked, user = call.json, call.signed_in()
    kind, name = asked.get("type") or "model", f"{asked.get('organization') or user.name}/{asked['name']}"
    call.own_repo(kind, name)
    call.state.delete_repo(kind, name)
    return {}


@route("PUT", "{api}/settings")
def change_settings(call: Call, kind: str, name: str) -> dict:
    repo, asked = call.own_repo(kind, name), call.json
    repo.gated = asked.get("gated", repo.gated)
    if "visibility" in asked or "private" in asked:
        repo.private = asked.get("visibility") == "private" or bool(asked.get("private"))
    return {"private": repo.private, "gated": repo.gated}


@route("GET", "{api}")
@route("GET", "{api}/revision/{rev}")
def describe(call: Call, kind: str, name: str, rev: str = "main") -> dict:
    repo = call.repo(kind, name)
    described = _describe(repo, repo.at(rev), call.flag("blobs"))
    expand = call.query.get("expand", []) + call.query.get("expand[]", [])
    return {key: described[key] for key in ["id", *expand] if key in described} if expand else described


@route("GET", "/api/(?P<kind>model|dataset|space)s")
def list_repos(call: Call, kind: str) -> list[dict]:
    author, search = call.query.get("author", [""])[0], call.query.get("search", [""])[0].lower()
    repos = [r for r in call.state.repos.values() if r.kind == kind and (not r.private or call.belongs(r.namespace))]
    found = [r for r in repos if author in ("", r.namespace) and search in r.name.lower()]
    described = [_describe(repo, repo.at("main")) for repo in sorted(found, key=lambda repo: repo.name)]
    return [d for d in described if {*call.query.get("filter", [])} <= {*d["tags"]}]


@route("GET", "{api}/auth-check")
@route("GET", "{api}/auth-check/(?P<write>write)")
def check_access(call: Call, kind: str, name: str, write: str = "") -> dict:
    (call.own_repo if write else call.open_repo)(kind, name)
    return {}


@route("GET", "{api}/runtime")
def runtime(call: Call, kind: str, name: str) -> dict:
    return _runtime(call.repo(kind, name))


@route("POST", "{api}/(?P<action>hardware|pause|restart)")
def run_space(call: Call, kind: str, name: str, action: str) -> dict:
    repo = call.own_repo(kind, name)
    repo.hardware, repo.paused = call.json.get("flavor", repo.hardware), action == "pause"
    return _runtime(repo)


def _runtime(repo: Repo) -> dict:
    files = repo.at("main").files
    stage = "RUNNING" if {"app.py", "index.html", "Dockerfile"} & files.keys() else "NO_APP_FILE"
    hardware = {"current": repo.hardware, "requested": repo.hardware}
    return {"stage": "PAUSED" if repo.paused else stage, "hardware": hardware, "storage": None, "gcTimeout": 172800}


def _describe(repo: Repo, commit: Commit, blobs: bool = False) -> dict:
    readme = commit.files.get("README.md")
    try:
        card = _card(repo.objects[readme.sha256].decode()) if readme else None
    except yaml.YAMLError:
        card = None
    card = card if isinstance(card, dict) else {}
    siblings = [{"rfilename": path, **(_blob(file, "sha256") if blobs else {})} for path, file in commit.files.items()]
    described = {"_id": hashlib.sha1(repo.name.encode()).hexdigest()[:24], "id": repo.name, "author": repo.namespace}
    described |= {"sha": commit.id, "lastModified": DATE, "createdAt": DATE, "private": repo.private}
    described |= {"gated": repo.gated, "disabled": False, "downloads": 0, "likes": 0, "siblings": siblings}
    described |= {"tags": _tags(repo, card)} | ({"cardData": card} if card else {})
    if repo.kind == "model":
        described |= {key: card[key] for key in ("library_name", "pipeline_tag", "model-index") if key in card}
    if repo.kind == "space":
        described |= {"sdk": card.get("sdk", repo.sdk), "runtime": _runtime(repo)}
    return described


def _tags(repo: Repo, card: dict) -> list[str]:
    """The card's tags and those that the Hub makes of its other fields."""
    named = {"language": "language:" if repo.kind == "dataset" else "", "license": "license:", "datasets": "dataset:"}
    named |= {"base_model": "base_model:", "task_categories": "task_categories:", "size_categories": "size_categories:"}
    named |= {"library_name": "", "pipeline_tag": "", "tags": "", "sdk": ""}
    found = {key: card.get(key) or [] for key in named}
    listed = {key: value if isinstance(value, list) else [value] for key, value in found.items()}
    return list(dict.fromkeys(f"{start}{value}" for key, start in named.items() for value in listed[key]))


@lru_cache(maxsize=256)
def _card(readme: str) -> Any:
    """The YAML header of a README; empty if there is none."""
    match = re.match(r"\s*---\r?\n(.*?)\r?\n?---(\r?\n|$)", readme, re.DOTALL)
    return (yaml.safe_load(match[1]) or {}) if match else {}


# --- Files ---


@route("GET", "{files}/resolve/{rev}/{path}")
def send_file(call: Call, kind: str, name: str, rev: str, path: str) -> Answer:
    repo = call.open_repo(kind, name)
    commit = repo.at(rev)
    headers = {"X-Repo-Commit": commit.id, "Accept-Ranges": "bytes"}
    if path not in commit.files:
        raise Refusal(404, "Entry not found", "EntryNotFound", headers)
    file, content = commit.files[path], repo.objects[commit.files[path].sha256]
    headers |= {"Content-Type": "application/octet-stream", "ETag": f'"{file.sha256 if file.lfs else file.oid}"'}
    if file.lfs:
        headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(file.size)}
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", call.headers.get("Range", ""))
    if call.method == "HEAD" or not asked or not any(asked.groups()):
        return Answer(200, content, headers)
    first, last = asked.groups()
    start = int(first) if first else max(file.size - int(last), 0)
    stop = min(int(last) + 1, file.size) if first and last else file.size
    if start >= stop:
        raise Refusal(416, "Range not satisfiable", headers={**headers, "Content-Range": f"bytes */{file.size}"})
    return Answer(206, content[start:stop], {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{file.size}"})


@route("GET", "{api}/tree/{rev}")
@route("GET", "{api}/tree/{rev}/{path}")
def tree(call: Call, kind: str, name: str, rev: str, path: str = "") -> list[dict]:
    repo = call.repo(kind, name)
    commit, start = repo.at(rev), f"{path.strip('/')}/" if path.strip("/") else ""
    entries = _entries(repo, commit, call.flag("expand"))
    inside = [entry for known, entry in sorted(entries.items()) if known.startswith(start)]
    if start and not inside:
        raise Refusal(404, f"{path} does not exist on {rev!r}", "EntryNotFound", {"X-Repo-Commit": commit.id})
    return [entry for entry in inside if call.flag("recursive") or "/" not in entry["path"][len(start) :]]


@route("POST", "{api}/paths-info/{rev}")
def paths_info(call: Call, kind: str, name: str, rev: str) -> list[dict]:
    repo, form = call.repo(kind, name), parse_qs(call.body.decode())
    entries = _entries(repo, repo.at(rev), form.get("expand", [""])[0].lower() in ("1", "true"))
    return [entries[path] for path in form.get("paths", []) if path in entries]


def _entries(repo: Repo, commit: Commit, expand: bool) -> dict[str, dict]:
    entries = {}
    for path, file in commit.files.items():
        blob = _blob(file, "oid")
        entries[path] = {"type": "file", "path": path, "oid": blob.pop("blobId"), **blob}
        for folder in map(str, list(Path(path).parents)[:-1]):
            entries[folder] = {"type": "directory", "path": folder, "oid": "", "size": 0}
    for path, entry in entries.items():
        if entry["type"] == "directory":
            below = sorted((known, file.oid) for known, file in commit.files.items() if known.startswith(f"{path}/"))
            entry["oid"] = hashlib.sha1(json.dumps(below).encode()).hexdigest()
        if expand:
            last = repo.last_change(commit, path)
            entry["lastCommit"] = {"id": last.id, "title": last.title, "date": DATE}
    return entries


def _blob(file: File, oid: str) -> dict:
    blob = {"size": file.size, "blobId": file.oid}
    return blob | ({"lfs": {oid: file.sha256, "size": file.size, "pointerSize": file.pointer_size}} if file.lfs else {})


# --- Refs and commits ---


@route("GET", "{api}/refs")
def list_refs(call: Call, kind: str, name: str) -> dict:
    refs = call.repo(kind, name).refs.items()

    def under(start: str) -> list[dict]:
        found = [(ref, id) for ref, id in refs if ref.startswith(start)]
        return [{"name": ref.removeprefix(start), "ref": ref, "targetCommit": id} for ref, id in found]

    listed = {"branches": under("refs/heads/"), "converts": [], "tags": under("refs/tags/")}
    return listed | ({"pullRequests": under("refs/pr/")} if call.flag("include_prs") else {})


@route("GET", "{api}/commits/{rev}")
def list_commits(call: Call, kind: str, name: str, rev: str) -> list[dict]:
    repo = call.repo(kind, name)
    return [
        {"id": c.id, "title": c.title, "message": c.description, "date": DATE, "authors": [{"user": c.author}]}
        for c in repo.history(repo.at(rev))
    ]


@route("POST", "{api}/branch/{branch}")
def create_branch(call: Call, kind: str, name: str, branch: str) -> dict:
    return _add_ref(call.own_repo(kind, name), "refs/heads", branch, call.json.get("startingPoint", "main"))


@route("POST", "{api}/tag/{rev}")
def create_tag(call: Call, kind: str, name: str, rev: str) -> dict:
    return _add_ref(call.own_repo(kind, name), "refs/tags", call.json["tag"], rev)


def _add_ref(repo: Repo, folder: str, name: str, revision: str) -> dict:
    if name.startswith("refs/"):
        raise Refusal(400, f"Invalid reference name: {name}")
    commit = repo.at(revision)
    if f"{folder}/{name}" in repo.refs:
        raise Refusal(409, f"Reference already exists: {folder}/{name}")
    repo.refs[f"{folder}/{name}"] = commit.id
    return {}


@route("DELETE", "{api}/(?P<what>branch|tag)/{ref}")
def delete_ref(call: Call, kind: str, name: str, what: str, ref: str) -> dict:
    repo, full = call.own_repo(kind, name), f"refs/{'heads' if what == 'branch' else 'tags'}/{ref}"
    if full == "refs/heads/main":
        raise Refusal(403, "The main branch cannot be deleted.")
    if repo.refs.pop(full, None) is None:
        raise Refusal(404, f"Invalid rev id: {ref}", "RevisionNotFound")
    return {}


@route("POST", "{api}/preupload/{rev}")
def preupload(call: Call, kind: str, name: str, rev: str) -> dict:
    repo = call.target(kind, name, None if call.flag("create_pr") else rev)
    commit, files = repo.at(rev), []
    for asked in call.json["files"]:
        known, lfs = commit.files.get(asked["path"]), repo.is_lfs(commit, asked["path"], asked["size"])
        # The client leaves a file out of its commit when this is its own sum: sha256 for LFS, git's otherwise.
        oid = {"oid": known.sha256 if known.lfs else known.oid} if known else {}
        mode = "lfs" if lfs else "regular"
        files.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, **oid})
    return {"files": files}


@route("POST", "{files}\\.git/info/lfs/objects/batch")
def lfs_batch(call: Call, kind: str, name: str) -> dict:
    # The client names no ref if it is about to open a pull request.
    repo, objects = call.target(kind, name, call.json.get("ref", {}).get("name")), []
    for asked in call.json["objects"]:
        wanted = {"oid": asked["oid"], "size": asked["size"]}
        if asked["oid"] not in repo.objects:
            upload = {"href": f"{call.hub.url}/lfs-storage/{kind}s/{name}/{asked['oid']}"}
            verify = {"href": f"{call.link(kind, name)}.git/info/lfs/objects/verify"}
            wanted["actions"] = {"upload": upload, "verify": verify}
        objects.append(wanted)
    return {"transfer": "basic", "objects": objects}


@route("PUT", "/lfs-storage/(?P<kind>model|dataset|space)s/(?P<name>[^/]+/[^/]+)/{oid}")
def lfs_put(call: Call, kind: str, name: str, oid: str) -> Answer:
    """As at a storage provider: whoever has the address may write."""
    repo = call.state.repos.get(f"{kind} {name}")
    if repo is None or hashlib.sha256(call.body).hexdigest() != oid:
        raise Refusal(400, "The content does not have the promised sha256.")
    repo.objects[oid] = call.body
    return Answer(headers={"ETag": f'"{oid}"'})


@route("POST", "{files}\\.git/info/lfs/objects/verify")
def lfs_verify(call: Call, kind: str, name: str) -> dict:
    _uploaded(call.own_repo(kind, name, pull=True), call.json["oid"], call.json["size"])
    return {}


def _uploaded(repo: Repo, oid: str, size: int | None) -> bytes:
    content = repo.objects.get(oid)
    if content is None or size not in (None, len(content)):
        raise Refusal(400, f"The LFS object {oid} does not exist: upload it before the commit that names it.")
    return content


@route("POST", "{api}/commit/{rev}")
def commit(call: Call, kind: str, name: str, rev: str) -> dict:
    opens = call.flag("create_pr")
    user, repo = call.signed_in(), call.target(kind, name, None if opens else rev)
    pull = next((d for d in repo.discussions if d.base and d.ref == rev), None)
    ref, parent = repo.find_ref(rev), repo.at(rev)
    if not opens and (ref is None or ref.startswith("refs/tags/")):
        raise Refusal(400, f"Cannot commit to {rev!r}: not a branch.")
    lines = [json.loads(line) for line in call.body.splitlines() if line.strip()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    expected = header.get("parentCommit")
    if expected and not parent.id.startswith(expected):
        raise Refusal(412, STALE)
    files = dict(parent.files)
    for line in lines:
        _apply(repo, files, line["key"], line["value"])
    title, description = header["summary"], header.get("description") or ""
    if opens:
        pull = repo.open(title, user.name, "open", base=parent.id)
        pull.events.append(("comment", user.name, {"content": description}))
        ref = pull.ref
    made = repo.commit(ref, title, description, files, user.name, parent=parent.id)
    if pull:
        pull.events.append(("commit", user.name, {"subject": title, "oid": made.id}))
    url = call.link(kind, name)
    answer = {"success": True, "commitOid": made.id, "commitUrl": f"{url}/commit/{made.id}", "hookOutput": ""}
    return answer | ({"pullRequestUrl": f"{url}/discussions/{pull.num}"} if opens else {})


def _apply(repo: Repo, files: dict[str, File], key: str, value: dict) -> None:
    path = value.get("path", "")
    if key == "file":
        coded = value.get("encoding") == "base64"
        files[path] = repo.store(base64.b64decode(value["content"]) if coded else value["content"].encode(), lfs=False)
    elif key == "lfsFile":
        files[path] = repo.store(_uploaded(repo, value["oid"], value.get("size")), lfs=True)
    elif key in ("deletedFile", "deletedFolder"):
        gone = [known for known in files if known == path or known.startswith(f"{path.rstrip('/')}/")]
        if not gone or (key == "deletedFile" and path not in files):
            raise Refusal(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
        for known in gone:
            del files[known]


# --- Discussions and pull requests ---


@route("GET", "{api}/discussions")
def list_discussions(call: Call, kind: str, name: str) -> dict:
    repo = call.repo(kind, name)
    asked = {key: call.query.get(key, ["all"])[0] for key in ("type", "status", "author")}
    found = [
        d
        for d in reversed(repo.discussions)
        if asked["type"] in ("all", "pull_request" if d.base else "discussion")
        and asked["status"] in ("all", "open" if d.status in ("open", "draft") else "closed")
        and asked["author"] in ("all", d.author)
    ]
    return {"discussions": [_discussion(repo, d) for d in found], "count": len(found), "start": 0}


@route("POST", "{api}/discussions")
def open_discussion(call: Call, kind: str, name: str) -> dict:
    repo, asked, user = call.own_repo(kind, name, pull=True), call.json, call.signed_in()
    base = repo.at("main").id if asked.get("pullRequest") else None
    discussion = repo.open(asked["title"], user.name, "draft" if base else "open", base)
    discussion.events.append(("comment", user.name, {"content": asked.get("description", "")}))
    return {"num": discussion.num, "pullRequest": bool(base)}


@route("GET", "{api}/discussions/{num}")
def show_discussion(call: Call, kind: str, name: str, num: str) -> dict:
    repo = call.repo(kind, name)
    found = _numbered(repo, num)
    shown = _discussion(repo, found) | {"events": [_event(found, n) for n in range(len(found.events))]}
    if found.base:
        shown |= {"changes": {"base": "refs/heads/main", "mergeCommitId": found.merged}}
        shown |= {"filesWithConflicts": [], "diff": ""}
    return shown


@route("POST", "{api}/discussions/{num}/(?P<action>merge|comment|status|title)")
def change_discussion(call: Call, kind: str, name: str, num: str, action: str) -> dict:
    repo, asked, user = call.own_repo(kind, name, pull=action == "comment"), call.json, call.signed_in()
    found = _numbered(repo, num)
    if action == "merge":
        repo.merge(found, user.name)
        return {}
    if action == "comment":
        found.events.append(("comment", user.name, {"content": asked["comment"]}))
    elif action == "status":
        found.status = asked["status"]
        found.events.append(("status-change", user.name, {"status": found.status}))
    else:
        found.events.append(("title-change", user.name, {"from": found.title, "to": asked["title"]}))
        found.title = asked["title"]
    made = {"comment": "newMessage", "status": "newStatus", "title": "newTitle"}[action]
    return {made: _event(found, len(found.events) - 1)}


def _numbered(repo: Repo, num: str) -> Discussion:
    if not num.isdigit() or not 0 < int(num) <= len(repo.discussions):
        raise Refusal(404, f"Discussion {num} not found")
    return repo.discussions[int(num) - 1]


def _discussion(repo: Repo, found: Discussion) -> dict:
    known = {"num": found.num, "title": found.title, "status": found.status, "createdAt": DATE}
    known |= {"author": {"name": found.author}, "repo": {"name": repo.name, "type": repo.kind}}
    return known | {"isPullRequest": found.base is not None}


def _event(found: Discussion, number: int) -> dict:
    kind, author, data = found.events[number]
    if kind == "comment":
        latest = {"raw": data["content"], "html": data["content"], "updatedAt": DATE, "author": {"name": author}}
        data = {"edited": False, "hidden": False, "latest": latest, "history": []}
    event = {"id": f"{found.num:08x}{number:016x}", "type": kind, "createdAt": DATE}
    return event | {"author": {"name": author}, "data": data}


# --- Collections ---


@route("GET", "/api/collections")
def list_collections(call: Call) -> list[dict]:
    owners = call.query.get("owner", [])
    known = [c for c in call.state.collections if not c.private or call.belongs(c.namespace)]
    found = [_collection(call, c) for c in known if not owners or c.namespace in owners]
    return [{key: value for key, value in shown.items() if key != "position"} for shown in found]


@route("POST", "/api/collections")
def create_collection(call: Call) -> dict:
    asked = call.json
    call.allow(asked["namespace"])
    _check_length("description", asked.get("description"), 150)
    settings = {"description": asked.get("description"), "private": bool(asked.get("private"))}
    return _collection(call, call.state.create_collection(asked["namespace"], asked["title"], **settings))


@route("GET", "/api/collections/{slug}")
def show_collection(call: Call, slug: str) -> dict:
    return _collection(call, call.collection(slug))


@route("PATCH", "/api/collections/{slug}")
def change_collection(call: Call, slug: str) -> dict:
    collection, asked = call.collection(slug, own=True), call.json
    _check_length("description", asked.get("description"), 150)
    for key in {"title", "description", "private", "theme"} & asked.keys():
        setattr(collection, key, asked[key])
    return {"success": True, "data": _collection(call, collection)}


@route("DELETE", "/api/collections/{slug}")
def delete_collection(call: Call, slug: str) -> dict:
    call.state.collections.remove(call.collection(slug, own=True))
    return {}


@route("POST", "/api/collections/{slug}/items")
def add_item(call: Call, slug: str) -> dict:
    collection, asked, note = call.collection(slug, own=True), call.json["item"], call.json.get("note")
    kind, id = asked["type"], asked["id"]
    _check_length("note", note, 500)
    if kind == "collection":
        call.collection(id)
    elif kind in PREFIXES:
        call.repo(kind, id)
    if any((item["type"], item["id"]) == (kind, id) for item in collection.items):
        raise Refusal(409, "This item is already in the collection.")
    object_id = hashlib.sha256(f"{collection.key} {kind} {id}".encode()).hexdigest()[:24]
    collection.items.append({"_id": object_id, "type": kind, "id": id, "note": note})
    return _collection(call, collection)


@route("PATCH", "/api/collections/{slug}/items/{item}")
def change_item(call: Call, slug: str, item: str) -> dict:
    collection, asked = call.collection(slug, own=True), call.json
    found = _item(collection, item)
    found["note"] = asked.get("note", found["note"])
    if "position" in asked:
        collection.items.remove(found)
        collection.items.insert(asked["position"], found)
    return {"success": True}


@route("DELETE", "/api/collections/{slug}/items/{item}")
def remove_item(call: Call, slug: str, item: str) -> dict:
    collection = call.collection(slug, own=True)
    collection.items.remove(_item(collection, item))
    return {"success": True}


def _item(collection: Collection, object_id: str) -> dict:
    for item in collection.items:
        if item["_id"] == object_id:
            return item
    raise Refusal(404, "Item not found in the collection")


def _check_length(what: str, text: str | None, limit: int) -> None:
    if text and len(text) > limit:
        raise Refusal(400, f"The {what} has {len(text)} characters; at most {limit} are allowed.")


def _collection(call: Call, collection: Collection) -> dict:
    known = asdict(collection)
    shown = {key: known[key] for key in ("title", "description", "private", "theme")} | {"slug": collection.slug}
    items = [
        {**item, "position": position, "note": {"text": item["note"], "html": item["note"]} if item["note"] else None}
        for position, item in enumerate(known["items"])
    ]
    users = {user.name for user in call.hub.users.values()}
    owner = {"name": collection.namespace, "type": "user" if collection.namespace in users else "org"}
    return shown | {"items": items, "owner": owner, "lastUpdated": DATE, "position": 0, "upvotes": 0}


# --- HTTP ---


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    hub: Hub

    def handle_error(self, request, client_address) -> None:
        """A client that went away is nothing to speak of."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # header and body leave together
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.hub._connections.add(self.connection)

    def finish(self) -> None:
        self.server.hub._connections.discard(self.connection)
        super().finish()

    def _serve(self) -> None:
        # Read whole also where nothing is acted on, or the client would be stopped while it writes.
        answer, failure = self.server.hub.handle(self.command, self.path, self.headers, self._read())
        if failure:
            self.close_connection = True
            return _hang_up(self.connection)
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body, default=str).encode()
        self.send_response_only(answer.status)
        if not isinstance(answer.body, bytes):
            answer.headers.setdefault("Content-Type", "application/json; charset=utf-8")
        for name, value in {**answer.headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, re.sub(r"\s+", " ", value).encode("ascii", "replace").decode())
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _read(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):  # closed by the other side before
        connection.shutdown(socket.SHUT_RDWR)
