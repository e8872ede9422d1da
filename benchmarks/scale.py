"What does a run cost with many images or many classes, and how much memory?"

import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.timing import bench_row, bench_table, in_new_process, register
from niwt_nb.figures.canvas import PlainFigure, own_style
from niwt_nb.runs.config import RunConfig
from niwt_nb.runs.pipeline import run

NETWORK = """
import torch
from torch import nn
from niwt_nb.network.backbones import ImageTransform

preprocess = ImageTransform(size=32, resize=32)
default_layer = "1"

def load():
    torch.manual_seed(0)
    below = [nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.ReLU()), nn.Sequential(nn.Conv2d(16, 64, 2, 2), nn.ReLU())]
    return nn.Sequential(*below, nn.Conv2d(64, 256, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10))
"""
SIZES = (
    (1000, 20),
    (10_000, 20),
    (100_000, 20),
    (200_000, 20),
    (20_000, 50),
    (20_000, 500),
    (20_000, 5000),
    (200_000, 2000),
)
KINDS = {  # how lines of a run's log begin -> what they end
    "features of": "features of all images",
    "classifiers": "choosing settings, fitting",
    "ESZSL": "ESZSL",
    "control": "control",
}
SPENT = ("reading the folder", *KINDS.values(), "report")
# pictures of a class; further ones are hard links to them: the run opens, decodes and keeps every
# one
DISTINCT = 50


def write_pictures(
    root: Path,  # an empty folder
    images: int,  # how many
    classes: int,  # of how many classes; a fifth of them is unseen
    seed: int = 0,  # of everything
) -> None:
    "A data set in a folder: pictures of 32 pixels whose patches follow 32 attributes of their class, and noise."
    dice, each = np.random.default_rng(seed), images // classes
    known = dice.random((classes, 32)).round(3)
    patches = dice.normal(size=(32, 8 * 8 * 3))
    lines = ["class," + ",".join(f"a{i}" for i in range(32))]
    for c, row in enumerate(known):
        folder = root / "images" / f"class {c:05d}"
        folder.mkdir(parents=True)
        lines.append(f"class {c:05d}," + ",".join(map(str, row)))
        for i in range(each):
            if i >= DISTINCT:
                os.link(folder / f"{i % DISTINCT:06d}.png", folder / f"{i:06d}.png")
                continue
            cells = (
                (128 + 25 * (row - 0.5) @ patches + dice.normal(size=192) * 30)
                .reshape(8, 8, 3)
                .repeat(4, 0)
                .repeat(4, 1)
            )
            Image.fromarray(cells.clip(0, 255).astype(np.uint8)).save(
                folder / f"{i:06d}.png", compress_level=1
            )
    (root / "attributes.csv").write_text("\n".join(lines), encoding="utf-8")
    (root / "unseen.txt").write_text(
        "\n".join(f"class {c:05d}" for c in range(0, classes, 5)), encoding="utf-8"
    )
    (root / "net.py").write_text(NETWORK, encoding="utf-8")


class Watch(threading.Thread):
    "The resident memory of this process, twenty times a second, in MiB, and its CPU seconds by what they were spent on, see `KINDS`."

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.settled, self.most, self.counting, self.over = 0.0, 0.0, False, threading.Event()
        self.spent, self.before = dict.fromkeys(SPENT, 0.0), time.process_time()

    def run(self) -> None:
        process = psutil.Process()
        while not self.over.wait(0.05):
            now = process.memory_info().rss / 2**20
            if self.counting:
                self.most = max(self.most, now)
            else:
                self.settled = max(self.settled, now)

    def spend(self, kind: str) -> None:
        "What was spent since the last call goes to `kind`."
        now = time.process_time()
        self.spent[kind], self.before = self.spent[kind] + now - self.before, now

    def hear(self, line: str) -> None:
        "A line of the run's log: when the first 5,000 images were looked at, or all that there are, growth is counted from here."
        self.spend(
            next(
                (kind for start, kind in KINDS.items() if line.startswith(start)),
                "reading the folder",
            )
        )
        if line.startswith("features of images") and "already" not in line:
            words = line.split()
            self.counting = self.counting or int(words[5]) >= min(5000, int(words[7].rstrip(":")))


