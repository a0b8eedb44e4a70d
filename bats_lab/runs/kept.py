"""What runs kept, and what their weights and spikes still tell after training, from the results alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import xarray as xr

from bats_lab.engine import Neurons
from bats_lab.network.feedforward import Network
from bats_lab.network.neuron import Neuron
from bats_lab.runs.experiment import config_of, first_samples, network_of, thresholds_of
from bats_lab.runs.metrics import RUN_DIMS, VARIABLES, decide_at, stop_times
from bats_lab.runs.training import input_spikes
from bats_lab.spikes.trains import Spikes

__all__ = [
    "busiest_neuron",
    "changes_of",
    "image_of",
    "kept_inputs",
    "kept_spikes",
    "measure_gradients",
    "measure_stopping",
    "neuron_of",
    "runs_to_rerun",
    "runs_with_spikes",
    "runs_with_weights",
    "single_runs",
    "weights_of",
]


def single_runs(results: xr.Dataset) -> list[xr.Dataset]:
    """Return each finished run of results, by rising time step; nothing is read from disk."""
    for name in ("accuracy", "config"):
        if name not in results:
            raise ValueError(f"The results have no variable {name!r}, which every run has.")
    dims = [str(d) for d in results["accuracy"].dims if d not in VARIABLES["accuracy"].dims]
    if not dims:
        return [results]
    done = results["accuracy"].notnull().any(list(VARIABLES["accuracy"].dims))
    order = sorted(dims, key=lambda dim: (dim == "seed", dim == "rule", dim != "dataset"))
    cells = done.transpose(*order)
    return [results.isel(dict(zip(order, map(int, cell), strict=True))) for cell in np.argwhere(cells.values)]


def runs_with_weights(results: xr.Dataset) -> list[xr.Dataset]:
    """Return the finished runs that kept their weights, by rising time step; a ValueError if there is none."""
    runs = [run for run in single_runs(results) if "weights" in run and config_of(run).keep_weights != "none"]
    if not runs:
        raise ValueError("None of these runs kept its weights; runs keep them with keep_weights='last' or 'each'.")
    return runs


def runs_with_spikes(results: xr.Dataset) -> list[xr.Dataset]:
    """Return the finished runs that kept the spikes of some test samples, as :func:`runs_with_weights` does."""
    runs = [run for run in single_runs(results) if "sample_label" in run and run["sample_label"].values.any()]
    if not runs:
        raise ValueError("None of these runs kept spikes; runs keep them with keep_samples above 0.")
    return runs


def runs_to_rerun(results: xr.Dataset) -> list[xr.Dataset]:
    """Return the finished runs that kept both, weights and input spikes of some test samples, as those two do."""
    kept = {run["config"].item() for run in runs_with_weights(results)}
    runs = [run for run in runs_with_spikes(results) if run["config"].item() in kept]
    if not runs:
        raise ValueError("None of these runs kept both its weights and spikes (keep_weights='last', keep_samples=5).")
    return runs


def weights_of(run: xr.Dataset, *, epoch: int | None = None, variable: str = "weights") -> dict[str, np.ndarray]:
    """Return what a run kept for each of its weights, layer by layer.

    Parameters
    ----------
    run : xarray.Dataset
        Results of one run.
    epoch : int or None
        After which epoch, for runs that keep the weights of each; None: after the last.
    variable : str
        ``weights``, or ``gradients`` (:func:`measure_gradients`).

    Returns
    -------
    dict of str to ndarray, (post, pre)
        By the layer's name; layers of other runs and neurons that this run does not have are left out.

    Raises
    ------
    ValueError
        If there is no such epoch.
    """
    kept = run[variable if epoch is None else f"{variable}_by_epoch"]
    if epoch is not None:
        known = run["epoch"].values
        if epoch not in known:
            raise ValueError(f"epoch is {epoch}; the results hold {known.min()} to {known.max()}.")
        kept = kept.sel(epoch=epoch)
    kept = kept.isel({dim: 0 for dim in kept.dims if dim not in VARIABLES["weights"].dims})
    padded = kept.transpose("layer", "post", "pre").values
    layers = {str(name): w for name, w in zip(kept["layer"].values, padded, strict=True)}
    return {name: w[np.isfinite(w[:, 0])][:, np.isfinite(w[0])] for name, w in layers.items() if np.isfinite(w[0, 0])}


def changes_of(run: xr.Dataset, *, epoch: int | None = None) -> dict[str, np.ndarray]:
    """Return what training has made of a run's weights: those kept, less those that its seed drew at the start.

    Parameters
    ----------
    run, epoch
        As in :func:`weights_of`.

    Returns
    -------
    dict of str to ndarray, (post, pre)
        By the layer's name.
    """
    weights = weights_of(run, epoch=epoch)
    first, *_, last = (next(iter(weights.values())), *weights.values())
    start = Network.from_config(config_of(run), first.shape[1], len(last)).weights
    return {name: (w - s).astype(w.dtype) for (name, w), s in zip(weights.items(), start, strict=True)}


def kept_inputs(shown: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return computed and sent times, (input neuron, spike), of the input of a kept sample, selected from its run."""
    every = "input_trains" in shown and bool(shown["input_trains"].notnull().any())
    names = ("input_trains", "input_sent_trains") if every else ("input_times", "input_sent_times")
    computed, sent = (shown[name].values.reshape(shown.sizes["input_neuron"], -1) for name in names)
    return computed, sent


