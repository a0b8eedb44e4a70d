"""Take the README's pictures of explorers, from the dashboard of the results that ship with the project.

python tests/screenshots.py [FOLDER OF RESULTS]
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from pathlib import Path

import browser
from PIL import Image
from playwright.sync_api import sync_playwright

#: Name of the picture, the tab it is taken of, keys that are pressed on some of its sliders before, its height (px).
PICTURES = {
    "tradeoff": ("trade-off", {}, 720),
    "rasters": ("rasters", {"sample": "PageUp"}, 720),
    "weights": ("weights", {"neuron": "PageUp"}, 720),
}


def main() -> None:
    """Write one .png a picture into notebooks/images."""
    results = sys.argv[1] if len(sys.argv) > 1 else str(browser.ROOT / "results" / "mnist_study")
    images = browser.ROOT / "notebooks" / "images"
    images.mkdir(exist_ok=True)
    os.environ["JUPYTER_TOKEN"] = "screenshots"
    command = [sys.executable, "-m", "bats_lab", "dashboard", str(Path(results).resolve()), "--no-browser"]
    with (
        tempfile.TemporaryDirectory() as place,
        browser.served(command, Path(place), "/voila/static/voila.js") as address,
        sync_playwright() as playwright,
    ):
        chromium = playwright.chromium.launch(executable_path=browser.find_chromium(), args=browser.CHROMIUM_OPTIONS)
        page = browser.Page(chromium.new_page(viewport={"width": 1300, "height": 900}))
        page.page.goto(f"{address}/?token=screenshots")
        page.wait_for_pictures()
        for name, (tab, keys, height) in PICTURES.items():
            page.page.get_by_role("tab", name=tab).click()
            page.wait_for_pictures()
            for control, key in keys.items():
                before = browser.snapshot(page.picture())
                page.control(control).locator(".noUi-handle").first.focus()
                page.page.keyboard.press(key)
                browser.wait_for_change(page.picture(), before, control)
            page.page.wait_for_timeout(1000)
            # From its top: where it was scrolled to a control, the head is over what it shows.
            page.page.evaluate("document.querySelectorAll('*').forEach(part => part.scrollTop = 0)")
            box = page.explorers[0].bounding_box()
            taken = Image.open(io.BytesIO(page.page.screenshot(full_page=True, clip=box))).convert("RGB")
            # What matters stands on top. Few colours make the files small, but each marker has to keep its own.
            taken = taken.crop((0, 0, taken.width, min(taken.height, height)))
            few = taken.quantize(128, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
            few.save(images / f"{name}.png", optimize=True)
            print(images / f"{name}.png", (images / f"{name}.png").stat().st_size // 1000, "kB")
        page.check()
        chromium.close()


if __name__ == "__main__":
    main()
