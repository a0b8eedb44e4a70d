"""The kernels as machine code, without a GPU: what NVRTC compiles, and what nvdisasm reads in it."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

from bats_lab.engine.cuda.device import kernel_source


def nvrtc() -> ctypes.CDLL | None:
    """Return CUDA's compiler as a library, from the package nvidia-cuda-nvrtc, or None where there is none."""
    for place in map(Path, sys.path):
        for library in sorted(place.glob("nvidia/*/lib/libnvrtc.so.*")):
            for builtins in library.parent.glob("libnvrtc-builtins.so.*"):
                ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)  # it is looked for by its bare name
            return ctypes.CDLL(str(library))
    return None


def compiled(nvrtc: ctypes.CDLL, architecture: str, scalar: str, *options: str) -> tuple[bytes, str]:
    """Compile all kernels for a type as CuPy does; return machine code and the log, empty where all is well."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    source = kernel_source(scalar).encode()
    assert not nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"kernels.cu", 0, None, None)
    # CuPy adds -ftz=true to every module.
    texts = [t.encode() for t in (f"--gpu-architecture={architecture}", "--std=c++17", "-ftz=true", *options)]
    status = nvrtc.nvrtcCompileProgram(program, len(texts), (ctypes.c_char_p * len(texts))(*texts))

    def fetched(what: str) -> bytes:
        getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(nvrtc, f"nvrtcGet{what}")(program, buffer)
        return buffer.raw

    log = fetched("ProgramLog").rstrip(b"\0").decode() + (f"\nstatus {status}" if status else "")
    code = b"" if status else fetched("CUBIN")
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return code, log
