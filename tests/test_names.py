"""What documents and cards name is there: modules, files and commands."""

import importlib
import json
import re
import shlex
from pathlib import Path

import pytest

from trsr.cli import VERBS, command_line

ROOT = Path(__file__).parent.parent
CODE = ROOT / "hub_recipes"
DOCUMENTS = sorted(
    {
        ROOT / "README.md",
        *CODE.glob("*.md"),
        *(ROOT / "model_cards").rglob("*.md"),
        *(CODE / "trsr" / "assets").rglob("*.md"),
        *(CODE / "trsr" / "assets").rglob("training.json"),
        *CODE.glob("*.yaml"),
    }
)


def text_of(path):
    """A document; that of changes without the first column, which holds names that are gone."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r"^\| .*? \|", "|", text, flags=re.M) if path.name == "CHANGES.md" else text


def is_there(name):
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for at in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:at]))
        except ModuleNotFoundError:
            continue
        for part in parts[at:]:
            value = getattr(value, part, None)
        return value is not None
    return False


def missing(text):
    """Names of modules, paths and verbs in a text that are not there."""
    modules = re.findall(r"(?<![\w./-])((?:trsr|bench)(?:\.[a-z]\w*)+)(?![\w/(]*\.(?:json|png|md))", text)
    gone = {name for name in modules if not is_there(name) and not name.endswith((".json", ".py"))}
    paths = re.findall(r"(?<![\w./-])((?:trsr|hub_recipes|dataset_scripts|model_cards|tests)/[\w./-]*\w/?)", text)
    roots = (ROOT, CODE)
    gone |= {path for path in paths if not any((root / path).exists() for root in roots)}
    verbs = re.findall(r"(?:`|^|\$ )trsr ([a-z][\w-]*)", text, re.M)
    return gone | {f"trsr {verb}" for verb in verbs if verb not in VERBS}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_names_is_there(path):
    assert missing(text_of(path)) == set()


def test_what_is_not_there_is_seen():
    text = "trsr.games.game `trsr.engines` trsr/engines/ `trsr bench run` hub_recipes/nothing.py trsr.dataset.contract.write"
    assert missing(text) == {"trsr.games.game", "trsr.engines", "trsr/engines/", "trsr bench", "hub_recipes/nothing.py"}


@pytest.mark.parametrize(
    "path", sorted((CODE / "trsr" / "assets").rglob("training.json")), ids=lambda path: path.parent.name
)
def test_the_command_that_made_an_asset_can_be_run(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    name, *words = shlex.split(record["command"])
    assert name == "trsr"
    command_line().parse_args(words if "--out" in words else [*words, "--out", "somewhere"])
    assert record["command"] in (path.parent / "README.md").read_text(encoding="utf-8")


def test_verbs_that_are_said_to_print_json_do():
    guide = (CODE / "GUIDE.md").read_text(encoding="utf-8")
    said = re.findall(r"`(\w+)`", re.search(r"^With `--json`, (.*?) print one JSON", guide, re.S | re.M)[1])
    assert said
    shown = {name for name in VERBS if "--json" in _help(name)}
    assert set(said) == shown


def _help(verb):
    """The help of a verb, and of its own verbs."""
    return _full_help(_verbs(command_line())[verb])


def _verbs(parser):
    """Verb -> parser; none for a parser whose choices are values."""
    found = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    return found[0] if found else {}


def _full_help(parser):
    return parser.format_help() + "".join(map(_full_help, _verbs(parser).values()))
