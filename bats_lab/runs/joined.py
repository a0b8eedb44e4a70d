"""How the labels of several runs are joined, and where each run's own lie among them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from bats_lab.runs.cache import Layout
from bats_lab.runs.metrics import COORDINATES, NO_CLASS

__all__ = ["Positions", "join_labels"]


def join_labels(layouts: Iterable[Layout]) -> dict[str, np.ndarray]:
    """Return the labels of each dimension over all runs, in the order a person expects."""
    layouts = list(layouts)
    return {
        dim: _ordered(dim, [layout.coords[dim] for layout in layouts if dim in layout.coords])
        for dim in COORDINATES
        if any(dim in layout.coords for layout in layouts)
    }


def _ordered(dim: str, several: Sequence[np.ndarray]) -> np.ndarray:
    """Join the labels of one dimension over all runs, in the order a person expects."""
    first = several[0]
    if all(labels is first or np.array_equal(labels, first) for labels in several):
        return first
    joined = list(dict.fromkeys(label for labels in several for label in labels.tolist()))
    if COORDINATES[dim].dtype != "U":
        joined.sort()
    elif dim == "layer":
        joined.sort(key=lambda name: (name == "output", len(name), name))
    elif dim == "predicted_class":
        joined.sort(key=lambda name: name == NO_CLASS)
    return np.array(joined)


class Positions:
    """Where the labels of a run lie among the joined labels of a dimension."""

    def __init__(self, labels: Mapping[str, np.ndarray]) -> None:
        self._index = {dim: {label: i for i, label in enumerate(values.tolist())} for dim, values in labels.items()}
        self.of = functools.cache(self._of)  # runs of one layout share what is found

    def _of(self, layout: Layout, dims: tuple[str, ...]) -> list[np.ndarray]:
        """Return them for each of `dims`."""
        return [
            np.array([self._index[dim][label] for label in layout.coords[dim].tolist()], dtype=np.intp) for dim in dims
        ]
