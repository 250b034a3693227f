"""Comparisons on score files small enough to work out by hand."""

import json
import math
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from bench import fill_tables
from trsr.cli import main
from trsr.dataset import contract
from trsr.dataset.candidates import Candidates
from trsr.dataset.contract import HISTORIES
from trsr.errors import CompareError
from trsr.metrics.significance import holm
from trsr.recommender import scores
from trsr.recommender.compare import slices
from trsr.recommender.compare.align import align, read
from trsr.recommender.compare.report import calibration, document, orders, table
from trsr.recommender.compare.run import compare

USERS = ("u1", "u2", "u3", "u4")


def rows(users=USERS, negatives=("n1", "n2"), target="t"):
    made = [{"user_id": user, "history": ["h"], "target": target, "negatives": list(negatives)} for user in users]
    return Dataset.from_list(made, features=HISTORIES)


def evaluation(folder, systems, users=None, *, seed=0, odds=(), **about):
    """A folder as `trsr evaluate` leaves it; `systems` is name -> a function of (user, item)."""
    candidates = Candidates.of(users or rows(), seed)

    def scored(score):
        return candidates.score(lambda row, ids: [score(row["user_id"], item) for item in ids])

    scores.write(folder, {name: scored(score) for name, score in systems.items()}, candidates)
    about = {"dataset": "tales", "split": "test", "protocol": "1 and 2", "run": next(iter(systems)), **about}
    about["systems"] = {name: {"ece": {}} if name in odds else {} for name in systems}
    (folder / "results.json").write_text(json.dumps(about))
    return str(folder)


def hits(*users):
    """Ranks the target first for these users, and last for all others."""
    return lambda user, item: (item == "t") if user in users else -(item == "t")


def constant(user, item):
    return 0.5


def test_a_constant_scorer_gets_chance_and_a_leaked_target_everything(tmp_path):
    many = rows([f"u{n}" for n in range(97)], [f"n{n}" for n in range(20)])
    folders = [
        evaluation(tmp_path / "a", {"constant": constant}, many),
        evaluation(tmp_path / "b", {"leak": lambda user, item: item == "t"}, many),
    ]
    found = compare(folders, tmp_path / "out", plots=False)["systems"]
    for k in (1, 3, 5, 10):
        assert found["constant"][f"recall@{k}"] == {"value": k / 21, "low": k / 21, "high": k / 21}
        assert found["leak"][f"recall@{k}"] == {"value": 1, "low": 1, "high": 1}
    assert found["constant"]["auc"]["value"] == 0.5


def test_runs_of_one_name_are_seeds_of_one_system(tmp_path):
    cost = {"cpu_seconds": 10.0, "peak_mib": 300.0}
    folders = [
        evaluation(tmp_path / "0", {"ours": hits("u1", "u2"), "chance": constant}, cost=cost),
        evaluation(tmp_path / "1", {"ours": hits("u1"), "chance": constant}, cost={"cpu_seconds": 20, "peak_mib": 200}),
    ]
    results = compare(folders, tmp_path / "out", plots=False)
    ours = results["systems"]["ours"]
    assert ours["seeds"] == 2
    assert ours["recall@1"]["value"] == 3 / 8  # 2 of 4 users, then 1 of 4
    assert ours["recall@1"]["sd"] == pytest.approx(math.sqrt(2) / 8)  # of 1/2 and 1/4
    assert ours["cost"] == {"cpu_seconds": 15, "peak_mib": 300}
    assert results["systems"]["chance"]["seeds"] == 1  # the same scores beside both
    assert results["systems"]["chance"]["cost"] is None
    long = pq.read_table(tmp_path / "out" / "per_user.parquet").to_pylist()
    assert {(r["user_id"], r["seed"]): r["recall@1"] for r in long if r["system"] == "ours"} == {
        ("u1", 0): 1, ("u2", 0): 1, ("u3", 0): 0, ("u4", 0): 0,
        ("u1", 1): 1, ("u2", 1): 0, ("u3", 1): 0, ("u4", 1): 0,
    }  # fmt: skip


