"""Training: epochs, evaluation, checkpoints; of one network, or of several side by side.

The batch order of an epoch depends on the seed and the epoch's number alone, so a run that is taken up from a
checkpoint gives the numbers it would have given in one go. Nor does a network depend on those it is trained beside.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bats_lab.config import Config
from bats_lab.data.datasets import ImageData
from bats_lab.engine import get_backend
from bats_lab.engine.records import Member, Sums
from bats_lab.errors import BatsLabError, DivergedError
from bats_lab.network.feedforward import Network, save_arrays
from bats_lab.runs.optimiser import Adam
from bats_lab.spikes.encoding import encode_images
from bats_lab.spikes.estimators import ESTIMATORS, Estimator
from bats_lab.spikes.grid import discretize_spikes, ticks_within
from bats_lab.spikes.rules import RULES
from bats_lab.spikes.trains import Spikes

__all__ = [
    "EpochRecord",
    "Pass",
    "Training",
    "evaluate",
    "group_shape",
    "input_spikes",
    "inputs_of_group",
    "reachable_target_warning",
    "split_training",
    "train",
    "train_group",
]


@dataclass
class Pass:
    """What one pass over a split showed.

    Attributes
    ----------
    n_samples : int
        Samples seen.
    accuracy : float
        Fraction of samples whose output neuron with the most spikes is the true class's; ties go to the lower
        index, a sample without output spike is wrong.
    loss : float
        Mean over samples of eq. 10.
    spike_count : ndarray, (layer,)
        Sent spikes per sample.
    dropped, merged, deferred, lost_spikes, truncated_neurons : ndarray, (layer,)
        Crossings by what the collision rule did to them, and neurons at their spike limit, per sample.
    spike_delay : ndarray, (layer,)
        Mean of d(t) - t over sent spikes, in seconds; NaN without spikes.
    fired : list of ndarray of bool, (neuron,)
        For each layer the neurons that sent a spike at all.
    input_spikes : float
        Input spikes per sample.
    confidence : ndarray, (time,)
        Spikes of the true class's neuron up to each of ``LATENCY_TIMES`` over its target, mean over samples.
    first_spike_time, decision_time : float
        Mean time of the first output spike, and from which on the final decision leads, over samples with output
        spikes, in seconds; NaN without any.
    confusion : ndarray of int64, (class, class + 1)
        Samples by true class and decision; the last column counts those without output spike.
    """

    n_samples: int
    accuracy: float
    loss: float
    spike_count: np.ndarray
    dropped: np.ndarray
    merged: np.ndarray
    deferred: np.ndarray
    lost_spikes: np.ndarray
    truncated_neurons: np.ndarray
    spike_delay: np.ndarray
    fired: list[np.ndarray]
    input_spikes: float
    confidence: np.ndarray
    first_spike_time: float
    decision_time: float
    confusion: np.ndarray


@dataclass
class EpochRecord:
    """What one epoch showed.

    Attributes
    ----------
    epoch : int
        Number of the epoch, from 1.
    train : Pass
        Measured on the training batches while training, each before its update.
    test : Pass
        Measured on the test set after the epoch.
    validation : Pass or None
        Measured after the epoch on the training samples that are held out, where the run holds out some.
    weight_norm : ndarray, (layer,)
        Frobenius norm after the epoch.
    learning_rate : float
        Learning rate of the epoch.
    train_seconds, test_seconds : float
        Wall time; of networks trained side by side, each one's share.
    weights : list of ndarray (post, pre), or None
        Weights after the epoch, where the run keeps each.
    """

    epoch: int
    train: Pass
    test: Pass
    weight_norm: np.ndarray
    learning_rate: float
    train_seconds: float
    test_seconds: float
    validation: Pass | None = None
    weights: list[np.ndarray] | None = None


@dataclass
class Training:
    """A finished training.

    Attributes
    ----------
    config : Config
    records : list of EpochRecord
    network : Network
        With its final weights.
    backend, device : str
        Name of the backend, and of the device in words.
    """

    config: Config
    records: list[EpochRecord]
    network: Network
    backend: str
    device: str


def _measured(sums: Sums, target_true: float, n_input_spikes: int) -> Pass:
    """Turn sums over samples into what is reported."""
    n = sums.samples
    per_sample = sums.counts / n
    with np.errstate(invalid="ignore"):
        delay = np.where(sums.sent > 0, sums.delay / np.maximum(sums.sent, 1), np.nan)
    return Pass(
        n_samples=n,
        accuracy=float(np.trace(sums.confusion[:, :-1]) / n),
        loss=sums.loss / n,
        spike_count=sums.sent / n,
        dropped=per_sample[:, 0],
        merged=per_sample[:, 1],
        deferred=per_sample[:, 2],
        lost_spikes=per_sample[:, 3],
        truncated_neurons=per_sample[:, 4],
        spike_delay=delay,
        fired=sums.fired,
        input_spikes=n_input_spikes / n,
        confidence=sums.spikes_by / (n * target_true),
        first_spike_time=sums.first_time / sums.answered if sums.answered else math.nan,
        decision_time=sums.decision_time / sums.answered if sums.answered else math.nan,
        confusion=sums.confusion,
    )


def input_spikes(images: np.ndarray, config: Config) -> Spikes:
    """Encode images as a run sees them: time to first spike, on the run's time grid.

    Parameters
    ----------
    images : ndarray of uint8, (sample, row, column)
        Images.
    config : Config
        Takes `encoding_window`, `delta_t` and `dtype` from it.

    Notes
    -----
    Ticks come from times in float64: those of float32 would miss ticks on fine grids.
    """
    spikes = discretize_spikes(encode_images(images, window=config.encoding_window, dtype="float64"), config.delta_t)
    return replace(spikes, times=spikes.times.astype(config.dtype))


def reachable_target_warning(config: Config) -> str | None:
    """Say so where the true class's neuron cannot reach its target count, else return None."""
    if config.target_true > config.max_spikes_output:
        return (
            f"The true class's target of {config.target_true:g} spikes cannot be reached: "
            f"max_spikes_output is {config.max_spikes_output}."
        )
    if config.delta_t and RULES[config.rule].one_a_tick:
        ticks = ticks_within(config.duration, config.delta_t)
        if config.target_true > ticks:
            return (
                f"The true class's target of {config.target_true:g} spikes cannot be reached: rule {config.rule!r} "
                f"sends one spike a tick, and {config.duration:g} s have {ticks} ticks of {config.delta_t * 1e3:g} ms."
            )
    return None


