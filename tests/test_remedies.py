"""Every message that names a remedy: it is provoked, the remedy is carried out in the place where it appears, and it works.

A message with a call, a keyword, an option or a command in it that stands neither here nor on the list of those left out fails the last test.
"""

import ast
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import niwt_nb
from niwt_nb.core import NiwtError
from niwt_nb.data.dataset import DomainKnowledge, ZeroShotData
from niwt_nb.data.folder import read_folder
from niwt_nb.network.cut import cut

REMEDY = re.compile(
    r"--[a-z]|`[^`]+`|[a-z_]\(|\b[a-z_]+=(?!=)|pip install|\bniwt [a-z]|\brun again\b|\brepeat its\b|\bput a second\b|\bsave it\b"
)
# words of a message -> what provokes it and carries out its remedy
ENTRIES: dict[str, Callable] = {}
ELSEWHERE = {  # words of a message -> why it is not tried here
    "pip install 'niwt_nb[text]'": "installs a package",
    "pip install 'niwt_nb[app]'": "installs a package",
    "and without a folder the field guide is shown": "the other tests run the demo; the page needs Voila",
    "pip install onnx onnxscript": "installs a package",
    "pip install onnxruntime": "installs a package",
    "make room and run again": "a full disk; the tests of runs fill one",
    "splits= is for CUB and AwA2": "names what does not belong there: leaving it out is the call without it",
    "unseen= is for a folder of your own": "names what does not belong there: leaving it out is the call without it",
    "`classes` needs one row number": "names an argument and what it must hold; the entry for `classes` gives one",
    "`like` must be images": "names an argument and what it must hold",
    "pooling={} needs tokens": "names an argument and what it must hold; the entries for pooling give one",
    "make it with `fit_explainer`": "an explainer made by hand; the tests of explanations use the function",
    "`Explainer.row` finds the row": "a wrong type; the method belongs to the object in hand",
    "a smaller `apart`": "hundreds of draws; the notebook of species asks with a smaller one",
    "a backbone to make them with": "the fits of other tests begin with one",
    "puts them there": "copies the course; the tests of the commands do",
    "leave --among out": "needs an export; the tests of the commands name pictures with one",
    "use method='gradient', which works on every layer": "an error inside Captum; the notebook of attributions provokes it",
    "or fetch it once": "needs the network",
    "leave `pixels` out": "a run of a network that takes one size",
    "fit again with solver='closed'": "a fit by the reference solver; the entry of what takes a class out adds one by the closed form",
    "put it back, or NIWT.load(folder, encoder=...)": "needs a saved sentence encoder; the notebook of text reads a model back with and without it",
    "holds class sums only": "the notebook of stores writes both kinds",
    "leave --unknown out": "needs an export; the tests of the commands name pictures with one",
    "reads in this process": "a process that dies; the notebook of images kills one, and reads the same pictures without",
    "test it on photos, without `draw`": "names an argument to leave out; the notebook of verified names tests without it",
    "--refuse goes with --unknown": "names two options of one command; the notebook of the commands gives both",
}


def remedy(words: str) -> Callable:
    "Enter a test under words of the message's text."

    def enter(function: Callable) -> Callable:
        ENTRIES[words] = function
        return function

    return enter


def told(call: Callable, words: str) -> str:
    "The message of a call that is refused."
    with pytest.raises(NiwtError) as e:
        call()
    assert re.search(words, str(e.value)), str(e.value)
    return str(e.value)


def niwt(*words: object) -> tuple[int, str]:
    "A command, in this process: its exit code and all that it says."
    from niwt_nb.cli import app

    done = CliRunner().invoke(app, [str(w) for w in words])
    return done.exit_code, done.output


@pytest.fixture
def own(tmp_path: Path) -> Path:
    "Six class folders of two pictures, and a table."
    for k, c in enumerate("ABCDEF"):
        (tmp_path / "own" / c).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (24, 24), (40 * k, 90 * i, 0)).save(tmp_path / "own" / c / f"{i}.png")
    (tmp_path / "own" / "attributes.csv").write_text(
        "class,x,y\n" + "".join(f"{c},{i},{i * i % 7}\n" for i, c in enumerate("ABCDEF"))
    )
    return tmp_path / "own"


