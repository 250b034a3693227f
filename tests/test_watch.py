"""Looking at a run while it is trained changes nothing of it, and tells what the evaluation would."""

import json

import pytest
import torch
from peft import get_peft_model_state_dict, load_peft_weights
from transformers import AutoModelForCausalLM

from tests import tiny
from tests.test_train import BASES, adapter_bytes, make_recipe
from trsr.core.prompts import Encoder, RankingPrompt
from trsr.dataset import contract
from trsr.recommender import train, validation
from trsr.recommender.evaluate import evaluate_run


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watch")
    return tiny.save_base(BASES["plain"], folder / "base"), tiny.dataset(folder / "data")


@pytest.fixture(scope="module", params=["flat", "shared-prefix"])
def watched(request, folders, tmp_path_factory):
    run = tmp_path_factory.mktemp("run") / "run"
    record = train.train(make_recipe(*folders, form=request.param, watch={"steps": 2, "users": 0}), run)
    return request.param, run, record


def test_the_adapter_is_as_without(folders, watched, tmp_path):
    form, run, _ = watched
    train.train(make_recipe(*folders, form=form), tmp_path / "blind")
    assert adapter_bytes(run) == adapter_bytes(tmp_path / "blind")


def test_the_last_look_is_what_evaluation_finds(watched, tmp_path):
    _, run, record = watched
    curves = record["curves"]
    assert [step for step, _ in curves["eval_recall@3"]] == [2, 4, 6]
    assert [step for step, _ in curves["eval_loss"]] == [2, 4, 6]
    found = evaluate_run(run, tmp_path, split="validation")["systems"]["run"]
    for name in validation.WATCHED:
        assert curves[f"eval_{name}"][-1][1] == pytest.approx(found[name]["value"], abs=1e-6)
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["curves"]["eval_loss"]


def test_lists_of_different_lengths_are_ranked_by_what_they_hold(folders):
    """A list of one candidate is always right: padding is no candidate."""
    base, dataset = folders
    rows = contract.read(str(dataset), "recurrent", "validation")
    lists = [row[: place + 1] for place, row in enumerate(rows["negatives"])]
    rows = rows.remove_columns("negatives").add_column("negatives", lists)
    encoder = Encoder(tiny.byte_level(), RankingPrompt(), context=512)
    model = AutoModelForCausalLM.from_pretrained(base)
    for weight in model.parameters():
        weight.data.zero_()  # all candidates tie
    measured = validation.ranking(rows, contract.texts(str(dataset)), encoder, seed=0)(model)
    found = [min(1.0, 3 / (place + 2)) for place in range(len(rows))]
    assert measured["recall@3"] == pytest.approx(sum(found) / len(found))


def test_curves_are_drawn(watched):
    _, run, _ = watched
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not validation.draw({}, run / "nothing.png")
    assert not (run / "nothing.png").exists()


def test_the_best_look_is_kept(folders, tmp_path, monkeypatch):
    """Recall@3 as told here falls after step 2."""
    told, seen = iter([0.4, 0.3, 0.2]), []

    def look(model):
        seen.append({name: one.clone() for name, one in get_peft_model_state_dict(model).items()})
        return {"recall@3": next(told), "mrr@10": 0.0}

    monkeypatch.setattr(train, "ranking", lambda *args: look)
    train.train(make_recipe(*folders, watch={"steps": 2, "keep": "best"}), tmp_path / "best")
    kept = load_peft_weights(str(tmp_path / "best" / "adapter"))
    assert set(kept) == set(seen[0])
    assert all(torch.equal(kept[name], seen[0][name]) for name in kept)
    assert not all(torch.equal(kept[name], seen[-1][name]) for name in kept)


@pytest.mark.parametrize(("keep", "mode"), [("best", "max"), ("last", None)])
def test_a_plateau_is_of_what_the_best_adapter_is_kept_by(folders, tmp_path, keep, mode):
    """Recall@3, higher is better; or the loss, torch's default."""
    recipe = make_recipe(*folders, watch={"steps": 2, "keep": keep}, optim={"scheduler": "reduce_lr_on_plateau"})
    arguments = train.training_arguments(recipe, tmp_path, half=False, cpu=True)
    assert arguments.metric_for_best_model == ("eval_recall@3" if keep == "best" else "loss")
    assert (arguments.lr_scheduler_kwargs or {}).get("mode") == mode


def test_mistakes_are_told(folders):
    with pytest.raises(ValueError, match=r"watch\.keep: got 'best' with watch.steps 0"):
        make_recipe(*folders, watch={"keep": "best"})
