"""Ranking by llama.cpp's server from a release's GGUF files beside our scorer: candidates a CPU second, one thread on one core.

    python -m bench.llama_server RELEASE --server PATH --core 0 --out llama-server.json

The users are those of a split of the release's dataset, with all their candidates. The server is asked as `trsr verify` asks it:
token ids to /completion, a candidate at a time, so that its prompt cache holds what all candidates of a user share. All ways take
turns, user by user, each user beginning with another way.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from bench import report, workloads
from bench.measure import cpu_seconds_of, spread, steady
from bench.run import processor, write
from bench.serving import llama_server, llama_server_version
from trsr.cli.exits import exit_codes_for_errors
from trsr.core.scoring import Scorer
from trsr.dataset import contract
from trsr.errors import UsageError
from trsr.hub import endpoints, expected
from trsr.recommender.serving import load_recommender
from trsr.records.files import read_json
from trsr.records.versions import versions

METHOD = {
    "seconds": "CPU seconds of the process that computes: time.process_time here, utime and stime of a server",
    "candidates_a_cpu_second": "candidates of a user over seconds: median, smallest and largest over users",
    "ratio": "candidates a CPU second over those of the first way, of the same user",
    "difference": "of log-odds from those of the first way: the largest and the mean",
    "rounds": "each way once on the first user, not counted, then all ways in turn, user by user, in another order each",
    "prompt_cache": "a server keeps what the prompt shares with the one before, its default",
}
Rank = Callable[[dict[str, Any]], list[float]]  # prefix, suffixes -> log-odds
Clock = Callable[[], float]


def run(
    release: Path,
    out: Path,
    server: str,
    types: Sequence[str] = ("f16", "q8_0"),
    split: str = "validation",
    users: int = 10,
    core: int | None = None,
) -> dict[str, Any]:
    """Measure, and write the results file.

    Args:
        release: Folder with merged weights and GGUF files, as `trsr publish --out` writes it. Its code is executed.
        out: Results file.
        server: Path of llama.cpp's server.
        types: Of the GGUF files that are served.
        users: At most so many of the split, in its order.
        core: That all work is pinned to.

    Raises:
        UsageError: If the release holds no merged weights or no GGUF files, or a server does not start.
    """
    files = {kind: file for kind in types for file in (release / "gguf").glob(f"*-{kind}.gguf")}
    if len(files) < len(types) or not (release / "merged").is_dir():
        raise UsageError(
            f"{release} holds no merged weights, or not these GGUF files: trsr publish RUN --merged --gguf {' '.join(types)}"
        )
    server_says = llama_server_version(server)
    if core is not None:
        os.sched_setaffinity(0, {core})  # servers inherit it
    wanted = read_json(release / "pipeline" / expected.EXPECTED_FILE)
    requests, answers = of_users(release, split, users), wanted["answers"]
    with steady(), ExitStack() as stack:
        ways: dict[str, tuple[Rank, Clock]] = {}
        for dtype in (torch.float32, torch.bfloat16):
            model = AutoModelForCausalLM.from_pretrained(release / "merged", dtype=dtype).eval()
            scorer = Scorer(model, *(answers[name]["id"] for name in ("yes", "no")))
            name = f"ours, {scorer.plan}, merged weights in {str(dtype).removeprefix('torch.')}"
            ways[name] = (partial(_score, scorer), time.process_time)
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for kind, file in files.items():
            url, pid = stack.enter_context(llama_server(server, file, work / f"log-{kind}"))
            ways[f"llama-server, {kind}"] = (partial(_ask, url, answers), partial(cpu_seconds_of, pid))
        figures = take_turns(ways, requests)
        results = {
            "bench": "llama_server",
            "model": workloads.describe(wanted["made_from"]["base"], model) | {"dtype": "as the ways say"},
            "users": len(requests),
            "candidates": mean(len(request["suffixes"]) for request in requests),
            "prefix_tokens": round(mean(len(request["prefix"]) for request in requests), 1),
            "suffix_tokens": round(mean(len(suffix) for request in requests for suffix in request["suffixes"]), 1),
            "method": METHOD,
            "processor": processor(),
            "versions": versions() | {"llama-server": server_says},
            "ways": figures,
        }
    write(out, results)
    return results


def of_users(release: Path, split: str, users: int) -> list[dict[str, Any]]:
    """Token ids of the prompts of at most `users` users of a split, as the release makes them.

    Returns:
        `prefix` of each user, and `suffixes`, one for each of the candidates, the chosen item first.
    """
    recommender = load_recommender(str(release), device="cpu")
    encoder = recommender.encoder
    dataset = str(release / "dataset")
    config = recommender.model.config.trsr.get("method") or "histories"
    texts = contract.texts(dataset)
    requests = []
    for row in contract.read(dataset, config, split).to_list()[:users]:
        chosen = [texts[item_id] for item_id in [row["target"], *row["negatives"]]]
        request = {"history": [texts[item_id] for item_id in row["history"]], "candidates": chosen}
        read = recommender.preprocess(request | {"summary": row.get("summary")})
        suffixes = [encoder.suffix_ids(item) for item in read["candidates"]]
        prefix = encoder.prefix_ids(read["summary"], read["history"], max(map(len, suffixes)))
        requests.append({"prefix": prefix.ids, "suffixes": suffixes})
    return requests


def take_turns(ways: dict[str, tuple[Rank, Clock]], requests: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rank each user by each way.

    Returns:
        By way: `candidates_a_cpu_second`, `ratio`, `difference` and `seconds`, as METHOD explains them.
    """
    names = list(ways)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    log_odds: dict[str, list[list[float]]] = {name: [] for name in names}
    for rank, _ in ways.values():
        rank(requests[0])
    for turn, request in enumerate([*requests[1:], requests[0]]):  # no server holds the prompts of a user from before
        for name in [*names[turn % len(names) :], *names[: turn % len(names)]]:
            rank, clock = ways[name]
            began = clock()
            log_odds[name].append(rank(request))
            seconds[name].append(clock() - began)
    first = names[0]
    figures = {}
    for name in names:
        gaps = [
            abs(value - value_of_first)
            for user, user_of_first in zip(log_odds[name], log_odds[first], strict=True)
            for value, value_of_first in zip(user, user_of_first, strict=True)
        ]
        counts = [len(user) for user in log_odds[name]]
        figures[name] = {
            "candidates_a_cpu_second": spread([n / cost for n, cost in zip(counts, seconds[name], strict=True)]),
            "ratio": spread([base / cost for cost, base in zip(seconds[name], seconds[first], strict=True)]),
            "difference": {"max": float(f"{max(gaps):.2g}"), "mean": float(f"{mean(gaps):.2g}")},
            "seconds": round(sum(seconds[name]), 2),
        }
    return figures


