"""The study of data with time in it: its runs, jitter, clocks, the spectrum, and where the clock begins to hurt."""

from __future__ import annotations

from pathlib import Path

import holoviews as hv
import numpy as np
import pytest
import xarray as xr
from pictures import draw, elements
from runs import make_run

from bats_lab.cli import main
from bats_lab.config import Config
from bats_lab.data.datasets import load_dataset
from bats_lab.errors import ResultsError
from bats_lab.network.feedforward import Network
from bats_lab.runs.files import save_run
from bats_lab.runs.results import open_results
from bats_lab.runs.training import evaluate, input_spikes
from bats_lab.spikes.grid import discretize
from bats_lab.spikes.rules import RULES
from bats_lab.spikes.trains import Spikes
from bats_lab.studies import timing
from bats_lab.studies.timing.experiments import (
    clocked_accuracy,
    highest_telling,
    input_spectrum,
    jitter_spikes,
    jittered_accuracy,
)
from bats_lab.studies.timing.report import step_where_lost, trained_accuracy
from bats_lab.studies.timing.study import TIME_STEPS, timing_configs

SMALL = Config(dataset="yin_yang", hidden=20, n_test=60)


# The runs


def test_every_rule_meets_every_time_step_and_continuous_time_is_trained_once() -> None:
    configs = timing_configs(seeds=2)
    assert len({c.identity for c in configs}) == len(configs)
    for dataset in ("yin_yang", "japanese_vowels"):
        own = [c for c in configs if c.dataset == dataset and c.seed == 1]
        assert {(c.rule, c.delta_t) for c in own} == {("drop", 0.0)} | {
            (rule, step) for rule in RULES for step in TIME_STEPS[dataset]
        }
        recipe = Config(dataset=dataset, seed=1, keep_samples=0)
        assert all(c.replace(delta_t=0.0, rule="drop", keep_weights="last") == recipe for c in own)
    assert {c.delta_t for c in configs if c.dataset == "mnist_small"} == {0.0}
    assert [c.keep_weights == "last" for c in configs] == [c.delta_t == 0 for c in configs]


@pytest.mark.filterwarnings("ignore:The true class's target", "ignore:The output neurons")
def test_study_is_run_drawn_and_taken_up_by_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["reproduce", "time", "--quick", "--jobs", "1", "--quiet", "--out", str(tmp_path)]
    assert main(command) == 0
    page = (tmp_path / "quick_time" / "report.html").read_text()
    assert "Of this there is nothing" not in page and "yin_yang" in page
    measured = timing.open_timing(tmp_path / "quick_time")
    assert set(measured) == set(TIME_STEPS) and all(own.sizes["seed"] == 1 for own in measured.values())
    for path in (tmp_path / "quick_time").glob("run-mnist_small-*.nc"):
        path.unlink()  # what was measured of a network outlives it
    capsys.readouterr()
    assert main(command) == 0
    assert "jitter and clocks" not in capsys.readouterr().out
    assert not list((tmp_path / "quick_time").glob("run-mnist_small-*.nc"))
    (tmp_path / "quick_time" / "experiment-timing_seed0-yin_yang.nc").unlink()
    xr.Dataset({"a": 1}).to_netcdf(tmp_path / "quick_time" / "experiment-timing_seed0-yin_yang.nc")
    with pytest.raises(ResultsError, match="lacks the attributes 'dataset' and 'seed'"):
        timing.open_timing(tmp_path / "quick_time")


# Jitter and clocks


def test_jitter_has_its_width_and_stays_in_the_window() -> None:
    times = np.full((2, 5000), 0.05)
    moved = jitter_spikes(Spikes.from_padded(times), 0.004, duration=0.2)
    assert moved.times.std() == pytest.approx(0.004, rel=0.03) and moved.times.mean() == pytest.approx(0.05, abs=2e-4)
    assert moved.count.tolist() == [5000, 5000] and np.array_equal(np.sort(moved.neuron), np.repeat(range(5000), 2))
    wide = jitter_spikes(Spikes.from_padded(times), 0.5, duration=0.2)
    assert wide.times.min() >= 0 and wide.times.max() <= 0.2 and len(wide.times) == 10_000
    same = jitter_spikes(Spikes.from_padded(times), 0.0, duration=0.2)
    np.testing.assert_array_equal(same.times, 0.05)
    with pytest.raises(ValueError, match="sigma is -1; it must be at least 0 s"):
        jitter_spikes(moved, -1, duration=0.2)


