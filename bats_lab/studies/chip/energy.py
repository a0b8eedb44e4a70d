"""What an inference would cost on published hardware: energy per operation, times the operations counted.

Estimates for comparing time steps and words, not chips: the prices come from different technologies, most of them from
simulations, and each leaves out something else (see :mod:`bats_lab.studies.chip.prices`). Only what a chip with a clock
can run is priced: rule ``clocked``, on which a neuron looks at its potential on ticks and sends one binary spike a tick
at most. The other rules need the exact moment at which a potential crosses the threshold; no published chip computes
that, so that they have counts (spikes, synaptic events) and no joules.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from bats_lab.runs.metrics import last_epoch
from bats_lab.spikes.grid import GRID_TOLERANCE
from bats_lab.spikes.rules import RULES
from bats_lab.studies.chip.prices import CMOS_45NM, HARDWARE, Hardware, Price
from bats_lab.studies.chip.quantization import TRAINED

__all__ = [
    "PACES",
    "TERMS",
    "active_share",
    "costs",
    "dense_energy",
    "dense_operations",
    "deployment_costs",
    "energy",
    "layer_counts",
    "memory_access",
    "neuron_updates_clocked",
    "used_cores",
]

#: What an inference is charged for.
TERMS = {
    "synapses": "synaptic events",
    "memory": "memory traffic",
    "updates": "neuron updates",
    "routing": "spikes between layers",
    "inputs": "delivery of inputs",
    "barrier": "barriers at the end of ticks",
}
#: Sums, by what is taken for leakage.
PACES = {
    "real_time": "with leakage, in real time",
    "fast": "with leakage, at full speed",
    "dynamic": "without leakage",
}


_SRAM_BYTES = np.array([8, 32, 1024]) * 1024.0
_SRAM_JOULES = np.array([CMOS_45NM[f"{size} SRAM read, 64 bit"] for size in ("8 KB", "32 KB", "1 MB")])
#: Bits of a potential, a current, and a sum; and of a dense network's activation.
_STATE_BITS, _ACTIVATION_BITS = 32, 8


def neuron_updates_clocked(layer_size: npt.ArrayLike, duration: npt.ArrayLike, delta_t: npt.ArrayLike) -> Any:
    r"""Count (neuron, tick) pairs in the window: :math:`N \lfloor T/\Delta t\rfloor`.

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


def memory_access(n_bytes: npt.ArrayLike, bits: npt.ArrayLike) -> Any:
    """Return the energy in J to read or write so many bits of an SRAM of so many bytes, in 45 nm CMOS.

    Words of less than 64 bits are read side by side. Between the sizes of
    :data:`bats_lab.studies.chip.prices.CMOS_45NM` it is interpolated in logarithms; smaller memories cost as the
    smallest, and larger ones are banks of the largest.

    Examples
    --------
    >>> [f"{1e12 * float(memory_access(size, bits)):.4g} pJ" for size, bits in ((8 * 1024, 64), (2**24, 8))]
    ['10 pJ', '12.5 pJ']
    """
    joules = np.exp(np.interp(np.log(np.maximum(_numbers(n_bytes), 1.0)), np.log(_SRAM_BYTES), np.log(_SRAM_JOULES)))
    return _numbers(bits) / 64 * (n_bytes.copy(data=joules) if isinstance(n_bytes, xr.DataArray) else joules)


def dense_energy(operations: npt.ArrayLike, n_neurons: npt.ArrayLike, bits: npt.ArrayLike) -> Any:
    """Return the energy in J of one pass of a dense network with weights of so many bits, in 45 nm CMOS.

    Parameters
    ----------
    operations : array_like or DataArray
        Multiply-adds, as many as weights.
    n_neurons : array_like or DataArray
        Inputs and neurons, whose activations are kept.
    bits : array_like or DataArray
        Word length of the weights; 32: multiply-adds of floats, else of integers.

    Notes
    -----
    Each multiply-add reads a weight, and an activation of 8 bits (32 with floats); sums stay in a register, as a dense
    layer can take its inputs in any order. Without leakage, as :data:`PACES` has it under ``dynamic``.
    """
    trained = _numbers(bits) == TRAINED
    integers = CMOS_45NM["int8 multiply"] + CMOS_45NM["int32 add"]
    arithmetic = integers + trained * (CMOS_45NM["float32 multiply-add"] - integers)
    activation = _ACTIVATION_BITS + trained * (TRAINED - _ACTIVATION_BITS)
    weight = memory_access(_numbers(operations) * _numbers(bits) / 8, bits)
    return _numbers(operations) * (
        arithmetic + weight + memory_access(_numbers(n_neurons) * activation / 8, activation)
    )


