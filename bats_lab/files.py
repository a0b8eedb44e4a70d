"""Files one can trust: written whole or not at all, sealed by a checksum, and read only where they are files at all.

A sealed file ends in 64 bytes: a mark with the number of the format, the version of the package that wrote it, the
length of the appendix before it, and the SHA-256 of all before. NetCDF and zip archives may be followed by other bytes,
so any program still opens them; what another program writes anew bears no seal.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import secrets
import stat
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from bats_lab import __version__

__all__ = [
    "SEAL_SIZE",
    "Seal",
    "check_archive",
    "most_unpacked",
    "newer_than_this",
    "open_arrays",
    "open_file",
    "read_seal",
    "read_sealed",
    "remove_leftovers",
    "save_arrays",
    "sealed",
    "write_whole",
]

_MARK, _FORMAT = b"bats_lab seal ", b"1\n"
#: Bytes of a seal: mark and format, version, SHA-256.
SEAL_SIZE = 64
_PIECE = 1 << 20
_PROCESS_START = time.time()
#: A temporary file is a leftover if it is this much older than the process, in seconds; others may be writing too.
_LEFTOVER_AGE = 600.0


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading; what else may lie there (a pipe, a device) is never waited for.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    OSError
        If it is no regular file or cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is no regular file")
    return os.fdopen(descriptor, "rb")


def write_whole(path: Path, content: bytes | memoryview, *, lasting: bool = True) -> None:
    """Write a file so that it exists whole or not at all, whatever happens; its folder is made if it is not there.

    With `lasting` the disk has it when this returns. Raises an OSError if it cannot be written; what was there before
    is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if lasting:
        with contextlib.suppress(OSError):  # not every system can flush a folder
            descriptor = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that killed processes left in a folder."""
    for path in folder.glob(".*.part"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < _PROCESS_START - _LEFTOVER_AGE:
                path.unlink()


# Seals


class Seal(NamedTuple):
    """What the seal of a file says, whose content is what was sealed."""

    version: str  #: of the package that wrote it
    appendix: bytes  #: what is in it beside what other programs read


def sealed(content: bytes | memoryview, appendix: bytes = b"") -> bytes:
    """Return content with its seal.

    Examples
    --------
    >>> read_seal(io.BytesIO(sealed(b"numbers", b"notes"))).appendix
    b'notes'
    """
    head = struct.pack("<16s8sQ", _MARK + _FORMAT, __version__.encode(), len(appendix))
    whole = b"".join([content, appendix, head])
    return whole + hashlib.sha256(whole).digest()


def read_seal(file: BinaryIO) -> Seal | None:
    """Return the seal of a file, once all before it is found to be what was sealed; None where there is no seal.

    Reading goes on at the start of the file.

    Raises
    ------
    ValueError
        If the content is not what was sealed, or the seal is of a newer format.
    """
    before = file.seek(0, io.SEEK_END) - SEAL_SIZE
    file.seek(max(before, 0))
    seal = file.read(SEAL_SIZE)
    file.seek(0)
    if before < 0 or not seal.startswith(_MARK):
        return None
    mark, version, length, wanted = struct.unpack("<16s8sQ32s", seal)
    if mark[len(_MARK) :] != _FORMAT:
        raise ValueError("it is of a newer version of bats_lab, or damaged; update bats_lab to open it")
    digest, left = hashlib.sha256(), before
    while left and (piece := file.read(min(left, _PIECE))):
        digest.update(piece)
        left -= len(piece)
    digest.update(seal[:32])
    if left or digest.digest() != wanted or length > before:
        raise ValueError("it is damaged: its content does not have the checksum it was written with")
    file.seek(before - length)
    appendix = file.read(length)
    file.seek(0)
    return Seal(version.rstrip(b"\0").decode("ascii", "replace"), appendix)


def read_sealed(path: Path) -> bytes:
    """Read the appendix of a file that has nothing else; a ValueError if there is no seal or it does not hold."""
    with open_file(path) as file:
        seal = read_seal(file)
    if seal is None:
        raise ValueError("it bears no seal")
    return seal.appendix


def newer_than_this(version: str | None) -> str:
    """Return what to add to the error of a file that a newer version wrote; nothing for any other."""
    own, other = ([int(n) for n in re.findall(r"\d+", text)] for text in (__version__, version or ""))
    if own >= other:
        return ""
    return f" (it was written by bats_lab {version}, newer than this {__version__}; update to open it)"


# Archives of arrays


def save_arrays(path: str | os.PathLike[str], **arrays: Any) -> None:
    """Write arrays to an ``.npz`` file that appears whole or not at all, and is sealed.

    Raises
    ------
    OSError
        If it cannot be written; what was there before is untouched.
    """
    archive = io.BytesIO()
    np.savez(archive, **arrays)
    # The seal is the archive's comment, of which the last two bytes before it give the length.
    write_whole(Path(path), sealed(archive.getvalue()[:-2] + struct.pack("<H", SEAL_SIZE)))


@contextmanager
def open_arrays(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open an ``.npz`` file that :func:`save_arrays` wrote, or a version before seals; no pickle is ever loaded.

    Yields
    ------
    numpy.lib.npyio.NpzFile

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    Exception
        Of any kind that NumPy raises, if it is damaged.
    """
    version = None
    try:
        # Opened here, since NumPy leaves a damaged file open.
        with open_file(path) as file:
            seal = read_seal(file)
            version = seal and seal.version
            check_archive(file, sealed=seal is not None)
            with np.load(file, allow_pickle=False) as arrays:
                yield arrays
    except Exception as error:
        if hint := newer_than_this(version):
            raise ValueError(f"{error}{hint}") from error
        raise


def most_unpacked(size: int) -> int:
    """Return how many bytes a compressed file of a size is allowed to hold; memory is not taken for more.

    A hundred times the size, of which black-and-white images kept as floats reach half; but where that is little
    memory, anything that can be compressed at all.
    """
    return min(1032 * size, max(100 * size, 1 << 26))


def check_archive(file: BinaryIO, *, sealed: bool | None = None) -> None:
    """Check, by the headers of an ``.npz`` file, that what it unpacks to stands in a sound relation to its size.

    Reading goes on at the start of the file. With `sealed`, whether it bears a seal, a comment is refused that is none.

    Raises
    ------
    ValueError
        If it holds something else than arrays, or they are larger than such a file can honestly hold.
    zipfile.BadZipFile, NotImplementedError
        If it is damaged.
    """
    size = file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        if sealed is False and archive.comment:
            raise ValueError("it is damaged: it bears no seal where one was written")
        members = archive.infolist()
        allowed = most_unpacked(size)
        if (unpacked := sum(member.file_size for member in members)) > allowed:
            raise ValueError(f"it unpacks to {unpacked / 1e6:,.0f} MB, which {size / 1e6:,.1f} MB cannot honestly hold")
        for member in members:
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"its {member.filename} is packed by another method than an .npz file's")
            with archive.open(member) as stream:
                shape, dtype = _array_header(stream)
                claimed = int(np.prod([int(n) for n in shape], dtype=object)) * dtype.itemsize
                if dtype.hasobject or claimed > member.file_size:
                    raise ValueError(f"its {member.filename} is no array of numbers or text, or is cut short")
    file.seek(0)


def _array_header(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read shape and type of an array in NumPy's format."""
    version = np.lib.format.read_magic(stream)
    readers: dict[Any, Callable[[Any], Any]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"an array in it is of NumPy's format {version}")
    shape, _, dtype = readers[version](stream)
    return shape, dtype