@pytest.fixture(scope="module")
def network() -> Network:
    return Network.from_config(SMALL, 5, 3, threads=1)


def test_without_jitter_or_clock_the_accuracy_is_that_of_the_network(network: Network) -> None:
    data = load_dataset("yin_yang", n_test=60)
    known = {"target_true": SMALL.target_true, "target_false": SMALL.target_false}
    exact = evaluate(network, input_spikes(data.x_test, SMALL), data.y_test, **known).accuracy
    jittered = jittered_accuracy(network, data.x_test, data.y_test, SMALL, jitters=(0.0, 0.05), n_draws=2)
    assert jittered.sel(jitter=0.0).values.tolist() == [exact, exact]
    clocked = clocked_accuracy(network, data.x_test, data.y_test, SMALL, delta_t=(0.0, 0.01))
    assert float(clocked["input_accuracy"].sel(delta_t=0.0)) == exact
    for rule in RULES:
        inputs = input_spikes(data.x_test, SMALL.replace(delta_t=0.01))
        on_clock = evaluate(network, inputs, data.y_test, rule=rule, **known).accuracy
        assert float(clocked["network_accuracy"].sel(rule=rule, delta_t=0.01)) == on_clock
    times = data.x_test.padded()
    moved = Spikes.from_padded(np.where(np.isfinite(times), discretize(times, 0.01), np.inf), dtype="float32")
    alone = evaluate(network, moved, data.y_test, **known).accuracy
    assert float(clocked["input_accuracy"].sel(delta_t=0.01)) == alone


def test_spectrum_sees_when_classes_spike_and_not_how_often() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 500)
    # Class 0 spikes at multiples of 20 ms, class 1 half a period later: they differ at 50 Hz and not at 25 Hz.
    times = 0.02 * rng.integers(0, 4, (1000, 1, 3)) + np.where(labels, 0.01, 0.0)[:, None, None]
    spectrum = input_spectrum(Spikes.from_padded(times), labels, [0.0, 25.0, 50.0, 100.0])["telling"].values
    assert spectrum[2] == pytest.approx(9) and spectrum[[0, 3]] == pytest.approx([0, 0], abs=1e-9)
    assert spectrum[1] < 0.1
    # Class 0 spikes once where class 1 does three times: of that nothing is left.
    times[labels == 0, :, 1:] = np.inf
    times -= np.where(labels, 0.01, 0.0)[:, None, None]
    assert input_spectrum(Spikes.from_padded(times), labels, [0.0, 50.0])["telling"].values == pytest.approx([0, 0])
    flat = xr.Dataset({"telling": ("frequency", np.ones(100))}, {"frequency": np.arange(1.0, 101.0)})
    assert highest_telling(flat) == 95


# Tables and plots


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, xr.Dataset]:
    """Three seeds of yin_yang with made-up accuracies: `drop` loses 1, 4 and 20 points, `graded` none."""
    folder = tmp_path_factory.mktemp("timing")
    for seed in range(3):
        for step in (0.0, 0.001, 0.004, 0.016):
            for rule in ("drop", "graded") if step else ("drop",):
                save_run(make_run(dataset="yin_yang", seed=seed, delta_t=step, rule=rule, epochs=1, hidden=20), folder)
    found = open_results(folder, large=False).load()
    lost = xr.DataArray([0.0, 0.01, 0.04, 0.2], {"delta_t": found["delta_t"].values})
    by_seed = xr.DataArray([0.0, 0.01, -0.01], {"seed": [0, 1, 2]})
    noise = xr.DataArray([0.0, 1e-3, -1e-3], {"seed": [0, 1, 2]}) * (lost > 0)
    known = 0.9 + by_seed - xr.where(found["rule"] == "drop", lost + noise, 0.0)
    known = known.broadcast_like(found["accuracy"]).transpose(*found["accuracy"].dims)
    return {"yin_yang": found.assign(accuracy=known.where(found["accuracy"].notnull()))}


