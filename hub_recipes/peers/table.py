"""The peers by name: how each is fitted, and the space that its settings are searched in."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from peers import simple
from peers.fitted import Budget, Fitted
from peers.material import Material

Fit = Callable[[Material, dict[str, Any], int, Budget], Fitted]


@dataclass(frozen=True, slots=True)
class Peer:
    """A way of scoring a catalogue.

    Attributes:
        fit: From material, settings, seed and budget.
        space: Setting -> its values; the first one is the default.
        seeded: Whether the seed changes the scores.
    """

    fit: Fit
    space: Mapping[str, Sequence] = field(default_factory=dict)
    seeded: bool = False


def _late(module: str, kind: str) -> Fit:
    """What `peers.MODULE` makes of a kind of peer; imported by the fit alone, since torch and RecTools take seconds."""

    def fit(material: Material, settings: dict[str, Any], seed: int, budget: Budget) -> Fitted:
        return import_module(f"peers.{module}").peer(kind)(material, settings, seed, budget)

    return fit


RECENT = (10, 1, 3, 5, 25)
NETWORK = {
    "n_factors": (64, 128, 256),
    "lr": (2e-3, 5e-4, 1e-3, 4e-3),
    "dropout_rate": (0.2, 0.1, 0.3, 0.5),
    "n_blocks": (2, 1, 3),
}
RETRIEVER = {"dropout": (0.4, 0.2, 0.3, 0.1), "width": (128, 256), "epochs": (40, 20, 12), "batch": (256, 64)}
PEERS = {
    "retriever": Peer(_late("ours", "retriever"), RETRIEVER, seeded=True),
    "retriever-minilm": Peer(_late("ours", "retriever-minilm"), RETRIEVER, seeded=True),
    "retriever-sasrec": Peer(
        _late("ours", "retriever-sasrec"),
        {"width": (64, 128), "dropout": (0.2, 0.3, 0.1, 0.4), "epochs": (20, 12, 40), "batch": (128, 256, 64)},
        seeded=True,
    ),
    "popularity": Peer(simple.popularity),
    "item-knn": Peer(simple.item_knn, {"recent": RECENT, "shrink": (10.0, 0.0, 30.0, 100.0)}),
    "tf-idf": Peer(simple.tfidf, {"recent": RECENT}),
    "bm25": Peer(simple.bm25, {"recent": RECENT, "k1": (1.2, 0.6, 2.4), "b": (0.75, 0.3)}),
    "minilm": Peer(simple.minilm, {"recent": (25, 10, 5, 3), "count": (3, 1, 5)}),
    "ease": Peer(simple.ease, {"regularization": (500.0, 10.0, 30.0, 100.0, 250.0, 1000.0, 2000.0)}),
    "als": Peer(
        simple.als,
        {
            "factors": (128, 64, 256),
            "regularization": (0.01, 0.1, 1.0, 10.0),
            "alpha": (10.0, 1.0, 40.0, 100.0),
            "iterations": (15, 30),
        },
        seeded=True,
    ),
    "sasrec": Peer(_late("networks", "sasrec"), NETWORK, seeded=True),
    "esasrec": Peer(_late("networks", "esasrec"), NETWORK, seeded=True),
    "sasrec-features": Peer(_late("networks", "sasrec-features"), NETWORK, seeded=True),
    "hstu": Peer(_late("networks", "hstu"), NETWORK, seeded=True),
    "bert4rec": Peer(_late("networks", "bert4rec"), {**NETWORK, "mask_prob": (0.3, 0.15)}, seeded=True),
    "gru4rec": Peer(_late("networks", "gru4rec"), {**NETWORK, "n_blocks": (1, 2)}, seeded=True),
}
