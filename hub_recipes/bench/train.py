"""A training step on the candidates of four users: the plans of `shared_prefix` beside what SFTTrainer does with a row each.

A step is a forward and a backward of LoRA on every linear layer; the loss is on the answer token of every candidate.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy

from bench.flops import Cost
from bench.measure import System, compare
from bench.workloads import Prompts, prompts
from trsr.core.packed import why_not_packable
from trsr.core.prompts import Encoder
from trsr.recommender import shared_prefix

CASES = ("500x1", "500x4", "500x20", "1500x4")
UNIT = ("prefix", "negatives")
USERS = 4
BATCH = 8  # SFTTrainer's default rows a forward; more are accumulated
ALLOWED = 1e-3  # of a gradient's largest entry


def prepare(model, seed: int):
    """The model with LoRA; both of its sides are random, so that every gradient counts."""
    torch.manual_seed(seed)
    config = LoraConfig(r=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    return get_peft_model(model, config).train()


def case(model, encoder: Encoder, prefix: int, negatives: int, rounds: int, seed: int) -> dict[str, object]:
    """Seconds a step: a user is one positive and `negatives` others after `prefix` shared tokens, for every system."""
    loads = [prompts(encoder, prefix, 1 + negatives, seed + user) for user in range(USERS)]
    users = [
        shared_prefix.row(load.prefix, load.suffixes, [encoder.yes_id] + [encoder.no_id] * negatives) for load in loads
    ]
    truth = one_by_one(model, loads, users)

    def difference(gradients: Sequence[torch.Tensor] | None) -> float | None:
        """Largest difference of a gradient, in units of that gradient's largest entry."""
        if gradients is None:
            return None
        pairs = zip(gradients, truth, strict=True)
        return max(((gradient - right).abs().max() / right.abs().max()).item() for gradient, right in pairs)

    best = shared_prefix.choose_plan(model, users[0])
    cost = Cost.of(model)
    parts = [
        part for load in loads for part in [(0, load.shared), *((load.shared, len(suffix)) for suffix in load.own)]
    ]
    # A backward costs twice its forward, everywhere alike.
    least = 3 * cost.forward(parts, USERS * (1 + negatives))
    systems = [*ours(model, users, cost), peer(model, loads, users, cost)]
    return {
        "prefix": prefix,
        "negatives": negatives,
        "users": USERS,
        "suffix_tokens": sum(len(suffix) for load in loads for suffix in load.suffixes),
        "shared_tokens": sum(load.shared for load in loads),
        "least_gflop": round(least / 1e9, 3),
        "allowed_difference": ALLOWED,
        "best": best,
        "systems": compare(systems, best, rounds, difference, ALLOWED, least, model),
    }


def one_by_one(model, loads: Sequence[Prompts], users: Sequence[Mapping[str, list[int]]]) -> list[torch.Tensor]:
    """Gradients from a forward and a backward for each candidate alone."""
    rows, answers = _rows(loads), _answers(users)

    def alone(row: list[int], answer: torch.Tensor) -> Callable[[], torch.Tensor]:
        def loss() -> torch.Tensor:
            logits = model(input_ids=torch.tensor([row]), use_cache=False).logits[:, -1]
            return cross_entropy(logits.float(), answer[None]) / len(answers)

        return loss

    return step(model, [alone(row, answer) for row, answer in zip(rows, answers, strict=True)])


def ours(model, users: Sequence[Mapping[str, list[int]]], cost: Cost) -> list[System]:
    """Every plan that holds for this model; `rows` is all prompts of a user as one batch, last logits only."""
    batch = shared_prefix.collate(users)
    lengths = batch["seq_lengths"]

    def loss(plan: str) -> torch.Tensor:
        logits = shared_prefix.batch_logits(model, batch["input_ids"], lengths, plan)
        return cross_entropy(logits.float(), batch["labels"])

    whole = [(0, parts[0] + max(parts[1:])) for parts in lengths for _ in parts[1:]]
    systems = []
    for plan in shared_prefix.PLANS:
        if plan == "joint" and why_not_packable(model):
            continue  # it needs a mask, which this architecture does not read

        flops = 3 * cost.forward(whole, len(whole)) if plan == "rows" else None
        systems.append(System(plan, partial(step, model, [partial(loss, plan)]), ours=True, flops=flops))
    return systems


def peer(model, loads: Sequence[Prompts], users: Sequence[Mapping[str, list[int]]], cost: Cost) -> System:
    """Rows padded on the right in batches, every position through the language-model head.

    Of several batches the first stands for all; what it gives cannot be compared then.
    """
    rows = [[*row, answer] for row, answer in zip(_rows(loads), _answers(users).tolist(), strict=True)]
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    shapes = [(0, max(map(len, batch))) for batch in batches for _ in batch]
    positions = sum(width for _, width in shapes)

    def part(batch: Sequence[list[int]]) -> Callable[[], torch.Tensor]:
        width = max(map(len, batch))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in batch])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch])
        labels = torch.full_like(ids, -100)
        for n, row in enumerate(batch):
            labels[n, len(row) - 1] = row[-1]

        def loss() -> torch.Tensor:
            output = model(
                input_ids=ids, attention_mask=mask, labels=labels, num_items_in_batch=len(rows), use_cache=False
            )
            return output.loss

        return loss

    first = part(batches[0])

    def run() -> list[torch.Tensor] | None:
        gradients = step(model, [first])
        return gradients if len(batches) == 1 else None

    share = sum(width for _, width in shapes[:BATCH]) / positions
    return System("sft", run, share=share, flops=3 * cost.forward(shapes, positions, square=True))


def step(model, parts: Sequence[Callable[[], torch.Tensor]]) -> list[torch.Tensor]:
    """Gradients of the sum of the losses, accumulated part after part."""
    model.zero_grad(set_to_none=True)
    for loss in parts:
        loss().backward()
    return [parameter.grad for parameter in model.parameters() if parameter.requires_grad]


def _rows(loads: Sequence[Prompts]) -> list[list[int]]:
    return [load.prefix + suffix for load in loads for suffix in load.suffixes]


def _answers(users: Sequence[Mapping[str, list[int]]]) -> torch.Tensor:
    return torch.tensor([answer for user in users for answer in user["labels"]])