def test_figures_of_each_user_name_the_seed_of_the_training(tmp_path):
    def of(seed, *found):
        return evaluation(tmp_path / str(seed), {"ours": hits(*found), "chance": constant}, train_seed=seed)

    compare([of(10, "u1"), of(2, "u2")], tmp_path / "out", plots=False)
    long = pq.read_table(tmp_path / "out" / "per_user.parquet").to_pylist()
    found = {(one["system"], one["seed"], one["user_id"]) for one in long if one["recall@1"] == 1}
    assert found == {("ours", 10, "u1"), ("ours", 2, "u2")}
    assert {one["seed"] for one in long if one["system"] == "chance"} == {0}


def test_seeds_of_which_some_are_not_on_record_are_numbered(tmp_path):
    old = evaluation(tmp_path / "old", {"ours": hits("u1")})
    new = evaluation(tmp_path / "new", {"ours": hits("u2")}, train_seed=0)
    compare([old, new], tmp_path / "out", plots=False)
    long = pq.read_table(tmp_path / "out" / "per_user.parquet").to_pylist()
    assert {(one["seed"], one["user_id"]) for one in long if one["recall@1"] == 1} == {(0, "u1"), (1, "u2")}


def test_candidates_a_user_are_the_mean(tmp_path):
    lists = rows().to_list()
    lists[0]["negatives"] = [f"n{number}" for number in range(8)]
    folder = evaluation(tmp_path / "a", {"ours": hits("u1")}, Dataset.from_list(lists, features=HISTORIES))
    assert compare([folder], tmp_path / "out", plots=False)["candidates_a_user"] == 4.5


def test_the_order_of_users_and_candidates_does_not_matter(tmp_path):
    one = evaluation(tmp_path / "a", {"ours": hits("u1", "u3")}, rows(), seed=0)
    other = evaluation(tmp_path / "b", {"theirs": hits("u1", "u3")}, rows(USERS[::-1], ("n2", "n1")), seed=5)
    aligned = align([read(one), read(other)])
    assert aligned.users == list(USERS)
    assert aligned.targets == ["t"] * 4
    np.testing.assert_array_equal(aligned.seeds["ours"][0], aligned.seeds["theirs"][0])


def test_lists_of_unequal_length_are_masked(tmp_path):
    users = Dataset.from_list([*rows(["u1"]), *rows(["u2"], ["n1"])], features=HISTORIES)
    results = compare([evaluation(tmp_path / "a", {"constant": constant}, users)], tmp_path / "out", plots=False)
    assert results["systems"]["constant"]["recall@1"]["value"] == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_paired_tests_are_corrected_over_all_pairs(tmp_path):
    users = [f"u{n:02}" for n in range(40)]
    hit = {"best": users, "fair": users[:30], "same": users[1:31]}
    folders = [evaluation(tmp_path / name, {name: hits(*those)}, rows(users)) for name, those in hit.items()]
    found = compare(folders, tmp_path / "out", metric="recall@1", plots=False)["paired"]
    assert [(one["system"], one["against"]) for one in found] == [("best", "fair"), ("best", "same"), ("fair", "same")]
    assert [one["difference"] for one in found] == [0.25, 0.25, 0]
    assert found[0]["p_value"] == pytest.approx(2 / 2**10, abs=0.002)  # all 10 flips one way or the other
    assert found[2]["p_value"] == 1
    assert [one["p_holm"] for one in found] == holm([one["p_value"] for one in found])
    against = compare(folders, tmp_path / "out", metric="recall@1", against="fair", plots=False)["paired"]
    assert [(one["system"], one["against"]) for one in against] == [("best", "fair"), ("same", "fair")]


