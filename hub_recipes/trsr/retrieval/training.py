"""Train a retriever's networks: at every position of every sequence, a softmax over the items that anyone met.

An item that nobody met is no negative: as one, it would get a low score whatever its text says.
Takes arrays and returns the networks; files are `run`'s and `checkpoint`'s, datasets `run`'s.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from tqdm.auto import tqdm

from trsr.dataset.sequences import Sequences, windows
from trsr.errors import TrainError, UsageError
from trsr.retrieval.batches import Batch, epoch
from trsr.retrieval.checkpoint import Checkpoint, generator_state, restore_generator
from trsr.retrieval.draws import NegativeSampler
from trsr.retrieval.items import Catalogue
from trsr.retrieval.loss import backward_in_slices, sampled_softmax_loss, softmax_loss
from trsr.retrieval.network import Network, Shape
from trsr.retrieval.validation import Validation, measure

FULL_SOFTMAX_ITEMS = 50_000  # most items for which the softmax is over all of them
FINAL_LR_SHARE = 0.05  # final learning rate, as a share of the peak
WARM_UP = 100  # steps, at most a tenth of all
MIN_STEPS_PER_EPOCH = 32  # of an epoch, at least, where there are users enough


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train.

    Attributes:
        epochs: At most; training ends earlier where `patience` epochs bring nothing on validation.
        batch: Sequences a step, at most; fewer where an epoch would have less than MIN_STEPS_PER_EPOCH.
        draws: Items in the softmax's denominator, drawn anew each step; 0 = all that were met, or 8,192 in a catalogue of
            more than FULL_SOFTMAX_ITEMS items.
    """

    epochs: int = 20
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.3
    patience: int = 5
    draws: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch, self.patience) < 1 or min(self.draws, self.seed, self.weight_decay) < 0:
            raise UsageError(
                f"Epochs, batch and patience must be 1 or more, and draws, seed and weight decay not negative; got {self}."
            )
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise UsageError(f"The learning rate must be more than 0, got {self.learning_rate}.")


@dataclass(frozen=True, slots=True)
class Fitted:
    """Trained networks, and how they came about.

    Attributes:
        vectors: (items, width) float32.
        known: (items,) bool: items met in training.
        log: An entry an epoch: `epoch`, `loss` and the figures of `measure`, rounded to 4 digits.
        best: The entry of the epoch that was kept.
    """

    network: Network
    vectors: np.ndarray
    known: np.ndarray
    log: list[dict[str, float]]
    best: Mapping[str, float]


