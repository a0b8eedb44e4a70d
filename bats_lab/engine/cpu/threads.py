"""The threads of the kernels: how many, and in which process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

# Threads meet a dozen times in a training step. Where another program holds a core, GNU OpenMP by default spins
# for milliseconds at each meeting, and training slows down many times. So it spins for some 50 µs and then sleeps.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import numba

from bats_lab.errors import DeviceError

__all__ = ["using"]

#: The process that started the kernels' threads; they are not there in a copy of it made by fork.
_owner: int | None = None


@contextmanager
def using(threads: int = 0) -> Iterator[None]:
    """Run what is inside with a number of threads; 0 for one a core.

    Raises
    ------
    DeviceError
        If this process was forked from one that has computed already: OpenMP would abort it, or wait for ever.
    """
    global _owner
    if _owner not in (None, os.getpid()):
        raise DeviceError(
            "This process was forked from one that has trained already, whose threads it lacks; start processes "
            'afresh, by multiprocessing.get_context("spawn"), joblib\'s loky or Dask.'
        )
    most = numba.config.NUMBA_NUM_THREADS
    if threads < 0 or threads > most:
        raise ValueError(f"threads is {threads}; it must be 0 (one a core) or at most {most}.")
    _owner = os.getpid()
    before = numba.get_num_threads()
    numba.set_num_threads(threads or most)
    try:
        yield
    finally:
        numba.set_num_threads(before)
