r"""The engine on the CPU, compiled by numba.

How a layer is computed
-----------------------
With :math:`\tau = 2\tau_s` the potential between two inputs is a quadratic in
:math:`s = e^{-(t-t_g)/\tau}`, where :math:`t_g` is the time of the latest input:

.. math:: u(t)/\tau = b\,s - a\,s^2, \qquad q(s) = a\,s^2 - b\,s + c, \qquad c = \vartheta/\tau .

The neuron is below its threshold where :math:`q > 0`. `a` and `b` are the sums of eq. 8, kept *relative to the
latest input*: they decay by :math:`d^2` and :math:`d` from one input time to the next and each input adds its weight
to both. So nothing overflows on long windows, old inputs fade out as they do in the neuron, and adding an
input does not change :math:`q`. Inputs that are sent at one time form a *group* and act together.

The time axis is walked group by group. For all neurons of a block at once, a loop without branches updates
`a` and `b`, evaluates `q` at the end of the interval, and marks the neurons that may cross in it (`q`
changes sign, or may do so twice): no square root, no logarithm. Only marked neurons are then solved
(eq. 8-9). The *excess* :math:`-q` at the end of an interval is kept and used as that at the start of the next, so a
crossing can neither be missed nor found twice by rounding at the seam.

Gradients in the frame of the spike
-----------------------------------
Taken relative to the spike's own time :math:`t_k`, eq. 8-9 and the crossing condition :math:`b = a + c` give
:math:`x_k = a - c` (the slope of the potential at the crossing) and :math:`f_k = h_k = \tau/x_k`; eq. 12 becomes

.. math:: \frac{\partial t_k}{\partial w_i} = \frac{\tau}{x_k}\sum_z (E_z^2 - E_z),
          \qquad E_z = e^{(\tilde t_z - t_k)/\tau} .

One number per crossing, its slope, is all that backpropagation needs of the forward pass. The
backward pass walks the groups from last to first and carries :math:`F = \sum_k \delta_k\tau/x_k E^2` and
:math:`H = \sum_k \delta_k\tau/x_k E`, relative to the current group: a weight gradient costs one addition per input
event and neuron.

Layout
------
Neurons are split into blocks of one width, a multiple of 8. Weights, moments and gradients are arrays
(block, pre, lane), so that the weights of a block stay in the second-level cache while a whole batch passes.
Crossings are recorded per (sample, block) in the order in which they are found, which is the order of groups.
No result depends on how many threads there are: sums run over samples in a fixed order.
"""

from __future__ import annotations

import math
import os
import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Threads meet a dozen times in a training step. Where another program holds a core, GNU OpenMP by default spins
# for milliseconds at each meeting, and training slows down many times. So it spins for some 50 µs and then sleeps.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import numba
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic

from bats_lab.config import LATENCY_TIMES
from bats_lab.engine.records import Member, Sums, noise_key
from bats_lab.spikes.estimators import STRAIGHT_THROUGH, Estimator
from bats_lab.spikes.grid import GRID_TOLERANCE, first_tick_from, ticks_within
from bats_lab.spikes.rules import RULES, rule_code
from bats_lab.spikes.trains import Spikes

__all__ = ["NAME", "Group", "Layer", "ReadOut", "device_name", "n_fitting", "read_out", "using"]

#: Name of this backend in results.
NAME = "cpu"

DROP, MERGE, DEFER, GRADED, CLOCKED = range(len(RULES))

# Columns of the counters a layer keeps per sample and block.
DROPPED, MERGED, DEFERRED, LOST, TRUNCATED = range(5)
N_COUNTERS = 5

# Columns of a recorded crossing: floats and integers.
TIME, SLOPE, FADE = range(3)  # continuous time (s); slope x of u/τ; exp(-(t_k - t_g)/τ)
LANE, TICK, BIN, GROUP = range(4)  # lane in the block; tick sent (-1: not sent); tick of eq. 14; latest group before it

# Groups of inputs of a sample: all of them, and those sent within the window.
ALL, ACTIVE = range(2)

# Buckets by which a sample's crossings are put in order of time, and how many are sorted by insertion.
N_BUCKETS = 1024
INSERTION_LIMIT = 32
# Ticks of a window up to which spikes are counted tick by tick to be put in order.
MAX_TICKS = 1 << 15
# Parts of a batch summed apart in the backward pass of a layer of one block, so that threads have work. A constant,
# so that sums do not depend on the number of threads.
N_SLABS = 8
# Weights updated by a thread at a time.
UPDATE_CHUNK = 1 << 14

# Fused multiply-add everywhere; in loops over neurons also min and max without care for NaN, which would
# double their cost: a NaN marks a neuron at most, and the solver then finds no crossing.
_EXACT = {"contract"}
_LANES = {"contract", "nnan", "nsz"}
_SUMS = {"contract", "nnan", "nsz", "reassoc"}


@intrinsic
def _trailing_zeros(typing_context, value):
    """Count the zero bits below the lowest one of a word that is not 0."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@njit(cache=True, nogil=True, error_model="numpy")
def _mixed(value):
    """Hash a 64-bit number (the finalizer of SplitMix64; Steele, Lea and Flood, 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@njit(cache=True, nogil=True, error_model="numpy")
def _uniform(key, place):
    """Return a random number in [0, 1) that is always the same for the same key and place."""
    return np.float64(_mixed(_mixed(key) + np.uint64(place)) >> np.uint64(40)) * 2.0**-24


@njit(cache=True, nogil=True, error_model="numpy")
def _surrogate_slope(time, delta_t, q):
    """As `bats_lab.spikes.estimators.surrogate_slope`, with its `q`."""
    return (1.0 - q * q) / (1.0 - 2.0 * q * math.cos(2.0 * math.pi * (time / delta_t)) + q * q)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_EXACT)
def _group_events(
    first_event, n_events, event_times, ticks, grid, delta_t, tau, duration, last_tick, offset, first, tick, time, decay
):
    """Split one sample's events into groups sent at one time; return how many, and how many act in the window."""
    n = 0
    n_active = 0
    event = 0
    while event < n_events:
        index = first_event + event
        key = ticks[index]
        start = event_times[index]
        time[offset + n] = key * delta_t if grid else start
        if key <= last_tick if grid else start <= duration:
            n_active = n + 1
        first[offset + n] = index
        tick[offset + n] = key
        event += 1
        while event < n_events and (
            ticks[first_event + event] == key if grid else event_times[first_event + event] == start
        ):
            event += 1
        n += 1
    first[offset + n] = first_event + event
    for g in range(n):
        end = time[offset + g + 1] if g + 1 < n and g + 1 != n_active else duration
        decay[offset + g] = math.exp(-max(end - time[offset + g], 0.0) / tau)
    return n, n_active


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_LANES)
def _advance(a, b, excess, mark, row, d, end, c):
    """Decay the sums by `d`, add one input's weights, and mark the lanes that may cross before `end`.

    A mark without a sign says that the lane starts below threshold and either ends at or above it, or may rise
    above it and return in between. The latter takes two roots between `end` and 1, whose product is c/a: necessary
    is end² < c/a < 1, which few lanes pass; the discriminant is left to the solver.
    """
    d2 = d * d
    end2 = end * end
    for j in range(a.shape[0]):
        a_j = a[j] * d2 + row[j]
        b_j = b[j] * d + row[j]
        a[j] = a_j
        b[j] = b_j
        excess_end = (b_j - a_j * end) * end - c
        mark[j] = min(max(min(a_j - c, c - a_j * end2), excess_end), -excess[j])
        excess[j] = excess_end


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_LANES)
def _advance_two(a, b, excess, mark, row_0, row_1, d, end, c):
    """Do as `_advance` for the sum of two rows, which saves a pass over memory."""
    d2 = d * d
    end2 = end * end
    for j in range(a.shape[0]):
        w = row_0[j] + row_1[j]
        a_j = a[j] * d2 + w
        b_j = b[j] * d + w
        a[j] = a_j
        b[j] = b_j
        excess_end = (b_j - a_j * end) * end - c
        mark[j] = min(max(min(a_j - c, c - a_j * end2), excess_end), -excess[j])
        excess[j] = excess_end


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_LANES)
def _sum_rows(weights, neuron, begin, end, total):
    """Sum the weight rows of two events or more into `total`, four in a pass over memory."""
    event = begin + (end - begin - 1) % 4 + 1
    row_0, row_1 = weights[neuron[begin]], weights[neuron[begin + 1]]
    if event - begin == 1:
        for j in range(total.shape[0]):
            total[j] = row_0[j]
    elif event - begin == 2:
        for j in range(total.shape[0]):
            total[j] = row_0[j] + row_1[j]
    elif event - begin == 3:
        row_2 = weights[neuron[begin + 2]]
        for j in range(total.shape[0]):
            total[j] = row_0[j] + row_1[j] + row_2[j]
    else:
        row_2, row_3 = weights[neuron[begin + 2]], weights[neuron[begin + 3]]
        for j in range(total.shape[0]):
            total[j] = (row_0[j] + row_1[j]) + (row_2[j] + row_3[j])
    while event < end:
        row_0, row_1 = weights[neuron[event]], weights[neuron[event + 1]]
        row_2, row_3 = weights[neuron[event + 2]], weights[neuron[event + 3]]
        for j in range(total.shape[0]):
            total[j] += (row_0[j] + row_1[j]) + (row_2[j] + row_3[j])
        event += 4


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_LANES)
def _add_row(row, total):
    for j in range(total.shape[0]):
        total[j] += row[j]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_EXACT)
