"""What a release is made from is read once: nothing of the run's results is opened again."""

import shutil

import pytest

from tests.test_summaries import contents
from trsr.errors import ResultsError, RunError
from trsr.hub.inputs import USERS, ReleaseInputs
from trsr.hub.release import assemble


@pytest.fixture
def run(quickstarted, tmp_path):
    return shutil.copytree(quickstarted[0] / "runs" / "recurrent", tmp_path / "run")


def test_a_release_needs_no_results_once_its_inputs_are_read(quickstarted, run, tmp_path):
    inputs = ReleaseInputs.read(run)
    for split in ("test", "validation"):
        shutil.rmtree(run / split)
    assemble(inputs, tmp_path / "release")
    rehearsed = contents(quickstarted[0] / "release")
    del rehearsed["pipeline/expected.json"]  # what it answers is known once it was loaded
    assert contents(tmp_path / "release") == rehearsed


def test_the_record_holds_the_run_its_results_and_its_dataset(run):
    inputs = ReleaseInputs.read(run)
    assert inputs.run.folder == run
    assert (inputs.test.split, inputs.validation.split) == ("test", "validation")
    assert inputs.verdict.startswith(
        f"Verdict: recurrent, Recall@3 {inputs.test.systems['recurrent']['recall@3']['value']:.3f}"
    )
    assert len(inputs.log_odds) == USERS
    assert set(inputs.tables) == {"items", "histories", "recurrent", "hierarchical"}
    assert list(inputs.texts) == inputs.tables["items"]["train"]["item_id"]
    first = inputs.tables["recurrent"]["test"][0]
    assert set(inputs.log_odds[0]) == {first["target"], *first["negatives"]}
    assert inputs.settings["summarizer"] == "extractive"
    assert inputs.settings["block_size"] == inputs.provenance.summaries.block_size
    assert inputs.audit is None


def test_what_is_missing_is_named(run, tmp_path):
    with pytest.raises(RunError, match="No finished run at"):
        ReleaseInputs.read(tmp_path / "nothing")
    (run / "test" / "scores.parquet").unlink()
    with pytest.raises(ResultsError, match=r"No scores at .*test.scores\.parquet\. Make them: trsr evaluate"):
        ReleaseInputs.read(run)
    shutil.rmtree(run / "validation")
    with pytest.raises(ResultsError, match="trsr evaluate RUN --split validation"):
        ReleaseInputs.read(run)
