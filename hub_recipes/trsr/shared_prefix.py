"""Train on a user's candidates together: what all their prompts begin with goes through the model once, in the graph.

A row is a user. Three plans give the same answers and the same gradients:

* `fork`: the prefix once, then all suffixes from copies of its cache, as scoring does (`core.fork`). Exact for
  attention, convolution and recurrent layers alike, because no mask is involved.
* `tree`: prefix and suffixes in one row, under a mask that keeps the suffixes apart. For gradient checkpointing, which
  allows no cache; only for models without recurrent layers that take such a mask (`takes_tree`).
* `rows`: every prompt whole, as a batch padded on the right. Any causal model can do that.

Prompts and their encoding come from outside.
"""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch.nn.utils.rnn import pad_sequence
from transformers.modeling_outputs import CausalLMOutput
from transformers.utils import logging
from trl import SFTTrainer

from trsr.core.fork import fork

logger = logging.get_logger(__name__)

PLANS = ("fork", "tree", "rows")

# Architectures that apply one 4D mask to every layer as it is; a sliding window has to be part of it.
ONE_MASK = frozenset("gemma glm4 gpt2 gpt_neox granite llama mistral mixtral olmo olmo2 phi phi3 qwen3_moe".split())
# Architectures that take a mask for each kind of layer.
MASK_BY_KIND = frozenset("cohere2 gemma2 gemma3_text ministral olmo3 qwen2 qwen3 smollm3".split())


