"The command as users meet it: its exit code, one line for a mistake; in a process of its own where that matters, else in this one."

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from niwt_nb import __version__
from niwt_nb.cli import app

NIWT = [sys.executable, "-c", "from niwt_nb.cli import app; app()"]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
TINY = [
    "n_seen=10",
    "n_unseen=3",
    "images_per_class=[5, 2]",
    "epochs=1",
    "more_epochs=1",
    "shuffles=1",
    "cases=2",
]
TINY = [part for setting in TINY for part in ("--set", setting)]


def process(*arguments: str, **kw) -> subprocess.CompletedProcess:
    "The command with these arguments, in a process of its own."
    return subprocess.run(
        [*NIWT, *arguments], capture_output=True, text=True, timeout=300, env=ENV, **kw
    )


@pytest.fixture
def niwt(tmp_path, monkeypatch, capfd):
    "The command with these arguments, in an empty folder."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: object) -> SimpleNamespace:
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            app(list(map(str, arguments)))
        out, errors = capfd.readouterr()
        return SimpleNamespace(returncode=left.value.code, stdout=out, stderr=errors)

    return run


def test_the_entry_point_is_installed():
    script = Path(sys.executable).parent / "niwt"
    done = subprocess.run(
        [str(script), "--version"], capture_output=True, text=True, timeout=60, env=ENV
    )
    assert (done.returncode, done.stdout.strip()) == (0, f"niwt_nb {__version__}")


def test_help_teaches_and_does_not_wait_for_torch():
    code = "import sys; from niwt_nb.cli import app\ntry: app(['--help'])\nfinally: print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=ENV
    )
    assert done.stdout.strip().endswith("False"), "niwt --help loads torch"
    for word in (
        "niwt demo",
        "harmonic mean",
        "run",
        "report",
        "predict",
        "explain",
        "add",
        "export",
        "data",
    ):
        assert word in done.stdout


@pytest.mark.parametrize(
    "command", ["demo", "run", "report", "predict", "explain", "add", "export", "data check"]
)
def test_every_command_explains_itself(command, niwt):
    done = niwt(*command.split(), "--help")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) > 5


def test_nothing_asked_shows_the_help(niwt):
    done = niwt()
    assert "Start with:  niwt demo" in done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["run", "--data", "cup"], "unknown data 'cup'; nearest: 'cub'"),
        (["run", "--data", "cub"], "needs root"),
        (["run", "--data", "cub", "--root", "/no/such"], "no folder"),
        (["run", "--config", "/no/such.toml"], "cannot read the settings"),
        (["run", "--model", "resnet19", *TINY], "unknown network 'resnet19'"),
        (["run", "--model", "no/such.py:load", *TINY], "cannot import"),
        (["demo", "--set", "sed=1"], "unknown setting 'sed'; nearest: 'seed'"),
        (["demo", "--set", "epochs"], "--set takes name=value"),
        (["demo", "--set", "epochs=0"], "epochs is 0"),
        (["demo", "--set", "layer=stage9", *TINY], "unknown layer 'stage9'"),
        (["report", "/no/such/run"], "holds no finished run"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(arguments, words, niwt):
    done = niwt(*arguments)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr and done.stderr.startswith("niwt: ")
    assert len(done.stderr.strip().splitlines()) == 1 and not done.stdout


def test_a_mistake_shows_no_traceback_in_a_process_of_its_own(tmp_path):
    done = process("demo", "--set", "sed=1", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "") and "Traceback" not in done.stderr
    assert done.stderr.startswith("niwt: unknown setting 'sed'; nearest: 'seed'")


def test_an_unknown_option_is_exit_code_2(niwt):
    assert niwt("demo", "--sed", "1").returncode == 2


def test_quiet_prints_the_table_and_where_the_report_is_and_nothing_else(tmp_path, niwt):
    done = niwt("demo", "--quiet", "--json", "t.json", *TINY)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    lines = done.stdout.strip().splitlines()
    assert lines[0].split() == [
        "method",
        "knowledge",
        "calibrated",
        "T1",
        "U",
        "S",
        "H",
        "AUSUC",
        "gamma",
    ]
    assert lines[-1] == "report: niwt-demo/report.html"
    rows = json.loads((tmp_path / "t.json").read_text())
    assert len(lines) == len(rows) + 4
    keys = {"method", "knowledge", "calibrated", "U", "S", "H", "T1", "AUSUC", "gamma", "seed"}
    assert all(set(row) == keys for row in rows)
    assert all(0 <= row[k] <= 1 for row in rows for k in ("U", "S", "H", "T1", "AUSUC"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["niwt-demo", "t.json"]
    again = niwt("demo", "--quiet", "--seed", "1", *TINY)
    assert again.stdout.strip().endswith("report: niwt-demo-seed1/report.html")


def test_an_interrupt_says_how_to_go_on_and_the_same_command_does(tmp_path, niwt):
    long = [*TINY, "--set", "more_epochs=60"]  # some seconds of training in which to stop it
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 (a shell's background jobs inherit a deaf ear)
    pipes = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "preexec_fn": heard,
    }
    started = subprocess.Popen([*NIWT, "demo", *long], **pipes, env=ENV, cwd=tmp_path)
    while started.poll() is None and not list(
        (tmp_path / "niwt-demo" / "validation").glob("network.*")
        if (tmp_path / "niwt-demo").exists()
        else ()
    ):
        time.sleep(0.01)
    for _ in range(5):
        started.send_signal(signal.SIGINT)
        try:  # pressed again where a library's destructor swallowed the first
            _, errors = started.communicate(timeout=10)
            break
        except subprocess.TimeoutExpired:
            pass
    assert started.returncode == 130, errors
    assert errors.strip().splitlines()[-1].startswith("niwt: interrupted; the same command goes on")
    assert "Traceback" not in errors
    done = niwt("demo", *long)
    assert done.returncode == 0, done.stderr
    assert "training on 8 classes: already done" in done.stderr


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, niwt):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    done = niwt("demo", "--out", tmp_path / "mine", *TINY)
    assert (
        done.returncode == 2
        and "is not empty and holds no run (there is 'thesis.txt')" in done.stderr
    )
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_data_check_says_what_is_there_and_what_is_missing(tmp_path, niwt):
    done = niwt("data", "check", tmp_path)
    assert done.returncode == 1 and "Layout expected" in done.stdout
    cub = os.environ.get("NIWT_CUB_ROOT")
    if cub:
        done = niwt("data", "check", cub)
        assert done.returncode == 0, done.stdout
        assert "11788" in done.stdout
