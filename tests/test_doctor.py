"""What `trsr doctor` finds and advises; the Hub is a small server on this machine."""

import json

import pytest
from huggingface_hub import constants

from tests.hub import Hub
from tests.hub.server import WRITER
from trsr import doctor
from trsr.cli import main


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """No token, and no Hub."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def hub(alone, monkeypatch):
    with Hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", server.url)
        yield server


def test_without_hub_or_token(alone):
    found = doctor.examine()
    assert found["hub"] == {"endpoint": "http://127.0.0.1:9", "token": None, "reachable": False, "user": None}
    assert found["package"]["missing"] == []
    assert any("The Hub is not reached" in line for line in doctor.advice(found))


def test_nothing_is_asked_when_offline(hub):
    assert doctor.examine(offline=True)["hub"]["reachable"] is None
    assert hub.log == []


def test_whose_token_it_is_but_never_the_token(hub, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", WRITER)
    main(["doctor", "--json"])
    said = capsys.readouterr().out
    found = json.loads(said)["hub"]
    assert (found["token"], found["reachable"], found["user"]) == ("environment", True, hub.users[WRITER].name)
    assert WRITER not in said


def test_a_refused_token(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_not_known")
    found = doctor.examine()
    assert (found["hub"]["reachable"], found["hub"]["user"]) == (True, None)
    assert "The Hub refuses the token: hf auth login." in doctor.advice(found)


def test_missing_files_of_the_package(alone, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(doctor, "NEEDED", (tmp_path / "model.safetensors",))
    with pytest.raises(SystemExit) as stop:
        main(["doctor", "--offline"])
    assert stop.value.code == 1
    assert "install llm-trsr again" in capsys.readouterr().out
