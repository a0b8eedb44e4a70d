"""Every parameter of a run: its name, type, default, unit, allowed values, and the data sets' presets.

This is the one place where a parameter is defined. The command line builds its options from
:func:`parameters`, the training notebook's parameters cell is the text of :func:`parameters_cell` (a
test holds the two together), and everything that validates a value does so by building a
:class:`Config`.
"""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import difflib
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bats_lab.spikes.estimators import ESTIMATORS, Estimator
from bats_lab.spikes.rules import RULES, rule_named

__all__ = ["LATENCY_TIMES", "PRESETS", "Config", "Parameter", "parameters", "parameters_cell"]

#: Times at which prediction confidence is read, in seconds.
LATENCY_TIMES = (0.02, 0.03, 0.05, 0.08, 0.1, 0.13, 0.15, 0.18, 0.2)

# Table 1 of the thesis, settled: what its data sets share, and what differs between them.
_IMAGES: dict[str, Any] = {
    "duration": 0.2,
    "tau_syn": 0.13,
    "weight_scale": 1.0,
    "weight_shift_output": 0.0,
    "epochs": 10,
    "learning_rate_interval": 10,
    "target_true": 15.0,
    "target_false": 3.0,
}
_CHARACTERS: dict[str, Any] = _IMAGES | {
    "hidden": (800,),
    "batch_size": 50,
    "learning_rate": 0.003,
    "learning_rate_decay": 1.0,
    "learning_rate_min": 0.0,
    "threshold_hidden": (0.2,),
    "threshold_output": 1.3,
    "max_spikes_hidden": (30,),
    "max_spikes_output": 30,
}
PRESETS: dict[str, dict[str, Any]] = {
    "mnist": _CHARACTERS,
    "emnist": _CHARACTERS,
    "fashion_mnist": _IMAGES
    | {
        "hidden": (400, 400),
        "batch_size": 5,
        "learning_rate": 0.0005,
        "learning_rate_decay": 0.5,
        "learning_rate_min": 1e-4,
        "threshold_hidden": (0.13, 0.45),
        "threshold_output": 0.7,
        "max_spikes_hidden": (5, 5),
        "max_spikes_output": 20,
    },
}

# Recipes for data sets of events, found on validation samples. Thresholds are low, since few inputs spike, and that of
# the output is no higher than lets every output neuron spike before training: a silent one would never learn. With
# weights that are negative as often as positive no threshold is low enough for nine of them under every seed.
_EVENTS = {"weight_scale": 1.0, "learning_rate_interval": 20, "learning_rate_min": 0.0}
PRESETS["yin_yang"] = _EVENTS | {
    "duration": 0.2,
    "tau_syn": 0.015,
    "weight_shift_output": 0.0,
    "epochs": 100,
    "hidden": (300,),
    "batch_size": 100,
    "learning_rate": 0.003,
    "learning_rate_decay": 0.4,
    "threshold_hidden": (0.007,),
    "threshold_output": 0.012,
    "max_spikes_hidden": (10,),
    "max_spikes_output": 60,
    "target_true": 20.0,
    "target_false": 6.0,
}
PRESETS["japanese_vowels"] = _EVENTS | {
    "duration": 0.25,
    "tau_syn": 0.03,
    "weight_shift_output": 0.1,
    "epochs": 80,
    "hidden": (400,),
    "batch_size": 20,
    "learning_rate": 0.01,
    "learning_rate_decay": 0.5,
    "threshold_hidden": (0.8,),
    "threshold_output": 0.04,
    "max_spikes_hidden": (30,),
    "max_spikes_output": 100,
    "target_true": 40.0,
    "target_false": 15.0,
}
# Data sets of events, which nothing is encoded for.
_OF_EVENTS = ("yin_yang", "japanese_vowels", "spoken_digits")
#: Units of time and their power of ten.
_UNITS = {"ns": "e-9", "us": "e-6", "µs": "e-6", "ms": "e-3", "s": ""}
# Parameters with an entry for each hidden layer; one entry stands for all layers.
_PER_HIDDEN = ("threshold_hidden", "max_spikes_hidden")

