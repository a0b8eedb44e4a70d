"""Compiled code loaded once, by a process that never runs it, for those that are forked from it."""

from __future__ import annotations

import base64
import importlib
import os
import pickle
import sys
from collections.abc import Sequence

from numba.core.dispatcher import Dispatcher
from numba.np.ufunc import parallel

from bats_lab.engine.kernels import compile_kernels

__all__ = ["list_kernels", "load_kernels"]


def list_kernels(device: str = "auto", dtypes: Sequence[str] = ("float32",)) -> str:
    """Compile all kernels of a device, as :func:`compile_kernels`, and list them.

    Returns
    -------
    str
        The list, for :func:`load_kernels` of another process with the same version of numba.
    """
    compile_kernels(device, dtypes)
    modules = [module for name, module in sys.modules.items() if name.startswith("bats_lab.")]
    found = [
        (module.__name__, name, kernel.signatures)
        for module in modules
        for name, kernel in vars(module).items()
        if isinstance(kernel, Dispatcher) and kernel.signatures
    ]
    return base64.b64encode(pickle.dumps(found)).decode()


def load_kernels(kernels: str) -> None:
    """Load compiled kernels, listed by :func:`list_kernels`, from where they are kept on disk; run none of them.

    A process may then be forked from this one, and finds them loaded.
    """
    for module, name, signatures in pickle.loads(base64.b64decode(kernels)):
        for signature in signatures:
            getattr(importlib.import_module(module), name).compile(signature)
    os.register_at_fork(after_in_child=_restart_threads)


def _restart_threads() -> None:
    """Have numba's threads belong to this process: what has been loaded has readied them in its parent."""
    parallel._is_initialized = False
    parallel._launch_threads()
