"""``spoken_digits``: digits spoken by a machine, as the spikes of an ear; synthetic, like the Heidelberg ones.

Zero to nine, in English and in German, are spoken by eSpeak NG in 24 voices, each time with a pitch and speed of
its own, and heard by :mod:`bats_lab.data.cochlea`. Four of the voices are in the test samples only.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bats_lab.data.cochlea import CHANNELS, N_SAMPLES, RATE, hear
from bats_lab.data.registry import DATASETS, made_file
from bats_lab.errors import DataError
from bats_lab.files import write_whole

__all__ = ["TEST_VOICES", "VOICES", "WORDS", "make_spoken_digits", "speak"]

#: What is said, class by class, by the voice of the language.
WORDS = {"en": DATASETS["spoken_digits"].class_names[:10], "de": DATASETS["spoken_digits"].class_names[10:]}
#: Accents of each language, one of which is drawn.
_ACCENTS = {"en": ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp"), "de": ("de",)}
#: Variants of eSpeak NG that stand for speakers; the last four are in the test samples only.
VOICES = (
    *("m1", "m2", "m3", "m4", "m6", "m7", "m8", "f1", "f3", "f4", "f5", "Alex", "Alicia", "Andrea", "Annie", "Diogo"),
    *("Jacky", "Lee", "Mario", "Michael", "f2", "m5", "Andy", "linda"),
)
TEST_VOICES = VOICES[-4:]
#: Samples of a file of their own while the data set is being made.
_PART = 240
#: What is quieter than this share of the loudest is silence; of it so many seconds are kept at the ends.
_SILENCE, _KEPT = 0.01, 0.02


def speak(text: str, voice: str, *, pitch: int = 50, speed: int = 160) -> np.ndarray:
    """Return what eSpeak NG says: float64 (sample,), 22,050 samples a second, without silence at the ends.

    Parameters
    ----------
    text : str
    voice : str
        Language and variant, as ``en-us+f2``.
    pitch, speed : int
        Pitch (0 to 99) and words a minute.

    Raises
    ------
    DataError
        If eSpeak NG is not installed, or does not speak; the message says what to install.
    """
    program = shutil.which("espeak-ng")
    if program is None:
        raise DataError("There is no espeak-ng, which speaks the digits; the package is called espeak-ng.")
    options = ["-v", voice, "-p", str(pitch), "-s", str(speed), "--stdout", text]
    said = subprocess.run([program, *options], capture_output=True, check=False, stdin=subprocess.DEVNULL)
    wave = said.stdout
    if said.returncode or wave[:4] != b"RIFF" or int.from_bytes(wave[24:28], "little") != RATE or len(wave) % 2:
        error = said.stderr.decode(errors="replace").strip().splitlines()
        raise DataError(f"espeak-ng does not say {text!r} as {voice}: {error[0] if error else 'no such sound came'}.")
    sound = np.frombuffer(wave[44:], "<i2").astype(np.float64)
    loud = np.flatnonzero(np.abs(sound) > _SILENCE * np.abs(sound).max(initial=0))
    if not len(loud):
        raise DataError(f"espeak-ng is silent where it should say {text!r} as {voice}.")
    kept = int(_KEPT * RATE)
    return sound[max(loud[0] - kept, 0) : loud[-1] + kept]


def make_spoken_digits(
    path: str | Path | None = None,
    *,
    samples: int = 10_080,
    seed: int = 0,
    data_dir: str | Path | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Path:
    """Make the data set, or go on making it where a call of the same arguments was stopped.

    Parameters
    ----------
    path : str, Path or None
        The ``.npz`` of events that is written; None: ``spoken_digits/spoken_digits.npz`` in the data directory.
    samples : int
        Samples in all, a multiple of 480: each of 24 voices says each of 20 words as often as any other.
    seed : int
        Seed of pitches, speeds, order and fibres: of the same seed, and the same eSpeak NG, come the same bytes.
    data_dir : str, Path or None
        Data directory, see :func:`bats_lab.data.registry.data_directory`.
    report : callable
        Called with a line now and then.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If `samples` is no multiple of 480 above 0, or `seed` is negative.
    DataError
        As :func:`speak`.
    """
    words = [(language, digit) for language in WORDS for digit in range(10)]
    whole = len(words) * len(VOICES)
    if samples < whole or samples % whole:
        raise ValueError(f"samples is {samples}; it must be a multiple of {whole}: every voice says every word.")
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be at least 0.")
    out = made_file("spoken_digits", data_dir) if path is None else Path(path)
    parts = out.with_name(f".{out.stem}-{samples}-{seed}")
    # What is missing is said before any work; in place of a voice that it lacks eSpeak NG speaks with another.
    if len({speak(WORDS["en"][7], f"en-us+{voice}").tobytes() for voice in VOICES}) < len(VOICES):
        raise DataError("This espeak-ng lacks some of the voices; version 1.51 has them.")
    rng = np.random.default_rng(seed)
    order = rng.permutation(samples)
    pitch, speed = rng.integers(25, 76, samples), rng.integers(120, 201, samples)
    accent = rng.random(samples)

    def utterance(number: int) -> tuple[np.ndarray, np.ndarray]:
        language, digit = words[number % len(words)]
        accents = _ACCENTS[language]
        voice = f"{accents[int(accent[number] * len(accents))]}+{VOICES[number // len(words) % len(VOICES)]}"
        sound = speak(WORDS[language][digit], voice, pitch=int(pitch[number]), speed=int(speed[number]))
        return hear(sound[: N_SAMPLES - RATE // 50], seed=int(seed * samples + number))

    for first in range(0, samples, _PART):
        part = parts / f"{first:06d}.npz"
        if not part.exists():
            heard = [utterance(int(number)) for number in order[first : first + _PART]]
            _write(part, count=[len(channel) for channel, _ in heard], **_joined(heard))
            report(f"{min(first + _PART, samples):,} of {samples:,} samples")
    _write(out, **_assemble(parts, order, words))
    shutil.rmtree(parts)
    return out


def _joined(heard: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    """Lay the events of samples one after the other; times in whole microseconds, finer than the sound's samples."""
    times = np.concatenate([times for _, times in heard])
    return {"channel": np.concatenate([c for c, _ in heard]), "time": np.rint(times * 1e6).astype(np.int32)}


