"""A grid of parameters, executed run by run: Papermill in parallel processes, with a report at the end.

Each run executes the notebook ``10_train`` and leaves two files in the sweep's folder: its results, and the executed
notebook in ``notebooks/``. A run is finished when its results are; a sweep started again does the others.

On a GPU runs that differ in no shape are trained side by side: one execution serves a group of them, and each of them
leaves its own results. If an execution fails, the runs without results are taken up again, in groups half as large.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr
from tqdm import tqdm

from bats_lab.config import Config, parameters
from bats_lab.data.datasets import load_dataset
from bats_lab.engine import get_backend
from bats_lab.errors import BatsLabError, DivergedError
from bats_lab.runs.experiment import run_experiment, run_experiments
from bats_lab.runs.results import is_finished, run_path, save_run
from bats_lab.runs.training import EpochRecord, group_shape, reachable_target_warning
from bats_lab.sweeps.execute import Call, Pool

__all__ = [
    "Progress",
    "RunOutcome",
    "SweepReport",
    "checkpoint_path",
    "describe_epoch",
    "expand_grid",
    "make_report",
    "notebook_path",
    "prepare_notebooks",
    "run_sweep",
    "save_into",
    "train_group_into",
    "train_into",
]

# Runs that one execution trains side by side, at most: more would not be faster, and all of them fail together.
_GROUP_SIZE = 40
# How a notebook says what becomes of the runs of its group: the place in it, then an epoch or the reason of a failure.
_EPOCH_LINE = re.compile(r"(?:run (\d+): )?(epoch .*)")
_FAILURE_LINE = re.compile(r"run (\d+) failed: (.*)")


# ------------------------------------------------------------------------------------------------------------ the grid


def expand_grid(values: Mapping[str, Any], *, seeds: int | Sequence[int] | None = None) -> list[Config]:
    """Build the configurations of a sweep: every combination of the values given.

    Parameters
    ----------
    values : mapping
        For each parameter of :class:`Config` its value, or a list of values. A parameter that is itself a list, as
        `hidden`, is swept by a list of lists.
    seeds : int or list of int, optional
        Seeds, or their number: 3 stands for 0, 1, 2.

    Returns
    -------
    list of Config
        Without repetitions. The seed varies slowest, so that a sweep that is stopped has seen all values.

    Raises
    ------
    ValueError, TypeError
        If a name is no parameter, or any combination is not allowed; nothing has been started then.

    Examples
    --------
    >>> grid = expand_grid({"delta_t": [0, 0.004], "hidden": [[100], [50, 50]], "threshold_hidden": 0.2}, seeds=2)
    Traceback (most recent call last):
        ...
    ValueError: threshold_hidden is [0.2]; it must have one entry for each of the 2 hidden layers in hidden=[50, 50].
    >>> [(c.seed, c.delta_t) for c in expand_grid({"delta_t": [0, 0.004]}, seeds=2)]
    [(0, 0.0), (0, 0.004), (1, 0.0), (1, 0.004)]
    """
    values = dict(values)
    if seeds is not None:
        if "seed" in values:
            raise ValueError("seed and seeds are both given; give the one or the other.")
        values["seed"] = _seed_list(seeds)
    Config.from_dict({name: _axis(name, given)[0] for name, given in values.items()})  # names first, then values
    order = sorted(values, key=lambda name: name != "seed")
    axes = [_axis(name, values[name]) for name in order]
    configs = [Config.from_dict(dict(zip(order, point, strict=True))) for point in itertools.product(*axes)]
    return list({config.identity: config for config in configs}.values())


def _axis(name: str, given: Any) -> list[Any]:
    """List the values of one parameter."""
    if hasattr(given, "tolist"):
        given = given.tolist()
    if not isinstance(given, (list, tuple, range)):
        return [given]
    is_tuple = any(p.name == name and p.type is tuple for p in parameters())
    if is_tuple and not any(isinstance(value, (list, tuple)) or value is None for value in given):
        return [list(given)]
    if not given:
        raise ValueError(f"{name} has no values; give at least one.")
    return list(given)


def _seed_list(seeds: int | Sequence[int]) -> list[int]:
    if isinstance(seeds, int):
        if isinstance(seeds, bool) or seeds < 1:
            raise ValueError(f"seeds is {seeds!r}; it must be a number of seeds, at least 1, or a list of seeds.")
        return list(range(seeds))
    return list(seeds)


def _describe_runs(configs: Sequence[Config]) -> list[str]:
    """Name each run by the parameters in which the runs differ; by what it keeps only if nothing else does."""
    differ = [p for p in parameters() if len({getattr(c, p.name) for c in configs}) > 1]

    def named(names: Sequence[str]) -> list[str]:
        return [", ".join(f"{name} {_plain(getattr(config, name))}" for name in names) for config in configs]

    labels = named([p.name for p in differ if p.measured])
    if len(set(labels)) < len(configs):
        labels = named([p.name for p in differ])
    return labels if differ else named(["dataset", "delta_t"])


def _plain(value: Any) -> str:
    return "-".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)


# ----------------------------------------------------------------------------- what the training notebook is made of


def notebook_path(name: str) -> Path:
    """Return the path of one of the project's notebooks, in a checkout or in the installed package.

    Parameters
    ----------
    name : str
        Its name, with or without ``.ipynb``.

    Raises
    ------
    FileNotFoundError
        If there is no such notebook.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "notebooks", package.parent / "notebooks"):
        path = folder / f"{name.removesuffix('.ipynb')}.ipynb"
        if path.is_file():
            return path
    raise FileNotFoundError(f"There is no notebook {name!r} in {package.parent / 'notebooks'} or inside the package.")