# Says what is allowed in place of a value, or None where it is allowed.
_Check = Callable[[Any], str | None]


def _finite(low: float, high: float = math.inf, *, open_low: bool = False) -> _Check:
    """Build a check that a number is finite and between `low` and `high`."""
    above = "above" if open_low else "at least"
    allowed = f"a number {above} {low:g}" + ("" if math.isinf(high) else f" and at most {high:g}")

    def check(value: Any) -> str | None:
        good = (
            (isinstance(value, int) or math.isfinite(value))
            and (value > low if open_low else value >= low)
            and value <= high
        )
        return None if good else allowed

    return check


_positive, _not_negative, _count = _finite(0, open_low=True), _finite(0), _finite(1)


def _each(check: _Check) -> _Check:
    """Build a check that every entry of a tuple passes `check`."""
    return lambda values: next((f"entries that are each {allowed}" for allowed in map(check, values) if allowed), None)


def _one_of(*choices: str) -> _Check:
    return lambda value: None if value in choices else "one of " + ", ".join(choices)


def _name(value: Any) -> str | None:
    return None if value.strip() == value and value else "the name of a data set or the path of an .npz or .csv file"


def _param(
    default: Any,
    unit: str,
    text: str,
    check: _Check | None = None,
    *,
    preset: bool = False,
    measured: bool = True,
    added: bool = False,
    before: Any = None,
) -> Any:
    """Define one parameter.

    With `preset` its default is None, which stands for the preset's value; without `measured` it changes nothing that
    is measured. One that was `added` after runs had been published is left out of a run's identity at its default, or
    where the preset decides at what it was `before`, so that those runs keep their names.
    """
    metadata = {"unit": unit, "text": text, "check": check, "preset": preset, "measured": measured, "added": added}
    return field(default=default, metadata=metadata | {"before": before if preset else default})


