"""Which runs a plot draws: checks of what is handed over, with a sentence where something is missing.

Plots compare time steps, with seeds as repetitions and collision rules as series. Every other dimension
of a sweep (data set, learning rate, …) has to be narrowed to one value first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import xarray as xr

from bats_lab.plots.style import delta_t_label
from bats_lab.runs.metrics import VARIABLES, last_epoch

__all__ = ["split_results"]

#: Dimensions that the plots lay out themselves.
_DRAWN_DIMS = ("delta_t", "seed", "rule")
#: The parameter by which a run keeps what not every run has.
_KEPT_WITH = {
    "spike_times": "keep_samples above 0",
    "weights": "keep_weights='last'",
    "weights_by_epoch": "keep_weights='each'",
}


def split_results(dataset: xr.Dataset, *, keep: Sequence[str] = ()) -> Iterator[tuple[str, xr.Dataset]]:
    """Split results into parts that can be plotted: one for each data set and value of other swept parameters.

    Parameters
    ----------
    dataset : xarray.Dataset
        Results as :func:`bats_lab.open_results` gives them.
    keep : sequence of str
        Swept parameters that are not split.

    Yields
    ------
    name : str
        What tells the part from the others, as "emnist, learning_rate 0.003"; the data set where there is one part.
    part : xarray.Dataset
        Results over `delta_t`, `seed`, `rule` and `keep` only. Parts without any run are left out, and in a part time
        steps, seeds and the like that hold no run of it.
    """
    _check_results(dataset)
    drawn = (*_DRAWN_DIMS, *keep, *VARIABLES["accuracy"].dims)
    others = [str(d) for d in dataset["accuracy"].dims if d not in drawn]
    others.sort(key=lambda dim: dim != "dataset")
    for values in itertools.product(*(dataset[dim].values.tolist() for dim in others)):
        part = dataset.sel(dict(zip(others, values, strict=True)))
        if bool(part["accuracy"].notnull().any()):
            part = _without_gaps(part, *keep)
            names = [] if "dataset" in others else [dataset_name(part)]
            names += [
                dataset_name(part) if dim == "dataset" else f"{dim} {_text(value)}"
                for dim, value in zip(others, values, strict=True)
            ]
            yield ", ".join(name for name in names if name), part


def runs_to_draw(dataset: xr.Dataset, *needed: str, keep: Sequence[str] = ()) -> xr.Dataset:
    """Check results and bring them to the dimensions `delta_t`, `seed` and `rule`, without those that hold no run.

    Dimensions in `keep` stay, too.

    Returns
    -------
    xarray.Dataset
        The variables `needed` and `accuracy`.

    Raises
    ------
    TypeError
        If `dataset` is no Dataset.
    ValueError
        If a variable or dimension is missing, no run is left, or a dimension has to be narrowed first.
    """
    _check_results(dataset, *needed)
    runs = dataset[list(dict.fromkeys(["accuracy", *needed]))]
    if "delta_t" not in runs.coords:
        raise ValueError("The results have no coordinate 'delta_t'; keep it when selecting.")
    if "seed" not in runs.coords:
        runs = runs.assign_coords(seed=0)
    if "rule" not in runs.coords:
        runs = runs.assign_coords(rule="")
    for name in ("accuracy", *needed):
        for dim in VARIABLES[name].dims:
            if dim not in runs[name].dims:
                raise ValueError(f"{name!r} has no dimension {dim!r} left; pass the results before it is selected.")
    own = {dim for name in runs.data_vars for dim in VARIABLES[str(name)].dims}
    for dim in [str(d) for d in runs.dims if d not in own and d not in (*_DRAWN_DIMS, *keep)]:
        if runs.sizes[dim] > 1:
            values = runs[dim].values.tolist()
            raise ValueError(
                f"The results hold several values of {dim!r} ({_listed(map(_text, values))}), and this plot shows one; "
                f"select it first, as in results.sel({dim}={values[0]!r})."
            )
        runs = runs.isel({dim: 0})
    runs = runs.expand_dims([dim for dim in _DRAWN_DIMS if dim not in runs.dims])
    return _without_gaps(runs, *keep).sortby("delta_t")


def _check_results(dataset: xr.Dataset, *needed: str) -> None:
    if not isinstance(dataset, xr.Dataset):
        raise TypeError(f"dataset is a {type(dataset).__name__}; it must be an xarray.Dataset, as of open_results.")
    for name in ("accuracy", *needed):
        if name not in dataset:
            hint = f"; runs keep it with {_KEPT_WITH[name]}" if name in _KEPT_WITH else ""
            raise ValueError(f"The results have no variable {name!r}, which this plot needs{hint}.")


def _without_gaps(runs: xr.Dataset, *more: str) -> xr.Dataset:
    """Leave out time steps, seeds and rules, and labels of `more` dimensions, of which nothing is known."""
    known = runs["accuracy"].notnull()
    if not bool(known.any()):
        raise ValueError("The results hold no finished run; there is nothing to plot.")
    dims = [dim for dim in (*_DRAWN_DIMS, *more) if dim in known.dims]
    there = {dim: known.any([d for d in known.dims if d != dim]).values for dim in dims}
    return runs.isel({dim: np.flatnonzero(mask) for dim, mask in there.items() if not mask.all()})


def after_epoch(runs: xr.Dataset, epoch: int | None) -> xr.Dataset:
    """Return what was measured after an epoch; None: after each run's own last."""
    if epoch is None:
        return last_epoch(runs)
    known = runs["epoch"].values
    if epoch not in known:
        raise ValueError(f"epoch is {epoch}; the results hold {known.min()} to {known.max()}.")
    chosen = runs.sel(epoch=epoch)
    if not bool(chosen["accuracy"].notnull().any()):
        raise ValueError(f"No run has epoch {epoch}.")
    return chosen


