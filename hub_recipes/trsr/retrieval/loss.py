"""Softmax losses over a catalogue: exact, or with sampled items in the denominator. In slices, so that memory is bounded."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

CELLS = 4_000_000  # of one slice of logits; a slice is held about three times


def softmax_loss(
    users: torch.Tensor, items: torch.Tensor, targets: torch.Tensor, met: torch.Tensor | None = None
) -> torch.Tensor:
    """Cross-entropy of each target among all items, less those the user has met.

    Args:
        users: (positions, width).
        items: (items, width).
        targets: (positions,) rows of `items`.
        met: (positions, most) rows of `items` that the user met by then, -1 where there is none; a target counts all the same.

    Returns:
        (positions,)
    """
    logits = users @ items.T  # (positions, items)
    if met is not None:
        position, column = torch.nonzero((met >= 0) & (met != targets[:, None]), as_tuple=True)
        logits = logits.index_put((position, met[position, column]), logits.new_tensor(-torch.inf))
    return F.cross_entropy(logits, targets, reduction="none")


def sampled_softmax_loss(
    users: torch.Tensor,
    items: torch.Tensor,
    targets: torch.Tensor,
    drawn: torch.Tensor,
    log_expected: torch.Tensor,
    met: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross-entropy of each target against an unbiased estimate of the softmax's denominator.

    The target stands in the denominator as it is, with certainty; a drawn item stands for all others, divided by how often it
    is expected among the draws. A draw that is the target, or was met, counts as nothing.

    Args:
        users, items, targets, met: As in `softmax_loss`; `items` may be a part of the catalogue that holds the targets,
            the draws and what was met.
        drawn: (draws,) rows of `items`, drawn with replacement.
        log_expected: (draws,) log of the expected number of draws of that item: draws x its probability.

    Returns:
        (positions,)

    Reference:
        Bengio and Senécal, Adaptive importance sampling to accelerate training of a neural probabilistic language model
        (2008), with the target taken out of what is estimated.
    """
    own = (users * items[targets]).sum(-1, keepdim=True)  # (positions, 1)
    others = users @ items[drawn].T - log_expected  # (positions, draws)
    excluded = torch.zeros(len(targets), len(items), dtype=torch.bool).scatter_(1, targets[:, None], True)
    if met is not None:
        position, column = torch.nonzero(met >= 0, as_tuple=True)
        excluded[position, met[position, column]] = True
    others = others.masked_fill(excluded[:, drawn], -torch.inf)
    return torch.logsumexp(torch.cat([own, others], dim=1), dim=1) - own[:, 0]


def backward_in_slices(
    loss: Callable[[torch.Tensor, torch.Tensor, slice], torch.Tensor],
    users: torch.Tensor,
    items: torch.Tensor,
    cells_a_position: int,
) -> float:
    """Backpropagate the mean of a loss over positions, some positions at a time.

    The logits of one slice are in memory at once, not those of the batch; gradients are the same.

    Args:
        loss: From `users` of a slice, `items` and the slice to losses (positions of the slice,).
        users: (positions, width), `items`: (items, width), both with a graph behind them.
        cells_a_position: Values that the loss makes for a position.

    Returns:
        The mean loss.
    """
    user_leaf, item_leaf = (table.detach().requires_grad_() for table in (users, items))
    step, total = max(1, CELLS // cells_a_position), 0.0
    for start in range(0, len(users), step):
        part = slice(start, start + step)
        mean = loss(user_leaf[part], item_leaf, part).sum() / len(users)
        mean.backward()
        total += mean.item()
    torch.autograd.backward([users, items], [user_leaf.grad, item_leaf.grad])
    return total
