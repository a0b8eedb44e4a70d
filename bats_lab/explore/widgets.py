"""What every explorer is made of: controls above, a picture below, and a sentence where there is nothing to show."""

from __future__ import annotations

import functools
import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import xarray as xr

from bats_lab.errors import BatsLabError
from bats_lab.explore.picture import Picture
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
        self.tell(text)

    def tell(self, text: str) -> None:
        """Say something; an empty text takes no room."""
        self.text = text
        self.value = html.escape(text)
        self.layout.display = None if text else "none"


def in_words(explore: Callable[..., Any]) -> Callable[..., Any]:
    """Make an explorer answer with a :class:`Sentence`, not a traceback, where there is nothing to explore."""

    @functools.wraps(explore)
    def explore_or_tell(*args: Any, **kwargs: Any) -> Any:
        try:
            return explore(*args, **kwargs)
        except EXPECTED as error:
            return Sentence(str(error))

    return explore_or_tell


def opened(results: xr.Dataset | str | Path) -> xr.Dataset:
    """Return results, opened if they are given as a folder."""
    if isinstance(results, (str, Path)):
        return open_results(results)
    if not isinstance(results, xr.Dataset):
        raise TypeError(f"results is a {type(results).__name__}; it must be an xarray.Dataset or a folder of results.")
    return results


def parts_of(results: xr.Dataset | str | Path) -> dict[str, xr.Dataset]:
    """Split results into those of each data set (:func:`bats_lab.plots.split_results`); there is at least one."""
    parts = dict(split_results(opened(results)))
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

    Attributes
    ----------
    controls : dict of str to ipywidgets.Widget
    buttons : dict of str to ipywidgets.Button
    pictures : list of Picture
    sentence : Sentence
        What is said beside the pictures.

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
        beside: bool = False,
    ) -> None:
        self.controls = {name: control for row in rows for name, control in row.items()}
        self.buttons = {name: _button(given) for name, given in (buttons or {}).items()}
        self.pictures = list(pictures)
        self.sentence = Sentence()
        self._draw = draw
        self._busy = False
        lines = [list(row.values()) for row in rows if row]
        if beside:
            lines = [[control] for control in self.controls.values()]
        lines[-1] += self.buttons.values()
        panel = ipywidgets.VBox([side_by_side(line, align_items="center", grid_gap="2px 18px") for line in lines])
        # Drawn before there are widgets, so that what is displayed is what has been drawn.
        self.redraw()
        below = ipywidgets.VBox([p.widget for p in self.pictures]) if body is None else body()
        # Tests and style sheets find the parts by these names.
        panel.add_class("bats-lab-controls")
        below.add_class("bats-lab-picture")
        for control in self.controls.values():
            control.observe(self._changed, "value")
        super().__init__([self.sentence, ipywidgets.HBox([below, panel])] if beside else [panel, self.sentence, below])
        self.add_class("bats-lab-explorer")

    @property
    def values(self) -> dict[str, Any]:
        """The values of all controls."""
        return {name: control.value for name, control in self.controls.items()}

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
    options = [(delta_t_label(v), v) for v in steps]
    start = steps[0] if value is None else float(value)
    return ipywidgets.SelectionSlider(options=options, value=start, **_described(text, "320px"))


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
