import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from runs import make_run

import bats_lab
from bats_lab.runs.files import save_run
from bats_lab.runs.results import open_results
from bats_lab.spikes.grid import GRID_TOLERANCE
from bats_lab.studies.chip.energy import (
    CMOS_45NM,
    HARDWARE,
    NO_ENERGY,
    Hardware,
    active_share,
    costs,
    dense_operations,
    energy,
    energy_table,
    neuron_updates_clocked,
)

JOULES = ("synapses", "updates_event_driven", "updates_clocked", "event_driven", "clocked")
OPERATIONS = ("operations_event_driven", "operations_clocked")
RESULTS = Path(__file__).parent.parent / "results" / "thesis_mnist"

names = st.sampled_from(sorted(HARDWARE))
numbers = st.floats(0, 1e7)


def counts(synaptic_events, neuron_updates):
    return xr.Dataset({"synaptic_events": synaptic_events, "neuron_updates": neuron_updates})


def picojoules(dataset):
    return {name: dataset[name].item() * 1e12 for name in JOULES}


# The table


def test_energies_are_those_of_the_publications():
    def cited(name):
        h = HARDWARE[name]
        return (h.synaptic_event, h.neuron_update, h.idle_update, h.relative_update)

    # Davies et al. 2018: 23.6 pJ per synaptic operation (minimum), 81 and 52 pJ per active and inactive neuron update.
    assert cited("Loihi") == (23.6e-12, 81e-12, 52e-12, None)
    # Timcheck et al. 2023: SynOPS + 10 NeuronOPS, and no energies.
    assert cited("Loihi 2") == (None, None, None, 10)
    # Merolla et al. 2014: 26 pJ per synaptic event, everything included.
    assert cited("TrueNorth") == (26e-12, None, None, None)
    # Höppner et al. 2019: 450 pJ per synaptic event, 2.19 nJ per neuron update.
    assert cited("SpiNNaker 2") == (450e-12, 2.19e-9, None, None)
    # Horowitz 2014, by operation: an add; two multiplications and an add.
    assert cited("45 nm CMOS") == (0.9e-12, pytest.approx(8.3e-12), None, None)
    assert set(HARDWARE) == {"Loihi", "Loihi 2", "TrueNorth", "SpiNNaker 2", "45 nm CMOS"}


def test_operations_in_45_nm_are_those_of_horowitz():
    assert CMOS_45NM["float32 add"] == 0.9e-12 and CMOS_45NM["float32 multiply"] == 3.7e-12
    assert CMOS_45NM["float32 multiply-add"] == 4.6e-12
    assert CMOS_45NM["int8 add"] == 0.03e-12 and CMOS_45NM["int8 multiply"] == 0.2e-12
    assert CMOS_45NM["8 KB SRAM read, 64 bit"] == 10e-12


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("Loihi", r"Davies.*2018.*IEEE Micro 38\(1\)"),
        ("Loihi 2", r"Timcheck.*2023.*Neuromorphic Computing and Engineering 3\(3\), 034005"),
        ("TrueNorth", r"Merolla.*2014.*Science 345"),
        ("SpiNNaker 2", r"Höppner.*2019.*IEEE Transactions on Circuits and Systems I 66\(8\).*1903\.08941"),
        ("45 nm CMOS", r"Horowitz.*2014.*ISSCC"),
    ],
)
def test_each_row_says_where_it_is_from(name, source):
    assert HARDWARE[name].name == name
    assert energy_table().source.str.contains(source, regex=True).to_dict() == {n: n == name for n in HARDWARE}


def test_table_says_what_is_included_and_what_is_not_published():
    table = energy_table()
    assert table.loc["Loihi", ["synaptic_event", "neuron_update", "idle_update"]].tolist() == [
        "23.6 pJ",
        "81 pJ",
        "52 pJ",
    ]
    assert table.neuron_update["TrueNorth"] == "in the synaptic event"
    assert table.idle_update["SpiNNaker 2"] == table.neuron_update["SpiNNaker 2"] == "2190 pJ"
    assert table.loc["Loihi 2", ["synaptic_event", "neuron_update", "idle_update"]].tolist() == [NO_ENERGY] * 3
    assert table.relative_update["Loihi 2"] == "10 synaptic events"
    assert "no memory access" in table.note["45 nm CMOS"]