def _preset(unit: str, text: str, check: _Check, *, before: Any = None) -> Any:
    """Define a parameter whose value the data set's preset gives where it is left open.

    One that was added after runs had been published says what it was in those, `before`.
    """
    return _param(None, unit, text, check, preset=True, added=before is not None, before=before)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a run, for those who build options, cells and tables from it."""

    name: str  #: name of the attribute of Config
    type: type  #: str, int, float, bool or tuple
    item: builtins.type | None  #: type of a tuple's entries
    default: Any  #: None where the data set's preset decides, or where None means "all"
    unit: str  #: "1" for pure numbers, "" for names
    text: str  #: a short description
    from_preset: bool  #: whether None stands for the preset's value
    optional: bool  #: whether None is allowed at all
    measured: bool  #: whether it can change anything that is measured, and not only what is kept or how it is computed

    def read(self, text: str) -> Any:
        """Read a value as people type it; what is not of its type is left as text, for :class:`Config` to refuse.

        Examples
        --------
        >>> hidden = next(p for p in parameters() if p.name == "hidden")
        >>> hidden.read("200-100"), hidden.read("preset")
        ([200, 100], None)
        """
        if text.lower() in ("none", "all", "preset") and (self.optional or self.from_preset):
            return None
        if self.type is tuple:
            return [_number(part) for part in re.split(r"(?<=[^eE])-", text)]
        if self.type is bool:
            return {"yes": True, "true": True, "no": False, "false": False}.get(text.lower(), text)
        return text if self.type is str else _number(text)


def _number(text: str) -> Any:
    try:
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
    except ValueError:
        return text


@dataclass(frozen=True, kw_only=True)
class Config:
    """All parameters of one run: what is trained, on what, with which time step.

    A value that is not allowed is refused on construction. Parameters whose default is None take the
    value of the data set's preset (Table 1 of the thesis, or found by search), so a finished `Config` holds no None
    but in `n_train` and `n_test`, where None means all samples, and in `auto_threshold` and `wake_classes`, where it
    means: for data of one's own that the thresholds of the preset do not fit, if they are those of the run.
    `threshold_hidden` and `max_spikes_hidden` take one entry for all hidden layers.

    Raises
    ------
    ValueError
        If a value is not allowed; the message names the parameter, the value and what is allowed.
    TypeError
        If a value is of the wrong type.

    Examples
    --------
    >>> config = Config(dataset="mnist", delta_t=0.004)
    >>> config.hidden, config.threshold_hidden, config.batch_size
    ((800,), (0.2,), 50)
    >>> Config(delta_t=-1.0)
    Traceback (most recent call last):
        ...
    ValueError: delta_t is -1.0; it must be a number at least 0.
    """

    # data
    dataset: str = _param(
        "mnist_small",
        "",
        "data set (bats-lab data list), or the path of an .npz or .csv",
        _name,
    )
    n_train: int | None = _param(None, "1", "training samples used, from the first on; None: all", _count)
    n_test: int | None = _param(None, "1", "test samples used, from the first on; None: all", _count)
    validation_fraction: float = _param(
        0.0, "1", "fraction of the training samples held out for choices", _finite(0, 0.9), added=True
    )
    # time
    delta_t: float = _param(0.0, "s", "time step; 0 is continuous time", _not_negative)
    rule: str = _param("drop", "", "collision rule: " + ", ".join(RULES), _one_of(*RULES))
    estimator: str = _param(
        "straight_through", "", "gradient estimator: " + ", ".join(ESTIMATORS), _one_of(*ESTIMATORS), added=True
    )
    surrogate_width: float = _param(
        0.25, "1", "half-width, in time steps, of the surrogate's steps", _finite(0.01, 100), added=True
    )
    error_counts: str = _param(
        "own",
        "",
        "output spikes counted for the error: own, or those under the rule named here",
        _one_of("own", *RULES),
        added=True,
    )
    error_layers: str = _param(
        "output",
        "",
        "layers that are run under the rule of error_counts: output, or all",
        _one_of("output", "all"),
        added=True,
    )
    duration: float = _preset("s", "length of the simulated window", _positive)
    encoding_window: float = _param(0.1, "s", "window in which input spikes of images fall", _positive)
    # network
    hidden: tuple[int, ...] = _preset("1", "neurons of each hidden layer", _each(_count))
    tau_syn: float = _preset("s", "synaptic time constant", _positive)
    tau_mem: tuple[float, ...] | None = _param(
        None,
        "s",
        "membrane time constant, of all layers or each; None: twice the synaptic one",
        _each(_positive),
        added=True,
    )
    tau_syn_layers: tuple[float, ...] | None = _param(
        None, "s", "synaptic time constant of each layer; None: tau_syn in all", _each(_positive), added=True
    )
    threshold_hidden: tuple[float, ...] = _preset("1", "threshold of each hidden layer", _each(_positive))
    threshold_output: float = _preset("1", "threshold of the output layer", _positive)
    max_spikes_hidden: tuple[int, ...] = _preset(
        "1", "spikes kept per neuron and sample, each hidden layer", _each(_count)
    )
    max_spikes_output: int = _preset("1", "spikes kept per output neuron and sample", _count)
    weight_scale: float = _preset("1", "weights start uniform in [-weight_scale, weight_scale]", _positive)
    weight_shift_output: float = _preset(
        "1", "added to the output layer's weights at the start, in weight_scale", _finite(-1, 1), before=0.0
    )
    weight_bits: int = _param(
        32, "1", "bits of a weight in training under rule clocked, 2 to 16; 32: floats", _finite(2, 32), added=True
    )
    fraction_bits: int = _param(
        6,
        "1",
        "bits of currents and potentials below the weight of integer 1, with weight_bits",
        _finite(0, 16),
        added=True,
    )
    auto_threshold: bool | None = _param(
        None, "1", "set thresholds from the data, so that all layers spike; None: where no preset fits", added=True
    )
    wake_classes: bool | None = _param(
        None, "1", "raise the weights of silent output neurons between epochs; None: where no preset fits", added=True
    )
    # training
    epochs: int = _preset("1", "passes over the training set", _count)
    batch_size: int = _preset("1", "training samples per update", _count)
    test_batch_size: int = _param(
        100, "1", "samples simulated together in evaluation; changes no result", _count, measured=False
    )
    learning_rate: float = _preset("1", "step size of Adam", _positive)
    learning_rate_decay: float = _preset(
        "1", "factor on learning_rate every learning_rate_interval epochs", _finite(0, 1, open_low=True)
    )
    learning_rate_interval: int = _preset("1", "epochs between two decays of the learning rate", _count)
    learning_rate_min: float = _preset("1", "lower bound of the learning rate", _not_negative)
    beta_1: float = _param(0.9, "1", "Adam's decay of the first moment", _finite(0, 0.999999999))
    beta_2: float = _param(0.999, "1", "Adam's decay of the second moment", _finite(0, 0.999999999))
    epsilon: float = _param(1e-8, "1", "Adam's term against division by zero", _positive)
    target_true: float = _preset("1", "target spike count of the true class", _positive)
    target_false: float = _preset("1", "target spike count of the other classes", _not_negative)
    seed: int = _param(0, "1", "seed of weights and batch order", _finite(0, 2**32 - 1))
    dtype: str = _param("float32", "", "float32, or float64 for checking", _one_of("float32", "float64"))
    # what is kept
    keep_samples: int = _param(5, "1", "test samples whose spikes are kept", _not_negative, measured=False)
    keep_weights: str = _param(
        "last",
        "",
        "weights kept: none, last (after the last epoch) or each (after every)",
        _one_of("none", "last", "each"),
        measured=False,
    )

    def __post_init__(self) -> None:
        preset = PRESETS.get(self.preset, {})
        for parameter in parameters():
            value = getattr(self, parameter.name)
            if value is None and parameter.from_preset:
                value = preset[parameter.name]
                if parameter.name in _PER_HIDDEN:  # a layer more takes the last one's value
                    value = (value + value[-1:] * len(self.hidden))[: len(self.hidden)]
            value = _convert(parameter, value)
            if parameter.name in _PER_HIDDEN and len(value) == 1 and self.hidden:
                value *= len(self.hidden)
            object.__setattr__(self, parameter.name, value)
        for f in dataclasses.fields(self):
            value, check = getattr(self, f.name), f.metadata["check"]
            allowed = None if value is None or check is None else check(value)
            if allowed is not None:
                raise ValueError(f"{f.name} is {value!r}; it must be {allowed}.")
        # Rounded as it is in results, so that 0.1 + 0.2 and 0.3 are one run. None becomes continuous time by that.
        if 0 < self.delta_t < 1e-9:
            raise ValueError(f"delta_t is {self.delta_t}; it must be 0 (continuous time) or at least 1e-09 s.")
        object.__setattr__(self, "delta_t", round(self.delta_t, 9))
        self._check_together()

    def _check_together(self) -> None:
        """Refuse values that are allowed alone but not together."""
        for name in ("tau_mem", "tau_syn_layers"):
            values, n_layers = getattr(self, name), len(self.hidden) + 1
            if values is not None and len(values) not in (1, n_layers):
                raise ValueError(
                    f"{name} is {list(values)}; it must have one entry, or one for each of the {n_layers} layers from "
                    f"the first hidden one to the output."
                )
        for name in _PER_HIDDEN:
            values = getattr(self, name)
            if len(values) != len(self.hidden):
                raise ValueError(
                    f"{name} is {list(values)}; it must have one entry, or one for each of the "
                    f"{len(self.hidden)} hidden layers in hidden={list(self.hidden)}."
                )
        Estimator(self.estimator, self.surrogate_width).check_rule(rule_named(self.rule, self.delta_t))
        self._check_words()
        self._check_within("delta_t")
        if self.dataset not in _OF_EVENTS and not self.dataset.endswith((".npz", ".csv")):
            self.check_encoding()
        if self.delta_t and self.duration / self.delta_t > 2**30:
            raise ValueError(
                f"delta_t is {self.delta_t}; it must be 0 (continuous time) or at least {self.duration / 2**30:.3g} s, "
                f"a 2^30th of the duration."
            )

    def _check_words(self) -> None:
        """Refuse words of few bits but on what has them: a chip with a clock."""
        if self.weight_bits == 32:
            return
        if self.weight_bits > 16:
            raise ValueError(f"weight_bits is {self.weight_bits}; it must be from 2 to 16, or 32 for floats.")
        if not (self.delta_t and RULES[self.rule].clocked):
            raise ValueError(
                f"weight_bits is {self.weight_bits} under rule {self.rule} at delta_t {self.delta_t:g} s; words of few "
                f"bits are those of a chip with a clock: rule clocked, delta_t above 0."
            )
        mem, syn = self.tau_mem or (None,), self.tau_syn_layers or (self.tau_syn,)
        if any(m is not None and m != 2 * s for m, s in zip(mem * len(syn), syn * len(mem), strict=True)):
            raise ValueError(
                f"weight_bits is {self.weight_bits} with tau_mem {list(mem)}; membranes of words are twice as slow as "
                f"their synapses: leave tau_mem open."
            )

    def _check_within(self, name: str) -> None:
        if (value := getattr(self, name)) > self.duration:
            hint = f"; did you mean {value:.9g}ms?" if value >= 1 else "."
            raise ValueError(f"{name} is {value:.9g} s; it must be at most the duration, {self.duration:.9g} s{hint}")

    def check_encoding(self) -> None:
        """Refuse a window of encoding beyond the end of a run that is known to encode images, not to take events.

        Raises
        ------
        ValueError
            If `encoding_window` is longer than `duration`.
        """
        self._check_within("encoding_window")

    @property
    def preset(self) -> str:
        """Name of the preset that fills in what is left open: the data set's own, else ``mnist``."""
        return self.dataset if self.dataset in PRESETS else "mnist"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """Build a configuration from names and values, as a notebook or a command line gives them.

        Raises
        ------
        ValueError
            If a name is no parameter; the message says which names come close.
        """
        known = {p.name for p in parameters()}
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=3)
                hint = f"did you mean {' or '.join(near)}?" if near else "allowed are " + ", ".join(sorted(known)) + "."
                raise ValueError(f"{name!r} is no parameter of a run; {hint}")
        return cls(**values)

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Read what :meth:`to_json` wrote; parameters that were added since then have the values they had before."""
        added = {f.name: f.metadata["before"] for f in dataclasses.fields(cls) if f.metadata["added"]}
        return cls.from_dict(added | json.loads(text))

    def replace(self, **changes: Any) -> Config:
        """Return a copy with some parameters changed, checked again."""
        return Config.from_dict(self.to_dict() | changes)

    def to_dict(self) -> dict[str, Any]:
        """Return all parameters as a dictionary that JSON can hold (tuples become lists)."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    def to_json(self) -> str:
        """Return all parameters as JSON text with sorted names."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @property
    def identity(self) -> str:
        """Twelve hexadecimal digits that differ as soon as any parameter differs."""
        added = {f.name: f.metadata["before"] for f in dataclasses.fields(self) if f.metadata["added"]}
        values = {k: v for k, v in self.to_dict().items() if k not in added or v != added[k]}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Threshold of each layer but the input, from the first hidden layer to the output."""
        return (*self.threshold_hidden, self.threshold_output)

    @property
    def max_spikes(self) -> tuple[int, ...]:
        """Crossings kept per neuron and sample in each layer but the input."""
        return (*self.max_spikes_hidden, self.max_spikes_output)

    @property
    def time_constants(self) -> dict[str, Any]:
        """Time constants by their names in :class:`bats_lab.engine.Neurons`: one for all layers, or one for each."""
        given = {"tau_syn": self.tau_syn_layers or (self.tau_syn,), "tau_mem": self.tau_mem}
        return {name: values[0] if values and len(values) == 1 else values for name, values in given.items()}

    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers, from the first hidden layer to the output: ``hidden_1``, …, ``output``."""
        return (*(f"hidden_{i + 1}" for i in range(len(self.hidden))), "output")


def _convert(parameter: Parameter, value: Any) -> Any:
    """Turn a value into its parameter's type where nothing is lost by it, else raise TypeError."""
    if value is None and parameter.optional:
        return None
    if parameter.type is tuple:
        assert parameter.item is not None
        values = value.tolist() if hasattr(value, "tolist") else value  # NumPy arrays and scalars
        if isinstance(values, (int, float)) and not isinstance(values, bool):
            values = [values]
        if not isinstance(values, (list, tuple)):
            raise TypeError(f"{parameter.name} is {value!r}; it must be a list of {parameter.item.__name__}s.")
        if parameter.unit == "s":
            values = [_seconds(v) if isinstance(v, str) else v for v in values]
        return tuple(_scalar(parameter.name, parameter.item, v, times=parameter.unit == "s") for v in values)
    if parameter.unit == "s" and isinstance(value, str):
        value = _seconds(value)
    return _scalar(parameter.name, parameter.type, value, times=parameter.unit == "s")


