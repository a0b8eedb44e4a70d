"""What the thesis trained: sweeps over the time step on three data sets, one notebook for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bats_lab.config import Config
from bats_lab.data.registry import DATASETS
from bats_lab.runs.files import is_finished
from bats_lab.studies.study import Study, seeds_from_zero
from bats_lab.studies.thesis.claims import judge
from bats_lab.sweeps.sweep import run_sweep

__all__ = ["EMNIST", "FASHION_MNIST", "MNIST", "PLANS", "REMEDY", "Plan", "remedy_configs", "stand_in", "study_configs"]


@dataclass(frozen=True)
class Plan:
    """What the thesis ran on one data set, which is also the preset of Table 1: time steps in ms, and seeds.

    `kept` are the time steps of which the first seed keeps its weights and the spikes of some test images; at those in
    `mended` the networks are trained once more with the remedy for the collapse (:func:`remedy_configs`).
    """

    delta_t: tuple[float, ...]
    seeds: int
    kept: tuple[float, ...]
    mended: tuple[float, ...] = ()


#: The plans by data set. The text on MNIST speaks of 9 ms and more, which its figures do not show.
PLANS = {
    "mnist": Plan((0.5, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10), 5, (4, 8), (8, 9, 10)),
    "emnist": Plan((0, 0.1, 0.5, 1, 2, 4, 5, 7, 8, 9, 10, 12, 15), 3, (0, 8), (10, 12, 15)),
    "fashion_mnist": Plan((0, 0.5, 1, 3, 4, 5, 6, 7, 8, 9, 10), 2, (3, 5, 6), (5, 6, 8, 10)),
}
#: The folder, within that of a study, of :func:`remedy_configs`.
REMEDY = "remedy"
#: What ``--quick`` changes: a look in minutes, on digits that ship with the package.
QUICK = {"dataset": "mnist_small", "epochs": 3}


def study_configs(dataset: str, *, seeds: int | None = None, quick: bool = False) -> list[Config]:
    """Return the runs of a study, all time steps of one seed before those of the next.

    `seeds` count from 0 (None: as many as the thesis had, or one for a quick look); `quick` trains the same networks
    for three epochs on ``mnist_small``. Raises ValueError if there is no such study, or `seeds` is below 1.
    """
    if dataset not in PLANS:
        raise ValueError(f"There is no study {dataset!r}; there are {', '.join(PLANS)}.")
    plan = PLANS[dataset]
    # The preset is the study's, whatever data the networks are shown.
    preset = Config(dataset=dataset).to_dict() | (QUICK if quick else {})
    configs = []
    for seed in seeds_from_zero((1 if quick else plan.seeds) if seeds is None else seeds):
        for step in plan.delta_t:
            kept = seed == 0 and step in plan.kept
            keep = {"keep_weights": "last" if kept else "none", "keep_samples": 5 if kept else 0}
            configs.append(Config.from_dict(preset | {"delta_t": round(step * 1e-3, 9), "seed": seed} | keep))
    return configs


def remedy_configs(dataset: str, *, seeds: int | None = None, quick: bool = False) -> list[Config]:
    """Return the runs of a study where it collapses, once more: spikes counted under ``merge`` for the error.

    The arguments are those of :func:`study_configs`, and so are rule, gradient and test.
    """
    plan = PLANS[dataset]
    return [
        config.replace(keep_weights="none", keep_samples=0, error_counts="merge", error_layers="output")
        for config in study_configs(dataset, seeds=seeds, quick=quick)
        if round(1e3 * config.delta_t, 6) in plan.mended
    ]


def _mend(dataset: str, folder: Path, *, report: Callable[[str], None] = lambda _: None, **options: Any) -> None:
    """Train what is not trained yet of :func:`remedy_configs`, into :data:`REMEDY`."""
    chosen = {name: options.pop(name) for name in ("seeds", "quick") if name in options}
    missing = [run for run in remedy_configs(dataset, **chosen) if not is_finished(folder / REMEDY, run)]
    if missing:
        report(f"{len(missing)} runs with the remedy …")
        run_sweep(missing, folder / REMEDY, checkpoint=True, progress=False, **options)


def stand_in(results: xr.Dataset) -> str:
    """Say so in a sentence where a study's data are not those of the thesis; "" where they are."""
    names = set(np.ravel(results["dataset"].values).tolist()) - {""}
    name = names.pop() if len(names) == 1 else ""
    if name not in PLANS:
        return f"These runs were trained on {name or 'several data sets'}, not on the thesis' data: a look, no check."
    official = {
        split: next(f.count for f in DATASETS[name].files if f.array == f"x_{split}") for split in ("train", "test")
    }
    used = {split: int(results["n_samples"].sel(split=split).max()) for split in official}
    if used == official:
        return ""
    return (
        f"**{name} here is a stand-in** of {used['train']:,} training and {used['test']:,} test images; the official "
        f"set has {official['train']:,} and {official['test']:,}. Accuracies are not comparable to the last percent."
    )


def _study(dataset: str) -> Study:
    return Study(
        name=dataset,
        seeds=PLANS[dataset].seeds,
        configs=partial(study_configs, dataset),
        notebook="30_thesis",
        parameters={"dataset": dataset},
        measure=partial(_mend, dataset),
        judge=partial(judge, dataset),
    )


MNIST, EMNIST, FASHION_MNIST = map(_study, PLANS)
