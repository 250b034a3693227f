"""Summaries by a server beside the same model in this process: greedy answers word for word, and tokens a second.

    python -m bench.server data/goodbooks SmolLM2-135M-Instruct --base-url http://127.0.0.1:8000/v1 \\
        --server "llama-cpp-python, Q4_1" --extra-body '{"repeat_penalty": 1.0}'

Every question is about a user's first block, so that all are the same for both. Where answers part, a server that computes as
this process does would choose the same word; one with quantised weights or activations may choose another where two words are
about as likely: `margin` says how far apart they were.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch

from bench import report, workloads
from bench.measure import cpu_seconds_of
from bench.run import processor, write
from trsr.cli.exits import exit_codes_for_errors
from trsr.core.answer import Answer
from trsr.core.history import clean
from trsr.core.prompts import Encoder
from trsr.core.summarize import SummaryRequest
from trsr.core.summary_prompts import SummaryPrompts
from trsr.errors import UsageError
from trsr.records.versions import versions
from trsr.summaries.engines.base import Engine, Sampling, Server
from trsr.summaries.engines.make import engine
from trsr.summaries.run import ParsedItems, read, users

WARM_UP = 2  # questions before those that are timed
METHOD = {
    "seconds": "of the clock; of a busy machine they say little; requests at a time are about other users than those one by one",
    "cpu_seconds": "of the process that computes, with --pid of the server's too",
    "equal": "part of the answers that are the same, word for word",
    "opening": "part of the words before the first difference, on average",
    "margin": "difference of two logits in this process, median: of the two words where answers part, and of the two likeliest "
    "words at every place of every answer",
}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Ask both, and write `options.out`."""
    sampling = Sampling(options.max_new_tokens)
    here = engine(f"transformers:{options.model}", sampling=sampling)
    served = engine(
        f"openai:{options.served_as}",
        sampling=Sampling(options.max_new_tokens, extra=options.extra_body),
        server=Server(options.base_url, options.at_a_time, options.timeout),
    )
    # A server keeps what it computed for earlier questions: none is asked of it twice.
    all_questions = first_blocks(options.dataset, options.users + WARM_UP + max(1, options.users // 3))
    warm_up, few = all_questions[options.users : options.users + WARM_UP], all_questions[options.users + WARM_UP :]
    questions = all_questions[: options.users]
    for each in (here, served):
        asyncio.run(_ask(each, warm_up, WARM_UP))  # loads it
    ours, inside = timed(here, questions, here.batch, None)
    theirs, alone = timed(served, questions, 1, options.pid)
    _, together = timed(served, few, options.at_a_time, options.pid)
    model, tokenizer = workloads.load(options.model, 0)
    results = {
        "bench": "server",
        "model": workloads.describe(Path(options.model).name, model),
        "server": options.server,
        "extra_body": options.extra_body,
        "users": len(questions),
        "max_new_tokens": options.max_new_tokens,
        "method": METHOD,
        "processor": processor(),
        "versions": versions(),
        "same_prompt": _share(
            our_answer.prompt_tokens == their_answer.prompt_tokens
            for our_answer, their_answer in zip(ours, theirs, strict=True)
        ),
        **compared(model, Encoder(tokenizer), questions, ours, theirs),
        "ways": {
            f"transformers, batches of {here.batch}": inside,
            "server, 1 at a time": alone,
            f"server, {options.at_a_time} at a time": together,
        },
    }
    write(options.out, results)
    return results


def first_blocks(dataset: str, count: int) -> list[SummaryRequest]:
    """Questions about the oldest five items of the first `count` test users. Raises UsageError if there are fewer."""
    texts, splits = read(dataset)
    items = ParsedItems(texts)
    if len(splits["test"]) < count:
        raise UsageError(
            f"{dataset} has {len(splits['test'])} test users, and {count} are needed, as some warm up and others are asked about at "
            "once. Give fewer --users."
        )
    chosen = splits["test"].select(range(count))
    return [SummaryRequest("block", block=items.blocks(history, 5)[0]) for _, history in users({"test": chosen})]


def timed(
    asked: Engine, questions: Sequence[SummaryRequest], at_a_time: int, pid: int | None
) -> tuple[list[Answer], dict[str, Any]]:
    """Answers, and what they cost: CPU seconds are those of this process where it computes, or of the process `pid`."""
    began, cpu = time.perf_counter(), _cpu_seconds(asked, pid)
    answers = asyncio.run(_ask(asked, questions, at_a_time))
    seconds = time.perf_counter() - began
    cost: dict[str, Any] = {"answers": len(answers), "seconds": round(seconds, 1)}
    tokens = sum(answer.completion_tokens for answer in answers)
    cost |= {"tokens": tokens, "tokens_a_second": round(tokens / seconds, 1)}
    if cpu is not None:
        spent = (_cpu_seconds(asked, pid) or 0) - cpu
        cost |= {"cpu_seconds": round(spent, 1), "tokens_a_cpu_second": round(tokens / max(spent, 0.01), 1)}
    return answers, cost


def _cpu_seconds(backend: Engine, pid: int | None) -> float | None:
    if backend.in_process:
        return time.process_time()
    if pid is None:
        return None
    return cpu_seconds_of(pid)


async def _ask(backend: Engine, questions: Sequence[SummaryRequest], at_a_time: int) -> list[Answer]:
    """First answers, so many at a time; a batch is one call."""
    requests = [backend.request(question) for question in questions]
    step = min(backend.batch, at_a_time)
    parts = [requests[start : start + step] for start in range(0, len(requests), step)]
    gate = asyncio.Semaphore(at_a_time // step)

    async def ask(part) -> list[Answer]:
        async with gate:
            return [answer or Answer("", failure="none") for answer in await backend.answers(part)]

    try:
        return [answer for answers in await asyncio.gather(*map(ask, parts)) for answer in answers]
    finally:
        await backend.close(succeeded=True)


@torch.no_grad()
def compared(
    model, encoder: Encoder, questions: Sequence[SummaryRequest], ours: Sequence[Answer], theirs: Sequence[Answer]
) -> dict[str, Any]:
    """How far the answers agree, and how near the model was to the other word where they part."""
    openings, parted, everywhere = [], [], []
    for question, our_answer, their_answer in zip(questions, ours, theirs, strict=True):
        left, right = clean(our_answer.text).split(), clean(their_answer.text).split()
        openings.append(_common(left, right) / max(len(left), len(right), 1))
        ids, others = (encoder.text_ids(answer.text) for answer in (our_answer, their_answer))
        if not ids:
            continue
        prompt = encoder.request_ids(SummaryPrompts().text(question))
        logits = model(input_ids=torch.tensor([prompt + ids[:-1]]), use_cache=False).logits[0, len(prompt) - 1 :]
        best = logits.topk(2).values  # (answer tokens, 2)
        everywhere += (best[:, 0] - best[:, 1]).tolist()
        if (position := _common(ids, others)) < min(len(ids), len(others)):
            parted.append((logits[position, ids[position]] - logits[position, others[position]]).item())
    margin = {"where_they_part": _median(parted), "everywhere": _median(everywhere)}
    equal = _share(
        clean(our_answer.text) == clean(their_answer.text)
        for our_answer, their_answer in zip(ours, theirs, strict=True)
    )
    return {"equal": equal, "opening": round(statistics.mean(openings), 3), "margin": margin}


def _common(left: Sequence, right: Sequence) -> int:
    """How many elements two lists begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))


def _share(flags) -> float:
    return round(statistics.mean(map(float, flags)), 3)


def _median(values: Sequence[float]) -> float | None:
    return round(statistics.median(values), 3) if values else None


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("dataset", help="folder or Hub id with the configs items and histories")
    add("model", help="folder or Hub id of the model that the server serves")
    add("--base-url", required=True, metavar="URL", help="of the server")
    add("--served-as", default="model", metavar="NAME", help="what the server calls the model (%(default)s)")
    add("--server", default="", metavar="TEXT", help="what serves which file, for the record")
    add("--pid", type=int, help="of the server, on this machine: for its CPU seconds")
    add("--extra-body", type=json.loads, default={}, metavar="JSON", help="more fields of every request")
    add("--users", type=int, default=50, help="(%(default)s)")
    add("--at-a-time", type=int, default=8, help="requests, for a third of the users (%(default)s)")
    add("--max-new-tokens", type=int, default=96, help="(%(default)s)")
    add("--timeout", type=float, default=300, help="seconds until a request is given up (%(default)s)")
    add("--out", type=Path, default=Path("bench-server.json"), help="results file (%(default)s)")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = arguments().parse_args(words)
    with exit_codes_for_errors():
        print(f"{report.table(run(options))}\n\nWrote {options.out}")


if __name__ == "__main__":
    main()
