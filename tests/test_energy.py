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
from bats_lab.studies.chip.deployment import open_deployments
from bats_lab.studies.chip.energy import (
    PACES,
    TERMS,
    active_share,
    costs,
    dense_energy,
    dense_operations,
    deployment_costs,
    energy,
    memory_access,
    neuron_updates_clocked,
)
from bats_lab.studies.chip.prices import CMOS_45NM, HARDWARE, NO_ENERGY, SOURCES, Hardware, Price, energy_table

JOULES = (*TERMS, "leakage_real_time", "leakage_fast", *PACES)
RESULTS = Path(__file__).parent.parent / "results"
LOIHIS = ["Loihi", "Loihi (SANA-FE)"]

names = st.sampled_from(sorted(HARDWARE))
numbers = st.floats(0, 1e7)


def counts(events=(100.0,), *, sizes=(50,), n_inputs=20, ticks=10.0, step=0.01, bits=8, sent=(7.0,)):
    """Counts of a network of one layer or more."""
    events, size = np.array(events, float), np.array(sizes, float)
    return xr.Dataset(
        {
            "synaptic_events": ("layer", events),
            "spikes_in": ("layer", events / size),
            "spikes_out": ("layer", np.array(sent, float)),
            "layer_size": ("layer", size),
            "weights": ("layer", size * np.array([n_inputs, *sizes[:-1]])),
            "ticks": ticks,
            "seconds": ticks * step,
            "bits": bits,
        }
    )


def picojoules(dataset):
    return {name: 1e12 * dataset[name].item() for name in JOULES}


# The table


def test_energies_are_those_of_the_publications():
    def cited(name, *prices):
        return [getattr(HARDWARE[name], price) and getattr(HARDWARE[name], price).value for price in prices]

    # Davies et al. 2018, Table 2: 23.6 pJ per synaptic operation (minimum), 81 and 52 pJ per active and inactive neuron
    # update; 1.7 pJ within a tile, 3.0 and 4.0 pJ a hop; 3.5 ns, 8.4 ns, and 113 to 465 ns for the barrier.
    assert cited("Loihi", "synaptic_event", "neuron_update", "idle_update") == [23.6e-12, 81e-12, 52e-12]
    assert cited("Loihi", "message") == [pytest.approx(1.7e-12 + (3.0e-12 + 4.0e-12) / 2)]
    assert cited("Loihi", "event_time", "update_time", "barrier_time") == [3.5e-9, 8.4e-9, 465e-9]
    # Blouw et al. 2019: a chip of 128 cores idles at 29 mW.
    assert 128 * cited("Loihi", "static_power")[0] == pytest.approx(0.029)
    # Timcheck et al. 2023: SynOPS + 10 NeuronOPS, and no energies.
    assert HARDWARE["Loihi 2"].relative_update == 10 and not list(HARDWARE["Loihi 2"].prices())
    # Höppner et al. 2019: 450 pJ per synaptic event, 2.19 nJ per neuron update; elsewhere 10 pJ.
    assert cited("SpiNNaker 2 prototype", "synaptic_event", "neuron_update") == [450e-12, 2.19e-9]
    assert cited("SpiNNaker 2", "synaptic_event") == [10e-12]
    assert set(HARDWARE) == {*LOIHIS, "Loihi 2", "SpiNNaker 2 prototype", "SpiNNaker 2", "45 nm CMOS"}


def test_operations_in_45_nm_are_those_of_horowitz():
    assert CMOS_45NM["float32 add"] == 0.9e-12 and CMOS_45NM["float32 multiply"] == 3.7e-12
    assert CMOS_45NM["float32 multiply-add"] == 4.6e-12
    assert CMOS_45NM["int8 add"] == 0.03e-12 and CMOS_45NM["int8 multiply"] == 0.2e-12
    assert CMOS_45NM["int32 add"] == 0.1e-12 and CMOS_45NM["int32 multiply"] == 3.1e-12
    assert [CMOS_45NM[f"{size} SRAM read, 64 bit"] for size in ("8 KB", "32 KB", "1 MB")] == [10e-12, 20e-12, 100e-12]


