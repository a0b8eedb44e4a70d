"""The spike autopsy: planted faults get their causes, and the recorded traces theirs."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bats_lab.network.autopsy import CAUSES, Autopsy, autopsy
from bats_lab.network.graphs import INPUT, Connection, Graph, Population
from bats_lab.network.platforms import PLATFORMS, profile_named, simulate
from bats_lab.spikes.trains import Spikes

TRACES = np.load(Path(__file__).parent / "traces" / "lif.npz")
DELTA_T, DURATION = 1e-3, 0.06
IDEAL = PLATFORMS["ideal"]
#: A fault of each kind that a clock can have beside being one.
FAULTS: dict[str, dict[str, Any]] = {
    "tick of delay": {"delay": 1},
    "threshold test order": {"order": ("threshold", "input", "membrane", "synapse", "reset")},
    "reset": {"reset": "zero"},
    "collision": {"spikes_per_tick": 1},
    "saturation": {"floor": 0.0},
    "word length": {"weight_bits": 3},
    "decay": {"decay": "euler"},
}


def forked(seed: int) -> tuple[Graph, Spikes]:
    """Return two populations that see the inputs, and one that sees both; and inputs on the grid for 60 samples."""
    rng = np.random.default_rng(seed)
    layers = [
        Population(
            name, 8, rng.choice([0.01, 0.02]), rng.choice([0.004, 0.01]), rng.uniform(0.8, 1.2, 8), reset="subtract"
        )
        for name in ("left", "right", "both")
    ]
    pairs = [(INPUT, "left"), (INPUT, "right"), ("left", "both"), ("right", "both")]
    wires = [Connection(a, b, rng.uniform(-400, 600, (8, 10 if a == INPUT else 8))) for a, b in pairs]
    ticks = np.where(rng.random((60, 10, 2)) < 0.8, rng.integers(0, 40, (60, 10, 2)), np.inf)
    return Graph(10, layers, wires, pulse=DELTA_T), Spikes.from_padded(ticks * DELTA_T)


def examined(graph: Graph, spikes: Spikes, left: dict, right: dict, **options: Any) -> Autopsy:
    profiles = {"left": replace(IDEAL, **left), "right": replace(IDEAL, **right), "both": IDEAL}
    return autopsy(graph, spikes, profiles, delta_t=DELTA_T, duration=DURATION, **options)


def test_a_thousand_planted_faults_get_their_causes() -> None:
    found = []
    for seed, (left, right) in enumerate(combinations(FAULTS, 2)):
        graph, spikes = forked(seed)
        clock = simulate(graph, spikes, IDEAL, delta_t=DELTA_T, duration=DURATION)
        changes = examined(graph, spikes, FAULTS[left], FAULTS[right], exact=clock).changes
        truth = changes["population"].map({"left": left, "right": right, "both": "upstream"})
        found.append(changes.assign(truth=truth, run=seed))
    table = pd.concat(found)
    faults = table[table["population"] != "both"].groupby(["run", "population", "sample"]).size()
    assert len(faults) > 1000
    assert set(table["truth"]) == {*FAULTS, "upstream"}
    right_cause = table["cause"] == table["truth"]
    assert right_cause.mean() >= 0.99
    assert right_cause.groupby(table["truth"]).mean().min() >= 0.97


def test_what_the_best_clock_cannot_keep_is_rounding_of_time() -> None:
    graph, spikes = forked(0)
    late = replace(spikes, times=spikes.times + 0.6 * DELTA_T)
    changes = examined(graph, late, {}, {}).changes
    first = changes[changes["population"] != "both"]
    assert len(first) > 50
    assert set(first["cause"]) == {"rounding of time"}
    assert set(changes["cause"]) == {"rounding of time", "upstream"}


def test_identical_runs_have_no_changes_and_all_spikes_kept() -> None:
    graph, spikes = forked(1)
    clock = simulate(graph, spikes, IDEAL, delta_t=DELTA_T, duration=DURATION)
    found = examined(graph, spikes, {}, {}, exact=clock)
    assert found.changes.empty
    assert found.kept == {name: len(trains.times) for name, trains in clock.spikes.items()}
    assert found.table().empty


@pytest.mark.parametrize("name", [name for name in PLATFORMS if name not in ("exact", "ideal")])
def test_recorded_traces_are_explained(name: str) -> None:
    steps = {"lava_fixed": 1 / 256, "loihi": 1 / 256, "spinnaker2": 0.04 / 102.02}
    neuron = Population("lif", 1, np.float32(0.0025), threshold=np.float32(0.1), kick=0.04, reset="subtract")
    graph = Graph(1, [neuron], [Connection(INPUT, "lif", np.array([[1.0]]))], pulse=1e-4)
    inputs, recorded = (Spikes.from_padded(TRACES[key][None, None] * 1e-4) for key in ("inputs", f"{name}_spikes"))
    profile = replace(profile_named(name), step=steps.get(name))
    found = autopsy(graph, inputs, profile, delta_t=1e-4, duration=0.1, recorded={"lif": recorded})
    expected = {"sinabs": ["decay"] * 2, "rockpool": ["decay"] * 2, "spyx": ["threshold test order"] * 4}
    expected |= {lava: ["tick of delay"] * 4 for lava in ("lava_float", "lava_fixed", "loihi")}
    assert found.changes["cause"].tolist() == expected.get(name, [])
    assert found.kept["lif"] + len(found.changes) == 4


def test_spike_that_no_property_gives_is_not_in_the_profile() -> None:
    graph, spikes = forked(2)
    clock = simulate(graph, spikes, IDEAL, delta_t=DELTA_T, duration=DURATION)
    extra = Spikes.from_padded(np.full((60, 8, 1), 0.0595))
    changes = examined(graph, spikes, {}, {}, exact=clock, recorded={"left": extra}).changes
    assert set(changes["cause"]) == {"not in the profile"}
    assert set(changes["cause"]) <= set(CAUSES)


def test_continuous_time_is_no_platform_to_examine() -> None:
    graph, spikes = forked(3)
    with pytest.raises(ValueError, match="'exact'"):
        autopsy(graph, spikes, "exact", delta_t=DELTA_T, duration=DURATION)
