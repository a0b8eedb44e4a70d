"""The explorers without a browser: set a control's value, look at the data of the picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from runs import make_run

from bats_lab import explore, open_results, save_run
from bats_lab.config import Config
from bats_lab.explore.digit import draw_strokes
from bats_lab.explore.live import live_networks, load_samples
from bats_lab.network.feedforward import Network
from bats_lab.plots import delta_t_color
from bats_lab.runs.experiment import config_of, network_of
from bats_lab.runs.training import input_spikes


@pytest.fixture(scope="module")
def results(small_sweep: Path) -> xr.Dataset:
    return open_results(small_sweep)


@pytest.fixture(scope="module")
def made(results: xr.Dataset) -> Callable[[Any], Any]:
    """Return a function that gives the explorer of the results, made once and brought back to how it started."""
    kept: dict[Any, tuple[Any, dict[str, Any]]] = {}

    def make(function: Any) -> Any:
        if function not in kept:
            explorer = function(results)
            kept[function] = explorer, explorer.values
        explorer, start = kept[function]
        for name in sorted(start, key="run".__eq__):  # last: which runs there are to choose depends on the others
            explorer.controls[name].value = start[name]
        return explorer

    return make


def columns(explorer: Any, picture: int, panel: int, name: str) -> dict[str, Any]:
    return explorer.pictures[picture].panels[panel].columns(name)


# What all explorers do


EXPLORERS = [
    explore.explore_rasters,
    explore.explore_weights,
    explore.explore_tradeoff,
    explore.explore_latency,
    explore.explore_digit,
    explore.dashboard,
]


@pytest.mark.parametrize("explorer", EXPLORERS)
def test_folder_without_runs_is_told_in_a_sentence(tmp_path: Path, explorer: Any) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        told = explorer(folder)
        assert isinstance(told, explore.Sentence) and str(folder) in told.text


@pytest.mark.parametrize("explorer", EXPLORERS[:2] + EXPLORERS[4:5])
def test_runs_without_weights_are_told_in_a_sentence(explorer: Any) -> None:
    told = explorer(make_run(keep_weights="none").squeeze())
    assert isinstance(told, explore.Sentence) and "keep_weights='last'" in told.text


def test_results_that_are_nan_are_told_in_a_sentence() -> None:
    run = make_run()
    told = explore.explore_tradeoff(run.assign(accuracy=run["accuracy"] * np.nan))
    assert isinstance(told, explore.Sentence) and "no finished run" in told.text


def test_other_things_than_results_are_refused() -> None:
    with pytest.raises(TypeError, match="results is a int"):
        explore.explore_tradeoff(3)


def test_single_run_in_memory_can_be_explored(results: xr.Dataset) -> None:
    run = results.isel(delta_t=0, rule=0, seed=0)
    for explorer in EXPLORERS[:5]:
        made = explorer(run)
        assert isinstance(made, explore.Explorer), made.text


def test_changes_before_anything_is_displayed_are_in_what_is_displayed(results: xr.Dataset) -> None:
    explorer = explore.explore_latency(results)
    explorer.controls["time"].value = 30.0
    model = explorer.pictures[0].widget
    before = model.render_bundle
    model._view_count = 1  # a browser says so when it shows the picture
    assert model.render_bundle != before


def test_changes_of_a_picture_travel_in_one_message(made: Callable[[Any], Any]) -> None:
    explorer = made(explore.explore_rasters)
    model = explorer.pictures[0].widget
    model._view_count = 1
    sent: list[dict[str, Any]] = []
    model.send = lambda content, buffers=None: sent.append(content)
    explorer.controls["sample"].value += 1
    del model.send
    assert len(sent) == 3 and '"events"' in sent[2]["payload"]


# Rasters


def test_raster_shows_what_the_network_does_at_a_time_step_it_was_not_trained_with(results: xr.Dataset) -> None:
    run = results.isel(delta_t=0, rule=0, seed=0)
    explorer = explore.explore_rasters(run)
    explorer.controls["sample"].value = 3
    explorer.controls["delta_t"].value = 0.005
    explorer.controls["rule"].value = "graded"
    images = load_samples(config_of(run)).images[3:4]
    layers = network_of(run).simulate(input_spikes(images, config_of(run).replace(delta_t=0.005)), rule="graded")
    for panel, layer in ((1, layers[0]), (2, layers[1])):
        shown = columns(explorer, 0, panel, "sent")
        assert np.sort(shown["time"]) == pytest.approx(np.sort(1e3 * layer.discretized[np.isfinite(layer.times)]))
    glyph = explorer.pictures[0].panels[1]._plots["sent"].handles["glyph"]
    assert glyph.fill_color == delta_t_color(0.005)


def test_raster_in_continuous_time_has_nothing_that_waits(results: xr.Dataset) -> None:
    explorer = explore.explore_rasters(results, delta_t=0.0, rule="clocked")
    assert len(columns(explorer, 0, 1, "links")["time"]) == 0
    assert len(columns(explorer, 0, 1, "sent")["time"]) > 0


def test_one_layer_and_a_window_of_time_can_be_chosen(made: Callable[[Any], Any]) -> None:
    explorer = made(explore.explore_rasters)
    explorer.controls["layer"].value = 1
    explorer.controls["window"].value = (50.0, 100.0)
    panels = explorer.pictures[0].panels
    assert [panel.figure.visible for panel in panels] == [False, True, False]
    assert panels[1].figure.x_range.start == pytest.approx(49.5) and panels[1].figure.x_range.end == pytest.approx(
        100.5
    )


def test_network_of_ones_own_can_be_explored(results: xr.Dataset) -> None:
    network = Network.from_config(Config(hidden=(30,)), 784, 10, threads=1)
    images = explore.Samples(np.full((2, 28, 28), 200, np.uint8))
    explorer = explore.explore_rasters(network, images, delta_t=0.002)
    assert "Sample 0 is taken for" in explorer.sentence.text
    assert len(columns(explorer, 0, 0, "sent")["time"]) == 784


def test_runs_that_kept_weights_are_offered(results: xr.Dataset) -> None:
    networks = live_networks(results)
    assert len(networks) == 4 and all("seed 0" in network.title for network in networks)


# Weights


def test_weights_of_two_time_steps_are_side_by_side(made: Callable[[Any], Any], results: xr.Dataset) -> None:
    explorer = made(explore.explore_weights)
    explorer.controls["neuron"].value = 5
    steps = results["delta_t"].values
    for side, delta_t in ((0, steps[0]), (1, steps[-1])):
        kept = results["weights"].sel(delta_t=delta_t, rule="drop", seed=0, layer="hidden_1").values
        assert np.array_equal(columns(explorer, 0, side, "weights")["image"][0], kept)
        assert np.array_equal(columns(explorer, 0, 2 + side, "weights")["image"][0].ravel(), kept[5])


def test_other_layers_have_stems_and_as_many_neurons_as_they_are(made: Callable[[Any], Any]) -> None:
    explorer = made(explore.explore_weights)
    explorer.controls["neuron"].value = 90
    explorer.controls["layer"].value = "output"
    assert explorer.controls["neuron"].max == 9 and explorer.controls["neuron"].value == 9
    assert [panel.figure.visible for panel in explorer.pictures[0].panels[2:]] == [False, False, True, True]
    assert len(columns(explorer, 0, 4, "stems")["pre"]) == 3 * 100


def test_weights_of_an_epoch_are_those_of_the_epoch(made: Callable[[Any], Any], results: xr.Dataset) -> None:
    explorer = made(explore.explore_weights)
    explorer.controls["epoch"].value = 1
    kept = results["weights_by_epoch"].isel(delta_t=0, epoch=0).sel(rule="drop", seed=0, layer="hidden_1").values
    assert np.array_equal(columns(explorer, 0, 0, "weights")["image"][0], kept)


def test_weights_that_were_not_kept_are_told(small_sweep: Path, tmp_path: Path) -> None:
    for seed, delta_t in ((0, 0.002), (1, 0.004)):
        save_run(make_run(seed=seed, delta_t=delta_t), tmp_path)
    explorer = explore.explore_weights(tmp_path)
    explorer.controls["seed"].value = 1
    assert "No weights were kept for 2 ms, drop, seed 1; of this time step there are: drop with seed 0." in (
        explorer.sentence.text
    )


# Trade-off


def test_front_follows_the_runs_chosen(made: Callable[[Any], Any], results: xr.Dataset) -> None:
    explorer = made(explore.explore_tradeoff)
    explorer.controls["rule"].value = ("drop",)
    explorer.controls["seed"].value = (1,)
    last = results.isel(epoch=-1).sel(split="test", rule="drop", seed=1)
    cost, accuracy = last["spike_count"].sum("layer").values, 100 * last["accuracy"].values
    shown = columns(explorer, 0, 0, "rule drop")
    assert sorted(shown["cost"]) == pytest.approx(sorted(cost))
    assert len(columns(explorer, 0, 0, "rule graded")["cost"]) == 0
    assert max(columns(explorer, 0, 0, "front")["accuracy"]) == pytest.approx(accuracy.max())


def test_click_on_a_point_shows_its_run(made: Callable[[Any], Any], results: xr.Dataset) -> None:
    explorer = made(explore.explore_tradeoff)
    source = explorer.pictures[0].panels[0].source("rule graded")
    row = list(source.data["seed"]).index(0)
    source.selected.indices = [row]
    delta_t, rule, seed = explorer.controls["run"].value
    assert (rule, seed) == ("graded", 0)
    kept = results["sent_times"].sel(delta_t=delta_t, rule=rule, seed=seed, sample=0, layer="output").values
    assert np.sort(columns(explorer, 1, 2, "sent")["time"]) == pytest.approx(np.sort(1e3 * kept[np.isfinite(kept)]))
    weights = results["weights"].sel(delta_t=delta_t, rule=rule, seed=seed, layer="hidden_1").values
    assert np.array_equal(columns(explorer, 2, 0, "weights")["image"][0], weights)


def test_run_without_weights_shows_its_spikes_and_says_so(made: Callable[[Any], Any]) -> None:
    explorer = made(explore.explore_tradeoff)
    explorer.controls["run"].value = (0.002, "drop", 1)
    assert "kept no weights" in explorer.sentence.text
    assert len(columns(explorer, 1, 1, "sent")["time"]) > 0


def test_no_run_chosen_is_an_empty_plane(made: Callable[[Any], Any]) -> None:
    explorer = made(explore.explore_tradeoff)
    explorer.controls["seed"].value = ()
    assert explorer.controls["run"].value is None
    assert "0 of 8 runs are chosen" in explorer.pictures[0].panels[0].figure.title.text
    explorer.buttons["save"].click()
    assert "nothing to save" in explorer.sentence.text


def test_chosen_runs_are_saved(small_sweep: Path, tmp_path: Path) -> None:
    for path in small_sweep.glob("run-*.nc"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    explorer = explore.explore_tradeoff(tmp_path)
    explorer.controls["delta_t"].value = (0.008,)
    explorer.controls["seed"].value = (0,)
    explorer.buttons["save"].click()
    table = pd.read_csv(tmp_path / "selection.csv")
    assert set(table["delta_t"]) == {0.008} and sorted(table["rule"]) == ["drop", "graded"]
    with xr.open_dataset(tmp_path / "selection.nc") as saved:
        assert saved["accuracy"].sizes["delta_t"] == 1 and saved["seed"].values.tolist() == [0]
        whole = open_results(tmp_path)["accuracy"].sel(delta_t=0.008, seed=0)
        assert np.array_equal(saved["accuracy"].squeeze(["delta_t", "seed"]).transpose(*whole.dims), whole)


# Latency


def test_decision_time_reads_the_curves(made: Callable[[Any], Any], results: xr.Dataset) -> None:
    explorer = made(explore.explore_latency)
    explorer.controls["time"].value = 120.0
    curve = results["stopped_accuracy"].sel(stop_time=0.12, method="nearest").sel(rule="drop").mean("seed")
    assert columns(explorer, 0, 0, "there")["accuracy"] == pytest.approx(100 * curve.values)
    explorer.controls["rule"].value = "graded"
    curve = results["stopped_accuracy"].sel(rule="graded").isel(delta_t=-1).mean("seed")
    assert columns(explorer, 0, 0, "curve 0.008")["accuracy"] == pytest.approx(100 * curve.values)


def test_curves_that_no_run_holds_are_measured(results: xr.Dataset) -> None:
    older = results.drop_vars(["stopped_accuracy", "stopped_spike_count", "stop_time"])
    measured = explore.measure_stopping(older, n_samples=200)
    kept = results["stopped_accuracy"].sel(seed=0)
    assert measured["stopped_accuracy"].sel(seed=0).transpose(*kept.dims).values == pytest.approx(kept.values)
    assert "Measured now" in explore.explore_latency(older).sentence.text


# A digit of one's own


def test_time_lets_spikes_travel(made: Callable[[Any], Any]) -> None:
    explorer = made(explore.explore_digit)
    last = len(columns(explorer, 1, 1, "sent")["time"])
    explorer.controls["time"].value = 60.0
    shown = columns(explorer, 1, 1, "computed")["time"] if explorer.controls["delta_t"].value else [0.0]
    assert max(shown, default=0) <= 60.0 and 0 < len(columns(explorer, 1, 1, "sent")["time"]) < last


def test_drawing_takes_the_place_of_the_sample(made: Callable[[Any], Any]) -> None:
    explorer = made(explore.explore_digit)
    explorer.strokes.data = {"xs": [[14.0, 14.0]], "ys": [[4.0, 22.0]]}
    assert explorer.sentence.text.startswith("Your drawing")
    image = columns(explorer, 0, 0, "image")["image"][0]
    assert np.array_equal(image, draw_strokes([np.array([[14.0, 14.0], [4.0, 22.0]])]).astype(float))
    explorer.buttons["clear"].click()
    assert explorer.sentence.text.startswith("Sample 0")


def test_drawing_is_centred_and_as_large_as_the_digits_of_mnist() -> None:
    small = draw_strokes([np.array([[2.0, 3.0, 3.0], [2.0, 2.0, 5.0]])])
    large = draw_strokes([10 + 4 * np.array([[2.0, 3.0, 3.0], [2.0, 2.0, 5.0]])])
    assert np.abs(small.astype(int) - large).max() <= 1
    rows, cols = np.indices(small.shape)
    centre = [(axis * small).sum() / small.sum() for axis in (rows, cols)]
    assert centre == pytest.approx([13.5, 13.5], abs=0.3)
    assert 18 <= np.ptp(np.flatnonzero(small.any(axis=1))) <= 21
    assert not draw_strokes([]).any() and draw_strokes([np.array([[3.0], [3.0]])]).max() > 200


# Dashboard


def test_dashboard_makes_an_explorer_when_its_tab_is_opened(results: xr.Dataset) -> None:
    tabs = explore.dashboard(results)
    assert isinstance(tabs, ipywidgets.Tab)
    made = [isinstance(box.children[0], explore.Explorer) for box in tabs.children]
    assert made == [True, False, False, False, False]
    tabs.selected_index = 1
    assert isinstance(tabs.children[1].children[0], explore.Explorer)


# a sweep by controls


def test_controls_of_a_sweep_make_its_command_and_tell_what_is_wrong_with_it(tmp_path: Path) -> None:
    control = explore.explore_sweep(tmp_path, delta_t="0,4ms", rule="drop,graded", more="--hidden 9,'12'")
    assert control.command == [
        *("sweep", "--dataset=mnist_small", "--delta-t=0,4ms", "--rule=drop,graded", "--seeds=2", "--epochs=3"),
        *(f"--out={tmp_path}", "--hidden", "9,12"),
    ]
    assert control.status.total == 0 and "no sweep has been started here" in control._told.value
    control.controls["epochs"].value = "<b>"
    assert "--epochs=&lt;b&gt;" in control._command.value.replace("&#x27;", "")
    assert control.plan() == "bats-lab: epochs is '<b>'; it must be an int.\n"
    assert "epochs is &#x27;&lt;b&gt;&#x27;" in control._told.value
    control.start()
    assert control.wait().total == 0 and "epochs is" in control._told.value
