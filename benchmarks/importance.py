"""How fast is neuron importance, and how much memory does it take, beside Captum, pytorch-grad-cam and a bare forward pass?"""

import copy
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import torch
from captum.attr import LayerGradientXActivation
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import bench_row, bench_table, in_new_process, register
from niwt_nb.core import import_object, import_torchvision, seeded
from niwt_nb.fieldguide.network import SmallCNN
from niwt_nb.fieldguide.world import FieldGuideImages, field_guide
from niwt_nb.method.attribution import _Scores
from niwt_nb.method.engine import ClassSums, ImportanceEngine, measure
from niwt_nb.method.importance import _record, frozen_copy
from niwt_nb.network.backbones import field_guide_transform
from niwt_nb.network.cut import CutNetwork, cut, eval_mode
from niwt_nb.network.modes import in_own_modes


@in_own_modes
def count_operations(
    network: CutNetwork,  # made by `cut`; may be on the "meta" device
    x: Tensor,  # (1, 3, H, W)
) -> dict[
    str, float
]:  # floating-point operations of "lower", "tail", "backward", "full backward" for one image; "K", "D", "positions"
    "Operations of a forward pass up to the layer, of the tail, and of one backward pass through the tail: the engine's, and one that keeps all positions."
    twin = cut(
        frozen_copy(network.model), network.layer, None if x.is_meta else x.expand(2, *x.shape[1:])
    )
    counted = {}

    def count(name: str, work: Callable[[], Any]) -> Any:
        with FlopCounterMode(display=False) as counter:
            result = work()
        counted[name] = float(counter.get_total_flops())
        return result

    with eval_mode(twin), torch.enable_grad():
        A = count("lower", lambda: twin.activations(x)).detach().requires_grad_()
        features = count("tail", lambda: twin.head(twin.tail(A)))
        count("full backward", lambda: torch.autograd.grad(features[:, 0].sum(), A))
        poolings = {network.layer: None if A.ndim == 4 else "tokens"}
        acts, phi, scores = _record(twin.model, poolings, network.head_name, x)
        count("backward", lambda: torch.autograd.grad(scores[:, 0].sum(), acts[network.layer]))
    return counted | {
        "K": A.shape[-1 if A.ndim == 3 else 1],
        "D": phi.shape[1],
        "positions": A[0].numel() // A.shape[-1 if A.ndim == 3 else 1],
    }


