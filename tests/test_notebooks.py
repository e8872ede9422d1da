"""Every notebook that is not a lesson is executed as `nbdev_test` does it, by the same function, and once.

An exported cell is compiled under the name and with the line numbers of the file that holds it in the package (another test proves the two in step):
what its checks run counts for branch coverage of the package, and a traceback leads to the file.
"""

import ast
import os
import re
import shutil
import sys
from pathlib import Path

import matplotlib
import pytest
import torch
from execnb.shell import CaptureShell
from IPython.core.compilerop import CachingCompiler
from IPython.core.interactiveshell import InteractiveShell
from nbdev import test as nbdev
from slipcover import branch, pytest_plugin
from notebooks import MODULES, ROOT, TESTED, label, module_file, module_name, numeric

MEASURE = pytest_plugin._slipcover_instance  # of this process, where coverage is measured


def exported_lines(file: Path) -> dict[str, int]:
    "Id of an exported cell -> the line of the exported file before its first one."
    lines = file.read_text(encoding="utf-8").splitlines()
    return {
        found[1]: i
        for i, line in enumerate(lines, 1)
        if (found := re.match(r"# %% \S+\.ipynb #(\w+)$", line))
    }


class Compiler(CachingCompiler):
    "Compiles a cell under the name of a file, some lines down, when told to."

    place: tuple[str, int] | None = None

    def cache(self, transformed_code, number=0, raw_code=None):
        return self.place[0] if self.place else super().cache(transformed_code, number, raw_code)

    def ast_parse(self, source, filename="<unknown>", symbol="exec"):
        tree = super().ast_parse(source, filename, symbol)
        if not self.place:
            return tree
        tree = ast.increment_lineno(tree, self.place[1])
        return branch.preinstrument(tree) if MEASURE else tree

    def __call__(self, source, filename, symbol, *args, **kw):
        code = super().__call__(source, filename, symbol, *args, **kw)
        return MEASURE.instrument(code) if MEASURE and self.place else code


class Shell(CaptureShell):
    "Runs a notebook's cells as nbdev_test does, and knows where the exported ones stand in the package."

    compiler_class = Compiler
    exported: dict[str, tuple[str, int]] = {}  # cell id -> file, line before the first
    ran: dict[str, int]

    def cell(self, cell, *args, **kw):
        if cell.cell_type == "code":
            self.compile.place = self.exported.get(cell.id)
            kind = "exported" if self.compile.place else "check"
            Shell.ran[kind] += 1
        super().cell(cell, *args, **kw)
        self.compile.place = None


@pytest.fixture
def shell(monkeypatch):
    "nbdev's test of one notebook with our shell; what an IPython shell changes in a process is put back."
    monkeypatch.setattr(nbdev, "CaptureShell", Shell)
    monkeypatch.setattr(Shell, "ran", {"exported": 0, "check": 0}, raising=False)
    monkeypatch.setattr(InteractiveShell, "_instance", InteractiveShell._instance)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setitem(os.environ, "IN_TEST", "1")
    monkeypatch.setattr(sys, "path", [*sys.path])
    kept = {
        name: getattr(sys, name)
        for name in ("excepthook", "displayhook", "ps1", "ps2")
        if hasattr(sys, name)
    }
    cwd, style, backend = os.getcwd(), matplotlib.rcParams.copy(), matplotlib.get_backend()
    torch.manual_seed(0)  # PyTorch draws a seed for each process: the lot decides nothing here
    yield Shell
    os.chdir(cwd)
    matplotlib.pyplot.close("all")
    matplotlib.rcParams.update(style)
    matplotlib.pyplot.switch_backend(backend)
    for name, value in kept.items():
        setattr(sys, name, value)


def run(path: Path) -> bool:
    "Whether nbdev_test passes the notebook."
    passed, _ = nbdev.test_nb(path, skip_flags=["notest", "slow"], basepath=ROOT)
    return passed


LARGEST_FIRST = sorted(TESTED, key=lambda p: -p.stat().st_size)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, id=label(p), marks=[pytest.mark.numeric] if numeric(p) else [])
        for p in LARGEST_FIRST
    ],
)
def test_the_notebook_runs_and_its_checks_hold(path, shell, monkeypatch, capfd):
    if path in MODULES:
        file = module_file(module_name(path))
        monkeypatch.setattr(
            shell,
            "exported",
            {cell: (str(file), line) for cell, line in exported_lines(file).items()},
        )
    if not run(path):
        pytest.fail(capfd.readouterr().err, pytrace=False)
    if path in MODULES:
        assert shell.ran["exported"] == len(shell.exported), (
            "run nbdev_export: the package holds other cells than the notebook"
        )
        assert shell.ran["check"] >= 3, f"only {shell.ran['check']} check cells"


def test_a_failing_check_fails_the_notebook_and_an_exported_cell_knows_its_file(
    shell, tmp_path, capfd, monkeypatch
):
    for name in ("sound", "broken"):
        shutil.copy(Path(__file__).parent / "fixtures" / f"{name}.ipynb", tmp_path)
    assert run(tmp_path / "sound.ipynb")
    assert not run(tmp_path / "broken.ipynb")
    assert "AssertionError" in capfd.readouterr().err
