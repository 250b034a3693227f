"""Before anything is pushed, the release is loaded in a fresh process and has to score what the run scored."""

import pytest
from safetensors.torch import load_file, save_file

from trsr.errors import ReleaseError
from trsr.hub.inputs import USERS, ReleaseInputs
from trsr.hub.rehearsal import rehearse


@pytest.fixture(scope="module")
def inputs(quickstarted):
    return ReleaseInputs.read(quickstarted[0] / "runs" / "recurrent")


def test_a_release_scores_what_its_run_scored(release, inputs):
    told = rehearse(release, inputs)
    assert told.users == USERS
    assert told.candidates == 21 * told.users
    assert told.difference <= 1e-5
    assert len(told.example.request["history"]) == 3
    assert len(told.example.request["candidates"]) == 4
    assert sorted(index for index, _ in told.example.ranked) == [0, 1, 2, 3]
    odds = [probability for _, probability in told.example.ranked]
    assert odds == sorted(odds, reverse=True)
    assert " x" in told.example.summary


def test_other_weights_are_noticed(release, inputs):
    path = release.folder / "adapter" / "adapter_model.safetensors"
    save_file({name: 1.5 * weight for name, weight in load_file(path).items()}, path, metadata={"format": "pt"})
    with pytest.raises(ReleaseError, match="scores otherwise than the run: log-odds differ by 0"):
        rehearse(release, inputs)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / "pipeline" / "fork.py").write_text("import nothing_there\n"), "nothing_there"),
        (lambda folder: (folder / "adapter" / "adapter_config.json").unlink(), "there is no adapter_config.json"),
        (lambda folder: (folder / "pipeline" / "prompts.py").write_text("raise ValueError('not so')\n"), "not so"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_the_cause(release, inputs, damage, told):
    damage(release.folder)
    with pytest.raises(ReleaseError, match=rf"cannot be loaded by transformers and peft as they are .*{told}"):
        rehearse(release, inputs)
