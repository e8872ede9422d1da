"The committed files agree with their sources: package with notebooks, notebooks with nbdev_clean, README with index; imports only point backwards."

import ast
import filecmp
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from notebooks import ALL, MODULES, ROOT, module_name
from readme import render

BIN = Path(sys.executable).parent
COPIED = ("nbs", "niwt_nb", "settings.ini", "setup.py", "pyproject.toml", "README.md")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "A copy of the project that the tools may write to."
    there = tmp_path_factory.mktemp("project")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, there / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
        else:
            shutil.copy(source, there / name)
    return there


def run(command: str, cwd: Path, **kw) -> subprocess.CompletedProcess:
    "Run an nbdev command of this environment."
    return subprocess.run([str(BIN / command), *kw.pop("args", [])], cwd=cwd, capture_output=True, text=True, timeout=300, **kw)


def test_exported_package_is_in_step_with_the_notebooks(copy):
    done = run("nbdev_export", copy)
    assert done.returncode == 0, done.stderr
    names = sorted(p.name for p in (copy / "niwt_nb").iterdir() if p.suffix == ".py")
    differ = [n for n in names if not (ROOT / "niwt_nb" / n).exists() or not filecmp.cmp(copy / "niwt_nb" / n, ROOT / "niwt_nb" / n, shallow=False)]
    assert not differ, f"run nbdev_export: {differ} differ from what the notebooks export"


def test_notebooks_are_clean(copy):
    done = run("nbdev_clean", copy)
    assert done.returncode == 0, done.stderr
    dirty = [str(p.relative_to(ROOT)) for p in ALL if (copy / p.relative_to(ROOT)).read_bytes() != p.read_bytes()]
    assert not dirty, f"run nbdev_clean: {dirty}"


def test_every_module_has_its_notebook():
    modules = {p.stem for p in (ROOT / "niwt_nb").glob("*.py")} - {"__init__", "_modidx"}
    assert modules == {module_name(p).split(".")[1] for p in MODULES}


def imported(source: str) -> set[str]:
    "Names of this package's modules that a module imports, in either spelling, at the top or inside functions."
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.level == 1 or (node.module or "").split(".")[0] == "niwt_nb"):
            module = (node.module or "").removeprefix("niwt_nb").strip(".")
            found |= {module} if module else {a.name for a in node.names if not a.name.startswith("_")}
    return found


def test_imports_are_found_in_every_spelling():
    assert imported("from .core import a\nfrom niwt_nb.data import b\nfrom . import bench, __version__\nimport os") == {"core", "data", "bench"}


def test_a_module_imports_only_modules_before_it():
    order = [module_name(p).split(".")[1] for p in MODULES]
    wrong = []
    for i, name in enumerate(order):
        used = imported((ROOT / "niwt_nb" / f"{name}.py").read_text(encoding="utf-8"))
        wrong += [f"{name} imports {u}" for u in used if u not in order[:i]]
    assert not wrong, wrong


def test_readme_is_rendered_from_the_index():
    assert (ROOT / "README.md").read_text(encoding="utf-8") == render(ROOT / "nbs" / "index.ipynb"), "run: python tests/readme.py"


def test_versions_agree():
    config = (ROOT / "settings.ini").read_text(encoding="utf-8")
    version = re.search(r"^version = (\S+)", config, re.M)[1]
    assert f'__version__ = "{version}"' in (ROOT / "niwt_nb" / "__init__.py").read_text(encoding="utf-8")


def test_every_requirement_is_pinned():
    pinned = {re.split(r"==", line)[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line}
    wanted = re.findall(r"^(?:dev_)?requirements = (.+)$", (ROOT / "settings.ini").read_text(encoding="utf-8"), re.M)
    names = {re.split(r"[<>=!~\[]", w)[0].lower().replace("_", "-") for line in wanted for w in line.split()}
    assert names and not names - pinned, f"not in constraints.txt: {names - pinned}"


@pytest.mark.parametrize("name, code", [("sound", 0), ("broken", 1)])
def test_a_broken_notebook_fails(name, code, copy):
    shutil.copy(ROOT / "tests" / "fixtures" / f"{name}.ipynb", copy / "nbs" / f"{name}.ipynb")
    try:
        done = run("nbdev_test", copy, args=["--path", f"nbs/{name}.ipynb"])
    finally:
        (copy / "nbs" / f"{name}.ipynb").unlink()
    assert done.returncode == code, done.stdout + done.stderr


def test_a_damaged_export_is_noticed(copy):
    target = copy / "niwt_nb" / "core.py"
    target.write_text(target.read_text(encoding="utf-8") + "\nx = 1\n", encoding="utf-8")
    assert not filecmp.cmp(target, ROOT / "niwt_nb" / "core.py", shallow=False)
    assert run("nbdev_export", copy).returncode == 0
    assert filecmp.cmp(target, ROOT / "niwt_nb" / "core.py", shallow=False)
