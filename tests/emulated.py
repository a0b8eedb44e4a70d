"""A stand-in for a GPU, for tests: the source of the CUDA kernels, compiled by the C++ compiler and run on the CPU.

It offers what `device.CupyDevice` does, with NumPy arrays in place of CuPy's, so that the same
host code drives the same kernels. New memory is poisoned, and threads run in an order that changes from launch to
launch: what reads memory that nobody wrote, or depends on the order of threads, does not go unnoticed.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bats_lab.engine.cuda.device import kernel_source

HEADER = Path(__file__).parent / "emulator" / "cuda_on_cpu.h"
#: Each CUDA thread is a thread, for a race detector.
THREADS = HEADER.with_name("threads_on_cpu.h")
KERNEL = re.compile(r"template <typename T>\n__global__ void (\w+)\((.*?)\) \{(.*?)\n\}\n", re.DOTALL)


def compiler() -> str | None:
    """Return the C++ compiler, or None where there is none."""
    return next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))), None)


def launchers(source: str, scalars: Sequence[str]) -> str:
    """C functions that launch each kernel as the driver does: from an array of pointers to its arguments."""
    text = []
    for name, parameters, body in KERNEL.findall(source):
        kinds = [parameter.strip().rpartition(" ")[0] for parameter in parameters.split(",")]
        barriers = "true" if re.search("__sync|exclusive_scan", body) else "false"
        for scalar in scalars:
            typed = [re.sub(r"\bT\b", scalar, kind) for kind in kinds]
            values = ", ".join(f"*({kind}*)arguments[{i}]" for i, kind in enumerate(typed))
            text.append(
                f'extern "C" int {name}_{scalar}(unsigned n_blocks, unsigned n_threads, unsigned shared_bytes, '
                f"unsigned seed, void** arguments) {{\n"
                f"    return emulator::launch(n_blocks, n_threads, shared_bytes, seed, {barriers}, "
                f"[=] {{ {name}<{scalar}>({values}); }});\n}}\n"
            )
    return "".join(text)


def folder() -> Path:
    """Return the folder in which compiled kernels are kept."""
    return Path(tempfile.gettempdir()) / f"bats-lab-emulator-{os.getuid()}"


def build(
    folder: Path,
    *options: str,
    source: str | None = None,
    scalars: Sequence[str] = ("float", "double"),
    any_ratio: bool = False,
) -> Path:
    """Compile kernels and launchers to a library in `folder`, once for each state of their source."""
    source = kernel_source(any_ratio=any_ratio) if source is None else source
    text = f'#include "{HEADER}"\n{source}\n{launchers(source, scalars)}'
    return _built(folder, text, HEADER, "-O1", "-std=c++17", "-shared", "-fPIC", *options)


def build_threads(folder: Path, *, source: str | None = None) -> Path:
    """Compile a program that does launches for float32 again, each CUDA thread a thread, and tells of races."""
    source = kernel_source() if source is None else source
    names = ", ".join(f'{{"{name}", {name}_float}}' for name, _, _ in KERNEL.findall(source))
    main = f"int main(int, char** files) {{ return emulator::replay(files[1], {{{names}}}); }}\n"
    text = f'#include "{THREADS}"\n{source}\n{launchers(source, ("float",))}{main}'
    return _built(folder, text, THREADS, "-O1", "-std=c++20", "-g", "-pthread", "-fsanitize=thread")


def _built(folder: Path, text: str, header: Path, *options: str) -> Path:
    """Compile a text, once for each state of it."""
    key = hashlib.sha256((text + header.read_text() + " ".join(options)).encode()).hexdigest()[:16]
    out = folder / f"kernels-{key}.so"
    if not out.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            code, built = Path(scratch) / "kernels.cpp", Path(scratch) / "kernels.so"
            code.write_text(text)
            command = [compiler() or "c++", "-fno-strict-aliasing", "-w"]
            command.append("-U_FORTIFY_SOURCE")  # it takes a jump between fibres for an attack
            subprocess.run([*command, *options, str(code), "-o", str(built)], check=True)
            os.replace(built, out)
    return out


class EmulatedDevice:
    """Runs kernels on the CPU; see :class:`bats_lab.engine.cuda.device.CupyDevice` for what each method is for."""

    #: Small blocks: one thread here costs what a thousand cost there.
    lanes = 4
    threads = 32
    order_threads = 8
    #: Room for so few spikes in shared memory that longer sorts are tested too.
    shared_bytes = 4096
    name = "emulated"

    def __init__(self, folder: Path, *, total_bytes: int = 1 << 34, library: str | None = None) -> None:
        self._folder = folder
        self._libraries = {False: ctypes.CDLL(library or str(build(folder)))}
        self._seeds = itertools.count(1)
        self._total_bytes = total_bytes

    def compile(self, dtype: np.dtype, *, any_ratio: bool = False) -> None:
        if any_ratio not in self._libraries:
            self._libraries[any_ratio] = ctypes.CDLL(str(build(self._folder, any_ratio=any_ratio)))

    def empty(self, shape: Any, dtype: Any) -> np.ndarray:
        array = np.empty(shape, dtype)
        array.view(np.uint8 if array.ndim else None).reshape(-1)[:] = 0xFF  # NaN, or -1
        return array

    def zeros(self, shape: Any, dtype: Any) -> np.ndarray:
        return np.zeros(shape, dtype)

    def upload(self, array: np.ndarray) -> np.ndarray:
        return np.array(array, order="C")

    def download(self, array: np.ndarray) -> np.ndarray:
        return array.copy()

    def fill(self, array: np.ndarray, values: np.ndarray) -> None:
        array[...] = values

    def clear(self, array: np.ndarray) -> None:
        array[...] = 0

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
        values = []
        for argument in arguments:
            if isinstance(argument, np.ndarray):
                assert argument.flags.c_contiguous
                values.append(np.uintp(argument.ctypes.data))
            else:
                assert isinstance(argument, np.generic), (kernel, argument)
                values.append(argument)
        held = [np.array(value) for value in values]
        pointers = (ctypes.c_void_p * len(held))(*(value.ctypes.data for value in held))
        scalar = "float" if dtype == np.float32 else "double"
        launch = getattr(self._libraries[any_ratio], f"{kernel}_{scalar}")
        failed = launch(n_blocks, n_threads, shared_bytes, next(self._seeds), pointers)
        assert not failed, f"the threads of {kernel} came to different barriers"

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        return work

    def mark(self) -> Callable[[], None]:
        return lambda: None

    def free_bytes(self) -> int:
        return self._total_bytes


class RecordingDevice(EmulatedDevice):
    """Writes down each launch, with what is in its arrays before, for the program of `build_threads`."""

    def __init__(self, folder: Path, file: BinaryIO) -> None:
        super().__init__(folder)
        self._file = file

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
        assert not any_ratio, "the program has the kernels of the closed form"
        self._file.write(f"{kernel}".encode().ljust(64, b"\0"))
        self._file.write(np.array([n_blocks, n_threads, shared_bytes, len(arguments)], np.uint32).tobytes())
        for argument in arguments:
            self._file.write(np.array([isinstance(argument, np.ndarray), argument.nbytes], np.uint64).tobytes())
            self._file.write(argument.tobytes())
        super().launch(kernel, dtype, n_blocks, n_threads, arguments, shared_bytes)
