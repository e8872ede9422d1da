"""What does a new classifier cost, through the cached Jacobian and by double backward?"""

import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from benchmarks.timing import bench_row, bench_table, register
from niwt_nb.core import NiwtError
from niwt_nb.data.cub import read_cub
from niwt_nb.data.dataset import ZeroShotData, first_of_each
from niwt_nb.fieldguide.world import field_guide
from niwt_nb.method.jacobian import PooledJacobian, pooled_jacobian
from niwt_nb.method.mapping import RidgeMap
from niwt_nb.method.solvers import (
    certificate,
    closed_form,
    cosine_objective,
    solve_lbfgs,
    transfer_weights,
)
from niwt_nb.network.backbones import load_backbone
from niwt_nb.network.cut import CutNetwork, cut
from niwt_nb.network.head import extract_features, fit_head, with_head
from niwt_nb.network.modes import in_own_modes
from niwt_nb.network.training import class_to_column


@in_own_modes
def join_layers(
    jacobians: Sequence[PooledJacobian],  # of several layers of one network, on the same images
    importances: Sequence[Tensor],  # (n, K_l) importance of the same classes at each layer
    scales: Sequence[float]
    | None = None,  # what each layer is divided by; the mean length of its importances if not given
) -> tuple[
    PooledJacobian, Tensor, list[float]
]:  # one Jacobian with sum(K_l) rows, the joint importance (n, sum(K_l)), and the scales
    "Stack several layers into one, for the fast solvers."
    if len(jacobians) != len(importances) or not jacobians:
        raise NiwtError(
            f"give one importance per layer, got {len(jacobians)} layers and {len(importances)} importances"
        )
    first = jacobians[0]
    for j, a in zip(jacobians, importances, strict=True):
        if (
            a.shape[1] != j.mean.shape[0]
            or j.images != first.images
            or j.mean.shape[1] != first.mean.shape[1]
        ):
            have = f"layer {j.layer!r} has {j.mean.shape[0]} neurons, {j.images} images and {j.mean.shape[1]} features"
            raise NiwtError(
                f"{have}; its importance has {a.shape[1]}, the first layer {first.images} images and {first.mean.shape[1]} features"
            )
    if len({j.layer for j in jacobians}) < len(jacobians):
        raise NiwtError(f"a layer comes twice: {', '.join(j.layer for j in jacobians)}")
    scales = [float(a.norm(dim=1).mean()) for a in importances] if scales is None else list(scales)

    def stacked(parts: list[Tensor]) -> Tensor:
        most = max(len(p) for p in parts)
        complete = all(len(p) in (1, most) for p in parts)  # 1: the same for all images
        scaled = (
            [p.expand(most, *p.shape[1:]) / s for p, s in zip(parts, scales, strict=True)]
            if complete
            else []
        )
        return torch.cat(scaled, 1) if scaled else parts[0][:0]

    each, fresh = stacked([j.each for j in jacobians]), stacked([j.fresh for j in jacobians])
    mean = torch.cat([j.mean / s for j, s in zip(jacobians, scales, strict=True)])
    joint = torch.cat([a / s for a, s in zip(importances, scales, strict=True)], 1)
    layer, tail = "+".join(j.layer for j in jacobians), "+".join(j.tail for j in jacobians)
    return PooledJacobian(each, mean, first.images, "joined", layer, tail, fresh), joint, scales


