"""Spikes in order of time, and the groups of those that are sent at one time."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from bats_lab.engine.cpu.records import ACTIVE, ALL, BIN, EXACT, LANE, TICK, TIME, Crossings, Groups, Physics, Sent

__all__ = ["group_events", "order_records", "regroup"]

# Buckets by which a sample's crossings are put in order of time, at least, and how many are sorted by insertion.
N_BUCKETS = 1024
INSERTION_LIMIT = 32
# Ticks of a window up to which each has buckets of its own.
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
def _in_order(times, ticks, bucket, n_buckets, fully, order):
    """List spikes so that `bucket` ascends, which goes with tick and time; `fully`: also tick, and within it time."""
    begin = np.zeros(n_buckets + 1, np.int32)
    for k in range(bucket.shape[0]):
        begin[bucket[k] + 1] += 1
    most = 0
    for i in range(n_buckets):
        most = max(most, begin[i + 1])
        begin[i + 1] += begin[i]
    for k in range(bucket.shape[0]):
        i = bucket[k]
        order[begin[i]] = k
        begin[i] += 1  # in the end where the bucket ends
    if not fully:
        return
    if most > INSERTION_LIMIT:
        start = np.int64(0)
        for i in range(n_buckets):
            _sort_part(order, times, start, np.int64(begin[i]))
            _sort_part(order, ticks, start, np.int64(begin[i]))
            start = np.int64(begin[i])
        return
    for rank in range(1, order.shape[0]):
        k = order[rank]
        i = rank
        while i > 0:
            other = order[i - 1]
            if bucket[other] != bucket[k] or times[other] <= times[k]:
                break
            order[i] = other
            i -= 1
        order[i] = k


@njit(cache=True, nogil=True, error_model="numpy", fastmath=EXACT)
def _part(time, per_second, before, n_parts):
    """Return which of `n_parts` of a stretch of time a time is in, `before` of them being over when it begins."""
    return min(max(np.int64(time * per_second) - before, np.int64(0)), n_parts - 1)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=EXACT)
def order_records(crossings, i, column, n_ticks, physics, fully, sent):
    """Put the sent spikes of sample `i`, from all blocks, in order of time.

    On a grid the order is that of an integer `column`, ticks below `n_ticks`, and, where `fully`, within a tick that of
    TIME, which in continuous time (`n_ticks` is 0) is all. Equal ones stay in the order in which they were found.
    """
    floats, integers, n_records = crossings.floats[i], crossings.integers[i], crossings.n_records[i]
    neuron, times, ticks, source = sent.neuron[i], sent.times[i], sent.ticks[i], sent.source[i]
    width, capacity = crossings.sent.shape[2], integers.shape[1]
    most = 0
    for block in range(n_records.shape[0]):
        most += n_records[block]
    record, key = np.empty(most, np.int32), np.empty(most, np.int32)
    time, bucket = np.empty(most, floats.dtype), np.empty(most, np.int32)
    # Buckets of a tick; of the window in continuous time.
    sparse = n_ticks > MAX_TICKS
    parts = N_BUCKETS
    if n_ticks:
        parts = max(1, N_BUCKETS // n_ticks) if fully else 1
    per_second = parts / (physics.delta_t if n_ticks else physics.duration)
    n = 0
    for block in range(n_records.shape[0]):
        for k in range(n_records[block]):
            if integers[block, k, TICK] < 0:
                continue
            record[n] = block * capacity + k
            time[n] = floats[block, k, TIME]
            tick = np.int64(integers[block, k, column]) if n_ticks else np.int64(0)
            key[n] = tick
            # A spike is sent at the end of its step, or later.
            before = (tick - 1) * parts if n_ticks else np.int64(0)
            bucket[n] = np.int64(0) if sparse else tick * parts + _part(time[n], per_second, before, parts)
            n += 1
    order = np.empty(n, np.int32)
    n_buckets = 1 if sparse else max(n_ticks, 1) * parts
    _in_order(time[:n], key[:n], bucket[:n], n_buckets, fully or sparse or n_ticks == 0, order)
    for rank in range(n):
        k = order[rank]
        source[rank] = record[k]
        block = record[k] // capacity
        place = record[k] - block * capacity
        neuron[rank] = block * width + integers[block, place, LANE]
        times[rank] = time[k]
        ticks[rank] = integers[block, place, TICK]
    sent.n_sent[i] = n


@njit(cache=True, nogil=True, error_model="numpy", fastmath=EXACT)
def _regroup_sample(crossings, i, physics, sent, bins, groups):
    size = sent.neuron.shape[1]
    capacity = crossings.integers.shape[2]
    order_records(crossings, i, np.int64(BIN), physics.last_tick + 1, physics, physics.delta_t > 0, sent)
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
