"""What the scores of explanations are on drawings and photographs."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from sklearn.base import clone
from torch import Tensor, nn

from benchmarks.timing import bench_row, register
from niwt_nb.core import NiwtError, progress
from niwt_nb.data.cub import read_cub
from niwt_nb.data.dataset import ZeroShotData
from niwt_nb.explain.editing import edit_neurons, refit_head, repair_background
from niwt_nb.explain.explainer import fit_explainer
from niwt_nb.explain.maps import NetworkView
from benchmarks.explanations import score_explanations
from niwt_nb.fieldguide.network import SmallCNN, train_field_guide_network
from niwt_nb.fieldguide.world import FieldGuideImages, field_guide
from niwt_nb.method.calibration import calibrate
from niwt_nb.method.engine import class_importance
from niwt_nb.method.jacobian import pooled_jacobian
from niwt_nb.method.mapping import KernelRidgeMap, RidgeMap
from niwt_nb.method.solvers import transfer_weights
from niwt_nb.network.backbones import field_guide_transform, load_backbone
from niwt_nb.network.cut import CutNetwork, cut
from niwt_nb.network.head import extend, extract_features, fit_head, with_head
from niwt_nb.network.modes import in_own_modes
from niwt_nb.network.training import class_to_column


def headline(
    tables: Mapping[str, pd.DataFrame],  # from `score_explanations`
    photos: bool = False,  # the values wanted on photos with boxes, not on drawings with masks
) -> (
    pd.DataFrame
):  # a row a question: question, value, control, wanted, sense ("at least" or "at most")
    "The scores that matter, each with its control and the value wanted."
    rows: list[dict[str, Any]] = []

    def ask(
        question: str, value: float, control: float, wanted: float = np.nan, sense: str = "at least"
    ) -> None:
        rows.append(
            {
                "question": question,
                "value": float(value),
                "control": float(control),
                "wanted": wanted,
                "sense": sense,
            }
        )

    where, words, names = (
        tables[k].set_index(i)
        for k, i in (
            ("where", ["group", "maps"]),
            ("words", ["group", "words"]),
            ("names", "names"),
        )
    )
    for g in sorted({g for g, _ in where.index}):
        for kind in ("fine map", "Grad-CAM"):
            for what, wanted in (
                ("energy", 0.8),
                ("pointing", np.nan if photos else 0.9),
                ("ratio", 1.3 if photos else np.nan),
            ):
                ask(
                    f"{kind}, {what}, {g}",
                    where.loc[(g, kind), what],
                    where.loc[(g, f"{kind}, untrained network"), what],
                    wanted,
                )
    if {"seen", "unseen"} <= {g for g, _ in where.index}:
        for kind in ("fine map", "Grad-CAM"):
            here, blank = (
                abs(where.loc[("seen", k), "energy"] - where.loc[("unseen", k), "energy"])
                for k in (kind, f"{kind}, untrained network")
            )
            ask(
                f"{kind}, energy, seen and unseen apart",
                here,
                blank,
                0.03 if photos else np.nan,
                "at most",
            )
    parts = tables["attributes"].set_index("maps") if len(tables["attributes"]) else pd.DataFrame()
    for what, wanted, sense in (
        ("ratio", 3.0, "at least"),
        ("pointing", np.nan, "at least"),
        ("distance", np.nan, "at most"),
    ):
        if what in parts:
            ask(
                f"attribute map on its part, {what}",
                parts.loc["own attribute, fine", what],
                parts.loc["another part's attribute", what],
                wanted,
                sense,
            )
    if "centre_distance" in parts:
        own = parts.loc["own attribute, fine"]
        ask(
            "attribute map, distance to its part, beside the middle of the box",
            own["distance"],
            own["centre_distance"],
            np.nan,
            "at most",
        )
    for g in sorted({g for g, _ in words.index}):
        mixed = [w for w in words.loc[g].index if w.startswith("shuffled")]
        right = words.loc[g, "precision"]
        ask(
            f"words, precision of 8, {g}",
            right["NIWT"],
            right[mixed].mean(),
            0.75 if g == "unseen" and not photos else np.nan,
        )
        common = words.loc[(g, "commonest attributes"), "ap"]
        chance = words.loc[g].loc[mixed, "ap"].mean() / common
        ask(
            f"words, average precision over that of the commonest, {g}",
            words.loc[(g, "NIWT"), "ap"] / common,
            chance,
            1.5 if photos else np.nan,
        )
        ask(
            f"ranked by what was used: precision of 8, {g}",
            right["what was used"],
            right[mixed].mean(),
        )
        ask(
            f"ranked by what was used: average precision over that of the commonest, {g}",
            words.loc[(g, "what was used"), "ap"] / common,
            chance,
        )
    for _, row in tables["verdicts"].iterrows():
        if row["verdict"] != "open" and np.isfinite(row["right"]):
            ask(
                f"words {row['verdict']} the class that hold, {row['group']}",
                row["right"],
                row["control"],
            )
    mixed = [w for w in names.index if w.startswith("shuffled")]
    level, good = names.loc[mixed, "auprc"].mean(), names.loc["NIWT, good names only"]
    ask("names given, AUPRC over that of shuffled knowledge", good["auprc"] / level, 1.0, 2.0)
    ask(
        "names of all neurons, the same",
        names.loc["NIWT, all neurons", "auprc"] / level,
        names.loc["random", "auprc"] / level,
    )
    ask(
        "names given, share above shuffled knowledge",
        good["above"],
        names.loc[mixed, "above"].mean(),
        0.8,
    )
    ask("names given, Pearson r", good["pearson"], names.loc[mixed, "pearson"].mean())
    for _, row in tables["faithfulness"].iterrows():
        lot = max(row["random_drop"], 1e-9)
        ask(
            f"faithfulness, named over random neurons, {row['group']}",
            row["ratio"],
            row["other_drop"] / lot,
            3.0 if photos else 5.0,
        )
        ask(
            f"the same for the neurons that add most (bound), {row['group']}",
            row["best_drop"] / lot,
            row["other_drop"] / lot,
        )
    gone = tables["deletion"].set_index("maps")
    for what in ("deletion", "insertion"):
        ask(f"fine map, {what} area", gone.loc["fine map", what], gone.loc["random map", what])
    return pd.DataFrame(rows)


@in_own_modes
def head_with_unseen(
    network: Any,  # a `CutNetwork` with a head for `data.seen`
    data: ZeroShotData,  # images and knowledge
    transform: Callable,  # PIL image -> (3, H, W) tensor
    estimator: Any = None,  # an unfitted map from knowledge to importance; `None`: ridge regression
    every: int = 8,  # one training image of so many is used
    n_images: int = 64,  # images of the Jacobian
) -> nn.Linear:  # rows for `data.seen`, then for `data.unseen`
    "The head extended by NIWT from the attributes, balanced on seen classes that were left out."
    words, some, model = (
        data.get_knowledge("attributes"),
        data.train[::every],
        estimator or RidgeMap(),
    )
    seen, features = (
        class_importance(network, data, some, transform).mean,
        extract_features(network, data, some, transform),
    )
    images = torch.stack(
        [transform(data.images[i]) for i in some[:: max(1, len(some) // n_images)].tolist()]
    )
    jacobian, known = pooled_jacobian(network, images), words.rows(data.seen)

    def weights(learn: Tensor, new: Tensor) -> Tensor:
        return transfer_weights(
            network, clone(model).fit(known[learn], seen[learn]).predict(known[new]), jacobian
        ).weight

    balance = calibrate(weights, network.head, features, class_to_column(data)[data.labels[some]])
    wanted = clone(model).fit(known, seen).predict(words.rows(data.unseen))
    found = transfer_weights(
        network, wanted, jacobian, features=features, scale=balance.scale, bias=balance.bias
    )
    return extend(network.head, found.weight, found.bias)


def field_guide_case(
    seed: int = 0,  # of the world, the first weights and the training
    folder: str
    | os.PathLike
    | None = None,  # trained networks are kept here; `None`: trained anew (0 is the shipped network)
) -> tuple[
    ZeroShotData, CutNetwork, nn.Linear
]:  # world, network, head with a row for every species
    "A world of the field guide, its network, and the head extended to the unseen species."
    data, path = (
        field_guide(seed=seed),
        None if folder is None else Path(folder) / f"field-guide-{seed}.safetensors",
    )
    if seed == 0:
        network = load_backbone().cut()
    elif path is not None and path.exists():
        network = load_backbone(weights=path).cut()
    else:
        network = cut(
            train_field_guide_network(data, seed=seed, path=path)[0], SmallCNN.default_layer
        )
    return data, network, head_with_unseen(network, data, field_guide_transform)


def field_guide_scores(
    seeds: Sequence[int] = (0, 1, 2),  # worlds
    folder: str | os.PathLike | None = None,  # trained networks are kept here
    quiet: bool = True,  # no progress bar
    **options: Any,  # for `score_explanations`
) -> dict[int, dict[str, pd.DataFrame]]:  # seed -> tables
    "`score_explanations` for several worlds of the field guide."
    found = {}
    for seed in progress(list(seeds), "worlds", quiet=quiet):
        data, network, head = field_guide_case(seed, folder)
        found[seed] = score_explanations(network, data, field_guide_transform, head=head, **options)
    return found


def headlines(
    runs: Mapping[Any, Mapping[str, pd.DataFrame]],  # seed or name -> tables
    photos: bool = False,  # see `headline`
) -> (
    pd.DataFrame
):  # a row a question: a column a run, mean, control, wanted, sense, reached ("yes", "no", "")
    "`headline` of several runs side by side."
    tables = {name: headline(t, photos).set_index("question") for name, t in runs.items()}
    first = next(iter(tables.values()))
    table = pd.DataFrame({str(name): t["value"] for name, t in tables.items()}, index=first.index)
    table["mean"] = table.mean(axis=1)
    table["control"] = pd.DataFrame({name: t["control"] for name, t in tables.items()}).mean(axis=1)
    table["wanted"], table["sense"] = (
        first["wanted"],
        np.where(first["wanted"].isna(), "", first["sense"]),
    )
    far = np.where(
        first["sense"] == "at least",
        table["mean"] - table["wanted"],
        table["wanted"] - table["mean"],
    )
    table["reached"] = np.where(table["wanted"].isna(), "", np.where(far >= 0, "yes", "no"))
    return table.reset_index()


@in_own_modes
def drawn_with_cue(
    data: ZeroShotData,  # the field guide
    indices: Tensor,  # (n,) image indices
    on: bool,  # with berries
) -> Tensor:  # (n, 3, H, W) preprocessed
    "The same birds with berries in the background of all of them, or of none; raises `NiwtError` for images that are no drawings."
    drawn = data.images
    if not isinstance(drawn, FieldGuideImages):
        raise NiwtError(
            f"only drawings of the field guide can be drawn again; data set {data.name!r} has {type(drawn).__name__}"
        )
    every = FieldGuideImages(
        drawn.looks, drawn.poses, torch.full_like(drawn.cues, on), drawn.species, drawn.size
    )
    return torch.stack([field_guide_transform(every[i]) for i in torch.as_tensor(indices).tolist()])


@in_own_modes
def cue_rates(
    networks: Mapping[str, Any],  # name -> network with a head row a seen species
    data: ZeroShotData,  # a field guide with berries in some species' training pictures
    indices: Tensor | None = None,  # test pictures of seen species; `None`: all
) -> pd.DataFrame:  # a row a network: right names of berry species and others, bare and with berries; pulled: named as a berry species only because of berries
    "What berries in the background do to the names that networks give."
    test = data.test_seen if indices is None else indices
    shown_in: Any = getattr(data.images, "cues", torch.zeros(len(data), dtype=torch.bool))
    share = torch.stack(
        [shown_in[data.train[data.labels[data.train] == c]].float().mean() for c in data.seen]
    )
    cued, columns = (share > 0.5).nonzero().flatten(), class_to_column(data)[data.labels[test]]
    here, (bare, berries) = (
        torch.isin(columns, cued),
        (drawn_with_cue(data, test, on) for on in (False, True)),
    )
    rows = []
    for name, network in networks.items():
        with torch.no_grad():
            without, shown = (
                torch.cat([network(x).argmax(1) for x in images.split(100)])
                for images in (bare, berries)
            )
        rate = lambda named, pick: float((named == columns)[pick].float().mean())  # noqa: E731
        row = {
            "network": name,
            "berry_bare": rate(without, here),
            "berry_with": rate(shown, here),
            "other_bare": rate(without, ~here),
        }
        rows.append(
            row
            | {
                "other_with": rate(shown, ~here),
                "pulled": float(((without != shown) & torch.isin(shown, cued)).float().mean()),
            }
        )
    return pd.DataFrame(rows)


def planted_cue_scores(
    seed: int = 0,  # of the world, the first weights and the training
    folder: str | os.PathLike | None = None,  # trained networks are kept here; `None`: trained anew
    n: int = 6,  # neurons to silence
    draws: int = 3,  # random choices of as many
) -> pd.DataFrame:  # as `cue_rates`: before, silenced, repaired, and the controls
    "Train on a field guide with a planted cue, find the neurons that carry it, silence them, fit the head again; the same with random neurons."
    data, path = (
        field_guide(seed=seed, spurious=1.0),
        None if folder is None else Path(folder) / f"berries-{seed}.safetensors",
    )
    if path is not None and path.exists():
        network = load_backbone(weights=path).cut()
    else:
        network = cut(
            train_field_guide_network(data, seed=seed, path=path)[0], SmallCNN.default_layer
        )
    explainer = fit_explainer(network, data, field_guide_transform, columns=data.seen, per_class=10)
    k, some = len(explainer.answers), data.train[::4]
    repaired, worst = repair_background(explainer, data, some, field_guide_transform, n)
    fit = lambda view: refit_head(view, data, some, field_guide_transform, explainer.columns)  # noqa: E731
    lots = [
        edit_neurons(
            network,
            k,
            zero=torch.randperm(k, generator=torch.Generator().manual_seed(s))[:n].tolist(),
        )
        for s in range(draws)
    ]
    named = {
        "before": network,
        "silenced": edit_neurons(network, k, zero=worst),
        "silenced and refitted": repaired,
        "only refitted": fit(NetworkView(network)),
    }
    named |= {f"random {s}": view for s, view in enumerate(lots)} | {
        f"random {s}, refitted": fit(view) for s, view in enumerate(lots)
    }
    table = cue_rates(named, data)
    table["network"] = table["network"].str.replace(
        r"random \d+", f"{n} random neurons silenced", regex=True
    )
    return table.groupby("network", sort=False).mean().reset_index()


def read_head(
    path: str
    | os.PathLike,  # a safetensors file with `weight` (C, D) and `bias` (C,), rows by class id
    n_classes: int,  # C
    width: int,  # D
    ids: Tensor,  # (n,) class id of each row wanted
) -> nn.Linear:  # D -> n
    "A head kept in a file; raises `NiwtError` that names the file, what is in it and what was expected."
    wanted = f"'weight' ({n_classes}, {width}) and 'bias' ({n_classes},)"
    try:
        table = load_file(os.fspath(path))
    except Exception as e:  # safetensors raises several kinds
        raise NiwtError(
            f"head {os.fspath(path)!r} is not a readable safetensors file with {wanted} ({type(e).__name__}: {str(e)[:120]})"
        ) from None
    shapes = {k: tuple(v.shape) for k, v in table.items()}
    if shapes.get("weight") != (n_classes, width) or shapes.get("bias") != (n_classes,):
        raise NiwtError(f"head {os.fspath(path)!r} holds {shapes}; expected {wanted}")
    head = nn.utils.skip_init(nn.Linear, width, len(ids)).requires_grad_(False)
    head.weight.copy_(table["weight"][ids])
    head.bias.copy_(table["bias"][ids])
    return head


@in_own_modes
def cub_case(
    root: str | os.PathLike,  # the CUB_200_2011 folder
    splits: str | os.PathLike,  # `att_splits.mat`
    model: str,  # what `load_backbone` takes
    layer: str = "features.18",  # whose channels are the neurons
    l2: float = 1e-5,  # of the head fitted to frozen features
    head: str | os.PathLike | None = None,  # see `read_head`; `None`: transferred here
    every: int = 8,  # one training photo of so many is used for the transfer
) -> tuple[
    ZeroShotData, CutNetwork, Callable, nn.Linear
]:  # data, network, its preprocessing, head with a row for every class
    "CUB and a network whose head knows all classes: fitted or given for the seen ones, transferred or given for the unseen ones."
    data, backbone = read_cub(root, splits), load_backbone(model)
    network = backbone.cut(layer)
    if head is not None:
        known = read_head(
            head, len(data.classes), network.head.in_features, torch.cat([data.seen, data.unseen])
        )
        return data, with_head(network, known), backbone.preprocess, known
    if network.head.out_features != len(data.seen):
        features = extract_features(network, data, data.train, backbone.preprocess)
        network = with_head(
            network,
            fit_head(
                features, class_to_column(data)[data.labels[data.train]], len(data.seen), l2=l2
            ),
        )
    estimator = KernelRidgeMap()
    return (
        data,
        network,
        backbone.preprocess,
        head_with_unseen(network, data, backbone.preprocess, estimator, every),
    )


@in_own_modes
def some_of_each(
    data: ZeroShotData,  # images and labels
    indices: Tensor,  # image indices to draw from
    per_class: int,  # how many of each class at most
    seed: int = 0,  # of the draw
) -> Tensor:  # image indices, ascending
    "A few images of every class, drawn by lot."
    order = indices[torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed))]
    return (
        torch.cat(
            [order[data.labels[order] == c][:per_class] for c in data.labels[indices].unique()]
        )
        .sort()
        .values
    )


@in_own_modes
def cub_scores(
    root: str | os.PathLike,  # the CUB_200_2011 folder
    splits: str | os.PathLike,  # `att_splits.mat`
    model: str,  # what `load_backbone` takes
    per_class: int = 2,  # test photos of each class that are explained
    layer: str = "features.18",  # whose channels are the neurons
    some: int = 30,  # photos for the scores that need many passes a photo
    train_images: int = 4,  # training photos of each seen class that the explainer is fitted on
    head: str | os.PathLike | None = None,  # see `cub_case`
) -> dict[str, pd.DataFrame]:  # as `score_explanations` gives them
    "The scores on a few test photos of every CUB class."
    data, network, transform, known = cub_case(root, splits, model, layer, head=head)
    test = some_of_each(data, torch.cat([data.test_seen, data.test_unseen]), per_class)
    return score_explanations(
        network, data, transform, head=known, indices=test, some=some, per_class=train_images
    )


@register("scores")
def scores_bench(
    quiet: bool = False,  # no progress on the screen
    worlds: int = 3,  # of the field guide
    folder: str | None = None,  # trained networks are kept here
) -> list[dict[str, Any]]:  # rows as `bench_row` makes them
    "Explanations of drawings, every score beside its control: maps, words, verdicts, names, faithfulness; mean and spread over worlds of the field guide."
    table = headlines(field_guide_scores(tuple(range(worlds)), folder, quiet))
    rows = []
    for _, row in table.iterrows():
        spread = float(np.std([row[str(s)] for s in range(worlds)]))
        if np.isfinite(row["mean"]) and np.isfinite(row["control"]):
            rows.append(
                bench_row(
                    f"{row['question']} (spread {spread:.3f})",
                    "mean",
                    "",
                    row["mean"],
                    "control",
                    row["control"],
                    worlds,
                )
            )
    return rows
