"The table of all scores of explanations (`benchmarks/explanations.py`), in a world small enough to check by hand."

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from fastcore.test import test_eq as eq
from fastcore.test import test_fail as fails
from PIL import Image
from torch import nn

from benchmarks.explanations import (
    KeptImages,
    attribute_map,
    attribute_pairs,
    attribute_view,
    deletion_insertion,
    map_table,
    part_points,
    part_score,
    part_summary,
    part_table,
    parts_of,
    score_attribute_maps,
    score_deletion,
    score_explanations,
    score_verdicts,
)
from niwt_nb.core import seeded
from niwt_nb.data.dataset import DomainKnowledge, ZeroShotData
from niwt_nb.explain.explainer import fit_explainer
from niwt_nb.explain.maps import fine_map
from niwt_nb.explain.words import explain_images
from niwt_nb.network.cut import cut


def near(a, b, eps=1e-5):
    torch.testing.assert_close(
        torch.as_tensor(a).detach().double(), torch.as_tensor(b).detach().double(), atol=eps, rtol=0
    )


class Tiny(nn.Module):
    "lower: identity; tail: mean over the picture; head: one row a class."

    def __init__(self, w):
        super().__init__()
        self.lower, self.tail, self.layer = (
            nn.Identity(),
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            "lower",
        )
        self.head = nn.Linear(w.shape[1], w.shape[0], bias=False)
        self.head.weight.data = w

    def forward(self, x):
        return self.head(self.tail(self.lower(x)))


def to_tensor(im):
    return torch.from_numpy(np.asarray(im.convert("RGB")).copy()).permute(2, 0, 1) / 255


def photo_of(c, rng):
    p = rng.integers(0, 8, (4, 4, 3))
    p[1, 1, 0] += 180 * (c != 1)
    p[2, 2, 1] += 180 * (c != 0)
    return Image.fromarray(p.astype(np.uint8))


rng, labels = np.random.default_rng(0), torch.tensor([0, 0, 1, 1, 2, 2])
facts = DomainKnowledge(
    "attributes",
    torch.tensor([[1.0, 0], [0, 1], [1, 1]]),
    ("has_wing_color::red", "has_crown_color::green"),
)
data = ZeroShotData(
    "pixels",
    ("Red Bird", "Green Bird", "Christmas Bird"),
    [photo_of(c, rng) for c in labels.tolist()],
    labels,
    seen=[0, 1],
    unseen=[2],
    train=[0, 2],
    test_seen=[1, 3],
    test_unseen=[4, 5],
    knowledge={"attributes": facts},
    image_attributes=facts.values[labels],
    boxes=torch.tensor([[1.0, 1, 2, 2]] * 6),
    parts=torch.tensor([[[1.0, 1, 1], [2, 2, 1]]] * 6),
    part_names=("left wing", "crown"),
)
ex = fit_explainer(
    Tiny(torch.tensor([[1.0, -1, 0], [-1, 1, 0], [0.4, 0.4, 0]])).eval(),
    data,
    to_tensor,
    columns=torch.arange(3),
)
photo = to_tensor(data.images[1])[None]
many = explain_images(ex, data, torch.tensor([1, 3, 4, 5]), to_tensor, top=2, n_neurons=1)


def test_part_points():
    eq(part_points(data, [0], to_tensor)[0].tolist(), [[1, 1], [2, 2]])
    gone = replace(data, parts=torch.tensor([[[1.0, 1, 0], [90, 90, 1]]] * 6))
    eq(part_points(gone, [0], to_tensor).isnan().all().item(), True)
    fails(
        lambda: part_points(replace(data, parts=None, part_names=()), [0], to_tensor),
        contains="has no part points",
    )
    cub = ["back", "beak", "belly", "left leg", "left wing", "right leg", "right wing", "tail"]
    eq(
        [
            parts_of(a, cub)
            for a in (
                "has_wing_color::blue",
                "has_bill_shape::cone",
                "has_upper_tail_color::red",
                "has_size::small",
                "has_leg_color::red",
                "furry",
            )
        ],
        [[4, 6], [1], [7], [], [3, 5], []],
    )


