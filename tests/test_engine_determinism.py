"""The same seed gives the same numbers, and what is simulated together or on how many threads changes no spike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from strategies import RULES, Case, assert_same_activity, cases, random_case

from bats_lab.config import Config
from bats_lab.network.feedforward import Network
from bats_lab.spikes.grid import discretize_spikes
from bats_lab.spikes.trains import Spikes

numba = pytest.importorskip("numba")
MOST = numba.config.NUMBA_NUM_THREADS


def assert_same_arrays(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    for a, b in zip(first, second, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def large_case(rule: str = "drop") -> Case:
    """Enough neurons and samples for every thread to have work, in more than one block."""
    return random_case(0, rule, sizes=(30, 450, 10), samples=40, max_spikes=[8, 12])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", RULES)
def test_simulating_twice_gives_the_same_bits(backend: str, rule: str, dtype: str) -> None:
    assert_same_activity(large_case(rule).simulate(backend, dtype), large_case(rule).simulate(backend, dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", RULES)
def test_gradients_twice_are_the_same_bits(backend: str, rule: str, dtype: str) -> None:
    case = large_case(rule)
    network, other = case.network(backend, dtype), case.network(backend, dtype)
    first, again, elsewhere = (n.gradients(case.spikes(), case.errors(), rule=rule) for n in (network, network, other))
    assert_same_arrays(first, again)
    assert_same_arrays(first, elsewhere)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", RULES)
def test_number_of_threads_changes_no_spike_and_no_gradient(backend: str, rule: str, dtype: str) -> None:
    case = large_case(rule)
    assert_same_activity(case.simulate(backend, dtype, threads=1), case.simulate(backend, dtype, threads=MOST))
    assert_same_arrays(case.gradients(backend, dtype, threads=1), case.gradients(backend, dtype, threads=MOST))


@given(case=cases(samples=3))
def test_sample_alone_does_what_it_does_in_a_batch(backend: str, case: Case) -> None:
    network, together = case.network(backend, "float32"), case.simulate(backend, "float32")
    for i in range(3):
        alone = network.simulate(case.only(i).spikes(), rule=case.rule)
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_array_equal(a.times[0], b.times[i])
            np.testing.assert_array_equal(a.discretized[0], b.discretized[i])


@pytest.mark.parametrize("rule", RULES)
def test_order_of_samples_changes_no_spike(backend: str, rule: str) -> None:
    case = large_case(rule)
    backwards = case.replace(times=case.times[::-1]).simulate(backend, "float32")
    for a, b in zip(case.simulate(backend, "float32"), backwards, strict=True):
        for name in vars(a):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name)[::-1])


def test_more_samples_than_are_simulated_together_change_nothing(backend: str) -> None:
    case = random_case(0, sizes=(6, 20, 3), samples=600)
    few = case.replace(times=case.times[250:270]).simulate(backend, "float32")
    for a, b in zip(case.simulate(backend, "float32"), few, strict=True):
        for name in vars(a):
            np.testing.assert_array_equal(getattr(a, name)[250:270], getattr(b, name))


@pytest.mark.parametrize("rule", ["merge", "defer"])
def test_spikes_sent_are_those_of_the_simulation(backend: str, rule: str) -> None:
    case = random_case(0, rule, sizes=(6, 20, 3), samples=300)
    network, activity = case.network(backend), case.simulate(backend)
    for part, sent in network.sent_spikes(case.spikes(), rule=rule):
        for layer, spikes in zip(activity, sent, strict=True):
            sample, neuron, _ = np.nonzero(np.isfinite(layer.discretized[part]))
            times = layer.discretized[part][np.isfinite(layer.discretized[part])]
            found = spikes.events()
            order = np.lexsort((found[2], found[1], found[0]))
            for a, b in zip(found, (sample, neuron, times), strict=True):
                np.testing.assert_allclose(a[order], b, rtol=1e-12)
    assert part == slice(256, 300)


@pytest.mark.parametrize("size", [1, 7, 40])
def test_size_of_a_forward_batch_changes_no_spike(backend: str, size: int) -> None:
    case = large_case("defer")
    network = case.network(backend, "float32")
    spikes, whole = network.prepare(case.spikes()), case.simulate(backend, "float32")
    for begin in range(0, 40, size):
        part = np.arange(begin, min(begin + size, 40))
        network.forward(spikes, part, rule="defer")
        [output] = network.networks.sent(-1)
        padded = output.padded(case.max_spikes[-1], sent=True)
        np.testing.assert_allclose(padded, np.sort(whole[-1].discretized[part], axis=-1), rtol=1e-6)


def test_a_network_keeps_nothing_from_the_samples_before(backend: str) -> None:
    busy, case = random_case(1, "graded"), random_case(0, "drop")
    network = case.network(backend)
    fresh = network.simulate(case.spikes()), network.gradients(case.spikes(), case.errors())
    network.simulate(busy.spikes(), rule="graded")
    network.gradients(busy.replace(delta_t=0.0).spikes(), busy.errors())
    assert_same_activity(network.simulate(case.spikes()), fresh[0])
    assert_same_arrays(network.gradients(case.spikes(), case.errors()), fresh[1])


def test_a_seed_gives_the_same_weights_and_another_other_ones() -> None:
    first, again, other = (Network.from_config(Config(hidden=20, seed=seed), 12, 10).weights for seed in (1, 1, 2))
    assert_same_arrays(first, again)
    assert all((a != b).mean() > 0.99 for a, b in zip(first, other, strict=True))


def test_weights_start_uniform_within_their_scale() -> None:
    for weights in Network.from_config(Config(hidden=60, weight_scale=0.5), 50, 40).weights:
        assert np.abs(weights).max() <= 0.5 < np.abs(weights).max() + 0.01
        assert abs(weights.mean()) < 0.03 and weights.std() == pytest.approx(0.5 / np.sqrt(3), rel=0.05)


def test_saved_network_gives_the_same_bits(backend: str, tmp_path) -> None:
    case = random_case(0, "merge")
    network = case.network(backend, "float32")
    network.save(tmp_path / "network.npz")
    loaded = Network.load(tmp_path / "network.npz", device=backend)
    assert_same_activity(
        network.simulate(case.spikes(), rule="merge"),
        loaded.simulate(case.spikes(), rule="merge"),
    )


def test_weights_handed_out_are_copies(backend: str) -> None:
    network = random_case(0).network(backend)
    network.weights[0][:] = 0
    assert network.weights[0].all()


def test_set_weights_are_those_simulated(backend: str) -> None:
    case, other = random_case(0), random_case(1)
    network = case.network(backend)
    network.set_weights(other.weights)
    assert_same_arrays(network.weights, other.weights)
    again = case.replace(weights=other.weights).simulate(backend)
    assert_same_activity(network.simulate(case.spikes()), again)


def test_a_file_that_is_no_network_is_refused(tmp_path) -> None:
    path = tmp_path / "other.npz"
    np.savez(path, a=np.zeros(3))
    with pytest.raises(ValueError, match=r"other\.npz is not a saved network"):
        Network.load(path)


def test_more_threads_than_there_are_is_refused(backend: str) -> None:
    with pytest.raises(ValueError, match=rf"threads is {MOST + 1}; .* at most {MOST}"):
        random_case(0).simulate(backend, threads=MOST + 1)


def test_inputs_of_any_type_are_taken(backend: str) -> None:
    case = random_case(0)
    single = discretize_spikes(Spikes.from_padded(case.times.astype(np.float32), dtype="float32"), case.delta_t)
    assert_same_activity(case.network(backend, "float32").simulate(single), case.simulate(backend, "float32"))
