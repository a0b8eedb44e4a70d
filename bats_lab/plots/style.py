"""How every plot looks: the axis of time steps, lines and points, legends, sizes and fonts of both backends.

HoloViews keeps options for Bokeh (screen) and Matplotlib (paper) side by side on an element. :func:`styled` sets
both at once, so one and the same element is drawn by either.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import holoviews as hv
import holoviews.plotting.bokeh
import holoviews.plotting.mpl  # both imports register a backend
import matplotlib as mpl
import numpy as np
from bokeh.models import NoOverlap
from matplotlib.ticker import MaxNLocator

from bats_lab.plots.colors import (
    ACCENT_COLOR,
    BOKEH_DASHES,
    BOKEH_MARKERS,
    CONTINUOUS_COLOR,
    DASHES,
    MARKERS,
    NEUTRAL_COLOR,
    SERIES_COLORS,
    delta_t_color,
    series_of,
)

__all__ = [
    "ACCENT_COLOR",
    "CONTINUOUS_COLOR",
    "MARKERS",
    "NEUTRAL_COLOR",
    "SERIES_COLORS",
    "DeltaTAxis",
    "delta_t_color",
    "delta_t_label",
    "layer_label",
    "series_of",
]

_SCREEN_FONTS = {"title": "11pt", "labels": "11pt", "ticks": "10pt", "legend": "10pt", "legend_title": "10pt"}
_PAPER_FONTS = {"title": 9, "labels": 9, "ticks": 8, "legend": 8, "legend_title": 8}
_LEGEND = {"location": "center", "border_line_color": None, "spacing": 0, "padding": 2}
_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


def delta_t_label(delta_t: float) -> str:
    """Name a time step as legends do.

    Examples
    --------
    >>> delta_t_label(0.0005), delta_t_label(0)
    ('0.5 ms', 'continuous')
    """
    return "continuous" if delta_t == 0 else f"{_in_ms(delta_t):g} ms"


def layer_label(layer: str, n_hidden: int) -> str:
    """Name a layer for people: ``hidden_1`` is "hidden layer", or "hidden layer 1" where there are several."""
    if not layer.startswith("hidden_"):
        return f"{layer} layer"
    return "hidden layer" if n_hidden == 1 else f"hidden layer {layer.removeprefix('hidden_')}"


def _in_ms(seconds: float) -> float:
    return round(seconds * 1e3, 6)


@dataclass(frozen=True)
class DeltaTAxis:
    """A logarithmic axis of time steps in ms, with a place of its own for continuous time left of the smallest.

    `positions` are the places of the time steps (s) on the axis, in ms. Each has its tick; where labels come too close
    together they take a second line, and where that is full too, a tick has none.

    Examples
    --------
    >>> DeltaTAxis.over([0, 0.001, 0.01]).ticks
    [(0.501187, 'continuous'), (1.0, '1'), (10.0, '10')]
    """

    positions: dict[float, float]
    ticks: list[tuple[float, str]]
    limits: tuple[float, float]

    @classmethod
    def over(cls, values: Iterable[float]) -> DeltaTAxis:
        """Lay out the time steps `values`, in seconds."""
        values = sorted(float(v) for v in values)
        grid = {v: _in_ms(v) for v in values if v > 0}
        low, high = (min(grid.values()), max(grid.values())) if grid else (1.0, 1.0)
        # In decades; a single time step gets the room of half a decade.
        gap = max(0.3 * math.log10(high / low), 0.3)
        positions = ({0.0: round(low / 10**gap, 6)} if 0 in values else {}) | grid
        if not grid:
            positions = {0.0: 1.0}
        first, last = min(positions.values()), max(positions.values())
        margin = 0.12 * max(math.log10(last / first), 1.0)
        limits = (first / 10**margin, last * 10**margin)
        width = math.log10(limits[1] / limits[0])
        named = [(place, f"{place:g}") for place in sorted(grid.values(), reverse=True)]
        named += [(positions[0.0], "continuous")] if 0 in values else []
        ticks: list[tuple[float, str]] = []
        line_ends: list[tuple[float, str]] = [(math.inf, "")] * 2
        for place, label in named:
            for i, (beside, its_label) in enumerate(line_ends):
                # Room for both labels' halves and a gap, as fractions of the narrowest frame in use.
                if math.log10(beside / place) > width * (0.03 + 0.012 * len(label + its_label)):
                    ticks.append((place, "\n" * i + label))
                    line_ends[i] = (place, label)
                    break
            else:
                ticks.append((place, ""))
        return cls(positions, ticks[::-1], limits)

    def options(self) -> dict[str, Any]:
        """Return the options of an overlay that has this axis as its x axis."""
        return {"logx": True, "xticks": self.ticks, "xlim": self.limits, "xlabel": "time step Δt (ms)"}


def styled(
    element: Any, *, screen: Mapping[str, Any] = _NO_OPTIONS, paper: Mapping[str, Any] = _NO_OPTIONS, **both: Any
) -> Any:
    """Return an element with options for Bokeh (`screen`), for Matplotlib (`paper`), and for `both`."""
    return element.opts(backend="bokeh", **{**both, **screen}).opts(backend="matplotlib", **{**both, **paper})


def _hover(tooltips: Sequence[tuple[str, str]] | None) -> dict[str, Any]:
    return {"tools": ["hover"], "hover_tooltips": list(tooltips)} if tooltips else {}


def line(
    curve: hv.Curve | hv.Path,
    color: str,
    *,
    series: int = 0,
    width: float = 1.0,
    tooltips: Sequence[tuple[str, str]] | None = None,
    **both: Any,
) -> hv.Curve | hv.Path:
    """Style a line; `series` chooses its dash."""
    return styled(
        curve,
        color=color,
        screen={"line_width": 2 * width, "line_dash": BOKEH_DASHES[series], **_hover(tooltips)},
        paper={"linewidth": 1.4 * width, "linestyle": DASHES[series]},
        **both,
    )


def band(spread: hv.Spread, color: str) -> hv.Spread:
    """Style an error band."""
    return styled(spread, alpha=0.16, color=color, screen={"line_alpha": 0}, paper={"facecolor": color, "linewidth": 0})


def bars(errors: hv.ErrorBars, color: str) -> hv.ErrorBars:
    """Style error bars, the band of a single place."""
    return styled(
        errors,
        screen={"line_color": color, "line_width": 1.5, "upper_head": None, "lower_head": None},
        paper={"edgecolor": color, "linewidth": 1.2, "capsize": 0},
    )


def points(
    scatter: Any,
    color: Any,
    *,
    series: int = 0,
    size: float = 1.0,
    tooltips: Sequence[tuple[str, str]] | None = None,
    **both: Any,
) -> Any:
    """Style markers; `series` chooses their shape."""
    return styled(
        scatter,
        color=color,
        screen={"marker": BOKEH_MARKERS[series], "size": 7 * size, "line_color": "white", "line_width": 0.5}
        | _hover(tooltips),
        paper={"marker": MARKERS[series], "s": 22 * size**2, "edgecolor": "white", "linewidth": 0.4},
        **both,
    )


def pairs(scatter: hv.Scatter, color: str) -> hv.Scatter:
    """Style the values of two seeds, which stand in place of a band around their mean."""
    return styled(scatter, color=color, marker="o", screen={"size": 4}, paper={"s": 8, "linewidth": 0})


def ring(scatter: hv.Scatter, *, size: int, color: str = ACCENT_COLOR) -> hv.Scatter:
    """Style points as rings."""
    return styled(
        scatter,
        screen={"size": size, "fill_color": None, "line_color": color, "line_width": 1.2},
        paper={"s": size**2 / 2.2, "facecolors": "none", "edgecolors": color},
    )


def heatmap(image: hv.Image, *, cmap: str, limits: tuple[float, float], colorbar: bool = True) -> hv.Image:
    """Style an image whose colours are values; on paper :func:`overlay` adds its colour bar."""
    bar = {"title": image.vdims[0].pprint_label, "width": 14, "title_standoff": 8}
    return styled(
        image,
        cmap=cmap,
        clim=limits,
        screen={"tools": ["hover"], "colorbar": colorbar, "colorbar_opts": bar},
        paper={"interpolation": "nearest"},
    )


def text(labels: hv.Labels, color: Any, *, small: bool = False, align: str = "center") -> hv.Labels:
    """Style text within a plot; `align` tells which end of it stands at its place."""
    return styled(
        labels,
        screen={"text_color": color, "text_font_size": "7pt" if small else "9pt", "text_align": align},
        paper={"color": color, "size": 5.5 if small else 7, "horizontalalignment": align},
    )


def numbers(
    values: np.ndarray,
    x: hv.Dimension,
    y: hv.Dimension,
    *,
    dark_from: float,
    hidden_below: float = -math.inf,
    digits: int = 0,
) -> list[hv.Labels]:
    """Write the values of a heatmap, (row, column), into its cells: light where they are above `dark_from`, else dark.

    They are rounded to `digits` decimals. Cells whose value is unknown, or not above `hidden_below` as it rounds to 0,
    stay empty.
    """
    labels = []
    for dark, color in ((True, "white"), (False, "#333333")):
        rows, columns = np.nonzero((values > hidden_below) & ((values > dark_from) == dark))
        texts = [f"{v:.{digits}f}" for v in values[rows, columns]]
        labels.append(text(hv.Labels((columns, rows, texts), [x, y], "text"), color))
    return labels


@dataclass(frozen=True)
class LegendEntry:
    """One line of a legend: what an element with this label looks like.

    `line` and `marker` are the series whose dash and whose marker it has; None: it has no line, or no marker.
    """

    label: str
    color: str
    line: int | None = None
    marker: int | None = None

    def handle(self) -> mpl.lines.Line2D:
        """Draw the entry for Matplotlib."""
        return mpl.lines.Line2D(
            [],
            [],
            label=self.label,
            color=self.color,
            linewidth=1.4,
            linestyle="none" if self.line is None else DASHES[self.line],
            marker="none" if self.marker is None else MARKERS[self.marker],
            markersize=5,
            markeredgecolor="white",
            markeredgewidth=0.4,
        )


def overlay(
    elements: Sequence[Any],
    *,
    width: int = 400,
    height: int = 280,
    legend: Sequence[LegendEntry] = (),
    legend_title: str = "",
    grid: bool = True,
    colorbar: str = "",
    left: int = 0,
    axes: Sequence[hv.Dimension] = (),
    **both: Any,
) -> hv.Overlay:
    """Lay elements over each other, in the common look; `both` are options of the overlay.

    The frame has `width` × `height` pixels of the screen, of which on paper 100 are about an inch, and at least `left`
    of them left of it, so that frames below each other are flush. The `legend` stands right of it; on the screen it
    follows from the elements' labels. `colorbar` is the label of the colour bar of the :func:`heatmap` among the
    elements. `axes` are the x and the y axis, which give the labels.
    """
    return styled(
        hv.Overlay([*elements, *_anchor(elements, both)]),
        screen={
            "show_grid": grid,
            "frame_width": width,
            "frame_height": height,
            "fontsize": _SCREEN_FONTS,
            "toolbar": "above",
            "show_legend": bool(legend),
            "legend_position": "right",
            "legend_limit": 1000,
            "legend_opts": _LEGEND | {"title": legend_title},
            "gridstyle": {"grid_line_alpha": 0.25},
            "hooks": [partial(_tidy_bokeh, left=left)],
        },
        paper={
            "fig_inches": ((width + 100) / 100, (height + 80) / 100),
            "aspect": "auto",
            "fontsize": _PAPER_FONTS,
            "show_legend": False,
            "hooks": [
                partial(
                    _finish_matplotlib, legend=tuple(legend), legend_title=legend_title, grid=grid, colorbar=colorbar
                )
            ],
        },
        # Without a title HoloViews would put together one of names.
        **{"title": "", **{f"{n}label": axis.pprint_label for n, axis in zip("xy", axes, strict=False)}, **both},
    )


def _anchor(elements: Sequence[Any], options: Mapping[str, Any]) -> list[Any]:
    """Return an invisible point if there is nothing to draw on logarithmic axes: Matplotlib finds no ticks then."""
    logarithmic = [bool(options.get(name)) for name in ("logx", "logy")]
    if not any(logarithmic) or any(_is_visible(e, logarithmic) for e in elements):
        return []
    place = [float(np.mean(options.get(f"{n}lim", (1.0, 1.0)))) for n in "xy"]
    point = hv.Scatter(([place[0]], [place[1]]), "anchor_x", "anchor_y")
    return [styled(point, alpha=0, screen={"size": 1}, paper={"s": 1})]


def _is_visible(element: Any, logarithmic: Sequence[bool]) -> bool:
    """Tell whether an element has a point on both axes."""
    if isinstance(element, hv.Labels):  # text does not stretch an axis
        return False
    columns = [element.dimension_values(i) for i in (0, 1)]
    known = [np.isfinite(v) & (~np.array(log) | (v > 0)) for v, log in zip(columns, logarithmic, strict=True)]
    return bool(np.any(known[0] & known[1]))


def cells(rows: int, columns: int) -> dict[str, Any]:
    """Return the options of an overlay whose axes count the cells of an image, the first row on top."""
    return {"xlim": (-0.5, columns - 0.5), "ylim": (rows - 0.5, -0.5), "grid": False}


def _finish_matplotlib(
    plot: Any, element: Any, *, legend: Sequence[LegendEntry], legend_title: str, grid: bool, colorbar: str
) -> None:
    axis = plot.handles["axis"]
    axis.spines[["top", "right"]].set_visible(False)
    axis.minorticks_off()
    if grid:
        axis.grid(visible=True, alpha=0.25, linewidth=0.6)
    axis.set_axisbelow(True)
    if colorbar:
        # The one of HoloViews takes its height from an axis whose aspect has not been set yet.
        bar = axis.figure.colorbar(axis.images[0], cax=axis.inset_axes((1.03, 0, 0.035, 1)))
        bar.set_label(colorbar, fontsize=_PAPER_FONTS["labels"])
        bar.ax.tick_params(labelsize=_PAPER_FONTS["ticks"])
        bar.outline.set_visible(False)
        plot.handles["bbox_extra_artists"].append(bar.ax)
    if legend:
        # HoloViews takes the first of the elements that share a label, so a line's markers would be missing.
        drawn = axis.legend(
            handles=[entry.handle() for entry in legend],
            title=legend_title,
            loc="center left",
            bbox_to_anchor=(1.03, 0.5),
            frameon=False,
            borderaxespad=0,
            fontsize=_PAPER_FONTS["legend"],
            title_fontsize=_PAPER_FONTS["legend_title"],
        )
        plot.handles["bbox_extra_artists"].append(drawn)


def _tidy_bokeh(plot: Any, element: Any, *, left: int) -> None:
    plot.state.outline_line_color = None
    if left:
        plot.state.min_border_left = left
    for axis in plot.state.axis:
        axis.minor_tick_line_color = None
        axis.major_label_policy = NoOverlap(min_distance=0)
    # HoloViews says "fixed", which wants the outer size and not that of the frame.
    plot.state.sizing_mode = None


def limits(*values: Any, narrowest: float = 0.02) -> tuple[float, float]:
    """Return ends of an axis with some room around the values; NaN is passed over.

    The axis is at least as long as the fraction `narrowest` of the largest value.
    """
    flat = np.concatenate([np.ravel(np.asarray(v, dtype=float)) for v in values])
    flat = flat[np.isfinite(flat)]
    if not len(flat):
        return (0.0, 1.0)
    low, high = float(flat.min()), float(flat.max())
    least = narrowest * max(abs(low), abs(high)) or 1.0
    if high - low < least:
        low, high = (low, low + least) if low == 0 else ((low + high - least) / 2, (low + high + least) / 2)
    return (low - 0.06 * (high - low), high + 0.06 * (high - low))


def log_limits(*values: np.ndarray, least: float = 0.05) -> tuple[float, float]:
    """Return ends of a logarithmic axis with some room: a tenth of it, and the fraction `least` of a decade."""
    flat = np.concatenate([np.ravel(v) for v in values])
    flat = flat[np.isfinite(flat) & (flat > 0)]
    if not flat.size:
        return (0.1, 10.0)
    low, high = float(flat.min()), float(flat.max())
    room = max(0.1 * math.log10(high / low), least)
    return (low / 10**room, high * 10 ** (1.5 * room))  # on top there may be a text


def log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Return ticks at 1, 2 and 5 of each decade; at more places where there are few of them, at 1 where many.

    Ends less than a factor of three apart have ticks at equal distances.

    Examples
    --------
    >>> log_ticks(0.3, 12)
    [(0.5, '0.5'), (1.0, '1'), (2.0, '2'), (5.0, '5'), (10.0, '10')]
    >>> log_ticks(9e4, 4e5)[0]
    (100000.0, '100k')
    """
    span = high / low
    steps = ("1", "1.5", "2", "3", "4", "6", "8") if span < 10 else ("1", "2", "5") if span < 3e3 else ("1",)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    places = [float(f"{m}e{decade}") for decade in decades for m in steps]
    if span < 3:
        places = [float(f"{v:.6g}") for v in MaxNLocator(4).tick_values(low, high)]
    units = ((1e6, 1e6, "M"), (1e4, 1e3, "k"), (0.0, 1.0, ""))
    ticks = []
    for place in (v for v in places if low <= v <= high):
        unit, letter = next((unit, letter) for least, unit, letter in units if place >= least)
        ticks.append((place, f"{place / unit:g}{letter}"))
    return ticks


