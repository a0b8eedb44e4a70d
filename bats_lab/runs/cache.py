"""The small part of a run, all but weights and spikes: in the appendix of the run's file, and in ``.cache``.

NetCDF takes 10 ms to open a run, the appendix less than one; but the seal that vouches for it is of the whole file. So
a copy is kept in ``.cache`` beside it. That holds nothing that the file does not: it may be deleted at any time, and is
made anew where it is missing, damaged, or not of the file as it is now.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bats_lab.config import Config
from bats_lab.files import read_sealed, remove_leftovers, sealed, write_whole

__all__ = ["Layout", "SmallRun", "clean_cache", "layout_of", "read_cache", "write_cache"]

_FOLDER = ".cache"
_FORMAT = 2


@dataclass(frozen=True, eq=False)
class Layout:
    """What the small parts of most runs of a sweep have in common; there is one for all that do."""

    text: str  #: the same as JSON
    coords: dict[str, np.ndarray]  #: all but those that tell runs apart
    numbers: np.dtype[Any]  #: names, types and shapes of the variables that are no text


@functools.lru_cache(maxsize=4096)
def layout_of(text: str) -> Layout:
    """Read a layout, the same for the same text."""
    parsed = json.loads(text)
    numbers = np.dtype([(name, dtype, tuple(shape)) for name, dtype, shape in parsed["numbers"]])
    if numbers.hasobject:
        raise ValueError("numbers are no objects")
    return Layout(text, {name: np.array(labels) for name, labels in parsed["coords"].items()}, numbers)


@dataclass(frozen=True, eq=False)
class SmallRun:
    """The small variables of one run, without the dimensions that tell runs apart."""

    path: Path
    layout: Layout
    texts: dict[str, Any]  #: by variable a text, or a list of them
    numbers: bytes  #: the others, one after the other
    large: tuple[str, ...]  #: variables that the file has beside these

    @classmethod
    def of(
        cls, path: Path, coords: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray], large: tuple[str, ...]
    ) -> SmallRun:
        """Put together the small part of a run."""
        numbers = {name: value for name, value in values.items() if value.dtype.kind != "U"}
        layout = {
            "coords": {name: labels.tolist() for name, labels in coords.items()},
            "numbers": [[name, value.dtype.str, value.shape] for name, value in numbers.items()],
        }
        texts = {name: value.tolist() for name, value in values.items() if name not in numbers}
        content = b"".join(value.tobytes() for value in numbers.values())
        return cls(path, layout_of(json.dumps(layout)), texts, content, large)

    def packed(self) -> bytes:
        """Return all but the path, for :meth:`unpacked`."""
        own = json.dumps({"large": self.large, "texts": self.texts})
        return b"\n".join([self.layout.text.encode(), own.encode(), self.numbers])

    @classmethod
    def unpacked(cls, path: Path, content: bytes) -> SmallRun:
        """Make a run of what :meth:`packed` returned; raise an error of any kind if it is nothing such."""
        layout, own, numbers = content.split(b"\n", 2)
        about = json.loads(own)
        run = cls(path, layout_of(layout.decode()), about["texts"], numbers, tuple(about["large"]))
        if len(numbers) != run.layout.numbers.itemsize:
            raise ValueError("the numbers are not as many as they should be")
        return run

    @functools.cached_property
    def config(self) -> Config:
        """Parameters of the run."""
        return Config.from_json(self.texts["config"])


def _fingerprint(path: Path) -> list[int]:
    status = path.stat()
    return [_FORMAT, status.st_size, status.st_mtime_ns]


def write_cache(run: SmallRun) -> None:
    """Keep a copy of a run's small part; a folder in which one may not write stays without."""
    with contextlib.suppress(OSError):
        content = json.dumps(_fingerprint(run.path)).encode() + b"\n" + run.packed()
        write_whole(run.path.parent / _FOLDER / run.path.name, sealed(b"", content), lasting=False)


def read_cache(path: Path) -> SmallRun | None:
    """Read the copy of a run's small part; None where there is none that is sound and of this very file."""
    try:
        fingerprint, content = read_sealed(path.parent / _FOLDER / path.name).split(b"\n", 1)
        return SmallRun.unpacked(path, content) if json.loads(fingerprint) == _fingerprint(path) else None
    except Exception:  # whatever is wrong with it, the run's file says the same
        return None


def clean_cache(folder: Path) -> None:
    """Remove copies of runs that are gone."""
    cache = folder / _FOLDER
    remove_leftovers(cache)
    for copy in cache.glob("run-*"):
        with contextlib.suppress(OSError):
            if not (folder / copy.name).exists():
                copy.unlink()
