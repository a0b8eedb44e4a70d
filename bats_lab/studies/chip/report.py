"""What a report says about networks on a chip: the choice of clock and word as a table, and what it rests on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bats_lab.plots.runs import dataset_name
from bats_lab.plots.style import delta_t_label
from bats_lab.studies.chip.deploy import choose, deployment_costs, open_deployment
from bats_lab.studies.chip.energy import HARDWARE
from bats_lab.studies.chip.plots.quantities import TRAINED, UPDATES, hardware_of, narrowed, short
from bats_lab.studies.chip.plots.three_way import three_way_table
from bats_lab.studies.estimators.comparison import paired

__all__ = ["by_dataset", "choice_table", "compare_chosen", "describe_deployment", "front_table"]

#: Level of the tests over paired seeds, after correction.
_LEVEL = 0.05
#: The collision rule of the thesis, which others are held against.
_THESIS = "drop"


def by_dataset(deployment: xr.Dataset | str | Path) -> dict[str, xr.Dataset]:
    """Split a deployment into what plots draw: one data set each, of which something was measured.

    Parameters
    ----------
    deployment : xarray.Dataset, str or Path
        As :func:`bats_lab.studies.chip.deploy.open_deployment` returns it, or the folder of the files.

    Returns
    -------
    dict of str to xarray.Dataset
        Empty where there is no deployment yet.

    Raises
    ------
    ResultsError
        If a file cannot be read.
    """
    if not isinstance(deployment, xr.Dataset):
        try:
            deployment = open_deployment(deployment)
        except FileNotFoundError:
            return {}
    if "dataset" not in deployment.dims:
        deployment = deployment.expand_dims("dataset")
    parts = [deployment.sel(dataset=name) for name in deployment["dataset"].values]
    return {dataset_name(part): part for part in parts if bool(part["accuracy"].notnull().any())}


#: What is said where nothing was measured.
_NOTHING = "There is no deployment yet; `bats-lab reproduce chip` trains the networks and makes it."


def choice_table(
    parts: Mapping[str, xr.Dataset],
    *,
    tolerance: float = 0.01,
    first: str = "delta_t",
    hardware: Sequence[str] = ("Loihi",),
) -> str:
    """Lay out what to build as a table in Markdown, one row a data set and collision rule.

    Parameters
    ----------
    parts : mapping of str to xarray.Dataset
        As :func:`by_dataset` returns them.
    tolerance, first : float and str
        As in :func:`bats_lab.studies.chip.deploy.choose`.
    hardware : sequence of str
        Rows of :data:`bats_lab.studies.chip.energy.HARDWARE`, each a column of energies: event-driven / clocked.

    Returns
    -------
    str
        The choice is made on validation images; all other numbers are of test images.
    """
    chosen = {name: hardware_of(name) for name in hardware}
    energies = [
        f"{name}: µJ, event-driven / clocked" if each.published else f"{name}: effective operations, ed. / clocked"
        for name, each in chosen.items()
    ]
    head = (
        *("data set", "rule", "Δt", "bits", "seeds", "validation accuracy (%)", "test accuracy (%)"),
        *("in continuous time (%)", "spikes", "synaptic events", "time to decision (ms)"),
        *energies,
    )
    if not parts:
        return _NOTHING
    rows = []
    for name, part, row in _choices(parts, tolerance, first):
        start = (name, f"`{row['rule']}`")
        exact = f"{100 * row['continuous_accuracy']:.2f}"
        if pd.isna(row["bits"]):
            rows.append(
                (*start, "none will do", "", str(row["seeds"]), "", "", exact, "", "", "", *("" for _ in chosen))
            )
            continue
        rows.append(
            (
                *start,
                delta_t_label(row["delta_t"]).replace(" ", "\u00a0"),  # not to be broken
                _word(row["bits"]),
                str(row["seeds"]),
                f"{100 * row['validation_accuracy']:.2f}",
                _with_spread(row["test_accuracy"], row["test_accuracy_std"]),
                exact,
                f"{row['spikes']:,.0f}",
                f"{row['synaptic_events']:,.0f}",
                f"{1e3 * row['decision_time']:.0f}",
                *(_cost(part, row, each) for each in chosen),
            )
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


def _choices(
    parts: Mapping[str, xr.Dataset], tolerance: float, first: str
) -> Iterator[tuple[str, xr.Dataset, dict[str, Any]]]:
    """Yield each data set's name, its part and a row of its choices."""
    for name, part in parts.items():
        whole = part if "dataset" in part.dims else part.expand_dims("dataset")
        for row in choose(whole, tolerance=tolerance, first=first).to_dict("records"):
            yield name, part, row


