"""What people bring, from the outside: every remedy that a message names is carried out in the place where the message appears."""

import contextlib
import html
import io
import os
import re
import shutil
from unittest import mock

import pytest
from PIL import Image

from niwt_nb.cli import app

TABLE = "class,x,y\n" + "".join(f"{c},{i},{i * i % 7}\n" for i, c in enumerate("ABCDEF"))

MODEL = """from __future__ import annotations
from dataclasses import dataclass
import torch
from torch import nn

@dataclass
class Size:
    width: int = 4

def load():
    torch.manual_seed(0)
    w = Size().width
    body = nn.Sequential(nn.Conv2d(3, w, 3), nn.ReLU(), nn.Conv2d(w, w, 3), nn.ReLU())
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(w, 2))

def preprocess(image):
    import numpy as np
    pixels = np.asarray(image.resize((24, 24)), np.float32).transpose(2, 0, 1) / 255
    return {"pixel_values": pixels[None]}

def ended():
    whole = load()
    return Ended(whole[:-1], whole[-1])

class Ended(nn.Module):
    def __init__(self, body, fc):
        super().__init__()
        self.body, self.fc = body, fc
    def forward(self, x):
        return torch.softmax(self.fc(self.body(x)), 1)

def broken():
    return {}["weights"]

def late():
    return load(), lambda image: preprocess(image) if image.width == 256 else image.colour
"""


def niwt(*words, cwd=None):
    "The command as a person runs it, in this process: exit code, stdout, stderr."
    out, errors = io.StringIO(), io.StringIO()
    streams = contextlib.ExitStack()
    with (
        streams,
        mock.patch.dict(os.environ, {"COLUMNS": "300"}),
        pytest.raises(SystemExit) as left,
    ):
        for place in (
            contextlib.chdir(cwd or "."),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(errors),
        ):
            streams.enter_context(place)
        app(list(map(str, words)))
    return left.value.code, out.getvalue(), errors.getvalue()


@pytest.fixture
def shelf(tmp_path):
    "Six class folders of two-colour pictures and a table."
    for k, c in enumerate("ABCDEF"):
        (tmp_path / "own" / c).mkdir(parents=True)
        for i in range(6):
            image = Image.new("RGB", (24, 24), (40 * k, 30 * i, 0))
            image.paste((0, 40 * k, 255 - 30 * i), (0, 0, 12, 12 + i))
            image.save(tmp_path / "own" / c / f"{i}.png")
    (tmp_path / "own" / "attributes.csv").write_text(TABLE)
    (tmp_path / "model.py").write_text(MODEL)
    return tmp_path


def run_words(shelf, *more, model="load"):
    small = ["shuffles=1", "cases=1", "batch_size=8"]
    words = [
        "run",
        "--data",
        "folder",
        "--root",
        shelf / "own",
        "--model",
        f"{shelf / 'model.py'}:{model}",
        "--out",
        shelf / "out",
        "--quiet",
    ]
    return [*words, *(w for s in small for w in ("--set", s)), *more]


def test_links_are_refused_and_followed_alike_by_check_and_run(shelf):
    store = shelf / "cache"
    store.mkdir()
    shutil.move(shelf / "own" / "A" / "0.png", store / "blob")
    (shelf / "own" / "A" / "0.png").symlink_to(store / "blob")
    code, out, _ = niwt("data", "check", shelf / "own", "--set", "unseen=F")
    assert (
        code == 1
        and "not usable yet" in out
        and (remedy := re.search(r"on the command line: (--set \S+=true)", out))
    )
    option = remedy[1].split()
    refused = niwt(*run_words(shelf, "--set", "unseen=F"))
    assert refused[0] == 2 and remedy[1] in refused[2] and "Traceback" not in refused[2]
    code, out, _ = niwt("data", "check", shelf / "own", "--set", "unseen=F", *option)
    assert code == 0 and ", ready" in out
    code, out, err = niwt(*run_words(shelf, "--set", "unseen=F", *option))
    assert code == 0, err
    assert "NIWT" in out and (shelf / "out" / "report.html").is_file()


