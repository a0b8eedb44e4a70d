r"""A network trained in continuous time, put on a chip: run on a clock, with weights of few bits, not trained again.

Two things change between the network of the thesis and one that a digital chip runs: its time becomes ticks and its
weights become integers. Here both are done to networks that have been trained without either ("post-training"):

- :func:`quantize_weights` rounds weights to integers times a scale;
- :func:`run_on_clock` runs a network on images for every time step, collision rule and word length asked for;
- :func:`chip_configs` lists the networks, :func:`run_deployment` measures them, :func:`open_deployment` reads that;
- :func:`choose` reads off the coarsest clock and the shortest word that cost next to nothing;
- :func:`deployment_costs` turns what was counted into energy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bats_lab import __version__
from bats_lab.config import LATENCY_TIMES, Config
from bats_lab.data.datasets import ImageData, load_dataset
from bats_lab.errors import ResultsError
from bats_lab.network.feedforward import Network
from bats_lab.runs.experiment import network_of
from bats_lab.runs.files import open_dataset, open_run, run_path, save_dataset
from bats_lab.runs.metrics import COORDINATES, VARIABLES, Entry
from bats_lab.runs.training import evaluate, input_spikes, split_training
from bats_lab.spikes.rules import RULES, rule_named, rule_on
from bats_lab.spikes.trains import Spikes
from bats_lab.studies.chip.energy import HARDWARE, Hardware, costs_of

__all__ = [
    "DEPLOY_STEPS",
    "NOTEBOOK",
    "WORD_LENGTHS",
    "chip_configs",
    "choose",
    "deployment_costs",
    "deployment_path",
    "holds_deployments",
    "is_deployed",
    "open_deployment",
    "quantization_scales",
    "quantize_weights",
    "run_deployment",
    "run_on_clock",
]

#: The notebook that draws all of it.
NOTEBOOK = "35_from_training_to_chip"
#: Time steps (s) of the clocks; 0 is continuous time, in which the networks are trained.
DEPLOY_STEPS = (0.0, 0.0005, 0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.012, 0.015, 0.02, 0.03)
#: Word lengths of the weights, in bits; 32: as they were trained.
WORD_LENGTHS = (32, 8, 6, 4, 3, 2)

#: The word length that stands for weights as they are.
_UNQUANTIZED = 32
_MAX_BITS = 16


# ------------------------------------------------------------------------------------------------- coarse weights

# Clipping points over the largest weight. Those above 1 are 2^k / (2^k - 1): with k + 1 bits they put the largest
# weight on the last level.
_CLIPPING = np.concatenate(
    [np.geomspace(1 / 32, 1, 64), 2.0 ** np.arange(1, _MAX_BITS) / (2.0 ** np.arange(1, 16) - 1)]
)
# Significant bits of a clipping point. With 15 more for the integer, a product fits the 24 bits of a float32 exactly.
_CLIPPING_DIGITS = 9


def quantize_weights(weights: Sequence[np.ndarray], bits: int) -> list[np.ndarray]:
    r"""Round weights to integers times a scale, one scale a layer.

    .. math:: w_q = s\,k, \qquad k = \operatorname{clip}(\operatorname{round}(w/s), -K, K), \qquad K = 2^{b-1} - 1

    Parameters
    ----------
    weights : sequence of ndarray, (post, pre)
        Weights of each layer.
    bits : int
        Word length `b`, 2 to 16; 32 leaves the weights as they are.

    Returns
    -------
    list of ndarray, (post, pre)
        New arrays of the same type (float64 for those that are neither float32 nor float64); every weight is exactly
        an integer from -K to K times the scale that :func:`quantization_scales` returns.

    Raises
    ------
    ValueError
        If `bits` is none of these numbers, or a weight is not finite.

    Notes
    -----
    Symmetric uniform quantization without a zero point (Jacob et al., CVPR 2018, arXiv:1712.05877). The scale is that
    of least mean squared error over a grid of clipping points, since to clip a few large weights can cost less than
    coarse levels for all others (Banner, Nahshan & Soudry, NeurIPS 2019, arXiv:1810.05723). The mean squared error
    never grows with `bits`, and weights that already are such multiples stay what they are.

    Examples
    --------
    >>> [layer] = quantize_weights([np.array([[0.9, -0.32, 0.05]])], bits=3)
    >>> layer.round(3)
    array([[ 0.902, -0.301,  0.   ]])
    """
    given = _as_floats(weights)
    return [_rounded(w, scale, bits) for w, scale in zip(given, quantization_scales(given, bits), strict=True)]


def quantization_scales(weights: Sequence[np.ndarray], bits: int) -> list[float]:
    """Return the scale of each layer: what a weight of integer 1 stands for.

    Parameters
    ----------
    weights, bits
        As in :func:`quantize_weights`, which also raises here.

    Returns
    -------
    list of float
        A threshold over its layer's scale is the threshold in the chip's integer units. NaN for 32 bits; 1 for a layer
        of zeros.

    Examples
    --------
    >>> quantization_scales([np.array([[0.5, -0.25, 0.75]])], bits=3)
    [0.25]
    """
    _check_bits(bits)
    given = _as_floats(weights)
    return [math.nan if bits == _UNQUANTIZED else _best_scale(w, bits) for w in given]


def _check_bits(bits: Any) -> None:
    whole = isinstance(bits, int | np.integer) and not isinstance(bits, bool)
    if not whole or not (2 <= bits <= _MAX_BITS or bits == _UNQUANTIZED):
        raise ValueError(
            f"bits is {bits!r}; it must be a whole number from 2 to {_MAX_BITS}, or {_UNQUANTIZED} for weights as "
            f"they are."
        )


def _as_floats(weights: Sequence[np.ndarray]) -> list[np.ndarray]:
    given = [np.asarray(w) for w in weights]
    given = [w if w.dtype in (np.float32, np.float64) else w.astype(np.float64) for w in given]
    for i, w in enumerate(given):
        if not np.isfinite(w).all():
            raise ValueError(f"weights of layer {i} hold {np.sum(~np.isfinite(w))} values that are not finite numbers.")
    return given


def _top(bits: int) -> int:
    """Return the largest integer of a word; the smallest is its negative."""
    return int(2 ** (int(bits) - 1) - 1)


def _rounded(w: np.ndarray, scale: float, bits: int) -> np.ndarray:
    if math.isnan(scale):
        return w.copy()
    top = _top(bits)
    integers = np.clip(np.rint(w.astype(np.float64) / scale), -top, top)
    return (integers * scale + 0.0).astype(w.dtype)  # + 0.0: no weight is -0


def _best_scale(w: np.ndarray, bits: int) -> float:
    """Return the scale of least squared error."""
    magnitudes, top = np.sort(np.abs(w[w != 0]), axis=None).astype(np.float64), _top(bits)
    if not magnitudes.size:
        return 1.0
    exact = _common_step(magnitudes, top)
    if exact is not None:
        return exact
    # A clipping point over 2^(b-1): a bit more halves the scale and keeps every level, so no error grows with the bits.
    fraction, exponent = np.frexp(_CLIPPING * magnitudes[-1])
    points = np.ldexp(np.ceil(fraction * 2**_CLIPPING_DIGITS) / 2**_CLIPPING_DIGITS, exponent)
    scales = np.maximum(points / 2 ** (bits - 1), np.finfo(w.dtype).tiny)
    # The error of level k in place of level k-1, (w - ks)^2 - (w - (k-1)s)^2 = s ((2k-1) s - 2w), summed over all
    # weights that are on level k or above; so a scale takes a search for each level, not a pass over the weights.
    level = np.arange(1, top + 1)
    sum_below = np.concatenate([[0.0], np.cumsum(magnitudes)])

    def squared_error(scale: float) -> float:
        begin = np.searchsorted(magnitudes, (level - 0.5) * scale)
        change = (2 * level - 1) * scale * (len(magnitudes) - begin) - 2 * (sum_below[-1] - sum_below[begin])
        return float(scale * change.sum())  # and the sum of squares, which is the same for all

    return float(min(scales, key=squared_error))


def _common_step(magnitudes: np.ndarray, top: int) -> float | None:
    """Return the greatest common divisor of numbers above 0, if it goes into them `top` times at most; else None.

    Where it does, the numbers are on a grid of that word length already, and no other scale is without error.
    """
    values = np.unique(magnitudes)
    largest = float(values[-1])
    # Euclid's algorithm. The remainder of two floats is exact.
    while len(values) <= top and largest <= top * float(values[0]):
        least = values[:1]
        remainders = np.fmod(values[1:], least)
        if not remainders.any():
            return float(least[0])
        values = np.unique(np.concatenate([least, remainders[remainders > 0]]))
    return None


# ------------------------------------------------------------------------------------------------- a coarse clock

#: What a deployment holds beside what is in the schema of runs.
_ENTRIES = {
    "bits": Entry((), "i8", "1", "bits of a weight; 32: as trained"),
    "n_inputs": Entry((), "i8", "1", "inputs of the network"),
    "duration": Entry((), "f8", "s", "length of the simulated window"),
    "threshold": Entry(("layer",), "f8", "1", "threshold, in the units of the weights"),
    "quantization_scale": Entry(("bits", "layer"), "f8", "1", "weight of integer 1; NaN: weights as trained"),
}
_POINT = ("rule", "delta_t", "bits")
#: Dimensions after `_POINT` of what is measured at each point.
_MEASURED = {
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
}


def run_on_clock(
    network: Network,
    images: np.ndarray,
    labels: np.ndarray,
    config: Config,
    *,
    delta_t: Sequence[float],
    rules: Sequence[str] = tuple(RULES),
    bits: Sequence[int] = (_UNQUANTIZED,),
    threads: int | None = None,
    on_point: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Run a trained network for every time step, collision rule and word length.

    Parameters
    ----------
    network : Network
        The network; when this returns or raises, its weights are what they were.
    images : ndarray of uint8, (sample, row, column)
        What it is shown.
    labels : ndarray of int, (sample,)
        Their classes.
    config : Config
        The network's run: how images are encoded, target counts and batch size. Its `delta_t` and `rule` are not used.
    delta_t : sequence of float
        Time steps in seconds; 0 is continuous time.
    rules : sequence of str
        Collision rules. In continuous time all but ``clocked`` are one and the same, and that one is NaN.
    bits : sequence of int
        Word lengths of the weights, see :func:`quantize_weights`.
    threads : int or None
        Threads on the CPU, 0: one a core; None: as the network has them. Changes no result.
    on_point : callable or None
        Called with the number of passes done and of all, after each.

    Returns
    -------
    xarray.Dataset
        Over ``rule``, ``delta_t`` and ``bits``: ``accuracy``, ``loss``, ``confidence`` (time), ``first_spike_time``,
        ``decision_time``, and by layer ``spike_count``, ``synaptic_events``, ``collisions``, ``lost_spikes``,
        ``truncated_neurons``. Beside them ``input_spikes``, ``n_samples``, ``n_inputs``, ``duration`` (of the window,
        s), ``layer_size``, ``threshold``, and ``quantization_scale`` (bits, layer): a threshold over it is the
        threshold in integer units.

    Raises
    ------
    ValueError
        Before anything is run, if a value is not allowed or listed twice, or images, labels and network do not match.

    Examples
    --------
    >>> network = Network((1, 1), thresholds=[0.2], max_spikes=[9], tau_syn=0.13, duration=0.2, weights=[[[20.0]]])
    >>> image = np.full((1, 1, 1), 200, np.uint8)
    >>> found = run_on_clock(network, image, np.array([0]), Config(), delta_t=[0, 0.02], rules=["drop", "graded"])
    >>> found["spike_count"].squeeze().values
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
        for name, dims in _MEASURED.items()
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
                network.set_weights([_rounded(w, s, word) for w, s in zip(before, scales[word], strict=True)])
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
    return _described(
        {name: (_POINT + _MEASURED[name], value) for name, value in values.items()}
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


def _check_samples(network: Network, images: np.ndarray, labels: np.ndarray) -> None:
    n, n_classes = len(images), network.sizes[-1]
    if n == 0 or np.shape(labels) != (n,):
        raise ValueError(
            f"labels have the shape {np.shape(labels)}; there must be one for each of {n} images, at least 1."
        )
    if images[0].size != network.sizes[0]:
        raise ValueError(f"images have {images[0].size} pixels; the network has {network.sizes[0]} inputs.")
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
    found = evaluate(
        network,
        spikes,
        labels,
        rule=rule,
        batch_size=config.test_batch_size,
        target_true=config.target_true,
        target_false=config.target_false,
    )
    incoming = np.array([found.input_spikes, *found.spike_count[:-1]])
    values = {
        "synaptic_events": incoming * network.sizes[1:],
        "collisions": found.dropped + found.merged + found.deferred,
    }
    values |= {name: value for name, value in vars(found).items() if name in _MEASURED}
    return values


def _described(variables: dict[str, tuple[Any, Any]], coords: dict[str, Any]) -> xr.Dataset:
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


# ------------------------------------------------------------------------------------------------- all of it, in files

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
        Seeds, counted from 0; all networks of one before those of the next.
    quick : bool
        Two epochs of ``mnist_small``, in place of MNIST and Fashion-MNIST.

    Returns
    -------
    list of Config

    Raises
    ------
    ValueError
        If `seeds` is below 1.
    """
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}; it must be at least 1.")
    common = {"delta_t": 0.0, "validation_fraction": _HELD_OUT, "keep_samples": 0}
    return [
        Config.from_dict(common | {"dataset": dataset, "epochs": epochs, "seed": seed})
        for seed in range(seeds)
        for dataset, epochs in ({"mnist_small": 2} if quick else _EPOCHS).items()
    ]


