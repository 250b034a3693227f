"""Show what a release would change on the Hub, and push it: one commit per repo, each pinning the commits before it.

A repo that equals its release folder gets no commit. Files that others added are kept; edits of others in our files stop
the push. Running an interrupted push again completes it.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from trsr.assets.paths import base_path, dataset_path
from trsr.core.catalogue import is_fitted
from trsr.errors import HubError, ReleaseError
from trsr.hub import licences
from trsr.hub.changes import RELEASE_TITLE, Change, compare_release, look_at, plan, plan_without_hub, show
from trsr.hub.copies import Copies
from trsr.hub.copy_rehearsal import check_library, rehearse_copies
from trsr.hub.inputs import ReleaseInputs
from trsr.hub.named_files import TRAINING
from trsr.hub.preflight import Options, check, check_rights, edit_conflict
from trsr.hub.rehearsal import rehearse
from trsr.hub.release import NO_COPIES, Release, assemble, pin
from trsr.hub.repos import COPIES, TAGGED, TYPES, Names, name_repos
from trsr.hub.retry import STALE, TRIES, with_retries
from trsr.hub.spaces import METRICS
from trsr.report.templates import render

TITLE_LIMIT = 59  # characters of a collection's title, by the Hub
LOADED = ("base", "adapter", "pipeline")  # what a Space loads


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
    retriever: Path | None = None,
    copies: Copies = NO_COPIES,
    accept_base_licence: bool = False,
    hub: HfApi | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Assemble the release of a run, load it in a fresh process, show what would change on the Hub and, with `push`, push it.

    Args:
        name: Of dataset, pipeline and Space; default `trsr-` and the name of the data.
        folder: Where the release is assembled; default `run`/release.
        dataset: The dataset of the run, if it is not where the recipe says.
        license: Of the weights; default the base's.
        terms: Fields of `records.provenance.Terms` that replace those of the dataset.
        accept_data_licence: Publish ids, summaries and weights of data whose texts may not be passed on, gated.
        retriever: Folder of a retriever: the pipeline then carries the catalogue, and recommends without candidates.
        copies: Forms for other engines, each in a repo of its own.
        accept_base_licence: Publish merged weights, or the weights of a base in a folder, where its licence sets terms for that.

    Returns:
        Plain values: `folder` of the release and, with `push`, `commits`: kind of repo -> commit that holds it. Without
        `push`, `repos`, each a `Change` as a dict, and whether they were `compared` with the Hub.

    Raises:
        ReleaseError, HubError: If something is missing, refused or unsafe.
    """
    hub = hub or HfApi()
    inputs = ReleaseInputs.read(run, dataset, retriever)
    recipe, source = inputs.run.recipe, inputs.run.recipe.dataset
    source_terms = replace(inputs.provenance.terms, **(terms or {}))
    base_folder, on_hub = Path(base_path(recipe.base)), not Path(dataset_path(source)).is_dir()
    names = name_repos(
        namespace,
        name or f"trsr-{source_terms.name}",
        base=recipe.base if not base_folder.is_dir() else None,
        new_base="trsr-nano" if recipe.base == "nano" else base_folder.resolve().name,
        dataset=source if on_hub else None,
        copies=copies.kinds,
    )
    copies.check_licence(
        lambda: licences.of_base(recipe.base).get("license") or license,
        recipe.base,
        accept_base_licence,
        # One that was trained here, from nothing, is nobody else's.
        brings_base=base_folder.is_dir() and not (base_folder / TRAINING).is_file(),
    )
    if copies.cross_encoder:
        check_library()
    if not source_terms.share_text:
        if not accept_data_licence:
            raise ReleaseError(
                f"The licence of {source_terms.name} ({source_terms.license_name or source_terms.license}) does not allow to pass its texts "
                "on. Read it; with --accept-data-licence, item ids, histories, summaries, which may quote items, and weights "
                "trained on the texts are published, without item texts, behind a gate."
            )
        options = replace(options, gated=options.gated or "manual")
    restricted, gated = _access(hub, names, options, needed=push)
    release = assemble(
        inputs,
        folder or run / "release",
        names,
        terms=source_terms,
        license=license,
        branch=options.branch,
        copies=copies,
        restricted=restricted,
        gated=gated,
    )
    say(inputs.verdict + "\n")
    if record := release.facts.catalogue:
        fitted = record["fitted"]
        if is_fitted(record):
            how = f"fitted on {fitted['users']} validation users"
        elif fitted:
            how = f"not fitted: {fitted['not_fitted']}"
        else:
            how = f"not fitted; to fit it: trsr retrieve fuse {retriever} --run {run}"
        say(
            f"Carries a catalogue of {record['items']:,} items; weight of the first stage {record['weight']:g}, {how}.\n"
        )
    rehearsal = rehearse(release, inputs)
    say(
        f"Loaded in a fresh process: the log-odds of {rehearsal.candidates} candidates of {rehearsal.users} test users differ from "
        f"the run's by {rehearsal.difference:.1g} at most.\n"
    )
    release = replace(release, facts=rehearse_copies(release, inputs, rehearsal.example))
    for copy, difference in (release.facts.copies or {}).get("differences", {}).items():
        say(f"{copy}: its log-odds differ from those of base and adapter by {difference:.1g} at most.\n")
    pin(release, {})
    if not push:
        compared = True
        try:
            changes = plan(release, hub, options.branch)
        except HubError as error:
            compared = False
            say(f"{error}\nNot compared with the Hub: everything is shown as new.\n")
            changes = plan_without_hub(release)
        say(show(changes))
        say(f"\nNothing was pushed. The files and cards are in {release.folder}; push them with --push.")
        return {
            "folder": str(release.folder),
            "compared": compared,
            "repos": [{**asdict(change), "type": TYPES[change.kind]} for change in changes],
        }
    return {"folder": str(release.folder), "commits": push_release(release, hub, options, say)}


