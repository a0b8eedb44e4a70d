r"""Why training collapses at a coarse time step: experiments that tell one suspect from the other.

The thesis (section 5) blames the straight-through estimator, whose error grows with the time step. The other suspect is
rule ``drop``: a neuron that crosses its threshold again before its spike has left is not reset, stays above threshold,
and falls silent. The experiments here separate the two; ``33_why_training_collapses`` draws them:

- :func:`collapse_configs`: the same networks and seeds under four collision rules, all trained by the straight-through
  estimator, over time steps up to 30 ms;
- :func:`drive_response`: how many spikes a single neuron can send, with no training at all;
- :func:`cross_test`: networks trained at one time step and tested at another. Those trained in continuous time have
  never seen the straight-through estimator;
- :func:`train_crossed`: errors counted at one time step, gradients backpropagated through the spikes of another;
- :func:`gradient_quality`: the straight-through gradient against the change of the loss that it is to predict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from bats_lab.config import Config
from bats_lab.data.datasets import ImageData, load_dataset
from bats_lab.errors import DivergedError
from bats_lab.network.feedforward import Network
from bats_lab.runs.files import open_dataset, save_dataset
from bats_lab.runs.training import evaluate, input_spikes, train, train_group
from bats_lab.spikes.estimators import STRAIGHT_THROUGH, Estimator
from bats_lab.spikes.grid import discretize_spikes
from bats_lab.spikes.rules import rule_on
from bats_lab.spikes.trains import Spikes

__all__ = [
    "COLLAPSE_RULES",
    "COLLAPSE_STEPS",
    "EXPERIMENTS",
    "NOTEBOOK",
    "agreement",
    "collapse_configs",
    "combined",
    "cross_test",
    "drive_response",
    "experiment_path",
    "gradient_quality",
    "open_experiment",
    "open_experiments",
    "run_collapse_experiments",
    "train_crossed",
]

#: The rules that are compared; ``clocked`` has another neuron, not only another way to send.
COLLAPSE_RULES = ("drop", "merge", "defer", "graded")


#: Time steps (s) of the comparison by data set. With two hidden layers trouble begins at finer ones.
COLLAPSE_STEPS: dict[str, tuple[float, ...]] = {
    "mnist": (0.004, 0.006, 0.007, 0.008, 0.009, 0.01, 0.012, 0.015, 0.02, 0.03),
    "emnist": (0.004, 0.006, 0.007, 0.008, 0.009, 0.01, 0.012, 0.015, 0.02, 0.03),
    "fashion_mnist": (0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03),
}

#: Training images of the comparison, the first ones; None: all. Batches of 5 make 4,000 updates of 20,000 images, more
#: than MNIST's 1,200.
_COMPARED_IMAGES = {"mnist": None, "emnist": 60_000, "fashion_mnist": 20_000, "mnist_small": None}


def collapse_configs(*, seeds: int = 2, quick: bool = False) -> list[Config]:
    """Return the runs of the comparison of rules: one epoch each, on all three data sets.

    Parameters
    ----------
    seeds : int
        Seeds, counted from 0; all runs of one before those of the next.
    quick : bool
        Train on ``mnist_small`` in place of the data sets, with the networks of MNIST only.

    Returns
    -------
    list of Config
        In continuous time the rules are one and the same; it is run under ``drop`` only.

    Raises
    ------
    ValueError
        If `seeds` is below 1.
    """
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}; it must be at least 1.")
    common = {"epochs": 1, "keep_weights": "none", "keep_samples": 0}
    names = {"mnist_small": COLLAPSE_STEPS["mnist"]} if quick else COLLAPSE_STEPS
    return [
        Config.from_dict(
            common
            | {"dataset": dataset, "n_train": _COMPARED_IMAGES[dataset]}
            | {"seed": seed, "delta_t": delta_t, "rule": rule}
        )
        for seed in range(seeds)
        for dataset, steps in names.items()
        for delta_t in (0.0, *steps)
        for rule in (COLLAPSE_RULES if delta_t else ("drop",))
    ]


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
        random times.
    n_drives : int
        Weights that the inputs are given, all the same in a pattern.
    seed : int
        Of the random patterns.

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
            tau_syn=config.tau_syn,
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
    config : Config
        Parameters of the runs, with the collision rule for training and testing.
    data : ImageData
        Images and labels; `n_train` and `n_test` of the run take the first of them.
    steps : sequence of float
        Time steps in seconds; 0 is continuous time.
    seeds : int
        Seeds, counted from 0.
    device, threads
        As in :func:`bats_lab.runs.training.train`.

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
        measured.append([_tested(training.network, test, data, config) for test in tests])
    values = np.array(measured).reshape(seeds, len(steps), len(steps), 2)
    dims = ("seed", "trained_at", "tested_at")
    return xr.Dataset(
        {"accuracy": (dims, values[..., 0]), "output_spikes": (dims, values[..., 1])},
        {"seed": range(seeds), "trained_at": list(steps), "tested_at": list(steps), "rule": config.rule},
    )


def _tested(network: Network, spikes: Spikes, data: ImageData, config: Config) -> tuple[float, float]:
    """Return test accuracy, and the spikes of the true class's neuron per sample."""
    found = evaluate(
        network,
        spikes,
        data.y_test[: config.n_test],
        rule=_rule(config, spikes.delta_t),
        target_true=config.target_true,
        target_false=config.target_false,
    )
    return found.accuracy, float(found.confidence[-1]) * config.target_true


