"""What a pipeline repo honours, what it refuses, and what it writes: asked by people who have none of our code."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

from tests import strangers
from tests.hub import environment
from trsr.assets.paths import NANO, NANO_SUMMARIZER, base_path
from trsr.cli.exits import Exit, exit_codes_for_errors
from trsr.core.compat import TRANSFORMERS
from trsr.core.errors import LoadError
from trsr.core.modeling import TextRichRecommender, load_adapter, optional_file
from trsr.errors import EvaluationError
from trsr.recommender.run import Run
from trsr.recommender.score_split import load_run
from trsr.recommender.serving import load_recommender
from trsr.records.requirements import ranges

pytestmark = pytest.mark.compat

ROOT = Path(__file__).parent.parent
ASKS = """
import json, sys, traceback, warnings
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

task, repo = "text-rich-recommendation", "ORG/trsr-sample"
request = {
    "history": [{"title": "The Salt Lantern", "genre": "sea stories"}, {"title": "Reef and Anchor", "genre": "sea stories"}],
    "candidates": [{"title": "Harbor of the Storm", "genre": "sea stories"}, {"title": "The Quiet Oven", "genre": "baking"}],
}
def load(model, **options):
    return pipeline(task, model=model, trust_remote_code=True, **options)
def odds(recommender):
    answer = recommender(request, return_summary=True)
    return [answer["summary"], *sorted((one["index"], one["log_odds"]) for one in answer["candidates"])]
def last_line(act):
    try:
        act()
    except Exception:
        return traceback.format_exc().splitlines()[-1]
    return "nothing was wrong"
told = {}
"""

OPTIONS = """
told["plain"] = odds(load(repo))
eager = load(repo, model_kwargs={"attn_implementation": "eager"})
told["attention"] = [eager.model.config._attn_implementation]
told["attention"] += [
    AutoModelForCausalLM.from_pretrained(repo, trust_remote_code=True, attn_implementation=name).config._attn_implementation
    for name in ("eager", "sdpa")
]
told["eager"] = odds(eager)
half = AutoModelForCausalLM.from_pretrained(repo, trust_remote_code=True, dtype=torch.bfloat16)
told["dtype"] = [str(half.dtype), str(load(repo, dtype="bfloat16").model.dtype), str(load(repo).model.dtype)]
told["changed"] = AutoModelForCausalLM.from_pretrained(repo, trust_remote_code=True, rms_norm_eps=0.5).config.rms_norm_eps
told["mapped"] = odds(load(repo, device_map="cpu"))
told["unknown"] = last_line(lambda: AutoModelForCausalLM.from_pretrained(repo, trust_remote_code=True, colour="red"))
told["revision"] = last_line(lambda: load(repo, revision="v9"))
told["tag"] = odds(load(repo, revision="v1.0"))
"""

SAVES = """
from huggingface_hub import snapshot_download
first = load(repo)
told["plain"] = odds(first)
first.save_pretrained("saved")
told["saved"] = odds(load("saved"))
told["untold task"] = odds(pipeline(model="saved", trust_remote_code=True))
# Base and adapter copied in, as from a folder.
copies = [snapshot_download(name) for name in (repo, "ORG/trsr-sample-lora", "ORG/trsr-nano")]
import shutil
for copy, into in zip(copies, ("pipeline", "adapter", "base")):
    shutil.copytree(copy, f"local/{into}")
