"""Download data sets by pooch, from the first mirror that gives the official files.

Checked is the *uncompressed* content of a file, since the gzip wrapping, which pooch's own hashes would see, differs
between mirrors. A file appears in the data directory whole and official, or not at all.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from bats_lab.data.readers import first_line
from bats_lab.data.registry import EMBEDDED, IdxFile, data_directory, dataset_info
from bats_lab.data.status import check_file, verify_dataset
from bats_lab.errors import DataError

__all__ = ["download_dataset"]

#: Seconds after which a mirror that is silent is given up.
TIMEOUT = 30
#: Bytes that an archive may have: NIST's has 562 MB.
_LARGEST_ARCHIVE = 600_000_000
#: Bytes that a compressed file may have beyond those of its content, and that pooch counts too many in the last piece.
_SLACK = 1 << 17


class _MirrorError(Exception):
    """A mirror did not give what it should."""


def download_dataset(
    name: str, data_dir: str | Path | None = None, *, progress: bool = True, mirrors: Sequence[str] | None = None
) -> Path:
    """Download the files of a data set that are missing or damaged, and return their folder.

    Parameters
    ----------
    name, data_dir, progress
        As in :func:`bats_lab.data.datasets.load_dataset`; the embedded data set needs no download.
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
    info = dataset_info(name)
    folder = data_directory(data_dir) / name
    status = verify_dataset(name, data_dir)
    if info.made:
        raise DataError(f"{name} is not published anywhere; 'bats-lab data make {name}' makes it, which takes hours.")
    if status.ok:
        return folder if info.files else Path(str(EMBEDDED))
    wanted = [f for f, s in zip(info.files, status.files, strict=True) if s.state in ("missing", "damaged")]
    tried = []
    with _temporary_folder(folder) as temporary:
        for mirror in info.mirrors if mirrors is None else mirrors:
            try:
                for file, path in _fetch_files(mirror, tuple(wanted), temporary, progress=progress):
                    fetched = check_file(file, [path], len(info.class_names))
                    if fetched.state != "official":
                        detail = fetched.detail.replace(f"{path.parent}{os.sep}", "")
                        raise _MirrorError(f"not the official file: {detail.removesuffix('.')}")
                    os.replace(path, folder / file.name)
                    wanted.remove(file)
                return folder
            except _MirrorError as error:
                tried.append(f"{mirror} ({error})")
    raise DataError(
        f"{name} could not be downloaded; tried {', '.join(tried) or 'no mirror'}; put the files by hand into "
        f"{folder}: {', '.join(f.name for f in info.files)}."
    )


@contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """Make a folder inside `folder` that is gone afterwards; so is `folder`, and what was made above it, if empty."""
    made = [folder, *(above for above in folder.parents if not above.exists())]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(prefix=".download-", dir=folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {first_line(error)}.") from error
    try:
        with temporary as path:
            yield Path(path)
    finally:
        with suppress(OSError):
            for empty in made:
                empty.rmdir()


def _fetch_files(
    mirror: str, files: Sequence[IdxFile], temporary: Path, *, progress: bool
) -> Iterator[tuple[IdxFile, Path]]:
    """Download files from a mirror one after the other, into a temporary folder."""
    import pooch

    if not mirror.endswith(".zip"):
        for file in files:
            url = f"{mirror.removesuffix('/')}/{file.name}"
            _fetch(url, temporary / file.name, file.n_bytes, progress=progress)
            yield file, temporary / file.name
        return
    archive = temporary / "archive.zip"
    _fetch(mirror, archive, _LARGEST_ARCHIVE, progress=progress)
    try:
        members = {Path(member.filename).name: member for member in zipfile.ZipFile(archive).infolist()}
        for file in files:
            if file.name not in members:
                raise _MirrorError(f"the archive lacks {file.name}")
            if members[file.name].file_size > file.n_bytes + _SLACK:
                raise _MirrorError(f"{file.name} in the archive is larger than the official file")
            [path] = pooch.Unzip(members=[members[file.name].filename], extract_dir=".")(str(archive), "download", None)
            yield file, Path(path)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise _MirrorError(f"the archive is damaged: {first_line(error)}") from error
    finally:
        archive.unlink(missing_ok=True)


def _fetch(url: str, path: Path, most: int, *, progress: bool) -> None:
    """Download one file of at most so many bytes."""
    import pooch
    import requests
    from tqdm.auto import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        taken = 0

        def update(self, n: float | None = 1) -> bool | None:
            self.taken += int(n or 0)
            if self.taken > most + _SLACK:
                raise _MirrorError(f"sends more than the {most / 1e6:.1f} MB it can be")
            return bool(super().update(n))

        def reset(self, total: float | None = None) -> None:
            self.taken = 0
            super().reset(total)

    def check(answer: requests.Response, **_: object) -> None:
        _check_address(urljoin(answer.url, answer.headers["location"]) if answer.is_redirect else answer.url)

    _check_address(url)
    # pooch asks a bar for its truth value, which needs a total; it sets the real one later.
    bar = Bar(desc=url.rpartition("/")[2], total=1, unit="B", unit_scale=True, leave=False, disable=not progress)
    download = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16, timeout=TIMEOUT, hooks={"response": check})
    try:
        download(url, str(path), None)
    except (requests.RequestException, OSError, ValueError) as error:
        answer = getattr(error, "response", None)
        # A timeout and a broken connection are connection errors, too, so they come first.
        reasons = {
            requests.Timeout: f"did not answer within {TIMEOUT} s",
            requests.exceptions.ChunkedEncodingError: "the connection broke",
            requests.ConnectionError: "cannot be reached",
        }
        reason = next((text for kind, text in reasons.items() if isinstance(error, kind)), first_line(error))
        raise _MirrorError(reason if answer is None else f"answered {answer.status_code} {answer.reason}") from error
    finally:
        bar.close()


def _check_address(url: str) -> None:
    """Refuse an address whose answer others on the way could change, unless it is of this machine."""
    address = urlsplit(url)
    if address.scheme != "https" and address.hostname not in ("127.0.0.1", "localhost"):
        raise _MirrorError(f"downloads are by https only, not by {url}")
