"""Readers of the formats data come in, idx files and ``.npz`` archives. No pickle is ever loaded."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from bats_lab.data.events import EVENT_ARRAYS, read_event_arrays, read_event_table
from bats_lab.data.registry import ARRAYS, IdxFile
from bats_lab.errors import DataError
from bats_lab.files import check_archive, most_unpacked, open_file

__all__ = ["first_line", "read_idx", "read_npz", "read_own", "read_sound"]

#: Labels of one's own images are below this number: a label is a class, not an identifier.
MAX_CLASSES = 10_000

_SIDE = 28  # rows and columns of the images of every known data set


def read_idx(file: IdxFile, path: Path, n_classes: int) -> tuple[np.ndarray, str]:
    """Read an idx file, and compare its uncompressed content with what was published.

    Parameters
    ----------
    file : IdxFile
        Which file it should be.
    path : Path
        Where it lies, compressed by gzip or not, whatever its name says.
    n_classes : int
        Labels must be below it.

    Returns
    -------
    array : ndarray of uint8, (n, 28, 28) or (n,)
        Images or labels.
    difference : str
        How they differ from the official ones; empty if they do not.

    Raises
    ------
    DataError
        Unless the file is whole and holds what it must: 28 x 28 images, or labels of the classes.
    """
    images = file.array.startswith("x")
    n_dims = 3 if images else 1
    magic = bytes([0, 0, 8, n_dims])
    try:
        with _open_idx(path) as (stream, most):
            header = stream.read(4 + 4 * n_dims)
            if len(header) < 4 + 4 * n_dims:
                raise DataError(f"{path} is cut short: it ends within its header.")
            if header[:4] != magic:
                page = f" is {page}: it" if (page := _web_page(header)) else ""
                raise DataError(
                    f"{path}{page} starts with {header[:4].hex()}; an idx file of its kind starts with {magic.hex()}."
                )
            shape = tuple(int(n) for n in np.frombuffer(header, ">u4", offset=4))
            if images and shape[1:] != (_SIDE, _SIDE):
                raise DataError(f"{path} has images of {shape[1]} x {shape[2]} pixels; they must be {_SIDE} x {_SIDE}.")
            if not shape[0]:
                raise DataError(f"{path} holds nothing.")
            # A header that claims more than there can be is damaged, and memory is not taken for it.
            possible = math.prod(shape) <= most
            content = np.empty(math.prod(shape) if possible else 0, np.uint8)
            if not possible or stream.readinto(memoryview(content)) < len(content):
                raise DataError(f"{path} is cut short: its header promises {shape[0]} entries.")
            if stream.read(1):
                raise DataError(f"{path} goes on after the {shape[0]} entries that its header promises.")
    except (EOFError, zlib.error, gzip.BadGzipFile, struct.error) as error:
        raise DataError(f"{path} is cut short or damaged: {first_line(error)}.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {first_line(error)}.") from error
    if not images and content.max() >= n_classes:
        raise DataError(f"{path} holds the label {content.max()}; labels must be below {n_classes}.")
    difference = ""
    if shape[0] != file.count:
        difference = f"{path.name} has {shape[0]:,} entries, the official one {file.count:,}"
    elif file.md5 is not None:
        digest = hashlib.md5(header, usedforsecurity=False)
        digest.update(content)
        if digest.hexdigest() != file.md5:
            difference = f"{path.name} has the MD5 {digest.hexdigest()}, the official one {file.md5}"
    elif file.sha256 is not None:
        with open_file(path) as whole:
            found = hashlib.sha256(whole.read()).hexdigest()
        if found != file.sha256:
            difference = f"{path.name} has the SHA-256 {found}, the official one, compressed, {file.sha256}"
    return content.reshape(shape), difference


def read_sound(file: IdxFile, paths: Sequence[Path], n_classes: int) -> tuple[np.ndarray, str]:
    """Read a file from the first of several places where it is sound, as :func:`read_idx` does.

    If it is so nowhere, what is wrong with the first is raised.
    """
    errors = []
    for path in paths:
        try:
            return read_idx(file, path, n_classes)
        except DataError as error:
            errors.append(error)
    raise errors[0]


@contextmanager
def _open_idx(path: Path) -> Iterator[tuple[io.BufferedIOBase, int]]:
    """Open an idx file, compressed or not; with it comes how many bytes it can honestly hold."""
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not compressed:
            yield cast(io.BufferedIOBase, file), size
            return
        with gzip.GzipFile(fileobj=file) as stream:
            yield stream, most_unpacked(size)


def read_own(path: Path) -> tuple[dict[str, Any], list[str], str]:
    """Read a file of one's own: a table of events (``.csv``), or what :func:`read_npz` reads."""
    if path.suffix != ".csv":
        return read_npz(path)
    arrays, scale = read_event_table(path)
    return _with_labels(arrays, path), [], scale


