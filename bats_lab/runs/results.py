"""One run is one file; a folder of runs is one Dataset.

A file is NetCDF and holds what :mod:`bats_lab.runs.metrics` lists. Files are built in memory, written under a
temporary name in their own folder and then renamed, so a file exists whole or not at all.

NetCDF opens slowly (some 50 ms for the variables of a run), so the small variables of each run are also
kept in ``.cache`` inside the folder, in a form that is read in a millisecond. That is a copy and nothing
else: it may be deleted at any time, and is made anew where it is missing or older than its run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from bats_lab.config import Config, parameters
from bats_lab.errors import ResultsError
from bats_lab.runs.metrics import COORDINATES, NO_CLASS, RUN_DIMS, VARIABLES, Entry
from bats_lab.spikes.rules import RULES

__all__ = [
    "is_finished",
    "load_large",
    "open_dataset",
    "open_results",
    "open_run",
    "run_path",
    "save_dataset",
    "save_run",
    "validate_run",
]

_CACHE = ".cache"
_CACHE_FORMAT = 1
_PROCESS_START = time.time()
#: Dimensions whose labels count from 0 and need not be read.
_COUNTED = frozenset({"neuron", "post", "pre", "spike", "input_neuron"})
#: A temporary file is a leftover if it is this much older than the process, in seconds; others may be writing too.
_LEFTOVER_AGE = 600.0
# The NetCDF library crashes when two threads are in it, as those of an explorer can be.
_NETCDF = threading.RLock()
_LARGE = tuple(name for name, entry in VARIABLES.items() if entry.large)


# One run, one file


def run_path(folder: str | Path, config: Config) -> Path:
    """Return the file in which a run's results lie: its name follows from the parameters alone.

    Parameters
    ----------
    folder : str or Path
        Folder of the sweep.
    config : Config
        Parameters of the run.

    Examples
    --------
    >>> run_path("results/mnist", Config(delta_t=0.004, seed=1)).name.rpartition("-")[0]
    'run-mnist_small-dt0.004-seed1-drop'
    """
    return Path(folder) / f"run-{_stem(config)}.nc"


def _stem(config: Config) -> str:
    name = re.sub(r"\.npz$", "", re.split(r"[/\\]", config.dataset)[-1])
    name = re.sub(r"\W", "_", name, flags=re.ASCII)[:40]
    return f"{name}-dt{config.delta_t:g}-seed{config.seed}-{config.rule}-{config.identity}"


def is_finished(folder: str | Path, config: Config, *, data_hash: str | None = None) -> bool:
    """Tell whether the results of a run are there: a file that can be read, with all epochs of these parameters.

    Parameters
    ----------
    folder : str or Path
        Folder of the sweep.
    config : Config
        Parameters of the run.
    data_hash : str or None
        Hash of the data the run has to have been trained on; None: any.
    """
    path = run_path(folder, config)
    if not path.is_file():
        return False
    try:
        run = _read(path)
    except Exception:
        return False
    same_data = data_hash is None or str(run.values["data_hash"]) == data_hash
    return run.config == config and len(run.coords["epoch"]) == config.epochs and same_data


def save_run(dataset: xr.Dataset, folder: str | Path) -> Path:
    """Write the results of one run into a folder, whole or not at all.

    An older file of the same run is replaced, and untouched if anything goes wrong.

    Parameters
    ----------
    dataset : xarray.Dataset
        Results of one run, as :func:`bats_lab.run_experiment` returns them. `delta_t` is rounded to 1 ns.
    folder : str or Path
        Folder of the sweep; made if it is not there.

    Returns
    -------
    Path
        The file: :func:`run_path`. Results with fewer epochs than their `config` asks for (training
        diverged) go to ``partial-….nc`` beside it, which :func:`open_run` opens but :func:`open_results`
        leaves out; they are removed once the run is saved with all its epochs.

    Raises
    ------
    ResultsError
        If the results do not keep to the schema.
    OSError
        If the file cannot be written.
    """
    dataset = _plain(dataset)
    validate_run(dataset)
    config = _config_of(dataset)
    finished = run_path(folder, config)
    partial = finished.with_name(f"partial-{_stem(config)}.nc")
    path = finished if dataset.sizes["epoch"] == config.epochs else partial
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path.parent)
    with _NETCDF:
        content = dataset.to_netcdf(None, engine="netcdf4", format="NETCDF4", encoding=_encoding(dataset))
    _write_whole(path, content)
    if path == finished:
        partial.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the cache can be made later
            _write_cache(path, _gather(path, dataset))
    return path


def open_run(path: str | Path) -> xr.Dataset:
    """Read the results of one run into memory.

    Parameters
    ----------
    path : str or Path
        A file that :func:`save_run` wrote.

    Returns
    -------
    xarray.Dataset
        The run, with the dimensions `dataset`, `delta_t`, `seed` and `rule` of size 1.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ResultsError
        If the file cannot be read or does not keep to the schema.
    """
    dataset = _plain(open_dataset(path))
    validate_run(dataset)
    return dataset


def save_dataset(dataset: xr.Dataset, path: str | Path) -> Path:
    """Write any Dataset into a NetCDF file, compressed, whole or not at all.

    Parameters
    ----------
    dataset : xarray.Dataset
        What is written; the schema of runs does not apply.
    path : str or Path
        The file; its folder is made if it is not there.

    Raises
    ------
    OSError
        If the file cannot be written; what was there before is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = {name: {"zlib": True} for name, v in dataset.variables.items() if v.ndim and v.dtype.kind in "fiu"}
    with _NETCDF:
        content = dataset.to_netcdf(None, engine="netcdf4", format="NETCDF4", encoding=packed)
    _write_whole(path, content)
    return path


