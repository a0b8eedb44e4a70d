"""The plots of one neuron and of one weight, read off their elements."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bats_lab import open_results, plots
from bats_lab.explore import GradientCheck
from bats_lab.network.neuron import simulate_neuron

INPUTS = {"times": np.array([0.01, 0.03, 0.07, 0.11]), "weights": np.array([12.0, 24.0, -70.0, 70.0])}


def column(layout, group: str, name: str) -> np.ndarray:
    """Return the values of a series of a plot."""
    [element] = [e for e in layout.traverse(lambda e: e) if getattr(e, "group", "") == group and hasattr(e, "kdims")]
    return np.asarray(element.dimension_values(name))


def test_potential_shows_crossings_at_the_threshold_and_ignored_ones() -> None:
    neuron = simulate_neuron(**INPUTS, delta_t=0.008, rule="drop")
    layout = plots.draw_potential([simulate_neuron(**INPUTS), neuron])
    np.testing.assert_allclose(column(layout, "crossings_1", "time"), 1e3 * neuron.times)
    np.testing.assert_allclose(column(layout, "crossings_1", "potential"), 0.2)
    np.testing.assert_allclose(column(layout, "potential_0", "potential").max(), 0.2)
    assert column(layout, "potential_1", "potential").max() > 1


def test_spikes_on_one_tick_are_stacked() -> None:
    neuron = simulate_neuron(**INPUTS, delta_t=0.008, rule="graded")
    rows = column(plots.draw_potential([neuron]), "sent_0", "row")
    assert len(rows) == 11 and (rows == 0).sum() == 10 and rows.max() == pytest.approx(0.2)


@pytest.mark.parametrize("layer", ["hidden_1", "output"])
def test_potential_of_a_trained_neuron_crosses_where_the_engine_said(small_results: Path, layer: str) -> None:
    layout = plots.plot_potential(open_results(small_results), layer=layer, sample=1, delta_t=0.004, seed=0)
    threshold = column(layout, "threshold", "potential")[0]
    at = column(layout, "crossings_0", "potential")
    assert len(at) and at == pytest.approx(threshold, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"sample": 99}, "sample is 99"), ({"neuron": 10}, "neuron is 10"), ({"layer": "third"}, "no layer 'third'")],
)
def test_what_is_not_there_is_named(small_results: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plots.plot_potential(open_results(small_results), delta_t=0.004, seed=0, **options)
    with pytest.raises(ValueError, match="at least one"):
        plots.draw_potential([])


def test_both_backends_draw_the_same_call(tmp_path: Path) -> None:
    check = GradientCheck(delta_t=0.004)
    values = np.linspace(3, 7, 30)
    figure = plots.plot_sensitivity(
        GradientCheck().sweep(values), check.sweep(values), check.slope(5.0, 0.3), delta_t=0.004, target=10
    )
    for element, name in ((figure, "weight"), (plots.draw_potential([simulate_neuron(**INPUTS)]), "potential")):
        plots.save_figure(element, tmp_path / f"{name}.html", tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
        assert name in (tmp_path / f"{name}.html").read_text()
