"""Do claims hold? Words against a class, words that tell it from another, and the neurons without which the answer turns: drawings, three worlds."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from benchmarks.explanations import score_verdicts
from benchmarks.scores import field_guide_case
from benchmarks.timing import bench_row, register
from niwt_nb.core import progress
from niwt_nb.explain.contrast import _telling_words, _turning_neurons
from niwt_nb.explain.explainer import Explainer, fit_explainer
from niwt_nb.explain.maps import layer_activations
from niwt_nb.explain.scores import image_truth
from niwt_nb.explain.words import _Explanations, explain_batch, explain_images
from niwt_nb.figures.explanation import _explainer_of
from niwt_nb.method.niwt import NIWT
from niwt_nb.network.backbones import field_guide_transform, load_backbone

LIMIT = -9.0  # of words against a class that was never shown


def words_against(
    explainer: Explainer,  # that made the explanations
    told: _Explanations,  # of test images
    data: Any,  # `ZeroShotData`
    limits: Sequence[float] = (-3, -6, -9),  # log-odds
) -> dict[tuple[str, float], float]:  # ("holds", "control" or "per drawing", limit) -> value
    "Words against unseen species at several limits."
    found: dict[tuple[str, float], float] = {}
    for limit in limits:
        moved = replace(told, found=told.found + LIMIT - limit)
        row = (
            score_verdicts(explainer, moved, data)
            .set_index(["group", "verdict"])
            .loc[("unseen", "against")]
        )
        found |= {
            ("holds", limit): row["right"],
            ("control", limit): row["control"],
            ("per drawing", limit): row["per_image"],
        }
    return found


def contrast_claims(
    model: NIWT,  # fitted on the data set
    data: Any,  # `ZeroShotData` whose images' attributes are known
    indices: Tensor,  # (n,) test images
) -> tuple[
    pd.DataFrame, pd.DataFrame
]:  # a row a word: image, group, used, holds; a row an image: turns, neurons, by lot
    "Every word that might tell the answer from the runner-up, tested; and the neurons without which the answer turns."
    explainer, words, turns = _explainer_of(model), [], []
    truth = image_truth(explainer, data, indices)
    for k, i in enumerate(indices.tolist()):
        x = model.preprocess_(data.images[i])[None]
        scores = model.decision_function(x)[0]
        first, second = scores.topk(2).indices.tolist()
        views = torch.cat([x, x.flip(3)][: 2 if model.mirrored_ else 1])
        a, told = (
            layer_activations(explainer.network, views),
            explain_batch(explainer, x, first, second, draws=1),
        )
        right = int(explainer.columns[first]) == int(data.labels[i])
        group = (
            "wrong answers"
            if not right
            else "unseen"
            if int(explainer.columns[first]) in explainer.unseen
            else "seen"
        )
        for word in _telling_words(model, explainer, told, a).itertuples():
            words.append(
                {
                    "image": i,
                    "group": group,
                    "used": word.used,
                    "holds": bool(truth[k, explainer.names.index(word.attribute)]),
                }
            )
        turn = _turning_neurons(model, a, first, second)
        turns.append(
            {"turns": bool(turn.parts), "neurons": len(turn.parts), "by lot": turn.chance / 20}
        )
    return pd.DataFrame(words, columns=["image", "group", "used", "holds"]), pd.DataFrame(turns)


def claims_of_world(
    seed: int,  # of the world
    folder: str,  # trained networks are kept here
    n: int = 60,  # test drawings of seen and as many of unseen species
) -> dict[tuple[str, str], tuple[float, float | None]]:  # (question, case) -> value, control
    "Everything that `claims_bench` asks of one world."
    data, network, head = field_guide_case(seed, folder)
    test, dice = torch.cat([data.test_seen, data.test_unseen]), torch.Generator().manual_seed(seed)
    explainer = fit_explainer(network, data, field_guide_transform, head=head)
    against = words_against(
        explainer, explain_images(explainer, data, test, field_guide_transform, draws=1), data
    )
    found: dict[tuple[str, str], tuple[float, float | None]] = {}
    for limit in sorted({limit for _, limit in against}, reverse=True):
        found["words against unseen species that hold", f"limit {limit:g}"] = (
            against["holds", limit],
            against["control", limit],
        )
        found["words against unseen species a drawing", f"limit {limit:g}"] = (
            against["per drawing", limit],
            None,
        )
    path = Path(folder) / f"field-guide-{seed}.safetensors"
    backbone = load_backbone("fieldguide", weights=path) if seed else load_backbone()
    model = NIWT(backbone, knowledge="attributes").fit(data)
    some = torch.cat(
        [t[torch.randperm(len(t), generator=dice)[:n]] for t in (data.test_seen, data.test_unseen)]
    )
    words, turns = contrast_claims(model, data, some)
    kept = words[words["used"]]
    found["drawings with a verified word", "all"] = (kept["image"].nunique() / len(some), None)
    for group in ("seen", "unseen", "wrong answers"):
        here, other = (w[w["group"] == group]["holds"] for w in (kept, words[~words["used"]]))
        found["verified words that hold", f"{group}"] = (float(here.mean()), float(other.mean()))
        found["verified words, number", f"{group}"] = (float(len(here)), None)
    found["the answer turns without a few neurons", "all"] = (
        float(turns["turns"].mean()),
        float(turns["by lot"].mean()),
    )
    found["neurons that are enough", "all"] = (float(turns["neurons"].mean()), None)
    return found


@register("claims")
def claims_bench(
    quiet: bool = False,  # no progress on the screen
    worlds: int = 6,  # of the field guide
    folder: str | None = None,  # trained networks are kept here
) -> list[dict[str, Any]]:  # rows as `bench_row` makes them
    "Words against, words that tell two classes apart and the neurons that turn the answer: mean and spread over worlds of the field guide."
    with tempfile.TemporaryDirectory() as spare:
        runs = [
            claims_of_world(s, folder or spare)
            for s in progress(list(range(worlds)), "worlds", quiet=quiet)
        ]
    peers = {
        "words against unseen species that hold": "another drawing's",
        "verified words that hold": "words that failed the test",
    }
    rows = []
    for question, case in runs[0]:
        value, control = (
            pd.Series([r[question, case][i] for r in runs], dtype=float) for i in (0, 1)
        )
        theirs = None if control.isna().all() else float(control.mean())
        if value.notna().any():
            text = f"{question}, {case} (spread {value.std(ddof=0):.3f}, of {value.notna().sum()} worlds)"
            rows.append(
                bench_row(
                    text,
                    "mean",
                    "",
                    value.mean(),
                    peers.get(question, "as many by lot") if theirs is not None else "",
                    theirs,
                    worlds,
                )
            )
    return rows
