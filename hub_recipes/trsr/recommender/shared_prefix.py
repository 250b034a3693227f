"""Train on all candidates of a user together: their common prefix goes through the model once, with gradients.

A row is a user. Four plans give the same logits and the same gradients:

* `packed`: the prefix once, then all suffixes end to end in one row behind its cache, under a mask that keeps them apart
  (`core.packed` says which models may).
* `fork`: the prefix once, then each suffix as a row of its own from a copy of the cache (`core.fork`). For attention,
  convolution and recurrent layers alike, because no mask is involved.
* `tree`: prefix and suffixes in one row, under such a mask. For gradient checkpointing, which allows no cache.
* `rows`: every prompt whole, as a batch padded on the right. Works with any causal model.

Prompts are built and encoded elsewhere.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from datasets import Dataset
from peft import PeftModel
from transformers import DynamicCache
from transformers.modeling_outputs import CausalLMOutput
from transformers.utils import logging
from trl import SFTConfig, SFTTrainer

from trsr.core.exactness import Reference
from trsr.core.fork import same_rotation, why_not_forkable
from trsr.core.forward import fork_prefix, packed_logits, prefill, row_logits
from trsr.core.groups import batch_by_length, hoist_common_prefix
from trsr.core.packed import Row, why_not_packable
from trsr.errors import InputError

logger = logging.get_logger(__name__)

PLANS = ("packed", "fork", "tree", "rows")

# Most padding tokens in a batch of forked suffixes: more batches cost more than that.
PADDING = 256


def row(prefix: Sequence[int], suffixes: Sequence[Sequence[int]], answers: Sequence[int]) -> dict[str, list[int]]:
    """A user's training row.

    Returns:
        `input_ids` (prefix, then the suffixes end to end), `seq_lengths` (1 + candidates), `labels` (candidates): the
        answer token after each suffix.
    """
    prefix, suffixes = hoist_common_prefix(prefix, suffixes)
    return {
        "input_ids": [token for part in (prefix, *suffixes) for token in part],
        "seq_lengths": [len(prefix), *map(len, suffixes)],
        "labels": list(answers),
    }


def collate(rows: Sequence[Mapping[str, list[int]]]) -> dict[str, object]:
    """Users end to end, unpadded: `input_ids` (tokens), `seq_lengths` a list a user, `labels` (candidates of all)."""
    labels = torch.tensor([answer for row in rows for answer in row["labels"]])
    return {
        # First, because the Trainer takes the length of the first value as the batch size.
        "labels": labels,
        "input_ids": torch.tensor([token for row in rows for token in row["input_ids"]]),
        "seq_lengths": [list(row["seq_lengths"]) for row in rows],
        # The Trainer counts all of these; of `labels` it would not count the first.
        "shift_labels": labels,
    }


def answer_logits(model, prefix: Sequence[int], suffixes: Sequence[Sequence[int]], plan: str = "fork") -> torch.Tensor:
    """Return the logits after each prefix + suffix, within the graph.

    Args:
        model: A causal language model, with or without a PEFT adapter.
        prefix: Token ids that all prompts share.
        suffixes: Token ids of each candidate, none empty.
        plan: One of `PLANS`.

    Returns:
        (candidates, vocabulary). No other position goes through the language-model head.

    Raises:
        ValueError: If the plan is unknown, or a suffix or the prefix is empty.
    """
    if plan not in PLANS:
        raise InputError(f"Unknown plan {plan!r}, expected one of {', '.join(PLANS)}.")
    if not len(prefix) or not suffixes or not all(map(len, suffixes)):
        raise InputError("Prefix and suffixes must hold at least one token each, and there must be a suffix.")
    start = torch.as_tensor(prefix, device=model.device)
    ends = [torch.as_tensor(suffix, device=model.device) for suffix in suffixes]
    lengths = [len(end) for end in ends]
    # Where rotary frequencies depend on the longest position in a row, only separate prompts give the logits of serving.
    if not same_rotation(model.config, len(start), [len(start) + length for length in lengths]):
        return torch.cat([row_logits(model, [torch.cat([start, end])]) for end in ends])
    if plan == "rows":
        return row_logits(model, [torch.cat([start, end]) for end in ends])
    if plan == "tree":
        return packed_logits(model, [start, *ends], Tree.of(len(start), lengths, start.device))
    if plan == "packed":
        # Without a config every layer keeps the whole prefix, as the mask has it; windows are in the mask.
        cache = fork_prefix(model, prefill(model, start, DynamicCache()), 1)
        return packed_logits(model, ends, Row.of(len(start), lengths, start.device), cache)
    return _forked(model, start, ends)


def _forked(model, start: torch.Tensor, ends: Sequence[torch.Tensor]) -> torch.Tensor:
    cache = prefill(model, start)
    groups = list(batch_by_length([len(end) for end in ends], len(start) + sum(map(len, ends)), PADDING))
    logits = [
        row_logits(model, [ends[index] for index in group], len(start), fork_prefix(model, cache, len(group)))
        for group in groups
    ]
    order = torch.tensor([index for group in groups for index in group], device=start.device)
    return torch.cat(logits)[order.argsort()]


@dataclass(frozen=True, slots=True)
class Tree(Row):
    """A prefix and its suffixes in one row without a cache: owner 0 is the prefix, which all suffixes attend to."""

    @classmethod
    def of(cls, prefix: int, lengths: Sequence[int], device=None) -> "Tree":
        suffix_row = Row.of(prefix, lengths, device)
        prefix_positions = torch.arange(prefix, device=device)
        positions = torch.cat([prefix_positions, suffix_row.positions])
        return cls(
            0,
            positions,
            torch.cat([torch.zeros_like(prefix_positions), suffix_row.owners + 1]),
            prefix + suffix_row.ends,
        )

    def visible(self, window: int | None = None) -> torch.Tensor:
        """(T, T) True where a token may attend: to the prefix and its own suffix, up to itself."""
        distance = self.positions[:, None] - self.positions
        visible = (distance >= 0) & ((self.owners == 0) | (self.owners == self.owners[:, None]))
        return visible if window is None else visible & (distance < window)


def losses(
    logits: torch.Tensor, labels: torch.Tensor, sizes: Sequence[int], yes: int, no: int, listwise: float = 0.0
) -> torch.Tensor:
    """Loss of each candidate; the loss of a batch is their mean.

    Args:
        logits: (candidates, vocabulary), the users' candidates one after the other.
        labels: (candidates,) answer tokens; `yes` once a user.
        sizes: Candidates of each user.
        listwise: 0: the paper's cross-entropy of the answer token over the vocabulary; 1: cross-entropy of the chosen
            candidate over the user's candidates, by the log-odds of yes; their mix between. A user weighs as much as it has candidates.
    """
    logits = logits.float()
    answer_losses = (
        (1 - listwise) * F.cross_entropy(logits, labels, reduction="none") if listwise < 1 else torch.zeros(())
    )
    if not listwise:
        return answer_losses
    odds = logits[:, yes] - logits[:, no]  # (candidates,)
    chosen = labels == yes
    users = [
        F.cross_entropy(user_odds, is_chosen.int().argmax()).expand(len(user_odds))
        for user_odds, is_chosen in zip(odds.split(list(sizes)), chosen.split(list(sizes)), strict=True)
    ]
    return answer_losses + listwise * torch.cat(users)


def choose_plan(model, example: Mapping[str, list[int]], checkpointing: bool = False) -> str:
    """Choose the first plan that gives the same logits on `example`, a real row, as separate prompts; log the choice.

    Without gradient checkpointing `packed`, then `fork`; with it `tree`; `rows` if none of these is exact.
    """
    prefix, *suffixes = torch.tensor(example["input_ids"]).split(list(example["seq_lengths"]))

    def logits(plan: str) -> torch.Tensor:
        if plan == "alone":
            return torch.cat([answer_logits(model, prefix, [suffix], "rows") for suffix in suffixes])
        return answer_logits(model, prefix, suffixes, plan)

    reason_against: dict[str, str | None] = {}
    mode = model.training
    model.eval()  # dropout would differ, and use up random numbers
    try:
        reference = Reference(partial(logits, "alone"), partial(logits, "rows"))
        for plan in ("tree",) if checkpointing else ("packed", "fork"):
            reason_against[plan] = why_not_forkable(model) if plan == "fork" else why_not_packable(model)
            reason_against[plan] = reason_against[plan] or reference.fault(partial(logits, plan))
            if reason_against[plan] is None:
                break
        else:
            plan = "rows"
    finally:
        model.train(mode)
    reasons = "; ".join(f"not {name}: {reason}" for name, reason in reason_against.items() if reason)
    name = type(model.get_base_model() if isinstance(model, PeftModel) else model).__name__
    message = f"{name} is trained by the plan {plan}" + (f" ({reasons})" if reasons else "") + "."
    if plan == "rows":
        hint = " Without gradient checkpointing prefixes may be shared." if checkpointing else ""
        logger.warning(f"{message} Every prompt goes through whole.{hint}")
    else:
        logger.info(message)
    return plan


class SharedPrefixTrainer(SFTTrainer):
    """SFTTrainer on rows of `row`; a step's loss is the mean over all its candidates, whatever the groups' sizes.

    `batch_size` counts users. They run one after the other, but their activations are kept until the backward pass:
    accumulation of smaller batches gives the same gradients in less memory and hardly more time. Metrics are over answer
    tokens; `num_tokens` counts tokens sent through the model, without padding, so a shared prefix counts once. Dropout in
    a shared prefix is the same for all its candidates. A router's auxiliary loss is left out.

    Attributes:
        plan: The plan in use.
    """

    def __init__(
        self,
        model,
        args: SFTConfig,
        *,
        train_dataset: Dataset,
        yes_id: int,
        no_id: int,
        listwise: float = 0.0,
        **options,
    ) -> None:
        super().__init__(model, args, data_collator=collate, train_dataset=train_dataset, **options)
        self.yes_id, self.no_id, self.listwise = yes_id, no_id, listwise
        with self.accelerator.autocast():
            self.plan = choose_plan(self.model, train_dataset[0], bool(args.gradient_checkpointing))
        _take_users(self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels, lengths = inputs["labels"], inputs["seq_lengths"]
        logits = model(input_ids=inputs["input_ids"], seq_lengths=lengths, plan=self.plan)  # (candidates, vocabulary)
        sizes = [len(parts) - 1 for parts in lengths]
        total = losses(logits, labels, sizes, self.yes_id, self.no_id, self.listwise).sum()
        if num_items_in_batch is None:
            loss = total / len(labels)
        else:
            # The count is over all accumulation steps and processes, and DDP takes the mean over processes.
            loss = total / num_items_in_batch
            if self.args.average_tokens_across_devices:
                loss = loss * self.accelerator.num_processes
        self._measure(logits.detach().float(), labels, lengths, "train" if model.training else "eval")
        return (loss, CausalLMOutput(loss=loss, logits=logits)) if return_outputs else loss

    @torch.no_grad()
    def _measure(self, logits: torch.Tensor, labels: torch.Tensor, lengths: Sequence[Sequence[int]], mode: str) -> None:
        """The metrics of SFTTrainer, over the answers of all processes."""
        logs = logits.log_softmax(-1)
        tokens = sum(sum(parts) + (parts[0] * (len(parts) - 2) if self.plan == "rows" else 0) for parts in lengths)
        entropy, right, count, tokens = self.accelerator.reduce(
            torch.stack(
                [
                    -(logs.exp() * logs).sum(),
                    (logits.argmax(-1) == labels).sum(),
                    labels.new_tensor(len(labels)),
                    labels.new_tensor(tokens),
                ]
            )
        ).tolist()
        metrics = self._metrics[mode]
        metrics["entropy"].append(entropy / count)
        metrics["mean_token_accuracy"].append(right / count)
        if mode == "train":
            self._total_train_tokens += int(tokens)
        metrics["num_tokens"] = [self._total_train_tokens]


def _take_users(base) -> None:
    """Let the forward of `base` take a batch of users. Wrappers for several devices need one forward per backward."""
    forward = base.forward

    @functools.wraps(forward)
    def take(*args, seq_lengths: Sequence[Sequence[int]] | None = None, plan: str = "fork", **kwargs):
        if seq_lengths is None:
            return forward(*args, **kwargs)
        users = kwargs["input_ids"].split([sum(lengths) for lengths in seq_lengths])
        logits = []
        for user, lengths in zip(users, seq_lengths, strict=True):
            prefix, *suffixes = user.split(list(lengths))
            logits.append(answer_logits(base, prefix, suffixes, plan))
        return torch.cat(logits)

    base.forward = take
