"""What do photos show, what did the decision use, and do the names of neurons hold on photos? CUB, three draws of photos, every number beside its control."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.names import name_scores
from benchmarks.scores import some_of_each
from benchmarks.timing import bench_row, register
from niwt_nb.core import NiwtError, progress
from niwt_nb.data.cub import read_cub
from niwt_nb.data.dataset import ZeroShotData
from niwt_nb.data.images import batches
from niwt_nb.explain.explainer import (
    Explainer,
    _measure_seen,
    _presence,
    fit_explainer,
    make_explainer,
)
from niwt_nb.explain.words import _Explanations, explain_images
from niwt_nb.method.mapping import KernelRidgeMap
from niwt_nb.network.backbones import load_backbone
from niwt_nb.network.head import fit_head
from niwt_nb.network.modes import in_own_modes


SAID = "share of the three words of a sentence that hold"


class KeptActivations(nn.Module):
    "A network that goes on from kept activations of its last layer: pooled, then a head."

    layer, channels_last = "kept", False

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.lower, self.tail, self.head = (
            nn.Identity(),
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            head,
        )

    def features(self, x: Tensor) -> Tensor:
        "Activations (B, K, h, w) -> features (B, K)."
        return self.tail(x)

    def forward(self, x: Tensor) -> Tensor:
        "Activations -> scores."
        return self.head(self.tail(x))


@in_own_modes
def kept_photos(
    data: ZeroShotData,  # CUB
    model: str,  # what `load_backbone` takes
    layer: str,  # its last layer with a spatial output
    folder: str | os.PathLike | None = None,  # kept here; `None`: not kept
) -> tuple[
    Tensor, Tensor
]:  # photos (n,), 15 training and 6 test ones of each class, and (n, K, h, w) half-precision activations
    "One pass over the photos, or what is kept of it."
    train, test = (
        some_of_each(data, data.train, 15),
        some_of_each(data, torch.cat([data.test_seen, data.test_unseen]), 6),
    )
    ids = torch.cat([train, test])
    path = None if folder is None else Path(folder) / f"{layer}.pt"
    if path is not None and path.exists():
        kept = torch.load(path)
        if not torch.equal(kept["ids"], ids):
            raise NiwtError(
                f"{os.fspath(path)!r} keeps {len(kept['ids'])} other photos than the {len(ids)} wanted; delete it"
            )
        return ids, kept["acts"]
    backbone = load_backbone(model)
    lower = backbone.cut(layer).lower
    with torch.no_grad():
        acts = torch.cat(
            [
                lower(x.contiguous(memory_format=torch.channels_last)).half()
                for x, _, _ in batches(data, ids, backbone.preprocess, 64)
            ]
        )
    if path is not None:
        torch.save({"ids": ids, "acts": acts}, path)
    return ids, acts


def cub_photos(
    folder: str | os.PathLike | None = None,  # activations are kept here
    layer: str = "features.18",  # last layer with a spatial output
) -> tuple[
    ZeroShotData, Tensor, Tensor, Tensor, Tensor
]:  # CUB, (N,) place of each photo in what is kept, activations, training and test photos
    "CUB's kept photos; raises `NiwtError` where the environment does not say where things are."
    missing = [
        n for n in ("NIWT_CUB_ROOT", "NIWT_XLSA17_ROOT", "NIWT_BACKBONE") if n not in os.environ
    ]
    if missing:
        raise NiwtError(
            f"set {', '.join(missing)} to where the photos, the splits and the network are"
        )
    data = read_cub(
        os.environ["NIWT_CUB_ROOT"], Path(os.environ["NIWT_XLSA17_ROOT"]) / "CUB" / "att_splits.mat"
    )
    ids, acts = kept_photos(data, os.environ["NIWT_BACKBONE"], layer, folder)
    place = torch.full((len(data),), -1)
    place[ids] = torch.arange(len(ids))
    train, test = (
        ids[torch.isin(ids, part)]
        for part in (data.train, torch.cat([data.test_seen, data.test_unseen]))
    )
    return data, place, acts, train, test


@in_own_modes
def whole_head(
    features: Tensor,  # (n, K) of training photos
    labels: Tensor,  # (n,) class ids
    data: ZeroShotData,  # knowledge and split
    offset: float = 0.0,  # added to the scores of unseen classes
) -> nn.Linear:  # K -> C: seen classes, then unseen ones as long as seen ones usually are
    "After the last layer the importance is the weight row itself: fitted for seen classes, mapped from the attributes for unseen ones."
    known, place = data.get_knowledge("attributes"), torch.full((len(data.classes),), -1)
    place[data.seen] = torch.arange(len(data.seen))
    own = fit_head(features, place[labels], len(data.seen))
    rows = torch.as_tensor(
        KernelRidgeMap().fit(known.rows(data.seen), own.weight).predict(known.rows(data.unseen))
    ).float()
    rows = rows * own.weight.norm(dim=1).mean() / rows.norm(dim=1, keepdim=True)
    head = nn.utils.skip_init(
        nn.Linear, features.shape[1], len(own.weight) + len(rows)
    ).requires_grad_(False)
    head.weight.copy_(torch.cat([own.weight, rows]))
    head.bias.copy_(torch.cat([own.bias, own.bias.mean() + offset + torch.zeros(len(rows))]))
    return head


@in_own_modes
def ranking_precision(
    strength: Tensor,  # (n, A)
    truth: Tensor,  # (n, A) bool
) -> Tensor:  # (n,) average precision of each photo's ranking
    "How far up the true attributes stand."
    hits = truth.gather(1, strength.argsort(dim=1, descending=True, stable=True)).float()
    place = torch.arange(1, hits.shape[1] + 1)
    return (hits * hits.cumsum(1) / place).sum(1) / hits.sum(1)


@in_own_modes
def said_first(
    explainer: Explainer,  # that made the explanations
    told: _Explanations,  # of n images
    truth: Tensor,  # (n, A) bool
    n: int = 3,  # words of a sentence
) -> tuple[
    Tensor, Tensor
]:  # (n,) share of these words that hold, NaN where none is said; the same for another photo's words
    "What `sentence` says for the class: the first words whose verdict is *for*."
    sign = told.evidence_sign(explainer).gather(1, told.words) > 0
    first = sign & (sign.cumsum(1) <= n)
    holds = lambda t: (t.gather(1, told.words) & first).sum(1) / first.sum(1)  # noqa: E731
    return holds(truth), holds(
        truth[torch.randperm(len(truth), generator=torch.Generator().manual_seed(0))]
    )


@in_own_modes
def photo_words(
    data: ZeroShotData,  # CUB, its images replaced by their numbers
    kept: tuple[
        Tensor, Tensor, Tensor
    ],  # (N,) place of each photo in what is kept, its activations, test photos (m,)
    train: Tensor,  # (n,) training photos
    seed: int = 0,  # of the shuffled knowledge
) -> dict[tuple[str, str], float]:  # (words, group) -> average precision over that of the commonest
    "Attributes ranked by what the photo shows (the package's), by its two halves and by what was used, beside shuffled knowledge."
    (place, acts, test), labels = kept, data.labels
    features = torch.cat([acts[place[part]].float().mean((2, 3)) for part in train.split(256)])
    known, columns = data.get_knowledge("attributes"), torch.cat([data.seen, data.unseen])
    has = _presence(known.values, known.values[columns])
    network = KeptActivations(whole_head(features, labels[train], data))
    transform = lambda photo: acts[place[photo]].float()  # noqa: E731
    measured = _measure_seen(network, data, transform, columns)
    explainer = make_explainer(network, data.classes, known, measured)
    told = explain_images(explainer, data, test, transform, draws=1)
    wrong = make_explainer(network, data.classes, known.shuffled(seed), measured)
    kinds: dict[str, Tensor] = {}
    for name, e in (("", explainer), (", shuffled", wrong)):
        shown, believed = (
            e.shown(told.features),
            network.head(told.features).softmax(1) @ _presence(e.knowledge).float(),
        )
        halves = {
            "read from features": 2 * shown - believed,
            "believed": believed,
            "what was used": e.read(told.importance),
        }
        kinds |= {
            k + name: v for k, v in ({"shown, the words of the package": shown} | halves).items()
        }
    kinds["used and shown"] = torch.where(told.strength > 0, told.shown, told.shown - 9)
    kinds["recital of the predicted class"] = (
        has[columns[told.row]] + 1e-3 * known.values[columns[told.row]]
    )
    kinds["recital of the true class"] = known.values[labels[test]]
    seen = known.values[data.seen].mean(0)
    common, truth = (
        (has[data.seen].float().mean(0) + 1e-6 * seen).expand(len(test), -1),
        has[labels[test]],
    )
    new, level = torch.isin(labels[test], data.unseen), ranking_precision(common, truth)
    ranked, groups = (
        {k: ranking_precision(v, truth) for k, v in kinds.items()},
        (("seen", ~new), ("unseen", new)),
    )
    table = {
        (k, g): float(r[pick].mean() / level[pick].mean())
        for k, r in ranked.items()
        for g, pick in groups
    }
    ours, others = (said_first(explainer, told, truth)[i] for i in (0, 1))
    right = explainer.columns[told.row] == labels[test]
    for g, pick in (*groups, ("wrongly named", ~right)):
        table |= {
            (f"{SAID}{name}", g): float(v[pick].nanmean())
            for name, v in (("", ours), (", shuffled", others))
        }
    return table


@register("words")
def words_bench(
    quiet: bool = False,  # no progress on the screen
    seeds: int = 3,  # draws of photos
    folder: str | None = None,  # activations are kept here
) -> list[dict[str, Any]]:  # rows as `bench_row` makes them
    "Words on CUB photos (NIWT_CUB_ROOT, NIWT_XLSA17_ROOT, NIWT_BACKBONE): mean and spread over three draws of photos."
    data, place, acts, train, test = cub_photos(folder)
    rows, words = [], []
    for seed in progress(list(range(seeds)), "draws of photos", quiet=quiet):
        few, learn = some_of_each(data, test, 4, seed), some_of_each(data, train, 12, seed)
        mine = ZeroShotData(**{**vars(data), "images": range(len(data)), "train": learn})
        words.append(photo_words(mine, (place, acts, few), learn, seed))
    told = pd.DataFrame(words)
    for kind, group in told.columns:
        other = (f"{kind}, shuffled", group)
        if not kind.endswith("shuffled"):
            control = float(told[other].mean()) if other in told.columns else None
            column = told[(kind, group)]
            case = f"{kind}, {group} photos (spread {column.std(ddof=0):.3f})"
            metric, peer = (
                ("share", "another photo")
                if kind == SAID
                else ("average precision over the commonest", "shuffled")
            )
            rows.append(
                bench_row(case, metric, "", column.mean(), peer if control else "", control, seeds)
            )
    return rows


@register("photo-names")
def photo_names_bench(
    quiet: bool = False,  # no progress on the screen
    seeds: int = 3,  # draws of photos
    folder: str | None = None,  # activations are kept here
) -> list[dict[str, Any]]:  # rows as `bench_row` makes them
    "Names of neurons on CUB photos, without a drawer: mean and spread over three draws of photos."
    data, place, acts, train, test = cub_photos(folder)
    rows, names, transform = [], [], lambda photo: acts[place[photo]].float()
    for seed in progress(list(range(seeds)), "draws of photos", quiet=quiet):
        few, learn = some_of_each(data, test, 4, seed)[::2], some_of_each(data, train, 12, seed)
        mine = ZeroShotData(**{**vars(data), "images": range(len(data)), "train": learn})
        features = torch.cat([transform(part).mean((2, 3)) for part in learn.split(256)])
        network = KeptActivations(whole_head(features, data.labels[learn], mine))
        explainer = fit_explainer(
            network, mine, transform, torch.cat([data.seen, data.unseen]), per_class=4
        )
        names.append(name_scores(explainer, mine, few, transform, seeds=1))
    # a few hundred photos have no top 1 %
    for question in (q for q in names[0] if not q.startswith("rate")):
        held, exchanged = (float(np.mean([n[question][i] for n in names])) for i in (0, 1))
        spread = float(np.std([n[question][0] for n in names]))
        rows.append(
            bench_row(
                f"{question} (spread {spread:.3f})",
                "mean",
                "",
                held,
                "exchanged names",
                exchanged,
                seeds,
            )
        )
    return rows
