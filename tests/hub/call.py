"""One request: what it asks for, what its sender may see and do, and which handler answers it."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from tests.hub.state import Collection, Commit, Repo, State, User

FOLDERS = {"model": "", "dataset": "datasets/", "space": "spaces/"}
PATTERNS = {
    "api": r"/api/(?P<kind>models|datasets|spaces)/(?P<name>[^/]+/[^/]+)",
    "page": r"/(?:(?P<kind>datasets|spaces)/)?(?P<name>[^/]+/[^/]+?)",
    "slug": r"(?P<slug>[^/]+/[^/]+)",
    "path": r"(?P<path>.+)",
}


@dataclass
class Answer:
    status: int = 200
    body: Any = b""  # bytes as they are, anything else as JSON
    headers: dict[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """An error that the Hub answers with: status, X-Error-Code, and more fields for the body."""

    def __init__(self, status: int, message: str, code: str = "", headers: Mapping[str, str] | None = None, **body):
        super().__init__(message)
        headers = {"X-Error-Message": message, "X-Error-Code": code, **(headers or {})}
        self.answer = Answer(status, {"error": message, **body}, headers)


@dataclass
class Call:
    """A request to the Hub at the address `hub`; `user` is None if it brings no token."""

    hub: str
    state: State
    user: User | None
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)

    @property
    def writes(self) -> bool:
        return self.method not in ("GET", "HEAD") and self.path != "/api/validate-yaml"

    def link(self, kind: str, name: str) -> str:
        return f"{self.hub}/{FOLDERS[kind]}{name}"

    def belongs(self, namespace: str) -> bool:
        return self.user is not None and self.user.belongs(namespace)

    def signed_in(self) -> User:
        if self.user is None:
            raise Refusal(401, "Invalid username or password.")
        return self.user

    def allow(self, namespace: str) -> None:
        """Refuse a sender who may not write in `namespace`."""
        if not self.signed_in().may_write(namespace):
            raise Refusal(403, f"You don't have the rights to write under the namespace {namespace!r}.")

    def repo(self, kind: str, name: str) -> Repo:
        """A repo that the sender may see."""
        repo = self.state.repos.get(f"{kind} {name}")
        if repo is None or (repo.private and not self.belongs(repo.namespace)):
            raise Refusal(404, "Repository not found", "RepoNotFound")
        return repo

    def writable(self, kind: str, name: str, revision: str | None = "main") -> Repo:
        """A repo that the sender may commit to at `revision`; None: in a new pull request, which anyone may open."""
        user, repo = self.signed_in(), self.repo(kind, name)
        own = [None, *(pull.ref for pull in repo.pulls if pull.author == user.name)]
        self.allow(user.name if revision in own else repo.namespace)
        return repo

    def collection(self, slug: str) -> Collection:
        """A collection that the sender may see."""
        collection = self.state.collections.get(slug)
        if collection is None or (collection.private and not self.belongs(collection.namespace)):
            raise Refusal(404, "Collection not found")
        return collection


def commit_at(repo: Repo, revision: str) -> Commit:
    """The commit of a branch, tag, full ref or id."""
    names = (f"refs/heads/{revision}", f"refs/tags/{revision}", revision)
    id = next((repo.refs[name] for name in names if name in repo.refs), revision)
    if id not in repo.commits:
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return repo.commits[id]


class Routes(list[tuple[str, re.Pattern, Callable[..., Any]]]):
    """Method, path and handler of endpoints. A handler returns an Answer or what becomes JSON, or raises a Refusal."""

    def __call__(self, method: str, path: str) -> Callable:
        """Register a handler. A name in braces stands for its pattern, or else for one part of the path."""
        path = re.sub(r"\{(\w+)\}", lambda found: PATTERNS.get(found[1], rf"(?P<{found[1]}>[^/]+)"), path)

        def register(handler: Callable) -> Callable:
            self.append((method, re.compile(path), handler))
            return handler

        return register

    def answer(self, call: Call) -> Answer:
        method = "GET" if call.method == "HEAD" else call.method
        for known, path, handler in self:
            if known == method and (match := path.fullmatch(call.path)):
                # What has no kind in its path is a model.
                parts = {name: unquote(part) for name, part in match.groupdict(default="models").items()}
                if "kind" in parts:
                    parts["kind"] = parts["kind"].removesuffix("s")
                answer = handler(call, **parts)
                return answer if isinstance(answer, Answer) else Answer(body=answer)
        raise Refusal(501, f"This Hub does not serve {call.method} {call.path}")
