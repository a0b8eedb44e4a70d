"""Gradient estimators side by side, in tables."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr

from bats_lab.plots.runs import spread_text
from bats_lab.plots.style import delta_t_label
from bats_lab.runs.metrics import choice_split, last_epoch
from bats_lab.spikes.estimators import ESTIMATORS
from bats_lab.studies.collapse.experiments import agreement
from bats_lab.studies.estimators.study import CONTRASTS
from bats_lab.studies.statistics import (
    LEVEL,
    difference_text,
    equivalence,
    equivalence_power,
    holm,
    paired,
    power,
)

#: Points of accuracy within which two estimators count as equal.
MARGIN = 0.2

__all__ = [
    "MARGIN",
    "agreement_table",
    "compare_estimators",
    "contrasts_table",
    "estimator_summary",
    "estimator_table",
]


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
    last = last.sel(seed=_seeds_of_all(last))
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


def _seeds_of_all(accuracy: xr.DataArray) -> np.ndarray:
    """Return the seeds with which more was trained than contrasts, or all where there are no others."""
    known = accuracy.notnull().any(["split", "estimator"]).stack(place=("rule", "delta_t"))
    more = known.sel(place=[place not in CONTRASTS for place in known["place"].values.tolist()]).any("place")
    seeds: np.ndarray = more["seed"].values[more.values]
    return seeds if len(seeds) else accuracy["seed"].values


def contrasts_table(results: Mapping[str, xr.Dataset], *, baseline: str = "straight_through") -> pd.DataFrame:
    """Lay out, for the few contrasts chosen beforehand, tests of difference and of equality over all seeds of them.

    Of the comparison by data set: one row a place of :data:`bats_lab.studies.estimators.study.CONTRASTS` and estimator,
    with the difference of test accuracy (points) and its 95 % interval, *p* of the paired t-test and of the two
    one-sided tests within 0.2 points, both after Holm over all rows of the data set; and with which power each so
    corrected test sees a difference of one standard deviation, or that there is none.
    """
    rows = []
    for name, part in results.items():
        if "estimator" not in part.dims or not {"rule", "delta_t"} <= set(part.dims):
            continue
        test = 100 * last_epoch(part)["accuracy"].sel(split="test")
        own = []
        for rule, step in CONTRASTS:
            if rule not in test["rule"].values or step not in test["delta_t"].values:
                continue
            at = test.sel(rule=rule, delta_t=step)
            for other in [n for n in ESTIMATORS if n in at["estimator"].values and n != baseline]:
                values, base = at.sel(estimator=other).values, at.sel(estimator=baseline).values
                against = paired(values, base)
                std = float(np.nanstd(values - base, ddof=1)) if against.seeds > 1 else np.nan
                if against.seeds > 1 and std:
                    own.append((rule, step, other, against, std, equivalence(values, base, MARGIN)))
        differ, equal = holm([row[3].p for row in own]), holm([row[-1] for row in own])
        for (rule, step, other, against, std, _), p, p_equal in zip(own, differ, equal, strict=True):
            level = LEVEL / len(own)
            rows.append(
                {
                    "data set": name,
                    "rule": f"`{rule}`",
                    "Δt": delta_t_label(step),
                    "estimator": f"`{other}`",
                    "seeds": against.seeds,
                    "difference (points)": difference_text(against, 2),
                    "std": f"{std:.2f}",
                    "p": f"{p:.2g}",
                    "power for one std": f"{power(1.0, against.seeds, level):.2f}",
                    "p (equal)": f"{p_equal:.2g}",
                    "power if equal": f"{equivalence_power(std, against.seeds, MARGIN, level):.2f}",
                }
            )
    return pd.DataFrame(rows)


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
        row["largest difference"] = f"{difference_text(largest, 2)}: {where}"
        test = 100 * last_epoch(part)["accuracy"].sel(split="test", estimator="straight_through")
        if {"drop", "graded"} <= set(np.ravel(part["rule"].values)):
            steps = [step for step in test["delta_t"].values.tolist() if step > 0]
            gains = {
                step: paired(*(test.sel(delta_t=step, rule=rule) for rule in ("graded", "drop"))) for step in steps
            }
            step = max(gains, key=lambda step: np.nan_to_num(abs(gains[step].difference)))
            row["`graded` in place of `drop`"] = f"{difference_text(gains[step], 2)}: {delta_t_label(step)}"
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
                    "difference (points)": difference_text(row, 2),
                    "p": f"{row.p_holm:.2g}" if np.isfinite(row.p_holm) else "",
                    "p (equal)": f"{row.p_equal:.2g}" if np.isfinite(row.p_equal) else "",
                }
            )
    return pd.DataFrame(rows)