def layers_of(values: xr.DataArray, layers: str | Sequence[str] | None) -> list[str]:
    """Check names of layers; None stands for all of which there are values."""
    others = [dim for dim in values.dims if dim != "layer"]
    known = [str(name) for name in values["layer"].values[values.notnull().any(others).values]]
    if layers is None:
        return known
    wanted = [layers] if isinstance(layers, str) else list(layers)
    if not wanted:
        raise ValueError(f"layers is empty; it must name at least one of {', '.join(known)}.")
    for name in wanted:
        if name not in known:
            raise ValueError(f"There is no layer {name!r}; the results hold {', '.join(known)}.")
    return wanted


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a value of an option that is none of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}.")


def check_sample(run: xr.Dataset, sample: int) -> None:
    """Refuse a sample of which a run kept no spikes."""
    kept = run["sample"].values
    if sample not in kept:
        raise ValueError(f"sample is {sample}; the results keep samples {', '.join(map(str, kept))}.")


def one_run(dataset: xr.Dataset, *needed: str, delta_t: float | None, seed: int | None, rule: str | None) -> xr.Dataset:
    """Narrow results to the one run that is asked for; a dimension of which there is one value need not be.

    It has all variables, without the dimensions that tell runs apart; nothing is read from disk. A ValueError tells
    what can be chosen where several runs are left, or none.
    """
    _check_results(dataset, *needed)
    chosen = _narrow(one_time_step(dataset, delta_t=delta_t, rule=rule), "seed", seed)
    if not bool(chosen["accuracy"].notnull().any()):
        raise ValueError(f"The results hold no run with {_described(chosen)}.")
    run = dataset
    for dim in _DRAWN_DIMS:
        if dim in run.dims:
            run = run.sel({dim: chosen[dim].values})
        elif dim not in run.coords:
            run = run.assign_coords({dim: chosen[dim]})
    alone = [str(d) for d in run["accuracy"].dims if d not in VARIABLES["accuracy"].dims]
    return run.isel(dict.fromkeys(alone, 0))


def narrowed(dataset: xr.Dataset, *needed: str, rule: str | None, seed: int | None) -> xr.Dataset:
    """Narrow results to one rule and one seed, which keep their dimensions; None where there is one anyway."""
    runs = runs_to_draw(dataset, *needed)
    for dim, value in (("rule", rule), ("seed", seed)):
        runs = _narrow(runs, dim, value).expand_dims(dim)
    return _without_gaps(runs)


