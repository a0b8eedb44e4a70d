r"""Networks on a clock as snnTorch has them, trained by surrogate gradients; torch is loaded where it is needed.

A neuron is ``snntorch.Synaptic``, its potential in thresholds, reset by subtraction. Weights are those of the engine:
an input spike is a current that lasts one tick, and decays are the exact ones (profile ``snntorch`` with `decay` and
`gain` ``exponential``), so that one set of weights is one network whatever the tick:

.. math::

    \alpha = e^{-\Delta t/\tau_s}, \quad \beta = e^{-\Delta t/\tau}, \quad
    i \leftarrow \alpha i + \frac{w}{\vartheta\,\Delta t}\,\tau_s (1 - \alpha)\,\tau (1 - \beta), \quad
    v \leftarrow \beta v + i.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from bats_lab.config import Config
from bats_lab.data.datasets import ImageData
from bats_lab.engine import Neurons
from bats_lab.errors import BatsLabError
from bats_lab.network.feedforward import Network
from bats_lab.runs.optimiser import Adam
from bats_lab.runs.training import input_spikes
from bats_lab.spikes.encoding import n_channels
from bats_lab.spikes.grid import first_tick_from
from bats_lab.spikes.trains import Spikes

__all__ = ["OnClock", "evaluate_on_clock", "require_snntorch", "train_on_clock"]

_TESTED_TOGETHER = 100  # samples; currents of all ticks of more of them leave the cache


def require_snntorch() -> None:
    """Raise a BatsLabError if PyTorch or snnTorch is missing."""
    missing = [name for name in ("torch", "snntorch") if find_spec(name) is None]
    if missing:
        raise BatsLabError(
            f"Training by surrogate gradients needs {' and '.join(missing)}: pip install snntorch brings both."
        )


class OnClock(NamedTuple):
    """Accuracy of each network, and its spikes per sample in each layer, (network, layer)."""

    accuracy: np.ndarray
    spike_count: np.ndarray


class _Clocked:
    """Networks of one shape side by side, on one clock; samples may differ between them."""

    def __init__(self, config: Config, weights: Sequence[Any], slope: float) -> None:
        import snntorch

        self.n_steps = first_tick_from(config.duration, config.delta_t)
        self.layers, self.gains = [], []
        neurons = Neurons.of(config)
        for i, threshold in enumerate(config.thresholds):
            mem, syn = neurons.time_constants(i)
            lost_mem, lost_syn = (-math.expm1(-config.delta_t / tau) for tau in (mem, syn))
            self.gains.append(mem * lost_mem * syn * lost_syn / (config.delta_t * threshold))
            spike_grad = snntorch.surrogate.fast_sigmoid(slope=slope)
            clock = {"alpha": 1 - lost_syn, "beta": 1 - lost_mem, "reset_delay": False}
            self.layers.append(snntorch.Synaptic(**clock, spike_grad=spike_grad, reset_mechanism="subtract"))
        self.weights = weights

    def counts(self, spikes: Spikes, samples: np.ndarray) -> list[Any]:
        """Return how often the neurons of each layer fire, (network, sample, neuron), for samples (network, sample)."""
        import torch

        n_networks, n_samples = samples.shape
        post, pre = self.weights[0].shape[1:]
        rows, columns = _events(spikes, samples, self.n_steps)
        shape = (self.n_steps * samples.size, n_networks * pre)
        ones = torch.ones(len(rows))
        inputs = torch.sparse_coo_tensor(np.stack([rows, columns]), ones, shape, check_invariants=False)
        flat = (self.weights[0] * self.gains[0]).transpose(1, 2).reshape(n_networks * pre, post)
        currents = torch.sparse.mm(inputs, flat).reshape(self.n_steps, n_networks, n_samples, post)
        below = [w.transpose(1, 2) * gain for w, gain in zip(self.weights[1:], self.gains[1:], strict=True)]
        states = [(torch.zeros(()), torch.zeros(())) for _ in self.layers]
        counts: list[Any] = [0.0] * len(self.layers)
        for step in range(self.n_steps):
            current = currents[step]
            for i, layer in enumerate(self.layers):
                fired, *states[i] = layer(current, *states[i])
                counts[i] = counts[i] + fired
                if i < len(below):
                    current = fired @ below[i]
        return counts


def _events(spikes: Spikes, samples: np.ndarray, n_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return row (step, network, sample) and column (network, neuron) of each input spike that is in time."""
    chosen = samples.ravel()
    count = spikes.count[chosen]
    place = np.repeat(np.arange(len(chosen)), count)
    event = np.repeat(spikes.start[chosen] - (np.cumsum(count) - count), count) + np.arange(count.sum())
    step = spikes.ticks[event].astype(np.int64) - 1
    kept = step < n_steps
    place, event, step = place[kept], event[kept], step[kept]
    return step * len(chosen) + place, place // samples.shape[1] * spikes.n_neurons + spikes.neuron[event]


