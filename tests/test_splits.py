"""Protocols on made-up logs, each against a loop that says the same in plain Python: nothing leaks, nothing is lost."""

import csv
import hashlib
import random
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from datasets import Dataset
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataset_scripts import tables
from trsr.dataset import contract
from trsr.dataset.build.interactions import build_sequences
from trsr.dataset.build.k_core import k_core
from trsr.dataset.build.protocol import make_histories
from trsr.dataset.build.sequences import Sequences
from trsr.dataset.build.splits import Division, given_splits
from trsr.dataset.check.run import check
from trsr.errors import DataError
from trsr.summaries.engines.make import engine
from trsr.summaries.run import summarize_dataset

CATALOGUE = [f"i{number:02}" for number in range(40)]
DAY = 86_400


def made_up(seed: int, users: int = 20, longest: int = 14, repeats: bool = False) -> list[dict]:
    """Rows of a log, a day apart or none, in any order of time; a third of the ratings is low."""
    draw = random.Random(seed)
    rows = []
    for number in range(users):
        count, time = draw.randint(2, longest), draw.randint(0, 20) * DAY
        items = draw.choices(CATALOGUE[:20], k=count) if repeats else draw.sample(CATALOGUE[:20], count)
        for item in items:
            rows.append({"user": f"u{number}", "item": item, "rating": draw.choice([1, 4, 5]), "time": time})
            time += draw.choice([0, DAY])
    draw.shuffle(rows)
    return rows


def read(rows: list[dict], min_rating: float | None = None) -> Sequences:
    table = pa.table({name: [row[name] for row in rows] for name in rows[0]})
    found, _ = build_sequences(table, pa.array(CATALOGUE), min_rating=min_rating)
    return found


def in_time(rows: list[dict], min_rating: float = 0) -> dict[str, list[dict]]:
    """User -> rows, oldest first, by a loop."""
    found: dict[str, list[dict]] = {}
    for row in sorted(rows, key=lambda row: row["time"]):
        if row["rating"] >= min_rating:
            found.setdefault(row["user"], []).append(row)
    return found


def by_user(made, split: str) -> dict[str, dict]:
    assert len(set(made[split]["user_id"])) == len(made[split])
    return {row["user_id"]: row for row in made[split]}


def items(row: dict) -> list[str]:
    return [*row["history"], row["target"]]


OPTIONS = {"shortest": 4, "longest": 6, "keep_last": True, "negatives": 5}
LEAVE_ONE_OUT = Division("leave-one-out")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_leave_one_out_is_the_plain_loop_and_leaks_nothing(seed, repeats):
    rows = made_up(seed, repeats=repeats)
    made, counts = make_histories(read(rows), **OPTIONS, division=LEAVE_ONE_OUT)
    met = {user: [row["item"] for row in log] for user, log in in_time(rows).items()}
    users = {user for user, known in met.items() if len(known) >= 4}
    assert counts["users_kept"] == len(users)
    assert counts["users_cut_to_newest"] == sum(len(met[user]) > 6 for user in users)
    for left, split in enumerate(("test", "validation", "train")):
        found = by_user(made, split)
        assert found.keys() == users
        for user, row in found.items():
            assert items(row) == met[user][: len(met[user]) - left][-6:]
            assert set(row["negatives"]).isdisjoint(met[user])
            assert row["also_met"] == sorted(set(met[user]) - set(items(row)))
    ties = sum(
        log[-1 - left]["time"] == log[-2 - left]["time"]
        for user, log in in_time(rows).items()
        for left in range(3)
        if user in users
    )
    assert counts["targets_tied_in_time"] == ties


def test_the_splits_of_a_user_have_negatives_of_their_own():
    """What training calls wrong must not be what the test asks about."""
    made, _ = make_histories(read(made_up(0)), **OPTIONS, division=LEAVE_ONE_OUT)
    splits = [by_user(made, split) for split in contract.SPLITS]
    same = [user for user in splits[0] if splits[0][user]["negatives"] == splits[2][user]["negatives"]]
    assert not same
    assert any(splits[1][user]["negatives"] != splits[2][user]["negatives"] for user in splits[1])


