"""A server beside the same model in this process, here behind a stub that asks the very model for its answers."""

import asyncio
import json
import os

import huggingface_hub
import pytest

from bench import report, server
from tests import tiny
from tests.scripted import ChatServer
from trsr.core.answer import Answer
from trsr.summaries.engines.base import Sampling
from trsr.summaries.engines.make import engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("model")
    tiny.model("llama", max_position_embeddings=2048).save_pretrained(made)
    tiny.chatml().save_pretrained(made)
    return str(made)


def test_answers_are_held_against_those_of_this_process(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    questions = server.first_blocks("sample", 6 + 2 + 2)
    here = engine(f"transformers:{folder}", sampling=Sampling(8))
    answers = asyncio.run(server._ask(here, questions, 16))
    texts = [here.request(question).text for question in questions]
    known = dict(zip(texts, answers, strict=True))
    assert len(known) == 10
    other = answers[0]
    known[texts[0]] = Answer("x" + other.text[1:], "stop", other.prompt_tokens + 1, other.completion_tokens)
    with ChatServer(lambda prompt, seed: known[prompt]) as served:
        out = tmp_path / "server.json"
        words = [
            "sample",
            folder,
            "--base-url",
            served.url,
            "--users",
            "6",
            "--at-a-time",
            "2",
            "--pid",
            str(os.getpid()),
        ]
        server.main([*words, "--max-new-tokens", "8", "--extra-body", '{"repeat_penalty": 1.0}', "--out", str(out)])
        assert all(body["repeat_penalty"] == 1.0 and body["temperature"] == 0 for body, _ in served.bodies)
        prompts = [body["messages"][-1]["content"] for body, _ in served.bodies]
        assert len(prompts) == len(set(prompts)) == 2 + 6 + 2  # a server remembers what it was asked
    results = json.loads(out.read_text())
    assert (results["users"], results["same_prompt"], results["equal"]) == (6, 0.833, 0.833)
    assert 0.8 <= results["opening"] < 1
    assert results["margin"]["everywhere"] > 0
    assert results["margin"]["where_they_part"] is not None
    assert [one["answers"] for one in results["ways"].values()] == [6, 6, 2]
    assert all(one["tokens"] > 0 and one["tokens_a_cpu_second"] > 0 for one in results["ways"].values())
    with pytest.raises(server.UsageError, match=r"test users, and \d+ are needed, .* Give fewer --users"):
        server.first_blocks("sample", 10_000)
    assert "| 83% | 83% |" in report.table(results)
