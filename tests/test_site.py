"The pages as they were built, in a browser: `make check-site` says where they are; skipped elsewhere."

import functools
import os
import re
import threading
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from notebooks import ALL, NBS, label

SITE = Path(os.environ.get("NIWT_SITE", "")).resolve()
PAGES = [p for p in sorted(SITE.rglob("*.html")) if "_static" not in p.parts] if "NIWT_SITE" in os.environ else []
pytestmark = pytest.mark.skipif("NIWT_SITE" not in os.environ, reason="the site is built and looked at by `make check-site`")


class Page(HTMLParser):
    "Anchors and addresses of a page."

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.loaded = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
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
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = context.pages[0] if context.pages else context.new_page()
        if not getattr(page, "watched", False):
            page.on("request", lambda r: wrong.append(r.url) if not r.url.startswith((served, "data:", "blob:")) else None)
            page.on("response", lambda r: wrong.append(f"{r.status} {r.url}") if r.status >= 400 and "favicon" not in r.url else None)
            page.watched = True
        page.goto(served + name)
        return page

    wrong: list[str] = []
    yield opened
    if context:
        context.close()
    assert not wrong, wrong[:10]


def test_every_link_leads_somewhere_and_nothing_comes_from_elsewhere():
    built = {path.resolve(): Page(path) for path in PAGES}
    dead, count = [], 0
    for path, page in built.items():
        assert not [src for src in page.loaded if re.match(r"(https?:)?//", src)], path
        for link in page.links:
            target, _, anchor = link.partition("#")
            if re.match(r"\w+:", link):
                continue
            found = (path.parent / target).resolve() if target else path
            count += 1
            if not found.exists() or (anchor and found in built and anchor not in built[found].anchors):
                dead.append(f"{path.relative_to(SITE)}: {link}")
    assert count > 1000 and not dead, dead[:20]


def test_every_notebook_is_a_page_and_offered_as_it_is():
    for path in ALL:
        assert (SITE / f"{label(path)}.html").exists()
        assert (SITE / "_sources" / path.relative_to(NBS)).read_bytes() == path.read_bytes()


def test_no_page_is_wider_than_a_phone(look):
    wide = []
    for path in PAGES:
        page = look(path.relative_to(SITE).as_posix(), 390)
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wide.append(path.relative_to(SITE).as_posix())
    assert not wide, wide


@pytest.mark.parametrize(
    "words, page",
    [("importance", "lessons/02_importance"), ("calibration", "api/niwt_nb.method"), ("pooled_jacobian", "api/niwt_nb.method")],
)
def test_the_search_finds(words, page, look):
    seen = look(f"search.html?q={words}")
    seen.wait_for_selector(f"#search-results a[href*='{page}.html']", timeout=60_000)


@pytest.mark.parametrize("scheme, dark", [("light", False), ("dark", True)])
def test_answers_unfold_in_light_and_dark(scheme, dark, look):
    page = look("lessons/02_importance.html", 800, scheme)
    red = int(re.search(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[0])
    assert (red < 80) == dark
    answer = page.locator("article details").first
    assert not answer.locator("p").first.is_visible()
    answer.locator("summary").click()
    assert answer.locator("p").first.is_visible()
    assert page.locator("math").count() > 5 and page.evaluate("document.fonts.check('16px \"STIX Two Math\"')")
    assert page.locator("a.right-next").get_attribute("href").endswith("03_from_words_to_importances.html")
