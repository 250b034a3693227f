"""Many users, one engine: every question once, in order, at the limit and in bounded memory."""

import asyncio
import threading
from collections import Counter

import pytest

from tests.scripted import ScriptedEngine, moody, share, summary
from trsr.core.answer import Answer
from trsr.core.history import Item, blocks_by_count
from trsr.core.summarize import METHODS, calls, steps
from trsr.errors import EngineError
from trsr.summaries.engines.base import ATTEMPTS
from trsr.summaries.scheduler import FAILURES, Scheduler
from trsr.summaries.store import Generation, Store


def good(prompt, seed):
    return Answer(summary(prompt, seed))


def history(user, count=13):
    return blocks_by_count([Item(f"title: T{user}-{n}; genre: g{n % 3}") for n in range(count)])


def strategies(users, methods=METHODS):
    return (steps(history(user, 3 + user % 23), method) for user in users for method in methods)


def run(engine, users=range(40), store=None, methods=METHODS, **options):
    scheduler, trails = Scheduler(engine, store, **options), []
    scheduler.run(strategies(users, methods), trails.append)
    return trails, scheduler


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "s.sqlite")


def test_the_calls_are_the_paper_s_and_both_methods_share_the_first_block(store):
    lengths = [len(history(user, 3 + user % 23)) for user in range(40)]
    for methods, shared in (("recurrent",), 0), (("hierarchical",), 0), (METHODS, 40):
        engine = ScriptedEngine(good)
        run(engine, methods=methods)
        assert len(engine.asked) == sum(calls(lengths, method) for method in methods) - shared
        assert len(set(engine.asked)) == len(engine.asked)


def test_trails_come_in_order_whatever_the_order_of_answers(store):
    turn = iter(range(10**6))

    async def uneven():
        for _ in range(next(turn) * 7919 % 13):
            await asyncio.sleep(0)

    straight, _ = run(ScriptedEngine(good, workers=1))
    crooked, _ = run(ScriptedEngine(good, workers=16, pause=uneven), store=store)
    assert crooked == straight


def test_twins_are_asked_about_once(store):
    engine = ScriptedEngine(good)
    trails, _ = run(engine, users=[5] * 30, store=store)
    # Two blocks: the first (shared), its update, the second, the merge.
    assert len(engine.asked) == 4
    assert len(set(trails)) == 2


def test_requests_under_way_stay_at_the_limit():
    engine = ScriptedEngine(good, workers=12)
    under_way = []

    async def pause():
        under_way.append(engine.going)
        for _ in range(len(under_way) * 7919 % 211):
            await asyncio.sleep(0)

    engine._pause = pause
    run(engine, users=range(60))
    assert engine.most == 12
    # Full nearly to the last user: nobody waits for the slowest of a level.
    busy = under_way[12:-40]
    assert sum(busy) / len(busy) > 11.5


def test_the_window_bounds_how_far_users_are_read_ahead():
    engine, read = ScriptedEngine(good, workers=2), []
    done = []

    def watched():
        for strategy in strategies(range(300), ("recurrent",)):
            read.append(1)
            assert len(read) - len(done) <= 21
            yield strategy

    Scheduler(engine, window=20).run(watched(), done.append)
    assert len(done) == 300


def test_bad_answers_are_put_again_with_another_seed_and_kept_with_their_reason(store):
    engine = ScriptedEngine(moody, seed=0)
    trails, scheduler = run(engine, store=store)
    kept = Counter((one.attempt, one.problem) for one in store)
    assert {why for _, why in kept} == {"", "cut off", "refusal"}
    assert kept[1, "cut off"] == 0  # the second seed was better
    assert scheduler.fallen_back["refusal"] >= kept[2, "refusal"] > 0  # a shared first block counts twice
    assert scheduler.fallen_back.keys() == {"refusal"}
    assert max(attempt for _, attempt in engine.asked) == ATTEMPTS - 1
    assert all(trail.summary for trail in trails)
    assert store.counts()["asked"] == len(engine.asked) == len(set(engine.asked))


def test_the_next_run_asks_nothing_and_says_the_same(tmp_path):
    first, told = run(ScriptedEngine(), store=Store(tmp_path / "s.sqlite"))
    again = ScriptedEngine()
    second, told_again = run(again, store=(opened := Store(tmp_path / "s.sqlite")))
    assert second == first
    assert again.asked == []
    assert told_again.fallen_back == told.fallen_back
    assert opened.counts()["questions"] > 0


def test_another_model_or_sampling_is_asked_anew(store):
    run(ScriptedEngine(good), store=store)
    other = ScriptedEngine(good, seed=1)
    run(other, store=store)
    assert len(other.asked) > 0


def test_a_question_that_the_engine_rejects_falls_back_at_once_and_is_not_kept(store):
    def fussy(prompt, seed):
        return Answer("", failure="rejected (400)") if share(prompt, 9) else Answer(summary(prompt))

    engine = ScriptedEngine(fussy)
    trails, scheduler = run(engine, store=store)
    assert scheduler.fallen_back["rejected (400)"] > 0
    assert all(trail.summary for trail in trails)
    assert all(not one.problem for one in store)
    assert len(set(engine.asked)) == len(engine.asked)


@pytest.mark.parametrize("users", [1, 100])
def test_an_engine_that_is_gone_ends_the_run(users):
    engine = ScriptedEngine(lambda prompt, seed: Answer("", failure="unreachable"), workers=2)
    with pytest.raises(EngineError, match=r"gave no answer .* times in a row: unreachable"):
        run(engine, users=range(users))
    assert len(engine.asked) <= FAILURES + engine.workers


