"""The API reference is true: its signatures are the code's, its examples run from top to bottom."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import trsr

ROOT = Path(__file__).parent.parent
API = (ROOT / "hub_recipes" / "API.md").read_text(encoding="utf-8")
TITLES = re.findall(r"^### `(.*)`$", API, re.M)


def found(dotted):
    """What a dotted name stands for."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            value = getattr(value, name)
        return value
    raise AssertionError(dotted)


def parameters(function):
    return [(one.name, one.kind, one.default) for one in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("title", TITLES)
def test_signatures_are_those_of_the_code(title):
    name, _, rest = title.partition("(")
    shown = ast.parse(f"def _({rest}: pass").body[0]
    names: dict = {}
    exec(compile(ast.Module([shown], []), "API.md", "exec"), names)
    function = found(name)
    told = parameters(names["_"])
    real = [one for one in parameters(function) if one[0] != "self"]
    assert told == real


def test_every_public_name_is_told_once():
    assert len(TITLES) == len(set(TITLES)) <= 20
    told = [name.partition("(")[0].split(".") for name in TITLES]
    assert {names[-1] for names in told} >= {"read", "summarize", "rank", "train", "recommend"}
    assert {names[1] for names in told} >= set(trsr._PUBLIC)


def test_every_section_has_an_example():
    sections = re.split(r"^### ", API, flags=re.M)[1:]
    assert [section.splitlines()[0] for section in sections if "```python\n" not in section] == []


def test_it_is_linked():
    for name in ("README.md", "hub_recipes/GUIDE.md"):
        assert "API.md)" in (ROOT / name).read_text(encoding="utf-8")


def test_the_examples_run(tmp_path):
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", API, re.M | re.S))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for line in (
        "['user_id', 'history', 'target', 'negatives'] ",
        "title: Reef and Anchor; genre: sea stories",
        "genre: sea stories x2 | genre: sea stories x2, baking x1",
        "Recent items, oldest first:\n- title: The Salt Lantern; genre: sea stories\n\nCandidate item:\n- title: The Salt",
        "packed {} torch.Size([2]) packed",
        "nano-sample 4",
        "genre: baking x2, sea stories x2",
        "genre: sea stories x2, baking x1",
        "[(1, 'title: Harbor of the Storm; genre: sea stories'), (2, 'title: The Quiet Oven; genre: baking')]",
        "1 ['adapter_config.json', 'adapter_model.safetensors']",
    ):
        assert line in done.stdout
