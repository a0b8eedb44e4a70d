"""What a browser does with pictures by itself: they fill the room they are given, and are saved as SVG."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any

import ipywidgets
from bokeh.document import Document
from bokeh.models import CustomAction, CustomJS, Glyph, Title

__all__ = ["Type", "fill_room", "style_sheet", "svg_action"]

#: Frames keep their places; what changes is how large they are. What stands around them (type, legends, colour bars)
#: takes the room that it took when the picture was last laid out.
_FILL = """
const host = cb_context.index.get_by_id(layout.id)?.el.closest(".bats-lab-room");
if (host) {
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const most = (values) => Math.max(0, ...values);
  let rounds = 0;
  const fit = () => {
    const width = host.clientWidth;
    const rows = figures.map((row) => row.filter(([f]) => f.visible)).filter((row) => row.length);
    if (width < 150 || !rows.length) return;
    if (rows.flat().some(([f]) => !f.outer_width)) return soon();
    const around = most(rows.map((row) => sum(row.map(([f]) => f.outer_width - f.inner_width))));
    const above = sum(rows.map((row) => most(row.map(([f]) => f.outer_height - f.inner_height)))) + 35;
    const wide = most(rows.map((row) => sum(row.map(([, w]) => w))));
    const high = sum(rows.map((row) => most(row.map(([, , h]) => h))));
    const x = Math.max(0.4, (width - around - 12) / wide);
    // What of the window is left below heading and controls; a notebook has bars of its own above them.
    const [body, page, whole] = ["picture", "page", "explorer"].map((name) => host.closest(`.bats-lab-${name}`));
    const top = (element) => element?.getBoundingClientRect().top ?? 0;
    const seen = page ? window.innerHeight - 40 : 0.84 * window.innerHeight;
    const room = Math.max(0.45 * window.innerHeight, seen - top(body) + top(page ?? whole));
    const y = Math.min(rigid ? x : Math.max(1, x), Math.max(0.75, (share * room - above) / high));
    for (const [figure, w, h] of rows.flat()) {
      const [frame_width, frame_height] = [(rigid ? y : x) * w, y * h].map(Math.round);
      if (Math.max(Math.abs(frame_width - figure.frame_width), Math.abs(frame_height - figure.frame_height)) > 3) {
        figure.setv({frame_width, frame_height});
      }
    }
    // Ticks and legends may take other room then, and a browser lays them out when it has time.
    if (++rounds < 6) soon();
  };
  const soon = () => { clearTimeout(host._fit); host._fit = setTimeout(fit, 80 * 2 ** rounds); };
  const anew = () => { rounds = 0; soon(); };
  // What is displayed may have been made anew, of other models.
  host._observer?.disconnect();
  host._observer = new ResizeObserver(anew);
  host._observer.observe(host);
}
"""

_SAVE = """
const view = cb_context.index.get_by_id(layout.id);
view.export("svg", false).to_blob().then((blob) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = "bats_lab.svg";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});
"""
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24"><text x="12" y="16" font-size="11" font-weight="bold" '
    'font-family="sans-serif" text-anchor="middle" fill="#555">SVG</text></svg>'
)

#: Dark is the picture with light and dark exchanged, hues kept.
_STYLE = """
.bats-lab-room { min-width: 0; overflow: hidden; }
.bats-lab-large .bats-lab-controls { zoom: 1.25; }
.bats-lab-large .bats-lab-words { zoom: 1.4; }
.bats-lab-dark, [data-jp-theme-light="false"] .bats-lab-picture {
  filter: invert(0.92) hue-rotate(180deg); background: white;
}
[data-jp-theme-light="false"] .bats-lab-dark .bats-lab-picture { filter: none; }
body:has(.bats-lab-dark) { background: #141414 !important; }
.bats-lab-words h1 { font-size: 20px; line-height: 1.3; margin: 4px 0; }
.bats-lab-words h2 { font-size: 16px; line-height: 1.3; margin: 2px 0; }
.bats-lab-words p { max-width: 150ch; line-height: 1.4; margin: 2px 0 6px; }
.bats-lab-words code { user-select: all; white-space: pre-wrap; }
"""


def style_sheet() -> ipywidgets.HTML:
    """Return what the classes of explorers look like, as a widget that takes no room."""
    return ipywidgets.HTML(f"<style>{_STYLE}</style>", layout=ipywidgets.Layout(display="none"))


def fill_room(layout: Any, figures: Sequence[Sequence[Any]], *, share: float, rigid: bool) -> None:
    """Let a layout's figures, row by row, be as wide as the room they are in, now and when it changes.

    They are at most so high that the layout fills the `share` of what the window has left below the controls. Those of
    a `rigid` layout keep their shape.
    """
    sized = [[[figure, figure.frame_width, figure.frame_height] for figure in row] for row in figures]
    args = {"layout": layout, "figures": sized, "share": share, "rigid": rigid}
    callback = CustomJS(args=args, code=_FILL)
    for row in figures:
        for figure in row:
            figure.js_on_change("visible", callback)
            figure.title.js_on_change("text_font_size", callback)
    document = Document()
    document.add_root(layout)
    document.js_on_event("document_ready", callback)


def svg_action(layout: Any) -> CustomAction:
    """Return a tool that saves a layout as it is seen, as SVG."""
    icon = "data:image/svg+xml;base64," + base64.b64encode(_ICON.encode()).decode()
    callback = CustomJS(args={"layout": layout}, code=_SAVE)
    return CustomAction(icon=icon, description="Save as SVG", callback=callback)


class Type:
    """The size of type, dots and lines of a layout of figures: as it was drawn, or a factor larger."""

    def __init__(self, layout: Any) -> None:
        self._drawn: list[tuple[Any, str, Any]] = []
        for model in layout.references():
            for name in model.properties() & _SIZES:
                value = getattr(model, name)
                if name.endswith("font_size") or isinstance(model, Glyph):
                    self._drawn.append((model, name, value))

    def magnify(self, factor: float) -> None:
        """Let everything be a factor larger than it was drawn."""
        for model, name, value in self._drawn:
            # Titles are long.
            setattr(model, name, _times(value, factor**0.5 if isinstance(model, Title) else factor))


_SIZES = {
    *("size", "line_width", "text_font_size", "axis_label_text_font_size", "major_label_text_font_size"),
    *("label_text_font_size", "title_text_font_size"),
}


def _times(value: Any, factor: float) -> Any:
    if isinstance(value, str) and (match := re.fullmatch(r"([\d.]+)(\D+)", value)):
        return f"{float(match[1]) * factor:g}{match[2]}"
    return value * factor if isinstance(value, (int, float)) else value