def test_a_peer_beside_a_run_gives_way_to_its_own_evaluation(tmp_path):
    beside = evaluation(tmp_path / "run", {"ours": hits("u1"), "tf-idf": hits("u2")})
    tuned = evaluation(tmp_path / "peer", {"tf-idf": hits("u2", "u3")})
    aligned = align([read(beside), read(tuned)])
    assert {name: len(seeds) for name, seeds in aligned.seeds.items()} == {"ours": 1, "tf-idf": 1}
    assert aligned.about["tf-idf"][0]["run"] == "tf-idf"


def test_a_folder_that_is_given_twice_counts_once(tmp_path):
    folder = evaluation(tmp_path / "a", {"ours": hits("u1")})
    assert compare([folder, folder], tmp_path / "out", plots=False)["systems"]["ours"]["seeds"] == 1


def test_a_run_can_be_called_otherwise(tmp_path):
    folders = [
        evaluation(tmp_path / "a", {"ours": hits("u1")}, config="recurrent", odds=["ours"]),
        evaluation(tmp_path / "b", {"ours": hits("u2")}, config="hierarchical", odds=["ours"]),
    ]
    with pytest.raises(CompareError, match=r"both hold 'ours'.*NAME="):
        align([read(folder) for folder in folders])
    results = compare([f"one={folders[0]}", folders[1]], tmp_path / "out", plots=False)
    assert list(results["systems"]) == list(results["calibration"]) == ["one", "ours"]


@pytest.mark.parametrize(
    ("users", "about", "message"),
    [
        (rows(["v1"]), {"dataset": "poems"}, r"dataset tales\) and .*b \(dataset poems\) share no user"),
        (rows(USERS[:3]), {}, r"differ in their users: .*b lacks 1 of .*a, such as 'u4'"),
        (rows((*USERS, "u5")), {}, r"differ in their users: .*a lacks 1 of .*b, such as 'u5'"),
        (rows(negatives=("n1", "n3")), {}, r"differ in the candidates of 4 users, such as 'u1'"),
        (rows(negatives=("t", "n2"), target="n1"), {}, r"differ in the target of user 'u1'"),
        (rows(), {"split": "train"}, r"are of the splits test and train"),
    ],
)
def test_what_does_not_fit_is_told_and_nothing_is_written(tmp_path, users, about, message):
    folders = [
        evaluation(tmp_path / "a", {"ours": constant}),
        evaluation(tmp_path / "b", {"theirs": constant}, users, **about),
    ]
    with pytest.raises(CompareError, match=message):
        compare(folders, tmp_path / "out", plots=False)
    assert not (tmp_path / "out").exists()


def test_broken_files_are_told(tmp_path):
    with pytest.raises(CompareError, match=r"No scores.parquet in .*nowhere"):
        read(str(tmp_path / "nowhere"))
    with pytest.raises(CompareError, match="4 scores of 'ours' are not finite"):
        read(evaluation(tmp_path / "nan", {"ours": lambda user, item: math.nan if item == "n1" else 0}))
    folder = tmp_path / "torn"
    evaluation(folder, {"ours": constant})
    (folder / "scores.parquet").write_bytes(b"PAR1")
    with pytest.raises(CompareError, match="cannot be read"):
        read(str(folder))
    Dataset.from_dict({"user_id": ["u", "u"], "item_id": ["a", "a"], "label": [1, 0]}).to_parquet(
        folder / scores.SCORES_FILE
    )
    with pytest.raises(CompareError, match="'u' has candidate 'a' twice"):
        read(str(folder))
    Dataset.from_dict({"user_id": ["u"]}).to_parquet(folder / scores.SCORES_FILE)
    (folder / "results.json").write_text('{"run": "x", "dataset": "tales", "split": "test", "systems": {}}')
    with pytest.raises(CompareError, match=r"lacks item_id, label, protocol \(in results.json\)"):
        read(str(folder))
    with pytest.raises(CompareError, match=r"No metric 'recall@2'; there are recall@1"):
        compare([evaluation(tmp_path / "a", {"ours": constant})], tmp_path / "out", metric="recall@2", plots=False)
    with pytest.raises(CompareError, match="No system 'x' to test against; there are ours"):
        compare([str(tmp_path / "a")], tmp_path / "out", against="x", plots=False)