def _simulate(
    weights,
    neuron,
    first,
    tick,
    time,
    decay,
    n_groups,
    c,
    tau,
    delta_t,
    rule,
    limit_tick,
    max_spikes,
    noise,
    first_place,
    a,
    b,
    excess,
    mark,
    words,
    mask,
    total,
    hits,
    crossings,
    sent,
    own_tick,
    floats,
    integers,
    counters,
):
    """Walk one sample through one block by the closed form (eq. 8-9); return the crossings recorded.

    With `noise`, spikes are sent as `estimators.discretize_stochastically` has it; `first_place` is the place
    of the block's first crossing among the random numbers.
    """
    width = a.shape[0]
    two_lanes = width == 2 * words.shape[0]
    grid = delta_t > 0
    one, two, four = a.dtype.type(1), a.dtype.type(2), a.dtype.type(4)
    tiny = a.dtype.type(1e-30)
    ticks_per_second = 1.0 / delta_t if grid else 0.0
    a[:] = 0
    b[:] = 0
    excess[:] = -c
    crossings[:] = 0
    sent[:] = 0
    own_tick[:] = -1
    n_records = 0
    d = one
    for g in range(n_groups):
        begin, stop = first[g], first[g + 1]
        end = decay[g]
        last_row = weights[neuron[stop - 1]]
        if stop - begin == 1:
            _advance(a, b, excess, mark, last_row, d, end, c)
        elif stop - begin == 2:
            _advance_two(a, b, excess, mark, weights[neuron[begin]], last_row, d, end, c)
        else:
            _sum_rows(weights, neuron, begin, stop - 1, total)
            _advance_two(a, b, excess, mark, total, last_row, d, end, c)
        d = end
        n_hits = 0
        for word in range(0, words.shape[0], 8):
            signs = words[word]
            for i in range(1, 8):
                signs &= words[word + i]
            if signs & mask != mask:
                free = np.uint64(0)
                for i in range(8):
                    free |= (~words[word + i] & mask) >> np.uint64(i)
                while free:
                    place = _trailing_zeros(free)
                    free &= free - np.uint64(1)
                    if two_lanes:
                        hits[n_hits] = 2 * (word + 31 - (place & 31)) + (place >> 5)
                    else:
                        hits[n_hits] = word + 63 - place
                    n_hits += 1
        for hit in range(n_hits):
            j = hits[hit]
            if crossings[j] >= max_spikes:
                continue
            a_j, b_j, excess_j = a[j], b[j], excess[j]
            latest = one
            while True:
                discriminant = b_j * b_j - four * a_j * c
                if not discriminant > 0:
                    # The potential only touches the threshold: no crossing, and still below.
                    if excess_j >= 0:
                        excess_j = -tiny
                    break
                x = math.sqrt(discriminant)
                s = (b_j + x) / (two * a_j)
                y = (two * a_j) / (b_j + x)
                if excess_j >= 0:
                    # It ends above, so it has crossed: rounding must not move that out of the interval.
                    if not s < latest:
                        s, y = latest, one / latest
                    elif s < end:
                        s, y = end, one / end
                elif not (end <= s < latest):
                    break
                since = -tau * math.log(s)
                spike_tick = np.int64(0)
                collides = False
                if grid:
                    phase = since * ticks_per_second
                    spike_tick = tick[g] + np.int64(phase + GRID_TOLERANCE) + 1
                    collides = own_tick[j] >= 0 and phase - GRID_TOLERANCE <= own_tick[j] - tick[g]
                    if collides and rule == DROP:
                        counters[DROPPED] += 1
                        break
                sent_tick = spike_tick
                if collides and rule == MERGE:
                    counters[MERGED] += 1
                    sent_tick = np.int64(-1)
                elif collides and rule == DEFER:
                    counters[DEFERRED] += 1
                    sent_tick = max(spike_tick, own_tick[j] + 1)
                    own_tick[j] = sent_tick
                    if sent_tick > limit_tick:
                        counters[LOST] += 1
                        sent_tick = np.int64(-1)
                else:
                    own_tick[j] = spike_tick
                if noise and grid and sent_tick >= 0:
                    place = first_place + j * max_spikes + crossings[j]
                    rounded = tick[g] + np.int64(since * ticks_per_second + 0.5 + _uniform(noise, place))
                    sent_tick += rounded - spike_tick
                floats[n_records, TIME] = time[g] + since
                floats[n_records, SLOPE] = x * s
                floats[n_records, FADE] = s
                integers[n_records, LANE] = j
                integers[n_records, TICK] = sent_tick
                integers[n_records, BIN] = spike_tick
                integers[n_records, GROUP] = g
                n_records += 1
                if sent_tick >= 0:
                    sent[j] += 1
                crossings[j] += 1
                b_j -= c * y
                excess_j = (b_j - a_j * end) * end - c
                if crossings[j] >= max_spikes:
                    counters[TRUNCATED] += 1
                    break
                if not (excess_j >= 0 or b_j > two * a_j * end):
                    break
                latest = s
            b[j], excess[j] = b_j, excess_j
    return n_records


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_LANES)
def _advance_clocked(a, b, mark, d, c):
    """Decay the sums by one tick and mark the lanes at or above threshold."""
    d2 = d * d
    for j in range(a.shape[0]):
        a[j] *= d2
        b[j] *= d
        mark[j] = b[j] - a[j] - c


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_LANES)
def _add_rows(a, b, row):
    for j in range(a.shape[0]):
        a[j] += row[j]
        b[j] += row[j]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_EXACT)
