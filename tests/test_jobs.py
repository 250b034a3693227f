"""Every script in hub_recipes/jobs: its header, its launch command, its dry run; and the folder kept in a bucket."""

import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

import pytest
from huggingface_hub.errors import EntryNotFoundError

from trsr.cli import job

ROOT = Path(__file__).parent.parent
# The one for vLLM runs without our package: see test_vllm_job.py.
SCRIPTS = sorted(path for path in (ROOT / "hub_recipes" / "jobs").glob("*.py") if path.stem != "vllm_summarize")
SECRET = "hf_never_shown"


def launch_command(script):
    """What the docstring says to type, as words from `hf` on."""
    text = script.read_text(encoding="utf-8")
    command = re.search(r"^    (hf jobs uv run .*?)\n\n", text, re.M | re.S).group(1)
    return shlex.split(command.replace("\\\\\n", " "))


def runs(*words, cwd):
    env = os.environ | {"HF_TOKEN": SECRET, "HF_HUB_OFFLINE": "1", "HF_HOME": str(cwd / "hf"), "NO_COLOR": "1"}
    env["PYTHONPATH"] = str(ROOT / "hub_recipes")
    done = subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=env, check=False)
    assert SECRET not in done.stdout + done.stderr
    return done


@pytest.fixture(params=SCRIPTS, ids=lambda path: path.stem)
def script(request):
    return request.param


def test_there_is_a_job_for_each_step():
    assert {path.stem for path in SCRIPTS} == {"build", "summarize", "train", "evaluate", "publish"}


def test_the_header_asks_for_the_package_a_secret_and_time(script):
    tomllib = pytest.importorskip("tomllib")
    lines = script.read_text(encoding="utf-8").split("# ///\n")[0].removeprefix("# /// script\n").splitlines()
    header = tomllib.loads("\n".join(line[2:] for line in lines))
    assert header["dependencies"] == ["llm-trsr"]
    assert header["requires-python"] == ">=3.11"
    assert header["tool"]["hf-jobs"]["secrets"] == ["HF_TOKEN"]
    assert header["tool"]["hf-jobs"]["timeout"].endswith("h")  # half an hour if left out


