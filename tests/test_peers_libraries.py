"""Peers of other libraries, in the environment that the header of hub_recipes/baselines.py names, with pytest and hypothesis beside: -m slow."""

import json
import time

import numpy as np
import pytest

pytest.importorskip("rectools")
pytest.importorskip("optuna")

from peers import run, table
from peers.fitted import Budget
from peers.material import load
from peers.search import Trial, search
from tests import tiny
from trsr.dataset import contract
from trsr.errors import TrainError

pytestmark = pytest.mark.slow
QUICK = Budget(trials=1, epochs=3, patience=2)
NAMES = ("ease", "als", "sasrec", "esasrec", "sasrec-features", "hstu", "bert4rec", "gru4rec")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """60 users who go round a circle of 20 items of two kinds; one item that nobody met."""
    items = [{"item_id": f"i{n}", "title": f"T{n}", "text": f"title: T{n}"} for n in range(21)]
    users = []
    for number in range(60):
        names = [f"i{(number + step) % 20}" for step in range(5 + number % 3)]
        users.append(
            {"user_id": f"u{number}", "history": names[:-1], "target": names[-1]}
            | {"negatives": [f"i{(number + 10 + step) % 20}" for step in range(4)] + ["i20"]}
        )
    splits = {"train": users[:40], "validation": users[40:50], "test": users[50:]}
    return tiny.write_splits(tmp_path_factory.mktemp("data") / "circle", items, splits, dataset={"name": "circle"})


@pytest.mark.parametrize("name", NAMES)
def test_scores_hang_on_the_history_alone(source, name):
    """Of the same rows in another order, of one by one, and beside rows without a known item."""
    loaded = load([source])
    settings = {setting: values[0] for setting, values in table.PEERS[name].space.items()}
    fitted = table.PEERS[name].fit(loaded, settings, 0, QUICK)
    rows = loaded.asked[source, "test"][:]
    scores = fitted.score(rows)
    assert scores.shape == (10, 21)
    assert np.isfinite(scores).all()
    assert (scores[:, 20] == scores[:, :20].min(axis=1)).all()  # nobody met it
    backwards = fitted.score({column: values[::-1] for column, values in rows.items()})
    np.testing.assert_allclose(backwards[::-1], scores, rtol=1e-3, atol=1e-5)
    alone = fitted.score({column: [values[3]] for column, values in rows.items()})
    np.testing.assert_allclose(alone[0], scores[3], rtol=1e-3, atol=1e-5)
    mixed = fitted.score({"history": [["i20"], rows["history"][3], []]})
    np.testing.assert_allclose(mixed[1], scores[3], rtol=1e-3, atol=1e-5)
    assert not mixed[[0, 2]].any()


def test_networks_learn_an_order_that_linear_models_do_not_see(source):
    loaded = load([source])
    space = table.PEERS["sasrec"].space
    fitted = table.PEERS["sasrec"].fit(
        loaded, {name: values[0] for name, values in space.items()} | {"lr": 0.01}, 0, Budget(epochs=30, patience=30)
    )
    rows = contract.read(source, "histories", "test")[:]
    best = fitted.score(rows).argmax(axis=1)
    assert sum(f"i{number}" == target for number, target in zip(best, rows["target"], strict=True)) >= 7
    assert fitted.record["epochs"] == 30
    assert fitted.record["epoch"] <= 30


def test_fits_of_one_seed_are_equal(source):
    loaded = load([source])
    for name in ("als", "esasrec"):
        settings = {setting: values[0] for setting, values in table.PEERS[name].space.items()}
        one, again, other = (table.PEERS[name].fit(loaded, settings, seed, QUICK) for seed in (0, 0, 1))
        rows = loaded.asked[source, "test"][:]
        assert np.array_equal(one.score(rows), again.score(rows)), name
        assert not np.array_equal(one.score(rows), other.score(rows)), name


