"""Events as others keep them: the Heidelberg sets (HDF5), N-MNIST, AER-DAT 2.0 and the structured arrays of Tonic.

Channels of a sensor are (polarity · rows + y) · columns + x. Times of a sample stay as they were recorded, in seconds.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bats_lab.data.datasets import ImageData, hash_arrays
from bats_lab.data.events import to_seconds
from bats_lab.data.registry import data_directory
from bats_lab.errors import DataError
from bats_lab.files import write_whole
from bats_lab.spikes.trains import Spikes

__all__ = [
    "EVENT", "event_dataset", "from_structured", "read_aedat", "read_heidelberg", "read_nmnist", "read_nmnist_file",
    "read_shd", "save_events",
]  # fmt: skip

#: An event of a camera, as Tonic has it: pixel, time in µs, and polarity as it is stored (1: brighter, in most).
EVENT = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", np.int8)])
_COCHLEA = 700  # channels of the Heidelberg sets
_NMNIST = (34, 34)  # columns and rows of N-MNIST
_DVS128 = (128, 128)


def event_dataset(
    name: str, train: tuple[Spikes, np.ndarray], test: tuple[Spikes, np.ndarray], *, scale: str = "times in s"
) -> ImageData:
    """Join events and labels of two splits; :func:`save_events` makes of it what a run reads.

    Raises
    ------
    DataError
        If labels are not integers from 0 on, one a sample, or the splits differ in channels.
    """
    arrays: dict[str, Any] = {}
    for split, (x, y) in (("train", train), ("test", test)):
        y = np.asarray(y)
        if y.shape != (len(x),) or not len(y) or y.dtype.kind not in "ui" or y.min() < 0:
            raise DataError(f"y_{split} of {name} must be {len(x)} integers from 0 on, one a sample.")
        arrays |= {f"x_{split}": x, f"y_{split}": y.astype(np.int64)}
    if train[0].n_neurons != test[0].n_neurons:
        raise DataError(
            f"{name} has {train[0].n_neurons} training and {test[0].n_neurons} test channels; they must be alike."
        )
    n_classes = 1 + max(int(arrays[key].max()) for key in ("y_train", "y_test"))
    classes = tuple(map(str, range(n_classes)))
    return ImageData(name, **arrays, class_names=classes, data_hash=hash_arrays(arrays), official=False, scale=scale)


def save_events(data: ImageData, path: str | Path) -> None:
    """Write a data set of events as the ``.npz`` that ``--dataset`` takes, see :mod:`bats_lab.data.events`."""
    arrays: dict[str, np.ndarray] = {"unit": np.array("s")}
    for split, x, y in (("train", data.x_train, data.y_train), ("test", data.x_test, data.y_test)):
        if not isinstance(x, Spikes):
            raise DataError(f"{data.name} holds images; it must hold events.")
        x = x.packed()
        arrays |= {f"sample_{split}": np.repeat(np.arange(len(x)), x.count), f"channel_{split}": x.neuron}
        arrays |= {f"time_{split}": x.times, f"y_{split}": y, "n_channels": np.array(x.n_neurons)}
    archive = io.BytesIO()
    np.savez_compressed(archive, **arrays)  # type: ignore[arg-type]
    write_whole(Path(path), archive.getbuffer())


def read_shd(folder: str | Path | None = None, *, name: str = "shd") -> ImageData:
    """Read ``shd_train.h5`` and ``shd_test.h5`` (or ``ssc_…``) of a folder; None: `name` in the data directory.

    Raises
    ------
    DataError
        As :func:`read_heidelberg`.
    """
    folder = data_directory() / name if folder is None else Path(folder)
    train, test = (read_heidelberg(folder / f"{name}_{split}.h5") for split in ("train", "test"))
    return event_dataset(name, train, test)


def read_heidelberg(path: str | Path) -> tuple[Spikes, np.ndarray]:
    """Read a file of the Spiking Heidelberg Digits or Spiking Speech Commands.

    The format is that of https://compneuro.net/posts/2019-spiking-heidelberg-digits (Cramer et al., 2022): HDF5 with
    ``spikes/times`` (seconds, 16-bit floats) and ``spikes/units`` (0 to 699), a list of each for each of ``labels``.

    Raises
    ------
    DataError
        If h5py is absent, or the file is missing, damaged or does not hold these; the message names the first fault.
    """
    try:
        import h5py
    except ImportError as error:
        raise DataError("Heidelberg files need h5py; install it with: pip install 'bats-lab[events]'.") from error
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    try:
        with h5py.File(path, "r") as file:
            absent = [key for key in ("spikes/times", "spikes/units", "labels") if key not in file]
            if absent:
                raise DataError(f"{path} lacks {', '.join(absent)}; files of SHD and SSC hold them.")
            times, units, labels = (file[key][:] for key in ("spikes/times", "spikes/units", "labels"))
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise DataError(f"{path} cannot be read as HDF5, it is damaged or cut short.") from error
    if any(values.dtype != object for values in (times, units)):
        raise DataError(f"spikes/times and spikes/units in {path} must be a list for each sample.")
    counts = [len(part) for part in times]
    if not len(labels) or len(times) != len(labels) or counts != [len(part) for part in units]:
        raise DataError(f"{path} must have as many times as units in each sample, and a list of each for each label.")
    time, unit = (np.concatenate(list(parts)) for parts in (times, units))
    if len(time) and np.nanmax(time) > 100:
        raise DataError(f"spikes/times in {path} goes to {np.nanmax(time):g}; it must be in seconds, below 100.")
    sample = np.repeat(np.arange(len(labels)), counts)
    return _spikes(sample, unit.astype(np.int64), time, len(labels), _COCHLEA, str(path)), labels.astype(np.int64)


def read_nmnist(folder: str | Path | None = None) -> ImageData:
    """Read ``Train/0/*.bin`` to ``Test/9/*.bin`` of N-MNIST; None: ``nmnist`` in the data directory.

    Raises
    ------
    DataError
        If a folder of a digit lacks files, or as :func:`read_nmnist_file`.
    """
    folder = data_directory() / "nmnist" if folder is None else Path(folder)
    splits = []
    for split in ("Train", "Test"):
        files = [(path, digit) for digit in range(10) for path in sorted((folder / split / str(digit)).glob("*.bin"))]
        absent = sorted(set(range(10)) - {digit for _, digit in files})
        if absent:
            raise DataError(f"{folder / split / str(absent[0])} has no .bin files; N-MNIST has some of each digit.")
        events = [read_nmnist_file(path) for path, _ in files]
        splits.append((from_structured(events, _NMNIST), np.array([digit for _, digit in files])))
    return event_dataset("nmnist", *splits, scale="times in us")


def read_nmnist_file(path: str | Path) -> np.ndarray:
    """Read a recording of N-MNIST, as an array of :data:`EVENT`.

    The format is that of https://www.garrickorchard.com/datasets/n-mnist (Orchard et al., 2015), 40 bits an event: 8 of
    x, 8 of y, 1 of polarity (1: brighter), 23 of the time in µs. A row of 240 is no event but adds 2¹³ µs to all times
    that follow, as in the authors' reader (event-Python).

    Raises
    ------
    DataError
        If the file is missing, cut short, or has a pixel that is not in 34 × 34.
    """
    raw = _bytes(path)
    if len(raw) % 5 or not raw:
        raise DataError(f"{path} has {len(raw)} bytes; an N-MNIST file has five for each event: it is cut short.")
    x, y, high, middle, low = np.frombuffer(raw, np.uint8).reshape(-1, 5).T.astype(np.int64)
    overflow = y == 240
    t = ((high & 127) << 16 | middle << 8 | low) + 2**13 * np.cumsum(overflow)
    return _recording(x, y, t, high >> 7, _NMNIST, path)[~overflow]


def read_aedat(path: str | Path) -> np.ndarray:
    """Read an AER-DAT 2.0 recording of a DVS128 (jAER's ``.aedat``), as an array of :data:`EVENT`.

    The format is that of iniVation's "AEDAT file formats" (AEDAT 2.0): lines from ``#`` on, the first ``#!AER-DAT2.0``,
    then big-endian pairs of a 32-bit address and a 32-bit time in µs. Of a DVS128's address bit 0 is polarity (as it is
    stored: 0 is brighter), bits 1 to 7 are x, 8 to 14 y; times count from the recording's first event. Bit 15 marks a
    special event (a trigger), which is left out.

    Raises
    ------
    DataError
        If the file is missing, of another version, cut short, of another camera, or goes back in time.
    """
    raw = _bytes(path)
    version = re.match(rb"#!AER-DAT(\d\.\d)", raw)
    if version is None or version[1] != b"2.0":
        said = version[1].decode() if version else "none"
        raise DataError(f"{path} says of its AER-DAT version: {said}; it must be 2.0.")
    start = 0
    while raw[start : start + 1] == b"#":
        end = raw.find(b"\n", start)
        start = len(raw) if end < 0 else end + 1
    if (len(raw) - start) % 8 or start == len(raw):
        raise DataError(f"{path} has {len(raw) - start} bytes of events; each takes eight: it is cut short.")
    address, t = np.frombuffer(raw, ">u4", offset=start).reshape(-1, 2).T.astype(np.int64)
    if (address > 0xFFFF).any():
        raise DataError(f"{path} has the address {address.max():#x}; a DVS128's must be at most 0xffff.")
    pixel = address < 0x8000
    address, t = address[pixel], t[pixel] - t[0]
    return _recording(address >> 1 & 127, address >> 8 & 127, t, address & 1, _DVS128, path)


def from_structured(
    recordings: Sequence[np.ndarray | str | Path], size: tuple[int, int] = _DVS128, *, unit: str = "us"
) -> Spikes:
    """Turn structured arrays with the fields x, y, t and p, those of Tonic, or ``.npy`` files of them, into events.

    Parameters
    ----------
    recordings : sequence of ndarray, str or Path
        One for each sample.
    size : (int, int)
        Columns and rows of the sensor.
    unit : str
        That of `t`; Tonic has µs.

    Returns
    -------
    Spikes
        On 2 · rows · columns channels, those of polarity 0 first.

    Raises
    ------
    DataError
        If there is no recording, or one lacks a field, has a pixel beyond the sensor or times that go back.
    """
    if not len(recordings):
        raise DataError("recordings is empty; there must be one at least.")
    columns, rows = size
    channels, times = [], []
    for i, one in enumerate(recordings):
        what = f"recording {i}"
        if isinstance(one, (str, Path)):
            what = str(one)
            try:
                one = np.load(one, allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise DataError(f"{what} cannot be read; it must be an .npy file.") from error
        if not {"x", "y", "t", "p"} <= set(one.dtype.names or ()):
            raise DataError(f"{what} has the fields {one.dtype.names}; it must have x, y, t and p.")
        x, y, p = (one[key].astype(np.int64) for key in "xyp")
        _check_recording(x, y, one["t"], p, size, what)
        channels.append((p * rows + y) * columns + x)
        times.append(to_seconds(one["t"], unit, what))
    sample = np.repeat(np.arange(len(times)), [len(part) for part in times])
    n_channels = 2 * rows * columns
    return _spikes(sample, np.concatenate(channels), np.concatenate(times), len(times), n_channels, "recordings")


def _bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def _recording(
    x: np.ndarray, y: np.ndarray, t: np.ndarray, p: np.ndarray, size: tuple[int, int], path: str | Path
) -> np.ndarray:
    """Return events as a structured array, once they are such; markers of N-MNIST (a row of 240) may be among them."""
    event = y != 240
    _check_recording(x[event], y[event], t[event], p[event], size, str(path))
    events = np.empty(len(x), EVENT)
    for name, values in (("x", x), ("y", y), ("t", t), ("p", p)):
        events[name] = values
    return events


def _check_recording(
    x: np.ndarray, y: np.ndarray, t: np.ndarray, p: np.ndarray, size: tuple[int, int], what: str
) -> None:
    """Refuse pixels beyond the sensor and times that go back."""
    for name, values, limit in (("x", x, size[0]), ("y", y, size[1]), ("p", p, 2)):
        if len(values) and (values.min() < 0 or values.max() >= limit):
            raise DataError(
                f"{name} in {what} goes from {values.min()} to {values.max()}; it must be 0 to {limit - 1}."
            )
    back = np.flatnonzero(t[1:] < t[:-1])
    if len(back):
        raise DataError(f"t in {what} goes back from {t[back[0]]} to {t[back[0] + 1]}; it must ascend.")


def _spikes(
    sample: np.ndarray, channel: np.ndarray, times: np.ndarray, n_samples: int, n_channels: int, what: str
) -> Spikes:
    """Build spikes; what is wrong with them is said of `what`."""
    try:
        return Spikes.from_events(sample, channel, times, n_samples=n_samples, n_neurons=n_channels)
    except ValueError as error:
        raise DataError(f"{what}: {error}") from error
