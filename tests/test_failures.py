"""When a run ends because most answers are no summaries, and what it says."""

import pytest

from trsr.summaries.failures import _REMEDIES, FailureWatch, remedy

SAMPLING = {"max_new_tokens": 128}


def add(watch, failed, passed, kind="block", reason="cut off"):
    """What the watch says to the last of so many answers."""
    said = [watch.add(kind, reason, "The user likes") for _ in range(failed)]
    return [*said, *(watch.add(kind, "", "The user likes tea.") for _ in range(passed))]


@pytest.mark.parametrize(("failed", "ends"), [(100, True), (74, True), (73, False), (0, False)])
def test_a_hundred_answers_are_judged_together(failed, ends):
    # 74 or more of 100 come up 8.3 times in ten million where half fail, 73 or more 23 times.
    *before, said = add(FailureWatch(SAMPLING), failed, 100 - failed)
    assert not any(before)
    assert bool(said) == ends


@pytest.mark.parametrize(("failed", "passed", "ends"), [(20, 0, True), (19, 0, False), (35, 5, True), (34, 6, False)])
def test_a_run_with_fewer_is_judged_at_its_end(failed, passed, ends):
    # 0.5 ** 20 is less than one in a million, 0.5 ** 19 is not.
    watch = FailureWatch(SAMPLING)
    assert not any(add(watch, failed, passed))
    assert bool(watch.last()) == ends
    assert not watch.last()


def test_at_the_end_kinds_are_judged_alone_and_together():
    watch = FailureWatch(SAMPLING)
    add(watch, 12, 0)
    add(watch, 12, 0, "update", reason="loop")
    assert watch.last().startswith("24 of 24 answers are no summaries (cut off 12, loop 12)")
    add(watch, 0, 60)
    add(watch, 20, 0, "merge")
    assert watch.last().startswith("20 of 20 answers to merge questions")


def test_it_says_how_many_failed_why_and_what_to_do():
    watch = FailureWatch(SAMPLING)
    add(watch, 14, 6, reason="loop")
    said = add(watch, 80, 0)[-1]
    assert (
        "94 of 100 answers to block questions are no summaries (cut off 80, loop 14): raise --max-new-tokens (now 128)"
        in said
    )
    assert "--keep-going" in said
    assert "what was answered is kept" in said
    assert said.endswith("One answer (cut off) begins: 'The user likes'")


def test_a_kind_of_question_that_fails_is_not_hidden_by_the_others():
    watch = FailureWatch(SAMPLING)
    add(watch, 0, 1050)
    assert "100 of 100 answers to merge questions" in add(watch, 100, 0, "merge")[-1]


def test_answers_that_begin_to_fail_late_are_noticed():
    watch = FailureWatch(SAMPLING)
    assert not any(add(watch, 0, 5000))
    assert add(watch, 100, 0)[-1]


@pytest.mark.parametrize("reason", [*_REMEDIES, "rejected (400)"])
def test_every_reason_has_a_remedy(reason):
    said = remedy(reason, SAMPLING)
    assert said
    assert "{" not in said.replace('{"chat_template_kwargs": {"enable_thinking": false}}', "")
