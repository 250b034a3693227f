"""No verb warns: what a user could not act on is mended where it is caused, and what libraries say of themselves is not shown."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests import tiny
from trsr.recommender.recipe import load_recipe
from trsr.recommender.train import training_arguments

ROOT = Path(__file__).parent.parent
# The verbs of the whole path, each as a user runs it.
PATH = """
import json, sys
from trsr.cli import main

for words in json.loads(sys.argv[1]):
    print("+", *words, file=sys.stderr, flush=True)
    try:
        main(words)
    except SystemExit as end:
        assert not end.code, (words, end.code)
"""
VERBS = [
    "summarize small --out data --engine extractive",
    "check data",
    "train nano-sample train_users=16 dataset=data name=mine --out run",
    "evaluate run --split validation",
    "evaluate run",
    "compare run/test --out comparison",
    "recommend request.json",
    "audit data --limit 20",
    "publish run --namespace ORG",
]


def test_no_verb_warns_nor_writes_control_characters_without_a_terminal(tmp_path):
    tiny.sample(tmp_path / "small")
    (tmp_path / "request.json").write_text('{"history": ["genre: tea"], "candidates": ["genre: tea", "genre: war"]}')
    given = {**os.environ, "PYTHONPATH": str(ROOT / "hub_recipes"), "HF_HUB_OFFLINE": "1"}
    given = {name: value for name, value in given.items() if name != "PYTHONWARNINGS"}
    words = [sys.executable, "-c", PATH, json.dumps([line.split() for line in VERBS])]
    done = subprocess.run(words, env=given, cwd=tmp_path, capture_output=True, check=False)
    said = (done.stderr + done.stdout).decode()
    assert done.returncode == 0, said[-3000:]
    assert not re.findall(r".*(?:Warning|\[transformers\]|deprecated).*", said)
    assert "Creating parquet" not in said
    assert "Generating" not in said
    assert "Loading weights" not in said
    assert "grad_norm" not in said
    # One bar a step, named after it.
    bars = {
        line.removeprefix("+ "): re.findall(r"^([^\n|]+): +100%", shown, re.M)
        for line, shown in re.findall(r"^(\+ .*)\n((?:(?!\+ ).*\n?)*)", done.stderr.decode(), re.M)
    }
    assert {line.split()[0]: found for line, found in bars.items() if found} == {
        "summarize": ["summaries"],
        "train": ["encode", "train mine"],
        "evaluate": ["mine"],
    }
    assert not {byte for byte in done.stdout + done.stderr if byte < 32} - {ord("\n")}


def test_gradient_checkpointing_is_asked_for_by_the_name_that_this_version_knows(tmp_path, recwarn):
    for wanted in (True, False):
        recipe = load_recipe("nano-sample", [f"optim.gradient_checkpointing={str(wanted).lower()}"])
        assert bool(training_arguments(recipe, tmp_path, half=False, cpu=True).gradient_checkpointing) is wanted
    assert not [one for one in recwarn if "checkpointing" in str(one.message)]
