"""Fp32 from weights in half precision, and what counts as more than rounding. Real models, real faults."""

import copy

import pytest
import torch

from tests import tiny
from tests.test_scoring import NO, YES
from trsr.core import exactness
from trsr.core.exactness import Fp32, Reference
from trsr.core.packed import Row
from trsr.core.scoring import Scorer

IDS = torch.arange(3, 43)[None]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "qwen3_5_text", "gpt2", "mamba"])
@torch.no_grad()
def test_fp32_is_what_the_same_weights_give_in_fp32(kind, dtype):
    model = tiny.model(kind).to(dtype)
    whole = copy.deepcopy(model).float()
    kept = copy.deepcopy(model.state_dict())
    with Fp32():
        found = model(IDS).logits
        assert model.dtype == torch.float32
    torch.testing.assert_close(found, whole(IDS).logits, atol=1e-5, rtol=1e-5)
    assert (model(IDS).logits.float() - found).abs().max() > 1e-4
    for name, weight in model.state_dict().items():
        assert weight.dtype == kept[name].dtype
        assert torch.equal(weight, kept[name])


@torch.no_grad()
def test_autocast_is_off_wherever_it_was_turned_on(llama):
    expected = llama(IDS).logits
    # As a Trainer in mixed precision does it: on within the model's own forward.
    llama.forward = torch.autocast("cpu", dtype=torch.bfloat16)(llama.forward)
    assert (llama(IDS).logits - expected).abs().max() > 1e-4
    with torch.autocast("cpu", dtype=torch.bfloat16), Fp32():
        assert torch.equal(llama(IDS).logits, expected)
    assert Scorer(llama, YES, NO).plan == "packed"


@pytest.fixture
def llama():
    return tiny.model("llama")


@pytest.fixture
def half_only(llama):
    """A model whose first layer takes bf16 alone, as some kernels do."""

    def refuse(module, arguments):
        assert arguments[0].dtype == torch.bfloat16, "no fp32 here"

    llama.to(torch.bfloat16).model.layers[0].register_forward_pre_hook(refuse)
    with pytest.raises(AssertionError, match="no fp32 here"), Fp32():
        llama(IDS)
    return llama


def test_a_model_that_takes_no_fp32_is_judged_by_its_own_noise(half_only, monkeypatch):
    assert Scorer(half_only, YES, NO).plan == "packed"
    monkeypatch.setattr(Row, "visible", lambda row, window=None: torch.ones(len(row.owners), 16 + len(row.owners)) > 0)
    assert Scorer(half_only, YES, NO).plan == "fork"


def test_rules_by_hand():
    truth = torch.tensor([[3.0, -3.0]])  # spread: sqrt(18) = 4.243
    reference = Reference(lambda: truth, lambda: truth)
    assert reference.why_not_exact(lambda: truth + 0.0029) is None  # sqrt(2) x 0.0029 / 4.243 = 9.7e-4
    assert reference.why_not_exact(lambda: truth + 0.3) == "it would change the logits by 0.1 of their spread"
    assert reference.why_not_exact(lambda: truth * torch.nan) == "it would change the logits by nan of their spread"
    assert reference.why_not_exact(lambda: truth @ truth).startswith("RuntimeError: ")
    # Where plain ways differ by 0.1 themselves, 0.3 passes and 0.4 does not.
    reference = Reference(lambda: truth, lambda: truth + 0.3)
    assert reference.why_not_exact(lambda: truth - 0.89) is None
    assert reference.why_not_exact(lambda: truth - 1.2) == "it would change the logits by 0.4 of their spread"


def test_plain_ways_that_agree_to_the_bit_leave_room_for_rounding():
    truth = torch.tensor([[3.0, -3.0]], dtype=torch.bfloat16)

    def plain():
        assert torch.zeros(1, dtype=torch.bfloat16).dtype == torch.bfloat16, "no fp32 here"
        return truth

    reference = Reference(plain, plain)
    assert reference.why_not_exact(lambda: truth + 2**-6) is None  # a rounding of 3
    assert reference.why_not_exact(lambda: truth + 0.3)
    assert exactness.NOISE_FACTOR * torch.finfo(torch.bfloat16).eps == 3 * 2**-7
