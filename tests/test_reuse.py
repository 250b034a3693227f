"""Nothing on disk is taken for something else: what others made is left alone, what another setting made is not reused."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from bench import data, recommend
from tests import tiny
from tests.scripted import ScriptedEngine
from tests.test_compare import constant, evaluation
from tests.test_files import names
from tests.test_summaries import PATHS, contents, dataset, good, lines, longer
from trsr.cli import main
from trsr.dataset import contract
from trsr.errors import CompareError, DataError, ReleaseError, UsageError
from trsr.hub.inputs import ReleaseInputs
from trsr.hub.release import assemble
from trsr.pretrain.domain.train import train_domain
from trsr.pretrain.nano.base import pretrain
from trsr.pretrain.nano.summarizer import train_summarizer
from trsr.quickstart import quickstart
from trsr.recommender.compare.run import compare
from trsr.records.files import bind
from trsr.summaries.engines.make import engine
from trsr.summaries.ray import summarize_on_ray
from trsr.summaries.run import summarize_dataset


@pytest.fixture
def thesis(tmp_path):
    """A folder that has nothing to do with us."""
    (tmp_path / "thesis" / "pipeline").mkdir(parents=True)
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    (tmp_path / "thesis" / "pipeline" / "config.json").write_text('{"model_type": "llama"}')
    return tmp_path / "thesis"


def test_publish_leaves_a_folder_that_is_no_release(quickstarted, thesis, capsys):
    before = contents(thesis)
    with pytest.raises(SystemExit) as stop:
        main(["publish", str(quickstarted[0] / "runs" / "recurrent"), "--namespace", "ORG", "--out", str(thesis)])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said == f"error: {thesis} holds no release, so it is left as it is. Choose another --out, or empty it.\n"
    assert contents(thesis) == before


def test_a_release_is_replaced_and_what_lies_beside_its_repos_is_not_lost(quickstarted, tmp_path):
    run, folder = quickstarted[0] / "runs" / "recurrent", tmp_path / "release"
    shutil.copytree(quickstarted[0] / "release", folder)
    (folder / "adapter" / "old.json").write_text("{}")
    assemble(ReleaseInputs.read(run), folder)
    rehearsed = contents(quickstarted[0] / "release")
    del rehearsed["pipeline/expected.json"]  # what it answers is known once it was loaded
    assert contents(folder) == rehearsed
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ReleaseError, match=r"holds a release and notes.txt, which would be lost"):
        assemble(ReleaseInputs.read(run), folder)
    (tmp_path / "empty").mkdir()
    assemble(ReleaseInputs.read(run), tmp_path / "empty")
    assert contents(tmp_path / "empty") == rehearsed


@pytest.fixture
def source(tmp_path):
    return dataset(tmp_path / "source")


def test_summaries_of_another_dataset_are_not_replaced(tmp_path, source):
    out, asked = tmp_path / "a", ScriptedEngine(good)
    summarize_dataset(source, out, engine("extractive"))
    before = contents(out)
    grown = dataset(tmp_path / "grown", length=longer)
    with pytest.raises(DataError, match=r"a holds a dataset of other histories or items than '.*grown'"):
        summarize_dataset(grown, out, asked)
    retold = dataset(tmp_path / "retold", texts=lambda n: f"title: T{n}; genre: other")
    with pytest.raises(DataError, match="other histories or items"):
        summarize_dataset(retold, out, asked)
    named(tmp_path / "source", "books")
    named(out, "films")
    with pytest.raises(DataError, match=r"a holds the dataset 'films', not 'books'. Choose another --out"):
        summarize_dataset(source, out, asked)
    named(out, None)
    assert asked.asked == []
    assert contents(out) == before


@pytest.mark.parametrize(
    ("asked", "changes", "difference"),
    [
        (engine("extractive"), {}, "model was 'none', is None"),
        (ScriptedEngine(good), {"block_size": 4}, "block_size was 5, is 4"),
        (ScriptedEngine(good), {"max_blocks": 2, "since": "before"}, "max_blocks was 5, is 2"),
    ],
)
def test_finished_summaries_are_not_replaced_by_others(tmp_path, source, asked, changes, difference):
    out, part = tmp_path / "a", tmp_path / "part"
    summarize_dataset(source, out, ScriptedEngine(good))
    (out / contract.AUDIT).write_text("{}")
    before = contents(out)
    if "since" in changes:
        changes = {**changes, "since": str(tmp_path / "before")}
        summarize_dataset(source, tmp_path / "before", ScriptedEngine(good), max_blocks=2)
    with pytest.raises(DataError, match="made in another way, which would be lost: .*" + difference):
        summarize_dataset(source, out, asked, **changes)
    with pytest.raises(DataError, match="made in another way"):
        summarize_on_ray(source, out, lambda: engine("extractive"))
    assert contents(out) == before
    summarize_dataset(source, part, ScriptedEngine(good), limit=3)
    summarize_dataset(source, part, engine("extractive"))  # a trial may be replaced


def named(folder, name):
    record = folder / contract.PROVENANCE_FILE
    stated = {key: value for key, value in json.loads(record.read_text()).items() if key != "dataset"}
    record.write_text(json.dumps(stated | ({"dataset": {"name": name}} if name else {}), indent=2) + "\n")


def test_summaries_of_the_same_dataset_go_on(tmp_path, source):
    out = tmp_path / "a"
    made = summarize_dataset(source, out, ScriptedEngine(good), methods=("recurrent",))
    assert made["summaries"]["source"].startswith("sha256:")
    again = ScriptedEngine(good)
    summarize_dataset(source, out, again)  # another method; what is known is not asked
    assert 0 < len(again.asked) < sum(made["summaries"]["calls"].values()) * 2
    # The same rows in other files have another checksum.
    record = json.loads((out / contract.PROVENANCE_FILE).read_text())
    record["summaries"]["source"] = "sha256:0"
    (out / contract.PROVENANCE_FILE).write_text(json.dumps(record))
    summarize_dataset(source, out, ScriptedEngine(good))
    # Where they stand, they are continued, with more in the histories.
    grown = dataset(tmp_path / "grown", length=longer)
    summarize_dataset(grown, out, ScriptedEngine(good), since=str(out))
    summarize_dataset(str(out), out, engine("extractive"))


def test_a_dataset_without_summaries_does_not_replace_one_with_them(tmp_path, source):
    summarize_dataset(source, tmp_path / "a", engine("extractive"))
    before = contents(tmp_path / "a")
    with pytest.raises(DataError, match="a holds summaries, which would be lost"):
        dataset(tmp_path / "a")
    with pytest.raises(DataError, match="a holds a dataset, not generations"):
        summarize_dataset(source, tmp_path / "b", ScriptedEngine(good), export=tmp_path / "a")
    assert not (tmp_path / "b").exists()
    assert contents(tmp_path / "a") == before


def test_questions_do_not_replace_a_file_of_other_things(tmp_path):
    (tmp_path / "photos.parquet").write_text("a")
    shutil.copy(next(tiny.dataset(tmp_path / "data").glob("items/*.parquet")), tmp_path / "items.parquet")
    for name in ("photos.parquet", "items.parquet"):
        with pytest.raises(UsageError, match=r"exists and holds no questions of ours. Choose another --questions"):
            engine("vllm:org/model", questions=tmp_path / name)


def test_a_comparison_replaces_none_of_other_data(tmp_path):
    one = [evaluation(tmp_path / name, {name: constant}) for name in ("a", "b")]
    other = [evaluation(tmp_path / f"{name}2", {name: constant}, dataset="films") for name in ("a", "b")]
    for _ in range(2):
        compare(one, tmp_path / "out", plots=False)
    before = contents(tmp_path / "out")
    with pytest.raises(CompareError, match="holds another comparison: its dataset is tales, not films"):
        compare(other, tmp_path / "out", plots=False)
    assert contents(tmp_path / "out") == before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "comparison.md").write_text("mine")
    with pytest.raises(CompareError, match=r"holds a comparison.md that is of no comparison"):
        compare(one, tmp_path / "notes", plots=False)
    assert names(tmp_path / "notes") == ["comparison.md"]


SMALL = {"steps": 2, "rows": 2, "vocab_size": 400, "hidden": 32, "layers": 1, "heads": 1}


def test_a_domain_base_goes_on_with_its_own_dataset_and_settings_alone(tmp_path, thesis):
    a, b = (str(tiny.dataset(tmp_path / name, users=users)) for name, users in (("A", 12), ("B", 13)))
    for folder in (a, b):
        contract_says_blocks(tmp_path / folder)
    base = tmp_path / "base"
    train_domain(a, base, **SMALL)
    before = contents(base)
    with pytest.raises(UsageError, match=r"base-checkpoints was made from something else: dataset was sha256:"):
        train_domain(b, base, **SMALL)
    with pytest.raises(UsageError, match=r"something else: seed was 0, is 7. Choose another folder, or remove it"):
        train_domain(a, base, seed=7, **SMALL)
    assert contents(base) == before
    train_domain(a, base, **SMALL)  # what is done stays done
    with pytest.raises(UsageError, match=r"holds no model of trsr pretrain. Choose another --out"):
        train_domain(a, thesis, **SMALL)


def contract_says_blocks(folder):
    record = folder / contract.PROVENANCE_FILE
    record.write_text(json.dumps(json.loads(record.read_text()) | {"summaries": {"block_size": 7}}))


def test_nano_bases_and_adapters_go_on_with_their_own_settings_alone(tmp_path):
    bind(tmp_path / "base-checkpoints", {"model": "nano", "seed": 0, "steps": 1})
    with pytest.raises(UsageError, match="seed was 0, is 1; steps was 1, is 2"):
        pretrain(tmp_path / "base", seed=1, steps=2)
    with pytest.raises(UsageError, match=r"copying was None, is 2; .*; model was nano, is nano-summarizer"):
        train_summarizer(tmp_path / "base", steps=1, copying=2, size=2)


def test_a_quickstart_goes_on_with_its_own_settings_alone(quickstarted):
    out, before = quickstarted[0], contents(quickstarted[0])
    settings = {"source": str(out.parent / "sample"), "say": lambda line: None}
    with pytest.raises(UsageError, match=r"made from something else: seed was 0, is 7. Choose another folder"):
        quickstart(out, 7, **settings)
    with pytest.raises(UsageError, match=r"something else: train_users was [0-9]+, is 15"):
        quickstart(out, **settings, overrides=["train_users=15"])
    with pytest.raises(UsageError, match="something else: dataset was sha256:"):
        quickstart(out, **settings | {"source": "sample"})
    assert contents(out) == before


def test_a_bench_takes_up_only_what_its_own_settings_made(tmp_path, capsys):
    source = str(tiny.dataset(tmp_path / "data"))
    (tmp_path / "out" / "base").mkdir(parents=True)
    (tmp_path / "out" / "base" / "training.json").write_text("{}")
    words = [source, "--out", str(tmp_path / "out"), "--no-peers", "--set", "optim.max_steps=2"]
    assert recommend.main(words) == 2  # there is no base: this far it came
    assert "made from something else" not in capsys.readouterr().err
    assert recommend.main([*words, "seed=3"]) == 2
    assert "runs was made from something else: seed was 0, is 3." in capsys.readouterr().err
    shutil.rmtree(source)
    tiny.dataset(tmp_path / "data", users=13)
    assert recommend.main(words) == 2
    assert "something else: datasets was" in capsys.readouterr().err


def test_a_bench_of_data_makes_a_log_anew_that_a_killed_process_left_half_written(tmp_path, monkeypatch):
    def killed(folder, **options):
        folder.mkdir(exist_ok=True)
        (folder / "news.tsv").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "write_mind", killed)
    for cases in (["mind"], ["impressions"]):
        with pytest.raises(KeyboardInterrupt):
            data.run(tmp_path / "work", tmp_path, tmp_path / "data.json", cases=cases)
        assert [path.name for path in (tmp_path / "work").iterdir()] == ["made_from.json"]


def test_a_bench_of_data_removes_nothing_in_a_folder_of_others(thesis, tmp_path):
    (thesis / "dataset").mkdir()
    (thesis / "dataset" / "survey.csv").write_text("a")
    with pytest.raises(UsageError, match="thesis is not empty, and does not say what it was made from"):
        data.run(thesis, tmp_path, tmp_path / "data.json", cases=["mind"])
    assert (thesis / "dataset" / "survey.csv").exists()


SLOW = """
import asyncio, sys
from pathlib import Path
from tests.scripted import ScriptedEngine
from trsr.summaries.run import summarize_dataset
source, out, log, go = sys.argv[1:]
async def pause():
    while not Path(go).exists():
        await asyncio.sleep(0.01)
summarize_dataset(source, Path(out), ScriptedEngine(log=Path(log), pause=pause))
"""


def test_a_second_process_asks_nothing_and_the_first_one_ends_well(tmp_path, source):
    out, log, go = tmp_path / "out", tmp_path / "log", tmp_path / "go"
    first = subprocess.Popen(
        [sys.executable, "-c", SLOW, source, str(out), str(log), str(go)],
        env={**os.environ, "PYTHONPATH": PATHS},
        stderr=subprocess.DEVNULL,
    )
    while not lines(log) and first.poll() is None:
        time.sleep(0.01)
    second = ScriptedEngine()
    try:
        with pytest.raises(UsageError, match=f"Another process is writing {out}. Wait until it has ended"):
            summarize_dataset(source, out, second)
    finally:
        go.touch()
        assert first.wait() == 0
    assert second.asked == []
    assert len(lines(log)) == len(set(lines(log))) > 0
