"""Plots: what is drawn is what was measured, in both backends; and what a report says about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import holoviews as hv
import numpy as np
import pytest
import xarray as xr
from pictures import color, draw, elements, option
from runs import CLASSES, make_run

from bats_lab import plots
from bats_lab.plots import curves, histograms, measures, report
from bats_lab.plots.colors import CONTINUOUS_COLOR, SERIES_COLORS
from bats_lab.plots.style import delta_t_label
from bats_lab.runs.files import save_run
from bats_lab.runs.kept import measure_gradients
from bats_lab.runs.results import open_results

DELTA_TS, SEEDS = (0.0, 0.001, 0.004), (0, 1, 2)
LAYERS = ("hidden_1", "output")
DRAWN = {"split", "epoch", "layer"}

# Plots of many runs, and those of one time step or one run.
OF_MANY: dict[str, Callable[..., Any]] = {
    name: getattr(plots, name)
    for name in (
        "plot_accuracy_over_delta_t",
        "plot_accuracy_over_epochs",
        "plot_collisions",
        "plot_confidence",
        "plot_confidence_over_delta_t",
        "plot_spike_count_over_delta_t",
        "plot_spike_count_over_epochs",
        "plot_stopping",
        "plot_tradeoff",
    )
}
OF_ONE: dict[str, Callable[..., Any]] = {
    name: getattr(plots, name) for name in ("plot_confusion", "plot_decision", "plot_raster", "plot_weights")
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """Made-up results over three time steps and three seeds."""
    folder = tmp_path_factory.mktemp("results")
    for delta_t in DELTA_TS:
        for seed in SEEDS:
            save_run(make_run(delta_t=delta_t, seed=seed, weight_scale=8.0), folder)
    return open_results(folder).load()


@pytest.fixture(scope="module")
def gaps(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """Made-up results of two rules, of which runs and epochs are missing."""
    folder = tmp_path_factory.mktemp("gaps")
    for delta_t, seed, rule in [(0.001, 0, "merge"), (0.001, 1, "drop"), (0.02, 1, "drop"), (0.02, 0, "drop")]:
        save_run(make_run(delta_t=delta_t, seed=seed, rule=rule, target_true=5), folder)
    return open_results(folder).load()


def last(results: xr.Dataset, name: str, **selected: Any) -> xr.DataArray:
    return results[name].isel(epoch=-1).sel(**selected)


# All of them


def test_every_plot_is_tested_here() -> None:
    drawn = {name for name in plots.__all__ if name.startswith("plot_")}
    by_themselves = {"plot_discretization", "plot_gradient_histogram", "plot_measures", "plot_weight_histogram"}
    in_test_plots_neuron = {"plot_potential", "plot_sensitivity"}
    in_test_comparison = {"plot_autopsy", "plot_causes", "plot_platforms"}
    elsewhere = in_test_plots_neuron | in_test_comparison | {"plot_importance"}  # in test_search
    assert drawn == {*OF_MANY, *OF_ONE} | by_themselves | elsewhere


@pytest.mark.parametrize("name", OF_MANY)
def test_plot_of_many_runs_is_drawn_whatever_there_is(name: str, results: xr.Dataset, gaps: xr.Dataset) -> None:
    draw(OF_MANY[name](gaps))
    draw(OF_MANY[name](results.isel(seed=[1], delta_t=[2])))
    assert OF_MANY[name](make_run()) is not None


@pytest.mark.parametrize("name", OF_ONE)
def test_plot_of_one_run_is_drawn_of_a_run_alone_and_of_one_among_many(name: str, results: xr.Dataset) -> None:
    draw(OF_ONE[name](make_run(delta_t=0.004)))
    draw(OF_ONE[name](results, delta_t=0.001, seed=2))


@pytest.mark.parametrize("name", OF_ONE)
def test_plot_of_one_run_asks_which_one(name: str, results: xr.Dataset, gaps: xr.Dataset) -> None:
    with pytest.raises(
        ValueError, match=r"^The results hold several values of 'delta_t'; choose one: 0, 0\.001, 0\.004"
    ):
        OF_ONE[name](results)
    with pytest.raises(ValueError, match=r"^delta_t is 0\.002; the results hold 0, 0\.001, 0\.004\.$"):
        OF_ONE[name](results, delta_t=0.002, seed=0)
    with pytest.raises(ValueError, match=r"^The results hold no run with Δt = 20 ms, merge(, seed 0)?\.$"):
        OF_ONE[name](gaps, delta_t=0.02, seed=0, rule="merge")


@pytest.mark.parametrize("name", [*OF_MANY, *OF_ONE])
def test_results_without_a_finished_run_are_refused_in_a_sentence(name: str, results: xr.Dataset) -> None:
    function = {**OF_MANY, **OF_ONE}[name]
    chosen = {"delta_t": 0.001} if name in OF_ONE else {}
    for nothing in (results.assign(accuracy=results["accuracy"] * np.nan), results.isel(seed=[])):
        with pytest.raises(ValueError, match=r"^The results hold no finished run; there is nothing to plot\.$"):
            function(nothing, **chosen)
    with pytest.raises(ValueError, match=r"^The results have no variable 'accuracy', which this plot needs"):
        function(results.drop_vars("accuracy"), **chosen)
    with pytest.raises(TypeError, match=r"^dataset is a DataArray; it must be an xarray.Dataset"):
        function(results["accuracy"], **chosen)


@pytest.mark.parametrize("name", OF_MANY)
def test_other_swept_parameter_has_to_be_narrowed_first(name: str, tmp_path: Path) -> None:
    for rate in (0.001, 0.01):
        save_run(make_run(learning_rate=rate), tmp_path)
    results = open_results(tmp_path)
    with pytest.raises(ValueError, match=r"several values of 'learning_rate' \(0\.001, 0\.01\).*select it first"):
        OF_MANY[name](results)
    parts = dict(plots.split_results(results))
    assert list(parts) == ["mnist_small, learning_rate 0.001", "mnist_small, learning_rate 0.01"]
    for part in parts.values():
        OF_MANY[name](part)


def test_part_has_only_time_steps_and_seeds_of_its_own(tmp_path: Path) -> None:
    for rate, delta_t, seed in ((0.001, 0.004, 0), (0.001, 0.008, 0), (0.01, 0.001, 1)):
        save_run(make_run(learning_rate=rate, delta_t=delta_t, seed=seed), tmp_path)
    first, second = (part for _, part in plots.split_results(open_results(tmp_path)))
    assert (first["delta_t"].values.tolist(), first["seed"].values.tolist()) == ([0.004, 0.008], [0])
    assert (second["delta_t"].values.tolist(), second["seed"].values.tolist()) == ([0.001], [1])


# Colours and labels


def test_colour_belongs_to_the_time_step_in_every_plot(results: xr.Dataset) -> None:
    wanted = {delta_t_label(d): plots.delta_t_color(d) for d in DELTA_TS}
    assert len(set(wanted.values())) == 3 and wanted["continuous"] == CONTINUOUS_COLOR
    for plot in (plots.plot_accuracy_over_epochs(results), plots.plot_confidence(results)):
        assert {e.label: color(e) for e in elements(plot, hv.Curve)} == wanted
    # Also where others are missing.
    alone = plots.plot_confidence(results.sel(delta_t=[0.004]))
    assert {color(e) for e in elements(alone, hv.Curve)} == {wanted["4 ms"]}


@pytest.mark.parametrize(
    ("name", "x", "y"),
    [
        ("plot_accuracy_over_delta_t", "time step Δt (ms)", "test accuracy (%)"),
        ("plot_accuracy_over_epochs", "epoch", "test accuracy (%)"),
        ("plot_confidence", "time (ms)", "prediction confidence"),
        ("plot_confidence_over_delta_t", "time step Δt (ms)", "prediction confidence"),
        ("plot_tradeoff", "spikes per sample", "test accuracy (%)"),
    ],
)
def test_axes_say_what_they_show_and_in_which_unit(results: xr.Dataset, name: str, x: str, y: str) -> None:
    plot = OF_MANY[name](results)
    for backend in ("bokeh", "matplotlib"):
        assert (option(plot, "xlabel", backend), option(plot, "ylabel", backend)) == (x, y)


def test_titles_tell_data_set_rule_and_seeds(results: xr.Dataset) -> None:
    assert option(plots.plot_accuracy_over_delta_t(results), "title") == "mnist_small, drop, mean ± std of 3 seeds"
    assert option(plots.plot_confidence(results.isel(seed=[0])), "title") == "mnist_small, drop, 1 seed"
    assert option(plots.plot_confidence(results, title="mine"), "title") == "mine"


# What is drawn


def shares(curve: hv.Curve) -> np.ndarray:
    """Shares of the bins whose outline a curve is: its corners lie on both sides of each bin."""
    return curve["share"][1:-1:2]


def test_weight_histogram_counts_every_weight_once(results: xr.Dataset) -> None:
    plot = plots.plot_weight_histogram(results, seed=1)
    draw(plot)
    hidden, output = (elements(part, hv.Curve) for part in elements(plot, hv.Overlay))
    assert [curve.label for curve in hidden] == [delta_t_label(d) for d in DELTA_TS]
    for curve in (*hidden, *output):
        assert shares(curve).sum() == pytest.approx(100)
    weights = results["weights"].sel(delta_t=0.004, seed=1, layer="output").values
    low, high = np.nanmin(results["weights"].sel(seed=1, layer="output")), curve["weight"][-1]
    counts, _ = np.histogram(weights[np.isfinite(weights)], np.linspace(low, high, 61))
    np.testing.assert_allclose(shares(output[-1]), 100 * counts / counts.sum(), atol=100.1 / counts.sum())


def test_gradient_histogram_leaves_out_weights_without_gradient(small_results: Path) -> None:
    results = open_results(small_results)
    measured = measure_gradients(results.sel(seed=[0]), n_samples=3)
    plot = plots.plot_gradient_histogram(measured, layers="hidden_1", seed=0)
    draw(plot)
    for curve in elements(plot, hv.Curve):
        # Pixels that are dark in all three images drive no weight.
        assert 5 < shares(curve).sum() < 60 and (curve["gradient"] > 0).all()
    with pytest.raises(ValueError, match=r"^n_samples is 0; it must be at least 1\.$"):
        measure_gradients(results, n_samples=0)
    with pytest.raises(ValueError, match=r"^The results have no variable 'gradients', which this plot needs"):
        plots.plot_gradient_histogram(results, seed=0)


def test_histograms_without_weights_are_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"did not keep its weights|no variable 'weights'"):
        plots.plot_weight_histogram(make_run(keep_weights="none"))


def test_decisions_taken_early_are_means_over_seeds(results: xr.Dataset) -> None:
    accuracy, spikes = elements(plots.plot_stopping(results), hv.Overlay)
    curve = next(e for e in elements(accuracy, hv.Curve) if e.label == "4 ms")
    kept = results.sel(delta_t=0.004)
    np.testing.assert_allclose(curve["accuracy"], 100 * kept["stopped_accuracy"].mean("seed"))
    curve = next(e for e in elements(spikes, hv.Curve) if e.label == "4 ms")
    np.testing.assert_allclose(curve["spikes"], kept["stopped_spike_count"].sum("layer").mean("seed"))


def test_decision_counts_the_spikes_sent_so_far(results: xr.Dataset) -> None:
    plot = plots.plot_decision(results, delta_t=0.004, seed=0, time=0.1)
    sent = results["sent_times"].sel(delta_t=0.004, seed=0, sample=0, layer="output").values[: len(CLASSES)]
    bars = {int(row[1]): row[2] for e in elements(plot, hv.Segments) for row in e.array()}
    wanted = {i: n for i, n in enumerate((sent <= 0.1 + 1e-9).sum(axis=1)) if n}
    assert bars == wanted


def test_accuracy_over_time_steps_is_the_mean_and_standard_deviation_over_seeds(results: xr.Dataset) -> None:
    plot = plots.plot_accuracy_over_delta_t(results)
    [scatter] = elements(plot, hv.Scatter)
    accuracy = 100 * last(results, "accuracy", split="test").values
    np.testing.assert_allclose(scatter["accuracy"], accuracy.mean(axis=1))
    np.testing.assert_allclose(scatter["std"], accuracy.std(axis=1, ddof=1))
    assert scatter["color"].tolist() == [plots.delta_t_color(d) for d in DELTA_TS]
    assert scatter["delta_t"].tolist()[1:] == [1, 4] and scatter["delta_t"][0] < 0.6
    assert dict(option(plot, "xticks"))[scatter["delta_t"][0]] == "continuous"
    # The line leaves out continuous time, which is beside the axis; its band is a bar.
    [line], [band] = elements(plot, hv.Curve), elements(plot, hv.Spread)
    assert line["delta_t"].tolist() == band["delta_t"].tolist() == [1, 4]
    [bar] = elements(plot, hv.ErrorBars)
    assert bar["accuracy"][0] == pytest.approx(accuracy[0].mean())


def test_accuracy_of_another_epoch_and_split_can_be_drawn(results: xr.Dataset) -> None:
    [scatter] = elements(plots.plot_accuracy_over_delta_t(results, split="train", epoch=1), hv.Scatter)
    expected = 100 * results["accuracy"].sel(split="train", epoch=1).mean("seed")
    np.testing.assert_allclose(scatter["accuracy"], expected)
    for options, message in [
        ({"epoch": 3}, "^epoch is 3; the results hold 1 to 2"),
        ({"split": "tset"}, "^split is 'tset'; it must be one of train, test"),
    ]:
        with pytest.raises(ValueError, match=message):
            plots.plot_accuracy_over_delta_t(results, **options)


def test_one_seed_has_no_band(results: xr.Dataset) -> None:
    for name in ("plot_accuracy_over_delta_t", "plot_accuracy_over_epochs", "plot_confidence"):
        plot = OF_MANY[name](results.isel(seed=[0]))
        assert not elements(plot, hv.Spread) and not elements(plot, hv.ErrorBars)
        assert elements(plot, hv.Curve)


def test_missing_runs_are_left_out_of_means(gaps: xr.Dataset) -> None:
    plot = plots.plot_accuracy_over_delta_t(gaps)
    drop, merge = [e for e in elements(plot, hv.Scatter) if e.group != "seeds"]
    accuracy = 100 * last(gaps, "accuracy", split="test")
    assert (drop.label, merge.label) == ("drop", "merge")
    assert drop["runs"].tolist() == [1, 2] and merge["runs"].tolist() == [1]
    np.testing.assert_allclose(drop["accuracy"], accuracy.sel(rule="drop").mean("seed"))
    assert merge["accuracy"][0] == accuracy.sel(rule="merge", delta_t=0.001, seed=0).item()


@pytest.mark.parametrize("name", ["plot_accuracy_over_delta_t", "plot_accuracy_over_epochs", "plot_confidence"])
def test_two_seeds_are_two_points_and_no_band(results: xr.Dataset, name: str) -> None:
    two = results.isel(seed=[0, 1], delta_t=[2])
    plot = OF_MANY[name](two)
    draw(plot)
    assert not elements(plot, hv.Spread) and not elements(plot, hv.ErrorBars)
    [single] = [e for e in elements(plot, hv.Scatter) if e.group == "seeds"]
    measure = "confidence" if name == "plot_confidence" else "accuracy"
    values = two[measure].sel(split="test") * 100 if measure == "accuracy" else two[measure]
    values = values if "epochs" in name else values.isel(epoch=-1)
    np.testing.assert_allclose(np.sort(single.dimension_values(1)), np.sort(values.values.ravel()))
    assert option(plot, "title") == "mnist_small, drop, 2 seeds and their mean"
    low, high = option(plot, "ylim")
    assert low < values.min() and values.max() < high


def test_rules_have_a_colour_each_the_same_whatever_others_are_drawn(gaps: xr.Dataset) -> None:
    drop, merge = elements(plots.plot_accuracy_over_delta_t(gaps), hv.Curve)
    assert (color(drop), color(merge)) == SERIES_COLORS[:2]
    several = curves.over_delta_t(
        {rule: gaps["accuracy"].isel(epoch=0, split=0).sel(rule="drop") for rule in ("graded", "merge")},
        hv.Dimension("accuracy"),
        title="",
    )
    assert [color(e) for e in elements(several, hv.Curve)] == [SERIES_COLORS[3], color(merge)]


def test_time_steps_stand_at_the_ends_of_their_curves_without_touching(results: xr.Dataset) -> None:
    plot = plots.plot_accuracy_over_epochs(results)
    labels = {str(e["text"][0]): e for e in elements(plot, hv.Labels)}
    assert set(labels) == {delta_t_label(d) for d in DELTA_TS} and not option(plot, "show_legend")
    places = np.sort([e["accuracy"][0] for e in labels.values()])
    low, high = option(plot, "ylim")
    assert np.diff(places).min() >= 0.999 * 14 * (high - low) / option(plot, "frame_height")
    ends = {e.label: e["accuracy"][-1] for e in elements(plot, hv.Curve)}
    assert sorted(ends, key=ends.__getitem__) == sorted(labels, key=lambda name: labels[name]["accuracy"][0])
    assert all(e["epoch"][0] > results["epoch"].max() for e in labels.values())


@pytest.mark.parametrize("name", OF_MANY)
def test_networks_that_never_spike_are_drawn_and_what_is_unknown_is_said(name: str, results: xr.Dataset) -> None:
    unknown = {n: results[n] * np.nan for n in ("spike_delay", "decision_time", "first_spike_time")}
    silent = results.assign(
        {n: 0 * results[n] for n in ("accuracy", "spike_count", "confidence", "collisions")} | unknown
    )
    plot = OF_MANY[name](silent)
    draw(plot)
    said = [e for e in elements(plot, hv.Labels) if "no run has a value" in e["text"]]
    assert len(said) == (2 if name == "plot_collisions" else 0)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_logarithmic_axes_are_drawn_where_nothing_can_stand_on_them(value: float) -> None:
    values = xr.DataArray([[value], [value]], {"delta_t": [0.0, 0.004], "seed": [0]}, ("delta_t", "seed"))
    draw(curves.over_delta_t({"": values}, hv.Dimension("y"), title="", logy=True, ylim=(0.1, 10.0)))
    edges = histograms.bin_edges([np.full(5, value)], logarithmic=True)
    draw(histograms.draw_histograms({0.004: np.full(5, value)}, edges, hv.Dimension("x"), title="", logx=True))


def test_accuracy_over_epochs_is_a_curve_a_time_step(results: xr.Dataset) -> None:
    curves = {e.label: e for e in elements(plots.plot_accuracy_over_epochs(results), hv.Curve)}
    for delta_t in DELTA_TS:
        curve = curves[delta_t_label(delta_t)]
        expected = 100 * results["accuracy"].sel(split="test", delta_t=delta_t)
        assert curve["epoch"].tolist() == [1, 2]
        np.testing.assert_allclose(curve["accuracy"], expected.mean("seed"))
        np.testing.assert_allclose(curve["std"], expected.std("seed", ddof=1))


def test_confidence_is_over_time_in_milliseconds(results: xr.Dataset) -> None:
    curves = {e.label: e for e in elements(plots.plot_confidence(results), hv.Curve)}
    assert curves["1 ms"]["time"].tolist() == [20, 30, 50, 80, 100, 130, 150, 180, 200]
    np.testing.assert_allclose(curves["1 ms"]["confidence"], last(results, "confidence", delta_t=0.001).mean("seed"))


def test_confidence_at_times_is_a_series_a_time(results: xr.Dataset) -> None:
    series = elements(plots.plot_confidence_over_delta_t(results, times=[0.05, 0.2]), hv.Scatter)
    assert [e.label for e in series] == ["50 ms", "200 ms"]
    np.testing.assert_allclose(series[0]["confidence"], last(results, "confidence", time=0.05).mean("seed"))
    with pytest.raises(ValueError, match=r"^times holds 0\.04 s; confidence is measured at 0\.02, 0\.03"):
        plots.plot_confidence_over_delta_t(results, times=[0.04])
    with pytest.raises(ValueError, match=r"^times has 0 entries; it must have 1 to 5"):
        plots.plot_confidence_over_delta_t(results, times=[])


@pytest.mark.parametrize(("per_neuron", "name"), [(False, "spike_count"), (True, "spikes_per_neuron")])
def test_spike_counts_are_those_of_each_layer(results: xr.Dataset, per_neuron: bool, name: str) -> None:
    layout = plots.plot_spike_count_over_delta_t(results, per_neuron=per_neuron)
    assert [option(part, "title") for part in layout] == ["hidden layer", "output layer"]
    for part, layer in zip(layout, LAYERS, strict=True):
        [scatter] = elements(part, hv.Scatter)
        np.testing.assert_allclose(scatter[name], last(results, name, split="test", layer=layer).mean("seed"))
    over_epochs = plots.plot_spike_count_over_epochs(results, per_neuron=per_neuron, layers="output")
    curves = {e.label: e for e in elements(over_epochs, hv.Curve)}
    expected = results[name].sel(split="test", layer="output", delta_t=0.004).mean("seed")
    np.testing.assert_allclose(curves["4 ms"][name], expected)
    with pytest.raises(ValueError, match=r"^There is no layer 'hidden_2'; the results hold hidden_1, output\."):
        plots.plot_spike_count_over_delta_t(results, layers=["hidden_2"])


def test_collisions_delay_and_silence_are_drawn_layer_by_layer(results: xr.Dataset) -> None:
    layout = plots.plot_collisions(results)
    units = {"collisions": 1, "spike_delay": 1e3, "silent_fraction": 100}
    pairs = [(layer, name) for layer in LAYERS for name in units]
    assert len(layout) == len(pairs)
    for part, (layer, name) in zip(layout, pairs, strict=True):
        [scatter] = elements(part, hv.Scatter)
        np.testing.assert_allclose(scatter[name], units[name] * last(results, name, layer=layer).mean("seed"))
    labels = [option(part, "ylabel") for part in list(layout)[:3]]
    assert labels == ["collisions per sample", "mean delay of spikes (ms)", "silent neurons (%)"]


@pytest.mark.parametrize("name", [n for n, m in measures.MEASURES.items() if {"epoch"} <= set(m.dims) <= DRAWN])
def test_any_measure_can_be_drawn_over_time_steps_and_epochs(name: str, results: xr.Dataset) -> None:
    measure = measures.MEASURES[name]
    where = {dim: value for dim, value in (("split", "train"), ("layer", "output")) if dim in measure.dims}
    options = {"layers": "output"} if "layer" in where else {}
    [scatter] = elements(plots.plot_measures(results, name, split="train", **options), hv.Scatter)
    values = measure.factor * results[name].sel(where).mean("seed")
    np.testing.assert_allclose(scatter[name], values.isel(epoch=-1))
    over_epochs = plots.plot_measures(results, name, over="epoch", split="train", **options)
    curves = {e.label: e for e in elements(over_epochs, hv.Curve)}
    np.testing.assert_allclose(curves["4 ms"][name], values.sel(delta_t=0.004))


def test_measures_stand_side_by_side_and_are_checked(results: xr.Dataset) -> None:
    layout = plots.plot_measures(results, ["accuracy", "loss"], over="epoch", title="both", size=(200, 150))
    assert [option(part, "ylabel") for part in layout] == ["test accuracy (%)", "test loss"]
    for options, message in [
        ({"measures": "speed"}, r"^measures is 'speed'; it must be one of accuracy, loss"),
        ({"measures": "accuracy", "over": "time"}, r"^over is 'time'; it must be one of delta_t, epoch\.$"),
        ({"measures": "confidence"}, r"^over is 'delta_t'; it must be one of time\.$"),
        ({"measures": "loss", "rule": "keep"}, r"^rule is 'keep'; it must be one of drop\.$"),
        ({"measures": "loss", "layers": "output"}, r"^layers is 'output'; test loss belongs to the whole network"),
    ]:
        with pytest.raises(ValueError, match=message):
            plots.plot_measures(results, **options)


def runs_in(plot: Any) -> list[hv.Scatter]:
    """The points of runs; those that only stand in the legend are nowhere."""
    return [e for e in elements(plot, hv.Scatter) if np.isfinite(e["cost"]).any()]


def test_tradeoff_has_a_point_a_run_and_the_front_of_those_no_other_beats(results: xr.Dataset) -> None:
    plot = plots.plot_tradeoff(results)
    found = {(c, a) for e in runs_in(plot) for c, a in zip(e["cost"], e["accuracy"], strict=True)}
    cost = last(results, "spike_count", split="test").sum("layer").values.ravel()
    accuracy = 100 * last(results, "accuracy", split="test").values.ravel()
    runs = list(zip(cost, accuracy, strict=True))
    assert len(found) == 9 and np.allclose(sorted(found), sorted(runs))
    best = {(c, a) for c, a in runs if not any(c2 <= c and a2 >= a and (c2, a2) != (c, a) for c2, a2 in runs)}
    [front] = elements(plot, hv.Curve)
    corners = set(zip(front["cost"].round(6), front["accuracy"].round(6), strict=True))
    assert {(round(c, 6), round(a, 6)) for c, a in best} <= corners
    files = [f for e in runs_in(plot) for f in e["file"]]
    assert len(set(files)) == 9 and all(f.startswith("run-mnist_small-dt") for f in files)


@pytest.mark.parametrize(
    ("cost", "factor"), [("decision_time", 1e3), ("first_spike_time", 1e3), ("synaptic_events", 1)]
)
def test_tradeoff_can_be_with_other_costs(results: xr.Dataset, cost: str, factor: float) -> None:
    found = [c for e in runs_in(plots.plot_tradeoff(results, cost=cost)) for c in e["cost"]]
    expected = last(results, cost)
    expected = expected.sum("layer") if "layer" in expected.dims else expected
    np.testing.assert_allclose(sorted(found), sorted(factor * expected.values.ravel()))


def test_tradeoff_with_a_cost_that_does_not_exist_is_refused(results: xr.Dataset) -> None:
    with pytest.raises(ValueError, match=r"^cost is 'money'; it must be one of spike_count, synaptic_events"):
        plots.plot_tradeoff(results, cost="money")
    with pytest.raises(ValueError, match="time to decision belongs to the whole network"):
        plots.plot_tradeoff(results, cost="decision_time", layers="output")


def test_confusion_is_the_share_of_each_true_class(results: xr.Dataset) -> None:
    counts = results["confusion"].sel(delta_t=0.001).sum("seed").transpose("true_class", "predicted_class").values
    [image] = elements(plots.plot_confusion(results, delta_t=0.001), hv.Image)
    share = image.dimension_values("share", flat=False)
    np.testing.assert_allclose(share, 100 * counts / counts.sum(axis=1, keepdims=True))
    plot = plots.plot_confusion(results, delta_t=0.001, seed=1)
    assert [name for _, name in option(plot, "xticks")] == [*CLASSES, "none"]
    assert [name for _, name in option(plot, "yticks")] == list(CLASSES)
    assert option(plot, "title") == "mnist_small, Δt = 1 ms, drop, seed 1"


def test_raster_shows_every_spike_when_computed_and_when_sent(results: xr.Dataset) -> None:
    run = results.sel(delta_t=0.004, seed=0, sample=1)
    layout = plots.plot_raster(results, delta_t=0.004, seed=0, sample=1)
    assert [option(part, "title") for part in layout] == ["input", "hidden layer", "output layer"]
    for part, layer in zip(list(layout)[1:], LAYERS, strict=True):
        computed = next(e for e in elements(part, hv.Scatter) if e.label == "computed")
        sent = next(e for e in elements(part, hv.Scatter) if e.label == "sent, Δt = 4 ms")
        times = run["spike_times"].sel(layer=layer).values
        ticks = run["sent_times"].sel(layer=layer).values
        assert len(computed) == len(sent) == np.isfinite(ticks).sum() > 0
        np.testing.assert_allclose(sorted(computed["time"]), np.sort(1e3 * times[np.isfinite(ticks)]))
        np.testing.assert_allclose(sorted(sent["time"]), np.sort(1e3 * ticks[np.isfinite(ticks)]))
    label = str(run["sample_label"].values)
    *above, marked = [e for e in elements(layout, hv.Curve) if e.label == "true class"]
    assert marked.dimension_values(1).tolist() == [CLASSES.index(label)] * 2
    assert all(len(e) == 0 or np.isnan(e.dimension_values(1).astype(float)).all() for e in above)
    with pytest.raises(ValueError, match=r"^sample is 7; the results keep samples 0, 1\."):
        plots.plot_raster(results, delta_t=0.004, seed=0, sample=7)


def test_runs_that_kept_nothing_say_how_to_keep_it() -> None:
    run = make_run(keep_samples=0, keep_weights="none")
    with pytest.raises(ValueError, match=r"no variable 'spike_times'.*; runs keep it with keep_samples above 0"):
        plots.plot_raster(run)
    with pytest.raises(ValueError, match=r"no variable 'weights'.*; runs keep it with keep_weights='last'"):
        plots.plot_weights(run)
    with pytest.raises(ValueError, match=r"no variable 'weights_by_epoch'.*; runs keep it with keep_weights='each'"):
        plots.plot_weights(run, epoch=1)


def test_weights_of_a_layer_and_of_a_neuron_are_those_kept(results: xr.Dataset) -> None:
    chosen = {"delta_t": 0.0, "seed": 2}
    weights = results["weights"].sel(layer="output", **chosen).values[:3, :6]
    [image] = elements(plots.plot_weights(results, layer="output", **chosen), hv.Image)
    np.testing.assert_allclose(image.dimension_values("weight", flat=False), weights)
    [stems] = elements(plots.plot_weights(results, layer="output", neuron=1, **chosen), hv.Curve)
    np.testing.assert_allclose(stems["weight"][1::3], weights[1])
    [pixels] = elements(plots.plot_weights(results, neuron=4, shape=(3, 4), **chosen), hv.Image)
    first = results["weights"].sel(layer="hidden_1", **chosen).values[4, :12]
    np.testing.assert_allclose(pixels.dimension_values("weight", flat=False), first.reshape(3, 4))
    for options, message in [
        ({"neuron": 6}, "^neuron is 6; 'hidden_1' has neurons 0 to 5"),
        ({"neuron": 0, "shape": (2, 5)}, r"^shape is \(2, 5\), which is 10 pixels; the neuron has 12 weights"),
        ({"layer": "hidden_9"}, "^There is no layer 'hidden_9'"),
    ]:
        with pytest.raises(ValueError, match=message):
            plots.plot_weights(results, **chosen, **options)


def test_discretization_is_a_staircase_that_starts_a_step_up() -> None:
    plot = plots.plot_discretization([0.004, 0.002])
    draw(plot)
    stairs = {e.label: e for e in elements(plot, hv.Curve)}
    assert list(stairs) == ["continuous", "2 ms", "4 ms"]
    np.testing.assert_allclose(stairs["4 ms"]["time"][:5], [0, 4, np.nan, 4, 8])
    np.testing.assert_allclose(stairs["4 ms"]["sent"][:5], [4, 4, np.nan, 8, 8])
    for delta_t, until, message in [
        (0, None, "^delta_t is 0; it must be one or more numbers above 0"),
        ([], None, r"^delta_t is \[\]; it must be one or more"),
        (0.001, -1, "^until is -1; it must be above 0"),
        (0.001, 1, "which is 1000 time steps; at most 500 can be seen"),
    ]:
        with pytest.raises(ValueError, match=message):
            plots.plot_discretization(delta_t, until=until)


# What a report says


@pytest.fixture
def known(results: xr.Dataset) -> xr.Dataset:
    """Results with numbers of which one knows what is to be said."""
    known = results.copy(deep=True)
    known["accuracy"].loc[{"split": "test", "epoch": 2}] = [[0.94, 0.95, 0.96], [0.945, 0.945, 0.945], [0.8, 0.7, 0.9]]
    known["n_samples"].loc[{"split": "test"}] = 10_000
    known["class_silent"][:] = False
    for layer, counts in (("hidden_1", [700.0, 800.0, 1000.0]), ("output", [40.0, 42.0, 30.0])):
        known["spike_count"].loc[{"split": "test", "epoch": 2, "layer": layer}] = np.array(counts)[:, None]
    known["confidence"].loc[{"epoch": 2}] = 0.5
    known["decision_time"].loc[{"epoch": 2}] = 0.12
    return known


def test_report_tells_up_to_which_time_step_accuracy_holds(known: xr.Dataset) -> None:
    assert report.describe_accuracy(known) == (
        "By test accuracy the best is in continuous time: 95.0 ± 1.0 % of test samples are right (3 seeds). Largest "
        "time step within 1.0 percentage points of it: 1 ms (94.5 %). Lowest: 80.0 % at Δt = 4 ms."
    )


def test_report_names_the_runs_in_which_a_class_is_silent(known: xr.Dataset) -> None:
    assert report.describe_silent_classes(known) == "In no run was an output neuron silent over the whole test set."
    known["class_silent"].loc[{"delta_t": 0.004, "seed": 1, "epoch": 2, "true_class": "one"}] = True
    assert report.describe_silent_classes(known) == (
        "Output neurons silent over the whole test set: 4 ms, drop, seed 1: 1."
    )
    known["confusion"].loc[{"true_class": "one"}] = 0  # a class without images
    assert report.describe_silent_classes(known).startswith("In no run")


def test_report_takes_the_test_set_into_account_where_there_is_one_seed(known: xr.Dataset) -> None:
    # The standard error of 95 % on 10,000 samples is 0.22 %.
    assert report.describe_accuracy(known.sel(seed=[1])) == (
        "By test accuracy the best is in continuous time: 95.0 % of test samples are right (1 seed). Largest time "
        "step within 0.2 percentage points of it: continuous (95.0 %). Lowest: 70.0 % at Δt = 4 ms."
    )
    assert "Lowest: 70.0 % at Δt = 4 ms." in report.describe_accuracy(known.sel(delta_t=[0.004], seed=[1]))


def test_report_tells_spikes_confidence_and_tradeoff(known: xr.Dataset) -> None:
    assert report.describe_spike_count(known) == (
        "Spikes a sample: hidden layers 700 (continuous) to 1,000 (4 ms), output layer 30.0 (4 ms) to 42.0 (1 ms)."
    )
    assert report.describe_confidence(known) == (
        "Prediction confidence after 100 ms 0.50 (continuous), after 200 ms 0.50 (continuous); mean time to decision "
        "120 ms (continuous)."
    )
    assert report.describe_tradeoff(known) == (
        "On the Pareto front: 1 of 9 runs (Δt: continuous). The cheapest within one percentage point of the best by "
        "test accuracy: drop in continuous time, 95.0 % of the test samples with 740 spikes each, hidden and output "
        "layers together."
    )


def test_report_chooses_on_held_out_samples_and_tells_test_accuracy_beside_it(known: xr.Dataset) -> None:
    held_out = known.sel(split="test").assign_coords(split="validation").expand_dims("split")
    both = xr.concat([known, held_out], "split", data_vars="minimal")
    # Best on the held-out samples at another time step than on the test set.
    accuracy = xr.where((both["split"] == "validation") & (both["delta_t"] == 0.004), 0.99, both["accuracy"])
    both = both.assign(accuracy=accuracy.transpose(*both["accuracy"].dims).where(both["accuracy"].notnull()))
    assert "By validation accuracy the best is at Δt = 4 ms: 80.0 ± 10.0 % of test" in report.describe_accuracy(both)
    assert "best by validation accuracy: drop at Δt = 4 ms" in report.describe_tradeoff(both)


def test_report_tells_what_was_run_and_what_is_missing(results: xr.Dataset, gaps: xr.Dataset) -> None:
    assert report.describe_runs(results) == (
        "9 runs on mnist_small; time steps: continuous, 1 ms, 4 ms; rules: drop; seeds: 3; layers: 6-3; training "
        "samples: 20; test samples: 20; epochs: 2; missing so far: 0 of 9 combinations."
    )
    assert report.describe_runs(gaps).endswith("missing so far: 4 of 8 combinations.")
    assert report.describe_runs(make_run()).startswith("1 run on mnist_small; time steps: continuous; rules: drop")


def test_report_tells_each_rule_apart(gaps: xr.Dataset) -> None:
    for describe in (report.describe_accuracy, report.describe_spike_count, report.describe_collisions):
        lines = [line for line in describe(gaps).splitlines() if line.startswith("- rule ")]
        assert [line.split(":")[0] for line in lines] == ["- rule drop", "- rule merge"]
        assert "nan" not in describe(gaps)


def test_table_of_a_report_is_the_summary_with_units(known: xr.Dataset) -> None:
    table = report.results_table(known)
    assert table["Δt"].tolist() == ["continuous", "1 ms", "4 ms"] and table["runs"].tolist() == ["3"] * 3
    assert table["test accuracy (%)"].tolist() == ["95.0 ± 1.0", "94.5 ± 0.0", "80.0 ± 10.0"]
    assert table["hidden spikes"].tolist() == ["700", "800", "1,000"]
    assert table["time to decision (ms)"].tolist() == ["120"] * 3
