"""Searches: their space, which runs they end, and real ones that are killed and go on."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sweeping import SMALL, TRAIN, training_notebook

from bats_lab.config import Config
from bats_lab.explore import explore_tradeoff
from bats_lab.plots import plot_importance, plot_tradeoff, search_table
from bats_lab.plots.importance import importances
from bats_lab.runs.experiment import run_experiment
from bats_lab.runs.files import open_run, save_run
from bats_lab.runs.results import SEARCH, open_results
from bats_lab.sweeps.journal import read_status
from bats_lab.sweeps.notebooks import make_report
from bats_lab.sweeps.search import Search, clearly_loses, front_of_trials, known_trials, run_search
from bats_lab.sweeps.space import Space
from bats_lab.sweeps.sweep import run_sweep

FREE = {"learning_rate": "1e-3..3e-2:log", "hidden": ["10..30"], "rule": ["drop", "graded"]}
SPACE = SMALL | FREE | {"delta_t": 0.008, "threshold_output": "0.05..0.4:log"}


def test_points_lie_in_their_ranges_and_are_found_again() -> None:
    space = Space(
        {"hidden": ["100..200", 50], "learning_rate": "1e-4..1e-2:log", "delta_t": "1ms..8ms", "batch_size": [5, None]}
    )
    assert list(space.free) == ["hidden 1", "learning_rate", "delta_t", "batch_size"]
    drawn = [entry for entry, _ in zip(space.points(3), range(50), strict=False)]
    for point, config in drawn:
        assert 100 <= config.hidden[0] <= 200 and config.hidden[1] == 50 and 0.001 <= config.delta_t <= 0.008
        again = space.point_of(config)
        assert again is not None and space.config(again) == config and again["hidden 1"] == point["hidden 1"]
    rates = np.log10([config.learning_rate for _, config in drawn])
    assert abs(np.median(rates) + 3) < 0.5 and {config.batch_size for _, config in drawn} == {5, 50}
    assert space.point_of(Config(hidden=(99, 50))) is None


def test_small_space_is_drawn_to_its_end_and_what_is_not_allowed_is_left_out() -> None:
    space = Space({"delta_t": [0, 0.004], "rule": ["drop", "clocked"]})
    assert {(c.delta_t, c.rule) for _, c in space.points(0)} == {(0, "drop"), (0.004, "drop"), (0.004, "clocked")}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 3}, "Nothing is free"),
        ({"learning_rat": "1..2"}, "'learning_rat' is no parameter of a run; did you mean"),
        ({"learning_rate": "2..1"}, "learning_rate is '2..1'; its low end must be below"),
        ({"weight_scale": "0..1:log"}, "its low end must be above 0 below"),
        ({"weight_scale": "-1..1"}, "weight_scale is -1.0; it must be a number above 0"),
        ({"hidden": ["1.5..3"]}, "hidden has '1.5' as an end of its range"),
        ({"learning_rate": ["1e-3..1", 3]}, "a range among its choices"),
        ({"auto_threshold": "no..yes"}, "a range of numbers is written LOW..HIGH"),
    ],
)
def test_space_that_is_none_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.").replace("'", "['\"]")):
        Space(values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objectives": ["money"]}, "objectives has 'money'"),
        ({"trials": 0}, "trials is 0"),
        ({"sampler": "grid"}, "sampler is 'grid'"),
        ({"space": FREE | {"validation_fraction": 0}}, "validation_fraction is 0"),
    ],
)
def test_search_that_is_none_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Search(**{"space": FREE} | options)


def test_run_loses_with_one_objective_below_the_median_and_with_several_behind_most_fronts() -> None:
    others = [[float(v)] for v in range(10)]
    assert [clearly_loses([v], others) for v in (3.5, 4.5, 5.5)] == [True, False, False]
    plane = [[0.9, -9.0], [0.8, -8.0], [0.7, -7.0], [0.6, -6.0], [0.5, -6.5]]
    assert clearly_loses([0.4, -9.5], plane) and not clearly_loses([0.4, -5.0], plane)
    assert not clearly_loses([0.0], [[1.0]] * 3)  # too few to be clear


def training(tmp_path: Path) -> Path:
    return training_notebook(tmp_path / "train.ipynb", TRAIN)


def test_search_ends_losers_keeps_what_they_measured_and_goes_on_with_another_sampler(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options: dict[str, Any] = {"jobs": 2, "threads": 1, "notebook": training(tmp_path), "progress": False}
    search = Search(SPACE | {"epochs": 3}, trials=7)
    report = run_search(search, out, **options)
    assert not report.failed and len(report.finished) + len(report.pruned) == 7
    partial = list(out.glob("partial-*.nc"))
    assert len(partial) == len(report.pruned) and len(list(out.glob("notebooks/*"))) == len(report.finished)
    assert all(open_run(path).sizes["epoch"] < 3 for path in partial)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.nc")}
    more = run_search(dataclasses.replace(search, trials=9, sampler="optuna"), out, **options)
    assert len(more.outcomes) == 9 and len(more.skipped) == len(report.finished)
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    status = read_status(out)
    assert (status.pending, status.at_work, len(status.failed)) == (0, False, 0)


def test_run_of_a_search_is_the_run_of_a_sweep_bit_for_bit(tmp_path: Path) -> None:
    search = Search(SPACE, trials=1, prune=False)
    options: dict[str, Any] = {"jobs": 1, "threads": 1, "notebook": training(tmp_path), "progress": False}
    [outcome] = run_search(search, tmp_path / "search", **options).outcomes
    run_sweep([outcome.config], tmp_path / "sweep", **options)
    one, other = (open_run(next((tmp_path / name).glob("run-*.nc"))) for name in ("search", "sweep"))
    np.testing.assert_array_equal(one["weights"], other["weights"])
    np.testing.assert_array_equal(one["validation_decision_time"], other["validation_decision_time"])


def test_search_on_the_command_line_that_is_killed_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    options += ["--epochs=2", "--learning-rate=1e-3..3e-2:log", "--rule=drop,graded", "--delta-t=8ms", "--trials=5"]
    options = [o for o in options if not o.startswith("--epochs=1")]
    command = [
        sys.executable,
        "-m",
        "bats_lab",
        "search",
        *options,
        "--jobs=1",
        "--threads=1",
        "--quiet",
        f"--out={out}",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        assert any(line.startswith("[2/5]") for line in process.stderr)
        process.send_signal(signal.SIGKILL)
    before = {path: path.stat().st_mtime_ns for path in out.glob("run-*.nc")}
    assert 2 <= len(before) < 5
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "5 runs" in done.stdout and "test accuracy" in done.stdout
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    begun = [json.loads(line) for line in (out / "sweep.jsonl").read_text().splitlines()]
    assert len({str(line["config"]) for line in begun if line["event"] == "run"}) == 5
    assert not list(out.rglob("*.part")) and not list(out.rglob("*.running.*"))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search of 12 runs; they are trained here, without notebooks."""
    folder = tmp_path_factory.mktemp("searched")
    space = Search(SPACE).space
    assert isinstance(space, Space)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that have not been learned in so short a time
        for (_, config), _ in zip(space.points(0), range(12), strict=False):
            save_run(run_experiment(config, threads=1), folder)
    (folder / SEARCH).write_text("{}")
    return folder


