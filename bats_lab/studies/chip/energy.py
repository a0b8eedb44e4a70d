"""What an inference would cost on published hardware: energy per operation, times the operations counted.

Estimates from other people's measurements, for comparing time steps, not chips: the numbers come from different
technologies, and each leaves out something else (see the notes in :data:`HARDWARE`). A clock's cost and that of
events are kept apart, since the time step moves them differently: a finer clock has more ticks on which
neurons are updated, while it changes the number of events only through what the network does.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from bats_lab.runs.metrics import last_epoch
from bats_lab.spikes.grid import GRID_TOLERANCE

__all__ = [
    "CMOS_45NM",
    "HARDWARE",
    "NO_ENERGY",
    "Hardware",
    "active_share",
    "costs",
    "dense_operations",
    "deployment_costs",
    "energy",
    "energy_table",
    "neuron_updates_clocked",
]

#: What stands in tables and legends where nobody has published joules.
NO_ENERGY = "no published energy"


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What is published about the energy of one operation on one chip.

    Attributes
    ----------
    name : str
        Chip or technology.
    synaptic_event : float or None
        J per synaptic event; None: not published.
    neuron_update : float or None
        J per update of a neuron; None: included in `synaptic_event`, or not published where that is not.
    idle_update : float or None
        J per update of a neuron that does nothing; None: as `neuron_update`.
    relative_update : float or None
        Synaptic events that cost as much as one neuron update, where only that is published.
    source, note : str
        Citation, and what exactly the numbers are.
    """

    name: str
    synaptic_event: float | None = None
    neuron_update: float | None = None
    idle_update: float | None = None
    relative_update: float | None = None
    source: str
    note: str

    @property
    def published(self) -> bool:
        """Whether energies are published at all; if not, operations can be counted but not turned into joules."""
        return self.synaptic_event is not None


#: Energy in J of single operations in 45 nm CMOS (Horowitz 2014); a multiply-add is the sum of its two.
CMOS_45NM: dict[str, float] = {
    "float32 add": 0.9e-12,
    "float32 multiply": 3.7e-12,
    "float32 multiply-add": 4.6e-12,
    "int8 add": 0.03e-12,
    "int8 multiply": 0.2e-12,
    "8 KB SRAM read, 64 bit": 10e-12,
}

#: The table of published energies, by name.
HARDWARE: dict[str, Hardware] = {
    hardware.name: hardware
    for hardware in (
        Hardware(
            name="Loihi",
            synaptic_event=23.6e-12,
            neuron_update=81e-12,
            idle_update=52e-12,
            source='M. Davies et al. (2018). "Loihi: A Neuromorphic Manycore Processor with On-Chip Learning". '
            "IEEE Micro 38(1), 82–99.",
            note="Minimum per synaptic operation, and per update of an active and of an inactive neuron; "
            "sending spikes between cores comes on top.",
        ),
        Hardware(
            name="Loihi 2",
            relative_update=10,
            source='J. Timcheck et al. (2023). "The Intel neuromorphic DNS challenge". '
            "Neuromorphic Computing and Engineering 3(3), 034005.",
            note="No energy per operation is published, only a proxy of power without a unit of energy: "
            "synaptic operations + 10 × neuron updates.",
        ),
        Hardware(
            name="TrueNorth",
            synaptic_event=26e-12,
            source='P. A. Merolla et al. (2014). "A million spiking-neuron integrated circuit with a scalable '
            'communication network and interface". Science 345(6197), 668–673.',
            note="Total per synaptic event, neuron updates included, so that it holds for loads like the measured one.",
        ),
        Hardware(
            name="SpiNNaker 2",
            synaptic_event=450e-12,
            neuron_update=2.19e-9,
            source='S. Höppner et al. (2019). "Dynamic Power Management for Neuromorphic Many-Core Systems". '
            "IEEE Transactions on Circuits and Systems I 66(8), 2973–2986. arXiv:1903.08941.",
            note="A 28 nm prototype of the chip, which computes neurons and synapses in software.",
        ),
        Hardware(
            name="45 nm CMOS",
            synaptic_event=CMOS_45NM["float32 add"],
            neuron_update=2 * CMOS_45NM["float32 multiply"] + CMOS_45NM["float32 add"],
            source='M. Horowitz (2014). "Computing\'s energy problem (and what we can do about it)". '
            "IEEE International Solid-State Circuits Conference (ISSCC), Digest of Technical Papers, 10–14.",
            note="Arithmetic in 32-bit floats only, no memory access (a read of 64 bit from 8 KB of SRAM: 10 pJ); "
            "one add per synaptic event, two decays (multiplications) and one comparison (an add) per neuron update.",
        ),
    )
}


