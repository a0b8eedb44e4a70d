"""One run is one file.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bats_lab.config import Config
from bats_lab.errors import ResultsError
from bats_lab.runs.metrics import COORDINATES, RUN_DIMS, VARIABLES

__all__ = [
    "LARGE",
    "NETCDF",
    "SmallRun",
    "is_finished",
    "open_dataset",
    "open_run",
    "read_small",
    "run_path",
    "save_dataset",
    "save_run",
    "validate_run",
]

#: Variables that stay on disk until somebody asks for them.
LARGE = tuple(name for name, entry in VARIABLES.items() if entry.large)
#: To be held while NetCDF works: the library crashes when two threads are in it, as those of an explorer can be.
NETCDF = threading.RLock()

_CACHE = ".cache"
_CACHE_FORMAT = 1
_PROCESS_START = time.time()
#: A temporary file is a leftover if it is this much older than the process, in seconds; others may be writing too.
_LEFTOVER_AGE = 600.0
_TYPE_NAMES = {"f8": "float64", "f4": "float32", "i8": "int64", "?": "bool", "U": "text"}


def run_path(folder: str | Path, config: Config) -> Path:
    """Return the file in a sweep's folder in which a run's results lie: its name follows from the parameters alone.

    Examples
    --------
    >>> run_path("results/mnist", Config(delta_t=0.004, seed=1)).name.rpartition("-")[0]
    'run-mnist_small-dt0.004-seed1-drop'
    """
    name = re.sub(r"\.npz$", "", re.split(r"[/\\]", config.dataset)[-1])
    name = re.sub(r"\W", "_", name, flags=re.ASCII)[:40]
    return Path(folder) / f"run-{name}-dt{config.delta_t:g}-seed{config.seed}-{config.rule}-{config.identity}.nc"


def is_finished(folder: str | Path, config: Config, *, data_hash: str | None = None) -> bool:
    """Tell whether a sweep's folder holds the results of a run: a file that can be read, with all epochs.

    With `data_hash` the run has to have been trained on the data with this hash.
    """
    try:
        run = read_small(run_path(folder, config))
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
        diverged) go to ``partial-….nc`` beside it, which :func:`open_run` opens but `open_results`
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
    partial = finished.with_name(f"partial-{finished.name.removeprefix('run-')}")
    path = finished if dataset.sizes["epoch"] == config.epochs else partial
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path.parent)
    # Large variables are compressed in pieces of one layer of one sample, so that one can be read alone.
    pieces = {*RUN_DIMS, "epoch", "layer", "sample"}
    packing: dict[str, dict[str, Any]] = {
        name: {
            "zlib": True,
            "complevel": 4,
            "shuffle": True,
            "chunksizes": tuple(1 if d in pieces else max(1, n) for d, n in dataset[name].sizes.items()),
        }
        for name in LARGE
        if name in dataset and dataset[name].size
    }
    _write_netcdf(path, dataset, packing)
    if path == finished:
        partial.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the cache can be made later
            _write_cache(_gather(path, dataset))
    return path


def open_run(path: str | Path) -> xr.Dataset:
    """Read the results of one run, a file that :func:`save_run` wrote, into memory.

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
    """Write any Dataset into a NetCDF file, compressed, whole or not at all; its folder is made if it is not there.

    Raises
    ------
    OSError
        If the file cannot be written; what was there before is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = [name for name, v in dataset.variables.items() if v.ndim and v.dtype.kind in "fiu"]
    _write_netcdf(path, dataset, {name: {"zlib": True} for name in numbers})
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
        with NETCDF, xr.open_dataset(path, engine="netcdf4") as opened:
            return opened.load()
    except Exception as error:  # the libraries raise all kinds of errors on a damaged file
        raise ResultsError(f"{path} cannot be read as results: {error}") from error


def validate_run(dataset: xr.Dataset) -> None:
    """Check that a Dataset is the results of one run, as the schema in :mod:`bats_lab.runs.metrics` has them.

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
    epochs, layers, config = dataset["epoch"].values, dataset["layer"].values.tolist(), _config_of(dataset)
    if not len(epochs) or not np.array_equal(epochs, np.arange(1, len(epochs) + 1)):
        raise ResultsError(f"'epoch' is {epochs.tolist()}; it must be 1, 2, … without gaps.")
    for dim in RUN_DIMS:
        value, expected = dataset[dim].values[0].item(), getattr(config, dim)
        if value != expected:
            raise ResultsError(f"{dim!r} is {value!r}, but 'config' says {expected!r}.")
    if layers != list(config.layer_names()):
        raise ResultsError(f"'layer' is {layers}; by 'config' it must be {list(config.layer_names())}.")


