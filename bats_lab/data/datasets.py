"""Data sets as arrays: the embedded digits, full sets from a data directory or a mirror, one's own images and events.

A full data set lies in ``<data directory>/<name>/`` as the idx files of its original publication, compressed
by gzip or not.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from bats_lab.data.download import download_dataset
from bats_lab.data.readers import read_npz, read_own, read_sound
from bats_lab.data.registry import (
    ARRAYS,
    DATASETS,
    EMBEDDED,
    data_directory,
    dataset_info,
    find_files,
    made_file,
    own_file,
)
from bats_lab.errors import DataError
from bats_lab.spikes.trains import Spikes

__all__ = ["ImageData", "hash_arrays", "keep_dataset", "known_dataset", "load_dataset"]


@dataclass(frozen=True)
class ImageData:
    """Images, or events, and labels of a data set."""

    name: str  #: name of the data set, or the path of the file it came from
    x_train: np.ndarray | Spikes  #: images, uint8 (n, rows, cols), upright, 0 is background; or events, float64
    y_train: np.ndarray  #: labels, int64 (n,), from 0 on
    x_test: np.ndarray | Spikes
    y_test: np.ndarray
    class_names: tuple[str, ...]  #: what the labels stand for
    data_hash: str  #: SHA-256 of the whole data set's images, or events, and labels, however many of them are taken
    official: bool  #: whether this is what was published under that name
    scale: str = "integers, 0 to 255"  #: as what its pixels, or times, were taken

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def summary(self) -> str:
        """What was loaded, and as what it was taken, in one line."""
        if isinstance(self.x_train, Spikes):
            count, last = np.mean(self.x_train.count), self.last_time
            what = f"samples of {self.x_train.n_neurons} channels, {count:.3g} spikes each until {last:.3g} s"
        else:
            what = "images of {} x {} pixels".format(*self.x_train.shape[1:])
        return (
            f"{self.name}: {len(self.x_train):,} training and {len(self.x_test):,} test {what} ({self.scale}), "
            f"{self.n_classes} classes"
        )

    @property
    def last_time(self) -> float:
        """Time of the last event of all, in seconds; 0 for images, whose spikes are where a run puts them."""
        return max(float(x.times.max(initial=0)) if isinstance(x, Spikes) else 0.0 for x in (self.x_train, self.x_test))


def known_dataset(name: str) -> bool:
    """Return whether :func:`load_dataset` knows what is meant: a named data set, or a file of one's own that exists."""
    return name in DATASETS or (own_file(name) and Path(name).expanduser().is_file())


def load_dataset(
    name: str,
    *,
    data_dir: str | Path | None = None,
    n_train: int | None = None,
    n_test: int | None = None,
    download: bool = True,
    progress: bool = True,
) -> ImageData:
    """Load a data set.

    Parameters
    ----------
    name : str
        One of :data:`bats_lab.data.registry.DATASETS`, or the path of an ``.npz`` file with the arrays ``x_train``,
        ``y_train``, ``x_test`` and ``y_test``: images of shape (n, rows, cols) or (n, pixels), with or without a
        channel; integers in 0..255, floats in 0..1 or bool, in both parts alike; and integer labels from 0 on. Or of an
        ``.npz`` or a ``.csv`` of events, see :mod:`bats_lab.data.events`.
    data_dir : str, Path or None
        Data directory, see :func:`bats_lab.data.registry.data_directory`.
    n_train, n_test : int or None
        Number of training and test samples taken, from the first on; None: all.
    download : bool
        Whether to download a full data set that is missing.
    progress : bool
        Whether a download shows a progress bar.

    Raises
    ------
    ValueError
        If there is no data set of that name, or not as many samples as asked for.
    DataError
        If a file is missing, damaged or of the wrong shape, or cannot be downloaded.

    Warns
    -----
    UserWarning
        If the data set is sound but not the one published under that name; if pixels of one's own are far from white,
        or there are classes without samples, with the likely cause.

    Examples
    --------
    >>> data = load_dataset("mnist_small", n_train=500)
    >>> data.x_train.shape, data.x_test.shape, data.n_classes
    ((500, 28, 28), (2000, 28, 28), 10)
    """
    key = (name, None if data_dir is None else str(data_dir), n_train, n_test)
    data, doubts = _kept.get(key) or _load(name, data_dir, n_train, n_test, download=download, progress=progress)
    for doubt in doubts:
        warnings.warn(doubt, stacklevel=2)
    return data


