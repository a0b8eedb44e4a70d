"""Argument lists that nobody meant: the command line answers each in one sentence, or begins the work it was asked."""

from __future__ import annotations

import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np
import pytest
from damage import attempts
from runs import make_run

import bats_lab.cli
from bats_lab.cli import main
from bats_lab.config import parameters
from bats_lab.errors import BatsLabError, DeviceError
from bats_lab.network.feedforward import Network
from bats_lab.runs.files import save_run
from bats_lab.studies.registry import REGISTRY
from bats_lab.sweeps.search import OBJECTIVES

#: Seconds of the processor within which an argument list is answered, and of the clock where other programs run too.
PATIENCE, LONGEST = 5, 60

#: What is done for as long as the run of a program: each is let begin, and no further.
WORK = (
    "bats_lab.runs.experiment.train_group",
    "bats_lab.sweeps.pool.Pool.__init__",
    "bats_lab.data.download._fetch_files",
    "bats_lab.explore.serve.serve_dashboard",
    "os.execve",
)

#: Errors that are meant for whoever typed; any other is a fault in the program.
MEANT = (ValueError, TypeError, DeviceError, BatsLabError, OSError)

COMMANDS = [
    *("run", "rerun", "pack", "unpack", "sweep", "search", "status", "reproduce", "report", "import", "export", "data"),
    *("lab", "dashboard", "info", "completion", "data list", "data download", "data verify", "data where"),
]

#: What stands where a value should, beside what is right there and what a mutation makes of it.
STRANGE = ["", " ", "-", "--", "-1", "0", "1e400", "nan", "inf", "-inf", "1e-320", "9" * 400, "0x10", "1_000", "٣", "½"]
STRANGE += ["\x00", "a\nb", "\x1b[2J", "%s%n{}", "$(id)", "`id`", "../..", "/", ".", "~", "/dev/zero", "/dev/null"]
STRANGE += [",", "-,-", "..", "1..", "..1", "2..1", "0..1:log", "1..9:lin", "1..9:log:log", "None", "none", "all"]
STRANGE += ["True", "<script>", "é" * 300, "x" * 5000, "\ud800", "tcp://", "tcp://127.0.0.1:x", "tcp://127.0.0.1:1"]
STRANGE += ["ssh:", "no.json", "s3://", "s3:///x", "file://", "nosuch://x/y", "http://[::1", "-h", "--version", "@x"]


class WorkBegins(BaseException):
    """What was typed makes sense so far that work would begin now."""


def begin(*_: Any, **__: Any) -> NoReturn:
    raise WorkBegins


def too_long(_: int, __: FrameType | None) -> NoReturn:
    raise AssertionError(f"no answer within {PATIENCE} s of the processor or {LONGEST} s of the clock")