def body() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).eval()


def network() -> nn.Sequential:
    return nn.Sequential(*body(), nn.Linear(5, 6)).eval()


IMAGES = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
SENTENCES = {
    "kea": "A green parrot with a red bill.",
    "owl": "A brown parrot with a black bill.",
    "emu": "A brown bird with a red tail.",
}


@remedy("--set unseen=NAME")
def which_classes_are_unseen(own: Path) -> None:
    told(
        lambda: read_folder(own), r"give unseen=\[names\] or a number to draw, or write unseen.txt"
    )
    assert (
        len(read_folder(own, unseen=["F"]).unseen) == 1
        and len(read_folder(own, unseen=2).unseen) == 2
    )
    code, said = niwt("data", "check", own)
    assert code == 1 and "--set unseen=NAME" in said
    assert niwt("data", "check", own, "--set", "unseen=F")[0] == 0
    (own / "unseen.txt").write_text("F\n")
    assert niwt("data", "check", own)[0] == 0 and len(read_folder(own).unseen) == 1


@remedy("several folders, --json and --csv go with --check")
def a_table_of_what_students_solved(own: Path) -> None:
    student, table = own.parent / "student", own.parent / "solved.csv"
    code, said = niwt("lessons", student, "--csv", table, "--no-open")
    assert code == 2 and "go with --check" in said and not table.exists()
    assert niwt("lessons", student, "--no-open")[0] == 0
    assert niwt("lessons", student, "--csv", table, "--check")[0] == 1 and table.exists()


@remedy("say for which grader to export")
def a_grader_to_export_for(own: Path) -> None:
    code, said = niwt("lessons", "export", own.parent / "masters")
    assert code == 2 and "--to otter" in said
    assert niwt("lessons", "export", own.parent / "masters", "--to", "otter")[0] == 0


@remedy("--no-open` begins it")
def a_folder_that_keeps_progress(own: Path) -> None:
    code, said = niwt("lessons", own.parent / "mine", "--progress")
    assert code == 2 and "--no-open" in said
    assert (
        niwt("lessons", own.parent / "mine", "--no-open")[0]
        == niwt("lessons", own.parent / "mine", "--progress")[0]
        == 0
    )


@remedy("--set follow_links=true")
def a_link_that_is_meant(own: Path) -> None:
    (own / "A" / "0.png").rename(own.parent / "blob")
    (own / "A" / "0.png").symlink_to(own.parent / "blob")
    told(lambda: read_folder(own, unseen="F"), "give follow_links=True")
    assert len(read_folder(own, unseen="F", follow_links=True)) == 12
    code, said = niwt("data", "check", own, "--set", "unseen=F")
    assert code == 1 and "--set follow_links=true" in said
    assert niwt("data", "check", own, "--set", "unseen=F", "--set", "follow_links=true")[0] == 0


@remedy("need_test=False makes its classifier only")
def an_unseen_class_without_pictures(own: Path) -> None:
    with (own / "attributes.csv").open("a") as f:
        f.write("G,6,2\n")
    (own / "unseen.txt").write_text("F\nG\n")
    told(lambda: read_folder(own), "add pictures of it, or leave it out of the unseen classes")
    assert len(read_folder(own, need_test=False).unseen) == 2 and niwt("data", "check", own)[0] == 1
    assert niwt("data", "check", own, "--set", "unseen=F")[0] == 0
    (own / "G").mkdir()
    Image.new("RGB", (24, 24), "red").save(own / "G" / "0.png")
    assert niwt("data", "check", own)[0] == 0 and len(read_folder(own).unseen) == 2