def energy(counts: xr.Dataset, hardware: Hardware) -> xr.Dataset:
    """Turn what was counted of a clocked network into energy on one hardware.

    Parameters
    ----------
    counts : xarray.Dataset
        Per inference and ``layer``: ``synaptic_events``, ``spikes_in`` (that reach the layer), ``spikes_out``,
        ``layer_size`` and ``weights`` (their number); ``ticks``, NaN where there is no clock; ``seconds``, what they
        take in real time; and ``bits``. ValueError if one is missing.
    hardware : Hardware
        A row of :data:`bats_lab.studies.chip.prices.HARDWARE`, or one's own.

    Returns
    -------
    xarray.Dataset
        Summed over layers, in J per inference: each of :data:`TERMS`; ``leakage_real_time`` and ``leakage_fast``; the
        sums of :data:`PACES`, NaN where there is no clock, a word is longer than the hardware has, or no price is
        published; and ``operations``, effective synaptic operations, where only `relative_update` is.

    Notes
    -----
    Every neuron is updated on every tick. All layers are dense, so that the first spike leaves no neuron without a
    current, and exponentials never come back to 0: updates are paid as those of active neurons. Layers do not share
    cores. At full speed the slowest layer sets the pace, and barriers are waited for.
    """
    _require(counts, "counts", "synaptic_events", "spikes_in", "spikes_out", "layer_size", "weights", "ticks", "bits")
    counts = counts.transpose("layer", ...)
    events, bits, ticks = counts["synaptic_events"].astype(float), counts["bits"], counts["ticks"]

    def price(name: str, missing: float = 0.0) -> xr.DataArray:
        """Return a price by word length, in a memory of the words' size: NaN where the word is too long."""
        own, floats = getattr(hardware, name), getattr(hardware.as_trained, name, None)
        long = math.nan if hardware.as_trained is None else _value(floats, missing)
        return (0.0 * bits + _value(own, missing)).where(bits <= hardware.max_bits, long)

    nothing = math.nan if not hardware.published else 0.0
    updates = counts["layer_size"].astype(float) * ticks
    cores = used_cores(hardware, counts["layer_size"], counts["weights"], bits)
    first = xr.DataArray(np.arange(counts.sizes["layer"]) == 0, dims="layer")
    messages = (counts["spikes_in"] * cores * price("message")).where(ticks.notnull())
    by_layer = {
        "synapses": events * price("synaptic_event", math.nan),
        "memory": _memory(counts, updates) if hardware.priced_by_word else 0.0 * events,
        "updates": updates * price("neuron_update", nothing),
        "routing": messages.where(~first, 0.0) + counts["spikes_out"] * price("spike"),
        "inputs": messages.where(first, 0.0),
        "barrier": ticks * cores * price("barrier"),
    }
    terms = {name: value.sum("layer", min_count=1) for name, value in by_layer.items()}
    dynamic = functools.reduce(operator.add, terms.values())
    power = cores.where(counts["layer_size"].notnull()).sum("layer", min_count=1) * price("static_power", math.nan)
    if hardware.priced_by_word:
        power = price("static_power", math.nan)  # of the whole chip
    busy = events / cores * price("event_time", math.nan) + updates / cores * price("update_time", math.nan)
    seconds = busy.max("layer") + ticks * price("barrier_time", math.nan)
    leakage = {"real_time": power * counts["seconds"], "fast": power * seconds}
    relative = _or_else(hardware.relative_update, math.nan)
    operations = (events + relative * updates).sum("layer", min_count=1)
    joules = "energy per inference"
    return xr.Dataset(
        {name: _described(terms[name], "J", f"{joules}, {text}") for name, text in TERMS.items()}
        | {f"leakage_{pace}": _described(v, "J", f"{joules}, leakage, {PACES[pace]}") for pace, v in leakage.items()}
        | {pace: _described(dynamic + v, "J", f"{joules}, {PACES[pace]}") for pace, v in leakage.items()}
        | {
            "dynamic": _described(dynamic, "J", f"{joules}, {PACES['dynamic']}"),
            "operations": _described(
                operations.where(ticks.notnull()), "1", "effective synaptic operations per inference"
            ),
        }
    )


def used_cores(hardware: Hardware, n_neurons: Any, n_weights: Any, bits: Any) -> Any:
    """Count the cores that hold so many neurons, and so many weights of so many bits; numbers or arrays of them.

    Examples
    --------
    >>> int(used_cores(HARDWARE["Loihi"], 800, 784 * 800, 8))
    5
    """
    cores: Any = np.maximum(np.ceil(n_neurons / hardware.neurons_per_core), 1.0)
    if math.isfinite(hardware.weight_bits_per_core):
        cores = np.maximum(cores, np.ceil(n_weights * bits / hardware.weight_bits_per_core))
    return cores


