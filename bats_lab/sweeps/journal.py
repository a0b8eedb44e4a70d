"""What a sweep writes down of itself in its folder, and where it stands as read from there, on whatever machine.

The journal, ``sweep.jsonl``, is only added to, a line of JSON an event: a sweep with its runs, the start and the end of
each of them, the sweep's end; a search adds its runs one by one. What belongs to no known sweep is left out. A sweep at
work touches its lock file. Where results go into an object store, in which nothing can be added to, each sweep has a
journal of its own, ``journal/….jsonl``.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bats_lab.config import Config
from bats_lab.runs.files import run_names
from bats_lab.runs.store import LOGS, mirrored, store_at
from bats_lab.sweeps.execute import working_files

__all__ = [
    "JOURNAL",
    "LOCK",
    "Journal",
    "RunStatus",
    "SweepStatus",
    "duration",
    "read_status",
    "seconds_left",
    "told_runs",
    "watch",
]

JOURNAL, LOCK = "sweep.jsonl", ".lock"

#: Seconds between two signs of life of a sweep.
_HEARTBEAT = 5.0

#: Without a sign of life for so many seconds a sweep is taken for dead; a file server may keep some back.
_PATIENCE = 30.0


class Journal:
    """The journal of a folder, to be added to; what cannot be written is left out, as a sweep does not depend on it."""

    def __init__(self, folder: Path, name: str = JOURNAL) -> None:
        self._path, self._lock = folder / name, folder / LOCK
        self._host = socket.gethostname()
        self._beat = float("-inf")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(exist_ok=True)
            text = self._path.read_bytes()
            if text and not text.endswith(b"\n"):  # the last sweep was killed in mid-line
                self._append(b"\n")

    def add(self, event: str, **what: Any) -> None:
        """Add a line."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._append(json.dumps({"time": now, "event": event, "host": self._host, "pid": os.getpid()} | what).encode())

    def _append(self, line: bytes) -> None:
        with contextlib.suppress(OSError), self._path.open("ab", buffering=0) as file:
            file.write(line.rstrip(b"\n") + b"\n")

    def beat(self) -> None:
        """Give a sign of life, unless there has just been one."""
        if time.monotonic() > self._beat + _HEARTBEAT:
            self._beat = time.monotonic()
            with contextlib.suppress(OSError):
                os.utime(self._lock)


@dataclass(frozen=True)
class RunStatus:
    """A run of a sweep that is at work or has failed.

    `text` is how its last epoch went, or why it failed; `notebook` is the notebook as far as it was executed.
    """

    label: str
    text: str
    seconds: float
    notebook: Path


@dataclass
class SweepStatus:
    """Where the last sweep of a folder stands."""

    folder: Path | str  #: or its URL
    runs_in_folder: int  #: finished runs, of whatever sweep
    host: str = ""  #: where it runs or ran; empty if the folder knows of no sweep
    process: int = 0
    started: str = ""  #: when, UTC
    at_work: bool = False
    total: int = 0
    skipped: int = 0  #: finished before it began
    finished: int = 0
    pruned: int = 0  #: ended early by a search
    failed: list[RunStatus] = field(default_factory=list)
    running: list[RunStatus] = field(default_factory=list)  #: at work; cut off, if the sweep is not at work
    seconds_left: float | None = None  #: estimate from the runs that are finished; None before the first

    @property
    def done(self) -> int:
        """Runs with results."""
        return self.skipped + self.finished

    @property
    def pending(self) -> int:
        """Runs not begun."""
        return self.total - self.done - self.pruned - len(self.failed) - len(self.running)

    def __str__(self) -> str:
        """Tell in a few lines."""
        if not self.host:
            return f"{self.folder}: {self.runs_in_folder} finished runs; no sweep has been started here."
        counts = f"{self.done} of {self.total} runs done" + (f" ({self.skipped} before)" if self.skipped else "")
        cut = "running" if self.at_work else "cut off"
        counts += f", {len(self.running)} {cut}" if self.running else ""
        counts += f", {self.pruned} ended early" if self.pruned else ""
        counts += f", {len(self.failed)} failed, {self.pending} pending"
        if self.at_work and self.seconds_left is not None:
            counts += f", {duration(self.seconds_left)} left"
        if self.at_work:
            what = "at work"
        else:
            what = (
                "over"
                if self.done + self.pruned + len(self.failed) == self.total
                else "stopped; the same command goes on"
            )
        lines = [f"{self.folder}: {counts}", f"sweep of {self.started} on {self.host}, process {self.process}: {what}"]
        for title, runs in ((cut, self.running), ("failed", self.failed)):
            for run in runs:
                took = f" ({duration(run.seconds)})" if run.seconds else ""
                lines.append(f"{title}: {run.label}: {run.text or 'no epoch yet'}{took}")
                if title == "failed" and run.notebook.exists():
                    lines.append(f"  {run.notebook}")
        return "\n".join(lines)


