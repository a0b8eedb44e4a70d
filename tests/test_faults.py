"""What is killed, filled, forbidden or taken away in the middle: nothing is lost, repeated or left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import psutil
import pytest
from sweeping import SMALL, TRAIN, all_ended, start_sweep, training_notebook, wait_for

from bats_lab.config import Config
from bats_lab.errors import BatsLabError
from bats_lab.runs.files import run_path
from bats_lab.sweeps.execute import KILLED
from bats_lab.sweeps.folder import FolderLock, settle_folder
from bats_lab.sweeps.journal import read_status
from bats_lab.sweeps.pool import Call, Pool
from bats_lab.sweeps.sweep import run_sweep
from bats_lab.sweeps.worker import RUN_NOTEBOOK

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def asleep(tmp_path_factory: pytest.TempPathFactory) -> Callable[[float], Call]:
    """A call that executes a notebook which says where it keeps temporary files, and then waits for some seconds."""
    folder = tmp_path_factory.mktemp("sleeper")
    code = "import tempfile, time\ntempfile.mkstemp()\nprint(tempfile.gettempdir(), flush=True)\ntime.sleep(seconds)"
    parameters = nbformat.v4.new_code_cell("seconds: float = 0.0", metadata={"tags": ["parameters"]})
    made = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(code)])
    made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, folder / "sleep.ipynb")
    paths = {"source": str(folder / "sleep.ipynb"), "out": str(folder / "out" / "out.ipynb")}
    return lambda seconds: Call(RUN_NOTEBOOK, paths | {"parameters": {"seconds": seconds}})


@pytest.fixture(scope="module", params=[True, False] if sys.platform == "linux" else [False])
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    """A pool that forks its processes, and one that does not."""
    with Pool(1, fork=request.param) as pool:
        yield pool


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_worker_that_is_killed_leaves_no_kernel_and_no_temporary_file(
    pool: Pool, asleep: Callable[[float], Call], number: signal.Signals
) -> None:
    family: list[psutil.Process] = []
    for event in pool.run([asleep(1000)]):
        if event.kind == "output":
            folder = Path(event.text.strip())
            assert folder.parent == pool._folder and any(folder.iterdir())
            [worker] = [p.pid for p in pool._processes if p.pid]
            family = [psutil.Process(worker), *psutil.Process(worker).children(recursive=True)]
            family[0].send_signal(number)
    assert len(family) == 2 and all_ended(family)
    reason = KILLED if number == signal.SIGKILL else f"its process was ended by {number.name}"
    assert (event.kind, event.text) == ("failed", reason)
    assert not folder.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
def test_killed_template_takes_no_call_with_it_and_is_replaced(asleep: Callable[[float], Call]) -> None:
    ends = []
    with Pool(1) as pool:
        for event in pool.run([asleep(1), Call("builtins:dict", {})]):
            if event.kind == "output":
                [template] = [p for p in psutil.Process().children() if str(pool._folder) in p.cmdline()]
                template.kill()
            if event.kind in ("finished", "failed"):
                ends.append((event.index, event.kind))
    assert ends == [(0, "finished"), (1, "finished")] and not pool._folder.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
def test_pool_of_a_process_that_is_killed_leaves_nothing(asleep: Callable[[float], Call], tmp_path: Path) -> None:
    call = asleep(1000)
    script = f"""
    from bats_lab.sweeps.pool import Call, Pool
    with Pool(1) as pool:
        for event in pool.run([Call({call.function!r}, {call.arguments!r})]):
            print(event.text, flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith(str(tmp_path)))
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    assert len(family) == 3 and all_ended(family)
    assert not list(tmp_path.iterdir())
    # Where all of them were killed at once, the next pool does it.
    (tmp_path / "bats-pool-gone").mkdir()
    (tmp_path / "bats-pool-gone" / "lock").touch()
    subprocess.run(
        [sys.executable, "-c", "from bats_lab.sweeps.pool import Pool; Pool(0, fork=False).close()"], env=environment
    )
    assert not list(tmp_path.iterdir())


# a sweep's own process


@pytest.mark.parametrize("signals", [[signal.SIGINT, signal.SIGINT], [signal.SIGHUP]])
def test_interrupted_sweep_ends_everything_and_says_how_to_go_on(tmp_path: Path, signals: list[signal.Signals]) -> None:
    with start_sweep(tmp_path, "--epochs=100000", "--jobs=2", "--seeds=2") as process:
        wait_for(lambda: len(list(tmp_path.glob("notebooks/*.running.ipynb"))) == 2, process)
        wait_for(lambda: all(run.text for run in read_status(tmp_path).running), process)
        status = read_status(tmp_path)
        assert (status.at_work, status.total, status.done, status.process) == (True, 2, 0, process.pid)
        assert [run.label for run in status.running] == ["seed 0", "seed 1"]
        with pytest.raises(BatsLabError, match=f"Another sweep is at work in .* .process {process.pid}.;"):
            run_sweep(SMALL, tmp_path)
        children = psutil.Process(process.pid).children(recursive=True)
        for number in signals:
            os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == (
        "bats-lab: Stopped; 0 of 2 runs are finished. The same command goes on from there."
    )
    assert all_ended(children)
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {".lock", "sweep.jsonl"}
    status = read_status(tmp_path)
    assert (status.at_work, status.pending, len(status.running)) == (False, 0, 2)
    assert "sweep of" in str(status) and "stopped; the same command goes on" in str(status)


