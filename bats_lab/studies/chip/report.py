"""Networks on a chip in tables: what to build, what differs beyond chance, and the front of all points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bats_lab.plots.runs import spread_text
from bats_lab.plots.style import delta_t_label
from bats_lab.studies.chip.choice import choices, compare_chosen
from bats_lab.studies.chip.energy import HARDWARE, deployment_costs
from bats_lab.studies.chip.plots.quantities import UPDATES, hardware_of, narrowed, short
from bats_lab.studies.chip.plots.three_way import three_way_table
from bats_lab.studies.chip.quantization import TRAINED

__all__ = ["choice_table", "compared_table", "front_table"]


def choice_table(
    parts: Mapping[str, xr.Dataset],
    *,
    tolerance: float = 0.01,
    first: str = "delta_t",
    hardware: Sequence[str] = ("Loihi",),
) -> pd.DataFrame:
    """Lay out what to build, one row a data set and collision rule.

    Parameters
    ----------
    parts : mapping of str to xarray.Dataset
        As :func:`bats_lab.studies.chip.deployment.open_deployments` returns them.
    tolerance, first : float and str
        As in :func:`bats_lab.studies.chip.choice.choose`; chosen is on validation images, all other numbers are of test
        images.
    hardware : sequence of str
        Rows of :data:`bats_lab.studies.chip.energy.HARDWARE`, each a column of energies: event-driven / clocked.

    Returns
    -------
    pandas.DataFrame
        Few and narrow columns: it fits beside the file browser of JupyterLab on 1280 pixels.
    """
    prices = {name: "µJ" if hardware_of(name).published else "effective operations" for name in hardware}
    rows = []
    for name, part, row in choices(parts, tolerance, first):
        will_do = not pd.isna(row["bits"])
        cells = {"data set": name, "rule": f"`{row['rule']}`"} | _point(row["delta_t"], row["bits"], will_do)
        cells |= {"seeds": str(row["seeds"])}
        if will_do:
            spread = spread_text(100 * row["test_accuracy"], 100 * row["test_accuracy_std"], row["seeds"], 2)
            cells |= {
                "validation (%)": f"{100 * row['validation_accuracy']:.2f}",
                "test (%)": spread,
                "test, no clock (%)": f"{100 * row['continuous_accuracy']:.2f}",
                "spikes": f"{row['spikes']:,.0f}",
                "decision (ms)": f"{1e3 * row['decision_time']:.0f}",
                **{f"{chip} ({unit})": _cost(part, row, chip) for chip, unit in prices.items()},
            }
        rows.append(cells)
    return pd.DataFrame(rows).fillna("")


def compared_table(parts: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Lay out :func:`bats_lab.studies.chip.choice.compare_chosen` for reading, one row a comparison."""
    rows = []
    for row in compare_chosen(parts).itertuples():
        interval, p = "", ""
        if math.isfinite(row.p):
            interval, p = f" [{row.low:+.2f}, {row.high:+.2f}]", f"{row.p_corrected:.2g}"
        point = {"data set": row.dataset, "rule": f"`{row.rule}`"} | _point(row.delta_t, row.bits)
        numbers = {"difference (points)": f"{row.difference:+.2f}{interval}", "p": p}
        rows.append(point | {"against": row.against, "seeds": str(row.seeds)} | numbers)
    return pd.DataFrame(rows)


def front_table(
    parts: Mapping[str, xr.Dataset],
    *,
    hardware: str = "Loihi",
    updates: str = "clocked",
    split: str = "validation",
    top: float = 3.0,
) -> pd.DataFrame:
    """List the points that no other beats in accuracy, energy and time to decision, by data set and rising energy.

    `hardware`, `updates` and `split` are those of :func:`bats_lab.chip.plot_three_way`, which rings the same points;
    those further than `top` percentage points below the best accuracy are left out. ± is the standard deviation over
    seeds.
    """
    rows = []
    for name, part in parts.items():
        table, axis = three_way_table(narrowed(part), hardware=hardware, updates=updates, split=split)
        unit = f"{hardware}, {UPDATES[updates]} ({axis.unit or 'effective operations'})"
        front = np.flatnonzero(table["front"] & (table["accuracy"] >= table["accuracy"].max(initial=0.0) - top))
        for i in front[np.argsort(table["energy"][front], kind="stable")]:
            rows.append(
                {"data set": name}
                | _point(table["delta_t"][i], table["bits"][i])
                | {
                    "rule": f"`{table['rule'][i]}`",
                    f"{split} (%)": _with_spread(table["accuracy"][i], table["std"][i]),
                    "test (%)": f"{table['test'][i]:.2f}",
                    unit: short(table["energy"][i]),
                    "decision (ms)": f"{table['decision_time'][i]:.0f}",
                }
            )
    return pd.DataFrame(rows)


def _point(delta_t: float, bits: Any, will_do: bool = True) -> dict[str, str]:
    if not will_do:
        return {"Δt": "none will do", "bits": ""}
    # A time step is not to be broken into two lines.
    return {"Δt": delta_t_label(delta_t).replace(" ", "\u00a0"), "bits": "trained" if bits == TRAINED else str(bits)}


def _with_spread(mean: float, std: float) -> str:
    return f"{mean:.2f}" + (f" ± {std:.2f}" if math.isfinite(std) else "")


def _cost(part: xr.Dataset, row: Mapping[str, Any], hardware: str) -> str:
    """Tell what a chosen point costs on a hardware, event-driven and clocked."""
    point: dict[str, Any] = {name: [row[name]] for name in ("rule", "delta_t", "bits")}
    costs = deployment_costs(part.sel(point | {"split": "test"}), hardware={hardware: HARDWARE[hardware]}).mean()
    names = [name if HARDWARE[hardware].published else f"operations_{name}" for name in UPDATES]
    values = [float(costs[name]) * (1e6 if HARDWARE[hardware].published else 1.0) for name in names]
    return " / ".join("–" if math.isnan(v) else short(v) for v in values)