def share(prefix: Sequence[int], suffixes: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """Move what all suffixes begin with into the prefix; one token at least stays in each."""
    common = 0
    while all(common < len(suffix) - 1 and suffix[common] == suffixes[0][common] for suffix in suffixes):
        common += 1
    return [*prefix, *suffixes[0][:common]], [list(suffix[common:]) for suffix in suffixes]


def row(prefix: Sequence[int], suffixes: Sequence[Sequence[int]], answers: Sequence[int]) -> dict[str, list[int]]:
    """A user's training row.

    Returns:
        `input_ids` (prefix, then the suffixes end to end), `seq_lengths` (1 + candidates), `labels` (candidates): the
        answer token after each suffix.
    """
    prefix, suffixes = share(prefix, suffixes)
    return {
        "input_ids": [token for part in (prefix, *suffixes) for token in part],
        "seq_lengths": [len(prefix), *map(len, suffixes)],
        "labels": list(answers),
    }


def collate(rows: Sequence[Mapping[str, list[int]]]) -> dict[str, object]:
    """Users end to end, unpadded: `input_ids` (tokens), `seq_lengths` a list a user, `labels` (candidates of all)."""
    labels = torch.tensor([answer for row in rows for answer in row["labels"]])
    return {
        "input_ids": torch.tensor([token for row in rows for token in row["input_ids"]]),
        "seq_lengths": [list(row["seq_lengths"]) for row in rows],
        "labels": labels,
        # The Trainer counts these as they are; in `labels` it would leave the first one out.
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
        raise ValueError(f"Unknown plan {plan!r}, expected one of {', '.join(PLANS)}.")
    if not len(prefix) or not suffixes or not all(map(len, suffixes)):
        raise ValueError("Prefix and suffixes must hold at least one token each, and there must be a suffix.")
    start = torch.as_tensor(prefix, device=model.device)
    ends = [torch.as_tensor(suffix, device=model.device) for suffix in suffixes]
    if plan == "tree":
        return _tree(model, start, ends)
    if plan == "rows":
        return _last_logits(model, [torch.cat([start, end]) for end in ends], 0, use_cache=False)
    with _through_head(model, lambda hidden: hidden[:, :0]):
        cache = model(input_ids=start[None], position_ids=_places(0, len(start), model), use_cache=True).past_key_values
    branches = fork(cache, torch.zeros(len(ends), dtype=torch.long, device=start.device))
    return _last_logits(model, ends, len(start), past_key_values=branches, use_cache=True)


def _last_logits(model, rows: Sequence[torch.Tensor], start: int, **options) -> torch.Tensor:
    """Logits (rows, vocabulary) at the last token of each row. Nothing looks to the right, so padding is harmless."""
    ids = pad_sequence(list(rows), batch_first=True)  # (n, width)
    last = torch.tensor([len(one) - 1 for one in rows], device=ids.device)
    line = torch.arange(len(rows), device=ids.device)
    # Explicit positions: some architectures restart them otherwise.
    places = _places(start, ids.shape[1], model).expand(len(rows), -1)
    with _through_head(model, lambda hidden: hidden[line, last][:, None]):
        return model(input_ids=ids, position_ids=places, **options).logits[:, 0]


def _tree(model, start: torch.Tensor, ends: Sequence[torch.Tensor]) -> torch.Tensor:
    lengths = torch.tensor([len(start), *map(len, ends)], device=start.device)
    places = torch.cat([_places(0, len(start), model)[0], *(_places(len(start), len(end), model)[0] for end in ends)])
    branch = torch.repeat_interleave(torch.arange(len(lengths), device=start.device), lengths)
    last = lengths.cumsum(0)[1:] - 1
    with _through_head(model, lambda hidden: hidden[:, last]):
        return model(
            input_ids=torch.cat([start, *ends])[None],
            position_ids=places[None],
            attention_mask=_masks(model, branch, places),
            use_cache=False,
        ).logits[0]


def tree_mask(branch: torch.Tensor, places: torch.Tensor, window: int | None = None) -> torch.Tensor:
    """Who sees whom, (tokens, tokens) bool: the prefix (branch 0) and one's own branch, up to one's own place.

    Args:
        branch: (tokens,) 0 for the prefix, then the number of the candidate.
        places: (tokens,) position in the token's own prompt.
        window: Places seen back from and with one's own; None sees all.
    """
    back = places[:, None] - places[None]
    seen = (back >= 0) & ((branch[None] == 0) | (branch[None] == branch[:, None]))
    return seen if window is None else seen & (back < window)


def _masks(model, branch: torch.Tensor, places: torch.Tensor):
    config = model.config.get_text_config()

    def shaped(window: int | None) -> torch.Tensor:
        seen = tree_mask(branch, places, window)[None, None]
        if config._attn_implementation != "eager":
            return seen
        # Eager attention adds its mask: of truth values it would make nothing.
        return torch.zeros_like(seen, dtype=model.dtype).masked_fill(~seen, torch.finfo(model.dtype).min)

    window = getattr(config, "sliding_window", None)
    if config.model_type in MASK_BY_KIND:
        return {"full_attention": shaped(None), "sliding_attention": shaped(window)}
    return shaped(window)


def takes_tree(model) -> bool:
    """Whether this architecture and its attention are known to apply a tree mask in every layer."""
    config = model.config.get_text_config()
    known = config is model.config and config.model_type in ONE_MASK | MASK_BY_KIND
    return known and config._attn_implementation in ("sdpa", "eager")


def _places(start: int, length: int, model) -> torch.Tensor:
    return torch.arange(start, start + length, device=model.device)[None]


@contextmanager
def _through_head(model, pick) -> Iterator[None]:
    """Let only `pick(hidden)` through the language-model head."""
    handle = model.get_output_embeddings().register_forward_pre_hook(
        lambda module, arguments: (pick(arguments[0]), *arguments[1:])
    )
    try:
        yield
    finally:
        handle.remove()


def losses(
    logits: torch.Tensor, labels: torch.Tensor, sizes: Sequence[int], yes: int, no: int, listwise: float = 0.0
) -> torch.Tensor:
    """Loss of each candidate; their mean is the loss of the users.

    Args:
        logits: (candidates, vocabulary), the users' candidates one after the other.
        labels: (candidates,) answer tokens; `yes` once a user.
        sizes: Candidates of each user.
        listwise: 0: the paper's cross-entropy of the answer token over the vocabulary; 1: cross-entropy of the chosen
            candidate over the user's candidates, by the log-odds of yes; their mix between. A user weighs by its candidates.
    """
    logits = logits.float()
    each = (1 - listwise) * F.cross_entropy(logits, labels, reduction="none") if listwise < 1 else torch.zeros(())
    if not listwise:
        return each
    odds = logits[:, yes] - logits[:, no]  # (candidates,)
    chosen = labels == yes
    users = [
        F.cross_entropy(user, picked.int().argmax()).expand(len(user))
        for user, picked in zip(odds.split(list(sizes)), chosen.split(list(sizes)), strict=True)
    ]
    return each + listwise * torch.cat(users)


def choose_plan(model, example: Mapping[str, list[int]], yes: int, no: int, checkpointing: bool = False) -> str:
    """The fastest plan that gives on `example`, a real row, what whole prompts give. Stepping down is said once."""
    wanted = "fork" if not checkpointing else "tree" if takes_tree(model) else "rows"
    name = type(model.get_base_model() if isinstance(model, PeftModel) else model).__name__
    if wanted != "rows":
        try:
            problem = _differs(model, example, wanted, yes, no)
        except (TypeError, AttributeError, RuntimeError, ValueError, IndexError, KeyError) as error:
            problem = f"{type(error).__name__}: {error}"
        if problem is None:
            logger.info(f"{name}: training by the plan {wanted}.")
            return wanted
    else:
        problem = "gradient checkpointing allows no cache, and it takes no tree mask"
    logger.warning(f"{name}: no prefix is shared in training, every prompt goes through whole ({problem}).")
    return "rows"


@torch.no_grad()
def _differs(model, example: Mapping[str, list[int]], plan: str, yes: int, no: int) -> str | None:
    """How `plan` differs from whole prompts on one user; None if it does not."""
    prefix, *suffixes = torch.tensor(example["input_ids"]).split(list(example["seq_lengths"]))
    labels = torch.tensor(example["labels"], device=model.device)
    mode = model.training
    model.eval()  # dropout would differ, and use up random numbers
    try:
        shared, whole = (answer_logits(model, prefix, suffixes, one).float().log_softmax(-1) for one in (plan, "rows"))
    finally:
        model.train(mode)
    loss = (F.nll_loss(shared, labels) - F.nll_loss(whole, labels)).abs().item()
    each = (shared - whole)[:, [yes, no]].abs().max().item()
    # In half precision any two ways of computing differ by some hundredths.
    exact = model.dtype == torch.float32
    if math.isfinite(loss) and loss <= (1e-4 if exact else 0.05) and each <= (1e-3 if exact else 0.15):
        return None
    return f"the plan {plan} would change the loss by {loss:.2g}, an answer by {each:.2g}"


class SharedPrefixTrainer(SFTTrainer):
    """SFTTrainer on rows of `row`: `batch_size` counts users, and a step's loss is the mean over all its candidates.

    Users of a batch go through one after the other: they take as much memory together as apart in accumulation steps they
    take less. Metrics are over answer tokens; `num_tokens` counts what is sent through the model, without padding: a
    shared prefix once. The auxiliary loss of a mixture of experts is left out. Dropout hits a shared prefix once, alike for
    all its candidates.

    Attributes:
        plan: The plan in use.
    """

    def __init__(self, *args, yes_id: int, no_id: int, listwise: float = 0.0, **kwargs) -> None:
        super().__init__(*args, data_collator=collate, **kwargs)
        self.yes_id, self.no_id, self.listwise = yes_id, no_id, listwise
        self.plan = choose_plan(
            self.model, self.train_dataset[0], yes_id, no_id, checkpointing=self.args.gradient_checkpointing
        )
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
        self._measure(logits.detach().float(), labels, lengths)
        return (loss, CausalLMOutput(loss=loss, logits=logits)) if return_outputs else loss

    @torch.no_grad()
    def _measure(self, logits: torch.Tensor, labels: torch.Tensor, lengths: Sequence[Sequence[int]]) -> None:
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
            ).double()
        ).tolist()
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["entropy"].append(entropy / count)
        metrics["mean_token_accuracy"].append(right / count)
        if self.model.training:
            self._total_train_tokens += int(tokens)
        metrics["num_tokens"] = [self._total_train_tokens]


def _take_users(base) -> None:
    """Let `base` take a batch of users in one call, as wrappers for several devices need it: one forward a backward."""
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
