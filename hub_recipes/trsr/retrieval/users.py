"""Vectors of users from the items that they met."""

from collections.abc import Sequence

import numpy as np
import torch

from trsr.retrieval.batches import padded
from trsr.retrieval.network import Network

BATCH = 256  # users


@torch.no_grad()
def user_vectors(network: Network, vectors: np.ndarray, histories: Sequence[np.ndarray]) -> np.ndarray:
    """Vectors (users, width) float32 after the whole of each history; its newest items count.

    Args:
        vectors: (items, width) of the catalogue.
        histories: Numbers of items, oldest first; may be empty.
    """
    network.eval()
    table, longest = torch.from_numpy(vectors), network.shape.longest
    made = np.empty((len(histories), vectors.shape[1]), np.float32)
    order = np.argsort([len(history) for history in histories], kind="stable")
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        newest = [histories[number][-longest:] for number in chosen]
        after = network.user(table[padded(newest)])  # (users, length + 1, width)
        made[chosen] = after[torch.arange(len(newest)), torch.tensor([len(items) for items in newest])].numpy()
    return made
