"""The lessons in a real JupyterLab: run from top to bottom, their explorers moved by keyboard and mouse."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from browser import Page, snapshot, wait_for_change

pytestmark = pytest.mark.browser

CONTROLS = {
    "02_time_step": {"time step Δt", "rule", "τₛ (ms)", "τ/τₛ", "threshold", "time (ms)", "look at"}
    | {f"{what} {i}{unit}" for i in range(1, 5) for what, unit in (("input", " (ms)"), ("weight", ""))},
    "03_learning_through_spikes": {"time step Δt", "rule", "weight", "moved by", "step h of the quotient", "look at"},
}


@pytest.mark.parametrize("name", CONTROLS)
def test_every_control_changes_the_picture(browse: Callable[..., Page], name: str) -> None:
    page = browse(name)
    page.run_all()
    if name == "02_time_step":
        drag_an_input(page)
    assert set(page.move_every_control()) == CONTROLS[name]
    page.check()


def drag_an_input(page: Page) -> None:
    """Drag the first input to the right and up with the mouse, and see its slider follow."""
    readout = page.control("input 1 (ms)").locator(".widget-readout")
    assert readout.inner_text() == "10.0"
    before = snapshot(page.picture())  # scrolls, so the canvas is looked for afterwards
    canvas = page.picture().locator(".bk-Canvas").nth(1)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    # The frame is 430 by 110 pixels, 115 from the left; it shows -2 to 202 ms and weights of -115 to 115.
    x, y = box["x"] + 115 + 430 * 12 / 204, box["y"] + 10 + 110 * (115 - 12) / 230
    mouse = page.page.mouse
    mouse.move(x, y)
    mouse.down()
    # Bokeh takes less than 6 pixels within 0.3 s for a press, and looks for the point where the drag begins.
    for pixels in range(6, 24, 3):
        mouse.move(x + pixels, y - pixels / 2)
        page.page.wait_for_timeout(25)
    mouse.up()
    wait_for_change(page.picture(), before, "the dragged input")
    page.page.wait_for_function("text => text.innerText !== '10.0'", arg=readout.element_handle())
    assert 15 <= float(readout.inner_text()) <= 25
