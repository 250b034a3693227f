"""The house: which way imports point, what travels, and what an import costs."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hub_recipes" / "trsr"
TOP_LEVEL = {"pyproject.toml", "README.md", "LICENSE", "hub_recipes", "model_cards", "dataset_scripts", "tests"}

# From the ground up; a room imports from its own floor or from below, never from above.
FLOORS = [
    {"core", "embedded", "versions", "conflicts", "weights", "patience", "pictures", "__init__"},
    {"data", "engines", "markdown", "register", "doctor"},
    {"logs", "summaries", "check"},
    {"recommender"},
    {"hub", "compare", "audit"},
    {"nano", "domain", "bench", "tables", "quickstart", "demo"},
    {"cli", "__main__", "jobs"},
]


def floor(name):
    for number, rooms in enumerate(FLOORS):
        if name in rooms:
            return number
    raise AssertionError(f"{name} stands on no floor: put it on one in FLOORS")


def imported(path):
    """Absolute module names that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            if node.module == "trsr":
                yield from (f"trsr.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_import_points_upwards(path):
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "trsr" and len(parts) > 1:
            below = parts[1] if (PACKAGE / parts[1]).is_dir() or (PACKAGE / f"{parts[1]}.py").exists() else "__init__"
            assert floor(below) <= floor(room(path)), f"{path.name} imports {name}"


def test_modules_import_one_another_in_no_circle():
    named = {".".join(("trsr", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in MODULES}
    below = {}
    for module, path in named.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").startswith("trsr"):
                # Of a package, its modules are imported; what else it gives is its own.
                found |= {f"{node.module}.{alias.name}" for alias in node.names} & set(named) or {node.module} & set(
                    named
                )
        below[module] = found
    tuple(TopologicalSorter(below).static_order())  # raises CycleError


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").glob("*.py")), ids=lambda path: path.name)
def test_core_travels(path):
    # transformers itself requires huggingface_hub.
    allowed = set(sys.stdlib_module_names) | {"torch", "transformers", "huggingface_hub"}
    for name in imported(path):
        assert name.split(".")[0] in allowed, f"core/{path.name} imports {name}"
    # transformers copies only siblings that are imported in this very form.
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1
            assert node.module
            assert "." not in node.module


def test_the_package_never_imports_the_scripts():
    for path in MODULES:
        assert not any(name.split(".")[0] in {"dataset_scripts", "tests"} for name in imported(path))


def test_top_level():
    found = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode == 0 and found.stdout:
        names = {line.split("/")[0] for line in found.stdout.splitlines()}
        assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_and_help_load_no_torch():
    heavy = "{'torch', 'transformers', 'datasets', 'numpy', 'peft', 'trl'} & set(sys.modules)"
    assert python(f"import sys, trsr; print({heavy})").strip() == "set()"
    code = f"""
import sys, resource
from trsr.cli import main
try:
    main(['--help'])
except SystemExit:
    pass
used = resource.getrusage(resource.RUSAGE_SELF)
print('heavy', {heavy}, 'seconds', used.ru_utime + used.ru_stime)
"""
    out = python(code)
    assert "heavy set()" in out
    assert "quickstart" in out


def test_the_task_is_known_whichever_comes_first():
    known = "from transformers.pipelines import PIPELINE_REGISTRY as r; print('text-rich-recommendation' in r.supported_tasks)"
    assert python(f"import trsr; {known}").strip() == "True"
    assert python(f"import transformers.pipelines, trsr; {known}").strip() == "True"
    assert python(f"import trsr.core.pipeline; {known}").strip() == "True"


def test_no_pickles_and_no_machine_paths():
    for path in ROOT.glob("*/**/*"):
        hidden = any(part.startswith((".", "__pycache__")) for part in path.relative_to(ROOT).parts)
        if path.is_file() and not hidden:
            assert path.suffix not in {".bin", ".pt", ".pth", ".pkl", ".pickle"}, path
            if path.suffix in {".py", ".md", ".yaml", ".json", ".toml", ".txt"}:
                text = path.read_text(encoding="utf-8")
                assert not re.search(r"(?<![\w.])/(work|root|home|tmp)/", text), path