def test_continuous_time_is_of_every_rule(results: dict[str, xr.Dataset]) -> None:
    accuracy = trained_accuracy(results["yin_yang"])
    assert accuracy.sel(delta_t=0.0, rule="graded").values == pytest.approx([90, 91, 89])
    assert accuracy.sel(delta_t=0.004, rule="drop").values == pytest.approx([86, 86.9, 85.1])


def test_clock_hurts_between_the_last_step_that_loses_less_and_the_next(results: dict[str, xr.Dataset]) -> None:
    steps = timing.hurting_steps(trained_accuracy(results["yin_yang"]))
    assert steps["drop"] == pytest.approx(0.001 * 4 ** (1 / 3)) and np.isnan(steps["graded"])
    ticks = np.array([0.0, 1.0, 2.0, 4.0])
    assert step_where_lost(ticks, np.array([0.0, 5.0, 1.0, 3.0])) == pytest.approx(2 * 2**0.5)  # lost for good
    assert np.isnan(step_where_lost(ticks, np.array([0.0, 5.0, 5.0, 5.0])))
    assert step_where_lost(ticks, np.array([0.0, 1.0, np.nan, 3.0])) == pytest.approx(2)


def test_table_has_paired_intervals(results: dict[str, xr.Dataset]) -> None:
    table = timing.timing_table(results).set_index(["rule", "Δt"])
    row = table.loc["drop", "16 ms"]
    assert row["difference (points)"] == "-20.0 [-20.2, -19.8]" and row["lost beyond chance"] == "yes"
    assert table.loc["graded", "16 ms"]["difference (points)"].startswith(("+0.0", "-0.0"))
    assert table.loc["graded", "16 ms"]["lost beyond chance"] == ""


def made_measured() -> dict[str, xr.Dataset]:
    """What was measured, made up: jitter of 10 ms costs 2 points, a clock of the input of 20 ms."""
    jitter, step = [0.0, 0.005, 0.02], [0.0, 0.01, 0.04]
    return {
        "yin_yang": xr.Dataset(
            {
                "jittered_accuracy": (("seed", "draw", "jitter"), [[[0.9, 0.89, 0.87]]]),
                "input_accuracy": (("seed", "delta_t"), [[0.9, 0.89, 0.87]]),
                "network_accuracy": (("seed", "rule", "delta_t"), [[[0.9, 0.8, 0.7]]]),
                "telling": (("seed", "frequency"), [[0.0, 94.0, 6.0]]),
            },
            {"seed": [0], "draw": [0], "jitter": jitter, "delta_t": step, "rule": ["graded"], "frequency": [0, 10, 25]},
        )
    }


def test_what_foretells_stands_beside_where_it_hurts(results: dict[str, xr.Dataset]) -> None:
    [row] = timing.predictor_table(results, made_measured()).to_dict("records")
    assert row["trained, drop"] == "1.6 (0.11 τ_s)" and row["trained, graded"] == "–"
    assert row["√12 · jitter"] == "35 (2.3 τ_s)"
    assert row["input's clock alone"] == "20 (1.3 τ_s)" and row["not trained again, graded"] == "–"
    assert row["spectrum"] == "20 (1.3 τ_s)"


def test_plots_draw_what_is_lost(results: dict[str, xr.Dataset]) -> None:
    measured = made_measured()
    for plot in (
        timing.plot_timing(results),
        timing.plot_against_scale(results, rule="drop"),
        timing.plot_jitter(measured),
        timing.plot_input_spectrum(measured),
    ):
        draw(plot)
    [curve] = [c for c in elements(timing.plot_against_scale(results, rule="drop"), hv.Curve) if c.label == "yin_yang"]
    assert curve.dimension_values(0) == pytest.approx(np.array([1, 4, 16]) / 15)
    assert curve.dimension_values(1) == pytest.approx([1, 4, 20])
