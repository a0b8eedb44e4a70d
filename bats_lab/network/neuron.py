r"""One neuron, to look at: what reached it, its membrane potential (eq. 4-7), its crossings and the spikes it sent.

The engine needs no potential: it goes from one crossing to the next. People do, so this module evaluates the potential
from the spikes that the engine found. It is written to be read; the speed is in :mod:`bats_lab.engine`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bats_lab.network.exact import next_crossing, potential_after
from bats_lab.network.feedforward import Network
from bats_lab.spikes.grid import discretize_spikes, to_ticks
from bats_lab.spikes.rules import RULES
from bats_lab.spikes.trains import Spikes

__all__ = ["Neuron", "potential", "simulate_neuron"]


def potential(
    times: np.ndarray,
    *,
    input_times: np.ndarray,
    weights: np.ndarray,
    reset_times: np.ndarray,
    tau_syn: float,
    threshold: float,
    tau_mem: float | None = None,
) -> np.ndarray:
    r"""Evaluate the membrane potential of a neuron whose resets are known.

    .. math::
        u(t) = \sum_i w_i\,\epsilon(t - t_i) - \sum_k \eta(t - t_k), \qquad
        \epsilon(t) = \Theta(t)\,\frac{\tau\tau_s}{\tau-\tau_s}\,(e^{-t/\tau} - e^{-t/\tau_s}), \qquad
        \eta(t) = \Theta(t)\,\vartheta\,e^{-t/\tau}

    Parameters
    ----------
    times : ndarray, any shape
        Times at which to evaluate it, in seconds.
    input_times, weights : ndarray, (input,)
        When each input spike reaches the neuron, in seconds, and the weight of its synapse.
    reset_times : ndarray, (reset,)
        When the neuron was reset, in seconds.
    tau_syn : float
        Synaptic time constant :math:`\tau_s` in seconds.
    threshold : float
        Threshold :math:`\vartheta`, which is what a reset takes away.
    tau_mem : float or None
        Membrane time constant :math:`\tau` in seconds; None: :math:`2\tau_s`.

    Returns
    -------
    ndarray, shape of `times`

    Notes
    -----
    Thesis eq. 4-7; with :math:`\tau = 2\tau_s` the factor of eq. 5 is :math:`\tau`, and :math:`\epsilon` becomes
    :math:`t\,e^{-t/\tau}` as :math:`\tau \to \tau_s`. At the very time of a reset it has not happened yet, since
    :math:`\Theta(0) = 0`. Every exponent is that of time gone by since an event, so nothing overflows.

    Examples
    --------
    One input of weight 8 and no reset yet; the potential passes the threshold of 0.2 just before 40 ms:

    >>> one = {"input_times": np.array([0.01]), "weights": np.array([8.0]), "tau_syn": 0.13, "threshold": 0.2}
    >>> potential(np.array([0.005, 0.04, 0.06]), reset_times=np.array([]), **one).round(4)
    array([0.    , 0.202 , 0.3002])
    """
    times = np.asarray(times, dtype=float)
    tau, weights = 2 * tau_syn if tau_mem is None else tau_mem, np.asarray(weights, dtype=float)

    def since(events: np.ndarray) -> np.ndarray:
        return times[..., None] - np.asarray(events, dtype=float)

    def fading(events: np.ndarray) -> np.ndarray:
        gone = since(events)
        return np.where(gone > 0, np.exp(-np.maximum(gone, 0.0) / tau), 0.0)

    driven: np.ndarray
    if tau == 2 * tau_syn:
        # ε(t) = τ (E - E²) with E = exp(-t/τ), since exp(-t/τ_s) is its square; η(t) = ϑ E.
        from_inputs = fading(input_times)
        driven = tau * (from_inputs - from_inputs**2) @ weights
    else:
        slow, fast = 1 / max(tau, tau_syn), 1 / min(tau, tau_syn)
        gone = np.maximum(since(input_times), 0.0)
        spread = -np.expm1(-(fast - slow) * gone) / (fast - slow) if fast > slow else gone
        driven = np.exp(-slow * gone) * spread @ weights
    return driven - threshold * fading(reset_times).sum(axis=-1)


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """What one neuron received and did in one sample.

    Attributes
    ----------
    input_times, input_sent : ndarray, (input,)
        When each input spike was computed and when it was sent, in seconds; equal in continuous time.
    weights : ndarray, (input,)
        Weight of the synapse by which it came.
    times, discretized : ndarray, (crossing,)
        Crossings that reset the neuron and the times at which their spikes are sent, in seconds, as in
        :class:`bats_lab.network.feedforward.LayerActivity`; `discretized` is ``inf`` where a spike was merged or lost.
    tau_syn, threshold, duration : float
        Synaptic time constant (s), threshold, and length of the window (s).
    tau_mem : float or None
        Membrane time constant (s); None: twice the synaptic one.
    delta_t : float
        Time step in seconds, 0 for continuous time.
    rule : str
        Collision rule.
    truncated : bool
        Whether the neuron had used up its spikes at the last crossing, and stopped.
    """

    input_times: np.ndarray
    input_sent: np.ndarray
    weights: np.ndarray
    times: np.ndarray
    discretized: np.ndarray
    tau_syn: float
    threshold: float
    duration: float
    delta_t: float
    rule: str
    truncated: bool = False
    tau_mem: float | None = None

    @property
    def reset_times(self) -> np.ndarray:
        """When the neuron was reset, in seconds: at its crossings, but for rule ``clocked`` at the ticks."""
        return self.discretized if RULES[self.rule].clocked else self.times

    @property
    def end(self) -> float:
        """Time up to which the neuron took part, in seconds: the window's end, unless it stopped before."""
        return float(self.times[-1]) if self.truncated else self.duration

    @property
    def spike_count(self) -> int:
        """Spikes sent."""
        return int(np.isfinite(self.discretized).sum())

    @property
    def unsent(self) -> int:
        """Crossings that reset the neuron and sent nothing: merged, or lost past the window."""
        return len(self.times) - self.spike_count

    @property
    def deferred(self) -> int:
        """Spikes sent later than on the tick after their crossing."""
        if not RULES[self.rule].delays or not self.delta_t:
            return 0
        sent = np.isfinite(self.discretized)
        late = self.discretized[sent] / self.delta_t - to_ticks(self.times[sent], self.delta_t) > 0.5
        return int(late.sum())

    @cached_property
    def ignored(self) -> np.ndarray:
        """Upward crossings that sent no spike and did not reset the neuron, in seconds: those that ``drop`` ignored.

        Notes
        -----
        Between two events the potential crosses upward once at most (eq. 8). A stretch that ends in a reset has had its
        crossing.
        """
        if RULES[self.rule].resets or not self.delta_t:
            return np.array([])
        leak_rate, syn_rate = 1 / (self.tau_mem or 2 * self.tau_syn), 1 / self.tau_syn
        arrivals = sorted(zip(self.input_sent.tolist(), self.weights.tolist(), strict=True))
        events = [(time, weight, False) for time, weight in arrivals if time <= self.end]
        # A reset comes before an input at the same time, as the crossing belongs to the stretch that ends there.
        events = sorted([*events, *((float(time), 0.0, True) for time in self.times)], key=lambda e: (e[0], not e[2]))
        found = []
        u = current = latest = 0.0
        for i, (time, weight, is_reset) in enumerate(events):
            u = potential_after(time - latest, u, 0.0, current, leak_rate, syn_rate)[0] - self.threshold * is_reset
            current, latest = current * math.exp(-(time - latest) * syn_rate) + weight, time
            stop, ends_in_reset = (events[i + 1][0], events[i + 1][2]) if i + 1 < len(events) else (self.end, False)
            if ends_in_reset or stop == time or u >= self.threshold:
                continue
            crossing = time + next_crossing(u, 0.0, current, leak_rate, syn_rate, self.threshold)
            if crossing <= stop:
                found.append(crossing)
        return np.array(found)

    @cached_property
    def silenced_from(self) -> float | None:
        """Time from which the potential stays at or above the threshold until the end, in seconds; None: it does not.

        Under rule ``drop`` such a neuron has fallen silent: without a reset there is nothing left to cross.
        """
        if not len(self.ignored):
            return None
        last = float(self.ignored[-1])
        later = self.moments()
        later = later[later > last]
        stays = bool((self.potential(later) > self.threshold * (1 - 1e-9)).all()) and last >= self.times[-1]
        return last if stays else None

    def potential(self, times: np.ndarray) -> np.ndarray:
        """Return the membrane potential at some times (s), by :func:`potential`."""
        return potential(
            times,
            input_times=self.input_sent,
            weights=self.weights,
            reset_times=self.reset_times,
            tau_syn=self.tau_syn,
            threshold=self.threshold,
            tau_mem=self.tau_mem,
        )

    def moments(self, n: int = 500) -> np.ndarray:
        """Return times that show the potential as it is: evenly spaced, with every input and both sides of every reset.

        Parameters
        ----------
        n : int
            How many evenly spaced ones.

        Returns
        -------
        ndarray
            Times in seconds, ascending, from 0 to :attr:`end`.
        """
        resets = self.reset_times
        after = np.nextafter(resets, np.inf)
        moments = np.concatenate([np.linspace(0, self.end, n), self.input_sent, resets, after])
        return np.unique(moments[moments <= self.end])


