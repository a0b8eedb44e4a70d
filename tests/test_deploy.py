"""Networks put on a clock with coarse weights: against brute force, against single evaluations, and made-up results."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import bats_lab
from bats_lab.cli import main
from bats_lab.config import LATENCY_TIMES, Config, parameters
from bats_lab.data.datasets import ImageData, load_dataset
from bats_lab.errors import ResultsError
from bats_lab.network.feedforward import Network
from bats_lab.runs.experiment import network_of, run_experiment
from bats_lab.runs.files import open_dataset, open_run, run_path, save_dataset, save_run
from bats_lab.runs.training import evaluate, input_spikes, split_training, train
from bats_lab.spikes.rules import RULES
from bats_lab.studies.chip import deployment, study
from bats_lab.studies.chip.choice import choose
from bats_lab.studies.chip.deployment import (
    deployment_path,
    is_deployed,
    open_deployment,
    open_deployments,
    run_on_clock,
)
from bats_lab.studies.chip.energy import deployment_costs, neuron_updates_clocked
from bats_lab.studies.chip.prices import HARDWARE
from bats_lab.studies.chip.quantization import quantization_scales, quantize_weights
from bats_lab.studies.chip.study import DEPLOY_STEPS, WORD_LENGTHS, chip_configs, run_deployment

# ------------------------------------------------------------------------------------------------- coarse weights

FLOATS = st.sampled_from([0.0, 1 / 3]) | st.floats(-8, 8, width=32).map(lambda x: x if abs(x) > 1e-6 else 0.0)
WEIGHTS = arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 8)), elements=FLOATS)
BITS = st.integers(2, 16)
TOP = {bits: 2 ** (bits - 1) - 1 for bits in range(2, 17)}


def squared_error(weights: np.ndarray, scale: float, bits: int) -> float:
    """Round to the nearest of all levels, with nothing of what the package does."""
    levels = scale * np.arange(-TOP[bits], TOP[bits] + 1)
    return sum(float(np.min((levels - w) ** 2)) for w in weights.ravel().astype(float))


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_each_weight_goes_to_the_nearest_level(bits: int) -> None:
    weights = np.random.default_rng(bits).standard_normal((7, 20))
    [quantized], [scale] = quantize_weights([weights], bits), quantization_scales([weights], bits)
    assert np.square(quantized - weights).sum() == pytest.approx(squared_error(weights, scale, bits))
    assert len(np.unique(quantized)) > 2


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
@pytest.mark.parametrize("draw", ["standard_normal", "laplace", "uniform"])
def test_no_other_scale_is_much_better(bits: int, draw: str) -> None:
    shape: dict[str, Any] = {"low": -1, "high": 1} if draw == "uniform" else {}
    weights = getattr(np.random.default_rng(0), draw)(size=200, **shape)
    [scale] = quantization_scales([weights], bits)
    to_the_largest = abs(weights).max() / TOP[bits]
    least = min(squared_error(weights, s, bits) for s in to_the_largest * np.geomspace(0.05, 1.5, 150))
    assert squared_error(weights, scale, bits) < 1.06 * least


def test_few_large_weights_are_clipped() -> None:
    weights = np.append(np.random.default_rng(0).standard_normal(1000), 10.0)
    [quantized], [scale] = quantize_weights([weights], 4), quantization_scales([weights], 4)
    assert quantized[-1] == quantized.max() == 7 * scale < 5
    assert squared_error(weights, scale, 4) < 0.5 * squared_error(weights, 10 / 7, 4)


@given(WEIGHTS, BITS)
def test_quantized_weights_are_exactly_integers_times_the_scale(weights: np.ndarray, bits: int) -> None:
    [quantized], [scale] = quantize_weights([weights], bits), quantization_scales([weights], bits)
    assert quantized.dtype == np.float32 and quantized.shape == weights.shape
    integers = np.rint(quantized.astype(float) / scale)
    assert (integers * scale == quantized.astype(float)).all() and abs(integers).max() <= TOP[bits]


@given(WEIGHTS, BITS)
def test_quantizing_again_changes_nothing(weights: np.ndarray, bits: int) -> None:
    once = quantize_weights([weights], bits)
    for more in (bits, min(bits + 3, 16)):
        np.testing.assert_array_equal(quantize_weights(once, more)[0], once[0])


@given(WEIGHTS, st.integers(2, 15))
def test_error_never_grows_with_the_bits(weights: np.ndarray, bits: int) -> None:
    exact = weights.astype(float)
    errors = [np.square(quantize_weights([weights], b)[0] - exact).sum() for b in (bits, bits + 1)]
    assert errors[1] <= errors[0] + 1e-12 * np.square(exact).sum()
    # No worse than half a step with the largest weight on the last level; its scale is rounded up to 9 digits.
    assert errors[0] <= exact.size * (1.01 * abs(exact).max() / TOP[bits] / 2) ** 2


def test_levels_that_cannot_be_told_apart_are_not_more_than_a_word_has() -> None:
    weights = np.random.default_rng(0).standard_normal((40, 100)).astype(np.float32)
    assert [len(np.unique(quantize_weights([weights], bits)[0])) for bits in (2, 3, 4, 5)] == [3, 7, 15, 31]


def test_scale_is_one_a_layer() -> None:
    first, second = np.random.default_rng(0).standard_normal((2, 5, 30))
    together = quantization_scales([first, 64 * second], 4)
    assert together == [*quantization_scales([first], 4), *quantization_scales([64 * second], 4)]
    # By a power of two, so that the grid of clipping points is the same.
    assert together[1] == 64 * quantization_scales([second], 4)[0]


def test_integers_of_a_chip_are_found_again() -> None:
    integers = np.array([[-7, 2, 0], [5, 3, -1]])
    assert quantization_scales([0.375 * integers], 4) == [0.375]
    assert quantization_scales([np.zeros((2, 2)), np.full((1, 2), -0.3)], 2) == [1.0, 0.3]


def test_weights_of_32_bits_are_what_they_were() -> None:
    weights = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    [kept] = quantize_weights([weights], 32)
    np.testing.assert_array_equal(kept, weights)
    assert not np.shares_memory(kept, weights) and np.isnan(quantization_scales([weights], 32)).all()


@pytest.mark.parametrize("bits", [0, 1, 17, 31, 33, -8, 4.0, True, "8"])
def test_bad_word_length_is_refused(bits: Any) -> None:
    with pytest.raises(ValueError, match=rf"^bits is {bits!r}; it must be a whole number from 2 to 16, or 32 .*\.$"):
        quantize_weights([np.ones((2, 2))], bits)


def test_weights_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^weights of layer 1 hold 2 values that are not finite"):
        quantize_weights([np.ones((2, 2)), np.array([[1.0, np.nan, np.inf]])], 4)


# ------------------------------------------------------------------------------------------------- a coarse clock

# Decides three digits in five rightly after a second of training, and collides at 10 ms and above.
DEEP = Config(
    hidden=(40, 30),
    threshold_hidden=(0.1, 0.1),
    threshold_output=0.1,
    max_spikes_hidden=(10, 10),
    weight_scale=0.5,
    batch_size=10,
    n_train=500,
    n_test=60,
    epochs=5,
    rule="graded",
    delta_t=0.004,
)
STEPS, WORDS = (0.0, 0.01, 0.03), (32, 3)


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_dataset("mnist_small", n_train=500, n_test=60)


@pytest.fixture(scope="module")
def network(data: ImageData) -> Network:
    return train(DEEP, data, device="cpu").network


@pytest.fixture(scope="module")
def measured(network: Network, data: ImageData) -> xr.Dataset:
    return run_on_clock(network, data.x_test, data.y_test, DEEP, delta_t=STEPS, rules=RULES, bits=WORDS)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("step", STEPS)
def test_each_point_is_one_evaluation(
    network: Network, data: ImageData, measured: xr.Dataset, step: float, word: int
) -> None:
    coarse = Network.from_config(DEEP, 784, 10, device="cpu")
    coarse.set_weights(quantize_weights(network.weights, word))
    for rule in RULES:
        point = measured.sel(rule=rule, delta_t=step, bits=word)
        if step == 0 and rule == "clocked":
            assert all(point[name].isnull().all() for name in deployment.MEASURED)
            continue
        alone = evaluate(
            coarse, input_spikes(data.x_test, DEEP.replace(delta_t=step, rule="drop")), data.y_test, rule=rule
        )
        for name in ("accuracy", "loss", "spike_count", "lost_spikes", "truncated_neurons", "confidence"):
            np.testing.assert_array_equal(point[name], getattr(alone, name), err_msg=name)
        for name in ("first_spike_time", "decision_time", "input_spikes"):
            assert point[name] == getattr(alone, name), name
        np.testing.assert_array_equal(point["collisions"], alone.dropped + alone.merged + alone.deferred)
        sent = alone.spike_count
        np.testing.assert_allclose(point["synaptic_events"], [alone.input_spikes * 40, sent[0] * 30, sent[1] * 10])


def test_points_differ(measured: xr.Dataset) -> None:
    loss = measured["loss"].values
    # Five rules at two steps and one in continuous time, with two word lengths each.
    assert len(np.unique(loss[np.isfinite(loss)])) == (5 * 2 + 1) * 2
    coarse = measured.sel(delta_t=0.03).sum("layer")
    assert (coarse["collisions"].sel(rule=["drop", "merge", "defer"]) > 1).all()
    assert (coarse["lost_spikes"].sel(rule="defer") > 1).all() and (
        measured["truncated_neurons"].sum("layer") > 0
    ).any()
    assert measured["accuracy"].sel(rule="graded").min() > 0.4


def test_event_rules_are_one_in_continuous_time(measured: xr.Dataset) -> None:
    exact = measured.sel(delta_t=0, rule=["drop", "merge", "defer", "graded"])
    for rule in ("merge", "defer", "graded"):
        for name in deployment.MEASURED:
            np.testing.assert_array_equal(exact[name].sel(rule=rule), exact[name].sel(rule="drop"), err_msg=name)
    assert exact["collisions"].sum() == 0 and exact["accuracy"].notnull().all()


def test_no_name_is_a_parameter_that_could_be_swept(measured: xr.Dataset) -> None:
    same = {"delta_t", "rule", "duration"}  # they mean what the parameters do
    assert not {p.name for p in parameters()} & (set(measured.variables) - same)


def test_dataset_says_what_it_holds(network: Network, measured: xr.Dataset) -> None:
    assert all(v.attrs["units"] and v.attrs["long_name"] for v in measured.variables.values())
    assert all(measured[name].dims[:3] == ("rule", "delta_t", "bits") for name in deployment.MEASURED)
    assert measured["layer"].values.tolist() == ["hidden_1", "hidden_2", "output"]
    assert measured["time"].values.tolist() == list(LATENCY_TIMES)
    assert measured["layer_size"].values.tolist() == [40, 30, 10] and measured["n_samples"] == 60
    assert measured["n_inputs"] == 784 and measured["duration"] == 0.2 and measured["duration"].attrs["units"] == "s"
    assert measured["threshold"].values.tolist() == [0.1, 0.1, 0.1]
    scales = measured["quantization_scale"]
    assert scales.sel(bits=32).isnull().all()
    assert scales.sel(bits=3).values.tolist() == quantization_scales(network.weights, 3)


def test_images_are_encoded_once_a_step_and_nothing_is_run_twice(
    network: Network, data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: dict[str, int] = {}

    def counted(name: str) -> None:
        function = getattr(deployment, name)

        def call(*args: Any, **options: Any) -> Any:
            calls[name] = calls.get(name, 0) + 1
            return function(*args, **options)

        monkeypatch.setattr(deployment, name, call)

    for name in ("input_spikes", "evaluate"):
        counted(name)
    progress: list[tuple[int, int]] = []
    run_on_clock(
        network,
        data.x_test[:5],
        data.y_test[:5],
        DEEP,
        delta_t=[0.0, 0.01],
        rules=["clocked", "merge", "drop"],
        bits=[32, 4],
        on_point=lambda done, total: progress.append((done, total)),
    )
    assert calls == {"input_spikes": 2, "evaluate": (3 + 1) * 2}
    assert progress == [(i + 1, 8) for i in range(8)]


def test_clocked_alone_has_nothing_in_continuous_time(network: Network, data: ImageData) -> None:
    found = run_on_clock(network, data.x_test[:2], data.y_test[:2], DEEP, delta_t=[0.0], rules=["clocked"])
    assert found["accuracy"].isnull().all() and found["input_spikes"] == np.count_nonzero(data.x_test[:2]) / 2


def test_network_is_left_as_it_was_also_after_an_error(
    network: Network, data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, seen = network.weights, []

    def broken(network: Network, *_: Any, **__: Any) -> None:
        seen.append((network.weights, network.threads))
        raise RuntimeError("the device is gone")

    run_on_clock(network, data.x_test[:2], data.y_test[:2], DEEP, delta_t=[0.01], bits=[2], threads=1)
    assert all((a == b).all() for a, b in zip(before, network.weights, strict=True)) and network.threads == 0
    monkeypatch.setattr(deployment, "evaluate", broken)
    with pytest.raises(RuntimeError, match="the device is gone"):
        run_on_clock(network, data.x_test[:2], data.y_test[:2], DEEP, delta_t=[0.01], bits=[2], threads=1)
    [(weights, threads)] = seen
    assert not (weights[0] == before[0]).any() and threads == 1  # it was broken while they were other ones
    assert all((a == b).all() for a, b in zip(before, network.weights, strict=True)) and network.threads == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"delta_t": []}, "delta_t is empty"),
        ({"delta_t": [0.01, -0.01]}, "delta_t is -0.01; it must be a number at least 0"),
        ({"delta_t": [0.3]}, "delta_t is 0.3 s; it must be at most the duration"),
        ({"delta_t": [0.01, 0.01 + 1e-12]}, r"delta_t is \[0.01, 0.01\]; it must name no value twice"),
        ({"rules": ["drop", "keep"]}, "rule is 'keep'; it must be one of drop"),
        ({"rules": ["drop", "merge", "drop"]}, "rules is .*; it must name no value twice"),
        ({"rules": []}, "rules is empty"),
        ({"bits": [32, 1]}, "bits is 1; it must be a whole number from 2 to 16"),
        ({"bits": [4, 4]}, r"bits is \[4, 4\]; it must name no value twice"),
        ({"labels": np.zeros(4, int)}, r"labels have the shape \(4,\); there must be one for each of 3 images"),
        ({"labels": np.array([0, 10, 0])}, "labels reach from 0 to 10; they must be 0 to 9"),
        ({"images": np.zeros((3, 5, 5), np.uint8)}, "images have 25 pixels; the network has 784 inputs"),
        ({"images": np.zeros((0, 28, 28), np.uint8), "labels": np.zeros(0, int)}, "for each of 0 images, at least 1"),
    ],
)
def test_bad_value_is_refused_before_any_work(
    network: Network, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], message: str
) -> None:
    for name in ("input_spikes", "evaluate"):
        monkeypatch.setattr(deployment, name, lambda *_, **__: pytest.fail("work was done"))
    monkeypatch.setattr(network, "set_weights", lambda _: pytest.fail("weights were changed"))
    given = {"images": np.zeros((3, 28, 28), np.uint8), "labels": np.zeros(3, int), "delta_t": [0.01]} | changed
    with pytest.raises(ValueError, match=message) as raised:
        run_on_clock(network, config=DEEP, **given)
    assert "\n" not in str(raised.value) and str(raised.value).endswith(".")


def test_devices_agree(backend: str) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (12, 3, 3), dtype=np.uint8), rng.integers(0, 3, 12)

    def deployed(device: str) -> xr.Dataset:
        small = Network(
            (9, 8, 3),
            thresholds=[0.2, 0.3],
            max_spikes=[9, 9],
            tau_syn=0.13,
            duration=0.2,
            weights=[np.random.default_rng(1).uniform(-3, 6, shape) for shape in ((8, 9), (3, 8))],
            dtype="float64",
            device=device,
        )
        return run_on_clock(small, images, labels, Config(dtype="float64"), delta_t=[0.0, 0.01], bits=[32, 4])

    found, expected = deployed(backend), deployed("cpu")
    assert expected["spike_count"].min() > 0
    xr.testing.assert_allclose(found, expected)


# ------------------------------------------------------------------------------------------------- files


def test_networks_of_the_chip_are_trained_in_continuous_time_with_images_held_out() -> None:
    configs = chip_configs(seeds=2)
    assert [(c.dataset, c.seed, c.epochs) for c in configs] == [
        ("mnist", 0, 5),
        ("fashion_mnist", 0, 10),
        ("mnist", 1, 5),
        ("fashion_mnist", 1, 10),
    ]
    [quick] = chip_configs(seeds=1, quick=True)
    assert (quick.dataset, quick.epochs) == ("mnist_small", 2)
    for c in (*configs, quick):
        assert (c.delta_t, c.validation_fraction, c.keep_samples, c.keep_weights) == (0, 0.1, 0, "last")
    assert DEPLOY_STEPS[0] == 0 and WORD_LENGTHS[0] == 32
    with pytest.raises(ValueError, match=r"^seeds is 0; it must be at least 1\.$"):
        chip_configs(seeds=0)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Two networks that train in a second, and few points."""
    small = Config(hidden=20, threshold_output=0.1, n_train=200, n_test=70, epochs=1, keep_samples=0)
    configs = [small.replace(validation_fraction=0.2, seed=seed) for seed in (0, 1)]

    def few_configs(*, seeds: int = 2, quick: bool = False) -> list[Config]:
        return configs[:seeds]

    monkeypatch.setattr(study, "chip_configs", few_configs)
    monkeypatch.setattr(study, "STUDY", dataclasses.replace(study.STUDY, configs=few_configs))
    monkeypatch.setattr(study, "DEPLOY_STEPS", (0.0, 0.01))
    monkeypatch.setattr(study, "WORD_LENGTHS", (32, 2))
    return configs


