"""Every public callable that takes a network or a knowledge table, called in every situation that a caller may be in.

The names come from the modules themselves: a new callable needs an entry in `ENTRIES`, or a reason in `ELSEWHERE`.
"""

import os

# before torch: bfloat16 is an illegal instruction on some machines
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")

import copy
import dataclasses
import importlib
import inspect
import pkgutil
import random
import re
import tempfile
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.estimator_checks import check_estimator
from torch import Tensor, nn

import niwt_nb
from niwt_nb.core import NiwtError
from niwt_nb.method.attribution import _METHODS as ATTRIBUTIONS

pytestmark = pytest.mark.filterwarnings("ignore")  # not in `call`: filters belong to all threads
TAKES = {
    "network",
    "networks",
    "model",
    "module",
    "twin",
    "tail",
    "explainer",
    "explainers",
    "engine",
    "view",
    "backbone",
    "knowledge",
    "bench",
}


def public() -> dict[str, list[Any]]:
    "Name -> the public callables of that name that take a network or a knowledge table."
    found: dict[str, list[Any]] = {}
    for place in pkgutil.walk_packages(niwt_nb.__path__, "niwt_nb."):
        if place.name.endswith("__main__"):
            continue
        module = importlib.import_module(place.name)
        for name in getattr(module, "__all__", ()):
            made = getattr(module, name)
            if not callable(made) or getattr(made, "__module__", "") != place.name:
                continue
            if inspect.isclass(made) and issubclass(made, (BaseException, Warning)):
                continue
            parameters = set(inspect.signature(made).parameters)
            if inspect.isclass(made) and hasattr(made, "fit"):
                parameters |= set(inspect.signature(made.fit).parameters)
            if parameters & TAKES:
                found.setdefault(name, []).append(made)
    return found


PUBLIC = public()


def everything() -> SimpleNamespace:
    "All names that are defined in some module, the first of each; internal ones without their underscore."
    names: dict[str, Any] = {}
    modules = [
        importlib.import_module(p.name)
        for p in pkgutil.walk_packages(niwt_nb.__path__, "niwt_nb.")
        if not p.name.endswith("__main__")
    ]
    for hidden in (False, True):
        for module in modules:
            for name, made in vars(module).items():
                here = (
                    getattr(made, "__module__", None) == module.__name__
                    if callable(made)
                    else name in getattr(module, "__all__", ())
                )
                if here and name.startswith("_") == hidden:
                    names.setdefault(name.removeprefix("_"), made)
    names["measure"] = next(
        m for m in PUBLIC["measure"] if "engine" in inspect.signature(m).parameters
    )
    return SimpleNamespace(**names)


