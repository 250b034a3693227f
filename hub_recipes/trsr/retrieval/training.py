"""Train a retriever's networks: at every position of every sequence, a softmax over the catalogue.

Takes arrays and returns the networks; files and datasets are `run`'s.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm.auto import tqdm

from trsr.retrieval.batches import Batch, epoch
from trsr.retrieval.loss import backward_in_slices, sampled_softmax_loss, softmax_loss
from trsr.retrieval.network import Network, Shape
from trsr.retrieval.sequences import Sequences, windows
from trsr.retrieval.users import user_vectors

FULL = 50_000  # most items for which the softmax is over all of them
LEAST = 0.05  # final learning rate, as a share of the peak
WARM_UP = 100  # steps


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train.

    Attributes:
        epochs: At most; training ends earlier where `patience` epochs bring nothing on validation.
        batch: Sequences a step.
        draws: Items in the softmax's denominator, drawn anew each step; 0 = all up to FULL items, else 8,192.
    """

    epochs: int = 40
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    patience: int = 5
    draws: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Validation:
    """Users whose next item is known but not trained on.

    Attributes:
        histories: Numbers of items, oldest first.
        targets: (users,) the item that came next.
    """

    histories: Sequence[np.ndarray]
    targets: np.ndarray


@dataclass(frozen=True, slots=True)
class Fitted:
    """Trained networks, and how they came about.

    Attributes:
        vectors: (items, width) float32.
        known: (items,) bool: items met in training.
        log: An entry an epoch: `epoch`, `loss` and the figures of `measure`.
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
) -> Fitted:
    """Train networks on sequences; the epoch that is best on validation is kept.

    Args:
        text: (items, text_width) text vectors, where items have a text part.
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
    steps = settings.epochs * math.ceil(len(pieces) / settings.batch)
    draws = settings.draws or (0 if n_items <= FULL else 8192)
    draw = Draws(counts, draws, generator) if draws else None
    log: list[dict[str, float]] = []
    best: dict[str, float] = {}
    kept: dict[str, torch.Tensor] = {}
    bar = tqdm(total=steps, desc="retriever", unit="step", mininterval=1)
    for number in range(settings.epochs):
        losses = []
        network.train()
        for batch in epoch(pieces, settings.batch, generator):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * _share(bar.n, steps)
            optimizer.zero_grad()
            losses.append(_step(network, catalogue, batch, draw))
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            bar.update()
        figures = measure(network, catalogue.vectors(network), validation)
        log.append({"epoch": number + 1, "loss": round(float(np.mean(losses)), 4), **figures})
        bar.set_postfix(log[-1], refresh=False)
        if not best or figures["ndcg"] > best["ndcg"]:
            best = log[-1]
            kept = {name: value.clone() for name, value in network.state_dict().items()}
        elif number + 1 - best["epoch"] >= settings.patience:
            break
    bar.close()
    network.load_state_dict(kept)
    return Fitted(network.eval(), catalogue.vectors(network), counts > 0, log, best)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What item vectors are made from.

    Attributes:
        text: (items, text_width), if they have a text part.
        known: (items,) bool, as `ItemTower` takes it.
        ids: Whether they have an id part.
    """

    text: torch.Tensor | None
    known: torch.Tensor
    ids: bool

    @classmethod
    def of(cls, text: np.ndarray | None, counts: np.ndarray, shape: Shape) -> "Catalogue":
        return cls(None if text is None else torch.from_numpy(text), torch.from_numpy(counts > 0), bool(shape.ids))

    def items(self, network: Network, numbers: torch.Tensor) -> torch.Tensor:
        """Vectors (items, width) of some items."""
        text = None if self.text is None else self.text[numbers]
        return network.item(text, numbers if self.ids else None, self.known[numbers])

    @torch.no_grad()
    def vectors(self, network: Network, block: int = 8192) -> np.ndarray:
        """Vectors (items, width) float32 of all items, without dropout."""
        network.eval()
        numbers = torch.arange(len(self.known))
        return torch.cat([self.items(network, part) for part in numbers.split(block)]).numpy()


class Draws:
    """Items for the denominator: half by how often they were met, half uniformly, with replacement.

    Args:
        counts: (items,) interactions with each.
        size: Items a step.
    """

    def __init__(self, counts: np.ndarray, size: int, generator: np.random.Generator) -> None:
        self.size, self._generator = size, generator
        chances = (counts / counts.sum() + 1 / len(counts)) / 2  # of each item
        self._ends = np.cumsum(chances)
        self._log_expected = torch.from_numpy(np.log(chances * size)).float()

    def __call__(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Numbers of items (size,), and the log of how often each is expected among them."""
        places = self._generator.random(self.size) * self._ends[-1]
        numbers = torch.from_numpy(np.searchsorted(self._ends, places, side="right").clip(max=len(self._ends) - 1))
        return numbers, self._log_expected[numbers]