def deployment_path(folder: str | Path, dataset: str, seed: int) -> Path:
    """Return the file of a network's deployment.

    Examples
    --------
    >>> deployment_path("results", "mnist", 0).name
    'deployment-mnist-seed0.nc'
    """
    return Path(folder) / f"deployment-{dataset}-seed{seed}.nc"


def is_deployed(folder: str | Path, config: Config) -> bool:
    """Tell whether the network of a run was deployed; that of other parameters does not count.

    Raises
    ------
    ResultsError
        If the deployment cannot be read.
    """
    path = deployment_path(folder, config.dataset, config.seed)
    return path.exists() and open_dataset(path).attrs.get("run") == run_path(folder, config).name


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
    device : str
        ``auto``, ``cuda`` or ``cpu``.
    threads : int
        Threads on the CPU; 0: one a core. Changes no result.
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
    DataError, DeviceError
        If a data set cannot be read, or the device fails.
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
            found = _deployed(network, config, data, quick, report)
            origin = {"dataset": config.dataset, "seed": config.seed, "run": trained.name, "data_hash": data.data_hash}
            save_dataset(found.assign_attrs(origin, version=__version__), path)
        paths.append(path)
    return paths


def _deployed(
    network: Network, config: Config, data: ImageData, quick: bool, report: Callable[[str], None]
) -> xr.Dataset:
    """Run a network on the validation and on the test images."""
    x_train, y_train = data.x_train[: config.n_train], data.y_train[: config.n_train]
    _, held_out = split_training(len(y_train), config.validation_fraction)
    parts = {
        "validation": (x_train[held_out], y_train[held_out]),
        "test": (data.x_test[: config.n_test], data.y_test[: config.n_test]),
    }
    most = _QUICK_IMAGES if quick else None
    found = []
    for split, (images, labels) in parts.items():

        def on_point(done: int, total: int, split: str = split) -> None:
            if done * 10 // total > (done - 1) * 10 // total:  # each tenth
                report(f"{config.dataset}, seed {config.seed}: {done} of {total} points on {split} images")

        found.append(
            run_on_clock(
                network,
                images[:most],
                labels[:most],
                config,
                delta_t=_QUICK_STEPS if quick else DEPLOY_STEPS,
                bits=_QUICK_WORDS if quick else WORD_LENGTHS,
                on_point=on_point,
            )
        )
    by_split: list[Any] = [name for name in found[0].data_vars if name in (*_MEASURED, "input_spikes", "n_samples")]
    entry = COORDINATES["split"]
    split_labels = xr.Variable("split", list(parts), {"units": entry.units, "long_name": entry.long_name})
    return xr.concat(
        found,
        split_labels,
        data_vars=by_split,
        coords="minimal",
        compat="override",
        join="exact",
        combine_attrs="drop_conflicts",
    )


