"""A real browser on a real JupyterLab (or Voilà): what the tests of notebooks that people explore are made of.

A test opens a notebook, runs it from top to bottom, and moves its controls as a person would::

    def test_rasters(browse):
        page = browse("21_rasters")
        page.run_all()
        page.move_every_control()
        page.check()
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
#: What a control is, in the page: a slider's handle, a list, buttons to switch, a box to tick.
_HANDLE, _LIST, _BUTTON, _BOX = ".noUi-handle", "select", "button.widget-toggle-button", "input[type=checkbox]"
#: Errors of the page that are not the project's: JupyterLab asks for a file that need not exist.
_HARMLESS = re.compile(r"favicon")
#: The titles of figures whose frame reaches out of their canvas.
_CUT_OFF = """() => {
    const cut = [];
    const look = (view) => {
        const seen = view.model?.type === "Figure" && view.model.visible && view.bbox.width;
        if (seen && view.frame.bbox.right > view.bbox.width)
            cut.push(view.model.title.text);
        (view.child_views ?? []).forEach(look);
    };
    Object.values(window.Bokeh?.index?.roots ?? window.Bokeh?.index ?? {}).forEach(look);
    return cut;
}"""
#: Milliseconds until a page that does not get there has failed.
_PATIENCE = 60_000
#: The resolver refuses every name, so that nothing can come from the internet even where there is one.
CHROMIUM_OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"),
    *("--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
]


def find_chromium() -> str | None:
    """Return the path of Chromium or Chrome, None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


@contextmanager
def served(command: list[str], folder: Path, ready: str) -> Iterator[str]:
    """Run a server on a free port and yield its address; `ready` is the path that answers once it is up."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = folder / "home"
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR")
    places = {name: str(home / name.lower()) for name in names}
    quiet = home / "jupyter_config_dir" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    quiet.mkdir(parents=True, exist_ok=True)
    (quiet / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    # Compiled modules are kept: the flag is set on some machines and would cost each kernel seconds.
    env = {**os.environ, **places, "JUPYTER_PLATFORM_DIRS": "1", "PYTHONDONTWRITEBYTECODE": ""}
    log = (folder / "server.log").open("w")
    server = subprocess.Popen(
        [*command, f"--port={port}"], cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address + ready, server, folder / "server.log")
        yield address
    finally:
        server.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(20)
        # Kernels that it may have left.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        log.close()


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"The server did not come up:\n{log.read_text()[-2000:]}")


def lab_command(root: Path) -> list[str]:
    """Return the command of a JupyterLab that asks for no password and looks for no news."""
    return [
        *(
            sys.executable,
            "-m",
            "jupyterlab",
            "--no-browser",
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.root_dir={root}",
        ),
        *("--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True", "--LabApp.news_url=None"),
        *("--ServerApp.allow_root=True", "--ServerApp.port_retries=0", "--LabApp.extension_manager=readonly"),
    ]


def end_kernels(address: str) -> None:
    """End all kernels of a Jupyter server, so that one notebook's does not slow down the next."""
    for session in _ask(f"{address}/api/sessions", "GET"):
        _ask(f"{address}/api/sessions/{session['id']}", "DELETE")


def _ask(url: str, method: str) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, method=method)) as answer:
        text = answer.read()
    return json.loads(text) if text else None


