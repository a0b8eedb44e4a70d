"""A search through a space of parameters: runs drawn at random or by Optuna, in a folder like a sweep's.

The files of runs are the search's memory: what is finished there, and lies in the space, is known to a search that is
started again, as is ``partial-….nc`` of a run that was ended early. The file ``search.json`` tells
:func:`bats_lab.open_results` that the folder's runs lie on no grid.

A run is ended early when it clearly loses (:func:`clearly_loses`). With one objective that is the median rule of
Golovin et al. (*Google Vizier*, 2017); fronts take the place of values where there are several, as in Schmucker et al.
(*Multi-objective asynchronous successive halving*, 2021).
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bats_lab.config import Config
from bats_lab.errors import BatsLabError, ResultsError
from bats_lab.files import write_whole
from bats_lab.runs.files import read_small, run_names, run_path
from bats_lab.runs.metrics import pareto_front
from bats_lab.runs.results import SEARCH
from bats_lab.sweeps.folder import settle_folder
from bats_lab.sweeps.journal import duration, told_runs
from bats_lab.sweeps.notebooks import source_notebook
from bats_lab.sweeps.plan import SweepPlan, data_key, estimate, plan_sweep
from bats_lab.sweeps.progress import Progress, RunOutcome, SweepReport, display
from bats_lab.sweeps.remote import folder_lock
from bats_lab.sweeps.space import Point, Range, Space
from bats_lab.sweeps.sweep import Execution, Run

__all__ = [
    "OBJECTIVES",
    "SAMPLERS",
    "Search",
    "Trial",
    "clearly_loses",
    "estimate_search",
    "front_of_trials",
    "known_trials",
    "run_search",
]

#: What a search can be after, always on the samples held out, and whether it is to be large (1) or small (-1).
OBJECTIVES = {"accuracy": 1, "spikes": -1, "decision_time": -1}

SAMPLERS = ("random", "optuna")

#: Runs from which the time and the disk of a search are estimated: the first ones.
_PROBED = 5

#: Others that must have come as far as a run before it can lose against them.
_FEWEST = 4


@dataclass(frozen=True)
class Search:
    """What is searched, for what, and how.

    Parameters
    ----------
    space : mapping or Space
        As in :class:`bats_lab.sweeps.space.Space`. `validation_fraction` is 0.1 where it is not given, since choices
        are made by the samples held out.
    objectives : sequence of str
        One or several of ``accuracy`` (to be large), ``spikes`` (per sample, in all layers) and ``decision_time`` (s),
        after a run's last epoch.
    trials : int
        Runs of the whole search, those of before and those ended early included.
    sampler : str
        ``random``: the same runs for a seed, whatever came of the others; ``optuna``: tree-structured Parzen estimator
        (Watanabe, *Tree-structured Parzen estimator*, 2023), which needs the extra ``search``.
    seed : int
        Seed of what is drawn. Runs have the seed that the space gives them.
    prune : bool
        Whether runs that clearly lose are ended.
    hours : float or None
        Time after which no further run is started.

    Raises
    ------
    ValueError, TypeError
        If an argument is not allowed.
    BatsLabError
        If Optuna is asked for and is not there.
    """

    space: Mapping[str, Any] | Space
    objectives: Sequence[str] = ("accuracy",)
    trials: int = 50
    sampler: str = "random"
    seed: int = 0
    prune: bool = True
    hours: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.space, Space):
            object.__setattr__(self, "space", Space({"validation_fraction": 0.1} | dict(self.space)))
        for name in self.objectives:
            if name not in OBJECTIVES:
                raise ValueError(f"objectives has {name!r}; each must be one of {', '.join(OBJECTIVES)}.")
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"objectives is {list(self.objectives)}; it must name one or several, each once.")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler is {self.sampler!r}; it must be one of {', '.join(SAMPLERS)}.")
        for name in ("trials", "seed"):
            value, low = getattr(self, name), int(name == "trials")
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ValueError(f"{name} is {value!r}; it must be a whole number, at least {low}.")
        if self.hours is not None and not self.hours > 0:
            raise ValueError(f"hours is {self.hours:g}; it must be above 0.")
        if not self.kinds()[0].validation_fraction:
            raise ValueError("validation_fraction is 0; a search chooses by samples held out, so it must be above 0.")
        if self.sampler == "optuna":
            _optuna()

    def kinds(self) -> list[Config]:
        """Return runs of the search, one for each kind of data that its first ones take."""
        assert isinstance(self.space, Space)
        first = [config for _, config in itertools.islice(self.space.points(self.seed), 50)]
        return list({(data_key(config), config.dtype): config for config in first}.values())


@dataclass
class Trial:
    """A run of a search: its point, and what it showed.

    `values` are those of the objectives, after each epoch, and larger is better; `file` is None while it runs.
    """

    point: Point
    config: Config
    values: list[list[float]] = field(default_factory=list)
    file: Path | None = None
    whole: bool = False  #: whether it has all its epochs
    test_accuracy: float = math.nan  #: after the last epoch; not for choices

    @property
    def last(self) -> list[float] | None:
        """Values after the last epoch; None if there are none that are finite."""
        return self.values[-1] if self.values and all(map(math.isfinite, self.values[-1])) else None


def clearly_loses(values: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
    """Tell whether a run is to be ended, by how others stood after the same epoch.

    Parameters
    ----------
    values : sequence of float
        What the run reached in each objective; larger is better.
    others : sequence of sequence of float
        The same of the others, at least four of them, else nothing is clear.

    Returns
    -------
    bool
        Whether more than half of the others stand on better fronts, and two at least beat it outright. A run is on the
        first front if none is better than it in one objective and as good in all; on the next, if that is so without
        the runs of the first; and so on. With one objective: whether it is worse than the median.

    Examples
    --------
    >>> others = [[0.9, -400], [0.8, -300], [0.7, -200], [0.85, -350]]
    >>> clearly_loses([0.5, -250], others), clearly_loses([0.5, -150], others), clearly_loses([0.6], [[0.9]] * 4)
    (False, False, True)
    """
    if len(others) < _FEWEST:
        return False
    points = np.nan_to_num(np.array([*others, values], dtype=float), nan=-math.inf)
    beat = (points >= points[-1]).all(axis=1) & (points > points[-1]).any(axis=1)
    if beat.sum() < 2:
        return False
    left, better = np.arange(len(points)), 0
    while True:
        front = left[pareto_front(-points[left, 1:] if points.shape[1] > 1 else np.zeros(len(left)), points[left, 0])]
        if len(points) - 1 in front:
            return better > len(others) / 2
        better += len(front)
        left = np.setdiff1d(left, front)


def known_trials(search: Search, folder: Path) -> list[Trial]:
    """Read which runs of a search are over, from the files of a folder; in the order in which they were started."""
    assert isinstance(search.space, Space)
    found = []
    for path in [*(folder / name for name in run_names(folder)), *folder.glob("partial-*.nc")]:
        try:
            run = read_small(path)
        except (ResultsError, OSError):
            continue
        numbers = np.frombuffer(run.numbers, run.layout.numbers)[0]
        if (
            point := search.space.point_of(run.config)
        ) is None or "validation_decision_time" not in numbers.dtype.names:
            continue
        place = run.layout.coords["split"].tolist().index("validation")
        measured = {
            "accuracy": numbers["accuracy"][place],
            "spikes": numbers["spike_count"][place].sum(axis=-1),
            "decision_time": numbers["validation_decision_time"],
        }
        values = [OBJECTIVES[name] * measured[name] for name in search.objectives]
        whole = path.name.startswith("run-")
        test = float(numbers["accuracy"][run.layout.coords["split"].tolist().index("test")][-1])
        trial = Trial(point, run.config, np.transpose(values).tolist(), path, whole, test)
        found.append((run.texts["started"], trial))
    found.sort(key=lambda entry: (entry[0], entry[1].config.identity))
    return list({trial.config.identity: trial for _, trial in found}.values())


def front_of_trials(trials: Sequence[Trial]) -> list[Trial]:
    """Return the whole runs that no other beats in all objectives, the best in the first objective first."""
    whole = [trial for trial in trials if trial.whole and trial.last is not None]
    if not whole:
        return []
    values = np.array([trial.last for trial in whole])
    costs = -values[:, 1:] if values.shape[1] > 1 else np.zeros(len(values))
    return sorted((whole[i] for i in pareto_front(costs, values[:, 0])), key=lambda t: -(t.last or [0])[0])


def front_text(search: Search, trials: Sequence[Trial]) -> str:
    """Write the front of a search as a table: the objectives on the samples held out, test accuracy, what was drawn."""
    rows = []
    for trial in front_of_trials(trials):
        reached = [OBJECTIVES[name] * value for name, value in zip(search.objectives, trial.last or [], strict=True)]
        row = dict(zip(search.objectives, reached, strict=True)) | {"test accuracy": trial.test_accuracy} | trial.point
        rows.append({name: f"{value:.5g}" if isinstance(value, float) else str(value) for name, value in row.items()})
    return str(pd.DataFrame(rows).to_string(index=False)) if rows else "No run is finished."


def run_search(
    search: Search,
    out: str | Path,
    *,
    jobs: int = 0,
    data_dir: str | Path | None = None,
    device: str = "auto",
    threads: int = 0,
    checkpoint: bool = False,
    timeout: float | None = None,
    notebook: str | Path | None = None,
    cluster: str | None = None,
    progress: bool | str | Callable[[Progress], None] = True,
) -> SweepReport:
    """Execute the training notebook for runs that a search draws, in parallel processes.

    Called again it goes on: runs in `out` that lie in the space count as done, also where the space, the objectives or
    the number of trials are others now, and those that were cut off are done first.

    Parameters
    ----------
    search : Search
    out, jobs, data_dir, device, threads, checkpoint, timeout, notebook, cluster, progress
        As in :func:`bats_lab.sweeps.sweep.run_sweep`.

    Returns
    -------
    SweepReport
        Outcomes of the runs done now, and of those of before as ``skipped`` or ``pruned``; :func:`front_of_trials` of
        :func:`known_trials` tells which are best.

    Raises
    ------
    ValueError, TypeError, DataError, DeviceError, FileNotFoundError, BatsLabError
        As `run_sweep`.
    """
    began = time.monotonic()
    if timeout is not None and timeout <= 0:
        raise ValueError(f"timeout is {timeout:g}; it must be above 0, in seconds.")
    source = source_notebook(notebook, "10_train")
    given: dict[str, Any] = {"jobs": jobs, "data_dir": data_dir, "device": device, "threads": threads}
    given["side_by_side"] = 1  # what is tried next depends on what came of each
    kinds = search.kinds()
    plan = plan_sweep(kinds, out, **given, show=progress is not False)
    out = plan.out
    with folder_lock(out, plan.store, watches=cluster is not None) as lock:
        cut_off = told_runs(out)
        settle_folder(out, {run_path(out, config).stem for config in cut_off})
        hunt = _Hunt(search, known_trials(search, out), cut_off, out)
        write_whole(out / SEARCH, hunt.described().encode())
        to_do = max(0, search.trials - len(hunt.trials))
        jobs, threads = _shares(plan, to_do)
        if cluster is not None:
            jobs, threads = given["jobs"], plan.threads or 1
        options = {
            "results_dir": str(out),
            "data_dir": None if data_dir is None else str(Path(data_dir).resolve()),
            "device": device,
            "threads": threads,
            "checkpoint": checkpoint,
        }
        outcomes = [hunt.outcome_before(trial) for trial in hunt.trials]
        total = max(search.trials, len(hunt.trials))
        execution = Execution([], hunt.is_finished, total, jobs, display(progress, total), lock, hunt)
        execution.cluster = cluster
        execution.state.skipped = len(outcomes)
        outcomes += execution.run(hunt.runs(to_do), kinds, source, options, timeout)
    return SweepReport(out, outcomes, time.monotonic() - began, plan.url)


def _shares(plan: SweepPlan, to_do: int) -> tuple[int, int]:
    """Return how many runs of a search are done at a time, and the threads of each."""
    _, jobs, threads = plan.shared_out([plan.configs[0].replace(seed=i) for i in range(max(1, min(to_do, 1000)))])
    return jobs, threads


def estimate_search(
    search: Search,
    out: str | Path,
    *,
    jobs: int = 0,
    data_dir: str | Path | None = None,
    device: str = "auto",
    threads: int = 0,
) -> str:
    """Tell what a search would do, about how long and on how much disk, from short trainings of its first runs.

    Parameters
    ----------
    search : Search
    out, jobs, data_dir, device, threads
        As in :func:`run_search`, which would raise the same; nothing is written but data sets.
    """
    given: dict[str, Any] = {"jobs": jobs, "data_dir": data_dir, "device": device, "threads": threads}
    plan = plan_sweep(search.kinds(), out, **given, side_by_side=1)
    hunt = _Hunt(search, known_trials(search, plan.out), told_runs(plan.out), plan.out)
    before, to_do = len(hunt.trials), max(0, search.trials - len(hunt.trials))
    jobs, threads = _shares(plan, to_do)
    first = [run for [run] in hunt.runs(min(to_do, _PROBED))]
    lines = [f"{to_do} runs to do" + (f", {before} over before" if before else "") + (", the first:" if first else "")]
    lines += [f"  {run.label}" for run in first]
    if first:
        configs, labels = [run.config for run in first], [run.label for run in first]
        probe = replace(plan, configs=configs, labels=labels, todo=configs, jobs=1, threads=threads)
        each = estimate(probe, data_dir=data_dir)
        size = each.bytes * to_do / len(first)
        time = "no estimate on a GPU"
        if each.seconds is not None:
            seconds = each.seconds * to_do / len(first) / jobs
            most = seconds if search.hours is None else min(seconds, 3600 * search.hours)
            time = f"about {duration(most)}" + (", less what is ended early" if search.prune else "")
        lines.append(f"time:  {time}, {jobs} at a time with {threads} threads each")
        full = "; MORE THAN THERE IS" if size > each.free else ""
        lines.append(f"disk:  about {size / 1e6:.3g} MB of {each.free / 1e9:.3g} GB free{full}")
    return "\n".join([*lines, f"into:  {plan.url or plan.out}"])


class _Hunt:
    """A search at work: what it knows, what it tries next, and which runs it ends."""

    def __init__(self, search: Search, known: list[Trial], cut_off: Sequence[Config], out: Path) -> None:
        assert isinstance(search.space, Space)
        self.search, self.space, self.trials, self._out = search, search.space, known, out
        self._by_run = {trial.config.identity: trial for trial in known}
        again = [(self.space.point_of(config), config) for config in cut_off if config.identity not in self._by_run]
        self._again = [(point, config) for point, config in again if point is not None]
        self._ends = math.inf if search.hours is None else time.monotonic() + 3600 * search.hours
        self._asked = _asked_optuna(self) if search.sampler == "optuna" else self.space.points(search.seed)
        self.told: list[Trial] = []  # what has not been told to Optuna

    def described(self) -> str:
        """Describe the search as JSON."""
        free = {n: vars(axis) if isinstance(axis, Range) else axis for n, axis in self.space.free.items()}
        names = ("objectives", "trials", "sampler", "seed", "prune")
        return json.dumps({"space": free} | {name: getattr(self.search, name) for name in names}, indent=1)

    def is_finished(self, config: Config) -> bool:
        """Tell whether a run's results are there."""
        path = run_path(self._out, config)
        try:
            return read_small(path).config == config
        except (ResultsError, OSError):
            return False

    def outcome_before(self, trial: Trial) -> RunOutcome:
        """Tell of a run of before."""
        path = self._out / "notebooks" / f"{run_path(self._out, trial.config).stem}.ipynb"
        status = "skipped" if trial.whole else "pruned"
        return RunOutcome(trial.config, self.label(trial.point), status, notebook=path if path.exists() else None)

    def label(self, point: Point) -> str:
        """Name a run by its point."""
        return ", ".join(
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in point.items()
        )

    def runs(self, number: int) -> Iterator[list[Run]]:
        """Yield runs to do, each when there is room for it: first those that were cut off."""
        for _ in range(number):
            following = self._next()
            if following is None or time.monotonic() > self._ends:
                return
            point, config = following
            trial = self._by_run[config.identity] = Trial(point, config)
            self.trials.append(trial)
            notebook = self._out / "notebooks" / f"{run_path(self._out, config).stem}.ipynb"
            yield [Run(config, self.label(point), notebook)]

    def knows(self, config: Config) -> bool:
        """Tell whether a run has been tried."""
        return config.identity in self._by_run

    def _next(self) -> tuple[Point, Config] | None:
        for point, config in itertools.chain(self._again, self._asked):
            if not self.knows(config):
                return point, config
        return None

    def epoch(self, run: Run, told: Mapping[str, Any]) -> bool:
        """Take in what a run reached, and say whether it clearly loses."""
        trial = self._by_run[run.config.identity]
        values = [OBJECTIVES[name] * float(told[name]) for name in self.search.objectives]
        epoch = int(told["epoch"])
        # Of a run that goes on from a checkpoint the first are not told again.
        missing = [[math.nan] * len(values)] * (epoch - 1 - len(trial.values))
        trial.values = [*trial.values[: epoch - 1], *missing, values]
        if not self.search.prune:
            return False
        others = [other.values[epoch - 1] for other in self.trials if other is not trial and len(other.values) >= epoch]
        return clearly_loses(values, [other for other in others if not any(map(math.isnan, other))])

    def over(self, outcome: RunOutcome) -> None:
        """Take in how a run ended."""
        trial = self._by_run[outcome.config.identity]
        trial.whole = outcome.status == "finished"
        self.told.append(trial)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise BatsLabError("The sampler optuna needs the package optuna: pip install 'bats-lab[search]'.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _asked_optuna(hunt: _Hunt) -> Iterator[tuple[Point, Config]]:
    """Yield points that Optuna asks for; each time it learns first what has ended since.

    A run that was ended early counts with what it had reached, since Optuna knows no such runs with several objectives.
    """
    optuna = _optuna()
    search, axes = hunt.search, {}
    for name, axis in hunt.space.free.items():
        if isinstance(axis, Range) and axis.whole:
            axes[name] = optuna.distributions.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
        elif isinstance(axis, Range):
            axes[name] = optuna.distributions.FloatDistribution(axis.low, axis.high, log=axis.log)
        else:  # of choices their places, as lists are no values of Optuna's
            axes[name] = optuna.distributions.CategoricalDistribution(range(len(axis)))

    def placed(point: Point) -> dict[str, Any]:
        free = {name: hunt.space.free[name] for name in point}
        return {n: point[n] if isinstance(axis, Range) else axis.index(point[n]) for n, axis in free.items()}

    # Started again it must not draw what it drew before.
    sampler = optuna.samplers.TPESampler(
        seed=search.seed + len(hunt.trials), n_startup_trials=min(10, search.trials), constant_liar=True
    )
    study = optuna.create_study(directions=["maximize"] * len(search.objectives), sampler=sampler)
    for trial in hunt.trials:
        if trial.last is not None:
            study.add_trial(
                optuna.trial.create_trial(params=placed(trial.point), distributions=axes, values=trial.last)
            )
    asked: dict[str, Any] = {}
    refused = 0
    while refused < 1000:
        for trial in hunt.told:
            if (own := asked.pop(trial.config.identity, None)) is not None:
                failed = trial.last is None
                study.tell(own, None if failed else trial.last, state=optuna.trial.TrialState.FAIL if failed else None)
        hunt.told.clear()
        own = study.ask(axes)
        point = {
            name: axis.settled(own.params[name]) if isinstance(axis, Range) else axis[own.params[name]]
            for name, axis in hunt.space.free.items()
        }
        config = hunt.space.allowed(point)
        if config is None or hunt.knows(config):
            study.tell(own, state=optuna.trial.TrialState.FAIL)
            refused += 1
            continue
        refused = 0
        asked[config.identity] = own
        yield point, config
