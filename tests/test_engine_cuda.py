"""The CUDA engine, also without a GPU: its kernels compile, and do what the CPU engine does."""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import machine_code
import numpy as np
import pytest
from backends import usable
from emulated import EmulatedDevice, RecordingDevice, build, build_threads, folder
from strategies import RULES, assert_same_activity, random_case

from bats_lab import engine
from bats_lab.config import Config
from bats_lab.data.datasets import load_dataset
from bats_lab.engine import get_backend
from bats_lab.engine.cuda.device import KERNELS, CupyDevice, _installed, _missing, _told, kernel_source
from bats_lab.engine.cuda.networks import CudaBackend
from bats_lab.errors import DeviceError
from bats_lab.network.feedforward import Network
from bats_lab.runs.training import input_spikes, train

# Compilation


@pytest.fixture(scope="module")
def nvrtc() -> ctypes.CDLL:
    """CUDA's compiler as a library, from its package; it needs neither GPU nor driver."""
    library = machine_code.nvrtc()
    if library is None:
        pytest.skip("needs the package nvidia-cuda-nvrtc")
    return library


@pytest.mark.parametrize(
    ("architecture", "scalar"), [("sm_75", "float"), ("sm_80", "double"), ("sm_90", "float"), ("sm_90", "double")]
)
@pytest.mark.parametrize("any_ratio", [False, True])
def test_kernels_compile_without_a_warning(nvrtc: ctypes.CDLL, architecture: str, scalar: str, any_ratio: bool) -> None:
    _, log = machine_code.compiled(nvrtc, architecture, scalar, any_ratio=any_ratio)
    assert log == ""


def test_every_kernel_is_listed() -> None:
    assert tuple(re.findall(r"__global__ void (\w+)\(", kernel_source())) == KERNELS


def test_functions_of_one_type_are_what_cupy_compiles() -> None:
    for scalar in ("float", "double"):
        source = kernel_source(scalar)
        assert tuple(re.findall(r'extern "C" __global__ void (\w+)\(', source)) == KERNELS
        assert source.startswith(f"typedef {scalar} T;") and "<typename T>\n__global__" not in source


def test_kernels_include_no_header() -> None:
    assert "#include" not in kernel_source()


# Against the CPU engine


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("delta_t", [0.0, 0.0004, 0.008])
def test_float64_finds_every_spike_of_the_cpu(cuda_backend: str, rule: str, delta_t: float) -> None:
    if rule == "clocked" and delta_t == 0:
        pytest.skip("a clock needs a time step")
    case = random_case(7, rule, sizes=(40, 60, 20, 5), samples=8, delta_t=delta_t, thresholds=[0.1, 0.13, 0.2])
    for here, there in zip(case.simulate(cuda_backend), case.simulate("cpu"), strict=True):
        for name in vars(here):
            np.testing.assert_allclose(getattr(here, name), getattr(there, name), rtol=1e-11, err_msg=name)
    for here, there in zip(case.gradients(cuda_backend), case.gradients("cpu"), strict=True):
        np.testing.assert_allclose(here, there, rtol=0, atol=1e-10 * np.abs(there).max())


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist"])
def test_networks_of_full_size_do_the_same_to_digits(cuda_backend: str, dataset: str) -> None:
    config = Config(dataset=dataset, delta_t=0.001).replace(dataset="mnist_small", dtype="float64")
    spikes = input_spikes(load_dataset("mnist_small", n_train=4, n_test=1).x_train, config)
    errors = np.random.default_rng(0).normal(size=(4, 10))
    here, there = (Network.from_config(config, 784, 10, device=device) for device in (cuda_backend, "cpu"))
    for a, b in zip(here.simulate(spikes), there.simulate(spikes), strict=True):
        np.testing.assert_allclose(a.times, b.times, rtol=1e-10)
        np.testing.assert_array_equal(a.spike_count, b.spike_count)
    for a, b in zip(here.gradients(spikes, errors), there.gradients(spikes, errors), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10 * np.abs(b).max())


