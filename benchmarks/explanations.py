"""All scores of explanations at once, each beside its controls: maps, attribute maps, words, verdicts, names, faithfulness, deletion."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from niwt_nb.core import NiwtError, check_name
from niwt_nb.data.dataset import as_ids
from niwt_nb.data.images import batches
from niwt_nb.explain.explainer import Explainer, fit_explainer
from niwt_nb.explain.maps import (
    NetworkView,
    _check_rows,
    _source_pixels,
    fine_map,
    grad_cam,
    layer_activations,
    object_masks,
    to_size,
)
from niwt_nb.explain.scores import (
    _pointing_game,
    _random_maps,
    control_explainers,
    energy_inside,
    image_truth,
    score_faithfulness,
    score_maps,
    score_names,
    score_words,
)
from niwt_nb.explain.words import _Explanations, explain_images
from niwt_nb.network.cut import running
from niwt_nb.network.modes import in_own_modes


PART_WORDS: dict[str, tuple[str, ...]] = {
    "wing": ("wing",), "bill": ("bill", "beak"), "crown": ("crown",), "forehead": ("forehead", "crown"), "nape": ("nape",), "throat": ("throat",),
    "breast": ("breast", "belly"), "belly": ("belly",), "underparts": ("belly", "breast"), "upperparts": ("back", "body"), "back": ("back", "body"),
    "tail": ("tail",), "leg": ("leg", "legs"), "eye": ("eye",), "head": ("head", "crown", "face"),
}  # fmt: skip


@in_own_modes
def part_points(
    data: Any,  # `ZeroShotData` with part points
    indices: Tensor,  # (n,) image indices
    transform: Callable,  # PIL image -> (3, H, W) tensor
) -> Tensor:  # (n, P, 2) x and y in the network's input; NaN where a part is hidden or cropped away
    "Part points as the network sees them; raises `NiwtError` where the data set has none."
    if data.parts is None:
        raise NiwtError(f"data set {data.name!r} has no part points")
    places: dict[tuple[int, int], Tensor] = {}
    out = []
    for i in as_ids(indices, "indices", len(data), unique=False).tolist():
        size = data.images[i].size
        if size not in places:
            places[size] = _source_pixels(transform, size)
        source = places[size].flatten(1)
        step = float((places[size][0, 0, -1] - places[size][0, 0, 0]).abs()) / max(
            places[size].shape[2] - 1, 1
        )
        distance, nearest = (data.parts[i][:, :2, None] - source).norm(dim=1).min(1)
        point = torch.stack(
            [nearest % places[size].shape[2], nearest // places[size].shape[2]], 1
        ).float()
        point[(data.parts[i][:, 2] < 0.5) | (distance > 3 * max(step, 1))] = torch.nan
        out.append(point)
    return torch.stack(out)


@in_own_modes
def parts_of(
    attribute: str,  # an attribute's name
    part_names: Sequence[str],  # names of masks or part points
) -> list[int]:  # places in `part_names`; empty when the attribute speaks of no part
    "The parts that an attribute speaks of: `has_wing_color::blue` of `left wing` and `right wing`."
    words = attribute.rpartition("::")[0].removeprefix("has_").split("_")
    word = next((w for w in reversed(words) if w in PART_WORDS), "")
    for wanted in PART_WORDS.get(word, ()):
        found = [i for i, n in enumerate(part_names) if wanted in n.lower().split()]
        if found:
            return found
    return []


@in_own_modes
def attribute_pairs(
    explainer: Explainer,  # whose attributes are meant
    data: Any,  # `ZeroShotData` with masks of parts or part points
    indices: Tensor,  # (n,) image indices
    transform: Callable,  # PIL image -> (3, H, W) tensor
    per_image: int = 4,  # attributes of each image
    seed: int = 0,  # of the draw
) -> list[
    dict[str, Any]
]:  # image, attribute, part, and `mask` (H, W) or `points` (m, 2) and `box` (H, W)
    "Attributes that images have, with the part of the image that each speaks of; raises `NiwtError` where the data set knows no parts."
    if data.masks is None and data.parts is None:
        raise NiwtError(f"data set {data.name!r} has neither masks of parts nor part points")
    part_names = list(data.part_names) if data.masks is None else list(data.masks(int(indices[0])))
    usable = torch.tensor([bool(parts_of(n, part_names)) for n in explainer.names]) & (
        explainer.parts().sum(1) > 0
    )
    truth, generator = (
        image_truth(explainer, data, indices) & usable,
        torch.Generator().manual_seed(seed),
    )
    lots = (torch.rand(truth.shape, generator=generator) * truth).topk(
        min(per_image, truth.shape[1]), 1
    )
    points = None if data.masks is not None else part_points(data, indices, transform)
    pairs = []
    for r, i in enumerate(torch.as_tensor(indices).tolist()):
        for a in lots.indices[r][lots.values[r] > 0].tolist():
            where = parts_of(explainer.names[a], part_names)
            pair: dict[str, Any] = {
                "image": i,
                "attribute": explainer.names[a],
                "part": part_names[where[0]],
            }
            if points is None:
                pair["mask"] = object_masks(
                    data, torch.tensor([i]), transform, part_names[where[0]]
                )[0]
            else:
                pair |= {
                    "points": points[r, where],
                    "box": object_masks(data, torch.tensor([i]), transform)[0],
                }
            if pair["mask"].any() if points is None else pair["points"].isfinite().any():
                pairs.append(pair)
    return pairs


def part_score(
    heat: Tensor,  # (H, W) map of an attribute
    pair: Mapping[str, Any],  # from `attribute_pairs`
) -> dict[
    str, float
]:  # energy, area and pointing; or distance and centre_distance in box diagonals
    "How well a map falls on the part that the attribute speaks of."
    if "mask" in pair:
        m = pair["mask"]
        hit, inside = (
            float(_pointing_game(heat[None], m[None])[0]),
            float(energy_inside(heat[None], m[None])[0]),
        )
        return {"energy": inside, "area": float(m.float().mean()), "pointing": hit}
    ys, xs = pair["box"].nonzero(as_tuple=True)
    if not len(xs):
        ys, xs = torch.tensor([0, heat.shape[0] - 1]), torch.tensor([0, heat.shape[1] - 1])
    diagonal = float(torch.hypot((xs.max() - xs.min() + 1.0), (ys.max() - ys.min() + 1.0)))
    known = pair["points"][pair["points"].isfinite().all(1)]
    y, x = divmod(int(heat.argmax()), heat.shape[1])
    far = lambda px, py: float((known - torch.tensor([px, py])).norm(dim=1).min()) / diagonal  # noqa: E731
    return {
        "distance": far(float(x), float(y)),
        "centre_distance": far(float(xs.float().mean()), float(ys.float().mean())),
    }


@in_own_modes
def attribute_view(
    explainer: Explainer,  # from `make_explainer` or `fit_explainer`
) -> NetworkView:  # head (D -> A): one row an attribute, no bias
    "The network with the attributes as its classes."
    head = nn.utils.skip_init(
        nn.Linear, explainer.rows.shape[1], len(explainer.rows), bias=False
    ).to(explainer.network.head.weight)
    head.weight = nn.Parameter(explainer.rows.to(head.weight), requires_grad=False)
    return NetworkView(explainer.network, head)


@running
def attribute_map(
    explainer: Explainer,  # from `fit_explainer` or `make_explainer`
    x: Tensor,  # (B, 3, H, W) images, preprocessed
    names: Sequence[str],  # of one attribute an image
) -> Tensor:  # (B, H, W), not negative
    "Where the network sees an attribute: the map of its own row; raises `NiwtError` for an attribute that no neuron answers to."
    picked = [explainer.names.index(check_name(n, explainer.names, "attribute")) for n in names]
    share = explainer.parts()[picked].sum(1)
    if not bool((share > 0).all()):
        raise NiwtError(
            f"no neuron of layer {explainer.network.layer!r} answers to {names[int(share.argmin())]!r}"
        )
    return fine_map(attribute_view(explainer), x, picked)


@in_own_modes
def score_attribute_maps(
    explainer: Explainer,  # from `fit_explainer`; decides which attributes are asked for
    data: Any,  # `ZeroShotData` with masks of parts or part points
    indices: Tensor,  # (n,) image indices
    transform: Callable,  # PIL image -> (3, H, W) tensor
    per_image: int = 4,  # attributes of each image, drawn among those that it has
    maps_of: Explainer | None = None,  # control: whose maps are judged; `None`: its own
    wrong: bool = False,  # control: judge the map of an attribute of another part
    batch_size: int = 64,  # maps a batch
    seed: int = 0,  # of the draw
) -> (
    pd.DataFrame
):  # a row an image and attribute: image, attribute, part and the numbers of `part_score`
    "Does an attribute's map fall on its own part? Energy against area where there are masks, distances where there are points."
    pairs, rows = attribute_pairs(explainer, data, indices, transform, per_image, seed), []
    asked = [p["attribute"] for p in pairs]
    if wrong:
        draw = np.random.default_rng(seed)
        others = {
            part: [p["attribute"] for p in pairs if p["part"] != part]
            for part in {p["part"] for p in pairs}
        }
        asked = [str(draw.choice(others[p["part"]] or [p["attribute"]])) for p in pairs]
    for start in range(0, len(pairs), batch_size):
        some, names = pairs[start : start + batch_size], asked[start : start + batch_size]
        x = torch.stack([transform(data.images[p["image"]]) for p in some])
        for p, heat in zip(
            some, attribute_map(explainer if maps_of is None else maps_of, x, names), strict=True
        ):
            rows.append({k: p[k] for k in ("image", "attribute", "part")} | part_score(heat, p))
    return pd.DataFrame(rows)


def part_summary(
    tables: Mapping[str, pd.DataFrame],  # kind of map -> table from `score_attribute_maps`
) -> (
    pd.DataFrame
):  # a row a kind: energy, area, ratio, pointing, n; or distance, centre_distance, n
    "Mean scores of several kinds of attribute maps."
    rows = []
    for kind, table in tables.items():
        row: dict[str, Any] = {"maps": kind} | {
            c: float(table[c].mean())
            for c in ("energy", "area", "pointing", "distance", "centre_distance")
            if c in table
        }
        rows.append(
            row
            | ({"ratio": row["energy"] / row["area"]} if "energy" in row else {})
            | {"n": len(table)}
        )
    return pd.DataFrame(rows)


@in_own_modes
def score_verdicts(
    explainer: Explainer,  # that made the explanations
    explanations: _Explanations,  # of n images, `index` filled in
    data: Any,  # `ZeroShotData`
    seed: int = 0,  # of the other image whose findings are the control
) -> pd.DataFrame:  # a row a group of predictions and verdict: right (share of claims that hold), control, per_image, n
    "Precision of words for and against, for predictions of seen and of unseen classes and for wrong ones; open words: how many the image shows."
    truth, row = image_truth(explainer, data, explanations.index), explanations.row
    other = torch.randperm(len(row), generator=torch.Generator().manual_seed(seed))
    mixed = replace(explanations, found=explanations.found[other])
    calls = [(e.evidence_sign(explainer), e.said(explainer)) for e in (explanations, mixed)]
    new = torch.tensor([int(c) in explainer.unseen for c in explainer.columns])[row]
    rows = []
    for group, pick in (
        ("seen", ~new),
        ("unseen", new),
        ("wrong", explainer.columns[row] != data.labels[explanations.index]),
    ):
        for verdict, sign in (("for", 1), ("against", -1), ("open", 0)):
            claims = [(v == sign) & said & pick[:, None] for v, said in calls]
            right, control = (float((truth[c] == (sign >= 0)).float().mean()) for c in claims)
            often, images = int(claims[0].sum()), int(pick.sum())
            rows.append(
                {
                    "group": group,
                    "verdict": verdict,
                    "right": right,
                    "control": control,
                    "per_image": often / max(images, 1),
                    "n": images,
                }
            )
    return pd.DataFrame(rows)


@running
def deletion_insertion(
    network: Any,  # a cut network
    x: Tensor,  # (B, 3, H, W) images
    maps: Tensor,  # (B, H, W) what is strong goes first
    target: int | Tensor | Sequence[int],  # head rows
    steps: int = 10,  # points of the curve besides the start
    blur: int = 11,  # pixels, odd
) -> Tensor:  # (B, 2) area under the deletion and under the insertion curve, 0 to 1
    "Deletion and insertion area of maps."
    rows = _check_rows(network, target, len(x))
    pad = F.pad(
        x, [blur // 2] * 4, mode="reflect" if min(x.shape[-2:]) > blur // 2 else "replicate"
    )
    soft = F.avg_pool2d(pad, blur, 1)
    rank = torch.empty_like(maps.flatten(1)).scatter(
        1,
        maps.flatten(1).argsort(1, descending=True),
        torch.linspace(0, 1, maps[0].numel()).expand(len(x), -1),
    )
    rank = rank.view(len(x), 1, *x.shape[-2:])
    curves = []
    with torch.no_grad():
        for t in torch.linspace(0, 1, steps + 1):
            gone = (rank <= t) & (t > 0)
            both = network(
                torch.cat([torch.where(gone, soft, x), torch.where(gone, x, soft)]).contiguous(
                    memory_format=torch.channels_last
                )
            ).softmax(1)
            curves.append(both.gather(1, rows.repeat(2)[:, None]).view(2, -1).T)
    return torch.trapezoid(torch.stack(curves), dx=1 / steps, dim=0)


@in_own_modes
def score_deletion(
    network: Any,  # a cut network
    data: Any,  # `ZeroShotData`
    indices: Tensor,  # (n,) image indices
    transform: Callable,  # PIL image -> (3, H, W) tensor
    rows: Tensor,  # (n,) head rows that the maps are for
    steps: int = 10,  # points of the curves besides the start
    batch_size: int = 50,  # images a batch
    seed: int = 0,  # of the random map
) -> (
    pd.DataFrame
):  # a row a kind of map: deletion (smaller is better), insertion (larger is better), n
    "Mean deletion and insertion areas of Grad-CAM, of the fine map and of a random map."
    sums: dict[str, Tensor] = {}
    done = 0
    for x, _, _ in batches(data, indices, transform, batch_size):
        row = rows[done : done + len(x)]
        a = layer_activations(network, x[:1])
        noise = _random_maps(
            len(x), (a.shape[2], a.shape[3]), (x.shape[2], x.shape[3]), seed + done
        )
        done += len(x)
        for kind, maps in {
            "Grad-CAM": grad_cam(network, x, row),
            "fine map": fine_map(network, x, row),
            "random map": noise,
        }.items():
            sums[kind] = sums.get(kind, torch.zeros(2)) + deletion_insertion(
                network, x, maps, row, steps
            ).sum(0)
    return pd.DataFrame(
        [
            {"maps": k, "deletion": float(s[0]) / done, "insertion": float(s[1]) / done, "n": done}
            for k, s in sums.items()
        ]
    )


class KeptImages(Sequence):
    "Images that are remembered after they were drawn or decoded for the first time."

    def __init__(self, images: Sequence) -> None:
        self.images, self.kept = images, {}  # type: ignore[var-annotated]

    def __len__(self) -> int:
        "As many as there are."
        return len(self.images)

    def __getitem__(self, i: Any) -> Any:
        "The image, from memory if it was asked for before."
        if int(i) not in self.kept:
            self.kept[int(i)] = self.images[int(i)]
        return self.kept[int(i)]


@in_own_modes
def map_table(
    explainer: Explainer,  # from `fit_explainer`
    told: _Explanations,  # of n images, `index` filled in
    blank: Explainer,  # of an untrained network
    lost: _Explanations,  # of the untrained network, for the same images
    data: Any,  # `ZeroShotData` with masks or boxes
    transform: Callable,  # PIL image -> (3, H, W) tensor
    group: Sequence[str],  # (n,) "seen" or "unseen"
    seeds: Sequence[int] = (0, 1, 2),  # of the random map
) -> pd.DataFrame:  # as `score_maps` gives it
    "Where Grad-CAM and the fine map look, beside a random map and the same maps of an untrained network."
    masks = object_masks(data, told.index, transform)
    sharp: dict[str, list[Tensor]] = {"fine map": [], "fine map, untrained network": []}
    done = 0
    for x, _, _ in batches(data, told.index, transform, 32):
        for (_, kept), e, rows in zip(
            sharp.items(), (explainer, blank), (told.row, lost.row), strict=True
        ):
            kept.append(fine_map(e.network, x, rows[done : done + len(x)]))
        done += len(x)
    cells = (told.maps.shape[1], told.maps.shape[2])
    tables = [score_maps(to_size(told.maps.clamp_min(0), told.size), masks, group, cells, seeds)]
    tables += [score_maps(torch.cat(kept), masks, group, kind=kind) for kind, kept in sharp.items()]
    tables.append(
        score_maps(
            to_size(lost.maps.clamp_min(0), told.size),
            masks,
            group,
            kind="Grad-CAM, untrained network",
        )
    )
    return pd.concat(tables, ignore_index=True)


@in_own_modes
def part_table(
    explainer: Explainer,  # from `fit_explainer`
    blank: Explainer,  # of an untrained network
    data: Any,  # `ZeroShotData`
    indices: Tensor,  # (n,) image indices
    transform: Callable,  # PIL image -> (3, H, W) tensor
) -> (
    pd.DataFrame
):  # rows of `part_summary`, then one row a part; empty where the data set knows no parts
    "Whether attribute maps fall on their own part, beside maps of other attributes and of an untrained network."
    if data.masks is None and data.parts is None:
        return pd.DataFrame()
    own = score_attribute_maps(explainer, data, indices, transform)
    if not len(own):
        return pd.DataFrame()
    kinds = {
        "own attribute, fine": own,
        "another part's attribute": score_attribute_maps(
            explainer, data, indices, transform, wrong=True
        ),
    }
    if bool((blank.parts().sum(1) > 0).all()):
        kinds["own attribute, untrained network"] = score_attribute_maps(
            explainer, data, indices, transform, maps_of=blank
        )
    return part_summary(
        kinds | {f"own attribute, fine: {part}": table for part, table in own.groupby("part")}
    )


@in_own_modes
def score_explanations(
    network: Any,  # a `CutNetwork`
    data: Any,  # `ZeroShotData` with masks or boxes
    transform: Callable,  # PIL image -> (3, H, W) tensor
    columns: Tensor
    | None = None,  # (n,) class id of each head row; `None`: seen classes, then unseen ones
    head: nn.Linear | None = None,  # the head with a row a class; `None`: the network's own
    knowledge: str = "attributes",  # name of the domain knowledge
    indices: Tensor | None = None,  # images to explain; `None`: all test images
    seeds: Sequence[int] = (0, 1, 2),  # of the controls
    some: int = 200,  # images for the scores that need many passes an image: attribute maps, deletion
    per_class: int = 20,  # training images of each seen class
) -> dict[
    str, pd.DataFrame
]:  # "where", "attributes", "words", "verdicts", "names", "faithfulness", "deletion"
    "Scores of maps, attribute maps, words, verdicts, names, faithfulness and deletion, each beside its controls."
    data = replace(data, images=KeptImages(data.images))
    explainer = fit_explainer(network, data, transform, columns, head, knowledge, per_class)
    controls = control_explainers(
        network, data, transform, columns, head, knowledge, seeds, per_class
    )
    test = (
        torch.cat([data.test_seen, data.test_unseen])
        if indices is None
        else torch.as_tensor(indices)
    )
    told = explain_images(explainer, data, test, transform)
    blanks = {name: e for name, e in controls.items() if name.startswith("untrained")}
    lost = {name: explain_images(e, data, test, transform, draws=1) for name, e in blanks.items()}
    shuffled = {name: e for name, e in controls.items() if name not in blanks}
    said = {name: e.shown(told.features) for name, e in shuffled.items()} | {
        name: t.shown for name, t in lost.items()
    }
    group = ["unseen" if u else "seen" for u in torch.isin(data.labels[test], data.unseen)]
    few = torch.linspace(0, len(test) - 1, min(some, len(test))).round().long()
    first, truth = next(iter(blanks)), image_truth(explainer, data, test)
    strangers = {name: (e, lost[name].peak) for name, e in blanks.items()}
    return {
        "where": map_table(
            explainer, told, blanks[first], lost[first], data, transform, group, seeds
        ),
        "attributes": part_table(explainer, blanks[first], data, test[few], transform),
        "words": score_words(explainer, told, data, said),
        "verdicts": score_verdicts(explainer, told, data),
        "names": score_names(explainer, told.peak, truth, shuffled, seeds, strangers),
        "faithfulness": score_faithfulness(told, group),
        "deletion": score_deletion(explainer.network, data, test[few], transform, told.row[few]),
    }
