"""What HoloViews holds of a plot: its elements, its options, and whether both backends can draw it."""

from __future__ import annotations

from typing import Any

import holoviews as hv


def elements(plot: Any, kind: type) -> list[Any]:
    """All elements of exactly this type in a plot."""
    return [e for e in plot.traverse(lambda e: e, [kind]) if type(e) is kind]


def option(plot: Any, name: str, backend: str = "bokeh") -> Any:
    return hv.Store.lookup_options(backend, plot, "plot").kwargs.get(name)


def color(element: Any) -> str:
    return hv.Store.lookup_options("bokeh", element, "style").kwargs["color"]


def draw(plot: Any) -> None:
    """Draw a plot by both backends."""
    for backend in ("bokeh", "matplotlib"):
        assert hv.Store.renderers[backend].get_plot(plot).state is not None
    hv.plotting.mpl.plt.close("all")
