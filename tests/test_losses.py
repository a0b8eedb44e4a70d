"""The loss on spike counts, by itself and as the engine reads it out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import RULES, random_case

from bats_lab.engine import get_backend
from bats_lab.runs.losses import spike_count_loss, target_counts


def test_targets_are_high_for_the_true_class_only() -> None:
    targets = target_counts(np.array([2, 0]), 3, target_true=15, target_false=3)
    assert targets.tolist() == [[3, 3, 15], [15, 3, 3]]


def test_loss_of_counts_on_target_is_zero() -> None:
    loss, errors = spike_count_loss(np.array([[3, 15, 3]]), np.array([1]), target_true=15, target_false=3)
    assert loss.tolist() == [0] and not errors.any()


@given(st.lists(st.lists(st.integers(0, 30), min_size=3, max_size=3), min_size=1, max_size=4), st.integers(0, 2))
def test_error_is_minus_the_derivative_of_the_loss(counts: list[list[int]], label: int) -> None:
    given_counts, labels = np.array(counts, float), np.full(len(counts), label)
    targets = {"target_true": 15.0, "target_false": 3.0}
    loss, errors = spike_count_loss(given_counts, labels, **targets)
    for j in range(3):
        more, less = given_counts.copy(), given_counts.copy()
        more[:, j] += 0.5
        less[:, j] -= 0.5
        slope = spike_count_loss(more, labels, **targets)[0] - spike_count_loss(less, labels, **targets)[0]
        np.testing.assert_allclose(slope, -errors[:, j])
    assert (loss >= 0).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", RULES)
def test_engine_reads_out_this_very_loss(backend: str, rule: str, dtype: str) -> None:
    case = random_case(3, rule, samples=20)
    network, engine = case.network(backend, dtype), get_backend(backend)
    labels = np.arange(20) % 3
    targets = {"target_true": 7.5, "target_false": 1.0}
    network.forward(network.prepare(case.spikes()), np.arange(20), rule=rule)
    read = engine.read_out(network.layers[-1], labels, latency_times=np.array([0.1]), **targets)
    counts = network.layers[-1].spike_count
    loss, errors = spike_count_loss(counts, labels, **targets)
    assert counts.any()
    np.testing.assert_array_equal(read.loss, loss)
    np.testing.assert_array_equal(read.errors, errors)