def test_esasrec_scores_sampled_items_as_rectools_does():
    """Scores and gradients; an item that is drawn twice counts twice."""
    import torch
    from rectools.models.nn.transformers.similarity import DistanceSimilarityModule

    from peers.networks import SampledScores

    generator = torch.Generator().manual_seed(0)
    users, items = torch.randn(3, 5, 8, generator=generator), torch.randn(20, 8, generator=generator)
    drawn = torch.randint(20, (3, 5, 30), generator=generator)
    found = []
    for module in (DistanceSimilarityModule(), SampledScores()):
        leaves = [users.clone().requires_grad_(), items.clone().requires_grad_()]
        scores = module(*leaves, drawn)
        scores.square().sum().backward()
        found.append([scores.detach(), *(leaf.grad for leaf in leaves)])
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path):
    space = {"x": (0, 1, 2, 3), "y": (0.5, 0.1)}

    def value(settings):
        return Trial(settings, -((settings.get("x", 0) - 2) ** 2) + settings.get("y", 0), {"cpu_seconds": 60.0})

    whole = search(tmp_path / "a.sqlite3", "study", space, Budget(trials=6), 0, value)
    assert whole[0].settings == {"x": 0, "y": 0.5}
    assert len({json.dumps(trial.settings) for trial in whole}) == 6
    calls = []

    def killed(settings):
        calls.append(settings)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return value(settings)

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "b.sqlite3", "study", space, Budget(trials=6), 0, killed)
    resumed = search(tmp_path / "b.sqlite3", "study", space, Budget(trials=6), 0, killed)
    assert resumed == whole
    assert len(calls) == 7
    # More trials go on; minutes end it; another study begins again; a small space is tried whole.
    assert search(tmp_path / "b.sqlite3", "study", space, Budget(trials=7), 0, value)[:6] == whole
    assert len(search(tmp_path / "b.sqlite3", "other", space, Budget(trials=6, cpu_minutes=2), 0, value)) == 2
    assert len(search(tmp_path / "b.sqlite3", "small", {"x": (1, 2)}, Budget(trials=6), 0, value)) == 2
    assert len(search(tmp_path / "b.sqlite3", "none", {}, Budget(trials=6), 0, value)) == 1


def test_a_search_passes_over_settings_whose_training_diverges(tmp_path):
    asked = []

    def value(settings):
        asked.append(settings)
        if settings["x"] == 0:
            raise TrainError("the loss is nan")
        return Trial(settings, float(settings["x"]), {"cpu_seconds": 1.0})

    found = search(tmp_path / "a.sqlite3", "study", {"x": (0, 1, 2)}, Budget(trials=3), 0, value)
    assert asked[0] == {"x": 0}  # the default, tried first
    assert sorted(trial.settings["x"] for trial in found if trial.value is not None) == [1, 2]
    [diverged] = [trial for trial in found if trial.value is None]
    assert diverged.settings == {"x": 0}
    assert diverged.about["error"] == "the loss is nan"
    assert diverged.about["cpu_seconds"] >= 0


def test_what_diverged_counts_for_the_bound_on_cpu_minutes(tmp_path):
    def value(settings):
        until = time.process_time() + 0.5
        while time.process_time() < until:
            pass
        raise TrainError("the loss is nan")

    budget = Budget(trials=6, cpu_minutes=0.8 / 60)
    found = search(tmp_path / "a.sqlite3", "study", {"x": tuple(range(8))}, budget, 0, value)
    assert [trial.value for trial in found] == [None, None]


def test_a_search_that_was_killed_before_its_first_trial_goes_on(tmp_path, monkeypatch):
    import optuna

    def given(name):
        return (
            tmp_path / name,
            "study",
            {"x": (1, 2, 3)},
            Budget(trials=2),
            0,
            lambda settings: Trial(settings, 1.0, {"cpu_seconds": 1}),
        )

    def killed(study):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(optuna.Study, "ask", killed)  # the defaults are enqueued, and wait
        with pytest.raises(KeyboardInterrupt):
            search(*given("a.sqlite3"))
    assert search(*given("a.sqlite3")) == search(*given("b.sqlite3"))
    study = optuna.load_study(study_name="study", storage=f"sqlite:///{tmp_path / 'a.sqlite3'}")
    assert [trial.state.name for trial in study.get_trials()] == ["COMPLETE", "COMPLETE"]


def test_the_whole_with_a_process_for_each_fit(source, tmp_path):
    for name in ("ease", "esasrec"):
        run.run(name, [source], tmp_path / "out", budget=Budget(trials=2, epochs=2, patience=1), seeds=[0, 1])
    folders = sorted(path for path in (tmp_path / "out" / "circle").iterdir() if not path.name.endswith("validation"))
    assert [folder.name for folder in folders] == ["ease-0", "esasrec-0", "esasrec-1"]
    results = json.loads((folders[2] / "results.json").read_text())
    assert results["tuning"]["seed_of_fit"] == 1
    assert len(results["tuning"]["trials"]) == 2
    assert results["versions"]["rectools"]
