"""The measures of the house beside their limits: `python tools/house.py`, with `--list` also where each limit is broken.

The exit code is 1 if a limit is broken; with `--no-worse`, as the tests run it, if one is broken by more than `CEILINGS` allow.
Lines are counted after `ruff format --line-length 100`, so that wide lines hide nothing.
"""

import argparse
import ast
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "niwt_nb"
CHAPTERS = (
    "core",
    "data",
    "network",
    "fieldguide",
    "method",
    "evaluate",
    "explain",
    "figures",
    "widgets",
    "runs",
    "course",
    "cli",
)
FREE_OF_THE_DRAWN_WORLD = ("core", "data", "network", "method", "evaluate", "explain", "figures")
CODE_COLUMNS, LESSON_COLUMNS = 100, 88
# what is still over its limit may only get smaller: lower a number here whenever that is possible
CEILINGS = {
    "lines of the package": 24_083,
    "functions of more than six parameters": 16,
    "seconds of": 60,  # the time of a machine is no verdict
}


@dataclass
class Measure:
    "One row of the table: what was measured, how much of it there is, how much may be, and where it is too much."

    name: str
    value: float
    limit: float
    places: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        return self.value <= self.limit

    @property
    def no_worse(self) -> bool:
        return self.value <= max(
            [self.limit, *(c for begins, c in CEILINGS.items() if self.name.startswith(begins))]
        )


def modules(package: Path) -> dict[str, str]:
    "Name of each exported module (such as `method.niwt`) -> its source."
    found = {}
    for path in sorted(package.rglob("*.py")):
        if (
            path.name not in ("__init__.py", "_modidx.py")
            and "lessons" not in path.relative_to(package).parts
        ):
            found[".".join(path.relative_to(package).with_suffix("").parts)] = path.read_text(
                encoding="utf-8"
            )
    return found


def uses(name: str, source: str, deep: bool = True) -> set[str]:
    "Modules of the package that the module `name` imports, in any spelling; `deep`: inside functions too."
    tree, found, here = ast.parse(source), set(), name.split(".")
    for node in ast.walk(tree) if deep else tree.body:
        if isinstance(node, ast.Import):
            found |= {
                a.name.removeprefix(f"{PACKAGE}.")
                for a in node.names
                if a.name.startswith(f"{PACKAGE}.")
            }
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            parts = [*here[: len(here) - node.level], *([node.module] if node.module else [])]
        elif (node.module or "").split(".")[0] == PACKAGE:
            parts = (node.module or "").split(".")[1:]
        else:
            continue
        base = ".".join(parts)
        for alias in node.names:
            # `from . import x`, or a room of a chapter
            if base == "" or (base in CHAPTERS and base not in ("core", "cli")):
                found |= (
                    {f"{base}.{alias.name}".strip(".")} if not alias.name.startswith("_") else set()
                )
            else:
                found.add(base)
    return found


def circles(graph: dict[str, set[str]]) -> list[str]:
    "Circles among the modules, each as a chain of names."
    found: list[str] = []
    state: dict[str, int] = {}

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            found.append(" -> ".join([*path[path.index(name) :], name]))
        elif not state.get(name):
            for other in sorted(graph.get(name, ())):
                visit(other, [*path, name])
            state[name] = 1

    for name in graph:
        visit(name, [])
    return found


def upward(graph: dict[str, set[str]]) -> list[str]:
    "Imports that point upwards in the order of the chapters, or from a general room into the drawn world."
    place, wrong = {c: i for i, c in enumerate(CHAPTERS)}, []
    for name, others in graph.items():
        for other in sorted(others):
            mine, theirs = name.split(".")[0], other.split(".")[0]
            if mine not in place or theirs not in place:
                continue
            if place[theirs] > place[mine] or (
                theirs == "fieldguide" and mine in FREE_OF_THE_DRAWN_WORLD
            ):
                wrong.append(f"{name} imports {other}")
    return wrong


def formatted_lines(package: Path) -> int:
    "Lines of the package, without `_modidx`, after `ruff format --line-length 100`."
    with tempfile.TemporaryDirectory() as box:
        copy = Path(box) / PACKAGE
        shutil.copytree(
            package, copy, ignore=shutil.ignore_patterns("__pycache__", "lessons", "*.safetensors")
        )
        (copy / "_modidx.py").unlink(missing_ok=True)
        ruff = shutil.which("ruff") or str(Path(sys.executable).parent / "ruff")
        subprocess.run(
            [ruff, "format", "-q", "--isolated", "--line-length", "100", str(copy)], check=True
        )
        return sum(len(p.read_text(encoding="utf-8").splitlines()) for p in copy.rglob("*.py"))


def public_names(source: str) -> list[str]:
    "The names in `__all__`."
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets
        ):
            return list(ast.literal_eval(node.value))
    return []


def definitions(source: str) -> Iterator[tuple[str, ast.AST]]:
    "Functions and classes of a module with their full names, methods and nested functions included."

    def walk(body: list[ast.stmt], inside: str) -> Iterator[tuple[str, ast.AST]]:
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                yield f"{inside}{node.name}", node
                yield from walk(node.body, f"{inside}{node.name}.")

    return walk(ast.parse(source).body, "")


def length(node: ast.AST) -> int:
    "Lines of a definition, without its decorators."
    return node.end_lineno - node.lineno + 1  # type: ignore[attr-defined]


