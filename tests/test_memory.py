import gc
from pathlib import Path

import numpy as np
import psutil
import pytest

from bats_lab.config import Config
from bats_lab.runs.experiment import run_experiment
from bats_lab.runs.files import open_run, save_run


@pytest.mark.filterwarnings("ignore")  # so little is not learned
def test_a_hundred_runs_in_one_process_take_no_more_memory_than_twenty(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.random((20, 4, 4)), np.arange(20) % 2
    np.savez(tmp_path / "own.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    settings = {"hidden": 4, "epochs": 1, "threshold_hidden": 0.01, "threshold_output": 0.01, "keep_weights": "each"}
    config = Config(dataset=str(tmp_path / "own.npz"), auto_threshold=False, **settings)
    taken = []
    for seed in range(1, 101):
        run = run_experiment(config.replace(seed=seed), threads=1)
        if seed % 20 == 0:
            open_run(save_run(run, tmp_path / "results"))
            gc.collect()
            taken.append(psutil.Process().memory_info().rss)
    assert max(taken[1:]) - taken[0] < 4_000_000, taken
