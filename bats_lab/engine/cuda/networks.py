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
costs 0.2 µs of issue and 0.1 µs of memory. Measured are 10 µs for one network alone, where latency counts (a step is a
dozen dependent launches in one CUDA graph), and 3.2 µs among 40, where telling which crossing a spike came before
costs most of the gradient's instructions: ``docs/gpu.md`` has the figures.

The device is behind one small class, :class:`bats_lab.engine.cuda.device.CupyDevice`: allocate, copy, launch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bats_lab.config import LATENCY_TIMES
from bats_lab.engine import Demand, Mode, Neurons, ReadOut, Shape, State, Sums
from bats_lab.engine.cpu.threads import using
from bats_lab.engine.cuda.device import NONE, CupyDevice, Device
from bats_lab.engine.cuda.layers import ADAM, N_COUNTERS, STORED, Layer, Reading
from bats_lab.engine.cuda.samples import Inputs, Samples, n_ranges
from bats_lab.engine.quantization import TRAINED
from bats_lab.errors import DeviceError
from bats_lab.spikes.trains import Spikes

__all__ = ["CudaBackend", "CudaNetworks", "backend"]

# Updates after which the host waits for those before them, so that it does not run far ahead of the device.
_UPDATES_AHEAD = 200
# Share of the free memory that is planned with.
_USABLE = 0.9

_int = np.int32


