"""Events in the formats of others, written byte for byte as their pages say."""

from __future__ import annotations

import struct
from pathlib import Path

import h5py
import numpy as np
import pytest

from bats_lab.data.datasets import ImageData, load_dataset
from bats_lab.data.recordings import (
    EVENT,
    event_dataset,
    from_structured,
    read_aedat,
    read_heidelberg,
    read_nmnist,
    read_nmnist_file,
    read_shd,
    save_events,
)
from bats_lab.errors import DataError
from bats_lab.spikes.trains import Spikes

TIMES, UNITS = [[0.25, 0.5], [], [0.125]], [[699, 3], [], [0]]


def heidelberg(path: Path, times: list[list[float]] = TIMES, units: list[list[int]] = UNITS) -> Path:
    with h5py.File(path, "w") as file:
        for name, lists, kind in (("times", times, np.float16), ("units", units, np.uint16)):
            data = file.create_dataset(f"spikes/{name}", (len(lists),), dtype=h5py.vlen_dtype(kind))
            for i, values in enumerate(lists):
                data[i] = np.array(values, kind)
        file["labels"] = np.array([1, 0, 1], np.uint16)
        file["extra/speaker"] = np.array([4, 5, 4], np.uint16)
    return path


def forty_bits(x: int, y: int, p: int, t: int) -> bytes:
    return (x << 32 | y << 24 | p << 23 | t).to_bytes(5, "big")


def aedat(path: Path, *events: tuple[int, int], header: bytes = b"#!AER-DAT2.0\r\n# made by a test\r\n") -> Path:
    path.write_bytes(header + b"".join(struct.pack(">II", *event) for event in events))
    return path


def structured(*events: tuple[int, int, int, int]) -> np.ndarray:
    return np.array(list(events), EVENT)


def test_heidelberg_files_become_a_data_set_and_an_npz_of_it(tmp_path: Path) -> None:
    for split in ("train", "test"):
        heidelberg(tmp_path / f"shd_{split}.h5")
    data = read_shd(tmp_path)
    assert isinstance(data.x_train, Spikes) and data.x_train.n_neurons == 700
    neurons, times, _ = data.x_train.sample(0)
    assert neurons.tolist() == [699, 3] and times.tolist() == [0.25, 0.5]
    assert data.x_train.count.tolist() == [2, 0, 1] and data.y_train.tolist() == [1, 0, 1]
    save_events(data, path := tmp_path / "shd.npz")
    assert load_dataset(str(path)).data_hash == data.data_hash


def test_damaged_heidelberg_files_are_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    for changes, said in (
        ({"units": [[700, 3], [], [0]]}, "goes from 0 to 700"),
        ({"times": [[250.0, 500.0], [], [125.0]]}, "must be in seconds"),
        ({"times": [[0.25], [], [0.125]]}, "as many times as units"),
        ({"times": [[-0.25, 0.5], [], [0.125]]}, "negative"),
    ):
        with pytest.raises(DataError, match=said):
            read_heidelberg(heidelberg(path, **changes))  # type: ignore[arg-type]
    path.write_bytes(heidelberg(path).read_bytes()[:1000])
    with pytest.raises(DataError, match="cut short"):
        read_heidelberg(path)
    with h5py.File(path, "w") as file:
        file["labels"] = [1]
    with pytest.raises(DataError, match="lacks spikes/times, spikes/units"):
        read_heidelberg(path)


def test_nmnist_is_five_bytes_an_event(tmp_path: Path) -> None:
    for split in ("Train", "Test"):
        for digit in range(10):
            (folder := tmp_path / split / str(digit)).mkdir(parents=True)
            (folder / "00001.bin").write_bytes(forty_bits(33, 2, 1, 70_000) + forty_bits(0, digit, 0, 300_001))
    data = read_nmnist(tmp_path)
    assert isinstance(data.x_test, Spikes) and data.x_test.n_neurons == 2 * 34 * 34
    neurons, times, _ = data.x_test.sample(7)
    assert neurons.tolist() == [(34 + 2) * 34 + 33, 7 * 34] and times.tolist() == [0.07, 0.300001]
    assert data.y_train.tolist() == list(range(10))
    (tmp_path / "Test" / "3" / "00001.bin").unlink()
    with pytest.raises(DataError, match=r"3 has no \.bin files"):
        read_nmnist(tmp_path)


