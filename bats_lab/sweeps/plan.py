"""What a sweep would do: its runs and how they are shared out, how long they take, and how much disk."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bats_lab.config import Config
from bats_lab.data.datasets import load_dataset
from bats_lab.data.registry import own_file
from bats_lab.engine import get_backend
from bats_lab.runs.experiment import run_experiment
from bats_lab.runs.files import is_finished, save_run
from bats_lab.runs.limits import check_window, limit_warnings
from bats_lab.runs.store import Store, store_at
from bats_lab.runs.training import group_shape
from bats_lab.sweeps.grid import describe_runs, expand_grid
from bats_lab.sweeps.journal import duration
from bats_lab.sweeps.remote import SWEEP_FILES
from bats_lab.sweeps.training import check_folder

__all__ = ["Estimate", "SweepPlan", "data_key", "estimate", "plan_sweep"]

# Runs that one execution trains side by side, at most: more would not be faster, and all of them fail together.
_GROUP_SIZE = 40

#: Samples of the short trainings from which times are estimated.
_N_TRAIN, _N_TEST = 1000, 500

#: Seconds and bytes a run costs beside its training and its results: the notebook.
_SECONDS, _BYTES = 1.0, 40_000


@dataclass(frozen=True)
class SweepPlan:
    """The runs of a sweep, before it starts."""

    out: Path
    configs: list[Config]
    labels: list[str]  #: what tells each run from the others
    todo: list[Config]  #: those without results
    is_finished: Callable[[Config], bool]
    device: str
    jobs: int
    threads: int
    side_by_side: int
    store: Store | None = None  #: of which `out` is the mirror

    @property
    def url(self) -> str:
        """URL of the results; empty if they are in a folder."""
        return self.store.url if self.store else ""

    def shared_out(self, configs: Sequence[Config]) -> tuple[list[list[int]], int, int]:
        """Return groups of runs, as places in `configs`, how many of them at a time, and the threads of each."""
        groups = _groups(configs, self.side_by_side)
        jobs = min(self.jobs, len(groups))
        return groups, jobs, self.threads or max(1, _cores() // max(1, jobs))


def plan_sweep(
    configs: Sequence[Config] | Mapping[str, Any],
    out: str | Path,
    *,
    jobs: int = 0,
    data_dir: str | Path | None = None,
    device: str = "auto",
    threads: int = 0,
    side_by_side: int = 0,
    show: bool = True,
) -> SweepPlan:
    """Plan a sweep, and check all that can be checked before it starts; nothing is written but data sets.

    Parameters
    ----------
    configs, out, jobs, data_dir, device, threads, side_by_side
        As in :func:`bats_lab.sweeps.sweep.run_sweep`.
    show : bool
        Whether a download shows its progress.

    Raises
    ------
    ValueError, TypeError
        If an argument or a parameter is not allowed.
    DataError, DeviceError
        If a data set or the device cannot be used.
    StoreError
        If `out` is a URL whose store cannot be reached.
    """
    configs = list(expand_grid(configs) if isinstance(configs, Mapping) else configs)
    configs = list({config.identity: config for config in configs}.values())
    if not configs:
        raise ValueError("The sweep has no runs; give at least one configuration.")
    check_folder(out)
    if jobs < 0:
        raise ValueError(f"jobs is {jobs}; it must be 0, for as many as there are cores, or more.")
    if side_by_side < 0:
        raise ValueError(f"side_by_side is {side_by_side}; it must be 0, for the device's own number, or more.")
    backend = get_backend(device)
    on_gpu = backend.name == "cuda"
    with backend.using(threads):
        pass  # so that a number of threads that is not allowed is refused here, and not by every run
    store = store_at(out)
    out = Path(out).resolve() if store is None else store.fetch(*SWEEP_FILES)
    finished = _finished_in(out, configs)
    todo = [config for config in configs if not finished(config)]
    _check_data(todo, data_dir, show=show)
    jobs = jobs or (1 if on_gpu else _cores())
    side_by_side = side_by_side or (_GROUP_SIZE if on_gpu else 1)
    return SweepPlan(out, configs, describe_runs(configs), todo, finished, device, jobs, threads, side_by_side, store)


@dataclass(frozen=True)
class Estimate:
    """What a sweep would cost, about."""

    plan: SweepPlan
    seconds: float | None  #: None on a GPU, where the first group of runs tells
    bytes: int
    free: int  #: bytes that are free where the results go

    def __str__(self) -> str:
        """Tell in a few lines."""
        plan = self.plan
        before = len(plan.configs) - len(plan.todo)
        lines = [f"{len(plan.todo)} runs to do" + (f", {before} finished before" if before else "")]
        unfinished = set(plan.todo)
        lines += [f"  {label}" for config, label in zip(plan.configs, plan.labels, strict=True) if config in unfinished]
        if plan.todo:
            _, jobs, threads = plan.shared_out(plan.todo)
            time = "no estimate on a GPU" if self.seconds is None else f"about {duration(self.seconds)}"
            lines.append(f"time:  {time}, {jobs} at a time with {threads} threads each")
            full = "; MORE THAN THERE IS" if self.bytes > self.free else ""
            lines.append(f"disk:  about {self.bytes / 1e6:.3g} MB of {self.free / 1e9:.3g} GB free{full}")
        return "\n".join([*lines, f"into:  {plan.url or plan.out}"])


def estimate(plan: SweepPlan, *, data_dir: str | Path | None = None) -> Estimate:
    """Estimate what a sweep takes, from a short training of each kind of its networks on this machine.

    Parameters
    ----------
    plan : SweepPlan
    data_dir : str, Path or None
        Where full data sets lie.
    """
    kinds: dict[Any, list[Config]] = {}
    for config in plan.todo:
        kinds.setdefault((group_shape(config), config.keep_weights, config.keep_samples), []).append(config)
    _, jobs, threads = plan.shared_out(plan.todo)
    seconds, size = 0.0, 0
    for configs in kinds.values():
        each, fixed, file = _probe(configs[len(configs) // 2], data_dir, plan.device, threads)
        epochs = sum(config.epochs for config in configs)
        seconds += each * epochs + (fixed + _SECONDS) * len(configs)
        # The weights of each epoch, if they are kept, are as large as those after the last one.
        grown = file // 2 * (epochs - len(configs)) if configs[0].keep_weights == "each" else 0
        size += (file + _BYTES) * len(configs) + grown
    existing = next(folder for folder in (plan.out, *plan.out.parents) if folder.exists())
    on_gpu = get_backend(plan.device).name == "cuda"
    return Estimate(plan, None if on_gpu else seconds / max(1, jobs), size, shutil.disk_usage(existing).free)


def _probe(config: Config, data_dir: str | Path | None, device: str, threads: int) -> tuple[float, float, int]:
    """Train shortly; return the seconds of a whole epoch and of what comes after the last, and the bytes of a file."""
    data = load_dataset(config.dataset, data_dir=data_dir, n_train=config.n_train, n_test=config.n_test)
    n_train, n_test = len(data.x_train), len(data.x_test)
    short = config.replace(n_train=min(_N_TRAIN, n_train), n_test=min(_N_TEST, n_test), epochs=1)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # of classes that have not been learned in so short a time
        run = run_experiment(short, data_dir=data_dir, device=device, threads=threads)
        size = save_run(run, folder).stat().st_size
    train = run["train_seconds"].values.item() * n_train / short.n_train
    test = run["test_seconds"].values.item() * n_test / short.n_test
    return train + test, test, size


def _groups(configs: Sequence[Config], size: int) -> list[list[int]]:
    """Put runs that can be trained side by side together, `size` at most, as places in `configs`."""
    by_shape: dict[Any, list[int]] = {}
    for i, config in enumerate(configs):
        by_shape.setdefault(i if size == 1 else group_shape(config), []).append(i)
    return [group[begin : begin + size] for group in by_shape.values() for begin in range(0, len(group), size)]


def _cores() -> int:
    """Count the cores that runs may use: those of this process, or fewer where ``NUMBA_NUM_THREADS`` says so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = os.environ.get("NUMBA_NUM_THREADS", "")
    return min(cores, int(most)) if most.isdecimal() and int(most) > 0 else cores


