"""What the cards of a pushed release promise beyond their snippets: read by the Hub's library, and held against the repos."""

import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard, HfApi, ModelCard, SpaceCard
from packaging.requirements import Requirement
from transformers import pipeline

from tests.hub import environment
from tests.test_cards import body, header, made, sample
from trsr.hub import cards, licences
from trsr.hub.eval_results import FOLDER
from trsr.hub.spaces import METRICS
from trsr.records.requirements import ranges

ROOT = Path(__file__).parent.parent
CLASSES = {"model": ModelCard, "dataset": DatasetCard, "space": SpaceCard}
REPOS = [
    ("model", "trsr-nano"),
    ("dataset", "trsr-sample"),
    ("model", "trsr-sample-lora"),
    ("model", "trsr-sample"),
    ("space", "trsr-sample"),
    *(("space", name) for name in METRICS),
]
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


@pytest.fixture
def client(published, monkeypatch, tmp_path):
    hub = published[0]
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return HfApi(endpoint=hub.url, token="hf_test_writer")


def file_of(client, kind, name, path="README.md"):
    return Path(client.hf_hub_download(f"ORG/{name}", path, repo_type=kind)).read_text(encoding="utf-8")


@pytest.mark.parametrize(("kind", "name"), REPOS)
def test_every_card_is_what_the_library_takes(client, kind, name, monkeypatch):
    """Its own check asks the server, which here only looks for a header; so the fields are looked at as well."""
    text = file_of(client, kind, name)
    card = CLASSES[kind](text)
    with monkeypatch.context() as patched:
        patched.setattr(huggingface_hub.constants, "ENDPOINT", client.endpoint)
        card.validate()
    found = card.data.to_dict()
    assert licences.problem(found["license"], "--license", "it") is None
    assert "llm-trsr" in found["tags"]
    if kind == "space":
        assert (found["sdk"], found["app_file"]) == ("gradio", "app.py")
        assert {found["colorFrom"], found["colorTo"]} <= COLOURS
        assert len(found.get("short_description", "")) <= 60
    if kind == "dataset":
        told = DatasetInfosDict.from_dataset_card_data(card.data)
        assert set(told) == {one["config_name"] for one in found["configs"]}
        paths = {file["path"] for one in found["configs"] for file in one["data_files"]}
        assert paths == {path for path in client.list_repo_files(f"ORG/{name}", repo_type=kind) if "parquet" in path}
    if kind == "model" and name != "trsr-nano":
        assert {one.metric_type for one in card.data.eval_results} >= {"recall@3", "mrr@10"}
        assert any(path.startswith(FOLDER) for path in client.list_repo_files(f"ORG/{name}"))


WHOLE = sorted((ROOT / "tests" / "cards").glob("*.md"))


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.stem)
def test_every_kind_of_card_is_what_the_library_takes(client, path, monkeypatch):
    """Those that are compared as files: of forms that no release in these tests has, too."""
    text = path.read_text(encoding="utf-8")
    told = header(text)
    card = CLASSES["space" if "sdk" in told else "dataset" if "configs" in told else "model"](text)
    with monkeypatch.context() as patched:
        patched.setattr(huggingface_hub.constants, "ENDPOINT", client.endpoint)
        card.validate()
    found = card.data.to_dict()
    # What the library's class takes up it writes again: nothing is lost, and no key is empty.
    assert {name for name, value in told.items() if value in (None, [], "")} == set()
    assert found.keys() == told.keys()
    assert licences.problem(found["license"], "--license", "it") is None
    assert all(isinstance(tag, str) and len(tag) <= 50 for tag in found["tags"])
    assert found.get("base_model_relation", "adapter") in {"adapter", "merge", "quantized", "finetune"}
    if isinstance(card, ModelCard):
        assert {"library_name", "pipeline_tag", "base_model"} <= found.keys()


def test_what_a_space_downloads_beforehand_is_what_it_loads(client):
    lines = header(file_of(client, "space", "trsr-sample"))["preload_from_hub"]
    assert [line.split(" ")[0] for line in lines] == ["ORG/trsr-nano", "ORG/trsr-sample-lora", "ORG/trsr-sample"]
    pinned = json.loads(file_of(client, "model", "trsr-sample", "config.json"))["trsr"]
    shown = json.loads(file_of(client, "space", "trsr-sample", "recommender.json"))["revision"]
    assert [line.split(" ")[2] for line in lines] == [pinned["base_revision"], pinned["adapter_revision"], shown]
    for line in lines:
        repo, names, commit = line.split(" ")
        held = {path for path in client.list_repo_files(repo, revision=commit) if not path.endswith(".md")}
        # `expected.json` is for whoever verifies the release: nobody loads it.
        assert set(names.split(",")) == held - {".gitattributes", "expected.json"} - {
            path for path in held if path.startswith(FOLDER)
        }


