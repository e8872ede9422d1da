"""A right and a wrong student graded by Otter and by nbgrader: `python tools/graders.py [otter | nbgrader]` (a minute of CPU).

The graders are installed into build/graders, an environment of their own that sees the packages of this one. The lesson that they get holds all
its exercises, but of its other code only what these need: that the rest runs is shown by the lessons' tests.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from niwt_nb.course.copies import _exercises_in, _solutions, book_text, lesson_files, read_book
from niwt_nb.course.formats import _export_lessons

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "build" / "graders"
LESSON = "02_importance"
LAST = "precise = copy.deepcopy(network)"  # of the last cell that its exercises need
STUB = "    return NotImplemented  # your code here"
WRONG = "    return gradient.sum((2, 3))"  # of exercise 2.1; the others are not attempted
HINT = "That is the sum over the places. Importance is the mean."


def environment() -> Path:
    "Where the graders' programs are; installed at the first call."
    made = PLACE / "venv"
    if not (made / "bin" / "nbgrader").exists():
        venv.create(made)
        (seen,) = made.glob("lib/python*/site-packages")
        (seen / "niwt.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            made / "bin" / "python",
            "install",
            "-q",
            "-c",
            ROOT / "constraints.txt",
        ]
        subprocess.run([*map(str, pip), "otter-grader>=6", "nbgrader>=0.9"], check=True)
    return made / "bin"


def call(folder: Path, program: str, *given: str) -> None:
    "Run a grader's program in a folder; what it says is shown only if it fails."
    bin = environment()
    # programs and templates
    seen = {
        "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}",
        "JUPYTER_PATH": f"{sys.prefix}/share/jupyter",
    }
    env = os.environ | seen
    done = subprocess.run(
        [str(bin / program), *given],
        cwd=folder,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        raise SystemExit(f"{program} {' '.join(given)}:\n{done.stdout[-3000:]}")


def export(place: Path, to: str) -> None:
    "The lessons as the grader takes them; the lesson that is graded without the code that its exercises do not need."
    _export_lessons(place, to)
    (path,) = place.rglob(f"{LESSON}.ipynb")
    book = read_book(path)
    (needed,) = [i for i, c in enumerate(book["cells"]) if c["source"].startswith(LAST)]
    asked = re.compile(r"check_\d|checkers\(|BEGIN")
    code = [c["cell_type"] == "code" for c in book["cells"]]
    book["cells"] = [
        c
        for i, c in enumerate(book["cells"])
        if i <= needed or not code[i] or asked.search(c["source"])
    ]
    path.write_text(book_text(book), encoding="utf-8")


def answered(released: Path, name: str) -> str:
    "The students' version of the lesson, with the answers of the student `name`."
    book, solved = read_book(released), _solutions(read_book(lesson_files()[f"{LESSON}.ipynb"]))
    right = {code.split("(")[0]: code for _, code in solved.values()}
    for cell in book["cells"]:
        stub = cell["source"].split("(")[0]
        if name == "right" and stub in right:
            head = cell["source"][: cell["source"].index(STUB) + len(STUB)]
            cell["source"] = cell["source"].replace(head, right[stub])
        elif stub == "def my_pool" and name == "wrong":
            cell["source"] = cell["source"].replace(STUB, WRONG)
    return book_text(book)


def by_otter() -> dict[str, tuple[float, float, bool]]:
    "Points, the most there are, and whether the hint is told: of each student."
    place, found = PLACE / "otter", {}
    export(place, "otter")
    # runs the tests on the solutions, too
    call(place, "otter", "assign", f"{LESSON}.ipynb", "dist")
    (grader,) = place.glob("dist/autograder/*.zip")
    for name in ("right", "wrong"):
        (place / name).mkdir()
        (place / name / f"{LESSON}.ipynb").write_text(
            answered(place / "dist" / "student" / f"{LESSON}.ipynb", name)
        )
        call(place, "otter", "run", f"{name}/{LESSON}.ipynb", "-a", str(grader), "-o", name)
        told = json.loads((place / name / "results.json").read_text())["tests"]
        points = [(t.get("score", 0), t.get("max_score", 0)) for t in told]
        found[name] = (
            sum(p for p, _ in points),
            sum(m for _, m in points),
            HINT in json.dumps(told),
        )
    return found


def by_nbgrader() -> dict[str, tuple[float, float, bool]]:
    "The same."
    place, found = PLACE / "nbgrader", {}
    export(place, "nbgrader")
    call(place, "nbgrader", "generate_assignment", LESSON)
    for name in ("right", "wrong"):
        mine = place / "submitted" / name / LESSON
        mine.mkdir(parents=True)
        (mine / f"{LESSON}.ipynb").write_text(
            answered(place / "release" / LESSON / f"{LESSON}.ipynb", name)
        )
    call(place, "nbgrader", "autograde", LESSON)
    call(place, "nbgrader", "generate_feedback", LESSON)
    call(place, "nbgrader", "export", "--to", "grades.csv")
    rows = [row.split(",") for row in (place / "grades.csv").read_text().splitlines()]
    for row in rows[1:]:
        told = dict(zip(rows[0], row, strict=True))
        (page,) = (place / "feedback" / told["student_id"]).rglob("*.html")
        found[told["student_id"]] = (
            float(told["raw_score"]),
            float(told["max_score"]),
            HINT in page.read_text(),
        )
    return found


def main() -> int:
    "Grade, and say whether all is as it should be."
    most = sum(e["level"] for e in _exercises_in(read_book(lesson_files()[f"{LESSON}.ipynb"])))
    graders = [g for g in (by_otter, by_nbgrader) if sys.argv[1:] in ([], [g.__name__[3:]])]
    for grader in graders:
        shutil.rmtree(PLACE / grader.__name__[3:], ignore_errors=True)
    environment()
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda grader: grader(), graders))
    right = [found == {"right": (most, most, False), "wrong": (0, most, True)} for found in results]
    for grader, found, fine in zip(graders, results, right, strict=True):
        print(
            f"{grader.__name__[3:]:9} {'ok' if fine else 'WRONG'} (points, of, told the hint): {found}"
        )
    return right.count(False)


if __name__ == "__main__":
    sys.exit(main())