def kept_spikes(run: xr.Dataset) -> Spikes:
    """Return the input spikes of a run's kept samples, in continuous time."""
    computed = [kept_inputs(run.sel(sample=sample))[0] for sample in run["sample"].values]
    return Spikes.from_padded(np.nan_to_num(np.stack(computed).astype(np.float64), nan=np.inf))


def image_of(run: xr.Dataset, sample: int) -> np.ndarray:
    """Return the image, (row, column) of 0 to 255, that the kept input spikes of a sample stand for.

    Raises
    ------
    ValueError
        If they stand for none, since they are events.
    """
    brightness = 1 - run["input_times"].sel(sample=sample).values / config_of(run).encoding_window
    levels = 255 * brightness[np.isfinite(brightness)]
    if ((levels < 0) | (np.abs(levels - np.rint(levels)) > 0.01)).any():
        raise ValueError(f"{config_of(run).dataset} holds events; there is no image of sample {sample}.")
    side = math.isqrt(len(brightness))
    shape = (side, side) if side * side == len(brightness) else (1, len(brightness))
    return np.where(np.isfinite(brightness), 255 * brightness, 0).reshape(shape)


def busiest_neuron(run: xr.Dataset, layer: str, sample: int) -> int:
    """Return the number of the neuron of a layer that sent most spikes while the network saw a kept sample."""
    sent = run["sent_times"].sel(layer=layer, sample=sample)
    return int(sent.notnull().sum("spike").argmax("neuron"))


def neuron_of(run: xr.Dataset, *, layer: str, neuron: int, sample: int) -> Neuron:
    """Return what a neuron of a trained network received and did while the network saw a kept sample.

    Parameters
    ----------
    run : xarray.Dataset
        Results of one run that kept its weights and the spikes of the sample.
    layer : str
        Layer of the neuron, as ``hidden_1`` or ``output``.
    neuron, sample : int
        Its number, and which of the kept samples.

    Returns
    -------
    Neuron

    Raises
    ------
    ValueError
        If there is no such neuron.
    """
    config = config_of(run)
    names = config.layer_names()
    depth = names.index(layer)
    n_neurons = int(run["layer_size"].sel(layer=layer))
    if not 0 <= neuron < n_neurons:
        raise ValueError(f"neuron is {neuron}; layer {layer!r} has neurons 0 to {n_neurons - 1}.")
    shown = run.sel(sample=sample)
    times, sent = (shown[v].sel(layer=layer, neuron=neuron).values.astype(float) for v in ("spike_times", "sent_times"))
    if depth == 0:
        computed, arrived = kept_inputs(shown)
    else:
        below = shown.sel(layer=names[depth - 1])
        computed, arrived = (below[v].transpose("neuron", "spike").values for v in ("spike_times", "sent_times"))
    pre, spike = np.nonzero(np.isfinite(arrived))
    fired, constants = np.isfinite(times), Neurons.of(config).time_constants(depth)
    return Neuron(
        input_times=computed[pre, spike].astype(float),
        input_sent=arrived[pre, spike].astype(float),
        weights=run["weights"].sel(layer=layer).transpose("post", "pre").values[neuron, pre].astype(float),
        times=times[fired],
        discretized=np.where(np.isfinite(sent), sent, np.inf)[fired],
        tau_syn=constants.syn,
        tau_mem=constants.mem,
        threshold=thresholds_of(run)[depth],
        duration=config.duration,
        delta_t=config.delta_t,
        rule=config.rule,
        truncated=int(fired.sum()) == config.max_spikes[depth],
    )