def data_key(config: Config) -> tuple[str, int | None, int | None]:
    """Return what data a run takes: the data set's name and how many samples of each split."""
    return config.dataset, config.n_train, config.n_test


def _finished_in(out: Path, configs: Sequence[Config]) -> Callable[[Config], bool]:
    """Return the function that tells whether a run's results are there.

    The user's own data, which may have been replaced since the last sweep, are hashed; named data sets are verified.
    """
    own = {key for key in map(data_key, configs) if own_file(key[0]) and Path(key[0]).is_file()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is doubtful is said of the data of runs that are to do
        hashes = {key: load_dataset(key[0], n_train=key[1], n_test=key[2]).data_hash for key in own}
    return lambda config: is_finished(out, config, data_hash=hashes.get(data_key(config)))


def _check_data(configs: Sequence[Config], data_dir: str | Path | None, *, show: bool) -> None:
    """Load each data set once, so that what is wrong with it, or is to be downloaded, comes before the first run."""
    loaded = {
        key: load_dataset(key[0], data_dir=data_dir, n_train=key[1], n_test=key[2], progress=show)
        for key in dict.fromkeys(map(data_key, configs))
    }
    for config in configs:
        check_window(config, loaded[data_key(config)])
    for message in limit_warnings(configs):
        warnings.warn(message, stacklevel=4)
