"""Study what a digital clock does to a spiking network.

Spiking networks with exact spike times, trained by error backpropagation, on any time grid::

    import bats_lab

    for delta_t in (0, 0.004, 0.008):
        config = bats_lab.Config(dataset="mnist_small", delta_t=delta_t, rule="drop", epochs=3)
        run = bats_lab.run_experiment(config)                 # an xarray.Dataset
        bats_lab.save_run(run, "results/first")               # one run, one file
    results = bats_lab.open_results("results/first")          # all runs of a folder as one Dataset
    print(results.accuracy.sel(split="test").isel(epoch=-1))

What is named here is loaded on first use, so importing the package is fast and needs no plotting library.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bats_lab import explore, plots
    from bats_lab.config import Config
    from bats_lab.datasets import load_dataset
    from bats_lab.discretize import discretize
    from bats_lab.encode import encode_images
    from bats_lab.experiment import run_experiment
    from bats_lab.network import Network
    from bats_lab.results import open_results, open_run, save_run
    from bats_lab.spikes import Spikes
    from bats_lab.sweep import run_sweep
    from bats_lab.train import evaluate, train

__version__ = "0.1.0"

# Where each public name lives; None: it is a module itself.
_HOMES = {
    "Config": "config",
    "Network": "network",
    "Spikes": "spikes",
    "discretize": "discretize",
    "encode_images": "encode",
    "evaluate": "train",
    "explore": None,
    "load_dataset": "datasets",
    "open_results": "results",
    "open_run": "results",
    "plots": None,
    "run_experiment": "experiment",
    "run_sweep": "sweep",
    "save_run": "results",
    "train": "train",
}

__all__ = [
    "Config",
    "Network",
    "Spikes",
    "__version__",
    "discretize",
    "encode_images",
    "evaluate",
    "explore",
    "load_dataset",
    "open_results",
    "open_run",
    "plots",
    "run_experiment",
    "run_sweep",
    "save_run",
    "train",
]


class _Package(ModuleType):
    """Keeps names of functions from being taken by submodules of the same name.

    Python binds a submodule to its package when it is first imported, so ``bats_lab.train`` would be the function or
    the module, depending on what was imported before. Here it is always the function; what else is in the
    module is had by ``from bats_lab.train import ...``.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and _HOMES.get(name)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bats_lab' has no attribute {name!r}")
    home = _HOMES[name]
    if home is None:
        return importlib.import_module(f"bats_lab.{name}")
    value = getattr(importlib.import_module(f"bats_lab.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
