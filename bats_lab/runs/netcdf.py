"""NetCDF files, read so that none can be misread, block or crash who reads it.

The library believes what it reads: a few altered bytes make it loop for ever, or take all memory. So a file is handed
to it once its seal holds. A file without one (of another program, or of before there were seals) is read by a process
of its own, which is ended if it does not answer, and its numbers come back through a pipe.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from bats_lab.errors import ResultsError
from bats_lab.files import newer_than_this, open_file, read_seal, sealed, write_whole

__all__ = ["NETCDF", "Stored", "StoredVariable", "read_netcdf", "write_netcdf"]

#: To be held while NetCDF works: the library crashes when two threads are in it, as those of an explorer can be.
NETCDF = threading.RLock()

#: Seconds in which a file without a seal has to be read, and one more for each of so many bytes.
_PATIENCE, _BYTES_A_SECOND = 5, 20_000_000
#: What such a file unpacks to is at most so many times its size; files of runs reach a fifth of it.
_MOST_UNPACKED, _ALWAYS_UNPACKED = 64, 1 << 24
#: Memory is written out in blocks of this size, of which the end says nothing.
_BLOCK = 1 << 16


class StoredVariable(NamedTuple):
    """One variable as a file has it, not decoded; what was skipped is zeros that take no memory."""

    dims: tuple[str, ...]
    values: np.ndarray  #: text is of NumPy's text type
    attrs: dict[str, Any]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return self.values.dtype


class Stored(NamedTuple):
    """What was read from a file."""

    attrs: dict[str, Any]
    variables: dict[str, StoredVariable]
    version: str | None = None  #: of the package that sealed it; None where it bears no seal


#: Indices of what is wanted of a variable: whole numbers, slices or arrays.
Part = tuple[Any, ...]


def read_netcdf(path: Path, *, skip: Collection[str] = (), parts: Mapping[str, Part] | None = None) -> Stored:
    """Read a NetCDF file.

    Parameters
    ----------
    path : Path
        The file.
    skip : collection of str
        Variables of which only dimensions, type and attributes are wanted.
    parts : mapping of str to tuple, or None
        The variables that are wanted, and what of each: an index for each of its dimensions; None: all, whole.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ResultsError
        If it is no regular file, is damaged, is of a newer version, or cannot be read for whatever reason.
    """
    version = None
    try:
        with open_file(path) as file:
            version = _sealed_by(file)
            size = os.fstat(file.fileno()).st_size
            if version is None:
                _check_end(file, size)
        if version is None:
            with _READER.lock:
                return _READER.read(path, size, skip, parts)
        with NETCDF:
            return _read(path, skip, parts)._replace(version=version)
    except FileNotFoundError:
        raise
    except Exception as error:  # the libraries raise all kinds of errors on a damaged file
        what = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ResultsError(f"{path} cannot be read as results: {what}{newer_than_this(version)}") from error


#: Of files that were read, by what changes when they do.
_SEALS: dict[tuple[int, ...], str | None] = {}


def _sealed_by(file: BinaryIO) -> str | None:
    """Return the version that sealed a file, without reading one again that was found sound and is unchanged."""
    status = os.fstat(file.fileno())
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if key not in _SEALS:
        seal = read_seal(file)
        if len(_SEALS) >= 4096:
            _SEALS.clear()
        _SEALS[key] = seal and seal.version
    return _SEALS[key]


def _check_end(file: BinaryIO, size: int) -> None:
    """Refuse a file that goes on after the end that its head names, as one whose seal is damaged does."""
    file.seek(0)
    head = file.read(48)
    if head[:8] == b"\x89HDF\r\n\x1a\n" and len(head) == 48:
        (end,) = struct.unpack_from("<Q", head, 28 if head[8] >= 2 else 40)
        if size > end and size % _BLOCK:
            raise ValueError("it is damaged: it goes on after its end")


def write_netcdf(path: Path, dataset: Any, encoding: Any, appendix: bytes = b"") -> None:
    """Write an :class:`xarray.Dataset` into a sealed file, whole or not at all."""
    with NETCDF:
        image = memoryview(dataset.to_netcdf(None, engine="netcdf4", format="NETCDF4", encoding=encoding))
    (end,) = struct.unpack_from("<Q", image, 28)  # of what counts; the block goes on with what was in memory before
    write_whole(path, sealed(image[:end], appendix))


def _read(path: Path, skip: Collection[str], parts: Mapping[str, Part] | None, limit: int | None = None) -> Stored:
    import netCDF4

    with netCDF4.Dataset(path) as opened:
        opened.set_auto_maskandscale(False)
        if opened.groups:
            raise ValueError("it holds groups, as no results do")
        if parts is not None and (absent := [name for name in parts if name not in opened.variables]):
            raise ValueError(f"it has no variable {absent[0]!r}")
        listed = {n: v for n, v in opened.variables.items() if parts is None or n in parts}
        if limit is not None:
            sizes = {n: math.prod(v.shape) * getattr(v.dtype, "itemsize", 8) for n, v in listed.items()}
            unpacked = sum(size for n, size in sizes.items() if n not in skip)
            if unpacked > limit:
                raise ValueError(f"it is damaged: it claims to hold {unpacked / 1e6:,.0f} MB")
        variables = {}
        for name, variable in listed.items():
            if name in skip:
                values = np.broadcast_to(np.zeros((), variable.dtype), variable.shape)
            else:
                values = np.asarray(variable[... if parts is None else parts[name]])
            if values.dtype == object:
                longest = max((len(str(text)) for text in values.flat), default=0)
                if limit is not None and 4 * longest * values.size > limit:
                    raise ValueError(f"it is damaged: {name!r} holds a text of {longest:,} characters")
                values = values.astype(str)
            attrs = {key: variable.getncattr(key) for key in variable.ncattrs()}
            dims = variable.dimensions
            if attrs.pop("_Encoding", None) and values.dtype.kind == "U":  # characters, which the library joined
                dims = dims[:-1]
            variables[name] = StoredVariable(dims, values, attrs)
        return Stored({key: opened.getncattr(key) for key in opened.ncattrs()}, variables)


# The process that reads files without a seal


_SERVE = "import sys; sys.path[:] = sys.argv[1:]; from bats_lab.runs import netcdf; netcdf.serve()"


class _Reader:
    """A process that reads files, started when the first is to be read and ended with this one."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def read(self, path: Path, size: int, skip: Collection[str], parts: Mapping[str, Part] | None) -> Stored:
        """Let the process read a file; if it does not answer, it is ended, and the next file gets another."""
        patience = _PATIENCE + size // _BYTES_A_SECOND
        told = None if parts is None else {name: _told(part) for name, part in parts.items()}
        asked = [os.path.abspath(path), size, patience, sorted(skip), told]
        process = self._started()
        assert process.stdin and process.stdout
        try:
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                process.wait()
                timed_out = process.returncode == -signal.SIGALRM
                raise ValueError(
                    f"it is damaged: reading it {f'took more than {patience} s' if timed_out else 'breaks NetCDF'}"
                )
            return _unpacked(json.loads(answer), process.stdout)
        except BaseException as error:  # an answer that was not read to its end would be taken for the next one's
            if not isinstance(error, _Refused):
                self.end()
            raise

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None or self._owner != os.getpid():
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, *sys.path],
                stdin=pipe,
                stdout=pipe,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._owner = os.getpid()
            atexit.register(self.end)
        return self._process

    def end(self) -> None:
        """End the process, if it is one of this one's."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()


_READER = _Reader()


class _Refused(ValueError):
    """The process answered, and says that a file cannot be read."""


def serve() -> None:
    """Read the files whose names come in, and send back what they hold, until nobody asks any more."""
    import netCDF4  # noqa: F401  # so that the first file does not wait for it

    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    for line in sys.stdin.buffer:
        path, size, patience, skip, parts = json.loads(line)
        _limit_memory((1 << 29) + 8 * size)
        signal.alarm(patience)  # the system ends this process then, wherever it hangs
        try:
            limit = max(_MOST_UNPACKED * size, _ALWAYS_UNPACKED)
            wanted = None if parts is None else {name: _part(part) for name, part in parts.items()}
            head, numbers = _packed(_read(Path(path), skip, wanted, limit))
        except Exception as error:  # the libraries raise all kinds of errors on a damaged file
            head, numbers = {"error": str(error) or type(error).__name__}, b""
        signal.alarm(0)
        out.write(json.dumps(head).encode() + b"\n" + numbers)
        out.flush()


def _limit_memory(more: int) -> None:
    """Let this process take so many bytes more than it has, where the system can tell and limit that."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + more, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _packed(stored: Stored) -> tuple[dict[str, Any], bytes]:
    """Return what was read as something JSON can hold, and the numbers."""
    numbers, variables = [], []
    for name, (dims, values, attrs) in stored.variables.items():
        content: Any = 0 in values.strides and values.size > 1  # whether it was skipped; of text, what it says
        if not content and values.dtype.kind == "U":
            content = values.tolist()
        elif not content:
            numbers.append(values.tobytes())
        variables.append([name, dims, values.dtype.str, values.shape, content, _plain_attrs(attrs)])
    return {"attrs": _plain_attrs(stored.attrs), "variables": variables}, b"".join(numbers)