def _source(notebook: str | Path | None, name: str) -> Path:
    """Find the notebook given, or else the project's own."""
    if notebook is None:
        return notebook_path(name)
    if not Path(notebook).is_file():
        raise FileNotFoundError(f"There is no notebook {str(notebook)!r}.")
    return Path(notebook).resolve()


def prepare_notebooks(folder: str | Path | None = None) -> Path:
    """Return a folder in which the notebooks lie, in ``notebooks/``, and can be changed.

    Parameters
    ----------
    folder : str, Path or None
        Where to copy them. None: a checkout is used as it is; from an installed package they are copied to
        ``bats-lab`` in the user's home. Notebooks that are there already are left as they are.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    source = notebook_path("10_train").parent
    package = Path(__file__).resolve().parent.parent
    if folder is None and source.parent == package.parent and os.access(source, os.W_OK):
        return source.parent
    root = (Path("~/bats-lab") if folder is None else Path(folder)).expanduser().resolve()
    (root / "notebooks").mkdir(parents=True, exist_ok=True)
    for notebook in source.glob("*.ipynb"):
        target = root / "notebooks" / notebook.name
        if not target.exists():
            target.write_bytes(notebook.read_bytes())
    return root


def checkpoint_path(folder: str | Path, config: Config) -> Path:
    """Return the file in which a run keeps its state after each epoch."""
    return Path(folder) / "checkpoints" / f"{run_path(folder, config).stem}.npz"


def train_into(
    config: Config,
    folder: str | Path,
    *,
    data_dir: str | Path | None = None,
    device: str = "auto",
    threads: int = 0,
    checkpoint: bool = False,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Train one configuration for a results folder: :func:`bats_lab.run_experiment`, and what is left if it breaks off.

    Parameters
    ----------
    config : Config
        Parameters of the run.
    folder : str or Path
        Folder of the sweep.
    data_dir, device, threads, on_epoch, on_batch
        As in :func:`bats_lab.run_experiment`.
    checkpoint : bool
        Whether to keep the state after each epoch, and to go on from it, in :func:`checkpoint_path`.

    Returns
    -------
    xarray.Dataset
        The results, for :func:`save_into`.

    Raises
    ------
    ValueError
        If `folder` is a file; nothing has been computed then.
    DivergedError
        If training diverged; what was measured before has been saved as ``partial-….nc``.
    """
    _check_folder(Path(folder))
    state = checkpoint_path(folder, config) if checkpoint else None
    if state is not None:
        state.parent.mkdir(parents=True, exist_ok=True)
    try:
        return run_experiment(
            config,
            data_dir=data_dir,
            device=device,
            threads=threads,
            checkpoint=state,
            on_epoch=on_epoch,
            on_batch=on_batch,
        )
    except DivergedError as error:
        if error.dataset is not None:
            save_run(error.dataset, folder)
        raise


