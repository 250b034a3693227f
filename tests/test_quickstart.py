"""The main job in small: from the sample to release folders that plain clients load, without our package."""

import json
import shutil
import subprocess
import sys

import pytest

from trsr.dataset import contract
from trsr.quickstart import quickstart
from trsr.recommender.results import table

pytestmark = pytest.mark.compat

USERS = 6


@pytest.fixture(scope="module")
def run(quickstarted):
    return quickstarted


@pytest.fixture(scope="module")
def moved(run, tmp_path_factory):
    """The release folder, somewhere else."""
    place = tmp_path_factory.mktemp("elsewhere") / "moved"
    shutil.copytree(run[0] / "release", place)
    return place


def test_the_report(run):
    out, results, said = run
    for name in ("chance", "popularity", "tf-idf", "recent items only", "hierarchical", "recurrent"):
        assert f"| {name} |" in said
        assert set(results["systems"][name]["recall@3"]) == {"value", "low", "high"}
    assert results["n_users"] == USERS
    assert results["systems"]["chance"]["recall@3"]["value"] == pytest.approx(3 / 21, abs=0)
    assert json.loads((out / "runs" / "recurrent" / "test" / "results.json").read_text()) == results
    assert "Summary: " in said
    assert "Recall@3" in table(results["systems"])


def test_scores_are_kept_a_row_a_candidate(run):
    scores = contract.load_dataset(
        "parquet", data_files=str(run[0] / "runs" / "recurrent" / "test" / "scores.parquet"), split="train"
    )
    assert len(scores) == USERS * 21
    assert sum(scores["label"]) == USERS


def test_what_is_done_is_not_done_again(run):
    out, results, _ = run
    before = (out / "runs" / "recurrent" / "run.json").stat().st_mtime_ns
    again = quickstart(out, source=str(out.parent / "sample"), say=lambda line: None)
    assert again["systems"] == results["systems"]
    assert (out / "runs" / "recurrent" / "run.json").stat().st_mtime_ns == before


def test_the_release_holds_what_it_should(moved):
    def files(name):
        return {path.name for path in (moved / name).iterdir()}

    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= files("base")
    decides = {"decision.json", "decision_template.jinja"}
    adapter = {"adapter_config.json", "adapter_model.safetensors", "ranking_prompt.json"}
    assert files("adapter") == adapter | decides  # what wrote the summaries has no weights
    assert {"config.json", "tokenizer.json", "ranking_prompt.json", "pipeline.py", "modeling.py"} | decides <= files(
        "pipeline"
    )
    assert not any(name.endswith(".safetensors") for name in files("pipeline"))
    assert {"items", "histories", "recurrent", "recurrent_sft", "hierarchical", "hierarchical_sft"} <= files("dataset")
    adapter = json.loads((moved / "adapter" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "../base"


STRANGER = """
import json, sys
try:
    import trsr.core
    sys.exit("trsr is importable: this would prove nothing")
except ModuleNotFoundError:
    pass
import torch
from datasets import load_dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

release = sys.argv[1]
row = load_dataset(f"{release}/dataset", "recurrent", split="test")[0]
sft = load_dataset(f"{release}/dataset", "recurrent_sft", split="train")[0]
texts = {item["item_id"]: item["text"] for item in load_dataset(f"{release}/dataset", "items", split="train")}
ids = [row["target"], *row["negatives"]]
request = {"history": [texts[i] for i in row["history"]], "candidates": [texts[i] for i in ids]}
pipe = pipeline("text-rich-recommendation", model=f"{release}/pipeline", trust_remote_code=True, device="cpu")
answer = pipe(request, return_summary=True)
assert answer["summary"] == row["summary"], "the pipeline writes the summary that it was trained with"
scores = {ids[one["index"]]: one["log_odds"] for one in answer["candidates"]}

# The adapter is active, in both ways of loading.
base = AutoModelForCausalLM.from_pretrained(f"{release}/base").eval()
tokenizer = AutoTokenizer.from_pretrained(f"{release}/base")
prompt = tokenizer(sft["prompt"], return_tensors="pt").input_ids
with torch.no_grad():
    without = base(prompt).logits[0, -1]
    model = PeftModel.from_pretrained(base, f"{release}/adapter").eval()
    with_adapter = model(prompt).logits[0, -1]
    loaded = pipe.model(prompt).logits[0, -1]
assert (without - with_adapter).abs().max() > 1e-3
assert (loaded - with_adapter).abs().max() < 1e-5
assert sft["completion"] in (" yes", " no")
print(json.dumps({"user": row["user_id"], "scores": scores}))
"""


def test_a_stranger_loads_the_moved_release_and_gets_the_same_scores(run, moved, tmp_path):
    # A process that cannot import trsr: isolated from the working folder and from the editable install.
    script = tmp_path / "stranger.py"
    script.write_text(
        "import sys\nsys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n"
        "sys.path[:] = [p for p in sys.path if 'hub_recipes' not in p]\n" + STRANGER
    )
    done = subprocess.run([sys.executable, "-I", str(script), str(moved)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    scores = contract.load_dataset(
        "parquet", data_files=str(run[0] / "runs" / "recurrent" / "test" / "scores.parquet"), split="train"
    )
    ours = {row["item_id"]: row["recurrent"] for row in scores if row["user_id"] == told["user"]}
    assert told["scores"] == pytest.approx(ours, abs=1e-4)
