"""All explorers of a folder of results on one page, for people who do not want to see code."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets
import xarray as xr

from bats_lab.explore.chip import explore_chip
from bats_lab.explore.digit import explore_digit
from bats_lab.explore.latency import explore_latency
from bats_lab.explore.rasters import explore_rasters
from bats_lab.explore.tradeoff import explore_tradeoff
from bats_lab.explore.weights import explore_weights
from bats_lab.explore.widgets import Sentence, in_words, opened
from bats_lab.studies.chip.deployment import holds_deployments

__all__ = ["dashboard"]

_TABS: dict[str, Callable[[xr.Dataset], Any]] = {
    "trade-off": explore_tradeoff,
    "latency": explore_latency,
    "rasters": explore_rasters,
    "weights": explore_weights,
    "draw a digit": explore_digit,
}


@in_words
def dashboard(results: xr.Dataset | str | Path, *, deployment: str | Path | None = None) -> ipywidgets.Tab:
    """Put the explorers of results into tabs; each is made when its tab is first opened.

    Parameters
    ----------
    results
        As in all explorers (:mod:`bats_lab.explore`).
    deployment : str, Path or None
        Folder of networks that were run on clocks (`deploy.run_deployment`), which get a tab, too; None: the folder of
        the results, if there are any in it.

    Returns
    -------
    ipywidgets.Tab
        With the chip's tab only where a folder holds no runs but deployments.
    """
    folder = deployment or _folder_of_deployments(results)
    explorers: dict[str, Callable[[], Any]] = {}
    if isinstance(results, xr.Dataset) or folder != results or any(Path(results).glob("run-*.nc")):
        runs = opened(results)
        explorers |= {name: partial(explore, runs) for name, explore in _TABS.items()}
    if folder is not None:
        explorers["chip"] = partial(explore_chip, folder)
    tabs = ipywidgets.Tab([ipywidgets.VBox([Sentence("One moment …")]) for _ in explorers], titles=list(explorers))

    def fill(_: Any = None) -> None:
        box = tabs.children[tabs.selected_index]
        if isinstance(box.children[0], Sentence):
            box.children = [list(explorers.values())[tabs.selected_index]()]

    tabs.selected_index = 0
    fill()
    tabs.observe(fill, "selected_index")
    return tabs


def _folder_of_deployments(results: xr.Dataset | str | Path) -> str | Path | None:
    """Return the folder of the runs if deployments of them lie there too."""
    if not isinstance(results, xr.Dataset):
        return results if holds_deployments(results) else None
    paths = [p for p in results["path"].values.ravel().tolist() if p] if "path" in results else []
    return Path(paths[0]).parent if paths and holds_deployments(Path(paths[0]).parent) else None
