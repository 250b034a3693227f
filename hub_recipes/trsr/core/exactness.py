"""Check that a fast computation of logits gives the reference logits, up to rounding.

In half precision two exact computations differ by some per cent, which hides a wrong mask, window, position or state. So they
are first compared in fp32, from the same weights, where exact ones agree to about 1e-6. Then in the precision in use: there
the fast one may differ from the fp32 logits as much as the reference does, within a factor. Where the model does not run in
fp32, the tolerance is the difference of two references in its precision: that shows large errors, and no small ones.

Knows nothing of plans or prompts: a computation is a function without arguments that returns logits.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from functools import cached_property

import torch
from torch.overrides import TorchFunctionMode

LogitsFunction = Callable[[], torch.Tensor]
Precision = type[AbstractContextManager]

# Allowed drift, as a part of the spread of the logits. In fp32 exact ways drift by 1e-6; with positions shifted by 1, a
# pretrained model drifts by 0.1.
TOLERANCE = 1e-3
# Allowed drift, as a multiple of the noise. In bf16 the noise of pretrained models is 0.05 of the spread.
NOISE_FACTOR = 3
# Errors that a model may raise where it does not support a computation.
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
            return _to_fp32(func(*args))
        if name == "__set__":
            return func(*args)
        with ExitStack() as stack:
            # Here, because a model prepared for mixed precision turns autocast on in its own forward.
            for kind in filter(torch.is_autocast_enabled, self._kinds):
                stack.enter_context(torch.autocast(kind, enabled=False))
            return func(*_to_fp32(tuple(args)), **{key: _to_fp32(value) for key, value in (kwargs or {}).items()})


class Reference:
    """Reference logits of a model, to compare fast computations with.

    Args:
        reference: Gives the logits (..., vocabulary), each prompt by itself.
        second: Gives the same logits in another simple way, such as a padded batch of all prompts.
    """

    def __init__(self, reference: LogitsFunction, second: LogitsFunction) -> None:
        self._reference, self._second = reference, second
        self._noises: dict[Precision, float] = {}

    @torch.no_grad()
    def why_not_exact(self, fast: LogitsFunction) -> str | None:
        """Why a fast computation may not be used: its error or its drift; None if it is exact."""
        stages = self._stages
        try:
            for precision, truth, noise in stages:
                drift = _distance(_logits(fast, precision), truth)
                # Written so that NaN counts as drift.
                if not (drift <= max(TOLERANCE, noise) or drift <= self._noise(precision, truth)):
                    return f"it would change the logits by {drift:.2g} of their spread"
        except ERRORS as error:
            return f"{type(error).__name__}: {error}"
        return None

    @cached_property
    def _stages(self) -> list[tuple[Precision, torch.Tensor, float]]:
        """The precisions to compare in, each with its true logits and the noise that is known without the second reference."""
        in_use = self._reference()
        # Both references may agree to the last bit where the fast computation rounds differently.
        rounding = NOISE_FACTOR * torch.finfo(in_use.dtype).eps
        in_use = in_use.float()
        # A kernel without fp32 may raise anything; the second reference gives the tolerance then.
        with suppress(Exception):
            truth = _logits(self._reference, Fp32)
            precision_in_use = (nullcontext, truth, NOISE_FACTOR * _distance(in_use, truth))
            return [(Fp32, truth, 0.0)] if torch.equal(in_use, truth) else [(Fp32, truth, 0.0), precision_in_use]
        return [(nullcontext, in_use, rounding)]

    def _noise(self, precision: Precision, truth: torch.Tensor) -> float:
        if precision not in self._noises:
            self._noises[precision] = NOISE_FACTOR * _distance(_logits(self._second, precision), truth)
        return self._noises[precision]


def _logits(compute: LogitsFunction, precision: Precision) -> torch.Tensor:
    with precision():
        return compute().float()


def _distance(logits: torch.Tensor, truth: torch.Tensor) -> float:
    """Distance of logits from the true ones, relative to the spread of the true ones."""
    spread = (truth - truth.mean(-1, keepdim=True)).norm()
    return ((logits - truth).norm() / spread.clamp(min=1e-6)).item()


def _to_fp32(value):
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype in _HALF else value
    if type(value) in (list, tuple):
        return type(value)(map(_to_fp32, value))
    return torch.float32 if isinstance(value, torch.dtype) and value in _HALF else value
