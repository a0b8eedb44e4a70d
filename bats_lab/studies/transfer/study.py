"""From clock to clock: what a network that was trained at one time step is worth at another.

The same networks, from the same weights and on the same samples, are trained at several time steps: by the exact
gradient (rule ``graded``, and in continuous time), and in snnTorch by surrogate gradients through every tick
(:mod:`bats_lab.studies.transfer.surrogate`). All of them are tested on snnTorch's clock at every time step, and in
continuous time. ``36_any_network`` draws the results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from bats_lab.config import Config
from bats_lab.data.datasets import ImageData, load_dataset
from bats_lab.errors import ResultsError
from bats_lab.network.feedforward import Network
from bats_lab.runs.experiment import network_of
from bats_lab.runs.files import open_dataset, open_run, run_path, save_dataset
from bats_lab.runs.training import evaluate, input_spikes
from bats_lab.studies.experiments import combined, experiment_path
from bats_lab.studies.study import Study, seeds_from_zero
from bats_lab.studies.transfer.surrogate import evaluate_on_clock, require_snntorch, train_on_clock

__all__ = ["METHODS", "STUDY", "TIME_STEPS", "open_transfer", "run_transfer", "transfer_config", "transfer_configs"]

#: Time steps in seconds.
TIME_STEPS = (0.001, 0.002, 0.004, 0.008)
#: Slope of the surrogate gradient (``snntorch.surrogate.fast_sigmoid``), per threshold.
SLOPE = 25.0


class _Recipe(NamedTuple):
    """What is trained on a data set, and the learning rate of either method, both found on samples not trained on."""

    run: dict[str, Any]
    exact: float
    snntorch: float


# Targets are within reach of one spike a tick at 8 ms, and no neuron is stopped by a limit: snnTorch has none.
_COMMON: dict[str, Any] = {"hidden": 100, "target_true": 10.0, "max_spikes_hidden": 200, "max_spikes_output": 200}
_COMMON |= {"learning_rate_decay": 0.5, "learning_rate_min": 0.0, "batch_size": 50, "test_batch_size": 500}
_MNIST = _COMMON | {"threshold_output": 0.4, "target_false": 2.0, "epochs": 2, "learning_rate_interval": 1}
RECIPES = {
    "mnist": _Recipe(_MNIST | {"n_train": 10_000, "n_test": 4_000}, exact=0.01, snntorch=0.03),
    "mnist_small": _Recipe(_MNIST | {"n_train": 200, "n_test": 100, "epochs": 1}, exact=0.01, snntorch=0.03),
    "yin_yang": _Recipe(
        _COMMON
        | {"target_false": 3.0, "epochs": 10, "learning_rate_interval": 4, "n_train": 4_000}
        | {"batch_size": 100},
        exact=0.003,
        snntorch=0.01,
    ),
}
#: How networks are trained: the time steps of each.
METHODS = {"exact": (0.0, *TIME_STEPS[::-1]), "snntorch": TIME_STEPS[::-1]}


def transfer_config(dataset: str, method: str, delta_t: float, seed: int) -> Config:
    """Return a run of the study; those of method ``snntorch`` are not trained here, but share all that it says."""
    recipe = RECIPES[dataset]
    own = {"delta_t": delta_t, "rule": "graded" if delta_t else "drop", "learning_rate": getattr(recipe, method)}
    return Config.from_dict({"dataset": dataset, "seed": seed, "keep_samples": 0} | recipe.run | own)


def transfer_configs(*, seeds: int = 5, quick: bool = False) -> list[Config]:
    """Return the runs trained by the exact gradient; seeds count from 0 (ValueError if there are none).

    A quick look takes 200 images of ``mnist_small`` in continuous time, and in snnTorch at 8 ms.
    """
    return [
        transfer_config(dataset, "exact", delta_t, seed)
        for dataset in _datasets(quick)
        for delta_t in _steps("exact", quick)
        for seed in seeds_from_zero(seeds)
    ]


def _datasets(quick: bool) -> tuple[str, ...]:
    return ("mnist_small",) if quick else ("mnist", "yin_yang")


def _steps(method: str, quick: bool) -> tuple[float, ...]:
    """Return the time steps of training, those that take least first."""
    return METHODS[method][:1] if quick else METHODS[method]


def _path(folder: str | Path, dataset: str, method: str, delta_t: float) -> Path:
    return experiment_path(folder, f"transfer_{method}_{1e3 * delta_t:g}ms", dataset)


def _seeds_of(path: Path) -> list[int]:
    return [int(seed) for seed in open_dataset(path)["seed"].values] if path.exists() else []


def check_transfer(folder: str | Path, *, seeds: int, quick: bool = False) -> None:
    """Raise a BatsLabError where something is left to be measured and snnTorch is missing."""
    if any(missing for *_, missing in _missing(folder, seeds, quick)):
        require_snntorch()


def _missing(folder: str | Path, seeds: int, quick: bool) -> list[tuple[str, str, float, Path, list[int]]]:
    found = []
    for dataset in _datasets(quick):
        for method in METHODS:
            for delta_t in _steps(method, quick):
                path = _path(folder, dataset, method, delta_t)
                known = _seeds_of(path)
                found.append((dataset, method, delta_t, path, [s for s in seeds_from_zero(seeds) if s not in known]))
    return found


def run_transfer(
    folder: str | Path,
    *,
    seeds: int = 5,
    quick: bool = False,
    data_dir: str | Path | None = None,
    device: str = "auto",
    report: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Train in snnTorch, and test the networks of both methods on every clock: what is not in a folder yet.

    Parameters
    ----------
    folder : str or Path
        Folder of the runs of :func:`transfer_configs`, which takes the results, too.
    seeds, quick
        As there.
    data_dir, device
        As in :func:`bats_lab.sweeps.sweep.run_sweep`; snnTorch trains on the CPU.
    report : callable
        Called with a line before each part, and after each epoch in snnTorch.

    Returns
    -------
    list of Path
        A file for each data set, method and time step of training, written whole or not at all: a run that was cut
        off goes on with the next.

    Raises
    ------
    BatsLabError
        If snnTorch is missing, or a run cannot be read or was trained on other data.
    """
    paths: list[Path] = []
    loaded: dict[str, ImageData] = {}
    for dataset, method, delta_t, path, missing in _missing(folder, seeds, quick):
        paths.append(path)
        if not missing:
            continue
        if dataset not in loaded:
            loaded[dataset] = load_dataset(dataset, data_dir=data_dir)
        data = loaded[dataset]
        where = f"at {1e3 * delta_t:g} ms" if delta_t else "in continuous time"
        report(f"{dataset}, {method}, trained {where}, seeds {', '.join(map(str, missing))} …")
        configs = [transfer_config(dataset, method, delta_t, seed) for seed in missing]
        if method == "exact":
            weights = [_trained_weights(folder, config, data) for config in configs]
        else:
            weights = train_on_clock(configs, data, slope=SLOPE, report=report)
        measured = _measure(configs, weights, data, device)
        measured = measured.expand_dims(trained_by=[method], trained_at=[delta_t])
        if path.exists():
            measured = combined([open_dataset(path).drop_attrs(), measured])
        save_dataset(measured.assign_attrs(dataset=dataset, data_hash=data.data_hash), path)
    return paths