def evaluate(
    network: Network,
    spikes: Spikes,
    labels: np.ndarray,
    *,
    rule: str = "drop",
    batch_size: int = 100,
    target_true: float = 15.0,
    target_false: float = 3.0,
) -> Pass:
    """Run samples through a network and measure it.

    Parameters
    ----------
    network : Network
    spikes : Spikes
        Input spikes, on the grid the network is to run with; it need not be the one it was trained with.
    labels : ndarray of int, (sample,)
        True classes.
    rule : str
        Collision rule.
    batch_size : int
        Samples simulated together; changes no result.
    target_true, target_false : float
        Target spike counts, for loss and confidence.

    Raises
    ------
    ValueError
        If there is no sample, labels and samples do not match, or `batch_size` is below 1.
    """
    labels = np.ascontiguousarray(labels, np.int64)
    n_classes = network.sizes[-1]
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1.")
    if len(spikes) == 0 or labels.shape != (len(spikes),):
        raise ValueError(
            f"labels have the shape {labels.shape}; there must be one for each of {len(spikes)} samples, at least 1."
        )
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"labels reach from {labels.min()} to {labels.max()}; they must be 0 to {n_classes - 1}.")
    member = Member(rule=network.checked_rule(rule, spikes), target_true=target_true, target_false=target_false)
    group = network.backend.Group([network.layers], [member], threads=network.threads)
    [sums] = group.evaluate(group.load([network.prepare(spikes)], labels), batch_size=batch_size)
    return _measured(sums, target_true, int(spikes.count.sum()))


