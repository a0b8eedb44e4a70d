"""Plots of the experiments on why training collapses: each shows the numbers it is given."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import pytest
import xarray as xr
from pictures import draw, elements, option

from bats_lab import collapse
from bats_lab.studies.collapse.experiments import agreement, drive_response

# As files have them: in the order of the alphabet, which is not that of the plots.
RULES = ["drop", "graded", "merge"]
STEPS = [0.004, 0.012]


def filled(name: str, sizes: dict[str, list[Any]], *, seed: int = 0) -> xr.DataArray:
    """A variable of random numbers over these coordinates."""
    values = np.random.default_rng(seed).uniform(0, 1, [len(v) for v in sizes.values()])
    return xr.DataArray(values, sizes, list(sizes), name=name)


@pytest.fixture(scope="module")
def drive() -> xr.Dataset:
    return drive_response(STEPS, n_patterns=3, n_drives=30)


@pytest.fixture(scope="module")
def quality() -> xr.Dataset:
    place = {"rule": RULES, "delta_t": STEPS, "weights": ["continuous", "own"]}
    gradients = ["straight_through", "continuous"]
    return xr.merge(
        [
            filled("predicted", place | {"gradient": gradients, "direction": list(range(8))}),
            filled("loss_change", place | {"direction": list(range(8))}, seed=1),
            filled("step_change", place | {"gradient": gradients, "step": [0.1, 1.0]}, seed=2),
            filled("cosine_all", place, seed=3),
            filled("loss", place, seed=4) + 1,
        ]
    )


def points(plot: Any, label: str) -> np.ndarray:
    """The values of the points of a series."""
    [scatter] = [e for e in elements(plot, hv.Scatter) if e.label == label]
    return np.asarray(scatter.dimension_values(1))


def test_drive_response_has_one_plot_a_time_step_and_one_curve_a_rule(drive: xr.Dataset) -> None:
    layout = collapse.plot_drive_response(drive, delta_t=STEPS)
    draw(layout)
    assert [option(panel, "title") for panel in layout] == ["Δt = 4 ms", "Δt = 12 ms"]
    [curve] = [e for e in elements(layout[1], hv.Curve) if e.label == "drop"]
    steady = drive.isel(pattern=0)
    hardest = steady["continuous_count"].max().item()
    sent = steady["spike_count"].sel(rule="drop", delta_t=0.012).where(steady["continuous_count"] == hardest).mean()
    assert curve.dimension_values("sent")[-1] == pytest.approx(sent.item())
    with pytest.raises(ValueError, match=r"delta_t is 0\.5; the results hold 0\.004, 0\.012"):
        collapse.plot_drive_response(drive, delta_t=[0.5])


def test_highest_count_is_that_over_all_drives(drive: xr.Dataset) -> None:
    plot = collapse.plot_highest_count(drive)
    draw(plot)
    for rule in ("drop", "merge", "defer", "graded"):
        expected = drive["spike_count"].sel(rule=rule).max("drive").mean("pattern")
        np.testing.assert_allclose(points(plot, rule), expected)


def test_cross_test_is_a_matrix_a_rule() -> None:
    cross = filled("accuracy", {"rule": RULES, "seed": [0, 1], "trained_at": STEPS, "tested_at": [0.0, *STEPS[:1]]})
    layout = collapse.plot_cross_test(cross.to_dataset())
    draw(layout)
    assert [option(panel, "title") for panel in layout] == ["drop", "merge", "graded"]
    image = layout[1].Image.I
    shown = image.dimension_values("accuracy", flat=False)
    np.testing.assert_allclose(np.sort(shown, None), np.sort(100 * cross.sel(rule="merge").mean("seed"), None))
    one = collapse.plot_cross_test(cross.sel(rule="drop").to_dataset())
    assert isinstance(one, hv.Overlay)


@pytest.mark.parametrize("tested", ["grid", "continuous"])
def test_crossed_training_has_a_curve_for_each_source_of_errors_and_gradients(tested: str) -> None:
    either = ["continuous", "grid"]
    accuracy = filled(
        "accuracy",
        {"seed": [0, 1], "rule": RULES, "delta_t": STEPS, "errors": either, "gradient": either, "tested": either},
    )
    layout = collapse.plot_crossed_training(accuracy.to_dataset(), tested=tested)
    draw(layout)
    cell = accuracy.sel(rule="drop", errors="grid", gradient="continuous", tested=tested).mean("seed")
    np.testing.assert_allclose(points(layout[0], "errors on the grid, gradient exact"), 100 * cell)
    with pytest.raises(ValueError, match="tested is 'both'; it must be one of grid, continuous"):
        collapse.plot_crossed_training(accuracy.to_dataset(), tested="both")


@pytest.mark.parametrize("weights", ["continuous", "own"])
def test_gradient_quality_shows_correlations_and_the_cosine(quality: xr.Dataset, weights: str) -> None:
    layout = collapse.plot_gradient_quality(quality, weights=weights)
    draw(layout)
    own = quality.sel(weights=weights, rule="graded")
    for panel, gradient in zip(layout, ("straight_through", "continuous"), strict=False):
        np.testing.assert_allclose(points(panel, "graded"), agreement(own).sel(gradient=gradient))
    np.testing.assert_allclose(points(layout[2], "graded"), own["cosine_all"])


def test_step_along_the_gradient_is_told_in_percent_of_the_loss(quality: xr.Dataset) -> None:
    layout = collapse.plot_step_along_gradient(quality, gradient="continuous", weights="own")
    draw(layout)
    own = quality.sel(weights="own", rule="merge")
    expected = 100 * own["step_change"].sel(gradient="continuous", step=0.1) / own["loss"]
    np.testing.assert_allclose(points(layout[1], "0.1"), expected)
    with pytest.raises(ValueError, match="gradient is 'exact'; it must be one of"):
        collapse.plot_step_along_gradient(quality, gradient="exact")


def test_error_counts_have_a_curve_each_where_they_were_compared() -> None:
    places = {"delta_t": [0.0, 0.004, 0.012], "error_counts": ["graded", "own"], "seed": [0, 1], "rule": ["drop"]}
    accuracy = filled("accuracy", places | {"split": ["train", "test"], "epoch": [1]})
    accuracy.loc[{"error_counts": "graded", "delta_t": [0.0, 0.004]}] = np.nan
    plot = collapse.plot_error_counts(accuracy.to_dataset())
    draw(plot)
    wanted = 100 * accuracy.sel(split="test", epoch=1, rule="drop").mean("seed")
    np.testing.assert_allclose(points(plot, "own"), wanted.sel(error_counts="own", delta_t=[0.0, 0.012]))
    np.testing.assert_allclose(points(plot, "graded, output layer"), wanted.sel(error_counts="graded", delta_t=[0.012]))


def test_counts_over_epochs_are_those_of_test_images() -> None:
    place = {"error_counts": ["graded", "own"], "seed": [0, 1], "split": ["train", "test"], "epoch": [1, 2, 3]}
    accuracy, spikes = filled("accuracy", place), filled("spike_count", place | {"layer": ["hidden_1", "output"]})
    layout = collapse.plot_counts_over_epochs(xr.merge([accuracy, spikes]))
    draw(layout)
    for panel, values in zip(layout, (100 * accuracy, spikes.sel(layer="output")), strict=True):
        [curve] = [e for e in elements(panel, hv.Curve) if e.label == "graded, output layer"]
        expected = values.sel(error_counts="graded", split="test").mean("seed")
        np.testing.assert_allclose(curve.dimension_values(1), expected)


def test_collapse_law_shows_what_was_lost_and_where() -> None:
    place = {"target": [8.0, 15.0], "duration": [0.2], "tau_syn": [0.065, 0.13]}
    ratios = [0.0, 0.5, 1.0, 2.0]
    lost = xr.DataArray([0.0, 0.0, 0.05, 0.15], {"ratio": ratios}, ["ratio"])
    law = (0.9 - lost.expand_dims(place)).transpose(*place, "ratio").to_dataset(name="accuracy")
    layout = collapse.plot_collapse_law(law)
    draw(layout)
    curves = [e for e in elements(layout[0], hv.Curve) if len(e) == 3]
    assert len(curves) == 4
    np.testing.assert_allclose(curves[0].dimension_values(1), [0, 5, 15], atol=1e-9)
    [scatter] = [e for e in elements(layout[1], hv.Scatter) if e.label == "15"]
    predicted, observed = scatter.dimension_values(0), scatter.dimension_values(1)
    np.testing.assert_allclose(observed / predicted, np.sqrt(2))
    assert predicted[1] == pytest.approx(1e3 * collapse.collapse_step(15, 0.2, 0.13))
