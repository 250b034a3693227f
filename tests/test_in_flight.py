"""How many requests go to a server at a time, on a clock that stands still while anything can run."""

import asyncio
import random

import pytest

from trsr.summaries.engines.in_flight import InFlight


class Clock(asyncio.SelectorEventLoop):
    """Runs without waiting: when nothing is ready, the time is that of the next event."""

    now = 0.0

    def time(self):
        return self.now

    def _run_once(self):
        if not self._ready and self._scheduled:
            self.now = max(self.now, self._scheduled[0].when())
        super()._run_once()


def ask(serve, gate, workers, count):
    """Seconds that `count` requests of `workers` workers take, and how many were given up; those are asked again."""

    async def work(left, given_up):
        while left:
            left.pop()
            while True:
                try:
                    async with gate.turn():
                        await serve()
                    break
                except TimeoutError:
                    given_up.append(1)

    async def run():
        left, given_up = [1] * count, []
        await asyncio.gather(*(work(left, given_up) for _ in range(workers)))
        return asyncio.get_running_loop().time(), len(given_up)

    with asyncio.Runner(loop_factory=Clock) as runner:
        return runner.run(run())


def one_at_a_time(seconds):
    line, draw = asyncio.Lock(), random.Random(0)

    async def serve():
        async with line:
            await asyncio.sleep(seconds * draw.uniform(0.3, 1.7))

    return serve


def all_at_once(seconds):
    draw = random.Random(0)
    return lambda: asyncio.sleep(seconds * draw.uniform(0.3, 1.7))


def test_a_server_that_gives_one_answer_at_a_time_lets_none_grow_too_old():
    gate = InFlight(32, timeout=60)
    seconds, given_up = ask(one_at_a_time(5), gate, workers=32, count=300)
    assert given_up == 0
    assert 3 <= gate.limit <= 6  # a little less than the 6 in half a time-out
    assert seconds < 1.1 * 300 * 5  # and it is never idle


def test_a_server_that_takes_all_at_once_gets_as_many_as_are_allowed():
    gate = InFlight(32, timeout=60)
    seconds, given_up = ask(all_at_once(10), gate, workers=32, count=1000)
    assert given_up == 0
    assert gate.limit == 32
    assert seconds < 1.5 * 1000 / 32 * 10


def test_a_quick_first_answer_lets_all_go():
    gate = InFlight(256, timeout=120)
    ask(all_at_once(0.05), gate, workers=256, count=2)
    assert gate.limit == 256


def test_a_request_that_is_given_up_makes_room_and_lowers_the_limit():
    gate = InFlight(8, timeout=10)
    ask(all_at_once(1), gate, workers=8, count=100)
    assert gate.limit == 8
    answers = iter([100, 1])  # the first is too slow, once

    async def serve():
        await asyncio.sleep(next(answers))

    _, given_up = ask(serve, gate, workers=1, count=1)
    assert given_up == 1
    assert gate.limit == 1


def test_an_error_is_the_caller_s_and_makes_room():
    gate = InFlight(1, timeout=10)

    async def fail():
        async with gate.turn():
            raise ConnectionError("gone")

    async def twice():
        for _ in range(2):
            with pytest.raises(ConnectionError):
                await fail()

    asyncio.run(twice())
