"""Bounds and exact versions: what pyproject.toml asks for, what is pinned, and what the Spaces install agree."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.compatibility import SELECTED, lowest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
ASKED = list(map(Requirement, sum(EXTRAS.values(), PROJECT["dependencies"])))
PINNED = [
    line
    for line in (ROOT / "hub_recipes" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]
PINS = {canonicalize_name(one.name): one.specifier for one in map(Requirement, PINNED)}
SPACES = sorted((ROOT / "hub_recipes").rglob("requirements.txt"))


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_every_requirement_has_bounds_and_is_pinned_within_them(asked):
    bounds = {one.operator: one.version for one in asked.specifier}
    # The versions of `packaging` are years, and what is used of it are standards.
    assert set(bounds) == ({">="} if asked.name == "packaging" else {">=", "<"})
    [pin] = PINS[canonicalize_name(asked.name)]
    assert pin.operator == "=="
    assert asked.specifier.contains(pin.version)


def test_pins_are_versions_and_nothing_else():
    """No file, no host, no build of one machine, nothing of ours; each name once."""
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in PINNED)
    assert len(PINS) == len(PINNED)
    assert "llm-trsr" not in PINS


def test_the_lowest_versions_are_the_bounds():
    pins = {one.name: str(one.specifier)[2:] for one in map(Requirement, lowest())}
    for asked in map(Requirement, PROJECT["dependencies"] + EXTRAS["test"]):
        assert f">={pins[asked.name]}" in map(str, asked.specifier)
    assert "torch" in pins
    assert "torch" not in {Requirement(one).name for one in lowest(["torch"])}


def test_what_runs_at_other_versions_covers_the_way_from_a_sample_to_strangers():
    names = (
        "test_readme.py::test_the_ten_lines_run_and_the_example",
        "test_train.py::test_same_seed_same_bytes",
        "test_shared_prefix.py::test_a_step_equals_a_step_of_flat_rows",
        "test_quickstart.py::test_the_report",
        "test_strangers.py::test_everything_loads_without_our_code",
        "test_strangers.py::test_the_server_of_transformers_answers_the_same",
        "test_loading.py::",
        "test_pipeline.py::test_one_adapter_summarises_and_the_other_ranks",
        "test_two_adapters.py::test_strangers_load_both_from_the_hub",
        "test_doctor.py::test_the_installed_versions_fit_and_rank",
    )
    listed = []

    class Listed:
        def pytest_collection_finish(self, session):
            listed.extend(item.nodeid for item in session.items)

    # In this process, which has imported most of these files already.
    files = sorted({str(ROOT / "tests" / name.split("::")[0]) for name in names})
    options = ["--collect-only", "-m", SELECTED, "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
    assert pytest.main([*options, *files], plugins=[Listed()]) == pytest.ExitCode.OK
    for name in names:
        assert any(f"tests/{name}" in one for one in listed), name


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.parent.name)
def test_spaces_ask_for_what_the_package_asks_for(path):
    bounds = {one.name: one.specifier for one in ASKED}
    lines = path.read_text(encoding="utf-8").splitlines()
    for asked in map(Requirement, [line for line in lines if not line.startswith(("#", "--"))]):
        assert asked.specifier == bounds[asked.name]


def test_the_space_takes_torch_for_the_cpu():
    lines = (ROOT / "hub_recipes" / "space" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("--")] == [
        "--extra-index-url https://download.pytorch.org/whl/cpu"
    ]
