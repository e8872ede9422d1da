"Networks on a GPU, pictures and tables where the user has them: the same numbers as on the CPU. Without a GPU one is pretended (workers/pretend_gpu.py)."

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import backend_registration

if not torch.cuda.is_available() and not hasattr(
    backend_registration, "_setup_privateuseone_for_python_backend"
):
    pytest.skip("no CUDA device, and this PyTorch cannot pretend one", allow_module_level=True)
WORKER = Path(__file__).parent / "workers/device_worker.py"


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    "Check -> the largest difference as a share of the largest number, or the error."
    device = ["cuda:0"] if torch.cuda.is_available() else []
    command = [sys.executable, "-W", "ignore", WORKER, tmp_path_factory.mktemp("device"), *device]
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=580,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_everything_that_runs_a_network_gives_on_a_gpu_what_it_gives_on_the_cpu(told):
    """Where both compute alike the numbers agree to rounding. Forward mode does not run on the pretended GPU, so the Jacobian comes by
    another way there (1e-6), which L-BFGS makes more of; TF32 is off unless the user turns it on."""
    errors = {name: found for name, found in told.items() if isinstance(found, str)}
    assert not errors, "\n".join(f"{name}: {found}" for name, found in errors.items())
    assert max(told.values()) <= 1e-3, told
