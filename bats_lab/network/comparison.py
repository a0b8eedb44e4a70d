"""One network on many platforms and clocks: what it decides, how often it fires, which spikes come in their step."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from bats_lab.errors import DataError
from bats_lab.files import open_arrays
from bats_lab.network.graphs import Graph
from bats_lab.network.platforms import Profile, Response, simulate, steps_of
from bats_lab.spikes.grid import first_tick_from
from bats_lab.spikes.trains import Spikes

__all__ = ["DECISIONS", "compare", "decide", "load_spikes", "will_do"]


def _most(trains: Spikes) -> np.ndarray:
    sample, neuron, _ = trains.events()
    counts = np.zeros((len(trains), trains.n_neurons), np.int64)
    np.add.at(counts, (sample, neuron), 1)
    return np.where(counts.any(axis=1), counts.argmax(axis=1), -1)


def _first(trains: Spikes) -> np.ndarray:
    times = trains.padded(1)[:, :, 0]
    return np.where(np.isfinite(times).any(axis=1), times.argmin(axis=1), -1)


#: How an output decides: by the most spikes, or the first; ties go to the lower neuron, -1 is no decision.
DECISIONS: dict[str, Callable[[Spikes], np.ndarray]] = {"count": _most, "first": _first}


def decide(trains: Spikes, by: str = "count") -> np.ndarray:
    """Return the class of each sample, -1 where no output neuron fired.

    Parameters
    ----------
    trains : Spikes
        Spikes of the output.
    by : str
        ``count`` or ``first`` (spike).

    Returns
    -------
    ndarray of int, (sample,)

    Examples
    --------
    >>> decide(Spikes.from_padded(np.array([[[0.2, np.inf], [0.3, 0.4]]]))), decide(
    ...     Spikes.from_padded(np.array([[[0.2, np.inf], [0.3, 0.4]]])), by="first")
    (array([1]), array([0]))
    """
    if by not in DECISIONS:
        raise ValueError(f"by is {by!r}; it must be one of {', '.join(DECISIONS)}.")
    return DECISIONS[by](trains)


def compare(
    graph: Graph,
    spikes: Spikes,
    platforms: Mapping[str, str | Profile] | Iterable[str],
    *,
    delta_t: Sequence[float],
    duration: float,
    labels: np.ndarray | None = None,
    decision: str = "count",
    exact: Response | None = None,
) -> xr.Dataset:
    """Run a network on platforms and clocks, and hold each against continuous time.

    Parameters
    ----------
    graph : Graph
        The network; its first output decides.
    spikes : Spikes
        Input spikes.
    platforms : dict of str to str or Profile, or names
        What is compared, by the name it gets.
    delta_t : sequence of float
        Clocks in seconds.
    duration : float
        Length of the window in seconds.
    labels : ndarray of int, (sample,), or None
        True classes; None: those that the network decides for in continuous time.
    decision : str
        A name of :data:`DECISIONS`.
    exact : Response or None
        The run in continuous time, where it is at hand.

    Returns
    -------
    xarray.Dataset
        Over `platform` and `delta_t`: ``accuracy``, ``spike_count`` (per sample, over `population`) and ``kept``, the
        share of spikes of continuous time that come in their step. ``exact_accuracy`` and ``exact_spike_count`` are
        those of continuous time.
    """
    runs = dict(platforms) if isinstance(platforms, Mapping) else {name: name for name in platforms}
    names = [p.name for p in graph.populations if p.fires]
    reference = exact or simulate(graph, spikes, "exact", delta_t=min(delta_t), duration=duration)
    read, samples = graph.outputs[0], np.arange(len(spikes))
    truth = decide(reference.spikes[read], decision) if labels is None else np.asarray(labels)
    if truth.shape != (len(spikes),):
        raise ValueError(f"labels have the shape {truth.shape}; there must be one for each of {len(spikes)} samples.")
    accuracy = np.zeros((len(runs), len(delta_t)))
    counts, kept = (np.zeros((len(runs), len(delta_t), len(names))) for _ in range(2))
    for (i, profile), (j, step) in product(enumerate(runs.values()), enumerate(delta_t)):
        found = simulate(graph, spikes, profile, delta_t=step, duration=duration).spikes
        accuracy[i, j] = np.mean(decide(found[read], decision) == truth)
        n_steps = first_tick_from(duration, step)
        for k, name in enumerate(names):
            counts[i, j, k] = len(found[name].times) / len(spikes)
            true, got = (steps_of(trains, samples, n_steps, step) for trains in (reference.spikes[name], found[name]))
            kept[i, j, k] = np.minimum(true, got).sum() / max(int(true.sum()), 1)
    over = ("platform", "delta_t", "population")
    return xr.Dataset(
        {
            "accuracy": (over[:2], accuracy, {"units": "1", "long_name": "accuracy"}),
            "spike_count": (over, counts, {"units": "1", "long_name": "spikes per sample"}),
            "kept": (over, kept, {"units": "1", "long_name": "share of spikes in their step"}),
            "exact_accuracy": ((), np.mean(decide(reference.spikes[read], decision) == truth)),
            "exact_spike_count": (over[2:], [len(reference.spikes[name].times) / len(spikes) for name in names]),
        },
        {
            "platform": list(runs),
            "delta_t": ("delta_t", np.asarray(delta_t, float), {"units": "s", "long_name": "time step"}),
            "population": names,
        },
    )


def will_do(comparison: xr.Dataset, tolerance: float = 0.01) -> pd.DataFrame:
    """Return the coarsest clock of each platform that costs no more than `tolerance`, it and all finer ones.

    Returns
    -------
    pandas.DataFrame
        By platform: ``delta_t`` (s; NaN where no clock will do), and ``accuracy``, ``spikes`` per sample and ``kept``
        there, or on the finest clock.
    """
    rows = []
    for name in comparison["platform"].values:
        on = comparison.sel(platform=name).sortby("delta_t")
        good = np.logical_and.accumulate(
            on["accuracy"].values >= float(comparison["exact_accuracy"]) - tolerance - 1e-12
        )
        last = int(good.sum()) - 1
        there = on.isel(delta_t=max(last, 0))
        rows.append(
            {
                "platform": name,
                "delta_t": float(there["delta_t"]) if last >= 0 else np.nan,
                "accuracy": float(there["accuracy"]),
                "spikes": float(there["spike_count"].sum()),
                "kept": float(
                    (there["kept"] * comparison["exact_spike_count"]).sum() / comparison["exact_spike_count"].sum()
                ),
            }
        )
    return pd.DataFrame(rows).set_index("platform")


def load_spikes(path: str | os.PathLike[str], n_neurons: int) -> tuple[Spikes, np.ndarray | None]:
    """Read spikes, of inputs or recorded on a chip, from a file.

    Parameters
    ----------
    path : str or path
        An ``.npz`` file with ``times`` (sample, neuron) or (sample, neuron, spike) in seconds, ``inf`` where there is
        no spike, and, where there are classes, ``labels`` (sample,); or a CSV file with the columns ``sample``,
        ``neuron`` and ``time``.
    n_neurons : int
        Neurons that the spikes come from.

    Returns
    -------
    spikes : Spikes
    labels : ndarray of int, or None

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    DataError
        If it does not hold what it should, or neurons that there are not.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    labels = None
    try:
        if path.suffix == ".npz":
            with open_arrays(path) as data:
                times = np.asarray(data["times"], np.float64)
                labels = np.asarray(data["labels"]).astype(np.int64) if "labels" in data else None
        else:
            table = pd.read_csv(path, skipinitialspace=True)
            sample, neuron = (table[name].to_numpy(np.int64) for name in ("sample", "neuron"))
            train = pd.Series(1, table.index).groupby([sample, neuron]).cumcount().to_numpy()
            shape = (sample.max(initial=-1) + 1, max(n_neurons, neuron.max(initial=-1) + 1), train.max(initial=-1) + 1)
            times = np.full(shape, np.inf)
            times[sample, neuron, train] = table["time"].to_numpy(np.float64)
        spikes = Spikes.from_padded(times)
    except (KeyError, ValueError, IndexError, OSError, NotImplementedError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} holds no spikes ({error}); it must have times, or sample, neuron and time.") from error
    if spikes.n_neurons != n_neurons:
        raise DataError(f"{path} holds spikes of {spikes.n_neurons} neurons; there are {n_neurons}.")
    return spikes, labels
