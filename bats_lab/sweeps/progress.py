"""How a sweep stands and how it ended, and two ways to show it: a bar, or a line a run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from bats_lab.config import Config

__all__ = ["Progress", "RunOutcome", "SweepReport", "display", "shown"]


@dataclass(frozen=True)
class RunOutcome:
    """How one run ended: ``finished``, ``failed``, ``skipped`` if it was before, or ``pruned`` as others do better.

    The label names the parameters in which it differs from other runs; the reason says in one line why it failed.
    """

    config: Config
    label: str
    status: str
    reason: str = ""
    notebook: Path | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class SweepReport:
    """How a sweep ended: its folder and the outcome of each run, in the order of the configurations."""

    out: Path
    outcomes: list[RunOutcome]
    seconds: float
    url: str = ""  #: of which `out` is the mirror

    def __str__(self) -> str:
        """Name where the results are."""
        return self.url or shown(self.out)

    def _with(self, status: str) -> list[RunOutcome]:
        return [outcome for outcome in self.outcomes if outcome.status == status]

    @property
    def finished(self) -> list[RunOutcome]:
        """Runs that were done now."""
        return self._with("finished")

    @property
    def skipped(self) -> list[RunOutcome]:
        """Runs that were finished before."""
        return self._with("skipped")

    @property
    def pruned(self) -> list[RunOutcome]:
        """Runs that a search ended early."""
        return self._with("pruned")

    @property
    def failed(self) -> list[RunOutcome]:
        """Runs without results."""
        return self._with("failed")

    def failures(self) -> str:
        """List the runs that failed, with reasons and notebooks."""
        lines = [f"\n{len(self.failed)} of {len(self.outcomes)} runs failed:"]
        for outcome in self.failed:
            lines.append(f"  {outcome.label}: {outcome.reason}")
            if outcome.notebook is not None:
                lines.append(f"    {shown(outcome.notebook)}")
        return "\n".join(lines)


def shown(path: Path) -> str:
    """Write a path as a person would: relative to where they are, if it lies below."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


@dataclass
class Progress:
    """Where a sweep stands; passed on whenever something changed, and once a second."""

    total: int  #: number of runs
    skipped: int = 0
    finished: int = 0
    failed: int = 0
    pruned: int = 0  #: ended by a search, as others do better
    running: dict[str, str] = field(default_factory=dict)  #: of each run at work the label, and how its last epoch went
    seconds_left: float | None = None  #: estimate from the runs that are finished; None before the first
    stage: str = "compiling"  #: compiling before the first run, training, or over
    last: RunOutcome | None = None  #: the run that has just ended
    last_line: str = ""  #: how its last epoch went

    @property
    def done(self) -> int:
        """Runs that are over, one way or another."""
        return self.skipped + self.finished + self.failed + self.pruned


def display(progress: bool | str | Callable[[Progress], None], total: int) -> Callable[[Progress], None]:
    """Return the function that shows a sweep's progress, as `run_sweep` has it."""
    if callable(progress):
        return progress
    if progress is False:
        return lambda state: None
    if progress is True:
        return _Bar(total) if sys.stderr.isatty() else _Lines(total)
    if progress == "lines":
        return _Lines(total)
    raise ValueError(f"progress is {progress!r}; it must be True, False, 'lines' or a function.")


class _Bar:
    """Shows a sweep's progress as one bar that redraws itself."""

    def __init__(self, total: int) -> None:
        form = "{n_fmt}/{total_fmt} |{bar:20}| {desc}"
        self._bar = tqdm(total=total, bar_format=form, file=sys.stderr, dynamic_ncols=True)

    def __call__(self, progress: Progress) -> None:
        if progress.last is not None and progress.last.status == "failed":
            self._bar.write(f"failed: {progress.last.label}: {progress.last.reason}", file=sys.stderr)
        parts = ["done" + (f" ({progress.skipped} before)" if progress.skipped else "")]
        if progress.stage == "compiling":
            parts.append("compiling (once) …")
        if progress.running:
            lines = [line for line in progress.running.values() if line]  # as "epoch 3/10: test accuracy …"
            epochs = dict.fromkeys(line.removeprefix("epoch ").partition(":")[0] for line in lines)
            parts.append(f"{len(progress.running)} running" + (f" (epoch {', '.join(epochs)})" if epochs else ""))
        parts += [f"{progress.pruned} ended early"] if progress.pruned else []
        parts.append(f"{progress.failed} failed")
        if progress.stage == "training" and progress.seconds_left is not None:
            parts.append(f"{tqdm.format_interval(progress.seconds_left)} left")
        self._bar.n = progress.done
        self._bar.set_description_str(" · ".join(parts))
        if progress.stage == "over":
            self._bar.close()


class _Lines:
    """Shows a sweep's progress as a line for each run that is over, for logs."""

    def __init__(self, total: int) -> None:
        self._width = len(str(total))
        self._stage = ""

    def __call__(self, progress: Progress) -> None:
        if progress.stage == "compiling" and self._stage != "compiling":
            sys.stderr.write("compiling (once) …\n")
        self._stage = progress.stage
        if (last := progress.last) is not None:
            left = f", {tqdm.format_interval(progress.seconds_left)} left" if progress.seconds_left else ""
            line = f"failed: {last.reason}" if last.status == "failed" else progress.last_line
            line = f"ended early: {line}" if last.status == "pruned" else line
            count = f"[{progress.done:{self._width}}/{progress.total}]"
            sys.stderr.write(f"{count} {last.label}: {line} ({last.seconds:.1f} s{left})\n")
        sys.stderr.flush()
