import pytest

from trsr.core.history import Item, blocks_by_count
from trsr.core.summarize import METHODS, SummaryRequest, SummaryResult, calls, recurrent, steps, summarize


class Spelling:
    """Writes down what it was asked, and how often it was called."""

    def __init__(self):
        self.levels = []

    def block(self, blocks):
        self.levels.append(("block", len(blocks)))
        return ["".join(item.text for item in block) for block in blocks]

    def merge(self, summaries):
        self.levels.append(("merge", len(summaries)))
        return ["[" + "|".join(group) + "]" for group in summaries]

    def update(self, pairs):
        self.levels.append(("update", len(pairs)))
        return [f"({summary}+{''.join(item.text for item in block)})" for summary, block in pairs]


def histories(*words):
    return [blocks_by_count([Item(letter) for letter in word], size=2) for word in words]


def test_recurrent_carries_the_summary_forward_level_by_level():
    spelling = Spelling()
    trails = summarize(histories("abcde", "xy", "pqr"), spelling, "recurrent")
    assert trails[0] == SummaryResult(("ab", "(ab+cd)", "((ab+cd)+e)"), "((ab+cd)+e)")
    assert trails[1] == SummaryResult(("xy",), "xy")
    assert trails[2].summary == "(pq+r)"
    assert spelling.levels == [("block", 3), ("update", 2), ("update", 1)]


def test_hierarchical_merges_block_summaries():
    spelling = Spelling()
    trails = summarize(histories("abcde", "xy"), spelling, "hierarchical")
    assert trails[0] == SummaryResult(("ab", "cd", "e"), "[ab|cd|e]")
    assert trails[1] == SummaryResult(("xy",), "[xy]")
    assert spelling.levels == [("block", 4), ("merge", 2)]


@pytest.mark.parametrize("method", METHODS)
def test_progress_adds_up_to_the_calls(method):
    seen = []
    cut = histories("abcde", "xy", "pqr")
    summarize(cut, Spelling(), method, seen.append)
    assert sum(seen) == calls([len(blocks) for blocks in cut], method)


@pytest.mark.parametrize("method", METHODS)
def test_empty_histories(method):
    assert summarize([], Spelling(), method) == []
    with pytest.raises(ValueError, match="History 1 has no blocks"):
        summarize([*histories("ab"), []], Spelling(), method)


def test_unknown_method():
    with pytest.raises(ValueError, match="expected one of recurrent, hierarchical"):
        summarize([], Spelling(), "cnn")


def test_a_strategy_asks_what_it_can_and_is_told_the_answers():
    (blocks,) = histories("abcd")
    one = recurrent(blocks)
    assert next(one) == [SummaryRequest("block", block=blocks[0])]
    assert one.send(["s"]) == [SummaryRequest("update", ("s",), blocks[1])]
    with pytest.raises(StopIteration) as end:
        one.send(["t"])
    assert end.value.value == SummaryResult(("s", "t"), "t")


@pytest.mark.parametrize(("method", "asked"), [("recurrent", ["update"]), ("hierarchical", ["block"])])
def test_known_summaries_are_not_asked_for(method, asked):
    (blocks,) = histories("abcdef")
    assert [question.kind for question in next(steps(blocks, method, ["s", "t"]))] == asked


def test_a_strategy_needs_blocks():
    with pytest.raises(ValueError, match="nothing to summarise"):
        steps([], "recurrent")