#: Data sets that stay in memory, and what is doubtful about them.
_kept: dict[tuple[str, str | None, int | None, int | None], tuple[ImageData, list[str]]] = {}


def keep_dataset(
    name: str, *, data_dir: str | None = None, n_train: int | None = None, n_test: int | None = None
) -> None:
    """Load a data set once for this process and those forked from it; arguments are those of :func:`load_dataset`."""
    _kept[name, data_dir, n_train, n_test] = _load(name, data_dir, n_train, n_test, download=False, progress=False)


def _load(
    name: str, data_dir: str | Path | None, n_train: int | None, n_test: int | None, *, download: bool, progress: bool
) -> tuple[ImageData, list[str]]:
    """Load a data set; return also what is doubtful about it, in sentences."""
    differences: list[str] = []
    doubts: list[str] = []
    scale = ImageData.scale
    if own_file(name):
        arrays, doubts, scale = read_own(Path(name).expanduser())
        n_classes = 1 + max(int(arrays["y_train"].max()), int(arrays["y_test"].max()))
        class_names = tuple(map(str, range(n_classes)))
        doubts += _classes_without_samples(arrays, class_names)
    else:
        info = dataset_info(name)
        class_names = info.class_names
        if info.make:
            arrays, scale = info.make(), "times in s"
        elif info.made:
            arrays, scale, differences = _read_made(name, data_dir)
        elif name == "mnist_small":
            with resources.as_file(EMBEDDED / "mnist_small.npz") as path:
                arrays, _, _ = read_npz(path)
        else:
            arrays, differences = _read_files(name, data_dir, download=download, progress=progress)
            differences += _classes_without_samples(arrays, class_names) if differences else []
    said = [f"{name}: {doubt}." for doubt in doubts]
    if differences:
        said.append(
            f"{name} in {data_directory(data_dir) / name} is not the official data set ({'; '.join(differences)}): "
            f"results on it cannot be compared with published ones to the last digit."
        )
    data_hash = hash_arrays(arrays)
    for split, n in (("train", n_train), ("test", n_test)):
        n_images = len(arrays[f"x_{split}"])
        if n is not None and not 1 <= n <= n_images:
            raise ValueError(f"n_{split} is {n}; it must be from 1 to {n_images}, the {split} samples of {name}.")
        arrays |= {key: arrays[key][:n] for key in (f"x_{split}", f"y_{split}")}
    official = name in DATASETS and not differences
    data = ImageData(name, **arrays, class_names=class_names, data_hash=data_hash, official=official, scale=scale)
    return data, said


