"""Training for the chip: words of few bits, on a coarse clock, in the loop; against rounding after training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bats_lab import __version__
from bats_lab.config import Config
from bats_lab.data.datasets import ImageData, load_dataset
from bats_lab.engine.quantization import TRAINED
from bats_lab.errors import ResultsError
from bats_lab.network.feedforward import Network
from bats_lab.plots.runs import dataset_name, spread_text
from bats_lab.plots.style import delta_t_label
from bats_lab.runs.experiment import network_of
from bats_lab.runs.files import open_dataset, open_run, run_path, save_dataset
from bats_lab.runs.training import evaluate, input_spikes, split_training, train
from bats_lab.spikes.grid import ticks_within
from bats_lab.studies.chip.deployment import described
from bats_lab.studies.statistics import bonferroni, difference_text, paired

__all__ = ["METHODS", "is_trained_for_chip", "open_training", "run_training", "training_config", "training_table"]

#: What is done with a network that was trained in continuous time; and one that never was.
METHODS = {
    "post_training": "rounded after training",
    "from_trained": "trained further with the words",
    "from_scratch": "trained with the words from scratch",
}
#: The method that needs no trained network.
_SCRATCH = "from_scratch"
#: How long networks are trained further, and at which rate; from scratch as long, at the rate of the run.
_FURTHER = {"epochs": 1, "learning_rate": 0.0005}
_STEPS, _WORDS = (0.02, 0.03), (4, 3, 2)
_DATASETS = ("mnist", "mnist_small")
_SPLITS = ("validation", "test")


def training_config(base: Config, delta_t: float, bits: int, *, scratch: bool = False) -> Config:
    """Return the run that trains with words of few bits what `base` has trained in continuous time, or from scratch.

    Parameters
    ----------
    base : Config
        A run of :func:`bats_lab.studies.chip.study.chip_configs`.
    delta_t : float
        Time step of the chip in seconds.
    bits : int
        Word length of the weights.
    """
    # An output neuron sends a spike a tick at most, and each layer waits a tick for the one below.
    most = max(1, ticks_within(base.duration, delta_t) - len(base.hidden) - 1)
    targets = {"target_true": float(most), "target_false": most * base.target_false / base.target_true}
    length = {"epochs": _FURTHER["epochs"]} if scratch else _FURTHER
    return base.replace(rule="clocked", delta_t=delta_t, weight_bits=bits, **targets, **length)


def run_training(
    folder: str | Path,
    *,
    data_dir: str | Path | None = None,
    threads: int = 0,
    quick: bool = False,
    configs: list[Config],
    report: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Train networks for the chip, and round those trained without it, as far as that is not done yet.

    Parameters
    ----------
    folder : str or Path
        Folder that holds the runs of `configs`, and that takes the results: a file a network, written anew, whole or
        not at all, after every point.
    data_dir : str, Path or None
        Where full data sets lie; None: the usual place.
    threads : int
        Threads on the CPU, on which this is done; 0: one a core.
    quick : bool
        One time step and word length.
    configs : list of Config
        Runs in continuous time; those of other data sets than MNIST are passed over, and of those that are not there
        only networks from scratch are trained.
    report : callable
        Called with a line before each point.

    Raises
    ------
    ResultsError
        If a run cannot be read, or was trained on other data than there are now.
    """
    configs = [base for base in configs if base.dataset in _DATASETS]
    work: list[tuple[str, Config, float, int]] = []
    for base in configs:
        missing = list(_missing(_results(folder, base, quick)))
        if not (trained := run_path(folder, base)).exists() and any(method != _SCRATCH for method, *_ in missing):
            report(f"{base.dataset}, seed {base.seed}: not trained for a chip, since {trained.name} is not there.")
            missing = [point for point in missing if point[0] == _SCRATCH]
        work += [(method, base, delta_t, bits) for method, delta_t, bits in missing]
    work.sort(key=lambda point: list(METHODS).index(point[0]))  # all seeds of one, then all of the next
    loaded: dict[str, ImageData] = {}
    for i, (method, base, delta_t, bits) in enumerate(work):
        trained = run_path(folder, base)
        data = loaded.setdefault(base.dataset, load_dataset(base.dataset, data_dir=data_dir))
        where = f"{base.dataset}, seed {base.seed}, {bits} bits at {delta_t_label(delta_t)}"
        report(f"[{i + 1}/{len(work)}] {where}: {METHODS[method]} …")
        network = None
        if method != _SCRATCH:
            run = open_run(trained)
            if run["data_hash"].item() != data.data_hash:
                raise ResultsError(f"{trained} was trained on other data than the {base.dataset} that is there now.")
            network = network_of(run, device="cpu", threads=threads)
        values = _measured(network, base, data, method, delta_t, bits, threads)
        results, point = _results(folder, base, quick), {"training": method, "delta_t": delta_t, "bits": bits}
        for name, value in values.items():
            results[name].loc[point] = value
        origin = {"dataset": base.dataset, "seed": base.seed, "run": trained.name, "data_hash": data.data_hash}
        save_dataset(results.assign_attrs(origin, version=__version__), _path(folder, base))
    return [path for base in configs if (path := _path(folder, base)).exists()]


