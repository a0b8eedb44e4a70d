"""The table of gradient estimators: what stands for the derivative of the time grid in training.

To add an estimator is to add a row here, what it changes in the kernels of the backward pass, and its tests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bats_lab.spikes.rules import Rule

__all__ = [
    "ESTIMATORS",
    "STRAIGHT_THROUGH",
    "Estimator",
    "Kind",
    "discretize_stochastically",
    "smooth_discretize",
    "surrogate_slope",
]


@dataclass(frozen=True)
class Kind:
    """A kind of gradient estimator: one row of :data:`ESTIMATORS`.

    Attributes
    ----------
    name : str
    by_sent : bool
        Whether the time at which a spike was *sent* says which crossings it came before; else that of its own crossing.
    smooth : bool
        Whether errors are multiplied by the slope of a smooth time grid, :func:`surrogate_slope`.
    random : bool
        Whether the spikes of hidden layers are rounded by :func:`discretize_stochastically` in training.
    """

    name: str
    by_sent: bool = True
    smooth: bool = False
    random: bool = False


#: The estimators by name.
ESTIMATORS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("straight_through", by_sent=False),
        Kind("delayed"),
        Kind("surrogate", smooth=True),
        Kind("stochastic", random=True),
    )
}


@dataclass(frozen=True)
class Estimator:
    r"""A gradient estimator: what stands for the derivative of :math:`d(t)`, which is zero but for its jumps.

    ========================  ==================================================================  ====================
    name                      which spike came before which                                       :math:`d'(t)`
    ========================  ==================================================================  ====================
    ``straight_through``      by continuous times on both sides (thesis, eq. 15-16)               1
    ``delayed``               by the time at which the spike was sent: what the neuron really     1
                              received counts. The exact gradient of the network in which every
                              spike keeps the delay :math:`d(t) - t` that it had
    ``surrogate``             as ``delayed``                                                      that of
                                                                                                  `smooth_discretize`
    ``stochastic``            as ``delayed``; in training :func:`discretize_stochastically`       1, the derivative of
                              rounds the hidden layers' spikes in place of :math:`d(t)`           its expectation
    ========================  ==================================================================  ====================

    Attributes
    ----------
    name : str
        One of :data:`ESTIMATORS`.
    width : float
        Half-width of the surrogate's steps, in time steps.

    Raises
    ------
    ValueError
        If there is no such estimator, or `width` is not above 0.
    """

    name: str = "straight_through"
    width: float = 0.25

    def __post_init__(self) -> None:
        if self.name not in ESTIMATORS:
            raise ValueError(f"estimator is {self.name!r}; it must be one of {', '.join(ESTIMATORS)}.")
        if not 0 < self.width < math.inf:
            raise ValueError(f"width is {self.width}; it must be a number above 0.")

    @property
    def by_sent(self) -> bool:
        """Whether the time at which a spike was sent says which crossings it came before."""
        return ESTIMATORS[self.name].by_sent

    @property
    def slope_width(self) -> float:
        """Width of the surrogate whose slope errors are multiplied by; 0: they are not."""
        return self.width if ESTIMATORS[self.name].smooth else 0.0

    def check_rule(self, rule: Rule) -> None:
        """Refuse a collision rule with which this estimator has no meaning.

        Raises
        ------
        ValueError
            If it rounds crossings at random, and under the rule no crossing is rounded to the grid.
        """
        if ESTIMATORS[self.name].random and rule.clocked:
            others = ", ".join(name for name, kind in ESTIMATORS.items() if not kind.random)
            raise ValueError(
                f"estimator is {self.name!r} with rule {rule.name!r}, which rounds no crossing to the grid; it must be "
                f"one of {others}."
            )


#: The thesis' estimator.
STRAIGHT_THROUGH = Estimator()


def smooth_discretize(times: np.ndarray, delta_t: float, width: float) -> np.ndarray:
    r"""Return the smooth surrogate of :math:`d(t)`: its jumps spread out as arctan steps.

    .. math:: d_w(t) = \Delta t\left[\tfrac12 + \frac{t}{\Delta t} + \frac1\pi\arctan
              \frac{q\sin 2\pi\varphi}{1 - q\cos 2\pi\varphi}\right],
              \qquad \varphi = \frac{t}{\Delta t}, \quad q = e^{-2\pi w}

    Parameters
    ----------
    times : ndarray, any shape
        Times in seconds.
    delta_t : float
        Time step in seconds, above 0.
    width : float
        Half-width :math:`w` of a step, in time steps, above 0. Towards 0 it becomes :math:`d(t)`; when it is large,
        the straight line :math:`t + \Delta t/2`.

    Returns
    -------
    ndarray, shape of `times`
        Seconds.

    Notes
    -----
    :math:`d(t)` convolved with a Cauchy density of half-width :math:`w\Delta t`: the arctan surrogate that is common
    for the spike itself (Fang et al., 2021), summed over all steps of the grid, for which there is this closed form.
    """
    phase = np.asarray(times, np.float64) / delta_t
    q, angle = math.exp(-2 * math.pi * width), 2 * math.pi * phase
    bend = np.arctan2(q * np.sin(angle), 1 - q * np.cos(angle)) / math.pi
    return delta_t * (0.5 + phase + bend)


def surrogate_slope(times: np.ndarray, delta_t: float, width: float) -> np.ndarray:
    r"""Return the derivative of :func:`smooth_discretize`, whose mean over a time step is 1 (the Poisson kernel).

    .. math:: d_w'(t) = \frac{1 - q^2}{1 - 2q\cos(2\pi t/\Delta t) + q^2}, \qquad q = e^{-2\pi w}

    Parameters
    ----------
    times : ndarray, any shape
        Times in seconds.
    delta_t : float
        Time step in seconds, above 0.
    width : float
        Half-width of a step, in time steps, above 0.

    Returns
    -------
    ndarray, shape of `times`

    Examples
    --------
    >>> surrogate_slope(np.array([0.0, 0.005]), delta_t=0.01, width=0.25).round(3)
    array([1.525, 0.656])
    """
    q = math.exp(-2 * math.pi * width)
    return (1 - q * q) / (1 - 2 * q * np.cos(2 * math.pi * np.asarray(times, np.float64) / delta_t) + q * q)


def discretize_stochastically(times: np.ndarray, delta_t: float, uniform: np.ndarray) -> np.ndarray:
    r"""Round times to the grid so that they are :math:`t + \Delta t/2` in expectation: the mean of :math:`d(t)`.

    .. math:: \Delta t\left\lfloor \frac{t}{\Delta t} + \tfrac12 + u\right\rfloor, \qquad u \sim U[0, 1)

    Parameters
    ----------
    times : ndarray, any shape
        Times in seconds.
    delta_t : float
        Time step in seconds, above 0.
    uniform : ndarray, shape of `times`
        Random numbers :math:`u`.

    Returns
    -------
    ndarray, shape of `times`
        Seconds.

    Notes
    -----
    Stochastic rounding (Gupta et al., 2015) of :math:`t + \Delta t/2`. It is at most one tick from :math:`d(t)`, and
    may be up to half a step before `t`: a device for training, where the estimator ``stochastic`` uses it, not for a
    chip. Collision rules decide on :math:`d(t)`, as they will on the chip; only what the next layer receives is
    rounded so.
    """
    return delta_t * np.floor(np.asarray(times, np.float64) / delta_t + 0.5 + uniform)