def _trained_weights(folder: str | Path, config: Config, data: ImageData) -> list[np.ndarray]:
    path = run_path(folder, config)
    if not path.exists():
        raise ResultsError(f"{path} is not there: the run of seed {config.seed} failed or was deleted.")
    run = open_run(path)
    if run["data_hash"].item() != data.data_hash:
        raise ResultsError(f"{path} was trained on other data than the {config.dataset} that is there now.")
    return network_of(run, device="cpu").weights


def _measure(
    configs: Sequence[Config], weights: Sequence[Sequence[np.ndarray]], data: ImageData, device: str
) -> xr.Dataset:
    """Test networks, one a seed, in continuous time and on snnTorch's clock of every step."""
    config = configs[0]
    x, y = data.x_test[: config.n_test], data.y_test[: config.n_test]
    tested_at = (0.0, *TIME_STEPS)
    n_layers = len(config.hidden) + 1
    accuracy = np.empty((len(configs), len(tested_at)))
    counts = np.empty((len(configs), len(tested_at), n_layers))
    exactly = config.replace(delta_t=0.0, rule="drop")
    inputs = input_spikes(x, exactly)
    for i, own in enumerate(weights):
        network = Network.from_config(exactly, inputs.n_neurons, data.n_classes, device=device)
        network.set_weights(own)
        done = evaluate(network, inputs, y, rule="drop", batch_size=config.test_batch_size)
        accuracy[i, 0], counts[i, 0] = done.accuracy, done.spike_count
    for j, step in enumerate(tested_at[1:], start=1):
        tested = evaluate_on_clock(config.replace(delta_t=step, rule="graded"), weights, x, y)
        accuracy[:, j], counts[:, j] = tested
    about = {"units": "1", "long_name": "test accuracy"}
    return xr.Dataset(
        {
            "accuracy": (("seed", "tested_at"), accuracy, about),
            "spike_count": (
                ("seed", "tested_at", "layer"), counts, {"units": "1", "long_name": "spikes per sample"}
            ),
        },
        {
            "seed": [c.seed for c in configs],
            "tested_at": ("tested_at", list(tested_at), {"units": "s", "long_name": "time step of the test"}),
            "layer": list(config.layer_names()),
        },
    )  # fmt: skip


def open_transfer(folder: str | Path) -> dict[str, xr.Dataset]:
    """Read what was measured, by data set: ``accuracy`` and ``spike_count``.

    They are over trained_by, trained_at, tested_at and seed; both clocks are time steps in seconds, 0
    for continuous time. What was not measured is NaN.

    Raises
    ------
    ResultsError
        If a file cannot be read.
    """
    parts: dict[str, list[xr.Dataset]] = {}
    for path in sorted(Path(folder).glob(experiment_path("", "transfer_*", "*").name)):
        part = open_dataset(path)
        if "dataset" not in part.attrs:
            raise ResultsError(f"{path} is no experiment of this study: it lacks the attribute 'dataset'.")
        parts.setdefault(str(part.attrs["dataset"]), []).append(part.drop_attrs(deep=False))
    return {dataset: combined(own) for dataset, own in parts.items()}


def _is_measured(folder: Path, config: Config) -> bool:
    """Tell whether a run was trained for tests that have been made; runs themselves are too large to ship."""
    return config.seed in _seeds_of(_path(folder, config.dataset, "exact", config.delta_t))


STUDY = Study(
    name="transfer",
    seeds=5,
    configs=transfer_configs,
    notebook="36_any_network",
    parameters={"n_samples": 20, "n_autopsies": 2},
    check=check_transfer,
    measure=run_transfer,
    is_measured=_is_measured,
    open=open_transfer,
)