def _seconds(text: str) -> float | str:
    """Read a time with a unit; what is none is left for :func:`_scalar` to refuse."""
    if timed := re.fullmatch(rf"(.*\d\.?)\s*({'|'.join(_UNITS)})", text):
        with contextlib.suppress(ValueError):
            return float(timed[1] + _UNITS[timed[2]])  # a product would make 350ms another number than 0.35
    return text


def _scalar(name: str, kind: type, value: Any, *, times: bool = False) -> Any:
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value) + 0.0  # -0.0 becomes 0.0, which is the same run
        except OverflowError:
            return math.inf
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if type(value) is not kind:
        article = "an" if kind is int else "a"
        hint = _near_number(value, times=times) if isinstance(value, str) and kind is not str else ""
        raise TypeError(f"{name} is {value!r}; it must be {article} {kind.__name__}{hint or '.'}")
    return value


def _near_number(text: str, *, times: bool) -> str:
    """Ask for the number, or the time, that a text comes close to."""
    if number := re.fullmatch(r"([+-]?\d+)(\.\d*)?[eE]([+-]?)(\d+)", text):
        mantissa = number[1] + (number[2] or ".0")
        return f"; in YAML a number like that is written {mantissa}e{number[3] or '+'}{number[4]}."
    timed = re.fullmatch(r"([+-]?\d*\.?\d+)\s*([^\W\d]+)", text) if times else None
    near = difflib.get_close_matches(timed[2], _UNITS, n=1, cutoff=0.4) if timed else []
    return f"; did you mean {timed[1]}{near[0]}?" if timed and near else ""


