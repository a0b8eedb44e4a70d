"""The table of named data sets: a row each, with its files, what is published of them, and where they can be had."""

from __future__ import annotations

import difflib
import gzip
import hashlib
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from bats_lab.data.generated import japanese_vowels, yin_yang
from bats_lab.files import most_unpacked, open_file

__all__ = [
    "ARRAYS",
    "DATASETS",
    "EMBEDDED",
    "DatasetInfo",
    "IdxFile",
    "data_directory",
    "dataset_info",
    "find_files",
    "made_file",
    "own_file",
]

#: The four arrays of a data set.
ARRAYS = ("x_train", "y_train", "x_test", "y_test")

#: Folder of the digits that travel with the package.
EMBEDDED = resources.files("bats_lab") / "data"


@dataclass(frozen=True)
class IdxFile:
    """One official file."""

    name: str
    array: str  #: which array it holds
    count: int  #: images or labels in it
    md5: str | None = None  #: of its uncompressed content
    sha256: str | None = None  #: of the file as published, compressed; looked at where no `md5` is known

    @property
    def n_bytes(self) -> int:
        """Bytes of its uncompressed content, which the published file is smaller than."""
        return 16 + 784 * self.count if self.array.startswith("x") else 8 + self.count


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a named data set."""

    description: str  #: one line for people
    class_names: tuple[str, ...] = tuple("0123456789")  #: what the labels stand for
    files: tuple[IdxFile, ...] = ()  #: the official files; none for the embedded data set
    mirrors: tuple[str, ...] = ()  #: URLs of folders that hold the files, or of zip archives that contain them
    make: Callable[[], dict[str, Any]] | None = None  #: what computes the four arrays, where they are not read
    made: str = ""  #: the one file, of events, that ``bats-lab data make`` writes
    n_samples: tuple[int, int] = (0, 0)  #: training and test samples of such a file
    transposed: bool = False  #: whether the files hold rows and columns of the images swapped


_KINDS = {32: "md5", 64: "sha256"}


def _files(split: str, prefix: str, count: int, images: str, labels: str) -> list[IdxFile]:
    """List the two files of a split; `images` and `labels` are their MD5s, or SHA-256s."""
    return [
        IdxFile(
            f"{prefix}-{name}-ubyte.gz", f"{array}_{split}", count, **{"md5" if len(sum_) == 32 else "sha256": sum_}
        )
        for name, array, sum_ in (("images-idx3", "x", images), ("labels-idx1", "y", labels))
    ]


_CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

#: The named data sets.
DATASETS: dict[str, DatasetInfo] = {
    "mnist_small": DatasetInfo("the first 10,000 training and 2,000 test digits of MNIST, shipped with the package"),
    "mnist": DatasetInfo(
        "MNIST handwritten digits, 60,000 and 10,000 images of 10 classes",
        files=(
            *_files("train", "train", 60_000, "6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624"),
            *_files("test", "t10k", 10_000, "2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637"),
        ),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
    ),
    "fashion_mnist": DatasetInfo(
        "Fashion-MNIST articles of clothing, 60,000 and 10,000 images of 10 classes",
        _CLOTHES,
        files=(
            *_files("train", "train", 60_000, "f4a8712d7a061bf5bd6d2ca38dc4d50a", "9018921c3c673c538a1fc5bad174d6f9"),
            *_files("test", "t10k", 10_000, "8181f5470baa50b63fa0f6fddb340f0a", "15d484375f8d13e6eb1aabb0c3f46965"),
        ),
        mirrors=(
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        ),
    ),
    "emnist": DatasetInfo(
        "EMNIST Balanced handwritten digits and letters, 112,800 and 18,800 images of 47 classes",
        tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"),
        # Of these, checksums are known of the files as they lie in NIST's archive, compressed.
        files=(
            *_files(
                "train",
                "emnist-balanced-train",
                112_800,
                "74295e75e4e9fa2c102147460ee7eb763653d5132d883a84fb88932bfb8d2db4",
                "b46d41e5156a0a8aaaa4d18979fdd1588850fa8571018acffd5d93b325a7d6ed",
            ),
            *_files(
                "test",
                "emnist-balanced-test",
                18_800,
                "117fc12b015e37ea98bfb2cbba3f77c3782c056cdbd219b87abfc8661d7135db",
                "a67cac948379b67270b9a4d0a01c8ec661598accf2f2b1964340b7c83cb175cd",
            ),
        ),
        mirrors=(
            "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
            "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST/gzip.zip",
        ),
        transposed=True,
    ),
    "yin_yang": DatasetInfo(
        "Yin-Yang, 5,000 and 1,000 points told by when five channels spike, of 3 classes; computed",
        ("yin", "yang", "dot"),
        make=yin_yang,
    ),
    "japanese_vowels": DatasetInfo(
        "Japanese Vowels, 270 and 370 utterances of 9 speakers, told by changes of 12 cepstrum coefficients; shipped",
        tuple(map(str, range(1, 10))),
        make=japanese_vowels,
    ),
    "spoken_digits": DatasetInfo(
        "Spoken digits of espeak-ng, 8,400 and 1,680, English and German, heard by a model of the ear; synthetic",
        (
            *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
            *("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"),
        ),
        made="spoken_digits.npz",
        n_samples=(8_400, 1_680),
    ),
}


def dataset_info(name: str) -> DatasetInfo:
    """Return the row of a named data set; a ValueError says which name comes close."""
    if name in DATASETS:
        return DATASETS[name]
    near = difflib.get_close_matches(name, DATASETS, n=1)
    hint = f"; did you mean {near[0]}?" if near else "."
    raise ValueError(
        f"dataset is {name!r}; it must be one of {', '.join(DATASETS)}, or the path of an .npz file with your own "
        f"images or events, or of a .csv of events{hint}"
    )


def own_file(name: str) -> bool:
    """Return whether a data set is a file of the user's own: its name is a path to an ``.npz`` or a ``.csv``."""
    return name.endswith((".npz", ".csv"))