def test_nmnist_marker_adds_to_the_times_after_it(tmp_path: Path) -> None:
    (path := tmp_path / "a.bin").write_bytes(forty_bits(1, 2, 0, 5) + forty_bits(0, 240, 0, 0) + forty_bits(3, 4, 1, 6))
    assert read_nmnist_file(path).tolist() == [(1, 2, 5, 0), (3, 4, 8192 + 6, 1)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (forty_bits(1, 2, 0, 5)[:4], "4 bytes"),
        (b"", "0 bytes"),
        (forty_bits(34, 2, 0, 5), "x in .* goes from 34 to 34"),
        (forty_bits(1, 2, 0, 5) + forty_bits(1, 2, 0, 4), "goes back from 5 to 4"),
    ],
)
def test_damaged_nmnist_files_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (path := tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_nmnist_file(path)


def test_aedat_has_big_endian_addresses_and_times(tmp_path: Path) -> None:
    path = aedat(tmp_path / "a.aedat", (5 << 8 | 9 << 1 | 1, 1000), (0x8000, 1100), (127 << 8, 4000))
    assert read_aedat(path).tolist() == [(9, 5, 0, 1), (0, 127, 3000, 0)]
    spikes = from_structured([read_aedat(path)])
    assert spikes.neuron.tolist() == [(128 + 5) * 128 + 9, 127 * 128] and spikes.times.tolist() == [0, 0.003]


def test_damaged_aedat_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.aedat"
    for events, header, said in (
        ([(1, 2)], b"#!AER-DAT3.1\r\n", "version: 3.1"),
        ([(1, 2)], b"", "version: none"),
        ([], b"#!AER-DAT2.0\r\n", "0 bytes"),
        ([(1 << 22, 2)], b"#!AER-DAT2.0\r\n", "address 0x400000"),
        ([(2, 9), (2, 3)], b"#!AER-DAT2.0\r\n", "goes back"),
    ):
        with pytest.raises(DataError, match=said):
            read_aedat(aedat(path, *events, header=header))
    path.write_bytes(aedat(path, (1, 2)).read_bytes()[:-3])
    with pytest.raises(DataError, match="cut short"):
        read_aedat(path)
    with pytest.raises(DataError, match="No such file"):
        read_aedat(tmp_path / "none.aedat")


def test_structured_arrays_become_events(tmp_path: Path) -> None:
    first = structured((1, 0, 7, 1), (0, 1, 9, 0))
    np.save(tmp_path / "b.npy", structured((1, 1, 2_000_000, 1)))
    spikes = from_structured([first, tmp_path / "b.npy"], (2, 2))
    assert spikes.neuron.tolist() == [5, 2, 7] and spikes.times.tolist() == [7e-6, 9e-6, 2.0]
    data = event_dataset("mine", (spikes, np.array([0, 1])), (spikes, np.array([1, 1])))
    assert isinstance(data, ImageData) and data.n_classes == 2
    with pytest.raises(DataError, match="2 integers"):
        event_dataset("mine", (spikes, np.array([0])), (spikes, np.array([1, 1])))


def test_wrong_structured_arrays_are_refused(tmp_path: Path) -> None:
    (tmp_path / "c.npy").write_bytes(b"no array")
    for one, unit, said in (
        (structured((2, 0, 7, 1)), "us", "x in recording 0 goes from 2 to 2"),
        (structured((0, 0, 7, 2)), "us", "p in recording 0"),
        (structured((0, 0, 7, 1), (0, 0, 6, 1)), "us", "goes back from 7 to 6"),
        (structured((0, 0, 7, 1)), "minutes", "unit of recording 0 is 'minutes'"),
        (np.zeros(3), "us", "must have x, y, t and p"),
        (tmp_path / "c.npy", "us", "must be an .npy file"),
    ):
        with pytest.raises(DataError, match=said):
            from_structured([one], (2, 2), unit=unit)
