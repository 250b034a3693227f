"""Items that nobody met but as a test user's target."""

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, Features, List, Value

from bench.cold_start import hold_out, main
from trsr.dataset import contract
from trsr.errors import DataError


def test_held_out_items_are_targets_of_test_users_alone(small_dataset, tmp_path, capsys):
    out = tmp_path / "cold"
    main([str(small_dataset), "--share", "0.2", "--seed", "1", "--out", str(out)])
    before, after = (
        {split: list(contract.read(str(source), "histories", split)) for split in contract.SPLITS}
        for source in (small_dataset, out)
    )
    held = {row["target"] for row in after["test"]}
    known = {item for rows in after.values() for row in rows for item in row["history"]}
    known |= {row["target"] for split in ("train", "validation") for row in after[split]}
    assert held
    assert not held & known
    item_ids = contract.read(str(small_dataset), "items", "train")["item_id"][:]
    all_held = {item_ids[number] for number in np.random.default_rng(1).permutation(30)[:6]}
    assert held <= all_held
    assert any(set(row["negatives"]) & all_held for rows in before.values() for row in rows)
    originals = {row["user_id"]: row for rows in before.values() for row in rows}
    for row in (row for rows in after.values() for row in rows):
        original = originals[row["user_id"]]
        assert row["target"] == original["target"]
        learnt_from = [item for item in original["negatives"] if item not in all_held]
        assert row["negatives"] == (original["negatives"] if row["target"] in held else learnt_from)
        assert row["history"] == [item for item in original["history"] if item in row["history"]]
    assert {row["user_id"] for row in after["validation"]} <= {row["user_id"] for row in before["validation"]}
    assert f"{len(after['test'])} test" in capsys.readouterr().out
    contract.check_ids(contract.read(str(out), "histories", "test"), contract.texts(str(out)), "cold")


def splits_of(history, timestamps):
    """Six users in each split, each with a target of its own; item b is the negative of two of them alone."""

    def row(number, name):
        return {"user_id": f"{name}{number}", "history": history, "target": f"t{number}", "negatives": ["b"] if number < 2 else ["n"],
                "timestamps": timestamps}  # fmt: skip

    return {split: [row(number, split) for number in range(6)] for split in contract.SPLITS}


def written(folder, splits):
    features = Features({**contract.HISTORIES, "timestamps": List(Value("int64"))})
    names = [*"abcn", *(f"t{number}" for number in range(6))]
    items = [{"item_id": name, "title": name, "text": name} for name in names]
    tables = {
        "items": DatasetDict(train=Dataset.from_list(items, contract.items_features(contract.ITEM_COLUMNS))),
        "histories": DatasetDict({split: Dataset.from_list(rows, features) for split, rows in splits.items()}),
    }
    contract.write(folder, tables, provenance={}, body="# Timed")
    return str(folder)


@pytest.mark.parametrize("times", [[1, 2, 3], [1, 2, 3, 4]])
def test_times_go_with_their_items_and_rows_without_negatives_are_left_out(tmp_path, times):
    source = written(tmp_path / "timed", splits_of(["a", "b", "c"], times))
    seed = next(seed for seed in range(999) if held_of(seed) == {"b", "t0"})
    hold_out(source, tmp_path / "cold", 0.2, seed)
    after = {split: list(contract.read(str(tmp_path / "cold"), "histories", split)) for split in contract.SPLITS}
    assert {row["target"] for row in after["test"]} == {"t0"}
    assert all(row["negatives"] == ["b"] for row in after["test"])
    # User 1 has b as the only negative, and nothing to learn from.
    assert [row["user_id"] for row in after["validation"]] == [f"validation{number}" for number in range(2, 6)]
    for row in (row for rows in after.values() for row in rows):
        assert (row["history"], row["timestamps"]) == (["a", "c"], [1, 3, *times[3:]])


def held_of(seed):
    names = [*"abcn", *(f"t{number}" for number in range(6))]
    return {names[number] for number in np.random.default_rng(seed).permutation(10)[:2]}


def test_users_with_several_rows_are_refused(tmp_path):
    splits = splits_of(["a", "b", "c"], [1, 2, 3])
    splits["test"][0]["user_id"] = "train0"
    with pytest.raises(DataError, match="1 users have several rows, such as 'train0'"):
        hold_out(written(tmp_path / "timed", splits), tmp_path / "cold", 0.2, 0)


def test_a_share_of_all_is_refused(small_dataset, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main([str(small_dataset), "--share", "1", "--out", str(tmp_path / "cold")])
    assert end.value.code == 2
    assert "expected a number between 0 and 1" in capsys.readouterr().err
