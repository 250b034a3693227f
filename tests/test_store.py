import subprocess
import sys

import pytest

from trsr.core.history import Item
from trsr.store import Store, Stored

A, B = (Item("a"),), (Item("b"), Item("c"))


class Counting:
    def __init__(self, fail_at=None):
        self.asked = []
        self.fail_at = fail_at

    def _answer(self, questions, words):
        for question in questions:
            if len(self.asked) == self.fail_at:
                raise RuntimeError("engine broke")
            self.asked.append(question)
        return words

    def block(self, blocks):
        return self._answer(blocks, [f"block of {len(block)}" for block in blocks])

    def merge(self, summaries):
        return self._answer(summaries, ["+".join(group) for group in summaries])

    def update(self, pairs):
        return self._answer(pairs, [f"{summary}, then {len(block)}" for summary, block in pairs])


def test_nothing_is_asked_twice(tmp_path):
    engine = Counting()
    stored = Stored(engine, Store(tmp_path / "s.sqlite"), {"engine": "x"})
    assert stored.block([A, B, A]) == ["block of 1", "block of 2", "block of 1"]
    assert stored.update([("s", A), ("s", B)]) == ["s, then 1", "s, then 2"]
    assert stored.merge([["x", "y"]]) == ["x+y"]
    assert len(engine.asked) == stored.asked == 5
    again = Stored(Counting(fail_at=0), Store(tmp_path / "s.sqlite"), {"engine": "x"})
    assert again.block([B, A]) == ["block of 2", "block of 1"]
    assert again.asked == 0


def test_another_engine_is_asked_anew(tmp_path):
    store = Store(tmp_path / "s.sqlite")
    Stored(Counting(), store, {"engine": "x"}).block([A])
    other = Stored(Counting(), store, {"engine": "y"})
    other.block([A])
    assert other.asked == 1


def test_operations_do_not_mix(tmp_path):
    stored = Stored(Counting(), Store(tmp_path / "s.sqlite"), {})
    assert stored.merge([["a"]]) != stored.block([A])


def test_what_was_answered_before_an_error_is_kept(tmp_path):
    path = tmp_path / "s.sqlite"
    blocks = [(Item(f"{n}"),) for n in range(10)]
    with pytest.raises(RuntimeError, match="engine broke"):
        Stored(Counting(fail_at=5), Store(path), {}, part=2).block(blocks)
    rest = Stored(Counting(), Store(path), {}, part=2)
    rest.block(blocks)
    assert rest.asked == 6  # 4 answers in two whole parts were kept


def test_several_writers(tmp_path):
    path = tmp_path / "s.sqlite"
    code = (
        "import sys; from pathlib import Path; from trsr.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "for n in range(50): store.put({f'{sys.argv[2]}-{n}': 'x', f'shared-{n}': 'x'})"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(Store(path)) == 150
