"""Whole datasets: killed and rerun, continued, cached, estimated. Engines follow a script."""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict, load_dataset

from tests.hub import Hub, environment
from tests.scripted import ScriptedEngine, share, summary
from trsr.core.answer import Answer
from trsr.core.history import Item, blocks_by_count
from trsr.core.summarize import METHODS, summarize
from trsr.dataset import contract
from trsr.errors import DataError, EngineError, UsageError
from trsr.summaries.engines.extractive import ExtractiveSummarizer
from trsr.summaries.engines.make import engine
from trsr.summaries.estimate import Rates, estimate
from trsr.summaries.run import OpenQuestions, summarize_dataset
from trsr.summaries.store import Store

ROOT = Path(__file__).parent.parent
PATHS = os.pathsep.join([str(ROOT / "hub_recipes"), str(ROOT)])


def good(prompt, seed):
    return Answer(summary(prompt, seed), "stop", 10, 20)


def dataset(
    folder,
    users=40,
    length=lambda user: 3 + user % 23,
    texts=lambda n: f"title: T{n}; genre: g{n % 7}",
    seeds=500,
    items=500,
):
    """A dataset of users whose histories have so many items; after `seeds` users they begin again."""
    catalogue = [{"item_id": f"i{n}", "title": f"T{n}", "text": texts(n)} for n in range(items)]
    rows = [
        {
            "user_id": f"u{user}",
            "history": [f"i{n}" for n in random.Random(user % seeds).sample(range(items), 40)[: length(user)]],
            "target": "i1",
            "negatives": ["i2", "i3"],
        }
        for user in range(users)
    ]
    cuts = {
        "train": rows[: users // 2],
        "validation": rows[users // 2 : users * 3 // 4],
        "test": rows[users * 3 // 4 :],
    }
    tables = {
        "items": DatasetDict(
            train=Dataset.from_list(catalogue, features=contract.items_features(contract.ITEM_COLUMNS))
        ),
        "histories": DatasetDict(
            {name: Dataset.from_list(some, features=contract.HISTORIES) for name, some in cuts.items()}
        ),
    }
    contract.write(folder, tables, provenance={"script": "test"}, body="# Test")
    return str(folder)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def made(folder):
    return json.loads((folder / contract.PROVENANCE_FILE).read_text())["summaries"]


def rows(folder, method):
    return [row for split in contract.SPLITS for row in contract.read(str(folder), method, split)]


@pytest.fixture
def source(tmp_path):
    return dataset(tmp_path / "source")


def test_the_columns_are_what_the_strategies_say(tmp_path, source):
    summarize_dataset(source, tmp_path / "out", engine("extractive"))
    texts = contract.texts(source)
    for method in METHODS:
        found = rows(tmp_path / "out", method)
        histories = [blocks_by_count([Item.parse(texts[one]) for one in row["history"]]) for row in found]
        for row, trail in zip(found, summarize(histories, ExtractiveSummarizer(), method), strict=True):
            assert row["block_summaries"] == list(trail.block_summaries)
            assert row["summary"] == trail.summary
        assert load_dataset(str(tmp_path / "out"), method)["train"].features == contract.SUMMARIES
    assert not (tmp_path / "out.store.sqlite").exists()


def test_other_columns_of_the_histories_stay(tmp_path, source):
    tables = {"items": DatasetDict(train=contract.read(source, "items", "train")), "histories": DatasetDict()}
    for split in contract.SPLITS:
        some = contract.read(source, "histories", split)
        some = some.add_column("impression_id", [f"{split}-{n}" for n in range(len(some))])
        tables["histories"][split] = some.add_column("timestamps", [list(range(len(h))) for h in some["history"]])
    contract.write(tmp_path / "more", tables, provenance={"script": "test"}, body="# Test")
    summarize_dataset(str(tmp_path / "more"), tmp_path / "out", engine("extractive"))
    for method in METHODS:
        for split in contract.SPLITS:
            made = contract.read(str(tmp_path / "out"), method, split)
            assert made.column_names == [*contract.SUMMARIES, "impression_id", "timestamps"]
            for name in ("user_id", "impression_id", "timestamps"):
                assert made[name] == tables["histories"][split][name]


def test_a_part_of_users_at_a_time_is_the_same(tmp_path, source, monkeypatch):
    summarize_dataset(source, tmp_path / "a", ScriptedEngine())
    monkeypatch.setattr("trsr.summaries.run.PART", 7)
    monkeypatch.setattr("trsr.summaries.writer.PART", 3)
    summarize_dataset(source, tmp_path / "b", ScriptedEngine())
    for method in METHODS:
        assert rows(tmp_path / "a", method) == rows(tmp_path / "b", method)


def test_the_provenance_counts(tmp_path, source):
    scripted = ScriptedEngine()
    summarize_dataset(source, tmp_path / "out", scripted)
    told = made(tmp_path / "out")
    attempts = len(scripted.asked)
    assert told["asked"] == attempts == len(set(scripted.asked))
    assert told["tokens"]["prompt"] == 10 * attempts
    assert told["questions"] == len({key for key, _ in scripted.asked})
    assert told["questions"] + told["reused"] == sum(told["calls"].values())
    assert told["reused"] >= 40  # first blocks are shared by the methods
    assert told["retried"] == len({key for key, attempt in scripted.asked if attempt})
    assert told["fallen_back"]["refusal"] > 0
    assert told["engine"] == "scripted"
    assert told["sampling"] == {"do_sample": False, "max_new_tokens": 160, "seed": 0}
    assert told["prompts_sha256"]
    assert told["versions"]["llm-trsr"]


def test_in_a_notebook_whose_loop_runs(tmp_path, source):
    async def cell():
        return summarize_dataset(source, tmp_path / "there" / "out", ScriptedEngine())

    asyncio.run(cell())
    summarize_dataset(source, tmp_path / "here" / "out", ScriptedEngine())
    assert contents(tmp_path / "there" / "out") == contents(tmp_path / "here" / "out")

    async def failing():
        summarize_dataset(source, tmp_path / "third", ScriptedEngine(lambda prompt, seed: Answer("", "length")))

    with pytest.raises(EngineError, match="--max-new-tokens"):
        asyncio.run(failing())


def test_the_folder_may_be_the_one_one_stands_in(tmp_path, source, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    summarize_dataset(source, Path("."), ScriptedEngine(good))
    monkeypatch.chdir(tmp_path)
    assert (tmp_path / "here.store.sqlite").is_file()
    assert "\n# here\n" in (tmp_path / "here" / "README.md").read_text(encoding="utf-8")


def test_a_few_users_to_try(tmp_path, source):
    summarize_dataset(source, tmp_path / "out", ScriptedEngine(good), limit=3)
    assert [row["user_id"] for row in rows(tmp_path / "out", "recurrent")] == [
        f"u{n}" for n in (0, 1, 2, 20, 21, 22, 30, 31, 32)
    ]
    assert len(rows(tmp_path / "out", "histories")) == 9
    assert made(tmp_path / "out")["limit"] == 3
    scripted = ScriptedEngine(good)
    summarize_dataset(source, tmp_path / "out", scripted)  # the rest
    assert "limit" not in made(tmp_path / "out")
    assert len(rows(tmp_path / "out", "histories")) == 40
    questions = made(tmp_path / "out")["questions"]
    assert 0 < len(scripted.asked) < questions
    # Of a part, summaries anew are a part too; and no method's summaries vanish.
    part = tmp_path / "part"
    summarize_dataset(source, part, ScriptedEngine(good), limit=3)
    summarize_dataset(str(part), tmp_path / "anew", ScriptedEngine(good))
    assert made(tmp_path / "anew")["limit"] == 3
    with pytest.raises(DataError, match="holds hierarchical summaries, which would be lost"):
        summarize_dataset(str(part), part, ScriptedEngine(good), methods=("recurrent",))
    with pytest.raises(DataError, match="holds all users, which --limit would cut to 3 a split"):
        summarize_dataset(source, tmp_path / "out", ScriptedEngine(good), limit=3)
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        summarize_dataset(source, tmp_path / "more", ScriptedEngine(good), limit=-1)


def test_the_provenance_says_what_was_rejected_and_cleaned(tmp_path, source):
    def reasoned(prompt, seed):
        return Answer(f"<think>hm</think>{summary(prompt)}") if seed else Answer("<think>", "length")

    summarize_dataset(source, tmp_path / "out", ScriptedEngine(reasoned), keep_going=True)
    told = made(tmp_path / "out")
    assert told["rejected"] == {"only reasoning": told["questions"]}
    assert told["fallen_back"] == {}
    assert told["reasoning_removed"] == sum(told["calls"].values())


SCRIPT = """
import asyncio, sys
from pathlib import Path
from tests.scripted import ScriptedEngine
from trsr.summaries.run import summarize_dataset
source, out, log, store = sys.argv[1:]
summarize_dataset(source, Path(out), ScriptedEngine(workers=8, log=Path(log)), store=Path(store))
"""


def start(source, out, log, store):
    environment = {**os.environ, "PYTHONPATH": PATHS, "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-c", SCRIPT, source, str(out), str(log), str(store)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def lines(log):
    return log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize(("users", "kills", "seed"), [(150, 3, 0), pytest.param(2000, 20, 1, marks=pytest.mark.slow)])
def test_kill_9_loses_at_most_what_is_under_way(tmp_path, users, kills, seed):
    source, out, log = dataset(tmp_path / "source", users), tmp_path / "there" / "out", tmp_path / "log"
    store = tmp_path / "store.sqlite"
    summarize_dataset(source, tmp_path / "here" / "out", ScriptedEngine(workers=8, log=tmp_path / "unbroken"))
    whole = lines(tmp_path / "unbroken")
    moments = sorted(random.Random(seed).sample(range(1, len(whole) + 1), kills - 1)) + [len(whole)]
    killed = 0
    for moment in moments:
        process = start(source, out, log, store)
        # By file size, for a line has a fixed length: reading would be too slow to catch the moment.
        while process.poll() is None and (not log.exists() or log.stat().st_size < moment * len(whole[0] + "\n")):
            time.sleep(0.0005)
        process.kill()
        killed += process.wait() == -9
        again = len(lines(log)) - len(set(lines(log)))
        assert again <= 8 * killed
    assert killed >= kills - 1  # the last may come too late
    assert start(source, out, log, store).wait() == 0
    assert contents(out) == contents(tmp_path / "here" / "out")
    assert set(lines(log)) == set(whole)
    print(f"{killed} kills at {moments}: {len(whole)} requests, {len(lines(log)) - len(whole)} asked again")


def test_two_processes_at_once_share_a_store(tmp_path, source):
    store = tmp_path / "store.sqlite"
    both = [start(source, tmp_path / name / "out", tmp_path / f"{name}.log", store) for name in "ab"]
    assert [one.wait() for one in both] == [0, 0]
    assert contents(tmp_path / "a" / "out") == contents(tmp_path / "b" / "out")
    assert len(Store(store)) == len(set(lines(tmp_path / "a.log") + lines(tmp_path / "b.log")))


def longer(user):
    return 3 + user % 23 + (5 if user % 4 == 0 else 2 if user % 4 == 1 else 0)


@pytest.mark.parametrize("method", METHODS)
def test_new_interactions_cost_a_call_a_block(tmp_path, source, method):
    summarize_dataset(source, tmp_path / "before", ScriptedEngine(good), methods=(method,))
    grown = dataset(tmp_path / "grown", length=longer)
    scripted = ScriptedEngine(good)
    summarize_dataset(grown, tmp_path / "after", scripted, methods=(method,), since=str(tmp_path / "before"))
    expected = 0
    for user in range(40):
        old, new = 3 + user % 23, longer(user)
        if old != new:
            expected += -(-new // 5) - old // 5 + (method == "hierarchical")
    assert len(scripted.asked) == expected
    before = {row["user_id"]: row for row in rows(tmp_path / "before", method)}
    for row in rows(tmp_path / "after", method):
        old, user = before[row["user_id"]], int(row["user_id"][1:])
        full = min((3 + user % 23) // 5, 5)
        grew = -(-longer(user) // 5) - -(-(3 + user % 23) // 5)
        if user % 4 > 1:
            assert row == old
        elif -(-longer(user) // 5) <= 5:
            assert row["block_summaries"][:full] == old["block_summaries"][:full]
        assert len(row["block_summaries"]) == min(len(old["block_summaries"]) + grew, 5)
    assert made(tmp_path / "after")["since"]["users_unchanged"] == 20


def left_one_out(folder, grown=0):
    """A dataset of twelve users who stand in every split, each time with one item more; `grown` items later."""
    source = dataset(folder / "long", users=12, length=lambda user: 30)
    whole = [{**row, "history": row["history"][: 4 + 2 * n + grown]} for n, row in enumerate(rows(source, "histories"))]
    cuts = {
        split: [{**row, "history": row["history"][: len(row["history"]) - 2 + n]} for row in whole]
        for n, split in enumerate(contract.SPLITS)
    }
    tables = {
        "items": DatasetDict(train=contract.read(source, "items", "train")),
        "histories": DatasetDict(
            {split: Dataset.from_list(some, features=contract.HISTORIES) for split, some in cuts.items()}
        ),
    }
    contract.write(folder / "cut", tables, provenance={"script": "test"}, body="# Test")
    return str(folder / "cut")


@pytest.mark.parametrize("method", METHODS)
def test_a_user_in_several_splits_is_continued_from_the_row_of_the_same_history(tmp_path, method):
    source, before = left_one_out(tmp_path / "now"), tmp_path / "before"
    summarize_dataset(source, before, ScriptedEngine(good), methods=(method,))
    again = ScriptedEngine(good)
    summarize_dataset(source, tmp_path / "again", again, methods=(method,), since=str(before))
    assert again.asked == []
    assert made(tmp_path / "again")["since"]["users_unchanged"] == 36
    assert rows(tmp_path / "again", method) == rows(before, method)
    # An item later, the rows have moved by a split: those of train and validation are the earlier ones of the next split.
    later = ScriptedEngine(good)
    grown = left_one_out(tmp_path / "later", grown=1)
    summarize_dataset(grown, tmp_path / "after", later, methods=(method,), since=str(before))
    assert made(tmp_path / "after")["since"]["users_unchanged"] == 24
    assert 12 <= len(later.asked) <= 12 * (1 + (method == "hierarchical"))


def test_a_new_user_and_a_changed_text_are_asked_anew(tmp_path, source):
    summarize_dataset(source, tmp_path / "before", ScriptedEngine(good), methods=("recurrent",))
    changed = dataset(
        tmp_path / "changed", users=41, texts=lambda n: "title: new" if n == 0 else f"title: T{n}; genre: g{n % 7}"
    )
    scripted = ScriptedEngine(good)
    summarize_dataset(changed, tmp_path / "after", scripted, methods=("recurrent",), since=str(tmp_path / "before"))
    expected = -(-(3 + 40 % 23) // 5)  # the new user
    for row in rows(tmp_path / "before", "recurrent"):
        if "i0" in row["history"]:
            expected += -(-len(row["history"]) // 5) - row["history"].index("i0") // 5
    assert 0 < len(scripted.asked) == expected


def test_other_summaries_cannot_be_continued(tmp_path, source):
    summarize_dataset(source, tmp_path / "before", ScriptedEngine(good))
    for scripted, cut in ((ScriptedEngine(good, seed=1), 5), (ScriptedEngine(good), 4), (engine("extractive"), 5)):
        with pytest.raises(DataError, match=r"cannot be continued: .* was .*, is "):
            summarize_dataset(source, tmp_path / "after", scripted, block_size=cut, since=str(tmp_path / "before"))
    assert not (tmp_path / "after").exists()


def test_an_exported_cache_spares_every_call(tmp_path, source):
    summarize_dataset(source, tmp_path / "a", ScriptedEngine(), export=tmp_path / "cache")
    published = load_dataset(str(tmp_path / "cache"), "generations", split="train")
    assert "T1;" not in json.dumps(published.to_list())  # no text of items
    assert contents(tmp_path / "cache") == contents(tmp_path / "cache")
    scripted = ScriptedEngine()
    summarize_dataset(source, tmp_path / "b", scripted, caches=[str(tmp_path / "cache")])
    assert scripted.asked == []
    for method in METHODS:
        assert rows(tmp_path / "a", method) == rows(tmp_path / "b", method)
    told = made(tmp_path / "b")
    assert told["asked"] == 0
    assert told["imported"] == {"cache": told["questions"]}
    assert told["fallen_back"] == made(tmp_path / "a")["fallen_back"]


def test_a_dataset_of_summaries_is_a_cache_that_others_extend(tmp_path, source):
    summarize_dataset(source, tmp_path / "a", ScriptedEngine(good))
    wider = dataset(tmp_path / "wider", users=50)
    scripted = ScriptedEngine(good)
    summarize_dataset(wider, tmp_path / "b", scripted, caches=[str(tmp_path / "a")])
    new = sum(2 * (-(-(3 + user % 23) // 5)) for user in range(40, 50))  # twice the blocks, a merge, the first shared
    assert len(scripted.asked) == new
    summarize_dataset(wider, tmp_path / "c", ScriptedEngine(good))
    for method in METHODS:
        assert rows(tmp_path / "b", method) == rows(tmp_path / "c", method)


def test_a_cache_without_texts_whose_users_have_other_items(tmp_path, source, capsys):
    """The texts of items that are gone are nowhere: questions about them cannot be asked again."""
    wider = dataset(tmp_path / "wider", items=510)
    summarize_dataset(wider, tmp_path / "a", ScriptedEngine(good))
    tables = contract.tables(str(tmp_path / "a"))
    tables["items"] = DatasetDict(train=tables["items"]["train"].select_columns(["item_id"]))
    contract.write(tmp_path / "shared", tables, provenance=contract.provenance(str(tmp_path / "a")).values, body="# A")
    missing = {
        row["user_id"] for row in rows(wider, "histories") if {f"i{n}" for n in range(500, 510)} & {*row["history"]}
    }
    assert 0 < len(missing) < 40
    scripted = ScriptedEngine(good)
    summarize_dataset(source, tmp_path / "b", scripted, caches=[str(tmp_path / "shared")])
    assert (
        f"{len(missing)} users have items whose texts are neither in it nor in this dataset" in capsys.readouterr().err
    )
    assert made(tmp_path / "b")["imported"]["shared"] > 0


def test_a_cache_whose_summaries_are_not_one_a_block(tmp_path, source):
    summarize_dataset(source, tmp_path / "a", ScriptedEngine(good), methods=("recurrent",))
    tables = contract.tables(str(tmp_path / "a"))
    tables["recurrent"] = tables["recurrent"].map(lambda row: {"block_summaries": row["block_summaries"][1:]})
    contract.write(tmp_path / "cut", tables, provenance=contract.provenance(str(tmp_path / "a")).values, body="# A")
    with pytest.raises(DataError, match=r"recurrent, user 'u0': 0 block summaries of 1 blocks"):
        summarize_dataset(source, tmp_path / "b", ScriptedEngine(good), caches=[str(tmp_path / "cut")])


ON_THE_HUB = """
import sys
from pathlib import Path
from huggingface_hub import HfApi
from tests.scripted import ScriptedEngine
from tests.test_summaries import good
from trsr.summaries.run import summarize_dataset
folder, source = Path(sys.argv[1]), sys.argv[2]
for name in ("before", "cache"):
    HfApi().create_repo(f"ORG/{name}", repo_type="dataset")
    HfApi().upload_folder(repo_id=f"ORG/{name}", folder_path=folder / name, repo_type="dataset")
asked = []
for n, more in enumerate(({"caches": ["ORG/cache@main"]}, {"caches": ["ORG/before"]}, {"since": "ORG/before@main"})):
    engine = ScriptedEngine(good)
    summarize_dataset(source, folder / f"after-{n}", engine, **more)
    asked.append(len(engine.asked))
print("asked", asked)
"""


def test_what_is_on_the_hub_spares_every_call(tmp_path, source):
    summarize_dataset(source, tmp_path / "before", ScriptedEngine(good), export=tmp_path / "cache")
    with Hub() as hub:
        outside = environment(hub, tmp_path / "home") | {"PYTHONPATH": PATHS}
        done = subprocess.run(
            [sys.executable, "-c", ON_THE_HUB, str(tmp_path), source], env=outside, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "asked [0, 0, 0]" in done.stdout
    assert made(tmp_path / "after-0")["imported"].keys() == {"ORG/cache@main"}
    assert made(tmp_path / "after-2")["since"]["dataset"] == "ORG/before@main"
    for n in range(3):
        assert rows(tmp_path / f"after-{n}", "recurrent") == rows(tmp_path / "before", "recurrent")


def test_a_dataset_with_fallbacks_is_no_cache(tmp_path, source):
    summarize_dataset(source, tmp_path / "a", ScriptedEngine())
    with pytest.raises(DataError, match="not all written by its model"):
        summarize_dataset(source, tmp_path / "b", ScriptedEngine(), caches=[str(tmp_path / "a")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": "../x"}, "not in form"),
        ({"attempt": 99}, "not in form"),
        ({"attempt": -1}, "not in form"),
        ({"text": None}, "not in form"),
        ({"engine": "[]"}, "no JSON object"),
        ({"engine": "{"}, "no JSON object"),
    ],
)
def test_a_cache_that_is_not_in_form(tmp_path, source, change, message):
    row = {"key": "a" * 64, "attempt": 0, "text": "x", "finish_reason": "stop", "prompt_tokens": 1}
    row |= {"completion_tokens": 1, "engine": "{}"}
    Dataset.from_list([{**row, **change}]).to_parquet(tmp_path / "cache.parquet")
    with pytest.raises(DataError, match=message):
        summarize_dataset(source, tmp_path / "b", ScriptedEngine(), caches=[str(tmp_path / "cache.parquet")])


def test_a_file_that_is_no_cache(tmp_path, source):
    (tmp_path / "broken.parquet").write_text("PAR1, or not")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        summarize_dataset(source, tmp_path / "b", ScriptedEngine(), caches=[str(tmp_path / "broken.parquet")])
    Dataset.from_list([{"key": "x"}]).to_parquet(tmp_path / "cache.parquet")
    with pytest.raises(DataError, match="lacks the columns attempt, text"):
        summarize_dataset(source, tmp_path / "b", ScriptedEngine(), caches=[str(tmp_path / "cache.parquet")])


def test_what_comes_from_a_cache_is_judged_here(tmp_path, source):
    summarize_dataset(source, tmp_path / "a", ScriptedEngine(good), export=tmp_path / "cache")
    rows_ = load_dataset(str(tmp_path / "cache"), "generations", split="train").to_list()
    for row in rows_[:10]:
        row["text"] = "I'm sorry, I can't."
    Dataset.from_list(rows_).to_parquet(tmp_path / "forged.parquet")
    scripted = ScriptedEngine(good)
    summarize_dataset(source, tmp_path / "b", scripted, caches=[str(tmp_path / "forged.parquet")])
    assert {attempt for _, attempt in scripted.asked[:10]} >= {1}


def test_an_answer_from_a_cache_is_judged_with_its_question(tmp_path):
    """It says what an item says: only who knows the items of the question can see that."""

    def echoing(prompt, seed):
        items = [line for line in prompt.splitlines() if line.startswith("- title: ")]
        return Answer(
            items[0].removeprefix("- ") if items and share(prompt, 3) and seed == 0 else summary(prompt, seed)
        )

    source = dataset(tmp_path / "source", texts=lambda n: f"title: The {n} ships that never came home from sea")
    summarize_dataset(source, tmp_path / "a", ScriptedEngine(echoing), export=tmp_path / "cache")
    assert made(tmp_path / "a")["rejected"]["echo"] > 10
    scripted = ScriptedEngine(echoing)
    summarize_dataset(source, tmp_path / "b", scripted, caches=[str(tmp_path / "cache")])
    assert scripted.asked == []
    for method in METHODS:
        assert rows(tmp_path / "a", method) == rows(tmp_path / "b", method)
    assert made(tmp_path / "b")["rejected"] == made(tmp_path / "a")["rejected"]


@pytest.mark.parametrize("methods", [("recurrent",), ("hierarchical",), METHODS])
def test_the_estimate_is_what_is_asked(tmp_path, methods):
    source = dataset(tmp_path / "source", users=60, seeds=40)
    told = estimate(source, ScriptedEngine(), Rates(), methods=methods)
    scripted = ScriptedEngine(good)
    summarize_dataset(source, tmp_path / "out", scripted, methods=methods)
    assert told[" + ".join(methods)]["calls"] == len(scripted.asked)


def test_seconds_are_measured_on_a_few_questions(tmp_path, source, monkeypatch):
    clock, scripted = [0.0], ScriptedEngine(good)
    monkeypatch.setattr("trsr.summaries.estimate.time.perf_counter", lambda: clock[0])

    begun = Counter()

    def slow(prompt, seed):
        kind = prompt.partition("\n")[0]
        begun[kind] += 1
        # With the second question of a kind, a model is probed and the common prefix computed.
        clock[0] += 30.0 if begun[kind] <= 2 else 2.0
        return good(prompt, seed)

    scripted._answer = slow
    told = estimate(source, scripted, Rates(), methods=("recurrent",), measure=8)
    assert len(scripted.kinds) > 1
    assert len(scripted.asked) == 8 + 2 * len(scripted.kinds)
    assert len({key for key, _ in scripted.asked}) == 8
    for cost in told.values():
        assert cost["seconds"] == 2.0 * cost["calls"]
        assert cost["seconds_measured_on"] == 8
    given = estimate(source, scripted, Rates(calls_per_second=4), methods=("recurrent",), measure=8)["recurrent"]
    assert given["seconds"] == round(given["calls"] / 4, 1)
    assert len(scripted.asked) == 8 + 2 * len(scripted.kinds)


def test_the_estimate_knows_what_is_there_already(tmp_path, source):
    store, wider = tmp_path / "s.sqlite", dataset(tmp_path / "wider", users=50)
    summarize_dataset(source, tmp_path / "a", ScriptedEngine(good), store=store)
    before = len(Store(store))
    told = estimate(wider, ScriptedEngine(), Rates(), store=store)
    since = estimate(wider, ScriptedEngine(), Rates(), since=str(tmp_path / "a"))
    cache = estimate(wider, ScriptedEngine(), Rates(), caches=[str(tmp_path / "a")])
    assert len(Store(store)) == before
    scripted = ScriptedEngine(good)
    summarize_dataset(wider, tmp_path / "b", scripted, store=store)
    assert told["recurrent + hierarchical"]["calls"] == len(scripted.asked)
    assert since == cache == told


def test_time_and_money(source):
    rates = Rates(price_in=1.0, price_out=4.0, concurrency=10, latency=2.0)
    told = estimate(source, ScriptedEngine(), rates, methods=("recurrent",), answer_tokens=100, count=lambda text: 50)
    calls = told["recurrent"]["calls"]
    assert told["recurrent"] == {
        "calls": calls,
        "input_tokens": 50 * calls,
        "output_tokens": 100 * calls,
        "seconds": calls / 5,
        "price": round(calls * 450 / 1e6, 4),
    }
    assert estimate(source, ScriptedEngine(), Rates(), methods=("recurrent",))["recurrent"]["price"] is None
    with pytest.raises(ValueError, match="must not be negative"):
        Rates(price_in=-1)
    with pytest.raises(ValueError, match="all finite"):
        Rates(latency=float("nan"))


def test_questions_for_an_engine_elsewhere_and_their_answers(tmp_path, source):
    rounds = 0
    while True:
        away = engine("vllm:org/model", questions=tmp_path / "questions.parquet")
        caches = [str(path) for path in tmp_path.glob("answers-*.parquet")]
        try:
            summarize_dataset(source, tmp_path / "out", away, caches=caches)
            break
        except OpenQuestions:
            pass
        asked = Dataset.from_parquet(str(tmp_path / "questions.parquet"), cache_dir=str(tmp_path / f"c{rounds}"))
        assert set(asked["seed"]) <= {0, 1, 2}
        answered = [
            {
                "key": row["key"],
                "attempt": row["attempt"],
                "engine": row["engine"],
                "text": summary(row["prompt"]) if row["attempt"] or row["key"] > "1" else "",
                "finish_reason": "stop",
                "prompt_tokens": 10,
                "completion_tokens": 20,
            }
            for row in asked
        ]
        Dataset.from_list(answered).to_parquet(tmp_path / f"answers-{rounds}.parquet")
        assert not (tmp_path / "out").exists()
        rounds += 1
        assert rounds < 20
    assert rounds >= 5  # one a block
    assert not (tmp_path / "questions.parquet").exists()
    told = made(tmp_path / "out")
    assert told["engine"] == "vllm"
    assert told["imported"] == {}
    assert told["asked"] >= told["questions"]
    assert told["retried"] > 0


@pytest.mark.parametrize("user", [0, 30], ids=["before its first question", "midway"])
def test_a_run_that_fails_leaves_the_questions_of_the_run_before(tmp_path, source, user, monkeypatch):
    questions = tmp_path / "questions.parquet"
    with pytest.raises(OpenQuestions):
        summarize_dataset(source, tmp_path / "out", engine("vllm:org/model", questions=questions))
    before = questions.read_bytes()
    lengths = [5] * 40
    lengths[user] = 0
    broken = dataset(tmp_path / "broken", length=lengths.__getitem__)
    away = engine("vllm:org/model", questions=questions)
    away.batch = 4
    monkeypatch.setattr("trsr.summaries.scheduler.STARTED_AT_ONCE", 8)
    with pytest.raises(DataError, match=f"User 'u{user}' has no history"):
        summarize_dataset(broken, tmp_path / "out", away)
    assert questions.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if "questions" in path.name] == ["questions.parquet"]


@pytest.mark.parametrize(
    ("store", "questions", "export"),
    [
        ("out/store.sqlite", "q.parquet", None),
        ("out", "q.parquet", None),
        ("s.sqlite", "out/q.parquet", None),
        ("s.sqlite", "q.parquet", "out"),
        ("s.sqlite", "q.parquet", "out/cache"),
        ("s.sqlite", "q.parquet", "."),
        ("cache/s.sqlite", "q.parquet", "cache"),
    ],
)
def test_files_of_a_run_in_a_folder_that_it_replaces_are_refused_first(tmp_path, source, store, questions, export):
    away = engine("vllm:org/model", questions=tmp_path / questions)
    with pytest.raises(UsageError, match=r"^--(store|questions|export-cache|out) .* which is replaced as a whole"):
        summarize_dataset(source, tmp_path / "out", away, store=tmp_path / store, export=export and tmp_path / export)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_summaries_in_place_of_a_dataset_with_other_files_are_refused_first(tmp_path, source):
    (Path(source) / "notes.txt").write_text("kept")
    before, scripted = contents(Path(source)), ScriptedEngine()
    with pytest.raises(DataError, match=r"holds notes\.txt beside its dataset"):
        summarize_dataset(source, Path(source), scripted)
    assert contents(Path(source)) == before
    assert not scripted.asked


@pytest.mark.parametrize("numbers", [{"block_size": 0}, {"max_blocks": 0}, {"max_blocks": -1}, {"limit": -1}])
def test_numbers_out_of_their_range_are_refused_first(tmp_path, source, numbers):
    told = f"must (be at least 1|not be negative), got .*{next(iter(numbers.values()))}"
    with pytest.raises(UsageError, match=told):
        summarize_dataset(source, tmp_path / "out", engine("extractive"), **numbers)
    with pytest.raises(UsageError, match=told):
        estimate(source, ScriptedEngine(), Rates(), **numbers)
    with pytest.raises(UsageError, match="at least 1 token, got -5"):
        estimate(source, ScriptedEngine(), Rates(), answer_tokens=-5)


def test_a_user_without_history(tmp_path):
    source = dataset(tmp_path / "source", length=lambda user: user)
    with pytest.raises(DataError, match="User 'u0' has no history"):
        summarize_dataset(source, tmp_path / "out", ScriptedEngine())
    assert not (tmp_path / "out").exists()


def test_engines_that_keep_nothing_have_no_cache(tmp_path, source):
    with pytest.raises(DataError, match="keeps no generations"):
        summarize_dataset(source, tmp_path / "out", engine("extractive"), export=tmp_path / "cache")
