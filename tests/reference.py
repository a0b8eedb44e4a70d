"""The equations of the thesis as plain float64 loops, for the engine to be held against.

Nothing here is shared with the package, nothing is fast, and everything is done for one sample and one neuron at a
time. Equation numbers are the thesis'. A neuron's state at a time `s` is its two sums, decayed to `s` so that they
neither overflow nor lose precision on long windows:

    a = sum_z w exp((t_z - s) / tau_syn)
    b = sum_z w exp((t_z - s) / tau) - threshold / tau * sum_k exp((t_k - s) / tau)
    u(t) = tau * (b exp(-(t - s) / tau) - a exp(-2 (t - s) / tau))         eq. 4-6, with tau = 2 tau_syn

With other time constants a neuron's state is its potential and its current, and crossings are found by bisection.

Every decision (does the potential reach the threshold before the next input, on which tick does the spike leave) is
recorded with its margin: how far it was from falling the other way, as a fraction of the magnitudes that were added
up. A test leaves out samples whose margin is so small that rounding may decide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from scipy.optimize import brentq

ON_GRID = 1e-6  # a time within this fraction of a time step of a tick counts as on it


@dataclass
class Event:
    """A spike on its way to the next layer."""

    neuron: int
    time: float  # continuous
    tick: int  # 0 in continuous time
    delta_t: float

    @property
    def sent(self) -> float:
        return self.tick * self.delta_t if self.delta_t else self.time


@dataclass
class Crossing:
    """A crossing that reset its neuron."""

    time: float
    tick: int  # 0 in continuous time and for what is never sent
    sent: bool
    slope: float  # of the potential, eq. 9 in the frame of the crossing; 0: fired without an upward crossing
    reset_time: float

    def sent_time(self, delta_t: float) -> float:
        if not self.sent:
            return math.inf
        return self.tick * delta_t if delta_t else self.time


@dataclass
class Neuron:
    """What one neuron did in one sample."""

    crossings: list[Crossing] = field(default_factory=list)
    dropped: int = 0
    merged: int = 0
    deferred: int = 0
    lost_spikes: int = 0
    truncated: bool = False
    margin: float = math.inf

    def decide(self, distance: float) -> None:
        self.margin = min(self.margin, abs(distance))


@dataclass
class Layer:
    """What one layer did in one sample, and what is needed to go back through it."""

    neurons: list[Neuron]
    inputs: list[Event]
    weights: np.ndarray
    threshold: float
    tau: float
    tau_syn: float
    delta_t: float

    @property
    def margin(self) -> float:
        return min(neuron.margin for neuron in self.neurons)

    def total(self, counter: str) -> int:
        return sum(int(getattr(neuron, counter)) for neuron in self.neurons)

    def sent(self) -> list[tuple[int, Crossing]]:
        return [(j, c) for j, neuron in enumerate(self.neurons) for c in neuron.crossings if c.sent]

    def events(self) -> list[Event]:
        found = [Event(j, crossing.time, crossing.tick, self.delta_t) for j, crossing in self.sent()]
        return sorted(found, key=lambda event: event.sent)


def kernel(t: float, tau: float, tau_syn: float) -> tuple[float, float]:
    """Eq. 5, what an input of weight 1 has added to the potential after `t`, and its derivative."""
    gap = 1 / tau_syn - 1 / tau
    raised = math.exp(-t / tau) * (-math.expm1(-gap * t) / gap if gap else t)  # no difference of two large numbers
    return raised, math.exp(-t / tau_syn) - raised / tau


def potential(t: float, inputs, resets, *, threshold: float, tau_syn: float, tau: float | None = None) -> float:
    """Eq. 4-7 literally; `inputs` are pairs (sent time, weight), `resets` the neuron's own reset times."""
    tau = 2 * tau_syn if tau is None else tau
    u = 0.0
    for t_z, w in inputs:
        if t > t_z:
            u += w * kernel(t - t_z, tau, tau_syn)[0]
    for t_k in resets:
        if t > t_k:
            u -= threshold * math.exp(-(t - t_k) / tau)
    return u