def test_thirds_keep_equal_values_together():
    labels = slices.thirds([5, 1, 9, 2, 5, 8], "item")
    assert labels == ["5 items", "1 to 2 items", "8 to 9 items", "1 to 2 items", "5 items", "8 to 9 items"]
    assert slices.thirds([4, 4, 4], "item") == ["4 items"] * 3
    assert slices.thirds([1, 1, 5], "item") == ["1 item", "1 item", "5 items"]
    assert slices.thirds([1_234_567] * 2, "time") == ["1234567 times"] * 2


def test_slices_by_category_look_at_the_last_items():
    categories = {"a": "Myth, sea", "b": "cooking", "c": "SEA", "d": "", "e": None}
    asked = [
        {"history": ["a", "b"], "target": "c"},
        {"history": ["a", "b", "b"], "target": "c"},
        {"history": ["d", "e"], "target": "c"},
        {"history": ["a"], "target": "d"},
        {"history": [], "target": "a"},
    ]
    assert slices.by_category(asked, categories, last=2) == [
        "covered", "not covered", "not covered", "no category", "not covered",
    ]  # fmt: skip


def test_slices_by_popularity_count_training_users():
    rows = [
        {"user_id": "u", "history": ["a", "a"], "target": "b", "negatives": []},
        {"user_id": "v", "history": ["b"], "target": "a", "negatives": []},
    ]
    train = Dataset.from_list(rows, features=contract.HISTORIES)
    asked = [{"target": item} for item in ("a", "b", "c")]
    assert slices.by_popularity(asked, train) == ["3 times", "2 times", "0 times"]


def test_slices_of_a_dataset(tmp_path, small_dataset):
    test = contract.read(str(small_dataset), "histories", "test")
    target = dict(zip(test["user_id"], test["target"], strict=True))
    folder = evaluation(tmp_path / "a", {"leak": lambda user, item: item == target[user] and user != "u9"}, test)
    results = compare([folder], tmp_path / "out", dataset=str(small_dataset), metric="recall@1", plots=False)
    lengths = results["slices"]["items in the history"]
    assert list(lengths) == ["6 items"]
    assert lengths["6 items"]["n_users"] == 3
    assert lengths["6 items"]["systems"]["leak"]["value"] == pytest.approx((2 + 1 / 6) / 3)  # u9: six tied
    with pytest.raises(CompareError, match="no column 'genre'; they have item_id, title, text"):
        compare([folder], tmp_path / "out", dataset=str(small_dataset), category="genre", plots=False)
    other = evaluation(tmp_path / "b", {"ours": constant})
    with pytest.raises(CompareError, match="User 'u1' with target 't' is not in the test split"):
        compare([other], tmp_path / "out", dataset=str(small_dataset), plots=False)


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("chance", "another system in it"),
        ("tf-idf", "the name of a baseline"),
        ("a + b", "a sum of systems"),
        ("x, history reversed", "the name of a control"),
    ],
)
def test_an_evaluation_is_not_called_as_another_system(tmp_path, name, taken):
    folder = evaluation(tmp_path / "run", {"ours": constant, "chance": constant})
    with pytest.raises(CompareError, match=f"cannot be called '{re.escape(name)}', which is {taken}. Choose another"):
        read(f"{name}={folder}")
    assert read(f"ours={folder}").own == "ours"


