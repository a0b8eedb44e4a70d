"""Gradient estimators side by side, in tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bats_lab.plots.runs import spread_text
from bats_lab.plots.style import delta_t_label
from bats_lab.runs.metrics import choice_split, last_epoch
from bats_lab.spikes.estimators import ESTIMATORS
from bats_lab.studies.collapse.experiments import agreement
from bats_lab.studies.statistics import LEVEL, equivalence, holm, paired, power

#: Points of accuracy within which two estimators count as equal.
MARGIN = 0.2

__all__ = ["MARGIN", "agreement_table", "compare_estimators", "estimator_summary", "estimator_table"]


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
        One row a rule, time step (s) and other estimator, after the last epoch: mean and standard deviation of test
        ``accuracy``; ``chosen_by`` and ``choice``, the accuracy by which an estimator may be chosen
        (`metrics.choice_split`); of test accuracy the fields of :class:`bats_lab.studies.statistics.Paired` against the
        baseline; and ``p_holm``, its ``p`` corrected for all rows; likewise ``p_equal``, of a difference below
        0.2 points (:func:`bats_lab.studies.statistics.equivalence`); and ``power``, with which so corrected a test sees
        a difference of one standard deviation. Accuracies are in %, differences in percentage
        points.

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
    last = last.expand_dims([dim for dim in ("rule", "delta_t", "seed") if dim not in last.dims])
    rows = []
    for rule in last["rule"].values.tolist():
        for delta_t in last["delta_t"].values.tolist():
            point = last.sel(rule=rule, delta_t=delta_t)
            base = point.sel(estimator=baseline, split="test").values
            for name in [n for n in ESTIMATORS if n in names and n != baseline]:
                own = point.sel(estimator=name)
                test = own.sel(split="test")
                against = paired(test.values, base)
                if against.seeds:
                    std = float(test.std("seed", ddof=1)) if against.seeds > 1 else np.nan
                    row = {"rule": rule, "delta_t": delta_t, "estimator": name, "accuracy": float(test.mean())}
                    row |= {"std": std, "chosen_by": split, "choice": float(own.sel(split=split).mean())}
                    row["p_equal"] = equivalence(test.values, base, MARGIN)
                    rows.append(row | against._asdict())
    table = pd.DataFrame(rows)
    if not rows:
        return table
    seen = [power(1.0, seeds, LEVEL / len(table)) if seeds > 1 else np.nan for seeds in table["seeds"]]
    return table.assign(p_holm=holm(table["p"]), p_equal=holm(table["p_equal"]), power=seen)


def estimator_summary(results: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Count where estimators are better or worse than the straight-through one, one row a data set.

    Of the comparison by data set (parts in which estimators do not differ are left out): how many comparisons
    there are, in how many the difference is beyond chance, in how many estimators are shown to be equal within 0.2
    points, and with which power a difference of one standard deviation is seen; the largest difference (points) of all,
    and, to hold it against, the largest that ``graded`` makes in place of ``drop``.
    """
    rows = []
    for name, part in results.items():
        table = compare_estimators(part) if "estimator" in part.dims else pd.DataFrame()
        if not len(table):
            continue
        clear, largest = table[table["p_holm"] < LEVEL], table.loc[table["difference"].abs().idxmax()]
        row = {"data set": name, "seeds": table["seeds"].max(), "comparisons": len(table)}
        row |= {"better": (clear["difference"] > 0).sum(), "worse": (clear["difference"] < 0).sum()}
        row[f"equal within {MARGIN} points"] = (table["p_equal"] < LEVEL).sum()
        row["power for one std"] = f"{table['power'].max():.2f}" if table["power"].notna().any() else ""
        where = f"`{largest['estimator']}`, `{largest['rule']}`, {delta_t_label(largest['delta_t'])}"
        row["largest difference"] = f"{_difference(largest)}: {where}"
        test = 100 * last_epoch(part)["accuracy"].sel(split="test", estimator="straight_through")
        if {"drop", "graded"} <= set(np.ravel(part["rule"].values)):
            steps = [step for step in test["delta_t"].values.tolist() if step > 0]
            gains = {
                step: paired(*(test.sel(delta_t=step, rule=rule) for rule in ("graded", "drop"))) for step in steps
            }
            step = max(gains, key=lambda step: np.nan_to_num(abs(gains[step].difference)))
            row["`graded` in place of `drop`"] = f"{_difference(gains[step])}: {delta_t_label(step)}"
        rows.append(row)
    return pd.DataFrame(rows)


def agreement_table(gradients: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """List how gradients (by data set) correlate with the change of the loss, mean over rules and time steps."""
    means = {name: agreement(part).mean(["rule", "delta_t"]).to_series() for name, part in gradients.items()}
    return pd.DataFrame([{"data set": name} | mean.map("{:.2f}".format).to_dict() for name, mean in means.items()])


def estimator_table(results: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Lay out :func:`compare_estimators` for reading, of each data set in which estimators differ."""
    rows = []
    for name, part in results.items():
        if "estimator" not in part.dims:
            continue
        for row in compare_estimators(part).itertuples():
            rows.append(
                {
                    "data set": name,
                    "rule": row.rule,
                    "Δt": delta_t_label(row.delta_t),
                    "estimator": row.estimator,
                    "seeds": str(row.seeds),
                    "test accuracy (%)": spread_text(row.accuracy, row.std, row.seeds, 2),
                    "choice (%)": f"{row.choice:.2f}" + ("" if row.chosen_by == "validation" else " (test)"),
                    "difference (points)": _difference(row),
                    "p": f"{row.p_holm:.2g}" if np.isfinite(row.p_holm) else "",
                    "p (equal)": f"{row.p_equal:.2g}" if np.isfinite(row.p_equal) else "",
                }
            )
    return pd.DataFrame(rows)


def _difference(row: Any) -> str:
    return f"{row.difference:+.2f}" + (f" [{row.low:+.2f}, {row.high:+.2f}]" if np.isfinite(row.low) else "")
