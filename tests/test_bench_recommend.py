"""Every form, its controls and the peers end in one comparison for each set of candidates, and nothing is done twice."""

import json
import shutil
import sys

import pytest

from bench import adapters, recommend
from bench.recommend import ABLATIONS, FORMS, Bench
from tests import tiny
from tests.test_train import BASES
from trsr.dataset import contract
from trsr.metrics.calibration import Calibration
from trsr.recommender import evaluate
from trsr.recommender.recipe import load_recipe
from trsr.records.files import bind


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    base = tiny.save_base(BASES["plain"], folder / "base")
    datasets = [str(tiny.dataset(folder / name, negatives=count)) for name, count in (("even", 6), ("hard", 4))]
    return Bench("domain", datasets, str(base), folder / "out", ("optim.max_steps=2",), seeds=(0, 1))


def test_one_table_for_each_set_of_candidates(bench, monkeypatch):
    # Four users tell no temperature.
    monkeypatch.setattr(evaluate, "fit_calibration", lambda *rows, **users: Calibration(1.5, 0.1, 0.7, 0.6, 4))
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

    monkeypatch.setattr(adapters, "train", again)
    monkeypatch.setattr(adapters, "evaluate_run", again)
    # A form and seed are measured on both datasets, the base once, and the first form on validation users as well.
    assert len(list(bench.evaluated())) == 2 * (2 * len(FORMS) - 1 + 2)


@pytest.mark.parametrize("form", [*FORMS, *ABLATIONS], ids=lambda form: form.name)
def test_every_form_is_a_recipe(form):
    assert load_recipe("domain", form.changes)
    assert not form.trained or form.trained in [one.name for one in FORMS]


def test_datasets_of_one_name_or_in_another_order_are_refused(bench, tmp_path, capsys):
    given = ("--base", bench.base, "--no-peers")
    twin = str(tmp_path / "even")
    shutil.copytree(bench.datasets[0], twin)
    assert recommend.main([twin, *words(bench, tmp_path / "twins", *given)]) == 2
    assert "have one name, and would be written to one folder" in capsys.readouterr().err
    bind(tmp_path / "out" / "runs", adapters.made_from(load_recipe("domain"), bench.datasets, bench.base))
    assert recommend.main([*bench.datasets[::-1], "--out", str(tmp_path / "out"), *given]) == 2
    error = capsys.readouterr().err
    assert "was made from something else: datasets was [['even'," in error
    assert "base was" not in error


def test_blocks_of_another_size_are_summarised_once(bench, monkeypatch):
    form = next(form for form in ABLATIONS if form.block_size == 3)
    made = {dataset: bench._source(dataset, form) for dataset in bench.datasets}
    assert len(set(made.values())) == 2
    for folder in made.values():
        assert contract.provenance(folder).summaries.block_size == 3
        assert len(contract.read(folder, "recurrent", "test")[0]["block_summaries"]) == 3
    monkeypatch.setattr(recommend, "summarize_dataset", lambda *args, **options: pytest.fail("done twice"))
    assert {dataset: bench._source(dataset, form) for dataset in bench.datasets} == made


def uv(folder, monkeypatch, does):
    """A stand-in for uv on the path."""
    script = folder / "bin" / "uv"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\nshift\n{does}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=":")


def words(bench, out, *more):
    return [
        *bench.datasets,
        "--out",
        str(out),
        "--set",
        "optim.max_steps=2",
        "--seeds",
        "0",
        "--forms",
        "recurrent",
        *more,
    ]


def test_one_command_makes_the_base_and_fits_the_peers_beside(bench, tmp_path, monkeypatch):
    made = []

    def base(dataset, out, **options):
        made.append(dataset)
        shutil.copytree(bench.base, out)
        (out / "training.json").write_text("{}")

    monkeypatch.setattr(recommend, "train_domain", base)
    uv(tmp_path, monkeypatch, f'exec {sys.executable} "$@" --peers popularity')  # it has nothing to search
    for _ in range(2):  # the second time nothing is left to do
        assert recommend.main(words(bench, tmp_path / "out")) == 0
    assert made == bench.datasets[:1]
    for name in ("even", "hard"):
        found = json.loads((tmp_path / "out" / f"comparison-{name}" / "comparison.json").read_text(encoding="utf-8"))
        assert {"recurrent", "popularity"} <= set(found["systems"])
        assert (tmp_path / "out" / "peers" / name / "popularity-0" / "results.json").is_file()


def test_peers_that_cannot_be_fitted_are_told(bench, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert recommend.main(words(bench, tmp_path / "out", "--base", bench.base)) == 2
    assert "No uv, with which peers would be fitted" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    uv(tmp_path, monkeypatch, "exit 3")
    assert recommend.main(words(bench, tmp_path / "out", "--base", bench.base)) == 2
    assert "baselines.py ended with exit code 3" in capsys.readouterr().err
    assert recommend.main(words(bench, tmp_path / "out", "--base", bench.base, "--no-peers")) == 0
