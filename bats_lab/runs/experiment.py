"""One run from its parameters to its results: what the notebook, the sweep and the command line all call."""

from __future__ import annotations

import dataclasses
import functools
import json
import platform
import subprocess
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numba
import numpy as np
import xarray as xr

from bats_lab import __version__
from bats_lab.config import Config
from bats_lab.data.datasets import ImageData, load_dataset
from bats_lab.data.registry import ARRAYS
from bats_lab.engine import get_backend
from bats_lab.errors import DivergedError
from bats_lab.network.feedforward import Network
from bats_lab.runs.files import open_run
from bats_lab.runs.limits import limit_warnings
from bats_lab.runs.metrics import NO_CLASS, RUN_DIMS, dead_classes, decide_at, describe, measure, stop_times
from bats_lab.runs.records import EpochRecord
from bats_lab.runs.thresholds import no_output_warning
from bats_lab.runs.training import input_spikes, train_group

__all__ = [
    "assemble",
    "config_of",
    "first_samples",
    "network_of",
    "open_network",
    "run_experiment",
    "run_experiments",
    "thresholds_of",
]


def run_experiment(
    config: Config,
    *,
    data_dir: str | Path | None = None,
    device: str = "auto",
    threads: int = 0,
    checkpoint: str | Path | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_batch: Callable[[int, int], None] | None = None,
    on_data: Callable[[ImageData], None] | None = None,
) -> xr.Dataset:
    """Load the data, train, measure, and return everything a results file holds.

    Parameters
    ----------
    config : Config
        Parameters of the run.
    data_dir : str, Path or None
        Where full data sets lie; None: the usual place, see :func:`bats_lab.data.registry.data_directory`.
    device : str
        Where the network runs: ``auto``, ``cuda`` or ``cpu``.
    threads : int
        Threads used on the CPU; 0: one a core. Changes no spike.
    checkpoint : str, Path or None
        File in which training is kept after each epoch, and from which it goes on.
    on_epoch : callable or None
        Called after each epoch with its :class:`bats_lab.runs.training.EpochRecord`.
    on_batch : callable or None
        Called after each batch with the number of training samples done in this epoch, and of all.
    on_data : callable or None
        Called before training with the data; its ``summary`` tells as what it was taken.

    Returns
    -------
    xarray.Dataset
        The run, with the variables and dimensions of :mod:`bats_lab.runs.metrics`; `dataset`, `delta_t`, `seed` and
        `rule` are of size 1. :func:`bats_lab.save_run` writes it.

    Raises
    ------
    DataError
        If the data set cannot be read.
    DivergedError
        If training diverged. Its attribute `dataset` holds the results of the epochs before, None if there are none.

    Warns
    -----
    UserWarning
        Before training, if the true class's target count cannot be reached on the time grid; in the first epoch, if no
        output neuron spiked at all; after training, if output neurons were silent over the whole test set, with the
        names of their classes, as far as there are training images of these.

    Examples
    --------
    >>> small = Config(hidden=100, threshold_output=0.5, batch_size=10, n_train=2000, n_test=100, epochs=1)
    >>> run = run_experiment(small.replace(delta_t=0.004))
    >>> run.accuracy.sel(split="test", epoch=1).item() > 0.5
    True
    """
    [run] = run_experiments(
        [config],
        data_dir=data_dir,
        device=device,
        threads=threads,
        checkpoints=[checkpoint],
        on_epoch=None if on_epoch is None else lambda _, record: on_epoch(record),
        on_batch=on_batch,
        on_data=on_data,
    )
    if isinstance(run, DivergedError):
        raise run
    return run


