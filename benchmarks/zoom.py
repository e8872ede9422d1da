"""Does a close-up pay? CUB, frozen network, validation species: whole picture, crops by lot and in the middle, close-ups."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import bench_row, register
from niwt_nb.core import NiwtError, atomic_path, progress
from niwt_nb.data.cub import read_cub
from niwt_nb.data.dataset import ZeroShotData, first_of_each
from niwt_nb.data.images import batches
from niwt_nb.method.choice import Probe, choose_with
from niwt_nb.method.niwt import NIWT
from niwt_nb.network.backbones import Backbone, at_size, load_backbone
from niwt_nb.network.modes import in_own_modes
from niwt_nb.network.zoom import cropped, looks, place_of

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
    path: str | os.PathLike | None = None,  # kept here; `None`: not kept
    quiet: bool = False,  # no progress
) -> Tensor:  # (n, 4, D) features of the whole picture with its mirror image, of the close-up, and of crops as large at a random place and in the middle
    "One pass over the photos, or what is kept of it."
    if path is not None and Path(path).exists():
        kept = torch.load(path)
        if not torch.equal(kept["ids"], ids):
            raise NiwtError(f"{os.fspath(path)!r} keeps {len(kept['ids'])} other photos than the {len(ids)} wanted; delete it")
        return kept["features"]
    network = backbone.cut(None, torch.stack([backbone.preprocess(data.images[int(i)]) for i in ids[:2]]))
    found, dice = [], torch.Generator().manual_seed(0)
    for x, _, _ in batches(data, ids, backbone.preprocess, quiet=quiet, desc="views"):
        with torch.no_grad():
            side = place_of(network.activations(x))[1]
            far = side[:, None] / 2 + (1 - side[:, None]) * torch.rand(len(x), 2, generator=dice)
            others = [looks(network, cropped(x, place, side)) for place in (far, torch.full_like(far, 0.5))]
            found.append(torch.cat([looks(network, x, True, True), torch.stack(others, 1)], 1))
    features = torch.cat(found)
    if path is not None:
        with atomic_path(path) as tmp:
            torch.save({"ids": ids, "features": features}, tmp)
    return features


def zoom_table(
    data: ZeroShotData,  # CUB
    ids: Tensor,  # (n,) training photos
    features: Tensor,  # (n, 4, D) of them, see `kept_views`
    kind: str,  # of knowledge
    seeds: int = 3,  # draws of the validation photos
    quiet: bool = False,  # no progress
) -> dict[str, list[tuple[float, float]]]:  # H at the best gamma and AUSUC on the validation species, for each row and seed
    "No ranking, pull 0.3, for all rows alike."
    place, found = torch.full((len(data),), -1), {}  # type: Tensor, dict[str, list[tuple[float, float]]]
    place[ids] = torch.arange(len(ids))
    few = ZeroShotData(**{**vars(data), "train": ids})
    for seed in progress(range(seeds), f"zoom, {kind}", quiet=quiet):
        part = few.validation(seed)
        for row, (views, share) in ROWS.items():
            probe = Probe(None, part, features[place[part.source]][:, views], zoom=share)
            got = choose_with(NIWT(knowledge=kind), part, probe, grid={"pull": [0.3], "keep": [False]}).table
            found.setdefault(row, []).append((float(got.H[0]), float(got.AUSUC[0])))
    return found


@register("zoom")
def bench_zoom(
    quiet: bool = False,  # no progress
    per_class: int = 12,  # training photos of each seen species
    side: int = 288,  # pixels
    path: str | os.PathLike | None = None,  # features are kept here
) -> list[dict[str, Any]]:  # a row for each row of the table and kind of knowledge
    "H on the validation species with and without a close-up (needs NIWT_CUB_ROOT, NIWT_XLSA17_ROOT, NIWT_BACKBONE)."
    names = ("NIWT_CUB_ROOT", "NIWT_XLSA17_ROOT", "NIWT_BACKBONE")
    if missing := [n for n in names if n not in os.environ]:
        raise NiwtError(f"the benchmark needs {', '.join(missing)} in the environment")
    data = read_cub(os.environ["NIWT_CUB_ROOT"], Path(os.environ["NIWT_XLSA17_ROOT"]) / "CUB" / "att_splits.mat")
    backbone = load_backbone(os.environ["NIWT_BACKBONE"])
    sized = Backbone(backbone.model, at_size(backbone.preprocess, side), "features.18", backbone.name)
    ids = first_of_each(data, data.train, data.seen, per_class)
    features, rows = kept_views(data, sized, ids, path, quiet), []
    for kind in ("attributes", "captions"):
        found = {row: torch.tensor(v).T for row, v in zoom_table(data, ids, features, kind, quiet=quiet).items()}
        first, *_ = found
        for i, metric in enumerate(("H on validation species", "AUSUC on validation species")):
            rows += [bench_row(f"{kind}: {row}", metric, "", float(v[i].mean()), first, float(found[first][i].mean()), v.shape[1]) for row, v in found.items()]
    return rows
