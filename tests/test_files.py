"""Files and folders that are written whole or not at all, bound to what they were made from, and locked."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trsr.errors import UsageError
from trsr.pretrain.domain.train import train_domain
from trsr.pretrain.nano.base import pretrain
from trsr.pretrain.nano.summarizer import train_summarizer
from trsr.quickstart import quickstart
from trsr.recommender.evaluate import evaluate_run
from trsr.recommender.recipe import load_recipe
from trsr.recommender.train import train
from trsr.records import files
from trsr.records.checksums import file_checksum
from trsr.records.files import (
    MADE_FROM,
    append_lines,
    bind,
    locked,
    one_writer,
    read_json,
    read_lines,
    whole_file,
    whole_folder,
    write_text,
)
from trsr.summaries.engines.make import engine
from trsr.summaries.run import summarize_dataset


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def break_off(path):
    path.write_text("half")
    raise KeyboardInterrupt


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "new" / "results.json"
    write_text(path, "first\n")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as draft:
        break_off(draft)
    assert path.read_bytes() == b"first\n"
    write_text(path, "second\n")
    assert path.read_bytes() == b"second\n"
    assert names(path.parent) == ["results.json"]


def test_json_is_read_in_the_encodings_of_editors_and_shells(tmp_path):
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "a.json").write_bytes('{"a": "書籍"}'.encode(encoding))
        assert read_json(tmp_path / "a.json") == {"a": "書籍"}
    for content in (b'{"a": "\xe4"}', b"[" * 5000, b""):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(UsageError, match=r"a\.json is no JSON file, or not whole"):
            read_json(tmp_path / "a.json")


def test_a_file_that_was_replaced_has_another_checksum(tmp_path):
    """`cp -p`, `rsync -t` and `tar` keep the size and the time of modification."""
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    before, state = file_checksum(path), path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)
    assert file_checksum(path) != before


def test_lines_that_follow_a_cut_one_are_read(tmp_path):
    path = tmp_path / "new" / "scores.jsonl"
    with append_lines(path) as append:
        append(["0", [0.1]])
        assert list(read_lines(path)) == [["0", [0.1]]]
    with path.open("a") as file:
        file.write('["1", [0.')  # where a kill cut it off
    with append_lines(path) as append:
        append(["1", [0.5]])
        append("書籍")
    assert list(read_lines(path)) == [["0", [0.1]], ["1", [0.5]], "書籍"]
    with append_lines(None) as append:
        append(1)
    assert list(read_lines(None)) == []


def test_a_folder_is_replaced_whole_or_stays_as_it_was(tmp_path):
    folder = tmp_path / "release"
    with whole_folder(folder) as draft:
        (draft / "a").write_text("1")
    with pytest.raises(KeyboardInterrupt), whole_folder(folder) as draft:
        break_off(draft / "b")
    assert names(folder) == ["a"]
    (tmp_path / ".release.part").mkdir()  # what a kill left
    (tmp_path / ".release.part" / "c").write_text("3")
    with whole_folder(folder) as draft:
        (draft / "b").write_text("2")
    assert names(folder) == ["b"]
    assert names(tmp_path) == ["release"]


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path):
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "a").write_text("1")

    with pytest.raises(FileNotFoundError), whole_folder(folder) as draft:
        draft.rmdir()
    assert names(folder) == ["a"]
    assert names(tmp_path) == ["release"]


def test_a_folder_may_be_where_one_stands(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with whole_folder(Path()) as draft:
        (draft / "a").write_text("1")
    assert names(tmp_path / "here") == ["a"]


def test_a_work_folder_is_bound_to_what_it_is_made_from(tmp_path):
    work = tmp_path / "work"
    settings = {"seed": 0, "sizes": (1, 2), "dataset": "sha256:a"}
    bind(work, settings)
    (work / "checkpoint-1").mkdir()
    bind(work, settings)
    assert json.loads((work / MADE_FROM).read_text()) == {"seed": 0, "sizes": [1, 2], "dataset": "sha256:a"}
    told = "dataset was sha256:a, is sha256:b; steps was None, is 5. Choose another folder, or remove it."
    with pytest.raises(UsageError, match=told) as refused:
        bind(work, {**settings, "dataset": "sha256:b", "steps": 5})
    assert "\n" not in str(refused.value)


def test_a_folder_of_other_things_is_not_bound(tmp_path):
    (tmp_path / "empty").mkdir()
    bind(tmp_path / "empty", {"seed": 0})
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / f".{MADE_FROM}.123-456.part").write_text('{"se')  # of a writer that was killed
    bind(tmp_path / "killed", {"seed": 0})
    assert read_json(tmp_path / "killed" / MADE_FROM) == {"seed": 0}
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("...")
    with pytest.raises(UsageError, match="is not empty, and does not say what it was made from"):
        bind(tmp_path / "thesis", {"seed": 0})
    assert names(tmp_path / "thesis") == ["chapter.tex"]


HOLD = """
import sys, time
from pathlib import Path
from trsr.records.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock of a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_ends_in_one_line_and_a_killed_one_holds_nothing(tmp_path, other):
    folder = tmp_path / "out"
    with pytest.raises(UsageError, match=f"Another process is writing {folder}") as refused, locked(folder):
        pass
    assert "\n" not in str(refused.value)
    with pytest.raises(UsageError, match="Another process"), whole_folder(folder):
        pass
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    with locked(folder), locked(folder):  # in one process it may be taken again
        assert names(tmp_path) == []


