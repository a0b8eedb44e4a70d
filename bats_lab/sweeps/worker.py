"""What a pool's calls are carried out in: a process for each, forked from one that has imported what they need.

The first process, the *template*, has one thread and never computes, so that it can be forked at any time. Each call's
process ends, and with it the kernel it has running, when its input is closed: after Ctrl-C, and when the pool's own
process was killed. Nor does it need the template any more once it is there.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import warnings
from typing import IO, Any

import psutil

from bats_lab.sweeps.execute import NotebookError, one_line
from bats_lab.sweeps.standby import StandbyKernel

#: What a message to the template begins with.
CALL, PREPARE, STATUS = b"call", b"prepare", b"status"

RUN_NOTEBOOK = "bats_lab.sweeps.execute:run_notebook"


def main(kind: str, folder: str, *descriptors: str) -> None:
    """Be the template, or the process of one call where none can be forked."""
    numbers = list(map(int, descriptors))
    # Python counts the threads of NumPy's BLAS, which it gives back before a fork.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    if kind == "template":
        _be_template(socket.socket(fileno=numbers[0]), folder)
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _import_papermill()
        _be_worker(folder, *numbers, forked=False)


def _be_template(control: socket.socket, folder: str) -> None:
    """Start a process for each call that comes, until the other end of the socket is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _import_papermill()
    while True:
        message, descriptors, *_ = socket.recv_fds(control, 64, 3)
        if not message:
            break
        kind, _, argument = message.partition(b" ")
        if kind == STATUS:
            status = None
            with contextlib.suppress(ChildProcessError):
                status = os.waitstatus_to_exitcode(os.waitpid(int(argument), 0)[1])
            control.send(json.dumps(status).encode())
        elif kind == PREPARE:
            call, reply, log = descriptors
            os.close(log)
            with open(call, encoding="utf-8") as calls, open(reply, "w", encoding="utf-8") as replies:
                if line := calls.readline():
                    function, arguments = json.loads(line)
                    _reply(replies, *_carry_out(function, arguments, replies))
        elif os.fork() == 0:
            control.close()
            _be_worker(os.path.join(folder, argument.decode()), *descriptors, forked=True)
        else:
            for descriptor in descriptors:
                os.close(descriptor)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    shutil.rmtree(folder, ignore_errors=True)


def _import_papermill() -> None:
    # Papermill's jsonschema would compile a grammar of addresses, 2 s; no notebook's schema has any.
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    sys.modules["debugpy"] = None  # type: ignore[assignment]  # nor does anybody debug these kernels
    for slow in ("papermill", "tornado.platform.asyncio", "ipykernel.kernelapp", "ipykernel.debugger"):
        importlib.import_module(slow)
    for slow in ("IPython.core.completerlib", "IPython.core.logger", "IPython.extensions.storemagic"):
        importlib.import_module(slow)
    del sys.modules["debugpy"]


def _be_worker(folder: str, call: int, reply: int, log: int, *, forked: bool) -> None:
    """Carry out one call and end; before that when its input is closed, or by a signal. Leave nothing behind."""
    os.dup2(log, 1)  # what anything in here, or a kernel, writes to standard output must not mix with replies
    os.dup2(log, 2)
    os.close(log)
    calls, replies = open(call, encoding="utf-8"), open(reply, "w", encoding="utf-8")  # noqa: SIM115
    _reply(replies, "process", str(os.getpid()))
    line = calls.readline()
    if not line:
        os._exit(0)
    function, arguments = json.loads(line)
    os.mkdir(folder)
    tempfile.tempdir = os.environ["TMPDIR"] = folder
    if forked and function == RUN_NOTEBOOK:
        arguments["standby"] = StandbyKernel(close=(call, reply))

    def clean() -> None:
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        shutil.rmtree(folder, ignore_errors=True)

    def listen() -> None:
        calls.read()
        clean()
        os._exit(0)

    def stop(number: int, _: Any) -> None:
        clean()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    threading.Thread(target=listen, daemon=True).start()
    outcome = _carry_out(function, arguments, replies)
    clean()
    _reply(replies, *outcome)
    os._exit(0)


def _carry_out(function: str, arguments: dict[str, Any], replies: IO[str]) -> tuple[str, str]:
    """Call a function, and say how that ended."""
    try:
        module, _, name = function.partition(":")
        if function == RUN_NOTEBOOK:
            arguments["on_output"] = lambda text: _reply(replies, "output", text)
        result = getattr(importlib.import_module(module), name)(**arguments)
    except NotebookError as error:
        return "failed", str(error)
    except Exception as error:
        return "failed", one_line(type(error).__name__, error)
    return "finished", result if isinstance(result, str) else ""


def _reply(replies: IO[str], event: str, text: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more: the input is closed, too
        replies.write(json.dumps({"event": event, "text": text}) + "\n")
        replies.flush()


if __name__ == "__main__":
    # As the module of this name: what it defines must be the same here and in what is called.
    importlib.import_module("bats_lab.sweeps.worker").main(*sys.argv[1:])
