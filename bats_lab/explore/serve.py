"""What Voilà needs to serve the dashboard: a notebook, and a page that loads nothing from the internet."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_path
from jupyter_server import DEFAULT_STATIC_FILES_PATH

from bats_lab.runs.results import open_results
from bats_lab.studies.chip.deployment import holds_deployments

__all__ = ["prepare_dashboard", "serve_dashboard"]

_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
_SOURCE = """\
import os

from bats_lab import explore

explore.load_bokeh()
explore.dashboard({folder!r}, deployment={deployment!r}, link=os.environ.get("QUERY_STRING", ""))
"""


def prepare_dashboard(
    folder: str | Path, place: str | Path, *, token: str, deployment: str | Path | None = None
) -> tuple[list[str], dict[str, str]]:
    """Write what Voilà serves, and return how to start it.

    Parameters
    ----------
    folder : str or Path
        Folder of results.
    place : str or Path
        Folder into which notebook and page go.
    token : str
        What an address must carry to be answered.
    deployment : str, Path or None
        As in :func:`bats_lab.explore.dashboard`.

    Returns
    -------
    (list of str, dict of str to str)
        The command that serves the dashboard on this machine only, to which a port can be added, and its environment.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or Voilà is not installed.
    ResultsError
        If it holds neither a finished run nor a deployment.
    """
    if not holds_deployments(folder):
        open_results(folder, large=False)
    place = Path(place)
    source = _SOURCE.format(
        folder=str(Path(folder).resolve()), deployment=None if deployment is None else str(Path(deployment).resolve())
    )
    about: dict[str, Any] = {"cell_type": "code", "execution_count": None, "id": "all", "metadata": {}, "outputs": []}
    cell = about | {"source": source}
    notebook = {"cells": [cell], "metadata": {"kernelspec": _KERNEL}, "nbformat": 4, "nbformat_minor": 5}
    (place / "bats_lab.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    _write_page(place / "voila" / "templates" / "bats_lab")
    options = {
        "Voila": {
            "ip": "127.0.0.1",
            "root_dir": str(place),
            "open_browser": False,
            # Its kernels print that they are not encrypted, which on one's own machine says nothing.
            "log_level": "ERROR",
            # The token comes from the environment, where other users of the machine do not see it.
            "auto_token": True,
            # A page elsewhere that takes this server's address for a name of its own is not answered. What says so
            # looks for icons; and Jupyter's patience with a connection is longer than Tornado allows.
            "tornado_settings": {
                "allow_remote_access": False,
                "static_path": DEFAULT_STATIC_FILES_PATH,
                "ws_ping_timeout": 30_000,
            },
        },
        "VoilaConfiguration": {
            "template": "bats_lab",
            "theme": "light",
            "show_tracebacks": True,
            "preheat_kernel": False,
            "file_denylist": [".*"],
            # It is of JupyterLab only, and fails on Voilà's page.
            "extension_denylist": ["@pyviz/jupyterlab_pyviz"],
        },
    }
    (place / "voila.json").write_text(json.dumps(options), encoding="utf-8")
    command = [sys.executable, "-m", "voila", str(place / "bats_lab.ipynb")]
    search = {
        name: os.pathsep.join(part for part in (str(place), os.environ.get(name, "")) if part)
        for name in ("JUPYTER_PATH", "JUPYTER_CONFIG_PATH")
    }
    return command, {**os.environ, **search, "JUPYTER_TOKEN": token}


def serve_dashboard(
    folder: str | Path,
    *,
    deployment: str | Path | None = None,
    port: int,
    browser: bool,
    options: Sequence[str] = (),
    on_start: Callable[[str], None],
) -> int:
    """Serve the dashboard of a folder of results on this machine until it is ended, and return the server's status.

    Parameters
    ----------
    folder, deployment
        As in :func:`prepare_dashboard`.
    port : int
        Port on this machine.
    browser : bool
        Whether to open a browser on it.
    options : sequence of str
        More options of Voilà.
    on_start : callable
        Called with the address, whose token is that of the environment variable ``JUPYTER_TOKEN``, or a new one.
    """
    with tempfile.TemporaryDirectory(prefix="bats_lab-") as place:
        token = os.environ.get("JUPYTER_TOKEN") or secrets.token_urlsafe()
        command, environment = prepare_dashboard(folder, place, token=token, deployment=deployment)
        server = subprocess.Popen([*command, f"--port={port}", *options], env=environment)
        try:
            address = f"http://127.0.0.1:{port}/?token={token}"
            on_start(address)
            while browser and server.poll() is None:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    browser = False  # it is opened once, when there is something to see
                    webbrowser.open(address)
                time.sleep(0.2)
            return server.wait()
        finally:
            server.terminate()
            server.wait()


def _write_page(target: Path) -> None:
    """Copy Voilà's page without the style sheets it asks the internet for, which are of icons nobody needs here."""
    pages = [Path(folder) / "lab" / "index.html.j2" for folder in jupyter_path("voila", "templates")]
    page = next((path for path in pages if path.is_file()), None)
    if page is None:
        raise FileNotFoundError(
            "Voilà, which serves the dashboard, is not installed; install it with: pip install voila"
        )
    target.mkdir(parents=True, exist_ok=True)
    text = re.sub(r"\s*<link[^>]*https?://[^>]*>", "", page.read_text(encoding="utf-8"))
    (target / "index.html.j2").write_text(text, encoding="utf-8")
    (target / "conf.json").write_text('{"base_template": "lab"}', encoding="utf-8")
