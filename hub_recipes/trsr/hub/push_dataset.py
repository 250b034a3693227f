"""Push a dataset folder to the Hub as it is, before there is a recommender: one commit, texts only where they may go."""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import DatasetCard, HfApi

from trsr.dataset import contract
from trsr.errors import ReleaseError
from trsr.hub import licences
from trsr.hub.retry import STALE, with_retries
from trsr.records.provenance import Terms


def push_dataset(
    folder: Path,
    repo: str,
    *,
    private: bool = False,
    accept_data_licence: bool = False,
    overwrite: bool = False,
    hub: HfApi | None = None,
    say: Callable[[str], object] = print,
) -> str:
    """Make the dataset repo hold what the folder holds. Files that others put there are kept.

    Where the data's terms forbid to pass texts on, item ids and histories are pushed, behind a gate that was closed before.

    Args:
        folder: Of the data contract, with its `provenance.json`.
        repo: ORG/NAME; made where it does not exist.
        accept_data_licence: Needed for data whose texts may not be passed on.
        overwrite: Commit over what others edited in our files on the Hub.

    Returns:
        The commit that holds it.

    Raises:
        ReleaseError, HubError: With what is refused; nothing is written then.
    """
    from trsr.hub.changes import DATASET_TITLE, compare
    from trsr.hub.preflight import Options, check_rights, edits, is_ours

    hub, how = hub or HfApi(), Options(overwrite=overwrite)
    namespace, _, name = repo.partition("/")
    if not name:
        raise ReleaseError(f"--push-to-hub takes ORG/NAME, got {repo!r}.")
    terms = contract.provenance(str(folder)).terms
    if wrong := licences.problem(terms.license, "--license", f"the dataset {terms.name}"):
        raise ReleaseError(wrong)
    if not terms.share_text and not accept_data_licence:
        raise ReleaseError(
            f"The licence of {terms.name} ({terms.license_name or terms.license}) does not allow to pass its texts on. "
            "Read it; with --accept-data-licence, item ids and histories are pushed, without item texts, behind a gate."
        )
    check_rights(hub, namespace)
    exists = with_retries(f"Look at {repo}", lambda: hub.repo_exists(repo, repo_type="dataset"))
    if exists and not is_ours(hub, repo, "dataset"):
        raise ReleaseError(f"{repo} exists and is no dataset of LLM-TRSR. Choose another name.")
    with tempfile.TemporaryDirectory() as place:
        source = folder if terms.share_text else _without_texts(folder, terms, Path(place) / "dataset")
        change = compare(source, hub, repo, "dataset", "main")
        if problem := edits(change, how):
            raise ReleaseError(problem)
        if change.same and change.head:
            say(f"{repo}: up to date, {change.head[:12]}")
            return change.head
        with_retries(
            f"Create {repo}", lambda: hub.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        )
        if not terms.share_text:
            # Before the commit: what is gated was never open.
            with_retries(
                f"Gate {repo}", lambda: hub.update_repo_settings(repo, repo_type="dataset", gated="manual") or True
            )

        def send() -> str:
            # Looked at anew when tried again: the answer to a commit that landed may have got lost.
            now = compare(source, hub, repo, "dataset", "main")
            if problem := edits(now, how):
                raise ReleaseError(problem)
            if now.same and now.head:
                return now.head
            operations = now.operations(source)
            return hub.create_commit(
                repo, operations, repo_type="dataset", commit_message=DATASET_TITLE, parent_commit=now.head
            ).oid

        commit = with_retries(f"Commit to {repo}", send, also=STALE)
    say(f"{repo}: committed, {commit[:12]}")
    return commit


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a script that can push what it wrote to --out."""
    add = parser.add_argument
    add("--push-to-hub", metavar="ORG/NAME", help="then push the dataset: one commit")
    add("--private", action="store_true", help="with --push-to-hub: create the repo private")
    add("--overwrite", action="store_true", help="with --push-to-hub: commit over what others edited on the Hub")
    add("--accept-data-licence", action="store_true", help="you have read the terms of data whose texts stay at home")


def as_asked(options: argparse.Namespace) -> None:
    """Push --out, if --push-to-hub was given."""
    if options.push_to_hub:
        push_dataset(
            options.out,
            options.push_to_hub,
            private=options.private,
            accept_data_licence=options.accept_data_licence,
            overwrite=options.overwrite,
        )


def _without_texts(folder: Path, terms: Terms, copy: Path) -> Path:
    card = DatasetCard((folder / "README.md").read_text(encoding="utf-8"))
    provenance = contract.provenance(str(folder)).values
    tables = contract.shared_tables(str(folder), None, terms)
    contract.write(copy, tables, provenance=provenance, body=card.text, header={"tags": ["llm-trsr"]})
    return copy
