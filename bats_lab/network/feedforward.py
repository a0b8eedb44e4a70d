"""Layers and weights: a network that simulates, backpropagates, is saved and loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bats_lab.config import Config
from bats_lab.engine import Mode, Networks, Neurons, ReadOut, Shape, get_backend
from bats_lab.files import open_arrays, save_arrays
from bats_lab.spikes.estimators import STRAIGHT_THROUGH, Estimator
from bats_lab.spikes.rules import rule_named
from bats_lab.spikes.trains import Spikes

__all__ = ["LayerActivity", "Network"]

# Samples simulated together where nobody says how many: bounds the engine's memory.
_SAMPLES_AT_ONCE = 256


@dataclass
class LayerActivity:
    """What the neurons of one layer did.

    Attributes
    ----------
    times : ndarray, (sample, neuron, spike)
        Continuous times of the crossings that reset the neuron, ascending, in seconds; ``inf`` where there is
        none. For rule ``clocked`` the crossing in the tick before the spike, or the tick where there is none.
    discretized : ndarray, (sample, neuron, spike)
        Time at which each crossing's spike is sent, in seconds; ``inf`` where it is merged or lost.
    spike_count : ndarray of int, (sample, neuron)
        Spikes sent.
    dropped, merged, deferred, lost_spikes : ndarray of int, (sample,)
        Crossings that met the neuron's own unsent spike and were ignored, merged or deferred, and deferred
        ones lost past the window.
    truncated_neurons : ndarray of int, (sample,)
        Neurons that used up `max_spikes` crossings and stopped.
    """

    times: np.ndarray
    discretized: np.ndarray
    spike_count: np.ndarray
    dropped: np.ndarray
    merged: np.ndarray
    deferred: np.ndarray
    lost_spikes: np.ndarray
    truncated_neurons: np.ndarray


class Network:
    """A feed-forward network of CuBa LIF neurons with many spikes each (eq. 1-9).

    Parameters
    ----------
    sizes : sequence of int
        Neurons of every layer, the input first.
    thresholds : sequence of float
        Threshold of each layer but the input.
    max_spikes : sequence of int
        Crossings kept per neuron and sample in each layer but the input. A neuron that has used them up stops
        for that sample, and is counted.
    tau_syn : float or sequence of float
        Synaptic time constant in seconds, of all layers or of each but the input.
    duration : float
        Length of the simulated window in seconds.
    tau_mem : float, sequence of float, or None
        Membrane time constant in seconds, likewise; None: twice the synaptic one. With that ratio a crossing has a
        closed form; any other takes Newton's method, which is slower and just as exact.
    weights : list of ndarray (post, pre), or None
        Weights of each layer but the input; None: zeros.
    dtype : str
        ``float32``, or ``float64`` for checking.
    device : str
        Where it runs: ``auto``, ``cuda`` or ``cpu``.
    threads : int
        Threads used on the CPU; 0: one a core. Changes no result.

    Raises
    ------
    ValueError
        If lengths or shapes do not fit each other, or a number is out of range.

    Examples
    --------
    >>> from bats_lab.spikes.grid import discretize_spikes
    >>> network = Network((2, 1), thresholds=[0.2], max_spikes=[4], tau_syn=0.13, duration=0.2,
    ...                   weights=[np.array([[8.0, 6.0]])], dtype="float64")
    >>> inputs = Spikes.from_padded(np.array([[0.012, 0.031]]))
    >>> [activity] = network.simulate(discretize_spikes(inputs, 0.01), rule="graded")
    >>> activity.discretized[0, 0].round(3)
    array([0.05, 0.07, 0.09, 0.11])
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        thresholds: Sequence[float],
        max_spikes: Sequence[int],
        tau_syn: float | Sequence[float],
        duration: float,
        tau_mem: float | Sequence[float] | None = None,
        weights: Sequence[np.ndarray] | None = None,
        dtype: str = "float32",
        device: str = "auto",
        threads: int = 0,
    ) -> None:
        sizes = tuple(int(n) for n in sizes)
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"sizes is {list(sizes)}; it must have two layers or more, each of one neuron or more.")
        for name, values in (("thresholds", thresholds), ("max_spikes", max_spikes)):
            if len(values) != len(sizes) - 1 or not all(value > 0 for value in values):
                raise ValueError(f"{name} is {list(values)}; it must have {len(sizes) - 1} entries above 0.")
        if not (duration > 0 and np.isfinite(duration)):
            raise ValueError(f"duration is {duration}; it must be a time above 0.")
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtype is {dtype!r}; it must be float32 or float64.")
        self.sizes, self.dtype, self.threads = sizes, dtype, threads
        self.duration = float(duration)
        self.tau_syn = _times("tau_syn", tau_syn, len(sizes) - 1)
        self.tau_mem = None if tau_mem is None else _times("tau_mem", tau_mem, len(sizes) - 1)
        self.thresholds = tuple(float(v) for v in thresholds)
        self.max_spikes = tuple(int(v) for v in max_spikes)
        shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
        given = [np.zeros(shape) for shape in shapes] if weights is None else [np.asarray(w) for w in weights]
        self._check_shapes(given, shapes)
        neurons = Neurons(self.thresholds, self.tau_syn, self.duration, self.tau_mem)
        #: Time constants of each layer but the input.
        self.time_constants = [neurons.time_constants(i) for i in range(len(sizes) - 1)]
        #: What runs it: a group of one network.
        self.networks: Networks = get_backend(device).networks(
            Shape(sizes, self.max_spikes, dtype),
            [neurons],
            [w[None] for w in given],
            threads=threads,
        )
        self._loaded: tuple[Spikes, Any] | None = None

    @staticmethod
    def _check_shapes(weights: Sequence[np.ndarray], shapes: Sequence[tuple[int, int]]) -> None:
        given = [w.shape for w in weights]
        if given != list(shapes):
            raise ValueError(f"weights have the shapes {given}; they must be (post, pre): {list(shapes)}.")

    @classmethod
    def from_config(
        cls, config: Config, n_inputs: int, n_outputs: int, *, device: str = "auto", threads: int = 0
    ) -> Network:
        """Build the network of a run, with weights drawn uniformly from its seed, those of the output shifted."""
        sizes = (n_inputs, *config.hidden, n_outputs)
        rng = np.random.default_rng([config.seed, 0])
        weights = [
            rng.uniform(-config.weight_scale, config.weight_scale, (post, pre))
            for post, pre in zip(sizes[1:], sizes[:-1], strict=True)
        ]
        weights[-1] += config.weight_scale * config.weight_shift_output
        return cls(
            sizes,
            thresholds=config.thresholds,
            max_spikes=config.max_spikes,
            **config.time_constants,
            duration=config.duration,
            weights=weights,
            dtype=config.dtype,
            device=device,
            threads=threads,
        )

    @property
    def n_layers(self) -> int:
        """Layers but the input."""
        return len(self.sizes) - 1

    @property
    def weights(self) -> list[np.ndarray]:
        """Weights (post, pre) of each layer but the input, copies."""
        return [w[0] for w in self.networks.weights]

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Set the weights of all layers, (post, pre) each."""
        given = [np.asarray(w) for w in weights]
        self._check_shapes(given, list(zip(self.sizes[1:], self.sizes[:-1], strict=True)))
        self.networks.set_weights([w[None] for w in given])

    def prepare(self, spikes: Spikes) -> Spikes:
        """Return input spikes as the engine takes them: times in the network's type, checked.

        Raises
        ------
        ValueError
            If they come from another number of neurons than the network has inputs.
        """
        if spikes.n_neurons != self.sizes[0]:
            raise ValueError(f"spikes come from {spikes.n_neurons} neurons; the network has {self.sizes[0]} inputs.")
        return Spikes(
            start=np.ascontiguousarray(spikes.start, np.int64),
            count=np.ascontiguousarray(spikes.count, np.int64),
            neuron=np.ascontiguousarray(spikes.neuron, np.int32),
            times=np.ascontiguousarray(spikes.times, self.dtype),
            ticks=np.ascontiguousarray(spikes.ticks, np.int32),
            n_neurons=spikes.n_neurons,
            delta_t=spikes.delta_t,
        )

    def forward(
        self, spikes: Spikes, samples: np.ndarray, *, rule: str, estimator: Estimator = STRAIGHT_THROUGH
    ) -> None:
        """Run a batch through all layers; what it leaves in `networks` is for `backward` and the read-out.

        Parameters
        ----------
        spikes : Spikes
            Input spikes as :meth:`prepare` returns them.
        samples : ndarray of int64, (batch,)
            Samples to run.
        rule : str
            Collision rule.
        estimator : Estimator
            What a backward pass after this one puts in place of the derivative of the time grid. Spikes are sent at
            eq. 14 here whatever the estimator: ``stochastic`` rounds otherwise in training only.

        Raises
        ------
        ValueError
            If there is no such rule, or it cannot run on the time grid of these spikes.
        """
        mode = Mode(rule=rule_named(rule, spikes.delta_t).name, estimator=estimator)
        if self._loaded is None or self._loaded[0] is not spikes:
            self._loaded = spikes, self.networks.load([spikes])
        self.networks.forward(self._loaded[1], samples, [mode])

    def _parts(self, n_samples: int) -> Iterator[slice]:
        """Split samples into those that are simulated together; one empty part where there is none."""
        for begin in range(0, max(n_samples, 1), _SAMPLES_AT_ONCE):
            yield slice(begin, min(begin + _SAMPLES_AT_ONCE, n_samples))

    def sent_spikes(self, spikes: Spikes, *, rule: str = "drop") -> Iterator[tuple[slice, list[Spikes]]]:
        """Run samples through the network, in parts, and yield the spikes that each layer sent.

        Unlike :meth:`simulate` this needs no array with a place for every spike there might be.

        Parameters
        ----------
        spikes : Spikes
            Input spikes, on the grid of the network.
        rule : str
            Collision rule.

        Yields
        ------
        part : slice
            The samples of this part.
        sent : list of Spikes
            One for each layer but the input; they hold until the next part is asked for.
        """
        spikes = self.prepare(spikes)
        for part in self._parts(len(spikes)) if len(spikes) else ():
            self.forward(spikes, np.arange(part.start, part.stop), rule=rule)
            yield part, [self.networks.sent(layer)[0] for layer in range(self.n_layers)]

    def backward(self, output_errors: np.ndarray) -> None:
        """Add up the weight gradients of the last batch, given the error of each output neuron's spikes."""
        self.networks.backward(np.asarray(output_errors)[None])

    def simulate(self, spikes: Spikes, *, rule: str = "drop") -> list[LayerActivity]:
        """Run samples through the network and return what every neuron did.

        Parameters
        ----------
        spikes : Spikes
            Input spikes; their `delta_t` is the time step of the whole network
            (:func:`bats_lab.spikes.grid.discretize_spikes` puts spikes on a grid).
        rule : str
            Collision rule.

        Returns
        -------
        list of LayerActivity
            One for each layer but the input.
        """
        spikes = self.prepare(spikes)
        parts: list[list[LayerActivity]] = [[] for _ in range(self.n_layers)]
        for part in self._parts(len(spikes)):
            self.forward(spikes, np.arange(part.start, part.stop), rule=rule)
            for layer, done in enumerate(parts):
                [times], [discretized] = self.networks.crossings(layer)
                [spike_count], [counts] = self.networks.spike_count(layer), self.networks.counts(layer)
                done.append(LayerActivity(times, discretized, spike_count.copy(), *counts.T))
        return [LayerActivity(*(np.concatenate(x) for x in zip(*map(_values, done), strict=True))) for done in parts]

    def read_out(
        self, spikes: Spikes, labels: np.ndarray, *, rule: str, target_true: float, target_false: float
    ) -> ReadOut:
        """Run samples through the network and read its output: loss, errors, decisions (eq. 10).

        Parameters
        ----------
        spikes : Spikes
            Input spikes, on the grid of the network.
        labels : ndarray of int, (sample,)
            True classes.
        rule : str
            Collision rule.
        target_true, target_false : float
            Target spike counts of the true class and of the others.
        """
        spikes = self.prepare(spikes)
        self.forward(spikes, np.arange(len(spikes)), rule=rule)
        [read] = self.networks.read_out(labels, [Mode(target_true=target_true, target_false=target_false)])
        return read

    def gradients(
        self,
        spikes: Spikes,
        output_errors: np.ndarray,
        *,
        rule: str = "drop",
        estimator: Estimator = STRAIGHT_THROUGH,
    ) -> list[np.ndarray]:
        """Return the gradient of the loss for every weight, the mean over samples (eq. 11-16).

        Parameters
        ----------
        spikes : Spikes
            Input spikes, on the grid of the network.
        output_errors : ndarray, (sample, output neuron)
            Error of every spike of each output neuron, :math:`y_j - n_j` for the loss of eq. 10.
        rule : str
            Collision rule.
        estimator : Estimator
            What stands for the derivative of the time grid.

        Returns
        -------
        list of ndarray, (post, pre)
        """
        spikes = self.prepare(spikes)
        output_errors = np.asarray(output_errors)
        if output_errors.shape != (len(spikes), self.sizes[-1]):
            raise ValueError(
                f"output_errors has the shape {output_errors.shape}; it must be (sample, output neuron): "
                f"{(len(spikes), self.sizes[-1])}."
            )
        self.networks.clear_gradients()
        self.forward(spikes, np.arange(len(spikes)), rule=rule, estimator=estimator)
        self.backward(output_errors)
        gradients = [gradient[0] / max(len(spikes), 1) for gradient in self.networks.gradients()]
        self.networks.clear_gradients()
        return gradients

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to an ``.npz`` file, whole or not at all."""
        settings = {
            "sizes": self.sizes,
            "thresholds": self.thresholds,
            "max_spikes": self.max_spikes,
            "tau_syn": self.tau_syn,
            "duration": self.duration,
            "dtype": self.dtype,
        }
        if self.tau_mem is not None:
            settings["tau_mem"] = self.tau_mem
        weights = {f"weights_{i}": w for i, w in enumerate(self.weights)}
        save_arrays(path, settings=np.array(json.dumps(settings)), **weights)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str = "auto", threads: int = 0) -> Network:
        """Read a network that :meth:`save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is no such network.
        """
        try:
            with open_arrays(path) as data:
                settings = json.loads(str(data["settings"]))
                weights = [data[f"weights_{i}"] for i in range(len(settings["sizes"]) - 1)]
        except FileNotFoundError:
            raise
        except Exception as error:  # the libraries raise all kinds of errors on a damaged file
            raise ValueError(f"{os.fspath(path)} is not a saved network ({error}).") from error
        return cls(settings.pop("sizes"), **settings, weights=weights, device=device, threads=threads)


def _times(name: str, value: float | Sequence[float], n_layers: int) -> float | tuple[float, ...]:
    """Return time constants, one for all layers or one for each, checked."""
    values = np.asarray(value, float)
    if values.ndim > 1 or (values.ndim and len(values) != n_layers) or not (np.isfinite(values) & (values > 0)).all():
        raise ValueError(f"{name} is {value}; it must be a time above 0, or one for each of the {n_layers} layers.")
    return tuple(values.tolist()) if values.ndim else float(values)


def _values(activity: LayerActivity) -> list[np.ndarray]:
    return list(vars(activity).values())
