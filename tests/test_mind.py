"""MIND's files -> histories: by hand in small, and whatever is in them, rows are used or named, and all add up."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.raw import write_mind
from dataset_scripts import mind
from trsr.dataset import contract
from trsr.dataset.candidates import Candidates

NEWS = [f"N{n}\tnews\tlocal\tTitle {n}\tAbstract {n}\thttps://x\t[]\t[]" for n in range(60)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def part(folder: Path, behaviors: list[str], news: list[str] = NEWS) -> Path:
    """A folder as the raw data has it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "news.tsv").write_text("\n".join(news) + "\n", encoding="utf-8")
    (folder / "behaviors.tsv").write_text("\n".join(behaviors) + "\n", encoding="utf-8")
    return folder


def behavior(number, user, history, shown="N1-1 N2-0", time="11/14/2019 11:15:08 AM") -> str:
    ids = history if isinstance(history, str) else " ".join(f"N{n}" for n in history)
    return "\t".join([str(number), user, time, ids, shown])


USERS = [behavior(n, f"U{n}", range(n, n + 11 + n % 3)) for n in range(9)]
SMALL = ("--train", "4", "--validation", "2", "--test", "2")


def run(*arguments, out: Path) -> dict[str, int]:
    assert mind.main([*map(str, arguments), "--out", str(out)]) == 0
    return contract.provenance(str(out)).counts


def rows(out: Path) -> list[dict]:
    return [row for split in contract.SPLITS for row in contract.read(str(out), "histories", split)]


def parquet(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*.*"))
        if path.name != contract.PROVENANCE_FILE
    }


def test_the_earliest_history_of_a_user_counts_and_the_last_item_is_the_target(tmp_path):
    later = behavior(1, "U3", range(20, 31), time="11/14/2019 11:15:09 AM")
    sooner = behavior(99, "U3", range(40, 51), time="11/14/2019 9:15:09 AM")
    counts = run(part(tmp_path / "a", [later, *USERS, sooner]), *SMALL, "--train", "all", out=tmp_path / "out")
    found = {row["user_id"]: row for row in rows(tmp_path / "out")}
    assert found["U3"]["history"] == [f"N{n}" for n in range(40, 50)]
    assert found["U3"]["target"] == "N50"
    assert len(found["U4"]["history"]) == 11
    assert len(set(found["U3"]["negatives"]) - {f"N{n}" for n in range(40, 51)}) == 20
    assert counts["behaviors_of_users_met_before"] == 2
    assert contract.read(str(tmp_path / "out"), "items", "train")[0] == {
        "item_id": "N0", "title": "Title 0", "text": "category: news; subcategory: local; title: Title 0",
        "category": "news", "subcategory": "local", "abstract": "Abstract 0",
    }  # fmt: skip


def test_the_text_takes_other_fields_in_another_order(tmp_path):
    run(part(tmp_path / "a", USERS), *SMALL, "--text-fields", "title,abstract", out=tmp_path / "out")
    assert contract.read(str(tmp_path / "out"), "items", "train")["text"][0] == "title: Title 0; abstract: Abstract 0"


def test_entities_in_news_are_unescaped_and_a_missing_user_is_none(tmp_path, capsys):
    news = ["N0\tnews\tlocal\tSalt &amp; Pepper\t&quot;Yes&quot;\thttps://x\t[]\t[]", *NEWS[1:]]
    raw = part(tmp_path / "a", [*USERS, behavior(9, "nan", range(11)), behavior(10, "1e+18", range(11))], news)
    counts = run(raw, *SMALL, "--train", "all", out=tmp_path / "out")
    assert contract.read(str(tmp_path / "out"), "items", "train")[0]["title"] == "Salt & Pepper"
    assert counts["items_cells_unescaped"] == 2
    assert {row["user_id"] for row in rows(tmp_path / "out")} == {f"U{n}" for n in range(9)}
    assert "left out, no user id: 2 " in capsys.readouterr().out


