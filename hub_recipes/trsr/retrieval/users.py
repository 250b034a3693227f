"""Vectors of users from the items that they met, as arrays."""

from collections.abc import Sequence

import numpy as np
import torch

from trsr.core import user_model
from trsr.retrieval.network import Ensemble, Network


def user_vectors(network: Network | Ensemble, vectors: np.ndarray, histories: Sequence[np.ndarray]) -> np.ndarray:
    """Vectors (users, width) float32, as `trsr.core.user_model.user_vectors` makes them."""
    return user_model.user_vectors(network.user, torch.from_numpy(vectors), histories).numpy()
