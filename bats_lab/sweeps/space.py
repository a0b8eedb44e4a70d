"""The space of a search: which values each parameter of a run may take, and which point of it a run is."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bats_lab.config import Config, Parameter, parameters

__all__ = ["Point", "Range", "Space"]

#: A value for each free parameter, by its name: that of the parameter, or ``hidden 2`` for the second of its entries.
Point = dict[str, Any]

#: Draws after which a space is taken to hold no further run.
_DRAWS = 1000


@dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`, both included.

    Parameters
    ----------
    low, high : float or int
    log : bool
        Whether orders of magnitude are drawn alike.
    whole : bool
        Whether they are whole numbers.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    @classmethod
    def read(cls, text: str, parameter: Parameter) -> Range:
        """Read a range as people type it, ``1e-4..1e-2:log``.

        Examples
        --------
        >>> rate = next(p for p in parameters() if p.name == "learning_rate")
        >>> Range.read("1e-4..1e-2:log", rate)
        Range(low=0.0001, high=0.01, log=True, whole=False)
        """
        found = re.fullmatch(r"(.+)\.\.(.+?)(:log)?", text)
        kind = parameter.item or parameter.type
        if found is None or kind not in (int, float):
            raise ValueError(
                f"{parameter.name} is {text!r}; a range of numbers is written LOW..HIGH or LOW..HIGH:log, and other "
                f"parameters take choices separated by commas."
            )
        low, high = (_number(end, parameter) for end in found.group(1, 2))
        if not low < high or (found[3] and low <= 0):
            above = " above 0" if found[3] else ""
            raise ValueError(f"{parameter.name} is {text!r}; its low end must be{above} below its high end.")
        return cls(low, high, bool(found[3]), kind is int)

    def draw(self, random: np.random.Generator) -> float:
        """Draw a number."""
        if self.whole and not self.log:
            return int(random.integers(int(self.low), int(self.high), endpoint=True))
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = random.uniform(low, high)
        return self.settled(math.exp(value) if self.log else value)

    def settled(self, value: float) -> float:
        """Return the number that a run takes for it: whole, or of six digits, and in the range."""
        return min(max(round(value) if self.whole else float(f"{value:.6g}"), self.low), self.high)


def _number(text: str, parameter: Parameter) -> float:
    """Read one end of a range; a time may have a unit."""
    value = parameter.read(text)
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(value, str) and parameter.unit == "s":
        value = getattr(Config.from_dict({"duration": 1e6, parameter.name: value}), parameter.name)
    whole = (parameter.item or parameter.type) is int
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not math.isfinite(value):
        raise ValueError(f"{parameter.name} has {text!r} as an end of its range; it must be a number.")
    return value if whole else float(value)


class Space:
    """Which values each parameter of a run may take.

    Parameters
    ----------
    values : mapping
        For each parameter its value, a list of choices, or a range as text (``"1e-4..1e-2:log"``); for one that is
        itself a list, as `hidden`, a list in which each entry may be a range, or a list of such lists.

    Raises
    ------
    ValueError, TypeError
        If a name is no parameter, or a value is not allowed whatever the others are.

    Examples
    --------
    >>> space = Space({"learning_rate": "1e-4..1e-2:log", "rule": ["drop", "graded"], "epochs": 3})
    >>> list(space.free), space.config({"learning_rate": 0.001, "rule": "graded"}).rule
    (['learning_rate', 'rule'], 'graded')
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        known = {p.name: p for p in parameters()}
        self.free: dict[str, Range | list[Any]] = {}
        self._fixed: dict[str, Any] = {}
        self._templates: dict[str, list[Any]] = {}  # of parameters that are lists: values, and names of free entries
        Config.from_dict({"dataset": "mnist_small"} | dict.fromkeys(values.keys() - known.keys()))  # refuses names
        for name, given in values.items():
            self._add(known[name], given)
        if not self.free:
            raise ValueError("Nothing is free; give at least one parameter a range, as 1e-4..1e-2:log, or choices.")
        self._check_ends()

    def _add(self, parameter: Parameter, given: Any) -> None:
        """Take in what is given for one parameter."""
        name, choices = parameter.name, list(given) if isinstance(given, (list, tuple)) else [given]
        if parameter.type is tuple and not any(isinstance(choice, (list, tuple)) for choice in choices):
            choices = [choices]
        if not choices:
            raise ValueError(f"{name} has no values; give at least one.")
        if len(choices) > 1:
            if any(_is_range(choice, parameter) for choice in choices):
                raise ValueError(f"{name} has a range among its choices; give one range, or choices.")
            self.free[name] = choices
        elif not _is_range(choices[0], parameter):
            self._fixed[name] = choices[0]
        elif parameter.type is tuple:
            entries = choices[0]
            self._templates[name] = []
            for i, entry in enumerate(entries):
                own = name if len(entries) == 1 else f"{name} {i + 1}"
                is_free = _is_range(entry, parameter)
                if is_free:
                    self.free[own] = Range.read(entry, parameter)
                self._templates[name].append((own, None) if is_free else ("", entry))
        else:
            self.free[name] = Range.read(choices[0], parameter)

    def _check_ends(self) -> None:
        """Refuse what no run could have: each end and choice is tried with several values of the others."""
        random = np.random.default_rng(0)
        for name, axis in self.free.items():
            for end in (axis.low, axis.high) if isinstance(axis, Range) else axis:
                for draw in range(20):
                    try:
                        self.config(self._draw(random) | {name: end})
                        break
                    except (ValueError, TypeError):
                        if draw == 19:
                            raise

    def config(self, point: Point) -> Config:
        """Return the run at a point; a ValueError if its values are not allowed together."""
        values = self._fixed | {name: value for name, value in point.items() if name not in self._entries}
        for name, template in self._templates.items():
            values[name] = [point[own] if own else value for own, value in template]
        return Config.from_dict(values)

    @property
    def _entries(self) -> set[str]:
        return {own for template in self._templates.values() for own, _ in template}

    def _draw(self, random: np.random.Generator) -> Point:
        return {
            name: axis.draw(random) if isinstance(axis, Range) else axis[int(random.integers(len(axis)))]
            for name, axis in self.free.items()
        }

    def points(self, seed: int) -> Iterator[tuple[Point, Config]]:
        """Draw points, always the same for a seed, each once; it ends where no other is found."""
        seen: set[str] = set()
        number = last = 0
        while number - last < _DRAWS:
            point = self._draw(np.random.default_rng([seed, number]))
            number += 1
            if (config := self.allowed(point)) is not None and config.identity not in seen:
                seen.add(config.identity)
                last = number
                yield point, config

    def allowed(self, point: Point) -> Config | None:
        """Return the run at a point, None where its values are not allowed together."""
        try:
            return self.config(point)
        except (ValueError, TypeError):
            return None

    def point_of(self, config: Config) -> Point | None:
        """Return the point at which a run lies; None if that is not in the space."""
        point = {}
        for name, axis in self.free.items():
            own, _, entry = name.partition(" ")
            value = getattr(config, own)
            if isinstance(axis, Range):
                if isinstance(value, tuple):
                    value = value[int(entry or 1) - 1] if len(value) >= int(entry or 1) else math.nan
                if not axis.low <= value <= axis.high:
                    return None
                point[name] = value
            else:  # a choice may stand for the preset's value
                same = [
                    c for c in axis if (run := self.allowed_with(config, own, c)) and run.identity == config.identity
                ]
                if not same:
                    return None
                point[name] = same[0]
        own_run = self.allowed(point)
        return point if own_run is not None and own_run.identity == config.identity else None

    @staticmethod
    def allowed_with(config: Config, name: str, value: Any) -> Config | None:
        """Return a run with one value changed, None where that is not allowed."""
        try:
            return config.replace(**{name: value})
        except (ValueError, TypeError):
            return None


def _is_range(value: Any, parameter: Parameter) -> bool:
    """Whether a value is a range as text, or a list with one in it; the path of an .npz may have dots, too."""
    if isinstance(value, (list, tuple)):
        return any(_is_range(entry, parameter) for entry in value)
    return isinstance(value, str) and ".." in value and parameter.type is not str
