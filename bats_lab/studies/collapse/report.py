"""The answer to why training collapses, in figures and sentences."""

from __future__ import annotations

from collections.abc import Mapping

import xarray as xr

from bats_lab.plots.runs import after_epoch, runs_to_draw
from bats_lab.plots.style import delta_t_label
from bats_lab.studies.collapse.experiments import COLLAPSE_RULES, agreement

__all__ = ["describe_collapse"]

# Points of accuracy that count as a collapse.
_COLLAPSED = 10.0


def describe_collapse(results: Mapping[str, xr.Dataset], experiments: Mapping[str, Mapping[str, xr.Dataset]]) -> str:
    """Say in three sentences why training collapses at a coarse time step, with the numbers.

    Parameters
    ----------
    results : mapping of str to xarray.Dataset
        The comparison of collision rules, by data set.
    experiments : mapping
        As :func:`bats_lab.studies.collapse.experiments.open_experiments` returns them.

    Returns
    -------
    str
        Markdown: a list of three sentences. Where runs or experiments are missing, a sentence says so.
    """
    sentences = (
        _collapse_by_rule(results),
        _collapse_without_training(experiments["cross_test"], experiments["drive_response"]),
        _collapse_and_gradient(experiments["gradient_quality"], experiments["train_crossed"]),
    )
    return "\n".join(f"{i}. {text}" for i, text in enumerate(sentences, 1))


def _collapse_by_rule(results: Mapping[str, xr.Dataset]) -> str:
    told, blamed = [], []
    for name, part in results.items():
        last = 100 * after_epoch(runs_to_draw(part), None)["accuracy"].sel(split="test").mean("seed")
        if 0.0 not in last["delta_t"].values or "drop" not in last["rule"].values:
            continue
        lost = float(last.sel(delta_t=0.0).max()) - last
        drop = lost.sel(rule="drop").dropna("delta_t")
        collapsed = drop["delta_t"].values[drop.values >= _COLLAPSED]
        if not len(collapsed):
            continue
        here = lost.sel(delta_t=collapsed[0])
        others = {rule: float(here.sel(rule=rule)) for rule in COLLAPSE_RULES[1:] if rule in last["rule"].values}
        told.append(
            f"on {name} at {delta_t_label(collapsed[0])} {float(here.sel(rule='drop')):.1f} points under `drop`, "
            + ", ".join(f"{value:.1f} under `{rule}`" for rule, value in others.items())
        )
        blamed += [value < float(here.sel(rule="drop")) / 2 for value in others.values()]
    if not blamed:
        return "In these runs no network collapses under `drop` beside others that have another rule."
    verdict = (
        "Training collapses from rule `drop`, not from the straight-through estimator, which all rules share"
        if all(blamed)
        else "Training collapses under `drop`, but not under that rule alone"
    )
    return (
        f"**{verdict}**: at the first time step that costs `drop` {_COLLAPSED:g} points or more, networks of the same "
        f"seeds lose, against continuous time, {'; '.join(told)}."
    )


def _first_collapsed(accuracy: xr.DataArray, best: float) -> float | None:
    """Return the finest time step at which accuracy (%, over time steps) has collapsed; None: it does at none."""
    steps = accuracy[accuracy.dims[0]].values[accuracy.values <= best - _COLLAPSED]
    return float(steps[0]) if len(steps) else None


def _collapse_without_training(cross: Mapping[str, xr.Dataset], drive: Mapping[str, xr.Dataset]) -> str:
    told = []
    for name, part in cross.items():
        everything = 100 * part["accuracy"].mean("seed")
        accuracy = everything.sel(trained_at=0.0)
        best = float(accuracy.sel(rule="drop", tested_at=0.0))
        step = _first_collapsed(accuracy.sel(rule="drop"), best)
        if step is None:
            continue
        others = ", ".join(
            f"{float(accuracy.sel(rule=rule, tested_at=step)):.1f} % under `{rule}`"
            for rule in COLLAPSE_RULES
            if rule in part["rule"].values
        )
        text = f"on {name} they have {best:.1f} % in continuous time and, "
        text += f"tested at {delta_t_label(step)}, {others}"
        if name in drive and step in drive[name]["delta_t"].values:
            steady = drive[name].isel(pattern=0).sel(rule="drop", delta_t=step)["spike_count"]
            text += (
                f", where a single neuron under `drop` sends {int(steady.max())} spikes at most and "
                f"{int(steady.isel(drive=-1))} when it is driven hardest"
            )
        steps = part["trained_at"]
        same = everything.sel(
            rule="drop", trained_at=steps, tested_at=xr.DataArray(steps.values, {"trained_at": steps})
        )
        failed = _first_collapsed(same, best)
        if failed is not None:
            learned = everything.sel(rule="drop", trained_at=failed)
            text += (
                f"; those trained by the estimator under `drop` at {delta_t_label(failed)} have "
                f"{float(learned.sel(tested_at=failed)):.1f} % there, but {float(learned.sel(tested_at=0.0)):.1f} % in "
                "continuous time"
            )
        told.append(text)
    if not told:
        return "Networks trained in continuous time do not collapse under `drop` in these results, or were not tested."
    return (
        "**It takes no training on the grid**: networks trained in continuous time have never met the estimator; "
        f"{'; '.join(told)}."
    )


def _collapse_and_gradient(quality: Mapping[str, xr.Dataset], crossed: Mapping[str, xr.Dataset]) -> str:
    told = []
    for name, part in quality.items():
        agrees = agreement(part).sel(weights="continuous", gradient="straight_through")
        finest, coarsest = float(agrees["delta_t"].min()), float(agrees["delta_t"].max())
        text = (
            f"on {name} its correlation with the true change of the loss is "
            f"{float(agrees.sel(delta_t=finest).mean('rule')):.2f} at {delta_t_label(finest)} and, at "
            f"{delta_t_label(coarsest)}, "
        )
        text += ", ".join(
            f"{float(agrees.sel(rule=rule, delta_t=coarsest)):.2f} under `{rule}`"
            for rule in COLLAPSE_RULES
            if rule in agrees["rule"].values
        )
        if name in crossed:
            accuracy = 100 * crossed[name]["accuracy"].sel(rule="drop", tested="grid").mean("seed")
            step = float(accuracy["delta_t"].min())
            here = {
                (e, g): float(accuracy.sel(delta_t=step, errors=e, gradient=g)) for e, g in (_GRID, _EXACT_GRADIENT)
            }
            text += (
                f"; training under `drop` at {delta_t_label(step)} with the exact gradient of continuous time in its "
                f"place gives {here[_EXACT_GRADIENT]:.1f} %, with its own {here[_GRID]:.1f} %"
            )
        told.append(text)
    if not told:
        return "The quality of gradients has not been measured yet."
    return f"**How good the straight-through gradient is**: {'; '.join(told)}."


#: Where the errors and the gradients of a training come from.
_GRID, _EXACT_GRADIENT = ("grid", "grid"), ("grid", "continuous")


#: Level of the tests over paired seeds, after correction.
_LEVEL = 0.05
