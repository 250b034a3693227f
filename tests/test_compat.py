"""What differs between versions of transformers and peft is asked of the model, and adapters are left as they were."""

import pytest
import torch
from peft import LoraConfig, get_peft_model, inject_adapter_in_model
from transformers import LlamaForCausalLM

from tests import tiny
from trsr.core.compat import (
    adapter_layers,
    attention_of,
    cache_name,
    last_logits_only,
    use_adapter,
    using_adapter,
    without_peft,
)
from trsr.core.forward import exclusive

LORA = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
IDS = torch.arange(7, 27)[None]


class Earlier(torch.nn.Module):
    """A model that calls its cache as transformers did before 5.24."""

    def forward(self, input_ids, past_key_values=None):
        pass


class Between(torch.nn.Module):
    """One that takes both names, to warn of the older one."""

    def forward(self, input_ids, cache=None, past_key_values=None, logits_to_keep=0):
        pass


class Later(torch.nn.Module):
    """One whose forward does not say what it takes."""

    def forward(self, *args, **kwargs):
        pass


@pytest.mark.parametrize(("kind", "name"), [(Earlier, "past_key_values"), (Between, "cache"), (Later, "cache")])
def test_the_cache_has_the_name_that_the_model_gives_it(kind, name):
    assert cache_name(kind()) == name
    assert last_logits_only(kind()) == ({"logits_to_keep": 1} if kind is Between else {})


def test_the_name_is_right_for_this_transformers():
    """A model takes the cache by it without a warning, and its output has it."""
    model = tiny.model("llama")
    seen = model(IDS, use_cache=True)
    cache = getattr(seen, cache_name(model))
    assert cache.get_seq_length() == IDS.shape[1]
    behind = model(IDS[:, :1], use_cache=True, **{cache_name(model): cache}, **last_logits_only(model))
    assert behind.logits.shape[1] == 1
    assert cache.get_seq_length() == IDS.shape[1] + 1


def test_wrappers_do_not_hide_the_name():
    model = tiny.model("llama")
    name = cache_name(model)
    assert cache_name(get_peft_model(model, LORA)) == name
    forward = model.forward
    model.forward = lambda *args, **kwargs: forward(*args, **kwargs)
    assert cache_name(model) == name


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_attention_of_a_loaded_model(attention):
    assert (
        attention_of(LlamaForCausalLM._from_config(tiny.model("llama").config, attn_implementation=attention).config)
        == attention
    )


def two_adapters():
    model = inject_adapter_in_model(LORA, tiny.model("llama"), "default")
    other = LoraConfig(r=4, target_modules=["q_proj", "o_proj"], init_lora_weights=False)
    inject_adapter_in_model(other, model, "summarizer")
    use_adapter(model, "default")
    return model.eval()


def state(model):
    return [
        (layer.disable_adapters, list(layer.active_adapters), [weight.requires_grad for weight in layer.parameters()])
        for layer in adapter_layers(model)
    ]


@pytest.mark.parametrize("name", [None, "default", "summarizer"])
def test_an_adapter_is_used_and_all_is_as_it_was(name):
    model = two_adapters()
    for number, weight in enumerate(model.parameters()):
        weight.requires_grad_(number % 3 == 0)
    before, logits = state(model), model(IDS).logits
    with using_adapter(model, name):
        inside = model(IDS).logits
    assert torch.equal(inside, logits) == (name == "default")
    assert state(model) == before
    assert torch.equal(model(IDS).logits, logits)
    with pytest.raises(RuntimeError, match="in the middle"), using_adapter(model, name):
        raise RuntimeError("in the middle")
    assert state(model) == before


def test_the_base_alone_is_the_base():
    torch.manual_seed(0)
    bare = tiny.model("llama")(IDS).logits
    model = two_adapters()
    with using_adapter(model, None):
        assert torch.equal(model(IDS).logits, bare)
        with using_adapter(model, "summarizer"):
            assert not torch.equal(model(IDS).logits, bare)
        assert torch.equal(model(IDS).logits, bare)


def test_a_peft_model_and_what_is_in_it_have_one_lock():
    model = tiny.model("llama")
    adapted = get_peft_model(model, LORA)
    assert without_peft(adapted) is model
    assert exclusive(adapted) is exclusive(model)
    assert exclusive(tiny.model("llama")) is not exclusive(model)
    with exclusive(model), exclusive(adapted):
        pass


def test_a_model_without_adapters_has_no_layers_of_them():
    model = tiny.model("llama")
    assert adapter_layers(model) == []
    with using_adapter(model, None):
        assert model(IDS).logits.shape[0] == 1
