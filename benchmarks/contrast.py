"""Does a contrastive map fall on what tells two classes apart? Beside FinerCAM, RefineCAM, plain Grad-CAM and random maps."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from benchmarks.explanations import part_points, parts_of
from benchmarks.scores import some_of_each
from benchmarks.timing import bench_row, register
from niwt_nb.core import NiwtError, progress
from niwt_nb.data.cub import read_cub
from niwt_nb.explain.maps import contrast_map, grad_cam, object_masks, to_size
from niwt_nb.explain.scores import _pointing_game, _random_maps, energy_inside
from niwt_nb.fieldguide.network import train_field_guide_network
from niwt_nb.fieldguide.world import field_guide
from niwt_nb.method.niwt import NIWT
from niwt_nb.network.backbones import load_backbone

# 1: the larger the better
OURS, SCORES = "contrast map", {"energy": 1, "pointing": 1, "deletion": -1, "insertion": 1}


@dataclass(frozen=True, eq=False)
class Case:
    "Pictures, the class A that each shows, the best other class B, and where the two differ."

    network: Any  # a cut network with a row a class
    x: Tensor  # (n, 3, H, W)
    row: Tensor  # (n,) of A
    other: Tensor  # (n,) of B
    where: Tensor  # (n, H, W) bool: the parts in which A and B differ
    layers: tuple[str, ...]  # of RefineCAM, coarse last
    layer: str  # of FinerCAM: the chosen one


def differing_parts(
    names: Sequence[str],  # A attribute names
    one: Tensor,  # (A,) of a class, 0 to 1
    two: Tensor,  # (A,) of another
    part_names: Sequence[str],  # of masks or points
) -> list[int]:  # places in `part_names`
    "The parts of which something is said of one class (at least half more often) and not of the other; else the part with the largest difference."
    apart: dict[int, float] = {}
    for i, name in enumerate(names):
        for part in parts_of(name, part_names):
            apart[part] = max(apart.get(part, 0.0), float((one[i] - two[i]).abs()))
    limit = min(0.5, max(apart.values(), default=0.0))
    return [part for part, value in apart.items() if value >= limit > 0]


def difference_area(
    network: Any,  # a cut network
    x: Tensor,  # (B, 3, H, W)
    maps: Tensor,  # (B, H, W) signed; the highest values go first
    row: Tensor,  # (B,) head rows of A
    other: Tensor,  # (B,) of B
    steps: int = 5,  # points of the curves besides the start
    blur: int = 11,  # pixels, odd
) -> Tensor:  # (B, 2) area under the deletion and under the insertion curve of the difference A - B
    "Blur the picture from the highest value of the map on, or unblur it, and follow the score of A minus that of B."
    soft = torch.nn.functional.avg_pool2d(
        torch.nn.functional.pad(x, [blur // 2] * 4, mode="reflect"), blur, 1
    )
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(maps.flatten(1)).scatter(
        1, order, torch.linspace(0, 1, order.shape[1]).expand(len(x), -1)
    )
    rank, curves = rank.view(len(x), 1, *x.shape[-2:]), []
    with torch.no_grad():
        for t in torch.linspace(0, 1, steps + 1):
            gone = (rank <= t) & (t > 0)
            scores = network(
                torch.cat([torch.where(gone, soft, x), torch.where(gone, x, soft)]).contiguous(
                    memory_format=torch.channels_last
                )
            )
            pair = [scores.gather(1, r.repeat(2)[:, None]) for r in (row, other)]
            curves.append((pair[0] - pair[1]).view(2, -1).T)
    return torch.trapezoid(torch.stack(curves), dx=1 / steps, dim=0)


def torchcam_map(
    case: Case,  # see there
    x: Tensor,  # (B, 3, H, W)
    row: Tensor,  # (B,)
    other: Tensor,  # (B,)
    method: str,  # "FinerCAM" or "RefineCAM"
    apart: bool = True,  # of A - B; else RefineCAM of A alone, as it comes
    **options: Any,  # of the method
) -> Tensor:  # (B, H, W)
    "A map of TorchCAM 0.5; raises `NiwtError` where it is not installed."
    try:
        from torchcam import methods
    except ImportError:
        raise NiwtError("the peers are TorchCAM's; this benchmark needs torchcam 0.5") from None
    refine = method == "RefineCAM"
    with getattr(methods, method)(
        case.network.model,
        list(case.layers) if refine else case.layer,
        input_shape=tuple(x.shape[1:]),
        **options,
    ) as cam:
        scores = case.network.model(x)
        gap = scores.gather(1, row[:, None]) - scores.gather(1, other[:, None])
        heat = (
            (cam([0] * len(x), gap) if apart else cam(row.tolist(), scores))[0]
            if refine
            else cam(row.tolist(), scores, other[:, None].tolist())[0]
        )
    return to_size(heat.detach().float().nan_to_num(), x.shape[-2:])


def maps_of(
    case: Case,  # see there
    seed: int,  # of the random map
) -> dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]:  # kind -> (x, row, other) -> (B, H, W)
    "The maps that are compared: ours, the peers as they come and with the difference as their score, Grad-CAM of A, random."
    net, cells = case.network, case.network.lower(case.x[:1]).shape[2:]
    peer = lambda *a, **k: lambda x, r, o: torchcam_map(case, x, r, o, *a, **k)  # noqa: E731
    return {
        OURS: lambda x, r, o: contrast_map(net, x, r, o),
        "FinerCAM": peer("FinerCAM"),
        "FinerCAM, gamma 1": peer("FinerCAM", gamma=1.0),
        "RefineCAM": peer("RefineCAM", apart=False),
        "RefineCAM of A - B": peer("RefineCAM"),
        "Grad-CAM": lambda x, r, o: grad_cam(net, x, r),
        "random map": lambda x, r, o: _random_maps(
            len(x), (cells[0], cells[1]), (x.shape[2], x.shape[3]), seed
        ),
    }


def score_contrast(
    case: Case,  # see there
    seed: int = 0,  # of the random map
    steps: int = 5,  # of the curves
    batch_size: int = 20,  # pictures
) -> pd.DataFrame:  # a row a kind of map: energy, pointing, deletion, insertion (in units of the mean difference), area, n
    "How maps of A and not B score on the parts in which A and B differ, and what their places do to the difference."
    rows, cut = [], [t.split(batch_size) for t in (case.x, case.row, case.other, case.where)]
    with torch.no_grad():
        scores = torch.cat([case.network(x) for x in cut[0]])
    unit = float(
        (scores.gather(1, case.row[:, None]) - scores.gather(1, case.other[:, None])).abs().mean()
    )
    for kind, make in maps_of(case, seed).items():
        found = []
        for x, row, other, where in zip(*cut, strict=True):
            heat = make(x, row, other).detach()
            inside = [
                energy_inside(heat.clamp_min(0), where).nan_to_num(),
                _pointing_game(heat.clamp_min(0), where).float(),
            ]
            found.append(
                torch.cat(
                    [
                        torch.stack(inside, 1),
                        difference_area(case.network, x, heat, row, other, steps) / unit,
                    ],
                    1,
                )
            )
        row_ = dict(zip(SCORES, torch.cat(found).mean(0).tolist(), strict=True))
        rows.append(
            {"maps": kind} | row_ | {"area": float(case.where.float().mean()), "n": len(case.x)}
        )
    return pd.DataFrame(rows)


def make_case(
    model: NIWT,  # fitted on the data set
    data: Any,  # `ZeroShotData` with masks of parts, or part points and boxes
    n: int,  # pictures of seen and as many of unseen classes
    layers: tuple[str, ...],  # see `Case`
    seed: int = 0,  # of the draw
    radius: float = 0.1,  # of the disc around a part's point, in diagonals of the box
) -> Case:  # pictures on which no such part is visible are left out
    "Draw test pictures; A is the class that each shows, B the best other one."
    dice = torch.Generator().manual_seed(seed)
    index = torch.cat(
        [t[torch.randperm(len(t), generator=dice)[:n]] for t in (data.test_seen, data.test_unseen)]
    )
    x, names = (
        torch.stack([model.preprocess_(data.images[int(i)]) for i in index]),
        [str(c) for c in model.classes_],
    )
    row = torch.tensor([names.index(data.classes[int(c)]) for c in data.labels[index]])
    with torch.no_grad():
        scores = torch.cat([model.network_(part) for part in x.split(20)])
    other = scores.scatter(1, row[:, None], -torch.inf).argmax(1)
    known, ids = data.knowledge["attributes"], torch.tensor([data.classes.index(c) for c in names])
    values = known.values[ids] / known.values.max()
    part_names = (
        list(data.masks(int(index[0]))) if data.masks is not None else list(data.part_names)
    )
    parts = [
        differing_parts(known.names, values[a], values[b], part_names)
        for a, b in zip(row, other, strict=True)
    ]
    where = torch.zeros(len(x), *x.shape[2:], dtype=torch.bool)
    if data.masks is None:
        box = object_masks(data, index, model.preprocess_).flatten(1).sum(1).sqrt() * 2**0.5
        points, (ys, xs) = (
            part_points(data, index, model.preprocess_),
            torch.meshgrid(*(torch.arange(float(s)) for s in x.shape[2:]), indexing="ij"),
        )
    for i, some in enumerate(parts):
        for p in some:
            if data.masks is not None:
                where[i] |= object_masks(data, index[i : i + 1], model.preprocess_, part_names[p])[
                    0
                ]
            elif bool(points[i, p].isfinite().all()):
                where[i] |= (
                    torch.hypot(xs - points[i, p, 0], ys - points[i, p, 1]) <= radius * box[i]
                )
    good = where.flatten(1).any(1)
    return Case(
        model.network_, x[good], row[good], other[good], where[good], layers, model.network_.layer
    )


def drawn_cases(
    seeds: Sequence[int] = (0, 1, 2),  # worlds
    n: int = 50,  # see `make_case`
    folder: str | os.PathLike | None = None,  # trained networks are kept here; `None`: trained anew
) -> dict[int, Case]:  # by seed
    "Worlds of the field guide, each with a network of its own (0 is the shipped one)."
    found = {}
    for seed in seeds:
        data, path = field_guide(seed=seed), Path(folder or ".") / f"field-guide-{seed}.safetensors"
        if seed and not (folder and path.exists()):
            train_field_guide_network(data, seed=seed, path=path)
        model = NIWT(
            load_backbone("fieldguide", weights=path) if seed else load_backbone(),
            knowledge="attributes",
            calibrate=False,
        ).fit(data)
        found[seed] = make_case(model, data, n, ("stage1", "stage2", "stage3"), seed)
    return found


def photo_cases(
    root: str | os.PathLike,  # the CUB_200_2011 folder
    splits: str | os.PathLike,  # `att_splits.mat`
    model: str,  # what `load_backbone` takes
    seeds: Sequence[int] = (1, 2, 3),  # of the training photos and of the test photos
    n: int = 10,  # see `make_case`
    per_class: int = 6,  # training photos of a seen class
    layers: tuple[str, ...] = (
        "features.6",
        "features.13",
        "features.18",
    ),  # the last is the chosen one
) -> dict[int, Case]:  # by seed
    "Draws of CUB's photos with a frozen network."
    data, backbone, found = read_cub(root, splits), load_backbone(model), {}
    for seed in seeds:
        some = replace(data, train=some_of_each(data, data.train, per_class, seed))
        found[seed] = make_case(
            NIWT(backbone, layers[-1], knowledge="attributes", calibrate=False).fit(some),
            data,
            n,
            layers,
            seed,
        )
    return found


def contrast_table(
    cases: Mapping[int, Case],  # by seed
    quiet: bool = True,  # no progress bar
    steps: int = 5,  # of the curves
) -> (
    pd.DataFrame
):  # a row a kind of map: mean and spread (`energy`, `energy ±`, ...) over the seeds
    "`score_contrast` over seeds."
    runs = pd.concat(
        [
            score_contrast(cases[seed], seed, steps)
            for seed in progress(list(cases), "seeds", quiet=quiet)
        ]
    )
    by = runs.groupby("maps", sort=False)
    columns = {c: by[c].mean() for c in ("energy", "pointing", "deletion", "insertion", "area")}
    spread = {f"{c} ±": by[c].std() for c in SCORES}
    return pd.DataFrame(columns | spread | {"n": by["n"].sum()}).reset_index()


@register("contrast")
def contrast_bench(
    quiet: bool = False,  # no progress on the screen
    n: int = 50,  # see `make_case`; photos: a fifth
    folder: str | os.PathLike | None = None,  # see `drawn_cases`
    tables: Mapping[str, pd.DataFrame]
    | None = None,  # from `contrast_table`; `None`: measured here
) -> list[dict[str, Any]]:  # rows as `bench_row` makes them
    "Contrastive maps beside FinerCAM, RefineCAM, Grad-CAM and random maps, on three worlds of drawings and, where they are at hand, on CUB's photos."
    if tables is None:
        tables = {"drawings": contrast_table(drawn_cases(n=n, folder=folder), quiet)}
        places = [
            os.environ.get(k, "") for k in ("NIWT_CUB_ROOT", "NIWT_XLSA17_ROOT", "NIWT_BACKBONE")
        ]
        if all(places):
            photos = photo_cases(
                places[0], Path(places[1]) / "CUB" / "att_splits.mat", places[2], n=max(2, n // 5)
            )
            tables["photos"] = contrast_table(photos, quiet)
    rows = []
    for place, table in tables.items():
        own = table.set_index("maps")
        for what, sense in SCORES.items():
            for peer in [m for m in own.index if m != OURS]:
                spread = [f"{own.loc[m, f'{what} ±']:.3f}" for m in (OURS, peer)]
                case, better = (
                    f"{place}: {what}, spread {spread[0]} and {spread[1]}",
                    "higher" if sense > 0 else "lower",
                )
                rows.append(
                    bench_row(
                        case,
                        f"{better} is better",
                        "",
                        own.loc[OURS, what],
                        peer,
                        own.loc[peer, what],
                        3,
                    )
                )
    return rows
