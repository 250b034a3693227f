"""The cards, rendered from records made by hand, so that no training run and no installed version changes them.

Whole cards stand in tests/cards/. After an intended change of a template, write them again and read what differs:

    TRSR_WRITE_CARDS=1 pytest tests/test_cards.py && git diff tests/cards
"""

import ast
import copy
import hashlib
import html
import json
import os
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import DatasetCard, HfApi, ModelCard, constants
from huggingface_hub.repocard_data import model_index_to_eval_results
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tests import tiny
from tests.hub import Hub
from tests.hub.server import WRITER
from trsr.core.prompts import RankingPrompt
from trsr.dataset import contract
from trsr.errors import DataError, HubError, ReleaseError, ResultsError, UsageError
from trsr.hub import cards, licences
from trsr.hub.copies import Copies
from trsr.hub.facts import Example, Facts
from trsr.hub.facts import gather as facts_of
from trsr.hub.repos import COPIES, LOCAL, name_repos
from trsr.recommender import results
from trsr.recommender.recipe import Recipe, build_recipe, load_recipe
from trsr.recommender.run import Run
from trsr.records.provenance import Provenance
from trsr.report import markdown, templates
from trsr.report.templates import render

CARDS = Path(__file__).parent / "cards"
KINDS = ("adapter", "pipeline", "dataset", "space", "recall_at_k", "mrr_at_k", "ndcg_at_k", *COPIES)
COMMITS = {"base": "b" * 40, "dataset": "d" * 40, "adapter": "a" * 40, "pipeline": "e" * 40}
RECIPE = Recipe("nano", "data/made", "recurrent", recent_items=3, max_tokens=1024)


def metrics(value: float) -> dict:
    """About `value`, another for each metric."""
    made = {name: round(value + place / 100, 2) for place, name in enumerate(results.REPORTED)}
    return {
        name: {"value": one, "low": round(one - 0.05, 2), "high": round(one + 0.05, 2)} for name, one in made.items()
    }


# Each record as its file holds it.
RECORDS = {
    "record": {
        "seed": 0,
        "base_revision": None,
        "data": {"config": "recurrent", "users": 1000, "rows": 2000, "tokens": 300_000, "shortened": 0},
        "steps": 125,
        "loss": 0.5,
        "seconds": 140.0,
        "device": "cpu",
        "versions": {
            "llm-trsr": "0.1.0",
            "torch": "2.9.0",
            "transformers": "5.23.0",
            "trl": "1.16.0",
            "peft": "0.21.0",
        },
    },
    "test": {
        "split": "test",
        "protocol": "1 positive and 20 uniform negatives a user",
        "run": "recurrent",
        "weights": hashlib.sha256(b"weights").hexdigest(),
        "dataset_checksums": {"items": "sha256:1", "histories": "sha256:2"},
        "seed": 0,
        "n_users": 1500,
        "candidates_a_user": 21,
        "systems": {"chance": metrics(0.1), "recent items only": metrics(0.3), "recurrent": metrics(0.5)},
        "paired": [
            {
                "metric": "recall@3",
                "system": "recurrent",
                "against": "recent items only",
                "difference": 0.2,
                "low": 0.1,
                "high": 0.3,
                "p_value": 0.0001,
                "p_holm": 0.0001,
            }
        ],
    },
    "fitted": {"value": 0.9, "bias": 0.25, "log_loss_before": 0.6, "log_loss_after": 0.5, "n_users": 150},
    "provenance": {
        "script": "dataset_scripts/sample.py",
        "seed": 0,
        "summaries": {
            "engine": "extractive",
            "methods": ["recurrent", "hierarchical"],
            "block_size": 5,
            "max_blocks": 5,
            "calls": {"recurrent": 6000, "hierarchical": 8000},
        },
    },
}
RANGES = {"torch": ">=2.9,<2.14", "transformers": ">=5.23,<5.40", "peft": ">=0.21,<1", "datasets": ">=5.1,<6"}
RANGES["evaluate"] = ">=0.4.6,<0.5"
_AUDITED = {
    "summaries": 1500,
    "words": {"median": 29.0, "p90": 33.0, "max": 35.0},
    "compression": {"median": 6.65, "p90": 8.59, "max": 10.76},
    "coverage": {"mean": 0.925, "summaries": 1490, "of_another": 0.113, "difference": 0.812, "low": 0.8, "high": 0.82},
    "unsupported": {
        **{"mean": 0.05, "summaries": 1500, "of_another": 0.684, "difference": -0.634, "low": -0.65, "high": -0.62},
        "over": 3,
    },
    "target_named": {"count": 4, "of_a_negative": 5, "difference": -0.0007, "low": -0.004, "high": 0.003},
    "near_copies": 2,
    "identical": 6,
    "problems": {"refusal": 7, "empty": 1},
    "instructions": {
        "summaries": 9,
        "copied": 1,
        "kinds": {"command": 9, "role": 0, "heading": 0, "token": 0},
    },
    "examples": {},
}
AUDIT = {
    "engine": "extractive",
    "limit": 0,
    "seed": 0,
    "items": {"count": 1500, "with_instructions": 2},
    "calls": 14_000,
    "fallen_back": {},
    "methods": {"recurrent": _AUDITED, "hierarchical": _AUDITED},
    "warnings": ["recurrent: 1 summaries repeat what an item's text orders."],
}
MODEL = {
    "engine": "transformers",
    "model": "Qwen/Qwen3-4B",
    "revision": "c" * 40,
    "sampling": {"do_sample": False, "max_new_tokens": 160},
    "prompts": {"block": "Summarise the preferences."},
}
MINE = contract.Terms("mine", "other", "Terms of My Shop", "https://example.com/terms", ("en", "de"), share_text=False)


def rows_and_configs(*methods: str, sft: bool = True) -> dict:
    """What the release's dataset folder holds, as `write_dataset` tells it."""
    sizes = {"train": 1000, "validation": 150, "test": 350}
    rows = {"items": {"train": 1500}, "histories": sizes, **dict.fromkeys(methods, sizes)}
    if sft:
        rows |= {f"{method}_sft": {split: 2 * size for split, size in sizes.items()} for method in methods}
    configs = [
        {
            "config_name": config,
            "data_files": [{"split": split, "path": f"{config}/{split}-00000-of-00001.parquet"} for split in splits],
        }
        for config, splits in rows.items()
    ]
    configs[min(2, len(configs) - 1)]["default"] = True
    features = [{"name": "user_id", "dtype": "string"}, {"name": "history", "list": "string"}]
    infos = [
        {
            "config_name": config,
            "features": features,
            "splits": [{"name": split, "num_bytes": 64, "num_examples": size} for split, size in splits.items()],
            "download_size": 16,
            "dataset_size": 64 * len(splits),
        }
        for config, splits in rows.items()
    ]
    return {"rows": rows, "header": {"dataset_info": infos, "configs": configs}}


