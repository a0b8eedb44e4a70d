"""Named data sets as arrays: the embedded digits, full sets from a data directory or a mirror, one's own images.

A full data set lies in ``<data directory>/<name>/`` as the idx files of its original publication, compressed
by gzip or not. What is compared with the published checksums is the *uncompressed* content, since the
gzip wrapping differs between mirrors. No pickle is ever loaded.
"""

from __future__ import annotations

import difflib
import gzip
import hashlib
import io
import math
import os
import shutil
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from bats_lab.errors import DataError

__all__ = [
    "DATASETS",
    "DatasetInfo",
    "DatasetStatus",
    "FileStatus",
    "ImageData",
    "data_directory",
    "download_dataset",
    "known_dataset",
    "list_datasets",
    "load_dataset",
    "verify_dataset",
]

#: Environment variable that names the data directory.
ENVIRONMENT_VARIABLE = "BATS_LAB_DATA"

#: Labels of one's own images are below this number: a label is a class, not an identifier.
MAX_CLASSES = 10_000

#: Seconds after which a mirror that is silent is given up.
TIMEOUT = 30

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_DIGITS = tuple("0123456789")
_EMBEDDED = resources.files("bats_lab") / "data"
_SIDE = 28  # rows and columns of the images of every known data set


@dataclass(frozen=True)
class ImageData:
    """Images and labels of a data set.

    Attributes
    ----------
    name : str
        Name of the data set, or the path of the file it came from.
    x_train, x_test : ndarray of uint8, (n, rows, cols)
        Images, upright; 0 is background.
    y_train, y_test : ndarray of int64, (n,)
        Labels, from 0 on.
    class_names : tuple of str
        What the labels stand for.
    data_hash : str
        SHA-256 (hexadecimal) of the whole data set's images and labels, however many of them are taken.
    official : bool
        Whether this is what was published under that name.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]
    data_hash: str
    official: bool

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


@dataclass(frozen=True)
class IdxFile:
    """One official file: its name, which array it holds, and what is known of its content."""

    name: str
    array: str
    count: int
    md5: str | None = None


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a named data set.

    Attributes
    ----------
    description : str
        One line for people.
    class_names : tuple of str
        What the labels stand for.
    files : tuple of IdxFile
        The official files; none for the embedded data set.
    mirrors : tuple of str
        Where it can be downloaded: folders that hold the files, or zip archives (``.zip``) that contain them.
    transposed : bool
        Whether the files hold rows and columns of the images swapped.
    """

    description: str
    class_names: tuple[str, ...] = _DIGITS
    files: tuple[IdxFile, ...] = ()
    mirrors: tuple[str, ...] = ()
    transposed: bool = False


