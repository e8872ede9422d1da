"One process of several that measure importance together; started by torchrun, or as children of one (`fork`)."

import os
import signal
import socket
import sys
import traceback
from pathlib import Path

import torch

from niwt_nb.core import save_tensors, seeded
from niwt_nb.fieldguide.network import SmallCNN
from niwt_nb.fieldguide.world import field_guide
from niwt_nb.method.engine import class_importance
from niwt_nb.method.store import several_processes, write_importance
from niwt_nb.network.cut import cut


def world():
    "A small data set, 71 of its 80 training images, and a network: the same in every process."
    with seeded(0):
        data = field_guide(n_seen=20, n_unseen=5, images_per_class=(4, 1), size=32, seed=0)
        network = cut(SmallCNN(20, width=8, features=16).eval(), "stage2")
    return data, data.train[torch.arange(80) % 9 != 0], network


def transform(image):
    "PIL image -> (3, H, W) in -0.5 ... 0.5."
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, 3).permute(2, 0, 1) / 255 - 0.5


def main(folder: Path, victim: int = -1, after: int = 0) -> None:
    "Write the shards and the class means of both ways, and those of ten images; rank `victim` kills itself after `after` images."
    data, indices, network = world()
    done = []
    with several_processes(timeout=60) as (rank, _):

        def seen(image):
            done.append(1)
            if rank == victim and len(done) > after:
                os.kill(os.getpid(), signal.SIGKILL)
            return transform(image)

        write_importance(network, data, indices, seen, folder, shard=8, dtype="float32", batch_size=8)
        for name, part in (("rank", indices), ("few", indices[:10])):
            means = class_importance(network, data, part, seen, batch_size=8)
            save_tensors(folder / f"{name}{rank}.safetensors", {"mean": means.mean.nan_to_num(-1), "count": means.count}, {})


def free_port() -> int:
    "A port of this machine that nobody uses."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def forked(folder: Path, n: int) -> None:
    "n children of this process, joined as torchrun joins processes."
    os.environ |= {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    children = []
    for rank in range(n):
        children.append(os.fork())
        if not children[-1]:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            try:
                main(folder)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
    assert not any(os.waitpid(child, 0)[1] for child in children), f"one of {n} processes failed"


if __name__ == "__main__":
    if sys.argv[2:3] == ["fork"]:
        for n in map(int, sys.argv[3:]):
            forked(Path(sys.argv[1]) / str(n), n)
    else:
        main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
