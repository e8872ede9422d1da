"""Every function that runs a network, on a device and with inputs on the CPU: what it gives beside what it gives on the CPU.

python device_worker.py FOLDER [DEVICE]     # DEVICE: cuda:0; without it a pretended GPU, see `pretend_gpu`
"""

import copy
import json
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from pretend_gpu import pretend
from torch import Tensor, nn

from niwt_nb.core import seeded
from niwt_nb.explain import editing, maps, names, words
from niwt_nb.explain.explainer import fit_explainer
from niwt_nb.explain.names import verify_names
from niwt_nb.fieldguide.network import SmallCNN
from niwt_nb.fieldguide.world import field_guide
from niwt_nb.method import engine, jacobian, solvers, store
from niwt_nb.method.niwt import NIWT
from niwt_nb.network import finetuning, head, training, zoom
from niwt_nb.network.backbones import Backbone, field_guide_transform
from niwt_nb.network.cut import layer_names
from niwt_nb.runs import pipeline
from niwt_nb.runs.config import RunConfig


def network_on(device: Any, n: int = 12) -> Backbone:
    "The small network with weights of its own, on a device."
    with seeded(0):
        model = SmallCNN(n, width=8, features=16, dropout=0.0).eval()
    return Backbone(model.to(device), replace(field_guide_transform, size=32), "stage2", "tests")


def numbers(found: Any) -> list[Tensor]:
    "All numbers in a result, on the CPU; the network's own state where the result is a module."
    if isinstance(found, Tensor):
        return [found.detach().cpu().double()]
    if isinstance(found, nn.Module):
        return numbers(list(found.state_dict().values()))
    if isinstance(found, (list, tuple)):
        return [t for part in found for t in numbers(part)]
    if isinstance(found, (int, float)):
        return [torch.tensor([float(found)]).double()]
    return numbers(list(vars(found).values())) if hasattr(found, "__dict__") else []


def checks(folder: Path, data: Any, device: Any) -> dict[str, Callable[[], Any]]:
    "Name -> what is computed there."
    backbone, few = network_on(device), data.train[::6]
    look, x, net = (
        backbone.preprocess,
        torch.stack([backbone.preprocess(data.images[int(i)]) for i in few[:4]]),
        backbone.cut(),
    )
    demand = net.head.weight.detach().cpu() @ torch.linspace(
        -1, 1, 16 * net.activations(x).shape[1]
    ).view(16, -1)
    of_all = partial(jacobian.pooled_jacobian, net, x)
    short = {"epochs": 1, "lr": 1e-3, "batch_size": 8}

    def trained() -> Any:
        model = copy.deepcopy(backbone.model)
        training.train_classifier(
            model, data, look, data.get_knowledge("attributes").values, erase=0.0, **short
        )
        return model

    def fitted() -> NIWT:
        return NIWT(backbone, knowledge="attributes", device=device, calibrate=False).fit(data)

    def explained() -> Any:
        model, picture = fitted(), data.images[int(data.test_seen[0])]
        model.add_class("Red heron", "It has a red body and a long neck.")
        model.save(folder / "model"), model.export(folder / "shipped")
        again = NIWT.load(folder / "model", backbone=backbone, device=device)
        told = again.explain(picture)
        assert told.target == model.predict(picture)[0] and len(told.words)
        return again.decision_function(picture), model.score(data).H, told.map, told.difference

    def added_up() -> Any:
        store.write_importance(net, data, few, look, folder / f"store-{str(device)[:3]}")
        return (
            store.open_store(folder / f"store-{str(device)[:3]}")
            .class_importance()["stage2"]
            .mean.nan_to_num()
        )

    def tuned(part: str) -> Any:
        return finetuning.fine_tune(net, data, look, part=part, **short).network

    def zoomed() -> Any:
        met, crop = [], zoom.closer
        with mock.patch.object(
            zoom, "closer", lambda x, a: met.extend([x.device, a.device]) or crop(x, a)
        ):
            views = zoom.views_of(net, x, True, True)
        assert set(met) == {net.head.weight.device}, met  # pictures go there once, activations stay
        return views, crop(x, net.activations(x))

    def whole(train: str, **more: Any) -> Any:
        pipeline._finish = lambda *given: None  # explanations have a check of their own
        rows = pipeline.run(
            RunConfig(**RUN, train=train, device=str(device), **more),
            folder / f"{train}-{str(device)[:3]}",
        )
        return [list(row.values())[3:8] for row in rows]

    found: dict[str, Callable[[], Any]] = {
        "layer_names": lambda: len(layer_names(backbone.model, x)),
        "extract_features": lambda: head.extract_features(net, data, few, look),
        "fit_head": lambda: (
            head.fit_head(
                net.features(x), torch.tensor([0, 1, 0, 1], device=net.head.weight.device)
            ).weight
        ),
        "neuron_importance": lambda: [
            engine.neuron_importance(net, x, t)
            for t in ("predicted", "all", 1, torch.arange(4), [[0, 2]])
        ],
        "neuron_importance, Captum's": lambda: engine.neuron_importance(net, x, 1, fast=False),
        "other methods": lambda: [
            engine.neuron_importance(net, x, 1, m)
            for m in ("gradient_x_activation", "integrated_gradients")
        ],
        "class_importance": lambda: engine.class_importance(net, data, few, look).mean.nan_to_num(),
        "write_importance": added_up,
        "pooled_jacobian": lambda: [
            of_all(how="reverse").mean,
            of_all().importance(torch.ones(1, 16)),
        ],
        "closed form": lambda: solvers.transfer_weights(net, demand, of_all(), "closed").weight,
        "L-BFGS": lambda: solvers.transfer_weights(net, demand, of_all(), "lbfgs").cosine,
        "the reference solver": lambda: (
            solvers.transfer_weights(net, demand, x, "reference", max_steps=3).weight
        ),
        "maps": lambda: (
            [f(net, x, 1) for f in (maps.grad_cam, maps.fine_map)]
            + [maps.contrast_map(net, x, 1, 2)]
        ),
        "zoom": zoomed,
        "neuron_maps": lambda: maps.neuron_maps(net, x, [0, 1]),
        "NIWT": lambda: fitted().decision_function([data.images[int(i)] for i in data.test_unseen]),
        "NIWT: save, load, add_class, explain, export": explained,
        "train_classifier": trained,
        "fine_tune, tail": lambda: tuned("tail"),
        "fine_tune, all": lambda: tuned("all"),
        "top_images": lambda: names.top_images(net, data, few, look, [0, 3]).value,
        "explainer": lambda: explainer_on(net, data, few, look),
        "a run, frozen": lambda: whole("head"),
        "a run, fine-tuned": lambda: whole(
            "tail", tune_epochs=1, tune_from="stage1", layer="stage2"
        ),
    }
    return found


