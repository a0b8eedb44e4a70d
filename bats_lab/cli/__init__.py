"""The command line: the table of commands, their options, and the parser.

Options of a run are made from :func:`bats_lab.config.parameters`.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import signal
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from bats_lab.cli.commands import (
    BAD_INPUT,
    FAILED,
    INTERRUPTED,
    OK,
    complain,
    dashboard,
    data_download,
    data_list,
    data_make,
    data_verify,
    data_where,
    export,
    import_,
    info,
    lab,
    pack,
    printable,
    report,
    reproduce,
    rerun,
    run,
    search,
    show_warning,
    status,
    sweep,
    unpack,
)
from bats_lab.cli.completion import SHELLS, completion
from bats_lab.config import parameters
from bats_lab.errors import DeviceError
from bats_lab.studies.registry import REGISTRY

__all__ = ["main", "make_parser"]

_DESCRIPTION = (
    "What does a digital clock do to a spiking network? Trains spiking networks on any time step and compares."
)

_EXAMPLES = """\
examples:
  bats-lab run --delta-t 0.004 --epochs 3
  bats-lab sweep --delta-t 0,0.001,0.004,0.008 --seeds 2 --epochs 3 --out results/first
  bats-lab sweep --dataset mnist --delta-t 0,0.001,0.004,0.008 --seeds 5 --rule drop,graded --jobs 2 --out results/mnist
  bats-lab status results/mnist
  bats-lab report results/mnist
  bats-lab data list

`bats-lab COMMAND --help` lists the options of a command.
"""

_RUN_EXAMPLES = """\
examples:
  bats-lab run
  bats-lab run --dataset fashion_mnist --delta-t 1ms --rule graded --checkpoint --out results/fashion
  bats-lab run --dataset my_images.npz --hidden 200-100 --threshold-hidden 0.2-0.3 --max-spikes-hidden 30-30
"""

_SWEEP_EXAMPLES = """\
Every option of a run takes several values, separated by commas; the sweep runs every combination of them. Started
again, it does what is not finished yet.

examples:
  bats-lab sweep --delta-t 0,0.001,0.004,0.008 --seeds 2 --epochs 3
  bats-lab sweep --dataset mnist --delta-t 0,0.5ms,4ms,8ms --seeds 5 --rule drop,graded --jobs 2 --out results/mnist
  bats-lab sweep --hidden 100,400,800 --learning-rate 0.001,0.003 --seeds 0,1,7 --out results/sizes
"""

_SEARCH_EXAMPLES = """\
Every option of a run takes a range (LOW..HIGH, or LOW..HIGH:log), or several choices, separated by commas; runs are
drawn from all of them. Choices are made by training samples that are held out (--validation-fraction, 0.1 if it is not
given). Started again, it goes on; with more --trials it searches further.

examples:
  bats-lab search --learning-rate 1e-4..1e-2:log --rule drop,graded --epochs 3 --trials 20
  bats-lab search --hidden 50..400 --threshold-hidden 0.05..0.5:log --delta-t 8ms --sampler optuna --out results/small
"""

_COMPLETION_EXAMPLES = """\
examples, for ~/.bashrc, ~/.zshrc and ~/.config/fish/config.fish:
  eval "$(bats-lab completion bash)"
  eval "$(bats-lab completion zsh)"
  bats-lab completion fish | source
"""

_STUDY = """\
Runs what is not finished yet, executes the notebook with the study's figures on it, and prints which claims of the
thesis hold.

examples:
  bats-lab reproduce mnist --quick
  bats-lab reproduce all --data-dir data
