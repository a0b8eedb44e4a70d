"""Better than straight-through? Gradient estimators of the time grid, compared over paired seeds.

The same networks and seeds are trained with each of `estimators.ESTIMATORS`; ``34_estimators`` draws the
results. Two questions are asked apart: does an estimator train a better network (:func:`estimator_configs`), and does
its gradient predict the change of the loss better on the very same weights (:func:`run_estimator_experiments`)?
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import xarray as xr

from bats_lab.config import Config
from bats_lab.data.datasets import ImageData
from bats_lab.errors import DivergedError
from bats_lab.runs.training import train_group
from bats_lab.spikes.estimators import ESTIMATORS, Estimator
from bats_lab.studies.collapse.experiments import gradient_quality
from bats_lab.studies.experiments import (
    SIZES,
    combined,
    loss_images,
    open_experiment,
    run_experiments,
    short_run,
)
from bats_lab.studies.study import Study, seeds_from_zero

__all__ = [
    "CONTRASTS",
    "ESTIMATOR_RULES",
    "ESTIMATOR_STEPS",
    "STUDY",
    "WIDTHS",
    "estimator_configs",
    "open_gradients",
    "run_estimator_experiments",
]

#: Rules of the comparison: the thesis', and the one under which a coarse grid loses no spike.
ESTIMATOR_RULES = ("drop", "graded")
#: Time steps (s) of the comparison by data set: below, at and beyond the collapse under ``drop``.
ESTIMATOR_STEPS: dict[str, tuple[float, ...]] = {
    "mnist": (0.004, 0.008, 0.012, 0.02),
    "fashion_mnist": (0.002, 0.005, 0.01, 0.02),
}
#: Rules and time steps (s), on MNIST, of the few contrasts that are tested with four times as many seeds: on a coarse
#: grid under the rule that loses no spike on it, and on a fine one under the thesis'.
CONTRASTS = (("graded", 0.012), ("drop", 0.004))
_CONTRAST_SEEDS = 4
#: Half-widths of the surrogate at which its gradient is measured, in time steps; training has the default.
WIDTHS = (0.1, 0.25)


def estimator_configs(*, seeds: int = 5, quick: bool = False) -> list[Config]:
    """Return the runs of the comparison: one epoch each, with training samples held out for choices.

    Seeds count from 0 (ValueError if there are none); all runs of one come before those of the next, and last those of
    further seeds, with :data:`CONTRASTS` alone. `quick` takes ``mnist_small`` in place of the data sets, and no
    further seeds. In continuous time all estimators and rules are one and the same; there is one such run.
    """
    names = {"mnist_small": ESTIMATOR_STEPS["mnist"]} if quick else ESTIMATOR_STEPS
    further = [
        _run("mnist").replace(seed=seed, delta_t=delta_t, rule=rule, estimator=estimator)
        for rule, delta_t in CONTRASTS
        for seed in range(seeds, _CONTRAST_SEEDS * seeds)
        for estimator in ESTIMATORS
    ]
    return [
        _run(dataset).replace(seed=seed, delta_t=delta_t, rule=rule, estimator=estimator)
        for seed in seeds_from_zero(seeds)
        for dataset, steps in names.items()
        for delta_t in (0.0, *steps)
        for rule in (ESTIMATOR_RULES if delta_t else ("drop",))
        for estimator in (ESTIMATORS if delta_t else ("straight_through",))
    ] + ([] if quick else further)


def _run(dataset: str) -> Config:
    return short_run(dataset, validation_fraction=0.1)


def _measured_estimators() -> dict[str, Estimator]:
    """Return the estimators whose gradients are measured; for given spikes ``stochastic`` has that of ``delayed``."""
    return {
        "straight_through": Estimator("straight_through"),
        "delayed": Estimator("delayed"),
        **{f"surrogate {width:g}": Estimator("surrogate", width) for width in WIDTHS},
    }


def _gradients(dataset: str, data: ImageData, device: str) -> xr.Dataset:
    config, (images, labels) = _run(dataset), loss_images(dataset, data)
    [trained] = train_group([config], data, device=device)
    if isinstance(trained, DivergedError):
        raise trained
    parts = []
    for rule in ESTIMATOR_RULES:
        for step in ESTIMATOR_STEPS.get(dataset, ESTIMATOR_STEPS["mnist"]):
            quality = gradient_quality(
                trained.network,
                images,
                labels,
                config.replace(rule=rule, delta_t=step),
                estimators=_measured_estimators(),
                n_directions=SIZES[dataset].directions,
            )
            parts.append(quality.assign_coords(rule=rule, delta_t=step).expand_dims(["rule", "delta_t"]))
    return combined(parts)


def open_gradients(folder: str | Path) -> dict[str, xr.Dataset]:
    """Read the gradients that were measured, by data set; empty where that was not done.

    Raises
    ------
    ResultsError
        If a file cannot be read.
    """
    return open_experiment(folder, "estimator_gradients")


#: :func:`bats_lab.studies.experiments.run_experiments` of this study.
run_estimator_experiments = partial(run_experiments, {"estimator_gradients": _gradients}, tuple(ESTIMATOR_STEPS))

STUDY = Study(
    name="estimators",
    seeds=5,
    configs=estimator_configs,
    notebook="34_estimators",
    measure=run_estimator_experiments,
)