def made(tmp_path: Path, records: dict = RECORDS, **changes) -> Facts:
    """The facts that records tell: of the sample's release, but for the changes."""
    path = tmp_path / results.RESULTS_FILE
    path.write_text(json.dumps(records["test"]), encoding="utf-8")
    plain = {
        "names": name_repos("ORG", "trsr-sample"),
        "recipe": RECIPE,
        "prompt": RankingPrompt(recent_items=3, max_tokens=1024),
        "terms": contract.Terms("sample", "apache-2.0", language=("en",)),
        "license": "apache-2.0",
        "base_revision": None,
        "dataset_revision": None,
        "has_decision_files": True,
        "copies": {"dtype": "float32", "gguf": ["trsr-sample-f16.gguf"]},
        "max_length": 2048,
        "ranges": RANGES,
        "files": {"base": ["model.safetensors"], "adapter": ["adapter_model.safetensors", "adapter_config.json"]},
        "printed": ("genre: sea stories x2", "u0 i1", "u1 i2"),
        **rows_and_configs("recurrent", "hierarchical"),
    }
    read = {"test": results.read(tmp_path), "provenance": Provenance(records["provenance"], "made")}
    return Facts(**{**plain, **records, **read, **changes})


def changed(place: str, **values) -> dict:
    """The records with other values at a place, such as `provenance.summaries`."""
    records = copy.deepcopy(RECORDS)
    into = records
    for key in place.split("."):
        into = into[key]
    into.update(values)
    return records


EXAMPLE = Example(
    {
        "history": ["title: The Salt Lantern; genre: sea stories", "title: Wind and `Sail`; genre: sea stories"],
        "candidates": ["title: Reef and Anchor; genre: sea stories", "title: 静かなオーブン; genre: baking"],
    },
    "genre: sea stories x2",
    ((0, 0.906), (1, 0.215)),
    0.176,
)


def sample(tmp_path):
    return made(tmp_path, example=EXAMPLE)


def of_a_hub_base(tmp_path):
    return made(
        tmp_path,
        changed("record", base_revision="f" * 40),
        names=name_repos("ORG", "trsr-goodbooks", base="Qwen/Qwen3-0.6B"),
        recipe=replace(RECIPE, base="Qwen/Qwen3-0.6B", base_revision="f" * 40),
        terms=contract.Terms("goodbooks", "cc-by-sa-4.0", language=("en",)),
        base_revision="f" * 40,
        has_decision_files=False,
        files={"adapter": ["adapter_model.safetensors"], "pipeline": ["config.json"]},
    )


def without_summaries(tmp_path):
    records = changed("record.data", config="histories")
    records["test"]["paired"] = []
    del records["provenance"]["summaries"]
    return made(tmp_path, records, recipe=replace(RECIPE, summary="none"), **rows_and_configs())


def restricted(tmp_path):
    records = changed("provenance.summaries", **MODEL)
    records["provenance"]["script"] = "dataset_scripts/tables.py"
    return made(
        tmp_path,
        records,
        terms=MINE,
        license="other",
        license_name="qwen-research",
        license_link="https://example.com/qwen",
        **rows_and_configs("recurrent", "hierarchical", sft=False),
    )


def audited(tmp_path):
    return made(tmp_path, audit=AUDIT)


def one_method_of_hub_data(tmp_path):
    return made(
        tmp_path,
        changed("record.data", config="hierarchical"),
        names=name_repos("ORG", "trsr-mine", base="Qwen/Qwen3-0.6B", dataset="alice/mine"),
        recipe=replace(RECIPE, summary="hierarchical"),
        dataset_revision="9" * 40,
        **rows_and_configs("hierarchical"),
    )


def with_catalogue(tmp_path):
    record = {"items": 1500, "weight": 2.0, "fitted": {"users": 200}, "shape": {"ids": 1500, "text_width": 384}}
    return made(tmp_path, example=EXAMPLE, catalogue=record)


def with_copies(tmp_path):
    """Rehearsed, in the precision of a base in bf16."""
    files = ["trsr-sample-f16.gguf", "trsr-sample-q8_0.gguf"]
    differences = {"cross-encoder": 4.1e-6, "merged": 0.0214, files[0]: 0.0216, files[1]: 0.0912}
    return made(
        tmp_path,
        names=name_repos("ORG", "trsr-sample", copies=COPIES),
        example=replace(EXAMPLE, log_odds=(2.0312, -1.1719)),
        copies={
            "dtype": "bfloat16",
            "gguf": files,
            "differences": differences,
            "shifts": {name: value / 2 for name, value in differences.items()},
            "candidates": 24,
        },
    )


VARIANTS = [
    sample,
    of_a_hub_base,
    without_summaries,
    restricted,
    audited,
    one_method_of_hub_data,
    with_catalogue,
    with_copies,
]
WHOLE = {
    "adapter.md": ("adapter", of_a_hub_base),
    "pipeline.md": ("pipeline", sample),
    "pipeline-without-summaries.md": ("pipeline", without_summaries),
    "pipeline-with-catalogue.md": ("pipeline", with_catalogue),
    "dataset.md": ("dataset", sample),
    "dataset-audited.md": ("dataset", audited),
    "dataset-restricted.md": ("dataset", restricted),
    "space.md": ("space", sample),
    "metric.md": ("recall_at_k", sample),
    "cross-encoder.md": ("cross-encoder", with_copies),
    "cross-encoder-without-summaries.md": ("cross-encoder", without_summaries),
    "merged.md": ("merged", with_copies),
    "gguf.md": ("gguf", with_copies),
}


def commits_of(facts):
    """As `pin` gives them."""
    known = {"base": facts.base_revision, "dataset": facts.dataset_revision}
    return {kind: known.get(kind) or commit for kind, commit in COMMITS.items()}


def card(kind, facts):
    return cards.card(kind, facts, commits_of(facts))


