"""Running a network on samples and measuring it."""

from __future__ import annotations

import numpy as np

from bats_lab.engine import Mode
from bats_lab.engine.quantization import TRAINED
from bats_lab.network.feedforward import Network
from bats_lab.runs.records import Pass, measured
from bats_lab.spikes.rules import rule_named
from bats_lab.spikes.trains import Spikes

__all__ = ["evaluate"]


def evaluate(
    network: Network,
    spikes: Spikes,
    labels: np.ndarray,
    *,
    rule: str = "drop",
    batch_size: int = 100,
    target_true: float = 15.0,
    target_false: float = 3.0,
    weight_bits: int = TRAINED,
    fraction_bits: int = 6,
) -> Pass:
    """Run samples through a network and measure it.

    Parameters
    ----------
    network : Network
    spikes : Spikes
        Input spikes, on the grid the network is to run with; it need not be the one it was trained with.
    labels : ndarray of int, (sample,)
        True classes.
    rule : str
        Collision rule.
    batch_size : int
        Samples simulated together; changes no result.
    target_true, target_false : float
        Target spike counts, for loss and confidence.
    weight_bits, fraction_bits : int
        Words of weights and states under rule ``clocked``, as in :class:`bats_lab.config.Config`; 32: floats.

    Raises
    ------
    ValueError
        If there is no sample, labels and samples do not match, `batch_size` is below 1, or the device has no words of
        few bits.
    """
    labels = np.ascontiguousarray(labels, np.int64)
    n_classes = network.sizes[-1]
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1.")
    if len(spikes) == 0 or labels.shape != (len(spikes),):
        raise ValueError(
            f"labels have the shape {labels.shape}; there must be one for each of {len(spikes)} samples, at least 1."
        )
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"labels reach from {labels.min()} to {labels.max()}; they must be 0 to {n_classes - 1}.")
    named = rule_named(rule, spikes.delta_t)
    if weight_bits != TRAINED and not named.clocked:
        raise ValueError(f"rule is {rule} with weight_bits {weight_bits}; words of few bits need rule clocked.")
    mode = Mode(
        named.name,
        target_true=target_true,
        target_false=target_false,
        weight_bits=weight_bits,
        fraction_bits=fraction_bits,
    )
    samples = network.networks.load([network.prepare(spikes)], labels)
    [sums] = network.networks.evaluate(samples, [mode], batch_size=batch_size)
    return measured(sums, target_true, int(spikes.count.sum()))