def _idx_files(prefix: tuple[str, str], counts: tuple[int, int], md5: Sequence[str | None]) -> tuple[IdxFile, ...]:
    """List the four files of a data set, in the order of `_ARRAYS`."""
    parts = [(p, kind) for p in prefix for kind in ("images-idx3", "labels-idx1")]
    return tuple(
        IdxFile(f"{p}-{kind}-ubyte.gz", array, counts[i // 2], md5[i])
        for i, ((p, kind), array) in enumerate(zip(parts, _ARRAYS, strict=True))
    )


#: The named data sets.
DATASETS: dict[str, DatasetInfo] = {
    "mnist_small": DatasetInfo("the first 10,000 training and 2,000 test digits of MNIST, shipped with the package"),
    "mnist": DatasetInfo(
        "MNIST handwritten digits, 60,000 and 10,000 images of 10 classes",
        files=_idx_files(
            ("train", "t10k"),
            (60_000, 10_000),
            (
                "6bbc9ace898e44ae57da46a324031adb",
                "a25bea736e30d166cdddb491f175f624",
                "2646ac647ad5339dbf082846283269ea",
                "27ae3e4e09519cfbb04c329615203637",
            ),
        ),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
    ),
    "fashion_mnist": DatasetInfo(
        "Fashion-MNIST articles of clothing, 60,000 and 10,000 images of 10 classes",
        class_names=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        files=_idx_files(
            ("train", "t10k"),
            (60_000, 10_000),
            (
                "f4a8712d7a061bf5bd6d2ca38dc4d50a",
                "9018921c3c673c538a1fc5bad174d6f9",
                "8181f5470baa50b63fa0f6fddb340f0a",
                "15d484375f8d13e6eb1aabb0c3f46965",
            ),
        ),
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        ),
    ),
    "emnist": DatasetInfo(
        "EMNIST Balanced handwritten digits and letters, 112,800 and 18,800 images of 47 classes",
        class_names=tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"),
        # Checksums of the uncompressed files are not published: the number of images tells the official split.
        files=_idx_files(("emnist-balanced-train", "emnist-balanced-test"), (112_800, 18_800), (None,) * 4),
        mirrors=(
            "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
            "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST/gzip.zip",
        ),
        transposed=True,
    ),
}


@dataclass(frozen=True)
class FileStatus:
    """Where one file of a data set stands.

    Attributes
    ----------
    file : str
        Official file name.
    path : Path or None
        Where it was found.
    state : str
        ``official``, ``differs`` (sound, but not the published content), ``damaged``, ``missing``, or ``found``
        where the content was not looked at.
    detail : str
        What is wrong or different, in a few words; empty where nothing is.
    """

    file: str
    path: Path | None
    state: str
    detail: str = ""


@dataclass(frozen=True)
class DatasetStatus:
    """Where a data set stands.

    Attributes
    ----------
    name, description : str
        Name and a line for people.
    state : str
        ``embedded``, or the worst state of its files: ``official``, ``found``, ``differs``, ``damaged``, ``missing``.
    directory : Path or None
        Folder in which its files are looked for; None for the embedded data set.
    files : tuple of FileStatus
        Its files.
    """

    name: str
    description: str
    state: str
    directory: Path | None
    files: tuple[FileStatus, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether the data set can be loaded."""
        return self.state not in ("damaged", "missing")


# From best to worst; the state of a data set is the worst of its files.
_STATES = ("official", "found", "differs", "damaged", "missing")


def data_directory(data_dir: str | Path | None = None) -> Path:
    """Return the folder that holds the full data sets; it need not exist.

    Parameters
    ----------
    data_dir : str, Path or None
        The folder; None: the environment variable ``BATS_LAB_DATA``, else a folder in the user's cache.
    """
    chosen = data_dir or os.environ.get(ENVIRONMENT_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("bats_lab") / "data"


def known_dataset(name: str) -> bool:
    """Return whether :func:`load_dataset` knows what is meant: a named data set, or an ``.npz`` file that exists."""
    return name in DATASETS or (_is_npz(name) and Path(name).expanduser().is_file())


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
        One of :data:`DATASETS`, or the path of an ``.npz`` file with the arrays ``x_train``, ``y_train``, ``x_test``
        and ``y_test``: images of shape (n, rows, cols) or (n, pixels), integers in 0..255 or floats in 0..1, and
        integer labels from 0 on.
    data_dir : str, Path or None
        Data directory, see :func:`data_directory`.
    n_train, n_test : int or None
        Number of training and test images taken, from the first on; None: all.
    download : bool
        Whether to download a full data set that is missing.
    progress : bool
        Whether a download shows a progress bar.

    Returns
    -------
    ImageData

    Raises
    ------
    ValueError
        If there is no data set of that name, or not as many images as asked for.
    DataError
        If a file is missing, damaged or of the wrong shape, or cannot be downloaded.

    Warns
    -----
    UserWarning
        If the data set is sound but not the one published under that name.

    Examples
    --------
    >>> data = load_dataset("mnist_small", n_train=500)
    >>> data.x_train.shape, data.x_test.shape, data.n_classes
    ((500, 28, 28), (2000, 28, 28), 10)
    """
    if _is_npz(name):
        arrays = _read_npz(Path(name).expanduser())
        class_names = tuple(str(i) for i in range(1 + max(int(arrays["y_train"].max()), int(arrays["y_test"].max()))))
        official = False
    elif name == "mnist_small":
        with resources.as_file(_EMBEDDED / "mnist_small.npz") as path:
            arrays = _read_npz(path)
        class_names, official = DATASETS[name].class_names, True
    else:
        arrays, differences = _read_idx_dataset(name, data_dir, download=download, progress=progress)
        class_names, official = DATASETS[name].class_names, not differences
        if differences:
            warnings.warn(
                f"{name} in {data_directory(data_dir) / name} is not the official data set ({'; '.join(differences)}): "
                f"results on it cannot be compared with published ones to the last digit.",
                stacklevel=2,
            )
    data_hash = _hash(arrays)
    for split, n in (("train", n_train), ("test", n_test)):
        _take_first(arrays, split, n, name)
    return ImageData(name=name, class_names=class_names, data_hash=data_hash, official=official, **arrays)


def list_datasets(data_dir: str | Path | None = None) -> list[DatasetStatus]:
    """List the named data sets and whether their files are there, without reading them.

    Examples
    --------
    >>> [status.name for status in list_datasets()]
    ['mnist_small', 'mnist', 'fashion_mnist', 'emnist']
    """
    return [_status(name, data_dir, lambda _file, path: FileStatus(path.name, path, "found")) for name in DATASETS]


def verify_dataset(name: str, data_dir: str | Path | None = None) -> DatasetStatus:
    """Read all files of a named data set and compare them with what was published.

    Parameters
    ----------
    name : str
        One of :data:`DATASETS`.
    data_dir : str, Path or None
        Data directory, see :func:`data_directory`.

    Raises
    ------
    ValueError
        If there is no data set of that name.

    Examples
    --------
    >>> verify_dataset("mnist_small").state
    'embedded'
    """
    n_classes = len(_info(name).class_names)
    return _status(name, data_dir, lambda file, path: _check_file(file, path, n_classes))


def download_dataset(
    name: str,
    data_dir: str | Path | None = None,
    *,
    progress: bool = True,
    mirrors: Sequence[str] | None = None,
) -> Path:
    """Download the files of a data set that are missing or damaged, and return their folder.

    A file appears in the folder whole, after its content was checked, or not at all.

    Parameters
    ----------
    name : str
        One of :data:`DATASETS`; the embedded one needs no download.
    data_dir : str, Path or None
        Data directory, see :func:`data_directory`.
    progress : bool
        Whether to show a progress bar.
    mirrors : sequence of str or None
        Where to look in place of the public mirrors: URLs of folders that hold the files or of zip archives
        (``.zip``) that contain them.

    Raises
    ------
    ValueError
        If there is no data set of that name.
    DataError
        If no mirror gives the files, or the folder cannot be written.
    """
    info = _info(name)
    folder = data_directory(data_dir) / name
    status = verify_dataset(name, data_dir)
    if status.ok:
        return folder if info.files else Path(str(_EMBEDDED))
    wanted = [f for f, s in zip(info.files, status.files, strict=True) if s.state in ("missing", "damaged")]
    sources = info.mirrors if mirrors is None else tuple(mirrors)
    tried = []
    with _temporary_folder(folder) as temporary:
        for mirror in sources:
            try:
                for file, path in _fetch_files(mirror, wanted, temporary, progress=progress):
                    found = _check_file(file, path, len(info.class_names))
                    if found.state != "official":
                        detail = found.detail.replace(f"{temporary}{os.sep}", "")
                        raise _MirrorError(f"not the official file: {detail.removesuffix('.')}")
                    os.replace(path, folder / file.name)
                    wanted = [f for f in wanted if f is not file]
                return folder
            except _MirrorError as error:
                tried.append(f"{mirror} ({error})")
    raise DataError(
        f"{name} could not be downloaded; tried {', '.join(tried) or 'no mirror'}; put the files by hand into "
        f"{folder}: {', '.join(f.name for f in info.files)}."
    )


def _info(name: str) -> DatasetInfo:
    if name in DATASETS:
        return DATASETS[name]
    near = difflib.get_close_matches(name, DATASETS, n=1)
    hint = f"; did you mean {near[0]}?" if near else "."
    raise ValueError(
        f"dataset is {name!r}; it must be one of {', '.join(DATASETS)}, or the path of an .npz file with your own "
        f"images{hint}"
    )


def _status(name: str, data_dir: str | Path | None, examine: Callable[[IdxFile, Path], FileStatus]) -> DatasetStatus:
    """Look for the files of a data set and `examine` each that is there."""
    info = _info(name)
    if not info.files:
        return DatasetStatus(name, info.description, "embedded", None)
    folder = data_directory(data_dir) / name
    files = tuple(
        FileStatus(file.name, None, "missing", "not found") if path is None else examine(file, path)
        for file, path in ((file, _find(folder, file)) for file in info.files)
    )
    worst = max((f.state for f in files), key=_STATES.index)
    return DatasetStatus(name, info.description, worst, folder, files)


def _find(folder: Path, file: IdxFile) -> Path | None:
    """Return the path of a file, compressed or not, or None."""
    for path in (folder / file.name, folder / file.name.removesuffix(".gz")):
        if path.is_file():
            return path
    return None


def _check_file(file: IdxFile, path: Path, n_classes: int) -> FileStatus:
    """Read a file and say whether it is sound and official."""
    try:
        _, difference = _read_idx(file, path, n_classes)
    except DataError as error:
        return FileStatus(file.name, path, "damaged", str(error))
    return FileStatus(file.name, path, "differs" if difference else "official", difference)


def _read_idx_dataset(
    name: str, data_dir: str | Path | None, *, download: bool, progress: bool
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the arrays of a full data set and what differs from the official one."""
    info = _info(name)
    folder = data_directory(data_dir) / name
    missing = [file.name for file in info.files if _find(folder, file) is None]
    if missing and download:
        download_dataset(name, data_dir, progress=progress)
    elif missing:
        raise DataError(
            f"{name} is not complete in {folder}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing."
        )
    arrays, differences = {}, []
    for file in info.files:
        path = _find(folder, file)
        if path is None:
            raise DataError(f"{file.name} has disappeared from {folder}.")
        try:
            arrays[file.array], difference = _read_idx(file, path, len(info.class_names))
        except DataError as error:
            advice = f"'bats-lab data download {name}' replaces files that are damaged"
            raise DataError(f"{str(error).removesuffix('.')}; {advice}.") from error
        if difference:
            differences.append(difference)
    for split in ("train", "test"):
        n_images, n_labels = len(arrays[f"x_{split}"]), len(arrays[f"y_{split}"])
        if n_images != n_labels:
            raise DataError(f"{name} in {folder} has {n_images} {split} images but {n_labels} {split} labels.")
        if info.transposed:
            arrays[f"x_{split}"] = np.ascontiguousarray(arrays[f"x_{split}"].transpose(0, 2, 1))
        arrays[f"y_{split}"] = arrays[f"y_{split}"].astype(np.int64)
    return arrays, differences


def _read_idx(file: IdxFile, path: Path, n_classes: int) -> tuple[np.ndarray, str]:
    """Return the array in an idx file and how it differs from the official one ("" if it does not).

    Raises DataError unless the file is whole and holds what it must: 28 x 28 images, or labels of the classes.
    """
    images = file.array.startswith("x")
    n_dims = 3 if images else 1
    try:
        with _open_idx(path) as stream:
            header = stream.read(4 + 4 * n_dims)
            magic = bytes([0, 0, 8, n_dims])
            if len(header) < 4 + 4 * n_dims:
                raise DataError(f"{path} is cut short: it ends within its header.")
            if header[:4] != magic:
                raise DataError(
                    f"{path} starts with {header[:4].hex()}; an idx file of its kind starts with {magic.hex()}."
                )
            shape = tuple(int(n) for n in np.frombuffer(header, ">u4", offset=4))
            if images and shape[1:] != (_SIDE, _SIDE):
                raise DataError(f"{path} has images of {shape[1]} x {shape[2]} pixels; they must be {_SIDE} x {_SIDE}.")
            if not shape[0]:
                raise DataError(f"{path} holds nothing.")
            # gzip compresses at most 1032 : 1; a header that claims more is damaged, and memory is not taken for it.
            size = math.prod(shape)
            content = np.empty(size if size <= 1032 * path.stat().st_size else 0, np.uint8)
            n_read = stream.readinto(memoryview(content)) if len(content) else 0
            if n_read < size or len(content) < size:
                raise DataError(f"{path} is cut short: its header promises {shape[0]} entries.")
            if stream.read(1):
                raise DataError(f"{path} goes on after the {shape[0]} entries that its header promises.")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is cut short or damaged: {_sentence(error)}.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {_sentence(error)}.") from error
    if not images and content.max() >= n_classes:
        raise DataError(f"{path} holds the label {content.max()}; labels must be below {n_classes}.")
    if shape[0] != file.count:
        return content.reshape(shape), f"{path.name} has {shape[0]:,} entries, the official one {file.count:,}"
    if file.md5 is not None:
        digest = hashlib.md5(header, usedforsecurity=False)
        digest.update(content)
        if digest.hexdigest() != file.md5:
            return content.reshape(shape), f"{path.name} has the MD5 {digest.hexdigest()}, the official one {file.md5}"
    return content.reshape(shape), ""


def _open_idx(path: Path) -> io.BufferedIOBase:
    """Open an idx file, compressed or not, whatever its name says."""
    with path.open("rb") as stream:
        compressed = stream.read(2) == b"\x1f\x8b"
    return gzip.GzipFile(path) if compressed else path.open("rb")


def _is_npz(name: str) -> bool:
    return name.endswith(".npz")


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """Return the four arrays of an ``.npz`` file, checked: uint8 images (n, rows, cols) and int64 labels (n,)."""
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is no .npz file, or it is cut short.")
    raw: dict[str, Any] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            absent = [key for key in _ARRAYS if key not in archive.files]
            if absent:
                raise DataError(f"{path} lacks {', '.join(absent)}; it must hold {', '.join(_ARRAYS)}.")
            for key in _ARRAYS:
                raw[key] = archive[key]
    except (ValueError, EOFError, OSError, MemoryError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {_sentence(error)}.") from error
    for key, array in raw.items():
        if not isinstance(array, np.ndarray) or not array.size:
            raise DataError(f"{key} in {path} is empty or no array.")
    # Floats up to 1 are brightness; whole numbers up to 255 are pixel values that were kept as floats.
    unit = max(float(raw["x_train"].max()), float(raw["x_test"].max())) <= 1 if _both_float(raw) else False
    arrays = {}
    for split in ("train", "test"):
        x, y = f"x_{split}", f"y_{split}"
        arrays[x] = _as_images(raw.pop(x), f"{x} in {path}", unit=unit)
        arrays[y] = _as_labels(raw.pop(y), f"{y} in {path}")
        if len(arrays[x]) != len(arrays[y]):
            raise DataError(f"{path} has {len(arrays[x])} {split} images but {len(arrays[y])} {split} labels.")
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        raise DataError(
            f"{path} has training images of {_pixels(arrays['x_train'])} and test images of "
            f"{_pixels(arrays['x_test'])} pixels; they must be alike."
        )
    return arrays


def _both_float(raw: dict[str, Any]) -> bool:
    return all(raw[key].dtype.kind == "f" for key in ("x_train", "x_test"))


def _pixels(images: np.ndarray) -> str:
    return " x ".join(str(n) for n in images.shape[1:])


def _as_images(array: np.ndarray, what: str, *, unit: bool) -> np.ndarray:
    """Return images as uint8 (n, rows, cols); with `unit` they are floats in 0..1."""
    if array.ndim not in (2, 3):
        raise DataError(f"{what} has the shape {array.shape}; it must be (n, rows, cols) or (n, pixels).")
    if array.dtype.kind not in "uif":
        raise DataError(f"{what} is of type {array.dtype}; it must hold integers in 0..255 or floats in 0..1.")
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):  # written so that NaN is refused, too
        raise DataError(f"{what} goes from {low} to {high}; it must hold integers in 0..255 or floats in 0..1.")
    if unit:
        array = np.rint(array * 255)
    elif array.dtype.kind == "f" and (array != np.rint(array)).any():
        raise DataError(f"{what} holds fractions but goes up to {high}; floats must be in 0..1 in both splits.")
    array = np.ascontiguousarray(array, dtype=np.uint8)
    if array.ndim == 2:
        side = math.isqrt(array.shape[1])
        array = array.reshape((-1, side, side) if side * side == array.shape[1] else (-1, 1, array.shape[1]))
    return array


def _as_labels(array: np.ndarray, what: str) -> np.ndarray:
    """Return labels as int64 (n,)."""
    if array.ndim != 1 or array.dtype.kind not in "ui":
        raise DataError(f"{what} has the shape {array.shape} and type {array.dtype}; it must be one integer an image.")
    if array.min() < 0 or array.max() >= MAX_CLASSES:
        raise DataError(
            f"{what} goes from {array.min()} to {array.max()}; labels must be classes counted from 0, "
            f"below {MAX_CLASSES:,}."
        )
    return array.astype(np.int64)


def _hash(arrays: dict[str, np.ndarray]) -> str:
    """Return the SHA-256 of shapes and contents of the four arrays."""
    digest = hashlib.sha256()
    for key in _ARRAYS:
        digest.update(repr(arrays[key].shape).encode())
        digest.update(arrays[key] if key.startswith("x") else arrays[key].astype("<i8"))
    return digest.hexdigest()


def _take_first(arrays: dict[str, np.ndarray], split: str, n: int | None, name: str) -> None:
    """Keep the first `n` images and labels of a split."""
    if n is None:
        return
    there = len(arrays[f"x_{split}"])
    if not 1 <= n <= there:
        raise ValueError(f"n_{split} is {n}; it must be from 1 to {there}, the {split} images of {name}.")
    for key in (f"x_{split}", f"y_{split}"):
        arrays[key] = arrays[key][:n]


class _MirrorError(Exception):
    """A mirror did not give what it should."""


@contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """Make a folder inside `folder` that is gone afterwards, and so is `folder` if it stayed empty."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(prefix=".download-", dir=folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {_sentence(error)}.") from error
    try:
        with temporary as path:
            yield Path(path)
    finally:
        with suppress(OSError):
            folder.rmdir()


def _fetch_files(
    mirror: str, files: Sequence[IdxFile], temporary: Path, *, progress: bool
) -> Iterator[tuple[IdxFile, Path]]:
    """Download files from a mirror one after the other, into a temporary folder."""
    if not mirror.endswith(".zip"):
        for file in files:
            _fetch(f"{mirror.removesuffix('/')}/{file.name}", temporary / file.name, progress=progress)
            yield file, temporary / file.name
        return
    path = temporary / "archive.zip"
    _fetch(mirror, path, progress=progress)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.rpartition("/")[2]: member for member in archive.infolist()}
            for file in files:
                if file.name not in members:
                    raise _MirrorError(f"the archive lacks {file.name}")
                with archive.open(members[file.name]) as source, (temporary / file.name).open("wb") as target:
                    shutil.copyfileobj(source, target)
                yield file, temporary / file.name
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise _MirrorError(f"the archive is damaged: {_sentence(error)}") from error
    finally:
        path.unlink(missing_ok=True)


def _fetch(url: str, path: Path, *, progress: bool) -> None:
    """Download one file."""
    import pooch
    import requests
    from tqdm.auto import tqdm

    # pooch asks a bar for its truth value, which needs a total; it sets the real one later.
    bar = tqdm(desc=url.rpartition("/")[2], total=1, unit="B", unit_scale=True, leave=False, disable=not progress)
    download = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16, timeout=TIMEOUT)
    try:
        download(url, str(path), None)
    except requests.HTTPError as error:
        answer = error.response
        raise _MirrorError(
            f"answered {answer.status_code} {answer.reason}" if answer is not None else _sentence(error)
        ) from error
    except requests.Timeout as error:
        raise _MirrorError(f"did not answer within {TIMEOUT} s") from error
    except requests.exceptions.ChunkedEncodingError as error:
        raise _MirrorError("the connection broke") from error
    except requests.ConnectionError as error:
        raise _MirrorError("cannot be reached") from error
    except (requests.RequestException, OSError, ValueError) as error:
        raise _MirrorError(_sentence(error)) from error
    finally:
        bar.close()


def _sentence(error: BaseException) -> str:
    """Return the first line of an error's message, or its name, without the full stop."""
    lines = str(error).splitlines()
    return (lines[0] if lines else type(error).__name__).removesuffix(".")
