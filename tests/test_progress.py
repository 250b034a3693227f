"""Bars where nobody watches them: lines, now and then."""

import io
from weakref import WeakSet

import pytest
from tqdm import tqdm

from trsr.cli.progress import Lines


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture(autouse=True)
def no_other_bars(monkeypatch):
    """Bars that other tests left open would push those of these tests down the screen."""
    monkeypatch.setattr(tqdm, "_instances", WeakSet())


def test_a_bar_is_a_line_every_so_often_and_one_at_its_end():
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, every=30, clock=clock)
    with tqdm(total=100, file=lines, desc="rows", mininterval=0) as bar:
        for _ in range(100):
            clock.now += 1
            bar.update()
    lines.end()
    told = stream.getvalue()
    assert [line.split("|")[0] for line in told.splitlines()] == [
        "rows:  30%",
        "rows:  60%",
        "rows:  90%",
        "rows: 100%",
    ]
    assert "\r" not in told


def test_a_bar_below_another_one_is_no_end_of_it():
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, every=30, clock=clock)
    with tqdm(total=4, file=lines, desc="outer", mininterval=0) as outer:
        for _ in range(4):
            with tqdm(total=50, file=lines, desc="inner", mininterval=0, leave=False) as inner:
                for _ in range(50):
                    clock.now += 1
                    inner.update()
            outer.update()
    lines.end()
    told = stream.getvalue().splitlines()
    assert 6 <= len(told) <= 12, told
    assert "" not in told
    assert told[-1].startswith("outer: 100%")


def test_all_else_passes_as_it_is_written():
    stream = io.StringIO()
    lines = Lines(stream, clock=Clock())
    print("one\n\ntwo", file=lines)
    lines.write("\x1b[31mred\x1b[0m\n")
    with tqdm(total=2, file=lines, leave=False) as bar:
        bar.update()
        tqdm.write("said meanwhile", file=lines)
    assert stream.getvalue() == "one\n\ntwo\nred\nsaid meanwhile\n"


def test_what_is_printed_during_a_bar_keeps_its_line_break():
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, every=30, clock=clock)
    with tqdm(total=3, file=lines, desc="rows", mininterval=0) as bar:
        for number in range(3):
            clock.now += 40
            bar.update()
            print(f"warning {number}", file=lines)
    print("and", file=lines, end="")
    lines.end()
    others = [line for line in stream.getvalue().splitlines() if not line.startswith("rows: ")]
    assert others == ["warning 0", "warning 1", "warning 2", "and"]


def test_what_is_drawn_when_a_run_ends_is_told():
    stream = io.StringIO()
    lines = Lines(stream, clock=Clock())
    lines.write("\r 40%")
    lines.end()
    print("stopped", file=lines)
    lines.write("\r 41%")
    lines.write("\n")
    assert stream.getvalue() == " 40%\nstopped\n"