def simulate_neuron(
    times: np.ndarray,
    weights: np.ndarray,
    *,
    tau_syn: float = 0.13,
    threshold: float = 0.2,
    delta_t: float = 0.0,
    rule: str = "drop",
    duration: float = 0.2,
    max_spikes: int = 200,
    tau_mem: float | None = None,
) -> Neuron:
    """Let a few input spikes act on one neuron.

    Parameters
    ----------
    times, weights : array_like, (input,)
        Time of each input spike in seconds, before it is moved to the time grid, and the weight of its synapse.
    tau_syn : float
        Synaptic time constant in seconds.
    threshold : float
        Threshold, which is also what a reset takes away.
    delta_t : float
        Time step in seconds; 0 is continuous time.
    rule : str
        Collision rule; in continuous time the first four are the same.
    duration : float
        Length of the simulated window in seconds.
    max_spikes : int
        Crossings after which the neuron stops.
    tau_mem : float or None
        Membrane time constant in seconds; None: twice the synaptic one.

    Returns
    -------
    Neuron

    Raises
    ------
    ValueError
        If times and weights do not match, or a value is not allowed.

    Examples
    --------
    >>> neuron = simulate_neuron([0.012, 0.031], [8, 6], delta_t=0.01, rule="graded")
    >>> neuron.times[:4].round(4), neuron.discretized[:4].round(4)
    (array([0.0448, 0.0627, 0.0836, 0.1087]), array([0.05, 0.07, 0.09, 0.11]))
    """
    times, weights = np.asarray(times, dtype=float), np.asarray(weights, dtype=float)
    if times.ndim != 1 or times.shape != weights.shape:
        raise ValueError(
            f"times and weights have the shapes {times.shape} and {weights.shape}; both must be (input,), equally long."
        )
    if not (np.isfinite(times).all() and np.isfinite(weights).all()):
        raise ValueError("times and weights must be finite numbers.")
    network = Network(
        (max(len(times), 1), 1),
        thresholds=[threshold],
        max_spikes=[max_spikes],
        tau_syn=tau_syn,
        tau_mem=tau_mem,
        duration=duration,
        weights=[weights[None] if len(times) else np.zeros((1, 1))],
        dtype="float64",
        device="cpu",
        threads=1,
    )
    spikes = discretize_spikes(Spikes.from_padded((times if len(times) else np.array([np.inf]))[None]), delta_t)
    [activity] = network.simulate(spikes, rule=rule)
    order, computed, sent = spikes.sample(0)
    fired = np.isfinite(activity.times[0, 0])
    return Neuron(
        input_times=computed,
        input_sent=sent,
        weights=weights[order],
        times=activity.times[0, 0][fired],
        discretized=activity.discretized[0, 0][fired],
        tau_syn=float(tau_syn),
        tau_mem=None if tau_mem is None else float(tau_mem),
        threshold=float(threshold),
        duration=float(duration),
        delta_t=float(delta_t),
        rule=rule,
        truncated=bool(activity.truncated_neurons[0]),
    )
