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
from niwt_nb.explain.explainer import _presence, fit_explainer
from niwt_nb.explain.words import explain_images
from niwt_nb.method.mapping import KernelRidgeMap
from niwt_nb.network.backbones import load_backbone
from niwt_nb.network.head import fit_head
from niwt_nb.network.modes import in_own_modes


class KeptActivations(nn.Module):
    "A network that goes on from kept activations of its last layer: pooled, then a head."

    layer, channels_last = "kept", False

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.lower, self.tail, self.head = nn.Identity(), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), head

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
    path: str | os.PathLike | None = None,  # kept here; `None`: not kept
) -> tuple[Tensor, Tensor]:  # photos (n,), 15 training and 6 test ones of each class, and (n, K, h, w) half-precision activations
    "One pass over the photos, or what is kept of it."
    train, test = some_of_each(data, data.train, 15), some_of_each(data, torch.cat([data.test_seen, data.test_unseen]), 6)
    ids = torch.cat([train, test])
    if path is not None and Path(path).exists():
        kept = torch.load(path)
        if not torch.equal(kept["ids"], ids):
            raise NiwtError(f"{os.fspath(path)!r} keeps {len(kept['ids'])} other photos than the {len(ids)} wanted; delete it")
        return ids, kept["acts"]
    backbone = load_backbone(model)
    lower = backbone.cut(layer).lower
    with torch.no_grad():
        acts = torch.cat([lower(x.contiguous(memory_format=torch.channels_last)).half() for x, _, _ in batches(data, ids, backbone.preprocess, 64)])
    if path is not None:
        torch.save({"ids": ids, "acts": acts}, path)
    return ids, acts


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
    rows = torch.as_tensor(KernelRidgeMap().fit(known.rows(data.seen), own.weight).predict(known.rows(data.unseen))).float()
    rows = rows * own.weight.norm(dim=1).mean() / rows.norm(dim=1, keepdim=True)
    head = nn.utils.skip_init(nn.Linear, features.shape[1], len(own.weight) + len(rows)).requires_grad_(False)
    head.weight.copy_(torch.cat([own.weight, rows]))
    head.bias.copy_(torch.cat([own.bias, own.bias.mean() + offset + torch.zeros(len(rows))]))
    return head


@in_own_modes
def readout(
    features: Tensor,  # (n, K) of training photos
    shows: Tensor,  # (n, A) what they are taken to show
    alpha: float = 1.0,  # strength of the ridge, times K
) -> tuple[Tensor, Tensor]:  # (K, A) weights and (A,) offsets
    "Ridge regression from standardised features, solved on the side of the photos."
    mean, spread = features.mean(0), features.std(0).clamp_min(1e-6)
    x, y = ((features - mean) / spread).double(), shows.double()
    gram = x @ x.T + alpha * x.shape[1] * torch.eye(len(x), dtype=torch.float64)
    weight = x.T @ torch.linalg.solve(gram, y - y.mean(0)) / spread.double()[:, None]
    return weight.float(), (y.mean(0) - mean.double() @ weight).float()


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
def photo_words(
    data: ZeroShotData,  # CUB, its images replaced by their numbers
    kept: tuple[Tensor, Tensor, Tensor],  # (N,) place of each photo in what is kept, its activations, test photos (m,)
    train: Tensor,  # (n,) training photos
    seed: int = 0,  # of the shuffled knowledge
) -> tuple[dict[tuple[str, str], float], Any, nn.Module]:  # (words, group) -> average precision over that of the commonest; explainer, network
    "Rankings of the attributes by what the decision used, by what the photo shows, and by both, beside the same with shuffled knowledge."
    (place, acts, test), labels = kept, data.labels
    pooled = lambda photos: torch.cat([acts[place[part]].float().mean((2, 3)) for part in photos.split(256)])  # noqa: E731
    features, shown = pooled(train), pooled(test)
    known, columns = data.get_knowledge("attributes").values, torch.cat([data.seen, data.unseen])
    has = _presence(known, known[data.seen]).float()
    network = KeptActivations(whole_head(features, labels[train], data))
    transform = lambda photo: acts[place[photo]].float()  # noqa: E731
    explainer = fit_explainer(network, data, transform, columns, per_class=4)
    told = explain_images(explainer, data, test, transform, draws=1)
    belief = network(acts[place[test]].float()).softmax(1)
    mixed = has[torch.randperm(len(has), generator=torch.Generator().manual_seed(seed))]

    def read(facts: Tensor) -> dict[str, Tensor]:
        weight, offset = readout(features, facts[labels[train]])
        seen, believed = shown @ weight + offset, belief @ facts[columns]
        return {"read from features": seen, "believed": believed, "read and believed": seen + believed}

    kinds = {"NIWT, what was used": told.strength, **read(has), **{f"{k}, shuffled": v for k, v in read(mixed).items()}}
    wrong = fit_explainer(network, data, transform, columns, knowledge=data.get_knowledge("attributes").shuffled(seed), per_class=4)
    kinds |= {"NIWT, what was used, shuffled": wrong.read(told.importance)}
    kinds |= {"recital of the predicted class": has[columns[told.row]] + 1e-3 * known[columns[told.row]]}
    kinds |= {"used and shown": torch.where(told.strength > 0, kinds["read and believed"], kinds["read and believed"] - 1)}
    kinds |= {"recital of the true class": known[labels[test]]}
    common, truth = (has[data.seen].mean(0) + 1e-6 * known[data.seen].mean(0)).expand(len(test), -1), has[labels[test]].bool()
    new = torch.isin(labels[test], data.unseen)
    level = ranking_precision(common, truth)
    ranked = {k: ranking_precision(s, truth) for k, s in kinds.items()}
    table = {(k, g): float(r[pick].mean() / level[pick].mean()) for k, r in ranked.items() for g, pick in (("seen", ~new), ("unseen", new))}
    return table, explainer, transform  # type: ignore[return-value]


