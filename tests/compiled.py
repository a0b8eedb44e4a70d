"""Compile the kernels: those of the CPU engine, and those of the CUDA engine as the emulated device runs them.

It runs once, before tests run in several processes. Of processes that compile the same kernel at the same time each
does the whole work, and numba's cache may keep the code of one type under the name of another.
"""

from __future__ import annotations

import warnings

import backends  # noqa: F401  (adds the emulated device to those of the engine)
from emulated import compiler
from strategies import RULES, random_case

from bats_lab.config import Config
from bats_lab.runs.experiment import run_experiment


def compile_kernels() -> None:
    """Train once in each type, and go once forward and backward by each rule."""
    for device in ("cpu", "emulated") if compiler() else ("cpu",):
        for dtype in ("float32", "float64"):
            with warnings.catch_warnings(action="ignore"):  # of classes that no neuron has learned
                run_experiment(Config(n_train=20, n_test=20, hidden=4, epochs=1, dtype=dtype), device=device, threads=1)
            for rule in RULES:
                random_case(0, rule).gradients(device, dtype)


if __name__ == "__main__":
    compile_kernels()
