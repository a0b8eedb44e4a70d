"""The loss on output spike counts (eq. 10)."""

from __future__ import annotations

import numpy as np

__all__ = ["spike_count_loss", "target_counts"]


def target_counts(labels: np.ndarray, n_classes: int, *, target_true: float, target_false: float) -> np.ndarray:
    """Return the target spike count of every output neuron.

    Parameters
    ----------
    labels : ndarray of int, (sample,)
        True classes.
    n_classes : int
        Output neurons.
    target_true, target_false : float
        Target of the true class's neuron and of the others.

    Returns
    -------
    ndarray, (sample, class)

    Examples
    --------
    >>> target_counts(np.array([1]), 3, target_true=15, target_false=3)
    array([[ 3., 15.,  3.]])
    """
    targets = np.full((len(labels), n_classes), float(target_false))
    targets[np.arange(len(labels)), labels] = target_true
    return targets


def spike_count_loss(
    spike_count: np.ndarray, labels: np.ndarray, *, target_true: float, target_false: float
) -> tuple[np.ndarray, np.ndarray]:
    r"""Return each sample's loss and the error given to each output spike.

    .. math:: \mathcal{L} = \tfrac{1}{2}\sum_j (y_j - n_j)^2

    Parameters
    ----------
    spike_count : ndarray, (sample, class)
        Spikes sent by each output neuron.
    labels : ndarray of int, (sample,)
        True classes.
    target_true, target_false : float
        Target spike counts.

    Returns
    -------
    loss : ndarray, (sample,)
    errors : ndarray, (sample, class)
        :math:`y_j - n_j`, the error of every spike of output neuron `j` (below eq. 13).

    Notes
    -----
    The engine computes the same while it reads a batch (``read_out``); a test holds the two together.

    Examples
    --------
    >>> spike_count_loss(np.array([[3, 13]]), np.array([1]), target_true=15, target_false=3)
    (array([2.]), array([[0., 2.]]))
    """
    targets = target_counts(labels, spike_count.shape[1], target_true=target_true, target_false=target_false)
    errors = targets - spike_count
    return 0.5 * (errors**2).sum(axis=1), errors
