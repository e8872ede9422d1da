"""State of the widgets without a browser: a changed control changes the picture, put back it brings it back; errors are shown and raised.

The fixture `strict` sets the variable under which the widgets raise, and fails a test at its end if an error was swallowed on the way,
as `Button.on_click` does.
"""

import base64
import gc
import io
import re
from datetime import datetime

import ipywidgets
import numpy as np
import psutil
import pytest
from ipywidgets.widgets.widget import CallbackDispatcher
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image

from niwt_nb.figures.canvas import figure_png
from niwt_nb.widgets.balance import BalanceExplorer
from niwt_nb.widgets.designer import SpeciesDesigner
from niwt_nb.widgets.drawer import _FIRST_BIRD, SpeciesDrawer
from niwt_nb.widgets.editor import ClassEditor
from niwt_nb.widgets.explanations import ExplanationViewer
from niwt_nb.widgets.explorer import _read_upload
from niwt_nb.widgets.maps import MapExplorer
from niwt_nb.widgets.neurons import NeuronExplorer
from niwt_nb.core import NiwtError
from niwt_nb.widgets.session import open_session
from niwt_nb.widgets.weights import WeightExplorer

EXPLORERS = (
    NeuronExplorer,
    MapExplorer,
    SpeciesDrawer,
    ClassEditor,
    ExplanationViewer,
    BalanceExplorer,
    WeightExplorer,
)


@pytest.fixture(scope="module")
def session():
    return open_session()


@pytest.fixture(scope="module")
def opened(session):
    "Each widget once; tests put back what they change."
    return {c.__name__: c(session=session) for c in EXPLORERS}


@pytest.fixture(autouse=True)
def strict(monkeypatch):
    "Errors in callbacks raise; those that ipywidgets would swallow fail the test at its end."
    swallowed = []
    call = CallbackDispatcher.__call__

    def loud(self, *args, **kwargs):
        for callback in list(self.callbacks):
            try:
                callback(*args, **kwargs)
            except Exception as e:
                swallowed.append(e)

    monkeypatch.setattr(CallbackDispatcher, "__call__", loud)
    monkeypatch.setenv("IN_TEST", "1")
    yield swallowed
    assert call and not swallowed, f"a callback failed: {swallowed}"


def shown(widget):
    return {name: bytes(panel.image.value) for name, panel in widget.panels.items()}


def drawn(widget):
    "How many pictures were drawn so far."
    return sum(panel.picture.cache_info().misses for panel in widget.panels.values())


