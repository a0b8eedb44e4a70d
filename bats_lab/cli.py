"""The command line: parse, call, print.

Options of a run are made from :func:`bats_lab.config.parameters`. What is slow to import is imported by the command
that needs it.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from bats_lab.completion import SHELLS, completion
from bats_lab.config import Config, parameters
from bats_lab.errors import DeviceError, ResultsError
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

#: Without this option each of Jupyter's kernels warns that other users of the machine may listen.
_ENCRYPTED = "--KernelManager.transport_encryption=auto"

#: Exit statuses.
OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

#: What ends a command: Ctrl-C, kill, and a terminal that is closed.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: What `info` gives the versions of.
_LIBRARIES = ("numpy", "numba", "xarray", "netcdf4", "holoviews", "bokeh", "panel", "papermill", "jupyterlab", "cupy")


def _studies() -> str:
    """List what can be reproduced, and what each study asks."""
    return "; ".join(f"{name}: {row.question}" for name, row in REGISTRY.items()) + "; or all"


def _complain(text: str) -> None:
    """Print an error in one line."""
    print(f"bats-lab: {' '.join(text.split())}", file=sys.stderr)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


# Values of parameters


def _given_values(args: argparse.Namespace, *, several: bool) -> dict[str, Any]:
    """Collect the parameters given as options, each a value or, with `several`, a list of values."""
    values = {}
    for p in parameters():
        if p.name in args:
            text = getattr(args, p.name)
            values[p.name] = [p.read(part.strip()) for part in text.split(",")] if several else p.read(text)
    return values


# The commands


def _run(args: argparse.Namespace) -> int:
    config = Config.from_dict(_given_values(args, several=False))
    from tqdm import tqdm

    from bats_lab.engine import get_backend
    from bats_lab.runs.files import is_finished, run_path
    from bats_lab.sweeps.training import describe_epoch, save_into, train_into

    if is_finished(args.out, config):
        print(f"This run is finished already: {run_path(args.out, config)}")
        return OK
    form = "{desc} |{bar:30}| {n_fmt}/{total_fmt}"
    with tqdm(desc="compiling", bar_format=form, leave=False, disable=not sys.stderr.isatty()) as bar:

        def on_batch(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.set_description_str(f"training on {get_backend(args.device).name}")

        try:
            run = train_into(
                config,
                args.out,
                **_chosen(args, "data_dir", "device", "threads", "checkpoint"),
                on_epoch=lambda record: bar.write(describe_epoch(record, config)),
                on_batch=on_batch,
                on_data=lambda data: None if data.official else bar.write(data.summary, file=sys.stderr),
            )
        except KeyboardInterrupt:
            bar.close()
            _complain("Stopped." + (" The same command goes on from the last epoch." if args.checkpoint else ""))
            return INTERRUPTED
    print(save_into(run, config, args.out))
    return OK


def _chosen(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: getattr(args, name) for name in names}


def _sweep(args: argparse.Namespace) -> int:
    from bats_lab.engine import get_backend
    from bats_lab.runs.files import is_finished
    from bats_lab.sweeps.grid import expand_grid
    from bats_lab.sweeps.notebooks import make_report
    from bats_lab.sweeps.plan import estimate, plan_sweep
    from bats_lab.sweeps.progress import shown, summary
    from bats_lab.sweeps.sweep import run_sweep

    configs = expand_grid(_given_values(args, several=True), seeds=_seeds(args.seeds))
    planned = _chosen(args, "jobs", "data_dir", "device", "threads", "side_by_side")
    options = planned | _chosen(args, "checkpoint", "timeout")
    if args.dry_run:
        print(estimate(plan_sweep(configs, args.out, **planned), data_dir=args.data_dir))
        return OK
    try:
        report = run_sweep(configs, args.out, progress="lines" if args.quiet else True, **options)
        if report.failed:
            print(report.failures())
        if len(report.failed) < len(configs):
            print(f"\n{summary(report.out)}\n")
            if args.report:
                _tell("drawing the report …")
                print(f"report:  {shown(make_report(report.out))}")
            backend = get_backend(args.device)
            print(f"device:  {backend.name}, {backend.device_name()}")
            print(f"results: {shown(report.out)}  ({report.seconds:.0f} s)")
    except KeyboardInterrupt:
        done = sum(is_finished(args.out, config) for config in configs)
        _complain(f"Stopped; {done} of {len(configs)} runs are finished. The same command goes on from there.")
        return INTERRUPTED
    return FAILED if report.failed else OK


def _status(args: argparse.Namespace) -> int:
    from bats_lab.sweeps.journal import read_status, watch

    for status in watch(args.folder) if args.watch else [read_status(args.folder)]:
        print(status, flush=True)
        if status.at_work and args.watch and sys.stdout.isatty():  # the next one takes its place
            print(f"\x1b[{str(status).count(chr(10)) + 1}A\x1b[J", end="")
    return FAILED if status.failed else OK


def _reproduce(args: argparse.Namespace) -> int:
    from bats_lab.studies.registry import load_study
    from bats_lab.studies.study import reproduce
    from bats_lab.sweeps.progress import shown

    studies = [load_study(name) for name in (REGISTRY if args.study == "all" else [args.study])]
    names = ("seeds", "quick", "jobs", "data_dir", "device")
    options = {name: getattr(args, name) for name in names} | {"progress": "lines" if args.quiet else True}
    status = OK
    verdicts: list[Any] = []
    for study in studies:
        try:
            outcome = reproduce(study, args.out, report=_tell, **options)
        except KeyboardInterrupt as stopped:
            if stopped.args:
                _complain(str(stopped))
            return INTERRUPTED
        for run in outcome.failed:
            print(f"{run.label} failed: {run.reason}")
            status = FAILED
        if outcome.page is not None:
            print(f"figures: {shown(outcome.page)}")
        verdicts += outcome.verdicts
    for verdict in verdicts:
        print(f"figure {verdict.figure:7} {verdict.word:14} {verdict.text}\n{'':30} {verdict.numbers}")
    return status


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _seeds(text: str | None) -> int | list[int] | None:
    if text is None:
        return None
    seed = next(p for p in parameters() if p.name == "seed")
    seeds = [seed.read(part.strip()) for part in text.split(",")]
    if not all(isinstance(value, int) for value in seeds):
        raise ValueError(f"seeds is {text!r}; it must be a number of seeds, or seeds separated by commas.")
    return seeds if "," in text else seeds[0]


def _report(args: argparse.Namespace) -> int:
    from bats_lab.sweeps.notebooks import make_report
    from bats_lab.sweeps.progress import shown

    print(shown(make_report(args.folder)))
    return OK


def _data_list(args: argparse.Namespace) -> int:
    from bats_lab.data.status import list_datasets

    for status in list_datasets(args.data_dir):
        print(f"{status.name:14} {status.state:9} {status.description}")
    print("data directory: ", end="")
    return _data_where(args)


def _data_where(args: argparse.Namespace) -> int:
    from bats_lab.data.registry import data_directory

    print(data_directory(args.data_dir))
    return OK


def _data_download(args: argparse.Namespace) -> int:
    from bats_lab.data.download import download_dataset

    for name in args.names:
        print(f"{name}: {download_dataset(name, args.data_dir)}")
    return OK


def _data_verify(args: argparse.Namespace) -> int:
    from bats_lab.data.registry import DATASETS
    from bats_lab.data.status import verify_dataset

    fine = True
    for name in args.names or DATASETS:
        status = verify_dataset(name, args.data_dir)
        print(f"{name}: {status.state}")
        for file in status.files:
            print(f"  {file.file}: {file.state}" + (f" ({file.detail})" if file.detail else ""))
        # What was not asked for by name need not be there, but what is there of it must be whole.
        absent = all(file.state == "missing" for file in status.files)
        fine = fine and (status.ok or (absent and not args.names))
    return OK if fine else FAILED


def _lab(args: argparse.Namespace) -> int:
    from bats_lab.sweeps.notebooks import prepare_notebooks

    root = prepare_notebooks(args.folder)
    print(f"JupyterLab on {root / 'notebooks'}", file=sys.stderr)
    options = [f"--ServerApp.root_dir={root}", "--LabApp.default_url=/lab/tree/notebooks", "--LabApp.news_url=None"]
    # Defaults of JupyterLab's settings: it asks at each first start whether to look for news on the internet.
    settings = [str(Path(__file__).with_name("explore")), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    environment = os.environ | {"JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, settings))}
    command = [sys.executable, "-m", "jupyterlab", *options, _ENCRYPTED, *args.options]
    sys.stdout.flush()
    os.execve(sys.executable, command, environment)


def _dashboard(args: argparse.Namespace) -> int:
    import subprocess
    import tempfile

    from bats_lab.sweeps.notebooks import notebook_path

    shipped = notebook_path("10_train").parent.parent / "results"
    folder, deployment = Path(args.folder or shipped / "mnist_study"), None
    if not folder.is_dir():  # what follows takes long to import
        raise FileNotFoundError(f"There is no folder of results {folder}.")
    if not any(folder.glob("*.nc")):
        raise ResultsError(f"{folder} holds no finished run.")
    from bats_lab.explore.serve import prepare_dashboard
    from bats_lab.studies.chip.deployment import holds_deployments

    if not args.folder and holds_deployments(shipped / "thesis_chip"):
        deployment = shipped / "thesis_chip"
    with tempfile.TemporaryDirectory(prefix="bats_lab-") as served:
        command, environment = prepare_dashboard(folder, served, deployment=deployment)
        options = [_ENCRYPTED, f"--port={args.port}", *([] if args.browser else ["--no-browser"])]
        server = subprocess.Popen([*command, *options], env=environment)
        try:
            print(f"dashboard: http://127.0.0.1:{args.port}  (Ctrl-C ends it)", flush=True)
            return server.wait()
        except KeyboardInterrupt:
            return INTERRUPTED
        finally:
            server.terminate()
            server.wait()


def _completion(args: argparse.Namespace) -> int:
    from bats_lab.data.registry import DATASETS
    from bats_lab.engine import DEVICES
    from bats_lab.spikes import estimators, rules

    values = {"rule": [*rules.RULES], "estimator": [*estimators.ESTIMATORS], "device": [*DEVICES]}
    values |= {"names": [*DATASETS], "study": [*REGISTRY, "all"], "shell": [*SHELLS]}
    print(completion(make_parser(), args.shell, values))
    return OK


def _info(args: argparse.Namespace) -> int:
    import platform
    from importlib import metadata

    from bats_lab import __version__
    from bats_lab.data.registry import data_directory
    from bats_lab.data.status import list_datasets
    from bats_lab.engine import DEVICES, get_backend

    print(f"bats_lab     {__version__} in {Path(__file__).resolve().parent}")
    print(f"Python       {platform.python_version()} on {platform.platform()}, {os.cpu_count()} cores")
    versions = {package.name.lower(): package.version for package in metadata.distributions()}
    for name in _LIBRARIES:
        installed = [v for package, v in versions.items() if re.fullmatch(rf"{name}(-cuda\d+x)?", package)]
        print(f"{name:12} {installed[0] if installed else 'not installed'}")
    for device in DEVICES:
        try:
            backend = get_backend(device)
            text = backend.device_name() + (f" ({backend.name})" if device == "auto" else "")
        except DeviceError as error:
            text = str(error)
        print(f"{'device ' + device:12} {text}")
    print(f"data in      {data_directory(args.data_dir)}")
    for status in list_datasets(args.data_dir):
        print(f"  {status.name:13} {status.state}")
    return OK


# The table of commands, and the parser

# An option or argument: its metavar ("" for a flag), its default, and its help. What takes N takes a whole number.
_OPTIONS: dict[str, tuple[str, Any, str | Callable[[], str]]] = {
    "--out": ("DIR", "results", "folder of results (default: %(default)s)"),
    "--data-dir": ("DIR", None, "folder of full data sets (default: BATS_LAB_DATA, or a folder in the user's cache)"),
    "--device": ("DEVICE", "auto", "where networks run: auto, cuda or cpu (default: %(default)s)"),
    "--threads": ("N", 0, "threads of a run; 0: as many as cores are free (default: %(default)s)"),
    "--checkpoint": ("", False, "keep the state after each epoch; a run cut short goes on from it"),
    "--jobs": ("N", 0, "runs at a time (default: one a core; on a GPU one group of runs)"),
    "--side-by-side": ("N", 0, "runs that one process trains side by side (default: 40 on a GPU, else 1)"),
    "--timeout": ("S", None, "end a run as failed after so many seconds"),
    "--no-report": ("", True, "leave out the report"),
    "--dry-run": ("", False, "tell what would run, about how long and on how much disk, and run nothing"),
    "--watch": ("", False, "tell again every two seconds, until the sweep is over"),
    "--quiet": ("", False, "a line for each run in place of a progress bar"),
    "study": ("STUDY", None, _studies),
    "--quick": ("", False, "few epochs on mnist_small: a look in minutes"),
    "--seeds": ("N", None, _SEEDS),
    "folder": ("folder", None, "folder of results, as given to --out"),
    "folder?": ("folder", None, "folder of results (default: those that ship with the project)"),
    "names+": ("NAME", None, "mnist, fashion_mnist, emnist or mnist_small"),
    "names*": ("NAME", None, "mnist, fashion_mnist, emnist or mnist_small"),
    "--folder": ("FOLDER", None, "folder to copy the notebooks into, where they are not in a checkout"),
    "options*": ("-- OPTION", None, "options passed on to JupyterLab, after --"),
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
        _run, "Train one network and save its results.", f"--out=results/runs {_RUN_OPTIONS}", _RUN_EXAMPLES
    ),
    "sweep": _Command(
        _sweep,
        "Train networks for every combination of parameters, then draw a report.",
        f"--out=results/sweep {_RUN_OPTIONS} --jobs --side-by-side --timeout --no-report --quiet --dry-run",
        _SWEEP_EXAMPLES,
    ),
    "status": _Command(
        _status, "Tell where the sweep of a folder stands, also one of another machine.", "folder --watch"
    ),
    "reproduce": _Command(
        _reproduce,
        "Run a study, draw its figures and check the claims of the thesis.",
        "study --quick --seeds --out --data-dir --device --jobs --quiet",
        _STUDY,
    ),
    "report": _Command(_report, "Draw the report of a folder of results again.", "folder"),
    "data": _Command(_data_list, "List, download and verify data sets."),
    "lab": _Command(_lab, "Open JupyterLab on the project's notebooks.", "--folder options*"),
    "dashboard": _Command(
        _dashboard, "Serve the explorers of a folder of results as a page, without code.", "folder? --port --no-browser"
    ),
    "info": _Command(_info, "Print versions, devices and the data sets found.", "--data-dir"),
    "completion": _Command(
        _completion, "Print what makes a shell complete commands and options.", "shell", _COMPLETION_EXAMPLES
    ),
}

_DATA_COMMANDS = {
    "list": _Command(_data_list, "List the data sets and whether they are there.", "--data-dir"),
    "download": _Command(_data_download, "Download data sets into the data directory.", "--data-dir names+"),
    "verify": _Command(_data_verify, "Read data sets and compare them with the official content.", "--data-dir names*"),
    "where": _Command(_data_where, "Print the data directory.", "--data-dir"),
}


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence each, and which takes -1ms for the value that it is."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        if unknown:
            word = unknown[1]
            near = difflib.get_close_matches(word.split("=")[0], self._option_string_actions, n=1)
            message = f"{word!r} is no option of this command" + (f"; did you mean {near[0]}?" if near else ".")
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
        if name in ("run", "sweep"):
            part.usage = f"bats-lab {name} [OPTION …]"
            _add_parameters(part, several=name == "sweep")
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
    kind = {"N": int, "S": float}.get(metavar, str)
    parser.add_argument(
        name.rstrip("?*+"), type=kind, default=own_default or default, metavar=metavar, help=text, **how
    )


def _add_parameters(parser: argparse.ArgumentParser, *, several: bool) -> None:
    note = "Layers' values are joined by '-'. Times are in seconds, or as 4ms."
    more = " Each takes several values, as 0,0.004." if several else ""
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
        if several and p.name == "seed":
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
            warnings.showwarning = _show_warning
            status: int = args.command(args)
            return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if debug:
            raise
        _complain(str(error) or type(error).__name__)
        return BAD_INPUT if isinstance(error, (ValueError, TypeError, DeviceError)) else FAILED
