"""Training: epochs, evaluation, checkpoints; of one network, or of several side by side.

The batch order of an epoch depends on the seed and the epoch's number alone, so a run that is taken up from a
checkpoint gives the numbers it would have given in one go. Nor does a network depend on those it is trained beside.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bats_lab.config import Config
from bats_lab.data.datasets import ImageData
from bats_lab.engine import Demand, Mode, Networks, Neurons, Shape, Sums, get_backend
from bats_lab.engine.kernels import compile_kernels
from bats_lab.engine.quantization import TRAINED, quantize_weights
from bats_lab.errors import DivergedError, StoppedError
from bats_lab.network.feedforward import Network
from bats_lab.runs.checkpoints import open_checkpoint, save_checkpoint
from bats_lab.runs.evaluation import evaluate
from bats_lab.runs.limits import check_window
from bats_lab.runs.optimiser import Adam
from bats_lab.runs.records import EpochRecord, measured
from bats_lab.runs.samples import input_spikes, inputs_of_group, samples_used, split_training
from bats_lab.runs.thresholds import settle_thresholds
from bats_lab.runs.waking import missed_classes, wake_classes
from bats_lab.spikes.encoding import n_channels, n_events
from bats_lab.spikes.estimators import ESTIMATORS, Estimator
from bats_lab.spikes.rules import RULES, rule_on

__all__ = [
    "Training",
    "counting_mode",
    "evaluate",
    "group_shape",
    "input_spikes",
    "inputs_of_group",
    "on_clock",
    "split_training",
    "train",
    "train_group",
]

# Batches between two calls of `on_batch`, where each is trained by a call of its own.
_REPORT_EVERY = 200


@dataclass
class Training:
    """A finished training.

    Attributes
    ----------
    config : Config
        With the thresholds that were found, where the run had them set from the data.
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


def counting_mode(config: Config) -> Mode | None:
    """Return the mode in which spikes are counted for the errors of a run; None: those of the run itself.

    Examples
    --------
    >>> counted = counting_mode(Config(delta_t=0.01, rule="drop", error_counts="graded"))
    >>> counted.rule, counted.output_rule, counting_mode(Config(delta_t=0.01))
    ('drop', 'graded', None)
    """
    if not config.delta_t or config.error_counts in ("own", config.rule):
        return None
    own = _mode(config)
    if config.error_layers == "all":
        return own._replace(rule=config.error_counts)
    return own._replace(output_rule=config.error_counts)