# control, another value: (index of the option or number), the panels that must change, those that
# must not
CHANGES = {
    "NeuronExplorer": [
        ("picture", 2, {"picture", "bars"}, set()),
        ("neuron", -1, {"picture", "exciting"}, {"scores"}),
        ("by", -1, {"bars"}, {"scores"}),
    ],
    "MapExplorer": [
        ("attribute", 7, {"map", "row"}, {"column", "test"}),
        ("held_out", -1, {"test"}, {"map", "row", "column"}),
    ],
    "SpeciesDrawer": [
        ("wing_color", 3, {"drawings", "why"}, set()),
        ("seed", 3, {"drawings"}, {"nearest"}),
    ],
    "ClassEditor": [("edited", 3, {"taken"}, set())],
    "ExplanationViewer": [
        ("picture", 2, {"maps", "bars"}, set()),
        ("other", 5, {"maps"}, set()),
        ("neurons", 3, {"maps"}, {"bars"}),
    ],
    "WeightExplorer": [
        ("length", 2.0, {"bars", "agreement"}, set()),
        ("feature", 5, {"bars"}, {"agreement"}),
    ],
    "BalanceExplorer": [
        ("rows", 1, {"curve", "gamma"}, set()),
        ("gamma", 1.0, {"curve", "gamma"}, set()),
    ],
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_changes_the_bytes_and_back_brings_them_back(name, opened):
    widget = opened[name]
    for control, choice, must, must_not in CHANGES[name]:
        before, state = shown(widget), widget.state
        assert all(v.startswith(b"\x89PNG") for v in before.values())
        options = getattr(widget.controls[control], "_options_full", None)
        widget.controls[control].value = choice if options is None else options[choice][1]
        now = shown(widget)
        changed = {k for k in now if now[k] != before[k]}
        assert must <= changed, f"{control}: {changed}"
        assert not must_not & changed, f"{control}: {changed}"
        made = drawn(widget)
        widget.set(**state)
        assert shown(widget) == before, control
        assert drawn(widget) == made, f"{control}: drawn again although it was kept"
        assert widget.error is None


@pytest.mark.parametrize("name", CHANGES)
def test_static_is_a_figure_without_pyplot_and_leaves_the_state_alone(name, opened):
    widget = opened[name]
    before = widget.state
    figure = widget.static()
    assert isinstance(figure, Figure) and figure.axes
    assert widget.state == before and not pyplot.get_fignums()


@pytest.mark.parametrize("name", CHANGES)
def test_every_control_has_a_label_and_every_panel_a_text(name, opened):
    widget = opened[name]
    assert all(c.description for c in widget.controls.values())
    assert all(len(p.caption.value) > len("<span></span>") for p in widget.panels.values())


def test_the_designer_switches_between_its_modes(session):
    designer = SpeciesDesigner(session=session)
    assert type(designer.now) is SpeciesDrawer
    designer.mode.value = "edit"
    assert type(designer.now) is ClassEditor and designer.now.ui in designer.ui.children
    assert isinstance(designer.static(), Figure)


def test_buttons_do_what_their_methods_do(opened):
    neurons, editor, balance = (
        opened[n] for n in ("NeuronExplorer", "ClassEditor", "BalanceExplorer")
    )
    before = shown(neurons)
    neurons.switches[0].value = True
    assert neurons.off == (neurons.study.neurons[0],) and shown(neurons) != before
    neurons.restore_all.click()
    assert neurons.off == () and shown(neurons) == before
    name = editor.session.knowledge.names[int(editor.session.rows[editor.row].argmax())]
    editor.edit(**{name: 0.0})
    assert editor.changes == {name: 0.0}
    editor.back.click()
    assert not editor.changes
    balance.use.click()
    assert abs(balance.state["gamma"] - balance.study.chosen) < 0.2


@pytest.mark.parametrize("name", CHANGES)
def test_undo_and_start_again_bring_back_what_was_shown(name, opened):
    widget = opened[name]
    widget.begin()
    control, choice, *_ = CHANGES[name][0]
    before, first = shown(widget), widget.snapshot()
    options = getattr(widget.controls[control], "_options_full", None)
    widget.controls[control].value = choice if options is None else options[choice][1]
    changed = shown(widget)
    widget.back.click()
    assert shown(widget) == before and widget.snapshot() == first and widget.back.disabled
    widget.controls[control].value = choice if options is None else options[choice][1]
    widget.clear()
    assert shown(widget) == before
    widget.undo()
    assert shown(widget) == changed
    widget.clear()


def test_saving_hands_out_the_static_figure(opened):
    widget = opened["BalanceExplorer"]
    widget.save()
    file = re.search(
        r'download="([^"]+)" href="data:image/png;base64,([^"]+)"', widget.status.value
    )
    assert file[1] == "the-balance-of-seen-and-unseen.png" and base64.b64decode(
        file[2]
    ) == figure_png(widget.static())


def test_a_failing_callback_is_shown_and_fails(opened, monkeypatch):
    widget = opened["MapExplorer"]
    before = widget.state

    def broken(area):
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(widget.panels["row"], "paint", broken)
    monkeypatch.setattr(widget.panels["row"], "shown", None)
    widget.panels["row"].picture.cache_clear()
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        widget.controls["attribute"].value = (before["attribute"] + 1) % 5
    assert 'role="alert"' in widget.status.value and "on purpose" in widget.status.value
    monkeypatch.undo()
    widget.set(**before)
    assert widget.error is None and "alert" not in widget.status.value


def test_a_failing_button_cannot_hide_from_the_fixture(strict):
    button = ipywidgets.Button()
    button.on_click(lambda _: 1 / 0)
    button.click()
    assert [type(e) for e in strict] == [ZeroDivisionError]
    strict.clear()


def test_for_a_user_an_error_is_shown_and_the_widget_lives_on(opened, monkeypatch):
    monkeypatch.setenv("IN_TEST", "0")
    birds = opened["SpeciesDrawer"]
    before = shown(birds)
    birds.controls["sentence"].value = "a nice bird"
    assert "nothing in &#x27;a nice bird&#x27;" in birds.status.value
    assert shown(birds) == before and "niwt-stale" in birds.ui._dom_classes
    birds.controls["sentence"].value = _FIRST_BIRD
    assert birds.error is None


def png(picture, form="PNG"):
    out = io.BytesIO()
    picture.save(out, form)
    return out.getvalue()


def upload(widget, name, content):
    entry = {
        "name": name,
        "type": "image/png",
        "size": len(content),
        "content": memoryview(content),
        "last_modified": datetime(2026, 1, 1),
    }
    widget.upload.value = (entry,)


BAD = {
    "notes.txt": (b"This is no picture. " * 20, "cannot be read"),
    "empty.png": (b"", "is empty (0 bytes)"),
    "cut.png": (png(Image.effect_noise((90, 90), 50).convert("RGB"))[:2000], "cannot be read"),
    "wall.png": (png(Image.new("1", (8000, 6300))), "8000 x 6300 pixels, more than 40 megapixels"),
    "<b onclick=x>.png": (b"x", "cannot be read"),
}


@pytest.mark.parametrize("kind", ["NeuronExplorer", "ExplanationViewer"])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_upload_says_what_is_wrong_and_the_widget_lives_on(kind, name, opened):
    widget = opened[kind]
    before, (content, message) = shown(widget), BAD[name]
    with pytest.raises(NiwtError, match=message.split("(")[0]):
        upload(widget, name, content)
    assert message in widget.status.value and "<b onclick" not in widget.status.value
    assert shown(widget) == before and widget.upload.value == ()
    widget.act(lambda: None)
    assert widget.error is None


@pytest.mark.parametrize(
    "mode, form", [("CMYK", "JPEG"), ("L", "PNG"), ("RGBA", "PNG"), ("1", "PNG"), ("I;16", "PNG")]
)
def test_unusual_pictures_are_read(mode, form, opened):
    widget = opened["ExplanationViewer"]
    before = shown(widget)
    upload(widget, f"odd.{form.lower()}", png(Image.new(mode, (90, 70)), form))
    assert widget.own is not None and "odd." in widget.status.value
    assert shown(widget) != before
    assert (
        widget.controls["species"].label == "your picture"
        and widget.warning in widget.says["verdict"].value
    )
    widget.remove.click()
    assert widget.own is None and shown(widget) == before


def test_a_large_jpeg_is_decoded_smaller(opened):
    picture, note = _read_upload(
        {"name": "pan.jpg", "content": png(Image.new("L", (8000, 6300)), "JPEG")}
    )
    assert picture.width * picture.height < 40_000_000 and "decoded smaller" in note


def test_memory_is_bounded_over_many_changes(opened):
    widget = opened["MapExplorer"]
    rng, process = np.random.default_rng(0), psutil.Process()
    for k in range(110):
        widget.controls["neuron"].value = int(rng.integers(72))
        if k == 69:  # the allocator has what it keeps
            gc.collect()
            start = process.memory_info().rss
    gc.collect()
    caches = [*(p.picture for p in widget.panels.values()), *widget.answers.values()]
    kept = [cache.cache_info() for cache in caches]
    assert all(k.currsize <= k.maxsize <= 24 for k in kept)
    assert process.memory_info().rss - start < 60e6
