"The paper's recipes from the command line to the report, on a subset of the real photos and with random weights of a tiny network."

import html
import json
import os
from dataclasses import replace

import pytest
from conftest import TINY_NETWORK, real

from niwt_nb.runs.config import RunConfig, read_config
from niwt_nb.runs.pipeline import run
from niwt_nb.runs.presets import PRESETS, preset_config

TINY = {
    "weights": "",
    "subset": (6, 3, 2),
    "epochs": 1,
    "more_epochs": 1,
    "shuffles": 1,
    "cases": 2,
}


def on_cub(name: str, **settings) -> RunConfig:
    "A recipe on 9 classes of the real photos."
    cub, splits = real("NIWT_CUB_ROOT", "NIWT_XLSA17_ROOT")
    return replace(
        preset_config(name),
        root=str(cub),
        splits=str(splits / "CUB" / "att_splits.mat"),
        **{**TINY, **settings},
    )


def test_the_recipe_and_the_paper_stand_in_the_report(tmp_path):
    (tmp_path / "net.py").write_text(TINY_NETWORK)
    config = on_cub("cub-vgg16", model=f"{tmp_path}/net.py:load", layer="5", batch_size=8)
    rows = run(config, tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["paper"][0] == {
        "what": "the paper, as recalled",
        "calibrated": False,
        "U": None,
        "S": None,
        "H": 0.37,
    }
    assert [r["H"] for r in results["paper"][1:]] == [r["H"] for r in rows if r["method"] == "NIWT"]
    page = html.unescape((tmp_path / "run" / "report.html").read_text())
    for words in (
        "Beside the paper",
        f"model is '{tmp_path}/net.py:load', the recipe has 'vgg16'",
        "3,000 ImageNet photos",
        "fine-tuned here",
    ):
        assert words in page, words
    assert read_config(tmp_path / "run" / "config.toml") == config


@pytest.mark.skipif(
    not os.environ.get("NIWT_LONG"),
    reason="minutes for each network: NIWT_LONG=1 python -m pytest tests/test_presets.py",
)
@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("cub")])
def test_the_recipe_with_its_own_network(name, tmp_path):
    rows = run(on_cub(name), tmp_path / "run")
    assert {row["method"] for row in rows} == {"NIWT", "ESZSL", "NIWT, shuffled", "chance"}
