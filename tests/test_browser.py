"""The widgets in a real browser: one JupyterLab on a loopback port, one kernel, Debian's chromium; each widget in the lesson that shows it.

Operated by mouse and keyboard; what the page shows is read back and compared with the Python side, byte by byte; nothing may leave the machine.
"""

import ast
import hashlib
import io
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from notebooks import LESSONS
from PIL import Image

from niwt_nb.widgets.explorer import _ALONE

WIDGETS = {  # where it lives, the lesson that shows it
    "NeuronExplorer": ("neurons", "01"),
    "MapExplorer": ("maps", "03"),
    "WeightExplorer": ("weights", "04"),
    "SpeciesDesigner": ("designer", "00"),
    "ExplanationViewer": ("explanations", "07"),
    "BalanceExplorer": ("balance", "05"),
}
IMPORTS = "\n".join(
    f"from niwt_nb.widgets.{room} import {name}" for name, (room, _) in WIDGETS.items()
)
# What sticks out at the right, two columns that became one, a slider without a track, an empty choice, bars that left the rows of their names.
CROOKED = """e => { const all = q => [...e.querySelectorAll(q)], box = x => x.getBoundingClientRect(), right = box(e).right + 1;
return [...all('img, select, button').filter(x => box(x).width && box(x).right > right),
...all('.niwt-body').filter(x => box(x.children[0]).top != box(x.children[1]).top),
...all('.noUi-target').filter(x => box(x).width && box(x).width < 60), ...all('select').filter(x => box(x).width && x.selectedIndex < 0),
...all('.niwt-rows img').filter(x => box(x).height < 290)].map(x => x.outerHTML.slice(0, 90)) }"""
# of the notebook in front
NOW = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"
DROP = """(e, [name, text]) => { const dataTransfer = new DataTransfer(); dataTransfer.items.add(new File([text], name));
['dragover', 'drop'].forEach(kind => e.dispatchEvent(new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer}))) }"""
THEME = "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})"
CHANGE = "id => window.jupyterapp.shell.currentWidget.sessionContext.changeKernel({id})"


def place_lesson(name: str, folder: Path) -> tuple[str, int]:
    "Copy the lesson that shows the widget; its file name and the place of the widget's cell."
    path = next(p for p in LESSONS if p.name.startswith(WIDGETS[name][1]))
    shutil.copy(path, folder)
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return path.name, next(
        i
        for i, c in enumerate(cells)
        if c["cell_type"] == "code" and f"{name}()" in "".join(c["source"])
    )


class Lab:
    "A running JupyterLab with one kernel that all notebooks share."

    def __init__(self, folder: Path, variables: dict):
        self.root, self.token = folder / "root", secrets.token_hex(16)
        self.root.mkdir()
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        settings = folder / "settings" / "@jupyterlab"
        for plugin, values in (
            ("notebook-extension/tracker", {"windowingMode": "none"}),
            ("apputils-extension/notification", {"fetchNews": "false"}),
        ):
            file = settings / f"{plugin}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values))
        places = {
            f"JUPYTER_{k}_DIR": str(folder / k.lower()) for k in ("CONFIG", "DATA", "RUNTIME")
        }
        env = {
            **os.environ,
            **places,
            "JUPYTERLAB_SETTINGS_DIR": str(settings.parent),
            "IPYTHONDIR": str(folder / "ipython"),
        }
        env |= {"OMP_NUM_THREADS": "1", "IN_TEST": "0"} | variables
        options = [
            "--no-browser",
            "--ip=127.0.0.1",
            f"--port={self.port}",
            "--ServerApp.port_retries=0",
            "--ServerApp.allow_root=True",
        ]
        options += [
            f"--ServerApp.root_dir={self.root}",
            f"--IdentityProvider.token={self.token}",
            "--LabApp.news_url=None",
        ]
        # to open a notebook on a kernel of our choice
        options += ["--LabApp.expose_app_in_browser=True"]
        self.log = open(folder / "log", "w")  # noqa: SIM115 (closed in `close`)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            env=env,
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        self.runtime, self.client, self.notebooks = folder / "runtime", None, {}

    def call(self, path: str, body: dict | None = None) -> dict:
        "A call of the server's REST interface."
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/{path}", data, {"Authorization": f"token {self.token}"}
        )
        return json.load(urllib.request.urlopen(request, timeout=60))

    def start(self) -> None:
        "Wait for the server, start the kernel, prepare the notebooks."
        from jupyter_client import BlockingKernelClient

        for _ in range(240):
            assert self.process.poll() is None, Path(self.log.name).read_text()[-3000:]
            try:
                self.call("api/status")
                break
            except OSError:
                time.sleep(0.5)
        for name in WIDGETS:
            self.notebooks[name] = place_lesson(name, self.root)
        kernel = self.call("api/kernels", {"name": "python3"})
        self.kernel = kernel["id"]
        self.client = BlockingKernelClient(
            connection_file=str(self.runtime / f"kernel-{kernel['id']}.json")
        )
        self.client.load_connection_file()
        self.client.start_channels()
        for left in reversed(range(8)):
            try:
                self.client.wait_for_ready(timeout=120)
                break
            # a busy machine answers a heartbeat late, and the client calls that dead
            except RuntimeError:
                if not left or self.process.poll() is not None:
                    raise
                time.sleep(2)
        # what the widget's cell takes from the first cell of its lesson; the cells between are no business of the widget
        self.run(
            f"import gc, hashlib\n{IMPORTS}\nfrom niwt_nb.widgets.session import open_session\n_session = open_session()"
        )

    def run(self, code: str) -> str:
        "Run code in the kernel; what it prints."
        out: list[str] = []
        reply = self.client.execute_interactive(
            code,
            timeout=240,
            output_hook=lambda m: out.append(m["content"].get("text", "")),
            store_history=False,
        )
        assert reply["content"]["status"] == "ok", (
            reply["content"].get("traceback") or reply["content"]
        )
        return "".join(out)

    def ask(self, name: str, expression: str):
        "The value of an expression of the widget `w`."
        find = f"w = [o for o in gc.get_objects() if type(o).__name__ == {name!r}][-1]\n"
        return ast.literal_eval(self.run(find + f"print(repr({expression}), flush=True)"))

    def close(self) -> None:
        if self.client:
            self.client.stop_channels()
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()


