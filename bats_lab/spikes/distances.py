"""How far spike trains are apart: by what it costs to turn one into another, or by what a synapse makes of them."""

from __future__ import annotations

import math

import numba
import numpy as np

__all__ = ["van_rossum", "victor_purpura"]


def victor_purpura(a: np.ndarray, b: np.ndarray, *, cost: float) -> np.ndarray:
    r"""Return the least that turning one spike train into another costs: 1 for a spike more or less, q·|Δt| to move it.

    .. math:: G_{ij} = \min\bigl(G_{i-1,j} + 1,\; G_{i,j-1} + 1,\; G_{i-1,j-1} + q\,|a_i - b_j|\bigr)

    Parameters
    ----------
    a, b : ndarray, (..., spike)
        Spike times in seconds, in any order; not finite where there is no spike. The dimensions before the last must be
        the same, or broadcast.
    cost : float
        Cost :math:`q` of moving a spike, per second: spikes within :math:`2/q` of each other are moved, others are
        removed and added. At 0 the distance is the difference of the numbers of spikes.

    Returns
    -------
    ndarray of float64, (...)
        Distances, of no unit; 0-dimensional for two trains.

    Raises
    ------
    ValueError
        If `cost` is negative or not finite, or the shapes do not fit.

    Notes
    -----
    J. D. Victor, K. P. Purpura, *J. Neurophysiol.* 76, 1996: :math:`D^{\mathrm{spike}}[q]`.

    Examples
    --------
    >>> round(float(victor_purpura(np.array([0.01, 0.05]), np.array([0.013, np.inf]), cost=100)), 4)
    1.3
    """
    if not (cost >= 0 and math.isfinite(cost)):
        raise ValueError(f"cost is {cost}; it must be at least 0 per second and finite.")
    first, second, shape = _pairs(a, b)
    return _cheapest(first, second, float(cost)).reshape(shape)


def van_rossum(a: np.ndarray, b: np.ndarray, *, tau: float) -> np.ndarray:
    r"""Return how far two spike trains are apart once a synapse has made a decaying exponential of each spike.

    .. math:: D^2 = \frac{1}{\tau} \int_0^\infty (f - g)^2 \, dt = \frac12 \sum_{ij} s_i s_j\, e^{-|t_i - t_j| / \tau},
        \qquad f(t) = \sum_{a_i \le t} e^{-(t - a_i)/\tau}

    Parameters
    ----------
    a, b : ndarray, (..., spike)
        As in :func:`victor_purpura`. In the sum the spikes of both are one train, with the sign :math:`s = 1` for those
        of `a` and -1 for those of `b`.
    tau : float
        Time constant in seconds. Well below the time between spikes the squared distance is half the number of spikes
        that are not the same; far above it, half the squared difference of their numbers.

    Returns
    -------
    ndarray of float64, (...)
        Distances :math:`D`, of no unit: :math:`\sqrt{1/2}` for one spike more.

    Raises
    ------
    ValueError
        If `tau` is not above 0 and finite, or the shapes do not fit.

    Notes
    -----
    M. C. W. van Rossum, *Neural Comput.* 13, 2001. The double sum takes one pass: what has been summed decays from one
    spike to the next.

    Examples
    --------
    >>> van_rossum(np.array([[0.01], [0.01]]), np.array([[0.01], [np.inf]]), tau=0.02).round(4)
    array([0.    , 0.7071])
    """
    if not (tau > 0 and math.isfinite(tau)):
        raise ValueError(f"tau is {tau}; it must be above 0 s and finite.")
    first, second, shape = _pairs(a, b)
    return _filtered(first, second, float(tau)).reshape(shape)


def _pairs(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Return the trains of both, one pair a row, spikes ascending, infinity after the last, and the pairs' shape."""
    trains = [np.asarray(times, np.float64) for times in (a, b)]
    if min(t.ndim for t in trains) < 1:
        raise ValueError("a and b must have a dimension of spikes; one of them is a single number.")
    try:
        shape = np.broadcast_shapes(*(t.shape[:-1] for t in trains))
    except ValueError:
        raise ValueError(
            f"a and b have the shapes {trains[0].shape} and {trains[1].shape}; but for the last dimension, that of "
            f"spikes, they must be the same."
        ) from None
    rows = []
    for times in trains:
        n_spikes = times.shape[-1]
        ascending = np.sort(np.where(np.isfinite(times), times, np.inf), axis=-1)
        rows.append(np.broadcast_to(ascending, (*shape, n_spikes)).reshape(math.prod(shape), n_spikes))
    return np.ascontiguousarray(rows[0]), np.ascontiguousarray(rows[1]), shape


@numba.njit(cache=True, nogil=True)
def _cheapest(a: np.ndarray, b: np.ndarray, cost: float) -> np.ndarray:
    """Fill the table of least costs row after row, of each pair of trains; the last row is all that is kept."""
    distance = np.empty(len(a))
    row = np.empty(b.shape[1] + 1)
    for pair in range(len(a)):
        n, m = np.sum(a[pair] < np.inf), np.sum(b[pair] < np.inf)
        for j in range(m + 1):
            row[j] = j
        for i in range(n):
            diagonal, row[0] = row[0], i + 1.0
            for j in range(m):
                moved = diagonal + cost * abs(a[pair, i] - b[pair, j])
                diagonal = row[j + 1]
                row[j + 1] = min(moved, row[j + 1] + 1, row[j] + 1)
        distance[pair] = row[m]
    return distance


@numba.njit(cache=True, nogil=True)
def _filtered(a: np.ndarray, b: np.ndarray, tau: float) -> np.ndarray:
    """Go through the spikes of both trains in the order of time; of equal times `a` is first, so that they cancel."""
    distance = np.empty(len(a))
    for pair in range(len(a)):
        n, m = np.sum(a[pair] < np.inf), np.sum(b[pair] < np.inf)
        i, j, total, trace, last = 0, 0, 0.0, 0.0, 0.0
        while i < n or j < m:
            from_a = j == m or (i < n and a[pair, i] <= b[pair, j])
            time, sign = (a[pair, i], 1.0) if from_a else (b[pair, j], -1.0)
            i, j = (i + 1, j) if from_a else (i, j + 1)
            trace *= np.exp((last - time) / tau)
            total += 0.5 + sign * trace  # of itself, and of the pairs with all before it
            trace += sign
            last = time
        distance[pair] = np.sqrt(max(total, 0.0))
    return distance
