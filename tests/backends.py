"""Backends by name, as tests ask for them: those of the package, and the CUDA kernels run on the CPU."""

from __future__ import annotations

import functools
import os
from typing import Any

import pytest
from emulated import EmulatedDevice, compiler, folder

from bats_lab import engine
from bats_lab.engine import get_backend
from bats_lab.engine.cuda.networks import CudaBackend
from bats_lab.errors import DeviceError


@functools.cache
def emulated_backend() -> Any:
    """The CUDA engine with its kernels run on the CPU, by the name ``emulated`` in tests only."""
    return CudaBackend(EmulatedDevice(folder()))


engine._BACKENDS["emulated"] = emulated_backend


def usable(name: str) -> str:
    """Return the name of a backend, or skip the test that asks for it where it cannot be used."""
    if name == "emulated" and compiler() is None:
        pytest.skip("needs a C++ compiler")
    try:
        get_backend(name)
    except DeviceError as error:
        pytest.skip(str(error))
    if name == "cuda" and os.environ.get("BATS_LAB_NO_POOL"):  # see the Makefile's target sanitize
        import cupy

        cupy.cuda.set_allocator(None)
    return name
