"""Ten students' folders in one call of `niwt lessons --check`, each with another kind of trouble, on a lesson of two exercises."""

import json
import re
from pathlib import Path
from unittest.mock import patch

import pytest
from typer.testing import CliRunner

from niwt_nb.cli import app
from niwt_nb.course import copies
from niwt_nb.course.answers import _landlock

PAGE = [
    "from niwt_nb.course.copies import checkers\ncheck_0_1, check_0_2 = checkers(0, globals())\nnumbers = [3, 4]",
    "total = ...\ncheck_0_1(total)",
    "def twice(x):\n    return NotImplemented\n\n\ncheck_0_2(twice)",
]
CHECKERS = """from niwt_nb.course.exercises import Exercise

# %% 0.1
check_0_1 = Exercise(number="0.1", title="Total", reference=sum(numbers), mistakes={"That is the product.": 12})

# %% 0.2
check_0_2 = Exercise(
    number="0.2", title="Twice", reference=lambda x: 2 * x, inputs=[(3,), (5.0,)],
    mistakes={"You squared it.": lambda x: x * x, "You halved it.": lambda x: x / 2},
)
"""
TOTAL, TWICE = (
    "total = sum(numbers)\ncheck_0_1(total)",
    "def twice(x):\n    return x + x\n\n\ncheck_0_2(twice)",
)
LOOP = "def twice(x):\n    while True:\n        pass\n\n\ncheck_0_2(twice)"
DELETE = """import os, pathlib
for victim in (pathlib.Path("00_tiny.ipynb"), *pathlib.Path(OUTSIDE).rglob("*")):
    try:
        victim.unlink()
    except OSError:
        pass
total = 7
check_0_1(total)"""
CHEAT = """import json, os, sys, IPython.display
print("✓ Exercise 0.1, Total: correct")
won = json.dumps({"status": "correct", "value": True, "outcomes": [[True, "", False]] * 2})
show = IPython.display.display
IPython.display.display = lambda *told, **how: show({"application/vnd.niwt.answer": won}, raw=True)
open(os.environ.get("NIWT_VERDICTS", "verdicts.jsonl"), "w").write(won)
class Equal:
    def __eq__(self, other): return True
check_0_1 = lambda answer: True
check_0_1(Equal())"""
CHEAT_2 = "def twice(x):\n    return check_0_2.reference(x)\n\n\ncheck_0_2(twice)"

STUDENTS = {  # cells, states of the two exercises, and a word of the hint or the trouble
    "right": ([TOTAL, TWICE], "++", ""),
    "half": ([TOTAL, PAGE[2]], "+.", ""),
    "wrong": (
        ["total = 8\ncheck_0_1(total)", "def twice(x):\n    return x * x\n\n\ncheck_0_2(twice)"],
        "--",
        "You squared it.",
    ),
    "looping": (["import time; time.sleep(60)", LOOP, TOTAL], "+-", "took longer than 3 s"),
    "flooding": (
        ["while True: print('x' * 1000)", TOTAL],
        "+.",
        "cell 2: printed more than 5 MB|cell 2: took longer",
    ),
    "deleting": ([DELETE, TWICE], "++", ""),
    "cheating": ([CHEAT, CHEAT_2], "--", "no answer that could be read"),
    "crashing": (
        [TOTAL, "import os; os._exit(1)", TWICE],
        "+.",
        "the process died; the rest was not run",
    ),
    "hungry": (["x = bytearray(5 << 30)", TOTAL, TWICE], "++", "MemoryError"),
    "unreadable": (None, "..", "cannot be read as a notebook"),
}


def book(cells) -> str:
    "A notebook's text."
    made = [
        {
            "cell_type": "code",
            "source": s,
            "id": f"c{i}",
            "metadata": {},
            "outputs": [],
            "execution_count": None,
        }
        for i, s in enumerate(cells)
    ]
    return copies.book_text({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    "The folder of the class, the result of the call and its rows."
    place = tmp_path_factory.mktemp("class")
    lessons = place / "lessons"
    (lessons / "checkers").mkdir(parents=True)
    (lessons / "00_tiny.ipynb").write_text(book(PAGE))
    (lessons / "checkers" / "00_tiny.py").write_text(CHECKERS)
    for name, (cells, _, _) in STUDENTS.items():
        (place / name).mkdir()
        cells = cells and [c.replace("OUTSIDE", repr(str(place / "right"))) for c in cells]
        (place / name / "00_tiny.ipynb").write_text(book([PAGE[0], *cells]) if cells else "{broken")
    folders = [str(place / name) for name in STUDENTS]
    with patch.object(copies, "_lessons_folder", lambda: lessons):
        done = CliRunner().invoke(
            app,
            ["lessons", "--check", *folders, "--timeout", "3", "--json", str(place / "rows.json")],
        )
    return place, done, json.loads((place / "rows.json").read_text())


@pytest.mark.parametrize("name", STUDENTS)
def test_each_student_gets_the_right_verdicts(graded, name):
    rows = [r for r in graded[2] if r["student"] == name]
    assert [r["exercise"] for r in rows] == ["0.1", "0.2"]
    sign = {"correct": "+", "not yet": "-", "not attempted": "."}
    assert "".join(sign[r["state"]] for r in rows) == STUDENTS[name][1], rows
    assert re.search(STUDENTS[name][2], " ".join(r["hint"] + r["trouble"] for r in rows)), rows


def test_the_call_says_what_it_is_worth_and_fails_unless_all_is_right(graded):
    place, done, _ = graded
    assert done.exit_code == 1, done.output
    assert "A self-check, not an exam" in done.output and f"{place / 'right'}:" in done.output


def test_nothing_outside_a_copy_was_touched(graded):
    place = graded[0]
    assert all(
        (place / name / "00_tiny.ipynb").exists()
        for name in STUDENTS
        if name != "right" or _landlock()
    )
    assert not list(Path(place).rglob("verdicts.jsonl"))
