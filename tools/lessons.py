"""Execute the lessons and save their outputs: `python tools/lessons.py [name ...]` (all of them without names).

Outputs are kept small and the same from run to run: text and pictures only, no timings, no progress bars, no widget state.
"""

import base64
import copy
import io
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from niwt_nb.core import NiwtError
from niwt_nb.course.copies import _solutions, book_text, clean_twin, read_book

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "nbs" / "lessons"
KEPT = ("image/png", "text/html", "text/markdown", "text/latex", "text/plain")

# Runs in the kernel before the first cell: any connection that would leave this machine is an error.
BLOCK = """
import ipaddress, socket
def _niwt_guard(connect):
    def guarded(self, address):
        host = str(address[0]) if isinstance(address, tuple) else "localhost"
        try:
            here = host in ("localhost", "") or ipaddress.ip_address(host.split("%")[0]).is_loopback
        except ValueError:
            here = False
        if not here:
            raise OSError(f"a lesson tried to reach {address!r}; lessons use no network")
        return connect(self, address)
    return guarded
socket.socket.connect = _niwt_guard(socket.socket.connect)
socket.socket.connect_ex = _niwt_guard(socket.socket.connect_ex)
def _niwt_no_name(host, *rest, _real=socket.getaddrinfo, **more):
    if host not in (None, "", "localhost", "127.0.0.1", "::1"):
        raise OSError(f"a lesson tried to look up {host!r}; lessons use no network")
    return _real(host, *rest, **more)
socket.getaddrinfo = _niwt_no_name
del ipaddress, socket
"""


# Runs in the kernel after the last cell: every checker is proved, and passes the folded solution. `PAIRS`: (solution, call of the checker), in order.
SOLVE = """
for _niwt_code, _niwt_call in PAIRS:
    eval(_niwt_call.split("(")[0]).prove()
    exec(_niwt_code, globals())
    _niwt_verdict = eval(_niwt_call, globals())
    assert _niwt_verdict, f"the folded solution does not pass: {_niwt_verdict!r}"
"""


def run_book(
    book: dict[str, Any],  # a notebook
    folder: str | Path,  # the kernel's working folder
    setup: str = "",  # code to run before the first cell
    finish: str = "",  # code to run after the last cell
    timeout: int = 120,  # seconds a cell may take
    allow_errors: bool = True,  # go on after a cell that fails
) -> dict[
    str, Any
]:  # the notebook with outputs; `trouble` in its metadata says how it stopped, if it did
    "Run a notebook in a fresh kernel; raises `NiwtError` if no kernel starts."
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    extra = lambda source: nbformat.v4.new_code_cell(source or "pass")  # noqa: E731
    node = nbformat.from_dict(
        copy.deepcopy({**book, "cells": [extra(setup), *book["cells"], extra(finish)]})
    )
    place: Any = {
        "resources": {"metadata": {"path": str(folder)}},
        "kernel_name": "python3",
        "store_widget_state": False,
    }
    client = NotebookClient(node, timeout=timeout, allow_errors=allow_errors, **place)
    trouble = ""
    try:
        client.execute(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except CellTimeoutError:
        trouble = f"a cell took longer than {timeout} s, the rest was not run"
    except DeadKernelError:
        trouble = "the kernel died, the rest was not run"
    except CellExecutionError as e:
        trouble = f"a cell stopped with {e.ename}: {e.evalue}"
    except RuntimeError as e:
        raise NiwtError(f"no kernel could be started: {e}") from None
    done = json.loads(json.dumps(node))
    errors = [
        o
        for c in (done["cells"][0], done["cells"][-1])
        for o in c["outputs"]
        if o["output_type"] == "error"
    ]
    trouble = trouble or next((f"{o['ename']}: {o['evalue']}" for o in errors), "")
    return {**done, "cells": done["cells"][1:-1], "trouble": trouble}


def solutions(book: dict[str, Any]) -> list[tuple[str, str]]:
    "Each exercise's folded solution and the call of its checker, as (code, call)."
    return [
        (code, f"check_{number.replace('.', '_')}({answer})")
        for number, (answer, code) in _solutions(book).items()
    ]


def fewer_colours(png: str, most: int = 40_000) -> str:
    "A picture as it is, or with 256 colours if it has more than `most` bytes: a page of noisy drawings then takes a third. Base64 in, base64 out."
    content = base64.b64decode(png)
    if len(content) > most:
        with Image.open(io.BytesIO(content)) as picture:
            out = io.BytesIO()
            picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
                out, "PNG", optimize=True
            )
        content = out.getvalue()
    return base64.b64encode(content).decode()


