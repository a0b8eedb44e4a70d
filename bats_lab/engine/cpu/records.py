"""What travels together through the kernels of the CPU: named tuples of arrays, which numba takes as they are.

One trap: in the body of a ``prange``, numba silently drops what is assigned to an element of a tuple's array
(``sent.n_sent[i] = n``). So such bodies call functions, which write to it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from bats_lab.spikes.rules import RULES

# Codes of the collision rules: their places in the table.
DROP, MERGE, DEFER, GRADED, CLOCKED = range(len(RULES))

# Columns of the counters a layer keeps per sample and block.
DROPPED, MERGED, DEFERRED, LOST, TRUNCATED = range(5)
N_COUNTERS = 5

# Columns of a recorded crossing: floats and integers.
TIME, SLOPE, FADE = range(3)  # continuous time (s); slope x of u/τ; exp(-(t_k - t_g)/τ)
LANE, TICK, BIN, GROUP = range(4)  # lane of the block; tick sent (-1: not); tick of eq. 14; latest group before it

# Groups of inputs of a sample: all of them, and those sent within the window.
ALL, ACTIVE = range(2)

# Fused multiply-add everywhere; in loops over neurons also min and max without care for NaN, which would
# double their cost: a NaN marks a neuron at most, and the solver then finds no crossing.
EXACT = {"contract"}
LANES = {"contract", "nnan", "nsz"}
SUMS = {"contract", "nnan", "nsz", "reassoc"}


class Physics(NamedTuple):
    """What one layer's neurons are like, and the grid they run on.

    `c` is the threshold over τ; times are seconds, `delta_t` is 0 in continuous time. `last_tick` is the last one in
    the window, `limit_tick` the last one on which rule ``defer`` sends. Where `closed`, τ is twice the synaptic time
    constant, and a crossing is the root of a quadratic. `unit` is what currents and potentials over τ are rounded to
    multiples of on every tick of rule ``clocked``; 0: they are not.
    """

    c: np.floating
    tau: np.floating
    tau_syn: np.floating
    closed: bool
    delta_t: float
    duration: float
    rule: int
    last_tick: int
    limit_tick: int
    max_spikes: int
    unit: np.floating


class Events(NamedTuple):
    """Spikes of many samples, each sample's from `start` on, ordered by the time at which they are sent."""

    start: np.ndarray  # int64, (sample,)
    size: np.ndarray  # int64, (sample,); spikes of each
    neuron: np.ndarray  # int32, (spike,)
    times: np.ndarray  # continuous, (spike,)
    ticks: np.ndarray  # int32, (spike,); those they are sent on


class Groups(NamedTuple):
    """Spikes of a batch that are sent at one time, each sample's from `offset` on; they act together."""

    offset: np.ndarray  # int64, (sample + 1,)
    first: np.ndarray  # int64, (group,); the first spike, and behind a sample's last group the end of its spikes
    tick: np.ndarray  # int32, (group,)
    time: np.ndarray  # float64, (group,); when they are sent
    decay: np.ndarray  # (group,); exp(-(t_{g+1} - t_g)/τ), up to the end of the window for the last one in it
    n_groups: np.ndarray  # int64, (sample, 2); ALL, ACTIVE


class Walk(NamedTuple):
    """The groups of one sample."""

    first: np.ndarray
    tick: np.ndarray
    time: np.ndarray
    decay: np.ndarray
    n_all: int
    n_active: int


class Crossings(NamedTuple):
    """Crossings of a batch, those of a sample and block in the order in which they were found, that of groups."""

    floats: np.ndarray  # (sample, block, record, 3)
    integers: np.ndarray  # int32, (sample, block, record, 4)
    n_records: np.ndarray  # int64, (sample, block)
    sent: np.ndarray  # int32, (sample, block, lane); spikes sent
    counters: np.ndarray  # int64, (sample, block, 5)


class Records(NamedTuple):
    """The crossings of one sample in one block."""

    floats: np.ndarray
    integers: np.ndarray
    sent: np.ndarray
    counters: np.ndarray


