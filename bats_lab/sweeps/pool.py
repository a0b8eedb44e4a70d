"""A pool of processes that carry out calls: one process a call, a fixed number at a time."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from bats_lab.sweeps import worker
from bats_lab.sweeps.execute import KILLED

__all__ = ["Call", "Event", "Pool"]

_PREFIX = "bats-pool-"


class Call(NamedTuple):
    """A function, as ``module:name``, and its arguments, as JSON can hold them, for a worker process to call."""

    function: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Event:
    """What a pool reports while calls are carried out.

    Its kind is ``started``, ``output``, ``finished``, ``failed``, or ``tick`` when nothing happened for a while;
    `index` says of which call (-1 for a tick), `text` what was printed, the text that the function returned, or the
    reason of a failure in one line, `seconds` how long the call took, once it is over, and `where` on which machine, if
    that is another one.
    """

    kind: str
    index: int = -1
    text: str = ""
    seconds: float = 0.0
    where: str = ""


class _Template:
    """The process from which those of calls are forked."""

    def __init__(self, folder: str) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._control, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", worker.__name__, "template", folder, str(theirs.fileno())]
        with theirs:
            # Its own session: Ctrl-C in a terminal reaches the parent alone, which then ends its workers.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def start(self, kind: bytes, descriptors: list[int], folder: str) -> None:
        socket.send_fds(self._control, [kind + b" " + folder.encode()], descriptors)

    def exit_status(self, process: int) -> int | None:
        """Wait for the end of a call's process; None if the template was killed before it."""
        with contextlib.suppress(OSError, ValueError):
            self._control.send(worker.STATUS + f" {process}".encode())
            status: int | None = json.loads(self._control.recv(64))
            return status
        return None

    def failure(self) -> str:
        """Say why it ended, if it did so by itself; empty if it did not."""
        return _last_words(self._log) if (self._process.poll() or 0) > 0 else ""

    def end(self) -> None:
        self._control.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