def neuron_updates_clocked(layer_size: npt.ArrayLike, duration: npt.ArrayLike, delta_t: npt.ArrayLike) -> Any:
    r"""Count the updates of a clock, which updates every neuron on every tick: :math:`N \lfloor T/\Delta t\rfloor`.

    Parameters
    ----------
    layer_size, duration, delta_t : array_like or DataArray
        Neurons; window in seconds; time step in seconds, above 0 (NaN gives NaN). They are broadcast.

    Raises
    ------
    ValueError
        If a time step is not above 0.

    Examples
    --------
    >>> float(neuron_updates_clocked(810, duration=0.2, delta_t=0.001))
    162000.0
    """
    step = _numbers(delta_t)
    wrong = np.asarray(step)[np.asarray(step) <= 0]
    if wrong.size:
        raise ValueError(f"delta_t is {wrong[0]}; it must be above 0, since continuous time has no ticks to count.")
    return _numbers(layer_size) * np.floor(_numbers(duration) / step + GRID_TOLERANCE)


def active_share(
    spike_count: npt.ArrayLike, layer_size: npt.ArrayLike, duration: npt.ArrayLike, delta_t: npt.ArrayLike
) -> Any:
    """Return the share of (neuron, tick) pairs with a spike, given spikes per inference.

    The other arguments are those of :func:`neuron_updates_clocked`, which also raises here.

    Notes
    -----
    Others report it, or 1 minus it, as sparsity. It moves with the time step for the very same spikes, so it cannot
    compare time steps; spikes per sample can. Spikes that share a tick (rule ``graded``) are counted each.

    Examples
    --------
    >>> [float(active_share(50, 100, duration=0.2, delta_t=step)) for step in (0.002, 0.001)]
    [0.005, 0.0025]
    """
    return _numbers(spike_count) / neuron_updates_clocked(layer_size, duration, delta_t)


