"""A run repeated from its results file: whether the numbers agree, by how much, and what differs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bats_lab.config import Config
from bats_lab.errors import DivergedError
from bats_lab.runs.experiment import config_of, run_experiment
from bats_lab.runs.files import open_run
from bats_lab.runs.records import EpochRecord

__all__ = ["compare", "rerun"]

#: Where and when a run was made: what is told of it is what differs.
_ORIGIN = {
    "version": "version of bats_lab",
    "git_commit": "commit",
    "backend": "engine",
    "device": "processor",
    "data_hash": "SHA-256 of the data",
}
_NO_NUMBERS = {*_ORIGIN, "started", "environment", "config", "train_seconds", "test_seconds"}


def rerun(
    path: str | Path, *, on_epoch: Callable[[EpochRecord, Config], None] | None = None, **options: Any
) -> tuple[bool, list[str]]:
    """Repeat the run of a results file and compare what it gives now with what the file holds; nothing is written.

    Parameters
    ----------
    path : str or Path
        File of one run, or its URL, also of one that broke off.
    on_epoch : callable or None
        Called after each epoch with its record and the parameters of the run.
    **options
        Of :func:`bats_lab.run_experiment`: `data_dir`, `device`, `threads`.

    Returns
    -------
    same : bool
        Whether all numbers agree bit for bit.
    lines : list of str
        What agrees, what does not and by how much, and in what the circumstances differ.

    Raises
    ------
    FileNotFoundError, ResultsError
        If there is no such file, or it is none of a run.
    DataError, DeviceError
        If the data set cannot be read, or the device cannot be used.
    """
    then = open_run(path)
    config = config_of(then)
    try:
        now = run_experiment(config, on_epoch=on_epoch and (lambda record: on_epoch(record, config)), **options)
    except DivergedError as error:
        if error.dataset is None:
            raise
        now = error.dataset
    return compare(then, now)


def compare(then: xr.Dataset, now: xr.Dataset) -> tuple[bool, list[str]]:
    """Compare the results of one run with those of its repetition, as :func:`rerun` returns it.

    Times that were measured are left out, and so is what only one of the two holds, which is named.
    """
    measured = [str(name) for name in then.data_vars if name not in _NO_NUMBERS]
    both = [name for name in measured if name in now]
    lines = []
    for name in both:
        if (difference := _difference(then[name].values, now[name].values)) is not None:
            lines.append(f"{name}: {difference}")
    agree = len(both) - len(lines)
    lines.insert(0, f"{agree} of {len(both)} variables agree bit for bit.")
    absent = [name for name in measured if name not in now]
    lines += [f"not measured now: {', '.join(absent)}"] if absent else []
    return agree == len(both) and not absent, lines + _circumstances(then, now)


def _difference(then: np.ndarray, now: np.ndarray) -> str | None:
    """Say by how much two arrays differ; None if they do not."""
    if then.shape != now.shape:
        return f"of shape {then.shape} then, {now.shape} now"
    if np.array_equal(then, now, equal_nan=then.dtype.kind == "f"):
        return None
    if then.dtype.kind not in "fi":
        return f"{int((then != now).sum())} of {then.size} values differ"
    known = np.isfinite(then) & np.isfinite(now)
    same = (then == now) | (np.isnan(then) & np.isnan(now)) if then.dtype.kind == "f" else then == now
    apart = np.abs(np.subtract(then, now, dtype=float))[known]
    scale = np.abs(then[known]).max(initial=0)
    share = f", {apart.max(initial=0) / scale:.2g} of the largest" if scale else ""
    return f"{int((~same).sum())} of {then.size} values differ, by up to {apart.max(initial=0):.3g}{share}"


def _circumstances(then: xr.Dataset, now: xr.Dataset) -> list[str]:
    """Say in what a run and its repetition differ but for their numbers."""
    pairs = [(text, str(then[name].item()), str(now[name].item())) for name, text in _ORIGIN.items()]
    known = [json.loads(run["environment"].item()) if "environment" in run else {} for run in (then, now)]
    pairs += [(name, str(known[0][name]), str(known[1][name])) for name in known[0] if name in known[1]]
    differing = [f"{name}: {a or 'unknown'} then, {b or 'unknown'} now" for name, a, b in pairs if a != b]
    if not known[0]:
        differing.append("threads and libraries: not kept then")
    return [f"differs: {text}" for text in differing] or ["Version, processor, threads and libraries are the same."]
