"""The README is true: its tables come from results files, its examples run, its commands and files exist."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from trsr.cli import main
from trsr.results import table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TABLES = re.findall(r"<!-- table: (\S+) -->\n(.*?)<!-- end -->", README, re.S)


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_there_is_a_table():
    assert TABLES


@pytest.mark.parametrize(("path", "shown"), TABLES, ids=[path for path, _ in TABLES])
def test_tables_are_rendered_from_results_files(path, shown):
    assert shown.strip() == table(json.loads((ROOT / path).read_text(encoding="utf-8"))["systems"])


def test_the_ten_lines_run(tmp_path):
    code = blocks("python")[0]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "genre: sea stories x2" in done.stdout
    assert done.stdout.index("Harbor of the Storm") < done.stdout.index("The Quiet Oven")


def test_every_verb_in_the_readme_exists(capsys):
    verbs = set(re.findall(r"^(?:.*/)?trsr (\w+)", "\n".join(blocks("bash")), re.M)) | {"quickstart"}
    assert {"summarize", "train", "evaluate"} <= verbs
    for verb in verbs:
        with pytest.raises(SystemExit) as stop:
            main([verb, "--help"])
        assert stop.value.code == 0


def test_the_tree_shows_files_that_exist():
    tree = README.split("## The tree")[1].split("```")[1]
    names = set(re.findall(r"(\w+\.py)", tree))
    found = {path.name for folder in ("hub_recipes", "dataset_scripts") for path in (ROOT / folder).rglob("*.py")}
    assert names <= found


def test_ci_runs_the_command_of_the_readme():
    command = 'python -m venv .venv && .venv/bin/pip install -e ".[test]" && .venv/bin/pytest'
    assert command in README.splitlines()
    assert "README.md" in (ROOT / ".ci" / "run").read_text()