def run_experiments(
    configs: Sequence[Config],
    *,
    data_dir: str | Path | None = None,
    device: str = "auto",
    threads: int = 0,
    checkpoints: Sequence[str | Path | None] | None = None,
    on_epoch: Callable[[int, EpochRecord], None] | None = None,
    on_batch: Callable[[int, int], None] | None = None,
    on_data: Callable[[ImageData], None] | None = None,
) -> list[xr.Dataset | DivergedError]:
    """Do as :func:`run_experiment` for several runs, trained side by side; each gives what it gives alone.

    Parameters
    ----------
    configs : sequence of Config
        The runs. They may differ in everything but :func:`bats_lab.runs.training.group_shape`.
    data_dir, device, threads, on_batch, on_data
        As in :func:`run_experiment`.
    checkpoints : sequence of str, Path or None
        For each run the file in which its training is kept after each epoch, or None.
    on_epoch : callable or None
        Called with a run's place in `configs` and each of its epochs' record.

    Returns
    -------
    list of xarray.Dataset or DivergedError
        For each run its results, or the error if it diverged; the others go on.

    Raises
    ------
    ValueError
        If the runs differ in shape.
    DataError, DeviceError
        If the data set cannot be read, or the device fails.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    backend = get_backend(device)
    config = configs[0]
    data = load_dataset(config.dataset, data_dir=data_dir, n_train=config.n_train, n_test=config.n_test)
    if on_data:
        on_data(data)
    for beyond in limit_warnings(configs):
        warnings.warn(beyond, stacklevel=3)
    trained_on = np.unique(data.y_train)  # other classes are silent for want of images
    which = [f"Run {i}: " if len(configs) > 1 else "" for i in range(len(configs))]

    def after_epoch(i: int, record: EpochRecord) -> None:
        if silent := no_output_warning(record, configs[i]):
            warnings.warn(f"{which[i]}{silent}", stacklevel=2)
        if on_epoch:
            on_epoch(i, record)

    trained = train_group(
        configs, data, device=device, threads=threads, on_epoch=after_epoch, on_batch=on_batch, checkpoints=checkpoints
    )
    results: list[xr.Dataset | DivergedError] = []
    for i, own in enumerate(configs):
        training = trained.pop(0)  # so that its network's memory is given back before the next one takes some
        origin = {
            "config": own.to_json(),
            "version": __version__,
            "backend": backend.name,
            "device": backend.device_name(),
            "data_hash": data.data_hash,
            "git_commit": _git_commit(),
            "started": started,
            "environment": json.dumps(_environment(threads), sort_keys=True),
        }
        if isinstance(training, DivergedError):
            if training.records:
                training.dataset = assemble(own, data, training.records, None, origin)
            results.append(training)
            continue
        run = assemble(own, data, training.records, training.network, origin)
        dead = [name for name in dead_classes(run) if data.class_names.index(name) in trained_on]
        if dead:
            warnings.warn(
                f"{which[i]}The output neurons of {len(dead)} of {data.n_classes} classes did not spike once over the "
                f"whole test set: {', '.join(dead)}. Every sample of these classes is counted as wrong.",
                stacklevel=3,
            )
        results.append(run)
    return results


def assemble(
    config: Config, data: ImageData, records: Sequence[EpochRecord], network: Network | None, origin: dict[str, str]
) -> xr.Dataset:
    """Put together the results of a run.

    Parameters
    ----------
    config : Config
        Parameters of the run.
    data : ImageData
        What it was trained on.
    records : sequence of EpochRecord, at least one
        What was measured.
    network : Network or None
        The trained network, whose weights and spikes are kept; None if training broke off.
    origin : dict of str to str
        The text variables of :data:`bats_lab.runs.metrics.VARIABLES`, from `config` to `started`.
    """
    values: dict[str, np.ndarray] = {name: np.array(text) for name, text in origin.items()}
    coords: dict[str, Any] = {dim: [getattr(config, dim)] for dim in RUN_DIMS}
    parts = [_weights(config, records, network)]
    if network is not None:
        values["threshold"], coords["layer"] = np.array(network.thresholds), config.layer_names()
        parts += [_stopped(config, data, network), _samples(config, data, network)]
    for kept, labels in parts:
        values |= kept
        coords |= labels
    return measure(config, records, data.class_names).merge(describe(values, coords), join="exact")


def config_of(run: xr.Dataset) -> Config:
    """Return the parameters of a run from its results."""
    return Config.from_json(run["config"].values.item())


def network_of(run: xr.Dataset, *, epoch: int | None = None, device: str = "auto", threads: int = 0) -> Network:
    """Build the trained network of a run from its results.

    Parameters
    ----------
    run : xarray.Dataset
        Results of one run, as :func:`run_experiment` and :func:`bats_lab.open_run` return them, or one run selected
        from many (``results.sel(delta_t=0.004, seed=0)``).
    epoch : int or None
        After which epoch, for runs that keep the weights of each; None: after the last.
    device, threads
        As in :class:`Network`.

    Returns
    -------
    Network
        It runs with any time step and collision rule, not only with those it was trained with.

    Raises
    ------
    ValueError
        If these are several runs, or the run did not keep the weights asked for, or there is no such epoch.

    Examples
    --------
    >>> small = Config(hidden=100, threshold_output=0.5, batch_size=10, n_train=2000, n_test=100, epochs=1)
    >>> network_of(run_experiment(small)).sizes
    (784, 100, 10)
    """
    name = "weights" if epoch is None else "weights_by_epoch"
    if name not in run:
        kept = "keep_weights='last'" if epoch is None else "keep_weights='each'"
        raise ValueError(f"The results hold no variable {name!r}; runs keep it with {kept}.")
    if run["config"].size != 1:
        raise ValueError(f"These are the results of {run['config'].size} runs; select one of them.")
    config = config_of(run)
    if epoch is not None:
        if epoch not in run["epoch"].values:
            known = run["epoch"].values
            raise ValueError(f"epoch is {epoch}; the results hold {known.min()} to {known.max()}.")
        run = run.sel(epoch=epoch)
    alone = dict.fromkeys(run["config"].dims, 0)
    weights, sizes = run[name].isel(alone), run["layer_size"].isel(alone)
    layers = list(config.layer_names())
    # Layers of other runs, and neurons that this run does not have, are NaN.
    padded = weights.sel(layer=layers).transpose("layer", "post", "pre").values
    n_inputs = int(np.isfinite(padded[0, 0]).sum())
    widths = [n_inputs, *(int(n) for n in np.nan_to_num(sizes.sel(layer=layers).values))]
    if n_inputs == 0:
        raise ValueError("This run did not keep its weights; runs keep them with keep_weights='last'.")
    return Network(
        widths,
        thresholds=thresholds_of(run),
        max_spikes=config.max_spikes,
        **config.time_constants,
        duration=config.duration,
        weights=[w[:post, :pre] for w, post, pre in zip(padded, widths[1:], widths[:-1], strict=True)],
        dtype=config.dtype,
        device=device,
        threads=threads,
    )


def open_network(path: str | Path) -> Network:
    """Open a trained network: a run that kept its weights (``.nc``), or what :meth:`Network.save` wrote (``.npz``)."""
    return network_of(open_run(path)) if Path(path).suffix == ".nc" else Network.load(path)


def thresholds_of(run: xr.Dataset) -> tuple[float, ...]:
    """Return the thresholds a run was trained with, from its results: those given, or found from the data."""
    config = config_of(run)
    if "threshold" in run:  # runs of before they were kept had those of their parameters
        kept = run["threshold"].sel(layer=list(config.layer_names())).values.ravel()
        if np.isfinite(kept).all():
            return tuple(kept.tolist())
    return config.thresholds


def first_samples(config: Config, n_samples: int, *, split: str = "test") -> ImageData:
    """Return the first `n_samples` images of each split of the data set that a run was trained on.

    Those of MNIST are taken from `mnist_small`, which is in the package, where its `split` has enough of them: what
    needs a few images then works without a download, which otherwise may raise a DataError.
    """
    data = _loaded("mnist_small" if config.dataset == "mnist" else config.dataset)
    if config.dataset == "mnist" and len(getattr(data, f"x_{split}")) < n_samples:
        data = _loaded("mnist")
    return dataclasses.replace(data, **{name: getattr(data, name)[:n_samples] for name in ARRAYS})


_loaded = functools.lru_cache(maxsize=3)(load_dataset)


def _weights(
    config: Config, records: Sequence[EpochRecord], network: Network | None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    values = {}
    if network is not None and config.keep_weights != "none":
        values["weights"] = _padded(network.weights)
    if config.keep_weights == "each":
        each = [_padded(r.weights) for r in records if r.weights is not None]
        if len(each) == len(records):
            values["weights_by_epoch"] = np.stack(each)
    if not values:
        return {}, {}
    n_post, n_pre = next(iter(values.values())).shape[-2:]
    labels: dict[str, Any] = {"layer": config.layer_names(), "post": np.arange(n_post), "pre": np.arange(n_pre)}
    return values, labels | {"epoch": [r.epoch for r in records]}


def _stopped(config: Config, data: ImageData, network: Network) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Measure decisions taken before the end of the window."""
    x_test, y_test = data.x_test[: config.n_test], data.y_test[: config.n_test]
    accuracy, spike_count = decide_at(network, x_test, y_test, config)
    values = {"stopped_accuracy": accuracy, "stopped_spike_count": spike_count}
    return values, {"layer": config.layer_names(), "stop_time": stop_times(config.duration)}


