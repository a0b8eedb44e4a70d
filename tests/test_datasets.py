from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import socket
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bats_lab.data import datasets, download
from bats_lab.data.datasets import keep_dataset, known_dataset, load_dataset
from bats_lab.data.download import download_dataset
from bats_lab.data.readers import read_idx
from bats_lab.data.registry import DATASETS, DatasetInfo, IdxFile, data_directory
from bats_lab.data.status import list_datasets, verify_dataset
from bats_lab.errors import DataError

# A data set like the official ones, with 12 and 5 images: the same code reads, verifies and downloads it.
NAMES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
IMAGES, LABELS = NAMES[0], NAMES[1]


def idx_bytes(array: np.ndarray) -> bytes:
    """Write the idx format: magic number, sizes, content, all big-endian."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def tiny_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 12), ("test", 5)):
        arrays[f"x_{split}"] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        arrays[f"y_{split}"] = rng.integers(0, 10, n, dtype=np.uint8)
    return arrays


CONTENTS = {name: idx_bytes(array) for name, array in zip(NAMES, tiny_arrays().values(), strict=True)}


def write_files(folder: Path, contents: dict[str, bytes] = CONTENTS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(gzip.compress(content))
    return folder


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the data set `tiny` known and write it into a data directory."""
    files = tuple(
        IdxFile(name, array, 12 if "train" in name else 5, hashlib.md5(CONTENTS[name]).hexdigest())
        for name, array in zip(NAMES, ("x_train", "y_train", "x_test", "y_test"), strict=True)
    )
    monkeypatch.setitem(DATASETS, "tiny", DatasetInfo("a data set for tests", files=files))
    write_files(tmp_path / "data" / "tiny")
    return tmp_path / "data"


def assert_one_sentence(error: pytest.ExceptionInfo[BaseException]) -> None:
    message = str(error.value)
    assert message.endswith(".") and "\n" not in message


# The embedded data set


def test_embedded_digits_are_there() -> None:
    data = load_dataset("mnist_small")
    assert data.x_train.shape == (10_000, 28, 28) and data.x_test.shape == (2_000, 28, 28)
    assert data.x_train.dtype == np.uint8 and data.y_train.dtype == np.int64
    assert data.official and data.n_classes == 10
    assert data.y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]  # as everybody knows them


def test_embedded_digits_are_the_first_of_mnist(full_data: Callable[[str], Path]) -> None:
    small, full = load_dataset("mnist_small"), load_dataset("mnist", data_dir=full_data("mnist"), download=False)
    for key in ("x_train", "y_train", "x_test", "y_test"):
        array = getattr(small, key)
        assert np.array_equal(array, getattr(full, key)[: len(array)])


def test_first_images_are_taken_and_hash_is_of_the_whole() -> None:
    whole, part = load_dataset("mnist_small"), load_dataset("mnist_small", n_train=7, n_test=3)
    assert np.array_equal(part.x_train, whole.x_train[:7]) and np.array_equal(part.y_test, whole.y_test[:3])
    assert part.data_hash == whole.data_hash


@pytest.mark.parametrize("count", [0, 10_001])
def test_more_images_than_there_are_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=rf"n_train is {count}; .* from 1 to 10000"):
        load_dataset("mnist_small", n_train=count)


def test_unknown_name_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ValueError, match=r"'fashion_mnits'.*did you mean fashion_mnist\?"):
        load_dataset("fashion_mnits")
    assert not known_dataset("fashion_mnits") and known_dataset("fashion_mnist")


# Official files


def test_files_load_compressed_or_not(tiny: Path) -> None:
    compressed = load_dataset("tiny", data_dir=tiny)
    for name, content in CONTENTS.items():
        (tiny / "tiny" / name).unlink()
        (tiny / "tiny" / name.removesuffix(".gz")).write_bytes(content)
    plain = load_dataset("tiny", data_dir=tiny)
    assert compressed.official and plain.official and plain.data_hash == compressed.data_hash
    for key, array in tiny_arrays().items():
        assert np.array_equal(getattr(plain, key), array)


