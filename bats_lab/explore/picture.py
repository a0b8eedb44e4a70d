"""Pictures that change at once: a plot that HoloViews lays out once, and whose data are then exchanged.

HoloViews takes seconds to lay out a figure of several plots, and hundreds of milliseconds to update one; an explorer
has 100 ms. So a :class:`Picture` has the plots drawn by HoloViews once, remembers which of Bokeh's data sources belongs
to which element, and from then on hands over columns of numbers. What a change consists of goes to the browser in one
message.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import holoviews as hv
import ipywidgets
import numpy as np
from bokeh.core.serialization import Serializer
from bokeh.document import Document
from bokeh.events import Tap
from bokeh.layouts import gridplot
from bokeh.models import BasicTicker, CustomJS, FixedTicker, PointDrawTool, SaveTool, UIElement
from bokeh.protocol.messages.patch_doc import patch_doc
from jupyter_bokeh import BokehModel

from bats_lab.explore.screen import Type, fill_room, svg_action

__all__ = ["Panel", "Picture", "load_bokeh"]


def load_bokeh() -> None:
    """Load BokehJS into the notebook from the installed packages, and make HoloViews plots show.

    Call it in a cell of its own, before the first explorer. JupyterLab and Voilà then need no network.

    Notes
    -----
    By default HoloViews, Panel and Bokeh fetch their scripts and style sheets from the internet; without it, cells stay
    empty and say nothing.
    """
    import panel as pn
    from panel.io.notebook import patch_inline_stylesheets

    pn.extension("ipywidgets", inline=True)
    hv.extension("bokeh", inline=True, logo=False)
    # Plots are shown as widgets, which Voilà can show as well as JupyterLab.
    pn.config.comms = "ipywidgets"

    def inline_css(_: Any, root: Any) -> None:
        for model in root.select({"type": UIElement}):
            patch_inline_stylesheets(model)

    hooks = pn.viewable.Viewable._preprocessing_hooks
    if not any(getattr(hook, "__name__", "") == inline_css.__name__ for hook in hooks):
        hooks.append(inline_css)


#: Up to so many bytes arrays are written into the text of a message. Larger ones travel as they are, two messages each:
#: as text, they would first be compressed.
_INLINE = 100_000


#: Size of points that can be dragged, in pixels.
_DRAGGED_SIZE = 18


class _Model(BokehModel):  # type: ignore[misc]
    """A Bokeh model in a notebook; changes made within :meth:`together` travel in one message.

    What is displayed starts from the model as it was when it was last bundled. A change is therefore sent to what is
    displayed already, and remembered for what will be.
    """

    _events: list[Any] | None = None
    _outdated = False

    def __init__(self, model: Any, **traits: Any) -> None:
        super().__init__(model, **traits)
        self._view_count = 0
        self.observe(self._displayed, "_view_count")

    def _displayed(self, change: Any) -> None:
        if self._outdated and (change.new or 0) > (change.old or 0):
            self.render_bundle = self._model_to_traits(self._model)
            self._outdated = False

    @contextmanager
    def together(self) -> Iterator[None]:
        if self._events is not None:  # within an outer change already
            yield
            return
        self._events = []
        try:
            yield
        finally:
            events, self._events = self._events, None
            if events:
                self._send_patch(events)

    def _document_patched(self, event: Any) -> None:
        if event.setter is self:
            return
        if self._events is None:
            self._send_patch([event])
        else:
            self._events.append(event)

    def _send_patch(self, events: Sequence[Any]) -> None:
        self._outdated = True
        if not self._view_count:
            return
        models = self._document.models
        serializer = Serializer(references=models.synced_references)
        content = {"events": serializer.encode(events)}
        if sum(memoryview(buffer.data).nbytes for buffer in serializer.buffers) < _INLINE:
            serializer = Serializer(references=models.synced_references, deferred=False)
            content = {"events": serializer.encode(events)}
        models.flush_synced(lambda model: not serializer.has_ref(model))
        message = patch_doc(patch_doc.create_header(), {}, content)
        message.add_buffers(*serializer.buffers)
        for part in (message.header_json, message.metadata_json, message.content_json):
            self.send({"msg": "patch", "payload": part})
        for buffer in message.buffers:
            self.send({"msg": "patch", "payload": json.dumps(buffer.ref)})
            self.send({"msg": "patch"}, [buffer.to_bytes()])


class Panel:
    """One plot of a picture, `figure` as Bokeh has it; its elements are known by their HoloViews group."""

    def __init__(self, plot: Any) -> None:
        self.figure = plot.state
        # HoloViews asks for WebGL, in which glyphs are missing where a page has several plots.
        self.figure.output_backend = "canvas"
        self._plots: dict[str, Any] = {}
        for leaf in plot.traverse(lambda p: p):
            if "source" in getattr(leaf, "handles", {}):
                self._plots[leaf.current_frame.group] = leaf

    def __contains__(self, name: str) -> bool:
        return name in self._plots

    def source(self, name: str) -> Any:
        """Return the Bokeh data source of an element."""
        return self._plots[name].handles["source"]

    def renderer(self, name: str) -> Any:
        """Return the Bokeh glyph renderer of an element."""
        return self._plots[name].handles["glyph_renderer"]

    def on_click(self, name: str, choose: Callable[[dict[str, Any]], None]) -> None:
        """Hand over the columns of a mark of an element, at its place, when a person clicks it."""
        source = self.source(name)

        def click(_: str, __: Any, indices: list[int]) -> None:
            if indices:
                choose({key: values[indices[-1]] for key, values in source.data.items()})
                # So that the same one can be clicked again, and none is drawn as if the others were not there.
                source.selected.indices = []

        source.selected.on_change("indices", click)

    def on_tap(self, choose: Callable[[float, float], None]) -> None:
        """Hand over the place, in units of the axes, where a person clicks the plot."""
        self.figure.on_event(Tap, lambda event: choose(event.x, event.y))

    def columns(self, name: str) -> dict[str, Any]:
        """Return what an element shows now, by column."""
        return dict(self.source(name).data)

    def set(self, name: str, columns: Mapping[str, Any]) -> None:
        """Exchange what an element shows: the values of each of its dimensions, all of one length.

        A ValueError if the columns are not those that the element has.
        """
        source = self.source(name)
        if set(columns) != set(source.data):
            raise ValueError(f"{name!r} has the columns {sorted(source.data)}; got {sorted(columns)}.")
        source.data = {key: _column(values) for key, values in columns.items()}
        entry = self._legend_entry(name)
        if entry is not None:
            entry.visible = any(len(values) for values in columns.values())

    def set_image(self, name: str, values: np.ndarray, *, limit: float | None = None) -> None:
        """Exchange an image of values (row, column), one pixel a value and the first row on top.

        The ends of the colour scale are ±`limit`; None: as they are.
        """
        rows, columns = values.shape
        data = {"image": [np.ascontiguousarray(values, np.float32)], "x": [-0.5], "y": [-0.5]}
        self.source(name).data = data | {"dw": [columns], "dh": [rows]}
        self.x_limits(-0.5, columns - 0.5)
        self.y_limits(rows - 0.5, -0.5)
        if limit is not None:
            self.scale(name, limit)

    def scale(self, name: str, limit: float) -> None:
        """Let an image's colours reach from -`limit` to `limit`."""
        self._plots[name].handles["color_mapper"].update(low=-limit, high=limit)

    def paint(self, name: str, color: str) -> None:
        """Give an element another colour."""
        glyph = self._plots[name].handles["glyph"]
        for part in ("fill_color", "line_color"):
            if part in glyph.properties() and getattr(glyph, part) not in ("white", None):
                setattr(glyph, part, color)

    def name(self, name: str, text: str) -> None:
        """Give an element another name in the legend."""
        entry = self._legend_entry(name)
        if entry is not None:
            entry.label = {"value": text}

    def _legend_entry(self, name: str) -> Any:
        renderer = self.renderer(name)
        items = [item for legend in self.figure.legend for item in legend.items if renderer in item.renderers]
        return items[0] if items else None

    def title(self, text: str) -> None:
        """Exchange the title."""
        self.figure.title.text = text

    def x_limits(self, start: float, end: float) -> None:
        """Set the ends of the x axis."""
        _set_range(self.figure.x_range, start, end)

    def y_limits(self, start: float, end: float) -> None:
        """Set the ends of the y axis."""
        _set_range(self.figure.y_range, start, end)

    def labels(self, *, x: str | None = None, y: str | None = None) -> None:
        """Exchange the labels of the axes; None: as it is."""
        for axes, text in ((self.figure.xaxis, x), (self.figure.yaxis, y)):
            if text is not None:
                axes[0].axis_label = text

    def x_ticks(self, ticks: Sequence[tuple[float, str]] | None) -> None:
        """Set the ticks of the x axis and their labels; None: those that Bokeh chooses."""
        _set_ticks(self.figure.xaxis[0], ticks)

    def y_ticks(self, ticks: Sequence[tuple[float, str]] | None) -> None:
        """Set the ticks of the y axis and their labels; None: those that Bokeh chooses."""
        _set_ticks(self.figure.yaxis[0], ticks)

    def leave(self, left: int) -> None:
        """Leave at least so many pixels left of the frame, for axes of whatever labels.

        Bokeh lines frames up below each other, and cuts off at the right what an axis less leaves of a figure's width.
        """
        self.figure.min_border_left = left

    def show(self, visible: bool) -> None:
        """Show the plot, or take it away together with its room."""
        self.figure.visible = visible