def duration(seconds: float) -> str:
    """Write seconds as hours, minutes and seconds."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}"


def seconds_left(each: float, runs: Iterable[tuple[int, float]], jobs: int) -> float:
    """Estimate how long runs take whose epochs take `each` seconds, from their epochs and the seconds they have had."""
    return sum(max(0.0, epochs * each - spent) for epochs, spent in runs) / max(1, jobs)


def read_status(folder: str | Path) -> SweepStatus:
    """Read where the last sweep of a folder, or of a URL, stands, from what is there alone.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    StoreError
        If the store of a URL cannot be read.
    """
    where, store = folder, store_at(folder)
    folder = mirrored(folder, *LOGS, "study-*.nc", "notebooks/*.failed.ipynb")
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder of results {where}.")
    found = {*run_names(folder), *(store.names("run-*.nc") if store else ())}
    where = store.url if store else folder
    status = SweepStatus(where, len(found))
    runs: dict[str, tuple[str, int]] = {}  # label and epochs of each
    started: dict[str, tuple[float, str, int]] = {}  # when, the group's first run, and the place in the group
    failed: dict[str, dict[str, Any]] = {}
    finished: set[str] = set()
    pruned: set[str] = set()
    spent, jobs = 0.0, 1
    for line in _journal(folder):
        event = line["event"]
        if event == "sweep":
            names = {"host": line["host"], "process": line["pid"], "started": line["time"]}
            status = SweepStatus(where, status.runs_in_folder, **names, total=line["total"], skipped=line["skipped"])
            runs = {run: (label, epochs) for run, label, epochs in line["runs"]}
            started, failed, finished, pruned, spent = {}, {}, set(), set(), 0.0
            jobs, status.at_work = line["jobs"], True
        elif event == "over":
            status.at_work = False
        elif event == "run":
            run, label, epochs = line["about"]
            runs[run] = label, epochs
        elif event == "started":
            now = datetime.fromisoformat(line["time"]).timestamp()
            started |= {run: (now, line["runs"][0], i) for i, run in enumerate(line["runs"])}
        elif line.get("run") in runs:
            run = line["run"]
            started.pop(run, None)
            if event == "failed":
                failed[run] = line
            elif event == "pruned":
                pruned.add(run)
            elif event == "finished":
                finished.add(run)
                spent += line["seconds"]
    age = store.age(LOCK) if store else _age(folder / LOCK)
    status.at_work &= age is not None and age < _PATIENCE
    status.finished, status.pruned = len(finished), len(pruned)
    since = {run: time.time() - began if status.at_work else 0.0 for run, (began, _, _) in started.items()}
    for run, (_, first, place) in started.items():
        path = folder / "notebooks" / f"{first}.ipynb"
        told = [e["text"] for e in _lines(working_files(path).status) if e["run"] == place and e["event"] == "epoch"]
        text = told[-1] if told else ""
        status.running.append(RunStatus(runs[run][0], text, since[run], working_files(path).running))
    for run, line in failed.items():
        notebook = working_files(folder / "notebooks" / f"{run}.ipynb").failed
        status.failed.append(RunStatus(runs[run][0], line["reason"], line["seconds"], notebook))
    if status.finished:
        left = [run for run in runs if run not in finished and run not in failed and run not in pruned]
        each = spent / sum(runs[run][1] for run in finished)
        to_do = [(runs[run][1], since.get(run, 0.0)) for run in left]
        to_do += [to_do[-1] if to_do else (1, 0.0)] * (status.total - status.skipped - len(runs))  # of a search
        status.seconds_left = seconds_left(each, to_do, jobs)
    return status


def told_runs(folder: Path) -> list[Config]:
    """Read the runs that searches have begun in a folder, from its journal."""
    found = []
    for line in _journal(folder):
        if line.get("event") == "run":
            with contextlib.suppress(ValueError, TypeError, KeyError):
                found.append(Config.from_dict(line["config"]))
    return list(dict.fromkeys(found))


def watch(folder: str | Path, every: float = 2.0) -> Iterator[SweepStatus]:
    """Yield where the sweep of a folder stands, every so many seconds, until it is no longer at work."""
    while (status := read_status(folder)).at_work:
        yield status
        time.sleep(every)
    yield status


def _age(path: Path) -> float | None:
    """Return the seconds since a file was written or touched; None if it is not there."""
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime
    return None


def _journal(folder: Path) -> list[dict[str, Any]]:
    """Read what all sweeps of a folder have written down, the first one first."""
    return [line for path in (folder / JOURNAL, *sorted(folder.glob("journal/*.jsonl"))) for line in _lines(path)]


def _lines(path: Path) -> list[dict[str, Any]]:
    """Read lines of JSON that tell of an event; one that is being written, or was cut off, is left out."""
    found = []
    with contextlib.suppress(OSError):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                found += [told] if isinstance(told, dict) and "event" in told else []
    return found
