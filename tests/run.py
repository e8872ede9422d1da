"""All tests, in the order in which a failure is cheapest to find: `python tests/run.py`.

Style and types, the notebooks' own checks, then pytest with branch coverage: the same checks against the exported package, files, faults,
command line, browser, lessons, wheel.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
COVERAGE = ["--cov", "--cov-branch", "--cov-report", "term:skip-covered", "--cov-fail-under", "90"]
STEPS = {
    "pip check": [sys.executable, "-m", "pip", "check"],
    "ruff": [str(BIN / "ruff"), "check", "niwt_nb", "tests"],
    "mypy": [str(BIN / "mypy")],
    "nbdev_test": [str(BIN / "nbdev_test"), "--n_workers", "2", "--do_print"],
    "pytest": [sys.executable, "-m", "pytest", "-n", "2", "--dist", "worksteal", *COVERAGE],
}


def main() -> int:
    "Run every step; the exit code is 0 only if all of them passed."
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    env = {**os.environ, "OMP_NUM_THREADS": threads, "MPLBACKEND": "Agg", "PYTHONHASHSEED": "0", "JUPYTER_PLATFORM_DIRS": "1"}
    env["PATH"] = f"{BIN}{os.pathsep}{env['PATH']}"
    took, failed = {}, []
    for name, command in STEPS.items():
        print(f"== {name}", flush=True)
        start = time.monotonic()
        if subprocess.run(command, cwd=ROOT, env=env).returncode:
            failed.append(name)
        took[name] = time.monotonic() - start
    print("\n".join(f"{name:12} {seconds:6.1f} s  {'FAILED' if name in failed else 'ok'}" for name, seconds in took.items()))
    print(f"{len(STEPS) - len(failed)} passed, {len(failed)} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
