"""The experiments on why training collapses: each held against what is known of it without the experiment."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from bats_lab import collapse
from bats_lab.cli import main
from bats_lab.config import Config
from bats_lab.data.datasets import ImageData, load_dataset
from bats_lab.errors import ResultsError
from bats_lab.network.feedforward import Network
from bats_lab.runs.experiment import run_experiment
from bats_lab.runs.files import save_run
from bats_lab.runs.training import evaluate, input_spikes, train
from bats_lab.studies import experiments
from bats_lab.studies.collapse import report, study
from bats_lab.studies.collapse.experiments import (
    agreement,
    cross_test,
    drive_response,
    gradient_quality,
    train_crossed,
)
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
    fields = {c.identity: (c.dataset, c.seed, c.delta_t) for c in configs if c.delta_t}
    by_rule = {
        r: sorted(fields[c.identity] for c in configs if c.rule == r and c.delta_t) for r in collapse.COLLAPSE_RULES
    }
    assert len({str(v) for v in by_rule.values()}) == 1 and max(c.delta_t for c in configs) > 0.02
    assert {c.rule for c in configs if c.delta_t == 0} == {"drop"} and {c.epochs for c in configs} == {1}
    assert {c.dataset for c in collapse_configs(quick=True)} == {"mnist_small"}
    with pytest.raises(ValueError, match="seeds is 0; it must be at least 1"):
        collapse_configs(seeds=0)


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


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Experiments and runs that take seconds."""
    monkeypatch.setitem(experiments.SIZES, "mnist_small", experiments.Size(n_train=200, images=50, directions=3))
    monkeypatch.setattr(study, "short_run", lambda _, **changes: SMALL.replace(epochs=1, **changes))
    monkeypatch.setitem(study._STEPS, "mnist_small", (0.012,))
    monkeypatch.setattr(study, "STUDY", dataclasses.replace(study.STUDY, configs=lambda **_: RUNS))
    monkeypatch.setattr(study, "drive_response", lambda *_, **__: drive_response([0.006, 0.01, 0.015], n_drives=20))


def test_collapse_is_run_drawn_and_answered_by_one_command(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "quick_collapse"
    with warnings.catch_warnings(action="ignore"):  # of classes that no neuron has learned yet
        save_run(run_experiment(RUNS[0], device="cpu"), folder)
    assert main(["reproduce", "collapse", "--quick", "--quiet", "--device", "cpu", "--out", str(tmp_path)]) == 0
    assert {p.name for p in folder.glob("experiment-*")} == {
        experiment_path("", name, "mnist_small").name for name in collapse.EXPERIMENTS
    }
    assert len(list(folder.glob("run-*.nc"))) == 2 and "quick_collapse/report.html" in capsys.readouterr().out
    drawn = {p.stem for p in (folder / "figures").glob("*.pdf")}
    assert {"accuracy", "drive", "highest_count", "cross_test", "gradient_quality", "train_crossed"} <= drawn
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
    return {"mnist": runs}, {name: {} for name in collapse.EXPERIMENTS} | {"cross_test": {"mnist": cross}}


def test_tables_tell_what_each_rule_costs_where_drop_has_collapsed() -> None:
    results, parts = made_up(40)
    lost = report.lost_under_rules(results)
    assert lost.to_dict("records") == [
        {"data set": "mnist", "Δt": "10 ms", "drop": "55.0", "merge": "0.0", "graded": "0.0"}
    ]
    untrained = report.lost_without_training(parts["cross_test"], {})
    assert untrained.to_dict("records") == [
        {"data set": "mnist", "continuous": "95.0", "tested at": "10 ms"}
        | {"drop": "40.0", "merge": "95.0", "graded": "95.0"}
    ]


def test_tables_are_empty_where_nothing_collapses_or_was_measured() -> None:
    results, parts = made_up(94)
    assert report.lost_under_rules(results).empty
    assert report.lost_without_training(parts["cross_test"], {}).empty and report.gradient_table({}).empty


def test_tables_name_the_other_rules_that_fail_too() -> None:
    results, _ = made_up(40)
    results["mnist"]["accuracy"][1] = 0.4
    [row] = report.lost_under_rules(results).to_dict("records")
    assert row["merge"] == row["graded"] == "55.0"


def test_spikes_of_a_neuron_stand_beside_the_accuracies(drive: xr.Dataset) -> None:
    _, parts = made_up(40)
    moved = parts["cross_test"]["mnist"].assign_coords(trained_at=[0.0, 0.015], tested_at=[0.0, 0.015])
    [row] = report.lost_without_training({"mnist": moved}, {"mnist": drive}).to_dict("records")
    sent = drive["spike_count"].isel(pattern=0).sel(rule="drop", delta_t=0.015)
    expected = f"{int(sent.max())} at most, {int(sent.isel(drive=-1))} driven hardest"
    assert row["a neuron's spikes under drop"] == expected