def scale_figure(
    jacobian: PooledJacobian,  # with one matrix per image, or one for all
    importance: Tensor,  # (K,) demanded importance of one class
    weight: Tensor,  # (D,) a weight vector for it; its ray is drawn
    head: nn.Linear,  # the seen classes' head
    lams: Sequence[float] = (1e-3, 3e-3, 1e-2),  # weights of the penalty
) -> Figure:  # left: objective against length; right: length of the importance against length, with the seen classes' band
    "Why the cosine loss cannot fix the scale: the objective along the ray of `weight`; lengths on a logarithmic axis."
    seen, direction = head.weight.detach().double(), (weight / weight.norm()).double()
    each, prior, usual = jacobian.each.double(), seen.mean(0), float(seen.norm(dim=1).mean())
    lengths = torch.logspace(-3, 0.4, 500, dtype=torch.float64) * usual
    ray, demand = lengths[:, None] * direction, importance.double().expand(len(lengths), -1)
    known = (each @ seen.T).norm(dim=1).mean(0)
    slope = (each @ direction).norm(dim=1).mean()  # the importance is as long as its row: a line
    reached, asked = lengths * slope, known.mean() / slope
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for ring, lam in enumerate((0.0, *lams)):
        value = cosine_objective(each, demand, ray, prior, lam)[0]
        (line,) = left.plot(lengths, value, label=f"lambda {lam:g}" if lam else "lambda 0: flat")
        if lam:
            ends = "least objective, ring of each lambda" if ring == 1 else None
            # along a ray the penalty is a parabola, whose vertex no flatness hides
            a, b, c = np.polyfit(lengths, value, 2)
            left.plot(
                -b / 2 / a,
                c - b**2 / 4 / a,
                "o",
                ms=3 + 4 * ring,
                mfc="none",
                color=line.get_color(),
                label=ends,
            )
    left.set(ylabel="objective", title="where the penalty wants the row to end")
    right.plot(lengths, reached, label="this class")
    right.axhspan(float(known.min()), float(known.max()), alpha=0.15, label="seen classes, range")
    right.axhline(float(known.mean()), linestyle="--", color="0.4", label="seen classes, mean")
    right.plot(asked, known.mean(), "o", color="0.2")
    right.set(ylabel="length of the importance", title="where its importance is as long as others'")
    for ax in (left, right):
        ax.axvline(
            float(asked), linestyle=":", color="0.2", label="as long an importance as seen classes"
        )
        ax.set(xscale="log", xlabel="length of the new weight vector")
        ax.legend(frameon=False, fontsize="small", loc="upper left")
    return figure


@in_own_modes
def study_figure(
    table: pd.DataFrame,  # columns seed, layer, images, n and the measures
    measures: Sequence[str] = ("H", "cosine, fresh images"),  # one row of panels each
) -> Figure:  # one column of panels a layer, one line a kind of images; the band is the spread of the seeds, each seed's own mean taken off
    "Small multiples: a measure against the number of images, for each layer and kind of images."
    from niwt_nb.figures.canvas import PlainFigure, own_style  # a room above this one

    with own_style():
        table = table.reset_index(drop=True)
        layers, kinds, counts = (
            list(dict.fromkeys(table["layer"])),
            list(dict.fromkeys(table["images"])),
            sorted(table["n"].unique()),
        )
        figure = PlainFigure(
            figsize=(1 + 2.1 * len(layers), 1 + 2.1 * len(measures)), layout="constrained"
        )
        axes = figure.subplots(len(measures), len(layers), sharex=True, sharey="row", squeeze=False)
        for (row, measure), (column, layer) in (
            (r, c) for r in enumerate(measures) for c in enumerate(layers)
        ):
            ax, values = (
                axes[row][column],
                table[measure]
                - table.groupby("seed")[measure].transform("mean")
                + table[measure].mean(),
            )
            for kind, mark in zip(kinds, "osD^vP*X", strict=False):
                groups = values[(table["layer"] == layer) & (table["images"] == kind)].groupby(
                    table["n"]
                )
                mean, spread = groups.mean(), groups.std().fillna(0)
                (line,) = ax.plot(mean.index, mean, mark + "-", ms=4, lw=1.3, label=kind)
                ax.fill_between(
                    mean.index,
                    mean - spread,
                    mean + spread,
                    color=line.get_color(),
                    alpha=0.12,
                    lw=0,
                )
            ax.set_xscale("log", base=2)
            ax.set_xticks(counts, labels=[str(c) for c in counts])
            ax.grid(alpha=0.25)
            name = (
                "\n+ ".join(layer.split("+")) if layer.count("+") > 1 else layer.replace("+", " + ")
            )
            ax.set(
                title=name if row == 0 else "",
                ylabel=measure if column == 0 else "",
                xlabel="images" if row == len(measures) - 1 else "",
            )
        figure.legend(
            *axes[0][0].get_legend_handles_labels(),
            loc="outside upper center",
            ncols=len(kinds),
            frameon=False,
        )
        return figure


