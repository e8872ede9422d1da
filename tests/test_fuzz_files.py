"""Malformed files of the package's own kinds (stored tensors, weights, settings, results): a result or a `NiwtError`, never another result than was written.

`NIWT_FUZZ=20` makes every loop twenty times as long.
"""

import io
import json

import pytest
import torch
from safetensors.torch import save
from test_data_fuzz import TIMES, damaged, survives

from niwt_nb.core import load_tensors, save_tensors
from niwt_nb.fieldguide.network import SmallCNN
from niwt_nb.network.backbones import load_backbone, _read_weights
from niwt_nb.runs.config import _FORMAT, RunConfig, config_text, read_config
from niwt_nb.runs.folder import _open_run
from niwt_nb.runs.report import write_report

TENSORS = {
    "weight": torch.arange(12.0).view(3, 4),
    "bias": torch.tensor([1.0, 2.0, 3.0]),
    "count": torch.arange(5),
}


def test_damaged_tensors_are_those_that_were_written_or_refused(tmp_path):
    path = tmp_path / "step.safetensors"
    save_tensors(path, TENSORS, {"step": "x", "key": "k"})

    def read(p):
        found, manifest = load_tensors(p, {"step": "x", "key": "k"})
        assert found.keys() == TENSORS.keys() and all(
            torch.equal(found[k], v) for k, v in TENSORS.items()
        ), "silently another result"

    count = survives(read, path, damaged(path.read_bytes(), 1500 * TIMES, seed=5))
    assert count["refused"] > 1000 * TIMES


@pytest.mark.parametrize("kind", ["safetensors", "pt", "old.pt"])
def test_damaged_weights_are_read_or_refused(tmp_path, kind):
    if kind == "safetensors":
        raw = save(TENSORS)
    else:
        f = io.BytesIO()
        torch.save(TENSORS, f, _use_new_zipfile_serialization=kind == "pt")
        raw = f.getvalue()

    def read(p):
        assert all(isinstance(v, torch.Tensor) for v in _read_weights(p).values())

    count = survives(read, tmp_path / f"weights.{kind}", damaged(raw, 700 * TIMES, seed=6))
    assert count["refused"] > 70 * TIMES


def test_files_that_are_no_weights_are_refused(tmp_path):
    for raw in (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 34\n",
        b"<!DOCTYPE html><html><body>404</body></html>",
        b"PK\x03\x04sheet",
    ):
        count = survives(_read_weights, tmp_path / "net.pth", damaged(raw, 30 * TIMES, seed=12))
        assert not count["read"]


def test_damaged_settings_are_settings_or_refused(tmp_path):
    raw = config_text(
        RunConfig(seed=3, unseen=("a 'b'", "größer"), subset=(15, 5, 20), root="/some where")
    ).encode()
    short = b'data = "folder"\nroot = "x"\nunseen = ["a", "b"]\nseed = 3\nlr = 0.1\nkeep_rows = true\nexcerpt = [5, 2, 3]\n'

    def read(p):
        assert isinstance(read_config(p), RunConfig)

    survives(read, tmp_path / "config.toml", damaged(raw, 300 * TIMES, seed=7))
    count = survives(read, tmp_path / "config.toml", damaged(short, 1500 * TIMES, seed=8))
    assert count["refused"] > 500 * TIMES


def test_a_run_folder_with_damaged_settings_is_opened_or_refused(tmp_path):
    folder = tmp_path / "run"
    with _open_run(folder, RunConfig()) as run:
        run.step("a", "k", lambda: (TENSORS, {}))
    raw = (folder / "config.toml").read_bytes()

    def read(p):
        with _open_run(folder, RunConfig()):
            pass

    survives(read, folder / "config.toml", damaged(raw, 150 * TIMES, seed=9))


def test_damaged_results_make_a_page_or_are_refused(tmp_path):
    results = {
        "format": _FORMAT, "title": "A title", "summary": "Words.", "headline": [{"label": "H", "value": 0.5, "note": "chance 0.1"}],
        "metrics": [{"method": "NIWT", "knowledge": "attributes", "calibrated": True, "H": 0.5, "gamma": 1.0}], "paper": [], "departures": [],
        "cases": [], "neurons": [{"neuron": 3, "name": "red wing", "confidence": 0.5, "second": "tail"}], "per_class": [{"name": "kea", "accuracy": 0.5}],
        "data": [["data set", "x"]], "steps": [["training", "1.0 s"]], "versions": [["python", "3"]], "config": "seed = 0", "made": "by niwt_nb",
    }  # fmt: skip

    def read(p):
        page = write_report(tmp_path).read_text(encoding="utf-8")
        assert page.startswith("<!doctype html>") and "<script" not in page

    count = survives(
        read,
        tmp_path / "results.json",
        damaged(json.dumps(results).encode(), 1500 * TIMES, seed=10),
    )
    assert count["refused"] > 700 * TIMES


def test_the_shipped_network_is_refused_when_damaged(tmp_path):
    "Whatever is done to the file: the network that was shipped, or an error."
    sound = load_backbone("fieldguide").model.state_dict()
    from niwt_nb.fieldguide.network import FIELD_GUIDE_WEIGHTS

    def read(p):
        found = load_backbone("fieldguide", weights=p).model
        assert isinstance(found, SmallCNN) and all(
            torch.equal(v, sound[k]) for k, v in found.state_dict().items()
        )

    survives(
        read,
        tmp_path / "net.safetensors",
        damaged(FIELD_GUIDE_WEIGHTS.read_bytes(), 40 * TIMES, seed=11),
    )


def test_enough_files_go_through(request):
    "What one run of the tests sends through the readers: the numbers in the two files, once for every case that pytest collected."
    import inspect
    import re

    cases = [
        item.function
        for item in request.session.items
        if item.path.name in ("test_data_fuzz.py", "test_fuzz_files.py")
    ]
    if not {"test_data_fuzz", "test_fuzz_files"} <= {f.__module__ for f in cases}:
        pytest.skip("only a part of the fuzz tests was collected")
    counts = [
        int(n)
        for f in cases
        for n in re.findall(r"damaged\(.*?, (\d+) \* TIMES", inspect.getsource(f))
    ]
    assert len(counts) > 20 and sum(counts) * TIMES >= 10_000, sum(counts)