def measure_stopping(results: xr.Dataset, *, n_samples: int = 200) -> xr.Dataset:
    """Return results with the curves of early decisions, measured now if no run holds them.

    Parameters
    ----------
    results : xarray.Dataset
        Results over `delta_t`, `seed` and `rule`.
    n_samples : int
        Test samples, from the first on, on which the networks are run.

    Returns
    -------
    xarray.Dataset
        With `stopped_accuracy` and `stopped_spike_count`; the attribute `note` tells if they were measured now.

    Raises
    ------
    ValueError
        If no run holds the curves and none kept its weights.
    """
    names = ("stopped_accuracy", "stopped_spike_count")
    if names[0] in results and bool(results[names[0]].notnull().any()):
        return results

    def stopped(run: xr.Dataset) -> xr.Dataset:
        config = config_of(run)
        data = first_samples(config, n_samples)
        accuracy, spikes = decide_at(network_of(run), data.x_test, data.y_test, config)
        return xr.Dataset(
            {names[0]: ("stop_time", accuracy), names[1]: (("stop_time", "layer"), spikes)},
            {"stop_time": stop_times(config.duration), "layer": list(config.layer_names())},
        )

    note = f"Measured now, on the first {n_samples} test images: these results do not hold the curves."
    return _with_measured(results.drop_vars(names, errors="ignore"), stopped).assign_attrs(note=note)


def measure_gradients(
    results: xr.Dataset,
    *,
    n_samples: int = 50,
    seed: int | None = None,
    rule: str | None = None,
    epoch: int | None = None,
) -> xr.Dataset:
    """Return results with the gradients of their trained weights, each by the rule and on the grid of its training.

    Parameters
    ----------
    results : xarray.Dataset
        Results over `delta_t`, `seed` and `rule`, some of whose runs kept their weights.
    n_samples : int
        Training images, from the first on, over which the gradient is taken: a batch.
    seed, rule : int, str or None
        The runs that are measured; None: all.
    epoch : int or None
        After which epoch, for runs that keep the weights of each; None: after the last.

    Returns
    -------
    xarray.Dataset
        With `gradients`, of the dimensions of `weights`: magnitude of each weight's gradient, NaN where there is no
        weight.

    Raises
    ------
    ValueError
        If no run kept its weights, there is no such epoch, or `n_samples` is below 1.
    DataError
        If the images are not there.

    Notes
    -----
    Thesis eq. 11-16.
    """
    if n_samples < 1:
        raise ValueError(f"n_samples is {n_samples}; it must be at least 1.")

    def gradients(run: xr.Dataset) -> xr.Dataset:
        config = config_of(run)
        data = first_samples(config, n_samples, split="train")
        network = network_of(run, epoch=epoch)
        inputs = input_spikes(data.x_train[:n_samples], config)
        counts = network.simulate(inputs, rule=config.rule)[-1].spike_count
        true = np.arange(counts.shape[1]) == data.y_train[:n_samples, None]
        errors = np.where(true, config.target_true, config.target_false) - counts
        by_layer = zip(config.layer_names(), network.gradients(inputs, errors, rule=config.rule), strict=True)
        arrays = []
        for name, values in by_layer:
            coords = {"post": np.arange(values.shape[0]), "pre": np.arange(values.shape[1])}
            arrays.append(xr.DataArray(np.abs(values), coords, ("post", "pre")).expand_dims(layer=[name]))
        return xr.Dataset({"gradients": xr.concat(arrays, "layer", join="outer")})

    return _with_measured(results.drop_vars("gradients", errors="ignore"), gradients, seed=seed, rule=rule)


def _with_measured(
    results: xr.Dataset,
    measure: Callable[[xr.Dataset], xr.Dataset],
    *,
    seed: int | None = None,
    rule: str | None = None,
) -> xr.Dataset:
    """Add what is measured of each run that kept its weights, or of those of a seed and rule."""
    dims = [d for d in RUN_DIMS if d in results.dims]
    wanted = {name: value for name, value in (("seed", seed), ("rule", rule)) if value is not None}
    parts = [
        measure(run).expand_dims({d: [run[d].item()] for d in dims})
        for run in runs_with_weights(results)
        if all(run[name].item() == value for name, value in wanted.items())
    ]
    if not parts:
        raise ValueError(f"No run with {wanted} kept its weights.")
    measured = xr.combine_by_coords(parts, combine_attrs="drop", join="outer") if len(parts) > 1 else parts[0]
    return results.merge(measured, join="outer")
