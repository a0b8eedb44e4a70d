"""SANA-FE, a simulator of chips, on the same network: skipped where it is not installed (``pip install sanafe``)."""

from __future__ import annotations

import numpy as np
import pytest

from bats_lab.config import Config
from bats_lab.data.datasets import ImageData, load_dataset
from bats_lab.network.feedforward import Network
from bats_lab.runs.training import input_spikes, train
from bats_lab.spikes.trains import Spikes
from bats_lab.studies.chip.prices import HARDWARE
from bats_lab.studies.chip.twin import compare_twin, simulate_twin

pytest.importorskip("sanafe")


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_dataset("mnist_small")


@pytest.fixture(scope="module")
def network(data: ImageData) -> Network:
    config = Config(n_train=500, n_test=100, hidden=100, epochs=1, keep_samples=0)
    return train(config, data, device="cpu").network


@pytest.mark.parametrize("delta_t", [0.001, 0.004, 0.01, 0.02])
def test_both_send_the_same_spikes_and_take_the_same_energy(delta_t: float, network: Network, data: ImageData) -> None:
    spikes = input_spikes(data.x_test[:2], Config(delta_t=delta_t, rule="clocked"))
    found = compare_twin(network, spikes)
    assert found["spikes"] == found["twin_spikes"] > 0
    assert abs(found["ratio"]) < 0.1


def test_published_minima_are_below_what_the_simulator_charges(network: Network, data: ImageData) -> None:
    """An event costs 23.6 pJ at least in the paper, and 35.5 pJ in the simulator's file."""
    spikes = input_spikes(data.x_test[:2], Config(delta_t=0.02, rule="clocked"))
    assert -0.4 < compare_twin(network, spikes, hardware=HARDWARE["Loihi"])["ratio"] < -0.2


def test_continuous_time_is_refused(network: Network) -> None:
    with pytest.raises(ValueError, match="a chip with a clock needs a time grid"):
        simulate_twin(network, Spikes.from_padded(np.array([[[0.01]] * 784])))