def header(text):
    head = text.split("\n---\n")[0].removeprefix("---\n")
    return yaml.load(head, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def body(text):
    return text.split("\n---\n", 1)[1]


def prose(text):
    """The body without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", body(text), flags=re.M | re.S)


every_card = pytest.mark.parametrize(("kind", "variant"), [(kind, one) for one in VARIANTS for kind in KINDS])


HOSTILE = "title: A\n```\n# owned {{ 7 * 7 }} <script>\x85\u202e"


def test_an_example_is_data(tmp_path):
    """Its snippet is Python that holds the very texts, and none of them ends the block."""
    example = Example(
        {"history": [HOSTILE], "candidates": [HOSTILE, "title: B"]}, "a ``` b {{ 7 * 7 }}", ((1, 0.5),), 0.5
    )
    catalogue = {"items": 3, "weight": 1.0, "fitted": None, "shape": {"ids": 0, "text_width": 384}}
    shown = card("pipeline", made(tmp_path, example=example, catalogue=catalogue))
    assert "Both stages read text alone." in shown
    first = re.findall(r"```python\n(.*?)\n```\n", shown, re.S)[0]
    [request] = [
        node.value for node in ast.parse(first).body if getattr(node, "targets", [ast.Name("")])[0].id == "request"
    ]
    assert ast.literal_eval(request) == example.request
    assert "\n````text\na ``` b {{ 7 * 7 }}\n[(1, 0.5)]\n````\n" in shown
    assert "\n# owned" not in shown
    assert "\x85" not in shown
    assert "\u202e" not in shown


@pytest.mark.parametrize(
    ("ids", "told"), [((3, 0), "the first stage knows texts and ids"), ((0, 0), "Both stages read text alone.")]
)
def test_a_catalogue_of_an_ensemble_knows_what_any_member_does(tmp_path, ids, told):
    shapes = [{"ids": ids[0], "text_width": 0 if ids[0] else 8}, {"ids": ids[1], "text_width": 8}]
    catalogue = {"items": 3, "weight": 1.0, "fitted": None, "shape": shapes}
    assert told in card("pipeline", made(tmp_path, example=EXAMPLE, catalogue=catalogue))


def test_a_cross_encoder_of_prompts_without_items_is_asked_without_them(tmp_path):
    """`history[-0:]` would be all of them."""
    shown = card("cross-encoder", made(tmp_path, prompt=RankingPrompt(recent_items=0), example=EXAMPLE))
    assert "says of a user: the preference summary.\n" in shown
    assert "history" not in "".join(re.findall(r"```python\n(.*?)```", shown, re.S))
    assert "recent" not in "".join(re.findall(r"```python\n(.*?)```", shown, re.S)).lower()


@pytest.mark.parametrize("name", WHOLE)
def test_whole_cards(tmp_path, name):
    kind, variant = WHOLE[name]
    found = card(kind, variant(tmp_path))
    if os.environ.get("TRSR_WRITE_CARDS"):
        CARDS.mkdir(exist_ok=True)
        (CARDS / name).write_text(found, encoding="utf-8")
    assert found == (CARDS / name).read_text(encoding="utf-8")


def test_every_whole_card_is_compared():
    assert {path.name for path in CARDS.iterdir()} == set(WHOLE)


@every_card
def test_cards_are_tidy_markdown(tmp_path, kind, variant):
    text = card(kind, variant(tmp_path))
    assert text.endswith("\n")
    assert "\n\n\n" not in text
    assert not text.endswith("\n\n")
    assert not re.search(r"[ \t]$", text, re.M)
    for word in ("None", "Undefined", "{{", "{%", "&#", "&lt;", "&amp;"):
        assert word not in text
    lines = body(text).splitlines()
    fenced = False
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("```"):
            # A fence stands apart from the text before it.
            assert fenced or not before
            fenced = not fenced
        elif fenced:
            continue
        elif line.startswith("|"):
            assert not before or before.startswith("|"), line
            if before:
                assert line.count("|") == before.count("|")
        elif line.startswith("* "):
            assert not before or before.startswith(("* ", "  ")), line
        elif before.startswith(("|", "```", "#")):
            assert not line, f"no blank line before {line!r}"
        if not fenced and not line.startswith("|") and " p = " not in line:
            # A link cannot be broken.
            assert len(re.sub(r"\(https?://[^)]*\)", "", line)) <= 120, line
    assert not fenced


@every_card
def test_examples_are_whole(tmp_path, kind, variant):
    text = card(kind, variant(tmp_path))
    for code in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S):
        ast.parse(code)
    for code in re.findall(r"^```json\n(.*?)^```$", text, re.M | re.S):
        json.loads(code)


@pytest.mark.parametrize("kind", ["adapter", "pipeline"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_header_of_a_model(tmp_path, kind, variant):
    facts = variant(tmp_path)
    text = card(kind, facts)
    found = header(text)
    assert ModelCard(text).data.to_dict() == found
    assert found["library_name"] == {"adapter": "peft", "pipeline": "transformers"}[kind]
    assert found["pipeline_tag"] == "text-ranking"
    assert found["base_model"] == facts.names.base
    assert found["base_model_relation"] == "adapter"
    assert found["datasets"] == [facts.names.dataset]
    assert found["language"] == list(facts.terms.language)
    assert found["license"] == facts.license
    assert found.get("license_name") == facts.license_name
    assert {"llm-trsr", "lora", "arxiv:2403.13325"} <= set(found["tags"])
    assert ("decision-model" in found["tags"]) == facts.has_decision_files
    name, evaluated = model_index_to_eval_results(found["model-index"])
    assert name == facts.names.repo(kind)
    own = RECORDS["test"]["systems"]["recurrent"]
    assert {one.metric_type for one in evaluated} == set(own)
    for one in evaluated:
        assert one.metric_value == own[one.metric_type]["value"]
        assert one.metric_args["low"] == own[one.metric_type]["low"]
        assert one.metric_args["high"] == own[one.metric_type]["high"]
        assert one.dataset_type == facts.names.dataset
        assert one.dataset_config == facts.record["data"]["config"]
        assert one.dataset_revision == (facts.dataset_revision or COMMITS["dataset"])


@pytest.mark.parametrize("variant", [sample, restricted, without_summaries])
def test_the_header_of_a_dataset(tmp_path, variant):
    facts = variant(tmp_path)
    text = card("dataset", facts)
    found = header(text)
    assert DatasetCard(text).data.to_dict() == found
    assert found["configs"] == facts.header["configs"]
    assert found["dataset_info"] == facts.header["dataset_info"]
    assert found["task_categories"] == ["text-ranking"]
    assert found["size_categories"] == [
        "10K<n<100K" if facts.terms.share_text and facts.recipe.summary != "none" else "1K<n<10K"
    ]
    assert found["language"] == list(facts.terms.language)
    assert found["license"] == facts.terms.license
    assert found.get("license_name") == facts.terms.license_name
    assert found.get("license_link") == facts.terms.license_link
    assert "share_text" not in found


@pytest.mark.parametrize(
    ("users", "size"),
    [
        (994, "n<1K"),
        (995, "1K<n<10K"),
        (99_994, "10K<n<100K"),
        (2_000_000, "1M<n<10M"),
        (10**9, "1B<n<10B"),
        (10**12, "n>1T"),
    ],
)
def test_the_size_of_a_dataset_is_that_of_its_rows(tmp_path, users, size):
    """In the words of the Hub, which knows no n>1M."""
    found = card("dataset", made(tmp_path, rows={"items": {"train": 5}, "histories": {"train": users}}))
    assert header(found)["size_categories"] == [size]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_header_of_a_space(tmp_path, variant):
    facts = variant(tmp_path)
    found = header(card("space", facts))
    assert found["sdk"] == "gradio"
    assert found["app_file"] == "app.py"
    assert found["models"] == [facts.names.pipeline, facts.names.adapter, facts.names.base]
    assert found["datasets"] == [facts.names.dataset]
    assert len(found["short_description"]) <= 60
    assert found.get("suggested_hardware") == ("cpu-basic" if "base" in facts.names.own else None)
    assert header(card("mrr_at_k", facts))["tags"][:2] == ["evaluate", "metric"]


@pytest.mark.parametrize("name", ["mine", "m" * 300, "<" * 300, "ü - \n" * 100])
def test_the_note_of_a_collection_is_short(tmp_path, name):
    note = render("collection", {"facts": made(tmp_path, terms=replace(MINE, name=name))})
    assert note.startswith("LLM-TRSR: ")
    assert len(note.strip()) <= 150
    assert len(note.splitlines()) == 1


def test_negatives_of_impressions_are_not_called_drawn(tmp_path):
    facts = made(tmp_path, changed("provenance", protocol={"split": "impressions"}))
    assert "not clicked in the same impression to rank it against" in prose(card("dataset", facts))
    assert "not clicked in the same impression: an item" in prose(card("dataset", facts))
    assert "20 items not clicked in the same impression, not against a whole" in prose(card("adapter", facts))
    for kind in ("dataset", "adapter", "pipeline"):
        assert "drawn" not in card(kind, facts)


def test_a_card_says_whether_users_stand_in_several_splits(tmp_path):
    one = "a user stands in one split only"
    for split in ("users", "given"):
        facts = made(tmp_path, changed("provenance", protocol={"split": split}))
        assert one in prose(card("dataset", facts))
    for split in ("leave-one-out", "date", "impressions"):
        text = prose(card("dataset", made(tmp_path, changed("provenance", protocol={"split": split}))))
        assert one not in text
        assert "splits" in text
    facts = made(tmp_path, changed("provenance", counts={"items_also_met": 3}))
    assert "The column `also_met` of `histories`" in prose(card("dataset", facts))
    assert "also_met" not in card("dataset", sample(tmp_path))


def test_data_are_called_made_up_by_their_script_and_not_by_their_name(tmp_path):
    made_up = "The catalogue and the users are made up by rules."
    assert made_up in card("dataset", made(tmp_path, terms=replace(MINE, name="books")))
    own = changed("provenance", script="dataset_scripts/tables.py")
    assert made_up not in card("dataset", made(tmp_path, own))


def test_a_base_is_called_nano_by_its_recipe_and_not_by_its_name(tmp_path):
    nano, own = "The base is a model of about a million parameters", replace(RECIPE, base="runs/trsr-nano")
    assert nano in card("adapter", sample(tmp_path))
    assert nano not in card("adapter", made(tmp_path, recipe=own))
    on_hub = {"names": name_repos("ORG", "mine", base="alice/trsr-nano"), "base_revision": "f" * 40}
    recipe = replace(RECIPE, base="alice/trsr-nano", base_revision="f" * 40)
    assert nano in card("adapter", made(tmp_path, changed("record", base_revision="f" * 40), recipe=recipe, **on_hub))


def test_a_card_says_what_its_release_holds(tmp_path):
    hub, none = of_a_hub_base(tmp_path), without_summaries(tmp_path)
    for kind in ("adapter", "pipeline"):
        text = card(kind, hub)
        assert f"| base | `Qwen/Qwen3-0.6B` at `{'f' * 40}` |" in text
        assert "about a million parameters" not in text
        assert 'pipeline("decision"' not in text
        assert 'pipeline("decision"' in card(kind, sample(tmp_path))
        assert "| summaries | none |" in card(kind, none)
        assert f"`transformers`, model `Qwen/Qwen3-4B` at `{'c' * 40}` |" in card(kind, restricted(tmp_path))
        assert "* Weights: qwen-research (<https://example.com/qwen>)." in card(kind, restricted(tmp_path))
    for kind in ("adapter", "pipeline", "space", "dataset"):
        assert "preference summary" not in card(kind, none)
    assert "return_summary" not in card("pipeline", none)
    assert "Paired" not in card("pipeline", none)
    own = card("dataset", restricted(tmp_path))
    assert "`item_id` alone" in own
    assert "_sft" not in own
    assert "greedy, at most 160 tokens a summary" in own
    assert "The source's own: Terms of My Shop (<https://example.com/terms>)." in own
    # Without the texts there is nothing to show the pipeline.
    assert "load_dataset(" not in card("pipeline", restricted(tmp_path))
    one = card("dataset", one_method_of_hub_data(tmp_path))
    assert '"hierarchical", split="test"' in one
    assert "recurrent_sft" not in one
    assert 'evaluate.load("ORG/recall_at_k")' in card("recall_at_k", one_method_of_hub_data(tmp_path))


def test_a_model_without_a_commit_is_named_without_one(tmp_path):
    text = card("adapter", made(tmp_path, changed("provenance.summaries", **{**MODEL, "revision": None})))
    assert "written by `transformers`, model `Qwen/Qwen3-4B` |" in text


def test_the_recipe_of_a_card_can_be_trained(tmp_path):
    facts = made(tmp_path, recipe=replace(RECIPE, yes="sí", no="<no> `n`"))
    shown = re.search(r"^```json\n(.*?)^```$", card("adapter", facts), re.M | re.S)[1]
    (tmp_path / "recipe.yaml").write_text(shown)
    assert load_recipe(str(tmp_path / "recipe.yaml")) == replace(
        facts.recipe,
        base="ORG/trsr-nano",
        base_revision=COMMITS["base"],
        dataset="ORG/trsr-sample",
        dataset_revision=COMMITS["dataset"],
    )


# Strictness: what a card shows is in the records, all of it.

SHOWN = {
    "adapter": """
        record.seed record.data record.data.config record.data.users record.data.rows record.data.tokens record.steps
        record.seconds record.device record.versions fitted.value fitted.bias fitted.n_users fitted.log_loss_before
        fitted.log_loss_after test.weights provenance.summaries provenance.summaries.engine provenance.summaries.model
        provenance.summaries.revision
    """,
    "dataset": """
        provenance.script provenance.seed provenance.summaries provenance.summaries.engine provenance.summaries.model
        provenance.summaries.revision provenance.summaries.sampling provenance.summaries.sampling.do_sample
        provenance.summaries.sampling.max_new_tokens provenance.summaries.block_size provenance.summaries.max_blocks
        provenance.summaries.calls provenance.summaries.calls.recurrent provenance.summaries.calls.hierarchical
    """,
    "test": """
        test.split test.protocol test.run test.seed test.n_users test.candidates_a_user test.systems test.paired
        test.systems.recurrent test.systems.recurrent.recall@10 test.systems.recurrent.auc
        test.systems.recurrent.recall@10.value test.systems.recurrent.auc.low test.systems.chance.mrr@10
        test.systems.chance.mrr@10.value test.systems.chance.mrr@10.low test.systems.chance.mrr@10.high
        test.paired.0.metric test.paired.0.system test.paired.0.against test.paired.0.difference test.paired.0.low
        test.paired.0.high
    """,
}
# Lists without a fixed length, whose entries may be fewer.
OPEN = ("test.systems.", "record.versions.")


def places(value, above=()):
    """The path of every entry of nested records."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(value, dict):
            yield (*above, key)
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*above, key))