def _samples(config: Config, data: ImageData, network: Network) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Simulate the first test samples and return their spikes, labels and predictions."""
    n_samples = min(config.keep_samples, len(data.x_test))
    if n_samples == 0:
        return {}, {}
    inputs = input_spikes(data.x_test[:n_samples], config)
    layers = network.simulate(inputs, rule=config.rule)
    # A layer's axis is before its neurons'; the sample's comes first.
    spike_times, sent_times = (
        np.moveaxis(_padded(times), 0, 1) for times in ([a.times for a in layers], [a.discretized for a in layers])
    )
    n_spikes = max(1, int(np.isfinite(spike_times).sum(axis=-1).max()))
    output = layers[-1].spike_count
    names = np.array([*data.class_names, NO_CLASS])
    trains = inputs.padded()
    values = {
        "spike_times": spike_times[..., :n_spikes],
        "sent_times": sent_times[..., :n_spikes],
        "input_times": inputs.padded(1)[..., 0],
        "input_sent_times": inputs.padded(1, sent=True)[..., 0],
    }
    several: dict[str, Any] = {}
    if trains.shape[2] > 1:
        values |= {"input_trains": trains, "input_sent_trains": inputs.padded(sent=True)}
        several = {"input_spike": np.arange(trains.shape[2])}
    values = {name: np.where(np.isfinite(times), times, np.nan) for name, times in values.items()}
    values["sample_label"] = names[data.y_test[:n_samples]]
    values["sample_prediction"] = names[np.where(output.any(axis=1), output.argmax(axis=1), -1)]
    return values, {
        "layer": config.layer_names(),
        "sample": np.arange(n_samples),
        "neuron": np.arange(spike_times.shape[2]),
        "spike": np.arange(n_spikes),
        "input_neuron": np.arange(inputs.n_neurons),
        **several,
    }


def _padded(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Stack arrays of different shapes along a new first axis, padded with NaN."""
    out = np.full((len(arrays), *np.max([a.shape for a in arrays], axis=0)), np.nan, dtype=np.float32)
    for part, array in zip(out, arrays, strict=True):
        part[tuple(slice(n) for n in array.shape)] = array
    return out


def _environment(threads: int) -> dict[str, Any]:
    """Return what the numbers of a run might depend on beside its parameters, its data and its device."""
    system = {"python": platform.python_version(), "system": platform.platform()}
    libraries = {name: metadata.version(name) for name in ("numba", "numpy")}
    return {"threads": threads or numba.config.NUMBA_NUM_THREADS} | system | libraries


@functools.cache
def _git_commit() -> str:
    """Return the commit of the checkout this package lies in; empty where it is installed or git is missing."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
