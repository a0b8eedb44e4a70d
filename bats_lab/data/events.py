"""One's own events: spikes of samples, channels and times, from an ``.npz`` archive or a table (``.csv``)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bats_lab.errors import DataError
from bats_lab.files import open_file
from bats_lab.spikes.trains import Spikes

__all__ = ["EVENT_ARRAYS", "TIME_UNITS", "read_event_arrays", "read_event_table", "to_seconds"]

#: How many of a unit of time are a second.
TIME_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
#: The arrays of an ``.npz`` of events; `n_channels` may be left out.
EVENT_ARRAYS = tuple(f"{name}_{split}" for split in ("train", "test") for name in ("sample", "channel", "time", "y"))
_COLUMNS = ("split", "sample", "label", "channel")


def to_seconds(times: np.ndarray, unit: str, what: str) -> np.ndarray:
    """Return times in seconds.

    Raises
    ------
    DataError
        If there is no such unit.
    """
    if unit not in TIME_UNITS:
        raise DataError(f"unit of {what} is {unit!r}; it must be one of {', '.join(TIME_UNITS)}.")
    return np.asarray(times, np.float64) / TIME_UNITS[unit]  # 7 ms / 1000 is 0.007 s; 7 * 0.001 is not


def read_event_arrays(raw: Mapping[str, np.ndarray], path: Path) -> tuple[dict[str, np.ndarray | Spikes], str]:
    """Turn the arrays of an ``.npz`` into events and labels.

    Parameters
    ----------
    raw : mapping of str to ndarray
        For both splits ``sample_…``, ``channel_…`` and ``time_…`` of each event, ``y_…`` of each sample; and ``unit``,
        that of times, and ``n_channels``, where it is not the highest channel and 1.
    path : Path
        Where they come from.

    Returns
    -------
    arrays : dict of str to Spikes or ndarray
        ``x_train``, ``y_train``, ``x_test``, ``y_test``; labels are as they came.
    scale : str
        As what times were taken.

    Raises
    ------
    DataError
        If they are no events; the message names the first fault.
    """
    absent = [name for name in (*EVENT_ARRAYS, "unit") if name not in raw]
    if absent:
        said = f"; unit says in what times are: {', '.join(TIME_UNITS)}" if "unit" in absent else ""
        raise DataError(f"{path} lacks {', '.join(absent)}; events are {', '.join(EVENT_ARRAYS)} and unit{said}.")
    unit = str(raw["unit"])
    columns = {split: _columns(raw, split, path) for split in ("train", "test")}
    n_channels = raw.get("n_channels")
    if n_channels is None:
        n_channels = 1 + max(channel.max() for _, channel, _ in columns.values())
    elif np.ndim(n_channels) or np.asarray(n_channels).dtype.kind not in "ui" or not int(n_channels) > 0:
        raise DataError(f"n_channels in {path} is {n_channels}; it must be one integer above 0.")
    arrays: dict[str, np.ndarray | Spikes] = {}
    for split, (sample, channel, times) in columns.items():
        labels = raw[f"y_{split}"]
        for name, column, limit in (("sample", sample, len(labels)), ("channel", channel, int(n_channels))):
            if column.min() < 0 or column.max() >= limit:
                raise DataError(
                    f"{name}_{split} in {path} goes from {column.min()} to {column.max()}; it must be 0 to {limit - 1}."
                )
        _check_times(sample, times, f"time_{split} in {path}", unit)
        arrays[f"x_{split}"] = Spikes.from_events(
            sample, channel, to_seconds(times, unit, str(path)), n_samples=len(labels), n_neurons=int(n_channels)
        )
        arrays[f"y_{split}"] = labels
    return arrays, f"times in {unit}"


def _columns(raw: Mapping[str, np.ndarray], split: str, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return sample, channel and time of each event of a split, once they are numbers, as many of each."""
    sample, channel, times = (raw[f"{name}_{split}"] for name in ("sample", "channel", "time"))
    for name, column in (("time", times), ("sample", sample), ("channel", channel)):
        kinds, kind = ("uif", "numbers") if name == "time" else ("ui", "integers")
        if column.ndim != 1 or len(column) != len(times) or column.dtype.kind not in kinds:
            raise DataError(
                f"{name}_{split} in {path} has the shape {column.shape} and type {column.dtype}; it must be {kind}, "
                f"one an event, as many as there are times ({len(times)})."
            )
    if not len(times):
        raise DataError(f"time_{split} in {path} is empty; there must be an event.")
    return sample, channel, times


def _check_times(sample: np.ndarray, times: np.ndarray, what: str, unit: str) -> None:
    """Refuse times that cannot be, or that do not ascend within each sample."""
    if not np.isfinite(times).all() or times.min() < 0:
        wrong = int(np.flatnonzero(~(times >= 0) | np.isinf(times))[0])
        raise DataError(f"{what} is {times[wrong]} at event {wrong}; times must be finite, at least 0.")
    order = np.argsort(sample, kind="stable")
    back = np.flatnonzero((np.diff(sample[order]) == 0) & (np.diff(times[order].astype(np.float64)) < 0))
    if len(back):
        before, after = order[back[0]], order[back[0] + 1]
        raise DataError(
            f"{what} goes back from {times[before]} to {times[after]} {unit} in sample {sample[after]} (event {after});"
            f" the events of a sample must ascend in time."
        )


def read_event_table(path: Path) -> tuple[dict[str, np.ndarray | Spikes], str]:
    """Read a table of events, one a line: ``split,sample,label,channel,time_ms``, or ``time_s``, ``_us``, ``_ns``.

    Returns
    -------
    arrays, scale
        As :func:`read_event_arrays` does.

    Raises
    ------
    DataError
        If the file is no such table; the message names the first fault.
    """
    import pandas as pd

    try:
        with open_file(path) as file, warnings.catch_warnings():
            warnings.simplefilter("error")  # of lines that are too long
            table = pd.read_csv(file, skipinitialspace=True, index_col=False)
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}.") from error
    except Exception as error:  # pandas raises all kinds of errors on what is no table
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0].removesuffix('.')}.") from error
    timed = [name for name in table if str(name).startswith("time")]
    absent = [name for name in _COLUMNS if name not in table]
    if absent or len(timed) != 1 or (unit := timed[0].removeprefix("time").removeprefix("_")) not in TIME_UNITS:
        units = ", ".join(f"time_{unit}" for unit in TIME_UNITS)
        raise DataError(
            f"{path} has the columns {', '.join(map(str, table))}; it must have {', '.join(_COLUMNS)} and one of "
            f"{units}."
        )
    others = sorted(set(map(str, table["split"])) - {"train", "test"})
    if others:
        raise DataError(f"split in {path} is {others[0]!r}; it must be train or test.")
    raw: dict[str, np.ndarray] = {"unit": np.array(unit)}
    for split in ("train", "test"):
        part = table[table["split"] == split]
        labels = part.groupby("sample")["label"]
        if (mixed := labels.nunique() > 1).any():
            raise DataError(f"{split} sample {mixed.idxmax()} in {path} has several labels; it must have one.")
        first = labels.first()
        if list(first.index) != list(range(len(first))):
            raise DataError(
                f"sample of {split} in {path} has gaps; samples must be numbered from 0 on (those without any event "
                f"have no place in a table: an .npz takes them)."
            )
        raw |= {f"{name}_{split}": part[name].to_numpy() for name in ("sample", "channel")}
        raw |= {f"time_{split}": part[timed[0]].to_numpy(), f"y_{split}": first.to_numpy()}
    return read_event_arrays(raw, path)