def open_dataset(path: str | Path) -> xr.Dataset:
    """Read a file that :func:`save_dataset` wrote, whole.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ResultsError
        If it cannot be read.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no results file {path}.")
    try:
        with _NETCDF, xr.open_dataset(path, engine="netcdf4") as opened:
            return opened.load()
    except Exception as error:  # the libraries raise all kinds of errors on a damaged file
        raise ResultsError(f"{path} cannot be read as results: {error}") from error


def validate_run(dataset: xr.Dataset) -> None:
    """Check that a Dataset is the results of one run, as the schema in :mod:`bats_lab.runs.metrics` has them.

    Parameters
    ----------
    dataset : xarray.Dataset

    Raises
    ------
    ResultsError
        If a variable or coordinate is missing, unknown, of the wrong dimensions or type, or without units
        and name, or if `config` is not that of the coordinates. The message names the first such thing.
    """
    for name, entry in VARIABLES.items():
        if entry.required and name not in dataset.data_vars:
            raise ResultsError(f"The results lack the variable {name!r}.")
    for given, variable in dataset.variables.items():
        _validate_variable(str(given), variable, is_coordinate=given in dataset.coords)
    for dimension in dataset.dims:
        if dimension not in dataset.coords:
            raise ResultsError(f"The results lack the coordinate {dimension!r}.")
    for dim in RUN_DIMS:
        if dataset.sizes[dim] != 1:
            raise ResultsError(f"{dim!r} has {dataset.sizes[dim]} values; the results of one run have one.")
    epochs = dataset["epoch"].values
    if not len(epochs) or not np.array_equal(epochs, np.arange(1, len(epochs) + 1)):
        raise ResultsError(f"'epoch' is {epochs.tolist()}; it must be 1, 2, … without gaps.")
    config = _config_of(dataset)
    for dim in RUN_DIMS:
        if dataset[dim].values[0] != getattr(config, dim):
            raise ResultsError(
                f"{dim!r} is {dataset[dim].values[0].item()!r}, but 'config' says {getattr(config, dim)!r}."
            )
    if tuple(dataset["layer"].values) != config.layer_names():
        raise ResultsError(
            f"'layer' is {dataset['layer'].values.tolist()}; by 'config' it must be {list(config.layer_names())}."
        )


def _validate_variable(name: str, variable: xr.Variable, *, is_coordinate: bool) -> None:
    table = COORDINATES if is_coordinate else VARIABLES
    kind = "coordinate" if is_coordinate else "variable"
    entry = table.get(name)
    if entry is None:
        raise ResultsError(f"{name!r} is no {kind} of a run's results; known are {', '.join(table)}.")
    dims = (name,) if is_coordinate else RUN_DIMS + entry.dims
    if variable.dims != dims:
        raise ResultsError(f"The {kind} {name!r} has the dimensions {variable.dims}; it must have {dims}.")
    if not _is_type(variable.dtype, entry):
        raise ResultsError(f"The {kind} {name!r} is of type {variable.dtype}; it must be {_TYPE_NAMES[entry.dtype]}.")
    for attribute in ("units", "long_name"):
        if attribute not in variable.attrs:
            raise ResultsError(f"The {kind} {name!r} has no attribute {attribute!r}.")


_TYPE_NAMES = {"f8": "float64", "f4": "float32", "i8": "int64", "?": "bool", "U": "text"}


def _is_type(dtype: np.dtype[Any], entry: Entry) -> bool:
    return dtype.kind == "U" if entry.dtype == "U" else dtype == np.dtype(entry.dtype)


def _config_of(dataset: xr.Dataset) -> Config:
    text = dataset["config"].values.reshape(-1)[0]
    try:
        return Config.from_dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise ResultsError(f"'config' does not hold the parameters of a run: {error}") from error


def _plain(dataset: xr.Dataset) -> xr.Dataset:
    """Turn text from Python objects, as NetCDF gives it, to NumPy text, round the time step, drop the encoding."""
    for name in [str(n) for n in dataset.variables]:
        variable = dataset.variables[name]
        if variable.dtype.kind in "OT":
            assign = dataset.assign_coords if name in dataset.coords else dataset.assign
            dataset = assign({name: (variable.dims, variable.values.astype(str), variable.attrs)})
    if "delta_t" in dataset.coords:
        step = dataset.variables["delta_t"]
        dataset = dataset.assign_coords(delta_t=step.copy(data=np.round(step.values, 9)))
    return dataset.drop_encoding()


def _encoding(dataset: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Compress the large variables, in pieces of one layer of one sample, so that one can be read alone."""
    pieces = {*RUN_DIMS, "epoch", "layer", "sample"}
    return {
        name: {
            "zlib": True,
            "complevel": 4,
            "shuffle": True,
            "chunksizes": tuple(1 if d in pieces else max(1, n) for d, n in dataset[name].sizes.items()),
        }
        for name in _LARGE
        if name in dataset and dataset[name].size
    }


