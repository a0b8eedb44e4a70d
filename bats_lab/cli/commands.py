"""What each command does: call what the package has, and print; what is slow to import is imported when needed."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Any

from bats_lab.config import Config, parameters
from bats_lab.errors import DeviceError, ResultsError
from bats_lab.studies.registry import REGISTRY

#: Without this option each of Jupyter's kernels warns that other users of the machine may listen.
_ENCRYPTED = "--KernelManager.transport_encryption=auto"

#: Exit statuses.
OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

#: What `info` gives the versions of.
_LIBRARIES = ("numpy", "numba", "xarray", "netcdf4", "holoviews", "bokeh", "panel", "papermill", "jupyterlab", "cupy")


def printable(text: str) -> str:
    """Write in ASCII what no encoding has: bytes of an argument that are no text."""
    return text.encode(errors="backslashreplace").decode()


def complain(text: str) -> None:
    """Print an error in one line."""
    print(f"bats-lab: {' '.join(printable(text).split())}", file=sys.stderr)


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning in one line."""
    print(f"warning: {printable(str(message))}", file=sys.stderr)


def given_values(args: argparse.Namespace, *, several: bool) -> dict[str, Any]:
    """Collect the parameters given as options, each a value or, with `several`, a list of values."""
    values = {}
    for p in parameters():
        if p.name in args:
            text = getattr(args, p.name)
            values[p.name] = [p.read(part.strip()) for part in text.split(",")] if several else p.read(text)
    return values


# The commands


def run(args: argparse.Namespace) -> int:
    """Train and test one network."""
    config = Config.from_dict(given_values(args, several=False))
    from tqdm import tqdm

    from bats_lab.engine import get_backend
    from bats_lab.runs.files import is_finished, run_path
    from bats_lab.runs.store import mirrored
    from bats_lab.sweeps.training import describe_epoch, save_into, train_into

    if is_finished(folder := mirrored(args.out, run_path("", config).name), config):
        print(f"This run is finished already: {run_path(folder, config)}")
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
            complain("Stopped." + (" The same command goes on from the last epoch." if args.checkpoint else ""))
            return INTERRUPTED
    print(save_into(run, config, args.out))
    return OK


def rerun(args: argparse.Namespace) -> int:
    """Repeat the run of a file, and say whether its numbers agree."""
    from bats_lab.runs.rerun import rerun
    from bats_lab.sweeps.training import describe_epoch

    options = _chosen(args, "data_dir", "device", "threads")
    same, lines = rerun(args.results, on_epoch=lambda record, config: _tell(describe_epoch(record, config)), **options)
    print("\n".join(lines))
    return OK if same else FAILED


def pack(args: argparse.Namespace) -> int:
    """Put the runs of a folder into one file."""
    from bats_lab.runs.files import pack

    path, n = pack(args.folder)
    print(f"{path}: {n} runs, {path.stat().st_size / 1e6:.1f} MB")
    return OK


def unpack(args: argparse.Namespace) -> int:
    """Write the packed runs of a folder into files of their own."""
    from bats_lab.runs.files import unpack

    print(f"{args.folder}: {unpack(args.folder)} runs have files of their own again")
    return OK


def _chosen(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: getattr(args, name) for name in names}


def sweep(args: argparse.Namespace) -> int:
    """Execute a grid of runs."""
    from bats_lab.engine import get_backend
    from bats_lab.runs.files import is_finished
    from bats_lab.runs.metrics import summary_text
    from bats_lab.runs.results import open_results
    from bats_lab.runs.store import store_at
    from bats_lab.sweeps.grid import expand_grid
    from bats_lab.sweeps.notebooks import make_report
    from bats_lab.sweeps.plan import estimate, plan_sweep
    from bats_lab.sweeps.progress import shown
    from bats_lab.sweeps.sweep import run_sweep

    configs = expand_grid(given_values(args, several=True), seeds=_seeds(args.seeds))
    planned = _chosen(args, "jobs", "data_dir", "device", "threads", "side_by_side")
    options = planned | _chosen(args, "checkpoint", "timeout", "cluster")
    if args.dry_run:
        print(estimate(plan_sweep(configs, args.out, **planned), data_dir=args.data_dir))
        return OK
    try:
        report = run_sweep(configs, args.out, progress="lines" if args.quiet else True, **options)
        if report.failed:
            print(report.failures())
        if len(report.failed) < len(configs):
            print(f"\n{summary_text(open_results(report.out))}\n")
            if args.report:
                _tell("drawing the report …")
                print(f"report:  {shown(make_report(args.out))}")
            backend = get_backend(args.device)
            print(f"device:  {backend.name}, {backend.device_name()}")
            print(f"results: {report}  ({report.seconds:.0f} s)")
    except KeyboardInterrupt:
        store = store_at(args.out)
        done = sum(is_finished(store.folder if store else args.out, config) for config in configs)
        complain(f"Stopped; {done} of {len(configs)} runs are finished. The same command goes on from there.")
        return INTERRUPTED
    return FAILED if report.failed else OK


def search(args: argparse.Namespace) -> int:
    """Search through a space of runs."""
    from bats_lab.runs.store import store_at
    from bats_lab.sweeps.search import Search, estimate_search, front_text, known_trials, run_search

    search = Search(
        given_values(args, several=True),
        objectives=[name.strip() for name in args.objectives.split(",")],
        seed=args.search_seed,
        **_chosen(args, "trials", "sampler", "prune", "hours"),
    )
    planned = _chosen(args, "jobs", "data_dir", "device", "threads")
    if args.dry_run:
        print(estimate_search(search, args.out, **planned))
        return OK
    options = planned | _chosen(args, "checkpoint", "timeout", "cluster")
    try:
        report = run_search(search, args.out, progress="lines" if args.quiet else True, **options)
    except KeyboardInterrupt:
        store = store_at(args.out)
        done = len(known_trials(search, store.folder if store else Path(args.out)))
        complain(f"Stopped; {done} of {args.trials} runs are over. The same command goes on from there.")
        return INTERRUPTED
    if report.failed:
        print(report.failures())
    print(f"\n{front_text(search, known_trials(search, report.out))}\n")
    ended = f", {len(report.pruned)} of them ended early" if report.pruned else ""
    print(f"{len(report.outcomes)} runs{ended}; above: those that no other beats on the samples held out")
    print(f"results: {report}  ({report.seconds:.0f} s)")
    return FAILED if report.failed else OK


