"""The script for a GPU as far as a CPU goes: its sections, its limit, and engines by stand-ins with their documented interface."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from bench import gpu, precision, report, workloads
from tests import tiny
from trsr.core.prompts import Encoder

SECTIONS = [
    "score, fp32, 120 x 3",
    "score, bf16, 120 x 3",
    "train, bf16, 120 x 1",
    "score, bf16, 360 x 3",
    "train, bf16, 360 x 1",
]
SMALL = ["--prefix", "120", "--candidates", "3", "--negatives", "1", "--users", "2", "--rounds", "1"]

MODEL = """
import os, signal, time, torch
from transformers import AutoModelForCausalLM
class Model:
    def __init__(self, folder):
        self.network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        if os.environ.get("TRSR_TEST_STUCK"):
            os.kill(os.getppid(), signal.SIGALRM)
            time.sleep(600)
    def chances(self, ids):
        with torch.no_grad():
            return self.network(torch.tensor([ids])).logits[0, -1].float()
"""
STAND_INS = {
    "vllm": """
from types import SimpleNamespace as Made
class SamplingParams:
    def __init__(self, *, max_tokens, temperature, logprobs, allowed_token_ids):
        self.tokens = allowed_token_ids
class LLM:
    def __init__(self, model, *, logprobs_mode, max_model_len, dtype, enable_prefix_caching, gpu_memory_utilization):
        assert logprobs_mode == "processed_logprobs"
        self.model, self.longest = Model(model), max_model_len
    def generate(self, prompts, params, use_tqdm):
        assert all(len(one["prompt_token_ids"]) < self.longest for one in prompts)
        made = []
        for one in prompts:
            left = self.model.chances(one["prompt_token_ids"])[params.tokens].log_softmax(-1)
            made.append({token: Made(logprob=chance.item()) for token, chance in zip(params.tokens, left)})
        return [Made(outputs=[Made(logprobs=[one])]) for one in made]
""",
    "sglang": """
class Engine:
    def __init__(self, *, model_path, dtype, mem_fraction_static, log_level):
        self.model = Model(model_path)
    def generate(self, *, input_ids, sampling_params, return_logprob, token_ids_logprob):
        made = []
        for ids, tokens in zip(input_ids, token_ids_logprob, strict=True):
            chances = self.model.chances(ids).log_softmax(-1)
            made.append([(chances[token].item(), token, None) for token in tokens])
        return [{"text": "", "meta_info": {"output_token_ids_logprobs": [one]}} for one in made]
