"""What a change of clock costs a trained network, and what a finer one costs its training, in tables."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr

from bats_lab.studies.statistics import holm, mean_and_std, paired

__all__ = ["PUBLISHED", "clock_label", "own_clock_table", "transfer_table"]

#: Accuracy (%) of surrogate gradients on the Heidelberg digits by bins of a sample: K. Heckel and T. Nowotny, Spyx,
#: arXiv:2402.18994 (2024).
PUBLISHED = {128: 81.9, 256: 81.3, 512: 77.6, 1024: 76.0}


def clock_label(delta_t: float) -> str:
    """Return a time step in words.

    Examples
    --------
    >>> clock_label(0.0), clock_label(0.008)
    ('continuous', '8 ms')
    """
    return f"{1e3 * delta_t:g} ms" if delta_t else "continuous"


def transfer_table(results: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """List test accuracy in % by data set, method and time step of training, with a column for each clock of the test.

    `results` are those of :func:`bats_lab.studies.transfer.study.open_transfer`; numbers are means over seeds, with
    their standard deviation.
    """
    rows = []
    for name, part in results.items():
        for method, trained_at, accuracy in _rows(part):
            row = {"data set": name, "trained by": method, "trained at": clock_label(trained_at)}
            tests = {clock_label(float(t)): mean_and_std(accuracy.sel(tested_at=t)) for t in part["tested_at"].values}
            rows.append(row | {"seeds": str(_seeds(accuracy))} | tests)
    return pd.DataFrame(rows)


def own_clock_table(results: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Hold training at each time step, tested at the same, against the coarsest, over paired seeds.

    Differences are in points, with their 95 % interval; ``p`` is corrected for all rows of data set and method (Holm).
    """
    rows = []
    for name, part in results.items():
        for method in part["trained_by"].values.tolist():
            steps = [(step, accuracy) for own, step, accuracy in _rows(part) if own == method and step]
            if not steps:
                continue
            own_clock = [(step, accuracy.sel(tested_at=step).values) for step, accuracy in steps]
            coarsest = own_clock[-1]
            against = [paired(values, coarsest[1]) for _, values in own_clock[:-1]]
            corrected = holm([a.p for a in against])
            for k, (step, values) in enumerate(own_clock):
                row = {"data set": name, "trained by": method, "trained and tested at": clock_label(step)}
                row |= {"test accuracy (%)": mean_and_std(values), "less the coarsest (points)": "", "p": ""}
                if k < len(against) and against[k].seeds:
                    a = against[k]
                    interval = f" [{a.low:+.1f}, {a.high:+.1f}]" if np.isfinite(a.low) else ""
                    row["less the coarsest (points)"] = f"{a.difference:+.1f}{interval}"
                    row["p"] = f"{corrected[k]:.2g}" if np.isfinite(corrected[k]) else ""
                rows.append(row)
    return pd.DataFrame(rows)


def _rows(part: xr.Dataset) -> list[tuple[str, float, xr.DataArray]]:
    """Return method, time step of training, and accuracy (seed, tested_at) in %, of what was measured."""
    found = []
    for method in part["trained_by"].values.tolist():
        for step in np.sort(part["trained_at"].values):
            accuracy = 100 * part["accuracy"].sel(trained_by=method, trained_at=step)
            if accuracy.notnull().any():
                found.append((method, float(step), accuracy))
    return found


def _seeds(accuracy: xr.DataArray) -> int:
    return int(accuracy.notnull().any("tested_at").sum())