def _write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that it exists whole or not at all, whatever happens."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # not every system can flush a folder
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove_leftovers(folder: Path) -> None:
    """Remove temporary files of killed processes, and cached copies of runs that are gone."""
    cache = folder / _CACHE
    for path in (*folder.glob(".*.part"), *cache.glob(".*.part"), *cache.glob("run-*")):
        with contextlib.suppress(OSError):
            gone = path.suffix != ".part" and not (folder / path.name).exists()
            if gone or (path.suffix == ".part" and path.stat().st_mtime < _PROCESS_START - _LEFTOVER_AGE):
                path.unlink()


# Many runs, one Dataset


@dataclass(frozen=True)
class _Run:
    """The small variables of one run, without their dimensions RUN_DIMS, and which large ones its file has."""

    path: Path
    coords: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    large: tuple[str, ...]

    @property
    def config(self) -> Config:
        return Config.from_dict(json.loads(str(self.values["config"])))


def open_results(folder: str | Path, *, large: bool = True) -> xr.Dataset:
    """Open all finished runs of a folder as one Dataset.

    Parameters
    ----------
    folder : str or Path
        Folder into which :func:`save_run` wrote runs.
    large : bool
        Whether to include weights and spikes (see Notes). Without them the Dataset is small, and ``.mean("seed")`` and
        the like over all its variables are cheap.

    Returns
    -------
    xarray.Dataset
        All runs, over the dimensions `delta_t` and `seed`, and over `dataset` and `rule` where there are
        several (else these two are scalar coordinates). Every other parameter in which runs differ is a
        dimension as well, so that no two runs share a cell; lists of numbers become text there, as "400,
        400", and None becomes "all". What only says what is kept (`keep_weights`, `keep_samples`) is no
        dimension. A parameter that only follows from another (from the data set, as the presets do, or from
        another swept parameter) is no dimension but a coordinate along that one.
        Where a run, an epoch, a layer or a neuron is missing, numbers are NaN and text is empty; whole
        numbers and truth values with something missing are floats. The variable `path` names each run's
        file, for :func:`open_run`.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ResultsError
        If it holds no finished run that can be read.

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
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder of results {folder}.")
    runs = _distinct(_read_all(sorted(folder.glob("run-*.nc"))))
    if not runs:
        raise ResultsError(f"{folder} holds no finished run that can be read.")
    return _combine(runs, large=large)


def _read_all(paths: Iterable[Path]) -> Iterator[_Run]:
    for path in paths:
        try:
            yield _read(path)
        except Exception as error:  # the libraries raise all kinds of errors on a damaged file
            warnings.warn(f"{path} cannot be read as results and is left out: {error}", stacklevel=4)


def _distinct(runs: Iterable[_Run]) -> list[_Run]:
    """Leave out copies of a run: under another name, or with the same measures and less that is kept."""
    found: dict[str, _Run] = {}
    for run in runs:
        config = run.config.to_dict()
        what = json.dumps({p.name: config[p.name] for p in parameters() if p.measured}, sort_keys=True)
        other = found.setdefault(what, run)
        if other is not run:
            best, rest = (run, other) if len(run.large) > len(other.large) else (other, run)
            warnings.warn(f"{rest.path} holds the same run as {best.path.name} and is left out.", stacklevel=3)
            found[what] = best
    return list(found.values())


def _read(path: Path) -> _Run:
    """Read the small variables of a run, from the cache where it has them."""
    run = _read_cache(path)
    if run is None:
        with _NETCDF, xr.open_dataset(path, engine="netcdf4", cache=False) as opened:
            dataset = _plain(opened)
            validate_run(dataset)
            run = _gather(path, dataset)
        with contextlib.suppress(OSError):  # a folder in which one may not write still opens
            _write_cache(path, run)
    return run


def _gather(path: Path, dataset: xr.Dataset) -> _Run:
    return _Run(
        path,
        {str(n): dataset[n].values for n in dataset.coords},
        {str(n): dataset[n].values[0, 0, 0, 0] for n in dataset.data_vars if n not in _LARGE},
        tuple(n for n in _LARGE if n in dataset),
    )


def _cache_path(path: Path) -> Path:
    return path.parent / _CACHE / path.name


def _fingerprint(path: Path) -> list[int]:
    status = path.stat()
    return [_CACHE_FORMAT, status.st_size, status.st_mtime_ns]


def _write_cache(path: Path, run: _Run) -> None:
    """Write a run's small variables as one line of JSON that describes them, and then their bytes."""
    arrays = [
        (kind, name, np.ascontiguousarray(a)) for kind in ("coords", "values") for name, a in getattr(run, kind).items()
    ]
    header = {
        "run": _fingerprint(path),
        "large": run.large,
        "arrays": [[kind, name, a.dtype.str, np.shape(getattr(run, kind)[name])] for kind, name, a in arrays],
    }
    content = json.dumps(header).encode() + b"\n" + b"".join(a.tobytes() for _, _, a in arrays)
    _cache_path(path).parent.mkdir(exist_ok=True)
    _write_whole(_cache_path(path), content)