def test_which_classes_are_unseen_can_be_said_as_the_message_says(shelf):
    code, out, _ = niwt("data", "check", shelf / "own")
    assert (
        code == 1 and "on the command line: --set unseen=NAME" in out and "write unseen.txt" in out
    )
    assert niwt("data", "check", shelf / "own", "--set", "unseen=F")[0] == 0
    (shelf / "own" / "unseen.txt").write_text("F\n")
    assert niwt("data", "check", shelf / "own")[0] == 0


def test_what_was_left_is_said_by_check_and_by_the_run(shelf):
    for f in ("a.HEIC", "b.HEIC", "note.txt"):
        (shelf / "own" / "B" / f).write_bytes(b"x")
    (shelf / "own" / "attributes.csv").write_text(TABLE.replace("A,0,0", "A,NA,0"))
    code, out, _ = niwt("data", "check", shelf / "own", "--set", "unseen=F")
    said = "3 files left out: 2 .heic (Pillow needs pillow-heif for it), 1 .txt (no picture)"
    assert code == 0 and said in out and "1 unknown values (blank or NA) taken as 0" in out
    words = [w for w in run_words(shelf, "--set", "unseen=F") if w != "--quiet"]
    code, out, err = niwt(*words)
    assert code == 0 and said in err, err
    assert "3 files left out" in (shelf / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("model", "told"), [("broken", "KeyError: 'weights'"), ("late", "AttributeError")]
)
def test_an_error_in_the_users_file_is_one_sentence_with_their_line(shelf, model, told):
    code, _, err = niwt(*run_words(shelf, "--set", "unseen=F", model=model))
    lines = err.strip().splitlines()
    assert (
        code == 2
        and len(lines) == 1
        and told in lines[0]
        and f"{shelf / 'model.py'}, line " in lines[0]
    )
    code, _, err = niwt(*run_words(shelf, "--set", "unseen=F", "--debug", model=model))
    assert code == 2 and "Traceback" in err and err.strip().splitlines()[-1] == lines[0]


def test_a_fault_of_ours_is_not_hidden(monkeypatch):
    import typer

    from niwt_nb import core
    from niwt_nb.cli import _plain_errors

    def command() -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(core, "users_frame", lambda e: "")
    with pytest.raises(KeyError):
        _plain_errors(command)()
    monkeypatch.setattr(core, "users_frame", lambda e: "mine.py, line 1")
    with pytest.raises(typer.Exit):
        _plain_errors(command)()


def test_a_small_world_says_what_is_enough():
    from niwt_nb.core import NiwtError
    from niwt_nb.fieldguide.world import field_guide

    with pytest.raises(NiwtError, match=r"too few: .* \(n_seen = (\d+) is enough\)") as e:
        field_guide(6, 2)
    enough = int(re.search(r"n_seen = (\d+)", str(e.value))[1])
    assert len(field_guide(enough, 2, (2, 1)).unseen) == 2


def test_settings_of_python_are_settings(tmp_path):
    import numpy as np

    from niwt_nb.core import NiwtError
    from niwt_nb.runs.config import RunConfig, read_config
    from niwt_nb.runs.pipeline import run

    with pytest.raises(NiwtError, match="no folder"):
        run(
            RunConfig(data="folder", root=tmp_path / "d", seed=np.int64(1), unseen="emu"),
            tmp_path / "out",
        )
    assert read_config(tmp_path / "out" / "config.toml") == RunConfig(
        data="folder", root=str(tmp_path / "d"), seed=1, unseen=("emu",)
    )
    with pytest.raises(NiwtError, match="root is 3, expected text"):
        RunConfig(root=3)


def test_pandas_frames_are_aligned_by_name(shelf):
    import pandas as pd

    from niwt_nb.data.dataset import DomainKnowledge
    from niwt_nb.data.folder import read_folder

    data = read_folder(shelf / "own", unseen="F")
    frame = pd.read_csv(shelf / "own" / "attributes.csv", index_col=0).convert_dtypes()
    from dataclasses import replace

    for given in (
        frame.iloc[::-1],
        frame.iloc[::-1].reset_index(),
        DomainKnowledge("attributes", frame.iloc[::-1], ("y", "x")),
    ):
        known = replace(data, knowledge={"attributes": given}).get_knowledge()
        assert known.select(["x", "y"]).values.equal(data.get_knowledge().select(["x", "y"]).values)


