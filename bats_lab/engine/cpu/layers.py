"""One layer of several networks on the CPU, and the room for a batch of one of them.

Layout
------
The neurons of a layer are split into blocks of one width, a multiple of 16. Weights, moments and gradients are arrays
(network, block, pre, lane), so that the weights of a block stay in the second-level cache while a whole batch passes.
Crossings are recorded per (sample, block) in the order in which they are found, which is the order of groups.
"""

from __future__ import annotations

import math

import numpy as np

from bats_lab.engine import Mode
from bats_lab.engine.cpu.records import N_COUNTERS, Crossings, Events, Groups, Physics, Sent

__all__ = ["N_SLABS", "Layer", "Room", "block_width"]

# Parts of a batch summed apart in the backward pass of a layer of one block, so that threads have work. A constant,
# so that sums do not depend on the number of threads.
N_SLABS = 8


CACHE_LINE = 64  # bytes
# Lanes up to which a layer is narrow.
NARROW = 48


def block_width(n_neurons: int) -> int:
    """Return the neurons of a block: about 200, so that its weights fit the second-level cache, a multiple of 16."""
    n_blocks = max(1, 2 * round(n_neurons / 400))
    return 16 * math.ceil(n_neurons / n_blocks / 16)


def _zeros(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return zeros that begin at a cache line: as rows of a multiple of 16 lanes then do, vectors straddle none."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.zeros(size + CACHE_LINE, np.uint8)
    begin = -raw.ctypes.data % CACHE_LINE
    return raw[begin : begin + size].view(dtype).reshape(shape)


class Layer:
    """One layer of several networks: weights and the optimiser's state, the first axis being the network.

    Parameters
    ----------
    weights : ndarray, (network, post, pre)
    max_spikes : int
        Crossings kept per neuron and sample.
    dtype : dtype
    """

    def __init__(self, weights: np.ndarray, max_spikes: int, dtype: np.dtype) -> None:
        self.dtype, self.max_spikes = dtype, max_spikes
        self.n_networks, self.n_post, self.n_pre = weights.shape
        self.width = block_width(self.n_post)
        self.n_blocks = math.ceil(self.n_post / self.width)
        self.capacity = self.width * max_spikes
        self.weights = self.to_blocks(weights)
        self._gradient: np.ndarray | None = None
        self._moments: tuple[np.ndarray, np.ndarray] | None = None
        self._rounded: np.ndarray | None = None

    def to_blocks(self, dense: np.ndarray) -> np.ndarray:
        """Lay (network, post, pre) out as (network, block, pre, lane)."""
        padded = np.zeros((len(dense), self.n_blocks * self.width, self.n_pre), self.dtype)
        padded[:, : self.n_post] = dense
        split = padded.reshape(len(dense), self.n_blocks, self.width, self.n_pre)
        blocks = _zeros((len(dense), self.n_blocks, self.n_pre, self.width), self.dtype)
        blocks[:] = split.transpose(0, 1, 3, 2)
        return blocks

    def to_dense(self, blocks: np.ndarray) -> np.ndarray:
        """Do the reverse of `to_blocks`."""
        dense = blocks.transpose(0, 1, 3, 2).reshape(len(blocks), self.n_blocks * self.width, self.n_pre)
        return np.ascontiguousarray(dense[:, : self.n_post])

    @property
    def gradient(self) -> np.ndarray:
        """Gradients added up since the last update, (network, slab, block, pre, lane)."""
        if self._gradient is None:
            n_slabs = 1 if self.n_blocks > 1 else N_SLABS
            self._gradient = _zeros((self.n_networks, n_slabs, *self.weights.shape[1:]), self.dtype)
        return self._gradient

    @property
    def rounded(self) -> np.ndarray:
        """Weights in words of few bits, where a network is run with such, laid out as `weights` are."""
        if self._rounded is None:
            self._rounded = _zeros(self.weights.shape, self.dtype)
        return self._rounded

    @property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Adam's moments, (network, block, pre, lane) each."""
        if self._moments is None:
            shape = self.weights.shape
            self._moments = _zeros(shape, self.dtype), _zeros(shape, self.dtype)
        return self._moments


class Room:
    """What the last batch of one network left in one of its layers; memory that is never written is never taken."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.n = self._samples = self._events = 0
        self.input_errors = np.empty((layer.n_blocks, 0), layer.dtype)
        self.physics: Physics
        self.ran: tuple[str, float, float] | None = None  # the rule, time step and unit that `physics` has
        self.mode: Mode
        self.inputs: Events

    def make(self, n_samples: int, n_events: int) -> None:
        """Allocate for a batch."""
        layer = self.layer
        if n_samples > self._samples:
            self._samples = n_samples
            records = (n_samples, layer.n_blocks, layer.capacity)
            spikes = (n_samples, layer.n_blocks * layer.capacity)
            self.crossings = Crossings(
                floats=np.empty((*records, 3), layer.dtype),
                integers=np.empty((*records, 4), np.int32),
                n_records=np.zeros(records[:2], np.int64),
                sent=np.zeros((*records[:2], layer.width), np.int32),
                counters=np.zeros((*records[:2], N_COUNTERS), np.int64),
            )
            self.sent = Sent(
                neuron=np.empty(spikes, np.int32),
                times=np.empty(spikes, layer.dtype),
                ticks=np.empty(spikes, np.int32),
                source=np.empty(spikes, np.int32),
                n_sent=np.zeros(n_samples, np.int64),
            )
            self.errors = np.empty(records, layer.dtype)
            self._outputs: Events | None = None  # views of the arrays above
            self._events = 0
        if n_events + n_samples > self._events:
            self._events = n_events + n_samples
            self.groups = Groups(
                offset=np.zeros(self._samples + 1, np.int64),
                first=np.empty(self._events, np.int64),
                tick=np.empty(self._events, np.int32),
                time=np.empty(self._events, np.float64),
                decay=np.empty(self._events, layer.dtype),
                n_groups=np.zeros((self._samples, 2), np.int64),
            )

    def of_batch(self) -> Crossings:
        """Return the crossings of the samples that there are."""
        return Crossings(*(array[: self.n] for array in self.crossings))

    def spike_count(self) -> np.ndarray:
        """Return the spikes sent, (sample, neuron)."""
        layer = self.layer
        return self.crossings.sent[: self.n].reshape(self.n, layer.n_blocks * layer.width)[:, : layer.n_post]

    def outputs(self) -> Events:
        """Return the spikes sent, as inputs of the next layer."""
        if self._outputs is None or len(self._outputs.start) != self.n:
            sent = self.sent
            self._outputs = Events(
                start=np.arange(self.n, dtype=np.int64) * sent.neuron.shape[1],
                size=sent.n_sent[: self.n],
                neuron=sent.neuron.reshape(-1),
                times=sent.times.reshape(-1),
                ticks=sent.ticks.reshape(-1),
            )
        return self._outputs