@pytest.mark.parametrize(("change", "loads"), [({"restricted": True}, False), ({"files": {}}, False), ({}, True)])
def test_a_space_downloads_nothing_that_it_may_not(tmp_path, change, loads):
    text = cards.card("space", made(tmp_path, **change), {})
    assert ("preload_from_hub" in header(text)) == loads == ("while the Space is built" in body(text))


def test_the_ranges_are_those_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {one.name: one.specifier for one in map(Requirement, project["dependencies"])}
    found = ranges()
    assert {name: Requirement(f"{name}{bounds}").specifier for name, bounds in found.items()} == asked
    assert found["peft"] == ">=0.21,<1"


def test_training_again_from_the_card_gives_the_same_bytes(published, tmp_path):
    """The recipe on the card, with base and dataset from the Hub, on this machine and with these versions."""
    hub = published[0]
    ask = "import sys; from huggingface_hub import hf_hub_download as get; print(get('ORG/trsr-sample', 'README.md'))"
    given = environment(hub, tmp_path / "home", token=None) | {
        "PYTHONPATH": str(ROOT / "hub_recipes"), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""
    }  # fmt: skip
    got = subprocess.run([sys.executable, "-c", ask], env=given, capture_output=True, text=True, check=True)
    card = Path(got.stdout.strip()).read_text(encoding="utf-8")
    recipe = re.search(r"^```json\n(.*?)^```$", card, re.M | re.S)[1]
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    [words] = re.findall("^trsr (train .*)$", card, re.M)
    done = subprocess.run(
        [sys.executable, "-m", "trsr", *words.split()],
        env={**os.environ, **given}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    weights = (tmp_path / "runs" / "again" / "adapter" / "adapter_model.safetensors").read_bytes()
    [told] = re.findall(r"^`([0-9a-f]{64})`\.$", card, re.M)
    assert hashlib.sha256(weights).hexdigest() == told


def test_of_a_training_on_a_gpu_no_bytes_are_promised(tmp_path):
    facts = made(tmp_path)
    text = cards.card("pipeline", facts, {})
    assert "the second gives the same bytes" in text
    other = replace(facts, record={**facts.record, "device": "cuda"})
    assert "the second gives the same bytes" not in cards.card("pipeline", other, {})


# SKILL.md


def test_the_header_of_a_skill(tmp_path):
    text = cards.skill(sample(tmp_path), {})
    found = header(text)
    assert set(found) == {"name", "description", "license"}
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", found["name"])
    assert 0 < len(found["description"]) <= 1024
    assert len(text.splitlines()) < 100


@pytest.fixture(scope="module")
def nano():
    import trsr  # noqa: F401

    return pipeline("text-rich-recommendation", device="cpu")


GOOD = {"history": ["title: The Salt Lantern; genre: sea stories"], "candidates": ["title: Reef", {"title": "Oven"}]}


def test_a_skill_says_what_is_answered(nano, tmp_path):
    text = cards.skill(sample(tmp_path), {})
    answer = nano({**GOOD, "summary": "likes sea stories"}, return_summary=True, top_k=1)
    [first] = answer["candidates"]
    for name in (*first, *set(answer) - {"candidates"}, *GOOD, "top_k", "return_summary=True"):
        assert f"`{name}`" in text, name
    assert answer["summary"] == "likes sea stories"
    assert nano({**GOOD, "history": []})["candidates"]
    assert len(nano([GOOD, GOOD])) == 2
    for name in ("exclude", "where", "stage_one", "rank=False", "item_id", "not_in_catalogue"):
        assert f"`{name}`" not in text  # of a recommender with a catalogue


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"candidates": []}, ValueError),
        ({"history": []}, ValueError),
        ({**GOOD, "user": 1}, ValueError),
        ({**GOOD, "history": "title: Reef"}, TypeError),
        ({**GOOD, "candidates": [3]}, TypeError),
        ({**GOOD, "candidates": [""]}, ValueError),
        ({**GOOD, "candidates": [{}]}, ValueError),
    ],
)
def test_a_skill_says_what_goes_wrong(nano, request_, error):
    with pytest.raises(error):
        nano(request_)


def test_a_skill_says_what_is_empty_and_what_is_shortened(nano, tmp_path):
    assert nano({**GOOD, "candidates": []})["candidates"] == []
    long = {**GOOD, "summary": "sea " * 5000}
    assert set(nano(long)["shortened"]) == {"recent_items_dropped", "summary_words_dropped"}
