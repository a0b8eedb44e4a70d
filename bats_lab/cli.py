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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bats_lab.config import Config, Parameter, parameters
from bats_lab.errors import DeviceError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["main", "make_parser"]

_DESCRIPTION = (
    "What does a digital clock do to a spiking network? Trains spiking networks on any time step and compares."
)

_EXAMPLES = """\
examples:
  bats-lab run --delta-t 0.004 --epochs 3
  bats-lab sweep --delta-t 0,0.001,0.004,0.008 --seeds 2 --epochs 3 --out results/first
  bats-lab sweep --dataset mnist --delta-t 0,0.001,0.004,0.008 --seeds 5 --rule drop,graded --jobs 2 --out results/mnist
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

_STUDY = """\
Runs what is not finished yet, executes the notebook with the study's figures on it, and prints which claims of the
thesis hold.

examples:
  bats-lab reproduce mnist --quick
  bats-lab reproduce all --data-dir data
"""

#: Exit statuses.
OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

#: Units of time and their power of ten.
_UNITS = {"us": "e-6", "µs": "e-6", "ms": "e-3", "s": ""}


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


def _complain(text: str) -> None:
    """Print an error in one line."""
    print(f"bats-lab: {' '.join(text.split())}", file=sys.stderr)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


# ------------------------------------------------------------------------------------------------------ the parser


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence each."""

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
    formatter = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="bats-lab", description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=formatter, allow_abbrev=False
    )
    from bats_lab import __version__
    from bats_lab.studies.registry import REGISTRY

    parser.add_argument("--version", action="version", version=f"bats-lab {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_CommandParser)

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str, epilog: str = "") -> _CommandParser:
        added: _CommandParser = commands.add_parser(
            name, help=text, description=text, epilog=epilog, formatter_class=formatter, allow_abbrev=False
        )
        if name in ("run", "sweep"):
            added.usage = f"bats-lab {name} [OPTION …]"
        added.add_argument("--debug", action="store_true", help="show where an error comes from (or BATS_LAB_DEBUG=1)")
        added.set_defaults(command=command)
        return added

    run = add("run", _run, "Train one network and save its results.", _RUN_EXAMPLES)
    _add_execution_options(run, out="results/runs")
    run.add_argument("--checkpoint", action="store_true", help="keep the state after each epoch, and go on from it")
    _add_parameters(run, several=False)

    sweep = add(
        "sweep", _sweep, "Train networks for every combination of parameters, then draw a report.", _SWEEP_EXAMPLES
    )
    _add_execution_options(sweep, out="results/sweep")
    jobs = "runs at a time (default: one a core; on a GPU one group of runs)"
    sweep.add_argument("--jobs", type=int, default=0, metavar="N", help=jobs)
    beside = "runs that one process trains side by side (default: 40 on a GPU, else 1)"
    sweep.add_argument("--side-by-side", type=int, default=0, metavar="N", help=beside)
    sweep.add_argument("--checkpoint", action="store_true", help="runs cut short go on from their last epoch")
    sweep.add_argument("--timeout", type=float, metavar="S", help="end a run as failed after so many seconds")
    sweep.add_argument("--no-report", dest="report", action="store_false", help="leave out the report")
    sweep.add_argument("--quiet", action="store_true", help="a line for each run in place of a progress bar")
    _add_parameters(sweep, several=True)

    reproduce = add(
        "reproduce", _reproduce, "Run a study, draw its figures and check the claims of the thesis.", _STUDY
    )
    reproduce.add_argument(
        "study",
        metavar="STUDY",
        help="; ".join(f"{name}: {row.question}" for name, row in REGISTRY.items()) + "; or all",
    )
    reproduce.add_argument("--quick", action="store_true", help="few epochs on mnist_small: a look in minutes")
    repeats = "seeds, counted from 0 (default: one with --quick; else as many as in the thesis, or two to five)"
    reproduce.add_argument("--seeds", type=int, metavar="N", help=repeats)
    folder = "folder for the folders of results (default: %(default)s)"
    reproduce.add_argument("--out", default="results", metavar="DIR", help=folder)
    _add_data_dir(reproduce)
    reproduce.add_argument(
        "--device", default="auto", help="where networks run: auto, cuda or cpu (default: %(default)s)"
    )
    reproduce.add_argument("--jobs", type=int, default=0, metavar="N", help=jobs)
    reproduce.add_argument("--quiet", action="store_true", help="a line for each run in place of a progress bar")

    report = add("report", _report, "Draw the report of a folder of results again.")
    report.add_argument("folder", help="folder of results, as given to --out")

    data = add("data", _data_list, "List, download and verify data sets.")
    data_commands = data.add_subparsers(required=True, metavar="COMMAND", parser_class=_CommandParser)
    for name, command, text, names in (
        ("list", _data_list, "List the data sets and whether they are there.", None),
        ("download", _data_download, "Download data sets into the data directory.", "+"),
        ("verify", _data_verify, "Read data sets and compare them with the official content.", "*"),
        ("where", _data_where, "Print the data directory.", None),
    ):
        part = data_commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        part.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
        _add_data_dir(part)
        if names:
            part.add_argument("names", nargs=names, metavar="NAME", help="mnist, fashion_mnist, emnist or mnist_small")
        part.set_defaults(command=command)

    lab = add("lab", _lab, "Open JupyterLab on the project's notebooks.")
    lab.add_argument("--folder", help="folder to copy the notebooks into, where they are not in a checkout")
    lab.add_argument("options", nargs="*", metavar="-- OPTION", help="options passed on to JupyterLab, after --")

    dash = add("dashboard", _dashboard, "Serve the explorers of a folder of results as a page, without code.")
    dash.add_argument("folder", nargs="?", help="folder of results (default: those that ship with the project)")
    dash.add_argument("--port", type=int, default=8866, help="port on this machine (default: %(default)s)")
    dash.add_argument("--no-browser", dest="browser", action="store_false", help="do not open a browser")

    info = add("info", _info, "Print versions, devices and the data sets found.")
    _add_data_dir(info)
    return parser


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    text = "folder of the full data sets (default: BATS_LAB_DATA, or a folder in the user's cache)"
    parser.add_argument("--data-dir", metavar="DIR", help=text)


