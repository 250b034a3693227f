"""`trsr <verb>`: reads the command line, and imports what a verb needs only when it runs."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from trsr import __version__

EXAMPLES = """examples:
  trsr quickstart                                   the whole method on the sample, in minutes
  trsr summarize DATASET --out DIR                  add summaries to a dataset
  trsr check DIR                                    what would spoil training or evaluation on it
  trsr audit DIR                                    what its summaries say, leave out and invent
  trsr train nano-sample dataset=DIR seed=1         fine-tune by recipe
  trsr evaluate runs/nano-sample                    rank the test candidates, beside simple peers
  trsr compare runs/a/test runs/b/test              intervals, paired tests, slices, plots
  trsr recommend request.json                       rank for your own JSON
  trsr demo                                         the Space's page, on this machine
  trsr publish runs/nano-sample --namespace ORG     show what a release would change on the Hub
"""


def command_line() -> argparse.ArgumentParser:
    """All verbs and their options; what a verb does is the `act` of what is read."""
    parser = argparse.ArgumentParser(
        prog="trsr",
        description="LLM-TRSR: text-rich sequential recommendation with LLM summaries.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"trsr {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    _quickstart(verbs.add_parser("quickstart", help="the whole method on the shipped sample"))
    _summarize(verbs.add_parser("summarize", help="add summaries to a dataset"))
    _check(verbs.add_parser("check", help="look for what breaks the contract or leaks the answer"))
    _audit(verbs.add_parser("audit", help="what the summaries say, leave out and invent"))
    _train(verbs.add_parser("train", help="fine-tune by recipe"))
    _evaluate(verbs.add_parser("evaluate", help="rank the released candidates and measure"))
    _compare(verbs.add_parser("compare", help="several evaluations of the same candidates"))
    _recommend(verbs.add_parser("recommend", help="rank candidates for your own JSON"))
    _demo(verbs.add_parser("demo", help="serve the Space's page on this machine"))
    _publish(verbs.add_parser("publish", help="show a release, and push it to the Hub"))
    _pretrain(verbs.add_parser("pretrain", help="train the nano base from scratch"))
    _bench(verbs.add_parser("bench", help="measure what shared prefixes save"))
    verbs.add_parser("recipes", help="list the recipes").set_defaults(act=_list_recipes)
    _doctor(verbs.add_parser("doctor", help="look at versions, device, disk and the Hub"))
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run a verb; a user's mistake ends in one message and exit code 2."""
    options = command_line().parse_args(arguments)
    # Workers of tokenizers and data loaders fork; the warning about it helps nobody here.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        options.act(options)
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError) as error:
        # Our errors are ValueErrors that say what to do; files that cannot be read or written are OSErrors.
        if os.environ.get("TRSR_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _positive(kind: type) -> Callable[[str], float]:
    """Reads a number above 0."""

    def read(text: str) -> float:
        if (number := kind(text)) <= 0:
            raise argparse.ArgumentTypeError(f"must be more than 0, got {text}")
        return number

    read.__name__ = kind.__name__  # argparse names it in its message
    return read


def _quickstart(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("trsr-quickstart"), help="folder to write (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of training and evaluation (%(default)s)")

    def run(options: argparse.Namespace) -> None:
        from trsr.quickstart import quickstart

        quickstart(options.out, options.seed)

    parser.set_defaults(act=run)


def _summarize(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("dataset", help="folder or Hub id with the configs items and histories; or: sample")
    add("--out", type=Path, required=True, help="dataset folder to write")
    add(
        "--engine",
        default="extractive",
        help="extractive, transformers:MODEL, openai:MODEL (a server) or vllm:MODEL (elsewhere) (%(default)s)",
    )
    add("--engine-revision", help="revision of the engine's model")
    add("--method", choices=("recurrent", "hierarchical", "both"), default="both")
    add("--block-size", type=int, default=5, help="items a block (%(default)s)")
    add("--max-blocks", type=int, default=5, help="newest blocks kept (%(default)s)")
    add("--revision", help="revision of the dataset")
    add = parser.add_argument_group("sampling").add_argument
    add("--max-new-tokens", type=int, default=160, help="longest summary in tokens (%(default)s)")
    add("--temperature", type=float, default=0.0, help="0 is greedy; answers put again are never greedy (%(default)s)")
    add("--seed", type=int, default=0, help="of what is drawn (%(default)s)")
    add = parser.add_argument_group("servers, for openai:MODEL; the key is read from OPENAI_API_KEY").add_argument
    add("--base-url", metavar="URL", help="such as http://localhost:8000/v1 (Inference Providers)")
    add("--concurrency", type=int, default=32, help="requests at a time (%(default)s)")
    add("--timeout", type=float, default=120, help="seconds until a request is given up (%(default)s)")
    add("--extra-body", type=json.loads, default={}, metavar="JSON", help="more fields of every request")
    add = parser.add_argument_group("what was generated before").add_argument
    add("--store", type=Path, help="file of generations that a killed run goes on from (OUT.store.sqlite)")
    add("--since", metavar="DATASET", help="continue its summaries: only blocks that changed are asked for")
    add("--cache", action="append", default=[], metavar="SOURCE", help="dataset, folder or Parquet file of generations")
    add("--export-cache", type=Path, metavar="DIR", help="write the generations that were used as a dataset")
    add("--questions", type=Path, default=Path("questions.parquet"), help="for vllm:MODEL: file to write (%(default)s)")
    add = parser.add_argument_group(
        "many machines, or many GPUs",
        "Ray Data runs the engine on workers; the result is the same. On a cluster: ray job submit -- trsr summarize ... "
        "--ray --ray-address auto. On HF Jobs: hub_recipes/jobs/summarize.py with --ray, launched --with 'ray[data]'.",
    ).add_argument
    add("--ray", action="store_true", help="pip install 'llm-trsr[ray]'")
    add(
        "--ray-address", metavar="ADDRESS", help="auto: the cluster that this machine is in (local: this machine alone)"
    )
    add("--workers", type=_positive(int), metavar="N", help="engines at a time (one a GPU; without any, one a core)")
    add("--partitions", type=_positive(int), metavar="N", help="of the users (4 a worker)")
    add(
        "--ray-gpus-per-worker", type=_positive(float), metavar="N", help="for transformers:MODEL (1, if there are any)"
    )
    add = parser.add_argument_group("what it would cost").add_argument
    add("--estimate", action="store_true", help="print calls, tokens, seconds and price as JSON; ask and write nothing")
    add("--price-in", type=float, help="of a million input tokens")
    add("--price-out", type=float, help="of a million output tokens")
    add("--calls-per-second", type=float, help="of the whole engine")
    add("--latency", type=float, help="seconds a call, at --concurrency calls at a time")
    add("--answer-tokens", type=int, help="of an answer (--max-new-tokens, which is the most)")
    add("--tokenizer", help="folder or Hub id to count with (a token is taken to be 4 characters)")

    def run(options: argparse.Namespace) -> None:
        from trsr.core.summarize import METHODS
        from trsr.engines import Sampling, Server, engine
        from trsr.summaries import OpenQuestions, summarize_dataset

        if not isinstance(options.extra_body, dict):
            raise ValueError(f"--extra-body must be a JSON object, got {options.extra_body!r}.")
        sampling = Sampling(options.max_new_tokens, options.temperature, options.seed, options.extra_body)
        server = Server(options.base_url, options.concurrency, options.timeout)
        make = partial(engine, options.engine, options.engine_revision, sampling, server, options.questions)
        asked = make()
        on_ray = {
            "address": options.ray_address,
            "workers": options.workers,
            "partitions": options.partitions,
            "gpus": options.ray_gpus_per_worker,
        }
        on_ray = {name: value for name, value in on_ray.items() if value is not None}
        if on_ray and not options.ray:
            raise ValueError("--ray-address, --workers, --partitions and --ray-gpus-per-worker go with --ray: add it.")
        if options.ray and options.since:
            raise ValueError("--since asks for new blocks alone, without Ray: leave out one of --since and --ray.")
        wanted = {
            "methods": METHODS if options.method == "both" else (options.method,),
            "block_size": options.block_size,
            "max_blocks": options.max_blocks,
            "revision": options.revision,
            "store": options.store if asked.generates else None,
            "caches": options.cache,
        }
        if options.estimate:
            from trsr.estimate import Rates, estimate, token_count

            given = ("price_in", "price_out", "calls_per_second", "concurrency", "latency")
            rates = Rates(**{name: getattr(options, name) for name in given})
            tokens = options.answer_tokens or options.max_new_tokens
            count = token_count(options.tokenizer)
            wanted["store"] = options.store or options.out.with_name(f"{options.out.name}.store.sqlite")
            told = estimate(
                options.dataset, asked, rates, answer_tokens=tokens, count=count, since=options.since, **wanted
            )
            print(json.dumps(told, indent=2))
            return
        wanted["export"] = options.export_cache
        twice: dict[str, int] = {}
        try:
            if options.ray:
                from trsr.distributed import summarize_on_ray

                made, twice["asked_twice"] = summarize_on_ray(options.dataset, options.out, make, **on_ray, **wanted)
            else:
                made = summarize_dataset(options.dataset, options.out, asked, since=options.since, **wanted)
        except OpenQuestions as left:  # no mistake, but no dataset either
            print(left)
            sys.exit(3)
        shown = ("calls", "asked", "reused", "retried", "fallen_back", "tokens")
        told = {name: made["summaries"][name] for name in shown if name in made["summaries"]} | twice
        print(f"Wrote {options.out}: {json.dumps(told)}")

    parser.set_defaults(act=run)


def _check(parser: argparse.ArgumentParser) -> None:
    parser.description = "Exit code: 0 without errors, 1 with errors, 2 if the dataset cannot be read."
    parser.add_argument("dataset", help="folder or Hub id; or: sample")
    parser.add_argument("--revision", help="revision of the dataset")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="first rows of each split; items whole (all)")
    parser.add_argument("--examples", type=int, default=3, metavar="N", help="examples of each finding (%(default)s)")
    parser.add_argument("--strict", action="store_true", help="warnings count as errors")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")

    def run(options: argparse.Namespace) -> None:
        from datasets.utils import logging

        from trsr.check.report import as_json, as_text
        from trsr.check.run import check

        # It would log what cannot be read as it is; the report shows it escaped.
        logging.set_verbosity(logging.CRITICAL)
        report = check(options.dataset, revision=options.revision, limit=options.limit, examples=options.examples)
        print(as_json(report) if options.json else as_text(report))
        sys.exit(int(report.failed(strict=options.strict)))

    parser.set_defaults(act=run)


def _audit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", help="folder or Hub id with summaries")
    parser.add_argument("--revision", help="revision of the dataset")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="first rows of each split; items whole (all)")
    parser.add_argument("--seed", type=int, default=0, help="of the controls (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the audit as JSON")
    parser.add_argument("--write", action="store_true", help="keep it in the dataset folder, for the card of a release")

    def run(options: argparse.Namespace) -> None:
        from trsr.audit.report import as_text
        from trsr.audit.run import audit, write

        folder = Path(options.dataset)
        if options.write and not folder.is_dir():
            raise ValueError(f"--write takes a dataset folder on this machine, got {options.dataset!r}.")
        found = audit(options.dataset, revision=options.revision, limit=options.limit, seed=options.seed)
        print(json.dumps(found, indent=2) if options.json else as_text(found, options.dataset))
        if options.write:
            print(f"Wrote {write(found, folder)}", file=sys.stderr)

    parser.set_defaults(act=run)


