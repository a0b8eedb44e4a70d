"""What the engines of all devices say about networks that run side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bats_lab.config import LATENCY_TIMES
from bats_lab.spikes.estimators import STRAIGHT_THROUGH, Estimator

__all__ = ["Member", "Sums", "noise_key"]

#: Keys of the random numbers of two batches, or layers, are this far apart: 2^64 over the golden ratio, made odd.
KEY_STEP = 0x9E3779B97F4A7C15


def noise_key(key: int, step: int, layer: int, n_layers: int) -> int:
    """Return the key of the random numbers of one layer in one batch, given that of the pass; 0 stays 0: no noise.

    Random numbers are hashes (`networks._uniform`) of this key and of a crossing's place, so that they
    are the same on every device and with any number of threads.
    """
    return (key + KEY_STEP * (step * n_layers + layer)) % 2**64 if key else 0


@dataclass(frozen=True)
class Member:
    """How one network of a group is run; networks of a group may differ in all of it.

    Attributes
    ----------
    rule : str
        Collision rule.
    target_true, target_false : float
        Target spike counts of the true class and of the others.
    beta_1, beta_2, epsilon : float
        Adam's constants.
    estimator : Estimator
        What stands for the derivative of the time grid in training.
    """

    rule: str = "drop"
    target_true: float = 15.0
    target_false: float = 3.0
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    estimator: Estimator = STRAIGHT_THROUGH


@dataclass
class Sums:
    """What one network did in a pass over samples, summed over them.

    Attributes
    ----------
    samples : int
    loss : float
        Eq. 10.
    sent : ndarray of int64, (layer,)
        Spikes sent.
    counts : ndarray of int64, (layer, 5)
        Dropped, merged, deferred and lost crossings, and truncated neurons.
    delay : ndarray, (layer,)
        d(t) - t of sent spikes, in seconds.
    fired : list of ndarray of bool, (neuron,)
        For each layer the neurons that sent a spike at all.
    spikes_by : ndarray of int64, (time,)
        Spikes of the true class's neuron up to each of ``LATENCY_TIMES``.
    first_time, decision_time : float
        Times of the first output spike, and from which on the final decision leads, in seconds.
    confusion : ndarray of int64, (class, class + 1)
        Samples by true class and decision; the last column counts those without output spike.
    """

    sent: np.ndarray
    counts: np.ndarray
    delay: np.ndarray
    fired: list[np.ndarray]
    confusion: np.ndarray
    spikes_by: np.ndarray = field(default_factory=lambda: np.zeros(len(LATENCY_TIMES), np.int64))
    samples: int = 0
    loss: float = 0.0
    first_time: float = 0.0
    decision_time: float = 0.0

    @classmethod
    def of(cls, sizes: Sequence[int]) -> Sums:
        """Begin with nothing, for layers of these sizes without the input."""
        n_layers, n_classes = len(sizes), sizes[-1]
        return cls(
            sent=np.zeros(n_layers, np.int64),
            counts=np.zeros((n_layers, 5), np.int64),
            delay=np.zeros(n_layers),
            fired=[np.zeros(n, bool) for n in sizes],
            confusion=np.zeros((n_classes, n_classes + 1), np.int64),
        )

    def add(self, layers: Sequence[Any], labels: np.ndarray, read: Any) -> None:
        """Add a batch, from what it left in the layers and what was read of the last one."""
        self.samples += len(labels)
        self.loss += float(read.loss.sum())
        for i, layer in enumerate(layers):
            count = layer.spike_count
            self.sent[i] += count.sum()
            self.fired[i] |= count.any(axis=0)
            self.counts[i] += layer.counts().sum(axis=0)
            self.delay[i] += layer.delay()
        self.spikes_by += read.spikes_by.sum(axis=0)
        self.first_time = _add_in_order(self.first_time, read.first_time)
        self.decision_time = _add_in_order(self.decision_time, read.decision_time)
        np.add.at(self.confusion, (labels, read.predicted), 1)  # -1, no output spike, is the last column

    @property
    def answered(self) -> int:
        """Samples with output spikes."""
        return self.samples - int(self.confusion[:, -1].sum())


def _add_in_order(total: float, values: np.ndarray) -> float:
    """Add all values but NaN one after the other, so that no sum depends on the size of batches."""
    return float(np.cumsum([total, *values[~np.isnan(values)]])[-1])