def cpu_seconds(
    function: Callable[[], Any],  # what is timed
    rounds: int = 5,  # the median of so many
    least: float = 0.02,  # CPU seconds that a round lasts at least: a short call is repeated in it
) -> tuple[float, Any]:  # CPU seconds of one call, and what it returned
    "Time a function by the processor's clock."
    taken, result = [], None
    for _ in range(rounds):
        started, calls, spent = time.process_time(), 0, 0.0
        while not calls or spent < least:
            result, calls = function(), calls + 1
            spent = time.process_time() - started
        taken.append(spent / calls)
    return statistics.median(taken), result


@dataclass(frozen=True, eq=False)
class TransferProblem:
    "One case: its `name`, cut `network`, `importance` (n, K) demanded, preprocessed `images` (M, 3, H, W) and weight `lam` of the penalty."

    name: str
    network: Any
    importance: Tensor
    images: Tensor
    lam: float


def solver_rows(
    problem: TransferProblem,  # what is solved
    repeats: int = 5,  # of our side; the reference is run once
    lr: float = 1e-3,  # of the reference
    max_steps: int = 5000,  # of the reference
) -> list[
    dict[str, Any]
]:  # CPU with G ready and with G included, to the reference's objective and to the end; objectives; one more class
    "Our solvers against the reference on one problem."
    network, importance, images, lam, name = (
        problem.network,
        problem.importance,
        problem.images,
        problem.lam,
        problem.name,
    )
    theirs = transfer_weights(
        network, importance, images, solver="reference", lam=lam, lr=lr, max_steps=max_steps
    )
    peer, rows = f"reference, {len(theirs.history)} steps", []
    built, jacobian = cpu_seconds(
        lambda: pooled_jacobian(network, images, fresh=0), min(repeats, 3), 0
    )
    full, (weight, history, _) = cpu_seconds(
        lambda: solve_lbfgs(jacobian, importance, network.head, lam), repeats, 0
    )
    reached = history["loss"] <= theirs.objective
    ends = {"to its end": (full, len(history) - 1, weight)}
    if reached.any():
        first = int(reached.idxmax())
        early, (weight, _, _) = cpu_seconds(
            lambda: solve_lbfgs(jacobian, importance, network.head, lam, steps=first), repeats, 0
        )
        ends = {"to the reference's objective": (early, first, weight)} | ends
    for end, (seconds, steps, weight) in ends.items():
        for ready, before in (("G ready", 0.0), (f"G included ({jacobian.how})", built)):
            rows.append(
                bench_row(
                    f"{name}: lbfgs {end}, {steps} steps, {ready}",
                    "CPU time",
                    "s",
                    before + seconds,
                    peer,
                    theirs.seconds,
                    repeats,
                )
            )
        objective = certificate(network, weight, importance, jacobian, lam)[0]
        rows.append(
            bench_row(f"{name}: lbfgs {end}", "objective", "1", objective, peer, theirs.objective)
        )
    form = closed_form(jacobian.mean, network.head.weight.detach().mean(0), 0.1)
    one = cpu_seconds(lambda: form.solve(importance[:1]), max(repeats, 5))[0]
    return [
        *rows,
        bench_row(
            f"{name}: one more class, closed form, G ready",
            "CPU time",
            "ms",
            1e3 * one,
            repeats=max(repeats, 5),
        ),
    ]