def spoil(records, place, how):
    spoilt = copy.deepcopy(records)
    into = spoilt
    for key in place[:-1]:
        into = into[key]
    if how == "missing":
        del into[place[-1]]
    else:
        into[place[-1]] = None
    return spoilt


@pytest.mark.parametrize("how", ["missing", "null"])
@pytest.mark.parametrize("kind", ["adapter", "pipeline", "dataset"])
def test_a_card_without_a_value_is_not_rendered(tmp_path, kind, how):
    records = changed("provenance.summaries", **MODEL)
    whole = card(kind, made(tmp_path, records))
    failed = {}
    for place in (one for one in places(records) if len(one) > 1):
        name = ".".join(map(str, place))
        try:
            found = card(kind, made(tmp_path, spoil(records, place, how)))
        except (DataError, ReleaseError, ResultsError) as error:
            failed[name] = str(error)
        else:
            entry = any(name.startswith(start) and name.count(".") == start.count(".") for start in OPEN)
            commit = name.endswith("summaries.revision") and how == "null"
            assert entry or commit or found == whole, f"{name} is left out in silence"
    wanted = set((SHOWN["dataset" if kind == "dataset" else "adapter"] + SHOWN["test"]).split())
    assert wanted - set(failed) <= ({"provenance.summaries.revision"} if how == "null" else set())
    # The control: what no card shows is not asked for.
    assert not {"record.loss", "record.data.shortened", "test.systems.chance.auc"} & set(failed)
    if how == "missing":
        for name, message in failed.items():
            assert any(part in message for part in name.split(".")[1:]), (name, message)


