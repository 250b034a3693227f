"""Hold a release, wherever it lies or is served, against what it should answer.

A release carries expected.json: some requests with log-odds and summaries. TARGET is asked the same: a folder or a repo, which is
loaded in a fresh process, or a server. What differs is printed, and what is likely wrong. Exit code: 0 where all is right, else 1.

A server gets OPENAI_API_KEY as its key, if that is set: over https whichever server it is, over plain http only on this machine.

examples:
  trsr verify trsr-quickstart/release
  trsr verify ORG/trsr-sample --revision v1.0
  trsr verify http://127.0.0.1:8000 --expected ORG/trsr-sample
  trsr verify http://127.0.0.1:8000 --expected ORG/trsr-sample --api generative_scoring --model trsr
"""

import argparse

from trsr.cli.exits import Exit
from trsr.cli.outcome import Outcome, add_json
from trsr.hub.endpoints import APIS


def add(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "target",
        help="pipeline or release folder, Hub id, or http://... of a server; the code of a release or repo is executed",
    )
    add("--expected", metavar="SOURCE", help="release or repo that holds expected.json, or the file (TARGET)")
    add(
        "--api",
        choices=list(APIS),
        help="endpoint of a server: transformers serve, vLLM, SGLang, llama.cpp, OpenAI's older one (systemone)",
    )
    add("--model", help="as the server calls it (SOURCE)")
    add("--revision", help="of the repo TARGET; where TARGET is a server, of the repo --expected")
    add("--tolerance", type=float, help="largest difference in log-odds (0.001; 0.25 for weights in half precision)")
    add_json(parser)


def run(options: argparse.Namespace) -> Outcome:
    from trsr.hub.verify import verify
    from trsr.report import markdown

    result = verify(
        options.target,
        known=options.expected,
        api=options.api,
        model=options.model,
        revision=options.revision,
        tolerance=options.tolerance,
    )
    rows = [
        [str(number), *(" ".join(f"{value:.2f}" for value in row[name]) for name in ("expected", "given"))]
        for number, row in enumerate(result["rows"], 1)
    ]
    text = "\n\n".join(
        [
            markdown.table(["request", "log-odds expected", "given"], rows),
            "\n".join(result["said"]),
            f"Largest difference {result['difference']:.2g}, allowed {result['tolerance']:g}: "
            + ("right." if result["right"] else "NOT right."),
        ]
    )
    return Outcome(result, text, Exit.SUCCESS if result["right"] else Exit.PROBLEMS_FOUND)
