"""No photo at all: rows of new classes from the head's rows and descriptions alone. NIWT's map beside ICIS, settings chosen on left-out rows."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
from niwt_nb.network.head import extend

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


def image_free(
    data: ZeroShotData,  # its photos make the head and test the new rows, nothing else
    head: nn.Linear,  # of the seen classes
    features: Tensor,  # (m, D) of the test images, seen ones first, as the head reads them
    kind: str,  # of knowledge
    seeds: int = 3,  # of what is drawn by lot
) -> dict[
    str, list[dict[str, float]]
]:  # method -> for each seed T1, U, S, H, AUSUC, and `agreement` on left-out rows
    "New rows from the head and descriptions: NIWT's map, ICIS, and the map with descriptions shuffled between the new classes."
    known, columns = data.get_knowledge(kind), torch.cat([data.seen, data.unseen])
    scaler = Scaler("centre").fit(known.rows(data.seen))
    k, new = (scaler.transform(known.rows(ids)).float() for ids in (data.seen, data.unseen))
    rows, bias = head.weight.detach(), head.bias.detach().mean().expand(len(new))
    labels, found = data.labels[torch.cat([data.test_seen, data.test_unseen])], {}  # type: Tensor, dict[str, list[dict[str, float]]]
    for name, (predict, grid) in METHODS.items():
        chosen, agreement = choose_rows(predict, grid, k, rows)
        for seed in range(seeds):
            told = predict(k, rows, new, **chosen, **({"seed": seed} if name == "ICIS" else {}))
            lot = torch.randperm(len(new), generator=torch.Generator().manual_seed(seed))
            for label, written in (
                {name: told} | ({"shuffled": told[lot]} if name == "NIWT" else {})
            ).items():
                scores = head_scores(
                    features, extend(head, written, bias), columns, len(data.classes)
                )
                got = gzsl(scores, labels, data.seen, data.unseen)
                row = {metric: float(getattr(got, metric)) for metric in ("T1", "U", "S", "H")}
                row |= {
                    "AUSUC": ausuc(scores, labels, data.seen, data.unseen),
                    "agreement": agreement,
                } | {n: float(v) for n, v in chosen.items()}
                found.setdefault(label, []).append(row)
    return found


@register("image-free")
def bench_image_free(
    quiet: bool = False,  # no progress
    per_class: int | None = None,  # see `cub_views`
    seeds: int = 3,  # of ICIS and of the shuffled control
    folder: str | os.PathLike | None = None,  # features are kept here
) -> list[dict[str, Any]]:  # NIWT beside ICIS, then beside shuffled descriptions
    "New classes from head rows and descriptions alone, no photo: NIWT's map beside ICIS (needs what `zoom` needs)."
    data, features = cub_views(per_class, folder=folder, quiet=quiet)
    probe, rows = Probe(None, data, features[:, 0]), []  # type: Probe, list[dict[str, Any]]
    head, x = probe.head(Settings()), probe.look(torch.cat([data.test_seen, data.test_unseen]))
    for kind in progress(("attributes", "captions"), "image-free", quiet=quiet):
        found = image_free(data, head, x, kind, seeds)
        mean = lambda name, metric: sum(row[metric] for row in found[name]) / seeds  # noqa: B023, E731
        for peer in ("ICIS", "shuffled"):
            metrics = ("T1", "U", "S", "H", "AUSUC", *(["agreement"] if peer == "ICIS" else []))
            rows += [
                bench_row(kind, m, "", mean("NIWT", m), peer, mean(peer, m), seeds) for m in metrics
            ]
    return rows
