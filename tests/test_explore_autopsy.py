"""The explorer of the spike autopsy without a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bats_lab import explore
from bats_lab.network.autopsy import autopsy
from bats_lab.network.graphs import INPUT, Connection, Graph, Population, graph_of_network
from bats_lab.network.platforms import simulate
from bats_lab.plots.platforms import CHANGES
from bats_lab.runs.experiment import config_of, first_samples, network_of
from bats_lab.runs.kept import runs_to_rerun
from bats_lab.runs.results import open_results
from bats_lab.spikes.encoding import encode_images
from bats_lab.spikes.trains import Spikes

CLOCK = {"delta_t": 0.001, "duration": 0.05}


@pytest.fixture(scope="module")
def network() -> tuple[Graph, Spikes]:
    rng = np.random.default_rng(3)
    layers = [Population(name, size, 0.01, 0.005, reset="subtract") for name, size in (("first", 6), ("last", 3))]
    wires = [
        Connection(INPUT, "first", rng.uniform(0, 500, (6, 5))),
        Connection("first", "last", rng.uniform(0, 500, (3, 6))),
    ]
    return Graph(5, layers, wires, pulse=0.001), Spikes.from_padded(rng.uniform(0, 0.03, (4, 5, 2)))


def columns(explorer: Any, panel: int, name: str) -> dict[str, Any]:
    return explorer.pictures[0].panels[panel].columns(name)


def test_raster_shows_every_difference_with_its_cause(network: tuple[Graph, Spikes]) -> None:
    explorer = explore.explore_autopsy(*network, **CLOCK, sample=2)
    explorer.controls["population"].value = "first"
    changes = autopsy(network[0], network[1][2:3], "loihi", **CLOCK).changes.query("population == 'first'")
    shown = [cause for change in CHANGES for cause in columns(explorer, 0, change)["cause"]]
    assert len(shown) > 5 and sorted(shown) == sorted(changes["cause"])


def test_click_on_a_spike_shows_the_membranes_of_its_neuron(network: tuple[Graph, Spikes]) -> None:
    explorer = explore.explore_autopsy(*network, **CLOCK, state={"population": "first", "neuron": 0})
    moved = columns(explorer, 0, "moved")
    mark = int(np.flatnonzero(moved["neuron"] > 0)[0])
    explorer.pictures[0].panels[0].source("moved").selected.indices = [mark]
    neuron, (start, end) = moved["neuron"][mark], explorer.values["window"]
    assert explorer.values["neuron"] == neuron and start < moved["time"][mark] < end
    for name, where, step in (("platform", "loihi", 0.001), ("exact", "exact", 0.0001)):
        run = simulate(network[0], network[1][:1], where, delta_t=step, duration=0.05, record=["first"])
        np.testing.assert_allclose(columns(explorer, 1, name)["potential"], run.potential["first"][0, neuron])


def test_network_and_samples_come_from_results(small_results: Path) -> None:
    run = min(runs_to_rerun(open_results(small_results)), key=lambda run: config_of(run).delta_t)
    explorer = explore.explore_autopsy(small_results, delta_t=0.002)
    spikes = encode_images(first_samples(config_of(run), 2).x_test, window=config_of(run).encoding_window)
    expected = autopsy(graph_of_network(network_of(run)), spikes[1:2], "loihi", delta_t=0.002, duration=0.2)
    explorer.controls["sample"].value = 1
    shown = [cause for change in CHANGES for cause in columns(explorer, 0, change)["cause"]]
    assert sorted(shown) == sorted(expected.changes.query("population == 'layer2'")["cause"]) and shown


def test_recording_takes_the_place_of_what_is_simulated(network: tuple[Graph, Spikes], tmp_path: Path) -> None:
    (tmp_path / "chip.csv").write_text("sample, neuron, time\n0, 1, 0.0485\n")
    explorer = explore.explore_autopsy(*network, **CLOCK, recorded=tmp_path / "chip.csv")
    explorer.look_at.value = "what was recorded"
    assert columns(explorer, 0, "kept") == {"time": [pytest.approx(48.5)], "neuron": [1]}
    assert "not in the profile" in set(columns(explorer, 0, "lost")["cause"])


def test_every_preset_of_the_autopsy_shows_a_platform(network: tuple[Graph, Spikes]) -> None:
    explorer = explore.explore_autopsy(*network, **CLOCK)
    assert len(explorer.presets) == 4
    for name, preset in explorer.presets.items():
        explorer.look_at.value = name
        assert {key: explorer.state[key] for key in preset} == preset and "spikes" in explorer.sentence.text


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"platform": "exact"}, "platform is 'exact'"),
        ({"platforms": ["abacus"]}, "platform is 'abacus'"),
        ({"sample": 4}, "from 0 to 3"),
        ({"spikes": None}, "needs input spikes"),
        ({"recorded": Spikes.from_padded(np.zeros((4, 2)))}, "recorded holds 2 neurons"),
    ],
)
def test_what_cannot_be_examined_is_told(network: tuple[Graph, Spikes], given: dict[str, Any], told: str) -> None:
    graph, spikes = network
    explorer = explore.explore_autopsy(graph, **({"spikes": spikes} | CLOCK | given))
    assert isinstance(explorer, explore.Sentence) and told in explorer.text


def test_link_gives_a_call_that_shows_the_same(network: tuple[Graph, Spikes]) -> None:
    graph, spikes = network
    made = explore.explore_autopsy(graph, spikes, platform="spyx")
    assert made.call == "explore.explore_autopsy(graph, spikes, platform='spyx'"
