"The rules that keep the notebooks readable: one definition a cell, documented parameters, a check below it, no outputs where none belong."

import ast
import json
import re

import nbformat
import pytest
from notebooks import ALL, HOWTOS, LESSONS, MODULES, NBS, cells, default_exp, label, notebook

ids = label


@pytest.mark.parametrize("path", ALL, ids=ids)
def test_is_a_valid_notebook_without_widget_state(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    found = [c.id for c in book.cells]
    assert len(found) == len(set(found)), "cell ids repeat"
    assert "widgets" not in book.metadata, "widget state is stored in the notebook"
    limit = 450_000 if path in LESSONS else 300_000
    assert path.stat().st_size < limit, f"{path.stat().st_size} bytes, at most {limit}"


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_module_notebook_keeps_no_outputs_and_starts_as_promised(path):
    every = cells(path)
    assert not any(c.outputs for c in every), "module notebooks keep no outputs"
    first = every[0].source
    assert first.startswith("# ") and "\n> " in first, (
        "the first cell is a title and a one-line quote"
    )
    assert (
        re.search(r"will be able to", first)
        and re.search(r"Needs", first)
        and re.search(r"Runs in", first)
    )
    assert re.fullmatch(r"#\|\s*default_exp \S+", every[1].source.strip()), (
        "the second cell is default_exp alone"
    )


def definitions(source: str) -> list[ast.FunctionDef | ast.ClassDef]:
    return [
        n
        for n in ast.parse(source).body
        if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    ]


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_one_definition_a_cell_and_a_check_below_it(path):
    code = [c for c in cells(path) if c.kind == "code" and "default_exp" not in c.source]
    faults = []
    for i, cell in enumerate(code):
        if not cell.exported:
            continue
        defs = definitions(cell.source)
        names = [d.name for d in defs]
        # of the one below
        helpers = [
            n
            for n in names[:-1]
            if n.startswith("_") and len(re.findall(rf"\b{n}\b", cell.source)) > 1
        ]
        if names[:-1] != helpers:
            faults.append(f"cell {cell.number} defines {names}")
        if re.search(r"^\s*from \S+ import \*", cell.source, re.M):
            faults.append(f"cell {cell.number} has a star import")
        if defs and not names[-1].startswith("_"):
            later = code[i + 1 :]
            block = [c for c in later[:4] if not c.exported]
            if not block:
                faults.append(f"no check cell follows {names[-1]} (cell {cell.number})")
    assert not faults, "\n".join(faults)


def undocumented(source: str) -> list[str]:
    "Public functions of one exported cell whose docstring, parameters or return value say nothing."
    faults, lines = [], source.splitlines()
    for d in definitions(source):
        if d.name.startswith("_"):
            continue
        if not ast.get_docstring(d):
            faults.append(f"{d.name}: no docstring")
        if isinstance(d, ast.ClassDef):
            continue
        for a in [*d.args.posonlyargs, *d.args.args, *d.args.kwonlyargs]:
            if a.annotation is None:
                faults.append(f"{d.name}: parameter {a.arg} has no type")
            if "#" not in lines[a.lineno - 1][a.col_offset :]:
                faults.append(f"{d.name}: parameter {a.arg} has no comment that documents it")
        if d.returns is None:
            faults.append(f"{d.name}: no return type")
        elif (
            ast.unparse(d.returns) not in ("None", "Iterator[None]")
            and "#" not in lines[d.returns.end_lineno - 1][d.returns.end_col_offset :]
        ):
            faults.append(f"{d.name}: the return value has no comment that documents it")
    return faults


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_public_functions_are_documented(path):
    faults = [f for c in cells(path) if c.exported for f in undocumented(c.source)]
    assert not faults, "\n".join(faults)


def test_the_documentation_check_can_fail():
    assert undocumented("def f(x: int) -> int:\n    return x") == [
        "f: no docstring",
        "f: parameter x has no comment that documents it",
        "f: the return value has no comment that documents it",
    ]


@pytest.mark.parametrize("path", ALL, ids=ids)
def test_no_assert_where_it_would_be_swallowed(path):
    for cell in cells(path):
        if cell.kind == "code":
            assert not re.search(r"with\s+.*Output\(\)", cell.source), (
                f"cell {cell.number}: errors inside `with Output()` are swallowed"
            )


@pytest.mark.parametrize("path", ALL, ids=ids)
def test_cells_left_out_say_why(path):
    every = cells(path)
    for i, cell in enumerate(every):
        if {"eval: false", "eval:false", "notest"} & cell.directives:
            assert i and every[i - 1].kind == "markdown", (
                f"cell {cell.number} is not run; the cell above must say why"
            )


FORBIDDEN = [
    r"/work/",
    r"/home/\w+/",
    r"/tmp/w\b",
    r"pypi\.org",
    r"files\.pythonhosted",
    r"deb\.debian\.org",
    r"registry\.npmjs",
]


@pytest.mark.parametrize("path", ALL, ids=ids)
def test_no_machine_paths_or_registry_hosts(path):
    text = json.dumps(json.loads(path.read_text(encoding="utf-8")), ensure_ascii=False)
    found = [p for p in FORBIDDEN if re.search(p, text)]
    assert not found, f"{path.name} contains {found}"


def test_every_kind_of_notebook_is_found():
    assert MODULES and LESSONS and HOWTOS and all(p.is_relative_to(NBS) for p in ALL)
    assert all(re.match(r"\d", p.name) for p in [*MODULES, *LESSONS]), (
        "a notebook's number is its place in the reading order"
    )
    assert (
        len({default_exp(p) for p in MODULES}) == len(MODULES)
        and notebook(default_exp(MODULES[0])) == MODULES[0]
    )