def _word(bits: int) -> str:
    return "as trained" if bits == TRAINED else str(bits)


def _with_spread(mean: float, std: float) -> str:
    return f"{100 * mean:.2f}" + (f" ± {100 * std:.2f}" if math.isfinite(std) else "")


def _cost(part: xr.Dataset, row: Mapping[str, Any], hardware: str) -> str:
    """Tell what a chosen point costs on a hardware, event-driven and clocked."""
    place: dict[str, Any] = {name: [row[name]] for name in ("rule", "delta_t", "bits")}
    here = part.sel(place | {"split": "test"})
    point = deployment_costs(here, hardware={hardware: hardware_of(hardware)}).mean()
    published = HARDWARE[hardware].published
    names = ("event_driven", "clocked") if published else ("operations_event_driven", "operations_clocked")
    values = [float(point[name]) * (1e6 if published else 1.0) for name in names]
    return " / ".join("–" if math.isnan(v) else short(v) for v in values)


def front_table(
    parts: Mapping[str, xr.Dataset],
    *,
    hardware: str = "Loihi",
    updates: str = "clocked",
    split: str = "validation",
    top: float = 3.0,
) -> str:
    """List the points that no other beats in accuracy, energy and time to decision, as a table in Markdown.

    Parameters
    ----------
    parts : mapping of str to xarray.Dataset
        As :func:`by_dataset` returns them.
    hardware, updates, split : str
        As in :func:`bats_lab.chip.plot_three_way`, which rings the same points.
    top : float
        Points of the front that are further below the best accuracy, in percentage points, are left out.

    Returns
    -------
    str
        By data set and rising energy; ± is the standard deviation over seeds.
    """
    if not parts:
        return _NOTHING
    rows, unit = [], ""
    for name, part in parts.items():
        table, axis = three_way_table(narrowed(part), hardware=hardware, updates=updates, split=split)
        unit = f"{hardware}, {UPDATES[updates]} ({axis.unit or 'effective operations'})"
        front = np.flatnonzero(table["front"] & (table["accuracy"] >= table["accuracy"].max(initial=0.0) - top))
        for i in front[np.argsort(table["energy"][front], kind="stable")]:
            rows.append(
                (
                    name,
                    delta_t_label(table["delta_t"][i]).replace(" ", "\u00a0"),  # not to be broken
                    _word(table["bits"][i]),
                    f"`{table['rule'][i]}`",
                    _with_spread(table["accuracy"][i] / 100, table["std"][i] / 100),
                    f"{table['test'][i]:.2f}",
                    short(table["energy"][i]),
                    f"{table['decision_time'][i]:.0f}",
                )
            )
    head = (
        "data set",
        "Δt",
        "bits",
        "rule",
        f"{split} accuracy (%)",
        "test accuracy (%)",
        unit,
        "time to decision (ms)",
    )
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


def compare_chosen(parts: Mapping[str, xr.Dataset], *, tolerance: float = 0.01, first: str = "delta_t") -> pd.DataFrame:
    """Hold each chosen point against the same networks under rule ``drop``, with weights as trained, and without clock.

    Parameters
    ----------
    parts : mapping of str to xarray.Dataset
        As :func:`by_dataset` returns them.
    tolerance, first : float and str
        As in :func:`bats_lab.studies.chip.deploy.choose`.

    Returns
    -------
    pandas.DataFrame
        One row a data set, rule and comparison: ``against`` (``drop``: the same clock and word under that rule;
        ``weights as trained``: the same clock and rule; ``continuous time``: the networks as they were trained),
        ``delta_t`` (s), ``bits``, ``seeds``, ``difference`` of test accuracy in percentage points with the ends ``low``
        and ``high`` of its 95 % confidence interval over paired seeds, ``p`` of the paired t-test and ``p_corrected``:
        that times the number of rows of the data set (Bonferroni), at most 1.
    """
    rows = []
    for dataset, part, row in _choices(parts, tolerance, first):
        if pd.isna(row["bits"]):
            continue
        test = 100 * part["accuracy"].sel(split="test")
        place = {"rule": row["rule"], "delta_t": row["delta_t"], "bits": row["bits"]}
        others = {"continuous time": test.sel(delta_t=0, bits=TRAINED).max("rule")} if row["delta_t"] else {}
        if row["bits"] != TRAINED:
            others["weights as trained"] = test.sel(place | {"bits": TRAINED})
        if row["rule"] != _THESIS and row["delta_t"] and _THESIS in test["rule"].values:
            others[_THESIS] = test.sel(place | {"rule": _THESIS})
        for name, baseline in others.items():
            found = paired(test.sel(place).values, baseline.values)
            rows.append({"dataset": dataset, **place, "against": name, **found._asdict()})
    table = pd.DataFrame(rows)
    if len(table):
        n = table.groupby("dataset")["p"].transform("count")
        table["p_corrected"] = np.minimum(table["p"] * n, 1.0)
    return table


