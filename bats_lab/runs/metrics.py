"""What is measured: the schema of a run's results, how epochs become xarray variables, and what is read off them.

From this module on data is an :class:`xarray.Dataset` with named dimensions. :data:`COORDINATES` and
:data:`VARIABLES` are the one table of everything a results file may hold; all that writes, checks or
merges results reads it from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from bats_lab.config import LATENCY_TIMES, Config
from bats_lab.network.feedforward import Network
from bats_lab.runs.training import input_spikes
from bats_lab.spikes.grid import GRID_TOLERANCE
from bats_lab.spikes.rules import RULES, rule_on
from bats_lab.spikes.trains import Spikes

if TYPE_CHECKING:
    from bats_lab.runs.records import EpochRecord, Pass

__all__ = [
    "COORDINATES",
    "NO_CLASS",
    "RUN_DIMS",
    "VARIABLES",
    "Entry",
    "best_epoch",
    "choice_split",
    "dead_classes",
    "decide_at",
    "describe",
    "hypervolume",
    "last_epoch",
    "measure",
    "pareto_front",
    "stop_times",
    "summary_table",
    "summary_text",
]

#: Dimensions that tell runs apart; each has size 1 in the results of one run.
RUN_DIMS = ("dataset", "delta_t", "seed", "rule")

#: Label of the column of `confusion` that holds samples without an output spike.
NO_CLASS = "none"


class Entry(NamedTuple):
    """What the schema says about one variable or coordinate."""

    dims: tuple[str, ...]  #: dimensions after RUN_DIMS; for a coordinate, none
    dtype: str  #: NumPy type: f8, f4, i8, ? or U (text)
    units: str  #: unit, "1" where there is none
    long_name: str  #: what it is, as it stands on an axis
    required: bool = True  #: whether every run has it; the others depend on what is kept
    large: bool = False  #: whether it is left on disk until somebody asks for it


def _metric(dims: str, units: str, long_name: str, dtype: str = "f8", *, required: bool = True) -> Entry:
    return Entry(tuple(dims.split()), dtype, units, long_name, required)


def _kept(dims: str, units: str, long_name: str, *, dtype: str = "f4", large: bool = True) -> Entry:
    """Define a variable that exists only where weights or samples are kept."""
    return Entry(tuple(dims.split()), dtype, units, long_name, required=False, large=large)


#: Every coordinate; each is one-dimensional along itself.
COORDINATES: dict[str, Entry] = {
    "dataset": Entry((), "U", "1", "data set"),
    "delta_t": Entry((), "f8", "s", "time step, 0 is continuous time"),
    "seed": Entry((), "i8", "1", "seed of weights and batch order"),
    "rule": Entry((), "U", "1", "collision rule"),
    "split": Entry((), "U", "1", "part of the data set"),
    "epoch": Entry((), "i8", "1", "epoch"),
    "layer": Entry((), "U", "1", "layer"),
    "time": Entry((), "f8", "s", "time since the start of a sample"),
    "stop_time": Entry((), "f8", "s", "time at which the decision is taken"),
    "true_class": Entry((), "U", "1", "true class"),
    "predicted_class": Entry((), "U", "1", "predicted class; none: no output spike"),
    "post": Entry((), "i8", "1", "neuron of the layer"),
    "pre": Entry((), "i8", "1", "neuron of the layer below"),
    "sample": Entry((), "i8", "1", "test sample whose spikes are kept"),
    "neuron": Entry((), "i8", "1", "neuron of the layer whose spikes are kept"),
    "spike": Entry((), "i8", "1", "index of the spike of its neuron"),
    "input_neuron": Entry((), "i8", "1", "input neuron: a channel, or the pixel's place in its flattened image"),
    "input_spike": Entry((), "i8", "1", "index of the spike of its input neuron"),
}

#: Every variable; its dimensions are RUN_DIMS and then those given here.
VARIABLES: dict[str, Entry] = {
    "accuracy": _metric("split epoch", "1", "accuracy"),
    "loss": _metric("split epoch", "1", "loss, mean over samples"),
    "spike_count": _metric("split epoch layer", "1", "spikes per sample"),
    "spikes_per_neuron": _metric("split epoch layer", "1", "spikes per sample and neuron"),
    "silent_fraction": _metric("epoch layer", "1", "neurons silent over the whole test set, fraction"),
    "confidence": _metric("epoch time", "1", "prediction confidence of the true class"),
    "first_spike_time": _metric("epoch", "s", "time to first output spike"),
    "decision_time": _metric("epoch", "s", "time to decision"),
    "synaptic_events": _metric("epoch layer", "1", "synaptic events per sample"),
    "collisions": _metric("epoch layer", "1", "collisions per sample (dropped, merged and deferred crossings)"),
    "dropped": _metric("epoch layer", "1", "crossings dropped per sample"),
    "merged": _metric("epoch layer", "1", "crossings merged per sample"),
    "deferred": _metric("epoch layer", "1", "crossings deferred per sample"),
    "lost_spikes": _metric("epoch layer", "1", "spikes lost past the window per sample"),
    "truncated_neurons": _metric("epoch layer", "1", "neurons stopped at the spike limit per sample"),
    "spike_delay": _metric("epoch layer", "s", "mean delay of sent spikes"),
    "weight_norm": _metric("epoch layer", "1", "Frobenius norm of the weights"),
    "class_silent": _metric("epoch true_class", "1", "output neuron of the class silent over the whole test set", "?"),
    "confusion": _metric("true_class predicted_class", "1", "test samples after the last epoch", "i8"),
    "train_seconds": _metric("epoch", "s", "wall time of training"),
    "test_seconds": _metric("epoch", "s", "wall time of evaluation"),
    # Not called learning_rate: a sweep over that parameter needs the name for its dimension.
    "epoch_learning_rate": _metric("epoch", "1", "learning rate in the epoch"),
    "layer_size": _metric("layer", "1", "neurons of the layer", "i8"),
    "n_samples": _metric("split", "1", "samples used", "i8"),
    "input_spikes": _metric("split", "1", "input spikes per sample"),
    "config": _metric("", "1", "every parameter of the run, JSON", "U"),
    "version": _metric("", "1", "version of bats_lab", "U"),
    "backend": _metric("", "1", "engine that simulated", "U"),
    "device": _metric("", "1", "processor that simulated", "U"),
    "data_hash": _metric("", "1", "SHA-256 of the whole data set", "U"),
    "git_commit": _metric("", "1", "commit of the program, where known", "U"),
    "started": _metric("", "1", "start of the run, UTC", "U"),
    # Not in runs that broke off, and not in those of before they were measured.
    "stopped_accuracy": _metric("stop_time", "1", "accuracy if the decision is taken at a time", required=False),
    "stopped_spike_count": _metric("stop_time layer", "1", "spikes per sample sent until a time", required=False),
    "validation_decision_time": _metric("epoch", "s", "time to decision, on the samples held out", required=False),
    "environment": _metric("", "1", "threads, libraries and system of the run, JSON", "U", required=False),
    "threshold": _metric("layer", "1", "threshold of the layer, given or found from the data", required=False),
    "weights": _kept("layer post pre", "1", "weights after the last epoch"),
    "weights_by_epoch": _kept("epoch layer post pre", "1", "weights after each epoch"),
    "spike_times": _kept("sample layer neuron spike", "s", "continuous spike time; NaN: no spike"),
    "sent_times": _kept("sample layer neuron spike", "s", "time at which the spike is sent; NaN: not sent"),
    "input_times": _kept("sample input_neuron", "s", "continuous input spike time, the first; NaN: no spike"),
    "input_sent_times": _kept("sample input_neuron", "s", "time at which the first input spike is sent; NaN: no spike"),
    # Where an input neuron spikes more than once: all of its spikes.
    "input_trains": _kept("sample input_neuron input_spike", "s", "continuous input spike time; NaN: no spike"),
    "input_sent_trains": _kept("sample input_neuron input_spike", "s", "time at which it is sent; NaN: no spike"),
    "sample_label": _kept("sample", "1", "true class of the sample", dtype="U", large=False),
    "sample_prediction": _kept("sample", "1", "class predicted for the sample", dtype="U", large=False),
}


def describe(values: dict[str, np.ndarray], coords: dict[str, Sequence[object] | np.ndarray]) -> xr.Dataset:
    """Build the results of one run from arrays: dimensions, types, units and names come from the schema.

    Parameters
    ----------
    values : dict of str to ndarray
        Variables without the dimensions :data:`RUN_DIMS`, which are put in front with size 1.
    coords : dict of str to sequence
        Coordinates, among them one value for each of :data:`RUN_DIMS`.
    """
    data = {
        name: xr.Variable(RUN_DIMS + VARIABLES[name].dims, _typed(value, VARIABLES[name])[None, None, None, None])
        for name, value in values.items()
    }
    described = xr.Dataset(data, {name: (name, _typed(value, COORDINATES[name])) for name, value in coords.items()})
    for name, variable in described.variables.items():
        entry = COORDINATES.get(str(name)) or VARIABLES[str(name)]
        variable.attrs = {"units": entry.units, "long_name": entry.long_name}
    return described


def _typed(value: object, entry: Entry) -> np.ndarray:
    return np.asarray(value).astype(str if entry.dtype == "U" else entry.dtype)


# Variables that are as they stand in the test pass of an epoch, by which `measure` takes them.
_TEST_ONLY = (
    "confidence", "first_spike_time", "decision_time", "dropped", "merged", "deferred", "lost_spikes",
    "truncated_neurons", "spike_delay",
)  # fmt: skip


def measure(config: Config, records: Sequence[EpochRecord], class_names: Sequence[str]) -> xr.Dataset:
    """Turn what was measured in each epoch into the metrics of a run's results.

    Parameters
    ----------
    config : Config
        Parameters of the run.
    records : sequence of EpochRecord, at least one
        What training measured.
    class_names : sequence of str
        Name of each class, in the order of the output neurons.

    Returns
    -------
    xarray.Dataset
        The metrics of :data:`VARIABLES`, with :data:`RUN_DIMS` of size 1; without what is kept (weights,
        spikes) and without where and when the run was made.

    Raises
    ------
    ValueError
        If there are no records.
    """
    if not records:
        raise ValueError("records is empty; there is nothing to measure before the first epoch has ended.")
    sizes = np.array([*config.hidden, len(class_names)], dtype=np.float64)
    splits: list[list[Pass]] = [[r.train for r in records], [r.test for r in records]]
    test = splits[1]
    held_out = [r.validation for r in records if r.validation is not None]
    if held_out:
        splits.append(held_out)

    def over_splits(name: str) -> np.ndarray:
        return np.array([[getattr(p, name) for p in passes] for passes in splits])

    def over_test(name: str) -> np.ndarray:
        return np.array([getattr(p, name) for p in test])

    def of_records(name: str) -> np.ndarray:
        return np.array([getattr(r, name) for r in records])

    spike_count = over_splits("spike_count")
    incoming = np.column_stack([over_test("input_spikes"), spike_count[1, :, :-1]])
    values = {
        "accuracy": over_splits("accuracy"),
        "loss": over_splits("loss"),
        "spike_count": spike_count,
        "spikes_per_neuron": spike_count / sizes,
        "silent_fraction": np.array([[1 - np.mean(fired) for fired in p.fired] for p in test]),
        "synaptic_events": incoming * sizes,
        "collisions": over_test("dropped") + over_test("merged") + over_test("deferred"),
        "class_silent": np.array([~np.asarray(p.fired[-1], dtype=bool) for p in test]),
        "confusion": np.asarray(test[-1].confusion),
        "layer_size": sizes,
        "n_samples": np.array([passes[-1].n_samples for passes in splits]),
        "input_spikes": np.array([passes[-1].input_spikes for passes in splits]),
        "epoch_learning_rate": of_records("learning_rate"),
    }
    values |= {name: of_records(name) for name in ("weight_norm", "train_seconds", "test_seconds")}
    values |= {name: over_test(name) for name in _TEST_ONLY}
    if held_out:
        values["validation_decision_time"] = np.array([p.decision_time for p in held_out])
    return describe(
        {name: values[name] for name in VARIABLES if name in values},
        {
            **{dim: [getattr(config, dim)] for dim in RUN_DIMS},
            "split": ["train", "test", "validation"][: len(splits)],
            "epoch": [r.epoch for r in records],
            "layer": config.layer_names(),
            "time": LATENCY_TIMES,
            "true_class": class_names,
            "predicted_class": [*class_names, NO_CLASS],
        },
    )


def dead_classes(dataset: xr.Dataset) -> list[str]:
    """Name the classes whose output neuron was silent over the whole test set after a run's last epoch.

    One dead class of ten costs a tenth of the accuracy, which looks like an effect of the time step.
    """
    silent = dataset["class_silent"].isel(epoch=-1)
    return [str(name) for name in silent["true_class"].values[silent.values.reshape(-1).astype(bool)]]


def stop_times(duration: float) -> np.ndarray:
    """Return the times at which a decision may be taken: 0 to the end of the window, in s, float64 (41,).

    Examples
    --------
    >>> stop_times(0.2)[[0, 1, 40]]
    array([0.   , 0.005, 0.2  ])
    """
    return np.round(np.linspace(0, duration, 41), 9)


def decide_at(
    network: Network,
    images: np.ndarray | Spikes,
    labels: np.ndarray,
    config: Config,
    *,
    delta_t: float | None = None,
    rule: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Measure how good and how dear a decision is that is taken before the end of the window.

    Parameters
    ----------
    network : Network
    images : ndarray of uint8, (sample, row, column), or Spikes
        What it is shown: images, or events.
    labels : ndarray of int, (sample,)
        Their classes.
    config : Config
        The network's run: how images are encoded, on which time grid, and by which rule.
    delta_t, rule : float (s), str or None
        Another time step and rule than those of `config`.

    Returns
    -------
    accuracy : ndarray, (stop_time,)
        Fraction of samples decided rightly at each of :func:`stop_times`, from the spikes that were sent by then: the
        output neuron with the most spikes, ties to the lower index, none is wrong.
    spike_count : ndarray, (stop_time, layer)
        Spikes per sample that each layer has sent by then.

    Raises
    ------
    ValueError
        If there is no sample.

    Notes
    -----
    At the last time all spikes count, also those that the grid moved a little past the window, so that the
    last values are the run's `accuracy` and `spike_count`.
    """
    if len(images) == 0:
        raise ValueError("images is empty; there must be at least one.")
    delta_t = config.delta_t if delta_t is None else delta_t
    gridded = config.replace(delta_t=delta_t, rule=rule_on(config.rule, delta_t))
    rule = rule_on(config.rule if rule is None else rule, delta_t)
    times = stop_times(config.duration)
    ends = np.append(times[:-1] + GRID_TOLERANCE * delta_t, np.inf)
    right = np.zeros(len(times), np.int64)
    spikes = np.zeros((len(times), network.n_layers), np.int64)
    for part, sent in network.sent_spikes(input_spikes(images, gridded), rule=rule):
        for i, layer in enumerate(sent):
            sample, neuron, time = layer.events()
            until = np.searchsorted(ends, time)
            spikes[:, i] += np.cumsum(np.bincount(until, minlength=len(times)))
        counts = np.zeros((len(labels[part]), network.sizes[-1], len(times)), np.int64)
        np.add.at(counts, (sample, neuron, until), 1)
        counts = counts.cumsum(axis=-1)
        decided = (counts.argmax(axis=1) == labels[part][:, None]) & counts.any(axis=1)
        right += decided.sum(axis=0)
    return right / len(images), spikes / len(images)


