"""Distances of spike trains against what they are by definition: edits tried one by one, integrals on a fine grid."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bats_lab.spikes.distances import van_rossum, victor_purpura

TRAINS = st.lists(st.integers(0, 50), max_size=6).map(lambda ticks: np.array(ticks, float) / 250)
SCALES = st.sampled_from([0.002, 0.02, 0.2])


def cheapest_edit(a: tuple[float, ...], b: tuple[float, ...], cost: float) -> float:
    """Try every way to pair spikes off in order; those that are not paired are removed or added."""

    @functools.cache
    def rest(i: int, j: int) -> float:
        options = [len(a) - i + len(b) - j + 0.0]
        options += [
            k - i + m - j + cost * abs(a[k] - b[m]) + rest(k + 1, m + 1)
            for k in range(i, len(a))
            for m in range(j, len(b))
        ]
        return min(options)

    return rest(0, 0)


def integral(a: np.ndarray, b: np.ndarray, tau: float) -> float:
    """Integrate the squared difference of the filtered trains, on a grid that no jump lies within a step of."""
    width = tau / 2000
    grid = np.arange(0, 0.2 + 25 * tau, width) + width / 2
    difference = np.zeros(len(grid))
    for times, sign in ((a, 1), (b, -1)):
        for time in times:
            difference += sign * np.where(grid > time, np.exp(-np.maximum(grid - time, 0) / tau), 0)
    return float(np.sqrt((difference**2).sum() * width / tau))


@given(a=TRAINS, b=TRAINS, cost=st.sampled_from([0.0, 3.0, 60.0, 2000.0]))
def test_victor_purpura_is_the_cheapest_of_all_edits(a: np.ndarray, b: np.ndarray, cost: float) -> None:
    expected = cheapest_edit(tuple(np.sort(a)), tuple(np.sort(b)), cost)
    assert float(victor_purpura(a, b, cost=cost)) == pytest.approx(expected, abs=1e-12)


@given(a=TRAINS, b=TRAINS, tau=st.sampled_from([0.02, 0.2]))
def test_van_rossum_is_the_integral(a: np.ndarray, b: np.ndarray, tau: float) -> None:
    assert float(van_rossum(a, b, tau=tau)) == pytest.approx(integral(a, b, tau), abs=2e-2)


@given(a=TRAINS, b=TRAINS, tau=SCALES)
def test_van_rossum_is_the_double_sum(a: np.ndarray, b: np.ndarray, tau: float) -> None:
    times, signs = np.concatenate([a, b]), np.repeat([1.0, -1.0], [len(a), len(b)])
    kernel = np.exp(-np.abs(times[:, None] - times) / tau)
    assert float(van_rossum(a, b, tau=tau)) ** 2 == pytest.approx(signs @ kernel @ signs / 2, abs=1e-12)


@given(a=TRAINS, b=TRAINS, c=TRAINS, scale=SCALES)
def test_both_are_metrics(a: np.ndarray, b: np.ndarray, c: np.ndarray, scale: float) -> None:
    for distance in (
        functools.partial(victor_purpura, cost=1 / scale),
        functools.partial(van_rossum, tau=scale),
    ):
        assert distance(a, a) == 0 and distance(a, b) == pytest.approx(distance(b, a), abs=1e-9)
        assert distance(a, c) <= distance(a, b) + distance(b, c) + 1e-7
        assert (distance(a, b) > 1e-4) == (sorted(a) != sorted(b))


def test_known_values() -> None:
    one, moved, none = np.array([0.05]), np.array([0.06]), np.array([np.inf])
    # A spike 10 ms later costs 1 at q = 100/s; far later it is removed and added.
    assert float(victor_purpura(one, moved, cost=100)) == pytest.approx(1)
    assert float(victor_purpura(one, moved, cost=1e4)) == 2
    assert float(victor_purpura(np.array([0.1, 0.2, 0.3]), one, cost=0)) == 2
    assert float(van_rossum(one, none, tau=0.02)) == pytest.approx(np.sqrt(0.5))
    # Two spikes d apart: 1 - exp(-d / τ).
    assert float(van_rossum(one, moved, tau=0.02)) ** 2 == pytest.approx(1 - np.exp(-0.5))
    assert float(van_rossum(np.array([0.1, 0.1]), none, tau=0.02)) == pytest.approx(np.sqrt(2))


def test_trains_of_many_neurons_are_held_against_each_other_one_by_one() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 0.1, (3, 4, 5)), rng.uniform(0, 0.1, (4, 2))
    a[0, 1, 2:], b[3] = np.inf, np.nan
    for distance in (functools.partial(victor_purpura, cost=50), functools.partial(van_rossum, tau=0.01)):
        together = distance(a, b)
        assert together.shape == (3, 4)
        assert all(together[i, j] == distance(a[i, j], b[j]) for i in range(3) for j in range(4))
    assert victor_purpura(np.empty((0, 3)), np.empty((0, 2)), cost=1).shape == (0,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: victor_purpura(a, a, cost=-1.0), "cost is -1.0; it must be at least 0"),
        (lambda a: van_rossum(a, a, tau=0.0), "tau is 0.0; it must be above 0 s"),
        (lambda a: van_rossum(a, np.zeros((3, 2)), tau=0.1), r"shapes \(2, 2\) and \(3, 2\)"),
        (lambda a: van_rossum(a, np.float64(1), tau=0.1), "a single number"),
    ],
)
def test_what_cannot_be_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(np.zeros((2, 2)))