def train_group_into(
    configs: Sequence[Config],
    folder: str | Path,
    *,
    data_dir: str | Path | None = None,
    device: str = "auto",
    threads: int = 0,
    checkpoint: bool = False,
    on_epoch: Callable[[int, EpochRecord], None] | None = None,
    on_failure: Callable[[int, DivergedError], None] | None = None,
) -> dict[int, xr.Dataset]:
    """Do as :func:`train_into` for runs that are trained side by side (`experiment.run_experiments`).

    Parameters
    ----------
    configs : sequence of Config
        Parameters of the runs.
    folder, data_dir, device, threads, checkpoint
        As in :func:`train_into`.
    on_epoch : callable or None
        Called with a run's place in `configs` and each of its epochs' record.
    on_failure : callable or None
        Called with a run's place and the error, if its training diverged.

    Returns
    -------
    dict of int to xarray.Dataset
        The results of each run that did not diverge, by its place in `configs`; for :func:`save_into`.

    Raises
    ------
    DivergedError
        If all of them diverged: the first one's.
    """
    states = [checkpoint_path(folder, config) if checkpoint else None for config in configs]
    for state in states:
        if state is not None:
            state.parent.mkdir(parents=True, exist_ok=True)
    runs = run_experiments(
        configs, data_dir=data_dir, device=device, threads=threads, checkpoints=states, on_epoch=on_epoch
    )
    finished, errors = {}, []
    for i, run in enumerate(runs):
        if isinstance(run, DivergedError):
            errors.append(run)
            if run.dataset is not None:
                save_run(run.dataset, folder)
            if on_failure:
                on_failure(i, run)
        else:
            finished[i] = run
    if not finished:
        raise errors[0]
    return finished


def save_into(dataset: xr.Dataset, config: Config, folder: str | Path) -> Path:
    """Save the results of a run and remove its checkpoint; return the results' file."""
    path = save_run(dataset, folder)
    state = checkpoint_path(folder, config)
    # A process killed while it wrote its state leaves the part it had written.
    for file in [state, *state.parent.glob(f".{state.name}.*.part")]:
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # other runs' checkpoints are there, or none ever was
        state.parent.rmdir()
    return path


def describe_epoch(record: EpochRecord, config: Config) -> str:
    """Tell in one line how an epoch went."""
    *hidden, output = record.test.spike_count
    seconds = record.train_seconds + record.test_seconds
    return (
        f"epoch {record.epoch}/{config.epochs}: test accuracy {record.test.accuracy:.2%}, {sum(hidden):.0f} hidden and "
        f"{output:.1f} output spikes a sample, {seconds:.1f} s"
    )


# ------------------------------------------------------------------------------------------------------- progress


@dataclass(frozen=True)
class RunOutcome:
    """How one run of a sweep ended.

    Attributes
    ----------
    config : Config
    label : str
        The parameters in which it differs from other runs.
    status : str
        ``finished``, ``failed``, or ``skipped`` if it was finished before.
    reason : str
        Why it failed, in one line.
    notebook : Path or None
        The executed notebook.
    seconds : float
        How long it took.
    """

    config: Config
    label: str
    status: str
    reason: str = ""
    notebook: Path | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class SweepReport:
    """How a sweep ended: its folder and the outcome of each run, in the order of the configurations."""

    out: Path
    outcomes: list[RunOutcome]
    seconds: float

    def _with(self, status: str) -> list[RunOutcome]:
        return [outcome for outcome in self.outcomes if outcome.status == status]

    @property
    def finished(self) -> list[RunOutcome]:
        """Runs that were done now."""
        return self._with("finished")

    @property
    def skipped(self) -> list[RunOutcome]:
        """Runs that were finished before."""
        return self._with("skipped")

    @property
    def failed(self) -> list[RunOutcome]:
        """Runs without results."""
        return self._with("failed")


