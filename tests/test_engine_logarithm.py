"""The logarithm of the CPU's kernels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from bats_lab.engine.cpu.logarithm import log


@njit
def _logs(x, out):
    for i in range(len(x)):
        out[i] = log(x[i])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(seed=st.integers(0, 2**32 - 1))
def test_logarithm_is_exact_to_two_units_in_the_last_place(dtype: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    near_one, wide = 1 - random.random(500) ** 9, np.exp(random.uniform(-80, 80, 500))
    x = np.concatenate([near_one[near_one > 0], wide, [1.0]]).astype(dtype)
    out = np.empty_like(x)
    _logs(x, out)
    exact = np.log(x.astype(np.longdouble))
    np.testing.assert_array_less(abs(out - exact), 2 * np.spacing(abs(exact).astype(dtype)) + np.finfo(dtype).tiny)
