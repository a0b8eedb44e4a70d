"""Words of few bits: weights as integers times one scale a layer, states as integers times a fraction of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["TRAINED", "quantization_scales", "quantize_weights", "rounded", "scale_of", "top_level"]

#: The word length that stands for weights as they were trained.
TRAINED = 32
_MAX_BITS = 16

# Clipping points over the largest weight. Those above 1 are 2^k / (2^k - 1): with k + 1 bits they put the largest
# weight on the last level.
_CLIPPING = np.concatenate(
    [np.geomspace(1 / 32, 1, 64), 2.0 ** np.arange(1, _MAX_BITS) / (2.0 ** np.arange(1, 16) - 1)]
)
# Significant bits of a clipping point. With 15 more for the integer, a product fits the 24 bits of a float32 exactly.
_CLIPPING_DIGITS = 9


def quantize_weights(weights: Sequence[np.ndarray], bits: int) -> list[np.ndarray]:
    r"""Round weights to integers times a scale, one scale a layer.

    .. math:: w_q = s\,k, \qquad k = \operatorname{clip}(\operatorname{round}(w/s), -K, K), \qquad K = 2^{b-1} - 1

    Parameters
    ----------
    weights : sequence of ndarray, (post, pre)
        Weights of each layer.
    bits : int
        Word length `b`, 2 to 16; 32 leaves the weights as they are.

    Returns
    -------
    list of ndarray, (post, pre)
        New arrays of the same type (float64 for those that are neither float32 nor float64); every weight is exactly
        an integer from -K to K times the scale that :func:`quantization_scales` returns.

    Raises
    ------
    ValueError
        If `bits` is none of these numbers, or a weight is not finite.

    Notes
    -----
    Symmetric uniform quantization without a zero point (Jacob et al., CVPR 2018, arXiv:1712.05877). The scale is that
    of least mean squared error over a grid of clipping points, since to clip a few large weights can cost less than
    coarse levels for all others (Banner, Nahshan & Soudry, NeurIPS 2019, arXiv:1810.05723). The mean squared error
    never grows with `bits`, and weights that already are such multiples stay what they are.

    Examples
    --------
    >>> [layer] = quantize_weights([np.array([[0.9, -0.32, 0.05]])], bits=3)
    >>> layer.round(3)
    array([[ 0.902, -0.301,  0.   ]])
    """
    given = _as_floats(weights)
    return [rounded(w, scale, bits) for w, scale in zip(given, quantization_scales(given, bits), strict=True)]


def quantization_scales(weights: Sequence[np.ndarray], bits: int) -> list[float]:
    """Return the scale of each layer, what a weight of integer 1 stands for: NaN for 32 bits, 1 for a layer of zeros.

    A threshold over its layer's scale is the threshold in the chip's integer units. Parameters and errors are those of
    :func:`quantize_weights`.

    Examples
    --------
    >>> quantization_scales([np.array([[0.5, -0.25, 0.75]])], bits=3)
    [0.25]
    """
    _check_bits(bits)
    given = _as_floats(weights)
    return [math.nan if bits == TRAINED else scale_of(w, bits) for w in given]


def _check_bits(bits: Any) -> None:
    whole = isinstance(bits, int | np.integer) and not isinstance(bits, bool)
    if not whole or not (2 <= bits <= _MAX_BITS or bits == TRAINED):
        raise ValueError(
            f"bits is {bits!r}; it must be a whole number from 2 to {_MAX_BITS}, or {TRAINED} for weights as they are."
        )


def _as_floats(weights: Sequence[np.ndarray]) -> list[np.ndarray]:
    given = [np.asarray(w) for w in weights]
    given = [w if w.dtype in (np.float32, np.float64) else w.astype(np.float64) for w in given]
    for i, w in enumerate(given):
        if not np.isfinite(w).all():
            raise ValueError(f"weights of layer {i} hold {np.sum(~np.isfinite(w))} values that are not finite numbers.")
    return given


def top_level(bits: int) -> int:
    """Return the largest integer of a word; the smallest is its negative."""
    return int(2 ** (int(bits) - 1) - 1)


def rounded(w: np.ndarray, scale: float, bits: int) -> np.ndarray:
    """Round the weights of a layer to integers times its scale; NaN leaves them as they are."""
    if math.isnan(scale):
        return w.copy()
    top = top_level(bits)
    integers = np.clip(np.rint(w.astype(np.float64) / scale), -top, top)
    return (integers * scale + 0.0).astype(w.dtype)  # + 0.0: no weight is -0


def scale_of(w: np.ndarray, bits: int) -> float:
    """Return the scale of least squared error over the weights of a layer that are not 0."""
    magnitudes, top = np.sort(np.abs(w[w != 0]), axis=None).astype(np.float64), top_level(bits)
    if not magnitudes.size:
        return 1.0
    exact = _common_step(magnitudes, top)
    if exact is not None:
        return exact
    # A clipping point over 2^(b-1): a bit more halves the scale and keeps every level, so no error grows with the bits.
    fraction, exponent = np.frexp(_CLIPPING * magnitudes[-1])
    points = np.ldexp(np.ceil(fraction * 2**_CLIPPING_DIGITS) / 2**_CLIPPING_DIGITS, exponent)
    scales = np.maximum(points / 2 ** (bits - 1), np.finfo(w.dtype).tiny)
    # The error of level k in place of level k-1, (w - ks)^2 - (w - (k-1)s)^2 = s ((2k-1) s - 2w), summed over all
    # weights that are on level k or above; so a scale takes a search for each level, not a pass over the weights.
    level = np.arange(1, top + 1)
    sum_below = np.concatenate([[0.0], np.cumsum(magnitudes)])

    def squared_error(scale: float) -> float:
        begin = np.searchsorted(magnitudes, (level - 0.5) * scale)
        change = (2 * level - 1) * scale * (len(magnitudes) - begin) - 2 * (sum_below[-1] - sum_below[begin])
        return float(scale * change.sum())  # and the sum of squares, which is the same for all

    return float(min(scales, key=squared_error))


def _common_step(magnitudes: np.ndarray, top: int) -> float | None:
    """Return the greatest common divisor of numbers above 0, if it goes into them `top` times at most; else None.

    Where it does, the numbers are on a grid of that word length already, and no other scale is without error.
    """
    values = np.unique(magnitudes)
    largest = float(values[-1])
    # Euclid's algorithm. The remainder of two floats is exact.
    while len(values) <= top and largest <= top * float(values[0]):
        least = values[:1]
        remainders = np.fmod(values[1:], least)
        if not remainders.any():
            return float(least[0])
        values = np.unique(np.concatenate([least, remainders[remainders > 0]]))
    return None