def _simulate_clocked(
    weights,
    neuron,
    first,
    tick,
    time,
    n_groups,
    c,
    tau,
    delta_t,
    n_ticks,
    max_spikes,
    a,
    b,
    mark,
    total,
    crossings,
    sent,
    floats,
    integers,
    counters,
):
    """Walk one sample through one block tick by tick; return the spikes recorded.

    The potential is read at ticks only, before the inputs of that tick (which add nothing to it yet). Where it has
    crossed upward since the last tick, the closed form gives the crossing for the gradient.
    """
    a[:] = 0
    b[:] = 0
    crossings[:] = 0
    sent[:] = 0
    n_records = 0
    if n_groups == 0:
        return n_records
    one = a.dtype.type(1)
    d = a.dtype.type(math.exp(-delta_t / tau))
    g = -1
    for k in range(tick[0], n_ticks + 1):
        if g >= 0:
            _advance_clocked(a, b, mark, d, c)
            for j in range(a.shape[0]):
                if not mark[j] >= 0 or crossings[j] >= max_spikes:
                    continue
                spike_time = k * delta_t
                slope = a.dtype.type(np.inf)
                discriminant = b[j] * b[j] - 4 * a[j] * c
                if discriminant > 0:
                    x = math.sqrt(discriminant)
                    s = (b[j] + x) / (2 * a[j])
                    if s > 0 and s * d < one:
                        s = max(s, one)
                        spike_time -= tau * math.log(s)
                        slope = x * s
                floats[n_records, TIME] = spike_time
                floats[n_records, SLOPE] = slope
                floats[n_records, FADE] = math.exp((time[g] - spike_time) / tau)
                integers[n_records, LANE] = j
                integers[n_records, TICK] = k
                integers[n_records, BIN] = k
                integers[n_records, GROUP] = g
                n_records += 1
                sent[j] += 1
                crossings[j] += 1
                b[j] -= c
                if crossings[j] >= max_spikes:
                    counters[TRUNCATED] += 1
        if g + 1 < n_groups and tick[g + 1] == k:
            g += 1
            for event in range(first[g], first[g + 1]):
                _add_rows(a, b, weights[neuron[event]])
    return n_records


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_EXACT)
def _sort_part(order, keys, begin, end):
    """Sort a part of `order` by the key of what it lists, stably: a few by insertion, more by merging sorted runs.

    NumPy's own sorts take numba ten times as long to compile.
    """
    for start in range(begin, end, INSERTION_LIMIT):
        for i in range(start + 1, min(start + INSERTION_LIMIT, end)):
            moved = order[i]
            k = i
            while k > start and keys[order[k - 1]] > keys[moved]:
                order[k] = order[k - 1]
                k -= 1
            order[k] = moved
    if end - begin <= INSERTION_LIMIT:
        return
    left = np.empty(end - begin, order.dtype)
    size = INSERTION_LIMIT
    while size < end - begin:
        for start in range(begin, end - size, 2 * size):
            stop = min(start + 2 * size, end)
            left[:size] = order[start : start + size]
            i, k = 0, start + size
            for place in range(start, stop):
                if i == size:
                    break
                if k < stop and keys[order[k]] < keys[left[i]]:
                    order[place] = order[k]
                    k += 1
                else:
                    order[place] = left[i]
                    i += 1
        size *= 2


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_EXACT)
def _by_time(floats, integers, n_records, span, capacity, source):
    """List the sent spikes of one sample, from all blocks, in order of continuous time; return their number.

    A counting sort into buckets of time, each of which is then sorted; `span` is the last time there can be.
    """
    scale = N_BUCKETS / span
    most = 0
    for block in range(n_records.shape[0]):
        most += n_records[block]
    found = np.empty(most, np.int32)
    times = np.empty(most, floats.dtype)
    inside = np.empty(most, np.int32)
    bucket = np.zeros(N_BUCKETS, np.int32)
    n = 0
    for block in range(n_records.shape[0]):
        for k in range(n_records[block]):
            if integers[block, k, TICK] >= 0:
                found[n] = block * capacity + k
                times[n] = floats[block, k, TIME]
                inside[n] = min(int(times[n] * scale), N_BUCKETS - 1)
                bucket[inside[n]] += 1
                n += 1
    total = 0
    for i in range(N_BUCKETS):
        size = bucket[i]
        bucket[i] = total
        total += size
    order = np.empty(n, np.int32)
    for k in range(n):
        i = inside[k]
        order[bucket[i]] = k
        bucket[i] += 1
    begin = 0
    for i in range(N_BUCKETS):
        end = bucket[i]
        if end - begin > 1:  # a call costs more than the sorting of most buckets
            _sort_part(order, times, begin, end)
        begin = end
    for position in range(n):
        source[position] = found[order[position]]
    return n


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_EXACT)
def _by_tick(integers, n_records, column, n_ticks, capacity, source):
    """List the sent spikes of one sample, from all blocks, in order of a tick below `n_ticks`; return their number."""
    place = np.zeros(n_ticks, np.int32)
    for block in range(n_records.shape[0]):
        for k in range(n_records[block]):
            if integers[block, k, TICK] >= 0:
                place[integers[block, k, column]] += 1
    n = 0
    for i in range(n_ticks):
        size = place[i]
        place[i] = n
        n += size
    for block in range(n_records.shape[0]):
        for k in range(n_records[block]):
            if integers[block, k, TICK] >= 0:
                i = integers[block, k, column]
                source[place[i]] = block * capacity + k
                place[i] += 1
    return n


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_EXACT)
def _by_sparse_tick(integers, n_records, column, capacity, source):
    """Do as `_by_tick` where there are far more ticks than spikes."""
    n = 0
    for block in range(n_records.shape[0]):
        for k in range(n_records[block]):
            if integers[block, k, TICK] >= 0:
                source[n] = block * capacity + k
                n += 1
    keys = np.empty(n, np.int32)
    order = np.empty(n, np.int32)
    for k in range(n):
        keys[k] = integers[source[k] // capacity, source[k] % capacity, column]
        order[k] = k
    _sort_part(order, keys, 0, n)
    source[:n] = source[order]
    return n


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_EXACT)
def _order_records(
    floats, integers, n_records, column, n_ticks, duration, neuron, times, ticks, source, width, capacity
):  # fmt: skip
    """Put the sent spikes of one sample, from all blocks, in order of time; return their number.

    On a grid (`n_ticks` above 0) the order is that of an integer `column` below `n_ticks`; in continuous time that of
    TIME, at most `duration`. Spikes that are equal in it stay in the order in which they were found.
    """
    if n_ticks == 0:
        n = _by_time(floats, integers, n_records, duration, capacity, source)
    elif n_ticks <= MAX_TICKS:
        n = _by_tick(integers, n_records, column, n_ticks, capacity, source)
    else:
        n = _by_sparse_tick(integers, n_records, column, capacity, source)
    for position in range(n):
        block = source[position] // capacity
        k = source[position] - block * capacity
        neuron[position] = block * width + integers[block, k, LANE]
        times[position] = floats[block, k, TIME]
        ticks[position] = integers[block, k, TICK]
    return n


