"""The simulation engine: the only place that knows a CPU from a GPU.

What networks are to the rest of the package stands here: :class:`Networks`, several of one shape side by side, the
first axis of every array being the network. One network is a group of one. :mod:`bats_lab.engine.cpu` and
:mod:`bats_lab.engine.cuda` are the two that do it, with the same spikes and gradients but for rounding;
:func:`get_backend` chooses once, by name. Inside the engine speed decides how spikes are laid out;
:mod:`bats_lab.network` is the readable side of it.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Protocol

import numpy as np

from bats_lab.config import LATENCY_TIMES, Config
from bats_lab.engine.quantization import TRAINED
from bats_lab.errors import DeviceError
from bats_lab.spikes.estimators import STRAIGHT_THROUGH, Estimator
from bats_lab.spikes.trains import Spikes

__all__ = [
    "DEVICES",
    "Backend",
    "Demand",
    "Mode",
    "Networks",
    "Neurons",
    "ReadOut",
    "Shape",
    "State",
    "Sums",
    "TimeConstants",
    "get_backend",
    "noise_key",
]

#: Devices that can be asked for by name.
DEVICES = ("auto", "cuda", "cpu")


# ------------------------------------------------------------------------------------------ what networks are made of


class Shape(NamedTuple):
    """What networks side by side have in common.

    Attributes
    ----------
    sizes : tuple of int
        Neurons of every layer, the input first.
    max_spikes : tuple of int
        Crossings kept per neuron and sample in each layer but the input.
    dtype : str
        ``float32`` or ``float64``.
    """

    sizes: tuple[int, ...]
    max_spikes: tuple[int, ...]
    dtype: str = "float32"


class TimeConstants(NamedTuple):
    """Membrane and synaptic time constant of a layer, in seconds."""

    mem: float
    syn: float

    @property
    def closed(self) -> bool:
        """Whether a crossing has a closed form (eq. 8-9): the membrane's constant is twice the synapse's."""
        return math.isclose(self.mem, 2.0 * self.syn, rel_tol=1e-12)


class Neurons(NamedTuple):
    """What the neurons of one network are like; networks side by side may differ in it.

    Attributes
    ----------
    thresholds : tuple of float
        Potential at which a neuron spikes, and which its reset subtracts, of each layer but the input.
    tau_syn : float or tuple of float
        Synaptic time constant in seconds; a tuple has one for each layer but the input.
    duration : float
        Length of the simulated window in seconds.
    tau_mem : float, tuple of float, or None
        Membrane time constant in seconds, likewise; None: twice the synaptic one, which has the closed form of eq. 8-9.
    """

    thresholds: tuple[float, ...]
    tau_syn: float | tuple[float, ...]
    duration: float
    tau_mem: float | tuple[float, ...] | None = None

    @classmethod
    def of(cls, config: Config) -> Neurons:
        """Return the neurons of a run."""
        return cls(config.thresholds, duration=config.duration, **config.time_constants)

    def time_constants(self, layer: int) -> TimeConstants:
        """Return the time constants of a layer, the first one behind the input being 0."""
        syn = self.tau_syn[layer] if isinstance(self.tau_syn, tuple) else self.tau_syn
        mem = self.tau_mem[layer] if isinstance(self.tau_mem, tuple) else self.tau_mem
        return TimeConstants(2.0 * syn if mem is None else mem, syn)


class Mode(NamedTuple):
    """How one network is run, read out and trained; networks side by side may differ in it, and so may passes.

    Attributes
    ----------
    rule, output_rule : str
        Collision rule of all layers, and of the output layer where that has another.
    estimator : Estimator
        What stands for the derivative of the time grid in the backward pass.
    target_true, target_false : float
        Target spike counts of the true class and of the others (eq. 10).
    beta_1, beta_2, epsilon : float
        Adam's constants.
    weight_bits, fraction_bits : int
        Word length of the weights (32: floats as they are) under rule ``clocked``, and bits of currents and potentials
        below the weight of integer 1: a layer runs with weights of :func:`bats_lab.engine.quantization.rounded`, a
        threshold and, on every tick, states that are rounded to multiples of that fraction, while it is the weights
        themselves that are trained, as if nothing had been rounded (straight-through).
    """

    rule: str = "drop"
    estimator: Estimator = STRAIGHT_THROUGH
    target_true: float = 15.0
    target_false: float = 3.0
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    output_rule: str = ""
    weight_bits: int = TRAINED
    fraction_bits: int = 6

    def of_layer(self, layer: int, n_layers: int) -> Mode:
        """Return the mode in which one of so many layers is run."""
        if not self.output_rule:
            return self
        return self._replace(rule=self.output_rule if layer + 1 == n_layers else self.rule, output_rule="")

    def same_hidden(self, other: Mode) -> bool:
        """Tell whether hidden layers are run alike in both modes."""
        return (self.rule, self.estimator) == (other.rule, other.estimator)


class State(NamedTuple):
    """All that training changes in one network; enough to go on from.

    Attributes
    ----------
    weights, first, second : list of ndarray, (post, pre)
        Weights of each layer but the input, and Adam's first and second moments of their gradients.
    n_updates : int
        Updates made.
    """

    weights: list[np.ndarray]
    first: list[np.ndarray]
    second: list[np.ndarray]
    n_updates: int = 0


# ---------------------------------------------------------------------------------------------- what they leave behind


class ReadOut(NamedTuple):
    r"""What the output spikes of a batch of one network say: the loss is computed here and nowhere else.

    Attributes
    ----------
    errors : ndarray, (sample, class)
        Error of every spike of an output neuron, :math:`y_j - n_j`: minus the derivative of the loss by its count.
    loss : ndarray of float64, (sample,)
        :math:`\tfrac12\\sum_j (y_j - n_j)^2`, eq. 10.
    predicted : ndarray of int64, (sample,)
        Class with the most spikes, the lower index in a tie; -1 where there is no output spike.
    spikes_by : ndarray of int64, (sample, time)
        Spikes of the true class's neuron sent up to each latency time.
    first_time, decision_time : ndarray of float64, (sample,)
        Time of the first output spike, and time from which on the final decision leads, in seconds; NaN without one.
    """

    errors: np.ndarray
    loss: np.ndarray
    predicted: np.ndarray
    spikes_by: np.ndarray
    first_time: np.ndarray
    decision_time: np.ndarray


@dataclass
class Sums:
    """What one network did in a pass over samples, summed over them.

    Attributes
    ----------
    samples : int
    loss : float
        Eq. 10.
    sent : ndarray of int64, (layer,)
        Spikes sent.
    counts : ndarray of int64, (layer, 5)
        Dropped, merged, deferred and lost crossings, and truncated neurons.
    delay : ndarray, (layer,)
        d(t) - t of sent spikes, in seconds.
    fired : list of ndarray of bool, (neuron,)
        For each layer the neurons that sent a spike at all.
    spikes_by : ndarray of int64, (time,)
        Spikes of the true class's neuron up to each of ``LATENCY_TIMES``.
    first_time, decision_time : float
        Times of the first output spike, and from which on the final decision leads, in seconds.
    confusion : ndarray of int64, (class, class + 1)
        Samples by true class and decision; the last column counts those without output spike.
    """

    sent: np.ndarray
    counts: np.ndarray
    delay: np.ndarray
    fired: list[np.ndarray]
    confusion: np.ndarray
    spikes_by: np.ndarray = field(default_factory=lambda: np.zeros(len(LATENCY_TIMES), np.int64))
    samples: int = 0
    loss: float = 0.0
    first_time: float = 0.0
    decision_time: float = 0.0

    @classmethod
    def total(cls, parts: Sequence[Sums]) -> Sums:
        """Add up what one network did in several passes, at least one."""
        added: dict[str, Any] = {
            f.name: sum((getattr(part, f.name) for part in parts[1:]), getattr(parts[0], f.name))
            for f in fields(cls)
            if f.name != "fired"
        }
        fired = [np.logical_or.reduce(layer) for layer in zip(*(part.fired for part in parts), strict=True)]
        return cls(fired=fired, **added)

    @property
    def answered(self) -> int:
        """Samples with output spikes."""
        return self.samples - int(self.confusion[:, -1].sum())


# ----------------------------------------------------------------------------------------------------- the contract


class Networks(Protocol):
    """Networks of one shape, trained and measured side by side; each gives the numbers that it gives alone.

    Where several arrays or values are asked for, there is one for each network, in order.
    """

    shape: Shape
    neurons: Sequence[Neurons]

    def __len__(self) -> int:
        """Return the number of networks."""

    @property
    def weights(self) -> list[np.ndarray]:
        """Weights of each layer but the input, (network, post, pre); copies."""

    def state(self, network: int) -> State:
        """Return a copy of all that training has made of a network."""

    def set_state(self, network: int, state: State) -> None:
        """Set all that training changes in a network."""

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Set the weights of each layer, (network, post, pre); the optimiser's state stays."""

    def load(self, spikes: Sequence[Spikes], labels: np.ndarray | None = None) -> Any:
        """Take samples in: each network's input spikes, in the type of `shape`, and the labels of all.

        Returns
        -------
        object
            What the methods below take as `samples`. What networks share is kept once.
        """

    # -- whole passes

    def train(
        self,
        samples: Any,
        modes: Sequence[Mode],
        orders: Sequence[np.ndarray],
        *,
        batch_size: int,
        learning_rates: Sequence[float],
        noise: Sequence[int] = (),
        errors_from: tuple[Any, Sequence[Mode]] | None = None,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> list[Sums]:
        """Train every network for one epoch by Adam; one whose weights are no longer finite may stop early.

        Parameters
        ----------
        samples : object
            What :meth:`load` returned.
        modes : sequence of Mode
        orders : sequence of ndarray of int, (sample,)
            Order in which each network sees the samples: all of them, or on the CPU a part.
        batch_size : int
            Samples per update; the last batch may be smaller.
        learning_rates : sequence of float
        noise : sequence of int
            Keys of the epoch's random numbers (below 2^64); 0 where spikes are not rounded by them. Empty: all 0.
        errors_from : tuple of object and sequence of Mode, or None
            Samples and modes with which each batch is run before, to take its errors from; None: errors are those of
            the very spikes through which they are sent back. With the same samples, and modes that differ in the output
            layer alone, only that is run twice.
        on_batch : callable or None
            Called now and then with the samples done in the epoch, of all networks, and their number.

        Returns
        -------
        list of Sums
            What each network did before each update, with the very spikes through which errors are sent back.
        """

    def evaluate(self, samples: Any, modes: Sequence[Mode], *, batch_size: int) -> list[Sums]:
        """Run every network on all samples, `batch_size` of them at a time, which changes no result."""

    def inspect(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the norm of the weights, and the number of those that are not finite: (network, layer) each."""

    def release(self) -> None:
        """Give back the room for batches; the networks can be used on."""

    # -- one batch, in steps

    def forward(self, samples: Any, chosen: np.ndarray, modes: Sequence[Mode], *, noise: Sequence[int] = ()) -> None:
        """Run the samples with the indices `chosen`, (batch,), through all layers (eq. 1-9, eq. 14).

        What it leaves is read by the methods below, and holds until the next forward pass. Spikes are sent at eq. 14
        whatever the estimator, unless keys of random numbers (`noise`) are given, by which those of hidden layers are
        rounded.
        """

    def spike_count(self, layer: int) -> np.ndarray:
        """Return the spikes sent in the last batch, (network, sample, neuron)."""

    def crossings(self, layer: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the last batch's crossings and the times they were sent at, in seconds, padded with ``inf``.

        Returns
        -------
        times, sent : ndarray, (network, sample, neuron, max_spikes)
            In `sent` also ``inf`` where a crossing was merged or lost.
        """

    def counts(self, layer: int) -> np.ndarray:
        """Return dropped, merged, deferred, lost crossings, truncated neurons of the batch, (network, sample, 5)."""

    def sent(self, layer: int) -> list[Spikes]:
        """Return the spikes that each network sent in the last batch, in order of time."""

    def read_out(
        self, labels: np.ndarray, modes: Sequence[Mode], latency_times: Sequence[float] = LATENCY_TIMES
    ) -> list[ReadOut]:
        """Read the output spikes of the last batch, given its labels (eq. 10)."""

    def backward(self, errors: np.ndarray) -> None:
        """Add up the weight gradients of the last batch (eq. 11-16).

        Parameters
        ----------
        errors : ndarray, (network, sample, class)
            Error of every spike of each output neuron.
        """

    def gradients(self) -> list[np.ndarray]:
        """Return the gradients added up since the last update, summed over samples: (network, post, pre) a layer."""

    def clear_gradients(self) -> None:
        """Forget the gradients added up so far."""

    def update(self, learning_rates: Sequence[float], modes: Sequence[Mode], *, n_samples: int) -> None:
        """Move all weights by one step of Adam on the mean gradient of `n_samples`, and clear the gradients.

        Notes
        -----
        Kingma and Ba (2015), Algorithm 1.
        """


class Demand(NamedTuple):
    """What networks of one shape ask of a device's memory.

    Attributes
    ----------
    shape : Shape
    batch : int
        Samples simulated together.
    n_samples, n_spikes : int
        Samples for training and testing, and their input spikes.
    n_encodings, n_grids : int
        Different input spike trains, and different time grids, among the networks.
    """

    shape: Shape
    batch: int
    n_samples: int
    n_spikes: int
    n_encodings: int
    n_grids: int


class Backend(Protocol):
    """What runs networks on a device."""

    #: Name of the backend in results.
    name: str

    def networks(
        self, shape: Shape, neurons: Sequence[Neurons], weights: Sequence[np.ndarray], *, threads: int = 0
    ) -> Networks:
        """Build networks from the weights of each layer but the input, (network, post, pre).

        `threads` is the number of threads on the CPU, 0 for one a core; it changes no result.
        """

    def n_fitting(self, n_networks: int, demand: Demand) -> int:
        """Return how many of so many networks fit the device's memory at once.

        Raises
        ------
        DeviceError
            If not even one fits; the message has the numbers.
        """

    def using(self, threads: int = 0) -> AbstractContextManager[None]:
        """Run what is inside with a number of threads of the CPU; 0 for one a core."""

    def device_name(self) -> str:
        """Return the device's name in words."""


# Keys of the random numbers of two batches, or layers, are this far apart: 2^64 over the golden ratio, made odd.
_KEY_STEP = 0x9E3779B97F4A7C15


def noise_key(key: int, step: int, layer: int, n_layers: int) -> int:
    """Return the key of the random numbers of one layer in one batch, given that of the pass; 0 stays 0: no noise.

    Random numbers are hashes of this key and of a crossing's place, so that they are the same on every device and with
    any number of threads.
    """
    return (key + _KEY_STEP * (step * n_layers + layer)) % 2**64 if key else 0


def _cpu() -> Backend:
    backend: Backend = importlib.import_module("bats_lab.engine.cpu.networks").BACKEND
    return backend


def _cuda() -> Backend:
    backend: Backend = importlib.import_module("bats_lab.engine.cuda.networks").backend()
    return backend


def _auto() -> Backend:
    try:
        return _cuda()
    except DeviceError:
        return _cpu()


_BACKENDS: dict[str, Callable[[], Backend]] = {"auto": _auto, "cuda": _cuda, "cpu": _cpu}


def get_backend(device: str = "auto") -> Backend:
    """Return what runs networks on a device.

    Parameters
    ----------
    device : str
        ``cuda`` (a GPU, by CuPy), ``cpu`` (numba), or ``auto``: a GPU if one works, else the CPU. The result's
        `name` and `device_name` say which it is.

    Raises
    ------
    DeviceError
        If there is no device of that name, or it cannot be used; the message says what is missing.
    """
    if device not in _BACKENDS:
        raise DeviceError(f"device is {device!r}; it must be one of {', '.join(DEVICES)}.")
    return _BACKENDS[device]()
