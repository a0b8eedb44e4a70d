"""The answer to why training collapses, in tables of accuracies (%) and points of accuracy lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import xarray as xr

from bats_lab.plots.runs import after_epoch, runs_to_draw
from bats_lab.plots.style import delta_t_label
from bats_lab.studies.collapse.experiments import agreement
from bats_lab.studies.panels import drawn_rules

__all__ = ["gradient_table", "lost_under_rules", "lost_without_training"]

#: Points of accuracy below continuous time from which on a network counts as collapsed.
COLLAPSED = 10.0


def lost_under_rules(results: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """List what each rule costs against continuous time, at the first time step at which ``drop`` has collapsed.

    Of the comparison of rules by data set: one row for each in which networks collapse under ``drop``, with the points
    of test accuracy lost, by rule.
    """
    rows = []
    for name, part in results.items():
        last = 100 * after_epoch(runs_to_draw(part), None)["accuracy"].sel(split="test").mean("seed")
        if 0.0 not in last["delta_t"].values or "drop" not in last["rule"].values:
            continue
        lost = last.sel(delta_t=0.0).max("rule") - last
        step = _first_collapsed(lost.sel(rule="drop"))
        if step is not None:
            rows.append({"data set": name, "Δt": delta_t_label(step)} | _by_rule(lost.sel(delta_t=step)))
    return pd.DataFrame(rows)


def lost_without_training(cross: Mapping[str, xr.Dataset], drive: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """List accuracies of networks trained in continuous time, at the first time step at which ``drop`` fails them.

    Of ``cross_test`` and ``drive_response`` by data set: test accuracy in continuous time and, by rule, at that time
    step; and what a single neuron sends there under ``drop``, at most and when it is driven hardest.
    """
    rows = []
    for name, part in cross.items():
        accuracy = 100 * part["accuracy"].mean("seed").sel(trained_at=0.0, drop=True)
        best = float(accuracy.sel(rule="drop", tested_at=0.0))
        step = _first_collapsed(best - accuracy.sel(rule="drop"))
        if step is None:
            continue
        row = {"data set": name, "continuous": f"{best:.1f}", "tested at": delta_t_label(step)}
        row |= _by_rule(accuracy.sel(tested_at=step))
        if name in drive and step in drive[name]["delta_t"].values:
            sent = drive[name]["spike_count"].isel(pattern=0).sel(rule="drop", delta_t=step)
            row["a neuron's spikes under drop"] = f"{int(sent.max())} at most, {int(sent[-1])} driven hardest"
        rows.append(row)
    return pd.DataFrame(rows).fillna("")


def gradient_table(quality: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """List how the straight-through gradient correlates with the change of the loss, at weights of continuous time.

    Of ``gradient_quality`` by data set: at its finest and at its coarsest time step, one column a rule.
    """
    rows = []
    for name, part in quality.items():
        agrees = agreement(part).sel(weights="continuous", gradient="straight_through")
        for step in (float(agrees["delta_t"].min()), float(agrees["delta_t"].max())):
            rows.append({"data set": name, "Δt": delta_t_label(step)} | _by_rule(agrees.sel(delta_t=step), digits=2))
    return pd.DataFrame(rows)


def _first_collapsed(lost: xr.DataArray) -> float | None:
    """Return the finest time step of a one-dimensional loss at which networks have collapsed; None: at none."""
    steps = lost[lost.dims[0]].values[lost.values >= COLLAPSED]
    return float(steps[0]) if len(steps) else None


def _by_rule(values: xr.DataArray, digits: int = 1) -> dict[str, Any]:
    return {rule: f"{float(values.sel(rule=rule)):.{digits}f}" for rule in drawn_rules(values)}
