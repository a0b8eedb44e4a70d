"""Runs apart by whose spikes their errors count (`error_counts`, `error_layers`)."""

from __future__ import annotations

import itertools

import xarray as xr

__all__ = ["by_counts", "own_counts"]

_DEFAULTS = {"error_counts": "own", "error_layers": "output"}


def by_counts(results: xr.Dataset) -> dict[str, xr.Dataset]:
    """Return runs by whose spikes their errors count, as ``own``, ``merge, output layer`` or ``merge, all layers``.

    Time steps and seeds of which a part has no run are left out of it. ``own`` comes first.
    """
    dims = [dim for dim in _DEFAULTS if dim in results.dims]
    found = {}
    for values in itertools.product(*(results[dim].values.tolist() for dim in dims)):
        part = results.sel(dict(zip(dims, values, strict=True)))
        if not bool(part["accuracy"].notnull().any()):
            continue
        counts, layers = (str(part[d].values) if d in part.coords else own for d, own in _DEFAULTS.items())
        label = f"{counts}, {'all layers' if layers == 'all' else 'output layer'}"
        found["own" if counts == "own" else label] = _known(part)
    return {label: found[label] for label in sorted(found, key=lambda label: (label != "own", label))}


def own_counts(results: xr.Dataset) -> xr.Dataset:
    """Return the runs whose errors are made of their own counts, as the thesis' are; KeyError where there are none."""
    return by_counts(results)["own"]


def _known(part: xr.Dataset) -> xr.Dataset:
    for dim in ("delta_t", "seed"):
        if dim in part.dims:
            others = [d for d in part["accuracy"].dims if d != dim]
            part = part.sel({dim: part["accuracy"].notnull().any(others)})
    return part
