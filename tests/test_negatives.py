"""What the target is ranked against: new to the user, drawn in proportion, and the same wherever it is drawn."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trsr.dataset.build.negatives import Pool, draw
from trsr.dataset.build.sequences import Sequences
from trsr.dataset.splitmix import splitmix64
from trsr.errors import DataError

CATALOGUE = [f"i{number:02}" for number in range(40)]
DRAWN = [[26, 28, 15, 31], [14, 37, 1, 31], [15, 3, 33, 22]]


def users(count: int, met=(), catalogue=CATALOGUE) -> tuple[Sequences, np.ndarray]:
    """Users who all met the same items, and a key for each."""
    keys = splitmix64(np.arange(count, dtype=np.uint64), np.array([0], np.uint64))
    return Sequences.of(dict.fromkeys((f"u{n}" for n in range(count)), met), catalogue), keys


def test_the_generator_is_splitmix64():
    # The reference implementation's first outputs: https://prng.di.unimi.it/splitmix64.c
    made = splitmix64(np.array([1234567], np.uint64), np.arange(5, dtype=np.uint64))
    assert made.tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert splitmix64(np.array([0], np.uint64), np.array([0], np.uint64)).tolist() == [0xE220A8397B1DCDAF]


def test_a_number_falls_to_an_item_in_proportion_to_its_weight():
    numbers = np.array([0, 1 << 62, (3 << 62) - 1, 3 << 62, 2**64 - 1], np.uint64)
    assert Pool.uniform(4).items_at(numbers).tolist() == [0, 1, 2, 3, 3]
    assert Pool(np.array([0, 2, 0, 1, 1, 0])).items_at(numbers).tolist() == [1, 1, 3, 4, 4]
    assert Pool.uniform(40).items_at(numbers).tolist() == [0, 10, 29, 30, 39]


@given(
    st.lists(st.lists(st.sampled_from(CATALOGUE), max_size=30), min_size=1, max_size=12),
    st.integers(0, 2**64 - 1),
    st.booleans(),
)
def test_negatives_are_new_to_the_user(met, key, weighted):
    sequences = Sequences.of({f"u{n}": items for n, items in enumerate(met)}, CATALOGUE)
    keys = splitmix64(np.array([key], np.uint64), np.arange(len(met), dtype=np.uint64))
    pool = Pool(1 + 100 * (np.arange(40) % 3)) if weighted else Pool.uniform(40)
    drawn = draw(sequences, keys, pool, count=10)
    assert drawn.shape == (len(met), 10)
    for items, mine in zip(met, drawn.tolist(), strict=True):
        assert len(set(mine) - {int(item_id[1:]) for item_id in items}) == 10
    # Each is drawn as if the user were alone.
    for place in range(len(met)):
        alone = draw(sequences.take(np.array([place])), keys[[place]], pool, count=10)
        assert alone.tolist() == drawn[[place]].tolist()


def test_negatives_are_the_first_new_items_of_the_stream():
    sequences, _ = users(1, ["i07", "i13"])
    key = np.array([5], np.uint64)
    stream = splitmix64(key, np.arange(100, dtype=np.uint64)) * 2.0**-64 * 40
    expected = [place for place in dict.fromkeys(stream.astype(int).tolist()) if place not in (7, 13)][:20]
    assert draw(sequences, key, Pool.uniform(40), count=20).tolist() == [expected]


def test_negatives_are_the_same_everywhere(monkeypatch):
    # Written down, so that another Python or machine cannot change released candidates unnoticed.
    sequences, keys = users(3, ["i00"])
    drawn = draw(sequences, keys, Pool.uniform(40), count=4)
    assert drawn.tolist() == DRAWN
    monkeypatch.setattr("trsr.dataset.build.negatives._BATCH_CELLS", 1)
    assert draw(sequences, keys, Pool.uniform(40), count=4).tolist() == DRAWN


def test_the_last_free_items_are_found():
    sequences, keys = users(50, "a", "abcd")
    assert {frozenset(row) for row in draw(sequences, keys, Pool.uniform(4), count=3).tolist()} == {
        frozenset((1, 2, 3))
    }
    with pytest.raises(DataError, match=r"'u0': the catalogue is too small, it has 3 items for 4 negatives \(uniform"):
        draw(sequences, keys, Pool.uniform(4), count=4)
    with pytest.raises(DataError, match="it has 0 items for 4 negatives"):
        draw(sequences, keys, Pool(np.zeros(4)), count=4)


def test_every_item_is_as_likely_as_the_others():
    sequences, keys = users(4000)
    seen = np.bincount(draw(sequences, keys, Pool.uniform(40), count=5).ravel(), minlength=40)
    # 20,000 draws, 500 an item; chi square with 39 degrees of freedom is below 73 in 999 of 1000 cases.
    assert ((seen - 500) ** 2 / 500).sum() < 73


def test_draws_follow_the_weights():
    sequences, keys = users(4000, catalogue="abcd")
    drawn = Counter(draw(sequences, keys, Pool(np.array([6, 3, 1, 0])), count=1).ravel().tolist())
    # Expected 2400, 1200 and 400; standard deviations 31, 29 and 19.
    assert drawn[0] == pytest.approx(2400, abs=125)
    assert drawn[1] == pytest.approx(1200, abs=116)
    assert drawn[2] == pytest.approx(400, abs=76)
    assert drawn[3] == 0


def test_draws_follow_the_weights_beside_an_item_that_takes_nearly_all():
    sequences, keys = users(2000, "m", "mab")  # sorted: a, b, m
    drawn = Counter(draw(sequences, keys, Pool(np.array([3, 1, 10**12])), count=1).ravel().tolist())
    # Standard deviation 19.
    assert drawn[0] == pytest.approx(1500, abs=76)
    assert drawn[0] + drawn[1] == 2000


def test_popularity_counts_histories_and_targets():
    assert Pool.popular(Sequences.of({"u": "ab", "v": "bcb"}, "abcd")).weights.tolist() == [1, 3, 1, 0]
