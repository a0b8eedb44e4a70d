"""What the training notebook calls: runs trained for a results folder, and what a sweep is told of them meanwhile."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bats_lab.config import Config, parameters
from bats_lab.data.datasets import keep_dataset
from bats_lab.engine.forked import load_kernels
from bats_lab.errors import DivergedError, StoppedError
from bats_lab.runs.experiment import run_experiments
from bats_lab.runs.files import run_path, save_run
from bats_lab.runs.records import EpochRecord
from bats_lab.runs.store import is_url, results_at
from bats_lab.runs.thresholds import no_output_warning
from bats_lab.sweeps.execute import STATUS, assigned_names, stop_file

__all__ = [
    "check_folder",
    "checkpoint_path",
    "describe_epoch",
    "notebook_config",
    "prepare_runs",
    "save_into",
    "train_group_into",
    "train_into",
]

#: How the cell begins that Papermill puts behind a notebook's own parameters.
_INJECTED = "# Parameters\n"


def notebook_config(names: Mapping[str, Any]) -> Config:
    """Build the configuration of a run from a notebook's names.

    Papermill sets a misspelt parameter as it sets any other, and leaves the right one at its default.

    Parameters
    ----------
    names : mapping
        The notebook's ``globals()``.

    Raises
    ------
    ValueError
        If a value is not allowed, or Papermill has set a name that is no parameter of the notebook.
    TypeError
        If a value is of the wrong type.
    """
    cells = list(names.get("In", []))  # the source of all cells executed so far
    injected = next((i for i, source in enumerate(cells) if source.startswith(_INJECTED)), None)
    if injected is not None:
        declared = set().union(*map(assigned_names, cells[:injected]))
        for name in sorted(assigned_names(cells[injected]) - declared):
            near = difflib.get_close_matches(name, declared, n=1)
            hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(sorted(declared))}."
            raise ValueError(f"{name!r} is no parameter of this notebook; {hint}")
    return Config.from_dict({p.name: names[p.name] for p in parameters()})


def prepare_runs(kernels: str, datasets: Sequence[Sequence[Any]], data_dir: str | None) -> None:
    """Load what runs need, once for all that are trained in processes forked from this one.

    Parameters
    ----------
    kernels : str
        List of compiled kernels, from :func:`bats_lab.engine.forked.list_kernels`.
    datasets : sequence of (name, n_train, n_test)
        The runs' data sets, which have to be there.
    data_dir : str or None
        Where full data sets lie.
    """
    for slow in ("netCDF4", "pandas.io.formats.html", "bats_lab.engine.cpu.networks"):
        importlib.import_module(slow)
    load_kernels(kernels)
    for name, n_train, n_test in datasets:
        keep_dataset(name, data_dir=data_dir, n_train=n_train, n_test=n_test)


def check_folder(out: str | Path) -> None:
    """Raise ValueError if a folder of results is a file."""
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out is {str(folder)!r}, a file; it must be a folder, which is made if it is not there.")


def checkpoint_path(folder: str | Path, config: Config) -> Path:
    """Return the file in which a run keeps its state after each epoch."""
    return Path(folder) / "checkpoints" / f"{run_path(folder, config).stem}.npz"


def train_into(
    config: Config, folder: str | Path, *, on_epoch: Callable[[EpochRecord], None] | None = None, **options: Any
) -> xr.Dataset:
    """Train one run and return its results; all else as in :func:`train_group_into`."""
    tell = None if on_epoch is None else lambda _, record: on_epoch(record)
    return train_group_into([config], folder, on_epoch=tell, **options)[0]


def train_group_into(
    configs: Sequence[Config],
    folder: str | Path,
    *,
    checkpoint: bool = False,
    on_epoch: Callable[[int, EpochRecord], None] | None = None,
    on_failure: Callable[[int, DivergedError], None] | None = None,
    **options: Any,
) -> dict[int, xr.Dataset]:
    """Train runs side by side for a results folder: ``run_experiments``, and what is left if it breaks off.

    A sweep names a file in the environment; each epoch and each failure is then appended to it as a line of JSON.

    Parameters
    ----------
    configs : sequence of Config
        Parameters of the runs.
    folder : str or Path
        Folder of the sweep, or its URL.
    checkpoint : bool
        Whether to keep the state after each epoch, and to go on from it, in :func:`checkpoint_path`.
    on_epoch, data_dir, device, threads, on_batch, on_data
        As in :func:`bats_lab.runs.experiment.run_experiments`.
    on_failure : callable or None
        Called with a run's place in `configs` and the error, if its training diverged.

    Returns
    -------
    dict of int to xarray.Dataset
        The results of each run that did not diverge, by its place in `configs`; for :func:`save_into`.

    Raises
    ------
    ValueError
        If `folder` is a file; nothing has been computed then.
    DivergedError
        If all of them diverged: the first one's. What a run measured before has been saved as ``partial-….nc``.
    """
    if is_url(folder):
        with results_at(folder, *_kept_of(configs)) as mirror:
            return train_group_into(
                configs, mirror, checkpoint=checkpoint, on_epoch=on_epoch, on_failure=on_failure, **options
            )
    check_folder(folder)
    states = [checkpoint_path(folder, config) if checkpoint else None for config in configs]

    def after_epoch(i: int, record: EpochRecord) -> None:
        if silent := no_output_warning(record, configs[i]):
            _tell("warning", i, silent)
        told: dict[str, Any] = {"epoch": record.epoch}
        if (held_out := record.validation) is not None:
            told |= {"accuracy": held_out.accuracy, "decision_time": held_out.decision_time}
            told["spikes"] = float(np.sum(held_out.spike_count))
        _tell("epoch", i, describe_epoch(record, configs[i]), **told)
        if on_epoch:
            on_epoch(i, record)
        if record.epoch < configs[i].epochs and STATUS in os.environ and stop_file(os.environ[STATUS]).exists():
            raise StoppedError(record.epoch)

    finished, errors = {}, []
    for i, run in enumerate(run_experiments(configs, checkpoints=states, on_epoch=after_epoch, **options)):
        if not isinstance(run, DivergedError):
            finished[i] = run
            continue
        errors.append(run)
        if run.dataset is not None:
            save_run(run.dataset, folder)
        if isinstance(run, StoppedError):
            _remove_state(configs[i], folder)
        _tell("failed", i, f"{type(run).__name__}: {run}")
        if on_failure:
            on_failure(i, run)
    if not finished:
        raise errors[0]
    return finished


def _tell(event: str, run: int, text: str, **more: float) -> None:
    """Append a line of JSON to the file that the sweep reads, if there is a sweep."""
    if path := os.environ.get(STATUS):
        # A folder that is full, or gone for a while, is no reason to break off.
        with contextlib.suppress(OSError), open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, "run": run, "text": text} | more) + "\n")


def save_into(dataset: xr.Dataset, config: Config, folder: str | Path) -> Path:
    """Save the results of a run and remove its checkpoint; return the results' file."""
    if is_url(folder):
        with results_at(folder, *_kept_of([config])) as mirror:
            return save_into(dataset, config, mirror)
    path = save_run(dataset, folder)
    _remove_state(config, folder)
    return path


def _kept_of(configs: Sequence[Config]) -> list[str]:
    """Return the names of what a store may hold of runs."""
    return [path.as_posix() for c in configs for path in (run_path("", c), checkpoint_path("", c))]


def _remove_state(config: Config, folder: str | Path) -> None:
    """Remove the checkpoint of a run that is over."""
    state = checkpoint_path(folder, config)
    # A process killed while it wrote its state leaves the part it had written.
    for file in [state, *state.parent.glob(f".{state.name}.*.part")]:
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # other runs' checkpoints are there, or none ever was
        state.parent.rmdir()


def describe_epoch(record: EpochRecord, config: Config) -> str:
    """Tell in one line how an epoch went."""
    *hidden, output = record.test.spike_count
    seconds = record.train_seconds + record.test_seconds
    return (
        f"epoch {record.epoch}/{config.epochs}: test accuracy {record.test.accuracy:.2%}, {sum(hidden):.0f} hidden and "
        f"{output:.1f} output spikes a sample, {seconds:.1f} s"
    )
