"""Add summaries to a dataset, with an extractive summariser or a language model.

Every generation is kept once, so a killed run goes on and a published dataset is a cache for others.

examples:
  trsr summarize data/mine --out data/mine-summaries
  trsr summarize data/mine --out data/mine-s --engine openai:MODEL --estimate --price-in 0.1 --price-out 0.4
  trsr summarize data/mine --out data/mine-s --engine openai:MODEL --base-url http://localhost:8000/v1 --concurrency 64
  trsr summarize data/mine --out data/mine-s --engine transformers:bases/smollm2 --prompts small
"""

import argparse
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from trsr.cli import cluster_options
from trsr.cli.exits import Exit
from trsr.cli.numbers import count, positive, seed
from trsr.cli.outcome import Outcome, add_json
from trsr.core.summary_prompts import SMALL_SAMPLING
from trsr.errors import UsageError

# Counts of the provenance that are printed.
REPORTED = ("limit", "calls", "asked", "reused", "retried", "rejected", "reasoning_removed", "fallen_back", "tokens")
# Questions that an engine in this process is put for an estimate of its time.
MEASURED = 8
RATES = ("price_in", "price_out", "calls_per_second", "concurrency", "latency")
# Options that other engines, or a run that is no estimate, would pass over; and their defaults, where those are not None.
OF_SERVERS = ("base_url", "extra_body", "same_model", "timeout")
OF_MODELS = ("max_new_tokens", "temperature", "seed", "repetition_penalty", "answer_penalty", "store", "keep_going")
OF_ESTIMATES = ("price_in", "price_out", "calls_per_second", "latency", "answer_tokens", "tokenizer")
DEFAULTS = {
    "extra_body": {},
    "same_model": False,
    "timeout": 120.0,
    "concurrency": 32,
    "temperature": 0.0,
    "seed": 0,
    "repetition_penalty": 1.0,
    "keep_going": False,
    "questions": Path("questions.parquet"),
}