@settings(max_examples=25, deadline=None)
@example(6094, False)  # where nobody has anything after the date
@given(st.integers(0, 10_000), st.booleans())
def test_a_split_by_date_is_the_plain_loop(seed, two):
    rows = made_up(seed, users=40)
    days = ["1970-01-16", "1970-01-20"] if two else ["1970-01-20"]
    end = 19 * DAY
    start = 15 * DAY if two else None
    expected: dict[str, dict[str, list[str]]] = {split: {} for split in contract.SPLITS}
    for user, log in in_time(rows).items():
        known = [row["item"] for row in log]
        before = [row["item"] for row in log if row["time"] < end]
        expected["test"][user] = known[: len(before) + 1] if len(known) > len(before) else []
        if start is None:
            expected["validation"][user], expected["train"][user] = before, before[:-1]
        else:
            first = [row["item"] for row in log if row["time"] < start]
            expected["validation"][user] = known[: len(first) + 1] if len(before) > len(first) else []
            expected["train"][user] = first
    rows_of = {split: {u: i[-6:] for u, i in users.items() if len(i) > 1} for split, users in expected.items()}
    division = Division("date", tuple(days))
    if empty := [split for split, users in rows_of.items() if not users]:
        with pytest.raises(DataError, match=f"No user has a row for .*{empty[0]}"):
            make_histories(read(rows), **{**OPTIONS, "shortest": 2}, division=division)
        return
    made, _ = make_histories(read(rows), **{**OPTIONS, "shortest": 2}, division=division)
    for split, users in rows_of.items():
        found = by_user(made, split)
        assert {user: items(row) for user, row in found.items()} == users
        for user, row in found.items():
            assert set(row["negatives"]).isdisjoint(item["item"] for item in in_time(rows)[user])


def naive_core(log: list[tuple[str, str]], k: int) -> list[tuple[str, str]]:
    while True:
        users, found = Counter(user for user, _ in log), Counter(item for _, item in log)
        kept = [(user, item) for user, item in log if users[user] >= k and found[item] >= k]
        if kept == log:
            return kept
        log = kept


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.booleans())
def test_the_k_core_is_the_fixed_point_of_a_plain_loop(seed, k, repeats):
    rows = made_up(seed, repeats=repeats)
    sequences = read(rows)
    pairs = zip(sequences.users.to_pylist(), sequences.items.to_pylist(), strict=True)
    log = [(user, CATALOGUE[place]) for user, places in pairs for place in places]
    expected = naive_core(log, k)
    if not expected:
        with pytest.raises(DataError, match=f"--k-core {k} leaves nothing"):
            k_core(sequences, k)
        return
    made, counts = k_core(sequences, k)
    pairs = zip(made.users.to_pylist(), made.items.to_pylist(), strict=True)
    assert [(user, made.catalogue[place].as_py()) for user, places in pairs for place in places] == expected
    assert made.catalogue.to_pylist() == sorted({item for _, item in expected})
    assert counts["interactions_outside_k_core"] == len(log) - len(expected)
    assert counts["users_outside_k_core"] == len(sequences) - len({user for user, _ in expected})
    assert counts["items_outside_k_core"] == len(CATALOGUE) - len(made.catalogue)
    assert made.seen is None  # nothing of the catalogue that is left was met beside it
    assert len(made.times.values) == len(expected)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0, 2, 3]), st.sampled_from([Division(), LEAVE_ONE_OUT]))
def test_what_was_rated_low_is_neither_positive_nor_negative(seed, k, division):
    rows = made_up(seed, users=30)
    sequences = read(rows, min_rating=4)
    if k:
        sequences, _ = k_core(sequences, k)
    made, _ = make_histories(sequences, **{**OPTIONS, "negatives": 1}, division=division)
    met, liked = ({u: {row["item"] for row in log} for u, log in in_time(rows, low).items()} for low in (0, 4))
    for split in contract.SPLITS:
        for user, row in by_user(made, split).items():
            assert set(items(row)) <= liked[user]
            assert set(row["negatives"]) <= set(sequences.catalogue.to_pylist()) - met[user]


def test_an_interaction_without_a_rating_was_met():
    table = pa.table({"user": ["u"] * 4, "item": CATALOGUE[:4], "rating": pa.array([5.0, None, 3.0, 4.0])})
    found, counts = build_sequences(table, pa.array(CATALOGUE), min_rating=4)
    assert found.items.to_pylist() == [[0, 3]]
    assert found.seen.to_pylist() == [[0, 1, 2, 3]]
    assert (counts["interactions_without_rating"], counts["interactions_below_min_rating"]) == (1, 1)


