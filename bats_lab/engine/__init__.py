"""The simulation engine: the only place that knows a CPU from a GPU.

Every backend offers the same names: ``Layer`` with its methods ``forward``, ``backward`` and ``update``, ``read_out``,
``Group``, which trains and measures several networks side by side, ``using`` and ``device_name``. A backend is chosen
once, by name, with :func:`get_backend`. Inside the engine speed decides how spikes are laid out;
:mod:`bats_lab.network.feedforward` is the readable side of it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from bats_lab.errors import DeviceError

__all__ = ["DEVICES", "get_backend"]

#: Devices that can be asked for by name.
DEVICES = ("auto", "cuda", "cpu")


def _cpu() -> Any:
    return importlib.import_module("bats_lab.engine.cpu.networks")


def _cuda() -> Any:
    return importlib.import_module("bats_lab.engine.cuda.networks").backend()


def _auto() -> Any:
    try:
        return _cuda()
    except DeviceError:
        return _cpu()


_BACKENDS: dict[str, Callable[[], Any]] = {"auto": _auto, "cuda": _cuda, "cpu": _cpu}


def get_backend(device: str = "auto") -> Any:
    """Return what runs networks on a device.

    Parameters
    ----------
    device : str
        ``cuda`` (a GPU, by CuPy), ``cpu`` (numba), or ``auto``: a GPU if one works, else the CPU. The result's
        `NAME` and `device_name` say which it is.

    Raises
    ------
    DeviceError
        If there is no device of that name, or it cannot be used; the message says what is missing.
    """
    if device not in _BACKENDS:
        raise DeviceError(f"device is {device!r}; it must be one of {', '.join(DEVICES)}.")
    return _BACKENDS[device]()