@remedy("save it as one of these")
def a_table_of_another_kind(own: Path) -> None:
    table = (own / "attributes.csv").rename(own / "attributes.xlsx")
    told(
        lambda: read_folder(own, unseen="F"), "there is 'attributes.xlsx': save it as one of these"
    )
    table.rename(own / "attributes.csv")
    assert len(read_folder(own, unseen="F")) == 12


@remedy("; save it as UTF-8 (spreadsheets call it 'CSV UTF-8')")
def a_table_in_another_encoding(own: Path) -> None:
    text = (own / "attributes.csv").read_text().replace("x", "gr\u00fcn")
    for encoding in ("cp1252", "utf-16-le"):
        (own / "attributes.csv").write_text(text, encoding=encoding)
        told(lambda: read_folder(own, unseen="F"), "save it as UTF-8")
    (own / "attributes.csv").write_text(text, encoding="utf-8-sig")
    assert read_folder(own, unseen="F").get_knowledge().names == ("gr\u00fcn", "y")


@remedy("--set takes name=value")
def a_setting_without_a_value(own: Path) -> None:
    code, said = niwt("data", "check", own, "--set", "unseen")
    assert code == 2 and "--set takes name=value" in said
    assert niwt("data", "check", own, "--set", "unseen=F")[0] == 0


@remedy("give either --sentence or --attributes")
def a_class_of_which_nothing_is_known(own: Path) -> None:
    code, said = niwt("add", own, "kea")
    assert code == 2 and "give either --sentence or --attributes" in said
    (own / "kea.csv").write_text("attribute,value\nx,1\n")
    for option in (("--sentence", "A green bird."), ("--attributes", own / "kea.csv")):
        code, said = niwt("add", own, "kea", *option)
        assert "holds no saved model" in said  # it goes on to what comes next


