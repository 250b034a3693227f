"""The script that answers open questions with vLLM: a stand-in takes the place of vLLM, which needs a GPU."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pyarrow.parquet as pq
import pytest

from tests.scripted import ScriptedEngine, moody
from tests.test_summaries import dataset, made, rows
from trsr.core.summarize import METHODS
from trsr.summaries.engines.make import engine
from trsr.summaries.run import OpenQuestions, summarize_dataset

SCRIPT = Path(__file__).parent.parent / "hub_recipes" / "jobs" / "vllm_summarize.py"


@pytest.fixture
def job(monkeypatch):
    """The script, and the calls of the stand-in."""
    calls = []

    class LLM:
        def __init__(self, model, revision, **options):
            calls.append((model, revision, options))

        def chat(self, messages, params, chat_template_kwargs):
            calls.append(len(messages))
            outputs = []
            for (message,), one in zip(messages, params, strict=True):
                answer = moody(message["content"], one.seed)
                said = SimpleNamespace(text=answer.text, finish_reason=answer.finish_reason, token_ids=[0] * 20)
                outputs.append(SimpleNamespace(prompt_token_ids=[0] * 10, outputs=[said]))
            return outputs

    vllm = ModuleType("vllm")
    vllm.LLM, vllm.SamplingParams = LLM, SimpleNamespace
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    spec = importlib.util.spec_from_file_location("vllm_summarize", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, calls


def test_rounds_of_questions_end_in_the_dataset_that_a_server_would_have_given(tmp_path, job):
    source, questions, answers = (
        dataset(tmp_path / "source", users=20),
        tmp_path / "q.parquet",
        tmp_path / "generations",
    )
    caches = []
    for _ in range(20):
        try:
            away = engine("vllm:org/model", "abc", questions=questions)
            summarize_dataset(source, tmp_path / "out", away, caches=caches)
            break
        except OpenQuestions as said:
            told = str(said)
        assert "q.parquet" in told
        job[0].main([str(questions), "--out", str(answers), "--part", "30"])
        caches = [str(answers)]
    summarize_dataset(source, tmp_path / "here", ScriptedEngine(moody))
    for method in METHODS:
        assert rows(tmp_path / "out", method) == rows(tmp_path / "here", method)
    told, same = made(tmp_path / "out"), made(tmp_path / "here")
    for name in ("asked", "retried", "reused", "imported", "fallen_back", "calls"):
        assert told[name] == same[name]
    assert told["model"] == "org/model"
    assert job[1][0] == ("org/model", "abc", {"enable_prefix_caching": True})


def test_a_stopped_job_asks_for_the_rest(tmp_path, job):
    module, calls = job
    with pytest.raises(OpenQuestions):
        summarize_dataset(
            dataset(tmp_path / "source"), tmp_path / "out", engine("vllm:m", questions=tmp_path / "q.parquet")
        )
    module.main([str(tmp_path / "q.parquet"), "--out", str(tmp_path / "g"), "--part", "30"])
    asked = sum(call for call in calls if isinstance(call, int))
    files = sorted((tmp_path / "g").glob("part-*"))
    assert asked == pq.read_table(tmp_path / "q.parquet").num_rows
    lost = pq.read_table(files[-1]).num_rows
    files[-1].unlink()
    module.main([str(tmp_path / "q.parquet"), "--out", str(tmp_path / "g"), "--part", "30"])
    assert sum(call for call in calls if isinstance(call, int)) == asked + lost
    calls.clear()
    module.main([str(tmp_path / "q.parquet"), "--out", str(tmp_path / "g")])
    assert calls == []


def test_no_part_takes_the_place_of_another(tmp_path, job):
    out = tmp_path / "g"
    out.mkdir()

    def answered(*keys):
        job[0].write(out, [{"key": key, "attempt": 0, "text": "x"} for key in keys])

    answered("a", "b")
    answered("c")
    first = next(path for path in out.iterdir() if "a" in pq.read_table(path)["key"].to_pylist())
    first.unlink()
    answered("d")
    assert sorted(key for key, _ in job[0].answered(out)) == ["c", "d"]


def test_a_file_that_holds_no_questions(tmp_path, job):
    import pyarrow as pa

    pq.write_table(pa.table({"key": ["x"]}), tmp_path / "q.parquet")
    with pytest.raises(SystemExit, match="lacks the columns attempt, prompt"):
        job[0].main([str(tmp_path / "q.parquet"), "--out", str(tmp_path / "g")])
    assert not (tmp_path / "g").exists()


def test_it_runs_without_the_package():
    text = SCRIPT.read_text(encoding="utf-8")
    assert 'dependencies = ["vllm", "pyarrow"]' in text
    assert not re.search(r"^\s*(?:import|from) (?!argparse|hashlib|json|collections|pathlib|pyarrow|vllm)", text, re.M)
