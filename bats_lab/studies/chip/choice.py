"""What to build: the coarsest clock and the shortest word that cost next to nothing, and what differs beyond chance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bats_lab.studies.chip.quantization import TRAINED
from bats_lab.studies.statistics import bonferroni, paired

__all__ = ["choices", "choose", "compare_chosen", "without_failed"]


def choose(
    deployment: xr.Dataset, *, tolerance: float = 0.01, by: str = "validation", first: str = "delta_t"
) -> pd.DataFrame:
    """Choose for each data set and collision rule the coarsest clock and the shortest word that cost next to nothing.

    Parameters
    ----------
    deployment : xarray.Dataset
        As :func:`bats_lab.studies.chip.deployment.open_deployment` returns it.
    tolerance : float
        Accuracy that may be lost against the same networks in continuous time with their trained weights; 0.01 is one
        percentage point.
    by : str
        Images on which the choice is made; with ``test`` the test accuracy beside it would flatter.
    first : str
        ``delta_t``: the coarsest clock at which any word will do, and then the shortest word at that clock. ``bits``:
        the shortest word with which any clock will do, and then its coarsest clock.

    Returns
    -------
    pandas.DataFrame
        A row for each data set of which something is known, and rule: ``delta_t`` (s; 0: only continuous time will do)
        and ``bits``, and means over the ``seeds``: accuracy on the images of the choice, on test images (with their
        standard deviation) and in continuous time; on test images ``spikes`` and ``synaptic_events`` per sample, and
        ``decision_time`` (s). Where nothing will do, these are missing but for ``continuous_accuracy``.

    Raises
    ------
    ValueError
        If a value is not allowed, or continuous time or the trained weights were not measured.
    """
    splits = deployment["split"].values.tolist()
    if by not in splits:
        raise ValueError(f"by is {by!r}; it must be one of {', '.join(splits)}.")
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance is {tolerance}; it must be at least 0 and below 1.")
    if first not in ("delta_t", "bits"):
        raise ValueError(f"first is {first!r}; it must be delta_t or bits.")
    if 0 not in deployment["delta_t"].values or TRAINED not in deployment["bits"].values:
        raise ValueError(f"deployment must hold delta_t 0 and bits {TRAINED}, which others are measured against.")
    rows = []
    for dataset in deployment["dataset"].values.tolist():
        whole = deployment.sel(dataset=dataset)
        # One and the same under every rule but clocked, which has none.
        exact = whole["accuracy"].sel(delta_t=0, bits=TRAINED).max("rule")
        measured = exact.notnull().all("split").values
        if not measured.any():
            continue
        whole, exact = whole.isel(seed=measured), exact.isel(seed=measured)
        enough = exact.sel(split=by).mean("seed").item() - tolerance - 1e-12  # a loss of just the tolerance is allowed
        for rule in whole["rule"].values.tolist():
            points = whole.sel(rule=rule)
            good = points["accuracy"].sel(split=by).mean("seed", skipna=False).transpose("delta_t", "bits") >= enough
            steps, words = (good[dim].values[i] for dim, i in zip(good.dims, np.nonzero(good.values), strict=True))
            row = {
                "dataset": dataset,
                "rule": rule,
                "seeds": int(measured.sum()),
                **dict.fromkeys(("delta_t", "bits", f"{by}_accuracy", "test_accuracy", "test_accuracy_std"), math.nan),
                "continuous_accuracy": exact.sel(split="test").mean("seed").item(),
                **dict.fromkeys(("spikes", "synaptic_events", "decision_time"), math.nan),
            }
            if len(steps):
                keys = (words, -steps) if first == "bits" else (-steps, words)
                best = np.lexsort(keys[::-1])[0]
                row |= _chosen(points.sel(delta_t=steps[best], bits=words[best]), by)
            rows.append(row)
    table = pd.DataFrame(rows)
    return table.astype({"bits": "Int64"}) if rows else table


def _chosen(point: xr.Dataset, by: str) -> dict[str, Any]:
    """Return what the table holds of a point, which has the dimensions `seed` and `split` (and `layer`)."""
    test = point.sel(split="test")
    n_seeds = point.sizes["seed"]
    return {
        "delta_t": point["delta_t"].item(),
        "bits": point["bits"].item(),
        f"{by}_accuracy": point["accuracy"].sel(split=by).mean("seed").item(),
        "test_accuracy": test["accuracy"].mean("seed").item(),
        "test_accuracy_std": test["accuracy"].std("seed", ddof=1).item() if n_seeds > 1 else math.nan,
        "spikes": test["spike_count"].sum("layer").mean("seed").item(),
        "synaptic_events": test["synaptic_events"].sum("layer").mean("seed").item(),
        "decision_time": test["decision_time"].mean("seed").item(),
    }


def without_failed(
    parts: Mapping[str, xr.Dataset], *, margin: float = 0.05, by: str = "validation"
) -> tuple[dict[str, xr.Dataset], list[str]]:
    """Leave out networks whose training failed: clocks and words cannot be judged by them, nor can means over seeds.

    Parameters
    ----------
    parts : mapping of str to xarray.Dataset
        As :func:`bats_lab.studies.chip.deployment.open_deployments` returns them.
    margin : float
        A network has failed if its accuracy in continuous time, with its own weights, is so far below that of the best
        seed of the data set; 0.05 is five percentage points, where seeds that learned differ by less than one.
    by : str
        Images on which that is judged.

    Returns
    -------
    parts : dict of str to xarray.Dataset
        The same without the seeds that failed.
    failed : list of str
        A sentence about each of these.
    """
    kept, failed = {}, []
    for name, part in parts.items():
        own = part.sel(split=by, delta_t=0, bits=TRAINED).max("rule")
        accuracy, best = own["accuracy"], float(own["accuracy"].max())
        learned = ~(accuracy < best - margin)
        kept[name] = part.sel(seed=learned.values)
        for seed in accuracy["seed"].values[~learned.values]:
            silent = own["silent_classes"].sel(seed=seed).item() if "silent_classes" in own else math.nan
            reason = f"; {silent:.0f} of its output neurons never spike" if silent > 0 else ""
            failed.append(
                f"{name}, seed {seed}, failed in training and is left out: in continuous time it is right on "
                f"{100 * accuracy.sel(seed=seed).item():.1f} % of {by} images, the best seed on "
                f"{100 * best:.1f} %{reason}."
            )
    return kept, failed


def choices(
    parts: Mapping[str, xr.Dataset], tolerance: float = 0.01, first: str = "delta_t"
) -> Iterator[tuple[str, xr.Dataset, dict[str, Any]]]:
    """Yield each data set's name, its part, and a row of what :func:`choose` returns of it."""
    for name, part in parts.items():
        whole = part if "dataset" in part.dims else part.expand_dims("dataset")
        for row in choose(whole, tolerance=tolerance, first=first).to_dict("records"):
            yield name, part, row


