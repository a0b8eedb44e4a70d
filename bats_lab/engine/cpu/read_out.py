"""What the output spikes of a batch say: the loss and its errors (eq. 10), the decision, and when it fell."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from bats_lab.engine.cpu.records import EXACT
from bats_lab.spikes.grid import GRID_TOLERANCE

__all__ = ["read_out"]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=EXACT)
def _read_sample(i, counts, spikes, delta_t, label, target_true, target_false, latency_times, out):
    """Read the output spikes of sample `i`."""
    n_outputs = out.errors.shape[1]
    times, ticks = spikes.times, spikes.ticks
    # Eq. 10, and the class with the most spikes; `>` leaves a tie with the lower index.
    loss_i = 0.0
    best = 0
    total = 0
    for j in range(n_outputs):
        error = (target_true if j == label else target_false) - counts[i, j]
        out.errors[i, j] = error
        loss_i += 0.5 * error * error
        total += counts[i, j]
        if counts[i, j] > counts[i, best]:
            best = j
    out.loss[i] = loss_i
    out.predicted[i] = best if total > 0 else -1
    out.spikes_by[i, :] = 0
    out.first_time[i] = np.nan
    out.decision_time[i] = np.nan
    so_far = np.zeros(n_outputs, np.int32)
    leads = False
    for event in range(spikes.n_sent[i]):
        sent = ticks[i, event] * delta_t if delta_t > 0 else float(times[i, event])
        if event == 0:
            out.first_time[i] = sent
        j = spikes.neuron[i, event]
        so_far[j] += 1
        if j == label:
            for s in range(latency_times.shape[0]):
                if sent <= latency_times[s] + GRID_TOLERANCE * delta_t:
                    out.spikes_by[i, s] += 1
        # Spikes sent at one time count together: who leads is asked after the last of them.
        if event + 1 < spikes.n_sent[i] and (
            ticks[i, event + 1] == ticks[i, event] if delta_t > 0 else times[i, event + 1] == times[i, event]
        ):
            continue
        leader = 0
        for k in range(1, n_outputs):
            if so_far[k] > so_far[leader]:
                leader = k
        # The decision fell when the final winner took the lead for good.
        if leader != best:
            leads = False
        elif not leads:
            leads = True
            out.decision_time[i] = sent


@njit(cache=True, nogil=True, parallel=True, error_model="numpy", fastmath=EXACT)
def read_out(counts, spikes, delta_t, labels, target_true, target_false, latency_times, out):
    """Read a batch's output spikes.

    Parameters
    ----------
    counts : ndarray of int32, (sample, lane)
        Spikes that each output neuron sent.
    spikes : Sent
    delta_t : float
        Time step in seconds; 0 is continuous time.
    labels : ndarray of int64, (sample,)
    target_true, target_false : float
        Target spike counts of the true class and of the others.
    latency_times : ndarray, (time,)
        Times at which spikes of the true class are counted, in seconds.
    out : bats_lab.engine.ReadOut
        Where the results go.
    """
    for i in prange(out.loss.shape[0]):
        _read_sample(np.int64(i), counts, spikes, delta_t, labels[i], target_true, target_false, latency_times, out)
