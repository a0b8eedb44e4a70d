"""The spike autopsy: what a clock, or a chip, made of a network's spikes, and the membrane behind each of them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import holoviews as hv
import ipywidgets
import numpy as np
import xarray as xr

from bats_lab.explore.picture import Picture
from bats_lab.explore.widgets import (
    Explorer,
    choice,
    dot,
    if_several,
    in_words,
    opened,
    slider,
    step_slider,
    window_slider,
)
from bats_lab.network.autopsy import Autopsy, autopsy
from bats_lab.network.comparison import load_spikes
from bats_lab.network.feedforward import Network
from bats_lab.network.graphs import Graph, graph_of_network
from bats_lab.network.platforms import PLATFORMS, Response, profile_named, simulate
from bats_lab.plots import style
from bats_lab.plots.platforms import CAUSE_COLORS, CHANGES, autopsy_columns
from bats_lab.runs.experiment import network_of
from bats_lab.runs.kept import kept_spikes, runs_to_rerun
from bats_lab.spikes.trains import Spikes

__all__ = ["explore_autopsy"]

_SIMULATED, _RECORDED = "the simulation", "the recording"
_DURATION = 0.2  # s
_FINER = 10  # points of the membrane in continuous time per tick
_NEAR = 12  # ticks to either side of a spike that was clicked
_TIME, _NEURON = hv.Dimension("time", unit="ms"), hv.Dimension("neuron")
_POTENTIAL = hv.Dimension("potential", unit="thresholds")
_PRESETS: dict[str, dict[str, Any]] = {
    "nothing but rounding of time": {"platform": "ideal"},
    "a tick of delay a layer": {"platform": "loihi"},
    "the threshold tested first": {"platform": "spyx"},
    "no potential below zero": {"platform": "nengo"},
    "what was recorded": {"against": _RECORDED},
}


@in_words
def explore_autopsy(
    network: Graph | Network | xr.Dataset | str | Path,
    spikes: Spikes | None = None,
    *,
    platform: str = "loihi",
    delta_t: float = 0.001,
    duration: float | None = None,
    sample: int = 0,
    recorded: Spikes | str | Path | None = None,
    platforms: Sequence[str] = tuple(name for name in PLATFORMS if name != "exact"),
) -> Explorer:
    """Explore why spikes on a platform are not those of continuous time: the cause of each, and both membranes.

    Parameters
    ----------
    network : Graph, Network, or results
        The network; of results (:mod:`bats_lab.explore`) the first that kept weights and samples, by rising time step.
    spikes : Spikes or None
        Input spikes; None: the samples that the run kept.
    platform : str
        Platform shown first, a name of :data:`~bats_lab.network.platforms.PLATFORMS`.
    delta_t, duration : float
        Clock shown first, and window, in seconds; None: the network's, 0.2 s where it has none.
    sample : int
        Sample shown first.
    recorded : Spikes, str, Path or None
        What a chip sent from the network's first output for the same samples: spikes, or a CSV or npz file of them
        (:func:`~bats_lab.network.comparison.load_spikes`).
    platforms : sequence of str
        Platforms that are offered.

    Returns
    -------
    Explorer
        With the controls `platform`, `delta_t`, `sample`, `population`, `neuron`, `window` (ms, of the membranes) and,
        with a recording, `against`. A click on a spike chooses its neuron and the time around it.
    """
    if not isinstance(network, (Graph, Network)):
        run = runs_to_rerun(opened(network))[0]
        network, kept = network_of(run, device="cpu"), kept_spikes(run)
        spikes = kept if spikes is None else spikes
    if spikes is None:
        raise ValueError("spikes is None; a network that comes from no results needs input spikes.")
    if duration is None:
        duration = network.duration if isinstance(network, Network) else _DURATION
    graph = graph_of_network(network) if isinstance(network, Network) else network
    read = graph.outputs[0]
    names = [p.name for p in graph.populations if p.fires]
    for name in (platform, *platforms):
        if profile_named(name).name == "exact":
            raise ValueError("platform is 'exact', which is what platforms are held against; it must be a clock.")
    if not 0 <= sample < len(spikes):
        raise ValueError(f"sample is {sample}; it must be from 0 to {len(spikes) - 1}.")
    if isinstance(recorded, (str, Path)):
        recorded, _ = load_spikes(recorded, graph[read].size)
    if recorded is not None and recorded.n_neurons != graph[read].size:
        raise ValueError(
            f"recorded holds {recorded.n_neurons} neurons; there must be the {graph[read].size} of {read}."
        )

    @functools.lru_cache(maxsize=32)
    def examined(platform: str, delta_t: float, sample: int, against: str) -> Autopsy:
        part = slice(sample, sample + 1)
        given = {read: recorded[part]} if recorded is not None and against == _RECORDED else None
        return autopsy(graph, spikes[part], platform, delta_t=delta_t, duration=duration, recorded=given)

    @functools.lru_cache(maxsize=16)
    def traced(platform: str, delta_t: float, sample: int, population: str) -> Response:
        part = spikes[sample : sample + 1]
        return simulate(graph, part, platform, delta_t=delta_t, duration=duration, record=[population])

    start = examined(platform, delta_t, sample, _SIMULATED)  # what cannot be run is refused here, in words
    against = [_SIMULATED] if recorded is None else [_SIMULATED, _RECORDED]
    offered = list(dict.fromkeys([*platforms, platform]))
    rows: list[dict[str, Any]] = [
        {"platform": choice("platform", offered, platform), "delta_t": step_slider(value=delta_t)},
        {
            **if_several("against", "against", against),
            "sample": slider("sample", 0, max(len(spikes) - 1, 1), sample),
            **if_several("population", "population", names, read),
        },
        {"neuron": slider("neuron", 0, max(graph[read].size - 1, 1), _first(start, read)), "window": None},
    ]
    rows[2]["window"] = window_slider("membrane from, to", 1e3 * duration)
    if len(spikes) == 1:
        del rows[1]["sample"]
    picture = Picture([_raster(duration), _membrane(duration)], share=0.95)
    raster, membrane = picture.panels
    legend = ipywidgets.HTML()
    legend.add_class("bats-lab-words")

    def draw(
        platform: str,
        delta_t: float,
        neuron: int,
        window: tuple[float, float],
        sample: int = sample,
        population: str = read,
        against: str = _SIMULATED,
    ) -> str:
        size = graph[population].size
        explorer_neuron = rows[2]["neuron"]
        explorer_neuron.max = max(size - 1, 1)
        neuron = min(neuron, size - 1)
        found = examined(platform, delta_t, sample, against if population == read else _SIMULATED)
        columns = autopsy_columns(found, population=population)
        for name, values in columns.items():
            raster.set(name, values)
        raster.set("row", {"time": [0.0, 1e3 * duration], "neuron": [neuron, neuron]})
        raster.y_limits(-0.6, size - 0.4)
        threshold = np.broadcast_to(graph[population].threshold, size)[neuron]
        lines = {"exact": ("exact", delta_t / _FINER), "platform": (platform, delta_t)}
        seen = [0.0, 1.0]
        for name, (where, step) in lines.items():
            potential = traced(where, step, sample, population).potential[population][0, neuron] / threshold
            times = 1e3 * step * np.arange(1, len(potential) + 1)
            membrane.set(name, {"time": times, "potential": potential})
            inside = potential[(times >= window[0]) & (times <= window[1])]
            seen += [inside.min(initial=0.0), inside.max(initial=0.0)]
        for name, response in (("exact spikes", found.exact), ("platform spikes", found.platform)):
            _, fired, times = response.spikes[population].events()
            mine = 1e3 * times[fired == neuron]
            membrane.set(name, {"time": mine, "potential": np.full(len(mine), 1.0)})
        membrane.paint("platform", style.delta_t_color(delta_t))
        membrane.paint("platform spikes", style.delta_t_color(delta_t))
        membrane.x_limits(*window)
        membrane.y_limits(*style.limits(np.array(seen)))
        membrane.title(f"membrane of {population} {neuron}: continuous (grey), {platform} (colour); spikes at 1")
        shown = {c for change in CHANGES for c in columns[change]["cause"].tolist()}
        signs = [(cause, color) for cause, color in CAUSE_COLORS.items() if cause in shown or color == _GREY]
        legend.value = " &nbsp; ".join(f"{dot(color)} {cause}" for cause, color in signs) + _SIGNS
        return _told(found, columns, population, neuron, against if population == read else _SIMULATED)

    def choose(mark: dict[str, Any]) -> None:
        reach = _NEAR * 1e3 * explorer.values["delta_t"]
        window = max(0.0, mark["time"] - reach), min(1e3 * duration, mark["time"] + reach)
        explorer.choose({"neuron": int(mark["neuron"]), "window": window})

    for name in ("kept", *CHANGES):
        raster.on_click(name, choose)
    explorer = Explorer(
        rows,
        draw,
        [picture],
        body=lambda: ipywidgets.VBox([legend, picture.widget]),
        presets={name: preset for name, preset in _PRESETS.items() if preset.get("platform", offered[0]) in offered},
    )
    return explorer


_GREY = CAUSE_COLORS["in their step"]
_SIGNS = " &nbsp; (● moved, ◆ lost, ▲ added; a line leads from where a spike was)"


def _first(found: Autopsy, population: str) -> int:
    """Return the neuron of a population's first difference."""
    rows = found.changes[found.changes["population"] == population]
    return int(rows["neuron"].iloc[0]) if len(rows) else 0