def tidy(output: dict[str, Any]) -> dict[str, Any] | None:
    "One output as it is committed; None for one that is not (progress bars, warnings, widgets that have no page)."
    if output["output_type"] == "stream":
        return None if output["name"] == "stderr" else {**output, "text": "".join(output["text"])}
    if output["output_type"] == "error":
        return output
    data = {k: v for k, v in output.get("data", {}).items() if k in KEPT}
    # lessons have a figure beside each
    of_widget = "needs_background" in output.get("metadata", {})
    widget = (
        "application/vnd.jupyter.widget-view+json" in output.get("data", {})
        and "text/html" not in data
    )
    if widget or of_widget or not data:
        return None
    if "image/png" in data:
        data = {"image/png": fewer_colours(data["image/png"]) + "\n", "text/plain": "<Figure>"}
    kept = {"output_type": output["output_type"], "data": data, "metadata": {}}
    return kept | ({"execution_count": None} if output["output_type"] == "execute_result" else {})


def joined(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    "Printed text in one piece, however the kernel happened to cut it."
    out: list[dict[str, Any]] = []
    for o in outputs:
        if out and o["output_type"] == out[-1]["output_type"] == "stream":
            out[-1] = {**o, "text": "".join(out[-1]["text"]) + "".join(o["text"])}
        else:
            out.append(o)
    return out


def split(text: str) -> list[str]:
    "Text as a notebook file stores it."
    return text.splitlines(True)


def execute(path: Path, timeout: int = 60) -> dict[str, Any]:
    "Run a lesson in a fresh kernel without network, in an empty folder, then its folded solutions; give it back with tidy outputs."
    book = read_book(path)
    with tempfile.TemporaryDirectory() as box:
        finish = SOLVE.replace("PAIRS", repr(solutions(book)))
        ran = run_book(book, box, setup=BLOCK, finish=finish, timeout=timeout, allow_errors=False)
    for cell in ran["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = joined([t for o in cell["outputs"] if (t := tidy(o))])
            cell["execution_count"] = None
            cell["metadata"] = {k: v for k, v in cell["metadata"].items() if k == "tags"}
            # folded in JupyterLab, and left out by page makers that know the tag
            if re.match(r"#\|\s*hide", cell["source"]):
                cell["metadata"] = {"jupyter": {"source_hidden": True}, "tags": ["hide-input"]}
        else:
            cell["metadata"] = {}
    return ran


def stored(book: dict[str, Any]) -> str:
    "The text of a notebook file with outputs stored line by line."
    book = json.loads(json.dumps(book))
    for cell in book["cells"]:
        for output in cell.get("outputs", []):
            for place, key in [(output, "text")] + [
                (output.get("data", {}), k) for k in output.get("data", {})
            ]:
                if isinstance(place.get(key), str) and not key.startswith("image"):
                    place[key] = split(place[key])
        if "outputs" in cell:
            cell["outputs"] = json.loads(json.dumps(cell["outputs"], sort_keys=True))
    kernel = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    return book_text(
        {"cells": book["cells"], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    )


def twin_text(path: Path) -> str:
    "The text of a lesson's clean twin."
    return stored(clean_twin(read_book(path)))


def where(book: dict[str, Any]) -> str:
    "The cell that failed and the end of its traceback, without colours."
    for i, cell in enumerate(book["cells"]):
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                return (
                    f"cell {i}:\n"
                    + re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output["traceback"]))[-2500:]
                )
    return ""


def main(names: list[str]) -> int:
    "Execute and save; the exit code is 1 if a lesson failed, which is then left as it was."
    failed = 0
    for path in sorted(FOLDER.glob("[0-9][0-9]_*.ipynb")):
        if names and not any(n in path.stem for n in names):
            continue
        start = time.monotonic()
        ran = execute(path)
        took = time.monotonic() - start
        if ran["trouble"]:
            failed += 1
            print(f"{path.stem}: {ran['trouble']}\n{where(ran)}", file=sys.stderr)
            continue
        path.write_text(stored(ran), encoding="utf-8")
        print(f"{path.stem:28} {took:5.1f} s  {path.stat().st_size / 1000:6.0f} kB")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