def last_epoch(dataset: xr.Dataset) -> xr.Dataset:
    """Return the metrics of each run after its own last epoch, the last in which its test accuracy is not NaN.

    Returns
    -------
    xarray.Dataset
        Everything but the large variables (weights, spikes), without the dimension `epoch`.
    """
    small = dataset.drop_vars([n for n, e in VARIABLES.items() if e.large and n in dataset])
    measured = small["accuracy"].sel(split="test", drop=True).notnull()
    from_end = measured.isel(epoch=slice(None, None, -1)).argmax("epoch")
    return small.isel(epoch=small.sizes["epoch"] - 1 - from_end)


def choice_split(dataset: xr.Dataset) -> str:
    """Return the part of the data on which choices between runs may be made.

    That is ``validation`` if every run held out training samples (`validation_fraction`), else ``test``: there is no
    other, though a choice made on the test set flatters what is chosen.
    """
    if "validation" not in dataset["split"].values:
        return "test"
    accuracy = dataset["accuracy"]
    held_out = accuracy.sel(split="validation").notnull()
    return "validation" if bool((held_out == accuracy.sel(split="test").notnull()).all()) else "test"


def best_epoch(dataset: xr.Dataset) -> xr.DataArray:
    """Return the epoch after which each run was best, the first of equals, on the samples for choices.

    Returns
    -------
    xarray.DataArray
        Over the dimensions of runs; NaN where there is no run. Its attribute `split` is that of :func:`choice_split`;
        ``results.sel(epoch=best)`` reads test accuracy beside it.
    """
    split = choice_split(dataset)
    accuracy = dataset["accuracy"].sel(split=split, drop=True)
    best = accuracy.fillna(-1).idxmax("epoch").where(accuracy.notnull().any("epoch"))
    return best.rename("best_epoch").assign_attrs(units="1", long_name="epoch of the best accuracy", split=split)