def trained(config: Config, folder: Path) -> Path:
    with warnings.catch_warnings(action="ignore"):  # of classes that no neuron has learned yet
        return save_run(run_experiment(config, device="cpu"), folder)


def test_trained_networks_of_a_folder_are_deployed_once(few: list[Config], tmp_path: Path) -> None:
    lines: list[str] = []
    run = open_run(trained(few[0], tmp_path))
    [path] = run_deployment(tmp_path, device="cpu", report=lines.append)
    assert path == deployment_path(tmp_path, "mnist_small", 0)
    assert f"mnist_small, seed 1: left out, since {run_path('', few[1]).name} is not there." in lines
    assert "mnist_small, seed 0: 12 of 12 points on validation images" in lines

    found = open_deployment(tmp_path)
    assert (
        dict(found.sizes).items() >= {"dataset": 1, "seed": 1, "split": 2, "rule": 5, "delta_t": 2, "bits": 2}.items()
    )
    assert found["n_samples"].sel(seed=0, dataset="mnist_small").to_series().to_dict() == {"validation": 40, "test": 70}
    data = load_dataset("mnist_small", n_train=200)
    _, held_out = split_training(200, 0.2)
    network = network_of(run, device="cpu")
    for split, images, labels in (
        ("validation", data.x_train[held_out], data.y_train[held_out]),
        ("test", data.x_test[:70], data.y_test[:70]),
    ):
        own = run_on_clock(network, images, labels, few[0], delta_t=(0.0, 0.01), bits=(32, 2))
        xr.testing.assert_equal(found.sel(split=split, drop=True).squeeze(("dataset", "seed"), drop=True), own)
    # In continuous time the test is that of training.
    exact = found["accuracy"].sel(split="test", delta_t=0, bits=32, rule="drop").item()
    assert exact == run["accuracy"].sel(split="test", epoch=1).item()

    trained(few[1], tmp_path)
    written, lines[:] = path.stat().st_mtime_ns, []
    assert run_deployment(tmp_path, device="cpu", report=lines.append) == [
        deployment_path(tmp_path, "mnist_small", seed) for seed in (0, 1)
    ]
    assert path.stat().st_mtime_ns == written and lines and not any("seed 0" in line for line in lines)
    assert open_deployment(tmp_path)["accuracy"].sel(rule="drop").notnull().all()


