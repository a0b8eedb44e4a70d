"""Output neurons that have fallen silent are woken: without a spike there is no gradient, and their class is lost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bats_lab.config import Config
from bats_lab.engine import State
from bats_lab.network.feedforward import Network
from bats_lab.runs.records import EpochRecord
from bats_lab.spikes.trains import Spikes

__all__ = ["missed_classes", "wake_classes"]

#: Spikes that a woken neuron sends, on average, for a sample of its class.
WOKEN_RATE = 1.0

_SAMPLES = 100  # of a class, by which its neuron is woken
_DOUBLINGS, _HALVINGS = 60, 6


def missed_classes(records: Sequence[EpochRecord], labels: np.ndarray) -> list[int]:
    """List the classes that training told less often than by chance in its last epoch, maybe since they are silent.

    Parameters
    ----------
    records : sequence of EpochRecord
        The epochs so far.
    labels : ndarray of int, (sample,)
        Classes of the training samples.
    """
    if not records:
        return []
    confusion = records[-1].train.confusion
    recall = np.diag(confusion) / np.maximum(confusion.sum(axis=1), 1)
    return [c for c in np.unique(labels).tolist() if recall[c] < 1 / len(recall)]


def wake_classes(state: State, config: Config, inputs: Spikes, labels: np.ndarray, classes: Sequence[int]) -> State:
    """Raise the weights of silent output neurons until they spike for their classes.

    Parameters
    ----------
    state : State
        Of the network; its moments are kept.
    config : Config
        The run, with the thresholds it is trained with.
    inputs : Spikes
        Input spikes of the training samples, on the run's time grid.
    labels : ndarray of int, (sample,)
        Their classes.
    classes : sequence of int
        Classes whose neurons may be silent.

    Returns
    -------
    State
        The weights w_j of each neuron that sends no spike for the samples shown have become w_j + b·n̄, where n̄ is how
        often each neuron of the layer before spikes for a sample of class j, on average over the first 100 of them, and
        b the least factor (to 2 %) with which neuron j sends a spike for such a sample on average. Where no factor
        does, w_j is what it was.

    Notes
    -----
    n̄ is the direction in which the drive of neuron j by its class grows fastest: that of the gradient which a silent
    neuron lacks. Göltz et al. (2021, Nature Machine Intelligence 3) raise all weights of silent neurons alike.
    """
    weights = [w.copy() for w in state.weights]
    before = Network(
        (weights[0].shape[1], *(len(w) for w in weights)),
        thresholds=config.thresholds,
        max_spikes=config.max_spikes,
        **config.time_constants,
        duration=config.duration,
        weights=weights,
        dtype=config.dtype,
        device="cpu",
    )
    for c in classes:
        shown = inputs[np.flatnonzero(labels == c)[:_SAMPLES]]
        if len(weights) > 1:
            [(_, layers)] = before.sent_spikes(before.prepare(shown), rule=config.rule)
            shown = layers[-2].packed()
        counts = np.bincount(shown.neuron, minlength=weights[-1].shape[1]) / len(shown)
        weights[-1][c] = _woken(weights[-1][c], counts, shown, config)
    return state._replace(weights=weights)


def _woken(own: np.ndarray, direction: np.ndarray, shown: Spikes, config: Config) -> np.ndarray:
    """Return the weights of one output neuron, raised along a direction until it spikes for the samples shown."""
    if not direction.any():
        return own
    constants = {k: v[-1] if isinstance(v, tuple) else v for k, v in config.time_constants.items()}
    neuron = Network(
        (len(own), 1),
        thresholds=[config.threshold_output],
        max_spikes=[config.max_spikes_output],
        **constants,
        duration=config.duration,
        dtype=config.dtype,
        device="cpu",
    )

    def raised(factor: float) -> np.ndarray:
        return (own + factor * direction).astype(own.dtype)

    def sent(factor: float) -> int:
        neuron.set_weights([raised(factor)[None]])
        return sum(int(layers[-1].count.sum()) for _, layers in neuron.sent_spikes(shown, rule=config.rule))

    def spikes(factor: float) -> bool:
        return sent(factor) >= WOKEN_RATE * len(shown)

    if sent(0):
        return own

    high = 1e-6 * config.threshold_output / float(direction @ direction)
    for _ in range(_DOUBLINGS):
        if spikes(high):
            break
        high *= 2
    else:
        return own
    low = high / 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if spikes(middle) else (middle, high)
    return raised(high)
