"""Do maps of attributes fall on the parts that the attributes speak of? Part IoU, energy and distance on CUB's part points, and attribute AP."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.explanations import part_points, parts_of
from benchmarks.scores import some_of_each
from benchmarks.timing import bench_row, register
from benchmarks.words import KeptActivations, cub_photos, ranking_precision, whole_head
from niwt_nb.core import progress
from niwt_nb.data.dataset import ZeroShotData
from niwt_nb.explain.explainer import _group_of, _measure_seen, _presence, make_explainer
from niwt_nb.explain.maps import object_masks, to_size
from niwt_nb.network.backbones import load_backbone
from niwt_nb.network.modes import in_own_modes

# the seven parts of the published measure, and CUB's points that belong to each
BODY: dict[str, tuple[str, ...]] = {
    "head": ("beak", "crown", "forehead", "left eye", "right eye", "nape"), "breast": ("breast", "throat"), "belly": ("belly",), "back": ("back",),
    "wing": ("left wing", "right wing"), "tail": ("tail",), "leg": ("left leg", "right leg"),
}  # fmt: skip


@dataclass(frozen=True)
class Group:
    "A group of attributes that speaks of a part, such as the wing's colours."

    name: str  # of the attributes
    columns: tuple[int, ...]  # of the attributes
    points: tuple[int, ...]  # the part's own points
    body: str  # one of `BODY`
    near: tuple[int, ...]  # points of that


def attribute_groups(
    names: Sequence[str],  # A attribute names
    part_names: Sequence[str],  # of part points
) -> list[Group]:  # those that speak of a part
    "Which attributes speak of which points."
    columns: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        columns.setdefault(_group_of(name), []).append(i)
    found = []
    for name, own in columns.items():
        points = parts_of(names[own[0]], part_names)
        body = next((b for b, p in BODY.items() if points and part_names[points[0]] in p), "")
        if body:
            near = tuple(i for i, p in enumerate(part_names) if p in BODY[body])
            found.append(Group(name, tuple(own), tuple(points), body, near))
    return found


def attribute_branch(
    acts: Tensor,  # (n, K, h, w) of training photos
    shows: Tensor,  # (n, A) bool: what their classes have
    epochs: int = 8,  # over the photos
    seed: int = 0,  # of their order
) -> tuple[Tensor, Tensor, Tensor]:  # (K, A) weights, (K,) mean and (K,) spread of a place
    "Attributes from single places, pooled by a soft maximum (log-sum-exp): trained on what classes have, no part is ever shown."
    x = acts.float()
    mean, spread = x.mean((0, 2, 3)), x.std((0, 2, 3)).clamp_min(1e-6)
    x = ((x - mean[:, None, None]) / spread[:, None, None]).flatten(2)
    target, draw = shows.float(), torch.Generator().manual_seed(seed)
    weight = torch.zeros(x.shape[1], target.shape[1], requires_grad=True)
    bias = torch.logit(target.mean(0).clamp(0.01, 0.99)).requires_grad_()
    optimiser, cells = torch.optim.AdamW([weight, bias], lr=3e-4, weight_decay=1e-3), x.shape[2]
    for _ in range(epochs):
        for some in torch.randperm(len(x), generator=draw).split(64):
            places = torch.einsum("nkp,ka->nap", x[some], weight)
            pooled = ((2 * places).logsumexp(2) - np.log(cells)) / 2
            loss = F.binary_cross_entropy_with_logits(pooled + bias, target[some])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return weight.detach(), mean, spread


@in_own_modes
def part_maps(
    acts: Tensor,  # (n, K, h, w)
    branch: tuple[Tensor, Tensor, Tensor],  # from `attribute_branch`
    groups: Sequence[Group],  # G of them
) -> Tensor:  # (n, G, h, w), not negative
    "Where any attribute of a group's part speaks up, more than those of other parts do: the energy times the cube of its share."
    weight, mean, spread = branch
    heat = torch.einsum(
        "nkhw,ka->nahw", (acts.float() - mean[:, None, None]) / spread[:, None, None], weight
    ).clamp_min(0)
    parts = sorted({g.points for g in groups})
    columns = [[c for g in groups if g.points == p for c in g.columns] for p in parts]
    energy = torch.stack([heat[:, c].pow(2).mean(1) for c in columns], 1)
    even = energy.sqrt() / energy.sqrt().mean((0, 2, 3), keepdim=True).clamp_min(1e-9)
    share = energy * (even / even.mean(1, keepdim=True).clamp_min(1e-9)) ** 3
    return share[:, [parts.index(g.points) for g in groups]]


@in_own_modes
def row_maps(
    acts: Tensor,  # (n, K, h, w)
    rows: Tensor,  # (A, K) weight vectors of the attributes
    groups: Sequence[Group],  # G of them
) -> Tensor:  # (n, G, h, w), not negative
    "Grad-CAM of the strongest attribute of each group, by its own row."
    score, found = acts.float().mean((2, 3)) @ rows.T, []
    for g in groups:
        best = torch.tensor(g.columns)[score[:, list(g.columns)].argmax(1)]
        found.append(torch.einsum("nkhw,nk->nhw", acts.float(), rows[best]).clamp_min(0))
    return torch.stack(found, 1)


@in_own_modes
def highest(
    maps: Tensor,  # (n, G, h, w)
    size: tuple[int, int],  # of the images
) -> Tensor:  # (n, G, 2) x and y
    "The highest place of each map, brought to the images' size."
    at = to_size(maps.flatten(0, 1), size).flatten(1).argmax(1)
    return torch.stack([at % size[1], at // size[1]], 1).float().unflatten(0, maps.shape[:2])


@in_own_modes
def middle_of(
    maps: Tensor,  # (n, G, h, w), not negative
    size: tuple[int, int],  # of the images
) -> Tensor:  # (n, G, 2) x and y
    "The centre of mass of each map."
    share = maps / maps.sum((2, 3), keepdim=True).clamp_min(1e-9)
    cells = maps.shape[2:]
    ys, xs = ((torch.arange(c) + 0.5) * s / c for c, s in zip(cells, size, strict=True))
    return torch.stack([(share.sum(2) * xs).sum(2), (share.sum(3) * ys).sum(2)], 2)


@in_own_modes
def score_parts(
    maps: Tensor | None,  # (n, G, h, w); `None`: places alone
    places: Tensor,  # (n, G, 2) where each map points
    points: Tensor,  # (n, P, 2) part points; NaN where hidden
    boxes: Tensor,  # (n, 4) x0, y0, x1, y1 of the bird
    groups: Sequence[Group],  # G of them
    size: tuple[int, int],  # of the images
) -> dict[
    str, float
]:  # iou of each of `BODY` and "mean" (without the tail), distance in diagonals of the bird's box, energy ratio
    "Part IoU (share of boxes, a quarter of the bird's wide and high, that overlap by more than half with the nearest point's), distance, energy over area."
    side = (boxes[:, 2:] - boxes[:, :2]) / 4
    diagonal = 4 * side.norm(dim=1)
    hit: dict[str, list[Tensor]] = {}
    away, ratio = [], []
    ys, xs = torch.meshgrid(*(torch.arange(float(s)) for s in size), indexing="ij")
    for i, g in enumerate(groups):
        step = (points[:, list(g.near)] - places[:, i, None]).nan_to_num(1e6)
        step = step[torch.arange(len(step)), step.norm(dim=2).argmin(1)]
        both = (side - step.abs()).clamp_min(0).prod(1)
        known = (step.norm(dim=1) < 1e5).float()
        hit.setdefault(g.body, []).append(
            torch.where(known > 0, (both / (2 * side.prod(1) - both) > 0.5).float(), torch.nan)
        )
        own = points[:, list(g.points)]
        gap = (own - places[:, i, None]).norm(dim=2).nan_to_num(torch.inf).amin(1) / diagonal
        away.append(torch.where(gap.isfinite(), gap, torch.nan))
        if maps is not None:
            near = ((xs - own[..., 0, None, None]).abs() <= side[:, None, :1, None] / 2) & (
                (ys - own[..., 1, None, None]).abs() <= side[:, None, 1:, None] / 2
            )
            mask, heat = near.any(1).float(), to_size(maps[:, i], size)
            area, inside = (
                mask.mean((1, 2)),
                (heat * mask).sum((1, 2)) / heat.sum((1, 2)).clamp_min(1e-9),
            )
            ratio.append(torch.where(area > 0, inside / area, torch.nan))
    found = {body: float(torch.stack(t).nanmean(0).nanmean()) for body, t in hit.items()}
    found["mean"] = float(np.mean([v for body, v in found.items() if body != "tail"]))
    found["distance"] = float(torch.stack(away).nanmean())
    return found | ({"energy ratio": float(torch.stack(ratio).nanmean())} if ratio else {})


@in_own_modes
def other_parts(
    groups: Sequence[Group],  # G of them
    seed: int = 0,  # of the lot
) -> list[int]:  # for each group, the place of one that speaks of another part of the body
    "The control: whose map a group gets."
    draw = np.random.default_rng(seed)
    return [int(draw.choice([j for j, o in enumerate(groups) if o.body != g.body])) for g in groups]


@in_own_modes
def attribute_precision(
    ranking: Tensor,  # (n, A) how far each photo shows each attribute
    truth: Tensor,  # (n, A) bool
) -> float:  # mean over attributes that some photos show and some do not
    "Attribute AP: how far up each attribute's ranking of the photos those stand that show it."
    usable = truth.any(0) & ~truth.all(0)
    return float(ranking_precision(ranking.T[usable], truth.T[usable]).mean())


@in_own_modes
def draw_of_parts(
    data: ZeroShotData,  # CUB
    kept: tuple[Tensor, Tensor],  # (N,) place of each photo in what is kept, its activations
    learn: Tensor,  # training photos
    test: Tensor,  # photos to judge
    transform: Any,  # PIL image -> (3, H, W) tensor
    seed: int = 0,  # of controls and training
) -> dict[tuple[str, str, str], float]:  # (kind, group, score) -> value
    "One draw: all kinds of maps on photos of seen and of unseen classes, and attribute AP."
    (place, acts), labels = kept, data.labels
    known, columns = data.get_knowledge("attributes"), torch.cat([data.seen, data.unseen])
    has = _presence(known.values, known.values[columns])
    features = torch.cat([acts[place[part]].float().mean((2, 3)) for part in learn.split(256)])
    numbered = ZeroShotData(**{**vars(data), "images": range(len(data)), "train": learn})
    network = KeptActivations(whole_head(features, labels[learn], data))
    photo = lambda i: acts[place[i]].float()  # noqa: E731
    measured = _measure_seen(network, numbered, photo, columns)
    explainer, mixed = (
        make_explainer(network, numbered.classes, k, measured)
        for k in (known, known.shuffled(seed))
    )
    branch = attribute_branch(acts[place[learn]], has[labels[learn]], seed=seed)
    masks, points = object_masks(data, test, transform), part_points(data, test, transform)
    size, groups = (masks.shape[1], masks.shape[2]), attribute_groups(known.names, data.part_names)
    masks |= ~masks.flatten(1).any(1)[:, None, None]  # a bird that is cropped away: the whole photo
    spans = [
        [(m.any(d).nonzero().min(), m.any(d).nonzero().max() + 1) for d in (0, 1)] for m in masks
    ]
    boxes = torch.tensor([[x[0], y[0], x[1], y[1]] for x, y in spans]).float()
    mine, own = (
        part_maps(acts[place[test]], branch, groups),
        row_maps(acts[place[test]], explainer.rows, groups),
    )
    order, draw = other_parts(groups, seed), torch.Generator().manual_seed(seed)
    middle = ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None].expand(-1, len(groups), -1)
    lots = (
        boxes[:, None, :2]
        + torch.rand(len(test), len(groups), 2, generator=draw)
        * (boxes[:, 2:] - boxes[:, :2])[:, None]
    )
    kinds: dict[str, tuple[Tensor | None, Tensor]] = {
        "attribute branch": (mine, middle_of(mine, size)),
        "attribute's own row": (own, highest(own, size)),
    }
    kinds |= {
        f"{k}, another part's": (m[:, order], p[:, order])
        for k, (m, p) in kinds.items()
        if m is not None
    }
    kinds |= {"middle of the box": (None, middle), "any place in the box": (None, lots)}
    found: dict[tuple[str, str, str], float] = {}
    shown, new = (
        {"shown": explainer, "shown, shuffled": mixed},
        torch.isin(labels[test], data.unseen),
    )
    for g, pick in (("seen", ~new), ("unseen", new)):
        for kind, (maps, places) in kinds.items():
            scores = score_parts(
                None if maps is None else maps[pick],
                places[pick],
                points[pick],
                boxes[pick],
                groups,
                size,
            )
            found |= {(kind, g, what): value for what, value in scores.items()}
        truth = has[labels[test[pick]]]
        pooled = acts[place[test[pick]]].float().mean((2, 3))
        found |= {
            (kind, g, "attribute AP"): attribute_precision(e.shown(pooled), truth)
            for kind, e in shown.items()
        }
    return found


@register("parts")
def parts_bench(
    quiet: bool = False,  # no progress on the screen
    seeds: int = 3,  # draws of photos
    folder: str | None = None,  # activations are kept here
) -> list[dict[str, Any]]:  # rows as `bench_row` makes them
    "Maps of attributes on CUB's part points: part IoU, distance, energy ratio, and attribute AP; mean and spread over three draws of photos."
    data, place, acts, train, test = cub_photos(folder)
    transform, runs = load_backbone(os.environ["NIWT_BACKBONE"]).preprocess, []
    for seed in progress(list(range(seeds)), "draws of photos", quiet=quiet):
        learn, few = some_of_each(data, train, 12, seed), some_of_each(data, test, 1, seed)
        runs.append(draw_of_parts(data, (place, acts), learn, few, transform, seed))
    table, rows = pd.DataFrame(runs), []
    control = {
        "attribute branch": "attribute branch, another part's",
        "attribute's own row": "attribute's own row, another part's",
        "shown": "shown, shuffled",
    }
    for kind, g, what in table.columns:
        column, other = table[(kind, g, what)], (control.get(kind, ""), g, what)
        theirs = float(table[other].mean()) if other in table.columns else None
        metric = (
            what
            if what in ("distance", "energy ratio", "attribute AP")
            else f"part IoU > 0.5, {what}"
        )
        if kind not in control.values():
            case = f"{kind}, {g} photos (spread {column.std(ddof=0):.3f})"
            rows.append(
                bench_row(
                    case,
                    metric,
                    "",
                    column.mean(),
                    control[kind] if theirs is not None else "",
                    theirs,
                    seeds,
                )
            )
    return rows