def layer_counts(
    spikes_in: Sequence[float],
    spikes_out: Sequence[float],
    sizes: Sequence[int],
    duration: float,
    delta_t: float,
    bits: int,
) -> xr.Dataset:
    """Return what :func:`energy` takes, given what reaches and leaves each layer, for one network on a clock.

    `sizes` are those of the inputs and of all layers; `duration` and `delta_t` are in seconds.
    """
    size, below = np.array(sizes[1:], float), np.array(sizes[:-1], float)
    ticks = float(neuron_updates_clocked(1, duration, delta_t)) + 1
    by_layer = {
        "synaptic_events": np.array(spikes_in) * size,
        "spikes_in": np.array(spikes_in),
        "spikes_out": np.array(spikes_out),
        "layer_size": size,
        "weights": size * below,
    }
    return xr.Dataset(
        {name: ("layer", value) for name, value in by_layer.items()}
        | {"ticks": ticks, "seconds": ticks * delta_t, "bits": bits}
    )


def _memory(counts: xr.Dataset, updates: xr.DataArray) -> xr.DataArray:
    """Return the energy of a layer's traffic with memory, in J, of what reads and writes each word that it needs.

    An event comes in its own time, so that its sum is read and written: a weight and two accesses an event; an update
    reads and writes a current and a potential.
    """
    n_weights, n_neurons = (counts[name].sum("layer") for name in ("weights", "layer_size"))
    weight = memory_access(n_weights * counts["bits"] / 8, counts["bits"])
    state = memory_access(2 * n_neurons * _STATE_BITS / 8, _STATE_BITS)
    return counts["synaptic_events"] * (weight + 2 * state) + updates * 4 * state


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
        What :func:`energy` gives, over the dimensions of the runs and ``hardware``, NaN for every rule but ``clocked``;
        the coordinate ``published`` is False where joules are not. Without `hardware`: ``synaptic_events``;
        ``input_share``, the share of them between inputs and the first layer; ``active_share`` of a clock, NaN in
        continuous time; ``event_share``, synaptic events per connection and tick; ``dense_operations``, the
        multiply-adds of a dense network of the same shape; ``dense``, its energy in J in 45 nm CMOS
        (:func:`dense_energy`) with the same words; and ``crossover``, the ``event_share`` below which a spiking network
        in 45 nm CMOS takes less than that, both without leakage (0: it never does). NaN where there is no run.

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

    def of_config(name: str, kind: type, missing: Any) -> xr.DataArray:
        """Read a parameter of each run, which serves sweeps with a dimension of that name and those without."""
        read = lambda text: kind(json.loads(text)[name]) if text else missing  # noqa: E731
        return xr.apply_ufunc(read, last["config"], vectorize=True, output_dtypes=[object]).astype(kind)

    return _costs_of(
        last.sel(split="test", drop=True),
        n_inputs=n_inputs,
        duration=of_config("duration", float, math.nan),
        rule=of_config("rule", str, ""),
        bits=xr.DataArray(TRAINED),
        hardware=hardware,
    )


