"""Why a platform's spikes differ from those of continuous time: each lost, added or moved spike gets its cause.

Every population is run alone, fed with the spikes that those before it send in continuous time. Where it then fires
as it should, the difference came from *upstream*. Where it does not, the properties of the platform are put to those
of the ideal clock one at a time: the one that gives back what the ideal clock does is the cause. Where there is none,
several are enough each: the ideal clock is given them one at a time, and the first that changes the spike is the cause.
What the ideal clock itself cannot keep is *rounding of time*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from bats_lab.network.graphs import Graph
from bats_lab.network.platforms import PLATFORMS, STAGES, Profile, Response, profile_named, simulate, steps_of
from bats_lab.spikes.grid import first_tick_from
from bats_lab.spikes.trains import Spikes

__all__ = ["CAUSES", "Autopsy", "autopsy"]

_IDEAL = replace(PLATFORMS["ideal"], recurrent_delay=0)
#: The properties that are switched, in the order in which they are tried, by the name of the cause.
_SWITCHES: dict[str, tuple[str, ...]] = {
    "tick of delay": ("delay", "recurrent_delay"),
    "threshold test order": ("order", "inclusive"),
    "reset": ("reset",),
    "collision": ("spikes_per_tick",),
    "saturation": ("saturates", "floor"),
    "word length": ("weight_bits", "decay_bits", "state_bits", "dtype", "step", "rounding", "state_shift"),
    "decay": ("decay", "gain"),
}
#: Every cause there is.
CAUSES = (*_SWITCHES, "rounding of time", "upstream", "several together", "not in the profile")


@dataclass(frozen=True)
class Autopsy:
    """What became of the spikes of continuous time.

    Attributes
    ----------
    changes : pandas.DataFrame
        A row a difference: ``population``, ``sample``, ``neuron``, ``change`` (lost, added, moved), ``step`` in
        continuous time and ``platform_step`` (-1 where there is none), ``cause``.
    kept : dict of str to int
        Spikes of each population that come in their step.
    exact, platform : Response
        Both runs.
    delta_t : float
        Clock of the platform, in seconds.
    """

    changes: pd.DataFrame
    kept: dict[str, int]
    exact: Response
    platform: Response
    delta_t: float

    def table(self) -> pd.DataFrame:
        """Return how often each cause lost, added and moved a spike, by population."""
        counts = self.changes.groupby(["population", "cause", "change"], sort=False).size().unstack(fill_value=0)
        return counts.reindex(columns=["lost", "added", "moved"], fill_value=0).rename_axis(columns=None)


def autopsy(
    graph: Graph,
    spikes: Spikes,
    platform: str | Profile | Mapping[str, Profile],
    *,
    delta_t: float,
    duration: float,
    recorded: Mapping[str, Spikes] | None = None,
    window: int = 10,
    exact: Response | None = None,
) -> Autopsy:
    """Find the cause of every spike that a platform loses, adds or moves.

    Parameters
    ----------
    graph : Graph
        The network.
    spikes : Spikes
        Input spikes.
    platform : str, Profile, or dict of str to Profile
        The platform, as in :func:`~bats_lab.network.platforms.simulate`.
    delta_t, duration : float
        Clock and window in seconds.
    recorded : dict of str to Spikes, or None
        Spikes that somebody recorded, of some populations or all, in place of the platform's simulated ones.
        Where the profile does not give them the cause is ``not in the profile``.
    window : int
        Steps by which a spike may be moved; further away it is lost, and another added.
    exact : Response or None
        The run in continuous time, where it is at hand.

    Returns
    -------
    Autopsy

    Examples
    --------
    >>> from bats_lab.network.graphs import INPUT, Connection, Graph, Population
    >>> neuron = Population("lif", 1, tau_mem=0.0025, threshold=0.1, kick=0.04)
    >>> graph = Graph(1, [neuron], [Connection(INPUT, "lif", np.array([[1.0]]))], pulse=1e-4)
    >>> inputs = Spikes.from_padded(np.array([[[0.001, 0.0011, 0.0012, 0.0013]]]))
    >>> found = autopsy(graph, inputs, "lava_float", delta_t=1e-4, duration=0.01)
    >>> found.changes[["change", "step", "platform_step", "cause"]].values.tolist()
    [['moved', 12, 13, 'tick of delay']]
    """
    profiles = (
        platform
        if isinstance(platform, Mapping)
        else dict.fromkeys((p.name for p in graph.populations), _profile(platform))
    )
    # A current that decays before the input, or after the membrane has taken it up, is the same: no cause of anything.
    profiles = {n: replace(p, order=_IDEAL.order) if p.order == STAGES else p for n, p in profiles.items()}
    how: dict[str, Any] = {"delta_t": delta_t, "duration": duration}
    reference = exact or simulate(graph, spikes, "exact", **how)
    found = simulate(graph, spikes, profiles, **how)
    samples, n_steps = np.arange(len(spikes)), first_tick_from(duration, delta_t)

    def counts(response: Response) -> dict[str, np.ndarray]:
        return {name: steps_of(trains, samples, n_steps, delta_t) for name, trains in response.spikes.items()}

    def alone(changed: Mapping[str, Profile]) -> dict[str, np.ndarray]:
        return counts(simulate(graph, spikes, changed, **how, forced=reference.spikes))

    true, got = counts(reference), counts(found)
    simulated = got
    if recorded:
        got = got | {name: steps_of(trains, samples, n_steps, delta_t) for name, trains in recorded.items()}
        found = Response({**found.spikes, **recorded})
    own = alone(profiles)
    ideal = alone(dict.fromkeys(profiles, _IDEAL))
    without, only = {}, {}
    for cause, names in _SWITCHES.items():
        changed = {name: _switched(profile, names, _IDEAL) for name, profile in profiles.items()}
        if changed != profiles:
            without[cause] = alone(changed)
            only[cause] = alone({name: _switched(_IDEAL, names, profile) for name, profile in profiles.items()})
    rows: list[tuple[Any, ...]] = []
    kept = {}
    for name in true:
        kept[name] = int(np.minimum(true[name], got[name]).sum())
        for change, sample, neuron, step, after in _differences(true[name], got[name], window):
            spot = (after if change == "added" else step, sample, neuron)
            if simulated[name][spot] != got[name][spot]:
                cause = "not in the profile"
            elif own[name][spot] == true[name][spot]:
                cause = "upstream"
            elif own[name][spot] == ideal[name][spot]:
                cause = "rounding of time"
            else:
                causes = [c for c, runs in without.items() if runs[name][spot] == ideal[name][spot]]
                causes += [c for c, runs in only.items() if runs[name][spot] != ideal[name][spot]]
                cause = next(iter(causes), "several together")
            rows.append((name, sample, neuron, change, step, after, cause))
    columns = ["population", "sample", "neuron", "change", "step", "platform_step", "cause"]
    return Autopsy(pd.DataFrame(rows, columns=columns), kept, reference, found, delta_t)


def _profile(platform: str | Profile) -> Profile:
    profile = profile_named(platform) if isinstance(platform, str) else platform
    if profile.name == "exact":
        raise ValueError("platform is 'exact', which is what platforms are held against; it must be a clock.")
    return profile


def _switched(profile: Profile, names: tuple[str, ...], other: Profile) -> Profile:
    """Return a profile with some properties of another."""
    values = {name: getattr(other, name) for name in names}
    if "saturates" in names and other is _IDEAL:
        values["saturates"] = not profile.weight_bits  # what has no word cannot leave it
    return replace(profile, **values)


def _differences(true: np.ndarray, got: np.ndarray, window: int) -> list[tuple[str, int, int, int, int]]:
    """Pair what is missing with what is too much, neuron by neuron in order of time."""
    excess = got.astype(np.int16) - true
    rows: list[tuple[str, int, int, int, int]] = []
    for sample, neuron in np.argwhere(excess.any(axis=0)):
        train = excess[:, sample, neuron]
        missing = np.repeat(np.arange(len(train)), np.maximum(-train, 0)).tolist()
        added = np.repeat(np.arange(len(train)), np.maximum(train, 0)).tolist()
        at = (int(sample), int(neuron))
        while missing and added:
            if abs(missing[0] - added[0]) <= window:
                rows.append(("moved", *at, missing.pop(0), added.pop(0)))
            elif missing[0] < added[0]:
                rows.append(("lost", *at, missing.pop(0), -1))
            else:
                rows.append(("added", *at, -1, added.pop(0)))
        rows += [("lost", *at, step, -1) for step in missing] + [("added", *at, -1, step) for step in added]
    return rows
