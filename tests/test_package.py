"The wheel: what is in it, that it imports with nothing but its runtime dependencies beside it, and that nothing extra is imported on the way."

import importlib.metadata as metadata
import json
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from notebooks import LESSONS, MODULES, NBS, PACKAGE, ROOT, module_name
from packaging.requirements import Requirement

DEV_ONLY = (
    "nbdev",
    "fastcore",
    "execnb",
    "pytest",
    "hypothesis",
    "nbclient_",
    "playwright",
    "mypy",
    "ruff",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    "The wheel built from this checkout."
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(out),
        str(ROOT),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=out)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return next(out.glob("*.whl"))


def test_wheel_holds_every_module_and_data_file(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        p.relative_to(ROOT).as_posix()
        for p in PACKAGE.rglob("*")
        if p.is_file() and p.suffix != ".pyc"
    }
    assert not wanted - names, f"missing from the wheel: {wanted - names}"
    assert not [n for n in names if n.startswith(("tests", "nbs", "tools", "benchmarks"))]
    pages = {"glossary.ipynb", "paper_map.ipynb", "limits.ipynb", "teaching.ipynb"}
    course = pages | {
        p.name
        for p in (NBS / "lessons").rglob("*")
        if p.suffix in (".ipynb", ".json", ".csv", ".py")
    }
    missing = course - {Path(n).name for n in names if n.startswith("niwt_nb/lessons/")}
    assert len(course) > 25 and not missing, f"missing from the wheel: {missing}"


def runtime_closure() -> set[str]:
    "Names of the distributions that the package's requirements need, without extras."
    line = re.search(
        r"^requirements = (.+)$", (ROOT / "settings.ini").read_text(encoding="utf-8"), re.M
    )[1]
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
from niwt_nb.course.copies import _checker_code, copy_lessons, _lessons_folder
assert "site-packages" in str(_lessons_folder()), _lessons_folder()
assert "Exercise(" in _checker_code("10.5")
done = copy_lessons("course")
assert all(state == "new" for state in done.values()), done
assert all(state == "as it was" for state in copy_lessons("course").values())
print("imported", len({modules!r}))
"""
    done = subprocess.run(
        [str(bare), "-I", "-c", code], capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["imported", str(len(modules))]
    assert (
        len(list((tmp_path / "course").glob("[0-9][0-9]_*.ipynb")))
        == len(list((tmp_path / "course" / "clean").glob("*.ipynb")))
        == len(LESSONS)
    )


def test_the_bare_environment_is_bare(bare, tmp_path):
    done = subprocess.run(
        [str(bare), "-I", "-c", "import fastcore"], capture_output=True, text=True, cwd=tmp_path
    )
    assert "No module named 'fastcore'" in done.stderr


GUARD = """
import json, os, sys, torch
from pathlib import Path
from niwt_nb.core import import_torchvision

MISSING = '''
import torch
try: torch.ops.torchvision.nms.default
except AttributeError: raise RuntimeError("operator torchvision::nms does not exist") from None
torch.ops.torchvision.qnms.default
kind = "mismatched"
'''
sources = {"matched": 'kind = "matched"', "mismatched": MISSING, "broken": 'raise RuntimeError("something else")'}
for name, source in sources.items():
    if os.fork():
        assert os.wait()[1] == 0, name
        continue
    folder = Path(sys.argv[1]) / name / "torchvision"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(source)
    sys.path.insert(0, str(folder.parent))
    try:
        found = import_torchvision()
        told = [found.kind, "_niwt_schemas" in vars(found), import_torchvision() is found]
    except Exception as e:
        told = [type(e).__name__, str(e)]
    print(json.dumps([name, told]), flush=True)
    os._exit(0)
"""


def test_the_import_of_torchvision_is_guarded(tmp_path):
    "A torchvision that works is returned as it is, one that lacks its operators' schemas gets them, another error is passed on."
    done = subprocess.run(
        [sys.executable, "-c", GUARD, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = dict(map(json.loads, done.stdout.splitlines()))
    assert told["matched"] == ["matched", False, True]
    assert told["mismatched"] == ["mismatched", True, True]
    assert "something else" in told["broken"][1]
