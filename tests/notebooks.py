"What the tests need to know about the notebooks: where they are, their cells, their directives."

import json
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
MODULES = sorted(NBS.glob("[0-9]*.ipynb"))
LESSONS = sorted((NBS / "lessons").glob("*.ipynb"))
HOWTOS = sorted((NBS / "howto").glob("*.ipynb"))
ALL = sorted(p for p in NBS.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)


@dataclass(frozen=True)
class Cell:
    "One code or markdown cell."

    number: int
    kind: str
    source: str
    outputs: list

    @property
    def directives(self) -> set[str]:
        return set(re.findall(r"^#\|\s*(.+?)\s*$", self.source, re.M)) if self.kind == "code" else set()

    @property
    def exported(self) -> bool:
        return any(re.match(r"exports?i?\b|exporti\b", d) for d in self.directives)

    @property
    def skipped(self) -> bool:
        return bool({"slow", "notest", "eval: false", "eval:false"} & self.directives)


def cells(path: Path) -> list[Cell]:
    "The cells of a notebook, numbered from 0 over code and markdown, as nbdev_test counts them."
    book = json.loads(path.read_text(encoding="utf-8"))
    return [Cell(i, c["cell_type"], "".join(c["source"]), c.get("outputs", [])) for i, c in enumerate(book["cells"])]


def module_name(path: Path) -> str:
    "The module that a notebook exports: the word after `default_exp`."
    for cell in cells(path):
        found = re.search(r"^#\|\s*default_exp\s+(\S+)", cell.source, re.M)
        if found:
            return f"niwt_nb.{found[1]}"
    raise LookupError(f"{path.name} has no default_exp cell")