def test_rows_of_one_user_are_drawn_together(tmp_path, small_dataset):
    """As many rows of one user tell less than as many users; slices know which row is meant."""
    once = contract.read(str(small_dataset), "histories", "test")
    several = Dataset.from_list([{**row, "user_id": "u9" if n < 2 else "u11"} for n, row in enumerate(once)])
    folder = small_dataset.with_name("several")
    contract.write(folder, {"items": {"train": contract.read(str(small_dataset), "items", "train")},
                        "histories": dict.fromkeys(contract.SPLITS, several)}, provenance={}, body="")  # fmt: skip
    targets = set(once["target"])
    first = {"ours": lambda user, item: (item == once[0]["target"]) - (item in targets) / 2}
    results = {}
    for name, asked, source in (("alone", once, small_dataset), ("shared", several, folder)):
        made = evaluation(tmp_path / name, first, asked)
        results[name] = compare([made], tmp_path / "out", dataset=str(source), metric="recall@1", plots=False)
    assert [one["n_users"] for one in results.values()] == [3, 2]
    alone, shared = (one["systems"]["ours"]["recall@1"] for one in results.values())
    assert alone == {"value": pytest.approx(1 / 3), "low": 0, "high": 1}
    assert shared == {"value": pytest.approx(1 / 3), "low": 0, "high": 0.5}  # u9 alone: one of its two rows
    assert results["shared"]["slices"]["items in the history"]["6 items"]["n_users"] == 2


def test_the_temperature_comes_from_the_validation_of_the_same_weights(tmp_path):
    def sure(user, item):
        return 2.0 if item == "t" else -2.0

    test = evaluation(tmp_path / "test", {"ours": sure, "chance": constant}, odds=["ours"], weights="abc")
    other = rows(["v1", "v2"])
    half = {"value": 0.5, "bias": 0.0}
    right = evaluation(tmp_path / "v", {"ours": sure}, other, split="validation", weights="abc", temperature=half)
    wrong = evaluation(tmp_path / "w", {"ours": sure}, other, split="validation", weights="xyz", temperature=half)
    results = compare([test, right], tmp_path / "out", plots=False)
    found = results["calibration"]
    assert list(found) == ["ours"]  # chance gives no log-odds
    # Every positive at p, every negative at 1 - p: off by 1 - p all over.
    assert found["ours"]["before"]["ece"] == pytest.approx(1 / (1 + math.exp(2)))
    assert found["ours"]["after"]["ece"] == pytest.approx(1 / (1 + math.exp(4)))
    assert [(one["positives"], one["n_candidates"]) for one in found["ours"]["before"]["bins"]] == [(0, 8), (1, 4)]
    assert results["n_users"] == 4
    shown = calibration(results).splitlines()
    assert shown[0] == "| system | ECE before | temperature | bias | ECE after |"
    assert shown[2] == "| ours | 0.119 | 0.5 | 0 | 0.018 |"
    shifted = evaluation(
        tmp_path / "s", {"ours": sure}, other, split="validation", weights="abc", temperature=half | {"bias": 4.0}
    )
    found = compare([test, shifted], tmp_path / "out", plots=False)["calibration"]["ours"]
    assert found["biases"] == [4.0]
    # Positives at p(8), negatives at p(0): half the weight is off by 1 / 2.
    assert found["after"]["ece"] == pytest.approx((1 / 2 + 1 / (1 + math.exp(8))) / 2)
    del found["biases"]  # fitted by temperature alone
    assert calibration({"calibration": {"ours": found}}).startswith("| system | ECE before | temperature | ECE after |")
    assert "after" not in compare([test, wrong], tmp_path / "out", plots=False)["calibration"]["ours"]


