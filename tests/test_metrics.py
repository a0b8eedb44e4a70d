import json
import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from runs import CLASSES, made_up_data, made_up_records, make_run

from bats_lab.config import Config, parameters
from bats_lab.network.feedforward import Network
from bats_lab.runs.files import save_run
from bats_lab.runs.metrics import (
    COORDINATES,
    RUN_DIMS,
    VARIABLES,
    best_epoch,
    choice_split,
    dead_classes,
    decide_at,
    hypervolume,
    last_epoch,
    measure,
    pareto_front,
    stop_times,
    summary_table,
)
from bats_lab.runs.results import open_results
from bats_lab.runs.training import evaluate, input_spikes

CONTRACT = {
    "accuracy": "split epoch",
    "loss": "split epoch",
    "spike_count": "split epoch layer",
    "spikes_per_neuron": "split epoch layer",
    "silent_fraction": "epoch layer",
    "confidence": "epoch time",
    "first_spike_time": "epoch",
    "decision_time": "epoch",
    "synaptic_events": "epoch layer",
    "collisions": "epoch layer",
    "lost_spikes": "epoch layer",
    "truncated_neurons": "epoch layer",
    "spike_delay": "epoch layer",
    "weight_norm": "epoch layer",
    "weights": "layer post pre",
    "spike_times": "sample layer neuron spike",
    "sent_times": "sample layer neuron spike",
    "train_seconds": "epoch",
    "config": "",
    "version": "",
    "backend": "",
    "device": "",
    "data_hash": "",
    "git_commit": "",
    "started": "",
}


@pytest.fixture
def config():
    return Config(
        hidden=(6, 4), threshold_hidden=(0.2, 0.2), max_spikes_hidden=(30, 30), epochs=3, delta_t=0.002, seed=7
    )


def one(dataset):
    """Without the dimensions of size 1 that tell runs apart."""
    return dataset.squeeze(RUN_DIMS, drop=True)


def test_every_variable_of_the_contract_is_there_with_its_dimensions():
    run = make_run()
    for name, dims in CONTRACT.items():
        assert run[name].dims == RUN_DIMS + tuple(dims.split()), name


EVENTS_AND_SEARCHES = "input_trains", "input_sent_trains", "validation_decision_time"


def test_every_variable_and_coordinate_has_units_and_a_name():
    run = make_run()
    assert set(run.data_vars) == set(VARIABLES) - {"weights_by_epoch", *EVENTS_AND_SEARCHES}
    for name, variable in run.variables.items():
        assert variable.attrs["units"] and variable.attrs["long_name"], name


def test_no_name_of_a_result_is_a_parameter_that_could_be_swept():
    names = {p.name for p in parameters()} - set(RUN_DIMS)
    assert not names & (set(VARIABLES) | set(COORDINATES))


def test_runs_are_told_apart_by_dimensions_of_size_one(config):
    measured = measure(config, made_up_records(config), CLASSES)
    assert [measured.sizes[d] for d in RUN_DIMS] == [1, 1, 1, 1]
    assert measured.delta_t.item() == 0.002
    assert measured.seed.item() == 7
    assert measured.layer.values.tolist() == ["hidden_1", "hidden_2", "output"]


def test_measures_are_those_of_the_epochs(config):
    records = made_up_records(config)
    measured = one(measure(config, records, CLASSES))
    assert measured.accuracy.sel(split="train", epoch=2).item() == records[1].train.accuracy
    assert measured.loss.sel(split="test", epoch=3).item() == records[2].test.loss
    np.testing.assert_array_equal(measured.spike_delay.sel(epoch=1), records[0].test.spike_delay)
    np.testing.assert_array_equal(measured.confidence.sel(epoch=2), records[1].test.confidence)
    np.testing.assert_array_equal(measured.confusion, records[2].test.confusion)
    np.testing.assert_array_equal(measured.weight_norm.sel(epoch=3), records[2].weight_norm)


def test_spikes_per_neuron_divide_by_the_size_of_the_layer(config):
    measured = one(measure(config, made_up_records(config), CLASSES))
    sizes = xr.DataArray([6, 4, 3], dims="layer")
    np.testing.assert_allclose(measured.spikes_per_neuron * sizes, measured.spike_count)
    np.testing.assert_array_equal(measured.layer_size, sizes)


def test_synaptic_events_are_spikes_into_a_layer_times_its_size(config):
    records = made_up_records(config)
    events = one(measure(config, records, CLASSES)).synaptic_events.sel(epoch=1).values
    sent = records[0].test.spike_count
    np.testing.assert_allclose(events, [7.0 * 6, sent[0] * 4, sent[1] * 3])


def test_collisions_are_crossings_dropped_merged_and_deferred(config):
    measured = measure(config, made_up_records(config), CLASSES)
    xr.testing.assert_allclose(measured.collisions, measured.dropped + measured.merged + measured.deferred)


