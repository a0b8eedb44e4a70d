"""Gradient estimators side by side, in a table and sentences."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr

from bats_lab.plots.report import at_step, counted
from bats_lab.plots.style import delta_t_label
from bats_lab.runs.metrics import last_epoch
from bats_lab.studies.collapse.experiments import agreement
from bats_lab.studies.estimators.comparison import compare_estimators, paired

__all__ = ["describe_estimators", "estimator_table"]

# What counts as more than chance.
_LEVEL = 0.05


def describe_estimators(results: Mapping[str, xr.Dataset], gradients: Mapping[str, xr.Dataset]) -> str:
    """Tell which gradient estimators are better than the straight-through one, where, and by how much.

    Parameters
    ----------
    results : mapping of str to xarray.Dataset
        The comparison, by data set, over `estimator`, `delta_t`, `rule` and `seed`.
    gradients : mapping of str to xarray.Dataset
        As :func:`bats_lab.studies.estimators.comparison.open_gradients` returns them.

    Returns
    -------
    str
        Markdown: a sentence or two for each data set.
    """
    told = []
    for name, part in _compared(results).items():
        table = compare_estimators(part)
        if not len(table):
            continue
        sentences = [_estimators_of(name, table), _rule_instead(part)]
        if name in gradients:
            sentences.append(_agreement_of(gradients[name]))
        told.append("- " + " ".join(filter(None, sentences)))
    missing = "No two estimators were run on the same seeds yet; `bats-lab reproduce estimators` does that."
    return "\n".join(told) or missing


def _compared(results: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Return the parts of the results in which estimators differ."""
    return {name: part for name, part in results.items() if "estimator" in part.dims}


def _estimators_of(name: str, table: pd.DataFrame) -> str:
    def listed(rows: pd.DataFrame) -> str:
        return "; ".join(
            f"`{row.estimator}` under `{row.rule}` {at_step(row.delta_t)}: {row.difference:+.1f} points "
            f"[{row.low:+.1f}, {row.high:+.1f}], p = {row.p_holm:.2g}"
            for row in rows.itertuples()
        )

    seeds = int(table["seeds"].max())
    head = f"**{name}**, {counted(seeds, 'seed')}, test accuracy against `straight_through`: "
    if seeds < 2:
        widest = table.loc[table["difference"].abs().idxmax()]
        return (
            f"{head}one seed tells no difference from chance; the largest is {widest['difference']:+.1f} points "
            f"(`{widest['estimator']}` under `{widest['rule']}` {at_step(widest['delta_t'])})."
        )
    clear = table[table["p_holm"] < _LEVEL]
    better, worse = clear[clear["difference"] > 0], clear[clear["difference"] < 0]
    parts = [f"{word} are {listed(rows)}" for word, rows in (("better", better), ("worse", worse)) if len(rows)]
    rest = len(table) - len(clear)
    told = "; ".join(parts) if parts else f"in none of {len(table)} comparisons is there a difference beyond chance"
    if rest and parts:
        told += f"; in the other {rest} of {len(table)} comparisons there is no difference that chance would not make"
    largest = table["difference"].abs().where(table["p_holm"] >= _LEVEL).max()
    return f"{head}{told}" + (f" (the largest is {largest:.1f} points)." if rest else ".")


def _rule_instead(part: xr.Dataset) -> str:
    """Tell what the collision rule changes where it changes most, to hold what estimators change against."""
    if not {"drop", "graded"} <= set(part["rule"].values.ravel().tolist()):
        return ""
    test = 100 * last_epoch(part)["accuracy"].sel(split="test", estimator="straight_through")
    gains = {
        step: paired(test.sel(delta_t=step, rule="graded").values, test.sel(delta_t=step, rule="drop").values)
        for step in part["delta_t"].values[part["delta_t"].values > 0].tolist()
    }
    known = {step: gain for step, gain in gains.items() if gain.seeds > 1}
    if not known:
        return ""
    step = max(known, key=lambda step: abs(known[step].difference))
    gain = known[step]
    return (
        f"For comparison, `graded` in place of `drop`, both with `straight_through`, gives "
        f"{gain.difference:+.1f} points [{gain.low:+.1f}, {gain.high:+.1f}] {at_step(step)}."
    )


def _agreement_of(gradients: xr.Dataset) -> str:
    mean = agreement(gradients).mean(["rule", "delta_t"]).to_series().drop("continuous", errors="ignore")
    ordered = mean.sort_values(ascending=False)
    told = ", ".join(f"{value:.2f} of `{name}`" for name, value in ordered.items())
    return f"The true change of the loss correlates, on average over rules and time steps, with the gradients: {told}."


def estimator_table(results: Mapping[str, xr.Dataset]) -> str:
    """Lay out the comparison of estimators as a table in Markdown, one row a data set, rule, time step and estimator.

    Parameters
    ----------
    results : mapping of str to xarray.Dataset
        The comparison, by data set.
    """
    head = (
        "data set",
        "rule",
        "Δt",
        "estimator",
        "seeds",
        "test accuracy (%)",
        "choice (%)",
        "difference (points)",
        "p",
    )
    rows = []
    for name, part in _compared(results).items():
        for row in compare_estimators(part).itertuples():
            spread = f" ± {row.std:.2f}" if np.isfinite(row.std) else ""
            interval = f" [{row.low:+.2f}, {row.high:+.2f}]" if np.isfinite(row.low) else ""
            rows.append(
                (
                    name,
                    row.rule,
                    delta_t_label(row.delta_t),
                    row.estimator,
                    str(row.seeds),
                    f"{row.accuracy:.2f}{spread}",
                    f"{row.choice:.2f}" + ("" if row.chosen_by == "validation" else " (test)"),
                    f"{row.difference:+.2f}{interval}",
                    f"{row.p_holm:.2g}" if np.isfinite(row.p_holm) else "",
                )
            )
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))
