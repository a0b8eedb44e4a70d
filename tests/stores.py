"""A real S3 server on this machine, behind a door that can be shut."""

from __future__ import annotations

import contextlib
import selectors
import socket
import subprocess
import sys
import threading
import time
from typing import Any

_REFUSAL = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class S3:
    """An S3 server (moto's) as a process of its own, with one bucket, reached through a port of this process.

    While `refusing` is set every request is answered by 503, as an overloaded store answers.
    """

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.refusing, self.refused = False, 0
        self._open: set[socket.socket] = set()
        self._door = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._door.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",  # so that what is refused is said soon
        }

    def wait(self) -> None:
        """Wait until it answers."""
        end = time.monotonic() + 60
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port)):
                return
            time.sleep(0.05)
        raise AssertionError("the S3 server does not start")

    def refuse(self, refusing: bool) -> None:
        """Shut or open the door, for connections that are open, too."""
        self.refusing = refusing
        for line in list(self._open) if refusing else []:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        self._door.close()
        self._process.terminate()
        self._process.wait(30)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._pass_on, args=(self._door.accept()[0],), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if self.refusing:
                client.recv(1 << 16)
                client.sendall(_REFUSAL)
                self.refused += 1
                return
            with socket.create_connection(("127.0.0.1", self._port)) as server, selectors.DefaultSelector() as ready:
                ends: dict[Any, socket.socket] = {client: server, server: client}
                self._open |= {client}
                for one in ends:
                    ready.register(one, selectors.EVENT_READ)
                while all(self._moved(key.fileobj, ends) for key, _ in ready.select()):
                    pass
        self._open.discard(client)

    @staticmethod
    def _moved(one: Any, ends: dict[Any, socket.socket]) -> bool:
        content = one.recv(1 << 16)
        ends[one].sendall(content)
        return bool(content)
