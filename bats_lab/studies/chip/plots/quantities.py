"""Networks on a chip: what is drawn of a deployment, in which unit, and how it is told.

Plots take what `deploy.open_deployment` returns, narrowed to one data set by :func:`narrowed`.
"""

from __future__ import annotations

from dataclasses import dataclass

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.plots.runs import check_choice, dataset_name, seeds_text
from bats_lab.studies.chip.energy import PACES, TERMS, deployment_costs
from bats_lab.studies.chip.prices import HARDWARE, NO_ENERGY, Hardware
from bats_lab.studies.chip.quantization import TRAINED
from bats_lab.studies.panels import drawn_rules


@dataclass(frozen=True)
class _Quantity:
    """Its label and the unit it is drawn in, over that it is measured in; and the variable, if it has another name."""

    label: str
    unit: str = ""
    factor: float = 1
    variable: str = ""
    large_is_good: bool = False


#: What can be drawn of a deployment.
QUANTITIES = {
    "accuracy": _Quantity("accuracy", "%", 100, large_is_good=True),
    "spikes": _Quantity("spikes per inference", variable="spike_count"),
    "synaptic_events": _Quantity("synaptic events per inference"),
    "active_share": _Quantity("active (neuron, tick) pairs", "%", 100),
    "energy": _Quantity("energy per inference", "µJ"),
    "decision_time": _Quantity("time to decision", "ms", 1e3),
}


def narrowed(deployment: xr.Dataset, split: str | None = None) -> xr.Dataset:
    """Leave one data set of a deployment, only seeds that were measured, and one split; None: all.

    Raises
    ------
    TypeError, ValueError
        If it is no deployment, has several data sets or no such split, or if nothing was measured.
    """
    if not isinstance(deployment, xr.Dataset):
        raise TypeError(f"deployment is a {type(deployment).__name__}; it must be an xarray.Dataset.")
    for name in ("rule", "delta_t", "bits", "split"):
        if name not in deployment.dims:
            raise ValueError(f"The deployment has no dimension {name!r}; pass it as open_deployment returns it.")
    if deployment.sizes.get("dataset", 1) > 1:
        names = deployment["dataset"].values.tolist()
        raise ValueError(
            f"The deployment holds several data sets ({', '.join(names)}), and this plot shows one; select it first, "
            f"as in deployment.sel(dataset={names[0]!r})."
        )
    if "dataset" in deployment.dims:
        deployment = deployment.isel(dataset=0)
    if "seed" not in deployment.dims:
        deployment = deployment.expand_dims("seed")
    known = deployment["accuracy"].notnull()
    seeds = known.any([d for d in known.dims if d != "seed"]).values
    if not seeds.any():
        raise ValueError("Nothing was measured of this deployment yet; there is nothing to plot.")
    deployment = deployment.isel(seed=np.flatnonzero(seeds))
    if split is None:
        return deployment
    check_choice("split", split, tuple(map(str, deployment["split"].values)))
    return deployment.sel(split=split)


def hardware_of(name: str) -> Hardware:
    """Return a row of the table of published energies."""
    check_choice("hardware", name, tuple(HARDWARE))
    return HARDWARE[name]


def energies(points: xr.Dataset, hardware: str, costs: xr.Dataset | None = None) -> tuple[xr.Dataset, hv.Dimension]:
    """Return what an inference costs on one hardware, in the unit in which it is drawn, and the axis.

    Of a deployment as :func:`narrowed` returns it: what :func:`bats_lab.studies.chip.energy.energy` gives, in µJ, or,
    where no joules are published, the sums of :data:`bats_lab.studies.chip.energy.PACES` all the same in effective
    synaptic operations; ValueError where there are neither. Without `costs`,
    :func:`bats_lab.studies.chip.energy.deployment_costs` is called.
    """
    chosen = hardware_of(hardware)
    if costs is None:
        costs = deployment_costs(points, hardware={hardware: chosen})
    spent = costs.sel(hardware=hardware)
    if chosen.published:
        names = [*TERMS, "leakage_real_time", "leakage_fast", *PACES]
        return 1e6 * spent[names], hv.Dimension("energy", label=f"energy per inference, {hardware}", unit="µJ")
    if chosen.relative_update is not None:
        axis = hv.Dimension("energy", label=f"effective synaptic operations per inference, {hardware}")
        return xr.Dataset(dict.fromkeys(PACES, spent["operations"])), axis
    raise ValueError(f"{hardware}: {NO_ENERGY}, and no operations either; there is nothing to plot.")


