"""What Voilà needs to serve the dashboard: a notebook, and a page that loads nothing from the internet."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_path

from bats_lab.runs.results import open_results
from bats_lab.studies.chip.deployment import holds_deployments

__all__ = ["prepare_dashboard"]

_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
_SOURCE = """\
import os

from bats_lab import explore

explore.load_bokeh()
explore.dashboard({folder!r}, deployment={deployment!r}, link=os.environ.get("QUERY_STRING", ""))
"""


def prepare_dashboard(
    folder: str | Path, place: str | Path, *, deployment: str | Path | None = None
) -> tuple[list[str], dict[str, str]]:
    """Write what Voilà serves, and return how to start it.

    Parameters
    ----------
    folder : str or Path
        Folder of results.
    place : str or Path
        Folder into which notebook and page go.
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
    command = [
        *(sys.executable, "-m", "voila", str(place / "bats_lab.ipynb"), "--Voila.ip=127.0.0.1"),
        *("--template=bats_lab", "--theme=light", "--show_tracebacks=True"),
        # Its kernels print that they are not encrypted, which on one's own machine says nothing.
        *("--Voila.log_level=ERROR", "--preheat_kernel=False"),
        # It is of JupyterLab only, and fails on Voilà's page.
        "--VoilaConfiguration.extension_denylist=@pyviz/jupyterlab_pyviz",
    ]
    search = os.pathsep.join(part for part in (str(place), os.environ.get("JUPYTER_PATH", "")) if part)
    return command, {**os.environ, "JUPYTER_PATH": search}


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
