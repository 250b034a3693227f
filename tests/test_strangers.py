"""What we publish, loaded from the Hub by people who have none of our code, online and then from the cache alone."""

import json
import re
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from datasets import load_dataset

from bench.serving import free_port, serving
from tests import strangers
from tests.hub import environment
from trsr.dataset import contract
from trsr.hub.spaces import METRICS
from trsr.hub.verify import verify
from trsr.retrieval.retriever import Retriever

pytestmark = pytest.mark.compat

ROOT = Path(__file__).parent.parent
LOADS_EVERYTHING = """
import json, sys
import evaluate, torch
from datasets import load_dataset
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

repo, lora, base_id = "ORG/trsr-sample", "ORG/trsr-sample-lora", "ORG/trsr-nano"
told = {}

# The dataset, whole and streaming.
user = load_dataset(repo, "recurrent", split="test")[0]
texts = {item["item_id"]: item["text"] for item in load_dataset(repo, "items", split="train")}
sft = load_dataset(repo, "recurrent_sft", split="train")[0]
if sys.argv[1] == "online":
    streamed = next(iter(load_dataset(repo, "recurrent", split="test", streaming=True)))
    assert streamed == user
ids = [user["target"], *user["negatives"]]
request = {"history": [texts[i] for i in user["history"]], "candidates": [texts[i] for i in ids]}
told["user"] = user["user_id"]

# The pipeline, at its newest commit and at the tag.
for name, options in (("newest", {}), ("tag", {"revision": "v1.0"})):
    ranker = pipeline("text-rich-recommendation", model=repo, trust_remote_code=True, dtype=torch.float32, **options)
    answer = ranker(request, return_summary=True)
    assert answer["summary"] == user["summary"]
    told[name] = {ids[one["index"]]: [one["log_odds"], one["score"]] for one in answer["candidates"]}

# Without candidates: the best of the catalogue in the repo, for a user and for one of whom nothing is known.
told["recommended"] = {}
for name, history in (("user", request["history"]), ("nobody", [])):
    whole, first = (ranker({"history": history}, stage_one=10, rank=rank)["candidates"] for rank in (True, False))
    assert {one["item_id"]: one["stage_one"] for one in whole} == {one["item_id"]: one["stage_one"] for one in first}
    assert all(one["log_odds"] is not None for one in whole)
    told["recommended"][name] = [[one["item_id"], one["stage_one"]] for one in first]
for one in first[:2]:
    filtered = ranker({"history": []}, stage_one=10, rank=False, where={"text": one["item"]})
    assert filtered["candidates"][0]["item"] == one["item"]

# Base and adapter, in every way to load them. The adapter is active in each.
base = AutoModelForCausalLM.from_pretrained(base_id, dtype=torch.float32).eval()
prompt = AutoTokenizer.from_pretrained(base_id)(sft["prompt"], return_tensors="pt").input_ids
with torch.no_grad():
    without = base(prompt).logits[0, -1]
    logits = {"pipeline": ranker.model(prompt).logits[0, -1]}
    logits["peft"] = PeftModel.from_pretrained(base, lora).eval()(prompt).logits[0, -1]
    logits["auto peft"] = AutoPeftModelForCausalLM.from_pretrained(lora, dtype=torch.float32)(prompt).logits[0, -1]
    logits["auto"] = AutoModelForCausalLM.from_pretrained(lora, dtype=torch.float32).eval()(prompt).logits[0, -1]
told["spread"] = max((one - logits["peft"]).abs().max().item() for one in logits.values())
told["adapter"] = min((one - without).abs().max().item() for one in logits.values())

# The decision model: the pipeline repo at both revisions, and the adapter.
def ask(decide):
    state = {"summary": user["summary"], "recent_items": [texts[i] for i in user["history"]]}
    questions = {i: {"type": "noul", "instructions": texts[i]} for i in ids}
    return {i: answer["noul"] for i, answer in decide({"state": state, "questions": questions}).items()}

whole = {"trust_remote_code": True, "dtype": torch.float32}
told["decisions"] = {
    "newest": ask(pipeline("decision", model=repo, **whole)),
    "tag": ask(pipeline("decision", model=repo, revision="v1.0", **whole)),
    "adapter": ask(pipeline("decision", model=lora, decision_config=lora, dtype=torch.float32)),
}

# The metrics.
given = {"predictions": [[0.1, 0.9, 0.9], [0.5, 0.2]], "references": [[0, 1, 0], [0, 1]], "k": 1}
told["metrics"] = {name: evaluate.load(f"ORG/{name}").compute(**given)[name] for name in ("recall_at_k", "mrr_at_k", "ndcg_at_k")}
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def ours(published):
    """Log-odds of the training side, by user and item."""
    scores = load_dataset("parquet", data_files=str(published[1] / "test" / "scores.parquet"), split="train")
    found = {}
    for row in scores:
        found.setdefault(row["user_id"], {})[row["item_id"]] = row["recurrent"]
    return found


@pytest.fixture(scope="module")
def histories(quickstarted):
    return {
        row["user_id"]: row["history"] for row in contract.read(str(quickstarted[0] / "dataset"), "histories", "test")
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


def probability(odds, fitted, bias=True):
    return torch.sigmoid(torch.tensor(odds / fitted["value"] + bias * fitted["bias"])).item()


def check(told, ours, fitted, retriever, histories):
    mine = ours[told["user"]]
    for name, history in (("user", histories[told["user"]]), ("nobody", [])):
        [expected] = Retriever.load(retriever).recommend([history], top_k=10)
        assert [item_id for item_id, _ in told["recommended"][name]] == [item_id for item_id, _ in expected]
        scores = [score for _, score in told["recommended"][name]]
        assert scores == pytest.approx([score for _, score in expected], rel=1e-6)
    wanted = {one: probability(odds, fitted) for one, odds in mine.items()}
    for name in ("newest", "tag"):
        assert {one: odds for one, (odds, _) in told[name].items()} == pytest.approx(mine, abs=1e-4)
        assert {one: score for one, (_, score) in told[name].items()} == pytest.approx(wanted, abs=1e-5)
    assert abs(fitted["bias"]) > 1e-2  # decision files cannot hold it, as their cards say
    wanted = {one: probability(odds, fitted, bias=False) for one, odds in mine.items()}
    for decided in told["decisions"].values():
        assert decided == pytest.approx(wanted, abs=1e-4)
    assert told["spread"] < 1e-5
    assert told["adapter"] > 1e-3
    assert told["metrics"]["recall_at_k"] == 0.25


@pytest.fixture(scope="module")
def fitted(published):
    return json.loads((published[1] / "validation" / "results.json").read_text())["temperature"]


def test_everything_loads_without_our_code(published, stranger, home, ours, fitted, retriever, histories):
    done = strangers.run(stranger, LOADS_EVERYTHING, environment(published[0], home, token=None), "online")
    assert done.returncode == 0, done.stderr[-3000:]
    check(json.loads(done.stdout.splitlines()[-1]), ours, fitted, retriever, histories)


def test_and_again_from_the_cache_with_no_hub(published, stranger, home, ours, fitted, retriever, histories):
    hub = published[0]
    hub.fault(len(hub.log), "drop", forever=True)  # evaluate knows no HF_HUB_OFFLINE: it asks, and finds nobody
    try:
        nowhere = {**environment(hub, home, token=None), "HF_HUB_OFFLINE": "1"}
        done = strangers.run(stranger, LOADS_EVERYTHING, nowhere, "offline")
    finally:
        hub.heal()
    assert done.returncode == 0, done.stderr[-3000:]
    check(json.loads(done.stdout.splitlines()[-1]), ours, fitted, retriever, histories)


def test_the_server_of_transformers_answers_the_same(published, home, ours, fitted, tmp_path):
    hub, run = published
    port = free_port()
    words = [Path(sys.executable).with_name("transformers"), "serve", "ORG/trsr-sample", "--trust-remote-code"]
    words += ["--host", "127.0.0.1", "--port", port, "--dtype", "float32", "--device", "cpu"]
    given = environment(hub, home, token=None) | {"OMP_NUM_THREADS": "1"}
    with serving(words, port, tmp_path / "log", env=given) as server:
        row = contract.read(str(run.parent.parent / "dataset"), "recurrent", "test")[0]
        texts = contract.texts(str(run.parent.parent / "dataset"))
        ids = [row["target"], *row["negatives"]]
        request = {
            "model": "ORG/trsr-sample",
            "state": {"summary": row["summary"], "recent_items": [texts[one] for one in row["history"]]},
            "questions": {one: {"type": "noul", "instructions": texts[one]} for one in ids},
        }
        answer = post(f"http://127.0.0.1:{port}/v1/systemone", request, server)
        release = str(run.parent.parent / "release")
        verified = verify(f"http://127.0.0.1:{port}", known=release, model="ORG/trsr-sample")
    assert verified["right"], verified["said"]
    mine = ours[row["user_id"]]
    wanted = {one: probability(odds, fitted, bias=False) for one, odds in mine.items()}
    found = answer.get("answers", answer)
    assert {one: found[one]["noul"] for one in ids} == pytest.approx(wanted, abs=1e-4)


@pytest.fixture(scope="module")
def required(tmp_path_factory):
    """An environment made of the Space's requirements.txt, but for its index of PyTorch: what pip is set up with has one too."""
    folder = tmp_path_factory.mktemp("required")
    lines = (ROOT / "hub_recipes" / "space" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    (folder / "requirements.txt").write_text("\n".join(line for line in lines if not line.startswith("--")))
    subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
    python = folder / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", folder / "requirements.txt"], check=True)
    return python


@pytest.mark.parametrize("environment_of", ["stranger", pytest.param("required", marks=pytest.mark.slow)])
def test_the_space_runs_as_it_stands_on_the_hub(
    environment_of, published, home, ours, fitted, retriever, tmp_path, request
):
    client = pytest.importorskip("gradio_client")
    stranger = request.getfixturevalue(environment_of)
    hub, run = published
    visitor = environment(hub, home, token=None)
    code = "import sys; from huggingface_hub import snapshot_download as get; get('ORG/trsr-sample', repo_type='space', local_dir=sys.argv[1])"
    got = strangers.run(stranger, code, visitor, str(tmp_path / "space"))
    assert got.returncode == 0, got.stderr[-3000:]
    port = free_port()
    given = visitor | {"GRADIO_SERVER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    with serving([stranger, "app.py"], port, tmp_path / "log", env=given, cwd=tmp_path / "space"):
        api = client.Client(f"http://127.0.0.1:{port}", verbose=False, httpx_kwargs={"timeout": 60})
        user = contract.read(str(run.parent.parent / "dataset"), "recurrent", "test")[0]
        shown = api.predict(user["user_id"], api_name="/sample_user")
        answer = api.predict("\n".join(shown["history"]), "\n".join(shown["candidates"]), api_name="/rank")
        best = api.predict("\n".join(shown["history"]), stage_one=10, api_name="/recommend")
    texts = contract.texts(str(run.parent.parent / "dataset"))
    [expected] = Retriever.load(retriever).recommend([user["history"]], top_k=10)
    by_rank = {one["ranks"]["first_stage"]: one["item_id"] for one in best["items"]}
    assert [by_rank[rank] for rank in range(1, 11)] == [item_id for item_id, _ in expected]
    assert best["summary"] == user["summary"]
    mine = {texts[one]: odds for one, odds in ours[user["user_id"]].items()}
    wanted = {text: probability(odds, fitted) for text, odds in mine.items()}
    assert answer["summary"] == user["summary"]
    assert shown["chosen"] == texts[user["target"]]
    assert {one["text"]: one["p_yes"] for one in answer["candidates"]} == pytest.approx(wanted, abs=2e-4)


def post(url, body, server, patience=120):
    """The JSON that a server answers, as soon as it stands."""
    asked = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    for _ in range(patience):
        assert server.poll() is None, "the server stopped"
        try:
            with urllib.request.urlopen(asked, timeout=60) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error
        except urllib.error.URLError:
            time.sleep(1)
    raise AssertionError("the server never answered")


@pytest.mark.parametrize("source", ["card", pytest.param("yaml", marks=pytest.mark.slow)])
def test_stock_trl_trains_on_the_published_rows(published, home, tmp_path, source):
    """Two steps of the very command in the dataset's card, and of our YAML's, with none of our code."""
    if source == "card":
        card = card_of(published[0], "dataset", "ORG/trsr-sample", home)
        [printed] = re.findall(r"^trl (sft .*?[^\\])\n", card, re.M | re.S)
        assert "--max_length 2048" in printed  # the base's own context
    else:
        printed = (ROOT / "hub_recipes" / "trl_sft.yaml").read_text().splitlines()[0].removeprefix("# trl ")
        printed = printed.replace("hub_recipes", str(ROOT / "hub_recipes")).replace("ORG/NAME", "ORG/trsr-sample")
        printed = printed.replace("Qwen/Qwen3-0.6B", "ORG/trsr-nano") + " --bf16 false"
    words = shlex.split(printed.replace("\\\n", " "))
    words += ["--max_steps", "2", "--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "1"]
    done = subprocess.run(
        [str(Path(sys.executable).parent / "trl"), *words, "--logging_steps", "1"],
        env=environment(published[0], home) | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    losses = [float(found) for found in re.findall(r"'loss': '?([\d.]+)", done.stdout + done.stderr)]
    assert len(losses) == 2
    assert all(0 < loss < 20 for loss in losses)  # high at first: the end of text that TRL adds is new to the base
    written = {path.name for path in (tmp_path / ("my-adapter" if source == "card" else "adapter")).iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= written


def card_of(hub, kind, name, home):
    code = "import sys; from huggingface_hub import hf_hub_download as get; print(get(*sys.argv[2:], repo_type=sys.argv[1]))"
    words = [sys.executable, "-c", code, kind, name, "README.md"]
    done = subprocess.run(words, env=environment(hub, home, token=None), capture_output=True, text=True, check=True)
    return Path(done.stdout.strip()).read_text(encoding="utf-8")


# Each snippet in a name space of its own, as if typed into a new shell.
RUN_SNIPPETS = """
import contextlib, io, json, re, sys
from huggingface_hub import hf_hub_download
ran = {}
for kind, name, file in json.loads(sys.argv[1]):
    card, printed = open(hf_hub_download(name, file, repo_type=kind), encoding="utf-8").read(), io.StringIO()
    snippets = re.findall(r"```python\\n(.*?)```", card, re.S)
    with contextlib.redirect_stdout(printed):
        for code in snippets:
            exec(compile(code, name, "exec"), {"__name__": "__main__"})
    ran[f"{kind} {name} {file}"] = {"card": card, "snippets": len(snippets), "printed": printed.getvalue()}
print(json.dumps(ran))
"""
# How often each says what it prints.
CARDS = {
    ("model", "ORG/trsr-sample", "README.md"): 2,
    ("model", "ORG/trsr-sample", "SKILL.md"): 1,
    ("model", "ORG/trsr-sample-lora", "README.md"): 2,
    ("dataset", "ORG/trsr-sample", "README.md"): 1,
}


@pytest.fixture(scope="module")
def ran(published, stranger, home):
    """By repo: its card, the number of Python snippets in it, and what they print, all run in one process."""
    repos = [*CARDS, *(("space", f"ORG/{name}", "README.md") for name in METRICS)]
    done = strangers.run(stranger, RUN_SNIPPETS, environment(published[0], home, token=None), json.dumps(repos))
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("repo", "printing"), [(" ".join(one), number) for one, number in CARDS.items()])
def test_the_snippets_of_the_cards_run_as_they_stand(ran, repo, printing):
    card = ran[repo]["card"]
    assert ran[repo]["snippets"]
    assert card.index("```bash\npip install ") < card.index("```python")
    for printed in re.findall(r"It prints:\n\n```text\n(.*?)\n```", card, re.S):
        assert printed in ran[repo]["printed"]
    assert card.count("It prints:") == printing


def test_the_snippets_of_the_metrics_run(ran):
    assert [ran[f"space ORG/{name} README.md"]["snippets"] for name in METRICS] == [1] * len(METRICS)
    assert "recall_at_k" in "".join(ran[f"space ORG/{name} README.md"]["printed"] for name in METRICS)
