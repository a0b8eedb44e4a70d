"""Spikes in order of time, and the groups of those that are sent at one time."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from bats_lab.engine.cpu.records import ACTIVE, ALL, BIN, EXACT, LANE, TICK, TIME, Crossings, Groups, Physics, Sent

__all__ = ["group_events", "order_records", "regroup"]

# Buckets by which a sample's crossings are put in order of time, and how many are sorted by insertion.
N_BUCKETS = 1024
INSERTION_LIMIT = 32
# Ticks of a window up to which spikes are counted tick by tick to be put in order.
MAX_TICKS = 1 << 15


@njit(cache=True, nogil=True, error_model="numpy", fastmath=EXACT)
def group_events(times, ticks, begin, count, physics, groups, i):
    """Split the events of sample `i` into groups sent at one time, from its offset on."""
    grid = physics.delta_t > 0
    offset = groups.offset[i]
    first, tick, time, decay = groups.first, groups.tick, groups.time, groups.decay
    n = 0
    n_active = 0
    event = 0
    while event < count:
        index = begin + event
        key = ticks[index]
        start = times[index]
        time[offset + n] = key * physics.delta_t if grid else start
        if key <= physics.last_tick if grid else start <= physics.duration:
            n_active = n + 1
        first[offset + n] = index
        tick[offset + n] = key
        event += 1
        while event < count and (ticks[begin + event] == key if grid else times[begin + event] == start):
            event += 1
        n += 1
    first[offset + n] = begin + event
    for g in range(n):
        # The last group in the window is followed by the window's end, whatever is sent later.
        end = time[offset + g + 1] if g + 1 < n and g + 1 != n_active else physics.duration
        decay[offset + g] = math.exp(-max(end - time[offset + g], 0.0) / physics.tau)
    groups.n_groups[i, ALL], groups.n_groups[i, ACTIVE] = n, n_active


@njit(cache=True, nogil=True, error_model="numpy", fastmath=EXACT)
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
            for i in range(size):
                left[i] = order[start + i]
            i, k = 0, start + size
            for target in range(start, stop):
                if i == size:
                    break
                if k < stop and keys[order[k]] < keys[left[i]]:
                    order[target] = order[k]
                    k += 1
                else:
                    order[target] = left[i]
                    i += 1
        size *= 2


@njit(cache=True, nogil=True, error_model="numpy", fastmath=EXACT)
def _by_time(floats, integers, n_records, span, source):
    """List the sent spikes of one sample, from all blocks, in order of continuous time; return their number.

    A counting sort into buckets of time, each of which is then sorted; `span` is the last time there can be.
    """
    scale = N_BUCKETS / span
    capacity = integers.shape[1]
    most = 0
    for block in range(n_records.shape[0]):
        most += n_records[block]
    record = np.empty(most, np.int32)
    times = np.empty(most, floats.dtype)
    inside = np.empty(most, np.int32)
    bucket = np.zeros(N_BUCKETS, np.int32)
    n = 0
    for block in range(n_records.shape[0]):
        for k in range(n_records[block]):
            if integers[block, k, TICK] >= 0:
                record[n] = block * capacity + k
                times[n] = floats[block, k, TIME]
                inside[n] = min(int(times[n] * scale), N_BUCKETS - 1)
                bucket[inside[n]] += 1
                n += 1
    total = 0
    for i in range(N_BUCKETS):
        size = bucket[i]
        bucket[i] = total
        total += size
    # `bucket` is where each begins, and after this loop where it ends.
    order = np.empty(n, np.int32)
    for k in range(n):
        i = inside[k]
        order[bucket[i]] = k
        bucket[i] += 1
    begin = np.int64(0)
    for i in range(N_BUCKETS):
        end = np.int64(bucket[i])
        if end - begin > 1:  # a call costs more than the sorting of most buckets
            _sort_part(order, times, begin, end)
        begin = end
    for rank in range(n):
        source[rank] = record[order[rank]]
    return n


@njit(cache=True, nogil=True, error_model="numpy", fastmath=EXACT)
def _by_tick(integers, n_records, column, n_ticks, source):
    """List the sent spikes of one sample, from all blocks, in order of a tick below `n_ticks`; return their number."""
    capacity = integers.shape[1]
    # A counting sort: how many spikes each tick has, where its spikes begin, and then every spike to its place.
    rank = np.zeros(n_ticks, np.int32)
    for block in range(n_records.shape[0]):
        for k in range(n_records[block]):
            if integers[block, k, TICK] >= 0:
                rank[integers[block, k, column]] += 1
    n = 0
    for i in range(n_ticks):
        size = rank[i]
        rank[i] = n
        n += size
    for block in range(n_records.shape[0]):
        for k in range(n_records[block]):
            if integers[block, k, TICK] >= 0:
                i = integers[block, k, column]
                source[rank[i]] = block * capacity + k
                rank[i] += 1
    return n


@njit(cache=True, nogil=True, error_model="numpy", fastmath=EXACT)
def _by_sparse_tick(integers, n_records, column, source):
    """Do as `_by_tick` where there are far more ticks than spikes."""
    capacity = integers.shape[1]
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
    _sort_part(order, keys, np.int64(0), keys.shape[0])
    for k in range(n):
        keys[k] = source[order[k]]
    for k in range(n):
        source[k] = keys[k]
    return n


@njit(cache=True, nogil=True, error_model="numpy", fastmath=EXACT)
def order_records(crossings, i, column, n_ticks, duration, sent):
    """Put the sent spikes of sample `i`, from all blocks, in order of time.

    On a grid (`n_ticks` above 0) the order is that of an integer `column` below `n_ticks`; in continuous time that of
    TIME, at most `duration`. Spikes that are equal in it stay in the order in which they were found.
    """
    floats, integers, n_records = crossings.floats[i], crossings.integers[i], crossings.n_records[i]
    neuron, times, ticks, source = sent.neuron[i], sent.times[i], sent.ticks[i], sent.source[i]
    width, capacity = crossings.sent.shape[2], integers.shape[1]
    if n_ticks == 0:
        n = _by_time(floats, integers, n_records, duration, source)
    elif n_ticks <= MAX_TICKS:
        n = _by_tick(integers, n_records, column, n_ticks, source)
    else:
        n = _by_sparse_tick(integers, n_records, column, source)
    for rank in range(n):
        block = source[rank] // capacity
        k = source[rank] - block * capacity
        neuron[rank] = block * width + integers[block, k, LANE]
        times[rank] = floats[block, k, TIME]
        ticks[rank] = integers[block, k, TICK]
    sent.n_sent[i] = n


@njit(cache=True, nogil=True, error_model="numpy", fastmath=EXACT)
def _regroup_sample(crossings, i, physics, sent, bins, groups):
    size = sent.neuron.shape[1]
    capacity = crossings.integers.shape[2]
    order_records(crossings, i, np.int64(BIN), physics.last_tick, 0.0, sent)
    for event in range(sent.n_sent[i]):
        source = sent.source[i, event]
        bins[i, event] = crossings.integers[i, source // capacity, source % capacity, BIN]
    groups.offset[i] = i * (size + 1)
    group_events(sent.times.ravel(), bins.ravel(), i * size, sent.n_sent[i], physics, groups, i)


@njit(cache=True, nogil=True, parallel=True, error_model="numpy", fastmath=EXACT)
def _regroup(crossings, physics, sent, bins, groups):
    for i in prange(bins.shape[0]):
        _regroup_sample(crossings, np.int64(i), physics, sent, bins, groups)


def regroup(crossings: Crossings, physics: Physics) -> tuple[Sent, Groups]:
    """Order and group a layer's spikes by the ticks of eq. 14, in place of those they were sent on.

    Parameters
    ----------
    crossings : Crossings
        Of the layer that sent them.
    physics : Physics
        Of the layer that received them.

    Returns
    -------
    Sent, Groups
        With the groups of all spikes, those past the window too.
    """
    n, n_blocks, capacity, _ = crossings.floats.shape
    shape, real = (n, n_blocks * capacity), crossings.floats.dtype
    sent = Sent(
        neuron=np.empty(shape, np.int32),
        times=np.empty(shape, real),
        ticks=np.empty(shape, np.int32),
        source=np.empty(shape, np.int32),
        n_sent=np.empty(n, np.int64),
    )
    room = shape[0] * (shape[1] + 1)
    groups = Groups(
        offset=np.zeros(n + 1, np.int64),
        first=np.empty(room, np.int64),
        tick=np.empty(room, np.int32),
        time=np.empty(room, np.float64),
        decay=np.empty(room, real),
        n_groups=np.zeros((n, 2), np.int64),
    )
    whole = physics._replace(duration=np.inf, last_tick=physics.limit_tick + 2)
    _regroup(crossings, whole, sent, np.empty(shape, np.int32), groups)
    return sent, groups
