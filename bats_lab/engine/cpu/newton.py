r"""Neurons of any time constants: what takes the place of the closed form where τ is not twice τ_s.

Between two inputs the potential is, from its own value and the current :math:`a` at the latest input,

.. math:: \frac{u(x)}{\tau} = b\,D(x) + a\,\frac{K(x)}{\tau}, \qquad D = e^{-x/\tau}, \qquad
    K = \frac{e^{-x/\tau} - e^{-x/\tau_s}}{1/\tau_s - 1/\tau}, \qquad \dot u = a\,e^{-x/\tau_s} - u/\tau ,

where an input adds its weight to `a`, and a reset takes :math:`c/D` from `b`, as in the closed form. Written by
``expm1``, `K` needs no case of its own for :math:`\tau = \tau_s`, where it is :math:`x\,e^{-x/\tau}` and a crossing
could be had from Lambert's W.

A crossing takes a current above 0. While the potential then rises, :math:`\ddot u = -\dot u/\tau - i/\tau_s` is below
0: it is concave up to its one maximum. So Newton's method, started below the threshold, comes to the crossing from
the left and never passes it; where it meets a slope that is not above 0, it has passed the maximum instead, and there
is no crossing.

In the backward pass (eq. 12) :math:`\partial t_k/\partial w = -K(t_k - \tilde t_z)/\dot u`, and
:math:`\partial t_k/\partial\tilde t_z = w\,(e^{-(t_k-\tilde t_z)/\tau} - K/\tau_s)/\dot u`. The sums it carries are
:math:`F = -\sum_k \delta_k K/\dot u` and :math:`H = \sum_k \delta_k e^{-(t_k - t_g)/\tau}/\dot u`, which a distance
`y` further back are :math:`e^{-y/\tau_s} F - K(y) H` and :math:`e^{-y/\tau} H`: an input's weight gets `F`, its error
:math:`F/\tau_s + H`.
"""

from __future__ import annotations

import math

from numba import njit

from bats_lab.engine.cpu.records import EXACT, LANES

__all__ = ["advance_any", "advance_clocked_any", "fade_any", "response", "solve_any", "take_steps_any"]

# Steps of Newton's method at most: it takes about five, and at a maximum that touches the threshold, where each halves
# what is left, as often as a float64 has bits.
MAX_STEPS = 100


@njit(cache=True, nogil=True, error_model="numpy", fastmath=EXACT)
def response(x, tau, tau_syn):
    """Return exp(-x/τ), exp(-x/τ_s) and K(x)/τ; for no x above 0, and no τ, do they overflow or lose digits."""
    one = tau / tau  # of its type
    leak, syn = one / tau, one / tau_syn
    low, gap = min(leak, syn), abs(syn - leak)
    slow = math.exp(-low * x)
    spread = slow * leak * (-math.expm1(-gap * x) / gap if gap > 0 else x)
    fast = slow * math.exp(-gap * x)
    return (slow, fast, spread) if leak <= syn else (fast, slow, spread)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=LANES)
def advance_any(lanes, past, ahead, length, c, tau):
    """Move the sums to a group, add the `total` of its weights, and mark the lanes that may cross before the next one.

    `past` and `ahead` are the responses of the intervals before and after it, `length` is that of the latter. It marks
    as `bats_lab.engine.cpu.forward._advance` does: a lane that starts below threshold and ends at or above it, or has
    a maximum in between, which by the slope at the start is high enough.
    """
    a, b, excess, mark, total = lanes.a, lanes.b, lanes.excess, lanes.mark, lanes.total
    d, d_syn, spread = past
    end, end_syn, end_spread = ahead
    rise = length / tau
    for j in range(a.shape[0]):
        a_j = a[j] * d_syn + total[j]
        b_j = b[j] * d + a[j] * spread
        a[j] = a_j
        b[j] = b_j
        u_end = b_j * end + a_j * end_spread
        excess_end = u_end - c
        slope = a_j - b_j
        peak = min(min(slope, u_end - a_j * end_syn), b_j + slope * rise - c)
        mark[j] = min(max(peak, excess_end), -excess[j])
        excess[j] = excess_end


@njit(cache=True, nogil=True, error_model="numpy", fastmath=EXACT)
def solve_any(solver, n, length, c, tau, tau_syn):
    """Find the next crossing of `n` lanes within `length` of the group; `latest` is the time since it, not its s."""
    a, b, excess, latest = solver.a, solver.b, solver.excess, solver.latest
    root, since, slope, reset = solver.root, solver.since, solver.slope, solver.reset
    for i in range(n):
        x = latest[i]
        ends_above = excess[i] >= 0
        root[i] = -1
        found = False
        for _ in range(MAX_STEPS):
            d, d_syn, spread = response(x, tau, tau_syn)
            u = b[i] * d + a[i] * spread
            rate = a[i] * d_syn - u
            if not rate > 0:
                break
            slope[i], reset[i] = rate, c / d
            later = x + tau * (c - u) / rate
            # Once it no longer goes on it has come as close as rounding lets it.
            found = not (later > x and x < length)
            if found:
                break
            # Where it ends above threshold it has crossed: rounding must not move that out of the interval.
            if later > length:
                if not ends_above:
                    break
                later = length
            x = later
        if found and (ends_above or x > latest[i]):
            root[i], since[i] = d, x


@njit(cache=True, nogil=True, error_model="numpy", fastmath=LANES)
def advance_clocked_any(lanes, fades, c):
    """Move the sums by one tick, keep those of the tick before, and mark the lanes at or above threshold."""
    a, b, mark, a_before, b_before = lanes.a, lanes.b, lanes.mark, lanes.total, lanes.excess
    d, d_syn, spread = fades
    for j in range(a.shape[0]):
        a_before[j] = a[j]
        b_before[j] = b[j]
        b[j] = b[j] * d + a[j] * spread
        a[j] *= d_syn
        mark[j] = b[j] - c


@njit(cache=True, nogil=True, error_model="numpy", fastmath=LANES)
def fade_any(sums, fades, tau):
    """Move all sums of the backward pass back to the group before."""
    f, h, chain = sums.f, sums.h, sums.chain
    d, d_syn, spread = fades
    spread = spread * tau
    for j in range(f.shape[0]):
        f[j] = d_syn * f[j] - spread * h[j]
        h[j] *= d
        chain[j] *= d


@njit(cache=True, nogil=True, error_model="numpy", fastmath=LANES)
def take_steps_any(sums, rate_syn):
    """Set `step` to what an input of this group adds to its weights' gradients, `back` to what its error takes."""
    f, h, step, back = sums.f, sums.h, sums.step, sums.back
    for j in range(f.shape[0]):
        step[j] = f[j]
        back[j] = rate_syn * f[j] + h[j]
