"""A trained network on a clock: run for every time step, rule and word length, and what that leaves in files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bats_lab.config import LATENCY_TIMES, Config
from bats_lab.engine.quantization import TRAINED, quantization_scales, rounded
from bats_lab.errors import ResultsError
from bats_lab.files import newer_than_this
from bats_lab.network.feedforward import Network
from bats_lab.plots.runs import dataset_name
from bats_lab.runs.files import open_dataset, run_path
from bats_lab.runs.metrics import COORDINATES, VARIABLES, Entry
from bats_lab.runs.training import evaluate, input_spikes
from bats_lab.spikes.encoding import n_channels
from bats_lab.spikes.rules import RULES, rule_named, rule_on
from bats_lab.spikes.trains import Spikes

__all__ = [
    "by_dataset",
    "deployment_path",
    "holds_deployments",
    "is_deployed",
    "open_deployment",
    "open_deployments",
    "run_on_clock",
]

#: What a deployment holds beside what is in the schema of runs.
_ENTRIES = {
    "bits": Entry((), "i8", "1", "bits of a weight; 32: as trained"),
    "training": Entry((), "U", "1", "whether words of few bits are those of training"),
    "silent_classes": Entry((), "f8", "1", "output neurons silent on all images"),
    "n_inputs": Entry((), "i8", "1", "inputs of the network"),
    "duration": Entry((), "f8", "s", "length of the simulated window"),
    "threshold": Entry(("layer",), "f8", "1", "threshold, in the units of the weights"),
    "quantization_scale": Entry(("bits", "layer"), "f8", "1", "weight of integer 1; NaN: weights as trained"),
}
_POINT = ("rule", "delta_t", "bits")
#: Dimensions after `_POINT` of what is measured at each point.
MEASURED = {
    "accuracy": (),
    "loss": (),
    "spike_count": ("layer",),
    "synaptic_events": ("layer",),
    "collisions": ("layer",),
    "lost_spikes": ("layer",),
    "truncated_neurons": ("layer",),
    "confidence": ("time",),
    "first_spike_time": (),
    "decision_time": (),
    "silent_classes": (),
}


def run_on_clock(
    network: Network,
    images: np.ndarray | Spikes,
    labels: np.ndarray,
    config: Config,
    *,
    delta_t: Sequence[float],
    rules: Sequence[str] = tuple(RULES),
    bits: Sequence[int] = (TRAINED,),
    threads: int | None = None,
    on_point: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Run a trained network for every time step, collision rule and word length.

    Parameters
    ----------
    network : Network
        The network; when this returns or raises, its weights are what they were.
    images, labels : ndarray of uint8, (sample, row, column), or Spikes; and ndarray of int, (sample,)
        What it is shown, and the classes.
    config : Config
        The network's run: how images are encoded, target counts and batch size. Its `delta_t` and `rule` are not used.
    delta_t : sequence of float
        Time steps in seconds; 0 is continuous time.
    rules : sequence of str
        Collision rules. In continuous time all but ``clocked`` are one and the same, and that one is NaN.
    bits : sequence of int
        Word lengths of the weights, see ``quantize_weights``.
    threads : int or None
        Threads on the CPU, 0: one a core; None: as the network has them. Changes no result.
    on_point : callable or None
        Called with the number of passes done and of all, after each.

    Returns
    -------
    xarray.Dataset
        Over ``rule``, ``delta_t`` and ``bits`` what :data:`MEASURED` names, by layer or time where that says so; and
        ``input_spikes``, ``n_samples``, ``n_inputs``, ``duration`` (of the window, s), ``layer_size``, ``threshold``,
        ``quantization_scale`` (bits, layer): a threshold over it is the threshold in integer units.

    Raises
    ------
    ValueError
        Before anything is run, if a value is not allowed or listed twice, or images, labels and network do not match.

    Examples
    --------
    >>> network = Network((1, 1), thresholds=[0.2], max_spikes=[9], tau_syn=0.13, duration=0.2, weights=[[[20.0]]])
    >>> image = np.full((1, 1, 1), 200, np.uint8)
    >>> clocked = run_on_clock(network, image, np.array([0]), Config(), delta_t=[0, 0.02], rules=["drop", "graded"])
    >>> clocked["spike_count"].squeeze().values
    array([[9., 2.],
           [9., 8.]])
    """
    names = _layer_names(network)
    grids = [config.replace(delta_t=step, rule="drop") for step in delta_t]  # which refuses bad ones
    for rule in rules:
        rule_named(rule)
    rules, bits = list(rules), list(bits)
    _check_listed("delta_t", [grid.delta_t for grid in grids])
    _check_listed("rules", rules)
    _check_listed("bits", bits)
    _check_samples(network, images, labels)
    before, threads_before = network.weights, network.threads
    scales = {word: quantization_scales(before, word) for word in bits}
    lengths = {"layer": len(names), "time": len(LATENCY_TIMES)}
    values = {
        name: np.full((len(rules), len(grids), len(bits), *(lengths[d] for d in dims)), np.nan)
        for name, dims in MEASURED.items()
    }
    passes = [list(_passes(rules, grid.delta_t)) for grid in grids]
    done, total, per_sample = 0, sum(map(len, passes)) * len(bits), math.nan
    network.threads = threads_before if threads is None else threads
    try:
        for i, grid in enumerate(grids):
            # Once a time step: neither rules nor weights have a part in it.
            spikes = network.prepare(input_spikes(images, grid))
            per_sample = spikes.count.sum() / len(spikes)
            for k, word in enumerate(bits):
                network.set_weights([rounded(w, s, word) for w, s in zip(before, scales[word], strict=True)])
                for rule, places in passes[i]:
                    measured = _measured(network, spikes, labels, config, rule)
                    for name, value in measured.items():
                        values[name][places, i, k] = value
                    done += 1
                    if on_point is not None:
                        on_point(done, total)
    finally:
        network.set_weights(before)
        network.threads = threads_before
    return described(
        {name: (_POINT + MEASURED[name], value) for name, value in values.items()}
        | {
            "input_spikes": ((), per_sample),
            "n_samples": ((), len(labels)),
            "n_inputs": ((), network.sizes[0]),
            "duration": ((), network.duration),
            "layer_size": ("layer", network.sizes[1:]),
            "threshold": ("layer", network.thresholds),
            "quantization_scale": (("bits", "layer"), [scales[word] for word in bits]),
        },
        {
            "rule": rules,
            "delta_t": [grid.delta_t for grid in grids],
            "bits": bits,
            "layer": names,
            "time": LATENCY_TIMES,
        },
    )