"""

_SEEDS = "seeds, counted from 0 (default: one with --quick; else as many as in the thesis, or two to five)"

_STYLE: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}

#: What ends a command: Ctrl-C, kill, and a terminal that is closed.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _studies() -> str:
    """List what can be reproduced, and what each study asks."""
    return "; ".join(f"{name}: {row.question}" for name, row in REGISTRY.items()) + "; or all"


def _completion(args: argparse.Namespace) -> int:
    from bats_lab.data.registry import DATASETS
    from bats_lab.engine import DEVICES
    from bats_lab.spikes import estimators, rules
    from bats_lab.sweeps.search import SAMPLERS

    values = {"rule": [*rules.RULES], "estimator": [*estimators.ESTIMATORS], "device": [*DEVICES]}
    values |= {"sampler": [*SAMPLERS]}
    values |= {"names": [*DATASETS], "study": [*REGISTRY, "all"], "shell": [*SHELLS]}
    print(completion(make_parser(), args.shell, values))
    return OK


# The table of commands, and the parser

# An option or argument: its metavar ("" for a flag), its default, and its help. What takes N takes a whole number.
_OPTIONS: dict[str, tuple[str, Any, str | Callable[[], str]]] = {
    "--out": ("DIR", "results", "folder of results, or its URL, as s3://bucket/folder (default: %(default)s)"),
    "--data-dir": ("DIR", None, "folder of full data sets (default: BATS_LAB_DATA, or a folder in the user's cache)"),
    "--device": ("DEVICE", "auto", "where networks run: auto, cuda or cpu (default: %(default)s)"),
    "--threads": ("N", 0, "threads of a run; 0: as many as cores are free (default: %(default)s)"),
    "--checkpoint": ("", False, "keep the state after each epoch; a run cut short goes on from it"),
    "--objectives": ("NAMES", "accuracy,spikes", "what it is after, of accuracy, spikes, decision_time (%(default)s)"),
    "--trials": ("N", 50, "runs of the whole search (default: %(default)s)"),
    "--sampler": ("NAME", "random", "how runs are drawn: random, or optuna (extra search) (default: %(default)s)"),
    "--search-seed": ("N", 0, "seed of what is drawn (default: %(default)s)"),
    "--no-prune": ("", True, "let runs that clearly lose go on to their last epoch"),
    "--hours": ("H", None, "start no further run after so many hours"),
    "--jobs": ("N", 0, "runs at a time (default: one a core; on a GPU one group of runs)"),
    "--cluster": (
        "WHERE",
        None,
        "run on a Dask cluster: tcp://host:8786, a scheduler file, ssh:host1,host2, slurm, pbs, …",
    ),
    "--side-by-side": ("N", 0, "runs that one process trains side by side (default: 40 on a GPU, else 1)"),
    "--timeout": ("S", None, "end a run as failed after so many seconds"),
    "--no-report": ("", True, "leave out the report"),
    "--dry-run": ("", False, "tell what would run, about how long and on how much disk, and run nothing"),
    "--watch": ("", False, "tell again every two seconds, until the sweep is over"),
    "--quiet": ("", False, "a line for each run in place of a progress bar"),
    "study": ("STUDY", None, _studies),
    "--quick": ("", False, "few epochs on mnist_small: a look in minutes"),
    "--seeds": ("N", None, _SEEDS),
    "folder": ("folder", None, "folder of results or URL, as given to --out"),
    "results": ("FILE", None, "results of one run, run-….nc, or their URL"),
    "folder?": ("folder", None, "folder of results (default: those that ship with the project)"),
    "names+": ("NAME", None, "mnist, fashion_mnist, emnist or mnist_small"),
    "names*": ("NAME", None, "mnist, fashion_mnist, emnist or mnist_small"),
    "made": ("NAME", None, "spoken_digits"),
    "--samples": ("N", 10_080, "samples in all, a multiple of 480 (default: %(default)s)"),
    "--seed": ("N", 0, "seed of what is drawn (default: %(default)s)"),
    "--folder": ("FOLDER", None, "folder to copy the notebooks into, where they are not in a checkout"),
    "options*": ("-- OPTION", None, "options passed on to JupyterLab, after --"),
    "file": ("FILE", None, "a NIR file to import; a run (.nc, with its weights) or a saved network (.npz) to export"),
    "--step": ("S", None, "step of the platform, s (default: the file's, or 1e-4; export: 1e-3)"),
    "--reset": ("RESET", None, "zero or subtract, for all neurons (default: what the file says, else zero)"),
    "--network": ("FILE", None, "write it as a network of the engine too (.npz)"),
    "--duration": ("S", 0.2, "window of that network in seconds (default: %(default)s)"),
    "--port": ("N", 8866, "port on this machine (default: %(default)s)"),
    "--no-browser": ("", True, "do not open a browser"),
    "shell": ("SHELL", None, "the shell: " + ", ".join(SHELLS)),
    "--debug": ("", False, "show where an error comes from (or BATS_LAB_DEBUG=1)"),
}

_RUN_OPTIONS = "--data-dir --device --threads --checkpoint"


class _Command(NamedTuple):
    """One command: what it calls, its line of help, its options, and what stands below them."""

    call: Callable[[argparse.Namespace], int]
    text: str
    options: str = ""
    epilog: str = ""


_COMMANDS = {
    "run": _Command(
        run, "Train one network and save its results.", f"--out=results/runs {_RUN_OPTIONS}", _RUN_EXAMPLES
    ),
    "rerun": _Command(
        rerun,
        "Repeat the run of a results file and compare the numbers.",
        "results --data-dir --device --threads",
    ),
    "pack": _Command(
        pack,
        "Put the finished runs of a folder into one small file; what opens them goes on as before.",
        "folder",
    ),
    "unpack": _Command(unpack, "Write the packed runs of a folder into files of their own again.", "folder"),
    "sweep": _Command(
        sweep,
        "Train networks for every combination of parameters, then draw a report.",
        f"--out=results/sweep {_RUN_OPTIONS} --jobs --cluster --side-by-side --timeout --no-report --quiet --dry-run",
        _SWEEP_EXAMPLES,
    ),
    "search": _Command(
        search,
        "Search for the best parameters: draw runs from ranges and choices, end those that clearly lose.",
        f"--out=results/search {_RUN_OPTIONS} --objectives --trials --sampler --search-seed --no-prune --hours --jobs "
        "--cluster --timeout --quiet --dry-run",
        _SEARCH_EXAMPLES,
    ),
    "status": _Command(
        status, "Tell where the sweep of a folder stands, also one of another machine.", "folder --watch"
    ),
    "reproduce": _Command(
        reproduce,
        "Run a study, draw its figures and check the claims of the thesis.",
        "study --quick --seeds --out --data-dir --device --jobs --quiet",
        _STUDY,
    ),
    "report": _Command(report, "Draw the report of a folder of results again.", "folder"),
    "import": _Command(
        import_,
        "Read a network from a NIR file and tell what is in it.",
        "file --step --reset --network --duration",
    ),
    "export": _Command(export, "Write a trained network as a NIR file.", "file --out=network.nir --step"),
    "data": _Command(data_list, "List, download, make and verify data sets."),
    "lab": _Command(lab, "Open JupyterLab on the project's notebooks.", "--folder options*"),
    "dashboard": _Command(
        dashboard,
        "Serve the explorers of a folder of results as a page, without code.",
        "folder? --port --no-browser",
    ),
    "info": _Command(info, "Print versions, devices and the data sets found.", "--data-dir"),
    "completion": _Command(
        _completion, "Print what makes a shell complete commands and options.", "shell", _COMPLETION_EXAMPLES
    ),
}

_DATA_COMMANDS = {
    "list": _Command(data_list, "List the data sets and whether they are there.", "--data-dir"),
    "download": _Command(data_download, "Download data sets into the data directory.", "--data-dir names+"),
    "make": _Command(
        data_make,
        "Make a synthetic data set: spoken_digits, digits spoken by espeak-ng as the spikes of a model of the ear.",
        "made --samples --seed --data-dir",
    ),
    "verify": _Command(data_verify, "Read data sets and compare them with the official content.", "--data-dir names*"),
    "where": _Command(data_where, "Print the data directory.", "--data-dir"),
}


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence each, and which takes -1ms for the value that it is."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.option_strings and arg_strings == ["--"]:  # of `--out=--`, which argparse makes an empty list
            raise argparse.ArgumentError(action, "expected one argument")
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        if unknown:
            word = unknown[1]
            near = difflib.get_close_matches(word.split("=")[0], self._option_string_actions, n=1)
            message = f"{word!r} is no option of this command" + (f"; did you mean {near[0]}?" if near else ".")
        message = printable(message)
        self.exit(BAD_INPUT, f"{self.prog}: {message.rstrip('.?')}{message[-1] if message[-1] in '.?' else '.'}\n")


class _CommandParser(_Parser):
    """A command's parser: it refuses unknown options itself, since it knows which ones come close."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    from bats_lab import __version__

    parser = _Parser(prog="bats-lab", description=_DESCRIPTION, epilog=_EXAMPLES, **_STYLE)
    parser.add_argument("--version", action="version", version=f"bats-lab {__version__}")
    _add_commands(parser, _COMMANDS)
    return parser


