"Several processes give what one gives; one that dies or hangs is one error, and the next start goes on with what is finished."

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from niwt_nb.core import load_tensors, several_processes
from niwt_nb.method.importance import cmp
from niwt_nb.method.store import open_store

WORKERS = Path(__file__).parent / "workers"

RESULTS = ("metrics.json", "metrics.csv", "per_class.csv", "neurons.csv")


def start(*command: object) -> subprocess.CompletedProcess:
    "Start Python with one thread and without a GPU."
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=580,
        env=environment,
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    "The folder with what one, two and three processes left, and what is told about them."
    folder = tmp_path_factory.mktemp("several")
    result = start(WORKERS / "several_worker.py", folder)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder, json.loads(result.stdout.splitlines()[-1])


def same_results(a: Path, b: Path, names: tuple[str, ...] = RESULTS) -> bool:
    return all((a / name).read_bytes() == (b / name).read_bytes() for name in names)


def test_fine_tuning_is_the_same_up_to_the_order_of_sums(done):
    """A step's gradient agrees to 1e-6 (the notebook of fine-tuning). AdamW divides it by its own size, which makes much of a
    rounding error where a gradient is nearly 0: after an epoch the loss agrees to 1e-3 and weights to 1e-2 of the largest of their tensor.
    """
    folder, _ = done
    for name in ("twin", "real"):
        files = [
            next((folder / n / "tuned/compare").glob(f"network-*attributes-0-{name}.safetensors"))
            for n in ("one", "two")
        ]
        (one, about), (two, also) = (load_tensors(file) for file in files)
        assert [r["loss"] for r in also["facts"]["history"]] == pytest.approx(
            [r["loss"] for r in about["facts"]["history"]], rel=1e-3
        )
        for key, value in one.items():
            assert (
                float((two[key].double() - value.double()).abs().max())
                <= 1e-2 * float(value.double().abs().max()) + 1e-12
            ), key
    tables = [
        pd.read_csv(folder / n / "tuned/comparison.csv").drop(columns=["seconds", "settings"])
        for n in ("one", "two")
    ]
    frozen = [t[t.network == "frozen"] for t in tables]
    pd.testing.assert_frame_equal(*frozen)
    assert tables[0][["network", "method", "knowledge"]].equals(
        tables[1][["network", "method", "knowledge"]]
    )


@pytest.mark.parametrize("name", ["two", "three"])
def test_training_a_whole_network_is_the_same_up_to_the_order_of_sums(done, name):
    """The pictures, the masks of dropout and the statistics of batch norm are those of one process: loss and gradient of a step, and batch
    norm's means and variances, agree to 1e-4 of the largest of their tensor (1e-5 here). What AdamW makes of it after an epoch: as above.
    """
    folder, told = done
    assert [t["status"] for t in told[name]] == [0] * len(told[name]), told[name]
    (one, about), (two, also) = (
        load_tensors(folder / n / "step.safetensors") for n in ("one", name)
    )
    assert also == {
        "right": about["right"],
        "loss": pytest.approx(about["loss"], rel=1e-4),
    } and list(two) == list(one)
    for key, value in one.items():
        assert (
            float((two[key].double() - value.double()).abs().max())
            <= 1e-4 * float(value.double().abs().max()) + 1e-9
        ), key
    (one, about), (two, also) = (
        load_tensors(folder / n / "trained/network.safetensors") for n in ("one", name)
    )
    assert [r["loss"] for r in also["facts"]["history"]] == pytest.approx(
        [r["loss"] for r in about["facts"]["history"]], rel=1e-3
    )
    assert list(two) == list(one)
    for key, value in one.items():
        assert (
            float((two[key].double() - value.double()).abs().max())
            <= 1e-2 * float(value.double().abs().max()) + 1e-12
        ), key


def test_importances_are_the_same(done):
    folder, told = done
    assert [t["status"] for t in told["two"]] == [0, 0], told
    one, two = (open_store(folder / n / "rows") for n in ("one", "two"))
    assert one.manifest == two.manifest and two.damaged() == []
    for name in ("index", "target"):
        assert torch.equal(one.column(name), two.column(name))
    assert torch.equal(one.rows(), two.rows())
    for name in ("all", "few"):  # with ten images one of the processes has a batch of two
        expected, _ = load_tensors(folder / f"one/{name}0.safetensors")
        for rank in (0, 1):
            found, _ = load_tensors(folder / f"two/{name}{rank}.safetensors")
            assert torch.equal(found["count"], expected["count"]) and torch.equal(
                found["mean"], expected["mean"]
            )
    assert cmp(
        "means from shards",
        two.class_importance()["stage2"].mean.nan_to_num(-1),
        load_tensors(folder / "one/all0.safetensors")[0]["mean"],
    ).close


def test_a_dead_process_is_one_error_and_its_run_goes_on_with_another_number(done):
    folder, told = done
    dead = told["dead"]
    assert dead[1]["status"] == 9 and dead[0]["status"] and dead[2]["status"]
    (told_by,) = [dead[r]["error"] for r in (0, 2) if dead[r]["first"]]
    assert "process 1 (" in told_by and "of 3 ended before: photos" in told_by, dead
    assert told["kept"] > 0
    # went on with one process, up to the report
    assert same_results(folder / "dead/frozen", folder / "one/frozen", RESULTS[:2])


def test_a_process_that_hangs_is_named_when_the_time_is_up(done):
    folder, told = done
    assert (
        "process 1 (" in told["hung"][0]["error"]
        and "of 2 did not answer for 5 s (timeout) before: photos" in told["hung"][0]["error"]
    ), told["hung"]


def test_two_processes_of_the_command_give_the_same_bytes(done):
    "Each of them is what torchrun starts (the how-to of several processes starts it)."
    folder, _ = done
    assert same_results(folder / "two/frozen", folder / "one/frozen")
    assert [(folder / f"two/said{rank}.txt").read_text().count("report: ") for rank in (0, 1)] == [
        1,
        0,
    ]


def test_a_process_that_joined_leaves(monkeypatch):
    "The process group ends with the block, also when the block fails."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    for name, value in {
        "RANK": 0,
        "WORLD_SIZE": 1,
        "LOCAL_RANK": 0,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ZeroDivisionError), several_processes(timeout=60) as place:
        assert place == (0, 1) and torch.distributed.is_initialized()
        1 / 0  # noqa: B018
    assert not torch.distributed.is_initialized()
