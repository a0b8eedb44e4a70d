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
from bats_lab.studies.chip.energy import PACES, TERMS, deployment_costs
from bats_lab.studies.chip.plots.quantities import hardware_of, narrowed, short
from bats_lab.studies.chip.plots.three_way import three_way_table
from bats_lab.studies.chip.prices import HARDWARE
from bats_lab.studies.chip.quantization import TRAINED

__all__ = ["choice_table", "compared_table", "crossover_table", "energy_terms_table", "front_table"]

_CMOS = "45 nm CMOS"


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
        Rows of :data:`bats_lab.studies.chip.prices.HARDWARE`, each a column of energies: without leakage / in real
        time. Only rule ``clocked`` has any.

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
    pace: str = "real_time",
    split: str = "validation",
    top: float = 3.0,
) -> pd.DataFrame:
    """List the points that no other beats in accuracy, energy and time to decision, by data set and rising energy.

    `hardware`, `pace` and `split` are those of :func:`bats_lab.chip.plot_three_way`, which rings the same points;
    those further than `top` percentage points below the best accuracy are left out. ± is the standard deviation over
    seeds.
    """
    rows = []
    for name, part in parts.items():
        table, axis = three_way_table(narrowed(part), hardware=hardware, pace=pace, split=split)
        unit = f"{hardware}, {PACES[pace]} (µJ)" if axis.unit else f"{hardware} (effective operations)"
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


def energy_terms_table(
    parts: Mapping[str, xr.Dataset], *, hardware: str = "Loihi", bits: int = 8, split: str = "test"
) -> pd.DataFrame:
    """Lay out what an inference under ``clocked`` is charged for, one row a data set and time step, means over seeds.

    Parameters
    ----------
    parts : mapping of str to xarray.Dataset
        As :func:`bats_lab.studies.chip.deployment.open_deployments` returns them.
    hardware : str
        A row of :data:`bats_lab.studies.chip.prices.HARDWARE` with published energies.
    bits : int
        Word length of the weights.
    split : str
        ``test`` or ``validation`` images.
    """
    rows = []
    for name, part in parts.items():
        if bits not in part["bits"].values or "clocked" not in part["rule"].values:
            continue
        point = part.sel(split=split, bits=[bits], rule=["clocked"])
        costs = deployment_costs(point, hardware={hardware: hardware_of(hardware)})
        costs = costs.squeeze(["bits", "rule", "hardware"], drop=True)
        costs = costs.mean("seed") if "seed" in costs.dims else costs
        for step in costs["delta_t"].values[costs["dynamic"].notnull().values]:
            here = costs.sel(delta_t=step)
            of_terms = {text: short(1e6 * float(here[term])) for term, text in TERMS.items()}
            sums = {text: short(1e6 * float(here[pace])) or "–" for pace, text in reversed(PACES.items())}
            rows.append({"data set": name, "Δt": delta_t_label(step).replace(" ", "\u00a0")} | of_terms | sums)
    table = pd.DataFrame(rows)
    return table.drop(columns=[text for text in TERMS.values() if rows and (table[text] == short(0.0)).all()])


def crossover_table(parts: Mapping[str, xr.Dataset], *, split: str = "test") -> pd.DataFrame:
    """Hold networks under ``clocked`` against dense networks of the same shape and words, both in 45 nm CMOS.

    One row a data set and word length: the energy of the dense network without leakage, the coarsest clock's of the
    spiking one, the clocks on which the spiking one takes less, and on the coarsest of all clocks the synaptic events
    per connection and tick beside their :func:`crossover <bats_lab.studies.chip.energy.costs>`; means over seeds.
    """
    rows = []
    for name, part in parts.items():
        if "clocked" not in part["rule"].values:
            continue
        costs = deployment_costs(part.sel(split=split, rule=["clocked"]), hardware={_CMOS: HARDWARE[_CMOS]})
        costs = costs.squeeze(["rule", "hardware"], drop=True)
        costs = costs.mean("seed") if "seed" in costs.dims else costs
        costs = costs.sel(delta_t=costs["delta_t"] > 0)
        for bits in costs["bits"].values:
            here = costs.sel(bits=bits)
            wins = here["delta_t"].values[(here["event_share"] < here["crossover"]).values]
            last = here.sel(delta_t=here["delta_t"].values.max())
            rows.append(
                {
                    "data set": name,
                    "bits": "trained" if bits == TRAINED else str(bits),
                    "dense (µJ)": short(1e6 * float(here["dense"])),
                    f"spiking, {delta_t_label(float(last['delta_t']))} (µJ)": short(1e6 * float(last["dynamic"])),
                    "spiking takes less": f"from {delta_t_label(wins.min())} on" if len(wins) else "on no clock",
                    "events per connection and tick (%)": f"{100 * float(last['event_share']):.1f}",
                    "s* (%)": f"{100 * float(last['crossover']):.1f}",
                    "of events, from inputs (%)": f"{100 * float(last['input_share']):.0f}",
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
    """Tell what a chosen point costs on a hardware, without leakage and in real time."""
    point: dict[str, Any] = {name: [row[name]] for name in ("rule", "delta_t", "bits")}
    costs = deployment_costs(part.sel(point | {"split": "test"}), hardware={hardware: HARDWARE[hardware]}).mean()
    published = HARDWARE[hardware].published
    values = (
        [1e6 * float(costs[name]) for name in ("dynamic", "real_time")] if published else [float(costs["operations"])]
    )
    return "–" if math.isnan(values[0]) else " / ".join("–" if math.isnan(v) else short(v) for v in values)
