"The pages as they were built, in a browser: `make check-site` says where they are; skipped elsewhere."

import functools
import html
import importlib
import os
import re
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from notebooks import ALL, NBS, label

SITE = Path(os.environ.get("NIWT_SITE", "")).resolve()
PAGES = (
    [p for p in sorted(SITE.rglob("*.html")) if "_static" not in p.parts]
    if "NIWT_SITE" in os.environ
    else []
)
pytestmark = pytest.mark.skipif(
    "NIWT_SITE" not in os.environ, reason="the site is built and looked at by `make check-site`"
)


class Page:
    "Anchors and addresses of a page."

    def __init__(self, path):
        self.anchors, self.links, self.loaded = set(), [], []
        text = re.sub(
            r"<(script|style)\b([^>]*)>.*?</\1>",
            r"<\1\2>",
            path.read_text(encoding="utf-8"),
            flags=re.S,
        )
        for tag, attrs in re.findall(r"<(\w+)\s([^<>]*)>", text):
            if "id=" in attrs or "href=" in attrs or "src=" in attrs or "name=" in attrs:
                found = {
                    k: html.unescape(v)
                    for k, v in re.findall(r'(?<!\S)(id|name|href|src)="([^"]*)"', attrs)
                }
                self.anchors |= {found[k] for k in ("id", "name") if found.get(k)}
                if tag == "a" and found.get("href"):
                    self.links.append(found["href"])
                elif tag in ("script", "img", "link", "iframe", "source"):
                    self.loaded += [found[k] for k in ("src", "href") if found.get(k)]


@pytest.fixture(scope="module")
def served():
    "The address of the site on this machine."
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture
def look(browser, served):
    "Opens a page at a width in light or dark; every request must be to the site, every answer good."
    context = None

    def opened(name, width=1280, scheme="light"):
        nonlocal context
        if context is None:
            context = browser.new_context(
                viewport={"width": width, "height": 900}, color_scheme=scheme
            )
        page = context.pages[0] if context.pages else context.new_page()
        if not getattr(page, "watched", False):
            page.on(
                "request",
                lambda r: (
                    wrong.append(r.url)
                    if not r.url.startswith((served, "data:", "blob:"))
                    else None
                ),
            )
            page.on(
                "response",
                lambda r: (
                    wrong.append(f"{r.status} {r.url}")
                    if r.status >= 400 and "favicon" not in r.url
                    else None
                ),
            )
            page.watched = True
        page.goto(served + name)
        return page

    wrong: list[str] = []
    yield opened
    if context:
        context.close()
    assert not wrong, wrong[:10]


def test_every_link_leads_somewhere_and_nothing_comes_from_elsewhere():
    built = {str(path): Page(path) for path in PAGES}
    exists = functools.cache(os.path.exists)
    dead, count = [], 0
    for path, page in built.items():
        assert not [src for src in page.loaded if re.match(r"(https?:)?//", src)], path
        for link in page.links:
            target, _, anchor = link.partition("#")
            if re.match(r"\w+:", link):
                continue
            found = (
                os.path.normpath(os.path.join(os.path.dirname(path), target)) if target else path
            )
            count += 1
            if not exists(found) or (
                anchor and found in built and anchor not in built[found].anchors
            ):
                dead.append(f"{path}: {link}")
    assert count > 1000 and not dead, dead[:20]


def test_every_notebook_is_a_page_and_offered_as_it_is():
    for path in ALL:
        assert (SITE / f"{label(path)}.html").exists()
        assert (SITE / "_sources" / path.relative_to(NBS)).read_bytes() == path.read_bytes()


# A page's content in place of another's, with code in one colour: drawn in a tenth of the time of a visit, and as wide.
TURN = """async name => {
    history.replaceState(null, '', name);
    const body = new DOMParser().parseFromString(await (await fetch(name)).text(), 'text/html').body;
    body.querySelectorAll('pre').forEach(e => { e.textContent = e.textContent });
    document.body.innerHTML = body.innerHTML;
    await Promise.all([...document.images].map(i => i.decode().catch(() => null)));
    return document.documentElement.scrollWidth > innerWidth }"""


def test_no_page_is_wider_than_a_phone(look, served):
    page = look("index.html", 390)
    names = [path.relative_to(SITE).as_posix() for path in PAGES]
    assert not (wide := [name for name in names if page.evaluate(TURN, served + name)]), wide
    page.evaluate(
        "document.querySelector('main').insertAdjacentHTML('beforeend', '<div style=\"width: 500px\">wide</div>')"
    )
    # it would have been seen
    assert page.evaluate("document.documentElement.scrollWidth > innerWidth")


@pytest.mark.parametrize(
    "words, page",
    [
        ("importance", "lessons/02_importance"),
        ("calibration", "api/niwt_nb.method"),
        ("pooled_jacobian", "api/niwt_nb.method"),
    ],
)
def test_the_search_finds(words, page, look):
    seen = look(f"search.html?q={words}")
    seen.wait_for_selector(f"#search-results a[href*='{page}.html']", timeout=60_000)


@pytest.mark.parametrize("scheme, dark", [("light", False), ("dark", True)])
def test_answers_unfold_in_light_and_dark(scheme, dark, look):
    page = look("lessons/02_importance.html", 800, scheme)
    red = int(
        re.search(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[0]
    )
    assert (red < 80) == dark
    answer = page.locator("article details").first
    assert not answer.locator("p").first.is_visible()
    answer.locator("summary").click()
    assert answer.locator("p").first.is_visible()
    assert page.locator("math").count() > 5 and page.evaluate(
        "document.fonts.check('16px \"STIX Two Math\"')"
    )
    assert (
        page.locator("a.right-next")
        .get_attribute("href")
        .endswith("03_from_words_to_importances.html")
    )


@pytest.mark.filterwarnings("ignore")  # of Sphinx's extensions among themselves
@pytest.mark.parametrize("repository", ["", "https://github.com/somebody/birds"])
def test_notebooks_open_elsewhere_where_a_repository_is_named(repository, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(NBS.parent / "tools" / "site"))
    pages = importlib.import_module("pages")
    monkeypatch.setitem(pages.SETTINGS, "repository", repository)
    (tmp_path / "extra").mkdir()
    (tmp_path / "contents.txt").write_text(pages.tree(["lessons/02_importance"]), encoding="utf-8")
    (tmp_path / "lessons").mkdir()
    for name in ("index", "lessons/02_importance"):
        shutil.copy(NBS / f"{name}.ipynb", tmp_path / f"{name}.ipynb")
    pages.sphinx(tmp_path, tmp_path / "html")
    links = Page(tmp_path / "html" / "lessons" / "02_importance.html").links
    found = [link for link in links if re.search(r"mybinder|colab", link)]
    place = "nbs/lessons/02_importance.ipynb"
    binder = f"https://mybinder.org/v2/gh/somebody/birds/main?urlpath=lab/tree/{place}"
    assert found == (
        [binder, f"https://colab.research.google.com/github/somebody/birds/blob/main/{place}"]
        if repository
        else []
    )