def test_deployment_notes_where_it_comes_from_and_what_it_holds(few: list[Config], tmp_path: Path) -> None:
    run = open_run(trained(few[0], tmp_path))
    [path] = run_deployment(tmp_path, device="cpu")
    with xr.open_dataset(path) as saved:
        assert saved.attrs == {
            "dataset": "mnist_small",
            "seed": 0,
            "run": run_path("", few[0]).name,
            "data_hash": run["data_hash"].item(),
            "version": bats_lab.__version__,
        }
    found = open_deployment(tmp_path)
    assert all(v.attrs["units"] and v.attrs["long_name"] for v in found.variables.values())


def test_quick_deployment_takes_few_images_and_points(
    few: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(few[0], tmp_path)
    monkeypatch.setattr(study, "_QUICK_IMAGES", 10)
    run_deployment(tmp_path, device="cpu", quick=True)
    found = open_deployment(tmp_path)
    assert (found["n_samples"] == 10).all() and found["delta_t"].values.tolist() == [0, 0.002, 0.008, 0.02]
    assert found["bits"].values.tolist() == [32, 4, 2]


#: A page of one line, for what a study's notebook is given; the real one is executed in test_notebooks.
PAGE = """
from pathlib import Path
from bats_lab.studies import chip
print("seeds", chip.open_deployment(results_dir)["seed"].values.tolist(), "in", Path.cwd())
"""


def test_networks_are_trained_deployed_and_drawn_by_one_command(
    few: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = nbformat.v4.new_code_cell('results_dir: str = ""  # folder', metadata={"tags": ["parameters"]})
    page = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(PAGE)])
    page.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(page, tmp_path / "page.ipynb")
    monkeypatch.setattr(study, "STUDY", dataclasses.replace(study.STUDY, notebook=str(tmp_path / "page")))
    monkeypatch.setattr(study, "_QUICK_IMAGES", 20)
    folder = tmp_path / "quick_chip"
    trained(few[0], folder)
    command = ["reproduce", "chip", "--quick", "--seeds", "2", "--quiet", "--device", "cpu", "--out", str(tmp_path)]
    assert main(command) == 0
    assert "quick_chip/report.html" in capsys.readouterr().out
    assert f"seeds [0, 1] in {tmp_path}" in (folder / "report.html").read_text()
    # What was measured needs its networks no more.
    for path in (*folder.glob("run-*.nc"), folder / "report.html"):
        path.unlink()
    measured = [open_dataset(path).load() for path in sorted(folder.glob("training-*.nc"))]
    assert all(part["accuracy"].sel(bits=2).notnull().all() for part in measured) and len(measured) == 2
    # A file of before there were networks from scratch: only these are trained.
    save_dataset(measured[1].drop_sel(training="from_scratch"), folder / "training-mnist_small-seed1.nc")
    assert main(command) == 0
    assert (folder / "report.html").exists() and not list(folder.glob("run-*.nc"))
    again = open_dataset(folder / "training-mnist_small-seed1.nc")["accuracy"]
    xr.testing.assert_equal(again, measured[1]["accuracy"])


