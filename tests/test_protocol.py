"""Who is kept, who is tested, and what the target is ranked against."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trsr.data import DataError
from trsr.protocol import Pool, describe, histories, keep_users, paper, sample_negatives, split_users

USERS = [f"u{number}" for number in range(24)]
CATALOGUE = [f"i{number}" for number in range(40)]


def test_users_with_a_fitting_number_of_items_are_kept():
    sequences = {"two": ["a", "b"], "three": ["a", "b", "c"], "five": ["a", "b", "c", "d", "e"]}
    kept = keep_users(sequences, shortest=3, longest=4)
    assert kept.sequences == {"three": ("a", "b", "c")}
    assert (kept.short, kept.long, kept.cut) == (1, 1, 0)


def test_long_users_keep_their_newest_items():
    sequences = {"two": ["a", "b"], "five": ["a", "b", "c", "d", "e"]}
    kept = keep_users(sequences, shortest=3, longest=4, keep_last=True)
    assert kept.sequences == {"five": ("b", "c", "d", "e")}
    assert (kept.short, kept.long, kept.cut) == (1, 0, 1)


def test_nobody_left_says_why():
    sequences = {"two": ["a", "b"], "five": ["a", "b", "c", "d", "e"]}
    with pytest.raises(
        DataError, match=r"No user is left of 2: 1 have fewer than 3 items, 1 more than 4\. .*--keep-last"
    ):
        keep_users(sequences, shortest=3, longest=4)
    with pytest.raises(DataError, match="got 1 to 4"):
        keep_users(sequences, shortest=1, longest=4)
    with pytest.raises(DataError, match="got 5 to 4"):
        keep_users(sequences, shortest=5, longest=4)


def test_the_split_is_the_same_everywhere():
    # Written down, so that another Python or machine cannot move users between splits unnoticed.
    splits = split_users(["a", "b", "c", "d", "e", "f"], validation=1, test=2, seed=0)
    assert splits == {"train": ["e", "f", "d"], "validation": ["a"], "test": ["b", "c"]}


@given(st.permutations(USERS))
def test_the_split_does_not_depend_on_the_order_of_users(users):
    assert split_users(users, validation=3, test=5, seed=1) == split_users(USERS, validation=3, test=5, seed=1)


def test_a_twelfth_is_held_out_and_the_rest_trains():
    assert {split: len(users) for split, users in split_users(USERS).items()} == {
        "train": 20,
        "validation": 2,
        "test": 2,
    }
    assert {split: len(users) for split, users in split_users(USERS[:3]).items()} == dict.fromkeys(
        ("train", "validation", "test"), 1
    )
    everyone = [user_id for users in split_users(USERS, validation=7, test=7).values() for user_id in users]
    assert sorted(everyone) == sorted(USERS)


def test_other_sizes_leave_the_test_users_alone():
    splits = split_users(USERS, validation=2, test=4)
    other = split_users(USERS, validation=9, test=4, train=3)
    assert other["test"] == splits["test"]
    assert len(other["train"]) == 3
    assert split_users(USERS, validation=2, test=4, seed=1)["test"] != splits["test"]


@pytest.mark.parametrize(
    ("users", "sizes"),
    [(2, {}), (24, {"test": 0}), (24, {"validation": 20, "test": 4}), (24, {"train": 24}), (24, {"test": -1})],
)
def test_a_split_is_never_empty(users, sizes):
    with pytest.raises(DataError, match=f"Cannot divide {users} users .* every split needs at least one user"):
        split_users(USERS[:users], **sizes)


@given(st.sets(st.sampled_from(CATALOGUE), min_size=1, max_size=20), st.integers(0, 5), st.booleans())
def test_negatives_are_new_to_the_user(mine, seed, weighted):
    pool = Pool.weighted({item_id: 1 + 100 * (place % 3) for place, item_id in enumerate(CATALOGUE)})
    drawn = sample_negatives("u", sorted(mine), pool if weighted else Pool.uniform(CATALOGUE), count=20, seed=seed)
    assert len(set(drawn)) == len(drawn) == 20
    assert not mine & set(drawn)


def test_negatives_are_the_same_everywhere():
    # Written down, so that another Python or machine cannot change released candidates unnoticed.
    pool = Pool.uniform(CATALOGUE)
    assert sample_negatives("u1", ["i0"], pool, count=4) == ["i32", "i3", "i36", "i16"]
    assert sample_negatives("u1", ["i0"], Pool.uniform(reversed(CATALOGUE)), count=4) == ["i32", "i3", "i36", "i16"]
    assert sample_negatives("u2", ["i0"], pool, count=4) != ["i32", "i3", "i36", "i16"]
    assert sample_negatives("u1", ["i0"], pool, count=4, seed=1) != ["i32", "i3", "i36", "i16"]


def test_the_last_free_items_are_found():
    assert sorted(sample_negatives("u", ["a"], Pool.uniform("abcd"), count=3)) == ["b", "c", "d"]
    with pytest.raises(DataError, match=r"'u': the catalogue is too small, it has 3 items for 4 negatives \(uniform"):
        sample_negatives("u", ["a"], Pool.uniform("abcd"), count=4)


def test_draws_follow_the_weights():
    pool = Pool.weighted({"a": 6, "b": 3, "c": 1, "never": 0})
    drawn = Counter(sample_negatives(f"u{number}", [], pool, count=1)[0] for number in range(4000))
    # Expected 2400, 1200 and 400; standard deviations 31, 29 and 19.
    assert drawn["a"] == pytest.approx(2400, abs=125)
    assert drawn["b"] == pytest.approx(1200, abs=116)
    assert drawn["c"] == pytest.approx(400, abs=76)
    assert drawn["never"] == 0


def test_draws_follow_the_weights_beside_an_item_that_takes_nearly_all():
    pool = Pool.weighted({"mine": 10**12, "a": 3, "b": 1})
    drawn = Counter(sample_negatives(f"u{number}", ["mine"], pool, count=1)[0] for number in range(4000))
    assert drawn["a"] == pytest.approx(3000, abs=110)
    assert drawn["a"] + drawn["b"] == 4000


def test_popularity_counts_histories_and_targets():
    assert Pool.popular([("a", "b"), ("b", "c", "b")]) == Pool(("a", "b", "c"), (1, 3, 1))


def test_rows_are_history_target_negatives():
    rows = histories(["u"], {"u": ("a", "b", "c")}, Pool.uniform("abcd"), negatives=1)
    assert rows.to_list() == [{"user_id": "u", "history": ["a", "b"], "target": "c", "negatives": ["d"]}]
    with pytest.raises(DataError, match="at least 1 negative"):
        histories(["u"], {"u": ("a", "b", "c")}, Pool.uniform("abcd"), negatives=0)


def met(seed: int = 0) -> dict[str, list[str]]:
    """Thirty users; low numbers are popular, and a few users are too short or too long."""
    rng = random.Random(seed)
    lengths = [2, 7, *[rng.randint(3, 6) for _ in range(28)]]
    return {
        f"u{number}": rng.sample(CATALOGUE[:10] if number % 2 else CATALOGUE[:25], length)
        for number, length in enumerate(lengths)
    }


def test_the_whole_protocol_does_not_depend_on_the_order_of_rows():
    sequences = met()
    turned = dict(reversed(sequences.items()))
    options = {"shortest": 3, "longest": 6, "validation": 4, "test": 6, "negatives": 5, "sampling": "popularity"}
    made, counts = paper(sequences, CATALOGUE, **options)
    again, _ = paper(turned, CATALOGUE[::-1], **options)
    assert {split: rows.to_list() for split, rows in made.items()} == {s: rows.to_list() for s, rows in again.items()}
    assert counts == {
        "users_read": 30,
        "users_dropped_short": 1,
        "users_dropped_long": 1,
        "users_cut_to_newest": 0,
        "users_in_no_split": 0,
        "users_kept": 28,
        "targets_in_own_history": 0,
    }


def test_popularity_changes_the_negatives_alone():
    options = {"shortest": 3, "longest": 6, "validation": 4, "test": 6, "negatives": 5}
    uniform, _ = paper(met(), CATALOGUE, **options)
    popular, _ = paper(met(), CATALOGUE, **options, sampling="popularity")
    for split in uniform:
        for column in ("user_id", "history", "target"):
            assert uniform[split][column] == popular[split][column]
    trained = Counter(i for row in popular["train"] for i in (*row["history"], row["target"]))

    def average(made):
        drawn = [trained[item_id] for rows in made.values() for row in rows for item_id in row["negatives"]]
        return sum(drawn) / len(drawn)

    assert average(popular) > 1.5 * average(uniform)
    assert all(trained[item_id] for rows in popular.values() for row in rows for item_id in row["negatives"])


def test_an_item_met_twice_is_counted_where_it_is_the_target():
    sequences = {"u1": ["a", "b", "a"], "u2": ["a", "a", "b"], "u3": ["c", "b", "a"]}
    _, counts = paper(sequences, "abcdef", shortest=3, longest=3, negatives=1)
    assert counts["targets_in_own_history"] == 1


def test_an_unknown_sampling_is_refused():
    with pytest.raises(DataError, match="Unknown negative sampling 'popular'; expected uniform or popularity"):
        paper(met(), CATALOGUE, sampling="popular")


def test_a_card_says_the_protocol():
    made, _ = paper(met(), CATALOGUE, shortest=3, longest=6, negatives=5)
    text = describe({"histories": made}, users="users with 3 to 6 items", negatives=5, sampling="uniform", seed=7)
    assert "| `histories` | train | 24 |" in text
    assert "users with 3 to 6 items." in text
    assert "5 items a\nuser, drawn uniformly from the catalogue" in text
    assert "The seed is 7." in text