N = everything()
# fmt: off
ELSEWHERE = {  # reason -> names
    "holds what it is given and runs nothing": (
        "CutNetwork Explainer Backbone FineTuned NetworkView PooledJacobian Session "
        "RunConfig ZeroShotData ImportanceEngine"
    ),
    "the base of estimators": "Baseline",
    "decision_function through a softmax, with a temperature from validation classes that this world lacks": "NIWT.predict_proba",
    "the mechanism itself, with checks of its own": "eval_mode copy_module",
    "reads names and shapes only": "metric_row model_hash as_backbone",
    "a whole run, assembled of the entries below: test_pipeline, test_presets": (
        "run train_field_guide_network"
    ),
    "parts of the estimator, which has entries of its own": (
        "Probe choose_settings explain_picture has_own_head "
        "score_matrix shuffled_rows features_to_score twin_of with_reader"
    ),
    "rivals and tables of them, assembled of estimators: test_evaluate": (
        "RankingForm compare DEM"
    ),
    "scores of explanations, assembled of maps and words: test_evaluate": (
        "image_truth score_words score_names untrained control_explainers"
    ),
    "widgets: test_widgets, test_browser": (
        "Explorer NeuronExplorer MapExplorer SpeciesDrawer ClassEditor SpeciesDesigner "
        "ExplanationViewer BalanceExplorer WeightExplorer"
    ),
    "what widgets ask a session: test_widgets": "open_session",
    "commands, which take words and call the entries below: test_cli": (
        "add explain export predict"
    ),
    "torch.export and ONNX trace under rules of their own: test_ecosystem": (
        "export_model export_program export_onnx"
    ),
}
# fmt: on
# name -> what is called, given a world; its result is compared
ENTRIES: dict[str, Callable[[Any], Any]] = {
    # cutting and training
    "head_output": lambda w: run_plainly(w, lambda: N.head_output(w.model, "head", w.x)),
    "layout_of": lambda w: N.layout_of(w.model, "stage1", w.x),
    "cut": lambda w: sorted(n for n, _ in N.cut(w.model, "stage2", w.x).tail.named_parameters()),
    "layer_names": lambda w: N.layer_names(w.model, w.x, check=False),
    "choose_layer": lambda w: N.choose_layer(nn.Sequential(w.model), w.x),
    "check_outputs": lambda w: N.check_outputs(w.model, w.x, w.seen, "classes"),
    "accuracy": lambda w: N.accuracy(w.model, w.pixels, w.column),
    "KnowledgeHead": lambda w: w.aware.linear_for(torch.eye(8, device="cpu")).weight,
    "train_classifier": lambda w: N.train_classifier(
        copied(w.model), w.data, w.transform, epochs=1
    )[["loss", "accuracy"]],
    "fine_tune": lambda w: N.fine_tune(w.network, w.data, w.transform, epochs=1, hold=0.0).history[
        ["loss", "accuracy"]
    ],
    "extract_features": lambda w: N.extract_features(w.network, w.data, w.few, w.transform),
    "with_head": lambda w: w.evaluated(N.with_head(w.network, w.model.head)),
    "cache_activations": lambda w: (
        N.cache_activations(w.network, w.data, w.few, w.transform, dtype=torch.float32).values
    ),
    "cached_features": lambda w: N.cached_features(w.network, w.kept),
    "subnetwork": lambda w: w.evaluated(N.subnetwork(w.network, "stage1"), w.low),
    # importance
    "gradient_importance": lambda w: N.gradient_importance(w.network, w.x),
    "frozen_copy": lambda w: N.frozen_copy(w.model),
    "fold_batchnorm": lambda w: N.fold_batchnorm(N.frozen_copy(w.bare)),
    "gradient_pass": lambda w: (
        N.gradient_pass(
            N.frozen_copy(w.model), {"stage1": "space", "stage2": "space"}, "head", w.x, "all"
        ).by_layer
    ),
    "captum_pass": lambda w: [
        N.captum_pass(
            N.frozen_copy(w.model), {"stage2": "space"}, "head", w.x[:2], 1, N.MethodOptions(m)
        ).alpha
        for m in ATTRIBUTIONS
    ],
    "unshare": lambda w: N.unshare(N.frozen_copy(w.model), w.x),
    "lend_rule": lambda w: N.lend_rule(N.frozen_copy(w.model)),
    "neuron_importance": lambda w: N.neuron_importance(w.network, w.x, "all"),
    "measure": lambda w: [r.alpha for r, _ in N.measure(w.engine, w.data, w.few, w.transform)],
    "class_importance": lambda w: N.class_importance(w.network, w.data, w.few, w.transform).mean,
    "write_importance": lambda w: written(w),
    # maps between tables
    "inverse_map": lambda w: N.inverse_map(N.RidgeMap(), w.known, w.alpha).coef_,
    "held_out_agreement": lambda w: N.held_out_agreement(
        N.KernelRidgeMap(), w.known, w.alpha, folds=3
    ),
    "phrase_knowledge": lambda w: N.phrase_knowledge(w.data, min_classes=2).values,
    # transfer
    "activations_of": lambda w: N.activations_of(w.network, w.x),
    "importance_of_weights": lambda w: N.importance_of_weights(
        w.network, w.acts, w.model.head.weight.detach()[:1].expand(len(w.acts), -1)
    ),
    "jacobian_forward": lambda w: N.jacobian_forward(w.network.tail, w.acts),
    "jacobian_reverse": lambda w: N.jacobian_reverse(w.network.tail, w.acts),
    "observe": lambda w: [
        t.detach()
        for t in N.observe(w.network.tail, w.network.tail.get_submodule("stage3"), w.acts)
    ],
    "channelwise_door": lambda w: N.channelwise_door(w.network.tail, w.acts) is not None,
    "jacobian_channelwise": lambda w: N.jacobian_channelwise(
        w.last.tail, w.last_acts, N.channelwise_door(w.last.tail, w.last_acts)
    ),
    "tail_hash": lambda w: N.tail_hash(w.network),
    "works": lambda w: N.works(
        lambda a: N.jacobian_reverse(w.network.tail, a), w.network.tail, w.acts
    ),
    "jacobian_way": lambda w: N.jacobian_way(w.network.tail, w.acts)[0],
    "pooled_jacobian": lambda w: N.pooled_jacobian(w.network, w.x).each,
    "solve_reference": lambda w: N.solve_reference(w.network, w.asked, w.acts, max_steps=5)[0],
    "exact_objective": lambda w: N.exact_objective(w.network, w.rows, w.asked, w.acts),
    "certificate": lambda w: N.certificate(w.network, w.rows, w.asked, w.x, 1e-3),
    "solve_rows": lambda w: N.solve_rows(w.network, w.asked, w.jacobian, "closed", {})[1],
    "transfer_weights": lambda w: [
        N.transfer_weights(w.network, w.asked, w.x, s, features=w.features).weight
        for s in ("closed", "lbfgs")
    ],
    # the estimator
    "NIWT": lambda w: w.fitted().decision_function(w.x),
    "NIWT.predict": lambda w: w.niwt.predict(w.x, top=2),
    "NIWT.decision_function": lambda w: w.niwt.decision_function(w.photos),
    "NIWT.scores_of": lambda w: w.niwt.scores_of(w.features),
    "NIWT.score": lambda w: dataclasses.asdict(w.niwt.score(w.data)),
    "NIWT.explain": lambda w: w.niwt.explain(w.photos[0]),
    "NIWT.add_class": lambda w: with_one_more(w).decision_function(w.x),
    "NIWT.remove_class": lambda w: (
        copied(w.niwt).remove_class(w.data.classes[0]).decision_function(w.x)
    ),
    "NIWT.save": lambda w: saved(
        w, lambda folder: N.NIWT.load(folder, w.backbone).decision_function(w.x)
    ),
    "NIWT.load": lambda w: saved(
        w, lambda folder: N.NIWT.load(folder, w.backbone).explain(w.x[0]).words
    ),
    "NIWT.export": lambda w: exported(w),
    # evaluation
    "ESZSL": lambda w: N.ESZSL().fit(w.features, w.labels, w.table).scores(w.features, w.table),
    "SAE": lambda w: N.SAE().fit(w.features, w.labels, w.table).scores(w.features, w.table),
    "WeightRegression": lambda w: (
        N.WeightRegression().fit(w.features, w.labels, w.table).scores(w.features, w.table)
    ),
    # explanations
    "layer_activations": lambda w: N.layer_activations(w.network, w.x),
    "features_above": lambda w: N.features_above(w.network, w.acts).detach(),
    "head_scores_of": lambda w: N.head_scores_of(w.network, w.features).detach(),
    "grad_cam": lambda w: N.grad_cam(w.network, w.x, 1),
    "layer_gradient": lambda w: N.layer_gradient(w.network, w.acts, w.model.head.weight[0]),
    "contrast_map": lambda w: N.contrast_map(w.network, w.x, 0, 1),
    "neuron_maps": lambda w: N.neuron_maps(w.network, w.x, [0, 3]),
    "fine_map": lambda w: N.fine_map(w.network, w.x, 1),
    "make_explainer": lambda w: (
        N.make_explainer(
            w.network,
            w.data.classes,
            w.data.get_knowledge(),
            N.SeenImages(w.alpha, w.data.seen, w.data.seen),
        ).answers
    ),
    "measure_seen": lambda w: vars(N.measure_seen(w.network, w.data, w.transform, per_class=1)),
    "fit_explainer": lambda w: [
        (made := N.fit_explainer(w.network, w.data, w.transform, per_class=2)).centre,
        made.evidence(w.features),
    ],
    "explain_prediction": lambda w: N.explain_prediction(w.explainer, w.x[0]),
    "score_without_neurons": lambda w: N.score_without_neurons(
        w.network, w.acts, w.first[:, None], w.first
    ),
    "explain_batch": lambda w: N.explain_batch(w.explainer, w.x, draws=2),
    "explain_images": lambda w: N.explain_images(w.explainer, w.data, w.few, w.transform, draws=1),
    "name_neurons": lambda w: N.name_neurons(w.explainer),
    "verify_names": lambda w: N.verify_names(w.explainer, w.data, w.few, w.transform, [0, 1]),
    "best_formula": lambda w: (
        N.best_formula(
            w.data.image_attributes[w.few][:, 0] > 0.5, w.data.image_attributes[w.few] > 0.5
        ).iou
    ),
    "top_images": lambda w: N.top_images(w.network, w.data, w.few, w.transform, [0, 1], n=2).index,
    "edit_neurons": lambda w: w.seen_by(N.edit_neurons(w.network, 12, zero=[0], swap=[(1, 2)])),
    "background_evidence": lambda w: N.background_evidence(w.explainer, w.data, w.few, w.transform),
    "refit_head": lambda w: (
        N.refit_head(w.network, w.data, w.few, w.transform, w.data.seen).head.weight
    ),
    "repair_background": lambda w: N.repair_background(
        w.explainer, w.data, w.few, w.transform, n=2
    )[1],
}