def test_deployment_of_another_network_is_made_again(few: list[Config], tmp_path: Path) -> None:
    trained(few[0], tmp_path)
    [path] = run_deployment(tmp_path, device="cpu")
    assert is_deployed(tmp_path, few[0]) and not is_deployed(tmp_path, few[0].replace(epochs=2))
    save_dataset(open_dataset(path).assign_attrs(run="run-of-old.nc"), path)
    assert not is_deployed(tmp_path, few[0])
    run_deployment(tmp_path, device="cpu")
    assert is_deployed(tmp_path, few[0])


def test_network_trained_on_other_data_is_refused(
    few: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = trained(few[0], tmp_path)
    run = open_run(path)
    save_run(run.assign(data_hash=run["data_hash"].astype("U64").copy(data=[[[["0" * 64]]]])), tmp_path)
    with pytest.raises(ResultsError, match=f"{path.name} was trained on other data than the mnist_small"):
        run_deployment(tmp_path, device="cpu")


def test_deployments_of_different_networks_are_joined(measured: xr.Dataset, tmp_path: Path) -> None:
    both = xr.concat([measured, measured], xr.Variable("split", ["validation", "test"]), data_vars="all")
    flat = both.sel(layer=["hidden_1", "output"])
    for dataset, seed, part in (("fashion_mnist", 0, both), ("mnist", 0, flat), ("mnist", 1, flat.isel(bits=[0]))):
        save_dataset(part.assign_attrs(dataset=dataset, seed=seed), deployment_path(tmp_path, dataset, seed))
    found = open_deployment(tmp_path)
    assert {dim: found[dim].values.tolist() for dim in ("dataset", "seed", "layer", "bits", "rule", "split")} == {
        "dataset": ["mnist", "fashion_mnist"],
        "seed": [0, 1],
        "layer": ["hidden_1", "hidden_2", "output"],
        "bits": [32, 3],
        "rule": list(RULES),
        "split": ["validation", "test"],
    }
    expected, got = both["spike_count"], found["spike_count"].sel(dataset="fashion_mnist", seed=0)
    np.testing.assert_array_equal(got.transpose(*expected.dims), expected)
    assert found["accuracy"].sel(dataset="fashion_mnist", seed=1).isnull().all()
    assert found["accuracy"].sel(dataset="mnist", seed=1, bits=3).isnull().all()
    assert found["accuracy"].sel(dataset="mnist", seed=1, bits=32, rule="drop").notnull().all()
    assert found["spike_count"].sel(dataset="mnist", layer="hidden_2").isnull().all()
    assert all(v.attrs["units"] and v.attrs["long_name"] for v in found.variables.values())


def test_package_names_what_puts_a_network_on_a_chip() -> None:
    names = {"open_deployment", "run_on_clock", "quantize_weights", "deployment_costs", "choose", "run_deployment"}
    assert names <= set(bats_lab.deploy.__all__) and bats_lab.deploy.run_on_clock is run_on_clock


def test_missing_and_damaged_deployments_are_named(tmp_path: Path) -> None:
    assert open_deployments(tmp_path) == {}
    with pytest.raises(FileNotFoundError, match=f"There is no deployment in {tmp_path}"):
        open_deployment(tmp_path)
    path = deployment_path(tmp_path, "mnist", 0)
    path.write_bytes(b"no such thing")
    with pytest.raises(ResultsError, match=f"{path.name} cannot be read"):
        open_deployment(tmp_path)


# ------------------------------------------------------------------------------------------------- what to build


def made_up(
    points: dict[tuple[str, float, int], tuple[float, float]],
    *,
    seeds: Sequence[float] = (-0.002, 0.002),
    rules: Sequence[str] = ("drop", "merge", "clocked"),
) -> xr.Dataset:
    """Results of (validation, test) accuracy by rule, step and word: those not named have 0.5; ± a bit by seed."""
    steps, words = [0.0, 0.004, 0.01], [32, 4, 2]
    accuracy = np.full((1, len(seeds), 2, len(rules), len(steps), len(words)), 0.5)
    for rule in rules:
        points = {(rule, 0.0, 32): (0.97, 0.96)} | points
    for (rule, step, word), values in points.items():
        accuracy[0, :, :, rules.index(rule), steps.index(step), words.index(word)] = values
    accuracy[:, :, :, rules.index("clocked"), 0] = np.nan
    accuracy += np.reshape(seeds, (-1, 1, 1, 1, 1))
    dims = ("dataset", "seed", "split", "rule", "delta_t", "bits")
    spikes = np.stack([1000 * accuracy, 10 * accuracy, np.full_like(accuracy, np.nan)], axis=-1)
    return xr.Dataset(
        {
            "accuracy": (dims, accuracy),
            "spike_count": ((*dims, "layer"), spikes),
            "synaptic_events": ((*dims, "layer"), 7 * spikes),
            "decision_time": (dims, accuracy / 10),
        },
        {
            "dataset": ["mnist"],
            "seed": range(len(seeds)),
            "split": ["validation", "test"],
            "rule": list(rules),
            "delta_t": steps,
            "bits": words,
            "layer": ["hidden_1", "output", "hidden_2"],
        },
    )


POINTS = {
    ("drop", 0.004, 32): (0.965, 0.93),  # will do
    ("drop", 0.004, 4): (0.96, 0.95),  # will do: a loss of just the tolerance
    ("drop", 0.0, 2): (0.961, 0.94),  # a shorter word, without a clock
    ("drop", 0.01, 32): (0.959, 0.99),  # will not do, however good on test images
    ("merge", 0.01, 32): (0.98, 0.95),
    ("merge", 0.004, 2): (0.962, 0.92),
}


def rows(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    return {row["rule"]: row for row in table.to_dict("records")}


def test_coarsest_clock_is_chosen_and_then_the_shortest_word() -> None:
    table = choose(made_up(POINTS))
    found = rows(table)
    assert table["dataset"].tolist() == ["mnist"] * 3 and table["rule"].tolist() == ["drop", "merge", "clocked"]
    assert (found["drop"]["delta_t"], found["drop"]["bits"]) == (0.004, 4)
    assert (found["merge"]["delta_t"], found["merge"]["bits"]) == (0.01, 32)
    expected = {
        "seeds": 2,
        "validation_accuracy": 0.96,
        "test_accuracy": 0.95,
        "test_accuracy_std": 0.002 * math.sqrt(2),
        "continuous_accuracy": 0.96,
        "spikes": 1010 * 0.95,
        "synaptic_events": 7070 * 0.95,
        "decision_time": 0.095,
    }
    assert {name: found["drop"][name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("lost", [[60, 60, 60], [3, 117, 60], [100, 80, 0], [0, 0, 180]])
def test_loss_of_just_the_tolerance_is_allowed(lost: list[int]) -> None:
    """However the means over the seeds are rounded: of 6,000 images 60 a seed are a hundredth."""
    results = made_up({("merge", 0.01, 2): (0.0, 0.0)}, rules=["merge", "clocked"], seeds=[0.0] * 3)
    right = np.array([5899, 5826, 5660])
    for (step, word), counts in {(0.0, 32): right, (0.01, 2): right - lost}.items():
        results["accuracy"].loc[{"rule": "merge", "delta_t": step, "bits": word}] = counts.reshape(1, 3, 1) / 6000
    assert rows(choose(results))["merge"]["delta_t"] == 0.01
    assert rows(choose(results, tolerance=0.0099))["merge"]["delta_t"] == 0


def test_shortest_word_can_be_chosen_first() -> None:
    found = rows(choose(made_up(POINTS), first="bits"))
    assert (found["drop"]["delta_t"], found["drop"]["bits"]) == (0.0, 2)
    assert (found["merge"]["delta_t"], found["merge"]["bits"]) == (0.004, 2)


def test_choice_follows_the_tolerance_and_the_images_it_is_made_on() -> None:
    results = made_up(POINTS)
    strict = rows(choose(results, tolerance=0.0))
    assert (strict["drop"]["delta_t"], strict["drop"]["bits"]) == (0.0, 32)
    assert (strict["merge"]["delta_t"], strict["merge"]["bits"]) == (0.01, 32)
    assert rows(choose(results, by="test"))["drop"]["delta_t"] == 0.01
    # Only what is on validation images has a part in the choice.
    swapped = results.assign(accuracy=results["accuracy"].where(results["split"] == "validation", 0.123))
    columns = ["dataset", "rule", "delta_t", "bits", "validation_accuracy"]
    pd.testing.assert_frame_equal(choose(results)[columns], choose(swapped)[columns])


def test_where_nothing_will_do_the_row_is_empty() -> None:
    row = rows(choose(made_up(POINTS)))["clocked"]
    assert pd.isna(row["bits"]) and math.isnan(row["delta_t"]) and math.isnan(row["test_accuracy"])
    assert row["continuous_accuracy"] == pytest.approx(0.96) and row["seeds"] == 2


def test_missing_seeds_and_datasets_are_left_out_of_the_choice() -> None:
    results = made_up(POINTS)
    more = results.reindex(seed=[0, 1, 2], dataset=["mnist", "fashion_mnist"])
    pd.testing.assert_frame_equal(choose(more), choose(results))
    single = rows(choose(results.isel(seed=[1])))["drop"]
    assert single["seeds"] == 1 and math.isnan(single["test_accuracy_std"])
    assert single["test_accuracy"] == pytest.approx(0.952)


def test_mean_over_seeds_decides() -> None:
    results = made_up(POINTS, seeds=(0.0, 0.0))
    bad = (results["rule"] == "merge") & (results["delta_t"] == 0.01) & (results["seed"] == 1)
    # Validation accuracy at 10 ms: 0.98 and 0.93, on average below 0.96.
    results["accuracy"] = results["accuracy"].where(~bad, 0.93)
    assert rows(choose(results))["merge"]["delta_t"] == 0.004


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "train"}, "by is 'train'; it must be one of validation, test"),
        ({"tolerance": -0.1}, "tolerance is -0.1; it must be at least 0 and below 1"),
        ({"tolerance": math.nan}, "tolerance is nan"),
        ({"first": "rule"}, "first is 'rule'; it must be delta_t or bits"),
    ],
)
def test_bad_choice_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose(made_up({}), **options)