def test_transposed_files_come_out_upright(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = DATASETS["tiny"].files
    monkeypatch.setitem(DATASETS, "tiny", DatasetInfo("stored transposed", files=files, transposed=True))
    data = load_dataset("tiny", data_dir=tiny)
    assert np.array_equal(data.x_train, tiny_arrays()["x_train"].transpose(0, 2, 1))
    assert data.x_train.flags.c_contiguous


def test_other_content_loads_with_a_warning_and_another_hash(tiny: Path) -> None:
    official = load_dataset("tiny", data_dir=tiny)
    content = bytearray(CONTENTS[IMAGES])
    content[100] ^= 1
    write_files(tiny / "tiny", {IMAGES: bytes(content)})
    with pytest.warns(UserWarning, match=rf"not the official data set \({IMAGES} has the MD5 "):
        other = load_dataset("tiny", data_dir=tiny)
    assert not other.official and other.data_hash != official.data_hash


def test_kept_data_set_is_read_once_and_is_still_doubted(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "_kept", {})
    arrays = tiny_arrays()
    write_files(tiny / "tiny", {IMAGES: idx_bytes(arrays["x_train"][:9]), LABELS: idx_bytes(arrays["y_train"][:9])})
    keep_dataset("tiny", data_dir=str(tiny), n_train=3)
    shutil.rmtree(tiny)
    with pytest.warns(UserWarning, match="tiny in .* is not the official data set"):
        data = load_dataset("tiny", data_dir=tiny, n_train=3)
    assert len(data.x_train) == 3
    with pytest.raises(DataError):
        load_dataset("tiny", data_dir=tiny, n_train=4, download=False)


def test_fewer_images_than_official_load_with_a_warning(tiny: Path) -> None:
    arrays = tiny_arrays()
    fewer = {IMAGES: idx_bytes(arrays["x_train"][:9]), LABELS: idx_bytes(arrays["y_train"][:9])}
    write_files(tiny / "tiny", fewer)
    with pytest.warns(UserWarning, match=f"{IMAGES} has 9 entries, the official one 12"):
        data = load_dataset("tiny", data_dir=tiny)
    assert len(data.x_train) == 9 and not data.official


def _header(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


DAMAGE = {
    "cut gzip": (IMAGES, gzip.compress(CONTENTS[IMAGES])[:-500], "cut short or damaged"),
    "cut before the checksum": (IMAGES, gzip.compress(CONTENTS[IMAGES])[:-4], "cut short or damaged"),
    "cut content": (IMAGES, gzip.compress(CONTENTS[IMAGES][:-1]), "cut short: its header promises 12"),
    "cut header": (IMAGES, gzip.compress(CONTENTS[IMAGES][:9]), "ends within its header"),
    "cut uncompressed": (IMAGES, CONTENTS[IMAGES][:-1], "cut short: its header promises 12"),
    "empty": (IMAGES, b"", "ends within its header"),
    "longer": (IMAGES, gzip.compress(CONTENTS[IMAGES] + b"\0"), "goes on after the 12 entries"),
    "labels in place of images": (IMAGES, gzip.compress(CONTENTS[LABELS]), "starts with 00000801"),
    "web page": (
        IMAGES,
        b"<html>Please log in to go on to the internet</html>",
        "is a web page, saved in place of the data: it starts with 3c68746d",
    ),
    "wrong shape": (IMAGES, gzip.compress(_header(CONTENTS[IMAGES], 8, bytes([0, 0, 0, 14, 0, 0, 0, 56]))), "14 x 56"),
    "huge header": (IMAGES, gzip.compress(_header(CONTENTS[IMAGES], 4, b"\xff\xff\xff\xff")), "promises 4294967295"),
    "nothing inside": (IMAGES, gzip.compress(_header(CONTENTS[IMAGES], 4, b"\0\0\0\0")[:16]), "holds nothing"),
    "label out of range": (LABELS, gzip.compress(CONTENTS[LABELS][:-1] + b"\x0a"), "label 10; .* below 10"),
    "fewer labels": (LABELS, gzip.compress(idx_bytes(np.zeros(11, np.uint8))), "12 train images but 11 train labels"),
}


@pytest.mark.parametrize("name, content, message", DAMAGE.values(), ids=DAMAGE)
def test_damaged_file_is_refused(tiny: Path, name: str, content: bytes, message: str) -> None:
    (tiny / "tiny" / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        load_dataset("tiny", data_dir=tiny)
    assert_one_sentence(error)
    assert str(tiny / "tiny") in str(error.value)


PLACES = {
    "a dot for a dash": lambda name: f"tiny/{name.replace('-idx', '.idx')}",
    "an archive's folder": lambda name: f"tiny/gzip/{name}",
    "a folder a file": lambda name: f"tiny/{name.removesuffix('.gz')}/{name.replace('-idx', '.idx')}",
    "torchvision's folder": lambda name: f"tiny/raw/{name}",
    "the data directory": lambda name: name,
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_files_a_folder_or_a_character_away_are_taken(tiny: Path, place: Callable[[str], str]) -> None:
    data_hash = load_dataset("tiny", data_dir=tiny).data_hash
    for name in NAMES:
        path = tiny / place(name)
        content = (tiny / "tiny" / name).read_bytes()
        (tiny / "tiny" / name).unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert load_dataset("tiny", data_dir=tiny, download=False).data_hash == data_hash
    assert verify_dataset("tiny", tiny).state == "official"


def test_files_of_another_data_set_in_the_data_directory_are_left(tiny: Path) -> None:
    shutil.move(tiny / "tiny" / LABELS, tiny / LABELS)
    (tiny / LABELS).write_bytes(gzip.compress(CONTENTS[LABELS][:-1] + b"\0"))
    with pytest.raises(DataError, match=f"{LABELS} is missing; found .*{LABELS}, which is not the official file: move"):
        load_dataset("tiny", data_dir=tiny, download=False)


def test_sound_file_is_read_where_another_is_damaged(tiny: Path) -> None:
    plain = tiny / "tiny" / IMAGES.removesuffix(".gz")
    plain.write_bytes(CONTENTS[IMAGES])
    (tiny / "tiny" / IMAGES).write_bytes(gzip.compress(CONTENTS[IMAGES])[:-500])
    assert load_dataset("tiny", data_dir=tiny, download=False).official
    assert verify_dataset("tiny", tiny).state == "official"


def test_pair_of_different_numbers_is_damaged_and_replaced(tiny: Path, server: Server) -> None:
    write_files(server.folder / "good")
    write_files(tiny / "tiny", {LABELS: idx_bytes(np.zeros(11, np.uint8))})
    status = verify_dataset("tiny", tiny)
    assert [f.state for f in status.files] == ["official", "damaged", "official", "official"]
    assert status.files[1].detail == "12 images but 11 labels"
    download_dataset("tiny", tiny, progress=False, mirrors=[server.url("good")])
    assert server.paths == [f"/good/{LABELS}"] and load_dataset("tiny", data_dir=tiny).official


def test_letters_under_the_names_of_balanced_are_named(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, names = DATASETS["tiny"].files, DATASETS["emnist"].class_names
    monkeypatch.setitem(DATASETS, "tiny", DatasetInfo("letters", names, files=files))
    labels = np.arange(52, dtype=np.uint8) % 26 + 1
    images = idx_bytes(np.full((52, 28, 28), 255, np.uint8))
    write_files(tiny / "tiny", dict(zip(NAMES, (images, idx_bytes(labels)) * 2, strict=True)))
    with pytest.warns(UserWarning, match="no images of 21 of 47 classes .* 1 to 26 are those of EMNIST Letters"):
        load_dataset("tiny", data_dir=tiny)


@given(at=st.integers(0, 9000), bit=st.integers(0, 7))
def test_no_flipped_bit_goes_unnoticed(at: int, bit: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("flipped") / IMAGES
    damaged = bytearray(gzip.compress(CONTENTS[IMAGES], mtime=0))
    damaged[at % len(damaged)] ^= 1 << bit
    path.write_bytes(damaged)
    file = IdxFile(IMAGES, "x_train", 12, hashlib.md5(CONTENTS[IMAGES]).hexdigest())
    try:
        array, _ = read_idx(file, path, 10)
    except DataError:
        return
    assert np.array_equal(array, tiny_arrays()["x_train"])  # a bit of gzip's own header that changes nothing


def test_missing_file_is_named(tiny: Path) -> None:
    (tiny / "tiny" / LABELS).unlink()
    with pytest.raises(DataError, match=f"{LABELS} is missing") as error:
        load_dataset("tiny", data_dir=tiny, download=False)
    assert_one_sentence(error)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_official_files_verify(name: str, full_data: Callable[[str], Path]) -> None:
    status = verify_dataset(name, full_data(name))
    assert status.state == "official" and len(status.files) == 4


def test_letters_load_upright(full_data: Callable[[str], Path]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a split that is not the official one says so
        data = load_dataset("emnist", data_dir=full_data("emnist"), download=False)
    assert data.n_classes == 47
    # Upright, the mean L has its ink at the left and below, the mean 7 above.
    mean_l, mean_7 = (data.x_test[data.y_test == data.class_names.index(c)].mean(0) for c in "L7")
    assert mean_l[18:].sum() > 1.5 * mean_l[:10].sum() and mean_7[:10].sum() > mean_7[18:].sum()


# Where things are, and how they stand


def test_argument_goes_before_environment_before_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BATS_LAB_DATA", str(tmp_path / "environment"))
    assert data_directory(tmp_path / "argument") == tmp_path / "argument"
    assert data_directory() == tmp_path / "environment"
    monkeypatch.delenv("BATS_LAB_DATA")
    assert data_directory().parts[-2:] == ("bats_lab", "data")


def test_list_tells_what_is_found(tiny: Path) -> None:
    states = {status.name: status.state for status in list_datasets(tiny)}
    assert states == {name: "missing" for name in DATASETS} | {
        "mnist_small": "embedded",
        "yin_yang": "computed",
        "japanese_vowels": "computed",
        "tiny": "found",
    }


def test_verify_tells_official_from_different_from_damaged_from_missing(tiny: Path) -> None:
    folder = tiny / "tiny"
    assert verify_dataset("tiny", tiny).state == "official"
    write_files(folder, {IMAGES: idx_bytes(np.zeros((12, 28, 28), np.uint8))})
    status = verify_dataset("tiny", tiny)
    assert status.state == "differs" and status.ok and "MD5" in status.files[0].detail
    (folder / LABELS).write_bytes(b"")
    status = verify_dataset("tiny", tiny)
    assert status.state == "damaged" and not status.ok
    assert [f.state for f in status.files] == ["differs", "damaged", "official", "official"]
    (folder / LABELS).unlink()
    assert verify_dataset("tiny", tiny).state == "missing"


# Downloads, from a server on this machine


class _Handler(SimpleHTTPRequestHandler):
    """Serves a folder, logs paths to the server, breaks off in the middle of /broken/, and sends off from /away/."""

    def do_GET(self) -> None:
        self.server.paths.append(self.path)  # type: ignore[attr-defined]
        if self.path.startswith("/away/"):
            self.send_response(302)
            self.send_header("Location", "http://mirror.example/good/")
            return self.end_headers()
        if not self.path.startswith("/broken/"):
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        self.wfile.write(b"\x1f\x8b" * 500)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        self.folder, self.paths = folder, []

    def handle_error(self, *_: object) -> None:
        """Say nothing where a client hangs up."""

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "served").mkdir()
    with Server(tmp_path / "served") as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def empty(tiny: Path) -> Path:
    """Data directory in which `tiny` is known but missing."""
    shutil.rmtree(tiny)
    return tiny


def test_download_brings_all_files(empty: Path, server: Server) -> None:
    write_files(server.folder / "good")
    folder = download_dataset("tiny", empty, progress=False, mirrors=[server.url("good/")])
    assert sorted(p.name for p in folder.iterdir()) == sorted(NAMES)
    assert load_dataset("tiny", data_dir=empty, download=False).official


def test_missing_dataset_is_downloaded_when_loaded(
    empty: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_files(server.folder / "good")
    info = DatasetInfo("a data set for tests", files=DATASETS["tiny"].files, mirrors=(server.url("good"),))
    monkeypatch.setitem(DATASETS, "tiny", info)
    assert load_dataset("tiny", data_dir=empty).official
    assert IMAGES in capsys.readouterr().err  # the progress bar


def test_only_what_is_missing_or_damaged_is_downloaded(tiny: Path, server: Server) -> None:
    write_files(server.folder / "good")
    (tiny / "tiny" / LABELS).unlink()
    (tiny / "tiny" / IMAGES).write_bytes(b"damaged")
    download_dataset("tiny", tiny, progress=False, mirrors=[server.url("good")])
    assert server.paths == [f"/good/{IMAGES}", f"/good/{LABELS}"]
    assert verify_dataset("tiny", tiny).state == "official"


def test_next_mirror_is_tried(empty: Path, server: Server) -> None:
    write_files(server.folder / "good")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: a mirror that is not there
        gone = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        mirrors = [gone, server.url("absent"), server.url("broken/"), server.url("good")]
        download_dataset("tiny", empty, progress=False, mirrors=mirrors)
    assert verify_dataset("tiny", empty).state == "official"


def _write_zip(path: Path, names: tuple[str, ...]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(f"gzip/{name}", gzip.compress(CONTENTS[name]))


def test_archive_is_unpacked(empty: Path, server: Server) -> None:
    _write_zip(server.folder / "gzip.zip", NAMES)
    folder = download_dataset("tiny", empty, progress=False, mirrors=[server.url("gzip.zip")])
    assert sorted(p.name for p in folder.iterdir()) == sorted(NAMES)
    assert verify_dataset("tiny", empty).state == "official"


def _serve_nothing(folder: Path) -> str:
    return "absent/"


def _serve_half(folder: Path) -> str:
    return "broken/"


def _serve_cut_gzip(folder: Path) -> str:
    (write_files(folder / "cut") / IMAGES).write_bytes(gzip.compress(CONTENTS[IMAGES])[:4000])
    return "cut/"


def _serve_other_content(folder: Path) -> str:
    write_files(folder / "other", {IMAGES: idx_bytes(np.zeros((12, 28, 28), np.uint8))})
    return "other/"


def _serve_cut_zip(folder: Path) -> str:
    _write_zip(folder / "whole.zip", NAMES)
    (folder / "cut.zip").write_bytes((folder / "whole.zip").read_bytes()[:5000])
    return "cut.zip"


def _serve_corrupted_zip(folder: Path) -> str:
    _write_zip(folder / "bad.zip", NAMES)
    content = bytearray((folder / "bad.zip").read_bytes())
    content[2000] ^= 255
    (folder / "bad.zip").write_bytes(content)
    return "bad.zip"


def _serve_zip_without_images(folder: Path) -> str:
    _write_zip(folder / "less.zip", NAMES[1:])
    return "less.zip"


@pytest.mark.parametrize(
    "serve, reason",
    [
        (_serve_nothing, "answered 404"),
        (_serve_half, "the connection broke"),
        (_serve_cut_gzip, "not the official file: .*cut short or damaged"),
        (_serve_other_content, "not the official file: .* MD5"),
        (_serve_cut_zip, "the archive is damaged"),
        (_serve_corrupted_zip, "the archive is damaged"),
        (_serve_zip_without_images, f"the archive lacks {IMAGES}"),
    ],
)
def test_failed_download_is_one_error_and_leaves_nothing(
    empty: Path, server: Server, serve: Callable[[Path], str], reason: str
) -> None:
    mirror = server.url(serve(server.folder))
    with pytest.raises(DataError, match=rf"tried {re.escape(mirror)} \({reason}.*by hand into .*{IMAGES}") as error:
        download_dataset("tiny", empty, progress=False, mirrors=[mirror])
    assert_one_sentence(error)
    assert not (empty / "tiny").exists()


@pytest.mark.parametrize("mirror", ["http://mirror.example/", "ftp://127.example/", "http://127.0.0.1.example/a.zip"])
def test_mirror_without_https_is_not_asked(empty: Path, mirror: str) -> None:
    with pytest.raises(DataError, match=rf"downloads are by https only, not by {re.escape(mirror)}"):
        download_dataset("tiny", empty, progress=False, mirrors=[mirror])
    assert all(url.startswith("https://") for info in DATASETS.values() for url in info.mirrors)


def test_mirror_that_leads_elsewhere_without_https_is_not_followed(empty: Path, server: Server) -> None:
    with pytest.raises(DataError, match=r"https only, not by http://mirror\.example/good/"):
        download_dataset("tiny", empty, progress=False, mirrors=[server.url("away/")])


def test_download_that_goes_on_and_on_is_given_up(empty: Path, server: Server) -> None:
    (write_files(server.folder / "long") / IMAGES).write_bytes(bytes(10_000_000))
    with pytest.raises(DataError, match=r"sends more than the 0\.0 MB it can be"):
        download_dataset("tiny", empty, progress=False, mirrors=[server.url("long/")])


def test_failed_download_names_the_file_that_lies_beside(tiny: Path) -> None:
    beside = (tiny / "tiny" / LABELS).rename(tiny / LABELS)
    beside.write_bytes(idx_bytes(np.zeros(12, np.uint8)))
    with pytest.raises(DataError, match=rf"could not be downloaded.*; found {beside}, which .*: move it into"):
        load_dataset("tiny", data_dir=tiny)


def test_files_of_which_only_the_published_checksum_is_known(tmp_path: Path) -> None:
    content = gzip.compress(CONTENTS[LABELS], mtime=0)
    file = IdxFile(LABELS, "y_train", 12, sha256=hashlib.sha256(content).hexdigest())
    (tmp_path / LABELS).write_bytes(content)
    assert read_idx(file, tmp_path / LABELS, 10)[1] == ""
    zeros = CONTENTS[LABELS][:8] + bytes(12)
    (tmp_path / LABELS).write_bytes(gzip.compress(zeros))
    assert "has the SHA-256" in read_idx(file, tmp_path / LABELS, 10)[1]
    assert all(f.md5 or f.sha256 for info in DATASETS.values() for f in info.files)


def test_silent_mirror_is_given_up(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mirror = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(DataError, match=r"did not answer within 0\.1 s"):
            download_dataset("tiny", empty, progress=False, mirrors=[mirror])


def test_failed_download_keeps_the_files_that_were_there(tiny: Path, server: Server) -> None:
    (tiny / "tiny" / LABELS).unlink()
    with pytest.raises(DataError):
        download_dataset("tiny", tiny, progress=False, mirrors=[server.url("absent")])
    assert sorted(p.name for p in (tiny / "tiny").iterdir()) == sorted(set(NAMES) - {LABELS})


def test_folder_that_cannot_be_written_is_one_error(empty: Path) -> None:
    empty.write_text("a file where a folder should be")
    with pytest.raises(DataError, match="cannot be written") as error:
        download_dataset("tiny", empty, progress=False)
    assert_one_sentence(error)


def test_embedded_data_needs_no_download() -> None:
    assert (download_dataset("mnist_small", mirrors=[]) / "mnist_small.npz").is_file()


# One's own images


def write_npz(path: Path, **changes: object) -> str:
    arrays = {key: array if key.startswith("x") else array % 3 for key, array in tiny_arrays().items()}
    np.savez_compressed(path, **(arrays | changes))  # type: ignore[arg-type]
    return str(path)


def test_own_images_work_the_same_way(tmp_path: Path) -> None:
    name = write_npz(tmp_path / "own.npz")
    data = load_dataset(name, n_train=5)
    assert np.array_equal(data.x_train, tiny_arrays()["x_train"][:5])
    assert data.name == name and data.class_names == ("0", "1", "2") and not data.official and known_dataset(name)


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.reshape(len(x), -1),
        lambda x: x.astype(np.int64),
        lambda x: x.astype(np.float64),
        lambda x: x.astype(np.float32) / 255,
        lambda x: x[..., None],
        lambda x: x[:, None],
    ],
    ids=["flat", "int64", "whole floats", "floats up to 1", "channel last", "channel first"],
)
def test_own_images_may_come_in_other_forms(tmp_path: Path, convert: Callable[[np.ndarray], np.ndarray]) -> None:
    arrays = tiny_arrays()
    changes = {key: convert(arrays[key]) for key in ("x_train", "x_test")}
    plain = load_dataset(write_npz(tmp_path / "plain.npz"))
    assert load_dataset(write_npz(tmp_path / "other.npz", **changes)).data_hash == plain.data_hash


def test_labels_may_be_a_column(tmp_path: Path) -> None:
    columns = {key: (tiny_arrays()[key] % 3)[:, None] for key in ("y_train", "y_test")}
    plain = load_dataset(write_npz(tmp_path / "plain.npz"))
    assert load_dataset(write_npz(tmp_path / "columns.npz", **columns)).data_hash == plain.data_hash


def test_masks_are_black_and_white(tmp_path: Path) -> None:
    masks = {key: tiny_arrays()[key] > 99 for key in ("x_train", "x_test")}
    data = load_dataset(write_npz(tmp_path / "own.npz", **masks))
    assert np.array_equal(data.x_train, 255 * masks["x_train"].astype(np.uint8)) and "bool" in data.summary


@pytest.mark.parametrize(
    "convert, text",
    [
        (
            lambda x: x,
            "12 training and 5 test images of 28 x 28 pixels (integers, 0 to 255, the brightest 255), 3 classes",
        ),
        (lambda x: x / 255, "(floats, 0 to 1, the brightest 1)"),
        (lambda x: x > 99, "(bool, black and white, the brightest 1)"),
    ],
)
def test_what_was_assumed_of_pixels_is_told(tmp_path: Path, convert: Callable[[np.ndarray], object], text: str) -> None:
    changes = {key: convert(tiny_arrays()[key]) for key in ("x_train", "x_test")}
    assert text in load_dataset(write_npz(tmp_path / "own.npz", **changes)).summary


def _both(convert: Callable[[np.ndarray], np.ndarray]) -> dict[str, object]:
    return {key: convert(tiny_arrays()[key]) for key in ("x_train", "x_test")}


DOUBTFUL = {
    "sixteen": (
        _both(lambda x: x // 15.9),
        "brightest is 16 of 255: first input spike at 94 of 100 ms; .* 255/16 if 16",
    ),
    "zero and one": (_both(lambda x: x // 128), r"brightest is 1 of 255: .* at 99\.6 of 100 ms; multiply by 255/1 if"),
    "dim floats": (
        _both(lambda x: x / 1020),
        r"floats, 0 to 1, and the brightest is 0\.25 of 1: .* multiply by 1/0\.25",
    ),
    "black": (_both(lambda x: 0 * x), "all pixels are 0, so that no input neuron ever spikes"),
    "one dim part": ({"x_test": tiny_arrays()["x_test"] // 15}, "pixel is 255 in x_train and 17 in x_test"),
    "labels from 1": (
        {"y_train": np.arange(12) % 3 + 1, "y_test": np.arange(5) % 3 + 1},
        r"1 of 4 classes \(0\): .*subtract 1",
    ),
    "gaps": (
        {"y_train": np.arange(12) % 3 * 100, "y_test": np.arange(5) % 3 * 100},
        r"no images of 198 of 201 classes \(1, 2, 3, 4, 5, …\): labels have gaps; number the 3 .*np\.unique",
    ),
    "new in the test": (
        {"y_test": np.arange(5) % 4},
        r"only test images of 1 of 4 classes \(3\), which cannot be learned",
    ),
    "not in the test": ({"y_test": np.arange(5) % 2}, r"only training images of 1 of 3 classes \(2\)"),
}


@pytest.mark.parametrize("changes, message", DOUBTFUL.values(), ids=DOUBTFUL)
def test_what_is_hardly_meant_is_said(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    labels = {"y_train": np.arange(12) % 3, "y_test": np.arange(5) % 3}
    with pytest.warns(UserWarning, match=rf"own\.npz: .*{message}") as said:
        load_dataset(write_npz(tmp_path / "own.npz", **(labels | changes)))
    assert len(said) == 1 and str(said[0].message).endswith(".")


def test_own_images_need_not_be_square(tmp_path: Path) -> None:
    flat = 6 * np.arange(40, dtype=np.uint8).reshape(4, 10)
    labels = [0, 1, 0, 1]
    data = load_dataset(write_npz(tmp_path / "own.npz", x_train=flat, x_test=flat, y_train=labels, y_test=labels))
    assert data.x_train.shape == (4, 1, 10) and np.array_equal(data.x_test.reshape(4, 10), flat)


WRONG = {
    "negative pixel": ({"x_train": np.full((12, 28, 28), -1)}, "x_train in .* goes from -1 to -1"),
    "bright pixel": ({"x_test": np.full((5, 28, 28), 256)}, "x_test in .* goes from 256"),
    "NaN": ({"x_train": np.full((12, 28, 28), np.nan)}, "x_train in .* goes from nan"),
    "fractions above 1": ({"x_test": np.full((5, 28, 28), 1.5)}, "floats must be in 0..1"),
    "floats beside bytes": ({"x_train": tiny_arrays()["x_train"] / 255}, "different scales: x_train as floats, 0 to 1"),
    "masks beside bytes": ({"x_test": tiny_arrays()["x_test"] > 99}, "x_test as bool, black and white"),
    "0 and 1 beside bytes": (
        {"x_train": tiny_arrays()["x_train"] // 128},
        "x_train as .* with the brightest 1, x_test",
    ),
    "text": ({"x_train": np.full((12, 28, 28), "a")}, "of type <U1"),
    "colour": ({"x_train": np.zeros((12, 28, 28, 3), np.uint8)}, r"shape \(12, 28, 28, 3\)"),
    "other shape": ({"x_test": np.zeros((5, 14, 14), np.uint8)}, "28 x 28 and test images of 14 x 14"),
    "no images": ({"x_test": np.zeros((0, 28, 28), np.uint8)}, "x_test in .* is empty"),
    "fewer labels": ({"y_train": np.zeros(11, np.uint8)}, "12 train images but 11 train labels"),
    "one-hot labels": ({"y_train": np.zeros((12, 10), np.uint8)}, r"shape \(12, 10\)"),
    "float labels": ({"y_test": np.zeros(5)}, "type float64"),
    "negative label": ({"y_test": np.full(5, -1)}, "goes from -1"),
    "huge label": ({"y_test": np.full(5, 123456)}, "to 123456; labels must be classes"),
}


@pytest.mark.parametrize("changes, message", WRONG.values(), ids=WRONG)
def test_own_images_that_make_no_sense_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        load_dataset(write_npz(tmp_path / "own.npz", **changes))
    assert_one_sentence(error)


def test_file_that_is_no_npz_is_refused(tmp_path: Path) -> None:
    whole = Path(write_npz(tmp_path / "own.npz")).read_bytes()
    cut = "no .npz file, or it is cut short"
    contents = {b"": cut, b"text": cut, whole[: len(whole) // 2]: cut, b"\n<!DOCTYPE html><html>": "a web page"}
    for content, what in contents.items():
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(DataError, match=rf"bad\.npz is {what}"):
            load_dataset(str(tmp_path / "bad.npz"))
    corrupted = bytearray(whole)
    corrupted[1000] ^= 255
    (tmp_path / "bad.npz").write_bytes(corrupted)
    with pytest.raises(DataError, match=r"bad\.npz cannot be read"):
        load_dataset(str(tmp_path / "bad.npz"))
    with pytest.raises(DataError, match="There is no file"):
        load_dataset(str(tmp_path / "absent.npz"))


def test_npz_without_an_array_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", x_train=np.zeros((2, 4), np.uint8), y_train=np.zeros(2, int))
    with pytest.raises(DataError, match="lacks x_test, y_test"):
        load_dataset(str(tmp_path / "own.npz"))


class _Trap:
    """Leaves a trace when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    name = write_npz(tmp_path / "own.npz", y_train=np.array([_Trap(tmp_path / "trace")] * 12))
    with pytest.raises(DataError, match="cannot be read"):
        load_dataset(name)
    assert not (tmp_path / "trace").exists()
