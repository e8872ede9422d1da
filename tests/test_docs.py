"The sources of the site: every notebook has its place, every link in them leads somewhere, and what the comments say reaches the API; no page is built here."

import importlib
import json
import re
import sys

import pytest
import yaml
from notebooks import ALL, MODULES, NBS, ROOT, cells, default_exp, label, module_name

sys.path.insert(0, str(ROOT / "tools" / "site"))

import pages  # noqa: E402


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    "What Sphinx would read."
    out = tmp_path_factory.mktemp("site") / "source"
    pages.stage(out)
    return out


def listed(text):
    "The pages that tables of contents name."
    found = re.findall(r"```\{toctree\}\n((?:.+\n)*)\n((?:.+\n)*?)```", text)
    return [line for _, names in found for line in names.split()]


def test_every_notebook_has_one_place_on_the_site(sources):
    places = listed((sources / "contents.txt").read_text(encoding="utf-8"))
    for name in [p for p in places if p.endswith("/index")]:
        places += [
            f"{name[:-5]}{page}"
            for page in listed((sources / f"{name}.md").read_text(encoding="utf-8"))
        ]
    assert len(places) == len(set(places))
    assert {label(p) for p in ALL} - set(places) == {"index"}
    assert all(
        any((sources / f"{p}{end}").exists() for end in (".ipynb", ".md", ".rst")) for p in places
    )
    api = "\n".join(p.read_text(encoding="utf-8") for p in (sources / "api").iterdir())
    assert sorted(re.findall(r"automodule:: (\S+)", api)) == sorted(map(module_name, MODULES))


@pytest.mark.parametrize("path", ALL, ids=label)
def test_links_and_pictures_of_notebooks_lead_somewhere(path):
    text = "\n".join(
        re.sub(r"```.*?```|`[^`\n]*`", "", c.source, flags=re.S)
        for c in cells(path)
        if c.kind == "markdown"
    )
    links = [
        *re.findall(r"\]\(<?([^)>\s]+)", text),
        *re.findall(r"(?:src|href)=\"([^\"]+)\"", text),
    ]
    for target, _, anchor in (
        link.partition("#") for link in links if not re.match(r"\w+:|//", link)
    ):
        found = (path.parent / target) if target else path
        assert found.exists() and found.resolve().is_relative_to(NBS), f"{label(path)}: {target}"
        heads = (
            re.findall(r"^#+ (.+)$", pages.words(found), re.M)
            if anchor and found.suffix == ".ipynb"
            else []
        )
        assert not anchor or anchor in [
            re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in heads
        ], f"{label(path)}: #{anchor}"
    assert not [
        link
        for link in re.findall(r"!\[[^]]*\]\((\S+?)\)", text)
        if re.match(r"(https?:)?//", link)
    ], "a picture from elsewhere"


def test_programs_find_every_page_and_the_ten_commands(sources):
    text = (sources / "extra" / "llms.txt").read_text(encoding="utf-8")
    links = re.findall(r"^- \[.+?\]\((\S+)\.html\)", text, re.M)
    assert {label(p) for p in ALL} - set(links) == {"index"} and "(howto/agents.html)" in text
    steps = re.findall(r"^\*\*(\d+)\*\*", pages.words(NBS / "howto" / "agents.ipynb"), re.M)
    # each is the cell below it, run with the other notebooks
    assert steps == [str(i) for i in range(1, 11)]


def test_a_page_shows_no_directives_and_offers_its_notebook():
    path = next(p for p in MODULES if default_exp(p) == "core")
    book = json.loads(pages.clean(path.read_text(encoding="utf-8"), "a/b", "the end"))
    text = ["".join(c["source"]) for c in book["cells"]]
    assert text[-1] == "the end" and '<a href="../_sources/a/b.ipynb" download>' in text[0]
    hidden = [c.source for c in cells(path) if "hide" in c.directives]
    assert (
        hidden
        and not set(hidden) & set(text)
        and not [t for t in text if re.search(r"^#\|", t, re.M)]
    )
    exported = next(c.source for c in cells(path) if c.exported and "class NiwtError" in c.source)
    assert exported.partition("\n")[2].strip() in "\n".join(text)


@pytest.mark.parametrize(
    "name, said",
    [
        ("method.solvers:closed_form", ":param prior: (D,) the weights"),
        ("runs.config:RunConfig", ":param seed: every random choice follows from it"),
        ("network.backbones:load_backbone", ":returns: the model in evaluation mode"),
        ("data.dataset:ZeroShotData", ":param source: (N,) the index of each image"),
        ("method.niwt:NIWT", ":param keep_rows: "),
    ],
)
def test_the_comments_beside_parameters_fields_and_results_are_told(name, said):
    module, _, thing = name.partition(":")
    told = pages.told_of(getattr(importlib.import_module(f"niwt_nb.{module}"), thing))
    assert any(line.startswith(said) for line in told), told


def test_a_remark_on_a_decorator_is_no_result():
    from niwt_nb.method.niwt import NIWT

    assert not [line for line in pages.told_of(NIWT.fit) if line.startswith(":returns:")]


def test_markup_of_docstrings_is_harmless():
    assert pages.as_rst("other worlds (--seed 1) x--y") == "other worlds (`--seed` 1) x--y"
    assert pages.as_rst("`a_*` b_ *c* |d| `") == r"`a_*` b\_ \*c\* \|d\| \`"


def test_the_citation_agrees_with_the_package():
    config = (ROOT / "settings.ini").read_text(encoding="utf-8")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    version = re.search(r"^version = (\S+)", config, re.M)[1]
    assert (cited["version"], cited["license"], cited["cff-version"]) == (version, "MIT", "1.2.0")
    assert cited["references"][0]["year"] == 2018 and len(cited["references"][0]["authors"]) == 7
    assert f"\n## {version}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_only_tested_versions_of_python_are_declared():
    setup, config = (
        (ROOT / name).read_text(encoding="utf-8") for name in ("setup.py", "settings.ini")
    )
    declared = re.findall(r"Programming Language :: Python :: (\d\.\d+)", setup)
    assert (
        declared == ["3.11", "3.12", "3.13"]
        and declared[0] == re.search(r"^min_python = (\S+)", config, re.M)[1]
    )
