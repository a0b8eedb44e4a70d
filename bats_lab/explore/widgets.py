"""What every explorer is made of: controls above, a picture below, and a sentence where there is nothing to show."""

from __future__ import annotations

import contextlib
import functools
import html
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import ipywidgets
import numpy as np
import xarray as xr
from traitlets import TraitError

from bats_lab.errors import BatsLabError
from bats_lab.explore.picture import Picture
from bats_lab.explore.screen import style_sheet
from bats_lab.plots.runs import split_results
from bats_lab.plots.style import delta_t_label
from bats_lab.runs.results import open_results

__all__ = ["EXPECTED", "Explorer", "Sentence", "in_words", "opened", "parts_of"]

#: What a person can do something about, and is told in a sentence. Anything else is a mistake of the program.
EXPECTED = (BatsLabError, OSError, ValueError)

#: Time steps that can be chosen where a network is run, in seconds.
DELTA_T_CHOICES = (
    *(0.0, 0.0001, 0.0002, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007, 0.008, 0.009),
    *(0.01, 0.012, 0.015, 0.02),
)


class Sentence(ipywidgets.HTML):  # type: ignore[misc]
    """A sentence in place of a picture."""

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self.add_class("bats-lab-words")
        self.tell(text)

    def tell(self, text: str) -> None:
        """Say something; an empty text takes no room."""
        self.text = text
        self.value = html.escape(text)
        self.layout.display = None if text else "none"


def in_words(explore: Callable[..., Any]) -> Callable[..., Any]:
    """Make an explorer answer with a :class:`Sentence`, not a traceback, where there is nothing to explore.

    It then takes `state` as well, values of its controls at the start, and knows how it was called.
    """

    @functools.wraps(explore)
    def explore_or_tell(*args: Any, state: Mapping[str, Any] | None = None, **kwargs: Any) -> Any:
        try:
            made = explore(*args, **kwargs)
            if isinstance(made, Explorer):
                made.call = _call(explore.__name__, args, kwargs)
                made.restore(state or {})
        except EXPECTED as error:
            return Sentence(str(error))
        return made

    return explore_or_tell


#: How notebooks call what an explorer is given.
_NAMES = {"Dataset": "results", "Graph": "graph", "Network": "network", "Spikes": "spikes"}