def _add_commands(parser: argparse.ArgumentParser, table: Mapping[str, _Command]) -> None:
    def show_help(_: argparse.Namespace) -> int:
        parser.print_help()
        return OK

    parser.set_defaults(debug=False, command=show_help)  # where no command is given
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=_CommandParser)
    for name, (call, text, options, epilog) in table.items():
        part = commands.add_parser(name, help=text, description=text, epilog=epilog, **_STYLE)
        part.set_defaults(command=call)
        for word in ["--debug", *options.split()]:
            _add_option(part, *word.split("="))
        if name in ("run", "sweep", "search"):
            part.usage = f"bats-lab {name} [OPTION …]"
            _add_parameters(part, command=name)
        if name == "data":
            _add_commands(part, _DATA_COMMANDS)


def _add_option(parser: argparse.ArgumentParser, name: str, own_default: str | None = None) -> None:
    metavar, default, help_text = _OPTIONS[name]
    text = help_text() if callable(help_text) else help_text
    if metavar == "":
        dest = name.removeprefix("--no-" if default else "--").replace("-", "_")
        parser.add_argument(name, dest=dest, action="store_false" if default else "store_true", help=text)
        return
    how: dict[str, Any] = {"nargs": name[-1]} if name[-1] in "?*+" else {}
    kind = {"N": int, "S": float, "H": float}.get(metavar, str)
    parser.add_argument(
        name.rstrip("?*+"), type=kind, default=own_default or default, metavar=metavar, help=text, **how
    )