def _column(values: Any) -> Any:
    values = np.asarray(values)
    return values.tolist() if values.dtype.kind in "UO" else values


def _set_ticks(axis: Any, ticks: Sequence[tuple[float, str]] | None) -> None:
    if ticks is None:
        if isinstance(axis.ticker, FixedTicker):
            axis.update(ticker=BasicTicker(), major_label_overrides={})
        return
    places = [place for place, _ in ticks]
    if isinstance(axis.ticker, FixedTicker):
        axis.ticker.ticks = places
    else:
        # Another model makes Bokeh go through the whole document, which takes longer than all the rest.
        axis.ticker = FixedTicker(ticks=places)
    axis.major_label_overrides = dict(ticks)


def _set_range(axis_range: Any, start: float, end: float) -> None:
    # Resetting the view goes back to these ends, too.
    axis_range.update(start=start, end=end, reset_start=start, reset_end=end)


class Picture:
    """Plots beside and below each other whose data can be exchanged within milliseconds.

    Parameters
    ----------
    plots : sequence of holoviews.Overlay
        What :func:`bats_lab.plots.style.overlay` returned. Elements that are to change need a `group` of their own.
    columns : int
        Plots in a row.
    share_x : bool
        Whether the plots have one x axis, and are zoomed together.
    toolbar : bool
        Whether there are tools to zoom, move and save above the plots.
    rigid : bool
        Whether plots keep their shape when they are made as wide as the room they are in.
    share : float
        Share that they may fill of the window's height below the controls.

    Attributes
    ----------
    panels : list of Panel
        The plots, in order.
    widget : ipywidgets.Widget
        What is displayed. It is made when it is first asked for; changes before that cost next to nothing.

    Examples
    --------
    >>> from bats_lab.plots import style
    >>> curve = hv.Curve(([0, 1], [2, 3]), "time", "potential", group="potential")
    >>> picture = Picture([style.overlay([curve])])
    >>> with picture.changing():
    ...     picture.panels[0].set("potential", {"time": [0, 1], "potential": [5, 6]})
    >>> picture.panels[0].columns("potential")["potential"]
    array([5, 6])
    """

    def __init__(
        self,
        plots: Sequence[Any],
        *,
        columns: int = 1,
        share_x: bool = False,
        toolbar: bool = True,
        rigid: bool = False,
        share: float = 1.0,
    ) -> None:
        renderer = hv.Store.renderers["bokeh"]
        self.panels = [Panel(renderer.get_plot(plot, doc=Document())) for plot in plots]
        figures = [panel.figure for panel in self.panels]
        if share_x:
            for figure in figures[1:]:
                figure.x_range = figures[0].x_range
        location = "above" if toolbar else None
        self._plots = gridplot(figures, ncols=columns, toolbar_location=location, merge_tools=True)
        if toolbar:
            tools = self._plots.toolbar
            tools.tools = [*(t for t in tools.tools if not isinstance(t, SaveTool)), svg_action(self._plots)]
            tools.logo = None
        rows = [figures[i : i + columns] for i in range(0, len(figures), columns)]
        # Once there is a document, every change goes through it.
        self._fill_room = partial(fill_room, self._plots, rows, share=share, rigid=rigid)
        self._type: Type | None = None
        self._layout = ipywidgets.Layout()
        self._widget: _Model | None = None
        self._changing = False

    @property
    def widget(self) -> Any:
        """What is displayed."""
        if self._widget is None:
            self._fill_room()
            self._widget = _Model(self._plots, layout=self._layout)
            self._widget.add_class("bats-lab-room")
        return self._widget

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Send everything that is changed within to the browser in one message."""
        self._changing = True
        try:
            with nullcontext() if self._widget is None else self._widget.together():
                yield
        finally:
            self._changing = False

    def show(self, visible: bool) -> None:
        """Show all plots, or take them away together with their room."""
        self._layout.display = None if visible else "none"

    def magnify(self, factor: float) -> None:
        """Let type, dots and lines be a factor larger than they were drawn."""
        self._type = self._type or Type(self._plots)
        with self.changing():
            self._type.magnify(factor)

    def drag_points(self, panel: Panel, name: str, moved: Callable[[dict[str, Any]], None]) -> None:
        """Let people drag the points of an element; call it before the widget is made.

        `moved` is called some ten times a second with the element's columns while a point is dragged, and once it is
        let go.
        """
        source, renderer = panel.source(name), panel.renderer(name)
        tool = PointDrawTool(renderers=[renderer], add=False, description="Drag the points")
        panel.figure.add_tools(tool)
        # Bokeh looks for the point where the pointer is after the first 5 pixels of a drag: it has to be large enough.
        renderer.glyph.size = _DRAGGED_SIZE
        # Panning would take the drags from the tool. The toolbar people see is that of all plots, but each plot
        # has its own as well.
        toolbar = self._plots.toolbar
        toolbar.tools = [*toolbar.tools, tool]
        toolbar.active_multi = panel.figure.toolbar.active_multi = tool
        for each in (toolbar, *(p.figure.toolbar for p in self.panels)):
            each.active_drag = None
        # Bokeh itself tells the kernel of the new place only when the point is let go.
        tell = """
            const now = Date.now();
            if (source.selected.indices.length && now - (source._told ?? 0) > 100) {
                source._told = now;
                source.setv({data: source.data}, {check_eq: false});
            }
        """
        panel.figure.js_on_event("pan", CustomJS(args={"source": source}, code=tell))

        def tell_if_dragged(_: str, __: Any, columns: Mapping[str, Any]) -> None:
            if not self._changing:
                moved(dict(columns))

        source.on_change("data", tell_if_dragged)