def _call(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Write a call; what cannot be written, as results in memory, goes by the name that notebooks give it."""

    def written(value: Any) -> str | None:
        if isinstance(value, (str, int, float, tuple, list)):
            return repr(value)
        return repr(str(value)) if isinstance(value, Path) else _NAMES.get(type(value).__name__)

    given = [written(value) or "results" for value in args]
    given += [f"{key}={text}" for key, value in kwargs.items() if (text := written(value))]
    return f"explore.{name}({', '.join(given)}"


def opened(results: xr.Dataset | str | Path) -> xr.Dataset:
    """Return results, opened if they are given as a folder."""
    if isinstance(results, (str, Path)):
        return open_results(results)
    if not isinstance(results, xr.Dataset):
        raise TypeError(f"results is a {type(results).__name__}; it must be an xarray.Dataset or a folder of results.")
    return results


def parts_of(results: xr.Dataset | str | Path, *, keep: Sequence[str] = ()) -> dict[str, xr.Dataset]:
    """Split results into those of each data set (:func:`bats_lab.plots.split_results`); there is at least one."""
    parts = dict(split_results(opened(results), keep=keep))
    if not parts:
        raise ValueError("The results hold no finished run; there is nothing to explore.")
    return parts


class Explorer(ipywidgets.VBox):  # type: ignore[misc]
    """Controls, and a picture that follows them.

    Parameters
    ----------
    rows : sequence of mapping of str to ipywidgets.Widget
        Controls by name, those side by side in one row; empty rows are left out. `draw` is called whenever the value of
        one of them changes, and once at the start.
    draw : callable
        Takes the values of the controls as keyword arguments and changes the pictures. What it returns is written below
        the controls. An error a person can do something about is told there in a sentence.
    pictures : sequence of Picture
        What `draw` changes.
    body : callable or None
        Returns a widget in which the pictures are laid out; None: below each other.
    beside : bool
        Whether the controls stand right of the pictures, one in a row, and not above them.
    buttons : mapping, or None
        Names and texts of buttons at the end of the controls, whose `on_click` tells what they do; or other widgets.
    presets : mapping of str to mapping, or None
        What is worth a look: names, and the values that controls have there; the others are as at the start. Those that
        these controls cannot show are left out.

    Attributes
    ----------
    controls : dict of str to ipywidgets.Widget
    buttons : dict of str to ipywidgets.Button
    pictures : list of Picture
    sentence : Sentence
        What is said beside the pictures.
    presets : dict of str to dict
        Those that can be chosen from the list `look_at`.
    linked : ipywidgets.HTML
        What opens the explorer as it is, once it has been asked for by the button `link`.

    Notes
    -----
    Nothing has to be throttled here: ipywidgets sends the next value of a control only once the last has been
    answered, and passes over those in between.
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        draw: Callable[..., str | None],
        pictures: Sequence[Picture],
        *,
        body: Callable[[], Any] | None = None,
        buttons: Mapping[str, Any] | None = None,
        presets: Mapping[str, Mapping[str, Any]] | None = None,
        beside: bool = False,
    ) -> None:
        self.controls = {name: control for row in rows for name, control in row.items()}
        self.buttons = {name: _button(given) for name, given in (buttons or {}).items()}
        self.pictures = list(pictures)
        self.sentence = Sentence()
        #: When it was last drawn.
        self.drawn = 0.0
        #: How it was called, up to the last argument; the address of the page that it is a part of.
        self.call, self.address = "explore", ""
        self._draw = draw
        self._busy = False
        self.presets = {n: dict(p) for n, p in (presets or {}).items() if all(map(self._offers, p, p.values()))}
        self.linked = ipywidgets.HTML()
        self.linked.add_class("bats-lab-words")
        lines = [list(row.values()) for row in rows if row]
        if beside:
            lines = [[control] for control in self.controls.values()]
        lines[-1] += [*self.buttons.values(), *self._common()]
        controls = [side_by_side(line, align_items="center", grid_gap="2px 18px") for line in lines]
        panel = ipywidgets.VBox([*controls, style_sheet()])
        # Drawn before there are widgets, so that what is displayed is what has been drawn.
        self.redraw()
        self._start = self.state
        below = ipywidgets.VBox([p.widget for p in self.pictures]) if body is None else body()
        below.layout.flex, below.layout.min_width = ("1 1 0" if beside else "1 1 auto"), "0"
        if beside:
            panel.layout.flex = "0 0 290px"
        # Tests and style sheets find the parts by these names.
        panel.add_class("bats-lab-controls")
        below.add_class("bats-lab-picture")
        for control in self.controls.values():
            control.observe(self._changed, "value")
        told = [self.linked, self.sentence]
        super().__init__([*told, ipywidgets.HBox([below, panel])] if beside else [panel, *told, below])
        self.add_class("bats-lab-explorer")

    @property
    def values(self) -> dict[str, Any]:
        """The values of all controls."""
        return {name: control.value for name, control in self.controls.items()}

    @property
    def state(self) -> dict[str, Any]:
        """The values of all controls as numbers and texts, which :meth:`restore` takes."""
        return {name: _plain(control) for name, control in self.controls.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Give controls the values of a state; those that are not in it stay.

        Raises
        ------
        ValueError
            If there is no such control, or it has no such value.
        """
        unknown = [name for name in state if name not in self.controls]
        if unknown:
            raise ValueError(f"There is no control {unknown[0]!r}; there are {', '.join(self.controls)}.")
        # What a control offers may depend on others: what was not taken is set again once these have been.
        for _ in range(2):
            with self.together():
                for name, value in state.items():
                    _set(self.controls[name], value)
            state = {name: value for name, value in state.items() if not _has(self.controls[name], value)}
        for name, value in state.items():
            raise ValueError(f"{name} cannot be {value!r}{_offered(self.controls[name])}.")

    def offer(self, name: str, value: Any) -> None:
        """Give a control a value if it has such a one."""
        control = self.controls[name]
        if _options(control, value) is not None if hasattr(control, "options") else control.min <= value <= control.max:
            control.value = value

    def _offers(self, name: str, value: Any) -> bool:
        control = self.controls.get(name)
        return control is not None and (not hasattr(control, "options") or _options(control, value) is not None)

    def _common(self) -> list[Any]:
        """Return what every explorer has at the end of its controls."""
        self.link = _button("link")
        self.link.tooltip = "What opens this explorer as it is now"
        self.link.on_click(lambda _: self._tell_link())
        self.look_at = choice("look at", [("…", ""), *((name, name) for name in self.presets)])
        self.look_at.observe(self._show_preset, "value")
        return [self.look_at, self.link] if self.presets else [self.link]

    def _show_preset(self, change: Any) -> None:
        if change.new:
            with contextlib.suppress(ValueError):  # what was chosen at the start may not be there now
                self.restore(self._start | self.presets[change.new])
            self.look_at.value = ""  # None would be no line of the list

    def _tell_link(self) -> None:
        changed = {name: value for name, value in self.state.items() if value != self._start[name]}
        if self.address:
            query = urlencode({n: v if isinstance(v, str) else json.dumps(v) for n, v in changed.items()})
            url = html.escape("&".join(filter(None, [self.address, query])))
            text = f'<a href="{url}">{url}</a>'
        else:
            begin = self.call + (", " if changed and not self.call.endswith("(") else "")
            text = f"<code>{html.escape(begin + (f'state={changed}' if changed else '') + ')')}</code>"
        self.linked.value = text

    def magnify(self, factor: float) -> None:
        """Make type, dots and lines of all pictures a factor larger than they were drawn."""
        for picture in self.pictures:
            picture.magnify(factor)

    def redraw(self) -> None:
        """Bring the pictures to the values of the controls."""
        self._busy = True
        try:
            with ExitStack() as changes:
                for picture in self.pictures:
                    changes.enter_context(picture.changing())
                text = self._draw(**self.values) or ""
        except EXPECTED as error:
            text = str(error)
        finally:
            self._busy = False
        self.sentence.tell(text)
        self.linked.value = ""
        self.drawn = time.monotonic()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Change several controls and redraw once."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
        self.redraw()

    def choose(self, values: Mapping[str, Any]) -> None:
        """Give several controls a value each, and redraw once."""
        with self.together():
            for name, value in values.items():
                self.controls[name].value = value

    def _changed(self, _: Any) -> None:
        # While drawing, a control may be given other limits or options, and with them another value.
        if not self._busy:
            self.redraw()


def _plain(control: Any) -> Any:
    """Return a control's value as numbers and text: values that are something else go by their labels."""
    value = control.value
    if isinstance(value, tuple) and isinstance(control, (ipywidgets.SelectMultiple, ipywidgets.FloatRangeSlider)):
        return list(value)
    return value if isinstance(value, (str, int, float)) or value is None else control.label


def _options(control: Any, value: Any) -> Any:
    """Return the value of an option that is given by itself or by its label; None: there is none."""
    pairs = [option if isinstance(option, tuple) else (str(option), option) for option in control.options]
    if isinstance(control, ipywidgets.SelectMultiple):
        found = [next((own for label, own in pairs if v in (own, label)), None) for v in value]
        return None if None in found else tuple(found)
    return next((own for label, own in pairs if value in (own, label)), None)


def _set(control: Any, value: Any) -> None:
    if not hasattr(control, "options"):
        with contextlib.suppress(TraitError):
            control.value = tuple(value) if isinstance(value, list) else value
    elif (option := _options(control, value)) is not None or value is None:
        control.value = option


def _has(control: Any, value: Any) -> bool:
    now = control.value
    if hasattr(control, "options"):
        return bool(now == _options(control, value))
    return bool(np.allclose(now, value)) if np.shape(now) == np.shape(value) and not isinstance(value, str) else False


def _offered(control: Any) -> str:
    if hasattr(control, "options"):
        labels = [str(o[0] if isinstance(o, tuple) else o) for o in control.options]
        return f"; there are {', '.join(labels[:12])}{' …' if len(labels) > 12 else ''}"
    return f"; it is from {control.min:g} to {control.max:g}" if hasattr(control, "min") else ""


def in_room(widget: Any, *, width: int, grow: int = 1) -> Any:
    """Let a widget of a row be `width` pixels wide and grow with the row, by `grow` parts of what is left."""
    widget.layout.flex, widget.layout.min_width = f"{grow} 1 {width}px", "0"
    return widget


def side_by_side(widgets: Sequence[Any], **layout: str) -> ipywidgets.Box:
    """Lay widgets out in a row, or in several where there is not enough room."""
    return ipywidgets.Box(widgets, layout=ipywidgets.Layout(flex_flow="row wrap", **layout))


def _button(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    return ipywidgets.Button(description=given, layout=ipywidgets.Layout(width="max-content"))


def _described(text: str, width: str, **layout: str) -> dict[str, Any]:
    layout = ipywidgets.Layout(width=width, **layout)
    return {"description": text, "style": {"description_width": "initial"}, "layout": layout}


def slider(text: str, low: float, high: float, value: float, *, step: float = 1, unit: str = "") -> Any:
    """Return a slider of whole numbers, or of others if `step` is none."""
    kind = ipywidgets.IntSlider if isinstance(step, int) else ipywidgets.FloatSlider
    form = "d" if isinstance(step, int) else ".0f" if step >= 1 else ".2f"
    options = _described(f"{text} ({unit})" if unit else text, "320px")
    return kind(value=value, min=low, max=high, step=step, readout_format=form, **options)


def step_slider(
    text: str = "Δt", values: Sequence[float] = DELTA_T_CHOICES, value: float | None = None
) -> ipywidgets.SelectionSlider:
    """Return a slider over time steps (s), which are shown in ms; `value`, if it is none of them, is added."""
    steps = sorted({float(v) for v in values} | ({float(value)} if value is not None else set()))
    return picked(text, [(delta_t_label(v), v) for v in steps], steps[0] if value is None else float(value))


def picked(text: str, options: Sequence[Any], value: Any) -> ipywidgets.SelectionSlider:
    """Return a slider over whatever options there are."""
    return ipywidgets.SelectionSlider(options=list(options), value=value, **_described(text, "320px"))


def choice(text: str, options: Sequence[Any], value: Any = None) -> ipywidgets.Dropdown:
    """Return a drop-down list of options, each a value or (label, value)."""
    options = [v.item() if isinstance(v, np.generic) else v for v in options]
    first = options[0][1] if isinstance(options[0], tuple) else options[0]
    return ipywidgets.Dropdown(
        options=options, value=first if value is None else value, **_described(text, "max-content")
    )


def if_several(name: str, text: str, options: Sequence[Any], value: Any = None) -> dict[str, Any]:
    """Return a :func:`choice` by its name where there is one, and nothing where there is one option only."""
    return {name: choice(text, options, value)} if len(options) > 1 else {}


def window_slider(text: str, duration_ms: float) -> ipywidgets.FloatRangeSlider:
    """Return a slider of a window of time within a duration, in ms."""
    whole: dict[str, Any] = {"value": (0.0, duration_ms), "min": 0.0, "max": duration_ms, "step": duration_ms / 100}
    return ipywidgets.FloatRangeSlider(readout_format=".0f", **whole, **_described(f"{text} (ms)", "360px"))


#: Steps of a slider of time, each of which is shown so long while time runs.
_N_STEPS, _INTERVAL_MS = 100, 100


def time_slider(duration_ms: float) -> dict[str, Any]:
    """Return a slider of time within a duration, in ms, at the end of it, as the control `time`."""
    return {"time": slider("time", 0.0, duration_ms, duration_ms, step=duration_ms / _N_STEPS, unit="ms")}


def player(time: Any) -> ipywidgets.Play:
    """Return buttons that let time run: they move a :func:`time_slider`."""
    play = ipywidgets.Play(min=0, max=_N_STEPS, interval=_INTERVAL_MS, layout=ipywidgets.Layout(width="120px"))
    play.observe(lambda change: setattr(time, "value", change.new * time.max / _N_STEPS), "value")
    return play


def several(text: str, options: Sequence[tuple[str, Any]]) -> ipywidgets.SelectMultiple:
    """Return a list of which several options can be chosen; at the start all are."""
    look = _described(text, "max-content", min_width="140px")
    values = [value for _, value in options]
    return ipywidgets.SelectMultiple(options=options, value=values, rows=min(len(options), 5), **look)


def dot(color: str, sign: str = "●") -> str:
    """Return a coloured sign, as HTML, that tells which of a picture's marks is meant."""
    return f'<span style="color:{color}">{sign}</span>'


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, bold: int | None = None) -> str:
    """Lay out texts as an HTML table, one column of it bold."""

    def line(kind: str, cells: Sequence[str]) -> str:
        looks = ["text-align:right" if i else "text-align:left" for i in range(len(cells))]
        looks = [f"{look};font-weight:bold" if i == bold else look for i, look in enumerate(looks)]
        return "".join(
            f"<{kind} style='padding:0 10px;{look}'>{cell}</{kind}>" for look, cell in zip(looks, cells, strict=True)
        )

    lines = [line("th", head), *(line("td", row) for row in rows)]
    table = "".join(f"<tr>{cells}</tr>" for cells in lines)
    return f"<table style='line-height:1.5;white-space:nowrap'>{table}</table>"
