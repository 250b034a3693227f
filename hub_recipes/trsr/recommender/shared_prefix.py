"""Train on all candidates of a user together: their common prefix goes through the model once, with gradients.

A row is a user. Three plans give the same logits and the same gradients:

* `joint`: the prefixes and suffixes of all users end to end in one row, where each user attends to itself alone
  (`user_attention`). One forward for a batch, and no cache, so that gradient checkpointing may be used. For models of which
  `core.packed` knows how they read a mask.
* `fork`: user by user the prefix once, then each suffix as a row of its own from a copy of the cache (`core.fork`). For
  attention, convolution and recurrent layers alike, because no mask is involved.
* `rows`: every prompt whole, as a batch padded on the right. Works with any causal model.

Prompts are built and encoded elsewhere.
"""

import functools
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from datasets import Dataset
from peft import PeftModel
from transformers.modeling_outputs import CausalLMOutput
from transformers.utils import logging
from trl import SFTConfig, SFTTrainer

from trsr.core.exactness import Reference
from trsr.core.fork import same_rotation, why_not_forkable
from trsr.core.forward import end_logits, fork_prefix, prefill, row_logits
from trsr.core.groups import batch_by_length, hoist_common_prefix
from trsr.core.packed import why_not_packable
from trsr.errors import InputError
from trsr.recommender.user_attention import Users, by_user

logger = logging.get_logger(__name__)

PLANS = ("joint", "fork", "rows")

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


def collate(rows: Sequence[Mapping[str, list[int]]]) -> dict[str, Any]:
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


def batch_logits(
    model, input_ids: torch.Tensor, seq_lengths: Sequence[Sequence[int]], plan: str = "fork"
) -> torch.Tensor:
    """Return the logits after each prompt of a batch of users, within the graph.

    Args:
        model: A causal language model, with or without a PEFT adapter.
        input_ids: (tokens,) the users end to end: of each the prefix that its prompts share, then their suffixes.
        seq_lengths: Of each user the tokens of the prefix, then of each suffix; none is 0.
        plan: One of `PLANS`.

    Returns:
        (candidates of all users, vocabulary). No other position goes through the language-model head.

    Raises:
        InputError: If the plan is unknown, or a suffix or a prefix is empty.
    """
    if plan not in PLANS:
        raise InputError(f"Unknown plan {plan!r}, expected one of {', '.join(PLANS)}.")
    if not seq_lengths or any(len(parts) < 2 or not all(parts) for parts in seq_lengths):
        raise InputError("Prefix and suffixes must hold at least one token each, and there must be a suffix.")
    prefixes = [parts[0] for parts in seq_lengths]
    prompts = [parts[0] + suffix for parts in seq_lengths for suffix in parts[1:]]
    if plan == "joint" and same_rotation(model.config, min(prefixes), prompts):
        users = Users(seq_lengths, input_ids.device)
        with by_user(model):
            return end_logits(model, input_ids, users.positions, users.ends, users=users)
    logits = []
    for user, parts in zip(input_ids.split([sum(parts) for parts in seq_lengths]), seq_lengths, strict=True):
        prefix, *suffixes = user.split(list(parts))
        # Where rotary frequencies depend on the longest position in a row, only separate prompts give the logits of serving.
        if not same_rotation(model.config, len(prefix), [len(prefix) + len(suffix) for suffix in suffixes]):
            logits += [row_logits(model, [torch.cat([prefix, suffix])]) for suffix in suffixes]
        elif plan == "rows":
            logits.append(row_logits(model, [torch.cat([prefix, suffix]) for suffix in suffixes]))
        else:
            logits.append(_forked(model, prefix, suffixes))
    return torch.cat(logits)


def _forked(model, prefix: torch.Tensor, suffixes: Sequence[torch.Tensor]) -> torch.Tensor:
    cache = prefill(model, prefix)
    lengths = [len(suffix) for suffix in suffixes]
    groups = list(batch_by_length(lengths, len(prefix) + sum(lengths), PADDING))
    logits = [
        row_logits(model, [suffixes[index] for index in group], len(prefix), fork_prefix(model, cache, len(group)))
        for group in groups
    ]
    order = torch.tensor([index for group in groups for index in group], device=prefix.device)
    return torch.cat(logits)[order.argsort()]


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

    `joint`, then `fork`, unless gradient checkpointing allows no cache; `rows` if none of these is exact.
    """
    ids, lengths = torch.tensor(example["input_ids"], device=model.device), list(example["seq_lengths"])
    prefix, *suffixes = ids.split(lengths)

    def alone() -> torch.Tensor:
        return torch.cat([row_logits(model, [torch.cat([prefix, suffix])]) for suffix in suffixes])

    def logits(plan: str) -> torch.Tensor:
        # Behind another user, whom the plan must not look at.
        return batch_logits(model, torch.cat([ids, ids]), [lengths, lengths], plan)[len(suffixes) :]

    reasons: dict[str, str | None] = {}
    mode = model.training
    model.eval()  # dropout would differ, and use up random numbers
    try:
        reference = Reference(alone, partial(logits, "rows"))
        for plan, why_not in (("joint", why_not_packable), ("fork", why_not_forkable)):
            if checkpointing and plan == "fork":
                continue
            reasons[plan] = why_not(model) or reference.why_not_exact(partial(logits, plan))
            if reasons[plan] is None:
                break
        else:
            plan = "rows"
    finally:
        model.train(mode)
    refused = "; ".join(f"not {name}: {reason}" for name, reason in reasons.items() if reason)
    name = type(model.get_base_model() if isinstance(model, PeftModel) else model).__name__
    message = f"{name} is trained by the plan {plan}" + (f" ({refused})" if refused else "") + "."
    if plan == "rows":
        hint = " Without gradient checkpointing prefixes may be shared." if checkpointing else ""
        logger.warning(f"{message} Every prompt goes through whole.{hint}")
    else:
        logger.info(message)
    return plan


class SharedPrefixTrainer(SFTTrainer):
    """SFTTrainer on rows of `row`; a step's loss is the mean over all its candidates, whatever the groups' sizes.

    `batch_size` counts users; accumulation of smaller batches gives the same gradients in less memory and a little more time.
    Metrics are over answer tokens; `num_tokens` counts tokens sent through the model, without padding, so a shared prefix counts once. Dropout in
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
        _accept_user_batches(self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model)

    def training_step(self, *args, **kwargs) -> torch.Tensor:
        # Gradient checkpointing computes layers again in the backward pass, which must attend as the forward pass did.
        with by_user(self.model) if self.plan == "joint" else nullcontext():
            return super().training_step(*args, **kwargs)

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


def _accept_user_batches(base) -> None:
    """Let the forward of `base` take a batch of users. Wrappers for several devices need one forward per backward."""
    forward = base.forward

    @functools.wraps(forward)
    def forward_users(*args, seq_lengths: Sequence[Sequence[int]] | None = None, plan: str = "fork", **kwargs):
        if seq_lengths is None:
            return forward(*args, **kwargs)
        return batch_logits(base, kwargs["input_ids"], seq_lengths, plan)

    base.forward = forward_users
