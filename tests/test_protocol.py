"""Who is kept, who is tested, and what the target is ranked against."""

import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trsr.dataset.build.negatives import Pool
from trsr.dataset.build.protocol import describe, histories, in_words, keep_users, make_histories
from trsr.dataset.build.sequences import Sequences
from trsr.dataset.build.splits import Division, hashes, split_users
from trsr.errors import DataError

USERS = [f"u{number}" for number in range(24)]
CATALOGUE = [f"i{number}" for number in range(40)]
FEW = Sequences.of({"two": "ab", "three": "abc", "five": "abcde"}, "abcde")


def ids(sequences: Sequences) -> dict[str, str]:
    """User id -> what they met, joined."""
    found = zip(sequences.users.to_pylist(), sequences.items.to_pylist(), strict=True)
    return {user: "".join(sequences.catalogue[place].as_py() for place in items) for user, items in found}


def divide(users: list[str], seed: int = 0, **sizes) -> dict[str, list[str]]:
    made = split_users(hashes(pa.array(users, pa.string()), seed), **sizes)
    return {name: [users[place] for place in places] for name, places in made.items()}


def test_users_with_a_fitting_number_of_items_are_kept():
    kept = keep_users(FEW, shortest=3, longest=4)
    assert ids(kept.sequences) == {"three": "abc"}
    assert (kept.short, kept.long, kept.cut) == (1, 1, 0)


def test_long_users_keep_their_newest_items():
    kept = keep_users(FEW, shortest=3, longest=4, keep_last=True)
    assert ids(kept.sequences) == {"three": "abc", "five": "bcde"}
    assert (kept.short, kept.long, kept.cut) == (1, 0, 1)


def test_items_of_no_catalogue_are_left_out():
    assert ids(Sequences.of({"u": "abcab", "v": "x", "w": ""}, "ba")) == {"u": "abab", "v": "", "w": ""}


def test_nobody_left_says_why():
    few = FEW.take(np.array([0, 2]))
    with pytest.raises(
        DataError, match=r"No user is left of 2: 1 have fewer than 3 items, 1 more than 4\. .*--keep-last"
    ):
        keep_users(few, shortest=3, longest=4)
    with pytest.raises(DataError, match=r"Users of 1 to 4 items were asked for.* at least 2 of each.*--min-history"):
        keep_users(few, shortest=1, longest=4)
    with pytest.raises(DataError, match="Users of 5 to 4 items"):
        keep_users(few, shortest=5, longest=4)


def test_the_split_is_the_same_everywhere():
    # Written down, so that another Python or machine cannot move users between splits unnoticed.
    splits = divide(["a", "b", "c", "d", "e", "f"], validation=1, test=2, seed=0)
    assert splits == {"train": ["e", "f", "d"], "validation": ["a"], "test": ["b", "c"]}


@given(st.permutations(USERS))
def test_the_split_does_not_depend_on_the_order_of_users(users):
    assert divide(users, validation=3, test=5, seed=1) == divide(USERS, validation=3, test=5, seed=1)


def test_a_twelfth_is_held_out_and_the_rest_trains():
    assert {name: len(users) for name, users in divide(USERS).items()} == {
        "train": 20,
        "validation": 2,
        "test": 2,
    }
    assert {name: len(users) for name, users in divide(USERS[:3]).items()} == dict.fromkeys(
        ("train", "validation", "test"), 1
    )
    everyone = [user_id for users in divide(USERS, validation=7, test=7).values() for user_id in users]
    assert sorted(everyone) == sorted(USERS)


def test_other_sizes_leave_the_test_users_alone():
    splits = divide(USERS, validation=2, test=4)
    other = divide(USERS, validation=9, test=4, train=3)
    assert other["test"] == splits["test"]
    assert len(other["train"]) == 3
    assert divide(USERS, validation=2, test=4, seed=1)["test"] != splits["test"]


