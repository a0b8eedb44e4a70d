"""A folder of runs, files or packed ones, is one Dataset."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from bats_lab.config import parameters
from bats_lab.errors import ResultsError
from bats_lab.runs.cache import Layout, SmallRun
from bats_lab.runs.files import LARGE, read_small
from bats_lab.runs.joined import Positions, join_labels
from bats_lab.runs.metrics import COORDINATES, RUN_DIMS, VARIABLES, Entry
from bats_lab.runs.netcdf import Part, read_netcdf
from bats_lab.runs.packed import packed_files, read_packed
from bats_lab.runs.store import mirrored
from bats_lab.spikes.rules import RULES

__all__ = ["SEARCH", "load_large", "open_results"]

#: File that a search leaves in its folder: runs there lie on no grid.
SEARCH = "search.json"

#: So many times more cells than runs, and runs lie on no grid whoever made them.
_SPARSE = 1000

#: Dimensions whose labels count from 0 and need not be read.
_COUNTED = frozenset({"neuron", "post", "pre", "spike", "input_neuron", "input_spike"})


def open_results(folder: str | Path, *, large: bool = True) -> xr.Dataset:
    """Open all finished runs of a folder as one Dataset.

    Parameters
    ----------
    folder : str or Path
        Folder into which :func:`bats_lab.save_run` wrote runs; or a URL, as ``s3://bucket/folder``: what is new there
        is fetched first (:mod:`bats_lab.runs.store`).
    large : bool
        Whether to include weights and spikes (see Notes). Without them the Dataset is small, and ``.mean("seed")`` and
        the like over all its variables are cheap.

    Returns
    -------
    xarray.Dataset
        All runs, over the dimensions `delta_t` and `seed`, and over `dataset` and `rule` where there are
        several (else these two are scalar coordinates). Every other parameter in which runs differ is a
        dimension as well, so that no two runs share a cell; lists of numbers become text there, as "400,
        400", and None becomes "all". The runs of a search, which lie on no grid, are counted by the dimension `trial`
        instead, in the order in which they were started; the parameters in which they differ are coordinates along it.
        What only says what is kept (`keep_weights`, `keep_samples`) is no
        dimension. A parameter that only follows from another (from the data set, as the presets do, or from
        another swept parameter) is no dimension but a coordinate along that one.
        Where a run, an epoch, a layer or a neuron is missing, numbers are NaN and text is empty; whole
        numbers and truth values with something missing are floats. The variable `path` names each run's
        file, for :func:`bats_lab.open_run`.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ResultsError
        If it holds no finished run that can be read.
    StoreError
        If the store of a URL cannot be read.

    Warns
    -----
    UserWarning
        For each file that cannot be read, and that is left out; and for files that hold the same run.

    Notes
    -----
    Metrics are in memory. Weights and spike times stay on disk: each access reads, from the files it
    needs, the part that is asked for, so select first (``results.weights.sel(delta_t=0.004, seed=0).values``).
    They are read anew each time unless loaded with ``.load()``.
    """
    where, folder = folder, mirrored(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder of results {where}.")
    runs = _distinct(_read_all(folder))
    if not runs:
        raise ResultsError(f"{where} holds no finished run that can be read.")
    return _combine(runs, large=large, scattered=(folder / SEARCH).exists())


def _read_all(folder: Path) -> Iterator[SmallRun]:
    files = {path.name: path for path in sorted(folder.glob("run-*.nc"))}
    for path in [*files.values(), *packed_files(folder)]:
        try:
            if path.name in files:
                yield read_small(path)
            else:
                yield from (run for name, run in read_packed(path).items() if name not in files)
        except (ResultsError, OSError) as error:
            reason = str(error).removeprefix(f"{path} cannot be read as results: ")
            warnings.warn(f"{path} cannot be read as results and is left out: {reason}", stacklevel=4)


def _distinct(runs: Iterable[SmallRun]) -> list[SmallRun]:
    """Leave out copies of a run: under another name, or with the same measures and less that is kept."""
    distinct: dict[tuple[Any, ...], SmallRun] = {}
    measured = [p.name for p in parameters() if p.measured]
    for run in runs:
        what = tuple(getattr(run.config, name) for name in measured)
        other = distinct.setdefault(what, run)
        if other is not run:
            best, rest = (run, other) if len(run.large) > len(other.large) else (other, run)
            warnings.warn(f"{rest.path} holds the same run as {best.path.name} and is left out.", stacklevel=3)
            distinct[what] = best
    return list(distinct.values())


def _combine(runs: Sequence[SmallRun], *, large: bool, scattered: bool) -> xr.Dataset:
    """Lay runs out over the parameters in which they differ, or where they lie on no grid over `trial`."""
    configs = [run.config.to_dict() for run in runs]
    axes, followers = _axes(configs)
    others = [name for name in axes if name not in RUN_DIMS]
    if others and (scattered or math.prod(map(len, axes.values())) > _SPARSE * len(runs)):
        free = [name for name in others + list(followers) if name != "dataset" and name not in RUN_DIMS]
        started = sorted(range(len(runs)), key=lambda i: (str(runs[i].texts["started"]), runs[i].path.name))
        numbers = {key: n for n, key in enumerate(dict.fromkeys(_point(configs[i], free) for i in started))}
        configs = [config | {"trial": numbers[_point(config, free)]} for config in configs]
        axes = {dim: keys for dim, keys in axes.items() if dim in RUN_DIMS} | {"trial": list(range(len(numbers)))}
        followers = {name: ("trial", [key[i] for key in numbers]) for i, name in enumerate(free)}
    layouts = list(dict.fromkeys(run.layout for run in runs))
    labels = join_labels(layouts)
    positions = Positions(labels)

    single = [dim for dim in ("dataset", "rule") if len(axes[dim]) == 1]
    run_dims = tuple(dim for dim in axes if dim not in single)
    run_shape = tuple(len(axes[dim]) for dim in run_dims)
    index = {dim: {key: i for i, key in enumerate(keys)} for dim, keys in axes.items()}
    cells = {tuple(index[d][_key(config[d])] for d in run_dims): run for config, run in zip(configs, runs, strict=True)}

    coords = {dim: _described(dim, (dim,), values) for dim, values in labels.items()}
    for dim, keys in axes.items():
        values = _axis_labels(keys)
        coords[dim] = _described(dim, (), values[0]) if dim in single else _described(dim, (dim,), values)
    for name, (dim, keys) in followers.items():
        coords[name] = _described(name, (dim,), _axis_labels(keys))

    data: dict[str, xr.Variable] = {}
    groups = [_group(layout, cells, run_shape) for layout in layouts]
    for name, entry in VARIABLES.items():
        shape = run_shape + tuple(len(labels.get(dim, ())) for dim in entry.dims)
        stacked: Any = None
        if entry.large:
            holders = {cell: run for cell, run in cells.items() if name in run.large} if large else None
            if holders:
                stacked = indexing.LazilyIndexedArray(_OnDisk(name, entry, shape, holders, positions))
        elif entry.dtype == "U":
            stacked = _stack_texts(name, entry, shape, cells, positions)
        else:
            stacked = _stack_numbers(name, entry, shape, groups, positions)
        if stacked is not None:
            data[name] = _described(name, run_dims + entry.dims, stacked)
    paths = np.full(run_shape, "", dtype=object)
    for cell, run in cells.items():
        paths[cell] = str(run.path)
    data["path"] = xr.Variable(run_dims, paths.astype(str), {"units": "1", "long_name": "file of the run"})
    used = {d for variable in data.values() for d in variable.dims}
    return xr.Dataset(data, {name: c for name, c in coords.items() if set(c.dims) <= used})


def _axes(configs: Sequence[Mapping[str, Any]]) -> tuple[dict[str, list[Any]], dict[str, tuple[str, list[Any]]]]:
    """Find the dimensions over which runs are laid out.

    Returns
    -------
    axes : dict
        Dimension -> its values in order: RUN_DIMS, and each other parameter that tells runs apart.
    followers : dict
        Parameter -> (dimension, its value for each of that dimension's): parameters that differ between
        runs, but are one value for each value of one dimension.
    """
    axes = {dim: _sorted_keys(dim, {_key(c[dim]) for c in configs}) for dim in RUN_DIMS}
    followers: dict[str, tuple[str, list[Any]]] = {}
    for parameter in parameters():
        name = parameter.name
        values = {_key(c[name]) for c in configs}
        if name in RUN_DIMS or len(values) == 1 or not parameter.measured:
            continue
        # Only the data set and other swept parameters can lead: with few runs done, a parameter would often seem to
        # follow from the seed or the time step by chance.
        for dim in ["dataset", *(d for d in axes if d not in RUN_DIMS)]:
            pairs = {(_key(c[dim]), _key(c[name])) for c in configs}
            if len(pairs) == len(axes[dim]):
                leading = dict(pairs)
                followers[name] = (dim, [leading[key] for key in axes[dim]])
                break
        else:
            axes[name] = _sorted_keys(name, values)
    return axes, followers


def _point(config: Mapping[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(_key(config[name]) for name in names)


def _key(value: Any) -> Any:
    """Turn a parameter's value as JSON has it into one that can be compared and counted."""
    return tuple(value) if isinstance(value, list) else value


def _sorted_keys(name: str, keys: set[Any]) -> list[Any]:
    if name == "rule":
        return sorted(keys, key=list(RULES).index)
    return sorted(keys, key=lambda k: (k is None, k if k is not None else 0))


def _axis_labels(keys: Sequence[Any]) -> np.ndarray:
    """Make labels of a parameter's values: numbers stay numbers unless None is among them."""
    if any(key is None or isinstance(key, tuple) for key in keys):
        return np.array(
            ["all" if k is None else ", ".join(map(str, k)) if isinstance(k, tuple) else str(k) for k in keys]
        )
    return np.array(keys)


_Cells = Mapping[tuple[int, ...], SmallRun]


class _Group(NamedTuple):
    """The numbers of all runs of one layout, and the places of these runs among all cells."""

    layout: Layout
    places: np.ndarray
    numbers: np.ndarray


def _group(layout: Layout, cells: _Cells, run_shape: tuple[int, ...]) -> _Group:
    runs = {cell: run for cell, run in cells.items() if run.layout is layout}
    numbers = np.frombuffer(b"".join(run.numbers for run in runs.values()), layout.numbers)
    return _Group(layout, np.ravel_multi_index(np.array(list(runs)).T, run_shape), numbers)


def _stack_numbers(
    name: str, entry: Entry, shape: tuple[int, ...], groups: Sequence[_Group], positions: Positions
) -> np.ndarray | None:
    """Lay one small variable of all runs into one array, NaN where it is missing; None if no run has it."""
    holders = [group for group in groups if name in (group.layout.numbers.names or ())]
    if not holders:
        return None
    inner = shape[len(shape) - len(entry.dims) :]
    out = np.full((math.prod(shape[: len(shape) - len(entry.dims)]), *inner), np.nan)
    for group in holders:
        out[np.ix_(group.places, *positions.of(group.layout, entry.dims))] = group.numbers[name]
    return out.reshape(shape) if entry.dtype == "f8" or np.isnan(out).any() else out.reshape(shape).astype(entry.dtype)


def _stack_texts(
    name: str, entry: Entry, shape: tuple[int, ...], cells: _Cells, positions: Positions
) -> np.ndarray | None:
    """Lay the texts of all runs into one array, empty where one is missing; None if no run has any."""
    holders = {cell: run for cell, run in cells.items() if name in run.texts}
    if not holders:
        return None
    out = np.full(shape, "", dtype=object)
    for cell, run in holders.items():
        out[cell + np.ix_(*positions.of(run.layout, entry.dims))] = run.texts[name]
    return out.astype(str)


class _OnDisk(BackendArray):
    """A large variable of many runs, of which only the part asked for is read."""

    def __init__(self, name: str, entry: Entry, shape: tuple[int, ...], holders: _Cells, positions: Positions) -> None:
        self.name, self.dims, self.shape, self.dtype = name, entry.dims, shape, np.dtype(entry.dtype)
        self._holders = {cell: (run.path, positions.of(run.layout, entry.dims)) for cell, run in holders.items()}

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._part)

    def _part(self, key: tuple[Any, ...]) -> np.ndarray:
        wanted = [np.atleast_1d(np.arange(n)[k]) for n, k in zip(self.shape, key, strict=True)]
        n_run_dims = len(self.shape) - len(self.dims)
        out = np.full([len(w) for w in wanted], np.nan, dtype=self.dtype)
        for cell in np.ndindex(out.shape[:n_run_dims]):
            holder = self._holders.get(tuple(int(wanted[i][c]) for i, c in enumerate(cell)))
            if holder is not None:
                self._fill(out[cell], *holder, wanted[n_run_dims:])
        scalar = tuple(0 if np.ndim(k) == 0 and not isinstance(k, slice) else slice(None) for k in key)
        return out[scalar]

    def _fill(self, out: np.ndarray, path: Path, positions: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> None:
        """Read what one file has of the wanted positions."""
        target, source = [], []
        for n, position, want in zip(self.shape[-len(self.dims) :], positions, wanted, strict=True):
            in_file = np.full(n, -1, dtype=np.intp)
            in_file[position] = np.arange(len(position))
            rows = in_file[want]
            target.append(np.flatnonzero(rows >= 0))
            source.append(_as_slice(rows[rows >= 0]))
        part = {self.name: (0,) * len(RUN_DIMS) + tuple(source)}
        out[np.ix_(*target)] = _read_large(path, part)[self.name]


def _read_large(path: Path, parts: Mapping[str, Part]) -> dict[str, np.ndarray]:
    """Read parts of variables from one file."""
    try:
        return {name: variable.values for name, variable in read_netcdf(path, parts=parts).variables.items()}
    except (ResultsError, OSError) as error:
        reason = str(error).removeprefix(f"{path} cannot be read as results: ")
        raise ResultsError(f"{', '.join(map(repr, parts))} cannot be read from {path}: {reason}") from error


def _as_slice(index: np.ndarray) -> np.ndarray | slice:
    """Turn indices without gaps into a slice, which reads faster."""
    if len(index) and np.array_equal(index, np.arange(index[0], index[0] + len(index))):
        return slice(int(index[0]), int(index[0]) + len(index))
    return index


def load_large(run: xr.Dataset, *names: str, **places: Mapping[str, int]) -> xr.Dataset:
    """Read large variables of one run into memory, all at once, since to open a file takes longer than to read most.

    Parameters
    ----------
    run : xarray.Dataset
        One run selected from what :func:`open_results` returned, without the dimensions that tell runs apart. Any other
        results of one run, which are in memory, are returned as they are.
    *names : str
        Large variables, as ``weights`` and ``spike_times``.
    **places : dict of str to int
        Large variables of which a part is enough, and where that is, as ``weights={"layer": 0}``; these dimensions are
        dropped.

    Returns
    -------
    xarray.Dataset
        The run with these variables and no other large ones, and with its own layers and neurons only.

    Raises
    ------
    ResultsError
        If the file cannot be read or has no such variable.
    """
    wanted: dict[str, Mapping[str, int]] = {name: {} for name in names} | places
    if "path" not in run:
        return run.assign({name: run[name].isel(places[name]) for name in places})
    kept = {name: [d for d in VARIABLES[name].dims if d not in place] for name, place in wanted.items()}
    parts: dict[str, Part] = {
        name: (0,) * len(RUN_DIMS) + tuple(place.get(d, slice(None)) for d in VARIABLES[name].dims)
        for name, place in wanted.items()
    }
    parts |= {d: (slice(None),) for dims in kept.values() for d in dims if d not in _COUNTED}
    read = _read_large(Path(run["path"].item()), parts)
    values = {name: xr.Variable(kept[name], read[name]) for name in wanted}
    labels = {d: np.arange(n) for v in values.values() for d, n in v.sizes.items() if d in _COUNTED}
    labels |= {d: own for d, own in read.items() if d not in wanted}
    small = run.drop_vars([n for n in run.variables if n in LARGE])
    # The run's own labels in place of those of all runs.
    for dim, own in labels.items():
        if dim in small.dims and not np.array_equal(small[dim].values, own):
            small = small.sel({dim: own})
    labels = {dim: own for dim, own in labels.items() if dim not in small.coords}
    # From variables, which xarray need not align, as it would in `assign`.
    return xr.Dataset(
        {name: small.variables[name] for name in small.data_vars} | values,
        {name: small.variables[name] for name in small.coords} | {dim: (dim, own) for dim, own in labels.items()},
        small.attrs,
    )


def _described(name: str, dims: tuple[str, ...], values: Any) -> xr.Variable:
    """Make a variable with the units and name of the schema, or of the parameter it is named after."""
    if name == "trial":
        return xr.Variable(dims, values, {"units": "1", "long_name": "run of the search, as they were started"})
    entry = COORDINATES.get(name) or VARIABLES.get(name)
    if entry is not None:
        return xr.Variable(dims, values, {"units": entry.units, "long_name": entry.long_name})
    parameter = next(p for p in parameters() if p.name == name)
    return xr.Variable(dims, values, {"units": parameter.unit or "1", "long_name": parameter.text})
