import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pyarrow.parquet as pq
import pytest

from trsr.errors import UsageError
from trsr.summaries.store import SCHEMA, UNCHECKED, Generation, Store

ENGINE = {"engine": "x", "model": "m"}
A, B, C = (letter * 64 for letter in "abc")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "s.sqlite"


def test_what_was_put_is_got_attempt_by_attempt(path):
    good, bad = Generation(A, 1, "good", "", "stop", 7, 3), Generation(A, 0, "", "empty", "stop", 7, 0)
    Store(path).put([good, bad, Generation(B, 0, "b")], ENGINE)
    assert Store(path).get([A, C, B]) == {A: [bad, good], B: [Generation(B, 0, "b")]}


def test_what_is_kept_stays_as_it_is(path):
    store = Store(path)
    store.put([Generation(A, 0, "first")], ENGINE)
    store.put([Generation(A, 0, "second"), Generation(B, 0, "b")], ENGINE, origin="elsewhere")
    assert [one.text for one in store] == ["first", "b"]


def test_what_is_judged_again_is_kept(path):
    store = Store(path)
    store.put([Generation(A, 0, "a", UNCHECKED), Generation(A, 1, "b", UNCHECKED)], ENGINE)
    store.set_problems([Generation(A, 1, "another text", "echo")])
    assert Store(path).get([A]) == {A: [Generation(A, 0, "a", UNCHECKED), Generation(A, 1, "b", "echo")]}


def test_answers_of_another_server_are_not_taken_for_those_of_this_one(path):
    store = Store(path)
    store.bind_server(ENGINE, "http://a/v1", False)
    store.put([Generation(A, 0, "a")], ENGINE)
    Store(path).bind_server(ENGINE, "http://a/v1", False)
    Store(path).bind_server({**ENGINE, "model": "another"}, "http://b/v1", False)
    with pytest.raises(UsageError, match=r"has answers of 'm' by http://a/v1, not by http://b/v1.* --same-model"):
        Store(path).bind_server(ENGINE, "http://b/v1", False)
    Store(path).bind_server(ENGINE, "http://b/v1", True)
    for known in ("http://a/v1", "http://b/v1"):
        Store(path).bind_server(ENGINE, known, False)


def test_a_server_that_never_answered_binds_nothing(path):
    store = Store(path)
    store.bind_server(ENGINE, "http://mistyped/v1", False)
    store.put([Generation(B, 0, "b")], ENGINE, origin="a cache")
    store.bind_server(ENGINE, "http://a/v1", False)
    store.put([Generation(A, 0, "a")], ENGINE)
    with pytest.raises(UsageError, match=r"by http://a/v1, not by http://mistyped/v1"):
        Store(path).bind_server(ENGINE, "http://mistyped/v1", False)


def test_a_file_that_is_no_store(tmp_path):
    (tmp_path / "notes.txt").write_text("Buy milk. " * 100)
    with pytest.raises(UsageError, match=r"notes\.txt cannot be used as a store: .* Choose another --store"):
        Store(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "Buy milk. " * 100
    with pytest.raises(UsageError, match=r"cannot be used as a store: unable to open"):
        Store(tmp_path)


def test_a_store_that_another_process_keeps(path, monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(
        "trsr.summaries.store.sqlite3.connect", lambda *args, **more: connect(*args, **{**more, "timeout": 0})
    )
    one, other = Store(path), Store(path)
    one.put([Generation(A, 0, "a")], ENGINE)
    one._base.execute("BEGIN IMMEDIATE")
    with pytest.raises(UsageError, match=r"cannot be used as a store: database is locked"):
        other.put([Generation(B, 0, "b")], ENGINE)


def test_all_of_them_or_none(path):
    store = Store(path)
    with pytest.raises(ZeroDivisionError):
        store.put((Generation(key, 1 // (key != B), "x") for key in (A, B)), ENGINE)
    assert len(store) == 0
    store.put([Generation(A, 0, "x")], ENGINE)
    assert len(Store(path)) == 1


def test_many_keys_at_once(path):
    store = Store(path)
    keys = [f"{n:064}" for n in range(1200)]
    store.put([Generation(key, 0, key) for key in keys], ENGINE)
    assert store.get(keys) == {key: [Generation(key, 0, key)] for key in keys}


def test_counts_are_of_what_was_asked_for(path):
    store = Store(path)
    store.put([Generation(A, 0, "", "empty", "stop", 10, 0), Generation(A, 1, "a", "", "stop", 10, 5)], ENGINE)
    store.put([Generation(B, 0, "b", "", "stop", 100, 50)], {"engine": "y"}, origin="ORG/cache")
    store.put([Generation(C, 0, "c", "", "stop", 1000, 500)], ENGINE)
    store = Store(path)
    store.get([A, B])
    store.get([A])
    assert store.counts() == {
        "questions": 2,
        "asked": 2,
        "retried": 1,
        "rejected": {"empty": 1},
        "reused": 2,
        "imported": {"ORG/cache": 1},
        "tokens": {"prompt": 20, "completion": 5},
        "engines": [{"engine": "x", "model": "m", "attempts": 2}, {"engine": "y", "attempts": 1}],
    }


def test_an_export_holds_what_was_asked_for_and_no_question(path, tmp_path):
    Store(path).put([Generation(key, 0, f"text {key[0]}") for key in (C, B, A)], ENGINE)
    store = Store(path)
    store.get([C, A])
    assert store.export(tmp_path / "e.parquet") == 2
    table = pq.read_table(tmp_path / "e.parquet")
    assert table.schema == SCHEMA
    assert table["key"].to_pylist() == [A, C]
    assert set(table["engine"].to_pylist()) == {'{"engine": "x", "model": "m"}'}


def test_a_new_store_waits_for_another_process_that_makes_it(tmp_path):
    """SQLite itself does not wait here, so that runs that began at once failed at times."""
    path = tmp_path / "s.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("CREATE TABLE made_first (n)")
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.3, other.execute, ["COMMIT"]).start()
        with closing(Store(path)) as store:
            store.put([Generation("a", 0, "x")], {"engine": "x"})
            assert "a" in store.get(["a"])


def test_several_writers(path):
    code = (
        "import sys; from pathlib import Path; from trsr.summaries.store import Generation, Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "for n in range(50):\n"
        "    store.put([Generation(f'{sys.argv[2]}-{n}', 0, 'x'), Generation(f'shared-{n}', 0, 'x')], {'engine': 'x'})"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert len(Store(path)) == 200
