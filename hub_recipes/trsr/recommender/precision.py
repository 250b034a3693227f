"""Whether a device has arithmetic in bf16. A processor without it computes in bf16 all the same, in several times the time of fp32."""

import logging
from collections.abc import Mapping
from typing import Any

import torch

logger = logging.getLogger(__name__)
_BF16 = ("avx512_bf16", "amx_bf16", "avx10_2", "bf16", "sve_bf16")  # as torch names them
NOTABLE = 50_000_000  # parameters of a model from which on its speed is worth a line


def computes_bf16(cpu: bool) -> bool:
    """Whether the device that trains has arithmetic in bf16; False where torch cannot tell."""
    return bool(processor_computes_bf16()) if cpu else torch.cuda.is_bf16_supported(including_emulation=False)


def processor_computes_bf16() -> bool | None:
    """Whether the processor has arithmetic in bf16: AVX512-BF16, AMX, or ARM's. None where torch cannot tell: before 2.13 it has no
    public function for it, and of some processors it says nothing."""
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if any(capabilities.get(name) for name in _BF16):
        return True
    return False if capabilities.get("avx2") is not None else None


def warn_if_slow(model: torch.nn.Module, base: str) -> None:
    """Say that a model in bf16 is on a processor that is known to have no arithmetic in it."""
    weights = next(model.parameters())
    if weights.device.type != "cpu" or weights.dtype != torch.bfloat16 or processor_computes_bf16() is not False:
        return
    if sum(weight.numel() for weight in model.parameters()) >= NOTABLE:
        logger.warning(
            f"{base} is in bf16, and this processor has no arithmetic in it: in fp32 it would be several times as fast, at twice the "
            "memory. Save it in fp32 and take that folder as the base (trsr base --dtype float32), or use another machine."
        )