def _add_execution_options(parser: argparse.ArgumentParser, *, out: str) -> None:
    parser.add_argument("--out", default=out, metavar="DIR", help="folder of results (default: %(default)s)")
    _add_data_dir(parser)
    parser.add_argument("--device", default="auto", help="where networks run: auto, cuda or cpu (default: %(default)s)")
    threads = "threads of a run; 0: as many as cores are free (default: %(default)s)"
    parser.add_argument("--threads", type=int, default=0, metavar="N", help=threads)


def _add_parameters(parser: argparse.ArgumentParser, *, several: bool) -> None:
    note = "Layers' values are joined by '-'. Times are in seconds, or as 4ms."
    more = " Each takes several values, as 0,0.004." if several else ""
    group = parser.add_argument_group("parameters of a run", note + more)
    for p in parameters():
        kind = (p.item or p.type).__name__.upper()
        metavar = f"{kind}-…" if p.type is tuple else kind
        default = "the data set's preset" if p.from_preset else "all" if p.default is None else p.default
        unit = f"{p.unit}; " if p.unit not in ("", "1") else ""
        text = f"{p.text.replace('; None: all', '')} ({unit}default: {default})".replace("%", "%%")
        option = "--" + p.name.replace("_", "-")
        group.add_argument(option, dest=p.name, default=argparse.SUPPRESS, metavar=metavar, help=text)
        if several and p.name == "seed":
            group.add_argument("--seeds", metavar="N", help="number of seeds, counted from 0; or seeds, as 3,5,8")


def _value(parameter: Parameter, text: str) -> Any:
    """Read one value; what is not of the parameter's type is left as text, for :class:`Config` to refuse."""
    if text.lower() in ("none", "all", "preset") and (parameter.optional or parameter.from_preset):
        return None
    if parameter.type is tuple:
        return [_number(parameter, part) for part in re.split(r"(?<=[^eE])-", text)]
    return text if parameter.type is str else _number(parameter, text)


def _number(parameter: Parameter, text: str) -> Any:
    number = text
    if parameter.unit == "s" and (found := re.fullmatch(r"(.*\d\.?)\s*(us|µs|ms|s)", text)):
        # Not by a product, which would make 350ms another number than 0.35.
        number = found[1] + _UNITS[found[2]]
    try:
        return int(number) if re.fullmatch(r"[+-]?\d+", number) else float(number)
    except ValueError:
        return text