def _train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="name (see: trsr recipes) or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as seed=1 optim.epochs=3")
    parser.add_argument("--out", type=Path, help="run folder (runs/NAME)")

    def run(options: argparse.Namespace) -> None:
        from trsr.recipe import load_recipe

        recipe = load_recipe(options.recipe, options.overrides)
        from trsr.train import train

        out = options.out or Path("runs") / recipe.name
        record = train(recipe, out)
        print(f"Wrote {out}: {record['steps']} steps, loss {record['loss']}, {record['seconds']} seconds")

    parser.set_defaults(act=run)


def _evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--out", type=Path, help="folder for results.json and scores.parquet (RUN/SPLIT)")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--limit", type=int, default=0, help="first users only (all)")
    parser.add_argument("--seed", type=int, default=0, help="order of candidates and bootstrap (%(default)s)")
    parser.add_argument("--no-adapter", action="store_true", help="the base as it is (zero-shot)")

    def run(options: argparse.Namespace) -> None:
        from trsr.evaluate import evaluate_run
        from trsr.results import table

        out = options.out or options.run / (options.split + ("-no-adapter" if options.no_adapter else ""))
        results = evaluate_run(
            options.run,
            out,
            split=options.split,
            limit=options.limit,
            seed=options.seed,
            adapter=not options.no_adapter,
        )
        print(table(results["systems"]))
        print(f"\n{results['n_users']} users. Wrote {out}")

    parser.set_defaults(act=run)


