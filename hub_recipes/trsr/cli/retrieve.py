"""Train a retriever over a whole catalogue, evaluate it, make one of several, and join it to a run.

A retriever has a vector for each item, from its text and its id, and one for a user after any history; the product of the two
is the score. Text vectors come from tf-idf, which needs no model, from sentence-transformers:MODEL, or from the hidden
states of a language model, transformers:MODEL. Evaluation is on the released candidates, in the form of `trsr evaluate`, and
on the whole catalogue: the target among all items that the user has not met. `ensemble` makes one retriever of several, with
other seeds or text vectors: its scores are the mean of theirs, and it is used like any other. `fuse` gives a finished run the
catalogue: it then recommends without candidates, by the sum of both scores. `export` writes the part that makes item vectors
from texts as a SentenceTransformer, of a retriever that was trained with the vectors of a model.

examples:
  trsr retrieve train data/mine --out runs/retriever
  trsr retrieve evaluate runs/retriever --dataset data/mine
  trsr retrieve ensemble runs/retriever runs/retriever-minilm --dataset data/mine --out runs/both
  trsr retrieve fuse runs/retriever --run runs/mine
"""

import argparse
from pathlib import Path
from typing import Any

from trsr.cli.numbers import count, positive, seed
from trsr.cli.outcome import Outcome, add_json
from trsr.errors import UsageError

# Those of `core.catalogue` and `core.user_model`, which import torch: --help does not wait for it.
STAGE_ONE = 100  # items that are retrieved for the language model
BLOCKS = ("relative", "sasrec")