@in_own_modes
def plan_run(
    network: CutNetwork,  # made by `cut`; may be on the "meta" device
    x: Tensor,  # (1, 3, H, W)
    images: int,  # how many images
    classes: int,  # columns of the head
    targets: int = 1,  # classes measured an image
    speed: float = 1e13,  # floating-point operations per second that the device really reaches
    reading: float = 2000.0,  # images per second that can be read and decoded
    shard: int = 512,  # images a shard
) -> pd.DataFrame:  # one row a quantity: value, unit
    "Bytes, hours and shards of a long run."
    ops = count_operations(network, x)
    k, d = ops["K"], ops["D"]
    each = ops["lower"] + ops["tail"] + min(targets, d) * ops["backward"]
    per_row = 2 * k + 4
    hours = images * each / speed / 3600
    table = {
        "operations an image": (each / 1e9, "GFLOP"),
        "of them below the layer": (ops["lower"] / each, "share"),
        "computing": (hours, "h"),
        "reading and decoding": (images / reading / 3600, "h"),
        "a loop of whole passes instead": (
            images * targets * (ops["lower"] + ops["tail"] + ops["full backward"]) / speed / 3600,
            "h",
        ),
        "class means, float32": (classes * k * 4 / 1e6, "MB"),
        "sums in memory, float64": (classes * k * 8 / 1e6, "MB"),
        "importance rows, float16": (images * targets * per_row / 1e9, "GB"),
        "features, float32": (images * d * 4 / 1e9, "GB"),
        "shards": (-(-images // shard), "files"),
        "a shard's rows": (shard * targets * per_row / 1e6, "MB"),
        "lost when interrupted, at most": (shard * each / speed, "s"),
    }
    return pd.DataFrame(table, index=["value", "unit"]).T


@in_own_modes
def measure_costs(
    network: CutNetwork,  # made by `cut`
    x: Tensor,  # (B, 3, H, W) images
    classes: Iterable[int] = (1, 2, 5, 10, 20, 50),  # numbers of classes an image
    images: Iterable[int] = (8, 16, 32, 64),  # numbers of images, with one class each
    repeats: int = 3,  # the median of so many counts
) -> pd.DataFrame:  # columns vary ("classes" or "images"), n, method, seconds (CPU time)
    "CPU seconds of the engine, of a loop over Captum's class, and of a bare forward pass."
    engine, model = ImportanceEngine(network), frozen_copy(network.model)
    judge = LayerGradientXActivation(
        _Scores(model, network.head_name),
        model.get_submodule(network.layer),
        multiply_by_inputs=False,
    )
    batch = lambda n: torch.cat([x] * -(-n // len(x)))[:n]  # noqa: E731
    columns = network.head.out_features

    def seconds(work: Callable[[], Any]) -> float:
        work()
        spent = []
        for _ in range(repeats):
            start = time.process_time()
            work()
            spent.append(time.process_time() - start)
        return statistics.median(spent)

    def bare(images: Tensor) -> None:
        with torch.no_grad():
            model(images)

    rows = []
    for vary, numbers in (("classes", classes), ("images", images)):
        for n in numbers:
            data, wanted = (
                (x, [c % columns for c in range(n)]) if vary == "classes" else (batch(n), [0])
            )
            rows.append(
                (
                    vary,
                    n,
                    "engine",
                    seconds(lambda data=data, wanted=wanted: engine(data, [wanted])),
                )
            )  # type: ignore[misc]
            rows.append(
                (
                    vary,
                    n,
                    "Captum, frozen",
                    seconds(
                        lambda data=data, wanted=wanted: [
                            judge.attribute(data, target=c) for c in wanted
                        ]
                    ),
                )
            )  # type: ignore[misc]
            rows.append((vary, n, "bare forward pass", seconds(lambda data=data: bare(data))))  # type: ignore[misc]
    return pd.DataFrame(rows, columns=["vary", "n", "method", "seconds"])


def cost_figure(
    costs: pd.DataFrame,  # from `measure_costs`
) -> Figure:  # two panels: against classes, against images
    "Seconds against the number of classes an image and against the number of images."
    from niwt_nb.figures.canvas import PlainFigure, own_style  # a room above this one

    with own_style():
        figure = PlainFigure(figsize=(9, 3.4), layout="constrained")
        panels = figure.subplots(1, 2)
        for panel, vary in zip(panels, ("classes", "images"), strict=True):
            for method, part in costs[costs.vary == vary].groupby("method", sort=False):
                panel.plot(part.n, part.seconds, marker="o", label=str(method))
            panel.set(
                xlabel="classes an image" if vary == "classes" else "images",
                ylabel="CPU seconds",
                ylim=(0, None),
            )
            panel.spines[["top", "right"]].set_visible(False)
        panels[0].legend(frameon=False)
        return figure


def random_model(
    name: str,  # a torchvision model
    n_classes: int = 1000,  # columns of its head
    seed: int = 0,  # of the weights
) -> nn.Module:  # in evaluation mode, with statistics in its batch norms that are not trivial
    "A torchvision network with random weights."
    with seeded(seed):
        model = import_torchvision().models.get_model(name, num_classes=n_classes)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return model.eval()


def contestants(
    model: nn.Module,  # in evaluation mode
    layer: str,  # the layer's name
    n_classes: int = 1,  # T, classes an image
    only: str | None = None,  # make just this one
) -> dict[str, Callable[[Tensor], Any]]:  # name -> function of a batch (B, 3, H, W)
    "Ways to compute neuron importance, and the bare forward pass; pytorch-grad-cam is there if it is installed."

    def captum(frozen: bool) -> Callable[[Tensor], Tensor]:
        own = frozen_copy(model) if frozen else model
        judge = LayerGradientXActivation(own, own.get_submodule(layer), multiply_by_inputs=False)
        return lambda x: torch.stack(
            [judge.attribute(x, target=t).mean((2, 3)) for t in range(n_classes)], 1
        )

    def engine() -> Callable[[Tensor], Tensor]:
        own = ImportanceEngine(cut(model, layer))
        return lambda x: own(x, [list(range(n_classes))]).alpha

    def grad_cam() -> Callable[[Tensor], Tensor]:
        import_torchvision()
        # it leaves hooks on the model, which would slow the others down
        own = copy.deepcopy(model) if only is None else model
        cam = import_object("pytorch_grad_cam:GradCAM")(own, [own.get_submodule(layer)])

        def run(x: Tensor) -> Tensor:
            rows = []
            for t in range(n_classes):
                cam.outputs = cam.activations_and_grads(x)
                own.zero_grad()
                cam.outputs[:, t].sum().backward(retain_graph=True)
                rows.append(cam.activations_and_grads.gradients[0].mean((2, 3)))
            return torch.stack(rows, 1)

        return run

    def bare() -> Callable[[Tensor], Tensor]:
        return torch.no_grad()(model)

    makers = {
        "engine": engine,
        "Captum, frozen": lambda: captum(True),
        "Captum": lambda: captum(False),
        "bare forward pass": bare,
    }
    if importlib.util.find_spec("pytorch_grad_cam"):
        makers["pytorch-grad-cam"] = grad_cam
    return {name: make() for name, make in makers.items() if only in (None, name)}


def race(
    runners: dict[str, Callable[[Tensor], Any]],  # name -> what to time
    x: Tensor,  # the batch
    repeats: int = 5,  # rounds
) -> dict[str, dict[str, float]]:  # name -> medians of "wall" and "cpu" seconds
    "Time several functions in rounds, each once a round in changing order, after one round on two images to warm up."
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in runners}
    for turn in range(repeats + 1):
        order = list(runners)
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            wall, cpu = time.perf_counter(), time.process_time()
            runners[name](x if turn else x[:2])
            if turn:
                spent[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: {
            "wall": statistics.median(w for w, _ in s),
            "cpu": statistics.median(c for _, c in s),
        }
        for name, s in spent.items()
    }


def peak_memory() -> float:  # MiB
    "The highest resident memory this process ever had."
    status = Path("/proc/self/status")
    # on Linux getrusage also counts what the parent had before it started this program
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    resource = importlib.import_module("resource")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**20 if sys.platform == "darwin" else 1024
    )


def in_fresh_process(
    call: str,  # a Python expression that names functions of this module and gives a number
) -> float:  # its value
    "Evaluate an expression in a new Python process; raises as `in_new_process`."
    return float(
        in_new_process(call, "-c", f"from benchmarks.importance import *; print(float({call}))")
    )


def memory_of(
    name: str,  # a torchvision model
    layer: str,  # the layer's name
    who: str,  # one of `contestants`
    side: int = 224,  # of the images
    batch: int = 32,  # images
) -> float:  # MiB
    "Peak memory of this process after one contestant's work on a batch; meant for a fresh process."
    contestants(random_model(name), layer, only=who)[who](torch.zeros(batch, 3, side, side))
    return peak_memory()


def streaming_growth(
    images: int = 10_000,  # in all
    first: int = 1_000,  # images that do not count yet
) -> float:  # MiB
    "How much resident memory grows between the first images and the last, while class means of the field guide are streamed."
    process, seen, settled, most = psutil.Process(), 0, 0.0, 0.0
    data = field_guide(n_seen=50, n_unseen=10, images_per_class=(-(-images // 50), 1), size=64)
    drawn: Any = data.images
    # drawings kept would be counted
    data = replace(
        data,
        images=FieldGuideImages(
            drawn.looks, drawn.poses, drawn.cues, drawn.species, drawn.size, keep=0
        ),
    )
    with seeded(0):
        engine = ImportanceEngine(cut(SmallCNN(50).eval(), SmallCNN.default_layer))
    sums = ClassSums(50)
    for result, _ in measure(engine, data, data.train[:images], field_guide_transform):
        sums.add(result)
        seen += len(result.logits)
        if seen % 96 < len(result.logits):
            rss = process.memory_info().rss / 2**20
            settled, most = (max(settled, rss), rss) if seen <= first else (settled, max(most, rss))
    return most - settled


CASES = (  # title, torchvision model, layer, classes an image, contestants that have no turn
    ("ResNet-18 layer4.0", "resnet18", "layer4.0", 1, ()),
    ("VGG-16 features.29", "vgg16", "features.29", 1, ("pytorch-grad-cam",)),
    ("ResNet-18 layer4.0", "resnet18", "layer4.0", 50, ("Captum", "pytorch-grad-cam")),
)
MEASURED = ("engine", "Captum, frozen", "Captum")  # whose memory is measured


def in_fresh_processes(
    calls: dict[str, str],  # name -> a Python expression, see `in_fresh_process`
    repeats: int = 5,  # processes for each
) -> dict[str, float]:  # name -> the median of its values
    "Evaluate each expression several times, each time in a new Python process, two at a time."
    with ThreadPoolExecutor(2) as pool:
        values = list(pool.map(in_fresh_process, list(calls.values()) * repeats))
    return {name: statistics.median(values[i :: len(calls)]) for i, name in enumerate(calls)}


def bench_importance(
    repeats: int = 5,  # rounds; medians are reported
    quick: bool = False,  # small images and few of them, to see that it works
    quiet: bool = True,  # do not show each row on the screen as soon as it is known
) -> list[dict[str, Any]]:  # rows as `bench_row` makes them
    "Speed and memory of neuron importance beside Captum, pytorch-grad-cam and a bare forward pass; many classes; a long stream."
    side, batch, many, stream = (32, 4, 5, 300) if quick else (224, 32, 50, 10_000)
    rows: list[dict[str, Any]] = []

    def add(*values: Any) -> None:
        rows.append(bench_row(*values))
        if not quiet:
            print(bench_table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)

    with seeded(0):
        x = torch.randn(batch, 3, side, side)
    for title, name, layer, classes, left_out in CASES:
        n = min(classes, many)
        where = f"{title}, {n} class{'es' if n > 1 else ''}, {batch} x {side} px"
        runners = contestants(random_model(name), layer, n)
        took = race({who: run for who, run in runners.items() if who not in left_out}, x, repeats)
        for peer in [p for p in took if p != "engine"]:
            add(
                where,
                "speed",
                "images/s",
                batch / took["engine"]["wall"],
                peer,
                batch / took[peer]["wall"],
                repeats,
            )
            add(
                where,
                "CPU time",
                "ms/image",
                took["engine"]["cpu"] / batch * 1e3,
                peer,
                took[peer]["cpu"] / batch * 1e3,
                repeats,
            )
        if classes == 1:
            peaks = in_fresh_processes(
                {
                    who: f"memory_of({name!r}, {layer!r}, {who!r}, {side}, {batch})"
                    for who in MEASURED
                },
                repeats,
            )
            for peer in MEASURED[1:]:
                add(where, "peak memory", "MiB", peaks["engine"], peer, peaks[peer], repeats)
    growth = in_fresh_processes({"growth": f"streaming_growth({stream}, {stream // 10})"}, repeats)[
        "growth"
    ]
    add(
        f"{stream} field-guide images to class means",
        "growth after the first tenth",
        "MiB",
        growth,
        "allowed",
        50.0,
        repeats,
    )
    return rows


@register("importance")
def importance_bench(
    quiet: bool = False,  # do not show each row as soon as it is known
    repeats: int = 5,  # rounds
) -> list[dict[str, Any]]:  # rows as `bench_row` makes them
    "`bench_importance` with its defaults, for `python -m benchmarks importance`."
    return bench_importance(repeats, quiet=quiet)