class CudaNetworks:
    """Networks side by side on a GPU, in one set of launches; see :class:`bats_lab.engine.Networks`."""

    def __init__(
        self,
        device: Device,
        shape: Shape,
        neurons: Sequence[Neurons],
        weights: Sequence[np.ndarray],
        *,
        threads: int = 0,
    ) -> None:
        self.device, self.shape, self.neurons, self._threads = device, shape, list(neurons), threads
        self._dtype = np.dtype(shape.dtype)
        last = len(weights) - 1
        self._layers = [
            Layer(
                device,
                np.asarray(w),
                thresholds=[own.thresholds[i] for own in self.neurons],
                durations=[own.duration for own in self.neurons],
                constants=[own.time_constants(i) for own in self.neurons],
                tau_next=[own.time_constants(min(i + 1, last)).mem for own in self.neurons],
                max_spikes=kept,
                dtype=self._dtype,
            )
            for i, (w, kept) in enumerate(zip(weights, shape.max_spikes, strict=True))
        ]
        n = len(self.neurons)
        self._n_updates = [0] * n
        self._room = 0
        # What a step launches, as recorded, and the samples whose arrays it reads.
        self._plans: dict[tuple[Any, ...], tuple[Callable[[], None], Any]] = {}
        self._latency_times = device.upload(np.array(LATENCY_TIMES))
        self._step = device.zeros(1, np.int32)
        self._targets, self._counted_targets = (device.empty((n, 2), np.float64) for _ in range(2))
        self._adam = device.empty((n, 3), np.float64)
        self._sums = device.zeros((n, 3 + len(self._layers)), np.float64)
        self._noise = device.zeros(n, np.uint64)
        self._order: Any = None
        self._rates: Any = None
        # The last batch that was run in steps: its size, its time steps, the inputs of each layer, and whether its
        # backward pass is not in the gradients yet.
        self._n, self._delta_t = 0, [0.0] * n
        self._inputs: list[Inputs] = []
        self._pending = False

    def __len__(self) -> int:
        return len(self.neurons)

    # -- weights and the optimiser's state

    def _dense(self, array: Any) -> np.ndarray:
        """Fetch (network, pre, post) as (network, post, pre)."""
        return np.ascontiguousarray(self.device.download(array).transpose(0, 2, 1))

    @property
    def weights(self) -> list[np.ndarray]:
        """Weights of each layer, (network, post, pre); copies."""
        return [self._dense(layer.weights) for layer in self._layers]

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Set the weights of each layer, (network, post, pre)."""
        for layer, dense in zip(self._layers, weights, strict=True):
            self.device.fill(layer.weights, np.asarray(dense, self._dtype).transpose(0, 2, 1))

    def state(self, network: int) -> State:
        """Return a copy of all that training has made of a network."""
        one = slice(network, network + 1)
        weights = [self._dense(layer.weights[one])[0] for layer in self._layers]
        if not self._n_updates[network]:
            return State(weights, [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights])
        first, second = ([self._dense(layer.need_moments()[i][one])[0] for layer in self._layers] for i in range(2))
        return State(weights, first, second, self._n_updates[network])

    def set_state(self, network: int, state: State) -> None:
        """Set all that training changes in a network."""
        self._n_updates[network] = state.n_updates
        for i, layer in enumerate(self._layers):
            arrays = [(layer.weights, state.weights[i])]
            if state.n_updates:
                arrays += zip(layer.need_moments(), (state.first[i], state.second[i]), strict=True)
            for array, dense in arrays:
                self.device.fill(array[network], np.asarray(dense, self._dtype).T)

    def inspect(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the norm of the weights, and the number of those that are not finite: (network, layer) each."""
        norms, broken = zip(*(layer.inspect() for layer in self._layers), strict=True)
        return np.stack(norms, axis=1), np.stack(broken, axis=1)

    def release(self) -> None:
        """Give back the room for batches; the networks can be used on."""
        self._plans.clear()
        self._room = self._n = 0
        for layer in self._layers:
            layer.release()

    def load(self, spikes: Sequence[Spikes], labels: np.ndarray | None = None) -> Samples:
        """Copy samples to the device: the input spikes of each network, and the labels of all."""
        first = self._layers[0]
        with using(self._threads):
            return Samples(self.device, spikes, labels, tau=first.tau, duration=first.duration, dtype=self._dtype)

    def _make_room(self, samples: Samples, batch: int) -> None:
        if samples.make_room(batch):
            self._plans.clear()
        if batch <= self._room:
            return
        self._room = batch
        self._plans.clear()
        n_rows = len(self) * batch
        self._delays = self.device.empty((len(self._layers), n_rows), np.float64)
        for layer, delays in zip(self._layers, self._delays, strict=True):
            layer.make_room(batch, delays)
        for layer in self._layers[:-1]:
            layer.need_errors()
        # What is read of the runs themselves, and of those whose spikes are counted for the errors.
        self._reading, self._counted = (Reading(self._layers[-1], batch, len(LATENCY_TIMES)) for _ in range(2))

    def _run_layers(
        self,
        inputs: Inputs,
        batch: int,
        *,
        slot: int = 0,
        read_other: Callable[[], None] | None = None,
        **options: Any,
    ) -> list[Inputs]:
        """Launch the forward pass of all layers; return the inputs of each.

        With `read_other` the output layer is run in the other slot before, for it to read.
        """
        taken = [inputs]
        for i, layer in enumerate(self._layers):
            if read_other is not None and layer is self._layers[-1]:
                layer.slot = 1 - slot
                layer.forward(taken[-1], batch, depth=(i, len(self._layers)), counted=False)
                read_other()
            layer.slot = slot
            # Nothing receives the output's spikes, so that they need no rounding by random numbers.
            noisy = options if i + 1 < len(self._layers) else {k: v for k, v in options.items() if k == "counted"}
            layer.forward(taken[-1], batch, depth=(i, len(self._layers)), **noisy)
            taken.append(layer.outputs())
        return taken[:-1]

    def _send_back(self, batch: int, output_errors: Any) -> None:
        """Launch the backward pass of all layers, given (row, class)."""
        last = self._layers[-1]
        last.backward(batch, output_errors)
        for above, below in zip(self._layers[:0:-1], self._layers[-2::-1], strict=True):
            above.send_errors(below, batch)
            below.backward(batch)

    # -- one batch of all networks, in steps

    def forward(
        self, samples: Samples, chosen: np.ndarray, modes: Sequence[Mode], *, noise: Sequence[int] = ()
    ) -> None:
        """Run the samples with the indices `chosen` through all layers."""
        self._collect()
        self._n, self._delta_t = len(chosen), samples.delta_t
        for i, layer in enumerate(self._layers):
            layer.configure(samples.delta_t, self._of_layer(modes, i))
        self._make_room(samples, max(self._n, 1))
        if self._n:
            order = self.device.upload(np.tile(np.asarray(chosen, np.int32), (len(self), 1)))
            step = self.device.zeros(1, np.int32)
            keys = {"noise": self.device.upload(np.array(noise, np.uint64)), "step": step} if noise else {}
            self._inputs = self._run_layers(samples.select(step, order, self._n, self._n), self._n, **keys)

    def _of_layer(self, modes: Sequence[Mode], layer: int) -> list[Mode]:
        for mode in modes:
            if mode.weight_bits != TRAINED:
                raise ValueError(
                    f"weight_bits is {mode.weight_bits}; words of few bits run on the CPU only (--device cpu)."
                )
        return [mode.of_layer(layer, len(self._layers)) for mode in modes]

    def _rows(self, array: Any) -> np.ndarray:
        """Fetch what the last batch left, (network, sample, ...)."""
        rows = self.device.download(array[: len(self) * self._n])
        return rows.reshape(len(self), self._n, *rows.shape[1:])

    def spike_count(self, layer: int) -> np.ndarray:
        """Return the spikes sent in the last batch, (network, sample, neuron)."""
        return self._rows(self._layers[layer].sent)

    def counts(self, layer: int) -> np.ndarray:
        """Return dropped, merged, deferred, lost crossings, truncated neurons of the batch, (network, sample, 5)."""
        return self._rows(self._layers[layer].counters).astype(np.int64)

    def crossings(self, layer: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the last batch's crossings and when they were sent, (network, sample, neuron, max_spikes)."""
        own = self._layers[layer]
        shape = len(self), self._n, own.n_post, own.max_spikes
        times, sent = np.full(shape, np.inf, self._dtype), np.full(shape, np.inf, self._dtype)
        n_records = self._rows(own.n_records)
        # Neurons have room for all crossings there might be; only what there is takes the way to the host.
        most = int(n_records.max(initial=0))
        time, tick = (
            self._rows(own.room[name].reshape(-1, own.max_spikes, own.n_post)[:, :most]).transpose(0, 1, 3, 2)
            for name in ("time", "tick")
        )
        exists = np.arange(most) < n_records[..., None]
        steps = np.array(self._delta_t)[:, None, None, None]
        moved = np.where(steps > 0, (tick * steps).astype(self._dtype), time)
        np.copyto(times[..., :most], time, where=exists)
        np.copyto(sent[..., :most], moved, where=exists & (tick >= 0))
        return times, sent

    def sent(self, layer: int) -> list[Spikes]:
        """Return the spikes that each network sent in the last batch."""
        own = self._layers[layer]
        count = self._rows(own.n_sent).astype(np.int64)
        width = int(count.max(initial=0))
        neuron, times, ticks = (
            self._rows(own.room[name].reshape(-1, own.capacity)[:, :width])
            for name in ("neuron", "sent_time", "sent_tick")
        )
        start = np.arange(self._n, dtype=np.int64) * width
        return [
            Spikes(start, count[i], neuron[i].ravel(), times[i].ravel(), ticks[i].ravel(), own.n_post, delta_t)
            for i, delta_t in enumerate(self._delta_t)
        ]

    def read_out(
        self, labels: np.ndarray, modes: Sequence[Mode], latency_times: Sequence[float] = LATENCY_TIMES
    ) -> list[ReadOut]:
        """Read the output spikes of the last batch, given its labels (eq. 10)."""
        upload, n = self.device.upload, self._n
        reading = Reading(self._layers[-1], max(n, 1), len(latency_times))
        if n:
            reading.read(
                self._layers[-1],
                n,
                upload(np.tile(np.asarray(labels, np.int32), len(self))),
                upload(_targets(modes)),
                upload(np.asarray(latency_times, np.float64)),
            )
        arrays = [getattr(reading, name) for name in ReadOut._fields]
        errors, loss, predicted, spikes_by, first_time, decision_time = map(self._rows, arrays)
        whole = errors, loss, predicted.astype(np.int64), spikes_by.astype(np.int64), first_time, decision_time
        return [ReadOut(*(array[i] for array in whole)) for i in range(len(self))]

    def backward(self, errors: np.ndarray) -> None:
        """Add up the weight gradients of the last batch, given errors (network, sample, class)."""
        self._collect()
        if self._n:
            rows = np.asarray(errors, self._dtype).reshape(len(self) * self._n, -1)
            self._send_back(self._n, self.device.upload(rows))
            self._pending = True

    def _collect(self) -> None:
        """Add the last backward pass to the gradients."""
        if not self._pending:
            return
        self._pending = False
        for layer, inputs in zip(self._layers, self._inputs, strict=True):
            layer.need_gradient()
            layer.update(inputs, self._n, mode=STORED)

    def gradients(self) -> list[np.ndarray]:
        """Return the gradients added up since the last update, (network, post, pre) a layer."""
        self._collect()
        return [self._dense(layer.need_gradient()) for layer in self._layers]

    def clear_gradients(self) -> None:
        """Forget the gradients added up so far."""
        self._pending = False
        for layer in self._layers:
            self.device.clear(layer.need_gradient())

    def update(self, learning_rates: Sequence[float], modes: Sequence[Mode], *, n_samples: int) -> None:
        """Move all weights by one step of Adam, and clear the gradients."""
        self._collect()
        upload = self.device.upload
        step, adam = upload(np.zeros(1, np.int32)), upload(_adam(modes))
        rates = upload(_rates(learning_rates, modes, self._n_updates, 1))
        for layer in self._layers:
            layer.need_gradient()
            layer.update(
                None, n_samples, n_samples=n_samples, mode=STORED | ADAM, step=step, adam=adam, rates=rates, n_updates=1
            )
        self._n_updates = [n + 1 for n in self._n_updates]

    # -- whole passes

    def _do_step(self, samples: Samples, batch: int, n_updates: int, counted: Samples | None, *, shared: bool) -> None:
        """Launch a step: forward, read-out, and with `n_updates` above 0 backward and update.

        Where errors come from `counted` samples, hidden layers may be `shared`.
        """
        order, noise = (self._order, {"noise": self._noise, "step": self._step}) if n_updates else (NONE, {})
        reading, last, errors = self._reading, self._layers[-1], self._reading.errors

        def read_counted() -> None:
            assert counted is not None
            self._counted.read(last, batch, counted.label, self._counted_targets, self._latency_times)

        if counted is not None:  # errors come from spikes of their own
            errors = self._counted.errors
            if not shared:
                inputs = counted.select(self._step, order, batch, samples.n_samples)
                self._run_layers(inputs, batch, slot=1, counted=False)
                read_counted()
        inputs = samples.select(self._step, order, batch, samples.n_samples)
        taken = self._run_layers(inputs, batch, read_other=read_counted if shared else None, **noise)
        reading.read(last, batch, samples.label, self._targets, self._latency_times)
        if n_updates:
            self._send_back(batch, errors)
            for layer, inputs in zip(self._layers, taken, strict=True):
                layer.update(
                    inputs, batch, n_samples=samples.n_samples, mode=ADAM, step=self._step, adam=self._adam,
                    rates=self._rates, n_updates=n_updates,
                )  # fmt: skip
        n_sums = len(self) * (3 + len(self._layers))
        last.launch(
            "finish_step", n_sums, samples.label, reading.loss, reading.first_time, reading.decision_time,
            self._delays, _int(len(self)), _int(batch), _int(self._delays.shape[1]), _int(len(self._layers)),
            self._sums, self._step,
        )  # fmt: skip

    def _run(
        self,
        samples: Samples,
        modes: Sequence[Mode],
        batch: int,
        *,
        training: bool,
        errors_from: tuple[Samples, Sequence[Mode]] | None = None,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> list[Sums]:
        """Go once through the samples and return what each network did."""
        device, n_steps = self.device, math.ceil(samples.n_samples / batch)
        counted, counting = errors_from or (None, modes)
        device.fill(self._targets, _targets(modes))
        device.fill(self._counted_targets, _targets(counting))
        for array in (self._step, self._sums, self._reading.spikes_by_total, self._reading.confusion):
            device.clear(array)
        shared = counted is samples and all(map(Mode.same_hidden, modes, counting))
        for i, layer in enumerate(self._layers):
            layer.configure(samples.delta_t, self._of_layer(modes, i))
            if counted is not None:
                layer.configure(counted.delta_t, self._of_layer(counting, i), slot=1)
            device.clear(layer.fired)
            device.clear(layer.totals)
            if training:
                layer.need_moments()
        key = id(samples), id(counted), batch, training, shared
        if key not in self._plans:
            n_updates = n_steps if training else 0
            step = device.record(lambda: self._do_step(samples, batch, n_updates, counted, shared=shared))
            self._plans[key] = step, (samples, counted)
        step, wait = self._plans[key][0], device.mark()
        for i in range(n_steps):
            step()
            if training and i % _UPDATES_AHEAD == 0:
                wait()
                wait = device.mark()
                if on_batch:
                    n = len(self)
                    on_batch(n * min((i + 1) * batch, samples.n_samples), n * samples.n_samples)
        return self._sums_of(samples.n_samples)

    def _sums_of(self, n_samples: int) -> list[Sums]:
        """Fetch the sums of a pass."""
        download = self.device.download
        sums = download(self._sums)
        spikes_by = download(self._reading.spikes_by_total).astype(np.int64)
        confusion = download(self._reading.confusion).astype(np.int64)
        totals = np.stack([download(layer.totals) for layer in self._layers], axis=1).astype(np.int64)
        fired = [download(layer.fired).astype(bool) for layer in self._layers]
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
            for i in range(len(self))
        ]

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
        batch = min(batch_size, samples.n_samples)
        self._make_room(samples, batch)
        if errors_from is not None and errors_from[0].make_room(batch):
            self._plans.clear()
        n_steps = math.ceil(samples.n_samples / batch)
        order = np.stack(orders).astype(np.int32)
        if self._order is None or self._order.shape != order.shape:
            self._order = self.device.empty(order.shape, np.int32)
            self._rates = self.device.empty((len(self), n_steps, 2), np.float64)
            self._plans.clear()
        self.device.fill(self._order, order)
        self.device.fill(self._noise, np.array(list(noise) or [0] * len(self), np.uint64))
        self.device.fill(self._adam, _adam(modes))
        self.device.fill(self._rates, _rates(learning_rates, modes, self._n_updates, n_steps))
        sums = self._run(samples, modes, batch, training=True, errors_from=errors_from, on_batch=on_batch)
        self._n_updates = [n + n_steps for n in self._n_updates]
        return sums

    def evaluate(self, samples: Samples, modes: Sequence[Mode], *, batch_size: int) -> list[Sums]:
        """Run every network on all samples."""
        batch = min(batch_size, samples.n_samples)
        self._make_room(samples, batch)
        return self._run(samples, modes, batch, training=False)


def _targets(modes: Sequence[Mode]) -> np.ndarray:
    """Return each network's target spike counts, (network, 2)."""
    return np.array([[mode.target_true, mode.target_false] for mode in modes], np.float64)


def _adam(modes: Sequence[Mode]) -> np.ndarray:
    """Return each network's constants of Adam, (network, 3)."""
    return np.array([[mode.beta_1, mode.beta_2, mode.epsilon] for mode in modes], np.float64)


def _rates(
    learning_rates: Sequence[float], modes: Sequence[Mode], n_updates: Sequence[int], n_steps: int
) -> np.ndarray:
    """Return step size and scale of the root of each network's next updates, (network, update, 2)."""
    out = np.empty((len(modes), n_steps, 2))
    for i, (rate, mode) in enumerate(zip(learning_rates, modes, strict=True)):
        update = n_updates[i] + 1.0 + np.arange(n_steps)
        out[i, :, 0] = rate / (1.0 - mode.beta_1**update)
        out[i, :, 1] = 1.0 / np.sqrt(1.0 - mode.beta_2**update)
    return out


class CudaBackend:
    """What runs networks on a GPU; see :class:`bats_lab.engine.Backend`.

    Parameters
    ----------
    device : Device
    """

    name = "cuda"

    def __init__(self, device: Device) -> None:
        self.device = device

    def networks(
        self, shape: Shape, neurons: Sequence[Neurons], weights: Sequence[np.ndarray], *, threads: int = 0
    ) -> CudaNetworks:
        """Build networks from the weights of each layer, (network, post, pre)."""
        return CudaNetworks(self.device, shape, neurons, weights, threads=threads)

    def n_fitting(self, n_networks: int, demand: Demand) -> int:
        """Return how many of so many networks fit the device's memory at once.

        Raises
        ------
        DeviceError
            If not even one fits; the message has the numbers.
        """
        (sizes, max_spikes, dtype), batch, n_samples, n_spikes, n_encodings, n_grids = demand
        itemsize = np.dtype(dtype).itemsize
        layers = zip(sizes[:-1], sizes[1:], max_spikes, strict=True)
        each = sum(Layer.bytes_needed(*layer, batch, itemsize) for layer in layers) + n_samples * 8
        encoding = n_spikes * (8 + itemsize) + n_samples * (8 + 4 * (n_ranges(sizes[0]) + 1))
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

    # Threads of the CPU prepare input spikes.
    using = staticmethod(using)

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
