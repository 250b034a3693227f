"""Every form, its controls and the peers end in one comparison for each set of candidates, and nothing is done twice."""

import json

import pytest

from tests import tiny
from tests.test_train import BASES
from trsr import data
from trsr.bench import recommend
from trsr.bench.recommend import ABLATIONS, FORMS, Bench
from trsr.recommender.recipe import load_recipe


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    base = tiny.save_base(BASES["plain"], folder / "base")
    datasets = [str(tiny.dataset(folder / name, negatives=count)) for name, count in (("even", 6), ("hard", 4))]
    return Bench("nano-goodbooks", datasets, str(base), folder / "out", ("optim.max_steps=2",), seeds=(0, 1))


def test_one_table_for_each_set_of_candidates(bench, monkeypatch):
    recommend.run(bench, None)
    for name, candidates in (("even", 7), ("hard", 5)):
        found = json.loads((bench.out / f"comparison-{name}" / "comparison.json").read_text(encoding="utf-8"))
        assert found["candidates_a_user"] == candidates
        assert set(found["systems"]) >= {form.name for form in FORMS}
        assert found["systems"]["recurrent"]["seeds"] == 2
        assert found["systems"]["base, zero-shot"]["seeds"] == 1
        # One temperature, for whatever is ranked with those adapters.
        assert {name for name, one in found["calibration"].items() if "after" in one} == {
            "recurrent",
            "recurrent, summaries shuffled",
        }
        assert {one["against"] for one in found["paired"]} == {"recurrent"}
    trained = sorted(path.name for path in (bench.out / "runs").iterdir())
    assert trained == [f"{name}-{seed}" for name in ("hierarchical", "recent only", "recurrent") for seed in (0, 1)]

    def again(*args, **options):
        raise AssertionError("done twice")

    monkeypatch.setattr(recommend, "train", again)
    monkeypatch.setattr(recommend, "evaluate_run", again)
    # A form and seed are measured on both datasets, the base once, and the first form on validation users as well.
    assert len(list(bench.evaluated())) == 2 * (2 * len(FORMS) - 1 + 2)


@pytest.mark.parametrize("form", [*FORMS, *ABLATIONS], ids=lambda form: form.name)
def test_every_form_is_a_recipe(form):
    assert load_recipe("nano-goodbooks", form.changes)
    assert not form.trained or form.trained in [one.name for one in FORMS]


def test_blocks_of_another_size_are_summarised_once(bench, monkeypatch):
    form = next(form for form in ABLATIONS if form.block_size == 3)
    made = {dataset: bench._source(dataset, form) for dataset in bench.datasets}
    assert len(set(made.values())) == 2
    for folder in made.values():
        assert data.provenance(folder)["summaries"]["block_size"] == 3
        assert len(data.read(folder, "recurrent", "test")[0]["block_summaries"]) == 3
    monkeypatch.setattr(recommend, "summarize_dataset", lambda *args, **options: pytest.fail("done twice"))
    assert {dataset: bench._source(dataset, form) for dataset in bench.datasets} == made