def _step(network: Network, catalogue: Catalogue, batch: Batch, draw: Draws | None) -> float:
    """Gradients of one batch; returns its mean loss."""
    if draw is None:
        items = catalogue.items(network, torch.arange(len(catalogue.known)))
        seen, targets, met = batch.items, batch.targets, batch.met
        cells = len(items)
    else:
        # Vectors of those items alone that the step needs; what was met and is not among the draws does not matter.
        drawn, log_expected = draw()
        needed, rows = torch.unique(torch.cat([batch.items.flatten(), batch.targets, drawn]), return_inverse=True)
        items = catalogue.items(network, needed)
        seen, targets, drawn = rows.split([batch.items.numel(), len(batch.targets), len(drawn)])
        seen = seen.view_as(batch.items)
        met = torch.where(batch.met >= 0, seen[batch.row], -1)
        cells = len(drawn) * (1 + met.shape[1] // 4)
    users = network.user(items[seen])[batch.row, batch.column]  # (positions, width)

    def loss(users: torch.Tensor, items: torch.Tensor, part: slice) -> torch.Tensor:
        if draw is None:
            return softmax_loss(users, items, targets[part], met[part])
        return sampled_softmax_loss(users, items, targets[part], drawn, log_expected, met[part])

    return backward_in_slices(loss, users, items, cells)


def measure(network: Network, vectors: np.ndarray, validation: Validation) -> dict[str, float]:
    """How high the next item of validation users stands among all items that they have not met.

    Returns:
        `recall@10`, and `ndcg` without a cut: the mean of 1 / log2(1 + rank).
    """
    ranks = np.empty(len(validation.targets))
    rows = max(1, 4_000_000 // len(vectors))
    for start in range(0, len(ranks), rows):
        histories, targets = validation.histories[start : start + rows], validation.targets[start : start + rows]
        scores = user_vectors(network, vectors, histories) @ vectors.T  # (users, items)
        own = scores[np.arange(len(targets)), targets]
        for row, history in enumerate(histories):
            scores[row, history] = -np.inf
        ranks[start : start + rows] = 1 + (scores > own[:, None]).sum(axis=1)
    return {
        "recall@10": round(float((ranks <= 10).mean()), 4),
        "ndcg": round(float((1 / np.log2(1 + ranks)).mean()), 4),
    }


def _groups(network: Network, weight_decay: float) -> list[dict]:
    """Parameters with weight decay, and those without: norms and biases."""
    decayed = [value for name, value in network.named_parameters() if value.ndim > 1 and "distance" not in name]
    others = [value for name, value in network.named_parameters() if not (value.ndim > 1 and "distance" not in name)]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _share(step: int, steps: int) -> float:
    """The learning rate of a step as a share of its peak: a warm-up, then a cosine."""
    return min(1.0, (step + 1) / WARM_UP) * (LEAST + (1 - LEAST) * (1 + math.cos(math.pi * step / steps)) / 2)