def _score(scorer: Scorer, request: dict[str, Any]) -> list[float]:
    return scorer.log_odds(request["prefix"], request["suffixes"]).tolist()


def _ask(url: str, answers: dict[str, Any], request: dict[str, Any]) -> list[float]:
    [reply] = endpoints.ask("completion", url, "model", {"answers": answers, "requests": [request]})
    return reply.log_odds


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("release", type=Path, help="folder with merged weights and GGUF files, as `trsr publish --out` writes it")
    add("--server", required=True, metavar="PATH", help="llama.cpp's llama-server")
    add("--types", nargs="+", default=["f16", "q8_0"], metavar="TYPE", help="of the GGUF files (f16 q8_0)")
    add("--split", default="validation", help="of the release's dataset (%(default)s)")
    add("--users", type=int, default=10, help="of the split, at most (%(default)s)")
    add("--core", type=int, metavar="NUMBER", help="that all work is pinned to (wherever the system puts it)")
    add("--out", type=Path, default=Path("llama-server.json"), help="results file (%(default)s)")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = arguments().parse_args(words)
    with exit_codes_for_errors():
        results = run(
            options.release, options.out, options.server, options.types, options.split, options.users, options.core
        )
        print(f"{report.table(results)}\n\nWrote {options.out}")


if __name__ == "__main__":
    main()
