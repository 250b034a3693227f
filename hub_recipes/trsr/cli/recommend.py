"""Rank candidates for a history, or recommend from a catalogue. Request and answer are JSON.

A request is {"history": [...], "candidates": [...]}, where an item is a text or an object of fields; or a list of requests.
Without candidates the catalogue is ranked that the model carries: that of a run after `trsr retrieve fuse`, or of a repo
published with --retriever. A request may then hold "exclude": [ids or items] and "where": {field: value}.

examples:
  echo '{"history": ["title: Emma"], "candidates": ["title: Persuasion", "title: Dracula"]}' | trsr recommend -
  trsr recommend request.json --model runs/mine --top-k 3
  trsr recommend --all-users --dataset data/mine --retriever runs/retriever --first-stage-only --out recommendations
  trsr recommend --all-users --dataset data/mine --model runs/mine --out recommendations --push-to-hub ORG/NAME
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trsr.cli import cluster_options
from trsr.cli.numbers import positive
from trsr.cli.outcome import Outcome, add_json, finite
from trsr.errors import TrsrError, UsageError
from trsr.hub import push_options

_OF_A_PUSH = ("private", "overwrite", "accept_data_licence")
_OF_ALL_USERS = (
    *("dataset", "revision", "out", "retriever", "first_stage_only", "limit", "push_to_hub", *_OF_A_PUSH),
    *("ray", "ray_address", "workers", "ray_gpus_per_worker"),
)


def add(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("request", nargs="?", help="JSON file, or - for stdin")
    add(
        "--model",
        help="run, release folder or pipeline repo; the code of a release or repo is executed (default: in the package)",
    )
    add("--method", choices=("recurrent", "hierarchical"))
    add("--summarizer", choices=("auto", "adapter", "base-model", "extractive", "none"), default="auto")
    add("--top-k", type=positive(int), help="best candidates only (all; with --all-users 10)")
    add("--no-summary", action="store_true", help="leave the summary out of the answer")
    group = parser.add_argument_group(
        "all users of a dataset",
        "What comes after everything that the dataset knows of a user, the target of the newest row included; nothing that the "
        "user met in any row. A killed command goes on with the shard that it was at.",
    )
    add = group.add_argument
    add("--all-users", action="store_true", help="recommend to each user of --dataset, and write --out")
    add("--dataset", help="folder or Hub id with the configs items and histories")
    add("--revision", help="of the dataset")
    add("--out", type=Path, metavar="RECS", help="folder to write: a dataset of a row a user")
    add("--retriever", type=Path, metavar="DIR", help="on that dataset (the catalogue that the model carries)")
    add(
        "--stage-one",
        type=positive(int),
        metavar="N",
        help="items that the language model ranks for each user (as many as the first stage's weight was fitted with, else 100; or "
        "--top-k, where that is more)",
    )
    add("--first-stage-only", action="store_true", help="leave out the language model")
    add("--limit", type=positive(int), metavar="N", help="first N users only")
    push_options.add(group, "them, with a card")
    group = parser.add_argument_group(
        "many machines, or many GPUs",
        "Workers of Ray make the shards of --all-users; the result is the same. On a cluster: ray job submit -- trsr recommend "
        "--all-users ... --ray --ray-address auto.",
    )
    cluster_options.add(group, workers="recommenders")
    add_json(parser)


def run(options: argparse.Namespace) -> Outcome:
    return _all_users(options) if options.all_users else _one_request(options)


def _all_users(options: argparse.Namespace) -> Outcome:
    if options.request or not options.dataset or not options.out:
        raise UsageError("--all-users takes --dataset and --out, and no request.")
    if options.method or options.no_summary or options.summarizer != "auto":
        raise UsageError(
            "--method, --summarizer and --no-summary go with a request. With --all-users the model summarises as it was published."
        )
    if not options.push_to_hub:
        _refuse(options, _OF_A_PUSH, "--push-to-hub")
    on_ray = cluster_options.given(options)
    from trsr.dataset import contract
    from trsr.hub.push_dataset import check_push, push_dataset
    from trsr.retrieval.all_users import recommend_to_all

    pushed = {
        "recommendations": True,
        "private": options.private,
        "accept_data_licence": options.accept_data_licence,
    }
    if options.push_to_hub:  # now, and not after hours of work
        check_push(contract.provenance(options.dataset, options.revision).terms, options.push_to_hub, **pushed)
    chosen = {"top_k": options.top_k, "stage_one": options.stage_one, "limit": options.limit}
    record = recommend_to_all(
        options.dataset,
        options.out,
        model=options.model,
        retriever=options.retriever,
        revision=options.revision,
        first_stage_only=options.first_stage_only,
        repo=options.push_to_hub,
        ray=on_ray if options.ray else None,
        **{name: value for name, value in chosen.items() if value is not None},
    )
    if options.push_to_hub:
        record["commit"] = push_dataset(options.out, options.push_to_hub, overwrite=options.overwrite, **pushed)
    return Outcome(
        record,
        f"Wrote {options.out}: {record['items']:,} items for {record['users']:,} users, {record['new_users']:,} of them now, in "
        f"{record['seconds']:g} s; {record['users_a_second']:g} users and {record['items_a_second']:,} scored items a second, at most "
        f"{record['peak_mib']:g} MiB",
    )


def _one_request(options: argparse.Namespace) -> Outcome:
    _refuse(options, _OF_ALL_USERS, "--all-users")
    if not options.request:
        raise UsageError("Give a request, or --all-users with --dataset and --out.")
    content = sys.stdin.buffer.read() if options.request == "-" else Path(options.request).read_bytes()
    try:
        request = json.loads(content)  # in UTF-8 or UTF-16, as PowerShell writes files, with a mark or without
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{options.request} is not JSON in UTF-8 or UTF-16: {error}") from None
    from trsr.recommender.serving import load_recommender

    recommender = load_recommender(options.model, device="cpu")
    try:
        answer = recommender(
            request,
            summarizer=None if options.summarizer == "none" else options.summarizer,
            method=options.method,
            top_k=options.top_k,
            return_summary=not options.no_summary,
            **({"stage_one": options.stage_one} if options.stage_one else {}),
        )
    except Exception as error:
        # The code of a repo has its own class of this name.
        if TrsrError.__name__ in [kind.__name__ for kind in type(error).__mro__]:
            raise UsageError(str(error)) from error
        raise
    return Outcome(
        answer if isinstance(answer, dict) else {"answers": answer},
        _printable(finite(answer), sys.stdout.encoding or "utf-8"),
    )


def _refuse(options: argparse.Namespace, names: Sequence[str], needed: str) -> None:
    """Raise UsageError if any of these options was given: without the option `needed` it would do nothing."""
    if used := [name for name in names if getattr(options, name)]:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in used)
        raise UsageError(f"{flags} {'go' if len(used) > 1 else 'goes'} with {needed}: add it.")


def _printable(answer: Any, encoding: str) -> str:
    """An answer as JSON: with the characters themselves, or escaped where a terminal or file cannot show them."""
    text = json.dumps(answer, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(answer, indent=2, allow_nan=False)
    return text