def test_each_price_says_where_it_is_from_and_how_it_is_known():
    known = {(name, of): price for name, each in HARDWARE.items() for of, price in each.prices()}
    assert {price.how for price in known.values()} <= {"measured", "simulated", "derived", "assumed"}
    assert all(price.source in SOURCES for price in known.values())
    # What the paper of 2018 has per operation is simulated, and only a whole chip's power was measured.
    assert {price.how for (name, of), price in known.items() if name in LOIHIS} == {"simulated", "derived", "measured"}
    assert known["Loihi", "synaptic_event"].how == "simulated" and known["Loihi", "static_power"].how == "measured"
    assert known["45 nm CMOS", "static_power"].how == "assumed"
    table = energy_table()
    assert len(table) == len(known) + 1
    loihi = table[table.hardware == "Loihi"].set_index("of")
    assert loihi.price[["synaptic event", "static power", "barrier time"]].tolist() == ["23.6 pJ", "0.227 mW", "465 ns"]
    assert loihi.source["neuron update"].startswith("M. Davies et al. (2018)")
    assert table[table.hardware == "Loihi 2"][["price", "how"]].values.tolist() == [["10 synaptic events", NO_ENERGY]]


def test_each_hardware_is_named_by_its_key():
    assert all(each.name == name and each.note for name, each in HARDWARE.items())


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


# Memory and the dense network


@pytest.mark.parametrize(
    ("n_bytes", "bits", "joules"),
    [(8 * 2**10, 64, 10e-12), (100, 64, 10e-12), (32 * 2**10, 8, 2.5e-12), (2**20, 4, 6.25e-12), (2**30, 64, 100e-12)],
)
def test_access_to_memory_is_paid_by_word_and_size(n_bytes, bits, joules):
    assert memory_access(n_bytes, bits) == pytest.approx(joules)


@given(st.floats(1, 1e8), st.floats(1, 1e8), st.integers(1, 64))
def test_a_larger_memory_never_costs_less(a, b, bits):
    low, high = sorted((a, b))
    assert memory_access(low, bits) <= memory_access(high, bits) * (1 + 1e-12)


def test_dense_network_by_hand():
    # 1000 weights of 8 bits and activations of 8 bits, each in 8 KB: 2 × 1.25 pJ, and 0.3 pJ of arithmetic.
    assert dense_energy(1000, 50, 8) == pytest.approx(1000 * (0.2 + 0.1 + 1.25 + 1.25) * 1e-12)
    # Floats: 2 × 5 pJ and 4.6 pJ.
    assert dense_energy(1000, 50, 32) == pytest.approx(1000 * (4.6 + 5 + 5) * 1e-12)


@given(st.integers(1, 10**6), st.integers(2, 15))
def test_a_shorter_word_never_costs_more(operations, bits):
    assert dense_energy(operations, 100, bits) < dense_energy(operations, 100, bits + 1)


# Energy


def test_loihi_by_hand():
    # 100 events at 23.6 pJ; 50 neurons on 10 ticks at 81 pJ; 2 spikes come in, each to one core, at 5.2 pJ.
    spent = picojoules(energy(counts(), HARDWARE["Loihi"]))
    assert spent["synapses"] == pytest.approx(2360) and spent["updates"] == pytest.approx(500 * 81)
    assert spent["inputs"] == pytest.approx(2 * 5.2) and spent["routing"] == spent["memory"] == 0
    assert spent["barrier"] == pytest.approx(10 * 2 * 5.2)
    assert spent["dynamic"] == pytest.approx(sum(spent[name] for name in TERMS))
    # A 128th of 29 mW for 0.1 s; at full speed 100 × 3.5 + 500 × 8.4 ns and ten barriers of 465 ns.
    assert spent["leakage_real_time"] == pytest.approx(1e12 * 0.029 / 128 * 0.1)
    assert spent["leakage_fast"] == pytest.approx(1e12 * 0.029 / 128 * (350e-9 + 4200e-9 + 4650e-9))
    assert all(spent[p] == pytest.approx(spent["dynamic"] + spent[f"leakage_{p}"]) for p in ("real_time", "fast"))