def train(
    config: Config,
    data: ImageData,
    *,
    device: str = "auto",
    threads: int = 0,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_batch: Callable[[int, int], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    errors_from: Config | None = None,
    start: Sequence[np.ndarray] | None = None,
    output_rule: str = "",
    clocks: Sequence[float] = (),
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
    errors_from : Config or None
        The run in whose time step, under whose collision rule and against whose targets spikes are counted for the
        errors, while these are sent back through the spikes of `config`: what the grid does to the counts is told apart
        from what it does to the gradient. None: as the run's `error_counts` says.
    start : sequence of ndarray, (post, pre), or None
        Weights of each layer with which training begins, as those of a trained network; None: random ones. A
        checkpoint does not know them.
    output_rule : str
        Collision rule of the output layer where it has another than the run's `rule`, in training and tests; "": that
        of all layers. Both may be ``defer``, or neither. A checkpoint does not know it.
    clocks : sequence of float
        Time steps in seconds of which one is drawn for each batch, all as likely (0: continuous time), so that one
        network learns to run on all of them; tests are at the run's own `delta_t`. Empty: that in training too.

    Raises
    ------
    ValueError
        If `start` does not fit the run's layers, or `output_rule` its `rule`; if the device has no words of few bits
        and the run asks for them, or is not the CPU and there are `clocks`; if these come with a checkpoint or with
        `errors_from`, or one of them is not allowed in a run.
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
        errors_from=None if errors_from is None else [errors_from],
        start=[start],
        output_rules=[output_rule],
        clocks=clocks,
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
        counting_mode(config) is not None,
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
    errors_from: Sequence[Config] | None = None,
    start: Sequence[Sequence[np.ndarray] | None] | None = None,
    output_rules: Sequence[str] | None = None,
    clocks: Sequence[float] = (),
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
    errors_from : sequence of Config or None
        For each run as in :func:`train`.
    start : sequence of sequence of ndarray, or None
        For each run as in :func:`train`.
    output_rules : sequence of str, or None
        For each run as in :func:`train`.
    clocks : sequence of float
        Of all runs, as in :func:`train`; each draws its own, by its seed.

    Returns
    -------
    list of Training or DivergedError
        For each run what became of it. A run whose weights or loss are no longer finite leaves the group, and so does
        one for which `on_epoch` raises a StoppedError; the others go on.

    Raises
    ------
    ValueError
        If the runs differ in shape; or as in :func:`train`.
    BatsLabError
        If a checkpoint is of another run or of other data, or cannot be read.
    DeviceError
        If the device cannot be used, or fails; or if not even one of the networks fits its memory.

    Notes
    -----
    If not all of the networks fit the device's memory, they are trained in several groups, one after the other; with
    `clocks` each is one of its own.
    """
    if len({group_shape(config) for config in configs}) != 1:
        same = "data set, sizes, spike limits, batch sizes and dtype, and all or none of them errors from other spikes"
        raise ValueError(f"The runs of a group must have the same {same}.")
    for config in configs:
        check_window(config, data)
        if config.weight_bits != TRAINED and get_backend(device).name != "cpu":
            raise ValueError(
                f"weight_bits is {config.weight_bits}; words of few bits are trained on the CPU only (--device cpu)."
            )
    begin_with = list(start) if start is not None else [None] * len(configs)
    paths = [None if path is None else Path(path) for path in checkpoints or [None] * len(configs)]
    for config, rule in zip(configs, output_rules or [], strict=False):
        if rule and RULES[rule].delays != RULES[config.rule].delays:
            raise ValueError(f"output_rule is {rule!r} and rule {config.rule!r}; both may send later, or neither.")
    if clocks:
        _check_clocks(configs, clocks, device, any(paths) or errors_from is not None)
    configs = [settle_thresholds(config, data) for config in configs]
    with get_backend(device).using(threads):
        size = 1 if clocks else _fitting([*configs, *(errors_from or [])], data, device)
    compile_kernels(device, [configs[0].dtype])  # before the clock of the first epoch starts
    results: list[Training | DivergedError] = []
    for begin in range(0, len(configs), size):
        report = None if on_epoch is None else lambda i, record, begin=begin: on_epoch(begin + i, record)
        part = slice(begin, begin + size)
        counted = None if errors_from is None else errors_from[part]
        rules = [""] * len(configs[part]) if output_rules is None else output_rules[part]
        group = _Group(
            configs[part], data, device, threads, paths[part], counted, report, begin_with[part], rules, clocks
        )
        results += group.train(on_batch)
    return results


def _check_clocks(configs: Sequence[Config], clocks: Sequence[float], device: str, elsewhere: bool) -> None:
    """Refuse clocks drawn for each batch where they cannot be; a ValueError says why."""
    if elsewhere:
        raise ValueError(f"clocks are {list(clocks)}; with them there is no checkpoint, and errors are the run's own.")
    if get_backend(device).name != "cpu":
        raise ValueError(f"clocks are {list(clocks)}; they are drawn on the CPU only (--device cpu).")
    for config in configs:
        for step in clocks:
            on_clock(config, step)


def on_clock(config: Config, delta_t: float) -> Config:
    """Return a run at another time step, and under its rule if that is not continuous time, where rules are one."""
    return config.replace(delta_t=delta_t, rule=rule_on(config.rule, delta_t))


def _fitting(configs: Sequence[Config], data: ImageData, device: str) -> int:
    """Return how many of the networks fit the device's memory at once."""
    config = configs[0]
    parts = samples_used(config, data)
    demand = Demand(
        shape=_shape(config, n_channels(data.x_train), data.n_classes),
        batch=max(config.batch_size, config.test_batch_size),
        n_samples=sum(len(part.labels) for part in parts.values()),
        n_spikes=sum(n_events(part.inputs) for part in parts.values()),
        n_encodings=len({c.encoding_window for c in configs}),
        n_grids=len({(c.encoding_window, c.delta_t, Neurons.of(c).time_constants(0).mem, c.duration) for c in configs}),
    )
    return get_backend(device).n_fitting(len(configs), demand)


def _shape(config: Config, n_inputs: int, n_outputs: int) -> Shape:
    return Shape((n_inputs, *config.hidden, n_outputs), config.max_spikes, config.dtype)


def _mode(config: Config, output_rule: str = "") -> Mode:
    return Mode(
        rule=config.rule,
        output_rule=output_rule,
        estimator=Estimator(config.estimator, config.surrogate_width),
        target_true=config.target_true,
        target_false=config.target_false,
        beta_1=config.beta_1,
        beta_2=config.beta_2,
        epsilon=config.epsilon,
        weight_bits=config.weight_bits,
        fraction_bits=config.fraction_bits,
    )


class _Group:
    """Runs that are trained side by side, as long as each of them lasts.

    Parameters
    ----------
    configs, data, device, threads
        As in :func:`train_group`.
    paths : sequence of Path or None
        Checkpoint of each run.
    errors_from : sequence of Config or None
    on_epoch : callable or None
    start : sequence of sequence of ndarray or None
    output_rules : sequence of str
    clocks : sequence of float
        Only for a run alone.
    """

    def __init__(
        self,
        configs: Sequence[Config],
        data: ImageData,
        device: str,
        threads: int,
        paths: Sequence[Path | None],
        errors_from: Sequence[Config] | None,
        on_epoch: Callable[[int, EpochRecord], None] | None,
        start: Sequence[Sequence[np.ndarray] | None],
        output_rules: Sequence[str],
        clocks: Sequence[float],
    ) -> None:
        self.configs, self.data, self.paths, self.errors_from = configs, data, paths, errors_from
        self.output_rules = output_rules
        self.on_epoch = on_epoch or (lambda i, record: None)
        self.backend, self.threads = get_backend(device), threads
        self.parts = samples_used(configs[0], data)
        n_inputs = n_channels(data.x_train)
        self.networks = [
            Network.from_config(c, n_inputs, data.n_classes, device=device, threads=threads) for c in configs
        ]
        self.records: list[list[EpochRecord]] = []
        for i, (c, path, network) in enumerate(zip(configs, paths, self.networks, strict=True)):
            self.records.append([])
            if (weights := start[i]) is not None:
                network.set_weights(weights)
            if path is not None and path.exists():
                state, self.records[i] = open_checkpoint(path, c, data, errors_from=self._counted(i))
                network.networks.set_state(0, state)
            for record in self.records[i]:
                self.on_epoch(i, record)
        with self.backend.using(threads):
            self.inputs = {name: inputs_of_group(part.inputs, configs) for name, part in self.parts.items()}
            self.counted = inputs_of_group(self.parts["train"].inputs, errors_from) if errors_from else []
            self.clocked = [on_clock(c, step) for c in configs for step in clocks]
            self.on_clocks = inputs_of_group(self.parts["train"].inputs, self.clocked)
        self.n_input_spikes = {name: [int(s.count.sum()) for s in spikes] for name, spikes in self.inputs.items()}

    def _counted(self, i: int) -> Config | None:
        return None if self.errors_from is None else self.errors_from[i]

    def train(self, on_batch: Callable[[int, int], None] | None) -> list[Training | DivergedError]:
        """Train all runs to their ends; return what became of each."""
        results: dict[int, Training | DivergedError] = {}
        at_work = [i for i, c in enumerate(self.configs) if len(self.records[i]) < c.epochs]
        while at_work:
            at_work = self._train_these(at_work, results, on_batch)
        for i, c in enumerate(self.configs):
            if i not in results:
                if c.weight_bits != TRAINED:  # what a chip gets: the words with which it was tested
                    self.networks[i].set_weights(quantize_weights(self.networks[i].weights, c.weight_bits))
                results[i] = Training(
                    c, self.records[i], self.networks[i], self.backend.name, self.backend.device_name()
                )
        return [results[i] for i in range(len(self.configs))]

    def _joined(self, at_work: Sequence[int]) -> Networks:
        """Join the networks of some runs to a group; a network alone is one already."""
        if len(at_work) == 1:
            return self.networks[at_work[0]].networks
        states = [self.networks[i].networks.state(0) for i in at_work]
        neurons = [self.networks[i].networks.neurons[0] for i in at_work]
        weights = [np.stack(layer) for layer in zip(*(state.weights for state in states), strict=True)]
        group = self.backend.networks(self.networks[0].networks.shape, neurons, weights, threads=self.threads)
        for rank, state in enumerate(states):
            if state.n_updates:
                group.set_state(rank, state)
        return group

    def _train_these(
        self,
        at_work: list[int],
        results: dict[int, Training | DivergedError],
        on_batch: Callable[[int, int], None] | None,
    ) -> list[int]:
        """Train runs side by side until one of them ends; return those that go on."""
        configs = [self.configs[i] for i in at_work]
        group, modes = self._joined(at_work), [_mode(self.configs[i], self.output_rules[i]) for i in at_work]
        samples = {
            name: group.load([self.inputs[name][i] for i in at_work], part.labels) for name, part in self.parts.items()
        }
        errors_from = None
        if self.errors_from is not None:
            counted = group.load([self.counted[i] for i in at_work], self.parts["train"].labels)
            errors_from = counted, [_mode(self.errors_from[i]) for i in at_work]
        elif counting := [mode for mode in map(counting_mode, configs) if mode is not None]:
            errors_from = samples["train"], counting
        clocks = [group.load([spikes], self.parts["train"].labels) for spikes in self.on_clocks]
        goes_on = list(at_work)
        while goes_on == at_work:
            epochs = [len(self.records[i]) + 1 for i in at_work]
            rates = [Adam.from_config(c).rate(epoch) for c, epoch in zip(configs, epochs, strict=True)]
            begin = time.perf_counter()
            for rank, i in enumerate(at_work):
                if classes := self._missed(i):
                    inputs, labels = self.inputs["train"][i], self.parts["train"].labels
                    group.set_state(rank, wake_classes(group.state(rank), self.configs[i], inputs, labels, classes))
            if clocks:
                sums = {"train": [self._train_on_clocks(group, clocks, epochs[0], rates[0], on_batch)]}
            else:
                trained = group.train(
                    samples["train"],
                    modes,
                    [self._order(c, epoch) for c, epoch in zip(configs, epochs, strict=True)],
                    batch_size=configs[0].batch_size,
                    learning_rates=rates,
                    noise=[_noise(c, epoch) for c, epoch in zip(configs, epochs, strict=True)],
                    errors_from=errors_from,
                    on_batch=on_batch,
                )
                sums = {"train": trained}
            norms, broken = group.inspect()
            middle = time.perf_counter()
            for name in [name for name in self.parts if name != "train"]:
                sums[name] = group.evaluate(samples[name], modes, batch_size=configs[0].test_batch_size)
            seconds = np.diff([begin, middle, time.perf_counter()]) / len(at_work)
            for rank, i in enumerate(at_work):
                c, loss = self.configs[i], sums["train"][rank].loss
                error = _divergence(c, self.networks[i].sizes, epochs[rank], broken[rank], loss, self.records[i])
                if error is not None:
                    results[i] = error
                    goes_on.remove(i)
                    continue
                passes = {
                    name: measured(done[rank], c.target_true, self.n_input_spikes[name][i])
                    for name, done in sums.items()
                }
                record = EpochRecord(
                    epoch=epochs[rank],
                    train=passes["train"],
                    test=passes["test"],
                    validation=passes.get("validation"),
                    weight_norm=norms[rank],
                    learning_rate=rates[rank],
                    train_seconds=float(seconds[0]),
                    test_seconds=float(seconds[1]),
                )
                try:
                    self._keep(i, record, group, rank)
                except StoppedError as stopped:
                    stopped.records = self.records[i]
                    results[i] = stopped
                if i in results or record.epoch == c.epochs:
                    goes_on.remove(i)
        for rank, i in enumerate(at_work):
            if i not in results and group is not self.networks[i].networks:
                self.networks[i].networks.set_state(0, group.state(rank))
        group.release()
        return goes_on

    def _train_on_clocks(
        self,
        group: Networks,
        clocks: Sequence[Any],
        epoch: int,
        rate: float,
        on_batch: Callable[[int, int], None] | None,
    ) -> Sums:
        """Train the network for one epoch on a clock drawn for each batch; `clocks` are its samples on each of them."""
        [config], size = self.configs, self.configs[0].batch_size
        order, parts = self._order(config, epoch), []
        begins = range(0, len(order), size)
        drawn = np.random.default_rng([config.seed, epoch, 2]).integers(len(clocks), size=len(begins))
        for i, (begin, k) in enumerate(zip(begins, drawn, strict=True)):
            own = self.clocked[k]
            counting = counting_mode(own)
            parts += group.train(
                clocks[k],
                [_mode(own, self.output_rules[0])],
                [order[begin : begin + size]],
                batch_size=size,
                learning_rates=[rate],
                noise=[_noise(own, epoch, i)],
                errors_from=None if counting is None else (clocks[k], [counting]),
            )
            if on_batch is not None and i % _REPORT_EVERY == 0:
                on_batch(begin + len(order[begin : begin + size]), len(order))
        return Sums.total(parts)

    def _missed(self, i: int) -> list[int]:
        """Return the classes of a run whose output neurons are woken before its next epoch, if they are silent."""
        return missed_classes(self.records[i], self.parts["train"].labels) if self.configs[i].wake_classes else []

    def _order(self, config: Config, epoch: int) -> np.ndarray:
        """Return the order in which a run sees its training samples in an epoch."""
        return np.random.default_rng([config.seed, epoch]).permutation(len(self.parts["train"].labels))

    def _keep(self, i: int, record: EpochRecord, group: Networks, rank: int) -> None:
        """Take an epoch's record in: into the checkpoint, and to whoever listens."""
        config, path = self.configs[i], self.paths[i]
        self.records[i].append(record)
        if config.keep_weights == "each" or path is not None:
            state = group.state(rank)
            if config.keep_weights == "each":
                record.weights = quantize_weights(state.weights, config.weight_bits)
            if path is not None:
                save_checkpoint(path, config, self.data, state, self.records[i], errors_from=self._counted(i))
        self.on_epoch(i, record)


def _noise(config: Config, epoch: int, *batch: int) -> int:
    """Return the key of an epoch's random numbers, or a batch's, where the run rounds spikes by them; else 0."""
    if not ESTIMATORS[config.estimator].random or not config.delta_t:
        return 0
    return int(np.random.default_rng([config.seed, epoch, 1, *batch]).integers(1, 2**64, dtype=np.uint64))


def _divergence(
    config: Config, sizes: Sequence[int], epoch: int, broken: np.ndarray, loss: float, records: list[EpochRecord]
) -> DivergedError | None:
    """Return the error of a run whose weights (`broken` of each layer) or loss are no longer finite."""
    for name, n_pre, n_post, bad in zip(config.layer_names(), sizes[:-1], sizes[1:], broken, strict=True):
        if bad:
            return DivergedError(
                f"Training diverged in epoch {epoch}: {bad} of {n_post * n_pre} weights of layer {name} "
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
