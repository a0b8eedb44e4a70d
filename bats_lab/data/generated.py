"""Data sets of events that are computed, from nothing or from signals that travel with the package."""

from __future__ import annotations

import math
from importlib import resources

import numpy as np

from bats_lab.spikes.encoding import encode_changes
from bats_lab.spikes.trains import Spikes

__all__ = ["japanese_vowels", "yin_yang"]

#: Seeds and sizes of its paper. The third split there, of 1,000 samples and seed 41, is for choices; runs here hold out
#: training samples for these (`validation_fraction`), as on all data sets.
_SPLITS = {"train": (42, 5000), "test": (40, 1000)}
_RADIUS, _DOT = 0.5, 0.1

#: Seconds from frame to frame of the utterances, and how many of them are for training.
_FRAME, _N_TRAIN = 0.0064, 270


def yin_yang(*, window: float = 0.1, splits: dict[str, tuple[int, int]] = _SPLITS) -> dict[str, np.ndarray | Spikes]:
    r"""Return the Yin-Yang data set: a point is in the yin, in the yang, or in one of the dots; five spikes say where.

    .. math:: t = W\,(x,\; y,\; 1 - x,\; 1 - y,\; 0), \qquad x, y \in [0, 1]

    Parameters
    ----------
    window : float
        Window :math:`W` in which spikes fall, in seconds.
    splits : dict of str to (int, int)
        Seed and number of samples of each split.

    Returns
    -------
    dict of str to Spikes or ndarray of int64
        Events ``x_…`` of five channels and labels ``y_…`` of each split: 0 yin, 1 yang, 2 dot, as its authors have
        them. The fifth channel, the bias, tells when a sample begins.

    Notes
    -----
    L. Kriener, J. Göltz, M. A. Petrovici, *The Yin-Yang dataset*, NICE 2022: random numbers are drawn as there, so
    that the points are the published ones, to the last bit.

    Examples
    --------
    >>> data = yin_yang(splits={"test": (40, 3)})
    >>> data["y_test"], data["x_test"].padded()[0, :, 0].round(4)
    (array([2, 2, 1]), array([0.0234, 0.0402, 0.0766, 0.0598, 0.    ]))
    """
    arrays: dict[str, np.ndarray | Spikes] = {}
    for split, (seed, n_samples) in splits.items():
        random = np.random.RandomState(seed)
        samples = [_point(random) for _ in range(n_samples)]
        x, y = np.array([point for *point, _ in samples]).T
        arrays[f"x_{split}"] = Spikes.from_padded(window * np.stack([x, y, 1 - x, 1 - y, 0 * x], axis=1))
        arrays[f"y_{split}"] = np.array([label for *_, label in samples], np.int64)
    return arrays


def japanese_vowels(*, step: float = 0.1) -> dict[str, np.ndarray | Spikes]:
    """Return the Japanese Vowels data set: who of nine speakers says /ae/, from how the sound's spectrum changes.

    Parameters
    ----------
    step : float
        Distance of the levels of :func:`bats_lab.spikes.encoding.encode_changes`, in standard deviations of each
        coefficient over the training utterances.

    Returns
    -------
    dict of str to Spikes or ndarray of int64
        Events ``x_…`` of 24 channels, two for each of the twelve coefficients, and labels ``y_…`` of each split.

    Notes
    -----
    M. Kudo, J. Toyama, M. Shimbo, UCI Machine Learning Repository, 1999 (CC BY 4.0): linear prediction cepstrum
    coefficients of 7 to 29 frames, one every 6.4 ms; the first 270 utterances, 30 of each speaker, are for training.

    Examples
    --------
    >>> data = japanese_vowels()
    >>> len(data["x_train"]), data["x_test"].n_neurons, np.bincount(data["y_test"])
    (270, 24, array([31, 35, 88, 44, 29, 24, 40, 50, 29]))
    """
    with resources.as_file(resources.files("bats_lab") / "data" / "japanese_vowels.npz") as path, np.load(path) as kept:
        frames, speaker = kept["frames"].astype(np.int64), kept["speaker"].astype(np.int64)
        signals = np.split(kept["coefficients"] * 1e-6, np.cumsum(frames)[:-1])
    scale = np.concatenate(signals[:_N_TRAIN]).std(axis=0)
    events = encode_changes(signals, frame=_FRAME, step=step * scale)
    parts = {"train": slice(_N_TRAIN), "test": slice(_N_TRAIN, None)}
    return {
        f"{name}_{split}": values[part]
        for split, part in parts.items()
        for name, values in zip("xy", (events, speaker), strict=True)
    }


def _point(random: np.random.RandomState) -> tuple[float, float, int]:
    """Draw points until one is of the class that was drawn first."""
    wanted = random.randint(3)
    while True:
        x, y = random.rand(2) * 2 * _RADIUS
        if math.hypot(x - _RADIUS, y - _RADIUS) <= _RADIUS and _class(x, y) == wanted:
            return x, y, wanted


def _class(x: float, y: float) -> int:
    right, left = (math.hypot(x - part * _RADIUS, y - _RADIUS) for part in (1.5, 0.5))
    if min(right, left) < _DOT:
        return 2
    return int(_DOT < left <= _RADIUS / 2 or (y > _RADIUS and right > _RADIUS / 2))