def not_priced(hardware: str, pace: str) -> str:
    """Say why nothing has a price on a hardware at a pace; empty where something has."""
    chosen = hardware_of(hardware)
    known = {"dynamic"} | ({"real_time"} if chosen.static_power else set())
    known |= {"fast"} if chosen.static_power and chosen.event_time else set()
    if not chosen.published or pace in known:
        return ""
    lacking = "speed" if chosen.static_power else "leakage"
    others = " and ".join(text for name, text in PACES.items() if name in known)
    return f"The {lacking} of {hardware} is not published; it has a price {others}."


def measured(
    points: xr.Dataset, quantity: str, *, hardware: str, pace: str, costs: xr.Dataset | None = None
) -> tuple[xr.DataArray, hv.Dimension]:
    """Return one of :data:`QUANTITIES` at each point in the unit in which it is drawn, and its axis.

    `hardware` and `pace` count for ``energy``. Without `costs`, they are computed where they are needed.
    """
    check_choice("quantity", quantity, tuple(QUANTITIES))
    check_choice("pace", pace, tuple(PACES))
    if quantity == "energy":
        sums, axis = energies(points, hardware, costs)
        return sums[pace], axis.clone(label=f"{axis.label}, {PACES[pace]}") if axis.unit else axis
    chosen = QUANTITIES[quantity]
    if quantity == "active_share":
        values = (deployment_costs(points) if costs is None else costs)["active_share"]
    else:
        values = points[chosen.variable or quantity]
    if "layer" in values.dims:
        values = values.sum("layer", min_count=1)
    split = f"{points['split'].item()} " if quantity == "accuracy" and points["split"].ndim == 0 else ""
    return chosen.factor * values, hv.Dimension(quantity, label=split + chosen.label, unit=chosen.unit or None)


def rules_of(points: xr.Dataset, rule: str | None = None) -> list[str]:
    """Return the rules of which something was measured, or the one that is asked for."""
    known = points["accuracy"].notnull().any([d for d in points["accuracy"].dims if d != "rule"])
    rules = [name for name in drawn_rules(points) if bool(known.sel(rule=name))]
    if rule is None:
        return rules
    check_choice("rule", rule, tuple(rules))
    return [rule]


def word_label(bits: int) -> str:
    """Name a word length: ``"4"``, or ``"32, as trained"``."""
    return "32, as trained" if bits == TRAINED else str(bits)


def title_of(points: xr.Dataset, *parts: str) -> str:
    """Tell data set, images and seeds."""
    seeds = seeds_text(points.sizes["seed"])
    return ", ".join(part for part in (dataset_name(points), *parts, f"{points['split'].item()} images", seeds) if part)


def with_word(points: xr.Dataset, bits: int) -> xr.Dataset:
    """Select a word length, and leave out time steps at which nothing was measured."""
    known = points["bits"].values.tolist()
    if bits not in known:
        raise ValueError(f"bits is {bits}; the deployment holds {', '.join(map(str, known))}.")
    points = points.sel(bits=bits)
    measured_at = points["accuracy"].notnull().any([d for d in points["accuracy"].dims if d != "delta_t"]).values
    if not measured_at.any():
        raise ValueError(f"Nothing was measured with {word_text(bits)}; there is nothing to plot.")
    return points.isel(delta_t=np.flatnonzero(measured_at)).sortby("delta_t")


def word_text(bits: int) -> str:
    """Tell a word length in words."""
    return "weights as trained" if bits == TRAINED else f"weights of {bits} bits"


def value_texts(mean: np.ndarray, std: np.ndarray, unit: str | None) -> np.ndarray:
    """Write values with their standard deviations, where there are any, and their unit."""
    spreads = [f" ± {s:.3g}" if np.isfinite(s) else "" for s in std]
    values = [f"{m:,.0f}" if abs(m) >= 1e4 else f"{m:.4g}" for m in mean]
    return np.array([f"{m}{s} {unit or ''}".rstrip() for m, s in zip(values, spreads, strict=True)], dtype=object)


def short(value: float, digits: int = 3) -> str:
    """Write a number with three digits or so, in little room.

    Examples
    --------
    >>> [short(v) for v in (97.54, 0.01234, 927.2, 999.7, 12345.6, 1.2e6)]
    ['97.5', '0.0123', '927', '1000', '12.3k', '1.20M']
    >>> short(0.1234, digits=2)
    '0.12'
    """
    for least, unit, letter in ((1e6, 1e6, "M"), (1e4, 1e3, "k"), (0.0, 1.0, "")):
        if abs(value) >= least:
            scaled = value / unit
            with_digits = f"{scaled:#.{digits}g}".rstrip(".")
            return (with_digits if abs(scaled) < 10**digits - 0.5 else f"{scaled:.0f}") + letter
    return ""  # not a number