def holds_deployments(folder: str | Path) -> bool:
    """Tell whether there is a deployment in a folder."""
    return bool(_deployments(folder))


def _deployments(folder: str | Path) -> list[Path]:
    return sorted(Path(folder).glob("deployment-*-seed*.nc"))


def open_deployment(folder: str | Path) -> xr.Dataset:
    """Read all deployments of a folder as one Dataset.

    Parameters
    ----------
    folder : str or Path
        Folder into which :func:`run_deployment` wrote.

    Returns
    -------
    xarray.Dataset
        The deployments over ``dataset`` and ``seed``; NaN where one of them, or a layer, is missing.

    Raises
    ------
    FileNotFoundError
        If there is no deployment in the folder.
    ResultsError
        If a file cannot be read.
    """
    paths = _deployments(folder)
    if not paths:
        raise FileNotFoundError(f"There is no deployment in {folder}; run_deployment makes them.")
    parts = []
    for path in paths:
        part = open_dataset(path).drop_encoding()
        place = {"dataset": [str(part.attrs["dataset"])], "seed": [int(part.attrs["seed"])]}
        parts.append(part.expand_dims(place))
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
    for name in [str(n) for n in joined.coords]:
        entry = _entry(name)
        text = joined[name].values.astype(str) if entry.dtype == "U" else joined[name].values
        joined = joined.assign_coords({name: (name, text, {"units": entry.units, "long_name": entry.long_name})})
    return joined.transpose("dataset", "seed", "split", ..., missing_dims="ignore")