def _path(folder: str | Path, config: Config) -> Path:
    return Path(folder) / f"training-{config.dataset}-seed{config.seed}.nc"


def _results(folder: str | Path, base: Config, quick: bool) -> xr.Dataset:
    """Return what was measured of a network so far; NaN where a point is missing."""
    steps, words = (_STEPS[:1], _WORDS[-1:]) if quick else (_STEPS, _WORDS)
    layers = base.layer_names()
    sizes = (len(_SPLITS), len(METHODS), len(steps), len(words) + 1)
    dims = ("split", "training", "delta_t", "bits")
    empty = described(
        {
            "accuracy": (dims, np.full(sizes, np.nan)),
            "spike_count": ((*dims, "layer"), np.full((*sizes, len(layers)), np.nan)),
        },
        {
            "split": _SPLITS,
            "training": list(METHODS),
            "delta_t": steps,
            "bits": [TRAINED, *words],
            "layer": layers,
        },
    )
    if not (path := _path(folder, base)).exists():
        return empty
    # With methods, time steps and words that were added since the file was written.
    kept = open_dataset(path).load().drop_encoding()
    whole = kept.combine_first(empty).reindex({dim: empty[dim].values for dim in dims if dim != "split"})
    return whole.map(lambda variable: variable.transpose(*empty[variable.name].dims), keep_attrs=True)


def _missing(results: xr.Dataset) -> Iterator[tuple[str, float, int]]:
    """Yield the points that are missing, what takes longest last; weights as they are are not trained again."""
    for method in results["training"].values.tolist():
        known = results["accuracy"].sel(training=method).notnull().all("split")
        for delta_t in results["delta_t"].values.tolist():
            for bits in results["bits"].values.tolist():
                needed = method == "post_training" or bits != TRAINED
                if needed and not known.sel(delta_t=delta_t, bits=bits):
                    yield method, delta_t, bits


def _measured(
    network: Network | None, base: Config, data: ImageData, method: str, delta_t: float, bits: int, threads: int
) -> dict[str, Any]:
    """Return what is measured of one point, by split."""
    if method == "post_training":
        assert network is not None, "what is rounded was trained"
        x_train, y_train = data.x_train[: base.n_train], data.y_train[: base.n_train]
        _, held_out = split_training(len(y_train), base.validation_fraction)
        images = {
            "validation": (x_train[held_out], y_train[held_out]),
            "test": (data.x_test[: base.n_test], data.y_test[: base.n_test]),
        }
        grid = base.replace(delta_t=delta_t, rule="clocked")
        passes = {
            split: evaluate(network, input_spikes(x, grid), y, rule="clocked", weight_bits=bits)
            for split, (x, y) in images.items()
        }
    else:
        config = training_config(base, delta_t, bits, scratch=network is None)
        start = None if network is None else network.weights
        last = train(config, data, device="cpu", threads=threads, start=start).records[-1]
        assert last.validation is not None, "chip_configs hold out images"
        passes = {"validation": last.validation, "test": last.test}
    names = ("accuracy", "spike_count")
    return {name: np.stack([np.asarray(getattr(passes[split], name)) for split in _SPLITS]) for name in names}


