"""Papermill executions whose files tell the truth, and the processes that carry them out.

Papermill writes the executed notebook while it runs, and after a timeout, a kernel that died or Ctrl-C every cell
in it looks completed. So a notebook is executed as ``<name>.running.ipynb`` and renamed when it is over:
``<name>.ipynb`` exists only after success, ``<name>.failed.ipynb`` otherwise. Meanwhile it may append what becomes of
its runs, as lines of JSON, to ``<name>.running.jsonl``, which its environment names as :data:`STATUS`.

A :class:`Pool` keeps worker processes which receive calls as lines of JSON and end themselves, and the kernel they have
running, as soon as their input is closed: after the last call, after Ctrl-C, and when the parent was killed.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, NamedTuple

import psutil

__all__ = ["KILLED", "STATUS", "Call", "Event", "NotebookError", "Pool", "run_notebook", "working_files"]

#: The reason given for a run whose process was killed, as the system does when memory runs out.
KILLED = "killed (out of memory?)"

#: Environment variable that names to a notebook the file for what becomes of its runs.
STATUS = "BATS_LAB_STATUS"

_SCALARS = (str, int, float, bool, type(None))


class WorkingFiles(NamedTuple):
    """Files beside an executed notebook while it runs, and after it failed."""

    running: Path
    failed: Path
    status: Path


def working_files(out: str | Path) -> WorkingFiles:
    """Return the files that belong to the execution of a notebook which will be `out`."""
    return WorkingFiles(*map(Path(out).with_suffix, (".running.ipynb", ".failed.ipynb", ".running.jsonl")))


class NotebookError(Exception):
    """A notebook's execution failed; the message is the reason in one line."""


def run_notebook(
    source: str | Path,
    out: str | Path,
    parameters: Mapping[str, Any],
    *,
    cwd: str | Path | None = None,
    on_output: Callable[[str], None] | None = None,
) -> None:
    """Execute a notebook by Papermill so that the files on disk tell how it goes and how it went.

    Parameters
    ----------
    source : path
        The notebook, with a cell tagged ``parameters``.
    out : path ending in ``.ipynb``
        Where the executed notebook is put after success; meanwhile, and after a failure, it is one of
        :func:`working_files`.
    parameters : mapping of str to str, int, float, bool, None or a list of those
        Values that replace those of the parameters cell. All of them must be declared there.
    cwd : path, optional
        Folder from which relative paths in the notebook count; None: that of the process.
    on_output : callable, optional
        Called with each piece of text that the notebook prints.

    Raises
    ------
    ValueError, TypeError
        If the notebook has no such parameter, or a value cannot be written into a notebook.
    NotebookError
        If the execution fails; the message is the reason in one line.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    source, out = Path(source), Path(out)
    values = _checked_parameters(source, parameters)
    out.parent.mkdir(parents=True, exist_ok=True)
    for stale in working_files(out):
        stale.unlink(missing_ok=True)
    running, failed, status = working_files(out)
    with tempfile.TemporaryDirectory(prefix="bats-", ignore_cleanup_errors=True) as folder:
        _folders.add(folder)
        try:
            papermill.execute_notebook(
                str(source),
                str(running),
                parameters=values,
                cwd=None if cwd is None else str(cwd),
                progress_bar=False,
                stdout_file=SimpleNamespace(write=on_output, flush=lambda: None) if on_output else None,
                kernel_manager_class=_kernel_manager_class(folder, {STATUS: str(status)}),
                shutdown_kernel="immediate",  # it has nothing left to do, and takes a second to end by itself
            )
        except BaseException as error:
            if running.exists():
                os.replace(running, failed)
            if isinstance(error, DeadKernelError):
                raise NotebookError(KILLED) from error
            if isinstance(error, PapermillExecutionError):
                raise NotebookError(_one_line(error.ename, error.evalue)) from error
            if isinstance(error, Exception):
                raise NotebookError(_one_line(type(error).__name__, error)) from error
            raise
        finally:
            _folders.discard(folder)
    os.replace(running, out)


def declared_parameters(notebook: Mapping[str, Any]) -> set[str]:
    """Return the names assigned in the cell tagged ``parameters`` (empty if there is no such cell)."""
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code" and "parameters" in c["metadata"].get("tags", [])]
    return set().union(*(assigned_names("".join(cell["source"])) for cell in cells))


def assigned_names(source: str) -> set[str]:
    """Return the names to which a cell assigns.

    Papermill's own inspection overlooks annotations such as ``int | None``.
    """
    assigned = [s for s in ast.parse(source).body if isinstance(s, (ast.Assign, ast.AnnAssign))]
    targets = [target for s in assigned for target in (s.targets if isinstance(s, ast.Assign) else [s.target])]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _checked_parameters(source: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse what Papermill would pass over or write wrongly, and turn tuples into lists and paths into text."""
    declared = declared_parameters(json.loads(source.read_text(encoding="utf-8")))
    values = {}
    for name, given in parameters.items():
        if name not in declared:
            raise ValueError(f"{name!r} is no parameter of {source.name}; it declares {', '.join(sorted(declared))}.")
        value = os.fspath(given) if isinstance(given, os.PathLike) else given
        value = list(value) if isinstance(value, tuple) else value
        if not all(isinstance(v, _SCALARS) for v in (value if isinstance(value, list) else [value])):
            raise TypeError(
                f"{name} is {given!r}; a notebook's parameter must be text, a number, a bool, None or a list."
            )
        values[name] = value
    return values