def test_a_network_that_goes_on_after_its_scores_names_its_head(shelf):
    code, _, err = niwt(*run_words(shelf, "--set", "unseen=F", model="ended"))
    assert code == 2 and (remedy := re.search(r"in a run (--set \S+)\)", err)), err
    code, _, err = niwt(*run_words(shelf, "--set", "unseen=F", "--set", "head=fx", model="ended"))
    assert code == 2 and "nearest: 'fc'" in err
    code, out, err = niwt(*run_words(shelf, "--set", "unseen=F", *remedy[1].split(), model="ended"))
    assert code == 0 and "NIWT" in out, err
    assert "what follows the head 'fc' is left out: softmax()" in html.unescape(
        (shelf / "out" / "report.html").read_text()
    )
    code, out, err = niwt("predict", shelf / "out", shelf / "own" / "A" / "0.png")
    assert code == 0, err


def test_a_network_made_in_inference_mode_works_everywhere():
    import torch
    from torch import nn

    from niwt_nb.explain.maps import fine_map, grad_cam
    from niwt_nb.method.engine import neuron_importance
    from niwt_nb.method.jacobian import pooled_jacobian
    from niwt_nb.network.cut import cut
    from niwt_nb.network.head import with_head

    with torch.inference_mode():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 5, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(5, 6),
        )
        x, head = torch.randn(2, 3, 12, 12), nn.Linear(5, 3)
    network = cut(model.eval(), "2")
    A = network.lower(x.clone()).detach().requires_grad_()
    (judge,) = torch.autograd.grad(network.head(network.tail(A))[:, 1].sum(), A)
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.allclose(neuron_importance(network, x, 1), judge.mean((2, 3)), atol=1e-6)
            found = pooled_jacobian(network, x).importance(network.head.weight[1:2])[0]
            assert torch.allclose(found, judge.mean((2, 3)), atol=1e-6)
            assert grad_cam(network, x, 1).shape == fine_map(network, x, 1).shape == (2, 12, 12)
            assert neuron_importance(with_head(network, head), x, 2).shape == (2, 4)


def test_a_jacobian_leaves_the_statistics_of_a_network_that_trains():
    import torch
    from torch import nn

    from niwt_nb.method.jacobian import pooled_jacobian
    from niwt_nb.network.cut import cut

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Conv2d(5, 5, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 6),
    )
    before = {k: v.clone() for k, v in model.state_dict().items()}
    pooled_jacobian(cut(model, "1"), torch.randn(2, 3, 12, 12))
    assert model.training and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("1.5", "15"),
        ("v1.0", "v10"),
        ("1-2", "12"),
        ("1_2", "12"),
        ("C", "C++"),
        ("A-", "A"),
        ("-1", "1"),
        ("(A)", "A"),
        (".NET", "NET"),
    ],
)
def test_a_simpler_form_never_joins_what_differs(ours, theirs):
    from niwt_nb.data.names import _pair_names

    assert _pair_names([ours, "B"], [theirs, "B"]) == [None, 1]


def test_what_a_folder_hides_is_counted(shelf):
    own = shelf / "own"
    (own / ".NET").mkdir()
    shutil.copy(own / "A" / "0.png", own / ".NET")
    (own / "A" / "loop.png").symlink_to("loop.png")
    (own / "G").symlink_to("nowhere")
    _, out, _ = niwt("data", "check", own, "--set", "unseen=F")
    assert (
        ", ready" in out
        and "3 files left out" in out
        and "1 pictures in the hidden folder '.NET'" in out
        and "'G' (a broken link)" in out
    )
    (own / "images.csv").write_text(
        "file,class,split\n"
        + "".join(
            f"./{c}/{i}.png,{c},{('', 'train', 'test')[i]}\n" for c in "ABCDEF" for i in range(3)
        )
    )
    _, out, _ = niwt("data", "check", own, "--set", "unseen=F")
    assert (
        ", ready" in out
        and "20 pictures in the folder are not listed in images.csv" in out
        and "5 images of seen classes without a split left out" in out
    )
    with (own / "images.csv").open("a") as f:
        f.write("A//0.png,A,train\n")
    assert "the file 'A/0.png' comes twice" in niwt("data", "check", own, "--set", "unseen=F")[1]