# ------------------------------------------------------------------------------------------------- what to build


def choose(
    deployment: xr.Dataset, *, tolerance: float = 0.01, by: str = "validation", first: str = "delta_t"
) -> pd.DataFrame:
    """Choose for each data set and collision rule the coarsest clock and the shortest word that cost next to nothing.

    Parameters
    ----------
    deployment : xarray.Dataset
        As :func:`open_deployment` returns it.
    tolerance : float
        Accuracy that may be lost against the same networks in continuous time with their trained weights; 0.01 is one
        percentage point.
    by : str
        Images on which the choice is made; with ``test`` the test accuracy beside it would flatter.
    first : str
        What is chosen first: ``delta_t``, the coarsest clock at which any word will do, and then the shortest word at
        that clock; or ``bits``, the shortest word with which any clock will do, and then its coarsest clock.

    Returns
    -------
    pandas.DataFrame
        A row for each data set and rule: ``dataset``, ``rule``, ``seeds``, ``delta_t`` (s; 0: only continuous time will
        do), ``bits``; then means over the seeds: accuracy on the images of the choice (``validation_accuracy``),
        ``test_accuracy`` with ``test_accuracy_std`` (n - 1; NaN for one seed), ``continuous_accuracy`` (test images,
        continuous time, trained weights), and on test images ``spikes`` and ``synaptic_events`` (per sample, all
        layers) and ``decision_time`` (s). Where nothing will do, all after ``seeds`` but ``continuous_accuracy`` is
        missing. Data sets without any network are left out.

    Raises
    ------
    ValueError
        If a value is not allowed, or continuous time or the trained weights were not measured.
    """
    splits = deployment["split"].values.tolist()
    if by not in splits:
        raise ValueError(f"by is {by!r}; it must be one of {', '.join(splits)}.")
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance is {tolerance}; it must be at least 0 and below 1.")
    if first not in ("delta_t", "bits"):
        raise ValueError(f"first is {first!r}; it must be delta_t or bits.")
    if 0 not in deployment["delta_t"].values or _UNQUANTIZED not in deployment["bits"].values:
        raise ValueError(f"deployment must hold delta_t 0 and bits {_UNQUANTIZED}, which others are measured against.")
    rows = []
    for dataset in deployment["dataset"].values.tolist():
        here = deployment.sel(dataset=dataset)
        # One and the same under every rule but clocked, which has none.
        exact = here["accuracy"].sel(delta_t=0, bits=_UNQUANTIZED).max("rule")
        measured = exact.notnull().all("split").values
        if not measured.any():
            continue
        here, exact = here.isel(seed=measured), exact.isel(seed=measured)
        enough = exact.sel(split=by).mean("seed").item() - tolerance - 1e-12  # a loss of just the tolerance is allowed
        for rule in here["rule"].values.tolist():
            points = here.sel(rule=rule)
            good = points["accuracy"].sel(split=by).mean("seed", skipna=False).transpose("delta_t", "bits") >= enough
            steps, words = (good[dim].values[i] for dim, i in zip(good.dims, np.nonzero(good.values), strict=True))
            row = {
                "dataset": dataset,
                "rule": rule,
                "seeds": int(measured.sum()),
                **dict.fromkeys(("delta_t", "bits", f"{by}_accuracy", "test_accuracy", "test_accuracy_std"), math.nan),
                "continuous_accuracy": exact.sel(split="test").mean("seed").item(),
                **dict.fromkeys(("spikes", "synaptic_events", "decision_time"), math.nan),
            }
            if len(steps):
                keys = (words, -steps) if first == "bits" else (-steps, words)
                best = np.lexsort(keys[::-1])[0]
                row |= _chosen(points.sel(delta_t=steps[best], bits=words[best]), by)
            rows.append(row)
    table = pd.DataFrame(rows)
    return table.astype({"bits": "Int64"}) if rows else table


