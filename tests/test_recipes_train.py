"""Every recipe in the folder runs: one step on a tiny stand-in for its base, then an evaluation."""

import json
import math

import pytest
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from tests import tiny
from trsr.core.modeling import PROMPT_FILE
from trsr.recommender.evaluate import evaluate_run
from trsr.recommender.recipe import load_recipe, names
from trsr.recommender.system_names import BASELINES
from trsr.recommender.train import lora_targets, train


@pytest.mark.parametrize("name", names())
def test_one_step(name, tmp_path):
    written = load_recipe(name)
    assert written.base in tiny.BASES, f"Add the architecture of {written.base} to BASES in tests/tiny.py."
    base = tiny.save_base(written.base, tmp_path / "base")
    dataset = tiny.dataset(tmp_path / "data")
    recipe = load_recipe(
        name,
        [
            f"base={base}",
            f"dataset={dataset}",
            "optim.max_steps=1",
            "optim.bf16=false",
            "optim.device=cpu",
            "optim.batch_size=2",
            "optim.accumulation=1",
        ],
    )
    run = tmp_path / "run"

    record = train(recipe, run)

    assert json.loads((run / "run.json").read_text(encoding="utf-8")) == record
    assert record["recipe"] == recipe.to_dict()
    rows = 12 * (1 + recipe.negatives)
    assert record["data"] | {"config": recipe.summary, "users": 12, "rows": rows, "shortened": 0} == record["data"]
    assert (record["steps"], record["resumed_from_step"], record["device"]) == (1, 0, "cpu")
    assert math.isfinite(record["loss"])
    assert {"torch", "transformers", "trl", "peft"} <= set(record["versions"])
    assert sorted(path.name for path in (run / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        PROMPT_FILE,
    ]
    assert not (run / "checkpoints").exists()

    results = evaluate_run(run, run / "test", limit=2)
    assert set(results["systems"]) == {*BASELINES, name}
    assert 0 <= results["systems"][name]["recall@3"]["value"] <= 1
    assert math.isfinite(results["systems"][name]["mrr@10"]["value"])
    scores = Dataset.from_parquet(str(run / "test" / "scores.parquet"))[name]
    assert len(scores) == 2 * 7
    assert all(map(math.isfinite, scores))
    assert len(set(scores)) > 1


# One recipe a base; what trains it where a row is a user, without gradient checkpointing and with it.
USERS = {
    "nano-sample": ("joint", "joint"),
    "qwen3-0.6b-goodbooks": ("joint", "joint"),
    "gemma3-270m-goodbooks": ("joint", "joint"),
    "smollm3-3b-mind": ("joint", "joint"),
    "gemma4-e2b-mind": ("joint", "joint"),
    "qwen3.5-2b-mind": ("fork", "rows"),
}


@pytest.mark.parametrize("name", USERS)
def test_one_step_on_users(name, tmp_path):
    base = tiny.save_base(load_recipe(name).base, tmp_path / "base")
    dataset = tiny.dataset(tmp_path / "data")
    small = [f"base={base}", f"dataset={dataset}", "form=shared-prefix", "negatives=3", "train_users=4"]
    small += ["optim.max_steps=1", "optim.bf16=false", "optim.device=cpu", "optim.batch_size=4", "optim.accumulation=1"]
    losses = []
    for checkpointing, plan in zip(("false", "true"), USERS[name], strict=True):
        recipe = load_recipe(name, [*small, f"optim.gradient_checkpointing={checkpointing}", "lora.dropout=0"])
        record = train(recipe, tmp_path / checkpointing)
        assert record["plan"] == plan
        assert (record["data"]["users"], record["data"]["rows"]) == (4, 16)
        losses.append(record["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("name", names())
def test_every_target_matches(name, tmp_path):
    """A target that matched nothing would be left out in silence."""
    recipe = load_recipe(name)
    model = AutoModelForCausalLM.from_pretrained(tiny.save_base(recipe.base, tmp_path / "base"))
    adapted = get_peft_model(model, LoraConfig(target_modules=lora_targets(model, recipe.lora.target_modules)))
    touched = {place.split(".lora_A")[0] for place, _ in adapted.named_parameters() if ".lora_A" in place}
    decoder = next(place for place, module in adapted.named_modules() if module is model.get_decoder())
    for target in recipe.lora.target_modules:
        assert any(place.endswith(f".{target}") for place in touched), target
    assert all(place.startswith(f"{decoder}.") for place in touched)
    layers = {place.removeprefix(f"{decoder}.layers.").split(".")[0] for place in touched}
    assert len(layers) == model.config.get_text_config().num_hidden_layers
