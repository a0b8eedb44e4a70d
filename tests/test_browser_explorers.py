"""The explorers in a real JupyterLab, and on Voilà's page, moved by keyboard and mouse in a real browser."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser import ROOT, Page, served, settled, snapshot, wait_for_change, with_parameters
from deployments import make_deployment, save_deployment

pytestmark = pytest.mark.browser

CONTROLS = {
    "21_rasters": {
        *("network", "sample", "Δt", "rule", "layer", "window (ms)", "time (ms)", "hidden neuron", "pixel", "look at"),
    },
    "22_weights": {"Δt left", "Δt right", "shown", "layer", "order", "neuron", "rule", "epoch", "look at"},
    "23_tradeoff": {"cost", "shown", "run", "Δt", "rule", "seed", "look at"},
    "24_latency": {"decide at (ms)", "rule", "look at"},
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
    names = {"data set", "rule", "shown", "images", "hardware", "energy", "Δt", "bits", "look at"}
    assert set(page.move_every_control()) == names
    page.check()


def test_every_control_of_the_autopsy_changes_the_picture(
    browse: Callable[..., Page], notebooks: Path, tmp_path: Path
) -> None:
    (tmp_path / "chip.csv").write_text("sample, neuron, time\n0, 3, 0.1005\n1, 4, 0.15\n")
    few = {"n_samples": 3, "n_autopsies": 1, "clocks": [0.004, 0.002], "platforms": "loihi nengo", "words": [4]}
    given = {"results_dir": str(ROOT / "results" / "mnist_study"), "recorded_file": str(tmp_path / "chip.csv"), **few}
    with_parameters(ROOT / "notebooks" / "36_any_network.ipynb", notebooks / "36_any_network.ipynb", **given)
    page = browse("36_any_network")
    page.run_all()
    names = {"platform", "Δt", "against", "sample", "population", "neuron", "membrane from, to (ms)", "look at"}
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
        page.page.goto(f"{address}/?token=secret&tab=latency&time=60.0")
        page.wait_for_pictures()
        assert page.control("decide at (ms)").locator(".widget-readout").inner_text() == "60"
        page.move(page.control("decide at (ms)"), page.picture(), "decide at")
        # The other tabs are made meanwhile, and opening one then takes no longer than drawing it.
        page.page.wait_for_function("document.querySelectorAll('.bats-lab-explorer').length == 7", timeout=120_000)
        page.page.get_by_text("lecture", exact=True).click()
        page.page.get_by_role("tab", name="gradient").click()
        page.wait_for_pictures()
        page.move(page.control("moved by"), page.picture(), "moved by")
        assert fills_its_room(page, 1280)
        page.page.set_viewport_size({"width": 1900, "height": 1000})
        assert fills_its_room(page, 1900)
        before = settled(page.picture())
        page.page.get_by_text("dark", exact=True).click()
        wait_for_change(page.picture(), before, "dark")
        assert settled(page.picture()).mean() < 60
        with page.page.expect_download() as saved:
            page.explorers[0].locator("[title='Save as SVG']").first.click()
        assert "time of the first spike" in Path(saved.value.path()).read_text()
        page.check()
        context.close()


def fills_its_room(page: Page, width: int) -> bool:
    """Say whether the picture is as wide as a window leaves room for, beside controls of 290 pixels."""
    canvas = page.picture().locator(".bk-Canvas").first
    for _ in range(50):
        box = canvas.bounding_box()
        if box and 0.9 * (width - 450) < box["width"] < width - 290:
            return True
        page.page.wait_for_timeout(200)
    return False


def test_dashboard_of_a_folder_without_results_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bats_lab", "dashboard", str(tmp_path), "--no-browser"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "holds no finished run" in done.stderr and done.stderr.count("\n") == 1
