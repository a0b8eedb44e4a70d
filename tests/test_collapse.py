"""The experiments on why training collapses: each held against what is known of it without the experiment."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from bats_lab import collapse
from bats_lab.cli import main
from bats_lab.config import Config
from bats_lab.data.datasets import ImageData, load_dataset
from bats_lab.errors import ResultsError
from bats_lab.network.feedforward import Network
from bats_lab.runs.experiment import run_experiment
from bats_lab.runs.files import save_run
from bats_lab.runs.training import evaluate, input_spikes, train
from bats_lab.spikes.trains import Spikes
from bats_lab.studies import experiments
from bats_lab.studies.collapse import report, study
from bats_lab.studies.collapse import trained as other_trainings
from bats_lab.studies.collapse.experiments import (
    agreement,
    cross_test,
    drive_response,
    gradient_quality,
    train_crossed,
)
from bats_lab.studies.collapse.law import collapse_step, law_error, observed_steps, scaling_check
from bats_lab.studies.collapse.study import collapse_configs, open_experiments, run_collapse_experiments
from bats_lab.studies.experiments import experiment_path

SMALL = Config(hidden=30, threshold_output=0.5, batch_size=10, n_train=300, n_test=100, epochs=2)


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_dataset("mnist_small", n_train=300, n_test=100)


@pytest.fixture(scope="module")
def drive() -> xr.Dataset:
    return drive_response([1e-5, 0.008, 0.015], n_patterns=3, n_drives=60)


def test_comparison_has_the_same_networks_and_seeds_under_every_rule() -> None:
    configs = collapse_configs(seeds=2)
    fields = {c.identity: (c.dataset, c.seed, c.delta_t) for c in configs if c.delta_t and c.error_counts == "own"}
    by_rule = {
        r: sorted(fields[c.identity] for c in configs if c.rule == r and c.identity in fields)
        for r in collapse.COLLAPSE_RULES
    }
    assert len({str(v) for v in by_rule.values()}) == 1 and max(c.delta_t for c in configs) > 0.02
    assert {c.rule for c in configs if c.delta_t == 0} == {"drop"} and {c.epochs for c in configs} == {1}
    assert {c.dataset for c in collapse_configs(quick=True)} == {"mnist_small"}
    with pytest.raises(ValueError, match="seeds is 0; it must be at least 1"):
        collapse_configs(seeds=0)


def test_counts_in_the_error_are_compared_at_the_same_time_steps_over_five_seeds() -> None:
    places: dict[tuple[str, str], set[tuple[str, int, float]]] = {}
    for c in collapse_configs():
        if c.rule == "drop" and c.delta_t:
            places.setdefault((c.error_counts, c.error_layers), set()).add((c.dataset, c.seed, c.delta_t))
    assert set(places) == set(collapse.COUNTED)
    own = places.pop(("own", "output"))
    [others] = {frozenset(found) for found in places.values()}
    assert others <= own and {seed for _, seed, _ in others} == set(range(5))


def test_neuron_sends_on_a_fine_grid_what_it_sends_in_continuous_time(drive: xr.Dataset) -> None:
    fine = drive["spike_count"].sel(delta_t=1e-5)
    assert (abs(fine - drive["continuous_count"]) <= 1).all() and drive["continuous_count"].max() == 30


def test_neuron_sends_one_spike_a_tick_at_most(drive: xr.Dataset) -> None:
    for step, ticks in ((0.008, 25), (0.015, 14)):
        binary = drive["spike_count"].sel(rule=["drop", "merge", "defer"], delta_t=step)
        assert 5 < binary.max() <= ticks
    assert drive["spike_count"].sel(rule="graded").max() == 30


def test_only_drop_sends_less_when_it_is_driven_harder(drive: xr.Dataset) -> None:
    steady = drive["spike_count"].isel(pattern=0).sel(delta_t=0.015)
    falls = steady.max("drive") - steady.isel(drive=-1)
    # Under merge a neuron may use up its spike limit with crossings that send nothing.
    assert falls.sel(rule="drop") > 5 and (falls.sel(rule=["merge", "defer", "graded"]) <= 2).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"delta_t": [0.0]}, r"delta_t is \[0.0\]"), ({"delta_t": [0.01], "n_drives": 0}, "n_drives is 0")],
)
def test_bad_drive_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        drive_response(**options)


def test_crossed_training_with_both_the_same_is_training(data: ImageData) -> None:
    config = SMALL.replace(delta_t=0.008, rule="merge")
    usual = train(config, data, device="cpu").network.weights
    crossed = train_crossed(config, data, errors_at=0.008, gradient_at=0.008, device="cpu").weights
    for a, b in zip(usual, crossed, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_errors_and_gradients_of_different_time_steps_train_otherwise(data: ImageData) -> None:
    def weights(errors_at: float, gradient_at: float) -> np.ndarray:
        return train_crossed(SMALL, data, errors_at=errors_at, gradient_at=gradient_at, device="cpu").weights[1]

    found = [weights(e, g) for e in (0.0, 0.012) for g in (0.0, 0.012)]
    assert all(abs(a - b).max() > 1e-3 for i, a in enumerate(found) for b in found[:i])


def test_diagonal_of_the_cross_test_is_the_test_of_training(data: ImageData) -> None:
    steps = (0.0, 0.012)
    found = cross_test(SMALL, data, steps, seeds=2, device="cpu")
    for seed in (0, 1):
        for step in steps:
            record = train(SMALL.replace(delta_t=step, seed=seed), data, device="cpu").records[-1]
            own = found.sel(seed=seed, trained_at=step, tested_at=step)
            assert own["accuracy"] == record.test.accuracy
            assert own["output_spikes"].item() == pytest.approx(15 * record.test.confidence[-1])


@pytest.fixture(scope="module")
def trained(data: ImageData) -> Network:
    return train(SMALL, data, device="cpu").network


def test_true_change_of_the_loss_is_that_of_moved_weights(trained: Network, data: ImageData) -> None:
    config = SMALL.replace(delta_t=0.004)
    before = trained.weights
    images, labels = data.x_test[:50], data.y_test[:50]
    found = gradient_quality(trained, images, labels, config, n_directions=2, seed=5)
    assert all((a == b).all() for a, b in zip(before, trained.weights, strict=True))
    rng = np.random.default_rng(5)
    direction = [rng.standard_normal(w.shape, dtype=np.float32) for w in before]
    losses = []
    for sign in (1, -1):
        moved = Network.from_config(SMALL, 784, 10, device="cpu")
        moved.set_weights([w + sign * SMALL.learning_rate * d for w, d in zip(before, direction, strict=True)])
        losses.append(evaluate(moved, input_spikes(images, config), labels).loss)
    assert found["loss_change"][0] == pytest.approx((losses[0] - losses[1]) / 2)


def test_gradient_predicts_the_change_of_the_loss(trained: Network, data: ImageData) -> None:
    found = gradient_quality(trained, data.x_test, data.y_test, SMALL, n_directions=200)
    assert found["cosine_all"] == pytest.approx(1)  # in continuous time both gradients are the same
    assert (agreement(found) > 0.2).all()
    assert (found["step_change"] < 0).all()


def test_gradients_on_the_grid_differ_from_those_of_continuous_time(trained: Network, data: ImageData) -> None:
    cosines = [
        float(
            gradient_quality(trained, data.x_test, data.y_test, SMALL.replace(delta_t=s), n_directions=1)["cosine_all"]
        )
        for s in (1e-5, 0.004, 0.03)
    ]
    assert cosines[0] > 0.999 and cosines[0] > cosines[1] > cosines[2]


# ------------------------------------------------------------------------------------- files, command and notebook


RUNS = [SMALL.replace(n_train=100, epochs=1, delta_t=step, keep_samples=0) for step in (0.0, 0.012)]
RUNS.append(RUNS[-1].replace(error_counts="graded"))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Experiments and runs that take seconds."""
    monkeypatch.setitem(experiments.SIZES, "mnist_small", experiments.Size(n_train=200, images=50, directions=3))
    monkeypatch.setattr(study, "short_run", lambda _, **changes: SMALL.replace(epochs=1, **changes))
    monkeypatch.setitem(study._STEPS, "mnist_small", (0.012,))
    monkeypatch.setattr(study, "long_configs", lambda **_: RUNS[1:])
    monkeypatch.setattr(other_trainings, "short_run", lambda _, **changes: SMALL.replace(epochs=1, **changes))
    monkeypatch.setitem(other_trainings._CLOCK_IMAGES, "mnist_small", 200)
    monkeypatch.setattr(study, "_LAW_RUN", {"hidden": 20, "n_train": 200, "validation_fraction": 0.5, "epochs": 1})
    monkeypatch.setattr(study, "STUDY", dataclasses.replace(study.STUDY, configs=lambda **_: RUNS))
    monkeypatch.setattr(study, "drive_response", lambda *_, **__: drive_response([0.006, 0.01, 0.015], n_drives=20))