def cut_off(prompt, seed):
    return Answer("The user likes", "length", 10, 20)


def test_answers_that_fail_alike_end_the_run_and_are_kept(store):
    engine = ScriptedEngine(cut_off)
    with pytest.raises(
        EngineError, match=r"100 of 100 answers to block .*cut off 100.*raise --max-new-tokens \(now 160\)"
    ):
        run(engine, users=range(1000), store=store)
    assert len(engine.asked) < 150
    assert len(store) >= 100
    again = ScriptedEngine(cut_off)
    with pytest.raises(EngineError, match="100 of 100 answers"):
        run(again, users=range(1000), store=store)
    assert len(again.asked) < 50  # what is kept counts


def test_a_small_run_whose_answers_all_fail_ends_so_too(store):
    engine = ScriptedEngine(cut_off)
    with pytest.raises(EngineError, match="20 of 20 answers to block questions"):
        run(engine, users=range(20), store=store, methods=("recurrent",))


def test_what_fails_late_ends_the_run(store):
    engine = ScriptedEngine(lambda prompt, seed: cut_off(prompt, seed) if "Summary:" in prompt else good(prompt, seed))
    with pytest.raises(EngineError, match="answers to update questions"):
        run(engine, users=range(300), store=store, methods=("recurrent",))


def test_a_question_that_many_users_put_counts_once(store):
    """Else a store that is complete could not be written out: its first answer was none, the second is a summary."""

    def second_time(prompt, seed):
        return good(prompt, seed) if seed else cut_off(prompt, seed)

    def alike():
        same = history(0, 3)
        return (steps(same if user < 40 else history(user, 3), "recurrent") for user in range(44))

    for engine in (
        ScriptedEngine(lambda *asked: (second_time if "T0-" in asked[0] else good)(*asked)),
        ScriptedEngine(good),
    ):
        trails: list = []
        Scheduler(engine, store).run(alike(), trails.append)
        assert len(trails) == 44
    assert not engine.asked


def test_a_run_may_go_on_all_the_same(store):
    trails, scheduler = run(ScriptedEngine(cut_off), store=store, keep_going=True)
    assert len(trails) == 80
    assert scheduler.fallen_back.keys() == {"cut off"}


def test_half_of_the_answers_may_fail(store):
    _, scheduler = run(
        ScriptedEngine(lambda prompt, seed: (cut_off if share(prompt, 2) else good)(prompt, seed)), store=store
    )
    assert scheduler.fallen_back["cut off"] > 40


def test_answers_of_an_older_store_are_read_as_today_s_would_be(store):
    """What was a summary stays one; what was taken for none because of its reasoning is one."""
    engine = ScriptedEngine(good)
    run(engine, users=range(3))
    loop = "Likes tea and cakes. " * 3
    for n, key in enumerate(dict.fromkeys(key for key, _ in engine.asked)):
        reasoned = Generation(key, 0, "<think>hm</think>Likes tea.", "wrong form"), Generation(key, 0, loop)
        store.put([reasoned[n % 2]], engine.identity)
    asked = ScriptedEngine(good)
    run(asked, users=range(3), store=store, methods=("recurrent",))
    first = {key for key, _ in engine.asked[:3]}
    assert first.isdisjoint(key for key, _ in asked.asked)


def test_what_was_answered_before_an_error_is_kept(store):
    def breaking(prompt, seed):
        if len(engine.asked) >= 50:
            raise EngineError("broke")
        return Answer(summary(prompt))

    engine = ScriptedEngine(breaking)
    with pytest.raises(EngineError, match="broke"):
        run(engine, store=store)
    assert 50 - 2 * engine.workers <= len(store) < 50


@pytest.mark.parametrize("batch", [3, 4, 7])
def test_a_run_ends_where_a_batch_cuts_through_the_questions_of_the_last_user(batch):
    """Its user is left open by the first part, so that the end is in the queue behind the second one."""
    engine = ScriptedEngine(lambda prompt, seed: None, workers=1)
    engine.batch = batch
    results = []
    scheduler = Scheduler(engine)
    open_strategies = (steps(history(user, 50), "hierarchical") for user in range(3))
    running = threading.Thread(target=scheduler.run, args=(open_strategies, results.append), daemon=True)
    running.start()
    running.join(timeout=30)
    assert not running.is_alive()
    assert results == [None] * scheduler.left_open == [None] * 3
    assert len(engine.asked) == 3 * len(history(0, 50))


def test_questions_that_are_left_for_later_leave_their_users_open(store):
    """As with an engine elsewhere: each round answers what can be asked, until nothing is open."""
    rounds = 0
    while True:
        engine = ScriptedEngine(lambda prompt, seed: None)
        engine.batch = 64
        texts = {}
        engine._answer = lambda prompt, seed, texts=texts: texts.setdefault(prompt)
        trails, scheduler = run(engine, store=store)
        if not scheduler.left_open:
            break
        rounds += 1
        assert scheduler.left_open == trails.count(None)
        run_texts = ScriptedEngine(
            lambda prompt, seed, texts=texts: Answer(summary(prompt)) if prompt in texts else None
        )
        run(run_texts, store=store)
        assert rounds < 10
    assert rounds >= 1
    assert trails == run(ScriptedEngine(good))[0]
