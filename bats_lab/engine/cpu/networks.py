"""Networks on the CPU: what hands arrays to the kernels, and shares the threads among the networks."""

from __future__ import annotations

import math
import platform
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np

from bats_lab.config import LATENCY_TIMES
from bats_lab.engine import Demand, Mode, Neurons, ReadOut, Shape, State, Sums, noise_key
from bats_lab.engine.cpu import backward, forward, order, read_out
from bats_lab.engine.cpu.layers import NARROW, Layer, Room
from bats_lab.engine.cpu.records import (
    LANE,
    N_COUNTERS,
    TICK,
    TIME,
    AdamStep,
    Events,
    Physics,
    Reading,
)
from bats_lab.engine.cpu.threads import using
from bats_lab.engine.quantization import TRAINED, scale_of, top_level
from bats_lab.spikes.grid import first_tick_from, ticks_within
from bats_lab.spikes.rules import RULES, rule_code
from bats_lab.spikes.trains import Spikes

__all__ = ["BACKEND", "CpuBackend", "CpuNetworks", "using"]

# Updates between two looks at whether all weights are finite, and between two choices of the scales of words.
_CHECK_EVERY = 200
_SCALE_EVERY = 50


class Samples(NamedTuple):
    """Input spikes of each network, and the labels of all."""

    spikes: list[Spikes]
    labels: np.ndarray | None

    def events(self, network: int) -> Events:
        """Return a network's input spikes as kernels take them."""
        spikes = self.spikes[network]
        return Events(spikes.start, spikes.count, spikes.neuron, spikes.times, spikes.ticks)


