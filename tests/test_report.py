"The report in a real browser: three widths, light and dark, on paper; nothing is asked from the network, nothing runs, nothing sticks out."

from pathlib import Path

import pytest

from niwt_nb.runs.config import RunConfig
from niwt_nb.runs.pipeline import run


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    "The report of a small run."
    out = tmp_path_factory.mktemp("report") / "run"
    run(
        RunConfig(
            n_seen=12,
            n_unseen=4,
            images_per_class=(6, 3),
            epochs=1,
            more_epochs=1,
            shuffles=1,
            cases=4,
        ),
        out,
    )
    return out / "report.html"


def open_page(browser, page_file: Path, width: int, scheme: str):
    "The page in a fresh window, what it asked from elsewhere, and what it complained about."
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    asked, complaints = [], []
    page.on(
        "request",
        lambda r: asked.append(r.url) if not r.url.startswith(("data:", "file:")) else None,
    )
    page.on("console", lambda m: complaints.append(m.text))
    page.on("pageerror", lambda e: complaints.append(str(e)))
    page.goto(page_file.as_uri())
    return page, asked, complaints


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 800, 390])
def test_the_page_fits_and_asks_for_nothing(browser, page_file, width, scheme):
    page, asked, complaints = open_page(browser, page_file, width, scheme)
    assert not asked and not complaints
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
        "the page scrolls sideways"
    )
    assert page.evaluate("[...document.images].filter(i => !i.naturalWidth).length") == 0, (
        "a picture is broken"
    )
    assert page.evaluate("document.scripts.length") == 0
    ink, ground = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    bright = lambda c: sum(int(x) for x in c[4:-1].split(","))  # noqa: E731
    assert (bright(ink) > bright(ground)) == (scheme == "dark")
    assert page.locator("article.case").count() == 4
    for link in page.locator("nav a").all():
        assert page.locator(link.get_attribute("href")).count() == 1


def test_small_text_stays_readable_on_a_phone(browser, page_file):
    page, _, _ = open_page(browser, page_file, 390, "light")
    sizes = page.evaluate(
        "[...document.querySelectorAll('p, td, th, li span, figcaption')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 12
    used = page.evaluate(
        "[...document.querySelectorAll('figure img')].map(i => i.currentSrc.length)"
    )
    wide, _, _ = open_page(browser, page_file, 1280, "light")
    assert used != wide.evaluate(
        "[...document.querySelectorAll('figure img')].map(i => i.currentSrc.length)"
    ), "phones get the wide drawings"


def test_it_prints(browser, page_file, tmp_path):
    page, _, _ = open_page(browser, page_file, 1280, "dark")
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    page.emulate_media(media="print")
    assert page.evaluate(
        "[...document.querySelectorAll('.frame')].every(f => f.scrollHeight <= f.clientHeight + 2)"
    ), "a table is cut off on paper"
