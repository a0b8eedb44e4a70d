"""One run is one file.

A file is NetCDF and holds what :mod:`bats_lab.runs.metrics` lists. Files are built in memory, written under a
temporary name in their own folder and then renamed, so a file exists whole or not at all; its seal
(:mod:`bats_lab.files`) is checked before anything is made of what it holds.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bats_lab.config import Config
from bats_lab.errors import ResultsError
from bats_lab.files import newer_than_this, open_file, read_seal, remove_leftovers
from bats_lab.runs.cache import SmallRun, clean_cache, read_cache, write_cache
from bats_lab.runs.metrics import COORDINATES, RUN_DIMS, VARIABLES
from bats_lab.runs.netcdf import Stored, StoredVariable, read_netcdf, write_netcdf
from bats_lab.runs.packed import dataset_of, find_packed, packed_files, read_packed, write_packed
from bats_lab.runs.store import is_url, mirrored_file, results_at

__all__ = [
    "LARGE",
    "is_finished",
    "open_dataset",
    "open_run",
    "pack",
    "read_small",
    "run_names",
    "run_path",
    "save_dataset",
    "save_run",
    "unpack",
    "validate_run",
]

#: Variables that stay on disk until somebody asks for them.
LARGE = tuple(name for name, entry in VARIABLES.items() if entry.large)
_TYPE_NAMES = {"f8": "float64", "f4": "float32", "i8": "int64", "?": "bool", "U": "text"}
#: Attributes that change nothing, or as which xarray writes missing numbers and truth values.
_SIMPLE = frozenset({"units", "long_name", "_FillValue", "dtype"})


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
    same_data = data_hash is None or run.texts["data_hash"] == data_hash
    return run.config == config and len(run.layout.coords["epoch"]) == config.epochs and same_data


def save_run(dataset: xr.Dataset, folder: str | Path) -> Path:
    """Write the results of one run into a folder, whole or not at all.

    An older file of the same run is replaced, and untouched if anything goes wrong.

    Parameters
    ----------
    dataset : xarray.Dataset
        Results of one run, as :func:`bats_lab.run_experiment` returns them. `delta_t` is rounded to 1 ns.
    folder : str or Path
        Folder of the sweep; made if it is not there. Or a URL: the store there has the file when this returns.

    Returns
    -------
    Path
        The file: :func:`run_path`; of a URL in its mirror (:mod:`bats_lab.runs.store`). Results with fewer epochs
        than their `config` asks for (training diverged) go to ``partial-….nc`` beside it, which :func:`open_run`
        opens but `open_results` leaves out; they are removed once the run is saved with all its epochs.

    Raises
    ------
    ResultsError
        If the results do not keep to the schema.
    OSError
        If the file cannot be written.
    StoreError
        If the store does not take it.
    """
    dataset = _plain(dataset)
    validate_run(dataset)
    config = _config_of(dataset)
    if is_url(folder):
        with results_at(folder, run_path(".", config).name) as mirror:
            return save_run(dataset, mirror)
    finished = run_path(folder, config)
    partial = finished.with_name(f"partial-{finished.name.removeprefix('run-')}")
    path = finished if dataset.sizes["epoch"] == config.epochs else partial
    remove_leftovers(path.parent)
    clean_cache(path.parent)
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
    small = _gather(path, dataset.variables)
    write_netcdf(path, dataset, packing, small.packed())
    if path == finished:
        partial.unlink(missing_ok=True)
        write_cache(small)
    return path


def open_run(path: str | Path) -> xr.Dataset:
    """Read the results of one run, a file that :func:`save_run` wrote, into memory; it may be packed since.

    Parameters
    ----------
    path : str or Path
        The file, or its URL.

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
    StoreError
        If the store of a URL cannot be read.
    """
    path = mirrored_file(path)
    packed = None if path.exists() else find_packed(path)
    dataset, version = (dataset_of(packed), None) if packed else _open(path)
    dataset = _plain(dataset)
    try:
        validate_run(dataset)
    except ResultsError as error:
        raise ResultsError(f"{error}{newer_than_this(version)}") from error
    return dataset


def save_dataset(dataset: xr.Dataset, path: str | Path) -> Path:
    """Write any Dataset into a NetCDF file, compressed, whole or not at all; its folder is made if it is not there.

    Raises
    ------
    OSError
        If the file cannot be written; what was there before is untouched.
    """
    path = Path(path)
    numbers = [name for name, v in dataset.variables.items() if v.ndim and v.dtype.kind in "fiu"]
    write_netcdf(path, dataset, {name: {"zlib": True} for name in numbers})
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
    return _open(path)[0]


def _open(path: str | Path) -> tuple[xr.Dataset, str | None]:
    """Read a whole file, and the version that sealed it."""
    try:
        stored = read_netcdf(Path(path))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no results file {path}.") from error
    variables = {name: xr.Variable(*variable) for name, variable in stored.variables.items()}
    try:
        return xr.decode_cf(xr.Dataset(variables, attrs=stored.attrs)).load(), stored.version
    except Exception as error:  # xarray raises all kinds of errors where conventions are broken
        raise ResultsError(f"{path} cannot be read as results: {error}") from error


def validate_run(dataset: xr.Dataset) -> None:
    """Check that a Dataset is the results of one run, as the schema in :mod:`bats_lab.runs.metrics` has them.

    Raises
    ------
    ResultsError
        If a variable or coordinate is missing, unknown, of the wrong dimensions or type, or without units
        and name, or if `config` is not that of the coordinates. The message names the first such thing.
    """
    _validate(dataset.variables, dataset.coords)


def _validate(variables: Mapping[Any, xr.Variable | StoredVariable], coords: Collection[Any]) -> None:
    for name, entry in VARIABLES.items():
        if entry.required and (name not in variables or name in coords):
            raise ResultsError(f"The results lack the variable {name!r}.")
    for given, variable in variables.items():
        _validate_variable(str(given), variable, is_coordinate=given in coords)
    sizes = {dim: n for v in variables.values() for dim, n in zip(v.dims, v.values.shape, strict=True)}
    for dimension in sizes:
        if dimension not in coords:
            raise ResultsError(f"The results lack the coordinate {dimension!r}.")
    for dim in RUN_DIMS:
        if sizes[dim] != 1:
            raise ResultsError(f"{dim!r} has {sizes[dim]} values; the results of one run have one.")
    config = _parameters(variables["config"].values.item())
    epochs, layers = variables["epoch"].values, variables["layer"].values.tolist()
    if not len(epochs) or not np.array_equal(epochs, np.arange(1, len(epochs) + 1)):
        raise ResultsError(f"'epoch' is {epochs.tolist()}; it must be 1, 2, … without gaps.")
    for dim in RUN_DIMS:
        value, expected = variables[dim].values[0].item(), getattr(config, dim)
        if value != expected:
            raise ResultsError(f"{dim!r} is {value!r}, but 'config' says {expected!r}.")
    if layers != list(config.layer_names()):
        raise ResultsError(f"'layer' is {layers}; by 'config' it must be {list(config.layer_names())}.")


def _validate_variable(name: str, variable: xr.Variable | StoredVariable, *, is_coordinate: bool) -> None:
    table, kind = (COORDINATES, "coordinate") if is_coordinate else (VARIABLES, "variable")
    entry = table.get(name)
    if entry is None:
        raise ResultsError(f"{name!r} is no {kind} of a run's results; known are {', '.join(table)}.")
    dims = (name,) if is_coordinate else RUN_DIMS + entry.dims
    if variable.dims != dims:
        raise ResultsError(f"The {kind} {name!r} has the dimensions {variable.dims}; it must have {dims}.")
    dtype = variable.dtype
    if dtype.kind != "U" if entry.dtype == "U" else dtype != np.dtype(entry.dtype):
        raise ResultsError(f"The {kind} {name!r} is of type {dtype}; it must be {_TYPE_NAMES[entry.dtype]}.")
    for attribute in ("units", "long_name"):
        if attribute not in variable.attrs:
            raise ResultsError(f"The {kind} {name!r} has no attribute {attribute!r}.")


def _config_of(dataset: xr.Dataset) -> Config:
    return _parameters(dataset["config"].values.reshape(-1)[0])


def _parameters(text: Any) -> Config:
    try:
        return Config.from_json(text)
    except (ValueError, TypeError, RecursionError) as error:
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


def read_small(path: Path) -> SmallRun:
    """Read the small variables of a run, from the cache where it has them; the run may be packed.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ResultsError
        If the file cannot be read or does not keep to the schema.
    """
    run = read_cache(path)
    if run is not None:
        return run
    if not path.exists() and (run := find_packed(path)):
        return run
    seal = None
    try:
        with open_file(path) as file:
            seal = read_seal(file)
        if seal and seal.appendix:
            run = SmallRun.unpacked(path, seal.appendix)
            if unknown := {*run.texts, *(run.layout.numbers.names or ())} - VARIABLES.keys():
                raise ValueError(f"{min(unknown)!r} is no variable of a run's results")
            run.config  # noqa: B018  # refused here if its parameters are not those of a run
        else:
            variables = _decoded(read_netcdf(path, skip=LARGE))
            _validate(variables, [name for name, variable in variables.items() if name in variable.dims])
            run = _gather(path, variables)
    except (FileNotFoundError, ResultsError):
        raise
    except Exception as error:  # another program's file can break any expectation
        raise ResultsError(f"{error}{newer_than_this(seal and seal.version)}") from error
    write_cache(run)
    return run


def _decoded(stored: Stored) -> dict[str, StoredVariable]:
    """Turn what a file has into what it stands for, but for large variables; :func:`_plain` does so for a Dataset."""
    variables = {}
    for name, (dims, values, attrs) in stored.variables.items():
        fill = attrs.get("_FillValue", np.nan)
        if name not in LARGE and (attrs.keys() - _SIMPLE or not (np.ndim(fill) == 0 and fill != fill)):
            coded = xr.decode_cf(xr.Dataset({name: (dims, values, attrs)})).variables[name].load()
            dims, values, attrs = tuple(map(str, coded.dims)), coded.values, coded.attrs
        elif attrs.get("dtype") == "bool":
            values = values.astype(bool)
        if values.dtype.kind in "OT":
            values = values.astype(str)
        variables[name] = StoredVariable(dims, np.round(values, 9) if name == "delta_t" else values, attrs)
    return variables


def _gather(path: Path, variables: Mapping[Any, xr.Variable | StoredVariable]) -> SmallRun:
    coords = [name for name, variable in variables.items() if name in variable.dims]
    return SmallRun.of(
        path,
        {name: variables[name].values for name in coords if name not in RUN_DIMS},
        {name: v.values[0, 0, 0, 0] for name, v in variables.items() if name not in coords and name not in LARGE},
        tuple(name for name in LARGE if name in variables),
    )


def pack(folder: str | Path) -> tuple[Path, int]:
    """Put the finished runs of a folder into one file, ``study-….nc`` with the folder's name, and remove theirs.

    Runs that keep weights or spikes stay as they are. Runs packed before are taken along; of a run that is there twice
    its file is taken. Nothing is removed before the new file has been read back and found to hold the same.

    Returns
    -------
    path : Path
        The packed study.
    n : int
        Runs in it.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ResultsError
        If it holds no run to pack, or one that cannot be read; then nothing is changed.
    OSError
        If the file cannot be written; then nothing is changed.
    """
    folder = Path(folder)
    files = {run.path.name: run for run in map(read_small, _run_files(folder)) if not run.large}
    before = packed_files(folder)
    runs = {name: run for study in before for name, run in read_packed(study).items()} | files
    if not runs:
        raise ResultsError(f"{folder} holds no finished run without weights and spikes, which could be packed.")
    path = folder / f"study-{folder.resolve().name}.nc"
    draft = path.with_name(f"packing-{path.name}")
    try:
        write_packed(draft, runs)
        again = read_packed(draft)
        if {name: run.packed() for name, run in runs.items()} != {name: run.packed() for name, run in again.items()}:
            raise ResultsError(f"{folder} cannot be packed: the packed runs are not the same.")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    for old in [*(folder / name for name in files), *(study for study in before if study != path)]:
        old.unlink()
    clean_cache(folder)
    return path, len(runs)


def unpack(folder: str | Path) -> int:
    """Write the packed runs of a folder into files of their own again, and remove the packed study; return how many.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ResultsError
        If it holds no packed study, or one that cannot be read.
    OSError
        If a file cannot be written; the packed study stays then.
    """
    folder = Path(folder)
    _run_files(folder)
    studies = packed_files(folder)
    if not studies:
        raise ResultsError(f"{folder} holds no packed study.")
    missing = [run for study in studies for run in read_packed(study).values() if not run.path.exists()]
    for run in missing:
        save_run(dataset_of(run), folder)
    for study in studies:
        study.unlink()
    return len(missing)


def run_names(folder: str | Path) -> list[str]:
    """Return the names of the finished runs of a folder, files and packed ones; what cannot be read has none."""
    names = {path.name for path in Path(folder).glob("run-*.nc")}
    for study in packed_files(Path(folder)):
        with contextlib.suppress(ResultsError, OSError):
            names |= read_packed(study).keys()
    return sorted(names)


def _run_files(folder: Path) -> list[Path]:
    if is_url(folder):
        raise ValueError("Runs are packed and unpacked in a folder of this machine, not at a URL.")
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder of results {folder}.")
    return sorted(folder.glob("run-*.nc"))