@pytest.mark.parametrize(
    "name",
    """
        summaries words.median words.p90 compression.median coverage.mean coverage.of_another unsupported.mean
        unsupported.of_another unsupported.over target_named.count target_named.of_a_negative near_copies identical
        problems instructions.summaries instructions.copied
    """.split(),
)
def test_a_card_shows_the_whole_audit(tmp_path, name):
    place = ("methods", "recurrent", *name.split("."))
    with pytest.raises(ReleaseError, match=name.split(".")[-1]):
        card("dataset", made(tmp_path, audit=spoil(AUDIT, place, "missing")))


def test_warnings_of_an_audit_are_data(tmp_path):
    text = card("dataset", made(tmp_path, audit=AUDIT | {"warnings": ["a <script>\n# b"]}))
    assert "* Warning: a &lt;script> # b\n" in text


@pytest.mark.parametrize("kind", ["adapter", "pipeline", "dataset", "space"])
def test_no_field_of_the_facts_is_shown_as_none(tmp_path, kind):
    facts = made(tmp_path)
    for field in fields(facts):
        try:
            found = card(kind, replace(facts, **{field.name: None}))
        except (AttributeError, TypeError, ReleaseError):
            continue
        assert "None" not in found


def test_a_value_that_nobody_gave_is_named():
    with pytest.raises(ReleaseError, match=r"collection\.md has a value that is not known: 'facts' is undefined"):
        render("collection", {})


RESULTS_FAULTS = {
    "there is no system 'mine'": {"run": "mine"},
    "'chance' lacks recall@1, recall@3": {"systems": {**RECORDS["test"]["systems"], "chance": {}}},
    "'recurrent' lacks recall@10, ndcg@10, auc": {
        "systems": {"recurrent": {one: metrics(0.5)[one] for one in results.COLUMNS}}
    },
    "'recurrent' lacks auc": {
        "systems": {"recurrent": {**metrics(0.5), "auc": {"value": float("nan"), "low": 0.1, "high": 0.2}}}
    },
    "lacks split, n_users": {"split": None, "n_users": None},
    "lacks dataset_checksums": {"dataset_checksums": None},
    "a paired test lacks p_holm": {"paired": [{"system": "a", "against": "b", "p_value": 0.5}]},
    "the temperature lacks bias": {"temperature": {"value": 2.0}},
}


@pytest.mark.parametrize("message", RESULTS_FAULTS)
def test_results_that_lack_something_are_not_read(tmp_path, message):
    path = tmp_path / results.RESULTS_FILE
    path.write_text(json.dumps(RECORDS["test"] | RESULTS_FAULTS[message]))
    with pytest.raises(ResultsError, match=message):
        results.read(tmp_path)


def test_results_that_are_not_there_are_asked_for(tmp_path):
    with pytest.raises(ResultsError, match="trsr evaluate RUN --split validation"):
        results.read(tmp_path / "validation")


# No number but those of the records: with all of them changed, none of the old ones is left.

# The paper and its year, the interval's level, and what stands in examples.
FIXED = set("2403.13325 2024 95 0.95 0 2 3 4 10 16 32 64 14".split())


def counted(value, start: int, share: float, number: list[int]):
    """The value with all numbers in it replaced, no two alike: whole ones from `start`, fractions from `share`."""
    if isinstance(value, dict):
        return {key: counted(one, start, share, number) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [counted(one, start, share, number) for one in value]
    number[0] += 1
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, float):
        return round(share + 0.0013 * number[0], 4)
    if isinstance(value, int):
        return start + 7 * number[0]
    return re.sub(r"\d+", lambda _: str(start + 7 * number[0]), value)


def numbered(tmp_path, start, share):
    number = [0]
    records = counted(changed("provenance.summaries", **MODEL), start, share, number)
    terms = MINE.to_dict() | {"license_link": "https://example.com/1", "share_text": True}
    recipe = counted(RECIPE.to_dict(), start, share, number) | {
        "base": "nano",
        "dataset": "made",
        "form": "shared-prefix",  # the form in which every field counts
    }
    return made(
        tmp_path,
        records,
        recipe=build_recipe(recipe),
        terms=contract.Terms(**counted(terms, start, share, number)),
        **counted(rows_and_configs("recurrent", "hierarchical"), start, share, number),
        printed=counted(("u1 i1",), start, share, number),
        max_length=start,
        ranges=counted(RANGES, start, share, number),
    )


