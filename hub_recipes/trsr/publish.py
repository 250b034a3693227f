"""Show what a release would change on the Hub, and push it: one commit a repo, each pinning those before it.

A repo of ours holds what its release folder holds, so a push compares the two, and a push without a difference makes no
commit. What was interrupted goes on where it stopped.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from trsr import cards, data
from trsr.embedded import base_path
from trsr.patience import HubError, patiently
from trsr.release import Release, assemble, load_recipe_of, pin
from trsr.repos import TAGGED, TYPES, ReleaseError, name_repos

TAG = "v1.0"
_STALE = frozenset({409, 412})  # the Hub is busy with another commit, or thinks that it saw one
_KEPT = ".gitattributes"  # the Hub's own; everything else in a repo is the release's


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


@dataclass(frozen=True, slots=True)
class Options:
    """How to push.

    Attributes:
        private: Create repos and collection private.
        gated: `auto` or `manual`: who downloads dataset or adapter agrees to its terms first.
        branch: Branch to commit to.
        tag: Set on the release's own repos when all commits are there.
        create_pr: Propose the commits as pull requests; nothing is tagged then.
    """

    private: bool = False
    gated: str | None = None
    branch: str = "main"
    tag: str = TAG
    create_pr: bool = False

    def __post_init__(self) -> None:
        if self.create_pr and self.branch != "main":
            raise ReleaseError(f"A pull request goes to main: give --create-pr or --revision {self.branch}, not both.")


def publish(
    run: Path,
    namespace: str,
    name: str | None,
    options: Options,
    *,
    really: bool = False,
    folder: Path | None = None,
    dataset: str | None = None,
    license: str | None = None,
    terms: Mapping[str, object] | None = None,
    accept_data_licence: bool = False,
    hub: HfApi | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, str]:
    """Assemble the release of a run, show what would change on the Hub and, if `really`, push it.

    Args:
        name: Of dataset, pipeline and Space; default `trsr-` and the name of the data.
        folder: Where the release is assembled; default `run`/release.
        dataset: The run's dataset, where it is not (or no longer) at the place that its recipe names.
        license: Of the weights; default the base's.
        terms: Fields of `data.Terms` to state anew.
        accept_data_licence: Publish ids and summaries of data whose texts may not be passed on, gated.

    Returns:
        Kind of repo -> commit that now holds it; empty if nothing was pushed.

    Raises:
        ReleaseError, HubError: With what is missing, refused or unsafe.
    """
    hub = hub or HfApi()
    recipe = load_recipe_of(run)
    source = dataset or recipe.dataset
    found = replace(data.Terms.of(data.provenance(source, recipe.dataset_revision)), **(terms or {}))
    local = Path(base_path(recipe.base)).is_dir()
    on_hub = not Path(data.dataset_path(source)).is_dir()
    names = name_repos(
        namespace, name or f"trsr-{found.name}", base=None if local else recipe.base, dataset=source if on_hub else None
    )
    if not found.share_text and not on_hub:
        if not accept_data_licence:
            raise ReleaseError(
                f"The licence of {found.name} ({found.license_name or found.license}) does not allow to pass its texts "
                "on. Read it; with --accept-data-licence, item ids, histories and summaries are published, without "
                "item texts, behind a gate."
            )
        options = replace(options, gated=options.gated or "manual")
    release = assemble(run, folder or run / "release", names, dataset=dataset, terms=found, license=license)
    if not really:
        say(show(_try_plan(release, hub, options.branch, say)))
        say(f"\nNothing was pushed. The files and cards are in {release.folder}; push them with --push.")
        return {}
    return push(release, hub, options, say)


def _try_plan(release: Release, hub: HfApi, branch: str, say: Callable[[str], None]) -> list[Change]:
    """The plan, also where there is no Hub to compare with."""
    try:
        return plan(release, hub, branch)
    except HubError as error:
        say(f"{error}\nNot compared with the Hub: everything is shown as new.\n")
        nowhere = {"head": None, "exists": False, "private": False, "gated": False, "changed": (), "removed": ()}
        changes = []
        for kind in release.names.own:
            sizes = {name: path.stat().st_size for name, path in _files(release.folder / kind).items()}
            changes.append(Change(kind, release.names.repo(kind), sizes=sizes, added=tuple(sizes), **nowhere))
        return changes


def _files(folder: Path) -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}


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
        tuple(sorted(name for name in remote if name not in local and name != _KEPT)),
    )


def _equal(path: Path, remote: RepoFile) -> bool:
    """Whether a file is the remote one, by the checksum that the Hub keeps of it."""
    if path.stat().st_size != remote.size:
        return False
    content = path.read_bytes()
    if remote.lfs:
        return hashlib.sha256(content).hexdigest() == remote.lfs.sha256
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


def push(release: Release, hub: HfApi, options: Options, say: Callable[[str], None] = print) -> dict[str, str]:
    """Push a release. Nothing is written before all that can be checked was checked.

    Returns:
        Kind of repo -> commit that now holds it.

    Raises:
        HubError: If the Hub refuses, or cannot be reached. The same call goes on where this one stopped.
        ReleaseError: If a repo is not ours to change, or the tag stands elsewhere.
    """
    names = release.names
    namespace = names.pipeline.split("/")[0]
    _check_rights(hub, namespace)
    changes = plan(release, hub, options.branch)
    tags = {} if options.create_pr else {kind: _tags(hub, release, kind, changes) for kind in _tagged(release)}
    _check(release, hub, changes, tags, options)
    commits: dict[str, str] = {}
    for kind in names.own:
        pin(release, commits, kind)
        commits[kind] = _push_repo(release, hub, kind, options, say)
    if not options.create_pr:
        _collect(release, hub, options, say)
        _tag(release, hub, commits, options.tag, say)
    return commits


def _tagged(release: Release) -> list[str]:
    return [kind for kind in TAGGED if kind in release.names.own]


def _check_rights(hub: HfApi, namespace: str) -> None:
    """Raise HubError if the token plainly cannot write to the namespace."""
    user = patiently("Log in", hub.whoami)
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise HubError("The token may read only. Make one that may write: https://huggingface.co/settings/tokens")
    known = {user["name"], *(org["name"] for org in user.get("orgs", []))}
    if namespace.lower() not in {name.lower() for name in known}:
        raise HubError(
            f"{user['name']} is no member of {namespace}. Give --namespace one of: {', '.join(sorted(known))}"
        )
    roles = {org["name"].lower(): org.get("roleInOrg") for org in user.get("orgs", [])}
    if roles.get(namespace.lower()) == "read":
        raise HubError(f"{user['name']} may only read in {namespace}. Ask an admin there for the right to write.")


def _tags(hub: HfApi, release: Release, kind: str, changes: Iterable[Change]) -> dict[str, str]:
    """Tag -> commit of a repo; none if it does not exist."""
    repo = release.names.repo(kind)
    if not next(one.exists for one in changes if one.kind == kind):
        return {}
    refs = patiently(f"Look at {repo}", lambda: hub.list_repo_refs(repo, repo_type=TYPES[kind]))
    return {tag.name: tag.target_commit for tag in refs.tags}


def _check(release: Release, hub: HfApi, changes: list[Change], tags: Mapping[str, Mapping], options: Options) -> None:
    """Raise ReleaseError, with all problems, before anything is written."""
    problems = []
    for one in changes:
        stands = tags.get(one.kind, {}).get(options.tag)
        if stands and not (one.same and one.head == stands):
            problems.append(
                f"{one.repo} has a tag {options.tag} at {stands[:12]}, which is not this release. Give another --tag."
            )
        if one.exists and options.private and not one.private:
            problems.append(f"{one.repo} exists and is public. Make it private in its settings, or leave --private.")
        if one.head and not one.same and not _ours(hub, one):
            problems.append(f"{one.repo} exists and is no release of LLM-TRSR. Choose another --name.")
    if problems:
        raise ReleaseError("\n".join(problems))


def _ours(hub: HfApi, change: Change) -> bool:
    """Whether a repo is empty or carries our tag."""

    def read() -> bool:
        listed = hub.list_repo_files(change.repo, repo_type=TYPES[change.kind], revision=change.head)
        born_with = {_KEPT, "README.md"} if TYPES[change.kind] == "space" else {_KEPT}
        if set(listed) <= born_with:
            return True
        if "README.md" not in listed:
            return False
        path = hub.hf_hub_download(change.repo, "README.md", repo_type=TYPES[change.kind], revision=change.head)
        header = ModelCard(Path(path).read_text(encoding="utf-8"), ignore_metadata_errors=True).data
        return "llm-trsr" in (header.to_dict().get("tags") or [])

    return patiently(f"Look at {change.repo}", read)


def _push_repo(release: Release, hub: HfApi, kind: str, options: Options, say: Callable[[str], None]) -> str:
    """Create a repo where needed, and commit what differs. Returns the commit that holds the folder."""
    repo, branch = release.names.repo(kind), options.branch
    change = compare(release, hub, kind, branch)
    if not change.exists:
        sdk = {"space_sdk": "gradio"} if TYPES[kind] == "space" else {}
        patiently(
            f"Create {repo}",
            lambda: hub.create_repo(repo, repo_type=TYPES[kind], private=options.private or None, exist_ok=True, **sdk),
        )
    if options.gated and kind in ("dataset", "adapter") and change.gated != options.gated:
        # Before the commit: what is gated was never open.
        patiently(
            f"Gate {repo}", lambda: hub.update_repo_settings(repo, repo_type=TYPES[kind], gated=options.gated) or True
        )
    if branch != "main" and change.head is None:
        patiently(
            f"Branch {repo}",
            lambda: hub.create_branch(repo, repo_type=TYPES[kind], branch=branch, exist_ok=True) or True,
        )
    if change.head is None:
        change = compare(release, hub, kind, branch)
    if change.same and change.head:
        say(f"{repo}: up to date, {change.head[:12]}")
        return change.head
    commit = _propose(release, hub, change, options) if options.create_pr else _commit(release, hub, change, options)
    say(f"{repo}: {'proposed' if options.create_pr else 'committed'}, {commit[:12]}")
    return commit


def _commit(release: Release, hub: HfApi, change: Change, options: Options) -> str:
    """One commit on the branch, on top of the head that the folder was compared with."""
    kind, repo, branch = change.kind, change.repo, options.branch
    seen = [change]

    def send() -> str:
        # Looked at anew when tried again: the answer to a commit that landed may have got lost.
        now = seen.pop() if seen else compare(release, hub, kind, branch)
        if now.same and now.head:
            return now.head
        if now.head != change.head:
            raise HubError(
                f"{repo}: somebody else has committed to it just now. Look at it, and run the command again."
            )
        return _send(release, hub, now, revision=branch)

    return patiently(f"Commit to {repo}", send, also=_STALE)


def _propose(release: Release, hub: HfApi, change: Change, options: Options) -> str:
    """A pull request with the folder, or the open one that holds it already."""
    kind, repo = change.kind, change.repo

    def send() -> str:
        for one in hub.get_repo_discussions(repo, repo_type=TYPES[kind], discussion_type="pull_request"):
            if one.status in ("open", "draft"):
                there = compare(release, hub, kind, f"refs/pr/{one.num}")
                if there.same and there.head:
                    return there.head
        return _send(release, hub, compare(release, hub, kind, "main"), revision="main", create_pr=True)

    return patiently(f"Open a pull request on {repo}", send, also=_STALE)


def _send(release: Release, hub: HfApi, change: Change, **where) -> str:
    folder = release.folder / change.kind
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(name, folder / name) for name in (*change.added, *change.changed)
    ]
    operations += [CommitOperationDelete(name) for name in change.removed]
    made = hub.create_commit(
        change.repo,
        operations,
        repo_type=TYPES[change.kind],
        commit_message="Release with LLM-TRSR",
        parent_commit=change.head,
        **where,
    )
    return made.oid


def _collect(release: Release, hub: HfApi, options: Options, say: Callable[[str], None]) -> None:
    """The collection that ties the repos together."""
    names = release.names
    namespace, name = names.pipeline.split("/")
    note = cards.render("collection", {"facts": release.facts}).strip()
    made = patiently(
        f"Create the collection of {name}",
        lambda: hub.create_collection(
            f"LLM-TRSR: {name}", namespace=namespace, description=note, private=options.private, exists_ok=True
        ),
    )
    held = {(item.item_type, item.item_id) for item in made.items}
    for kind in ("space", "pipeline", "adapter", "base", "dataset", *names.own):
        item = (TYPES[kind], names.repo(kind))
        if kind in names.own and item not in held:
            held.add(item)
            patiently(
                f"Add {item[1]} to the collection",
                lambda item=item: hub.add_collection_item(made.slug, item[1], item[0], exists_ok=True),
            )
    say(f"collection: {made.slug}")


def _tag(release: Release, hub: HfApi, commits: Mapping[str, str], tag: str, say: Callable[[str], None]) -> None:
    """Tag every repo of the release, the pipeline last: it names the commits of the others.

    If one cannot be tagged, the tags set before it are taken back.
    """
    done: list[str] = []
    try:
        for kind in _tagged(release):
            if _tag_one(hub, release.names.repo(kind), TYPES[kind], commits[kind], tag):
                done.append(kind)
    except HubError as error:
        left = [kind for kind in done if not _untag(hub, release.names.repo(kind), TYPES[kind], tag)]
        if left:
            repos = ", ".join(map(release.names.repo, left))
            raise HubError(f"{error} The tag {tag} is left on {repos}; the next run completes it.") from None
        raise
    say(f"tagged {tag}")


def _tag_one(hub: HfApi, repo: str, repo_type: str, commit: str, tag: str) -> bool:
    """Set a tag. Returns False if it stood there already."""

    def stands() -> str | None:
        refs = hub.list_repo_refs(repo, repo_type=repo_type).tags
        return next((one.target_commit for one in refs if one.name == tag), None)

    before = patiently(f"Look at {repo}", stands)
    if before is None:
        # A tag that is there already may be our own, whose answer got lost, or another's: looked at next.
        patiently(
            f"Tag {repo}", lambda: hub.create_tag(repo, tag=tag, revision=commit, repo_type=repo_type, exist_ok=True)
        )
    if (now := before or patiently(f"Look at {repo}", stands)) != commit:
        raise HubError(f"{repo} has a tag {tag} at {now}, not at {commit}. Give another --tag.")
    return before is None


def _untag(hub: HfApi, repo: str, repo_type: str, tag: str) -> bool:
    """Take a tag back. Returns whether that worked."""
    try:
        patiently(f"Untag {repo}", lambda: hub.delete_tag(repo, tag=tag, repo_type=repo_type))
    except HubError:
        return False
    return True