def test_layers_take_the_cores_that_hold_their_neurons_and_words():
    # 1500 neurons need two cores; 2000 × 1500 words of 8 bits need 23 of 128 KB, of 4 bits 12.
    for bits, cores in ((8, 23), (4, 12)):
        spent = energy(counts(sizes=(1500,), n_inputs=2000, bits=bits), HARDWARE["Loihi"])
        assert spent["leakage_real_time"].item() == pytest.approx(cores * 0.029 / 128 * 0.1)
        assert spent["barrier"].item() == pytest.approx(10 * cores * 10.4e-12)
    two = energy(counts(sizes=(1500,), n_inputs=1), HARDWARE["Loihi"])
    assert two["leakage_real_time"].item() == pytest.approx(2 * 0.029 / 128 * 0.1)


def test_spikes_between_layers_are_routed_and_those_of_inputs_are_delivered():
    here = counts(events=(100.0, 30.0), sizes=(50, 10), sent=(3.0, 2.0))
    spent = picojoules(energy(here, HARDWARE["Loihi (SANA-FE)"]))
    assert spent["inputs"] == pytest.approx(2 * 114.6)
    assert spent["routing"] == pytest.approx(3 * 114.6 + 5 * 69.3)


def test_what_is_not_published_is_not_in_the_sum_and_without_leakage_there_is_no_sum_with_it():
    spent = picojoules(energy(counts(), HARDWARE["SpiNNaker 2 prototype"]))
    assert spent["dynamic"] == pytest.approx(100 * 450 + 500 * 2190)
    assert math.isnan(spent["real_time"]) and math.isnan(spent["fast"])
    assert picojoules(energy(counts(), HARDWARE["SpiNNaker 2"]))["dynamic"] == pytest.approx(100 * 10 + 500 * 2190)


def test_45_nm_by_hand():
    # All in 8 KB: a weight of 8 bits 1.25 pJ, a state of 32 bits 5 pJ, twice an event and four times an update.
    spent = picojoules(energy(counts(), HARDWARE["45 nm CMOS"]))
    assert spent["synapses"] == pytest.approx(100 * 0.1) and spent["updates"] == pytest.approx(
        500 * (2 * 3.1 + 2 * 0.1)
    )
    assert spent["memory"] == pytest.approx(100 * (1.25 + 2 * 5) + 500 * 4 * 5)
    assert spent["leakage_real_time"] == pytest.approx(1e12 * 1e-3 * 0.1) and math.isnan(spent["fast"])
    floats = picojoules(energy(counts(bits=32), HARDWARE["45 nm CMOS"]))
    assert floats["synapses"] == pytest.approx(100 * 0.9) and floats["memory"] == pytest.approx(100 * 15 + 500 * 20)


@given(numbers, numbers)
def test_loihi_2_has_operations_and_never_joules(events, ticks):
    counted = energy(counts(events=(events,), ticks=ticks), HARDWARE["Loihi 2"])
    assert all(np.isnan(counted[name]) for name in (*PACES, "synapses"))
    assert counted.operations.item() == pytest.approx(events + 10 * 50 * ticks)


@given(names.filter(lambda name: name != "Loihi 2"), numbers, st.integers(1, 1000))
def test_all_other_hardware_has_joules_and_no_made_up_relation(name, events, ticks):
    spent = energy(counts(events=(events,), ticks=float(ticks)), HARDWARE[name])
    assert all(spent[term] >= 0 for term in TERMS) and np.isnan(spent.operations)


@given(names.filter(lambda name: name != "Loihi 2"), numbers, st.integers(1, 1000))
def test_a_finer_clock_costs_more_updates_and_events_stay_as_they_are(name, events, ticks):
    coarse, fine = (
        energy(counts(events=(events,), ticks=float(n), step=0.2 / n), HARDWARE[name]) for n in (ticks, 2 * ticks)
    )
    assert fine.updates > coarse.updates and fine.synapses == coarse.synapses and fine.dynamic > coarse.dynamic


@given(names, numbers)
def test_without_a_clock_nothing_has_a_price(name, events):
    spent = energy(counts(events=(events,), ticks=math.nan), HARDWARE[name])
    assert all(np.isnan(spent[kind]) for kind in (*PACES, "updates", "inputs", "operations"))