def _access(hub: HfApi, names: Names, options: Options, *, needed: bool) -> tuple[bool, bool]:
    """Whether what a Space loads will be private or gated, and whether data will be gated: by `options`, or on the Hub already.

    Args:
        needed: Whether a Hub that cannot be reached is an error; else `options` alone count.

    Raises:
        HubError: If the Hub cannot be reached.
    """
    restricted, gated = options.private or bool(options.gated), bool(options.gated)
    for kind in [kind for kind in names.own if TYPES[kind] != "space" and not gated]:
        try:
            info, _ = look_at(hub, names.repo(kind), kind, tries=TRIES if needed else 1)
        except HubError:
            if needed:
                raise
            break
        if info:
            restricted |= kind in LOADED and bool(info.private or info.gated)
            gated |= kind != "base" and bool(info.gated)
    return restricted or gated, gated


def push_release(release: Release, hub: HfApi, options: Options, say: Callable[[str], None] = print) -> dict[str, str]:
    """Push a release. All checks run before the first write.

    Returns:
        Kind of repo -> commit that now holds it.

    Raises:
        HubError: If the Hub refuses, or cannot be reached. Call again to continue.
        ReleaseError: If a repo is not ours to change, or has the tag at another commit.
    """
    names = release.names
    namespace = names.pipeline.split("/")[0]
    check_rights(hub, namespace)
    check(hub, plan(release, hub, options.branch), options, public=public_kinds(release))
    commits: dict[str, str] = {}
    for kind in names.own:
        pin(release, commits, kind)
        commits[kind] = _push_repo(release, hub, kind, options, say)
    if not options.create_pr:
        _collect(release, hub, options, say)
        _tag(release, hub, commits, options.tag, say)
    return commits


def gated_kinds(release: Release) -> tuple[str, ...]:
    """The kinds of repo that a gate closes: those that hold data, or weights that were trained on it.

    Left open are the pipeline without a catalogue, which is code and settings, and the base, which other releases share.
    """
    return ("dataset", "adapter", *COPIES, *(["pipeline"] if release.facts.catalogue else []))


def public_kinds(release: Release) -> tuple[str, ...]:
    """The kinds of repo that hold nothing of a run and its data: metrics, and the base that comes with this package."""
    return (*METRICS, *(["base"] if release.facts.recipe.base == "nano" else []))


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
    if options.gated and kind in gated_kinds(release) and change.gated != options.gated:
        # Gate before the commit, so that the files are never public.
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
    if problem := edit_conflict(change, options):  # edits that were made after `check`
        raise ReleaseError(problem)
    commit = _propose(release, hub, change) if options.create_pr else _commit(release, hub, change, options)
    say(f"{repo} ({TYPES[kind]}): {'proposed' if options.create_pr else 'committed'}, {commit[:12]}")
    return commit


def _commit(release: Release, hub: HfApi, change: Change, options: Options) -> str:
    """One commit on the branch, on top of the head that the folder was compared with."""
    kind, repo, branch = change.kind, change.repo, options.branch
    first_comparison = [change]

    def send() -> str:
        # Compared again on a retry: the commit may have succeeded although its response was lost.
        current = first_comparison.pop() if first_comparison else compare_release(release, hub, kind, branch)
        if current.same and current.head:
            return current.head
        if current.head != change.head:
            raise HubError(
                f"{repo}: somebody else has committed to it just now. Look at it, and run the command again."
            )
        return _send(release, hub, current, revision=branch)

    return with_retries(f"Commit to {repo}", send, also=STALE)


