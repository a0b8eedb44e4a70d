"""One layer of several networks on the GPU: what holds the arrays and launches the kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bats_lab.engine import Mode, TimeConstants
from bats_lab.engine.cuda.device import NONE, Device
from bats_lab.engine.cuda.samples import ROWS_PER_RANGE, Inputs, n_ranges
from bats_lab.spikes.grid import first_tick_from, ticks_within
from bats_lab.spikes.rules import rule_code

__all__ = ["ADAM", "N_COUNTERS", "STORED", "Layer", "Reading"]

# As in the kernels.
N_COUNTERS, N_TOTALS, N_REALS = 5, 6, 7
STORED, ADAM = 1, 2
_CHUNK, _POSTS = 16, 8

# How the gradient of a layer is shared out: neurons of a block, warps among which the rows of a batch are dealt, bytes
# of inputs of a block. Layers of few neurons need more warps for each. Results depend on the second, to rounding.
_FEW_NEURONS = 64
_WIDE_UPDATE, _NARROW_UPDATE = (8, 2, 1024), (2, 8, 256)
# Most threads of a sample, and threads that share a spike, where errors are sent to the layer below; threads of a
# sample where the output is read. A layer is narrow with fewer neurons than half a warp has threads.
_ERROR_THREADS, _ERROR_PARTS, _READING_THREADS = 1024, 4, 32
_NARROW = 16

_int, _long = np.int32, np.int64


def _lanes(n_post: int) -> int:
    """Return the threads of a row: whole warps, but for layers so narrow that a warp takes several rows."""
    return n_post if n_post <= _NARROW else 32 * math.ceil(n_post / 32)


class Layer:
    """One layer of several networks, with its optimiser's state and room for a batch, on the device.

    Parameters
    ----------
    device : Device
    weights : ndarray, (network, post, pre)
        Initial weights.
    thresholds, durations : sequence of float
        Of each network.
    constants : sequence of TimeConstants
        Of each network.
    tau_next : sequence of float
        Membrane time constant of the layer that the spikes go to, of each network.
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
        durations: Sequence[float],
        constants: Sequence[TimeConstants],
        tau_next: Sequence[float],
        max_spikes: int,
        dtype: np.dtype,
    ) -> None:
        # One network without the closed form takes the kernels for any ratio, in which the others still have it.
        self.any_ratio = not all(own.closed for own in constants)
        device.compile(dtype)
        if self.any_ratio:
            device.compile(dtype, any_ratio=True)
        self.device, self.dtype = device, dtype
        self.n_networks, self.n_post, self.n_pre = weights.shape
        self.max_spikes, self.capacity = int(max_spikes), self.n_post * int(max_spikes)
        self.thresholds = [float(v) for v in thresholds]
        self.tau, self.tau_next, self.duration = [own.mem for own in constants], list(tau_next), list(durations)
        self.tau_syn = [0.0 if own.closed else own.syn for own in constants]
        self.lanes, self.n_ranges = _lanes(self.n_post), n_ranges(self.n_post)
        self.weights = device.upload(weights.transpose(0, 2, 1).astype(dtype))
        self.moments: tuple[Any, Any] | None = None
        self.gradient: Any = None
        # What passes add up: which neurons fired, and how often what happened. A pass that is not counted has its own.
        self.fired, self.totals = self._counters()
        self._uncounted = self._counters()
        # How networks are run, in two slots: batches may be run in two ways in one step.
        self.slot = 0
        self._settings = [self._empty_settings() for _ in range(2)]
        self._configured: list[Any] = [None, None]
        self._room = 0
        self.room: dict[str, Any] = {}
        self.delays: Any = None
        self._uncounted_delays: Any = None
        self.errors: Any = None

    def _counters(self) -> tuple[Any, Any]:
        zeros = self.device.zeros
        return zeros((self.n_networks, self.n_post), np.int32), zeros((self.n_networks, N_TOTALS), np.uint64)

    def _empty_settings(self) -> tuple[Any, Any]:
        empty, n = self.device.empty, self.n_networks
        return empty((n, N_REALS), np.float64), empty((n, 4), np.int32)

    @property
    def reals(self) -> Any:
        """Thresholds, time constants and grids of the networks, as kernels/common.cu has them."""
        return self._settings[self.slot][0]

    @property
    def integers(self) -> Any:
        """Rules and ticks of the networks, as kernels/common.cu has them."""
        return self._settings[self.slot][1]

    @staticmethod
    def bytes_needed(n_pre: int, n_post: int, max_spikes: int, batch: int, itemsize: int) -> int:
        """Return the bytes of one network's layer in training: its room for a batch, weights and moments."""
        capacity = n_post * max_spikes
        # Crossings, spikes, groups and errors, as in `make_room`; what there is by neuron and by row is rounded up.
        n_floats, n_integers = len(Layer._FLOATS) + 1, len(Layer._CROSSINGS + Layer._SPIKES + Layer._GROUPS)
        n_integers -= len(Layer._FLOATS)
        row = (capacity + 1) * (n_floats * itemsize + n_integers * 4) + n_post * (16 + itemsize) + 256
        # Weights, two moments, and a gradient where batches are taken in steps.
        return batch * row + n_pre * n_post * itemsize * 4

    def configure(self, delta_t: Sequence[float], modes: Sequence[Mode], slot: int = 0) -> None:
        """Say how the networks are run: each one's time step, collision rule and gradient estimator."""
        wanted = tuple(delta_t), tuple((mode.rule, mode.estimator) for mode in modes)
        if wanted == self._configured[slot]:
            return
        runs = list(zip(delta_t, modes, self.duration, self.tau, self.thresholds, strict=True))
        integers = [
            (
                rule_code(mode.rule), ticks_within(duration, step), first_tick_from(duration, step) if step else 0,
                mode.estimator.by_sent,
            )
            for step, mode, duration, _, _ in runs
        ]  # fmt: skip
        widths = [mode.estimator.slope_width for mode in modes]
        surrogates = [math.exp(-2.0 * math.pi * width) if width else 0.0 for width in widths]
        reals = [
            (threshold / tau, tau, step, duration, surrogate, tau_syn, tau_next)
            for (step, _, duration, tau, threshold), surrogate, tau_syn, tau_next in zip(
                runs, surrogates, self.tau_syn, self.tau_next, strict=True
            )
        ]
        self.device.fill(self._settings[slot][0], np.array(reals, np.float64))
        self.device.fill(self._settings[slot][1], np.array(integers, np.int32))
        self._configured[slot] = wanted

    def make_room(self, batch: int, delays: Any) -> None:
        """Allocate for rows of a batch; `delays` is where each row's summed delay goes, (row,)."""
        self._room, n_rows, empty = batch, self.n_networks * batch, self.device.empty
        self.delays, self._uncounted_delays = delays, empty(n_rows, np.float64)
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
        self.errors = self.delays = self._uncounted_delays = None

    def need_errors(self) -> Any:
        """Allocate the errors of spikes, for layers that have another one above."""
        if self.errors is None:
            self.errors = self.device.empty(self.n_networks * self._room * self.capacity, self.dtype)
        return self.errors

    def need_gradient(self) -> Any:
        """Allocate the gradient of batches taken in steps, (network, pre, post)."""
        if self.gradient is None:
            self.gradient = self.device.zeros((self.n_networks, self.n_pre, self.n_post), self.dtype)
        return self.gradient

    def need_moments(self) -> tuple[Any, Any]:
        """Allocate Adam's moments."""
        if self.moments is None:
            shape = self.n_networks, self.n_pre, self.n_post
            self.moments = self.device.zeros(shape, self.dtype), self.device.zeros(shape, self.dtype)
        return self.moments

    def launch(self, kernel: str, n_threads: int, *arguments: Any, any_ratio: bool = False) -> None:
        """Launch a kernel in blocks of the device's size."""
        threads = self.device.threads
        n_blocks = math.ceil(n_threads / threads)
        self.device.launch(kernel, self.dtype, n_blocks, threads, arguments, any_ratio=any_ratio)

    def _crossings(self) -> tuple[Any, ...]:
        return tuple(self.room[name] for name in ("time", "slope", "fade", "origin", "bin", "group", "base"))

    def forward(
        self,
        inputs: Inputs,
        batch: int,
        *,
        counted: bool = True,
        noise: Any = NONE,
        step: Any = NONE,
        depth: tuple[int, int] = (0, 1),
    ) -> None:
        """Simulate all networks for a batch, and put the spikes they send in order.

        With `counted` the pass adds to what the layer sums. `noise` are each network's keys of random numbers
        (:func:`bats_lab.engine.noise_key`), which need the `step`, and the layer's number among how many (`depth`).
        """
        fired, totals = (self.fired, self.totals) if counted else self._uncounted
        delays = self.delays if counted else self._uncounted_delays
        n_rows, room = self.n_networks * batch, self.room
        self.device.clear(self.counters)
        threads = self.device.threads
        columns = min(threads, 1 << (self.n_post - 1).bit_length())
        threads -= threads % columns
        blocks = math.ceil(self.n_post / columns)
        self.device.launch(
            "forward", self.dtype, n_rows * blocks, threads,
            (
                self.weights, inputs.event_at, inputs.group_at, inputs.n_active, inputs.neuron, inputs.first,
                inputs.group_tick, inputs.group_time, inputs.decay, self.reals, self.integers, noise, step,
                _int(depth[0]), _int(depth[1]), _int(batch), _int(self.n_pre), _int(self.n_post), _int(blocks),
                _int(columns), _int(self.max_spikes), *(room[name] for name in self._CROSSINGS), self.n_records,
                self.sent, self.counters, fired,
            ),
            _CHUNK * threads * self.dtype.itemsize, any_ratio=self.any_ratio,
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
                self.ranges, delays, totals,
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
        self.launch(
            "backward", n_rows * self.lanes, errors, _int(row_stride), _int(slot_stride), self.n_records, room["time"],
            room["tick"], room["origin"], room["base"], self.reals, self.integers, _int(n_rows), _int(batch),
            _int(self.n_post), _int(self.lanes), _int(self.max_spikes), room["slope"], room["fade"],
            any_ratio=self.any_ratio,
        )  # fmt: skip

    def send_errors(self, below: Layer, batch: int) -> None:
        """Give the spikes of the layer below their errors."""
        parts = 1 if self.n_post <= _FEW_NEURONS else _ERROR_PARTS
        spikes = max(1, self.device.threads // parts)
        threads, blocks = spikes * parts, math.ceil(min(_ERROR_THREADS, below.capacity) / spikes)
        self.device.launch(
            "input_errors", self.dtype, self.n_networks * batch * blocks, threads,
            (
                self.weights, below.n_sent,
                *(below.room[name] for name in ("pre", "by_time", "by_tick", "by_order", "target")),
                _int(below.capacity), *self._crossings(), self.n_records, self.reals, self.integers, _int(batch),
                _int(self.n_pre), _int(self.n_post), _int(self.max_spikes), _int(blocks), _int(parts),
                below.need_errors(),
            ),
            threads * (_POSTS + 2) * self.dtype.itemsize, any_ratio=self.any_ratio,
        )  # fmt: skip

    def update(
        self,
        inputs: Inputs | None,
        batch: int,
        *,
        n_samples: int = 0,
        mode: int,
        step: Any = NONE,
        adam: Any = NONE,
        rates: Any = NONE,
        n_updates: int = 0,
    ) -> None:
        """Sum the gradient of a batch, unless `inputs` is None, and store it or move the weights, as `mode` says."""
        posts, splits, room = _NARROW_UPDATE if self.n_post <= _FEW_NEURONS else _WIDE_UPDATE
        tiles = math.ceil(self.n_pre * self.dtype.itemsize / room)
        n_inputs = ROWS_PER_RANGE * math.ceil(n_ranges(self.n_pre) / tiles)
        tiles = math.ceil(self.n_pre / n_inputs)
        moments = self.need_moments() if mode & ADAM else (NONE, NONE)
        if inputs is None:
            visited: tuple[Any, ...] = (NONE,) * 8
        else:
            visited = (
                inputs.event_at, inputs.tick_at, inputs.range_at, inputs.pre, inputs.by_time, inputs.by_tick,
                inputs.by_order, inputs.ranges
            )  # fmt: skip
        self.device.launch(
            "update", self.dtype, self.n_networks * tiles * math.ceil(self.n_post / posts),
            posts * splits * self.device.lanes,
            (
                *visited, _int(n_ranges(self.n_pre)), *self._crossings(), self.n_records, self.reals, self.integers,
                _int(batch), _int(n_samples), _int(self.n_pre), _int(self.n_post), _int(self.max_spikes),
                _int(n_inputs), _int(posts), _int(splits), _int(inputs is not None and inputs.hidden),
                _int(inputs is not None), _int(mode), step, adam, rates, _int(n_updates),
                NONE if self.gradient is None else self.gradient, *moments, self.weights,
            ),
            posts * splits * (n_inputs | 1) * self.dtype.itemsize, any_ratio=self.any_ratio,
        )  # fmt: skip

    def inspect(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the Frobenius norm of each network's weights, and how many are not finite."""
        shape = self.n_networks, self.n_post
        squares, broken = self.device.empty(shape, np.float64), self.device.empty(shape, np.int32)
        self.launch(
            "inspect_weights", self.n_networks * self.n_post, self.weights, _int(self.n_networks), _int(self.n_pre),
            _int(self.n_post), squares, broken,
        )  # fmt: skip
        return np.sqrt(self.device.download(squares).sum(axis=1)), self.device.download(broken).sum(axis=1)


class Reading:
    """Room for what is read of the output layer, per row and in sum."""

    def __init__(self, layer: Layer, batch: int, n_times: int) -> None:
        device, n_rows = layer.device, layer.n_networks * batch
        self.n_times = n_times
        self.errors = device.empty((n_rows, layer.n_post), layer.dtype)
        self.predicted = device.empty(n_rows, np.int32)
        self.spikes_by = device.empty((n_rows, n_times), np.int32)
        self.loss, self.first_time, self.decision_time = (device.empty(n_rows, np.float64) for _ in range(3))
        self.spikes_by_total = device.zeros((layer.n_networks, n_times), np.uint64)
        self.confusion = device.zeros((layer.n_networks, layer.n_post, layer.n_post + 1), np.uint64)

    def read(self, layer: Layer, batch: int, label: Any, targets: Any, latency_times: Any) -> None:
        """Read the output layer's last batch (eq. 10)."""
        layer.device.launch(
            "read_out", layer.dtype, layer.n_networks * batch, _READING_THREADS,
            (
                layer.sent, layer.n_sent, layer.room["neuron"], layer.room["sent_time"], layer.room["sent_tick"],
                layer.reals, label, targets, latency_times, _int(self.n_times), _int(batch), _int(layer.n_post),
                _int(layer.max_spikes), self.errors, self.predicted, self.loss, self.spikes_by, self.first_time,
                self.decision_time, self.spikes_by_total, self.confusion,
            ),
            4 * layer.n_post,
        )  # fmt: skip