def class_rows(
    problem: TransferProblem,  # whose G is used; the demands are drawn at random
    counts: Sequence[int] = (1, 10, 100, 1000),  # numbers of classes
    rounds: int = 5,  # medians of so many
) -> list[
    dict[str, Any]
]:  # two rows a number: closed form beside its matrix product, ten steps of L-BFGS
    "CPU time against the number of new classes, G ready."
    jacobian, head, rows = (
        pooled_jacobian(problem.network, problem.images, fresh=0),
        problem.network.head,
        [],
    )
    form = closed_form(jacobian.mean, head.weight.detach().mean(0), 0.1)
    many = torch.randn(max(counts), len(jacobian.mean), generator=torch.Generator().manual_seed(0))
    for n in counts:
        demand = many[:n].clone()
        product = cpu_seconds(lambda: demand @ form.inverse.T, rounds)[0]  # noqa: B023 (called at once)
        closed = cpu_seconds(lambda: form.solve(demand), rounds)[0]  # noqa: B023
        ten = {"lam": problem.lam, "steps": 10, "tolerance": 0}
        steps = cpu_seconds(lambda: solve_lbfgs(jacobian, demand, head, **ten), rounds)[0]  # noqa: B023
        rows.append(
            bench_row(
                f"{problem.name}: {n} classes, closed form",
                "CPU time",
                "ms",
                1e3 * closed,
                "bare matrix product",
                1e3 * product,
                rounds,
            )
        )
        rows.append(
            bench_row(
                f"{problem.name}: {n} classes, lbfgs, 10 steps",
                "CPU time",
                "ms",
                1e3 * steps,
                repeats=rounds,
            )
        )
    return rows


def classes_figure(
    rows: Sequence[dict[str, Any]],  # of `class_rows`, or of the whole benchmark
) -> Figure:  # milliseconds against classes, both logarithmic; one panel a problem
    "What n classes at once cost: flat while the calls around the matrix product dominate, then in proportion to n."
    found: dict[str, dict[str, dict[int, float]]] = {}
    for row in rows:
        name, _, rest = row["case"].rpartition(": ")
        count, _, how = rest.partition(" classes, ")
        if how and count.isdigit():
            panel = found.setdefault(name, {})
            panel.setdefault(how, {})[int(count)] = row["ours"]
            if row["theirs"] is not None:
                panel.setdefault(row["peer"], {})[int(count)] = row["theirs"]
    figure = Figure(figsize=(0.6 + 4.4 * max(len(found), 1), 3.6), layout="constrained")
    axes = figure.subplots(1, max(len(found), 1), squeeze=False, sharey=True)[0]
    for ax, (name, lines) in zip(axes, found.items(), strict=False):
        for how, mark in zip(lines, "os^D", strict=False):
            ax.plot(
                list(lines[how]),
                list(lines[how].values()),
                mark + ("--" if "bare" in how else "-"),
                ms=5,
                label=how,
            )
        ax.set(xscale="log", yscale="log", title=name, xlabel="new classes at once")
        ax.grid(alpha=0.25)
    axes[0].set_ylabel("CPU time, ms")
    if found:
        axes[0].legend(frameon=False)
    return figure


def demanded(
    network: Any,  # cut network with a head for `data.seen`
    data: ZeroShotData,  # with the knowledge "attributes"
    images: Tensor,  # (M, 3, H, W) preprocessed
) -> Tensor:  # (U, K) importance of the unseen classes as their attributes predict it
    "What the attributes of unseen classes ask for, by a ridge map fitted on the seen classes' mean importance on these images."
    known = (
        pooled_jacobian(network, images, fresh=0).importance(network.head.weight.detach()).mean(1)
    )
    facts = data.get_knowledge("attributes")
    return RidgeMap(alpha=1.0).fit(facts.rows(data.seen), known).predict(facts.rows(data.unseen))


