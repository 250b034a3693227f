"""What is counted of a recipe's memory, against small models that are really made, run and trained."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, DynamicCache

from tests import tiny
from trsr.core.compat import cache_name
from trsr.errors import RecipeError
from trsr.recommender import memory
from trsr.recommender.memory import CARDS, USABLE, cache_bytes, count_parameters, estimate_memory, table
from trsr.recommender.recipe import Lora, Optim, Recipe, load_recipe, names

ROOT = Path(__file__).parent.parent
RESULTS = json.loads((ROOT / "hub_recipes" / "results" / "fits.json").read_text())


def size(tensors):
    return sum(one.numel() * one.element_size() for one in tensors)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "qwen3_5_text"])
def test_what_is_counted_is_what_is_there(kind, tmp_path):
    tiny.model(kind).save_pretrained(tmp_path / "base")
    modules = ("q_proj", "v_proj")
    found = count_parameters(str(tmp_path / "base"), None, Lora(target_modules=modules))

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.bfloat16)
    assert 2 * found["parameters"] == size(model.parameters())
    caches = [DynamicCache(config=model.config) for _ in range(2)]
    for cache, tokens in zip(caches, (30, 70), strict=True):
        with torch.no_grad():
            model(torch.ones(1, tokens, dtype=torch.long), **{cache_name(model): cache})
    assert found["cache_of_1000_tokens"] == 1000 * (cache_bytes(caches[1]) - cache_bytes(caches[0])) / 40
    assert found["cache_of_no_length"] == cache_bytes(caches[0]) - 30 * found["cache_of_1000_tokens"] / 1000

    adapted = get_peft_model(model, LoraConfig(r=8, target_modules=list(modules), task_type="CAUSAL_LM"))
    trained = [one for one in adapted.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    adapted(torch.ones(1, 8, dtype=torch.long), labels=torch.ones(1, 8, dtype=torch.long)).loss.backward()
    optimizer.step()
    moments = [one[name] for one in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    held = size(trained) + size(one.grad for one in trained) + size(moments)
    recipe = Recipe(base=str(tmp_path / "base"), dataset="sample", lora=Lora(target_modules=modules))
    assert estimate_memory([recipe])["recipes"]["run"]["adapter_gradients_and_optimizer"] == held


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fits") / "base"
    tiny.model("llama").save_pretrained(folder)
    return str(folder)


def of(base, **changes):
    """What is counted of a recipe without bf16, with batches of 2 and 20 negatives."""
    optim = Optim(batch_size=2, bf16=False)
    recipe = Recipe(
        base=base, dataset="sample", lora=Lora(target_modules=("q_proj",)), optim=optim, **{"negatives": 20, **changes}
    )
    return estimate_memory([recipe])["recipes"]["run"]


def test_tokens_are_counted_by_form(base):
    config = tiny.model("llama").config
    layers, width, vocabulary = config.num_hidden_layers, config.hidden_size, config.vocab_size
    flat, shared = of(base, max_tokens=100), of(base, max_tokens=100, form="shared-prefix")
    fewer = of(base, max_tokens=100, form="shared-prefix", negatives=1)
    for found, tokens, predictions in ((flat, 200, 200), (shared, 2 * (100 + 20 * 64), 42), (fewer, 2 * 164, 4)):
        assert found["activations_estimated"] == (2 * layers + 34) * tokens * width
        assert found["activations_without_checkpointing_estimated"] == 34 * layers * tokens * width
        assert found["logits_estimated"] == 12 * predictions * vocabulary
        parts = ("weights", "adapter_gradients_and_optimizer", "activations_estimated", "logits_estimated")
        assert found["training"] == sum(found[part] for part in parts)


def test_recurrent_layers_share_no_prefix_with_checkpointing(tmp_path):
    tiny.model("qwen3_5_text").save_pretrained(tmp_path / "base")
    found = of(str(tmp_path / "base"), max_tokens=100, form="shared-prefix")
    layers, width = found["layers"], found["width"]
    assert found["activations_estimated"] == (2 * layers + 34) * 2 * 21 * 100 * width
    assert found["activations_without_checkpointing_estimated"] == 34 * layers * 2 * (100 + 20 * 64) * width


def test_no_longest_prompt_is_that_of_the_context(base, monkeypatch):
    context = tiny.model("llama").config.max_position_embeddings
    assert of(base, max_tokens=0) == of(base, max_tokens=context) == of(base, max_tokens=10 * context)
    assert of(base, max_tokens=0)["activations_estimated"]
    unknown = Recipe(base="google/gemma-4-E2B-it", dataset="sample", max_tokens=0)
    monkeypatch.setattr(memory, "count_parameters", lambda *base: {"parameters": 1, "adapter": 1, "context": 0})
    with pytest.raises(RecipeError, match="max_tokens is 0, the context of google/gemma-4-E2B-it, which is not known"):
        estimate_memory([unknown])


def test_the_smallest_card_that_holds_it():
    for one in RESULTS["recipes"].values():
        for use, card in one["card"].items():
            smaller = [gb for gb in CARDS if card is None or gb < card]
            assert all(one[use] > USABLE * gb * 1e9 for gb in smaller)
            assert card is None or one[use] <= USABLE * card * 1e9


def test_the_results_are_those_of_the_recipes():
    assert sorted(RESULTS["recipes"]) == names()
    some = [load_recipe(name) for name in ("nano-sample", "qwen3-0.6b-goodbooks")]
    assert estimate_memory(some)["recipes"].items() <= RESULTS["recipes"].items()
    assert RESULTS["recipes"]["llama2-7b-mind"]["parameters"] == 6_738_415_616  # as published


def test_the_table_names_every_recipe():
    assert all(f"| {name} |" in table(RESULTS) for name in names())