def _validate_variable(name: str, variable: xr.Variable, *, is_coordinate: bool) -> None:
    table, kind = (COORDINATES, "coordinate") if is_coordinate else (VARIABLES, "variable")
    entry = table.get(name)
    if entry is None:
        raise ResultsError(f"{name!r} is no {kind} of a run's results; known are {', '.join(table)}.")
    dims = (name,) if is_coordinate else RUN_DIMS + entry.dims
    if variable.dims != dims:
        raise ResultsError(f"The {kind} {name!r} has the dimensions {variable.dims}; it must have {dims}.")
    if variable.dtype.kind != "U" if entry.dtype == "U" else variable.dtype != np.dtype(entry.dtype):
        raise ResultsError(f"The {kind} {name!r} is of type {variable.dtype}; it must be {_TYPE_NAMES[entry.dtype]}.")
    for attribute in ("units", "long_name"):
        if attribute not in variable.attrs:
            raise ResultsError(f"The {kind} {name!r} has no attribute {attribute!r}.")


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


def _write_netcdf(path: Path, dataset: xr.Dataset, packing: Any) -> None:
    with NETCDF:
        content = dataset.to_netcdf(None, engine="netcdf4", format="NETCDF4", encoding=packing)
    _write_whole(path, content)


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


# The cache


@dataclass(frozen=True)
class SmallRun:
    """The small variables of one run, without their dimensions RUN_DIMS, and which large ones its file has."""

    path: Path
    coords: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    large: tuple[str, ...]

    @property
    def config(self) -> Config:
        """Parameters of the run."""
        return Config.from_dict(json.loads(str(self.values["config"])))


def read_small(path: Path) -> SmallRun:
    """Read the small variables of a run, from the cache where it has them; raise whatever a damaged file causes."""
    run = _read_cache(path)
    if run is None:
        with NETCDF, xr.open_dataset(path, engine="netcdf4", cache=False) as opened:
            dataset = _plain(opened)
            validate_run(dataset)
            run = _gather(path, dataset)
        with contextlib.suppress(OSError):  # a folder in which one may not write still opens
            _write_cache(run)
    return run


def _gather(path: Path, dataset: xr.Dataset) -> SmallRun:
    return SmallRun(
        path,
        {str(n): dataset[n].values for n in dataset.coords},
        {str(n): dataset[n].values[0, 0, 0, 0] for n in dataset.data_vars if n not in LARGE},
        tuple(n for n in LARGE if n in dataset),
    )


def _fingerprint(path: Path) -> list[int]:
    status = path.stat()
    return [_CACHE_FORMAT, status.st_size, status.st_mtime_ns]


def _write_cache(run: SmallRun) -> None:
    """Write a run's small variables as one line of JSON that describes them, and then their bytes."""
    arrays = [(kind, name, np.asarray(a)) for kind in ("coords", "values") for name, a in getattr(run, kind).items()]
    header = {
        "run": _fingerprint(run.path),
        "large": run.large,
        "arrays": [[kind, name, a.dtype.str, a.shape] for kind, name, a in arrays],
    }
    content = json.dumps(header).encode() + b"\n" + b"".join(a.tobytes() for _, _, a in arrays)
    cached = run.path.parent / _CACHE / run.path.name
    cached.parent.mkdir(exist_ok=True)
    _write_whole(cached, content)


def _read_cache(path: Path) -> SmallRun | None:
    """Read what :func:`_write_cache` wrote; None where there is nothing or where it is not of this file."""
    try:
        content = (path.parent / _CACHE / path.name).read_bytes()
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
        return SmallRun(path, **parts, large=tuple(header["large"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
