"""All tests, one command: `python tests/run.py`. Prints the slowest tests and the CPU time of all.

Installed packages, style and the measures of the house, then pytest: the notebooks' checks with branch coverage of the package, types, files,
faults, command line, browser, lessons, wheel. Then the part that computes (the notebooks of the method, lessons 0 to 6) once more as a processor
without vector instructions does it;
`--only numeric` runs that part alone, as the environment says: `ATEN_CPU_CAPABILITY=avx2 python tests/run.py --only numeric`.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from shlex import split

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
SOURCES = ["niwt_nb", "tests", "tools", "benchmarks"]
FILE = str(ROOT / ".coverage")
PYTEST = split("-m pytest --dist loadgroup --no-loadscope-reorder --durations 10")
SLIPCOVER = [sys.executable, *split("-m slipcover --branch --out"), FILE]
WHAT = split("--source niwt_nb --omit niwt_nb/_modidx.py --json")
# three processes on two cores: browsers, kernels and killed runs are waited for
MEASURED = [*SLIPCOVER, *WHAT, *PYTEST, "-n", "3"]
COVERAGE = [*SLIPCOVER, *split("--skip-covered --fail-under 90 --merge"), FILE]
AGAIN = split("-n 2 -m numeric tests/test_notebooks.py tests/test_lessons.py")
NUMERIC = [sys.executable, *PYTEST, *AGAIN]
LESSER = {"ATEN_CPU_CAPABILITY": "default"}
# command, and what it adds to the environment
STEPS: dict[str, tuple[list[str], dict[str, str]]] = {
    "pip check": ([sys.executable, "-m", "pip", "check"], {}),
    "ruff": ([str(BIN / "ruff"), "check", *SOURCES], {}),
    "ruff format": ([str(BIN / "ruff"), "format", "--check", "nbs", *SOURCES[1:]], {}),
    "house": ([sys.executable, "tools/house.py", "--no-worse"], {}),
    "pytest": (MEASURED, {}),
    "coverage": (COVERAGE, {}),
    "pytest, lesser processor": (NUMERIC, LESSER),
}
ONLY = {"numeric": {"pytest, numeric": (NUMERIC, {})}}


def cpu() -> float:
    "Seconds of processor time (user and system) of all finished children."
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(only: str | None = None) -> int:
    "Run every step; the exit code is 0 only if all of them passed."
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    env = {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",  # processes share the cores: threads that wait must not spin
        "MPLBACKEND": "Agg",
        "PYTHONHASHSEED": "0",
        "JUPYTER_PLATFORM_DIRS": "1",
    }
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # many processes import the same files
    env["PATH"] = f"{BIN}{os.pathsep}{env['PATH']}"
    steps, lines, failed = ONLY[only] if only else STEPS, [], 0
    for name, (command, more) in steps.items():
        print(f"== {name}", flush=True)
        start, spent = time.monotonic(), cpu()
        wrong = subprocess.run(command, cwd=ROOT, env=env | more).returncode != 0
        failed += wrong
        lines.append(
            f"{name:26} {time.monotonic() - start:6.1f} s, {cpu() - spent:6.1f} s of CPU  {'FAILED' if wrong else 'ok'}"
        )
    print("\n".join(lines))
    print(f"{len(steps) - failed} passed, {failed} failed; {cpu() / 60:.1f} minutes of CPU")
    return int(failed > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=ONLY, help="run this part alone")
    sys.exit(main(parser.parse_args().only))
