"""The CUDA device behind one small class: allocate, copy, launch. Tests put another one in its place."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from bats_lab.errors import DeviceError
from bats_lab.spikes.grid import GRID_TOLERANCE
from bats_lab.spikes.rules import RULES

__all__ = ["KERNELS", "NONE", "CupyDevice", "Device", "kernel_source", "missing"]

#: A null pointer, as an argument of a kernel.
NONE = np.uintp(0)

#: Oldest version of CuPy that loads with the NumPy this package asks for.
OLDEST_CUPY = (13, 6)

#: Kernel files, in the order in which they are joined.
SOURCES = ("common.cu", "forward.cu", "order.cu", "read_out.cu", "backward.cu")
#: Their kernels, each a template on the scalar type.
KERNELS = (
    "select_samples",
    "forward",
    "order_spikes",
    "read_out",
    "finish_step",
    "backward",
    "input_errors",
    "update",
    "inspect_weights",
)


def kernel_source(scalar: str | None = None, *, any_ratio: bool = False) -> str:
    """Return the CUDA C++ source of all kernels, which knows the tables of :mod:`bats_lab.spikes` by their names.

    With `scalar`, ``float`` or ``double``, kernels are functions of C for that type in place of templates: only what
    those are compiled to is kept on disk by every version of CuPy. With `any_ratio` it is the source for neurons of any
    time constants; without, it has nothing but the closed form.
    """
    folder = Path(__file__).parent / "kernels"
    rules = f"enum {{ {', '.join(name.upper() for name in RULES)} }};"
    tables = f"{rules}\n#define GRID_TOLERANCE {GRID_TOLERANCE!r}\n#define ANY_RATIO {any_ratio:d}\n"
    source = tables + "".join((folder / name).read_text(encoding="utf-8") for name in SOURCES)
    if scalar is None:
        return source
    return f"typedef {scalar} T;\n" + source.replace("template <typename T>\n__global__", 'extern "C" __global__')


class Device(Protocol):
    """What the engine needs of a device; :class:`CupyDevice` says what each member is for."""

    name: str
    lanes: int
    threads: int
    order_threads: int
    shared_bytes: int

    def compile(self, dtype: np.dtype, *, any_ratio: bool = False) -> None: ...  # noqa: D102
    def empty(self, shape: Any, dtype: Any) -> Any: ...  # noqa: D102
    def zeros(self, shape: Any, dtype: Any) -> Any: ...  # noqa: D102
    def upload(self, array: np.ndarray) -> Any: ...  # noqa: D102
    def download(self, array: Any) -> np.ndarray: ...  # noqa: D102
    def fill(self, array: Any, values: np.ndarray) -> None: ...  # noqa: D102
    def clear(self, array: Any) -> None: ...  # noqa: D102
    def launch(  # noqa: D102
        self,
        kernel: str,
        dtype: np.dtype,
        n_blocks: int,
        n_threads: int,
        arguments: Sequence[Any],
        shared_bytes: int = 0,
        *,
        any_ratio: bool = False,
    ) -> None: ...
    def record(self, work: Callable[[], None]) -> Callable[[], None]: ...  # noqa: D102
    def mark(self) -> Callable[[], None]: ...  # noqa: D102
    def free_bytes(self) -> int: ...  # noqa: D102


class CupyDevice:
    """The current CUDA device, through CuPy: memory, copies, launches. Everything happens in one stream, in order.

    Raises
    ------
    DeviceError
        If CuPy, a driver or a device is missing; the message says which, and what helps.
    """

    #: Threads of a warp, of a block, and of a block that orders a sample's spikes (results depend on this one); bytes
    #: of shared memory that every device gives a block.
    lanes = 32
    threads = 128
    order_threads = 512
    shared_bytes = 48 << 10

    def __init__(self) -> None:
        reason = missing()
        if reason is not None:
            raise DeviceError(reason)
        import cupy

        self._cupy = cupy
        self._functions: dict[tuple[str, str, bool], Any] = {}
        with self._errors():
            properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
            self.name = properties["name"].decode()
            version = properties["major"], properties["minor"]
            if version < (7, 5):
                raise DeviceError(
                    f"The device {self.name} has compute capability {version[0]}.{version[1]}; "
                    "it must be 7.5 or higher."
                )

    @functools.cached_property
    def _stream(self) -> Any:
        """The stream of everything; it is made when it is needed, since with it the process takes memory."""
        with self._errors():
            return self._cupy.cuda.Stream(non_blocking=True)

    def _errors(self) -> AbstractContextManager[None]:
        return _DeviceErrors(self._cupy)

    def compile(self, dtype: np.dtype, *, any_ratio: bool = False) -> None:
        """Compile and load all kernels for a type; CuPy keeps what it compiled in its cache on disk."""
        scalar = "float" if dtype == np.float32 else "double"
        if (KERNELS[0], scalar, any_ratio) in self._functions:
            return
        with self._errors(), _told(f"compiling the kernels of the GPU for {dtype.name}, once"):
            source = kernel_source(scalar, any_ratio=any_ratio)
            module = self._cupy.RawModule(code=source, options=("--std=c++17",))
            for kernel in KERNELS:
                function = module.get_function(kernel)
                function.num_regs  # noqa: B018  (loads it: nothing may be loaded while a graph is recorded)
                self._functions[kernel, scalar, any_ratio] = function

    def empty(self, shape: Any, dtype: Any) -> Any:
        """Allocate an array; what is in it is undefined."""
        with self._errors(), self._stream:
            return self._cupy.empty(shape, dtype)

    def zeros(self, shape: Any, dtype: Any) -> Any:
        """Allocate an array of zeros."""
        with self._errors(), self._stream:
            return self._cupy.zeros(shape, dtype)

    def upload(self, array: np.ndarray) -> Any:
        """Copy an array to the device."""
        out = self.empty(array.shape, array.dtype)
        self.fill(out, array)
        return out

    def download(self, array: Any) -> np.ndarray:
        """Copy an array, or part of one, from the device, after all that was launched before."""
        with self._errors(), self._stream:
            return self._cupy.ascontiguousarray(array).get(stream=self._stream)

    def fill(self, array: Any, values: np.ndarray) -> None:
        """Copy values into an array of the device, or into part of one."""
        with self._errors():
            # Through the driver's own small buffer: of page-locked memory, which asarray goes through, CuPy gives
            # nothing back.
            array.set(np.ascontiguousarray(values, array.dtype), stream=self._stream)
            self._stream.synchronize()  # `values` may be gone or changed afterwards

    def clear(self, array: Any) -> None:
        """Set an array to zeros."""
        with self._errors():
            array.data.memset_async(0, array.nbytes, self._stream)

    def launch(
        self,
        kernel: str,
        dtype: np.dtype,
        n_blocks: int,
        n_threads: int,
        arguments: Sequence[Any],
        shared_bytes: int = 0,
        *,
        any_ratio: bool = False,
    ) -> None:
        """Launch a kernel; `arguments` are arrays of the device and NumPy scalars of the kernel's types.

        With `any_ratio` it is the one compiled for neurons of any time constants.
        """
        function = self._functions[kernel, "float" if dtype == np.float32 else "double", any_ratio]
        with self._errors(), self._stream:
            function((n_blocks,), (n_threads,), tuple(arguments), shared_mem=shared_bytes)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return a function that does again what `work` launches, as one CUDA graph; nothing is done yet."""
        with self._errors(), self._stream:
            self._stream.begin_capture()
            try:
                work()
            except BaseException:
                # The capture is broken by what failed, and says so: that must not hide what it was.
                with contextlib.suppress(Exception):
                    self._stream.end_capture()
                raise
            graph = self._stream.end_capture()

        def replay() -> None:
            with self._errors():
                graph.launch(stream=self._stream)

        return replay

    def mark(self) -> Callable[[], None]:
        """Return a function that waits for what has been launched up to now."""
        with self._errors():
            event = self._stream.record()

        def wait() -> None:
            with self._errors():
                event.synchronize()

        return wait

    def free_bytes(self) -> int:
        """Return the bytes that can still be allocated."""
        with self._errors():
            pool = self._cupy.get_default_memory_pool()
            return int(self._cupy.cuda.runtime.memGetInfo()[0] + pool.free_bytes())