def test_the_temperature_is_not_that_of_a_control_nor_of_a_part(tmp_path):
    def sure(user, item):
        return 2.0 if item == "t" else -2.0

    def validated(name, value, **about):
        about = {"weights": "abc", "temperature": {"value": value, "bias": 0.0}, **about}
        return evaluation(tmp_path / name, {"ours": sure}, rows(["v1", "v2"]), split="validation", **about)

    def temperature(*validations, **about):
        test = evaluation(tmp_path / "test", {"ours": sure}, odds=["ours"], weights="abc", **about)
        [found] = compare([test, *validations], tmp_path / "out", plots=False)["calibration"].values()
        return found.get("temperatures")

    own = validated("own", 0.5, shuffled_summaries=False, history=None, limit=0)
    shuffled = validated("shuffled", 2.0, shuffled_summaries=True)
    reordered = validated("reversed", 3.0, history="reversed")
    part = validated("part", 4.0, limit=2)
    others = validated("others", 5.0, dataset="other tales")
    assert temperature(part, own, shuffled, reordered, others) == [0.5]
    assert temperature(own, part) == [0.5]
    assert temperature(part) == [4.0]
    assert temperature(shuffled, reordered, others) is None
    # A control has its own, or else that of the true run.
    assert temperature(own, reordered, shuffled, shuffled_summaries=True) == [2.0]
    ours, others = ({"dataset_checksums": {"histories": sha256}} for sha256 in ("a", "b"))  # of other negatives
    assert temperature(validated("c", 3.0, **ours), **others) is None
    assert temperature(validated("c", 3.0, **ours), **ours) == [3.0]
    assert temperature(validated("r", 3.0, recipe={"base": "a"}), recipe={"base": "b"}) is None
    assert temperature(reordered, own, shuffled_summaries=True) == [0.5]


def test_tables_come_from_the_file(tmp_path):
    folders = [
        evaluation(tmp_path / "a", {"ours|x": hits("u1", "u2", "u3", "u4")}, cost={"cpu_seconds": 7, "peak_mib": 99.6}),
        evaluation(tmp_path / "b", {"none": hits()}),
    ]
    results = compare(folders, tmp_path / "out", plots=False)
    kept = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert kept == results
    assert table(kept, ("recall@1",)) == (
        "| system | Recall@1 | seeds | CPU s | peak MiB |\n|---|---|---|---|---|\n"
        "| ours&#124;x | 1.000 (1.000 to 1.000) | 1 | 7 | 100 |\n"
        "| none | 0.000 (0.000 to 0.000) | 1 | - | - |"
    )
    assert (tmp_path / "out" / "comparison.md").read_text() == document(kept)
    text = "A\n<!-- comparison: out/comparison.json -->\nold\n<!-- end -->\nB"
    assert (
        fill_tables.fill(text, tmp_path)
        == f"A\n<!-- comparison: out/comparison.json -->\n{table(kept)}\n<!-- end -->\nB"
    )


def test_orders_of_histories_stand_side_by_side(tmp_path):
    folders = [evaluation(tmp_path / "true", {"ours": hits(*USERS), "tf-idf": hits("u1"), "chance": constant})]
    for order, users in (("shuffled", ("u1", "u2")), ("last:3", ())):
        systems = {"ours": hits(*users), f"tf-idf, history {order}": hits("u2")}
        folders.append(evaluation(tmp_path / order, systems, history=order))
    results = compare(folders, tmp_path / "out", metric="recall@1", against="ours", plots=False)
    [ours] = [test for test in results["paired"] if test["system"] == "ours, history shuffled"]
    assert ours["difference"] == -0.5
    lines = orders(results).splitlines()
    assert lines[0] == "| Recall@1 | true order | last:3 | shuffled |"
    assert lines[2].startswith("| ours | 1.000 (1.000 to 1.000) | 0.000 (0.000 to 0.000); -1.000, p (Holm) ")
    assert f"; -0.500, p (Holm) {ours['p_holm']:.4f} |" in lines[2]
    assert lines[3].split(" | ")[1].startswith("0.250 (")
    assert "; " not in lines[3]  # nothing tests this one
    assert len(lines) == 4
    assert "## Recall@1 by the order of histories" in document(results)