def _compare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("results", nargs="+", metavar="[NAME=]RESULTS", help="folders with scores; those of one name are its seeds")
    add("--out", type=Path, default=Path("comparison"), help="folder to write (%(default)s)")
    add("--dataset", help="folder or Hub id that the users come from: adds slices")
    add("--category", metavar="COLUMN", help="of the items, for the slices (category, genre, genres, topic, ...)")
    add("--metric", default="recall@3", help="of tests, slices and plots (%(default)s)")
    add("--against", metavar="SYSTEM", help="test all others against this one (all pairs)")
    add("--seed", type=int, default=0, help="of bootstrap and tests (%(default)s)")
    add("--no-plots", action="store_true", help="draw none")

    def run(options: argparse.Namespace) -> None:
        from trsr.compare.report import document
        from trsr.compare.run import compare

        results = compare(
            options.results,
            options.out,
            dataset=options.dataset,
            category=options.category,
            metric=options.metric,
            against=options.against,
            seed=options.seed,
            plots=not options.no_plots,
        )
        print(f"{document(results)}\nWrote {options.out}")

    parser.set_defaults(act=run)


def _recommend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("request", help='JSON file, or -: {"history": [...], "candidates": [...]}, or a list of them')
    parser.add_argument("--model", help="pipeline repo: folder or Hub id; its code is run (the one in the package)")
    parser.add_argument("--method", choices=("recurrent", "hierarchical"))
    parser.add_argument("--summarizer", choices=("auto", "adapter", "base-model", "extractive", "none"), default="auto")
    parser.add_argument("--top-k", type=int, help="best candidates only (all)")
    parser.add_argument("--no-summary", action="store_true", help="leave the summary out of the answer")

    def run(options: argparse.Namespace) -> None:
        text = sys.stdin.read() if options.request == "-" else Path(options.request).read_text(encoding="utf-8")
        try:
            request = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{options.request} is not JSON: {error}") from None
        from trsr.quickstart import recommend

        print(
            recommend(
                request,
                options.model,
                summarizer=None if options.summarizer == "none" else options.summarizer,
                method=options.method,
                top_k=options.top_k,
                return_summary=not options.no_summary,
            )
        )

    parser.set_defaults(act=run)


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "release", nargs="?", type=Path, help="release folder; its code is run (what is in the package)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="(%(default)s)")

    def run(options: argparse.Namespace) -> None:
        from trsr.demo import demo

        demo(options.release, server_name=options.host, server_port=options.port)

    parser.set_defaults(act=run)