class _DeviceErrors(AbstractContextManager[None]):
    """Turns what CuPy raises into one sentence."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if error is None or isinstance(error, DeviceError):
            return
        if isinstance(error, self._cupy.cuda.memory.OutOfMemoryError):
            raise DeviceError(f"The GPU is out of memory: {error}") from error
        if type(error).__name__ in ("CUDARuntimeError", "CUDADriverError"):
            raise DeviceError(f"The GPU failed: {error}") from error
        if type(error).__name__ in ("CompileException", "NVRTCError", "DynamicLibNotFoundError"):
            first = str(error).strip().splitlines()[0]
            extra = _extra(_driver() or self._cupy.cuda.runtime.driverGetVersion())
            raise DeviceError(
                f"The kernels could not be compiled ({first}); pip install 'bats-lab[{extra}]' brings CUDA's compiler."
            ) from error


@contextlib.contextmanager
def _told(what: str, after: float = 0.5) -> Iterator[None]:
    """Tell on standard error of what takes more than `after` seconds, and in the end how long it took."""

    def tell(text: str) -> None:
        tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()

    begin, timer = time.monotonic(), threading.Timer(after, tell, (f"{what} …",))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        if (took := time.monotonic() - begin) > after:
            tell(f"{what}: it took {took:.1f} s")


def _driver() -> int:
    """Return the CUDA version of the driver, 13000 for 13.0, or 0 where there is none; it needs no CuPy."""
    version = ctypes.c_int(0)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    return version.value


def _extra(driver: int) -> str:
    """Return the extra of this package that fits a driver's CUDA version."""
    return "cuda12" if 0 < driver < 13000 else "cuda"