def run_plainly(w: Any, work: Callable[[], Any]) -> Any:
    "A building block that leaves the modes to whoever calls it."
    with N.own_modes(), N.eval_mode(w.model):
        return work().detach()


def copied(model: Any) -> Any:
    with N.own_modes():
        return copy.deepcopy(model)


def with_one_more(w: Any) -> Any:
    model = copied(w.niwt)
    model.add_class("one more", w.table[0] + w.table[1])
    return model


def saved(w: Any, work: Callable[[str], Any]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return work(w.niwt.save(folder))


def exported(w: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        w.niwt.export(folder)
        return sorted(p.name for p in Path(folder).iterdir())


def written(w: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return list(
            N.write_importance(w.network, w.data, w.few, w.transform, folder)
            .class_importance()
            .values()
        )[0].mean


class World(SimpleNamespace):
    "A small network with batch norm and dropout, a few drawn birds, and what was made of them in evaluation mode."

    def evaluated(self, network: nn.Module, x: Tensor | None = None) -> Tensor:
        with N.own_modes(), N.eval_mode(network):
            return network(self.x if x is None else x).detach()

    def fitted(self) -> Any:
        return N.NIWT(self.backbone, calibrate=False).fit(self.data)

    def seen_by(self, view: nn.Module) -> Tensor:
        with N.own_modes():
            return view(self.x).detach()


@lru_cache(1)
def world() -> World:
    data = N.field_guide(6, 3, (3, 2), seed=1, look_alikes=False)
    with N.seeded(0):
        model = N.SmallCNN(len(data.seen), width=4, features=8, dropout=0.5)
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.normal_().mul_(0.1)
                m.running_var.uniform_(0.5, 2)
    model.eval()
    transform = dataclasses.replace(N.field_guide_transform, size=32)
    network, few = N.cut(model, "stage2"), torch.cat([data.train[::2], data.train[1:2]])
    x = torch.stack([transform(data.images[int(i)]) for i in data.train[::4][:4]])
    explainer = N.fit_explainer(network, data, transform, per_class=3)
    alpha = N.class_importance(network, data, None, transform).mean
    features = N.extract_features(network, data, data.train, transform)
    table, place = data.get_knowledge().values, N.class_to_column(data)
    parts: dict[str, Any] = {
        "data": data,
        "model": model,
        "bare": model,
        "network": network,
        "few": few,
    }
    parts |= {
        "x": x,
        "explainer": explainer,
        "alpha": alpha,
        "features": features,
        "transform": transform,
    }
    parts |= {
        "seen": len(data.seen),
        "pixels": N.cache_images(data, few, transform),
        "column": place,
    }
    parts |= {"labels": data.labels[data.train], "known": table[data.seen], "table": table}
    parts |= {
        "engine": N.ImportanceEngine(network),
        "low": N.activations_of(N.cut(model, "stage1"), x),
    }
    parts |= {
        "acts": N.activations_of(network, x),
        "kept": N.cache_activations(network, data, few, transform),
    }
    parts |= {
        "jacobian": N.pooled_jacobian(network, x),
        "asked": alpha[:2],
        "heat": N.grad_cam(network, x, 1),
    }
    parts |= {
        "rows": model.head.weight.detach()[:2].clone(),
        "place": place[data.labels[data.train]],
    }
    parts["first"] = torch.zeros(len(x), dtype=torch.long)
    parts["last"] = N.cut(model, "stage3", x)
    parts["last_acts"] = N.activations_of(parts["last"], x)
    parts["backbone"] = N.Backbone(
        model, transform, "stage2", "tiny", tuple(data.classes[int(c)] for c in data.seen)
    )
    parts["photos"] = [data.images[int(i)] for i in data.test_unseen[:3]]
    parts["niwt"] = N.NIWT(parts["backbone"], calibrate=False).fit(data)
    parts["aware"] = N.KnowledgeHead(parts["known"], 8).eval()
    return World(**parts)


def plain(value: Any) -> Any:
    "A result as nested lists of arrays, for comparison."
    if isinstance(value, Tensor):
        assert not value.is_inference() and value.dtype not in (torch.bfloat16, torch.float16), (
            "results are float32 and can be used anywhere"
        )
        return value.detach().numpy().copy()
    if isinstance(value, nn.Module):
        return plain(value.state_dict())
    if isinstance(value, pd.DataFrame):
        return plain(value.drop(columns=["seconds"], errors="ignore").to_dict("list"))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def check_same(a: Any, b: Any, where: str) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for k in a:
            check_same(a[k], b[k], f"{where}.{k}")
    elif isinstance(a, list) and not all(isinstance(v, (int, float)) for v in a):
        assert len(a) == len(b), where
        for i, (v, u) in enumerate(zip(a, b, strict=True)):
            check_same(v, u, f"{where}[{i}]")
    elif isinstance(a, (np.ndarray, float, list)) and np.asarray(a).dtype.kind == "f":
        size = float(np.nanmax(np.abs(a), initial=0.0)) if np.size(a) else 0.0
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5 * size + 1e-9, err_msg=where)
    elif isinstance(a, (str, int, bool, list, np.ndarray, np.generic, type(None))):
        assert np.array_equal(a, b), f"{where}: {a} became {b}"


def surroundings(model: nn.Module) -> dict[str, Any]:
    "All that a call must leave as it was."
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    mode = lambda k, m: (k, m.training, *(len(getattr(m, h)) for h in kinds))  # noqa: E731
    return {
        "tensors": {
            k: (t.data_ptr(), t._version, t.requires_grad, t.grad is None)
            for k, t in tensors.items()
        },
        "values": {k: t.detach().numpy().tobytes() for k, t in tensors.items()},
        "modes and hooks": [mode(k, m) for k, m in model.named_modules()],
        "random": (
            torch.get_rng_state().numpy().tobytes(),
            repr(np.random.get_state()),
            random.getstate(),
        ),
        "rcParams": dict(matplotlib.rcParams),
        "warnings": list(warnings.filters),
        "torch": (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_default_dtype(),
            torch.get_num_threads(),
        ),
    }


def call(name: str) -> Any:
    return plain(ENTRIES[name](world()))


@lru_cache(maxsize=1)  # whether bfloat16 works is tried in a process of its own
def situations() -> dict[str, Callable[[], Any]]:
    kinds: dict[str, Callable[[], Any]] = {
        "plain": nullcontext,
        "no_grad": torch.no_grad,
        "inference_mode": torch.inference_mode,
    }
    kinds["default device"] = lambda: torch.device("meta")
    if N.bfloat16_works():
        kinds["autocast"] = lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    return kinds


class Interrupted(KeyboardInterrupt):
    "Somebody pressed Ctrl-C."


@pytest.mark.parametrize("name", list(ENTRIES))
def test_equal_in_every_situation_and_nothing_moved(name):
    model = world().model
    model.eval()
    expected = call(name)
    before = surroundings(model)
    for situation, enter in situations().items():
        with enter():
            found = call(name)
        check_same(expected, found, f"{name}, {situation}")
        assert surroundings(model) == before, f"{name}, {situation}"
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(call, [name] * 4):
            check_same(expected, found, f"{name}, threads")
    assert surroundings(model) == before, f"{name}, threads"
    model.train()
    model.stage1.eval()
    try:
        before = surroundings(model)
        check_same(expected, call(name), f"{name}, training mode")
        assert surroundings(model) == before, f"{name}, training mode"
        interrupt(name, model)
        assert surroundings(model) == before, f"{name}, interrupted"
    finally:
        model.eval()
    check_same(expected, call(name), f"{name}, afterwards")


def interrupt(name: str, model: nn.Module) -> None:
    "Call while a forward pass of the network is interrupted; hooks come and go with it."

    def stop(module: nn.Module, args: Any) -> None:
        raise Interrupted

    handle = model.stage3.register_forward_pre_hook(stop)
    try:
        call(name)
    except (Interrupted, NiwtError):
        pass
    finally:
        handle.remove()


METHODS = {  # of its own, not those of scikit-learn
    f"NIWT.{n}"
    for n in dir(N.NIWT)
    if callable(getattr(N.NIWT, n)) and not re.match("_|[gs]et_", n)
}
# the entry "NIWT" fits one; the other only sets parameters
MEASURED = {"NIWT.fit", "NIWT.as_published"}


def test_every_public_callable_has_an_entry():
    listed = set(ENTRIES) | {name for names in ELSEWHERE.values() for name in names.split()}
    assert sorted(set(PUBLIC) - listed) == [], (
        "a public callable that takes a network or a knowledge table needs an entry in ENTRIES, or a reason in ELSEWHERE"
    )
    assert sorted(METHODS - MEASURED - listed) == [], "a method of the estimator needs an entry"
    assert sorted(listed - set(PUBLIC) - METHODS - set(vars(N))) == [], (
        "an entry for a callable that does not exist any more"
    )


def test_classes_come_and_go_while_others_predict_and_explain():
    w = world()
    model, wanted = copied(w.niwt), plain(w.niwt.decision_function(w.x))
    explain = lambda: model.explain(w.x[0], *w.data.classes[:2]).words.set_index("attribute")  # noqa: E731
    told = explain()

    def ask(i: int) -> Any:
        if i % 4 == 0:
            model.add_class(f"bird {i}", w.table[i % 6] * 0.9)
            return model.remove_class(f"bird {i}")
        if i % 4 == 1:
            # which words come first depends on the classes that there are, what they did does not
            now = explain()
            both = told.index.intersection(now.index)
            assert len(both) > 2
            return check_same(plain(told.strength[both]), plain(now.strength[both]), "explain")
        return check_same(
            wanted,
            plain(model.decision_function(w.x)[:, : len(w.data.classes)]),
            model.predict(w.x, top=1)[0][0][0],
        )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(24)))
    check_same(wanted, plain(model.decision_function(w.x)), "afterwards")
    check_same(plain(told), plain(explain()), "afterwards")


