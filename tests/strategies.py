"""Random networks and inputs for hypothesis, the same thing run by the engine and by the reference.

Hypothesis draws the shape of a case (layers, rule, time step, window, kind of inputs) and a seed from which its numbers
come, so that a failing case shrinks to a small shape without a search over hundreds of floats.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import reference
from hypothesis import strategies as st

from bats_lab.network.feedforward import LayerActivity, Network
from bats_lab.spikes.estimators import STRAIGHT_THROUGH, Estimator
from bats_lab.spikes.grid import discretize_spikes
from bats_lab.spikes.trains import Spikes

EVENT_RULES = ("drop", "merge", "defer", "graded")
RULES = (*EVENT_RULES, "clocked")

#: Estimators but the thesis' own.
ESTIMATORS = (Estimator("delayed"), Estimator("surrogate", 0.2), Estimator("surrogate", 0.05), Estimator("stochastic"))

#: Decisions closer than this to falling the other way are left to rounding, by type.
BORDERLINE = {"float64": 1e-9, "float32": 2e-5}

#: Most ticks of a window for `clocked`, which the reference walks one by one.
CLOCKED_TICKS = 600


@dataclass(frozen=True)
class Case:
    """A network, its inputs (sample, neuron, spike) and how it is run."""

    weights: list[np.ndarray]
    times: np.ndarray
    thresholds: list[float]
    max_spikes: list[int]
    tau_syn: float
    duration: float
    delta_t: float
    rule: str
    estimator: Estimator = STRAIGHT_THROUGH
    tau_mem: float | None = None

    def network(self, backend: str, dtype: str = "float64", threads: int = 0) -> Network:
        return Network(
            [self.weights[0].shape[1], *(w.shape[0] for w in self.weights)],
            thresholds=self.thresholds,
            max_spikes=self.max_spikes,
            tau_syn=self.tau_syn,
            tau_mem=self.tau_mem,
            duration=self.duration,
            weights=self.weights,
            dtype=dtype,
            device=backend,
            threads=threads,
        )

    def spikes(self) -> Spikes:
        return discretize_spikes(Spikes.from_padded(self.times), self.delta_t)

    def simulate(self, backend: str, dtype: str = "float64", threads: int = 0) -> list[LayerActivity]:
        return self.network(backend, dtype, threads).simulate(self.spikes(), rule=self.rule)

    def errors(self) -> np.ndarray:
        """Some error for every output neuron of every sample."""
        return np.random.default_rng(len(self.times)).normal(size=(len(self.times), self.weights[-1].shape[0]))

    def gradients(self, backend: str, dtype: str = "float64", threads: int = 0) -> list[np.ndarray]:
        network = self.network(backend, dtype, threads)
        return network.gradients(self.spikes(), self.errors(), rule=self.rule, estimator=self.estimator)

    def reference(self, sample: int, solve=reference.closed_form) -> list[reference.Layer]:
        settings = {} if self.rule == "clocked" else {"solve": solve}
        return reference.simulate(
            reference.put_on_grid(self.times[sample], self.delta_t),
            self.weights,
            thresholds=self.thresholds,
            max_spikes=self.max_spikes,
            tau_syn=self.tau_syn,
            tau=self.tau_mem,
            duration=self.duration,
            rule=self.rule,
            delta_t=self.delta_t,
            **settings,
        )

    def margin(self, layers: list[reference.Layer], sample: int) -> float:
        """How far the decisions in a sample's reference run were from falling the other way."""
        return min(reference.input_margin(self.times[sample], self.delta_t), *(layer.margin for layer in layers))

    def clear_references(self, dtype: str = "float64") -> dict[int, list[reference.Layer]]:
        """Reference runs of those samples in which no decision is left to rounding."""
        runs = {i: self.reference(i) for i in range(len(self.times))}
        return {i: layers for i, layers in runs.items() if self.margin(layers, i) > BORDERLINE[dtype]}

    def rounded(self) -> Case:
        """The same case with numbers that float32 holds exactly."""
        return self.replace(
            weights=[w.astype(np.float32).astype(float) for w in self.weights],
            times=self.times.astype(np.float32).astype(float),
            thresholds=[float(np.float32(v)) for v in self.thresholds],
        )

    def only(self, sample: int) -> Case:
        return self.replace(times=self.times[sample : sample + 1])

    def replace(self, **changes) -> Case:
        return replace(self, **changes)


