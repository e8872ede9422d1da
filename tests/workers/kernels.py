"""Jupyter kernels that begin with everything imported: a process imports the package once and forks for each kernel that is asked for.

A kernel's variables, folder and environment are its own; only the time of the imports is saved, and that of the field guide's drawings and session,
which a process makes once. `served(folder)` starts that process, once for all tests; `ready(folder)` waits for it.
As a script: `kernels.py serve SOCKET`, or `kernels.py start SOCKET ...` in the place of `ipykernel_launcher`, which needs no package at all.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time


@contextlib.contextmanager
def served(folder):
    "Serve kernels while the block runs; `folder` must be new."
    address, spec = str(folder / "socket"), folder / "kernels" / "python3"
    spec.mkdir(parents=True)
    argv = [sys.executable, "-I", "-S", __file__, "start", address, "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(
        json.dumps({"argv": argv, "display_name": "python3", "language": "python"})
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith("NIWT_")}
    server = subprocess.Popen([sys.executable, __file__, "serve", address], env=env)
    try:
        yield
        if server.poll() is not None:
            return
        ready(folder)
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(address)
            last.sendall(b"null\n")
        server.wait(60)
    finally:
        server.kill()
        server.wait()


def ready(folder):
    "Wait until kernels are served; the variables under which Jupyter starts its `python3` kernel here."
    for _ in range(3000):
        if (folder / "socket.ready").exists():
            return {"JUPYTER_PATH": str(folder)}
        time.sleep(0.1)
    raise RuntimeError(f"nobody serves kernels in {folder}")


def start(address: str, argv: list[str]) -> None:
    "Ask for a kernel, and end when it ends; when this process is ended, so is the kernel."
    with socket.socket(socket.AF_UNIX) as there:
        there.connect(address)
        there.sendall(
            json.dumps({"argv": argv, "cwd": os.getcwd(), "env": dict(os.environ)}).encode() + b"\n"
        )
        there.recv(1)


def kernel(there: socket.socket, asked: dict, threads: int) -> None:
    "Become the kernel that was asked for."
    import random
    import threading

    import numpy
    import torch
    from ipykernel.kernelapp import launch_new_instance

    def gone():
        there.recv(1)
        os._exit(1)

    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    torch.set_num_threads(threads)
    silent = os.open(os.devnull, os.O_RDWR)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    random.seed()
    numpy.random.seed()
    sys.argv, sys.path[0] = ["ipykernel_launcher", *asked["argv"]], ""
    threading.Thread(target=gone, daemon=True).start()
    launch_new_instance(argv=asked["argv"])


def serve(address: str) -> None:
    "Import, then fork a kernel for each request; ends on the request `null`, when all kernels have ended."
    import importlib
    import pkgutil

    import ipykernel.kernelapp  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import torch
    import torch._dynamo  # noqa: F401  what the first optimiser imports

    import niwt_nb

    modules = {}
    for module in pkgutil.walk_packages(niwt_nb.__path__, "niwt_nb."):
        modules[module.name] = importlib.import_module(module.name)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a process with a thread pool must not be forked
    session = next(m.open_session for m in modules.values() if hasattr(m, "open_session"))()
    assert len(session.given)  # every picture is drawn
    children = []
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address)
        door.listen()
        open(f"{address}.ready", "w").close()
        while True:
            there, _ = door.accept()
            asked = json.loads(there.makefile().readline())
            if asked is None:
                break
            child = os.fork()
            if child == 0:
                door.close()
                try:
                    kernel(there, asked, threads)
                finally:
                    os._exit(0)
            children.append(child)
            there.close()
            children = [c for c in children if not os.waitpid(c, os.WNOHANG)[0]]
    for c in children:
        os.waitpid(c, 0)


if __name__ == "__main__":
    what, address, *argv = sys.argv[1:]
    serve(address) if what == "serve" else start(address, argv)
