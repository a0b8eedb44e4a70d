from pathlib import Path

import numpy as np
import pytest
from runs import SMALL_SWEEP, make_run

from bats_lab.cli import main
from bats_lab.config import Config
from bats_lab.runs.experiment import run_experiment
from bats_lab.runs.files import open_run, save_run
from bats_lab.runs.rerun import compare

SMALL = Config(**SMALL_SWEEP | {"delta_t": 0.004, "seed": 0, "epochs": 1})


@pytest.mark.filterwarnings("ignore:The output neurons")  # so little is not learned
def test_a_run_repeated_from_its_file_gives_the_same_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save_run(run_experiment(SMALL, threads=1), tmp_path)
    assert main(["rerun", str(path), "--threads", "2"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    n = len(open_run(path).data_vars) - 10
    assert first == f"{n} of {n} variables agree bit for bit." and second == "differs: threads: 1 then, 2 now"


def test_a_run_that_gives_other_numbers_says_which_and_by_how_much() -> None:
    then = make_run()
    now = then.copy(deep=True)
    assert compare(then, then)[0]
    now["loss"][..., 0, 0] += 0.25
    now["sample_label"] = now["sample_label"].copy(data=np.full_like(now["sample_label"].values, "x"))
    now = now.drop_vars("weights").assign(version=now.version.copy(data=np.full((1,) * 4, "0.0.9")))
    same, lines = compare(then, now)
    assert not same and "not measured now: weights" in lines
    assert any(line.startswith("loss: 1 of 4 values differ, by up to 0.25, ") for line in lines)
    assert "sample_label: 2 of 2 values differ" in lines
    assert "differs: version of bats_lab: text then, 0.0.9 now" in lines