def numbers(text):
    shown = re.sub(r"\b([a-f])\1{39}\b|@\d+|\d+(?:K|M)\b|sdk_version.*|\d+-of-\d+|[Aa]pache-2.0|SHA-256", "", text)
    return {one.replace(",", "").rstrip(".") for one in re.findall(r"(?<![A-Za-z\d])\d[\d.,]*", shown)} - FIXED


def left(tmp_path, kind):
    one, other = (numbers(card(kind, numbered(tmp_path, *at))) for at in ((110_000, 0.1), (770_000, 0.5)))
    assert kind in ("space", "recall_at_k") or len(one) > 40
    return one & other


@pytest.mark.parametrize("kind", ["adapter", "pipeline", "dataset", "space"])
def test_every_number_comes_from_the_records(tmp_path, kind):
    assert left(tmp_path, kind) == set()


@pytest.mark.parametrize("planted", ["0.551", "1,000 users"])
def test_a_number_that_stands_in_a_template_would_be_seen(tmp_path, monkeypatch, planted):
    shutil.copytree(templates._FOLDERS[1], tmp_path / "model_cards")
    part = tmp_path / "model_cards" / "parts" / "results.md"
    part.write_text(part.read_text().replace("Ties count half.", f"Ties count half. {planted}"))
    monkeypatch.setattr(templates, "_FOLDERS", [tmp_path / "model_cards"])
    monkeypatch.setattr(templates, "_environment", templates._environment.__wrapped__)  # not the one that is kept
    assert left(tmp_path, "pipeline") == {planted.split()[0].replace(",", "")}


# Values are data.

NASTY = [
    "a\n---\nb: 1",
    "---",
    "...",
    "tags: [x]",
    "x\ntags: [x]\nlicense: mit",
    "- a\n- b",
    "# A heading",
    "x\n# A heading\n\n## Another",
    "x\n===\n",
    "`code` ``code``",
    "```\nfence",
    "~~~",
    "x\n~~~\n",
    "{{ 77*77 }}",
    "{% include 'parts/citation.md' %}",
    "{# a comment #}",
    "${77*77}",
    "<script>alert(1)</script>",
    "</details><script>",
    "<!-- hidden",
    "[x](javascript:alert(1))",
    "![x](https://example.com/pixel.png)",
    "[x]: https://example.com",
    "a | b | c",
    "a\\",
    "&lt;script&gt; &#60;script&#62;",
    "a\u2028---\u2028b\u2029c\x85d",
    "null\x00byte\x1b[31m",
    "\u202egnp.exe \u200b\ufeff \U000e0041",
    "\ud800",
    "'\"; : , &anchor *alias !tag %directive @x",
    "1. one",
    "> quoted",
    "*bold* _slanted_",
    "~~struck~~ ~out~",
    "see https://evil.example/x?y=1, HTTP://evil.example or ftp://evil.example",
    "see www.evil.example/x or WWW.evil.example",
    "me.too@evil.example _me_@evil.example mailto:me@evil.example",
    "null",
    "~",
    "yes",
    "2024-01-01",
    "    indented",
    "é日本🙂",
]


def poisoned(tmp_path, text):
    """Facts with `text` wherever a value is free text."""
    records = changed("provenance", script=text)
    records["provenance"]["summaries"] |= {**MODEL, "engine": text, "model": text, "revision": text}
    records["test"] |= {"protocol": text, "split": text, "run": text}
    records["test"]["systems"] = {"chance": metrics(0.1), f"{text} only": metrics(0.3), text: metrics(0.5)}
    records["test"]["paired"][0] |= {"system": text, "against": text, "metric": text}
    records["record"] |= {"device": text, "versions": {text: text}}
    records["record"]["data"]["config"] = text
    return made(
        tmp_path,
        records,
        recipe=replace(RECIPE, name=text, yes=f"yes {text}", no=f"no {text}"),
        prompt=RankingPrompt(yes=f"yes {text}", no=f"no {text}"),
        terms=replace(MINE, name=text, license_name=text, license_link=text, share_text=True),
        license_name=text,
        license_link=text,
    )


def keys(value):
    """A header without its values."""
    if isinstance(value, dict):
        return {key: keys(one) for key, one in value.items()}
    return [keys(one) for one in value] if isinstance(value, list) else None


ADDRESS = re.compile(r"(?:https?|ftp)://|www\.|[\w.+-]@[\w-]+\.\w", re.IGNORECASE)


def skeleton(text):
    """What Markdown makes of the lines of a card: headings, fences, rules, and how each line opens."""
    lines = body(text).split("\n")
    opens = [re.match(r"\s*(#+ .*|`{3,}\w*|~{3,}|[*+-] |\d+[.)] |>|\||=+$|-+$|<\w*|\[|$)?", one)[0] for one in lines]
    return opens, [line.count("|") for line in lines if line.startswith("|")], body(text).count("`")


@pytest.fixture(scope="module")
def benign(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benign")
    return {kind: card(kind, poisoned(folder, "benign")) for kind in ("adapter", "pipeline", "dataset", "space")}


def elements(text):
    """What a parser of Markdown makes of a card, but for its words."""
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(body(text)):
        yield token.type, token.tag
        for child in token.children or ():
            if child.type not in ("text", "softbreak", "text_special"):
                yield child.type, child.attrGet("href")


def check_harmless(tmp_path, benign, text):
    """That cards with `text` for values differ in nothing but these values; and so does a table of systems."""
    facts = poisoned(tmp_path, text)
    shown = {kind: card(kind, facts) for kind in benign}
    for kind, plain in benign.items():
        found = shown[kind]
        for line_break in "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029\x00":
            assert line_break not in found
        assert keys(header(found)) == keys(header(plain))
        assert skeleton(found) == skeleton(plain)
        for one in ("[x]", "![", "{{", "{%", "{#", "\\"):
            assert one not in prose(found)
        for one in ("<script", "</details>", "<!--"):
            assert body(found).count(one) == plain.count(one)
        # GitHub's Markdown links addresses wherever they stand, some renderers also those that entities make up.
        for shown_as in (prose, lambda text: html.unescape(prose(text))):
            assert len(ADDRESS.findall(shown_as(found))) == len(ADDRESS.findall(shown_as(plain)))
        if kind in ("adapter", "dataset"):
            assert list(elements(found)) == list(elements(plain))
        assert "5929" not in found or "5929" in text
    name = header(shown["adapter"])["model-index"][0]["results"][0]["dataset"]["name"]
    assert isinstance(name, str)
    assert header(shown["dataset"]).get("license_name", "") == name
    lines = results.table({f"x{text}": metrics(0.5), "b": metrics(0.1)}).split("\n")
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {6}
    assert not re.search(r"[<`\[{]", lines[2])


@pytest.mark.parametrize("text", NASTY, ids=ascii)
def test_values_are_only_shown(tmp_path, benign, text):
    check_harmless(tmp_path, benign, text)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.lists(st.sampled_from(NASTY) | st.text(max_size=5), min_size=1, max_size=4).map("\n".join))
