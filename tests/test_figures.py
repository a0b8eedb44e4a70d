"""Colours, axes and legends of all plots; figures as files and as pictures in a notebook."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import holoviews as hv
import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from runs import make_run

from bats_lab import plots
from bats_lab.plots.colors import BOKEH_MARKERS, MARKERS
from bats_lab.plots.figures import figure_text
from bats_lab.plots.style import DeltaTAxis, points
from bats_lab.runs.files import save_run
from bats_lab.runs.results import open_results

STEPS = (0.0, 0.0005, 0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.012, 0.015, 0.02, 0.03)

#: How colours look to readers without one kind of cones (Machado, Oliveira and Fernandes, 2009), in linear sRGB.
SEEN = {
    "all cones": np.eye(3),
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(color: str) -> np.ndarray:
    rgb = np.array(mpl.colors.to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    x, y, z = np.cbrt(TO_XYZ @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    folder = tmp_path_factory.mktemp("results")
    for delta_t in (0.0, 0.004):
        save_run(make_run(delta_t=delta_t), folder)
    return open_results(folder).load()


@pytest.mark.parametrize("cones", SEEN)
def test_neighbouring_time_steps_differ_clearly_to_all_readers(cones: str) -> None:
    colors = [lab(SEEN[cones] @ linear(plots.delta_t_color(step))) for step in STEPS]
    assert min(np.linalg.norm(a - b) for a, b in itertools.pairwise(colors)) > 10


def test_colours_of_time_steps_stand_out_from_white() -> None:
    for step in (*STEPS, 0.0001, 0.003, 0.009, 0.1):
        assert re.fullmatch("#[0-9a-f]{6}", plots.delta_t_color(step))
        assert 1.05 / ((TO_XYZ @ linear(plots.delta_t_color(step)))[1] + 0.05) > 2.3  # contrast of WCAG


def test_every_measured_time_step_has_its_tick_and_labels_take_two_lines() -> None:
    for steps, unnamed in ((STEPS[:9], 0), (STEPS, 1), (np.arange(1, 40) / 1e3, 25)):
        ticks = DeltaTAxis.over(steps).ticks
        assert [place for place, _ in ticks] == sorted(DeltaTAxis.over(steps).positions.values())
        assert any(label.startswith("\n") for _, label in ticks) and not ticks[0][1].startswith("\n")
        assert [label for _, label in ticks].count("") <= unnamed


def test_legends_of_bokeh_tell_all_markers_apart() -> None:
    drawn = []
    for i in range(len(MARKERS)):
        plot = hv.Store.renderers["bokeh"].get_plot(points(hv.Scatter([(0, 0)], label="a"), "#000000", series=i))
        drawn.append((plot.handles["glyph"].marker, plot.handles["glyph"].angle))
    assert drawn == [(marker, 0.0) for marker in BOKEH_MARKERS]  # legends draw no angle


def test_text_in_place_of_a_figure_names_axes_and_series(results: xr.Dataset) -> None:
    expected = "mnist_small, drop, 1 seed; test accuracy (%) over epoch; continuous, 4 ms"
    assert figure_text(plots.plot_accuracy_over_epochs(results)) == expected
    several = figure_text(plots.plot_collisions(results))
    assert several.startswith("mnist_small, drop, 1 seed. hidden layer; collisions per sample over time step Δt (ms). ")


def test_figure_in_a_notebook_has_its_text(results: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    plot = plots.plot_accuracy_over_epochs(results)
    plots.show_figure(plot)
    assert shown[0].alt == figure_text(plot) and 850 < shown[0].width < 1100  # about as wide as a page


# Files


@pytest.mark.parametrize(
    ("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF"), ("html", b"<!DOCTYPE html>")]
)
def test_figures_are_saved_in_the_format_of_their_suffix(
    results: xr.Dataset, tmp_path: Path, suffix: str, start: bytes
) -> None:
    path = tmp_path / "new" / f"figure.{suffix.upper()}"
    assert plots.save_figure(plots.plot_collisions(results), path) == path
    content = path.read_bytes()
    assert content.strip().startswith(start) and len(content) > 5000


def test_page_of_a_figure_loads_nothing_from_the_network(results: xr.Dataset, tmp_path: Path) -> None:
    for plot in (plots.plot_tradeoff(results), plots.plot_collisions(results)):
        page = plots.save_figure(plot, tmp_path / "figure.html").read_text()
        assert not re.search(r"""<(script|link|img|iframe)[^>]*(src|href)\s*=\s*["']?(https?:)?//""", page)
        assert "Bokeh" in page


def test_several_files_are_written_at_once_and_twice_the_same(results: xr.Dataset, tmp_path: Path) -> None:
    plot = plots.plot_confidence(results)
    for name in ("a", "b"):
        plots.save_figure(plot, tmp_path / f"{name}.svg", tmp_path / f"{name}.pdf")
    for suffix in ("svg", "pdf"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_other_suffix_is_refused_before_anything_is_written(results: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"it must end in one of \.png, \.svg, \.pdf, \.html\."):
        plots.save_figure(plots.plot_confidence(results), tmp_path / "a.png", tmp_path / "a.gif")
    assert not list(tmp_path.iterdir())