def status(args: argparse.Namespace) -> int:
    """Tell where the sweep of a folder stands."""
    from bats_lab.sweeps.journal import read_status, watch

    for status in watch(args.folder) if args.watch else [read_status(args.folder)]:
        print(status, flush=True)
        if status.at_work and args.watch and sys.stdout.isatty():  # the next one takes its place
            print(f"\x1b[{str(status).count(chr(10)) + 1}A\x1b[J", end="")
    return FAILED if status.failed else OK


def reproduce(args: argparse.Namespace) -> int:
    """Carry out a study."""
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
                complain(str(stopped))
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


def report(args: argparse.Namespace) -> int:
    """Draw the report of a folder of results."""
    from bats_lab.sweeps.notebooks import make_report
    from bats_lab.sweeps.progress import shown

    print(shown(make_report(args.folder)))
    return OK


def import_(args: argparse.Namespace) -> int:
    """Read a network in NIR."""
    from bats_lab.network import interchange

    graph = interchange.load_nir(args.file, delta_t=args.step, reset=args.reset)
    if args.network:
        interchange.to_network(graph, duration=args.duration).save(args.network)
    print(interchange.describe(graph))
    return OK


def export(args: argparse.Namespace) -> int:
    """Write a network in NIR."""
    from bats_lab.network import interchange
    from bats_lab.runs.experiment import open_network

    interchange.save_nir(open_network(args.file), args.out, delta_t=1e-3 if args.step is None else args.step)
    print(args.out)
    return OK


def data_list(args: argparse.Namespace) -> int:
    """List the data sets."""
    from bats_lab.data.status import list_datasets

    for status in list_datasets(args.data_dir):
        print(f"{status.name:14} {status.state:9} {status.description}")
    print("data directory: ", end="")
    return data_where(args)


def data_where(args: argparse.Namespace) -> int:
    """Tell where data is looked for."""
    from bats_lab.data.registry import data_directory

    print(data_directory(args.data_dir))
    return OK


def data_download(args: argparse.Namespace) -> int:
    """Download data sets."""
    from bats_lab.data.download import download_dataset

    for name in args.names:
        print(f"{name}: {download_dataset(name, args.data_dir)}")
    return OK


def data_make(args: argparse.Namespace) -> int:
    """Make a data set that is neither shipped nor published."""
    from bats_lab.data.spoken import make_spoken_digits

    if args.made != "spoken_digits":
        raise ValueError(f"{args.made!r} cannot be made; spoken_digits can.")
    path = make_spoken_digits(samples=args.samples, seed=args.seed, data_dir=args.data_dir, report=print)
    print(f"spoken_digits (synthetic speech): {path}")
    print("to learn it: bats-lab run --dataset spoken_digits")
    return OK


def data_verify(args: argparse.Namespace) -> int:
    """Check the files of data sets."""
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


def lab(args: argparse.Namespace) -> int:
    """Open JupyterLab on the notebooks."""
    from bats_lab.sweeps.notebooks import prepare_notebooks

    root = prepare_notebooks(args.folder)
    print(f"JupyterLab on {root / 'notebooks'}", file=sys.stderr)
    options = [f"--ServerApp.root_dir={root}", "--LabApp.default_url=/lab/tree/notebooks", "--LabApp.news_url=None"]
    # Defaults of JupyterLab's settings: it asks at each first start whether to look for news on the internet.
    settings = [str(Path(__file__).parents[1] / "explore"), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    environment = os.environ | {"JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, settings))}
    command = [sys.executable, "-m", "jupyterlab", *options, _ENCRYPTED, *args.options]
    sys.stdout.flush()
    os.execve(sys.executable, command, environment)


def dashboard(args: argparse.Namespace) -> int:
    """Open the explorers in a browser."""
    from bats_lab.runs.store import mirrored
    from bats_lab.sweeps.notebooks import notebook_path

    shipped = notebook_path("10_train").parent.parent / "results"
    folder = mirrored(args.folder or shipped / "mnist_study")
    if not folder.is_dir():  # what follows takes long to import
        raise FileNotFoundError(f"There is no folder of results {args.folder}.")
    if not any(folder.glob("*.nc")):
        raise ResultsError(f"{folder} holds no finished run.")
    from bats_lab.explore.serve import serve_dashboard
    from bats_lab.studies.chip.deployment import holds_deployments

    chips = shipped / "thesis_chip"
    return serve_dashboard(
        folder,
        deployment=chips if not args.folder and holds_deployments(chips) else None,
        **_chosen(args, "port", "browser"),
        options=[_ENCRYPTED],
        on_start=lambda address: print(f"dashboard: {address}  (Ctrl-C ends it)", flush=True),
    )


def info(args: argparse.Namespace) -> int:
    """Tell versions, devices and data."""
    import platform
    from importlib import metadata

    from bats_lab import __version__
    from bats_lab.data.registry import data_directory
    from bats_lab.data.status import list_datasets
    from bats_lab.engine import DEVICES, get_backend

    print(f"bats_lab     {__version__} in {Path(__file__).resolve().parents[1]}")
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
