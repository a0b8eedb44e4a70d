"""What a platform makes of a network: one table of clocks, and the simulator that runs any graph on any of them.

A clock is more than a step. In each tick a platform decays its states, adds the input, tests the threshold and resets,
in an order of its own and with numbers of its own; :class:`Profile` names those choices, :data:`PLATFORMS` is the
table. Step `k` is the tick whose result is known at ``(k + 1) * delta_t``: a spike in ``[k Δt, (k + 1) Δt)`` belongs to
step `k`, so that a spike of step `k` is sent at the time of eq. 14.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from bats_lab.network.graphs import INPUT, RESETS, Graph, Population
from bats_lab.spikes.grid import first_tick_from, to_ticks
from bats_lab.spikes.trains import Spikes

__all__ = ["PLATFORMS", "Profile", "Response", "profile_named", "simulate"]

STAGES = ("synapse", "input", "membrane", "threshold", "reset")
_MAX_PLACES = 2**27  # places of the largest table of spikes kept at a time


@dataclass(frozen=True)
class Profile:
    """How a platform advances a neuron by one tick.

    Attributes
    ----------
    name, source : str
        Its name, and where the choices are written.
    order : tuple of str
        The five stages of a tick in their order: ``synapse`` (the current decays), ``input`` (spikes are
        added to it), ``membrane`` (the potential decays and takes up the current), ``threshold``, ``reset``.
    decay, gain : str
        ``exponential`` or ``euler`` (at most all): the factor by which states decay in a tick, and how much an input
        adds: as a current that lasts the tick, or as Euler's step has it. `gain` ``exact``: a pulse as the tick starts.
    reset : str or None
        ``zero`` or ``subtract``; None: what the network asks for.
    delay, recurrent_delay : int
        Ticks that a spike takes from one layer to the next, and that a recurrent one takes at least.
    inclusive : bool
        Whether a potential on the threshold fires.
    spikes_per_tick : int
        Most spikes of a neuron in a tick; 0: as many as the potential holds thresholds.
    floor : float
        Lowest potential, in thresholds.
    dtype : str
        ``float64`` or ``float32``; fixed point needs ``float64`` to be exact.
    weight_bits, decay_bits, state_bits : int or None
        Word lengths, sign included, of weights, decay factors, and of current and potential; None: floating point.
    state_shift : int
        Bits by which states are finer than weights.
    saturates : bool
        Whether what leaves its word is cut off (weights, potentials) or wraps around (currents).
    rounding : str
        ``nearest`` or ``truncate`` (towards zero), for weights.
    step : float or None
        Potential that the smallest weight adds in a tick; None: the largest weight of a layer just fits.

    Examples
    --------
    >>> from dataclasses import replace
    >>> mine = replace(profile_named("loihi"), name="mine", weight_bits=4, reset="subtract")
    >>> mine.decay, mine.weight_bits, mine.delay
    ('euler', 4, 1)
    """

    name: str
    source: str = ""
    order: tuple[str, ...] = STAGES
    decay: str = "exponential"
    gain: str = "exponential"
    reset: str | None = None
    delay: int = 0
    recurrent_delay: int = 1
    inclusive: bool = False
    spikes_per_tick: int = 1
    floor: float = -np.inf
    dtype: str = "float64"
    weight_bits: int | None = None
    decay_bits: int | None = None
    state_bits: int | None = None
    state_shift: int = 0
    saturates: bool = True
    rounding: str = "nearest"
    step: float | None = None

    def __post_init__(self) -> None:
        if sorted(self.order) != sorted(STAGES) or self.order.index("threshold") > self.order.index("reset"):
            raise ValueError(f"order is {self.order}; it must hold {', '.join(STAGES)}, a reset after the threshold.")
        choices = {
            "decay": ("exponential", "euler"),
            "gain": ("exponential", "euler", "exact"),
            "reset": (None, *RESETS),
            "rounding": ("nearest", "truncate"),
            "dtype": ("float32", "float64"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {allowed}.")
        for name in ("weight_bits", "decay_bits", "state_bits"):
            if getattr(self, name) is not None and not 2 <= getattr(self, name) <= 48:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be None or from 2 to 48.")
        if self.state_bits and not self.weight_bits:
            raise ValueError("state_bits needs weight_bits: potentials are multiples of the smallest weight.")


_LATE = ("input", "synapse", "membrane", "threshold", "reset")
_LAVA = "lava-nc/lava, src/lava/proc/lif/models.py"
_LOIHI: dict[str, Any] = {
    "decay": "euler",
    "gain": "euler",
    "reset": "zero",
    "delay": 1,
    "weight_bits": 8,
    "decay_bits": 12,
    "state_bits": 24,
    "state_shift": 6,
    "rounding": "truncate",
}

#: The platforms by name: `exact` is continuous time (:mod:`bats_lab.network.exact`), `ideal` the best a clock can do.
PLATFORMS: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile("exact", "continuous time, no clock", spikes_per_tick=0, inclusive=True),
        Profile(
            "ideal",
            "the exact solution from tick to tick (eq. 1-3)",
            order=("input", "membrane", "synapse", "threshold", "reset"),
            gain="exact",
            spikes_per_tick=0,
            inclusive=True,
        ),
        Profile(
            "norse",
            "norse/norse, norse/torch/functional/lif_box.py and lif.py",
            order=("input", "membrane", "synapse", "threshold", "reset"),
            decay="euler",
            gain="euler",
            reset="zero",
            dtype="float32",
        ),
        Profile(
            "snntorch",
            "jeshraghian/snntorch, snntorch/_neurons/leaky.py and synaptic.py (reset_delay=False), import_nir.py",
            decay="euler",
            gain="euler",
            dtype="float32",
        ),
        Profile(
            "sinabs",
            "synsense/sinabs, sinabs/layers/functional/lif.py, sinabs/activation (MultiSpike)",
            order=_LATE,
            gain="euler",
            reset="subtract",
            inclusive=True,
            spikes_per_tick=0,
            dtype="float32",
        ),
        Profile(
            "rockpool",
            "synsense/rockpool, rockpool/nn/modules/torch/lif_torch.py",
            order=_LATE,
            gain="euler",
            reset="subtract",
            spikes_per_tick=0,
            dtype="float32",
        ),
        Profile(
            "spyx",
            "kmheckel/spyx, src/spyx/nn.py (LIF: spikes of the potential before the update)",
            order=("threshold", "synapse", "input", "membrane", "reset"),
            decay="euler",
            gain="euler",
            reset="subtract",
            dtype="float32",
        ),
        Profile("nengo", "nengo/nengo, nengo/neurons.py (LIF.step, tau_ref 0)", reset="zero", floor=0.0),
        Profile("lava_float", f"{_LAVA} (PyLifModelFloat)", decay="euler", gain="euler", reset="zero", delay=1),
        Profile("lava_fixed", f"{_LAVA} (PyLifModelBitAcc)", **_LOIHI),
        Profile("loihi", f"the chip that {_LAVA} (PyLifModelBitAcc) is bit-accurate with", **_LOIHI),
        Profile(
            "spinnaker2",
            "spinnaker2/py-spinnaker2, s2_nir.py; NIR paper, paper/01_lif/lif_spinnaker2.py",
            decay="euler",
            gain="euler",
            dtype="float32",
            weight_bits=8,
        ),
    )
}


def profile_named(name: str) -> Profile:
    """Return a platform of the table.

    Raises
    ------
    ValueError
        If there is none of this name.
    """
    if name not in PLATFORMS:
        raise ValueError(f"platform is {name!r}; it must be one of {', '.join(PLATFORMS)}.")
    return PLATFORMS[name]


@dataclass(frozen=True)
class Response:
    """What a graph did.

    Attributes
    ----------
    spikes : dict of str to Spikes
        Of each population; on a clock `ticks` are steps + 1. Spikes of one neuron in one tick are listed singly.
    potential : dict of str to ndarray, (sample, neuron, step)
        Potential at the end of each step, of the populations that were asked for.
    """

    spikes: dict[str, Spikes]
    potential: dict[str, np.ndarray] = field(default_factory=dict)


def simulate(
    graph: Graph,
    spikes: Spikes,
    platform: str | Profile | Mapping[str, Profile] = "exact",
    *,
    delta_t: float,
    duration: float,
    record: Collection[str] = (),
    forced: Mapping[str, Spikes] | None = None,
) -> Response:
    """Run samples through a graph on a platform.

    Parameters
    ----------
    graph : Graph
        The network.
    spikes : Spikes
        Input spikes; their continuous times count.
    platform : str, Profile, or dict of str to Profile
        A name of :data:`PLATFORMS`, a profile of one's own, or one for each population.
    delta_t : float
        Clock in seconds. Continuous time has none; it is the spacing of recorded potentials there.
    duration : float
        Length of the window in seconds.
    record : collection of str
        Populations whose potential is kept.
    forced : dict of str to Spikes, or None
        Spikes that populations are taken to have sent, in place of their own, to what follows them.

    Returns
    -------
    Response

    Raises
    ------
    ValueError
        If the inputs are not as many as the graph's, or a number is out of range.

    Examples
    --------
    >>> from bats_lab.network.graphs import INPUT, Connection, Graph, Population
    >>> neuron = Population("lif", 1, tau_mem=0.0025, threshold=0.1, kick=0.04)
    >>> graph = Graph(1, [neuron], [Connection(INPUT, "lif", np.array([[1.0]]))], pulse=1e-4)
    >>> inputs = Spikes.from_padded(np.array([[[0.001, 0.0011, 0.0012, 0.0013]]]))
    >>> for name in ("exact", "snntorch", "loihi"):
    ...     print(name, simulate(graph, inputs, name, delta_t=1e-4, duration=0.01).spikes["lif"].times.round(6))
    exact [0.001263]
    snntorch [0.0013]
    loihi [0.0014]
    """
    if spikes.n_neurons != graph.n_inputs:
        raise ValueError(f"spikes come from {spikes.n_neurons} neurons; the graph has {graph.n_inputs} inputs.")
    for name, value in (("delta_t", delta_t), ("duration", duration)):
        if not 0 < value < np.inf:
            raise ValueError(f"{name} is {value}; it must be a time above 0.")
    if isinstance(platform, Mapping):
        profiles = dict(platform)
        missing = [p.name for p in graph.populations if p.name not in profiles]
        if missing:
            raise ValueError(f"platform has no profile for {', '.join(missing)}; it must have one for each population.")
    else:
        profile = profile_named(platform) if isinstance(platform, str) else platform
        if profile.name == "exact":
            from bats_lab.network.exact import simulate_exactly

            return simulate_exactly(graph, spikes, duration=duration, delta_t=delta_t, record=record)
        profiles = {p.name: profile for p in graph.populations}
    n_steps = first_tick_from(duration, delta_t)
    layers = [_Layer(graph, p, profiles[p.name], delta_t) for p in graph.populations]
    given = {INPUT: spikes, **(forced or {})}
    busiest = n_steps * (graph.n_inputs + sum(p.size for p in graph.populations))
    part = max(1, _MAX_PLACES // busiest)
    runs = [
        _run(graph, layers, given, np.arange(begin, min(begin + part, len(spikes))), n_steps, delta_t, record)
        for begin in range(0, len(spikes), part)
    ]
    return Response(
        {p.name: _spikes([run[p.name] for run in runs], delta_t) for p in graph.populations},
        {name: np.concatenate([run[f"potential of {name}"] for run in runs]) for name in record},
    )


def steps_of(spikes: Spikes, samples: np.ndarray, n_steps: int, delta_t: float) -> np.ndarray:
    """Return how often each neuron fired in each step, (step, sample, neuron); later spikes are left out."""
    sample, neuron, times = spikes.events(sent=spikes.delta_t == delta_t)
    step = np.rint(times / delta_t).astype(np.int64) if spikes.delta_t == delta_t else to_ticks(times, delta_t)
    kept = (sample >= samples[0]) & (sample <= samples[-1]) & (step <= n_steps)
    counts = np.zeros((n_steps, len(samples), spikes.n_neurons), np.uint8)
    np.add.at(counts, (step[kept] - 1, sample[kept] - samples[0], neuron[kept]), 1)
    return counts


def _spikes(counts: list[np.ndarray], delta_t: float) -> Spikes:
    """Return counts (step, sample, neuron) of consecutive parts as spike trains."""
    whole = np.concatenate([c.transpose(1, 0, 2) for c in counts])
    sample, step, neuron = np.nonzero(whole)
    times = whole[sample, step, neuron]
    sample, step, neuron = (np.repeat(x, times) for x in (sample, step, neuron))
    count = np.bincount(sample, minlength=len(whole)).astype(np.int64)
    ticks = (step + 1).astype(np.int32)
    return Spikes(
        np.cumsum(count) - count, count, neuron.astype(np.int32), ticks * delta_t, ticks, whole.shape[2], delta_t
    )


def kernel_area(x: float, rate: np.ndarray) -> np.ndarray:
    """Return the integral of ``exp(-rate * t)`` from 0 to `x`."""
    safe = np.where(rate == 0, 1.0, rate)
    return np.where(rate == 0, x, -np.expm1(-safe * x) / safe)


class _Layer:
    """A population as one platform has it: its factors for one tick, and its weights in the platform's words."""

    def __init__(self, graph: Graph, population: Population, profile: Profile, delta_t: float) -> None:
        p, self.population, self.profile = population, population, profile
        self.order = profile.order
        leak_rate = 1 / p.tau_mem
        syn_rate = 1 / p.tau_syn if p.has_synapse else np.zeros(p.size)
        area = kernel_area(delta_t, leak_rate)
        # What one unit of current adds to the potential in a tick, and what one spike adds to the current.
        taken = np.full(p.size, delta_t) if profile.gain == "euler" else area
        spread: Any = 1.0
        lost = [delta_t * r if profile.decay == "euler" else -np.expm1(-delta_t * r) for r in (leak_rate, syn_rate)]
        lost = [np.minimum(x, 1.0) for x in lost]
        if p.has_synapse and profile.gain == "exact":
            taken = np.exp(-leak_rate * delta_t) * kernel_area(delta_t, syn_rate - leak_rate)
        elif p.has_synapse and profile.gain == "exponential":
            spread = kernel_area(delta_t, syn_rate) / delta_t
        elif not p.has_synapse:
            lost[1], spread = np.ones(p.size), 1.0 / delta_t
            # A current without a synapse lasts one tick: it is gone before the input comes.
            self.order = ("synapse", *(stage for stage in profile.order if stage != "synapse"))
        # Currents are kept as what they add to the potential in a tick.
        scale = taken * spread * p.kick
        weights = [
            c.weights.multiply(scale[:, None]).tocsr() if sparse.issparse(c.weights) else scale[:, None] * c.weights
            for c in graph.incoming(p.name)
        ]
        bias = taken * p.drive * (lost[1] if p.has_synapse else 1.0)
        self.leak = p.v_leak * lost[0]
        self.early = p.has_synapse and profile.gain == "exact"
        if self.early:
            self.leak = self.leak + p.drive * (area - taken)
        self.unit, threshold = 1.0, p.threshold
        if profile.weight_bits:
            largest = max((abs(w).max() for w in weights if w.size), default=0.0) or 1.0
            word = 2 ** (profile.weight_bits - 1) - 1
            step = profile.step or largest / word
            to_words = np.rint if profile.rounding == "nearest" else np.trunc

            def quantized(values: np.ndarray) -> np.ndarray:
                # What is a whole number of steps but for its own rounding is that number.
                words = to_words(values / step * (1 + 1e-12))
                return np.clip(words, -word - 1, word) if profile.saturates else words

            fine = float(2**profile.state_shift)
            self.unit = step / fine
            weights = [_mapped(w, quantized) * fine for w in weights]
            self.leak = self.leak / self.unit
            bias = bias / self.unit
            threshold = threshold / self.unit
            if profile.state_bits:
                self.leak, bias = to_words(self.leak), to_words(bias)
                threshold = to_words(threshold / fine) * fine
        if profile.decay_bits:
            one = 2**profile.decay_bits
            # Loihi's words: d of 4096 are lost, d a whole number; one more of the current (its register ds_offset).
            lost = [np.trunc(x * (one - 1)) / one for x in lost]
            lost[1] = np.minimum(lost[1] + 1 / one, 1.0)
        kind = profile.dtype
        self.kept = [(1 - x).astype(kind) for x in lost]
        self.bias, self.leak, self.threshold = (np.asarray(x).astype(kind) for x in (bias, self.leak, threshold))
        self.v_reset = (p.v_reset / self.unit).astype(kind)
        self.floor = profile.floor * self.threshold if np.isfinite(profile.floor) and p.fires else None
        self.reset = profile.reset or p.reset
        self.whole = profile.state_bits is not None
        self.limit = 2.0 ** (profile.state_bits - 1) - 1 if profile.state_bits and profile.saturates else None
        ticks = [
            np.rint(c.delay / delta_t).astype(np.int64)
            + (max(profile.delay, profile.recurrent_delay) if graph.is_recurrent(c) else profile.delay)
            for c in graph.incoming(p.name)
        ]
        # (pre, post): in a tick few neurons fire, and the rows of those that do lie in one piece.
        weights = [w.T.tocsr().astype(kind) if sparse.issparse(w) else np.ascontiguousarray(w.T, kind) for w in weights]
        self.inputs = list(zip((c.source for c in graph.incoming(p.name)), weights, ticks, strict=True))

    def start(self, n_samples: int) -> None:
        """Put all states to rest."""
        shape = (n_samples, self.population.size)
        self.current, self.potential = (np.zeros(shape, self.profile.dtype) for _ in range(2))
        self.potential += self.population.v_leak / self.unit
        if self.early:  # the drive enters the current at the end of a tick, not at its start
            self.current -= self.bias
        self.fired, self.total = np.zeros(shape, np.uint8), np.zeros(shape, np.int64)

    def tick(self, arriving: np.ndarray) -> np.ndarray:
        """Advance by one tick and return how often each neuron fired."""
        for stage in self.order:
            getattr(self, f"_{stage}")(arriving)
        return self.fired

    def _synapse(self, _: np.ndarray) -> None:
        self.current = self._rounded(self.current * self.kept[1])

    def _input(self, arriving: np.ndarray) -> None:
        self.current += arriving + self.bias
        if self.limit is not None:  # currents wrap around
            over = np.abs(self.current) > self.limit + 1
            self.current[over] -= np.sign(self.current[over]) * 2 * (self.limit + 1)

    def _membrane(self, _: np.ndarray) -> None:
        self.potential = self._rounded(self.potential * self.kept[0]) + self.current + self.leak
        if self.limit is not None:  # potentials saturate
            np.clip(self.potential, -self.limit, self.limit, out=self.potential)
        if self.floor is not None:
            np.maximum(self.potential, self.floor, out=self.potential)

    def _threshold(self, _: np.ndarray) -> None:
        over = self.potential >= self.threshold if self.profile.inclusive else self.potential > self.threshold
        self.fired = over.astype(np.uint8)
        if self.profile.spikes_per_tick != 1 and over.any():
            most = self.profile.spikes_per_tick or 255
            held = (
                1.0
                if self.reset == "zero"
                else self.potential[over] / np.broadcast_to(self.threshold, over.shape)[over]
            )
            self.fired[over] = np.clip(held, 1, most)
        if self.population.max_spikes:
            self.fired = np.minimum(self.fired, self.population.max_spikes - self.total).astype(np.uint8)
            self.total += self.fired

    def _reset(self, _: np.ndarray) -> None:
        fired = self.fired > 0
        if not fired.any():
            return
        if self.reset == "zero":
            self.potential = np.where(fired, self.v_reset, self.potential)
        else:
            down = np.where(fired, self.threshold, self.threshold.dtype.type(0))
            self.potential -= self.fired.astype(self.potential.dtype) * down

    def _rounded(self, states: np.ndarray) -> np.ndarray:
        return np.trunc(states) if self.whole else states


