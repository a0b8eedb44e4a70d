"""A gradient held against a difference quotient, in a network small enough to look at one weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bats_lab.network.feedforward import Network
from bats_lab.network.sensitivity import SpikeTimeSweep, spike_time_gradient, sweep_weight
from bats_lab.spikes.grid import discretize_spikes
from bats_lab.spikes.trains import Spikes

__all__ = ["GradientCheck", "Slope"]


@dataclass(frozen=True)
class Slope:
    """How the time of a spike changes with a weight, at one value of the weight.

    Attributes
    ----------
    weight : float
        The value.
    time : float
        Time of the spike there, in seconds; NaN where there is none.
    gradient : float
        Derivative by backpropagation, in seconds per unit of weight.
    step : float
        How far the weight is moved to either side for the difference quotient.
    around : (float, float)
        Time of the spike at `weight` ∓ `step`, in seconds.
    """

    weight: float
    time: float
    gradient: float
    step: float
    around: tuple[float, float]

    @property
    def quotient(self) -> float:
        """The central difference quotient, in seconds per unit of weight."""
        return (self.around[1] - self.around[0]) / (2 * self.step)


class GradientCheck:
    """A network of three inputs, two hidden neurons and an output neuron, small enough to look at one weight.

    Parameters
    ----------
    delta_t : float
        Time step in seconds; 0 is continuous time.
    rule : str
        Collision rule.
    layer, post, pre : int
        The weight that is looked at: which of `network.weights`, and its place there.

    Attributes
    ----------
    network : Network
    spikes : Spikes
        What the network sees: one spike of each input, at 5, 20 and 40 ms, on the time grid.
    """

    #: Spikes that the output neuron should send.
    target = 10.0

    def __init__(
        self, *, delta_t: float = 0.0, rule: str = "graded", layer: int = 0, post: int = 0, pre: int = 0
    ) -> None:
        self.delta_t, self.rule = delta_t, rule
        self.layer, self.post, self.pre = layer, post, pre
        self.network = Network(
            (3, 2, 1),
            thresholds=[0.2, 0.3],
            max_spikes=[60, 60],
            tau_syn=0.13,
            duration=0.2,
            weights=[np.array([[5.0, 4.0, 3.0], [3.0, 2.0, 6.0]]), np.array([[8.0, 6.0]])],
            dtype="float64",
            device="cpu",
            threads=1,
        )
        self.spikes = discretize_spikes(Spikes.from_padded(np.array([[0.005, 0.02, 0.04]])), delta_t)

    @property
    def weight(self) -> float:
        """The weight that is looked at, as the network has it."""
        return float(self.network.weights[self.layer][self.post, self.pre])

    def sweep(self, values: Any) -> SpikeTimeSweep:
        """Give the weight some values and watch the output neuron."""
        connection = {"layer": self.layer, "post": self.post, "pre": self.pre}
        return sweep_weight(self.network, self.spikes, values, **connection, rule=self.rule)

    def slope(self, weight: float, step: float) -> Slope:
        """Return the derivative of the output's first spike time where the weight has a value, and the quotient."""
        moved = [w.copy() for w in self.network.weights]
        before = moved[self.layer][self.post, self.pre]
        moved[self.layer][self.post, self.pre] = weight
        self.network.set_weights(moved)
        gradient = spike_time_gradient(self.network, self.spikes, rule=self.rule)[self.layer][self.post, self.pre]
        moved[self.layer][self.post, self.pre] = before
        self.network.set_weights(moved)
        left, middle, right = self.sweep([weight - step, weight, weight + step]).time
        return Slope(weight, float(middle), float(gradient), step, (float(left), float(right)))