def _raster(duration: float) -> hv.Overlay:
    # Of two colours, since HoloViews takes a column that holds one for a constant.
    two = {"time": [0.0, 0.0], "neuron": [0, 0], "cause": ["", " "], "color": ["#000000", "#ffffff"]}
    row = style.line(hv.Curve(([0, 1], [0, 0]), _TIME, _NEURON, group="row"), style.ACCENT_COLOR, width=0.4)
    kept = style.points(hv.Scatter(([0.0], [0]), _TIME, _NEURON, group="kept"), _GREY, size=0.8)
    links = hv.Segments(two | {"end": [0, 0], "row": [0, 0]}, [_TIME, _NEURON, "end", "row"], "color", group="links")
    dots = [
        style.points(
            hv.Scatter(two, _TIME, [_NEURON, "cause", "color"], group=change),
            "color",
            series=series,
            size=1.3,
            tooltips=[(change, "@cause")],
        )
        for change, series in CHANGES.items()
    ]
    lines = style.styled(links, color="color", screen={"line_width": 1.5}, paper={"linewidth": 1})
    options: dict[str, Any] = {
        "xlim": (0.0, 1e3 * duration),
        "ylim": (-0.6, 1.0),
        "title": "spikes, and the cause of each difference",
    }
    # A click on a spike chooses it; the others stay as they are.
    tapped = [style.styled(kept, screen={"tools": ["tap"], "nonselection_alpha": 1})]
    tapped += [style.styled(spikes, screen={"tools": ["hover", "tap"], "nonselection_alpha": 1}) for spikes in dots]
    return style.overlay([row, lines, *tapped], width=620, height=220, axes=(_TIME, _NEURON), left=70, **options)