def _publish(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", type=Path, help="folder of a finished run, evaluated on validation and test")
    add("--namespace", required=True, metavar="ORG", help="user or organisation on the Hub")
    add("--name", help="of dataset, pipeline and Space; the adapter is NAME-lora (trsr-DATASET)")
    add("--push", action="store_true", help="push; without it nothing on the Hub changes")
    add("--tag", default="v1.0", help="set when all commits are there (%(default)s)")
    add("--revision", default="main", metavar="BRANCH", help="branch to commit to (%(default)s)")
    add("--create-pr", action="store_true", help="open pull requests instead of committing")
    add("--private", action="store_true", help="create the repos private")
    add("--gated", choices=("auto", "manual"), help="who downloads dataset or adapter agrees to its terms first")
    add("--out", type=Path, help="release folder (RUN/release)")
    add("--dataset", help="the run's dataset, if it is no longer where the recipe says")
    add("--license", help="of the weights (the base's)")
    add("--data-license", help="of the data, as the Hub knows it (what its provenance says)")
    add("--data-license-name", help="with --data-license other: what it is called")
    add("--data-license-link", metavar="URL", help="with --data-license other: where it stands")
    add("--language", nargs="+", metavar="CODE", help="ISO 639 codes of the items' text")
    add(
        "--accept-data-licence",
        action="store_true",
        help="you have read the terms of data that may not be passed on: ids and summaries are published, gated",
    )

    def run(options: argparse.Namespace) -> None:
        from trsr.preflight import Options
        from trsr.publish import publish

        how = Options(options.private, options.gated, options.revision, options.tag, options.create_pr)
        stated = {
            "license": options.data_license,
            "license_name": options.data_license_name,
            "license_link": options.data_license_link,
            "language": tuple(options.language) if options.language else None,
        }
        publish(
            options.run,
            options.namespace,
            options.name,
            how,
            really=options.push,
            folder=options.out,
            dataset=options.dataset,
            license=options.license,
            terms={name: value for name, value in stated.items() if value},
            accept_data_licence=options.accept_data_licence,
        )

    parser.set_defaults(act=run)


def _pretrain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", choices=("nano", "nano-summarizer"), help="the base, or its adapter that summarises")
    parser.add_argument("--out", type=Path, help="folder to write (its name)")
    parser.add_argument("--steps", type=int, help="optimiser steps (3500, or 2500)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")

    def run(options: argparse.Namespace) -> None:
        out = options.out or Path(options.model)
        given = {"steps": options.steps} if options.steps else {}
        if options.model == "nano":
            from trsr.pretrain import pretrain

            made = pretrain(out, seed=options.seed, **given)
        else:
            from trsr.nano_summarizer import train_summarizer

            made = train_summarizer(out, seed=options.seed, **given)
        print(f"Wrote {out}: {made['parameters']} parameters, {made['seconds']} seconds")

    parser.set_defaults(act=run)


def _bench(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("what", choices=("score", "train", "summarize"), help="whose CPU time and memory, beside how others do it")
    add("--model", default="llama", help="folder or Hub id (random weights of a Llama with a body of 23.6 M)")
    add("--hybrid", action="store_true", help="random weights of a Qwen3.5 of about that size, with linear attention")
    add(
        "--cases",
        nargs="+",
        default=[],
        metavar="AxB",
        help="such as 500x21: prefix tokens x candidates (a standard set)",
    )
    add("--rounds", type=int, default=3, help="rounds that every system is measured in (%(default)s)")
    add("--seed", type=int, default=0, help="of weights and prompts (%(default)s)")
    add("--no-sweep", action="store_true", help="score: leave out candidates a second over counts and lengths")
    add("--out", type=Path, default=Path("bench.json"), help="results file (%(default)s)")
    add("--add", action="store_true", help="keep the other cases that --out holds")
    add("--plot", type=Path, help="picture to draw (the results file's name, with .png)")
    add("--no-plot", action="store_true", help="draw none")

    def run(options: argparse.Namespace) -> None:
        if options.hybrid and options.model != "llama":
            raise ValueError("--hybrid names a model already: leave out --model.")
        # The profiler, which measures memory, would report to the terminal; read when torch is imported.
        os.environ.setdefault("KINETO_LOG_LEVEL", "9")
        from trsr.bench.report import details, table
        from trsr.bench.run import run

        results = run(
            options.what,
            options.out,
            model="qwen3_5_text" if options.hybrid else options.model,
            cases=options.cases,
            rounds=options.rounds,
            seed=options.seed,
            sweep=not options.no_sweep,
            plot=None if options.no_plot else options.plot or options.out.with_suffix(".png"),
            add=options.add,
        )
        print(f"\n{table(results)}\n\n{details(results)}\n\nOne thread, CPU time. Wrote {options.out}")

    parser.set_defaults(act=run)


def _list_recipes(options: argparse.Namespace) -> None:
    from trsr.recipe import load_recipe, names

    for name in names():
        recipe = load_recipe(name)
        print(f"{name:32} {recipe.base:40} {recipe.dataset:24} {recipe.summary}")


def _doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for scripts")
    parser.add_argument("--offline", action="store_true", help="ask nothing of the Hub")

    def run(options: argparse.Namespace) -> None:
        from trsr.doctor import advice, examine

        found = examine(options.offline)
        if options.json:
            print(json.dumps({**found, "advice": advice(found)}, indent=2))
        else:
            for section, values in found.items():
                print(f"{section}")
                print("\n".join(f"  {name:14} {value}" for name, value in values.items()))
            print("\n".join(["", *advice(found)]).rstrip())
        if found["package"]["missing"]:
            sys.exit(1)

    parser.set_defaults(act=run)