def _rule(config: Config, delta_t: float) -> str:
    """Return the collision rule at a time step; in continuous time there is none, and ``clocked`` cannot run."""
    return rule_on(config.rule, delta_t)


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
    config : Config
        The run: seed, learning rate, epochs, collision rule, …; its `delta_t` is not used.
    data : ImageData
        Images and labels; `n_train` of the run takes the first of them.
    errors_at, gradient_at : float
        Time steps in seconds; 0 is continuous time, where the gradient is exact.
    device, threads
        As in :func:`bats_lab.runs.training.train`.

    Returns
    -------
    Network
        The trained network.
    """
    own, counted = (config.replace(delta_t=step, rule=_rule(config, step)) for step in (gradient_at, errors_at))
    return train(own, data, device=device, threads=threads, errors_from=counted).network


# --------------------------------------------------------------------------------------------- gradients


def gradient_quality(
    network: Network,
    images: np.ndarray,
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
    images : ndarray of uint8, (sample, row, column)
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
    rule = _rule(config, config.delta_t)

    def gradient(delta_t: float, estimator: Estimator = STRAIGHT_THROUGH) -> list[np.ndarray]:
        spikes = input_spikes(images, config.replace(delta_t=delta_t))
        rule = _rule(config, delta_t)
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

    Parameters
    ----------
    quality : xarray.Dataset
        As :func:`gradient_quality` returns it, or several of these along further dimensions.

    Returns
    -------
    xarray.DataArray
        Over `gradient` and the further dimensions. Its standard error is about one over the square root of the number
        of directions.
    """
    return xr.corr(quality["predicted"], quality["loss_change"], "direction").rename("agreement")


# --------------------------------------------------------------------------------------------- all of it, into files

#: Time steps (s) of the experiments that train or test a network many times: around the collapse, and far beyond it.
_STEPS = {
    "mnist": (0.004, 0.006, 0.008, 0.01, 0.012, 0.02),
    "fashion_mnist": (0.002, 0.004, 0.005, 0.006, 0.01, 0.02),
    "mnist_small": (0.004, 0.008, 0.012),
}
_CROSSED_STEPS = {
    "mnist": (0.008, 0.012, 0.02),
    "fashion_mnist": (0.005, 0.01, 0.02),
    "mnist_small": (0.008,),
}


class _Size(NamedTuple):
    n_train: int | None
    seeds: int  # of ``train_crossed``; the other experiments have seed 0
    images: int
    directions: int


#: How much is measured, by data set; two hidden layers and batches of 5 take four times as long to train.
_SIZES = {
    "mnist": _Size(n_train=None, seeds=1, images=500, directions=100),
    "fashion_mnist": _Size(n_train=20_000, seeds=1, images=500, directions=100),
    "mnist_small": _Size(n_train=2_000, seeds=1, images=100, directions=10),
}
_EXPERIMENT_RULES = ("drop", "merge", "graded")


def _drive(dataset: str, data: ImageData, device: str) -> xr.Dataset:
    return drive_response(COLLAPSE_STEPS.get(dataset, COLLAPSE_STEPS["mnist"]), config=Config(dataset=dataset))


def _cross(dataset: str, data: ImageData, device: str) -> xr.Dataset:
    config = _short(dataset)
    steps = (0.0, *_STEPS[dataset])
    return xr.concat(
        [cross_test(config.replace(rule=rule), data, steps, device=device) for rule in _EXPERIMENT_RULES], "rule"
    )


def _crossed(dataset: str, data: ImageData, device: str) -> xr.Dataset:
    """Train with errors and gradients of the grid or of continuous time, and test on either."""
    found = []
    for seed in range(_SIZES[dataset].seeds):
        for rule in ("drop", "merge"):
            config = _short(dataset).replace(seed=seed, rule=rule)
            exact = train_crossed(config, data, errors_at=0.0, gradient_at=0.0, device=device)
            for step in _CROSSED_STEPS[dataset]:
                for errors, gradient in ((step, step), (step, 0.0), (0.0, step), (0.0, 0.0)):
                    network = exact
                    if errors or gradient:
                        network = train_crossed(config, data, errors_at=errors, gradient_at=gradient, device=device)
                    for tested in (step, 0.0):
                        test = input_spikes(data.x_test[: config.n_test], config.replace(delta_t=tested))
                        place = {
                            "seed": seed,
                            "rule": rule,
                            "delta_t": step,
                            "errors": "grid" if errors else "continuous",
                            "gradient": "grid" if gradient else "continuous",
                            "tested": "grid" if tested else "continuous",
                        }
                        accuracy = xr.DataArray(_tested(network, test, data, config)[0], place, name="accuracy")
                        found.append(accuracy.expand_dims(list(place)).to_dataset())
    return combined(found)


