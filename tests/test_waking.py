"""Output neurons that have fallen silent are woken, and their classes learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from runs import own

from bats_lab.config import Config
from bats_lab.data.datasets import ImageData, load_dataset
from bats_lab.network.feedforward import Network
from bats_lab.runs.thresholds import settle_thresholds
from bats_lab.runs.training import input_spikes, train, train_group
from bats_lab.runs.waking import WOKEN_RATE, missed_classes, wake_classes


@pytest.fixture
def data(tmp_path: Path) -> ImageData:
    return load_dataset(own(tmp_path, (8, 8)))


def silenced(config: Config, data: ImageData) -> list[np.ndarray]:
    """Weights of a network at its start whose output neuron of class 1 is inhibited by all."""
    weights = Network.from_config(config, 64, 3, device="cpu").weights
    weights[-1][1] = -1
    return weights


def settled(data: ImageData, **values: object) -> Config:
    return settle_thresholds(Config(dataset=data.name, auto_threshold=True, batch_size=20, **values), data)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "values", [{"hidden": (30,)}, {"hidden": ()}, {"hidden": (30,), "delta_t": 0.004, "rule": "graded"}]
)
def test_silent_neuron_spikes_for_its_class_and_no_more_than_needed(data: ImageData, values: dict[str, object]) -> None:
    config = settled(data, **values)
    network = Network.from_config(config, 64, 3, device="cpu")
    network.set_weights(silenced(config, data))
    inputs = input_spikes(data.x_train, config)
    state = network.networks.state(0)
    woken = wake_classes(state, config, inputs, data.y_train, [0, 1])
    shown = inputs[np.flatnonzero(data.y_train == 1)[:100]]

    def rate(share: float) -> float:
        raised = [w.copy() for w in state.weights]
        raised[-1][1] += share * (woken.weights[-1][1] - raised[-1][1])
        network.set_weights(raised)
        return float(network.simulate(shown, rule=config.rule)[-1].spike_count[:, 1].mean())

    assert rate(0) == 0 and rate(1) >= WOKEN_RATE > rate(0.95)
    before, after = state.weights, woken.weights
    assert all(np.array_equal(a, b) for a, b in zip(before[:-1], after[:-1], strict=True))
    assert np.array_equal(before[-1][2], after[-1][2])
    assert (after[-1][1] >= before[-1][1]).all()


def test_neuron_without_any_input_stays_as_it_is(data: ImageData) -> None:
    config = settled(data, hidden=30).replace(threshold_hidden=1e9)
    network = Network.from_config(config, 64, 3, device="cpu")
    state = network.networks.state(0)
    woken = wake_classes(state, config, input_spikes(data.x_train, config), data.y_train, [0, 1, 2])
    assert all(np.array_equal(a, b) for a, b in zip(state.weights, woken.weights, strict=True))


def test_class_of_a_silent_neuron_is_learned(data: ImageData) -> None:
    config = settled(data, hidden=100, epochs=6)
    start = silenced(config, data)
    lost = train(config, data, device="cpu", start=start).records[-1]
    learned = train(config.replace(wake_classes=True), data, device="cpu", start=start).records[-1]
    assert lost.test.confusion[1, 1] == 0 and missed_classes([lost], data.y_train) == [1]
    assert learned.test.confusion[1, 1] > 0.8 * learned.test.confusion[1].sum()
    assert missed_classes([], data.y_train) == missed_classes([learned], data.y_train) == []


def test_woken_networks_do_not_depend_on_their_group(data: ImageData) -> None:
    configs = [settled(data, hidden=30, epochs=3, seed=seed).replace(wake_classes=True) for seed in (0, 1)]
    start = [silenced(config, data) for config in configs]
    together = train_group(configs, data, device="cpu", start=start)
    for config, weights, one in zip(configs, start, together, strict=True):
        alone = train(config, data, device="cpu", start=weights)
        assert all(np.array_equal(a, b) for a, b in zip(one.network.weights, alone.network.weights, strict=True))  # type: ignore[union-attr]


def test_data_that_no_preset_fits_are_woken(data: ImageData) -> None:
    config = Config(dataset=data.name)
    assert settle_thresholds(config, data).wake_classes
    assert settle_thresholds(config.replace(wake_classes=False), data).wake_classes is False
    assert not settle_thresholds(config.replace(auto_threshold=True), data).wake_classes
