"""Experiments beside a study's runs: each is measured once a data set and left as a file that says on what data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from bats_lab.config import Config
from bats_lab.data.datasets import ImageData, load_dataset
from bats_lab.errors import ResultsError
from bats_lab.runs.files import open_dataset, save_dataset
from bats_lab.spikes.trains import Spikes

__all__ = [
    "SIZES",
    "Experiment",
    "Size",
    "combined",
    "experiment_path",
    "loss_images",
    "open_experiment",
    "run_experiments",
    "run_points",
    "short_run",
]


class Size(NamedTuple):
    """How much is measured on a data set: training images (None: all), and of gradients images and directions."""

    n_train: int | None
    images: int
    directions: int


#: By data set; two hidden layers and batches of 5 take four times as long to train.
SIZES = {
    "mnist": Size(n_train=None, images=500, directions=100),
    "fashion_mnist": Size(n_train=20_000, images=500, directions=100),
    "mnist_small": Size(n_train=2_000, images=100, directions=10),
}


def short_run(dataset: str, **changes: Any) -> Config:
    """Return the preset of a data set with one epoch, on as many images as experiments take."""
    short = {"epochs": 1, "n_train": SIZES[dataset].n_train, "keep_weights": "none", "keep_samples": 0}
    return Config.from_dict({"dataset": dataset} | short | changes)


def loss_images(dataset: str, data: ImageData) -> tuple[np.ndarray | Spikes, np.ndarray]:
    """Return the images and labels over which the loss is taken where gradients are measured.

    The last of the training images, since it is their loss that training is to lower.
    """
    n = SIZES[dataset].images
    return data.x_train[-n:], data.y_train[-n:]


#: Measures something, given the name of a data set, the data set, and the device.
Experiment = Callable[[str, ImageData, str], xr.Dataset]


def experiment_path(folder: str | Path, name: str, dataset: str) -> Path:
    """Return the file of an experiment on a data set."""
    return Path(folder) / f"experiment-{name}-{dataset}.nc"


def open_experiment(folder: str | Path, name: str) -> dict[str, xr.Dataset]:
    """Read one experiment, by data set; empty where it has not been run.

    Raises
    ------
    ResultsError
        If a file cannot be read.
    """
    results = {}
    for path in sorted(Path(folder).glob(experiment_path("", name, "*").name), reverse=True):
        result = open_dataset(path)
        if "dataset" not in result.attrs:
            raise ResultsError(f"{path} is no experiment of a study: it lacks the attribute 'dataset'.")
        results[str(result.attrs["dataset"])] = result
    return results


def run_experiments(
    experiments: Mapping[str, Experiment],
    datasets: Iterable[str],
    folder: str | Path,
    *,
    seeds: int = 1,
    quick: bool = False,
    data_dir: str | Path | None = None,
    device: str = "auto",
    report: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Run the experiments whose results are not in a folder yet.

    Parameters
    ----------
    experiments, datasets : mapping of str to Experiment, and iterable of str
        What is measured, by name, and on what; `quick`: on ``mnist_small``.
    folder : str or Path
        Folder of the results.
    seeds : int
        Not used: all experiments are of seed 0.
    data_dir, device
        As in :func:`bats_lab.sweeps.sweep.run_sweep`.
    report : callable
        Called with a line before each experiment.

    Returns
    -------
    list of Path
        The files of all experiments; each is written whole or not at all.
    """
    paths: list[Path] = []
    for dataset in ("mnist_small",) if quick else datasets:
        files = {name: experiment_path(folder, name, dataset) for name in experiments}
        paths += files.values()
        missing = [name for name, path in files.items() if not path.exists()]
        if not missing:
            continue
        data = load_dataset(dataset, data_dir=data_dir)
        for name in missing:
            report(f"{name.replace('_', ' ')} on {dataset} …")
            result = experiments[name](dataset, data, device)
            save_dataset(result.assign_attrs(dataset=dataset, data_hash=data.data_hash), files[name])
    return paths


def run_points(
    path: Path,
    empty: xr.Dataset,
    points: Iterable[Mapping[str, Any]],
    measure: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    report: Callable[[str], None] = lambda _: None,
) -> Path:
    """Measure an experiment point by point, as far as that is not done; its file is written anew after each.

    Parameters
    ----------
    path : Path
        File of the results: what is there is kept, and nothing of it measured again.
    empty : xarray.Dataset
        All variables and coordinates of the experiment, NaN where a point is to be measured.
    points : iterable of mapping
        Labels of each point. What is NaN at one, anywhere, is missing.
    measure : callable
        Returns the values of a point by variable.
    report : callable
        Called with a line before each point.
    """
    results = empty
    if path.exists():
        kept = open_dataset(path).load().drop_encoding()
        results = kept.combine_first(empty).assign_attrs(empty.attrs)
        for name, variable in results.variables.items():
            variable.attrs = empty[name].attrs
    missing = [p for p in points if any(bool(v.sel(p).isnull().any()) for v in results.data_vars.values())]
    for i, point in enumerate(missing):
        where = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in point.items())
        report(f"[{i + 1}/{len(missing)}] {empty.attrs['dataset']}: {where} …")
        for name, value in measure(point).items():
            results[name].loc[point] = value
        save_dataset(results, path)
    return path


def combined(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Lay Datasets side by side, along the dimensions that say where each belongs; what is missing is NaN."""
    whole = xr.combine_by_coords(parts, join="outer")
    assert isinstance(whole, xr.Dataset)
    return whole