def test_odd_histories_are_kept_dropped_or_cut_as_said(tmp_path):
    odd = [
        behavior(20, "repeats", [5] * 6 + [6] * 5),
        behavior(21, "target-read-before", [*range(11), 0]),
        behavior(22, "long", [n % 30 for n in range(400)]),
        behavior(23, "untitled", [*range(11), 59]),
        behavior(24, "unknown", "N1  N2 " + " ".join(f"X{n}" for n in range(9))),
        behavior(25, "nobody", ""),
    ]
    news = [*NEWS[:-1], "N59\tnews\tlocal\t \tno title\t\t\t", NEWS[3]]
    raw = part(tmp_path / "a", [*USERS, *odd], news)
    counts = run(raw, *SMALL, "--train", "all", out=tmp_path / "out")
    found = {row["user_id"]: row for row in rows(tmp_path / "out")}
    assert set(found) == {f"U{n}" for n in range(9)} | {"repeats", "target-read-before", "untitled"}
    assert found["repeats"]["history"] == ["N5"] * 6 + ["N6"] * 4
    assert (found["target-read-before"]["target"], found["target-read-before"]["history"][0]) == ("N0", "N0")
    assert found["untitled"]["target"] == "N10"
    assert counts["targets_in_own_history"] == 2
    assert (counts["users_dropped_long"], counts["users_dropped_short"]) == (1, 1)
    assert counts["unknown_items_left_out"] == 10
    assert (counts["items_without_title_or_text"], counts["items_repeated"]) == (1, 1)
    assert counts["behaviors_without_history"] == 1
    run(raw, *SMALL, "--train", "all", "--keep-last", out=tmp_path / "last")
    long = {row["user_id"]: row for row in rows(tmp_path / "last")}["long"]
    assert [*long["history"], long["target"]] == [f"N{n % 30}" for n in range(374, 400)]
    assert set(long["negatives"]).isdisjoint(f"N{n}" for n in range(30))
    assert long["also_met"] == sorted({f"N{n}" for n in range(30)} - {*long["history"], long["target"]})


TIMED = [
    behavior(1, "U1", [1, 2], "N3-0 N4-1 N5-1 N6-0", "11/13/2019 1:00:00 AM"),
    behavior(2, "U1", [1, 2], "N3-0 N7-1", "11/14/2019 11:59:59 PM"),
    behavior(3, "U2", [n % 60 for n in range(400)], "N3-1 N4-0 N4-0 N3-0 N99-0", "11/13/2019 12:00:00 PM"),
    behavior(4, "U3", "", "N3-1 N4-0"),
    behavior(5, "U3", [1], "N3-0 N4-0"),
    behavior(6, "U3", [1], "N3-1"),
    behavior(7, "U3", [1], ""),
    behavior(8, "U3", [1], "N3-1 N4"),
    behavior(2, "U1", [1, 2], "N3-0 N7-1", "11/14/2019 11:59:59 PM"),
]
DEV = [behavior(1, "U1", [1, 2, 8], "N9-1 N8-0", "11/15/2019 1:00:00 AM")]


def test_impressions_are_ranked_against_what_was_shown(tmp_path):
    train, dev = part(tmp_path / "train", TIMED), part(tmp_path / "dev", DEV)
    counts = run(train, dev, "--protocol", "impressions", out=tmp_path / "out")
    splits = {split: contract.read(str(tmp_path / "out"), "histories", split) for split in contract.SPLITS}
    found = sorted((row["impression_id"], row["target"], row["negatives"]) for row in splits["train"])
    assert found == [("1", "N4", ["N3", "N6"]), ("1", "N5", ["N3", "N6"]), ("3", "N3", ["N4"])]
    assert {row["user_id"]: row["history"] for row in splits["train"]}["U2"] == [f"N{n % 60}" for n in range(350, 400)]
    assert splits["validation"].to_list() == [
        {"user_id": "U1", "history": ["N1", "N2"], "target": "N7", "negatives": ["N3"], "impression_id": "2"}
    ]
    assert splits["test"]["target"] == ["N9"]
    made = json.loads((tmp_path / "out" / "provenance.json").read_text())["options"]
    assert [made[name] for name in ("negatives", "negative_sampling", "keep_last")] == [None] * 3
    names = ("read", "broken", "without_history", "without_click", "without_others", "repeated", "kept")
    assert [counts[f"train_impressions_{name}"] for name in names] == [9, 1, 1, 2, 1, 1, 3]
    # Lists of unequal length can be ranked.
    candidates = Candidates.of(splits["train"], seed=0)
    assert sorted(map(len, candidates.item_ids)) == [2, 3, 3]
    assert candidates.labels.shape == (3, 3)