def compare_chosen(parts: Mapping[str, xr.Dataset], *, tolerance: float = 0.01, first: str = "delta_t") -> pd.DataFrame:
    """Hold each chosen point against the same networks under rule ``drop``, with weights as trained, and without clock.

    Parameters
    ----------
    parts : mapping of str to xarray.Dataset
        As :func:`bats_lab.studies.chip.deployment.open_deployments` returns them.
    tolerance, first : float and str
        As in :func:`choose`.

    Returns
    -------
    pandas.DataFrame
        One row a data set, rule and comparison: ``against`` (``drop``: the same clock and word under that rule;
        ``weights as trained``: the same clock and rule; ``continuous time``: the networks as they were trained),
        ``delta_t`` (s), ``bits``; of test accuracy in percentage points the fields of
        :class:`bats_lab.studies.statistics.Paired`; and ``p_corrected``, their ``p`` after Bonferroni, by data set.
    """
    rows = []
    for dataset, part, row in choices(parts, tolerance, first):
        if pd.isna(row["bits"]):
            continue
        test = 100 * part["accuracy"].sel(split="test")
        point = {"rule": row["rule"], "delta_t": row["delta_t"], "bits": row["bits"]}
        others = {"continuous time": test.sel(delta_t=0, bits=TRAINED).max("rule")} if row["delta_t"] else {}
        if row["bits"] != TRAINED:
            others["weights as trained"] = test.sel(point | {"bits": TRAINED})
        if row["rule"] != "drop" and row["delta_t"] and "drop" in test["rule"].values:
            others["drop"] = test.sel(point | {"rule": "drop"})
        for name, baseline in others.items():
            against = paired(test.sel(point).values, baseline.values)
            rows.append({"dataset": dataset, **point, "against": name, **against._asdict()})
    table = pd.DataFrame(rows)
    return table.assign(p_corrected=table.groupby("dataset")["p"].transform(bonferroni)) if rows else table
