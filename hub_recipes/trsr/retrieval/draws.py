"""Items for a sampled softmax, drawn anew each step, and how often each is expected."""

import numpy as np
import torch


class NegativeSampler:
    """Items for the denominator, of those that were met: half by how often, half uniformly, with replacement.

    Args:
        counts: (items,) interactions with each.
        size: Items a step.
    """

    def __init__(self, counts: np.ndarray, size: int, generator: np.random.Generator) -> None:
        self.size, self._generator = size, generator
        seen = counts > 0
        chances = (counts / counts.sum() + seen / seen.sum()) / 2  # of each item
        self._ends = np.cumsum(chances)
        self._log_expected = torch.from_numpy(
            np.log(chances * size, where=seen, out=np.full(len(counts), -np.inf))
        ).float()

    def __call__(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Numbers of items (size,), and the log of how often each is expected among them."""
        places = self._generator.random(self.size) * self._ends[-1]
        numbers = torch.from_numpy(np.searchsorted(self._ends, places, side="right").clip(max=len(self._ends) - 1))
        return numbers, self._log_expected[numbers]
