"""What two trainings measured, held against each other."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np


def assert_same_passes(first: Any, second: Any) -> None:
    """Assert that two passes over samples measured the same, bit for bit."""
    assert type(first) is type(second)
    for field in fields(first):
        np.testing.assert_equal(getattr(first, field.name), getattr(second, field.name), err_msg=field.name)


def assert_same_records(first: list[Any], second: list[Any]) -> None:
    """Assert that two trainings measured the same, bit for bit, but for the time it took."""
    assert [r.epoch for r in first] == [r.epoch for r in second]
    for a, b in zip(first, second, strict=True):
        assert_same_passes(a.train, b.train)
        assert_same_passes(a.test, b.test)
        assert (a.validation is None) == (b.validation is None)
        if a.validation is not None:
            assert_same_passes(a.validation, b.validation)
        np.testing.assert_equal([a.weight_norm, a.weights], [b.weight_norm, b.weights])
        assert a.learning_rate == b.learning_rate