config = json.load(open("local/pipeline/config.json"))
config["trsr"] |= {"base_model": "../base", "adapter": "../adapter", "base_revision": None, "adapter_revision": None}
# With a second adapter, as a release has one whose summaries it wrote.
shutil.copytree(sys.argv[1], "local/adapter/summarizer")
config["trsr"]["summarizer_adapter"] = "summarizer"
json.dump(config, open("local/pipeline/config.json", "w"))
whole = load("local/pipeline")
whole.save_pretrained("whole")
shutil.rmtree("local")
told["whole"] = odds(load("whole"))
load("whole").push_to_hub("ORG/pushed", private=True)
pushed = load("ORG/pushed")
told["pushed"] = odds(pushed)
told["pushed summary"] = pushed(request, summarizer="adapter", return_summary=True, max_new_tokens=8)["summary"]
told["whole summary"] = whole(request, summarizer="adapter", return_summary=True, max_new_tokens=8)["summary"]
pushed.save_pretrained("again")
told["again"] = odds(load("again"))
# An adapter repo, and models made in memory.
import peft
from importlib import import_module
kind = type(first)
base = AutoModelForCausalLM.from_pretrained("ORG/trsr-nano")
tokenizer = AutoTokenizer.from_pretrained("ORG/trsr-nano")
made = kind(model=peft.PeftModel.from_pretrained(base, "ORG/trsr-sample-lora"), tokenizer=tokenizer)
told["made"] = odds(made)
made.save_pretrained("made")
told["made again"] = odds(load("made"))
bare = kind(model=AutoModelForCausalLM.from_pretrained("ORG/trsr-nano"), tokenizer=tokenizer)
told["bare"] = odds(bare)
bare.save_pretrained("bare")
told["bare again"] = odds(load("bare"))
print(json.dumps(told))
"""

REFUSALS = """
for name in sys.argv[1:]:
    told[name] = last_line(lambda: load(name))
