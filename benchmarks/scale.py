"What does a run cost with many images or many classes, and how much memory?"

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from benchmarks.timing import bench_row, bench_table, register
from niwt_nb.core import NiwtError
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
SIZES = ((1000, 20), (10_000, 20), (100_000, 20), (200_000, 20), (10_000, 50), (10_000, 500), (50_000, 5000))
DISTINCT = 50  # pictures of a class; further ones are hard links to them: the run opens, decodes and keeps every one


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
            cells = (128 + 25 * (row - 0.5) @ patches + dice.normal(size=192) * 30).reshape(8, 8, 3).repeat(4, 0).repeat(4, 1)
            Image.fromarray(cells.clip(0, 255).astype(np.uint8)).save(folder / f"{i:06d}.png", compress_level=1)
    (root / "attributes.csv").write_text("\n".join(lines), encoding="utf-8")
    (root / "unseen.txt").write_text("\n".join(f"class {c:05d}" for c in range(0, classes, 5)), encoding="utf-8")
    (root / "net.py").write_text(NETWORK, encoding="utf-8")


class Watch(threading.Thread):
    "The resident memory of this process, twenty times a second, in MiB."

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.settled, self.most, self.counting, self.over = 0.0, 0.0, False, threading.Event()

    def run(self) -> None:
        process = psutil.Process()
        while not self.over.wait(0.05):
            now = process.memory_info().rss / 2**20
            if self.counting:
                self.most = max(self.most, now)
            else:
                self.settled = max(self.settled, now)

    def hear(self, line: str) -> None:
        "A line of the run's log: when the first 5,000 images were looked at, or all that there are, growth is counted from here."
        if line.startswith("features of images") and "already" not in line:
            words = line.split()
            self.counting = self.counting or int(words[5]) >= min(5000, int(words[7].rstrip(":")))


def measure_run(
    images: int,  # how many
    classes: int,  # of how many classes
) -> dict[str, float]:  # growth (MiB), H and chance of it, and seconds and CPU seconds of features, fits and pages
    "One run from folder to report, in this process: fresh, or memory of what came before is reused."
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        write_pictures(root / "data", images, classes)
        config = RunConfig(data="folder", root=str(root / "data"), model=f"{root / 'data/net.py'}:load", train="head", shuffles=1, cases=4, workers=0)
        watch, wall, cpu = Watch(), time.perf_counter(), time.process_time()
        watch.start()
        rows = run(config, root / "run", notify=watch.hear)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        watch.over.set()
        timings = json.loads((root / "run/results.json").read_text(encoding="utf-8"))["timings"]
        size = sum(f.stat().st_size for f in (root / "run").rglob("*") if f.is_file())
    features = sum(t["seconds"] for t in timings if t["step"].startswith("photos"))
    fits = sum(t["seconds"] for t in timings if t["step"].startswith(("model", "eszsl", "control")))
    h = {r["method"]: r["H"] for r in rows if r["calibrated"]}
    return {"growth": watch.most - watch.settled, "peak": watch.most, "wall": wall, "cpu": cpu, "features": features, "fits": fits,
            "disk": size / 2**20, "H": h["NIWT"], "chance": h["chance"]}  # fmt: skip


def in_fresh_process(images: int, classes: int) -> dict[str, float]:
    "`measure_run` in a new Python process; raises `NiwtError` with the end of its error output."
    done = subprocess.run([sys.executable, "-W", "ignore", "-m", "benchmarks.scale", str(images), str(classes)], capture_output=True, text=True)
    if done.returncode:
        raise NiwtError(f"a run of {images} images failed: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])


@register("scale")
def bench_scale(
    quiet: bool = False,  # do not show each row as soon as it is known
    sizes: tuple[tuple[int, int], ...] = SIZES,  # images and classes
) -> list[dict[str, Any]]:  # rows as `bench_row` makes them
    "Time and memory of whole runs, from 1,000 to 200,000 small images and from 20 to 5,000 classes."
    rows: list[dict[str, Any]] = []
    for images, classes in sizes:
        got = in_fresh_process(images, classes)
        case = f"{images} images, {classes} classes"
        found = [
            bench_row(case, "features", "ms/image", got["features"] / images * 1e3),
            bench_row(case, "choosing, fitting, controls", "ms/image", got["fits"] / images * 1e3),
            bench_row(case, "whole run, CPU time", "ms/image", got["cpu"] / images * 1e3),
            bench_row(case, "growth after 5,000 images", "MiB", got["growth"], "allowed", 200.0),
            bench_row(case, "run folder", "KiB/image", got["disk"] / images * 1024),
            bench_row(case, "H", "share", got["H"], "chance", got["chance"]),
        ]
        if not quiet:
            print("\n".join(bench_table(found).splitlines()[2 if rows else 0 :]), file=sys.stderr, flush=True)
        rows += found
    return rows


if __name__ == "__main__":
    print(json.dumps(measure_run(*map(int, sys.argv[1:3]))))