class _Process:
    """One call's process, as seen from here: its input, and a thread that puts its messages into the pool's queue."""

    def __init__(self, index: int, folder: Path, messages: queue.Queue[tuple[_Process, dict[str, Any] | None]]) -> None:
        self.index, self.folder, self.started = index, folder, time.monotonic()
        self.pid: int | None = None
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        self.ended = threading.Event()
        self._messages = messages
        calls, self._input = os.pipe()
        self._output, replies = os.pipe()
        self.theirs = [calls, replies, self.log.fileno()]

    def send(self, call: Call) -> None:
        """Send the call; its process has been started, and has descriptors of its own."""
        for descriptor in self.theirs[:2]:
            os.close(descriptor)
        threading.Thread(target=self._listen, daemon=True).start()
        text = json.dumps([call.function, call.arguments]) + "\n"
        threading.Thread(target=self._write, args=(text.encode(),), daemon=True).start()

    def _write(self, text: bytes) -> None:
        # In a thread, as a process that is not there yet reads no more than a pipe holds.
        with contextlib.suppress(OSError):
            while text:
                text = text[os.write(self._input, text) :]

    def _listen(self) -> None:
        with open(self._output, encoding="utf-8") as lines:
            for line in lines:
                message = json.loads(line)
                if message["event"] == "process":
                    self.pid = int(message["text"])
                else:
                    self._messages.put((self, message))
        self.ended.set()
        self._messages.put((self, None))

    def end(self) -> None:
        """Close its input, upon which it ends itself and its kernel."""
        if self._input >= 0:
            os.close(self._input)
            self._input = -1

    def stop(self) -> None:
        """Let it end itself; kill it where it does not."""
        self.end()
        if not self.ended.wait(5) and self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class Pool(contextlib.AbstractContextManager["Pool"]):
    """Processes that carry out calls, a fixed number at a time; a context manager.

    Each call has a process of its own, forked from one that imports what calls need as soon as there is a pool, and can
    be told to load more (:meth:`prepare`). What a call's process leaves in folders for temporary files is removed.

    Parameters
    ----------
    size : int
        Number of processes at a time.
    fork : bool, optional
        Whether to fork them; None: where that is safe, on Linux. Otherwise each imports for itself.

    Examples
    --------
    >>> with Pool(1) as pool:
    ...     [event.kind for event in pool.run([Call("math:sqrt", {})]) if event.kind != "tick"]
    ['started', 'failed']
    """

    def __init__(self, size: int, *, fork: bool | None = None) -> None:
        self.size = size
        self._fork = sys.platform == "linux" if fork is None else fork
        self._messages: queue.Queue[tuple[_Process, dict[str, Any] | None]] = queue.Queue()
        self._processes: list[_Process] = []
        self._popens: dict[int, subprocess.Popen[bytes]] = {}
        self._numbers = itertools.count()
        self._prepared: list[Call] = []
        _remove_leftovers()
        self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = (self._folder / "new").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.rename(self._folder / "new", self._folder / "lock")  # held from the moment it can be seen
        self._template = _Template(str(self._folder)) if self._fork else None

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes and their kernels."""
        for process in self._processes:  # all at once, before one is waited for
            process.end()
        for process in list(self._processes):
            self._reap(process)
        if self._template is not None:
            self._template.end()
        self._lock.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def prepare(self, call: Call) -> Iterator[Event]:
        """Carry out a call in the process from which others are forked, so that they find done what it did.

        It must neither start threads nor compute. Where processes are not forked nothing happens.
        """
        if self._template is not None:
            yield from self._run([call], worker.PREPARE, None)
            self._prepared.append(call)

    def run(self, calls: Iterable[Call], *, timeout: float | None = None) -> Iterator[Event]:
        """Carry out calls and report, from the first start to the last end.

        Parameters
        ----------
        calls : iterable of Call
            They start in this order; one is taken when a process is free for it, and what has been reported is known.
        timeout : float, optional
            Seconds after which a call is ended and reported as failed.

        Yields
        ------
        Event
            At least one a second.
        """
        yield from self._run(calls, worker.CALL, timeout)

    def _run(self, calls: Iterable[Call], kind: bytes, timeout: float | None) -> Iterator[Event]:
        waiting = enumerate(calls)
        busy: set[_Process] = set()
        while True:
            for index, call in itertools.islice(waiting, self.size - len(busy)):
                busy.add(self._start(index, call, kind))
                yield Event("started", index)
            if not busy:
                break
            try:
                process, message = self._messages.get(timeout=1.0)
            except queue.Empty:
                yield Event("tick")
            else:
                seconds = time.monotonic() - process.started
                if message is None:
                    reason = self._reap(process)
                    if process in busy:  # it ended without a reply
                        busy.remove(process)
                        yield Event("failed", process.index, reason, seconds)
                elif process in busy:
                    if message["event"] != "output":
                        busy.remove(process)
                        process.end()
                    yield Event(message["event"], process.index, message["text"], seconds)
            for process in [p for p in busy if timeout and time.monotonic() - p.started > timeout]:
                busy.remove(process)
                seconds = time.monotonic() - process.started
                process.stop()
                yield Event("failed", process.index, f"stopped after {timeout:g} s", seconds)

    def _start(self, index: int, call: Call, kind: bytes) -> _Process:
        number = str(next(self._numbers))
        process = _Process(index, self._folder / number, self._messages)
        if self._template is None:
            command = [sys.executable, "-m", worker.__name__, "call", str(process.folder)]
            popen = subprocess.Popen(
                [*command, *map(str, process.theirs)],
                stdin=subprocess.DEVNULL,
                pass_fds=process.theirs,
                start_new_session=True,
            )
            self._popens[popen.pid] = popen
        else:
            try:
                self._template.start(kind, process.theirs, number)
            except OSError:  # it was killed
                self._template.end()
                self._template = _Template(str(self._folder))
                for prepared in self._prepared:
                    self._start(-1, prepared, worker.PREPARE)
                self._template.start(kind, process.theirs, number)
        self._processes.append(process)
        process.send(call)
        return process

    def _reap(self, process: _Process) -> str:
        """Wait for the end of a process, and say why it ended, if it did so without a reply."""
        process.stop()
        self._processes.remove(process)
        status = None  # where nobody knows it
        if process.pid is not None:
            template = self._template
            status = template.exit_status(process.pid) if template else self._popens.pop(process.pid).wait()
        shutil.rmtree(process.folder, ignore_errors=True)  # where it was killed before it could do so itself
        with process.log as log:
            if status is None or status == -signal.SIGKILL:
                return (self._template and self._template.failure()) or KILLED
            if status < 0:
                return f"its process was ended by {signal.Signals(-status).name}"
            return f"its process ended with exit status {status}: {_last_words(log)}".removesuffix(": ")


def _last_words(log: IO[bytes]) -> str:
    """Return the last line of a log."""
    log.seek(0)
    return "".join(log.read().decode(errors="replace").strip().splitlines()[-1:])


def _remove_leftovers() -> None:
    """Remove the folders of pools that were killed so thoroughly that nothing of them could do it."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/lock"):
        with contextlib.suppress(OSError), lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
