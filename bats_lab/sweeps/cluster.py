"""A pool whose calls are carried out by the workers of a Dask cluster, with the interface of the pool of processes.

Each thread of a worker takes one call at a time, and carries it out in a pool of one process of its own: so a run has
the same process, standby kernel and end as in a sweep on one machine. Dask gives calls of a worker that died to another
one; when the scheduler itself is gone, the pool waits for it to come back, and hands in again what had not ended.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import math
import os
import queue
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bats_lab.errors import BatsLabError, StoreError
from bats_lab.runs.store import Store
from bats_lab.sweeps.execute import KILLED, stop_file, working_files
from bats_lab.sweeps.folder import remove_parts, settle
from bats_lab.sweeps.notebooks import notebook_path
from bats_lab.sweeps.pool import Call, Event, Pool

__all__ = ["JOB_QUEUES", "ClusterPool", "carry_out"]

#: Job queues whose workers dask-jobqueue starts, and its classes.
JOB_QUEUES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "oar": "OARCluster",
    "htcondor": "HTCondorCluster",
}

#: Seconds for which a scheduler may be gone.
_PATIENCE = 600.0

#: Seconds between two times that a worker brings to a store what a run tells of itself.
_TOLD = 3.0

#: Seconds after which a file server shows everywhere what was written anywhere.
_VISIBLE = 30.0


@dataclass(frozen=True)
class _Task:
    """A call that has been handed in."""

    index: int
    call: Call
    started: float
    future: Any


class ClusterPool(contextlib.AbstractContextManager["ClusterPool"]):
    """Workers of a Dask cluster that carry out calls; a context manager.

    Parameters
    ----------
    cluster : str
        Address of a scheduler (``tcp://host:8786``), a scheduler file (``….json``), ``ssh:host1,host2``, or one of
        :data:`JOB_QUEUES`, whose jobs are as Dask's own configuration (``jobqueue.yaml``) says.
    size : int
        Calls at a time at most, and the number of jobs that are asked of a job queue; 0: as many as workers have
        threads, and one job.
    url : str
        URL of the results, if they are in an object store. Workers then have mirrors of their own
        (:mod:`bats_lab.runs.store`), from which they bring there what each run leaves, and every few seconds what it
        tells of itself.

    Raises
    ------
    ValueError
        If `cluster` is nothing such, or no worker can reach `url`.
    BatsLabError
        If Dask is not there, or the scheduler does not answer.
    """

    def __init__(self, cluster: str, size: int = 0, url: str = "") -> None:
        if url.startswith("memory:"):
            raise ValueError(f"out is {url!r}, which is in the memory of this process; no worker of a cluster sees it.")
        self._url = url
        self._most = size or math.inf
        self._prepared: list[Call] = []
        self._ended: queue.Queue[Any] = queue.Queue()
        self._busy: list[_Task] = []
        self._client: Any = None
        try:
            import distributed
        except ImportError as error:
            raise BatsLabError("A cluster needs the package distributed: pip install 'bats-lab[cluster]'.") from error
        # What Dask says of workers that come and go is told in the journal and by the runs themselves.
        for name in ("distributed", "distributed.client", "tornado.application"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._own = _started(cluster, size, distributed)
        self._where: dict[str, Any] = {"scheduler_file": cluster} if cluster.endswith(".json") else {}
        self._where = self._where or {"address": self._own or cluster}
        if not self._connect():
            self.close()
            raise BatsLabError(f"The Dask scheduler of {cluster!r} does not answer.")

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Have the workers end what they are at, and let go of them; those of a job queue end themselves."""
        if self._client is not None and self._client.status == "running":
            with contextlib.suppress(Exception):
                self._client.cancel([task.future for task in self._busy], force=True)
                end = time.monotonic() + 15
                while self._busy and any(self._client.run(_at_work).values()) and time.monotonic() < end:
                    time.sleep(0.2)
        self._leave()
        if self._own is not None:
            with contextlib.suppress(Exception):
                self._own.close(timeout=30)

    def _leave(self) -> None:
        if self._client is not None:
            with contextlib.suppress(Exception):
                self._client.close(timeout=2)
            self._client.status = "closed"  # or it would try again, for long, when it is collected
            self._client = None

    def _answers(self) -> bool:
        """Say whether anybody listens where the scheduler should be."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if file := self._where.get("scheduler_file"):
                address = json.loads(Path(file).read_text())["address"]
            else:
                address = getattr(self._where["address"], "scheduler_address", self._where["address"])
            host, _, port = address.partition("://")[2].rstrip("/").rpartition(":")
            with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
                return True
        return False

    def _connect(self) -> bool:
        """Connect with the scheduler, and say whether it is there."""
        import distributed

        self._leave()
        if not self._answers():  # a client that waits in vain cannot be interrupted
            return False
        try:
            self._client = distributed.Client(**self._where, timeout=10, set_as_default=False)
        except (OSError, TimeoutError, ValueError):
            return False
        return True

    @property
    def size(self) -> int:
        """Calls that may be carried out at a time now."""
        with contextlib.suppress(Exception):
            return int(min(self._most, sum(self._client.nthreads().values())))
        return 0

    def prepare(self, call: Call) -> Iterator[Event]:
        """Have each worker carry out a call, before its first other one, in the process from which it forks."""
        self._prepared.append(call)
        yield from ()

    def run(self, calls: Iterable[Call], *, timeout: float | None = None) -> Iterator[Event]:
        """Carry out calls and report, as :meth:`bats_lab.sweeps.pool.Pool.run`."""
        waiting = enumerate(calls)
        following = next(waiting, None)
        gone: float | None = None
        while following is not None or self._busy:
            if self._client is None or self._client.status != "running":
                gone = gone or time.monotonic()
                if self._client is None or self._client.status in ("closed", "closing", "connecting"):
                    self._connect()
                if self._client is None:
                    if time.monotonic() - gone > _PATIENCE:
                        raise BatsLabError(f"The Dask scheduler has been gone for {_PATIENCE / 60:g} minutes.")
                    time.sleep(1)
                    yield Event("tick")
                    continue
            gone = None
            self._hand_in_again(timeout)
            slots = self.size
            while following is not None and len(self._busy) < slots:
                index, call = following
                self._busy.append(self._hand_in(index, call, timeout))
                yield Event("started", index)
                following = next(waiting, None)
            with contextlib.suppress(queue.Empty):
                self._ended.get(timeout=1.0)
            over = [task for task in self._busy if task.future.status in ("finished", "error")]
            if not over:
                yield Event("tick")
            for task in over:
                self._busy.remove(task)
                yield self._outcome(task)

    def _hand_in(self, index: int, call: Call, timeout: float | None) -> _Task:
        prepared = [list(own) for own in self._prepared]
        future = self._client.submit(carry_out, list(call), prepared, timeout, self._url, pure=False, retries=0)
        future.add_done_callback(self._ended.put)
        return _Task(index, call, time.monotonic(), future)

    def _hand_in_again(self, timeout: float | None) -> None:
        """Hand in anew what a scheduler that is gone took with it."""
        for i, task in enumerate(self._busy):
            if task.future.status in ("lost", "cancelled") or task.future.client is not self._client:
                self._busy[i] = self._hand_in(task.index, task.call, timeout)

    def _outcome(self, task: _Task) -> Event:
        seconds = time.monotonic() - task.started
        if task.future.status == "finished":
            kind, text, seconds, where = task.future.result()
            if self._url:
                try:
                    _fetch_from(self._url, task.call)
                except StoreError as refusal:
                    kind, text = "failed", str(refusal)
            else:
                _wait_until_visible(task.call, kind)
            return Event(kind, task.index, text, seconds, where)
        error = task.future.exception()
        killed = type(error).__name__ == "KilledWorker"
        return Event("failed", task.index, KILLED if killed else f"{type(error).__name__}: {error}", seconds)


def _started(cluster: str, size: int, distributed: Any) -> Any:
    """Start the cluster that a job queue or SSH makes; None where there is one already."""
    kind, _, rest = cluster.partition(":")
    if kind == "ssh" and rest:
        hosts = rest.split(",")
        # Of a sweep that was killed nobody ends what runs on the hosts.
        options = {"worker_options": {"nthreads": 1, "death_timeout": 60}, "scheduler_options": {"idle_timeout": "2m"}}
        return distributed.SSHCluster([hosts[0], *hosts], **options)
    if cluster in JOB_QUEUES:
        try:
            import dask.config
            import dask_jobqueue
        except ImportError as error:
            message = f"{cluster} needs the package dask-jobqueue: pip install 'bats-lab[cluster]'."
            raise BatsLabError(message) from error
        options = dask.config.get(f"jobqueue.{cluster}.scheduler-options", None) or {}
        try:
            made = getattr(dask_jobqueue, JOB_QUEUES[cluster])(scheduler_options={"dashboard": False} | options)
        except ValueError as error:  # the configuration lacks what a job needs
            raise ValueError(f"{cluster}: {' '.join(str(error).split())}; give it in ~/.config/dask.") from error
        made.scale(jobs=size or 1)
        return made
    if cluster.endswith(".json"):
        if not Path(cluster).is_file():
            raise ValueError(f"cluster is {cluster!r}; there is no such scheduler file.")
    elif kind not in ("tcp", "tls", "ucx", "ws", "wss") or not rest.startswith("//"):
        allowed = f"an address as tcp://host:8786, a scheduler file, ssh:host1,host2, {', '.join(JOB_QUEUES)}"
        raise ValueError(f"cluster is {cluster!r}; it must be one of {allowed}.")
    return None


def _result_of(call: list[Any] | Call) -> Path | None:
    """Return the file that a call leaves if it trains a run, and the run alone."""
    arguments = call[1]
    if "out" not in arguments or "results_dir" not in arguments.get("parameters", {}):
        return None
    return Path(arguments["parameters"]["results_dir"]) / f"{Path(arguments['out']).stem}.nc"


def _wait_until_visible(call: Call, kind: str) -> None:
    """Wait until a file server shows here what a worker has written there."""
    result, end = _result_of(call), time.monotonic() + _VISIBLE
    while kind == "finished" and result is not None and time.monotonic() < end:
        with contextlib.suppress(OSError):
            if result.name in os.listdir(result.parent):
                return
        time.sleep(0.5)


def _fetch_from(url: str, call: Call) -> None:
    """Bring from a store to the mirror here what a worker has brought there."""
    if (result := _result_of(call)) is not None:
        store = Store(url)
        store.insist(lambda: store.fetch("run-*.nc", "partial-*.nc", f"notebooks/{result.stem}.*"))


# On a worker

_own = threading.local()
_working: set[str] = set()
_numbers = itertools.count()


def _at_work() -> bool:
    """Tell whether this worker carries out calls."""
    return bool(_working)


def carry_out(
    call: list[Any], prepared: list[list[Any]], timeout: float | None, url: str = ""
) -> tuple[str, str, float, str]:
    """Carry out a call on a worker of Dask, in a process of its own.

    Returns
    -------
    kind, text, seconds, where
        As in :class:`bats_lab.sweeps.pool.Event`: finished or failed.
    """
    from distributed import get_worker

    began, host = time.monotonic(), socket.gethostname()
    worker = get_worker()
    key = worker.get_current_task()
    store = Store(url) if url else None
    if store is not None:
        _move(call, store)
    result = _result_of(call)

    def given_up() -> bool:
        task = worker.state.tasks.get(key)
        return task is None or task.state == "cancelled"

    def deliver(kind: str, text: str) -> tuple[str, str, float, str]:
        try:
            if store is not None:
                store.insist(store.put, given_up=given_up)
        except StoreError as error:
            kind, text = "failed", f"{host}: {error}"
        return kind, text, time.monotonic() - began, host

    if result is not None:
        notebook = Path(call[1]["out"])
        if store is not None:
            try:
                store.insist(lambda: store.fetch(*_files_of(result)), given_up=given_up)
            except StoreError as error:
                return "failed", f"{host}: {error}", 0.0, host
        elif not result.parent.is_dir():
            return "failed", f"the worker on {host} sees no folder {result.parent}", 0.0, host
        if result.exists():  # another worker did so and died before it could tell
            settle(notebook, True)
            return deliver("finished", "")
    number = f"{os.getpid()}-{next(_numbers)}"
    _working.add(number)
    try:
        kind, text, told = "failed", KILLED, began
        pool = _prepared_pool([Call(*own) for own in prepared])
        for event in pool.run([Call(*call)], timeout=timeout):
            kind, text = event.kind, event.text
            if kind not in ("finished", "failed") and given_up():
                _end_pool()  # nobody waits for it any more
                if result is not None:
                    settle(notebook, result.exists())
                    remove_parts(result.parent, {result.stem})
                break
            if store is not None and result is not None and time.monotonic() > told + _TOLD:
                with contextlib.suppress(StoreError):
                    store.put()
                    store.fetch(f"notebooks/{stop_file(working_files(notebook).status).name}")
                told = time.monotonic()
        return deliver(kind, text)
    finally:
        _working.discard(number)


def _move(call: list[Any], store: Store) -> None:
    """Have a call work in the mirror of this worker, with the notebook as this worker has it."""
    arguments = call[1]
    if _result_of(call) is None:
        return
    arguments["out"] = str(store.folder / "notebooks" / Path(arguments["out"]).name)
    arguments["parameters"]["results_dir"] = str(store.folder)
    if not Path(arguments["source"]).exists():
        with contextlib.suppress(FileNotFoundError):
            arguments["source"] = str(notebook_path(Path(arguments["source"]).name))


def _files_of(result: Path) -> list[str]:
    """Return the names of what there may be of a run in a store."""
    notebooks = working_files(Path("notebooks", f"{result.stem}.ipynb"))
    return [result.name, f"checkpoints/{result.stem}.npz", str(notebooks.failed), str(notebooks.status)]


def _prepared_pool(prepared: list[Call]) -> Pool:
    """Return this thread's pool of one process, which has carried out `prepared`."""
    done: list[Call] = getattr(_own, "prepared", [])
    if getattr(_own, "pool", None) is None or done != prepared[: len(done)]:
        _end_pool()
        _own.pool, done = Pool(1), []
    for call in prepared[len(done) :]:
        for _ in _own.pool.prepare(call):
            pass
    _own.prepared = prepared
    pool: Pool = _own.pool
    return pool


def _end_pool() -> None:
    if getattr(_own, "pool", None) is not None:
        _own.pool.close()
        _own.pool = None
