"""Compile the kernels: those of the CPU engine, and those of the CUDA engine as the emulated device runs them.

It runs once, before tests run in several processes. Of processes that compile the same kernel at the same time each
does the whole work, and numba's cache may keep the code of one type under the name of another.
"""

from __future__ import annotations

import backends  # noqa: F401  (adds the emulated device to those of the engine)
from emulated import compiler

from bats_lab.engine.kernels import compile_kernels

if __name__ == "__main__":
    for device in ("cpu", "emulated") if compiler() else ("cpu",):
        compile_kernels(device, ["float32", "float64"])