def _unpacked(head: dict[str, Any], stream: Any) -> Stored:
    """Put together what :func:`_packed` took apart."""
    if "error" in head:
        raise _Refused(head["error"])
    variables = {}
    for name, dims, kind, shape, content, attrs in head["variables"]:
        if content is True:
            values = np.broadcast_to(np.zeros((), kind), shape)
        elif content is not False:
            values = np.array(content, kind).reshape(shape)
        else:
            values = np.empty(shape, kind)
            if values.size and stream.readinto(values.reshape(-1).view(np.uint8)) < values.nbytes:
                raise ValueError("it is damaged: reading it breaks off")
        variables[name] = StoredVariable(tuple(dims), values, _numpy_attrs(attrs))
    return Stored(_numpy_attrs(head["attrs"]), variables)


def _plain_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value if isinstance(value, str) else [np.asarray(value).dtype.str, np.asarray(value).tolist()]
        for key, value in attrs.items()
    }


def _numpy_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    return {key: v if isinstance(v, str) else np.array(v[1], np.dtype(v[0]))[()] for key, v in attrs.items()}


def _told(part: Part) -> list[Any]:
    """Write indices so that JSON can hold them."""
    return [[i.start, i.stop] if isinstance(i, slice) else {"at": np.asarray(i).tolist()} for i in part]


def _part(told: list[Any]) -> Part:
    return tuple(slice(*i) if isinstance(i, list) else np.asarray(i["at"])[()] for i in told)
