"""All explorers of a folder of results on one page, for people who do not want to see code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets
import xarray as xr

from bats_lab.deploy import deployment_path
from bats_lab.explore.chip import explore_chip
from bats_lab.explore.digit import explore_digit
from bats_lab.explore.latency import explore_latency
from bats_lab.explore.rasters import explore_rasters
from bats_lab.explore.tradeoff import explore_tradeoff
from bats_lab.explore.weights import explore_weights
from bats_lab.explore.widgets import Sentence, in_words, opened

__all__ = ["dashboard"]

_TABS: dict[str, Callable[[xr.Dataset], Any]] = {
    "trade-off": explore_tradeoff,
    "latency": explore_latency,
    "rasters": explore_rasters,
    "weights": explore_weights,
    "draw a digit": explore_digit,
}


@in_words
def dashboard(results: xr.Dataset | str | Path) -> ipywidgets.Tab:
    """Put the explorers of results into tabs; each is made when its tab is first opened.

    Where networks of the folder have been run on a clock (:func:`bats_lab.deploy.run_deployment`), a tab shows that.

    Parameters
    ----------
    results : xarray.Dataset, str or Path
        Results of one run or of many, or a folder of results.

    Returns
    -------
    ipywidgets.Tab
        Or a :class:`Sentence` where there are no results.
    """
    results = opened(results)
    explorers = dict(_TABS)
    folder = _folder_of_deployments(results)
    if folder is not None:
        explorers["chip"] = lambda _: explore_chip(folder)
    tabs = ipywidgets.Tab([ipywidgets.VBox([Sentence("One moment …")]) for _ in explorers], titles=list(explorers))

    def fill(_: Any = None) -> None:
        box = tabs.children[tabs.selected_index]
        if isinstance(box.children[0], Sentence):
            box.children = [list(explorers.values())[tabs.selected_index](results)]

    tabs.selected_index = 0
    fill()
    tabs.observe(fill, "selected_index")
    return tabs


def _folder_of_deployments(results: xr.Dataset) -> Path | None:
    """Return the folder of the runs if deployments of them lie there too."""
    paths = [p for p in results["path"].values.ravel().tolist() if p] if "path" in results else []
    folder = Path(paths[0]).parent if paths else None
    found = folder is not None and any(folder.glob(deployment_path("", "*", 0).name.replace("seed0", "seed*")))
    return folder if found else None