def measure_run(
    images: int,  # how many
    classes: int,  # of how many classes
) -> dict[
    str, float
]:  # growth (MiB), run folder (MiB), H and chance of it, CPU seconds in all and by what they were spent on
    "One run from folder to report, in this process: fresh, or memory of what came before is reused."
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        write_pictures(root / "data", images, classes)
        config = RunConfig(
            data="folder",
            root=str(root / "data"),
            model=f"{root / 'data/net.py'}:load",
            train="head",
            shuffles=1,
            cases=4,
            workers=0,
        )
        watch = Watch()
        watch.start()
        rows = run(config, root / "run", notify=watch.hear)
        watch.spend("report")
        watch.over.set()
        size = sum(f.stat().st_size for f in (root / "run").rglob("*") if f.is_file())
    h = {r["method"]: r["H"] for r in rows if r["calibrated"]}
    told = {
        "growth": watch.most - watch.settled,
        "peak": watch.most,
        "disk": size / 2**20,
        "H": h["NIWT"],
        "chance": h["chance"],
    }
    return told | {"cpu": sum(watch.spent.values()), **watch.spent}


@register("scale")
def bench_scale(
    quiet: bool = False,  # do not show each row as soon as it is known
    sizes: tuple[tuple[int, int], ...] = SIZES,  # images and classes
) -> list[dict[str, Any]]:  # rows as `bench_row` makes them
    "CPU time and memory of whole runs, from 1,000 to 200,000 small images and from 20 to 5,000 classes."
    rows: list[dict[str, Any]] = []
    for images, classes in sizes:
        got = json.loads(
            in_new_process(f"a run of {images} images", "-m", "benchmarks.scale", images, classes)
        )
        case = f"{images} images, {classes} classes"
        found = [
            *(
                bench_row(case, kind, "ms/image", seconds / images * 1e3)
                for kind, seconds in got.items()
                if kind in SPENT
            ),
            bench_row(case, "whole run", "ms/image", got["cpu"] / images * 1e3),
            bench_row(case, "growth after 5,000 images", "MiB", got["growth"], "allowed", 200.0),
            bench_row(case, "run folder", "KiB/image", got["disk"] / images * 1024),
            bench_row(case, "H", "share", got["H"], "chance", got["chance"]),
        ]
        if not quiet:
            print(
                "\n".join(bench_table(found).splitlines()[2 if rows else 0 :]),
                file=sys.stderr,
                flush=True,
            )
        rows += found
    return rows


def cost_figure(
    rows: list[dict[str, Any]],  # of `bench_scale`
) -> Figure:  # two panels: against images, at the fewest classes; against classes, at the number of images that most classes share
    "CPU time of an image by what it is spent on."
    found: dict[tuple[int, int], dict[str, float]] = {}
    for row in rows:
        if row["unit"] == "ms/image" and row["metric"] != "whole run":
            images, classes = (int(part.split()[0]) for part in row["case"].split(", "))
            found.setdefault((images, classes), {})[row["metric"]] = row["ours"]
    least = min(classes for _, classes in found)
    most = max(
        {images for images, _ in found}, key=lambda n: sum(images == n for images, _ in found)
    )
    panels = {f"images, {least} classes": [size for size in found if size[1] == least]}
    panels[f"classes, {most:,} images"] = [size for size in found if size[0] == most]
    with own_style():
        figure = PlainFigure(figsize=(9, 3.6), layout="constrained")
        for at, (panel, (title, sizes)) in enumerate(
            zip(figure.subplots(1, 2), panels.items(), strict=True)
        ):
            sizes, below = sorted(sizes), np.zeros(len(sizes))
            for kind in SPENT:
                height = np.array([found[size].get(kind, 0.0) for size in sizes])
                panel.bar([f"{size[at]:,}" for size in sizes], height, 0.6, below, label=kind)
                below = below + height
            panel.set(xlabel=title, ylabel="CPU time, ms an image")
            panel.spines[["top", "right"]].set_visible(False)
        figure.axes[1].legend(frameon=False, loc="upper left")
        return figure


if __name__ == "__main__":
    print(json.dumps(measure_run(*map(int, sys.argv[1:3]))))
