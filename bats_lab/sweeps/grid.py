"""The grid of a sweep: every combination of values, and what tells its runs apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bats_lab.config import Config, parameters

__all__ = ["MOST_RUNS", "describe_runs", "expand_grid"]

#: Runs of a sweep at most; their list alone takes seconds then, and a number with too many digits would take for ever.
MOST_RUNS = 100_000


def expand_grid(values: Mapping[str, Any], *, seeds: int | Sequence[int] | None = None) -> list[Config]:
    """Build the configurations of a sweep: every combination of the values given.

    Parameters
    ----------
    values : mapping
        For each parameter of :class:`Config` its value, or a list of values. A parameter that is itself a list, as
        `hidden`, is swept by a list of lists.
    seeds : int or list of int, optional
        Seeds, or their number: 3 stands for 0, 1, 2.

    Returns
    -------
    list of Config
        Without repetitions. The seed varies slowest, so that a sweep that is stopped has seen all values.

    Raises
    ------
    ValueError, TypeError
        If a name is no parameter, any combination is not allowed, or there are more than :data:`MOST_RUNS`; nothing has
        been started then.

    Examples
    --------
    >>> expand_grid({"delta_t": [0.004, 0], "rule": "clocked"})
    Traceback (most recent call last):
        ...
    ValueError: rule is 'clocked' with delta_t 0; a clock needs a time step above 0.
    >>> [(c.seed, c.delta_t) for c in expand_grid({"delta_t": [0, 0.004]}, seeds=2)]
    [(0, 0.0), (0, 0.004), (1, 0.0), (1, 0.004)]
    """
    values = dict(values)
    if seeds is not None:
        if "seed" in values:
            raise ValueError("seed and seeds are both given; give the one or the other.")
        if isinstance(seeds, bool) or (isinstance(seeds, int) and seeds < 1):
            raise ValueError(f"seeds is {seeds!r}; it must be a number of seeds, at least 1, or a list of seeds.")
        if isinstance(seeds, int) and seeds > MOST_RUNS:
            raise ValueError(f"seeds is {seeds}; a sweep has at most {MOST_RUNS} runs.")
        values["seed"] = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    axes = {name: _axis(name, values[name]) for name in sorted(values, key=lambda name: name != "seed")}
    Config.from_dict({name: axes[name][0] for name in values})  # names first, then values
    if (number := math.prod(map(len, axes.values()))) > MOST_RUNS:
        raise ValueError(f"The values given make {number} combinations; a sweep has at most {MOST_RUNS} runs.")
    configs = [Config.from_dict(dict(zip(axes, point, strict=True))) for point in itertools.product(*axes.values())]
    return list({config.identity: config for config in configs}.values())


def _axis(name: str, given: Any) -> list[Any]:
    """List the values of one parameter."""
    if hasattr(given, "tolist"):
        given = given.tolist()
    if not isinstance(given, (list, tuple, range)):
        return [given]
    is_tuple = any(p.name == name and p.type is tuple for p in parameters())
    if is_tuple and not any(isinstance(value, (list, tuple)) or value is None for value in given):
        return [list(given)]
    if not given:
        raise ValueError(f"{name} has no values; give at least one.")
    return list(given)


def describe_runs(configs: Sequence[Config]) -> list[str]:
    """Name each run by the parameters in which the runs differ; by what it keeps only if nothing else does."""
    differ = [p for p in parameters() if len({getattr(c, p.name) for c in configs}) > 1]

    def named(names: Sequence[str]) -> list[str]:
        return [", ".join(f"{name} {_plain(getattr(config, name))}" for name in names) for config in configs]

    labels = named([p.name for p in differ if p.measured])
    if len(set(labels)) < len(configs):
        labels = named([p.name for p in differ])
    return labels if differ else named(["dataset", "delta_t"])


def _plain(value: Any) -> str:
    return "-".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)