def test_collapse_is_run_drawn_and_answered_by_one_command(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "quick_collapse"
    with warnings.catch_warnings(action="ignore"):  # of classes that no neuron has learned yet
        save_run(run_experiment(RUNS[0], device="cpu"), folder)
        save_run(run_experiment(RUNS[1], device="cpu"), folder / collapse.LONG)
    assert main(["reproduce", "collapse", "--quick", "--quiet", "--device", "cpu", "--out", str(tmp_path)]) == 0
    assert {p.name for p in folder.glob("experiment-*")} == {
        experiment_path("", name, "mnist_small").name for name in open_experiments(folder)
    }
    assert len(list(folder.glob("run-*.nc"))) == 3 and "quick_collapse/report.html" in capsys.readouterr().out
    drawn = {p.stem for p in (folder / "figures").glob("*.pdf")}
    assert {"accuracy", "drive", "highest_count", "cross_test", "gradient_quality", "train_crossed"} <= drawn
    assert {"error_counts", "collapse_law", "counts_over_epochs", "every_clock"} <= drawn
    again: list[str] = []
    run_collapse_experiments(folder, quick=True, device="cpu", report=again.append)
    assert again == []  # what is there is not measured again
    assert len(report.gradient_table(open_experiments(folder)["gradient_quality"])) == 2


def test_damaged_experiment_is_named(tmp_path: Path) -> None:
    path = experiment_path(tmp_path, "cross_test", "mnist")
    path.write_bytes(b"no such thing")
    with pytest.raises(ResultsError, match=f"{path.name} cannot be read"):
        open_experiments(tmp_path)


# ---------------------------------------------------------------------------------------------------- the tables


def made_up(drop: float) -> tuple[dict[str, xr.Dataset], dict[str, dict[str, xr.Dataset]]]:
    """Results in which `drop` has this accuracy (%) at 10 ms, and everything else has 95 %."""
    accuracy = np.full((2, 1, 3, 2, 1), 0.95)
    accuracy[1, 0, 0] = drop / 100
    dims = ("delta_t", "seed", "rule", "split", "epoch")
    coords = {"seed": [0], "rule": ["drop", "merge", "graded"]}
    runs = xr.Dataset(
        {"accuracy": (dims, accuracy)},
        coords | {"delta_t": [0.0, 0.01], "split": ["train", "test"], "epoch": [1], "dataset": "mnist"},
    )
    tested = np.full((1, 3, 2, 2), 0.95)
    tested[0, 0, :, 1] = drop / 100, drop / 100 - 0.1
    cross = xr.Dataset(
        {"accuracy": (("seed", "rule", "trained_at", "tested_at"), tested)},
        coords | {"trained_at": [0.0, 0.01], "tested_at": [0.0, 0.01]},
    )
    nothing: dict[str, dict[str, xr.Dataset]] = {name: {} for name in collapse.EXPERIMENTS | collapse.SMALL_EXPERIMENTS}
    return {"mnist": runs}, nothing | {"cross_test": {"mnist": cross}}


def test_tables_tell_what_each_rule_costs_where_drop_has_collapsed() -> None:
    results, parts = made_up(40)
    lost = report.lost_under_rules(results)
    assert lost.to_dict("records") == [
        {"data set": "mnist", "Δt": "10 ms", "picked on": "train images"}
        | {"drop": "55.0", "merge": "0.0", "graded": "0.0"}
    ]
    elsewhere = report.trained_elsewhere(parts["cross_test"], {})
    [row] = elsewhere.to_dict("records")
    assert row == {
        "data set": "mnist",
        "Δt": "10 ms",
        "trained in continuous time": "40.0",
        "trained at Δt": "30.0",
        "trained at Δt, tested in continuous time": "95.0",
    }


def test_tables_are_empty_where_nothing_collapses_or_was_measured() -> None:
    results, parts = made_up(94)
    assert report.lost_under_rules(results).empty
    assert report.trained_elsewhere({}, {}).empty and report.gradient_table({}).empty
    assert report.counts_table(results).empty and report.answer(results, parts | {"cross_test": {}}) == []


def test_first_step_that_fails_is_not_picked_on_test_images() -> None:
    results, _ = made_up(94)
    accuracy = results["mnist"]["accuracy"]
    accuracy[1, 0, 0, 1] = 0.4  # it fails on test images alone
    assert report.lost_under_rules(results).empty
    accuracy[1, 0, 0] = [[0.4], [0.94]]
    [row] = report.lost_under_rules(results).to_dict("records")
    assert row["drop"] == "1.0" and row["picked on"] == "train images"


def test_what_a_rule_costs_is_told_seed_by_seed() -> None:
    results, _ = made_up(40)
    runs = xr.concat([results["mnist"], results["mnist"].assign_coords(seed=[1])], "seed")
    runs["accuracy"].loc[{"seed": 1}] -= 0.2
    runs["accuracy"].loc[{"seed": 0, "rule": "merge", "delta_t": 0.01}] = np.nan
    [row] = report.lost_under_rules({"mnist": runs}).to_dict("records")
    assert row["drop"] == "55.0" and row["merge"] == "0.0"


def with_counts() -> xr.Dataset:
    """Results of three seeds in which other counts gain 10, 11 and 12 points."""
    own, other = [0.80, 0.81, 0.82], [0.90, 0.92, 0.94]
    values = np.broadcast_to(np.array([own, other])[:, :, None, None], (2, 3, 2, 1))
    dims = ("error_counts", "seed", "split", "epoch")
    coords = {"error_counts": ["own", "graded"], "seed": range(3), "split": ["train", "test"], "epoch": [1]}
    return xr.Dataset({"accuracy": (dims, values)}, coords | {"delta_t": 0.008, "rule": "drop", "dataset": "mnist"})


def test_counts_are_compared_seed_by_seed() -> None:
    [row] = report.compare_counts(with_counts()).itertuples()
    assert row.difference == pytest.approx(11) and row.seeds == 3
    assert row.p_holm == pytest.approx(stats.ttest_1samp([10, 11, 12], 0).pvalue)
    [shown] = report.counts_table({"mnist": with_counts()}).to_dict("records")
    assert shown["accuracy (%)"] == "92.0 ± 2.0" and shown["gained (points)"].startswith("+11.0 [+8.5, +13.5]")
    [said] = report.answer({"mnist": with_counts()}, {"cross_test": {}, "collapse_law": {}})
    assert "92.0 ± 2.0 % in place of 81.0 ± 1.0 at 8 ms" in said


def test_what_mends_is_told_of_each_data_set_that_a_coarse_clock_hurts() -> None:
    runs = with_counts().expand_dims("delta_t")
    exact = runs.isel(error_counts=[0]).assign_coords(delta_t=[0.0])
    for continuous, told in ((0.95, True), (0.85, False)):
        part = xr.concat([exact.assign(accuracy=0 * exact["accuracy"] + continuous), runs], "delta_t", join="outer")
        said = report.answer({"mnist": with_counts(), "other": part}, {"cross_test": {}, "collapse_law": {}})[0]
        assert "on mnist 92.0" in said and ("on other 92.0 ± 2.0 % in place of 81.0" in said) == told


def test_what_fails_is_told_where_training_at_the_time_step_loses_more() -> None:
    _, parts = made_up(40)
    parts["cross_test"]["mnist"]["accuracy"].loc[{"trained_at": 0.0, "tested_at": 0.01}] = 0.93
    [said] = report.answer({}, parts)
    assert "93.0 % at 10 ms where those trained there have 30.0." in said


# ------------------------------------------------------------------------------------------------------- the law


@pytest.mark.parametrize(("duration", "tau_syn", "target"), [(0.2, 0.13, 15), (0.2, 0.13, 25), (0.3, 0.065, 15)])
def test_law_is_the_last_interval_of_a_neuron_fed_steadily(duration: float, tau_syn: float, target: int) -> None:
    n_inputs = 2000
    times = (np.arange(n_inputs) + 0.5) * duration / n_inputs
    neuron = {"thresholds": [1.0], "max_spikes": [60], "tau_syn": tau_syn, "duration": duration, "dtype": "float64"}

    def spikes(weight: float) -> np.ndarray:
        weights = [np.full((1, n_inputs), weight)]
        network = Network((n_inputs, 1), **neuron, weights=weights, device="cpu")
        found = network.simulate(Spikes.from_padded(times[None, :, None]))[0].times[0, 0]
        return found[np.isfinite(found)]

    low, high = 0.0, 1.0
    for _ in range(40):  # the drive at which the last of so many spikes falls on the end of the window
        middle = (low + high) / 2
        low, high = (middle, high) if len(spikes(middle)) < target else (low, middle)
    interval = np.diff(spikes(high))[-1]
    assert collapse_step(target, duration, tau_syn) == pytest.approx(interval, rel=0.06)


def test_observed_step_lies_between_the_time_steps_around_it() -> None:
    accuracy = xr.DataArray([0.95, 0.94, 0.9, 0.8], {"ratio": [0.0, 0.5, 1.0, 2.0]}, ["ratio"])
    law = xr.Dataset({"accuracy": accuracy.expand_dims(target=[15.0], duration=[0.2], tau_syn=[0.13])})
    assert observed_steps(law).item() == pytest.approx(np.sqrt(2))
    assert np.isnan(observed_steps(law, lost=0.2).item()) and np.isnan(observed_steps(law, lost=0.005).item())
    mean, spread, n = law_error(law)
    assert mean == pytest.approx(np.sqrt(2)) and np.isnan(spread) and n == 1


def test_scaling_all_times_keeps_every_spike(trained: Network, data: ImageData) -> None:
    found = scaling_check(trained, SMALL.replace(delta_t=0.008), data.x_test[:20], factors=(0.1, 3.0))["same"]
    assert (found.sel(scaled="all") > 0.999).all()
    assert (found.sel(scaled="all but the time step") < 0.5).all()
    table = report.scaling_table({"mnist": found.to_dataset().expand_dims(delta_t=[0.008])})
    assert table["scaled: all"].tolist() == ["100.0", "100.0"] and table["factor"].tolist() == ["0.1", "3"]


def test_tables_name_the_other_rules_that_fail_too() -> None:
    results, _ = made_up(40)
    results["mnist"]["accuracy"][1] = 0.4
    [row] = report.lost_under_rules(results).to_dict("records")
    assert row["merge"] == row["graded"] == "55.0"


def test_spikes_of_a_neuron_stand_beside_the_accuracies(drive: xr.Dataset) -> None:
    _, parts = made_up(40)
    moved = parts["cross_test"]["mnist"].assign_coords(trained_at=[0.0, 0.015], tested_at=[0.0, 0.015])
    [row] = report.trained_elsewhere({"mnist": moved}, {"mnist": drive}).to_dict("records")
    sent = drive["spike_count"].isel(pattern=0).sel(rule="drop", delta_t=0.015)
    expected = f"{int(sent.max())} at most, {int(sent.isel(drive=-1))} driven hardest"
    assert row["a neuron's spikes"] == expected
