"""Small runs for tests of sweeps, notebooks that train them, and a sweep as a process of its own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import psutil

from bats_lab.sweeps.notebooks import notebook_path

# Thresholds low enough that a network that small has no silent outputs.
SMALL: dict[str, Any] = {"n_train": 200, "n_test": 100, "hidden": 20, "threshold_output": 0.1, "epochs": 1}

TRAIN = """
import json
from bats_lab.config import Config, parameters
from bats_lab.sweeps.training import save_into, train_group_into
configs = [Config.from_dict({p.name: globals()[p.name] for p in parameters()})]
configs += [Config.from_dict(json.loads(text)) for text in side_by_side or []]
for i, run in train_group_into(configs, results_dir, threads=threads, checkpoint=checkpoint).items():
    save_into(run, configs[i], results_dir)
"""


def training_notebook(path: Path, *cells: str) -> Path:
    """Write a notebook with the parameters of the training notebook and these cells, and return its path.

    It loads no library of plots, so that it is done sooner than the training notebook.
    """
    notebook = nbformat.read(notebook_path("10_train"), 4)
    notebook.cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    notebook.cells += [nbformat.v4.new_code_cell(code) for code in cells]
    nbformat.write(notebook, path)
    return path


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[Any], seconds: float = 300) -> None:
    """Wait until something is so, while a process runs."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@contextlib.contextmanager
def start_sweep(out: str | Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Start a sweep of one small run as a process of its own, as a terminal does, and end it whatever happens."""
    command = [sys.executable, "-m", "bats_lab", "sweep", "--out", str(out), "--no-report", "--n-train=200"]
    command += ["--n-test=100", "--hidden=20", "--threshold-output=0.1", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, start_new_session=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def all_ended(processes: list[psutil.Process]) -> bool:
    """Whether all of them end."""
    return not psutil.wait_procs(processes, timeout=30)[1]
