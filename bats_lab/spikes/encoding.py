"""Samples to input spikes, sorted once: by time to first spike, once or again, by rates, by changes, or as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numba
import numpy as np

from bats_lab.spikes.grid import discretize_spikes
from bats_lab.spikes.trains import Spikes

__all__ = [
    "encode_changes",
    "encode_images",
    "encode_on_grid",
    "encode_periods",
    "encode_rates",
    "level_times",
    "n_channels",
    "n_events",
]

#: Images that :func:`encode_on_grid` encodes together.
_BLOCK = 4096


def level_times(window: float) -> np.ndarray:
    """Return the spike time of each pixel value, in seconds: float64 (256,), ``inf`` for 0, which never fires.

    Parameters
    ----------
    window : float
        Window in which spikes fall, in seconds: the brightest pixels fire at 0, the darkest just before its end.

    Raises
    ------
    ValueError
        If `window` is not above 0 or not finite.

    Examples
    --------
    >>> level_times(0.1)[[0, 51, 255]]
    array([ inf, 0.08, 0.  ])
    """
    if not (window > 0 and math.isfinite(window)):
        raise ValueError(f"window is {window}; it must be above 0 s and finite.")
    times = window * (1 - np.arange(256) / 255)
    times[0] = np.inf
    return times


def encode_images(images: np.ndarray, *, window: float, dtype: str = "float64") -> Spikes:
    r"""Turn each pixel into at most one spike: the brighter, the earlier.

    .. math:: t(p) = W \, (1 - p / 255), \qquad p \in 1..255

    Parameters
    ----------
    images : ndarray of uint8, (n, ...)
        Images; a neuron is a pixel, in row-major order. A pixel of value 0 never fires.
    window : float
        Window :math:`W` in which spikes fall, in seconds.
    dtype : str
        Type in which times are kept, ``float32`` or ``float64``. Times are computed in float64; put them on a
        time grid before they are rounded to float32, else some fall on a neighbouring tick.

    Returns
    -------
    Spikes
        Spikes in continuous time, ascending in each sample; equal times in ascending order of neurons.

    Raises
    ------
    TypeError
        If `images` is not of type uint8.
    ValueError
        If `images` has less than two dimensions, or `window` or `dtype` is not allowed.

    Notes
    -----
    Time-to-first-spike encoding, as in the thesis; its window is 0.1 s.

    Examples
    --------
    >>> spikes = encode_images(np.array([[0, 51, 255, 51]], dtype=np.uint8), window=0.1)
    >>> spikes.neuron, spikes.times
    (array([2, 1, 3], dtype=int32), array([0.  , 0.08, 0.08]))
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise TypeError(f"images is of type {images.dtype}; it must be uint8.")
    if images.ndim < 2:
        raise ValueError(f"images has the shape {images.shape}; it must be (n, pixels) or (n, rows, cols).")
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype is {dtype!r}; it must be float32 or float64.")
    pixels = np.ascontiguousarray(images).reshape(len(images), math.prod(images.shape[1:]))
    count = np.count_nonzero(pixels, axis=1).astype(np.int64)
    stop = np.cumsum(count)
    n_events = int(stop[-1]) if len(stop) else 0
    neuron, times = np.empty(n_events, np.int32), np.empty(n_events, dtype)
    _sort_pixels(pixels, stop - count, level_times(window).astype(dtype), neuron, times)
    return Spikes(
        start=stop - count,
        count=count,
        neuron=neuron,
        times=times,
        ticks=np.zeros(n_events, np.int32),
        n_neurons=pixels.shape[1],
    )


