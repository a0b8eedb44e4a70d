"""A logarithm without branches or calls, of which LLVM makes vector code; libm's takes ten times as long in a loop."""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

__all__ = ["log"]


def log(x):
    """Return the logarithm of a positive, normal number, to within two units in the last place; for kernels only.

    Notes
    -----
    The method of FDLIBM (Sun Microsystems, 1993): x = 2^k (1 + f) with √½ ≤ 1 + f < √2, r = f/(2 + f), and
    log(1 + f) = 2 artanh(r) = f - f²/2 + r (f²/2 + R(r²)), R being the minimax polynomials of that library.
    """
    raise NotImplementedError("it is compiled into kernels")


@overload(log, inline="never", jit_options={"fastmath": {"contract", "nnan", "nsz"}, "error_model": "numpy"})
def _log(x):
    if x == types.float32:

        def single(x):
            bits = np.float32(x).view(np.int32)
            k = np.int32(np.int32(bits - np.int32(0x3F3504F3)) >> np.int32(23))
            f = np.int32(bits - np.int32(k << np.int32(23))).view(np.float32) - np.float32(1)
            r = f / (np.float32(2) + f)
            z = r * r
            w = z * z
            odd = z * (np.float32(0.66666662693) + w * np.float32(0.28498786688))
            even = w * (np.float32(0.40000972152) + w * np.float32(0.24279078841))
            half = np.float32(0.5) * f * f
            low = r * (half + (odd + even)) + np.float32(k) * np.float32(9.0580006145e-06)
            return np.float32(k) * np.float32(0.69313812256) - ((half - low) - f)

        return single
    if x == types.float64:

        def double(x):
            bits = np.float64(x).view(np.int64)
            k = np.int64(bits - np.int64(0x3FE6A09E667F3BCD)) >> np.int64(52)
            f = np.int64(bits - np.int64(k << np.int64(52))).view(np.float64) - 1.0
            r = f / (2.0 + f)
            z = r * r
            w = z * z
            odd = z * (
                0.6666666666666735130
                + w * (0.2857142874366239149 + w * (0.1818357216161805012 + w * 0.1479819860511658591))
            )
            even = w * (0.3999999999940941908 + w * (0.2222219843214978396 + w * 0.1531383769920937332))
            half = 0.5 * f * f
            low = r * (half + (odd + even)) + k * 1.90821492927058770002e-10
            return k * 0.693147180369123816490 - ((half - low) - f)

        return double
    return None
