"""Check token, namespace, repos and tag before a push writes anything.

All problems of a release are reported at once.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi, ModelCard

from trsr.errors import HubError, ReleaseError
from trsr.hub.changes import GIT_ATTRIBUTES, Change
from trsr.hub.repos import TAGGED, TYPES
from trsr.hub.retry import with_retries

TAG = "v1.0"


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a push.

    Attributes:
        private: Create repos and collection private.
        gated: `auto` or `manual`: who downloads data, or weights trained on it, agrees to the terms first.
        branch: Branch to commit to.
        tag: Set on the release's own repos when all commits are there.
        create_pr: Propose the commits as pull requests; nothing is tagged then.
        overwrite: Commit over what others changed in our files. The repo's history keeps it.

    Raises:
        ReleaseError: If branch or tag is not a valid name in git, or options exclude one another.
    """

    private: bool = False
    gated: Literal["auto", "manual"] | None = None
    branch: str = "main"
    tag: str = TAG
    create_pr: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        for option, name in (("--tag", self.tag), ("--revision", self.branch)):
            if not is_ref(name):
                raise ReleaseError(
                    f"{option} {name!r} is no name that git takes: no spaces, none of ~ ^ : ? * [ \\, no two dots in a row, "
                    "no dash at the beginning, no dot or slash at either end. Choose another, such as v1.1."
                )
        if self.create_pr and self.branch != "main":
            raise ReleaseError(f"A pull request goes to main: give --create-pr or --revision {self.branch}, not both.")


def is_ref(name: str) -> bool:
    """Whether a name is valid for a branch or a tag, see `git check-ref-format`."""
    parts = name.split("/")
    return not (
        re.search(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{", name)
        or name in ("@", "HEAD")
        or name.startswith("-")
        or name.endswith(".")
        or any(not part or part.startswith(".") or part.endswith(".lock") for part in parts)
    )


def edit_conflict(change: Change, options: Options) -> str | None:
    """Why a push may not overwrite the edits of others in a repo; None if there are none, or `overwrite` is set."""
    if not change.edited or options.overwrite:
        return None
    commits = "; ".join(map(str, change.commits)) or "no commit of ours is left in its history"
    return (
        f"{change.repo} ({TYPES[change.kind]}): somebody else changed {', '.join(change.edited)} since our last commit "
        f"({commits}). Take that over into what you publish, or push with --overwrite: the repo's history keeps it."
    )


def check(hub: HfApi, changes: list[Change], options: Options, public: Collection[str] = ()) -> None:
    """Check everything that could stop a push.

    Args:
        public: Kinds of repo that hold nothing of a run and its data: with `private` too, they may be public.

    Raises:
        ReleaseError: If a repo is not ours to change, others edited our files there, it has the tag at another commit, or is
            public or private where it must not be; lists all such problems.
    """
    problems = []
    is_public = not options.private and any(change.kind in TAGGED and not change.private for change in changes)
    for change in changes:
        tagged_commit = _tags(hub, change).get(options.tag) if change.kind in TAGGED and not options.create_pr else None
        if tagged_commit and not (change.same and change.head == tagged_commit):
            problems.append(
                f"{change.repo} has a tag {options.tag} at {tagged_commit[:12]}, which is not this release. Give another --tag."
            )
        if change.exists and options.private and not change.private and change.kind not in public:
            problems.append(
                f"{change.repo} exists and is public. Make it private in its settings, or leave out --private."
            )
        if is_public and change.private and change.kind not in TAGGED:
            problems.append(
                f"{change.repo} ({TYPES[change.kind]}) is private, and whoever uses the release needs it. Make it public in its "
                "settings, or publish with --private."
            )
        if change.exists and not change.same and not is_ours(hub, change.repo, TYPES[change.kind], change.head):
            problems.append(f"{change.repo} exists and is no release of LLM-TRSR. Choose another --name.")
        elif problem := edit_conflict(change, options):
            problems.append(problem)
    if problems:
        raise ReleaseError("\n".join(problems))


def check_rights(hub: HfApi, namespace: str) -> None:
    """Raise HubError if the token or the user has no right to write to the namespace, as far as `whoami` tells."""
    user = with_retries("Log in", hub.whoami)
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise HubError("The token may read only. Make one that may write: https://huggingface.co/settings/tokens")
    namespaces = {user["name"], *(org["name"] for org in user.get("orgs", []))}
    if namespace.lower() not in {name.lower() for name in namespaces}:
        raise HubError(
            f"{user['name']} is no member of {namespace}. Give --namespace one of: {', '.join(sorted(namespaces))}"
        )
    roles = {org["name"].lower(): org.get("roleInOrg") for org in user.get("orgs", [])}
    if roles.get(namespace.lower()) == "read":
        raise HubError(f"{user['name']} may only read in {namespace}. Ask an admin there for the right to write.")


def _tags(hub: HfApi, change: Change) -> dict[str, str]:
    """Tag -> commit of a repo; empty if the repo does not exist."""
    if not change.exists:
        return {}
    refs = with_retries(f"Look at {change.repo}", lambda: hub.list_repo_refs(change.repo, repo_type=TYPES[change.kind]))
    return {tag.name: tag.target_commit for tag in refs.tags}


def is_ours(hub: HfApi, repo: str, repo_type: str, revision: str | None = None) -> bool:
    """Whether a repo is empty or carries our tag."""

    def is_empty_or_tagged() -> bool:
        listed = hub.list_repo_files(repo, repo_type=repo_type, revision=revision)
        initial_files = {GIT_ATTRIBUTES, "README.md"} if repo_type == "space" else {GIT_ATTRIBUTES}
        if set(listed) <= initial_files:
            return True
        if "README.md" not in listed:
            return False
        path = hub.hf_hub_download(repo, "README.md", repo_type=repo_type, revision=revision)
        header = ModelCard(Path(path).read_text(encoding="utf-8"), ignore_metadata_errors=True).data
        return "llm-trsr" in (header.to_dict().get("tags") or [])

    return with_retries(f"Look at {repo}", is_empty_or_tagged)