@pytest.mark.parametrize("lies_there", ["a file", "a folder of its name"])
def test_where_no_lock_can_be_written_there_is_none(tmp_path, monkeypatch, lies_there):
    monkeypatch.setattr(files, "HF_HOME", str(tmp_path / "home"))
    folder = tmp_path / "out"
    if lies_there == "a file":
        (tmp_path / "home").write_text("")
    else:
        with locked(folder):
            pass
        [lock] = (tmp_path / "home" / "trsr" / "locks").iterdir()
        lock.unlink()
        lock.mkdir()
    with locked(folder), whole_folder(folder):
        pass
    assert folder.is_dir()


@pytest.mark.parametrize(
    ("out", "expected"), [(".", "here-work"), ("a", "here/a-work"), ("a/..", "here-work"), ("link", "here/link-work")]
)
def test_what_lies_beside_a_folder(tmp_path, monkeypatch, out, expected):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path / "here")
    assert files.beside(Path(out), "-work") == tmp_path / expected


def test_of_processes_that_are_launched_together_the_first_one_holds_the_lock(tmp_path, other, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with locked(tmp_path / "out"):
        pass


def test_a_function_that_writes_a_folder_has_one_writer(tmp_path, other):
    written = []

    @one_writer
    def write(source, out, *, seed=0):
        written.append((source, out, seed))
        return seed

    assert write("a", tmp_path / "free", seed=3) == 3
    with pytest.raises(UsageError, match="Another process is writing"):
        write("a", out=tmp_path / "out")
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="file is a file, where a folder is to be written"):
            write("a", out)
    assert written == [("a", tmp_path / "free", 3)]


def test_every_long_run_has_one_writer(tmp_path, other):
    out = tmp_path / "out"
    runs = [
        lambda: quickstart(out),
        lambda: summarize_dataset("sample", out, engine("extractive")),
        lambda: train(load_recipe("nano-sample"), out),
        lambda: evaluate_run(tmp_path / "run", out),
        lambda: train_domain("sample", out),
        lambda: pretrain(out),
        lambda: train_summarizer(out),
    ]
    for run in runs:
        with pytest.raises(UsageError, match="Another process is writing"):
            run()
    assert not out.exists()


def test_a_folder_that_a_kill_left_half_replaced_is_put_back(tmp_path):
    """As it is after the old folder was moved, and before its draft took its place."""
    folder, old = tmp_path / "data", tmp_path / ".data.old"

    @one_writer
    def write(out, fails):
        assert (out / "a").read_text() == "1"
        with whole_folder(out) as draft:
            if fails:
                break_off(draft / "a")

    old.mkdir()
    (old / "a").write_text("1")
    with pytest.raises(KeyboardInterrupt):
        write(folder, True)
    assert names(tmp_path) == ["data"]
    folder.rename(old)
    with pytest.raises(KeyboardInterrupt), whole_folder(folder) as draft:
        break_off(draft / "a")
    assert (folder / "a").read_text() == "1"
