"""Sweeps and searches on a real Dask cluster: a scheduler and workers, started as a user starts them, and killed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clusters import Cluster
from sweeping import SMALL, TRAIN, start_sweep, training_notebook, wait_for

from bats_lab.errors import BatsLabError
from bats_lab.runs.files import open_run
from bats_lab.sweeps.cluster import ClusterPool
from bats_lab.sweeps.search import Search, run_search
from bats_lab.sweeps.sweep import run_sweep

PAGE = Path(__file__).parents[1] / "docs" / "cluster.md"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("dask"))
    yield made
    made.end()


def journal(out: Path, event: str) -> list[dict[str, Any]]:
    lines = (out / "sweep.jsonl").read_text().splitlines() if (out / "sweep.jsonl").exists() else []
    return [line for line in map(json.loads, lines) if line["event"] == event]


def whole(out: Path, number: int) -> bool:
    """Whether so many runs are there with their notebooks, each once, and nothing else is."""
    runs, notebooks = ({p.stem for p in out.glob(pattern)} for pattern in ("run-*.nc", "notebooks/*"))
    ended = [line["run"] for line in journal(out, "finished")]
    return len(runs) == number and runs == notebooks and sorted(ended) == sorted(runs) and not list(out.rglob("*.part"))


def test_runs_of_a_cluster_are_those_of_this_machine_bit_for_bit(cluster: Cluster, tmp_path: Path) -> None:
    options: dict[str, Any] = {"notebook": training_notebook(tmp_path / "t.ipynb", TRAIN), "progress": False}
    here = run_sweep(SMALL | {"seed": [0, 1]}, tmp_path / "here", jobs=2, threads=1, **options)
    there = run_sweep(SMALL | {"seed": [0, 1]}, tmp_path / "there", cluster=cluster.address, **options)
    assert [o.status for o in here.outcomes + there.outcomes] == ["finished"] * 4
    for path in (tmp_path / "here").glob("run-*.nc"):
        one, other = open_run(path), open_run(tmp_path / "there" / path.name)
        np.testing.assert_array_equal(one["weights"], other["weights"])
    assert whole(tmp_path / "there", 2)
    assert {line["where"] for line in journal(tmp_path / "there", "finished")} == {socket.gethostname()}


def test_search_takes_a_cluster_too(cluster: Cluster, tmp_path: Path) -> None:
    search = Search(SMALL | {"learning_rate": "1e-3..1e-2:log"}, trials=2)
    notebook = training_notebook(tmp_path / "t.ipynb", TRAIN)
    report = run_search(search, tmp_path / "out", cluster=cluster.address, notebook=notebook, progress=False)
    assert [outcome.status for outcome in report.outcomes] == ["finished"] * 2 and whole(tmp_path / "out", 2)


def test_run_that_fails_on_a_worker_says_why(cluster: Cluster, tmp_path: Path) -> None:
    notebook = training_notebook(tmp_path / "t.ipynb", "raise ValueError('as planned')")
    report = run_sweep(SMALL, tmp_path / "out", cluster=cluster.address, notebook=notebook, progress=False)
    assert [outcome.reason for outcome in report.failed] == ["ValueError: as planned"]


def test_interrupted_sweep_leaves_nothing_on_workers_and_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    options = [f"--cluster={cluster.address}", "--epochs=100000", "--seeds=2", "--quiet"]
    with start_sweep(tmp_path, *options) as process:
        wait_for(lambda: len(list(tmp_path.rglob("*.running.jsonl"))) == 2, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert not list(tmp_path.glob("notebooks/*")) and not list(tmp_path.glob("*.nc"))
    kernels = [child for worker in cluster.workers() for child in worker.children(recursive=True)]
    assert not any("ipykernel" in " ".join(child.cmdline()) for child in kernels)


def test_killed_worker_and_restarted_scheduler_cost_no_run(cluster: Cluster, tmp_path: Path) -> None:
    options = [f"--cluster={cluster.address}", "--epochs=150", "--seeds=4", "--quiet"]
    with start_sweep(tmp_path, *options) as process:
        wait_for(lambda: len(list(tmp_path.rglob("*.running.jsonl"))) == 2, process)
        cluster.workers()[0].kill()
        wait_for(lambda: len(journal(tmp_path, "finished")) >= 1, process)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("run-*.nc")}
        cluster.processes[0].kill()
        for part in cluster.processes:  # workers end when their scheduler is gone, and their run is over
            part.wait(300)
        time.sleep(1)
        cluster.start()
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 0 and "Traceback" not in errors, errors
    assert whole(tmp_path, 4)
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nowhere", "cluster is 'nowhere'; it must be one of an address as tcp://host:8786"),
        ("missing.json", "there is no such scheduler file"),
        ("tcp://127.0.0.1:9", "The Dask scheduler of 'tcp://127.0.0.1:9' does not answer"),
        ("slurm", "slurm: .*cores.*; give it in ~/.config/dask"),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Dask's, of what it had begun
def test_cluster_that_is_none_is_refused(where: str, message: str) -> None:
    with pytest.raises((ValueError, BatsLabError), match=message):
        ClusterPool(where)


def test_slurm_example_of_the_docs_gives_the_job_script_beside_it(tmp_path: Path) -> None:
    text = PAGE.read_text()
    [example] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    [script] = re.findall(r"```bash\n(#!.*?)```", text, re.DOTALL)
    (tmp_path / "jobqueue.yaml").write_text(example)
    code = "import bats_lab.sweeps.cluster as c; import distributed as d; print(c._started('slurm', 0, d).job_script())"
    environment = os.environ | {"DASK_CONFIG": str(tmp_path), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    # In place of SLURM's commands: they only take the jobs.
    for name in ("sbatch", "scancel"):
        (tmp_path / name).write_text("#!/bin/sh\necho Submitted batch job 1\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    given = done.stdout.replace(sys.executable, "/shared/bats_lab/.venv/bin/python")
    assert re.sub(r"tcp://[\d.]+:\d+", "tcp://10.0.0.1:40001", given).split() == script.split(), done.stderr
