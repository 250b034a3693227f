"""Show what a release would change on the Hub, and push it: one commit a repo, each pinning those before it.

A push compares repo and release folder, and without a difference it makes no commit. Files of others are kept, and what others
edited in files of ours stops it. What was interrupted goes on where it stopped.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from trsr.assets.paths import base_path
from trsr.dataset import contract
from trsr.errors import HubError, ReleaseError
from trsr.hub import cards
from trsr.hub.changes import RELEASE_TITLE, Change, compare_release, plan, show, unseen
from trsr.hub.preflight import Options, check, check_rights, edits
from trsr.hub.rehearsal import rehearse
from trsr.hub.release import Release, assemble, pin
from trsr.hub.repos import TAGGED, TYPES, name_repos
from trsr.hub.retry import STALE, with_retries
from trsr.recommender.compare import verdict
from trsr.recommender.run import Run
from trsr.report.templates import render


def publish(
    run: Path,
    namespace: str,
    name: str | None,
    options: Options,
    *,
    push: bool = False,
    folder: Path | None = None,
    dataset: str | None = None,
    license: str | None = None,
    terms: Mapping[str, Any] | None = None,
    accept_data_licence: bool = False,
    hub: HfApi | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Assemble the release of a run, load it in a fresh process, show what would change on the Hub and, if `really`, push it.

    Args:
        name: Of dataset, pipeline and Space; default `trsr-` and the name of the data.
        folder: Where the release is assembled; default `run`/release.
        dataset: The run's dataset, where it is not (or no longer) at the place that its recipe names.
        license: Of the weights; default the base's.
        terms: Fields of `records.provenance.Terms` that replace those of the dataset.
        accept_data_licence: Publish ids and summaries of data whose texts may not be passed on, gated.

    Returns:
        For scripts: `folder` of the release and, if `really`, `commits`: kind of repo -> commit that now holds it. Else
        `repos`, each a `Change` as plain values, and whether they were `compared` with the Hub.

    Raises:
        ReleaseError, HubError: With what is missing, refused or unsafe.
    """
    hub = hub or HfApi()
    read = Run.read(run).with_dataset(dataset)
    recipe, source = read.recipe, read.recipe.dataset
    found = replace(contract.provenance(source, recipe.dataset_revision).terms, **(terms or {}))
    base_here, data_here = Path(base_path(recipe.base)), Path(contract.dataset_path(source))
    on_hub = not data_here.is_dir()
    names = name_repos(
        namespace,
        name or f"trsr-{found.name}",
        base=recipe.base if not base_here.is_dir() else None,
        new_base="trsr-nano" if recipe.base == "nano" else base_here.resolve().name,
        dataset=source if on_hub else None,
    )
    if not found.share_text and not on_hub:
        if not accept_data_licence:
            raise ReleaseError(
                f"The licence of {found.name} ({found.license_name or found.license}) does not allow to pass its texts "
                "on. Read it; with --accept-data-licence, item ids, histories and summaries are published, without "
                "item texts, behind a gate."
            )
        options = replace(options, gated=options.gated or "manual")
    release = assemble(read, folder or run / "release", names, terms=found, license=license, branch=options.branch)
    say(verdict.of_evaluation(run / "test") + "\n")
    tried = rehearse(release, run)
    say(
        f"Loaded in a fresh process: the log-odds of {tried.candidates} candidates of {tried.users} test users differ from "
        f"the run's by {tried.difference:.1g} at most.\n"
    )
    release = replace(release, facts=cards.complete(release.facts, example=tried.example))
    pin(release, {})
    if not push:
        compared = True
        try:
            changes = plan(release, hub, options.branch)
        except HubError as error:
            compared = False
            say(f"{error}\nNot compared with the Hub: everything is shown as new.\n")
            changes = unseen(release)
        say(show(changes))
        say(f"\nNothing was pushed. The files and cards are in {release.folder}; push them with --push.")
        return {
            "folder": str(release.folder),
            "compared": compared,
            "repos": [{**asdict(one), "type": TYPES[one.kind]} for one in changes],
        }
    return {"folder": str(release.folder), "commits": push_release(release, hub, options, say)}


def push_release(release: Release, hub: HfApi, options: Options, say: Callable[[str], None] = print) -> dict[str, str]:
    """Push a release. Nothing is written before all that can be checked was checked.

    Returns:
        Kind of repo -> commit that now holds it.

    Raises:
        HubError: If the Hub refuses, or cannot be reached. The same call goes on where this one stopped.
        ReleaseError: If a repo is not ours to change, or the tag stands elsewhere.
    """
    names = release.names
    namespace = names.pipeline.split("/")[0]
    check_rights(hub, namespace)
    check(hub, plan(release, hub, options.branch), options)
    commits: dict[str, str] = {}
    for kind in names.own:
        pin(release, commits, kind)
        commits[kind] = _push_repo(release, hub, kind, options, say)
    if not options.create_pr:
        _collect(release, hub, options, say)
        _tag(release, hub, commits, options.tag, say)
    return commits


