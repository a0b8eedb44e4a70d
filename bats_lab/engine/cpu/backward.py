r"""The backward pass on the CPU, and the update of the weights.

Gradients in the frame of the spike
-----------------------------------
Taken relative to the spike's own time :math:`t_k`, eq. 8-9 and the crossing condition :math:`b = a + c` give
:math:`x_k = a - c` (the slope of the potential at the crossing) and :math:`f_k = h_k = \tau/x_k`; eq. 12 becomes

.. math:: \frac{\partial t_k}{\partial w_i} = \frac{\tau}{x_k}\sum_z (E_z^2 - E_z),
          \qquad E_z = e^{(\tilde t_z - t_k)/\tau} .

One number per crossing, its slope, is all that backpropagation needs of the forward pass. The
backward pass walks the groups from last to first and carries :math:`F = \sum_k \delta_k\tau/x_k E^2` and
:math:`H = \sum_k \delta_k\tau/x_k E`, relative to the current group: a weight gradient costs one addition per input
event and neuron. No result depends on how many threads there are: sums run over samples in a fixed order.
Where τ is not twice τ_s, F and H are what :mod:`bats_lab.engine.cpu.newton` has.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from bats_lab.engine.cpu.forward import add_row
from bats_lab.engine.cpu.newton import fade_any, response, take_steps_any
from bats_lab.engine.cpu.records import (
    ALL,
    BIN,
    EXACT,
    FADE,
    GROUP,
    LANE,
    LANES,
    SLOPE,
    SUMS,
    TICK,
    TIME,
    Backlog,
    records_of,
    walk_of,
)

__all__ = ["backward", "return_errors", "spread_errors", "update"]

# Weights updated by a thread at a time.
UPDATE_CHUNK = 1 << 14
# Fades below this are not divided by: in float32 they may have lost all digits.
TINY = 1e-30


@njit(cache=True, nogil=True, error_model="numpy")
def _surrogate_slope(time, delta_t, q):
    """As `bats_lab.spikes.estimators.surrogate_slope`, with its `q`."""
    return (1.0 - q * q) / (1.0 - 2.0 * q * math.cos(2.0 * math.pi * (time / delta_t)) + q * q)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=LANES, forceinline=True)
def _take_steps(sums, rate):
    """Set `step` to what an input of this group adds to its weights' gradients, `back` to what its error takes."""
    f, h, step, back = sums.f, sums.h, sums.step, sums.back
    twice = rate + rate  # 1/τ_s: τ is twice τ_s, and E² fades by it
    for j in range(f.shape[0]):
        step[j] = f[j] - h[j]  # Σ δ τ/x (E² - E), eq. 12
        back[j] = twice * f[j] - rate * h[j]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=LANES, forceinline=True)
def _fade(sums, d):
    """Move all sums by the fade `d` back to the group before."""
    f, h, chain = sums.f, sums.h, sums.chain
    d2 = d * d
    for j in range(f.shape[0]):
        f[j] *= d2  # F has E², H has E: an input further back has faded more
        h[j] *= d
        chain[j] *= d


@njit(cache=True, nogil=True, error_model="numpy", fastmath=LANES, forceinline=True)
def _add_scaled(f, h, square, linear, out, i):
    """Add ``square * f - linear * h`` to row `i`."""
    for j in range(f.shape[0]):
        out[i, j] += square * f[j] - linear * h[j]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=SUMS, forceinline=True)
def _dot_scaled(f, h, square, linear, weights, i):
    """Return the product of row `i` and ``square * f - linear * h``."""
    total = f.dtype.type(0)
    for j in range(f.shape[0]):
        total += weights[i, j] * (square * f[j] - linear * h[j])
    return total


@njit(cache=True, nogil=True, error_model="numpy", fastmath=LANES, forceinline=True)
def _add_step(step, gradient, i):
    for j in range(step.shape[0]):
        gradient[i, j] += step[j]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=SUMS, forceinline=True)
def _dot(weights, i, back):
    total = back.dtype.type(0)
    for j in range(back.shape[0]):
        total += weights[i, j] * back[j]
    return total