def read_npz(path: Path) -> tuple[dict[str, Any], list[str], str]:
    """Read the four arrays of an ``.npz`` file, or those of events.

    Returns
    -------
    arrays : dict of str to ndarray or Spikes
        uint8 images (n, rows, cols), or events, and int64 labels (n,).
    doubts : list of str
        What is allowed but hardly meant, a sentence each.
    scale : str
        As what the pixels, or times, were taken.

    Raises
    ------
    DataError
        If the file is no such archive, or its arrays are no images or events and labels; the message names the first
        fault.
    """
    try:
        with open_file(path) as file:
            if not zipfile.is_zipfile(file):
                file.seek(0)
                page = _web_page(file.read(64)) or "no .npz file, or it is cut short"
                raise DataError(f"{path} is {page}.")
            check_archive(file)
            with np.load(file, allow_pickle=False) as archive:
                events = any(key.startswith(("sample_", "channel_", "time_")) for key in archive.files)
                absent = [key for key in ARRAYS if key not in archive.files]
                if absent and not events:
                    raise DataError(f"{path} lacks {', '.join(absent)}; it must hold {', '.join(ARRAYS)}.")
                wanted = (*EVENT_ARRAYS, "unit", "n_channels") if events else ARRAYS
                raw = {key: archive[key] for key in wanted if key in archive.files}
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}.") from error
    except DataError:
        raise
    except Exception as error:  # the libraries raise all kinds of errors on a damaged file
        raise DataError(f"{path} cannot be read: {first_line(error)}.") from error
    for key, array in raw.items():
        if not isinstance(array, np.ndarray) or not array.size:
            raise DataError(f"{key} in {path} is empty or no array.")
    if events:
        arrays, scale = read_event_arrays(raw, path)
        return _with_labels(arrays, path), [], scale
    images, scale, doubts = _as_images({key: raw[key] for key in ("x_train", "x_test")}, path)
    arrays = _with_labels(raw | images, path)
    train, test = (" x ".join(map(str, images[key].shape[1:])) for key in ("x_train", "x_test"))
    if train != test:
        raise DataError(f"{path} has training images of {train} and test images of {test} pixels; they must be alike.")
    return arrays, doubts, scale


