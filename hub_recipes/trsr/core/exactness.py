"""Test whether a fast way to compute logits gives the same as a plain way, but for rounding.

In half precision any two exact ways differ by some per cent, which hides a wrong mask, window, position or state. So ways
are first compared in fp32, from the same weights, where exact ones agree to about 1e-6. Then in the precision in use: there
a fast way may be as far from the fp32 logits as plain ways are, within a factor. Where the model does not run in fp32, the
yardstick is how far two plain ways are from one another in its precision: gross faults show, small ones do not.

Knows nothing of plans or prompts: a way is a function without arguments that returns logits.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from functools import cached_property

import torch
from torch.overrides import TorchFunctionMode

Way = Callable[[], torch.Tensor]
Precision = type[AbstractContextManager]

# Allowed drift, as a part of the spread of the logits. In fp32 exact ways drift by 1e-6; with positions shifted by 1, a
# pretrained model drifts by 0.1.
ALLOWED = 1e-3
# Allowed drift, as a multiple of the noise. In bf16 the noise of pretrained models is 0.05 of the spread.
ALLOWED_NOISE = 3
# Errors that a model may raise where it does not support a way.
ERRORS = (TypeError, AttributeError, RuntimeError, ValueError, IndexError, KeyError, AssertionError)

_HALF = (torch.bfloat16, torch.float16)


class Fp32(TorchFunctionMode):
    """A context in which torch computes in fp32, whatever the precision of the weights, with or without autocast.

    Each operation gets its half-precision tensors in fp32, for itself alone: without gradients, no second copy of all weights
    is kept. Writing into such a tensor has no effect. Kernels that are not torch's own may stay in half precision, or raise.
    """

    def __init__(self) -> None:
        super().__init__()
        accelerator = torch.accelerator.current_accelerator()
        self._kinds = {"cpu", accelerator.type if accelerator else "cpu"}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name == "__get__":  # an attribute, such as dtype
            return _raised(func(*args))
        if name == "__set__":
            return func(*args)
        with ExitStack() as stack:
            # Here, because a model prepared for mixed precision turns autocast on in its own forward.
            for kind in filter(torch.is_autocast_enabled, self._kinds):
                stack.enter_context(torch.autocast(kind, enabled=False))
            return func(*_raised(tuple(args)), **{key: _raised(value) for key, value in (kwargs or {}).items()})


class Reference:
    """The logits of a model by plain ways, to compare fast ways with.

    Args:
        plain: Gives the logits (..., vocabulary), each prompt by itself.
        again: Gives the same by another plain way, such as a padded batch of all prompts.
    """

    def __init__(self, plain: Way, again: Way) -> None:
        self._plain, self._again = plain, again
        self._noises: dict[Precision, float] = {}

    @torch.no_grad()
    def fault(self, fast: Way) -> str | None:
        """Why a fast way may not be used: its error or its drift; None if it is exact."""
        stages = self._stages
        try:
            for precision, truth, noise in stages:
                drift = _distance(_logits(fast, precision), truth)
                # Written so that NaN is a fault.
                if not (drift <= max(ALLOWED, noise) or drift <= self._noise(precision, truth)):
                    return f"it would change the logits by {drift:.2g} of their spread"
        except ERRORS as error:
            return f"{type(error).__name__}: {error}"
        return None

    @cached_property
    def _stages(self) -> list[tuple[Precision, torch.Tensor, float]]:
        """The precisions to compare in, each with its true logits and the noise that is known without `again`."""
        in_use = self._plain()
        # Two plain ways may agree to the last bit where a fast one rounds differently.
        rounding = ALLOWED_NOISE * torch.finfo(in_use.dtype).eps
        in_use = in_use.float()
        # A kernel without fp32 may raise anything; the second plain way is the yardstick then.
        with suppress(Exception):
            truth = _logits(self._plain, Fp32)
            precision_in_use = (nullcontext, truth, ALLOWED_NOISE * _distance(in_use, truth))
            return [(Fp32, truth, 0.0)] if torch.equal(in_use, truth) else [(Fp32, truth, 0.0), precision_in_use]
        return [(nullcontext, in_use, rounding)]

    def _noise(self, precision: Precision, truth: torch.Tensor) -> float:
        if precision not in self._noises:
            self._noises[precision] = ALLOWED_NOISE * _distance(_logits(self._again, precision), truth)
        return self._noises[precision]


def _logits(way: Way, precision: Precision) -> torch.Tensor:
    with precision():
        return way().float()


def _distance(logits: torch.Tensor, truth: torch.Tensor) -> float:
    """Distance of logits from the true ones, relative to the spread of the true ones."""
    spread = (truth - truth.mean(-1, keepdim=True)).norm()
    return ((logits - truth).norm() / spread.clamp(min=1e-6)).item()


def _raised(value):
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype in _HALF else value
    if type(value) in (list, tuple):
        return type(value)(map(_raised, value))
    return torch.float32 if isinstance(value, torch.dtype) and value in _HALF else value
