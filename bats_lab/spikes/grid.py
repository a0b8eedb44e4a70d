"""The time grid: ticks, the discretization function (eq. 14), its gradient estimators, and the collision rules."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import overload

import numpy as np

from bats_lab.spikes.trains import Spikes

__all__ = [
    "GRID_TOLERANCE",
    "discretize",
    "discretize_spikes",
    "first_tick_from",
    "ticks_within",
    "to_ticks",
]

#: A time within this fraction of a time step of a tick counts as on it.
GRID_TOLERANCE = 1e-6
# Ticks are int32.
_LAST_TICK = 2**31 - 1


@overload
def to_ticks(times: float, delta_t: float) -> int: ...
@overload
def to_ticks(times: np.ndarray, delta_t: float) -> np.ndarray: ...
def to_ticks(times: np.ndarray | float, delta_t: float) -> np.ndarray | int:
    r"""Return the tick on which a spike at each time is sent: :math:`\lfloor t/\Delta t\rfloor + 1`.

    Parameters
    ----------
    times : ndarray of any shape, or float
        Finite spike times in seconds.
    delta_t : float
        Time step in seconds, above 0.

    Returns
    -------
    ndarray of int32, shape of `times`, or int

    Raises
    ------
    ValueError
        If `delta_t` is not above 0, or so small that a tick is no 32-bit number.

    Examples
    --------
    >>> to_ticks(np.array([0.0, 0.013, 0.02]), delta_t=0.01)
    array([1, 2, 3], dtype=int32)
    """
    if not 0 < delta_t < math.inf:
        raise ValueError(f"delta_t is {delta_t}; it must be a number above 0 for times to have ticks.")
    ticks = np.floor(np.asarray(times, dtype=np.float64) / delta_t + GRID_TOLERANCE) + 1
    if not (np.abs(ticks) <= _LAST_TICK).all():
        raise ValueError(
            f"times reach {np.max(np.abs(times))} s, which is more than {_LAST_TICK} ticks of {delta_t} s; "
            f"they must be finite, and delta_t larger."
        )
    ticks = ticks.astype(np.int32)
    return int(ticks) if ticks.ndim == 0 else ticks


def discretize(times: np.ndarray, delta_t: float) -> np.ndarray:
    r"""Move each spike time to the next tick of the time grid.

    .. math:: d(t) = t + (\Delta t - t \bmod \Delta t)

    Parameters
    ----------
    times : ndarray, any shape
        Spike times in seconds; ``inf`` where there is no spike.
    delta_t : float
        Time step in seconds; 0 returns `times` unchanged.

    Returns
    -------
    ndarray, shape of `times`
        Discretized spike times in seconds; ``inf`` stays ``inf``, and NaN stays NaN.

    Raises
    ------
    ValueError
        If `delta_t` is negative, or so small that a tick is no 32-bit number.

    Notes
    -----
    Thesis eq. 14. The gradient treats this function as the identity (eq. 15-16). A time within
    ``1e-6 * delta_t`` of a tick counts as on it, and moves a full step.

    Examples
    --------
    >>> discretize(np.array([0.0, 0.013, np.inf]), delta_t=0.01)
    array([0.01, 0.02,  inf])
    """
    if delta_t < 0:
        raise ValueError(f"delta_t is {delta_t}; it must be zero or positive.")
    times = np.asarray(times)
    if delta_t == 0:
        return times
    out = times.copy() if times.dtype.kind == "f" else times.astype(np.float64)
    finite = np.isfinite(out)
    out[finite] = to_ticks(out[finite], delta_t) * delta_t
    return out


def discretize_spikes(spikes: Spikes, delta_t: float) -> Spikes:
    """Put continuous spike trains on a time grid, as the inputs of a network are.

    Parameters
    ----------
    spikes : Spikes
        Spike trains; any grid they are on already is ignored.
    delta_t : float
        Time step in seconds; 0 gives continuous time.

    Returns
    -------
    Spikes
        The same spikes, sent on the ticks of eq. 14.
    """
    if delta_t < 0:
        raise ValueError(f"delta_t is {delta_t}; it must be zero or positive.")
    ticks = to_ticks(spikes.times, delta_t) if delta_t else np.zeros(len(spikes.times), np.int32)
    return replace(spikes, ticks=ticks, delta_t=float(delta_t))


def ticks_within(time: float, delta_t: float) -> int:
    """Return how many ticks a time has: the last one at or before it, in the tolerance of the grid; 0 without a grid.

    Examples
    --------
    >>> ticks_within(0.2, 0.008), ticks_within(0.2, 0.003), ticks_within(0.2, 0.0)
    (25, 66, 0)
    """
    return math.floor(time / delta_t + GRID_TOLERANCE) if delta_t else 0


def first_tick_from(time: float, delta_t: float) -> int:
    """Return the first tick at or after a time, in the tolerance of the grid.

    Examples
    --------
    >>> first_tick_from(0.2, 0.008), first_tick_from(0.2, 0.003)
    (25, 67)
    """
    return math.ceil(time / delta_t - GRID_TOLERANCE)
