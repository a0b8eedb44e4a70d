"""What tests share: how they run side by side, profiles of hypothesis, the backends, results to read, a browser."""

from __future__ import annotations

import collections
import fcntl
import itertools
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import browser
import pytest
from backends import usable
from hypothesis import settings

from bats_lab.config import Config

if TYPE_CHECKING:
    from bats_lab.sweeps.progress import SweepReport

T = TypeVar("T")

# Tests of the engine run where plots, notebooks and sweeps cannot: what those need is imported where it is used.

# The default finds the same examples every time, so that a change is judged by itself; thorough looks further.
settings.register_profile("default", max_examples=50, deadline=None, derandomize=True)
settings.register_profile("thorough", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


# ------------------------------------------------------------------------------------- tests in several processes


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One process a core that this one may use; beyond eight, fixtures made in each cost more than they save."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


_compilation = pytest.StashKey[subprocess.Popen[bytes]]()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    """Compile the kernels in a process of its own while the others import and collect."""
    if not config.option.collectonly:
        config.stash[_compilation] = subprocess.Popen([sys.executable, Path(__file__).parent / "compiled.py"])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any) -> None:
    """Hand out no test before everything is compiled."""
    if (compilation := node.config.stash.get(_compilation, None)) and compilation.wait():
        pytest.exit(f"{Path(compilation.args[-1]).name} failed; its message stands above", 1)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the compilation where nothing waited for it: after Ctrl-C, or when a test file could not be imported."""
    if compilation := config.stash.get(_compilation, None):
        compilation.terminate()
        compilation.wait()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell what was skipped: a line a reason, however many tests have it."""
    skipped = terminalreporter.stats.get("skipped", [])
    for reason, count in collections.Counter(report.longrepr[2] for report in skipped).most_common():
        terminalreporter.write_line(f"{count} skipped: {reason.removeprefix('Skipped: ')}")


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], T]) -> T:
    """What `make` returns that is given a new folder; one process of this session calls it, and the others wait."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / name
    with open(f"{folder}.pickle", "a+b") as kept:
        fcntl.flock(kept, fcntl.LOCK_EX)
        kept.seek(0)
        if not kept.read(1):
            folder.mkdir()
            pickle.dump(make(folder), kept)
            kept.flush()
        kept.seek(0)
        made: T = pickle.load(kept)
        return made


# ---------------------------------------------------------------------------------------------- backends and data


@pytest.fixture(scope="session", params=["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> str:
    """Name of a backend; a test that takes it runs on each, and is skipped where one cannot be used."""
    return usable(request.param)


@pytest.fixture(scope="session", params=["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def cuda_backend(request: pytest.FixtureRequest) -> str:
    """Name of a backend that runs the CUDA kernels."""
    return usable(request.param)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Function) -> Generator[None, object, object]:
    """Let hypothesis try fewer examples on the emulated device; the very same source is tried by all on a GPU."""
    function, name = item.obj, "_hypothesis_internal_use_settings"
    if "emulated" not in item.name or not hasattr(function, name):
        return (yield)
    usual = getattr(function, name)
    setattr(function, name, settings(usual, max_examples=max(1, usual.max_examples // 5)))
    try:
        return (yield)
    finally:
        setattr(function, name, usual)


@pytest.fixture(scope="session")
def full_data() -> Callable[[str], Path]:
    """Return a function that gives the data directory that holds a full data set, or skips the test."""

    def find(name: str) -> Path:
        folder = os.environ.get("BATS_LAB_DATA")
        if not folder or not (Path(folder) / name).is_dir():
            pytest.skip(f"needs {name} in the folder that BATS_LAB_DATA names")
        return Path(folder)

    return find


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepReport, list[dict[str, Any]]]:
    """A real sweep over two time steps and two seeds in two processes, and all its states of progress.

    A fifth run diverges.
    """
    from runs import SMALL_SWEEP

    from bats_lab.sweeps.grid import expand_grid
    from bats_lab.sweeps.sweep import run_sweep

    def make(out: Path) -> tuple[SweepReport, list[dict[str, Any]]]:
        (out / "notebooks").mkdir()
        (out / "notebooks" / "run-old.running.ipynb").write_text("left by a sweep that was killed")
        states: list[dict[str, Any]] = []
        configs = expand_grid(SMALL_SWEEP)
        configs.insert(1, configs[0].replace(learning_rate=1e39))
        report = run_sweep(
            configs, out, jobs=2, progress=lambda state: states.append({**vars(state), "running": dict(state.running)})
        )
        assert len(report.finished) == 4, report
        return report, states

    return made_once(tmp_path_factory, "small_results", make)


@pytest.fixture(scope="session")
def small_results(swept: tuple[SweepReport, list[dict[str, Any]]]) -> Path:
    """Folder of a real sweep over two time steps and two seeds; tests read it, or copy it before they change it."""
    return swept[0].out


# ------------------------------------------------------------------------------------ notebooks, and a browser on them


@pytest.fixture(scope="session")
def small_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small sweep on real digits: two time steps, two rules, two seeds; one seed kept no weights."""
    from bats_lab.runs.experiment import run_experiment
    from bats_lab.runs.files import save_run

    small = {"hidden": 100, "n_train": 500, "n_test": 200, "batch_size": 10, "threshold_output": 0.5, "epochs": 2}

    def make(folder: Path) -> Path:
        for seed, keep_weights in ((0, "each"), (1, "none")):
            for rule, delta_t in itertools.product(("drop", "graded"), (0.002, 0.008)):
                config = Config(delta_t=delta_t, rule=rule, seed=seed, keep_weights=keep_weights, **small)
                with warnings.catch_warnings(action="ignore"):  # of classes that no neuron has learned yet
                    save_run(run_experiment(config, threads=1), folder)
        return folder

    return made_once(tmp_path_factory, "small_sweep", make)


@pytest.fixture(scope="session")
def notebooks(small_sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with copies of the notebooks that people explore; those that read results read the small sweep."""
    folder = tmp_path_factory.mktemp("lab")
    for path in (browser.ROOT / "notebooks").glob("[02]*.ipynb"):
        reads = {"results_dir": str(small_sweep)} if "results_dir: " in path.read_text() else {}
        browser.with_parameters(path, folder / path.name, **reads)
    return folder


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless Chromium without a network beyond this machine; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = browser.find_chromium()
    if path is None:
        pytest.skip("needs Chromium or Chrome; on Debian: apt-get install chromium")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=browser.CHROMIUM_OPTIONS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def lab(notebooks: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a JupyterLab on the notebooks, one for the whole session."""
    folder = tmp_path_factory.mktemp("server")
    with browser.served(browser.lab_command(notebooks), folder, "/api/status") as address:
        yield address


@pytest.fixture
def browse(chromium: Any, lab: str, notebooks: Path) -> Iterator[Callable[..., browser.Page]]:
    """Return a function that opens a notebook (its name, as "21_rasters") in JupyterLab, in a fresh browser window."""
    windows = []

    def open_notebook(name: str, *, width: int = 1280, height: int = 1800) -> browser.Page:
        assert (notebooks / f"{name}.ipynb").is_file(), f"there is no notebook {name}"
        windows.append(chromium.new_context(viewport={"width": width, "height": height}))
        page = browser.Page(windows[-1].new_page())
        page.page.goto(f"{lab}/lab/workspaces/{name}/tree/{name}.ipynb?reset")
        return page

    yield open_notebook
    for window in windows:
        window.close()
    browser.end_kernels(lab)
