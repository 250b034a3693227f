"""How the command ends, as scripts and terminals see it: real processes."""

import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trsr.cli import main
from trsr.cli.exits import Exit, exit_codes_for_errors
from trsr.errors import EngineError, HubError, InputError, LoadError, RunError

ROOT = Path(__file__).parent.parent


def command(*words):
    return [sys.executable, "-m", "trsr", *map(str, words)]


def environment(folder, **more):
    # Plain files of datasets' cache stay in the test's own folder.
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT / "hub_recipes"),
        "OMP_NUM_THREADS": "1",
        "HF_DATASETS_CACHE": str(folder / "cache"),
        **more,
    }


def run(folder, *words, limit=None):
    """Run a verb in `folder`; `limit` is the largest file in bytes that it may write."""
    small = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None
    return subprocess.run(
        command(*words),
        cwd=folder,
        env=environment(folder),
        preexec_fn=small,
        capture_output=True,
        text=True,
        check=False,
    )


def last_line(said):
    assert "Traceback" not in said
    return said.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "nano-sample", "--outt", "x"], "unrecognized arguments: --outt"),
        (["trian"], "invalid choice: 'trian'"),
        (["check", "./nowhere"], "No dataset folder at './nowhere'"),
        (["check", "data/here/nowhere"], "No dataset folder at 'data/here/nowhere'"),
        (["check", "~/nowhere"], "No dataset folder at '~/nowhere'"),
        (["recommend", "nowhere.json"], "nowhere.json"),
    ],
)
def test_a_wrong_flag_and_a_missing_file_are_mistakes(tmp_path, words, message):
    done = run(tmp_path, *words)
    assert (done.returncode, done.stdout) == (Exit.USER_ERROR, "")
    assert message in last_line(done.stderr)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_stops_a_run_that_then_goes_on(tmp_path, monkeypatch):
    words = [
        "train",
        "nano-sample",
        "summary=none",
        "train_users=24",
        "optim.save_steps=2",
        "optim.batch_size=4",
        "--out",
        "run",
    ]
    began = subprocess.Popen(
        command(*words),
        cwd=tmp_path,
        env=environment(tmp_path),
        # As in a terminal, also where whoever runs the tests has Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(1200):
        if list(tmp_path.glob("run/checkpoints/checkpoint-2/trainer_state.json")):
            break
        assert began.poll() is None, began.stderr.read()
        time.sleep(0.1)
    began.send_signal(signal.SIGINT)
    said = began.communicate(timeout=60)[1]
    assert began.returncode == Exit.INTERRUPTED
    assert last_line(said) == "stopped. The same command goes on from what is kept."
    assert not (tmp_path / "run" / "run.json").exists()
    monkeypatch.chdir(tmp_path)
    main(words)
    assert (tmp_path / "run" / "run.json").is_file()


def test_a_file_that_cannot_be_written_whole_is_not_there_at_all(tmp_path):
    """A limit on file size stands for the full disk where no small one can be mounted."""
    done = run(tmp_path, "summarize", "sample", "--out", "summaries", "--method", "recurrent", limit=60_000)
    assert done.returncode == Exit.DISK_FULL, done.stderr[-2000:]
    assert re.fullmatch(r"error: no room left on the disk \(.*\)\. Make some, .*", last_line(done.stderr))
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}


MOUNTS = (
    shutil.which("unshare")
    and not subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    ).returncode
)


@pytest.mark.skipif(not MOUNTS, reason="needs to mount a small file system")
def test_a_full_disk(tmp_path):
    (tmp_path / "small").mkdir()
    mounted = 'mount -t tmpfs -o size=200k none small && "$@"; code=$?; ls -A small; exit $code'
    words = command("summarize", "sample", "--out", "small/summaries", "--method", "recurrent")
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", mounted, "trsr", *words],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == Exit.DISK_FULL, done.stderr[-2000:]
    assert "no room left on the disk" in last_line(done.stderr)
    assert done.stdout == ""  # nothing lies there


@pytest.mark.parametrize("kind", ["KeyError", "ValueError"])
def test_a_bug_is_not_taken_for_a_mistake(tmp_path, kind):
    code = "from trsr import cli; from unittest import mock\n"
    code += f"with mock.patch('trsr.recommender.recipe.names', side_effect={kind}('bug')): cli.main(['recipes'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode == Exit.BUG
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    "error", [LoadError("which part"), InputError("no title"), RunError("no run"), OSError("no file")]
)
def test_errors_that_say_what_to_do_end_in_one_line(error, capsys):
    with pytest.raises(SystemExit) as left, exit_codes_for_errors():
        raise error
    assert left.value.code == Exit.USER_ERROR
    assert capsys.readouterr().err == f"error: {error}\n"


@pytest.mark.parametrize("kind", [EngineError, HubError])
def test_a_full_disk_of_a_server_is_not_ours(kind, capsys):
    said = "500: No space left on device"
    with pytest.raises(SystemExit) as left, exit_codes_for_errors():
        raise kind(f"The server says: {said}") from ValueError(said)
    assert left.value.code == Exit.USER_ERROR
    with pytest.raises(SystemExit) as left, exit_codes_for_errors():
        raise kind("stopped") from OSError(errno.ENOSPC, "No space left on device", "here/store")
    assert left.value.code == Exit.DISK_FULL
    assert "no room left on the disk (here/store)" in capsys.readouterr().err


def test_a_base_of_an_unknown_kind_is_a_mistake(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps({"model_type": "of-tomorrow"}))
    done = run(tmp_path, "train", "nano-sample", "base=base", "--out", "run")
    assert done.returncode == Exit.USER_ERROR, done.stderr[-2000:]
    assert last_line(done.stderr).startswith("error: The model base cannot be loaded: ")


def test_half_a_file_is_a_mistake_and_named(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"seed": 0, ')
    done = run(tmp_path, "evaluate", "run")
    assert done.returncode == Exit.USER_ERROR, done.stderr[-2000:]
    assert re.fullmatch(r"error: run/run\.json is no JSON file, or not whole: .*", last_line(done.stderr))


@pytest.mark.parametrize("words", [["recipes", "--json"], ["recipes"], ["check", "sample", "--limit", "5"]])
def test_a_reader_that_goes_away_ends_it_quietly(tmp_path, words):
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "wb") as unread:
        done = subprocess.run(
            command(*words), stdout=unread, stderr=subprocess.PIPE, env=environment(tmp_path), text=True, check=False
        )
    assert (done.returncode, done.stderr) == (Exit.BROKEN_PIPE, "")


def test_the_codes_are_documented():
    guide = (ROOT / "hub_recipes" / "GUIDE.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (\d+) \|", guide, re.M) == [str(int(code)) for code in Exit]
