"""What networks have learned: the weights of two time steps side by side."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from bats_lab.explore.picture import Picture
from bats_lab.explore.widgets import (
    Explorer,
    choice,
    if_several,
    in_room,
    in_words,
    opened,
    picked,
    side_by_side,
    slider,
    step_slider,
)
from bats_lab.plots import style
from bats_lab.plots.histograms import bin_edges, draw_histograms, histogram_columns
from bats_lab.plots.runs import check_choice, dataset_name
from bats_lab.plots.weights import color_limit, layer_image, neuron_image, neuron_stems, stem_columns
from bats_lab.runs.experiment import config_of
from bats_lab.runs.kept import changes_of, runs_with_weights, weights_of

__all__ = ["explore_weights"]

_WIDTH = 220
_SIDES = ("left", "right")
#: Runs whose weights are read when the explorer starts; those of further ones when they are chosen.
_READ_AT_ONCE = 24
_PRESETS: dict[str, dict[str, Any]] = {
    "the cliff at 8 ms": {"left": 0.0, "right": 0.008, "rule": "drop"},
    "8 ms under graded": {"left": 0.0, "right": 0.008, "rule": "graded"},
    "what speaks for a class": {"shown": "weights", "layer": "output"},
}
_SHOWN = {"change": "change since the start", "weights": "weights"}
_ORDERS = {"changed": "most changed first", "number": "by number"}


@dataclass(eq=False)
class _Run:
    """A run that kept its weights."""

    dataset: xr.Dataset

    def __post_init__(self) -> None:
        self.config = config_of(self.dataset)
        #: Weights (post, pre) of each layer after an epoch; None: after the last.
        self.weights = functools.cache(lambda epoch: weights_of(self.dataset, epoch=epoch))
        #: What training made of those it started from.
        self.changes = functools.cache(lambda epoch: changes_of(self.dataset, epoch=epoch))

    @property
    def key(self) -> tuple[str, float, str, int]:
        """What it is chosen by: data set (and what else differs), time step, rule, seed."""
        return (_part(self.dataset), self.config.delta_t, self.config.rule, self.config.seed)


def _part(run: xr.Dataset) -> str:
    """Name the data set of a run and what other parameters differ in the sweep."""
    known = {"delta_t", "seed", "rule", "dataset", "epoch", "split", "layer"}
    others = [str(c) for c in run.coords if run[c].ndim == 0 and c not in known]
    return ", ".join([dataset_name(run), *(f"{name} {run[name].item()}" for name in others)])


@in_words
def explore_weights(
    results: xr.Dataset | str | Path,
    *,
    layer: str = "hidden_1",
    neuron: int | None = None,
    shown: str = "change",
    delta_t: tuple[float, float] | None = None,
) -> Explorer:
    """Explore the weights of trained networks: two time steps side by side, and what they differ in.

    A whole layer, and one of its neurons as the image it looks for. The neurons that training has changed most come
    first: what it has left alone is as random as at the start.

    Parameters
    ----------
    results
        As in all explorers (:mod:`bats_lab.explore`).
    layer : str
        Layer shown first, as ``hidden_1`` or ``output``.
    neuron : int or None
        Neuron shown first; None: the one that has changed most.
    shown : str
        ``change``, what training has made of the weights at the start, or ``weights``.
    delta_t : (float, float) or None
        Time steps shown first, left and right, in seconds; None: the smallest and the largest.

    Returns
    -------
    Explorer
        With the controls `left` and `right` (time steps), `shown`, `layer`, `order`, `neuron`, and `part`, `rule`,
        `seed` and `epoch` where there is a choice. A click on a neuron of a layer chooses it.
    """
    runs = [_Run(run) for run in runs_with_weights(opened(results))]
    by_key = {run.key: run for run in runs}
    parts, steps, rules, seeds = (list(dict.fromkeys(values)) for values in zip(*by_key, strict=True))
    first, last = runs[0], max(runs, key=lambda run: run.config.delta_t)
    layers = list(dict.fromkeys(name for run in runs for name in run.config.layer_names()))
    layers.sort(key=lambda name: name == "output")
    if layer not in layers:
        raise ValueError(f"There is no layer {layer!r}; the results hold {', '.join(layers)}.")
    check_choice("shown", shown, tuple(_SHOWN))
    size = len(first.weights(None)[layer])
    if neuron is not None and not 0 <= neuron < size:
        raise ValueError(f"neuron is {neuron}; the layer has neurons 0 to {size - 1}.")
    for run in runs[:_READ_AT_ONCE]:
        run.weights(None)
    start = (min(steps), max(steps)) if delta_t is None else delta_t
    n_epochs = max((run.config.epochs for run in runs if run.config.keep_weights == "each"), default=0)
    rows: list[dict[str, Any]] = [
        {"left": step_slider("Δt left", steps, start[0]), "right": step_slider("Δt right", steps, start[1])},
        {
            "shown": choice("shown", [(text, name) for name, text in _SHOWN.items()], shown),
            "layer": choice("layer", [(style.layer_label(n, len(layers) - 1), n) for n in layers], layer),
            "order": choice("order", [(text, name) for name, text in _ORDERS.items()]),
            "neuron": picked("neuron", range(size), 0 if neuron is None else neuron),
        },
        {
            **if_several("part", "data set", parts, first.key[0]),
            **if_several("rule", "rule", rules, first.key[2]),
            **if_several("seed", "seed", sorted(seeds), first.key[3]),
            **({"epoch": slider("epoch", 1, n_epochs, n_epochs)} if n_epochs > 1 else {}),
        },
    ]
    number = rows[1]["neuron"]
    picture = _Weights([first.weights(None), last.weights(None)], layer)

    def draw(
        left: float,
        right: float,
        shown: str,
        layer: str,
        order: str,
        neuron: int,
        part: str = first.key[0],
        rule: str = first.key[2],
        seed: int = first.key[3],
        epoch: int = n_epochs,
    ) -> str:
        sides, changes = [], []
        missing = []
        for delta_t in (left, right):
            run, label = by_key.get((part, delta_t, rule, seed)), style.delta_t_label(delta_t)
            of_epoch = None if run is None or epoch == run.config.epochs or n_epochs == 0 else epoch
            weights = _NOTHING
            if run is None:
                others = ", ".join(f"{r} with seed {s}" for r, s in sorted({k[2:] for k in by_key if k[1] == delta_t}))
                asked = f"No weights were kept for {label}, {rule}, seed {seed}"
                missing.append(f"{asked}; of this time step there are: {others}.")
            elif layer not in run.config.layer_names():
                missing.append(f"{label}: this network has no {layer}.")
            elif of_epoch is not None and run.config.keep_weights != "each":
                missing.append(f"{label}: this run kept the weights of its last epoch only.")
            else:
                changes.append(run.changes(of_epoch)[layer])
                weights = run.weights(of_epoch)[layer] if shown == "weights" else changes[-1]
            sides.append((delta_t, weights))
        rows = picture.order(changes, max(len(w) for _, w in sides), order)
        if list(number.options) != rows:
            # Where the last one is not, or nobody has chosen one yet, the first: what there is most to see of.
            kept = neuron if neuron in rows and chosen else rows[0]
            number.options = rows
            number.value = neuron = kept
        picture.draw(sides, layer, neuron, shown)
        return " ".join(missing)

    chosen = neuron is not None
    explorer = Explorer(rows, draw, [picture.sides, picture.histogram], body=picture.body, presets=_PRESETS)
    chosen = True

    def choose(x: float, y: float) -> None:
        if 0 <= round(y) < len(number.options):
            number.value = number.options[round(y)]

    for heatmap in picture.heatmaps:
        heatmap.on_tap(choose)
    return explorer


class _Weights:
    """The picture: heatmaps of a layer on top, a neuron of it below, and how both layers' weights are distributed.

    Left, right, and the difference of the two.
    """

    def __init__(self, shown: list[dict[str, np.ndarray]], layer: str) -> None:
        values = [w[layer] for w in shown]
        first = [next(iter(w.values())) for w in shown]
        x = hv.Dimension("weight", label="weight")
        three = [*values, values[0]]
        heatmaps = [
            layer_image(w, 1.0, " ", width=_WIDTH, height=_WIDTH, marks=[_neuron_line(w.shape[1])]) for w in three
        ]
        side = math.isqrt(first[0].shape[1])
        images = [neuron_image(np.zeros((side, side)), 1.0, " ", width=_WIDTH) for _ in three]
        stems = [neuron_stems(w[0], " ", width=_WIDTH, height=180) for w in three]
        # One picture, so that its columns are as wide as each other.
        self.sides = Picture([*heatmaps, *images, *stems], columns=3, rigid=True)
        self.heatmaps, self._images, self._stems = (self.sides.panels[i : i + 3] for i in (0, 3, 6))
        for panel in [p for panels in (self.heatmaps, self._images) for p in panels[:2]]:
            panel.figure.right = []  # all have the colours of the last
        for panel in self.sides.panels:
            panel.leave(64)
        steps = {float(i): w for i, w in enumerate(values)}
        histogram = draw_histograms(
            steps, bin_edges(values), x, title="all weights of the layer", width=420, height=240
        )
        self.histogram = Picture([histogram], toolbar=False, share=0.5)
        self._shown: list[np.ndarray] = []
        self._rows: list[int] = []
        self._ordered: tuple[Any, ...] = ()
        self._limit = 1.0

    def body(self) -> Any:
        """Lay the pictures out."""
        rooms = [in_room(self.sides.widget, width=900, grow=3), in_room(self.histogram.widget, width=400, grow=2)]
        return side_by_side(rooms, align_items="flex-start")

    def order(self, changes: list[np.ndarray], n_neurons: int, order: str) -> list[int]:
        """Return the numbers of the neurons as they stand below each other."""
        asked = (*map(id, changes), n_neurons, order)
        if asked != self._ordered:
            self._ordered, self._shown = asked, []
            change = sum((np.abs(c).mean(axis=1) for c in changes), np.zeros(n_neurons))
            by_change = order == "changed"
            self._rows = np.argsort(-change, kind="stable").tolist() if by_change else list(range(n_neurons))
        return self._rows

    def draw(self, sides: list[tuple[float, np.ndarray]], layer: str, neuron: int, shown: str) -> None:
        """Show a layer and a neuron of the networks of two time steps."""
        # Most changes are of the neuron, and a layer is more than half a million numbers.
        if [id(w) for w in self._shown[:2]] != [id(w) for _, w in sides]:
            self._draw_layers(sides, shown)
        place = self._rows.index(neuron)
        for panel, heatmap, w in zip(range(3), self.heatmaps, self._shown, strict=True):
            heatmap.set("neuron", {"pre": [-0.5, w.shape[1] - 0.5], "post": [place, place]})
            self._draw_neuron(panel, w[min(neuron, len(w) - 1)], layer, neuron)

    def _draw_layers(self, sides: list[tuple[float, np.ndarray]], shown: str) -> None:
        known = [w for _, w in sides if w is not _NOTHING]
        self._limit = max((color_limit(w) for w in known), default=1.0)
        both = len(known) == 2 and known[0].shape == known[1].shape
        self._shown = [*(w for _, w in sides), known[1] - known[0] if both else _NOTHING]
        what = "weights" if shown == "weights" else "change"
        titles = [f"{style.delta_t_label(delta_t)}: {what}" for delta_t, _ in sides]
        rows = np.array(self._rows)
        for heatmap, values, title in zip(self.heatmaps, self._shown, [*titles, "right − left"], strict=True):
            heatmap.set_image("weights", values[rows] if len(values) == len(rows) else values, limit=self._limit)
            heatmap.title(title)
        edges = bin_edges(known)
        histogram, tallest = self.histogram.panels[0], 0.0
        for side, (delta_t, weights) in enumerate(sides):
            columns = histogram_columns(weights, edges, "weight")
            tallest = max(tallest, float(columns["share"].max()))
            name = f"step {side}"
            histogram.set(name, columns)
            histogram.paint(name, style.delta_t_color(delta_t))
            histogram.name(name, f"{_SIDES[side]}: {style.delta_t_label(delta_t)}")
        histogram.title(f"all {'weights' if shown == 'weights' else 'changes'} of the layer")
        histogram.x_limits(edges[0], edges[-1])
        histogram.y_limits(0, 1.06 * tallest or 1.0)

    def _draw_neuron(self, panel: int, values: np.ndarray, layer: str, neuron: int) -> None:
        image, stems = self._images[panel], self._stems[panel]
        n = math.isqrt(len(values))
        as_image = layer == "hidden_1" and n * n == len(values)
        image.show(as_image)
        stems.show(not as_image)
        if as_image:
            image.set_image("weights", values.reshape(n, n), limit=self._limit)
        else:
            stems.set("stems", stem_columns(values))
            stems.x_limits(-1, len(values))
            stems.y_limits(-1.5 * self._limit, 1.5 * self._limit)
        (image if as_image else stems).title(f"neuron {neuron}")


def _neuron_line(n_pre: int) -> hv.Curve:
    """Draw the line that marks a neuron in a heatmap, of group ``neuron``."""
    # The dimensions of the heatmap, whose axes it shares.
    line = hv.Curve(([-0.5, n_pre - 0.5], [0, 0]), "pre", "post", group="neuron")
    return style.line(line, style.ACCENT_COLOR, width=0.6)


#: In place of weights that are not there.
_NOTHING = np.full((1, 1), np.nan, np.float32)
