"""The time of a spike over a weight: copies of a network, and gradients against difference quotients."""

from __future__ import annotations

import numpy as np
import pytest
from strategies import random_case

from bats_lab.network.sensitivity import spike_time_gradient, sweep_weight

VALUES = np.array([-1.0, 2.0, 5.0, 11.0])


@pytest.mark.parametrize(("rule", "delta_t"), [("drop", 0.0), ("drop", 0.008), ("graded", 0.008), ("clocked", 0.004)])
@pytest.mark.parametrize(("layer", "post", "pre"), [(0, 3, 4), (1, 2, 1), (2, 1, 3)])
def test_sweep_is_what_the_network_does_with_each_weight(
    rule: str, delta_t: float, layer: int, post: int, pre: int
) -> None:
    case = random_case(2, rule, samples=1, delta_t=delta_t)
    found = sweep_weight(
        case.network("cpu"), case.spikes(), VALUES, layer=layer, post=post, pre=pre, neuron=1, rule=rule
    )
    for i, value in enumerate(VALUES):
        weights = [w.copy() for w in case.weights]
        weights[layer][post, pre] = value
        output = case.replace(weights=weights).simulate("cpu")[-1]
        assert found.spike_count[i] == output.spike_count[0, 1]
        for times, wanted in ((found.time, output.times), (found.sent, output.discretized)):
            first = wanted[0, 1, 0]
            np.testing.assert_allclose(times[i], first if np.isfinite(first) else np.nan, rtol=1e-9)


def test_gradient_of_the_first_spike_time_is_the_difference_quotient() -> None:
    case = random_case(5, samples=1, delta_t=0.0)
    network, spikes = case.network("cpu"), case.spikes()
    gradients = spike_time_gradient(network, spikes, neuron=1)
    assert any(g.any() for g in gradients)
    for layer, gradient in enumerate(gradients):
        post, pre = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
        w, h = case.weights[layer][post, pre], 1e-5
        left, right = sweep_weight(
            network, spikes, np.array([w - h, w + h]), layer=layer, post=int(post), pre=int(pre), neuron=1
        ).time
        assert gradient[post, pre] == pytest.approx((right - left) / (2 * h), rel=1e-4)


def test_sweep_leaves_the_network_as_it_was() -> None:
    case = random_case(2, samples=1)
    network = case.network("cpu")
    sweep_weight(network, case.spikes(), VALUES, layer=0, post=0, pre=0)
    for now, before in zip(network.weights, case.weights, strict=True):
        np.testing.assert_array_equal(now, before)
