"""Training in threads and processes: what gives the same results, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import multiprocessing
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

warnings.simplefilter("ignore")
from bats_lab import Config, run_experiment


def train(seed):
    config = Config(n_train=200, n_test=100, hidden=20, threshold_output=0.1, epochs=1, seed=seed)
    return run_experiment(config, device="cpu")["loss"].values.tolist()


if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    if sys.argv[2] == "before":
        with context.Pool(1) as pool:
            first = pool.map_async(train, [0]).get(timeout=300)
        assert first == [train(0)]
    else:
        alone = [train(0), train(1)]
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(train, [0, 1])) == alone
        with context.Pool(2) as pool:
            assert pool.map_async(train, [0, 1]).get(timeout=300) == alone
    print("as alone")
"""


def run_script(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(SCRIPT)  # a file, as processes that start afresh read it again
    command = [sys.executable, str(folder / "script.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=400)


def test_threads_and_processes_started_afresh_train_as_one_alone(tmp_path: Path) -> None:
    done = run_script(tmp_path, "spawn", "after")
    assert done.stdout == "as alone\n", done.stderr


def test_process_forked_before_any_training_trains(tmp_path: Path) -> None:
    done = run_script(tmp_path, "fork", "before")
    assert done.stdout == "as alone\n", done.stderr


def test_process_forked_after_training_is_refused_in_one_sentence(tmp_path: Path) -> None:
    done = run_script(tmp_path, "fork", "after")
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == (
        "bats_lab.errors.DeviceError: This process was forked from one that has trained already, whose threads it "
        'lacks; start processes afresh, by multiprocessing.get_context("spawn"), joblib\'s loky or Dask.'
    )