"""

PRIVATE = """
told["without"] = last_line(lambda: load("ORG/private"))
told["with"] = odds(load("ORG/private", token="hf_test_writer"))
auto = AutoModelForCausalLM.from_pretrained("ORG/private", trust_remote_code=True, token="hf_test_writer")
told["kept"] = "hf_test_writer" in str(auto.trsr_parts) + str(auto.config)
print(json.dumps(told))
"""


def ask(stranger, published, home, code, *words, token="hf_test_writer", **more):
    given = environment(published[0], home, token=token) | more
    folder = home / "work"
    folder.mkdir(exist_ok=True)
    done = strangers.run(stranger, f"import os; os.chdir({str(folder)!r})\n" + ASKS + code, given, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def answers(stranger, published, tmp_path_factory):
    """What one process of a stranger without a token is told: of the options, of what is broken, and of what is private."""
    hub, run = published
    folder, release = tmp_path_factory.mktemp("answers"), run.parent.parent / "release"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        api = HfApi(endpoint=hub.url, token="hf_test_writer")
        for name in ("gated-lora", "private-lora"):
            api.create_repo(f"ORG/{name}", private=name == "private-lora")
            api.upload_folder(repo_id=f"ORG/{name}", folder_path=release / "adapter")
        hub.repos["model ORG/gated-lora"].gated = "manual"
        # Copies of the pipeline repo that name an adapter behind a gate, none, a base that is not there, and private ones.
        for name, named in (
            ("gated", {"adapter": "ORG/gated-lora"}),
            ("no-adapter", {"adapter": "ORG/nothing-lora"}),
            ("no-base", {"base_model": "ORG/nothing-base"}),
            ("outside", {"base_model": "../../etc"}),
            ("private", {"adapter": "ORG/private-lora"}),
        ):
            copy = shutil.copytree(release / "pipeline", folder / name)
            config = json.loads((copy / "config.json").read_text())
            config["trsr"] |= {"base_model": "ORG/trsr-nano", "adapter": "ORG/trsr-sample-lora", **named}
            (copy / "config.json").write_text(json.dumps(config))
            api.create_repo(f"ORG/{name}", private=name == "private")
            api.upload_folder(repo_id=f"ORG/{name}", folder_path=copy)
    broken = ["ORG/gated", "ORG/no-adapter", "ORG/no-base", "ORG/outside"]
    return ask(stranger, published, folder, OPTIONS + REFUSALS + PRIVATE, *broken, token=None)


def test_what_a_caller_asks_for_is_honoured(answers):
    assert answers["attention"] == ["eager", "eager", "sdpa"]
    assert answers["eager"][0] == answers["plain"][0]
    for eager, plain in zip(answers["eager"][1:], answers["plain"][1:], strict=True):
        assert eager == pytest.approx(plain, abs=1e-4)
    assert answers["dtype"] == ["torch.bfloat16", "torch.bfloat16", "torch.float32"]
    assert answers["changed"] == 0.5
    assert answers["mapped"] == answers["tag"] == answers["plain"]
    assert "colour" in answers["unknown"]
    assert "v9" in answers["revision"]


def test_the_last_line_of_an_error_is_its_cause(answers):
    assert "LoadError: adapter_config.json of ORG/gated-lora cannot be read: " in answers["ORG/gated"]
    assert "Access to" in answers["ORG/gated"]
    assert "restricted" in answers["ORG/gated"]
    assert "LoadError: adapter_config.json of ORG/nothing-lora cannot be read: " in answers["ORG/no-adapter"]
    assert "Repository Not Found" in answers["ORG/no-adapter"]
    assert "LoadError: The base ORG/nothing-base cannot be loaded: ORG/nothing-base is not" in answers["ORG/no-base"]
    assert "'../../etc', a path outside it" in answers["ORG/outside"]
    assert not any("pytorch_model.bin" in str(told) for told in answers.values())


def test_a_token_opens_the_pipeline_and_its_adapter(answers):
    """One that is given in the call alone; and it is not kept on the model."""
    assert "ORG/private" in answers["without"] or "token" in answers["without"]
    assert answers["with"] == answers["plain"]
    assert not answers["kept"]


def test_a_saved_pipeline_scores_the_same(stranger, published, tmp_path):
    told = ask(stranger, published, tmp_path, SAVES, str(NANO_SUMMARIZER))
    for name in ("saved", "untold task", "whole", "pushed", "again"):
        assert told[name] == told["plain"], name
    assert told["pushed summary"] == told["whole summary"]
    assert told["made again"] == told["made"]
    assert told["bare again"] == told["bare"] != told["made"]


def damage(weights, how):
    """Take 40 tensors out of a file of weights, or give them all other names."""
    found = load_file(weights)
    names = sorted(found)
    assert len(names) > 40
    kept = (
        {name: found[name] for name in names[40:]} if how == "lacking" else {f"x.{name}": found[name] for name in names}
    )
    save_file(kept, weights, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("how", "told"), [("lacking", "lacks 40 weights and has 0 others"), ("renamed", "others, such as")]
)
@pytest.mark.parametrize("second", [False, True])
def test_an_adapter_that_does_not_arrive_whole_is_refused(how, told, second, tmp_path):
    nano = shutil.copytree(NANO, tmp_path / "nano")
    damage(nano / "adapter" / ("summarizer" if second else ".") / "adapter_model.safetensors", how)
    with pytest.raises(LoadError, match=told):
        TextRichRecommender.from_pretrained(nano / "pipeline")


@pytest.mark.parametrize("how", ["lacking", "renamed"])
def test_a_damaged_adapter_is_refused_alone_and_in_an_evaluation(how, quickstarted, tmp_path):
    run = shutil.copytree(quickstarted[0] / "runs" / "recurrent", tmp_path / "run")
    damage(run / "adapter" / "adapter_model.safetensors", how)
    with pytest.raises(EvaluationError, match="does not fit its config"):
        load_run(Run.read(run))
    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = base_path("nano")
    (run / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(LoadError, match="does not fit its config"):
        TextRichRecommender.from_pretrained(run / "adapter")


def test_a_transformers_that_is_too_old_to_report_what_it_loaded_is_told(monkeypatch):
    loaded = TextRichRecommender.from_pretrained(NANO / "pipeline")
    monkeypatch.setattr(type(loaded), "load_adapter", lambda *args, **kwargs: None)  # as before transformers 5
    with pytest.raises(LoadError, match=r"adapter .* cannot be loaded: transformers .*pip install 'transformers>="):
        TextRichRecommender.from_pretrained(NANO / "pipeline")
    assert ranges()["transformers"].startswith(f">={TRANSFORMERS},")


UNREACHABLE = """
import importlib, types
import huggingface_hub
from huggingface_hub import constants
huggingface_hub.snapshot_download("ORG/trsr-sample-lora", ignore_patterns=["ranking_prompt.json"])
huggingface_hub.snapshot_download("ORG/trsr-nano")
package = sys.modules["code_of_the_repo"] = types.ModuleType("code_of_the_repo")
package.__path__ = [sys.argv[1]]
model = importlib.import_module("code_of_the_repo.modeling").TextRichRecommender.from_pretrained
for when, constants.HF_HUB_OFFLINE in (("offline", True), ("online", False), ("offline again", True)):
    told[when] = {name: last_line(lambda: model(f"ORG/{name}")) for name in ("trsr-sample-lora", "trsr-nano")}
