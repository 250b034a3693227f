"""Items that nobody met but as a test user's target."""

import pytest

from bench.cold_start import main
from trsr.dataset import contract


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
    originals = {row["user_id"]: row for rows in before.values() for row in rows}
    for row in (row for rows in after.values() for row in rows):
        original = originals[row["user_id"]]
        assert (row["target"], row["negatives"]) == (original["target"], original["negatives"])
        assert row["history"] == [item for item in original["history"] if item in row["history"]]
    assert {row["user_id"] for row in after["validation"]} <= {row["user_id"] for row in before["validation"]}
    assert f"{len(after['test'])} test" in capsys.readouterr().out
    contract.check_ids(contract.read(str(out), "histories", "test"), contract.texts(str(out)), "cold")


def test_a_share_of_all_is_refused(small_dataset, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main([str(small_dataset), "--share", "1", "--out", str(tmp_path / "cold")])
    assert end.value.code == 2
    assert "expected a number between 0 and 1" in capsys.readouterr().err
