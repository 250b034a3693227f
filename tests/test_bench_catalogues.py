"""Figures on one catalogue, joined from several evaluations."""

import json

import pytest

from bench.catalogues import SAME, join, main
from trsr.errors import ResultsError


def evaluation(folder, systems, **changes):
    folder.mkdir(parents=True)
    same = dict.fromkeys(SAME, 1) | {"split": "test", "protocol": "p", "popularity_of_targets": 2.0, "versions": {}}
    content = {**same, "run": next(iter(systems)), "systems": systems, **changes}
    (folder / "catalogue.json").write_text(json.dumps(content))
    return folder


def test_systems_are_joined_in_order_and_once(tmp_path, capsys):
    own = evaluation(tmp_path / "both", {"both": 1, "item-knn": 2})
    peer = evaluation(tmp_path / "ease-0", {"ease": 3, "item-knn": 4}, tuning={"chosen": {"regularization": 10}})
    validation = evaluation(tmp_path / "ease-0-validation", {"ease": 5}, split="validation")
    main([str(own), str(peer), str(validation), "--out", str(tmp_path / "joined.json")])
    joined = json.loads((tmp_path / "joined.json").read_text())
    assert list(joined["systems"].items()) == [("both", 1), ("item-knn", 2), ("ease", 3)]
    assert joined["tuning"] == {"ease": {"chosen": {"regularization": 10}}}
    assert "both, item-knn, ease" in capsys.readouterr().out


def test_other_data_is_refused(tmp_path):
    own = evaluation(tmp_path / "both", {"both": 1})
    with pytest.raises(ResultsError, match="its n_items differs"):
        join([own, evaluation(tmp_path / "other", {"ease": 3}, n_items=7)])
    with pytest.raises(ResultsError, match=r"No catalogue\.json in"):
        join([tmp_path])
    with pytest.raises(ResultsError, match="Nothing to join"):
        join([evaluation(tmp_path / "alone", {"ease": 5}, split="validation")])
