"`python -m benchmarks` lists the measurements, `python -m benchmarks NAME [--json FILE] [--full] [--quiet]` makes one."

import argparse
import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.timing import BENCHES, bench_table
from niwt_nb.core import NiwtError, atomic_path, check_name

for module in (
    "importance",
    "transfer",
    "widgets",
    "explain",
    "contrast",
    "names",
    "words",
    "parts",
    "claims",
    "scale",
    "scores",
    "zoom",
    "imagefree",
):
    importlib.import_module(f"benchmarks.{module}")  # each puts itself on the list

SHORT: dict[str, dict[str, Any]] = {  # without --full
    "importance": {"repeats": 2},
    "transfer": {"repeats": 2},
    "widgets": {"n": 40, "changes": 150},
    "claims": {"worlds": 3},
    "zoom": {"per_class": 2, "side": 192, "seeds": 1},
    "zoom-test": {"per_class": 6, "seeds": 1, "kinds": ("attributes",)},
    "image-free": {"per_class": 6},
    "scale": {"sizes": ((1000, 20), (10_000, 20), (10_000, 500))},
}


def main(arguments: list[str] | None = None) -> int:
    "Run the command line; the exit code is 2 for a name that there is not."
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="ratio = ours / theirs"
    )
    parser.add_argument("name", nargs="?", help="which measurement; without it, the list of them")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--full", action="store_true", help="as long as the recorded tables took")
    parser.add_argument(
        "--keep",
        metavar="FOLDER",
        help="keep trained networks and activations here, and take those that are there",
    )
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress")
    told = parser.parse_args(arguments)
    if told.name is None:
        for name, function in sorted(BENCHES.items()):
            print(f"{name:12} {(function.__doc__ or '').splitlines()[0]}")
        return 0
    try:
        function = BENCHES[check_name(told.name, BENCHES, "benchmark")]
    except NiwtError as e:
        print(e, file=sys.stderr)
        return 2
    options: dict[str, Any] = {} if told.full else dict(SHORT.get(told.name, {}))
    if told.keep is not None:
        if "folder" not in inspect.signature(function).parameters:
            print(f"{told.name!r} has nothing to keep", file=sys.stderr)
            return 2
        Path(told.keep).mkdir(parents=True, exist_ok=True)
        options["folder"] = told.keep
    rows = function(told.quiet, **options)
    if told.json is not None:
        with atomic_path(told.json) as tmp:
            tmp.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(bench_table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