def _layer_names(network: Network) -> list[str]:
    return [*(f"hidden_{i + 1}" for i in range(network.n_layers - 1)), "output"]


def _check_listed(name: str, values: Sequence[Any]) -> None:
    """Refuse a list that is empty or holds a value twice."""
    if not values:
        raise ValueError(f"{name} is empty; it must name at least one value.")
    if len(set(values)) < len(values):
        raise ValueError(f"{name} is {list(values)}; it must name no value twice.")


def _check_samples(network: Network, images: np.ndarray | Spikes, labels: np.ndarray) -> None:
    n, n_classes = len(images), network.sizes[-1]
    if n == 0 or np.shape(labels) != (n,):
        raise ValueError(
            f"labels have the shape {np.shape(labels)}; there must be one for each of {n} images, at least 1."
        )
    if (pixels := n_channels(images)) != network.sizes[0]:
        raise ValueError(f"images have {pixels} pixels; the network has {network.sizes[0]} inputs.")
    if np.min(labels) < 0 or np.max(labels) >= n_classes:
        raise ValueError(f"labels reach from {np.min(labels)} to {np.max(labels)}; they must be 0 to {n_classes - 1}.")


def _passes(rules: Sequence[str], delta_t: float) -> Iterator[tuple[str, list[int]]]:
    """Yield the rules that have to be run at a time step, with the places of those that give the very same."""
    if delta_t:
        yield from ((rule, [i]) for i, rule in enumerate(rules))
        return
    alike = [i for i, rule in enumerate(rules) if not RULES[rule].clocked]
    if alike:
        yield rule_on(rules[0], 0.0), alike


def _measured(network: Network, spikes: Spikes, labels: np.ndarray, config: Config, rule: str) -> dict[str, Any]:
    result = evaluate(
        network,
        spikes,
        labels,
        rule=rule,
        batch_size=config.test_batch_size,
        target_true=config.target_true,
        target_false=config.target_false,
    )
    incoming = np.array([result.input_spikes, *result.spike_count[:-1]])
    return {name: value for name, value in vars(result).items() if name in MEASURED} | {
        "synaptic_events": incoming * network.sizes[1:],
        "collisions": result.dropped + result.merged + result.deferred,
        "silent_classes": np.count_nonzero(~np.asarray(result.fired[-1], dtype=bool)),
    }


def described(variables: dict[str, tuple[Any, Any]], coords: dict[str, Any]) -> xr.Dataset:
    """Build a Dataset with types, units and names from the schema."""
    data = {name: (dims, _typed(name, value)) for name, (dims, value) in variables.items()}
    dataset = xr.Dataset(data, {name: (name, _typed(name, value)) for name, value in coords.items()})
    for name, variable in dataset.variables.items():
        entry = _entry(str(name))
        variable.attrs = {"units": entry.units, "long_name": entry.long_name}
    return dataset