@pytest.mark.parametrize("name", LOIHIS)
def test_a_word_that_a_chip_has_not_has_no_price(name):
    spent = energy(counts().drop_vars("bits").assign(bits=("bits", [2, 9, 10, 32])), HARDWARE[name])
    assert spent.real_time.isnull().values.tolist() == [False, False, True, True]


def test_missing_counts_are_named():
    with pytest.raises(ValueError, match="counts lacks spikes_in, spikes_out, layer_size, weights, ticks, bits"):
        energy(xr.Dataset({"synaptic_events": 1.0}), HARDWARE["Loihi"])


# Results


def test_costs_of_one_run_by_hand():
    run = make_run(delta_t=0.01, rule="clocked")  # 12-6-3, 0.2 s
    last = run.isel(epoch=-1).squeeze()
    events = last.synaptic_events.values
    found = costs(run, n_inputs=12).squeeze()
    assert found.synaptic_events.item() == pytest.approx(events.sum())
    assert found.active_share.item() == pytest.approx(last.spike_count.sel(split="test").sum().item() / 180)
    assert found.dense_operations.item() == 12 * 6 + 6 * 3
    assert found.dense.item() == pytest.approx(float(dense_energy(90, 21, 32)))
    assert found.hardware.values.tolist() == list(HARDWARE)
    # Twenty ticks, and one on which the last spikes come.
    prototype = found.sel(hardware="SpiNNaker 2 prototype")
    assert prototype.dynamic.item() == pytest.approx(450e-12 * events.sum() + 2.19e-9 * 9 * 21)
    assert found.operations.sel(hardware="Loihi 2").item() == pytest.approx(events.sum() + 10 * 9 * 21)
    assert found.event_share.item() == pytest.approx(events.sum() / (90 * 21))
    assert found.input_share.item() == pytest.approx(events[0] / events.sum())
    assert found.real_time.sel(hardware="Loihi").isnull()  # it has no words of 32 bits


@pytest.mark.parametrize("rule", ["drop", "merge", "defer", "graded"])
def test_rules_that_need_exact_crossings_have_counts_and_no_price(rule):
    found = costs(make_run(delta_t=0.01, rule=rule), n_inputs=12)
    assert all(found[name].isnull().all() for name in (*PACES, "updates", "operations", "crossover"))
    assert (found.synaptic_events > 0).all() and (found.event_share > 0).all()


def test_costs_of_runs_of_different_time_steps_windows_and_depths(tmp_path):
    deep = {"hidden": (6, 4), "threshold_hidden": (0.2, 0.2), "max_spikes_hidden": (30, 30)}
    for changes in ({}, {"rule": "drop", "delta_t": 0.0}, {"duration": 0.4}, deep):
        save_run(make_run(**{"delta_t": 0.01, "rule": "clocked"} | changes), tmp_path)
    found = costs(open_results(tmp_path), n_inputs=12).squeeze()
    shallow, deep = (found.sel(hidden=text, rule="clocked") for text in ("6", "6, 4"))
    spinnaker = shallow.updates.sel(delta_t=0.01, hardware="SpiNNaker 2") / 2.19e-9
    assert spinnaker.sel(duration=0.2).item() == pytest.approx(9 * 21)
    assert spinnaker.sel(duration=0.4).item() == pytest.approx(9 * 41)
    here = deep.sel(delta_t=0.01, duration=0.2)
    assert here.updates.sel(hardware="SpiNNaker 2").item() == pytest.approx(2.19e-9 * 13 * 21)
    assert shallow.dense_operations.sel(delta_t=0.01, duration=0.2).item() == 90
    assert here.dense_operations.item() == 12 * 6 + 6 * 4 + 4 * 3
    continuous = found.sel(hidden="6", rule="drop", delta_t=0, duration=0.2)
    assert np.isnan(continuous.dynamic).all() and np.isnan(continuous.active_share)
    assert continuous.synaptic_events > 0
    missing = deep.sel(delta_t=0, duration=0.4)
    assert all(np.isnan(missing[name]).all() for name in (*PACES, "synaptic_events", "dense_operations"))