def test_choice_needs_what_it_is_measured_against() -> None:
    for part in ({"delta_t": [1, 2]}, {"bits": [1, 2]}):
        with pytest.raises(ValueError, match="deployment must hold delta_t 0 and bits 32"):
            choose(made_up({}).isel(part))


# ------------------------------------------------------------------------------------------------- what it costs


def test_costs_are_those_of_what_was_counted(measured: xr.Dataset) -> None:
    found = deployment_costs(measured)
    point = {"rule": "clocked", "delta_t": 0.01, "bits": 3}
    loihi, events = HARDWARE["Loihi"], measured["synaptic_events"].sel(point).values
    updates = neuron_updates_clocked([40, 30, 10], 0.2, 0.01)
    assert updates.tolist() == [800, 600, 200]
    # Every neuron on each of 20 ticks, and on that on which the last spikes come.
    here = found.sel(point)
    assert here["updates"].sel(hardware="Loihi").item() == pytest.approx(loihi.neuron_update.value * 21 * 80)
    assert here["synapses"].sel(hardware="Loihi").item() == pytest.approx(loihi.synaptic_event.value * events.sum())
    delivered = measured["input_spikes"].item() * loihi.message.value
    assert here["inputs"].sel(hardware="Loihi").item() == pytest.approx(delivered)
    assert here["active_share"].item() == pytest.approx(measured["spike_count"].sel(point).sum().item() / 1600)
    assert found["dense_operations"].item() == 784 * 40 + 40 * 30 + 30 * 10
    assert found["dynamic"].sel(hardware="Loihi 2").isnull().all()