def fit(
    sequences: Sequences,
    n_items: int,
    text: np.ndarray | None,
    shape: Shape,
    settings: Settings,
    validation: Validation,
    checkpoint: Checkpoint | None = None,
) -> Fitted:
    """Train networks on sequences; the epoch that is best on validation is kept.

    Args:
        text: (items, text_width) text vectors, where items have a text part.
        checkpoint: Of the same arguments: gone on from, and written after each epoch.

    Raises:
        TrainError: If the training diverges.
    """
    torch.manual_seed(settings.seed)
    generator = np.random.default_rng(settings.seed)
    network = Network(shape)
    counts = sequences.counts(n_items)
    catalogue = Catalogue.of(text, counts, shape)
    if catalogue.text is not None:
        network.item.scale_to(catalogue.text)
    optimizer = torch.optim.AdamW(_groups(network, settings.weight_decay), lr=settings.learning_rate, betas=(0.9, 0.98))
    pieces = windows(sequences, shape.longest)
    size = min(settings.batch, max(8, len(pieces) // MIN_STEPS_PER_EPOCH))
    steps = settings.epochs * math.ceil(len(pieces) / size)
    draws = settings.draws or (0 if n_items <= FULL_SOFTMAX_ITEMS else 8192)
    draw = NegativeSampler(counts, draws, generator) if draws else None
    log: list[dict[str, float]] = []
    best: dict[str, float] = {}
    best_weights: dict[str, torch.Tensor] = {}
    step = 0
    if checkpoint and (state := checkpoint.state):
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        restore_generator(generator, state["generator"])
        torch.set_rng_state(state["torch"])
        log, best, best_weights, step = list(state["log"]), state["best"], state["kept"], state["step"]
    bar = tqdm(total=steps, initial=step, desc="retriever", unit="step", mininterval=1)
    while len(log) < settings.epochs and (not log or len(log) - best["epoch"] < settings.patience):
        losses = []
        network.train()
        for batch in epoch(pieces, size, generator):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * _share(step, steps)
            optimizer.zero_grad()
            losses.append(_step(network, catalogue, batch, draw))
            if not math.isfinite(losses[-1]):
                raise TrainError(
                    f"The loss of the retriever is {losses[-1]} in step {step + 1}: its training diverges. Lower the learning rate, "
                    f"which is {settings.learning_rate:g}."
                )
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            step += 1
            bar.update()
        figures = measure(network, catalogue.vectors(network), validation)
        log.append({"epoch": len(log) + 1, "loss": float(np.mean(losses)), **figures})
        bar.set_postfix(log[-1], refresh=False)
        if not best or figures["ndcg"] > best["ndcg"]:
            best = log[-1]
            best_weights = {name: value.clone() for name, value in network.state_dict().items()}
        if checkpoint:
            checkpoint.save(
                {
                    "network": network.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "generator": generator_state(generator),
                    "torch": torch.get_rng_state(),
                    "log": log,
                    "best": best,
                    "kept": best_weights,
                    "step": step,
                }
            )
    bar.close()
    network.load_state_dict(best_weights)
    log = [{name: round(value, 4) for name, value in entry.items()} for entry in log]
    return Fitted(network.eval(), catalogue.vectors(network), counts > 0, log, log[int(best["epoch"]) - 1])


def _step(network: Network, catalogue: Catalogue, batch: Batch, draw: NegativeSampler | None) -> float:
    """Gradients of one batch; returns its mean loss."""
    if draw is None:
        items = catalogue.items(network, torch.nonzero(catalogue.known)[:, 0])
        rows = torch.cumsum(catalogue.known, 0) - 1  # of `items`, for the number of an item that was met
        seen, targets, met = rows[batch.items], rows[batch.targets], torch.where(batch.met >= 0, rows[batch.met], -1)
    else:
        # Vectors of those items alone that the step needs; what was met and is not among the draws does not matter.
        drawn, log_expected = draw()
        needed, rows = torch.unique(torch.cat([batch.items.flatten(), batch.targets, drawn]), return_inverse=True)
        items = catalogue.items(network, needed)
        seen, targets, drawn = rows.split([batch.items.numel(), len(batch.targets), len(drawn)])
        seen = seen.view_as(batch.items)
        met = torch.where(batch.met >= 0, seen[batch.row], -1)
    users = network.user(items[seen], batch.counts)[batch.row, batch.column]  # (positions, width)

    def loss(users: torch.Tensor, items: torch.Tensor, part: slice) -> torch.Tensor:
        if draw is None:
            return softmax_loss(users, items, targets[part], met[part])
        return sampled_softmax_loss(users, items, targets[part], drawn, log_expected, met[part])

    return backward_in_slices(loss, users, items, len(items) if draw is None else max(len(items), len(drawn)))


def _groups(network: Network, weight_decay: float) -> list[dict]:
    """Parameters with weight decay, and those without: norms and biases."""
    decayed = [value for name, value in network.named_parameters() if value.ndim > 1 and "distance" not in name]
    others = [value for name, value in network.named_parameters() if not (value.ndim > 1 and "distance" not in name)]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _share(step: int, steps: int) -> float:
    """The learning rate of a step as a share of its peak: a warm-up, then a cosine."""
    return min(1.0, (step + 1) / min(WARM_UP, max(1, steps // 10))) * (
        FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * (1 + math.cos(math.pi * step / steps)) / 2
    )
