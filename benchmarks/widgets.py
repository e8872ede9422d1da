"""How long from a changed control to the redrawn picture, and does memory grow?"""

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil

from benchmarks.timing import bench_row, register
from niwt_nb.fieldguide.attributes import ATTRIBUTES
from niwt_nb.figures.canvas import _panel_figure, _panel_png
from niwt_nb.widgets.balance import BalanceExplorer
from niwt_nb.widgets.drawer import SpeciesDrawer
from niwt_nb.widgets.editor import ClassEditor
from niwt_nb.widgets.explanations import ExplanationViewer
from niwt_nb.widgets.explorer import Explorer
from niwt_nb.widgets.maps import MapExplorer
from niwt_nb.widgets.neurons import NeuronExplorer
from niwt_nb.widgets.session import Session, open_session
from niwt_nb.widgets.weights import WeightExplorer


def new_changes(
    widget: Any,  # any of the widgets
    seed: int = 0,  # which changes
) -> Callable[[int], Any]:  # called with 0, 1, 2, ...: makes one change
    "An endless series of changes such as a user makes."
    rng = np.random.default_rng(seed)

    def pick(name: str) -> None:
        control = widget.controls[name]
        options = getattr(control, "_options_full", None)
        values = [v for _, v in options] if options else list(range(control.min, control.max + 1))
        control.value = values[int(rng.integers(len(values)))]

    def drag(name: str) -> None:
        control = widget.controls[name]
        control.value = float(rng.uniform(control.min, control.max))

    series: dict[type, list[Callable[[], Any]]] = {
        NeuronExplorer: [
            lambda: pick("picture"),
            lambda: pick("neuron"),
            lambda: widget.switch(int(rng.integers(72)), True),
            lambda: pick("species"),
            lambda: pick("explain"),
        ],
        MapExplorer: [lambda: pick("attribute"), lambda: pick("neuron"), lambda: pick("held_out")],
        SpeciesDrawer: [lambda: pick(str(rng.choice(list(ATTRIBUTES)))), lambda: pick("seed")],
        ClassEditor: [
            lambda: pick("edited"),
            lambda: pick("group"),
            lambda: setattr(widget.sliders[0], "value", float(rng.uniform())),
        ],
        ExplanationViewer: [
            lambda: pick("picture"),
            lambda: pick("species"),
            lambda: pick("other"),
        ],
        BalanceExplorer: [lambda: drag("gamma"), lambda: drag("gamma"), lambda: pick("rows")],
        WeightExplorer: [lambda: drag("weight"), lambda: drag("length"), lambda: pick("feature")],
    }
    moves = series[type(widget)]
    return lambda i: moves[i % len(moves)]()


def change_seconds(
    widget: Explorer,  # any of the widgets
    n: int = 100,  # changes
    seed: int = 0,  # which
) -> list[float]:  # seconds of each change
    "Wall time of every change, from the new value of the control to the new bytes."
    change, found = new_changes(widget, seed), []
    for i in range(n):
        started = time.perf_counter()
        change(i)
        found.append(time.perf_counter() - started)
    return found


def empty_seconds(
    widget: Explorer,  # any of the widgets
) -> float:  # seconds
    "Wall time of drawing every panel of a widget with nothing in it, which nothing can be faster than."
    started = time.perf_counter()
    for panel in widget.panels.values():
        _panel_png(_panel_figure(lambda area: None, panel.width, panel.height))
    return time.perf_counter() - started


def widget_rows(
    name: str,  # of the widget
    widget: Explorer,  # built
    n: int = 100,  # changes that are timed
) -> list[dict[str, Any]]:  # rows: empty panels, median and 95th percentile
    "Time of a change, beside that of empty panels, with the limits of comfort as the peer: 200 ms in the median, 400 ms at the 95th percentile."
    change_seconds(widget, 5, seed=1)  # fonts, lazy fits
    took = [1e3 * t for t in change_seconds(widget, n, seed=2)]
    high, empty = float(np.quantile(took, 0.95)), [1e3 * empty_seconds(widget) for _ in range(9)]
    return [
        bench_row(f"{name}: its panels empty", "wall time, median", "ms", statistics.median(empty)),
        bench_row(
            f"{name}: change to redrawn",
            "wall time, median",
            "ms",
            statistics.median(took),
            "limit",
            200.0,
            n,
        ),
        bench_row(
            f"{name}: change to redrawn",
            "wall time, 95th percentile",
            "ms",
            high,
            "limit",
            400.0,
            n,
        ),
    ]


def memory_growth(
    widget: Explorer,  # any of the widgets
    n: int = 500,  # changes
    warm: int = 120,  # changes before the first reading, so that the rooms for answers and pictures are full
) -> float:  # megabytes
    "Growth of the process's resident memory over `n` changes."
    change = new_changes(widget, 3)
    for i in range(warm):
        change(i)
    gc.collect()
    start = psutil.Process().memory_info().rss
    for i in range(n):
        change(warm + i)
    gc.collect()
    return (psutil.Process().memory_info().rss - start) / 1e6


@register("widgets")
def bench_widgets(
    quiet: bool = False,  # no progress on the screen (there is none)
    n: int = 100,  # changes timed of each widget
    changes: int = 500,  # changes over which memory is watched
    session: Session | None = None,  # open already; None: the field guide, opened and timed
) -> list[dict[str, Any]]:  # rows as `bench_row` makes them
    "Opening, change to redrawn, and memory of the widgets on the field guide."
    started = time.perf_counter()
    session = open_session() if session is None else session
    rows = [bench_row("opening a session", "wall time", "s", time.perf_counter() - started)]
    kinds = {
        "neuron explorer": NeuronExplorer,
        "map explorer": MapExplorer,
        "species designer": SpeciesDrawer,
        "class editor": ClassEditor,
    }
    kinds |= {
        "explanation viewer": ExplanationViewer,
        "balance explorer": BalanceExplorer,
        "weight explorer": WeightExplorer,
    }
    for name, kind in kinds.items():
        started = time.perf_counter()
        widget: Explorer = kind(session=session)
        rows.append(
            bench_row(f"{name}: first picture", "wall time", "s", time.perf_counter() - started)
        )
        rows += widget_rows(name, widget, n)
        rows.append(
            bench_row(
                f"{name}: {changes} changes",
                "memory growth",
                "MB",
                memory_growth(widget, changes),
                repeats=1,
            )
        )
    return rows