def train(
    config: Config,
    data: ImageData,
    *,
    device: str = "auto",
    threads: int = 0,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_batch: Callable[[int, int], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Training:
    """Train a network by exact error backpropagation through spikes.

    Parameters
    ----------
    config : Config
        The run.
    data : ImageData
        Images and labels; `n_train` and `n_test` of the run take the first of them.
    device : str
        ``auto``, ``cuda`` or ``cpu``.
    threads : int
        Threads on the CPU; 0: one a core. Changes no result.
    on_epoch : callable or None
        Called with each epoch's record.
    on_batch : callable or None
        Called now and then with the training samples done in the epoch and their number.
    checkpoint : path or None
        File that is written after each epoch. Where it exists, and is of this very run on this very data, training
        goes on from it.

    Raises
    ------
    DivergedError
        If weights or the loss are no longer finite; it carries the epochs measured before.
    BatsLabError
        If the checkpoint is of another run or of other data, or cannot be read.
    """
    [result] = train_group(
        [config],
        data,
        device=device,
        threads=threads,
        on_epoch=None if on_epoch is None else lambda _, record: on_epoch(record),
        on_batch=on_batch,
        checkpoints=[checkpoint],
    )
    if isinstance(result, DivergedError):
        raise result
    return result


def group_shape(config: Config) -> tuple[Any, ...]:
    """Return what networks must have in common to be trained side by side: data, layers, batches and type.

    Examples
    --------
    >>> one = Config(delta_t=0.004, seed=1, rule="graded")
    >>> group_shape(one) == group_shape(Config(learning_rate=0.01)), group_shape(one) == group_shape(Config(hidden=9))
    (True, False)
    """
    return (
        *(config.dataset, config.n_train, config.n_test, config.validation_fraction),
        *(config.hidden, config.max_spikes_hidden),
        *(config.max_spikes_output, config.batch_size, config.test_batch_size, config.dtype),
    )


def train_group(
    configs: Sequence[Config],
    data: ImageData,
    *,
    device: str = "auto",
    threads: int = 0,
    on_epoch: Callable[[int, EpochRecord], None] | None = None,
    on_batch: Callable[[int, int], None] | None = None,
    checkpoints: Sequence[str | os.PathLike[str] | None] | None = None,
) -> list[Training | DivergedError]:
    """Train several networks side by side; each gives the numbers that it gives alone.

    On a GPU all of them share each launch, which is what fills it; on the CPU each has a thread.

    Parameters
    ----------
    configs : sequence of Config
        The runs. They may differ in everything but :func:`group_shape`.
    data : ImageData
        Images and labels; `n_train` and `n_test` of the runs take the first of them.
    device : str
        ``auto``, ``cuda`` or ``cpu``.
    threads : int
        Threads on the CPU, of all networks together; 0: one a core. Changes no result.
    on_epoch : callable or None
        Called with a run's place in `configs` and each of its epochs' record.
    on_batch : callable or None
        Called now and then with the training samples done in the epoch, of all networks, and their number.
    checkpoints : sequence of path or None
        For each run the file that is written after each epoch, or None. Where it exists, and is of this very run on
        this very data, training goes on from it.

    Returns
    -------
    list of Training or DivergedError
        For each run what became of it. A run whose weights or loss are no longer finite leaves the group; the others
        go on.

    Raises
    ------
    ValueError
        If the runs differ in shape.
    BatsLabError
        If a checkpoint is of another run or of other data, or cannot be read.
    DeviceError
        If the device cannot be used, or fails; or if not even one of the networks fits its memory.

    Notes
    -----
    If not all of the networks fit the device's memory, they are trained in several groups, one after the other.
    """
    if len({group_shape(config) for config in configs}) != 1:
        raise ValueError("The runs of a group must have the same data set, sizes, spike limits, batch sizes and dtype.")
    paths = [None if path is None else Path(path) for path in checkpoints or [None] * len(configs)]
    with get_backend(device).using(threads):
        size = _fitting(configs, data, device)
    results = []
    for begin in range(0, len(configs), size):
        report = None if on_epoch is None else lambda i, record, begin=begin: on_epoch(begin + i, record)
        part = slice(begin, begin + size)
        results += _train_together(configs[part], data, device, threads, report, on_batch, paths[part])
    return results


def split_training(n_samples: int, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Split training samples into those that are trained on and those held out, on which choices are made.

    Parameters
    ----------
    n_samples : int
        Training samples there are.
    fraction : float
        Fraction that is held out, from 0 to below 1.

    Returns
    -------
    trained, held_out : ndarray of int64
        Indices, ascending. They depend on the two arguments alone: runs of all seeds hold out the same samples.

    Raises
    ------
    ValueError
        If one of the two would be empty though `fraction` is above 0.

    Examples
    --------
    >>> split_training(10, 0.2)
    (array([0, 1, 2, 3, 5, 7, 8, 9]), array([4, 6]))
    """
    n_held_out = round(fraction * n_samples)
    if fraction and not 0 < n_held_out < n_samples:
        raise ValueError(
            f"validation_fraction is {fraction:g}; of {n_samples} training samples it must leave at least one on "
            f"either side."
        )
    held_out = np.zeros(n_samples, bool)
    held_out[np.random.default_rng(0).permutation(n_samples)[:n_held_out]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


class _Samples(NamedTuple):
    """Images and labels of one part of the data."""

    images: np.ndarray
    labels: np.ndarray


def _samples_used(config: Config, data: ImageData) -> dict[str, _Samples]:
    """Return what a run trains on (`train`), tests on (`test`), and holds out (`validation`), if anything."""
    x_train, y_train = data.x_train[: config.n_train], data.y_train[: config.n_train]
    parts = {
        "train": _Samples(x_train, y_train),
        "test": _Samples(data.x_test[: config.n_test], data.y_test[: config.n_test]),
    }
    if config.validation_fraction:
        trained, held_out = split_training(len(y_train), config.validation_fraction)
        parts["train"] = _Samples(x_train[trained], y_train[trained])
        parts["validation"] = _Samples(x_train[held_out], y_train[held_out])
    return parts


def _fitting(configs: Sequence[Config], data: ImageData, device: str) -> int:
    """Return how many of the networks fit the device's memory at once."""
    config = configs[0]
    parts = _samples_used(config, data)
    return get_backend(device).n_fitting(
        len(configs),
        sizes=(parts["train"].images[0].size, *config.hidden, data.n_classes),
        max_spikes=config.max_spikes,
        batch=max(config.batch_size, config.test_batch_size),
        dtype=config.dtype,
        n_samples=sum(len(part.labels) for part in parts.values()),
        n_spikes=sum(np.count_nonzero(part.images) for part in parts.values()),
        n_encodings=len({c.encoding_window for c in configs}),
        n_grids=len({(c.encoding_window, c.delta_t, c.tau_syn, c.duration) for c in configs}),
    )


def _train_together(
    configs: Sequence[Config],
    data: ImageData,
    device: str,
    threads: int,
    on_epoch: Callable[[int, EpochRecord], None] | None,
    on_batch: Callable[[int, int], None] | None,
    paths: Sequence[Path | None],
) -> list[Training | DivergedError]:
    """Do as `train_group` for networks that fit the device at once."""
    config = configs[0]
    parts = _samples_used(config, data)
    n_inputs, n_train = parts["train"].images[0].size, len(parts["train"].labels)
    backend = get_backend(device)
    networks = [Network.from_config(c, n_inputs, data.n_classes, device=device, threads=threads) for c in configs]
    results: list[Training | DivergedError | None] = [None] * len(configs)
    records: list[list[EpochRecord]] = []
    for i, (c, path, network) in enumerate(zip(configs, paths, networks, strict=True)):
        records.append([] if path is None else _resume(path, c, data, network))
        for record in records[i]:
            if on_epoch:
                on_epoch(i, record)
    with backend.using(threads):
        inputs = {name: inputs_of_group(part.images, configs) for name, part in parts.items()}
    n_input_spikes = {name: [int(s.count.sum()) for s in spikes] for name, spikes in inputs.items()}

    def finished(i: int) -> None:
        results[i] = Training(configs[i], records[i], networks[i], backend.NAME, backend.device_name())

    at_work: list[int] = []
    for i, c in enumerate(configs):
        if len(records[i]) < c.epochs:
            at_work.append(i)
        else:
            finished(i)
    while at_work:
        members = [_member(configs[i]) for i in at_work]
        group = backend.Group([networks[i].layers for i in at_work], members, threads=threads)
        samples = {name: group.load([inputs[name][i] for i in at_work], part.labels) for name, part in parts.items()}
        goes_on = list(at_work)
        while goes_on == at_work:
            epochs = [len(records[i]) + 1 for i in at_work]
            rates = [Adam.from_config(configs[i]).rate(epoch) for i, epoch in zip(at_work, epochs, strict=True)]
            orders = [
                np.random.default_rng([configs[i].seed, epoch]).permutation(n_train)
                for i, epoch in zip(at_work, epochs, strict=True)
            ]
            noise = [_noise(configs[i], epoch) for i, epoch in zip(at_work, epochs, strict=True)]
            begin = time.perf_counter()
            sums = {}
            sums["train"] = group.train(
                samples["train"],
                orders,
                batch_size=config.batch_size,
                learning_rates=rates,
                noise=noise,
                on_batch=on_batch,
            )
            norms, broken = group.inspect()
            middle = time.perf_counter()
            for name in parts:
                if name != "train":
                    sums[name] = group.evaluate(samples[name], batch_size=config.test_batch_size)
            end = time.perf_counter()
            for place, i in enumerate(at_work):
                c, epoch = configs[i], epochs[place]
                error = _divergence(c, networks[i], epoch, broken[place], sums["train"][place].loss, records[i])
                if error is not None:
                    results[i] = error
                    goes_on.remove(i)
                    continue
                if c.keep_weights == "each" or paths[i] is not None or epoch == c.epochs:
                    group.store(place)
                record = EpochRecord(
                    epoch=epoch,
                    **{
                        name: _measured(found[place], c.target_true, n_input_spikes[name][i])
                        for name, found in sums.items()
                    },
                    weight_norm=norms[place],
                    learning_rate=rates[place],
                    train_seconds=(middle - begin) / len(at_work),
                    test_seconds=(end - middle) / len(at_work),
                    weights=networks[i].weights if c.keep_weights == "each" else None,
                )
                records[i].append(record)
                path = paths[i]
                if path is not None:
                    _save_checkpoint(path, c, data, networks[i], records[i])
                if on_epoch:
                    on_epoch(i, record)
                if epoch == c.epochs:
                    finished(i)
                    goes_on.remove(i)
        for place, i in enumerate(at_work):
            if i in goes_on:
                group.store(place)
        group.release()
        del group, samples  # before those of the next group take their place
        at_work = goes_on
    return [result for result in results if result is not None]


def _member(config: Config) -> Member:
    return Member(
        rule=config.rule,
        target_true=config.target_true,
        target_false=config.target_false,
        beta_1=config.beta_1,
        beta_2=config.beta_2,
        epsilon=config.epsilon,
        estimator=Estimator(config.estimator, config.surrogate_width),
    )


def _noise(config: Config, epoch: int) -> int:
    """Return the key of an epoch's random numbers, where the run rounds spikes by them; else 0."""
    if not ESTIMATORS[config.estimator].random or not config.delta_t:
        return 0
    return int(np.random.default_rng([config.seed, epoch, 1]).integers(1, 2**64, dtype=np.uint64))


def inputs_of_group(images: np.ndarray, configs: Sequence[Config]) -> list[Spikes]:
    """Encode images for each of several runs, as :func:`input_spikes` does for one.

    Parameters
    ----------
    images : ndarray of uint8, (sample, row, column)
        Images.
    configs : sequence of Config
        The runs.

    Returns
    -------
    list of Spikes
        For each run; what runs have in common is the same object, so that the engine keeps it once.
    """
    encoded: dict[float, Spikes] = {}
    gridded: dict[tuple[float, float], Spikes] = {}
    for c in configs:
        if c.encoding_window not in encoded:
            encoded[c.encoding_window] = encode_images(images, window=c.encoding_window, dtype="float64")
    single = {window: spikes.times.astype(configs[0].dtype) for window, spikes in encoded.items()}
    for c in configs:
        key = c.encoding_window, c.delta_t
        if key not in gridded:
            spikes = discretize_spikes(encoded[c.encoding_window], c.delta_t)
            gridded[key] = replace(spikes, times=single[c.encoding_window])
    return [gridded[c.encoding_window, c.delta_t] for c in configs]


def _divergence(
    config: Config, network: Network, epoch: int, broken: np.ndarray, loss: float, records: list[EpochRecord]
) -> DivergedError | None:
    """Return the error of a run whose weights (`broken` of each layer) or loss are no longer finite."""
    for name, layer, bad in zip(config.layer_names(), network.layers, broken, strict=True):
        if bad:
            return DivergedError(
                f"Training diverged in epoch {epoch}: {bad} of {layer.n_post * layer.n_pre} weights of layer {name} "
                f"are not finite; a lower learning_rate than {config.learning_rate:g} may help.",
                epoch=epoch,
                layer=name,
                records=records,
            )
    if not math.isfinite(loss):
        return DivergedError(
            f"Training diverged in epoch {epoch}: the loss is {loss}.", epoch=epoch, layer="output", records=records
        )
    return None


def _save_checkpoint(path: Path, config: Config, data: ImageData, network: Network, records: list[EpochRecord]) -> None:
    arrays: dict[str, Any] = {"config": np.array(config.to_json()), "data_hash": np.array(data.data_hash)}
    for i, layer in enumerate(network.layers):
        first, second = layer.moments
        arrays |= {f"weights_{i}": layer.weights, f"first_{i}": first, f"second_{i}": second}
        arrays[f"updates_{i}"] = np.array(layer.n_updates)
    kept = []
    for record in records:
        for i, w in enumerate(record.weights or []):
            arrays[f"kept_{record.epoch}_{i}"] = w
        kept.append(asdict(replace(record, weights=None)))
    arrays["records"] = np.array(json.dumps(kept, default=lambda array: array.tolist()))
    save_arrays(path, **arrays)


def _resume(path: Path, config: Config, data: ImageData, network: Network) -> list[EpochRecord]:
    """Take up a checkpoint: set weights and moments, return the epochs done."""
    if not path.exists():
        return []
    other = ""
    try:
        # Opened here, since NumPy leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            if Config.from_dict(json.loads(str(kept["config"]))) != config:
                other = "with other parameters"
            elif str(kept["data_hash"]) != data.data_hash:
                other = "on other data"
            else:
                records = [_record(values) for values in json.loads(str(kept["records"]))]
                for record in records if config.keep_weights == "each" else []:
                    record.weights = [kept[f"kept_{record.epoch}_{i}"] for i in range(len(network.layers))]
                for i, layer in enumerate(network.layers):
                    layer.weights = kept[f"weights_{i}"]
                    layer.moments = kept[f"first_{i}"], kept[f"second_{i}"]
                    layer.n_updates = int(kept[f"updates_{i}"])
    except Exception as error:  # the libraries raise all kinds of errors on a damaged file
        raise BatsLabError(f"The checkpoint {path} cannot be read ({error}); move it away to start anew.") from error
    if other:
        raise BatsLabError(f"The checkpoint {path} is of a run {other}; move it away to start anew.")
    return records


def _record(values: dict[str, Any]) -> EpochRecord:
    return EpochRecord(
        **{
            **values,
            "train": _pass(values["train"]),
            "test": _pass(values["test"]),
            "validation": _pass(values["validation"]) if values.get("validation") else None,
            "weight_norm": np.array(values["weight_norm"]),
        }
    )


def _pass(values: dict[str, Any]) -> Pass:
    arrays = {k: np.array(v) for k, v in values.items() if isinstance(v, list) and k != "fired"}
    return Pass(**{**values, **arrays, "fired": [np.array(v, bool) for v in values["fired"]]})
