"""Results in an object store: a folder named by a URL, and its mirror, a folder of this machine.

A store (S3, or any that fsspec knows) holds whole objects: there nothing is appended to, renamed or locked. So whatever
works on a folder of results works on the mirror, and this module makes the two alike: what is new in the store is
fetched, what is new in the mirror is put there, one object a file, whole or not at all. The folder ``.store`` in the
mirror notes of each file what it was when both were the same. So only what has changed travels, and what is finished
here but not yet taken by the store is known, also to a process that starts after this one was killed.

The mirror lies in the user's cache, ``bats_lab/stores``. It may be deleted, once all in it has been taken.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bats_lab.errors import StoreError
from bats_lab.files import write_whole

__all__ = [
    "BRIEF",
    "LOGS",
    "PATIENCE",
    "RESULTS",
    "Store",
    "is_url",
    "mirrored",
    "mirrored_file",
    "results_at",
    "store_at",
]

T = TypeVar("T")

#: Files that hold results, and what a search leaves beside them.
RESULTS: tuple[str, ...] = ("run-*.nc", "study-*.nc", "experiment-*.nc", "deployment-*.nc", "search.json")

#: Files that tell how sweeps went, and how runs go.
LOGS: tuple[str, ...] = ("sweep.jsonl", "journal/*.jsonl", "notebooks/*.running.jsonl")

#: What is fetched and put. A store may hold keys of any kind, and none may name a file outside of the mirror.
_NAMES = re.compile(
    r"((run|partial|study|experiment|deployment)-[^/\\]+\.nc|search\.json|sweep\.jsonl|report(\.failed)?\.(ipynb|html)"
    r"|(notebooks|journal|checkpoints)/[^/\\.][^/\\]*\.(ipynb|jsonl|stop|npz))"
)

#: Of these not: a notebook is rewritten after each of its cells.
_NOT = re.compile(r".*\.running\.ipynb")

#: What is removed from the store once it is gone here: what tells of runs at work, or has been superseded.
_PASSING = re.compile(
    r"notebooks/.*\.(running\.jsonl|running\.stop|failed\.ipynb)|partial-.*|checkpoints/.*|report\.f.*"
)

_NOTES = ".store"

#: Objects and bytes that are fetched at a time.
_AT_ONCE, _BYTES = 32, 1 << 26

#: Seconds for which a store may refuse; the same after Ctrl-C or an error; and between two attempts at most.
PATIENCE, BRIEF, _PAUSE = 600.0, 10.0, 5.0


class _Object(NamedTuple):
    """What a store says of an object: another content has another tag."""

    tag: str
    size: int


class _Note(NamedTuple):
    """The object and the file of a name when they were the same."""

    tag: str
    size: int
    modified: int  #: of the file, ns


def is_url(where: str | Path) -> bool:
    """Tell whether a folder of results is named by a URL, also one that went through a path, as ``s3:/bucket``."""
    return re.match(r"[A-Za-z][\w+.-]+:/", str(where)) is not None


def store_at(where: str | Path) -> Store | None:
    """Return the store that a URL names; None for a folder of this machine, also as ``file:///…``.

    Raises
    ------
    ValueError, StoreError
        As :class:`Store`.
    """
    return Store(str(where)) if is_url(where) and not _is_local(where) else None


def _is_local(where: str | Path) -> bool:
    return str(where).startswith(("file:/", "local:/"))


def _folder(where: str | Path) -> Path:
    """Return a folder of this machine by its path or its ``file:///…``."""
    return Path(re.sub(r"^\w+:/+", "/", str(where))) if _is_local(where) else Path(where)


def mirrored(where: str | Path, *patterns: str) -> Path:
    """Return a folder to read: itself, or of a URL its mirror, with what is there now of the names asked for.

    Raises
    ------
    ValueError, StoreError
        As :class:`Store`, and if the store cannot be read.
    """
    store = store_at(where)
    return _folder(where) if store is None else store.fetch(*(patterns or RESULTS))


def mirrored_file(path: str | Path) -> Path:
    """Return a file of results to read: itself, or of a URL its copy in the mirror, with what it may be packed in."""
    if not is_url(path):
        return Path(path)
    where, _, name = str(path).rpartition("/")
    file = mirrored(where, name) / name
    if not file.exists() and not any(mirrored(where, "study-*.nc").glob("study-*.nc")):
        raise FileNotFoundError(f"There is no results file {path}.")
    return file


@contextmanager
def results_at(where: str | Path, *patterns: str) -> Iterator[Path]:
    """Give a folder to read and write: itself, or of a URL its mirror, of which the store has all at the end.

    Yields
    ------
    Path

    Raises
    ------
    ValueError, StoreError
        As :class:`Store`, and if the store cannot be read, or does not take what is new for ten minutes.
    """
    store = store_at(where)
    if store is None:
        yield _folder(where)
        return
    try:
        yield store.fetch(*(patterns or RESULTS))
    except BaseException:  # nobody waits long for what is left then
        with contextlib.suppress(StoreError):
            store.insist(store.put, patience=BRIEF)
        raise
    store.insist(store.put)