def test_values_are_only_shown_whatever_they_hold(tmp_path, benign, text):
    check_harmless(tmp_path, benign, f"x{text}")


@pytest.mark.parametrize("text", ["~5 of 10: a/b, c:d //e www x@y me@home AT&T", "書籍 🙂 #1 (https) wwwhat."])
def test_ordinary_text_is_shown_as_it_is(text):
    shown = markdown.plain(text)
    assert html.unescape(shown) == text
    assert shown.replace("&#126;", "~") == text


def test_dollars_set_no_mathematics():
    shown = markdown.plain("$x$ costs $$5$$")
    assert "$" not in shown
    assert html.unescape(shown) == "$x$ costs $$5$$"


def test_an_address_is_shown_as_it_is_and_links_where_it_is_meant_to():
    address = "https://www.example.com/me@home.example?x=1"
    assert html.unescape(markdown.plain(address)).replace("\u2060", "") == address
    assert markdown.link(address) == f"<{address}>"
    for other in ("javascript:alert(1)", "https://x>y", "https://x y", "https://x\x1b[31m"):
        assert not isinstance(markdown.link(other), markdown.Markdown)


def test_markup_that_got_through_would_be_seen(tmp_path, benign, monkeypatch):
    monkeypatch.setattr(templates, "plain", lambda text: text)
    with pytest.raises(AssertionError):
        check_harmless(tmp_path, benign, "x\n# A heading")
    with pytest.raises(AssertionError):
        check_harmless(tmp_path, benign, "<script>alert(1)</script>")


def test_values_that_are_no_text_are_shown_as_text(tmp_path):
    text = card("dataset", made(tmp_path, changed("provenance", seed=["<script>", {"a": "`|"}])))
    assert "<script>" not in text
    assert "| seed | &#91;'&lt;script>', &#123;'a': ''&#124;'}] |" in text


# What `gather` asks for.

WEIGHTS = hashlib.sha256(b"weights").hexdigest()
CHECKSUMS = RECORDS["test"]["dataset_checksums"]


@pytest.fixture
def run(tmp_path):
    """A finished run: its record and its results."""
    run = tmp_path / "run"
    (run / "adapter").mkdir(parents=True)
    (run / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    for split in ("validation", "test"):
        (run / split).mkdir(parents=True)
        found = RECORDS["test"] | {"split": split, "temperature": RECORDS["fitted"]}
        (run / split / results.RESULTS_FILE).write_text(json.dumps(found))
    (run / "run.json").write_text(json.dumps(RECORDS["record"]))
    return run


def dataset(folder, **provenance):
    folder.mkdir()
    (folder / contract.PROVENANCE_FILE).write_text(json.dumps(provenance))
    return str(folder)


def base(folder, head):
    folder.mkdir()
    (folder / "README.md").write_text(head)
    return str(folder)


def gather(run, recipe, terms, names=None, license=None, weights=WEIGHTS):
    record = json.loads((run / "run.json").read_text())
    finished = Run(run, recipe, record, weights, CHECKSUMS)
    inputs = tiny.release_inputs(finished, finished.results("test"), finished.results("validation"))
    return facts_of(inputs, names or name_repos("ORG", "mine"), terms, license)


def test_gather_reads_the_records(run, tmp_path):
    recipe = replace(RECIPE, dataset=dataset(tmp_path / "made", **RECORDS["provenance"]))
    facts = gather(run, recipe, MINE)
    assert facts.license == "apache-2.0"  # the nano base's
    assert facts.record == RECORDS["record"]
    assert facts.fitted == RECORDS["fitted"]
    assert facts.provenance.values == RECORDS["provenance"]
    assert facts.test.systems == RECORDS["test"]["systems"]
    assert facts.base_revision is None
    assert gather(run, recipe, MINE, license="mit").license == "mit"


def test_gather_takes_the_licence_of_the_base(run, tmp_path):
    head = "---\nlicense: other\nlicense_name: qwen-research\nlicense_link: LICENSE\n---\n"
    recipe = replace(
        RECIPE, base=base(tmp_path / "base", head), dataset=dataset(tmp_path / "made", **RECORDS["provenance"])
    )
    facts = gather(run, recipe, MINE)
    assert (facts.license, facts.license_name, facts.license_link) == ("other", "qwen-research", "LICENSE")
    assert gather(run, recipe, MINE, license="mit").license_name is None


def test_a_licence_may_stand_in_a_list(run, tmp_path):
    made = dataset(tmp_path / "made", **RECORDS["provenance"])
    one = replace(RECIPE, base=base(tmp_path / "one", "---\nlicense: [mit]\n---\n"), dataset=made)
    assert gather(run, one, MINE).license == "mit"
    Copies(merged=True).check_licence(lambda: licences.of_base(one.base)["license"], one.base, False)
    two = replace(RECIPE, base=base(tmp_path / "two", "---\nlicense: [mit, gemma]\n---\n"), dataset=made)
    with pytest.raises(
        ReleaseError, match=r"The licence 'mit, gemma' of the weights is none that the Hub knows.*--license"
    ):
        gather(run, two, MINE)
    with pytest.raises(ReleaseError, match=r"mit, gemma.*--accept-base-licence"):
        Copies(merged=True).check_licence(lambda: licences.of_base(two.base)["license"], two.base, False)


def test_a_card_that_is_out_of_reach_is_not_one_without_a_licence(run, tmp_path):
    recipe = replace(RECIPE, base="ORG/base", dataset=dataset(tmp_path / "made", **RECORDS["provenance"]))
    with pytest.raises(
        ReleaseError, match="card of the base ORG/base is out of reach, so its licence is not known"
    ) as told:
        gather(run, recipe, MINE)  # tests are offline
    assert "states no licence" not in str(told.value)
    assert gather(run, recipe, MINE, license="mit").license == "mit"
    assert gather(run, recipe, MINE, names=LOCAL).license == "other"  # nothing is published


def test_a_base_with_a_broken_header_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"header of .*README.md is no YAML"):
        licences.of_base(str(base(tmp_path / "base", "---\nlicense: [mit\n---\n")))