def test_training_ends_where_it_ends_on_the_cpu(cuda_backend: str) -> None:
    config = Config(n_train=300, n_test=200, hidden=30, threshold_output=0.2, epochs=1, delta_t=0.002, batch_size=10)
    data = load_dataset("mnist_small", n_train=300, n_test=200)
    here, there = (train(config, data, device=device) for device in (cuda_backend, "cpu"))
    other_seeds = [train(config.replace(seed=seed), data, device="cpu") for seed in (1, 2)]
    loss = [t.records[-1].test.loss for t in (here, there, *other_seeds)]
    assert abs(loss[0] - loss[1]) <= np.ptp(loss[1:])
    double = config.replace(dtype="float64", n_train=60)
    weights = [train(double, data, device=device).network.weights for device in (cuda_backend, "cpu")]
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)


def test_optimised_code_with_fused_sums_does_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's compiler fuses products and sums, and leaves undefined what is not initialised."""
    usable("emulated")
    library = build(folder(), "-O2", "-ffp-contract=fast", *(["-mfma"] if fuses() else []), scalars=("double",))
    backend = CudaBackend(EmulatedDevice(folder(), library=str(library)))
    monkeypatch.setitem(engine._BACKENDS, "optimised", lambda: backend)
    for rule in RULES:
        case = random_case(7, rule, sizes=(40, 60, 20, 5), samples=4, delta_t=0.002, thresholds=[0.1, 0.13, 0.2])
        for here, there in zip(case.gradients("optimised"), case.gradients("cpu"), strict=True):
            np.testing.assert_allclose(here, there, rtol=0, atol=1e-9 * np.abs(there).max())


def fuses() -> bool:
    """Return whether this processor has fused products and sums that a compiler has to be told of."""
    information = Path("/proc/cpuinfo")
    return information.exists() and " fma " in information.read_text()


# Launches


def test_result_depends_on_neither_the_order_of_threads_nor_their_number() -> None:
    usable("emulated")  # a GPU chooses the order itself
    case = random_case(3, "defer", sizes=(30, 90, 10), samples=10, max_spikes=[8, 12])
    first, again = (case.gradients("emulated", "float32") for _ in range(2))
    activity = case.simulate("emulated", "float32")
    device = get_backend("emulated").device
    usual = device.threads
    device.threads = 7
    try:
        assert_same_activity(case.simulate("emulated", "float32"), activity)
        other = case.gradients("emulated", "float32")
    finally:
        device.threads = usual
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def test_spikes_too_many_for_shared_memory_are_ordered_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(1, "graded", sizes=(4, 70, 3), samples=2, delta_t=0.0004, max_spikes=[6, 20])
    case = case.replace(weights=[abs(case.weights[0]) * 40, case.weights[1]])
    usable("emulated")
    narrow = CudaBackend(EmulatedDevice(folder()))
    narrow.device.shared_bytes = 256
    monkeypatch.setitem(engine._BACKENDS, "narrow", lambda: narrow)
    assert case.simulate("cpu")[0].spike_count.sum() > 200
    for rule, delta_t in (("graded", 0.0004), ("defer", 0.0004), ("drop", 0.0)):
        other = case.replace(rule=rule, delta_t=delta_t)
        assert_same_activity(other.simulate("narrow"), other.simulate("emulated"))
        for a, b in zip(other.gradients("narrow"), other.gradients("emulated"), strict=True):
            np.testing.assert_array_equal(a, b)


# The device


def test_device_that_is_not_there_is_named_with_what_to_install() -> None:
    try:
        found = get_backend("cuda")
    except DeviceError as error:
        assert re.match(r"The device cuda needs (CuPy|one CuPy|NVIDIA's driver|a driver|a CUDA device)", str(error))
        assert re.search(r"pip install|install driver|nvidia-smi", str(error)) and "\n" not in str(error)
        assert get_backend("auto").name == "cpu"
    else:
        assert get_backend("auto") is found