class State:
    """The sums `a` and `b` at time `s`, and the sum of the magnitudes that went into them."""

    def __init__(self, tau: float) -> None:
        self.tau, self.tau_syn, self.s = tau, tau / 2, 0.0
        self.a = self.b = self.magnitude = 0.0

    def move(self, t: float) -> None:
        decay = math.exp(-(t - self.s) / self.tau)
        self.a *= decay * decay
        self.b *= decay
        self.magnitude *= decay
        self.s = t

    def receive(self, w: float) -> None:
        self.a += w
        self.b += w
        self.magnitude += abs(w)

    def reset(self, threshold: float) -> None:
        self.b -= threshold / self.tau
        self.magnitude += threshold / self.tau

    def u(self, t: float) -> float:
        decay = math.exp(-(t - self.s) / self.tau)
        return self.tau * (self.b * decay - self.a * decay * decay)

    def highest(self, end: float) -> float:
        """Highest potential from `s` to `end`."""
        values = [self.u(self.s), self.u(end)]
        if self.a > 0 and self.b > 0 and 0 < self.tau * math.log(2 * self.a / self.b) < end - self.s:
            values.append(self.tau * self.b**2 / (4 * self.a))
        return max(values)

    def scale(self, threshold: float) -> float:
        return max(threshold, self.tau * self.magnitude)


class AnyState(State):
    """The potential `v` and the current `a` at time `s`, for any time constants."""

    def __init__(self, tau: float, tau_syn: float) -> None:
        super().__init__(tau)
        self.tau_syn, self.v = tau_syn, 0.0

    def move(self, t: float) -> None:
        x = t - self.s
        self.v = self.u(t)
        self.a *= math.exp(-x / self.tau_syn)
        self.magnitude *= math.exp(-x / max(self.tau, self.tau_syn))
        self.s = t

    def receive(self, w: float) -> None:
        self.a += w
        self.magnitude += abs(w) * max(1.0, self.tau_syn / self.tau)

    def reset(self, threshold: float) -> None:
        self.v -= threshold
        self.magnitude += threshold / self.tau

    def u(self, t: float) -> float:
        return self.v * math.exp(-(t - self.s) / self.tau) + self.a * kernel(t - self.s, self.tau, self.tau_syn)[0]

    def slope(self, t: float) -> float:
        return self.a * math.exp(-(t - self.s) / self.tau_syn) - self.u(t) / self.tau

    def peak(self, end: float) -> float:
        """When the potential is highest from `s` to `end`."""
        if self.slope(self.s) > 0 > self.slope(end):
            return brentq(self.slope, self.s, end, xtol=1e-16, rtol=1e-15)
        return end if self.u(end) > self.u(self.s) else self.s

    def highest(self, end: float) -> float:
        return self.u(self.peak(end))


def bisection(state: AnyState, end: float, threshold: float) -> tuple[float, float] | None:
    """Time and slope of the upward crossing after `s` and not after `end`, for any time constants."""
    peak = state.peak(end)
    if not state.u(state.s) < threshold < state.u(peak):
        return None
    t = brentq(lambda t: state.u(t) - threshold, state.s, peak, xtol=1e-16, rtol=1e-15)
    return (t, state.slope(t)) if t > state.s else None


def closed_form(state: State, end: float, threshold: float) -> tuple[float, float] | None:
    """Eq. 8 and 9: time and slope of the upward crossing after `s` and not after `end`."""
    c = threshold / state.tau
    square = state.b**2 - 4 * state.a * c
    if not square > 0:
        return None
    x = math.sqrt(square)
    if state.b + x == 0:
        return None
    y = 2 * state.a / (state.b + x)
    if not (y > 0 and math.isfinite(y)):
        return None
    t = state.s + state.tau * math.log(y)
    return (t, x / y) if state.s < t <= end else None


def ode(state: State, end: float, threshold: float) -> tuple[float, float] | None:
    """Eq. 1 and 2 by a solver that finds events, in place of the closed form."""
    tau, tau_syn = state.tau, state.tau_syn

    def slopes(_, v):
        return [-v[0] / tau + v[1], -v[1] / tau_syn]

    def reaches(_, v):
        return v[0] - threshold

    reaches.direction, reaches.terminal = 1, True
    found = solve_ivp(
        slopes,
        (state.s, end),
        [state.u(state.s), state.a],
        method="DOP853",
        events=reaches,
        rtol=1e-12,
        atol=1e-14 * threshold,
        max_step=min(tau, tau_syn) / 10,
    )
    if not len(found.t_events[0]):
        return None
    t, v = found.t_events[0][0], found.y_events[0][0]
    return t, slopes(t, v)[0]


