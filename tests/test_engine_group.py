"""Networks trained side by side: each gives, bit for bit, what it gives alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from backends import usable
from emulated import EmulatedDevice, folder
from trainings import assert_same_passes, assert_same_records

from bats_lab import engine
from bats_lab.config import Config
from bats_lab.data.datasets import ImageData, load_dataset
from bats_lab.engine import Mode, Networks, State, get_backend
from bats_lab.engine.cuda.networks import CudaBackend
from bats_lab.errors import BatsLabError, DeviceError, DivergedError
from bats_lab.network.feedforward import Network
from bats_lab.runs.records import EpochRecord
from bats_lab.runs.training import Training, evaluate, input_spikes, inputs_of_group, train, train_group
from bats_lab.spikes.estimators import Estimator

SMALL = Config(n_train=60, n_test=30, hidden=20, threshold_output=0.1, epochs=2, delta_t=0.004, batch_size=25)
# They differ in everything in which networks of a group may.
GROUP = [
    SMALL,
    SMALL.replace(seed=1, rule="graded", delta_t=0.008, keep_weights="each"),
    SMALL.replace(delta_t=0, learning_rate=0.01, learning_rate_decay=0.5, learning_rate_interval=1),
    SMALL.replace(rule="defer", delta_t=0.01, threshold_hidden=0.3, tau_syn=0.1, target_true=9.0),
    SMALL.replace(rule="clocked", epochs=1, beta_1=0.8, epsilon=1e-6, weight_scale=0.7),
    SMALL.replace(rule="merge", encoding_window=0.08, duration=0.15, estimator="delayed"),
    SMALL.replace(rule="graded", delta_t=0.012, estimator="surrogate", surrogate_width=0.1),
    SMALL.replace(rule="defer", delta_t=0.012, estimator="stochastic", seed=3),
]
WILD = SMALL.replace(learning_rate=1e39)


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_dataset("mnist_small", n_train=60, n_test=30)


@pytest.fixture(scope="module")
def together(backend: str, digits: ImageData) -> list[Training | DivergedError]:
    return train_group([*GROUP[:3], WILD, *GROUP[3:]], digits, device=backend)


def assert_same_training(first: Any, second: Any) -> None:
    assert_same_records(first.records, second.records)
    for a, b in zip(first.network.weights, second.network.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("place", range(len(GROUP)))
def test_network_in_a_group_gives_what_it_gives_alone(
    backend: str, together: list[Any], digits: ImageData, place: int
) -> None:
    alone = train(GROUP[place], digits, device=backend)
    assert_same_training(together[place + (place >= 3)], alone)


def test_network_that_diverges_leaves_the_group(together: list[Any]) -> None:
    error = together[3]
    assert isinstance(error, DivergedError) and (error.epoch, error.layer) == (1, "hidden_1")
    assert str(error).startswith("Training diverged in epoch 1: ") and "learning_rate than 1e+39" in str(error)
    assert all(isinstance(result, Training) for i, result in enumerate(together) if i != 3)


def test_group_goes_on_from_checkpoints_of_different_epochs(
    backend: str, together: list[Any], digits: ImageData, tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    def stop(record: EpochRecord) -> None:
        raise Stop

    paths = [tmp_path / f"{i}.npz" for i in range(3)]
    with pytest.raises(Stop):
        train(GROUP[0], digits, device=backend, checkpoint=paths[0], on_epoch=stop)
    train(GROUP[1], digits, device=backend, checkpoint=paths[1])
    heard: list[tuple[int, int]] = []
    resumed = train_group(
        GROUP[:3], digits, device=backend, checkpoints=paths, on_epoch=lambda i, r: heard.append((i, r.epoch))
    )
    assert sorted(heard) == [(i, epoch) for i in range(3) for epoch in (1, 2)]
    for first, second in zip(resumed, together[:3], strict=True):
        assert_same_training(first, second)


def test_progress_counts_the_samples_of_all_networks(backend: str, digits: ImageData) -> None:
    heard: list[tuple[int, int]] = []
    train_group(GROUP[:2], digits, device=backend, on_batch=lambda done, total: heard.append((done, total)))
    assert heard and all(0 < done <= total == 120 for done, total in heard)


def test_networks_of_different_shape_are_refused(backend: str, digits: ImageData) -> None:
    for change in ({"hidden": 21}, {"batch_size": 5}, {"max_spikes_output": 9}, {"dtype": "float64"}):
        with pytest.raises(ValueError, match="must have the same data set, sizes, spike limits"):
            train_group([SMALL, SMALL.replace(**change)], digits, device=backend)


def test_checkpoint_of_another_run_is_refused(backend: str, digits: ImageData, tmp_path: Path) -> None:
    train(SMALL.replace(epochs=1), digits, device=backend, checkpoint=tmp_path / "0.npz")
    with pytest.raises(BatsLabError, match="of a run with other parameters"):
        train_group([SMALL], digits, device=backend, checkpoints=[tmp_path / "0.npz"])


def test_network_may_be_run_and_measured_in_turns(backend: str, digits: ImageData) -> None:
    config = GROUP[0].replace(epochs=1)
    network, spikes = train(config, digits, device=backend).network, input_spikes(digits.x_test, config)
    first = evaluate(network, spikes, digits.y_test)
    activity = network.simulate(input_spikes(np.repeat(digits.x_test, 9, axis=0), config))
    assert_same_passes(evaluate(network, spikes, digits.y_test), first)
    for layer, repeated in zip(network.simulate(spikes), activity, strict=True):
        np.testing.assert_array_equal(layer.times, repeated.times[::9])


# The contract, in steps

# So strongly driven that crossings collide.
BUSY = SMALL.replace(delta_t=0.02, weight_scale=4.0, epochs=1)


def group_of(backend: str, configs: list[Config], data: ImageData) -> tuple[Networks, list[Mode], Any]:
    """Networks of some runs as a group, their modes, and the training samples in it."""
    single = [Network.from_config(c, 784, 10, device=backend).networks for c in configs]
    weights = [np.concatenate(layer) for layer in zip(*(own.weights for own in single), strict=True)]
    networks = get_backend(backend).networks(single[0].shape, [own.neurons[0] for own in single], weights)
    modes = [Mode(c.rule, Estimator(c.estimator, c.surrogate_width), c.target_true, c.target_false) for c in configs]
    return networks, modes, networks.load(inputs_of_group(data.x_train, configs), data.y_train)


def assert_same_states(first: Networks, second: Networks) -> None:
    """The states of two groups are the same; a GPU adds Adam's step to a stored gradient, or to one in registers."""
    for i in range(len(first)):
        for name, a, b in zip(State._fields, first.state(i), second.state(i), strict=True):
            for x, y in zip([a], [b], strict=True) if name == "n_updates" else zip(a, b, strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("counted", [None, "merge", "graded", "output"])
def test_epoch_is_its_batches_taken_in_steps(backend: str, digits: ImageData, counted: str | None) -> None:
    configs = [BUSY.replace(seed=seed, dtype="float64") for seed in range(2)]
    orders = [np.random.default_rng(7).permutation(60)] * 2
    whole, modes, samples = group_of(backend, configs, digits)
    other = {"output_rule": "merge"} if counted == "output" else {} if counted is None else {"rule": counted}
    counting = [mode._replace(**other) for mode in modes]
    sums = whole.train(
        samples, modes, orders, batch_size=25, learning_rates=[0.01, 0.02],
        errors_from=None if counted is None else (samples, counting),
    )  # fmt: skip
    assert all(own.counts[-1, :2].any() for own in sums) or counted == "graded"
    steps, _, samples = group_of(backend, configs, digits)
    for begin in range(0, 60, 25):
        chosen = orders[0][begin : begin + 25]
        steps.forward(samples, chosen, counting)
        errors = np.stack([read.errors for read in steps.read_out(digits.y_train[chosen], counting)])
        steps.forward(samples, chosen, modes)
        steps.backward(errors)
        steps.update([0.01, 0.02], modes, n_samples=len(chosen))
    assert_same_states(whole, steps)


def test_errors_of_another_rule_train_other_weights(backend: str, digits: ImageData) -> None:
    own, same, other = (
        train(BUSY, digits, device=backend, errors_from=counted).network.weights[0]
        for counted in (None, BUSY, BUSY.replace(rule="graded"))
    )
    np.testing.assert_array_equal(own, same)
    assert not np.array_equal(own, other)


@pytest.mark.parametrize("layers", ["output", "all"])
@pytest.mark.parametrize("counts", ["graded", "merge"])
def test_error_counts_are_those_of_the_reference(backend: str, digits: ImageData, counts: str, layers: str) -> None:
    config = BUSY.replace(dtype="float64", error_counts=counts, error_layers=layers, n_train=3, batch_size=3)
    network = Network.from_config(config, 784, 10, device=backend)
    images, labels, weights = digits.x_train[:3], digits.y_train[:3], network.weights
    neurons = {"tau_syn": config.tau_syn, "duration": config.duration, "delta_t": config.delta_t}
    inputs, errors = input_spikes(images, config), np.zeros((3, 10))
    rules = ("drop" if layers == "output" else counts, counts)
    for i, spikes in enumerate(inputs.padded()):
        events = reference.put_on_grid(spikes, config.delta_t)
        for *layer, rule in zip(weights, config.thresholds, config.max_spikes, rules, strict=True):
            options = dict(zip(("threshold", "max_spikes"), layer[1:], strict=True))
            found = reference.simulate_layer(events, layer[0], **options, rule=rule, **neurons)
            events = found.events()
        sent = np.bincount([j for j, _ in found.sent()], minlength=10)
        errors[i] = np.where(np.arange(10) == labels[i], 15, 3) - sent
    own = network.read_out(inputs, labels, rule="drop", target_true=15.0, target_false=3.0).errors
    assert np.any(errors != own)  # the run's own counts are others
    wanted = network.gradients(inputs, errors, rule="drop")
    moved = train(config, digits, device=backend).network.weights
    # Adam's first step moves a weight against its gradient by the learning rate.
    for before, after, gradient in zip(weights, moved, wanted, strict=True):
        clear = abs(gradient) > 1e-6
        step = np.where(clear, -np.sign(gradient), 0) * config.learning_rate
        np.testing.assert_allclose((after - before)[clear], step[clear], rtol=1e-2)


def test_measures_of_training_are_of_the_spikes_that_are_sent(backend: str, digits: ImageData) -> None:
    [record] = train(BUSY.replace(error_counts="graded"), digits, device=backend).records
    assert record.train.dropped.any() and not record.train.merged.any()


def test_error_counts_without_a_grid_are_the_runs_own(digits: ImageData) -> None:
    exact = BUSY.replace(delta_t=0.0)
    runs = exact, exact.replace(error_counts="merge")
    own, counted = (train(run, digits, device="cpu").network.weights for run in runs)
    for a, b in zip(own, counted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_checkpoint_with_errors_from_elsewhere_is_refused(backend: str, digits: ImageData, tmp_path: Path) -> None:
    config, path = BUSY, tmp_path / "0.npz"
    train(config, digits, device=backend, checkpoint=path, errors_from=config.replace(rule="merge"))
    with pytest.raises(BatsLabError, match="of a run with errors from elsewhere"):
        train(config, digits, device=backend, checkpoint=path)


def test_state_of_a_network_moves_to_another_group(backend: str, digits: ImageData) -> None:
    networks, modes, samples = group_of(backend, GROUP[:2], digits)
    networks.train(samples, modes, [np.arange(60)] * 2, batch_size=25, learning_rates=[0.01, 0.01])
    others, _, _ = group_of(backend, GROUP[:2][::-1], digits)
    for i in range(2):
        others.set_state(i, networks.state(i))
    assert_same_states(networks, others)
    assert others.state(0).n_updates == 3 and others.state(0).first[0].any()


# Memory, on a device that has little of it


@pytest.fixture
def small_device(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes a device of so many bytes, by the name ``small``."""
    usable("emulated")

    def make(n_bytes: int) -> str:
        backend = CudaBackend(EmulatedDevice(folder(), total_bytes=n_bytes))
        monkeypatch.setitem(engine._BACKENDS, "small", lambda: backend)
        return "small"

    return make


def test_group_that_does_not_fit_is_split(small_device: Any, digits: ImageData) -> None:
    shape = engine.Shape((784, 20, 10), (30, 30), "float32")
    demand = engine.Demand(shape, 100, n_samples=90, n_spikes=10_000, n_encodings=1, n_grids=1)
    fitting = [engine.get_backend(small_device(n << 20)).n_fitting(9, demand) for n in (16, 32, 64, 1000)]
    assert fitting == sorted(fitting) and fitting[1] < 4 < 9 == fitting[-1]
    configs = [SMALL.replace(seed=seed, epochs=1) for seed in range(4)]
    split = train_group(configs, digits, device=small_device(32 << 20))
    whole = train_group(configs, digits, device=small_device(1 << 30))
    for first, second in zip(split, whole, strict=True):
        assert_same_training(first, second)


def test_network_that_does_not_fit_is_refused_with_the_numbers(small_device: Any, digits: ImageData) -> None:
    message = (
        r"A network 784-20-10 does not fit the memory of emulated: it needs \d\.\d\d GiB, .* 0\.00 GiB can be used"
    )
    with pytest.raises(DeviceError, match=message):
        train(SMALL, digits, device=small_device(1 << 20))