_KINDS: dict[str, tuple[type, type | None, bool]] = {
    "str": (str, None, False),
    "int": (int, None, False),
    "float": (float, None, False),
    "bool": (bool, None, False),
    "int | None": (int, None, True),
    "bool | None": (bool, None, True),
    "tuple[int, ...]": (tuple, int, False),
    "tuple[float, ...]": (tuple, float, False),
    "tuple[float, ...] | None": (tuple, float, True),
}


def parameters() -> tuple[Parameter, ...]:
    """List every parameter of a run, in the order of :class:`Config`.

    Examples
    --------
    >>> [p.name for p in parameters()][:3]
    ['dataset', 'n_train', 'n_test']
    """
    listed = []
    for f in dataclasses.fields(Config):
        kind, item, optional = _KINDS[str(f.type)]
        unit, text, preset, measured = (f.metadata[key] for key in ("unit", "text", "preset", "measured"))
        listed.append(Parameter(f.name, kind, item, f.default, unit, text, preset, optional, measured))
    return tuple(listed)


def parameters_cell() -> str:
    """Return the Python source of the training notebook's parameters: one line a parameter.

    Each line reads ``name: type = default  # text, unit``. ``None`` stands for the preset of the data set; no type
    says so, since Papermill passes over annotations that hold a ``|``.
    """
    lines = []
    for p in parameters():
        kind = f"list[{p.item.__name__}]" if p.item else p.type.__name__
        unit = f", {p.unit}" if p.unit and p.unit != "1" else ""
        note = "; None: preset" if p.from_preset else ""
        # Quoted as the formatter does it, since a test compares the notebook's cell with this text.
        default = json.dumps(p.default) if p.type is str else repr(p.default)
        lines.append(f"{p.name}: {kind} = {default}  # {p.text}{unit}{note}")
    return "\n".join(lines)
