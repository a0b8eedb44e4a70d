"""How the time of a spike depends on one weight: by moving the weight, and by backpropagation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bats_lab.network.feedforward import Network
from bats_lab.spikes.trains import Spikes

__all__ = ["SpikeTimeSweep", "spike_time_gradient", "sweep_weight"]


@dataclass(frozen=True)
class SpikeTimeSweep:
    """What the first spike of an output neuron does while one weight is moved and all others stay.

    Attributes
    ----------
    weight : ndarray, (value,)
        Values of the weight.
    time, sent : ndarray, (value,)
        When the neuron first crosses its threshold and when that spike is sent, in seconds; NaN where it does not.
    spike_count : ndarray of int, (value,)
        Spikes that the neuron sends in the whole window.
    """

    weight: np.ndarray
    time: np.ndarray
    sent: np.ndarray
    spike_count: np.ndarray


def sweep_weight(
    network: Network,
    spikes: Spikes,
    values: np.ndarray,
    *,
    layer: int,
    post: int,
    pre: int,
    neuron: int = 0,
    rule: str = "drop",
) -> SpikeTimeSweep:
    """Move one weight of a network and watch the first spike of an output neuron.

    Parameters
    ----------
    network : Network
        The network; it stays as it is.
    spikes : Spikes
        Input spikes of one sample, on the time grid (:func:`bats_lab.spikes.grid.discretize_spikes`).
    values : ndarray, (value,)
        Values that the weight is given.
    layer, post, pre : int
        The weight: which of `network.weights`, and its place there.
    neuron : int
        The output neuron.
    rule : str
        Collision rule.

    Returns
    -------
    SpikeTimeSweep

    Notes
    -----
    There is one copy of the network for each value, none connected to another, and all of them run in one pass. That
    is fast for small networks; the weights of a copy are held as often as there are copies.

    Examples
    --------
    A stronger weight makes the neuron fire earlier:

    >>> one = Network((1, 1), thresholds=[0.2], max_spikes=[9], tau_syn=0.13, duration=0.2, weights=[[[8.0]]])
    >>> spikes = Spikes.from_padded(np.array([[0.01]]))
    >>> sweep_weight(one, spikes, [1, 8, 16], layer=0, post=0, pre=0).time.round(3)
    array([  nan, 0.04 , 0.024])
    """
    values = np.asarray(values, dtype=float)
    n = len(values)
    # Copies side by side in each layer: block-diagonal weights but in the first, whose inputs all of them share.
    copies = [np.tile(network.weights[0], (n, 1)), *(np.kron(np.eye(n), w) for w in network.weights[1:])]
    copy = np.arange(n)
    height, width = network.weights[layer].shape
    copies[layer][copy * height + post, (copy * width if layer else 0) + pre] = values
    many = Network(
        (network.sizes[0], *(n * size for size in network.sizes[1:])),
        thresholds=network.thresholds,
        max_spikes=network.max_spikes,
        tau_syn=network.tau_syn,
        tau_mem=network.tau_mem,
        duration=network.duration,
        weights=copies,
        dtype=network.dtype,
        threads=network.threads,
    )
    output = many.simulate(spikes, rule=rule)[-1]
    which = copy * network.sizes[-1] + neuron
    first, sent = (times[0, which, 0].astype(float) for times in (output.times, output.discretized))
    known = np.isfinite(first)
    return SpikeTimeSweep(
        weight=values,
        time=np.where(known, first, np.nan),
        sent=np.where(known, sent, np.nan),
        spike_count=output.spike_count[0, which].astype(int),
    )


def spike_time_gradient(network: Network, spikes: Spikes, *, neuron: int = 0, rule: str = "drop") -> list[np.ndarray]:
    r"""Return the derivative of the first spike time of an output neuron for every weight, by backpropagation.

    Parameters
    ----------
    network : Network
        The network.
    spikes : Spikes
        Input spikes of one sample, on the time grid.
    neuron : int
        The output neuron.
    rule : str
        Collision rule.

    Returns
    -------
    list of ndarray, (post, pre)
        :math:`\partial t_1/\partial w` in seconds per unit of weight, one array a layer; 0 where the neuron does not
        spike.

    Notes
    -----
    Thesis eq. 11-16 with the error 1 on the first spike of the neuron and 0 on all others. On a time grid it is the
    straight-through estimate.
    """
    first = Network(
        network.sizes,
        thresholds=network.thresholds,
        # The neuron stops after its first spike, so that the error of its spikes is that of this one.
        max_spikes=(*network.max_spikes[:-1], 1),
        tau_syn=network.tau_syn,
        tau_mem=network.tau_mem,
        duration=network.duration,
        weights=network.weights,
        dtype=network.dtype,
        threads=network.threads,
    )
    errors = np.zeros((1, network.sizes[-1]))
    errors[0, neuron] = 1.0
    return first.gradients(spikes, errors, rule=rule)
