"""A sweep's folder: one sweep at a time is at work in it, and what a killed one left behind is put in order."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

from bats_lab.errors import BatsLabError
from bats_lab.sweeps.execute import stop_file, working_files
from bats_lab.sweeps.journal import LOCK, Journal

__all__ = ["FolderLock", "remove_parts", "settle", "settle_folder"]


class FolderLock(contextlib.AbstractContextManager["FolderLock"]):
    """Hold a folder's lock, and make the folder if it is not there; a context manager.

    The system takes the lock back when the process ends, however it ends. `url` is that of a store of which the folder
    is the mirror.

    Raises
    ------
    BatsLabError
        If another sweep is at work in the folder.
    """

    def __init__(self, folder: Path, url: str = "") -> None:
        self._folder, self.url = folder, url
        self._file = self._take()
        self.journal = Journal(folder)

    def __exit__(self, *_: Any) -> None:
        self._file.close()

    def check(self) -> None:
        """Take the lock anew where the folder has been removed meanwhile, and with it the lock."""
        try:
            ours = os.path.samestat(os.fstat(self._file.fileno()), os.stat(self._folder / LOCK))
        except OSError:
            ours = False
        if not ours:
            with contextlib.suppress(OSError):  # it cannot be made again now; runs will tell
                file = self._take()
                self._file.close()
                self._file = file

    def _take(self) -> IO[str]:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / LOCK
        # Not to be written through, or nobody could make the file system read-only meanwhile.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_CREAT, 0o666))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            with file:
                holder = file.read().strip()
            where = f"{self.url or self._folder} (process {holder})" if holder else self.url or self._folder
            raise BatsLabError(
                f"Another sweep is at work in {where}; wait until it is over, or choose another folder."
            ) from None
        with contextlib.suppress(OSError):  # it is full; the lock holds all the same
            path.write_text(str(os.getpid()))
        return file


def remove_parts(folder: Path, runs: Collection[str]) -> None:
    """Remove what is left of files of results that were being written when their process was killed.

    `runs` are the names of the files, without suffix, of runs that nobody is at work on.
    """
    with contextlib.suppress(OSError):
        for part in [*folder.glob(".*.part"), *(folder / ".cache").glob(".*.part")]:
            if part.name[1:].rpartition(".nc.")[0].replace("partial-", "run-", 1) in runs:
                part.unlink()


def settle(notebook: Path, finished: bool, *, failed: bool = True) -> None:
    """Leave of an execution that was cut off the notebook of a finished run, and nothing else.

    A run is finished when its results are; the process may have been killed before it could name its notebook so. With
    `failed` what is named a failure belongs to it, too.
    """
    files = working_files(notebook)
    parts = [files.running, files.failed] if failed or finished else [files.running]
    with contextlib.suppress(OSError):
        for part in parts:
            if finished and part.exists() and not notebook.exists():
                os.replace(part, notebook)
            part.unlink(missing_ok=True)
        files.status.unlink(missing_ok=True)
        stop_file(files.status).unlink(missing_ok=True)


def settle_folder(folder: Path, runs: Collection[str] = ()) -> None:
    """Settle what sweeps left in a folder that were killed; `runs` are those of the sweep that is to come."""
    remove_parts(folder, runs)
    notebooks = folder / "notebooks"
    for part in notebooks.glob(".*.part"):
        part.unlink()
    for left in [*notebooks.glob("*.running.*"), *notebooks.glob("*.failed.ipynb")]:
        name = left.name.rpartition(".running." if ".running." in left.name else ".failed.")[0]
        settle(left.with_name(f"{name}.ipynb"), (folder / f"{name}.nc").exists(), failed=False)