class Sent(NamedTuple):
    """Spikes of a batch in the order in which they are sent, and where among the crossings each comes from."""

    neuron: np.ndarray  # int32, (sample, spike)
    times: np.ndarray  # continuous, (sample, spike)
    ticks: np.ndarray  # int32, (sample, spike)
    source: np.ndarray  # int32, (sample, spike); block * capacity + record
    n_sent: np.ndarray  # int64, (sample,)


class Solver(NamedTuple):
    """Marked lanes, one behind the other, as the solver takes them, and what it makes of each."""

    a: np.ndarray
    b: np.ndarray
    excess: np.ndarray
    latest: np.ndarray  # s of the last crossing in this interval, 1 before the first: the next one has a smaller s
    root: np.ndarray  # s of the crossing, negative: none
    since: np.ndarray  # its time since the group
    slope: np.ndarray
    reset: np.ndarray  # by how much b falls


class Lanes(NamedTuple):
    """The state of a block of neurons, a lane each, while a sample passes."""

    a: np.ndarray  # sums of eq. 8, relative to the latest group
    b: np.ndarray
    excess: np.ndarray  # -q at the end of the last interval: not below 0 where the neuron is above threshold
    mark: np.ndarray  # without a sign: it may cross in this interval
    words: np.ndarray  # uint64; `mark`, looked at word by word
    total: np.ndarray  # sum of the rows of a group
    hits: np.ndarray  # uint32; lanes marked
    crossings: np.ndarray  # int32; crossings so far
    own_tick: np.ndarray  # int64; tick of the last spike, -1: none
    solver: Solver


class Noise(NamedTuple):
    """Random numbers by which spikes are rounded; a `key` of 0: none. `place` is that of a block's first crossing."""

    key: np.uint64
    place: int


class Reading(NamedTuple):
    """How the backward pass reads the grid.

    `clocked`: neurons reset at ticks. `by_bin`: inputs are grouped by the ticks of eq. 14 while they may have been sent
    later. `by_sent`: an input came before a crossing if it was sent before it; else if it crossed before it.
    `in_order`: inputs of one tick are in order of their continuous times.
    """

    clocked: bool
    by_bin: bool
    by_sent: bool
    in_order: bool
    want_errors: bool


class Backlog(NamedTuple):
    """Sums of a block's lanes while a sample is walked backward."""

    f: np.ndarray  # F = Σ δ τ/x E²; without the closed form Σ -δ K/x
    h: np.ndarray  # H = Σ δ τ/x E; Σ δ/x E
    step: np.ndarray  # F - H (F): what an input adds to the gradients of its weights
    back: np.ndarray  # what an input's error takes
    chain: np.ndarray  # C of eq. 13, relative to the group
    position: np.ndarray  # int32, (record,); where `by_bin`: the last group wholly before a crossing
    order: np.ndarray  # int32, (record,); crossings so that `position` ascends
    noted: np.ndarray  # uint32, (input,); by number in its tick: 1 + the latest note there, 0: none
    before: np.ndarray  # uint32, (note,); the note before it there, as in `noted`
    lane: np.ndarray  # uint32, (note,)
    squares: np.ndarray  # (note,); its share of F
    linears: np.ndarray  # and of H


class AdamStep(NamedTuple):
    """Constants of one update: the mean over samples, the step without its bias, decays, the root's scale."""

    scale: np.floating
    step: np.floating
    beta_1: np.floating
    beta_2: np.floating
    root_scale: np.floating
    epsilon: np.floating


@njit(cache=True, nogil=True)
def walk_of(groups, i):
    """Return the groups of sample `i`."""
    at = groups.offset[i]
    n_groups = groups.n_groups[i]
    return Walk(
        groups.first[at:], groups.tick[at:], groups.time[at:], groups.decay[at:], n_groups[ALL], n_groups[ACTIVE]
    )


@njit(cache=True, nogil=True)
def records_of(crossings, i, block):
    """Return the crossings of sample `i` in a block."""
    return Records(
        crossings.floats[i, block], crossings.integers[i, block], crossings.sent[i, block], crossings.counters[i, block]
    )