def test_silent_neurons_are_counted_and_silent_outputs_named(config):
    records = made_up_records(config)
    records[-1].test.fired[0] = np.array([True, False, False, False, True, True])
    records[-1].test.fired[-1] = np.array([True, False, True])
    measured = measure(config, records, CLASSES)
    assert one(measured).silent_fraction.sel(epoch=3, layer="hidden_1").item() == 0.5
    assert dead_classes(measured) == ["one"]


def test_nothing_measured_is_an_error(config):
    with pytest.raises(ValueError, match="records is empty"):
        measure(config, [], CLASSES)


def test_last_epoch_is_that_of_each_run(tmp_path):
    short, long = make_run(epochs=1), make_run(epochs=3)
    for run in (short, long):
        save_run(run, tmp_path)
    last = last_epoch(open_results(tmp_path))
    assert "epoch" not in last.dims and "weights" not in last
    assert last.decision_time.sel(epochs=1).item() == short.decision_time.sel(epoch=1).item()
    assert last.decision_time.sel(epochs=3).item() == long.decision_time.sel(epoch=3).item()


def test_choices_are_made_on_held_out_samples_where_every_run_has_them(tmp_path):
    for seed in range(2):
        save_run(make_run(seed=seed, epochs=3, validation_fraction=0.2), tmp_path / "all")
        save_run(make_run(seed=seed, epochs=3, validation_fraction=0.2), tmp_path / "some")
    save_run(make_run(seed=2, epochs=3), tmp_path / "some")
    everywhere, some = (open_results(tmp_path / name) for name in ("all", "some"))
    assert everywhere["split"].values.tolist() == ["train", "test", "validation"]
    assert (choice_split(everywhere), choice_split(some)) == ("validation", "test")
    best = best_epoch(everywhere)
    assert best.attrs["split"] == "validation"
    for seed in range(2):
        accuracy = everywhere["accuracy"].sel(seed=seed, split="validation").values.ravel()
        assert best.sel(seed=seed).item() == 1 + accuracy.argmax()
    by_test = best_epoch(everywhere.sel(split=["train", "test"]))
    assert by_test.attrs["split"] == "test"
    for seed in range(2):
        accuracy = everywhere["accuracy"].sel(seed=seed, split="test").values.ravel()
        assert by_test.sel(seed=seed).item() == 1 + accuracy.argmax()


def test_best_epoch_is_the_first_of_equals_and_missing_where_there_is_no_run(tmp_path):
    for delta_t, seed in ((0, 0), (0.004, 1)):
        save_run(make_run(delta_t=delta_t, seed=seed, epochs=3), tmp_path)
    results = open_results(tmp_path).load()
    results["accuracy"].loc[dict(split="test", delta_t=0, seed=0)] = [0.3, 0.9, 0.9]
    best = best_epoch(results)
    assert best.sel(delta_t=0, seed=0) == 2 and best.attrs["split"] == "test"
    assert np.isnan(best.sel(delta_t=0, seed=1))


def test_summary_has_a_row_for_each_rule_and_time_step_with_runs(tmp_path):
    runs = [
        make_run(seed=s, delta_t=d, rule=r)
        for s, d, r in [(0, 0.001, "merge"), (1, 0.001, "merge"), (0, 0.002, "drop")]
    ]
    for run in runs:
        save_run(run, tmp_path)
    table = summary_table(open_results(tmp_path))
    assert table[["dataset", "rule", "delta_t", "runs"]].values.tolist() == [
        ["mnist_small", "merge", 0.001, 2],
        ["mnist_small", "drop", 0.002, 1],
    ]
    accuracies = [run.accuracy.isel(split=1, epoch=-1).item() for run in runs]
    assert table.accuracy[0] == pytest.approx(np.mean(accuracies[:2]))
    assert table.accuracy_std[0] == pytest.approx(np.std(accuracies[:2], ddof=1))
    assert table.accuracy[1] == accuracies[2] and np.isnan(table.accuracy_std[1])


def test_summary_of_one_run_reads_its_last_test_epoch():
    run = make_run(hidden=(6, 4), threshold_hidden=(0.2, 0.2), max_spikes_hidden=(30, 30))
    row = summary_table(run).iloc[0]
    test = one(run).isel(epoch=-1)
    assert row.hidden_spikes == pytest.approx(test.spike_count.isel(split=1, layer=[0, 1]).sum().item())
    assert row.output_spikes == test.spike_count.isel(split=1, layer=2).item()
    assert row.confidence == test.confidence.sel(time=0.2).item()
    assert row.collisions == pytest.approx(test.collisions.sum().item())


def test_summary_has_a_column_for_another_swept_parameter(tmp_path):
    for rate in (0.001, 0.01):
        save_run(make_run(learning_rate=rate), tmp_path)
    assert summary_table(open_results(tmp_path)).learning_rate.tolist() == [0.001, 0.01]


