"Types: mypy, as `python -m mypy` says it."

import subprocess
import sys

from notebooks import ROOT


def test_types():
    done = subprocess.run(
        [sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
