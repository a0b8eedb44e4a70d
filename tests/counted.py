"""A GPU that counts: kernels compiled by NVRTC to PTX, run instruction by instruction on the CPU (see ``ptx.py``)."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine_code
import numpy as np
import ptx
from emulated import HEADER, EmulatedDevice, compiler, folder

RUNTIME = HEADER.with_name("ptx_on_cpu.h")
#: Models side by side in `EmulatedDevice`'s vector of times; the last one counts loads that wait for each other.
N_TIMES = 8
#: As in ptx_on_cpu.h.
LATENCIES = (
    "none", "alu", "wide", "special", "double", "divide", "divide_64", "shared", "near", "far", "atomic"
)  # fmt: skip


class _Found(ctypes.Structure):
    _fields_ = [
        (n, ctypes.c_double) for n in ("requests", "sectors", "bytes", "misses", "issued", "issued_by_longest")
    ] + [
        ("longest", ctypes.c_double * N_TIMES),
        ("total", ctypes.c_double * N_TIMES),
        ("counts", ctypes.c_double * 1024),
    ]


@dataclass(frozen=True)
class Launch:
    """What a launch did.

    Attributes
    ----------
    kernel : str
    n_blocks, n_threads, shared_bytes : int
    instructions, of_longest : float
        Issued by all warps, and by the lane of each warp that issues most: the first is more where lanes part ways.
    kinds : dict
        Those by kind: ``double``, ``special``, ``ld`` …
    requests, sectors, misses, bytes : float
        Requests of warps to memory, the sectors of 32 bytes they ask for, those that another request of the block has
        not brought to the first-level cache, and the bytes of memory that are touched at all.
    longest, total : ndarray, (model,)
        Cycles of the longest block, and of all blocks one after the other.
    """

    kernel: str
    n_blocks: int
    n_threads: int
    shared_bytes: int
    instructions: float
    of_longest: float
    kinds: dict[str, float]
    requests: float
    sectors: float
    misses: float
    bytes: float
    longest: np.ndarray
    total: np.ndarray


class CountedDevice(EmulatedDevice):
    """Runs PTX of the kernels for float32 in blocks as a GPU has them; `launches` are those up to now."""

    lanes = 32
    threads = 128
    order_threads = 512
    shared_bytes = 48 << 10
    name = "counted"

    def __init__(self, latencies: np.ndarray, issue: np.ndarray) -> None:
        nvrtc = machine_code.nvrtc()
        if nvrtc is None or compiler() is None:
            raise RuntimeError("Counting needs a C++ compiler and the package nvidia-cuda-nvrtc (extra test).")
        code, log = machine_code.compiled(nvrtc, "compute_80", "float")
        assert not log, log
        text = code.rstrip(b"\0").decode()
        self.kernels = {kernel.name: kernel for kernel in ptx.translated(text)}
        super().__init__(
            folder(), library=str(self._build(ptx.program(text, list(self.kernels.values()), str(RUNTIME))))
        )
        self._libraries[False].set_latencies(*(np.asarray(a, np.float32).ctypes for a in (latencies, issue)))
        self.launches: list[Launch] = []

    @staticmethod
    def _build(text: str) -> Path:
        """Compile the translated kernels, once for each state of them."""
        key = hashlib.sha256((text + RUNTIME.read_text() + HEADER.read_text()).encode()).hexdigest()[:16]
        library = folder() / f"counted-{key}.so"
        if not library.exists():
            folder().mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder()) as scratch:
                code, built = Path(scratch, "kernels.cpp"), Path(scratch, "kernels.so")
                code.write_text(text)
                options = ["-std=c++17", "-O1", "-shared", "-fPIC", "-fno-strict-aliasing", "-w", "-Wno-psabi"]
                command = [compiler() or "c++", *options, "-U_FORTIFY_SOURCE", str(code), "-o", str(built)]
                subprocess.run(command, check=True)
                os.replace(built, library)
        return library

    def empty(self, shape: Any, dtype: Any) -> np.ndarray:
        """Allocate an array that begins at a multiple of 256 bytes, as on a GPU: its sectors depend on that."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        room = np.full(size + 256, 0xFF, np.uint8)
        begin = -room.ctypes.data % 256
        return room[begin : begin + size].view(dtype).reshape(shape)

    def zeros(self, shape: Any, dtype: Any) -> np.ndarray:
        out = self.empty(shape, dtype)
        out[...] = 0
        return out

    def upload(self, array: np.ndarray) -> np.ndarray:
        out = self.empty(array.shape, array.dtype)
        out[...] = array
        return out

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
        assert dtype == np.float32 and not any_ratio
        held = [np.array(a.ctypes.data if isinstance(a, np.ndarray) else a) for a in arguments]
        pointers = (ctypes.c_void_p * len(held))(*(value.ctypes.data for value in held))
        found = _Found()
        launch = getattr(self._libraries[False], f"launch_{kernel}")
        failed = launch(n_blocks, n_threads, shared_bytes, next(self._seeds), pointers, ctypes.byref(found))
        assert not failed, f"the threads of {kernel} came to different barriers"
        stretches = self.kernels[kernel].stretches
        counts = np.array(found.counts[: len(stretches)])
        kinds: dict[str, float] = {}
        for count, stretch in zip(counts, stretches, strict=True):
            for kind, n in stretch.kinds.items():
                kinds[kind] = kinds.get(kind, 0.0) + count * n
        self.launches.append(
            Launch(
                kernel, n_blocks, n_threads, shared_bytes, found.issued, found.issued_by_longest, kinds,
                found.requests, found.sectors, found.misses, found.bytes, np.array(found.longest),
                np.array(found.total),
            )
        )  # fmt: skip
