"""No photo at all: rows of new classes from a head's rows and descriptions alone, NIWT's map beside ICIS, settings by left-out rows.

Then once more with one number that photos of validation classes decide: how long new rows are.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from sklearn.model_selection import ParameterGrid
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.timing import bench_row, register
from benchmarks.zoom import cub_views
from niwt_nb.core import progress, seeded
from niwt_nb.data.dataset import ZeroShotData
from niwt_nb.evaluate.heads import _ICIS
from niwt_nb.method.choice import Probe, Settings
from niwt_nb.method.mapping import KernelRidgeMap
from niwt_nb.method.metrics import ausuc, gzsl, head_scores
from niwt_nb.method.ranking import Scaler
from niwt_nb.network.head import extend, rows_of

# knowledge (S, A) and rows (S, D) of classes that the head knows, knowledge (U, A) of others,
# settings -> rows (U, D)
Rows = Callable[..., Tensor]


def mapped_rows(
    k: Tensor,  # (S, A) scaled knowledge
    rows: Tensor,  # (S, D) of the head
    new: Tensor,  # (U, A) scaled knowledge of other classes
    alpha: float = 0.3,  # damping, see `KernelRidgeMap`
    width: float = 3.0,  # of its kernel
) -> Tensor:  # (U, D), from the mean row on as long as seen rows are
    "NIWT's map at the last layer, where importance is the row: what sets a class apart from the mean is what its description says."
    mean = rows.mean(0)
    told = KernelRidgeMap(alpha, "rbf", width).fit(k, rows - mean).predict(new)
    return mean + F.normalize(torch.as_tensor(told).float()) * (rows - mean).norm(dim=1).mean()


def icis_rows(
    k: Tensor,  # (S, A) scaled knowledge
    rows: Tensor,  # (S, D) of the head
    new: Tensor,  # (U, A) scaled knowledge of other classes
    epochs: int = 50,  # passes over the classes
    seed: int = 0,  # initial weights and order of the classes
) -> Tensor:  # (U, D)
    "The rows that ICIS decodes from knowledge, see `_ICIS`."
    rival = _ICIS(epochs=epochs, seed=seed)
    with seeded(seed):
        rival._fit_rows(k, rows)
    return rival._rows(new).detach()


METHODS: dict[str, tuple[Rows, dict[str, list[Any]]]] = {
    "NIWT": (mapped_rows, {"alpha": [0.1, 0.3, 1.0, 3.0], "width": [1.0, 3.0, 10.0, 30.0]}),
    "ICIS": (icis_rows, {"epochs": [25, 50, 100]}),
}
# of new rows around the mean row, as shares of what they are
LENGTHS = (0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1, 1.2)


def left_out(
    predict: Rows,
    k: Tensor,  # (S, A) scaled knowledge
    rows: Tensor,  # (S, D) of the head
    folds: int = 5,  # each class is left out once
    **settings: Any,  # of `predict`
) -> Tensor:  # (S, D)
    "Each row as the other classes tell it."
    fold, found = torch.arange(len(k)) % folds, torch.empty_like(rows)
    for i in range(folds):
        found[fold == i] = predict(k[fold != i], rows[fold != i], k[fold == i], **settings)
    return found


def choose_rows(
    predict: Rows,
    grid: Mapping[str, Sequence[Any]],  # setting -> values to try
    k: Tensor,  # (S, A) scaled knowledge
    rows: Tensor,  # (S, D) of the head
) -> tuple[dict[str, Any], float]:  # settings, and the agreement that they reach
    "Settings whose left-out rows agree best (cosine around the mean row) with those of the head; no photo, no other class."
    mean = rows.mean(0)
    found = []
    for p in ParameterGrid(dict(grid)):
        rest = left_out(predict, k, rows, **p) - mean
        found.append((float(torch.cosine_similarity(rest, rows - mean).mean()), p))
    best = max(found, key=lambda pair: pair[0])
    return best[1], best[0]


def told_rows(
    name: str,  # of the method
    data: ZeroShotData,
    head: nn.Linear,  # of the seen classes
    kind: str,  # of knowledge
    seeds: int = 1,  # of what is drawn by lot
) -> tuple[list[Tensor], dict[str, float]]:  # rows (U, D) for each seed; settings and `agreement`
    "Rows of the unseen classes from the head and descriptions, settings chosen on left-out rows."
    known, (predict, grid) = data.get_knowledge(kind), METHODS[name]
    scaler = Scaler("centre").fit(known.rows(data.seen))
    k, new = (scaler.transform(known.rows(ids)).float() for ids in (data.seen, data.unseen))
    rows = head.weight.detach()
    chosen, agreement = choose_rows(predict, grid, k, rows)
    lots: list[dict[str, Any]] = [{"seed": s} if name == "ICIS" else {} for s in range(seeds)]
    told = [predict(k, rows, new, **chosen, **lot) for lot in lots]
    return told, {"agreement": agreement, **{n: float(v) for n, v in chosen.items()}}


def scored(
    data: ZeroShotData,
    head: nn.Linear,  # of the seen classes
    features: Tensor,  # (m, D) of the test images, seen ones first, as the head reads them
    new: Tensor,  # (U, D) rows of the unseen classes
    length: float = 1.0,  # of what sets them apart from the mean row, as a share of what it is
) -> dict[str, float]:  # T1, U, S, H, AUSUC
    "How well a head with new rows names the test images; the new classes have the mean bias."
    mean, columns = head.weight.detach().mean(0), torch.cat([data.seen, data.unseen])
    bias = head.bias.detach().mean().expand(len(new))
    whole = extend(head, mean + length * (new - mean), bias)
    scores = head_scores(features, whole, columns, len(data.classes))
    labels = data.labels[torch.cat([data.test_seen, data.test_unseen])]
    got = gzsl(scores, labels, data.seen, data.unseen)
    row = {metric: float(getattr(got, metric)) for metric in ("T1", "U", "S", "H")}
    return row | {"AUSUC": ausuc(scores, labels, data.seen, data.unseen)}


def choose_lengths(
    data: ZeroShotData,  # `validation()` of the whole
    head: nn.Linear,  # of its seen classes
    features: Tensor,  # (m, D) of its test images
    kind: str,  # of knowledge
) -> dict[str, float]:  # method -> the length of new rows with the highest H
    "The one number that photos may decide: how long new rows are, by photos of validation classes."
    chosen = {}
    for name in METHODS:
        (told,), _ = told_rows(name, data, head, kind)
        found = {z: scored(data, head, features, told, z)["H"] for z in LENGTHS}
        chosen[name] = max(found, key=found.__getitem__)
    return chosen


def image_free(
    data: ZeroShotData,  # its photos make the head and test the new rows, nothing else
    head: nn.Linear,  # of the seen classes
    features: Tensor,  # (m, D) of the test images, seen ones first, as the head reads them
    kind: str,  # of knowledge
    seeds: int = 3,  # of what is drawn by lot
    lengths: Sequence[Mapping[str, float]] = ({},),  # each from `choose_lengths`; {}: as they are
) -> list[dict[str, list[dict[str, float]]]]:  # for each: method -> for each seed T1, U, ..., AUSUC
    "New rows from the head and descriptions: NIWT's map, ICIS, and the map with descriptions shuffled between the new classes."
    told, about = {}, {}
    for name in METHODS:
        told[name], about[name] = told_rows(name, data, head, kind, seeds)
    lots = [torch.Generator().manual_seed(s) for s in range(seeds)]
    wrong = [
        new[torch.randperm(len(new), generator=g)]
        for new, g in zip(told["NIWT"], lots, strict=True)
    ]
    every = {
        "NIWT": (told["NIWT"], "NIWT"),
        "shuffled": (wrong, "NIWT"),
        "ICIS": (told["ICIS"], "ICIS"),
    }
    return [
        {
            name: [scored(data, head, features, new, z.get(of, 1.0)) | about[of] for new in rows]
            for name, (rows, of) in every.items()
        }
        for z in lengths
    ]


@register("image-free")
def bench_image_free(
    quiet: bool = False,  # no progress
    per_class: int | None = None,  # see `cub_views`
    seeds: int = 3,  # of ICIS and of the shuffled control
    folder: str | os.PathLike | None = None,  # features are kept here
) -> list[dict[str, Any]]:  # NIWT beside ICIS, then beside shuffled descriptions
    "New classes from head rows and descriptions alone, no photo: NIWT's map beside ICIS (needs what `zoom` needs)."
    data, features = cub_views(per_class, folder=folder, quiet=quiet)
    return image_free_rows(data, features[:, 0], seeds, quiet)


def image_free_rows(
    data: ZeroShotData,
    features: Tensor,  # (N, D) of all its images
    seeds: int = 3,  # of ICIS and of the shuffled control
    quiet: bool = False,  # no progress
) -> list[dict[str, Any]]:  # rows as they come, then as long as validation photos say
    "The table of `bench_image_free`."
    val, rows = data.validation(), []  # type: ZeroShotData, list[dict[str, Any]]
    heads = []
    for part, own in ((val, features[rows_of(val, data)]), (data, features)):
        probe = Probe(None, part, own)
        looked = probe.look(torch.cat([part.test_seen, part.test_unseen]))
        heads.append((part, probe.head(Settings()), looked))
    for kind in progress(("attributes", "captions"), "image-free", quiet=quiet):
        chosen = choose_lengths(*heads[0], kind)
        both = image_free(*heads[1], kind, seeds, ({}, chosen))
        for case, found in zip((kind, f"{kind}, length by photos"), both, strict=True):
            mean = {name: pd.DataFrame(runs).mean() for name, runs in found.items()}
            for peer in ("ICIS", "shuffled"):
                metrics = ("T1", "U", "S", "H", "AUSUC", *(["agreement"] if peer == "ICIS" else []))
                rows += [
                    bench_row(case, m, "", mean["NIWT"][m], peer, mean[peer][m], seeds)
                    for m in metrics
                ]
        rows.append(bench_row(case, "length", "", chosen["NIWT"], "ICIS", chosen["ICIS"]))
    return rows