def simulate_layer(
    inputs: list[Event],
    weights: np.ndarray,
    *,
    threshold: float,
    max_spikes: int,
    tau_syn: float,
    duration: float,
    tau: float | None = None,
    rule: str = "drop",
    delta_t: float = 0.0,
    solve=closed_form,
) -> Layer:
    """Run one sample through one layer; `weights` is (post, pre)."""
    one = simulate_clocked_neuron if rule == "clocked" else simulate_neuron
    tau = 2 * tau_syn if tau is None else tau
    settings = dict(threshold=threshold, max_spikes=max_spikes, tau=tau, tau_syn=tau_syn, duration=duration)
    settings["delta_t"] = delta_t
    if rule != "clocked":
        settings |= dict(rule=rule, solve=bisection if solve is closed_form and tau != 2 * tau_syn else solve)
    groups: list[tuple[float, list[Event]]] = []
    for event in sorted(inputs, key=lambda event: event.sent):
        if event.sent > duration:
            break
        if not groups or groups[-1][0] != event.sent:
            groups.append((event.sent, []))
        groups[-1][1].append(event)
    neurons = []
    for row in np.asarray(weights, float):
        arrivals = [(time, group[0].tick, [float(row[e.neuron]) for e in group]) for time, group in groups]
        neurons.append(one(arrivals, **settings))
    return Layer(neurons, inputs, np.asarray(weights, float), threshold, tau, tau_syn, delta_t)


def simulate_neuron(arrivals, *, threshold, max_spikes, tau, tau_syn, duration, delta_t, rule, solve) -> Neuron:
    """Closed form between inputs, with what the collision rule says at each crossing."""
    neuron, state = Neuron(), State(tau) if tau == 2 * tau_syn else AnyState(tau, tau_syn)
    last_tick = None  # of the last spike that was sent (or is in the queue)
    window_tick = math.ceil(duration / delta_t - ON_GRID) if delta_t else 0
    for i, (time, _, weights) in enumerate(arrivals):
        state.move(time)
        for w in weights:
            state.receive(w)
        end = min(arrivals[i + 1][0], duration) if i + 1 < len(arrivals) else duration
        while state.s < end:
            scale, highest = state.scale(threshold), state.highest(end)
            neuron.decide((highest - threshold) / scale)
            if highest >= threshold:
                neuron.decide((state.u(state.s) - threshold) / scale)
            found = solve(state, end, threshold)
            if found is None:
                break
            t, slope = found
            tick, sent, collides = 0, True, False
            if delta_t:
                phase = t / delta_t
                tick = math.floor(phase + ON_GRID) + 1
                nearest = abs(phase + ON_GRID - round(phase + ON_GRID))
                if last_tick is not None:
                    collides = phase - ON_GRID <= last_tick
                    nearest = min(nearest, abs(phase - ON_GRID - last_tick))
                neuron.decide(nearest / max(1, phase))
                neuron.decide(nearest * delta_t * slope / scale)
            if collides and rule == "drop":
                neuron.dropped += 1
                break  # above the threshold; in this interval the potential can only come down
            if collides and rule == "merge":
                neuron.merged += 1
                sent = False
            if collides and rule == "defer":
                neuron.deferred += 1
                tick = max(tick, last_tick + 1)
                if tick > window_tick:
                    neuron.lost_spikes += 1
                    sent = False
            if sent:
                last_tick = tick
            neuron.crossings.append(Crossing(t, tick if sent else 0, sent, slope, t))
            if len(neuron.crossings) == max_spikes:
                neuron.truncated = True
                return neuron
            state.move(t)
            state.reset(threshold)
    return neuron


def simulate_clocked_neuron(arrivals, *, threshold, max_spikes, tau, tau_syn, duration, delta_t) -> Neuron:
    """Rule `clocked` tick by tick: eq. 1 and 2 by the exact propagator of one time step (a matrix exponential)."""
    neuron = Neuron()
    flow = np.array([[-1 / tau, 1.0], [0.0, -1 / tau_syn]])
    step = expm(flow * delta_t)
    arriving = {tick: weights for _, tick, weights in arrivals}
    v = np.zeros(2)  # potential and current
    magnitude = 0.0
    for k in range(math.floor(duration / delta_t + ON_GRID) + 1):
        before, v = v, step @ v if k else v
        magnitude *= math.exp(-delta_t / max(tau, tau_syn))
        scale = max(threshold, tau * magnitude)
        if k and magnitude:
            neuron.decide((v[0] - threshold) / scale)
        if v[0] >= threshold:
            neuron.decide((before[0] - threshold) / scale)
            time, slope = k * delta_t, 0.0
            if before[0] < threshold:
                time, slope = _crossing_within(flow, before, (k - 1) * delta_t, delta_t, threshold)
            neuron.crossings.append(Crossing(time, k, True, slope, k * delta_t))
            if len(neuron.crossings) == max_spikes:
                neuron.truncated = True
                return neuron
            v = v - [threshold, 0.0]
            magnitude += threshold / tau
        for w in arriving.get(k, []):
            v = v + np.array([0.0, w])
            magnitude += abs(w) * max(1.0, tau_syn / tau)
    return neuron