def panels(
    plots: Sequence[hv.Overlay],
    *,
    columns: int,
    title: str = "",
    width: int = 400,
    height: int = 280,
    gap: int = 80,
    linked: bool = False,
) -> hv.Overlay | hv.Layout:
    """Put plots, `columns` in a row, beside and below each other; a single one stays, with `title` before its own.

    Parameters
    ----------
    plots : sequence of holoviews.Overlay
        What :func:`overlay` returned, with frames of `width` × `height`, and `gap` between those for labels and titles.
    linked : bool
        Whether plots move together on the screen when one is zoomed, along axes of the same dimension.
    """
    if len(plots) == 1:
        if not title:
            return plots[0]
        own = hv.Store.lookup_options("bokeh", plots[0], "plot").kwargs.get("title", "")
        return styled(plots[0], title=", ".join(part for part in (title, own) if part))
    columns = min(columns, len(plots))
    rows = -(-len(plots) // columns)
    # Beside the frames there is room for their labels, in the same unit.
    # A title above all stands in 0.3 inches more.
    top = 0.3 if title else 0.0
    inches = (columns * (width + 70) / 100, rows * (height + gap) / 100 + top)
    return styled(
        hv.Layout(list(plots)).cols(columns),
        title=title,
        screen={"toolbar": "above", "merge_tools": True, "shared_axes": linked},
        paper={
            "sublabel_format": "",
            "fontsize": {"title": _PAPER_FONTS["title"] + 1},
            "fig_inches": inches,
            "fig_bounds": (0, 0, 1, 1 - (top + 0.15) / inches[1]),
            "aspect_weight": 0,
            "tight": False,
            "hspace": 70 / width,
            "vspace": gap / height,
        },
    )


def stacked(plots: Sequence[hv.Overlay], *, width: int, heights: Sequence[int], gap: int, title: str = "") -> hv.Layout:
    """Put plots of different heights below each other, on one x axis; see :func:`panels`."""
    plots = [styled(plot, paper={"aspect": width / height}) for plot, height in zip(plots, heights, strict=True)]
    layout = panels(
        plots, columns=1, title=title, width=width, height=sum(heights) // len(heights), gap=gap, linked=True
    )
    return styled(layout, paper={"aspect_weight": 1})