def _add_parameters(parser: argparse.ArgumentParser, *, command: str) -> None:
    note = "Layers' values are joined by '-'. Times are in seconds, or as 4ms."
    several = {
        "sweep": "several values, as 0,0.004.",
        "search": "a range, as 1..9 or 1..9:log, or choices, as 0,0.004.",
    }
    more = f" Each takes {several[command]}" if command in several else ""
    group = parser.add_argument_group("parameters of a run", note + more)
    for p in parameters():
        kind = (p.item or p.type).__name__.upper()
        metavar = f"{kind}-…" if p.type is tuple else "yes|no" if p.type is bool else kind
        # A flag alone says yes.
        alone: dict[str, Any] = {"nargs": "?", "const": "yes"} if p.type is bool else {}
        none = p.text.partition("; None: ")[2] or "all"
        default = "the data set's preset" if p.from_preset else none if p.default is None else p.default
        unit = f"{p.unit}; " if p.unit not in ("", "1") else ""
        text = f"{p.text.partition('; None: ')[0]} ({unit}default: {default})".replace("%", "%%")
        option = "--" + p.name.replace("_", "-")
        group.add_argument(option, dest=p.name, default=argparse.SUPPRESS, metavar=metavar, help=text, **alone)
        if command == "sweep" and p.name == "seed":
            group.add_argument("--seeds", metavar="N", help="number of seeds, counted from 0; or seeds, as 3,5,8")


def _interrupt(*_: Any) -> None:
    """Interrupt once: what is done then, to leave nothing behind, is not interrupted in its turn."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; None: those of this process.

    Returns
    -------
    int
        0; 1 if a run or a file failed; 2 for bad input; 130 after Ctrl-C.
    """
    args = make_parser().parse_args(argv)
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _interrupt)
    debug = args.debug or os.environ.get("BATS_LAB_DEBUG", "0") not in ("", "0")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            status: int = args.command(args)
            return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if debug:
            raise
        complain(str(error) or type(error).__name__)
        return BAD_INPUT if isinstance(error, (ValueError, TypeError, DeviceError)) else FAILED