@njit(cache=True, nogil=True, parallel=True, error_model="numpy", fastmath=_EXACT)
def _forward(
    samples,
    start,
    count,
    in_neuron,
    in_times,
    in_ticks,
    weights,
    c,
    tau,
    delta_t,
    duration,
    rule,
    n_ticks,
    limit_tick,
    max_spikes,
    n_post,
    noise,
    n_chunks,
    mask,
    offset,
    first,
    tick,
    time,
    decay,
    n_groups,
    floats,
    integers,
    n_records,
    sent,
    counters,
    neuron,
    times,
    ticks,
    source,
    n_sent,
):
    """Simulate a layer for a batch: groups of inputs, crossings of every block, sent spikes in order."""
    n_samples = samples.shape[0]
    n_blocks, _, width = weights.shape
    grid = delta_t > 0
    offset[0] = 0
    for i in range(n_samples):
        offset[i + 1] = offset[i] + count[samples[i]] + 1
    for i in prange(n_samples):
        n_groups[i, ALL], n_groups[i, ACTIVE] = _group_events(
            start[samples[i]],
            count[samples[i]],
            in_times,
            in_ticks,
            grid,
            delta_t,
            tau,
            duration,
            n_ticks,
            offset[i],
            first,
            tick,
            time,
            decay,
        )
    for task in prange(n_blocks * n_chunks):
        block = task // n_chunks
        chunk = task % n_chunks
        a = np.empty(width, weights.dtype)
        b = np.empty(width, weights.dtype)
        excess = np.empty(width, weights.dtype)
        mark = np.empty(width, weights.dtype)
        total = np.empty(width, weights.dtype)
        hits = np.empty(width + 1, np.int32)
        crossings = np.empty(width, np.int32)
        own_tick = np.empty(width, np.int64)
        words = mark.view(np.uint64)
        for i in range(chunk * n_samples // n_chunks, (chunk + 1) * n_samples // n_chunks):
            at = offset[i]
            counters[i, block, :] = 0
            if rule == CLOCKED:
                n_records[i, block] = _simulate_clocked(
                    weights[block],
                    in_neuron,
                    first[at:],
                    tick[at:],
                    time[at:],
                    n_groups[i, ACTIVE],
                    c,
                    tau,
                    delta_t,
                    n_ticks,
                    max_spikes,
                    a,
                    b,
                    mark,
                    total,
                    crossings,
                    sent[i, block],
                    floats[i, block],
                    integers[i, block],
                    counters[i, block],
                )
            else:
                n_records[i, block] = _simulate(
                    weights[block],
                    in_neuron,
                    first[at:],
                    tick[at:],
                    time[at:],
                    decay[at:],
                    n_groups[i, ACTIVE],
                    c,
                    tau,
                    delta_t,
                    rule,
                    limit_tick,
                    max_spikes,
                    noise,
                    (i * n_post + block * width) * max_spikes,
                    a,
                    b,
                    excess,
                    mark,
                    words,
                    mask,
                    total,
                    hits,
                    crossings,
                    sent[i, block],
                    own_tick,
                    floats[i, block],
                    integers[i, block],
                    counters[i, block],
                )
    for i in prange(n_samples):
        n_sent[i] = _order_records(
            floats[i],
            integers[i],
            n_records[i],
            TICK,
            limit_tick + 3 if grid else 0,  # stochastic rounding may send one tick later than eq. 14
            duration,
            neuron[i],
            times[i],
            ticks[i],
            source[i],
            width,
            integers.shape[2],
        )


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_LANES)
def _step_and_fade(f, h, step, d):
    """Set `step` to ``f - h``, then fade both sums by `d` to the group before."""
    d2 = d * d
    for j in range(f.shape[0]):
        step[j] = f[j] - h[j]
        f[j] *= d2
        h[j] *= d


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_LANES)
def _step_back_and_fade(f, h, step, back, rate, d):
    """Do as `_step_and_fade`; `back` is what input errors take: ``rate * (2 f - h)``."""
    d2 = d * d
    twice = rate + rate
    for j in range(f.shape[0]):
        step[j] = f[j] - h[j]
        back[j] = twice * f[j] - rate * h[j]
        f[j] *= d2
        h[j] *= d


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_LANES)
def _combine(f, h, square, linear, out):
    """Set `out` to ``square * f - linear * h``."""
    for j in range(f.shape[0]):
        out[j] = square * f[j] - linear * h[j]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS)
def _dot(row, values):
    total = row.dtype.type(0)
    for j in range(row.shape[0]):
        total += row[j] * values[j]
    return total


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_EXACT)
def _backward_sample(
    weights,
    gradient,
    neuron,
    times,
    sent_ticks,
    first,
    tick,
    time,
    decay,
    n_groups,
    n_all,
    floats,
    integers,
    n_records,
    errors,
    position,
    order,
    c,
    tau,
    delta_t,
    how,
    want_errors,
    input_errors,
    f,
    h,
    step,
    back,
    chain,
    later,
):
    """Send one sample's errors back through one block (eq. 11-16); `how` are `clocked`, `by_bin` and `by_sent`.

    `order` lists the crossings so that `position`, the last group wholly before a crossing, ascends. With `by_bin`
    groups are formed by the ticks of eq. 14 while `sent_ticks` may be later (rule ``defer``). With `by_sent` an input
    came before a crossing if it was sent before it; else if it crossed before it.
    """
    clocked, by_bin, by_sent = how  # Python 3.11 has another call, which numba lacks, for more than 30 arguments
    grid = delta_t > 0
    f[:] = 0
    h[:] = 0
    chain[:] = 0
    active = False
    rank = n_records - 1
    zero, one, two = f.dtype.type(0), f.dtype.type(1), f.dtype.type(2)
    for g in range(n_groups - 1, -1, -1):
        while rank >= 0:
            k = order[rank] if by_bin else rank
            if (position[k] if by_bin else integers[k, GROUP]) != g:
                break
            rank -= 1
            j = integers[k, LANE]
            t = floats[k, TIME]
            slope = floats[k, SLOPE]
            delta = errors[k] if integers[k, TICK] >= 0 else zero
            if chain[j] != 0:
                chain[j] *= math.exp((t - later[j]) / tau)
                # Eq. 13, second sum. A clocked neuron resets at its tick, not at the crossing.
                delta += chain[j] * math.exp((integers[k, TICK] * delta_t - t) / tau) if clocked else chain[j]
            scaled = delta / slope
            chain[j] += scaled * c
            later[j] = t
            scaled *= tau
            if scaled == 0:
                continue
            active = True
            fade = math.exp((time[g] - t) / tau) if by_bin else floats[k, FADE]
            f[j] += scaled * fade * fade
            h[j] += scaled * fade
            # Straight-through: an input that came before this crossing counts even if it is sent after it.
            if grid and not by_sent and g + 1 < n_all and tick[g + 1] <= integers[k, BIN]:
                ahead = f.dtype.type(math.exp((time[g + 1] - t) / tau))
                for event in range(first[g + 1], first[g + 2]):
                    if times[event] < t:
                        if by_bin:
                            ahead = f.dtype.type(math.exp((sent_ticks[event] * delta_t - t) / tau))
                        row = neuron[event]
                        gradient[row, j] += scaled * (ahead * ahead - ahead)
                        if want_errors:
                            input_errors[event] += weights[row, j] * scaled * (two * ahead * ahead - ahead) / tau
        if active:
            d = decay[g - 1] if g > 0 else one
            if by_bin:
                for event in range(first[g], first[g + 1]):
                    ahead = f.dtype.type(math.exp((sent_ticks[event] - tick[g]) * delta_t / tau))
                    _combine(f, h, ahead * ahead, ahead, step)
                    _add_row(step, gradient[neuron[event]])
                    if want_errors:
                        _combine(f, h, two * ahead * ahead / tau, ahead / tau, back)
                        input_errors[event] += _dot(weights[neuron[event]], back)
                _step_and_fade(f, h, step, d)
            elif want_errors:
                _step_back_and_fade(f, h, step, back, one / tau, d)
                for event in range(first[g], first[g + 1]):
                    _add_row(step, gradient[neuron[event]])
                    input_errors[event] += _dot(weights[neuron[event]], back)
            else:
                _step_and_fade(f, h, step, d)
                for event in range(first[g], first[g + 1]):
                    _add_row(step, gradient[neuron[event]])


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_EXACT)
def _positions(integers, n_records, tick, n_groups, position, order):
    """Find the last group wholly before each crossing by the ticks of eq. 14, and the order by it."""
    for k in range(n_records):
        low, high = 0, n_groups  # the first group whose tick is not before the crossing's own
        while low < high:
            middle = (low + high) // 2
            if tick[middle] < integers[k, BIN]:
                low = middle + 1
            else:
                high = middle
        position[k] = low - 1
        i = k
        while i > 0 and position[order[i - 1]] > low - 1:
            order[i] = order[i - 1]
            i -= 1
        order[i] = k


