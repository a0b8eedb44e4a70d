"""What tells that kernels are being compiled: wherever it happens, at once, in one line."""

from __future__ import annotations

import sys
import time

from numba.core import event
from tqdm import tqdm

__all__ = ["Teller", "tell_of_compiling"]


class Teller(event.Listener):  # type: ignore[misc]  # numba has no types
    """Tells once of kernels that are compiled one after the other."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def on_start(self, event: event.Event) -> None:
        """Tell, unless a kernel has just been compiled."""
        module = getattr(getattr(event.data["dispatcher"], "py_func", None), "__module__", "")
        if module.startswith(__package__):
            if time.monotonic() > self._last + 5:
                tqdm.write("compiling the engine, once: about half a minute", file=sys.stderr)
                sys.stderr.flush()
            self._last = time.monotonic()

    def on_end(self, event: event.Event) -> None:
        """Remember when."""
        self._last = time.monotonic()


def tell_of_compiling() -> None:
    """Tell of each compilation from now on, on standard error: also in a notebook, and where output is a file."""
    event.register("numba:compile", Teller())
