"""The backward pass: the reference's gradients, central differences, and what follows from the equations alone."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from hypothesis import assume, given
from strategies import (
    ESTIMATORS,
    EVENT_RULES,
    RULES,
    Case,
    assert_gradients_of_reference,
    cases,
    kept,
    loss,
    random_case,
    with_weight,
)

from bats_lab.spikes.estimators import STRAIGHT_THROUGH, Estimator


@given(case=cases(estimators=(STRAIGHT_THROUGH, *ESTIMATORS)))
def test_gradients_are_those_of_the_reference(backend: str, case: Case) -> None:
    # Close to a tangent crossing (slope near 0) the gradient has lost digits in the reference as well.
    assume(assert_gradients_of_reference(case, backend, tolerance=1e-6))


@pytest.mark.parametrize("delta_t", [0.0, 0.0005, 0.008, 0.03])
@pytest.mark.parametrize("rule", RULES)
def test_gradients_of_ordinary_networks_are_exact(backend: str, rule: str, delta_t: float) -> None:
    if rule == "clocked" and delta_t == 0:
        pytest.skip("a clock needs a time step")
    for seed in range(4):
        assert assert_gradients_of_reference(random_case(seed, rule, delta_t=delta_t), backend, tolerance=1e-11) == 4


@pytest.mark.parametrize("delta_t", [0.0005, 0.008, 0.03])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("estimator", ESTIMATORS[:2])
def test_gradients_of_other_estimators_are_exact(backend: str, estimator: Estimator, rule: str, delta_t: float) -> None:
    for seed in range(3):
        case = random_case(seed, rule, delta_t=delta_t, estimator=estimator)
        assert assert_gradients_of_reference(case, backend, tolerance=1e-11) == 4


@pytest.mark.parametrize("rule", EVENT_RULES)
def test_delayed_gradient_is_the_exact_one_of_a_network_with_fixed_delays(rule: str) -> None:
    # By central differences of the reference, in which every spike keeps the delay that it had.
    case = random_case(5, rule, delta_t=0.02, samples=1, sizes=(4, 3, 2), estimator=Estimator("delayed"))
    gradients, errors = case.gradients("cpu"), case.errors()[0]

    def loss(weights: list[np.ndarray]) -> float:
        layers = reference.simulate_with_delays(case.reference(0), weights)
        return sum(errors[j] * c.time for j, n in enumerate(layers[-1].neurons) for c in n.crossings if c.sent)

    for layer, gradient in enumerate(gradients):
        for index in np.ndindex(gradient.shape):
            up, down = ([w.copy() for w in case.weights] for _ in range(2))
            up[layer][index] += 1e-6
            down[layer][index] -= 1e-6
            difference = (loss(up) - loss(down)) / 2e-6
            assert gradient[index] == pytest.approx(difference, rel=1e-5, abs=1e-6 * np.abs(gradient).max())


@pytest.mark.parametrize("rule", RULES)
def test_wide_surrogate_is_the_delayed_estimator_and_a_narrow_one_is_not(backend: str, rule: str) -> None:
    case = random_case(2, rule, delta_t=0.01)
    delayed, wide, narrow = (
        case.replace(estimator=how).gradients(backend)
        for how in (Estimator("delayed"), Estimator("surrogate", 20), Estimator("surrogate", 0.05))
    )
    for a, b in zip(delayed, wide, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-12 * np.abs(a).max())
    # No spike of the output is handed on, so the last layer's gradient has no slope of the grid in it.
    np.testing.assert_array_equal(delayed[-1], narrow[-1])
    assert all(np.abs(a - b).max() > 0.05 * np.abs(a).max() for a, b in zip(delayed[:-1], narrow[:-1], strict=True))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_in_continuous_time_all_estimators_are_one(backend: str, estimator: Estimator) -> None:
    case = random_case(3, delta_t=0.0)
    for a, b in zip(case.gradients(backend), case.replace(estimator=estimator).gradients(backend), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("width", [16, 17, 65, 201, 430])
def test_gradients_of_wide_layers_are_exact(backend: str, width: int) -> None:
    case = random_case(width, sizes=(6, width, 3), samples=1, delta_t=0.01, max_spikes=[4, 12])
    assert assert_gradients_of_reference(case, backend, tolerance=1e-11) == 1


def test_gradients_of_a_long_window_are_exact(backend: str) -> None:
    rng = np.random.default_rng(0)
    times = rng.uniform(0, 130, (2, 6, 8))
    case = random_case(0, "graded", times=times, duration=130.0, max_spikes=[100] * 3)
    assert assert_gradients_of_reference(case, backend, tolerance=1e-10) == 2
    assert all(np.abs(gradient).max() > 0 for gradient in case.gradients(backend))


# At most one spike a neuron, in every layer, is how networks of time to first spike are trained.
@pytest.mark.parametrize(("seed", "most"), [*((seed, 12) for seed in range(6)), (0, 1), (1, 1)])
def test_gradients_are_central_differences_in_continuous_time(backend: str, seed: int, most: int) -> None:
    case, step = random_case(seed, delta_t=0.0, max_spikes=[most] * 3), 1e-7
    # A spike that comes or goes, or that passes another in time, makes a jump or a kink.
    smooth = [i for i in range(4) if case.margin(case.reference(i), i) > 20 * step]
    case = case.replace(times=case.times[smooth])
    assert len(smooth) >= 2
    for layer, gradient in enumerate(case.gradients(backend)):
        for index in np.ndindex(gradient.shape):
            up, down = (with_weight(case, layer, index, change) for change in (step, -step))
            difference = (loss(up, backend) - loss(down, backend)) / (2 * step)
            assert gradient[index] == pytest.approx(difference, rel=1e-5, abs=3e-6 * np.abs(gradient).max())


@pytest.mark.parametrize("rule", EVENT_RULES)
def test_gradients_on_a_fine_grid_are_nearly_those_of_continuous_time(backend: str, rule: str) -> None:
    continuous = random_case(2, rule, delta_t=0.0)
    fine = continuous.replace(delta_t=1e-8)
    for a, b in zip(continuous.gradients(backend), fine.gradients(backend), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * np.abs(a).max())


@pytest.mark.parametrize("rule", RULES)
def test_gradient_is_the_mean_over_samples(backend: str, rule: str) -> None:
    case = random_case(3, rule)
    network, errors = case.network(backend), case.errors()
    alone = [network.gradients(case.only(i).spikes(), errors[[i]], rule=rule) for i in range(4)]
    for layer, whole in enumerate(network.gradients(case.spikes(), errors, rule=rule)):
        mean = np.mean([gradients[layer] for gradients in alone], axis=0)
        np.testing.assert_allclose(whole, mean, rtol=0, atol=1e-13 * np.abs(mean).max())


@pytest.mark.parametrize("rule", RULES)
def test_gradient_is_linear_in_the_errors(backend: str, rule: str) -> None:
    case = random_case(4, rule)
    network, spikes, errors = case.network(backend), case.spikes(), case.errors()
    other = np.roll(errors, 1, axis=0)
    a, b, both = (network.gradients(spikes, e, rule=rule) for e in (errors, other, 2 * errors + other))
    for x, y, z in zip(a, b, both, strict=True):
        np.testing.assert_allclose(z, 2 * x + y, rtol=0, atol=1e-12 * np.abs(z).max())


@pytest.mark.parametrize("rule", RULES)
def test_silent_network_has_no_gradient(backend: str, rule: str) -> None:
    case = random_case(0, rule)
    for gradient in case.replace(weights=[-abs(w) for w in case.weights]).gradients(backend):
        assert not gradient.any()


def test_no_errors_give_no_gradient(backend: str) -> None:
    case = random_case(0)
    for gradient in case.network(backend).gradients(case.spikes(), np.zeros((4, 3))):
        assert not gradient.any()


@pytest.mark.parametrize("rule", RULES)
def test_float32_gradients_are_near_those_of_float64(backend: str, rule: str) -> None:
    case = random_case(2, rule).rounded()
    for single, double in zip(case.gradients(backend, "float32"), case.gradients(backend), strict=True):
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, double, rtol=0, atol=1e-3 * np.abs(double).max())


def test_spike_that_came_before_but_was_sent_after_counts(backend: str) -> None:
    # The second input falls before the crossing but leaves on the next tick (straight through: eq. 15 and 16).
    case = random_case(0, "graded", sizes=(2, 1), samples=1, delta_t=0.1, duration=0.5, max_spikes=[1])
    case = case.replace(weights=[np.array([[4.0, 0.0]])], times=np.array([[[0.05], [0.11]]]))
    time = case.simulate(backend)[0].times[0, 0, 0]
    assert 0.11 < time < 0.2
    [gradient] = case.gradients(backend)
    [[late]] = case.replace(weights=[np.array([[4.0]])], times=np.array([[[0.05]]])).gradients(backend)
    e = np.exp((np.array([0.1, 0.2]) - time) / 0.26)
    np.testing.assert_allclose(gradient[0], late[0] / (e[0] ** 2 - e[0]) * (e**2 - e))
    assert gradient[0, 0] * gradient[0, 1] < 0


def test_spike_that_came_after_is_left_out(backend: str) -> None:
    case = random_case(0, "graded", sizes=(2, 1), samples=1, delta_t=0.1, duration=0.5, max_spikes=[1])
    case = case.replace(weights=[np.array([[4.0, 0.0]])], times=np.array([[[0.05], [0.31]]]))
    assert kept(case.simulate(backend)[0].times)[0] < 0.31
    [gradient] = case.gradients(backend)
    assert gradient[0, 0] != 0 == gradient[0, 1]


def test_clocked_spike_without_a_crossing_has_no_derivative(backend: str) -> None:
    # Above the threshold at the second tick it is seen on, without having been below in between.
    case = random_case(0, "clocked", sizes=(1, 1), samples=1, delta_t=0.01, duration=0.5)
    case = case.replace(weights=[np.array([[500.0]])], times=np.array([[[0.015]]]))
    one, three = (case.replace(max_spikes=[n]) for n in (1, 3))
    times, sent = (kept(x) for x in (three.simulate(backend)[0].times, three.simulate(backend)[0].discretized))
    assert times[0] < sent[0] and times[1:].tolist() == sent[1:].tolist()
    np.testing.assert_array_equal(one.gradients(backend)[0], three.gradients(backend)[0])


def test_clocked_spike_on_the_way_down_has_no_derivative(backend: str) -> None:
    # Inhibition arrives while the neuron is several thresholds too high; the fourth spike finds it falling.
    case = random_case(0, "clocked", sizes=(2, 1), samples=1, duration=4.55, delta_t=0.13 / 6, thresholds=[0.466])
    case = case.replace(weights=[np.array([[-140.0, 103.0]])], times=np.array([[[3.374], [3.297]]]))
    three, four = (case.replace(max_spikes=[n]) for n in (3, 4))
    assert four.simulate(backend)[0].spike_count.sum() == 4
    np.testing.assert_array_equal(three.gradients(backend)[0], four.gradients(backend)[0])


def test_errors_of_the_wrong_shape_are_refused(backend: str) -> None:
    case = random_case(0)
    with pytest.raises(ValueError, match=r"shape \(4, 2\); it must be \(sample, output neuron\): \(4, 3\)"):
        case.network(backend).gradients(case.spikes(), np.zeros((4, 2)))
