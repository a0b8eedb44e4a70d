"""Spike trains: to padded arrays and back, in order, with nothing lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bats_lab.spikes.grid import discretize, discretize_spikes
from bats_lab.spikes.trains import Spikes


@st.composite
def padded_times(draw) -> np.ndarray:
    """Times (sample, neuron, spike) in any order, many of them equal, some of them none."""
    shape = tuple(draw(st.integers(0, n)) for n in (4, 5, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    times = np.round(rng.uniform(0, 0.2, shape), draw(st.sampled_from([2, 17])))
    return np.where(rng.random(shape) < draw(st.sampled_from([0.0, 0.4, 1.0])), np.inf, times)


@given(times=padded_times())
def test_padded_times_come_back_sorted(times: np.ndarray) -> None:
    spikes = Spikes.from_padded(times)
    np.testing.assert_array_equal(spikes.padded(times.shape[2]), np.sort(times, axis=-1))
    assert len(spikes) == times.shape[0] and spikes.n_neurons == times.shape[1]


@given(times=padded_times())
def test_events_ascend_by_time_then_by_neuron(times: np.ndarray) -> None:
    spikes = Spikes.from_padded(times)
    for i in range(len(spikes)):
        neuron, event_times, sent = spikes.sample(i)
        pairs = list(zip(event_times, neuron, strict=True))
        assert pairs == sorted(pairs) and np.isfinite(event_times).all()
        np.testing.assert_array_equal(sent, event_times)
    assert spikes.count.sum() == np.isfinite(times).sum() == len(spikes.times)


@given(times=padded_times())
def test_padding_is_as_wide_as_the_busiest_neuron(times: np.ndarray) -> None:
    busiest = np.isfinite(times).sum(axis=-1).max(initial=0)
    assert Spikes.from_padded(times).padded().shape == (*times.shape[:2], busiest)


def test_narrow_padding_keeps_the_first_spikes_and_wide_padding_adds_none() -> None:
    spikes = Spikes.from_padded(np.array([[[0.03, 0.01, 0.02]]]))
    assert spikes.padded(2).tolist() == [[[0.01, 0.02]]]
    assert spikes.padded(4).tolist() == [[[0.01, 0.02, 0.03, np.inf]]]
    assert spikes.padded(0).shape == (1, 1, 0)


@given(times=padded_times())
def test_sent_times_are_the_ticks(times: np.ndarray) -> None:
    spikes = discretize_spikes(Spikes.from_padded(times), 0.004)
    width = times.shape[2]
    np.testing.assert_array_equal(spikes.padded(width, sent=True), discretize(np.sort(times, axis=-1), 0.004))
    np.testing.assert_array_equal(spikes.padded(width), np.sort(times, axis=-1))


def test_one_spike_a_neuron_needs_no_third_dimension() -> None:
    spikes = Spikes.from_padded([[0.02, np.inf, 0.01]])
    assert spikes.padded().tolist() == [[[0.02], [np.inf], [0.01]]]


def test_samples_may_lie_apart_and_in_any_order() -> None:
    # As the engine leaves them: room after each sample, holding what is left of earlier batches.
    spikes = Spikes.from_padded(np.array([[0.01, 0.02], [0.03, np.inf]]))
    apart = replace(
        spikes,
        start=np.array([4, 0]),
        neuron=np.array([0, 9, 9, 9, 0, 1, 9], np.int32),
        times=np.array([0.03, 9, 9, 9, 0.01, 0.02, 9]),
        ticks=np.zeros(7, np.int32),
    )
    np.testing.assert_array_equal(apart.padded(), spikes.padded())
    assert [apart.sample(i)[1].tolist() for i in (0, 1)] == [[0.01, 0.02], [0.03]]


def test_times_are_kept_in_the_type_asked_for() -> None:
    single = Spikes.from_padded(np.array([[0.1]]), dtype="float32")
    assert single.times.dtype == single.padded().dtype == np.float32
    assert Spikes.from_padded(np.array([[1]])).times.dtype == np.float64


@pytest.mark.parametrize("times", [[[np.nan]], [[-0.1]], [[-np.inf]]])
def test_times_that_make_no_sense_are_refused(times: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"times holds NaN or a negative time; .* at least 0, inf for no spike"):
        Spikes.from_padded(np.array(times))


@pytest.mark.parametrize("shape", [(3,), (1, 1, 1, 1)])
def test_another_number_of_dimensions_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"times has {len(shape)} dimensions; it must have \(sample, neuron\) or"):
        Spikes.from_padded(np.zeros(shape))
