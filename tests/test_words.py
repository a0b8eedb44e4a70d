"""Words of few bits in the loop: a network runs as a chip of integers does, and its weights are trained as floats."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trainings
from backends import usable

from bats_lab.config import Config
from bats_lab.data.datasets import ImageData, load_dataset
from bats_lab.engine import Mode
from bats_lab.engine.quantization import quantization_scales, quantize_weights
from bats_lab.network.feedforward import Network
from bats_lab.runs.training import evaluate, input_spikes, train, train_group
from bats_lab.spikes.grid import discretize_spikes
from bats_lab.spikes.trains import Spikes

CHIP = Config(
    n_train=400,
    n_test=200,
    hidden=60,
    threshold_output=0.3,
    rule="clocked",
    delta_t=0.02,
    weight_bits=3,
    target_true=8,
    target_false=2,
    epochs=2,
    validation_fraction=0.1,
    keep_samples=0,
)


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_dataset("mnist_small")


def random_network(dtype: str = "float64", **changes: Any) -> Network:
    rng = np.random.default_rng(3)
    sizes = (784, 30, 10)
    weights = [rng.uniform(-0.4, 0.5, (post, pre)) for pre, post in itertools.pairwise(sizes)]
    settings = {"thresholds": [0.2, 0.4], "max_spikes": [50, 50], "tau_syn": 0.13, "duration": 0.2} | changes
    return Network(sizes, weights=weights, dtype=dtype, device="cpu", **settings)


def spikes_in_integers(network: Network, trains: np.ndarray, delta_t: float, bits: int, fraction: int) -> list[int]:
    """Run one sample, (neuron, tick), in integers of a fraction of each layer's scale: current, then potential."""
    tau = 2 * network.tau_syn
    d = math.exp(-delta_t / tau)
    counts, sent = [], trains.T
    for w, threshold, scale in zip(
        network.weights, network.thresholds, quantization_scales(network.weights, bits), strict=True
    ):
        unit = scale / 2**fraction
        [rounded] = quantize_weights([w], bits)
        integers = np.rint(rounded / scale).astype(int) * 2**fraction
        level = max(1, round(threshold / tau / unit))
        current = potential = np.zeros(len(w), int)
        out = np.zeros((len(sent), len(w)), int)
        for k, arriving in enumerate(sent):
            potential = np.rint(d * potential + (d - d * d) * current).astype(int)
            current = np.rint(d * d * current).astype(int)
            out[k] = potential >= level
            potential = potential - out[k] * level
            current = current + integers @ arriving
        counts.append(int(out.sum()))
        sent = out
    return counts


@pytest.mark.parametrize(("bits", "fraction"), [(2, 6), (3, 3), (4, 0), (8, 6), (16, 2)])
@pytest.mark.parametrize("delta_t", [0.01, 0.02])
def test_network_runs_as_one_of_integers(bits: int, fraction: int, delta_t: float, data: ImageData) -> None:
    network = random_network()
    spikes = input_spikes(data.x_test[:20], Config(rule="clocked", delta_t=delta_t, dtype="float64"))
    labels = data.y_test[:20]
    measured = evaluate(network, spikes, labels, rule="clocked", weight_bits=bits, fraction_bits=fraction)
    expected = np.zeros(2)
    for sample in range(len(spikes)):
        part = slice(spikes.start[sample], spikes.start[sample] + spikes.count[sample])
        trains = np.zeros((784, round(0.2 / delta_t)), int)
        trains[spikes.neuron[part], spikes.ticks[part] - 1] = 1
        expected += spikes_in_integers(network, trains, delta_t, bits, fraction)
    np.testing.assert_array_equal(measured.spike_count * len(spikes), expected)
    assert expected[0] > 0 and (expected[1] > 0 or bits == 2)


def test_states_are_what_short_fractions_round(data: ImageData) -> None:
    network = random_network("float32")
    spikes = input_spikes(data.x_test[:50], Config(rule="clocked", delta_t=0.02))
    options = {"rule": "clocked", "weight_bits": 4}
    counts = [
        evaluate(network, spikes, data.y_test[:50], fraction_bits=f, **options).spike_count.tolist() for f in (0, 3, 16)
    ]
    assert counts[0] != counts[1] != counts[2]
    # With fine fractions nothing is rounded but weights: the same as a network of such weights in floats.
    network.set_weights(quantize_weights(network.weights, 4))
    assert evaluate(network, spikes, data.y_test[:50], rule="clocked").spike_count.tolist() == counts[2]


def test_what_a_network_had_is_there_after_it_ran_in_words(data: ImageData) -> None:
    network = random_network()
    before = network.weights
    spikes = input_spikes(data.x_test[:10], Config(rule="clocked", delta_t=0.02, dtype="float64"))
    in_floats = evaluate(network, spikes, data.y_test[:10], rule="clocked").spike_count
    evaluate(network, spikes, data.y_test[:10], rule="clocked", weight_bits=2)
    np.testing.assert_array_equal(evaluate(network, spikes, data.y_test[:10], rule="clocked").spike_count, in_floats)
    for own, old in zip(network.weights, before, strict=True):
        np.testing.assert_array_equal(own, old)


