"The committed files agree with their sources: package with notebooks, notebooks with nbdev_clean, README with index; imports only point backwards."

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from notebooks import ALL, MODULES, PACKAGE, ROOT, module_file, module_name
from house import CHAPTERS, FREE_OF_THE_DRAWN_WORLD
from readme import render

BIN = Path(sys.executable).parent
COPIED = ("nbs", "niwt_nb", "settings.ini", "setup.py", "pyproject.toml", "README.md")


def package(root: Path) -> dict[str, bytes]:
    "The package's modules below a folder of the project."
    folder = root / PACKAGE.name
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.py")}


DAMAGED = module_file(module_name(MODULES[0])).relative_to(PACKAGE).as_posix()


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "A copy of the project that the tools may write to; one module is damaged."
    there = tmp_path_factory.mktemp("project")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source,
                there / name,
                ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"),
            )
        else:
            shutil.copy(source, there / name)
    with open(there / PACKAGE.name / DAMAGED, "a", encoding="utf-8") as f:
        f.write("\nx = 1\n")
    return there


def run(command: str, cwd: Path, **kw) -> subprocess.CompletedProcess:
    "Run an nbdev command of this environment."
    return subprocess.run(
        [str(BIN / command), *kw.pop("args", [])],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        **kw,
    )


def test_exported_package_is_in_step_with_the_notebooks(copy):
    before = package(copy)
    done = run("nbdev_export", copy)
    assert done.returncode == 0, done.stderr
    ours, exported = package(ROOT), package(copy)
    differ = sorted(n for n in ours | exported if ours.get(n) != exported.get(n))
    assert not differ, f"run nbdev_export: {differ} differ from what the notebooks export"
    assert [n for n in ours if ours[n] != before[n]] == [DAMAGED], (
        "a damaged module is noticed, and written anew"
    )


def test_notebooks_are_clean(copy):
    done = run("nbdev_clean", copy)
    assert done.returncode == 0, done.stderr
    dirty = [
        str(p.relative_to(ROOT))
        for p in ALL
        if (copy / p.relative_to(ROOT)).read_bytes() != p.read_bytes()
    ]
    assert not dirty, f"run nbdev_clean: {dirty}"


def test_every_module_has_its_notebook():
    modules = {
        p
        for p in PACKAGE.rglob("*.py")
        if p.name not in ("__init__.py", "__main__.py", "_modidx.py")
    }
    assert modules == {module_file(module_name(p)) for p in MODULES}


def imported(source: str, module: str, known: set[str]) -> set[str]:
    "Which of the known modules a module imports, in any spelling, at the top or inside functions."
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            name = ".".join([*above, *([node.module] if node.module else [])])
            found |= {name} | {f"{name}.{a.name}" for a in node.names}
    return found & known


def test_imports_are_found_in_every_spelling():
    known = {f"niwt_nb.{m}" for m in ("core", "data.cub", "data.text", "cli", "bench")}
    source = "from ..core import a\nfrom niwt_nb.data.cub import b\nfrom . import text, other\nimport os, niwt_nb.cli\nfrom .. import bench"
    assert imported(source, "niwt_nb.data.images", known) == known
    assert imported("from .core import a", "niwt_nb.bench", known) == {"niwt_nb.core"}


def test_imports_point_downwards_only():
    place, known, wrong = {c: i for i, c in enumerate(CHAPTERS)}, set(map(module_name, MODULES)), []
    for name in sorted(known):
        for other in sorted(imported(module_file(name).read_text(encoding="utf-8"), name, known)):
            mine, theirs = name.split(".")[1], other.split(".")[1]
            up = place[theirs] > place[mine] or (
                theirs == "fieldguide" and mine in FREE_OF_THE_DRAWN_WORLD
            )
            wrong += [f"{name} imports {other}"] * up
    assert not wrong, wrong


def test_readme_is_rendered_from_the_index():
    assert (ROOT / "README.md").read_text(encoding="utf-8") == render(
        ROOT / "nbs" / "index.ipynb"
    ), "run: python tools/readme.py"


def test_versions_agree():
    config = (ROOT / "settings.ini").read_text(encoding="utf-8")
    version = re.search(r"^version = (\S+)", config, re.M)[1]
    assert f'__version__ = "{version}"' in (ROOT / "niwt_nb" / "__init__.py").read_text(
        encoding="utf-8"
    )


def test_every_requirement_is_pinned():
    pinned = {
        re.split(r"==", line)[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().split()
        if "==" in line
    }
    wanted = re.findall(
        r"^(?:dev_|site_)?requirements = (.+)$",
        (ROOT / "settings.ini").read_text(encoding="utf-8"),
        re.M,
    )
    names = {
        re.split(r"[<>=!~\[]", w)[0].lower().replace("_", "-")
        for line in wanted
        for w in line.split()
    }
    assert names and not names - pinned, f"not in constraints.txt: {names - pinned}"


@pytest.mark.parametrize("name, code", [("sound", 0), ("broken", 1)])
def test_a_broken_notebook_fails(name, code, copy):
    shutil.copy(ROOT / "tests" / "fixtures" / f"{name}.ipynb", copy / "nbs" / f"{name}.ipynb")
    try:
        done = run("nbdev_test", copy, args=["--path", f"nbs/{name}.ipynb"])
    finally:
        (copy / "nbs" / f"{name}.ipynb").unlink()
    assert done.returncode == code, done.stdout + done.stderr