def add(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="train | evaluate | ensemble | fuse | export", required=True)
    train = actions.add_parser("train", help="on the histories of a dataset, in minutes on a CPU")
    option = train.add_argument
    option("dataset", help="folder or Hub id with the configs items and histories")
    option("--revision", help="of the dataset")
    option("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    option(
        "--vectors",
        default="tf-idf",
        help="tf-idf, sentence-transformers:MODEL, transformers:MODEL, none (%(default)s)",
    )
    option("--no-ids", action="store_true", help="vectors from text alone: old items and new ones alike")
    option("--width", type=int, default=128, help="of the vectors (%(default)s)")
    option("--layers", type=int, default=2, help="of the user model (%(default)s)")
    option("--dropout", type=float, default=0.4, help="(%(default)s)")
    option(
        "--blocks",
        choices=BLOCKS,
        default="relative",
        help="of the user model; sasrec: those of SASRec, with positions counted from the newest item (%(default)s)",
    )
    option("--epochs", type=int, default=20, help="at most; validation ends it earlier (%(default)s)")
    option("--patience", type=int, default=5, help="epochs without a gain on validation (%(default)s)")
    option(
        "--batch",
        type=positive(int),
        default=256,
        help="sequences a step, at most: an epoch has 32 steps or more (%(default)s)",
    )
    option("--learning-rate", type=float, default=2e-3, help="peak (%(default)s)")
    option("--draws", type=int, default=0, help="items in the softmax of a step (all up to 50,000 items, else 8192)")
    option("--seed", type=seed, default=0, help="(%(default)s)")
    add_json(train)
    evaluate = actions.add_parser("evaluate", help="on the candidates, and on the whole catalogue")
    option = evaluate.add_argument
    option("retriever", type=Path, help="folder of a retriever")
    option("--dataset", required=True, help="the one that it was trained on")
    option("--revision", help="of the dataset")
    option("--split", choices=("validation", "test"), default="test", help="(%(default)s)")
    option("--out", type=Path, metavar="DIR", help="folder to write (RETRIEVER/SPLIT, with -RUN for --run)")
    option("--limit", type=count, default=0, metavar="N", help="first N rows only")
    option("--seed", type=seed, default=0, help="of candidates' order and bootstrap (%(default)s)")
    option("--history", metavar="ORDER", help="a control: histories shuffled, reversed, or the newest items (last:N)")
    option("--run", type=Path, help="finished run that `fuse` gave this retriever: both stages on the catalogue too")
    option(
        "--stage-one",
        type=positive(int),
        metavar="N",
        help=f"with --run: items for its language model (as many as its weight was fitted with, else {STAGE_ONE})",
    )
    add_json(evaluate)
    ensemble = actions.add_parser("ensemble", help="one retriever of several: the mean of their scores")
    option = ensemble.add_argument
    option("retrievers", type=Path, nargs="+", help="folders of retrievers that were trained on the same dataset")
    option("--dataset", required=True, help="the one that they were trained on")
    option("--revision", help="of the dataset")
    option("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    add_json(ensemble)
    fuse = actions.add_parser(
        "fuse", help="give a run a catalogue: fit the weight of the retriever's scores beside its own"
    )
    option = fuse.add_argument
    option("retriever", type=Path, help="folder of a retriever")
    option("--run", type=Path, required=True, help="finished run on the same dataset; RUN/catalogue is written")
    option("--users", type=positive(int), default=200, metavar="N", help="validation users to fit on (%(default)s)")
    option(
        "--stage-one", type=positive(int), default=STAGE_ONE, metavar="N", help="items that are retrieved (%(default)s)"
    )
    add_json(fuse)
    export = actions.add_parser(
        "export", help="what makes item vectors from texts, as a SentenceTransformer for other programs"
    )
    option = export.add_argument
    option("retriever", type=Path, help="folder of a retriever with --vectors of a model")
    option("--dataset", required=True, help="the one that it was trained on")
    option("--revision", help="of the dataset")
    option("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    add_json(export)


def run(options: argparse.Namespace) -> Outcome:
    actions = {"train": _train, "evaluate": _evaluate, "ensemble": _ensemble, "fuse": _fuse, "export": _export}
    return actions[options.action](options)


def _ensemble(options: argparse.Namespace) -> Outcome:
    from trsr.retrieval.ensemble import make_ensemble

    record = make_ensemble(options.retrievers, options.dataset, options.out, revision=options.revision)
    return Outcome(
        record,
        f"Wrote {options.out}: {record['parameters']} parameters; validation Recall@10 over the catalogue "
        f"{record['validation']['recall@10']:.3f}, of the members "
        f"{', '.join(format(member['validation']['recall@10'], '.3f') for member in record['members'])}",
    )


def _export(options: argparse.Namespace) -> Outcome:
    from trsr.hub.item_encoder import export

    written = export(options.retriever, options.dataset, options.out, options.revision)
    return Outcome(
        written,
        f"Wrote {options.out}: SentenceTransformer({str(options.out)!r}) gives, in a process without this package, the retriever's vectors "
        f"of {written['checked']} texts, with a difference of {written['difference']:.1e} at most. They are those of the index for "
        f"{written['in_index']} of {written['items']} items"
        + (
            "."
            if written["in_index"] == written["items"]
            else "; to the others the retriever adds what it learnt of their ids."
        ),
    )


def _fuse(options: argparse.Namespace) -> Outcome:
    from trsr.retrieval.fusion import fuse_run

    record = fuse_run(options.run, options.retriever, users=options.users, stage_one=options.stage_one)
    fitted = record["fitted"]
    return Outcome(
        record,
        f"Wrote {options.run / 'catalogue'}: {record['items']} items; weight of the first stage {record['weight']:g}, "
        + (f"not fitted: {fitted['not_fitted']}" if "not_fitted" in fitted else "fitted on validation")
        + f". It passed on {fitted['retrieved']:.3f} of the next items of {fitted['users']} validation users. "
        f"NDCG@10 of these same users: {', '.join(f'{name} {value:.3f}' for name, value in fitted['ndcg@10'].items())}",
    )


def _train(options: argparse.Namespace) -> Outcome:
    from trsr.retrieval.run import train_retriever
    from trsr.retrieval.training import Settings

    record = train_retriever(
        options.dataset,
        options.out,
        revision=options.revision,
        vectors=options.vectors,
        ids=not options.no_ids,
        width=options.width,
        layers=options.layers,
        dropout=options.dropout,
        blocks=options.blocks,
        settings=Settings(
            epochs=options.epochs,
            patience=options.patience,
            batch=options.batch,
            learning_rate=options.learning_rate,
            draws=options.draws,
            seed=options.seed,
        ),
    )
    best = record["validation"]
    return Outcome(
        record,
        f"Wrote {options.out}: {record['parameters']} parameters, {record['seconds']} seconds; validation Recall@10 over the "
        f"catalogue {best['recall@10']:.3f}, after {best['epoch']} epochs",
    )


def _evaluate(options: argparse.Namespace) -> Outcome:
    if options.stage_one and not options.run:
        raise UsageError("--stage-one goes with --run: add it.")
    from trsr.recommender.results import table
    from trsr.retrieval.catalogue import COLUMNS
    from trsr.retrieval.evaluate import default_folder, evaluate_retriever

    out = options.out or default_folder(
        options.retriever,
        options.dataset,
        options.revision,
        split=options.split,
        limit=options.limit,
        history=options.history,
        run=options.run,
        stage_one=options.stage_one,
    )
    results = evaluate_retriever(
        options.retriever,
        options.dataset,
        out,
        revision=options.revision,
        split=options.split,
        limit=options.limit,
        seed=options.seed,
        history=options.history,
        run=options.run,
        stage_one=options.stage_one,
    )
    whole: dict[str, Any] = results["catalogue"]
    parts = [
        f"{whole['protocol']}:",
        table(results["candidates"]["systems"]),
        f"The target among all {whole['n_items']} items, less those that the user has met:",
        table(whole["systems"], COLUMNS),
        f"{whole['n_users']} users. Wrote {out}",
    ]
    fitted = (whole["second_stage"] or {}).get("fitted")
    if fitted and fitted["split"] == options.split:
        parts.insert(
            -1,
            f"The weight of the first stage was fitted on the first {fitted['users']} rows of {options.split}: figures of both stages on "
            "them are too high. Take those of --split test.",
        )
    return Outcome(results, "\n\n".join(parts))
