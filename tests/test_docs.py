"The API reference: it builds, every link in it leads somewhere, nothing is fetched from elsewhere, and what the comments say is in it."

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from notebooks import MODULES, ROOT, module_name


class Page(HTMLParser):
    "Anchors and addresses of a page."

    def __init__(self, path: Path):
        super().__init__()
        self.anchors, self.links, self.loaded, self.tables = set(), [], [], 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tables += tag == "table"
        if found.get("id"):
            self.anchors.add(found["id"])
        if tag == "a" and found.get("href") is not None:
            self.links.append(found["href"])
        elif tag in ("script", "img", "link", "iframe"):
            self.loaded += [found[k] for k in ("src", "href") if found.get(k)]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    "The built reference, parsed."
    out = tmp_path_factory.mktemp("api")
    done = subprocess.run([sys.executable, str(ROOT / "tools" / "api.py"), str(out)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Warning" not in done.stderr, done.stderr[-3000:]
    return {p.relative_to(out).as_posix(): (p, Page(p)) for p in sorted(out.rglob("*.html"))}


def test_every_link_leads_somewhere_and_nothing_comes_from_elsewhere(pages):
    where = {path.resolve(): page for path, page in pages.values()}
    dead, foreign, count = [], [], 0
    for name, (path, page) in pages.items():
        for link in page.links:
            target, _, anchor = link.partition("#")
            count += 1
            if re.match(r"\w+:", link):
                continue  # to the documentation of a base class in another package
            found = where.get((path.parent / target).resolve() if target else path.resolve())
            if found is None or (anchor and anchor not in found.anchors):
                dead.append(f"{name}: {link}")
        foreign += [src for src in page.loaded if re.match(r"(https?:)?//", src)]
    assert count > 1000 and not dead, dead[:20]
    assert not foreign, foreign


def test_every_module_and_public_name_has_its_place(pages):
    import importlib

    missing = []
    for name in map(module_name, MODULES):
        _, page = pages[name.replace(".", "/") + ".html"]
        missing += [f"{name}.{thing}" for thing in importlib.import_module(name).__all__ if thing not in page.anchors]
        above, _, last = name.rpartition(".")
        assert f"{last}.html" in " ".join(pages[above.replace(".", "/") + ".html"][1].links), name
    assert not missing, missing


def test_the_comments_beside_parameters_fields_and_results_are_shown(pages):
    text = {name: path.read_text(encoding="utf-8") for name, (path, _) in pages.items()}
    prose = {name: re.sub(r"<pre>.*?</pre>", "", page, flags=re.S) for name, page in text.items()}  # without the source code
    assert "demanded importance, one row per new class" in prose["niwt_nb/method/solvers.html"]
    assert "every random choice follows from it" in prose["niwt_nb/runs/config.html"]
    assert "what was loaded" in prose["niwt_nb/network/backbones.html"]
    assert sum(page.tables for _, page in pages.values()) > 200


def test_the_citation_agrees_with_the_package():
    config = (ROOT / "settings.ini").read_text(encoding="utf-8")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    version = re.search(r"^version = (\S+)", config, re.M)[1]
    assert (cited["version"], cited["license"], cited["cff-version"]) == (version, "MIT", "1.2.0")
    assert cited["references"][0]["year"] == 2018 and len(cited["references"][0]["authors"]) == 7
    assert f"\n## {version}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_only_tested_versions_of_python_are_declared():
    setup, config = ((ROOT / name).read_text(encoding="utf-8") for name in ("setup.py", "settings.ini"))
    declared = re.findall(r"Programming Language :: Python :: (\d\.\d+)", setup)
    assert declared == ["3.11", "3.12", "3.13"] and declared[0] == re.search(r"^min_python = (\S+)", config, re.M)[1]
