"""A retriever from a dataset folder: trained, written, refused, evaluated, and extended by new items."""

import json
import math
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from tests import tiny
from trsr.cli import main, retrieve
from trsr.core.catalogue import STAGE_ONE
from trsr.core.catalogue import Catalogue as CarriedCatalogue
from trsr.core.modeling import CATALOGUE
from trsr.core.user_model import BLOCKS
from trsr.dataset import contract
from trsr.errors import EvaluationError, InputError, LoadError, RunError, UsageError
from trsr.hub.item_encoder import export
from trsr.metrics import ranking
from trsr.recommender.compare.align import align, read
from trsr.recommender.results import training_seed
from trsr.retrieval import catalogue, ranked, text_vectors
from trsr.retrieval.carried import catalogue_of, write_catalogue
from trsr.retrieval.checkpoint import Checkpoint
from trsr.retrieval.compare import compare_catalogues
from trsr.retrieval.ensemble import make_ensemble
from trsr.retrieval.evaluate import default_folder, evaluate_retriever
from trsr.retrieval.retriever import Retriever, retriever_checksum
from trsr.retrieval.run import train_retriever
from trsr.retrieval.training import Settings

QUICK = Settings(epochs=3, batch=4, learning_rate=1e-2, patience=9)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """60 users who read on in one of two genres, 16 items, the last of which nobody met."""
    random = np.random.default_rng(0)
    genres = ["harbour reef anchor tide", "oven crust yeast flour"]
    items = [
        {"item_id": f"i{n}", "title": f"T{n}", "text": f"title: T{n % 8}; genre: {genres[n % 2]}"} for n in range(16)
    ]
    users = []
    for number in range(60):
        own = random.permutation(range(number % 2, 15, 2))[:6].tolist()
        others = [n for n in range(16) if n not in own]
        negatives = random.choice(others, 5, replace=False).tolist()
        names = [f"i{n}" for n in own]
        users.append(
            {"user_id": f"u{number}", "history": names[:-1], "target": names[-1]}
            | {"negatives": [f"i{n}" for n in negatives]}
        )
    splits = {"train": users[:40], "validation": users[40:50], "test": users[50:]}
    return tiny.write_splits(tmp_path_factory.mktemp("data") / "genres", items, splits, dataset={"name": "genres"})


@pytest.fixture(scope="module")
def folder(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("retrievers") / "both"
    train_retriever(dataset, out, settings=QUICK)
    return out


def test_a_retriever_is_the_same_after_loading_and_with_the_same_seed(dataset, folder, tmp_path):
    first = Retriever.load(folder)
    train_retriever(dataset, tmp_path / "again", settings=QUICK)
    again = Retriever.load(tmp_path / "again")
    assert np.array_equal(first.vectors, again.vectors)
    history = [np.array([0, 2, 4])]
    assert np.array_equal(first.users(history), again.users(history))
    assert first.record["dataset"] == "genres"
    assert first.record["counts"]["items_without_interactions"] == 1
    assert [entry["epoch"] for entry in first.record["log"]] == [1, 2, 3]


def test_the_command_line_knows_what_the_library_does():
    assert (retrieve.STAGE_ONE, retrieve.BLOCKS) == (STAGE_ONE, BLOCKS)


def test_a_finished_retriever_is_kept_and_another_is_not_overwritten(dataset, folder):
    before = (folder / "model.safetensors").stat().st_mtime_ns
    train_retriever(dataset, folder, settings=QUICK)
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="seed was 0, is 1"):
        train_retriever(dataset, folder, settings=Settings(seed=1))