@pytest.mark.parametrize(
    ("platform", "driver", "installed", "what"),
    [
        ("win32", 13000, {}, "WSL2"),
        ("darwin", 0, {}, "macOS"),
        ("linux", 0, {}, "NVIDIA's driver"),
        ("linux", 11080, {}, "for CUDA 11; install driver 580 or later"),
        ("linux", 12040, {}, "not installed; for the driver here: pip install 'bats-lab[cuda12]'"),
        ("linux", 13000, {}, "not installed; for the driver here: pip install 'bats-lab[cuda]'"),
        ("linux", 12040, {"cupy-cuda13x": "14.2.0"}, "uninstall -y cupy-cuda13x, then pip install 'bats-lab[cuda12]'"),
        ("linux", 13000, {"cupy-cuda12x": "13.3.0"}, "needs CuPy 13.6 or later, and this is 13.3.0; first"),
        ("linux", 13000, {"cupy-cuda12x": "14.2.0", "cupy-cuda13x": "14.2.0"}, "-y cupy-cuda12x cupy-cuda13x"),
    ],
)  # fmt: skip
def test_message_tells_what_fits_the_driver(platform: str, driver: int, installed: dict[str, str], what: str) -> None:
    message = _missing(platform, driver, installed)
    assert message and what in message and "\n" not in message and message.startswith("The device cuda needs ")


def test_installed_cupy_is_found_by_name_without_listing_all_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := tmp_path / "cupy_cuda13x-14.2.0.dist-info").mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: cupy-cuda13x\nVersion: 14.2.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def list_all() -> None:
        raise AssertionError("takes a fifth of a second, several times a run")

    monkeypatch.setattr(metadata, "distributions", list_all)
    assert _installed()["cupy-cuda13x"] == "14.2.0"


def test_long_compilation_is_told_with_its_time(capfd: pytest.CaptureFixture[str]) -> None:
    with _told("working", after=10.0):
        pass
    assert capfd.readouterr().err == ""
    with _told("working", after=0.05):
        time.sleep(0.3)
        assert capfd.readouterr().err == "working …\n"
    assert re.fullmatch(r"working: it took 0\.\d s\n", capfd.readouterr().err)


