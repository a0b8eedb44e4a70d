"""Figures as files and as pictures in a notebook, with a text for readers who do not see them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import holoviews as hv
import holoviews.plotting.bokeh
import holoviews.plotting.mpl  # both imports register a backend
import matplotlib as mpl
import matplotlib.pyplot as plt
from bokeh.embed import file_html
from bokeh.resources import INLINE

__all__ = ["figure_text", "save_figure", "show_figure"]

_PAPER: dict[Any, Any] = {
    "font.family": "sans-serif",
    "axes.linewidth": 0.8,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "pdf.fonttype": 42,
    "svg.hashsalt": "bats_lab",
}
_FORMATS = (".png", ".svg", ".pdf", ".html")


def save_figure(element: Any, path: str | Path, *more: str | Path, dpi: int = 200) -> Path:
    """Draw an element into a file, or several; the suffix chooses format and backend.

    Parameters
    ----------
    element : HoloViews element, Overlay or Layout
        What a ``plot_`` function returned.
    path, *more : str or Path
        ``.pdf`` and ``.svg`` (for papers) and ``.png`` are drawn by Matplotlib, once for all of them; ``.html``
        (interactive, works without a network) by Bokeh. Folders are made where they are missing.
    dpi : int
        Dots per inch of a ``.png``, and of images within ``.pdf`` and ``.svg``.

    Returns
    -------
    Path
        The first file.

    Raises
    ------
    ValueError
        If a suffix is none of these.
    """
    paths = [Path(p) for p in (path, *more)]
    for p in paths:
        if p.suffix.lower() not in _FORMATS:
            raise ValueError(f"path is {str(p)!r}; it must end in one of {', '.join(_FORMATS)}.")
    for p in paths:
        p.parent.mkdir(parents=True, exist_ok=True)
        if p.suffix.lower() == ".html":
            state = hv.Store.renderers["bokeh"].get_plot(element).state
            p.write_text(file_html(state, INLINE, p.stem), encoding="utf-8")
    drawn = [p for p in paths if p.suffix.lower() != ".html"]
    if drawn:
        with mpl.rc_context(_PAPER):
            figure = hv.Store.renderers["matplotlib"].get_plot(element).state
            for p in drawn:
                _save(figure, p, dpi)
            plt.close(figure)
    return paths[0]


def show_figure(element: Any, *, dpi: int = 160) -> None:
    """Show an element in a notebook as a picture, drawn by Matplotlib: it stays where there is no kernel and no script.

    Parameters
    ----------
    element : HoloViews element, Overlay or Layout
        What a ``plot_`` function returned.
    dpi : int
        Dots per inch. The picture is shown at 100 of them an inch, so that more make it sharper, not larger.
    """
    with mpl.rc_context(_PAPER):
        figure = hv.Store.renderers["matplotlib"].get_plot(element).state
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.05)
        plt.close(figure)
    show_png(drawn.getvalue(), dpi=dpi, alternative=figure_text(element))


def figure_text(element: Any) -> str:
    """Tell what a figure shows, for readers who do not see it: its title, and each plot's axes, title and series."""

    def option(part: Any, name: str) -> str:
        return " ".join(str(hv.Store.lookup_options("matplotlib", part, "plot").kwargs.get(name) or "").split())

    whole = [element] if isinstance(element, hv.Overlay) else list(element)
    texts = [option(element, "title")] if len(whole) > 1 else []
    for part in whole:
        named = dict.fromkeys(e.label for e in part if e.label and not isinstance(e, hv.Labels))
        axes = [f"{option(part, 'ylabel')} over {option(part, 'xlabel')}".removeprefix(" over ").removesuffix(" over ")]
        texts.append("; ".join(filter(None, [option(part, "title"), *axes, ", ".join(named)])))
    return ". ".join(filter(None, texts))


def show_png(data: bytes, *, dpi: int, alternative: str) -> None:
    """Show a PNG file in a notebook at 100 dots an inch, so that it is sharp where its own are more.

    `alternative` is the text in its place for readers who do not see it.
    """
    # Kept out of the module's imports: plots are of use where there is no notebook.
    from IPython import display as ipython

    width = int.from_bytes(data[16:20], "big")  # stands there in the header of the file
    ipython.display(ipython.Image(data=data, width=round(width * 100 / dpi), alt=alternative))


def _save(figure: Any, path: Path, dpi: int) -> None:
    kind = path.suffix.lower()[1:]
    # Dates would make files of equal figures differ.
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    figure.savefig(path, format=kind, dpi=dpi, bbox_inches="tight", pad_inches=0.05, metadata=undated)
