"""A real Dask cluster on this machine, started as a user starts one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
from sweeping import wait_for


class Cluster:
    """A scheduler and two workers, as processes of their own, with these variables in their environment."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self._environment = os.environ | environment
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self._folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.start()

    def start(self) -> None:
        dask_command = [sys.executable, "-m", "dask"]
        scheduler = ["scheduler", "--host", "127.0.0.1", "--port", self.address.rpartition(":")[2], "--no-dashboard"]
        worker = ["worker", self.address, "--nthreads", "1", "--no-dashboard", "--local-directory", str(self._folder)]
        worker += ["--death-timeout", "30"]  # one that starts while the scheduler is gone would wait for ever
        with (self._folder / "log").open("ab") as log:
            self.processes = [
                subprocess.Popen(dask_command + part, stdout=log, stderr=log, env=self._environment)
                for part in (scheduler, worker, worker)
            ]
        wait_for(self.answers, self.processes[0])

    def answers(self) -> bool:
        """Whether the scheduler listens."""
        with socket.socket() as line:
            return line.connect_ex(("127.0.0.1", int(self.address.rpartition(":")[2]))) == 0

    def workers(self) -> list[psutil.Process]:
        """The processes in which runs' processes are started: children of the commands, which start them anew."""
        children = [child for p in self.processes[1:] for child in psutil.Process(p.pid).children()]
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]

    def end(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(30)
