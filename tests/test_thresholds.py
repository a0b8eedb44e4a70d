"""Thresholds found from the data, and what is said of a network that cannot learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from runs import made_up_data, own, patterns

from bats_lab.config import Config
from bats_lab.data.datasets import ImageData, load_dataset
from bats_lab.network.feedforward import Network
from bats_lab.runs.experiment import config_of, network_of, run_experiment, thresholds_of
from bats_lab.runs.files import is_finished, open_run, save_run
from bats_lab.runs.kept import neuron_of
from bats_lab.runs.thresholds import HIDDEN_RATE, OUTPUT_RATE, find_thresholds, settle_thresholds
from bats_lab.spikes.encoding import encode_images


@pytest.mark.parametrize("hidden", [(40,), (40, 30)])
@pytest.mark.parametrize("weight_scale", [1.0, 1e-3])
def test_layers_spike_at_the_stated_rates_with_the_thresholds_found(
    hidden: tuple[int, ...], weight_scale: float
) -> None:
    config, data = Config(hidden=hidden, weight_scale=weight_scale), load_dataset("mnist_small", n_train=100)
    settled = settle_thresholds(config.replace(auto_threshold=True), data)
    assert settled.thresholds == find_thresholds(config, data) and settled.auto_threshold is False
    network = Network.from_config(settled, 784, 10, device="cpu")
    layers = network.simulate(encode_images(data.x_train, window=config.encoding_window))
    sent = [layer.spike_count.mean() for layer in layers]
    assert sent == pytest.approx([HIDDEN_RATE] * len(hidden) + [OUTPUT_RATE], rel=0.03)


def test_thresholds_depend_on_neither_seed_nor_time_step_nor_rule() -> None:
    config, data = Config(hidden=20), load_dataset("mnist_small", n_train=100)
    other = config.replace(seed=3, delta_t=0.004, rule="clocked", threshold_hidden=9)
    assert find_thresholds(config, data) == find_thresholds(other, data)


def test_layer_that_cannot_spike_keeps_its_threshold() -> None:
    data = made_up_data()
    black = ImageData("black", *[np.zeros_like(a) for a in (data.x_train, data.y_train) * 2], ("0",), "", False)
    assert find_thresholds(Config(hidden=20), black) == Config(hidden=20).thresholds


@pytest.mark.parametrize("values", [{"auto_threshold": False}, {"threshold_hidden": 0.1}, {"threshold_output": 0.1}])
def test_thresholds_given_are_kept(tmp_path: Path, values: dict[str, object]) -> None:
    config = Config(dataset=own(tmp_path, (8, 8)), **values)  # type: ignore[arg-type]
    assert settle_thresholds(config, load_dataset(config.dataset)) == config


def test_presets_are_kept_where_they_fit(tmp_path: Path) -> None:
    for config in (Config(n_train=100), Config(dataset=own(tmp_path, (28, 28)))):
        assert settle_thresholds(config, load_dataset(config.dataset)) == config


@pytest.mark.parametrize("white", [0.01, 0.9], ids=["nearly black", "nearly white"])
def test_thresholds_are_found_for_images_of_784_pixels_that_are_unlike_digits(tmp_path: Path, white: float) -> None:
    config = Config(dataset=own(tmp_path, (28, 28), **patterns((28, 28), white=white)), hidden=50)
    data = load_dataset(config.dataset)
    assert settle_thresholds(config, data).thresholds == find_thresholds(config, data) != config.thresholds


@pytest.mark.parametrize(
    ("shape", "white"), [((8, 8), 0.3), ((28, 28, 1), 0.3), ((28, 28), 0.02), ((28, 28), 0.9), ((32, 32), 0.3)], ids=str
)
def test_own_images_are_learned_with_no_parameter_given(tmp_path: Path, shape: tuple[int, ...], white: float) -> None:
    config = Config(dataset=own(tmp_path, shape, **patterns(shape, white=white)), epochs=3)
    run = run_experiment(config)
    assert run.accuracy.sel(split="test").isel(epoch=-1).item() > 0.9


@pytest.mark.filterwarnings("ignore:The output neurons of:UserWarning")
def test_run_keeps_the_thresholds_it_found_and_the_name_it_had(tmp_path: Path) -> None:
    config = Config(dataset=own(tmp_path, (8, 8)), hidden=20, epochs=1)
    run = open_run(save_run(run_experiment(config, threads=1), tmp_path))
    found = find_thresholds(config, load_dataset(config.dataset))
    assert config_of(run) == config and is_finished(tmp_path, config)
    assert thresholds_of(run) == found == network_of(run).thresholds
    neuron = neuron_of(run.squeeze(("dataset", "delta_t", "seed", "rule")), layer="output", neuron=0, sample=0)
    assert neuron.threshold == found[-1]
    assert thresholds_of(run.drop_vars("threshold")) == config.thresholds  # of before they were kept
