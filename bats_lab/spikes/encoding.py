"""Samples to input spikes: images by time to first spike, events as they are; once per data set, sorted once."""

from __future__ import annotations

import math
from dataclasses import replace

import numba
import numpy as np

from bats_lab.spikes.grid import discretize_spikes
from bats_lab.spikes.trains import Spikes

__all__ = ["encode_images", "encode_on_grid", "level_times", "n_channels", "n_events"]

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
        spikes = discretize_spikes(samples, delta_t)
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