# Counting


@given(st.integers(1, 10_000), st.integers(1, 1000), st.floats(1e-3, 10))
def test_a_clock_updates_every_neuron_on_every_tick(n_ticks, size, duration):
    assert neuron_updates_clocked(size, duration, duration / n_ticks) == size * n_ticks


def test_a_tick_that_does_not_fit_is_not_counted():
    assert neuron_updates_clocked(10, duration=0.2, delta_t=0.003) == 660
    # As the engine counts: within a millionth of a tick is on it.
    assert neuron_updates_clocked(1, duration=10 - 0.5 * GRID_TOLERANCE, delta_t=1.0) == 10
    assert neuron_updates_clocked(1, duration=10 - 2 * GRID_TOLERANCE, delta_t=1.0) == 9


def test_counts_broadcast():
    table = neuron_updates_clocked([800, 10], 0.2, [[0.1], [0.05]])
    np.testing.assert_array_equal(table, [[1600, 20], [3200, 40]])
    size, step = xr.DataArray([800, 10], dims="layer"), xr.DataArray([0.1, math.nan], dims="delta_t")
    named = neuron_updates_clocked(size, 0.2, step)
    assert named.dims == ("layer", "delta_t")
    np.testing.assert_array_equal(named, [[1600, math.nan], [20, math.nan]])


@pytest.mark.parametrize(
    ("delta_t", "value"),
    [
        (0, r"0\.0"),
        (-0.001, r"-0\.001"),
        ([0.001, -0.002], r"-0\.002"),
        (xr.DataArray([0.0, 0.001], dims="delta_t"), r"0\.0"),
    ],
)
def test_time_without_ticks_is_refused(delta_t, value):
    for count in (lambda: neuron_updates_clocked(1, 0.2, delta_t), lambda: active_share(1, 1, 0.2, delta_t)):
        with pytest.raises(ValueError, match=rf"^delta_t is {value}; it must be above 0"):
            count()


def test_active_share_is_spikes_per_neuron_and_tick():
    assert active_share(50, layer_size=100, duration=0.2, delta_t=0.01) == 50 / (100 * 20)


@given(st.integers(1, 10_000), st.integers(1, 1000), st.integers(1, 1000))
def test_active_share_of_the_same_spikes_halves_with_the_time_step(spikes, size, n_ticks):
    coarse = active_share(spikes, size, 0.2, 0.2 / n_ticks)
    assert active_share(spikes, size, 0.2, 0.1 / n_ticks) == pytest.approx(coarse / 2) != coarse


@given(st.lists(st.integers(1, 50), min_size=2, max_size=5))
def test_a_dense_network_does_one_multiply_add_a_weight(sizes):
    weights = [np.zeros((post, pre)) for pre, post in itertools.pairwise(sizes)]
    assert dense_operations(sizes) == sum(w.size for w in weights)


def test_a_network_without_layers_is_refused():
    with pytest.raises(ValueError, match=r"sizes is \[784\]; it must have the inputs and at least one layer"):
        dense_operations([784])


# Energy


def test_loihi_by_hand():
    # 100 events at 23.6 pJ; updates at 81 pJ, one an event; of 250 clocked ones 150 are idle, at 52 pJ.
    assert picojoules(energy(counts(100, 250), HARDWARE["Loihi"])) == pytest.approx(
        {
            "synapses": 2360,
            "updates_event_driven": 8100,
            "updates_clocked": 8100 + 7800,
            "event_driven": 2360 + 8100,
            "clocked": 2360 + 8100 + 7800,
        }
    )


def test_with_more_events_than_updates_no_update_is_idle():
    spent = picojoules(energy(counts(100, 30), HARDWARE["Loihi"]))
    assert spent["updates_clocked"] == pytest.approx(30 * 81)
    assert spent["updates_event_driven"] == pytest.approx(100 * 81)


def test_truenorth_pays_updates_with_the_events():
    assert picojoules(energy(counts(100, 250), HARDWARE["TrueNorth"])) == pytest.approx(
        {"synapses": 2600, "updates_event_driven": 0, "updates_clocked": 0, "event_driven": 2600, "clocked": 2600}
    )