def give_time(share: int) -> None:
    """Begin to count the time that an answer may take; with 0 end that."""
    signal.setitimer(signal.ITIMER_PROF, share * PATIENCE)
    signal.setitimer(signal.ITIMER_REAL, share * LONGEST)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with what commands take, and nothing that would really be trained, fetched or served."""
    (tmp_path / "kept").mkdir()
    run = save_run(make_run(), tmp_path / "kept" / "results")
    shutil.copy(run, tmp_path / "kept" / "run.nc")
    Network.from_config(bats_lab.Config(hidden=(6,)), 12, 3).save(tmp_path / "kept" / "network.npz")
    (tmp_path / "kept" / "file").write_text("no results")
    (tmp_path / "kept" / "empty").mkdir()
    (tmp_path / "now").mkdir()
    monkeypatch.chdir(tmp_path / "now")
    monkeypatch.setenv("BATS_LAB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for work in WORK:
        monkeypatch.setattr(work, begin)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    before |= {number: signal.signal(number, too_long) for number in (signal.SIGALRM, signal.SIGPROF)}
    yield tmp_path
    give_time(0)
    for number, handler in before.items():
        signal.signal(number, handler)


def sensible_values() -> dict[str, list[str]]:
    """Values that an option takes, right or nearly so."""
    numbers, files = ["0", "1", "2", "-1", "7", "100000000000"], ["results", "empty", "file", "run.nc", "no"]
    flags = "--checkpoint --no-prune --no-report --dry-run --quiet --quick --no-browser"
    kinds = [
        (
            " ".join(f"--{p.name.replace('_', '-')}" for p in parameters()),
            ["1", "0.5", "1,2", "1-2", "0.1..0.5", "yes"],
        ),
        ("--delta-t", ["0", "4ms", "1ms,4ms", "-1ms", "4", "1ms..8ms"]),
        ("--dataset", ["mnist_small", "file", "x.npz"]),
        ("--rule", ["drop", "drop,graded", "clocked", "dorp"]),
        ("--hidden", ["5", "20-10", "20-", "5..9", "-5"]),
        ("--threads --jobs --side-by-side --trials --search-seed --port", numbers),
        ("--seeds --hours --timeout --step --duration", [*numbers, "0.1", "3,5"]),
        ("--data-dir --out --folder --network", files),
        ("--device", ["cpu", "cuda", "auto"]),
        ("--sampler", ["random", "optuna", "grid"]),
        ("--reset", ["zero", "x"]),
        ("--objectives", [*OBJECTIVES, "accuracy,spikes", "accuracy,accuracy", ","]),
        ("--cluster", ["tcp://127.0.0.1:1"]),
        (flags, [""]),
    ]
    return {name: values for names, values in kinds for name in names.split()}


VALUES = sensible_values()
WORDS = [
    "results",
    "run.nc",
    "network.npz",
    "file",
    "empty",
    "no",
    "mnist_small",
    "mnist",
    "bash",
    "zsh",
    *REGISTRY,
    "all",
]


def argument_list(rng: np.random.Generator) -> list[str]:
    """Draw a command with options, some of them of other commands, and mutate what came out."""

    def some(from_: Any) -> str:
        return str(from_[rng.integers(len(from_))])

    words = some(COMMANDS).split()
    for _ in range(rng.integers(0, 3)):
        words.append(some(WORDS))
    for _ in range(rng.integers(0, 5)):
        name = some(list(VALUES))
        value = some(STRANGE) if rng.random() < 0.3 else some(VALUES[name])
        words += [name] if value == "" else [f"{name}={value}"] if rng.random() < 0.7 else [name, value]
    for _ in range(rng.integers(0, 3)):
        at = int(rng.integers(len(words))) if words else 0
        match rng.integers(0, 5) if words else 4:
            case 0:
                del words[at]
            case 1:
                words.insert(at, words[int(rng.integers(len(words)))])
            case 2:
                cut = int(rng.integers(0, len(words[at]) + 1))
                words[at] = words[at][:cut] + chr(int(rng.integers(32, 0x250))) + words[at][cut + 1 :]
            case 3:
                words[at] = words[at][: int(rng.integers(0, len(words[at]) + 1))]
            case _:
                words.insert(at, some(STRANGE))
    return words


def test_any_argument_list_is_answered_in_a_sentence(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered: list[BaseException | None] = []
    complain: Callable[[str], None] = bats_lab.cli.complain

    def listen(text: str) -> None:
        answered.append(sys.exception())
        complain(text)

    monkeypatch.setattr(bats_lab.cli, "complain", listen)
    rng = np.random.default_rng(0)
    counts = {"work": 0, "0": 0, "1": 0, "2": 0}
    for number in range(attempts(4)):
        if number % 50 == 0:  # what commands did meanwhile, pack and export above all, is undone
            shutil.rmtree(place / "now")
            shutil.copytree(place / "kept", place / "now")
            monkeypatch.chdir(place / "now")
        words = argument_list(rng)
        answered.clear()
        give_time(1)
        status: Any
        try:
            status = main(words)
        except SystemExit as end:
            status = end.code or 0
        except WorkBegins:
            status = "work"
        finally:
            give_time(0)
        _, errors = capsys.readouterr()
        counts[str(status)] += 1
        assert all(isinstance(error, MEANT) for error in answered), (words, answered)
        assert "Traceback" not in errors, words
        if status in (1, 2) and "--watch" not in words:
            *_, last = errors.splitlines() or [""]
            said = re.fullmatch(r"bats-lab( \w+)*: \S.*", last)
            assert said or (status == 1 and not errors), (words, status, errors)
            assert sum(line.startswith("bats-lab") for line in errors.splitlines()) <= 1, (words, errors)
    assert min(counts.values()) > 0, counts