@dataclass
class Progress:
    """Where a sweep stands; passed on whenever something changed, and once a second.

    Attributes
    ----------
    total, skipped, finished, failed : int
        Numbers of runs.
    running : dict of str to str
        For each run at work its label, and what it printed about its last epoch (:func:`describe_epoch`).
    seconds_left : float or None
        Estimate from the runs that are finished; None before the first.
    stage : str
        ``compiling`` before the first run, ``training``, or ``over``.
    last : RunOutcome or None
        The run that has just ended.
    last_line : str
        What it printed about its last epoch.
    """

    total: int
    skipped: int = 0
    finished: int = 0
    failed: int = 0
    running: dict[str, str] = field(default_factory=dict)
    seconds_left: float | None = None
    stage: str = "compiling"
    last: RunOutcome | None = None
    last_line: str = ""

    @property
    def done(self) -> int:
        """Runs that are over, one way or another."""
        return self.skipped + self.finished + self.failed


def _minutes(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class _Bar:
    """Shows a sweep's progress as one bar that redraws itself."""

    def __init__(self, total: int) -> None:
        form = "{n_fmt}/{total_fmt} |{bar:20}| {desc}"
        self._bar = tqdm(total=total, bar_format=form, file=sys.stderr, dynamic_ncols=True)

    def __call__(self, progress: Progress) -> None:
        if progress.last is not None and progress.last.status == "failed":
            self._bar.write(f"failed: {progress.last.label}: {progress.last.reason}", file=sys.stderr)
        epochs = dict.fromkeys(found[0] for line in progress.running.values() if (found := re.search(r"\d+/\d+", line)))
        parts = ["done" + (f" ({progress.skipped} before)" if progress.skipped else "")]
        if progress.stage == "compiling":
            parts.append("compiling (once) …")
        if progress.running:
            parts.append(f"{len(progress.running)} running" + (f" (epoch {', '.join(epochs)})" if epochs else ""))
        parts.append(f"{progress.failed} failed")
        if progress.stage == "training" and progress.seconds_left is not None:
            parts.append(f"{_minutes(progress.seconds_left)} left")
        self._bar.n = progress.done
        self._bar.set_description_str(" · ".join(parts))
        if progress.stage == "over":
            self._bar.close()


class _Lines:
    """Shows a sweep's progress as a line for each run that is over, for logs."""

    def __init__(self, total: int) -> None:
        self._width = len(str(total))
        self._stage = ""

    def __call__(self, progress: Progress) -> None:
        if progress.stage == "compiling" and self._stage != "compiling":
            sys.stderr.write("compiling (once) …\n")
        self._stage = progress.stage
        if progress.last is not None:
            failed = progress.last.status == "failed"
            left = f", {_minutes(progress.seconds_left)} left" if progress.seconds_left else ""
            sys.stderr.write(
                f"[{progress.done:{self._width}}/{progress.total}] {progress.last.label}: "
                f"{'failed: ' + progress.last.reason if failed else progress.last_line} "
                f"({progress.last.seconds:.1f} s{left})\n"
            )
        sys.stderr.flush()


# ------------------------------------------------------------------------------------------------------- the sweep


def run_sweep(
    configs: Sequence[Config] | Mapping[str, Any],
    out: str | Path,
    *,
    jobs: int = 0,
    data_dir: str | Path | None = None,
    device: str = "auto",
    threads: int = 0,
    checkpoint: bool = False,
    timeout: float | None = None,
    side_by_side: int = 0,
    notebook: str | Path | None = None,
    progress: bool | str | Callable[[Progress], None] = True,
) -> SweepReport:
    """Execute the training notebook for every configuration, in parallel processes.

    Runs whose results are in `out` already are skipped. A run that fails leaves its notebook as
    ``notebooks/….failed.ipynb`` and does not stop the others. On Ctrl-C running kernels are ended and what they had
    begun is removed; the same call goes on from there.

    Parameters
    ----------
    configs : list of Config, or mapping
        The runs; or a grid for :func:`expand_grid`.
    out : str or Path
        Folder of results.
    jobs : int
        Runs at a time; 0: one a core. On a GPU groups of runs at a time; 0: one.
    data_dir : str, Path or None
        Where full data sets lie; they are downloaded before the first run if they are missing.
    device : str
        Device of each run.
    threads : int
        Threads of each run; 0: the cores divided by `jobs`.
    checkpoint : bool
        Whether runs keep their state after each epoch, so that a run that was cut short goes on.
    timeout : float, optional
        Seconds after which a run is ended as failed; a group of runs has as many times that.
    side_by_side : int
        Runs that one execution trains side by side, where nothing in their shapes forbids it; 0: 40 on a GPU, else 1.
    notebook : str, Path or None
        Another notebook in place of ``10_train``, with the same parameters.
    progress : bool, "lines" or callable
        True: a bar in a terminal, lines elsewhere; "lines": a line for each run that is over; False: nothing; or a
        function that is called with a :class:`Progress`.

    Returns
    -------
    SweepReport

    Raises
    ------
    ValueError, TypeError
        If an argument or a parameter is not allowed; nothing has been started or written then.
    DataError, DeviceError
        If a data set or the device cannot be used.
    FileNotFoundError
        If there is no such notebook.
    BatsLabError
        If another sweep is at work in `out`.
    """
    began = time.monotonic()
    configs = list(expand_grid(configs) if isinstance(configs, Mapping) else configs)
    configs = list({config.identity: config for config in configs}.values())
    out = Path(out).resolve()
    cores = _cores()
    _check_arguments(configs, out, jobs=jobs, side_by_side=side_by_side, timeout=timeout)
    source = _source(notebook, "10_train")
    backend = get_backend(device)
    on_gpu = backend.NAME == "cuda"
    with backend.using(threads):
        pass  # so that a number of threads that is not allowed is refused here, and not by every run
    labels = _describe_runs(configs)
    outcomes: dict[str, RunOutcome] = {}
    hashes = _hashes_of_own_images(configs)

    def finished(config: Config) -> bool:
        return is_finished(out, config, data_hash=hashes.get(_data_key(config)))

    todo = [c for c in configs if not finished(c)]
    _check_data(todo, data_dir, show=progress is not False)

    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        todo = [c for c in todo if not finished(c)]
        for stale in (out / "notebooks").glob("*.running.ipynb"):
            stale.unlink()
        unfinished = {c.identity for c in todo}
        for config, label in zip(configs, labels, strict=True):
            if config.identity not in unfinished:
                done_before = out / "notebooks" / f"{run_path(out, config).stem}.ipynb"
                there = done_before if done_before.exists() else None
                outcomes[config.identity] = RunOutcome(config, label, "skipped", notebook=there)
        state = Progress(total=len(configs), skipped=len(outcomes))
        show = _display(progress, len(configs))
        by_identity = {c.identity: label for c, label in zip(configs, labels, strict=True)}
        groups = _groups(todo, side_by_side or (_GROUP_SIZE if on_gpu else 1))
        jobs = min(jobs or (1 if on_gpu else cores), len(groups))
        options = {
            "results_dir": str(out),
            "data_dir": None if data_dir is None else str(Path(data_dir).resolve()),
            "device": device,
            "threads": threads or max(1, cores // max(1, jobs)),
            "checkpoint": checkpoint,
        }
        execution = _Execution(todo, [by_identity[c.identity] for c in todo], out, finished, state, show)
        try:
            for outcome in execution.run(groups, source, options, jobs=jobs, timeout=timeout):
                outcomes[outcome.config.identity] = outcome
        finally:
            state.stage = "over"
            show(state)
    return SweepReport(out, [outcomes[c.identity] for c in configs], time.monotonic() - began)


def _groups(configs: Sequence[Config], size: int) -> list[list[int]]:
    """Put runs that can be trained side by side together, `size` at most, as places in `configs`."""
    if size == 1:  # in their own order
        return [[i] for i in range(len(configs))]
    by_shape: dict[Any, list[int]] = {}
    for i, config in enumerate(configs):
        by_shape.setdefault(group_shape(config), []).append(i)
    return [places[begin : begin + size] for places in by_shape.values() for begin in range(0, len(places), size)]


def _cores() -> int:
    """Count the cores that runs may use: those of this process, or fewer where ``NUMBA_NUM_THREADS`` says so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = os.environ.get("NUMBA_NUM_THREADS", "")
    return min(cores, int(most)) if most.isdecimal() and int(most) > 0 else cores


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out is {str(folder)!r}, a file; it must be a folder, which is made if it is not there.")


def _check_arguments(
    configs: Sequence[Config], out: Path, *, jobs: int, side_by_side: int, timeout: float | None
) -> None:
    if not configs:
        raise ValueError("The sweep has no runs; give at least one configuration.")
    _check_folder(out)
    if jobs < 0:
        raise ValueError(f"jobs is {jobs}; it must be 0, for as many as there are cores, or more.")
    if side_by_side < 0:
        raise ValueError(f"side_by_side is {side_by_side}; it must be 0, for the device's own number, or more.")
    if timeout is not None and timeout <= 0:
        raise ValueError(f"timeout is {timeout:g}; it must be above 0, in seconds.")


def _data_key(config: Config) -> tuple[str, int | None, int | None]:
    return config.dataset, config.n_train, config.n_test


def _hashes_of_own_images(configs: Sequence[Config]) -> dict[tuple[str, int | None, int | None], str]:
    """Hash the user's own images, which may have been replaced since the last sweep; named data sets are verified."""
    keys = dict.fromkeys(map(_data_key, configs))
    own = [key for key in keys if key[0].endswith(".npz") and Path(key[0]).is_file()]
    return {key: load_dataset(key[0], n_train=key[1], n_test=key[2]).data_hash for key in own}


def _check_data(configs: Sequence[Config], data_dir: str | Path | None, *, show: bool) -> None:
    """Load each data set once, so that what is wrong with it, or is to be downloaded, comes before the first run."""
    for dataset, n_train, n_test in dict.fromkeys(map(_data_key, configs)):
        load_dataset(dataset, data_dir=data_dir, n_train=n_train, n_test=n_test, progress=show)
    for message in dict.fromkeys(map(reachable_target_warning, configs)):
        if message is not None:
            warnings.warn(message, stacklevel=3)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system takes it back when the process ends, however it ends."""
    import fcntl

    with (folder / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip()
            process = f" (process {holder})" if holder else ""
            raise BatsLabError(
                f"Another sweep is at work in {folder}{process}; wait until it is over, or choose another folder."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _display(progress: bool | str | Callable[[Progress], None], total: int) -> Callable[[Progress], None]:
    if callable(progress):
        return progress
    if progress is False:
        return lambda state: None
    if progress is True:
        return _Bar(total) if sys.stderr.isatty() else _Lines(total)
    if progress == "lines":
        return _Lines(total)
    raise ValueError(f"progress is {progress!r}; it must be True, False, 'lines' or a function.")


class _Execution:
    """The runs that are to do, and how far they are."""

    def __init__(
        self,
        configs: Sequence[Config],
        labels: Sequence[str],
        out: Path,
        is_finished: Callable[[Config], bool],
        state: Progress,
        show: Callable[[Progress], None],
    ) -> None:
        self.configs, self.labels, self.out, self.state, self._show = configs, labels, out, state, show
        self._is_finished = is_finished
        self.notebooks = [out / "notebooks" / f"{run_path(out, config).stem}.ipynb" for config in configs]
        self._started: dict[int, float] = {}
        self._finished: list[tuple[int, float]] = []
        self._waiting = set(range(len(configs)))
        self._attempts = [0] * len(configs)
        self._diverged: dict[int, str] = {}
        self._again: list[list[int]] = []

    def show(self, last: RunOutcome | None = None) -> None:
        self.state.last = last
        self._show(self.state)
        self.state.last = None

    def run(
        self,
        groups: Sequence[list[int]],
        source: Path,
        options: Mapping[str, Any],
        *,
        jobs: int,
        timeout: float | None,
    ) -> Iterator[RunOutcome]:
        """Execute the notebook for each group of runs, and yield how each run ended."""
        if not groups:
            return
        try:
            with Pool(jobs) as pool:
                if jobs > 1:
                    self.show()
                    arguments = {"dtypes": sorted({c.dtype for c in self.configs}), "device": options["device"]}
                    for _ in pool.run([Call("bats_lab.sweeps.sweep:_compile", arguments)]):
                        self.show()
                self.state.stage = "training"
                while groups:
                    self._again = []
                    yield from self._run_once(pool, groups, source, options, jobs, timeout)
                    groups = self._again
        except BaseException:  # Ctrl-C above all; what was begun is done anew next time
            for path, label in zip(self.notebooks, self.labels, strict=True):
                path.with_suffix(".running.ipynb").unlink(missing_ok=True)
                if label in self.state.running:  # a worker whose kernel ended first took that for a failure
                    path.with_suffix(".failed.ipynb").unlink(missing_ok=True)
            raise

    def _run_once(
        self,
        pool: Pool,
        groups: Sequence[list[int]],
        source: Path,
        options: Mapping[str, Any],
        jobs: int,
        timeout: float | None,
    ) -> Iterator[RunOutcome]:
        """Do as `run`, and leave in `_again` the groups of runs that are to be taken up again."""
        calls = []
        for group in groups:
            first, *others = (self.configs[i] for i in group)
            parameters = {**first.to_dict(), **options}
            if others:
                parameters["side_by_side"] = [config.to_json() for config in others]
            arguments = {"source": str(source), "out": str(self.notebooks[group[0]]), "parameters": parameters}
            calls.append(Call("bats_lab.sweeps.execute:run_notebook", arguments))
        allowed = None if timeout is None else timeout * max(map(len, groups))
        for event in pool.run(calls, timeout=allowed):
            group = groups[event.index] if event.index >= 0 else []
            if event.kind == "started":
                for i in group:
                    self._waiting.discard(i)
                    self._started[i] = time.monotonic()
                    self._attempts[i] += 1
                    self.state.running[self.labels[i]] = ""
            elif event.kind == "output":
                self._read(group, event.text)
            elif event.kind in ("finished", "failed"):
                yield from self._end(group, event.kind, event.text, event.seconds, jobs)
                continue
            self.state.seconds_left = self._seconds_left(jobs)
            self.show()

    def _read(self, group: Sequence[int], text: str) -> None:
        """Read what a notebook printed about its runs."""
        for line in text.splitlines():
            if found := _EPOCH_LINE.fullmatch(line):
                self.state.running[self.labels[group[int(found[1] or 0)]]] = found[2]
            elif found := _FAILURE_LINE.fullmatch(line):
                self._diverged[group[int(found[1])]] = found[2]

    def _end(self, group: Sequence[int], kind: str, reason: str, seconds: float, jobs: int) -> Iterator[RunOutcome]:
        """Say of each run of an execution that is over how it ended, or take it up again."""
        path = self.notebooks[group[0]]
        running, failed = path.with_suffix(".running.ipynb"), path.with_suffix(".failed.ipynb")
        if running.exists():  # its process was killed before it could do so itself
            os.replace(running, failed)
        done = [i for i in group if self._is_finished(self.configs[i])]
        open_ = [i for i in group if i not in done and i not in self._diverged]
        if kind == "finished" and open_:
            reason = "the notebook ran to its end but saved no results"
            if not done:
                os.replace(path, failed)
        elif open_ and self._worth_another_try(open_, len(group), reason):
            for i in open_:
                del self._started[i], self.state.running[self.labels[i]]
                self._waiting.add(i)
            half = math.ceil(len(open_) / 2) if len(group) > 1 else 1
            self._again += [open_[begin : begin + half] for begin in range(0, len(open_), half)]
            open_ = []
        for i in group:
            if i in self._waiting:
                continue
            good = i in done
            notebook = path if path.exists() else failed if failed.exists() else None
            why = "" if good else self._diverged.get(i, reason)
            yield self._over(i, "finished" if good else "failed", why, notebook, seconds / len(group), jobs)

    def _worth_another_try(self, runs: Sequence[int], size: int, reason: str) -> bool:
        """Whether runs without results are taken up again: any that failed in a group, others if the device failed."""
        if size > 1:
            return True
        return self._attempts[runs[0]] == 1 and reason.startswith("DeviceError: The GPU")

    def _over(
        self, index: int, status: str, reason: str, notebook: Path | None, seconds: float, jobs: int
    ) -> RunOutcome:
        """Count a run that is over, and show it."""
        config, label = self.configs[index], self.labels[index]
        del self._started[index]
        if status == "finished":
            self.state.finished += 1
            self._finished.append((config.epochs, seconds))
        else:
            self.state.failed += 1
        outcome = RunOutcome(config, label, status, reason, notebook, seconds)
        self.state.last_line = self.state.running.pop(label)
        self.state.seconds_left = self._seconds_left(jobs)
        self.show(outcome)
        return outcome

    def _seconds_left(self, jobs: int) -> float | None:
        """Estimate from the seconds an epoch took in the runs that are finished."""
        if not self._finished:
            return None
        each = sum(seconds for _, seconds in self._finished) / sum(epochs for epochs, _ in self._finished)
        now = time.monotonic()
        left = sum(self.configs[i].epochs * each for i in self._waiting)
        left += sum(max(0.0, self.configs[i].epochs * each - (now - begin)) for i, begin in self._started.items())
        return left / jobs


def _compile(dtypes: Sequence[str], device: str) -> None:
    """Train tiny networks, so that kernels are compiled and cached once and not by all processes at the same time."""
    for dtype in dtypes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run_experiment(Config(n_train=20, n_test=20, hidden=(4,), epochs=1, dtype=dtype), device=device)


# ------------------------------------------------------------------------------------------------------ the report


def make_report(
    out: str | Path, *, notebook: str | Path | None = None, parameters: Mapping[str, Any] | None = None
) -> Path:
    """Execute the report notebook on a folder of results and export it as one HTML file.

    Parameters
    ----------
    out : str or Path
        Folder of results; ``report.ipynb`` and ``report.html`` are written into it.
    notebook : str, Path or None
        Another notebook in place of ``20_report``, with the parameter `results_dir`.
    parameters : mapping, optional
        Further parameters of the notebook.

    Returns
    -------
    Path
        The HTML file. It needs no network: all it shows is inside.

    Raises
    ------
    FileNotFoundError
        If there are no results in `out`, or no such notebook.
    BatsLabError
        If the notebook fails; it is left as ``report.failed.ipynb``.
    """
    out = Path(out).resolve()
    if not any(file for kind in ("run", "experiment", "deployment") for file in out.glob(f"{kind}-*.nc")):
        raise FileNotFoundError(f"There are no results in {out}; a report needs at least one finished run.")
    source = _source(notebook, "20_report")
    executed, page = out / "report.ipynb", out / "report.html"
    # What else a report shows is named from the folder of its notebook, as when it is opened by hand.
    arguments = {"source": str(source), "out": str(executed), "cwd": str(source.resolve().parent)}
    values = {"results_dir": str(out)} | dict(parameters or {})
    draw = Call("bats_lab.sweeps.execute:run_notebook", arguments | {"parameters": values})
    export = Call("bats_lab.sweeps.sweep:_export_html", {"notebook": str(executed), "page": str(page)})
    with Pool(1) as pool:
        for call in (draw, export):
            for event in pool.run([call]):
                if event.kind == "failed":
                    failed = out / "report.failed.ipynb"
                    where = f"; {failed} shows where" if failed.exists() else ""
                    raise BatsLabError(f"The report could not be made: {event.text}{where}.")
    return page


def _export_html(notebook: str, page: str) -> None:
    """Write an executed notebook as a page without code that loads nothing from the network."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        embed_images=True,
        mathjax_url="",
        require_js_url="",
        jquery_url="",
        mermaid_js_url="",
    )
    body, _ = exporter.from_filename(notebook)
    temporary = Path(page).with_suffix(".html.part")
    temporary.write_text(body, encoding="utf-8")
    os.replace(temporary, page)
