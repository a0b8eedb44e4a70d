"""Adam and its learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bats_lab.config import Config

__all__ = ["Adam"]


@dataclass(frozen=True)
class Adam:
    """Adam with a learning rate that falls in steps.

    Attributes
    ----------
    learning_rate : float
        Step size in the first epochs.
    decay : float
        Factor on the learning rate every `interval` epochs.
    interval : int
        Epochs between two decays.
    minimum : float
        The learning rate does not fall below this (but starts at `learning_rate` whatever it is).
    beta_1, beta_2, epsilon : float
        Adam's constants.

    Notes
    -----
    Kingma and Ba (2015), Algorithm 1. The update, and the moments, are the engine's (`Networks.update`).

    Examples
    --------
    >>> adam = Adam(learning_rate=0.0005, decay=0.5, interval=10, minimum=1e-4)
    >>> [adam.rate(epoch) for epoch in (1, 10, 11, 21, 31)]
    [0.0005, 0.0005, 0.00025, 0.000125, 0.0001]
    """

    learning_rate: float
    decay: float = 1.0
    interval: int = 10
    minimum: float = 0.0
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    @classmethod
    def from_config(cls, config: Config) -> Adam:
        """Take the optimiser's parameters from a run's configuration."""
        return cls(
            learning_rate=config.learning_rate,
            decay=config.learning_rate_decay,
            interval=config.learning_rate_interval,
            minimum=config.learning_rate_min,
            beta_1=config.beta_1,
            beta_2=config.beta_2,
            epsilon=config.epsilon,
        )

    def rate(self, epoch: int) -> float:
        """Return the learning rate in an epoch, counted from 1."""
        rate = self.learning_rate * self.decay ** ((epoch - 1) // self.interval)
        return max(rate, min(self.minimum, self.learning_rate))
