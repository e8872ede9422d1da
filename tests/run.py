"""All tests, one command: `python tests/run.py`. Prints the slowest tests and the CPU time of all.

Installed packages, style and the measures of the house, then pytest: the notebooks' checks with branch coverage of the package, types, files,
faults, command line, browser, lessons, wheel. Beside it the part that computes (the notebooks of the method, lessons 0 to 6) once more, as a processor
without vector instructions does it; what it prints comes afterwards.
`--only numeric` runs that part alone, as the environment says: `ATEN_CPU_CAPABILITY=avx2 python tests/run.py --only numeric`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PYTEST = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder", "--durations", "10"]
FILE = str(ROOT / ".coverage")
MEASURED = [sys.executable, "-m", "slipcover", "--branch", "--source", "niwt_nb", "--omit", "niwt_nb/_modidx.py", "--json", "--out", FILE, *PYTEST[1:]]
COVERAGE = [sys.executable, "-m", "slipcover", "--branch", "--skip-covered", "--fail-under", "90", "--out", FILE, "--merge", FILE]
NUMERIC = [*PYTEST, "-m", "numeric", "tests/test_notebooks.py", "tests/test_lessons.py"]
LESSER = {"ATEN_CPU_CAPABILITY": "default"}
Command = tuple[list[str], dict[str, str]]  # a command, and what it adds to the environment
STEPS: list[dict[str, Command]] = [  # those of a row at once
    {"pip check": ([sys.executable, "-m", "pip", "check"], {})},
    {"ruff": ([str(BIN / "ruff"), "check", "niwt_nb", "tests", "tools", "benchmarks"], {})},
    {"house": ([sys.executable, "tools/house.py", "--no-worse"], {})},
    {"pytest": (MEASURED, {}), "pytest, lesser processor": (NUMERIC, LESSER)},
    {"coverage": (COVERAGE, {})},
]
ONLY: dict[str, list[dict[str, Command]]] = {"numeric": [{"pytest, numeric": (NUMERIC, {})}]}


def at_once(commands: dict[str, Command], env: dict[str, str]) -> dict[str, tuple[bool, float, float]]:
    "Run commands beside each other; whether each passed, its seconds, and those of the processor. The first prints as it goes, the others when they are done."
    print(f"== {', '.join(commands)}", flush=True)
    start, told = time.monotonic(), {}
    with ExitStack() as stack:
        texts = [None, *(stack.enter_context(tempfile.TemporaryFile("w+")) for _ in list(commands)[1:])]
        begun = [subprocess.Popen(c, cwd=ROOT, env=env | more, stdout=t, stderr=t) for (c, more), t in zip(commands.values(), texts, strict=True)]
        names = {process.pid: name for process, name in zip(begun, commands, strict=True)}
        while names:
            pid, status, used = os.wait4(-1, 0)
            told[names.pop(pid)] = (status == 0, time.monotonic() - start, used.ru_utime + used.ru_stime)
        for name, process, text in zip(commands, begun, texts, strict=True):
            process.returncode = int(not told[name][0])  # it was waited for
            if text:
                text.seek(0)
                print(f"== {name}", text.read(), sep="\n", flush=True)
    return told


def main(only: str | None = None) -> int:
    "Run every step; the exit code is 0 only if all of them passed."
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    env = {**os.environ, "OMP_NUM_THREADS": threads, "MPLBACKEND": "Agg", "PYTHONHASHSEED": "0", "JUPYTER_PLATFORM_DIRS": "1"}
    env["PATH"] = f"{BIN}{os.pathsep}{env['PATH']}"
    start, told = time.monotonic(), {}
    for commands in ONLY[only] if only else STEPS:
        told |= at_once(commands, env)
    for name in (n for commands in (ONLY[only] if only else STEPS) for n in commands):
        passed, seconds, cpu = told[name]
        print(f"{name:26} {seconds:6.1f} s, {cpu:6.1f} s of CPU  {'ok' if passed else 'FAILED'}")
    failed = sum(not passed for passed, _, _ in told.values())
    minutes = (time.monotonic() - start) / 60, sum(cpu for _, _, cpu in told.values()) / 60
    print(f"{len(told) - failed} passed, {failed} failed; {minutes[0]:.1f} minutes, {minutes[1]:.1f} of CPU")
    return int(failed > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=ONLY, help="run this part alone")
    sys.exit(main(parser.parse_args().only))
