"What the pipeline's notebook cannot show: processes that are killed, folders that cannot be written, other data than birds, real photos."

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY_NETWORK, real
from PIL import Image, ImageDraw

from niwt_nb.runs import folder as runs_folder
from niwt_nb.runs import pipeline
from niwt_nb.runs.steps import load_data
from niwt_nb.core import NiwtError
from niwt_nb.data.dataset import subset
from niwt_nb.method.niwt import NIWT
from niwt_nb.network.backbones import load_backbone
from niwt_nb.runs.config import RunConfig, read_config
from niwt_nb.runs.folder import _open_run
from niwt_nb.runs.pipeline import run

HERE = Path(__file__).parent
SMALL = RunConfig(
    n_seen=12, n_unseen=4, images_per_class=(8, 3), epochs=2, more_epochs=2, shuffles=2, cases=4
)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    "A folder with a run that nobody disturbed and one that was killed 20 times, and what is told about both."
    folder = tmp_path_factory.mktemp("runs")
    command = [sys.executable, str(HERE / "workers" / "killed_runs.py"), str(folder), "20", "1"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.fixture(scope="module")
def finished(killed):
    "The folder and the table of the run that nobody disturbed."
    folder, told = killed
    return folder / "undisturbed", told["rows"]


def test_killed_at_20_moments_and_resumed_gives_the_same_digits(killed):
    folder, told = killed
    assert told["killed"] == 20
    assert told["again"] == told["rows"]
    assert not told["left"], "temporary files were left behind"
    for name in ("metrics.json", "metrics.csv", "per_class.csv", "neurons.csv", "config.toml"):
        assert (folder / "killed" / name).read_bytes() == (
            folder / "undisturbed" / name
        ).read_bytes(), name


def test_a_finished_step_is_not_computed_again(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    said: list[str] = []
    assert run(SMALL, folder, notify=said.append) == finished[1]
    assert said and all(line.endswith("already done") for line in said), said


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "removed"])
def test_a_damaged_step_is_noticed_and_computed_again(finished, tmp_path, damage):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    step = folder / "model-attributes.safetensors"
    raw = bytearray(step.read_bytes())
    if damage == "removed":
        step.unlink()
    else:
        raw[-1] ^= 255
        step.write_bytes({"cut": raw[: len(raw) // 2], "flipped": raw, "emptied": b""}[damage])
    said: list[str] = []
    rows = run(SMALL, folder, notify=said.append)
    assert [line for line in said if "already done" not in line][0].startswith(
        "classifiers from attributes"
    )
    for row, expected in zip(rows, finished[1], strict=True):
        assert row == pytest.approx(expected), row["method"]


def test_two_runs_in_one_folder(tmp_path):
    told, tell = os.pipe()
    other = os.fork()
    if not other:
        try:
            with _open_run(tmp_path / "run", RunConfig()):
                os.write(tell, b"in")
                time.sleep(60)
        finally:
            os._exit(0)
    try:
        assert os.read(told, 2) == b"in"
        with pytest.raises(NiwtError, match=f"another run is using .* \\(process {other} on"):
            run(RunConfig(), tmp_path / "run")
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
        os.close(told)
        os.close(tell)
    with _open_run(tmp_path / "run", RunConfig()):
        pass  # the lock of a killed process holds nobody up


def test_a_folder_that_may_not_be_written_to(tmp_path, nobody):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    for target in (folder, folder / "deeper"):
        with (
            nobody(),
            pytest.raises(NiwtError, match="may not write to"),
            _open_run(target, RunConfig()),
        ):
            pass


def test_a_disk_that_is_full(tmp_path, monkeypatch):
    def full(*args, **kw):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("niwt_nb.core.save_file", full)
        with pytest.raises(NiwtError, match="the disk is full, .* finished steps are kept"):
            run(SMALL, tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.tmp"))
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_limit_on_the_size_of_files(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(NiwtError), _open_run(tmp_path / "run", RunConfig()) as opened:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, hard))
        try:
            opened.step("big", "k", lambda: ({"x": torch.zeros(10**6)}, {}))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [".lock", "config.toml"]


def test_a_run_of_another_version(finished, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    monkeypatch.setattr(runs_folder, "__version__", "9.9.9")
    with pytest.raises(
        NiwtError, match=r"was written by niwt_nb \d.* \(format 2\), this is 9\.9\.9"
    ):
        run(SMALL, folder)


def test_other_settings_reuse_what_still_fits(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    said: list[str] = []
    run(replace(SMALL, shuffles=3), folder, replace_run=True, notify=said.append)
    assert [line for line in said if "already done" not in line][0].startswith("control")
    assert read_config(folder / "config.toml").shuffles == 3


def test_the_caller_keeps_its_random_numbers(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    (folder / "network.safetensors").unlink()
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    run(SMALL, folder)
    assert torch.equal(torch.rand(3), expected)


SHAPES, COLOURS = (
    ("circle", "square", "triangle", "cross"),
    {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (50, 80, 200), "yellow": (220, 200, 40)},
)


def draw_shape(shape: str, colour: tuple[int, int, int], dice: np.random.Generator) -> Image.Image:
    "A coloured shape somewhere on a grey page."
    image = Image.fromarray(dice.integers(90, 130, (48, 48, 3), dtype=np.uint8))
    x, y, r = (*dice.integers(16, 32, 2), int(dice.integers(9, 15)))
    pen = ImageDraw.Draw(image)
    if shape == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    elif shape == "square":
        pen.rectangle((x - r, y - r, x + r, y + r), fill=colour)
    elif shape == "triangle":
        pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=colour)
    else:
        pen.rectangle((x - r, y - 3, x + r, y + 3), fill=colour)
        pen.rectangle((x - 3, y - r, x + 3, y + r), fill=colour)
    return image


@pytest.fixture
def shapes(tmp_path):
    "A folder of 16 kinds of shapes with their attributes; four kinds are not to be learned. One name is hostile."
    dice, names = np.random.default_rng(0), {}
    for shape in SHAPES:
        for colour, paint in COLOURS.items():
            name = "<b>red<" if (shape, colour) == ("circle", "red") else f"{colour} {shape}"
            names[name] = (shape, colour)
            (tmp_path / "shapes" / name).mkdir(parents=True)
            for i in range(8):
                draw_shape(shape, paint, dice).save(tmp_path / "shapes" / name / f"{i}.png")
    table = [
        ["class", *SHAPES, *COLOURS],
        *(
            [n, *(int(s == x) for x in SHAPES), *(int(c == x) for x in COLOURS)]
            for n, (s, c) in names.items()
        ),
    ]
    (tmp_path / "shapes" / "attributes.csv").write_text(
        "\n".join(",".join(map(str, row)) for row in table)
    )
    (tmp_path / "net.py").write_text(TINY_NETWORK)
    unseen = ("<b>red<", "green square", "blue triangle", "yellow cross")
    config = RunConfig(
        data="folder",
        root=str(tmp_path / "shapes"),
        unseen=unseen,
        model=f"{tmp_path}/net.py:load",
        shuffles=1,
        cases=4,
    )
    return config, tmp_path


def test_a_folder_of_something_else_than_birds(shapes):
    config, place = shapes
    rows = run(config, place / "run")
    assert [r["method"] for r in rows].count("NIWT") == 2
    page = (place / "run" / "report.html").read_text(encoding="utf-8")
    assert "<b>red<" not in page and "&lt;b&gt;red&lt;" in page


def test_report_comparison_and_the_method_by_hand_give_the_same_number(shapes):
    config, place = shapes
    config = replace(config, layer="5")  # behind it there is only an average
    own = [r["H"] for r in run(config, place / "run") if r["method"] == "NIWT" and r["calibrated"]]
    data = load_data(config)
    by_hand = NIWT(load_backbone(config.model, None, config.seed), layer="5").fit(data)
    assert own == [by_hand.score(data).H]
    saved = NIWT.load(place / "run")
    assert own == [saved.score(data).H]
    assert saved.add_class("purple circle", dict.fromkeys(SHAPES + tuple(COLOURS), 0.5)).nearest
    # both from activations that are kept in 16 bits
    rows = run(replace(config, compare="all", rivals=("ESZSL",)), place / "all")
    table = pd.read_csv(place / "all" / "comparison.csv")
    assert [r["H"] for r in rows if r["method"] == "NIWT" and r["calibrated"]] == table[
        (table.method == "NIWT") & table.calibrated
    ].H.tolist()


def test_an_edited_preprocessing_is_noticed(shapes):
    config, place = shapes
    run(config, place / "run")
    code = (place / "net.py").read_text()
    (place / "net.py").write_text(code.replace(".float() / 255", ".float() / 200"))
    said: list[str] = []
    run(config, place / "run", notify=said.append)
    assert any(
        line.startswith("features of images 1") and "already done" not in line for line in said
    ), said


def test_a_broken_image_stops_a_run_or_is_left_out_when_asked(shapes):
    config, place = shapes
    broken = place / "shapes" / "blue circle" / "3.png"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(NiwtError, match="3.png"):
        run(config, place / "run")
    rows = run(replace(config, skip_broken=True), place / "left-out")
    assert rows
    results = json.loads((place / "left-out" / "results.json").read_text())
    assert any("1 images left out" in value and "3.png" in value for _, value in results["data"])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"layer": "layer9"}, "unknown layer 'layer9'"),
        ({"unseen": ("purple square",)}, "unknown class|purple square"),
        ({"knowledge": ("sounds",)}, "unknown knowledge 'sounds'"),
        ({"model": "no_such_module:load"}, "cannot import 'no_such_module'"),
        ({"model": "resnet19"}, "unknown network 'resnet19'"),
        ({"root": "/no/such/folder"}, "no folder '/no/such/folder'"),
    ],
)
def test_wrong_input_is_one_clear_error(shapes, change, message):
    config, place = shapes
    with pytest.raises(NiwtError, match=message):
        run(replace(config, **change), place / "run")


def test_attributes_that_cannot_be_used(shapes):
    config, place = shapes
    table = place / "shapes" / "attributes.csv"
    good = table.read_text()
    wrong = {
        good.replace(",1,", ",many,", 1): "many",
        good.rsplit("\n", 1)[0]: "no row|not in|yellow cross",
        "": "expected a header and at least one row",
    }
    for bad, message in wrong.items():
        table.write_text(bad)
        with pytest.raises(NiwtError, match=message):
            run(config, place / "run")


def test_an_excerpt_of_the_real_photos(tmp_path, monkeypatch):
    cub, splits, backbone = map(str, real("NIWT_CUB_ROOT", "NIWT_XLSA17_ROOT", "NIWT_BACKBONE"))
    whole = load_data
    monkeypatch.setattr(
        pipeline, "load_data", lambda config: subset(whole(config), 40, 10, per_class=4)
    )
    splits = str(Path(splits) / "CUB" / "att_splits.mat")
    config = RunConfig(
        data="cub",
        root=cub,
        splits=splits,
        model=backbone,
        pixels=128,
        layer="features.18",
        knowledge=("attributes", "captions"),
        shuffles=1,
        cases=2,
    )
    rows = run(config, tmp_path / "run")
    for knowledge in config.knowledge:
        best = {r["method"]: r for r in rows if r["calibrated"] and r["knowledge"] == knowledge}
        assert best["NIWT"]["T1"] > 0.35, rows  # chance is 0.1
        assert best["NIWT"]["T1"] > best["NIWT, shuffled"]["T1"] + 0.2
        assert best["ESZSL"]["T1"] > 0.35
