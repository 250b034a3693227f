"""A dataset folder is written whole or not at all, and read as what it is."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import Dataset, DatasetDict, load_dataset

from trsr.assets.paths import ASSETS
from trsr.dataset import contract
from trsr.errors import DataError, UsageError

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def catalogue(*texts: str) -> Dataset:
    rows = [{"item_id": f"i{n}", "title": f"t{n}", "text": text} for n, text in enumerate(texts)]
    return Dataset.from_list(rows, features=contract.items_features(contract.ITEM_COLUMNS))


def people(*users: str) -> Dataset:
    rows = [{"user_id": user, "history": ["i0", "i1"], "target": "i2", "negatives": ["i3"]} for user in users]
    return Dataset.from_list(rows, features=contract.HISTORIES)


def tables(users: int = 2) -> dict[str, DatasetDict]:
    rows = people(*(f"u{number}" for number in range(users)))
    return {
        "items": DatasetDict(train=catalogue("a", "b", "c", "d")),
        "histories": DatasetDict(dict.fromkeys(contract.SPLITS, rows)),
    }


def write(folder: Path, made=None) -> Path:
    contract.write(folder, made or tables(), provenance={"seed": 3}, body="# Card", header={"license": "mit"})
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_what_is_written_is_read(tmp_path):
    folder = write(tmp_path / "d")
    assert contract.read(str(folder), "histories", "test").to_list() == people("u0", "u1").to_list()
    assert contract.texts(str(folder)) == {"i0": "a", "i1": "b", "i2": "c", "i3": "d"}
    assert contract.provenance(str(folder)).values == {"seed": 3}
    assert (folder / "README.md").read_text(encoding="utf-8").startswith("---\nlicense: mit\ndataset_info:\n")


def test_anyone_can_load_it(tmp_path):
    folder = write(tmp_path / "d")
    assert load_dataset(str(folder))["train"].column_names == list(contract.HISTORIES)  # the default config
    assert load_dataset(str(folder), "items", split="train").features == contract.items_features(contract.ITEM_COLUMNS)


def test_the_same_tables_are_the_same_bytes(tmp_path):
    assert contents(write(tmp_path / "one")) == contents(write(tmp_path / "two"))


def test_a_file_that_was_edited_in_place_is_read_as_it_is(small_dataset):
    source = str(small_dataset)
    before = contract.texts(source)
    [path] = (small_dataset / "items").iterdir()
    table = pq.read_table(path)
    edited = pa.array([f"title: {number}" for number in range(len(table))])
    pq.write_table(table.set_column(table.column_names.index("text"), "text", edited), path)
    assert list(contract.texts(source).values()) == edited.to_pylist() != list(before.values())
    [path] = (small_dataset / "histories").glob("train-*")
    pq.write_table(pq.read_table(path).slice(0, 2), path)
    with pytest.raises(DataError, match=r"do not hold the rows that its README\.md counts.*remove dataset_info"):
        contract.read(source, "histories", "train")
    card = small_dataset / "README.md"
    _, header, body = card.read_text().split("---\n", 2)
    kept = {name: value for name, value in yaml.safe_load(header).items() if name != "dataset_info"}
    card.write_text(f"---\n{yaml.safe_dump(kept)}---\n{body}")
    assert len(contract.read(source, "histories", "train")) == 2


@pytest.mark.parametrize(
    ("config", "column", "values", "told"),
    [
        ("items", "item_id", lambda n: n, "item_id is Value('int64')"),
        ("histories", "target", lambda n: float(n), "target is Value('float64')"),
        ("histories", "negatives", lambda n: [n, n + 1], "negatives is List(Value('int64'))"),
        ("histories", "user_id", lambda n: [str(n)], "user_id is List(Value('string'))"),
        ("histories", "history", lambda n: str(n), "history is Value('string')"),
        ("histories", "negatives", lambda n: [], None),
    ],
)
def test_ids_that_are_no_texts_are_told_when_they_are_read(small_dataset, config, column, values, told):
    [path] = (small_dataset / config).glob("train-*")
    table = pq.read_table(path)
    made = pa.array([values(number) for number in range(len(table))])
    pq.write_table(pa.table({**{name: table[name] for name in table.column_names}, column: made}), path)
    card = small_dataset / "README.md"
    _, header, body = card.read_text().split("---\n", 2)
    kept = {name: value for name, value in yaml.safe_load(header).items() if name != "dataset_info"}
    kept["configs"] = [
        {**one, "data_files": [file for file in one["data_files"] if file["split"] == "train"]}
        for one in kept["configs"]
    ]
    card.write_text(f"---\n{yaml.safe_dump(kept)}---\n{body}")
    if told:
        with pytest.raises(DataError, match=re.escape(f"ids and texts must be strings, but {told}. Write them")):
            contract.read(str(small_dataset), config, "train")
    else:
        contract.read(str(small_dataset), config, "train")


def test_a_folder_written_anew_is_read_anew(tmp_path):
    assert len(contract.read(str(write(tmp_path / "d")), "histories", "train")) == 2
    assert len(contract.read(str(write(tmp_path / "d", tables(5))), "histories", "train")) == 5


def test_folders_of_one_name_are_not_mixed_up(tmp_path):
    for parent, users in (("one", 2), ("two", 3)):
        folder = write(tmp_path / parent / "d", tables(users))
        assert len(load_dataset(str(folder), "histories", split="train")) == users


def test_an_empty_split_writes_nothing(tmp_path):
    made = tables()
    made["histories"]["validation"] = people("u").select([])
    with pytest.raises(DataError, match="'histories': the split 'validation' would be empty"):
        write(tmp_path / "d", made)
    assert not list(tmp_path.iterdir())


def test_a_failure_midway_leaves_what_was_there(tmp_path):
    folder = write(tmp_path / "d")
    before = contents(folder)
    with pytest.raises(AttributeError):
        write(folder, {**tables(3), "recurrent": {"train": "no table"}})
    assert contents(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_a_strangers_folder_or_file_is_left_alone(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_text("a")
    (tmp_path / "file").write_text("a")
    for name in ("photos", "file"):
        with pytest.raises(DataError, match=f"{name} exists and is not a dataset folder of ours"):
            write(tmp_path / name)
    assert set(contents(tmp_path)) == {"photos/one.jpg", "file"}


def test_a_dataset_with_other_files_beside_it_is_left_alone(tmp_path):
    folder = write(tmp_path / "d")
    for harmless in (".gitattributes", ".audit.json.7-8.part"):
        (folder / harmless).write_text("")
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    write(folder)
    for other in (".git", "figures", "notes.txt", "raw", "store.sqlite"):
        (folder / other).write_text("kept")
    before = contents(folder)
    with pytest.raises(
        DataError, match=r"holds \.git, figures, notes\.txt and 2 more beside its dataset.*Choose another"
    ):
        write(folder)
    assert contents(folder) == before


def test_here_and_links_are_places_too(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write(tmp_path / "link")
    assert len(contract.read(str(tmp_path / "real"), "items", "train")) == 4
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write(Path("."))
    assert (tmp_path / "here" / contract.PROVENANCE_FILE).exists()


def test_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    # Of these the first three are no Hub id; `data/nowhere` could be one, were there no folder `data`.
    for place in ("~/nowhere", "data/a/nowhere", str(tmp_path / "nowhere"), "data/nowhere"):
        with pytest.raises(DataError, match="No dataset folder at"):
            contract.configs(place)
    with pytest.raises(DataError, match=r"No dataset folder at './nowhere'\. Make one with dataset_scripts/"):
        contract.read("./nowhere", "items", "train")


@pytest.mark.parametrize("header", [b"a: [b: c", b"- a", "ä: 1".encode("latin-1"), b"configs: 3"])
def test_a_card_that_was_broken_by_hand_is_told(tmp_path, header):
    contract.write(tmp_path / "d", tables(), provenance={}, body="")
    (tmp_path / "d" / "README.md").write_bytes(b"---\n" + header + b"\n---\n")
    with pytest.raises(DataError, match=r"'.*d' cannot be read: the header of its README\.md"):
        contract.read(str(tmp_path / "d"), "items", "train")
    if header != b"configs: 3":  # which is YAML
        with pytest.raises(UsageError, match=r"The header of .*README\.md is no YAML in UTF-8: .* Fix it"):
            contract.header(str(tmp_path / "d"))


def test_no_config_says_how_to_make_it(tmp_path):
    folder = write(tmp_path / "d")
    with pytest.raises(
        DataError,
        match=r"has no config 'recurrent'; it has items, histories\. Run: trsr summarize .* --method recurrent --out DIR",
    ):
        contract.read(str(folder), "recurrent", "train")
    with pytest.raises(DataError, match=r"has no config 'other'; it has items, histories\.$"):
        contract.read(str(folder), "other", "train")


def test_no_split(tmp_path):
    folder = write(tmp_path / "d")
    with pytest.raises(DataError, match="config 'items': cannot read split 'test'"):
        contract.read(str(folder), "items", "test")


def test_no_column(tmp_path):
    made = tables()
    made["items"] = made["items"].remove_columns("text")
    made["histories"] = made["histories"].remove_columns(["target", "negatives"])
    folder = write(tmp_path / "d", made)
    with pytest.raises(DataError, match="config 'items', split 'train' lacks the columns text; it has item_id, title"):
        contract.read(str(folder), "items", "train")
    with pytest.raises(DataError, match="lacks the columns target, negatives; it has user_id, history"):
        contract.read(str(folder), "histories", "train")


def test_an_item_without_text(tmp_path):
    folder = write(tmp_path / "d", {"items": {"train": catalogue("a", " ")}})
    with pytest.raises(DataError, match=r"Item 'i1' of .* has no text"):
        contract.texts(str(folder))


def test_an_item_with_two_texts(tmp_path):
    items = catalogue("a", "b", "c", "d")
    rows = [*items.to_list(), {"item_id": "i1", "title": "t1", "text": "another b"}]
    folder = write(tmp_path / "d", {"items": {"train": Dataset.from_list(rows, features=items.features)}})
    with pytest.raises(DataError, match=r"Item 'i1' of .* has several rows"):
        contract.texts(str(folder))


def test_items_that_cannot_be_read(tmp_path):
    folder = write(tmp_path / "d")
    next((folder / "items").iterdir()).write_bytes(b"no Parquet")
    with pytest.raises(DataError, match="config 'items': cannot read split 'train'"):
        contract.read_items(str(folder))


def test_an_id_that_the_catalogue_does_not_know():
    known = dict.fromkeys(("i0", "i1", "i2"))
    with pytest.raises(DataError, match="test, user 'u7': item 'i3' is not in the items config"):
        contract.check_ids(people("u7"), known, "test")
    contract.check_ids(people("u7"), {**known, "i3": None}, "test")


def test_the_shipped_sample_keeps_the_contract():
    texts = contract.texts("sample")
    for split in contract.SPLITS:
        contract.check_ids(contract.read("sample", "histories", split), texts, split)
    assert json.loads((ASSETS / "sample" / contract.PROVENANCE_FILE).read_text())["counts"]["users_kept"] == 1500


@pytest.mark.parametrize(("stated", "meant"), [("en", ("en",)), (["en", "de"], ("en", "de")), ([], ())])
def test_one_language_or_several(stated, meant):
    assert contract.Terms.of({"name": "mine", "language": stated}).language == meant


def test_a_dataset_that_is_nowhere_is_known_at_once(tmp_path):
    """No folder here, and no Hub that answers: nothing is tried again."""
    words = [sys.executable, "-m", "trsr", "check", "data/nothere"]
    given = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "hub_recipes"),
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "home"),
    }
    given |= {"HF_ENDPOINT": "http://127.0.0.1:9"}  # nobody listens there
    done = subprocess.run(words, env=given, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: No dataset 'data/nothere': no such folder here, and not read from the Hub: ")


def test_rows_without_a_value_are_told(tmp_path):
    known = contract.texts("sample")
    rows = contract.read("sample", "histories", "test").select(range(3)).to_list()
    for name in ("user_id", "history", "target", "negatives"):
        faulty = Dataset.from_list([*rows[:2], {**rows[2], name: None}], features=contract.HISTORIES)
        with pytest.raises(DataError, match=f"test, user .*: {name} has no value. See: trsr check"):
            contract.check_ids(faulty, known, "test")


@pytest.mark.parametrize(
    ("column", "value"),
    [("user_id", None), ("history", None), ("history", ["i0", None]), ("target", None), ("negatives", None)],
)
def test_a_null_is_told_with_its_row_and_column(tmp_path, column, value):
    made = tables(4)
    rows = made["histories"]["test"].to_list()
    rows[2][column] = value
    made["histories"]["test"] = Dataset.from_list(rows, features=contract.HISTORIES)
    folder = write(tmp_path / "d", made)
    expected = rf"config 'histories', split 'test', row 2 \(the first is 0\): {column} is null"
    with pytest.raises(DataError, match=expected):
        contract.read(str(folder), "histories", "test")
    assert len(contract.read(str(folder), "histories", "train")) == 4


def test_a_null_id_of_an_item_is_told_and_a_null_title_is_not(tmp_path):
    for column in ("title", "item_id"):
        rows = catalogue("a", "b").to_list()
        rows[1][column] = None
        items = Dataset.from_list(rows, features=contract.items_features(contract.ITEM_COLUMNS))
        folder = str(write(tmp_path / column, {"items": {"train": items}}))
        if column == "title":
            assert len(contract.texts(folder)) == 2
        else:
            with pytest.raises(DataError, match=r"split 'train', row 1 \(the first is 0\): item_id is null"):
                contract.texts(folder)


@pytest.mark.parametrize("rest", ["no Parquet", "no row"])
def test_a_split_that_cannot_be_read_is_named_whichever_is_wanted(tmp_path, rest):
    folder = write(tmp_path / "d")
    [path] = (folder / "histories").glob("validation-*")
    table = pq.read_table(path)
    if rest == "no Parquet":
        path.write_bytes(b"no Parquet")
    else:
        pq.write_table(table.slice(0, 0), path)
    card = folder / "README.md"
    _, header, body = card.read_text().split("---\n", 2)
    kept = {name: value for name, value in yaml.safe_load(header).items() if name != "dataset_info"}
    card.write_text(f"---\n{yaml.safe_dump(kept)}---\n{body}")
    cause = "Parquet magic bytes" if rest == "no Parquet" else "it is empty. Add rows to it"
    for split in contract.SPLITS:
        with pytest.raises(DataError, match=f"config 'histories': cannot read split 'validation': .*{cause}"):
            contract.read(str(folder), "histories", split)
    assert contract.texts(str(folder))