def dense_operations(sizes: Sequence[float]) -> int:
    """Count the multiply-adds of a dense network, given its inputs and the neurons of each layer, in this order.

    Examples
    --------
    >>> dense_operations([784, 800, 10])
    635200
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes is {list(sizes)}; it must have the inputs and at least one layer.")
    return sum(int(pre) * int(post) for pre, post in itertools.pairwise(sizes))


def energy(counts: xr.Dataset, hardware: Hardware) -> xr.Dataset:
    """Turn counted operations into energy on one hardware, event-driven and clocked.

    Parameters
    ----------
    counts : xarray.Dataset
        ``synaptic_events`` and (clocked) ``neuron_updates`` per inference, the latter NaN in continuous time;
        ValueError if one is missing.
    hardware : Hardware
        A row of :data:`HARDWARE`, or one's own.

    Returns
    -------
    xarray.Dataset
        In J per inference: ``synapses``, ``updates_event_driven``, ``updates_clocked``, and the totals
        ``event_driven`` and ``clocked``, synapses included; NaN where no energies are published, and what is clocked
        also in continuous time. In effective synaptic operations (events + `relative_update` × updates):
        ``operations_event_driven`` and ``operations_clocked``, NaN where `relative_update` is None.

    Notes
    -----
    An event-driven chip takes inputs one by one, whenever they come, and updates the neuron at each: one update per
    synaptic event, whatever the time step. A clocked chip updates every neuron on every tick, once for all inputs of
    the tick; where an idle update has a price of its own, at least those updates are idle that outnumber the events.
    """
    _require(counts, "counts", "synaptic_events", "neuron_updates")
    events, ticked = counts["synaptic_events"].astype(float), counts["neuron_updates"].astype(float)
    active: Any = np.minimum(events, ticked)
    # An update without a price of its own is paid with the synaptic event; NaN where that has none either.
    update_price = _price(hardware.neuron_update, 0.0 if hardware.published else math.nan)
    idle_price = _price(hardware.idle_update, update_price)
    relative = _price(hardware.relative_update, math.nan)
    synapses = _price(hardware.synaptic_event, math.nan) * events
    event_driven = update_price * events
    clocked = update_price * active + idle_price * (ticked - active)  # NaN in continuous time, also at a price of 0
    joules, operations = "energy per inference", "effective synaptic operations per inference"
    return xr.Dataset(
        {
            "synapses": _described(synapses, "J", f"{joules}, synaptic events"),
            "updates_event_driven": _described(event_driven, "J", f"{joules}, neuron updates, event-driven"),
            "updates_clocked": _described(clocked, "J", f"{joules}, neuron updates, clocked"),
            "event_driven": _described(synapses + event_driven, "J", f"{joules}, event-driven"),
            "clocked": _described(synapses + clocked, "J", f"{joules}, clocked"),
            "operations_event_driven": _described(events + relative * events, "1", f"{operations}, event-driven"),
            "operations_clocked": _described(events + relative * ticked, "1", f"{operations}, clocked"),
        }
    )


def costs(results: xr.Dataset, *, n_inputs: int, hardware: Mapping[str, Hardware] = HARDWARE) -> xr.Dataset:
    """Estimate what an inference of each run costs, after its last epoch and on the test set.

    Parameters
    ----------
    results : xarray.Dataset
        Results of one run, or of many as :func:`bats_lab.open_results` gives them.
    n_inputs : int
        Inputs of the networks (pixels of an image), which results do not hold.
    hardware : mapping of str to Hardware
        On what.

    Returns
    -------
    xarray.Dataset
        What :func:`energy` gives, summed over layers, over the dimensions of the runs and ``hardware``; the coordinate
        ``published`` is False where there is :data:`NO_ENERGY`. Without `hardware`: ``synaptic_events``; the
        ``neuron_updates`` and ``active_share`` of a clock, NaN in continuous time; ``dense_operations``, the
        multiply-adds of a dense network of the same shape; and ``dense``, their energy in J in 45 nm CMOS (arithmetic
        only). NaN where there is no run.

    Raises
    ------
    ValueError
        If `n_inputs` is not above 0, `hardware` is empty, or a variable is missing.
    """
    if n_inputs < 1:
        raise ValueError(f"n_inputs is {n_inputs}; it must be at least 1.")
    if not hardware:
        raise ValueError("hardware is empty; there must be at least one.")
    _require(
        results, "results", "accuracy", "synaptic_events", "spike_count", "layer_size", "config", "delta_t", "split"
    )
    last = last_epoch(results)
    # From the configurations, which serves sweeps with a dimension `duration` and those without.
    duration = xr.apply_ufunc(_duration, last["config"], vectorize=True, output_dtypes=[float])
    return _costs_of(last.sel(split="test", drop=True), n_inputs=n_inputs, duration=duration, hardware=hardware)


def _costs_of(
    counts: xr.Dataset,
    *,
    n_inputs: int | xr.DataArray,
    duration: xr.DataArray,
    hardware: Mapping[str, Hardware] = HARDWARE,
) -> xr.Dataset:
    """Do what :func:`costs` does for anything counted by layer, over any dimensions.

    `counts` has ``synaptic_events``, ``spike_count`` and ``layer_size`` over `layer`, and the coordinate ``delta_t``.
    """
    step = counts["delta_t"].where(counts["delta_t"] > 0)
    size, events = counts["layer_size"].astype(float), counts["synaptic_events"]
    updates = neuron_updates_clocked(size, duration, step).where(events.notnull()).transpose(*events.dims)
    layers = xr.Dataset({"synaptic_events": events, "neuron_updates": updates})
    attrs = {"units": "1", "long_name": "hardware"}
    total = xr.concat(
        # Layers that only other runs have are NaN; with min_count, a sum of nothing else is NaN, not 0.
        [energy(layers, each).sum("layer", min_count=1, keep_attrs=True) for each in hardware.values()],
        xr.DataArray(np.array(list(hardware)), dims="hardware", name="hardware", attrs=attrs),
        data_vars="all",
        coords="minimal",
        compat="override",
        join="override",
        combine_attrs="override",
    ).transpose(..., "hardware")
    published = [each.published for each in hardware.values()]
    text = {"units": "1", "long_name": "energies per operation are published"}
    counted = layers.sum("layer", min_count=1)
    spike_count = counts["spike_count"].sum("layer", min_count=1)
    share = active_share(spike_count, size.sum("layer", min_count=1), duration, step)
    dense = xr.apply_ufunc(
        _dense, n_inputs, size, input_core_dims=[[], ["layer"]], vectorize=True, output_dtypes=[float]
    )
    dense_energy = dense * CMOS_45NM["float32 multiply-add"]
    return total.assign_coords(published=("hardware", published, text)).assign(
        synaptic_events=_described(counted["synaptic_events"], "1", "synaptic events per inference"),
        neuron_updates=_described(counted["neuron_updates"], "1", "neuron updates per inference, clocked"),
        active_share=_described(share, "1", "share of (neuron, tick) pairs with a spike"),
        dense_operations=_described(dense, "1", "multiply-adds of a dense network of the same shape"),
        dense=_described(dense_energy, "J", "energy per inference, dense network, arithmetic in 45 nm CMOS"),
    )


def deployment_costs(deployment: xr.Dataset, *, hardware: Mapping[str, Hardware] = HARDWARE) -> xr.Dataset:
    """Estimate what an inference costs at each point of a deployment, as :func:`costs` does for runs.

    NaN where there is no point; ValueError if a variable is missing. Published energies are of one word length each:
    what a shorter word saves is not in here.
    """
    needed = ("spike_count", "synaptic_events", "layer_size", "n_inputs", "duration")
    missing = [name for name in needed if name not in deployment]
    if missing:
        raise ValueError(
            f"deployment lacks {', '.join(missing)}; run_deployment measures it anew without the old file."
        )
    return _costs_of(
        deployment[list(needed)], n_inputs=deployment["n_inputs"], duration=deployment["duration"], hardware=hardware
    )


def energy_table(hardware: Mapping[str, Hardware] = HARDWARE) -> pd.DataFrame:
    """Lay out published energies for reading, one row a hardware; the numbers themselves are in :data:`HARDWARE`."""
    rows = []
    for each in hardware.values():
        update = _picojoules(each.neuron_update, "in the synaptic event" if each.published else NO_ENERGY)
        relative = "" if each.relative_update is None else f"{each.relative_update:g} synaptic events"
        rows.append(
            {
                "synaptic_event": _picojoules(each.synaptic_event, NO_ENERGY),
                "neuron_update": update,
                "idle_update": _picojoules(each.idle_update, update),
                "relative_update": relative,
                "note": each.note,
                "source": each.source,
            }
        )
    return pd.DataFrame(rows, index=pd.Index(list(hardware), name="hardware"))


def _numbers(values: npt.ArrayLike) -> Any:
    return values.astype(float) if isinstance(values, xr.DataArray) else np.asarray(values, dtype=np.float64)


def _price(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _picojoules(value: float | None, otherwise: str) -> str:
    return otherwise if value is None else f"{value * 1e12:g} pJ"


def _duration(config: str) -> float:
    """Read the window of a run; where there is none among merged runs, its text is empty."""
    return float(json.loads(config)["duration"]) if config else math.nan


def _dense(n_inputs: float, sizes: np.ndarray) -> float:
    known = sizes[~np.isnan(sizes)]
    return dense_operations([n_inputs, *known]) if known.size else math.nan


def _described(values: xr.DataArray, units: str, long_name: str) -> xr.DataArray:
    return values.drop_attrs(deep=False).assign_attrs(units=units, long_name=long_name)


def _require(dataset: xr.Dataset, argument: str, *names: str) -> None:
    missing = [name for name in names if name not in dataset.variables]
    if missing:
        raise ValueError(f"{argument} lacks {', '.join(missing)}; it must have {', '.join(names)}.")
