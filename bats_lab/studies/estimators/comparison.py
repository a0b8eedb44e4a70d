"""Better than straight-through? Gradient estimators of the time grid, compared over paired seeds.

The same networks and seeds are trained with each of `estimators.ESTIMATORS`; ``34_estimators`` draws the
results. Two questions are asked apart: does an estimator train a better network (:func:`estimator_configs`,
:func:`compare_estimators`), and does its gradient predict the change of the loss better on the very same weights
(:func:`run_estimator_experiments`)?
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from bats_lab.config import Config
from bats_lab.data.datasets import ImageData, load_dataset
from bats_lab.errors import DivergedError
from bats_lab.runs.files import save_dataset
from bats_lab.runs.metrics import choice_split, last_epoch
from bats_lab.runs.training import train_group
from bats_lab.spikes.estimators import ESTIMATORS, Estimator
from bats_lab.studies.collapse.experiments import combined, experiment_path, gradient_quality, open_experiment

__all__ = [
    "ESTIMATOR_RULES",
    "ESTIMATOR_STEPS",
    "NOTEBOOK",
    "WIDTHS",
    "compare_estimators",
    "estimator_configs",
    "open_gradients",
    "paired",
    "run_estimator_experiments",
]

#: The notebook that draws all of it.
NOTEBOOK = "34_estimators"
#: Rules of the comparison: the thesis', and the one under which a coarse grid loses no spike.
ESTIMATOR_RULES = ("drop", "graded")
#: Time steps (s) of the comparison by data set: below, at and beyond the collapse under ``drop``.
ESTIMATOR_STEPS: dict[str, tuple[float, ...]] = {
    "mnist": (0.004, 0.008, 0.012, 0.02),
    "fashion_mnist": (0.002, 0.005, 0.01, 0.02),
}
#: Half-widths of the surrogate at which its gradient is measured, in time steps; training has the default.
WIDTHS = (0.1, 0.25)


class _Size(NamedTuple):
    n_train: int | None
    images: int  # over which the loss is taken where gradients are measured
    directions: int


_SIZES = {
    "mnist": _Size(n_train=None, images=500, directions=100),
    "fashion_mnist": _Size(n_train=20_000, images=500, directions=100),
    "mnist_small": _Size(n_train=2_000, images=100, directions=10),
}


def estimator_configs(*, seeds: int = 5, quick: bool = False) -> list[Config]:
    """Return the runs of the comparison: one epoch each, with training samples held out for choices.

    Parameters
    ----------
    seeds : int
        Seeds, counted from 0; all runs of one before those of the next.
    quick : bool
        Train on ``mnist_small`` in place of the data sets, with the networks of MNIST only.

    Returns
    -------
    list of Config
        In continuous time all estimators and rules are one and the same; there is one such run.

    Raises
    ------
    ValueError
        If `seeds` is below 1.
    """
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}; it must be at least 1.")
    names = {"mnist_small": ESTIMATOR_STEPS["mnist"]} if quick else ESTIMATOR_STEPS
    return [
        _short(dataset).replace(seed=seed, delta_t=delta_t, rule=rule, estimator=estimator)
        for seed in range(seeds)
        for dataset, steps in names.items()
        for delta_t in (0.0, *steps)
        for rule in (ESTIMATOR_RULES if delta_t else ("drop",))
        for estimator in (ESTIMATORS if delta_t else ("straight_through",))
    ]


def _short(dataset: str) -> Config:
    return Config(
        dataset=dataset,
        n_train=_SIZES[dataset].n_train,
        epochs=1,
        validation_fraction=0.1,
        keep_weights="none",
        keep_samples=0,
    )


class Paired(NamedTuple):
    """Two treatments over the same seeds.

    Attributes
    ----------
    difference, low, high : float
        Mean difference, and the ends of its 95 % confidence interval (Student's t); NaN for the ends with one seed.
    p : float
        Probability of a difference at least as large if there were none (paired t-test, two-sided); NaN with one seed.
    seeds : int
        Seeds of which both are known.
    """

    difference: float
    low: float
    high: float
    p: float
    seeds: int


def paired(values: np.ndarray, baseline: np.ndarray) -> Paired:
    """Compare two treatments seed by seed.

    Parameters
    ----------
    values, baseline : array_like, (seed,)
        What is measured under either; a seed with NaN in one of them is left out.

    Raises
    ------
    ValueError
        If they differ in length.

    Examples
    --------
    >>> found = paired([0.92, 0.93, 0.95], [0.90, 0.92, 0.92])
    >>> round(found.difference, 3), found.seeds, round(found.p, 3)
    (0.02, 3, 0.074)
    """
    from scipy import stats

    values, baseline = np.asarray(values, float), np.asarray(baseline, float)
    if values.shape != baseline.shape or values.ndim != 1:
        raise ValueError(f"values has shape {values.shape} and baseline {baseline.shape}; both must be (seed,).")
    differences = (values - baseline)[~np.isnan(values - baseline)]
    n = len(differences)
    if n == 0:
        return Paired(np.nan, np.nan, np.nan, np.nan, 0)
    mean = float(differences.mean())
    error = float(differences.std(ddof=1) / np.sqrt(n)) if n > 1 else np.nan
    if not error > 0:  # one seed; or the very same difference in each, of which no distribution can be told
        end = mean if n > 1 else np.nan
        return Paired(mean, end, end, 1.0 if n > 1 and mean == 0 else np.nan, n)
    reach = float(stats.t.ppf(0.975, n - 1)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, n - 1))
    return Paired(mean, mean - reach, mean + reach, p, n)


def compare_estimators(results: xr.Dataset, *, baseline: str = "straight_through") -> pd.DataFrame:
    """Hold every estimator against another one, over paired seeds.

    Parameters
    ----------
    results : xarray.Dataset
        Runs of one data set that differ in `estimator`, `delta_t`, `rule` and `seed`.
    baseline : str
        The estimator that the others are held against.

    Returns
    -------
    pandas.DataFrame
        One row a rule, time step (s) and other estimator, after the last epoch: ``seeds``; mean and standard deviation
        of test ``accuracy``; ``chosen_by`` and ``choice``, the accuracy by which an estimator may be chosen
        (`metrics.choice_split`); ``difference`` of test accuracy to the baseline with the ends ``low``
        and ``high`` of its 95 % confidence interval; ``p`` of the paired t-test, and ``p_holm``, corrected for all rows
        (Holm, 1979). Accuracies are in %, differences in percentage points.

    Raises
    ------
    ValueError
        If `results` do not differ in `estimator`, or the baseline is not among them.
    """
    if "estimator" not in results.dims:
        raise ValueError("The results do not differ in 'estimator'; there is nothing to compare.")
    names = results["estimator"].values.tolist()
    if baseline not in names:
        raise ValueError(f"baseline is {baseline!r}; it must be one of {', '.join(names)}.")
    last, split = 100 * last_epoch(results)["accuracy"], choice_split(results)
    for dim in ("rule", "delta_t", "seed"):
        if dim not in last.dims:
            last = last.expand_dims(dim)
    rows = []
    for rule in last["rule"].values.tolist():
        for delta_t in last["delta_t"].values.tolist():
            here = last.sel(rule=rule, delta_t=delta_t)
            base = here.sel(estimator=baseline, split="test").values
            for name in [n for n in ESTIMATORS if n in names and n != baseline]:
                own = here.sel(estimator=name)
                test = own.sel(split="test").values
                found = paired(test, base)
                if not found.seeds:
                    continue
                rows.append(
                    {
                        "rule": rule,
                        "delta_t": delta_t,
                        "estimator": name,
                        "seeds": found.seeds,
                        "accuracy": float(np.nanmean(test)),
                        "std": float(np.nanstd(test, ddof=1)) if found.seeds > 1 else np.nan,
                        "chosen_by": split,
                        "choice": float(own.sel(split=split).mean()),
                        "difference": found.difference,
                        "low": found.low,
                        "high": found.high,
                        "p": found.p,
                    }
                )
    table = pd.DataFrame(rows)
    if len(table):
        table["p_holm"] = _holm(table["p"].to_numpy())
    return table


def _holm(p: np.ndarray) -> np.ndarray:
    """Correct probabilities for being the smallest of many; NaN stays NaN."""
    out = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known])]
    scaled = p[order] * (len(order) - np.arange(len(order)))
    out[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return out


# ------------------------------------------------------------------------------------------------------- gradients


def _measured_estimators() -> dict[str, Estimator]:
    """Return the estimators whose gradients are measured; for given spikes ``stochastic`` has that of ``delayed``."""
    return {
        "straight_through": Estimator("straight_through"),
        "delayed": Estimator("delayed"),
        **{f"surrogate {width:g}": Estimator("surrogate", width) for width in WIDTHS},
    }


_GRADIENTS = "estimator_gradients"


def open_gradients(folder: str | Path) -> dict[str, xr.Dataset]:
    """Read the gradients that were measured, by data set; empty where that was not done.

    Raises
    ------
    ResultsError
        If a file cannot be read.
    """
    return open_experiment(folder, _GRADIENTS)


def run_estimator_experiments(
    folder: str | Path,
    *,
    data_dir: str | Path | None = None,
    device: str = "auto",
    quick: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Measure the gradients of all estimators on the same weights, where that has not been done yet.

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
        Called with a line before each data set.

    Returns
    -------
    list of Path
        The files, one a data set; each is written whole or not at all. They hold what
        `experiments.gradient_quality` returns, over `rule` and `delta_t`, for weights that one epoch in
        continuous time has made.
    """
    paths = []
    for dataset in ("mnist_small",) if quick else tuple(ESTIMATOR_STEPS):
        path = experiment_path(folder, _GRADIENTS, dataset)
        paths.append(path)
        if path.exists():
            continue
        report(f"gradients on {dataset} …")
        data = load_dataset(dataset, data_dir=data_dir)
        found = _gradients(dataset, ESTIMATOR_STEPS.get(dataset, ESTIMATOR_STEPS["mnist"]), data, device)
        save_dataset(found.assign_attrs(dataset=dataset, data_hash=data.data_hash), path)
    return paths


def _gradients(dataset: str, steps: Sequence[float], data: ImageData, device: str) -> xr.Dataset:
    size, config = _SIZES[dataset], _short(dataset)
    [trained] = train_group([config], data, device=device)
    if isinstance(trained, DivergedError):
        raise trained
    # Training images, since it is their loss that training is to lower; the last ones.
    part = slice(len(data.x_train) - size.images, None)
    found = []
    for rule in ESTIMATOR_RULES:
        for step in steps:
            own = config.replace(rule=rule, delta_t=step)
            quality = gradient_quality(
                trained.network,
                data.x_train[part],
                data.y_train[part],
                own,
                estimators=_measured_estimators(),
                n_directions=size.directions,
            )
            found.append(quality.assign_coords(rule=rule, delta_t=step).expand_dims(["rule", "delta_t"]))
    return combined(found)