def test_impressions_need_two_parts_and_two_days(tmp_path, capsys):
    train, dev = part(tmp_path / "train", TIMED[1:2]), part(tmp_path / "dev", DEV)
    for arguments, message in (
        ([train, "--protocol", "impressions"], "two parts"),
        ([train, dev], "one part"),
        ([train, dev, "--protocol", "impressions"], "impressions of 1 days"),
        ([train, "--text-fields", "title,url"], "--text-fields takes some of category"),
        ([train, "--text-fields", "title,title"], "each once"),
        ([tmp_path / "none", "--train", "many"], "--train takes a number of users, at least 1, or: all"),
        ([train, dev, "--protocol", "impressions", "--negatives", "4"], "leave out --negatives"),
        ([train, "--workers", "0"], "--workers is at least 1"),
        ([tmp_path / "none"], "No 'news.tsv'"),
        ([train], "No user is left"),
    ):
        assert mind.main([*map(str, arguments), "--out", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["dev", "train"]


def test_broken_rows_are_named_and_strict_stops(tmp_path, capsys):
    broken = [
        "x\tU1\t11/14/2019 1:15:08 AM\tN1\tN1-0",
        behavior(1, "", [1]),
        behavior(2, "U", [1], time="14.11.2019"),
        "1",
    ]
    raw = part(tmp_path / "a", [*USERS, *broken])
    counts = run(raw, *SMALL, out=tmp_path / "out")
    said = capsys.readouterr().out
    for reason, line in (("no impression id", 10), ("no user id", 11), ("no time", 12), ("fewer than 5 cells", 13)):
        assert f"left out, {reason}: 1 (a/behaviors.tsv, line {line})" in said
    assert counts["behaviors_broken"] == 4
    assert mind.main([str(raw), *SMALL, "--strict", "--out", str(tmp_path / "strict")]) == 2
    assert "a/behaviors.tsv, line 10: no impression id" in capsys.readouterr().err
    assert not (tmp_path / "strict").exists()


def test_headers_are_no_rows(tmp_path, capsys):
    news = ["news_id\tCategory\tsubcategory\tTitle\tabstract\turl\ttitle_entities\tabstract_entities", *NEWS]
    behaviors = ["impression_id\tuser_id\ttime\thistory\timpressions", *USERS]
    run(part(tmp_path / "plain", USERS), *SMALL, out=tmp_path / "one")
    capsys.readouterr()
    run(part(tmp_path / "a", behaviors, news), *SMALL, out=tmp_path / "two")
    assert parquet(tmp_path / "two") == parquet(tmp_path / "one")
    said = capsys.readouterr().out
    assert "left out, a header, which MIND has none of: 1 (a/news.tsv, line 1)" in said
    assert "left out, no impression id: 1 (a/behaviors.tsv, line 1)" in said


def test_files_that_give_no_row_say_why(tmp_path, capsys):
    numbered = part(tmp_path / "a", USERS, [f"{n}\t{line}" for n, line in enumerate(NEWS)])
    assert mind.main([str(numbered), *SMALL, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "error: No row is left" in said
    assert "left out, more than 8 cells: 60 (a/news.tsv, line 1; " in said
    unlabelled = [behavior(1, "U1", [1, 2, 8], "N9 N8", "11/15/2019 1:00:00 AM")]
    train, test = part(tmp_path / "train", TIMED), part(tmp_path / "test", unlabelled)
    assert mind.main([str(train), str(test), "--protocol", "impressions", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "The dev part has no impression that can be used. MIND's test part has no clicks: give the dev part." in said
    assert "ends neither with -0 nor with -1: 2 (train/behaviors.tsv, line 8; test/behaviors.tsv, line 1)" in said


def test_users_with_few_items_are_told_with_the_option_that_keeps_them(tmp_path, capsys):
    few = [behavior(20, "few", range(6)), behavior(21, "fewer", range(3)), behavior(22, "one", [1])]
    raw = part(tmp_path / "a", [*USERS, *few])
    run(raw, *SMALL, out=tmp_path / "out")
    said = "3 users have fewer than 11 items: --min-history 5 keeps 1 of them, --min-history 2 keeps 2 of them\n"
    assert said in capsys.readouterr().out
    assert run(raw, *SMALL, "--min-history", "5", out=tmp_path / "five")["users_dropped_short"] == 2


@pytest.mark.parametrize("protocol", ["paper", "impressions"])
def test_the_order_of_rows_and_the_number_of_workers_change_no_byte(tmp_path, monkeypatch, protocol):
    monkeypatch.setattr("trsr.dataset.build.scan.BLOCK", 50_000)
    parts = [tmp_path / "train", tmp_path / "dev"][: 1 if protocol == "paper" else 2]
    for place, folder in enumerate(parts):
        write_mind(folder, users=800, impressions=1500, news=300, seed=place)
    sizes = (*SMALL, "--negative-sampling", "popularity") if protocol == "paper" else ("--test", "50")
    run(
        *parts,
        "--protocol",
        protocol,
        *sizes,
        "--workers",
        "1",
        out=tmp_path / "one",
    )
    for folder in parts:
        for name in ("news.tsv", "behaviors.tsv"):
            lines = (folder / name).read_bytes().splitlines(keepends=True)
            random.Random(0).shuffle(lines)
            (folder / name).write_bytes(b"".join(lines))
    run(
        *parts,
        "--protocol",
        protocol,
        *sizes,
        "--workers",
        "3",
        out=tmp_path / "two",
    )
    assert parquet(tmp_path / "one") == parquet(tmp_path / "two")


def test_parts_of_one_name_in_different_folders_are_both_in_the_provenance(tmp_path):
    parts = part(tmp_path / "a" / "MIND", TIMED), part(tmp_path / "b" / "MIND", DEV)
    run(*parts, "--protocol", "impressions", out=tmp_path / "out")
    sources = contract.provenance(str(tmp_path / "out")).values["sources"]
    assert [source["file"] for source in sources] == [
        f"{folder}/MIND/{file}.tsv" for file in ("news", "behaviors") for folder in "ab"
    ]
    assert mind.main([str(parts[0]), str(parts[0]), "--protocol", "impressions", "--out", str(tmp_path / "twice")]) == 2


LINE = st.lists(
    st.sampled_from(["1", "U1", "11/14/2019 1:15:08 PM", "N1 N2", "N1-1 N2-0", "", " ", "é\x00", "N3-2"]), max_size=6
)


@given(st.lists(LINE, max_size=8), st.sampled_from(["paper", "impressions"]))
@settings(max_examples=40, deadline=None)
def test_whatever_the_rows_they_add_up(tmp_path_factory, lines, protocol):
    folder = tmp_path_factory.mktemp("any")
    lines = ["\t".join(line) for line in lines]
    out = folder / "out"
    if protocol == "paper":
        counts = run(part(folder / "a", [*USERS, *lines]), *SMALL, "--min-history", "2", "--negatives", "3", out=out)
        used = ("broken", "without_history", "of_users_met_before")
        assert counts["behaviors_read"] == sum(counts[f"behaviors_{name}"] for name in used) + counts["users_read"]
        places = ("dropped_short", "dropped_long", "in_no_split", "kept")
        assert counts["users_read"] == sum(counts[f"users_{name}"] for name in places)
    else:
        counts = run(part(folder / "a", [*TIMED, *lines]), part(folder / "b", DEV), "--protocol", protocol, out=out)
        used = ("broken", "without_history", "without_click", "without_others", "repeated", "kept")
        assert counts["train_impressions_read"] == sum(counts[f"train_impressions_{name}"] for name in used)
    assert counts.get("behaviors_read", counts.get("train_impressions_read")) == (
        len([line for line in lines if line]) + len(USERS if protocol == "paper" else TIMED)
    )
