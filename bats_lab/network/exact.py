r"""Graphs in continuous time: an event-based simulator with nothing but rounding between it and the equations.

Between two events the potential of :mod:`bats_lab.network.graphs` is

.. math:: v(x) = v_0 e^{-x/\tau_m} + q\,A(x) + i_0 K(x), \qquad A = \tau_m (1 - e^{-x/\tau_m}), \qquad
    K = e^{-x/\tau_m}\,\frac{1 - e^{-\delta x}}{\delta}, \qquad \delta = 1/\tau_s - 1/\tau_m,

with :math:`q = v_{leak}/\tau_m + d`. Written like this neither :math:`\tau_m = \tau_s` nor
:math:`\tau_m = \infty` is a special case. :math:`v` has at most one turning point, at
:math:`e^{-\delta x} = 1 - \delta\tau_s(1 + p/i_0)` with :math:`p = q - v_0/\tau_m`, so the first upward crossing is
either alone in a known interval or absent. Without a current it is a logarithm; else Newton's method finds it to the
last bits, each step kept inside the interval.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numba import njit

from bats_lab.network.graphs import INPUT, Graph
from bats_lab.network.platforms import Response
from bats_lab.spikes.grid import first_tick_from
from bats_lab.spikes.trains import Spikes

__all__ = ["next_crossing", "potential_after", "simulate_exactly"]

#: Kinds of events, in the order in which those of one moment are handled: what arrives then acts together.
_ARRIVAL, _CROSSING, _RECORD = 0, 1, 2
_MAX_SPIKES = 100_000


class _Neurons(NamedTuple):
    """Constants of all neurons, population after population."""

    leak_rate: np.ndarray  # 1/τ_m
    syn_rate: np.ndarray  # 1/τ_s; 0 without a synapse
    threshold: np.ndarray
    v_reset: np.ndarray
    v_start: np.ndarray
    push: np.ndarray  # q at rest
    current: np.ndarray  # i at the start
    subtracts: np.ndarray
    max_spikes: np.ndarray


class _Wiring(NamedTuple):
    """What each source reaches: bundles of synapses with one delay. Sources are the inputs, then all neurons."""

    first: np.ndarray  # (source + 1,): bundles of a source
    delay: np.ndarray  # (bundle,)
    start: np.ndarray  # (bundle + 1,): synapses of a bundle
    target: np.ndarray  # (synapse,)
    weight: np.ndarray  # (synapse,): what a spike adds


@njit(cache=True, nogil=True)
def _kernel(x, leak_rate, syn_rate):
    """Return A and K at x."""
    delta = syn_rate - leak_rate
    spread = -math.expm1(-delta * x) / delta if delta != 0 else x
    area = -math.expm1(-leak_rate * x) / leak_rate if leak_rate > 0 else x
    return area, math.exp(-leak_rate * x) * spread


@njit(cache=True, nogil=True)
def potential_after(x, v, q, i, leak_rate, syn_rate):
    """Return potential and slope after a time x without events."""
    area, spread = _kernel(x, leak_rate, syn_rate)
    later = v * math.exp(-leak_rate * x) + q * area + i * spread
    return later, q - leak_rate * later + i * math.exp(-syn_rate * x)


@njit(cache=True, nogil=True)
def next_crossing(v, q, i, leak_rate, syn_rate, threshold):
    """Return the time until the potential next rises through the threshold; ``inf`` if it never does.

    Parameters
    ----------
    v, q, i : float
        Potential, constant push (1/s) and current (1/s) now.
    leak_rate, syn_rate : float
        Inverse time constants in 1/s; `leak_rate` 0: no leak. Without a synapse `i` is 0.
    threshold : float
        Threshold.

    Returns
    -------
    float
        Time in seconds.
    """
    if v >= threshold:
        return 0.0
    slope = q - leak_rate * v
    if leak_rate > 0:
        limit = q / leak_rate
    else:
        limit = v + (i / syn_rate if i != 0 else 0.0) if q == 0 else math.copysign(math.inf, q)
    if i == 0:
        if slope <= 0 or limit <= threshold:
            return math.inf
        return math.log1p((threshold - v) / (limit - threshold)) / leak_rate if leak_rate > 0 else (threshold - v) / q
    # The turning point; below 0 there is none ahead.
    delta = syn_rate - leak_rate
    turn = -1.0
    if delta == 0:
        turn = (1 + slope / i) / syn_rate
    else:
        argument = -delta / syn_rate * (1 + slope / i)
        if argument > -1:
            turn = -math.log1p(argument) / delta
    low, high = 0.0, 1.0 / syn_rate
    if slope + i > 0 and turn > 0:
        high = turn
        if not potential_after(turn, v, q, i, leak_rate, syn_rate)[0] > threshold:
            return math.inf
    else:
        if not limit > threshold or (slope + i <= 0 and turn < 0):
            return math.inf
        low = max(turn, 0.0)
        high += low
        while potential_after(high, v, q, i, leak_rate, syn_rate)[0] <= threshold:
            high = 2 * high
            if high > 1e6 * (1 + low):
                return math.inf
    x = 0.5 * (low + high)
    for _ in range(200):
        value, rate = potential_after(x, v, q, i, leak_rate, syn_rate)
        if value < threshold:
            low = x
        else:
            high = x
        step = (threshold - value) / rate if rate != 0 else math.inf
        after = x + step
        if not low < after < high:
            after = 0.5 * (low + high)
        if abs(after - x) <= 4e-16 * x or low == high:
            return after
        x = after
    return x


@njit(cache=True, nogil=True)
def _run_sample(neurons, wiring, in_times, in_source, n_inputs, duration, pulse, delta_t, recorded, trace):
    """Run one sample; return times and neurons of all spikes, and the first neuron that ran away (-1: none)."""
    n = len(neurons.threshold)
    v, i, q = neurons.v_start.copy(), neurons.current.copy(), neurons.push.copy()
    last, version, fired = np.zeros(n), np.zeros(n, np.int64), np.zeros(n, np.int64)
    dirty, is_dirty = np.arange(n), np.ones(n, np.bool_)
    n_dirty = n
    times, who = [0.0], [0]
    # Events: time, kind, what (bundle, neuron or step), and sign of an arrival or version of a crossing.
    heap = [(delta_t, _RECORD, 0, 0)]
    if len(recorded) == 0:
        heap.pop()
    for k in range(len(in_times)):
        for bundle in range(wiring.first[in_source[k]], wiring.first[in_source[k] + 1]):
            heap.append((in_times[k] + wiring.delay[bundle], _ARRIVAL, bundle, 1))
    heapq.heapify(heap)
    now = 0.0
    while True:
        # Once all that arrives at a moment is in, the crossings of those it reached are found anew.
        if n_dirty and (len(heap) == 0 or heap[0][0] > now or heap[0][1] != _ARRIVAL):
            for k in range(n_dirty):
                m = dirty[k]
                is_dirty[m] = False
                version[m] += 1
                if fired[m] < neurons.max_spikes[m]:
                    wait = next_crossing(
                        v[m], q[m], i[m], neurons.leak_rate[m], neurons.syn_rate[m], neurons.threshold[m]
                    )
                    if last[m] + wait <= duration:
                        heapq.heappush(heap, (last[m] + wait, _CROSSING, m, version[m]))
            n_dirty = 0
        if len(heap) == 0 or heap[0][0] > duration * (1 + 1e-12):
            break
        now, kind, what, extra = heapq.heappop(heap)
        if kind == _ARRIVAL:
            for k in range(wiring.start[what], wiring.start[what + 1]):
                m = wiring.target[k]
                x = now - last[m]
                v[m] = potential_after(x, v[m], q[m], i[m], neurons.leak_rate[m], neurons.syn_rate[m])[0]
                i[m] *= math.exp(-neurons.syn_rate[m] * x)
                last[m] = now
                if neurons.syn_rate[m] > 0:
                    i[m] += extra * wiring.weight[k]
                else:
                    q[m] += extra * wiring.weight[k] / pulse
                    # Cleared exactly, so that no rounding of a pulse stays behind.
                    if abs(q[m] - neurons.push[m]) < 1e-12 * abs(wiring.weight[k] / pulse):
                        q[m] = neurons.push[m]
                if not is_dirty[m]:
                    is_dirty[m] = True
                    dirty[n_dirty] = m
                    n_dirty += 1
            begin = wiring.start[what]
            if extra > 0 and neurons.syn_rate[wiring.target[begin]] == 0:
                heapq.heappush(heap, (now + pulse, _ARRIVAL, what, -1))
        elif kind == _CROSSING:
            m = what
            if extra != version[m]:
                continue
            x = now - last[m]
            v[m] = potential_after(x, v[m], q[m], i[m], neurons.leak_rate[m], neurons.syn_rate[m])[0]
            i[m] *= math.exp(-neurons.syn_rate[m] * x)
            last[m] = now
            v[m] = v[m] - neurons.threshold[m] if neurons.subtracts[m] else neurons.v_reset[m]
            fired[m] += 1
            times.append(now)
            who.append(m)
            if fired[m] >= _MAX_SPIKES:
                return times, who, m
            is_dirty[m] = True
            dirty[n_dirty] = m
            n_dirty += 1
            for bundle in range(wiring.first[n_inputs + m], wiring.first[n_inputs + m + 1]):
                heapq.heappush(heap, (now + wiring.delay[bundle], _ARRIVAL, bundle, 1))
        else:
            for k in range(len(recorded)):
                m = recorded[k]
                rates = neurons.leak_rate[m], neurons.syn_rate[m]
                trace[k, what] = potential_after(now - last[m], v[m], q[m], i[m], *rates)[0]
            if what + 1 < trace.shape[1]:
                heapq.heappush(heap, ((what + 2) * delta_t, _RECORD, what + 1, 0))
    return times, who, -1


def simulate_exactly(
    graph: Graph,
    spikes: Spikes,
    *,
    duration: float,
    delta_t: float = 1e-3,
    record: Collection[str] = (),
) -> Response:
    """Run samples through a graph in continuous time, in float64.

    Parameters
    ----------
    graph : Graph
        The network.
    spikes : Spikes
        Input spikes; their continuous times count.
    duration : float
        Length of the window in seconds.
    delta_t : float
        Spacing of recorded potentials, in seconds.
    record : collection of str
        Populations whose potential is kept, at ``delta_t, 2 delta_t, …``.

    Returns
    -------
    Response

    Raises
    ------
    ValueError
        If a neuron fires without end.

    Examples
    --------
    >>> from bats_lab.network.graphs import Connection, Graph, Population
    >>> neuron = Population("lif", 1, tau_mem=2.0, tau_syn=1.0, threshold=0.4, reset="subtract")
    >>> graph = Graph(1, [neuron], [Connection(INPUT, "lif", np.array([[1.0]]))], pulse=1e-3)
    >>> simulate_exactly(graph, Spikes.from_padded(np.array([[0.0]])), duration=9.0).spikes["lif"].times.round(4)
    array([0.647])
    """
    neurons, wiring = _flatten(graph)
    duration, delta_t = float(duration), float(delta_t)  # of one type: each type is compiled anew
    names = [p.name for p in graph.populations]
    ends = np.cumsum([0, *(p.size for p in graph.populations)])
    places = {name: (ends[k], ends[k + 1]) for k, name in enumerate(names)}
    recorded = np.concatenate([np.arange(*places[name]) for name in record] or [np.zeros(0, np.int64)])
    n_steps = first_tick_from(duration, delta_t) if len(recorded) else 0
    traces = np.zeros((len(spikes), len(recorded), n_steps))
    found = []
    for sample in range(len(spikes)):
        source, continuous, _ = spikes.sample(sample)
        given = (continuous.astype(np.float64), source.astype(np.int64), graph.n_inputs)
        measured = (duration, float(graph.pulse), delta_t, recorded, traces[sample])
        times, who, ran_away = _run_sample(neurons, wiring, *given, *measured)
        if ran_away >= 0:
            name = names[int(np.searchsorted(ends, ran_away, side="right")) - 1]
            raise ValueError(
                f"a neuron of {name!r} fired {_MAX_SPIKES} times in sample {sample}: it fires without end."
            )
        found.append((np.array(times[1:]), np.array(who[1:], np.int64)))
    trains = {name: _trains(found, *places[name]) for name in names}
    cuts = np.cumsum([graph[name].size for name in record])[:-1]
    return Response(trains, dict(zip(record, np.split(traces, cuts, axis=1), strict=True)) if len(recorded) else {})


def _trains(found: list[tuple[np.ndarray, np.ndarray]], begin: int, end: int) -> Spikes:
    inside = [(who >= begin) & (who < end) for _, who in found]
    count = np.array([kept.sum() for kept in inside], np.int64)
    times = np.concatenate([times[kept] for (times, _), kept in zip(found, inside, strict=True)] or [np.zeros(0)])
    neuron = np.concatenate([who[kept] - begin for (_, who), kept in zip(found, inside, strict=True)] or [np.zeros(0)])
    ticks = np.zeros(len(times), np.int32)
    return Spikes(np.cumsum(count) - count, count, neuron.astype(np.int32), times, ticks, int(end - begin))


def _flatten(graph: Graph) -> tuple[_Neurons, _Wiring]:
    """Lay all neurons and synapses of a graph out in single arrays."""

    def whole(values: list) -> np.ndarray:
        return np.concatenate(values).astype(np.float64)

    ps = graph.populations
    leak_rate = whole([1 / p.tau_mem for p in ps])
    syn_rate = whole([1 / p.tau_syn if p.has_synapse else np.zeros(p.size) for p in ps])
    drive = whole([p.drive for p in ps])
    neurons = _Neurons(
        leak_rate=leak_rate,
        syn_rate=syn_rate,
        threshold=whole([p.threshold for p in ps]),
        v_reset=whole([p.v_reset for p in ps]),
        v_start=whole([p.v_leak for p in ps]),
        push=whole([p.v_leak for p in ps]) * leak_rate + drive,
        current=np.where(syn_rate > 0, -drive, 0.0),
        subtracts=np.concatenate([np.full(p.size, p.reset == "subtract") for p in ps]),
        max_spikes=np.concatenate([np.full(p.size, p.max_spikes or _MAX_SPIKES + 1, np.int64) for p in ps]),
    )
    begin = {INPUT: 0}
    total = graph.n_inputs
    for p in ps:
        begin[p.name] = total
        total += p.size
    source, delay, lengths, targets, weights = [], [], [], [], []
    for c in graph.connections:
        first = begin[c.target] - graph.n_inputs
        columns = c.weights.tocsc() if not isinstance(c.weights, np.ndarray) else None
        for pre in range(c.weights.shape[1]):
            if columns is None:
                values = np.asarray(c.weights[:, pre])
                post = np.flatnonzero(values)
                values = values[post]
            else:
                part = slice(columns.indptr[pre], columns.indptr[pre + 1])
                post, values = columns.indices[part], columns.data[part]
            if len(post) == 0:
                continue
            source.append(begin[c.source] + pre)
            delay.append(c.delay[pre])
            lengths.append(len(post))
            targets.append(post + first)
            weights.append(values * graph[c.target].kick[post])
    order = np.argsort(source, kind="stable")
    lengths_sorted = np.array(lengths, np.int64)[order]
    wiring = _Wiring(
        first=np.searchsorted(np.array(source, np.int64)[order], np.arange(total + 1)).astype(np.int64),
        delay=np.array(delay, np.float64)[order],
        start=np.concatenate([[0], np.cumsum(lengths_sorted)]).astype(np.int64),
        target=np.concatenate([np.zeros(0), *(targets[k] for k in order)]).astype(np.int64),
        weight=np.concatenate([np.zeros(0), *(weights[k] for k in order)]).astype(np.float64),
    )
    return neurons, wiring