def _one_line(name: str, message: object) -> str:
    """Write an error as its name and the first line of its message, or its name alone where there is no message."""
    return f"{name}: {message}".strip().splitlines()[0].rstrip(": ")


#: The folders of the sockets of the kernels that this process has running.
_folders: set[str] = set()


def _kernel_manager_class(folder: str, environment: Mapping[str, str]) -> type:
    """Build the class of a kernel manager: over IPC, with its sockets in `folder`, running this very Python.

    Sockets with the default names collide between parallel runs in one working directory; and the user's kernelspec
    ``python3`` may belong to another environment. A socket's path must stay below about 100 characters.
    """
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class IPCKernelManager(AsyncKernelManager):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.transport, self.ip = "ipc", os.path.join(folder, "s")
            self.connection_file = os.path.join(folder, "kernel.json")

        @property
        def kernel_spec(self) -> KernelSpec:
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            env = {name: value.replace("$", "$$") for name, value in environment.items()}  # no variables in there
            return KernelSpec(argv=argv, env=env, display_name="Python 3", language="python")

    return IPCKernelManager


def _end_kernels() -> None:
    """Kill the kernels of this process at once, also one that is just starting, and remove their folders."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    for folder in list(_folders):
        shutil.rmtree(folder, ignore_errors=True)


# The pool of workers


class Call(NamedTuple):
    """A function, as ``module:name``, and its arguments, as JSON can hold them, for a worker process to call."""

    function: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Event:
    """What a pool reports while calls are carried out.

    Its kind is ``started``, ``output``, ``finished``, ``failed``, or ``tick`` when nothing happened for a while;
    `index` says of which call (-1 for a tick), `text` what was printed, or the reason of a failure in one line, and
    `seconds` how long the call took, once it is over.
    """

    kind: str
    index: int = -1
    text: str = ""
    seconds: float = 0.0


class _Worker:
    """One worker process, and a thread that passes its messages on to the pool's queue."""

    def __init__(self, messages: queue.Queue[tuple[_Worker, dict[str, Any] | None]], log: IO[bytes]) -> None:
        self.log = log
        # Its own session: Ctrl-C in a terminal reaches the parent alone, which then ends its workers.
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        self.index = -1
        self.started = 0.0
        self._messages = messages
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._messages.put((self, json.loads(line)))
        self._messages.put((self, None))

    def send(self, index: int, call: Call) -> None:
        assert self.process.stdin is not None
        self.index, self.started = index, time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # it has died: its end is reported by the thread
            self.process.stdin.write((json.dumps([call.function, call.arguments]) + "\n").encode())
            self.process.stdin.flush()

    def end(self) -> None:
        """Close its input, upon which it ends itself and its kernel."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def stop(self) -> None:
        """Let it end itself; kill it where it does not."""
        self.end()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def reason_of_end(self) -> str:
        """Say why the process ended by itself."""
        code = self.process.wait()
        if code == -signal.SIGKILL:
            return KILLED
        self.log.seek(0)
        last = self.log.read().decode(errors="replace").strip().splitlines()[-1:]
        return ": ".join([f"its process ended with exit status {code}", *last])


class Pool(contextlib.AbstractContextManager["Pool"]):
    """Processes that carry out calls, a fixed number at a time; a context manager.

    Parameters
    ----------
    size : int
        Number of worker processes. They start at once, so that their imports are done when the first call comes.

    Examples
    --------
    >>> with Pool(1) as pool:
    ...     [event.kind for event in pool.run([Call("math:sqrt", {})]) if event.kind != "tick"]
    ['started', 'failed']
    """

    def __init__(self, size: int) -> None:
        self._messages: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()
        self._logs = contextlib.ExitStack()
        self._workers = [self._start() for _ in range(size)]

    def _start(self) -> _Worker:
        return _Worker(self._messages, self._logs.enter_context(tempfile.TemporaryFile()))

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers and their kernels."""
        for worker in self._workers:  # all at once, before one is waited for
            worker.end()
        for worker in self._workers:
            worker.stop()
        self._workers = []
        self._logs.close()

    def run(self, calls: Sequence[Call], *, timeout: float | None = None) -> Iterator[Event]:
        """Carry out calls and report, from the first start to the last end.

        Parameters
        ----------
        calls : sequence of Call
            They start in this order.
        timeout : float, optional
            Seconds after which a call is ended and reported as failed.

        Yields
        ------
        Event
            At least one a second.
        """
        waiting = list(enumerate(calls))
        for worker in [w for w in self._workers if w.process.poll() is not None]:
            self._replace(worker)
        idle = list(self._workers)
        busy: list[_Worker] = []
        while waiting or busy:
            while waiting and idle:
                index, call = waiting.pop(0)
                worker = idle.pop(0)
                worker.send(index, call)
                busy.append(worker)
                yield Event("started", index)
            try:
                worker, message = self._messages.get(timeout=1.0)
            except queue.Empty:
                yield Event("tick")
            else:
                if worker in busy and message is not None and message["event"] == "output":
                    yield Event("output", worker.index, message["text"])
                elif worker in busy:
                    busy.remove(worker)
                    seconds = time.monotonic() - worker.started
                    if message is None:
                        reason = worker.reason_of_end()
                        idle.append(self._replace(worker))
                        yield Event("failed", worker.index, reason, seconds)
                    else:
                        idle.append(worker)
                        yield Event(message["event"], worker.index, message["text"], seconds)
                elif worker in idle:  # it died, and nothing waits for it
                    idle.remove(worker)
            for worker in [w for w in busy if timeout and time.monotonic() - w.started > timeout]:
                busy.remove(worker)
                idle.append(self._replace(worker))
                yield Event("failed", worker.index, f"stopped after {timeout:g} s", time.monotonic() - worker.started)

    def _replace(self, worker: _Worker) -> _Worker:
        worker.stop()
        fresh = self._start()
        self._workers[self._workers.index(worker)] = fresh
        return fresh


# Inside a worker process


def _work() -> None:
    """Carry out calls from standard input until it is closed; then end, whatever is running."""
    reply_to = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what anything in here, or a kernel, writes to standard output must not mix with replies
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    calls: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            calls.put(line)
        _end_kernels()
        os._exit(0)

    def reply(event: str, text: str = "") -> None:
        reply_to.write(json.dumps({"event": event, "text": text}) + "\n")
        reply_to.flush()

    threading.Thread(target=listen, daemon=True).start()
    # Papermill's jsonschema would compile a grammar of addresses, 2 s in each worker; no notebook's schema has any.
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    import papermill  # noqa: F401  (the slowest import, while nothing waits for it)

    while True:
        name, arguments = json.loads(calls.get())
        try:
            module, function = name.split(":")
            target = getattr(importlib.import_module(module), function)
            if target is run_notebook:
                arguments["on_output"] = lambda text: reply("output", text)
            target(**arguments)
        except NotebookError as error:
            reply("failed", str(error))
        except Exception as error:
            reply("failed", _one_line(type(error).__name__, error))
        else:
            reply("finished")


if __name__ == "__main__":
    # As the module of this name: a NotebookError must be the same class here and in what is called.
    importlib.import_module("bats_lab.sweeps.execute")._work()