def test_chips_without_a_price_of_idling_pay_each_update_in_full():
    spent = picojoules(energy(counts(100, 250), HARDWARE["SpiNNaker 2"]))
    assert (spent["event_driven"], spent["clocked"]) == pytest.approx((100 * 2640, 100 * 450 + 250 * 2190))
    spent = picojoules(energy(counts(100, 250), HARDWARE["45 nm CMOS"]))
    assert (spent["event_driven"], spent["clocked"]) == pytest.approx((100 * 9.2, 100 * 0.9 + 250 * 8.3))


@given(numbers, numbers)
def test_loihi_2_has_operations_and_never_joules(events, updates):
    counted = energy(counts(events, updates), HARDWARE["Loihi 2"])
    assert all(np.isnan(counted[name]) for name in JOULES)
    assert counted.operations_event_driven.item() == pytest.approx(11 * events)
    assert counted.operations_clocked.item() == pytest.approx(events + 10 * updates)


@given(names.filter(lambda name: name != "Loihi 2"), numbers, numbers)
def test_all_other_hardware_has_joules_and_no_made_up_relation(name, events, updates):
    spent = energy(counts(events, updates), HARDWARE[name])
    assert all(spent[joules] >= 0 for joules in JOULES)
    assert all(np.isnan(spent[operations]) for operations in OPERATIONS)


@given(st.sampled_from(["Loihi", "SpiNNaker 2", "45 nm CMOS"]), numbers, st.integers(1, 1000), st.integers(1, 100))
def test_a_finer_clock_costs_more_and_events_stay_as_they_are(name, events, n_ticks, size):
    coarse, fine = (
        energy(counts(events, neuron_updates_clocked(size, 0.2, delta_t)), HARDWARE[name])
        for delta_t in (0.2 / n_ticks, 0.1 / n_ticks)
    )
    assert fine.updates_clocked > coarse.updates_clocked
    assert fine.event_driven == coarse.event_driven


@given(names, numbers)
def test_continuous_time_has_no_clocked_cost(name, events):
    spent = energy(counts(events, math.nan), HARDWARE[name])
    assert all(np.isnan(spent[kind]) for kind in ("updates_clocked", "clocked", "operations_clocked"))
    assert np.isnan(spent.event_driven) == (name == "Loihi 2")


@given(numbers, numbers)
def test_an_idle_price_never_costs_more_than_activity_nor_less_than_idling(events, updates):
    spent = energy(counts(events, updates), HARDWARE["Loihi"]).updates_clocked.item()
    assert 52e-12 * updates * (1 - 1e-12) <= spent <= 81e-12 * updates * (1 + 1e-12)


def test_missing_counts_are_named():
    with pytest.raises(ValueError, match="counts lacks neuron_updates; it must have synaptic_events, neuron_updates"):
        energy(xr.Dataset({"synaptic_events": 1.0}), HARDWARE["Loihi"])


# Results


def test_costs_of_one_run_by_hand():
    run = make_run(delta_t=0.01)  # 12-6-3, 0.2 s
    last = run.isel(epoch=-1).squeeze()
    events = last.synaptic_events.values
    found = costs(run, n_inputs=12).squeeze()
    assert found.synaptic_events.item() == pytest.approx(events.sum())
    assert found.neuron_updates.item() == 9 * 20
    assert found.active_share.item() == pytest.approx(last.spike_count.sel(split="test").sum().item() / 180)
    assert found.dense_operations.item() == 12 * 6 + 6 * 3
    assert found.dense.item() == pytest.approx(90 * 4.6e-12)
    assert found.hardware.values.tolist() == list(HARDWARE)
    # Idle updates are told apart in each layer, not in all together.
    active = np.minimum(events, [120, 60]).sum()
    loihi = 23.6 * events.sum() + 81 * active + 52 * (180 - active)
    assert found.clocked.sel(hardware="Loihi").item() == pytest.approx(loihi * 1e-12)
    assert found.operations_clocked.sel(hardware="Loihi 2").item() == pytest.approx(events.sum() + 1800)