class Page:
    """A page of the browser that shows one notebook.

    Attributes
    ----------
    page : playwright Page
    errors : list of str
        What the page complained about in its console.
    outside : list of str
        Addresses asked for that are not on this machine.
    """

    def __init__(self, page: Any) -> None:
        self.page = page
        self.errors: list[str] = []
        self.outside: list[str] = []
        page.set_default_timeout(_PATIENCE)
        page.on("console", self._note_message)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._note_request)

    def _note_message(self, message: Any) -> None:
        if message.type == "error" and not _HARMLESS.search(message.text + str(message.location)):
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def _note_request(self, request: Any) -> None:
        if not re.match(r"(https?|wss?)://127\.0\.0\.1[:/]|data:|blob:", request.url):
            self.outside.append(request.url)

    # ------------------------------------------------------------------------------------------------ the notebook

    def run_all(self) -> None:
        """Run the notebook's cells from top to bottom, as by the menu, and wait until the last is done."""
        self.page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        self.page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", state="attached")
        cells = ".jp-CodeCell .jp-InputArea-prompt"
        started = f"""[...document.querySelectorAll("{cells}")].some(p => /\\[[*\\d]/.test(p.textContent))"""
        from playwright.sync_api import TimeoutError as TooLate  # the tests that need no browser run without it

        # JupyterLab forgets what it was told to run before it has reached its kernel: then press again, as one would.
        for attempt in range(3):
            self.answer_dialogs()
            self.page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
            self.page.get_by_text("Run All Cells", exact=True).click()
            try:
                self.page.wait_for_function(f"() => {started}", timeout=_PATIENCE / 6)
                break
            except TooLate:
                if attempt == 2:
                    raise
        self.page.wait_for_function(
            f"""() => {{
                const prompts = [...document.querySelectorAll("{cells}")].map(p => p.textContent);
                return prompts.length && prompts.every(p => /\\[\\d+\\]/.test(p));
            }}"""
        )
        self.fail_on_tracebacks()
        self.wait_for_pictures()

    def answer_dialogs(self) -> None:
        """Take the kernel that JupyterLab offers where it asks for one, as if busy; fail on others."""
        for dialog in self.page.locator("dialog.jp-Dialog").all():
            assert "Select Kernel" in (text := dialog.inner_text()), f"JupyterLab asks: {text}"
            dialog.locator("button.jp-mod-accept").click()
            self.page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", state="attached")

    def fail_on_tracebacks(self) -> None:
        """Fail if a cell ended in an error."""
        texts = self.page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").all_inner_texts()
        assert not texts, texts

    def wait_for_pictures(self) -> None:
        """Wait until each explorer's picture has been drawn."""
        for explorer in self.explorers:
            explorer.locator(".bk-Canvas").first.wait_for(state="visible")

    @property
    def explorers(self) -> list[Any]:
        """The explorers to be seen on the page: boxes around controls and picture."""
        self.page.locator(".bats-lab-explorer:visible").first.wait_for()
        return self.page.locator(".bats-lab-explorer:visible").all()

    # ---------------------------------------------------------------------------------------------- the controls

    def move_every_control(self, explorer: int = 0) -> list[str]:
        """Move each control of an explorer once, check that the picture changes each time; return their names."""
        box = self.explorers[explorer].locator(".bats-lab-controls")
        controls = box.locator(".widget-inline-hbox:not(.widget-play):visible, .widget-toggle-button:visible").all()
        assert controls, "there are no controls"
        names = []
        for control in controls:
            label = control.locator(".widget-label")
            names.append((label.first if label.count() else control).inner_text().strip())
            self.move(control, self.picture(explorer), names[-1])
        return names

    def move(self, control: Any, picture: Any, name: str = "control") -> None:
        """Move a control once, and check that a picture changes."""
        control.scroll_into_view_if_needed()
        before = settled(picture)
        if control.locator(_HANDLE).count():
            _move_slider(self.page, control)
        elif control.locator(_LIST).count():
            # Not every line shows something else: where no run has failed, all runs are those that learned.
            options = control.locator(_LIST).first
            for _ in range(options.locator("option").count() - 1):
                _choose_next(options)
                with contextlib.suppress(AssertionError):
                    return wait_for_change(picture, before, name, seconds=5)
        elif control.locator(_BOX).count():
            control.locator(_BOX).first.click()
        else:
            control.click()
        wait_for_change(picture, before, name)

    def control(self, name: str, explorer: int = 0) -> Any:
        """Return a control of an explorer by its name."""
        controls = self.explorers[explorer].locator(".bats-lab-controls .widget-inline-hbox")
        return controls.filter(has=self.page.locator(".widget-label").get_by_text(name, exact=True))

    def picture(self, explorer: int = 0) -> Any:
        """Return the part of an explorer that its controls change."""
        return self.explorers[explorer].locator(".bats-lab-picture")

    def check(self) -> None:
        """Check that the page complained of nothing, asked nothing outside this machine, and cuts no plot off."""
        assert not self.errors, self.errors
        assert not self.outside, self.outside
        assert not (cut := self.page.evaluate(_CUT_OFF)), cut


def _move_slider(page: Any, control: Any) -> None:
    handle = control.locator(_HANDLE).first
    handle.focus()
    now, first, last = (float(handle.get_attribute(f"aria-value{what}")) for what in ("now", "min", "max"))
    # Five steps, since one may pass over nothing. From the end, where most spikes are long over, back to before the
    # middle, where the last pixels still spike: at the start nothing is seen of what other controls change.
    for key in ["PageUp"] if now < last else ["Home", *["PageUp"] * int((last - first) / 12.5)]:
        page.keyboard.press(key)


def _choose_next(control: Any) -> None:
    options = control.locator("option").count()
    if control.get_attribute("multiple") is not None:
        control.select_option(index=0)
        return
    chosen = control.evaluate("list => list.selectedIndex")
    control.select_option(index=(chosen + 1) % options)


def snapshot(element: Any) -> np.ndarray:
    """Return the pixels of an element."""
    from PIL import Image  # tests of the engine run where it is missing

    return np.asarray(Image.open(io.BytesIO(element.screenshot(animations="disabled"))).convert("RGB"))


def settled(element: Any, seconds: float = 15.0) -> np.ndarray:
    """Return the pixels of an element once it has stopped changing: what was done before may still be drawn."""
    end = time.monotonic() + seconds
    before = snapshot(element)
    while time.monotonic() < end:
        time.sleep(0.3)
        now = snapshot(element)
        if np.array_equal(now, before):
            break
        before = now
    return before


def wait_for_change(element: Any, before: np.ndarray, name: str, seconds: float = 15.0) -> None:
    """Wait until an element looks different from before."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        now = snapshot(element)
        if now.shape != before.shape or (np.abs(now.astype(int) - before).max(axis=2) > 16).sum() > 5:
            return
        time.sleep(0.05)
    raise AssertionError(f"The picture does not follow {name!r}.")


def with_parameters(source: Path, target: Path, **parameters: Any) -> Path:
    """Copy a notebook with other values in its parameters cell."""
    notebook = json.loads(source.read_text())
    for cell in notebook["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            lines = "".join(cell["source"])
            for name, value in parameters.items():
                lines, n = re.subn(rf"(?m)^({name}: .+? = ).*?(  #|$)", lambda m: f"{m[1]}{value!r}{m[2]}", lines)  # noqa: B023
                assert n == 1, f"{source.name} has no parameter {name}"
            cell["source"] = lines
    target.write_text(json.dumps(notebook))
    return target
