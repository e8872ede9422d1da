"""Does a close-up pay? CUB, frozen network: on validation species beside crops by lot and in the middle, and on test species."""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from benchmarks.timing import bench_row, register
from benchmarks.unknown import strangers_table
from niwt_nb.core import NiwtError, atomic_path, content_hash, progress
from niwt_nb.data.cub import read_cub
from niwt_nb.data.dataset import ZeroShotData, first_of_each
from niwt_nb.data.images import batches
from niwt_nb.method.choice import Probe, _choose
from niwt_nb.method.metrics import ausuc
from niwt_nb.method.niwt import NIWT, score_matrix
from niwt_nb.network.backbones import Backbone, at_size, load_backbone
from niwt_nb.network.modes import in_own_modes
from niwt_nb.network.zoom import cropped, place_of, views_of
from niwt_nb.runs.steps import _faster

ROWS = {  # what is looked at, which views of `kept_views` are mixed, and the share of the second
    "whole picture and mirror image": ((0, 0), 0.0),
    "+ random crop": ((0, 2), 0.5),
    "+ crop in the middle": ((0, 3), 0.5),
    "+ close-up, 0.3": ((0, 1), 0.3),
    "+ close-up, 0.5": ((0, 1), 0.5),
    "+ close-up, 0.7": ((0, 1), 0.7),
    "close-up alone": ((0, 1), 1.0),
}


@in_own_modes
def kept_views(
    data: ZeroShotData,  # CUB
    backbone: Backbone,  # frozen, with its preprocessing
    ids: Tensor,  # (n,) photos
    folder: str | os.PathLike | None = None,  # kept here, 256 photos a file; `None`: not kept
    crops: bool = False,  # the crops that are controls, too
    quiet: bool = False,  # no progress
) -> Tensor:  # (n, 2, D) features of whole pictures with their mirror images and of close-ups; (n, 4, D): also of crops at a random place and in the middle
    "One pass over the photos, or what is kept of it."
    two = torch.stack([backbone.preprocess(data.images[int(i)]) for i in ids[:2]])
    network, found = _faster(backbone.cut(None, two), two), []
    for part in progress(ids.split(256), "views", quiet=quiet):
        key = content_hash(part, backbone.name, two.shape[-1], crops)
        path = None if folder is None else Path(folder) / f"views_{key}.pt"
        if path is not None and path.exists():
            found.append(torch.load(path))
            continue
        rows, dice = [], torch.Generator().manual_seed(int(part[0]))
        for x, _, _ in batches(data, part, backbone.preprocess):
            with torch.no_grad():
                a = views_of(network, x, True, True)
                if crops:
                    side = place_of(a[0])[1]
                    far = side[:, None] / 2 + (1 - side[:, None]) * torch.rand(
                        len(x), 2, generator=dice
                    )
                    controls = (
                        cropped(x, place, side) for place in (far, torch.full_like(far, 0.5))
                    )
                    a = torch.cat([a, torch.stack([views_of(network, v)[0] for v in controls])])
                f = network.tail(a.flatten(0, 1)).unflatten(0, a.shape[:2])
                rows.append(torch.stack([f[:2].mean(0), *f[2:]], 1))
        found.append(torch.cat(rows))
        if path is not None:
            with atomic_path(path) as tmp:
                torch.save(found[-1], tmp)
    return torch.cat(found)


def cub_and_network(
    side: int = 288,  # pixels
) -> tuple[ZeroShotData, Backbone]:  # CUB, and the network that takes pictures of that size
    "What the environment names; raises `NiwtError` where it does not."
    names = ("NIWT_CUB_ROOT", "NIWT_XLSA17_ROOT", "NIWT_BACKBONE")
    if missing := [n for n in names if n not in os.environ]:
        raise NiwtError(f"the benchmark needs {', '.join(missing)} in the environment")
    data = read_cub(
        os.environ["NIWT_CUB_ROOT"],
        Path(os.environ["NIWT_XLSA17_ROOT"]) / "CUB" / "att_splits.mat",
        image_attributes=False,
    )
    backbone = load_backbone(os.environ["NIWT_BACKBONE"])
    return data, Backbone(
        backbone.model, at_size(backbone.preprocess, side), "features.18", backbone.name
    )


