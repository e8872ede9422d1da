"""Do the names of neurons hold? Birds drawn with the named attribute and without, classes without the neurons of a name, formulas beside single words."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.scores import field_guide_case
from benchmarks.timing import bench_row, register
from niwt_nb.core import progress
from niwt_nb.explain.explainer import Explainer, fit_explainer, topk_activation
from niwt_nb.explain.names import _formula_of, _held_out, name_neurons, verify_names
from niwt_nb.explain.scores import image_truth
from niwt_nb.fieldguide.drawing import draw_bird
from niwt_nb.network.backbones import field_guide_transform
from niwt_nb.network.modes import in_own_modes


@in_own_modes
def exchanged_names(
    explainer: Explainer,  # with names
    seed: int = 0,  # of the exchange
) -> (
    Explainer
):  # the control: each name stands for another attribute, the neurons that share a name still do
    "Give every attribute's answers to another attribute."
    n = len(explainer.names)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    other = torch.empty(n, dtype=torch.long)
    other[order] = order.roll(1)  # none stays in its place
    lift = None if explainer.lift is None else explainer.lift[:, other]
    return replace(explainer, answers=explainer.answers[:, other], lift=lift)


def name_summary(
    found: pd.DataFrame,  # from `verify_names`
    surer: np.ndarray,  # (n,) bool: which names are surer than chance
) -> dict[
    str, float
]:  # means over these names: answers, rate, held (share whose name held), loss over that of as many other neurons
    "What the two experiments say of names that are surer than chance, before any is taken back."
    told = found[surer]
    pools = told.drop_duplicates("name")
    ratio = pools["loss"].mean() / pools["other_loss"].mean()
    return {
        "answers": told["answers"].mean(),
        "rate": told["rate"].mean(),
        "held": told["good"].mean(),
        "specificity": ratio,
    }


def beam_formula(
    active: Tensor,  # (n,) bool
    truth: Tensor,  # (n, A) bool
    width: int = 5,  # formulas that are kept at each length
) -> float:  # intersection over union of the best one found
    "The peer: formulas of one term, then two, then three, made of the `width` best ones of one term less (Mu and Andreas, NeurIPS 2020)."
    terms = torch.cat([truth, ~truth], 1).T
    beam, best = terms, 0.0
    for _ in range(3):
        score = (beam & active).sum(1) / (beam | active).sum(1)
        best = max(best, float(score.max()))
        kept = beam[score.topk(min(width, len(score))).indices]
        beam = torch.cat([f for k in kept for f in (k & terms, k | terms, k[None])])
    return best


def formula_summary(
    activation: Tensor,  # (n, K) on pictures that names were not chosen on
    truth: Tensor,  # (n, A) bool
    every: int = 3,  # one neuron of so many
) -> dict[
    str, float
]:  # iou on held-out pictures of formula, single attribute and formula of mixed activation; beam misses; seconds
    "Formulas, single attributes and beam search on every second picture, judged on the others."
    rows, generator = [], torch.Generator().manual_seed(0)
    for k in range(0, activation.shape[1], every):
        strong = activation[:, k]
        started = time.perf_counter()
        made, score, alone = _formula_of(strong, truth)
        seconds = time.perf_counter() - started
        mixed = _formula_of(strong[torch.randperm(len(strong), generator=generator)], truth)[1]
        active = strong[::2] > strong[::2].quantile(0.9)
        missed = {
            f"beam {w} misses": float(beam_formula(active, truth[::2], w) < made.iou - 1e-6)
            for w in (1, 5, 10)
        }
        rows.append(
            {
                "formula": score,
                "single": alone,
                "mixed": mixed,
                "shown": float(score > alone and len(made.terms) > 1),
                "seconds": seconds,
            }
            | missed
        )
    return {c: float(v) for c, v in pd.DataFrame(rows).mean().items()}


@in_own_modes
def name_scores(
    explainer: Explainer,  # with names
    data: Any,  # `ZeroShotData`
    indices: Tensor,  # images that it was not fitted on
    transform: Callable,  # PIL image -> (3, H, W) tensor
    draw: Callable | None = None,  # see `verify_names`
    seeds: int = 3,  # exchanges of names for the control
) -> dict[str, tuple[float, float]]:  # question -> value and control
    "Both experiments with the names and with exchanged names."
    surer = name_neurons(explainer)["good"].to_numpy()
    found = verify_names(explainer, data, indices, transform, None, draw)
    own = name_summary(found, surer)
    wrong = [
        name_summary(
            verify_names(exchanged_names(explainer, s), data, indices, transform, None, draw), surer
        )
        for s in range(seeds)
    ]
    control = pd.DataFrame(wrong).mean()
    kept = name_summary(found, found["good"].to_numpy())
    asked = {k: (float(own[k]), float(control[k])) for k in own}
    return asked | {
        f"{k}, names that held": (float(kept[k]), float(control[k]))
        for k in ("answers", "rate", "specificity")
    }


def field_guide_names(
    seed: int = 0,  # of the world
    folder: str | os.PathLike | None = None,  # trained networks are kept here
) -> tuple[dict[str, tuple[float, float]], dict[str, float]]:  # `name_scores`, `formula_summary`
    "The names of a world's network, tested by drawing birds."
    data, network, head = field_guide_case(seed, folder)
    explainer = fit_explainer(network, data, field_guide_transform, head=head, per_class=20)
    held = torch.cat([data.test_seen, data.test_unseen])[::2]
    scores = name_scores(explainer, data, held, field_guide_transform, _kept_draw())
    peak = topk_activation(_held_out(explainer, data, held, field_guide_transform)[0])
    return scores, formula_summary(peak, image_truth(explainer, data, held))


def _kept_draw() -> Callable:  # (attribute names, seed) -> (picture, masks)
    "`draw_bird` that remembers what it drew: the controls ask for the same birds."
    kept = lru_cache(None)(lambda names, seed: draw_bird(list(names), seed))
    return lambda names, seed: kept(tuple(names), seed)


@register("names")
def names_bench(
    quiet: bool = False,  # no progress on the screen
    worlds: int = 3,  # of the field guide
    folder: str | None = None,  # trained networks are kept here
) -> list[dict[str, Any]]:  # rows as `bench_row` makes them
    "Names of neurons tested by drawn birds and silenced pools, formulas and beam search: mean and spread over worlds of the field guide."
    runs = [
        field_guide_names(s, folder) for s in progress(list(range(worlds)), "worlds", quiet=quiet)
    ]
    rows = []
    for question in runs[0][0]:
        value, control = (np.array([r[0][question][i] for r in runs]) for i in (0, 1))
        rows.append(
            bench_row(
                f"{question} (spread {value.std():.3f})",
                "mean",
                "share",
                value.mean(),
                "exchanged names",
                control.mean(),
                worlds,
            )
        )
    table = pd.DataFrame([r[1] for r in runs])
    said = {
        "formula": "formula, intersection over union on other pictures",
        "seconds": "seconds for formula and single attribute",
    }
    peers = {"single": "the best single attribute", "mixed": "formula of mixed activations"}
    asked = [
        ("formula", "single"),
        ("formula", "mixed"),
        *(
            (name, "")
            for name in ("shown", "beam 1 misses", "beam 5 misses", "beam 10 misses", "seconds")
        ),
    ]
    for name, peer in asked:
        case = f"{said.get(name, name)} (spread {table[name].std(ddof=0):.3f})"
        rows.append(
            bench_row(
                case,
                "mean",
                "",
                table[name].mean(),
                peers.get(peer, ""),
                table[peer].mean() if peer else None,
                worlds,
            )
        )
    return rows
