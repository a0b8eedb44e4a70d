"""A grid of parameters, executed run by run: Papermill in parallel processes.

Each run executes the notebook ``10_train`` and leaves two files in the sweep's folder: its results, and the executed
notebook in ``notebooks/``. A run is finished when its results are; a sweep started again does the others.

On a GPU runs that differ in no shape are trained side by side: one execution serves a group of them, and each of them
leaves its own results. If an execution fails, the runs without results are taken up again, in groups half as large.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bats_lab.config import Config
from bats_lab.runs.files import run_path
from bats_lab.sweeps.cluster import ClusterPool
from bats_lab.sweeps.execute import stop_file, working_files
from bats_lab.sweeps.folder import FolderLock, remove_parts, settle, settle_folder
from bats_lab.sweeps.journal import seconds_left
from bats_lab.sweeps.notebooks import source_notebook
from bats_lab.sweeps.plan import data_key, plan_sweep
from bats_lab.sweeps.pool import Call, Event, Pool
from bats_lab.sweeps.progress import Progress, RunOutcome, SweepReport, display
from bats_lab.sweeps.remote import folder_lock

__all__ = ["Execution", "Run", "Watcher", "run_sweep"]


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
    cluster: str | None = None,
    progress: bool | str | Callable[[Progress], None] = True,
) -> SweepReport:
    """Execute the training notebook for every configuration, in parallel processes.

    Runs whose results are in `out` already are skipped. A run that fails leaves its notebook as
    ``notebooks/….failed.ipynb`` and does not stop the others. On Ctrl-C running kernels are ended and what they had
    begun is removed; the same call goes on from there.

    Parameters
    ----------
    configs : list of Config, or mapping
        The runs; or a grid for :func:`bats_lab.sweeps.grid.expand_grid`.
    out : str or Path
        Folder of results; or its URL, as ``s3://bucket/folder``: see :mod:`bats_lab.sweeps.remote`.
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
    cluster : str or None
        Dask cluster whose workers carry the runs out, as :class:`bats_lab.sweeps.cluster.ClusterPool` has it, in place
        of processes of this machine; its workers have to see or reach `out`, and the data sets. `jobs` is then the runs
        at a time at most (0: the workers' threads), and `threads` 1 where it is 0.
    progress : bool, "lines" or callable
        True: a bar in a terminal, lines elsewhere; "lines": a line for each run that is over; False: nothing; or a
        function that is called with a :class:`bats_lab.sweeps.progress.Progress`.

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
    StoreError
        If `out` is a URL whose store cannot be reached, or has not taken all results for ten minutes in the end; the
        same call brings there what it has not.
    """
    began = time.monotonic()
    if timeout is not None and timeout <= 0:
        raise ValueError(f"timeout is {timeout:g}; it must be above 0, in seconds.")
    source = source_notebook(notebook, "10_train")
    plan = plan_sweep(
        configs,
        out,
        jobs=jobs,
        data_dir=data_dir,
        device=device,
        threads=threads,
        side_by_side=side_by_side,
        show=progress is not False,
    )
    configs, out = plan.configs, plan.out
    with folder_lock(out, plan.store, watches=cluster is not None) as lock:
        runs, outcomes, unfinished = [], {}, set(plan.todo)
        settle_folder(out, {run_path(out, config).stem for config in configs})
        for config, label in zip(configs, plan.labels, strict=True):
            executed = out / "notebooks" / f"{run_path(out, config).stem}.ipynb"
            if config in unfinished and not plan.is_finished(config):  # another sweep may just have ended
                runs.append(Run(config, label, executed))
            else:
                notebook = executed if executed.exists() else None
                outcomes[config] = RunOutcome(config, label, "skipped", notebook=notebook)
        groups, at_once, threads = plan.shared_out([run.config for run in runs])
        if cluster is not None:
            at_once, threads = jobs, plan.threads or 1
        options = {
            "results_dir": str(out),
            "data_dir": None if data_dir is None else str(Path(data_dir).resolve()),
            "device": device,
            "threads": threads,
            "checkpoint": checkpoint,
        }
        execution = Execution(runs, plan.is_finished, len(configs), at_once, display(progress, len(configs)), lock)
        execution.cluster = cluster
        todo = [[runs[i] for i in group] for group in groups]
        for outcome in execution.run(todo, unfinished, source, options, timeout):
            outcomes[outcome.config] = outcome
    return SweepReport(out, [outcomes[config] for config in configs], time.monotonic() - began, plan.url)


#: How the reason begins of a run that was ended because others do better.
_STOPPED = "StoppedError"


@dataclass(eq=False)
class Run:
    """A run that is to do, and how far it is."""

    config: Config
    label: str
    notebook: Path
    started: float | None = None  # of the clock that is monotonic; None while it waits
    attempts: int = 0
    diverged: str = ""
    over: bool = False


class Watcher(Protocol):
    """Who is told how runs go, and may end them."""

    def epoch(self, run: Run, told: Mapping[str, Any]) -> bool:
        """Take in what a run tells of an epoch, and say whether it is to be ended."""

    def over(self, outcome: RunOutcome) -> None:
        """Take in how a run ended."""


class Execution:
    """The executions of runs, and where they stand.

    Parameters
    ----------
    runs : list of Run
        Those known before the first starts; others are added when they start.
    is_finished : callable
        Whether a run's results are there.
    total, jobs : int
        Runs of the whole, and how many at a time.
    show : callable
        Shows where it stands.
    lock : FolderLock
    watch : Watcher or None
    """

    def __init__(
        self,
        runs: list[Run],
        is_finished: Callable[[Config], bool],
        total: int,
        jobs: int,
        show: Callable[[Progress], None],
        lock: FolderLock,
        watch: Watcher | None = None,
    ) -> None:
        self.cluster: str | None = None  #: of Dask; None: processes of this machine
        self.runs, self.jobs, self._lock, self._journal, self._watch = runs, jobs, lock, lock.journal, watch
        self.state = Progress(total=total, skipped=total - len(runs) if watch is None else 0)
        self._is_finished, self._show = is_finished, show
        self._seconds = self._epochs = 0.0  # of the runs that are finished
        self._warned: set[str] = set()
        self._offsets: dict[Path, int] = {}  # what has been read of a status file, in bytes

    def show(self, last: RunOutcome | None = None) -> None:
        """Pass the state on."""
        self._journal.beat()
        self.state.last = last
        self._show(self.state)
        self.state.last = None

    def run(
        self,
        groups: Iterable[list[Run]],
        kinds: Iterable[Config],
        source: Path,
        options: Mapping[str, Any],
        timeout: float | None,
    ) -> Iterator[RunOutcome]:
        """Execute the notebook for each group of runs, and yield how each run ended; `kinds` tell what is prepared."""
        if self.state.skipped == self.state.total:
            self._end_show()
            return
        url = self._lock.url
        known = [[run.notebook.stem, run.label, run.config.epochs] for run in self.runs]
        try:
            with Pool(self.jobs) if self.cluster is None else ClusterPool(self.cluster, self.jobs, url) as pool:
                self.jobs = pool.size
                about = {"total": self.state.total, "skipped": self.state.skipped, "jobs": self.jobs}
                self._journal.add("sweep", **about, runs=known)
                self._prepare(pool, kinds, options)
                self.state.stage = "training"
                todo = groups
                while todo:
                    todo = yield from self._execute(pool, todo, source, options, timeout)
        except BaseException:  # Ctrl-C above all; what was begun is done anew next time
            for run in self.runs:
                # A worker whose kernel ended first took that for a failure.
                settle(run.notebook, self._is_finished(run.config), failed=run.label in self.state.running)
            remove_parts(Path(options["results_dir"]), {run.notebook.stem for run in self.runs})
            raise
        finally:
            self._journal.add("over")
            self._end_show()

    def _end_show(self) -> None:
        self.state.stage = "over"
        self.show()

    def _prepare(self, pool: Pool | ClusterPool, kinds: Iterable[Config], options: Mapping[str, Any]) -> None:
        """Have kernels compiled, and loaded with the data sets before processes for runs are forked."""
        arguments = {"device": options["device"], "dtypes": sorted({config.dtype for config in kinds})}
        kernels = ""
        for event in pool.run([Call("bats_lab.engine.forked:list_kernels", arguments)]):
            kernels = event.text
            self.show()
        datasets = list(dict.fromkeys(map(data_key, kinds)))
        arguments = {"kernels": kernels, "datasets": datasets, "data_dir": options["data_dir"]}
        for _ in pool.prepare(Call("bats_lab.sweeps.training:prepare_runs", arguments)):  # where it fails, runs say why
            self.show()

    def _execute(
        self,
        pool: Pool | ClusterPool,
        groups: Iterable[list[Run]],
        source: Path,
        options: Mapping[str, Any],
        timeout: float | None,
    ) -> Generator[RunOutcome, None, list[list[Run]]]:
        """Execute the notebook once for each group; return the groups that are to be taken up again."""
        taken: list[list[Run]] = []

        def calls() -> Iterator[Call]:
            for group in groups:
                taken.append(group)
                first, *others = group
                parameters = {**first.config.to_dict(), **options}
                if others:
                    parameters["side_by_side"] = [run.config.to_json() for run in others]
                arguments = {"source": str(source), "out": str(first.notebook), "parameters": parameters}
                yield Call("bats_lab.sweeps.execute:run_notebook", arguments)

        again: list[list[Run]] = []
        at_work: dict[int, list[Run]] = {}
        most = max(map(len, groups)) if isinstance(groups, list) else 1
        for event in pool.run(calls(), timeout=timeout and timeout * most):
            group = taken[event.index] if event.index >= 0 else []
            if event.kind == "started":
                at_work[event.index] = group
                self._lock.check()
                for run in group:
                    if run not in self.runs:
                        self.runs.append(run)
                        about = [run.notebook.stem, run.label, run.config.epochs]
                        self._journal.add("run", about=about, config=run.config.to_dict())
                self._journal.add("started", runs=[run.notebook.stem for run in group])
                for run in group:
                    run.started, run.attempts = time.monotonic(), run.attempts + 1
                    self.state.running[run.label] = ""
            elif event.kind != "tick":
                self._read_status(group)
            elif self.cluster is not None:  # whose workers pass nothing on that notebooks print
                for group in at_work.values():
                    self._read_status(group)
            if event.kind in ("finished", "failed"):
                del at_work[event.index]
                yield from self._end(group, event, again)
            else:
                self.state.seconds_left = self._seconds_left()
                self.show()
        return again

    def _read_status(self, group: Sequence[Run]) -> None:
        """Read what a notebook has told of its runs since the last time."""
        path = working_files(group[0].notebook).status
        with contextlib.suppress(OSError), path.open("rb") as lines:
            lines.seek(self._offsets.get(path, 0))
            for line in lines:
                if not line.endswith(b"\n"):  # it is being written
                    break
                self._offsets[path] = self._offsets.get(path, 0) + len(line)
                event = json.loads(line)
                run = group[event["run"]]
                if event["event"] == "epoch":
                    self.state.running[run.label] = event["text"]
                    if self._watch is not None and self._watch.epoch(run, event):
                        stop_file(path).touch()
                elif event["event"] == "warning":
                    if event["text"] not in self._warned:  # the same of many runs is said once
                        self._warned.add(event["text"])
                        warnings.warn(f"{run.label}: {event['text']}", stacklevel=2)
                else:
                    run.diverged = event["text"]

    def _end(self, group: list[Run], event: Event, again: list[list[Run]]) -> Iterator[RunOutcome]:
        """Say of each run of an execution that is over how it ended, or add it to those to be taken up `again`."""
        path, reason = group[0].notebook, event.text
        files = working_files(path)
        done = [run for run in group if self._is_finished(run.config)]
        with contextlib.suppress(OSError):  # the folder may be gone, or read-only
            if files.running.exists():  # its process was killed before it could do so itself
                os.replace(files.running, files.failed)
            if done and not path.exists() and (event.kind == "failed" and done == group):
                os.replace(files.failed, path)
            files.status.unlink(missing_ok=True)
            stop_file(files.status).unlink(missing_ok=True)
            if group[0].diverged.startswith(_STOPPED):  # what it measured is kept; it did not fail
                files.failed.unlink(missing_ok=True)
        self._offsets.pop(files.status, None)
        if event.kind == "failed":
            remove_parts(path.parents[1], {run.notebook.stem for run in group})
        left = [run for run in group if run not in done and not run.diverged]
        if event.kind == "finished" and left:
            reason = "the notebook ran to its end but saved no results"
            if not done:
                with contextlib.suppress(OSError):
                    os.replace(path, files.failed)
        elif left and (len(group) > 1 or (left[0].attempts == 1 and reason.startswith("DeviceError: The GPU"))):
            for run in left:
                run.started = None
                del self.state.running[run.label]
            half = math.ceil(len(left) / 2) if len(group) > 1 else 1
            again += [left[begin : begin + half] for begin in range(0, len(left), half)]
        for run in group:
            if run.started is None:
                continue
            seconds = event.seconds / len(group)
            run.over = True
            if run in done:
                status = "finished"
                self.state.finished += 1
                self._seconds, self._epochs = self._seconds + seconds, self._epochs + run.config.epochs
            elif run.diverged.startswith(_STOPPED):
                status = "pruned"
                self.state.pruned += 1
            else:
                status = "failed"
                self.state.failed += 1
            outcome = RunOutcome(
                run.config,
                run.label,
                status,
                "" if run in done else run.diverged or reason,
                next((file for file in (path, files.failed) if file.exists()), None),
                seconds,
            )
            self._journal.add(
                outcome.status,
                run=run.notebook.stem,
                seconds=round(seconds, 3),
                reason=outcome.reason,
                where=event.where,
            )
            self.state.last_line = self.state.running.pop(run.label)
            self.state.seconds_left = self._seconds_left()
            if self._watch is not None:
                self._watch.over(outcome)
            self.show(outcome)
            yield outcome

    def _seconds_left(self) -> float | None:
        """Estimate from the seconds an epoch took in the runs that are finished."""
        if not self._epochs:
            return None
        now = time.monotonic()
        left = [(r.config.epochs, 0.0 if r.started is None else now - r.started) for r in self.runs if not r.over]
        left += [(self.runs[-1].config.epochs, 0.0)] * (self.state.total - self.state.skipped - len(self.runs))
        return seconds_left(self._seconds / self._epochs, left, self.jobs)
