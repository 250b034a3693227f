"""Approximate search: what it finds is scored exactly, and with all lists it is the exact search."""

import sys

import numpy as np
import pytest

from trsr.errors import UsageError
from trsr.retrieval.approximate import ApproximateIndex
from trsr.retrieval.search import top_k_items


def clusters(items=2000, users=20, width=16, seed=0):
    random = np.random.default_rng(seed)
    centres = random.standard_normal((40, width))
    table = (centres[random.integers(40, size=items)] + 0.5 * random.standard_normal((items, width))).astype(np.float32)
    return table, (centres[:users] + 0.3 * random.standard_normal((users, width))).astype(np.float32)


def test_the_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UsageError, match=r"pip install 'llm-trsr\[search\]'"):
        ApproximateIndex.build(np.zeros((4, 2), np.float32))


class TestWithFaiss:
    @pytest.fixture(autouse=True)
    def faiss(self):
        return pytest.importorskip("faiss")

    def test_all_lists_give_the_exact_search_with_what_was_met_left_out(self):
        items, users = clusters()
        random = np.random.default_rng(1)
        met = [random.choice(2000, size, replace=False) for size in range(len(users))]
        index = ApproximateIndex.build(items, probes=10_000)
        assert index.probes == index.lists == 44
        for exclude in (None, met):
            numbers, scores = index.top_k_items(users, 30, exclude)
            expected_numbers, expected_scores = top_k_items(users, items, 30, exclude)
            assert np.array_equal(numbers, expected_numbers)
            np.testing.assert_allclose(scores, expected_scores, rtol=1e-5)

    def test_few_lists_find_most_and_more_lists_more(self):
        items, users = clusters()
        truth = top_k_items(users, items, 30)[0]
        index = ApproximateIndex.build(items)
        assert index.probes == 6

        def recall(one):
            return np.mean(
                [np.isin(row, found).mean() for row, found in zip(truth, one.top_k_items(users, 30)[0], strict=True)]
            )

        assert 0.7 < recall(index) <= recall(index.probing(20)) <= 1
        scores = index.top_k_items(users, 30)[1]
        assert (np.diff(scores, axis=1) <= 0).all()

    def test_past_the_last_item_there_is_none(self):
        items, users = clusters(items=9)
        numbers, scores = ApproximateIndex.build(items, probes=9).top_k_items(
            users[:2], 20, [np.arange(4), np.arange(0)]
        )
        assert numbers.shape == (2, 9)
        assert (numbers[0] == -1).sum() == 4
        assert np.isneginf(scores[0, 5:]).all()
        assert sorted(numbers[1]) == list(range(9))

    def test_where_the_nearest_lists_hold_too_few_more_are_looked_at(self):
        items, users = clusters()
        index = ApproximateIndex.build(items, probes=1)
        whole = top_k_items(users[:3], items, 2000)[0]
        for k, met in ((500, None), (10, [whole[0, :1990], whole[1, :3], whole[2, :1995]])):
            numbers = index.top_k_items(users[:3], k, met)[0]
            left = [2000 - len(one) for one in met or [()] * 3]
            assert (numbers >= 0).sum(axis=1).tolist() == [min(k, count) for count in left]
        # Users for whom they hold enough are compared with no more.
        alone = index.top_k_items(users[1:2], 10, [whole[1, :3]])[0]
        assert np.array_equal(numbers[1:2], alone)
        assert index.top_k_items(users[:0], 10)[0].shape == (0, 10)

    def test_probes_below_none_are_refused(self):
        with pytest.raises(UsageError, match="probes is -1"):
            ApproximateIndex.build(clusters()[0], probes=-1)

    def test_builds_of_one_seed_are_equal(self):
        items, users = clusters()
        one, other = (ApproximateIndex.build(items, probes=2).top_k_items(users, 30)[0] for _ in range(2))
        assert np.array_equal(one, other)
