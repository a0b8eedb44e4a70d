"""A digit of one's own: draw it, and watch its spikes travel and the decision form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from bokeh.models import FreehandDrawTool

from bats_lab.explore.live import LiveNetwork, Offer, Samples
from bats_lab.explore.picture import Picture
from bats_lab.explore.rasters import show_raster, until
from bats_lab.explore.widgets import (
    Explorer,
    choice,
    in_room,
    in_words,
    player,
    side_by_side,
    slider,
    step_slider,
    time_slider,
)
from bats_lab.network.feedforward import Network
from bats_lab.plots import style
from bats_lab.plots.decision import bar_columns, decision_plots, spikes_until
from bats_lab.plots.raster import raster_plots
from bats_lab.spikes.rules import RULES
from bats_lab.spikes.trains import Spikes

__all__ = ["draw_strokes", "explore_digit"]

_N = 28


@in_words
def explore_digit(
    source: xr.Dataset | Network | str | Path, samples: Samples | None = None, *, sample: int = 0
) -> Explorer:
    """Draw a digit, or pick one, and see its spikes travel through the layers and the decision form over time.

    Parameters
    ----------
    source, samples, sample
        As in all explorers (:mod:`bats_lab.explore`); a network has 28 × 28 inputs.

    Returns
    -------
    Explorer
        With the controls `sample`, `delta_t`, `rule`, `time` (ms) and, where there are several, `network`, and the
        button `clear`, which goes back to the sample.
        `strokes` is Bokeh's data source of what is drawn, as lists of x and y in pixels.
    """
    offer = Offer(source, samples, sample)
    if isinstance(offer.images(offer.first).images, Spikes):
        name = offer.first.config.dataset
        raise ValueError(f"{name} holds events, of which there is no image; explore_rasters shows them.")
    first = offer.first
    if first.network.sizes[0] != _N * _N:
        raise ValueError(f"The network has {first.network.sizes[0]} inputs; to look at a drawing it must have 28 × 28.")
    images, (image, _) = offer.images(first), offer.sample(first, sample)
    duration = first.config.duration
    rows = [
        {"sample": slider("sample", 0, len(images) - 1, sample), "delta_t": step_slider(value=first.config.delta_t)},
        {**time_slider(1e3 * duration), "rule": choice("rule", list(RULES), first.config.rule)},
        offer.control(),
    ]
    rasters_of_first = first.rasters(image, delta_t=0.0, rule="drop", class_names=images.class_names)
    options: dict[str, Any] = {"window": (0.0, duration), "complete": True, "width": 360, "height": 130}
    rasters = Picture(raster_plots(rasters_of_first, 0.0, **options), share_x=True)
    target, highest = first.config.target_true, first.config.max_spikes_output
    labels = rasters_of_first[-1].labels
    bars: dict[str, Any] = {"target": target, "highest": min(highest, 1.6 * target), "size": 210}
    look = Picture(decision_plots(image, np.zeros(len(labels), int), labels, **bars), toolbar=False, rigid=True)
    for panel in look.panels:
        panel.leave(48)
    pad = look.panels[0].figure
    drawn = pad.multi_line(xs=[], ys=[], line_width=4, line_color=style.ACCENT_COLOR, line_alpha=0.5)
    pen = FreehandDrawTool(renderers=[drawn])
    pad.tools = [pen]
    pad.toolbar.active_drag = pen
    pad.outline_line_color = style.NEUTRAL_COLOR
    pad.title.text = "draw here"
    strokes = drawn.data_source
    state: dict[str, Any] = {"run": None, "rasters": rasters_of_first, "sample": sample}

    def draw(sample: int, delta_t: float, rule: str, time: float, network: LiveNetwork = first) -> str:
        if sample != state["sample"]:
            state["sample"] = sample
            strokes.data = {"xs": [], "ys": []}
        lines = [np.array([x, y], float) for x, y in zip(strokes.data["xs"], strokes.data["ys"], strict=True)]
        image, label = (draw_strokes(lines), None) if lines else offer.sample(network, sample)
        run = (image.tobytes(), delta_t, rule, network.title)
        if run != state["run"]:
            state["run"] = run
            names = offer.images(network).class_names
            state["rasters"] = network.rasters(image, delta_t=delta_t, rule=rule, class_names=names, label=label)
            look.panels[0].set_image("image", image.astype(float))
        now = time / 1e3
        for panel, raster in zip(rasters.panels, state["rasters"], strict=True):
            show_raster(panel, until(raster, now), delta_t, (0.0, duration))
        output = state["rasters"][-1]
        counts = spikes_until(output.sent, np.inf if now >= duration else now)
        for name, columns in bar_columns(counts).items():
            look.panels[1].set(name, columns)
        leader = output.labels[int(counts.argmax())] if counts.any() else "nothing yet"
        look.panels[1].title(f"so far: {leader}")
        truth = "" if label is None else f", a {output.labels[label]},"
        what = "Your drawing" if lines else f"Sample {sample}{truth}"
        return f"{what} at {time:.0f} ms is taken for {leader}, by {counts.max(initial=0)} spikes of {counts.sum()}."

    explorer = Explorer(
        rows,
        draw,
        [look, rasters],
        body=lambda: side_by_side([in_room(look.widget, width=290), in_room(rasters.widget, width=540, grow=3)]),
        buttons={"play": player(rows[1]["time"]), "clear": "clear the drawing"},
    )
    explorer.strokes = strokes
    strokes.on_change("data", lambda attribute, old, new: explorer.redraw())
    explorer.buttons["clear"].on_click(lambda _: strokes.update(data={"xs": [], "ys": []}))
    return explorer


def draw_strokes(strokes: list[np.ndarray], *, size: int = _N, inner: int = 20, pen: float = 1.1) -> np.ndarray:
    """Draw strokes as MNIST has its digits: as large as a box allows, the centre of mass in the middle.

    Parameters
    ----------
    strokes : list of ndarray, (2, point)
        x and y of each stroke's points, y downwards, in any unit.
    size : int
        Rows and columns of the image.
    inner : int
        Side of the box that the digit fills, in pixels.
    pen : float
        Radius of the pen, in pixels.

    Returns
    -------
    ndarray of uint8, (size, size)

    Examples
    --------
    >>> image = draw_strokes([np.array([[0.0, 1.0], [0.0, 0.0]])])
    >>> np.flatnonzero(image.any(axis=1)), int(image.any(axis=0).sum())
    (array([12, 13, 14, 15]), 20)
    """
    points = np.concatenate([s for s in strokes if s.shape[1]] or [np.zeros((2, 0))], axis=1)
    if not points.shape[1]:
        return np.zeros((size, size), np.uint8)
    low, extent = points.min(axis=1), np.ptp(points, axis=1).max()
    scale = (inner - 2 * pen) / extent if extent > 0 else 1.0
    middle = low + np.ptp(points, axis=1) / 2
    lines = [(s - middle[:, None]) * scale + (size - 1) / 2 for s in strokes if s.shape[1]]
    image = _ink(lines, size, pen)
    rows, columns = np.indices(image.shape)
    shift = (size - 1) / 2 - np.array([(columns * image).sum(), (rows * image).sum()]) / image.sum()
    image = _ink([line + shift[:, None] for line in lines], size, pen)
    return np.round(255 * image).astype(np.uint8)


def _ink(lines: list[np.ndarray], size: int, pen: float) -> np.ndarray:
    """Return how much of each pixel the pen covers: full within its radius, fading over one pixel."""
    y, x = np.indices((size, size))
    nearest = np.full((size, size), np.inf)
    for line in lines:
        ends = line if line.shape[1] > 1 else np.repeat(line, 2, axis=1)
        for (x_0, y_0), (x_1, y_1) in zip(ends.T[:-1], ends.T[1:], strict=True):
            length = (x_1 - x_0) ** 2 + (y_1 - y_0) ** 2
            along = 0.0 if length == 0 else np.clip(((x - x_0) * (x_1 - x_0) + (y - y_0) * (y_1 - y_0)) / length, 0, 1)
            distance = np.hypot(x - x_0 - along * (x_1 - x_0), y - y_0 - along * (y_1 - y_0))
            nearest = np.minimum(nearest, distance)
    return np.clip(pen + 0.5 - nearest, 0, 1)
