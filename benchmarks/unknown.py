"""How well strangers are told from the known: species without a name, and boats; our measure beside the usual ones."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from niwt_nb.data.dataset import ZeroShotData
from niwt_nb.method.niwt import NIWT, features_to_score, score_matrix
from niwt_nb.method.unknown import calibration_error, certainty, detection, known_doubt, reliability


def boat(
    seed: int,  # of colours and shape
    side: int = 64,  # pixels
) -> Image.Image:  # a boat with one sail
    "Draw something that is no bird."
    rng = np.random.default_rng(seed)
    sky, sea, sail, hull = (tuple(c.tolist()) for c in rng.integers(0, 256, (4, 3)))
    left, right = rng.integers(4, 16), rng.integers(46, 60)
    mast, picture = int(left + right) // 2, Image.new("RGB", (64, 64), sky)
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 46, 64, 64), fill=sea)
    pen.line((mast, 8, mast, 40), fill=hull, width=2)
    pen.polygon([(mast + 2, 10), (mast + 2, 36), (right - 2, 36)], fill=sail)
    pen.polygon([(left, 40), (right, 40), (right - 7, 52), (left + 7, 52)], fill=hull)
    return picture.resize((side, side), Image.Resampling.NEAREST)


def mahalanobis(
    features: Tensor,  # (n, D) of training images
    labels: Tensor,  # (n,) their classes
    shrink: float = 0.1,  # share of the mean variance that is added to every direction
) -> Callable[
    [Tensor], Tensor
]:  # features (m, D) -> minus the distance (m,) to the nearest class mean
    "The distance of Lee and others (NeurIPS 2018): class means, one covariance; new classes have no photos and so no mean."
    x, (ids, rows) = features.double(), labels.unique(return_inverse=True)
    means = torch.stack([x[rows == i].mean(0) for i in range(len(ids))])
    cov = torch.cov((x - means[rows]).T, correction=0)
    cov += shrink * cov.trace() / len(cov) * torch.eye(len(cov), dtype=cov.dtype)
    root = torch.linalg.cholesky(torch.linalg.inv(cov))
    return lambda y: -torch.cdist(y.double() @ root, means @ root).amin(1)


MEASURES: dict[str, Callable[[Tensor], Tensor]] = {
    "stands out": certainty,
    "probability": lambda s: s.softmax(1).amax(1),
    "energy": lambda s: s.logsumexp(1),
    "best score": lambda s: s.amax(1),
}


def strangers_table(
    model: NIWT,  # fitted here, with validation classes
    data: ZeroShotData,  # that it was fitted on
    others: Tensor
    | None = None,  # (k, D) features of pictures of something else, as the head reads them
    draws: int = 10,  # of half of the unseen classes, which lose their names
    features: Tensor | None = None,  # see `features_to_score`
) -> tuple[
    pd.DataFrame, dict[str, float]
]:  # AUROC and FPR95 of each measure, means over the draws; what the threshold does, and errors of probabilities
    "Strangers among the test images, whose classes were not among those that thresholds were chosen on."
    doubt, ids = known_doubt(model.doubt_), torch.cat([data.seen, data.unseen])
    scores, labels = score_matrix(model, data, features)
    scores, place = scores[:, ids].double(), torch.full((len(data.classes),), -1)
    place[ids] = torch.arange(len(ids))
    rows, x, n = place[labels], features_to_score(model, data, features), len(data.seen)
    away = torch.zeros(0, x.shape[1]) if others is None else others
    foreign = model.scores_of(away)[:, : len(ids)].double()
    seen = model.writer_.seen
    far = mahalanobis(seen.features, seen.rows)
    near, off = far(x), far(away)
    level, found, told = (
        float(np.interp(doubt.share(), np.linspace(0, 1, 101), doubt.strangers)),
        [],
        [],
    )
    for seed in range(draws):
        lost = (
            n
            + torch.randperm(len(data.unseen), generator=torch.Generator().manual_seed(seed))[
                : len(data.unseen) // 2
            ]
        )
        keep, strange = ~torch.isin(torch.arange(len(ids)), lost), torch.isin(rows, lost)
        astray = {name: f(foreign[:, keep]) if len(away) else off for name, f in MEASURES.items()}
        values = {name: (f(scores[:, keep]), astray[name]) for name, f in MEASURES.items()} | {
            "Mahalanobis": (near, off)
        }
        for name, (here, there) in values.items():
            pairs = {"strangers": here[strange]} | ({"others": there} if len(away) else {})
            areas = {k: detection(here[~strange], v) for k, v in pairs.items()}
            found.append(
                {"measure": name}
                | {
                    f"{what}, {k}": a[i]
                    for k, a in areas.items()
                    for i, what in enumerate(("AUROC", "FPR95"))
                }
            )
        sure, gone = values["stands out"]
        told.append(
            {
                "strangers refused": (sure[strange] < level).double().mean(),
                "known refused": (sure[~strange] < level).double().mean(),
            }
        )
        told[-1] |= {"others refused": (gone < level).double().mean()} if len(away) else {}
    about = {k: float(v) for k, v in pd.DataFrame(told).astype(float).mean().items()} | {
        "share asked": doubt.share()
    }
    for name, t in (("error before", 1.0), ("error after", doubt.temperature)):
        about[name] = calibration_error(reliability((scores / t).softmax(1), rows))
    return pd.DataFrame(found).groupby("measure", sort=False).mean(), about