@register("words")
def words_bench(
    quiet: bool = False,  # no progress on the screen
    seeds: int = 3,  # draws of photos
    path: str | None = None,  # activations are kept here
) -> list[dict[str, Any]]:  # rows as `bench_row` makes them
    "Words and neuron names on CUB photos (NIWT_CUB_ROOT, NIWT_XLSA17_ROOT, NIWT_BACKBONE): mean and spread over three draws of photos."
    missing = [n for n in ("NIWT_CUB_ROOT", "NIWT_XLSA17_ROOT", "NIWT_BACKBONE") if n not in os.environ]
    if missing:
        raise NiwtError(f"set {', '.join(missing)} to where the photos, the splits and the network are")
    data = read_cub(os.environ["NIWT_CUB_ROOT"], Path(os.environ["NIWT_XLSA17_ROOT"]) / "CUB" / "att_splits.mat")
    ids, acts = kept_photos(data, os.environ["NIWT_BACKBONE"], "features.18", path)
    place = torch.full((len(data),), -1)
    place[ids] = torch.arange(len(ids))
    train, test = (ids[torch.isin(ids, part)] for part in (data.train, torch.cat([data.test_seen, data.test_unseen])))
    data = ZeroShotData(**{**vars(data), "images": range(len(data)), "train": train})
    words, names = [], []
    for seed in progress(list(range(seeds)), "draws of photos", quiet=quiet):
        few = some_of_each(data, test, 4, seed)
        learn = some_of_each(data, train, 12, seed)
        mine = ZeroShotData(**{**vars(data), "train": learn})
        table, explainer, transform = photo_words(mine, (place, acts, few), learn, seed)
        words.append(table)
        names.append(name_scores(explainer, mine, few[::2], transform, seeds=1))
    rows, told = [], pd.DataFrame(words)
    for kind, group in told.columns:
        other = (f"{kind}, shuffled", group)
        if not kind.endswith("shuffled"):
            control = float(told[other].mean()) if other in told.columns else None
            column = told[(kind, group)]
            case = f"{kind}, {group} photos (spread {column.std(ddof=0):.3f})"
            rows.append(bench_row(case, "average precision over the commonest", "", column.mean(), "shuffled" if control else "", control, seeds))
    for question in (q for q in names[0] if not q.startswith("rate")):  # a few hundred photos have no top 1 %
        held, exchanged = (float(np.mean([n[question][i] for n in names])) for i in (0, 1))
        spread = float(np.std([n[question][0] for n in names]))
        rows.append(bench_row(f"names, {question} (spread {spread:.3f})", "mean", "", held, "exchanged names", exchanged, seeds))
    return rows
