"Several processes measure what one process measures, and a dead one is an error that leaves its finished work usable."

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from niwt_nb.core import load_tensors
from niwt_nb.method.engine import class_importance
from niwt_nb.method.importance import cmp
from niwt_nb.method.store import open_store, several_processes, write_importance

WORKERS = Path(__file__).parent / "workers"
sys.path.insert(0, str(WORKERS))
from importance_worker import free_port, transform, world  # noqa: E402

WORKER = WORKERS / "importance_worker.py"


def start(*command: object) -> subprocess.CompletedProcess:
    "Start the worker: with torchrun, or on its own."
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, timeout=300, env=environment)


def torchrun(n: int, *arguments: object) -> subprocess.CompletedProcess:
    "Start n processes of the worker on this machine."
    return start("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", n, WORKER, *arguments)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    "What one process measures: the store and the streamed class means."
    data, indices, network = world()
    folder = tmp_path_factory.mktemp("alone")
    store = write_importance(network, data, indices, transform, folder, shard=8, dtype="float32", batch_size=8)
    return store, class_importance(network, data, indices, transform, batch_size=8)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    "Folders with what 1 and 3 processes wrote, children of one that had imported everything, and 2 that torchrun started."
    folder = tmp_path_factory.mktemp("together")
    for result in (start(WORKER, folder, "fork", 1, 3), torchrun(2, folder / "2")):
        assert result.returncode == 0, result.stderr[-3000:]
    return folder


@pytest.mark.parametrize("n", [1, 2, 3])
def test_n_processes_measure_the_same(n, alone, together):
    (store, streamed), tmp_path = alone, together / str(n)
    found = open_store(tmp_path, store.manifest)
    assert found.damaged() == []
    assert torch.equal(found.column("index"), store.column("index")) and torch.equal(found.column("target"), store.column("target"))
    assert cmp("rows", found.rows(), store.rows()).close
    assert cmp("means from shards", found.class_importance()["stage2"].mean, store.class_importance()["stage2"].mean).close
    for rank in range(n):
        means, _ = load_tensors(tmp_path / f"rank{rank}.safetensors")
        assert torch.equal(means["count"], streamed.count)
        assert cmp(f"streamed means, rank {rank} of {n}", means["mean"], streamed.mean).close
    assert not (tmp_path / f"rank{n}.safetensors").exists()


def test_a_dead_process_ends_the_job_and_leaves_whole_shards(alone, tmp_path):
    store, _ = alone
    result = torchrun(2, tmp_path, 1, 4 + 12)  # 4 probes of the data hash, then its first shard and half of its second
    assert result.returncode != 0 and "SIGKILL" in result.stderr + result.stdout
    assert not list(tmp_path.glob("rank*.safetensors"))
    found = open_store(tmp_path, store.manifest)
    missing = found.damaged()
    assert 3 in missing and 0 not in missing and 1 not in missing  # rank 1 wrote shard 1 and died in shard 3
    assert all(not found.path(i).exists() for i in missing), "a half shard was left"
    kept = {i: found.path(i).stat().st_mtime_ns for i in range(found.n_shards) if i not in missing}
    data, indices, network = world()
    again = write_importance(network, data, indices, transform, tmp_path, shard=8, dtype="float32", batch_size=8)
    assert again.damaged() == [] and {i: again.path(i).stat().st_mtime_ns for i in kept} == kept
    assert cmp("rows", again.rows(), store.rows()).close


def test_more_processes_than_work(together):
    "Three processes, two batches: the third has nothing to do and still gets the sums."
    data, indices, network = world()
    expected = class_importance(network, data, indices[:10], transform, batch_size=8)
    for rank in range(3):
        means, _ = load_tensors(together / "3" / f"few{rank}.safetensors")
        assert torch.equal(means["count"], expected.count)
        assert cmp("few", means["mean"], expected.mean.nan_to_num(-1)).close


def test_a_process_that_joined_leaves(monkeypatch):
    "The process group ends with the block, also when the block fails."
    port = free_port()
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ZeroDivisionError), several_processes(timeout=60) as place:
        assert place == (0, 1) and torch.distributed.is_initialized()
        1 / 0  # noqa: B018
    assert not torch.distributed.is_initialized()