def _given_values(args: argparse.Namespace, *, several: bool) -> dict[str, Any]:
    """Collect the parameters given as options, each a value or, with `several`, a list of values."""
    values = {}
    for p in parameters():
        if p.name in args:
            text = getattr(args, p.name)
            values[p.name] = [_value(p, part.strip()) for part in text.split(",")] if several else _value(p, text)
    return values


# ---------------------------------------------------------------------------------------------------- the commands


def _run(args: argparse.Namespace) -> int:
    config = Config.from_dict(_given_values(args, several=False))
    from tqdm import tqdm

    from bats_lab.engine import get_backend
    from bats_lab.runs.results import is_finished, run_path
    from bats_lab.sweeps.sweep import describe_epoch, save_into, train_into

    if is_finished(args.out, config):
        print(f"This run is finished already: {run_path(args.out, config)}")
        return OK
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    bar = tqdm(bar_format="{desc} |{bar:30}| {n_fmt}/{total_fmt}", leave=False, disable=not sys.stderr.isatty())
    bar.set_description_str("compiling")

    def on_batch(done: int, total: int) -> None:
        bar.total, bar.n = total, done
        bar.set_description_str(f"training on {get_backend(args.device).NAME}")

    try:
        run = train_into(
            config,
            args.out,
            data_dir=args.data_dir,
            device=args.device,
            threads=args.threads,
            checkpoint=args.checkpoint,
            on_epoch=lambda record: bar.write(describe_epoch(record, config)),
            on_batch=on_batch,
        )
    except KeyboardInterrupt:
        bar.close()
        _complain("Stopped." + (" The same command goes on from the last epoch." if args.checkpoint else ""))
        return INTERRUPTED
    finally:
        bar.close()
    print(save_into(run, config, args.out))
    return OK


def _sweep(args: argparse.Namespace) -> int:
    from bats_lab.engine import get_backend
    from bats_lab.runs.results import is_finished
    from bats_lab.sweeps.sweep import expand_grid, make_report, run_sweep

    values = _given_values(args, several=True)
    configs = expand_grid(values, seeds=_seeds(args.seeds))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        report = run_sweep(
            configs,
            args.out,
            jobs=args.jobs,
            data_dir=args.data_dir,
            device=args.device,
            threads=args.threads,
            checkpoint=args.checkpoint,
            timeout=args.timeout,
            side_by_side=args.side_by_side,
            progress="lines" if args.quiet else True,
        )
        if report.failed:
            print(f"\n{len(report.failed)} of {len(configs)} runs failed:")
            for outcome in report.failed:
                print(f"  {outcome.label}: {outcome.reason}")
                if outcome.notebook is not None:
                    print(f"    {_shown(outcome.notebook)}")
        if len(report.failed) < len(configs):
            print(f"\n{_summary(report.out)}\n")
            if args.report:
                print("drawing the report …", file=sys.stderr)
                print(f"report:  {_shown(make_report(report.out))}")
            backend = get_backend(args.device)
            print(f"device:  {backend.NAME}, {backend.device_name()}")
            print(f"results: {_shown(report.out)}  ({report.seconds:.0f} s)")
    except KeyboardInterrupt:
        done = sum(is_finished(args.out, config) for config in configs)
        _complain(f"Stopped; {done} of {len(configs)} runs are finished. The same command goes on from there.")
        return INTERRUPTED
    return FAILED if report.failed else OK


def _reproduce(args: argparse.Namespace) -> int:
    from bats_lab.studies.registry import REGISTRY, load_study
    from bats_lab.studies.study import reproduce

    studies = [load_study(name) for name in (REGISTRY if args.study == "all" else [args.study])]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
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
            print(f"figures: {_shown(outcome.page)}")
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
    seeds = [_value(seed, part.strip()) for part in text.split(",")]
    if not all(isinstance(value, int) for value in seeds):
        raise ValueError(f"seeds is {text!r}; it must be a number of seeds, or seeds separated by commas.")
    return seeds if "," in text else seeds[0]


def _summary(folder: Path) -> str:
    """Lay out the results of a folder as a small table."""
    from bats_lab.runs.metrics import summary_table
    from bats_lab.runs.results import open_results

    table: pd.DataFrame = summary_table(open_results(folder))
    columns = {
        "delta_t": ("Δt (ms)", lambda v: f"{v * 1e3:g}"),
        "accuracy": ("accuracy", lambda v: f"{v:.2%}"),
        "hidden_spikes": ("hidden spikes", lambda v: f"{v:.0f}"),
        "output_spikes": ("output spikes", lambda v: f"{v:.1f}"),
        "confidence": ("confidence", lambda v: f"{v:.2f}"),
        "decision_time": ("decision (ms)", lambda v: f"{v * 1e3:.0f}"),
    }
    shown = table.drop(columns=[c for c in ("accuracy_std", "collisions") if c in table])
    for name, (_, form) in columns.items():
        shown[name] = shown[name].map(form)
    return str(shown.rename(columns={name: title for name, (title, _) in columns.items()}).to_string(index=False))