def _membrane(duration: float) -> hv.Overlay:
    colors = {"exact": style.NEUTRAL_COLOR, "platform": style.ACCENT_COLOR}
    elements: list[Any] = [style.line(hv.Curve(([0, 1e3 * duration], [1, 1]), _TIME, _POTENTIAL), "#000000", series=2)]
    for name, color in colors.items():
        curve = hv.Curve(([0.0, 1.0], [0.0, 1.0]), _TIME, _POTENTIAL, group=name)
        fired = hv.Scatter(([0.0], [0.0]), _TIME, _POTENTIAL, group=f"{name} spikes")
        elements += [style.line(curve, color, width=0.8), style.points(fired, color, series=2 * (name == "exact"))]
    options: dict[str, Any] = {"xlim": (0.0, 1e3 * duration), "ylim": (0.0, 1.0)}
    return style.overlay(
        elements, width=620, height=170, axes=(_TIME, _POTENTIAL), left=70, title="membrane", **options
    )


def _told(found: Autopsy, columns: dict[str, Any], population: str, neuron: int, against: str) -> str:
    counts = [f"{len(columns[change]['time'])} {change}" for change in CHANGES]
    rows = found.changes[(found.changes["population"] == population) & (found.changes["neuron"] == neuron)]
    of = [
        f"{row.change} {_when(row.step if row.step >= 0 else row.platform_step, found.delta_t)}: {row.cause}"
        for row in rows.head(4).itertuples()
    ]
    more = f" and {len(rows) - 4} more" if len(rows) > 4 else ""
    membrane = " The membrane in colour is that of the platform's profile." if against == _RECORDED else ""
    own = f"Neuron {neuron}: {'; '.join(of)}{more}." if of else f"Neuron {neuron} fires as it should."
    return f"{population} in {against}: {', '.join(counts)} of {len(columns['kept']['time'])} spikes. {own}{membrane}"


def _when(step: int, delta_t: float) -> str:
    return f"at {1e3 * delta_t * (step + 1):.4g} ms"