@njit(cache=True, nogil=True, error_model="numpy", fastmath=EXACT)
def _backward_sample(
    weights, gradient, inputs, groups, records, n_records, errors, physics, reading, input_errors, sums
):
    """Send one sample's errors back through one block (eq. 11-16).

    Where `by_bin`, `sums.order` lists the crossings so that `sums.position` ascends.

    Straight-through, a crossing also takes inputs of the tick that comes next: those that came before it in continuous
    time though they are sent after it. Where inputs of a tick stand in order of time, they are its first ones. So the
    crossing is noted at the last of them, and a tick is walked from its last input to its first only after the
    crossings before it: from a note on, its share is in the sums that inputs take, of which one lane changes.
    """
    neuron, times, sent_ticks = inputs.neuron, inputs.times, inputs.ticks
    first, tick, time, decay = groups.first, groups.tick, groups.time, groups.decay
    floats, integers = records.floats, records.integers
    c, tau, delta_t = physics.c, physics.tau, physics.delta_t
    closed, tau_syn = physics.closed, physics.tau_syn
    by_bin, want_errors, clocked = reading.by_bin, reading.want_errors, reading.clocked
    f, h, step, back, chain = sums.f, sums.h, sums.step, sums.back, sums.chain
    position, order = sums.position, sums.order
    noted, before, lane, squares, linears = sums.noted, sums.before, sums.lane, sums.squares, sums.linears
    f[:] = 0
    h[:] = 0
    step[:] = 0
    back[:] = 0
    chain[:] = 0
    looks_ahead = delta_t > 0 and not reading.by_sent
    active = False
    zero, one, two = f.dtype.type(0), f.dtype.type(1), f.dtype.type(2)
    rate, rate_syn = one / tau, one / tau_syn
    n_groups = groups.n_all if by_bin else groups.n_active
    rank = n_records - 1
    # `g` is the latest group before the crossings at hand; F, H and C are relative to its time.
    for g in range(n_groups - 1, -2, -1):
        begin, stop = first[g + 1], first[g + 2] if g + 1 < groups.n_all else first[g + 1]  # the inputs that come next
        n_notes = np.uint32(0)
        lead = zero  # by what a fade from a crossing to this group is to be multiplied to be one to the next group
        if g >= 0 and g + 1 < groups.n_active and decay[g] > TINY:
            lead = one / decay[g]
        # Crossings after this group and before the next one, from last to first.
        while rank >= 0:
            k = np.uint32(order[rank] if by_bin else rank)
            if (position[k] if by_bin else integers[k, GROUP]) != g:
                break
            rank -= 1
            j = np.uint32(integers[k, LANE])
            t = floats[k, TIME]
            delta = errors[k] if integers[k, TICK] >= 0 else zero
            fade = f.dtype.type(math.exp((time[g] - t) / tau)) if by_bin else floats[k, FADE]
            if chain[j] != 0:
                # Eq. 13, second sum. A clocked neuron resets at its tick, not at the crossing.
                later = chain[j] / fade
                if clocked:
                    later *= f.dtype.type(math.exp((integers[k, TICK] * delta_t - t) / tau))
                delta += later
            # A later crossing needs more drive the earlier this one reset the neuron: C += δ c/x (eq. 13).
            scaled = delta / floats[k, SLOPE]
            if scaled == 0:
                continue
            active = True
            chain[j] += scaled * c * fade
            # Its share of F and H (eq. 12), moved from its own time to this group's.
            distance = zero
            if closed:
                scaled *= tau
                linear = scaled * fade
                f[j] += linear * fade
                h[j] += linear
            else:
                distance = f.dtype.type(t - time[g]) if by_bin else -tau * f.dtype.type(math.log(fade))
                f[j] -= scaled * tau * response(distance, tau, tau_syn)[2]
                h[j] += scaled * fade
            if not (looks_ahead and begin < stop and tick[g + 1] <= integers[k, BIN]):
                continue
            # E is above 1 there, as it is sent after the crossing. Two loops: in a shared one the compiler fuses other
            # multiplications with additions, and last bits of the closed form change.
            if closed:
                ahead = fade * lead if lead > 0 else f.dtype.type(math.exp((time[g + 1] - t) / tau))
                linear = scaled * ahead
                square = linear * ahead
                if not reading.in_order:
                    for event in range(begin, stop):
                        if times[event] < t:
                            i = np.uint32(neuron[event])
                            gradient[i, j] += square - linear
                            if want_errors:
                                input_errors[event] += weights[i, j] * rate * (two * square - linear)
            else:
                ahead, _, spread = response(distance - f.dtype.type(time[g + 1] - time[g]), tau, tau_syn)
                square, linear = -scaled * tau * spread, scaled * ahead
                if not reading.in_order:
                    for event in range(begin, stop):
                        if times[event] < t:
                            i = np.uint32(neuron[event])
                            gradient[i, j] += square
                            if want_errors:
                                input_errors[event] += weights[i, j] * (rate_syn * square + linear)
            if reading.in_order and times[begin] < t:
                low, high = begin + 1, stop  # the first input that did not come before
                while low < high:
                    middle = (low + high) >> 1
                    if times[middle] < t:
                        low = middle + 1
                    else:
                        high = middle
                place = np.uint32(low - begin)
                lane[n_notes], linears[n_notes], squares[n_notes] = j, linear, square
                before[n_notes] = noted[place]
                n_notes = np.uint32(n_notes + np.uint32(1))
                noted[place] = n_notes
        if not active:
            continue
        # What the next group's inputs get: eq. 12 for their weights, eq. 13 (first sum) for their own errors.
        for event in range(stop - 1, begin - 1, -1):
            place = np.uint32(event - begin + 1)
            note = noted[place]
            noted[place] = 0
            while note:
                note = np.uint32(note - np.uint32(1))
                j = lane[note]
                square, linear = squares[note], linears[note]
                if by_bin:
                    step[j] += square
                    back[j] += linear
                elif not closed:
                    step[j] += square
                    back[j] += rate_syn * square + linear
                else:
                    step[j] += square - linear
                    back[j] += rate * (two * square - linear)
                note = before[note]
            i = np.uint32(neuron[event])
            if by_bin:
                # Spikes of one tick of eq. 14 may have been sent on different ones: each has an E of its own.
                if closed:
                    ahead = f.dtype.type(math.exp((sent_ticks[event] - tick[g + 1]) * delta_t / tau))
                    of_f, of_h = ahead * ahead, ahead
                    back_f, back_h = two * ahead * ahead / tau, ahead / tau
                else:
                    distance = f.dtype.type((tick[g + 1] - sent_ticks[event]) * delta_t)
                    ahead, of_f, spread = response(distance, tau, tau_syn)
                    of_h = tau * spread
                    back_f, back_h = of_f * rate_syn, of_h * rate_syn - ahead
                _add_scaled(step, back, of_f, of_h, gradient, i)
                if want_errors:
                    input_errors[event] += _dot_scaled(step, back, back_f, back_h, weights, i)
            else:
                _add_step(step, gradient, i)
                if want_errors:
                    input_errors[event] += _dot(weights, i, back)
        if g < 0:
            break
        if by_bin:
            step[:] = f
            back[:] = h
        elif closed:
            _take_steps(sums, rate)
        else:
            take_steps_any(sums, rate_syn)
        if closed:
            _fade(sums, decay[g - 1] if g > 0 else one)
        elif g > 0:
            fade_any(sums, response(f.dtype.type(time[g] - time[g - 1]), tau, tau_syn), tau)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=EXACT)
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


