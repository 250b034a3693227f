"""A server that people run: `transformers serve` with a tiny random model, on the loopback."""

import sys
from collections import Counter
from pathlib import Path

import huggingface_hub
import pytest

from bench.serving import free_port, serving
from tests import tiny
from tests.test_summaries import dataset, made, rows
from trsr.core.summarize import METHODS
from trsr.summaries.engines.base import Sampling, Server
from trsr.summaries.engines.make import engine
from trsr.summaries.run import summarize_dataset
from trsr.summaries.store import Store

pytest.importorskip("uvicorn")


@pytest.fixture
def served(tmp_path):
    """Base URL, model and log file of a server that is ready."""
    model = tiny.model("llama")
    model.generation_config.eos_token_id = list(range(1, 600, 20))  # many answers end early
    model.save_pretrained(tmp_path / "model")
    tiny.chatml().save_pretrained(tmp_path / "model")
    port = free_port()
    command = [Path(sys.executable).with_name("transformers"), "serve", tmp_path / "model", "--device", "cpu"]
    with serving([*command, "--port", port], port, tmp_path / "log"):
        yield f"http://127.0.0.1:{port}/v1", str(tmp_path / "model"), tmp_path / "log"


@pytest.mark.slow
@pytest.mark.parametrize("users", [16, 200])
def test_every_user_gets_a_summary_or_a_named_failure_and_nothing_is_asked_twice(tmp_path, served, users, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    url, model, log = served
    source = dataset(tmp_path / "source", users=users)

    def run(name):
        asked = engine(f"openai:{model}", sampling=Sampling(max_new_tokens=16), server=Server(url, concurrency=8))
        summarize_dataset(source, tmp_path / name, asked, store=tmp_path / "store.sqlite")
        return log.read_text().count('"POST /v1/chat/completions HTTP/1.1" 200')

    posts = run("first")
    told = made(tmp_path / "first")
    assert told["asked"] == posts == len(Store(tmp_path / "store.sqlite"))
    for method in METHODS:
        assert len(rows(tmp_path / "first", method)) == users
        assert all(row["summary"] and all(row["block_summaries"]) for row in rows(tmp_path / "first", method))
    kept = Counter(one.problem for one in Store(tmp_path / "store.sqlite"))
    assert kept[""] > 0
    assert set(told["fallen_back"]) <= set(kept)
    assert run("second") == posts
    assert {**told, "versions": None} == {**made(tmp_path / "second"), "versions": None}
    print(f"{posts} requests, {dict(kept)}, fallen back {told['fallen_back']}, {told['tokens']}")
