"""From training to chip: networks trained in continuous time, run on clocks with weights of few bits.

They are not trained again ("post-training"). :func:`chip_configs` lists the networks, :func:`run_deployment` measures
them, and ``35_from_training_to_chip`` draws that.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import xarray as xr

from bats_lab import __version__
from bats_lab.config import Config
from bats_lab.data.datasets import ImageData, load_dataset
from bats_lab.errors import ResultsError
from bats_lab.network.feedforward import Network
from bats_lab.runs.experiment import network_of
from bats_lab.runs.files import open_run, run_path, save_dataset
from bats_lab.runs.training import split_training
from bats_lab.studies.chip.deployment import (
    MEASURED,
    deployment_path,
    described,
    is_deployed,
    open_deployment,
    run_on_clock,
)
from bats_lab.studies.chip.training import is_trained_for_chip, run_training
from bats_lab.studies.study import Study, seeds_from_zero

__all__ = ["DEPLOY_STEPS", "STUDY", "WORD_LENGTHS", "chip_configs", "run_deployment"]

#: Time steps (s) of the clocks; 0 is continuous time, in which the networks are trained.
DEPLOY_STEPS = (0.0, 0.0005, 0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.012, 0.015, 0.02, 0.03)
#: Word lengths of the weights, in bits; 32: as they were trained.
WORD_LENGTHS = (32, 8, 6, 4, 3, 2)
#: Epochs by data set. In the first epochs of Fashion-MNIST some classes are silent.
_EPOCHS = {"mnist": 5, "fashion_mnist": 10}
#: Fraction of the training images on which clock and word are chosen.
_HELD_OUT = 0.1
# What a quick deployment is cut down to.
_QUICK_STEPS = (0.0, 0.002, 0.008, 0.02)
_QUICK_WORDS = (32, 4, 2)
_QUICK_IMAGES = 500


def chip_configs(*, seeds: int = 5, quick: bool = False) -> list[Config]:
    """Return the runs whose networks are put on a chip: trained in continuous time, with validation images held out.

    Parameters
    ----------
    seeds : int
        Seeds, counted from 0, at least 1; all networks of one before those of the next.
    quick : bool
        Two epochs of ``mnist_small``, in place of MNIST and Fashion-MNIST.
    """
    common = {"delta_t": 0.0, "validation_fraction": _HELD_OUT, "keep_samples": 0}
    return [
        Config.from_dict(common | {"dataset": dataset, "epochs": epochs, "seed": seed})
        for seed in seeds_from_zero(seeds)
        for dataset, epochs in ({"mnist_small": 2} if quick else _EPOCHS).items()
    ]


def run_deployment(
    folder: str | Path,
    *,
    data_dir: str | Path | None = None,
    device: str = "auto",
    threads: int = 0,
    quick: bool = False,
    seeds: int = 5,
    report: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Deploy the trained networks of a folder that have not been deployed yet.

    Parameters
    ----------
    folder : str or Path
        Folder that holds the runs of :func:`chip_configs`, which a sweep has trained, and that takes the results.
    data_dir : str, Path or None
        Where full data sets lie; None: the usual place.
    device, threads
        As in :func:`bats_lab.runs.experiment.network_of`.
    quick : bool
        Take the quick networks, the first 500 images of each part, and fewer time steps and word lengths.
    seeds : int
        As in :func:`chip_configs`.
    report : callable
        Called with a line now and then, also for networks that are left out since they have not been trained.

    Returns
    -------
    list of Path
        The files of all networks that have been deployed: what :func:`run_on_clock` measured, with ``split``
        (``validation`` and ``test`` images) in front. Each is written whole or not at all.

    Raises
    ------
    ResultsError
        If a run cannot be read, or was trained on other data than there are now.
    """
    paths: list[Path] = []
    loaded: dict[str, ImageData] = {}
    for config in chip_configs(seeds=seeds, quick=quick):
        path, trained = deployment_path(folder, config.dataset, config.seed), run_path(folder, config)
        if not is_deployed(folder, config):
            if not trained.exists():
                report(f"{config.dataset}, seed {config.seed}: left out, since {trained.name} is not there.")
                continue
            if config.dataset not in loaded:
                loaded[config.dataset] = load_dataset(config.dataset, data_dir=data_dir)
            run, data = open_run(trained), loaded[config.dataset]
            if run["data_hash"].item() != data.data_hash:
                raise ResultsError(f"{trained} was trained on other data than the {config.dataset} that is there now.")
            network = network_of(run, device=device, threads=threads)
            measured = _deployed(network, config, data, quick, report)
            origin = {"dataset": config.dataset, "seed": config.seed, "run": trained.name, "data_hash": data.data_hash}
            save_dataset(measured.assign_attrs(origin, version=__version__), path)
        paths.append(path)
    return paths


def _deployed(
    network: Network, config: Config, data: ImageData, quick: bool, report: Callable[[str], None]
) -> xr.Dataset:
    """Run a network on the validation and on the test images."""
    x_train, y_train = data.x_train[: config.n_train], data.y_train[: config.n_train]
    _, held_out = split_training(len(y_train), config.validation_fraction)
    images = {
        "validation": (x_train[held_out], y_train[held_out]),
        "test": (data.x_test[: config.n_test], data.y_test[: config.n_test]),
    }
    most = _QUICK_IMAGES if quick else None
    parts = []
    for split, (x, y) in images.items():

        def on_point(done: int, total: int, split: str = split) -> None:
            if done * 10 // total > (done - 1) * 10 // total:  # each tenth
                report(f"{config.dataset}, seed {config.seed}: {done} of {total} points on {split} images")

        steps, bits = (_QUICK_STEPS, _QUICK_WORDS) if quick else (DEPLOY_STEPS, WORD_LENGTHS)
        parts.append(run_on_clock(network, x[:most], y[:most], config, delta_t=steps, bits=bits, on_point=on_point))
    by_split: list[Any] = [name for name in parts[0].data_vars if name in (*MEASURED, "input_spikes", "n_samples")]
    return xr.concat(
        parts,
        described({}, {"split": list(images)})["split"].variable,
        data_vars=by_split,
        coords="minimal",
        compat="override",
        join="exact",
        combine_attrs="drop_conflicts",
    )


def _measure(folder: Path, *, seeds: int, quick: bool, device: str, **options: Any) -> None:
    """Deploy the networks that were trained without a clock, and train others with one."""
    run_deployment(folder, seeds=seeds, quick=quick, device=device, **options)
    run_training(folder, configs=chip_configs(seeds=seeds, quick=quick), quick=quick, **options)


def _is_measured(folder: Path, config: Config) -> bool:
    return is_deployed(folder, config) and is_trained_for_chip(folder, config)


STUDY = Study(
    name="chip",
    seeds=5,
    configs=chip_configs,
    notebook="35_from_training_to_chip",
    measure=_measure,
    is_measured=_is_measured,  # what was measured of a network outlives it
    open=open_deployment,
)
