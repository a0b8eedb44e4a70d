"""All explorers of a folder of results on one page, for people who do not want to see code."""

from __future__ import annotations

import asyncio
import html
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import ipywidgets
import xarray as xr

from bats_lab.explore.autopsy import explore_autopsy
from bats_lab.explore.chip import explore_chip
from bats_lab.explore.digit import explore_digit
from bats_lab.explore.gradient import explore_gradient
from bats_lab.explore.latency import explore_latency
from bats_lab.explore.neuron import explore_neuron
from bats_lab.explore.rasters import explore_rasters
from bats_lab.explore.screen import style_sheet
from bats_lab.explore.tradeoff import explore_tradeoff
from bats_lab.explore.weights import explore_weights
from bats_lab.explore.widgets import Explorer, Sentence, in_words, opened
from bats_lab.plots.report import counted
from bats_lab.plots.runs import split_results
from bats_lab.runs.files import run_names
from bats_lab.runs.kept import runs_to_rerun, single_runs
from bats_lab.studies.chip.deployment import holds_deployments

__all__ = ["dashboard"]


def _kept_for_autopsy(results: xr.Dataset) -> bool:
    """Return whether some run kept its weights and input spikes."""
    try:
        return bool(runs_to_rerun(results))
    except ValueError:
        return False


@dataclass(frozen=True)
class _Tab:
    """An explorer, what is seen in it, and what to try; `of` is what it is made from, if that `has` what it takes."""

    explore: Callable[..., Any]
    see: str
    attempt: str
    of: str = "results"
    has: Callable[[Any], bool] = lambda given: True


_TABS = {
    "trade-off": _Tab(
        explore_tradeoff,
        "One point is one trained network: how often it is right, and how many spikes that takes.",
        "Let one rule compete at a time: which of them holds its accuracy at the coarsest clock? Click a point to look "
        "behind it.",
    ),
    "latency": _Tab(
        explore_latency,
        "How good a decision is that is taken early, and how many spikes it has cost by then.",
        "Find the time at which accuracy is one percentage point below its final value: what has it saved?",
    ),
    "rasters": _Tab(
        explore_rasters,
        "Every spike of one image: computed (grey), and sent on the next tick of the clock (colour).",
        "Go from continuous time to 8 ms under drop, then switch to graded. Press ▶ to let time run; click a spike to "
        "see what its neuron looks for.",
    ),
    "weights": _Tab(
        explore_weights,
        "What training has made of the weights under two clocks, and what the two differ in.",
        "Walk through the neurons, the most changed first: where did the same start lead under either clock?",
    ),
    "draw a digit": _Tab(
        explore_digit,
        "Spikes of a digit travel through the layers, and the output neurons count for and against each class.",
        "Draw with the mouse and press ▶. Does any neuron reach the target if it is no digit?",
    ),
    "autopsy": _Tab(
        explore_autopsy,
        "Which spikes of a trained network a platform moves, loses or adds, each in the colour of its cause.",
        "Compare loihi with ideal, then make the clock coarser: which causes go, which come? Click a spike to see the "
        "membrane of its neuron, with and without a clock.",
        has=_kept_for_autopsy,
    ),
    "chip": _Tab(
        explore_chip,
        "What clock and word length of a chip cost in accuracy and energy, for networks trained in continuous time.",
        "Find the cheapest point that loses less than one percentage point; click it to read its numbers.",
        of="deployment",
    ),
    "neuron": _Tab(
        explore_neuron,
        "One neuron: its potential, where it crosses the threshold, and what a clock lets it send.",
        "Drag an input, make the clock coarser, and compare what each rule sends.",
        of="",
    ),
    "gradient": _Tab(
        explore_gradient,
        "When the first spike comes, over one weight: the slope that learning follows, and what is so.",
        "Turn on a clock: the curve becomes a staircase. What does the difference quotient say then?",
        of="",
    ),
}
#: Controls that tabs have in common: what is chosen in one of them is chosen in the others.
_SHARED = ("sample", "neuron", "pixel")
#: Seconds after which it is looked again whether there is nothing else to do than to make another tab.
_PAUSE = 0.7
#: How much larger type and dots are for a lecture.
_LARGE = 1.5


@in_words
def dashboard(
    results: xr.Dataset | str | Path, *, deployment: str | Path | None = None, link: str = ""
) -> ipywidgets.VBox:
    """Put the explorers of results into tabs.

    Parameters
    ----------
    results
        As in all explorers (:mod:`bats_lab.explore`).
    deployment : str, Path or None
        Folder of networks that were run on clocks (`deploy.run_deployment`), which get a tab, too; None: the folder of
        the results, if there are any in it.
    link : str
        What is shown first, as the query of an address: ``tab=rasters&delta_t=0.008``. The button `link` of each tab
        gives it.

    Returns
    -------
    Dashboard
        A heading, and the tabs; those of results only where there are runs. Each explorer is made when its tab is first
        opened, or when there is nothing else to do.
    """
    folder = deployment or _folder_of_deployments(results)
    given: dict[str, Any] = {} if folder is None else {"deployment": folder}
    if isinstance(results, xr.Dataset) or folder != results or run_names(results):
        given["results"] = opened(results)
    state = dict(parse_qsl(link.lstrip("?")))
    state.pop("token", None)  # it lets the address in, and is no control's
    return Dashboard(given, state)


