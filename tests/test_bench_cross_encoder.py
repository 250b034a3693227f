"""A CrossEncoder that sentence-transformers trains from our dataset: same prompts, and figures beside our adapter's."""

from dataclasses import replace

import pytest

pytest.importorskip("sentence_transformers")

from peft import LoraConfig

from bench import cross_encoder as bench
from trsr.core.prompts import RankingPrompt
from trsr.dataset import contract
from trsr.errors import UsageError
from trsr.hub.inputs import ReleaseInputs
from trsr.recommender.compare.run import compare
from trsr.recommender.examples import encode_rows
from trsr.recommender.run import Run


@pytest.fixture(scope="module")
def recipe(quickstarted):
    """That of the quickstart, on the dataset as it is published."""
    found = Run.read(quickstarted[0] / "runs" / "recurrent").recipe
    found = replace(found, dataset=str(quickstarted[0] / "release" / "dataset"))
    return replace(found, optim=replace(found.optim, max_steps=2))


@pytest.mark.parametrize("summary", ["Likes tea.", ""])
def test_a_prompt_of_the_dataset_falls_into_query_and_document(summary):
    words = RankingPrompt()
    prefix, candidate = words.prefix(summary, ()), bench.Item.parse("title: Emma")
    query = "Preference summary:\n- Likes tea." if summary else ""
    assert bench.pair(prefix + words.suffix(candidate), words) == (query, "title: Emma")


def test_a_crossencoder_is_trained_on_the_prompts_of_our_adapter(recipe, quickstarted, tmp_path):
    encoder = ReleaseInputs.read(quickstarted[0] / "runs" / "recurrent").encoder
    model, words = bench.untrained(recipe, tmp_path / "base")
    rows = bench.pairs(recipe.dataset, recipe, words)
    texts, users = contract.texts(recipe.dataset), contract.read(recipe.dataset, recipe.config, "train")
    wanted, _ = encode_rows(users, texts, encoder, recipe.negatives, recipe.seed)
    assert len(rows) == len(wanted) == 32
    for row, right in zip(rows, wanted, strict=True):
        ids = model.preprocess([(row["query"], row["document"])])["input_ids"][0].tolist()
        assert ids == right["input_ids"][:-1]
        assert (encoder.yes_id if row["label"] else encoder.no_id) == right["input_ids"][-1]
    # When this fails, peft's own wrapper is needed no longer, in the bench and in the guide.
    with pytest.raises(ValueError, match=r"PEFT .* not compatible, please use a version >= 0\.22"):
        bench.CrossEncoder(str(tmp_path / "base"), device="cpu").add_adapter(LoraConfig(target_modules=["q_proj"]))
    few = bench.pairs(recipe.dataset, replace(recipe, train_users=3), words)
    assert few[:] == rows[:6]


def test_a_recipe_that_trains_on_other_rows_is_refused(recipe, tmp_path):
    for change, said in (
        ({"targets": 2}, "targets is 2, expected 1"),
        ({"form": "shared-prefix", "listwise": 0.5}, r"listwise is 0\.5, expected 0"),
    ):
        with pytest.raises(UsageError, match=said):
            bench.run(recipe.dataset, replace(recipe, **change), [0], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="16 negatives for 16 positives, the recipe 3 for each"):
        bench.pairs(recipe.dataset, replace(recipe, negatives=3), RankingPrompt())


def test_it_stands_beside_our_adapter(recipe, quickstarted, tmp_path):
    run = quickstarted[0] / "runs" / "recurrent"
    bench.theirs(recipe, tmp_path / "theirs", run)
    saved = {path.name for path in (tmp_path / "theirs" / "model").iterdir()}
    assert {"adapter_model.safetensors", "modules.json", "1_LogitScore"} <= saved
    results = compare([str(run / "test"), str(tmp_path / "theirs")], tmp_path / "comparison", plots=False)
    assert {bench.THEIRS, "recurrent"} <= set(results["systems"])
    assert {"train_seconds", "cpu_seconds", "peak_mib"} <= set(results["systems"][bench.THEIRS]["cost"])
