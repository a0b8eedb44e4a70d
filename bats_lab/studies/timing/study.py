"""Data with time in it: where the clock begins to hurt when timing carries the information.

Networks on ``yin_yang`` and ``japanese_vowels`` are trained on every time step and rule (:func:`timing_configs`).
Those of continuous time are then tested on jittered inputs and on clocks (:func:`run_timing_experiments`), and so are
networks of the images of ``mnist_small``, for comparison. ``37_time_in_data`` draws the results.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bats_lab.config import Config
from bats_lab.data.datasets import ImageData, load_dataset
from bats_lab.errors import ResultsError
from bats_lab.runs.experiment import network_of
from bats_lab.runs.files import open_dataset, open_run, run_path, save_dataset
from bats_lab.runs.training import input_spikes
from bats_lab.spikes.rules import RULES
from bats_lab.studies.experiments import combined, experiment_path
from bats_lab.studies.study import Study, seeds_from_zero
from bats_lab.studies.timing.experiments import clocked_accuracy, input_spectrum, jittered_accuracy

__all__ = ["JITTERS", "STUDY", "TIME_STEPS", "open_timing", "run_timing_experiments", "timing_configs"]

#: Time steps (s): of data sets of events 1/30 to 4/3 of the synaptic time constant; images are tested on these only.
TIME_STEPS: dict[str, tuple[float, ...]] = {
    "japanese_vowels": (0.001, 0.002, 0.004, 0.006, 0.01, 0.016, 0.024, 0.04),
    "yin_yang": (0.0005, 0.001, 0.002, 0.003, 0.005, 0.008, 0.012, 0.02),
    "mnist_small": (0.001, 0.002, 0.004, 0.008, 0.012, 0.02, 0.04, 0.08),
}
#: Standard deviations of the jitter (s).
JITTERS = (0.0, 0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.008, 0.012, 0.02, 0.03, 0.05)
_IMAGES = {"mnist_small": 2}  # epochs
_FREQUENCIES = np.arange(0, 501, 2.5)  # Hz
_SPECTRUM_SAMPLES = 1000
_QUICK: dict[str, Any] = {"epochs": 2, "n_train": 200, "n_test": 100}


def timing_configs(*, seeds: int = 5, quick: bool = False) -> list[Config]:
    """Return the runs: every time step under every rule, with the data set's recipe.

    Seeds count from 0 (ValueError if there are none); all runs of one come before those of the next. In continuous time
    all rules are one, and weights are kept for :func:`run_timing_experiments`; images are trained there only. `quick`
    takes two time steps and rules, and 200 samples.
    """
    return [
        _run(dataset, quick=quick).replace(
            seed=seed, delta_t=delta_t, rule=rule, keep_weights="none" if delta_t else "last"
        )
        for seed in seeds_from_zero(seeds)
        for dataset, steps in TIME_STEPS.items()
        for delta_t in (0.0, *(() if dataset in _IMAGES else steps[::5] if quick else steps))
        for rule in ((("drop", "graded") if quick else RULES) if delta_t else ("drop",))
    ]


def _run(dataset: str, *, quick: bool) -> Config:
    own = {"epochs": _IMAGES[dataset]} if dataset in _IMAGES else {}
    return Config.from_dict({"dataset": dataset, "keep_samples": 0} | own | (_QUICK if quick else {}))


def _name(seed: int | str) -> str:
    return f"timing_seed{seed}"


def run_timing_experiments(
    folder: str | Path,
    *,
    seeds: int = 5,
    quick: bool = False,
    data_dir: str | Path | None = None,
    device: str = "auto",
    report: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Test the networks of continuous time on jittered inputs and on clocks, those that have not been tested yet.

    Parameters
    ----------
    folder : str or Path
        Folder of the runs of :func:`timing_configs`, which takes the results, too.
    seeds, quick
        As there.
    data_dir, device
        As in :func:`bats_lab.sweeps.sweep.run_sweep`.
    report : callable
        Called with a line for each network, also for those that are left out since they have not been trained.

    Returns
    -------
    list of Path
        The files of all networks that have been tested; each is written whole or not at all.

    Raises
    ------
    ResultsError
        If a run cannot be read, or was trained on other data than there are now.
    """
    paths: list[Path] = []
    loaded: dict[str, ImageData] = {}
    for config in timing_configs(seeds=seeds, quick=quick):
        path, trained = experiment_path(folder, _name(config.seed), config.dataset), run_path(folder, config)
        if config.delta_t:
            continue
        if not path.exists():
            if not trained.exists():
                report(f"{config.dataset}, seed {config.seed}: left out, since {trained.name} is not there.")
                continue
            report(f"{config.dataset}, seed {config.seed}: jitter and clocks …")
            if config.dataset not in loaded:
                loaded[config.dataset] = load_dataset(config.dataset, data_dir=data_dir)
            run, data = open_run(trained), loaded[config.dataset]
            if run["data_hash"].item() != data.data_hash:
                raise ResultsError(f"{trained} was trained on other data than the {config.dataset} that is there now.")
            measured = _measure(run, data, config, device)
            origin = {"dataset": config.dataset, "seed": config.seed, "data_hash": data.data_hash}
            save_dataset(measured.assign_attrs(origin), path)
        paths.append(path)
    return paths


def _measure(run: xr.Dataset, data: ImageData, config: Config, device: str) -> xr.Dataset:
    network = network_of(run, device=device)
    x, y = data.x_test[: config.n_test], data.y_test[: config.n_test]
    jittered = jittered_accuracy(network, x, y, config, jitters=JITTERS)
    clocked = clocked_accuracy(network, x, y, config, delta_t=(0.0, *TIME_STEPS[config.dataset]))
    n = min(_SPECTRUM_SAMPLES, config.n_train or _SPECTRUM_SAMPLES)
    spectrum = input_spectrum(input_spikes(data.x_train[:n], config), data.y_train[:n], _FREQUENCIES)
    return xr.merge([clocked.assign(jittered_accuracy=jittered), spectrum])


def open_timing(folder: str | Path) -> dict[str, xr.Dataset]:
    """Read what was measured of jitter, clocks and spectra, by data set, over `seed`; empty where that was not done.

    Raises
    ------
    ResultsError
        If a file cannot be read.
    """
    parts: dict[str, list[xr.Dataset]] = {}
    for path in sorted(Path(folder).glob(experiment_path("", _name("*"), "*").name)):
        part = open_dataset(path)
        if not {"dataset", "seed"} <= part.attrs.keys():
            raise ResultsError(f"{path} is no experiment of this study: it lacks the attributes 'dataset' and 'seed'.")
        own = part.drop_attrs(deep=False).expand_dims(seed=[int(part.attrs["seed"])])
        parts.setdefault(str(part.attrs["dataset"]), []).append(own)
    return {dataset: combined(own) for dataset, own in parts.items()}


def _is_measured(folder: Path, config: Config) -> bool:
    """Tell whether a run was trained for a test that has been made; those of images are too large to ship."""
    return config.dataset in _IMAGES and experiment_path(folder, _name(config.seed), config.dataset).exists()


STUDY = Study(
    name="time",
    seeds=5,
    configs=timing_configs,
    notebook="37_time_in_data",
    measure=run_timing_experiments,
    is_measured=_is_measured,
)
