"""The kernels as machine code, without a GPU: what NVRTC compiles, and what nvdisasm reads in it."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
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


def compiled(
    nvrtc: ctypes.CDLL, architecture: str, scalar: str, *options: str, any_ratio: bool = False
) -> tuple[bytes, str]:
    """Compile all kernels for a type as CuPy does; return machine code (PTX for compute_90) and the log."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    source = kernel_source(scalar, any_ratio=any_ratio).encode()
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
    code = b"" if status else fetched("PTX" if architecture.startswith("compute") else "CUBIN")
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return code, log


@dataclass(frozen=True)
class Resources:
    """What a kernel takes of a multiprocessor, as the compiler says, and its machine instructions where known."""

    registers: int
    spilled_bytes: int
    instructions: int | None


def nvdisasm() -> str | None:
    """Return NVIDIA's disassembler, from its package or the system, or None where there is none."""
    places = [str(path) for place in map(Path, sys.path) for path in place.glob("nvidia/*/bin")]
    return shutil.which("nvdisasm", path=os.pathsep.join([*places, os.environ.get("PATH", "")]))


def resources(nvrtc: ctypes.CDLL, architecture: str, scalar: str = "float") -> dict[str, Resources]:
    """Compile all kernels and return what each takes."""
    code, log = compiled(nvrtc, architecture, scalar, "--ptxas-options=--verbose")
    found = re.findall(
        r"function '(\w+)' for .*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers", log, re.S
    )
    instructions: dict[str, int] = {}
    if tool := nvdisasm():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "kernels.cubin")
            path.write_bytes(code)
            text = subprocess.run([tool, "-json", str(path)], check=True, capture_output=True, text=True).stdout
        for function in json.loads(text)[1]:
            listed = [i["opcode"].split(".")[0] for i in function["sass-instructions"]]
            instructions[function["function-name"]] = sum(name != "NOP" for name in listed)
    return {
        name: Resources(int(registers), int(stores) + int(loads), instructions.get(name))
        for name, stores, loads, registers in found
    }