def missing() -> str | None:
    """Say in one sentence what is missing for the device ``cuda`` and what helps, or return None."""
    return _missing(sys.platform, _driver(), _installed())


def _installed() -> dict[str, str]:
    """Return names and versions of the installed packages that bring CuPy."""
    found = {}
    # By their names: to list all packages there are takes a fifth of a second, and each run asks several times.
    for name in ("cupy", *(f"cupy-cuda{version}x" for version in range(11, 15))):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _missing(platform: str, driver: int, installed: dict[str, str]) -> str | None:
    """Say what is missing on a platform, for a driver (CUDA's version, 0: none), with so many packages of CuPy."""
    if platform == "win32":
        return "The device cuda needs Linux: on Windows install WSL2, which sees the GPU, and bats-lab inside it."
    if platform == "darwin":
        return "The device cuda needs an NVIDIA GPU, and CUDA does not exist on macOS; the device cpu works here."
    if driver == 0:
        return (
            "The device cuda needs NVIDIA's driver, and there is none here; install driver 580 or later, and then: "
            "pip install 'bats-lab[cuda]'."
        )
    if driver < 12000:
        return (
            f"The device cuda needs a driver for CUDA 12 or later, and this one is for CUDA {driver // 1000}; "
            "install driver 580 or later."
        )
    install = f"pip install 'bats-lab[{_extra(driver)}]'"
    if not installed:
        return f"The device cuda needs CuPy, which is not installed; for the driver here: {install}."
    remove = f"pip uninstall -y {' '.join(sorted(installed))}"
    if len(installed) > 1:
        return f"The device cuda needs one CuPy, and there are {len(installed)}; first {remove}, then {install}."
    ((name, version),) = installed.items()
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST_CUPY:
        oldest = ".".join(map(str, OLDEST_CUPY))
        return f"The device cuda needs CuPy {oldest} or later, and this is {version}; first {remove}, then {install}."
    if name == "cupy-cuda13x" and driver < 13000:
        return (
            f"The device cuda needs CuPy for CUDA 12, for which the driver here is, and {name} is for CUDA 13; "
            f"first {remove}, then {install}, or install driver 580 or later."
        )
    try:
        import cupy

        if cupy.cuda.runtime.getDeviceCount() == 0:
            return "The device cuda needs a CUDA device, and the driver finds none; see nvidia-smi."
    except ImportError as error:
        return f"The device cuda needs CuPy, which cannot be loaded ({error}); first {remove}, then {install}."
    except Exception as error:  # CuPy's own classes, which differ between versions
        return f"The device cuda needs a CUDA device that works, and CuPy says: {error}; see nvidia-smi."
    return None
