"""What epochs showed: the measures of one pass over a split, and the record of one epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bats_lab.engine import Sums

__all__ = ["EpochRecord", "Pass", "measured"]


@dataclass
class Pass:
    """What one pass over a split showed.

    Attributes
    ----------
    n_samples : int
        Samples seen.
    accuracy : float
        Fraction of samples whose output neuron with the most spikes is the true class's; ties go to the lower
        index, a sample without output spike is wrong.
    loss : float
        Mean over samples of eq. 10.
    spike_count : ndarray, (layer,)
        Sent spikes per sample.
    dropped, merged, deferred, lost_spikes, truncated_neurons : ndarray, (layer,)
        Crossings by what the collision rule did to them, and neurons at their spike limit, per sample.
    spike_delay : ndarray, (layer,)
        Mean of d(t) - t over sent spikes, in seconds; NaN without spikes.
    fired : list of ndarray of bool, (neuron,)
        For each layer the neurons that sent a spike at all.
    input_spikes : float
        Input spikes per sample.
    confidence : ndarray, (time,)
        Spikes of the true class's neuron up to each of ``LATENCY_TIMES`` over its target, mean over samples.
    first_spike_time, decision_time : float
        Mean time of the first output spike, and from which on the final decision leads, over samples with output
        spikes, in seconds; NaN without any.
    confusion : ndarray of int64, (class, class + 1)
        Samples by true class and decision; the last column counts those without output spike.
    """

    n_samples: int
    accuracy: float
    loss: float
    spike_count: np.ndarray
    dropped: np.ndarray
    merged: np.ndarray
    deferred: np.ndarray
    lost_spikes: np.ndarray
    truncated_neurons: np.ndarray
    spike_delay: np.ndarray
    fired: list[np.ndarray]
    input_spikes: float
    confidence: np.ndarray
    first_spike_time: float
    decision_time: float
    confusion: np.ndarray


@dataclass
class EpochRecord:
    """What one epoch showed.

    Attributes
    ----------
    epoch : int
        Number of the epoch, from 1.
    train : Pass
        Measured on the training batches while training, each before its update.
    test : Pass
        Measured on the test set after the epoch.
    validation : Pass or None
        Measured after the epoch on the training samples that are held out, where the run holds out some.
    weight_norm : ndarray, (layer,)
        Frobenius norm after the epoch.
    learning_rate : float
        Learning rate of the epoch.
    train_seconds, test_seconds : float
        Wall time; of networks trained side by side, each one's share.
    weights : list of ndarray (post, pre), or None
        Weights after the epoch, where the run keeps each.
    """

    epoch: int
    train: Pass
    test: Pass
    weight_norm: np.ndarray
    learning_rate: float
    train_seconds: float
    test_seconds: float
    validation: Pass | None = None
    weights: list[np.ndarray] | None = None


def measured(sums: Sums, target_true: float, n_input_spikes: int) -> Pass:
    """Turn sums over samples into what is reported."""
    n = sums.samples
    per_sample = sums.counts / n
    with np.errstate(invalid="ignore"):
        delay = np.where(sums.sent > 0, sums.delay / np.maximum(sums.sent, 1), np.nan)
    return Pass(
        n_samples=n,
        accuracy=float(np.trace(sums.confusion[:, :-1]) / n),
        loss=sums.loss / n,
        spike_count=sums.sent / n,
        dropped=per_sample[:, 0],
        merged=per_sample[:, 1],
        deferred=per_sample[:, 2],
        lost_spikes=per_sample[:, 3],
        truncated_neurons=per_sample[:, 4],
        spike_delay=delay,
        fired=sums.fired,
        input_spikes=n_input_spikes / n,
        confidence=sums.spikes_by / (n * target_true),
        first_spike_time=sums.first_time / sums.answered if sums.answered else math.nan,
        decision_time=sums.decision_time / sums.answered if sums.answered else math.nan,
        confusion=sums.confusion,
    )
