"""Sphinx settings of the site; `pages.py` beside it writes the sources and starts Sphinx.

Nothing is executed: notebooks are shown with the outputs that they hold. Formulas become MathML, which browsers draw themselves:
no page loads anything from elsewhere.
"""

import functools
import inspect
import sys
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import ziamath
from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish

import niwt_nb

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import pages  # noqa: E402

# of a public copy; without one there are no launch buttons
REPOSITORY = pages.SETTINGS["repository"].rstrip("/")

project, author, release = "niwt_nb", "niwt_nb contributors", niwt_nb.__version__
copyright = "2026 niwt_nb contributors"
extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["contents.txt", "extra"]

nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, Any] = {}
# the static figure is shown
nb_mime_priority_overrides = [
    ("html", "image/gif", 35),
    ("html", "application/vnd.jupyter.widget-view+json", None),
]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
# a notebook may skip a level of headings, and show a broken line on purpose
suppress_warnings = ["myst.header", "misc.highlighting_failure"]

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True, "undoc-members": True, "no-value": True}
add_module_names = False
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

html_theme = "sphinx_book_theme"
html_title = "niwt_nb"
html_static_path = [
    str(HERE / "style.css"),
    str(Path(ziamath.__file__).parent / "fonts" / "STIXTwoMath-Regular.ttf"),
]
html_css_files = ["style.css"]
html_math_renderer = "mathml"
html_copy_source, html_sourcelink_suffix, html_show_sphinx = True, "", False
html_context = {"default_mode": "auto"}
html_theme_options: dict[str, Any] = {
    "use_download_button": False,  # each page says "Get this notebook" instead
    "use_fullscreen_button": False,
    "collapse_navbar": True,  # a chapter unfolds when it is entered
    "home_page_in_toc": True,
    "show_toc_level": 2,
}
if REPOSITORY:
    html_theme_options |= {
        "repository_url": REPOSITORY,
        "repository_branch": pages.SETTINGS["branch"],
        "path_to_docs": "nbs",
        "use_repository_button": True,
        "launch_buttons": {
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
            "notebook_interface": "jupyterlab",
        },
    }


def clean(app: Sphinx, name: str, source: list[str]) -> None:
    "Notebooks without what is for nbdev; the first page holds the table of contents."
    if app.env.doc2path(name).suffix == ".ipynb":
        source[0] = pages.clean(
            source[0],
            name,
            (app.srcdir / "contents.txt").read_text(encoding="utf-8") if name == "index" else "",
        )


def tell(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    "What the comments say, below the docstring."
    lines[:] = [pages.as_rst(line) for line in lines]
    if inspect.isroutine(thing) or inspect.isclass(thing):
        lines += ["", *pages.told_of(thing), ""]


def plain(app: Sphinx, thing: Any, bound: bool) -> None:
    "Types without what they carry for the command line."
    bare = lambda kind: get_args(kind)[0] if get_origin(kind) is Annotated else kind  # noqa: E731
    if isinstance(said := getattr(thing, "__annotations__", None), dict) and any(
        get_origin(kind) is Annotated for kind in said.values()
    ):
        said.update({name: bare(kind) for name, kind in said.items()})
        signature = inspect.signature(thing)
        thing.__signature__ = signature.replace(
            parameters=[
                p.replace(annotation=bare(p.annotation)) for p in signature.parameters.values()
            ]
        )


def skip(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    "Fields of a class are told among its parameters, and what other packages add to it in theirs."
    if what != "class" or isinstance(thing, (property, classmethod, staticmethod)):
        return None
    return (
        None
        if callable(thing) and str(getattr(thing, "__module__", "")).startswith("niwt_nb")
        else True
    )


def mathml(self: Any, node: nodes.Element) -> None:
    "A formula as MathML."
    block = isinstance(node, nodes.math_block)
    form = convert(node.astext(), display="block" if block else "inline")
    self.body.append(f'<div class="formula">{form}</div>' if block else form)
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    "Connect the above."
    app.config.html_extra_path = [str(app.srcdir / "extra")]
    app.connect("source-read", clean)
    app.connect("autodoc-before-process-signature", plain)
    app.connect("autodoc-process-docstring", tell)
    app.connect("autodoc-skip-member", skip)
    SearchEnglish.stem = functools.cache(SearchEnglish.stem)  # type: ignore[method-assign]  # pages share most of their words
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
