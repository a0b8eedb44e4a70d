"""The answer to why training collapses, in tables of accuracies (%) and points of accuracy lost, and in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bats_lab.plots.runs import after_epoch, runs_to_draw
from bats_lab.plots.style import delta_t_label
from bats_lab.runs.metrics import last_epoch
from bats_lab.studies.collapse.experiments import agreement
from bats_lab.studies.collapse.law import collapse_step, law_error, observed_steps
from bats_lab.studies.collapse.trained import LAYER_RULES, TRAINED_ON, with_continuous
from bats_lab.studies.counts import by_counts, own_counts
from bats_lab.studies.panels import drawn_rules
from bats_lab.studies.statistics import difference_text, holm, mean_and_std, paired

__all__ = [
    "answer",
    "clocks_table",
    "compare_counts",
    "counts_table",
    "gradient_table",
    "law_table",
    "layers_table",
    "lost_under_rules",
    "scaling_table",
    "trained_elsewhere",
]

#: Points of accuracy below continuous time from which on a network counts as collapsed.
COLLAPSED = 10.0
#: Points of accuracy below continuous time from which on a clock hurts.
HURT = 5.0
#: The counts that lasted over ten epochs; the default of `error_layers`.
LASTING = "merge, output layer"


def lost_under_rules(results: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """List what each rule costs against continuous time, at the first time step at which ``drop`` has collapsed.

    Of the comparison of rules by data set: one row for each in which networks collapse under ``drop``, with the points
    of test accuracy lost, by rule. The time step is picked on validation images where runs hold some out, else on
    training images, which in the first epoch are met for the first time: not on those on which the loss is told.
    """
    rows = []
    for name, part in results.items():
        last = 100 * after_epoch(runs_to_draw(own_counts(part)), None)["accuracy"]
        if 0.0 not in last["delta_t"].values or "drop" not in last["rule"].values:
            continue
        # Seed by seed: rules may have run with fewer seeds than continuous time.
        lost = (last.sel(delta_t=0.0).max("rule") - last).mean("seed")
        choice = "validation" if "validation" in lost["split"].values else "train"
        step = _first_collapsed(lost.sel(rule="drop", split=choice))
        if step is not None:
            row = {"data set": name, "Δt": delta_t_label(step), "picked on": f"{choice} images"}
            rows.append(row | _by_rule(lost.sel(delta_t=step, split="test")))
    return pd.DataFrame(rows)


def trained_elsewhere(cross: Mapping[str, xr.Dataset], drive: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """List accuracies under ``drop`` of networks trained in continuous time beside those trained at the time step.

    Of ``cross_test`` and ``drive_response`` by data set: one row a time step, test accuracy of either, and what a
    single neuron sends there under ``drop``, at most and when it is driven hardest.
    """
    rows = []
    for name, part in cross.items():
        accuracy = 100 * part["accuracy"].sel(rule="drop")
        exact = accuracy.sel(trained_at=0.0)
        for step in [step for step in part["tested_at"].values.tolist() if step]:
            there = accuracy.sel(tested_at=step)
            row = {"data set": name, "Δt": delta_t_label(step)}
            row["trained in continuous time"] = mean_and_std(exact.sel(tested_at=step).values)
            row["trained at Δt"] = mean_and_std(there.sel(trained_at=step).values)
            row["trained at Δt, tested in continuous time"] = mean_and_std(
                accuracy.sel(trained_at=step, tested_at=0.0).values
            )
            if name in drive and step in drive[name]["delta_t"].values:
                sent = drive[name]["spike_count"].isel(pattern=0).sel(rule="drop", delta_t=step)
                row["a neuron's spikes"] = f"{int(sent.max())} at most, {int(sent[-1])} driven hardest"
            rows.append(row)
    return pd.DataFrame(rows).fillna("")


def compare_counts(part: xr.Dataset) -> pd.DataFrame:
    """Hold other counts in the error against a run's own, under ``drop``, at every time step, over paired seeds.

    Returns
    -------
    pandas.DataFrame
        One row a time step (s) and kind of ``counts`` (:func:`bats_lab.studies.counts.by_counts`), after the last
        epoch: test accuracies (%) of either, ``own`` and ``other``, (seed,); the fields of
        :class:`bats_lab.studies.statistics.Paired`; and ``p_holm``, its ``p`` corrected for all rows. Empty where
        counts do not differ.
    """
    accuracy = {label: _under_drop(runs) for label, runs in by_counts(part).items()}
    rows = []
    for step in sorted({step for values in accuracy.values() for step in values["delta_t"].values.tolist()}):
        for label, values in accuracy.items():
            if label == "own" or step not in values["delta_t"] or step not in accuracy["own"]["delta_t"]:
                continue
            other, own = xr.align(values.sel(delta_t=step), accuracy["own"].sel(delta_t=step))
            against = paired(other.values, own.values)
            if against.seeds:
                known = np.isfinite((other - own).values)
                row = {"delta_t": step, "counts": label, "own": own.values[known], "other": other.values[known]}
                rows.append(row | against._asdict())
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p"])) if rows else table


def _under_drop(runs: xr.Dataset) -> xr.DataArray:
    """Return test accuracy (%) after the last epoch, (delta_t, seed)."""
    last = 100 * last_epoch(runs)["accuracy"].sel(split="test")
    last = last.sel(rule="drop") if "rule" in last.dims else last
    return last.expand_dims([dim for dim in ("delta_t", "seed") if dim not in last.dims])


def counts_table(results: Mapping[str, xr.Dataset], exact: Mapping[str, xr.Dataset] | None = None) -> pd.DataFrame:
    """Lay out :func:`compare_counts` for reading, of each data set in which counts in the error differ.

    Beside them what networks have that were trained in continuous time, of ``cross_test`` by data set (`exact`).
    """
    rows = []
    for name, part in results.items():
        elsewhere = (exact or {}).get(name)
        for row in compare_counts(part).itertuples():
            rows.append(
                {
                    "data set": name,
                    "Δt": delta_t_label(row.delta_t),
                    "counts in the error": row.counts,
                    "seeds": row.seeds,
                    "accuracy (%)": mean_and_std(row.other),
                    "own counts (%)": mean_and_std(row.own),
                    "gained (points)": difference_text(row),
                    "p": f"{row.p_holm:.2g}" if np.isfinite(row.p_holm) else "",
                }
            )
            if elsewhere is not None and row.delta_t in elsewhere["tested_at"].values:
                accuracy = 100 * elsewhere["accuracy"].sel(rule="drop", trained_at=0.0, tested_at=row.delta_t)
                rows[-1]["trained in continuous time (%)"] = mean_and_std(accuracy.values)
    return pd.DataFrame(rows).fillna("")


def law_table(law: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """List where networks lost 10 points over where the law puts it, by target and over all of ``collapse_law``."""
    rows = []
    for name, part in law.items():
        groups = {f"{target:g}": part.sel(target=[target]) for target in part["target"].values.tolist()}
        for label, group in {**groups, "all": part}.items():
            observed = observed_steps(group)
            mean, spread, n = law_error(group)
            row = {"data set": name, "target": label, "networks": group["accuracy"].notnull().sum().item()}
            row |= {"observed over predicted Δt": f"{mean:.2f}", "spread (factor)": f"{spread:.2f}" if n > 1 else ""}
            row |= {"from": f"{observed.min().item():.2f}", "to": f"{observed.max().item():.2f}"}
            rows.append(row | {"conditions": f"{n} of {observed.size}"})
    return pd.DataFrame(rows)


def clocks_table(every: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """List the worst test accuracy (%) over all clocks of networks trained on each, in continuous time, or on any.

    Of ``every_clock`` by data set: one row a rule and way to train, over seeds of which all was measured. Differences
    are to networks trained on each clock by its own, in points over paired seeds with 95 % intervals: of the worst
    accuracies, and, of means over seeds, on the clock on which most is lost.
    """
    rows = []
    for name, part in every.items():
        whole = 100 * with_continuous(part)
        for rule in drawn_rules(whole):
            accuracy = whole.sel(rule=rule).dropna("seed")
            if not accuracy.sizes["seed"]:
                continue
            worst, own = accuracy.min("delta_t"), accuracy.sel(training="own")
            for training, label in TRAINED_ON.items():
                row = {"data set": name, "rule": f"`{rule}`", "trained on": label, "seeds": accuracy.sizes["seed"]}
                row["worst clock (%)"] = mean_and_std(worst.sel(training=training).values)
                if training != "own":
                    against = paired(worst.sel(training=training), worst.sel(training="own"))
                    row["difference (points)"] = difference_text(against)
                    lost = (own - accuracy.sel(training=training)).mean("seed")
                    step = float(lost["delta_t"][int(lost.argmax("delta_t"))])
                    most = float(lost.max())
                    row["most lost (points)"] = f"{most:.1f} at {delta_t_label(step)}" if most >= 0.05 else "none"
                rows.append(row)
    return pd.DataFrame(rows).fillna("")


def layers_table(layers: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """List test accuracies (%) of networks with ``drop`` in hidden layers and output, in one of the two, or in neither.

    Of ``one_layer`` by data set: one row a time step, over seeds of which all was measured; and what is gained in
    points, over paired seeds with 95 % intervals, if ``drop`` is left in one of the two only.
    """
    rows = []
    for name, part in layers.items():
        for step in part["delta_t"].values.tolist():
            accuracy = 100 * part["accuracy"].sel(delta_t=step).dropna("seed")
            if not accuracy.sizes["seed"]:
                continue
            row: dict[str, Any] = {"data set": name, "Δt": delta_t_label(step), "seeds": accuracy.sizes["seed"]}
            for hidden in LAYER_RULES:
                for output in LAYER_RULES:
                    own = accuracy.sel(hidden=hidden, output=output).values
                    row[f"hidden `{hidden}`, output `{output}`"] = mean_and_std(own)
            both = accuracy.sel(hidden="drop", output="drop").values
            for label, place in (("hidden", ("drop", "merge")), ("output", ("merge", "drop"))):
                alone = accuracy.sel(hidden=place[0], output=place[1]).values
                row[f"`drop` in {label} only (points)"] = difference_text(paired(alone, both))
            rows.append(row)
    return pd.DataFrame(rows)


def scaling_table(scaling: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """List which share of spikes (%) stays on its tick if all times are scaled by a factor, mean over time steps."""
    rows = []
    for name, part in scaling.items():
        same = 100 * part["same"].mean("delta_t")
        for factor in same["factor"].values.tolist():
            shares = {
                f"scaled: {what}": f"{same.sel(factor=factor, scaled=what):.1f}" for what in same["scaled"].values
            }
            rows.append({"data set": name, "factor": f"{factor:g}"} | shares)
    return pd.DataFrame(rows)


def answer(
    results: Mapping[str, xr.Dataset],
    experiments: Mapping[str, Mapping[str, xr.Dataset]],
    long: xr.Dataset | None = None,
) -> list[str]:
    """Say in a sentence each what fails, what mends it, in which layer, and where it begins, as far as was measured.

    Of the results by data set, the experiments by name and data set, and the runs of
    :func:`bats_lab.studies.collapse.study.long_configs`.
    """
    said = [
        *map(_what_fails, list(experiments["cross_test"].items())[:1]),
        _what_mends({name: table for name, part in results.items() if len(table := _mended(part))}, long),
        *map(_in_which_layer, experiments.get("one_layer", {}).items()),
        *map(_where_it_begins, experiments["collapse_law"].values()),
    ]
    return [sentence for sentence in said if sentence]


def _what_fails(item: tuple[str, xr.Dataset]) -> str:
    name, part = item
    accuracy = 100 * part["accuracy"].sel(rule="drop").mean("seed")
    numbers = []
    for step in accuracy["tested_at"].values.tolist():
        exact, there = (float(accuracy.sel(tested_at=step, trained_at=at)) for at in (0.0, step))
        if exact - there >= COLLAPSED:
            numbers.append(f"{exact:.1f} % at {delta_t_label(step)} where those trained there have {there:.1f}")
    if not numbers:
        return ""
    return (
        "**Training fails, not the forward pass**: tested under `drop`, networks that were trained in continuous time "
        f"have on {name} {', '.join(numbers)}."
    )


def _mended(part: xr.Dataset) -> pd.DataFrame:
    """Compare counts where networks with their own have lost :data:`HURT` points or more against continuous time.

    All of the same counts: those that last, where they were measured.
    """
    table = compare_counts(part)
    if not len(table):
        return table
    kinds = table["counts"].values
    table = table[kinds == (LASTING if LASTING in kinds else kinds[0])]
    own = _under_drop(own_counts(part))
    if 0.0 not in own["delta_t"].values:
        return table
    return table[float(own.sel(delta_t=0.0).mean("seed")) - table["own"].map(np.mean) >= HURT]


def _what_mends(tables: Mapping[str, pd.DataFrame], long: xr.Dataset | None) -> str:
    """Tell of :func:`_mended` by data set."""
    if not tables:
        return ""
    numbers = "; ".join(
        f"on {name} "
        + ", ".join(
            f"{mean_and_std(row.other)} % in place of {mean_and_std(row.own)} at {delta_t_label(row.delta_t)}"
            for row in table.itertuples()
        )
        for name, table in tables.items()
    )
    first = next(iter(tables.values()))
    kind, seeds = first["counts"].iloc[0], max(table["seeds"].max() for table in tables.values())
    said = (
        "**What fails is the count in the error**: past the top of count against drive it asks for more of what makes "
        f"fewer spikes. With spikes counted under another rule for it ({kind}), and forward pass, gradient and test "
        f"under `drop` as before, networks have, where a coarse clock costs {HURT:g} points or more, {numbers} (after "
        f"one epoch, up to {seeds} seeds)"
    )
    if long is not None:
        for row in compare_counts(long).itertuples():
            if row.counts == kind:
                after = f"at {delta_t_label(row.delta_t)} after {long.sizes['epoch']} epochs"
                said += f"; {mean_and_std(row.other)} % in place of {mean_and_std(row.own)} {after}"
    return f"{said}."


def _in_which_layer(item: tuple[str, xr.Dataset]) -> str:
    """Tell of ``one_layer`` at the first time step at which ``drop`` in all layers has collapsed."""
    name, part = item
    accuracy = 100 * part["accuracy"]
    both, neither = (accuracy.sel(hidden=rule, output=rule) for rule in LAYER_RULES)
    step = _first_collapsed((neither - both).mean("seed"))
    if step is None:
        return ""
    at = accuracy.sel(delta_t=step).dropna("seed")
    told = {
        (first, second): mean_and_std(at.sel(hidden=first, output=second).values)
        for first in LAYER_RULES
        for second in LAYER_RULES
    }
    return (
        f"**It fails in the output layer**, the one that is counted: on {name} at {delta_t_label(step)}, networks with "
        f"`drop` in their hidden layers only, and `merge` in the output, have {told['drop', 'merge']} %; with it in "
        f"the output only {told['merge', 'drop']}, in all layers {told['drop', 'drop']}, in none "
        f"{told['merge', 'merge']} ({at.sizes['seed']} seeds)."
    )


def _where_it_begins(part: xr.Dataset) -> str:
    mean, spread, n = law_error(part)
    if not n:
        return ""
    return (
        "**Where it begins follows from target, window and time constants**: at the time step at which the rate that "
        "the target takes, at the end of the window, is one spike a tick: "
        f"{1e3 * collapse_step(15, 0.2, 0.13):.1f} ms for the thesis' 15 spikes. Over {n} choices of them networks had "
        f"lost 10 points at {mean:.2f} times that step, within a factor of {spread:.2f} (one standard deviation)."
    )


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
    # Rounded first, and 0 added, so that nothing is "-0.0".
    return {rule: f"{round(float(values.sel(rule=rule)), digits) + 0.0:.{digits}f}" for rule in drawn_rules(values)}