def test_eight_threads_share_an_engine():
    w, wanted = world(), world().engine(world().x).alpha
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(
                lambda i: (
                    w.engine(w.x).alpha,
                    N.grad_cam(w.network, w.x, i % 3),
                    threading.get_ident(),
                ),
                range(32),
            )
        )
    for i, (alpha, heat, _) in enumerate(found):
        check_same(plain(wanted), plain(alpha), "engine")
        check_same(plain(N.grad_cam(w.network, w.x, i % 3)), plain(heat), "grad_cam")


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_images_follow_the_numbers_of_the_model(kind):
    if kind == torch.bfloat16 and not N.bfloat16_works():
        pytest.skip("this processor has no bfloat16")
    w = world()
    network = N.cut(copy.deepcopy(w.model).to(kind), "stage2", w.x)
    of = {
        "maps": lambda n: N.grad_cam(n, w.x, 1),
        # a rounded tie sends the gradient to another pixel nearby
        "fine": lambda n: torch.nn.functional.avg_pool2d(N.fine_map(n, w.x, 1), 8),
        "importance": lambda n: N.neuron_importance(n, w.x, 1),
        "class": lambda n: N.class_importance(n, w.data, w.few, w.transform).mean.nan_to_num(),
        "features": lambda n: N.extract_features(n, w.data, w.few, w.transform),
        "jacobian": lambda n: N.pooled_jacobian(n, w.x).mean,
        "rows": lambda n: (
            N.transfer_weights(n, w.asked, w.x, "closed", ridge=1.0, features=w.features).weight
        ),
        "reference": lambda n: N.solve_reference(n, w.asked, w.acts, max_steps=3)[0],
        "explainer": lambda n: N.fit_explainer(n, w.data, w.transform, per_class=2).rows,
        "words": lambda n: (
            N.explain_batch(N.fit_explainer(n, w.data, w.transform, per_class=2), w.x).probability
        ),
    }
    for what, work in of.items():
        judge, found = work(w.network), work(network)
        assert found.dtype in (torch.float32, kind) and found.dtype != torch.bfloat16, what
        gap = float((judge.double() - found.double()).norm() / judge.double().norm())
        assert gap < (1e-3 if kind == torch.float64 else 0.2), f"{what}: off by {gap:.2g}"


ESTIMATORS = [
    m
    for m in vars(N).values()
    if inspect.isclass(m) and issubclass(m, N.ImportanceMap) and m is not N.ImportanceMap
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.__name__)
def test_scikit_learns_own_checks(estimator):
    quick = {"epochs": 20} if "epochs" in inspect.signature(estimator).parameters else {}
    made: BaseEstimator = estimator(**quick)
    failed = [
        c for c in check_estimator(made, on_fail=None, on_skip=None) if c["status"] == "failed"
    ]
    assert not failed, [(c["check_name"], str(c["exception"])) for c in failed]