def _with_labels(arrays: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the four arrays once labels are such, one for each sample."""
    arrays = arrays | {key: _as_labels(arrays[key], f"{key} in {path}") for key in ("y_train", "y_test")}
    for split in ("train", "test"):
        n_images, n_labels = len(arrays[f"x_{split}"]), len(arrays[f"y_{split}"])
        if n_images != n_labels:
            raise DataError(f"{path} has {n_images} {split} images but {n_labels} {split} labels.")
    return {key: arrays[key] for key in ARRAYS}


class _Scale(NamedTuple):
    """As what the numbers of images are taken."""

    text: str
    white: float


_MASK, _UNIT, _BYTE = _Scale("bool, black and white", 1), _Scale("floats, 0 to 1", 1), _Scale("integers, 0 to 255", 255)


def _as_images(raw: dict[str, np.ndarray], path: Path) -> tuple[dict[str, np.ndarray], str, list[str]]:
    """Return the images of both splits as uint8 (n, rows, cols), as what their pixels were taken, and doubts."""
    images = {key: _upright(array, f"{key} in {path}") for key, array in raw.items()}
    brightest = {key: float(array.max()) for key, array in images.items()}
    # Floats up to 1 are brightness; whole numbers up to 255 are pixel values that were kept as floats.
    scales = {
        key: _MASK if array.dtype.kind == "b" else _UNIT if array.dtype.kind == "f" and brightest[key] <= 1 else _BYTE
        for key, array in images.items()
    }
    lit = [key for key in images if brightest[key]] or ["x_train"]  # a black split is of any scale
    scale, top, dimmest = scales[lit[0]], max(brightest.values()), min(brightest[key] for key in lit)
    if len({scales[key] for key in lit}) > 1 or (scale is _BYTE and dimmest == 1 < top):
        both = ", ".join(f"{key} as {scales[key].text} with the brightest {brightest[key]:g}" for key in images)
        raise DataError(f"The images in {path} are of different scales: {both}; both splits must be of one.")
    for key, array in images.items():
        if scale is _BYTE and array.dtype.kind == "f" and (array != np.rint(array)).any():
            raise DataError(
                f"{key} in {path} holds fractions but goes up to {brightest[key]:g}; floats must be in 0..1 in both "
                f"splits."
            )
    doubts = []
    if not top:
        doubts.append("all pixels are 0, so that no input neuron ever spikes")
    elif top < scale.white / 2:
        late = 100 * (1 - round(255 * top / scale.white) / 255)
        doubts.append(
            f"pixels were taken as {scale.text}, and the brightest is {top:g} of {scale.white:g}: first input spike at "
            f"{late:.{1 if late > 99 else 0}f} of 100 ms; multiply by {scale.white:g}/{top:g} if {top:g} is white"
        )
    if 4 * dimmest < top:
        both = " and ".join(f"{brightest[key]:g} in {key}" for key in images)
        doubts.append(f"the brightest pixel is {both}: both splits must be of one scale")
    factor = 255 / scale.white
    pixels = {key: np.ascontiguousarray(np.rint(x * factor), dtype=np.uint8) for key, x in images.items()}
    return pixels, f"{scale.text}, the brightest {top:g}", doubts


def _upright(array: np.ndarray, what: str) -> np.ndarray:
    """Return images as (n, rows, cols) in the type they came in, once their numbers are in range."""
    shape = array.shape
    if array.ndim == 4 and 1 in (shape[3], shape[1]):  # one channel, last or first
        array = array[..., 0] if shape[3] == 1 else array[:, 0]
    if array.ndim not in (2, 3):
        raise DataError(
            f"{what} has the shape {shape}; it must be (n, rows, cols), (n, pixels), (n, rows, cols, 1) or "
            f"(n, 1, rows, cols)."
        )
    if array.dtype.kind not in "uifb":
        raise DataError(f"{what} is of type {array.dtype}; it must hold integers in 0..255, floats in 0..1 or bool.")
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):  # written so that NaN is refused, too
        raise DataError(f"{what} goes from {low} to {high}; it must hold integers in 0..255 or floats in 0..1.")
    if array.ndim == 2:
        side = math.isqrt(array.shape[1])
        array = array.reshape((-1, side, side) if side * side == array.shape[1] else (-1, 1, array.shape[1]))
    return array


def _as_labels(array: np.ndarray, what: str) -> np.ndarray:
    """Return labels as int64 (n,)."""
    shape = array.shape
    if array.ndim == 2 and shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "ui":
        raise DataError(f"{what} has the shape {shape} and type {array.dtype}; it must be one integer a sample.")
    if array.min() < 0 or array.max() >= MAX_CLASSES:
        raise DataError(
            f"{what} goes from {array.min()} to {array.max()}; labels must be classes counted from 0, "
            f"below {MAX_CLASSES:,}."
        )
    return array.astype(np.int64)


def _web_page(content: bytes) -> str:
    """Say so if a file that should hold data starts as a web page does; else return an empty text."""
    start = content.lstrip(b"\xef\xbb\xbf \t\r\n")
    return "a web page, saved in place of the data" if start.startswith(b"<") else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its name, without the full stop."""
    lines = str(error).splitlines()
    return (lines[0] if lines else type(error).__name__).removesuffix(".")
