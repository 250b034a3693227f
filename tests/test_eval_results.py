"""Results as the Hub reads them: what the library reads back is what the results file holds."""

import pytest
import yaml
from huggingface_hub import ModelInfo
from huggingface_hub.repocard_data import model_index_to_eval_results

from tests.test_cards import NASTY, RECORDS, changed, header, made
from trsr.hub import cards, eval_results
from trsr.hub.eval_results import FOLDER
from trsr.recommender.results import REPORTED


def parsed(path):
    """The entries of a file, as the Hub's client gives them with the information about a model."""
    return ModelInfo(id="ORG/x", evalResults=yaml.safe_load(path.read_text(encoding="utf-8"))).eval_results


def written(folder, facts, revision="d" * 40):
    found = eval_results.entries(facts.test, facts.names.dataset, facts.recipe.config, revision)
    eval_results.write(folder, found)
    assert parsed(folder / FOLDER / "trsr-sample.yaml") == found
    return found


def test_the_library_reads_back_what_was_measured(tmp_path):
    facts = made(tmp_path)
    found = written(tmp_path, facts)
    own = RECORDS["test"]["systems"]["recurrent"]
    assert {one.task_id: one.value for one in found} == {
        f"recurrent-{name.replace('@', '-at-')}": own[name]["value"] for name in REPORTED
    }
    assert {(one.dataset_id, one.dataset_revision) for one in found} == {("ORG/trsr-sample", "d" * 40)}
    assert found[1].task_id == "recurrent-recall-at-3"
    assert found[1].notes == (
        "Recall@3 on the test split: mean of 1,500 users, 95% interval 0.46 to 0.56; 1 positive and 20 uniform negatives a "
        "user, seed 0"
    )


def test_both_forms_hold_the_same_figures(tmp_path):
    facts = made(tmp_path)
    for kind in ("adapter", "pipeline"):
        text = cards.card(kind, facts, {"dataset": "d" * 40})
        _, shown = model_index_to_eval_results(header(text)["model-index"])
        values = [(one.dataset_type, one.dataset_revision, one.metric_value) for one in shown]
        found = written(tmp_path, facts)
        assert values == [(one.dataset_id, one.dataset_revision, one.value) for one in found]


@pytest.mark.parametrize("text", NASTY, ids=ascii)
def test_texts_are_data(tmp_path, text):
    facts = made(tmp_path, changed("test", protocol=text, split=text))
    written(tmp_path, facts, None)
    shown = (tmp_path / FOLDER / "trsr-sample.yaml").read_text(encoding="utf-8")
    assert [set(one) for one in yaml.safe_load(shown)] == [{"dataset", "value", "notes"}] * len(REPORTED)


def test_a_release_holds_them_beside_its_cards(release):
    holding = {path.parent.parent.name for path in release.folder.rglob(f"{FOLDER}/*.yaml")}
    assert holding == {"adapter", "pipeline"}
    found = [parsed(path) for path in release.folder.rglob(f"{FOLDER}/*.yaml")]
    assert found[0] == found[1]
    own = release.facts.test.systems[release.facts.test.system]
    assert [one.value for one in found[0]] == [round(own[name]["value"], 4) for name in REPORTED]