def data_directory(data_dir: str | Path | None = None) -> Path:
    """Return the folder that holds the full data sets; it need not exist.

    That is the one given, else that of the environment variable ``BATS_LAB_DATA``, else one in the user's cache.
    """
    chosen = data_dir or os.environ.get("BATS_LAB_DATA")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("bats_lab") / "data"


def made_file(name: str, data_dir: str | Path | None = None) -> Path:
    """Return where the file of a data set lies that ``bats-lab data make`` writes; it need not exist."""
    return data_directory(data_dir) / name / dataset_info(name).made


def find_files(name: str, file: IdxFile, data_dir: str | Path | None = None) -> list[Path]:
    """List where a file of a data set lies, the likeliest place first.

    That is its folder in the data directory, or below it (``emnist/gzip``, a folder a file), or torchvision's
    (``MNIST/raw``); and, since MNIST and Fashion-MNIST have files of the same names, in the data directory itself where
    the content, or the name, tells whose it is. Each may be compressed or not, and be called ``….idx3-ubyte``.
    """
    root, plain = data_directory(data_dir), file.name.removesuffix(".gz")
    names = [n + end for n in (plain, plain.replace("-idx", ".idx")) for end in (".gz", "")]
    raw = root / {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "emnist": "EMNIST"}.get(name, name) / "raw"
    own = root / name
    folders = [own, *(f for depth in ("*/", "*/*/") for f in sorted(own.glob(depth)) if f.name[0] != "."), raw]
    paths = [path for folder in dict.fromkeys(folders) for n in names if (path := folder / n).is_file()]
    shared = [path for n in names if (path := root / n).is_file()]
    return paths or [path for path in shared if plain.startswith(name) or _md5(path) == file.md5]


def _md5(path: Path) -> str:
    """Return the MD5 of a file's uncompressed content; empty if it cannot be read, or holds too much to be honest."""
    digest, left = hashlib.md5(usedforsecurity=False), most_unpacked(path.stat().st_size)
    try:
        with open_file(path) as file:
            compressed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            with gzip.GzipFile(fileobj=file) if compressed else file as stream:
                while left >= 0 and (piece := stream.read(1 << 20)):
                    digest.update(piece)
                    left -= len(piece)
    except (OSError, EOFError, zlib.error):
        return ""
    return digest.hexdigest() if left >= 0 else ""
