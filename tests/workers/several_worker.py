"""Runs that several processes share: two that finish, three of which one dies, two of which one hangs; and a training by one, two and three.

Each is a fork of this process, joined as torchrun joins processes.

python several_worker.py FOLDER
"""

import contextlib
import copy
import json
import os
import signal
import socket
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

import torch

from niwt_nb.cli import app
from niwt_nb.core import NiwtError, process_place, save_tensors, several_processes
from niwt_nb.method.engine import class_importance
from niwt_nb.method.store import write_importance
from niwt_nb.network.backbones import load_backbone
from niwt_nb.network.head import with_head
from niwt_nb.network.training import _steps_of, cache_images, class_to_column
from niwt_nb.runs import pipeline, steps
from niwt_nb.runs.config import RunConfig, config_text
from niwt_nb.runs.folder import _RunFolder
from niwt_nb.runs.pipeline import run

NETWORK = """
import torch
from niwt_nb.fieldguide.network import SmallCNN
from niwt_nb.network.backbones import field_guide_transform as preprocess
default_layer = "stage2"
def load():
    torch.manual_seed(0)
    return SmallCNN(4, width=8, features=16, dropout=0.0)
"""


def settings(folder: Path) -> RunConfig:
    "A frozen network on a few drawn birds."
    (folder / "net.py").write_text(NETWORK)
    small = {"n_seen": 12, "n_unseen": 4, "images_per_class": (4, 2), "shuffles": 1, "cases": 2}
    return RunConfig(model=f"{folder / 'net.py'}:load", train="head", timeout=60, **small)


def tuned(config: RunConfig) -> RunConfig:
    "The same network, fine-tuned above its first stage, and compared with rivals."
    return replace(
        config,
        train="tail",
        tune_from="stage1",
        layer="stage2",
        tune_epochs=1,
        compare="all",
        rivals=("ESZSL",),
        tune_hold=0.2,
        cases=1,
    )


def measure(folder: Path, config: RunConfig) -> None:
    "Importance of all training images but a few on disk, and the class means of them and of ten."
    data, backbone = steps.load_data(config), load_backbone(config.model)
    network, some = backbone.cut(), data.train[torch.arange(len(data.train)) % 9 != 0]
    head = torch.nn.Linear(network.head.in_features, len(data.seen), bias=False)
    head.weight.data = torch.linspace(-1, 1, head.weight.numel()).view_as(head.weight).sin()
    network = with_head(network, head)
    with several_processes(60) as (rank, _):
        write_importance(
            network,
            data,
            some,
            backbone.preprocess,
            folder / "rows",
            shard=8,
            dtype="float32",
            batch_size=8,
        )
        for name, part in (("all", some), ("few", some[:10])):
            means = class_importance(network, data, part, backbone.preprocess, batch_size=8)
            save_tensors(
                folder / f"{name}{rank}.safetensors",
                {"mean": means.mean.nan_to_num(-1), "count": means.count},
                {},
            )


def trained(folder: Path, config: RunConfig) -> None:
    "A whole network with batch norms and dropout: the gradient of a step on ten pictures, and the training step of a run."
    config = replace(
        config,
        model="fieldguide",
        train="network",
        guided=True,
        epochs=1,
        knowledge=("attributes",),
    )
    data = steps.load_data(config)
    with several_processes(60) as (rank, _):
        network, look = steps._untrained(config, len(data.seen))
        cache, y = (
            cache_images(data, data.train, look),
            class_to_column(data)[data.labels[data.train]],
        )
        model = copy.deepcopy(network.model).train()
        torch.manual_seed(rank + 5)  # process 0 decides
        with _steps_of(model, lambda rows: cache.batch(rows, augment=True), y, 0.2) as step:
            loss, right = step(torch.arange(0, 40, 4))
            loss.backward()
        found = {f"gradient {k}": p.grad for k, p in model.named_parameters()} | dict(
            model.named_buffers()
        )
        if rank == 0:
            save_tensors(folder / "step.safetensors", found, {"loss": loss.item(), "right": right})
        steps._network_step(
            _RunFolder(folder / "trained", config=config), ("", data), "of these pictures"
        )


def command(folder: Path) -> None:
    "`niwt run` with the settings, its output in a file of each process."
    with open(folder / f"said{os.environ['RANK']}.txt", "w") as f, contextlib.redirect_stdout(f):
        app(
            ["run", "--config", str(folder / "settings.toml"), "--out", str(folder / "frozen")],
            standalone_mode=False,
        )


def both(folder: Path, config: RunConfig) -> None:
    "The fine-tuned run, up to its report, and the importances."
    pipeline._finish = lambda *given: None
    run(tuned(config), folder / "tuned")
    measure(folder, config)  # joins again
    trained(folder, config)


def forked(folder: Path, n: int, work) -> list[dict]:
    "What n children of this process ended with: `status`, and the `error` and whether it is `first` to be told."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    os.environ |= {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    children = []
    for rank in range(n):
        children.append(os.fork())
        if not children[-1]:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            try:
                work()
                os._exit(0)
            except NiwtError as e:
                (folder / f"error{rank}.json").write_text(
                    json.dumps({"error": str(e), "first": e.__dict__.get("first")})
                )
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
    ended = [os.waitpid(child, 0)[1] for child in children]
    for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        del os.environ[name]
    told = [folder / f"error{rank}.json" for rank in range(n)]
    return [
        {"status": s, **(json.loads(t.read_text()) if t.exists() else {})}
        for s, t in zip(ended, told, strict=True)
    ]


def broken(folder: Path, config: RunConfig, what) -> None:
    "A run whose process 1 comes to a bad end at its first images."
    whole = steps._photo_pass

    def photo_pass(*args, **how):
        if os.environ.get("RANK") == "1":
            what()
        return whole(*args, **how)

    steps._photo_pass = photo_pass
    run(config, folder / "frozen")


def main(folder: Path) -> dict:
    "All of it; what is told about each."
    torch.set_num_threads(1)  # a process with a thread pool must not be forked
    steps._PART = 16  # the key of a shard is that of its images
    config, told = settings(folder), {}
    for name in ("one", "two", "three", "dead", "hung"):
        (folder / name).mkdir()
    run(config, folder / "one" / "frozen")  # first: what is imported here, the others have
    finish, _ = pipeline._finish, both(folder / "one", config)
    pipeline._finish = finish
    (folder / "two/settings.toml").write_text(config_text(config))
    told["two"] = forked(
        folder / "two", 2, lambda: (command(folder / "two"), both(folder / "two", config))
    )
    told["three"] = forked(folder / "three", 3, lambda: trained(folder / "three", config))
    told["dead"] = forked(
        folder / "dead",
        3,
        lambda: broken(folder / "dead", config, lambda: os.kill(os.getpid(), signal.SIGKILL)),
    )
    told["kept"] = len(list((folder / "dead/frozen/photos").glob("*")))
    slow = replace(config, timeout=5)
    told["hung"] = forked(
        folder / "hung",
        2,
        lambda: broken(folder / "hung", slow, lambda: (time.sleep(9), os._exit(3))),
    )
    pipeline._finish = lambda *given: None
    run(config, folder / "dead" / "frozen")
    assert process_place() == (0, 1)
    return told


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
