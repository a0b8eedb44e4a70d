"""Training: what evaluation measures, checkpoints, divergence, and that networks do learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from strategies import RULES, random_case
from trainings import assert_same_passes, assert_same_records

from bats_lab.config import LATENCY_TIMES, Config
from bats_lab.data.datasets import ImageData, load_dataset
from bats_lab.errors import BatsLabError, DivergedError
from bats_lab.network.feedforward import Network
from bats_lab.runs.limits import limit_warnings, overflow_warning, reachable_target_warning
from bats_lab.runs.records import EpochRecord
from bats_lab.runs.training import evaluate, input_spikes, split_training, train
from bats_lab.spikes.encoding import encode_images
from bats_lab.spikes.grid import discretize_spikes
from bats_lab.spikes.trains import Spikes

SMALL = Config(n_train=200, n_test=60, hidden=20, threshold_output=0.1, epochs=3, delta_t=0.004, keep_weights="each")


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_dataset("mnist_small", n_train=200, n_test=60)


@pytest.fixture(scope="module")
def whole(digits: ImageData) -> list[EpochRecord]:
    """The epochs of a training that was not interrupted."""
    return train(SMALL, digits, threads=1).records


# Evaluation


def outputs(network: Network, spikes: Spikes, rule: str) -> list[list[tuple[float, int]]]:
    """Return the output spikes of each sample as (sent time, neuron), in order."""
    sent = network.simulate(spikes, rule=rule)[-1].discretized.astype(float)
    return [
        sorted((t, j) for j, times in enumerate(sample) for t in times[np.isfinite(times)].tolist()) for sample in sent
    ]


def decision_time(spikes: list[tuple[float, int]], n_classes: int) -> float:
    """From which sent time on the class that wins in the end has the most spikes, the lower index in a tie."""

    def leader(until: float) -> int:
        return int(np.argmax([sum(t <= until and j == k for t, j in spikes) for k in range(n_classes)]))

    times = sorted({t for t, _ in spikes})
    final = leader(times[-1])
    since = times[-1]
    for time in times[::-1]:
        if leader(time) != final:
            break
        since = time
    return since


@pytest.mark.parametrize(("rule", "delta_t"), [("drop", 0.0), *((rule, 0.008) for rule in RULES)])
def test_evaluation_measures_what_simulation_does(rule: str, delta_t: float) -> None:
    case = random_case(5, rule, samples=12, delta_t=delta_t)
    # A sample without any input; and labels of which some are right and some are wrong.
    times = case.times.copy()
    times[4] = np.inf
    case = case.replace(times=times)
    network, spikes, labels = case.network("cpu"), case.spikes(), np.arange(12) % 3
    measured = evaluate(network, spikes, labels, rule=rule, target_true=7.0, target_false=2.0)
    activity, found = network.simulate(spikes, rule=rule), outputs(network, spikes, rule)
    counts = activity[-1].spike_count
    decided = [int(np.argmax(c)) if c.any() else -1 for c in counts]
    confusion = np.zeros((3, 4), int)
    for label, decision in zip(labels, decided, strict=True):
        confusion[label, decision] += 1

    assert 0 < measured.accuracy < 1
    assert measured.accuracy == np.mean(np.array(decided) == labels)
    np.testing.assert_array_equal(measured.confusion, confusion)
    losses = [reference.loss(n, y, target_true=7.0, target_false=2.0) for n, y in zip(counts, labels, strict=True)]
    assert measured.loss == np.mean(losses)
    own = [[t for t, j in sample if j == label] for sample, label in zip(found, labels, strict=True)]
    slack = 1e-6 * delta_t
    early = [[sum(t <= s + slack for t in times) for s in LATENCY_TIMES] for times in own]
    np.testing.assert_allclose(measured.confidence, np.mean(early, axis=0) / 7.0)
    spiking = [sample for sample in found if sample]
    assert measured.first_spike_time == pytest.approx(np.mean([sample[0][0] for sample in spiking]))
    assert measured.decision_time == pytest.approx(np.mean([decision_time(sample, 3) for sample in spiking]))
    assert measured.input_spikes == spikes.count.sum() / 12
    for i, layer in enumerate(activity):
        assert measured.spike_count[i] == layer.spike_count.sum() / 12
        np.testing.assert_array_equal(measured.fired[i], layer.spike_count.any(axis=0))
        for name in ("dropped", "merged", "deferred", "lost_spikes", "truncated_neurons"):
            assert getattr(measured, name)[i] == getattr(layer, name).sum() / 12, name
        sent = np.isfinite(layer.discretized)
        delays = layer.discretized[sent] - layer.times[sent]
        assert measured.spike_delay[i] == pytest.approx(delays.mean(), abs=1e-12)


def one_layer(weights: list[list[float]], max_spikes: int = 30) -> Network:
    return Network(
        (len(weights[0]), len(weights)),
        thresholds=[0.2],
        max_spikes=[max_spikes],
        tau_syn=0.13,
        duration=0.2,
        weights=[np.array(weights)],
        dtype="float64",
        threads=1,
    )


def test_tie_goes_to_the_lower_index() -> None:
    network = one_layer([[0.0], [8.0], [8.0]])
    measured = evaluate(network, Spikes.from_padded(np.array([[0.01], [0.01]])), np.array([1, 2]))
    assert measured.accuracy == 0.5 and measured.confusion[:, 1].tolist() == [0, 1, 1]


def test_sample_without_output_spikes_is_wrong_whatever_its_class() -> None:
    silent = one_layer([[0.0], [0.0]])
    measured = evaluate(silent, Spikes.from_padded(np.array([[0.01], [0.01]])), np.array([0, 1]))
    assert measured.accuracy == 0 and measured.confusion.tolist() == [[0, 0, 1], [0, 0, 1]]
    assert np.isnan(measured.first_spike_time) and np.isnan(measured.decision_time) and np.isnan(measured.spike_delay)


def test_confidence_counts_spikes_when_they_are_sent_and_on_the_very_tick() -> None:
    # The only spike is computed before 20 ms, the first latency time, and sent at 30 ms exactly, the second.
    network, inputs = one_layer([[60.0]], max_spikes=1), Spikes.from_padded(np.array([[0.005]]))
    grid = discretize_spikes(inputs, 0.015)
    [activity] = network.simulate(grid)
    assert activity.times[0, 0, 0] < 0.02 and activity.discretized[0, 0, 0] == pytest.approx(0.03)
    continuous, discretized = (
        evaluate(network, spikes, np.array([0]), target_true=1.0).confidence for spikes in (inputs, grid)
    )
    assert continuous.tolist() == [1] * 9 and discretized.tolist() == [0, *[1] * 8]


@pytest.mark.parametrize("size", [1, 7, 12, 1000])
def test_size_of_the_batches_changes_nothing(size: int) -> None:
    case = random_case(5, "defer", samples=12)
    network, spikes, labels = case.network("cpu", "float32"), case.spikes(), np.arange(12) % 3
    one, other = (evaluate(network, spikes, labels, rule="defer", batch_size=n) for n in (5, size))
    np.testing.assert_allclose(one.spike_delay, other.spike_delay, rtol=1e-6)
    assert one.loss == pytest.approx(other.loss)
    same = {"spike_delay": one.spike_delay, "loss": one.loss}
    assert_same_passes(one, replace(other, **same))


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0, 1, 2], {}, r"labels have the shape \(3,\); there must be one for each of 4 samples"),
        ([0, 1, 2, 3], {}, "labels reach from 0 to 3; they must be 0 to 2"),
        ([0, 1, 2, -1], {}, "labels reach from -1 to 2; they must be 0 to 2"),
        ([0, 1, 2, 0], {"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ([0, 1, 2, 0], {"rule": "dorp"}, "rule is 'dorp'"),
    ],
)
def test_evaluation_that_makes_no_sense_is_refused(labels: list[int], options: dict[str, Any], message: str) -> None:
    case = random_case(0)
    with pytest.raises(ValueError, match=f"^{message}"):
        evaluate(case.network("cpu"), case.spikes(), np.array(labels), **options)


def test_evaluation_of_nothing_is_refused() -> None:
    case = random_case(0, samples=0)
    with pytest.raises(ValueError, match="0 samples, at least 1"):
        evaluate(case.network("cpu"), case.spikes(), np.array([], int))


# Inputs


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ticks_of_inputs_are_those_of_double_precision(digits: ImageData, dtype: str) -> None:
    config = SMALL.replace(dtype=dtype, delta_t=1e-6)
    spikes = input_spikes(digits.x_test, config)
    double = discretize_spikes(encode_images(digits.x_test, window=0.1), 1e-6)
    assert spikes.times.dtype == dtype and spikes.delta_t == 1e-6
    np.testing.assert_array_equal(spikes.ticks, double.ticks)


# Learning


def test_network_learns_to_read_digits_within_seconds() -> None:
    config = Config(hidden=100, threshold_output=0.5, batch_size=10, n_train=2000, n_test=500, epochs=1)
    data = load_dataset("mnist_small", n_train=2000, n_test=500)
    untrained = Network.from_config(config, 784, 10)
    before = evaluate(untrained, input_spikes(data.x_test, config), data.y_test)
    [record] = train(config, data).records
    assert before.accuracy < 0.2 and record.test.accuracy > 0.6
    assert record.test.loss < before.loss / 2 and record.test.confidence[-1] > before.confidence[-1]


def test_the_same_seed_trains_the_same_network(digits: ImageData, whole: list[EpochRecord]) -> None:
    assert_same_records(train(SMALL, digits).records, whole)


def test_another_seed_trains_another_network(digits: ImageData, whole: list[EpochRecord]) -> None:
    other = train(SMALL.replace(seed=1, epochs=1), digits, threads=1).records
    assert other[0].weight_norm.tolist() != whole[0].weight_norm.tolist()


def test_only_the_first_samples_asked_for_are_used(digits: ImageData) -> None:
    config = SMALL.replace(n_train=50, n_test=20, epochs=1)
    first = replace(digits, x_train=digits.x_train[:50], y_train=digits.y_train[:50])
    first = replace(first, x_test=digits.x_test[:20], y_test=digits.y_test[:20])
    assert_same_records(train(config, digits, threads=1).records, train(config, first, threads=1).records)


# Samples held out


@pytest.mark.parametrize(("n", "fraction"), [(10, 0.1), (60_000, 1 / 12), (7, 0.9), (5, 0.0)])
def test_training_samples_are_split_in_two_without_one_left_over(n: int, fraction: float) -> None:
    trained, held_out = split_training(n, fraction)
    assert len(held_out) == round(n * fraction)
    assert sorted([*trained, *held_out]) == list(range(n))
    assert (np.diff(trained) > 0).all() and (np.diff(held_out) > 0).all()


def test_split_that_leaves_nothing_on_one_side_is_refused_before_training(digits: ImageData) -> None:
    with pytest.raises(ValueError, match=r"^validation_fraction is 0.001; of 200 training samples it must leave at le"):
        train(SMALL.replace(validation_fraction=0.001), digits)


def test_held_out_samples_are_measured_and_not_trained_on(digits: ImageData) -> None:
    config = SMALL.replace(validation_fraction=0.25, epochs=2)
    training = train(config, digits, threads=1)
    trained, held_out = split_training(200, 0.25)
    # The same as training on the others alone, and evaluating on them.
    others = replace(digits, x_train=digits.x_train[trained], y_train=digits.y_train[trained])
    alone = train(SMALL.replace(n_train=150, epochs=2), others, threads=1)
    for a, b in zip(training.network.weights, alone.network.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    wanted = evaluate(training.network, input_spikes(digits.x_train[held_out], config), digits.y_train[held_out])
    assert training.records[-1].validation is not None and wanted.n_samples == 50
    assert_same_passes(training.records[-1].validation, wanted)
    assert_same_passes(training.records[-1].test, alone.records[-1].test)


def test_training_with_random_rounding_and_held_out_samples_goes_on_from_a_checkpoint(
    digits: ImageData, tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    def stop(record: EpochRecord) -> None:
        if record.epoch == 2:
            raise Stop

    config = SMALL.replace(estimator="stochastic", validation_fraction=0.2, delta_t=0.01)
    whole = train(config, digits)
    with pytest.raises(Stop):
        train(config, digits, checkpoint=tmp_path / "run.npz", on_epoch=stop)
    assert_same_records(train(config, digits, checkpoint=tmp_path / "run.npz").records, whole.records)


@pytest.mark.parametrize("estimator", ["delayed", "surrogate", "stochastic"])
def test_estimators_train_other_networks_on_a_grid_and_the_same_one_in_continuous_time(
    digits: ImageData, whole: list[EpochRecord], estimator: str
) -> None:
    short = SMALL.replace(epochs=1)
    other = train(short.replace(estimator=estimator), digits).records[0]
    assert other.weight_norm.tolist() != whole[0].weight_norm.tolist()
    exact, same = (
        train(short.replace(delta_t=0.0, estimator=e), digits).records for e in ("straight_through", estimator)
    )
    assert_same_records(exact, same)


def test_learning_rate_falls_by_the_epoch(digits: ImageData) -> None:
    config = SMALL.replace(n_train=50, n_test=10, learning_rate_interval=1, learning_rate_decay=0.5)
    assert [r.learning_rate for r in train(config, digits).records] == [0.003, 0.0015, 0.00075]


def test_weights_are_handed_on_only_where_each_is_kept(digits: ImageData, whole: list[EpochRecord]) -> None:
    assert all(len(r.weights) == 2 for r in whole)
    assert train(SMALL.replace(keep_weights="last", epochs=1), digits, threads=1).records[0].weights is None


# Checkpoints


class Stop(Exception):
    pass


def train_until(epoch: int, config: Config, data: ImageData, path: Path) -> None:
    """Train and break off after an epoch, when its checkpoint is written."""

    def stop(record: EpochRecord) -> None:
        if record.epoch == epoch:
            raise Stop

    with pytest.raises(Stop):
        train(config, data, threads=1, checkpoint=path, on_epoch=stop)


@pytest.mark.parametrize("keep", ["each", "last"])
def test_training_goes_on_from_a_checkpoint_to_the_same_numbers(
    tmp_path: Path, digits: ImageData, whole: list[EpochRecord], keep: str
) -> None:
    config, path = SMALL.replace(keep_weights=keep), tmp_path / "state.npz"
    for epoch in (1, 2):
        train_until(epoch, config, digits, path)
    heard: list[int] = []
    resumed = train(config, digits, threads=1, checkpoint=path, on_epoch=lambda r: heard.append(r.epoch))
    assert heard == [1, 2, 3]
    expected = whole if keep == "each" else [replace(r, weights=None) for r in whole]
    assert_same_records(resumed.records, expected)
    np.testing.assert_equal(resumed.network.weights, whole[-1].weights)


def test_finished_checkpoint_gives_the_records_without_training(
    tmp_path: Path, digits: ImageData, whole: list[EpochRecord]
) -> None:
    first = train(SMALL, digits, threads=1, checkpoint=tmp_path / "state.npz")
    again = train(SMALL, digits, threads=1, checkpoint=tmp_path / "state.npz")
    assert_same_records(again.records, whole)
    assert [r.train_seconds for r in again.records] == [r.train_seconds for r in first.records]


@pytest.fixture(scope="module")
def checkpoint(digits: ImageData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "state.npz"
    train_until(1, SMALL, digits, path)
    return path


@pytest.mark.parametrize("changes", [{"seed": 1}, {"epochs": 4}, {"keep_weights": "last"}, {"hidden": 30}])
def test_checkpoint_of_other_parameters_is_refused(
    checkpoint: Path, digits: ImageData, changes: dict[str, Any]
) -> None:
    message = rf"^The checkpoint {checkpoint} is of a run with other parameters; move it away to start anew\.$"
    with pytest.raises(BatsLabError, match=message):
        train(SMALL.replace(**changes), digits, checkpoint=checkpoint)


def test_checkpoint_of_other_data_is_refused(checkpoint: Path, digits: ImageData) -> None:
    with pytest.raises(BatsLabError, match=r"is of a run on other data; move it away to start anew\.$"):
        train(SMALL, replace(digits, data_hash="other"), checkpoint=checkpoint)


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.999])
def test_damaged_checkpoint_is_refused(tmp_path: Path, checkpoint: Path, digits: ImageData, part: float) -> None:
    path, content = tmp_path / "state.npz", checkpoint.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(BatsLabError, match=rf"^The checkpoint {path} cannot be read \(.*\); move it away"):
        train(SMALL, digits, checkpoint=path)


def test_checkpoint_with_something_missing_or_changed_is_refused(
    tmp_path: Path, checkpoint: Path, digits: ImageData
) -> None:
    path = tmp_path / "state.npz"
    with np.load(checkpoint) as kept:
        arrays = dict(kept)
    for name in arrays:
        np.savez(path, **{k: v for k, v in arrays.items() if k != name})
        with pytest.raises(BatsLabError, match="cannot be read"):
            train(SMALL, digits, checkpoint=path)
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1  # somewhere in the weights
    path.write_bytes(content)
    with pytest.raises(BatsLabError, match="cannot be read"):
        train(SMALL, digits, checkpoint=path)


# Divergence, and targets that cannot be reached


def test_divergence_names_epoch_and_layer_and_keeps_the_epochs_before(digits: ImageData) -> None:
    # Adam goes on by its momentum, each of its steps nearer to the largest float32.
    wild = SMALL.replace(n_train=50, epochs=8, learning_rate=2.3e38, beta_1=0.3)
    with pytest.raises(DivergedError) as caught:
        train(wild, digits, threads=1)
    error = caught.value
    assert error.epoch > 1 and [r.epoch for r in error.records] == list(range(1, error.epoch))
    assert str(error).startswith(f"Training diverged in epoch {error.epoch}: ")
    assert f"weights of layer {error.layer} are not finite; a lower learning_rate than 2.3e+38 may help." in str(error)


def test_divergence_names_the_first_layer_that_is_not_finite(digits: ImageData) -> None:
    with pytest.raises(DivergedError, match=r"epoch 1: \d+ of 15680 weights of layer hidden_1 are") as caught:
        train(SMALL.replace(learning_rate=1e39), digits, threads=1)
    assert (caught.value.epoch, caught.value.layer, caught.value.records) == (1, "hidden_1", [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"delta_t": 0.02}, "rule 'drop' sends one spike a tick, and 0.2 s have 10 ticks of 20 ms."),
        ({"delta_t": 0.016, "rule": "defer"}, "rule 'defer' sends one spike a tick, and 0.2 s have 12 ticks"),
        ({"max_spikes_output": 14}, "max_spikes_output is 14."),
        ({"max_spikes_output": 14, "delta_t": 0.02, "rule": "graded"}, "max_spikes_output is 14"),
    ],
)
def test_target_out_of_reach_is_told(changes: dict[str, Any], message: str) -> None:
    text = reachable_target_warning(Config(**changes)) or ""
    assert text.startswith("The true class's target of 15 spikes cannot be reached: ") and message in text


@pytest.mark.parametrize(
    "changes", [{}, {"delta_t": 0.2 / 15}, {"delta_t": 0.02, "rule": "graded"}, {"max_spikes_output": 15}]
)
def test_target_within_reach_is_not_mentioned(changes: dict[str, Any]) -> None:
    assert reachable_target_warning(Config(**changes)) is None


@pytest.mark.parametrize(
    ("steps", "dtype", "bad"), [(45, "float32", True), (22, "float32", False), (45, "float64", False)]
)
def test_time_step_at_which_gradients_overflow_is_told(backend: str, steps: int, dtype: str, bad: bool) -> None:
    delta_t = steps * 0.26
    config = Config(
        hidden=(), delta_t=delta_t, duration=2.99 * delta_t, rule="graded", threshold_output=0.2, dtype=dtype
    )
    network = Network.from_config(config, 2, 1, device=backend)
    network.set_weights([np.array([[8.0, 1.0]])])
    spikes = discretize_spikes(Spikes.from_padded(np.array([[[0.0], [delta_t + 0.001]]])), delta_t)
    [gradient] = network.gradients(spikes, np.ones((1, 1)), rule="graded")
    largest = np.sqrt(float(np.finfo(dtype).max))  # Adam squares it
    assert (abs(gradient.astype(float)) < largest).all() == (not bad)
    told = overflow_warning(config) or ""
    assert limit_warnings([config]).count(told) == bad
    assert ("45 times the membrane's time constant of 260 ms: from 22.2 times on" in told) == bad


def test_estimators_that_look_at_sent_times_only_do_not_overflow() -> None:
    config = Config(delta_t=0.2, tau_syn=0.001, rule="graded")
    assert "from 11.1 times" in (overflow_warning(config) or "")
    assert overflow_warning(config.replace(estimator="delayed")) is None
