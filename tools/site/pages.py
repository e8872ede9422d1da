"""The site as static pages: `python tools/site/pages.py` writes build/site/html, to be shown by any web server, such as `python -m http.server`.

Pages are the notebooks as they are, a page of the API for each chapter, made from docstrings and the comments beside parameters, and llms.txt, the contents for
programs that read. Where settings.ini names a `repository`, the address of a public copy, each notebook has buttons that open it in Binder and in Colab.
"""

import configparser
import inspect
import json
import re
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

from fastcore.docments import docments

from niwt_nb.runs.config import _HELP, RunConfig

ROOT = Path(__file__).resolve().parents[2]
NBS, OUT = ROOT / "nbs", ROOT / "build" / "site"
_read = configparser.ConfigParser(interpolation=None)
_read.read(ROOT / "settings.ini", encoding="utf-8")
SETTINGS = dict(_read["DEFAULT"])
PARTS = {"lessons": "The course", "howto": "How to", "reference": "Reference"}


def books(folder: Path = NBS) -> list[Path]:
    "The notebooks of a folder and of those below it, in reading order."
    return [p for p in sorted(folder.rglob("*.ipynb")) if ".ipynb_checkpoints" not in p.parts]


def words(book: Path) -> str:
    "The Markdown of a notebook."
    cells = json.loads(book.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def title(book: Path) -> tuple[str, str]:
    "What a notebook is called, and the line below that."
    said = words(book)
    name, about = re.search(r"^# (.+)$", said, re.M), re.search(r"^> (.+)$", said, re.M)
    return (name[1] if name else book.stem), (about[1] if about else "")


def module(book: Path) -> str:
    "The module that a notebook exports; empty where there is none."
    found = re.search(r'"#\| *default_exp +([\w.]+)', book.read_text(encoding="utf-8"))
    return f"niwt_nb.{found[1]}" if found else ""


def page(book: Path) -> str:
    "The name of a notebook's page."
    return book.relative_to(NBS).with_suffix("").as_posix()


def contents() -> dict[str, list[Path]]:
    "The notebooks under the headings of the site: the course, recipes, reference, then every chapter of the library."
    parts = {name: books(NBS / folder) for folder, name in PARTS.items()}
    for book in filter(module, books()):
        parts.setdefault(".".join(module(book).split(".")[:2]), []).append(book)
    return parts


def tree(pages: list[str], caption: str = "") -> str:
    "A table of contents, in the side bar alone where it has a caption."
    options = [":hidden:", f":caption: {caption}"] if caption else [":titlesonly:"]
    return "\n".join(["```{toctree}", *options, "", *pages, "```", ""])


def api_page(chapter: str, rooms: list[Path]) -> str:
    "The sources of a chapter's page of the API."
    lines = [chapter, "=" * 40, ""]
    for book in rooms:
        lines += [
            *([module(book)[8:], "-" * 60, ""] if module(book) != chapter else []),
            f".. automodule:: {module(book)}",
            "",
        ]
        lines += [f"Taught and checked in the notebook :doc:`/{page(book)}`.", ""]
    return "\n".join(lines)


def stage(out: Path) -> None:
    "Write the sources to a new folder: copies of the notebooks, a page a chapter, the pages of the API, contents.txt and extra/llms.txt."
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(NBS, out, ignore=shutil.ignore_patterns(".*", "checkers"))
    (out / "api").mkdir()
    (out / "extra").mkdir()
    told = dict(re.findall(r"^\| `(\w+)/?` \| (.+?) \|$", words(NBS / "index.ipynb"), re.M))
    name, about = title(NBS / "index.ipynb")
    trees, library, api, llms = [], [], [], [f"# {name}", "", f"> {about}", ""]
    llms += [
        "Each page below is a notebook, `NAME.html`; the notebook itself is `_sources/NAME.ipynb`. Begin with [ten commands](howto/agents.html).",
        "",
    ]
    for part, rooms in contents().items():
        llms += [
            f"## {part}",
            "",
            *(f"- [{title(p)[0]}]({page(p)}.html): {title(p)[1]}" for p in rooms),
        ]
        if part in PARTS.values():
            trees.append(tree(list(map(page, rooms)), part))
        else:
            if (folder := rooms[0].parent) != NBS:
                about = told.get(part[8:], "")
                text = f"# {part[8:]}\n\n> {about[:1].upper()}{about[1:]}\n\n{tree([p.stem for p in rooms])}"
                (out / folder.name / "index.md").write_text(text, encoding="utf-8")
            library.append(f"{folder.name}/index" if folder != NBS else page(rooms[0]))
            (out / "api" / f"{part}.rst").write_text(api_page(part, rooms), encoding="utf-8")
            api.append(f"api/{part}")
            llms.append(f"- [the API of {part}](api/{part}.html)")
        llms.append("")
    trees += [tree(library, "The library"), tree(api, "API")]
    (out / "contents.txt").write_text("\n".join(trees), encoding="utf-8")
    (out / "extra" / "llms.txt").write_text("\n".join(llms), encoding="utf-8")


def clean(text: str, name: str, last: str = "") -> str:
    "A notebook's JSON without the cells and directives that are for nbdev, which the file that the page offers keeps, and with one more cell at its end."
    book, kept = json.loads(text), []
    for cell in book["cells"]:
        source = "".join(cell["source"])
        said = re.findall(r"^#\|\s*(\S+)", source, re.M) if cell["cell_type"] == "code" else []
        if not {"hide", "default_exp"} & set(said):
            kept.append(
                {**cell, "source": re.sub(r"^#\|.*\n?", "", source, flags=re.M) if said else source}
            )
    get = f'<p class="get"><a href="{"../" * name.count("/")}_sources/{name}.ipynb" download>Get this notebook</a></p>'
    kept[0]["source"] = re.sub(
        r"^# .+$", lambda found: f"{found[0]}\n\n{get}\n", kept[0]["source"], count=1, flags=re.M
    )
    kept += [{**kept[0], "id": "contents", "source": last}] if last else []
    return json.dumps({**book, "cells": kept})


def as_rst(text: str) -> str:
    "Text of a docstring or a comment for reStructuredText: code in backticks stays code, as do options; everything else is harmless."
    parts = re.split(r"(`[^`]+`|(?<!\S)\(?--[a-z][\w-]*)", text)
    for i, part in enumerate(parts):
        if part.lstrip("(").startswith("--"):
            parts[i] = f"{part[: part.index('-')]}`{part.lstrip('(')}`"
        elif not (len(part) > 1 and part[0] == part[-1] == "`"):
            parts[i] = re.sub(r"([\\*|_`])", r"\\\1", part)
    return "".join(parts)


def told_of(thing: Any) -> list[str]:
    "What the comments beside a function's parameters and its result, or beside a class's fields, say: the lines of a field list."
    try:
        said, source = docments(thing), inspect.getsource(thing)
    except (TypeError, OSError, ValueError, SyntaxError):  # made by a call
        return []
    if thing is RunConfig:
        said |= _HELP
    decorators, lines = "" if inspect.isclass(thing) else source.partition("def ")[0], []
    for name, about in said.items():
        about = re.sub(r"^type: ignore\S*[\s#]*", "", about or "")
        if about and about not in decorators:
            lines.append((":returns: " if name == "return" else f":param {name}: ") + as_rst(about))
    return lines


def sphinx(source: Path, html: Path) -> int:
    "Make pages of the sources, in as many processes as there are cores; Sphinx's exit code. A warning is an error."
    from sphinx.cmd.build import main

    places = ["-c", Path(__file__).parent, "-d", html.with_name("doctrees"), source, html]
    return main(["-q", "-W", "--keep-going", "-j", "auto", *map(str, places)])


def build(out: Path = OUT) -> int:
    "Build the whole site; Sphinx's exit code."
    # of a docstring that is inherited from elsewhere
    warnings.filterwarnings("ignore", "Unknown section")
    stage(out / "source")
    for old in ("html", "doctrees"):
        shutil.rmtree(out / old, ignore_errors=True)
    return sphinx(out / "source", out / "html")


if __name__ == "__main__":
    sys.exit(build(*map(Path, sys.argv[1:2])))