def describe_deployment(parts: Mapping[str, xr.Dataset], *, tolerance: float = 0.01, first: str = "delta_t") -> str:
    """Tell how coarse a clock and how short a word will do under each rule, and what differs beyond chance.

    Parameters
    ----------
    parts : mapping of str to xarray.Dataset
        As :func:`by_dataset` returns them.
    tolerance, first : float and str
        As in :func:`bats_lab.studies.chip.deploy.choose`.

    Returns
    -------
    str
        Markdown, some sentences for each data set. A rule is called better or worse only after a t-test over paired
        seeds, corrected for the number of comparisons.
    """
    if not parts:
        return _NOTHING
    compared = compare_chosen(parts, tolerance=tolerance, first=first)
    told = []
    for name, part in parts.items():
        rows = pd.DataFrame([row for _, _, row in _choices({name: part}, tolerance, first)])
        own = compared[compared["dataset"] == name] if len(compared) else compared
        sentences = [_chosen_of(rows, tolerance), _compared_of(own, int(rows["seeds"].max()))] if len(rows) else []
        if not sentences:
            sentences = ["continuous time was not measured on all images; there is nothing to hold others against."]
        told.append(f"- **{name}**, " + " ".join(sentence for sentence in sentences if sentence))
    return "\n".join(told)


def _chosen_of(rows: pd.DataFrame, tolerance: float) -> str:
    seeds = int(rows["seeds"].max())
    exact = 100 * float(rows["continuous_accuracy"].iloc[0])
    head = (
        f"{seeds} seed{'' if seeds == 1 else 's'}, test accuracy {exact:.2f} % in continuous time. Where validation "
        f"images may lose {100 * tolerance:g} point{'' if tolerance == 0.01 else 's'} at most, "
    )
    will = rows[rows["bits"].notna()].sort_values("delta_t", ascending=False)
    parts = [
        f"`{row.rule}` "
        + (f"runs at {delta_t_label(row.delta_t)}" if row.delta_t else "bears no clock")
        + f" with {'weights as trained' if row.bits == TRAINED else f'{row.bits} bits'} "
        + f"(test accuracy {_with_spread(row.test_accuracy, row.test_accuracy_std)} %)"
        for row in will.itertuples()
    ]
    none = [f"`{rule}`" for rule in rows.loc[rows["bits"].isna(), "rule"]]
    if none:
        parts.append(f"nothing will do under {', '.join(none)}")
    return head + "; ".join(parts) + "."


def _compared_of(rows: pd.DataFrame, seeds: int) -> str:
    if not len(rows):
        return ""
    if seeds < 2:
        return "One seed tells no difference from chance."
    clear = rows[rows["p_corrected"] < _LEVEL]
    rest = len(rows) - len(clear)
    if not len(clear):
        return (
            f"Of {rest} comparisons of these points with `{_THESIS}`, with weights as trained and continuous time, "
            f"in none is the difference beyond chance (paired t-test over {seeds} seeds, corrected)."
        )
    parts = [
        f"`{row.rule}` at {delta_t_label(row.delta_t)}, {_word(row.bits)}{'' if row.bits == TRAINED else ' bits'}: "
        f"{'better' if row.difference > 0 else 'worse'} than "
        f"{f'`{row.against}` there' if row.against == _THESIS else row.against} by {abs(row.difference):.2f} points "
        f"[{min(abs(row.low), abs(row.high)):.2f}, {max(abs(row.low), abs(row.high)):.2f}], p = {row.p_corrected:.2g}"
        for row in clear.itertuples()
    ]
    others = f" In {rest} other comparisons the difference may be chance." if rest else ""
    return f"Paired over {seeds} seeds, on test images, corrected: {'; '.join(parts)}.{others}"
