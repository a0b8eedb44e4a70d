"""A sweep whose results go into an object store: one at a time there, too, and a thread that brings them there.

Runs leave their files in the mirror of the store (:mod:`bats_lab.runs.store`). While the sweep is at work a thread puts
what is new into the store every other second, so that a store that refuses for a while delays no run.

The lock is the object ``.lock``. It is created in one step that fails where there is one, names its holder, and is
written anew every few seconds. A lock that nobody writes is taken: at once where its holder had this very mirror, whose
own lock is free; else after it has been watched for a while, by no other clock than the watcher's. A holder that was
only asleep finds its lock taken, and stops. As no run replaces another sweep's, the worst of it is a run done twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bats_lab.errors import BatsLabError, StoreError
from bats_lab.runs.store import BRIEF, PATIENCE, RESULTS, Store
from bats_lab.sweeps.folder import FolderLock
from bats_lab.sweeps.journal import LOCK, Journal

__all__ = ["SWEEP_FILES", "StoreLock", "folder_lock"]

#: What a sweep wants to know of a store before it starts.
SWEEP_FILES = (*RESULTS, "partial-*.nc", "checkpoints/*", "journal/*", "notebooks/*.running.*", "notebooks/*.failed.*")

#: Seconds between two looks at what is new, and between two signs of life.
_EVERY, _HEARTBEAT = 2.0, 5.0

#: Without a sign of life for so many seconds a lock is taken over.
_SILENCE = 30.0


def folder_lock(folder: Path, store: Store | None, *, watches: bool = False) -> FolderLock:
    """Return the lock of a sweep's folder, and of the store of which it is the mirror."""
    return FolderLock(folder) if store is None else StoreLock(store, watches=watches)


class StoreLock(FolderLock):
    """Hold the lock of a store, and bring what its mirror has to it; a context manager.

    Parameters
    ----------
    store : Store
    watches : bool
        Whether to fetch what runs tell of themselves: those of a cluster, whose workers have mirrors of their own.

    Raises
    ------
    BatsLabError
        If another sweep is at work there.
    StoreError
        If the store cannot be reached; and in the end, if it has not taken all for ten minutes.
    """

    def __init__(self, store: Store, *, watches: bool = False) -> None:
        self._store, self._watches = store, watches
        super().__init__(store.folder, store.url)
        self._token = secrets.token_hex(8)
        try:
            self._mirror = _identity(store.folder)
            self._create()
            store.fetch(*SWEEP_FILES)  # since it was planned another sweep may have ended
        except BaseException:
            self._file.close()
            raise
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        self.journal = _Heard(store.folder, f"journal/{now}-{self._token}.jsonl", self)
        self._lost = self._trouble = ""
        self._told = False
        self._over, self._until = threading.Event(), float("inf")
        self._beat_at = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="store", daemon=True)
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        self._until = time.monotonic() + (PATIENCE if kind is None else BRIEF)
        self._over.set()
        try:
            while self._thread.is_alive() and time.monotonic() < self._until + _HEARTBEAT:
                self._thread.join(1)
                self.tell()
        finally:
            self._file.close()
        silent = f"{self._store.url} does not answer." if self._thread.is_alive() else ""
        if kind is None and (reason := self._lost or self._trouble or silent):
            raise StoreError(f"{reason} {self._store.kept()}".strip())

    def check(self) -> None:
        """Take the mirror's lock anew where it has been removed; a BatsLabError if the store's is somebody else's."""
        super().check()
        if self._lost:
            raise BatsLabError(self._lost)

    def tell(self) -> None:
        """Warn, once each time, that the store does not take what is finished; called by the sweep's own thread."""
        trouble = self._trouble
        if trouble and not self._told and not self._lost:
            kept = f"What is finished is kept in {self._store.folder} until it does."
            warnings.warn(f"{trouble} {kept}", stacklevel=2)
        self._told = bool(trouble)

    # The lock

    def _content(self) -> bytes:
        about = {"token": self._token, "host": socket.gethostname(), "pid": os.getpid(), "mirror": self._mirror}
        return json.dumps(about | {"beat": time.time()}).encode()

    def _create(self) -> None:
        watched, end = "", 0.0
        while True:
            with contextlib.suppress(FileExistsError):
                self._store.write(LOCK, self._content(), new=True)
                return
            found = self._store.read(LOCK)
            if found is None:
                continue
            holder, tag = _holder(found[0]), found[1]
            if holder.get("mirror") == self._mirror or (watched == tag and time.monotonic() > end):
                self._store.remove(LOCK)
            elif watched and watched != tag:
                raise BatsLabError(
                    f"Another sweep is at work in {self._store.url} (process {holder.get('pid')} on "
                    f"{holder.get('host')}); wait until it is over, or choose another folder."
                )
            else:
                end = end if watched else time.monotonic() + _SILENCE
                watched = tag
                time.sleep(0.5)

    def _is_ours(self) -> bool:
        """Give a sign of life, and tell whether the lock is still this sweep's; one that is gone is made anew."""
        found = self._store.read(LOCK)
        if found is not None and _holder(found[0]).get("token") != self._token:
            return False
        try:
            self._store.write(LOCK, self._content(), new=found is None)
        except FileExistsError:
            return False
        return True

    # The thread

    def _work(self) -> None:
        pause = _EVERY
        while True:
            over = self._over.wait(pause)
            try:
                if over or time.monotonic() > self._beat_at + _HEARTBEAT:
                    if not self._is_ours():
                        self._lost = (
                            f"Another sweep has taken over {self._store.url}, as this one was silent; it stops."
                        )
                    self._beat_at = time.monotonic()
                if self._watches and not over:
                    self._store.fetch("notebooks/*.running.jsonl")
                self._store.put()
                if over or self._lost:
                    if not self._lost:
                        self._store.remove(LOCK)
                    self._trouble = ""
                    return
                self._trouble, pause = "", _EVERY
            except StoreError as error:
                self._trouble, pause = str(error), min(2 * pause, _HEARTBEAT)
            except OSError as error:  # of the mirror: its disk is full, or it is gone
                self._trouble = f"{self._store.folder} cannot be read or written: {error}."
            if over:
                if time.monotonic() > self._until:
                    return
                time.sleep(1.0)


class _Heard(Journal):
    """A journal whose signs of life tell, too, of the store."""

    def __init__(self, folder: Path, name: str, lock: StoreLock) -> None:
        super().__init__(folder, name)
        self._of = lock

    def beat(self) -> None:
        super().beat()
        self._of.tell()


def _holder(content: bytes) -> dict[str, Any]:
    """Read who holds a lock; nothing is known of what is damaged."""
    with contextlib.suppress(ValueError):
        about = json.loads(content)
        if isinstance(about, dict):
            return about
    return {}


def _identity(folder: Path) -> str:
    """Return the text that tells this mirror from any other, whatever machines are called."""
    path = folder / ".store" / ".mirror"
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError), path.open("x") as file:
        file.write(secrets.token_hex(8))
    return path.read_text()
