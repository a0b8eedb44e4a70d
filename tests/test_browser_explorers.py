"""The explorers in a real JupyterLab, and on Voilà's page, moved by keyboard and mouse in a real browser."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser import ROOT, Page, served, snapshot, wait_for_change, with_parameters
from deployments import make_deployment, save_deployment

pytestmark = pytest.mark.browser

CONTROLS = {
    "21_rasters": {"network", "sample", "Δt", "rule", "layer", "time (ms)"},
    "22_weights": {"Δt left", "Δt right", "layer", "neuron", "rule", "epoch"},
    "23_tradeoff": {"cost", "run", "Δt", "rule", "seed"},
    "24_latency": {"decide at (ms)", "rule"},
    "25_digit": {"network", "sample", "Δt", "rule", "time (ms)"},
}


@pytest.mark.parametrize("name", CONTROLS)
def test_every_control_changes_the_picture(browse: Callable[..., Page], name: str) -> None:
    page = browse(name)
    page.run_all()
    assert set(page.move_every_control()) == CONTROLS[name]
    if name == "25_digit":
        draw_a_stroke(page)
        let_time_run(page)
    page.check()


def test_every_control_of_the_chip_changes_the_picture(
    browse: Callable[..., Page], notebooks: Path, tmp_path: Path
) -> None:
    save_deployment(make_deployment("mnist", "fashion_mnist"), tmp_path)
    with_parameters(ROOT / "notebooks" / "26_chip.ipynb", notebooks / "26_chip.ipynb", results_dir=str(tmp_path))
    page = browse("26_chip")
    page.run_all()
    names = {"data set", "rule", "shown", "images", "hardware", "updates", "Δt", "bits"}
    assert set(page.move_every_control()) == names
    page.check()


def draw_a_stroke(page: Page) -> None:
    """Draw with the mouse, and see the network look at what was drawn."""
    pad = page.picture().locator(".bk-Canvas").first
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    assert box is not None
    before = snapshot(page.picture())
    mouse = page.page.mouse
    mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.3 * box["height"])
    mouse.down()
    mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.7 * box["height"], steps=8)
    mouse.up()
    page.explorers[0].get_by_text("Your drawing").wait_for()
    wait_for_change(page.picture(), before, "the pen")


def let_time_run(page: Page) -> None:
    """Press the button that lets time run, and see the spikes travel."""
    before = snapshot(page.picture())
    page.explorers[0].locator(".widget-play button").first.click()
    wait_for_change(page.picture(), before, "time")


def test_dashboard_is_served_and_follows_its_controls(
    chromium: Any, small_sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_TOKEN", "secret")
    command = [sys.executable, "-m", "bats_lab", "dashboard", str(small_sweep), "--no-browser"]
    with served(command, tmp_path, "/voila/static/voila.js") as address:
        context = chromium.new_context(viewport={"width": 1280, "height": 1000})
        page = Page(context.new_page())
        page.page.goto(f"{address}/?token=secret")
        page.wait_for_pictures()
        page.move(page.control("rule"), page.picture(), "rule")
        page.page.get_by_role("tab", name="latency").click()
        page.wait_for_pictures()
        page.move(page.control("decide at (ms)"), page.picture(), "decide at")
        page.check()
        context.close()


def test_dashboard_of_a_folder_without_results_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bats_lab", "dashboard", str(tmp_path), "--no-browser"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "holds no finished run" in done.stderr and done.stderr.count("\n") == 1
