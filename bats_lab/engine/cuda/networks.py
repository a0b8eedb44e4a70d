r"""The engine on a GPU: the kernels of ``kernels/*.cu``, compiled by CuPy at first use, and what launches them.

The forward pass takes the decisions of `cpu.networks`, whose text derives them, in the same order; one
thread is one neuron of one sample. The backward pass has no walk through time: see ``kernels/backward.cu``.

Many networks at once
---------------------
Every array has a leading axis of networks, and a launch covers all of them: one network with a batch of 5 cannot fill a
GPU. Networks of a group share their shape and may differ in everything else. No thread works for two networks, and
how many there are decides only how many threads there are, so each network gives the numbers that it gives alone.

What a training step costs
--------------------------
For one sample of a network 784-800-10 (150 input spikes, 750 hidden ones, about one crossing a neuron): the forward
pass of the hidden layer updates 150 x 800 states at about 20 instructions, 2.4 M; its gradient takes 150 x 800
exponentials at about 25, 3 M; both read 0.5 MB of weights or crossings, from the second-level cache. The output layer
and the ordering of 750 spikes add about a tenth. Adam moves 15 MB a batch and network, 0.3 MB a sample at batch 50. An
H100 issues about 29 T instructions a second (132 x 128 lanes at 1.7 GHz) and moves 3.35 TB/s, so at full use a sample
costs 0.2 µs of issue and 0.1 µs of memory: 1.5 M samples/s leave a factor of two for divergence and latency. For one
network alone latency counts: a step is a dozen dependent launches in one CUDA graph, of which the longest walks 750
groups of input spikes.

The device is behind one small class, :class:`bats_lab.engine.cuda.device.CupyDevice`: allocate, copy, launch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit, prange

from bats_lab.config import LATENCY_TIMES
from bats_lab.engine.cpu.networks import ReadOut, using
from bats_lab.engine.cuda.device import CupyDevice, Device
from bats_lab.engine.records import Member, Sums
from bats_lab.errors import DeviceError
from bats_lab.spikes.estimators import STRAIGHT_THROUGH, Estimator
from bats_lab.spikes.grid import first_tick_from, ticks_within
from bats_lab.spikes.rules import rule_code
from bats_lab.spikes.trains import Spikes

__all__ = ["CudaBackend", "Group", "Inputs", "Layer", "Samples", "Stack", "backend"]

# As in kernels/common.cu.
N_COUNTERS, N_TOTALS = 5, 6
ROWS_PER_RANGE = 16
STORED, ADAM = 1, 2

# Input neurons whose gradient a thread sums: few where there are few threads, many where that saves reading crossings.
_FEW_INPUTS, _MANY_INPUTS = ROWS_PER_RANGE, 2 * ROWS_PER_RANGE
_MANY_THREADS = 1 << 19
# Threads of a sample that send errors to the layer below.
_ERROR_THREADS = 1024
# Updates after which the host waits for those before them, so that it does not run far ahead of the device.
_UPDATES_AHEAD = 200
# Share of the free memory that is planned with.
_USABLE = 0.9

_int, _long = np.int32, np.int64
_NONE = np.uintp(0)  # a null pointer


# -------------------------------------------------------------------------------------------------- samples as inputs


@dataclass
class Inputs:
    """Input spikes of all rows of a layer: arrays on the device.

    Attributes
    ----------
    event_at, tick_at, group_at, range_at : int64, (row,)
        Where the row's part of the arrays below begins: of those of spikes, of `by_tick` and `by_order`, of those
        of groups, and of `ranges`.
    n_active : int32, (row,)
        Groups sent within the window.
    neuron : int32, (spike,)
        Neurons in the order in which spikes are sent.
    first, group_tick, group_time, decay : (group,)
        First spike of each group; its tick, its time, and the decay to the next one.
    pre, by_time, by_tick, by_order : (spike,)
        Neurons in ascending order, and for each spike its continuous time, the tick on which it is sent, and its
        group (rule ``defer``: the tick of eq. 14).
    ranges : int32
        First spike, in that order, of each stretch of ROWS_PER_RANGE neurons.
    hidden : bool
        Whether they come from a layer of the network.
    """

    event_at: Any
    tick_at: Any
    group_at: Any
    range_at: Any
    n_active: Any
    neuron: Any
    first: Any
    group_tick: Any
    group_time: Any
    decay: Any
    pre: Any
    by_time: Any
    by_tick: Any
    by_order: Any
    ranges: Any
    hidden: bool


def _n_ranges(n_neurons: int) -> int:
    return math.ceil(n_neurons / ROWS_PER_RANGE)


@njit(cache=True, nogil=True, parallel=True)
def _sort_by_neuron(start, count, neuron, n_neurons, at, place, ranges):
    """List each sample's events by neuron, as places in the sample; equal neurons stay in order of time."""
    n_ranges = ranges.shape[1] - 1
    for i in prange(len(start)):
        begin = np.zeros(n_neurons + 1, np.int32)
        for event in range(start[i], start[i] + count[i]):
            begin[neuron[event] + 1] += 1
        for j in range(n_neurons):
            begin[j + 1] += begin[j]
        for r in range(n_ranges):
            ranges[i, r] = begin[r * ROWS_PER_RANGE]
        ranges[i, n_ranges] = count[i]
        for event in range(count[i]):
            j = neuron[start[i] + event]
            place[at[i] + begin[j]] = event
            begin[j] += 1


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _group_samples(
    start, count, times, ticks, delta_t, tau, duration, last_tick, at, room, group, first, tick, time, decay, n_active,
    n_groups
):  # fmt: skip
    """Split each sample's events into groups sent at one time; `room` is where a sample's groups begin."""
    grid = delta_t > 0
    for i in prange(len(start)):
        g, active = -1, 0
        for event in range(count[i]):
            index = start[i] + event
            same = event > 0 and (ticks[index] == ticks[index - 1] if grid else times[index] == times[index - 1])
            if not same:
                g += 1
                first[room[i] + g], tick[room[i] + g], time[room[i] + g] = event, ticks[index], times[index]
                if ticks[index] <= last_tick if grid else times[index] <= duration:
                    active = g + 1
            group[at[i] + event] = g
        first[room[i] + g + 1] = count[i]
        n_active[i], n_groups[i] = active, g + 1
        for k in range(g + 1):
            begin = tick[room[i] + k] * delta_t if grid else float(time[room[i] + k])
            end = duration
            if k < g and k + 1 != active:
                end = tick[room[i] + k + 1] * delta_t if grid else float(time[room[i] + k + 1])
            decay[room[i] + k] = math.exp(-max(end - begin, 0.0) / tau)