def _push_repo(release: Release, hub: HfApi, kind: str, options: Options, say: Callable[[str], None]) -> str:
    """Create a repo where needed, and commit what differs. Returns the commit that holds the folder."""
    repo, branch = release.names.repo(kind), options.branch
    change = compare_release(release, hub, kind, branch)
    if not change.exists:
        sdk: dict[str, Any] = {"space_sdk": "gradio"} if TYPES[kind] == "space" else {}
        with_retries(
            f"Create {repo}",
            lambda: hub.create_repo(repo, repo_type=TYPES[kind], private=options.private or None, exist_ok=True, **sdk),
        )
    if options.gated and kind in ("dataset", "adapter") and change.gated != options.gated:
        # Before the commit: what is gated was never open.
        with_retries(
            f"Gate {repo}", lambda: hub.update_repo_settings(repo, repo_type=TYPES[kind], gated=options.gated) or True
        )
    if branch != "main" and change.head is None:
        with_retries(
            f"Branch {repo}",
            lambda: hub.create_branch(repo, repo_type=TYPES[kind], branch=branch, exist_ok=True) or True,
        )
    if change.head is None:
        change = compare_release(release, hub, kind, branch)
    if change.same and change.head:
        say(f"{repo} ({TYPES[kind]}): up to date, {change.head[:12]}")
        return change.head
    if problem := edits(change, options):  # made since `check` looked
        raise ReleaseError(problem)
    commit = _propose(release, hub, change, options) if options.create_pr else _commit(release, hub, change, options)
    say(f"{repo} ({TYPES[kind]}): {'proposed' if options.create_pr else 'committed'}, {commit[:12]}")
    return commit


def _commit(release: Release, hub: HfApi, change: Change, options: Options) -> str:
    """One commit on the branch, on top of the head that the folder was compared with."""
    kind, repo, branch = change.kind, change.repo, options.branch
    seen = [change]

    def send() -> str:
        # Looked at anew when tried again: the answer to a commit that landed may have got lost.
        now = seen.pop() if seen else compare_release(release, hub, kind, branch)
        if now.same and now.head:
            return now.head
        if now.head != change.head:
            raise HubError(
                f"{repo}: somebody else has committed to it just now. Look at it, and run the command again."
            )
        return _send(release, hub, now, revision=branch)

    return with_retries(f"Commit to {repo}", send, also=STALE)


def _propose(release: Release, hub: HfApi, change: Change, options: Options) -> str:
    """A pull request with the folder, or the open one that holds it already."""
    kind, repo = change.kind, change.repo

    def send() -> str:
        for one in hub.get_repo_discussions(repo, repo_type=TYPES[kind], discussion_type="pull_request"):
            if one.status in ("open", "draft"):
                there = compare_release(release, hub, kind, f"refs/pr/{one.num}")
                if there.same and there.head:
                    return there.head
        return _send(release, hub, compare_release(release, hub, kind, "main"), revision="main", create_pr=True)

    return with_retries(f"Open a pull request on {repo}", send, also=STALE)


def _send(release: Release, hub: HfApi, change: Change, **where) -> str:
    made = hub.create_commit(
        change.repo,
        change.operations(release.folder / change.kind),
        repo_type=TYPES[change.kind],
        commit_message=RELEASE_TITLE,
        parent_commit=change.head,
        **where,
    )
    return made.oid


def _collect(release: Release, hub: HfApi, options: Options, say: Callable[[str], None]) -> None:
    """The collection that ties the repos together."""
    names = release.names
    namespace, name = names.pipeline.split("/")
    note = render("collection", {"facts": release.facts}).strip()
    made = with_retries(
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
            _add(hub, made.slug, *item)
    say(f"collection: {made.slug}")


def _add(hub: HfApi, slug: str, repo_type: Any, repo: str) -> None:
    with_retries(
        f"Add {repo} to the collection", lambda: hub.add_collection_item(slug, repo, repo_type, exists_ok=True)
    )


def _tag(release: Release, hub: HfApi, commits: Mapping[str, str], tag: str, say: Callable[[str], None]) -> None:
    """Tag every repo of the release, the pipeline last: it names the commits of the others.

    If one cannot be tagged, the tags set before it are taken back.
    """
    done: list[str] = []
    try:
        for kind in [kind for kind in TAGGED if kind in release.names.own]:
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

    before = with_retries(f"Look at {repo}", stands)
    if before is None:
        # A tag that is there already may be our own, whose answer got lost, or another's: looked at next.
        with_retries(
            f"Tag {repo}", lambda: hub.create_tag(repo, tag=tag, revision=commit, repo_type=repo_type, exist_ok=True)
        )
    if (now := before or with_retries(f"Look at {repo}", stands)) != commit:
        raise HubError(f"{repo} has a tag {tag} at {now}, not at {commit}. Give another --tag.")
    return before is None


def _untag(hub: HfApi, repo: str, repo_type: str, tag: str) -> bool:
    """Take a tag back. Returns whether that worked."""
    try:
        with_retries(f"Untag {repo}", lambda: hub.delete_tag(repo, tag=tag, repo_type=repo_type))
    except HubError:
        return False
    return True
