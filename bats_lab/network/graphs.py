r"""Networks of any neurons: populations and what connects them, in units that no clock appears in.

Every neuron obeys, with an input current :math:`i` in 1/s,

.. math:: \dot v = (v_{leak} - v)/\tau_{mem} + i + d, \qquad \dot i = -i/\tau_{syn},

where an input spike of weight :math:`w` adds :math:`k w` to :math:`i` (`kick`, 1/s) and :math:`d` is the constant
`drive` (1/s), which passes through the synapse as spikes do. Without a synapse (``tau_syn = 0``) the spike
is a current of the length :attr:`Graph.pulse` that adds :math:`k w` (1) to the potential in all.
An infinite `tau_mem` is a neuron without leak, an infinite `threshold` one that never fires.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bats_lab.network.feedforward import Network

__all__ = ["INPUT", "RESETS", "Connection", "Graph", "Population", "graph_of_network"]

#: Name of the inputs of a graph as the source of a connection.
INPUT = "input"
#: What a spike does to the potential: to a value, or down by the threshold.
RESETS = ("zero", "subtract")

_FIELDS = ("tau_mem", "tau_syn", "v_leak", "threshold", "v_reset", "kick", "drive")


@dataclass(frozen=True)
class Population:
    """Neurons that share an equation; each has constants of its own.

    Attributes
    ----------
    name : str
        Its name in the graph.
    size : int
        Neurons.
    tau_mem, tau_syn : ndarray, (neuron,)
        Time constants in seconds; ``inf`` for no leak, 0 for no synapse.
    threshold, v_reset, v_leak : ndarray, (neuron,)
        Potentials. `v_reset` is where reset ``zero`` puts the potential.
    kick : ndarray, (neuron,)
        What an input spike of weight 1 adds: to the current (1/s), or to the potential where there is no synapse.
    drive : ndarray, (neuron,)
        Constant input current in 1/s.
    reset : str
        ``zero`` or ``subtract``.
    max_spikes : int
        Spikes after which a neuron stops for the sample (1: time to first spike); 0: as many as come.
    """

    name: str
    size: int
    tau_mem: Any
    tau_syn: Any = 0.0
    threshold: Any = 1.0
    kick: Any = 1.0
    drive: Any = 0.0
    v_leak: Any = 0.0
    v_reset: Any = 0.0
    reset: str = "zero"
    max_spikes: int = 0

    def __post_init__(self) -> None:
        for name in _FIELDS:
            value = np.asarray(getattr(self, name), np.float64).ravel()
            if value.size not in (1, self.size):
                raise ValueError(f"{name} of {self.name!r} has {value.size} entries; it must have 1 or {self.size}.")
            object.__setattr__(self, name, np.broadcast_to(value, self.size).copy())
        if not (self.tau_mem > 0).all() or not (self.tau_syn >= 0).all() or not np.isfinite(self.tau_syn).all():
            raise ValueError(f"time constants of {self.name!r} must be above 0 (tau_syn: 0 for no synapse).")
        if 0 < np.count_nonzero(self.tau_syn) < self.size:
            raise ValueError(f"tau_syn of {self.name!r} is 0 for some neurons only; it must be 0 for all or none.")
        if self.reset not in RESETS:
            raise ValueError(f"reset of {self.name!r} is {self.reset!r}; it must be one of {', '.join(RESETS)}.")
        if self.max_spikes < 0:
            raise ValueError(f"max_spikes of {self.name!r} is {self.max_spikes}; it must be 0 or more.")
        if (self.threshold <= (self.v_reset if self.reset == "zero" else 0)).any():
            raise ValueError(f"threshold of {self.name!r} must lie above what a spike resets the potential to.")

    @property
    def has_synapse(self) -> bool:
        """Whether the input passes through a synapse with a time constant."""
        return bool(self.tau_syn.any())

    @property
    def fires(self) -> bool:
        """Whether its neurons have a threshold."""
        return bool(np.isfinite(self.threshold).all())


@dataclass(frozen=True)
class Connection:
    """Weights from the spikes of one population, or the inputs, to another.

    Attributes
    ----------
    source, target : str
        Names of the populations; the source may be :data:`INPUT`.
    weights : ndarray or scipy.sparse matrix, (post, pre)
        Weights.
    delay : ndarray, (pre,)
        How long the spikes of each neuron take, in seconds.
    """

    source: str
    target: str
    weights: Any
    delay: Any = 0.0

    def __post_init__(self) -> None:
        delay = np.broadcast_to(np.asarray(self.delay, np.float64), self.weights.shape[1])
        if not ((delay >= 0) & np.isfinite(delay)).all():
            raise ValueError(f"delay from {self.source!r} to {self.target!r} must hold times of at least 0.")
        object.__setattr__(self, "delay", delay)


@dataclass(frozen=True)
class Graph:
    """A network of populations.

    Attributes
    ----------
    n_inputs : int
        Input neurons.
    populations : list of Population
        In the order of a feed-forward pass. A connection to the same population or an earlier one is recurrent.
    connections : list of Connection
        What connects them.
    pulse : float
        How long the current of an input spike lasts in neurons without a synapse, in seconds.
    outputs : tuple of str
        Populations that are read out; by default the last.

    Examples
    --------
    >>> neuron = Population("lif", 1, tau_mem=0.0025, threshold=0.1, kick=0.04)
    >>> graph = Graph(1, [neuron], [Connection(INPUT, "lif", np.array([[1.0]]))], pulse=1e-4)
    >>> graph["lif"].has_synapse, graph.outputs
    (False, ('lif',))
    """

    n_inputs: int
    populations: Sequence[Population]
    connections: Sequence[Connection]
    pulse: float
    outputs: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        names = [p.name for p in self.populations]
        if not names or len({*names, INPUT}) <= len(names):
            raise ValueError(f"populations are named {names}; each needs a name of its own, other than {INPUT!r}.")
        if not 0 < self.pulse < np.inf:
            raise ValueError(f"pulse is {self.pulse}; it must be a time above 0.")
        object.__setattr__(self, "outputs", tuple(self.outputs) or (names[-1],))
        for c in self.connections:
            for name in (c.target, *([] if c.source == INPUT else [c.source]), *self.outputs):
                if name not in names:
                    raise ValueError(f"there is no population {name!r} among {names}.")
            if c.source != INPUT and not self[c.source].fires:
                raise ValueError(f"population {c.source!r} never fires, so nothing can follow it; {c.target!r} does.")
            shape = (self[c.target].size, self.size_of(c.source))
            if c.weights.shape != shape:
                raise ValueError(
                    f"weights from {c.source!r} to {c.target!r} are {c.weights.shape}; they must be {shape}."
                )

    def __getitem__(self, name: str) -> Population:
        found = next((p for p in self.populations if p.name == name), None)
        if found is None:
            raise ValueError(
                f"there is no population {name!r}; there are {', '.join(p.name for p in self.populations)}."
            )
        return found

    def size_of(self, source: str) -> int:
        """Return how many neurons a source of spikes has."""
        return self.n_inputs if source == INPUT else self[source].size

    def incoming(self, name: str) -> list[Connection]:
        """Return the connections to a population."""
        return [c for c in self.connections if c.target == name]

    def is_recurrent(self, connection: Connection) -> bool:
        """Return whether a connection leads back, to its own population or an earlier one."""
        names = [INPUT, *(p.name for p in self.populations)]
        return names.index(connection.source) >= names.index(connection.target)


def graph_of_network(network: Network) -> Graph:
    """Return a trained network as a graph (eq. 1-3): its layers are populations ``layer1``, ``layer2`` and so on.

    Examples
    --------
    >>> network = Network((2, 1), thresholds=[0.2], max_spikes=[4], tau_syn=0.13, duration=0.2)
    >>> [population] = graph_of_network(network).populations
    >>> population.name, population.reset, population.tau_mem
    ('layer1', 'subtract', array([0.26]))
    """
    names = [INPUT, *(f"layer{i + 1}" for i in range(network.n_layers))]
    populations = [
        Population(name, size, *constants, threshold, reset="subtract", max_spikes=most)
        for name, size, constants, threshold, most in zip(
            names[1:], network.sizes[1:], network.time_constants, network.thresholds, network.max_spikes, strict=True
        )
    ]
    connections = [
        Connection(source, target, np.asarray(w, np.float64))
        for source, target, w in zip(names, names[1:], network.weights, strict=False)
    ]
    return Graph(network.sizes[0], populations, connections, pulse=network.time_constants[0].syn / 1000)
