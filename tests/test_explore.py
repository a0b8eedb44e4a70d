"""The explorers without a browser: set a control's value, look at the data of the picture."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from bokeh.events import Tap
from runs import make_run

from bats_lab import explore, open_results, save_run
from bats_lab.config import Config
from bats_lab.explore.digit import draw_strokes
from bats_lab.explore.live import live_networks, load_samples
from bats_lab.network.feedforward import Network
from bats_lab.plots import delta_t_color
from bats_lab.runs.experiment import config_of, network_of
from bats_lab.runs.kept import changes_of, weights_of
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
            kept[function] = explorer, explorer.state
        explorer, start = kept[function]
        explorer.restore(start)
        return explorer

    return make


def click(explorer: Any, picture: int, panel: int, x: float, y: float) -> None:
    """Click a plot, as the browser tells it."""
    figure = explorer.pictures[picture].panels[panel].figure
    figure._trigger_event(Tap(figure, x=x, y=y))


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


def test_call_that_is_told_opens_the_explorer_as_it_is(results: xr.Dataset) -> None:
    explorer = explore.explore_rasters(results, delta_t=0.002)
    explorer.controls["network"].index = 1
    explorer.controls["neuron"].value = 7
    explorer.link.click()
    call = html.unescape(re.search("<code>(.*)</code>", explorer.linked.value)[1])
    assert call.startswith("explore.explore_rasters(results, delta_t=0.002, state={'network': '")
    assert eval(call, {"explore": explore, "results": results}).state == explorer.state
    explorer.controls["sample"].value += 1
    assert explorer.linked.value == ""


@pytest.mark.parametrize("explorer", [e for e in EXPLORERS if e is not explore.dashboard])
def test_every_preset_shows_something_else(made: Callable[[Any], Any], explorer: Any) -> None:
    shown = made(explorer)
    for name, preset in shown.presets.items():
        shown.look_at.value = name
        assert shown.look_at.value == ""
        assert {key: shown.state[key] for key in preset} == preset and not shown.sentence.text.startswith("There is no")


# Rasters


def test_click_in_spikes_image_or_weights_marks_what_belongs_to_it(made: Callable[[Any], Any]) -> None:
    explorer = made(explore.explore_rasters)
    spikes = columns(explorer, 0, 1, "sent")
    click(explorer, 0, 1, spikes["time"][5], spikes["neuron"][5])
    neuron = explorer.values["neuron"]
    assert neuron == spikes["neuron"][5] and set(columns(explorer, 0, 1, "chosen")["neuron"]) == {neuron}
    assert len(columns(explorer, 0, 1, "chosen")["time"]) == (spikes["neuron"] == neuron).sum()
    network = explorer.values.get("network", None)
    assert np.array_equal(columns(explorer, 1, 1, "weights")["image"][0].ravel(), network.learned[neuron])
    for panel in (0, 1):
        click(explorer, 1, panel, 13.2 + panel, 9.8)
        assert explorer.values["pixel"] == 10 * 28 + 13 + panel
        assert columns(explorer, 1, 1 - panel, "pixel")["top"] == [10.5]


def test_time_that_runs_lets_spikes_come(made: Callable[[Any], Any]) -> None:
    explorer = made(explore.explore_rasters)
    explorer.buttons["play"].value = 35
    assert explorer.values["time"] == 70.0
    waiting = columns(explorer, 0, 1, "computed")["time"]
    assert len(columns(explorer, 0, 1, "sent")["time"]) > 0 and max(waiting, default=0.0) <= 70.0


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
    explorer.restore({"shown": "weights", "order": "number", "neuron": 5})
    steps = results["delta_t"].values
    kept = [results["weights"].sel(delta_t=d, rule="drop", seed=0, layer="hidden_1").values for d in steps[[0, -1]]]
    for side, expected in enumerate([*kept, kept[1] - kept[0]]):
        assert np.array_equal(columns(explorer, 0, side, "weights")["image"][0], expected)
        assert np.array_equal(columns(explorer, 0, 3 + side, "weights")["image"][0].ravel(), expected[5])


def test_weights_open_on_the_neuron_that_has_changed_most(made: Callable[[Any], Any], results: xr.Dataset) -> None:
    explorer = made(explore.explore_weights)
    runs = [results.sel(rule="drop", seed=0).isel(delta_t=i) for i in (0, -1)]
    changes = [changes_of(run)["hidden_1"] for run in runs]
    change = sum(np.abs(c).mean(axis=1) for c in changes)
    assert explorer.controls["neuron"].value == change.argmax()
    order = np.array(explorer.controls["neuron"].options)
    assert (np.diff(change[order]) <= 0).all() and sorted(order) == list(range(100))
    assert np.array_equal(columns(explorer, 0, 1, "weights")["image"][0], changes[1][order])
    start = Network.from_config(config_of(runs[0]), 784, 10).weights[0]
    assert changes[0] == pytest.approx(weights_of(runs[0])["hidden_1"] - start, abs=1e-6)


def test_click_on_a_row_of_a_layer_chooses_its_neuron(made: Callable[[Any], Any]) -> None:
    explorer = made(explore.explore_weights)
    click(explorer, 0, 1, 300.0, 41.8)
    assert explorer.controls["neuron"].value == explorer.controls["neuron"].options[42]
    assert list(columns(explorer, 0, 2, "neuron")["post"]) == [42, 42]


def test_other_layers_have_stems_and_as_many_neurons_as_they_are(made: Callable[[Any], Any]) -> None:
    explorer = made(explore.explore_weights)
    explorer.controls["neuron"].value = 90
    explorer.controls["layer"].value = "output"
    assert sorted(explorer.controls["neuron"].options) == list(range(10))
    assert explorer.controls["neuron"].value == explorer.controls["neuron"].options[0]
    assert [panel.figure.visible for panel in explorer.pictures[0].panels[3:]] == [False] * 3 + [True] * 3
    assert len(columns(explorer, 0, 6, "stems")["pre"]) == 3 * 100


def test_weights_of_an_epoch_are_those_of_the_epoch(made: Callable[[Any], Any], results: xr.Dataset) -> None:
    explorer = made(explore.explore_weights)
    explorer.restore({"epoch": 1, "shown": "weights", "order": "number"})
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
    explorer.controls["scale"].value = "all"
    shown = columns(explorer, 0, 0, "rule drop")
    assert sorted(shown["cost"]) == pytest.approx(sorted(cost))
    assert len(columns(explorer, 0, 0, "rule graded")["cost"]) == 0
    assert max(columns(explorer, 0, 0, "front")["accuracy"]) == pytest.approx(accuracy.max())


def test_failed_runs_stand_at_the_edge_and_are_counted() -> None:
    runs = [make_run(delta_t=d, seed=s) for d in (0.001, 0.008) for s in (0, 1)]
    good, bad = (runs[0].assign(accuracy=xr.full_like(runs[0]["accuracy"], v)) for v in (0.97, 0.4))
    parts = [(good if d < 0.005 else bad).assign_coords(delta_t=[d], seed=[s]) for d in (0.001, 0.008) for s in (0, 1)]
    explorer = explore.explore_tradeoff(xr.combine_by_coords(parts, combine_attrs="drop"))
    failed = columns(explorer, 0, 0, "failed")
    panel = explorer.pictures[0].panels[0]
    assert list(failed["right"]) == pytest.approx([40, 40]) and "▽ 2 failed (40 %)" in panel.figure.title.text
    assert panel.figure.y_range.start < failed["accuracy"][0] < 97 < panel.figure.y_range.end < 98
    explorer.controls["scale"].value = "error"
    assert len(columns(explorer, 0, 0, "failed")["cost"]) == 0 and "error" in panel.figure.yaxis[0].axis_label
    assert sorted(columns(explorer, 0, 0, "rule drop")["accuracy"]) == pytest.approx(-np.log10([60, 60, 3, 3]))


def test_click_on_a_point_shows_its_run(made: Callable[[Any], Any], results: xr.Dataset) -> None:
    explorer = made(explore.explore_tradeoff)
    source = explorer.pictures[0].panels[0].source("rule graded")
    row = list(source.data["seed"]).index(0)
    source.selected.indices = [row]
    delta_t, rule, seed, _ = explorer.controls["run"].value
    assert (rule, seed) == ("graded", 0)
    kept = results["sent_times"].sel(delta_t=delta_t, rule=rule, seed=seed, sample=0, layer="output").values
    assert np.sort(columns(explorer, 1, 2, "sent")["time"]) == pytest.approx(np.sort(1e3 * kept[np.isfinite(kept)]))
    learned = changes_of(results.sel(delta_t=delta_t, rule=rule, seed=seed))["hidden_1"]
    assert columns(explorer, 2, 0, "weights")["image"][0] == pytest.approx(learned, abs=1e-6)


def test_run_without_weights_shows_its_spikes_and_says_so(made: Callable[[Any], Any]) -> None:
    explorer = made(explore.explore_tradeoff)
    explorer.controls["run"].value = (0.002, "drop", 1, -1)
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
    dashboard = explore.dashboard(results)
    of_results = ("trade-off", "latency", "rasters", "weights", "draw a digit", "autopsy")
    assert dashboard.tabs.titles == (*of_results, "neuron", "gradient")
    assert list(dashboard.explorers) == ["trade-off"] and "4 ms" not in dashboard.children[1].children[0].value
    dashboard.tabs.selected_index = 7
    assert dashboard.tabs.children[7].children[1] is dashboard.explorers["gradient"]
    assert all("Try:" in box.children[0].value for box in dashboard.tabs.children)


def test_dashboard_has_an_autopsy_where_weights_and_spikes_were_kept(results: xr.Dataset) -> None:
    no_samples = results.assign(sample_label=xr.full_like(results["sample_label"], ""))
    for lacking in (results.drop_vars("weights"), no_samples):
        assert "autopsy" not in explore.dashboard(lacking, link="tab=neuron").tabs.titles
    explorer = explore.dashboard(results, link="tab=autopsy&sample=1").explorers["autopsy"]
    assert explorer.values["sample"] == 1 and "layer2 in the simulation" in explorer.sentence.text


def test_dashboard_enlarges_what_is_there_and_what_is_made_later(results: xr.Dataset) -> None:
    dashboard = explore.dashboard(results, link="tab=gradient")
    figure = dashboard.explorers["gradient"].pictures[0].panels[0].figure
    before, drawn = figure.yaxis[0].axis_label_text_font_size, figure.title.text_font_size
    dashboard.large.value = dashboard.dark.value = True
    assert (before, figure.yaxis[0].axis_label_text_font_size) == ("11pt", "16.5pt")
    assert {"bats-lab-large", "bats-lab-dark"} <= set(dashboard._dom_classes)
    dashboard.tabs.selected_index = dashboard.tabs.titles.index("neuron")
    points = dashboard.explorers["neuron"].pictures[0].panels[2].renderer("sent_0").glyph
    assert points.size == pytest.approx(1.5 * 7)
    dashboard.large.value = False
    dashboard.tabs.selected_index = dashboard.tabs.titles.index("gradient")
    assert figure.yaxis[0].axis_label_text_font_size == before and figure.title.text_font_size == drawn
    assert points.size == pytest.approx(7)


def test_link_opens_the_dashboard_as_it_was(results: xr.Dataset) -> None:
    dashboard = explore.dashboard(results, link="?token=secret&tab=rasters&sample=3&rule=merge&window=[20.0,80.0]")
    assert list(dashboard.explorers) == ["rasters"]
    explorer = dashboard.explorers["rasters"]
    assert explorer.values["sample"] == 3 and explorer.values["window"] == (20.0, 80.0)
    explorer.link.click()
    href = re.search(r'href="([^"]+)"', explorer.linked.value)[1].replace("&amp;", "&")
    assert href == "?tab=rasters&sample=3&rule=merge&window=%5B20.0%2C+80.0%5D"
    again = explore.dashboard(results, link=href).explorers["rasters"]
    assert again.state == explorer.state


def test_what_is_chosen_in_a_tab_is_chosen_in_the_others(results: xr.Dataset) -> None:
    dashboard = explore.dashboard(results, link="tab=rasters")
    dashboard.make("weights")
    dashboard.explorers["rasters"].controls["neuron"].value = 42
    assert dashboard.explorers["weights"].values["neuron"] == 42
    dashboard.explorers["weights"].controls["neuron"].value = 17
    assert dashboard.explorers["rasters"].values["neuron"] == 17


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ("tab=neuron&colour=red", "no control 'colour'; there are delta_t"),
        ("tab=neuron&rule=dorp", "rule cannot be 'dorp'"),
    ],
)
def test_link_that_cannot_be_opened_is_told(results: xr.Dataset, link: str, message: str) -> None:
    assert message in explore.dashboard(results, link=link).explorers["neuron"].text


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
