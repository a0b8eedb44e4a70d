"""The ear's model against what is known of it, and the digits that are spoken into it, where espeak-ng is there."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from bats_lab.cli import main
from bats_lab.data import cochlea, spoken
from bats_lab.data.cochlea import RATE, hear, membrane_velocity, transfer
from bats_lab.data.datasets import hash_arrays, load_dataset
from bats_lab.data.download import download_dataset
from bats_lab.data.readers import read_own
from bats_lab.data.registry import made_file
from bats_lab.data.spoken import TEST_VOICES, VOICES, WORDS, make_spoken_digits, speak
from bats_lab.data.status import list_datasets, verify_dataset
from bats_lab.errors import DataError

CHANNELS = 36
SPEAKS = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs espeak-ng")


def tone(frequency: float, seconds: float = 0.2) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(int(seconds * RATE)) / RATE)


def test_place_on_the_membrane_tells_the_frequency() -> None:
    best = [
        int(np.sqrt((membrane_velocity(tone(f), channels=CHANNELS) ** 2).mean(axis=1)).argmax())
        for f in (250, 500, 1000, 2000, 4000)
    ]
    assert best == sorted(best, reverse=True) and len(set(best)) == 5
    # An octave is a distance of ln 4 / α = 0.46 cm, where stiffness over mass is the squared frequency.
    octaves = -np.diff(best) * 3.5 / (CHANNELS - 1)
    assert octaves == pytest.approx(np.full(4, np.log(4) / 3), abs=0.11)


def test_phase_of_the_wave_is_the_integral_in_closed_form() -> None:
    # Of the wave number g with neither damping nor offset the integral is elementary.
    frequency, index = 1000.0, round(1000.0 * cochlea.N_SAMPLES / RATE)
    values = transfer(701)[:, index]
    omega = 2 * np.pi * index * RATE / cochlea.N_SAMPLES
    x = np.linspace(0, 3.5, 701)
    ahead = x < np.log(1e9 / (0.05 * omega**2)) / 3 - 1.2  # well before the place of this frequency
    inside = 1e9 * np.exp(-3 * x[ahead]) - 0.05 * omega**2
    root, start = np.sqrt(inside / (0.05 * omega**2)), np.sqrt(1e9 / (0.05 * omega**2) - 1)
    phase = 2 / 3 * omega * np.sqrt(1 / 0.1) * (np.arctan(start) - np.arctan(root)) / (omega * np.sqrt(0.05))
    measured = np.unwrap(np.angle(values[ahead]))
    assert frequency == pytest.approx(omega / 2 / np.pi, abs=0.5)
    np.testing.assert_allclose(measured - measured[0], phase - phase[0], atol=0.12)


def test_ear_hears_nothing_before_there_is_a_sound() -> None:
    click = np.zeros(8000)
    click[4000] = 1
    velocity = membrane_velocity(click, channels=CHANNELS)
    early = (velocity[:, :3980] ** 2).sum(axis=1) / (velocity**2).sum(axis=1)
    assert early.max() < 0.02


def test_hair_cells_adapt_and_bushy_cells_rest() -> None:
    channel, times = hear(tone(500, 0.4), seed=3, channels=CHANNELS)
    busiest = np.bincount(channel, minlength=CHANNELS).argmax()
    own = times[channel == busiest]
    assert (np.diff(times) >= 0).all() and times[0] >= 0 and times[-1] < 0.4
    assert np.diff(own).min() >= 1e-3  # the refractory time
    rate = [np.count_nonzero((channel == busiest) & (times >= a) & (times < a + 0.1)) for a in (0.03, 0.25)]
    assert rate[0] >= rate[1] > 0


def test_same_seed_gives_the_same_spikes_and_another_one_others() -> None:
    sound = tone(700) + 0.1 * tone(2100)
    first, again, other = (hear(sound, seed=s, channels=CHANNELS) for s in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert len(first[1]) != len(other[1]) or (first[1] != other[1]).any()
    louder = hear(3 * sound, seed=1, channels=CHANNELS)
    assert len(louder[1]) == len(first[1])


@pytest.mark.parametrize(("sound", "message"), [(np.zeros(100), "root mean square of 0"), (np.ones(40000), "shape")])
def test_sound_that_cannot_be_heard_is_refused(sound: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hear(sound, seed=0, channels=CHANNELS)


def test_missing_program_is_named_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert main(["data", "make", "spoken_digits", "--data-dir", str(tmp_path)]) != 0
    assert "the package is called espeak-ng." in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--samples", "100"], "samples is 100; it must be a multiple of 480"), (["--seed", "-1"], "seed is -1")],
)
def test_what_cannot_be_made_is_refused(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "make", "spoken_digits", "--data-dir", str(tmp_path), *options]) != 0
    assert message in capsys.readouterr().err
    assert (
        main(["data", "make", "mnist"]) != 0 and "'mnist' cannot be made; spoken_digits can." in capsys.readouterr().err
    )


def test_made_data_set_goes_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = {"data_dir": tmp_path}
    with pytest.raises(DataError, match="'bats-lab data make spoken_digits' makes it, which takes hours"):
        load_dataset("spoken_digits", **place)
    with pytest.raises(DataError, match="is not published anywhere; 'bats-lab data make"):
        download_dataset("spoken_digits", **place)
    assert verify_dataset("spoken_digits", **place).state == "missing"
    made_file("spoken_digits", tmp_path).parent.mkdir()
    y, n = np.arange(20), np.arange(20)
    events = {f"{key}_{split}": n for key in ("sample", "channel") for split in ("train", "test")}
    events |= {f"time_{split}": 1000 * n for split in ("train", "test")}
    np.savez(made_file("spoken_digits", tmp_path), y_train=y, y_test=y, unit="us", n_channels=700, **events)
    with pytest.warns(UserWarning, match="20 and 20 samples, not 8,400 and 1,680"):
        data = load_dataset("spoken_digits", **place)
    assert data.class_names[10:12] == ("null", "eins") and data.last_time == pytest.approx(0.019)
    assert not data.official and data.x_train.n_neurons == 700
    listed = {status.name: status for status in list_datasets(tmp_path)}["spoken_digits"]
    assert listed.state == "found" and verify_dataset("spoken_digits", **place).files[0].n_entries == 40
    made_file("spoken_digits", tmp_path).write_bytes(b"damaged")
    assert main(["data", "verify", "spoken_digits", "--data-dir", str(tmp_path)]) == 1
    assert "spoken_digits.npz: damaged (" in capsys.readouterr().out


@SPEAKS
def test_voices_differ_and_speak_the_same_every_time() -> None:
    sounds = [speak("seven", f"en-us+{voice}") for voice in VOICES]
    assert len({sound.tobytes() for sound in sounds}) == len(VOICES) == 24
    np.testing.assert_array_equal(speak("seven", "en-us+m1"), sounds[0])
    assert all(0.15 * RATE < len(sound) < 1.48 * RATE for sound in sounds)
    with pytest.raises(DataError, match="espeak-ng is silent where it should say '' as en-us"):
        speak("", "en-us")


@SPEAKS
def test_espeak_without_the_voices_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(spoken, "VOICES", (*VOICES[:-1], VOICES[0]))
    with pytest.raises(DataError, match="lacks some of the voices"):
        make_spoken_digits(samples=480, data_dir=tmp_path)
    assert not list(tmp_path.iterdir())


@SPEAKS
def test_digits_are_made_with_speakers_held_out_go_on_after_a_stop_and_are_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quick(sound: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        return hear(sound, seed=seed, channels=8)  # the ear, with fewer places

    monkeypatch.setattr(spoken, "hear", quick)
    monkeypatch.setattr(spoken, "CHANNELS", 8)

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_spoken_digits(samples=480, data_dir=tmp_path, report=stop)
    assert not list(tmp_path.glob("*/*.npz"))
    path = make_spoken_digits(samples=480, data_dir=tmp_path)
    assert path == tmp_path / "spoken_digits" / "spoken_digits.npz" and len(list(path.parent.iterdir())) == 1
    again = make_spoken_digits(tmp_path / "again.npz", samples=480)
    assert path.read_bytes() == again.read_bytes()
    data = load_dataset(str(path))
    assert (len(data.y_train), len(data.y_test), data.n_classes) == (400, 80, 20)
    assert (np.bincount(data.y_train) == 20).all() and (np.bincount(data.y_test) == 4).all()
    with np.load(path) as archive:
        voices = [set(archive[f"voice_{split}"].tolist()) for split in ("train", "test")]
    assert voices[0] == set(range(20)) and [VOICES[v] for v in sorted(voices[1])] == list(TEST_VOICES)
    assert sum(map(len, WORDS.values())) == 20
    arrays, _, scale = read_own(path)
    assert hash_arrays(arrays) == data.data_hash and scale == "times in us"
