"""Input spikes on the GPU, for each network of a group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit, prange

from bats_lab.engine.cpu.order import group_events
from bats_lab.engine.cpu.records import ALL, Events, Groups, Physics
from bats_lab.engine.cuda.device import NONE, Device
from bats_lab.spikes.grid import ticks_within
from bats_lab.spikes.trains import Spikes

__all__ = ["ROWS_PER_RANGE", "Inputs", "Samples", "n_ranges"]

# As in kernels/common.cu.
ROWS_PER_RANGE = 16

_int = np.int32


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


def n_ranges(n_neurons: int) -> int:
    """Return the stretches of ROWS_PER_RANGE neurons that a layer has."""
    return math.ceil(n_neurons / ROWS_PER_RANGE)


@njit(cache=True, nogil=True, parallel=True)
def _sort_by_neuron(start, count, neuron, n_neurons, at, place, ranges):
    """List each sample's events by neuron, as places in the sample; equal neurons stay in order of time."""
    last = ranges.shape[1] - 1
    for i in prange(len(start)):
        begin = np.zeros(n_neurons + 1, np.int32)
        for event in range(start[i], start[i] + count[i]):
            begin[neuron[event] + 1] += 1
        for j in range(n_neurons):
            begin[j + 1] += begin[j]
        for r in range(last):
            ranges[i, r] = begin[r * ROWS_PER_RANGE]
        ranges[i, last] = count[i]
        for event in range(count[i]):
            j = neuron[start[i] + event]
            place[at[i] + begin[j]] = event
            begin[j] += 1


@njit(cache=True, nogil=True)
def _number_groups(times, first, time, n_groups, begin, group):
    """Tell each event of a sample its group, count groups' first events from the sample's own, and take their times."""
    for g in range(n_groups):
        group[first[g] - begin : first[g + 1] - begin] = g
        time[g] = times[first[g]]  # continuous, on a grid too: the kernels' origin of what follows the group
        first[g] -= begin
    first[n_groups] -= begin


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _group_samples(events, physics, groups, group):
    """Split each sample's events into groups, as the CPU engine does; `group` is each event's, sample after sample."""
    for i in prange(len(events.start)):
        begin, size, offset = events.start[i], events.size[i], groups.offset[i]
        group_events(events.times, events.ticks, begin, size, physics, groups, np.int64(i))
        # A sample has one place more for groups than it has events.
        own = group[offset - i : offset - i + size]
        _number_groups(events.times, groups.first[offset:], groups.time[offset:], groups.n_groups[i, ALL], begin, own)


def _joined(device: Device, pieces: list[np.ndarray]) -> Any:
    """Copy pieces to the device as one array; each is freed as soon as it is there."""
    size, dtype = sum(map(len, pieces)), pieces[0].dtype
    out = device.zeros(max(size, 1), dtype)  # one element stands for none, which would have no address
    end = size
    while pieces:
        piece = pieces.pop()
        if len(piece) == 0:
            continue
        device.fill(out[end - len(piece) : end], piece)
        end -= len(piece)
    return out


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
        self._arrays = {name: _joined(device, pieces) for name, pieces in parts.items()}
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
        ranges = np.empty((len(s), n_ranges(s.n_neurons) + 1), np.int32)
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
        size = len(order) + len(s)  # a sample has at most as many groups as events, and one entry more
        groups = Groups(
            offset=at + np.arange(len(s)),
            first=np.zeros(size, np.int64),
            tick=np.zeros(size, np.int32),
            time=np.zeros(size),
            decay=np.zeros(size, self.dtype),
            n_groups=np.zeros((len(s), 2), np.int64),
        )
        physics = Physics(
            c=self.dtype.type(0),  # not asked for
            tau=self.dtype.type(tau),
            tau_syn=self.dtype.type(0),  # nor this
            closed=True,
            delta_t=s.delta_t,
            duration=duration,
            rule=0,
            last_tick=ticks_within(duration, s.delta_t),
            limit_tick=0,
            max_spikes=0,
            unit=self.dtype.type(0),
        )
        _group_samples(Events(s.start, s.count, s.neuron, s.times, s.ticks), physics, groups, group)
        n_all, n_active = groups.n_groups.T
        kept = np.arange(size) - np.repeat(groups.offset, s.count + 1) <= np.repeat(n_all, s.count + 1)
        for name, values, kind in (
            ("first", groups.first, np.int32),
            ("group_tick", groups.tick, np.int32),
            ("group_time", groups.time, self.dtype),
            ("decay", groups.decay, self.dtype),
        ):
            parts[name].append(values[kept].astype(kind, copy=False))
        parts["n_active"].append(n_active.astype(np.int32))
        parts["group_start"].append(np.cumsum(n_all + 1) - (n_all + 1) + n_places)
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

    def select(self, step: Any, order: Any, batch: int, n_ordered: int) -> Inputs:
        """Take a step's samples: `order` has `n_ordered` for each network, or is a null pointer for all as they are."""
        n_networks, a, rows = self._n_networks, self._arrays, self._rows
        self.device.launch(
            "select_samples",
            self.dtype,
            math.ceil(n_networks * batch / self.device.threads),
            self.device.threads,
            (
                step, order, NONE if self._labels is None else self._labels, _int(n_ordered), _int(batch),
                _int(n_networks), _int(n_ranges(self.n_neurons)), self._first_sample,
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
