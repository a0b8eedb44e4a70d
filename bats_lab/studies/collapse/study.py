"""Why training collapses at a coarse time step: the straight-through estimator, or rule ``drop``.

The thesis (section 5) blames the estimator, whose error grows with the time step. The other suspect is ``drop``: a
neuron that crosses its threshold again before its spike has left is not reset, stays above threshold, and falls silent.
Trained are the same networks and seeds under four rules, all by the same estimator (:func:`collapse_configs`); what
:data:`EXPERIMENTS` measure separates the two. ``33_why_training_collapses`` draws both.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bats_lab.config import Config
from bats_lab.data.datasets import ImageData
from bats_lab.errors import DivergedError
from bats_lab.runs.files import is_finished
from bats_lab.runs.training import input_spikes, train_group
from bats_lab.studies.collapse.experiments import (
    COLLAPSE_RULES,
    cross_test,
    drive_response,
    gradient_quality,
    tested,
    train_crossed,
)
from bats_lab.studies.collapse.law import collapse_law, scaling_check
from bats_lab.studies.collapse.trained import TRAINED_EXPERIMENTS, run_trainings
from bats_lab.studies.experiments import (
    SIZES,
    Experiment,
    combined,
    loss_images,
    open_experiment,
    run_experiments,
    short_run,
)
from bats_lab.studies.study import Study, seeds_from_zero
from bats_lab.sweeps.sweep import run_sweep

__all__ = [
    "COLLAPSE_STEPS",
    "COUNTED",
    "COUNTED_STEPS",
    "EXPERIMENTS",
    "LONG",
    "SMALL_EXPERIMENTS",
    "STUDY",
    "collapse_configs",
    "long_configs",
    "open_experiments",
    "run_collapse_experiments",
]

_ONE_LAYER = (0.004, 0.006, 0.007, 0.008, 0.009, 0.01, 0.012, 0.015, 0.02, 0.03)
#: Time steps (s) of the comparison by data set. With two hidden layers trouble begins at finer ones.
COLLAPSE_STEPS: dict[str, tuple[float, ...]] = {
    "mnist": _ONE_LAYER,
    "emnist": _ONE_LAYER,
    "fashion_mnist": (0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03),
}
#: Training images of the comparison, the first ones; None: all. Batches of 5 make 4,000 updates of 20,000 images, more
#: than MNIST's 1,200.
_COMPARED_IMAGES = {"mnist": None, "emnist": 60_000, "fashion_mnist": 20_000, "mnist_small": None}
#: Time steps (s) of the experiments that train or test a network many times: around the collapse, and far beyond it.
_STEPS = {
    "mnist": (0.004, 0.006, 0.008, 0.01, 0.012, 0.02),
    "fashion_mnist": (0.002, 0.004, 0.005, 0.006, 0.01, 0.02),
    "mnist_small": (0.004, 0.008, 0.012),
}
_CROSSED_STEPS = {"mnist": (0.008, 0.012, 0.02), "fashion_mnist": (0.005, 0.01, 0.02), "mnist_small": (0.008,)}
_EXPERIMENT_RULES = ("drop", "merge", "graded")
#: Whose spikes are counted for the error, in which layers, with all else under ``drop``; and at which time steps (s).
COUNTED = (("own", "output"), ("merge", "output"), ("merge", "all"), ("graded", "all"))
COUNTED_STEPS: dict[str, tuple[float, ...]] = {
    "mnist": (0.008, 0.01, 0.012, 0.007, 0.009),
    "fashion_mnist": (0.006, 0.008, 0.005),
    "emnist": (0.01, 0.012, 0.008),
    "mnist_small": (0.008, 0.012),
}
#: Seeds of the comparison of rules; the counts in the error are compared with all the study has.
_RULE_SEEDS = 2


def collapse_configs(*, seeds: int = 5, quick: bool = False) -> list[Config]:
    """Return the runs of the comparisons: one epoch each, on all three data sets, or on ``mnist_small``.

    First the counts in the error, of all seeds (from 0; ValueError if there are none); then the rules, of two of them
    at most. In continuous time the rules are one and the same; it is run under ``drop`` only.
    """
    names = ("mnist_small",) if quick else tuple(COLLAPSE_STEPS)
    counted = [
        _compared(dataset, seed, delta_t, error_counts=counts, error_layers=layers)
        for dataset in names
        for seed in seeds_from_zero(seeds)
        for delta_t in (0.0, *COUNTED_STEPS[dataset])
        for counts, layers in (COUNTED if delta_t else COUNTED[:1])
    ]
    rules = [
        _compared(dataset, seed, delta_t, rule=rule)
        for seed in range(min(seeds, _RULE_SEEDS))
        for dataset in names
        for delta_t in (0.0, *COLLAPSE_STEPS.get(dataset, _ONE_LAYER))
        for rule in (COLLAPSE_RULES if delta_t else ("drop",))
    ]
    return list(dict.fromkeys(counted + rules))


def _compared(dataset: str, seed: int, delta_t: float, **treatment: str) -> Config:
    common = {"epochs": 1, "keep_weights": "none", "keep_samples": 0, "n_train": _COMPARED_IMAGES[dataset]}
    return Config.from_dict(common | {"dataset": dataset, "seed": seed, "delta_t": delta_t} | treatment)


def long_configs(*, quick: bool = False) -> list[Config]:
    """Return the runs that show whether counts in the error help for long: ten epochs of MNIST at 8 ms, seed 0."""
    run = {"dataset": "mnist", "delta_t": 0.008, "epochs": 10}
    run |= {"dataset": "mnist_small", "delta_t": 0.012, "epochs": 2, "n_train": 2_000} if quick else {}
    kept = {"keep_weights": "none", "keep_samples": 0}
    return [Config.from_dict(run | kept | {"error_counts": c, "error_layers": layers}) for c, layers in COUNTED]


def _drive(dataset: str, data: ImageData, device: str) -> xr.Dataset:
    return drive_response(COLLAPSE_STEPS.get(dataset, COLLAPSE_STEPS["mnist"]), config=Config(dataset=dataset))


def _cross(dataset: str, data: ImageData, device: str) -> xr.Dataset:
    configs, steps = [short_run(dataset, rule=rule) for rule in _EXPERIMENT_RULES], (0.0, *_STEPS[dataset])
    return xr.concat([cross_test(config, data, steps, device=device) for config in configs], "rule")


def _crossed(dataset: str, data: ImageData, device: str) -> xr.Dataset:
    """Train with errors and gradients of the grid or of continuous time, and test on either."""
    parts = []
    for rule in ("drop", "merge"):
        config = short_run(dataset, rule=rule)
        exact = train_crossed(config, data, errors_at=0.0, gradient_at=0.0, device=device)
        for step in _CROSSED_STEPS[dataset]:
            for errors, gradient in ((step, step), (step, 0.0), (0.0, step), (0.0, 0.0)):
                network = exact
                if errors or gradient:
                    network = train_crossed(config, data, errors_at=errors, gradient_at=gradient, device=device)
                for tested_at in (step, 0.0):
                    test = input_spikes(data.x_test[: config.n_test], config.replace(delta_t=tested_at))
                    point: dict[str, Any] = {"seed": config.seed, "rule": rule, "delta_t": step}
                    for name, value in (("errors", errors), ("gradient", gradient), ("tested", tested_at)):
                        point[name] = "grid" if value else "continuous"
                    accuracy = xr.DataArray(tested(network, test, data, config)[0], point, name="accuracy")
                    parts.append(accuracy.expand_dims(list(point)).to_dataset())
    return combined(parts)


def _gradients(dataset: str, data: ImageData, device: str) -> xr.Dataset:
    """Measure gradients on weights learned in continuous time, and on those learned on the grid itself."""
    config, (images, labels) = short_run(dataset), loss_images(dataset, data)
    [exact] = train_group([config], data, device=device)
    parts = []
    for rule in _EXPERIMENT_RULES:
        configs = [config.replace(rule=rule, delta_t=step) for step in _STEPS[dataset]]
        for own, training in zip(configs, train_group(configs, data, device=device), strict=True):
            for weights, trained in (("continuous", exact), ("own", training)):
                if isinstance(trained, DivergedError):
                    continue
                directions = SIZES[dataset].directions
                quality = gradient_quality(trained.network, images, labels, own, n_directions=directions)
                point = {"rule": rule, "delta_t": own.delta_t, "weights": weights}
                parts.append(quality.assign_coords(point).expand_dims(list(point)))
    return combined(parts)


#: Networks of the law are small, with one hidden layer of 50: it is about the output neurons.
_LAW_RUN: dict[str, Any] = {"hidden": (50,), "max_spikes_output": 60, "auto_threshold": True, "batch_size": 20}
_LAW_RUN |= {"n_train": 2_800, "validation_fraction": 0.25, "epochs": 4, "n_test": 100}
_LAW_RUN |= {"keep_weights": "none", "keep_samples": 0}


def _law(dataset: str, data: ImageData, device: str, **grid: Any) -> xr.Dataset:
    return collapse_law(Config.from_dict({"dataset": dataset} | _LAW_RUN), data, device=device, **grid)


def _scaling(dataset: str, data: ImageData, device: str) -> xr.Dataset:
    config = short_run(dataset, delta_t=0.008)
    [training] = train_group([config], data, device=device)
    assert not isinstance(training, DivergedError)
    images = data.x_test[:100]
    assert isinstance(images, np.ndarray), "scaled is the window of encoding, which events do not have"
    parts = [scaling_check(training.network, config.replace(delta_t=step), images) for step in (0.004, 0.008, 0.02)]
    return xr.concat(parts, xr.Variable("delta_t", [0.004, 0.008, 0.02]))


#: The experiments beside the comparison of rules, by the name of their files.
EXPERIMENTS: dict[str, Experiment] = {
    "drive_response": _drive,
    "cross_test": _cross,
    "train_crossed": _crossed,
    "gradient_quality": _gradients,
}


#: The folder, within that of the study, of :func:`long_configs`.
LONG = "ten_epochs"
#: Those on ``mnist_small``, whatever the study's data sets; a quick look takes one target, window and time constant.
SMALL_EXPERIMENTS: dict[str, Experiment] = {"collapse_law": _law, "scaling": _scaling}
_QUICK_LAW: dict[str, Any] = {
    "targets": (15.0,),
    "durations": (0.2,),
    "time_constants": (0.13,),
    "ratios": (0.7, 1.0, 1.5),
}


def open_experiments(folder: str | Path) -> dict[str, dict[str, xr.Dataset]]:
    """Read each of the experiments that lies in a folder, by name and data set; empty where it was not run."""
    return {name: open_experiment(folder, name) for name in (*EXPERIMENTS, *SMALL_EXPERIMENTS, *TRAINED_EXPERIMENTS)}


def run_collapse_experiments(
    folder: str | Path, *, quick: bool = False, report: Callable[[str], None] = lambda _: None, **options: Any
) -> list[Path]:
    """Measure what is not in a folder yet: :func:`long_configs`, into :data:`LONG`, and all kinds of experiments.

    The arguments are those of :func:`bats_lab.studies.experiments.run_experiments`.
    """
    long = [run for run in long_configs(quick=quick) if not is_finished(Path(folder) / LONG, run)]
    if long:
        report(f"{len(long)} runs over {long[0].epochs} epochs …")
        where = {name: options[name] for name in ("data_dir", "device") if name in options}
        run_sweep(long, Path(folder) / LONG, checkpoint=True, progress=False, **where)
    options |= {"report": report}
    law = {"collapse_law": partial(_law, **_QUICK_LAW)} if quick else {}
    paths = run_experiments(SMALL_EXPERIMENTS | law, ("mnist_small",), folder, quick=quick, **options)
    paths += run_experiments(EXPERIMENTS, ("mnist", "fashion_mnist"), folder, quick=quick, **options)
    return paths + run_trainings(folder, quick=quick, **options)


STUDY = Study(
    name="collapse",
    seeds=5,
    configs=collapse_configs,
    notebook="33_why_training_collapses",
    measure=run_collapse_experiments,
)
