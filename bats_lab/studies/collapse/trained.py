"""Networks trained otherwise than a run is: on a clock drawn for each batch, or with ``drop`` in one layer alone.

Either is measured point by point, a training each, so that hours of it can be stopped and taken up again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bats_lab import __version__
from bats_lab.config import Config
from bats_lab.data.datasets import ImageData, load_dataset
from bats_lab.runs.training import input_spikes, on_clock, train
from bats_lab.studies.collapse.experiments import tested
from bats_lab.studies.experiments import experiment_path, run_points, short_run
from bats_lab.studies.study import seeds_from_zero

__all__ = [
    "CLOCKS",
    "LAYER_RULES",
    "LAYER_STEPS",
    "TRAINED_EXPERIMENTS",
    "TRAINED_ON",
    "every_clock",
    "one_layer",
    "run_trainings",
    "with_continuous",
]

#: Twelve clocks (s), from continuous time to more than two tenths of the synaptic time constant.
CLOCKS = (0.0, 0.0005, 0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.012, 0.015, 0.02, 0.03)
#: On which clock networks are trained, in words.
TRAINED_ON = {"own": "each clock by its own", "continuous": "continuous time", "drawn": "a clock drawn for each batch"}
#: Rules under which clocks are compared. Without a limit of one spike a tick the target can be reached on all of them.
_CLOCK_RULES = ("graded", "drop")
#: Training images, the first ones, where clocks are compared.
_CLOCK_IMAGES = {"mnist": 10_000, "fashion_mnist": 10_000, "mnist_small": 2_000}
#: Rules of hidden layers and output, and time steps (s), of the comparison of layers.
LAYER_RULES = ("drop", "merge")
LAYER_STEPS = {"fashion_mnist": (0.008, 0.01, 0.006), "mnist_small": (0.012,)}


def every_clock(
    folder: str | Path,
    dataset: str,
    data: ImageData,
    *,
    clocks: Sequence[float] = CLOCKS,
    seeds: int = 5,
    device: str = "auto",
    report: Callable[[str], None] = lambda _: None,
) -> Path:
    """Hold one network, trained on a clock that is drawn for each batch, against one for each clock.

    Parameters
    ----------
    folder : str or Path
        Folder of the results; what is there is not measured again.
    dataset, data : str and ImageData
        What networks are trained on, for one epoch.
    clocks : sequence of float
        Time steps in seconds, 0 (continuous time) among them.
    seeds : int
        Seeds, counted from 0.
    device : str
        As in :func:`bats_lab.runs.training.train`; clocks are drawn on the CPU.
    report : callable
        Called with a line before each training.

    Returns
    -------
    Path
        A file with the test `accuracy`: (rule, seed, training, delta_t), where `training` is one of :data:`TRAINED_ON`.
        In continuous time ``own`` is ``continuous``, and not trained twice.
    """

    def measure(point: Mapping[str, Any]) -> dict[str, Any]:
        config = short_run(dataset, rule=point["rule"], seed=point["seed"], n_train=_CLOCK_IMAGES[dataset])
        if point["training"] == "own":
            return {"accuracy": _last_test(on_clock(config, point["delta_t"]), data, device)}
        drawn = point["training"] == "drawn"
        trained = train(config, data, device="cpu" if drawn else device, clocks=clocks if drawn else ())
        tests = [input_spikes(data.x_test[: config.n_test], on_clock(config, step)) for step in clocks]
        return {"accuracy": [tested(trained.network, test, data, config)[0] for test in tests]}

    points: list[dict[str, Any]] = []
    for rule in _CLOCK_RULES:
        for seed in seeds_from_zero(seeds):
            place = {"rule": rule, "seed": seed}
            points += [place | {"training": training} for training in ("drawn", "continuous")]
            points += [place | {"training": "own", "delta_t": step} for step in clocks if step]
    coords = {"rule": list(_CLOCK_RULES), "seed": range(seeds), "training": list(TRAINED_ON), "delta_t": list(clocks)}
    path = experiment_path(folder, "every_clock", dataset)
    return run_points(path, _empty(dataset, data, coords), points, measure, report)


def with_continuous(part: xr.Dataset) -> xr.DataArray:
    """Return the accuracies of ``every_clock``; in continuous time those of ``own`` are those of ``continuous``."""
    accuracy = part["accuracy"]
    return accuracy.where(
        (accuracy["training"] != "own") | (accuracy["delta_t"] > 0), accuracy.sel(training="continuous")
    )


def one_layer(
    folder: str | Path,
    dataset: str,
    data: ImageData,
    *,
    seeds: int = 5,
    device: str = "auto",
    report: Callable[[str], None] = lambda _: None,
) -> Path:
    """Train and test networks with ``drop`` in hidden layers or output alone, in both, or in neither.

    The arguments are those of :func:`every_clock`.

    Returns
    -------
    Path
        A file with the test `accuracy`: (seed, delta_t, hidden, output), where the latter two are rules.
    """

    def measure(point: Mapping[str, Any]) -> dict[str, Any]:
        config = short_run(dataset, rule=point["hidden"], seed=point["seed"], delta_t=point["delta_t"])
        return {"accuracy": _last_test(config, data, device, output_rule=point["output"])}

    steps = LAYER_STEPS[dataset]
    points = [
        {"seed": seed, "delta_t": step, "hidden": hidden, "output": output}
        for step in steps
        for seed in seeds_from_zero(seeds)
        for hidden in LAYER_RULES
        for output in LAYER_RULES
    ]
    coords = {"seed": range(seeds), "delta_t": sorted(steps), "hidden": list(LAYER_RULES), "output": list(LAYER_RULES)}
    path = experiment_path(folder, "one_layer", dataset)
    return run_points(path, _empty(dataset, data, coords), points, measure, report)


def _last_test(config: Config, data: ImageData, device: str, **changes: Any) -> float:
    return train(config, data, device=device, **changes).records[-1].test.accuracy


#: Of each coordinate, and of the accuracy: unit, and name in words.
_NAMES = {
    "accuracy": ("1", "test accuracy"),
    "seed": ("1", "seed of weights and batch order"),
    "rule": ("", "collision rule of all layers"),
    "hidden": ("", "collision rule of hidden layers"),
    "output": ("", "collision rule of the output layer"),
    "training": ("", "on which clock networks were trained"),
    "delta_t": ("s", "time step"),
}


def _empty(dataset: str, data: ImageData, coords: dict[str, Any]) -> xr.Dataset:
    accuracy = np.full([len(labels) for labels in coords.values()], np.nan)
    origin = {"dataset": dataset, "data_hash": data.data_hash, "version": __version__}
    empty = xr.Dataset({"accuracy": (tuple(coords), accuracy)}, coords, origin)
    for name, variable in empty.variables.items():
        variable.attrs = dict(zip(("units", "long_name"), _NAMES[str(name)], strict=True))
    return empty


#: What is measured training by training, by the name of its files.
TRAINED_EXPERIMENTS: dict[str, Callable[..., Path]] = {"one_layer": one_layer, "every_clock": every_clock}


def run_trainings(
    folder: str | Path, *, quick: bool = False, data_dir: str | Path | None = None, **options: Any
) -> list[Path]:
    """Measure :data:`TRAINED_EXPERIMENTS` on the data sets of the study, or with one seed on ``mnist_small`` (`quick`).

    The further arguments are `seeds`, `device` and `report`, as in :func:`every_clock`.
    """
    if quick:
        data, own = load_dataset("mnist_small", data_dir=data_dir), options | {"seeds": 1}
        every = every_clock(folder, "mnist_small", data, clocks=(0.0, 0.004, 0.012), **own)
        return [one_layer(folder, "mnist_small", data, **own), every]
    fashion = load_dataset("fashion_mnist", data_dir=data_dir)
    paths = [measure(folder, "fashion_mnist", fashion, **options) for measure in TRAINED_EXPERIMENTS.values()]
    return [*paths, every_clock(folder, "mnist", load_dataset("mnist", data_dir=data_dir), **options)]
