"""The API reference as static HTML: `python tools/api.py` writes docs/api/, `python tools/api.py FOLDER` somewhere else.

pdoc makes the pages from the docstrings. What the package says about single parameters, results and fields stands in comments beside them ("docments");
they are turned into tables below the docstrings first. Nothing is changed on disk but the folder of pages.
"""

import ast
import importlib
import inspect
import pkgutil
import re
import sys
import tokenize
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pdoc
import pdoc.render

import niwt_nb

OUT = Path(__file__).resolve().parent.parent / "docs" / "api"
ABOUT = """Neuron Importance-Aware Weight Transfer in PyTorch: classifiers for classes nobody photographed, from words alone.

The modules in the order in which the notebooks introduce them; a module uses only those before it."""
DATA = ("_modidx",)  # modules for tools, not for readers


def comments(source: str) -> dict[int, str]:
    "Line number -> the comment that ends that line; remarks to tools are no comments."
    found = {t.start[0]: t.string.lstrip("# ").strip() for t in tokenize.generate_tokens(StringIO(source).readline) if t.type == tokenize.COMMENT}
    return {line: text for line, text in found.items() if not re.match(r"%%|type: ignore|noqa|export|hide", text)}


def cell(text: str) -> str:
    "Text for a cell of a Markdown table: code stays code, markup and bars are harmless."
    parts = re.split(r"(`[^`]*`)", text.replace("|", "&#124;"))
    return "".join(p if p.startswith("`") else p.replace("<", "&lt;").replace("*", "&#42;").replace("_", "&#95;") for p in parts)


def table(heading: str, rows: list[tuple[str, str, str, str]]) -> str:
    "A Markdown table of name, type, default and what the comment says; columns that nobody fills are left out."
    heads = (heading, "type", "default", "")
    used = [i for i in range(4) if i in (0, 3) or any(row[i] for row in rows)]
    form = ("<b>{}</b>", "<samp>{}</samp>", "<samp>{}</samp>", "{}")  # in <code>, pdoc would link a parameter `data` to the module of that name
    lines = [[heads[i] for i in used], ["---"] * len(used), *([form[i].format(cell(row[i])) if row[i] else "" for i in used] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef, said: dict[int, str]) -> list[tuple[str, str, str, str]]:
    "Parameters of a function that have a comment, and its result."
    plain, keyword = [*node.args.posonlyargs, *node.args.args], node.args.kwonlyargs
    defaults: list[ast.expr | None] = [*[None] * (len(plain) - len(node.args.defaults)), *node.args.defaults, *node.args.kw_defaults]
    rows = []
    for a, default in zip([*plain, *keyword], defaults, strict=True):
        if a.arg not in ("self", "cls"):
            rows.append((a.arg, ast.unparse(a.annotation) if a.annotation else "", ast.unparse(default) if default else "", said.get(a.lineno, "")))
    for star, mark in ((node.args.vararg, "*"), (node.args.kwarg, "**")):
        if star is not None:
            rows.append((mark + star.arg, ast.unparse(star.annotation) if star.annotation else "", "", said.get(star.lineno, "")))
    one_line = len({r.lineno for r in [*plain, *keyword]}) < len(rows)
    rows = [] if one_line and not any(r[3] for r in rows) else rows
    end = node.returns.end_lineno if node.returns is not None else None
    result = said.get(end, "") if end is not None else ""
    return [*rows, ("returns", ast.unparse(node.returns), "", result)] if result and node.returns is not None else rows


def fields(node: ast.ClassDef, said: dict[int, str]) -> list[tuple[str, str, str, str]]:
    "Annotated fields of a class that have a comment or, in `RunConfig`, a help text."
    rows = []
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and not item.target.id.startswith("_"):
            value, about = item.value, said.get(item.end_lineno or item.lineno, "")
            if isinstance(value, ast.Call) and ast.unparse(value.func) == "setting":
                value, about = value.args[0], ast.literal_eval(value.args[1])
            rows.append((item.target.id, ast.unparse(item.annotation), ast.unparse(value) if value is not None else "", about))
    return rows if any(row[3] for row in rows) else []


def definitions(tree: ast.Module, module: ModuleType) -> Iterator[tuple[Any, ast.AST]]:
    "Public functions, classes and methods of a module with their syntax trees."
    for node in tree.body:
        thing = getattr(module, getattr(node, "name", ""), None)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and thing is not None:
            yield inspect.unwrap(thing), node
            for inner in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(inner, ast.FunctionDef):
                    method = inspect.getattr_static(thing, inner.name, None)
                    yield getattr(method, "__func__", getattr(method, "fget", getattr(method, "func", method))), inner


def add_tables(module: ModuleType) -> int:
    "Append what the comments say to the docstrings of an imported module; how many tables that were."
    source = Path(module.__file__ or "").read_text(encoding="utf-8")
    said, made = comments(source), 0
    for thing, node in definitions(ast.parse(source), module):
        if isinstance(node, ast.ClassDef):
            rows, heading = fields(node, said), "field"
        else:
            assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            rows, heading = parameters(node, said), "parameter"
        if rows and any(row[3] for row in rows):
            thing.__doc__ = f"{inspect.cleandoc(thing.__doc__ or '')}\n\n{table(heading, rows)}\n"
            made += 1
    return made


def place(module: ModuleType) -> str:
    "The notebook that a module was exported from, whose number is its place in the reading order."
    found = re.search(r"File to edit: \S*?nbs/([\w./]+)\.ipynb", Path(module.__file__ or "").read_text(encoding="utf-8"))
    return found[1] if found else "~"


def build(out: Path = OUT) -> int:
    "Write all pages to `out`; how many tables they hold."
    names = [m.name for m in pkgutil.walk_packages(niwt_nb.__path__, "niwt_nb.") if m.name.split(".")[-1] not in DATA and not m.ispkg]
    modules = [importlib.import_module(name) for name in names]
    made = sum(map(add_tables, modules))
    rows = [f"| `{m.__name__}` | {cell((m.__doc__ or '').strip())} |" for m in sorted(modules, key=place)]
    niwt_nb.__doc__ = "\n".join([ABOUT, "", "| module | |", "| --- | --- |", *rows, ""])
    pdoc.render.configure(docformat="markdown", footer_text=f"niwt_nb {niwt_nb.__version__}", search=True)
    chapters = [m.name for m in pkgutil.iter_modules(niwt_nb.__path__, "niwt_nb.") if m.name.split(".")[-1] not in DATA]  # `__all__` is the front door
    pdoc.pdoc("niwt_nb", *chapters, output_directory=out)
    for page in out.rglob("*.html"):  # internal base classes have no page of their own to link to
        text = page.read_text(encoding="utf-8")
        page.write_text(re.sub(r'<a href="[^"]*#_[^"]*">(.*?)</a>', r"\1", text, flags=re.S), encoding="utf-8")
    return made


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    print(f"{build(target)} tables of parameters; open {target / 'index.html'}")
