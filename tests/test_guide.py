"""The guide is true: its blocks run from top to bottom as they stand, and what cannot run here parses."""

import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.fill_tables import fill
from bench.serving import free_port, serving
from tests.hub import Hub, environment
from tests.test_readme import anchors, script_help
from trsr.cli import command_line
from trsr.hub.endpoints import APIS
from trsr.recommender.recipe import load_recipe

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "hub_recipes" / "GUIDE.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", GUIDE, re.S)
SHOWN = [
    shlex.split(line.removeprefix("$ "), comments=True)
    for kind, block in re.findall(r"```(bash|console)\n(.*?)```", GUIDE, re.S)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("$ ") or kind == "bash"
    if line.count("'") % 2 == 0  # not the first of several lines
]
VERBS = [words[words.index("trsr") + 1 :] for words in SHOWN if "trsr" in words and words[0] != "pip"]
SCRIPTS = [words for words in SHOWN if words[0] == "python" and words[1].endswith(".py")]


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_verbs_are_called_as_they_can_be(words):
    options = command_line().parse_args(words)
    if options.verb == "train":
        load_recipe(options.recipe, options.overrides)


@pytest.mark.parametrize("words", SCRIPTS, ids=lambda words: Path(words[1]).name)
def test_scripts_have_the_options_shown(words):
    told = script_help(words[1].removeprefix("$TRSR/"))
    assert all(word in told for word in words if word.startswith("--"))


def test_scripts_that_uv_runs_are_called_as_they_can_be():
    for _, _, script, *words in [words for words in SHOWN if words[:2] == ["uv", "run"]]:
        source = (ROOT / script.removeprefix("$TRSR/")).read_text(encoding="utf-8")
        assert script.startswith("$TRSR/")  # the folder of the guide's reader is another
        assert all(f'"{word}"' in source for word in words if word.startswith("--"))


def test_commands_find_the_folders_that_those_before_them_left():
    trained, written = set(), {}
    for options in map(command_line().parse_args, VERBS):
        if options.verb == "train":
            trained.add(options.out or Path("runs") / load_recipe(options.recipe, options.overrides).name)
        elif options.verb in ("evaluate", "publish", "train-summarizer"):
            assert options.run in trained
        elif options.verb == "base":
            assert written.setdefault(options.out, options) is options  # it refuses a folder that holds something
        elif options.verb == "summarize" and not options.estimate:
            # Summaries of one method do not replace those of two.
            assert written.setdefault(options.out, options.method) == options.method


def test_files_named_in_it_exist():
    for name in re.findall(r"\b(?:hub_recipes|dataset_scripts|tests)/[\w/.]+\.\w+", GUIDE):
        assert (ROOT / name).is_file(), name


def test_links_lead_somewhere():
    assert set(re.findall(r"\]\(#(.*?)\)", GUIDE)) <= anchors(GUIDE)


def test_its_tables_are_rendered_from_results_files():
    assert fill(GUIDE, ROOT) == GUIDE


class Sent(Exception):
    """Ends a builder of requests at its first one."""


@pytest.mark.parametrize("path", ["/generative_scoring", "/v1/score", "/completion", "/v1/systemone"])
def test_requests_are_shown_as_they_are_sent(path):
    shown = dict(re.findall(r"```http\nPOST (\S+)\n(.*?)```", GUIDE, re.S))
    assert len(shown) == 4
    items = ["title: The Long Tide", "title: The Last Oven"]
    request = {
        "summary": "likes sea stories",
        "history": ["title: older", "title: The Salt Lantern"],
        "candidates": items,
    }
    expected = {
        "answers": {"yes": {"id": 329}, "no": {"id": 324}},
        "recent_items": 1,
        "temperature": 1.0,
    }

    one = {"request": request, "prefix": [0, 431, 97], "suffixes": [[512, 18], [604, 18]]}
    # vLLM and SGLang serve the adapter under a name; transformers' server loads the repo that a request names.
    model = "ORG/trsr-books" if path == "/v1/systemone" else "trsr"

    def post(to, body):
        assert to == path
        raise Sent(body)

    with pytest.raises(Sent) as sent:
        APIS[path.rpartition("/")[2]](post, model, expected, one)
    assert json.dumps(json.loads(shown[path])) == json.dumps(sent.value.args[0])


@pytest.mark.slow
def test_the_guide_word_for_word(tmp_path):
    pytest.importorskip("gradio")
    folder = tmp_path / "empty"
    folder.mkdir()
    port = free_port()
    bin_folder = str(Path(sys.executable).parent)
    with Hub() as hub:
        given = environment(hub, tmp_path / "home") | {
            "TRSR": str(ROOT),
            "PATH": os.pathsep.join([bin_folder, os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT / "hub_recipes"),
            "OMP_NUM_THREADS": "1",
        }
        told = []
        with ExitStack() as served:
            for kind, block in BLOCKS:
                # 7860 may be taken on the machine that runs the tests.
                block = block.replace("7860", str(port))
                words = [sys.executable, "-c", block] if kind == "python" else ["bash", "-euo", "pipefail", "-c", block]
                if "trsr demo" in block:
                    words, log = ["bash", "-c", f"exec {block}"], tmp_path / "page.log"
                    served.enter_context(serving(words, port, log, 900, cwd=folder, env=given))
                    continue
                done = subprocess.run(words, cwd=folder, env=given, capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{block}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
                told.append(done.stdout)
        assert {"model ORG/trsr-books", "model ORG/trsr-books-lora", "dataset ORG/trsr-books"} <= set(hub.repos)
    ranked = told[-2].splitlines()[-1]
    assert ranked.index("The Long Tide") < ranked.index("The Last Oven")
    assert "'rank': 1" in told[-1]