def encode_changes(signals: Sequence[np.ndarray], *, frame: float, step: np.ndarray | float) -> Spikes:
    r"""Turn signals into a spike wherever one crosses a level, upward or downward: level crossing, or delta encoding.

    Levels are the multiples of a step. Between frames a signal is a straight line; before its first frame it rises from
    0 within one, so that what it begins with is told, too.

    Parameters
    ----------
    signals : sequence of ndarray, (frame, channel)
        Signal of each sample; samples may differ in length.
    frame : float
        Time from frame to frame, in seconds.
    step : float or ndarray, (channel,)
        Distance of levels, in the signal's unit, of all channels or of each.

    Returns
    -------
    Spikes
        In continuous time. Neuron ``2 * channel`` tells of upward crossings, the next one of downward crossings.

    Raises
    ------
    ValueError
        If `frame` or a step is not above 0, or a signal holds what is not finite.

    Notes
    -----
    Spikes of sample `i`, channel `c` up minus those down, times the step, are the signal but for less than a step.

    Examples
    --------
    >>> spikes = encode_changes([np.array([[0.25], [0.05]])], frame=0.01, step=0.1)
    >>> spikes.neuron, spikes.times.round(4)
    (array([0, 0, 1, 1], dtype=int32), array([0.004 , 0.008 , 0.0125, 0.0175]))
    """
    if not (frame > 0 and math.isfinite(frame) and np.all(np.asarray(step) > 0)):
        raise ValueError(f"frame is {frame} s and step {step}; both must be above 0 and finite.")
    lengths = np.array([len(signal) for signal in signals])
    after = np.concatenate(signals).astype(np.float64) / step
    if not np.isfinite(after).all():
        raise ValueError("signals holds NaN or infinity; it must be finite.")
    before = np.roll(after, 1, axis=0)
    before[np.cumsum(lengths) - lengths] = 0
    up = after > before
    # The first level beyond where a stretch begins, and how many of them it reaches.
    first = np.where(up, np.floor(before) + 1, np.ceil(before) - 1)
    n = np.where(up, np.floor(after) - first + 1, first - np.ceil(after) + 1).astype(np.int64).clip(0)
    stretch, channel = (index.ravel() for index in np.indices(after.shape))
    which = np.repeat(np.arange(n.size), n.ravel())
    place = np.arange(len(which)) - np.repeat(np.cumsum(n) - n.ravel(), n.ravel())
    start, end, rising = (values.ravel()[which] for values in (before, after, up))
    level = first.ravel()[which] + np.where(rising, place, -place)
    sample = np.repeat(np.arange(len(lengths)), lengths)
    begin = np.arange(len(after)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    times = frame * (begin[stretch[which]] + (level - start) / (end - start))
    return Spikes.from_events(
        sample[stretch[which]],
        2 * channel[which] + ~rising,
        times,
        n_samples=len(lengths),
        n_neurons=2 * after.shape[1],
    )


def encode_rates(images: np.ndarray, *, window: float, rate: float, seed: int = 0) -> Spikes:
    r"""Turn pixels into Poisson spike trains: the brighter, the more spikes, at times that tell nothing.

    Parameters
    ----------
    images : ndarray of uint8, (n, ...)
        Images; a neuron is a pixel, in row-major order.
    window : float
        Window in which spikes fall, in seconds.
    rate : float
        Spikes a second of the brightest pixels, 255, on average; that of others is in proportion.
    seed : int
        Seed of the random numbers.

    Returns
    -------
    Spikes
        In continuous time.

    Raises
    ------
    TypeError
        If `images` is not of type uint8.
    ValueError
        If `window` or `rate` is not above 0.

    Examples
    --------
    >>> encode_rates(np.full((2, 3), 255, np.uint8), window=0.1, rate=100).count
    array([24, 39])
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise TypeError(f"images is of type {images.dtype}; it must be uint8.")
    if not (0 < window < math.inf and 0 < rate < math.inf):
        raise ValueError(f"window is {window} s and rate {rate} 1/s; both must be above 0 and finite.")
    rng, pixels = np.random.default_rng(seed), images.reshape(len(images), -1)
    count = rng.poisson(pixels * (window * rate / 255))
    sample, neuron = (np.repeat(index.ravel(), count.ravel()) for index in np.indices(count.shape))
    times = rng.uniform(0, window, len(sample))
    return Spikes.from_events(sample, neuron, times, n_samples=len(images), n_neurons=pixels.shape[1])


def encode_periods(images: np.ndarray, *, window: float, n_spikes: int) -> Spikes:
    r"""Turn each pixel into several spikes: the earlier in each of several periods, the brighter.

    .. math:: t_k(p) = \frac{W}{n} \left(k + 1 - \frac{p}{255}\right), \qquad p \in 1..255,\; k \in 0..n-1

    Parameters
    ----------
    images : ndarray of uint8, (n, ...)
        Images; a neuron is a pixel, in row-major order. A pixel of value 0 never fires.
    window : float
        Window :math:`W` in which spikes fall, in seconds.
    n_spikes : int
        Spikes of a pixel, and periods of the window; 1 is :func:`encode_images`.

    Returns
    -------
    Spikes
        In continuous time.

    Raises
    ------
    TypeError
        If `images` is not of type uint8.
    ValueError
        If `window` is not above 0, or `n_spikes` not at least 1.

    Examples
    --------
    >>> encode_periods(np.array([[0, 51, 255]], np.uint8), window=0.1, n_spikes=2).padded()[0]
    array([[ inf,  inf],
           [0.04, 0.09],
           [0.  , 0.05]])
    """
    if n_spikes < 1:
        raise ValueError(f"n_spikes is {n_spikes}; it must be at least 1.")
    once = encode_images(images, window=window).padded(1) / n_spikes
    return Spikes.from_padded(once + window / n_spikes * np.arange(n_spikes))


def n_channels(samples: np.ndarray | Spikes) -> int:
    """Return how many input neurons samples have: a pixel each, or a channel each."""
    return samples.n_neurons if isinstance(samples, Spikes) else math.prod(samples.shape[1:])


def n_events(samples: np.ndarray | Spikes) -> int:
    """Return how many input spikes samples become."""
    return int(samples.count.sum() if isinstance(samples, Spikes) else np.count_nonzero(samples))


def encode_on_grid(samples: np.ndarray | Spikes, *, window: float, delta_t: float, dtype: str) -> Spikes:
    """Encode samples and put the spikes on a time grid; images a block at a time: what is between takes no memory.

    Parameters
    ----------
    samples : ndarray of uint8, (n, ...), or Spikes
        Images, as in :func:`encode_images`; or events in continuous time, which keep their times. Events of one channel
        that come to be on one tick are all sent on it.
    window : float
        As in :func:`encode_images`; events have no need of it.
    delta_t : float
        Time step in seconds; 0 is continuous time.
    dtype : str
        Type in which times are kept; ticks come from times in float64.

    Returns
    -------
    Spikes
    """
    if isinstance(samples, Spikes):
        spikes = discretize_spikes(samples.packed(), delta_t)
        return replace(spikes, times=spikes.times.astype(dtype, copy=False))
    images, n = samples, n_events(samples)
    neuron, times, ticks = np.empty(n, np.int32), np.empty(n, dtype), np.empty(n, np.int32)
    count, end = np.empty(len(images), np.int64), 0
    for first in range(0, max(len(images), 1), _BLOCK):
        block = discretize_spikes(encode_images(images[first : first + _BLOCK], window=window), delta_t)
        part = slice(end, end := end + len(block.neuron))
        neuron[part], times[part], ticks[part] = block.neuron, block.times, block.ticks
        count[first : first + _BLOCK] = block.count
    start = np.cumsum(count) - count
    return replace(block, start=start, count=count, neuron=neuron, times=times, ticks=ticks)


@numba.njit(cache=True, nogil=True)
def _sort_pixels(
    pixels: np.ndarray, start: np.ndarray, level_time: np.ndarray, neuron: np.ndarray, times: np.ndarray
) -> None:
    """Write each image's pixels from the brightest down to 1: a counting sort, which keeps equal ones in order."""
    place = np.empty(256, np.int64)
    for i in range(pixels.shape[0]):
        place[:] = 0
        for pixel in pixels[i]:
            place[pixel] += 1
        at = start[i]
        for level in range(255, 0, -1):
            place[level], at = at, at + place[level]
        for j in range(pixels.shape[1]):
            level = pixels[i, j]
            if level:
                neuron[place[level]] = j
                times[place[level]] = level_time[level]
                place[level] += 1