def _times(rng: np.random.Generator, kind: str, shape: tuple[int, ...], window: float, step: float) -> np.ndarray:
    """Input times of a kind; `step` is the time step or, in continuous time, some short time."""
    times = rng.uniform(0, window, shape)
    if kind == "on_grid":
        times = np.floor(times / step) * step
    elif kind == "one_tick":
        times[:] = np.floor(window / 2 / step) * step + rng.uniform(0.1, 0.9, shape) * step
    elif kind == "same_time":
        times[:] = rng.uniform(0, window)
    elif kind == "bursts":
        times = rng.uniform(0, window, (*shape[:2], 1)) + np.arange(shape[2]) * step / 3
    elif kind == "late":
        times *= 3
    elif kind == "single":
        times[:, 1:] = np.inf
        times[..., 1:] = np.inf
    elif kind == "empty":
        times[:] = np.inf
    times[rng.random(shape) < 0.15] = np.inf
    return times


KINDS = ("spread", "spread", "bursts", "bursts", "on_grid", "one_tick", "same_time", "late", "single", "empty")


@st.composite
def cases(
    draw,
    rules=RULES,
    *,
    kinds=KINDS,
    continuous: bool | None = None,
    max_layers: int = 3,
    windows=(1.5, 10.0, 100.0, 1000.0),
    steps=(0.0004, 0.03, 0.1, 0.3, 1.0),
    drives=(1.0, 4.0, 16.0, 100.0),
    samples: int = 2,
    estimators=(STRAIGHT_THROUGH,),
    ratios=(None,),
) -> Case:
    """Draw a case; `windows` and `steps` are in tau_syn, `drives` weights in thresholds per tau_syn.

    `ratios` are those of the membrane's time constant and the synapse's; None: 2.
    """
    rule = draw(st.sampled_from(rules))
    if continuous is None:
        continuous = rule != "clocked" and draw(st.integers(0, 3)) == 0
    tau_syn = draw(st.sampled_from((0.13, 1.0, 0.004)))
    duration = tau_syn * draw(st.sampled_from(windows))
    step = tau_syn * draw(st.sampled_from(steps))
    if rule == "clocked":
        step = max(step, duration / CLOCKED_TICKS)
    kind = draw(st.sampled_from(kinds))
    sizes = [draw(st.sampled_from((1, 2, 3, 5, 17))) for _ in range(draw(st.integers(2, max_layers + 1)))]
    per_neuron = draw(st.integers(1, 4))
    drive, bias = draw(st.sampled_from(drives)), draw(st.sampled_from((0.0, 0.5, 1.5)))
    limit = draw(st.sampled_from((20, 20, 3, 1)))
    ratio = draw(st.sampled_from(ratios)) if ratios != (None,) else None
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    thresholds = [float(v) for v in rng.uniform(0.1, 1.5, len(sizes) - 1)]
    weights = [
        rng.normal(bias, 1, (post, pre)) * drive * threshold / tau_syn
        for post, pre, threshold in zip(sizes[1:], sizes[:-1], thresholds, strict=True)
    ]
    return Case(
        weights=weights,
        times=_times(rng, kind, (samples, sizes[0], per_neuron), 0.6 * duration, step),
        thresholds=thresholds,
        max_spikes=[limit] * len(weights),
        tau_syn=tau_syn,
        duration=duration,
        delta_t=0.0 if continuous else step,
        rule=rule,
        estimator=draw(st.sampled_from(estimators)),
        tau_mem=ratio and ratio * tau_syn,
    )