@pytest.mark.parametrize(
    ("users", "sizes"),
    [(2, {}), (24, {"test": 0}), (24, {"validation": 20, "test": 4}), (24, {"train": 24}), (24, {"test": -1})],
)
def test_a_split_is_never_empty(users, sizes):
    with pytest.raises(DataError, match=f"Cannot divide {users} users .* every split needs at least one user"):
        divide(USERS[:users], **sizes)


def test_rows_are_history_target_negatives():
    one, keys = Sequences.of({"u": "abc"}, "abcd"), np.array([7], np.uint64)
    rows = histories(one, keys, Pool.uniform(4), negatives=1)
    assert rows.to_list() == [{"user_id": "u", "history": ["a", "b"], "target": "c", "negatives": ["d"]}]
    with pytest.raises(DataError, match="at least 1 negative"):
        histories(one, keys, Pool.uniform(4), negatives=0)


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
    made, counts = make_histories(Sequences.of(sequences, CATALOGUE), **options)
    again, _ = make_histories(Sequences.of(turned, CATALOGUE[::-1]), **options)
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
    uniform, _ = make_histories(Sequences.of(met(), CATALOGUE), **options)
    popular, _ = make_histories(Sequences.of(met(), CATALOGUE), **options, sampling="popularity")
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
    sequences = {"u1": "aba", "u2": "aab", "u3": "cba"}
    _, counts = make_histories(Sequences.of(sequences, "abcdef"), shortest=3, longest=3, negatives=1)
    assert counts["targets_in_own_history"] == 1


def cut(made) -> dict[str, dict]:
    return {row["user_id"]: row for rows in made.values() for row in rows}


@pytest.mark.parametrize("sampling", ["uniform", "popularity"])
def test_what_was_met_before_the_cut_is_no_negative(sampling):
    """Long users: 24 of 40 items were met, of which 4 are kept."""
    rng = random.Random(1)
    sequences = {f"u{n}": rng.sample(CATALOGUE, 24) for n in range(30)}
    options = {"shortest": 3, "longest": 4, "negatives": 10, "sampling": sampling}
    made, counts = make_histories(Sequences.of(sequences, CATALOGUE), keep_last=True, **options)
    for user, row in cut(made).items():
        assert set(row["negatives"]).isdisjoint(sequences[user])
        assert [*row["history"], row["target"]] == sequences[user][-4:]
        assert row["also_met"] == sorted(sequences[user][:-4])
    assert counts["items_also_met"] == 30 * 20


def test_negatives_of_users_that_are_not_cut_stay():
    sequences = met()
    long = {**sequences, "long": CATALOGUE[:7]}
    options = {"shortest": 3, "longest": 6, "negatives": 5}
    before, _ = make_histories(Sequences.of(sequences, CATALOGUE), **options)
    after, counts = make_histories(Sequences.of(long, CATALOGUE), keep_last=True, **options)
    assert "also_met" not in before["train"].column_names
    assert counts["users_cut_to_newest"] == 2
    assert all(row["negatives"] == cut(after)[user]["negatives"] for user, row in cut(before).items())


def test_an_unknown_sampling_is_refused():
    with pytest.raises(DataError, match="Unknown negative sampling 'popular'; expected uniform or popularity"):
        make_histories(Sequences.of(met(), CATALOGUE), sampling="popular")


def test_a_card_says_the_protocol():
    made, _ = make_histories(Sequences.of(met(), CATALOGUE), shortest=3, longest=6, negatives=5)
    text = describe({"histories": made}, users=in_words(3, 6, False), negatives=5, sampling="uniform", seed=7)
    assert "| `histories` | train | 24 |" in text
    assert "users with 3 to 6 items." in text
    assert "5 items a\nuser, drawn uniformly from the catalogue" in text
    assert "The seed is 7." in text
    assert in_words(3, 6, True) == "users with at least 3 items, of which the newest 6 are used"
    leave_one_out = "users with at least 4 items, of which a row has the newest 6 up to its target"
    assert in_words(4, 6, True, Division("leave-one-out")) == leave_one_out
