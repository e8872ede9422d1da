"""The lessons: each runs once, in a kernel of its own without network; its stored outputs are those of the run, it has all its parts and a current clean twin.

The order is shuffled, so that no lesson can lean on another. The variables that name real photos are taken away: committed outputs are those
of a machine without them. The kernels begin with the package imported (see workers/kernels.py); that of the last lesson is started as Jupyter does it.
"""

import random
import re
from pathlib import Path

import pytest
from lessons import FOLDER, execute, joined, solutions
from notebooks import LESSONS, NBS, cells, numeric

from niwt_nb.course.copies import _checker_file, _exercises_in, _for_students, clean_twin, read_book
from niwt_nb.course.progress import _questions

SHUFFLED = random.Random(0).sample(LESSONS, len(LESSONS))
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def ids(path):
    return path.stem


def outputs(book) -> list[dict]:
    "All outputs of a notebook, in order."
    return [o for c in book["cells"] if c["cell_type"] == "code" for o in joined(c["outputs"])]


def words(output) -> str:
    "The text of an output; empty for a picture."
    text = output.get("text") or output.get("data", {}).get("text/plain", "")
    return "".join(text)


def differs(stored: str, now: str) -> str:
    "How a stored text differs from a new one: other words, or numbers further apart than rounding and other processors explain; empty if it does not."
    if NUMBER.sub("#", stored).split() != NUMBER.sub("#", now).split():
        return f"stored {stored[:300]!r}, now {now[:300]!r}"
    for a, b in zip(
        map(float, NUMBER.findall(stored)), map(float, NUMBER.findall(now)), strict=True
    ):
        if abs(a - b) > 0.02 + 0.02 * abs(a) and max(abs(a), abs(b)) > 1e-3:
            return f"stored {a}, now {b}, in {stored[:300]!r}"
    return ""


def test_a_changed_output_is_noticed():
    assert not differs("T1 0.98  H 0.91", "T1 0.98   H 0.915")
    assert differs("T1 0.98  H 0.91", "T1 0.98  H 0.81") and differs("a robin 0.9", "a wren 0.9")


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, id=p.stem, marks=[pytest.mark.numeric] if numeric(p) else [])
        for p in SHUFFLED
    ],
)
def test_lesson_runs_in_a_fresh_kernel_and_its_outputs_are_current(path, kernels, monkeypatch):
    if path != LESSONS[-1]:
        for name, value in kernels.items():
            monkeypatch.setenv(name, value)
    for name in ("NIWT_CUB_ROOT", "NIWT_XLSA17_ROOT", "NIWT_BACKBONE"):
        monkeypatch.delenv(name, raising=False)
    ran, stored = execute(path, timeout=240), read_book(path)
    assert not ran["trouble"], ran["trouble"]
    old, new = outputs(stored), outputs(ran)
    assert ["image/png" in o.get("data", {}) for o in old] == [
        "image/png" in o.get("data", {}) for o in new
    ], "run: python tools/lessons.py " + path.stem
    faults = [f for a, b in zip(old, new, strict=True) if (f := differs(words(a), words(b)))]
    assert not faults, "run: python tools/lessons.py " + path.stem + "\n" + "\n".join(faults)


@pytest.mark.parametrize("path", LESSONS, ids=ids)
def test_lesson_has_all_its_parts(path):
    every = cells(path)
    text = "\n".join(c.source for c in every if c.kind == "markdown")
    code = [c.source for c in every if c.kind == "code"]
    parts = (
        "**You will be able to**",
        "**Needs**",
        "**Takes**",
        "**Predict",
        "## Exercises",
        "## Recall",
        "## What next",
    )
    missing = [what for what in parts if what not in text]
    assert not missing, f"{path.stem} lacks {missing}"
    tasks = _exercises_in(read_book(path))
    assert len(tasks) >= 4 and len({t["level"] for t in tasks}) >= 2, f"{len(tasks)} exercises"
    hidden = [bool(re.match(r"#\|\s*hide", s)) for s in code]
    assert hidden == sorted(hidden), "a hidden cell that is not at the end"
    asked = [c.source.splitlines()[-1] for c in every if "import recall" in c.source]
    assert asked == [f"recall({int(path.stem[:2])})"] and len(_questions(path.stem[:2])) >= 5, (
        "the recall questions are not asked, or fewer than five"
    )
    assert text[: text.index("## Recall")].count("<details>") >= len(tasks) + 1, (
        "an exercise has no folded solution, or no prediction a folded answer"
    )
    solved = solutions(read_book(path))  # run against their checkers where the lesson is executed
    assert len(solved) == len(tasks) and all(code.strip() for code, _ in solved), (
        "a folded solution that its checker cannot be asked about"
    )
    assert any("image/png" in o.get("data", {}) for c in every[:5] for o in c.outputs), (
        "no picture in the first screen"
    )
    assert any(
        re.match(r"#\|\s*hide", s) and re.search(r"^\s*assert |test_", s, re.M) for s in code
    ), "no hidden cell asserts the numbers of the text"


@pytest.mark.parametrize("path", LESSONS, ids=ids)
def test_the_answers_lie_beside_the_page(path):
    numbers = [n for n in _checker_file(path.stem[:2])[1] if n]
    for book in (read_book(path), clean_twin(read_book(path))):
        code = [c["source"] for c in book["cells"] if c["cell_type"] == "code"]
        first = (
            ", ".join("check_" + n.replace(".", "_") for n in numbers)
            + f" = checkers({int(path.stem[:2])}, globals())"
        )
        assert (
            re.sub(r"\s", "", first) in re.sub(r"\s", "", code[0])
            and [t["number"] for t in _exercises_in(book)] == numbers
        )
        assert not [s for s in code if "Exercise(" in s or "mistakes=" in s]
    hints = re.findall(
        r"(?<![\w*])\*[A-Za-z][^*\n]*?\*(?!\*)",
        (FOLDER / "checkers" / f"{path.stem}.py").read_text(encoding="utf-8"),
    )
    assert not hints, f"asterisks would be shown: {hints}"


@pytest.mark.parametrize("path", LESSONS, ids=ids)
def test_a_copy_spoils_no_prediction_and_carries_no_proof(path):
    book, handed = read_book(path), _for_students(read_book(path))
    assert not [c for c in handed["cells"] if c["source"].startswith("#|")]
    shown, asked = [], False
    for cell in handed["cells"]:
        asked = (
            cell["cell_type"] == "markdown"
            and "**Predict" in cell["source"]
            or asked
            and cell["cell_type"] == "code"
        )
        shown += [cell["source"]] if asked and cell.get("outputs") else []
    assert not shown and len(outputs(handed)) < len(outputs(book))


@pytest.mark.parametrize("path", LESSONS, ids=ids)
def test_links_between_lessons_and_pages_lead_somewhere(path):
    broken = [
        link
        for c in cells(path)
        if c.kind == "markdown"
        for link in re.findall(r"\]\(([^)#:]+\.ipynb)", c.source)
        if not (
            (path.parent / link).exists()
            or (NBS / link).exists()
            or any(NBS.rglob(Path(link).name))
        )
    ]
    assert not broken, broken