def test_a_training_that_fails_leaves_what_it_goes_on_from(dataset, folder, tmp_path, monkeypatch):
    def killed(*arguments, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("trsr.retrieval.retriever.pq.write_table", killed)
        with pytest.raises(KeyboardInterrupt):
            train_retriever(dataset, tmp_path / "both", settings=QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["both-work"]
    with pytest.raises(UsageError, match=r"both-work was made from something else: .*seed was 0, is 1"):
        train_retriever(dataset, tmp_path / "both", settings=replace(QUICK, seed=1))
    # All epochs are there: none is trained again.
    monkeypatch.setattr("trsr.retrieval.training._step", killed)
    train_retriever(dataset, tmp_path / "both", settings=QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["both"]
    assert same_bytes(folder, tmp_path / "both")


def test_what_a_kill_left_after_the_retriever_was_written_is_removed(dataset, tmp_path, monkeypatch):
    def killed(checkpoint):
        raise KeyboardInterrupt

    quick = replace(QUICK, epochs=1)
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            train_retriever(dataset, tmp_path / "out", settings=quick)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out-work"]
    train_retriever(dataset, tmp_path / "out", settings=quick)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (tmp_path / "out-work").mkdir()  # of somebody else
    train_retriever(dataset, tmp_path / "out", settings=quick)
    assert (tmp_path / "out-work").exists()


def test_a_mistake_in_the_command_leaves_an_empty_folder_as_it_was(dataset, folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(UsageError, match="Unknown item vectors"):
        train_retriever(dataset, out, vectors="tf-idff", settings=QUICK)
    with pytest.raises(RunError, match="No retriever at"):
        make_ensemble([folder, tmp_path / "none"], dataset, out)
    assert list(out.iterdir()) == []
    train_retriever(dataset, out, settings=replace(QUICK, epochs=1))


def test_other_files_in_its_folder_make_no_other_retriever(dataset, folder, tmp_path):
    own = shutil.copytree(folder, tmp_path / "own")
    before = catalogue_of(own, dataset).record["retriever"]
    (own / "eval.json").write_text("{}")
    (own / "text_vectors" / "notes.txt").write_text("mine")
    assert catalogue_of(own, dataset).record["retriever"] == retriever_checksum(own) == before
    for name in ("retriever.json", "text_vectors/vocabulary.json"):
        path, text = own / name, (own / name).read_text()
        path.write_text(text + " ")
        assert retriever_checksum(own) != before
        path.write_text(text)
    assert retriever_checksum(own) == before


def same_bytes(one, other):
    names = ("model.safetensors", "vectors.safetensors", "items.parquet")
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


KILLED = """
import os, signal, sys
from pathlib import Path
from trsr.retrieval import training
from trsr.retrieval.checkpoint import Checkpoint
from trsr.retrieval.run import train_retriever

save, step, after = Checkpoint.save, training._step, []

def saved(checkpoint, state):
    save(checkpoint, state)
    after.append(0)

def stepped(*given):
    if len(after) == 1:
        after[0] += 1
        if after[0] == 3:  # in the middle of the second epoch
            os.kill(os.getpid(), signal.SIGKILL)
    return step(*given)

Checkpoint.save, training._step = saved, stepped
settings = training.Settings(epochs=3, batch=4, learning_rate=1e-2, patience=9)
train_retriever(sys.argv[1], Path(sys.argv[2]), settings=settings)
"""


def test_a_training_that_was_killed_goes_on_to_the_same_bytes(dataset, folder, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, dataset, str(tmp_path / "both")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["both-work"]
    record = train_retriever(dataset, tmp_path / "both", settings=QUICK)
    assert same_bytes(folder, tmp_path / "both")
    before = Retriever.load(folder).record
    assert record["log"] == before["log"]
    assert record["validation"] == before["validation"]
    assert [path.name for path in tmp_path.iterdir()] == ["both"]


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_sampled_softmax_and_patience_go_on_as_well(dataset, tmp_path, monkeypatch, stop):
    settings = Settings(epochs=30, batch=8, draws=8, learning_rate=3e-2, patience=4)
    record = train_retriever(dataset, tmp_path / "whole", settings=settings)
    assert 5 <= len(record["log"]) < 30  # 5 at least, whatever a machine's rounding makes of such a learning rate
    save, count = Checkpoint.save, []

    def saved(checkpoint, state):
        save(checkpoint, state)
        count.append(1)
        if len(count) == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", saved)
    with pytest.raises(KeyboardInterrupt):
        train_retriever(dataset, tmp_path / "resumed", settings=settings)
    assert train_retriever(dataset, tmp_path / "resumed", settings=settings)["log"] == record["log"]
    assert same_bytes(tmp_path / "whole", tmp_path / "resumed")


def test_a_damaged_checkpoint_is_told(dataset, tmp_path, monkeypatch):
    def killed(*arguments, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("trsr.retrieval.retriever.pq.write_table", killed)
        with pytest.raises(KeyboardInterrupt):
            train_retriever(dataset, tmp_path / "out", settings=replace(QUICK, epochs=1))
    state = tmp_path / "out-work" / "state.pt"
    state.write_bytes(state.read_bytes()[:-2000])
    with pytest.raises(RunError, match="out-work to train anew"):
        train_retriever(dataset, tmp_path / "out", settings=replace(QUICK, epochs=1))


def test_another_dataset_is_refused(dataset, folder, small_dataset, capsys):
    with pytest.raises(SystemExit) as end:
        main(["retrieve", "evaluate", str(folder), "--dataset", str(small_dataset)])
    assert end.value.code == 2
    assert "is not the dataset that the retriever was trained on" in capsys.readouterr().err


def altered(dataset, out, change):
    """The same dataset with each row of its histories changed."""
    splits = {split: [change(row) for row in contract.read(dataset, "histories", split)] for split in contract.SPLITS}
    return tiny.write_splits(out, list(contract.read(dataset, "items", "train")), splits, dataset={"name": "genres"})


def test_a_dataset_of_other_negatives_is_the_same_one_to_a_retriever(dataset, folder, tmp_path):
    fewer = altered(dataset, tmp_path / "fewer", lambda row: row | {"negatives": row["negatives"][1:]})
    first, other = (
        evaluate_retriever(folder, str(source), tmp_path / f"out-{n}") for n, source in enumerate((dataset, fewer))
    )
    assert other["catalogue"]["systems"] == first["catalogue"]["systems"]
    assert (first["candidates"]["candidates_a_user"], other["candidates"]["candidates_a_user"]) == (6, 5)
    swapped = altered(dataset, tmp_path / "swapped", lambda row: row | {"history": row["history"][::-1]})
    with pytest.raises(RunError, match="its config histories is"):
        evaluate_retriever(folder, str(swapped), tmp_path / "refused")


def test_a_retriever_is_not_called_as_a_baseline(dataset, folder, tmp_path):
    for name, taken in {"popularity": "the name of a baseline", "label": "a column of scores.parquet"}.items():
        shutil.copytree(folder, tmp_path / name)
        with pytest.raises(UsageError, match=f"'{name}' is {taken}"):
            evaluate_retriever(tmp_path / name, dataset, tmp_path / "out")


def test_a_new_item_has_a_vector_without_training(folder):
    retriever = Retriever.load(folder)
    weights = {name: value.clone() for name, value in retriever.network.state_dict().items()}
    texts = {"new": "title: T3; genre: harbour reef anchor tide", "i0": "kept as it is"}
    wider = retriever.with_items(texts)
    assert wider.item_ids == [*retriever.item_ids, "new"]
    assert np.array_equal(wider.vectors[:16], retriever.vectors)
    assert np.allclose(wider.vectors[16], retriever.embed([texts["new"]])[0])
    assert all((value == weights[name]).all() for name, value in wider.network.state_dict().items())
    # What nobody met in training has its vector from text alone as well: the same text, the same vector.
    cold = retriever.embed(["title: T7; genre: oven crust yeast flour"])[0]
    assert np.allclose(cold, retriever.vectors[15], atol=1e-6)
    # It can be recommended, and stand in a history.
    [found] = wider.recommend([["i0", "new"]], top_k=17)
    assert len(found) == 15
    assert {item_id for item_id, _ in found} == set(wider.item_ids) - {"i0", "new"}
    with pytest.raises(InputError, match="'new' is not in the retriever's catalogue"):
        retriever.recommend([["new"]])


def test_recommendations_are_the_largest_products(folder):
    retriever = Retriever.load(folder)
    [found] = retriever.recommend([["i2", "i4"]], top_k=3)
    products = retriever.vectors @ retriever.users([np.array([2, 4])])[0]
    expected = sorted((n for n in range(16) if n not in (2, 4)), key=lambda n: -products[n])[:3]
    assert [item_id for item_id, _ in found] == [f"i{n}" for n in expected]
    assert [score for _, score in found] == pytest.approx(products[expected].tolist(), rel=1e-5)


def test_a_flat_list_of_ids_is_no_list_of_histories(folder):
    retriever = Retriever.load(folder)
    with pytest.raises(InputError, match=r"lists of item ids, one a user.*\[\[id, \.\.\.\]\]"):
        retriever.recommend(retriever.item_ids[:2])
    with pytest.raises(InputError, match="Item 7 is not in the retriever's catalogue"):
        retriever.recommend([["i0", "zz", 7]])
    with pytest.raises(InputError, match="Item 'new' has no text"):
        retriever.with_items({"new": " "})


def test_recommendations_of_an_index(folder):
    pytest.importorskip("faiss")
    retriever = Retriever.load(folder)
    histories = [["i2", "i4"], [], ["i1"]]
    exact = retriever.recommend(histories, top_k=20)
    indexed = retriever.approximate(probes=4)
    for mine, best in zip(indexed.recommend(histories, top_k=20), exact, strict=True):
        assert [item_id for item_id, _ in mine] == [item_id for item_id, _ in best]
    # The index of a wider retriever holds the new item.
    texts = {"new": "title: T3; genre: harbour reef anchor tide"}
    wider = indexed.with_items(texts)
    assert wider.index.probes == 4
    expected = retriever.with_items(texts).recommend(histories, top_k=20)
    for mine, best in zip(wider.recommend(histories, top_k=20), expected, strict=True):
        assert [item_id for item_id, _ in mine] == [item_id for item_id, _ in best]
    assert retriever.with_items(texts).index is None


def test_ids_alone_give_new_items_no_vector(dataset, tmp_path, capsys):
    given = ["--vectors", "none", "--epochs", "1", "--batch", "9", "--out", str(tmp_path / "ids"), "--json"]
    main(["retrieve", "train", dataset, *given])
    record = json.loads(capsys.readouterr().out)
    assert record["vectors"] is None
    assert record["settings"]["batch"] == 9
    retriever = Retriever.load(tmp_path / "ids")
    with pytest.raises(UsageError, match="by their ids alone"):
        retriever.with_items({"new": "title: New"})
    with pytest.raises(UsageError, match="have no vectors"):
        train_retriever(dataset, tmp_path / "nothing", vectors="none", ids=False)
    with pytest.raises(UsageError, match="Unknown item vectors 'bert'"):
        train_retriever(dataset, tmp_path / "nothing", vectors="bert")
    assert [path.name for path in tmp_path.iterdir()] == ["ids"]


def test_few_draws_train_as_well(dataset, tmp_path):
    record = train_retriever(
        dataset, tmp_path / "drawn", settings=Settings(epochs=8, batch=8, draws=8, learning_rate=1e-2)
    )
    assert record["log"][-1]["loss"] < record["log"][0]["loss"]


def test_hidden_states_of_a_language_model_make_vectors(dataset, tmp_path):
    model = tmp_path / "model"
    network, tokenizer = tiny.model("llama"), tiny.byte_level()
    network.save_pretrained(model)
    tokenizer.save_pretrained(model)
    texts = ["title: Emma", "title: Emma; genre: novels and other long stories", "tea"]
    maker = text_vectors.make(f"transformers:{model}", texts)
    vectors = maker.encode(texts)
    for text, vector in zip(texts, vectors, strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        states = network(ids, output_hidden_states=True).hidden_states[-1][0]
        assert np.allclose(vector, states.mean(0).detach().numpy(), atol=1e-5)
    record = train_retriever(dataset, tmp_path / "out", vectors=f"transformers:{model}", ids=False, settings=QUICK)
    assert record["vectors"]["checksum"].startswith("sha256:")
    retriever = Retriever.load(tmp_path / "out")
    assert retriever.embed(["title: T0; genre: harbour reef anchor tide"]).shape == (1, 128)
    tiny.model("qwen3").save_pretrained(model)
    retriever = Retriever.load(tmp_path / "out")
    assert len(retriever.recommend([["i0"]])[0]) == 10  # its catalogue does not need the model
    with pytest.raises(LoadError, match="is not the model that made this retriever's item vectors"):
        retriever.embed(["title: T0"])


def test_pooling_and_vocabulary_belong_to_a_sentence_model(tmp_path):
    model = tmp_path / "model"
    tiny.model("llama").save_pretrained(model)
    tiny.byte_level().save_pretrained(model)
    pooling = model / "1_Pooling" / "config.json"
    pooling.parent.mkdir()
    pooling.write_text('{"pooling_mode": "mean"}')
    (model / "vocab.txt").write_text("a")
    made = f"sentence-transformers:{model}"
    first = text_vectors.make(made, [])
    for path, text in ((pooling, '{"pooling_mode": "cls"}'), (model / "vocab.txt", "b")):
        before = path.read_text()
        path.write_text(text)
        with pytest.raises(LoadError, match="is not the model that made this retriever's item vectors"):
            text_vectors.load(first.describe(), tmp_path)._check()
        path.write_text(before)
    for other in ("README.md", ".cache/huggingface/model.json"):
        (model / other).parent.mkdir(parents=True, exist_ok=True)
        (model / other).write_text("{}")
    text_vectors.load(first.describe(), tmp_path)._check()


def cached(folder, commit, seed):
    """Put a model into a cache of the Hub, as ORG/model at a commit that its branch is at."""
    repo = folder / "models--ORG--model"
    tiny.model("llama", seed).save_pretrained(repo / "snapshots" / commit)
    tiny.byte_level().save_pretrained(repo / "snapshots" / commit)
    (repo / "refs").mkdir(exist_ok=True)
    (repo / "refs" / "main").write_text(commit)


def test_a_model_of_the_hub_is_pinned_to_the_commit_that_made_the_vectors(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(LoadError, match="No model 'ORG/model': no such folder here, and not read from the Hub"):
        text_vectors.make("transformers:ORG/model", [])
    commits = ["a" * 40, "b" * 40]
    makers = []
    for seed, commit in enumerate(commits):
        cached(tmp_path, commit, seed)
        makers.append(text_vectors.make("transformers:ORG/model", []))
    assert [maker.describe()["checksum"] for maker in makers] == [f"ORG/model@{commit}" for commit in commits]
    first, second = (maker.encode(["title: Emma"]) for maker in makers)  # after the branch has moved
    assert np.abs(first - second).max() > 0.1
    again = text_vectors.load(makers[0].describe(), tmp_path)
    assert np.array_equal(again.encode(["title: Emma"]), first)
    unpinned = text_vectors.load(makers[0].describe() | {"checksum": "ORG/model"}, tmp_path)
    with pytest.raises(LoadError, match="is not the model that made this retriever's item vectors"):
        unpinned.encode(["title: Emma"])


def test_a_training_does_not_go_on_with_another_text_model(dataset, tmp_path, monkeypatch):
    model = tmp_path / "model"
    tiny.byte_level().save_pretrained(model)
    tiny.model("llama").save_pretrained(model)
    options = {"vectors": f"transformers:{model}", "settings": replace(QUICK, epochs=1)}

    def killed(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("trsr.retrieval.training._step", killed)
        with pytest.raises(KeyboardInterrupt):
            train_retriever(dataset, tmp_path / "out", **options)
    assert (tmp_path / "out-work" / "text.npy").is_file()
    before = text_vectors.make(options["vectors"], []).describe()["checksum"]
    tiny.model("llama", seed=1).save_pretrained(model)
    with pytest.raises(UsageError, match=f"out-work was made from something else: text_model was .*{before}"):
        train_retriever(dataset, tmp_path / "out", **options)


def test_vectors_of_a_sentence_model_name_the_package_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    record = {"name": "sentence-transformers", "model": "ORG/model", "checksum": "ORG/model@1234"}
    maker = text_vectors.load(record, tmp_path)
    assert maker.describe() == record
    with pytest.raises(UsageError, match='pip install "sentence-transformers>=6'):
        maker.encode(["a text"])


@pytest.fixture(scope="module")
def evaluated(dataset, folder):
    main(["retrieve", "evaluate", str(folder), "--dataset", dataset, "--json"])
    return folder / "test"


def test_scores_of_candidates_are_products_and_can_be_compared(dataset, folder, evaluated):
    retriever = Retriever.load(folder)
    evaluation = read(str(evaluated))
    assert evaluation.own == "both"
    histories = {row["user_id"]: row["history"] for row in contract.read(dataset, "histories", "test")}
    numbers = retriever.numbers
    for user, item, score in zip(evaluation.users, evaluation.items, evaluation.systems["both"], strict=True):
        vector = retriever.users([np.array([numbers[one] for one in histories[user]])])[0]
        assert score == pytest.approx(float(retriever.vectors[numbers[item]] @ vector), abs=1e-4)
    shutil.copytree(evaluated, evaluated.with_name("other"))
    aligned = align([evaluation, read(f"other={evaluated.with_name('other')}")])
    assert {"both", "other", "popularity", "item-knn", "tf-idf", "chance"} == set(aligned.seeds)


def test_histories_in_another_order_change_the_user_and_not_what_was_met(dataset, folder, evaluated):
    main(["retrieve", "evaluate", str(folder), "--dataset", dataset, "--history", "last:1", "--json"])
    control = folder / "test-history-last-1"
    retriever, rows = Retriever.load(folder), contract.read(dataset, "histories", "test")
    numbers = retriever.numbers
    ranks = []
    for row in rows:
        met = [numbers[item_id] for item_id in row["history"]]
        scores = retriever.vectors @ retriever.users([np.array(met[-1:])])[0]
        ranks.append(1 + sorted(set(range(16)) - set(met), key=lambda n: -scores[n]).index(numbers[row["target"]]))
    found = json.loads((control / "catalogue.json").read_text())
    assert found["history"] == "last:1"
    assert set(found["systems"]) == {"both", "popularity", "item-knn, history last:1", "tf-idf, history last:1"}
    assert found["systems"]["both"]["recall@10"]["value"] == pytest.approx(np.mean([rank <= 10 for rank in ranks]))
    aligned = align([read(str(evaluated)), read(str(control))])
    ordered = {f"{name}, history last:1" for name in ("both", "item-knn", "tf-idf")}
    assert set(aligned.seeds) == {"both", "popularity", "item-knn", "tf-idf", "chance"} | ordered
    assert all(len(seeds) == 1 for seeds in aligned.seeds.values())


def test_the_catalogue_is_measured_as_by_hand(dataset, folder, evaluated):
    found = json.loads((evaluated / "catalogue.json").read_text())
    retriever, rows = Retriever.load(folder), contract.read(dataset, "histories", "test")
    numbers = retriever.numbers
    ranks, shown = [], set()
    for row in rows:
        met = [numbers[item_id] for item_id in row["history"]]
        scores = retriever.vectors @ retriever.users([np.array(met)])[0]
        order = sorted((n for n in range(16) if n not in met), key=lambda n: -scores[n])
        ranks.append(1 + order.index(numbers[row["target"]]))
        shown |= set(order[:10])
    own = found["systems"]["both"]
    assert own["recall@10"]["value"] == pytest.approx(np.mean([rank <= 10 for rank in ranks]))
    assert own["ndcg@10"]["value"] == pytest.approx(
        np.mean([1 / math.log2(1 + rank) if rank <= 10 else 0 for rank in ranks])
    )
    assert own["recall@20"]["value"] == 1  # of 11 items
    assert own["coverage@10"] == len(shown) / 16
    assert {"popularity", "item-knn", "tf-idf"} == {one["against"] for one in found["paired"]}
    assert all(one["p_holm"] >= one["p_value"] for one in found["paired"])
    assert sum(group["rows"] for group in found["by_target"].values()) == 10
    assert found["n_items"] == 16


def test_the_rank_of_a_target_gives_what_the_metrics_of_candidates_give():
    random = np.random.default_rng(0)
    scores = random.integers(0, 9, (40, 130)).astype(float)  # with many ties
    mask = random.random(scores.shape) < 0.9
    labels = np.arange(130) == random.integers(130, size=(40, 1))
    mask |= labels
    expected = ranking.per_user(scores, labels, mask, at=ranked.CUTOFFS)
    found = ranked.measured(scores, labels, mask)
    assert all(found[metric].tolist() == expected[metric].tolist() for metric in found)
    # A list of the target alone, one that lacks it, one without items, one that all share.
    mask = np.array([[True, False], [True, False], [False, False], [True, True]])
    labels = np.array([[True, False], [False, False], [False, False], [False, True]])
    for width in (2, 0):
        rows = slice(4) if width else slice(2, 3)
        found = ranked.measured(np.zeros((4, 2))[rows, :width], labels[rows, :width], mask[rows, :width])
        assert found["recall@10"].tolist() == ([1, 0, 0, 1] if width else [0])
    assert ranked.measured(np.zeros((4, 2)), labels, mask)["ndcg@10"][3] == (1 + 1 / math.log2(3)) / 2
    with pytest.raises(EvaluationError, match="not finite"):
        ranked.measured(np.array([[1, np.nan]]), np.array([[True, False]]), np.ones((1, 2), bool))


def test_a_user_who_met_all_items_but_the_target_is_measured():
    rows = Dataset.from_list([{"user_id": "a", "history": ["i0"], "target": "i1"}])
    measured = catalogue.measure({"any": lambda part: np.ones((1, 2))}, rows, {"i0": 0, "i1": 1}, np.ones(2, int))
    assert measured["any"].per_user["ndcg@10"].tolist() == [1]


def test_equal_scores_are_z_scores_of_0(tmp_path):
    rows = Dataset.from_list([{"user_id": "a", "history": ["i0"], "target": "i1"}])
    numbers, table = {f"i{n}": n for n in range(8)}, np.full((1, 8), 0.1)
    assert np.std(table[0, 1:]) > 0  # of rounding
    one = catalogue.measure({"one": lambda part: table}, rows, numbers, np.ones(8, int))["one"]
    ranked.write(tmp_path, {"one": one.ranked}, {"one": one.per_user}, rows, list(numbers))
    assert ranked.read(tmp_path, "one").scores == [dict.fromkeys(list(numbers)[1:], 0.0)]


def test_results_stand_beside_scores_of_the_same_evaluation(dataset, folder, tmp_path, monkeypatch):
    evaluate_retriever(folder, dataset, tmp_path / "out", limit=3)

    def killed(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr("trsr.retrieval.evaluate.ranked.write", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate_retriever(folder, dataset, tmp_path / "out", limit=3)
    assert [path.name for path in (tmp_path / "out").glob("*.json")] == []


def test_results_on_other_data_or_of_another_seed_are_not_written_over(dataset, folder, tmp_path):
    evaluate_retriever(folder, dataset, tmp_path / "out", limit=3)
    before = (tmp_path / "out" / "results.json").read_bytes()
    fewer = altered(dataset, tmp_path / "fewer", lambda row: row | {"negatives": row["negatives"][1:]})
    for source, seed, other in ((str(fewer), 0, "dataset has changed"), (dataset, 1, "seed was 0, and is 1 now")):
        with pytest.raises(UsageError, match=f"holds results of another evaluation: its {other}"):
            evaluate_retriever(folder, source, tmp_path / "out", limit=3, seed=seed)
    assert (tmp_path / "out" / "results.json").read_bytes() == before


def test_a_dataset_of_other_negatives_has_a_folder_of_its_own(dataset, folder, tmp_path):
    fewer = altered(dataset, tmp_path / "fewer", lambda row: row | {"negatives": row["negatives"][1:]})
    given = {"split": "test", "limit": 3, "history": "reversed"}
    assert default_folder(folder, dataset, **given) == folder / "test-history-reversed-limit-3"
    assert default_folder(folder, str(fewer), **given) == folder / "test-history-reversed-limit-3-fewer"
    both = default_folder(folder, dataset, split="test", run=tmp_path / "mine", stage_one=20)
    assert both == folder / "test-mine-stage-one-20"


def test_ties_share_their_places_and_figures_of_lists_are_by_hand():
    rows = Dataset.from_list(
        [
            {"user_id": "a", "history": ["i0"], "target": "i1", "also_met": ["i2"]},
            {"user_id": "b", "history": ["i1"], "target": "i3", "also_met": []},
        ]
    )
    numbers = {f"i{n}": n for n in range(24)}
    counts = np.array([7, 1, 2, 0] + [0] * 20)
    constant = catalogue.measure({"constant": lambda part: np.zeros((len(part["target"]), 24))}, rows, numbers, counts)
    per_user = constant["constant"].per_user
    assert per_user["recall@10"].tolist() == pytest.approx([10 / 22, 10 / 23])
    assert per_user["recall@100"].tolist() == [1, 1]
    # The first ten that are not met, in the order of the catalogue: i1 and i3 to i11; i0 and i2 to i10.
    assert per_user["popularity@10"].tolist() == pytest.approx([0.1, 0.9])
    bits = -np.log2((counts + 1) / 34)
    assert per_user["novelty@10"].tolist() == pytest.approx(
        [bits[[1, *range(3, 12)]].mean(), bits[[0, *range(2, 11)]].mean()]
    )
    assert constant["constant"].in_top_k[10].tolist() == [True] * 12 + [False] * 12
    assert catalogue.target_groups(rows, numbers, counts).tolist() == [1, 0]


def test_parts_of_the_users_give_what_all_together_give(monkeypatch, dataset, folder):
    retriever, rows = Retriever.load(folder), contract.read(dataset, "histories", "test")

    def scorer(part):
        met = [np.array([retriever.numbers[one] for one in ids]) for ids in part["history"]]
        return retriever.users(met) @ retriever.vectors.T

    counts = np.ones(16, int)
    whole = catalogue.measure({"both": scorer}, rows, retriever.numbers, counts)["both"]
    monkeypatch.setattr(catalogue, "CELLS", 40)  # two users at a time
    parts = catalogue.measure({"both": scorer}, rows, retriever.numbers, counts)["both"]
    assert all(np.allclose(whole.per_user[name], parts.per_user[name]) for name in whole.per_user)
    assert all(np.array_equal(whole.in_top_k[k], parts.in_top_k[k]) for k in whole.in_top_k)


@pytest.fixture(scope="module")
def members(dataset, folder, tmp_path_factory):
    """Two retrievers of other seeds, sizes and user models, the second without ids."""
    other = tmp_path_factory.mktemp("members") / "texts"
    train_retriever(dataset, other, ids=False, width=64, blocks="sasrec", settings=replace(QUICK, seed=1))
    return [folder, other]


def test_an_ensemble_scores_by_the_mean_of_its_members(dataset, folder, members, tmp_path, capsys):
    out = tmp_path / "ensemble"
    command = ["retrieve", "ensemble", *map(str, members), "--dataset", dataset, "--out", str(out)]
    main(command)
    assert "validation Recall@10 over the catalogue" in capsys.readouterr().out
    made, parts = Retriever.load(out), [Retriever.load(member) for member in members]
    new = {"new": "title: T3; genre: harbour reef"}
    histories = [np.array(items, np.int64) for items in ([], [0], [3, 2, 1, 4, 5])]
    for one, others in ((made, parts), (made.with_items(new), [part.with_items(new) for part in parts])):
        mean = np.mean([other.users(histories) @ other.vectors.T for other in others], axis=0)
        assert np.allclose(one.users(histories) @ one.vectors.T, mean, atol=1e-5)
    assert made.record["parameters"] == sum(part.record["parameters"] for part in parts)
    assert [one["vectors"]["name"] for one in made.record["members"]] == ["tf-idf", "tf-idf"]
    # As the catalogue of a pipeline.
    carried = catalogue_of(out, dataset)
    write_catalogue(carried, tmp_path / "repo" / CATALOGUE)
    loaded = CarriedCatalogue.load(str(tmp_path / "repo"), {})
    query = loaded.query([({"item_id": "i1"}, None)])
    ((best, *_),) = loaded.retrieve([query])
    ((item_id, score), *_) = made.recommend([["i1"]])[0]
    assert (loaded.item_ids[best[0]], best[1]) == (item_id, pytest.approx(score, abs=1e-5))
    # Figures on the candidates and on the catalogue, as of any retriever; and what is finished is kept.
    results = evaluate_retriever(out, dataset, tmp_path / "test")
    assert results["catalogue"]["systems"]["ensemble"]["recall@10"]["value"] > 0.5
    evaluate_retriever(folder, dataset, tmp_path / "alone")
    compared = compare_catalogues([tmp_path / "test", tmp_path / "alone"], against="both")
    assert compared["paired"][0]["system"] == "ensemble"
    assert training_seed(results["candidates"]) == 0
    written = (out / "model.safetensors").stat().st_mtime_ns
    main(command)
    assert (out / "model.safetensors").stat().st_mtime_ns == written


def test_an_ensemble_of_a_member_without_texts_has_no_vector_for_a_new_item(dataset, folder, tmp_path):
    train_retriever(dataset, tmp_path / "ids", vectors="none", settings=QUICK)
    make_ensemble([folder, tmp_path / "ids"], dataset, tmp_path / "out")
    with pytest.raises(UsageError, match="or a member of it, knows items by their ids alone"):
        Retriever.load(tmp_path / "out").embed(["title: T3"])


def test_what_makes_no_ensemble_is_refused_and_nothing_is_written(dataset, members, small_dataset, tmp_path):
    made = tmp_path / "made"
    make_ensemble(members, dataset, made)
    out = tmp_path / "out"
    for given, source, error, message in (
        (members[:1], dataset, UsageError, "takes two different retrievers or more, got .*both"),
        ([members[0], members[0]], dataset, UsageError, "the weights of some are equal"),
        ([members[0], made], dataset, UsageError, "made is an ensemble itself: give its members"),
        ([members[0], tmp_path / "none"], dataset, RunError, "No retriever at .*none"),
        (members, str(small_dataset), RunError, "is not the dataset that the retriever was trained on"),
    ):
        with pytest.raises(error, match=message):
            make_ensemble(given, source, out)
    assert not out.exists()
    with pytest.raises(UsageError, match="was made from something else"):
        make_ensemble(members[::-1], dataset, made)
    with pytest.raises(RunError, match="is not the dataset that the retriever was trained on"):
        make_ensemble(members, str(small_dataset), made)  # also where it is there already
    twin = shutil.copytree(members[0], tmp_path / "twin")
    record = json.loads((twin / "retriever.json").read_text())
    (twin / "retriever.json").write_text(json.dumps({**record, "seconds": 1e6}))  # trained anew, with the same seed
    with pytest.raises(UsageError, match="the weights of some are equal"):
        make_ensemble([members[0], twin], dataset, out)
    ids = pq.read_table(twin / "items.parquet")
    pq.write_table(ids.slice(1), twin / "items.parquet")
    with pytest.raises(RunError, match=rf"names {len(ids) - 1} items, and there are {len(ids)} vectors"):
        Retriever.load(twin)
    with pytest.raises(UsageError, match="is an ensemble: export the members"):
        export(made, dataset, out)
