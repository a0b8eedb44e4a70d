r"""The forward pass on the CPU, compiled by numba; its text derives what all engines compute.

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

With any other ratio of the time constants the walk is the same, and :mod:`bats_lab.engine.cpu.newton` says what takes
the place of the quadratic. The backward pass is derived in :mod:`bats_lab.engine.cpu.backward`; how neurons are laid
out stands in
:mod:`bats_lab.engine.cpu.layers`.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic

from bats_lab.engine.cpu.logarithm import log
from bats_lab.engine.cpu.newton import advance_any, advance_clocked_any, response, solve_any
from bats_lab.engine.cpu.order import group_events, order_records
from bats_lab.engine.cpu.records import (
    BIN,
    CLOCKED,
    DEFER,
    DEFERRED,
    DROP,
    DROPPED,
    EXACT,
    FADE,
    GROUP,
    LANE,
    LANES,
    LOST,
    MERGE,
    MERGED,
    SLOPE,
    TICK,
    TIME,
    TRUNCATED,
    Lanes,
    Noise,
    Solver,
    records_of,
    walk_of,
)
from bats_lab.spikes.grid import GRID_TOLERANCE

__all__ = ["add_row", "add_up", "forward"]


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


@njit(cache=True, nogil=True, error_model="numpy", fastmath=LANES, forceinline=True)
def _advance(lanes, d, end, c):
    """Decay the sums by `d`, add the `total` of a group's weights, and mark the lanes that may cross before `end`.

    A mark without a sign says that the lane starts below threshold and either ends at or above it, or may rise
    above it and return in between. The latter takes two roots between `end` and 1, whose product is c/a: necessary
    is end² < c/a < 1, which few lanes pass; the discriminant is left to the solver.
    """
    a, b, excess, mark, total = lanes.a, lanes.b, lanes.excess, lanes.mark, lanes.total
    d2 = d * d
    end2 = end * end
    for j in range(a.shape[0]):
        # Eq. 8 relative to this group: a = Σ w E², b = Σ w E, E of this input being 1. So it adds the same to both,
        # and the potential b - a at s = 1 does not jump.
        a_j = a[j] * d2 + total[j]
        b_j = b[j] * d + total[j]
        a[j] = a_j
        b[j] = b_j
        # -q at s = end: (u - ϑ)/τ just before the next group.
        excess_end = (b_j - a_j * end) * end - c
        # Negative: no crossing. In words, not (excess_end >= 0, or end² < c/a < 1), or above threshold from the start.
        mark[j] = min(max(min(a_j - c, c - a_j * end2), excess_end), -excess[j])
        excess[j] = excess_end


@njit(cache=True, nogil=True, error_model="numpy", fastmath=LANES, forceinline=True)
def _sum_rows(weights, neuron, begin, end, total):
    """Sum the weight rows of a group's events into `total`, four in a pass over memory.

    Rows are taken by indices without a sign, which need no test of it, and not as arrays of their own: the count of
    references to the weights, which threads share, would cost more than a row.
    """
    # First the one to four events that are over, which set the sum; then four at a time, which add to it.
    width = total.shape[0]
    event = begin + (end - begin - 1) % 4 + 1
    over = event - begin
    i = np.uint32(neuron[begin])
    if over == 1:
        for j in range(width):
            total[j] = weights[i, j]
    else:
        k = np.uint32(neuron[begin + 1])
        if over == 2:
            for j in range(width):
                total[j] = weights[i, j] + weights[k, j]
        else:
            m = np.uint32(neuron[begin + 2])
            if over == 3:
                for j in range(width):
                    total[j] = weights[i, j] + weights[k, j] + weights[m, j]
            else:
                n = np.uint32(neuron[begin + 3])
                for j in range(width):
                    total[j] = (weights[i, j] + weights[k, j]) + (weights[m, j] + weights[n, j])
    while event < end:
        i, k = np.uint32(neuron[event]), np.uint32(neuron[event + 1])
        m, n = np.uint32(neuron[event + 2]), np.uint32(neuron[event + 3])
        for j in range(width):
            total[j] += (weights[i, j] + weights[k, j]) + (weights[m, j] + weights[n, j])
        event += 4


@njit(cache=True, nogil=True, error_model="numpy", fastmath=LANES)
def add_row(row, total):
    """Add a row to a sum."""
    for j in range(total.shape[0]):
        total[j] += row[j]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=EXACT, forceinline=True)
def _solve(solver, n, end, c, tau):
    """Find the next crossing of `n` lanes before `end` (eq. 9), without branches: vector code, eight lanes at once.

    x = √(b² - 4ac); of the roots of q(s), s = (b + x)/2a is the way up.
    """
    a, b, excess, latest = solver.a, solver.b, solver.excess, solver.latest
    root, since, slope, reset = solver.root, solver.since, solver.slope, solver.reset
    two = np.float32(2)
    for i in range(n):
        discriminant = b[i] * b[i] - two * two * a[i] * c
        x = math.sqrt(discriminant if discriminant > 0 else c - c)
        s = (b[i] + x) / (two * a[i])
        crosses = (discriminant > 0) & ((excess[i] >= 0) | ((s >= end) & (s < latest[i])))
        # Where it ends above threshold it has crossed: rounding must not move that out of the interval.
        s = (s if s >= end else end) if s < latest[i] else latest[i]
        root[i] = s if crosses else -latest[i]
        since[i] = -tau * log(s)  # t_k - t_g
        slope[i] = x * s  # x_k, moved from the group's frame to the spike's own
        reset[i] = c / s


@njit(cache=True, nogil=True, error_model="numpy", fastmath=EXACT)
def _simulate(weights, neuron, groups, physics, noise, mask, lanes, records):
    """Walk one sample through one block from crossing to crossing (eq. 8-9); return the crossings recorded.

    With a key, spikes are sent as `bats_lab.spikes.estimators.discretize_stochastically` has it.
    """
    first, tick, time, decay = groups.first, groups.tick, groups.time, groups.decay
    c, tau, delta_t, rule, max_spikes = physics.c, physics.tau, physics.delta_t, physics.rule, physics.max_spikes
    closed, tau_syn = physics.closed, physics.tau_syn
    a, b, excess, mark, words = lanes.a, lanes.b, lanes.excess, lanes.mark, lanes.words
    hits, crossings, own_tick = lanes.hits, lanes.crossings, lanes.own_tick
    solver, root, since = lanes.solver, lanes.solver.root, lanes.solver.since
    floats, integers, sent, counters = records.floats, records.integers, records.sent, records.counters
    two_lanes = mark.shape[0] == 2 * words.shape[0]
    grid = delta_t > 0
    zero, one, two = a.dtype.type(0), a.dtype.type(1), a.dtype.type(2)
    tiny = a.dtype.type(1e-30)
    length, fades = zero, (one, one, zero)  # of the interval at hand, where there is no closed form
    ticks_per_second = 1.0 / delta_t if grid else 0.0
    # At rest: no current, no potential, and by c below the threshold.
    a[:] = 0
    b[:] = 0
    excess[:] = -c
    crossings[:] = 0
    sent[:] = 0
    counters[:] = 0
    own_tick[:] = -1
    n_records, next_one = np.uint64(0), np.uint64(1)  # indices without a sign cost no test of it
    d = one
    for g in range(groups.n_active):
        # The sums of eq. 8, moved to this group's time, and which lanes may cross before the next one's.
        begin, stop = first[g], first[g + 1]
        end = decay[g]
        _sum_rows(weights, neuron, begin, stop, lanes.total)
        if closed:
            _advance(lanes, d, end, c)
            d = end
        else:
            stops = time[g + 1] if g + 1 < groups.n_active else physics.duration
            length = a.dtype.type(max(stops - time[g], 0.0))
            ahead = response(length, tau, tau_syn)
            advance_any(lanes, fades, ahead, length, c, tau)
            fades = ahead
        # Which lanes are marked: the sign bits of 32 words, shifted by their number into one word, a bit for each lane.
        n_hits = np.uint64(0)
        for word in range(0, words.shape[0], 32):
            free = np.uint64(0)
            if words.shape[0] == 8:
                for i in range(8):
                    free |= (~words[i] & mask) >> np.uint64(i)
            else:
                for i in range(32):
                    free |= (~words[word + i] & mask) >> np.uint64(i)
            while free:
                bit = _trailing_zeros(free)
                free &= free - np.uint64(1)
                hits[n_hits] = 2 * (word + 31 - (bit & 31)) + (bit >> 5) if two_lanes else word + 63 - bit
                n_hits += next_one
        for hit in range(np.int64(n_hits)):
            j = hits[hit]
            solver.a[hit], solver.b[hit], solver.excess[hit] = a[j], b[j], excess[j]
            solver.latest[hit] = one if closed else zero
        while n_hits:
            if closed:
                _solve(solver, (np.int64(n_hits) + 15) // 16 * 16, end, c, tau)
            else:
                solve_any(solver, np.int64(n_hits), length, c, tau, tau_syn)
            n_again = np.uint64(0)  # lanes that may cross once more in this interval
            for hit in range(np.int64(n_hits)):
                j = hits[hit]
                s = root[hit]
                if crossings[j] >= max_spikes:
                    continue
                if s < 0:
                    # If it ends above, the potential has only touched the threshold: no crossing, and still below.
                    if excess[j] >= 0:
                        excess[j] = -tiny
                    continue
                # Eq. 14, and the collision rule: what becomes of it if the last spike has not left yet.
                spike_tick = np.int64(0)
                collides = False
                if grid:
                    # Ticks are counted from the group's, so that a long window costs no precision.
                    phase = since[hit] * ticks_per_second
                    spike_tick = tick[g] + np.int64(phase + GRID_TOLERANCE) + 1
                    collides = own_tick[j] >= 0 and phase - GRID_TOLERANCE <= own_tick[j] - tick[g]
                    if collides and rule == DROP:
                        counters[DROPPED] += 1
                        continue
                sent_tick = spike_tick
                if collides and rule == MERGE:
                    counters[MERGED] += 1
                    sent_tick = np.int64(-1)
                elif collides and rule == DEFER:
                    counters[DEFERRED] += 1
                    sent_tick = max(spike_tick, own_tick[j] + 1)
                    own_tick[j] = sent_tick
                    if sent_tick > physics.limit_tick:
                        counters[LOST] += 1
                        sent_tick = np.int64(-1)
                else:
                    own_tick[j] = spike_tick
                if noise.key and grid and sent_tick >= 0:
                    place = noise.place + j * max_spikes + crossings[j]
                    rounded = tick[g] + np.int64(since[hit] * ticks_per_second + 0.5 + _uniform(noise.key, place))
                    sent_tick += rounded - spike_tick
                floats[n_records, TIME] = time[g] + since[hit]
                floats[n_records, SLOPE] = solver.slope[hit]
                floats[n_records, FADE] = s
                integers[n_records, LANE] = j
                integers[n_records, TICK] = sent_tick
                integers[n_records, BIN] = spike_tick
                integers[n_records, GROUP] = g
                n_records += next_one
                if sent_tick >= 0:
                    sent[j] += 1
                crossings[j] += 1
                # The reset (eq. 4, second sum) is another input of eq. 8, to b alone.
                a_j, b_j = solver.a[hit], solver.b[hit] - solver.reset[hit]
                if closed:
                    excess_j, falls, latest = (b_j - a_j * end) * end - c, b_j > two * a_j * end, s
                else:
                    u_end = b_j * fades[0] + a_j * fades[2]
                    excess_j, falls, latest = u_end - c, u_end > a_j * fades[1], since[hit]
                b[j], excess[j] = b_j, excess_j
                if crossings[j] >= max_spikes:
                    counters[TRUNCATED] += 1
                elif excess_j >= 0 or falls:
                    hits[n_again] = j
                    solver.a[n_again], solver.b[n_again] = a_j, b_j
                    solver.excess[n_again], solver.latest[n_again] = excess_j, latest
                    n_again += next_one
            n_hits = n_again
    return n_records


@njit(cache=True, nogil=True, error_model="numpy", fastmath=LANES)
def _advance_clocked(a, b, mark, d, c):
    """Decay the sums by one tick and mark the lanes at or above threshold."""
    d2 = d * d
    for j in range(a.shape[0]):
        a[j] *= d2
        b[j] *= d
        mark[j] = b[j] - a[j] - c


@njit(cache=True, nogil=True, error_model="numpy", fastmath=LANES)
def _advance_in_words(a, b, mark, d, c, unit):
    """Decay as :func:`_advance_clocked` does, and round the current, `a`, and the potential over τ, `b - a`."""
    d2, per_unit = d * d, a.dtype.type(1) / unit
    for j in range(a.shape[0]):
        current, linear = a[j] * d2, b[j] * d
        potential = np.rint((linear - current) * per_unit) * unit
        a[j] = np.rint(current * per_unit) * unit
        b[j] = potential + a[j]
        mark[j] = potential - c


@njit(cache=True, nogil=True, error_model="numpy", fastmath=LANES)
def _add_rows(a, b, row):
    for j in range(a.shape[0]):
        a[j] += row[j]
        b[j] += row[j]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=EXACT)
def _simulate_clocked(weights, neuron, groups, physics, lanes, records):
    """Walk one sample through one block tick by tick; return the spikes recorded.

    The potential is read at ticks only, before the inputs of that tick (which add nothing to it yet). Where it has
    crossed upward since the last tick, the closed form gives the crossing for the gradient.
    """
    first, tick, time = groups.first, groups.tick, groups.time
    c, tau, delta_t, max_spikes = physics.c, physics.tau, physics.delta_t, physics.max_spikes
    a, b, mark, crossings = lanes.a, lanes.b, lanes.mark, lanes.crossings
    closed, tau_syn, solver = physics.closed, physics.tau_syn, lanes.solver
    floats, integers, sent, counters = records.floats, records.integers, records.sent, records.counters
    a[:] = 0
    b[:] = 0
    crossings[:] = 0
    sent[:] = 0
    counters[:] = 0
    n_records = 0
    if groups.n_active == 0:
        return n_records
    one = a.dtype.type(1)
    d = a.dtype.type(math.exp(-delta_t / tau))  # the fade of one tick
    length = a.dtype.type(delta_t)
    fades = response(length, tau, tau_syn)
    g = -1
    for k in range(tick[0], physics.last_tick + 1):
        if g >= 0:
            if not closed:
                advance_clocked_any(lanes, fades, c)
            elif physics.unit > 0:
                _advance_in_words(a, b, mark, d, c, physics.unit)
            else:
                _advance_clocked(a, b, mark, d, c)
            for j in range(a.shape[0]):
                if not mark[j] >= 0 or crossings[j] >= max_spikes:
                    continue
                # Where the closed form has no crossing in the tick (the neuron was above threshold before) the slope is
                # infinite, and so the spike passes no error on.
                spike_time = k * delta_t
                slope = a.dtype.type(np.inf)
                discriminant = b[j] * b[j] - 4 * a[j] * c
                if not closed:
                    # From the tick before, whose state `total` and `excess` have.
                    solver.a[0], solver.b[0] = lanes.total[j], lanes.excess[j]
                    solver.excess[0], solver.latest[0] = mark[j], 0
                    if solver.b[0] < c:
                        solve_any(solver, np.int64(1), length, c, tau, tau_syn)
                        if solver.root[0] > 0:
                            spike_time += solver.since[0] - delta_t
                            slope = solver.slope[0]
                elif discriminant > 0:
                    x = math.sqrt(discriminant)
                    s = (b[j] + x) / (2 * a[j])  # relative to this tick: 1 now, 1/d a tick ago
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
        if g + 1 < groups.n_active and tick[g + 1] == k:
            g += 1
            for event in range(first[g], first[g + 1]):
                if closed:
                    _add_rows(a, b, weights[neuron[event]])
                else:
                    add_row(weights[neuron[event]], a)
    return n_records


@njit(cache=True, nogil=True, error_model="numpy", fastmath=EXACT)
def _simulate_part(part, n_parts, n_samples, inputs, weights, n_post, physics, key, mask, groups, crossings):
    """Walk samples through a block of neurons: of `n_parts` of the batch in each block, the one numbered `part`."""
    block, chunk = part // n_parts, part % n_parts
    width = weights.shape[2]
    # Marks are looked at 32 words at a time, those of a narrow layer by 8.
    n_marks = width if width * weights.itemsize == 64 else (width + 63) // 64 * 64
    mark = np.full(n_marks, -weights.dtype.type(1), weights.dtype)
    lanes = Lanes(
        np.empty(width, weights.dtype),
        np.empty(width, weights.dtype),
        np.empty(width, weights.dtype),
        mark,
        mark.view(np.uint64),
        np.empty(width, weights.dtype),
        np.empty(width + 1, np.uint32),
        np.empty(width, np.int32),
        np.empty(width, np.int64),
        Solver(
            np.empty(width, weights.dtype),
            np.empty(width, weights.dtype),
            np.empty(width, weights.dtype),
            np.empty(width, weights.dtype),
            np.empty(width, weights.dtype),
            np.empty(width, weights.dtype),
            np.empty(width, weights.dtype),
            np.empty(width, weights.dtype),
        ),
    )
    for i in range(chunk * n_samples // n_parts, (chunk + 1) * n_samples // n_parts):
        walk = walk_of(groups, i)
        records = records_of(crossings, i, block)
        if physics.rule == CLOCKED:
            n_records = _simulate_clocked(weights[block], inputs.neuron, walk, physics, lanes, records)
        else:
            # A crossing's place among the random numbers: by sample, neuron and its number.
            place = (i * n_post + block * width) * physics.max_spikes
            n_records = _simulate(weights[block], inputs.neuron, walk, physics, Noise(key, place), mask, lanes, records)
        crossings.n_records[i, block] = n_records


@njit(cache=True, nogil=True, parallel=True, error_model="numpy", fastmath=EXACT)
def forward(samples, inputs, weights, n_post, physics, key, n_chunks, mask, fully, groups, crossings, sent):
    """Simulate a layer for a batch: groups of inputs, crossings of every block, sent spikes in order.

    Parameters
    ----------
    samples : ndarray of int64, (sample,)
        Which samples of `inputs`.
    inputs : Events
    weights : ndarray, (block, pre, lane)
    n_post : int
        Neurons of the layer; the last block may have more lanes.
    physics : Physics
    key : uint64
        Key of the random numbers by which spikes are rounded to the grid; 0: they are sent at eq. 14.
    n_chunks : int
        Parts of the batch that threads take apart, in each block.
    mask : uint64
        The sign bits of a word of marks.
    fully : bool
        Whether spikes of one tick are to be in order of their continuous times.
    groups, crossings, sent : Groups, Crossings, Sent
        Where the results go.
    """
    n_samples = samples.shape[0]
    groups.offset[0] = 0
    for i in range(n_samples):
        groups.offset[i + 1] = groups.offset[i] + inputs.size[samples[i]] + 1
    for i in prange(n_samples):
        group_events(
            inputs.times, inputs.ticks, inputs.start[samples[i]], inputs.size[samples[i]], physics, groups, np.int64(i)
        )
    for task in prange(weights.shape[0] * n_chunks):
        _simulate_part(
            np.int64(task), n_chunks, n_samples, inputs, weights, n_post, physics, key, mask, groups, crossings
        )
    # Stochastic rounding may send one tick later than eq. 14.
    n_ticks = physics.limit_tick + 3 if physics.delta_t > 0 else 0
    for i in prange(n_samples):
        order_records(crossings, np.int64(i), np.int64(TICK), n_ticks, physics, fully, sent)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=EXACT)
def add_up(crossings, sent, n_samples, delta_t, fired, counts):
    """Add a batch's counters to `counts`, mark neurons that `fired`; return number and delay of spikes."""
    total, delay = np.int64(0), 0.0
    width = crossings.sent.shape[2]
    for block in range(crossings.sent.shape[1]):
        part = fired[block * width : (block + 1) * width]
        for i in range(n_samples):
            for lane in range(part.shape[0]):
                n = crossings.sent[i, block, lane]
                total += n
                part[lane] |= n > 0
            for column in range(counts.shape[0]):
                counts[column] += crossings.counters[i, block, column]
    if delta_t > 0:
        for i in range(n_samples):
            for event in range(sent.n_sent[i]):
                delay += sent.ticks[i, event] * delta_t - sent.times[i, event]
    return total, delay
