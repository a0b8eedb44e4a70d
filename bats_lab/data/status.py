"""Which data sets are there, and whether they are what was published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from bats_lab.data.readers import read_own, read_sound
from bats_lab.data.registry import DATASETS, IdxFile, dataset_info, find_files, made_file
from bats_lab.errors import DataError

__all__ = ["DatasetStatus", "FileStatus", "check_file", "list_datasets", "verify_dataset"]

# From best to worst; the state of a data set is the worst of its files.
_STATES = ("official", "found", "differs", "damaged", "missing")


class FileStatus(NamedTuple):
    """Where one file of a data set stands.

    The state is ``official``, ``differs`` (sound, but not as published), ``damaged``, ``missing``, or ``found``
    where the content was not looked at; `detail` says in a few words what is wrong or different.
    """

    file: str
    state: str
    detail: str = ""
    n_entries: int = 0  #: images or labels in it, where it was read


class DatasetStatus(NamedTuple):
    """Where a data set stands: ``embedded``, ``computed``, or the worst state of its files."""

    name: str
    description: str
    state: str
    files: tuple[FileStatus, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the data set can be loaded."""
        return self.state not in ("damaged", "missing")


def list_datasets(data_dir: str | Path | None = None) -> list[DatasetStatus]:
    """List the named data sets and whether their files are there, without reading them.

    Examples
    --------
    >>> [status.name for status in list_datasets()]
    ['mnist_small', 'mnist', 'fashion_mnist', 'emnist', 'yin_yang', 'japanese_vowels', 'spoken_digits']
    """
    return [
        _made_status(name, data_dir, lambda path: FileStatus(path.name, "found"))
        if info.made
        else _status(name, data_dir, lambda file, _: FileStatus(file.name, "found"))
        for name, info in DATASETS.items()
    ]


def verify_dataset(name: str, data_dir: str | Path | None = None) -> DatasetStatus:
    """Read all files of a named data set and compare them with what was published.

    Raises
    ------
    ValueError
        If there is no data set of that name.

    Examples
    --------
    >>> verify_dataset("mnist_small").state
    'embedded'
    """
    n_classes = len(dataset_info(name).class_names)
    if dataset_info(name).made:
        return _made_status(name, data_dir, _check_made)
    return _status(name, data_dir, lambda file, paths: check_file(file, paths, n_classes))


def check_file(file: IdxFile, paths: Sequence[Path], n_classes: int) -> FileStatus:
    """Read a file from where it lies, and say whether it is sound and official."""
    try:
        array, difference = read_sound(file, paths, n_classes)
    except DataError as error:
        return FileStatus(file.name, "damaged", str(error))
    return FileStatus(file.name, "differs" if difference else "official", difference, len(array))


def _check_made(path: Path) -> FileStatus:
    """Read a file that was made here."""
    try:
        arrays, _, _ = read_own(path)
    except DataError as error:
        return FileStatus(path.name, "damaged", str(error))
    return FileStatus(path.name, "found", n_entries=sum(len(arrays[f"y_{split}"]) for split in ("train", "test")))


def _made_status(name: str, data_dir: str | Path | None, examine: Callable[[Path], FileStatus]) -> DatasetStatus:
    """Look for the file of a data set that is made here, and `examine` it."""
    path = made_file(name, data_dir)
    command = f"'bats-lab data make {name}' makes it"
    status = examine(path) if path.is_file() else FileStatus(path.name, "missing", command)
    return DatasetStatus(name, dataset_info(name).description, status.state, (status,))


def _status(
    name: str, data_dir: str | Path | None, examine: Callable[[IdxFile, list[Path]], FileStatus]
) -> DatasetStatus:
    """Look for the files of a data set and `examine` each that is there."""
    info = dataset_info(name)
    if not info.files:
        return DatasetStatus(name, info.description, "computed" if info.make else "embedded")
    found = [(file, find_files(name, file, data_dir)) for file in info.files]
    files = [examine(file, paths) if paths else FileStatus(file.name, "missing", "not found") for file, paths in found]
    for i in range(0, len(files), 2):  # a split's images, and its labels
        pair = files[i : i + 2]
        counts = [status.n_entries for status in pair]
        if all(counts) and len(set(counts)) > 1:
            detail = f"{counts[0]} images but {counts[1]} labels"
            files[i : i + 2] = [
                status if status.state == "official" else status._replace(state="damaged", detail=detail)
                for status in pair
            ]
    return DatasetStatus(name, info.description, max((f.state for f in files), key=_STATES.index), tuple(files))
