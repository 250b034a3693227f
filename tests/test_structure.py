"""The house: which way imports point, what travels, and what an import costs."""

import ast
import json
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from transformers.dynamic_module_utils import get_imports

import trsr

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hub_recipes" / "trsr"
TOP_LEVEL = {"pyproject.toml", "README.md", "LICENSE", "hub_recipes", "model_cards", "dataset_scripts", "tests"}

# From the ground up; a room imports from its own floor or from below, never from above.
FLOORS = [
    {"core", "errors", "metrics", "__init__"},
    {"records", "assets", "registration"},
    {"report", "progress", "cluster", "server_key"},
    {"dataset"},
    {"summaries"},
    {"recommender"},
    {"retrieval"},
    {"hub"},
    {"pretrain"},
    {"quickstart"},
    {"cli", "__main__"},
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


def test_no_import_points_upwards():
    upwards = []
    for path in MODULES:
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "trsr" and len(parts) > 1:
                known = (PACKAGE / parts[1]).is_dir() or (PACKAGE / f"{parts[1]}.py").exists()
                if floor(parts[1] if known else "__init__") > floor(room(path)):
                    upwards.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert upwards == []


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


def test_core_travels():
    # transformers itself requires huggingface_hub and safetensors. What reads a catalogue alone, tells what to install.
    allowed = set(sys.stdlib_module_names) | {"torch", "transformers", "huggingface_hub", "safetensors"}
    assert "pyarrow" not in get_imports(PACKAGE / "core" / "catalogue.py")  # transformers asks nobody for it
    faults = []
    for path in sorted((PACKAGE / "core").glob("*.py")):
        if path.name == "catalogue.py":
            allowed = allowed | {"pyarrow"}
        faults += [f"{path.name} imports {name}" for name in imported(path) if name.split(".")[0] not in allowed]
        # transformers copies only siblings that are imported in this very form.
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            relative = isinstance(node, ast.ImportFrom) and node.level
            if relative and (node.level != 1 or not node.module or "." in node.module):
                faults.append(f"{path.name}, line {node.lineno}: not `from .sibling import name`")
    assert faults == []


def test_the_package_never_imports_the_scripts():
    for path in MODULES:
        assert not any(name.split(".")[0] in {"dataset_scripts", "tests"} for name in imported(path))


def test_top_level():
    found = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode == 0 and found.stdout:
        names = {line.split("/")[0] for line in found.stdout.splitlines()}
        assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def python(code, *words):
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True).stdout


def test_import_and_help_load_no_torch():
    heavy = "{'torch', 'transformers', 'datasets', 'numpy', 'peft', 'trl'} & set(sys.modules)"
    assert python(f"import sys, trsr; print({heavy})").strip() == "set()"
    code = f"""
import sys
from trsr.cli import main
try:
    main(['--help'])
except SystemExit:
    pass
print('heavy', {heavy})
"""
    out = python(code)
    assert "heavy set()" in out
    assert "quickstart" in out


def test_public_names_are_given_and_no_others():
    assert {"Item", "Scorer", "load_recipe", "summarize"} < set(trsr.__all__)
    assert {name: getattr(trsr, name).__name__ for name in trsr.__all__[1:]} == {
        name: name for name in trsr.__all__[1:]
    }
    with pytest.raises(AttributeError, match="module 'trsr' has no attribute 'Itme'"):
        trsr.Itme  # noqa: B018


