"The wheel: what is in it, that it imports with nothing but its runtime dependencies beside it, and that nothing extra is imported on the way."

import importlib.metadata as metadata
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from notebooks import LESSONS, MODULES, ROOT, module_name
from packaging.requirements import Requirement

DEV_ONLY = ("nbdev", "fastcore", "execnb", "pytest", "hypothesis", "nbclient_", "playwright", "mypy", "ruff")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    "The wheel built from this checkout."
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=out)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return next(out.glob("*.whl"))


def test_wheel_holds_every_module_and_data_file(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"niwt_nb/{p.name}" for p in (ROOT / "niwt_nb").iterdir() if p.is_file()}
    assert not wanted - names, f"missing from the wheel: {wanted - names}"
    assert not [n for n in names if n.startswith(("tests", "nbs"))]
    course = {p.name for p in [*(ROOT / "nbs" / "lessons").iterdir(), *(ROOT / "nbs").glob("[a-z]*.ipynb")] if p.suffix in (".ipynb", ".json", ".csv")}
    course |= {p.name for p in (ROOT / "nbs" / "lessons" / "checkers").glob("*.py")}
    missing = course - {"index.ipynb"} - {Path(n).name for n in names if n.startswith("niwt_nb/lessons/")}
    assert len(course) > 25 and not missing, f"missing from the wheel: {missing}"


def runtime_closure() -> set[str]:
    "Names of the distributions that the package's requirements need, without extras."
    line = re.search(r"^requirements = (.+)$", (ROOT / "settings.ini").read_text(encoding="utf-8"), re.M)[1]
    todo, found = [Requirement(r) for r in line.split()], set()
    while todo:
        wanted = todo.pop()
        name = wanted.name.lower().replace("_", "-")
        if name in found or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # a platform's own wheels, such as CUDA libraries beside a CPU build
        found.add(name)
        todo += [Requirement(r) for r in needs]
    return found


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    "A new environment with the wheel and links to its runtime dependencies, nothing else."
    home = tmp_path_factory.mktemp("bare")
    venv.create(home, with_pip=False, symlinks=True)
    site = next(home.glob("lib/python*/site-packages"))
    for name in runtime_closure():
        dist = metadata.distribution(name)
        for top in {Path(f).parts[0] for f in dist.files or [] if not str(f).startswith("..")}:
            if top != "__pycache__" and not (site / top).exists():
                (site / top).symlink_to(dist.locate_file(top))
    zipfile.ZipFile(wheel).extractall(site)
    return home / "bin" / "python"


def test_wheel_imports_and_hands_out_its_lessons_in_an_empty_environment(bare, tmp_path):
    modules = [module_name(p) for p in MODULES]
    code = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
extra = sorted(m for m in {DEV_ONLY!r} if m in sys.modules)
assert not extra, extra
assert "torchvision" not in sys.modules, "torchvision was imported before anyone asked for it"
from niwt_nb.course import checker_code, copy_lessons, lessons_folder
assert "site-packages" in str(lessons_folder()), lessons_folder()
assert "Exercise(" in checker_code("10.5")[0]
done = copy_lessons("course")
assert all(state == "new" for state in done.values()), done
assert all(state == "as it was" for state in copy_lessons("course").values())
print("imported", len({modules!r}))
"""
    done = subprocess.run([str(bare), "-I", "-c", code], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["imported", str(len(modules))]
    assert len(list((tmp_path / "course").glob("[0-9][0-9]_*.ipynb"))) == len(list((tmp_path / "course" / "clean").glob("*.ipynb"))) == len(LESSONS)


def test_the_bare_environment_is_bare(bare, tmp_path):
    done = subprocess.run([str(bare), "-I", "-c", "import fastcore"], capture_output=True, text=True, cwd=tmp_path)
    assert "No module named 'fastcore'" in done.stderr


def test_torchvision_guard_declares_nothing_on_a_matched_install(tmp_path):
    "A torchvision whose import works must be returned as it is."
    fake = tmp_path / "torchvision"
    fake.mkdir()
    (fake / "__init__.py").write_text("matched = True\n")
    code = """
import sys; sys.path.insert(0, sys.argv[1])
from niwt_nb.core import import_torchvision
tv = import_torchvision()
assert tv.matched and "_niwt_schemas" not in vars(tv)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_torchvision_guard_declares_the_schemas_when_the_operators_are_missing(tmp_path):
    "A torchvision that stops on its first import as a mismatched one does must import on the second."
    fake = tmp_path / "torchvision"
    fake.mkdir()
    (fake / "__init__.py").write_text(
        "import torch\n"
        "try:\n    torch.ops.torchvision.nms.default\n"
        "except AttributeError:\n    raise RuntimeError('operator torchvision::nms does not exist') from None\n"
        "torch.ops.torchvision.qnms.default\nmatched = False\n"
    )
    code = """
import sys; sys.path.insert(0, sys.argv[1])
from niwt_nb.core import import_torchvision
tv = import_torchvision()
assert tv.matched is False and "_niwt_schemas" in vars(tv)
assert import_torchvision() is tv
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_torchvision_guard_passes_other_errors_on(tmp_path):
    fake = tmp_path / "torchvision"
    fake.mkdir()
    (fake / "__init__.py").write_text("raise RuntimeError('something else')\n")
    code = "import sys; sys.path.insert(0, sys.argv[1])\nfrom niwt_nb.core import import_torchvision\nimport_torchvision()"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "something else" in done.stderr