def add(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("dataset", help="folder or Hub id with the configs items and histories; or: sample")
    add("--out", type=Path, required=True, help="dataset folder to write")
    add(
        "--engine",
        default="extractive",
        help="extractive, nano (the model in the package), transformers:MODEL, openai:MODEL (a server) or vllm:MODEL "
        "(elsewhere) (%(default)s)",
    )
    add("--engine-revision", help="revision of the engine's model")
    add(
        "--adapter", type=Path, metavar="DIR", help="for transformers:MODEL: what train-summarizer wrote, on this MODEL"
    )
    add(
        "--prompts",
        choices=("default", "small"),
        default="default",
        help="small: worked examples and one fixed line for an answer, for models of less than a billion parameters; it "
        f"changes the sampling to {SMALL_SAMPLING['max_new_tokens']} new tokens and an answer penalty of {SMALL_SAMPLING['answer_penalty']}, "
        "where not given (%(default)s)",
    )
    add("--method", choices=("recurrent", "hierarchical", "both"), default="both")
    add("--block-size", type=positive(int), default=5, help="items a block (%(default)s)")
    add("--max-blocks", type=positive(int), default=5, help="newest blocks kept (%(default)s)")
    add("--revision", help="revision of the dataset")
    add(
        "--limit",
        type=count,
        default=0,
        metavar="N",
        help="first N users of each split, to try; 0 is all (%(default)s)",
    )
    add("--keep-going", action="store_true", help="do not stop where most answers are no summaries")
    add_json(parser)
    add = parser.add_argument_group("sampling").add_argument
    add("--max-new-tokens", type=positive(int), help="longest summary in tokens (160)")
    add(
        "--temperature",
        type=float,
        default=DEFAULTS["temperature"],
        help="0 is greedy; answers put again are never greedy (%(default)s)",
    )
    add("--seed", type=seed, default=DEFAULTS["seed"], help="of what is drawn (%(default)s)")
    add(
        "--repetition-penalty",
        type=float,
        default=DEFAULTS["repetition_penalty"],
        help="for transformers:MODEL; 1 is none (%(default)s)",
    )
    add(
        "--answer-penalty", type=float, help="the same of what the answer itself repeats, not of the prompt's words (1)"
    )
    add = parser.add_argument_group("servers, for openai:MODEL; the key is read from OPENAI_API_KEY").add_argument
    add("--base-url", metavar="URL", help="such as http://localhost:8000/v1 (Inference Providers)")
    add("--concurrency", type=int, default=DEFAULTS["concurrency"], help="requests at a time (%(default)s)")
    add("--timeout", type=float, default=DEFAULTS["timeout"], help="seconds until a request is given up (%(default)s)")
    add(
        "--same-model", action="store_true", help="go on although a store has answers of another --base-url: same model"
    )
    add(
        "--extra-body",
        type=json.loads,
        default={},
        metavar="JSON",
        help="more fields of every request; recorded with the answers, so no keys",
    )
    add = parser.add_argument_group("what was generated before").add_argument
    add("--store", type=Path, help="file of generations that a killed run goes on from (OUT.store.sqlite)")
    add("--since", metavar="DATASET", help="continue its summaries: only blocks that changed are asked for")
    add("--cache", action="append", default=[], metavar="SOURCE", help="dataset, folder or Parquet file of generations")
    add("--export-cache", type=Path, metavar="DIR", help="write the generations that were used as a dataset")
    add("--questions", type=Path, default=DEFAULTS["questions"], help="for vllm:MODEL: file to write (%(default)s)")
    group = parser.add_argument_group(
        "many machines, or many GPUs",
        "Ray Data runs the engine on workers; the result is the same. On a cluster: ray job submit -- trsr summarize ... "
        "--ray --ray-address auto. On HF Jobs: hub_recipes/jobs/summarize.py with --ray, launched --with 'ray[data]'.",
    )
    cluster_options.add(group, workers="engines", gpus="for transformers:MODEL ", partitions=True)
    add = parser.add_argument_group("what it would cost").add_argument
    add(
        "--estimate",
        action="store_true",
        help="print calls, tokens, seconds and price as JSON, and write nothing; for the seconds, an engine in this process "
        f"is asked {MEASURED} questions, and no server any",
    )
    add("--price-in", type=float, help="of a million input tokens")
    add("--price-out", type=float, help="of a million output tokens")
    add("--calls-per-second", type=float, help="of the whole engine")
    add("--latency", type=float, help="seconds a call, at --concurrency calls at a time")
    add("--answer-tokens", type=positive(int), help="of an answer (--max-new-tokens, which is the most)")
    add("--tokenizer", help="folder or Hub id to count with (a token is taken to be 4 characters)")


def run(options: argparse.Namespace) -> Outcome:
    from trsr.core.summarize import METHODS
    from trsr.records.provenance import SummaryProvenance
    from trsr.summaries.engines.base import Sampling, Server
    from trsr.summaries.engines.make import engine
    from trsr.summaries.run import OpenQuestions, summarize_dataset

    if not isinstance(options.extra_body, dict):
        raise UsageError(f"--extra-body must be a JSON object, got {options.extra_body!r}.")
    _check_in_use(options)
    prompts_sampling = SMALL_SAMPLING if options.prompts == "small" else {}
    in_process_sampling = prompts_sampling if options.engine.startswith("transformers:") else {}
    sampling = Sampling(
        int(prompts_sampling.get("max_new_tokens", 160)) if options.max_new_tokens is None else options.max_new_tokens,
        options.temperature,
        options.seed,
        options.extra_body,
        options.repetition_penalty,
        in_process_sampling.get("answer_penalty", 1.0) if options.answer_penalty is None else options.answer_penalty,
    )
    server = Server(options.base_url, options.concurrency, options.timeout, same_model=options.same_model)
    make = partial(
        engine,
        options.engine,
        options.engine_revision,
        sampling,
        server,
        options.questions,
        options.prompts,
        options.adapter,
    )
    chosen = make()
    if options.adapter:
        from trsr.recommender.summarizer.trained_on import warn_of_other_users

        warn_of_other_users(options.adapter, options.dataset, options.revision)
    on_ray = cluster_options.given(options)
    if options.ray and options.since:
        raise UsageError("--since asks for new blocks alone, without Ray: leave out one of --since and --ray.")
    settings = {
        "methods": METHODS if options.method == "both" else (options.method,),
        "block_size": options.block_size,
        "max_blocks": options.max_blocks,
        "revision": options.revision,
        "store": options.store if chosen.cacheable else None,
        "caches": options.cache,
        "limit": options.limit,
    }
    if options.estimate:
        from trsr.summaries.estimate import Rates, estimate, token_count
        from trsr.summaries.store import default_store

        rates = Rates(**{name: getattr(options, name) for name in RATES})
        tokens = options.answer_tokens or sampling.max_new_tokens
        settings["store"] = options.store or default_store(options.out)
        cost = estimate(
            options.dataset,
            chosen,
            rates,
            answer_tokens=tokens,
            count=token_count(options.tokenizer),
            since=options.since,
            measure=MEASURED if chosen.in_process else 0,
            **settings,
        )
        return Outcome(cost, json.dumps(cost, indent=2))
    settings |= {"export": options.export_cache, "keep_going": options.keep_going}
    asked_twice: dict[str, int] = {}
    try:
        if options.ray:
            from trsr.summaries.ray import summarize_on_ray

            provenance, asked_twice["asked_twice"] = summarize_on_ray(
                options.dataset, options.out, make, **on_ray, **settings
            )
        else:
            provenance = summarize_dataset(options.dataset, options.out, chosen, since=options.since, **settings)
    except OpenQuestions as left:  # no mistake, but no dataset either
        return Outcome({"questions": str(options.questions)}, str(left), Exit.SUMMARIES_MISSING)
    counts = {name: provenance["summaries"][name] for name in REPORTED if name in provenance["summaries"]} | asked_twice
    if "fallen_back" in counts:
        counts["fallen_back"] = SummaryProvenance(provenance["summaries"]).fallen_back
    return Outcome(
        {"out": str(options.out), **counts},
        f"Wrote {options.out}: {json.dumps(counts)}{_losses(provenance['summaries'])}",
    )


def _check_in_use(options: argparse.Namespace) -> None:
    """Raise UsageError for options that the engine, or a run without --estimate, would pass over."""
    kind = options.engine.partition(":")[0]
    for use, in_use, names in (
        ("--engine openai:MODEL", kind == "openai", OF_SERVERS),
        ("--engine openai:MODEL or --estimate", kind == "openai" or options.estimate, ("concurrency",)),
        ("--engine vllm:MODEL", kind == "vllm", ("questions",)),
        ("an --engine that has a model", kind != "extractive", OF_MODELS),
        ("--estimate", options.estimate, OF_ESTIMATES),
    ):
        changed = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) != DEFAULTS.get(name)]
        if changed and not in_use:
            flags = ", ".join(changed)
            raise UsageError(
                f"{flags} {'go' if len(changed) > 1 else 'goes'} with {use}: add it, or leave out {flags}."
            )


def _losses(record: Mapping[str, Any]) -> str:
    """What became of answers that were no summaries, a sentence a line."""
    from trsr.records.provenance import SummaryProvenance
    from trsr.summaries.failures import remedy

    said = [f"Of the users, the first {record['limit']:,} of each split."] if "limit" in record else []
    if rejected := record.get("rejected"):
        said.append(f"{sum(rejected.values()):,} answers were no summaries: {_counted(rejected)}.")
    summaries = SummaryProvenance(record)
    if fallen := summaries.fallen_back:
        calls = sum(record["calls"].values())
        number = f"{'at most ' * summaries.continues_others}{min(sum(fallen.values()), calls):,}"
        said.append(
            f"The extractive summarizer wrote {number} of {calls:,} summaries in their "
            f"place: {_counted(fallen)}. To have fewer, {remedy(max(fallen, key=fallen.__getitem__), record['sampling'])}."
        )
    if record.get("reasoning_removed"):
        said.append(f"Reasoning was taken out of the answers behind {record['reasoning_removed']:,} summaries.")
    return "".join(f"\n{line}" for line in said)


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{why} {count:,}" for why, count in sorted(reasons.items(), key=lambda pair: -pair[1]))
