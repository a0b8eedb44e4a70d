"""Where the clock begins to hurt, and what foretells it, in tables."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr

from bats_lab.config import Config
from bats_lab.plots.style import delta_t_label
from bats_lab.runs.metrics import last_epoch
from bats_lab.spikes.rules import RULES
from bats_lab.studies.collapse.law import collapse_step
from bats_lab.studies.statistics import LEVEL, holm, mean_and_std, paired
from bats_lab.studies.timing.experiments import highest_telling

__all__ = ["LOST", "hurting_steps", "predictor_table", "step_where_lost", "timing_table", "trained_accuracy"]

#: Points of accuracy from which on the clock hurts.
LOST = 2.0


def trained_accuracy(part: xr.Dataset) -> xr.DataArray:
    """Return test accuracy after the last epoch, in %, over (rule, delta_t, seed); continuous time is of every rule."""
    accuracy = 100 * last_epoch(part)["accuracy"].sel(split="test", drop=True)
    accuracy = accuracy.expand_dims([dim for dim in ("rule", "delta_t", "seed") if dim not in accuracy.dims])
    exact = accuracy.where(accuracy["delta_t"] == 0).max(["rule", "delta_t"])
    return accuracy.where(accuracy["delta_t"] > 0, exact).transpose("rule", "delta_t", "seed")


def step_where_lost(steps: np.ndarray, lost: np.ndarray, points: float = LOST) -> float:
    """Return the time step, or jitter, at which so many points of accuracy are lost for good.

    Parameters
    ----------
    steps : ndarray of float, (step,)
        Ascending; 0 is continuous time.
    lost : ndarray of float, (step,)
        Points of accuracy lost at each; NaN where nobody knows.
    points : float

    Returns
    -------
    float
        Between the last step that loses less and the next one, where a straight line over the logarithm of steps
        crosses `points`; NaN if the largest step loses less, or the smallest above 0 loses more.

    Examples
    --------
    >>> round(step_where_lost(np.array([0, 0.001, 0.01, 0.1]), np.array([0, 1.0, 3.0, 40.0])), 5)
    0.00316
    """
    known = np.isfinite(lost) & (steps > 0)
    steps, lost = steps[known], lost[known]
    below = np.flatnonzero(lost < points)
    if not len(below) or below[-1] + 1 == len(steps):
        return math.nan
    i = int(below[-1])
    share = (points - lost[i]) / (lost[i + 1] - lost[i])
    return float(steps[i] * (steps[i + 1] / steps[i]) ** share)


def hurting_steps(accuracy: xr.DataArray, points: float = LOST) -> dict[str, float]:
    """Return for each rule the time step (s) at which the mean over seeds has lost so many points.

    `accuracy` is that of :func:`trained_accuracy`; a time step counts with the seeds that have it and continuous time.
    """
    lost = (accuracy.sel(delta_t=0.0) - accuracy).mean("seed")
    return {
        rule: step_where_lost(lost["delta_t"].values, lost.sel(rule=rule).values, points)
        for rule in RULES
        if rule in lost["rule"].values
    }


def timing_table(results: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Hold every time step against continuous time, over paired seeds, one row a data set, rule and time step.

    Differences of test accuracy are in points, with their 95 % interval; ``p`` is corrected for all rows of the data
    set (Holm).
    """
    rows = []
    for name, part in results.items():
        accuracy = trained_accuracy(part)
        if 0.0 not in accuracy["delta_t"].values:
            continue
        own = []
        for rule in [rule for rule in RULES if rule in accuracy["rule"].values]:
            for step in [step for step in accuracy["delta_t"].values.tolist() if step > 0]:
                values = accuracy.sel(rule=rule, delta_t=step)
                against = paired(values.values, accuracy.sel(rule=rule, delta_t=0.0).values)
                if against.seeds:
                    known = values.values[np.isfinite(values.values)]
                    own.append((rule, step, mean_and_std(known), against))
        for (rule, step, spread, against), p in zip(own, holm([a.p for *_, a in own]), strict=True):
            interval = f" [{against.low:+.1f}, {against.high:+.1f}]" if np.isfinite(against.low) else ""
            row = {"data set": name, "rule": rule, "Δt": delta_t_label(step), "seeds": str(against.seeds)}
            row |= {"test accuracy (%)": spread, "difference (points)": f"{against.difference:+.1f}{interval}"}
            row |= {"p": f"{p:.2g}" if np.isfinite(p) else "", "lost beyond chance": "yes" if p < LEVEL else ""}
            rows.append(row)
    return pd.DataFrame(rows)


def predictor_table(
    results: Mapping[str, xr.Dataset], measured: Mapping[str, xr.Dataset], *, points: float = LOST
) -> pd.DataFrame:
    r"""List where the clock hurts beside what foretells it, one row a data set; time steps in ms, and in units of τ_s.

    Columns are the step at which training has lost `points` under each rule; that of the input's clock alone, and of
    all clocks under ``graded``, on networks of continuous time; and what foretells: :math:`\sqrt{12}` times the jitter
    that costs as much, half a period of the frequency below which 95 % of what tells classes apart lies, and the
    collapse of output counts (:func:`bats_lab.studies.collapse.law.collapse_step`).
    """
    rows = []
    for name in dict.fromkeys((*results, *measured)):
        config, row = Config(dataset=name), {"data set": name}

        def text(seconds: float, tau: float = config.tau_syn) -> str:
            return f"{1e3 * seconds:.2g} ({seconds / tau:.2g} τ_s)" if np.isfinite(seconds) else "–"

        trained = hurting_steps(trained_accuracy(results[name]), points) if name in results else {}
        row |= {f"trained, {rule}": text(trained.get(rule, math.nan)) for rule in RULES}
        if name in measured:
            own = measured[name]
            alone, whole = (
                (100 * (values.sel(delta_t=0.0) - values)).mean("seed")
                for values in (own["input_accuracy"], own["network_accuracy"].sel(rule="graded"))
            )
            row["input's clock alone"] = text(step_where_lost(alone["delta_t"].values, alone.values, points))
            row["not trained again, graded"] = text(step_where_lost(whole["delta_t"].values, whole.values, points))
            jittered = own["jittered_accuracy"].mean("draw")
            lost = (100 * (jittered.sel(jitter=0.0) - jittered)).mean("seed")
            sigma = step_where_lost(lost["jitter"].values, lost.values, points)
            row["√12 · jitter"] = text(math.sqrt(12) * sigma)
            row["spectrum"] = text(0.5 / highest_telling(own.isel(seed=0)))
        row["collapse of counts"] = text(collapse_step(config.target_true, config.duration, config.tau_syn))
        rows.append(row)
    return pd.DataFrame(rows).fillna("–")