def _mapped(weights: Any, function: Any) -> Any:
    if isinstance(weights, np.ndarray):
        return function(weights)
    weights = weights.copy()
    weights.data = function(weights.data)
    return weights


def _run(
    graph: Graph,
    layers: list[_Layer],
    given: Mapping[str, Spikes],
    samples: np.ndarray,
    n_steps: int,
    delta_t: float,
    record: Collection[str],
) -> dict[str, np.ndarray]:
    """Run some samples; return the spikes of each population in each step (step, sample, neuron), and potentials."""
    own = {p.name: np.zeros((n_steps, len(samples), p.size), np.uint8) for p in graph.populations}
    sent = own | {name: steps_of(trains, samples, n_steps, delta_t) for name, trains in given.items()}
    traces = {name: np.zeros((len(samples), graph[name].size, n_steps)) for name in record}
    for layer in layers:
        layer.start(len(samples))
    for step in range(n_steps):
        for layer in layers:
            name = layer.population.name
            arriving: Any = layer.potential.dtype.type(0)
            for source, weights, delay in layer.inputs:
                arriving = arriving + _arriving(sent[source], step, delay, weights)
            own[name][step] = layer.tick(arriving)
            if name in traces:
                traces[name][:, :, step] = layer.potential * layer.unit
    return own | {f"potential of {name}": trace for name, trace in traces.items()}


def _arriving(sent: np.ndarray, step: int, delay: np.ndarray, weights: Any) -> np.ndarray:
    """Return the weighted spikes that arrive in a step, (sample, post)."""
    first = int(delay[0]) if len(delay) else 0
    if (delay == first).all():
        if step < first or not sent[step - first].any():
            return np.zeros(1, weights.dtype)
        now = sent[step - first]
    else:
        now = np.where(step >= delay, sent[np.maximum(step - delay, 0), :, np.arange(len(delay))].T, 0)
    fired = np.flatnonzero(now.any(axis=0))
    return now[:, fired].astype(weights.dtype) @ weights[fired]