def test_splits_as_given():
    sequences = read(made_up(0))
    names = pa.array(["train"] * 12 + ["Valid"] * 3 + ["test"] * 3 + [None])
    given_to = given_splits(pa.array([f"u{n}" for n in range(18)] + ["u18"]), names)
    made, counts = make_histories(sequences, **{**OPTIONS, "shortest": 2}, division=Division("given", given=given_to))
    assert set(made["validation"]["user_id"]) == {"u12", "u13", "u14"}
    assert set(made["test"]["user_id"]) == {"u15", "u16", "u17"}
    assert counts["users_in_no_split"] == 2
    with pytest.raises(DataError, match=r"'u0': 'holdout' is no split; expected train, validation, test, valid"):
        given_splits(pa.array(["u0"]), pa.array(["holdout"]))
    with pytest.raises(DataError, match=r"'u0' stands in train and in test; .*leave-one-out"):
        given_splits(pa.array(["u0", "u0"]), pa.array(["train", "test"]))
    with pytest.raises(DataError, match="The split test has 0 users"):
        make_histories(sequences, **OPTIONS, division=Division("given", given={"u0": "train", "u1": "validation"}))
    with pytest.raises(DataError, match=r"as 'u\d+' in the interactions, and as 'U0' where splits are named"):
        make_histories(sequences, **OPTIONS, division=Division("given", given={"U0": "train"}))


def test_dates_are_in_the_unit_of_the_log():
    rows = [
        {"user": f"u{user}", "item": CATALOGUE[step], "rating": 5, "time": 1000 * (1_000_000_000 + step * DAY)}
        for user in range(3)
        for step in range(6)
    ]  # milliseconds; the first is 2001-09-09T01:46:40
    options = {**OPTIONS, "shortest": 2}
    made, _ = make_histories(read(rows), **options, division=Division("date", ("2001-09-12", "2001-09-13")))
    assert [items(made[split][0]) for split in contract.SPLITS] == [CATALOGUE[:3], CATALOGUE[:4], CATALOGUE[:5]]
    as_numbers = Division("date", (str(1_000_252_800_000), str(1_000_339_200_000)))
    again, _ = make_histories(read(rows), **options, division=as_numbers)
    assert again["test"].to_list() == made["test"].to_list()
    with pytest.raises(DataError, match=r"has a row for test .* from 2001-09-09T01:46:40 to 2001-09-14T01:46:40"):
        make_histories(read(rows), **options, division=Division("date", ("2003-01-01",)))
    for dates, said in ((("soon",), "got 'soon'"), (("2001-09-13", "2001-09-12"), "the second is later")):
        with pytest.raises(DataError, match=said):
            make_histories(read(rows), **options, division=Division("date", dates))


def test_a_far_date_does_not_change_the_unit_of_a_log(tmp_path, capsys):
    """9999-12-31 is a date, in seconds, though as a number it has the size of milliseconds."""
    start = datetime.fromisoformat("2001-09-09T00:00:00+00:00")
    rows = [
        {"user": f"u{user}", "item": CATALOGUE[step], "time": (start + timedelta(days=step)).isoformat()}
        for user in range(3)
        for step in range(6)
    ]
    rows[5]["time"] = "9999-12-31"
    assert run(tmp_path, "--split-date", "2001-09-11,2001-09-13", rows=rows) == 0
    made = [contract.read(str(tmp_path / "out"), "histories", split).to_list() for split in contract.SPLITS]
    assert [{tuple(items(row)) for row in one} for one in made] == [{tuple(CATALOGUE[:end])} for end in (2, 3, 5)]
    assert "holds times in" not in capsys.readouterr().out
    assert not [name for name in contract.provenance(str(tmp_path / "out")).counts if name.startswith("times_in_")]


def test_the_unit_of_a_log_is_that_of_most_times():
    rows = [
        {"user": f"u{user}", "item": CATALOGUE[step], "rating": 5, "time": 1_000_000_000 + step * DAY}
        for user in range(3)
        for step in range(6)
    ]
    rows[5]["time"] *= 1000
    made, _ = make_histories(
        read(rows), **{**OPTIONS, "shortest": 2}, division=Division("date", ("2001-09-12", "2001-09-13"))
    )
    assert [items(made[split][0]) for split in contract.SPLITS] == [CATALOGUE[:3], CATALOGUE[:4], CATALOGUE[:5]]


def test_leave_one_out_needs_four_items():
    with pytest.raises(DataError, match=r"Users of 3 to 6 items.* at least 4 of each"):
        make_histories(read(made_up(0)), shortest=3, longest=6, division=LEAVE_ONE_OUT)