class Samples:
    """Input spikes of many samples on the device, for each network of a group; networks may share them.

    Parameters
    ----------
    device : Device
    spikes : sequence of Spikes
        Those of each network. Objects, and arrays inside them, that are the same are kept once.
    labels : ndarray of int, (sample,), or None
        True classes.
    tau, duration : sequence of float
        Of each network's first layer, in seconds.
    dtype : dtype
    """

    def __init__(
        self,
        device: Device,
        spikes: Sequence[Spikes],
        labels: np.ndarray | None,
        *,
        tau: Sequence[float],
        duration: Sequence[float],
        dtype: np.dtype,
    ) -> None:
        self.device, self.dtype, self.n_samples = device, dtype, len(spikes[0])
        self.n_neurons = spikes[0].n_neurons
        self.delta_t = [s.delta_t for s in spikes]
        trains: dict[Any, tuple[int, np.ndarray, np.ndarray]] = {}
        grids: dict[Any, int] = {}
        of_train, of_grid = [], []
        parts: dict[str, list[np.ndarray]] = {name: [] for name in self._PARTS}
        n_spikes = n_ticks = n_places = 0
        for s, tau_i, duration_i in zip(spikes, tau, duration, strict=True):
            train = id(s.neuron), id(s.times), id(s.start), id(s.count)
            if train not in trains:
                trains[train] = len(trains), *self._sorted(s, parts, n_spikes)
                n_spikes += len(trains[train][2])
            place, first_spike, order = trains[train]
            grid = *train, id(s.ticks), s.delta_t, tau_i, duration_i
            if grid not in grids:
                grids[grid] = len(grids)
                n_places += self._grouped(s, tau_i, duration_i, first_spike, order, parts, n_ticks, n_places)
                n_ticks += len(order)
            of_train.append(place * self.n_samples)
            of_grid.append(grids[grid] * self.n_samples)
        self._arrays = {
            # An array of one element stands for an empty one, which has no address.
            name: device.upload(np.concatenate(found) if sum(map(len, found)) else np.zeros(1, found[0].dtype))
            for name, found in parts.items()
        }
        self._n_networks = len(spikes)
        self._first_sample, self._first_gridded = (device.upload(np.array(x, np.int64)) for x in (of_train, of_grid))
        self._labels = None if labels is None else device.upload(np.asarray(labels, np.int32))
        self._room = 0

    _PARTS = (
        *("event_start", "neuron", "pre", "by_time", "ranges"),
        *("tick_start", "by_tick", "by_order"),
        *("group_start", "n_active", "first", "group_tick", "group_time", "decay"),
    )

    def _sorted(self, s: Spikes, parts: dict[str, list[np.ndarray]], n_spikes: int) -> tuple[np.ndarray, np.ndarray]:
        """Lay out what does not depend on the time grid; return each sample's first place, and the order by neuron."""
        at = np.cumsum(s.count) - s.count
        place = np.empty(int(s.count.sum()), np.int32)
        ranges = np.empty((len(s), _n_ranges(s.n_neurons) + 1), np.int32)
        _sort_by_neuron(s.start, s.count, s.neuron, s.n_neurons, at, place, ranges)
        begin = np.repeat(s.start, s.count)
        in_time, order = begin + np.arange(len(place)) - np.repeat(at, s.count), begin + place
        parts["event_start"].append(at + n_spikes)
        parts["neuron"].append(s.neuron[in_time].astype(np.int32, copy=False))
        parts["pre"].append(s.neuron[order].astype(np.int32, copy=False))
        parts["by_time"].append(s.times[order].astype(self.dtype, copy=False))
        parts["ranges"].append(ranges.reshape(-1))
        return at, order

    def _grouped(
        self, s: Spikes, tau: float, duration: float, at: np.ndarray, order: np.ndarray,
        parts: dict[str, list[np.ndarray]], n_ticks: int, n_places: int
    ) -> int:  # fmt: skip
        """Lay out what depends on the time grid; return how many places of groups that took."""
        group = np.empty(len(order), np.int32)
        room = at + np.arange(len(s))  # a sample has at most as many groups as events, and one entry more
        size = len(order) + len(s)
        first, tick = np.zeros(size, np.int32), np.zeros(size, np.int32)
        time, decay = np.zeros(size, self.dtype), np.zeros(size, self.dtype)
        n_active, n_groups = np.zeros(len(s), np.int32), np.zeros(len(s), np.int64)
        last_tick = _last_tick(duration, s.delta_t)
        tau = float(self.dtype.type(tau))
        _group_samples(
            s.start, s.count, s.times, s.ticks, s.delta_t, tau, duration, last_tick, at, room, group, first, tick, time,
            decay, n_active, n_groups
        )  # fmt: skip
        kept = np.arange(size) - np.repeat(room, s.count + 1) <= np.repeat(n_groups, s.count + 1)
        for name, values in (("first", first), ("group_tick", tick), ("group_time", time), ("decay", decay)):
            parts[name].append(values[kept])
        parts["n_active"].append(n_active)
        parts["group_start"].append(np.cumsum(n_groups + 1) - (n_groups + 1) + n_places)
        parts["tick_start"].append(at + n_ticks)
        parts["by_tick"].append(s.ticks[order].astype(np.int32, copy=False))
        by_order = order - np.repeat(s.start - at, s.count)
        parts["by_order"].append(group[by_order])
        return int(kept.sum())

    def make_room(self, batch: int) -> bool:
        """Allocate for rows of a batch; return whether arrays have moved by that."""
        if batch <= self._room:
            return False
        self._room = batch
        n_rows = self._n_networks * batch
        self._rows = {name: self.device.empty(n_rows, np.int64) for name in ("event", "tick", "group", "range")}
        self._rows_active = self.device.empty(n_rows, np.int32)
        self.label = self.device.empty(n_rows, np.int32)
        return True

    def select(self, step: Any, order: Any, batch: int) -> Inputs:
        """Take a step's samples; `order` is that of each network's samples, or a null pointer for the given one."""
        n_networks, a, rows = self._n_networks, self._arrays, self._rows
        self.device.launch(
            "select_samples",
            self.dtype,
            math.ceil(n_networks * batch / self.device.threads),
            self.device.threads,
            (
                step, order, _NONE if self._labels is None else self._labels, _int(self.n_samples), _int(batch),
                _int(n_networks), _int(_n_ranges(self.n_neurons)), self._first_sample,
                self._first_gridded, a["event_start"], a["tick_start"], a["group_start"], a["n_active"],
                rows["event"], rows["tick"], rows["group"], rows["range"], self._rows_active, self.label,
            ),
        )  # fmt: skip
        named = {name: a[name] for name in ("neuron", "first", "group_tick", "group_time", "decay", "pre", "by_time")}
        return Inputs(
            **named, by_tick=a["by_tick"], by_order=a["by_order"], ranges=a["ranges"], event_at=rows["event"],
            tick_at=rows["tick"], group_at=rows["group"], range_at=rows["range"], n_active=self._rows_active,
            hidden=False,
        )  # fmt: skip