def test_results_of_a_search_lie_over_trial_with_what_was_drawn_beside(searched: Path) -> None:
    results = open_results(searched)
    assert results["accuracy"].dims[:4] == ("delta_t", "seed", "rule", "trial") and results.sizes["trial"] == 12
    assert int(results["accuracy"].sel(split="test").notnull().any("epoch").sum()) == 12
    for trial in range(12):
        run = results.isel(trial=trial)
        [config] = [Config.from_dict(json.loads(text)) for text in run["config"].values.ravel() if text]
        assert (run["learning_rate"], run["threshold_output"]) == (config.learning_rate, config.threshold_output)
        assert int(run["hidden"]) == config.hidden[0]


def test_tradeoff_explorer_shows_all_runs_of_a_search(searched: Path) -> None:
    explorer = explore_tradeoff(searched)
    assert len({key for _, key in explorer.controls["run"].options}) == 12
    assert sum(len(e) for e in plot_tradeoff(open_results(searched)) if e.group.startswith("rule") and len(e) > 1) == 12


def test_front_is_chosen_by_samples_held_out(searched: Path) -> None:
    trials = known_trials(Search(SPACE, objectives=["accuracy", "spikes"]), searched)
    table = search_table(open_results(searched))
    front = front_of_trials(trials)
    assert len(trials) == 12 and [t.last[0] for t in front if t.last] == pytest.approx(table["accuracy"].tolist())


def test_importance_finds_the_one_parameter_that_matters(searched: Path) -> None:
    results = open_results(searched, large=False)
    made = results.assign(accuracy=results["accuracy"] * 0 + results["learning_rate"])
    shares = importances(made, ["accuracy"])["accuracy"]
    assert max(shares, key=lambda name: shares[name]) == "learning_rate" and sum(shares.values()) == pytest.approx(1)
    with pytest.raises(ValueError, match="importance is told of 10 at least"):
        plot_importance(results.isel(trial=slice(5)))
    with pytest.raises(ValueError, match="no dimension 'trial'"):
        plot_importance(results.isel(trial=0))


def test_report_of_a_search_has_its_front_and_what_mattered(searched: Path) -> None:
    page = make_report(searched).read_text()
    assert "What a search found" in page and (searched / "figures" / "importance.png").exists()
    assert (searched / "figures" / "tradeoff.png").exists()