def _entry(name: str) -> Entry:
    return _ENTRIES.get(name) or COORDINATES.get(name) or VARIABLES[name]


def _typed(name: str, value: Any) -> np.ndarray:
    dtype = _entry(name).dtype
    return np.asarray(value).astype(str if dtype == "U" else dtype)


def deployment_path(folder: str | Path, dataset: str, seed: int) -> Path:
    """Return the file of a network's deployment.

    Examples
    --------
    >>> deployment_path("results", "mnist", 0).name
    'deployment-mnist-seed0.nc'
    """
    return Path(folder) / f"deployment-{dataset}-seed{seed}.nc"


def is_deployed(folder: str | Path, config: Config) -> bool:
    """Tell whether the network of a run was deployed; that of other parameters does not count."""
    path = deployment_path(folder, config.dataset, config.seed)
    return path.exists() and open_dataset(path).attrs.get("run") == run_path(folder, config).name


def holds_deployments(folder: str | Path) -> bool:
    """Tell whether there is a deployment in a folder."""
    return bool(_deployments(folder))


def _deployments(folder: str | Path) -> list[Path]:
    return sorted(Path(folder).glob("deployment-*-seed*.nc"))


def open_deployment(folder: str | Path) -> xr.Dataset:
    """Read all deployments of a folder as one Dataset over ``dataset`` and ``seed``; NaN where something is missing.

    Raises
    ------
    FileNotFoundError
        If there is no deployment in the folder.
    ResultsError
        If a file cannot be read, or is no deployment.
    """
    paths = _deployments(folder)
    if not paths:
        raise FileNotFoundError(f"There is no deployment in {folder}; run_deployment makes them.")
    parts = []
    for path in paths:
        part = open_dataset(path)
        _validate(part, path)
        network = {"dataset": [str(part.attrs["dataset"])], "seed": [int(part.attrs["seed"])]}
        parts.append(part.drop_encoding().expand_dims(network))
    joined = xr.merge(parts, join="outer", compat="no_conflicts", combine_attrs="drop_conflicts")
    orders: dict[str, Callable[[Any], Any]] = {
        "dataset": lambda name: (name != "mnist", name),
        "rule": list(RULES).index,
        "bits": lambda bits: -bits,
        "split": lambda name: (name == "test", name),
    }
    # Labels that differ between files are sorted when they are joined: text by the alphabet, numbers ascending.
    joined = joined.sel(
        {dim: sorted(joined[dim].values.tolist(), key=key) for dim, key in orders.items() if dim in joined.dims}
    )
    joined = joined.assign_coords(described({}, {str(n): joined[n].values for n in joined.coords}).coords)
    return joined.transpose("dataset", "seed", "split", ..., missing_dims="ignore")


def _validate(deployment: xr.Dataset, path: Path) -> None:
    """Refuse a file that is no deployment; a ResultsError says what is wrong with it."""
    known = _ENTRIES.keys() | COORDINATES.keys() | VARIABLES.keys()
    dims = {"split", *_POINT, "layer", "time"}
    wrong = [f"{name!r} is no dimension of one" for name in deployment.dims if name not in dims]
    wrong += [f"{name!r} is no variable of one" for name in deployment.variables if name not in known]
    wrong += [f"it has no labels of {name!r}" for name in deployment.dims if name not in deployment.coords]
    wrong += [f"it lacks {name!r}" for name in ("accuracy", *_POINT) if name not in deployment.variables]
    wrong += [f"it lacks the attribute {name!r}" for name in ("dataset", "seed") if name not in deployment.attrs]
    if not wrong and (unknown := set(deployment["rule"].values.tolist()) - RULES.keys()):
        wrong = [f"{min(unknown)!r} is no collision rule"]
    if wrong:
        newer = newer_than_this(str(deployment.attrs.get("version", "")))
        raise ResultsError(f"{path} is no deployment of a network: {wrong[0]}{newer}.")


def open_deployments(folder: str | Path) -> dict[str, xr.Dataset]:
    """Read all deployments of a folder by data set, as plots take them; empty where there are none.

    Raises
    ------
    ResultsError
        If a file cannot be read.
    """
    return by_dataset(open_deployment(folder)) if holds_deployments(folder) else {}


def by_dataset(deployment: xr.Dataset) -> dict[str, xr.Dataset]:
    """Split a deployment into what plots draw: one data set each, of which something was measured."""
    if "dataset" not in deployment.dims:
        deployment = deployment.expand_dims("dataset")
    parts = [deployment.sel(dataset=name) for name in deployment["dataset"].values]
    return {dataset_name(part): part for part in parts if bool(part["accuracy"].notnull().any())}
