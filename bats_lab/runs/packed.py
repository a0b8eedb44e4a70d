"""A packed study: the runs of a folder in one file, ``study-NAME.nc``.

A file of one run is small numbers in 80 kB of NetCDF's own. A packed study has each variable once, over the dimension
`run` before its own; where a run lacks something there is a fill value, and `layout` says which of the `contents` (the
variables and labels that a run has, JSON) is that run's, so that each comes out as it went in, bit for bit. Runs that
keep weights or spikes stay files of their own. A packed run is named as the file it was, in its folder: whoever asks
for that file gets the run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bats_lab.errors import ResultsError
from bats_lab.runs.cache import Layout, SmallRun, layout_of
from bats_lab.runs.joined import Positions, join_labels
from bats_lab.runs.metrics import COORDINATES, RUN_DIMS, VARIABLES, describe
from bats_lab.runs.netcdf import read_netcdf, write_netcdf

__all__ = ["dataset_of", "find_packed", "packed_files", "read_packed", "write_packed"]

_TEXTS = {"dtype": "S1", "zlib": True, "complevel": 9}
_NUMBERS = {"zlib": True, "complevel": 9, "shuffle": True}


#: Packed studies of folders, with when the folder changed. Who asks for many runs asks for each by itself.
_LISTED: dict[Path, tuple[int, list[Path]]] = {}
#: A folder that changed so many nanoseconds ago may change again without its time telling.
_SETTLED = 2_000_000_000


def packed_files(folder: Path) -> list[Path]:
    """Return the packed studies of a folder."""
    try:
        changed = folder.stat().st_mtime_ns
    except OSError:
        return []
    known = _LISTED.get(folder)
    if known is None or known[0] != changed:
        known = changed, sorted(folder.glob("study-*.nc"))
        if time.time_ns() - changed > _SETTLED:
            _LISTED.clear()  # one folder at a time is asked for
            _LISTED[folder] = known
    return list(known[1])


#: What was read from the packed studies that were asked for last, with what changes when a file does.
_READ: dict[Path, tuple[tuple[int, ...], dict[str, SmallRun]]] = {}
_MOST_READ = 16


def read_packed(path: Path) -> Mapping[str, SmallRun]:
    """Return the runs of a packed study by the names of their files.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ResultsError
        If it cannot be read, or is no packed study.
    """
    status = path.stat()
    fingerprint = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    known = _READ.get(path)
    if known is None or known[0] != fingerprint:
        known = fingerprint, _read(path)
        _READ.pop(path, None)
        while len(_READ) >= _MOST_READ:
            _READ.pop(next(iter(_READ)))
        _READ[path] = known
    return known[1]


def find_packed(path: Path) -> SmallRun | None:
    """Return the run that a packed study of a folder holds in place of this file; None where none does."""
    for study in packed_files(path.parent):
        try:
            if run := read_packed(study).get(path.name):
                return run
        except (ResultsError, OSError):  # whoever opens the folder is told
            continue
    return None


def write_packed(path: Path, runs: Mapping[str, SmallRun]) -> None:
    """Write runs, by the names of their files, into a packed study, whole or not at all."""
    names = sorted(runs)
    contents = list(dict.fromkeys(_content_of(runs[name]) for name in names))
    labels = join_labels(layout for layout, _ in contents)
    positions = Positions(labels)
    which = np.array([contents.index(_content_of(runs[name])) for name in names])
    described = {"units": "1", "long_name": "file of the run"}
    variables = {
        "file": xr.Variable("run", np.array(names), described),
        "layout": xr.Variable("run", which, {"units": "1", "long_name": "which of the contents the run has"}),
        "contents": xr.Variable(
            "content", np.array([json.dumps([layout.text, texts]) for layout, texts in contents]),
            {"units": "1", "long_name": "labels, types and shapes of numbers, names of texts, JSON"},
        ),
    }  # fmt: skip
    for dim, own in labels.items():
        variables[dim] = xr.Variable(dim, own, _attrs(dim))
    for dim in RUN_DIMS:
        variables[dim] = xr.Variable("run", np.array([getattr(runs[n].config, dim) for n in names]), _attrs(dim))
    all_runs = [runs[name] for name in names]
    for name, entry in VARIABLES.items():
        stack = _stack_texts if entry.dtype == "U" else _stack_numbers
        shape = (len(names), *(len(labels.get(dim, ())) for dim in entry.dims))
        values = stack(name, shape, all_runs, positions)
        if values is not None:
            variables[name] = xr.Variable(("run", *entry.dims), values, _attrs(name))
    encoding: dict[str, dict[str, Any]] = {}
    for name, variable in variables.items():
        if variable.dtype.kind == "U" and name not in labels:
            encoding[name] = _TEXTS
        elif variable.ndim > 1:
            fill = variable.values.dtype.type(_fill(variable.dtype)[0])
            encoding[name] = {**_NUMBERS, "_FillValue": fill}
    write_netcdf(path, xr.Dataset(variables), encoding)


def _stack_texts(
    name: str, shape: tuple[int, ...], runs: Sequence[SmallRun], positions: Positions
) -> np.ndarray | None:
    out = np.full(shape, "", object)
    holders = [i for i, run in enumerate(runs) if name in run.texts]
    for i in holders:
        places: Any = (i, *np.ix_(*positions.of(runs[i].layout, VARIABLES[name].dims)))
        out[places] = runs[i].texts[name]
    return out.astype(str) if holders else None


def _stack_numbers(
    name: str, shape: tuple[int, ...], runs: Sequence[SmallRun], positions: Positions
) -> np.ndarray | None:
    out = None
    for layout in dict.fromkeys(run.layout for run in runs if name in (run.layout.numbers.names or ())):
        if out is None:
            out = np.full(shape, *_fill(layout.numbers[name].base))
        rows = np.array([i for i, run in enumerate(runs) if run.layout is layout])
        numbers = np.frombuffer(b"".join(runs[i].numbers for i in rows), layout.numbers)
        out[np.ix_(rows, *positions.of(layout, VARIABLES[name].dims))] = numbers[name]
    return out


def _content_of(run: SmallRun) -> tuple[Layout, tuple[str, ...]]:
    return run.layout, tuple(run.texts)


def _attrs(name: str) -> dict[str, str]:
    entry = COORDINATES.get(name) or VARIABLES[name]
    return {"units": entry.units, "long_name": entry.long_name}


def _fill(dtype: np.dtype[Any]) -> tuple[Any, np.dtype[Any]]:
    """Return what stands where a run lacks a number, and the type of file that can hold it."""
    if dtype.kind == "f":
        return np.nan, dtype
    whole = np.dtype(np.int8) if dtype.kind == "b" else dtype
    return np.iinfo(whole).min, whole


def _read(path: Path) -> dict[str, SmallRun]:
    stored = read_netcdf(path)
    try:
        values = {name: variable.values for name, variable in stored.variables.items()}
        contents = [(layout_of(layout), texts) for layout, texts in map(json.loads, values["contents"].tolist())]
        positions = Positions({dim: values[dim] for layout, _ in contents for dim in layout.coords})
        names, which = values["file"].tolist(), values["layout"]
        runs: dict[str, SmallRun] = {}
        for i, (layout, texts) in enumerate(contents):
            rows = np.flatnonzero(which == i)
            numbers = np.zeros(len(rows), layout.numbers)
            for name in layout.numbers.names or ():
                numbers[name] = values[name][np.ix_(rows, *positions.of(layout, VARIABLES[name].dims))]
            for row, record in zip(rows.tolist(), numbers, strict=True):
                own = {}
                for name in texts:
                    places: Any = (row, *np.ix_(*positions.of(layout, VARIABLES[name].dims)))
                    own[name] = values[name][places].tolist()
                run = SmallRun(path.with_name(names[row]), layout, own, record.tobytes(), ())
                run.config  # noqa: B018  # refused here if its parameters are not those of a run
                runs[names[row]] = run
        return {name: runs[name] for name in sorted(runs)}
    except Exception as error:  # another program's file can break any expectation
        raise ResultsError(f"{path} cannot be read as results: it is no packed study ({error})") from error


def dataset_of(run: SmallRun) -> xr.Dataset:
    """Return a run that has neither weights nor spikes as its file gave it."""
    record = np.frombuffer(run.numbers, run.layout.numbers)[0]
    values = {name: np.asarray(record[name]) for name in run.layout.numbers.names or ()}
    values |= {name: np.array(text, str) for name, text in run.texts.items()}
    return describe(
        {name: values[name] for name in VARIABLES if name in values},
        {**{dim: [getattr(run.config, dim)] for dim in RUN_DIMS}, **run.layout.coords},
    )