def summary_table(dataset: xr.Dataset) -> pd.DataFrame:
    """Summarise results of one run or of many: one row for each data set, rule and time step, over the seeds.

    Returns
    -------
    pandas.DataFrame
        Columns ``dataset``, ``rule``, ``delta_t`` (s) and any other swept parameter; ``runs``; then, as
        mean over the runs after their last epoch on the test set: ``accuracy`` with ``accuracy_std``
        (over seeds, n - 1; NaN for a single run), ``hidden_spikes`` and ``output_spikes`` (per
        sample), ``confidence`` (at the last latency time), ``decision_time`` (s), ``collisions`` (per sample, all
        layers). Rows without any run are left out.
    """
    last = last_epoch(dataset)
    test = last.sel(split="test")
    hidden = test["layer"] != "output"
    columns = xr.Dataset(
        {
            "accuracy": test["accuracy"],
            "hidden_spikes": test["spike_count"].where(hidden).sum("layer"),
            "output_spikes": test["spike_count"].sel(layer="output"),
            "confidence": last["confidence"].isel(time=-1),
            "decision_time": last["decision_time"],
            "collisions": last["collisions"].sum("layer"),
        }
    ).reset_coords(drop=True)
    by = [*(d for d in RUN_DIMS if d != "seed"), *(str(d) for d in columns.dims if d not in RUN_DIMS)]
    # Scalar coordinates (a single data set, a single rule) become dimensions again, and so columns.
    for dim in RUN_DIMS:
        if dim not in columns.dims:
            columns = columns.expand_dims({dim: [dataset[dim].item()]})
    frame = columns.to_dataframe().reset_index().dropna(subset="accuracy")
    groups = frame.groupby(by, sort=False)
    table = groups[list(columns.data_vars)].mean()
    table.insert(0, "runs", groups.size())
    table.insert(2, "accuracy_std", groups["accuracy"].std())
    table = table.reset_index()
    order = {rule: i for i, rule in enumerate(RULES)}
    return table.sort_values(by, key=lambda c: c.map(order) if c.name == "rule" else c, ignore_index=True)