def test_costs_of_runs_of_different_time_steps_windows_and_depths(tmp_path):
    deep = {"hidden": (6, 4), "threshold_hidden": (0.2, 0.2), "max_spikes_hidden": (30, 30)}
    for changes in ({}, {"delta_t": 0.0}, {"duration": 0.4}, deep):
        save_run(make_run(**{"delta_t": 0.01} | changes), tmp_path)
    found = costs(open_results(tmp_path), n_inputs=12).squeeze()
    shallow, deep = (found.sel(hidden=text) for text in ("6", "6, 4"))
    updates = shallow.neuron_updates.sel(delta_t=0.01)
    assert updates.sel(duration=0.2).item() == 9 * 20 and updates.sel(duration=0.4).item() == 9 * 40
    assert deep.neuron_updates.sel(delta_t=0.01, duration=0.2).item() == 13 * 20
    assert shallow.dense_operations.sel(delta_t=0.01, duration=0.2).item() == 90
    assert deep.dense_operations.sel(delta_t=0.01, duration=0.2).item() == 12 * 6 + 6 * 4 + 4 * 3
    continuous = shallow.sel(delta_t=0, duration=0.2)
    assert np.isnan(continuous.clocked).all() and np.isnan([continuous.neuron_updates, continuous.active_share]).all()
    assert (continuous.event_driven > 0).sum() == 4
    missing = deep.sel(delta_t=0, duration=0.4)
    assert all(np.isnan(missing[name]).all() for name in missing.data_vars)


def test_costs_on_hardware_of_ones_own():
    own = Hardware(name="own", synaptic_event=1.0, neuron_update=2.0, source="here", note="made up")
    run = make_run(delta_t=0.01)
    found = costs(run, n_inputs=12, hardware={"mine": own})
    events = run.synaptic_events.isel(epoch=-1).sum().item()
    assert found.hardware.values.tolist() == ["mine"]
    assert found.clocked.item() == pytest.approx(events + 2 * 180)
    assert energy_table({"mine": own}).index.tolist() == ["mine"]


def test_what_costs_cannot_do_is_said():
    run = make_run(delta_t=0.01)
    with pytest.raises(ValueError, match="n_inputs is 0; it must be at least 1"):
        costs(run, n_inputs=0)
    with pytest.raises(ValueError, match="hardware is empty"):
        costs(run, n_inputs=12, hardware={})
    with pytest.raises(ValueError, match="results lacks layer_size, config; it must have accuracy"):
        costs(run.drop_vars(["layer_size", "config"]), n_inputs=12)


def test_every_cost_has_units_and_a_name():
    found = costs(make_run(delta_t=0.01), n_inputs=12)
    for name, variable in found.variables.items():
        assert variable.attrs["units"] and variable.attrs["long_name"], name
    assert {found[name].attrs["units"] for name in (*JOULES, "dense")} == {"J"}


def test_costs_of_the_shipped_results():
    found = costs(bats_lab.open_results(RESULTS, large=False), n_inputs=784).sel(seed=0)
    one = found.sel(delta_t=0.001)
    # MNIST: 784-800-10, 0.2 s; some 151 input spikes a sample and 429 of the hidden layer.
    assert one.neuron_updates.item() == 810 * 200
    assert one.synaptic_events.item() == pytest.approx(151.12 * 800 + 429.38 * 10, rel=1e-4)
    assert one.dense_operations.item() == 635_200
    loihi = one.sel(hardware="Loihi")
    assert loihi.synapses.item() == pytest.approx(125_191 * 23.6e-12, rel=1e-5)
    # The output layer gets 4294 events in 2000 updates, the hidden layer 120,898 in 160,000.
    assert loihi.updates_clocked.item() == pytest.approx(
        (120_898 + 2000) * 81e-12 + (160_000 - 120_898) * 52e-12, rel=1e-5
    )
    assert not found.published.sel(hardware="Loihi 2") and found.clocked.sel(hardware="Loihi 2").isnull().all()
    assert found.published.sum() == 4 and found.clocked.notnull().sum() == 4 * 11
    # A finer clock costs more, whatever the network does; of events only the network decides.
    clocked = found.clocked.sel(hardware=["Loihi", "SpiNNaker 2", "45 nm CMOS"])
    assert (clocked.diff("delta_t") < 0).all()
    per_event = found.event_driven.sel(hardware="Loihi") / found.synaptic_events
    np.testing.assert_allclose(per_event, 23.6e-12 + 81e-12)
