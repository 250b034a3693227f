"""A model in fp32 and in bf16: how far scores and gradients by each plan are from those of separate prompts.

    python -m bench.precision folder-of-a-pretrained-model --out precision.json

Beside it stands the noise: how far separate prompts themselves are from what the same weights give in fp32, and from separate
prompts in padded batches. Prompts are of random words in our own wording; one thread, CPU time.
"""

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from bench import train, workloads
from bench.measure import System, peak_memory, steady, take_turns
from bench.run import processor, write
from trsr.core.exactness import Fp32
from trsr.core.prompts import Encoder
from trsr.core.scoring import PLANS, Scorer
from trsr.recommender import shared_prefix
from trsr.records.versions import versions

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@torch.no_grad()
def scoring(model, encoder: Encoder, loads: Sequence[workloads.Prompts], rounds: int = 1) -> dict[str, Any]:
    """Seconds a user of each plan, the median of the rounds, and differences of log-odds: the largest and the mean."""

    def by(plan: str) -> Callable[[], torch.Tensor]:
        scorer = Scorer(model, encoder.yes_id, encoder.no_id, plan="batch" if plan == "separate" else plan)
        lists = [(load.prefix, load.suffixes) for load in loads]
        if plan == "separate":
            lists = [(prefix, [own]) for prefix, suffixes in lists for own in suffixes]
        return lambda: torch.cat([scorer.log_odds(*user_prompts) for user_prompts in lists])

    chosen = Scorer(model, encoder.yes_id, encoder.no_id)
    plans = PLANS[PLANS.index(chosen.plan) :]
    return {"chosen": chosen.plan, "ways": _ways(plans, by, len(loads), of_scores, model.device, rounds)}


def training(model, encoder: Encoder, loads: Sequence[workloads.Prompts], rounds: int = 1) -> dict[str, Any]:
    """Seconds and memory of a LoRA step on all users, and the difference of its gradient relative to the gradient's norm.

    As in training by a recipe: in bf16 the base's weights and the products are bf16, the adapter is fp32.
    """
    half = model.dtype == torch.bfloat16
    labels = [encoder.yes_id] + [encoder.no_id] * (len(loads[0].suffixes) - 1)
    users = [shared_prefix.row(load.prefix, load.suffixes, labels) for load in loads]
    batch = shared_prefix.collate(users)
    autocast = torch.autocast(model.device.type, torch.bfloat16, enabled=half)

    def loss(plan: str, batch: Mapping[str, Any]) -> torch.Tensor:
        with autocast:
            ids, answers = (batch[name].to(model.device) for name in ("input_ids", "labels"))
            logits = shared_prefix.batch_logits(model, ids, batch["seq_lengths"], plan)
            return cross_entropy(logits.float(), answers, reduction="sum") / (len(users) * len(labels))

    def alone(user: Mapping[str, list[int]]) -> list[Mapping[str, Any]]:
        """The batches of one candidate each."""
        prefix, *suffixes = torch.tensor(user["input_ids"]).split(list(user["seq_lengths"]))
        return [
            {
                "input_ids": torch.cat([prefix, suffix]),
                "seq_lengths": [[len(prefix), len(suffix)]],
                "labels": label[None],
            }
            for suffix, label in zip(suffixes, torch.tensor(user["labels"]), strict=True)
        ]

    def by(plan: str) -> Callable[[], torch.Tensor]:
        parts = [partial(loss, plan, batch)]
        if plan == "separate":
            parts = [partial(loss, "rows", example) for user in users for example in alone(user)]
        return lambda: torch.cat([slope.flatten().float() for slope in train.step(model, parts)])

    with autocast:
        chosen = shared_prefix.choose_plan(model, users[0])
    plans = shared_prefix.PLANS[shared_prefix.PLANS.index(chosen) :]
    return {"chosen": chosen, "ways": _ways(plans, by, 1, _of_gradients, model.device, rounds)}


def _ways(plans: Sequence[str], by, users: int, difference, device: torch.device, rounds: int) -> dict[str, Any]:
    """What each plan and separate prompts cost, and how far they are from separate prompts and from fp32."""
    results: dict[str, Any] = {}
    runs = {plan: by(plan) for plan in ("separate", *plans)}
    for plan, run in runs.items():
        answer, peak = peak_memory(run, device)
        results[plan] = {"peak_mib": round(peak / 2**20), "answer": answer}
    with Fp32():
        truth = runs["separate"]()
    seconds = take_turns([System(plan, run) for plan, run in runs.items()], rounds, device)
    for plan, result in results.items():
        result["seconds"] = float(f"{statistics.median(seconds[plan]) / users:.3g}")
        result["from_separate"] = difference(result["answer"], results["separate"]["answer"])
        result["from_fp32"] = difference(result["answer"], truth)
    for result in results.values():
        del result["answer"]
    return results


def of_scores(found: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    apart = (found - truth).abs()
    return {"max": float(f"{apart.max().item():.2g}"), "mean": float(f"{apart.mean().item():.2g}")}


def _of_gradients(gradient: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    return {"norm": float(f"{((gradient - truth).norm() / truth.norm()).item():.2g}")}


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or Hub id of a causal language model")
    parser.add_argument("--users", type=int, default=2, help="(%(default)s)")
    parser.add_argument("--prefix", type=int, default=300, help="tokens that a user's prompts share (%(default)s)")
    parser.add_argument("--candidates", type=int, default=21, help="to score, a user (%(default)s)")
    parser.add_argument("--negatives", type=int, default=4, help="to train on, a user (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of prompts and of the adapter (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("precision.json"), help="results file (%(default)s)")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    options = arguments().parse_args(words)
    results: dict[str, Any] = {
        "bench": "precision",
        **{name: getattr(options, name) for name in ("users", "prefix", "candidates", "negatives", "seed")},
        "processor": processor(),
        "versions": versions(),
        "score": {},
        "train": {},
    }
    with steady():
        for name, dtype in DTYPES.items():
            model, tokenizer = workloads.load(options.model, options.seed, dtype)
            encoder = Encoder(tokenizer)
            results["model"] = workloads.describe(Path(options.model).name, model) | {"dtype": list(DTYPES)}
            some, all_of_them = (
                [
                    workloads.prompts(encoder, options.prefix, count, options.seed + user)
                    for user in range(options.users)
                ]
                for count in (1 + options.negatives, options.candidates)
            )
            results["score"][name] = scoring(model, encoder, all_of_them)
            results["train"][name] = training(train.prepare(model, options.seed), encoder, some)
            write(options.out, results)
    print(f"Wrote {options.out}")


if __name__ == "__main__":
    main()