@pytest.fixture(scope="module")
def lab(browser, kernels, tmp_path_factory):
    made = Lab(tmp_path_factory.mktemp("lab"), kernels)
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def context(lab, browser):
    made = browser.new_context(viewport={"width": 1280, "height": 1000})
    made.outside, made.faults = [], []

    def guard(route):
        host = urllib.parse.urlsplit(route.request.url).hostname
        if host in ("127.0.0.1", "localhost"):
            return route.continue_()
        made.outside.append(route.request.url)
        return route.abort()

    made.route("**/*", guard)
    yield made
    made.close()


class Shown:
    "A widget on a page."

    def __init__(self, lab: Lab, page, name: str):
        self.lab, self.page, self.name = lab, page, name
        self.part = page.locator(".niwt").first

    def wait(self, expression: str, wanted, seconds: float = 60):
        "Wait until the Python side says so."
        end = time.monotonic() + seconds
        while (got := self.lab.ask(self.name, expression)) != wanted:
            assert time.monotonic() < end, f"{expression} is {got!r}, not {wanted!r}"
            time.sleep(0.2)

    def agree(self) -> None:
        "Every picture on the page is, byte for byte, the one that Python made."
        read = "async es => Promise.all(es.map(async e => Array.from(new Uint8Array(await (await fetch(e.src)).arrayBuffer()))))"
        end = time.monotonic() + 90
        while True:  # both sides anew: a change that is still on its way may redraw a picture
            wanted = sorted(
                self.lab.ask(
                    self.name,
                    "[hashlib.sha256(bytes(p.image.value)).hexdigest() for p in w.panels.values()]",
                )
            )
            got = sorted(
                hashlib.sha256(bytes(b)).hexdigest()
                for b in self.part.locator("img.niwt-panel").evaluate_all(read)
            )
            if got == wanted or time.monotonic() > end:
                break
            time.sleep(0.2)
        assert got == wanted

    def upload(self, name: str, kind: str, content: bytes) -> None:
        with self.page.expect_file_chooser() as chooser:
            self.part.locator(".widget-upload").click()
        chooser.value.set_files({"name": name, "mimeType": kind, "buffer": content})

    def select(self, label: str, option: str) -> None:
        self.part.get_by_label(label, exact=True).select_option(option)