def train_on_clock(
    configs: Sequence[Config],
    data: ImageData,
    *,
    slope: float,
    report: Callable[[str], None] = lambda _: None,
) -> list[list[np.ndarray]]:
    """Train networks in snnTorch, side by side, by a surrogate gradient through all ticks.

    Parameters
    ----------
    configs : sequence of Config
        Runs that differ in their seeds only: the same weights at the start, order of samples, loss (eq. 10) and Adam as
        :func:`bats_lab.runs.training.train` has. A neuron fires once a tick at most, and its spikes are not limited.
    data : ImageData
    slope : float
        Of ``snntorch.surrogate.fast_sigmoid``, per threshold.
    report : callable
        Called with a line after each epoch.

    Returns
    -------
    list of list of ndarray, (post, pre)
        Weights of each run's layers.

    Raises
    ------
    BatsLabError
        If snnTorch is missing.
    ValueError
        If the runs differ in more than their seeds, or have no time step.
    """
    require_snntorch()
    import torch

    config = configs[0]
    if any(other.replace(seed=config.seed) != config for other in configs) or not config.delta_t:
        raise ValueError("configs must be runs on a time step that differ in their seeds only.")
    n_inputs = n_channels(data.x_train)
    own = [Network.from_config(c, n_inputs, data.n_classes, device="cpu").weights for c in configs]
    weights = [torch.tensor(np.stack(layer), requires_grad=True) for layer in zip(*own, strict=True)]
    rates = Adam.from_config(config)
    adam = torch.optim.Adam(weights, betas=(config.beta_1, config.beta_2), eps=config.epsilon)
    labels = data.y_train[: config.n_train]
    spikes = input_spikes(data.x_train[: config.n_train], config)
    targets = np.full((len(labels), data.n_classes), config.target_false, np.float32)
    targets[np.arange(len(labels)), labels] = config.target_true
    clocked = _Clocked(config, weights, slope)
    for epoch in range(1, config.epochs + 1):
        orders = np.stack([np.random.default_rng([c.seed, epoch]).permutation(len(labels)) for c in configs])
        for group in adam.param_groups:
            group["lr"] = rates.rate(epoch)
        losses = []
        for begin in range(0, len(labels), config.batch_size):
            batch = orders[:, begin : begin + config.batch_size]
            *_, counts = clocked.counts(spikes, batch)
            loss = 0.5 * ((torch.from_numpy(targets[batch]) - counts) ** 2).sum(dim=2).mean(dim=1)
            adam.zero_grad()
            loss.sum().backward()
            adam.step()
            losses.append(loss.detach().numpy())
        report(f"epoch {epoch} of {config.epochs}: loss {np.mean(losses):.3f}")
    return [[w[i].detach().numpy().copy() for w in weights] for i in range(len(configs))]


def evaluate_on_clock(
    config: Config, weights: Sequence[Sequence[np.ndarray]], samples: np.ndarray | Spikes, labels: np.ndarray
) -> OnClock:
    """Test networks on snnTorch's clock.

    Parameters
    ----------
    config : Config
        A run of their shape, on the time step that they are tested on.
    weights : sequence of sequence of ndarray, (post, pre)
        Weights of each network's layers.
    samples : ndarray of uint8, (sample, row, column), or Spikes
        Images, or events in continuous time.
    labels : ndarray of int, (sample,)
    """
    require_snntorch()
    import torch

    spikes = input_spikes(samples, config)
    stacked = [torch.tensor(np.stack(layer)) for layer in zip(*weights, strict=True)]
    clocked = _Clocked(config, stacked, slope=25)
    right, fired = np.zeros(len(weights)), np.zeros((len(weights), len(clocked.layers)))
    with torch.no_grad():
        for begin in range(0, len(labels), _TESTED_TOGETHER):
            batch = np.arange(begin, min(begin + _TESTED_TOGETHER, len(labels)))
            counts = [c.numpy() for c in clocked.counts(spikes, np.tile(batch, (len(weights), 1)))]
            decided = np.where(counts[-1].any(axis=2), counts[-1].argmax(axis=2), -1)
            right += (decided == labels[batch]).sum(axis=1)
            fired += np.stack([c.sum(axis=(1, 2)) for c in counts], axis=1)
    return OnClock(right / len(labels), fired / len(labels))