def test_hf_takes_the_launch_command(script, tmp_path):
    """The real client reads it, and says what it would launch."""
    shutil.copytree(script.parent, tmp_path / "hub_recipes" / "jobs")
    (tmp_path / "dist").mkdir()
    _, *words = launch_command(script)
    place = words.index("run") + 1
    hf = [sys.executable, "-m", "huggingface_hub.cli.hf"]
    done = runs(*hf, *words[:place], "--dry-run", *words[place:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert re.search(rf"args +{re.escape(shlex.join(words[words.index('--') + 1 :]))}\n", said)
    assert re.search(r"timeout +\d+h \(from script\)", said)
    assert re.search(r"secrets +HF_TOKEN=\*\*\* \(from script\)", said)


def test_a_dry_run_says_what_would_be_done_and_does_nothing(script, tmp_path):
    words = launch_command(script)
    here = {"qwen3-0.6b-goodbooks": "nano-sample", "dataset_scripts/tables.py": str(ROOT / "dataset_scripts/tables.py")}
    arguments = [here.get(word, word) for word in words[words.index("--") + 1 :]]
    done = runs(sys.executable, str(script), *arguments, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "folder: hf://buckets/ORG/trsr," in done.stdout
    assert "token: HF_TOKEN is set" in done.stdout
    assert done.stdout.endswith("dry run: nothing was done\n")
    if script.stem == "train":
        assert "run folder: runs/NAME" in done.stdout
        assert "  dataset: data/NAME\n" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_help_has_the_launch_command(script, tmp_path):
    done = runs(sys.executable, str(script), "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "hf jobs uv run" in done.stdout
    assert "All other arguments are those of: " in done.stdout


def test_mistakes_are_told_before_anything_is_copied(capsys):
    for arguments in (["nano-sampel"], ["nano-sample", "--dri-run"], []):
        with pytest.raises(SystemExit) as stop:
            job.run("train", "", ["--bucket", "ORG/trsr", "--dry-run", *arguments])
        assert stop.value.code == 2
    assert "Did you mean 'nano-sample'?" in capsys.readouterr().err
    for bucket in ("trsr", "ORG/", "hf://buckets/ORG/trsr"):
        with pytest.raises(SystemExit) as stop:
            job.run("train", "", ["--bucket", bucket, "--dry-run", "nano-sample"])
        assert stop.value.code == 2
        assert f"--bucket takes ORG/NAME or ORG/NAME/FOLDER, got {bucket!r}" in capsys.readouterr().err


class FolderForBucket:
    """The three calls of HfApi that are used, on a folder."""

    def __init__(self, folder):
        self.folder, self.made, self.copies = folder, [], 0

    def create_bucket(self, bucket_id, private, exist_ok):
        assert private
        self.made.append(bucket_id)

    def sync_bucket(self, source, dest, exclude=(), quiet=False):
        there = [self.folder if one.startswith("hf://buckets/ORG/trsr") else Path(one) for one in (source, dest)]
        if not there[0].exists():
            raise EntryNotFoundError("nothing here")
        self.copies += 1
        shutil.copytree(
            *there,
            dirs_exist_ok=True,
            ignore=lambda _, names: [n for n in names if any(fnmatch(n, x) for x in exclude)],
        )


def test_a_stopped_job_is_taken_up_by_the_next_one(tmp_path):
    api = FolderForBucket(tmp_path / "bucket")
    (tmp_path / "first" / "runs").mkdir(parents=True)
    (tmp_path / "first" / "runs" / "run.json").write_text("{}")
    store = sqlite3.connect(tmp_path / "first" / "store.sqlite", isolation_level=None)
    store.execute("PRAGMA journal_mode=WAL")
    store.execute("CREATE TABLE generations (text)")
    store.execute("INSERT INTO generations VALUES ('kept')")  # in the log beside the file, which is never copied
    with pytest.raises(SystemExit), job.synced_folder("ORG/trsr/books", tmp_path / "first", 60, api):
        sys.exit(143)  # as SIGTERM does
    store.close()
    assert api.made == ["ORG/trsr"]
    assert sorted(path.name for path in api.folder.rglob("*") if path.is_file()) == ["run.json", "store.sqlite.kept"]
    with job.synced_folder("ORG/trsr/books", tmp_path / "second", 60, api):
        assert (tmp_path / "second" / "runs" / "run.json").exists()
        found = sqlite3.connect(tmp_path / "second" / "store.sqlite").execute("SELECT text FROM generations").fetchall()
        assert found == [("kept",)]


def test_the_folder_is_copied_while_the_verb_goes_on_and_a_failed_copy_does_not_stop_it(tmp_path, capsys):
    api = FolderForBucket(tmp_path / "bucket")
    with job.synced_folder("ORG/trsr", tmp_path / "here", 0.0005, api):
        (tmp_path / "here" / "one").write_text("1")
        broken = tmp_path / "here" / "broken.sqlite"
        broken.write_text("no database at all, which is long enough to be read as one" * 20)
        deadline = time.monotonic() + 5
        while "Not copied" not in capsys.readouterr().err:
            assert time.monotonic() < deadline
        broken.unlink()
        while not (api.folder / "one").exists():
            assert time.monotonic() < deadline


def test_files_here_are_named_by_their_whole_path_and_words_stay_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("items.csv", "test", "data/items"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("")
    texts = [
        "items.csv",
        "--items=items.csv",
        "data/items",
        "./test",
        "test",
        "--split=test",
        "none.csv",
        "a.b" * 300,
        "x=items.csv",
    ]
    assert [job._from_here(text) for text in texts] == [
        f"{tmp_path}/items.csv",
        f"--items={tmp_path}/items.csv",
        f"{tmp_path}/data/items",
        f"{tmp_path}/test",
        *texts[4:],
    ]


def test_a_job_runs_its_verb_in_the_folder(tmp_path, monkeypatch, capsys):
    api = FolderForBucket(tmp_path / "bucket")
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: api)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("base: nano\ndataset: ./nowhere\n")
    with pytest.raises(SystemExit):
        job.run("train", "", ["--bucket", "ORG/trsr", "mine.yaml"])
    # The recipe was found from where the job started; the dataset was looked for in the folder.
    assert "No dataset folder at './nowhere'" in capsys.readouterr().err
    assert Path.cwd() == tmp_path / "trsr-job"
    assert api.copies == 1  # the last one, though the verb failed