def test_config_of_a_run_is_kept_as_json():
    run = make_run(delta_t=0.003)
    assert Config.from_dict(json.loads(run.config.item())).delta_t == 0.003


coordinates = st.one_of(st.integers(0, 6).map(float), st.just(np.nan))
points = st.lists(st.tuples(coordinates, coordinates), max_size=12)


@given(points)
def test_pareto_front_is_what_no_point_dominates(some):
    cost, value = np.array(some, dtype=float).reshape(-1, 2).T
    better = [
        {
            i
            for i in range(len(cost))
            if cost[i] <= cost[j] and value[i] >= value[j] and (cost[i], value[i]) != (cost[j], value[j])
        }
        for j in range(len(cost))
    ]
    expected = {j for j in range(len(cost)) if not better[j] and not np.isnan(cost[j] + value[j])}
    front = pareto_front(cost, value)
    assert set(front.tolist()) == expected
    assert (np.diff(cost[front]) >= 0).all()


triples = st.lists(st.tuples(*[st.integers(0, 3) | st.just(math.nan)] * 3), max_size=12)


@given(triples)
def test_front_over_several_costs_is_what_no_point_dominates(some):
    table = np.array(some, dtype=float).reshape(-1, 3)
    cost, value = table[:, :2], table[:, 2]

    def beats(a, b):
        as_good = a[0] <= b[0] and a[1] <= b[1] and a[2] >= b[2]
        return as_good and tuple(a) != tuple(b)

    known = [row for row in table if not np.isnan(row).any()]
    expected = {
        j for j, row in enumerate(table) if not np.isnan(row).any() and not any(beats(other, row) for other in known)
    }
    front = pareto_front(cost, value)
    assert set(front.tolist()) == expected and len(front) == len(expected)
    assert sorted(map(tuple, cost[front])) == list(map(tuple, cost[front]))


@given(points)
def test_one_cost_in_a_column_has_the_same_front(some):
    cost, value = np.array(some, dtype=float).reshape(-1, 2).T
    assert pareto_front(cost[:, None], value).tolist() == pareto_front(cost, value).tolist()


@given(points)
def test_hypervolume_is_the_area_of_the_cells_that_a_point_dominates(some):
    cost, value = np.array(some, dtype=float).reshape(-1, 2).T
    cells = [
        any(c <= x and v >= y + 1 for c, v in zip(cost, value, strict=True)) for x in range(0, 5) for y in range(1, 7)
    ]
    assert hypervolume(cost, value, reference=(5.0, 1.0)) == sum(cells)


def test_points_of_different_number_are_refused():
    with pytest.raises(ValueError, match=r"cost has shape \(2,\) and value \(3,\)"):
        pareto_front([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match=r"cost has shape \(2, 2\) and value \(3,\); value must be \(point,\)"):
        pareto_front([[1, 2], [3, 4]], [1, 2, 3])
    with pytest.raises(ValueError, match=r"cost has shape \(1, 2\) and value \(1,\)"):
        hypervolume([[1, 2]], [1], reference=(3.0, 0.0))


def test_decision_at_the_end_is_that_of_the_evaluation() -> None:
    config = Config(hidden=(6,), delta_t=0.03, rule="graded", weight_scale=8.0, n_train=20, n_test=20)
    data = made_up_data()
    network = Network.from_config(config, 12, len(CLASSES), threads=1)
    whole = evaluate(network, input_spikes(data.x_test, config), data.y_test, rule="graded")
    accuracy, spike_count = decide_at(network, data.x_test, data.y_test, config)
    assert accuracy[-1] == pytest.approx(whole.accuracy)
    assert spike_count[-1] == pytest.approx(whole.spike_count)
    assert (np.diff(spike_count, axis=0) >= 0).all() and spike_count[-1].min() > 0


def test_decision_counts_spikes_sent_by_then() -> None:
    # One input spike at 0 (pixel 255) on a grid of 50 ms is sent at 50 ms; the hidden neuron answers on the next tick.
    config = Config(hidden=(1,), delta_t=0.05, rule="graded", threshold_hidden=0.1, threshold_output=0.1)
    weights = [np.array([[3.0]]), np.array([[1.0], [3.0]])]
    kept = {"thresholds": [0.1, 0.1], "max_spikes": [30, 30], "tau_syn": 0.13, "duration": 0.2}
    network = Network((1, 1, 2), **kept, weights=weights)
    accuracy, spike_count = decide_at(network, np.full((1, 1, 1), 255, np.uint8), np.array([1]), config)
    [hidden, output] = network.simulate(input_spikes(np.full((1, 1, 1), 255, np.uint8), config), rule="graded")
    for time, counted in zip(stop_times(0.2)[:-1], spike_count[:-1], strict=True):
        assert counted[0] == (hidden.discretized <= time + 1e-6).sum()
        assert counted[1] == (output.discretized <= time + 1e-6).sum()
    assert accuracy[stop_times(0.2) < 0.1].max() == 0 and accuracy[-1] == 1