def is_trained_for_chip(folder: str | Path, config: Config) -> bool:
    """Tell whether all was measured for which a run of `chip_configs` is needed; of Fashion-MNIST that is nothing."""
    if config.dataset not in _DATASETS:
        return True
    path = _path(folder, config)
    if not path.exists():
        return False
    results = open_dataset(path)
    same = results.attrs.get("run") == run_path(folder, config).name
    return same and all(method == _SCRATCH for method, *_ in _missing(results))


def open_training(folder: str | Path) -> dict[str, xr.Dataset]:
    """Read what networks trained for the chip do, by data set, over ``seed``; empty where there are none.

    Raises
    ------
    ResultsError
        If a file cannot be read, or is none of these.
    """
    parts: dict[str, list[xr.Dataset]] = {}
    for path in sorted(Path(folder).glob("training-*-seed*.nc")):
        part = open_dataset(path)
        if not {"accuracy", "training", "bits"} <= set(part.variables) or not {"dataset", "seed"} <= part.attrs.keys():
            raise ResultsError(f"{path} does not hold networks that were trained for a chip.")
        parts.setdefault(str(part.attrs["dataset"]), []).append(
            part.drop_encoding().expand_dims(seed=[int(part.attrs["seed"])])
        )
    found = {}
    for dataset, own in parts.items():
        joined = xr.concat(own, "seed", join="outer", combine_attrs="drop_conflicts")
        joined = joined.assign_coords(dataset=dataset).sortby("bits", ascending=False).reindex(training=list(METHODS))
        found[dataset_name(joined)] = joined.transpose("seed", "split", "training", ...)
    return found


def training_table(parts: dict[str, xr.Dataset], *, split: str = "test") -> pd.DataFrame:
    """Lay out accuracies (%) by data set, time step and word: rounded after training, and trained with the words.

    The difference to rounding is in percentage points over paired seeds, with its 95 % confidence interval (Student's
    t) and *p* after Bonferroni over all comparisons of a data set. Points that were not measured are left out.
    """
    rows = []
    for name, part in parts.items():
        accuracy = 100 * part["accuracy"].sel(split=split)
        for delta_t in accuracy["delta_t"].values:
            for bits in accuracy["bits"].values:
                of_methods = accuracy.sel(delta_t=delta_t, bits=bits)
                rounded = of_methods.sel(training="post_training")
                for method in METHODS:
                    own = of_methods.sel(training=method)
                    seeds = (own.notnull() & rounded.notnull()).values
                    if not seeds.any():
                        continue
                    values = own.values[seeds]
                    std = float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
                    row = {
                        "data set": name,
                        "Δt": delta_t_label(float(delta_t)).replace(" ", "\u00a0"),
                        "bits": "trained" if bits == TRAINED else str(bits),
                        "how": METHODS[method],
                        "seeds": str(len(values)),
                        f"{split} (%)": spread_text(values.mean(), std, len(values), 2),
                        "difference (points)": "",
                        "p": np.nan,
                    }
                    if method != "post_training":
                        against = paired(values, rounded.values[seeds])
                        row |= {"difference (points)": difference_text(against, 2), "p": against.p}
                    rows.append(row)
    table = pd.DataFrame(rows)
    if rows:
        corrected = table.groupby("data set")["p"].transform(bonferroni)
        table["p"] = [f"{p:.2g}" if np.isfinite(p) else "" for p in corrected]
    return table