@remedy("(in a run --set head={})")
def what_follows_the_scores(own: Path) -> None:
    class Ended(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.fc = body(), nn.Linear(5, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(self.fc(self.body(x)), 1)

    head = re.search(
        r"head='(\w+)' \(in a run --set head=fc\)",
        told(lambda: cut(Ended(), "body.2"), "not linear"),
    )
    assert head and cut(Ended(), "body.2", head=head[1]).head_name == "fc"


class _Twisted(nn.Module):
    "Cannot be traced: the way depends on the pixels."

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = body(), nn.Linear(5, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f = self.body(x)
        return self.fc(f) if float(x.sum()) > -1e9 else self.fc(-f)


@remedy("give `example=`, a batch of images")
def a_model_that_cannot_be_traced(own: Path) -> None:
    told(lambda: cut(_Twisted(), "body.2"), "give `example=`")
    assert cut(_Twisted(), "body.2", example=IMAGES).how.startswith("hooks")


@remedy("name the linear layer before it with head=")
def a_model_that_cannot_be_traced_and_goes_on(own: Path) -> None:
    class Scaled(_Twisted):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 2

    told(lambda: cut(Scaled(), "body.2", IMAGES), "name the linear layer before it with head=")
    assert cut(Scaled(), "body.2", IMAGES, head="fc").head_name == "fc"


@remedy("name one of layer_names(model) yourself")
def no_layer_to_choose(own: Path) -> None:
    from niwt_nb.network.cut import choose_layer, layer_names

    flat = nn.Sequential(nn.Flatten(), nn.Linear(432, 8), nn.ReLU(), nn.Linear(8, 6))
    told(lambda: choose_layer(flat, IMAGES), r"name one of layer_names\(model\) yourself")
    table = layer_names(flat, IMAGES)
    assert cut(flat, table.index[table.cuttable][0]).head.out_features == 6


@remedy("choose dtype=torch.float32")
def activations_too_large_for_half_precision(own: Path) -> None:
    from niwt_nb.network.finetuning import cache_activations

    data, big = read_folder(own, unseen="F"), network()
    big[0].weight.data.mul_(1e7)
    transform = lambda im: torch.from_numpy(np.array(im)).permute(2, 0, 1).float()  # noqa: E731
    told(
        lambda: cache_activations(cut(big, "2"), data, data.train, transform),
        "choose dtype=torch.float32",
    )
    assert len(
        cache_activations(cut(big, "2"), data, data.train, transform, dtype=torch.float32)
    ) == len(data.train)


@remedy("frame.reset_index(drop=True)")
def rows_about_something_else(own: Path) -> None:
    from dataclasses import replace

    data = read_folder(own, unseen="F")
    frame = pd.DataFrame({"x": range(6), "y": [3.0, 1, 4, 1, 5, 9]}, index=list("uvwxyz"))
    told(lambda: replace(data, knowledge={"k": frame}), "drop the names with frame.reset_index")
    assert replace(data, knowledge={"k": frame.reset_index(drop=True)}).get_knowledge().names == (
        "x",
        "y",
    )


@remedy("with .drop_constant()")
def a_column_that_tells_nothing(own: Path) -> None:
    table = DomainKnowledge("k", [[1, 2], [1, 3]], ("same", "other"))
    told(table.check, r"leave them out with .drop_constant\(\)")
    assert table.drop_constant().check().names == ("other",)


@remedy("min_classes=1")
def classes_that_share_no_word(own: Path) -> None:
    from niwt_nb.data.text import SentenceEncoder

    texts = [["kea"], ["owl"]]
    told(lambda: SentenceEncoder().fit(texts), "give an encoder, or min_classes=1")
    assert SentenceEncoder(min_classes=1).fit(texts).transform(texts).shape == (2, 2)


@remedy("call fit(texts) first")
def an_encoder_that_has_not_learned(own: Path) -> None:
    from niwt_nb.data.text import SentenceEncoder

    texts = [[s] for s in SENTENCES.values()]
    told(lambda: SentenceEncoder().transform(texts), r"call fit\(texts\) first")
    assert len(SentenceEncoder().fit(texts).transform(texts)) == 3


@remedy("save it with version 7 (-v7)")
def a_new_kind_of_matlab_file(own: Path) -> None:
    from scipy.io import savemat

    from niwt_nb.data.xlsa17 import _load_mat

    savemat(own / "a.mat", {"a": np.eye(2)})
    raw = (own / "a.mat").read_bytes()
    (own / "b.mat").write_bytes(raw[:124] + b"\x00\x02" + raw[126:])
    told(lambda: _load_mat(own / "b.mat", ["a"]), r"save it with version 7 \(-v7\)")
    assert _load_mat(own / "a.mat", ["a"])["a"].shape == (2, 2)


@remedy("select needs data.validation()")
def settings_are_chosen_on_validation_classes(own: Path) -> None:
    from niwt_nb.evaluate.baselines import ESZSL
    from niwt_nb.evaluate.selection import Encoded, _select
    from niwt_nb.network.head import rows_of

    data = read_folder(own, unseen="F", test=0)
    features = torch.rand(len(data), 3, generator=torch.Generator().manual_seed(0))
    told(
        lambda: _select((ESZSL(), {}), Encoded(features, data)), r"select needs data.validation\(\)"
    )
    part = data.validation()
    assert _select((ESZSL(), {}), Encoded(features[rows_of(part, data)], part)).gamma >= 0


@remedy("say pooling='tokens', 'patches', 'class' or 'space'")
def three_axes(own: Path) -> None:
    from niwt_nb.method.importance import pool

    values = torch.arange(24.0).view(2, 3, 4)
    told(lambda: pool(values), "say pooling='tokens', 'patches', 'class' or 'space'")
    assert [tuple(pool(values, p).shape) for p in ("tokens", "patches", "class", "space")] == [
        (2, 4),
        (2, 4),
        (2, 4),
        (2, 3),
    ]


@remedy("say pooling='last', or 'space'")
def channels_perhaps_last(own: Path) -> None:
    from niwt_nb.method.importance import pool

    values = torch.arange(90.0).view(2, 3, 3, 5)
    told(lambda: pool(values), "say pooling='last', or 'space'")
    assert [tuple(pool(values, p).shape) for p in ("last", "space")] == [(2, 5), (2, 3)]


@remedy("use how='auto'")
def a_way_that_does_not_fit(own: Path) -> None:
    from niwt_nb.method.jacobian import pooled_jacobian

    net = cut(network(), "1")
    told(lambda: pooled_jacobian(net, IMAGES, how="affine"), "use how='auto'")
    assert pooled_jacobian(net, IMAGES, how="auto").mean.shape == (4, 5)


@remedy("build it with each=True")
def importances_of_each_image(own: Path) -> None:
    from niwt_nb.method.jacobian import pooled_jacobian

    net = cut(network(), "1")
    told(
        lambda: pooled_jacobian(net, IMAGES, each=False).importance(net.head.weight),
        "build it with each=True",
    )
    assert pooled_jacobian(net, IMAGES, each=True).importance(net.head.weight).shape[0] == 6


@remedy("build the Jacobian with each=True")
def the_papers_solver_on_means(own: Path) -> None:
    from niwt_nb.method.jacobian import pooled_jacobian
    from niwt_nb.method.solvers import solve_lbfgs

    net, wanted = cut(network(), "1"), torch.rand(1, 4, generator=torch.Generator().manual_seed(0))
    told(
        lambda: solve_lbfgs(pooled_jacobian(net, IMAGES, each=False), wanted, net.head),
        "build the Jacobian with each=True",
    )
    assert solve_lbfgs(pooled_jacobian(net, IMAGES, each=True), wanted, net.head, steps=2)[
        0
    ].shape == (1, 5)


@remedy("use fewer images or each=False")
def too_many_matrices(own: Path) -> None:
    from niwt_nb.method.jacobian import pooled_jacobian

    net = cut(network(), "1")
    told(lambda: pooled_jacobian(net, IMAGES, limit=1e-9), "use fewer images or each=False")
    assert pooled_jacobian(net, IMAGES, limit=1e-9, each=False).mean.shape == (4, 5)


@remedy("give one importance per class, or `classes`")
def importances_of_images(own: Path) -> None:
    from niwt_nb.method.mapping import RidgeMap

    known, alpha = np.eye(3), np.arange(8.0).reshape(4, 2)
    told(lambda: RidgeMap().fit(known, alpha), "give one importance per class, or `classes`")
    assert RidgeMap().fit(known, alpha, classes=[0, 1, 2, 2]).predict(known).shape == (3, 2)


@remedy("fit a head on them (fit_head) or say columns=")
def a_head_of_other_classes(own: Path) -> None:
    from niwt_nb.method.engine import class_importance, head_classes
    from niwt_nb.network.head import fit_head, with_head

    data = read_folder(own, unseen=["E", "F"])
    transform = lambda im: torch.from_numpy(np.array(im)).permute(2, 0, 1).float() / 255  # noqa: E731
    net = with_head(cut(network(), "1"), nn.Linear(5, 5))
    told(
        lambda: class_importance(net, data, None, transform),
        r"fit a head on them \(fit_head\) or say columns=",
    )
    assert class_importance(net, data, None, transform, columns=torch.arange(5)).mean.shape == (
        5,
        4,
    )
    head = fit_head(torch.rand(4, 5, generator=torch.Generator().manual_seed(0)), torch.arange(4))
    assert head_classes(data, head).tolist() == data.seen.tolist()


@remedy("or target='predicted'")
def images_without_a_column(own: Path) -> None:
    from niwt_nb.method.engine import class_importance
    from niwt_nb.network.head import with_head

    data = read_folder(own, unseen=["E", "F"])
    transform = lambda im: torch.from_numpy(np.array(im)).permute(2, 0, 1).float() / 255  # noqa: E731
    net = with_head(cut(network(), "1"), nn.Linear(5, 4))
    told(
        lambda: class_importance(net, data, data.test_unseen, transform),
        "use indices of its classes, or target='predicted'",
    )
    assert class_importance(net, data, data.train, transform).mean.shape == (4, 4)
    assert int(
        class_importance(net, data, data.test_unseen, transform, target="predicted").count.sum()
    ) == len(data.test_unseen)


@remedy("give Backbone(model, preprocess, layer, name)")
def a_bare_network(own: Path) -> None:
    from niwt_nb.method.niwt import as_backbone
    from niwt_nb.network.backbones import Backbone, field_guide_transform

    told(
        lambda: as_backbone(network()),
        r"give Backbone\(model, preprocess, layer, name\), or a name for load_backbone",
    )
    assert (
        as_backbone(Backbone(network(), field_guide_transform, "1", "mine")).layer == "1"
        and as_backbone("fieldguide").layer
    )


@remedy("give knowledge={class: {attribute: value}} or sentences")
def pictures_and_nothing_known(own: Path) -> None:
    from niwt_nb.method.niwt import _as_data

    pictures, labels = [Image.new("RGB", (8, 8))] * 2, ["kea", "owl"]
    told(
        lambda: _as_data(pictures, labels),
        r"give knowledge=\{class: \{attribute: value\}\} or sentences",
    )
    assert (
        len(
            _as_data(
                pictures,
                labels,
                {"kea": {"a": 1, "b": 0}, "owl": {"a": 0, "b": 0}, "emu": {"a": 1, "b": 1}},
            ).unseen
        )
        == 1
    )
    assert _as_data(pictures, labels, SENTENCES).get_knowledge().name == "sentences"


@remedy("give classes=, or a table whose index names them")
def rows_without_names(own: Path) -> None:
    from niwt_nb.method.niwt import _as_data

    pictures, labels = [Image.new("RGB", (8, 8))] * 2, ["kea", "owl"]
    table = DomainKnowledge("k", [[1, 0], [0, 0], [1, 1]], ("a", "b"))
    told(
        lambda: _as_data(pictures, labels, table),
        "give classes=, or a table whose index names them",
    )
    assert _as_data(pictures, labels, table, classes=["kea", "owl", "emu"]).classes == (
        "kea",
        "owl",
        "emu",
    )
    assert _as_data(pictures, labels, table.to_frame(["kea", "owl", "emu"])).classes == (
        "kea",
        "owl",
        "emu",
    )


@remedy("remove_class({}) takes it out")
def a_class_that_is_there(own: Path) -> None:
    from niwt_nb.method.niwt import NIWT

    data = read_folder(own, unseen="F")
    features = torch.rand(len(data), 6, generator=torch.Generator().manual_seed(0))
    data = ZeroShotData(
        **{f: getattr(data, f) for f in data.__dataclass_fields__} | {"features": features}
    )
    model = NIWT(None, map="ridge", solver="closed", calibrate=False).fit(data)
    remedy = re.search(
        r"remove_class\('(\w)'\) takes it out",
        told(lambda: model.add_class("F", {"x": 1.0}), "there is a class 'F' already"),
    )
    assert remedy
    model.add_class("G", {"x": 1.0})
    model.remove_class(remedy[1])
    assert model.add_class("F", {"x": 1.0}).name == "F"


@remedy("put a second picture into the folder of a class")
def nothing_to_test_seen_classes_with(own: Path) -> None:
    for c in "ABCDEF":
        (own / c / "1.png").rename(own.parent / f"{c}.png")
    words = [
        "run",
        "--data",
        "folder",
        "--root",
        own,
        "--out",
        own.parent / "out",
        "--set",
        "unseen=F",
        "--model",
        own.parent / "net.py:load",
    ]
    assert niwt(*words)[0] == 2 and "put a second picture" in niwt(*words)[1]
    code, said = niwt("data", "check", own, "--set", "unseen=F")
    assert code == 1 and "put a second picture" in said
    (own.parent / "A.png").rename(own / "A" / "1.png")
    assert niwt("data", "check", own, "--set", "unseen=F")[0] == 0
    assert "net.py" in niwt(*words)[1]  # it goes on to what is missing next


NETWORK = """
import numpy as np, torch
from torch import nn

def load():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 6))

def preprocess(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
"""


@remedy("give it: NIWT.load(folder, backbone=Backbone(...)), or --model on the command line")
def a_network_that_has_moved(own: Path) -> None:
    from niwt_nb.method.niwt import NIWT
    from niwt_nb.network.backbones import load_backbone

    code, moved, folder, photo = (
        own.parent / "net.py",
        own.parent / "moved.py",
        own.parent / "model",
        own / "A" / "0.png",
    )
    code.write_text(NETWORK)
    model = NIWT(load_backbone(f"{code}:load"), map="ridge", solver="closed", calibrate=False).fit(
        read_folder(own, unseen="F")
    )
    model.save(folder)
    code.rename(moved)
    told(lambda: NIWT.load(folder), "give it: NIWT.load")
    assert NIWT.load(folder, backbone=load_backbone(f"{moved}:load")).predict(
        photo
    ) == model.predict(photo)
    status, said = niwt("predict", folder, photo)
    assert status == 2 and "--model" in said
    status, said = niwt("predict", folder, photo, "--model", f"{moved}:load")
    assert status == 0, said


@remedy("or replace that run (replace_run=True, --replace on the command line)")
def a_folder_with_another_run(own: Path) -> None:
    from niwt_nb.runs.config import RunConfig
    from niwt_nb.runs.pipeline import run

    words, absent = (
        ["run", "--data", "folder", "--root", own / "none", "--out", own.parent / "out"],
        "no folder",
    )
    assert absent in niwt(*words)[1]
    (own.parent / "out" / "a.safetensors").touch()  # a finished step
    assert "or replace that run" in niwt(*words, "--seed", 1)[1]
    assert absent in niwt(*words, "--seed", 1, "--replace")[1]  # it goes on to the next fault
    config = RunConfig(data="folder", root=own / "none", seed=2)
    told(lambda: run(config, own.parent / "out"), "or replace that run")
    told(lambda: run(config, own.parent / "out", replace_run=True), absent)


@remedy("save torch.save(model.state_dict(), FILE)")
def a_program_in_place_of_weights(own: Path) -> None:
    from niwt_nb.network.backbones import _read_weights

    model, file = nn.Linear(2, 1), own / "weights.pt"
    torch.jit.save(torch.jit.script(model), file)
    told(lambda: _read_weights(file), "where the model is, and give FILE")
    torch.save(model.state_dict(), file)
    assert _read_weights(file).keys() == {"weight", "bias"}


@remedy("repeat its command")
def a_folder_without_a_model(own: Path) -> None:
    code, said = niwt("predict", own, own / "A" / "0.png")
    # the tests of runs interrupt one and repeat it
    assert code == 2 and "repeat its command" in said


@remedy("start it with niwt run or niwt demo")
def a_folder_without_a_run(own: Path) -> None:
    code, said = niwt("report", own)
    assert code == 2 and "start it with niwt run or niwt demo" in said
    assert niwt("run", "--help")[0] == 0 and niwt("demo", "--help")[0] == 0


@remedy("run again to make it")
def results_of_another_version(own: Path) -> None:
    (own / "results.json").write_text(json.dumps({"format": -1}))
    assert "run again to make it" in niwt("report", own)[1]
    (own / "results.json").write_text("{")
    # the tests of runs repeat one in its folder
    assert "run again to make it" in niwt("report", own)[1]


@remedy("calibrate=True on data with at least 2 val_classes")
def no_classes_that_played_strangers(own: Path) -> None:
    from dataclasses import replace

    from niwt_nb.fieldguide.world import field_guide
    from niwt_nb.method.niwt import NIWT

    guide = field_guide(10, 3, images_per_class=(4, 2))
    data = replace(
        guide, features=torch.randn(len(guide), 5, generator=torch.Generator().manual_seed(0))
    )
    bare = NIWT(calibrate=False).fit(data)
    told(
        lambda: bare.predict(data.features, unknown=True),
        "fit it with calibrate=True on data with at least 2 val_classes",
    )
    told(lambda: bare.predict_proba(data.features), "at least 2 val_classes")
    sure = NIWT(calibrate=True).fit(replace(data, val_classes=data.seen[:2]))
    assert (
        len(sure.predict(data.features, unknown=True))
        == len(sure.predict_proba(data.features))
        == len(data)
    )


@remedy("give calibrate=choose_settings(model, data, features, (twin, its features))")
def a_head_of_all_seen_classes(own: Path) -> None:
    from dataclasses import replace

    from niwt_nb.fieldguide.world import field_guide
    from niwt_nb.method.niwt import NIWT, choose_settings

    guide = field_guide(10, 3, images_per_class=(4, 2))
    x = torch.randn(len(guide), 5, generator=torch.Generator().manual_seed(0))
    data = replace(guide, features=x, val_classes=guide.seen[:2])
    model, part = NIWT(nn.Linear(5, 10)), data.validation(0)
    told(lambda: model.fit(data), "or calibrate=False")
    chosen = choose_settings(model, data, x, (nn.Linear(5, len(part.seen)), part.features))
    for calibrate in (chosen, False):
        assert len(model.set_params(calibrate=calibrate).fit(data).predict(x)) == len(x)


@pytest.mark.parametrize("words", ENTRIES)
def test_a_remedy_can_be_carried_out(words, own):
    ENTRIES[words](own)


def template(node: ast.AST) -> str:
    "The text of a message as it stands in the source, {} for what is put in."
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(
            "{}" if isinstance(v, ast.FormattedValue) else template(v) for v in node.values
        )
    if isinstance(node, ast.BinOp):
        return template(node.left) + template(node.right)
    return f"{template(node.body)} {template(node.orelse)}" if isinstance(node, ast.IfExp) else ""


def given(tree: ast.AST, line: int) -> dict[str, str]:
    "Name -> the text that it has at a line: of the last assignment above, and what was added to it."
    found: dict[str, str] = {}
    for node in sorted(
        (n for n in ast.walk(tree) if isinstance(n, (ast.Assign, ast.AugAssign))),
        key=lambda n: n.lineno,
    ):
        more = isinstance(node, ast.AugAssign)
        name = getattr(node.target if more else node.targets[0], "id", "")
        if node.lineno < line:
            inside = [found.get(n.id, "") for n in ast.walk(node.value) if isinstance(n, ast.Name)]
            found[name] = " ".join([found.get(name, "") * more + template(node.value), *inside])
    return found


def messages() -> Iterator[tuple[str, str]]:
    "Where each message with a remedy stands, and its text, with the texts of the names in it."
    root = Path(niwt_nb.__file__).parent
    for path in sorted(root.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        fixed = given(
            ast.Module([n for n in tree.body if isinstance(n, (ast.Assign, ast.AugAssign))], []),
            10**9,
        )
        for scope in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)):
            for node in ast.walk(scope):
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Error"):
                    known = fixed | given(scope, node.lineno)
                    names = [
                        n.id for arg in node.args for n in ast.walk(arg) if isinstance(n, ast.Name)
                    ]
                    text = " ".join(
                        [*map(template, node.args), *(known.get(name, "") for name in names)]
                    )
                    yield f"{path.relative_to(root)}, line {node.lineno}", text


def test_every_message_with_a_remedy_is_tried_or_says_why_not():
    found = [(where, text) for where, text in messages() if REMEDY.search(text)]
    assert len(found) > 45
    known = [*ENTRIES, *ELSEWHERE]
    new = [f"{where}: {text}" for where, text in found if not any(words in text for words in known)]
    assert not new, "messages whose remedy nobody has tried:\n" + "\n".join(new)
    gone = [words for words in known if not any(words in text for _, text in found)]
    assert not gone, f"no message says this any more: {gone}"