class Dashboard(ipywidgets.VBox):  # type: ignore[misc]
    """A heading with what holds for all tabs, and the tabs.

    Attributes
    ----------
    tabs : ipywidgets.Tab
    explorers : dict of str to Explorer or Sentence
        Those that have been made, by the title of their tab.
    large, dark : ipywidgets.ToggleButton
        Large type and dots, for a lecture; light on dark.
    """

    def __init__(self, given: Mapping[str, Any], link: Mapping[str, str]) -> None:
        self._making = {
            name: partial(tab.explore, *([given[tab.of]] if tab.of else []))
            for name, tab in _TABS.items()
            if not tab.of or (tab.of in given and tab.has(given[tab.of]))
        }
        self.explorers: dict[str, Any] = {}
        self._sizes: dict[str, float] = {}
        self._link = {name: _value(text) for name, text in link.items() if name != "tab"}
        titles = list(self._making)
        boxes = [ipywidgets.VBox([_words(_TABS[name]), Sentence("One moment …")]) for name in titles]
        self.tabs = ipywidgets.Tab(boxes, titles=titles)
        asked = link.get("tab", titles[0])
        self.tabs.selected_index = titles.index(asked) if asked in titles else 0
        self.large, self.dark = (
            ipywidgets.ToggleButton(description=text, tooltip=tip, layout=ipywidgets.Layout(width="max-content"))
            for text, tip in (("lecture", "Large type and dots"), ("dark", "Light on dark"))
        )
        title = ipywidgets.HTML(f"<h1>What does a digital clock do to a spiking network?</h1><p>{_what(given)}</p>")
        head = ipywidgets.HBox([title, self.large, self.dark])
        title.layout.flex, head.layout.align_items = "1 1 auto", "center"
        title.add_class("bats-lab-words")
        super().__init__([style_sheet(), head, self.tabs])
        self.add_class("bats-lab-page")
        self.make(titles[self.tabs.selected_index], state=self._link)
        self.tabs.observe(lambda change: self._open(titles[change.new]), "selected_index")
        self.large.observe(self._enlarge, "value")
        self.dark.observe(lambda change: self._dress("bats-lab-dark", change.new), "value")
        first = self.explorers[titles[self.tabs.selected_index]]
        if isinstance(first, Explorer):
            # What is on the screen comes before what may be asked for.
            first.pictures[0].widget.observe(self._make_more, "_view_count")

    def make(self, name: str, **options: Any) -> None:
        """Make the explorer of a tab, if that has not been done."""
        if name in self.explorers:
            return
        made = self._making[name](**options)
        box = self.tabs.children[list(self._making).index(name)]
        if isinstance(made, Explorer):
            made.address = f"?tab={name.replace(' ', '+')}"
            for shared in _SHARED:
                if shared in made.controls:
                    made.controls[shared].observe(partial(self._share, shared), "value")
        self.explorers[name] = made
        box.children = [box.children[0], made]

    def _share(self, name: str, change: Any) -> None:
        for explorer in self.explorers.values():
            if isinstance(explorer, Explorer) and name in explorer.controls:
                explorer.offer(name, change.new)

    def _dress(self, name: str, wanted: bool) -> None:
        (self.add_class if wanted else self.remove_class)(name)

    def _enlarge(self, change: Any) -> None:
        self._dress("bats-lab-large", change.new)
        self._open(self.tabs.titles[self.tabs.selected_index])

    def _open(self, name: str) -> None:
        """Show a tab, in the size of type that is wanted: the others have time until they are shown."""
        self.make(name)
        explorer, size = self.explorers[name], _LARGE if self.large.value else 1.0
        if isinstance(explorer, Explorer) and self._sizes.get(name, 1.0) != size:
            self._sizes[name] = size
            explorer.magnify(size)

    def _make_more(self, change: Any) -> None:
        """Make the other tabs while the kernel is idle: opening one then takes no longer than drawing it."""
        change.owner.unobserve(self._make_more, "_view_count")
        loop = asyncio.get_running_loop()

        def make_one() -> None:
            waiting = [name for name in self._making if name not in self.explorers]
            busy = any(
                time.monotonic() - e.drawn < 2 * _PAUSE for e in self.explorers.values() if isinstance(e, Explorer)
            )
            if waiting and not busy:
                self.make(waiting[0])
            if waiting:
                loop.call_later(_PAUSE, make_one)

        loop.call_later(_PAUSE, make_one)


def _words(tab: _Tab) -> ipywidgets.HTML:
    words = ipywidgets.HTML(f"<p>{html.escape(tab.see)} <b>Try:</b> {html.escape(tab.attempt)}</p>")
    words.add_class("bats-lab-words")
    return words


def _what(given: Mapping[str, Any]) -> str:
    """Say what is shown."""
    parts = dict(split_results(given["results"])) if "results" in given else {}
    told = [f"{counted(len(single_runs(part)), 'trained network')} on {name}" for name, part in parts.items()]
    return html.escape(", ".join(told) or "Networks run on clocks")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _folder_of_deployments(results: xr.Dataset | str | Path) -> str | Path | None:
    """Return the folder of the runs if deployments of them lie there too."""
    if not isinstance(results, xr.Dataset):
        return results if holds_deployments(results) else None
    paths = [p for p in results["path"].values.ravel().tolist() if p] if "path" in results else []
    return Path(paths[0]).parent if paths and holds_deployments(Path(paths[0]).parent) else None
