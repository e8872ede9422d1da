"What the tests need to know about the notebooks: where they are, their cells, their directives, the modules that they export."

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
PACKAGE = ROOT / "niwt_nb"


@dataclass(frozen=True)
class Cell:
    "One code or markdown cell."

    number: int
    kind: str
    source: str
    outputs: list
    id: str = ""

    @property
    def directives(self) -> set[str]:
        return (
            set(re.findall(r"^#\|\s*(.+?)\s*$", self.source, re.M))
            if self.kind == "code"
            else set()
        )

    @property
    def exported(self) -> bool:
        return any(re.match(r"exports?i?\b|exporti\b", d) for d in self.directives)


@cache
def cells(path: Path) -> list[Cell]:
    "The cells of a notebook, numbered from 0 over code and markdown, as nbdev_test counts them."
    book = json.loads(path.read_text(encoding="utf-8"))
    return [
        Cell(i, c["cell_type"], "".join(c["source"]), c.get("outputs", []), c.get("id", ""))
        for i, c in enumerate(book["cells"])
    ]


def default_exp(path: Path) -> str:
    "What stands after `default_exp`; empty for a notebook that exports nothing."
    found = (
        re.search(r"^#\|\s*default_exp\s+(\S+)", c.source, re.M)
        for c in cells(path)
        if c.kind == "code"
    )
    return next((f[1] for f in found if f), "")


def module_name(path: Path) -> str:
    "The module that a notebook exports."
    return f"{PACKAGE.name}.{default_exp(path)}"


def module_file(name: str) -> Path:
    "The file of a module of the package."
    return ROOT.joinpath(*name.split(".")).with_suffix(".py")


def label(path: Path) -> str:
    "A notebook's name in the reports of pytest: its place below nbs/."
    return path.relative_to(NBS).with_suffix("").as_posix()


ALL = sorted(p for p in NBS.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
MODULES = [p for p in ALL if default_exp(p)]
LESSONS = [p for p in ALL if p.parent.name == "lessons"]
HOWTOS = [p for p in ALL if p.parent.name == "howto"]
TESTED = [p for p in ALL if not (p.parent / ".notest").exists()]  # by nbdev_test


def notebook(name: str) -> Path:
    "The one notebook of this file name (without its number) or of this module, wherever it lies."
    found = [
        p
        for p in ALL
        if p.parent.name != "clean"
        and name in (p.stem, re.sub(r"^\d+[a-z]?_", "", p.stem), default_exp(p))
    ]
    if len(found) != 1:
        raise LookupError(f"{len(found)} notebooks are called {name!r}: {list(map(label, found))}")
    return found[0]


# modules, or folders of modules, that compute
METHOD = {"method", "evaluate", "importance", "mapping", "transfer", "baselines"}


def numeric(path: Path) -> bool:
    "Whether a notebook is among those that are run once more as on a lesser processor: the method, and lessons 0 to 6."
    return path in LESSONS[:7] or bool(METHOD & set(default_exp(path).split(".")))