print(json.dumps(told))
"""


def test_absent_is_not_unreachable(stranger, published, tmp_path):
    code = published[1].parent.parent / "release" / "pipeline"
    told = ask(stranger, published, tmp_path, UNREACHABLE, str(code), token=None)
    cause = told["offline"].pop("trsr-sample-lora")
    assert "LoadError: Whether ORG/trsr-sample-lora has a file ranking_prompt.json cannot be told" in cause
    assert told["offline"] == {"trsr-nano": "nothing was wrong"}
    assert told["online"] == {"trsr-sample-lora": "nothing was wrong", "trsr-nano": "nothing was wrong"}
    # Now it is known that the base has none, also when nobody can be asked.
    assert told["offline again"] == told["online"]


def test_a_file_of_a_folder_is_there_or_not(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    assert optional_file(str(tmp_path), "a.json", {}) == str(tmp_path / "a.json")
    assert optional_file(str(tmp_path), "b.json", {}) is None
    assert optional_file(str(tmp_path), "a.json", {"subfolder": "deeper"}) is None


@pytest.mark.parametrize("name", ["runs/typo/release", "runs/my release"])
def test_what_is_no_folder_and_can_be_no_repo_is_told(name):
    told = f"There is no folder '{name}', nor can it be a repo id"
    for load in (
        lambda: optional_file(name, "a.json", {}),
        lambda: TextRichRecommender.from_pretrained(name),
        lambda: load_recommender(name),
        lambda: load_adapter(None, "default", name, {}),
    ):
        with pytest.raises(LoadError, match=told):
            load()


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("{}", "does not name the base of this adapter"),
        ('{"base_model_name_or_path": null}', "does not name the base of this adapter"),
        ('{"base_model_name_or_path": ', "is no JSON file, or not whole"),
        ("[1]", r"holds no JSON object, but \[1\]"),
    ],
)
def test_an_adapter_without_a_base_is_told(tmp_path, config, told):
    (tmp_path / "adapter_config.json").write_text(config)
    with pytest.raises(LoadError, match=f"adapter_config.json {told}"):
        TextRichRecommender.from_pretrained(tmp_path)


REGISTERED = """
import trsr
for model in sys.argv[1:]:
    ranker = load(model)
    told[model] = [ranker.encoder.prompt.recent_items, ranker._temperature, ranker._bias, *odds(ranker)]
print(json.dumps(told))
"""


def test_an_adapter_repo_brings_its_prompt_temperature_and_bias(published, tmp_path):
    """With our package installed, from the Hub and from a folder (transformers reads its base's path from where one stands)."""
    release = published[1].parent.parent / "release"
    given = environment(published[0], tmp_path, token=None) | {"PYTHONPATH": str(ROOT / "hub_recipes")}
    words = [
        sys.executable,
        "-c",
        ASKS + REGISTERED,
        "ORG/trsr-sample-lora",
        str(release / "adapter"),
        str(release / "pipeline"),
    ]
    done = subprocess.run(words, env=given, cwd=release / "adapter", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    alone, folder, whole = told.values()
    assert alone == folder == whole
    assert whole[0] == 3
    assert whole[1] != 1
    assert whole[2] != 0


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("from transformers import nothing_of_this_name\n", "nothing_of_this_name"),
        ("raise ValueError('needs peft 99')\n", "needs peft 99"),
    ],
)
def test_code_that_does_not_fit_the_installed_versions_ends_in_one_line(quickstarted, tmp_path, broken, told):
    """As the code of a release may that was made with other versions."""
    folder = shutil.copytree(quickstarted[0] / "release", tmp_path / f"release{len(told)}")
    (folder / "pipeline" / "modeling.py").write_text(broken)
    request = {"history": [], "candidates": ["title: A"]}
    with pytest.raises(ValueError, match=rf"cannot be loaded: .*{told}.* publish it again") as error:
        load_recommender(str(folder / "pipeline"))(request)
    assert "\n" not in str(error.value)


def test_the_command_line_ends_with_the_cause(tmp_path, capsys):
    nano = shutil.copytree(NANO, tmp_path / "nano")
    damage(nano / "adapter" / "adapter_model.safetensors", "lacking")
    with pytest.raises(SystemExit) as end, exit_codes_for_errors():
        TextRichRecommender.from_pretrained(nano / "pipeline")
    assert end.value.code == Exit.USER_ERROR
    assert "lacks 40 weights" in capsys.readouterr().err
