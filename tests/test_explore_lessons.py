"""The explorers of the lessons without a browser: set a control's value, look at the data of the picture."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from bats_lab import explore
from bats_lab.network.neuron import simulate_neuron
from bats_lab.plots import delta_t_color

INPUTS = {"times": np.array([0.01, 0.03, 0.07, 0.11]), "weights": np.array([12.0, 24.0, -70.0, 70.0])}


@pytest.fixture(scope="module")
def neurons() -> explore.Explorer:
    return explore.explore_neuron()


@pytest.fixture(scope="module")
def gradients() -> explore.Explorer:
    return explore.explore_gradient()


@pytest.fixture(autouse=True)
def back_to_the_start(request: pytest.FixtureRequest) -> Iterator[None]:
    used = [request.getfixturevalue(n) for n in ("neurons", "gradients") if n in request.fixturenames]
    start = [explorer.values for explorer in used]
    yield
    for explorer, values in zip(used, start, strict=True):
        with explorer.together():
            for name, value in values.items():
                explorer.controls[name].value = value


def shown(explorer: explore.Explorer, panel: int, name: str) -> dict[str, np.ndarray]:
    return explorer.pictures[0].panels[panel].columns(name)


# One neuron


def test_neuron_shows_the_spikes_of_both_times_and_says_what_was_lost(neurons: explore.Explorer) -> None:
    dropped = simulate_neuron(**INPUTS, delta_t=0.008, rule="drop")
    np.testing.assert_allclose(shown(neurons, 2, "sent_0")["time"], 1e3 * simulate_neuron(**INPUTS).times)
    np.testing.assert_allclose(shown(neurons, 2, "sent_1")["time"], 1e3 * dropped.discretized)
    np.testing.assert_allclose(shown(neurons, 0, "unsent_1")["time"], 1e3 * dropped.ignored)
    assert neurons.sentence.text == (
        "Spikes sent: 12 in continuous time, 5 with Δt = 8 ms and rule drop. A crossing before the neuron's last spike "
        "has left is ignored and does not reset the neuron. Ignored: 2. Above the threshold to the end, and silent, "
        "from: 160 ms."
    )


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("merge", "Reset the neuron and sent nothing: 1."),
        ("defer", "Waited for a free tick: 5."),
        ("graded", "On a tick with another one: 1."),
        ("clocked", "does not happen: the potential is read, and reset, at ticks only."),
    ],
)
def test_neuron_follows_the_rule_and_the_sentence_tells_what_it_did(
    neurons: explore.Explorer, rule: str, words: str
) -> None:
    neurons.controls["rule"].value = rule
    sent = simulate_neuron(**INPUTS, delta_t=0.008, rule=rule).discretized
    np.testing.assert_allclose(shown(neurons, 2, "sent_1")["time"], 1e3 * sent[np.isfinite(sent)])
    assert words in neurons.sentence.text


def test_neuron_lists_what_each_rule_sends(neurons: explore.Explorer) -> None:
    box = neurons.children[-1]
    table = box.children[0].children[0].value
    for rule in ("drop", "merge", "defer", "graded", "clocked"):
        assert f">{simulate_neuron(**INPUTS, delta_t=0.008, rule=rule).spike_count}</td>" in table


def test_neuron_follows_every_slider(neurons: explore.Explorer) -> None:
    changes = {"tau_syn": 60.0, "threshold": 0.4, "time_2": 45.0, "weight_2": 50.0, "delta_t": 0.004}
    for name, value in changes.items():
        before = shown(neurons, 0, "potential_1")
        neurons.controls[name].value = value
        after = shown(neurons, 0, "potential_1")
        assert len(before["time"]) != len(after["time"]) or not np.allclose(before["potential"], after["potential"])
    assert neurons.pictures[0].panels[2].source("sent_1").data["time"].max() <= 200.0
    np.testing.assert_allclose(shown(neurons, 1, "inputs_0")["time"], [10, 45, 70, 110])
    assert neurons.pictures[0].panels[0].renderer("potential_1").glyph.line_color == delta_t_color(0.004)


def test_neuron_without_a_time_step_shows_one_curve(neurons: explore.Explorer) -> None:
    neurons.controls["delta_t"].value = 0.0
    assert len(shown(neurons, 0, "potential_1")["time"]) == len(shown(neurons, 2, "sent_1")["time"]) == 0
    assert len(shown(neurons, 1, "ticks")["time"]) == 0
    assert neurons.sentence.text == "Spikes sent: 12 in continuous time, each when it is computed."


def test_dragged_input_moves_its_sliders_and_is_kept_in_the_window(neurons: explore.Explorer) -> None:
    source = neurons.pictures[0].panels[1].source("inputs_0")
    source.data = {**source.data, "time": np.array([10, 50.2, 70, 110]), "weight": np.array([12, 30.1, -70, 70])}
    assert neurons.values["time_2"] == 50.0 and neurons.values["weight_2"] == 30.0
    assert shown(neurons, 1, "stems_1")["weight_end"][1] == 30.0
    source.data = {**source.data, "time": np.array([10, 50, 70, 300]), "weight": np.array([12, 30, -70, 170])}
    assert neurons.values["time_4"] == 200.0 and neurons.values["weight_4"] == 100.0
    assert source.data["time"][3] == 200.0


def test_input_that_is_deleted_comes_back(neurons: explore.Explorer) -> None:
    source = neurons.pictures[0].panels[1].source("inputs_0")
    source.data = {name: values[:3] for name, values in source.data.items()}
    assert len(source.data["time"]) == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rule": "dorp"}, "rule is 'dorp'; it must be one of drop, merge, defer, graded, clocked."),
        ({"delta_t": -0.001}, "delta_t is -0.001; it must be zero or positive."),
        ({"times": [0.01], "weights": [1, 2]}, "must be (input,), equally long"),
        ({"times": [0.3], "weights": [9]}, "times reach to 0.3 s; the window ends at 0.2 s."),
        ({"times": [], "weights": []}, "times holds 0 inputs; there must be 1 to 8."),
        ({"threshold": 0}, "thresholds is [0]; it must have 1 entries above 0."),
    ],
)
def test_neuron_answers_a_bad_value_with_a_sentence(values: dict, message: str) -> None:
    told = explore.explore_neuron(**values)
    assert isinstance(told, explore.Sentence) and message in told.text


def test_neuron_starts_clocked_without_a_clock() -> None:
    assert isinstance(explore.explore_neuron(rule="clocked", delta_t=0.0), explore.Explorer)


# The gradient


def test_tangent_is_the_difference_quotient_in_continuous_time(gradients: explore.Explorer) -> None:
    gradients.controls["step"].value = 0.01
    for _, place in gradients.controls["connection"].options:
        gradients.controls["connection"].value = place
        slopes = [np.diff(c["time"])[0] / np.diff(c["weight"])[0] for c in map(lambda n: shown(gradients, 0, n), LINES)]
        assert slopes[0] == pytest.approx(slopes[1], rel=1e-3)


LINES = ("tangent", "secant")


def test_curve_is_a_staircase_on_a_grid_and_straight_through_is_not_flat(gradients: explore.Explorer) -> None:
    with gradients.together():
        gradients.controls["delta_t"].value = 0.008
        gradients.controls["step"].value = 0.02
    assert len(np.unique(np.round(shown(gradients, 0, "computed")["time"], 6))) < 20
    assert len(np.unique(shown(gradients, 0, "continuous")["time"])) > 200
    tangent, secant = (shown(gradients, 0, name)["time"] for name in LINES)
    assert np.ptp(secant) == 0 and np.ptp(tangent) > 10
    assert ", 0.000 by the quotient with h = 0.02." in gradients.sentence.text


def test_point_moves_with_the_weight(gradients: explore.Explorer) -> None:
    gradients.controls["change"].value = 1.5
    assert shown(gradients, 0, "here")["weight"] == pytest.approx([6.5])
    assert "At a weight of 6.50" in gradients.sentence.text


def test_gradient_says_so_where_there_is_no_spike(gradients: explore.Explorer) -> None:
    with gradients.together():
        gradients.controls["connection"].value = (1, 0, 0)
        gradients.controls["change"].value = -4.0
    check = explore.GradientCheck(layer=1, pre=0)
    check.network.set_weights([0.1 * w for w in check.network.weights])
    assert not np.isfinite(check.slope(0.1, 0.01).time)
    assert not any(g.any() for g in check.network.gradients(check.spikes, np.array([[10.0]]), rule="graded"))


@pytest.mark.parametrize(
    ("values", "message"),
    [({"rule": "clocked"}, "rule is 'clocked'"), ({"step": 0}, "step is 0"), ({"delta_t": -1}, "delta_t is -1")],
)
def test_gradient_answers_a_bad_value_with_a_sentence(values: dict, message: str) -> None:
    told = explore.explore_gradient(**values)
    assert isinstance(told, explore.Sentence) and message in told.text