def _assemble(parts: Path, order: np.ndarray, words: list[tuple[str, int]]) -> dict[str, np.ndarray]:
    """Return the arrays of a data set of events: samples of the last voices are the test samples, in the same order."""
    pieces: dict[str, list[np.ndarray]] = {"count": [], "channel": [], "time": []}
    for part in sorted(parts.glob("*.npz")):
        with np.load(part) as archive:
            for name, own in pieces.items():
                own.append(archive[name])
    count, channel, time = (np.concatenate(own) for own in pieces.values())
    voice = order // len(words) % len(VOICES)
    held_out = voice >= len(VOICES) - len(TEST_VOICES)
    arrays = {"unit": np.array("us"), "n_channels": np.array(CHANNELS)}
    for split, chosen in (("train", ~held_out), ("test", held_out)):
        of_event = np.repeat(chosen, count)
        arrays |= {f"y_{split}": order[chosen] % len(words), f"voice_{split}": voice[chosen]}
        arrays[f"sample_{split}"] = np.repeat(np.arange(chosen.sum(), dtype=np.int32), count[chosen])
        arrays |= {f"channel_{split}": channel[of_event], f"time_{split}": time[of_event]}
    return arrays


def _write(path: Path, **arrays: object) -> None:
    archive = io.BytesIO()
    arrays = {name: np.asarray(values) for name, values in arrays.items()}
    np.savez_compressed(archive, **arrays)  # type: ignore[arg-type]
    write_whole(path, archive.getbuffer())
