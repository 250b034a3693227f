"""The README is true: its tables come from results files, its examples run, its commands and files exist."""

import importlib
import inspect
import json
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from bench.fill_tables import fill
from trsr.cli import command_line
from trsr.pretrain.domain.train import train_domain
from trsr.recommender.recipe import load_recipe

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MARKED = re.findall(r"<!-- (\w+): (\S+) -->", README)


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def anchors(text):
    """What the headings of a Markdown file can be linked as."""
    return {
        re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-") for line in re.findall("^#+ (.*)", text, re.M)
    }


def test_tables_are_rendered_from_results_files():
    assert {kind for kind, _ in MARKED} == {"table", "bench", "comparison", "overview"}
    assert fill(README, ROOT) == README


def test_so_are_all_other_results():
    """And no results file lies about unused."""
    results = (ROOT / "hub_recipes" / "RESULTS.md").read_text(encoding="utf-8")
    assert fill(results, ROOT) == results
    linked = re.findall(r"\]\(#(.*?)\)", results) + re.findall(r"RESULTS\.md#([\w-]+)", README)
    assert set(linked) <= anchors(results)
    guide = (ROOT / "hub_recipes" / "GUIDE.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"results/([\w.-]+)", README + results + guide))
    assert shown == {path.name for path in (ROOT / "hub_recipes" / "results").iterdir()}


@pytest.mark.parametrize(
    "path",
    [ROOT / "README.md", *(ROOT / "hub_recipes").glob("*.md"), *(ROOT / "tests" / "cards").glob("*.md")],
    ids=lambda path: path.name,
)
def test_every_block_of_code_is_closed(path):
    """One left open would turn the rest of the page inside out: text as code, and code as text."""
    fences = re.findall(r"^```(.*)$", path.read_text(encoding="utf-8"), re.M)
    assert len(fences) % 2 == 0
    assert not any(fences[1::2])  # a fence that closes names no language


def test_a_figure_typed_by_hand_is_seen():
    figure = re.search(r"<!-- table: .*?(0\.\d+)", README, re.S)
    forged = README[: figure.start(1)] + "0.999" + README[figure.end(1) :]
    assert fill(forged, ROOT) == README


@pytest.mark.compat
def test_the_ten_lines_run_and_the_example_on_the_folder_of_the_quickstart(quickstarted, tmp_path):
    ten_lines = blocks("python")[0]
    on_folder = next(code for code in blocks("python") if "release" in code)
    (tmp_path / "trsr-quickstart").symlink_to(quickstarted[0])
    # One after the other in one process, each in a name space of its own.
    code = f"for code in {[ten_lines, on_folder]!r}: exec(code, {{'__name__': '__main__'}}); print('END')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "MISSING" not in done.stderr  # both adapters are whole
    assert "tie_word_embeddings" not in done.stderr
    first, second, _ = done.stdout.split("END")
    assert "genre: sea stories x2" in first
    assert first.index("Harbor of the Storm") < first.index("The Quiet Oven")
    assert "log_odds" in second


COMMANDS = [shlex.split(line, comments=True) for block in blocks("bash") for line in block.splitlines() if line.strip()]
VERBS = [words[1:] for words in COMMANDS if words[0] == "trsr"]
SCRIPTS = [words[1:] for words in COMMANDS if words[0] == "python" and words[1].startswith("dataset_scripts/")]


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_verbs_are_called_as_they_can_be(words):
    options = command_line().parse_args(words)
    assert options.verb == words[0]
    if options.verb == "train":
        load_recipe(options.recipe, options.overrides)


def test_the_bench_has_the_options_shown():
    results = (ROOT / "hub_recipes" / "RESULTS.md").read_text(encoding="utf-8")
    called = re.findall(r"^python -m (bench\.\w+) (.*)", README + results, re.M)
    assert {name for name, _ in called} >= {"bench.recommend"}
    for name, options in called:
        importlib.import_module(name).arguments().parse_args(shlex.split(options))


@cache
def script_help(script):
    """What `--help` of a script in the checkout prints."""
    return subprocess.run([sys.executable, ROOT / script, "--help"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("words", SCRIPTS, ids=lambda words: Path(words[0]).name)
def test_scripts_have_the_options_shown(words):
    told = script_help(words[0])
    assert all(word in told for word in words if word.startswith("--"))


LAUNCHED = [words for words in COMMANDS if words[:2] == ["accelerate", "launch"]]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "hub_recipes" / "accelerate").glob("*.yaml")), ids=lambda path: path.stem
)
def test_launch_configurations_are_read(path):
    config = load_config_from_file(str(path))
    assert config.num_processes >= 1
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# accelerate launch --config_file hub_recipes/accelerate/{path.name} -m trsr train RECIPE"


def test_launch_commands_name_files_that_exist():
    assert LAUNCHED
    for words in LAUNCHED:
        assert (ROOT / words[words.index("--config_file") + 1]).is_file()
        assert load_recipe(words[words.index("train") + 1])


def test_what_the_base_took_is_what_its_record_says():
    record = json.loads((ROOT / "hub_recipes" / "results" / "goodbooks-base.json").read_text(encoding="utf-8"))
    assert f"the base took {round(record['seconds'] / 60)} minutes more" in " ".join(README.split())
    steps = inspect.signature(train_domain).parameters["steps"].default
    assert record["command"].endswith(f"--steps {steps}")


def test_what_is_said_of_peers_is_what_the_tests_say():
    told = {}
    for name in ("uniform", "popularity"):
        results = json.loads((ROOT / "hub_recipes" / "results" / f"goodbooks-{name}.json").read_text(encoding="utf-8"))
        apart = {one["system"]: one["difference"] > 0 for one in results["paired"] if one["p_holm"] < 0.05}
        peers = ("item-knn", "bert4rec", "gru4rec", "sasrec", "recent only", "recurrent, summaries shuffled")
        told[name] = {peer: apart[peer] for peer in peers if peer in apart}
    assert told == {
        "uniform": {"bert4rec": False},
        "popularity": {"item-knn": False, "bert4rec": False, "sasrec": True},
    }


def test_the_tree_shows_files_that_exist():
    tree = README.split("## The tree")[1].split("```")[1]
    names = set(re.findall(r"(\w+\.py)", tree))
    found = {path.name for folder in ("hub_recipes", "dataset_scripts") for path in (ROOT / folder).rglob("*.py")}
    assert names <= found


def test_ci_runs_the_command_of_the_readme():
    """Word for word: it greps for the line."""
    install = 'python -m venv .venv && .venv/bin/pip install -e ".[test]" -c hub_recipes/constraints.txt'
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    pattern = re.search(r"grep -m1 -E '(.*)' README.md", ci)[1]
    assert re.findall(pattern, README, re.M) == [
        f"{install} && .venv/bin/pytest -n auto --maxprocesses 4 --dist worksteal"
    ]


def test_every_installation_from_a_checkout_takes_the_tested_versions():
    shown = README + (ROOT / "hub_recipes" / "GUIDE.md").read_text(encoding="utf-8")
    # llama.cpp's server shares no environment with ours.
    lines = [line for line in re.findall(r"pip install [^`\n]*", shown) if "llama-cpp-python" not in line]
    assert len(lines) > 5
    for line in lines:
        assert re.search(r" -c (\$TRSR/)?hub_recipes/constraints\.txt", line), line