def _shown(path: Path) -> str:
    """Write a path as a person would: relative to where they are, if it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _report(args: argparse.Namespace) -> int:
    from bats_lab.sweeps.sweep import make_report

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(_shown(make_report(args.folder)))
    return OK


def _data_list(args: argparse.Namespace) -> int:
    from bats_lab.data.datasets import data_directory, list_datasets

    for status in list_datasets(args.data_dir):
        print(f"{status.name:14} {status.state:9} {status.description}")
    print(f"data directory: {data_directory(args.data_dir)}")
    return OK


def _data_download(args: argparse.Namespace) -> int:
    from bats_lab.data.datasets import download_dataset

    for name in args.names:
        print(f"{name}: {download_dataset(name, args.data_dir)}")
    return OK


def _data_verify(args: argparse.Namespace) -> int:
    from bats_lab.data.datasets import DATASETS, verify_dataset

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


def _data_where(args: argparse.Namespace) -> int:
    from bats_lab.data.datasets import data_directory

    print(data_directory(args.data_dir))
    return OK


def _lab(args: argparse.Namespace) -> int:
    from bats_lab.sweeps.sweep import prepare_notebooks

    root = prepare_notebooks(args.folder)
    print(f"JupyterLab on {root / 'notebooks'}", file=sys.stderr)
    options = [f"--ServerApp.root_dir={root}", "--LabApp.default_url=/lab/tree/notebooks", "--LabApp.news_url=None"]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", *options, *args.options])


def _dashboard(args: argparse.Namespace) -> int:
    import subprocess
    import tempfile

    from bats_lab.explore.serve import prepare_dashboard
    from bats_lab.studies.chip.deployment import holds_deployments
    from bats_lab.sweeps.sweep import notebook_path

    shipped = notebook_path("10_train").parent.parent / "results"
    folder, deployment = args.folder or shipped / "mnist_study", None
    if not args.folder and holds_deployments(shipped / "thesis_chip"):
        deployment = shipped / "thesis_chip"
    with tempfile.TemporaryDirectory(prefix="bats_lab-") as place:
        command, environment = prepare_dashboard(folder, place, deployment=deployment)
        options = [f"--port={args.port}", *([] if args.browser else ["--no-browser"])]
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        server = subprocess.Popen([*command, *options], env=environment)
        try:
            print(f"dashboard: http://127.0.0.1:{args.port}  (Ctrl-C ends it)", flush=True)
            return server.wait()
        except KeyboardInterrupt:
            return INTERRUPTED
        finally:
            server.terminate()
            server.wait()


def _info(args: argparse.Namespace) -> int:
    import platform
    from importlib import metadata

    from bats_lab import __version__
    from bats_lab.data.datasets import data_directory, list_datasets
    from bats_lab.engine import DEVICES, get_backend

    print(f"bats_lab     {__version__} in {Path(__file__).resolve().parent}")
    print(f"Python       {platform.python_version()} on {platform.platform()}, {os.cpu_count()} cores")
    found = {package.name.lower(): package.version for package in metadata.distributions()}
    for name in (
        "numpy",
        "numba",
        "xarray",
        "netcdf4",
        "holoviews",
        "bokeh",
        "panel",
        "papermill",
        "jupyterlab",
        "cupy",
    ):
        versions = [version for package, version in found.items() if re.fullmatch(rf"{name}(-cuda\d+x)?", package)]
        print(f"{name:12} {versions[0] if versions else 'not installed'}")
    for device in DEVICES:
        try:
            backend = get_backend(device)
            print(
                f"{'device ' + device:12} {backend.device_name()}" + (f" ({backend.NAME})" if device == "auto" else "")
            )
        except DeviceError as error:
            print(f"{'device ' + device:12} {error}")
    print(f"data in      {data_directory(args.data_dir)}")
    for status in list_datasets(args.data_dir):
        print(f"  {status.name:13} {status.state}")
    return OK
