"""Adam in the engine against Adam in plain NumPy, and its learning rate."""

from __future__ import annotations

import numpy as np
import pytest
from strategies import random_case

from bats_lab.config import Config
from bats_lab.engine import Mode
from bats_lab.runs.optimiser import Adam

CONSTANTS = {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3}


class PlainAdam:
    """Kingma and Ba (2015), Algorithm 1, line by line."""

    def __init__(self, weights: np.ndarray) -> None:
        self.weights, self.t = weights.astype(float), 0
        self.m, self.v = np.zeros_like(self.weights), np.zeros_like(self.weights)

    def step(self, gradient: np.ndarray, alpha: float, *, beta_1: float, beta_2: float, epsilon: float) -> None:
        self.t += 1
        self.m = beta_1 * self.m + (1 - beta_1) * gradient
        self.v = beta_2 * self.v + (1 - beta_2) * gradient**2
        m_hat, v_hat = self.m / (1 - beta_1**self.t), self.v / (1 - beta_2**self.t)
        self.weights = self.weights - alpha * m_hat / (np.sqrt(v_hat) + epsilon)


# Layers of one block, whose gradient is summed in parts, and of several; more weights than a thread takes at a time.
@pytest.mark.parametrize("sizes", [(6, 5, 3), (50, 450, 3)])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-13)])
def test_weights_move_as_in_plain_adam(backend: str, sizes: tuple[int, ...], dtype: str, tolerance: float) -> None:
    case = random_case(0, sizes=sizes, samples=8)
    network, spikes = case.network(backend, dtype), case.spikes()
    adam, networks, mode = Adam(learning_rate=0.02, decay=0.5, interval=1), network.networks, Mode(**CONSTANTS)
    plain = [PlainAdam(weights) for weights in network.weights]
    spikes = network.prepare(spikes)
    for epoch in (1, 2, 3):
        # Two batches add up to one gradient, the mean over their samples.
        for batch in (np.arange(5), np.arange(5, 8)):
            network.forward(spikes, batch, rule="drop")
            network.backward(case.errors()[batch])
        gradients = [gradient[0].astype(float) for gradient in networks.gradients()]
        networks.update([adam.rate(epoch)], [mode], n_samples=8)
        assert not any(gradient.any() for gradient in networks.gradients())
        state = networks.state(0)
        assert state.n_updates == epoch
        for i, (gradient, reference) in enumerate(zip(gradients, plain, strict=True)):
            assert gradient.any()
            reference.step(gradient / 8, 0.02 * 0.5 ** (epoch - 1), **CONSTANTS)
            scale = np.abs(reference.m).max()
            np.testing.assert_allclose(state.weights[i], reference.weights, rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(state.first[i], reference.m, rtol=tolerance, atol=tolerance * scale)
            np.testing.assert_allclose(state.second[i], reference.v, rtol=tolerance, atol=tolerance * scale**2)


def test_weights_without_a_gradient_stay(backend: str) -> None:
    case = random_case(0)
    network = case.network(backend)
    before = network.weights
    network.forward(network.prepare(case.spikes()), np.arange(4), rule="drop")
    network.backward(np.zeros((4, 3)))
    network.networks.update([1.0], [Mode()], n_samples=4)
    for a, b in zip(before, network.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_learning_rate_stays_for_an_interval_and_then_falls() -> None:
    adam = Adam(learning_rate=1.0, decay=0.1, interval=3)
    assert [adam.rate(epoch) for epoch in range(1, 8)] == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01])


def test_learning_rate_falls_to_its_minimum_and_no_further() -> None:
    adam = Adam.from_config(Config(dataset="fashion_mnist"))
    assert [adam.rate(e) for e in (10, 11, 21, 31, 1000)] == [0.0005, 0.00025, 0.000125, 1e-4, 1e-4]


def test_learning_rate_below_its_minimum_stays_where_it_is() -> None:
    assert Adam(learning_rate=0.001, decay=0.5, interval=1, minimum=0.01).rate(9) == 0.001


def test_optimiser_of_a_run_has_its_parameters() -> None:
    config = Config(learning_rate=0.1, learning_rate_decay=0.2, learning_rate_interval=3, learning_rate_min=0.01)
    adam = Adam.from_config(config.replace(beta_1=0.4, beta_2=0.5, epsilon=0.6))
    assert adam == Adam(0.1, decay=0.2, interval=3, minimum=0.01, beta_1=0.4, beta_2=0.5, epsilon=0.6)
