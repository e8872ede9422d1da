"""Numbers that say what the code costs, beside what it could cost at least."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from niwt_nb.core import NiwtError, check_name, import_object
from niwt_nb.fieldguide.network import SmallCNN


def bench_row(
    case: str,  # what was measured
    metric: str,  # what kind of number: "wall time", "CPU time", "peak memory", "accuracy", ...
    unit: str,  # of `ours` and `theirs`: "s", "ms/image", "MB", ...
    ours: float,  # this package
    peer: str = "",  # what it is compared with
    theirs: float | None = None,  # the same quantity for the peer; None: there is none
    repeats: int = 1,  # how often it was measured (the median is reported)
) -> dict[str, Any]:  # keys case, metric, unit, ours, peer, theirs, ratio, repeats
    "One row of a benchmark; raises `NiwtError` for a quantity that is not a finite number."
    for name, value in (("ours", ours), ("theirs", theirs)):
        if value is not None and not abs(float(value)) < float("inf"):
            raise NiwtError(f"{name} of {case!r} is {value}, expected a finite number")
    other = None if theirs is None else float(theirs)
    ratio = float(ours) / other if other else None
    return {
        "case": case,
        "metric": metric,
        "unit": unit,
        "ours": float(ours),
        "peer": peer,
        "theirs": other,
        "ratio": ratio,
        "repeats": int(repeats),
    }


BENCHES: dict[str, Callable[[bool], list[dict[str, Any]]]] = {}


def register(
    name: str,  # for `python -m benchmarks NAME`
) -> Callable:  # a decorator that leaves the function as it is
    "Make a benchmark known under a name."

    def keep(
        function: Callable[[bool], list[dict[str, Any]]],
    ) -> Callable[[bool], list[dict[str, Any]]]:
        BENCHES[name] = function
        return function

    return keep


def run_bench(
    name: str,  # one of `BENCHES`
    quiet: bool = False,  # no progress on the screen
) -> list[dict[str, Any]]:  # rows as `bench_row` makes them
    "Run a benchmark by name; raises `NiwtError` with the nearest names if there is none."
    return BENCHES[check_name(name, BENCHES, "benchmark")](quiet)


def bench_table(
    rows: list[dict[str, Any]],  # as `bench_row` makes them
) -> str:  # lines of text, columns aligned
    "Rows as a table for the screen."
    short = lambda v: "" if v is None else f"{v:.3g}" if isinstance(v, float) else str(v)  # noqa: E731
    keys = ["case", "metric", "unit", "ours", "peer", "theirs", "ratio", "repeats"]
    cells = [keys, *[[short(row[k]) for k in keys] for row in rows]]
    width = [max(len(line[i]) for line in cells) for i in range(len(keys))]
    numeric = {"ours", "theirs", "ratio", "repeats"}
    pad = [str.rjust if k in numeric else str.ljust for k in keys]
    lines = [
        "  ".join(p(c, w) for p, c, w in zip(pad, line, width, strict=True)).rstrip()
        for line in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def forward_seconds(
    model: nn.Module,  # in evaluation mode
    x: Tensor,  # (B, 3, H, W) images
    repeats: int = 5,  # the median of so many passes
) -> float:  # seconds an image
    "Time of a bare forward pass of one image, without gradients, after one pass to warm up."
    taken = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            start = time.perf_counter()
            model(x)
            taken.append((time.perf_counter() - start) / len(x))
    return statistics.median(taken[1:])


PASS = """
import sys, torch, niwt_nb
from benchmarks.timing import forward_seconds
from niwt_nb.core import import_torchvision
torch.set_num_threads(1)
network = import_torchvision().models.mobilenet_v2().eval()
x = torch.randn(32, 3, int(sys.argv[1]), int(sys.argv[1])).contiguous(memory_format=torch.channels_last)
print(forward_seconds(network, x))
"""


def in_new_process(
    what: str,  # that is measured, for the message
    *command: object,  # what Python is started with
    **env: str,  # added to the environment
) -> str:  # the last line that it prints
    "Measure in a new Python process; raises `NiwtError` with the end of its error output."
    command, root = (
        (sys.executable, "-W", "ignore", *command),
        Path(__file__).resolve().parent.parent,
    )
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        cwd=root,
    )
    if done.returncode:
        raise NiwtError(f"measuring {what} failed: {done.stderr.strip()[-500:] or done.returncode}")
    return done.stdout.splitlines()[-1]


def pass_with_pages(
    large: bool,  # ask for pages of 2 MiB, as the package does
    side: int = 224,  # pixels
) -> float:  # milliseconds an image
    "A bare forward pass of MobileNetV2 on 32 images in a new process: the setting is read when the first tensor is made."
    return 1000 * float(
        in_new_process("a forward pass", "-c", PASS, side, THP_MEM_ALLOC_ENABLE=str(int(large)))
    )


@register("pages")
def bench_pages(
    quiet: bool = True,  # without effect
    sides: tuple[int, ...] = (224, 128, 64),  # pixels
) -> list[dict[str, Any]]:  # a row a size
    "A forward pass with pages of 2 MiB beside one with those of 4 KiB."
    made = {side: (pass_with_pages(True, side), pass_with_pages(False, side)) for side in sides}
    return [
        bench_row(
            f"MobileNetV2, {side} pixels",
            "forward pass",
            "ms/image",
            ours,
            "4 KiB pages",
            theirs,
            5,
        )
        for side, (ours, theirs) in made.items()
    ]


STEPS = {
    "network": "training",
    "photos": "features",
    "importance": "importance",
    "jacobian": "Jacobian of the tail",
    "choice": "choosing settings",
    "weights": "new classifiers",
    "control": "shuffled control",
}


def timing_rows(
    timings: list[dict[str, Any]],  # a run's steps: step, seconds, images
    total: float,  # seconds of the whole run
    bare: float,  # seconds of a bare forward pass of one image
    repeats: int = 1,  # runs
) -> list[dict[str, Any]]:  # one row a kind of step, then the rest and the whole
    "Steps of the same kind added up, beside the forward passes that they contain."
    rows, known = [], 0.0
    for kind, title in STEPS.items():
        own = [
            t
            for t in timings
            if t["step"].removeprefix("validation/").split("/")[0].split("-")[0] == kind
        ]
        seconds, images = sum(t["seconds"] for t in own), sum(t["images"] for t in own)
        known += seconds
        peer = f"bare forward, {images} images" if images else ""
        rows.append(
            bench_row(
                title, "wall time", "s", seconds, peer, images * bare if images else None, repeats
            )
        )
    images = sum(t["images"] for t in timings)
    rows.append(
        bench_row(
            "drawing, charts, report", "wall time", "s", max(total - known, 0.0), repeats=repeats
        )
    )
    return [
        *rows,
        bench_row(
            "whole demo",
            "wall time",
            "s",
            total,
            f"bare forward, {images} images",
            images * bare,
            repeats,
        ),
    ]


@register("demo")
def bench_demo(
    quiet: bool = False,  # no progress on the screen
    config: Any = None,  # `RunConfig`, other settings than the demo's, for a quick look
) -> list[dict[str, Any]]:  # rows as `bench_row` makes them
    "Seconds of each step of `niwt demo` beside the bare forward passes that it contains."
    # imported here, so that other benchmarks are not measured with a pipeline in memory
    config = config or import_object("niwt_nb.runs.config:RunConfig")()
    run = import_object("niwt_nb.runs.pipeline:run")
    with tempfile.TemporaryDirectory() as place:
        start = time.perf_counter()
        run(config, Path(place) / "demo", quiet=quiet)
        total = time.perf_counter() - start
        timings = json.loads((Path(place) / "demo" / "results.json").read_text(encoding="utf-8"))[
            "timings"
        ]
    x = torch.zeros(config.batch_size, 3, config.image_size, config.image_size)
    return timing_rows(timings, total, forward_seconds(SmallCNN(config.n_seen).eval(), x))