def test_a_base_on_the_hub_without_a_card_states_no_licence(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with Hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        HfApi(endpoint=hub.url, token=WRITER).create_repo("ORG/bare")
        assert licences.of_base("ORG/bare")["license"] is None
        with pytest.raises(HubError, match="Read the card of ORG/none: the Hub answered 40"):
            licences.of_base("ORG/none")


def test_gather_tells_all_problems_at_once(run, tmp_path):
    recipe = replace(RECIPE, base=base(tmp_path / "base", "# No header"), dataset=dataset(tmp_path / "made"))
    (run / "validation" / results.RESULTS_FILE).write_text(json.dumps(RECORDS["test"]))
    terms = contract.Terms("mine", license_link="javascript:alert(1)")
    with pytest.raises(ReleaseError) as error:
        gather(run, recipe, terms)
    lines = str(error.value).splitlines()
    for place, part in enumerate(
        ["--license", "--data-license", "--language", "no web address", "what wrote its summaries", "No temperature"]
    ):
        assert part in lines[place]
    assert len(lines) == 6
    # A folder that stays on one machine needs no terms.
    facts = gather(run, recipe, terms, LOCAL)
    assert facts.fitted is None
    assert facts.license == "other"


@pytest.mark.parametrize(
    ("code", "hint"), [("en-GB", "Did you mean en?"), ("EN", "Did you mean en?"), ("english", ""), ("e n", "")]
)
def test_languages_that_the_hub_does_not_take(run, tmp_path, code, hint):
    recipe = replace(RECIPE, dataset=dataset(tmp_path / "made", **RECORDS["provenance"]))
    with pytest.raises(ReleaseError) as error:
        gather(run, recipe, replace(MINE, language=("de", code)), license="mit")
    assert str(error.value).startswith(f"The language {code!r} of the items is none that the Hub takes.")
    assert hint in str(error.value)
    gather(run, recipe, replace(MINE, language=("de", "gsw", "code", "multilingual")), license="mit")


@pytest.mark.parametrize(
    ("licence", "hint"), [("apache2", "Did you mean apache-2.0"), ("MIT", "mit"), ("proprietary", "that the Hub knows")]
)
def test_licences_that_the_hub_does_not_know(run, tmp_path, licence, hint):
    recipe = replace(RECIPE, dataset=dataset(tmp_path / "made", **RECORDS["provenance"]))
    with pytest.raises(ReleaseError) as error:
        gather(run, recipe, replace(MINE, license=licence), license=licence)
    weights, data = str(error.value).splitlines()
    assert hint in weights
    assert "Set --license to" in weights
    assert hint in data
    assert "Set --data-license to" in data


def test_a_run_without_a_temperature_is_refused(run, tmp_path):
    recipe = replace(RECIPE, dataset=dataset(tmp_path / "made", **RECORDS["provenance"]))
    path = run / "validation" / results.RESULTS_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"temperature": None, "not_fitted": "Too few users."}))
    with pytest.raises(ReleaseError, match=r"Too few users\."):
        gather(run, recipe, MINE)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"not_fitted": None}))
    with pytest.raises(ReleaseError, match=r"No temperature was fitted\. Run: trsr evaluate .* --split validation"):
        gather(run, recipe, MINE)


@every_card
def test_cards_of_a_branch_load_that_branch(tmp_path, kind, variant):
    facts = variant(tmp_path)
    shown = card(kind, replace(facts, branch='dev"`1'))
    own = {names for one in facts.names.own if one != "base" for names in [facts.names.repo(one)]}
    calls = re.findall(r"^.*(?:from_pretrained|load_dataset|pipeline|evaluate\.load)\(.*$", shown, re.M)
    for call in calls:
        if any(f'"{name}"' in call for name in own):
            assert 'revision="dev\\"\\u00601"' in call, call
    assert "revision=" not in re.sub(r"^base = .*|^tokenizer = .*", "", card(kind, facts), flags=re.M)
    served = f"transformers serve {facts.names.pipeline}@'dev\"`1'"
    assert (served in shown) == (kind == "pipeline" and facts.has_decision_files)
    assert ("hf download" in shown) == ("trl sft" in shown)


def test_gather_asks_for_results(run, tmp_path):
    shutil.rmtree(run / "test")
    with pytest.raises(ResultsError, match="trsr evaluate RUN --split test"):
        gather(run, RECIPE, MINE, LOCAL)


def test_results_of_other_weights_are_refused(run, tmp_path):
    terms = contract.Terms("mine", "mit", language=("en",))
    with pytest.raises(ReleaseError, match=r"validation are not of this adapter(.|\n)*test are not of this adapter"):
        gather(run, plain(tmp_path), terms, weights="0")


def plain(folder):
    return Recipe(
        base=base(folder / "base", "---\nlicense: mit\n---\n"), dataset=dataset(folder / "data"), summary="none"
    )


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {"limit": 2},
            "The results on test are of the first 2 rows alone. Make them again: trsr evaluate .* --split test",
        ),
        ({"shuffled_summaries": True}, "The results on test are those of shuffled summaries"),
        ({"history": "reversed"}, "The results on test are those of histories in another order"),
        ({"weights": None}, "The results on test are not of this adapter"),
        (
            {"dataset_checksums": CHECKSUMS | {"items": "sha256:3"}},
            "The results on test are not of the dataset that the run was trained on",
        ),
    ],
)
def test_results_that_are_not_of_the_whole_split_of_the_runs_dataset_are_refused(run, tmp_path, changed, told):
    path = run / "test" / results.RESULTS_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(ReleaseError, match=rf"^{told}[^\n]*$"):
        gather(run, plain(tmp_path), contract.Terms("mine", "mit", language=("en",)))


def test_summaries_that_fell_back_are_told_by_method(tmp_path):
    fallen = {"fallen_back": {"cut off": 4, "refusal": 1}, "fallen_back_by_method": {"recurrent": 5, "hierarchical": 0}}
    text = card("dataset", made(tmp_path, changed("provenance.summaries", **MODEL, **fallen)))
    assert (
        "| fallen back | recurrent 5 of 6,000: written by the extractive summarizer, for the model's answers were "
        "cut off (4), refusal (1) |" in text
    )
    fallen = {"fallen_back": {}, "fallen_back_by_method": {"recurrent": 0, "hierarchical": 0}}
    assert "fallen back" not in card("dataset", made(tmp_path, changed("provenance.summaries", **MODEL, **fallen)))


def test_a_dataset_of_a_part_of_the_users_says_so(tmp_path):
    partial = changed("provenance.summaries", **MODEL, limit=1000)
    assert "| users | the first 1,000 of each split alone, as a trial |" in card("dataset", made(tmp_path, partial))


def test_an_adapter_repo_that_also_summarises_shows_how(tmp_path):
    assert 'subfolder="summarizer")' in card("adapter", made(tmp_path, summarises=True))
    assert "summarizer/" not in card("adapter", sample(tmp_path))
    facts = made(tmp_path, summarises=True)
    here = replace(facts, recipe=replace(facts.recipe, summarizer=str(tmp_path / "summarizer")))
    assert str(tmp_path) not in card("adapter", here)


def test_code_is_python_and_json_whatever_its_characters():
    texts = [
        "title: \U0001fae9 `x` <b>",
        "tab\there",
        "\u202e",
        "\U00100000",
    ]  # the first is newer than Python's tables
    shown = markdown.code(texts)
    assert json.loads(shown) == ast.literal_eval(shown) == texts
