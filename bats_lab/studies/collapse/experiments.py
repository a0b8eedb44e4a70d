"""Experiments that tell one suspect from the other: the straight-through estimator, or rule ``drop``.

Each needs a network or two and some images; :mod:`bats_lab.studies.collapse.study` says on which they are done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from bats_lab.config import Config
from bats_lab.data.datasets import ImageData
from bats_lab.errors import DivergedError
from bats_lab.network.feedforward import Network
from bats_lab.runs.training import evaluate, input_spikes, train, train_group
from bats_lab.spikes.estimators import STRAIGHT_THROUGH, Estimator
from bats_lab.spikes.grid import discretize_spikes
from bats_lab.spikes.rules import rule_on
from bats_lab.spikes.trains import Spikes

__all__ = ["COLLAPSE_RULES", "agreement", "cross_test", "drive_response", "gradient_quality", "train_crossed"]

#: The rules that are compared; ``clocked`` has another neuron, not only another way to send.
COLLAPSE_RULES = ("drop", "merge", "defer", "graded")


# ------------------------------------------------------------------------------------------------- a single neuron


def drive_response(
    delta_t: Sequence[float],
    *,
    rules: Sequence[str] = COLLAPSE_RULES,
    config: Config | None = None,
    n_patterns: int = 20,
    n_drives: int = 120,
    seed: int = 0,
) -> xr.Dataset:
    """Drive one output neuron ever harder and count what it sends.

    Parameters
    ----------
    delta_t : sequence of float
        Time steps in seconds, above 0.
    rules : sequence of str
        Collision rules.
    config : Config or None
        Takes the output neuron's threshold, spike limit, time constant and window from it; None: those of MNIST.
    n_patterns : int
        Input patterns: the first is steady, an input in the middle of every millisecond; the others have as many at
        random times, drawn with `seed`.
    n_drives : int
        Weights that the inputs are given, all the same in a pattern.

    Returns
    -------
    xarray.Dataset
        `spike_count` (rule, delta_t, pattern, drive), and `continuous_count` (pattern, drive): what the neuron sends
        for the same input in continuous time.

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    for name, value in (("n_patterns", n_patterns), ("n_drives", n_drives)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1.")
    if not len(delta_t) or min(delta_t) <= 0:
        raise ValueError(f"delta_t is {list(delta_t)}; it must name time steps above 0.")
    config = Config(dataset="mnist") if config is None else config
    n_inputs = round(config.duration * 1e3)
    rng = np.random.default_rng(seed)
    steady = (np.arange(n_inputs) + 0.5) * 1e-3
    patterns = [steady, *(np.sort(rng.uniform(0, config.duration, n_inputs)) for _ in range(n_patterns - 1))]
    inputs = Spikes.from_padded(np.array(patterns))

    def count(weights: np.ndarray, step: float, rule: str) -> np.ndarray:
        network = Network(
            (n_inputs, len(weights)),
            thresholds=[config.threshold_output],
            max_spikes=[config.max_spikes_output],
            **config.time_constants,
            duration=config.duration,
            weights=[np.repeat(weights[:, None], n_inputs, axis=1)],
            dtype="float64",
            device="cpu",
        )
        [activity] = network.simulate(discretize_spikes(inputs, step), rule=rule)
        return activity.spike_count

    strongest = config.threshold_output / config.tau_syn / n_inputs
    while count(np.array([strongest]), 0.0, "drop").min() < config.max_spikes_output:
        strongest *= 1.5
    weights = np.linspace(0, strongest, n_drives)
    counts = [[count(weights, step, rule) for step in delta_t] for rule in rules]
    return xr.Dataset(
        {
            "spike_count": (("rule", "delta_t", "pattern", "drive"), np.array(counts)),
            "continuous_count": (("pattern", "drive"), count(weights, 0.0, "drop")),
        },
        {"rule": list(rules), "delta_t": list(delta_t), "drive": weights},
    )


# ------------------------------------------------------------------------------------------------- whole networks


def cross_test(
    config: Config,
    data: ImageData,
    steps: Sequence[float],
    *,
    seeds: int = 1,
    device: str = "auto",
    threads: int = 0,
) -> xr.Dataset:
    """Train a network at each of several time steps, and test it at all of them.

    Parameters
    ----------
    config, data, device, threads
        As in :func:`bats_lab.runs.training.train`; the collision rule is that of training and testing.
    steps : sequence of float
        Time steps in seconds; 0 is continuous time.
    seeds : int
        Seeds, counted from 0.

    Returns
    -------
    xarray.Dataset
        Test `accuracy`, and `output_spikes` of the true class's neuron per sample: (seed, trained_at, tested_at).

    Raises
    ------
    DivergedError
        If a training diverges.
    """
    configs = [config.replace(delta_t=step, seed=seed) for seed in range(seeds) for step in steps]
    tests = [input_spikes(data.x_test[: config.n_test], config.replace(delta_t=step)) for step in steps]
    measured = []
    for training in train_group(configs, data, device=device, threads=threads):
        if isinstance(training, DivergedError):
            raise training
        measured.append([tested(training.network, test, data, config) for test in tests])
    values = np.array(measured).reshape(seeds, len(steps), len(steps), 2)
    dims = ("seed", "trained_at", "tested_at")
    return xr.Dataset(
        {"accuracy": (dims, values[..., 0]), "output_spikes": (dims, values[..., 1])},
        {"seed": range(seeds), "trained_at": list(steps), "tested_at": list(steps), "rule": config.rule},
    )


def tested(network: Network, spikes: Spikes, data: ImageData, config: Config) -> tuple[float, float]:
    """Return test accuracy, and the spikes of the true class's neuron per sample."""
    found = evaluate(
        network,
        spikes,
        data.y_test[: config.n_test],
        rule=rule_on(config.rule, spikes.delta_t),
        target_true=config.target_true,
        target_false=config.target_false,
    )
    return found.accuracy, float(found.confidence[-1]) * config.target_true


def train_crossed(
    config: Config,
    data: ImageData,
    *,
    errors_at: float,
    gradient_at: float,
    device: str = "auto",
    threads: int = 0,
) -> Network:
    """Train a network with errors from one time step and gradients from another.

    Every batch is run twice: spikes are counted, and held against their targets, at `errors_at`; these errors are
    backpropagated through the spikes of `gradient_at`. With 0 for the one and a time step for the other, what the grid
    does to the counts is separated from what it does to the gradient. Both the same is `training.train`.

    Parameters
    ----------
    config, data, device, threads
        As in :func:`bats_lab.runs.training.train`; the run's own `delta_t` is not used.
    errors_at, gradient_at : float
        Time steps in seconds; 0 is continuous time, where the gradient is exact.
    """
    own, counted = (config.replace(delta_t=step, rule=rule_on(config.rule, step)) for step in (gradient_at, errors_at))
    return train(own, data, device=device, threads=threads, errors_from=counted).network


def gradient_quality(
    network: Network,
    images: np.ndarray | Spikes,
    labels: np.ndarray,
    config: Config,
    *,
    n_directions: int = 100,
    steps: Sequence[float] = (0.1, 0.3, 1.0),
    seed: int = 0,
    estimators: Mapping[str, Estimator] | None = None,
) -> xr.Dataset:
    r"""Hold gradients against the change of the loss that they are to predict.

    The loss counts spikes and so is a staircase in the weights; what a gradient can be asked for is the slope of the
    loss smoothed over weight changes :math:`\sigma\epsilon` of the size that training makes,

    .. math:: \nabla_\sigma\mathcal{L} = \mathbb{E}_\epsilon\left[
        \frac{\mathcal{L}(w + \sigma\epsilon) - \mathcal{L}(w - \sigma\epsilon)}{2\sigma}\,\epsilon\right],
        \qquad \epsilon \sim \mathcal{N}(0, 1),

    which needs no derivative of anything. For a gradient :math:`g` the correlation over :math:`\epsilon` of
    :math:`g\cdot\epsilon` with the change of the loss is the cosine of :math:`g` and
    :math:`\nabla_\sigma\mathcal{L}` if the smoothed loss is linear over that distance, and less if it is not.

    Parameters
    ----------
    network : Network
        The network; its weights are put back.
    images : ndarray of uint8, (sample, row, column), or Spikes
        Images over which the loss is taken.
    labels : ndarray of int, (sample,)
        Their classes.
    config : Config
        Time step, collision rule and targets; σ is its `learning_rate`, the size of a step of Adam.
    n_directions : int
        Random directions.
    steps : sequence of float
        Sizes of steps along the signs of the gradients (as Adam's first) in learning rates.
    seed : int
        Of the directions: the same for every time step and rule.
    estimators : mapping of str to Estimator, or None
        Estimators whose gradients on the grid are measured, by name; None: ``straight_through`` alone.

    Returns
    -------
    xarray.Dataset
        `loss` of the network on the grid; over `direction` the `loss_change` (odd part) and what each `gradient`, those
        of the estimators on the grid and ``continuous``, that of the same weights at Δt = 0, predicts of it
        (`predicted`, up to a constant factor); over `step` the change of the loss by a step along each gradient
        (`step_change`); and the `cosine` of the first and the continuous one, over `layer` and for all weights
        (`cosine_all`).
    """
    weights = network.weights
    true, false = config.target_true, config.target_false
    rule = rule_on(config.rule, config.delta_t)

    def gradient(delta_t: float, estimator: Estimator = STRAIGHT_THROUGH) -> list[np.ndarray]:
        spikes = input_spikes(images, config.replace(delta_t=delta_t))
        rule = rule_on(config.rule, delta_t)
        errors = network.read_out(spikes, labels, rule=rule, target_true=true, target_false=false).errors
        return network.gradients(spikes, errors, rule=rule, estimator=estimator)

    inputs = input_spikes(images, config)

    def loss(changes: Sequence[np.ndarray], size: float) -> float:
        network.set_weights([w + size * change for w, change in zip(weights, changes, strict=True)])
        return evaluate(network, inputs, labels, rule=rule, target_true=true, target_false=false).loss

    estimators = {"straight_through": STRAIGHT_THROUGH} if estimators is None else estimators
    names = [*estimators, "continuous"]
    gradients = [*(gradient(config.delta_t, estimator) for estimator in estimators.values()), gradient(0.0)]
    rng = np.random.default_rng(seed)
    changes, predicted = [], []
    try:
        at_rest = loss(weights, 0.0)
        for _ in range(n_directions):
            direction = [rng.standard_normal(w.shape, dtype=np.float32) for w in weights]
            up, down = (loss(direction, sign * config.learning_rate) for sign in (1, -1))
            changes.append((up - down) / 2)
            predicted.append([config.learning_rate * _dot(g, direction) for g in gradients])
        along = [
            [loss([np.sign(part) for part in g], -step * config.learning_rate) - at_rest for step in steps]
            for g in gradients
        ]
    finally:
        network.set_weights(weights)
    grid, continuous = gradients[0], gradients[-1]
    return xr.Dataset(
        {
            "loss": at_rest,
            "loss_change": ("direction", changes),
            "predicted": (("gradient", "direction"), np.array(predicted).T),
            "step_change": (("gradient", "step"), along),
            "cosine": ("layer", [_cosine([a], [b]) for a, b in zip(grid, continuous, strict=True)]),
            "cosine_all": _cosine(grid, continuous),
        },
        {"gradient": names, "step": list(steps), "layer": list(config.layer_names())},
    )


def _dot(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> float:
    return float(sum(np.vdot(x, y) for x, y in zip(a, b, strict=True)))


def _cosine(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> float:
    """Return the cosine of two gradients; NaN if one of them is zero."""
    norm = np.sqrt(_dot(a, a) * _dot(b, b))
    return _dot(a, b) / norm if norm else np.nan


def agreement(quality: xr.Dataset) -> xr.DataArray:
    """Return the correlation of predicted and true changes of the loss over random directions.

    `quality` is what :func:`gradient_quality` returns, or several of these along further dimensions. The standard error
    is about one over the square root of the number of directions.
    """
    return xr.corr(quality["predicted"], quality["loss_change"], "direction").rename("agreement")