""",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("llama")
    tiny.model("llama").save_pretrained(made)
    tiny.byte_level().save_pretrained(made)
    return str(made)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Function that puts a stand-in where this process and its children find it."""

    def install(engine):
        (tmp_path / f"{engine}.py").write_text(MODEL + STAND_INS[engine])
        (tmp_path / f"{engine}-9.9.dist-info").mkdir()
        (tmp_path / f"{engine}-9.9.dist-info" / "METADATA").write_text(f"Name: {engine}\nVersion: 9.9\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        ours = Path(gpu.__file__).parents[1]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (tmp_path, ours))))

    return install


def test_sections_on_a_cpu_and_what_is_not_installed(folder, tmp_path, capsys):
    out = tmp_path / "gpu.json"
    gpu.main([folder, *SMALL, "--device", "cpu", "--out", str(out)])
    results = json.loads(out.read_text())
    assert list(results["sections"]) == SECTIONS
    assert results["left_out"] == {engine: f"{engine} is not installed" for engine in ("vllm", "sglang")}
    assert results["device"]["type"] == "cpu"
    assert results["model"]["architecture"] == "llama"
    for name, section in results["sections"].items():
        plans = ["joint", "fork", "rows"] if name.startswith("train") else ["packed", "fork", "batch"]
        assert section["chosen"] == plans[0]
        assert list(section["ways"]) == ["separate", *plans]
        for one in section["ways"].values():
            assert max(one["from_fp32"].values()) < (1e-4 if " fp32" in name else 0.1)
    table = report.table(results)
    assert table in capsys.readouterr().out
    assert "| **train, bf16, 120 x 1: ours, all users in one row** |" in table


def test_what_is_finished_before_the_limit_is_kept_and_what_failed_is_named(folder, tmp_path, monkeypatch):
    def scoring(model, *_):
        if model.dtype == torch.float32:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"ways": {}}

    def training(*_):
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        while True:
            try:
                time.sleep(1)
            except Exception:  # the kind of code that takes the limit for a fault of a model
                continue

    monkeypatch.setattr(precision, "scoring", scoring)
    monkeypatch.setattr(precision, "training", training)
    options = gpu.arguments().parse_args([folder, *SMALL, "--device", "cpu", "--out", str(tmp_path / "gpu.json")])
    results = gpu.run(options)
    assert json.loads((tmp_path / "gpu.json").read_text()) == results
    assert list(results["sections"]) == [SECTIONS[1]]
    assert results["left_out"][SECTIONS[0]] == "OutOfMemoryError: CUDA out of memory"
    assert [results["left_out"][name] for name in SECTIONS[2:]] == 3 * ["no time left of 480 s"]
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.parametrize("engine", gpu.ENGINES)
def test_an_engine_that_is_installed_answers_the_same_prompts(engine, folder, installed, monkeypatch, capfd):
    installed(engine)
    model, tokenizer = workloads.load(folder, 0, torch.bfloat16)
    encoder = Encoder(tokenizer)
    warm, timed = ([workloads.prompts(encoder, 120, 3, seed)] for seed in (1, 0))
    made = gpu.beside(engine, folder, model, encoder, warm, timed)
    assert made["version"] == "9.9"
    assert made["seconds"] > 0
    assert 0 < made["from_fp32"]["max"] < 0.1  # bf16 beside fp32
    names = [section.name for section in gpu.sections(gpu.arguments().parse_args([folder, *SMALL]))]
    assert names == [*SECTIONS, f"{engine}, bf16, 120 x 3"]


def test_an_engine_that_is_stuck_ends_with_the_limit(folder, installed, monkeypatch):
    installed("vllm")
    monkeypatch.setenv("TRSR_TEST_STUCK", "1")
    children = []
    started = gpu.subprocess.Popen
    monkeypatch.setattr(gpu.subprocess, "Popen", lambda *a, **k: children.append(started(*a, **k)) or children[0])
    model, tokenizer = workloads.load(folder, 0, torch.bfloat16)
    users = [workloads.prompts(Encoder(tokenizer), 120, 3, 0)]
    with pytest.raises(gpu.OutOfTime), gpu.limited(400):
        gpu.beside("vllm", folder, model, Encoder(tokenizer), users, users)
    assert children[0].returncode == -signal.SIGKILL


def test_a_plan_that_is_not_exact_is_named():
    def section(chosen, separate):
        off = {"packed": chosen, "separate": separate}
        ways = {plan: {"from_fp32": {"max": 9, "mean": mean}} for plan, mean in off.items()}
        return {"chosen": "packed", "ways": ways}

    bad = {"a": section(float("nan"), 0.05), "b": section(0.2, 0.05), "c": section(0.01, 0.0)}
    good = {"d": section(0.1, 0.05), "e": section(1e-5, 0.0), "f": {"version": "1"}}
    faults = gpu.wrong({"sections": good | bad})
    assert [fault[-3:] for fault in faults] == ["'a'", "'b'", "'c'"]
    assert faults[1] == "packed is off by 0.2 in 'b'"


def test_without_a_gpu_the_other_way_is_named(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        gpu.main([folder, "--out", str(tmp_path / "g.json")])
    assert stop.value.code == 2
    assert "No CUDA device here. --device cpu" in capsys.readouterr().err
    assert not (tmp_path / "g.json").exists()