def cub_views(
    per_class: int
    | None = 12,  # training photos of each seen species, test photos of each unseen one, and a third as many of each seen one; None: all
    side: int = 288,  # pixels
    folder: str | os.PathLike | None = None,  # see `kept_views`
    quiet: bool = False,  # no progress
) -> tuple[
    ZeroShotData, Tensor
]:  # CUB with no other photos in its splits, and features (N, 2, D), zeros for photos that were not looked at
    "CUB with close-ups."
    data, backbone = cub_and_network(side)
    most = [per_class, per_class, None if per_class is None else -(-per_class // 3)]
    splits = {"train": data.seen, "test_unseen": data.unseen, "test_seen": data.seen}
    few = {
        name: first_of_each(data, getattr(data, name), ids, n)
        for (name, ids), n in zip(splits.items(), most, strict=True)
    }
    ids = torch.cat(list(few.values()))
    found = kept_views(data, backbone, ids, folder, quiet=quiet)
    features = found.new_zeros(len(data), *found.shape[1:])
    features[ids] = found
    return replace(data, **few), features


def zoom_table(
    data: ZeroShotData,  # CUB
    ids: Tensor,  # (n,) training photos
    features: Tensor,  # (n, 4, D) of them, see `kept_views`
    kind: str,  # of knowledge
    seeds: int = 3,  # draws of the validation photos
    quiet: bool = False,  # no progress
) -> dict[
    str, list[tuple[float, float]]
]:  # H at the best gamma and AUSUC on the validation species, for each row and seed
    "No ranking, pull 0.3, for all rows alike."
    place, found = torch.full((len(data),), -1), {}  # type: Tensor, dict[str, list[tuple[float, float]]]
    place[ids] = torch.arange(len(ids))
    few = replace(data, train=ids)
    for seed in progress(range(seeds), f"zoom, {kind}", quiet=quiet):
        part = few.validation(seed)
        for row, (views, share) in ROWS.items():
            probe = Probe(None, part, features[place[part.source]][:, views], zoom=share)
            got = _choose(
                NIWT(knowledge=kind), part, probe, grid={"pull": [0.3], "keep": [False]}
            ).table
            found.setdefault(row, []).append((float(got.H[0]), float(got.AUSUC[0])))
    return found


def zoom_test(
    data: ZeroShotData,  # CUB
    features: Tensor,  # (N, 2, D), see `cub_views`
    kind: str,  # of knowledge
    zoom: bool,  # the close-up may be chosen
    seed: int = 0,  # of the validation photos
) -> tuple[dict[str, Any], NIWT]:  # scores, cost and validation H; the fitted model
    "`NIWT` as it comes on the test species; everything was chosen on validation species."
    start = time.process_time()
    model = NIWT(None, knowledge=kind, seed=seed, zoom=zoom).fit(data, features=features)
    got, took = model.score(data, features), time.process_time() - start
    scores, labels = score_matrix(model, data, features)
    row = {name: float(getattr(got, name)) for name in ("T1", "U", "S", "H")}
    row |= {
        "AUSUC": ausuc(scores, labels, data.seen, data.unseen),
        "H, validation": float(model.choice_.table.H.max()),
    }
    return row | {"CPU minutes": took / 60, "share": model.settings_.zoom}, model


@register("zoom")
def bench_zoom(
    quiet: bool = False,  # no progress
    per_class: int = 12,  # training photos of each seen species
    side: int = 288,  # pixels
    seeds: int = 3,  # draws of the validation photos
    folder: str | os.PathLike | None = None,  # features are kept here
) -> list[dict[str, Any]]:  # a row for each row of the table and kind of knowledge
    "H on the validation species with and without a close-up (needs NIWT_CUB_ROOT, NIWT_XLSA17_ROOT, NIWT_BACKBONE)."
    data, backbone = cub_and_network(side)
    ids = first_of_each(data, data.train, data.seen, per_class)
    features, rows = kept_views(data, backbone, ids, folder, True, quiet), []
    for kind in ("attributes", "captions"):
        found = {
            row: torch.tensor(v).T
            for row, v in zoom_table(data, ids, features, kind, seeds, quiet).items()
        }
        first, *_ = found
        for i, metric in enumerate(("H on validation species", "AUSUC on validation species")):
            rows += [
                bench_row(
                    f"{kind}: {row}",
                    metric,
                    "",
                    float(v[i].mean()),
                    first,
                    float(found[first][i].mean()),
                    v.shape[1],
                )
                for row, v in found.items()
            ]
    return rows


@register("zoom-test")
def bench_zoom_test(
    quiet: bool = False,  # no progress
    per_class: int | None = None,  # see `cub_views`
    seeds: int = 3,  # of the validation photos
    kinds: Sequence[str] = ("attributes", "captions", "attributes+captions"),  # of knowledge
    folder: str | os.PathLike | None = None,  # features are kept here
) -> list[
    dict[str, Any]
]:  # with the close-up beside the whole picture; then strangers, our measure beside others
    "Test species with and without a close-up, and strangers among them (needs what `zoom` needs)."
    data, features = cub_views(per_class, folder=folder, quiet=quiet)
    rows: list[dict[str, Any]] = []
    for kind in progress(kinds, "zoom-test", quiet=quiet):
        found: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
        tables = []
        for seed in range(seeds):
            for zoom, side in found.items():
                row, model = zoom_test(data, features, kind, zoom, seed)
                side.append(row)
                tables += [strangers_table(model, data, features=features)[0]] if zoom else []
        a, b = (pd.DataFrame(side).mean() for side in found.values())
        rows += [
            bench_row(kind, name, "", a[name], "whole picture", b[name], seeds) for name in a.index
        ]
        strange = pd.concat(tables).groupby(level=0, sort=False).mean()
        for column in strange:
            peer = strange[column].drop("stands out")
            best = peer.idxmin() if column.startswith("FPR") else peer.idxmax()
            rows.append(
                bench_row(
                    kind, column, "", strange[column]["stands out"], str(best), peer[best], seeds
                )
            )
    return rows