@pytest.fixture
def show(lab, context, tmp_path):
    "Open a widget; afterwards: a screenshot at both widths, nothing wrong in the console, nothing cut off, nothing sent out."
    pages = []

    def opened(name: str) -> Shown:
        page = context.new_page()
        wrong: list[str] = []
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: wrong.append(str(e)))
        pages.append((name, page, wrong))
        file, place = lab.notebooks[name]
        page.goto(f"http://127.0.0.1:{lab.port}/lab/tree/{file}?token={lab.token}&reset")
        cell = page.locator(".jp-Notebook .jp-Cell").nth(place)
        cell.locator(".cm-content").first.wait_for(timeout=60_000)
        idle = page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]")
        # a Lab starts a kernel of its own, at times twice, and shuts the first one down: ours is
        # given to it when it is done
        for _ in range(10):
            page.wait_for_function(f"({NOW})()?.connectionStatus == 'connected'", timeout=60_000)
            idle.wait_for(timeout=60_000)  # asked earlier, it loses the wish to run
            if page.evaluate(f"({NOW})().id") == lab.kernel:
                break
            page.wait_for_timeout(1000)
            page.evaluate(CHANGE, lab.kernel)
            page.wait_for_timeout(1000)
        wrong.clear()  # what the Lab said about kernels that it gave up is no fault of the widget
        cell.locator(".cm-content").first.click()
        page.wait_for_timeout(500)
        page.keyboard.press("Control+Enter")
        page.locator(".niwt img.niwt-panel").first.wait_for(state="visible", timeout=90_000)
        return Shown(lab, page, name)

    yield opened
    for name, page, wrong in pages:
        for width, theme in ((1280, "JupyterLab Light"), (800, "JupyterLab Dark")):
            # a picture of a part that is scrolled away would be cut
            page.set_viewport_size({"width": width, "height": 2400})
            page.evaluate(THEME, theme)
            # the Lab's sidebar
            page.evaluate(
                f"() => window.jupyterapp.shell.{'expand' if width > 1000 else 'collapse'}Left()"
            )
            page.wait_for_timeout(500)
            if "Dark" in theme and not page.locator(".niwt.jupyter-widgets-disconnected").count():
                page.locator(".niwt.niwt-dark").first.wait_for(timeout=60_000)  # the charts follow
            page.locator(".niwt").first.screenshot(path=str(tmp_path / f"{name}_{width}.png"))
            assert (tmp_path / f"{name}_{width}.png").stat().st_size > 20_000
            assert page.locator(".niwt").first.evaluate(CROOKED) == [], f"{name} at {width}"
            assert page.locator(".niwt").first.bounding_box()["height"] < 850, (
                f"{name} at {width} needs more than one screen"
            )
            found = (
                Axe()
                .run(page, context=".niwt", options={"resultTypes": ["violations"]})
                .response["violations"]
            )
            serious = [
                (v["id"], v["nodes"][0]["html"][:120])
                for v in found
                if v["impact"] in ("serious", "critical")
            ]
            assert serious == [], f"{name} in {theme}"
        assert wrong == [], f"{name}: errors in the console"
        page.close()
    assert context.outside == [], "something asked for an address outside this machine"


def test_neuron_explorer_by_keyboard_mouse_and_upload(show, tmp_path):
    w = show("NeuronExplorer")
    w.agree()
    w.part.locator(".noUi-handle").first.focus()
    w.page.keyboard.press("ArrowRight")
    w.wait("w.state['picture']", 2)
    w.agree()
    switch = w.part.locator(".niwt-rows .widget-toggle-button").nth(1)
    switch.click()
    w.wait("w.off == (w.study.neurons[1],)", True)
    switch.focus()
    w.page.keyboard.press("Space")
    w.wait("w.off", ())
    w.part.locator(".niwt-names button").nth(3).click()
    w.wait("w.neuron == w.study.neurons[3]", True)
    w.agree()
    out = io.BytesIO()
    Image.effect_noise((90, 70), 60).convert("CMYK").save(out, "JPEG")
    w.upload("print.jpg", "image/jpeg", out.getvalue())
    w.wait("w.own is not None", True)
    w.part.get_by_text("print colours (CMYK)").wait_for()
    w.part.get_by_text("must pick one of its 60 names").wait_for()
    w.agree()
    w.part.get_by_role("button", name="Remove my picture").click()
    w.wait("w.own", None)
    with w.page.expect_download() as saved:
        w.part.get_by_role("button", name="Save picture").click()
    assert saved.value.suggested_filename == "choose-your-neuron.png"


def test_map_explorer_by_dropdown(show):
    w = show("MapExplorer")
    w.select("attribute", "wing color: blue")
    w.wait("w.attribute", "wing color: blue")
    w.agree()
    picture = w.part.locator("img.niwt-at-map")
    box = picture.bounding_box()
    before = w.lab.ask("MapExplorer", "w.snapshot()[0]")
    picture.click(position={"x": 0.6 * box["width"], "y": 0.1 * box["height"]})
    w.wait(f"w.attribute != 'wing color: blue' and w.state['neuron'] != {before['neuron']}", True)
    w.part.get_by_role("button", name="Undo").click()
    w.wait("w.snapshot()[0]", before)


