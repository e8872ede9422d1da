"""What all tests share: no network, one browser, real data where the environment says so, and the order in which several processes take the tests.

The tests of a file stay in one process, so that what they share is made once; notebooks are dealt out one by one, but for those of widgets.
What takes longest begins first.
Coverage is measured in all of them: of the package as it is imported, and of the exported cells that notebooks run.
"""

import contextlib
import ipaddress
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "workers"))
import kernels as server  # noqa: E402

CHROMIUM = os.environ.get("NIWT_CHROMIUM") or next(
    (p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None
)
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
# files that share a process with another one
TOGETHER = {"test_report": "test_browser", "test_fuzz_files": "test_data_fuzz"}
FIRST = ("test_lessons", "test_browser", "test_style", "test_notebooks")

_connect = socket.socket.connect


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config, items):
    "Groups of tests that stay together, the longest first; what is run once more is dealt out one by one."
    again = config.option.markexpr == "numeric"
    place = {name: i for i, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(TOGETHER.get(item.path.stem, item.path.stem), len(FIRST)))
    for item in items:
        name = TOGETHER.get(item.path.stem, item.path.stem)
        if name != "test_notebooks" and not again:
            item.add_marker(pytest.mark.xdist_group(name))
        elif not again and "widgets" in item.name:  # one session for all of them
            item.add_marker(pytest.mark.xdist_group("test_widgets"))


def pytest_collection_finish(session):
    "Groups that are lost would go unnoticed: everything that tests share would be made in each process, and some of it at once."
    lost = [
        i.nodeid
        for i in session.items
        if i.get_closest_marker("xdist_group") and "@" not in i.nodeid
    ]
    if getattr(session.config.option, "loadgroup", False) and lost:
        raise pytest.UsageError(
            f"this pytest-xdist does not group tests under pytest {pytest.__version__}: {lost[0]}"
        )
    if not hasattr(session.config, "workerinput") and not session.config.option.collectonly:
        _serve([item.nodeid for item in session.items])


# tests that need kernels: the process that hands out the tests serves them to all
WITH_KERNELS = ("test_lesson_runs", "test_browser.py")
_open = contextlib.ExitStack()


def pytest_configure(config):
    "The processes that are told what to run learn where kernels will be."
    if not hasattr(config, "workerinput"):
        box = _open.enter_context(tempfile.TemporaryDirectory())
        os.environ["TEST_KERNELS"] = str(Path(box) / "jupyter")


def _serve(names):
    folder = Path(os.environ["TEST_KERNELS"])
    if not folder.exists() and any(test in name for name in names for test in WITH_KERNELS):
        _open.enter_context(server.served(folder))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node, ids):
    _serve(ids)


def pytest_unconfigure(config):
    _open.close()


@pytest.fixture(scope="session")
def kernels():
    "Variables for whoever starts Jupyter's kernels: they begin with the package imported."
    return server.ready(Path(os.environ["TEST_KERNELS"]))


def _stays_here(address: object) -> bool:
    if not isinstance(address, tuple):
        return True  # a Unix socket
    host = str(address[0])
    if host in ("localhost", ""):
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    "A connection that leaves this machine is an error."

    def connect(self, address):
        if not _stays_here(address):
            raise AssertionError(
                f"a test tried to reach {address!r}; nothing may touch the network unless asked to"
            )
        return _connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture(scope="session")
def browser():
    "Debian's Chromium without a window."
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine: apt-get install chromium, or set NIWT_CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        made = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield made
        made.close()


@pytest.fixture
def nobody(tmp_path):
    "A block in which this process is a user who may not read and write everything."
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o055)

    @contextlib.contextmanager
    def block():
        before = os.geteuid()
        os.seteuid(before or 65534)
        try:
            yield
        finally:
            os.seteuid(before)

    return block


def real(*variables: str) -> list[Path]:
    "Where real data lies; skips the test where a variable that says so is not set."
    missing = [v for v in variables if not os.environ.get(v)]
    if missing:
        pytest.skip(f"{', '.join(missing)} not set: real data is not at hand")
    return [Path(os.environ[v]) for v in variables]


TINY_NETWORK = """
from niwt_nb.core import import_torchvision; import_torchvision()
from torch import nn
from torchvision.transforms.functional import pil_to_tensor
def preprocess(image): return pil_to_tensor(image.resize((32, 32))).float() / 255
def load(): return nn.Sequential(nn.Conv2d(3, 16, 5, 2), nn.ReLU(), nn.Conv2d(16, 24, 3, 2), nn.ReLU(), nn.Conv2d(24, 32, 3), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2))
"""
