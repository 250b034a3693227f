"""What `trsr doctor` finds and advises; the Hub is a small server on this machine.

Versions that are not installed are shown to it as metadata in a folder that comes first on the path.
"""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from huggingface_hub import constants
from packaging.requirements import Requirement

from tests.hub import Hub
from tests.hub.server import WRITER
from trsr.cli import doctor, main
from trsr.records.conflicts import conflicts
from trsr.report.redaction import address

RECIPES = Path(doctor.__file__).parents[2]
CONSTRAINTS = RECIPES / "constraints.txt"


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


def test_a_password_in_the_address_of_the_hub_is_not_shown(alone, monkeypatch, capsys):
    monkeypatch.setattr(constants, "ENDPOINT", "https://mirror:secret@hub.example/hf?key=secret")
    main(["doctor", "--offline", "--json"])
    said = capsys.readouterr().out
    assert json.loads(said)["hub"]["endpoint"] == "https://hub.example/hf"
    assert "secret" not in said


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://localhost:8000/v1", "http://localhost:8000/v1"),
        ("https://hub.example/models/ORG/x@main", "https://hub.example/models/ORG/x@main"),
        ("https://user@hub.example:443/hf?key=secret#secret", "https://hub.example:443/hf"),
        ("https://user:sec/ret@hub.example/hf", "https://hub.example/hf"),
        ("https://user:se@c/r@et@hub.example/hf", "https://hub.example/hf"),
        ("user:sec/ret@hub.example", "hub.example"),
    ],
)
def test_an_address_without_a_password(url, shown):
    assert address(url) == shown


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


def examined(folder):
    """What a `trsr doctor` says that finds `folder` first on its path: exit code, JSON, stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "trsr", "doctor", "--offline", "--json"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(RECIPES)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


def install(folder, name, version, *requires, extras=()):
    """Metadata of a package, as an installation leaves it."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {one}" for one in requires] + [f"Provides-Extra: {one}" for one in extras]
    (info / "METADATA").write_text("\n".join(lines) + "\n")


@pytest.mark.compat
def test_the_installed_versions_fit_and_rank(tmp_path):
    code, found, _ = examined(tmp_path)
    assert (code, found["conflicts"]) == (0, {})
    assert found["ranking"]["log_odds"] == pytest.approx(doctor.LOG_ODDS, abs=1e-3)
    # The readme's request, whose right order is known.
    assert found["ranking"]["log_odds"] == sorted(found["ranking"]["log_odds"], reverse=True)


def test_other_log_odds_are_an_error(monkeypatch, alone):
    monkeypatch.setattr(doctor, "LOG_ODDS", (2.2360, -1.2497))
    found = doctor.examine(offline=True)
    assert doctor.broken(found)
    assert any("The log-odds are not those" in line and "pip install -c " in line for line in doctor.advice(found))


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """What is installed there hides what is installed elsewhere."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_version_out_of_bounds_is_named_with_what_mends_it(folder, alone):
    install(folder, "llm-trsr", "0.1.0", "peft<1,>=0.21")
    install(folder, "peft", "0.5.0")
    found = doctor.examine(offline=True)
    told = "llm-trsr 0.1.0 needs peft<1,>=0.21, and peft 0.5.0 is installed."
    assert found["conflicts"] == {told: f"pip install -c {CONSTRAINTS} peft"}
    assert f"{told} Run: pip install -c {CONSTRAINTS} peft" in doctor.advice(found)
    assert doctor.broken(found)


def test_what_a_requirement_requires_is_looked_at_too(folder):
    install(folder, "llm-trsr", "0.1.0", "transformers>=5.23")
    install(folder, "transformers", "5.99.0", "tokenizers>=7", 'accelerate>=99; extra == "torch"', "no-such")
    assert list(map(str, conflicts())) == [
        f"transformers 5.99.0 needs tokenizers>=7, and tokenizers {version('tokenizers')} is installed.",
        "transformers 5.99.0 needs no-such, and no-such is not installed.",
    ]


def test_an_extra_counts_where_it_is_installed(folder):
    install(folder, "llm-trsr", "0.1.0", 'gradio>=99; extra == "demo"', 'no-such; extra == "demo"', extras=["demo"])
    install(folder, "gradio", "6.0", "no-such")
    assert [one.names for one in conflicts()] == [("llm-trsr", "gradio")]


def test_where_the_tested_versions_are_installed_what_is_asked_for_mends_it(folder, alone):
    pins = [line for line in CONSTRAINTS.read_text().splitlines() if line[0] != "#"]
    tested = {one.name: str(one.specifier)[2:] for one in map(Requirement, pins)}
    install(folder, "llm-trsr", "0.1.0", "transformers")
    install(folder, "transformers", tested["transformers"], "peft>=99")
    install(folder, "peft", tested["peft"])
    assert list(doctor.examine(offline=True)["conflicts"].values()) == ["pip install 'peft>=99'"]


def test_transformers_that_refuses_peft_and_does_not_rank(tmp_path):
    """It states what it asks for in a constant; no metadata know of it."""
    (tmp_path / "transformers" / "integrations").mkdir(parents=True)
    (tmp_path / "transformers" / "__init__.py").write_text("")
    (tmp_path / "transformers" / "integrations" / "__init__.py").write_text("")
    (tmp_path / "transformers" / "integrations" / "peft.py").write_text("MIN_PEFT_VERSION = '99.0'\n")
    code, found, _ = examined(tmp_path)
    assert code == 1
    assert found["ranking"]["error"].startswith("ImportError: ")
    [(told, command)] = found["conflicts"].items()
    assert "needs peft>=99.0, and peft " in told
    assert command.startswith("pip install ")


@pytest.mark.parametrize("package", ["transformers", "torch", "huggingface_hub"])
def test_a_package_that_cannot_be_imported(package, tmp_path):
    (tmp_path / f"{package}.py").write_text("raise ImportError('libsomething.so: cannot open\\nshared object file')\n")
    code, found, _ = examined(tmp_path)
    assert code == 1
    assert "libsomething.so: cannot open shared object file" in found["ranking"]["error"]
    assert found["versions"]["transformers"]
    assert any(
        line.startswith("The recommender in the package fails: ") and "pip install -c " in line
        for line in found["advice"]
    )


def test_what_is_not_installed_has_no_conflicts():
    assert conflicts("no-such-package") == []