KILL_SWEEP = """
import psutil, time
me = psutil.Process()
me.parents()[2].kill()  # the sweep's own process; between are this notebook's and the one it was forked from
time.sleep(1000)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
def test_sweep_killed_between_results_and_their_notebook_has_both_in_the_end(tmp_path: Path) -> None:
    notebook = training_notebook(tmp_path / "train.ipynb", TRAIN, KILL_SWEEP)
    out = tmp_path / "out"
    script = (
        f"from bats_lab.sweeps.sweep import run_sweep\nrun_sweep({SMALL}, {str(out)!r}, notebook={str(notebook)!r})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True)
    [results] = out.glob("run-*.nc")
    assert done.returncode == -signal.SIGKILL
    assert [p.suffixes[-2:] for p in out.glob("notebooks/*.ipynb")] == [[".running", ".ipynb"]]
    written = results.stat().st_mtime_ns
    [outcome] = run_sweep(SMALL, out, progress=False).outcomes
    assert outcome.status == "skipped" and outcome.notebook is not None and results.stat().st_mtime_ns == written
    cells = nbformat.read(outcome.notebook, 4).cells
    assert "train_group_into" in cells[-2].source and cells[-2].execution_count
    assert [p.name for p in out.glob("notebooks/*")] == [outcome.notebook.name]


KILL_IN_MID_WRITE = """
import bats_lab.files, os, signal
bats_lab.files.os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
"""


def test_run_killed_while_its_results_are_written_leaves_no_part_of_them(tmp_path: Path) -> None:
    notebook = training_notebook(tmp_path / "train.ipynb", KILL_IN_MID_WRITE, TRAIN)
    (tmp_path / "out").mkdir()
    config = Config(**SMALL)
    name = run_path(tmp_path / "out", config).name
    for left in (f".{name}.1-killed-before.part", f".{name.replace('dt0', 'dt1')}.2-of-another.part"):
        (tmp_path / "out" / left).touch()
    report = run_sweep([config], tmp_path / "out", notebook=notebook, progress=False)
    assert [o.reason for o in report.outcomes] == [KILLED]
    assert [p.name for p in tmp_path.glob("out/.*.part")] == [f".{name.replace('dt0', 'dt1')}.2-of-another.part"]


def test_folder_is_settled_by_what_is_finished(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    for name in ("run-a.running.ipynb", "run-b.running.ipynb", "run-c.failed.ipynb", "run-d.failed.ipynb"):
        (tmp_path / "notebooks" / name).write_text(name)
    for name in ("notebooks/.run-a.running.ipynb.part", "notebooks/run-a.running.jsonl", "run-a.nc", "run-d.nc"):
        (tmp_path / name).touch()
    settle_folder(tmp_path)
    left = {p.name: p.read_text() for p in (tmp_path / "notebooks").iterdir()}
    assert left == {
        "run-a.ipynb": "run-a.running.ipynb",
        "run-c.failed.ipynb": "run-c.failed.ipynb",
        "run-d.ipynb": "run-d.failed.ipynb",
    }


# the folder


def test_lock_is_taken_anew_where_the_folder_was_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with FolderLock(out) as lock:
        shutil.rmtree(out)
        lock.check()
        with pytest.raises(BatsLabError, match="Another sweep is at work"):
            FolderLock(out)
        shutil.rmtree(out)
        with FolderLock(out), pytest.raises(BatsLabError, match="Another sweep is at work"):
            lock.check()


ON_A_DISK = f"""
import json, os, shutil, subprocess, sys
from pathlib import Path
from bats_lab.runs.files import run_path
from bats_lab.runs.results import open_results
from bats_lab.sweeps.grid import expand_grid
from bats_lab.sweeps.sweep import run_sweep

disk, notebook = Path(sys.argv[1]), sys.argv[2]
out = disk / "out"
configs = expand_grid({SMALL}, seeds=3)


def sweep(on_progress=lambda state: None):
    report = run_sweep(configs, out, jobs=1, notebook=notebook, progress=on_progress)
    for path in out.rglob("*.ipynb"):
        json.loads(path.read_text())
    assert not list(out.rglob(".*.part")), list(out.rglob("*"))
    assert not list(out.rglob("*.running.*")), list(out.rglob("*"))
    return [o.status for o in report.outcomes], [o.reason for o in report.failed]


def mount(*options):
    subprocess.run(["mount", *options, str(disk)], check=True)


mount("-t", "tmpfs", "-o", "size=2m", "tmpfs")
filler = disk / "filler"
filler.write_bytes(b"0" * (2 * 2**20 - 16 * 2**10))
status, reasons = sweep()
assert status == ["failed"] * 3 and all("No space left on device" in r for r in reasons), (status, reasons)
filler.unlink()


def forbid_second(state):
    if state.last is not None and state.finished == 1 and state.failed == 0:
        mount("-o", "remount,ro")


status, reasons = sweep(forbid_second)
assert status == ["finished", "failed", "failed"] and all("Read-only file system" in r for r in reasons), reasons
mount("-o", "remount,rw")
assert [run_path(out, c).exists() for c in configs] == [True, False, False]
removed = []


def remove(state):
    if state.running and not removed:
        removed.append(shutil.rmtree(out))


status, reasons = sweep(remove)
assert status == ["skipped", "finished", "finished"], (status, reasons)
assert [run_path(out, c).exists() for c in configs] == [False, True, True]
assert len(list(out.glob("notebooks/*.ipynb"))) == 2
assert open_results(out)["accuracy"].notnull().all()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system of its own")
def test_full_forbidden_and_removed_folder_costs_the_runs_at_work_only(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody but root mount a file system")
    notebook = training_notebook(tmp_path / "train.ipynb", TRAIN)
    (tmp_path / "disk").mkdir()
    (tmp_path / "script.py").write_text(ON_A_DISK)
    command = ["unshare", "-rm", sys.executable, *(str(tmp_path / name) for name in ("script.py", "disk"))]
    done = subprocess.run([*command, str(notebook)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