def _costs_of(
    counts: xr.Dataset,
    *,
    n_inputs: int | xr.DataArray,
    duration: xr.DataArray,
    rule: xr.DataArray,
    bits: xr.DataArray,
    hardware: Mapping[str, Hardware] = HARDWARE,
) -> xr.Dataset:
    """Do what :func:`costs` does for anything counted by layer, over any dimensions.

    `counts` has ``synaptic_events``, ``spike_count`` and ``layer_size`` over `layer`, and the coordinate ``delta_t``.
    """
    step = counts["delta_t"].where(counts["delta_t"] > 0)
    size, events = counts["layer_size"].astype(float), counts["synaptic_events"]
    clocked = rule.isin([name for name, each in RULES.items() if each.clocked])
    # The ticks on which potentials are read, and one on which what was sent on the last of them is delivered.
    ticks = (neuron_updates_clocked(1, duration, step) + 1).where(clocked)
    weights = size * xr.apply_ufunc(
        _below, n_inputs, size, input_core_dims=[[], ["layer"]], output_core_dims=[["layer"]], vectorize=True
    )
    known = events.notnull()
    layers = xr.Dataset(
        {
            "synaptic_events": events,
            "spikes_in": events / size,
            "spikes_out": counts["spike_count"],
            "layer_size": size.where(known),
            "weights": weights.where(known),
            "ticks": ticks,
            "seconds": ticks * step,
            "bits": bits,
        }
    )
    attrs = {"units": "1", "long_name": "hardware"}
    total = xr.concat(
        [energy(layers, each) for each in hardware.values()],
        xr.DataArray(np.array(list(hardware)), dims="hardware", name="hardware", attrs=attrs),
        data_vars="all",
        coords="minimal",
        compat="override",
        join="override",
        combine_attrs="override",
    )
    dims = [str(d) for d in events.dims if d != "layer"]
    total = total.transpose(*dims, "hardware", missing_dims="ignore")
    published = [each.published for each in hardware.values()]
    text = {"units": "1", "long_name": "energies per operation are published"}
    all_events = events.sum("layer", min_count=1)
    share = active_share(
        counts["spike_count"].sum("layer", min_count=1), size.sum("layer", min_count=1), duration, step
    )
    dense = weights.sum("layer", min_count=1)
    dense_joules = dense_energy(dense, n_inputs + size.sum("layer"), bits)
    event_share = all_events / (dense * (neuron_updates_clocked(1, duration, step) + 1))
    here = energy(layers, HARDWARE["45 nm CMOS"])
    fixed = here["dynamic"] - _per_event(layers)
    by_share = _per_event(layers) / event_share
    described = {
        "synaptic_events": (all_events, "1", "synaptic events per inference"),
        "input_share": (
            events.isel(layer=0, drop=True) / all_events,
            "1",
            "synaptic events between inputs and layer 1",
        ),
        "active_share": (share, "1", "share of (neuron, tick) pairs with a spike"),
        "event_share": (event_share, "1", "synaptic events per connection and tick"),
        "dense_operations": (dense, "1", "multiply-adds of a dense network of the same shape"),
        "dense": (dense_joules, "J", "energy per inference, dense network of the same words, in 45 nm CMOS"),
        "crossover": (
            np.maximum((dense_joules - fixed) / by_share, 0.0),
            "1",
            "synaptic events per connection and tick below which a spiking network takes less than a dense one",
        ),
    }
    return total.assign_coords(published=("hardware", published, text)).assign(
        {name: _described(value, units, long_name) for name, (value, units, long_name) in described.items()}
    )


def _below(n_inputs: float, sizes: np.ndarray) -> np.ndarray:
    """Return the neurons below each layer; layers that only other networks have are NaN, and below none."""
    known = ~np.isnan(sizes)
    below = np.full(sizes.shape, np.nan)
    below[known] = [n_inputs, *sizes[known][:-1]][: known.sum()]
    return below


def _per_event(layers: xr.Dataset) -> xr.DataArray:
    """Return what of the energy in 45 nm CMOS is paid for events, and not for ticks."""
    idle = layers.assign(synaptic_events=0.0 * layers["synaptic_events"])
    cmos = HARDWARE["45 nm CMOS"]
    return energy(layers, cmos)["dynamic"] - energy(idle, cmos)["dynamic"]


def deployment_costs(deployment: xr.Dataset, *, hardware: Mapping[str, Hardware] = HARDWARE) -> xr.Dataset:
    """Estimate what an inference costs at each point of a deployment, as :func:`costs` does for runs.

    Computed from the counts that a deployment holds, whenever it was measured. NaN where there is no point, and under
    every rule but ``clocked``; ValueError if a variable is missing.
    """
    needed = ("spike_count", "synaptic_events", "layer_size", "n_inputs", "duration")
    missing = [name for name in needed if name not in deployment]
    if missing:
        raise ValueError(
            f"deployment lacks {', '.join(missing)}; run_deployment measures it anew without the old file."
        )
    return _costs_of(
        deployment[list(needed)],
        n_inputs=deployment["n_inputs"],
        duration=deployment["duration"],
        rule=deployment["rule"],
        bits=deployment["bits"],
        hardware=hardware,
    )


def _numbers(values: npt.ArrayLike) -> Any:
    return values.astype(float) if isinstance(values, xr.DataArray) else np.asarray(values, dtype=np.float64)


def _value(price: Price | None, missing: float) -> float:
    return missing if price is None else price.value


def _or_else(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _described(values: xr.DataArray, units: str, long_name: str) -> xr.DataArray:
    return values.drop_attrs(deep=False).assign_attrs(units=units, long_name=long_name)


def _require(dataset: xr.Dataset, argument: str, *names: str) -> None:
    missing = [name for name in names if name not in dataset.variables]
    if missing:
        raise ValueError(f"{argument} lacks {', '.join(missing)}; it must have {', '.join(names)}.")