def hash_arrays(arrays: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the four arrays of a data set, images or events, and labels."""
    digest = hashlib.sha256()  # of shapes and contents
    for key in ARRAYS:
        if isinstance(x := arrays[key], Spikes):
            x = x.packed()
            digest.update(repr((len(x), x.n_neurons, len(x.times))).encode())
            for values in (x.count.astype("<i8"), x.neuron.astype("<i4"), x.times.astype("<f8")):
                digest.update(values)
            continue
        digest.update(repr(x.shape).encode())
        digest.update(x if key.startswith("x") else x.astype("<i8"))
    return digest.hexdigest()


def _classes_without_samples(arrays: dict[str, Any], class_names: Sequence[str]) -> list[str]:
    """Name the classes without training samples and those without test samples, with the likely cause."""
    said, noun = [], "samples" if isinstance(arrays["x_train"], Spikes) else "images"
    train, test = (np.bincount(arrays[key], minlength=len(class_names)) > 0 for key in ("y_train", "y_test"))
    for absent, text in (
        (~train & ~test, f"no {noun} of {{}}"),
        (~train & test, f"only test {noun} of {{}}, which cannot be learned"),
        (train & ~test, f"only training {noun} of {{}}"),
    ):
        which = np.flatnonzero(absent)
        if len(which):
            names = ", ".join(class_names[i] for i in which[:5]) + (", …" if len(which) > 5 else "")
            said.append(text.format(f"{len(which)} of {len(class_names)} classes ({names})"))
    found = np.flatnonzero(train | test)
    if len(found) == 26 and found[0] == 1 and found[-1] == 26 and len(class_names) == 47:
        said[:1] = [f"{said[0]}: labels 1 to 26 are those of EMNIST Letters, so that the names are wrong, too"]
    elif found[0] == 1 and len(found) == len(class_names) - 1:
        said[:1] = [f"{said[0]}: labels count from 1; subtract 1"]
    elif len(found) < len(class_names):
        to = "np.unique(labels, return_inverse=True)[1]"
        said[:1] = [f"{said[0]}: labels have gaps; number the {len(found)} classes there are from 0, as {to} does"]
    return said


def _read_made(name: str, data_dir: str | Path | None) -> tuple[dict[str, Any], str, list[str]]:
    """Return the arrays of a data set that was made here, their scale, and what differs from the whole one."""
    path, info = made_file(name, data_dir), dataset_info(name)
    if not path.is_file():
        raise DataError(f"{name} is not in {path.parent}; 'bats-lab data make {name}' makes it, which takes hours.")
    arrays, _, scale = read_own(path)
    n_samples = len(arrays["y_train"]), len(arrays["y_test"])
    different = n_samples != info.n_samples
    text = "{:,} and {:,} samples, not {:,} and {:,}".format(*n_samples, *info.n_samples)
    return arrays, scale, [text] if different else []


def _read_files(
    name: str, data_dir: str | Path | None, *, download: bool, progress: bool
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the arrays of a full data set and what differs from the official one."""
    info = dataset_info(name)
    folder = data_directory(data_dir) / name
    missing = [file.name for file in info.files if not find_files(name, file, data_dir)]
    if missing:
        others = [path for file in info.files if file.name in missing and (path := folder.parent / file.name).is_file()]
        hint = (
            f"; found {others[0]}, which is not the official file: move it into {folder} if it is meant"
            if others
            else ""
        )
        if not download:
            raise DataError(
                f"{name} is not complete in {folder}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} "
                f"missing{hint}."
            )
        try:
            download_dataset(name, data_dir, progress=progress)
        except DataError as error:
            raise DataError(f"{str(error).removesuffix('.')}{hint}.") from error
    arrays, differences = {}, []
    for file in info.files:
        paths = find_files(name, file, data_dir)
        if not paths:
            raise DataError(f"{file.name} has disappeared from {folder}.")
        try:
            arrays[file.array], difference = read_sound(file, paths, len(info.class_names))
        except DataError as error:
            advice = f"'bats-lab data download {name}' replaces files that are damaged"
            raise DataError(f"{str(error).removesuffix('.')}; {advice}.") from error
        differences += [difference] if difference else []
    for split in ("train", "test"):
        x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
        if len(x) != len(y):
            raise DataError(
                f"{name} in {folder} has {len(x)} {split} images but {len(y)} {split} labels; "
                f"'bats-lab data download {name}' replaces them."
            )
        if info.transposed:
            arrays[f"x_{split}"] = np.ascontiguousarray(x.transpose(0, 2, 1))
        arrays[f"y_{split}"] = y.astype(np.int64)
    return arrays, differences