def random_case(seed: int, rule: str = "drop", *, sizes=(6, 5, 4, 3), samples: int = 4, **changes) -> Case:
    """A case of ordinary size without hypothesis: a window of 1.5 tau_syn, a time step of 0.06 tau_syn."""
    rng = np.random.default_rng(seed)
    shape = (samples, sizes[0], 2)
    scale = [np.sqrt(6 / n) for n in sizes[:-1]]
    case = Case(
        weights=[rng.normal(1.5, 2.5, (b, a)) * s for a, b, s in zip(sizes[:-1], sizes[1:], scale, strict=True)],
        times=np.where(rng.random(shape) < 0.8, rng.uniform(0, 0.1, shape), np.inf),
        thresholds=[0.1, 0.13, 0.2][: len(sizes) - 1],
        max_spikes=[12] * (len(sizes) - 1),
        tau_syn=0.13,
        duration=0.2,
        delta_t=0.008,
        rule=rule,
    )
    return case.replace(**changes)


def kept(times: np.ndarray) -> np.ndarray:
    """The finite times of a padded row."""
    return times[np.isfinite(times)]


COUNTERS = ("dropped", "merged", "deferred", "lost_spikes", "truncated_neurons")


def assert_same_spikes(activity: list[LayerActivity], layers: list[reference.Layer], sample: int, tolerance: float):
    """Hold what the engine did in a sample against the reference; `tolerance` is of times, in seconds."""
    for found, wanted in zip(activity, layers, strict=True):
        for name in COUNTERS:
            assert getattr(found, name)[sample] == wanted.total(name.replace("truncated_neurons", "truncated")), name
        for j, neuron in enumerate(wanted.neurons):
            n = len(neuron.crossings)
            times, discretized = found.times[sample, j], found.discretized[sample, j]
            sent = [c.sent_time(wanted.delta_t) for c in neuron.crossings]
            assert np.isinf(times[n:]).all() and np.isinf(discretized[n:]).all()
            np.testing.assert_allclose(times[:n], [c.time for c in neuron.crossings], rtol=0, atol=tolerance)
            np.testing.assert_array_equal(np.isinf(discretized[:n]), np.isinf(sent))
            # On a grid a sent time is its tick, so that it is off by a rounding or by a whole step.
            rtol, atol = (1e-6, 0) if wanted.delta_t else (0, tolerance)
            np.testing.assert_allclose(discretized[:n], sent, rtol=rtol, atol=atol)
            assert found.spike_count[sample, j] == np.isfinite(sent).sum()


def assert_same_activity(first: list[LayerActivity], second: list[LayerActivity], *, samples=slice(None)) -> None:
    """Assert that two runs did the same, bit for bit."""
    for a, b in zip(first, second, strict=True):
        for name in vars(a):
            np.testing.assert_array_equal(getattr(a, name)[samples], getattr(b, name)[samples], err_msg=name)


def loss(case: Case, backend: str) -> float:
    """Mean over samples of the sum over output spikes of error times spike time: what `gradients` derives."""
    times = case.simulate(backend)[-1].times
    return float((case.errors()[..., None] * np.where(np.isfinite(times), times, 0)).sum() / len(times))


def with_weight(case: Case, layer: int, index: tuple[int, ...], change: float) -> Case:
    weights = [w.copy() for w in case.weights]
    weights[layer][index] += change
    return case.replace(weights=weights)


def assert_gradients_of_reference(case: Case, backend: str, tolerance: float) -> int:
    """Compare sample by sample where no decision is borderline; return how many samples that were."""
    compared = 0
    errors = case.errors()
    for sample, layers in case.clear_references().items():
        how = case.estimator
        wanted = reference.gradients(layers, errors[sample], estimator=how.name, width=how.width)
        if wanted.margin < BORDERLINE["float64"]:
            continue
        compared += 1
        network, spikes = case.network(backend), case.only(sample).spikes()
        found = network.gradients(spikes, errors[[sample]], rule=case.rule, estimator=how)
        for got, gradient, magnitude in zip(found, wanted.weights, wanted.magnitude, strict=True):
            np.testing.assert_allclose(got, gradient, rtol=0, atol=tolerance * magnitude)
    return compared