class BrokenCapture:
    """A stream as CUDA's is while a graph is captured: once a launch has failed, the end fails with another error."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def begin_capture(self) -> None: ...

    def end_capture(self) -> None:
        raise RuntimeError("cudaErrorStreamCaptureInvalidated")


def test_launch_that_fails_in_a_graph_is_not_hidden_by_the_end_of_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ValueError("too many threads")

    device = object.__new__(CupyDevice)
    monkeypatch.setattr(CupyDevice, "_errors", lambda self: contextlib.nullcontext())
    monkeypatch.setitem(vars(device), "_stream", BrokenCapture())
    with pytest.raises(ValueError, match="too many threads"):
        device.record(fail)


def test_emulated_device_offers_what_the_real_one_does() -> None:
    real, emulated = (
        {name: value for name, value in vars(kind).items() if not name.startswith("_")}
        for kind in (CupyDevice, EmulatedDevice)
    )
    assert real.keys() | {"name"} == emulated.keys()
    for name in real:
        if callable(real[name]):
            assert list(inspect.signature(real[name]).parameters) == list(inspect.signature(emulated[name]).parameters)


def test_engine_is_imported_without_cupy_and_what_plots_need() -> None:
    code = "import sys, bats_lab.engine.cuda.networks, bats_lab.runs.training; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"cupy", "holoviews", "papermill", "xarray", "pandas"} & set(run.stdout.split())


# The emulator must find what it is there for.

PLANTED = """
#ifndef SHARED_ARRAY
#define SHARED_ARRAY(type, name) extern __shared__ type name[]
#endif
template <typename T>
__global__ void reverse_without_barrier(T* values) {
    SHARED_ARRAY(double, shared);
    shared[threadIdx.x] = values[threadIdx.x];
    if (values[0] < 0) __syncthreads();
    values[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}
template <typename T>
__global__ void meet_apart(T* values) {
    if (threadIdx.x % 2) __syncthreads();
    values[threadIdx.x] = 1;
}
"""


def test_emulator_finds_races_and_barriers_that_threads_do_not_share(tmp_path: Path) -> None:
    usable("emulated")
    library = ctypes.CDLL(str(build(tmp_path, source=PLANTED, scalars=("float",))))

    def launch(kernel: str, seed: int) -> tuple[int, bytes]:
        values = np.arange(64, dtype=np.float32)
        pointer = ctypes.c_void_p(values.ctypes.data)
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(pointer))
        return getattr(library, f"{kernel}_float")(1, 64, 512, seed, arguments), values.tobytes()

    assert len({launch("reverse_without_barrier", seed) for seed in range(1, 5)}) > 1
    assert launch("meet_apart", 1)[0] == 1


#: Trains small networks of all rules on the library named, in a process of its own.
WATCHED = """
import sys
sys.path.insert(0, {tests!r})
import numpy as np
from emulated import EmulatedDevice, folder
from strategies import RULES, random_case
from bats_lab import engine
from bats_lab.engine.cuda.networks import CudaBackend
backend = CudaBackend(EmulatedDevice(folder(), library={library!r}))
engine._BACKENDS["watched"] = lambda: backend
for rule in RULES:
    case = random_case(0, rule, sizes=(30, 33, 20, 3), max_spikes=[4, 30, 3])
    case.gradients("watched", "float32")
print("done")
"""


def sanitizers(*names: str) -> str:
    """Return the compiler's libraries of these names, to be loaded before all others, or skip the test."""
    found = [subprocess.run(["c++", f"-print-file-name={n}"], capture_output=True, text=True).stdout for n in names]
    libraries = [path.strip() for path in found]
    if not all(map(os.path.isabs, libraries)):
        pytest.skip("needs the compiler's sanitizers")
    return ":".join(libraries)


def run_watched(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment)


def test_kernels_read_and_write_within_their_arrays() -> None:
    """Address and undefined-behaviour sanitizers watch in a process of its own."""
    usable("emulated")
    preload = sanitizers("libasan.so", "libubsan.so", "libstdc++.so")
    options = "-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-sanitize=float-divide-by-zero"
    library = build(folder(), *options, scalars=("float",))
    code = WATCHED.format(tests=str(Path(__file__).parent), library=str(library))
    run = run_watched(code, LD_PRELOAD=preload, ASAN_OPTIONS="detect_leaks=0")
    assert run.stdout.strip() == "done", run.stderr[-3000:]


def test_no_two_threads_of_a_kernel_meet_in_memory(tmp_path: Path) -> None:
    """Each CUDA thread is a thread, barriers of blocks and warps are real, and a race detector watches."""
    usable("emulated")
    run = raced(tmp_path, train_small)
    assert run.returncode == 0 and int(run.stdout.split()[0]) > 20, run.stderr[:3000]


def train_small(device: EmulatedDevice) -> None:
    """Run a training step of two networks of three layers in continuous time, and one of rule defer on a grid."""
    for rule, delta_t in (("drop", 0.0), ("defer", 0.004)):
        case = random_case(0, rule, sizes=(30, 33, 20, 3), samples=3, max_spikes=[4, 9, 3], delta_t=delta_t)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(engine._BACKENDS, "recorded", lambda: CudaBackend(device))
            case.gradients("recorded", "float32")


def raced(folder_of_test: Path, work: Callable[[EmulatedDevice], None], source: str | None = None) -> Any:
    """Do some work on the emulated device, then its launches again under the race detector; return what that says."""
    sanitizers("libtsan.so")
    path = folder_of_test / "launches"
    with path.open("wb") as file:
        work(RecordingDevice(folder(), file))
    program = build_threads(folder(), source=source)
    environment = os.environ | {"TSAN_OPTIONS": "exitcode=66"}
    return subprocess.run([program, path], capture_output=True, text=True, env=environment)


def test_race_detector_finds_a_missing_barrier(tmp_path: Path) -> None:
    usable("emulated")
    cleared = "sums[i] = T(0);\n"
    barrier = f"{cleared}    __syncthreads();\n"
    assert kernel_source().count(barrier) == 1
    run = raced(tmp_path, train_small, kernel_source().replace(barrier, cleared))
    assert run.returncode == 66 and "data race" in run.stderr and " update<float>" in run.stderr