def one_time_step(
    dataset: xr.Dataset, *needed: str, delta_t: float | None, rule: str | None, seed: int | None = None
) -> xr.Dataset:
    """Narrow results to the runs of one time step and rule, and to one seed where that is given."""
    runs = runs_to_draw(dataset, *needed)
    runs = _narrow(_narrow(runs, "rule", rule), "delta_t", delta_t)
    if seed is not None:
        runs = _narrow(runs, "seed", seed)
    if not bool(runs["accuracy"].notnull().any()):
        raise ValueError(f"The results hold no run with {_described(runs)}.")
    return runs


def _narrow(runs: xr.Dataset, dim: str, value: Any) -> xr.Dataset:
    values = runs[dim].values
    if value is None:
        if len(values) > 1:
            raise ValueError(f"The results hold several values of {dim!r}; choose one: {_listed(map(_text, values))}.")
        return runs.isel({dim: 0})
    same = np.isclose(values, value, rtol=1e-6, atol=1e-12) if dim == "delta_t" else values == value
    if not np.any(same):
        raise ValueError(f"{dim} is {value!r}; the results hold {_listed(map(_text, values))}.")
    return runs.isel({dim: int(np.argmax(same))})


def _described(run: xr.Dataset) -> str:
    """Tell a run in words."""
    words = [f"Δt = {float(run['delta_t']) * 1e3:g} ms" if float(run["delta_t"]) else delta_t_label(0)]
    words += [str(run["rule"].values)] if str(run["rule"].values) else []
    return ", ".join([*words, f"seed {int(run['seed'])}"] if run["seed"].ndim == 0 else words)


def run_title(run: xr.Dataset) -> str:
    """Tell a run in words, its data set first."""
    return ", ".join(part for part in (dataset_name(run), _described(run)) if part)


def runs_title(runs: xr.Dataset, rule: str | None = None, *, averaged: bool = True) -> str:
    """Tell what runs, as :func:`runs_to_draw` returns them, are drawn: data set, rule and number of seeds.

    `rule` is the only one drawn, or None; `averaged`, whether means over the seeds are drawn, and not each run.
    """
    rules = runs["rule"].values.tolist() if rule is None else [rule]
    known = runs["accuracy"].notnull()
    known = known.any([d for d in known.dims if d not in _DRAWN_DIMS])
    most = int(known.sel(rule=rules).sum("seed").max())
    least = int(known.sel(rule=rules).sum("seed").where(known.sel(rule=rules).any("seed")).min())
    seeds = seeds_text(most, least) if averaged or most == 1 else f"{least} to {most} seeds".removeprefix(f"{most} to ")
    parts = [dataset_name(runs), rules[0] if len(rules) == 1 else "", seeds]
    return ", ".join(part for part in parts if part)


def seeds_text(most: int, least: int | None = None) -> str:
    """Tell what is drawn of so many seeds; `least`: of the place of which there are fewest."""
    number = str(most) if least in (None, most) else f"{least} to {most}"
    return "1 seed" if most == 1 else f"{number} seeds and their mean" if most == 2 else f"mean ± std of {number} seeds"


def spread_text(mean: float, std: float, n: int, digits: int = 1) -> str:
    """Write the mean of `n` runs and its standard deviation (n - 1); of two runs both values, which these tell.

    Examples
    --------
    >>> spread_text(97.5, 0.7, 5), spread_text(83.3, 6.1, 2), spread_text(97.26, math.nan, 1, digits=2)
    ('97.5 ± 0.7', '79.0 / 87.6', '97.26')
    """
    if n == 2:
        return " / ".join(f"{mean + sign * std / math.sqrt(2):,.{digits}f}" for sign in (-1, 1))
    return f"{mean:,.{digits}f}" + (f" ± {std:,.{digits}f}" if n > 2 else "")


def dataset_name(runs: xr.Dataset) -> str:
    """Name the data set: of an .npz file its stem, in which no plotting library finds a formula."""
    if "dataset" not in runs.coords or runs["dataset"].size != 1:
        return ""
    name = str(runs["dataset"].values.reshape(-1)[0])
    return (PurePath(name.replace("\\", "/")).stem if name.endswith((".npz", ".csv")) else name).replace(
        "$", "\N{FULLWIDTH DOLLAR SIGN}"
    )


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _listed(texts: Any) -> str:
    texts = list(texts)
    return ", ".join(texts) if len(texts) <= 20 else ", ".join(texts[:20]) + ", …"