class Store:
    """A folder of an object store, and its mirror.

    Parameters
    ----------
    url : str
        As ``s3://bucket/folder``. What it takes to get there (keys, another server) is where the store's own programs
        look for it; for S3 in ``~/.aws`` or ``AWS_…`` of the environment.

    Attributes
    ----------
    url : str
    folder : Path
        The mirror; made when something is fetched.

    Raises
    ------
    ValueError
        If there is no such kind of store, or no folder is named.
    StoreError
        If a package is missing.
    """

    def __init__(self, url: str) -> None:
        kind, _, rest = url.partition(":/")
        rest = rest.strip("/")
        self.url = f"{kind}://{rest}"
        try:
            import fsspec

            self._files, self._root = fsspec.core.url_to_fs(self.url)
        except ImportError as error:  # fsspec names the package of each kind of store
            raise StoreError(f"{self.url}: {error}. pip install 'bats-lab[s3]' has what S3 needs.") from error
        except ValueError as error:
            raise ValueError(f"{self.url!r} is a URL of no store that fsspec knows: {error}.") from error
        if not rest or not self._root.strip("/"):
            raise ValueError(f"{url!r} names no folder of a store; a URL is as s3://bucket/folder.")
        import platformdirs

        name = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        last = re.sub(r"[^\w.-]", "_", rest.rpartition("/")[2]).lstrip(".") or "results"
        self.folder = platformdirs.user_cache_path("bats_lab") / "stores" / name / last

    # What is in the store

    def names(self, *patterns: str) -> dict[str, _Object]:
        """Return what the store holds now, by name; a StoreError if it does not answer."""
        if not any(map(_is_pattern, patterns)):
            found = {name: self._info(name) for name in patterns if _NAMES.fullmatch(name)}
            return {name: about for name, about in found.items() if about is not None}
        # Names that are all in one folder are asked of that alone.
        tops = {pattern.rpartition("/")[0] for pattern in patterns}
        top = tops.pop() if len(tops) == 1 else ""
        self._files.invalidate_cache()
        listed = self._ask(self._files.find, f"{self._root}/{top}".rstrip("/"), detail=True)
        own = {path.removeprefix(self._root).lstrip("/"): about for path, about in listed.items()}
        return {
            name: _about(about)
            for name, about in own.items()
            if _NAMES.fullmatch(name) and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        }

    def _info(self, name: str) -> _Object | None:
        self._files.invalidate_cache()
        try:
            return _about(self._ask(self._files.info, self._path(name)))
        except FileNotFoundError:
            return None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _ask(self, what: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Call something of the store's; but for a file that is missing or there, whatever fails is a StoreError."""
        try:
            return what(*arguments, **options)
        except (FileNotFoundError, FileExistsError) as error:
            if "bucket does not exist" in str(error):
                raise StoreError(f"{self.url}: the bucket does not exist.") from error
            raise
        except Exception as error:  # each library raises its own
            text = " ".join(str(error).split()) or type(error).__name__
            raise StoreError(f"{self.url} cannot be reached, or refuses: {text}.") from error

    # What is small, and no part of the mirror

    def read(self, name: str) -> tuple[bytes, str] | None:
        """Read an object and its tag; None where there is none."""
        about = self._info(name)
        with contextlib.suppress(FileNotFoundError):
            return (self._ask(self._files.cat_file, self._path(name)), about.tag) if about is not None else None
        return None

    def write(self, name: str, content: bytes, *, new: bool = False) -> None:
        """Write an object whole; with `new` a FileExistsError if there is one already, asked and done in one step."""
        self._ask(self._files.pipe_file, self._path(name), content, mode="create" if new else "overwrite")

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._ask(self._files.rm_file, self._path(name))

    def age(self, name: str) -> float | None:
        """Return the seconds since an object was written, by the store's clock and this one; None: there is none."""
        self._files.invalidate_cache()
        with contextlib.suppress(FileNotFoundError):
            return time.time() - float(self._ask(self._files.modified, self._path(name)).timestamp())
        return None

    # What is kept alike

    def fetch(self, *patterns: str) -> Path:
        """Bring to the mirror what has changed in the store of the names asked for, and return the mirror.

        What has been removed there since it was fetched is removed; what has not been put there yet stays.

        Raises
        ------
        StoreError
            If the store cannot be read.
        """
        began = time.time() - 2.0  # what is put or noted meanwhile may not be listed
        there = self.names(*patterns)
        changed = [name for name, about in there.items() if self._is_news(name, about)]
        while changed:
            batch, size = [changed.pop()], 0
            while changed and len(batch) < _AT_ONCE and size + there[changed[-1]].size <= _BYTES:
                size += there[changed[-1]].size
                batch.append(changed.pop())
            self._take(batch, there)
        for name, note in self._notes():
            if name in there or not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
                continue
            with contextlib.suppress(OSError):
                if note.stat().st_mtime < began:
                    (self.folder / name).unlink(missing_ok=True)
                    note.unlink(missing_ok=True)
        return self.folder

    def _is_news(self, name: str, about: _Object) -> bool:
        """Tell whether an object is to be fetched."""
        note, file = self._note(name), self.folder / name
        if not file.exists():  # it may have been removed here, and not yet there
            return note is None or not _PASSING.fullmatch(name)
        if note is not None and note.tag == about.tag:
            return False
        # What is only added to is newer where it is longer.
        return not (name.endswith(".jsonl") and about.size <= file.stat().st_size)

    def _take(self, names: list[str], there: dict[str, _Object]) -> None:
        contents = self._ask(self._files.cat, [self._path(name) for name in names], on_error="return")
        for name in names:
            content = contents[self._path(name)]
            if isinstance(content, FileNotFoundError):  # removed meanwhile
                continue
            if isinstance(content, Exception):
                raise StoreError(f"{self.url}/{name} cannot be read: {' '.join(str(content).split())}.") from content
            if len(content) != there[name].size:  # written anew meanwhile, or cut off; the next time tells
                continue
            if not self._is_news(name, there[name]):
                continue
            write_whole(self.folder / name, content, lasting=False)
            with contextlib.suppress(FileNotFoundError):
                self._write_note(name, there[name].tag, (self.folder / name).stat())

    def put(self) -> None:
        """Bring to the store what has changed in the mirror.

        A run that another sweep has put there meanwhile is left as it is, and fetched: both are the same run.

        Raises
        ------
        StoreError
            If the store takes something not.
        """
        for name in self.pending():
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                before, content = (self.folder / name).stat(), (self.folder / name).read_bytes()
                try:
                    self.write(name, content, new=name.startswith("run-") and self._note(name) is None)
                except FileExistsError:
                    self._take([name], self.names(name))
                    continue
                about = self._info(name)
                if about is not None and about.size == len(content) == before.st_size:
                    self._write_note(name, about.tag, before)
        for name, note in self._notes():
            if _PASSING.fullmatch(name) and not (self.folder / name).exists():
                self.remove(name)
                note.unlink(missing_ok=True)

    def pending(self) -> list[str]:
        """Return the names of what the store has not taken yet."""
        found = []
        for path in (*self.folder.glob("*.*"), *self.folder.glob("[!.]*/*.*")):
            name = path.relative_to(self.folder).as_posix()
            if _NAMES.fullmatch(name) and not _NOT.fullmatch(name):
                with contextlib.suppress(OSError):  # removed meanwhile
                    status, note = path.stat(), self._note(name)
                    if note is None or (note.size, note.modified) != (status.st_size, status.st_mtime_ns):
                        found.append(name)
        return sorted(found)

    def insist(
        self, act: Callable[[], Any], *, patience: float = PATIENCE, given_up: Callable[[], bool] = lambda: False
    ) -> None:
        """Do something again and again, with growing pauses, until the store no longer refuses.

        Raises
        ------
        StoreError
            If it still refuses after `patience` seconds, or `given_up` says that nobody waits any more.
        """
        pause, end = 0.25, time.monotonic() + patience
        while True:
            try:
                act()
                return
            except StoreError as error:
                if time.monotonic() + pause > end or given_up():
                    raise StoreError(f"{error} {self.kept()}") from error
            time.sleep(pause)
            pause = min(2 * pause, _PAUSE)

    def kept(self) -> str:
        """Say where that is which the store has not taken."""
        kept = self.pending()
        return f"{len(kept)} files are kept in {self.folder}; the same command brings them there." if kept else ""

    # Notes

    def _notes(self) -> list[tuple[str, Path]]:
        """List the names of which there are notes, and these."""
        root = self.folder / _NOTES
        notes = [note for pattern in ("[!.]*.*", "*/[!.]*.*") for note in root.glob(pattern)]
        return [(note.relative_to(root).as_posix(), note) for note in notes]

    def _note(self, name: str) -> _Note | None:
        with contextlib.suppress(OSError, ValueError, TypeError):
            return _Note(*json.loads((self.folder / _NOTES / name).read_bytes()))
        return None

    def _write_note(self, name: str, tag: str, status: os.stat_result) -> None:
        note = _Note(tag, status.st_size, status.st_mtime_ns)
        write_whole(self.folder / _NOTES / name, json.dumps(note).encode(), lasting=False)


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _about(info: dict[str, Any]) -> _Object:
    tag = next((info[key] for key in ("ETag", "etag", "md5Hash") if info.get(key)), None)
    size = int(info.get("size") or 0)
    when = next((info[key] for key in ("LastModified", "last_modified", "mtime", "created") if info.get(key)), "")
    return _Object(str(tag or f"{size} {when}"), size)