class CpuNetworks:
    """Networks side by side on the CPU, each on its share of the threads; see :class:`bats_lab.engine.Networks`."""

    def __init__(
        self, shape: Shape, neurons: Sequence[Neurons], weights: Sequence[np.ndarray], *, threads: int = 0
    ) -> None:
        self.shape, self.neurons, self._threads = shape, list(neurons), threads
        self._dtype = np.dtype(shape.dtype)
        layers = zip(weights, shape.max_spikes, strict=True)
        self._layers = [Layer(np.asarray(w), kept, self._dtype) for w, kept in layers]
        self._rooms = [[Room(layer) for layer in self._layers] for _ in self.neurons]
        self._n_updates = [0] * len(self.neurons)
        self._scales = np.zeros((len(self.neurons), len(self._layers)))  # of weights in words
        # The backward pass of a wide layer wants the inputs of a tick in order of time; a narrow one gains too little.
        self._fully = [*(layer.width > NARROW for layer in self._layers[1:]), False]
        # Two neighbouring float32 marks are looked at as one word: both negative means neither lane may cross.
        self._mask = np.uint64(0x8000000080000000 if self._dtype == np.float32 else 0x8000000000000000)

    def __len__(self) -> int:
        return len(self.neurons)

    # -- weights and the optimiser's state

    @property
    def weights(self) -> list[np.ndarray]:
        """Weights of each layer, (network, post, pre); copies."""
        return [layer.to_dense(layer.weights) for layer in self._layers]

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Set the weights of each layer, (network, post, pre)."""
        for layer, dense in zip(self._layers, weights, strict=True):
            layer.weights[:] = layer.to_blocks(np.asarray(dense))

    def state(self, network: int) -> State:
        """Return a copy of all that training has made of a network."""
        one = slice(network, network + 1)
        weights = [layer.to_dense(layer.weights[one])[0] for layer in self._layers]
        if not self._n_updates[network]:
            return State(weights, [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights])
        first, second = ([layer.to_dense(layer.moments[i][one])[0] for layer in self._layers] for i in range(2))
        return State(weights, first, second, self._n_updates[network])

    def set_state(self, network: int, state: State) -> None:
        """Set all that training changes in a network."""
        self._n_updates[network] = state.n_updates
        for i, layer in enumerate(self._layers):
            layer.weights[network] = layer.to_blocks(state.weights[i][None])[0]
            if state.n_updates:
                for moment, dense in zip(layer.moments, (state.first[i], state.second[i]), strict=True):
                    moment[network] = layer.to_blocks(dense[None])[0]

    def inspect(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the norm of the weights, and the number of those that are not finite: (network, layer) each."""
        weights = [w.astype(np.float64) for w in self.weights]
        # NumPy's own norm is a product of BLAS, whose last bits depend on the number of its threads.
        norms = [[np.sqrt(np.square(w[i]).sum()) for w in weights] for i in range(len(self))]
        broken = [[np.count_nonzero(~np.isfinite(w[i])) for w in weights] for i in range(len(self))]
        return np.array(norms), np.array(broken)

    def release(self) -> None:
        """Give back the room for batches: here it is small, and stays."""

    def load(self, spikes: Sequence[Spikes], labels: np.ndarray | None = None) -> Samples:
        """Take samples in: each network's input spikes, and the labels of all."""
        return Samples(
            [_in_order(s) for s in spikes], None if labels is None else np.ascontiguousarray(labels, np.int64)
        )

    # -- one network, one batch

    def _round(self, network: int, mode: Mode, *, choose_scale: bool) -> None:
        """Round a network's weights to the words in which it is run; the weights themselves stay.

        Raises
        ------
        ValueError
            If a membrane is not twice as slow as its synapses: there are no states of few bits for others.
        """
        if mode.weight_bits == TRAINED:
            return
        if not all(self.neurons[network].time_constants(i).closed for i in range(len(self._layers))):
            raise ValueError(
                f"weight_bits is {mode.weight_bits}; in words of few bits a membrane must be twice as slow as its "
                f"synapses."
            )
        for i, layer in enumerate(self._layers):
            own = layer.weights[network]
            if choose_scale:
                self._scales[network, i] = scale_of(own, mode.weight_bits) if np.isfinite(own).all() else 1.0
            top = top_level(mode.weight_bits)
            backward.round_weights(own.reshape(-1), self._scales[network, i], top, layer.rounded[network].reshape(-1))

    def _weights_run(self, network: int, layer: Layer, mode: Mode) -> np.ndarray:
        return (layer.weights if mode.weight_bits == TRAINED else layer.rounded)[network]

    def _forward(
        self,
        network: int,
        samples: Samples,
        chosen: np.ndarray,
        mode: Mode,
        key: int = 0,
        step: int = 0,
        *,
        first: int = 0,
    ) -> None:
        """Run a batch through the layers from `first` on; with `key`, hidden layers' spikes are rounded by chance."""
        neurons, delta_t = self.neurons[network], samples.spikes[network].delta_t
        events, n = samples.events(network), len(chosen)
        real = self._dtype.type
        if first:
            events, chosen = self._rooms[network][first - 1].outputs(), np.arange(n)
        for i in range(first, len(self._layers)):
            layer, room, own = self._layers[i], self._rooms[network][i], mode.of_layer(i, len(self._layers))
            room.make(max(n, 1), int(events.size[chosen].sum()))
            room.n, room.mode, room.inputs = n, own, events
            unit = self._scales[network, i] / 2**own.fraction_bits if own.weight_bits != TRAINED else 0.0
            if room.ran != (own.rule, delta_t, unit):  # else it is that of the batch before
                room.ran = own.rule, delta_t, unit
                constants = neurons.time_constants(i)
                c = neurons.thresholds[i] / constants.mem
                room.physics = Physics(
                    c=real(max(1, round(c / unit)) * unit if unit else c),
                    tau=real(constants.mem),
                    tau_syn=real(constants.syn),
                    closed=constants.closed,
                    delta_t=float(delta_t),
                    duration=neurons.duration,
                    rule=rule_code(own.rule),
                    last_tick=ticks_within(neurons.duration, delta_t),
                    limit_tick=first_tick_from(neurons.duration, delta_t) if delta_t else 0,
                    max_spikes=layer.max_spikes,
                    unit=real(unit),
                )
            # Nothing receives the output's spikes, so that they need no rounding by random numbers.
            noise = noise_key(key, step, i, len(self._layers)) if layer is not self._layers[-1] else 0
            n_chunks = min(n, max(1, math.ceil(4 * numba.get_num_threads() / layer.n_blocks)))
            forward.forward(
                chosen, events, self._weights_run(network, layer, own), layer.n_post, room.physics, np.uint64(noise),
                n_chunks, self._mask, self._fully[i], room.groups, room.crossings, room.sent,
            )  # fmt: skip
            events, chosen = room.outputs(), np.arange(n)

    def _read(self, network: int, labels: np.ndarray, mode: Mode, latency_times: Sequence[float]) -> ReadOut:
        layer, room = self._layers[-1], self._rooms[network][-1]
        n = room.n
        out = ReadOut(
            errors=np.empty((n, layer.n_post), layer.dtype),
            loss=np.empty(n),
            predicted=np.empty(n, np.int64),
            spikes_by=np.empty((n, len(latency_times)), np.int64),
            first_time=np.empty(n),
            decision_time=np.empty(n),
        )
        # With the lanes that are no neurons: without them a batch of one sample has another memory layout than others,
        # for which the kernel would be compiled once more.
        counts = room.crossings.sent[:n].reshape(n, layer.n_blocks * layer.width)
        read_out.read_out(
            counts, room.sent, room.physics.delta_t, np.ascontiguousarray(labels, np.int64), float(mode.target_true),
            float(mode.target_false), np.asarray(latency_times, np.float64), out,
        )  # fmt: skip
        return out

    def _backward(self, network: int, output_errors: np.ndarray) -> None:
        """Send the errors of output neurons' spikes back through all layers of the last batch."""
        rooms = self._rooms[network]
        last = rooms[-1]
        backward.spread_errors(
            output_errors, last.crossings.integers, last.crossings.n_records, last.layer.width, last.errors
        )
        for room, below in zip(rooms[::-1], [*rooms[-2::-1], None], strict=True):
            self._backward_layer(network, room, below)

    def _backward_layer(self, network: int, room: Room, below: Room | None) -> None:
        """Add up a layer's weight gradient and hand errors to the layer below (eq. 11-16)."""
        layer, n, delta_t, estimator = room.layer, room.n, room.physics.delta_t, room.mode.estimator
        inputs, groups = room.inputs, room.groups
        # Where spikes may leave later than on the tick of eq. 14, that tick still says which came before which.
        by_bin = below is not None and RULES[room.mode.rule].delays and delta_t > 0 and not estimator.by_sent
        source = None
        if below is not None:
            source = below.sent.source
            if by_bin:
                sent, groups = order.regroup(below.of_batch(), room.physics)
                source = sent.source
                inputs = inputs._replace(
                    neuron=sent.neuron.reshape(-1), times=sent.times.reshape(-1), ticks=sent.ticks.reshape(-1)
                )
            if room.input_errors.shape[1] < len(inputs.neuron):
                room.input_errors = np.empty((layer.n_blocks, len(inputs.neuron)), layer.dtype)
        in_order = below is None or by_bin or layer.width > NARROW
        reading = Reading(RULES[room.mode.rule].clocked, by_bin, estimator.by_sent, in_order, below is not None)
        backward.backward(
            self._weights_run(network, layer, room.mode), layer.gradient[network], inputs, groups, room.crossings,
            room.errors[:n], room.physics, reading, room.input_errors,
        )  # fmt: skip
        if below is not None:
            width = estimator.slope_width if delta_t else 0.0
            q = math.exp(-2.0 * math.pi * width) if width else 0.0
            backward.return_errors(
                room.input_errors, source, below.sent.n_sent[:n], below.errors, below.crossings.floats, delta_t, q
            )

    def _update(self, network: int, learning_rate: float, mode: Mode, n_samples: int) -> None:
        """Make one step of Adam on the mean gradient of `n_samples`."""
        self._n_updates[network] += 1
        real, n = self._dtype.type, self._n_updates[network]
        with np.errstate(over="ignore"):  # an absurd learning rate becomes inf, and the weights are found not finite
            step = real(learning_rate / (1.0 - mode.beta_1**n))
        adam = AdamStep(
            scale=real(1.0 / n_samples),
            step=step,
            beta_1=real(mode.beta_1),
            beta_2=real(mode.beta_2),
            root_scale=real(1.0 / math.sqrt(1.0 - mode.beta_2**n)),
            epsilon=real(mode.epsilon),
        )
        for layer in self._layers:
            gradient, (first, second) = layer.gradient[network], layer.moments
            backward.update(
                layer.weights[network].reshape(-1), gradient.reshape(len(gradient), -1), first[network].reshape(-1),
                second[network].reshape(-1), adam,
            )  # fmt: skip

    # -- one batch of all networks, in steps

    def forward(
        self, samples: Samples, chosen: np.ndarray, modes: Sequence[Mode], *, noise: Sequence[int] = ()
    ) -> None:
        """Run the samples with the indices `chosen` through all layers."""
        chosen, keys = np.ascontiguousarray(chosen, np.int64), list(noise) or [0] * len(self)
        with using(self._threads):
            for i, (mode, key) in enumerate(zip(modes, keys, strict=True)):
                self._round(i, mode, choose_scale=True)
                self._forward(i, samples, chosen, mode, key)

    def spike_count(self, layer: int) -> np.ndarray:
        """Return the spikes sent in the last batch, (network, sample, neuron)."""
        return np.stack([rooms[layer].spike_count() for rooms in self._rooms])

    def crossings(self, layer: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the last batch's crossings and when they were sent, (network, sample, neuron, max_spikes)."""
        pairs = [self._padded(rooms[layer]) for rooms in self._rooms]
        times, sent = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
        return times, sent

    @staticmethod
    def _padded(room: Room) -> tuple[np.ndarray, np.ndarray]:
        layer, crossings, delta_t = room.layer, room.crossings, room.physics.delta_t
        shape = (room.n, layer.n_blocks * layer.width, layer.max_spikes)
        times, sent = np.full(shape, np.inf, layer.dtype), np.full(shape, np.inf, layer.dtype)
        for i, block in np.ndindex(room.n, layer.n_blocks):
            k = int(crossings.n_records[i, block])
            lane, tick = crossings.integers[i, block, :k, LANE], crossings.integers[i, block, :k, TICK]
            by_lane = np.argsort(lane, kind="stable")
            rank = np.arange(k) - np.searchsorted(lane[by_lane], lane[by_lane], side="left")
            neuron = block * layer.width + lane[by_lane]
            time = crossings.floats[i, block, :k, TIME]
            times[i, neuron, rank] = time[by_lane]
            moved = tick * delta_t if delta_t else time
            sent[i, neuron, rank] = np.where(tick >= 0, moved, np.inf)[by_lane]
        return times[:, : layer.n_post], sent[:, : layer.n_post]

    def counts(self, layer: int) -> np.ndarray:
        """Return dropped, merged, deferred, lost crossings, truncated neurons of the batch, (network, sample, 5)."""
        return np.stack([rooms[layer].crossings.counters[: rooms[layer].n].sum(axis=1) for rooms in self._rooms])

    def sent(self, layer: int) -> list[Spikes]:
        """Return the spikes that each network sent in the last batch: views, until its next forward pass."""
        rooms = [rooms[layer] for rooms in self._rooms]
        n_post = self._layers[layer].n_post
        return [Spikes(*room.outputs(), n_neurons=n_post, delta_t=room.physics.delta_t) for room in rooms]

    def read_out(
        self, labels: np.ndarray, modes: Sequence[Mode], latency_times: Sequence[float] = LATENCY_TIMES
    ) -> list[ReadOut]:
        """Read the output spikes of the last batch, given its labels (eq. 10)."""
        return [self._read(i, labels, mode, latency_times) for i, mode in enumerate(modes)]

    def backward(self, errors: np.ndarray) -> None:
        """Add up the weight gradients of the last batch, given errors (network, sample, class)."""
        with using(self._threads):
            for i, own in enumerate(errors):
                self._backward(i, np.ascontiguousarray(own, self._dtype))

    def gradients(self) -> list[np.ndarray]:
        """Return the gradients added up since the last update, (network, post, pre) a layer."""
        return [layer.to_dense(layer.gradient.sum(axis=1)) for layer in self._layers]

    def clear_gradients(self) -> None:
        """Forget the gradients added up so far."""
        for layer in self._layers:
            layer.gradient[:] = 0

    def update(self, learning_rates: Sequence[float], modes: Sequence[Mode], *, n_samples: int) -> None:
        """Move all weights by one step of Adam, and clear the gradients."""
        with using(self._threads):
            for i, (rate, mode) in enumerate(zip(learning_rates, modes, strict=True)):
                self._update(i, rate, mode, n_samples)

    # -- whole passes

    def _each(self, work: Callable[[int, threading.Event], Sums]) -> list[Sums]:
        """Do some work for every network; the event it is given is set when all is to be given up."""
        n, stop = len(self), threading.Event()
        with using(self._threads):
            threads = numba.get_num_threads()
            # Of numba's threading layers, workqueue must not be entered by two threads at once.
            at_once = 1 if numba.threading_layer() == "workqueue" else min(n, threads)
            if at_once == 1:
                return [work(i, stop) for i in range(n)]

        def run(network: int) -> Sums:
            with using(threads // at_once):
                return work(network, stop)

        with ThreadPoolExecutor(at_once) as pool:
            try:
                return list(pool.map(run, range(n)))
            except BaseException:
                stop.set()
                raise

    def _no_sums(self) -> Sums:
        """Begin to sum."""
        n, n_classes = len(self._layers), self.shape.sizes[-1]
        return Sums(
            sent=np.zeros(n, np.int64),
            counts=np.zeros((n, N_COUNTERS), np.int64),
            delay=np.zeros(n),
            fired=[np.zeros(layer.n_post, bool) for layer in self._layers],
            confusion=np.zeros((n_classes, n_classes + 1), np.int64),
        )

    def _add(self, network: int, sums: Sums, labels: np.ndarray, mode: Mode) -> ReadOut:
        """Read the last batch out, and add to the sums what it did."""
        read = self._read(network, labels, mode, LATENCY_TIMES)
        sums.samples += len(labels)
        sums.loss += float(read.loss.sum())
        for i, room in enumerate(self._rooms[network]):
            n_sent, delay = forward.add_up(
                room.crossings, room.sent, room.n, room.physics.delta_t, sums.fired[i], sums.counts[i]
            )
            sums.sent[i] += n_sent
            sums.delay[i] += delay
        sums.spikes_by += read.spikes_by.sum(axis=0)
        sums.first_time = _add_in_order(sums.first_time, read.first_time)
        sums.decision_time = _add_in_order(sums.decision_time, read.decision_time)
        np.add.at(sums.confusion, (labels, read.predicted), 1)  # -1, no output spike, is the last column
        return read

    def train(
        self,
        samples: Samples,
        modes: Sequence[Mode],
        orders: Sequence[np.ndarray],
        *,
        batch_size: int,
        learning_rates: Sequence[float],
        noise: Sequence[int] = (),
        errors_from: tuple[Samples, Sequence[Mode]] | None = None,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> list[Sums]:
        """Train every network for one epoch by Adam."""
        assert samples.labels is not None, "samples for training have labels"
        for layer in self._layers:  # here, since threads would each make their own
            _ = layer.gradient, layer.moments, layer.rounded if any(m.weight_bits != TRAINED for m in modes) else None
        labels, keys = samples.labels, list(noise) or [0] * len(self)
        done = [0] * len(self)
        total = sum(len(order) for order in orders)
        lock = threading.Lock()

        def epoch(network: int, stop: threading.Event) -> Sums:
            mode, order, key, sums = modes[network], orders[network], keys[network], self._no_sums()
            first, counting, noise = 0, mode, 0  # where errors come from: from which layer on it differs, and how
            if errors_from is not None:
                counted, counting = errors_from[0], errors_from[1][network]
                if counted is samples and mode.same_hidden(counting):
                    first, noise = len(self._layers) - 1, key
            for step, begin in enumerate(range(0, len(order), batch_size)):
                chosen = order[begin : begin + batch_size]
                self._round(network, mode, choose_scale=step % _SCALE_EVERY == 0)
                errors = None
                if errors_from is not None:
                    self._forward(network, counted, chosen, counting, noise, step)
                    errors = self._read(network, labels[chosen], counting, LATENCY_TIMES).errors
                self._forward(network, samples, chosen, mode, key, step, first=first)
                read = self._add(network, sums, labels[chosen], mode)
                self._backward(network, read.errors if errors is None else errors)
                self._update(network, learning_rates[network], mode, len(chosen))
                if step % _CHECK_EVERY == 0:
                    if stop.is_set() or not all(np.isfinite(layer.weights[network]).all() for layer in self._layers):
                        break
                    with lock:
                        done[network] = begin + len(chosen)
                        if on_batch:
                            on_batch(sum(done), total)
            return sums

        return self._each(epoch)

    def evaluate(self, samples: Samples, modes: Sequence[Mode], *, batch_size: int) -> list[Sums]:
        """Run every network on all samples."""
        assert samples.labels is not None, "samples for evaluation have labels"
        labels = samples.labels
        for layer in self._layers:
            _ = layer.rounded if any(m.weight_bits != TRAINED for m in modes) else None

        def measure(network: int, stop: threading.Event) -> Sums:
            sums = self._no_sums()
            self._round(network, modes[network], choose_scale=True)
            for begin in range(0, len(labels), batch_size):
                if stop.is_set():
                    break
                chosen = np.arange(begin, min(begin + batch_size, len(labels)))
                self._forward(network, samples, chosen, modes[network])
                self._add(network, sums, labels[chosen], modes[network])
            return sums

        return self._each(measure)


def _in_order(spikes: Spikes) -> Spikes:
    """Put those sent on one tick in order of their continuous times, which what is encoded is already."""
    if not spikes.delta_t or not len(spikes.ticks):
        return spikes
    ticks, times = spikes.ticks, spikes.times
    earlier = (ticks[1:] == ticks[:-1]) & (times[1:] < times[:-1])
    begins = spikes.start[(spikes.start > 0) & (spikes.count > 0)]
    earlier[begins - 1] = False  # of two samples
    if not earlier.any():
        return spikes
    order = np.arange(len(ticks))
    for begin, count in zip(spikes.start, spikes.count, strict=True):
        part = slice(begin, begin + count)
        order[part] = begin + np.lexsort((times[part], ticks[part]))
    return replace(spikes, neuron=spikes.neuron[order], times=times[order], ticks=ticks[order])


def _add_in_order(total: float, values: np.ndarray) -> float:
    """Add all values but NaN one after the other, so that no sum depends on the size of batches."""
    return float(np.cumsum([total, *values[~np.isnan(values)]])[-1])


class CpuBackend:
    """What runs networks on the CPU; see :class:`bats_lab.engine.Backend`."""

    name = "cpu"

    def networks(
        self, shape: Shape, neurons: Sequence[Neurons], weights: Sequence[np.ndarray], *, threads: int = 0
    ) -> CpuNetworks:
        """Build networks from the weights of each layer, (network, post, pre)."""
        return CpuNetworks(shape, neurons, weights, threads=threads)

    def n_fitting(self, n_networks: int, demand: Demand) -> int:
        """Return how many networks fit the memory at once: all, as networks are small beside main memory."""
        return n_networks

    using = staticmethod(using)

    def device_name(self) -> str:
        """Return the processor's name in words."""
        try:
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
        except OSError:
            pass
        return platform.processor() or platform.machine()


BACKEND = CpuBackend()
