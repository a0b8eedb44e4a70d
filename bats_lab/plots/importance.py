"""What a search found: its runs as a table, and which of the parameters that it drew mattered."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
import xarray as xr

from bats_lab.errors import BatsLabError
from bats_lab.plots import style
from bats_lab.plots.runs import check_choice, dataset_name
from bats_lab.runs.metrics import RUN_DIMS, choice_split, last_epoch, pareto_front

__all__ = ["plot_importance", "search_table"]

#: Measures whose variation is explained, and whether they are good when large.
_MEASURES = {"accuracy": True, "spikes": False, "decision time": False}

#: Runs from which on importance says anything.
_FEWEST = 10


def plot_importance(
    dataset: xr.Dataset, *, measures: Sequence[str] = ("accuracy", "spikes"), title: str | None = None
) -> hv.Overlay:
    """Plot how much each parameter of a search mattered for what its runs reached: a dot a parameter and measure.

    Parameters
    ----------
    dataset : xarray.Dataset
        Results of a search, as :func:`bats_lab.open_results` gives them: over `trial`.
    measures : sequence of str
        ``accuracy``, ``spikes`` (per sample, all layers), ``decision time``; on the samples held out where runs hold
        out some (decision time: on the test samples).
    title : str or None
        As in all plots (:mod:`bats_lab.plots`).

    Returns
    -------
    holoviews.Overlay
        Shares of each measure add up to 1.

    Raises
    ------
    ValueError
        If the results are of no search, or of fewer than ten runs, or a measure is not known.
    BatsLabError
        If Optuna (the extra ``search``) is not there.

    Notes
    -----
    PED-ANOVA (Watanabe et al., *IJCAI* 2023): how far each parameter's distribution among the better runs is from that
    among all. It tells what distinguishes good runs within the ranges searched; interactions are not told apart.
    """
    shares = importances(dataset, measures)
    names = sorted(next(iter(shares.values())), key=lambda name: sum(own[name] for own in shares.values()))
    where, x = hv.Dimension("place", label=" "), hv.Dimension("share", label="share of what mattered")
    elements, legend = [], []
    for i, (measure, own) in enumerate(shares.items()):
        color = style.SERIES_COLORS[i]
        values = [own[name] for name in names]
        places = np.arange(len(names)) + 0.18 * (i - (len(shares) - 1) / 2)
        points = hv.Scatter({"share": values, "place": places}, x, where, label=measure)
        elements.append(style.points(points, color, series=i, size=1.4))
        legend.append(style.LegendEntry(measure, color, marker=i))
    ticks = [(i, name.replace("_", " ")) for i, name in enumerate(names)]
    number = int(dataset["accuracy"].notnull().any(["epoch", "split"]).sum())
    given = f"{dataset_name(dataset)}, {number} runs".removeprefix(", ") if title is None else title
    return style.overlay(
        elements,
        legend=legend,
        title=given,
        axes=(x, where),
        width=560,
        height=120 + 44 * len(names),
        xlim=(-0.03, 1.03),
        ylim=(-0.6, len(names) - 0.4),
        yticks=ticks,
    )


def search_table(dataset: xr.Dataset, *, front: bool = True) -> pd.DataFrame:
    """List the runs of a search, the most accurate first: what was drawn for each, and what it reached.

    Parameters
    ----------
    dataset : xarray.Dataset
        Results of a search, over `trial`.
    front : bool
        Whether to list only those that no other beats in accuracy and spikes.

    Returns
    -------
    pandas.DataFrame
        Accuracy and spikes per sample on the samples held out, test accuracy, decision time (s), then what was drawn.

    Raises
    ------
    ValueError
        If the results are of no search.
    """
    columns, reached = _table(dataset)
    table = pd.DataFrame(reached | columns)
    chosen = pareto_front(reached["spikes"], reached["accuracy"]) if front else np.arange(len(table))
    return table.iloc[chosen].sort_values("accuracy", ascending=False, ignore_index=True)


def importances(dataset: xr.Dataset, measures: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return for each measure the share of each parameter; as :func:`plot_importance` has it."""
    for measure in measures:
        check_choice("measures", measure, tuple(_MEASURES))
    columns, reached = _table(dataset)
    if len(columns) == 0 or len(reached["accuracy"]) < _FEWEST:
        raise ValueError(f"There are {len(reached['accuracy'])} runs; importance is told of {_FEWEST} at least.")
    try:
        import optuna
    except ImportError as error:
        raise BatsLabError("Importance needs the package optuna: pip install 'bats-lab[search]'.") from error
    axes: dict[str, Any] = {}
    for name, values in columns.items():
        if values.dtype.kind in "iuf":
            low, high = float(values.min()), float(values.max())
            axes[name] = optuna.distributions.FloatDistribution(low, high, log=low > 0 and high >= 10 * low)
        else:
            axes[name] = optuna.distributions.CategoricalDistribution(list(dict.fromkeys(values.tolist())))
    found = {}
    for measure in measures:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(direction="maximize" if _MEASURES[measure] else "minimize")
        for i, value in enumerate(reached[measure]):
            if np.isfinite(value):
                params = {name: values[i].item() for name, values in columns.items()}
                study.add_trial(optuna.trial.create_trial(params=params, distributions=axes, value=float(value)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is experimental
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
        found[measure] = {name: float(shares.get(name, 0.0)) for name in columns}
    return found


def _table(dataset: xr.Dataset) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """List the runs: what was drawn for each, of what differs, and what each reached."""
    if "trial" not in dataset.dims:
        raise ValueError("The results have no dimension 'trial'; these are no runs of a search.")
    last, split = last_epoch(dataset), choice_split(dataset)
    reached = xr.Dataset(
        {
            "accuracy": last["accuracy"].sel(split=split, drop=True),
            "test accuracy": last["accuracy"].sel(split="test", drop=True),
            "spikes": last["spike_count"].sel(split=split, drop=True).sum("layer"),
            "decision time": last["decision_time"],
        }
    )
    dims = [dim for dim in ("trial", *RUN_DIMS) if dim in reached.dims]
    flat = reached.stack(run=dims)
    flat = flat.isel(run=np.flatnonzero(flat["accuracy"].notnull().values))
    free = [str(name) for name, c in dataset.coords.items() if c.dims == ("trial",) and name != "trial"]
    drawn = {name: flat[name].values for name in [*(dim for dim in dims if dim not in ("trial", "seed")), *free]}
    columns = {name: values for name, values in drawn.items() if len(set(values.tolist())) > 1}
    return columns, {str(name): values.values for name, values in flat.data_vars.items()}