def _propose(release: Release, hub: HfApi, change: Change) -> str:
    """Open a pull request with the folder, unless an open one holds it already. Returns its commit."""
    kind, repo = change.kind, change.repo

    def send() -> str:
        for discussion in hub.get_repo_discussions(repo, repo_type=TYPES[kind], discussion_type="pull_request"):
            if discussion.status in ("open", "draft"):
                proposed = compare_release(release, hub, kind, f"refs/pr/{discussion.num}")
                if proposed.same and proposed.head:
                    return proposed.head
        return _send(release, hub, compare_release(release, hub, kind, "main"), revision="main", create_pr=True)

    return with_retries(f"Open a pull request on {repo}", send, also=STALE)


def _send(release: Release, hub: HfApi, change: Change, **target) -> str:
    commit = hub.create_commit(
        change.repo,
        change.operations(release.folder / change.kind),
        repo_type=TYPES[change.kind],
        commit_message=RELEASE_TITLE,
        parent_commit=change.head,
        **target,
    )
    return commit.oid


def _collect(release: Release, hub: HfApi, options: Options, say: Callable[[str], None]) -> None:
    """Create the collection of the release, and add its repos."""
    names = release.names
    namespace, name = names.pipeline.split("/")
    title = f"LLM-TRSR: {name}"[:TITLE_LIMIT]
    note = render("collection", {"facts": release.facts}).strip()
    collection = with_retries(
        f"Create the collection of {name}",
        lambda: hub.create_collection(
            title, namespace=namespace, description=note, private=options.private, exists_ok=True
        ),
    )
    present = {(item.item_type, item.item_id) for item in collection.items}
    for kind in ("space", "pipeline", "adapter", "base", "dataset", *names.own):
        item = (TYPES[kind], names.repo(kind))
        if kind in names.own and item not in present:
            present.add(item)
            _add(hub, collection.slug, *item)
    say(f"collection: {collection.slug}")


def _add(hub: HfApi, slug: str, repo_type: Any, repo: str) -> None:
    with_retries(
        f"Add {repo} to the collection", lambda: hub.add_collection_item(slug, repo, repo_type, exists_ok=True)
    )


def _tag(release: Release, hub: HfApi, commits: Mapping[str, str], tag: str, say: Callable[[str], None]) -> None:
    """Tag every repo of the release, the pipeline last: it names the commits of the others.

    If one cannot be tagged, the tags set so far are deleted.
    """
    tagged: list[str] = []
    try:
        for kind in [kind for kind in TAGGED if kind in release.names.own]:
            if _tag_one(hub, release.names.repo(kind), TYPES[kind], commits[kind], tag):
                tagged.append(kind)
    except HubError as error:
        still_tagged = [kind for kind in tagged if not _untag(hub, release.names.repo(kind), TYPES[kind], tag)]
        if still_tagged:
            repos = ", ".join(map(release.names.repo, still_tagged))
            raise HubError(f"{error} The tag {tag} is left on {repos}; the next run completes it.") from None
        raise
    say(f"tagged {tag}")


def _tag_one(hub: HfApi, repo: str, repo_type: str, commit: str, tag: str) -> bool:
    """Set a tag. Returns False if the commit already had it."""

    def tagged_commit() -> str | None:
        refs = hub.list_repo_refs(repo, repo_type=repo_type).tags
        return next((ref.target_commit for ref in refs if ref.name == tag), None)

    before = with_retries(f"Look at {repo}", tagged_commit)
    if before is None:
        # An existing tag is ours, if a response was lost, or of somebody else: checked next.
        with_retries(
            f"Tag {repo}", lambda: hub.create_tag(repo, tag=tag, revision=commit, repo_type=repo_type, exist_ok=True)
        )
    if (now := before or with_retries(f"Look at {repo}", tagged_commit)) != commit:
        raise HubError(f"{repo} has a tag {tag} at {now}, not at {commit}. Give another --tag.")
    return before is None


def _untag(hub: HfApi, repo: str, repo_type: str, tag: str) -> bool:
    """Delete a tag. Returns whether that worked."""
    try:
        with_retries(f"Untag {repo}", lambda: hub.delete_tag(repo, tag=tag, repo_type=repo_type))
    except HubError:
        return False
    return True
