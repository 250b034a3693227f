"""Rank candidates for a history, or recommend from a catalogue. Request and answer are JSON.

A request is {"history": [...], "candidates": [...]}, where an item is a text or an object of fields; or a list of requests.
Without candidates the catalogue is ranked that the model carries: that of a run after `trsr retrieve fuse`, or of a repo
published with --retriever. A request may then hold "exclude": [ids or items] and "where": {field: value}.

examples:
  trsr recommend request.json --top-k 3
  echo '{"history": ["title: Emma"], "candidates": ["title: Persuasion", "title: Dracula"]}' | trsr recommend -
  trsr recommend request.json --model runs/mine
  trsr recommend request.json --model ORG/trsr-sample
  echo '{"history": [{"item_id": "b0"}, {"item_id": "b7"}]}' | trsr recommend - --model runs/mine --top-k 5
"""

import argparse
import json
import sys
from pathlib import Path

from trsr.errors import UsageError


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("request", help="JSON file, or - for stdin")
    parser.add_argument(
        "--model",
        help="run, release folder or pipeline repo; the code of a release or repo is executed (default: in the package)",
    )
    parser.add_argument("--method", choices=("recurrent", "hierarchical"))
    parser.add_argument("--summarizer", choices=("auto", "adapter", "base-model", "extractive", "none"), default="auto")
    parser.add_argument("--top-k", type=int, help="best candidates only (all)")
    parser.add_argument("--no-summary", action="store_true", help="leave the summary out of the answer")


def run(options: argparse.Namespace) -> None:
    text = sys.stdin.read() if options.request == "-" else Path(options.request).read_text(encoding="utf-8")
    try:
        request = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{options.request} is not JSON: {error}") from None
    from trsr.recommender.serving import load_recommender

    answer = load_recommender(options.model, device="cpu")(
        request,
        summarizer=None if options.summarizer == "none" else options.summarizer,
        method=options.method,
        top_k=options.top_k,
        return_summary=not options.no_summary,
    )
    print(json.dumps(answer, indent=2, ensure_ascii=False))
