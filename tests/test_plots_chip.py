"""Plots and sentences about networks on a chip: each shows the numbers it is given."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import holoviews as hv
import numpy as np
import pytest
import xarray as xr
from deployments import STEPS, WORDS, make_deployment, save_deployment
from pictures import draw, elements, option
from runs import make_run

from bats_lab.spikes.rules import RULES
from bats_lab.studies import chip, in_markdown
from bats_lab.studies.chip.choice import choose, compare_chosen
from bats_lab.studies.chip.deployment import by_dataset, open_deployments
from bats_lab.studies.chip.energy import PACES, TERMS, active_share, deployment_costs
from bats_lab.studies.chip.plots import quantities
from bats_lab.studies.chip.plots.active_share import draw_active_share, kept_times
from bats_lab.studies.chip.plots.clock_and_word import ColorScale, cell_columns, cell_texts
from bats_lab.studies.chip.plots.three_way import three_way_table, time_legend
from bats_lab.studies.chip.report import (
    choice_table,
    compared_table,
    crossover_table,
    energy_terms_table,
    front_table,
)
from bats_lab.studies.chip.training import METHODS
from bats_lab.studies.statistics import paired


@pytest.fixture(scope="module")
def deployment() -> xr.Dataset:
    return make_deployment()


PLOTS = [
    chip.plot_clock_and_word,
    chip.plot_crossover,
    chip.plot_deployment,
    chip.plot_energy,
    chip.plot_three_way,
]
#: Plots of what has a price, which is rule clocked alone.
PRICED = (chip.plot_crossover, chip.plot_energy, chip.plot_three_way)
#: Options of plots that are not of all words.
OPTIONS = {chip.plot_crossover: {"bits": [4]}, chip.plot_deployment: {"bits": 4}}


@pytest.mark.parametrize("plot", PLOTS)
def test_plot_is_drawn_of_all_and_of_one_seed_rule_and_clock(plot: Any, deployment: xr.Dataset) -> None:
    options: dict[str, Any] = OPTIONS.get(plot, {})
    draw(plot(deployment.isel(seed=[0], delta_t=[0, 2], bits=[1]), **options))
    one = deployment.isel(dataset=0, seed=0, rule=[4 if plot in PRICED else 3], delta_t=[2], bits=[1])
    draw(plot(one, **options))


@pytest.mark.parametrize("plot", PLOTS)
def test_what_cannot_be_drawn_is_told_in_a_sentence(plot: Any, deployment: xr.Dataset) -> None:
    with pytest.raises(
        ValueError, match=r"several data sets \(mnist, fashion_mnist\), and this plot shows one; select"
    ):
        plot(make_deployment("mnist", "fashion_mnist"))
    with pytest.raises(ValueError, match="Nothing was measured of this deployment yet"):
        plot(deployment.where(deployment["delta_t"] > 1))
    with pytest.raises(ValueError, match="split is 'train'; it must be one of validation, test"):
        plot(deployment, split="train")
    with pytest.raises(ValueError, match="The deployment has no dimension 'bits'"):
        plot(deployment.isel(bits=0))
    with pytest.raises(TypeError, match="deployment is a str"):
        plot("results")


def test_missing_data_sets_and_seeds_are_passed_over(deployment: xr.Dataset) -> None:
    more = deployment.reindex(seed=[0, 1, 2, 3])
    np.testing.assert_allclose(
        series(chip.plot_deployment(more), "merge"), series(chip.plot_deployment(deployment), "merge")
    )


# Clock and word


def cells(plot: Any) -> dict[tuple[str, str], tuple[float, float]]:
    """Value and standard deviation by time step and word."""
    [found] = elements(plot, hv.Rectangles)
    names = ("step", "word", "value", "std")
    return {(s, w): (v, d) for s, w, v, d in zip(*(found.dimension_values(n) for n in names), strict=True)}


VALUES = {
    "accuracy": lambda d: 100 * d["accuracy"],
    "spikes": lambda d: d["spike_count"].sum("layer"),
    "synaptic_events": lambda d: d["synaptic_events"].sum("layer"),
    "active_share": lambda d: 100 * deployment_costs(d)["active_share"],
    "energy": lambda d: 1e6 * deployment_costs(d)["dynamic"].sel(hardware="SpiNNaker 2"),
    "decision_time": lambda d: 1e3 * d["decision_time"],
}


#: Hardware that has every word, in software.
SPINNAKER = {"hardware": "SpiNNaker 2", "pace": "dynamic"}


@pytest.mark.parametrize("quantity", VALUES)
def test_cells_hold_mean_and_standard_deviation(quantity: str, deployment: xr.Dataset) -> None:
    layout = chip.plot_clock_and_word(deployment, quantity=quantity, split="validation", **SPINNAKER)
    assert [option(panel, "title") for panel in layout] == [f"rule {rule}" for rule in RULES]
    expected = VALUES[quantity](deployment.sel(split="validation", rule="clocked", dataset="mnist"))
    found = cells(layout[4])
    for step, label in ((0.001, "1 ms"), (0.01, "10 ms")):
        for bits, word in ((32, "32, as trained"), (2, "2")):
            here = expected.sel(delta_t=step, bits=bits).values
            assert found[label, word] == pytest.approx((here.mean(), here.std(ddof=1)))


def test_numbers_stand_in_the_cells_and_unknown_ones_are_empty(deployment: xr.Dataset) -> None:
    plot = chip.plot_clock_and_word(deployment, rule="clocked")
    draw(plot)
    found = {labels.group: list(labels.dimension_values("text")) for labels in elements(plot, hv.Labels)}
    numbers, spreads = found["light"] + found["dark"], found["light spread"] + found["dark spread"]
    assert len(numbers) == len(spreads) == len(cells(plot)) == (len(STEPS) - 1) * len(WORDS)
    mean, std = cells(plot)["4 ms", "4"]
    assert f"{mean:.1f}" in numbers and f"±{quantities.short(std, 2 if std >= 0.095 else 1)}" in spreads
    assert option(plot, "title") == "mnist, rule clocked, test images, mean ± std of 3 seeds\ntest accuracy (%)"


def test_one_seed_has_no_spread(deployment: xr.Dataset) -> None:
    plot = chip.plot_clock_and_word(deployment.isel(seed=[0]), rule="drop")
    draw(plot)
    found = {labels.group: labels for labels in elements(plot, hv.Labels)}
    assert len(found["light spread"]) == len(found["dark spread"]) == 0
    for name in ("light", "dark"):  # in the middle of the cell
        assert len(found[name]) and set(found[name].dimension_values("bits")) <= {0, 1, 2}


def test_of_two_seeds_both_values_stand_in_the_cell_and_in_the_table(deployment: xr.Dataset) -> None:
    two = deployment.isel(seed=[0, 1])
    plot = chip.plot_clock_and_word(two, rule="drop")
    draw(plot)
    texts = [t for labels in elements(plot, hv.Labels) for t in labels.dimension_values("text") if "/" in t]
    values = 100 * two["accuracy"].squeeze("dataset").sel(split="test", rule="drop", delta_t=0.004, bits=4).values
    assert "\u2009/\u2009".join(f"{v:.1f}" for v in values) in texts and len(texts) == len(cells(plot))
    assert option(plot, "title").startswith("mnist, rule drop, test images, 2 seeds and their mean")
    shown = choice_table(by_dataset(two))["test (%)"]
    assert shown.str.fullmatch(r"\d+\.\d\d / \d+\.\d\d").all()


def test_line_is_seen_however_wide_its_band(deployment: xr.Dataset) -> None:
    spread = deployment.copy(deep=True)
    spread["accuracy"] = spread["accuracy"] - xr.DataArray([0.0, 0.3, 0.6], dims="seed")
    whole, upper = chip.plot_deployment(spread, rules=["graded"], top=5)
    [line] = elements(upper, hv.Curve)
    low, high = option(upper, "ylim")
    assert ((low < line["accuracy"]) & (line["accuracy"] < high)).all() and elements(whole, hv.Spread)


def test_networks_that_failed_in_training_are_named_and_left_out(deployment: xr.Dataset) -> None:
    failing = deployment.copy(deep=True)
    failing["accuracy"].loc[{"seed": 1}] -= 0.09
    silent = xr.zeros_like(failing["accuracy"]) + (failing["seed"] == 1)
    parts, failed = chip.without_failed(by_dataset(failing.assign(silent_classes=silent)))
    assert parts["mnist"]["seed"].values.tolist() == [0, 2]
    [sentence] = failed
    assert (
        sentence.startswith("mnist, seed 1, failed in training") and "1 of its output neurons never spike" in sentence
    )
    kept, nobody = chip.without_failed(by_dataset(deployment))
    assert kept["mnist"].sizes["seed"] == 3 and nobody == []


def test_dark_cells_have_light_numbers(deployment: xr.Dataset) -> None:
    values, axis = quantities.measured(
        quantities.narrowed(deployment, "test"), "accuracy", hardware="Loihi", pace="real_time"
    )
    here = values.sel(rule="drop")
    texts = cell_texts(cell_columns(here, axis, ColorScale.over(here.mean("seed"), good=True)))
    assert min(float(t) for t in texts["light"]["text"]) > max(float(t) for t in texts["dark"]["text"])


def test_all_panels_have_one_scale_and_a_small_loss_can_be_seen(deployment: xr.Dataset) -> None:
    layout = chip.plot_clock_and_word(deployment)
    colors = {}
    for panel in layout:
        [found] = elements(panel, hv.Rectangles)
        for value, color in zip(found.dimension_values("value"), found.dimension_values("color"), strict=True):
            colors[round(value, 6)] = color
    ordered = [colors[v] for v in sorted(colors)]
    assert ordered[0] == ordered[1] and len(set(ordered)) > 10  # all that collapsed are palest


def test_costs_over_decades_have_a_logarithmic_scale() -> None:
    scale = ColorScale.over(xr.DataArray([1.0, 10.0, 100.0, math.nan]), good=False)
    np.testing.assert_allclose(scale.places(np.array([1.0, 10.0, 100.0])), [0, 0.5, 1])


def test_bad_value_of_an_option_is_refused(deployment: xr.Dataset) -> None:
    for options, message in (
        ({"quantity": "speed"}, "quantity is 'speed'; it must be one of accuracy"),
        ({"rule": "keep"}, "rule is 'keep'; it must be one of drop"),
        ({"quantity": "energy", "hardware": "abacus"}, "hardware is 'abacus'; it must be one of Loihi"),
        ({"quantity": "energy", "pace": "never"}, "pace is 'never'; it must be one of real_time, fast, dynamic"),
    ):
        with pytest.raises(ValueError, match=message):
            chip.plot_clock_and_word(deployment, **options)


# Over the time step


def series(plot: Any, label: str) -> np.ndarray:
    """The values of the points of a series."""
    [scatter] = [e for e in elements(plot, hv.Scatter) if e.label == label]
    return np.asarray(scatter.dimension_values(1))


@pytest.mark.parametrize("quantity", VALUES)
def test_curve_of_each_rule_is_the_mean_over_seeds(quantity: str, deployment: xr.Dataset) -> None:
    plot = chip.plot_deployment(deployment, quantity=quantity, bits=4, **SPINNAKER)
    draw(plot)
    expected = VALUES[quantity](deployment.sel(split="test", bits=4, dataset="mnist")).mean("seed")
    for rule in ("drop", "graded"):
        if quantity == "energy":  # the rule needs exact crossings
            assert not len(series(plot, rule)) and expected.sel(rule=rule).isnull().all()
            continue
        here = expected.sel(rule=rule).dropna("delta_t")  # in continuous time there is no share
        np.testing.assert_allclose(series(plot, rule), here)
    assert len(series(plot, "clocked")) == len(STEPS) - 1


def test_small_losses_are_drawn_beside_a_collapse(deployment: xr.Dataset) -> None:
    whole, upper = chip.plot_deployment(deployment, top=5, rules=["drop", "graded"])
    low, high = option(upper, "ylim")
    assert 89 < low < 90.5 and 95 < high < 96 and option(whole, "ylim")[0] < 60
    assert option(upper, "title") == "weights as trained, the upper 5 points"


def test_quantities_and_words_stand_beside_each_other(deployment: xr.Dataset) -> None:
    layout = chip.plot_deployment(deployment, quantity=("spikes", "decision_time"), bits=(4, 2))
    assert [option(panel, "title") for panel in layout] == ["weights of 4 bits"] * 2 + ["weights of 2 bits"] * 2
    assert option(layout[1], "ylabel") == "time to decision (ms)"
    for options, message in (({"bits": 7}, "bits is 7; the deployment holds 32, 4, 2"), ({"rules": []}, "each name")):
        with pytest.raises(ValueError, match=message):
            chip.plot_deployment(deployment, **options)


# Energy


@pytest.mark.parametrize("hardware", ["Loihi", "SpiNNaker 2", "45 nm CMOS"])
def test_sums_and_what_is_in_them_are_drawn(hardware: str, deployment: xr.Dataset) -> None:
    plot = chip.plot_energy(deployment, hardware=hardware, bits=4)
    draw(plot)
    here = deployment.sel(dataset="mnist", split="test", rule="clocked", bits=4)
    costs = 1e6 * deployment_costs(here).sel(hardware=hardware).mean("seed").isel(delta_t=slice(1, None))
    sums, terms = plot
    drawn = {text for name, text in PACES.items() if costs[name].notnull().all()}
    assert {e.label for e in elements(sums, hv.Scatter)} == (drawn if len(drawn) > 1 else {""})
    for name, text in PACES.items():
        if text in drawn:
            np.testing.assert_allclose(series(sums, text if len(drawn) > 1 else ""), costs[name])
    charged = [text for name, text in TERMS.items() if (costs[name] > 0).any()]
    for name, text in TERMS.items():
        if text in charged:
            np.testing.assert_allclose(series(terms, text), costs[name])
    assert option(sums, "ylabel") == "energy per inference (µJ)"
    dense = [t for e in elements(sums, hv.Labels) for t in e.dimension_values("text")]
    expected = f"dense network, without leakage: {quantities.short(costs['dense'].item())} µJ"
    assert dense == ([expected] if hardware == "45 nm CMOS" else [])


def test_longest_word_of_the_hardware_is_drawn_and_operations_where_there_are_no_joules(deployment: xr.Dataset) -> None:
    np.testing.assert_allclose(
        series(chip.plot_energy(deployment)[0], PACES["dynamic"]),
        series(chip.plot_energy(deployment, bits=4)[0], PACES["dynamic"]),
    )
    plot = chip.plot_energy(deployment, hardware="Loihi 2")
    assert option(plot, "ylabel") == "effective synaptic operations per inference"
    with pytest.raises(ValueError, match="Loihi has no weights as trained; it must have 9 at most"):
        chip.plot_energy(deployment, bits=32)


def test_crossover_is_drawn_beside_what_was_counted(deployment: xr.Dataset) -> None:
    layout = chip.plot_crossover(deployment, bits=(4, 2))
    draw(layout)
    costs = deployment_costs(deployment.sel(dataset="mnist", split="test", rule="clocked")).mean("seed")
    for panel, bits in zip(layout, (4, 2), strict=True):
        here = 100 * costs.sel(bits=bits).isel(delta_t=slice(1, None))
        np.testing.assert_allclose(series(panel, "counted"), here["event_share"])
        np.testing.assert_allclose(
            series(panel, "crossover"), here["crossover"].where(here["crossover"] > 0).dropna("delta_t")
        )
    with pytest.raises(ValueError, match="bits is empty"):
        chip.plot_crossover(deployment, bits=())


# The share of active pairs


TIMES = np.array([[0.0005, 0.0031, np.inf], [0.0012, np.inf, np.inf], [np.nan, 0.0199, 0.0075]])


def test_same_spikes_fill_more_of_a_coarse_grid() -> None:
    layout = draw_active_share(TIMES, (0.001, 0.005), 0.02)
    draw(layout)
    fine, coarse, share, spikes = layout
    assert option(fine, "title") == "Δt = 1 ms: 5 spikes on 3 × 20 (neuron, tick) pairs, share 8.33 %"
    assert option(coarse, "title") == "Δt = 5 ms: 5 spikes on 3 × 4 (neuron, tick) pairs, share 41.7 %"
    [cells] = elements(coarse, hv.Rectangles)
    # Both spikes of the first neuron fall into one cell.
    assert cells.dimension_values("spikes").tolist() == [2, 1, 1, 1]
    [dots] = elements(coarse, hv.Scatter)
    for time, neuron in zip(dots.dimension_values(0), dots.dimension_values(1), strict=True):
        boxes = zip(*(cells.dimension_values(i) for i in range(4)), strict=True)
        assert any(x0 < time <= x1 and y0 < neuron < y1 for x0, y0, x1, y1 in boxes)
    values = [100 * active_share(5, 3, 0.02, step) for step in (0.0005, 0.001, 0.002, 0.004, 0.005)]
    np.testing.assert_allclose(series(share, ""), values)
    assert set(series(spikes, "")) == {5.0}


def test_share_is_drawn_of_kept_spikes_of_the_finest_clock(tmp_path: Path) -> None:
    run = make_run(delta_t=0.004, weight_scale=8.0)
    times, duration = kept_times(run, sample=1, layer="hidden_1")
    expected = run["spike_times"].sel(sample=1, layer="hidden_1").squeeze().transpose("neuron", "spike")
    np.testing.assert_array_equal(times, expected)
    assert duration == 0.2
    layout = chip.plot_active_share(run, sample=1, neurons=3)
    kept = times[np.isfinite(times).any(axis=1)][:3]
    assert f"{np.isfinite(kept).sum()} spikes on {len(kept)} × 100" in option(layout[0], "title")
    both = xr.concat([run, make_run(delta_t=0.001, weight_scale=8.0)], "delta_t", join="outer")
    finer, _ = kept_times(both, sample=1, layer="hidden_1")
    assert np.isfinite(finer).sum() == both["spike_times"].isel(delta_t=1).sel(sample=1, layer="hidden_1").count()


def test_runs_without_spikes_are_told_in_a_sentence() -> None:
    for run, message in (
        (make_run(keep_samples=0), "which runs keep with keep_samples above 0"),
        (make_run().assign(sample_label=make_run()["sample_label"].copy(data=[[[[["", ""]]]]])), "None of these runs"),
    ):
        with pytest.raises(ValueError, match=message):
            chip.plot_active_share(run)
    for options, message in (({"sample": 9}, "sample is 9"), ({"layer": "hidden_7"}, "layer is 'hidden_7'")):
        with pytest.raises(ValueError, match=message):
            chip.plot_active_share(make_run(), **options)
    with pytest.raises(ValueError, match="it must be a fine and a coarse time step"):
        chip.plot_active_share(make_run(weight_scale=8.0), delta_t=(0.01, 0.002))


# Three objectives


def test_points_are_means_and_the_front_is_what_none_beats(deployment: xr.Dataset) -> None:
    here = quantities.narrowed(deployment)
    table, axis = three_way_table(here, hardware="Loihi", pace="dynamic", split="validation")
    assert axis.pprint_label == "energy per inference, Loihi, without leakage (µJ)"
    # Continuous time has no clock, and a Loihi no words of 32 bits.
    assert len(table["energy"]) == (len(STEPS) - 1) * (len(WORDS) - 1) and set(table["rule"]) == {"clocked"}
    expected = 100 * here["accuracy"].sel(split="validation").mean("seed")
    energy = 1e6 * deployment_costs(here)["dynamic"].sel(hardware="Loihi", split="validation").mean("seed")
    for i in range(len(table["energy"])):
        place = {name: table[name][i] for name in ("rule", "delta_t", "bits")}
        assert table["accuracy"][i] == pytest.approx(expected.sel(place).item())
        assert table["energy"][i] == pytest.approx(energy.sel(place).item())
    accuracy, energy, time = (table[name] for name in ("accuracy", "energy", "decision_time"))
    levels = np.stack([np.log(energy) / np.log(1.01), time, -10 * accuracy], axis=1).round()
    clock = table["delta_t"] > 0
    for i, own in enumerate(levels):
        others = levels[clock]
        beaten = ((others <= own).all(axis=1) & (others < own).any(axis=1)).any()
        equal = np.flatnonzero(clock & (levels == own).all(axis=1))
        first = min(
            equal,
            key=lambda k: (table["bits"][k], -table["delta_t"][k], list(RULES).index(table["rule"][k])),
            default=-1,
        )
        assert table["front"][i] == (clock[i] and not beaten and first == i)
    assert 1 < table["front"].sum() < 12


def test_front_is_ringed_and_collapsed_points_are_counted(deployment: xr.Dataset) -> None:
    collapsed = deployment.copy(deep=True)
    collapsed["accuracy"] = collapsed["accuracy"] - 0.4 * (
        (collapsed["rule"] == "clocked") & (collapsed["delta_t"] == 0.01)
    )
    plot = chip.plot_three_way(collapsed, pace="dynamic", split="validation")
    draw(plot)
    here = quantities.narrowed(collapsed)
    table, _ = three_way_table(here, hardware="Loihi", pace="dynamic", split="validation")
    on_axis = table["front"] & (table["accuracy"] > 60)
    [rings] = [e for e in elements(plot, hv.Scatter) if e.group == "front"]
    np.testing.assert_allclose(rings.dimension_values(0), table["energy"][on_axis])
    assert f"{table['front'].sum()} on the front of accuracy, energy and time; 2 below the axis" in option(
        plot, "title"
    )
    drawn = {e.group: len(e) for e in elements(plot, hv.Scatter) if e.group.startswith("rule ")}
    assert drawn == {"rule clocked": 6} and (table["delta_t"] > 0).all()
    low, _ = option(plot, "ylim")
    assert low > 80
    [bars] = elements(plot, hv.Segments)
    np.testing.assert_allclose(bars.dimension_values("y1") - bars.dimension_values("y0"), 2 * table["std"][on_axis])


def test_hardware_without_joules_is_drawn_in_operations(deployment: xr.Dataset) -> None:
    plot = chip.plot_three_way(deployment, hardware="Loihi 2")
    assert option(plot, "xlabel") == "effective synaptic operations per inference, Loihi 2"
    tooltips = {t for e in elements(plot, hv.Scatter) if e.group == "rule clocked" for t in e.dimension_values("cost")}
    assert all(text.endswith("effective operations") and "J" not in text for text in tooltips)


def test_front_is_listed_by_rising_energy(deployment: xr.Dataset) -> None:
    table, _ = three_way_table(quantities.narrowed(deployment), hardware="Loihi", pace="real_time", split="validation")
    head, _, *rows = in_markdown(front_table(by_dataset(deployment))).splitlines()
    assert "validation (%) | test (%) | Loihi, with leakage, in real time (µJ) | decision (ms)" in head
    cells_of = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    listed = table["front"] & (table["accuracy"] >= table["accuracy"].max() - 3)
    assert 0 < len(rows) == listed.sum() and {row[0] for row in cells_of} == {"mnist"}
    energy = np.sort(table["energy"][listed])
    assert [float(row[6]) for row in cells_of] == pytest.approx(energy, rel=0.01)
    first = int(np.flatnonzero(listed)[np.argmin(table["energy"][listed])])
    assert cells_of[0][3] == f"`{table['rule'][first]}`" and cells_of[0][5] == f"{table['test'][first]:.2f}"
    assert "operations" in " ".join(front_table(by_dataset(deployment), hardware="Loihi 2"))


def test_early_points_are_darker_than_late_ones(deployment: xr.Dataset) -> None:
    table, _ = three_way_table(quantities.narrowed(deployment), hardware="Loihi", pace="real_time", split="test")
    legend = time_legend(table)
    assert legend[0][0] == pytest.approx(table["decision_time"].min())
    assert table["color"][table["decision_time"].argmin()] == legend[0][1]
    assert table["color"][table["decision_time"].argmax()] == legend[-1][1]


# Tables


def test_choice_table_has_a_row_for_each_rule_and_no_joules_where_none_are_published(tmp_path: Path) -> None:
    save_deployment(make_deployment("mnist", "fashion_mnist"), tmp_path)
    table = choice_table(open_deployments(tmp_path), hardware=("Loihi", "Loihi 2"))
    assert len(table) == 2 * len(RULES) and "Loihi 2 (effective operations)" in table
    chosen = choose(make_deployment()).set_index("rule").loc["drop"]
    row = table.iloc[0]
    assert row.tolist()[:5] == ["mnist", "`drop`", "4\u00a0ms", "4", "3"] and chosen["delta_t"] == 0.004
    expected = f"{100 * chosen['test_accuracy']:.2f} ± {100 * chosen['test_accuracy_std']:.2f}"
    assert row["test (%)"] == expected


def test_only_clocked_has_a_price_in_the_table(deployment: xr.Dataset) -> None:
    table = choice_table(by_dataset(deployment)).set_index("rule")["Loihi (µJ)"]
    costs = deployment_costs(deployment.sel(dataset="mnist", rule="clocked", split="test", delta_t=0.01, bits=4))
    spent = costs.sel(hardware="Loihi").mean("seed")
    dynamic, real_time = (quantities.short(1e6 * spent[name].item()) for name in ("dynamic", "real_time"))
    assert table["`clocked`"] == f"{dynamic} / {real_time}"
    assert set(table.drop("`clocked`")) == {"–"}


def test_terms_of_the_sum_are_laid_out(deployment: xr.Dataset) -> None:
    table = energy_terms_table(by_dataset(deployment), bits=4)
    assert table["Δt"].tolist() == [f"{1000 * step:g}\u00a0ms" for step in STEPS[1:]]
    here = deployment_costs(deployment.sel(dataset="mnist", rule="clocked", split="test", bits=4)).mean("seed")
    here = 1e6 * here.sel(hardware="Loihi", delta_t=0.004)
    row = table.iloc[1]
    for name, text in (TERMS | PACES).items():
        if text in table:
            assert row[text] == quantities.short(here[name].item())
    assert TERMS["memory"] not in table and TERMS["inputs"] in table
    assert energy_terms_table(by_dataset(deployment), bits=6).empty


def test_dense_networks_are_beaten_below_the_crossover(deployment: xr.Dataset) -> None:
    table = crossover_table(by_dataset(deployment)).set_index("bits")
    costs = deployment_costs(deployment.sel(dataset="mnist", rule="clocked", split="test")).mean("seed")
    for bits, word in ((32, "trained"), (4, "4"), (2, "2")):
        here = costs.sel(bits=bits, delta_t=list(STEPS[1:]))
        wins = (here["dynamic"].sel(hardware="45 nm CMOS") < here["dense"]).values
        first = f"from {1000 * STEPS[1:][int(wins.argmax())]:g} ms on" if wins.any() else "on no clock"
        assert table["spiking takes less"][word] == first
        assert table["dense (µJ)"][word] == quantities.short(1e6 * here["dense"].item())


def test_hardware_whose_leakage_is_unknown_says_so(deployment: xr.Dataset) -> None:
    message = "The leakage of SpiNNaker 2 is not published; it has a price without leakage"
    with pytest.raises(ValueError, match=message):
        chip.plot_three_way(deployment, hardware="SpiNNaker 2")
    assert "The speed of 45 nm CMOS" in quantities.not_priced("45 nm CMOS", "fast")
    assert not quantities.not_priced("Loihi", "fast") and not quantities.not_priced("Loihi 2", "real_time")
    with pytest.raises(ValueError, match="Only rule clocked has a price, on a clock"):
        chip.plot_three_way(deployment.sel(rule=["drop", "graded"]))


def test_nothing_will_do_is_said(deployment: xr.Dataset) -> None:
    bad = deployment.where((deployment["rule"] != "clocked") | (deployment["delta_t"] == 0), 0.1)
    parts = by_dataset(bad.assign({n: deployment[n] for n in ("layer_size", "n_inputs", "duration")}))
    assert "| mnist | `clocked` | none will do |" in in_markdown(choice_table(parts))


def test_chosen_points_are_compared_over_paired_seeds(deployment: xr.Dataset) -> None:
    parts = by_dataset(deployment)
    table = compare_chosen(parts)
    graded = table[(table["rule"] == "graded") & (table["against"] == "drop")].iloc[0]
    assert graded["delta_t"] == 0.01 and graded["difference"] == pytest.approx(40, abs=0.5)
    assert graded["p_corrected"] == pytest.approx(min(1, len(table) * graded["p"]))
    shown = compared_table(parts)
    assert len(shown) == len(table)
    row = shown[(shown["rule"] == "`graded`") & (shown["against"] == "drop")].iloc[0]
    assert row["difference (points)"].startswith(f"{graded['difference']:+.2f} [{graded['low']:+.2f}, ")
    assert row["p"] == f"{graded['p_corrected']:.2g}"


def test_one_seed_has_no_interval_and_no_deployment_no_row(deployment: xr.Dataset, tmp_path: Path) -> None:
    table = compared_table(by_dataset(deployment.isel(seed=[0])))
    assert set(table["p"]) == {""} and not table["difference (points)"].str.contains("[", regex=False).any()
    for make_table in (compared_table, choice_table, crossover_table, energy_terms_table, front_table):
        assert make_table(open_deployments(tmp_path)).empty


# Words in training


@pytest.fixture(scope="module")
def trained() -> xr.Dataset:
    """Networks that were trained for a chip, as open_training returns them: two points are gained at 2 bits."""
    return _made_up_training().to_dataset(name="accuracy").assign_coords(dataset="mnist")


def _made_up_training() -> xr.DataArray:
    """Accuracy by seed, split, method, time step and word."""
    rng = np.random.default_rng(0)
    means = np.array([[0.96, 0.95, 0.92], [np.nan, 0.955, 0.94], [np.nan, 0.945, 0.93]])
    values = means[None, None, :, None] + rng.normal(0, 0.001, (3, 1, 3, 2, 3))
    coords = {"seed": [0, 1, 2], "split": ["test"], "training": list(METHODS), "delta_t": [0.02, 0.03]}
    return xr.DataArray(values, coords | {"bits": [32, 4, 2]}, (*coords, "bits"))


def test_accuracy_of_words_is_drawn_by_how_they_came_about(trained: xr.Dataset) -> None:
    layout = chip.plot_words(trained)
    draw(layout)
    for panel, step in zip(layout, (0.02, 0.03), strict=True):
        for name, text in METHODS.items():
            means = 100 * trained["accuracy"].sel(training=name, delta_t=step, split="test").mean("seed")
            np.testing.assert_allclose(series(panel, text), means.sortby("bits").dropna("bits"))
    draw(chip.plot_words(trained.isel(seed=[0], delta_t=[0])))
    for bad, options, message in (
        (trained, {"split": "train"}, "split is 'train'; it must be one of test"),
        (trained.where(trained["seed"] > 3), {}, "Nothing was measured"),
    ):
        with pytest.raises(ValueError, match=message):
            chip.plot_words(bad, **options)


def test_words_in_training_are_compared_with_rounding_over_paired_seeds(trained: xr.Dataset) -> None:
    table = chip.training_table({"mnist": trained})
    assert table["bits"].tolist() == 2 * ["trained", *3 * ["4"], *3 * ["2"]]
    row = table[(table["bits"] == "2") & (table["how"] == METHODS["from_trained"])].iloc[0]
    at_two = 100 * trained["accuracy"].sel(delta_t=0.02, bits=2, split="test")
    found = paired(at_two.sel(training="from_trained").values, at_two.sel(training="post_training").values)
    assert row["difference (points)"] == f"{found.difference:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
    assert row["p"] == f"{min(1, 8 * found.p):.2g}"  # of eight comparisons
    assert chip.training_table({"mnist": trained.isel(seed=[0])})["p"].eq("").all()
    assert chip.training_table({}).empty
