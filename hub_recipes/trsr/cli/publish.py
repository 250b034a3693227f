"""Assemble a release, show what it would change on the Hub, and push it.

Without --push nothing on the Hub changes: the release folder is written, and a table of changes is shown. Run an interrupted
push again to complete it; a repo without changes gets no commit.

examples:
  trsr publish runs/mine --namespace ORG
  trsr publish runs/mine --namespace ORG --retriever runs/retriever --push --private --create-pr
  trsr publish runs/mine --namespace ORG --cross-encoder --merged --gguf f16 q8_0 --gguf-converter ../llama.cpp
  trsr publish runs/mine --namespace ORG --json | jq '.repos[].repo'
"""

import argparse
from pathlib import Path

from trsr.cli.outcome import Outcome, add_json


def add(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", type=Path, help="folder of a finished run, evaluated on validation and test")
    add("--namespace", required=True, metavar="ORG", help="user or organisation on the Hub")
    add("--name", help="of dataset, pipeline and Space; the adapter is NAME-lora (trsr-DATASET)")
    add("--push", action="store_true", help="push; without it nothing on the Hub changes")
    add("--tag", default="v1.0", help="tag to set after all commits (%(default)s)")
    add("--revision", default="main", metavar="BRANCH", help="branch to commit to (%(default)s)")
    add("--create-pr", action="store_true", help="open pull requests instead of committing")
    add(
        "--overwrite",
        action="store_true",
        help="commit over what others edited in our files on the Hub since our last commit",
    )
    add(
        "--private",
        action="store_true",
        help="create the repos private; public ones are refused, but for metrics and the nano base",
    )
    add(
        "--gated",
        choices=("auto", "manual"),
        help="gate dataset, adapter, its copies and a catalogue: users must accept the terms first",
    )
    add("--out", type=Path, help="release folder (RUN/release)")
    add("--dataset", help="the run's dataset, if it is no longer where the recipe says")
    add(
        "--retriever",
        type=Path,
        metavar="DIR",
        help="put the catalogue with this retriever's vectors into the pipeline, which then needs no candidates",
    )
    add(
        "--cross-encoder",
        action="store_true",
        help="also as a CrossEncoder of sentence-transformers: NAME-cross-encoder",
    )
    add("--merged", action="store_true", help="also with base and adapter merged into one model: NAME-merged")
    add(
        "--gguf",
        nargs="+",
        default=[],
        metavar="TYPE",
        help="also merged and as GGUF files, for llama.cpp: NAME-gguf; some of f32, f16, bf16, q8_0",
    )
    add(
        "--gguf-converter",
        type=Path,
        metavar="PATH",
        help="llama.cpp's convert_hf_to_gguf.py, or the checkout it lies in",
    )
    add(
        "--accept-base-licence",
        action="store_true",
        help="you have read the base's licence, and its weights (merged ones, or a base in a folder) may be passed on under it",
    )
    add("--license", help="of the weights (the base's)")
    add("--data-license", help="of the data, an identifier of the Hub (that in its provenance)")
    add("--data-license-name", help="with --data-license other: its name")
    add("--data-license-link", metavar="URL", help="with --data-license other: its web address")
    add("--language", nargs="+", metavar="CODE", help="ISO 639 codes of the items' text")
    add(
        "--accept-data-licence",
        action="store_true",
        help="you have read the terms of data whose texts may not be shared: ids, summaries and weights are published, gated",
    )
    add_json(parser)


def run(options: argparse.Namespace) -> Outcome:
    from trsr.hub.copies import Copies
    from trsr.hub.preflight import Options
    from trsr.hub.publish import publish

    push_options = Options(
        options.private, options.gated, options.revision, options.tag, options.create_pr, options.overwrite
    )
    data_terms = {
        "license": options.data_license,
        "license_name": options.data_license_name,
        "license_link": options.data_license_link,
        "language": tuple(options.language) if options.language else None,
    }
    result = publish(
        options.run,
        options.namespace,
        options.name,
        push_options,
        push=options.push,
        folder=options.out,
        dataset=options.dataset,
        license=options.license,
        terms={name: value for name, value in data_terms.items() if value},
        accept_data_licence=options.accept_data_licence,
        retriever=options.retriever,
        copies=Copies(options.cross_encoder, options.merged, tuple(options.gguf), options.gguf_converter),
        accept_base_licence=options.accept_base_licence,
    )
    return Outcome(result, "")  # `publish` has printed all