def _gradients(dataset: str, data: ImageData, device: str) -> xr.Dataset:
    """Measure gradients on weights learned in continuous time, and on those learned on the grid itself."""
    size, config = _SIZES[dataset], _short(dataset)
    # Training images, since it is their loss that training is to lower; test images are for testing.
    part = slice(len(data.x_train) - size.images, None)
    images, labels = data.x_train[part], data.y_train[part]
    [exact] = train_group([config], data, device=device)
    found = []
    for rule in _EXPERIMENT_RULES:
        configs = [config.replace(rule=rule, delta_t=step) for step in _STEPS[dataset]]
        for own, training in zip(configs, train_group(configs, data, device=device), strict=True):
            for weights, trained in (("continuous", exact), ("own", training)):
                if isinstance(trained, DivergedError):
                    continue
                quality = gradient_quality(trained.network, images, labels, own, n_directions=size.directions)
                place = {"rule": rule, "delta_t": own.delta_t, "weights": weights}
                found.append(quality.assign_coords(place).expand_dims(list(place)))
    return combined(found)


def combined(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Lay parts with one place each side by side, along the dimensions in which they differ.

    Parameters
    ----------
    parts : sequence of xarray.Dataset
        Each with dimensions of size 1 that say where it belongs.

    Returns
    -------
    xarray.Dataset
    """
    whole = xr.combine_by_coords(parts)
    assert isinstance(whole, xr.Dataset)
    return whole


def _short(dataset: str) -> Config:
    """Return the preset of a data set with one epoch, on as many images as the experiments take."""
    return Config(dataset=dataset, epochs=1, n_train=_SIZES[dataset].n_train, keep_weights="none", keep_samples=0)


#: The notebook that draws all of it.
NOTEBOOK = "33_why_training_collapses"
#: The experiments beside the comparison of rules, by the name of their files.
EXPERIMENTS: dict[str, Callable[[str, ImageData, str], xr.Dataset]] = {
    "drive_response": _drive,
    "cross_test": _cross,
    "train_crossed": _crossed,
    "gradient_quality": _gradients,
}


def experiment_path(folder: str | Path, name: str, dataset: str) -> Path:
    """Return the file of an experiment on a data set."""
    return Path(folder) / f"experiment-{name}-{dataset}.nc"


def open_experiments(folder: str | Path) -> dict[str, dict[str, xr.Dataset]]:
    """Read the experiments that lie in a folder.

    Parameters
    ----------
    folder : str or Path
        Folder of the results.

    Returns
    -------
    dict
        For each of :data:`EXPERIMENTS` its results by data set; empty where it has not been run.

    Raises
    ------
    ResultsError
        If a file cannot be read.
    """
    return {name: open_experiment(folder, name) for name in EXPERIMENTS}


def open_experiment(folder: str | Path, name: str) -> dict[str, xr.Dataset]:
    """Read one experiment, by data set; empty where it has not been run.

    Raises
    ------
    ResultsError
        If a file cannot be read.
    """
    files = sorted(Path(folder).glob(experiment_path("", name, "*").name), reverse=True)
    return {str(found.attrs["dataset"]): found for found in map(open_dataset, files)}


def run_collapse_experiments(
    folder: str | Path,
    *,
    data_dir: str | Path | None = None,
    device: str = "auto",
    quick: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Run the experiments whose results are not in a folder yet.

    Parameters
    ----------
    folder : str or Path
        Folder of the results.
    data_dir : str, Path or None
        Where full data sets lie; None: the usual place.
    device : str
        ``auto``, ``cuda`` or ``cpu``.
    quick : bool
        Use ``mnist_small`` in place of MNIST and Fashion-MNIST, and measure less.
    report : callable
        Called with a line before each experiment.

    Returns
    -------
    list of Path
        The files of all experiments; each is written whole or not at all.
    """
    datasets = ("mnist_small",) if quick else ("mnist", "fashion_mnist")
    paths: list[Path] = []
    for dataset in datasets:
        files = {name: experiment_path(folder, name, dataset) for name in EXPERIMENTS}
        paths += files.values()
        missing = [name for name, path in files.items() if not path.exists()]
        if not missing:
            continue
        data = load_dataset(dataset, data_dir=data_dir)
        for name in missing:
            report(f"{name} on {dataset} …")
            found = EXPERIMENTS[name](dataset, data, device)
            save_dataset(found.assign_attrs(dataset=dataset, data_hash=data.data_hash), files[name])
    return paths
