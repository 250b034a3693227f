"""Tiny models and tokenizers built in code: nothing is downloaded."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest
import torch

from tests import strangers, tiny
from tests.hub import Hub, environment

ROOT = Path(__file__).parent.parent

torch.set_num_threads(1)
hypothesis.settings.register_profile("trsr", deadline=None)  # a busy machine is no fault
hypothesis.settings.load_profile("trsr")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start


@pytest.fixture(scope="session")
def byte_tokenizer():
    """Byte-level BPE with BOS and no chat template, like the nano base's."""
    return tiny.byte_level()


@pytest.fixture(scope="session")
def chat_tokenizer():
    """Byte-level BPE with a ChatML template and control tokens, like Qwen's."""
    return tiny.chatml()


@pytest.fixture(scope="session")
def sentencepiece_tokenizer():
    """Metaspace BPE with byte fallback, like Llama 2's."""
    return tiny.metaspace()


@pytest.fixture
def llama():
    return tiny.model("llama")


@pytest.fixture(scope="session")
def quickstarted(tmp_path_factory):
    """A quickstart of the first users of the sample, which lies beside it: its folder, its results, and what it said."""
    from trsr.quickstart import quickstart

    folder = tmp_path_factory.mktemp("quickstart")
    out, said = folder / "trsr-quickstart", []
    results = quickstart(out, source=tiny.sample(folder / "sample"), say=said.append)
    return out, results, "\n".join(said)


@pytest.fixture(scope="session")
def retriever(quickstarted, tmp_path_factory):
    """A retriever on the quickstart's dataset, barely trained."""
    from trsr.retrieval.run import train_retriever
    from trsr.retrieval.training import Settings

    folder = tmp_path_factory.mktemp("retrievers") / "retriever"
    settings = Settings(epochs=2, batch=8, learning_rate=1e-2)
    train_retriever(str(quickstarted[0] / "dataset"), folder, settings=settings)
    return folder


@pytest.fixture(scope="session")
def _assembled(quickstarted, tmp_path_factory):
    from trsr.hub.inputs import ReleaseInputs
    from trsr.hub.release import assemble
    from trsr.hub.repos import name_repos

    inputs = ReleaseInputs.read(quickstarted[0] / "runs" / "recurrent")
    return assemble(inputs, tmp_path_factory.mktemp("release") / "release", name_repos("ORG", "trsr-sample"))


@pytest.fixture
def release(_assembled, tmp_path):
    """The release of the quickstart's run, for ORG/trsr-sample: a copy of the test's own, not pushed yet."""
    folder = shutil.copytree(_assembled.folder, tmp_path / "assembled")
    yield replace(_assembled, folder=folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def stranger(tmp_path_factory):
    """Python of an environment with the libraries that strangers have, and none of our code."""
    return strangers.make(tmp_path_factory.mktemp("stranger") / "env")


@pytest.fixture(scope="session")
def published(quickstarted, retriever, tmp_path_factory):
    """A Hub with the quickstart's release and a catalogue in it, pushed by the command line."""
    run = quickstarted[0] / "runs" / "recurrent"
    with Hub() as hub:
        home = tmp_path_factory.mktemp("publisher")
        words = ["publish", str(run), "--namespace", "ORG", "--push", "--out", str(home / "release")]
        words += ["--retriever", str(retriever)]
        done = subprocess.run(
            [sys.executable, "-m", "trsr", *words],
            env={**environment(hub, home), "PYTHONPATH": str(ROOT / "hub_recipes")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert "hf_test_writer" not in done.stdout + done.stderr
        yield hub, run


@pytest.fixture
def small_dataset(tmp_path):
    """A dataset folder of 12 users and 30 items, without summaries."""
    items = [
        {"item_id": f"i{n}", "title": f"T{n}", "text": f"title: T{n}; genre: {'mystery' if n % 2 else 'travel'}"}
        for n in range(30)
    ]
    users = [
        {
            "user_id": f"u{n}",
            "history": [f"i{(n + k) % 30}" for k in range(6)],
            "target": f"i{(n + 6) % 30}",
            "negatives": [f"i{(n + 7 + k) % 30}" for k in range(5)],
        }
        for n in range(12)
    ]
    splits = {"train": users[:6], "validation": users[6:9], "test": users[9:]}
    return Path(tiny.write_splits(tmp_path / "small", items, splits))
