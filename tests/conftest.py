"""What tests share: profiles of hypothesis, the backends, the full data sets where they are found."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import browser
import pytest
from hypothesis import settings

from bats_lab import engine
from bats_lab.config import Config
from bats_lab.engine import get_backend
from bats_lab.errors import DeviceError

if TYPE_CHECKING:
    from bats_lab.sweeps.progress import SweepReport

# Tests of the engine run where plots, notebooks and sweeps cannot: what those need is imported where it is used.

ROOT = Path(__file__).parent.parent

# The default finds the same examples every time, so that a change is judged by itself; thorough looks further.
settings.register_profile("default", max_examples=50, deadline=None, derandomize=True)
settings.register_profile("thorough", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@functools.cache
def emulated_backend() -> Any:
    """The CUDA engine with its kernels run on the CPU, by the name ``emulated`` in tests only."""
    from emulated import EmulatedDevice, folder

    from bats_lab.engine.cuda.networks import CudaBackend

    return CudaBackend(EmulatedDevice(folder()))


engine._BACKENDS["emulated"] = emulated_backend


def usable(name: str) -> str:
    """Return the name of a backend, or skip the test that asks for it where it cannot be used."""
    if name == "emulated" and not shutil.which(os.environ.get("CXX", "c++")):
        pytest.skip("needs a C++ compiler")
    try:
        get_backend(name)
    except DeviceError as error:
        pytest.skip(str(error))
    if name == "cuda" and os.environ.get("BATS_LAB_NO_POOL"):  # see the Makefile's target sanitize
        import cupy

        cupy.cuda.set_allocator(None)
    return name


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

    def make(folder: Path) -> tuple[SweepReport, list[dict[str, Any]]]:
        (folder / "notebooks").mkdir()
        (folder / "notebooks" / "run-old.running.ipynb").write_text("left by a sweep that was killed")
        states: list[dict[str, Any]] = []
        configs = expand_grid(SMALL_SWEEP)
        configs.insert(1, configs[0].replace(learning_rate=1e39))
        report = run_sweep(
            configs, folder, jobs=2, progress=lambda now: states.append({**vars(now), "running": dict(now.running)})
        )
        assert len(report.finished) == 4, report
        return report, states

    return make(tmp_path_factory.mktemp("small_results"))


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

    folder = tmp_path_factory.mktemp("results") / "small"
    small = {"hidden": 100, "n_train": 500, "n_test": 200, "batch_size": 10, "threshold_output": 0.5, "epochs": 2}
    for seed, keep_weights in ((0, "each"), (1, "none")):
        for rule, delta_t in itertools.product(("drop", "graded"), (0.002, 0.008)):
            config = Config(delta_t=delta_t, rule=rule, seed=seed, keep_weights=keep_weights, **small)
            with warnings.catch_warnings(action="ignore"):  # of classes that no neuron has learned yet
                save_run(run_experiment(config, threads=1), folder)
    return folder


@pytest.fixture(scope="session")
def notebooks(small_sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with copies of the notebooks that people explore; those that read results read the small sweep."""
    folder = tmp_path_factory.mktemp("lab")
    for path in (ROOT / "notebooks").glob("[02]*.ipynb"):
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

    def open_notebook(name: str, *, width: int = 1280, height: int = 900) -> browser.Page:
        assert (notebooks / f"{name}.ipynb").is_file(), f"there is no notebook {name}"
        windows.append(chromium.new_context(viewport={"width": width, "height": height}))
        page = browser.Page(windows[-1].new_page())
        page.page.goto(f"{lab}/lab/workspaces/{name}/tree/{name}.ipynb?reset")
        return page

    yield open_notebook
    for window in windows:
        window.close()
    browser.end_kernels(lab)