def drawings_problem(
    n: int = 64,  # images
) -> TransferProblem:  # 10 unseen species, layer stage2, lambda 1e-3
    "The field guide with the shipped network."
    backbone, data = load_backbone("fieldguide"), field_guide(seed=0)
    network = cut(backbone.model.requires_grad_(False), backbone.layer)
    images = torch.stack(
        [
            backbone.preprocess(data.images[int(i)])
            for i in data.train[:: max(1, len(data.train) // n)][:n]
        ]
    )
    return TransferProblem(
        "field guide, 10 classes", network, demanded(network, data, images), images, 1e-3
    )


def photo_problems(
    root: str | os.PathLike,  # the CUB_200_2011 folder
    splits: str | os.PathLike,  # the proposed split: att_splits.mat or its folder
    backbone: str,  # "file.py:function", see `load_backbone`
    layers: Sequence[str] = ("features.17", "features.14"),  # where it is cut
    each: int = 10,  # photographs of each seen class that the head is fitted on
    n: int = 64,  # images
) -> list[TransferProblem]:  # one a layer; lambda 1e-2
    "CUB photographs and attributes on a network with a head for the seen birds."
    data, loaded = read_cub(root, splits, image_attributes=False), load_backbone(backbone)
    few = first_of_each(data, data.train, data.seen, each)
    example = torch.stack([loaded.preprocess(data.images[int(i)]) for i in few[:2]])
    first = cut(loaded.model.requires_grad_(False), layers[0], example)
    head = fit_head(
        extract_features(first, data, few, loaded.preprocess),
        class_to_column(data)[data.labels[few]],
        len(data.seen),
    )
    lot = torch.randperm(len(few), generator=torch.Generator().manual_seed(0))[:n]
    images = torch.stack([loaded.preprocess(data.images[int(i)]) for i in few[lot]])
    networks: list[CutNetwork] = [
        with_head(cut(loaded.model, layer, example), head) for layer in layers
    ]
    name = f"CUB photographs, {len(data.unseen)} classes, {len(images)} images, "
    return [
        TransferProblem(name + net.layer, net, demanded(net, data, images), images, 1e-2)
        for net in networks
    ]


PLACES = ("NIWT_CUB_ROOT", "NIWT_XLSA17_ROOT", "NIWT_BACKBONE")


def bench_transfer(
    repeats: int = 5,  # of our side
    quick: bool = False,  # small sizes and no photographs, for a test
    quiet: bool = True,  # do not show each row on the screen as soon as it is known
) -> list[dict[str, Any]]:  # rows as `bench_row` makes them
    "Weight transfer against the reference on the field guide and, where their places are set, on CUB photographs; cost against the number of classes."
    rows: list[dict[str, Any]] = []

    def add(new: list[dict[str, Any]]) -> None:
        rows.extend(new)
        if not quiet:
            print("\n".join(bench_table(new).splitlines()[2:]), file=sys.stderr, flush=True)

    drawings = drawings_problem(8 if quick else 64)
    add(solver_rows(drawings, repeats, max_steps=20 if quick else 5000))
    add(
        class_rows(
            replace(drawings, name="field guide"), (1, 10) if quick else (1, 10, 100, 1000), repeats
        )
    )
    places = [os.environ.get(name, "") for name in PLACES]
    if quick or not all(places):
        if not quiet:
            print(
                f"no photographs: set {', '.join(n for n, p in zip(PLACES, places, strict=True) if not p) or 'quick=False'}",
                file=sys.stderr,
            )
        return rows
    for problem in photo_problems(places[0], Path(places[1]) / "CUB", places[2]):
        add(solver_rows(problem, 1))
    return rows


@register("transfer")
def transfer_bench(
    quiet: bool = False,  # do not show each row as soon as it is known
    repeats: int = 5,  # of our side
) -> list[dict[str, Any]]:  # rows as `bench_row` makes them
    "`bench_transfer` with its defaults, for `python -m benchmarks transfer`."
    return bench_transfer(repeats, quiet=quiet)