def _last_tick(duration: float, delta_t: float) -> int:
    return ticks_within(duration, delta_t)


# ------------------------------------------------------------------------------------------------------------- layers


def _lanes(n_post: int) -> int:
    """Return the threads of a row: whole warps, but for layers so narrow that a warp takes several rows."""
    return n_post if n_post <= 16 else 32 * math.ceil(n_post / 32)


class Stack:
    """One layer of several networks, with its optimiser's state and room for a batch, on the device.

    Parameters
    ----------
    device : Device
    weights : ndarray, (network, post, pre)
        Initial weights.
    thresholds, tau_syn, duration : sequence of float
        Of each network; times in seconds.
    max_spikes : int
        Crossings kept per neuron and sample.
    dtype : dtype
    """

    # What is kept of a crossing, by (row, slot, neuron); of a spike, in order of time or of neurons; and of a group of
    # spikes that are sent at one time.
    _CROSSINGS = ("time", "slope", "fade", "origin", "tick", "bin", "group", "base")
    _SPIKES = ("neuron", "sent_time", "sent_tick", "pre", "by_time", "by_tick", "by_order", "target")
    _GROUPS = ("first", "group_tick", "group_time", "decay")
    _FLOATS = ("time", "slope", "fade", "origin", "sent_time", "by_time", "group_time", "decay")

    def __init__(
        self,
        device: Device,
        weights: np.ndarray,
        *,
        thresholds: Sequence[float],
        max_spikes: int,
        tau_syn: Sequence[float],
        duration: Sequence[float],
        dtype: np.dtype,
    ) -> None:
        device.compile(dtype)
        self.device, self.dtype = device, dtype
        self.n_networks, self.n_post, self.n_pre = weights.shape
        self.max_spikes, self.capacity = int(max_spikes), self.n_post * int(max_spikes)
        self.thresholds, self.duration = [float(v) for v in thresholds], [float(v) for v in duration]
        self.tau = [2.0 * float(v) for v in tau_syn]
        self.lanes, self.n_ranges = _lanes(self.n_post), _n_ranges(self.n_post)
        self.weights = device.upload(weights.transpose(0, 2, 1).astype(dtype))
        self.moments: tuple[Any, Any] | None = None
        self.gradient: Any = None
        self.n_updates = [0] * self.n_networks
        self.fired = device.zeros((self.n_networks, self.n_post), np.int32)
        self.totals = device.zeros((self.n_networks, N_TOTALS), np.uint64)
        self.reals = device.empty((self.n_networks, 5), np.float64)
        self.integers = device.empty((self.n_networks, 4), np.int32)
        self._configured: tuple[tuple[float, ...], tuple[str, ...], tuple[Estimator, ...]] | None = None
        self._room = 0
        self.room: dict[str, Any] = {}
        self.generation = 0  # how often room was made: arrays of another generation are elsewhere
        self._delays: Any = None
        self.errors: Any = None

    @staticmethod
    def bytes_needed(n_pre: int, n_post: int, max_spikes: int, batch: int, itemsize: int) -> int:
        """Return the bytes of one network's layer in training: its room for a batch, weights and moments."""
        capacity = n_post * max_spikes
        # Crossings, spikes, groups and errors, as in `make_room`; what there is by neuron and by row is rounded up.
        n_floats, n_integers = len(Stack._FLOATS) + 1, len(Stack._CROSSINGS + Stack._SPIKES + Stack._GROUPS)
        n_integers -= len(Stack._FLOATS)
        row = (capacity + 1) * (n_floats * itemsize + n_integers * 4) + n_post * (16 + itemsize) + 256
        # Weights are in the group and in the network's own layer; moments are there when they are stored.
        return batch * row + n_pre * n_post * itemsize * 6

    def configure(self, delta_t: Sequence[float], rules: Sequence[str], estimators: Sequence[Estimator]) -> None:
        """Set each network's time step, collision rule and gradient estimator."""
        wanted = tuple(delta_t), tuple(rules), tuple(estimators)
        if wanted == self._configured:
            return
        integers = [
            (rule_code(rule), _last_tick(duration, step), first_tick_from(duration, step) if step else 0, own.by_sent)
            for step, rule, own, duration in zip(*wanted, self.duration, strict=True)
        ]
        networks = zip(self.thresholds, self.tau, delta_t, self.duration, estimators, strict=True)
        reals = [
            (
                threshold / tau, tau, step, duration,
                math.exp(-2.0 * math.pi * estimator.slope_width) if estimator.slope_width else 0.0,
            )
            for threshold, tau, step, duration, estimator in networks
        ]  # fmt: skip
        self.device.fill(self.integers, np.array(integers, np.int32))
        self.device.fill(self.reals, np.array(reals, np.float64))
        self._configured = wanted

    def make_room(self, batch: int, delays: Any = None) -> None:
        """Allocate for rows of a batch; `delays` is where each row's summed delay goes, (row,)."""
        if batch <= self._room and delays is None:
            return
        self._room, n_rows, empty = batch, self.n_networks * batch, self.device.empty
        self.generation += 1
        self._delays = empty(n_rows, np.float64) if delays is None else delays
        for names, length in ((self._CROSSINGS + self._SPIKES, self.capacity), (self._GROUPS, self.capacity + 1)):
            for name in names:
                self.room[name] = empty(n_rows * length, self.dtype if name in self._FLOATS else np.int32)
        self.n_records, self.sent = (empty((n_rows, self.n_post), np.int32) for _ in range(2))
        self.counters = empty((n_rows, N_COUNTERS), np.int32)
        self.n_sent, self.n_active = (empty(n_rows, np.int32) for _ in range(2))
        self.ranges = empty(n_rows * (self.n_ranges + 1), np.int32)
        row = np.arange(n_rows, dtype=np.int64)
        self._event_at = self.device.upload(row * self.capacity)
        self._group_at = self.device.upload(row * (self.capacity + 1))
        self._range_at = self.device.upload(row * (self.n_ranges + 1))
        self.errors = None

    def release(self) -> None:
        """Give back the room for a batch."""
        self._room = 0
        self.room = {}
        self.errors = self._delays = None

    def need_errors(self) -> Any:
        """Allocate the errors of spikes, for layers that have another one above."""
        if self.errors is None:
            self.errors = self.device.empty(self.n_networks * self._room * self.capacity, self.dtype)
        return self.errors

    def need_moments(self) -> tuple[Any, Any]:
        """Allocate Adam's moments."""
        if self.moments is None:
            shape = self.n_networks, self.n_pre, self.n_post
            self.moments = self.device.zeros(shape, self.dtype), self.device.zeros(shape, self.dtype)
        return self.moments

    def _launch(self, kernel: str, n_threads: int, *arguments: Any) -> None:
        threads = self.device.threads
        self.device.launch(kernel, self.dtype, math.ceil(n_threads / threads), threads, arguments)

    def _crossings(self) -> tuple[Any, ...]:
        return tuple(self.room[name] for name in ("time", "slope", "fade", "origin", "bin", "group", "base"))

    def forward(
        self, inputs: Inputs, batch: int, *, noise: Any = _NONE, step: Any = _NONE, layer: int = 0, n_layers: int = 1
    ) -> None:
        """Simulate all networks for a batch, and put the spikes they send in order.

        `noise` are each network's keys of random numbers (`records.noise_key`), which need `step`.
        """
        n_rows, room = self.n_networks * batch, self.room
        self.device.clear(self.counters)
        self._launch(
            "forward", n_rows * self.lanes, self.weights, inputs.event_at, inputs.group_at, inputs.n_active,
            inputs.neuron, inputs.first, inputs.group_tick, inputs.group_time, inputs.decay, self.reals, self.integers,
            noise, step, _int(layer), _int(n_layers), _int(n_rows), _int(batch), _int(self.n_pre), _int(self.n_post),
            _int(self.lanes), _int(self.max_spikes),
            *(room[name] for name in self._CROSSINGS), self.n_records, self.sent, self.counters, self.fired,
        )  # fmt: skip
        threads, key = self.device.order_threads, self.dtype.itemsize
        fixed = threads * 12 + 8
        n_shared = min(self.capacity + self.capacity % 2, (self.device.shared_bytes - fixed) // (2 * key + 8) // 2 * 2)
        self.device.launch(
            "order_spikes", self.dtype, n_rows, threads,
            (
                room["time"], room["tick"], room["bin"], self.n_records, self.sent, self.counters, self.reals,
                self.integers, _int(batch), _int(self.n_post), _int(self.max_spikes), _int(n_shared),
                _int(self.n_ranges), self.n_sent, *(room[name] for name in self._SPIKES + self._GROUPS), self.n_active,
                self.ranges, self._delays, self.totals,
            ),
            fixed + n_shared * (2 * key + 8),
        )  # fmt: skip

    def outputs(self) -> Inputs:
        """Return the spikes sent, as inputs of the next layer."""
        return Inputs(
            event_at=self._event_at, tick_at=self._event_at, group_at=self._group_at, range_at=self._range_at,
            n_active=self.n_active, ranges=self.ranges, hidden=True,
            **{name: self.room[name] for name in ("neuron", *self._GROUPS, "pre", "by_time", "by_tick", "by_order")},
        )  # fmt: skip

    def backward(self, batch: int, output_errors: Any = None) -> None:
        """Turn errors of spikes into what each crossing contributes; `output_errors` are (row, post)."""
        errors, row_stride, slot_stride = self.errors, self.capacity, self.n_post
        if output_errors is not None:
            errors, row_stride, slot_stride = output_errors, self.n_post, 0
        n_rows, room = self.n_networks * batch, self.room
        self._launch(
            "backward", n_rows * self.lanes, errors, _int(row_stride), _int(slot_stride), self.n_records, room["time"],
            room["tick"], room["origin"], room["base"], self.reals, self.integers, _int(n_rows), _int(batch),
            _int(self.n_post), _int(self.lanes), _int(self.max_spikes), room["slope"], room["fade"],
        )  # fmt: skip

    def send_errors(self, below: Stack, batch: int) -> None:
        """Give the spikes of the layer below their errors."""
        n_rows = self.n_networks * batch
        threads = min(_ERROR_THREADS, below.capacity)
        self._launch(
            "input_errors", n_rows * threads, self.weights, below.n_sent,
            *(below.room[name] for name in ("pre", "by_time", "by_tick", "by_order", "target")), _int(below.capacity),
            *self._crossings(), self.n_records, self.reals, self.integers, _int(n_rows), _int(batch), _int(self.n_pre),
            _int(self.n_post), _int(self.max_spikes), _int(threads), below.need_errors(),
        )  # fmt: skip

    def update(
        self,
        inputs: Inputs | None,
        batch: int,
        *,
        n_samples: int = 0,
        mode: int,
        step: Any = _NONE,
        adam: Any = _NONE,
        rates: Any = _NONE,
        n_updates: int = 0,
    ) -> None:
        """Sum the gradient of a batch, unless `inputs` is None, and store it or move the weights, as `mode` says."""
        narrow = self.n_networks * self.lanes * self.n_pre < _MANY_THREADS * _MANY_INPUTS
        n_inputs = _FEW_INPUTS if narrow else _MANY_INPUTS
        n_threads = self.n_networks * self.lanes * math.ceil(self.n_pre / n_inputs)
        threads = self.device.threads
        moments = self.need_moments() if mode & ADAM else (_NONE, _NONE)
        if inputs is None:
            visited: tuple[Any, ...] = (_NONE,) * 8
        else:
            visited = (
                inputs.event_at, inputs.tick_at, inputs.range_at, inputs.pre, inputs.by_time, inputs.by_tick,
                inputs.by_order, inputs.ranges
            )  # fmt: skip
        self.device.launch(
            "update", self.dtype, math.ceil(n_threads / threads), threads,
            (
                *visited, _int(_n_ranges(self.n_pre)), *self._crossings(), self.n_records, self.reals, self.integers,
                _int(self.n_networks), _int(batch), _int(n_samples), _int(self.n_pre), _int(self.n_post),
                _int(self.lanes), _int(self.max_spikes), _int(n_inputs), _int(inputs is not None and inputs.hidden),
                _int(inputs is not None), _int(mode), step, adam, rates, _int(n_updates),
                _NONE if self.gradient is None else self.gradient, *moments, self.weights,
            ),
            n_inputs * threads * self.dtype.itemsize,
        )  # fmt: skip

    def inspect(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the Frobenius norm of each network's weights, and how many are not finite."""
        shape = self.n_networks, self.n_post
        squares, broken = self.device.empty(shape, np.float64), self.device.empty(shape, np.int32)
        self._launch(
            "inspect_weights", self.n_networks * self.n_post, self.weights, _int(self.n_networks), _int(self.n_pre),
            _int(self.n_post), squares, broken,
        )  # fmt: skip
        return np.sqrt(self.device.download(squares).sum(axis=1)), self.device.download(broken).sum(axis=1)


class SentSpikes(Spikes):
    """Spikes of a layer's last batch, which stay on the device until somebody looks at them."""

    def __init__(self, layer: Layer) -> None:
        object.__setattr__(self, "layer", layer)

    def __getattr__(self, name: str) -> Any:
        if name not in Spikes.__dataclass_fields__:
            raise AttributeError(name)
        layer: Layer = object.__getattribute__(self, "layer")
        stack, n = layer.stack, layer._n
        download = stack.device.download
        count = download(stack.n_sent)[:n]
        # Rows have room for all spikes there might be; only what there is takes the way to the host.
        width = int(count.max(initial=0))
        found = {
            name: download(stack.room[name].reshape(-1, stack.capacity)[:n, :width]).reshape(-1)
            for name in ("neuron", "sent_time", "sent_tick")
        }
        values = {
            "start": np.arange(n, dtype=np.int64) * width,
            "count": count.astype(np.int64),
            "neuron": found["neuron"],
            "times": found["sent_time"],
            "ticks": found["sent_tick"],
            "n_neurons": stack.n_post,
            "delta_t": layer._delta_t,
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)
        return values[name]


class Layer:
    """One layer of one network; as :class:`bats_lab.engine.cpu.networks.Layer`, on the device.

    Parameters
    ----------
    device : Device
    weights : ndarray, (post, pre)
        Initial weights.
    threshold : float
        Potential at which a neuron spikes, and which its reset subtracts.
    max_spikes : int
        Crossings kept per neuron and sample.
    tau_syn, duration : float
        Synaptic time constant, and length of the simulated window, in seconds.
    dtype : str
        ``float32`` or ``float64``.
    """

    def __init__(
        self,
        device: Device,
        weights: np.ndarray,
        *,
        threshold: float,
        max_spikes: int,
        tau_syn: float,
        duration: float,
        dtype: str,
    ) -> None:
        self.dtype = np.dtype(dtype)
        self.n_post, self.n_pre = weights.shape
        self.threshold, self.max_spikes, self.duration = float(threshold), int(max_spikes), float(duration)
        self.tau_syn = float(tau_syn)
        self.stack = Stack(
            device,
            weights[None],
            thresholds=[threshold],
            max_spikes=max_spikes,
            tau_syn=[tau_syn],
            duration=[duration],
            dtype=self.dtype,
        )
        self._n, self._delta_t = 0, 0.0
        self._inputs: Inputs | None = None
        self._pending = False  # whether the last backward pass is not in the gradient yet
        self._loaded: Samples | None = None
        self._loaded_from: Spikes | None = None

    # -- weights and optimiser state ------------------------------------------------------------------------

    def _dense(self, array: Any) -> np.ndarray:
        return np.ascontiguousarray(self.stack.device.download(array)[0].T)

    def _set(self, array: Any, dense: np.ndarray) -> None:
        self.stack.device.fill(array, np.asarray(dense, self.dtype).T[None])

    @property
    def weights(self) -> np.ndarray:
        """Weights (post, pre), a copy."""
        return self._dense(self.stack.weights)

    @weights.setter
    def weights(self, dense: np.ndarray) -> None:
        self._set(self.stack.weights, dense)

    @property
    def n_updates(self) -> int:
        """Updates made."""
        return self.stack.n_updates[0]

    @n_updates.setter
    def n_updates(self, n: int) -> None:
        self.stack.n_updates[0] = n

    @property
    def gradient(self) -> np.ndarray:
        """Gradient (post, pre) added up since the last update, summed over samples; a copy."""
        self._collect()
        if self.stack.gradient is None:
            return np.zeros((self.n_post, self.n_pre), self.dtype)
        return self._dense(self.stack.gradient)

    def clear_gradient(self) -> None:
        """Forget the gradient added up so far."""
        self._pending = False
        if self.stack.gradient is not None:
            self.stack.device.clear(self.stack.gradient)

    @property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Adam's first and second moments (post, pre), copies."""
        if self.stack.moments is None:
            return np.zeros((self.n_post, self.n_pre), self.dtype), np.zeros((self.n_post, self.n_pre), self.dtype)
        first, second = self.stack.moments
        return self._dense(first), self._dense(second)

    @moments.setter
    def moments(self, dense: tuple[np.ndarray, np.ndarray]) -> None:
        for array, values in zip(self.stack.need_moments(), dense, strict=True):
            self._set(array, values)

    # -- forward --------------------------------------------------------------------------------------------

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
            Input spikes, or what another layer's forward pass returned; their time step is the layer's.
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
            Spikes sent, one sample for each of `samples`. They hold until the layer's next forward pass.
        """
        self._collect()
        self._n, stack = len(samples), self.stack
        if isinstance(spikes, SentSpikes):
            below: Layer = spikes.layer
            self._delta_t = below._delta_t
        else:
            self._delta_t = spikes.delta_t
        stack.configure([self._delta_t], [rule], [estimator])
        stack.make_room(max(self._n, 1))
        if self._n:
            if isinstance(spikes, SentSpikes):
                self._inputs = below.stack.outputs()
            else:
                self._inputs = self._load(spikes).select(
                    stack.device.zeros(1, np.int32), stack.device.upload(np.asarray(samples, np.int32)), self._n
                )
            key = {} if not noise else {
                "noise": stack.device.upload(np.array([noise], np.uint64)),
                "step": stack.device.zeros(1, np.int32),
            }  # fmt: skip
            stack.forward(self._inputs, self._n, **key)
        return SentSpikes(self)

    def _load(self, spikes: Spikes) -> Samples:
        """Copy input spikes to the device, unless they are those of the last time."""
        if self._loaded is None or self._loaded_from is not spikes:
            self._loaded_from = spikes
            self._loaded = Samples(
                self.stack.device, [spikes], None, tau=self.stack.tau, duration=[self.duration], dtype=self.dtype
            )
        # The order of samples is as long as the batch here, and there is one step.
        self._loaded.n_samples = self._n
        self._loaded.make_room(self._n)
        return self._loaded

    @property
    def spike_count(self) -> np.ndarray:
        """Sent spikes of the last batch, (sample, neuron)."""
        return self.stack.device.download(self.stack.sent)[: self._n]

    def crossings(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the last batch's crossings and the times they were sent at, padded.

        Returns
        -------
        times, sent : ndarray, (sample, neuron, max_spikes)
            Seconds; ``inf`` where there is none, and in `sent` where a crossing was merged or lost.
        """
        stack, shape = self.stack, (self._n, self.n_post, self.max_spikes)
        times, sent = np.full(shape, np.inf, self.dtype), np.full(shape, np.inf, self.dtype)
        n_records = stack.device.download(stack.n_records)[: self._n]
        # Neurons have room for all crossings there might be; only what there is takes the way to the host.
        most = int(n_records.max(initial=0))
        time, tick = (
            stack.device.download(
                stack.room[name].reshape(-1, self.max_spikes, self.n_post)[: self._n, :most]
            ).transpose(0, 2, 1)
            for name in ("time", "tick")
        )
        there = np.arange(most) < n_records[..., None]
        moved = (tick * self._delta_t).astype(self.dtype) if self._delta_t else time
        np.copyto(times[..., :most], time, where=there)
        np.copyto(sent[..., :most], moved, where=there & (tick >= 0))
        return times, sent

    def counts(self) -> np.ndarray:
        """Return dropped, merged, deferred and lost crossings and truncated neurons of the last batch, (sample, 5)."""
        return self.stack.device.download(self.stack.counters)[: self._n].astype(np.int64)

    def is_finite(self) -> bool:
        """Whether all weights are finite."""
        return not self.stack.inspect()[1].any()

    def delay(self) -> float:
        """Return the summed delay d(t) - t of the last batch's sent spikes, in seconds."""
        return float(self.stack.device.download(self.stack._delays)[: self._n].sum())

    # -- backward -------------------------------------------------------------------------------------------

    def set_output_errors(self, errors: np.ndarray) -> None:
        """Give each output spike of the last batch the error of its neuron, (sample, neuron)."""
        self._output_errors = self.stack.device.upload(np.asarray(errors, self.dtype))
        self.stack.errors = None

    def backward(self, below: Layer | None) -> None:
        """Take the last batch's errors to its crossings and to the layer below (eq. 11-16).

        Parameters
        ----------
        below : Layer or None
            Layer whose spikes were the input; None where the input is the data.
        """
        if self._n == 0:
            return
        self.stack.backward(self._n, self._output_errors if self.stack.errors is None else None)
        if below is not None:
            self.stack.send_errors(below.stack, self._n)
        self._pending = True

    def _collect(self) -> None:
        """Add the last backward pass to the gradient."""
        if not self._pending:
            return
        self._pending = False
        if self.stack.gradient is None:
            self.stack.gradient = self.stack.device.zeros((1, self.n_pre, self.n_post), self.dtype)
        self.stack.update(self._inputs, self._n, mode=STORED)

    def update(self, learning_rate: float, *, beta_1: float, beta_2: float, epsilon: float, n_samples: int) -> None:
        """Move the weights by one step of Adam on the mean gradient of `n_samples`, and clear the gradient.

        Notes
        -----
        Kingma and Ba (2015), Algorithm 1.
        """
        self._collect()
        upload = self.stack.device.upload
        rates = _rates([learning_rate], [Member(beta_1=beta_1, beta_2=beta_2)], self.stack.n_updates, 1)
        self.stack.update(
            None, n_samples, n_samples=n_samples, mode=STORED | ADAM, step=upload(np.zeros(1, np.int32)),
            adam=upload(np.array([[beta_1, beta_2, epsilon]])), rates=upload(rates), n_updates=1,
        )  # fmt: skip
        self.stack.n_updates[0] += 1


def _rates(
    learning_rates: Sequence[float], members: Sequence[Member], n_updates: Sequence[int], n_steps: int
) -> np.ndarray:
    """Return step size and scale of the root of each network's next updates, (network, update, 2)."""
    out = np.empty((len(members), n_steps, 2))
    for i, (rate, member) in enumerate(zip(learning_rates, members, strict=True)):
        update = n_updates[i] + 1.0 + np.arange(n_steps)
        out[i, :, 0] = rate / (1.0 - member.beta_1**update)
        out[i, :, 1] = 1.0 / np.sqrt(1.0 - member.beta_2**update)
    return out


class _Reading:
    """Room for what is read of the output layer, per row and in sum."""

    def __init__(self, stack: Stack, batch: int, n_times: int) -> None:
        device, n_rows = stack.device, stack.n_networks * batch
        self.n_times = n_times
        self.so_far, self.errors = (device.empty((n_rows, stack.n_post), t) for t in (np.int32, stack.dtype))
        self.predicted = device.empty(n_rows, np.int32)
        self.spikes_by = device.empty((n_rows, n_times), np.int32)
        self.loss, self.first_time, self.decision_time = (device.empty(n_rows, np.float64) for _ in range(3))
        self.spikes_by_total = device.zeros((stack.n_networks, n_times), np.uint64)
        self.confusion = device.zeros((stack.n_networks, stack.n_post, stack.n_post + 1), np.uint64)

    def read(self, stack: Stack, batch: int, label: Any, targets: Any, latency_times: Any) -> None:
        n_rows = stack.n_networks * batch
        stack._launch(
            "read_out", n_rows, stack.sent, stack.n_sent, stack.room["neuron"], stack.room["sent_time"],
            stack.room["sent_tick"], stack.reals, label, targets, latency_times, _int(self.n_times), _int(n_rows),
            _int(batch), _int(stack.n_post), _int(stack.max_spikes), self.so_far, self.errors, self.predicted,
            self.loss, self.spikes_by, self.first_time, self.decision_time, self.spikes_by_total, self.confusion,
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------- networks in groups


class Group:
    """Networks of one shape that are trained and measured side by side, in one set of launches.

    Parameters
    ----------
    layers : sequence of sequence of Layer
        The layers of each network; they give their weights and moments, and get them back by :meth:`store`.
    members : sequence of Member
        How each network is run.
    threads : int
        Threads of the CPU; nothing here uses them.
    """

    def __init__(self, layers: Sequence[Sequence[Layer]], members: Sequence[Member], *, threads: int = 0) -> None:
        self.layers, self.members = [list(own) for own in layers], list(members)
        self.device, self.dtype = layers[0][0].stack.device, layers[0][0].dtype
        self.stacks = [self._stacked(column) for column in zip(*layers, strict=True)]
        self.sizes = [stack.n_post for stack in self.stacks]
        self._room = 0
        self._made: list[int] = []
        # What a step launches, as recorded, and the samples whose arrays it reads.
        self._plans: dict[tuple[int, int, bool], tuple[Callable[[], None], Samples]] = {}
        self._latency_times = self.device.upload(np.array(LATENCY_TIMES))
        self._step = self.device.zeros(1, np.int32)
        self._targets = self.device.upload(np.array([[m.target_true, m.target_false] for m in members], np.float64))
        self._adam = self.device.upload(np.array([[m.beta_1, m.beta_2, m.epsilon] for m in members], np.float64))
        self._sums = self.device.zeros((len(members), 3 + len(self.stacks)), np.float64)
        self._noise = self.device.zeros(len(members), np.uint64)
        self._order: Any = None
        self._rates: Any = None

    def _stacked(self, column: Sequence[Layer]) -> Stack:
        """Join one layer of all networks; a network alone keeps its own."""
        if len(column) == 1:
            column[0]._collect()
            return column[0].stack
        stack = Stack(
            self.device,
            np.stack([layer.weights for layer in column]),
            thresholds=[layer.threshold for layer in column],
            max_spikes=column[0].max_spikes,
            tau_syn=[layer.tau_syn for layer in column],
            duration=[layer.duration for layer in column],
            dtype=column[0].dtype,
        )
        if any(layer.n_updates for layer in column):
            moments = [layer.moments for layer in column]
            for array, values in zip(stack.need_moments(), zip(*moments, strict=True), strict=True):
                self.device.fill(array, np.stack(values).transpose(0, 2, 1))
        stack.n_updates = [layer.n_updates for layer in column]
        return stack

    def load(self, spikes: Sequence[Spikes], labels: np.ndarray) -> Samples:
        """Copy samples to the device: the input spikes of each network, and the labels of all."""
        first = self.stacks[0]
        return Samples(self.device, spikes, labels, tau=first.tau, duration=first.duration, dtype=self.dtype)

    def store(self, network: int) -> None:
        """Give a network's layers its weights and the optimiser's state."""
        if len(self.members) == 1:
            return
        for layer, stack in zip(self.layers[network], self.stacks, strict=True):
            layer.weights = self.device.download(stack.weights[network]).T
            if stack.moments is not None:
                first, second = (self.device.download(m[network]).T for m in stack.moments)
                layer.moments = first, second
            layer.n_updates = stack.n_updates[network]

    def release(self) -> None:
        """Give back the room for batches; the group can be used on."""
        self._plans.clear()
        self._room = 0
        for stack in self.stacks:
            stack.release()

    def inspect(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the norm of the weights, and the number of those that are not finite: (network, layer) each."""
        norms, broken = zip(*(stack.inspect() for stack in self.stacks), strict=True)
        return np.stack(norms, axis=1), np.stack(broken, axis=1)

    def _make_room(self, samples: Samples, batch: int) -> None:
        if samples.make_room(batch):
            self._plans.clear()
        # A network alone shares its stacks with its layers, which may have made other room in the meantime.
        if batch <= self._room and self._made == [stack.generation for stack in self.stacks]:
            return
        self._room = batch
        self._plans.clear()
        n_rows = len(self.members) * batch
        self._delays = self.device.empty((len(self.stacks), n_rows), np.float64)
        for stack, delays in zip(self.stacks, self._delays, strict=True):
            stack.make_room(batch, delays)
        for stack in self.stacks[:-1]:
            stack.need_errors()
        self._made = [stack.generation for stack in self.stacks]
        self._reading = _Reading(self.stacks[-1], batch, len(LATENCY_TIMES))

    def _do_step(self, samples: Samples, batch: int, n_updates: int) -> None:
        """Launch a step: forward, read-out, and with `n_updates` above 0 backward and update."""
        select_order = self._order if n_updates else _NONE
        taken = [samples.select(self._step, select_order, batch)]
        for i, stack in enumerate(self.stacks):
            # Nothing receives the output's spikes, so that they need no rounding by random numbers.
            noisy = n_updates and i + 1 < len(self.stacks)
            stack.forward(
                taken[-1], batch, noise=self._noise if noisy else _NONE, step=self._step, layer=i,
                n_layers=len(self.stacks),
            )  # fmt: skip
            taken.append(stack.outputs())
        reading, last = self._reading, self.stacks[-1]
        reading.read(last, batch, samples.label, self._targets, self._latency_times)
        if n_updates:
            last.backward(batch, reading.errors)
            for above, below in zip(self.stacks[:0:-1], self.stacks[-2::-1], strict=True):
                above.send_errors(below, batch)
                below.backward(batch)
            for stack, inputs in zip(self.stacks, taken[:-1], strict=True):
                stack.update(
                    inputs, batch, n_samples=samples.n_samples, mode=ADAM, step=self._step, adam=self._adam,
                    rates=self._rates, n_updates=n_updates,
                )  # fmt: skip
        n_sums = len(self.members) * (3 + len(self.stacks))
        last._launch(
            "finish_step", n_sums, samples.label, reading.loss, reading.first_time, reading.decision_time,
            self._delays, _int(len(self.members)), _int(batch), _int(self._delays.shape[1]), _int(len(self.stacks)),
            self._sums, self._step,
        )  # fmt: skip

    def _run(
        self, samples: Samples, batch: int, *, training: bool, on_batch: Callable[[int, int], None] | None = None
    ) -> list[Sums]:
        """Go once through the samples and return what each network did."""
        device, n_steps = self.device, math.ceil(samples.n_samples / batch)
        for stack in self.stacks:
            stack.configure(samples.delta_t, [m.rule for m in self.members], [m.estimator for m in self.members])
        for array in (self._step, self._sums, self._reading.spikes_by_total, self._reading.confusion):
            device.clear(array)
        for stack in self.stacks:
            device.clear(stack.fired)
            device.clear(stack.totals)
            if training:
                stack.need_moments()
        key = id(samples), batch, training
        if key not in self._plans:
            n_updates = n_steps if training else 0
            self._plans[key] = device.record(lambda: self._do_step(samples, batch, n_updates)), samples
        step, wait = self._plans[key][0], device.mark()
        for i in range(n_steps):
            step()
            if training and i % _UPDATES_AHEAD == 0:
                wait()
                wait = device.mark()
                if on_batch:
                    n = len(self.members)
                    on_batch(n * min((i + 1) * batch, samples.n_samples), n * samples.n_samples)
        return self._collect(samples.n_samples)

    def _collect(self, n_samples: int) -> list[Sums]:
        """Fetch the sums of a pass."""
        download = self.device.download
        sums = download(self._sums)
        spikes_by = download(self._reading.spikes_by_total).astype(np.int64)
        confusion = download(self._reading.confusion).astype(np.int64)
        totals = np.stack([download(stack.totals) for stack in self.stacks], axis=1).astype(np.int64)
        fired = [download(stack.fired).astype(bool) for stack in self.stacks]
        return [
            Sums(
                samples=n_samples,
                loss=float(sums[i, 0]),
                first_time=float(sums[i, 1]),
                decision_time=float(sums[i, 2]),
                delay=sums[i, 3:],
                counts=totals[i, :, :N_COUNTERS],
                sent=totals[i, :, N_COUNTERS],
                fired=[layer[i] for layer in fired],
                spikes_by=spikes_by[i],
                confusion=confusion[i],
            )
            for i in range(len(self.members))
        ]

    def train(
        self,
        samples: Samples,
        orders: Sequence[np.ndarray],
        *,
        batch_size: int,
        learning_rates: Sequence[float],
        noise: Sequence[int],
        on_batch: Callable[[int, int], None] | None = None,
    ) -> list[Sums]:
        """Train every network for one epoch.

        Parameters
        ----------
        samples : Samples
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
        batch = min(batch_size, samples.n_samples)
        self._make_room(samples, batch)
        n_steps = math.ceil(samples.n_samples / batch)
        order = np.stack(orders).astype(np.int32)
        if self._order is None or self._order.shape != order.shape:
            self._order = self.device.empty(order.shape, np.int32)
            self._rates = self.device.empty((len(self.members), n_steps, 2), np.float64)
            self._plans.clear()
        self.device.fill(self._order, order)
        self.device.fill(self._noise, np.array(noise, np.uint64))
        self.device.fill(self._rates, _rates(learning_rates, self.members, self.stacks[0].n_updates, n_steps))
        sums = self._run(samples, batch, training=True, on_batch=on_batch)
        for stack in self.stacks:
            stack.n_updates = [n + n_steps for n in stack.n_updates]
        return sums

    def evaluate(self, samples: Samples, *, batch_size: int) -> list[Sums]:
        """Run every network on all samples.

        Parameters
        ----------
        samples : Samples
            What :meth:`load` returned.
        batch_size : int
            Samples simulated together.

        Returns
        -------
        list of Sums
        """
        batch = min(batch_size, samples.n_samples)
        self._make_room(samples, batch)
        return self._run(samples, batch, training=False)


# ------------------------------------------------------------------------------------------------------- the backend


class CudaBackend:
    """What :func:`bats_lab.engine.get_backend` gives for a device: the names of :mod:`bats_lab.engine.cpu.networks`.

    Parameters
    ----------
    device : Device
    """

    #: Name of this backend in results.
    NAME = "cuda"
    Group = Group

    def __init__(self, device: Device) -> None:
        self.device = device
        self.Layer = functools.partial(Layer, device)

    def read_out(
        self,
        layer: Layer,
        labels: np.ndarray,
        *,
        target_true: float,
        target_false: float,
        latency_times: np.ndarray,
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
        device, n, stack = self.device, layer._n, layer.stack
        reading = _Reading(stack, max(n, 1), len(latency_times))
        if n:
            reading.read(
                stack,
                n,
                device.upload(np.asarray(labels, np.int32)),
                device.upload(np.array([[target_true, target_false]], np.float64)),
                device.upload(np.asarray(latency_times, np.float64)),
            )
        download = device.download
        return ReadOut(
            predicted=download(reading.predicted)[:n].astype(np.int64),
            loss=download(reading.loss)[:n],
            errors=download(reading.errors)[:n],
            spikes_by=download(reading.spikes_by)[:n].astype(np.int64),
            first_time=download(reading.first_time)[:n],
            decision_time=download(reading.decision_time)[:n],
        )

    def n_fitting(
        self,
        n_networks: int,
        *,
        sizes: Sequence[int],
        max_spikes: Sequence[int],
        batch: int,
        dtype: str,
        n_samples: int,
        n_spikes: int,
        n_encodings: int,
        n_grids: int,
    ) -> int:
        """Return how many networks of a group fit the device's memory at once.

        Parameters
        ----------
        n_networks : int
            Networks of the group.
        sizes, max_spikes : sequence of int
            Neurons of every layer, the input first; crossings kept in each layer but the input.
        batch : int
            Samples simulated together.
        dtype : str
        n_samples, n_spikes : int
            Samples for training and testing, and their input spikes.
        n_encodings, n_grids : int
            Different input spike trains, and different time grids, among the networks.

        Raises
        ------
        DeviceError
            If not even one fits; the message has the numbers.
        """
        itemsize = np.dtype(dtype).itemsize
        layers = zip(sizes[:-1], sizes[1:], max_spikes, strict=True)
        each = sum(Stack.bytes_needed(*layer, batch, itemsize) for layer in layers) + n_samples * 8
        encoding = n_spikes * (8 + itemsize) + n_samples * (8 + 4 * (_n_ranges(sizes[0]) + 1))
        grid = (n_spikes + n_samples) * (16 + 2 * itemsize) + n_samples * 24
        free = int(_USABLE * self.device.free_bytes())

        def needed(n: int) -> int:
            return n * each + min(n, n_encodings) * encoding + min(n, n_grids) * grid

        if needed(1) > free:
            sizes_text = "-".join(map(str, sizes))
            raise DeviceError(
                f"A network {sizes_text} does not fit the memory of {self.device.name}: it needs "
                f"{needed(1) / 2**30:.2f} GiB, {each / 2**30:.2f} of them for {batch} samples at a time, and "
                f"{free / 2**30:.2f} GiB can be used; a smaller batch_size and test_batch_size may help."
            )
        return max(n for n in range(1, n_networks + 1) if needed(n) <= free)

    def using(self, threads: int = 0) -> AbstractContextManager[None]:
        """Run what is inside with a number of threads of the CPU, which prepares input spikes; 0 for one a core."""
        return using(threads)

    def device_name(self) -> str:
        """Return the GPU's name in words."""
        return self.device.name


@functools.cache
def backend() -> CudaBackend:
    """Return the backend of the current CUDA device.

    Raises
    ------
    DeviceError
        If there is none that works.
    """
    return CudaBackend(CupyDevice())