def test_attribute_pairs():
    got = attribute_pairs(ex, data, torch.tensor([1, 4]), to_tensor, per_image=2)
    eq(
        [(p["image"], p["attribute"], p["part"]) for p in got[:1]],
        [(1, "has_wing_color::red", "left wing")],
    )
    eq(sorted(p["part"] for p in got[1:]), ["crown", "left wing"])
    wing = replace(
        data, masks=lambda i: {"bird": np.ones((4, 4), bool), "wing": np.eye(4, dtype=bool)}
    )
    eq(
        [
            p["mask"].sum().item()
            for p in attribute_pairs(ex, wing, torch.tensor([1, 4]), to_tensor)
        ],
        [4, 4],
    )  # nothing is known about the crown here
    fails(
        lambda: attribute_pairs(
            ex, replace(data, parts=None, part_names=()), torch.tensor([1]), to_tensor
        ),
        contains="neither masks of parts nor part points",
    )


def test_part_score():
    near(part_score(torch.eye(4), {"mask": torch.eye(4).bool()})["energy"], 1.0)
    near(part_score(torch.ones(4, 4), {"mask": torch.eye(4).bool()})["area"], 0.25)
    h = torch.zeros(4, 4)
    h[3, 0] = 1
    box4 = torch.ones(4, 4).bool()
    p = part_score(h, {"points": torch.tensor([[0.0, 0], [float("nan"), 0]]), "box": box4})
    near([p["distance"], p["centre_distance"]], [3 / 32**0.5, (2 * 1.5**2) ** 0.5 / 32**0.5])
    eq(part_score(h, {"points": torch.tensor([[0.0, 3]]), "box": box4 & False})["distance"], 0.0)


def test_an_attribute_is_one_more_row_of_the_head():
    view = attribute_view(ex)
    eq(view.head.weight.shape, (2, 3))
    near(view(photo), (ex.rows @ photo[0].mean((1, 2)))[None])
    red, green = "has_wing_color::red", "has_crown_color::green"
    maps = attribute_map(ex, torch.cat([photo, to_tensor(data.images[3])[None]]), [red, green])
    eq([divmod(int(m.argmax()), 4) for m in maps], [(1, 1), (2, 2)])
    fails(lambda: attribute_map(ex, photo, ["has_wing_color::rde"]), contains=f"nearest: {red!r}")
    deaf = replace(ex, answers=-torch.ones(3, 2))
    fails(
        lambda: attribute_map(deaf, photo, [red]), contains="no neuron of layer 'lower' answers to"
    )


def test_attribute_maps():
    tab = score_attribute_maps(ex, data, torch.tensor([1, 3]), to_tensor)
    near(tab["distance"].to_numpy(), [0, 0])  # the red dot is the wing, the green dot the crown
    off = score_attribute_maps(ex, data, torch.tensor([1, 3, 4]), to_tensor, wrong=True)
    eq(bool((off["distance"] > 0).any()), True)
    tab = part_summary(
        {
            "a": pd.DataFrame({"energy": [0.4, 0.2], "area": [0.1, 0.2], "pointing": [1.0, 0]}),
            "b": pd.DataFrame({"energy": [0.1], "area": [0.1], "pointing": [0.0]}),
        }
    )
    near(tab["ratio"].to_numpy(), [2, 1])
    eq(tab["n"].tolist(), [2, 1])


def test_verdicts():
    sure = replace(
        many,
        found=torch.tensor([[9.0, -10], [-10, 9], [9, -10], [-10, -10]]),
        strength=torch.ones(4, 2),
    )  # Christmas birds are said to lack their green crowns, and one its red wings: wrong
    tab = score_verdicts(ex, sure, data).set_index(["group", "verdict"])
    eq([tab.loc[(g, "for"), "right"] for g in ("seen", "unseen")], [1.0, 1.0])
    eq(tab.loc[("unseen", "against"), "right"], 0.0)
    eq(tab.loc[("wrong", "for"), "n"], 0)
    eq(
        [
            tab.loc[k, "per_image"]
            for k in (("seen", "for"), ("unseen", "for"), ("unseen", "against"), ("seen", "open"))
        ],
        [1.0, 0.5, 1.5, 1.0],
    )