def _read_cache(path: Path) -> _Run | None:
    """Read what :func:`_write_cache` wrote; None where there is nothing or where it is not of this file."""
    try:
        content = _cache_path(path).read_bytes()
        start = content.index(b"\n") + 1
        header = json.loads(content[:start])
        if header["run"] != _fingerprint(path):
            return None
        parts: dict[str, dict[str, np.ndarray]] = {"coords": {}, "values": {}}
        for kind, name, dtype, shape in header["arrays"]:
            count = int(np.prod(shape))
            array = np.frombuffer(content, dtype, count, start) if count else np.empty(shape, dtype)
            parts[kind][name] = array.reshape(shape)
            start += array.nbytes
        return _Run(path, parts["coords"], parts["values"], tuple(header["large"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _combine(runs: Sequence[_Run], *, large: bool) -> xr.Dataset:
    configs = [run.config.to_dict() for run in runs]
    axes, followers = _axes(configs)
    labels = {
        dim: _ordered(dim, [run.coords[dim] for run in runs if dim in run.coords])
        for dim in COORDINATES
        if dim not in RUN_DIMS and any(dim in run.coords for run in runs)
    }
    places = _Places(labels)

    single = [dim for dim in ("dataset", "rule") if len(axes[dim]) == 1]
    run_dims = tuple(dim for dim in axes if dim not in single)
    run_shape = tuple(len(axes[dim]) for dim in run_dims)
    index = {dim: {key: i for i, key in enumerate(keys)} for dim, keys in axes.items()}
    cells = [tuple(index[dim][_key(config[dim])] for dim in run_dims) for config in configs]

    coords = {dim: _described(dim, (dim,), values) for dim, values in labels.items()}
    for dim, keys in axes.items():
        values = _axis_labels(keys)
        coords[dim] = _described(dim, (), values[0]) if dim in single else _described(dim, (dim,), values)
    for name, (dim, keys) in followers.items():
        coords[name] = _described(name, (dim,), _axis_labels(keys))

    data: dict[str, xr.Variable] = {}
    for name, entry in VARIABLES.items():
        holders = {c: r for c, r in zip(cells, runs, strict=True) if name in r.large or name in r.values}
        if not holders or (entry.large and not large):
            continue
        shape = run_shape + tuple(len(labels[dim]) for dim in entry.dims)
        stacked: Any = (
            indexing.LazilyIndexedArray(_OnDisk(name, entry, shape, holders, places))
            if entry.large
            else _stack(name, entry, shape, holders, places)
        )
        data[name] = _described(name, run_dims + entry.dims, stacked)
    paths = np.full(run_shape, "", dtype=object)
    for cell, run in zip(cells, runs, strict=True):
        paths[cell] = str(run.path)
    data["path"] = xr.Variable(run_dims, paths.astype(str), {"units": "1", "long_name": "file of the run"})
    used = {d for variable in data.values() for d in variable.dims}
    return xr.Dataset(data, {name: c for name, c in coords.items() if set(c.dims) <= used})


def _axes(
    configs: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, list[Any]], dict[str, tuple[str, list[Any]]]]:
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


def _ordered(dim: str, several: Sequence[np.ndarray]) -> np.ndarray:
    """Join the labels of one dimension over all runs, in the order a person expects."""
    first = several[0]
    if all(labels is first or np.array_equal(labels, first) for labels in several):
        return first
    joined = list(dict.fromkeys(label for labels in several for label in labels.tolist()))
    if COORDINATES[dim].dtype != "U":
        joined.sort()
    elif dim == "layer":
        joined.sort(key=lambda name: (name == "output", len(name), name))
    elif dim == "predicted_class":
        joined.sort(key=lambda name: name == NO_CLASS)
    return np.array(joined)


class _Places:
    """Where the labels of a run lie among the joined labels of a dimension."""

    def __init__(self, labels: Mapping[str, np.ndarray]) -> None:
        self._index = {dim: {label: i for i, label in enumerate(values.tolist())} for dim, values in labels.items()}
        self._known: dict[tuple[str, bytes], np.ndarray] = {}

    def of(self, dim: str, labels: np.ndarray) -> np.ndarray:
        key = (dim, labels.tobytes())
        if key not in self._known:
            index = self._index[dim]
            self._known[key] = np.array([index[label] for label in labels.tolist()], dtype=np.intp)
        return self._known[key]


def _stack(
    name: str,
    entry: Entry,
    shape: tuple[int, ...],
    holders: Mapping[tuple[int, ...], _Run],
    places: _Places,
) -> np.ndarray:
    """Lay one small variable of all runs into one array; what is missing is NaN, or empty text."""
    text = entry.dtype == "U"
    out = np.full(shape, "", dtype=object) if text else np.full(shape, np.nan)
    for cell, run in holders.items():
        inner: tuple[Any, ...] = np.ix_(*(places.of(dim, run.coords[dim]) for dim in entry.dims))
        out[cell + inner] = run.values[name]
    if text:
        return out.astype(str)
    whole = entry.dtype == "f8" or np.isnan(out).any()
    return out if whole else out.astype(entry.dtype)


class _OnDisk(BackendArray):
    """A large variable of many runs, of which only the part asked for is read."""

    def __init__(
        self,
        name: str,
        entry: Entry,
        shape: tuple[int, ...],
        holders: Mapping[tuple[int, ...], _Run],
        places: _Places,
    ) -> None:
        self.name, self.dims, self.shape, self.dtype = name, entry.dims, shape, np.dtype(entry.dtype)
        self._holders = {
            cell: (run.path, [places.of(dim, run.coords[dim]) for dim in entry.dims]) for cell, run in holders.items()
        }

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

    def _fill(self, out: np.ndarray, path: Path, places: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> None:
        """Read what one file has of the wanted places."""
        there, source = [], {}
        for dim, n, place, want in zip(self.dims, self.shape[-len(self.dims) :], places, wanted, strict=True):
            in_file = np.full(n, -1, dtype=np.intp)
            in_file[place] = np.arange(len(place))
            at = in_file[want]
            there.append(np.flatnonzero(at >= 0))
            source[dim] = _as_slice(at[at >= 0])
        try:
            # Not by way of xarray, which looks at every variable of the file first.
            with _NETCDF, netCDF4.Dataset(path) as opened:
                variable = opened[self.name]
                variable.set_auto_mask(False)
                out[np.ix_(*there)] = variable[(0,) * len(RUN_DIMS) + tuple(source.values())]
        except Exception as error:  # the libraries raise all kinds of errors on a damaged file
            raise ResultsError(f"{self.name!r} cannot be read from {path}: {error}") from error


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
    path = Path(run["path"].item())
    try:
        with _NETCDF, netCDF4.Dataset(path) as opened:
            labels: dict[str, np.ndarray] = {}
            values: dict[str, xr.Variable] = {}
            for name, place in wanted.items():
                variable = opened[name]
                variable.set_auto_mask(False)
                dims = variable.dimensions[len(RUN_DIMS) :]
                kept = [d for d in dims if d not in place]
                values[name] = xr.Variable(
                    kept, variable[(0,) * len(RUN_DIMS) + tuple(place.get(d, slice(None)) for d in dims)]
                )
                labels |= {
                    d: np.arange(n) if d in _COUNTED else np.asarray(opened[d][:])
                    for d, n in zip(kept, values[name].shape, strict=True)
                }
    except Exception as error:  # the libraries raise all kinds of errors on a damaged file
        raise ResultsError(f"{', '.join(wanted)} cannot be read from {path}: {error}") from error
    small = run.drop_vars([n for n in run.variables if n in _LARGE])
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


def _as_slice(index: np.ndarray) -> np.ndarray | slice:
    """Turn indices without gaps into a slice, which reads faster."""
    if len(index) and np.array_equal(index, np.arange(index[0], index[0] + len(index))):
        return slice(int(index[0]), int(index[0]) + len(index))
    return index


def _described(name: str, dims: tuple[str, ...], values: Any) -> xr.Variable:
    """Make a variable with the units and name of the schema, or of the parameter it is named after."""
    entry = COORDINATES.get(name) or VARIABLES.get(name)
    if entry is not None:
        return xr.Variable(dims, values, {"units": entry.units, "long_name": entry.long_name})
    parameter = next(p for p in parameters() if p.name == name)
    return xr.Variable(dims, values, {"units": parameter.unit or "1", "long_name": parameter.text})
