"""The comparison of gradient estimators: runs, tests over paired seeds, gradients, plots and sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import holoviews as hv
import numpy as np
import pytest
import xarray as xr
from pictures import draw, elements, option
from runs import make_run

from bats_lab import estimators
from bats_lab.runs.files import save_run
from bats_lab.runs.results import open_results
from bats_lab.spikes.estimators import ESTIMATORS, surrogate_slope
from bats_lab.spikes.grid import discretize
from bats_lab.studies import experiments, in_markdown
from bats_lab.studies.collapse.experiments import agreement
from bats_lab.studies.estimators.report import compare_estimators
from bats_lab.studies.estimators.study import estimator_configs, open_gradients, run_estimator_experiments

RULES = ("drop", "graded")
STEPS = (0.004, 0.012)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """Three seeds of every estimator, rule and time step, and of continuous time, with made-up accuracies."""
    folder = tmp_path_factory.mktemp("estimators")
    for seed in range(3):
        save_run(make_run(seed=seed, validation_fraction=0.2, epochs=1), folder)
        for delta_t in STEPS:
            for rule in RULES:
                for estimator in ESTIMATORS:
                    how = {"rule": rule, "delta_t": delta_t, "estimator": estimator}
                    save_run(make_run(seed=seed, validation_fraction=0.2, epochs=1, **how), folder)
    found = open_results(folder, large=False).load()
    rng = np.random.default_rng(0)
    accuracy = found["accuracy"]
    noise = xr.DataArray(rng.normal(0, 1e-4, accuracy.shape), accuracy.coords, accuracy.dims)
    by_seed = xr.DataArray([0.0, 0.02, 0.04], {"seed": [0, 1, 2]})
    known = xr.where(accuracy["estimator"] == "delayed", 0.93, 0.9) + by_seed + noise
    known = known.where(~((known["estimator"] == "surrogate") & (known["delta_t"] == 0.012)), known - 0.05)
    return found.assign(accuracy=known.transpose(*accuracy.dims).where(accuracy.notnull()))


# The runs


def test_runs_differ_in_the_estimator_alone_and_hold_out_samples() -> None:
    configs = [c for c in estimator_configs(seeds=2) if c.seed < 2]
    assert len({c.identity for c in configs}) == len(configs)
    assert all(c.validation_fraction == 0.1 and c.epochs == 1 for c in configs)
    for dataset in ("mnist", "fashion_mnist"):
        own = [c for c in configs if c.dataset == dataset]
        assert {(c.rule, c.delta_t) for c in own if c.delta_t} == {
            (rule, step) for rule in RULES for step in estimators.ESTIMATOR_STEPS[dataset]
        }
        assert sum(c.delta_t == 0 for c in own) == 2
        cell = [c for c in own if (c.rule, c.delta_t, c.seed) == ("drop", 0.02, 1)]
        assert [c.estimator for c in cell] == list(ESTIMATORS)
        assert {c.replace(estimator="delayed") for c in cell} == {cell[1]}
    assert [c.seed for c in configs] == sorted(c.seed for c in configs)
    assert {c.dataset for c in estimator_configs(quick=True, seeds=1)} == {"mnist_small"}
    with pytest.raises(ValueError, match="seeds is 0; it must be at least 1"):
        estimator_configs(seeds=0)


def test_contrasts_have_four_times_as_many_seeds() -> None:
    configs = estimator_configs(seeds=2)
    further = [c for c in configs if c.seed >= 2]
    assert further == configs[-len(further) :] and {c.dataset for c in further} == {"mnist"}
    assert {(c.rule, c.delta_t) for c in further} == set(estimators.CONTRASTS)
    assert {(c.seed, c.estimator) for c in further} == {(s, name) for s in range(2, 8) for name in ESTIMATORS}
    assert len(further) == 2 * 6 * len(ESTIMATORS)
    assert max(c.seed for c in estimator_configs(seeds=2, quick=True)) == 1


# The comparison


def test_comparison_finds_what_is_better_and_what_is_worse(results: xr.Dataset) -> None:
    table = compare_estimators(results)
    assert len(table) == 2 * 2 * 3 and (table["seeds"] == 3).all() and (table["chosen_by"] == "validation").all()
    by_name = table.set_index(["estimator", "delta_t", "rule"])
    for step in STEPS:
        better = by_name.loc[("delayed", step, "drop")]
        assert better["difference"] == pytest.approx(3, abs=0.05) and better["p_holm"] < 0.05
        assert better["low"] < better["difference"] < better["high"]
        assert by_name.loc[("stochastic", step, "drop")]["difference"] == pytest.approx(0, abs=0.05)
    worse = by_name.loc[("surrogate", 0.012, "graded")]
    assert worse["difference"] == pytest.approx(-5, abs=0.05) and worse["p_holm"] < 0.05
    assert (table["p_holm"] >= table["p"]).all()


def test_seeds_of_contrasts_alone_are_tested_beside_the_others(results: xr.Dataset) -> None:
    more = results.reindex(seed=range(12)).copy()
    place = {"rule": "graded", "delta_t": 0.012, "split": "test"}
    wanted = np.linspace(-1e-4, 1e-4, 12)
    more["accuracy"].loc[place | {"estimator": "straight_through"}] = 0.9
    for name, shift in (("delayed", 0.03), ("stochastic", 0.0), ("surrogate", 0.0)):
        more["accuracy"].loc[place | {"estimator": name}] = (0.9 + shift + wanted)[:, None]
    assert (compare_estimators(more)["seeds"] == 3).all()
    table = estimators.contrasts_table({"mnist_small": more}).set_index(["rule", "estimator"])
    assert set(table.loc["`graded`"]["seeds"]) == {12} and set(table.loc["`drop`"]["seeds"]) == {3}
    better, equal = table.loc[("`graded`", "`delayed`")], table.loc[("`graded`", "`stochastic`")]
    assert better["difference (points)"].startswith("+3.00") and float(better["p"]) < 1e-9 < float(better["p (equal)"])
    assert float(equal["p (equal)"]) < 1e-9 and equal["power if equal"] == "1.00" and float(equal["p"]) > 0.9


def test_results_without_estimators_are_refused(results: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="do not differ in 'estimator'"):
        compare_estimators(results.sel(estimator="delayed"))
    with pytest.raises(ValueError, match="baseline is 'exact'; it must be one of"):
        compare_estimators(results, baseline="exact")


# Gradients


def test_gradients_are_measured_once_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(experiments.SIZES, "mnist_small", experiments.Size(n_train=200, images=40, directions=4))
    monkeypatch.setitem(estimators.ESTIMATOR_STEPS, "mnist", (0.012,))
    told: list[str] = []
    [path] = run_estimator_experiments(tmp_path, quick=True, device="cpu", report=told.append)
    assert told == ["estimator gradients on mnist_small …"]
    made = path.stat().st_mtime_ns
    assert run_estimator_experiments(tmp_path, quick=True) == [path] and path.stat().st_mtime_ns == made
    [(name, found)] = open_gradients(tmp_path).items()
    assert name == "mnist_small" and len(found.attrs["data_hash"]) == 64
    names = ["straight_through", "delayed", *(f"surrogate {w:g}" for w in estimators.WIDTHS), "continuous"]
    assert found["gradient"].values.tolist() == names
    assert found["predicted"].sizes == {"rule": 2, "delta_t": 1, "gradient": 5, "direction": 4}
    # Each is another gradient, and all are held against one change of the loss.
    assert len(np.unique(found["predicted"].isel(rule=0, delta_t=0, direction=0))) == 5
    layout = estimators.plot_estimator_agreement(found)
    draw(layout)
    wanted = agreement(found).sel(rule="graded", gradient="delayed")
    np.testing.assert_allclose(points(layout[1], "delayed"), wanted)


# Plots and sentences


def points(plot: Any, label: str) -> np.ndarray:
    """The values of the points of a series."""
    [scatter] = [e for e in elements(plot, hv.Scatter) if e.label == label]
    return np.asarray(scatter.dimension_values(1))


def test_accuracy_has_a_curve_an_estimator_and_continuous_time_in_each(results: xr.Dataset) -> None:
    layout = estimators.plot_estimators(results)
    draw(layout)
    assert [option(panel, "title") for panel in layout] == list(RULES)
    test = 100 * results["accuracy"].sel(split="test").isel(epoch=0)
    exact = test.sel(delta_t=0, rule="drop", estimator="straight_through").mean("seed").item()
    for name in ESTIMATORS:
        wanted = test.sel(rule="graded", estimator=name, delta_t=list(STEPS)).mean("seed")
        np.testing.assert_allclose(points(layout[1], name), [exact, *wanted.values])
    with pytest.raises(ValueError, match="split is 'all'; it must be one of train, test, validation"):
        estimators.plot_estimators(results, split="all")


def test_gain_is_the_difference_between_the_same_seeds(results: xr.Dataset) -> None:
    layout = estimators.plot_estimator_gain(results)
    draw(layout)
    table = compare_estimators(results).set_index(["rule", "estimator"])
    for panel, rule in zip(layout, RULES, strict=True):
        for name in list(ESTIMATORS)[1:]:
            np.testing.assert_allclose(points(panel, name), table.loc[(rule, name)]["difference"])
    with pytest.raises(ValueError, match="baseline is 'exact'"):
        estimators.plot_estimator_gain(results, baseline="exact")


def test_smooth_grid_shows_the_grid_and_the_slopes() -> None:
    layout = estimators.plot_smooth_grid(0.01, [0.1, 0.25])
    draw(layout)
    [stairs] = [e for e in elements(layout[0], hv.Curve) if e.label == "d(t)"]
    times, sent = stairs.dimension_values("time"), stairs.dimension_values("sent")
    shown = np.isfinite(sent)
    assert 700 < shown.sum() < 801
    np.testing.assert_allclose(sent[shown], 1e3 * discretize(times[shown] / 1e3, 0.01))
    [slope] = [e for e in elements(layout[1], hv.Curve) if e.label == "width 0.1"]
    np.testing.assert_allclose(slope.dimension_values("slope"), surrogate_slope(times / 1e3, 0.01, 0.1))
    with pytest.raises(ValueError, match="delta_t is 0; it must be a number above 0"):
        estimators.plot_smooth_grid(0, [0.1])
    with pytest.raises(ValueError, match=r"widths is \[\]; it must have 1 to 4 entries"):
        estimators.plot_smooth_grid(0.01, [])


def test_summary_counts_differences_beyond_chance(results: xr.Dataset) -> None:
    [row] = estimators.estimator_summary({"mnist": results}).to_dict("records")
    table = compare_estimators(results)
    clear = table[table["p_holm"] < 0.05]["difference"]
    assert (row["data set"], row["seeds"], row["comparisons"]) == ("mnist", 3, 12)
    assert (row["better"], row["worse"]) == ((clear > 0).sum(), (clear < 0).sum()) == (4, 2)
    assert row["largest difference"].startswith("-5.0") and "`surrogate`" in row["largest difference"]
    better = results["accuracy"].where(
        results["rule"] != "graded", results["accuracy"] + 0.01 * results["delta_t"] / 0.012
    )
    [row] = estimators.estimator_summary({"mnist": results.assign(accuracy=better)}).to_dict("records")
    gain = row["`graded` in place of `drop`"]
    assert gain.startswith(("+1.0", "+0.9")) and gain.endswith("]: 12 ms")


def test_summary_finds_nothing_where_estimators_are_alike_or_of_one_seed(results: xr.Dataset) -> None:
    alike = results["accuracy"].sel(estimator="straight_through") + 0 * results["accuracy"]
    noise = xr.DataArray(np.random.default_rng(1).normal(0, 1e-4, alike.shape), alike.coords, alike.dims)
    for same in (results.assign(accuracy=alike + noise), results.sel(seed=[1])):
        [row] = estimators.estimator_summary({"mnist": same}).to_dict("records")
        assert (row["better"], row["worse"]) == (0, 0)
    assert row["seeds"] == 1 and row["largest difference"].startswith("-5.0") and "[" not in row["largest difference"]


def test_table_has_a_row_for_each_comparison(results: xr.Dataset) -> None:
    table = in_markdown(estimators.estimator_table({"mnist": results})).splitlines()
    assert len(table) == 2 + 12 and table[2].startswith("| mnist | drop | 4 ms | delayed | 3 | ")
    assert estimators.estimator_table({"mnist": results.sel(estimator="delayed")}).empty
