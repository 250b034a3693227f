"""A release whose adapter repo holds a second adapter, which summarises: from the run's folder to strangers on the Hub."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from huggingface_hub import HfApi
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.hub import Hub, environment
from trsr.assets.paths import NANO, base_path
from trsr.core.compat import adapter_layers
from trsr.core.errors import LoadError
from trsr.core.modeling import TextRichRecommender
from trsr.hub import release
from trsr.hub.inputs import ReleaseInputs
from trsr.hub.preflight import Options
from trsr.hub.publish import push_release
from trsr.hub.repos import LOCAL, name_repos
from trsr.recommender import serving, summary_origin

pytestmark = pytest.mark.compat


@pytest.fixture(scope="module")
def summarizer(tmp_path_factory):
    """An untrained adapter on the nano base, of other modules and another rank than the one that ranks."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(base_path("nano"))
    lora = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    folder = tmp_path_factory.mktemp("summarizer")
    get_peft_model(base, lora).save_pretrained(folder)
    (folder / "README.md").write_text("# Summarises\n")
    return folder


@pytest.fixture
def brought(summarizer, monkeypatch):
    for module in (release, serving, summary_origin):
        monkeypatch.setattr(module, "summarizer_path", lambda base, named=None: summarizer if base == "nano" else None)
    return summarizer


@pytest.fixture
def extractive(quickstarted):
    """A run whose summaries are extractive."""
    return quickstarted[0] / "runs" / "recurrent"


@pytest.fixture
def run(extractive, tmp_path):
    """The same, whose data say that the nano summarizer wrote them."""
    data = shutil.copytree(extractive.parent.parent / "dataset", tmp_path / "data")
    provenance = json.loads((data / "provenance.json").read_text())
    sampling = {"do_sample": False, "max_new_tokens": 160}
    provenance["summaries"] |= {"engine": "nano", "model": "nano", "revision": None, "sampling": sampling}
    (data / "provenance.json").write_text(json.dumps(provenance))
    copy = shutil.copytree(extractive, tmp_path / "run")
    recipe = yaml.safe_load((copy / "recipe.yaml").read_text()) | {"dataset": str(data)}
    (copy / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return copy


def test_the_release_folder(run, brought, tmp_path):
    release.assemble(ReleaseInputs.read(run), tmp_path / "release", LOCAL)
    second = tmp_path / "release" / "adapter" / "summarizer"
    assert json.loads((second / "adapter_config.json").read_text())["base_model_name_or_path"] == "../base"
    settings = json.loads((tmp_path / "release" / "pipeline" / "config.json").read_text())["trsr"]
    assert settings["summarizer_adapter"] == "summarizer"
    assert settings["summarizer"] == "adapter"
    model = TextRichRecommender.from_pretrained(tmp_path / "release" / "pipeline")
    assert {tuple(layer.active_adapters) for layer in adapter_layers(model)} == {("default",)}
    mine = load_file(second / "adapter_model.safetensors")
    loaded = model.get_parameter("model.layers.0.self_attn.q_proj.lora_A.summarizer.weight")
    expected = mine["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"]
    assert torch.equal(loaded, expected)


def test_what_did_not_write_the_summaries_is_not_brought(extractive, brought, tmp_path):
    made = release.assemble(ReleaseInputs.read(extractive), tmp_path / "release", name_repos("ORG", "one"))
    assert not (tmp_path / "release" / "adapter" / "summarizer").exists()
    settings = json.loads((tmp_path / "release" / "pipeline" / "config.json").read_text())["trsr"]
    assert (settings["summarizer"], settings["summarizer_adapter"]) == ("extractive", None)
    assert not made.facts.summarises
    for kind in ("adapter", "pipeline"):
        card = (tmp_path / "release" / kind / "README.md").read_text()
        assert "second adapter" not in card
        assert "written by `extractive`, counts of field values without a language model" in card


STRANGER = """
import json, sys, torch
from peft import PeftModel
from peft.functional import set_adapter
from transformers import AutoModelForCausalLM, pipeline
pipe = pipeline("text-rich-recommendation", model="ORG/two", trust_remote_code=True, dtype=torch.float32)
request = {"history": ["title: A; genre: tea", "title: B; genre: sea"], "candidates": ["genre: tea", "genre: war"]}
told = pipe(request, summarizer="adapter", return_summary=True, max_new_tokens=8)
again = pipe({**request, "summary": told["summary"]})
assert told["candidates"] == again["candidates"]
assert told["summary"] != pipe(request, summarizer="base-model", return_summary=True, max_new_tokens=8)["summary"]
base = AutoModelForCausalLM.from_pretrained("ORG/trsr-nano", dtype=torch.float32).eval()
model = PeftModel.from_pretrained(base, "ORG/two-lora", subfolder="summarizer").eval()
prompt = pipe.tokenizer("Items:", return_tensors="pt").input_ids
with torch.no_grad():
    plain = model(prompt).logits
    set_adapter(pipe.model, "summarizer")
    assert (pipe.model(prompt).logits - plain).abs().max() < 1e-5
    set_adapter(pipe.model, "default")
    assert (pipe.model(prompt).logits - plain).abs().max() > 1e-3
"""


def test_strangers_load_both_from_the_hub(run, brought, tmp_path, monkeypatch):
    made = release.assemble(ReleaseInputs.read(run), tmp_path / "release", name_repos("ORG", "two"))
    assert "which writes the preference summaries" in (tmp_path / "release" / "adapter" / "README.md").read_text()
    with Hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        push_release(made, HfApi(endpoint=hub.url, token="hf_test_writer"), Options(), say=lambda line: None)
        script = tmp_path / "stranger.py"
        script.write_text(STRANGER)
        home = environment(hub, tmp_path / "home", token=None)
        done = subprocess.run(
            [sys.executable, script], env=home, cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "peft_config" not in done.stderr


def test_a_second_adapter_that_lacks_weights_is_refused(tmp_path):
    shutil.copytree(NANO, tmp_path / "nano")
    weights = tmp_path / "nano" / "adapter" / "summarizer" / "adapter_model.safetensors"
    found = load_file(weights)
    found.pop(next(name for name in found if "q_proj" in name))
    save_file(found, weights)
    with pytest.raises(LoadError, match=r"it lacks 1 weights and has 0 others, such as .*q_proj"):
        TextRichRecommender.from_pretrained(tmp_path / "nano" / "pipeline")