def summary_text(dataset: xr.Dataset) -> str:
    """Return :func:`summary_table` as text for a terminal."""
    table = summary_table(dataset).drop(columns=["accuracy_std", "collisions"])
    columns: dict[str, tuple[str, Callable[[float], str]]] = {
        "delta_t": ("Δt (ms)", lambda v: f"{v * 1e3:g}"),
        "accuracy": ("accuracy", lambda v: f"{v:.2%}"),
        "hidden_spikes": ("hidden spikes", lambda v: f"{v:.0f}"),
        "output_spikes": ("output spikes", lambda v: f"{v:.1f}"),
        "confidence": ("confidence", lambda v: f"{v:.2f}"),
        "decision_time": ("decision (ms)", lambda v: f"{v * 1e3:.0f}"),
    }
    table = table.rename(columns={name: title for name, (title, _) in columns.items()})
    return str(table.to_string(index=False, na_rep="–", formatters=dict(columns.values())))


def pareto_front(cost: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Find the points that no other point beats: none is as cheap in all and as good, and better in one of them.

    Parameters
    ----------
    cost : array_like, (point,) or (point, objective)
        What should be small, as spikes per sample; or several such things, as energy and latency.
    value : array_like, (point,)
        What should be large, as accuracy.

    Returns
    -------
    ndarray of int, (front point,)
        Indices of the front's points, by rising cost (the first, then the next). Points with NaN are never on it; of
        equal points all are.

    Raises
    ------
    ValueError
        If `cost` and `value` do not have these shapes, or not the same number of points.

    Examples
    --------
    >>> pareto_front([3.0, 1.0, 2.0, 4.0], [0.9, 0.5, 0.4, 0.95])
    array([1, 0, 3])
    >>> pareto_front([[3.0, 1.0], [1.0, 2.0], [2.0, 2.0]], [0.9, 0.9, 0.9])
    array([1, 0])
    """
    cost, value = _points(cost, value, objectives=True)
    small = np.column_stack([cost, -value])
    order = np.lexsort(small.T[::-1])  # what beats a point comes before it
    front = np.empty(0, dtype=np.intp)
    for i in order[~np.isnan(small[order]).any(axis=1)]:
        beats = (small[front] <= small[i]).all(axis=1) & (small[front] < small[i]).any(axis=1)
        if not beats.any():
            front = np.append(front, i)
    return front


def hypervolume(cost: np.ndarray, value: np.ndarray, reference: tuple[float, float]) -> float:
    """Measure the area between a Pareto front and a reference point: the larger, the better the front.

    Parameters
    ----------
    cost, value : array_like, (point,)
        As in :func:`pareto_front`.
    reference : (float, float)
        Cost and value of the worst point that still counts; points not better than it in both add nothing.

    Returns
    -------
    float
        Area in the unit of `cost` times that of `value`; 0 where no point counts.

    Examples
    --------
    >>> hypervolume([1.0, 2.0], [0.5, 0.75], reference=(4.0, 0.0))
    2.0
    """
    cost, value = _points(cost, value)
    worst_cost, worst_value = reference
    front = [i for i in pareto_front(cost, value) if cost[i] < worst_cost and value[i] > worst_value]
    area, floor = 0.0, worst_value
    for i in front:
        area += (worst_cost - cost[i]) * (value[i] - floor)
        floor = value[i]
    return float(area)


def _points(cost: np.ndarray, value: np.ndarray, *, objectives: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return both as float64; with `objectives` several costs a point are allowed."""
    cost, value = np.asarray(cost, dtype=np.float64), np.asarray(value, dtype=np.float64)
    if objectives and cost.ndim == 2:
        if value.shape != cost.shape[:1]:
            raise ValueError(f"cost has shape {cost.shape} and value {value.shape}; value must be (point,).")
    elif cost.ndim != 1 or cost.shape != value.shape:
        raise ValueError(f"cost has shape {cost.shape} and value {value.shape}; both must be (point,).")
    return cost, value