def _chosen(point: xr.Dataset, by: str) -> dict[str, Any]:
    """Return what the table holds of a point, which has the dimensions `seed` and `split` (and `layer`)."""
    test = point.sel(split="test")
    n_seeds = point.sizes["seed"]
    return {
        "delta_t": point["delta_t"].item(),
        "bits": point["bits"].item(),
        f"{by}_accuracy": point["accuracy"].sel(split=by).mean("seed").item(),
        "test_accuracy": test["accuracy"].mean("seed").item(),
        "test_accuracy_std": test["accuracy"].std("seed", ddof=1).item() if n_seeds > 1 else math.nan,
        "spikes": test["spike_count"].sum("layer").mean("seed").item(),
        "synaptic_events": test["synaptic_events"].sum("layer").mean("seed").item(),
        "decision_time": test["decision_time"].mean("seed").item(),
    }


def deployment_costs(deployment: xr.Dataset, *, hardware: Mapping[str, Hardware] = HARDWARE) -> xr.Dataset:
    """Estimate what an inference costs at each point: the clock's part apart from that of the events.

    Parameters
    ----------
    deployment : xarray.Dataset
        As :func:`open_deployment` or :func:`run_on_clock` returns it.
    hardware : mapping of str to Hardware
        On what.

    Returns
    -------
    xarray.Dataset
        What `energy.costs` returns, over the dimensions of the points and ``hardware``; NaN where there
        is no point.

    Raises
    ------
    ValueError
        If a variable is missing.

    Notes
    -----
    Published energies are of one word length each; what a shorter word saves is not in here.
    """
    needed = ("spike_count", "synaptic_events", "layer_size", "n_inputs", "duration")
    missing = [name for name in needed if name not in deployment]
    if missing:
        raise ValueError(
            f"deployment lacks {', '.join(missing)}; run_deployment measures it anew without the old file."
        )
    return costs_of(
        deployment[list(needed)], n_inputs=deployment["n_inputs"], duration=deployment["duration"], hardware=hardware
    )
