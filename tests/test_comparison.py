"""One network on many platforms: decisions, tables, files of spikes, and the plots of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from bats_lab import plots
from bats_lab.errors import DataError
from bats_lab.network.autopsy import CAUSES, Autopsy, autopsy
from bats_lab.network.comparison import compare, decide, load_spikes, will_do
from bats_lab.network.feedforward import Network
from bats_lab.network.graphs import Graph, graph_of_network
from bats_lab.network.platforms import PLATFORMS
from bats_lab.plots.platforms import CAUSE_COLORS
from bats_lab.spikes.trains import Spikes


@pytest.fixture(scope="module")
def network() -> tuple[Graph, Spikes]:
    rng = np.random.default_rng(4)
    weights = [rng.uniform(-1, 2, (12, 8)), rng.uniform(-1, 2, (3, 12))]
    made = Network(
        (8, 12, 3), thresholds=[0.01, 0.03], max_spikes=[30, 30], tau_syn=0.02, duration=0.2, weights=weights
    )
    return graph_of_network(made), Spikes.from_padded(rng.uniform(0, 0.1, (30, 8)))


@pytest.fixture(scope="module")
def comparison(network: tuple[Graph, Spikes]) -> xr.Dataset:
    return compare(*network, {"best": "ideal", "chip": "loihi"}, delta_t=[1e-4, 0.004], duration=0.2)


@pytest.fixture(scope="module")
def found(network: tuple[Graph, Spikes]) -> Autopsy:
    return autopsy(network[0], network[1][:5], "loihi", delta_t=0.002, duration=0.2)


def test_fine_clock_is_nearly_continuous_and_a_coarse_one_is_not(comparison: xr.Dataset) -> None:
    kept = comparison["kept"].mean("population")
    assert comparison["exact_accuracy"] == 1  # without labels, continuous time is right
    assert kept.sel(platform="best", delta_t=1e-4) > 0.5
    assert (kept.sel(platform="chip") < kept.sel(platform="best")).all()
    assert (comparison["exact_spike_count"] > 10).all()
    assert comparison["accuracy"].sel(platform="best", delta_t=1e-4) > 0.9


def test_clock_will_do_only_where_every_finer_one_does() -> None:
    accuracy = [[0.95, 0.9, 0.95], [0.8, 0.95, 0.95], [0.95, 0.945, 0.6]]
    run = xr.Dataset(
        {
            "accuracy": (("platform", "delta_t"), accuracy),
            "spike_count": (("platform", "delta_t", "population"), np.ones((3, 3, 1))),
            "kept": (("platform", "delta_t", "population"), np.ones((3, 3, 1))),
            "exact_accuracy": ((), 0.95),
            "exact_spike_count": (("population",), [1.0]),
        },
        {"platform": ["a", "b", "c"], "delta_t": [0.001, 0.002, 0.004], "population": ["n"]},
    )
    np.testing.assert_array_equal(will_do(run)["delta_t"], [0.001, np.nan, 0.002])


def test_silent_output_decides_nothing_and_ties_go_to_the_lower_neuron() -> None:
    trains = Spikes.from_padded(np.array([[np.inf, np.inf], [0.3, 0.2]]))
    assert decide(trains).tolist() == [-1, 0]
    assert decide(trains, "first").tolist() == [-1, 1]
    with pytest.raises(ValueError, match="'last'"):
        decide(trains, "last")


def test_labels_must_be_as_many_as_samples(network: tuple[Graph, Spikes]) -> None:
    with pytest.raises(ValueError, match=r"\(2,\).*30 samples"):
        compare(*network, ["ideal"], delta_t=[0.01], duration=0.2, labels=np.zeros(2))


def test_spikes_are_read_from_both_kinds_of_files(tmp_path: Path) -> None:
    times = np.array([[[0.1, 0.3], [np.inf, np.inf]], [[np.inf, np.inf], [0.2, np.inf]]])
    np.savez(tmp_path / "a.npz", times=times, labels=np.array([1, 0]))
    (tmp_path / "b.csv").write_text("sample, neuron, time\n0,0,0.1\n1,1,0.2\n0,0,0.3\n")
    spikes, labels = load_spikes(tmp_path / "a.npz", 2)
    assert labels is not None and labels.tolist() == [1, 0]
    np.testing.assert_array_equal(spikes.padded(2), times)
    np.testing.assert_array_equal(load_spikes(tmp_path / "b.csv", 2)[0].padded(2), times)


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("a.npz", "nothing", "holds no spikes"),
        ("b.csv", "neuron,time\n0,0.1\n", "'sample'"),
        ("c.csv", "sample,neuron,time\n0,7,0.1\n", "8 neurons; there are 2"),
        ("d.csv", "sample,neuron,time\n0,1,-0.1\n", "negative"),
    ],
)
def test_file_that_holds_no_spikes_is_named(tmp_path: Path, name: str, content: str, word: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=word):
        load_spikes(tmp_path / name, 2)
    with pytest.raises(FileNotFoundError, match="none"):
        load_spikes(tmp_path / "none.csv", 2)


def test_every_cause_has_its_colour() -> None:
    assert [*CAUSE_COLORS][1:] == [*CAUSES]
    assert len(set(CAUSE_COLORS.values())) == len(CAUSE_COLORS)


def test_table_in_colour_shows_the_comparison(comparison: xr.Dataset, tmp_path: Path) -> None:
    layout = plots.plot_platforms(comparison)
    [accuracy] = [e for e in layout.traverse() if getattr(e, "vdims", None) and e.vdims[0].name == "accuracy"]
    np.testing.assert_allclose(
        np.sort(accuracy.dimension_values("accuracy")), np.sort(100 * comparison["accuracy"].values.ravel())
    )
    assert plots.save_figure(layout, tmp_path / "a.png").stat().st_size > 1000


def test_bars_of_causes_begin_where_the_last_ended(found: Autopsy, tmp_path: Path) -> None:
    overlay = plots.plot_causes({"loihi": found})
    bars = [e for e in overlay.traverse() if getattr(e, "kdims", None) and e.kdims[-1].name == "row"]
    starts, ends = (np.concatenate([bar.dimension_values(name) for bar in bars]) for name in ("share", "end"))
    np.testing.assert_allclose(starts, [0, *ends[:-1]])
    total = sum(found.kept.values()) + len(found.changes)
    np.testing.assert_allclose(ends[-1], 100 * total / sum(len(t.times) for t in found.exact.spikes.values()))
    assert plots.save_figure(overlay, tmp_path / "a.html").stat().st_size > 1000


def test_raster_shows_every_change_in_the_colour_of_its_cause(found: Autopsy, tmp_path: Path) -> None:
    overlay = plots.plot_autopsy(found, population="layer1", sample=1)
    here = found.changes[(found.changes["population"] == "layer1") & (found.changes["sample"] == 1)]
    dots = [e for e in overlay.traverse() if getattr(e, "vdims", None) and e.vdims[-1].name == "change"]
    assert sum(len(e) for e in dots) == len(here) > 5
    assert {e.label for e in dots} == set(here["cause"])
    assert plots.save_figure(overlay, tmp_path / "a.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="'layer9'"):
        plots.plot_autopsy(found, population="layer9")


def test_table_of_causes_counts_every_change(found: Autopsy) -> None:
    assert int(found.table().to_numpy().sum()) == len(found.changes)
    assert PLATFORMS["loihi"].delay == 1
    assert "tick of delay" in set(found.changes["cause"])
