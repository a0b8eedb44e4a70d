"""Kills at random through a sweep of many short runs, and then holds its files against an undisturbed sweep's.

``make soak`` runs it; it takes some minutes. Killed are the processes of runs and their kernels, the one they are
forked from, and the sweep itself, each with a signal drawn by chance; a sweep that has ended is started again.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from bats_lab.runs.files import open_run

#: What tells of the clock, not of the run.
TIMES = ("train_seconds", "test_seconds", "started")

#: What is killed, and how often of ten.
VICTIMS = {"run": 4, "kernel": 3, "template": 1, "sweep": 1, "group": 1}

#: Kills in the time that the undisturbed sweep takes.
KILLS = 50

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def command(out: Path, runs: int) -> list[str]:
    """Return the command of a sweep of short runs."""
    options = ["--n-train=100", "--n-test=50", "--hidden=10", "--threshold-output=0.1", "--epochs=2", "--quiet"]
    grid = ["--delta-t=0,4ms", f"--seeds={runs // 2}", "--no-report", f"--out={out}"]
    return [sys.executable, "-m", "bats_lab", "sweep", *options, *grid]


def kill_something(sweep: subprocess.Popen[bytes], chance: random.Random) -> str:
    """Send one of a sweep's processes a signal; return what happened, empty if what was drawn is not there."""
    victim = chance.choices(list(VICTIMS), list(VICTIMS.values()))[0]
    number = chance.choice(SIGNALS)
    if victim == "group":
        os.killpg(sweep.pid, number)
        return f"group {number.name}"
    family = psutil.Process(sweep.pid)
    generations = [[family], family.children()]
    generations += [[child for parent in generations[1] for child in parent.children()]]
    generations += [[child for parent in generations[2] for child in parent.children()]]
    found = generations[("sweep", "template", "run", "kernel").index(victim)]
    if not found:
        return ""
    chance.choice(found).send_signal(number)
    return f"{victim} {number.name}"


def disturbed(out: Path, runs: int, chance: random.Random, pause: float, temporary: Path) -> collections.Counter[str]:
    """Sweep until all is done, killing after pauses; check after each end that nothing is left behind."""
    killed: collections.Counter[str] = collections.Counter()
    written: dict[Path, int] = {}
    while True:
        sweep = subprocess.Popen(
            command(out, runs), env=os.environ | {"TMPDIR": str(temporary)}, start_new_session=True
        )
        family: set[psutil.Process] = set()
        while sweep.poll() is None:
            time.sleep(chance.expovariate(1 / pause))
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                family |= set(psutil.Process(sweep.pid).children(recursive=True))
                what = kill_something(sweep, chance)
                killed[what] += bool(what)
        left = psutil.wait_procs(family, timeout=60)[1]
        assert not left, f"left running: {left}"
        for path in out.glob("run-*.nc"):
            assert written.setdefault(path, path.stat().st_mtime_ns) == path.stat().st_mtime_ns, f"{path} repeated"
        assert all(path.exists() for path in written), "a finished run was lost"
        print(f"exit status {sweep.returncode}, {len(written)} of {runs} runs, {killed.total()} kills", flush=True)
        if sweep.returncode == 0:
            return killed


def check(out: Path, undisturbed: Path, runs: int) -> None:
    """Check that a folder holds all runs, equal to those of another, each with its notebook, and nothing else."""
    files = sorted(path.name for path in undisturbed.glob("run-*.nc"))
    assert len(files) == runs and sorted(path.name for path in out.glob("run-*.nc")) == files
    for name in files:
        run, other = open_run(out / name), open_run(undisturbed / name)
        assert set(run.variables) == set(other.variables), name
        for variable in set(run.variables) - set(TIMES):
            assert run[variable].dtype == other[variable].dtype, (name, variable)
            assert run[variable].values.tobytes() == other[variable].values.tobytes(), (name, variable)
    names = {path.name for path in out.iterdir()} - set(files)
    assert names == {".cache", ".lock", "sweep.jsonl", "notebooks"}, names
    notebooks = sorted(path.name for path in (out / "notebooks").iterdir())
    assert notebooks == [name.replace(".nc", ".ipynb") for name in files], notebooks


def main() -> None:
    """Run the soak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="number of runs, even (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="seed of what is killed when (default: by chance)")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else int(np.random.default_rng().integers(2**31))
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        root, temporary = Path(folder), Path(folder, "tmp")
        temporary.mkdir()
        began = time.monotonic()
        subprocess.run(command(root / "undisturbed", options.runs), check=True)
        pause = (time.monotonic() - began) / KILLS  # what is killed takes its time anew, so there will be more
        killed = disturbed(root / "disturbed", options.runs, random.Random(seed), pause, temporary)
        check(root / "disturbed", root / "undisturbed", options.runs)
        assert not list(temporary.iterdir()), list(temporary.iterdir())
    print(f"{options.runs} runs as undisturbed, after these kills:")
    for what, count in sorted(killed.items()):
        if what:
            print(f"  {what:20} {count}")


if __name__ == "__main__":
    main()