@njit(cache=True, nogil=True, parallel=True, error_model="numpy", fastmath=EXACT)
def backward(weights, gradient, inputs, groups, crossings, errors, physics, reading, input_errors):
    """Send a batch's errors back through a layer; weight gradients are added to, input errors are set.

    Parameters
    ----------
    weights : ndarray, (block, pre, lane)
    gradient : ndarray, (slab, block, pre, lane)
        Parts of the batch are summed apart, a slab each.
    inputs : Events
        Input spikes; of them the arrays by spike.
    groups, crossings : Groups, Crossings
    errors : ndarray, (sample, block, record)
        Of the crossings.
    physics, reading : Physics, Reading
    input_errors : ndarray, (block, spike)
        Errors of the input spikes, each block's share.
    """
    n_samples = errors.shape[0]
    n_blocks, _, width = weights.shape
    n_slabs = gradient.shape[0]
    capacity = crossings.integers.shape[2] if reading.by_bin else 0
    n_notes, n_noted = 0, 1
    for i in range(n_samples):
        n_noted = max(
            n_noted, groups.first[groups.offset[i] + groups.n_groups[i, ALL]] - groups.first[groups.offset[i]] + 1
        )
        for block in range(n_blocks):
            n_notes = max(n_notes, crossings.n_records[i, block])
    for task in prange(n_blocks * n_slabs):
        block = task // n_slabs
        slab = task % n_slabs
        sums = Backlog(
            np.empty(width, weights.dtype),
            np.empty(width, weights.dtype),
            np.empty(width, weights.dtype),
            np.empty(width, weights.dtype),
            np.empty(width, weights.dtype),
            np.empty(capacity, np.int32),
            np.empty(capacity, np.int32),
            np.zeros(n_noted, np.uint32),
            np.empty(n_notes, np.uint32),
            np.empty(n_notes, np.uint32),
            np.empty(n_notes, weights.dtype),
            np.empty(n_notes, weights.dtype),
        )
        for i in range(slab * n_samples // n_slabs, (slab + 1) * n_samples // n_slabs):
            walk = walk_of(groups, i)
            records = records_of(crossings, i, block)
            n_records = crossings.n_records[i, block]
            if reading.want_errors:
                for event in range(walk.first[0], walk.first[walk.n_all]):
                    input_errors[block, event] = 0
            if reading.by_bin:
                _positions(records.integers, n_records, walk.tick, walk.n_all, sums.position, sums.order)
            _backward_sample(
                weights[block],
                gradient[slab, block],
                inputs,
                walk,
                records,
                n_records,
                errors[i, block],
                physics,
                reading,
                input_errors[block],
                sums,
            )


@njit(cache=True, nogil=True, parallel=True, error_model="numpy", fastmath=EXACT)
def return_errors(input_errors, source, n_sent, errors, floats, delta_t, q):
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
                record = source[i, event]
                total *= _surrogate_slope(floats[i, record // capacity, record % capacity, TIME], delta_t, q)
            errors_i[source[i, event]] = total


@njit(cache=True, nogil=True, parallel=True, error_model="numpy", fastmath=EXACT)
def spread_errors(output_errors, integers, n_records, width, errors):
    """Give every output spike the error of its neuron, (sample, neuron)."""
    for i in prange(output_errors.shape[0]):
        for block in range(n_records.shape[1]):
            for k in range(n_records[i, block]):
                errors[i, block, k] = output_errors[i, block * width + integers[i, block, k, LANE]]


@njit(cache=True, nogil=True, parallel=True, error_model="numpy", fastmath=EXACT)
def round_weights(weights, scale, top, out):
    """Round weights to integers from `-top` to `top` times a scale, as ``engine.quantization.rounded`` does."""
    for k in prange(len(weights)):
        level = min(max(np.rint(np.float64(weights[k]) / scale), -top), top)
        out[k] = level * scale + 0.0  # no weight is -0


@njit(cache=True, nogil=True, parallel=True, error_model="numpy", fastmath=EXACT)
def update(weights, gradient, first_moment, second_moment, adam):
    """Adam in one pass over memory: add up slabs, update moments and weights, clear the gradient.

    Notes
    -----
    Kingma and Ba (2015), Algorithm 1. `adam` (AdamStep) has the corrections of the bias in its step and root scale.
    """
    size = weights.shape[0]
    for chunk in prange((size + UPDATE_CHUNK - 1) // UPDATE_CHUNK):
        part = slice(chunk * UPDATE_CHUNK, min((chunk + 1) * UPDATE_CHUNK, size))
        total = gradient[0, part]
        for slab in range(1, gradient.shape[0]):
            add_row(gradient[slab, part], total)
            gradient[slab, part] = 0
        _adam(weights[part], total, first_moment[part], second_moment[part], adam)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=EXACT)
def _adam(w, g, m, v, adam):
    beta_1, beta_2, step, epsilon = adam.beta_1, adam.beta_2, adam.step, adam.epsilon
    scale, root_scale = adam.scale, adam.root_scale
    one = w.dtype.type(1)
    rest_1, rest_2 = one - beta_1, one - beta_2
    for i in range(w.shape[0]):
        g_i = g[i] * scale  # the mean over samples
        # m and v without the correction of their bias, which `step` and `root_scale` have.
        m_i = beta_1 * m[i] + rest_1 * g_i
        v_i = beta_2 * v[i] + rest_2 * g_i * g_i
        m[i] = m_i
        v[i] = v_i
        w[i] -= step * m_i / (np.sqrt(v_i) * root_scale + epsilon)
        g[i] = 0
