"""A retriever's item vectors as a SentenceTransformer: the same vectors, in a process without our code."""

import json

import numpy as np
import pytest

pytest.importorskip("sentence_transformers")

from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

from tests import tiny
from trsr.cli import main
from trsr.dataset import contract
from trsr.errors import ReleaseError, UsageError
from trsr.hub import item_encoder
from trsr.retrieval.retriever import Retriever
from trsr.retrieval.run import train_retriever
from trsr.retrieval.training import Settings

QUICK = Settings(epochs=2, batch=4, learning_rate=1e-2)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return str(tiny.dataset(tmp_path_factory.mktemp("data") / "books"))


@pytest.fixture(scope="module")
def retriever(source, tmp_path_factory):
    """Of texts alone, read by a base with a chat template, which must not stand around them."""
    home = tmp_path_factory.mktemp("retrievers")
    base = tiny.save_base("Qwen/Qwen3-0.6B", home / "base")
    assert AutoTokenizer.from_pretrained(base).chat_template
    out = home / "texts"
    train_retriever(source, out, vectors=f"transformers:{base}", ids=False, settings=QUICK)
    return out


@pytest.fixture(scope="module")
def exported(source, retriever, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "encoder"
    return out, item_encoder.export(retriever, source, out)


@pytest.fixture
def in_this_process(monkeypatch):
    """Embed here what was written: another process would import the library again, which takes most of the time."""
    monkeypatch.setattr(
        item_encoder,
        "_embedded",
        lambda folder, texts: SentenceTransformer(str(folder), device="cpu").encode(texts),
    )


def test_it_gives_the_vectors_of_the_index(exported, source, retriever):
    folder, written = exported
    texts = contract.texts(source)
    assert written["in_index"] == written["items"] == len(texts) == written["checked"]
    model = SentenceTransformer(str(folder), device="cpu")
    found, index = model.encode(list(texts.values())), load_file(folder / "vectors.safetensors")["items"]
    assert np.array_equal(index, Retriever.load(retriever).vectors)
    assert np.abs(found - index).max() <= 1e-5 * np.abs(index).max()
    assert np.ptp(index, 0).max() > 0.1  # the items differ
    assert model.similarity(found[:1], index)[0].numpy() == pytest.approx(index @ found[0], rel=1e-5)


def test_with_ids_it_gives_the_vectors_of_new_items(source, exported, in_this_process, tmp_path, capsys):
    """Here the texts are read by a SentenceTransformer of a user's own, the one above."""
    out = tmp_path / "both"
    record = train_retriever(source, out, vectors=f"sentence-transformers:{exported[0]}", settings=QUICK)
    capsys.readouterr()
    main(["retrieve", "export", str(out), "--dataset", source, "--out", str(tmp_path / "encoder"), "--json"])
    written = json.loads(capsys.readouterr().out)
    assert written["in_index"] == record["counts"]["items_without_interactions"] < written["items"]
    new = ["title: A New One; genre: travel"]
    wanted = Retriever.load(out).embed(new)
    assert SentenceTransformer(str(tmp_path / "encoder"), device="cpu").encode(new) == pytest.approx(wanted, abs=1e-5)


def test_other_vectors_are_not_written(source, retriever, in_this_process, tmp_path, monkeypatch):
    monkeypatch.setattr(item_encoder, "TOKENS", 4)  # it reads less of a text than the retriever did
    with pytest.raises(ReleaseError, match="gives other vectors than the retriever"):
        item_encoder.export(retriever, source, tmp_path / "encoder")
    assert not list(tmp_path.iterdir())


def test_a_retriever_without_a_model_is_none(source, retriever, tmp_path):
    for vectors, said in (("tf-idf", "come from TF-IDF"), ("none", "come from ids alone")):
        train_retriever(source, tmp_path / vectors, vectors=vectors, settings=QUICK)
        with pytest.raises(UsageError, match=f"{said}.*--vectors transformers:MODEL"):
            item_encoder.export(tmp_path / vectors, source, tmp_path / "encoder")
    with pytest.raises(UsageError, match="not empty"):
        item_encoder.export(retriever, source, tmp_path)