def test_only_clocked_has_a_price_and_only_on_a_clock(measured: xr.Dataset) -> None:
    found = deployment_costs(measured)["dynamic"].sel(hardware="SpiNNaker 2")
    assert found.sel(rule="clocked", delta_t=0.01).notnull().all()
    assert found.sel(delta_t=0).isnull().all() and found.drop_sel(rule="clocked").isnull().all()


def test_costs_keep_the_dimensions_of_joined_deployments(measured: xr.Dataset, tmp_path: Path) -> None:
    for seed in (0, 1):
        save_dataset(measured.assign_attrs(dataset="mnist", seed=seed), deployment_path(tmp_path, "mnist", seed))
    found = deployment_costs(open_deployment(tmp_path), hardware={"Loihi": HARDWARE["Loihi"]})
    assert found["dynamic"].dims == ("dataset", "seed", "rule", "delta_t", "bits", "hardware")
    alone = deployment_costs(measured)["dynamic"].sel(hardware="Loihi")
    np.testing.assert_allclose(found["dynamic"].sel(dataset="mnist", seed=1, hardware="Loihi"), alone)


def test_deployment_of_before_its_window_was_noted_is_refused(measured: xr.Dataset) -> None:
    with pytest.raises(ValueError, match=r"^deployment lacks n_inputs, duration; run_deployment measures it anew"):
        deployment_costs(measured.drop_vars(["duration", "n_inputs"]))