def test_the_verb_prints_and_draws(tmp_path, capsys, small_dataset):
    test = contract.read(str(small_dataset), "histories", "test")
    folders = [evaluation(tmp_path / name, {name: constant}, test, odds=["one"]) for name in ("one", "two")]
    main(["compare", *folders, "--dataset", str(small_dataset), "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert "| one | 0.167 (0.167 to 0.167) |" in said
    assert "| one | two | +0.000 (+0.000 to +0.000) | 1.0000 | 1.0000 |" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "comparison.json", "comparison.md", "per_user.parquet", "systems.png", "slices.png", "reliability.png",
    }  # fmt: skip
    # What an earlier comparison drew does not stay beside a later one without it.
    main(["compare", *folders, "--out", str(tmp_path / "out")])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"comparison.json", "comparison.md", "per_user.parquet", "systems.png", "reliability.png"}
    with pytest.raises(SystemExit) as stop:
        main(["compare", str(tmp_path / "nowhere")])
    assert stop.value.code == 2
    assert "No scores.parquet" in capsys.readouterr().err


def test_without_matplotlib_there_are_tables_and_a_line_about_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    folders = [evaluation(tmp_path / name, {name: hits(user)}) for name, user in (("a", "u1"), ("b", "u2"))]
    main(["compare", *folders, "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert said.splitlines()[-1].endswith("without pictures, which need matplotlib: pip install 'llm-trsr[plots]'")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "comparison.json",
        "comparison.md",
        "per_user.parquet",
    }
    main(["compare", *folders, "--out", str(tmp_path / "out"), "--no-plots"])
    assert "pictures" not in capsys.readouterr().out


def test_a_control_has_a_name_of_its_own(tmp_path):
    """Its scores would be averaged with the run's own."""
    folders = [evaluation(tmp_path / "a", {"ours": hits("u1", "u2")}, weights="a")]
    for name, control in (("b", {}), ("c", {"history": "last:3"})):
        folders.append(
            evaluation(tmp_path / name, {"ours": hits("u3")}, shuffled_summaries=True, weights="a", **control)
        )
    names = ["ours", "ours, summaries shuffled", "ours, summaries shuffled, history last:3"]
    assert list(align([read(folder) for folder in folders]).seeds) == names


def test_a_base_without_its_adapter_is_no_second_seed(tmp_path):
    one = evaluation(tmp_path / "a", {"ours": hits("u1", "u2")}, weights="a")
    control = evaluation(tmp_path / "b", {"ours": hits("u3")}, weights=None)
    with pytest.raises(CompareError, match=r"not two seeds of one run: .* Rename one of them"):
        align([read(one), read(control)])
    assert len(align([read(one), read(f"control={control}")]).seeds) == 2


def retriever_of(seed, **more):
    return {"vectors": {"kind": "tf-idf"}, "shape": {"width": 8}, "settings": {"seed": seed}, **more}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"train_seed": 3}, {"train_seed": 3}),
        ({"train_seed": 0, "recipe": {"recent_items": 3}}, {"train_seed": 1, "recipe": {"recent_items": 5}}),
        ({"retriever": retriever_of(0)}, {"retriever": retriever_of(1, vectors={"kind": "none"})}),
        ({"retriever": retriever_of(0)}, {"retriever": retriever_of(1, shape={"width": 16})}),
        (
            {"tuning": {"seed_of_fit": 0, "chosen": {"width": 8}}},
            {"tuning": {"seed_of_fit": 1, "chosen": {"width": 16}}},
        ),
    ],
)
def test_different_systems_of_one_name_are_no_seeds(tmp_path, one, other):
    """Their mean would be that of neither."""
    folders = [
        evaluation(tmp_path / "a", {"ours": hits("u1", "u2")}, **one),
        evaluation(tmp_path / "b", {"ours": hits("u3")}, **other),
    ]
    with pytest.raises(CompareError, match="settings or data differ, or their training seed is the same"):
        align([read(folder) for folder in folders])
    seeds = [
        evaluation(tmp_path / str(seed), {"ours": hits(f"u{seed}")}, retriever=retriever_of(seed)) for seed in (1, 2)
    ]
    assert len(align([read(folder) for folder in seeds]).seeds["ours"]) == 2