def _crossing_within(flow, v, start, delta_t, threshold) -> tuple[float, float]:
    """Time and slope where the potential crosses upward in a tick at whose end it is above the threshold."""
    if flow[0, 0] == flow[1, 1]:  # a matrix with a single eigenvector
        share = brentq(lambda share: (expm(flow * delta_t * share) @ v)[0] - threshold, 0, 1, xtol=1e-15)
        return start + share * delta_t, (flow @ expm(flow * delta_t * share) @ v)[0]
    rates, modes = (np.real(part) for part in np.linalg.eig(flow))  # of a matrix with real eigenvalues
    (r, q), (p, m) = rates.tolist(), (modes[0] * np.linalg.solve(modes, v)).tolist()

    def above(share: float) -> float:
        return p * math.exp(r * delta_t * share) + m * math.exp(q * delta_t * share) - threshold

    share = brentq(above, 0, 1, xtol=1e-15) if above(1) > 0 else 1.0
    slope = r * p * math.exp(r * delta_t * share) + q * m * math.exp(q * delta_t * share)
    return start + share * delta_t, slope


def simulate(inputs: list[Event], weights, *, thresholds, max_spikes, **settings) -> list[Layer]:
    """Run one sample through all layers."""
    layers: list[Layer] = []
    for w, threshold, limit in zip(weights, thresholds, max_spikes, strict=True):
        events = layers[-1].events() if layers else inputs
        layers.append(simulate_layer(events, w, threshold=threshold, max_spikes=limit, **settings))
    return layers


def simulate_with_delays(layers: list[Layer], weights) -> list[Layer]:
    """Crossings for slightly other weights if every spike keeps the delay from crossing to sending that it had.

    Eq. 4-7 literally, with the inputs and resets that came before each crossing in `layers`.
    """
    moved: list[Layer] = []
    for layer, w in zip(layers, weights, strict=True):
        inputs = layer.inputs
        if moved:
            places = {
                (j, c.time): (j, k)
                for j, n in enumerate(layers[len(moved) - 1].neurons)
                for k, c in enumerate(n.crossings)
            }
            new = [places[e.neuron, e.time] for e in inputs]
            times = [moved[-1].neurons[j].crossings[k].time for j, k in new]
        else:
            times = [e.time for e in inputs]
        sent = [time + e.sent - e.time for time, e in zip(times, inputs, strict=True)]
        neurons = []
        for j, neuron in enumerate(layer.neurons):
            crossings: list[Crossing] = []
            for old in neuron.crossings:
                before = [(s, w[j, e.neuron]) for s, e in zip(sent, inputs, strict=True) if e.sent < old.time]
                resets = [c.reset_time for c in crossings]

                def above(t: float, before=before, resets=resets, layer=layer) -> float:
                    return (
                        potential(t, before, resets, threshold=layer.threshold, tau_syn=layer.tau_syn, tau=layer.tau)
                        - layer.threshold
                    )

                time = brentq(above, old.time - 3e-5, old.time + 3e-5, xtol=1e-16, rtol=1e-15)
                crossings.append(Crossing(time, old.tick, old.sent, old.slope, time))
            neurons.append(Neuron(crossings))
        moved.append(Layer(neurons, inputs, w, layer.threshold, layer.tau, layer.tau_syn, layer.delta_t))
    return moved


def put_on_grid(times: np.ndarray, delta_t: float) -> list[Event]:
    """Input events of one sample from (neuron, spike) times, eq. 14; `inf` is no spike."""
    events = []
    for neuron, row in enumerate(times):
        for t in row:
            if math.isfinite(t):
                tick = math.floor(t / delta_t + ON_GRID) + 1 if delta_t else 0
                events.append(Event(neuron, float(t), tick, delta_t))
    return sorted(events, key=lambda event: event.sent)


def input_margin(times: np.ndarray, delta_t: float) -> float:
    """How far the ticks of inputs are from being others."""
    if not delta_t:
        return math.inf
    phase = np.asarray(times)[np.isfinite(times)] / delta_t + ON_GRID
    return float(np.min(np.abs(phase - np.round(phase)) / np.maximum(1, phase), initial=math.inf))


@dataclass
class Gradient:
    """Weight gradients of one sample, and the margin of the decisions which spike came before which."""

    weights: list[np.ndarray]
    margin: float
    magnitude: list[float]  # largest sum of absolute values that went into one entry