@njit(cache=True, nogil=True, parallel=True, error_model="numpy", fastmath=_EXACT)
def _regroup(
    before_floats, before_integers, before_records, width, tau, delta_t, limit_tick, neuron, times, ticks, bins, source,
    offset, first, tick, time, decay, n_groups
):  # fmt: skip
    """Order and group the spikes of the layer below by the ticks of eq. 14 in place of those they were sent on."""
    n_samples, n_blocks, capacity, _ = before_integers.shape
    size = n_blocks * capacity
    for i in prange(n_samples):
        at = i * size
        n = _order_records(
            before_floats[i], before_integers[i], before_records[i], BIN, limit_tick + 2, 0.0, neuron[i], times[i],
            ticks[i], source[i], width, capacity
        )  # fmt: skip
        for event in range(n):
            bins[i, event] = before_integers[i, source[i, event] // capacity, source[i, event] % capacity, BIN]
        offset[i] = i * (size + 1)
        n_groups[i, ALL], n_groups[i, ACTIVE] = _group_events(
            at, n, times.ravel(), bins.ravel(), True, delta_t, tau, np.inf, limit_tick + 2, offset[i], first, tick,
            time, decay
        )  # fmt: skip


@njit(cache=True, nogil=True, parallel=True, error_model="numpy", fastmath=_EXACT)
def _backward(
    weights,
    gradient,
    neuron,
    times,
    sent_ticks,
    offset,
    first,
    tick,
    time,
    decay,
    n_groups,
    floats,
    integers,
    n_records,
    errors,
    c,
    tau,
    delta_t,
    clocked,
    by_bin,
    by_sent,
    want_errors,
    input_errors,
):
    """Send a batch's errors back through a layer; weight gradients are added to, input errors are set."""
    n_samples = n_records.shape[0]
    n_blocks, _, width = weights.shape
    n_slabs = gradient.shape[0]
    capacity = integers.shape[2]
    for task in prange(n_blocks * n_slabs):
        block = task // n_slabs
        slab = task % n_slabs
        f = np.empty(width, weights.dtype)
        h = np.empty(width, weights.dtype)
        step = np.empty(width, weights.dtype)
        back = np.empty(width, weights.dtype)
        chain = np.empty(width, weights.dtype)
        later = np.empty(width, weights.dtype)
        position = np.empty(capacity if by_bin else 0, np.int32)
        order = np.empty(capacity if by_bin else 0, np.int32)
        for i in range(slab * n_samples // n_slabs, (slab + 1) * n_samples // n_slabs):
            at = offset[i]
            if want_errors:
                for event in range(first[at], first[at + n_groups[i, ALL]]):
                    input_errors[block, event] = 0
            if by_bin:
                _positions(integers[i, block], n_records[i, block], tick[at:], n_groups[i, ALL], position, order)
            _backward_sample(
                weights[block],
                gradient[slab, block],
                neuron,
                times,
                sent_ticks,
                first[at:],
                tick[at:],
                time[at:],
                decay[at:],
                n_groups[i, ALL if by_bin else ACTIVE],
                n_groups[i, ALL],
                floats[i, block],
                integers[i, block],
                n_records[i, block],
                errors[i, block],
                position,
                order,
                c,
                tau,
                delta_t,
                (clocked, by_bin, by_sent),
                want_errors,
                input_errors[block],
                f,
                h,
                step,
                back,
                chain,
                later,
            )


@njit(cache=True, nogil=True, parallel=True, error_model="numpy", fastmath=_EXACT)
def _return_errors(input_errors, source, n_sent, errors, floats, delta_t, q):
    """Sum input errors over blocks, in order, and hand them to the crossings they came from (block, record).

    With `q` they are multiplied by the slope of the surrogate of the time grid at these crossings.
    """
    size = source.shape[1]
    capacity = floats.shape[2]
    for i in prange(n_sent.shape[0]):
        errors_i = errors[i].ravel()
        for event in range(n_sent[i]):
            total = input_errors[0, i * size + event]
            for block in range(1, input_errors.shape[0]):
                total += input_errors[block, i * size + event]
            if q > 0:
                at = source[i, event]
                total *= _surrogate_slope(floats[i, at // capacity, at % capacity, TIME], delta_t, q)
            errors_i[source[i, event]] = total


@njit(cache=True, nogil=True, parallel=True, error_model="numpy", fastmath=_EXACT)
def _spread_errors(output_errors, integers, n_records, width, errors):
    """Give every output spike the error of its neuron."""
    for i in prange(n_records.shape[0]):
        for block in range(n_records.shape[1]):
            for k in range(n_records[i, block]):
                errors[i, block, k] = output_errors[i, block * width + integers[i, block, k, LANE]]


@njit(cache=True, nogil=True, parallel=True, error_model="numpy", fastmath=_EXACT)
def _update(weights, gradient, first_moment, second_moment, scale, step, beta_1, beta_2, root_scale, epsilon):
    """Adam in one pass over memory: add up slabs, update moments and weights, clear the gradient."""
    size = weights.shape[0]
    one = weights.dtype.type(1)
    rest_1, rest_2 = one - beta_1, one - beta_2
    for chunk in prange((size + UPDATE_CHUNK - 1) // UPDATE_CHUNK):
        part = slice(chunk * UPDATE_CHUNK, min((chunk + 1) * UPDATE_CHUNK, size))
        total = gradient[0, part]
        for slab in range(1, gradient.shape[0]):
            _add_row(gradient[slab, part], total)
            gradient[slab, part] = 0
        _adam(
            weights[part], total, first_moment[part], second_moment[part], scale, step, beta_1, beta_2, rest_1, rest_2,
            root_scale, epsilon
        )  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_EXACT)
def _adam(w, g, m, v, scale, step, beta_1, beta_2, rest_1, rest_2, root_scale, epsilon):
    for i in range(w.shape[0]):
        g_i = g[i] * scale
        m_i = beta_1 * m[i] + rest_1 * g_i
        v_i = beta_2 * v[i] + rest_2 * g_i * g_i
        m[i] = m_i
        v[i] = v_i
        w[i] -= step * m_i / (np.sqrt(v_i) * root_scale + epsilon)
        g[i] = 0


@njit(cache=True, nogil=True, parallel=True, error_model="numpy", fastmath=_EXACT)
def _read_out(
    counts, n_sent, neuron, times, ticks, delta_t, labels, target_true, target_false, latency_times, tolerance, errors,
    predicted, loss, spikes_by, first_time, decision_time
):  # fmt: skip
    """Read a batch's output spikes: loss and errors (eq. 10), decision, and when it fell."""
    n_samples, n_outputs = errors.shape
    for i in prange(n_samples):
        label = labels[i]
        loss_i = 0.0
        best = 0
        total = 0
        for j in range(n_outputs):
            error = (target_true if j == label else target_false) - counts[i, j]
            errors[i, j] = error
            loss_i += 0.5 * error * error
            total += counts[i, j]
            if counts[i, j] > counts[i, best]:
                best = j
        loss[i] = loss_i
        predicted[i] = best if total > 0 else -1
        spikes_by[i, :] = 0
        first_time[i] = np.nan
        decision_time[i] = np.nan
        so_far = np.zeros(n_outputs, np.int32)
        leads = False
        for event in range(n_sent[i]):
            sent = ticks[i, event] * delta_t if delta_t > 0 else float(times[i, event])
            if event == 0:
                first_time[i] = sent
            j = neuron[i, event]
            so_far[j] += 1
            if j == label:
                for s in range(latency_times.shape[0]):
                    if sent <= latency_times[s] + tolerance:
                        spikes_by[i, s] += 1
            if event + 1 < n_sent[i] and (
                ticks[i, event + 1] == ticks[i, event] if delta_t > 0 else times[i, event + 1] == times[i, event]
            ):
                continue
            leader = 0
            for k in range(1, n_outputs):
                if so_far[k] > so_far[leader]:
                    leader = k
            if leader != best:
                leads = False
            elif not leads:
                leads = True
                decision_time[i] = sent


@dataclass
class ReadOut:
    """What the output spikes of a batch say; arrays over its samples.

    Attributes
    ----------
    predicted : ndarray of int64, (sample,)
        Class with the most spikes, the lower index in a tie; -1 where there is no output spike.
    loss : ndarray of float64, (sample,)
        Eq. 10.
    errors : ndarray, (sample, class)
        Target minus spike count.
    spikes_by : ndarray of int64, (sample, time)
        Spikes of the true class's neuron sent up to each latency time.
    first_time, decision_time : ndarray of float64, (sample,)
        Time of the first output spike, and time from which on the final decision leads, in seconds; NaN without one.
    """

    predicted: np.ndarray
    loss: np.ndarray
    errors: np.ndarray
    spikes_by: np.ndarray
    first_time: np.ndarray
    decision_time: np.ndarray


def block_width(n_neurons: int) -> int:
    """Return the neurons of a block: about 200, so that its weights fit the second-level cache, a multiple of 16."""
    n_blocks = max(1, 2 * round(n_neurons / 400))
    return 16 * math.ceil(n_neurons / n_blocks / 16)


class Layer:
    """One layer of neurons with its weights, its optimiser's state, and room for a batch.

    Parameters
    ----------
    weights : ndarray, (post, pre)
        Initial weights.
    threshold : float
        Potential at which a neuron spikes, and which its reset subtracts.
    max_spikes : int
        Crossings kept per neuron and sample.
    tau_syn : float
        Synaptic time constant in seconds; the membrane's is twice as long.
    duration : float
        Length of the simulated window in seconds.
    dtype : str
        ``float32`` or ``float64``.
    """

    def __init__(
        self, weights: np.ndarray, *, threshold: float, max_spikes: int, tau_syn: float, duration: float, dtype: str
    ) -> None:
        self.dtype = np.dtype(dtype)
        self.n_post, self.n_pre = weights.shape
        self.threshold, self.max_spikes, self.duration = float(threshold), int(max_spikes), float(duration)
        self.tau = 2.0 * tau_syn
        self.width = block_width(self.n_post)
        self.n_blocks = math.ceil(self.n_post / self.width)
        self.capacity = self.width * self.max_spikes
        self._weights = self._to_blocks(weights)
        self._gradient: np.ndarray | None = None
        self._moments: tuple[np.ndarray, np.ndarray] | None = None
        self.n_updates = 0
        self._input_errors = np.empty((self.n_blocks, 0), self.dtype)
        self._room = 0
        self._event_room = 0
        # Two neighbouring float32 marks are looked at as one word: both negative means neither lane may cross.
        self._mask = np.uint64(0x8000000080000000 if self.dtype == np.float32 else 0x8000000000000000)

    # -- weights and optimiser state ------------------------------------------------------------------------

    def _to_blocks(self, dense: np.ndarray) -> np.ndarray:
        padded = np.zeros((self.n_blocks * self.width, self.n_pre), self.dtype)
        padded[: self.n_post] = dense
        return np.ascontiguousarray(padded.reshape(self.n_blocks, self.width, self.n_pre).transpose(0, 2, 1))

    def _to_dense(self, blocks: np.ndarray) -> np.ndarray:
        dense = blocks.transpose(0, 2, 1).reshape(self.n_blocks * self.width, self.n_pre)
        return np.ascontiguousarray(dense[: self.n_post])

    @property
    def weights(self) -> np.ndarray:
        """Weights (post, pre), a copy."""
        return self._to_dense(self._weights)

    @weights.setter
    def weights(self, dense: np.ndarray) -> None:
        self._weights[:] = self._to_blocks(dense)

    @property
    def gradient(self) -> np.ndarray:
        """Gradient (post, pre) added up since the last update, summed over samples; a copy."""
        if self._gradient is None:
            return np.zeros((self.n_post, self.n_pre), self.dtype)
        return self._to_dense(self._gradient.sum(axis=0))

    def clear_gradient(self) -> None:
        """Forget the gradient added up so far."""
        if self._gradient is not None:
            self._gradient[:] = 0

    @property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Adam's first and second moments (post, pre), copies."""
        if self._moments is None:
            return np.zeros((self.n_post, self.n_pre), self.dtype), np.zeros((self.n_post, self.n_pre), self.dtype)
        return self._to_dense(self._moments[0]), self._to_dense(self._moments[1])

    @moments.setter
    def moments(self, dense: tuple[np.ndarray, np.ndarray]) -> None:
        self._moments = self._to_blocks(dense[0]), self._to_blocks(dense[1])

    # -- forward --------------------------------------------------------------------------------------------

    def _make_room(self, n_samples: int, n_events: int) -> None:
        """Allocate for a batch; memory that is never written is never really taken."""
        if n_samples > self._room:
            self._room = n_samples
            records = (n_samples, self.n_blocks, self.capacity)
            spikes = (n_samples, self.n_blocks * self.capacity)
            self.floats = np.empty((*records, 3), self.dtype)
            self.integers = np.empty((*records, 4), np.int32)
            self.errors: np.ndarray | None = None
            self.n_records = np.zeros((n_samples, self.n_blocks), np.int64)
            self.counters = np.zeros((n_samples, self.n_blocks, N_COUNTERS), np.int64)
            self._sent = np.zeros((n_samples, self.n_blocks, self.width), np.int32)
            self._neuron = np.empty(spikes, np.int32)
            self._times = np.empty(spikes, self.dtype)
            self._ticks = np.empty(spikes, np.int32)
            self._source = np.empty(spikes, np.int32)
            self._n_sent = np.zeros(n_samples, np.int64)
            self._n_groups = np.zeros((n_samples, 2), np.int64)
            self._offset = np.zeros(n_samples + 1, np.int64)
        if n_events + n_samples > self._event_room:
            self._event_room = n_events + n_samples
            self._first = np.empty(self._event_room, np.int64)
            self._tick = np.empty(self._event_room, np.int32)
            self._time = np.empty(self._event_room, np.float64)
            self._decay = np.empty(self._event_room, self.dtype)

    def forward(
        self,
        spikes: Spikes,
        samples: np.ndarray,
        *,
        rule: str,
        estimator: Estimator = STRAIGHT_THROUGH,
        noise: int = 0,
    ) -> Spikes:
        """Simulate the layer for some samples (eq. 1-9, eq. 14 and the collision rule).

        Parameters
        ----------
        spikes : Spikes
            Input spikes; their time step is the layer's.
        samples : ndarray of int64, (batch,)
            Samples of `spikes` to simulate.
        rule : str
            Collision rule.
        estimator : Estimator
            What a backward pass after this one puts in place of the derivative of the time grid.
        noise : int
            Key of the random numbers by which spikes are rounded to the grid; 0: they are sent at eq. 14.

        Returns
        -------
        Spikes
            Spikes sent, one sample for each of `samples`. Views of the layer's memory: they hold until its
            next forward pass.
        """
        n, delta_t = len(samples), spikes.delta_t
        self._make_room(max(n, 1), int(spikes.count[samples].sum()))
        self._inputs, self._n, self._rule, self._delta_t = spikes, n, rule, delta_t
        self._estimator = estimator
        n_ticks = ticks_within(self.duration, delta_t)
        n_chunks = min(n, max(1, math.ceil(4 * numba.get_num_threads() / self.n_blocks)))
        real = self.dtype.type
        _forward(
            samples,
            spikes.start,
            spikes.count,
            spikes.neuron,
            spikes.times,
            spikes.ticks,
            self._weights,
            real(self.threshold / self.tau),
            real(self.tau),
            float(delta_t),
            self.duration,
            rule_code(rule),
            n_ticks,
            first_tick_from(self.duration, delta_t) if delta_t else 0,
            self.max_spikes,
            self.n_post,
            np.uint64(noise),
            n_chunks,
            self._mask,
            self._offset,
            self._first,
            self._tick,
            self._time,
            self._decay,
            self._n_groups,
            self.floats,
            self.integers,
            self.n_records,
            self._sent,
            self.counters,
            self._neuron,
            self._times,
            self._ticks,
            self._source,
            self._n_sent,
        )
        return Spikes(
            start=np.arange(n, dtype=np.int64) * self._neuron.shape[1],
            count=self._n_sent[:n],
            neuron=self._neuron.reshape(-1),
            times=self._times.reshape(-1),
            ticks=self._ticks.reshape(-1),
            n_neurons=self.n_post,
            delta_t=delta_t,
        )

    @property
    def spike_count(self) -> np.ndarray:
        """Sent spikes of the last batch, (sample, neuron)."""
        return self._sent[: self._n].reshape(self._n, self.n_blocks * self.width)[:, : self.n_post]

    def crossings(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the last batch's crossings and the times they were sent at, padded.

        Returns
        -------
        times, sent : ndarray, (sample, neuron, max_spikes)
            Seconds; ``inf`` where there is none, and in `sent` where a crossing was merged or lost.
        """
        shape = (self._n, self.n_blocks * self.width, self.max_spikes)
        times, sent = np.full(shape, np.inf, self.dtype), np.full(shape, np.inf, self.dtype)
        for i in range(self._n):
            for block in range(self.n_blocks):
                k = int(self.n_records[i, block])
                lane, tick = self.integers[i, block, :k, LANE], self.integers[i, block, :k, TICK]
                order = np.argsort(lane, kind="stable")
                rank = np.arange(k) - np.searchsorted(lane[order], lane[order], side="left")
                neuron = block * self.width + lane[order]
                time = self.floats[i, block, :k, TIME]
                times[i, neuron, rank] = time[order]
                moved = tick * self._delta_t if self._delta_t else time
                sent[i, neuron, rank] = np.where(tick >= 0, moved, np.inf)[order]
        return times[:, : self.n_post], sent[:, : self.n_post]

    def counts(self) -> np.ndarray:
        """Return dropped, merged, deferred and lost crossings and truncated neurons of the last batch, (sample, 5)."""
        return self.counters[: self._n].sum(axis=1)

    def is_finite(self) -> bool:
        """Whether all weights are finite."""
        return bool(np.isfinite(self._weights).all())

    def delay(self) -> float:
        """Return the summed delay d(t) - t of the last batch's sent spikes, in seconds."""
        if not self._delta_t:
            return 0.0
        return _total_delay(self._times, self._ticks, self._n_sent[: self._n], self._delta_t)

    # -- backward -------------------------------------------------------------------------------------------

    def set_output_errors(self, errors: np.ndarray) -> None:
        """Give each output spike of the last batch the error of its neuron, (sample, neuron)."""
        self._need_errors()
        _spread_errors(errors, self.integers, self.n_records[: self._n], self.width, self.errors)

    def _need_errors(self) -> np.ndarray:
        if self.errors is None:
            self.errors = np.empty(self.integers.shape[:3], self.dtype)
        return self.errors

    def backward(self, below: Layer | None) -> None:
        """Add up the weight gradient of the last batch and hand errors to the layer below (eq. 11-16).

        Parameters
        ----------
        below : Layer or None
            Layer whose spikes were the input; None where the input is the data.
        """
        assert self.errors is not None, "errors are set by the layer above or by set_output_errors"
        n, delta_t = self._n, self._delta_t
        real = self.dtype.type
        if self._gradient is None:
            n_slabs = 1 if self.n_blocks > 1 else N_SLABS
            self._gradient = np.zeros((n_slabs, *self._weights.shape), self.dtype)
        inputs = self._inputs
        neuron, times, ticks = inputs.neuron, inputs.times, inputs.ticks
        groups = self._offset, self._first, self._tick, self._time, self._decay, self._n_groups
        source = None if below is None else below._source
        by_sent = self._estimator.by_sent
        by_bin = below is not None and RULES[below._rule].delays and delta_t > 0 and not by_sent
        if by_bin:
            assert below is not None
            neuron, times, ticks, source, groups = self._regrouped(below)
        want_errors = below is not None
        room = len(neuron) if want_errors else 0
        if self._input_errors.shape[1] < room:
            self._input_errors = np.empty((self.n_blocks, room), self.dtype)
        _backward(
            self._weights,
            self._gradient,
            neuron,
            times,
            ticks,
            *groups,
            self.floats,
            self.integers,
            self.n_records[:n],
            self.errors,
            real(self.threshold / self.tau),
            real(self.tau),
            float(delta_t),
            RULES[self._rule].clocked,
            by_bin,
            by_sent,
            want_errors,
            self._input_errors,
        )
        if below is not None:
            width = below._estimator.slope_width if delta_t else 0.0
            _return_errors(
                self._input_errors,
                source,
                below._n_sent[:n],
                below._need_errors(),
                below.floats,
                float(delta_t),
                math.exp(-2.0 * math.pi * width) if width else 0.0,
            )

    def _regrouped(self, below: Layer) -> tuple:
        """Order the inputs by the ticks of eq. 14, where rule ``defer`` sent them in another order."""
        n = self._n
        shape = (n, below.n_blocks * below.capacity)
        neuron, times, ticks = np.empty(shape, np.int32), np.empty(shape, self.dtype), np.empty(shape, np.int32)
        bins, source = np.empty(shape, np.int32), np.empty(shape, np.int32)
        room = shape[0] * (shape[1] + 1)
        groups = (
            np.zeros(n + 1, np.int64),
            np.empty(room, np.int64),
            np.empty(room, np.int32),
            np.empty(room, np.float64),
            np.empty(room, self.dtype),
            np.zeros((n, 2), np.int64),
        )
        limit = first_tick_from(self.duration, self._delta_t)
        _regroup(
            below.floats[:n],
            below.integers[:n],
            below.n_records[:n],
            below.width,
            self.dtype.type(self.tau),
            float(self._delta_t),
            limit,
            neuron,
            times,
            ticks,
            bins,
            source,
            *groups,
        )
        return neuron.reshape(-1), times.reshape(-1), ticks.reshape(-1), source, groups

    def update(self, learning_rate: float, *, beta_1: float, beta_2: float, epsilon: float, n_samples: int) -> None:
        """Move the weights by one step of Adam on the mean gradient of `n_samples`, and clear the gradient.

        Notes
        -----
        Kingma and Ba (2015), Algorithm 1.
        """
        assert self._gradient is not None, "a backward pass comes first"
        if self._moments is None:
            self._moments = np.zeros_like(self._weights), np.zeros_like(self._weights)
        self.n_updates += 1
        real = self.dtype.type
        with np.errstate(over="ignore"):  # an absurd learning rate becomes inf, and the weights are found not finite
            step = real(learning_rate / (1.0 - beta_1**self.n_updates))
        _update(
            self._weights.reshape(-1),
            self._gradient.reshape(self._gradient.shape[0], -1),
            self._moments[0].reshape(-1),
            self._moments[1].reshape(-1),
            real(1.0 / n_samples),
            step,
            real(beta_1),
            real(beta_2),
            real(1.0 / math.sqrt(1.0 - beta_2**self.n_updates)),
            real(epsilon),
        )


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_EXACT)
def _total_delay(times, ticks, n_sent, delta_t):
    total = 0.0
    for i in range(n_sent.shape[0]):
        for event in range(n_sent[i]):
            total += ticks[i, event] * delta_t - times[i, event]
    return total


def read_out(
    layer: Layer, labels: np.ndarray, *, target_true: float, target_false: float, latency_times: np.ndarray
) -> ReadOut:
    """Read the last batch of the output layer: loss, errors, decisions (eq. 10).

    Parameters
    ----------
    layer : Layer
        The output layer, after its forward pass.
    labels : ndarray of int64, (sample,)
        True classes.
    target_true, target_false : float
        Target spike counts of the true class and of the others.
    latency_times : ndarray, (time,)
        Times at which spikes of the true class are counted, in seconds.
    """
    n = layer._n
    out = ReadOut(
        predicted=np.empty(n, np.int64),
        loss=np.empty(n),
        errors=np.empty((n, layer.n_post), layer.dtype),
        spikes_by=np.empty((n, len(latency_times)), np.int64),
        first_time=np.empty(n),
        decision_time=np.empty(n),
    )
    _read_out(
        # With the lanes that are no neurons: without them a batch of one sample has another memory layout than others,
        # for which the kernel would be compiled once more.
        layer._sent[:n].reshape(n, layer.n_blocks * layer.width),
        layer._n_sent,
        layer._neuron,
        layer._times,
        layer._ticks,
        float(layer._delta_t),
        labels,
        float(target_true),
        float(target_false),
        np.asarray(latency_times, np.float64),
        GRID_TOLERANCE * layer._delta_t,
        out.errors,
        out.predicted,
        out.loss,
        out.spikes_by,
        out.first_time,
        out.decision_time,
    )
    return out


# Updates between two looks at whether all weights are finite.
_CHECK_EVERY = 200


class Group:
    """Networks of one shape that are trained and measured side by side: each on its share of the threads.

    Parameters
    ----------
    layers : sequence of sequence of Layer
        The layers of each network.
    members : sequence of Member
        How each network is run.
    threads : int
        Threads used; 0: one a core. Changes no result.
    """

    def __init__(self, layers: Sequence[Sequence[Layer]], members: Sequence[Member], *, threads: int = 0) -> None:
        self.layers, self.members, self._threads = [list(own) for own in layers], list(members), threads
        self._latency_times = np.array(LATENCY_TIMES)

    def load(self, spikes: Sequence[Spikes], labels: np.ndarray) -> tuple[Sequence[Spikes], np.ndarray]:
        """Take samples in: the input spikes of each network, and the labels of all."""
        return spikes, np.ascontiguousarray(labels, np.int64)

    def store(self, network: int) -> None:
        """Give a network's layers its weights and the optimiser's state: here they have them."""

    def release(self) -> None:
        """Give back the room for batches: here it is small."""

    def inspect(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the norm of the weights, and the number of those that are not finite: (network, layer) each."""
        weights = [[layer.weights.astype(np.float64) for layer in own] for own in self.layers]
        return (
            np.array([[np.linalg.norm(w) for w in own] for own in weights]),
            np.array([[np.count_nonzero(~np.isfinite(w)) for w in own] for own in weights]),
        )

    def _each(self, work: Callable[[int, threading.Event], Sums]) -> list[Sums]:
        """Do some work for every network; the event it is given is set when all is to be given up."""
        n, stop = len(self.members), threading.Event()
        with using(self._threads):
            threads = numba.get_num_threads()
            # Of numba's threading layers, workqueue must not be entered by two threads at once.
            at_once = 1 if numba.threading_layer() == "workqueue" else min(n, threads)
            if at_once == 1:
                return [work(i, stop) for i in range(n)]

        def run(network: int) -> Sums:
            with using(threads // at_once):
                return work(network, stop)

        with ThreadPoolExecutor(at_once) as pool:
            try:
                return list(pool.map(run, range(n)))
            except BaseException:
                stop.set()
                raise

    def _batch(
        self, network: int, spikes: Spikes, samples: np.ndarray, labels: np.ndarray, sums: Sums, key: int, step: int
    ) -> ReadOut:
        """Run a batch forward and add what it did to the sums; with `key`, hidden spikes are rounded stochastically."""
        layers, member = self.layers[network], self.members[network]
        chosen = samples
        for i, layer in enumerate(layers):
            # Nothing receives the output's spikes.
            noise = noise_key(key, step, i, len(layers)) if layer is not layers[-1] else 0
            spikes = layer.forward(spikes, chosen, rule=member.rule, estimator=member.estimator, noise=noise)
            chosen = np.arange(len(samples))
        read = read_out(
            layers[-1],
            labels[samples],
            target_true=member.target_true,
            target_false=member.target_false,
            latency_times=self._latency_times,
        )
        sums.add(layers, labels[samples], read)
        return read

    def train(
        self,
        samples: tuple[Sequence[Spikes], np.ndarray],
        orders: Sequence[np.ndarray],
        *,
        batch_size: int,
        learning_rates: Sequence[float],
        noise: Sequence[int],
        on_batch: Callable[[int, int], None] | None = None,
    ) -> list[Sums]:
        """Train every network for one epoch; one whose weights are no longer finite stops early.

        Parameters
        ----------
        samples : tuple
            What :meth:`load` returned.
        orders : sequence of ndarray of int, (sample,)
            Order in which each network sees the samples.
        batch_size : int
            Samples per update; the last batch may be smaller.
        learning_rates : sequence of float
            Of each network.
        noise : sequence of int
            Of each network, the key of the epoch's random numbers (below 2^64); 0 where spikes are not rounded by them.
        on_batch : callable or None
            Called now and then with the samples done in the epoch, of all networks, and their number.

        Returns
        -------
        list of Sums
            What each network did before each update.
        """
        spikes, labels = samples
        done = [0] * len(self.members)
        total = sum(len(order) for order in orders)
        lock = threading.Lock()

        def epoch(network: int, stop: threading.Event) -> Sums:
            layers, member, order = self.layers[network], self.members[network], orders[network]
            sums = Sums.of([layer.n_post for layer in layers])
            for update, begin in enumerate(range(0, len(order), batch_size)):
                chosen = order[begin : begin + batch_size]
                read = self._batch(network, spikes[network], chosen, labels, sums, noise[network], update)
                layers[-1].set_output_errors(read.errors)
                for layer, below in zip(layers[::-1], [*layers[-2::-1], None], strict=True):
                    layer.backward(below)
                for layer in layers:
                    layer.update(
                        learning_rates[network],
                        beta_1=member.beta_1,
                        beta_2=member.beta_2,
                        epsilon=member.epsilon,
                        n_samples=len(chosen),
                    )
                if update % _CHECK_EVERY == 0:
                    if stop.is_set() or not all(layer.is_finite() for layer in layers):
                        break
                    with lock:
                        done[network] = begin + len(chosen)
                        if on_batch:
                            on_batch(sum(done), total)
            return sums

        return self._each(epoch)

    def evaluate(self, samples: tuple[Sequence[Spikes], np.ndarray], *, batch_size: int) -> list[Sums]:
        """Run every network on all samples.

        Parameters
        ----------
        samples : tuple
            What :meth:`load` returned.
        batch_size : int
            Samples simulated together.

        Returns
        -------
        list of Sums
        """
        spikes, labels = samples

        def measure(network: int, stop: threading.Event) -> Sums:
            sums = Sums.of([layer.n_post for layer in self.layers[network]])
            for begin in range(0, len(labels), batch_size):
                if stop.is_set():
                    break
                chosen = np.arange(begin, min(begin + batch_size, len(labels)))
                self._batch(network, spikes[network], chosen, labels, sums, 0, 0)
            return sums

        return self._each(measure)


@contextmanager
def using(threads: int = 0) -> Iterator[None]:
    """Run what is inside with a number of threads; 0 for one a core."""
    most = numba.config.NUMBA_NUM_THREADS
    if threads < 0 or threads > most:
        raise ValueError(f"threads is {threads}; it must be 0 (one a core) or at most {most}.")
    before = numba.get_num_threads()
    numba.set_num_threads(threads or most)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def n_fitting(n_networks: int, **_: object) -> int:
    """Return how many networks of a group fit the memory at once: all, as networks are small beside main memory."""
    return n_networks


def device_name() -> str:
    """Return the processor's name in words."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
