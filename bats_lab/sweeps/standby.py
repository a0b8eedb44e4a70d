"""A kernel forked before it is needed, from a process that has imported what its notebook will.

Importing takes a kernel of its own seconds; a copy of a process that has done so already is there in milliseconds.
Only Linux forks safely: elsewhere the libraries of the system may have threads, which a copy lacks.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import sys
from collections.abc import Sequence
from typing import Any

import psutil

__all__ = ["StandbyKernel", "end_with_parent"]


def end_with_parent() -> None:
    """Have the system kill this process, just forked, when its parent ends, however that ends (on Linux)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class StandbyKernel(psutil.Process):  # type: ignore[misc]  # psutil has no types
    """A copy of this process that waits to become a kernel, with the methods of Popen that Jupyter calls.

    It has to be made while this process has one thread, and ends when this process does. Descriptors in `close` are not
    for it.
    """

    stdin = stdout = stderr = None

    def __init__(self, close: Sequence[int] = ()) -> None:
        parent = os.getpid()
        told, self._tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            end_with_parent()
            for descriptor in (self._tell, *close):
                os.close(descriptor)
            with open(told, encoding="utf-8") as pipe:
                text = pipe.read()
            if text and os.getppid() == parent:
                _become_kernel(**json.loads(text))
            os._exit(0)
        os.close(told)
        super().__init__(pid)

    def start(self, connection_file: str, env: dict[str, str], cwd: str) -> None:
        """Let it be a kernel, with this environment, in this folder."""
        with open(self._tell, "w", encoding="utf-8") as pipe:
            json.dump({"connection_file": connection_file, "env": env, "cwd": cwd}, pipe)

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        try:
            status: int = self.wait(0)
        except psutil.TimeoutExpired:
            return None
        return status

    def provisioner(self, kernel_spec: Any, parent: Any) -> Any:
        """Return what a kernel's manager starts this kernel by."""
        from jupyter_client.provisioning.local_provisioner import LocalProvisioner

        kernel = self

        class Provisioner(LocalProvisioner):
            async def launch_kernel(self, cmd: list[str], **options: Any) -> Any:
                kernel.start(parent.connection_file, options["env"], options.get("cwd") or os.getcwd())
                self.process, self.pid = kernel, kernel.pid
                return self.connection_info

        return Provisioner(kernel_spec=kernel_spec, parent=parent)


def _become_kernel(connection_file: str, env: dict[str, str], cwd: str) -> None:
    """Do as ``python -m ipykernel_launcher``."""
    from ipykernel.kernelapp import IPKernelApp

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    if not sys.flags.safe_path:
        sys.path.pop(0)  # where the sweep was started; a kernel puts its own folder there
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # or all kernels would draw the same numbers
    app = IPKernelApp.instance()
    app.initialize(["-f", connection_file, "--HistoryManager.enabled=False"])
    app.start()