def test_weight_explorer_by_keyboard(show):
    w = show("WeightExplorer")
    w.part.get_by_role("slider", name="its weight").focus()
    w.page.keyboard.press("ArrowRight")
    w.wait("len(w.moved)", 1)
    w.agree()


def test_species_designer_by_sentence_and_dropdown(show):
    w = show("SpeciesDesigner")
    words = w.part.get_by_label("in words, then Enter")
    words.fill("a bird with blue striped wings, a hooked red bill, a white belly and black legs")
    words.press("Enter")
    w.wait("w.state['bill_shape']", "hooked")
    w.select("tail shape", "forked")
    w.wait("w.study.look['tail_shape']", "forked")
    told = w.lab.ask(
        "SpeciesDesigner", "(w.study.name, sum(p == w.study.n for p in w.study.predicted))"
    )
    w.part.get_by_text(f"{told[1]} of 12", exact=True).wait_for()
    w.agree()
    words.fill("a bird with blue wings, no crest")
    words.press("Enter")
    message = w.part.locator("[role=alert]").get_by_text("no crest")
    message.wait_for()
    # beside what caused it
    assert abs(message.bounding_box()["y"] - words.bounding_box()["y"]) < 120
    surprise = w.part.get_by_role("button", name="Surprise me")
    surprise.evaluate("e => { for (let i = 0; i < 10; i++) e.click() }")  # faster than any hand
    w.part.locator("[role=alert]").wait_for(state="detached")
    w.wait("len([v for v in w.study.look.values() if v])", 10)
    assert w.lab.ask("SpeciesDesigner", "w._surprises") < 5  # of fast clicks the last counts
    w.agree()


def test_explanation_viewer_survives_a_bad_file(show):
    w = show("ExplanationViewer")
    w.part.locator("h3").evaluate(DROP, ["notes.txt", "no picture"])
    w.part.locator("[role=alert]").get_by_text("notes.txt").wait_for()
    assert not w.page.locator(".niwt-drop").count()
    w.select("rather than", w.lab.ask("ExplanationViewer", "w.session.label(3)"))
    w.wait("w.study.other", 3)
    w.part.locator("[role=alert]").wait_for(state="detached")
    w.agree()


def test_balance_explorer_by_button_and_keyboard(show):
    w = show("BalanceExplorer")
    w.part.get_by_role("button", name="Gamma from validation").click()
    w.wait("abs(w.state['gamma'] - w.study.chosen) < 0.2 and w.state['gamma'] != 0", True)
    before = w.lab.ask("BalanceExplorer", "w.state['gamma']")
    w.part.locator(".noUi-handle").nth(1).focus()
    w.page.keyboard.press("ArrowRight")
    w.wait(f"w.state['gamma'] > {before}", True)
    w.agree()
    picture = w.part.locator("img.niwt-at-gamma")
    picture.click(position={"x": 0.9 * picture.bounding_box()["width"], "y": 60})
    w.wait("bool(w.study.at(w.state['gamma']).S < 0.2)", True)
    high = w.lab.ask("BalanceExplorer", "w.state['gamma']")
    w.part.get_by_role("button", name="play").click()  # from the lowest gamma on
    w.wait(f"w.state['gamma'] < {high}", True)
    w.part.get_by_role("button", name="stop").click()


def test_after_the_kernel_is_gone_the_page_says_so(show):  # the last one: nothing answers any more
    w = show("MapExplorer")
    w.page.evaluate(f"() => {{ ({NOW})().restart() }}")
    w.page.locator(".niwt.jupyter-widgets-disconnected").wait_for(timeout=60_000)
    assert "Run this cell again" in w.part.evaluate("e => getComputedStyle(e, '::before').content")
    assert w.part.locator("img.niwt-panel").first.evaluate("e => e.naturalWidth") > 100
    # opened again, a Lab writes that the model is not found: the line is hidden, and comes back with the widget
    lost = '<div class="jp-OutputArea-child"><div class="lm-Panel jp-OutputArea-output">not found</div></div>'
    style = '<div class="jp-OutputArea-child"><div>' + _ALONE + "</div></div>"
    draw = """(e, html) => { const made = document.createElement('div'); made.innerHTML = `<div class=jp-OutputArea>${html}</div>`;
    e.append(made); const told = made.innerText; made.remove(); return told }"""
    for html, shown in (
        (lost + style, ""),
        (lost.replace("lm-Panel", "lm-Panel niwt") + style, "not found"),
    ):
        assert w.page.locator("body").evaluate(draw, html).strip() == shown