def many_parameters(node: ast.AST) -> bool:
    "Whether a function has more than six parameters; commands, whose parameters are options, do not count."
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or any(
        "command" in ast.unparse(d) for d in node.decorator_list
    ):
        return False
    names = [a.arg for a in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]]
    return len([n for n in names if n not in ("self", "cls")]) > 6


def cells_of(path: Path) -> list[tuple[str, str]]:
    "(kind, source) of each cell of a notebook."
    return [
        (c["cell_type"], "".join(c["source"]))
        for c in json.loads(path.read_text(encoding="utf-8"))["cells"]
    ]


def wide_lines(path: Path, columns: int) -> list[str]:
    "Code lines of a notebook that are wider than `columns`."
    name = path.relative_to(ROOT / "nbs")
    code = [
        (i, line)
        for i, (kind, text) in enumerate(cells_of(path))
        if kind == "code"
        for line in text.splitlines()
    ]
    return [f"{name} cell {i}: {len(line)} columns" for i, line in code if len(line) > columns]


def unchecked(path: Path) -> list[str]:
    "Exported public definitions of a notebook whose next code cell is no check (a cell that is not exported)."
    code = [text for kind, text in cells_of(path) if kind == "code"]
    exported = [bool(re.search(r"^#\|\s*exporti?\b", text, re.M)) for text in code]
    missing = []
    for i, text in enumerate(code):
        if exported[i]:
            defined = [
                n.name
                for n in ast.parse(text).body
                if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith("_")
            ]
            if defined and (i + 1 == len(code) or exported[i + 1]):
                missing.append(f"{path.relative_to(ROOT / 'nbs')}: {defined[0]}")
    return missing


def import_seconds(times: int = 5) -> float:
    "Seconds of `import niwt_nb` in a fresh process: the best of several."
    code = f"import time; t = time.perf_counter(); import {PACKAGE}; print(time.perf_counter() - t)"
    command = [sys.executable, "-c", code]
    runs = (
        subprocess.run(command, cwd=ROOT, capture_output=True, check=True) for _ in range(times)
    )
    return min(float(run.stdout) for run in runs)


def measure() -> list[Measure]:
    "All measures of the tree as it is."
    found = modules(ROOT / PACKAGE)
    graph = {name: uses(name, source) & set(found) - {name} for name, source in found.items()}
    defs = [
        (f"{name}.{n}", node) for name, source in found.items() for n, node in definitions(source)
    ]
    books = sorted(
        p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts
    )
    rooms = [
        p
        for p in books
        if any(
            re.search(r"^#\|\s*default_exp", text, re.M)
            for kind, text in cells_of(p)[:3]
            if kind == "code"
        )
    ]
    lessons = [p for p in books if p.parent == ROOT / "nbs" / "lessons"]
    sizes = {p: len(cells_of(p)) for p in books}
    names = {name: public_names(source) for name, source in found.items()}
    classes = [(n, length(d)) for n, d in defs if isinstance(d, ast.ClassDef)]
    functions = [
        (n, length(d)) for n, d in defs if isinstance(d, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    wide = [w for p in books if p not in lessons for w in wide_lines(p, CODE_COLUMNS)]
    lesson_wide = [w for p in lessons for w in wide_lines(p, LESSON_COLUMNS)]

    def count(name: str, places: list[str]) -> Measure:
        return Measure(name, len(places), 0, places)

    def largest(name: str, sized: list[tuple[str, int]], limit: int) -> Measure:
        over = [f"{n}: {size}" for n, size in sorted(sized, key=lambda x: -x[1]) if size > limit]
        return Measure(name, max((size for _, size in sized), default=0), limit, over)

    return [
        Measure(
            "lines of the package, formatted at 100 columns",
            formatted_lines(ROOT / PACKAGE),
            19_000,
        ),
        Measure(
            "public names",
            sum(map(len, names.values())),
            250,
            [f"{m}: {len(n)}" for m, n in sorted(names.items(), key=lambda x: -len(x[1]))],
        ),
        largest(
            "cells of the largest notebook",
            [(str(p.relative_to(ROOT / "nbs")), n) for p, n in sizes.items()],
            90,
        ),
        largest("lines of the largest class", classes, 100),
        largest("lines of the largest function", functions, 40),
        count("functions of more than six parameters", [n for n, d in defs if many_parameters(d)]),
        count(f"code lines beyond {CODE_COLUMNS} columns", wide),
        count(f"code lines of lessons beyond {LESSON_COLUMNS} columns", lesson_wide),
        count("upward imports", upward(graph)),
        count("circles", circles(graph)),
        count(
            "definitions without a check in the next code cell",
            [u for p in rooms for u in unchecked(p)],
        ),
        Measure(f"seconds of `import {PACKAGE}`", round(import_seconds(), 3), 0.2),
    ]


def main() -> int:
    "Print the table; the exit code is 1 if a limit is broken."
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--list", action="store_true", help="also say where each broken limit is broken"
    )
    parser.add_argument(
        "--no-worse",
        action="store_true",
        help="fail only where a measure is worse than its ceiling",
    )
    told = parser.parse_args()
    found = measure()
    for m in found:
        print(
            f"{m.name:52} {m.value:>9,} {m.limit:>9,}  {'ok' if m.kept else 'OVER'}"
            + (f" ({len(m.places)} places)" if m.places and not m.kept else "")
        )
        if told.list and not m.kept:
            print("\n".join(f"    {place}" for place in m.places))
    return int(not all(m.no_worse if told.no_worse else m.kept for m in found))


if __name__ == "__main__":
    sys.exit(main())