def test_deletion():
    good = deletion_insertion(
        ex.network, photo, attribute_map(ex, photo, ["has_wing_color::red"]), 0, blur=3
    )[0]
    poor = deletion_insertion(
        ex.network, photo, -attribute_map(ex, photo, ["has_wing_color::red"]), 0, blur=3
    )[0]
    eq(bool(good[0] < poor[0] and good[1] > poor[1]), True)
    tab = score_deletion(
        ex.network,
        data,
        torch.tensor([1, 3, 4]),
        to_tensor,
        torch.tensor([0, 1, 2]),
        steps=4,
        batch_size=2,
    ).set_index("maps")
    three = [
        deletion_insertion(ex.network, x, fine_map(ex.network, x, r), r, 4)[0]
        for x, r in ((to_tensor(data.images[i])[None], r) for i, r in ((1, 0), (3, 1), (4, 2)))
    ]
    near(tab.loc["fine map", ["deletion", "insertion"]].to_numpy(float), torch.stack(three).mean(0))
    eq(tab["n"].tolist(), [3, 3, 3])


def test_kept_images():
    class Counting(list):
        asked = 0

        def __getitem__(self, i):
            self.asked += 1
            return super().__getitem__(i)

    slow = Counting("abc")
    kept = KeptImages(slow)
    eq([kept[1], kept[1], kept[0], len(kept)], ["b", "b", "a", 3])
    eq(slow.asked, 2)


def test_tables():
    tab = map_table(
        ex, many, ex, many, data, to_tensor, ["seen", "seen", "unseen", "unseen"], (0,)
    ).set_index(["group", "maps"])["energy"]
    eq(tab["seen"]["fine map"], tab["seen"]["fine map, untrained network"])
    eq(tab["seen"]["Grad-CAM"], tab["seen"]["Grad-CAM, untrained network"])  # the same network here
    eq(bool(tab["seen"]["fine map"] > tab["seen"]["random map"]), True)
    tab = part_table(ex, ex, data, torch.tensor([1, 3, 4]), to_tensor).set_index("maps")
    near(tab.loc["own attribute, fine", "distance"], 0.0)
    eq(
        tab.loc["own attribute, fine: crown", "n"] + tab.loc["own attribute, fine: left wing", "n"],
        tab.loc["own attribute, fine", "n"],
    )
    eq(
        len(
            part_table(
                ex, ex, replace(data, parts=None, part_names=()), torch.tensor([1]), to_tensor
            )
        ),
        0,
    )


def test_everything():
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool, self.head = (
                nn.Conv2d(3, 4, 1),
                nn.AdaptiveAvgPool2d(1),
                nn.Linear(4, 3),
            )

        def forward(self, x):
            return self.head(self.pool(torch.relu(self.conv(x))).flatten(1))

    with seeded(0):
        learner = cut(Small().eval(), "conv")
    tables = score_explanations(learner, data, to_tensor, seeds=(0,), per_class=1)
    eq(
        list(tables),
        ["where", "attributes", "words", "verdicts", "names", "faithfulness", "deletion"],
    )
    eq(
        set(tables["where"]["maps"]),
        {
            "Grad-CAM",
            "perfect map of that size (bound)",
            "random map",
            "fine map",
            "fine map, untrained network",
            "Grad-CAM, untrained network",
        },
    )
    eq(
        set(tables["words"]["words"])
        >= {"NIWT", "shuffled knowledge 0", "untrained network 0", "chance"},
        True,
    )
    eq(
        set(tables["names"]["names"])
        >= {
            "NIWT, good names only",
            "shuffled knowledge 0",
            "untrained network 0",
            "one name for all",
            "random",
        },
        True,
    )