# A finder that asks all finders again, as some tools that watch imports do.
WATCHED = """
import sys, importlib.abc, importlib.util
class Watch(importlib.abc.MetaPathFinder):
    asked = False
    def find_spec(self, name, path=None, target=None):
        if self.asked or name != 'transformers.pipelines': return None
        self.asked = True
        try: return importlib.util.find_spec(name)
        finally: self.asked = False
sys.meta_path.insert(0, Watch())
import trsr
sys.meta_path.insert(0, Watch())
"""
BEFORE = [
    "import trsr",
    "import transformers.pipelines, trsr",
    "import trsr.core.pipeline",
    "import trsr; from importlib.util import find_spec; find_spec('transformers.pipelines').loader.get_source",
    "from importlib.util import find_spec; find_spec('transformers.pipelines'); import trsr; find_spec('transformers.pipelines')",
    "import trsr, importlib; importlib.reload(trsr); assert len([1 for one in __import__('sys').meta_path if 'Register' in type(one).__name__]) == 1",
    "import trsr, transformers.pipelines as p, importlib; importlib.reload(p)",
    "import trsr, transformers.pipelines as p, importlib; importlib.reload(p); importlib.reload(trsr)",
    "import trsr, sys; [sys.modules.pop(one) for one in [*sys.modules] if one.startswith('trsr')]; import trsr",
    WATCHED,
]
# Each in a copy of a process that has what `transformers.pipelines` imports, but neither it nor `trsr`: to import those
# costs seconds.
EACH = """
import json, os, sys, transformers.pipelines
for name in [one for one in sys.modules if one.startswith("transformers.pipelines")]:
    del sys.modules[name]
del transformers.pipelines
assert not [one for one in sys.modules if one.startswith("trsr")]
unknown = []
for before in json.loads(sys.argv[1]):
    if not (child := os.fork()):
        known = 1
        try:
            exec(before, {"__name__": "__main__"})
            from transformers.pipelines import PIPELINE_REGISTRY as registry
            known = int("text-rich-recommendation" not in registry.supported_tasks)
        finally:
            os._exit(known)
    if os.waitpid(child, 0)[1]:
        unknown.append(before)
print(json.dumps(unknown))
"""


def test_the_task_is_known_whatever_was_imported_before():
    # Without our package the task is not known.
    assert json.loads(python(EACH, json.dumps(["pass", *BEFORE]))) == ["pass"]


def test_the_task_is_known_in_a_new_process_and_the_hook_leaves_the_module_as_it_is():
    code = "import trsr, inspect, transformers.pipelines as p; print(p.__spec__.name, p.__file__, len(inspect.getsource(p)) > 1000)"
    known = "print('text-rich-recommendation' in p.PIPELINE_REGISTRY.supported_tasks)"
    name, file, has_source, task_known = python(f"{code}\n{known}").split()
    assert (name, has_source, task_known) == ("transformers.pipelines", "True", "True")
    assert file.endswith("__init__.py")


def test_what_only_posix_has_is_not_needed():
    for path in MODULES:
        if path.name != "costs.py":
            assert not {"resource", "fcntl", "pwd", "grp", "termios"} & set(imported(path)), path
        text = path.read_text(encoding="utf-8")
        # Paths within repos are joined by /, also where those of the system are not.
        assert not re.search(r"str\([^()]*relative_to\(|os\.sep\b", text), path
    # What we stand on has its own ways; so ours alone is imported without.
    ours = "import trsr.recommender.evaluate, bench.machinery, bench.data"
    gone = "import sys; [sys.modules.pop(one) for one in [*sys.modules] if one.split('.')[0] == 'trsr']"
    blocked = f"{ours}; {gone}; sys.modules['resource'] = None; {ours}"
    used = "from trsr.records.costs import peak_mib; from trsr.recommender.scores import cost; print(peak_mib() > 50, cost(0)['peak_mib'] > 50)"
    assert python(f"{blocked}\n{used}").split() == ["True", "True"]


def test_memory_is_told_in_the_same_unit_everywhere(monkeypatch):
    import resource

    from trsr.records.costs import peak_mib

    class Used:
        ru_maxrss = 3 << 20

    monkeypatch.setattr(resource, "getrusage", lambda who: Used)
    for system, mib in (("linux", 3 << 10), ("darwin", 3)):
        monkeypatch.setattr(sys, "platform", system)
        assert peak_mib() == mib


def test_text_files_have_the_same_bytes_on_every_system():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "write_text":
                said = {one.arg for one in node.keywords}
                assert {"encoding", "newline"} <= said, f"{path.name}, line {node.lineno}"


def test_no_pickles_and_no_machine_paths():
    for path in ROOT.glob("*/**/*"):
        hidden = any(part.startswith((".", "__pycache__")) for part in path.relative_to(ROOT).parts)
        if path.is_file() and not hidden:
            assert path.suffix not in {".bin", ".pt", ".pth", ".pkl", ".pickle"}, path
            if path.suffix in {".py", ".md", ".yaml", ".json", ".toml", ".txt"}:
                text = path.read_text(encoding="utf-8")
                assert not re.search(r"(?<![\w.])/(work|root|home|tmp)/", text), path