def test_costs_on_hardware_of_ones_own():
    one = Price(1.0, "assumed", "Davies 2018")
    own = Hardware(name="own", synaptic_event=one, neuron_update=Price(2.0, "assumed", "Davies 2018"), note="made up")
    run = make_run(delta_t=0.01, rule="clocked")
    found = costs(run, n_inputs=12, hardware={"mine": own})
    events = run.synaptic_events.isel(epoch=-1).sum().item()
    assert found.hardware.values.tolist() == ["mine"]
    assert found.dynamic.item() == pytest.approx(events + 2 * 9 * 21)
    assert energy_table({"mine": own})["source"].tolist() == ["", ""]


def test_what_costs_cannot_do_is_said():
    run = make_run(delta_t=0.01)
    with pytest.raises(ValueError, match="n_inputs is 0; it must be at least 1"):
        costs(run, n_inputs=0)
    with pytest.raises(ValueError, match="hardware is empty"):
        costs(run, n_inputs=12, hardware={})
    with pytest.raises(ValueError, match="results lacks layer_size, config; it must have accuracy"):
        costs(run.drop_vars(["layer_size", "config"]), n_inputs=12)


def test_every_cost_has_units_and_a_name():
    found = costs(make_run(delta_t=0.01, rule="clocked"), n_inputs=12)
    for name, variable in found.variables.items():
        assert variable.attrs["units"] and variable.attrs["long_name"], name
    assert {found[name].attrs["units"] for name in (*JOULES, "dense")} == {"J"}


def test_costs_of_shipped_runs_of_the_thesis_are_counts():
    found = costs(bats_lab.open_results(RESULTS / "thesis_mnist", large=False), n_inputs=784).sel(seed=0)
    one = found.sel(delta_t=0.001)
    # MNIST: 784-800-10, 0.2 s; some 151 input spikes a sample and 429 of the hidden layer.
    assert one.synaptic_events.item() == pytest.approx(151.12 * 800 + 429.38 * 10, rel=1e-4)
    assert one.dense_operations.item() == 635_200
    assert one.input_share.item() == pytest.approx(0.966, abs=1e-3)
    assert found.dynamic.isnull().all()  # rule drop


def test_crossover_is_where_both_networks_take_the_same():
    deployment = open_deployments(RESULTS / "thesis_chip")["mnist"].sel(rule="clocked", split="test", seed=0)
    found = deployment_costs(deployment).sel(hardware="45 nm CMOS")
    for bits, step in ((8, 0.002), (4, 0.02), (2, 0.03)):
        # The same network with as many events as the crossover has: its sum is that of the dense one.
        one = found.sel(bits=bits, delta_t=step)
        busier = deployment.sel(bits=[bits], delta_t=[step])
        factor = (one.crossover / one.event_share).item()
        scaled = busier.assign(synaptic_events=factor * busier.synaptic_events, spike_count=factor * busier.spike_count)
        same = deployment_costs(scaled.expand_dims(rule=["clocked"])).squeeze()
        assert same.dynamic.sel(hardware="45 nm CMOS").item() == pytest.approx(one.dense.item(), rel=1e-9)
        assert (one.dynamic < one.dense) == (one.event_share < one.crossover)


def test_energies_of_a_shipped_deployment_are_computed_when_it_is_opened():
    found = deployment_costs(open_deployments(RESULTS / "thesis_chip")["mnist"]).sel(split="test").mean("seed")
    clocked = found.sel(rule="clocked", bits=8, hardware="Loihi")
    # Leakage is most of it, more than sixty times what the chip does at 20 ms; and it hardly depends on the clock.
    assert clocked.leakage_real_time.sel(delta_t=0.02) > 60 * clocked.dynamic.sel(delta_t=0.02)
    real_time = clocked.real_time.sel(delta_t=[0.001, 0.002, 0.004, 0.01, 0.02, 0.03])
    assert real_time.max() < 1.1 * real_time.min()
    assert found.sel(rule=["drop", "merge", "defer", "graded"])["dynamic"].isnull().all()
    # 96 % of synaptic events are those of inputs.
    assert found.input_share.sel(rule="clocked", bits=8, delta_t=0.001).item() == pytest.approx(0.962, abs=1e-3)