def test_no_minimum_is_advised_that_leave_one_out_refuses(tmp_path, capsys):
    rows = made_up(0)
    counts = [len(log) for log in in_time(rows).values()]
    short, fitting = sum(count < 4 for count in counts), sum(count in (4, 5) for count in counts)
    assert short
    assert fitting
    assert run(tmp_path, "--split", "leave-one-out", rows=rows) == 0
    assert f"{short} users have fewer than 4 items\n" in capsys.readouterr().out
    assert run(tmp_path, "--split", "leave-one-out", "--min-history", "6", rows=rows, out="6") == 0
    five = counts.count(5)
    told = f"--min-history 5 keeps {five} of them, " * bool(five) + f"--min-history 4 keeps {fitting} of them\n"
    assert f"{short + fitting} users have fewer than 6 items: {told}" in capsys.readouterr().out


def test_sizes_are_the_first_users_of_the_hash():
    everyone, _ = make_histories(read(made_up(0)), **OPTIONS, division=LEAVE_ONE_OUT)
    few, _ = make_histories(read(made_up(0)), **OPTIONS, division=LEAVE_ONE_OUT, test=3)
    assert few["test"].to_list() == everyone["test"].select(range(3)).to_list()
    assert len(few["train"]) == len(everyone["train"])
    with pytest.raises(DataError, match=r"The split test has \d+ users, 99 needed"):
        make_histories(read(made_up(0)), **OPTIONS, division=LEAVE_ONE_OUT, test=99)


# The command


