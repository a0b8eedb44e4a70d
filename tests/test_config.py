"""Every parameter of a run: presets, allowed values, conversions, identity."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bats_lab.config import LATENCY_TIMES, PRESETS, Config, Parameter, parameters, parameters_cell
from bats_lab.spikes.rules import RULES

NAMES = [p.name for p in parameters()]

# Table 1 of the thesis, as settled for this project.
TABLE_1: dict[str, dict[str, Any]] = {
    "mnist": {
        "hidden": (800,),
        "batch_size": 50,
        "test_batch_size": 100,
        "learning_rate": 0.003,
        "threshold_hidden": (0.2,),
        "threshold_output": 1.3,
        "max_spikes_hidden": (30,),
        "max_spikes_output": 30,
    },
    "emnist": {
        "hidden": (800,),
        "batch_size": 50,
        "test_batch_size": 100,
        "learning_rate": 0.003,
        "threshold_hidden": (0.2,),
        "threshold_output": 1.3,
        "max_spikes_hidden": (30,),
        "max_spikes_output": 30,
    },
    "fashion_mnist": {
        "hidden": (400, 400),
        "batch_size": 5,
        "test_batch_size": 100,
        "learning_rate": 0.0005,
        "learning_rate_decay": 0.5,
        "learning_rate_interval": 10,
        "learning_rate_min": 1e-4,
        "threshold_hidden": (0.13, 0.45),
        "threshold_output": 0.7,
        "max_spikes_hidden": (5, 5),
        "max_spikes_output": 20,
    },
}
FOR_ALL = {
    "duration": 0.2,
    "encoding_window": 0.1,
    "tau_syn": 0.13,
    "weight_scale": 1.0,
    "weight_shift_output": 0.0,
    "epochs": 10,
    "beta_1": 0.9,
    "beta_2": 0.999,
    "epsilon": 1e-8,
    "target_true": 15.0,
    "target_false": 3.0,
}

# For each parameter values that are refused, all of the right type.
BELOW_0 = [-1.0, math.inf, -math.inf, math.nan]
NOT_ABOVE_0 = [0.0, *BELOW_0]
REFUSED: dict[str, list[Any]] = {
    "dataset": ["", " mnist"],
    "n_train": [0, -5],
    "n_test": [0, -5],
    "validation_fraction": [*BELOW_0, 0.91],
    "delta_t": [*BELOW_0, 1e-10],
    "rule": ["dorp", "", "DROP"],
    "estimator": ["straight", "", "Delayed"],
    "surrogate_width": [0.0, 101.0, *BELOW_0],
    "error_counts": ["", "none", "Merge"],
    "error_layers": ["", "hidden"],
    "duration": NOT_ABOVE_0,
    "encoding_window": NOT_ABOVE_0,
    "hidden": [(0,), (800, -1)],
    "tau_syn": NOT_ABOVE_0,
    "tau_mem": [(0.0,), (math.nan,), (math.inf,)],
    "tau_syn_layers": [(0.0,), (-1.0,)],
    "threshold_hidden": [(0.0,), (math.nan,), (math.inf,)],
    "threshold_output": NOT_ABOVE_0,
    "max_spikes_hidden": [(0,), (-1,)],
    "max_spikes_output": [0, -1],
    "weight_scale": NOT_ABOVE_0,
    "weight_shift_output": [-1.1, 1.1, math.inf, math.nan],
    "weight_bits": [0, 1, 17, 31, 33, -4],
    "fraction_bits": [-1, 17],
    "auto_threshold": [],
    "wake_classes": [],
    "epochs": [0, -1],
    "batch_size": [0, -1],
    "test_batch_size": [0, -1],
    "learning_rate": NOT_ABOVE_0,
    "learning_rate_decay": [*NOT_ABOVE_0, 1.5],
    "learning_rate_interval": [0, -1],
    "learning_rate_min": BELOW_0,
    "beta_1": [*BELOW_0, 1.0],
    "beta_2": [*BELOW_0, 1.0],
    "epsilon": NOT_ABOVE_0,
    "target_true": NOT_ABOVE_0,
    "target_false": BELOW_0,
    "seed": [-1, 2**32],
    "dtype": ["float16", "double"],
    "keep_samples": [-1],
    "keep_weights": ["all", "None"],
}
WRONG_TYPES: dict[type, list[Any]] = {
    str: [3, True],
    int: ["3", 2.5, True, [3]],
    bool: ["yes", 1, 0.5, [True]],
    float: ["0.1", True, [0.1], np.array([0.1, 0.2])],
    tuple: ["30", True, [True], ["30"], {30: 1}, np.array([[1, 2]])],
}


def another(parameter: Parameter, value: Any) -> Any:
    """An allowed value that differs from the one given."""
    named = {
        "dataset": "mnist",
        "rule": "graded",
        "estimator": "surrogate",
        "error_counts": "graded",
        "error_layers": "all",
        "dtype": "float64",
        "keep_weights": "none",
    }
    if parameter.type is str:
        return named[parameter.name]
    if parameter.type is bool:
        return not value
    if parameter.type is tuple:
        return [parameter.item((value or (0,))[0] + 1)]
    if parameter.name == "weight_bits":
        return 4
    return (value or 0) + 1 if parameter.type is int else value / 2 or 0.001


# Presets


@pytest.mark.parametrize("dataset", TABLE_1)
def test_presets_are_table_1(dataset: str) -> None:
    config = Config(dataset=dataset)
    for name, value in {**FOR_ALL, **TABLE_1[dataset]}.items():
        assert getattr(config, name) == value, name


@pytest.mark.parametrize("dataset", ["mnist", "emnist"])
def test_learning_rate_stays_where_table_1_has_no_decay(dataset: str) -> None:
    assert Config(dataset=dataset).learning_rate_decay == 1


def test_presets_fill_in_what_is_marked_as_theirs_and_nothing_else() -> None:
    wanted = {p.name for p in parameters() if p.from_preset}
    assert set(PRESETS) == {*TABLE_1, "yin_yang", "japanese_vowels"} and all(
        set(preset) == wanted for preset in PRESETS.values()
    )


@pytest.mark.parametrize("dataset", ["mnist_small", "my/images.npz"])
def test_other_data_sets_take_the_preset_of_mnist(dataset: str) -> None:
    config = Config(dataset=dataset)
    assert config.preset == "mnist" and config.to_dict() == Config(dataset="mnist").to_dict() | {"dataset": dataset}


def test_value_given_goes_before_the_preset() -> None:
    config = Config(dataset="fashion_mnist", batch_size=20, hidden=None)
    assert (config.batch_size, config.hidden) == (20, (400, 400))


@pytest.mark.parametrize("given", [{}, {"threshold_hidden": 0.2}, {"max_spikes_hidden": 30}])
def test_one_value_stands_for_all_hidden_layers(given: dict[str, Any]) -> None:
    config = Config(hidden=(20, 10), **given)
    assert (config.threshold_hidden, config.max_spikes_hidden) == ((0.2, 0.2), (30, 30))
    both = Config(hidden=(20, 10), threshold_hidden=(0.2, 0.2), max_spikes_hidden=(30, 30))
    assert config.identity == both.identity and Config.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(("hidden", "thresholds"), [(9, (0.13,)), ((9, 8, 7), (0.13, 0.45, 0.45)), ((), ())])
def test_preset_of_several_layers_goes_with_any_number_of_them(hidden: Any, thresholds: tuple[float, ...]) -> None:
    config = Config(dataset="fashion_mnist", hidden=hidden)
    assert config.threshold_hidden == thresholds and len(config.max_spikes_hidden) == len(thresholds)


def test_latency_times_are_those_of_the_thesis() -> None:
    assert LATENCY_TIMES == (0.02, 0.03, 0.05, 0.08, 0.1, 0.13, 0.15, 0.18, 0.2)


# What is allowed


def test_every_parameter_has_values_that_are_refused() -> None:
    assert list(REFUSED) == NAMES


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in REFUSED.items() for v in values])
def test_value_that_is_not_allowed_is_refused_by_name_with_what_is(name: str, value: Any) -> None:
    with pytest.raises(ValueError) as caught:
        Config(**{name: value})
    text = str(caught.value)
    assert text.startswith(f"{name} is {value!r}; it must be ") and text.endswith(".") and "\n" not in text


@pytest.mark.parametrize("parameter", parameters(), ids=NAMES)
def test_value_of_the_wrong_type_is_refused_by_name_with_the_right_one(parameter: Parameter) -> None:
    for value in [*WRONG_TYPES[parameter.type], object(), b"x"]:
        with pytest.raises(TypeError, match=rf"^{parameter.name} is .*; it must be an? \w+( of \w+)?\.$"):
            Config(**{parameter.name: value})


@pytest.mark.parametrize("parameter", parameters(), ids=NAMES)
def test_none_is_taken_only_where_it_stands_for_something(parameter: Parameter) -> None:
    if parameter.from_preset or parameter.optional:
        assert Config(**{parameter.name: None}) == Config()
    else:
        with pytest.raises(TypeError, match=f"^{parameter.name} is None"):
            Config(**{parameter.name: None})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"hidden": (20, 10, 5), "threshold_hidden": (0.2, 0.3)},
            r"threshold_hidden is \[0\.2, 0\.3\]; it must have one entry, or one for each of the 3 hidden",
        ),
        ({"hidden": (), "threshold_hidden": 0.2}, r"threshold_hidden is \[0\.2\]; .* each of the 0 hidden"),
        ({"threshold_hidden": (0.2, 0.2)}, "threshold_hidden .* each of the 1 hidden layers in hidden=.800."),
        ({"max_spikes_hidden": ()}, r"max_spikes_hidden is \[\]"),
        ({"rule": "clocked"}, "rule is 'clocked' with delta_t 0; a clock needs a time step above 0"),
        (
            {"rule": "clocked", "delta_t": 0.004, "estimator": "stochastic"},
            "estimator is 'stochastic' with rule 'clocked', which rounds no crossing",
        ),
        ({"delta_t": 0.3}, "delta_t is 0.3 s; it must be at most the duration, 0.2 s"),
        ({"delta_t": 1e-9, "duration": 10}, "delta_t is 1e-09; it must be 0 .* or at least 9.31e-09 s"),
        ({"delta_t": 4}, r"delta_t is 4 s; it must be at most the duration, 0.2 s; did you mean 4ms\?$"),
        ({"encoding_window": 0.3}, "encoding_window is 0.3 s; it must be at most the duration, 0.2 s"),
    ],
)
def test_values_that_do_not_go_together_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        Config(**values)


@pytest.mark.parametrize(
    ("text", "seconds"), [("350ms", 0.35), (".5 ms", 0.0005), ("500us", 0.0005), ("4000ns", 4e-6), ("1e-3s", 0.001)]
)
def test_time_may_be_text_with_a_unit(text: str, seconds: float) -> None:
    assert Config(delta_t=text, duration="2s") == Config(delta_t=seconds, duration=2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"delta_t": "4e-3"}, "delta_t is '4e-3'; it must be a float; in YAML a number like that is written 4.0e-3."),
        (
            {"epsilon": "1.5E3"},
            "epsilon is '1.5E3'; it must be a float; in YAML a number like that is written 1.5e[+]3.",
        ),
        ({"threshold_hidden": ["2e-1"]}, "threshold_hidden is '2e-1'; it must be a float; in YAML .* 2.0e-1."),
        ({"delta_t": "4 msec"}, r"delta_t is '4 msec'; it must be a float; did you mean 4ms\?"),
        ({"delta_t": "1e1ms"}, "delta_t is '1e1ms'; it must be a float."),
        ({"learning_rate": "4ms"}, "learning_rate is '4ms'; it must be a float."),
    ],
)
def test_text_that_is_no_number_gets_the_hint_that_fits(values: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}$"):
        Config(**values)


def test_limits_themselves_are_allowed() -> None:
    config = Config(delta_t=0.2, encoding_window=0.2, seed=2**32 - 1, beta_1=0.0, target_false=0, keep_samples=0)
    assert (config.delta_t, config.seed) == (0.2, 2**32 - 1)
    assert Config(delta_t=1e-9).delta_t == 1e-9


def test_network_without_hidden_layers_is_allowed() -> None:
    assert Config(hidden=[], threshold_hidden=[], max_spikes_hidden=[]).layer_names() == ("output",)


def test_layers_are_named_from_the_first_hidden_one_to_the_output() -> None:
    assert Config(dataset="fashion_mnist").layer_names() == ("hidden_1", "hidden_2", "output")


# Conversions


def test_numpy_values_become_plain_ones() -> None:
    numpy = Config(
        delta_t=np.float64(0.004),
        epochs=np.int32(3),
        hidden=np.array([20]),
        threshold_output=np.array(0.5),
        threshold_hidden=[np.float64(0.3)],
        rule=np.str_("graded"),
    )
    plain = Config(delta_t=0.004, epochs=3, hidden=20, threshold_output=0.5, threshold_hidden=0.3, rule="graded")
    assert numpy == plain and numpy.to_json() == plain.to_json()
    assert [type(v) for v in (numpy.epochs, numpy.hidden[0], numpy.rule)] == [int, int, str]


def test_whole_numbers_and_floats_stand_for_each_other() -> None:
    config = Config(target_true=15, epochs=3.0, delta_t=0, hidden=[20.0])
    assert config == Config(target_true=15.0, epochs=3, hidden=20)
    assert [type(v) for v in (config.target_true, config.epochs, config.delta_t)] == [float, int, float]


def test_one_layer_needs_no_list() -> None:
    assert Config(hidden=20, threshold_hidden=0.3, max_spikes_hidden=np.int64(9)).hidden == (20,)


def test_time_steps_are_rounded_to_a_nanosecond() -> None:
    assert Config(delta_t=(0.1 + 0.2) / 100) == Config(delta_t=0.003)
    assert Config(delta_t=0.0012345678912).delta_t == 0.001234568


@pytest.mark.parametrize("name", [p.name for p in parameters() if p.type is float and 0.0 not in REFUSED[p.name]])
def test_minus_zero_is_zero(name: str) -> None:
    assert Config(**{name: -0.0}).identity == Config(**{name: 0.0}).identity


# Identity, and going there and back


@pytest.mark.parametrize("parameter", parameters(), ids=NAMES)
def test_identity_differs_as_soon_as_any_parameter_does(parameter: Parameter) -> None:
    config = Config(seed=1)
    if parameter.name == "weight_bits":
        config = config.replace(rule="clocked", delta_t=0.02)
    changed = config.replace(**{parameter.name: another(parameter, getattr(config, parameter.name))})
    assert changed != config and changed.identity != config.identity
    assert config.replace(**{parameter.name: getattr(config, parameter.name)}).identity == config.identity


def test_time_constants_are_one_or_one_for_each_layer() -> None:
    config = Config(hidden=(20, 10), tau_mem=(0.1, 0.2, "30ms"), tau_syn_layers=0.05)
    assert config.time_constants == {"tau_syn": 0.05, "tau_mem": (0.1, 0.2, 0.03)}
    assert Config().time_constants == {"tau_syn": 0.13, "tau_mem": None}
    with pytest.raises(
        ValueError, match="must have one entry, or one for each of the 2 layers from the first hidden one"
    ):
        Config(tau_mem=(0.1, 0.2, 0.3))


def test_identity_does_not_depend_on_how_a_value_came_about() -> None:
    assert Config(dataset="mnist", hidden=800, learning_rate=0.003).identity == Config(dataset="mnist").identity


def test_run_of_before_a_preset_had_a_parameter_is_read_as_it_was() -> None:
    now = Config(dataset="japanese_vowels")
    then = {name: value for name, value in now.to_dict().items() if name != "weight_shift_output"}
    read = Config.from_json(json.dumps(then))
    assert now.weight_shift_output > 0 == read.weight_shift_output
    assert read.identity == "878922c6a454" != now.identity
    assert Config.from_json(now.to_json()) == now


def test_identity_of_runs_of_before_a_parameter_was_added_is_what_it_was() -> None:
    assert Config().identity == "04a004a7991b"
    assert Config(dataset="fashion_mnist", delta_t=0.003, seed=1, rule="graded").identity == "ecabc07c1eb7"
    # Their results do not have it in `config`.
    told = Config(seed=3).to_dict()
    del told["estimator"], told["surrogate_width"], told["validation_fraction"], told["auto_threshold"]
    del told["error_counts"], told["error_layers"], told["tau_mem"], told["tau_syn_layers"]
    del told["weight_bits"], told["fraction_bits"], told["wake_classes"]
    assert Config.from_dict(told) == Config(seed=3)


@st.composite
def configs(draw) -> Config:
    depth = draw(st.integers(0, 3))
    return Config(
        dataset=draw(st.sampled_from(["mnist_small", "emnist", "größe 2/ü.npz"])),
        n_train=draw(st.none() | st.integers(1, 10**9)),
        delta_t=draw(st.floats(1e-9, 0.2)),
        rule=draw(st.sampled_from(list(RULES))),
        hidden=draw(st.lists(st.integers(1, 10**6), min_size=depth, max_size=depth)),
        threshold_hidden=draw(st.lists(st.floats(1e-300, 1e300), min_size=depth, max_size=depth)),
        max_spikes_hidden=[9] * depth,
        learning_rate=draw(st.floats(1e-300, 1e300)),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


@given(config=configs())
def test_json_gives_the_same_run_back(config: Config) -> None:
    again = Config.from_dict(json.loads(config.to_json()))
    assert again == config and again.identity == config.identity and again.to_json() == config.to_json()


def test_configs_can_be_keys_and_cannot_be_changed() -> None:
    config = Config()
    assert {config: 1}[Config()] == 1
    with pytest.raises(AttributeError):
        config.epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("detla_t", "did you mean delta_t"),
        ("learning_rat", "did you mean learning_rate"),
        ("hiden", "did you mean hidden"),
        ("xyzzy", "allowed are auto_threshold, batch_size, beta_1,"),
    ],
)
def test_misspelt_name_is_refused_with_those_that_come_close(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"^'{name}' is no parameter of a run; {hint}"):
        Config.from_dict({"epochs": 3, name: 1})


def test_replacing_checks_again() -> None:
    config = Config(hidden=20)
    assert config.replace(epochs=2).hidden == (20,)
    with pytest.raises(ValueError, match="threshold_hidden"):
        config.replace(hidden=(20, 10), threshold_hidden=(0.1, 0.2, 0.3))
    with pytest.raises(ValueError, match="'epoch' is no parameter"):
        config.replace(epoch=2)


# What others build from it


def test_parameters_tell_what_they_are() -> None:
    for p in parameters():
        assert p.text and p.unit in ("", "1", "s") and (p.unit == "") == (p.type is str)
        assert (p.item is not None) == (p.type is tuple)
        assert p.from_preset or getattr(Config(), p.name) == p.default


def test_parameters_cell_is_python_that_gives_the_defaults() -> None:
    values: dict[str, Any] = {}
    exec(parameters_cell(), {}, values)
    values.pop("__annotations__", None)
    assert list(values) == NAMES and Config.from_dict(values) == Config()
