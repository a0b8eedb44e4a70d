"""The loss on spike counts and its errors, as the engine reads them out (eq. 10)."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from strategies import RULES, random_case

TARGETS = {"target_true": 7.5, "target_false": 1.0}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", RULES)
def test_loss_is_that_of_the_spike_counts(backend: str, rule: str, dtype: str) -> None:
    case = random_case(3, rule, samples=20)
    network, labels = case.network(backend, dtype), np.arange(20) % 3
    read = network.read_out(case.spikes(), labels, rule=rule, **TARGETS)
    [counts] = network.networks.spike_count(network.n_layers - 1)
    assert counts.any()
    np.testing.assert_array_equal(
        read.loss, [reference.loss(n, label, **TARGETS) for n, label in zip(counts, labels, strict=True)]
    )


def test_error_is_minus_the_derivative_of_the_loss(backend: str) -> None:
    case = random_case(3, samples=20)
    network, labels = case.network(backend, "float64"), np.arange(20) % 3
    errors = network.read_out(case.spikes(), labels, rule="drop", **TARGETS).errors
    [counts] = network.networks.spike_count(network.n_layers - 1)
    for i, j in np.ndindex(20, 3):
        step = 0.5 * (np.arange(3) == j)
        more, less = (reference.loss(counts[i] + move, labels[i], **TARGETS) for move in (step, -step))
        assert errors[i, j] == pytest.approx(less - more)


def test_counts_on_target_have_neither_loss_nor_errors(backend: str) -> None:
    case = random_case(3, samples=20)
    network = case.network(backend, "float64")
    [counts] = [activity.spike_count for activity in network.simulate(case.spikes())[-1:]]
    # Samples of which all outputs but one sent equally many: these counts are the targets.
    for i, (a, b, c) in enumerate(counts.tolist()):
        if a == b != c:
            targets = {"target_true": float(c), "target_false": float(a)}
            read = network.read_out(case.spikes(), np.full(20, 2), rule="drop", **targets)
            assert read.loss[i] == 0 and not read.errors[i].any()
            break
    else:
        pytest.fail("no sample has such counts")
