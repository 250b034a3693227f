"""Push a folder of data to the Hub, a dataset or recommendations: one commit, item texts only if their licence allows."""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import DatasetCard, HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from trsr.dataset import contract
from trsr.errors import ReleaseError
from trsr.hub import languages, licences
from trsr.hub.retry import STALE, with_retries
from trsr.records.provenance import Terms


def push_dataset(
    folder: Path,
    repo: str,
    *,
    private: bool = False,
    accept_data_licence: bool = False,
    overwrite: bool = False,
    recommendations: bool = False,
    hub: HfApi | None = None,
    say: Callable[[str], object] = print,
) -> str:
    """Push a dataset folder to a dataset repo. Files that others added there are kept.

    Where the terms of the data forbid to share texts, the items are pushed as ids alone, to a gated repo. Histories go with
    them, and summaries, if the folder has any: these may quote items, as a message says before it is allowed.
    Recommendations hold no item texts: they are pushed whole, to a repo that is then gated and created private.

    Args:
        folder: Of the data contract, or of recommendations; with its `provenance.json`.
        repo: ORG/NAME; created if it does not exist.
        private: Create it private; one that exists and is public is refused.
        accept_data_licence: Required for data whose texts may not be shared.
        overwrite: Commit over what others edited in our files on the Hub.
        recommendations: Whether the folder holds these, and no dataset.

    Returns:
        The commit that holds the folder.

    Raises:
        ReleaseError, HubError: If the push is refused; nothing is written then.
    """
    from trsr.hub.changes import DATASET_TITLE, compare
    from trsr.hub.preflight import Options, edit_conflict

    hub, options = hub or HfApi(), Options(overwrite=overwrite)
    terms = contract.provenance(str(folder)).terms
    check_push(
        terms,
        repo,
        private=private,
        recommendations=recommendations,
        accept_data_licence=accept_data_licence,
        hub=hub,
    )
    private = private or _has_to_be_private(terms, recommendations)
    with tempfile.TemporaryDirectory() as temporary:
        whole = terms.share_text or recommendations
        source = folder if whole else _without_texts(folder, terms, Path(temporary) / "dataset")
        change = compare(source, hub, repo, "dataset", "main")
        if problem := edit_conflict(change, options):
            raise ReleaseError(problem)
        if not change.head:
            with_retries(
                f"Create {repo}", lambda: hub.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
            )
        if not terms.share_text:
            # Gate before the commit, so that the files are never public; also where nothing changed, for the gate may be gone.
            with_retries(
                f"Gate {repo}", lambda: hub.update_repo_settings(repo, repo_type="dataset", gated="manual") or True
            )
        if change.same and change.head:
            say(f"{repo}: up to date, {change.head[:12]}")
            return change.head

        def send() -> str:
            # Compared again on a retry: the commit may have succeeded although its response was lost.
            current = compare(source, hub, repo, "dataset", "main")
            if problem := edit_conflict(current, options):
                raise ReleaseError(problem)
            if current.same and current.head:
                return current.head
            operations = current.operations(source)
            return hub.create_commit(
                repo, operations, repo_type="dataset", commit_message=DATASET_TITLE, parent_commit=current.head
            ).oid

        commit = with_retries(f"Commit to {repo}", send, also=STALE)
    say(f"{repo}: committed, {commit[:12]}")
    return commit


def check_push(
    terms: Terms,
    repo: str,
    *,
    private: bool = False,
    recommendations: bool = False,
    accept_data_licence: bool = False,
    hub: HfApi | None = None,
) -> None:
    """Look for whatever would refuse a push, before there is anything to push. Arguments as in `push_dataset`.

    Raises:
        ReleaseError, HubError: If the push would be refused.
    """
    from trsr.hub.preflight import check_rights, is_ours

    hub = hub or HfApi()
    namespace, _, name = repo.partition("/")
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ReleaseError(f"--push-to-hub takes ORG/NAME, got {repo!r}: {error}") from None
    if not name:
        raise ReleaseError(f"--push-to-hub takes ORG/NAME, got {repo!r}.")
    of_script = " of the script that builds the dataset" if recommendations else ""
    for problem in (
        licences.problem(terms.license, f"--license{of_script}", f"the dataset {terms.name}"),
        languages.problem(terms.language, f"--language{of_script}", f"the dataset {terms.name}"),
    ):
        if problem:
            raise ReleaseError(problem)
    if not terms.share_text and not accept_data_licence:
        what = (
            "ids and summaries, which may quote items, are pushed, private and"
            if recommendations
            else "item ids, histories and summaries, which may quote items, are pushed, without item texts,"
        )
        raise ReleaseError(
            f"The licence of {terms.name} ({terms.license_name or terms.license}) does not allow to pass its texts on. "
            f"Read it; with --accept-data-licence, {what} behind a gate."
        )
    check_rights(hub, namespace)
    if not with_retries(f"Look at {repo}", lambda: hub.repo_exists(repo, repo_type="dataset")):
        return
    if not is_ours(hub, repo, "dataset"):
        raise ReleaseError(f"{repo} exists and is no dataset of LLM-TRSR. Choose another name.")
    info = with_retries(f"Look at {repo}", lambda: hub.dataset_info(repo))
    if not info.private and (private or _has_to_be_private(terms, recommendations)):
        way = "leave --private" if private else "choose another name"
        raise ReleaseError(f"{repo} exists and is public. Make it private in its settings, or {way}.")
    names = [file.rfilename for file in info.siblings or ()]
    kinds = {name.split("/")[0] == contract.RECOMMENDATIONS for name in names if name.endswith(".parquet")}
    if (not recommendations) in kinds:
        content = "a dataset" if recommendations else "recommendations"
        raise ReleaseError(f"{repo} holds {content}, which would be lost. Choose another name.")


def _has_to_be_private(terms: Terms, recommendations: bool) -> bool:
    """Recommendations hold summaries, which are made of the texts."""
    return recommendations and not terms.share_text


def push_if_requested(options: argparse.Namespace) -> None:
    """Push the dataset in --out, if --push-to-hub was given."""
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
    tables = contract.shared_tables(contract.tables(str(folder)), terms)
    contract.write(copy, tables, provenance=provenance, body=card.text, header={"tags": ["llm-trsr"]})
    return copy
