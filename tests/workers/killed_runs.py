"""A run that is killed with SIGKILL at a random moment and started again, `kills` times, and finishes; one that nobody disturbs. Prints both tables as JSON.

python killed_runs.py FOLDER KILLS SEED, where FOLDER gets the folders `undisturbed` and `killed`.
"""

import json
import os
import random
import shutil
import signal
import sys
import time

import torch
from niwt_nb.runs.config import RunConfig
from niwt_nb.runs.pipeline import run

torch.set_num_threads(1)  # a process with a thread pool must not be forked
CONFIG = RunConfig(
    n_seen=12, n_unseen=4, images_per_class=(8, 3), epochs=2, more_epochs=2, shuffles=2, cases=4
)


def finishes_within(folder: str, seconds: float) -> bool:
    "Run in a child that is killed after `seconds`; whether it was done by then."
    child = os.fork()
    if child == 0:
        try:
            run(CONFIG, folder)
        finally:
            os._exit(0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


if __name__ == "__main__":
    place, kills, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    folder = os.path.join(place, "killed")
    dice, killed = random.Random(seed), 0
    while killed < kills:
        if finishes_within(folder, dice.uniform(0.05, 1.0)):
            shutil.rmtree(folder)
        else:
            killed += 1
    again, rows = run(CONFIG, folder), run(CONFIG, os.path.join(place, "undisturbed"))
    left = [name for _, _, names in os.walk(folder) for name in names if name.endswith(".tmp")]
    print(json.dumps({"rows": rows, "again": again, "killed": killed, "left": left}))