def save(path: Path, rows: list[dict]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def run(folder: Path, *options: str, rows: list[dict] | None = None, out: str = "out") -> int:
    books = [{"item": item, "title": f"Book {item[1:]}"} for item in CATALOGUE]
    given_files = [
        ["--items", str(save(folder / "items.csv", books))],
        ["--interactions", str(save(folder / "log.csv", rows or made_up(0)))],
        ["--item-id", "item", "--item", "item", "--user", "user", "--time", "time", "--text-fields", "title"],
        ["--out", str(folder / out), "--negatives", "5", "--max-history", "8"],
    ]
    return tables.main([word for words in [*given_files, options] for word in words])


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def split_column(rows: list[dict]) -> list[dict]:
    return [{**row, "part": ("test", "valid", "train")[min(int(row["user"][1:]) // 4, 2)]} for row in rows]


@pytest.mark.parametrize(
    ("options", "record", "words", "several"),
    [
        (
            ["--split", "leave-one-out", "--min-rating", "4", "--k-core", "2"],
            {"split": "leave-one-out", "min_rating": 4.0, "k_core": 2},
            "1 positive and 5 uniform negatives a user, leave-one-out in time, ratings of 4 or more, 2-core",
            True,
        ),
        (
            ["--split-date", "1970-01-16,1970-01-20"],
            {"split": "date", "dates": ["1970-01-16", "1970-01-20"]},
            "1 positive and 5 uniform negatives a user, split by date at 1970-01-16 and 1970-01-20",
            True,
        ),
        (
            ["--split-column", "part"],
            {"split": "given"},
            "1 positive and 5 uniform negatives a user, splits as given",
            False,
        ),
        (["--min-history", "4"], {"split": "users"}, "1 positive and 5 uniform negatives a user", False),
    ],
)
def test_each_protocol_is_named_and_checks_clean(tmp_path, options, record, words, several):
    assert run(tmp_path, *options, rows=split_column(made_up(0))) == 0
    made = contract.provenance(str(tmp_path / "out"))
    assert made.values["protocol"] == record == made.protocol_record
    assert made.protocol == words
    assert made.users_in_several_splits is several
    assert not made.by_impressions
    report = check(str(tmp_path / "out"))
    assert report.count("error") == report.count("warning") == 0
    assert report.protocol == words
    assert ("target-time-tied" in {one.code for one in report.findings}) == bool(made.counts["targets_tied_in_time"])
    if several:
        assert "rated lower" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_a_file_that_names_the_splits(tmp_path):
    rows = split_column(made_up(0))
    named = [{"user": user, "split": part} for user, part in {row["user"]: row["part"] for row in rows}.items()]
    file = save(tmp_path / "splits.csv", named)
    assert run(tmp_path, "--splits", str(file)) == 0
    assert run(tmp_path, "--split-column", "part", rows=rows, out="other") == 0
    for split in contract.SPLITS:
        one, other = (contract.read(str(tmp_path / name), "histories", split) for name in ("out", "other"))
        assert one.to_list() == other.to_list()
    sources = contract.provenance(str(tmp_path / "out")).values["sources"]
    assert [source["file"] for source in sources] == ["items.csv", "log.csv", "splits.csv"]


def test_files_of_one_name_in_different_folders_are_all_in_the_provenance(tmp_path):
    rows = made_up(0)
    users = sorted({row["user"] for row in rows})
    for name in ("items", "log", "splits"):
        (tmp_path / name).mkdir()
    books = [{"item": item, "title": f"Book {item[1:]}"} for item in CATALOGUE]
    splits = [{"user": user, "split": contract.SPLITS[min(n // 4, 2)]} for n, user in enumerate(users)]
    files = {name: tmp_path / name / "data.csv" for name in ("items", "log", "splits")}
    for file, content in zip(files.values(), (books, rows, splits), strict=True):
        save(file, content)
    words = ["--items", str(files["items"]), "--interactions", str(files["log"]), "--splits", str(files["splits"])]
    words += ["--item-id", "item", "--item", "item", "--user", "user", "--text-fields", "title", "--negatives", "5"]
    assert tables.main([*words, "--out", str(tmp_path / "out")]) == 0
    sources = contract.provenance(str(tmp_path / "out")).values["sources"]
    assert sources == [
        {"file": f"{name}/data.csv", "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for name, file in files.items()
    ]
    assert "Made from `items/data.csv` and `log/data.csv`" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "between", "header", "encoding"),
    [
        ("splits.csv", ",", "user,split", "utf-8"),
        ("splits.csv", ";", "someone;split", "utf-8"),
        ("splits.tsv", "\t", "", "utf-8"),
        ("splits.dat", "::", "", "latin-1"),
        ("splits.txt", " ", "split user", "utf-8"),
    ],
)
def test_the_form_of_the_log_is_not_that_of_the_splits(tmp_path, name, between, header, encoding):
    rows = [{**row, "user": f"é{row['user'][1:]}"} for row in made_up(0)]
    parts = {user: ("test", "valid", "train")[min(int(user[1:]) // 4, 2)] for user in sorted({r["user"] for r in rows})}
    order = -1 if header.startswith("split") else 1
    lines = [between.join([user, part][::order]) + "\n" for user, part in parts.items()]
    (tmp_path / name).write_text((header and f"{header}\n") + "".join(lines), encoding=encoding, newline="\n")
    log = tmp_path / "log.dat"
    log.write_text("".join("::".join(map(str, row.values())) + "\n" for row in rows), encoding="latin-1", newline="\n")
    items_file = tmp_path / "items.dat"
    items_file.write_text("".join(f"{item}::Book {item}\n" for item in CATALOGUE), encoding="latin-1", newline="\n")
    form = ["--sep", "::", "--encoding", "latin-1", "--no-header", "--interactions-format", "csv"]
    form += ["--items-columns", "item,title", "--interactions-columns", "user,item,rating,time"]
    given_files = ["--items", str(items_file), "--interactions", str(log), "--splits", str(tmp_path / name)]
    columns = ["--item-id", "item", "--item", "item", "--user", "user", "--time", "time", "--text-fields", "title"]
    assert tables.main([*given_files, *form, *columns, "--out", str(tmp_path / "out"), "--negatives", "5"]) == 0
    counts = in_time(rows)
    for split, part in (("train", "train"), ("validation", "valid"), ("test", "test")):
        found = set(contract.read(str(tmp_path / "out"), "histories", split)["user_id"])
        assert found == {user for user in parts if parts[user] == part and len(counts[user]) > 1}


def test_items_outside_the_core_leave_the_catalogue(tmp_path):
    assert run(tmp_path, "--k-core", "3", "--split", "leave-one-out") == 0
    counts = contract.provenance(str(tmp_path / "out")).counts
    known = set(contract.read(str(tmp_path / "out"), "items", "train")["item_id"])
    assert len(known) == 40 - counts["items_outside_k_core"] <= 20
    for split in contract.SPLITS:
        for row in contract.read(str(tmp_path / "out"), "histories", split):
            assert known.issuperset([*items(row), *row["negatives"]])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--split", "leave-one-out", "--split-date", "1970-01-16"],
            "divided in one way; got --split leave-one-out, --sp",
        ),
        (["--k-core", "-1"], "--k-core is a number of interactions"),
        (["--k-core", "99"], "--k-core 99 leaves nothing"),
        (["--min-rating", "4", "--rating-column", "stars"], "stars"),
        (["--min-rating", "9"], "No user is left of 20: 20 have fewer than 11 items"),
        (["--splits", "nowhere.csv"], "No file at 'nowhere.csv'"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, options, said):
    assert run(tmp_path, "--max-history", "20", *options) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert said in line


def test_a_card_does_not_put_users_in_splits_that_leave_them_out(tmp_path):
    assert run(tmp_path, "--split", "leave-one-out", "--test", "5") == 0
    card = " ".join((tmp_path / "out" / "README.md").read_text(encoding="utf-8").split())
    assert "| `histories` | test | 5 |" in card
    assert "Every user" not in card
    assert "`test` asks for a user's last item" in card
    assert "A user may stand in all splits." in card


# What a check says of such datasets


@pytest.fixture(scope="module")
def left_out(tmp_path_factory) -> Path:
    """A dataset in which every user stands in all splits."""
    folder = tmp_path_factory.mktemp("left-out")
    assert run(folder, "--split", "leave-one-out") == 0
    return folder / "out"


def planted(source: Path, folder: Path, split: str, edit) -> Path:
    """The dataset with one row of a split edited."""
    splits = {one: contract.read(str(source), "histories", one) for one in contract.SPLITS}
    rows = splits[split].to_list()
    edit(rows)
    splits[split] = splits[split].from_list(rows, features=splits[split].features)
    made = {"items": {"train": contract.read(str(source), "items", "train")}, "histories": splits}
    contract.write(folder, made, provenance=contract.provenance(str(source)).values, body="# Planted")
    return folder


def errors(folder: Path) -> list[tuple[str, str, int]]:
    return [(one.code, one.split, one.count) for one in check(str(folder)).findings if one.severity == "error"]


def test_a_later_target_in_a_training_row_is_a_leak(left_out, tmp_path):
    answers = {row["user_id"]: row["target"] for row in contract.read(str(left_out), "histories", "test")}
    assert errors(left_out) == []
    in_history = planted(
        left_out, tmp_path / "h", "train", lambda rows: rows[2]["history"].insert(0, answers[rows[2]["user_id"]])
    )
    assert errors(in_history) == [("target-in-earlier-split", "test", 1)]
    as_target = planted(
        left_out, tmp_path / "t", "train", lambda rows: rows[2].update(target=answers[rows[2]["user_id"]])
    )
    assert ("target-in-earlier-split", "test", 1) in errors(as_target)


def test_a_negative_that_is_met_later_is_none(left_out, tmp_path):
    answers = {row["user_id"]: row["target"] for row in contract.read(str(left_out), "histories", "test")}
    met_later = planted(
        left_out, tmp_path / "n", "train", lambda rows: rows[2]["negatives"].append(answers[rows[2]["user_id"]])
    )
    # Twice: `also_met` says so, and the later split's row shows it.
    assert errors(met_later) == [("negative-met", "train", 1), ("negative-met", "test", 1)]


def test_summaries_of_such_a_dataset_check_clean(left_out, tmp_path):
    summarize_dataset(str(left_out), tmp_path / "out", engine("extractive"))
    assert errors(tmp_path / "out") == []
    known, made = (contract.read(str(tmp_path / "out"), config, "test") for config in ("histories", "recurrent"))
    assert known["also_met"] == made["also_met"]
    assert contract.provenance(str(tmp_path / "out")).protocol_record == {"split": "leave-one-out"}


def test_ties_are_seen_in_timestamps_too(left_out, tmp_path):
    rows = contract.read(str(left_out), "histories", "test").to_list()
    for place, row in enumerate(rows):
        row["timestamps"] = [*range(len(row["history"])), len(row["history"]) - (place == 4)]
    timed = Dataset.from_list(rows)
    made = {
        "items": {"train": contract.read(str(left_out), "items", "train")},
        "histories": dict.fromkeys(contract.SPLITS, timed),
    }
    contract.write(tmp_path / "out", made, provenance={}, body="# Timed")
    found = [one for one in check(str(tmp_path / "out")).findings if one.code == "target-time-tied"]
    assert [(one.split, one.count, one.severity) for one in found] == [(split, 1, "note") for split in contract.SPLITS]
    assert found[0].examples[0].row == 4