def test_gradient_is_that_of_the_rounded_weights(data: ImageData) -> None:
    """Straight-through: as if the weights that run were the ones that are trained."""
    spikes = input_spikes(data.x_test[:8], Config(rule="clocked", delta_t=0.02, dtype="float64"))
    errors = np.random.default_rng(0).normal(size=(1, 8, 10))
    gradients = []
    for bits in (4, 32):
        network = random_network()
        if bits == 32:
            network.set_weights(quantize_weights(network.weights, 4))
        loaded = network.networks.load([network.prepare(spikes)])
        mode = Mode("clocked", weight_bits=bits, fraction_bits=16)
        network.networks.forward(loaded, np.arange(8), [mode])
        network.networks.backward(errors)
        gradients.append(network.networks.gradients())
    for own, expected in zip(*gradients, strict=True):
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(own, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_trained_network_has_the_words_with_which_it_was_tested(data: ImageData) -> None:
    trained = train(CHIP, data, device="cpu")
    last = trained.records[-1]
    for w in trained.network.weights:
        assert len(np.unique(w)) <= 2**CHIP.weight_bits - 1
    spikes = input_spikes(data.x_test[:200], CHIP)
    again = evaluate(trained.network, spikes, data.y_test[:200], rule="clocked", weight_bits=3)
    assert again.accuracy == last.test.accuracy and again.spike_count.tolist() == last.test.spike_count.tolist()
    assert last.test.spike_count.min() > 0


def test_training_with_words_beats_rounding_after_training(data: ImageData) -> None:
    whole = {"hidden": (800,), "threshold_output": 1.3, "n_train": None, "n_test": None}
    exact = Config(**whole, epochs=2, keep_samples=0)
    start = train(exact, data, device="cpu").network
    rounded = evaluate(start, input_spikes(data.x_test, CHIP), data.y_test, rule="clocked", weight_bits=2).accuracy
    words = CHIP.replace(**whole, weight_bits=2, learning_rate=0.0005, validation_fraction=0.0, epochs=3)
    further = train(words, data, device="cpu", start=start.weights).records[-1].test.accuracy
    assert further > rounded + 0.01 > 0.5


def test_training_begins_with_the_given_weights(data: ImageData) -> None:
    start = [np.full(shape, 0.25) for shape in ((60, 784), (10, 60))]
    still = CHIP.replace(learning_rate=1e-9, learning_rate_min=0.0, weight_bits=32, epochs=1)
    for w, given in zip(train(still, data, device="cpu", start=start).network.weights, start, strict=True):
        np.testing.assert_allclose(w, given, atol=1e-6)
    with pytest.raises(ValueError, match="shape"):
        train(still, data, device="cpu", start=start[::-1])


def test_training_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(data: ImageData, tmp_path: Path) -> None:
    whole = train(CHIP, data, device="cpu")
    path = tmp_path / "run.checkpoint"

    class Stop(Exception):
        pass

    def stop(record: Any) -> None:
        raise Stop

    with pytest.raises(Stop):
        train(CHIP, data, device="cpu", checkpoint=path, on_epoch=stop)
    rest = train(CHIP, data, device="cpu", checkpoint=path)
    trainings.assert_same_records(rest.records, whole.records)
    for own, expected in zip(rest.network.weights, whole.network.weights, strict=True):
        np.testing.assert_array_equal(own, expected)


def test_networks_of_different_words_side_by_side_give_what_they_give_alone(data: ImageData) -> None:
    configs = [CHIP, CHIP.replace(weight_bits=32), CHIP.replace(weight_bits=2, fraction_bits=1, seed=1)]
    for config, together in zip(configs, train_group(configs, data, device="cpu"), strict=True):
        trainings.assert_same_records(together.records, train(config, data, device="cpu").records)


def test_words_are_of_clocked_chips_and_of_the_cpu(data: ImageData) -> None:
    for changes in ({"rule": "graded"}, {"rule": "drop", "delta_t": 0.0}):
        with pytest.raises(ValueError, match="words of few bits are those of a chip with a clock: rule clocked"):
            CHIP.replace(**changes)
    with pytest.raises(ValueError, match="membranes of words are twice as slow as their synapses"):
        CHIP.replace(tau_mem=3 * CHIP.tau_syn)
    spikes = input_spikes(data.x_test[:5], CHIP.replace(weight_bits=32, rule="graded"))
    with pytest.raises(ValueError, match="rule is graded with weight_bits 4; words of few bits need rule clocked"):
        evaluate(random_network("float32"), spikes, data.y_test[:5], rule="graded", weight_bits=4)
    slow = Network((2, 1), thresholds=[0.2], max_spikes=[9], tau_syn=0.13, tau_mem=0.4, duration=0.2, device="cpu")
    spikes = discretize_spikes(Spikes.from_padded(np.array([[[0.01], [0.02]]])), 0.02)
    with pytest.raises(ValueError, match="weight_bits is 4; in words of few bits a membrane must be twice as slow"):
        evaluate(slow, spikes, np.array([0]), rule="clocked", weight_bits=4)


def test_a_gpu_says_that_it_has_no_words(data: ImageData) -> None:
    device = usable("emulated")
    with pytest.raises(ValueError, match="weight_bits is 3; words of few bits are trained on the CPU only"):
        train(CHIP, data, device=device)
    network = Network((2, 1), thresholds=[0.2], max_spikes=[9], tau_syn=0.13, duration=0.2, device=device)
    spikes = discretize_spikes(Spikes.from_padded(np.array([[[0.01], [0.02]]])), 0.02)
    with pytest.raises(ValueError, match="weight_bits is 4; words of few bits run on the CPU only"):
        evaluate(network, spikes, np.array([0]), rule="clocked", weight_bits=4)