def gradients(layers: list[Layer], output_errors, *, estimator: str = "straight_through", width: float = 1) -> Gradient:
    """Eq. 11-16, from the last layer to the first.

    What came before a crossing is what crossed before it (straight through, eq. 15-16) or, with the other estimators,
    what was sent before it. The surrogate multiplies the error of a spike by the slope of its smooth time grid.

    Everything is in the frame of the postsynaptic crossing: with E_z = exp((sent_z - t_k) / tau) and x_k the slope
    there, eq. 12 has f = tau / a (1 + c / x) and h = tau / x. Inside that frame y = 1 and a = x + c. With other time
    constants the derivatives of the crossing condition u(t_k) = threshold are those of eq. 5.
    """
    margin = math.inf
    found: list[np.ndarray] = []
    magnitude: list[float] = []
    outside = [
        [float(output_errors[j]) if c.sent else 0.0 for c in n.crossings] for j, n in enumerate(layers[-1].neurons)
    ]
    for layer in reversed(layers):
        tau, tau_syn, c = layer.tau, layer.tau_syn, layer.threshold / layer.tau
        gradient, size = np.zeros_like(layer.weights), np.zeros_like(layer.weights)
        below = np.zeros(len(layer.inputs))
        for j, neuron in enumerate(layer.neurons):
            errors = list(outside[j])
            for k in reversed(range(len(neuron.crossings))):
                post = neuron.crossings[k]
                if post.slope == 0:
                    continue  # fired without an upward crossing: no derivative
                # Intra-neuron part of eq. 13, from the resets that this crossing came after.
                for earlier in range(k):
                    distance = neuron.crossings[earlier].reset_time - post.time
                    errors[earlier] += errors[k] * c / post.slope * math.exp(distance / tau)
                a = post.slope + c
                f, h = tau / a * (1 + c / post.slope), tau / post.slope
                for z, pre in enumerate(layer.inputs):
                    if estimator == "straight_through":
                        if pre.time != post.time:
                            margin = min(margin, abs(pre.time - post.time) / max(tau, post.time))
                        if not pre.time < post.time:
                            continue
                    else:
                        # A clocked neuron has not got what is sent on the tick on which it fires.
                        margin = min(margin, abs(pre.sent - post.time) / max(tau, post.time))
                        if not pre.sent < post.time:
                            continue
                    if tau != 2 * tau_syn:
                        raised, raising = kernel(post.time - pre.sent, tau, tau_syn)
                        scaled = errors[k] / post.slope
                        gradient[j, pre.neuron] -= scaled * raised
                        size[j, pre.neuron] += abs(scaled) * max(abs(raised), tau, tau_syn)
                        below[z] += layer.weights[j, pre.neuron] * scaled * raising
                        continue
                    e = math.exp((pre.sent - post.time) / tau)
                    gradient[j, pre.neuron] += errors[k] * (f * e * e - h * e)
                    size[j, pre.neuron] += abs(errors[k]) * (f * e * e + h * e)
                    below[z] += layer.weights[j, pre.neuron] * errors[k] * (f * e * e / (tau / 2) - h * e / tau)
        found.append(gradient)
        magnitude.append(float(size.max(initial=0.0)))
        if estimator == "surrogate" and layer.delta_t:
            below *= [smooth_slope(pre.time, layer.delta_t, width) for pre in layer.inputs]
        outside = _errors_of_crossings(layers, layer, below)
    return Gradient(found[::-1], margin, magnitude[::-1])


def smooth_slope(time: float, delta_t: float, width: float) -> float:
    """Derivative of the time grid with each of its jumps spread out as a Cauchy density, added up jump by jump."""
    phase, n = time / delta_t, 3000
    distance = phase - round(phase) - np.arange(-n, n + 1)
    return float(np.sum(width / np.pi / (distance**2 + width**2))) + 2 * width / np.pi / (n + 0.5)  # and the far ones


def _errors_of_crossings(layers: list[Layer], layer: Layer, below: np.ndarray) -> list[list[float]]:
    """Hand the errors of a layer's inputs to the crossings of the layer below that sent them."""
    index = next(i for i, other in enumerate(layers) if other is layer)
    if index == 0:
        return []
    source = layers[index - 1]
    errors = [[0.0] * len(neuron.crossings) for neuron in source.neurons]
    for event, error in zip(layer.inputs, below, strict=True):
        # A time names one crossing of a neuron: own crossings follow one another strictly.
        [k] = [k for k, c in enumerate(source.neurons[event.neuron].crossings) if c.sent and c.time == event.time]
        errors[event.neuron][k] += error
    return errors


def loss(counts, label: int, *, target_true: float, target_false: float) -> float:
    """Eq. 10, for the spike counts of one sample."""
    targets = [target_true if j == label else target_false for j in range(len(counts))]
    return sum(0.5 * (y - n) ** 2 for y, n in zip(targets, counts, strict=True))