def explainer_on(net: Any, data: Any, few: Tensor, look: Callable) -> Any:
    "What is made of an explainer that was measured on a device."
    made = fit_explainer(net, data, look, per_class=1)
    told = words.explain_images(made, data, few, look)
    silent = editing.edit_neurons(net, len(made.answers), zero=[0, 1])(look(data.images[0])[None])
    loss = verify_names(made, data, few, look, [0]).loss.fillna(0).tolist()
    return (
        told.strength,
        told.drop,
        editing.background_evidence(made, data, few, look),
        loss,
        silent,
    )


RUN = {
    "n_seen": 12,
    "n_unseen": 4,
    "images_per_class": (3, 1),
    "image_size": 32,
    "shuffles": 1,
    "model": "fieldguide",
    "calibrate": False,
}


def outcome(work: Callable[[], Any]) -> Any:
    "The numbers that a check gives, or its error with the lines of this package that it came from."
    try:
        return numbers(work())
    except Exception as e:
        return (
            f"{type(e).__name__}: {e}\n"
            + "".join(line for line in traceback.format_tb(e.__traceback__) if "niwt_nb" in line)[
                -900:
            ]
        )


def main(folder: Path, device: str | None = None, only: str = "") -> dict[str, float | str]:
    "Name -> the largest difference, as a share of the largest number; or the error."
    torch.set_num_threads(1)
    data = field_guide(12, 4, (3, 1), size=32)
    expected = {
        name: outcome(work) for name, work in checks(folder, data, "cpu").items() if only in name
    }
    told: dict[str, float | str] = {}
    with pretend() if device is None else nullcontext(device) as there:
        for name, work in checks(folder, data, there).items():
            if only not in name:
                continue
            found, wanted = outcome(work), expected[name]
            if isinstance(found, str) or isinstance(wanted, str):
                told[name] = found if isinstance(found, str) else f"on the CPU: {wanted}"
            else:
                told[name] = max(
                    float((a - b).abs().max() / b.abs().max().clamp(min=1e-30))
                    if a.numel()
                    else 0.0
                    for a, b in zip(found, wanted, strict=True)
                )
    return told


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *sys.argv[2:])))
