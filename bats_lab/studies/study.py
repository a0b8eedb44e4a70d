"""One shape of a study: what it trains, what it measures then, its notebook and verdicts; and the loop through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from bats_lab.config import Config
from bats_lab.runs.files import is_finished
from bats_lab.runs.results import open_results
from bats_lab.runs.store import is_url
from bats_lab.sweeps.grid import MOST_RUNS
from bats_lab.sweeps.notebooks import make_report, notebook_path
from bats_lab.sweeps.progress import RunOutcome
from bats_lab.sweeps.sweep import run_sweep

__all__ = ["Reproduction", "Study", "Verdict", "reproduce", "seeds_from_zero"]


@dataclass(frozen=True)
class Verdict:
    """Whether a claim about a `figure` holds in results (None: these runs cannot tell), and the numbers it rests on."""

    figure: str
    text: str
    holds: bool | None
    numbers: str

    @property
    def word(self) -> str:
        """The verdict in words."""
        return {True: "holds", False: "does not hold", None: "open"}[self.holds]


def _nothing(folder: Path, **_: Any) -> None:
    """Measure, or check, nothing beside the runs."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question asked of many runs.

    Attributes
    ----------
    name : str
        By which the registry finds it, and which its folder of results has in its name.
    seeds : int
        Seeds of a study that is not quick, counted from 0, unless told otherwise.
    configs : callable
        ``configs(seeds=int, quick=bool)`` returns the runs it trains; `quick` ones take minutes.
    notebook : str
        Notebook that draws its results; it has the parameter `results_dir`.
    parameters : mapping
        Further parameters of the notebook.
    check : callable
        ``check(folder, seeds=int, quick=bool)`` raises an error where something that it takes is missing, before any
        work starts.
    measure : callable
        ``measure(folder, seeds=int, quick=bool, data_dir=…, device=str, report=callable)`` measures, on the trained
        networks and elsewhere, what is not in the folder yet.
    is_measured : callable
        ``is_measured(folder, config)`` tells whether all that a run is trained for is there without it.
    open : callable
        ``open(folder)`` returns the results that verdicts are made of.
    judge : callable
        ``judge(results)`` returns the verdicts on the study's claims, if it has any.
    """

    name: str
    seeds: int
    configs: Callable[..., list[Config]]
    notebook: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[..., object] = _nothing
    measure: Callable[..., object] = _nothing
    is_measured: Callable[[Path, Config], bool] = lambda folder, config: False
    open: Callable[[Path], Any] = lambda folder: open_results(folder, large=False)
    judge: Callable[[xr.Dataset], Sequence[Verdict]] | None = None


@dataclass(frozen=True)
class Reproduction:
    """How far a study came: runs without results, the page of figures (None where every run failed), and verdicts."""

    failed: Sequence[RunOutcome]
    page: Path | None = None
    verdicts: Sequence[Verdict] = ()


def reproduce(
    study: Study,
    out: str | Path,
    *,
    seeds: int | None = None,
    quick: bool = False,
    jobs: int = 0,
    data_dir: str | Path | None = None,
    device: str = "auto",
    progress: bool | str = True,
    report: Callable[[str], None] = lambda _: None,
) -> Reproduction:
    """Train what is not trained yet, measure what is not measured yet, draw the figures, and judge the claims.

    Parameters
    ----------
    study : Study
        What is asked.
    out : str or Path
        Folder for the folder of results, ``thesis_<name>`` or, of a quick look, ``quick_<name>``.
    seeds : int or None
        Seeds, counted from 0; None: the study's, or one for a quick look. ValueError if below 1.
    quick : bool
        Few epochs on ``mnist_small``.
    jobs, data_dir, device, progress
        As in :func:`bats_lab.sweeps.sweep.run_sweep`.
    report : callable
        Called with a line now and then.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C, with a sentence; the same call goes on from there.
    """
    if is_url(out):
        raise ValueError(f"out is {str(out)!r}, a URL; a study works in a folder of this machine.")
    seeds = (1 if quick else study.seeds) if seeds is None else seeds
    folder = Path(out) / f"{'quick' if quick else 'thesis'}_{study.name}"
    study.check(folder, seeds=seeds, quick=quick)
    configs = [config for config in study.configs(seeds=seeds, quick=quick) if not study.is_measured(folder, config)]
    failed: Sequence[RunOutcome] = ()
    try:
        if configs:
            options: dict[str, Any] = {"jobs": jobs, "checkpoint": True, "progress": progress}
            failed = run_sweep(configs, folder, data_dir=data_dir, device=device, **options).failed
        study.measure(folder, seeds=seeds, quick=quick, data_dir=data_dir, device=device, report=report)
    except KeyboardInterrupt:
        done = sum(is_finished(folder, config) for config in configs)
        message = f"Stopped; {done} of {len(configs)} runs of {study.name} are finished."
        raise KeyboardInterrupt(f"{message} The same command goes on from there.") from None
    if configs and len(failed) == len(configs):
        return Reproduction(failed)
    report("drawing the figures …")
    page = make_report(folder, notebook=notebook_path(study.notebook), parameters=study.parameters)
    return Reproduction(failed, page, study.judge(study.open(folder)) if study.judge else ())


def seeds_from_zero(seeds: int) -> range:
    """Count seeds from 0; raises ValueError if there are none, or more than a sweep has runs."""
    if not 1 <= seeds <= MOST_RUNS:
        limit = f"at most {MOST_RUNS}" if seeds > 1 else "at least 1"
        raise ValueError(f"seeds is {seeds}; it must be {limit}.")
    return range(seeds)
