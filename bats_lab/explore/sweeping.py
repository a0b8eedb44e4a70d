"""A sweep by controls: what it would do, its start and its end, where it stands, and what has come out so far."""

from __future__ import annotations

import asyncio
import contextlib
import html
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import ipywidgets

from bats_lab.data.registry import DATASETS
from bats_lab.errors import BatsLabError
from bats_lab.explore.widgets import side_by_side
from bats_lab.runs.metrics import summary_text
from bats_lab.runs.results import open_results
from bats_lab.spikes.rules import RULES
from bats_lab.sweeps.journal import SweepStatus, read_status

__all__ = ["SweepControl", "explore_sweep"]


class SweepControl(ipywidgets.VBox):  # type: ignore[misc]
    """Controls that plan a sweep, start it as a process of its own, and tell where it stands.

    The sweep is the command ``bats-lab sweep``, which is shown: it goes on without the notebook, and is found again by
    its folder. Several values are separated by commas, and times may have a unit, as on the command line.

    Attributes
    ----------
    controls : dict of str to ipywidgets.Widget
        `folder`, `dataset`, `delta_t`, `rule`, `seeds`, `epochs` and `more`, any other options of the command.
    status : SweepStatus or None
        Where the sweep of the folder stands, as of the last look.
    """

    def __init__(self, folder: str | Path, values: Mapping[str, Any]) -> None:
        wide = ipywidgets.Layout(width="340px")

        def text(name: str, default: str, description: str) -> Any:
            given = str(values.get(name, default))
            return ipywidgets.Text(given, description=description, layout=wide, continuous_update=False)

        dataset = str(values.get("dataset", "mnist_small"))
        rules = [r for r in str(values.get("rule", "drop")).split(",") if r in RULES]
        self.controls = {
            "folder": ipywidgets.Text(str(folder), description="folder", layout=wide, continuous_update=False),
            "dataset": ipywidgets.Combobox(
                value=dataset,
                options=tuple(DATASETS),
                description="data",
                layout=wide,
            ),
            "delta_t": text("delta_t", "0,1ms,4ms,8ms", "time steps"),
            "rule": ipywidgets.SelectMultiple(
                options=tuple(RULES), value=rules, rows=len(RULES), description="rules", layout=wide
            ),
            "seeds": text("seeds", "2", "seeds"),
            "epochs": text("epochs", "3", "epochs"),
            "more": text("more", "", "more"),
        }
        self.controls["more"].placeholder = "--hidden 100,400 --learning-rate 0.001"
        self.buttons = {name: ipywidgets.Button(description=name) for name in ("what would run", "start", "stop")}
        for button, act in zip(self.buttons.values(), (self.plan, self.start, self.stop), strict=True):
            button.on_click(lambda _, act=act: act())
        self.status: SweepStatus | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._last_words = ""
        self._task: asyncio.Task[None] | None = None
        self._command, self._told, self._results = ipywidgets.HTML(), ipywidgets.HTML(), ipywidgets.HTML()
        self._bar = ipywidgets.IntProgress(layout=ipywidgets.Layout(width="340px"))
        for control in self.controls.values():
            control.observe(lambda _: self.refresh(), "value")
        rows = [side_by_side(list(self.controls.values())), side_by_side(list(self.buttons.values()))]
        super().__init__([*rows, self._command, self._bar, self._told, self._results])
        self.refresh()
        self._follow()

    @property
    def command(self) -> list[str]:
        """The command, without the program's name, as on the command line."""
        values = {name: control.value for name, control in self.controls.items()}
        options = [
            f"--dataset={values['dataset']}",
            f"--delta-t={values['delta_t']}",
            f"--rule={','.join(values['rule'])}",
        ]
        options += [f"--seeds={values['seeds']}", f"--epochs={values['epochs']}", f"--out={values['folder']}"]
        return ["sweep", *options, *shlex.split(values["more"])]

    def plan(self) -> str:
        """Ask what would run, about how long and on how much disk; show and return the answer."""
        self._tell(self._told, "measuring …")
        done = subprocess.run(
            [sys.executable, "-m", "bats_lab", *self.command, "--dry-run"], capture_output=True, text=True
        )
        self._tell(self._told, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def start(self) -> None:
        """Start the sweep, unless one is at work in the folder."""
        if self._process is None or self._process.poll() is not None:
            self._log, self._last_words = tempfile.TemporaryFile(), ""  # noqa: SIM115
            command = [sys.executable, "-m", "bats_lab", *self.command, "--no-report", "--quiet"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._log, start_new_session=True
            )
        self.refresh()
        self._follow()

    def stop(self) -> None:
        """Stop the sweep that was started from here; the next start goes on."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def wait(self) -> SweepStatus | None:
        """Wait until the sweep is over that was started from here, and return where it stands."""
        if self._process is not None:
            self._process.wait()
        self.refresh()
        return self.status

    def refresh(self) -> None:
        """Look where the sweep stands, and what has come out."""
        with contextlib.suppress(ValueError):  # a quotation mark that is not closed yet
            self._tell(self._command, "bats-lab " + shlex.join(self.command))
        before = -1 if self.status is None else self.status.runs_in_folder
        ended = self._process is not None and self._process.poll() is not None
        if ended and self._log is not None:
            with self._log as log:
                log.seek(0)
                self._last_words = "".join(log.read().decode(errors="replace").strip().splitlines()[-1:])
            self._log = None
        try:
            self.status = read_status(self.controls["folder"].value)
        except OSError:
            self.status = None
        said = "no sweep here yet" if self.status is None else str(self.status)
        if self._process is not None and self._process.poll():
            said += f"\n{self._last_words}"
        self._tell(self._told, said)
        if self.status is None:
            self._results.value = ""
            return
        self._bar.max, self._bar.value = max(1, self.status.total), self.status.done
        if self.status.runs_in_folder and (self.status.runs_in_folder != before or ended):
            with contextlib.suppress(BatsLabError, OSError):
                self._tell(self._results, summary_text(open_results(self.status.folder)))

    def _follow(self) -> None:
        """Look every two seconds for as long as a sweep is at work."""
        if self._task is None or self._task.done():
            with contextlib.suppress(RuntimeError):  # no notebook, hence no loop: who calls refreshes
                self._task = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        while (self._process is not None and self._process.poll() is None) or (self.status and self.status.at_work):
            await asyncio.sleep(2)
            self.refresh()

    @staticmethod
    def _tell(where: Any, text: str) -> None:
        where.value = f"<pre>{html.escape(text)}</pre>"


def explore_sweep(folder: str | Path, **values: Any) -> SweepControl:
    """Plan a sweep by controls, start it, and watch it.

    Parameters
    ----------
    folder : str or Path
        Folder of results; where a sweep is at work in it already, that one is shown.
    dataset, delta_t, rule, seeds, epochs, more : str
        Values of the controls at the start, as on the command line: ``delta_t="0,4ms"``.
    """
    return SweepControl(folder, values)
